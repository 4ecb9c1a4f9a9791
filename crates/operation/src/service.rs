//! What Landfall does when it is asked: the one interface between the contracts and everything below.
//!
//! Every method takes what a contract received, refuses what cannot work with every problem found, and otherwise
//! makes one durable task. What is refused leaves no trace; what is accepted survives a crash.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::topology::{Edit, Explanation, Filter, Installation, Instance, Target, Topology};
use landfall_adapter::access::Ref;
use landfall_adapter::descriptor::{self, Component, Limits, Object, Outline, Problem, Strictness};
use landfall_adapter::error::{Error, Kind, Result};
use landfall_adapter::{AccessList, AccessMode, Change, Context, Import, Intent, ReverseRequest};

use super::dry_run::{At, DryRunSettings, DryRuns};
use super::runner;
use super::target_health::{TargetHealth, TargetRecorder};
use super::work::{self, Assigned, Document, Placement, Places, Resolved, Skipped};
use super::{
    Counts, Deployment, Drained, Engine, Health, ImportSettings, NewTask, Operation, State, StopScope, Store,
    Submitted, Task, Token,
};

/// What a task is to do; its payload in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "kebab-case")]
pub enum Request {
    /// Say whether the document could be provisioned.
    Validate {
        /// What to look at.
        document: Document,
    },
    /// Make it exist.
    Provision {
        /// What to provision.
        document: Document,
        /// Where.
        placements: Vec<Placement>,
    },
    /// Make it go.
    Unprovision {
        /// What to unprovision.
        document: Document,
        /// Where.
        placements: Vec<Placement>,
        /// Whether the data goes too.
        remove_data: bool,
    },
    /// Let exactly these in.
    UpdateAccess {
        /// What to open.
        document: Document,
        /// Where.
        placements: Vec<Placement>,
        /// To whom.
        access: AccessList,
    },
    /// Read what exists.
    Reverse {
        /// What to read.
        request: ReverseRequest,
        /// Code of the target to read from.
        target: String,
    },
}

impl Request {
    /// What the engine files it under.
    pub fn operation(&self) -> Operation {
        match self {
            Self::Validate { .. } => Operation::Validate,
            Self::Provision { .. } => Operation::Provision,
            Self::Unprovision { .. } => Operation::Unprovision,
            Self::UpdateAccess { .. } => Operation::UpdateAccess,
            Self::Reverse { .. } => Operation::Reverse,
        }
    }

    fn placements(&self) -> &[Placement] {
        match self {
            Self::Provision { placements, .. }
            | Self::Unprovision { placements, .. }
            | Self::UpdateAccess { placements, .. } => placements,
            Self::Validate { .. } | Self::Reverse { .. } => &[],
        }
    }

    /// Whether it is serialised and hashed in well under a millisecond.
    fn is_small(&self) -> bool {
        match self {
            Self::Validate { document }
            | Self::Provision { document, .. }
            | Self::Unprovision { document, .. } => document.text.len() <= SMALL,
            Self::UpdateAccess { document, access, .. } => {
                document.text.len() <= SMALL && access.refs.len() <= 100 && access.fields.is_empty()
            }
            Self::Reverse { .. } => false,
        }
    }

