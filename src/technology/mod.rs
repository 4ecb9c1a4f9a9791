//! Technologies: what turns a component into something real.
//!
//! Every side effect is the same loop, whatever is asked and wherever it lands: a technology *checks* a component
//! (pure), *plans* by comparing what is wanted with what it observes (reads only), and *applies* one idempotent
//! change at a time. There is no step journal and no undo: after a crash the plan is made again and what is left
//! is applied. An empty plan is a no-op that completes.
//!
//! A technology guarantees that
//! - `plan` and `describe` change nothing,
//! - every change may be applied twice, and a crash between any two leaves a state from which planning converges,
//! - what it creates carries a mark of its owner (component id and environment) in the target itself; what carries
//!   no mark, or another owner's, is never adopted, altered or dropped: [`Error::conflict`].

#[doc(hidden)]
pub mod conformance;
pub mod import;
pub mod lakehouse;
pub mod mock;
pub mod postgresql;
#[cfg(test)]
pub(crate) mod testing;

use std::any::Any;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::access::{Lookups, Ref};
use crate::blocking::{self, Cancellation};
use crate::descriptor::{Component, ComponentKind, DataProduct, Object, Problem, is_typo, names};
use crate::error::{Error, Result};
pub use import::{Import, ImportParams, Imported, ReverseRequest};

/// One technology, bound to one configured target.
#[async_trait]
pub trait Technology: Send + Sync + 'static {
    /// The driver's name in the configuration: `lakehouse`.
    fn name(&self) -> &'static str;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Everything wrong with the component for this technology, with paths relative to the component. Pure and
    /// cheap: no I/O, also called by `/validate`.
    fn check(&self, work: &Work, intent: &Intent) -> Vec<Problem>;

    /// The changes that lead from what is observed to what is wanted. Reads only.
    async fn plan(&self, work: &Work, intent: &Intent, context: &Context) -> Result<Plan>;

    /// Carries out one change of a plan. Idempotent; stops early with [`Error::cancelled`] when asked to.
    async fn apply(&self, work: &Work, change: &Change, context: &Context) -> Result<()>;

    /// What the platform shows of the component. Reads only.
    async fn describe(&self, work: &Work, context: &Context) -> Result<Info>;

    /// Everything wrong with the parameters of an import, which it reads and asks for there. Pure and cheap: no I/O, called
    /// before an import is accepted.
    fn check_import(&self, params: &mut ImportParams<'_>);

    /// Reads an existing table. Never changes the target.
    async fn reverse(&self, import: &Import, context: &Context) -> Result<Imported>;
}

/// What a technology can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Kinds of component it provisions.
    pub kinds: Kinds,
    /// What becomes of access lists.
    pub access: AccessMode,
    /// Whether `reverse` is offered.
    pub reverse: bool,
    /// Whether work under way can be stopped.
    pub stop: bool,
}

/// Kinds of component that a technology takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinds {
    /// Whatever the document says, and also when it says nothing.
    Any,
    /// These and no other; the document has to say which.
    Only(&'static [ComponentKind]),
}

impl Kinds {
    /// What is wrong with the kind of a component for the target `code` of `technology`, if anything; the path is
    /// relative to the component.
    pub fn problem(self, kind: &ComponentKind, code: &str, technology: &str) -> Option<Problem> {
        let Self::Only(kinds) = self else { return None };
        if kinds.contains(kind) {
            return None;
        }
        let taken = kinds.iter().map(ComponentKind::name).collect::<Vec<_>>().join(", ");
        if *kind == ComponentKind::Unspecified {
            let message =
                format!("`kind` is missing, and target `{code}` ({technology}) does not take every kind");
            return Some(Problem::new("kind", message).remedy(format!("add `kind`; it takes: {taken}")));
        }
        let message = format!("target `{code}` ({technology}) does not take this kind");
        let close = kinds.iter().find(|known| is_typo(kind.name(), known.name()));
        let remedy = match close {
            Some(close) => format!("did you mean `{}`? it takes: {taken}", close.name()),
            None => format!("it takes: {taken}"),
        };
        Some(Problem::new("kind", message).value(kind.name()).remedy(remedy))
    }
}

