//! The words of the engine: tokens, operations, tasks, deployments.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::state::State;
use landfall_adapter::descriptor::{ComponentKind, Object};
use landfall_adapter::{AccessList, Info, LogLine};

/// Names a task to whoever submitted it: 128 random bits (UUID version 4), so it cannot be guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(Uuid);

impl Token {
    /// A fresh token.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// The text cannot be a token of ours. To a client that is the same as an unknown token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a token")]
pub struct NotAToken;

impl FromStr for Token {
    type Err = NotAToken;

    /// Reads what [`fmt::Display`] writes, in upper case too, and within the quotes of a JSON string: some callers send back the
    /// body of the 202 as it came. Other spellings of a UUID were never handed out.
    fn from_str(text: &str) -> Result<Self, NotAToken> {
        let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
        let token = Self(Uuid::try_parse(bare).map_err(|_| NotAToken)?);
        if token.to_string().eq_ignore_ascii_case(bare) { Ok(token) } else { Err(NotAToken) }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Say what is wrong with a descriptor.
    Validate,
    /// Make components exist as described.
    Provision,
    /// Make components go away.
    Unprovision,
    /// Make exactly the listed identities able to read a component.
    UpdateAccess,
    /// Read an existing resource into catalog updates.
    Reverse,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 5] =
        [Self::Validate, Self::Provision, Self::Unprovision, Self::UpdateAccess, Self::Reverse];

    /// The persisted name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::Provision => "provision",
            Self::Unprovision => "unprovision",
            Self::UpdateAccess => "update-access",
            Self::Reverse => "reverse",
        }
    }

    /// Reads a persisted name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.as_str() == text)
    }

    /// Which workers take it.
    pub fn lane(self) -> Lane {
        match self {
            Self::Validate => Lane::Validation,
            Self::Reverse => Lane::Import,
            Self::Provision | Self::Unprovision | Self::UpdateAccess => Lane::Change,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A queue with workers of its own, so that what somebody waits for at a screen never waits for long work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// What changes targets.
    Change,
    /// Validations: pure and quick.
    Validation,
    /// Reverse provisioning: reads from targets, so slower than a validation, and kept out of its way.
    Import,
}

impl Lane {
    /// Every lane.
    pub const ALL: [Self; 3] = [Self::Change, Self::Validation, Self::Import];

    /// The persisted name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::Validation => "validation",
            Self::Import => "import",
        }
    }
}

/// A component in an environment: what must be worked on by one task at a time, in the order of submission.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ComponentKey {
    /// Component id.
    pub component: String,
    /// Witboost environment name.
    pub environment: String,
}

impl ComponentKey {
    /// The component `component` in `environment`.
    pub fn new(component: impl Into<String>, environment: impl Into<String>) -> Self {
        Self { component: component.into(), environment: environment.into() }
    }
}

impl fmt::Display for ComponentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.component, self.environment)
    }
}

/// Work to be accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTask {
    /// What is asked for.
    pub operation: Operation,
    /// What no other task may touch meanwhile; empty for operations that change nothing. Order and repetition
    /// do not matter.
    pub components: Vec<ComponentKey>,
    /// Codes of the targets that the work happens in; order and repetition do not matter.
    pub targets: Vec<String>,
    /// Hash of the normalised request, made by the caller: two requests that ask for the same have the same one.
    pub fingerprint: String,
    /// What the runner needs, as JSON. Opaque here, dropped once the task has ended, never logged. Serialised by the caller,
    /// once: it may be large.
    pub payload: Arc<str>,
}

impl NewTask {
    /// The components sorted, each once.
    pub(super) fn distinct_components(&self) -> Vec<ComponentKey> {
        let mut components = self.components.clone();
        components.sort();
        components.dedup();
        components
    }

    /// The targets sorted, each once.
    pub(super) fn distinct_targets(&self) -> Vec<String> {
        let mut targets = self.targets.clone();
        targets.sort();
        targets.dedup();
        targets
    }

    /// Equal for two submissions exactly when they ask for the same operation, on the same components, with the
    /// same fingerprint. Every part is preceded by its length: no two lists of parts read the same.
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

/// The answer to a submission. By the time it is seen the task is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Submitted {
    /// Names the task.
    pub token: Token,
    /// Whether the same request was already in flight, and this is its token.
    pub deduplicated: bool,
}

/// A task as it was at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its name.
    pub token: Token,
    /// What was asked for.
    pub operation: Operation,
    /// What it has to itself while it runs; sorted.
    pub components: Vec<ComponentKey>,
    /// Codes of the targets that its work happens in; sorted.
    pub targets: Vec<String>,
    /// Where it is in its life.
    pub state: State,
    /// Runs begun so far, not counting those that were handed back when a process ended orderly.
    pub attempt: u32,
    /// When it was accepted.
    pub submitted_at: DateTime<Utc>,
    /// When the latest run began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it reached a terminal state.
    pub finished_at: Option<DateTime<Utc>>,
    /// What the runner made of it: the result of a completed task, or what a failed run left to say.
    pub outcome: Option<Value>,
    /// Why it did not complete, as one public sentence; always there when it failed or was terminated.
    pub reason: Option<String>,
    /// What happened, oldest first.
    pub logs: Vec<LogLine>,
}

/// A task in the hands of a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimedTask {
    /// Its name.
    pub token: Token,
    /// What is asked for.
    pub operation: Operation,
    /// What it has to itself; sorted.
    pub components: Vec<ComponentKey>,
    /// As submitted.
    pub payload: Value,
    /// This run's number, from 1.
    pub attempt: u32,
    /// Earlier runs that ended with a crash or a hang instead of an answer.
    pub crashes: u32,
    /// How long it has met transient failures and nothing else: from the first of them on, with the waits that were asked
    /// for and the runs in between, but without the time for which it was due and no process took it. `None` before
    /// the first one, and after a crash.
    pub failing_for: Option<Duration>,
    /// The right to write on behalf of this run.
    pub lease: Lease,
}

/// The right to write on behalf of one run of one task. A store ignores every write under a lease whose epoch is
/// not the task's current one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The task.
    pub token: Token,
    /// Counts the leases given for that task.
    pub epoch: i64,
    /// Which worker process holds it; for people, not part of the fence.
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

/// What the engine remembers of a component between operations: where it was put, and who should be able to read
/// it. It outlives an unprovision, so that provisioning again restores access.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// Which component, in which environment.
    pub key: ComponentKey,
    /// The target it was put in.
    pub target: String,
    /// Whether it is there.
    pub status: DeploymentStatus,
    /// The access last asked for, if ever any was.
    pub access: Option<AccessList>,
    /// The component's `specific` as last provisioned, opaque here: it names the resources that a later request, which
    /// may describe the component in short or otherwise, has to find.
    pub specific: Object,
    /// The component's kind as last provisioned, which decides with `specific` what its resources are; `None` where an
    /// earlier version provisioned it and did not say.
    pub kind: Option<ComponentKind>,
    /// The id of the data product that it was last provisioned in; `None` as for the kind.
    pub product: Option<String>,
    /// What it published last, while it is there.
    pub info: Option<Info>,
    /// When this was written; the store's clock decides.
    pub updated_at: DateTime<Utc>,
}

/// Whether a component is in its target, as far as the last finished step knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeploymentStatus {
    /// Provisioned, or on the way there.
    Provisioned,
    /// Taken away on request.
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
    fn a_token_is_read_in_the_spellings_of_its_answer() {
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
    fn the_dedupe_key_ignores_order_and_nothing_else() {
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
