//! The operations that Landfall offers: the one interface between the contracts and the layers below.
//!
//! Every method takes the content of a request. It either refuses the request with every problem, or creates one
//! durable task. A refused request leaves no trace, and an accepted task survives a crash.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use crate::topology::{Edit, Explanation, Filter, Instance, Target};
use landfall_adapter::access::Ref;
use landfall_adapter::descriptor::{self, Object, Outline, Problem, Strictness};
use landfall_adapter::error::{Error, Result};
use landfall_adapter::{AccessList, AccessMode, Change, Context, Intent, Memory, ReverseRequest};

use super::domain::{Domain, blocking};
use super::dry_run::{At, DryRunSettings, DryRuns};
use super::request::{ChangeRequest, Request};
use super::runner;
use super::target_health::TargetHealth;
use super::work::{self, Assigned, Document, Skipped, located, under};
use super::{
    ComponentKey, Counts, Drained, Engine, Health, Inventory, NewTask, Operation, State, StopScope, Store,
    Submitted, Task, Token,
};

/// The changes of one component.
#[derive(Debug, Clone)]
pub struct ComponentPlan {
    /// Component id.
    pub id: String,
    /// Component name.
    pub name: String,
    /// Witboost environment name.
    pub environment: String,
    /// Driver of the target.
    pub technology: String,
    /// Code of the target.
    pub target: String,
    /// How access lists are applied on the target.
    pub access: AccessMode,
    /// In the order of application; empty if nothing differs.
    pub changes: Vec<Change>,
    /// What the target cannot do: the operation would apply the changes and then fail with these problems.
    pub unmet: Vec<Problem>,
    /// Why the component cannot be planned before its dependencies are done; then there are no changes.
    pub pending: Option<String>,
}

/// The changes of an operation.
#[derive(Debug, Clone)]
pub struct Planned {
    /// In the order in which the operation would process them.
    pub components: Vec<ComponentPlan>,
    /// Components that are left to other adapters.
    pub skipped: Vec<Skipped>,
}

/// The target that one component would get, and why.
pub struct ComponentPlace {
    /// Component id.
    pub id: String,
    /// Component name.
    pub name: String,
    /// Witboost environment name.
    pub environment: String,
    /// The route and the candidates.
    pub explanation: Explanation,
    /// The code of the chosen target, or the problem; `None` if no route leads to a target.
    pub target: Option<Result<String, Problem>>,
    /// The code of the target where the component is provisioned; all operations except a provisioning use it.
    pub provisioned_on: Option<String>,
}

/// The operations, on an engine and a store.
pub struct Service {
    domain: Arc<Domain>,
    engine: Engine,
    store: Arc<dyn Store>,
    dry_runs: DryRuns,
}

impl Service {
    /// Creates the service. `engine` must run on `store`.
    pub fn new(domain: Arc<Domain>, engine: Engine, store: Arc<dyn Store>, dry_runs: DryRunSettings) -> Self {
        Self { domain, engine, store, dry_runs: DryRuns::new(dry_runs) }
    }

    /// Checks whether the document could be provisioned; the error [`Kind::Invalid`] lists why not. No side
    /// effect.
    ///
    /// A target is called only if its technology has [`Bound::has_check`](landfall_adapter::Bound::has_check).
    /// These calls have the limits and the errors of a dry run.
    pub async fn validate(&self, document: Document) -> Result<()> {
        let resolved = self.domain.validate(&document, self.store.as_ref()).await?;
        if !resolved.assigned.iter().any(|one| one.bound.has_check()) {
            return Ok(());
        }
        let domain = Arc::clone(&self.domain);
        self.bounded("validation", |context, at| async move {
            check(&domain, &resolved.assigned, &context, &at).await
        })
        .await
    }

    /// Runs a dry run or a check within the limits of dry runs. `what` names the work in the error after the
    /// deadline.
    async fn bounded<T, F>(&self, what: &str, work: impl FnOnce(Context, At) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let at = At::default();
        if let Some(done) = self.dry_runs.run(|context| work(context, at.clone())).await? {
            return Ok(done);
        }
        let target = at.target();
        let overdue = self.dry_runs.overdue(what, target.as_deref());
        if let Some(target) = target {
            self.domain.recorder.failed(&target.code, &overdue);
        }
        Err(overdue)
    }

