//! The documents of `landfall.plugin/1`: one request, and the lines of a response. protocol.md in this crate is the
//! specification, and the JSON Schemas in spec/plugin/ are made from these types.

use std::borrow::Cow;
use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use landfall_adapter::Owner;
use landfall_adapter::descriptor::Object;
use landfall_adapter::naming;
use landfall_adapter::schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The protocol of this version.
pub const PROTOCOL: &str = "landfall.plugin/1";

/// What a plug-in is asked to do: its last argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(crate = "landfall_adapter::schemars")]
pub enum Verb {
    /// Say what the plug-in is and can do.
    Describe,
    /// Report the problems of a component that only the target can tell.
    Check,
    /// Say what `provision` or `unprovision` would change.
    Plan,
    /// Create or update a component.
    Provision,
    /// Remove a component.
    Unprovision,
    /// Grant and revoke access to a component.
    Access,
    /// Read an existing resource into catalog updates.
    Reverse,
}

impl Verb {
    /// All verbs, in the order of the specification.
    pub const ALL: [Self; 7] = [
        Self::Describe,
        Self::Check,
        Self::Plan,
        Self::Provision,
        Self::Unprovision,
        Self::Access,
        Self::Reverse,
    ];

    /// The verb as an argument.
    pub fn name(self) -> &'static str {
        match self {
            Self::Describe => "describe",
            Self::Check => "check",
            Self::Plan => "plan",
            Self::Provision => "provision",
            Self::Unprovision => "unprovision",
            Self::Access => "access",
            Self::Reverse => "reverse",
        }
    }
}

/// The document on standard input.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(crate = "landfall_adapter::schemars")]
pub struct Request<'a> {
    /// The protocol that is spoken: `landfall.plugin/1`.
    pub protocol: &'static str,
    /// The verb, as in the last argument.
    pub verb: Verb,
    /// The operation that this run belongs to.
    pub operation: OperationPart,
    /// The configured target.
    pub target: TargetPart<'a>,
    /// The Witboost environment. Absent for `describe`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<&'a str>,
    /// The owner of every resource of the component. Only for verbs on a component.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<OwnerPart>,
    /// The component as it was sent, with every field. Only for verbs on a component.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component: Option<&'a Value>,
    /// The data product as it was sent, with all its components. Only for verbs on a component.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product: Option<&'a Value>,
    /// What the components in `dependsOn` published, by id.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dependencies: BTreeMap<String, Published>,
    /// The wanted access: for `access`, and for `provision` once access was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessPart>,
    /// For `unprovision`, and for a `plan` of it: whether data is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove_data: Option<bool>,
    /// For `plan`: the verb that would run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan_of: Option<Verb>,
    /// The last state of the component, from a `state` line or a result; null if there is none.
    pub state: Option<&'a Value>,
    /// For `reverse`: what is to be imported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub import: Option<ImportPart<'a>>,
}

/// The operation of a request.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(crate = "landfall_adapter::schemars")]
pub struct OperationPart {
    /// The token of the task: the same for each attempt. Null outside of a task.
    pub id: Option<String>,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// When the run is ended, by RFC 3339.
    #[schemars(with = "String")]
    pub deadline: DateTime<Utc>,
    /// Whether nothing may be changed.
    pub dry_run: bool,
}

/// The target of a request.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(crate = "landfall_adapter::schemars")]
pub struct TargetPart<'a> {
    /// Its code.
    pub code: &'a str,
    /// `settings` of its configuration.
    pub settings: &'a Object,
}

/// The owner of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(crate = "landfall_adapter::schemars")]
pub struct OwnerPart {
    /// Component id.
    pub component: String,
    /// Witboost environment.
    pub environment: String,
    /// A name that is unique to the component and the environment, and can name a file, a table or a role: at most 56
    /// characters of `a-z`, `0-9` and `_`, beginning with a letter.
    pub key: String,
}

impl From<Owner> for OwnerPart {
    fn from(Owner { component, environment }: Owner) -> Self {
        let key = key(&component, &environment);
        Self { component, environment, key }
    }
}