    /// The same for two requests that ask for the same, whatever process makes it. `digest` is that of the document's
    /// content, where it was read.
    fn fingerprint(&self, digest: Option<[u8; 32]>) -> String {
        let mut parts = Parts(Sha256::new());
        parts.text(self.operation().as_str());
        match self {
            Self::Validate { document }
            | Self::Provision { document, .. }
            | Self::Unprovision { document, .. }
            | Self::UpdateAccess { document, .. } => {
                parts.text(document.kind.name());
                match &digest {
                    Some(digest) => parts.bytes(digest),
                    None => parts.text(&document.text),
                }
            }
            Self::Reverse { request, target } => {
                for text in [target, &request.use_case_template_id, &request.environment] {
                    parts.text(text);
                }
                parts.object(&request.params);
                parts.object(&request.catalog_info);
            }
        }
        let mut placements: Vec<&Placement> = self.placements().iter().collect();
        placements.sort_by_key(|placement| &placement.key);
        for Placement { key, target, .. } in placements {
            for text in [&key.component, &key.environment, target] {
                parts.text(text);
            }
        }
        match self {
            Self::Unprovision { remove_data, .. } => parts.bytes(&[u8::from(*remove_data)]),
            Self::UpdateAccess { access, .. } => {
                for reference in &access.refs {
                    parts.text(&reference.to_string());
                }
                parts.object(&access.fields);
            }
            Self::Validate { .. } | Self::Provision { .. } | Self::Reverse { .. } => {}
        }
        parts.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn targets(&self) -> Vec<String> {
        match self {
            Self::Reverse { target, .. } => vec![target.clone()],
            _ => self.placements().iter().map(|placement| placement.target.clone()).collect(),
        }
    }
}

/// A hash of parts. Every part is preceded by its length: no two lists of parts read the same.
struct Parts(Sha256);

impl Parts {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Whatever the order of its keys. JSON that was parsed is not nested too deeply for this.
    fn object(&mut self, object: &Object) {
        let mut entries: Vec<_> = object.iter().collect();
        entries.sort_by_key(|(key, _)| key.as_str());
        self.bytes(&(entries.len() as u64).to_le_bytes());
        for (key, value) in entries {
            self.text(key);
            self.value(value);
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Object(object) => {
                self.text("{");
                self.object(object);
            }
            Value::Array(items) => {
                self.text("[");
                self.bytes(&(items.len() as u64).to_le_bytes());
                for item in items {
                    self.value(item);
                }
            }
            // A text is in quotes there, and so no number.
            scalar => self.text(&scalar.to_string()),
        }
    }
}

/// A document of so many bytes is read on the thread that got it, in well under a millisecond: another thread would cost
/// as much again. It takes little memory, and so no permit, either.
const SMALL: usize = 8 * 1024;

/// What one component would undergo.
#[derive(Debug, Clone)]
pub struct ComponentPlan {
    /// Component id.
    pub id: String,
    /// Component name.
    pub name: String,
    /// Witboost environment name.
    pub environment: String,
    /// Driver of the target.
    pub technology: &'static str,
    /// Code of the target.
    pub target: String,
    /// What becomes of access lists there.
    pub access: AccessMode,
    /// In the order of application; empty when nothing differs.
    pub changes: Vec<Change>,
    /// Why it cannot be planned before what comes before it is done; there are no changes then.
    pub pending: Option<String>,
}

/// What an operation would change.
#[derive(Debug, Clone)]
pub struct Planned {
    /// In the order in which the operation would treat them.
    pub components: Vec<ComponentPlan>,
    /// Components that are left to other adapters.
    pub skipped: Vec<Skipped>,
}

/// Where one component would land, and why.
pub struct ComponentPlace {
    /// Component id.
    pub id: String,
    /// Component name.
    pub name: String,
    /// Witboost environment name.
    pub environment: String,
    /// What was looked at.
    pub explanation: Explanation,
    /// Code of the target that is chosen; `None` when no route leads anywhere.
    pub target: Option<Result<String, Problem>>,
    /// Code of the target where it is provisioned, which is where all but a provisioning goes.
    pub provisioned_on: Option<String>,
}

/// The parts that decide, shared by the service and the worker.
pub struct Domain {
    /// What the configuration says of targets and routes.
    pub installation: Arc<Installation>,
    /// What a descriptor may cost.
    pub limits: Limits,
    /// Parsing takes memory in proportion to the document: this many at a time.
    parsing: Arc<Semaphore>,
    /// As many for validations, which are asked for without end by whoever types: neither they nor what was accepted
    /// wait for the other.
    validating: Arc<Semaphore>,
    parses: ParseSettings,
    /// How imports are read and answered.
    pub(super) imports: ImportSettings,
    /// What was last heard of each target.
    pub(super) recorder: TargetRecorder,
}

/// How many documents are read at the same time, which bounds the memory that they take meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseSettings {
    /// So many for validations, and so many for accepting and running operations. Dry runs have a bound of their own.
    pub concurrency: usize,
    /// How long a document waits for its turn; then it is refused.
    pub wait: Duration,
}