/// What becomes of an access list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessMode {
    /// The target itself lets in who is listed and nobody else.
    Enforced,
    /// The list is kept with the resource; nothing stops anybody from reading. Always said in answers.
    Recorded,
    /// No access list: accepted and ignored, and said so.
    None,
}

/// One component to work on, with everything a technology may look at.
#[derive(Debug, Clone)]
pub struct Work {
    /// The data product it belongs to.
    pub product: Arc<DataProduct>,
    /// The component itself (possibly nested in another).
    pub component: Arc<Component>,
    /// Witboost environment name.
    pub environment: String,
    /// The last access list that was asked for this component, if ever one was: survives unprovision, so that
    /// provisioning again restores it.
    pub access: Option<AccessList>,
    /// Components of the same document, for what one of them says of another.
    pub neighbours: Neighbours,
}

/// The components of a document that are to be provisioned on one target. Cloning shares them.
#[derive(Clone, Default)]
pub struct Neighbours(Arc<Beside>);

#[derive(Default)]
struct Beside {
    /// Their numbers in the data product.
    numbers: Vec<usize>,
    complete: bool,
    index: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Neighbours {
    /// Those with these numbers in their data product. `complete`: no other component of the document goes there.
    pub fn new(numbers: Vec<usize>, complete: bool) -> Self {
        Self(Arc::new(Beside { numbers, complete, index: OnceLock::new() }))
    }

    /// The components, those that are asked for among them.
    pub fn components<'a>(&self, product: &'a DataProduct) -> impl Iterator<Item = &'a Component> {
        self.0.numbers.iter().filter_map(|number| product.components.get(*number))
    }

    /// Whether these are all: what none of them has, the document does not have for this target.
    pub fn are_complete(&self) -> bool {
        self.0.complete
    }

    /// What a technology makes of them, once for all components of the document; `None` when there are none.
    pub fn index<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Option<Arc<T>> {
        if self.0.numbers.is_empty() {
            return None;
        }
        let index = self.0.index.get_or_init(|| Arc::new(make()));
        Arc::clone(index).downcast::<T>().ok()
    }
}

impl std::fmt::Debug for Neighbours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Neighbours").field("numbers", &self.0.numbers).finish_non_exhaustive()
    }
}

impl Work {
    /// The mark that every resource of this component carries.
    pub fn owner(&self) -> Owner {
        Owner { component: self.component.id.to_string(), environment: self.environment.clone() }
    }
}

/// The wanted access, in full.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccessList {
    /// Who may read: `user:...` and `group:...`, sorted, without repetition.
    pub refs: Vec<Ref>,
    /// `accessControlFields` of the request: untrusted, stored and shown, never interpreted.
    pub fields: Object,
}

/// Whose a resource is; written into the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Component id.
    pub component: String,
    /// Witboost environment name.
    pub environment: String,
}

/// What is asked of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// It exists as described, with the access last asked for.
    Provision,
    /// It is gone; its data too when `remove_data`.
    Unprovision {
        /// Whether the underlying data goes too. Otherwise it is deregistered and kept.
        remove_data: bool,
    },
    /// Exactly [`Work::access`] may read it.
    UpdateAccess,
}

/// The way from what is to what is wanted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// In the order of application.
    pub changes: Vec<Change>,
    /// Said to the user, whether or not anything changes ("access is recorded, not enforced").
    pub notes: Vec<String>,
}

/// One idempotent step.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The verb.
    pub action: Action,
    /// What it touches, in the target's own terms: `table finance_cashflow_0.cashflow_output_port`.
    pub resource: String,
    /// A sentence for logs and dry runs: "add column `amount` decimal(38, 9)".
    pub summary: String,
    /// Private to the technology: what `apply` needs. Never a secret, and never shown.
    pub detail: Value,
}

/// The verb of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Make what does not exist.
    Create,
    /// Change what exists.
    Alter,
    /// Put data in.
    Load,
    /// Take out of the catalog, keep the data.
    Release,
    /// Take back what an earlier unprovision released.
    Restore,
    /// Remove.
    Drop,
    /// Let somebody in.
    Grant,
    /// Let somebody in no longer.
    Revoke,
}

