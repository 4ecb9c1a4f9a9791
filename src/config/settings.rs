//! Reads the settings of a target into the type of its driver, with every mistake.
//!
//! Serde stops at the first mistake. So the table is read repeatedly: each mistake is recorded and its value removed,
//! until the rest can be read, or nothing more can be removed. The JSON Schema of the type shows which keys exist,
//! and which are missing.

use std::collections::BTreeSet;

use figment::error::{Error, Kind};
use figment::value::{Dict, Value};
use landfall_adapter::Mistakes;
use landfall_adapter::schemars::{JsonSchema, schema_for};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

/// The keys of a table.
pub(crate) struct Keys {
    schema: Json,
}

impl Keys {
    /// The keys of a type.
    pub(crate) fn of<T: JsonSchema>() -> Self {
        Self { schema: schema_for!(T).to_value() }
    }

    /// Every key that the table may have, with dots; for a map, the keys that the table has.
    pub(crate) fn known(&self, table: &Dict) -> BTreeSet<String> {
        let mut known = BTreeSet::new();
        self.walk(&self.schema, "", Some(table), &mut known, &mut Vec::new());
        known
    }

    /// Required keys that the table does not have.
    pub(crate) fn missing(&self, table: &Dict) -> Vec<String> {
        let mut missing = Vec::new();
        self.walk(&self.schema, "", Some(table), &mut BTreeSet::new(), &mut missing);
        missing
    }

    fn walk(
        &self,
        schema: &Json,
        prefix: &str,
        table: Option<&Dict>,
        known: &mut BTreeSet<String>,
        missing: &mut Vec<String>,
    ) {
        let schema = self.resolved(schema);
        let alternatives =
            ["anyOf", "oneOf", "allOf"].into_iter().filter_map(|key| schema.get(key)?.as_array());
        for alternative in alternatives.flatten() {
            // Serde reports the missing keys of an alternative, so they are not collected here.
            self.walk(alternative, prefix, table, known, &mut Vec::new());
        }
        let properties = schema.get("properties").and_then(Json::as_object);
        for (name, property) in properties.into_iter().flatten() {
            let key = format!("{prefix}{name}");
            let inner = match table.and_then(|table| table.get(name)) {
                Some(Value::Dict(_, inner)) => Some(inner),
                _ => None,
            };
            // The required keys of an absent optional table are not reported as missing.
            let mut unasked = Vec::new();
            let missing = if inner.is_some() { &mut *missing } else { &mut unasked };
            self.walk(property, &format!("{key}."), inner, known, missing);
            known.insert(key);
        }
        if schema.get("additionalProperties").is_some_and(|more| *more != Json::Bool(false)) {
            let names = table.into_iter().flat_map(|table| table.iter());
            for (name, value) in names {
                known.insert(format!("{prefix}{name}"));
                let mut below = Vec::new();
                super::leaves(&format!("{prefix}{name}"), value, &mut below);
                known.extend(below);
            }
        }
        if let (Some(table), Some(required)) = (table, schema.get("required").and_then(Json::as_array)) {
            let absent = required.iter().filter_map(Json::as_str).filter(|name| !table.contains_key(*name));
            missing.extend(absent.map(|name| format!("{prefix}{name}")));
        }
    }

    fn resolved<'a>(&'a self, schema: &'a Json) -> &'a Json {
        let name = schema.get("$ref").and_then(Json::as_str).and_then(|at| at.strip_prefix("#/$defs/"));
        name.and_then(|name| self.schema.get("$defs")?.get(name)).unwrap_or(schema)
    }
}

/// Reads the settings in a table with known keys only. `None` if the table cannot be read even without its
/// wrong values.
pub(crate) fn read<T: DeserializeOwned>(mut table: Dict, mistakes: &mut Mistakes) -> Option<T> {
    loop {
        let errors: Vec<Error> = match Value::from(table.clone()).deserialize::<T>() {
            Ok(settings) => return Some(settings),
            Err(error) => error.into_iter().collect(),
        };
        let mut changed = false;
        for Error { path, kind, .. } in errors {
            let mut at = path.clone();
            match kind {
                // `Keys::missing` does not look into tables in lists, so the missing key is reported here.
                Kind::MissingField(name) if is_in_list(&table, &path) => {
                    mistakes.add(format!("{}.{name}", path.join(".")), "is missing");
                }
                // The key was reported by `Keys::missing`, or its wrong value was removed. The table around it
                // cannot be read, which is not another mistake.
                Kind::MissingField(_) => {}
                Kind::UnknownField(name, _) => {
                    if at.last() != Some(&name) {
                        at.push(name);
                    }
                    mistakes.add(at.join("."), "is not a key that is known here");
                }
                kind => mistakes.add(at.join("."), kind),
            }
            changed |= take(&mut table, &at);
        }
        if !changed {
            return None;
        }
    }
}

