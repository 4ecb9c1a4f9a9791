//! The types of the engine: tokens, operations, tasks, deployments.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::operation::Operation;
use super::state::State;
use landfall_adapter::descriptor::{ComponentKind, Object};
use landfall_adapter::{AccessList, Info, LogLine};

/// Identifies a task to its submitter: 128 random bits (UUID version 4), so it cannot be guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(Uuid);

impl Token {
    /// A new token.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// The text is not a valid token. Clients get the same response as for an unknown token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a token")]
pub struct NotAToken;

impl FromStr for Token {
    type Err = NotAToken;

    /// Parses the text that [`fmt::Display`] writes. Uppercase is allowed, and so are the quotes of a JSON string,
    /// because some callers send back the unchanged body of the 202 response. Other spellings of a UUID are rejected:
    /// Landfall never returns them.
    fn from_str(text: &str) -> Result<Self, NotAToken> {
        let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
        let token = Self(Uuid::try_parse(bare).map_err(|_| NotAToken)?);
        if token.to_string().eq_ignore_ascii_case(bare) { Ok(token) } else { Err(NotAToken) }
    }
}

/// A component in an environment. Its tasks run one at a time, in the order of submission.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ComponentKey {
    /// Component id.
    pub component: String,
    /// Witboost environment name.
    pub environment: String,
}

impl ComponentKey {
    /// The key of `component` in `environment`, by their ids.
    pub fn new(component: impl Into<String>, environment: impl Into<String>) -> Self {
        Self { component: component.into(), environment: environment.into() }
    }
}

impl fmt::Display for ComponentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.component, self.environment)
    }
}

/// A task to submit.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTask {
    /// The operation; decides the lane and how the payload is read.
    pub operation: Operation,
    /// The components that only this task may change while it runs; empty for operations that change nothing. Order
    /// and duplicates do not matter.
    pub components: Vec<ComponentKey>,
    /// Codes of the targets that the task works on; order and duplicates do not matter.
    pub targets: Vec<String>,
    /// Hash of the normalised request, computed by the caller: two equal requests have the same fingerprint.
    pub fingerprint: String,
    /// The runner's input, as JSON. The engine does not read it, deletes it when the task has ended, and never logs
    /// it. The caller serialises it once, because it may be large.
    pub payload: Arc<str>,
}

impl NewTask {
    /// The components, sorted and without duplicates.
    pub(super) fn distinct_components(&self) -> Vec<ComponentKey> {
        let mut components = self.components.clone();
        components.sort();
        components.dedup();
        components
    }

    /// The targets, sorted and without duplicates.
    pub(super) fn distinct_targets(&self) -> Vec<String> {
        let mut targets = self.targets.clone();
        targets.sort();
        targets.dedup();
        targets
    }

    /// A SHA-256 hash in hexadecimal. Two submissions have the same key exactly when they request the same
    /// operation, on the same components, with the same fingerprint. The length of every part is hashed before
    /// the part, so different lists of parts have different hash inputs.
    pub(super) fn dedupe_key(&self) -> String {
        let mut hash = Sha256::new();
        let mut part = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        };
        part(self.operation.as_str());
        part(&self.fingerprint);
        for key in self.distinct_components() {
            part(&key.component);
            part(&key.environment);
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The response to a submission. The task is already on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Submitted {
    /// The token that the client polls with.
    pub token: Token,
    /// Whether the same request was already in flight; then this is the token of that task.
    pub deduplicated: bool,
}

/// A task as it was at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The token that the client polls with.
    pub token: Token,
    /// The operation; decides the lane and how the payload is read.
    pub operation: Operation,
    /// The components that only this task may change while it runs; sorted.
    pub components: Vec<ComponentKey>,
    /// Codes of the targets that the task works on; sorted.
    pub targets: Vec<String>,
    /// The state of the task at that moment.
    pub state: State,
    /// How many runs have started, not counting those that a process handed back when it shut down.
    pub attempt: u32,
    /// When it was accepted.
    pub submitted_at: DateTime<Utc>,
    /// When the latest run started.
    pub started_at: Option<DateTime<Utc>>,
    /// When it reached a terminal state.
    pub finished_at: Option<DateTime<Utc>>,
    /// The runner's output: the result of a completed task, or the outcome of a failed run.
    pub outcome: Option<Value>,
    /// Why it did not complete, as one public sentence; always set when the task failed or was terminated.
    pub reason: Option<String>,
    /// Log lines, oldest first.
    pub logs: Vec<LogLine>,
}

/// A task that a worker has leased.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimedTask {
    /// The token that the client polls with.
    pub token: Token,
    /// The operation; decides how the payload is read.
    pub operation: Operation,
    /// The components that only this task may change while it runs; sorted.
    pub components: Vec<ComponentKey>,
    /// The runner's input, as submitted.
    pub payload: Value,
    /// This run's number, from 1.
    pub attempt: u32,
    /// How many earlier runs ended with a crash or a hang.
    pub crashes: u32,
    /// How long the task has met only transient failures. The time starts with the first of them and includes runs
    /// and requested waits, but not the time in which the task was due and no process took it. `None` before the
    /// first transient failure, and after a crash.
    pub failing_for: Option<Duration>,
    /// The right to write on behalf of this run.
    pub lease: Lease,
}