/// The key of an owner. Keys are stored in targets, so this never changes.
fn key(component: &str, environment: &str) -> String {
    /// Room for a prefix of the plug-in within the 63 bytes of a PostgreSQL name.
    const LIMIT: usize = 56;
    let readable = naming::joined(&[component], '_');
    naming::with_hash(&format!("c_{readable}"), '_', LIMIT, &[component, environment])
}

/// What a component published.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(crate = "landfall_adapter::schemars")]
pub struct Published {
    /// `info.publicInfo`.
    pub public_info: Object,
    /// `info.privateInfo`.
    pub private_info: Object,
}

/// The wanted access.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(crate = "landfall_adapter::schemars")]
pub struct AccessPart {
    /// Everyone who may read the component.
    pub principals: Vec<Principal>,
    /// Those of `principals` who may not read it yet, as far as Landfall knows.
    pub grant: Vec<Principal>,
    /// Who may read it, and is not in `principals`.
    pub revoke: Vec<Principal>,
}

/// A user or a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "landfall_adapter::schemars")]
pub struct Principal {
    /// The ref of the platform: `user:alice_example.com`.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Its name in the target.
    pub name: String,
}

/// What is to be imported.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(crate = "landfall_adapter::schemars")]
pub struct ImportPart<'a> {
    /// `useCaseTemplateId` of the request.
    pub use_case_template_id: &'a str,
    /// `params` of the request.
    pub params: &'a Object,
    /// `catalogInfo` of the request.
    pub catalog_info: &'a Object,
}

/// A line on standard output.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
#[schemars(crate = "landfall_adapter::schemars")]
pub enum Line {
    /// A line of the log that users see.
    Log(LogPart),
    /// How far the work is.
    Progress(ProgressPart),
    /// A checkpoint, which is durable before the next line is read.
    State(StatePart),
    /// The work failed. The last line.
    Error(Failure),
    /// The work is done. The last line; what it has depends on the verb.
    Result(Box<Outcome>),
}

/// A log line.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(crate = "landfall_adapter::schemars")]
pub struct LogPart {
    /// INFO unless given.
    #[serde(default)]
    pub level: LogLevel,
    /// The text.
    pub message: String,
}

/// The level of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(crate = "landfall_adapter::schemars")]
pub enum LogLevel {
    /// For developers.
    Debug,
    /// For users.
    #[default]
    Info,
    /// Something that a user should see.
    Warning,
    /// Something that failed.
    Error,
}