impl Default for ParseSettings {
    fn default() -> Self {
        Self { concurrency: 4, wait: Duration::from_secs(30) }
    }
}

/// For whom a document is read, which decides the permits it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Validation,
    Operation,
    /// Bounded by its lane.
    DryRun,
}

impl Domain {
    /// `limits` bound what one document may cost, `parses` how many are read at the same time.
    pub fn new(installation: Installation, limits: Limits, parses: ParseSettings) -> Self {
        let permits = || Arc::new(Semaphore::new(parses.concurrency.max(1)));
        Self {
            installation: Arc::new(installation),
            limits,
            parsing: permits(),
            validating: permits(),
            parses,
            imports: ImportSettings::default(),
            recorder: TargetRecorder::default(),
        }
    }

    /// The same, with other imports.
    #[must_use]
    pub fn with_imports(mut self, imports: ImportSettings) -> Self {
        self.imports = imports;
        self
    }

    /// An import as it was asked for. A descriptor that is sent as text is read as any other.
    pub(super) async fn import(&self, request: ReverseRequest) -> Result<Import> {
        let text = request.params.get("descriptor").and_then(Value::as_str).map_or(0, str::len);
        let (key, limits) = (self.imports.environment_key.clone(), self.limits);
        if text <= SMALL {
            return Ok(Import::new(request, &key, &limits));
        }
        let permit = self.permit(Purpose::Operation).await?;
        blocking(move || {
            let _permit = permit;
            Import::new(request, &key, &limits)
        })
        .await
    }

    /// The topology as it is now.
    pub async fn topology(&self, store: &dyn Store) -> Result<Topology> {
        Ok(Topology::new(Arc::clone(&self.installation), store.instances().await?))
    }

    /// Whether the document could be provisioned now; gives what is left to other adapters.
    pub async fn validate(self: &Arc<Self>, document: &Document, store: &dyn Store) -> Result<Vec<Skipped>> {
        let read = self.read(Purpose::Validation, document, Intent::Provision, None, store, None);
        Ok(read.await?.skipped)
    }

    /// Parses, places and checks, off the async threads unless the document is small. `store` tells where things may go
    /// and what is already provisioned.
    pub async fn resolve(
        self: &Arc<Self>,
        document: &Document,
        intent: Intent,
        placements: Option<&[Placement]>,
        store: &dyn Store,
        access: Option<&AccessList>,
    ) -> Result<Resolved> {
        self.read(Purpose::Operation, document, intent, placements, store, access).await
    }