/// The right to write on behalf of one run of one task. A store ignores every write under a lease whose epoch is not
/// the task's current one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The task that may be written.
    pub token: Token,
    /// Counts the leases of the task, from 1.
    pub epoch: i64,
    /// The worker process that holds it; information for people, not part of the fence.
    pub owner: String,
}

/// How many tasks wait and run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Waiting: for a worker, for earlier work, or for a retry.
    pub queued: u64,
    /// Running or stopping.
    pub running: u64,
}

/// What the engine stores about a component between operations: where it is deployed, and who can read it. It is kept
/// after an unprovision, so that the next provision restores access.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// The component, and its environment.
    pub key: ComponentKey,
    /// The target that it was deployed to.
    pub target: String,
    /// Whether it is deployed.
    pub status: DeploymentStatus,
    /// The access that was requested last, if any.
    pub access: Option<AccessList>,
    /// The component's `specific` as last provisioned; the engine does not read it. It identifies the resources,
    /// which a later request must find even when it describes the component only in part, or differently.
    pub specific: Object,
    /// The component's kind as last provisioned, which together with `specific` determines its resources; `None` when
    /// an earlier version provisioned it, which did not store the kind.
    pub kind: Option<ComponentKind>,
    /// The id of the data product that it was last provisioned in; `None` when an earlier version provisioned
    /// it.
    pub product: Option<String>,
    /// The info that it published last, while it is provisioned.
    pub info: Option<Info>,
    /// When the deployment was written, by the store's clock.
    pub updated_at: DateTime<Utc>,
}

/// Whether a component is deployed, according to the last finished step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeploymentStatus {
    /// Provisioned, or being provisioned.
    Provisioned,
    /// Removed on request.
    Unprovisioned,
}

impl DeploymentStatus {
    /// The persisted name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provisioned => "provisioned",
            Self::Unprovisioned => "unprovisioned",
        }
    }

    /// Reads a persisted name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Provisioned, Self::Unprovisioned].into_iter().find(|status| status.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(operation: Operation, components: &[(&str, &str)], fingerprint: &str) -> NewTask {
        NewTask {
            operation,
            components: components.iter().map(|(c, e)| ComponentKey::new(*c, *e)).collect(),
            targets: Vec::new(),
            fingerprint: fingerprint.to_owned(),
            payload: "null".into(),
        }
    }

    #[test]
    fn parses_only_the_spellings_of_a_token_in_responses() {
        let token = Token::random();
        let (text, bare) = (token.to_string(), token.0.simple().to_string());
        let upper = text.to_uppercase();
        for same in [text.clone(), upper.clone(), format!("\"{text}\""), format!("\"{upper}\"")] {
            assert_eq!(same.parse(), Ok(token), "{same}");
        }
        assert_ne!(token, Token::random());
        for other in [
            String::new(),
            "x".to_owned(),
            "\"".to_owned(),
            "\"\"".to_owned(),
            format!("\"{text}"),
            format!("{text}\""),
            format!("\"\"{text}\"\""),
            format!("'{text}'"),
            format!(" {text}"),
            format!("\"{text} \""),
            format!("{{{text}}}"),
            format!("\"{bare}\""),
            format!("urn:uuid:{text}"),
            bare,
        ] {
            assert_eq!(other.parse::<Token>(), Err(NotAToken), "{other:?}");
        }
    }

    #[test]
    fn dedupe_key_ignores_only_order_and_duplicates() {
        use Operation::*;
        let base = task(Provision, &[("a", "dev"), ("b", "dev")], "f").dedupe_key();
        assert_eq!(task(Provision, &[("b", "dev"), ("a", "dev"), ("b", "dev")], "f").dedupe_key(), base);
        for other in [
            task(Unprovision, &[("a", "dev"), ("b", "dev")], "f"),
            task(Provision, &[("a", "dev"), ("b", "dev")], "g"),
            task(Provision, &[("a", "dev")], "f"),
            task(Provision, &[("a", "dev"), ("b", "prod")], "f"),
            task(Provision, &[("ad", "ev"), ("b", "dev")], "f"),
        ] {
            assert_ne!(other.dedupe_key(), base, "{other:?}");
        }
    }

    #[test]
    fn persisted_names_round_trip() {
        for operation in Operation::ALL {
            assert_eq!(Operation::parse(operation.as_str()), Some(operation));
        }
        assert_eq!(Operation::UpdateAccess.to_string(), "update-access");
    }
}
