//! The interface of a technology, and what it says of itself.

use std::fmt;

use async_trait::async_trait;

use crate::descriptor::{ComponentKind, Problem, is_typo};
use crate::error::{Error, Result};
use crate::{Context, Import, ImportParams, Imported, Info, Intent, Plan, Running, Work};

/// One technology on one configured target. Its methods may run for several components at the same time.
#[async_trait]
pub trait Technology: Send + Sync + 'static {
    /// A component that it has read.
    type Bound: Bound;

    /// The driver's name in the configuration: `lakehouse`.
    fn name(&self) -> &'static str;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Whether components are bound with [`Work::sent`]. By default they are not: the document takes memory as long as
    /// what is bound does.
    fn reads_sent(&self) -> bool {
        false
    }

    /// Reads a component once for all that follows, or says everything that is wrong with it for this technology, with
    /// paths relative to the component. Pure and cheap: no I/O, also called by `/validate`. What is to be taken away, or
    /// opened to somebody, must only be identified.
    fn bind(&self, work: Work, intent: Intent) -> Result<Self::Bound, Vec<Problem>>;

    /// Everything wrong with the parameters of an import, which it reads and asks for there. Pure and cheap: no I/O, called
    /// before an import is accepted. Asks for nothing by default.
    fn check_import(&self, _params: &mut ImportParams<'_>) {}

    /// Reads an existing table. Never changes the target. By default there is nothing to import.
    async fn reverse(&self, _import: &Import, _context: &Context) -> Result<Imported> {
        Err(nothing_to_import(self.name()))
    }
}

fn nothing_to_import(name: &str) -> Error {
    Error::unsupported(format!("`{name}` has nothing to import: route the template to another technology"))
}

/// One component on one target, and what is asked of it.
#[async_trait]
pub trait Bound: Send + Sync + 'static {
    /// What a change has to know to be applied: private to the technology. It goes from `plan` to `apply` as it is, in the
    /// same process, and is neither stored nor shown. Its `Debug` has no secret.
    type Step: fmt::Debug + PartialEq + Send + Sync + 'static;

    /// The changes that lead from what is observed to what is wanted. Reads only.
    async fn plan(&self, context: &Context) -> Result<Plan<Self::Step>>;

    /// Carries out one change of a plan. Idempotent; stops early with [`Error::cancelled`] when asked to. The target may be
    /// another than the plan saw: whose a resource is has to be looked at again.
    async fn apply(&self, step: &Self::Step, context: &Running) -> Result<()>;

    /// What the platform shows of the component. Reads only.
    async fn describe(&self, context: &Context) -> Result<Info>;
}

/// What a technology can do.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kinds {
    /// Whatever the document says, and also when it says nothing.
    Any,
    /// These and no other; the document has to say which.
    Only(Vec<ComponentKind>),
}

impl Kinds {
    /// What is wrong with the kind of a component for the target `code` of `technology`, if anything; the path is
    /// relative to the component.
    pub fn problem(&self, kind: &ComponentKind, code: &str, technology: &str) -> Option<Problem> {
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