    async fn read(
        self: &Arc<Self>,
        purpose: Purpose,
        document: &Document,
        intent: Intent,
        placements: Option<&[Placement]>,
        store: &dyn Store,
        access: Option<&AccessList>,
    ) -> Result<Resolved> {
        let topology = self.topology(store).await?;
        let small = document.text.len() <= SMALL;
        let permit = if small { None } else { self.permit(purpose).await? };
        let (domain, landscape) = (Arc::clone(self), topology.clone());
        let document = document.clone();
        let placements = placements.map(<[Placement]>::to_vec);
        let accepted = placements.clone();
        // The permit goes with the work: it is not free while a thread still reads for a caller who has left.
        let parse = move || {
            let places = accepted.as_deref().map_or(Places::Topology, Places::Fixed);
            (work::parse(&document, &intent, &landscape, places, &domain.limits), permit)
        };
        let (descriptor, permit) = if small { parse() } else { blocking(parse).await? };
        let descriptor = descriptor.map_err(Error::invalid)?;
        // Of what is made, what is beside it counts, too.
        let all = intent == Intent::Provision;
        let components =
            if all { descriptor.product.all_components().collect() } else { descriptor.targets() };
        let ids = components.iter().map(|component| component.id.to_string()).collect::<Vec<_>>();
        let deployments: Vec<Deployment> = store.deployments(&ids).await?;
        let access = access.cloned();
        let resolve = move || {
            let _permit = permit;
            let places = placements.as_deref().map_or(Places::Topology, Places::Fixed);
            let mut resolved =
                work::resolve(&descriptor, &intent, &topology, places, &deployments, access.as_ref())?;
            // What is being accepted is to be told from other requests.
            resolved.digest =
                (purpose == Purpose::Operation && placements.is_none()).then(|| descriptor.digest());
            Ok(resolved)
        };
        if small { resolve() } else { blocking(resolve).await? }.map_err(Error::invalid)
    }

    /// All permits, for a test in which others have them.
    #[cfg(test)]
    pub(super) fn all_permits(&self) -> [OwnedSemaphorePermit; 2] {
        let all = u32::try_from(self.parses.concurrency).unwrap();
        [&self.parsing, &self.validating]
            .map(|permits| Arc::clone(permits).try_acquire_many_owned(all).unwrap())
    }

    /// Leave to read one more document. The wait for it is bounded, and ends when the caller leaves.
    async fn permit(&self, purpose: Purpose) -> Result<Option<OwnedSemaphorePermit>> {
        let permits = match purpose {
            Purpose::Validation => &self.validating,
            Purpose::Operation => &self.parsing,
            Purpose::DryRun => return Ok(None),
        };
        match timeout(self.parses.wait, Arc::clone(permits).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Some(permit)),
            Ok(Err(closed)) => Err(Error::retryable("the server is going down").because(closed)),
            Err(_) => Err(Error::overloaded(format!(
                "{} descriptors are being read, which is the limit; try again later",
                self.parses.concurrency
            ))),
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    landfall_adapter::blocking::run(move |_| Ok(work())).await
}

/// See the module documentation.
pub struct Service {
    domain: Arc<Domain>,
    engine: Engine,
    store: Arc<dyn Store>,
    dry_runs: DryRuns,
}

impl Service {
    /// `engine` runs on `store`.
    pub fn new(domain: Arc<Domain>, engine: Engine, store: Arc<dyn Store>, dry_runs: DryRunSettings) -> Self {
        Self { domain, engine, store, dry_runs: DryRuns::new(dry_runs) }
    }

    /// Whether the document could be provisioned; [`Kind::Invalid`] lists why not. No side effect.
    pub async fn validate(&self, document: Document) -> Result<()> {
        self.domain.validate(&document, self.store.as_ref()).await.map(drop)
    }

    /// The same as a task, whose outcome tells.
    pub async fn submit_validation(&self, document: Document) -> Result<Submitted> {
        self.submit(Request::Validate { document }, None).await
    }

    /// Makes what the document describes exist.
    pub async fn provision(&self, document: Document) -> Result<Submitted> {
        let (placements, digest) = self.place(&document, Intent::Provision, None).await?;
        self.submit(Request::Provision { document, placements }, digest).await
    }

    /// Makes it go, its data too when `remove_data`.
    pub async fn unprovision(&self, document: Document, remove_data: bool) -> Result<Submitted> {
        let (placements, digest) = self.place(&document, Intent::Unprovision { remove_data }, None).await?;
        self.submit(Request::Unprovision { document, placements, remove_data }, digest).await
    }