impl Action {
    /// The verb in lower case: `create`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Alter => "alter",
            Self::Load => "load",
            Self::Release => "release",
            Self::Restore => "restore",
            Self::Drop => "drop",
            Self::Grant => "grant",
            Self::Revoke => "revoke",
        }
    }
}

/// `info` of the contract. Nothing private goes in `public`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Info {
    /// Shown in the Marketplace: `{key: {type, label, value, href?}}`.
    pub public: Object,
    /// Kept in the deployed descriptor, not shown.
    pub private: Object,
}

/// What a technology gets besides the work: where to log, and whether to stop.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// Lines the platform's users see while polling.
    pub journal: Journal,
    /// Cancelled when the task is stopped, loses its lease or the process drains.
    pub cancel: CancellationToken,
    /// What was looked up of people in this run.
    pub lookups: Lookups,
}

impl Context {
    /// [`Error::cancelled`] when the work should end here.
    pub fn check_cancelled(&self) -> Result<()> {
        if self.cancel.is_cancelled() { Err(Error::cancelled("stopped on request")) } else { Ok(()) }
    }

    /// Runs work on a thread that may block. The run ends only after it, however it ends; work that takes long looks at
    /// its [`Cancellation`] between entries.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cancellation) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        blocking::run_until(&self.cancel, work).await
    }
}

/// Level of a log line of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// `DEBUG`
    Debug,
    /// `INFO`
    Info,
    /// `WARNING`
    Warning,
    /// `ERROR`
    Error,
}

/// A line the platform's users see.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// When.
    pub at: DateTime<Utc>,
    /// How bad.
    pub level: Level,
    /// One line, at most [`Journal::MAX_MESSAGE`] bytes.
    pub message: String,
    /// Which part of the task: a component id, or absent.
    pub phase: Option<String>,
}

/// Where work writes its progress. Bounded: past [`Journal::MAX_PENDING`] undrained lines, further ones are
/// counted and reported as one line. Cloning shares the journal; [`Journal::phase`] tags lines.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    pending: Arc<Mutex<Vec<LogLine>>>,
    dropped: Arc<AtomicU64>,
    phase: Option<Arc<str>>,
}

impl Journal {
    /// Longest message kept; the rest is cut.
    pub const MAX_MESSAGE: usize = 2000;
    /// Undrained lines kept.
    pub const MAX_PENDING: usize = 1000;

    /// The same journal, with lines tagged.
    #[must_use]
    pub fn phase(&self, phase: &str) -> Self {
        Self { phase: Some(phase.into()), ..self.clone() }
    }

    /// Writes a line.
    pub fn log(&self, level: Level, message: impl AsRef<str>) {
        let message = message.as_ref();
        let mut end = message.len().min(Self::MAX_MESSAGE);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        let text: String = message
            .get(..end)
            .unwrap_or_default()
            .chars()
            .map(|c| if c.is_control() || names::is_deceptive(c) { ' ' } else { c })
            .collect();
        let line =
            LogLine { at: Utc::now(), level, message: text, phase: self.phase.as_deref().map(str::to_owned) };
        let mut pending = self.pending.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if pending.len() < Self::MAX_PENDING {
            pending.push(line);
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes an INFO line.
    pub fn info(&self, message: impl AsRef<str>) {
        self.log(Level::Info, message);
    }

    /// Writes a WARNING line.
    pub fn warn(&self, message: impl AsRef<str>) {
        self.log(Level::Warning, message);
    }

    /// Writes an ERROR line.
    pub fn error(&self, message: impl AsRef<str>) {
        self.log(Level::Error, message);
    }

    /// Takes what was written since the last call.
    pub fn drain(&self) -> Vec<LogLine> {
        let mut lines =
            std::mem::take(&mut *self.pending.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            lines.push(LogLine {
                at: Utc::now(),
                level: Level::Warning,
                message: format!("{dropped} more lines were not kept"),
                phase: None,
            });
        }
        lines
    }
}
