//! Instances: deployment targets as operators see and change them while the service runs.
//!
//! This module decides the result of an edit, without I/O; the store only locks the row. The attributes are those of
//! the FlexDeploy Instance API, and problems use its names.

use std::collections::HashSet;
use std::hash::Hash;

use serde::{Deserialize, Serialize};

use landfall_adapter::descriptor::Problem;

/// A deployment target in the topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Assigned by the store; never changes and is never reused.
    pub id: i64,
    /// The attributes that can change.
    pub attributes: Attributes,
}

/// The attributes of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Attributes {
    /// `instanceCode`: names the configured target. Unique; upper and lower case are equal.
    pub code: String,
    /// `instanceName`
    pub name: String,
    /// `description`
    pub description: Option<String>,
    /// `groupCode`: the group that routes lead to.
    pub group: Option<String>,
    /// `subGroupCode`
    pub sub_group: Option<String>,
    /// Ids of the environments that it serves; empty: none.
    pub environments: Vec<i64>,
    /// Ids of workflows; stored without effect.
    pub workflows: Vec<i64>,
    /// Allowed operations; empty: all.
    pub plugin_operations: Vec<PluginOperation>,
    /// Whether new components may be placed there.
    pub is_active: bool,
    /// Whether it can ever be a target.
    pub is_deployment_target: bool,
}

/// An operation that an instance offers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PluginOperation {
    /// Stored without effect.
    pub plugin_id: i64,
    /// `provision` and `reverseProvision`, operationIds of the Tech Adapter contract, allow provisioning and imports;
    /// other names have no effect.
    pub operation: String,
}

/// New values for some attributes. Absent ones do not change, and lists are appended to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Patch {
    /// `instanceCode`
    pub code: Option<String>,
    /// `instanceName`
    pub name: Option<String>,
    /// `description`
    pub description: Option<String>,
    /// `groupCode`
    pub group: Option<String>,
    /// `subGroupCode`
    pub sub_group: Option<String>,
    /// Environments to add.
    pub environments: Vec<i64>,
    /// Workflows to add.
    pub workflows: Vec<i64>,
    /// Operations to add.
    pub plugin_operations: Vec<PluginOperation>,
    /// `isActive`
    pub is_active: Option<bool>,
    /// `isDeploymentTarget`
    pub is_deployment_target: Option<bool>,
}

/// An edit of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Creates an instance.
    Create(Attributes),
    /// Replaces all attributes of the instance with this id.
    Replace(i64, Attributes),
    /// Changes some attributes.
    Patch(i64, Patch),
}

/// The maximum length of a code, a name or an operation, because a code must fit into an index.
const MAX_NAME: usize = 255;

/// The limits of a topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopologyLimits {
    /// The maximum number of instances.
    pub max_instances: u32,
    /// The maximum number of entries in each list of an instance.
    pub max_entries: u32,
    /// The maximum length of a description, in characters; other texts have at most 255.
    pub max_text: u32,
}

impl Default for TopologyLimits {
    fn default() -> Self {
        Self { max_instances: 1_000, max_entries: 1_000, max_text: 4_000 }
    }
}

impl Attributes {
    /// The same attributes without duplicate list entries.
    #[must_use]
    pub fn without_repetition(self) -> Self {
        Self {
            environments: appended(Vec::new(), self.environments),
            workflows: appended(Vec::new(), self.workflows),
            plugin_operations: appended(Vec::new(), self.plugin_operations),
            ..self
        }
    }

    /// The attributes after a patch.
    #[must_use]
    pub fn patched(self, patch: Patch) -> Self {
        Self {
            code: patch.code.unwrap_or(self.code),
            name: patch.name.unwrap_or(self.name),
            description: patch.description.or(self.description),
            group: patch.group.or(self.group),
            sub_group: patch.sub_group.or(self.sub_group),
            environments: appended(self.environments, patch.environments),
            workflows: appended(self.workflows, patch.workflows),
            plugin_operations: appended(self.plugin_operations, patch.plugin_operations),
            is_active: patch.is_active.unwrap_or(self.is_active),
            is_deployment_target: patch.is_deployment_target.unwrap_or(self.is_deployment_target),
        }
    }

