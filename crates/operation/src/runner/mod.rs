//! The work of a task: observe, plan and apply. Components run side by side, each after those that it must follow.
//!
//! No state of an earlier run is used, except the state of the targets and the memory of technologies: a run
//! after a crash plans again and applies what is left. The runner checks for a stop between changes, and each
//! change can notice a stop through its context.

mod info;
mod left;
mod progress;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chrono::Utc;
use futures::stream::{self, FuturesUnordered};
use futures::{FutureExt, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::SemaphorePermit;

use landfall_adapter::descriptor::{Identifier, Object, Problem};
use landfall_adapter::error::{Error, Kind, Result};
use landfall_adapter::import::Checked;
use landfall_adapter::{
    AccessMode, Context, Dependency, Info, Intent, Journal, Plan, ReverseRequest, Running,
};

use super::domain::Domain;
use super::request::{ChangeRequest, Request};
use super::schedule::Schedule;
use super::target_health::TargetRecorder;
use super::work::{Assigned, Document, Skipped, located};
use super::{ClaimedTask, Deployment, DeploymentStatus, Deployments, RunError, Runner, Store};
use info::merge;
use left::{kept_elsewhere, made_as_another_kind};
use progress::{ChangeProgress, ComponentProgress, End, Stage};

/// The result of a task, which is stored as its outcome.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Report {
    /// A sentence for users.
    pub result: String,
    /// The info of the components that the platform shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<Info>,
    /// Catalog updates of an import.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updates: Option<Object>,
    /// The problems of the document; empty if it is valid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// Runs tasks on the configured technologies.
pub struct TechnologyRunner {
    domain: Arc<Domain>,
    store: Arc<dyn Store>,
    components_at_once: usize,
}

impl TechnologyRunner {
    /// Creates a runner. `store` has the deployments and the access lists.
    pub fn new(domain: Arc<Domain>, store: Arc<dyn Store>, components_at_once: usize) -> Self {
        Self { domain, store, components_at_once: components_at_once.max(1) }
    }

    async fn perform(
        &self,
        request: Request,
        context: &Context,
        deployments: &Deployments,
        report: &mut Report,
    ) -> Result<()> {
        match request {
            Request::Validate { document } => self.validate(&document, context, report).await,
            Request::Change(change) => self.change(&change, context, deployments, report).await,
            Request::Reverse { request, target } => self.reverse(request, &target, context, report).await,
        }
    }

    /// Validates a document. An invalid document is a result, not a failure.
    async fn validate(&self, document: &Document, context: &Context, report: &mut Report) -> Result<()> {
        let checked = async {
            let resolved = self.domain.validate(document, self.store.as_ref()).await?;
            self.check(&resolved.assigned, context).await?;
            Ok(resolved.skipped)
        };
        match unless_cancelled(context, checked).await {
            Ok(skipped) => {
                report_skipped(&skipped, &context.journal);
                report.result = "the descriptor is valid".to_owned();
            }
            Err(error) => match error.kind() {
                Kind::Invalid(problems) => {
                    report.problems.clone_from(problems);
                    report.result = error.to_string();
                }
                _ => return Err(error),
            },
        }
        Ok(())
    }

    async fn reverse(
        &self,
        request: ReverseRequest,
        code: &str,
        context: &Context,
        report: &mut Report,
    ) -> Result<()> {
        let target = self
            .domain
            .installation
            .target(code)
            .ok_or_else(|| Error::permanent(format!("target `{code}` is not configured any more")))?;
        context.journal.info(format!("reading from target `{}` ({})", target.code, target.technology.name()));
        let import = unless_cancelled(context, self.domain.import(request)).await?;
        unless_cancelled(context, self.domain.learn(&target)).await?;
        let mut params = import.params();
        target.technology.check_import(&mut params);
        let Checked { problems, defaults, ignored } = params.finish();
        for line in defaults.iter().chain(&ignored) {
            context.journal.info(line);
        }
        if !problems.is_empty() {
            return Err(Error::invalid(problems));
        }
        let imported = target.technology.reverse(&import, context).await;
        let imported = self.domain.recorder.record(&target.code, imported)?;
        let updates = context.blocking(move |_| Ok(imported.updates(&import))).await?;
        for lost in &updates.lost {
            context
                .journal
                .warn(format!("not in the updates, since the data contract cannot say it: {lost}"));
        }
        let updates = self.domain.imports.place(updates.fields);
        report.result = format!("{} catalog fields read", updates.len());
        context.journal.info(&report.result);
        report.updates = Some(updates);
        Ok(())
    }

    /// Changes every component of the request.
    async fn change(
        &self,
        change: &ChangeRequest,
        context: &Context,
        deployments: &Deployments,
        report: &mut Report,
    ) -> Result<()> {
        let ChangeRequest { intent, document, placements, access } = change;
        let (intent, store) = (*intent, self.store.as_ref());
        let resolved = self.domain.resolve(document, intent, Some(placements), store, access.as_ref());
        let resolved = unless_cancelled(context, resolved).await?;
        report_skipped(&resolved.skipped, &context.journal);
        let assigned = in_order(resolved.assigned, intent);
        let many = assigned.len() > 1;
        let recorder = &self.domain.recorder;
        if intent == Intent::Provision {
            unless_cancelled(context, self.check(&assigned, context)).await?;
        }
        let mut progress = ComponentProgress::new(&context.journal, &assigned);
        if many && intent != Intent::UpdateAccess {
            self.plan_all(&assigned, intent, context, deployments, &mut progress).await?;
        }
        let schedule = Schedule::new(&resolved.sequence, &assigned, intent);
        let published = &Mutex::default();
        let begin = |one: &'_ Assigned| {
            let id = one.work.component.id.to_string();
            let journal = if many { context.journal.group(&id) } else { context.journal.phase(&id) };
            let (one, context) = (one.clone(), context.with_journal(journal));
            async move {
                let one = bound_again(one, intent, published, &context).await?;
                let done = component(&one, intent, &context, deployments, recorder).await?;
                if let Some(info) = done.info.as_ref().filter(|_| many) {
                    let mut published = published.lock().unwrap_or_else(PoisonError::into_inner);
                    published.insert(one.work.component.id.clone(), info.clone());
                }
                Ok(done)
            }
        };
        let (results, failed) =
            side_by_side(schedule, self.components_at_once, &mut progress, Stage::Working, begin).await;
        let mut changes = 0;
        let mut modes = Vec::new();
        for (one, done) in assigned.iter().zip(results) {
            let Some(done) = done else { continue };
            changes += done.changes;
            modes.extend(done.mode);
            if let Some(info) = done.info {
                merge(report.info.get_or_insert_default(), info, many.then_some(one));
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let verb = match intent {
            Intent::Provision => "provisioned",
            Intent::Unprovision { .. } => "unprovisioned",
            Intent::UpdateAccess => "access updated",
        };
        let plural = if many { "components" } else { "component" };
        report.result = match changes {
            0 => format!("{verb}: {} {plural}, nothing to change", assigned.len()),
            1 => format!("{verb}: {} {plural}, 1 change", assigned.len()),
            _ => format!("{verb}: {} {plural}, {changes} changes", assigned.len()),
        };
        for (mode, note) in [
            (AccessMode::Recorded, "; access is recorded, not enforced"),
            (
                AccessMode::Delegated,
                "; access is passed on, and Landfall does not know whether it is enforced",
            ),
        ] {
            if modes.contains(&mode) {
                report.result.push_str(note);
            }
        }
        Ok(())
    }
}

impl TechnologyRunner {
    async fn check(&self, assigned: &[Assigned], context: &Context) -> Result<()> {
        check(assigned, context, &self.domain.recorder, self.components_at_once, &|_| {}).await
    }

    /// Plans every component before the first change, so that a problem of the last component is found before
    /// anything changes. The plans are not kept: each component is planned again when its work begins, because
    /// earlier changes may have changed what is left to do.
    async fn plan_all(
        &self,
        assigned: &[Assigned],
        intent: Intent,
        context: &Context,
        deployments: &Deployments,
        progress: &mut ComponentProgress<'_>,
    ) -> Result<()> {
        let waiting = &waiting(assigned, intent);
        let recorder = &self.domain.recorder;
        let begin = |one: &'_ Assigned| {
            // The notes of a plan are logged only when it is applied.
            let (one, silent) = (one.clone(), context.silent().with_memory(deployments.memory(one.key())));
            async move {
                let _turn = turn(&one, &silent).await?;
                let planned = match deployments.get(&one.key()).await {
                    Ok(remembered) => {
                        plan(&one, &intent, &silent, remembered.as_ref(), recorder).await.map(drop)
                    }
                    Err(error) => Err(error),
                };
                match planned {
                    Err(error) if stands(&error, intent, waiting.contains(&one.work.component.id)) => {
                        Err(located(error, &one.work.component))
                    }
                    _ => Ok(()),
                }
            }
        };
        let schedule = Schedule::free(assigned.len());
        let (_, failed) =
            side_by_side(schedule, self.components_at_once, progress, Stage::Planning, begin).await;
        failed.map_or(Ok(()), Err)
    }
}

/// Checks components on their targets, if their technologies need it, at most `at_once` at a time. The error has
/// every problem of every component. A check that fails is an error, unless another check found problems.
pub(super) async fn check(
    assigned: &[Assigned],
    context: &Context,
    recorder: &TargetRecorder,
    at_once: usize,
    begin: &(dyn Fn(&Assigned) + Sync),
) -> Result<()> {
    let asked = assigned.iter().filter(|one| one.bound.has_check());
    let checks: Vec<_> = asked.map(|one| checked(one, context, recorder, begin).boxed()).collect();
    let results: Vec<Result<Vec<Problem>>> = stream::iter(checks).buffered(at_once).collect().await;
    let mut problems = Vec::new();
    let mut failed = None;
    for result in results {
        match result {
            Ok(found) => problems.extend(found),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match (problems.is_empty(), failed) {
        (false, _) => Err(Error::invalid(problems)),
        (true, Some(error)) => Err(error),
        (true, None) => Ok(()),
    }
}

async fn checked(
    one: &Assigned,
    context: &Context,
    recorder: &TargetRecorder,
    begin: &(dyn Fn(&Assigned) + Sync),
) -> Result<Vec<Problem>> {
    context.check_cancelled()?;
    let _turn = turn(one, context).await?;
    begin(one);
    let found = recorder.record(&one.target.code, one.bound.check(context).await)?;
    Ok(one.work.component.without_consequences(found))
}

/// Processes components in the order of the schedule, at most `at_once` at a time. After a failure, no further
/// component begins, and running ones end. Returns the results of successful components, and the error that decides
/// the task; other errors are logged.
async fn side_by_side<T, F>(
    mut schedule: Schedule,
    at_once: usize,
    progress: &mut ComponentProgress<'_>,
    stage: Stage,
    begin: impl Fn(&Assigned) -> F,
) -> (Vec<Option<T>>, Option<Error>)
where
    F: Future<Output = Result<T>>,
{
    let assigned = progress.assigned;
    let mut results: Vec<Option<T>> = assigned.iter().map(|_| None).collect();
    let mut failures: Vec<(usize, Error)> = Vec::new();
    let mut running = FuturesUnordered::new();
    loop {
        while failures.is_empty()
            && running.len() < at_once
            && let Some(number) = schedule.next()
        {
            let Some(one) = assigned.get(number) else { continue };
            progress.enter(number, stage);
            let work = begin(one);
            running.push(async move { (number, work.await) });
        }
        let Some((number, ended)) = running.next().await else { break };
        match ended {
            Ok(result) => {
                progress.enter(number, if stage == Stage::Working { Stage::Done } else { Stage::NotBegun });
                schedule.done(number);
                if let Some(slot) = results.get_mut(number) {
                    *slot = Some(result);
                }
            }
            Err(error) => {
                progress.enter(number, Stage::Ended(End::of(&error)));
                failures.push((number, error));
            }
        }
    }
    // A permanent failure decides before a transient one, because a retry does not help; a stop decides before a
    // transient failure.
    let rank = |error: &Error| match error.kind() {
        Kind::Cancelled => 1,
        _ if error.is_retryable() => 2,
        _ => 0,
    };
    failures.sort_by_key(|(number, error)| (rank(error), *number));
    let mut failures = failures.into_iter();
    let deciding = failures.next();
    for (number, error) in failures.filter(|(_, error)| *error.kind() != Kind::Cancelled) {
        let id = assigned.get(number).map(|one| one.work.component.id.to_string()).unwrap_or_default();
        let journal = progress.journal.phase(&id);
        journal.error(error.to_string());
        log_problems(&error, &journal);
    }
    (results, deciding.map(|(_, error)| error))
}

/// Logs each of several problems with its remedy.
fn log_problems(error: &Error, journal: &Journal) {
    let Kind::Invalid(problems) = error.kind() else { return };
    for problem in problems.iter().filter(|_| problems.len() > 1) {
        journal.error(problem.to_string());
        if let Some(remedy) = &problem.remedy {
            journal.info(format!("to fix it: {remedy}"));
        }
    }
}

/// Waits for a permit of the target; `None` if the target has no limit of its own.
async fn turn<'a>(one: &'a Assigned, context: &Context) -> Result<Option<SemaphorePermit<'a>>> {
    let Some(turns) = &one.target.turns else { return Ok(None) };
    let acquired = async {
        let acquired = turns.acquire().await;
        acquired.map_err(|closed| Error::retryable("the server is shutting down").because(closed))
    };
    unless_cancelled(context, acquired).await.map(Some)
}

#[async_trait]
impl Runner for TechnologyRunner {
    async fn run(
        &self,
        task: &ClaimedTask,
        context: &Context,
        deployments: &Deployments,
    ) -> Result<Value, RunError> {
        let mut report = Report::default();
        let done = match Request::deserialize(&task.payload) {
            Ok(request) => self.perform(request, context, deployments, &mut report).await,
            Err(error) => {
                // The error itself may quote the request.
                let kind = format!("{:?} error in its JSON", error.classify());
                Err(Error::permanent("the stored request cannot be read by this version").because(kind))
            }
        };
        match done {
            Ok(()) => Ok(value(&report)),
            Err(error) => {
                // The engine logs the error itself, and the remedy of a single problem. Several problems are logged
                // here.
                log_problems(&error, &context.journal);
                if let Kind::Invalid(problems) = error.kind() {
                    report.problems.clone_from(problems);
                }
                report.result = error.to_string();
                Err(RunError { outcome: Some(value(&report)), error })
            }
        }
    }
}

fn report_skipped(skipped: &[Skipped], journal: &Journal) {
    // The log of a task is limited, and describes what is done.
    const SAID: usize = 50;
    for Skipped { id, reason } in skipped.iter().take(SAID) {
        journal.info(format!("{id}: left to another adapter: {reason}"));
    }
    if skipped.len() > SAID {
        journal.info(format!("{} more components are left to other adapters", skipped.len() - SAID));
    }
}

/// Awaits a future that does not use a context. Returns [`Kind::Cancelled`] as soon as the run should end.
async fn unless_cancelled<T>(context: &Context, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        biased;
        () = context.cancel.cancelled() => Err(Error::cancelled("stopped on request")),
        done = work => done,
    }
}

