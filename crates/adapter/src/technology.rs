//! The interface of a technology, and what it says of itself.

use std::collections::BTreeMap;
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
    fn name(&self) -> &str;

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

    /// Whether [`Bound::check`] has to be called, because only the target can tell whether the component is valid.
    fn has_check(&self) -> bool {
        false
    }

    /// Every problem that only the target can tell, with paths relative to the component. Reads only. Landfall calls it in
    /// validations, in dry runs and before the first plan of a run, within a deadline. A retryable error means that nothing is
    /// known: it is never taken for "valid".
    async fn check(&self, _context: &Context) -> Result<Vec<Problem>> {
        Ok(Vec::new())
    }

    /// The state of the component on the target. Reads only. A resource of another owner is a conflict, as in `plan`.
    /// Landfall asks where its own records do not answer: whether a component exists as another kind, and whether an
    /// earlier unprovision kept data.
    async fn find(&self, _context: &Context) -> Result<Found> {
        Ok(Found::Unknown)
    }

    /// The changes that lead from what is observed to what is wanted. Reads only.
    async fn plan(&self, context: &Context) -> Result<Plan<Self::Step>>;

    /// Carries out one change of a plan. Idempotent; stops early with [`Error::cancelled`] when asked to. The target may be
    /// another than the plan saw: whose a resource is has to be looked at again.
    async fn apply(&self, step: &Self::Step, context: &Running) -> Result<()>;

    /// What the platform shows of the component. Reads only.
    async fn describe(&self, context: &Context) -> Result<Info>;
}

/// The state of a component on its target.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Found {
    /// The technology cannot observe the component.
    Unknown,
    /// There is nothing of it.
    Nothing,
    /// It was unprovisioned, and its data was kept: the resources, named as in a plan.
    Kept(Vec<String>),
    /// It is provisioned: the resources, named as in a plan.
    Provisioned(Vec<String>),
}

/// What a technology can do, as far as it is known at run time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Kinds of component it provisions.
    pub kinds: Kinds,
    /// How access lists are applied, for kinds that are not in `access_by_kind`.
    pub access: AccessMode,
    /// How access lists are applied to components of these kinds.
    pub access_by_kind: BTreeMap<ComponentKind, AccessMode>,
    /// Whether `reverse` is offered.
    pub reverse: bool,
    /// Whether work under way can be stopped.
    pub stop: bool,
    /// Whether a plan is empty once it has been applied. A technology that cannot observe its target plans the same change
    /// each time, usually [`Action::Run`](crate::Action::Run).
    pub observes: bool,
}

impl Capabilities {
    /// A technology that observes its target, can be stopped, ignores access lists and offers no import.
    pub fn new(kinds: Kinds) -> Self {
        Self {
            kinds,
            access: AccessMode::None,
            access_by_kind: BTreeMap::new(),
            reverse: false,
            stop: true,
            observes: true,
        }
    }

    /// How access lists are applied.
    #[must_use]
    pub fn access(mut self, mode: AccessMode) -> Self {
        self.access = mode;
        self
    }

    /// How access lists are applied to components of one kind, where that differs.
    #[must_use]
    pub fn access_to(mut self, kind: ComponentKind, mode: AccessMode) -> Self {
        self.access_by_kind.insert(kind, mode);
        self
    }

    /// It offers `reverse`.
    #[must_use]
    pub fn with_import(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// Whether work under way can be stopped.
    #[must_use]
    pub fn stoppable(mut self, stop: bool) -> Self {
        self.stop = stop;
        self
    }

    /// It cannot observe its target.
    #[must_use]
    pub fn blind(mut self) -> Self {
        self.observes = false;
        self
    }

    /// How access lists are applied to components of that kind.
    pub fn access_of(&self, kind: &ComponentKind) -> AccessMode {
        self.access_by_kind.get(kind).copied().unwrap_or(self.access)
    }
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

/// How an access list is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccessMode {
    /// The target itself gives access to exactly the listed identities.
    Enforced,
    /// The list is stored with the resource, and nothing prevents other reads. Every result says so.
    Recorded,
    /// The list is passed on to another system, which may or may not enforce it. Every result says so.
    Delegated,
    /// The list is accepted and ignored. Every result says so.
    None,
}