    /// Submits a validation as a task; the outcome of the task has the result.
    pub async fn submit_validation(&self, document: Document) -> Result<Submitted> {
        self.submit(Request::Validate { document }, None).await
    }

    /// Creates or updates the components of the document.
    pub async fn provision(&self, document: Document) -> Result<Submitted> {
        self.change(document, Intent::Provision, None).await
    }

    /// Removes the components of the document, with their data when `remove_data`.
    pub async fn unprovision(&self, document: Document, remove_data: bool) -> Result<Submitted> {
        self.change(document, Intent::Unprovision { remove_data }, None).await
    }

    /// Gives read access to the component of the document to exactly `refs`.
    pub async fn update_access(
        &self,
        document: Document,
        refs: BTreeSet<Ref>,
        fields: Object,
    ) -> Result<Submitted> {
        let access = AccessList { refs: refs.into_iter().collect(), fields };
        let submitted = self.change(document, Intent::UpdateAccess, Some(access)).await;
        submitted.map_err(|error| under(error, "provisionInfo.request"))
    }

    async fn change(
        &self,
        mut document: Document,
        intent: Intent,
        access: Option<AccessList>,
    ) -> Result<Submitted> {
        let store = self.store.as_ref();
        let resolved = self.domain.resolve(&document, intent, None, store, access.as_ref()).await?;
        let placements = work::placements(&resolved);
        (document.latest, document.published) = (None, resolved.published);
        let change = ChangeRequest { intent, document, placements, access };
        self.submit(Request::Change(change), resolved.digest).await
    }

    /// Submits a task that reads an existing resource; its outcome has the catalog updates.
    pub async fn reverse(&self, mut request: ReverseRequest) -> Result<Submitted> {
        let topology = self.domain.topology(self.store.as_ref()).await?;
        // Use one spelling, because names are derived from the environment.
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
        self.domain.learn(&target).await?;
        let mut params = import.params();
        target.technology.check_import(&mut params);
        let problems = params.finish().problems;
        if !problems.is_empty() {
            return Err(Error::invalid(problems));
        }
        let mut request = import.into_request();
        // The target is stored beside the request.
        request.params.shift_remove("target");
        self.submit(Request::Reverse { request, target: target.code.clone() }, None).await
    }

    /// The changes of an operation, without making them. `refs` matters only for an update of access.
    ///
    /// Returns [`Kind::Overloaded`] if too many dry runs are running, and [`Kind::Retryable`] if planning takes
    /// too long. Dropping the future cancels the dry run.
    pub async fn plan(&self, document: Document, intent: Intent, refs: BTreeSet<Ref>) -> Result<Planned> {
        let access = match intent {
            Intent::UpdateAccess => {
                Some(AccessList { refs: refs.into_iter().collect(), fields: Object::new() })
            }
            Intent::Provision | Intent::Unprovision { .. } => None,
        };
        let (domain, store) = (Arc::clone(&self.domain), Arc::clone(&self.store));
        self.bounded("dry run", |context, at| async move {
            dry_run(&domain, &document, intent, access, &store, &context, &at).await
        })
        .await
    }