    /// Lets exactly `refs` read the component that `document` names.
    pub async fn update_access(
        &self,
        document: Document,
        refs: BTreeSet<Ref>,
        fields: Object,
    ) -> Result<Submitted> {
        let access = AccessList { refs: refs.into_iter().collect(), fields };
        let (placements, digest) = self
            .place(&document, Intent::UpdateAccess, Some(&access))
            .await
            .map_err(|error| under(error, "provisionInfo.request"))?;
        self.submit(Request::UpdateAccess { document, placements, access }, digest).await
    }

    /// Reads an existing resource into catalog updates.
    pub async fn reverse(&self, mut request: ReverseRequest) -> Result<Submitted> {
        let topology = self.domain.topology(self.store.as_ref()).await?;
        // In one spelling: names are derived from it.
        request.environment = topology.environment(&request.environment).to_owned();
        let import = self.domain.import(request).await?;
        let ReverseRequest { use_case_template_id, environment, .. } = import.request();
        let routing = import.subject().outline.as_ref().map(|outline| {
            let mut routing = outline.routing();
            routing.use_case_template_id.get_or_insert(use_case_template_id);
            routing
        });
        let target = topology
            .choose_import(use_case_template_id, environment, import.target(), routing.as_ref())
            .map_err(|problem| Error::invalid(vec![problem]))?;
        let mut params = import.params();
        target.technology.check_import(&mut params);
        let problems = params.finish().problems;
        if !problems.is_empty() {
            return Err(Error::invalid(problems));
        }
        let mut request = import.into_request();
        // It named the target, which is kept beside the request.
        request.params.shift_remove("target");
        self.submit(Request::Reverse { request, target: target.code.clone() }, None).await
    }

    /// What an operation would change, without changing anything. `refs` count where access is updated.
    ///
    /// [`Kind::Overloaded`] when its lane is full, [`Kind::Retryable`] when it takes too long. It is cancelled when the
    /// future is dropped.
    pub async fn plan(&self, document: Document, intent: Intent, refs: BTreeSet<Ref>) -> Result<Planned> {
        let access = match intent {
            Intent::UpdateAccess => {
                Some(AccessList { refs: refs.into_iter().collect(), fields: Object::new() })
            }
            Intent::Provision | Intent::Unprovision { .. } => None,
        };
        let (at, domain, store) = (At::default(), Arc::clone(&self.domain), Arc::clone(&self.store));
        let planned = self.dry_runs.run(|context| {
            let at = at.clone();
            async move { dry_run(&domain, &document, intent, access, store.as_ref(), &context, &at).await }
        });
        if let Some(planned) = planned.await? {
            return Ok(planned);
        }
        let target = at.target();
        let overdue = self.dry_runs.overdue(target.as_deref());
        if let Some(target) = target {
            self.domain.recorder.failed(&target.code, &overdue);
        }
        Err(overdue)
    }

    /// Where each component would land, and why.
    pub async fn explain(&self, document: Document) -> Result<Vec<ComponentPlace>> {
        let topology = self.domain.topology(self.store.as_ref()).await?;
        let limits = self.domain.limits;
        let permit = self.domain.permit(Purpose::Validation).await?;
        let landscape = topology.clone();
        let descriptor = blocking(move || {
            let _permit = permit;
            let ours = |outline: &Outline| landscape.is_routed(&outline.routing());
            descriptor::parse(document.kind, document.text.as_str(), Strictness::Short, &limits, &ours)
        })
        .await?
        .map_err(|rejected| Error::invalid(rejected.problems))?;
        let targets = descriptor.targets();
        let ids = targets.iter().map(|component| component.id.to_string()).collect::<Vec<_>>();
        let deployments = self.store.deployments(&ids).await?;
        work::explain(&descriptor, &topology, &deployments).map_err(Error::invalid)
    }

    /// The instances of the topology, by id, that a filter lets through.
    pub async fn instances(&self, filter: &Filter) -> Result<Vec<Instance>> {
        let all = self.store.instances().await?;
        Ok(all.iter().filter(|instance| filter.matches(instance)).cloned().collect())
    }