fn is_in_list(table: &Dict, path: &[String]) -> bool {
    let Some((first, rest)) = path.split_first() else { return false };
    match table.get(first) {
        Some(Value::Dict(_, inner)) => is_in_list(inner, rest),
        Some(Value::Array(..)) => true,
        _ => false,
    }
}

/// Removes the value at a path, or the nearest one around it.
fn take(table: &mut Dict, path: &[String]) -> bool {
    let Some((first, rest)) = path.split_first() else { return false };
    if let Some(Value::Dict(_, inner)) = table.get_mut(first)
        && take(inner, rest)
    {
        return true;
    }
    table.remove(first).is_some()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use figment::Figment;
    use figment::providers::{Format, Toml};
    use landfall_adapter::settings::{Count, SecretReference, Span};
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[schemars(crate = "landfall_adapter::schemars")]
    #[expect(dead_code, reason = "only what is wrong is looked at")]
    struct Sample {
        url: SecretReference,
        folder: String,
        tries: Option<Count>,
        wait: Option<Span>,
        retry: Option<Retry>,
        #[serde(default)]
        variables: BTreeMap<String, u8>,
        #[serde(default)]
        list: Vec<Retry>,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[schemars(crate = "landfall_adapter::schemars")]
    #[expect(dead_code, reason = "only what is wrong is looked at")]
    struct Retry {
        times: u8,
        pause: Span,
    }

    fn table(text: &str) -> Dict {
        Figment::from(Toml::string(text)).extract().unwrap()
    }

    fn mistakes(text: &str) -> Vec<String> {
        let mut mistakes = Mistakes::new();
        let read = read::<Sample>(table(text), &mut mistakes);
        let mistakes: Vec<_> =
            mistakes.into_iter().map(|(key, message)| format!("{key}: {message}")).collect();
        assert!(read.is_some() || !mistakes.is_empty());
        mistakes
    }

    #[test]
    fn reports_every_mistake_at_once() {
        let text = "url = \"hunter2\"\nfolder = 7\ntries = 0\nwait = \"1\"\nretry = { times = 300, pause = \"0s\" }\n\
                    variables = { a = \"x\", b = 1 }\n";
        assert_eq!(
            mistakes(text),
            [
                "folder: invalid type: found signed int `7`, expected a string",
                "retry.pause: `0s` is too short; at least 1 ms is needed",
                "retry.times: invalid value signed int `300`, expected u8",
                "tries: `0` is too small; at least 1 is needed",
                "url: must be one of `{ env = \"NAME\" }` and `{ file = \"PATH\" }`",
                "variables.a: invalid type: found string \"x\", expected u8",
                "wait: `1` is not a duration; write a number and a unit: 500ms, 30s, 5m, 1h",
            ]
        );
    }

    #[test]
    fn tables_in_lists_are_read_too() {
        let with =
            |list: &str| mistakes(&format!("url = {{ env = \"A\" }}\nfolder = \"f\"\nlist = [{list}]\n"));
        assert_eq!(with("{ times = 1 }"), ["list.0.pause: is missing"]);
        assert_eq!(
            with("{ times = 1, pause = \"1s\", paws = 1 }"),
            ["list.0.paws: is not a key that is known here"]
        );
        assert_eq!(with("{ times = 1, pause = \"1s\" }"), Vec::<String>::new());
    }

    #[test]
    fn keys_are_known_from_the_type() {
        let keys = Keys::of::<Sample>();
        let known = keys.known(&table("variables = { a = 1 }\n"));
        let expected = [
            "folder",
            "list",
            "retry",
            "retry.pause",
            "retry.times",
            "tries",
            "url",
            "url.env",
            "url.file",
            "variables",
            "variables.a",
            "wait",
        ];
        assert_eq!(known.into_iter().collect::<Vec<_>>(), expected);
        assert_eq!(keys.missing(&table("retry = { times = 1 }\n")), ["url", "folder"]);
    }
}