    /// The target that each component would get, and why.
    pub async fn explain(&self, document: Document) -> Result<Vec<ComponentPlace>> {
        let topology = self.domain.topology(self.store.as_ref()).await?;
        let limits = self.domain.limits;
        let permit = self.domain.permit(Some(Operation::Validate.lane())).await?;
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

    /// The instances of the topology that match a filter, by id.
    pub async fn instances(&self, filter: &Filter) -> Result<Vec<Instance>> {
        let all = self.store.instances().await?;
        Ok(all.iter().filter(|instance| filter.matches(instance)).cloned().collect())
    }

    /// An instance by id.
    pub async fn instance(&self, id: i64) -> Result<Option<Instance>> {
        Ok(self.store.instances().await?.iter().find(|instance| instance.id == id).cloned())
    }

    /// Edits an instance and returns the result; `None` if the instance does not exist. The edit applies to
    /// requests that are accepted afterwards.
    pub async fn edit_instance(&self, edit: Edit) -> Result<Option<Instance>> {
        self.store.edit_instance(edit).await
    }

    /// The current task; `None` if the token is unknown or expired.
    pub async fn task(&self, token: &str) -> Result<Option<Task>> {
        match token.parse::<Token>() {
            Ok(token) => self.engine.task(&token).await,
            Err(_) => Ok(None),
        }
    }

    /// Returns the task when it has ended, or its current state after `within`.
    pub async fn wait(&self, token: &Token, within: Duration) -> Result<Option<Task>> {
        self.engine.wait(token, within).await
    }

    /// Requests a stop, and returns the task after the request; `None` if the token is unknown. Returns
    /// [`Kind::Unsupported`] if the task runs on a target that cannot stop running work. A waiting task can
    /// always be stopped.
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

    /// Among the targets of a task, the first one that cannot stop running work; `None` if all can.
    fn unstoppable(&self, task: &Task) -> Option<Arc<Target>> {
        task.targets
            .iter()
            .filter_map(|code| self.domain.installation.target(code))
            .find(|target| !target.technology.capabilities().stop)
    }

    /// The recorded health of each configured target.
    pub fn target_health(&self) -> Vec<TargetHealth> {
        let health = |target: &Arc<Target>| {
            let last = self.domain.recorder.last(&target.code);
            TargetHealth {
                code: target.code.clone(),
                technology: target.technology.name().to_owned(),
                last_success: last.success,
                last_failure: last.failure,
            }
        };
        self.domain.installation.targets().iter().map(health).collect()
    }

    /// How many tasks wait and run.
    pub async fn counts(&self) -> Result<Counts> {
        self.engine.counts().await
    }

    /// Whether operations can be accepted and run.
    pub async fn health(&self) -> Health {
        self.engine.health().await
    }

    /// Claims no more tasks, waits for running ones, and returns the others to the queue.
    pub async fn drain(&self, grace: Duration) -> Drained {
        self.engine.drain(grace).await
    }

    /// Serialises the request once, and off the async threads unless it is small.
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

/// Plans each component, in the order of the operation.
async fn dry_run(
    domain: &Arc<Domain>,
    document: &Document,
    intent: Intent,
    access: Option<AccessList>,
    store: &Arc<dyn Store>,
    context: &Context,
    at: &At,
) -> Result<Planned> {
    let resolved = domain.read(None, document, intent, None, store.as_ref(), access.as_ref()).await?;
    let mut planned = Planned { components: Vec::new(), skipped: resolved.skipped };
    if intent == Intent::Provision {
        check(domain, &resolved.assigned, context, at).await?;
    }
    let waiting = runner::waiting(&resolved.assigned, intent);
    for one in runner::in_order(resolved.assigned, intent) {
        context.check_cancelled()?;
        at.set(&one.target);
        let remembered = store.deployment(&one.key()).await?;
        let waits = waiting.contains(&one.work.component.id);
        let context = context.clone().with_memory(Arc::new(ReadOnly {
            store: Arc::clone(store) as Arc<dyn Inventory>,
            key: one.key(),
        }));
        let plan = runner::plan(&one, &intent, &context, remembered.as_ref(), &domain.recorder).await;
        let (changes, unmet, pending) = match plan {
            Ok(plan) => {
                let unmet = plan.unmet.into_iter().map(|problem| one.work.component.located(problem));
                (plan.changes, unmet.collect(), None)
            }
            Err(error) if runner::stands(&error, intent, waits) => {
                return Err(located(error, &one.work.component));
            }
            Err(error) => (Vec::new(), Vec::new(), Some(error.to_string())),
        };
        let Assigned { work, target, .. } = one;
        planned.components.push(ComponentPlan {
            id: work.component.id.to_string(),
            name: work.component.name.clone(),
            environment: work.environment.clone(),
            technology: target.technology.name().to_owned(),
            target: target.code.clone(),
            access: target.technology.capabilities().access_of(&work.component.kind),
            changes,
            unmet,
            pending,
        });
    }
    Ok(planned)
}

/// Checks components on their targets, one after the other, so that `at` always has the current target, which a
/// deadline error names.
async fn check(domain: &Domain, assigned: &[Assigned], context: &Context, at: &At) -> Result<()> {
    let begin = |one: &Assigned| at.set(&one.target);
    runner::check(assigned, context, &domain.recorder, 1, &begin).await
}

/// The memory of a component, for a dry run.
struct ReadOnly {
    store: Arc<dyn Inventory>,
    key: ComponentKey,
}

#[async_trait]
impl Memory for ReadOnly {
    async fn recall(&self) -> Result<Option<Value>> {
        self.store.memory(&self.key).await
    }

    async fn remember(&self, _: Value) -> Result<()> {
        Err(Error::permanent("a dry run remembers nothing"))
    }
}