    /// One instance.
    pub async fn instance(&self, id: i64) -> Result<Option<Instance>> {
        Ok(self.store.instances().await?.iter().find(|instance| instance.id == id).cloned())
    }

    /// Changes the topology for what is accepted from now on; `None` when there is no such instance.
    pub async fn edit_instance(&self, edit: Edit) -> Result<Option<Instance>> {
        self.store.edit_instance(edit).await
    }

    /// The task as it stands, or nothing when the token is unknown or expired.
    pub async fn task(&self, token: &str) -> Result<Option<Task>> {
        match token.parse::<Token>() {
            Ok(token) => self.engine.task(&token).await,
            Err(_) => Ok(None),
        }
    }

    /// The task once it has ended, or as it stands when `within` is over.
    pub async fn wait(&self, token: &Token, within: Duration) -> Result<Option<Task>> {
        self.engine.wait(token, within).await
    }

    /// Asks a task to stop and answers how it stands; [`Kind::Unsupported`] when it runs on a target that cannot stop.
    /// What waits has begun nothing and can always be stopped.
    pub async fn stop(&self, token: &str) -> Result<Option<Task>> {
        let Ok(token) = token.parse::<Token>() else { return Ok(None) };
        let Some(task) = self.store.task(&token).await? else { return Ok(None) };
        let Some(target) = self.unstoppable(&task) else {
            return self.engine.stop(&token, StopScope::Any).await;
        };
        match self.engine.stop(&token, StopScope::Waiting).await? {
            Some(task) if task.state == State::Running => Err(Error::unsupported(format!(
                "the operation runs on target `{}` ({}), which cannot stop work under way",
                target.code,
                target.technology.name()
            ))),
            task => Ok(task),
        }
    }

    /// The first target of a task that cannot stop work under way.
    fn unstoppable(&self, task: &Task) -> Option<Arc<Target>> {
        task.targets
            .iter()
            .filter_map(|code| self.domain.installation.target(code))
            .find(|target| !target.technology.capabilities().stop)
    }

    /// What this process last heard of each configured target.
    pub fn target_health(&self) -> Vec<TargetHealth> {
        let health = |target: &Arc<Target>| {
            let last = self.domain.recorder.last(&target.code);
            TargetHealth {
                code: target.code.clone(),
                technology: target.technology.name(),
                last_success: last.success,
                last_failure: last.failure,
            }
        };
        self.domain.installation.targets().iter().map(health).collect()
    }

    /// Waiting and running tasks.
    pub async fn counts(&self) -> Result<Counts> {
        self.engine.counts().await
    }

    /// Whether operations can be taken and run.
    pub async fn health(&self) -> Health {
        self.engine.health().await
    }

    /// Stops taking work, waits for what runs, hands the rest over.
    pub async fn drain(&self, grace: Duration) -> Drained {
        self.engine.drain(grace).await
    }

    async fn place(
        &self,
        document: &Document,
        intent: Intent,
        access: Option<&AccessList>,
    ) -> Result<(Vec<Placement>, Option<[u8; 32]>)> {
        let resolved = self.domain.resolve(document, intent, None, self.store.as_ref(), access).await?;
        Ok((work::placements(&resolved), resolved.digest))
    }

