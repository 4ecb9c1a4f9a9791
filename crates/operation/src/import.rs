//! The keys of the updates that an import returns.
//!
//! Technologies return updates of the entity's catalog entry, below `spec.mesh`. An entity that was created from a
//! template may have its values in `parameters`, or in `environmentParameters` if they differ between environments.
//! [`ImportSettings::place`] moves updates there.

use landfall_adapter::descriptor::Object;
use landfall_adapter::import::MESH;

/// Settings of imports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportSettings {
    /// The parameter with the environment-specific values of an entity.
    pub environment_key: String,
    /// Maps the beginning of an update's key to its new prefixes: one update for each, none for an empty list.
    pub prefixes: Vec<(String, Vec<String>)>,
}

impl Default for ImportSettings {
    fn default() -> Self {
        Self {
            environment_key: "environmentSpecificConfig".to_owned(),
            prefixes: vec![(MESH.to_owned(), vec![MESH.to_owned()])],
        }
    }
}

impl ImportSettings {
    /// The updates with their new keys. The longest matching prefix applies; an update without one does not change.
    pub fn place(&self, updates: Object) -> Object {
        let mut placed = Object::new();
        for (key, value) in updates {
            let matching = self.prefixes.iter().filter_map(|(prefix, instead)| {
                let rest = key.strip_prefix(prefix.as_str())?;
                (rest.is_empty() || rest.starts_with('.')).then_some((prefix.len(), rest, instead))
            });
            match matching.max_by_key(|(length, ..)| *length) {
                None => {
                    placed.insert(key, value);
                }
                Some((_, rest, instead)) => {
                    for prefix in instead {
                        placed.insert(format!("{prefix}{rest}"), value.clone());
                    }
                }
            }
        }
        placed
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_longest_prefix_of_an_update_is_replaced() {
        let updates = json!({
            "spec.mesh.description": "d", "spec.mesh.dataContract.schema": [1], "spec.mesh.dataContract.SLA": {},
            "spec.mesh.specific.table": "t", "spec.mesh.tags": [], "spec.meshes": 1,
        });
        let updates = updates.as_object().unwrap();
        assert_eq!(ImportSettings::default().place(updates.clone()), *updates);
        let rules = |rules: &[(&str, &[&str])]| {
            let owned = |(from, to): &(&str, &[&str])| {
                ((*from).to_owned(), to.iter().map(|to| (*to).to_owned()).collect::<Vec<_>>())
            };
            ImportSettings { prefixes: rules.iter().map(owned).collect(), ..ImportSettings::default() }
        };
        let placed = rules(&[
            ("spec.mesh", &["spec.mesh", "parameters"]),
            ("spec.mesh.dataContract.schema", &["parameters.schemaDefinition.schemaColumns"]),
            ("spec.mesh.specific", &["environmentParameters"]),
            ("spec.mesh.tags", &[]),
        ])
        .place(updates.clone());
        let keys: Vec<&str> = placed.keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "spec.mesh.description",
                "parameters.description",
                "parameters.schemaDefinition.schemaColumns",
                "spec.mesh.dataContract.SLA",
                "parameters.dataContract.SLA",
                "environmentParameters.table",
                "spec.meshes",
            ]
        );
    }
}