fn value(report: &Report) -> Value {
    serde_json::to_value(report).unwrap_or_default()
}

/// Components in the order of the intent: for an unprovision, a component comes before its dependencies.
pub(super) fn in_order(mut assigned: Vec<Assigned>, intent: Intent) -> Vec<Assigned> {
    if matches!(intent, Intent::Unprovision { .. }) {
        assigned.reverse();
    }
    assigned
}

struct Done {
    changes: usize,
    /// How access lists are applied to the component, if it exists now.
    mode: Option<AccessMode>,
    info: Option<Info>,
}

/// The info that components of this task have published.
type PublishedNow = Mutex<HashMap<Identifier, Info>>;

/// Binds a component again if a dependency has published other info in this task than was known at its beginning.
async fn bound_again(
    mut one: Assigned,
    intent: Intent,
    published: &PublishedNow,
    context: &Context,
) -> Result<Assigned> {
    if intent != Intent::Provision {
        return Ok(one);
    }
    let known = &one.work.dependencies;
    let dependencies: Vec<Dependency> = {
        let published = published.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = |id: &Identifier| {
            let before = || known.iter().find(|it| it.id == *id).map(|it| &it.info);
            Some(Dependency { id: id.clone(), info: published.get(id).or_else(before)?.clone() })
        };
        one.work.component.depends_on.iter().filter_map(latest).collect()
    };
    if dependencies == *known {
        return Ok(one);
    }
    one.work.dependencies = dependencies;
    let (target, work) = (Arc::clone(&one.target), one.work.clone());
    let bound = context.blocking(move |_| Ok(target.technology.bind(work, intent))).await?;
    one.bound = bound.map_err(|problems| located(Error::invalid(problems), &one.work.component))?;
    Ok(one)
}