/// Progress.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(crate = "landfall_adapter::schemars")]
pub struct ProgressPart {
    /// How much is done.
    pub done: u64,
    /// How much there is, if that is known.
    pub total: Option<u64>,
    /// What is being done.
    #[serde(default)]
    pub message: String,
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[schemars(crate = "landfall_adapter::schemars")]
pub struct StatePart {
    /// Any JSON of at most 192 KiB, without secrets. The next run gets it.
    pub state: Value,
}

/// Why the work failed.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[schemars(crate = "landfall_adapter::schemars")]
pub struct Failure {
    /// What the failure means.
    pub kind: FailureKind,
    /// A sentence for users: what is wrong, and the remedy.
    pub message: String,
    /// The problems of an invalid component.
    #[serde(default)]
    pub problems: Vec<ProblemPart>,
    /// For `retryable`: the shortest time to the next attempt, in seconds.
    pub after_s: Option<u64>,
}

/// The meaning of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(crate = "landfall_adapter::schemars")]
pub enum FailureKind {
    /// The component is wrong.
    Invalid,
    /// A resource of another owner has the name.
    Conflict,
    /// A later attempt may succeed.
    Retryable,
    /// The plug-in does not do that.
    Unsupported,
    /// A later attempt fails, too.
    Permanent,
}

/// A problem of a component.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(crate = "landfall_adapter::schemars")]
pub struct ProblemPart {
    /// The path from the component: `specific.columns[2].name`.
    #[serde(default)]
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// The remedy.
    pub fix: Option<String>,
}

/// The result of a verb. Each verb reads its own fields.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[schemars(crate = "landfall_adapter::schemars")]
pub struct Outcome {
    /// `describe`: the protocols that the plug-in speaks.
    #[serde(default)]
    pub protocols: Vec<String>,
    /// `describe`: the name that users see.
    pub name: Option<String>,
    /// `describe`: the version of the plug-in.
    pub version: Option<String>,
    /// `describe`: the kinds of component that it takes; all kinds unless given.
    pub kinds: Option<Vec<String>>,
    /// `describe`: what the verb `access` does.
    pub access: Option<AccessMeaning>,
    /// `describe`: the verbs that it has besides `describe`, `provision` and `unprovision`.
    #[serde(default)]
    pub verbs: Vec<Verb>,
    /// `describe`: whether work under way can be stopped; true unless given.
    pub stop: Option<bool>,
    /// `describe`: a JSON Schema of `specific` for each kind. The key `*` is for all other kinds.
    #[serde(default)]
    pub specific: BTreeMap<String, Value>,
    /// `describe`: a JSON Schema of the settings of a target.
    pub settings: Option<Value>,
    /// `check`: the problems; none if the component is valid.
    #[serde(default)]
    pub problems: Vec<ProblemPart>,
    /// `plan`: what would change. `provision`, `unprovision` and `access`: what was changed.
    #[serde(default)]
    pub changes: Vec<ChangePart>,
    /// `plan`: sentences for users.
    #[serde(default)]
    pub notes: Vec<String>,
    /// `provision`, `unprovision` and `access`: whether anything was changed.
    pub changed: Option<bool>,
    /// `provision`, `access`: what the platform shows; replaces what was published before.
    pub public_info: Option<Object>,
    /// `provision`, `access`: what the platform keeps with the component and does not show.
    pub private_info: Option<Object>,
    /// `provision`, `unprovision` and `access`: the last checkpoint.
    pub state: Option<Value>,
    /// `reverse`: catalog updates, by the dotted paths of their fields.
    pub updates: Option<Object>,
}

/// What the verb `access` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(crate = "landfall_adapter::schemars")]
pub enum AccessMeaning {
    /// The target itself gives access to exactly the listed identities.
    Enforced,
    /// The list is stored with the resource, and nothing prevents other reads.
    Recorded,
    /// Another system decides.
    Delegated,
    /// Access lists are ignored.
    None,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "landfall_adapter::schemars")]
pub struct ChangePart {
    /// The verb: `create`, `alter`, `drop`, `grant`, `revoke`, or any other.
    pub action: Cow<'static, str>,
    /// What is changed: `table sales.orders`.
    pub resource: String,
    /// A sentence for users.
    #[serde(default)]
    pub summary: String,
    /// Whether it deletes data that no later provisioning restores.
    #[serde(default)]
    pub destructive: bool,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_names_and_never_change() {
        for (component, key) in [
            ("urn:dmb:cmp:finance:cashflow:0:output-port", ""),
            ("a", ""),
            ("ÜBER", ""),
            (&"x".repeat(200), ""),
        ] {
            let found = super::key(component, "production");
            assert!(found.len() <= 56, "{found}");
            assert!(found.starts_with("c_"), "{found}");
            assert!(
                found.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{found}"
            );
            assert_ne!(found, super::key(component, "qa"));
            let _ = key;
        }
    }

    #[test]
    fn unknown_fields_are_ignored_and_unknown_types_refused() {
        let line = |text: &str| serde_json::from_str::<Line>(text).map_err(|error| error.to_string());
        assert_eq!(
            line(r#"{"type":"log","message":"a","color":"red"}"#),
            Ok(Line::Log(LogPart { level: LogLevel::Info, message: "a".to_owned() }))
        );
        let Ok(Line::Result(outcome)) = line(r#"{"type":"result","changed":true,"x":1,"state":{"a":1}}"#)
        else {
            panic!("a result")
        };
        assert_eq!((outcome.changed, outcome.state), (Some(true), Some(json!({ "a": 1 }))));
        assert!(line(r#"{"type":"done"}"#).unwrap_err().contains("unknown variant `done`"));
        assert!(line(r#"{"type":"error","message":"a"}"#).unwrap_err().contains("missing field `kind`"));
    }
}