    /// Serialised once, and off the async threads unless the request is small.
    async fn submit(&self, request: Request, digest: Option<[u8; 32]>) -> Result<Submitted> {
        let operation = request.operation();
        let components = request.placements().iter().map(|placement| placement.key.clone()).collect();
        let targets = request.targets();
        let small = request.is_small();
        let serialise = move || (request.fingerprint(digest), serde_json::to_string(&request));
        let (fingerprint, payload) = if small { serialise() } else { blocking(serialise).await? };
        let payload =
            payload.map_err(|error| Error::permanent("the request cannot be kept").because(error))?.into();
        self.engine.submit(NewTask { operation, components, targets, fingerprint, payload }).await
    }
}

/// The changes of each component, in the order in which they would be made.
async fn dry_run(
    domain: &Arc<Domain>,
    document: &Document,
    intent: Intent,
    access: Option<AccessList>,
    store: &dyn Store,
    context: &Context,
    at: &At,
) -> Result<Planned> {
    let resolved = domain.read(Purpose::DryRun, document, intent, None, store, access.as_ref()).await?;
    let mut planned = Planned { components: Vec::new(), skipped: resolved.skipped };
    let waiting = runner::waiting(&resolved.assigned, intent);
    for one in runner::in_order(resolved.assigned, intent) {
        context.check_cancelled()?;
        at.set(&one.target);
        let remembered = store.deployment(&one.key()).await?;
        let waits = waiting.contains(&one.work.component.id);
        let plan = runner::plan(&one, &intent, context, remembered.as_ref(), &domain.recorder).await;
        let (changes, pending) = match plan {
            Ok(plan) => (plan.changes, None),
            Err(error) if runner::stands(&error, intent, waits) => {
                return Err(located(error, &one.work.component));
            }
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let Assigned { work, target, .. } = one;
        planned.components.push(ComponentPlan {
            id: work.component.id.to_string(),
            name: work.component.name.clone(),
            environment: work.environment.clone(),
            technology: target.technology.name(),
            target: target.code.clone(),
            access: target.technology.capabilities().access,
            changes,
            pending,
        });
    }
    Ok(planned)
}

/// The same error, its problems seen from further up.
fn under(error: Error, prefix: &str) -> Error {
    each_problem(error, |problem| problem.under(prefix))
}

/// The same error, the problems that a technology found seen from the root of the document.
pub(super) fn located(error: Error, component: &Component) -> Error {
    each_problem(error, |problem| component.located(problem))
}

fn each_problem(error: Error, change: impl FnMut(Problem) -> Problem) -> Error {
    match error.kind() {
        Kind::Invalid(problems) => Error::invalid(problems.iter().cloned().map(change).collect()),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::sqlite::SqliteStore;
    use crate::topology::Route;
    use landfall_adapter::descriptor::DescriptorKind;
    use landfall_adapter::testing::CASHFLOW;
    use landfall_mock::Mock;

    /// However many of one kind are being read, the other kind gets its turn.
    #[tokio::test]
    async fn validations_and_the_rest_do_not_wait_for_one_another() {
        let mock = Target {
            code: "MOCK".to_owned(),
            group: "mock".to_owned(),
            environments: Vec::new(),
            turns: None,
            technology: Arc::new(Mock::default()),
        };
        let route = Route { group: "mock".to_owned(), ..Route::default() };
        let environments = BTreeMap::from([("production".to_owned(), 1)]);
        let installation = Installation::new(vec![mock], vec![route], environments);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("landfall.db");
        let store = SqliteStore::open(path.to_str().unwrap(), crate::Limits::default()).await.unwrap();
        store.seed_instances(installation.seeds()).await.unwrap();
        let parses = ParseSettings { concurrency: 1, wait: Duration::from_millis(100) };
        let domain = Arc::new(Domain::new(installation, Limits::default(), parses));
        let text = format!("{CASHFLOW}\n#{}\n", " ".repeat(SMALL));
        let document = Document { kind: DescriptorKind::DataProduct, text };
        let validate = || tokio::time::timeout(Duration::from_secs(30), domain.validate(&document, &store));
        let resolve = |patience| {
            let read = domain.resolve(&document, Intent::Provision, None, &store, None);
            tokio::time::timeout(patience, read)
        };

        let busy = domain.parsing.acquire().await.unwrap();
        validate().await.unwrap().unwrap();
        assert!(resolve(Duration::from_millis(50)).await.is_err(), "its own kind has to wait");
        let refused = resolve(Duration::from_secs(30)).await.unwrap().map(drop).unwrap_err();
        assert_eq!(*refused.kind(), Kind::Overloaded, "but not without end");
        assert_eq!(refused.to_string(), "1 descriptors are being read, which is the limit; try again later");
        let small = Document { kind: DescriptorKind::DataProduct, text: CASHFLOW.to_owned() };
        assert!(small.text.len() <= SMALL);
        domain.resolve(&small, Intent::Provision, None, &store, None).await.expect("it needs no turn");
        drop(busy);
        let _busy = domain.validating.acquire().await.unwrap();
        assert_eq!(resolve(Duration::from_secs(30)).await.unwrap().unwrap().assigned.len(), 3);
    }

    #[test]
    fn fingerprint_is_of_what_is_asked_for() {
        let object = |text: &str| serde_json::from_str::<Object>(text).unwrap();
        let reverse = |params: &str, target: &str| {
            let request = ReverseRequest {
                use_case_template_id: "urn:t".to_owned(),
                environment: "dev".to_owned(),
                params: object(params),
                catalog_info: object("{}"),
            };
            Request::Reverse { request, target: target.to_owned() }.fingerprint(None)
        };
        let base = reverse(r#"{"a": {"x": 1, "y": [1, 2]}, "b": "2"}"#, "PG");
        assert_eq!(reverse(r#"{ "b": "2", "a": {"y": [1, 2], "x": 1} }"#, "PG"), base, "in another order");
        for (params, target) in [
            (r#"{"a": {"x": 1, "y": [1, 2]}, "b": "2"}"#, "LAKE"),
            (r#"{"a": {"x": 1, "y": [2, 1]}, "b": "2"}"#, "PG"),
            (r#"{"a": {"x": 1, "y": [1, 2]}, "b": 2}"#, "PG"),
            (r#"{"a": {"x": 1, "y": [1, 2], "b": "2"}}"#, "PG"),
        ] {
            assert_ne!(reverse(params, target), base, "{params} {target}");
        }

        let document = |text: &str| Document { kind: DescriptorKind::DataProduct, text: text.to_owned() };
        let place = |component: &str, target: &str| Placement {
            key: crate::ComponentKey::new(component, "dev"),
            target: target.to_owned(),
            path: String::new(),
        };
        let provision = |text: &str, places: &[Placement], digest| {
            Request::Provision { document: document(text), placements: places.to_vec() }.fingerprint(digest)
        };
        let (a, b) = (place("a", "PG"), place("b", "PG"));
        let base = provision("x: 1", &[a.clone(), b.clone()], Some([1; 32]));
        assert_eq!(provision("x: 1 # one", &[b.clone(), a.clone()], Some([1; 32])), base);
        assert_ne!(provision("x: 1", &[a.clone(), b.clone()], Some([2; 32])), base);
        assert_ne!(provision("x: 1", &[a.clone(), place("b", "LAKE")], Some([1; 32])), base);
        let unprovision = |remove_data| {
            let placements = vec![a.clone()];
            Request::Unprovision { document: document("x"), placements, remove_data }
                .fingerprint(Some([1; 32]))
        };
        assert_ne!(unprovision(true), unprovision(false));
        let access = |refs: &[&str], fields: &str| {
            let refs = refs.iter().map(|text| Ref::parse(text).unwrap()).collect();
            let access = AccessList { refs, fields: object(fields) };
            Request::UpdateAccess { document: document("x"), placements: vec![a.clone()], access }
                .fingerprint(Some([1; 32]))
        };
        let base = access(&["group:dev"], "{}");
        assert_ne!(access(&[], "{}"), base);
        assert_ne!(access(&["group:dev"], r#"{"a": 1}"#), base);
        let validate = |text: &str| Request::Validate { document: document(text) }.fingerprint(None);
        assert_ne!(validate("x: 1"), validate("x:  1"), "a verdict names lines and columns");
    }
}