/// Observes, plans and applies. This is the only place that changes targets.
async fn component(
    one: &Assigned,
    intent: Intent,
    context: &Context,
    deployments: &Deployments,
    recorder: &TargetRecorder,
) -> Result<Done> {
    let Assigned { work, target, .. } = one;
    let technology = &target.technology;
    let context = &Running::new(context.clone().with_memory(deployments.memory(one.key())));
    let journal = &context.journal;
    context.check_cancelled()?;
    let _turn = turn(one, context).await?;
    let remembered = deployments.get(&one.key()).await?;
    let plan = plan(one, &intent, context, remembered.as_ref(), recorder)
        .await
        .map_err(|error| located(error, &work.component))?;
    for note in &plan.notes {
        journal.info(note);
    }
    let mut deployment = Deployment {
        key: one.key(),
        target: target.code.clone(),
        status: DeploymentStatus::Provisioned,
        access: work.access.clone(),
        specific: work.component.specific.clone(),
        kind: Some(work.component.kind.clone()),
        product: Some(work.product.id.to_string()),
        info: None,
        updated_at: Utc::now(),
    };
    let removes_nothing = matches!(intent, Intent::Unprovision { .. }) && plan.changes.is_empty();
    if !removes_nothing {
        // Store the deployment before the first change, so that resources can be found after a crash.
        deployments.put(&deployment).await?;
    }
    if plan.changes.is_empty() && plan.unmet.is_empty() {
        journal.info(format!("nothing to change on target `{}`", target.code));
    }
    let count = plan.changes.len();
    let mut progress = ChangeProgress::new(journal, &plan.changes);
    for change in &plan.changes {
        context.check_cancelled().inspect_err(|error| progress.end = End::of(error))?;
        deployments.check_lease()?;
        progress.begun = true;
        let applied = one.bound.apply(&change.step, context).await;
        if let Err(error) = recorder.record(&target.code, applied) {
            progress.end = End::of(&error);
            return Err(located(error, &work.component));
        }
        progress.begun = false;
        progress.made += 1;
        journal.info(format!("{} of {count}: {}", progress.made, change.summary));
    }
    if !plan.unmet.is_empty() {
        return Err(located(Error::invalid(plan.unmet), &work.component));
    }
    let info = match intent {
        Intent::Unprovision { .. } => {
            deployment.status = DeploymentStatus::Unprovisioned;
            deployments.put(&deployment).await?;
            if intent == (Intent::Unprovision { remove_data: true }) {
                deployments.forget(&deployment.key).await?;
            }
            None
        }
        Intent::Provision | Intent::UpdateAccess => {
            let info = one.bound.describe(context).await;
            let info = recorder.record(&target.code, info)?;
            if remembered.is_none_or(|it| it.info.as_ref() != Some(&info)) {
                deployment.info = Some(info.clone());
                deployments.put(&deployment).await?;
            }
            Some(info)
        }
    };
    let mode = info.as_ref().map(|_| technology.capabilities().access_of(&work.component.kind));
    Ok(Done { changes: count, mode, info })
}

