//! The interface of a technology.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;

use crate::descriptor::{ComponentKind, Problem, is_typo};
use crate::error::{Error, Result};
use crate::{Context, Import, ImportParams, Imported, Info, Intent, Plan, Running, Work};

/// A technology on one configured target. Its methods may run for several components at the same time.
#[async_trait]
pub trait Technology: Send + Sync + 'static {
    /// A bound component.
    type Bound: Bound;

    /// The driver's name in the configuration: `lakehouse`.
    fn name(&self) -> &str;

    /// What this technology can do. Before [`Technology::learn`], everything that it may be able to do.
    fn capabilities(&self) -> Capabilities;

    /// Whether [`Technology::capabilities`] is final. The default is `true`.
    fn is_known(&self) -> bool {
        true
    }

    /// Asks the target for the capabilities. While [`Technology::is_known`] is `false`, Landfall calls this before it
    /// binds a component or checks an import, within the deadline of the context. An error fails the request: a
    /// retryable one as temporary. Several calls may run at the same time.
    async fn learn(&self, _context: &Context) -> Result<()> {
        Ok(())
    }

    /// Whether components are bound with [`Work::sent`]. The default is `false`, because the document takes
    /// memory as long as the bound component exists.
    fn reads_sent(&self) -> bool {
        false
    }

    /// Reads a component once for all later calls, or returns every problem that this technology has with it,
    /// with paths relative to the component. No I/O: `/validate` calls it, too. For an unprovision and an
    /// update of access, the component only has to be identified.
    fn bind(&self, work: Work, intent: Intent) -> Result<Self::Bound, Vec<Problem>>;

    /// Asks for the parameters of an import and reports their problems. No I/O: it runs before an import is
    /// accepted. The default asks for nothing.
    fn check_import(&self, _params: &mut ImportParams<'_>) {}

    /// Reads an existing table. Never changes the target. The default refuses.
    async fn reverse(&self, _import: &Import, _context: &Context) -> Result<Imported> {
        Err(nothing_to_import(self.name()))
    }
}

fn nothing_to_import(name: &str) -> Error {
    Error::unsupported(format!("`{name}` has nothing to import: route the template to another technology"))
}

/// One component on one target, with an intent.
#[async_trait]
pub trait Bound: Send + Sync + 'static {
    /// The private input of a change. It goes from `plan` to `apply` in the same process, and is neither
    /// stored nor shown. Its `Debug` output must not contain a secret.
    type Step: fmt::Debug + PartialEq + Send + Sync + 'static;

    /// Whether [`Bound::check`] has to be called, because only the target can tell whether the component is valid.
    fn has_check(&self) -> bool {
        false
    }

    /// Every problem that only the target can tell, with paths relative to the component. Reads only. Landfall calls
    /// it in validations, in dry runs and before the first plan of a run, within a deadline. A retryable error means
    /// that nothing is known: it is never taken for "valid".
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

    /// Applies one change of a plan. It is idempotent, and returns [`Error::cancelled`] early after a
    /// cancellation. The target may have changed since the plan, so it checks the owner of the resource
    /// again.
    async fn apply(&self, step: &Self::Step, context: &Running) -> Result<()>;

    /// Returns the info of the component that the platform shows. Reads only.
    async fn describe(&self, context: &Context) -> Result<Info>;
}

/// The state of a component on its target.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Found {
    /// The technology cannot observe the component.
    Unknown,
    /// The target has no resource of the component.
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
    /// Whether a plan is empty once it has been applied. A technology that cannot observe its target plans the same
    /// change each time, usually [`Action::Run`](crate::Action::Run).
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

    /// Sets how access lists are applied.
    #[must_use]
    pub fn access(mut self, mode: AccessMode) -> Self {
        self.access = mode;
        self
    }

    /// Sets how access lists are applied to components of one kind, if that differs.
    #[must_use]
    pub fn access_to(mut self, kind: ComponentKind, mode: AccessMode) -> Self {
        self.access_by_kind.insert(kind, mode);
        self
    }

    /// Sets that `reverse` is offered.
    #[must_use]
    pub fn with_import(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// Sets whether work under way can be stopped.
    #[must_use]
    pub fn stoppable(mut self, stop: bool) -> Self {
        self.stop = stop;
        self
    }

    /// Sets that the technology cannot observe its target.
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

/// The kinds of component that a technology accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kinds {
    /// Every kind, and also no kind.
    Any,
    /// Only these kinds; the document must name one of them.
    Only(Vec<ComponentKind>),
}

impl Kinds {
    /// The problem with the kind of a component on the target `code` of `technology`, if any; its path is
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