    /// Every problem of these attributes, except those that they had `before`: an instance that exceeds lowered
    /// limits can still be switched off.
    pub fn check(&self, before: Option<&Self>, limits: &TopologyLimits) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (path, text) in [("instanceCode", &self.code), ("instanceName", &self.name)] {
            if text.trim().is_empty() {
                problems.push(Problem::new(path, "is blank").remedy("give the instance one"));
            } else if text.chars().any(char::is_control) {
                let problem = Problem::new(path, "has a control character").value(text);
                problems.push(problem.remedy("write it in plain text"));
            }
        }
        type Text = fn(&Attributes) -> Option<&String>;
        let texts: [(&str, Text, usize); 5] = [
            ("instanceCode", |it| Some(&it.code), MAX_NAME),
            ("instanceName", |it| Some(&it.name), MAX_NAME),
            ("description", |it| it.description.as_ref(), limits.max_text as usize),
            ("groupCode", |it| it.group.as_ref(), MAX_NAME),
            ("subGroupCode", |it| it.sub_group.as_ref(), MAX_NAME),
        ];
        let mut too_long = |path: &str, text: &str, most: usize| {
            let length = text.chars().count();
            if length > most {
                let raise = if path == "description" { ", or raise topology.max_text" } else { "" };
                let problem = Problem::new(path, format!("has {length} characters, {most} are kept"));
                problems.push(problem.remedy(format!("shorten it{raise}")));
            }
        };
        for (path, text, most) in texts {
            if let Some(value) = text(self).filter(|value| before.and_then(text) != Some(value)) {
                too_long(path, value, most);
            }
        }
        for entry in &self.plugin_operations {
            if before.is_none_or(|before| !before.plugin_operations.contains(entry)) {
                too_long("pluginOperations", &entry.operation, MAX_NAME);
            }
        }
        type Length = fn(&Attributes) -> usize;
        let lists: [(&str, Length); 3] = [
            ("environments", |it| it.environments.len()),
            ("workflows", |it| it.workflows.len()),
            ("pluginOperations", |it| it.plugin_operations.len()),
        ];
        for (path, length_of) in lists {
            let length = length_of(self);
            if length > limits.max_entries as usize && before.is_none_or(|before| length > length_of(before))
            {
                let what = format!("would have {length} entries, {} are kept", limits.max_entries);
                problems.push(
                    Problem::new(path, what)
                        .remedy("replace the list by a shorter one, or raise topology.max_entries"),
                );
            }
        }
        problems
    }
}

/// Appends the entries of `more` that `list` does not have.
fn appended<T: Eq + Hash + Clone>(mut list: Vec<T>, more: Vec<T>) -> Vec<T> {
    let mut known: HashSet<T> = list.iter().cloned().collect();
    list.extend(more.into_iter().filter(|entry| known.insert(entry.clone())));
    list
}

/// A filter for instances; all given values must match, and upper and lower case are equal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Equals `instanceCode`.
    pub code: Option<String>,
    /// Is contained in `instanceName`.
    pub name: Option<String>,
    /// Equals `groupCode`; empty: without a group.
    pub group: Option<String>,
    /// Equals `subGroupCode`; empty: without a subgroup.
    pub sub_group: Option<String>,
}

impl Filter {
    /// Whether an instance matches.
    pub fn matches(&self, instance: &Instance) -> bool {
        let Attributes { code, name, group, sub_group, .. } = &instance.attributes;
        let equal = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_ref().is_none_or(|wanted| same_code(wanted, found.unwrap_or_default()))
        };
        equal(&self.code, Some(code))
            && equal(&self.group, group.as_deref())
            && equal(&self.sub_group, sub_group.as_deref())
            && self.name.as_ref().is_none_or(|part| code_key(name).contains(&code_key(part)))
    }
}

/// The form in which codes are compared: lower case.
pub fn code_key(code: &str) -> String {
    code.to_lowercase()
}