/// Components that must follow another component of the same task.
pub(super) fn waiting(assigned: &[Assigned], intent: Intent) -> HashSet<Identifier> {
    match intent {
        Intent::Unprovision { .. } => {
            assigned.iter().flat_map(|one| one.work.component.depends_on.iter().cloned()).collect()
        }
        Intent::Provision | Intent::UpdateAccess => {
            let own: HashSet<&Identifier> = assigned.iter().map(|one| &one.work.component.id).collect();
            let waits = |one: &&Assigned| one.work.component.depends_on.iter().any(|id| own.contains(id));
            assigned.iter().filter(waits).map(|one| one.work.component.id.clone()).collect()
        }
    }
}

/// Whether the error of an early plan will still apply when the work on the component begins. A component that
/// waits for another one may fail only because the other one does not exist yet, or still exists.
pub(super) fn stands(error: &Error, intent: Intent, waits: bool) -> bool {
    match error.kind() {
        Kind::Cancelled => true,
        Kind::Conflict | Kind::Invalid(_) => !waits || intent == Intent::Provision,
        _ => !waits,
    }
}

/// Plans one component. `remembered` is its stored deployment.
///
/// In an unprovision, a resource of another owner is a conflict only if the component was provisioned. A component
/// that was never created, because its name was taken, has nothing to remove, so its data product can be removed.
pub(super) async fn plan(
    one: &Assigned,
    intent: &Intent,
    context: &Context,
    remembered: Option<&Deployment>,
    recorder: &TargetRecorder,
) -> Result<Plan> {
    let Assigned { bound, target, .. } = one;
    let planned = bound.plan(context).await;
    let planned = recorder.record(&target.code, planned);
    let provisioned = remembered.is_some_and(|it| it.status == DeploymentStatus::Provisioned);
    let mut plan = match planned {
        Err(error)
            if *error.kind() == Kind::Conflict
                && matches!(intent, Intent::Unprovision { .. })
                && !provisioned =>
        {
            let reason = format!("it is not provisioned, so there is nothing to remove: {error}");
            Plan::default().with_notes(vec![reason])
        }
        planned => planned?,
    };
    if let Some(problem) = made_as_another_kind(one, &plan, intent, context, remembered).await {
        return Err(Error::invalid(vec![problem]));
    }
    let kept = kept_elsewhere(one, &plan, intent, context, remembered).await;
    plan.notes.extend(kept);
    Ok(plan)
}
