//! The Instance: a deployment target as operators see and change it while the service runs.
//!
//! What an edit comes to is decided here, purely; the store only holds the row still while that happens. The attributes
//! are those of the FlexDeploy Instance API, and problems name them as that contract does.

use std::collections::HashSet;
use std::hash::Hash;

use serde::{Deserialize, Serialize};

use landfall_adapter::descriptor::Problem;

/// A deployment target in the topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Made by the store; never changes and is never given again.
    pub id: i64,
    /// Everything that can be changed.
    pub attributes: Attributes,
}

/// What an operator says of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Attributes {
    /// `instanceCode`: names the configured target. Unique without case.
    pub code: String,
    /// `instanceName`
    pub name: String,
    /// `description`
    pub description: Option<String>,
    /// `groupCode`: what routes lead to.
    pub group: Option<String>,
    /// `subGroupCode`
    pub sub_group: Option<String>,
    /// Ids of the environments that it serves; none: none.
    pub environments: Vec<i64>,
    /// Ids of workflows; kept, and not interpreted.
    pub workflows: Vec<i64>,
    /// What may be done there; empty: everything.
    pub plugin_operations: Vec<PluginOperation>,
    /// Whether anything may be placed there.
    pub is_active: bool,
    /// Whether anything may be placed there, for good.
    pub is_deployment_target: bool,
}

/// An operation that an instance offers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PluginOperation {
    /// Kept, and not interpreted.
    pub plugin_id: i64,
    /// `provision` and `reverseProvision`, operationIds of the Tech Adapter contract, say what may be placed or imported;
    /// other names mean nothing here.
    pub operation: String,
}

/// New values for some attributes; what is absent stays, and lists are appended to.
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

/// A change of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// A new one.
    Create(Attributes),
    /// All attributes of the one with this id.
    Replace(i64, Attributes),
    /// Some of them.
    Patch(i64, Patch),
}

/// Characters of a code, a name or an operation: a code has to fit into an index.
const MAX_NAME: usize = 255;

/// How much of a topology is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopologyLimits {
    /// Instances.
    pub max_instances: u32,
    /// Entries of each list of an instance.
    pub max_entries: u32,
    /// Characters of a description; other texts have 255 at most.
    pub max_text: u32,
}

impl Default for TopologyLimits {
    fn default() -> Self {
        Self { max_instances: 1_000, max_entries: 1_000, max_text: 4_000 }
    }
}

impl Attributes {
    /// The same with each entry of a list once.
    #[must_use]
    pub fn without_repetition(self) -> Self {
        Self {
            environments: appended(Vec::new(), self.environments),
            workflows: appended(Vec::new(), self.workflows),
            plugin_operations: appended(Vec::new(), self.plugin_operations),
            ..self
        }
    }

    /// What a patch makes of them.
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

    /// Everything wrong with what they are, apart from what they were `before`: limits may have been others then, and
    /// what is over them can still be switched off.
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

/// `more` behind `list`, without what is there already.
fn appended<T: Eq + Hash + Clone>(mut list: Vec<T>, more: Vec<T>) -> Vec<T> {
    let mut known: HashSet<T> = list.iter().cloned().collect();
    list.extend(more.into_iter().filter(|entry| known.insert(entry.clone())));
    list
}

/// Which instances to list; all that is given must hold, without case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Equals `instanceCode`.
    pub code: Option<String>,
    /// Is part of `instanceName`.
    pub name: Option<String>,
    /// Equals `groupCode`; empty: it has none.
    pub group: Option<String>,
    /// Equals `subGroupCode`; empty: it has none.
    pub sub_group: Option<String>,
}

impl Filter {
    /// Whether an instance is one of them.
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

/// The form in which codes are compared.
pub fn code_key(code: &str) -> String {
    code.to_lowercase()
}

/// Whether two codes are one.
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
    fn a_patch_keeps_what_it_does_not_name_and_appends_to_lists() {
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
    fn everything_that_is_wrong_is_told() {
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
    fn a_filter_holds_when_all_of_it_does_without_case() {
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