/// Whether two codes are equal, ignoring upper and lower case.
pub fn same_code(one: &str, other: &str) -> bool {
    code_key(one) == code_key(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes() -> Attributes {
        Attributes {
            code: "EXAMPLECODE".into(),
            name: "Example Name".into(),
            description: Some("Example description".into()),
            group: Some("Group".into()),
            sub_group: Some("Sub Group".into()),
            environments: vec![11001],
            ..Attributes::default()
        }
    }

    fn operation(plugin_id: i64, operation: &str) -> PluginOperation {
        PluginOperation { plugin_id, operation: operation.into() }
    }

    #[test]
    fn patch_keeps_absent_attributes_and_appends_to_lists() {
        assert_eq!(attributes().patched(Patch::default()), attributes());
        let patch = Patch {
            code: Some("NEW".into()),
            description: Some(String::new()),
            environments: vec![11002, 11001, 11002],
            workflows: vec![7],
            plugin_operations: vec![operation(1, "provision")],
            is_active: Some(true),
            ..Patch::default()
        };
        let patched = attributes().patched(patch.clone());
        let expected = Attributes {
            code: "NEW".into(),
            description: Some(String::new()),
            environments: vec![11001, 11002],
            workflows: vec![7],
            plugin_operations: vec![operation(1, "provision")],
            is_active: true,
            ..attributes()
        };
        assert_eq!(patched, expected);
        assert_eq!(patched.patched(patch), expected, "a repeat changes nothing");
    }

    #[test]
    fn reports_every_problem() {
        let limits = TopologyLimits { max_instances: 1, max_entries: 1, max_text: 20 };
        let problems = |attributes: Attributes| {
            attributes.check(None, &limits).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(problems(attributes()), Vec::<String>::new());
        let wrong = Attributes {
            code: " ".into(),
            name: String::new(),
            description: Some("x".repeat(21)),
            environments: vec![1, 2],
            plugin_operations: vec![operation(1, &"p".repeat(256))],
            ..attributes()
        };
        assert_eq!(
            problems(wrong.clone()),
            [
                "instanceCode: is blank",
                "instanceName: is blank",
                "description: has 21 characters, 20 are kept",
                "pluginOperations: has 256 characters, 255 are kept",
                "environments: would have 2 entries, 1 are kept",
            ]
        );
        let odd = Attributes { code: "a\0b".into(), name: "n".repeat(256), ..attributes() };
        assert_eq!(
            problems(odd),
            [
                "instanceCode: has a control character: `a b`",
                "instanceName: has 256 characters, 255 are kept"
            ]
        );
        let before = Attributes { code: "A".into(), name: "a".into(), ..wrong };
        let off = before.clone().patched(Patch { is_active: Some(false), ..Patch::default() });
        assert_eq!(off.check(Some(&before), &limits), [], "what is over the limits can be switched off");
        let more = before.clone().patched(Patch { environments: vec![3], ..Patch::default() });
        assert_eq!(more.check(Some(&before), &limits).len(), 1);
    }

    #[test]
    fn filter_matches_all_conditions_without_case() {
        let instance = Instance { id: 1, attributes: attributes() };
        let some = |text: &str| Some(text.to_owned());
        let filter = Filter::default();
        for (filter, expected) in [
            (filter.clone(), true),
            (Filter { code: some("exampleCODE"), ..filter.clone() }, true),
            (Filter { code: some("example"), ..filter.clone() }, false),
            (Filter { name: some("PLE n"), ..filter.clone() }, true),
            (Filter { name: some(""), ..filter.clone() }, true),
            (Filter { name: some("x-"), ..filter.clone() }, false),
            (Filter { group: some("GROUP"), sub_group: some("sub group"), ..filter.clone() }, true),
            (Filter { group: some("GROUP"), sub_group: some("sub"), ..filter.clone() }, false),
            (Filter { group: some(""), ..filter }, false),
        ] {
            assert_eq!(filter.matches(&instance), expected, "{filter:?}");
        }
    }
}
