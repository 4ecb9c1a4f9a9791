//! The work of a task: observe, plan, apply, for its components side by side, each after those that it has to follow.
//!
//! Nothing of an earlier run is remembered but what the targets themselves show: a run after a crash plans again
//! and applies what is left. Stop is looked for between changes, and carried into a change by its context.

use std::collections::{BTreeSet, HashSet};
use std::iter;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::Utc;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::SemaphorePermit;

use crate::topology::same_code;
use landfall_adapter::descriptor::{Component, DataProduct, Identifier, Object, Problem};
use landfall_adapter::error::{Error, Kind, Result};
use landfall_adapter::import::Checked;
use landfall_adapter::{
    AccessList, AccessMode, Action, Change, Context, Info, Intent, Journal, Kinds, Plan, ReverseRequest, Work,
};

use super::schedule::Schedule;
use super::service::{Domain, Request, located};
use super::target_health::TargetRecorder;
use super::work::{Assigned, Document, Placement, Skipped};
use super::{ClaimedTask, Deployment, DeploymentStatus, Deployments, RunError, Runner, Store};

/// What a task came to; its outcome in the store.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Report {
    /// A sentence for people.
    pub result: String,
    /// What the platform shows of the components.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<Info>,
    /// Catalog updates of an import.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updates: Option<Object>,
    /// What is wrong with the document; empty when it is valid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// Runs tasks against the configured technologies.
pub struct TechnologyRunner {
    domain: Arc<Domain>,
    store: Arc<dyn Store>,
    components_at_once: usize,
}

impl TechnologyRunner {
    /// `store` tells what was provisioned where, and who should have access.
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
            Request::Provision { document, placements } => {
                self.components(&document, Intent::Provision, &placements, None, context, deployments, report)
                    .await
            }
            Request::Unprovision { document, placements, remove_data } => {
                let intent = Intent::Unprovision { remove_data };
                self.components(&document, intent, &placements, None, context, deployments, report).await
            }
            Request::UpdateAccess { document, placements, access } => {
                let intent = Intent::UpdateAccess;
                self.components(&document, intent, &placements, Some(&access), context, deployments, report)
                    .await
            }
            Request::Reverse { request, target } => self.reverse(request, &target, context, report).await,
        }
    }

    /// An invalid document is a result, not a failure.
    async fn validate(&self, document: &Document, context: &Context, report: &mut Report) -> Result<()> {
        match unless_cancelled(context, self.domain.validate(document, self.store.as_ref())).await {
            Ok(skipped) => {
                say_skipped(&skipped, &context.journal);
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

    #[expect(
        clippy::too_many_arguments,
        reason = "each is a different thing, and grouping them would name nothing"
    )]
    async fn components(
        &self,
        document: &Document,
        intent: Intent,
        placements: &[Placement],
        access: Option<&AccessList>,
        context: &Context,
        deployments: &Deployments,
        report: &mut Report,
    ) -> Result<()> {
        let resolved = self.domain.resolve(document, intent, Some(placements), self.store.as_ref(), access);
        let resolved = unless_cancelled(context, resolved).await?;
        say_skipped(&resolved.skipped, &context.journal);
        let assigned = in_order(resolved.assigned, intent);
        let many = assigned.len() > 1;
        let recorder = &self.domain.recorder;
        let mut course = Course::new(&context.journal, &assigned);
        if many && intent != Intent::UpdateAccess {
            self.plan_all(&assigned, intent, context, deployments, &mut course).await?;
        }
        let schedule = Schedule::new(&resolved.sequence, &assigned, intent);
        let begin = |one: &'_ Assigned| {
            let id = one.work.component.id.to_string();
            let journal = if many { context.journal.group(&id) } else { context.journal.phase(&id) };
            let (one, context) = (one.clone(), Context { journal, ..context.clone() });
            async move { component(&one, intent, &context, deployments, recorder).await }
        };
        let (results, failed) =
            side_by_side(schedule, self.components_at_once, &mut course, Stage::Working, begin).await;
        let mut changes = 0;
        let mut recorded = false;
        for (one, done) in assigned.iter().zip(results) {
            let Some(done) = done else { continue };
            changes += done.changes;
            recorded |= done.recorded;
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
        if recorded {
            report.result.push_str("; access is recorded, not enforced");
        }
        Ok(())
    }
}

impl TechnologyRunner {
    /// Plans every component before the first one is changed, so that what stands in the way of the last is found while
    /// nothing has been made of the others. The plans themselves are not kept: each component is planned again when its
    /// turn comes, since what was applied before it may have changed what there is to do.
    async fn plan_all(
        &self,
        assigned: &[Assigned],
        intent: Intent,
        context: &Context,
        deployments: &Deployments,
        course: &mut Course<'_>,
    ) -> Result<()> {
        let waiting = &waiting(assigned, intent);
        let recorder = &self.domain.recorder;
        let begin = |one: &'_ Assigned| {
            // What a plan has to say is said when it is made to be applied.
            let (one, silent) = (one.clone(), Context { journal: Journal::default(), ..context.clone() });
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
            side_by_side(schedule, self.components_at_once, course, Stage::Planning, begin).await;
        failed.map_or(Ok(()), Err)
    }
}

/// Does something with components, so many at once, each when its schedule lets it. After a failure nothing new begins,
/// and what runs ends. Answers what came of each that ended well, and the failure that decides; the others are told in the log.
async fn side_by_side<T, F>(
    mut schedule: Schedule,
    at_once: usize,
    course: &mut Course<'_>,
    stage: Stage,
    begin: impl Fn(&Assigned) -> F,
) -> (Vec<Option<T>>, Option<Error>)
where
    F: Future<Output = Result<T>>,
{
    let assigned = course.assigned;
    let mut results: Vec<Option<T>> = assigned.iter().map(|_| None).collect();
    let mut failures: Vec<(usize, Error)> = Vec::new();
    let mut running = FuturesUnordered::new();
    loop {
        while failures.is_empty()
            && running.len() < at_once
            && let Some(number) = schedule.next()
        {
            let Some(one) = assigned.get(number) else { continue };
            course.enter(number, stage);
            let work = begin(one);
            running.push(async move { (number, work.await) });
        }
        let Some((number, ended)) = running.next().await else { break };
        match ended {
            Ok(result) => {
                course.enter(number, if stage == Stage::Working { Stage::Done } else { Stage::NotBegun });
                schedule.done(number);
                if let Some(slot) = results.get_mut(number) {
                    *slot = Some(result);
                }
            }
            Err(error) => {
                course.enter(number, Stage::Ended(End::of(&error)));
                failures.push((number, error));
            }
        }
    }
    // Trying again does not help while one of them fails for good, and a stop is not undone by a failure that passes.
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
        let journal = course.journal.phase(&id);
        journal.error(error.to_string());
        tell_problems(&error, &journal);
    }
    (results, deciding.map(|(_, error)| error))
}

/// Every one of several problems, and what to do about each.
fn tell_problems(error: &Error, journal: &Journal) {
    let Kind::Invalid(problems) = error.kind() else { return };
    for problem in problems.iter().filter(|_| problems.len() > 1) {
        journal.error(problem.to_string());
        if let Some(remedy) = &problem.remedy {
            journal.info(format!("to fix it: {remedy}"));
        }
    }
}

/// Room on a target that has a bound of its own.
async fn turn<'a>(one: &'a Assigned, context: &Context) -> Result<Option<SemaphorePermit<'a>>> {
    let Some(turns) = &one.target.turns else { return Ok(None) };
    let acquired = async {
        let acquired = turns.acquire().await;
        acquired.map_err(|closed| Error::retryable("the server is going down").because(closed))
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
                // The engine writes the error itself, and what to do about a single problem; what it cannot tell is every
                // one of several.
                tell_problems(&error, &context.journal);
                if let Kind::Invalid(problems) = error.kind() {
                    report.problems.clone_from(problems);
                }
                report.result = error.to_string();
                Err(RunError { outcome: Some(value(&report)), error })
            }
        }
    }
}

fn say_skipped(skipped: &[Skipped], journal: &Journal) {
    // The log of a task is bounded, and is about what is done.
    const SAID: usize = 50;
    for Skipped { id, reason } in skipped.iter().take(SAID) {
        journal.info(format!("{id}: left to another adapter: {reason}"));
    }
    if skipped.len() > SAID {
        journal.info(format!("{} more components are left to other adapters", skipped.len() - SAID));
    }
}

/// The work, or [`Kind::Cancelled`] as soon as the run is to end: for what looks at no context itself.
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

/// Components in the order to work on them: what was built on something goes before it.
pub(super) fn in_order(mut assigned: Vec<Assigned>, intent: Intent) -> Vec<Assigned> {
    if matches!(intent, Intent::Unprovision { .. }) {
        assigned.reverse();
    }
    assigned
}

struct Done {
    changes: usize,
    recorded: bool,
    info: Option<Info>,
}

/// Observe, plan, apply: the only place where anything is changed.
async fn component(
    one: &Assigned,
    intent: Intent,
    context: &Context,
    deployments: &Deployments,
    recorder: &TargetRecorder,
) -> Result<Done> {
    let Assigned { work, target, .. } = one;
    let technology = &target.technology;
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
        updated_at: Utc::now(),
    };
    let removes_nothing = matches!(intent, Intent::Unprovision { .. }) && plan.changes.is_empty();
    if !removes_nothing {
        // Written before the first change: what a crash leaves behind must be found where it was put.
        deployments.put(&deployment).await?;
    }
    if plan.changes.is_empty() {
        journal.info(format!("nothing to change on target `{}`", target.code));
    }
    let count = plan.changes.len();
    let mut progress = Progress::new(journal, &plan.changes);
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
    let info = match intent {
        Intent::Unprovision { .. } => {
            deployment.status = DeploymentStatus::Unprovisioned;
            deployments.put(&deployment).await?;
            None
        }
        Intent::Provision | Intent::UpdateAccess => {
            let info = one.bound.describe(context).await;
            Some(recorder.record(&target.code, info)?)
        }
    };
    let recorded = technology.capabilities().access == AccessMode::Recorded && info.is_some();
    Ok(Done { changes: count, recorded, info })
}

/// Components that something of the same task comes before.
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

/// Whether what an early plan says will still be so once what comes before the component is done. What is wrong with a
/// component that waits for another may be no more than that the other is not there yet, or not gone yet.
pub(super) fn stands(error: &Error, intent: Intent, waits: bool) -> bool {
    match error.kind() {
        Kind::Cancelled => true,
        Kind::Conflict | Kind::Invalid(_) => !waits || intent == Intent::Provision,
        _ => !waits,
    }
}

/// How work ended before it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Stopped,
    Failed,
    /// It did not get to say: it was dropped where it stood.
    CutOff,
}

impl End {
    fn of(error: &Error) -> Self {
        if *error.kind() == Kind::Cancelled { Self::Stopped } else { Self::Failed }
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::CutOff => "cut off",
        }
    }
}

/// How far the changes of a component got. Says so in the log when they end before the last one, from its `drop`: work
/// that is cut off runs no other code.
struct Progress<'a> {
    journal: &'a Journal,
    changes: &'a [Change],
    made: usize,
    /// Whether the next one was begun.
    begun: bool,
    end: End,
}

impl<'a> Progress<'a> {
    fn new(journal: &'a Journal, changes: &'a [Change]) -> Self {
        Self { journal, changes, made: 0, begun: false, end: End::CutOff }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        let (made, left) = self.changes.split_at(self.made.min(self.changes.len()));
        let (unfinished, left) = left.split_at(usize::from(self.begun).min(left.len()));
        if unfinished.is_empty() && left.is_empty() {
            return;
        }
        let (verb, count) = (self.end.verb(), self.changes.len());
        self.journal.warn(match made {
            [] => format!("{verb} with 0 of {count} changes made"),
            _ => format!("{verb} with {} of {count} changes made: {}", made.len(), summaries(made)),
        });
        for (what, changes) in [("not finished", unfinished), ("not made", left)] {
            if !changes.is_empty() {
                self.journal.warn(format!("{what}: {}", summaries(changes)));
            }
        }
    }
}

fn summaries(changes: &[Change]) -> String {
    few(changes.iter().map(|change| change.summary.clone()))
}

/// Where the work on one of several components stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    NotBegun,
    Planning,
    Working,
    Done,
    Ended(End),
}

/// How far the components of a task got; the same for them as [`Progress`] is for changes.
struct Course<'a> {
    journal: &'a Journal,
    assigned: &'a [Assigned],
    stages: Vec<Stage>,
    /// Whether one of them was begun to be worked on.
    is_working: bool,
}

impl<'a> Course<'a> {
    fn new(journal: &'a Journal, assigned: &'a [Assigned]) -> Self {
        Self { journal, assigned, stages: vec![Stage::NotBegun; assigned.len()], is_working: false }
    }

    fn enter(&mut self, number: usize, stage: Stage) {
        self.is_working |= stage == Stage::Working;
        if let Some(at) = self.stages.get_mut(number) {
            *at = stage;
        }
    }

    /// The ids of those that stand there.
    fn ids(&self, is_there: impl Fn(Stage) -> bool) -> Vec<String> {
        let there = self.assigned.iter().zip(&self.stages).filter(|(_, stage)| is_there(**stage));
        there.map(|(one, _)| one.work.component.id.to_string()).collect()
    }
}

impl Drop for Course<'_> {
    fn drop(&mut self) {
        if self.assigned.len() < 2 || self.stages.iter().all(|stage| *stage == Stage::Done) {
            return;
        }
        let ends = [End::Failed, End::Stopped, End::CutOff].map(|end| {
            let ids = self.ids(|stage| match stage {
                Stage::Ended(ended) => ended == end,
                // It did not get to say.
                Stage::Planning | Stage::Working => end == End::CutOff,
                Stage::NotBegun | Stage::Done => false,
            });
            (end.verb(), ids)
        });
        let ends: Vec<_> = ends.into_iter().filter(|(_, ids)| !ids.is_empty()).collect();
        if !self.is_working && !ends.is_empty() {
            for (verb, ids) in ends {
                self.journal
                    .warn(format!("nothing was changed in this run: {verb} while planning {}", few(ids)));
            }
            return;
        }
        self.journal.warn(format!("components done: {}", few(self.ids(|stage| stage == Stage::Done))));
        for (verb, ids) in ends {
            self.journal.warn(format!("{verb} in: {}", few(ids)));
        }
        let left = self.ids(|stage| stage == Stage::NotBegun);
        if !left.is_empty() {
            self.journal.warn(format!("not begun: {}", few(left)));
        }
    }
}

/// The first few, how many more there are, and none of them at length: one line has to hold them.
fn few(items: impl IntoIterator<Item = String, IntoIter: ExactSizeIterator>) -> String {
    const SHOWN: usize = 5;
    const LENGTH: usize = 120;
    let items = items.into_iter();
    let count = items.len();
    let mut shown: Vec<String> = items
        .take(SHOWN)
        .map(|item| match item.char_indices().nth(LENGTH) {
            Some((end, _)) => format!("{}...", item.get(..end).unwrap_or_default()),
            None => item,
        })
        .collect();
    if count == 0 {
        shown.push("none".to_owned());
    } else if count > SHOWN {
        shown.push(format!("and {} more", count - SHOWN));
    }
    shown.join("; ")
}

/// The plan for one component. `remembered` is what the store knows of it.
///
/// Somebody else's resource in the way of an unprovision is a conflict only for a component that was provisioned: one
/// that never came to be, because its name was taken, is gone already, and its data product can go too.
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
            Plan {
                changes: Vec::new(),
                notes: vec![format!("it is not provisioned, so there is nothing to remove: {error}")],
            }
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

/// What there is of a component that was made as another kind than its descriptor says, where nobody remembers as which, or
/// where it kept its data as another: it would stay behind without a word.
async fn made_as_another_kind(
    one: &Assigned,
    plan: &Plan,
    intent: &Intent,
    context: &Context,
    remembered: Option<&Deployment>,
) -> Option<Problem> {
    let Assigned { work, target, .. } = one;
    let own = &work.component.kind;
    let Kinds::Only(kinds) = target.technology.capabilities().kinds else { return None };
    let is_there = remembered.is_some_and(|it| it.status == DeploymentStatus::Provisioned);
    let removes_nothing = matches!(intent, Intent::Unprovision { .. }) && plan.changes.is_empty();
    let made = remembered.and_then(|deployment| deployment.kind.as_ref());
    let (candidates, asked) = match (remembered, made) {
        (Some(_), Some(made)) if removes_nothing && made != own => (vec![made], *intent),
        // An earlier version did not say.
        (Some(_), None) if is_there && *intent != Intent::UpdateAccess => {
            let others = kinds.iter().filter(|kind| *kind != own);
            (iter::once(own).chain(others).collect(), Intent::UpdateAccess)
        }
        (None, _) if removes_nothing => {
            (kinds.iter().filter(|kind| *kind != own).collect(), Intent::UpdateAccess)
        }
        _ => return None,
    };
    let silent = Context { journal: Journal::default(), ..context.clone() };
    for kind in candidates {
        let mut component = Component::clone(&work.component);
        component.kind.clone_from(kind);
        if let Some(deployment) = remembered {
            component.specific.clone_from(&deployment.specific);
        }
        // The access of what is not there cannot be planned, not even when none is asked for.
        let there = Work { component: Arc::new(component), access: None, ..work.clone() };
        let Ok(bound) = target.technology.bind(there, asked) else { continue };
        let Ok(found) = bound.plan(&silent).await else { continue };
        if kind == own {
            return None;
        }
        if asked == Intent::UpdateAccess || !found.changes.is_empty() {
            let was = kind.name();
            return Some(
                Problem::new("kind", format!("this component exists as `{was}`"))
                    .value(own.name())
                    .remedy(format!("write `kind: {was}`, or unprovision it as that first")),
            );
        }
    }
    None
}

/// Where the component's data stayed when it was unprovisioned, if it is provisioned somewhere else now. The technology
/// that had it is asked: what it would take back is there.
async fn kept_elsewhere(
    one: &Assigned,
    plan: &Plan,
    intent: &Intent,
    context: &Context,
    remembered: Option<&Deployment>,
) -> Option<String> {
    let deployment = remembered.filter(|it| it.status == DeploymentStatus::Unprovisioned)?;
    let moved = !same_code(&deployment.target, &one.target.code);
    let kind = deployment.kind.as_ref().unwrap_or(&one.work.component.kind);
    let mut product = DataProduct::clone(&one.work.product);
    if let Some(id) = deployment.product.as_ref().and_then(|id| id.parse().ok()) {
        product.id = id;
    }
    let renamed = deployment.specific != one.work.component.specific
        || *kind != one.work.component.kind
        || product.id != one.work.product.id;
    if *intent != Intent::Provision || !(moved || renamed) {
        return None;
    }
    let code = &deployment.target;
    let stays = "is not moved: copy it, or provision the component there again to take it back";
    let Some(before) = &one.before else {
        return moved.then(|| {
            format!(
                "the component was unprovisioned on target `{code}`, which is not configured any more: data that was \
                 kept there {stays}"
            )
        });
    };
    let mut component = Component::clone(&one.work.component);
    component.specific.clone_from(&deployment.specific);
    component.kind.clone_from(kind);
    let there = Work { product: Arc::new(product), component: Arc::new(component), ..one.work.clone() };
    let silent = Context { journal: Journal::default(), ..context.clone() };
    let resources = |plan: &Plan| {
        let kept = plan.changes.iter().filter(|change| change.action == Action::Restore);
        kept.map(|change| change.resource.clone()).collect::<BTreeSet<_>>()
    };
    let planned = match before.technology.bind(there, *intent) {
        Ok(bound) => bound.plan(&silent).await,
        Err(problems) => Err(Error::invalid(problems)),
    };
    let old = match planned {
        Ok(plan) => resources(&plan),
        Err(error) if moved => {
            return Some(format!(
                "the component was unprovisioned on target `{code}`, which cannot say whether it kept data ({error}): what \
                 it kept {stays}"
            ));
        }
        Err(_) => return None,
    };
    if old.is_empty() || (!moved && resources(plan) == old) {
        return None;
    }
    let names = old.into_iter().collect::<Vec<_>>().join(", ");
    Some(format!("data of this component was kept on target `{code}` ({names}), and {stays}"))
}

/// One component's info is the task's. Of several, each entry is named after its component.
fn merge(into: &mut Info, info: Info, of: Option<&Assigned>) {
    let Some(one) = of else {
        *into = info;
        return;
    };
    let id = one.work.component.id.to_string();
    let stem = camel_case(id.rsplit(':').next().unwrap_or(&id));
    for (key, mut entry) in info.public {
        if let Some(label) = entry.get_mut("label") {
            *label =
                Value::String(format!("{}: {}", one.work.component.name, label.as_str().unwrap_or(&key)));
        }
        let key = capitalised(&key);
        // Two ids may end alike.
        let names = (1..)
            .map(|number| if number == 1 { format!("{stem}{key}") } else { format!("{stem}{number}{key}") });
        if let Some(name) = names.into_iter().find(|name| !into.public.contains_key(name)) {
            into.public.insert(name, entry);
        }
    }
    into.private.insert(id, Value::Object(info.private));
}

fn camel_case(text: &str) -> String {
    let mut words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let first = words.next().unwrap_or("component").to_lowercase();
    words.fold(first, |stem, word| stem + &capitalised(&word.to_lowercase()))
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::sqlite::SqliteStore;
    use crate::topology::Route;
    use crate::topology::{Installation, Target};
    use crate::{DryRunSettings, Engine, Limits, ParseSettings, Service, Settings, State, Submitted, Task};
    use landfall_adapter::any::{AnyStep, AnyTechnology};
    use landfall_adapter::testing::{CASHFLOW, PORT, STORAGE, WORKLOAD};
    use landfall_adapter::{Action, Bound, Capabilities, Technology, Work};
    use landfall_lakehouse::{Lakehouse, LakehouseSettings};
    use landfall_mock::Mock;

    fn target(code: &str, technology: Arc<dyn AnyTechnology>) -> Target {
        Target {
            code: code.to_owned(),
            group: code.to_owned(),
            environments: Vec::new(),
            turns: None,
            technology,
        }
    }

    /// A technology that a test looks at, too.
    struct Of<T>(Arc<T>);

    /// The service with a lakehouse and a mock, everything in one folder.
    async fn embedded(folder: &Path) -> (Service, Arc<Domain>, Arc<dyn Store>) {
        let lake = Lakehouse::new(LakehouseSettings {
            target: "LAKE".to_owned(),
            warehouse: folder.join("warehouse"),
            catalog: folder.join("catalog.db"),
        });
        let s3 = Some("S3".to_owned());
        let installation = Installation::new(
            vec![target("LAKE", Arc::new(lake)), target("MOCK", Arc::new(Mock::default()))],
            vec![
                Route { technology: s3, group: "LAKE".to_owned(), ..Route::default() },
                Route { group: "MOCK".to_owned(), ..Route::default() },
            ],
            environments(),
        );
        serving(folder, installation).await
    }

    fn dry_runs() -> DryRunSettings {
        DryRunSettings {
            concurrency: 1,
            wait: Duration::from_millis(100),
            limit: Duration::from_millis(500),
            cancel_grace: Duration::from_millis(100),
        }
    }

    fn environments() -> BTreeMap<String, i64> {
        BTreeMap::from([("development".to_owned(), 10001), ("production".to_owned(), 10002)])
    }

    async fn serving(folder: &Path, installation: Installation) -> (Service, Arc<Domain>, Arc<dyn Store>) {
        let seeds = installation.seeds();
        let parses = ParseSettings { concurrency: 1, ..ParseSettings::default() };
        let domain =
            Arc::new(Domain::new(installation, landfall_adapter::descriptor::Limits::default(), parses));
        let path = folder.join("landfall.db");
        let store: Arc<dyn Store> =
            Arc::new(SqliteStore::open(path.to_str().unwrap(), Limits::default()).await.unwrap());
        store.seed_instances(seeds).await.unwrap();
        let runner = Arc::new(TechnologyRunner::new(Arc::clone(&domain), Arc::clone(&store), 4));
        let engine = Engine::start(Arc::clone(&store), runner, Settings::default());
        (Service::new(Arc::clone(&domain), engine, Arc::clone(&store), dry_runs()), domain, store)
    }

    fn product(text: &str) -> Document {
        Document { kind: landfall_adapter::descriptor::DescriptorKind::DataProduct, text: text.to_owned() }
    }

    fn component_of(text: &str, id: &str) -> Document {
        Document {
            kind: landfall_adapter::descriptor::DescriptorKind::Component,
            text: format!("dataProduct:\n  {}\ncomponentIdToProvision: {id}", text.replace('\n', "\n  ")),
        }
    }

    fn told(task: &Task) -> Vec<&str> {
        task.logs.iter().map(|line| line.message.as_str()).collect()
    }

    async fn ended(service: &Service, submitted: Result<Submitted>) -> Task {
        let token = submitted.unwrap().token;
        service.wait(&token, Duration::from_secs(30)).await.unwrap().unwrap()
    }

    /// Two environments of one data product ask for the same bucket by name. The second cannot have it, and goes away
    /// again, with what was made of it before, and nothing of the first is touched.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_a_name_conflict_kept_from_being_is_unprovisioned_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (service, ..) = embedded(folder.path()).await;
        let first = product(CASHFLOW);
        let second = product(&CASHFLOW.replace("environment: production", "environment: development"));
        assert_eq!(ended(&service, service.provision(first.clone()).await).await.state, State::Completed);

        // All that can be found out is found out before anything is made.
        let refused = ended(&service, service.provision(second.clone()).await).await;
        assert_eq!(refused.state, State::Failed);
        assert!(refused.reason.as_deref().unwrap().contains("belongs to"));
        let found = format!("nothing was changed in this run: failed while planning {STORAGE}");
        assert!(told(&refused).contains(&found.as_str()), "{refused:?}");
        let tables = folder.path().join("warehouse/tables");
        assert!(!tables.join("finance__cashflow__0__development").exists(), "made in spite of the conflict");

        let port = component_of(&second.text, PORT);
        assert_eq!(ended(&service, service.provision(port).await).await.state, State::Completed);
        assert!(tables.join("finance__cashflow__0__development").exists());

        let intent = Intent::Unprovision { remove_data: true };
        let plans = service.plan(second.clone(), intent, BTreeSet::new()).await.unwrap().components;
        assert_eq!(plans.iter().map(|plan| plan.changes.len()).sum::<usize>(), 1, "{plans:?}");
        for _ in 0..2 {
            let gone = ended(&service, service.unprovision(second.clone(), true).await).await;
            assert_eq!(gone.state, State::Completed, "{:?}", gone.reason);
            assert!(gone.logs.iter().any(|line| line.message.contains("it is not provisioned")), "{gone:?}");
        }
        assert!(!tables.join("finance__cashflow__0__development").exists());
        assert!(folder.path().join("warehouse/buckets/finance-cashflows").exists());
        assert!(tables.join("finance__cashflow__0__production").exists());
    }

    /// A component comes to another target after its data was kept where it was.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn moved_deployment_names_where_its_data_was_kept() {
        let folder = tempfile::tempdir().unwrap();
        let lake = |code: &str| {
            let warehouse = folder.path().join(code);
            let catalog = folder.path().join(format!("{code}.db"));
            target(
                code,
                Arc::new(Lakehouse::new(LakehouseSettings { target: code.to_owned(), warehouse, catalog })),
            )
        };
        let routes = vec![
            Route { technology: Some("S3".to_owned()), group: "FIRST".to_owned(), ..Route::default() },
            Route { group: "SECOND".to_owned(), ..Route::default() },
        ];
        let installation = Installation::new(vec![lake("FIRST"), lake("SECOND")], routes, environments());
        let (service, ..) = serving(folder.path(), installation).await;
        let first = component_of(CASHFLOW, STORAGE);
        let second = component_of(&CASHFLOW.replace("technology: S3", "technology: Other"), STORAGE);
        for (remove_data, expected) in [(false, true), (true, false)] {
            let done = async |document: &Document| {
                let done = ended(&service, service.provision(document.clone()).await).await;
                assert_eq!(done.state, State::Completed, "{:?}", done.reason);
                told(&done).into_iter().map(str::to_owned).collect::<Vec<_>>()
            };
            let back = done(&first).await;
            assert!(!back.iter().any(|line| line.contains("kept on target")), "{back:?}");
            let gone = ended(&service, service.unprovision(first.clone(), remove_data).await).await;
            assert_eq!(gone.state, State::Completed, "{:?}", gone.reason);
            let lines = done(&second).await;
            let note = "data of this component was kept on target `FIRST` (";
            let said = lines.iter().find(|line| line.starts_with(note));
            assert_eq!(said.is_some(), expected, "{lines:?}");
            if let Some(said) = said {
                assert!(said.contains("finance-cashflows"), "{said}");
                let end = "and is not moved: copy it, or provision the component there again to take it back";
                assert!(said.ends_with(end), "{said}");
            }
            let again = done(&second).await;
            assert!(!again.iter().any(|line| line.contains("kept on target")), "{again:?}");
            let gone = ended(&service, service.unprovision(second.clone(), true).await).await;
            assert_eq!(gone.state, State::Completed, "{:?}", gone.reason);
        }
    }

    /// Things that stand on one another: what something stands on must be there first, and can only go when nothing stands
    /// on it any more.
    #[derive(Default)]
    struct Tower {
        there: std::sync::Mutex<std::collections::BTreeSet<String>>,
        plans: std::sync::atomic::AtomicUsize,
    }

    impl Technology for Of<Tower> {
        type Bound = Stone;

        fn name(&self) -> &'static str {
            "tower"
        }

        fn capabilities(&self) -> Capabilities {
            Technology::capabilities(&Mock::default())
        }

        fn bind(&self, work: Work, intent: Intent) -> std::result::Result<Stone, Vec<Problem>> {
            Ok(Stone { tower: Arc::clone(&self.0), work, intent })
        }
    }

    struct Stone {
        tower: Arc<Tower>,
        work: Work,
        intent: Intent,
    }

    #[async_trait]
    impl Bound for Stone {
        /// Whether it shall be there.
        type Step = bool;

        async fn plan(&self, _: &Context) -> Result<Plan<bool>> {
            self.tower.plans.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let there = self.tower.there.lock().unwrap();
            let component = &self.work.component;
            let id = component.id.to_string();
            let wanted = self.intent == Intent::Provision;
            if wanted {
                let missing = component.depends_on.iter().find(|below| !there.contains(below.as_str()));
                if let Some(missing) = missing {
                    return Err(Error::permanent(format!("{missing} is not there yet")));
                }
            } else {
                let above = self.work.product.all_components().into_iter().find(|other| {
                    there.contains(other.id.as_str()) && other.depends_on.contains(&component.id)
                });
                if let Some(above) = above {
                    return Err(Error::conflict(format!("{} stands on it", above.id)));
                }
            }
            let action = if wanted { Action::Create } else { Action::Drop };
            let change = Change::new(action, &id, format!("move {id}"), wanted);
            let changes = if there.contains(&id) == wanted { Vec::new() } else { vec![change] };
            Ok(Plan { changes, notes: vec!["a stone of the tower".to_owned()] })
        }

        async fn apply(&self, wanted: &bool, _: &Context) -> Result<()> {
            let mut there = self.tower.there.lock().unwrap();
            let id = self.work.component.id.to_string();
            if *wanted {
                there.insert(id)
            } else {
                there.remove(&id)
            };
            Ok(())
        }

        async fn describe(&self, _: &Context) -> Result<Info> {
            Ok(Info::default())
        }
    }

    /// The early plans are a check and no more: what only waits for a component of the same task is no mistake.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_component_may_wait_for_another_one_of_its_task() {
        let folder = tempfile::tempdir().unwrap();
        let tower = Arc::new(Tower::default());
        let route = Route { group: "TOWER".to_owned(), ..Route::default() };
        let towers = vec![target("TOWER", Arc::new(Of(Arc::clone(&tower))))];
        let (service, ..) =
            serving(folder.path(), Installation::new(towers, vec![route], environments())).await;
        let plans = || tower.plans.swap(0, std::sync::atomic::Ordering::SeqCst);

        let planned =
            service.plan(product(CASHFLOW), Intent::Provision, BTreeSet::new()).await.unwrap().components;
        let pending: Vec<_> =
            planned.iter().filter(|plan| plan.pending.is_some()).map(|plan| &plan.id).collect();
        assert_eq!(pending, [WORKLOAD], "a dry run says which one waits, and plans the others");
        plans();

        let done = ended(&service, service.provision(product(CASHFLOW)).await).await;
        assert_eq!(done.state, State::Completed, "{done:?}");
        assert_eq!(tower.there.lock().unwrap().len(), 3);
        assert_eq!(plans(), 6, "each component is planned as a check, and again when its turn comes");
        let notes = told(&done).iter().filter(|line| **line == "a stone of the tower").count();
        assert_eq!(notes, 3, "a plan that only checks says nothing");

        let gone = ended(&service, service.unprovision(product(CASHFLOW), true).await).await;
        assert_eq!(gone.state, State::Completed, "{gone:?}");
        assert_eq!(tower.there.lock().unwrap().len(), 0);
        plans();

        let alone = component_of(CASHFLOW, STORAGE);
        assert_eq!(ended(&service, service.provision(alone).await).await.state, State::Completed);
        assert_eq!(plans(), 1, "of a single component the plan is the check");

        // What waits for nothing that this task will do is wrong, and said before anything is done.
        tower.there.lock().unwrap().clear();
        let (early, late) = (component_of(CASHFLOW, WORKLOAD), product(CASHFLOW));
        let refused = ended(&service, service.provision(early).await).await;
        assert_eq!(refused.reason, Some(format!("{STORAGE} is not there yet")));
        assert_eq!(ended(&service, service.provision(late).await).await.state, State::Completed);
    }

    #[test]
    fn an_early_plan_counts_as_far_as_it_will_still_be_so() {
        let remove = Intent::Unprovision { remove_data: false };
        let conflict = || Error::conflict("theirs");
        for (error, intent, waits, expected) in [
            (conflict(), Intent::Provision, false, true),
            (conflict(), Intent::Provision, true, true),
            (conflict(), remove, false, true),
            (conflict(), remove, true, false),
            (Error::invalid(vec![Problem::new("", "no")]), Intent::Provision, true, true),
            (Error::retryable("away"), Intent::Provision, false, true),
            (Error::retryable("not yet there"), Intent::Provision, true, false),
            (Error::permanent("not there"), Intent::Provision, true, false),
            (Error::cancelled("stopped"), Intent::Provision, true, true),
            (Error::cancelled("stopped"), remove, true, true),
        ] {
            assert_eq!(stands(&error, intent, waits), expected, "{error} {intent:?} {waits}");
        }
    }

    fn lines(journal: &Journal) -> Vec<String> {
        journal.drain().into_iter().map(|line| line.message).collect()
    }

    #[test]
    fn what_was_made_and_what_was_not_is_said_whichever_way_it_ends() {
        let changes: Vec<Change> = (1..=9)
            .map(|n| {
                let step = AnyStep::new(n, Intent::Provision);
                Change::new(Action::Alter, "", format!("step {n}"), step)
            })
            .collect();
        let journal = Journal::default();
        let said = |changes: &[Change], made: usize, begun: bool, end: End| {
            let mut progress = Progress::new(&journal, changes);
            (progress.made, progress.begun, progress.end) = (made, begun, end);
            drop(progress);
            lines(&journal)
        };
        assert_eq!(
            said(&changes, 2, false, End::Stopped),
            [
                "stopped with 2 of 9 changes made: step 1; step 2",
                "not made: step 3; step 4; step 5; step 6; step 7; and 2 more",
            ]
        );
        assert_eq!(
            said(&changes[..3], 1, true, End::Failed),
            ["failed with 1 of 3 changes made: step 1", "not finished: step 2", "not made: step 3"]
        );
        assert_eq!(
            said(&changes[..1], 0, true, End::CutOff),
            ["cut off with 0 of 1 changes made", "not finished: step 1"]
        );
        assert_eq!(said(&changes, 9, false, End::CutOff), [""; 0], "all were made");
        assert_eq!(said(&[], 0, false, End::CutOff), [""; 0], "there was nothing to make");

        let long = [Change { summary: "\u{e9}".repeat(5000), ..changes[0].clone() }];
        let line = said(&long, 0, false, End::Stopped).remove(1);
        assert_eq!(line, format!("not made: {}...", "\u{e9}".repeat(120)));
    }

    #[test]
    fn components_done_and_not_begun_are_named() {
        let mock: Arc<dyn AnyTechnology> = Arc::new(Mock::default());
        let target = Arc::new(target("MOCK", mock));
        let assigned: Vec<Assigned> = [PORT, STORAGE, WORKLOAD]
            .map(|id| {
                let work = landfall_adapter::testing::work(CASHFLOW, id);
                let bound = target.technology.bind(work.clone(), Intent::Provision).unwrap();
                Assigned { work, bound, target: Arc::clone(&target), before: None }
            })
            .into();
        let journal = Journal::default();
        let said = |assigned: &[Assigned], stages: &[Stage]| {
            let mut course = Course::new(&journal, assigned);
            for (number, stage) in stages.iter().enumerate() {
                course.enter(number, *stage);
            }
            // One that worked has been working before it ended.
            course.is_working |= stages.contains(&Stage::Done);
            drop(course);
            lines(&journal)
        };
        let (stopped, failed) = (Stage::Ended(End::Stopped), Stage::Ended(End::Failed));
        assert_eq!(
            said(&assigned, &[Stage::Done, stopped]),
            [
                format!("components done: {PORT}"),
                format!("stopped in: {STORAGE}"),
                format!("not begun: {WORKLOAD}"),
            ]
        );
        assert_eq!(
            said(&assigned, &[failed, Stage::Done, Stage::Working]),
            [
                format!("components done: {STORAGE}"),
                format!("failed in: {PORT}"),
                format!("cut off in: {WORKLOAD}"),
            ]
        );
        let planning =
            |how: &str| [format!("nothing was changed in this run: {how} while planning {WORKLOAD}")];
        assert_eq!(said(&assigned, &[Stage::NotBegun, Stage::NotBegun, failed]), planning("failed"));
        assert_eq!(
            said(&assigned, &[Stage::NotBegun, Stage::NotBegun, Stage::Planning]),
            planning("cut off")
        );
        assert_eq!(
            said(&assigned, &[]),
            ["components done: none".to_owned(), format!("not begun: {PORT}; {STORAGE}; {WORKLOAD}")]
        );
        assert_eq!(said(&assigned, &[Stage::Done; 3]), [""; 0]);
        assert_eq!(said(&assigned[..1], &[failed]), [""; 0], "one needs no list");
    }

    /// Takes a while for each component, and remembers what it did.
    #[derive(Default)]
    struct Busy {
        now: std::sync::atomic::AtomicUsize,
        most: std::sync::atomic::AtomicUsize,
        events: std::sync::Mutex<Vec<String>>,
        fails: std::sync::Mutex<BTreeMap<String, Error>>,
    }

    impl Busy {
        fn event(&self, what: &str, name: &str) {
            self.events.lock().unwrap().push(format!("{what} {name}"));
        }
    }

    impl Technology for Of<Busy> {
        type Bound = Job;

        fn name(&self) -> &'static str {
            "busy"
        }

        fn capabilities(&self) -> Capabilities {
            Technology::capabilities(&Mock::default())
        }

        fn bind(&self, work: Work, _: Intent) -> std::result::Result<Job, Vec<Problem>> {
            Ok(Job { busy: Arc::clone(&self.0), name: work.component.name.clone() })
        }
    }

    struct Job {
        busy: Arc<Busy>,
        name: String,
    }

    #[async_trait]
    impl Bound for Job {
        type Step = ();

        async fn plan(&self, _: &Context) -> Result<Plan<()>> {
            let name = &self.name;
            let change = Change::new(Action::Create, name, format!("make {name}"), ());
            Ok(Plan { changes: vec![change], notes: vec![format!("a note of {name}")] })
        }

        async fn apply(&self, (): &(), context: &Context) -> Result<()> {
            use std::sync::atomic::Ordering::SeqCst;
            let Self { busy, name } = self;
            busy.event("begin", name);
            let now = busy.now.fetch_add(1, SeqCst) + 1;
            busy.most.fetch_max(now, SeqCst);
            context.journal.info(format!("making {name}"));
            let failure = busy.fails.lock().unwrap().remove(name);
            // Those that fail do so before others end.
            tokio::time::sleep(Duration::from_millis(if failure.is_some() { 1 } else { 100 })).await;
            busy.now.fetch_sub(1, SeqCst);
            busy.event("end", name);
            failure.map_or(Ok(()), Err)
        }

        async fn describe(&self, _: &Context) -> Result<Info> {
            Ok(Info::default())
        }
    }

    /// A data product with these components, `name` or `name<what it depends on,...`.
    fn product_of(components: &[&str]) -> Document {
        let component = |text: &&str| {
            let (name, after) = text.split_once('<').unwrap_or((text, ""));
            let after: Vec<_> = after
                .split(',')
                .filter(|it| !it.is_empty())
                .map(|it| format!("'urn:dmb:cmp:f:p:1:{it}'"))
                .collect();
            format!(
                "{{id: 'urn:dmb:cmp:f:p:1:{name}', name: {name}, version: 1.0.0, kind: workload, dependsOn: [{}], specific: {{}}}}",
                after.join(", ")
            )
        };
        let components: Vec<_> = components.iter().map(component).collect();
        product(&format!(
            "{{id: 'urn:dmb:dp:f:p:1', name: P, version: 1.0.0, environment: production, domain: f, components: [{}]}}",
            components.join(", ")
        ))
    }

    async fn busy(folder: &Path, bound: Option<usize>) -> (Service, Arc<Busy>) {
        let busy = Arc::new(Busy::default());
        let turns = bound.map(|bound| Arc::new(tokio::sync::Semaphore::new(bound)));
        let target = Target { turns, ..target("BUSY", Arc::new(Of(Arc::clone(&busy)))) };
        let route = Route { group: "BUSY".to_owned(), ..Route::default() };
        let installation = Installation::new(vec![target], vec![route], environments());
        (serving(folder, installation).await.0, busy)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn independent_components_run_side_by_side_and_their_logs_do_not_mix() {
        let folder = tempfile::tempdir().unwrap();
        let (service, busy) = busy(folder.path(), None).await;
        let document = product_of(&["last<a,b,c,d", "a", "b<a", "c", "d", "e", "f", "g"]);
        let done = ended(&service, service.provision(document.clone()).await).await;
        assert_eq!(done.state, State::Completed, "{done:?}");
        assert_eq!(busy.most.swap(0, std::sync::atomic::Ordering::SeqCst), 4, "as many as are configured");
        let events = std::mem::take(&mut *busy.events.lock().unwrap());
        let at = |events: &[String], event: &str| events.iter().position(|it| it == event).unwrap();
        for (before, after) in [("end a", "begin b"), ("end b", "begin last"), ("end d", "begin last")] {
            assert!(at(&events, before) < at(&events, after), "{events:?}");
        }
        // Lines of one component follow each other.
        let mut phases: Vec<_> = done.logs.iter().filter_map(|line| line.phase.clone()).collect();
        phases.dedup();
        assert_eq!(phases.len(), 8, "{phases:?}");

        let gone = ended(&service, service.unprovision(document, true).await).await;
        assert_eq!(gone.state, State::Completed, "{gone:?}");
        let events = std::mem::take(&mut *busy.events.lock().unwrap());
        for (before, after) in [("end b", "begin a"), ("end last", "begin b"), ("end last", "begin d")] {
            assert!(at(&events, before) < at(&events, after), "{events:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_target_bounds_the_components_on_it() {
        let folder = tempfile::tempdir().unwrap();
        let (service, busy) = busy(folder.path(), Some(2)).await;
        let done = ended(&service, service.provision(product_of(&["a", "b", "c", "d", "e"])).await).await;
        assert_eq!(done.state, State::Completed, "{done:?}");
        assert_eq!(busy.most.load(std::sync::atomic::Ordering::SeqCst), 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn after_a_failure_nothing_begins_and_what_runs_ends() {
        let folder = tempfile::tempdir().unwrap();
        let (service, busy) = busy(folder.path(), None).await;
        // What passes does not hide what does not, and none of them is lost.
        busy.fails.lock().unwrap().extend([
            ("a".to_owned(), Error::retryable("a is away")),
            ("c".to_owned(), Error::permanent("c is wrong")),
            ("d".to_owned(), Error::permanent("d is wrong, too")),
        ]);
        let document = product_of(&["a", "b", "c", "d", "e<d", "f"]);
        let failed = ended(&service, service.provision(document).await).await;
        assert_eq!((failed.state, failed.reason.as_deref()), (State::Failed, Some("c is wrong")));
        let events = busy.events.lock().unwrap().clone();
        for name in ["a", "b", "c", "d"] {
            assert!(events.contains(&format!("end {name}")), "{events:?}");
        }
        assert_eq!(events.len(), 8, "{events:?}");
        let told = told(&failed);
        let of = |names: &str| {
            names.split(' ').map(|name| format!("urn:dmb:cmp:f:p:1:{name}")).collect::<Vec<_>>().join("; ")
        };
        for line in [
            "a is away".to_owned(),
            "d is wrong, too".to_owned(),
            format!("components done: {}", of("b")),
            format!("failed in: {}", of("a c d")),
            format!("not begun: {}", of("e f")),
        ] {
            assert!(told.contains(&line.as_str()), "{line}: {told:#?}");
        }
    }

    /// What was provisioned and has lost its place to somebody else is not reported as gone.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_conflict_over_what_was_provisioned_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let (service, ..) = embedded(folder.path()).await;
        let document = product(CASHFLOW);
        assert_eq!(ended(&service, service.provision(document.clone()).await).await.state, State::Completed);
        std::fs::remove_file(folder.path().join("warehouse/buckets/finance-cashflows/.landfall.json"))
            .unwrap();
        let refused = ended(&service, service.unprovision(document, true).await).await;
        assert_eq!(refused.state, State::Failed);
        assert!(refused.reason.unwrap().contains("no ownership mark"));
    }

    /// A task without an environment of its own stays in the one it was accepted for, though the component has come
    /// to another one while it waited.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_waiting_task_keeps_its_environment() {
        let folder = tempfile::tempdir().unwrap();
        let (service, domain, store) = embedded(folder.path()).await;
        let text = CASHFLOW.replace("bucket: finance-cashflows", "{}");
        let component =
            |environment: &str| component_of(&text.replace("environment: production", environment), STORAGE);
        let provision = async |environment: &str| {
            let done = ended(&service, service.provision(component(environment)).await).await;
            assert_eq!(done.state, State::Completed, "{:?}", done.reason);
        };
        provision("environment: production").await;
        let (intent, store) = (Intent::Unprovision { remove_data: true }, store.as_ref());
        let accepted = domain.resolve(&component(""), intent, None, store, None).await.unwrap();
        let placements = crate::work::placements(&accepted);
        provision("environment: development").await;

        let resolved =
            domain.resolve(&component(""), intent, Some(placements.as_slice()), store, None).await.unwrap();
        assert_eq!(resolved.assigned[0].work.environment, "production");
        assert!(
            domain.resolve(&component(""), intent, None, store, None).await.is_err(),
            "now it has to be said"
        );
    }

    /// A target whose plans never come back. It tells of those that began and of those that are over.
    #[derive(Default)]
    struct Silent {
        /// Whether a plan ends when it is cancelled.
        listens: bool,
        away: std::sync::atomic::AtomicBool,
        under_way: Arc<std::sync::atomic::AtomicUsize>,
    }

    struct UnderWay(Arc<std::sync::atomic::AtomicUsize>);

    impl Drop for UnderWay {
        fn drop(&mut self) {
            self.0.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
        }
    }

    impl Silent {
        async fn reaches(&self, wanted: usize) {
            let reached = async {
                while self.under_way.load(std::sync::atomic::Ordering::SeqCst) != wanted {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(30), reached).await.expect("never so many");
        }
    }

    impl Technology for Of<Silent> {
        type Bound = Of<Silent>;

        fn name(&self) -> &'static str {
            "silent"
        }

        fn capabilities(&self) -> Capabilities {
            Technology::capabilities(&Mock::default())
        }

        fn bind(&self, _: Work, _: Intent) -> std::result::Result<Self, Vec<Problem>> {
            Ok(Self(Arc::clone(&self.0)))
        }
    }

    #[async_trait]
    impl Bound for Of<Silent> {
        type Step = ();

        async fn plan(&self, context: &Context) -> Result<Plan<()>> {
            use std::sync::atomic::Ordering::SeqCst;
            if self.0.away.load(SeqCst) {
                return Err(Error::retryable("the server does not answer").because("a private cause"));
            }
            self.0.under_way.fetch_add(1, SeqCst);
            let _under_way = UnderWay(Arc::clone(&self.0.under_way));
            if self.0.listens {
                context.cancel.cancelled().await;
                return Err(Error::cancelled("stopped on request"));
            }
            std::future::pending().await
        }

        async fn apply(&self, (): &(), _: &Context) -> Result<()> {
            Ok(())
        }

        async fn describe(&self, _: &Context) -> Result<Info> {
            Ok(Info::default())
        }
    }

    /// The service with a silent target for what is in the development environment, and a mock for the rest.
    async fn silent(folder: &Path, listens: bool) -> (Arc<Service>, Arc<Domain>, Arc<Silent>) {
        let silent = Arc::new(Silent { listens, ..Silent::default() });
        let mut targets = vec![
            target("SILENT", Arc::new(Of(Arc::clone(&silent)))),
            target("MOCK", Arc::new(Mock::default())),
        ];
        targets[0].environments = vec!["development".to_owned()];
        targets[1].environments = vec!["production".to_owned()];
        for target in &mut targets {
            target.group = "all".to_owned();
        }
        let route = Route { group: "all".to_owned(), ..Route::default() };
        let (service, domain, _) =
            serving(folder, Installation::new(targets, vec![route], environments())).await;
        (Arc::new(service), domain, silent)
    }

    fn in_development() -> Document {
        product(&CASHFLOW.replace("environment: production", "environment: development"))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn dry_run_of_a_silent_target_ends_at_its_deadline() {
        for listens in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let (service, _, silent) = silent(folder.path(), listens).await;
            let dry_run = |document| service.plan(document, Intent::Provision, BTreeSet::new());
            let (overdue, full) = tokio::join!(dry_run(in_development()), async {
                silent.reaches(1).await;
                dry_run(product(CASHFLOW)).await
            });
            let overdue = overdue.unwrap_err();
            assert!(overdue.is_retryable(), "{overdue}");
            assert_eq!(
                overdue.to_string(),
                "the dry run took longer than the 0.5 s of operations.dry_run_limit in target `SILENT` (silent) and \
                 was cancelled; try again later"
            );
            let full = full.unwrap_err();
            assert_eq!(*full.kind(), Kind::Overloaded);
            assert_eq!(full.to_string(), "1 dry runs are under way, which is the limit; try again later");
            // Its turn comes free once it has ended, whether it listens or is cut off.
            silent.reaches(0).await;
            assert_eq!(dry_run(product(CASHFLOW)).await.unwrap().components.len(), 3);
            let health = service.target_health();
            let known: Vec<_> = health
                .iter()
                .map(|one| (one.code.as_str(), one.technology, one.last_success.is_some()))
                .collect();
            assert_eq!(known, [("SILENT", "silent", false), ("MOCK", "mock", true)]);
            assert_eq!(health[0].last_failure.as_ref().unwrap().message, overdue.to_string());
            assert_eq!(health[1].last_failure, None);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn dry_run_is_cancelled_when_its_caller_leaves() {
        for listens in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let (service, _, silent) = silent(folder.path(), listens).await;
            let caller = tokio::spawn({
                let service = Arc::clone(&service);
                async move { service.plan(in_development(), Intent::Provision, BTreeSet::new()).await }
            });
            silent.reaches(1).await;
            caller.abort();
            silent.reaches(0).await;
            let next = service.plan(product(CASHFLOW), Intent::Provision, BTreeSet::new()).await;
            assert_eq!(next.unwrap().components.len(), 3, "its turn is free");
        }
    }

    /// A document that is not small takes a permit where it is accepted, and none for a dry run.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn dry_runs_take_no_permits_of_accepted_work() {
        let folder = tempfile::tempdir().unwrap();
        let (service, domain, _) = silent(folder.path(), true).await;
        let large = product(&format!("{CASHFLOW}\n#{}\n", " ".repeat(10_000)));
        let _busy = domain.all_permits();
        let planned = service.plan(large, Intent::Provision, BTreeSet::new()).await;
        assert_eq!(planned.unwrap().components.len(), 3);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn run_that_waits_for_a_permit_stops_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (service, domain, _) = silent(folder.path(), true).await;
        let large = product(&format!("{CASHFLOW}\n#{}\n", " ".repeat(10_000)));
        let busy = domain.all_permits();
        let token = service.submit_validation(large).await.unwrap().token;
        while service.task(&token.to_string()).await.unwrap().unwrap().state == State::Queued {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // It has begun to wait by then, or finds that it is stopped when it does.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let asked = std::time::Instant::now();
        service.stop(&token.to_string()).await.unwrap();
        let task = service.wait(&token, Duration::from_secs(30)).await.unwrap().unwrap();
        assert_eq!(task.state, State::Terminated, "{task:?}");
        assert!(asked.elapsed() < Settings::default().cancel_grace / 2, "{task:?}");
        assert!(!told(&task).iter().any(|line| line.contains("cut off")), "{task:?}");
        drop(busy);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn target_health_has_the_failures_of_runs() {
        let folder = tempfile::tempdir().unwrap();
        let (service, _, silent) = silent(folder.path(), true).await;
        silent.away.store(true, std::sync::atomic::Ordering::SeqCst);
        let before = Utc::now();
        assert_eq!(service.target_health()[0].last_failure, None);
        let token = service.provision(in_development()).await.unwrap().token;
        let failure = async {
            loop {
                if let Some(failure) = service.target_health().remove(0).last_failure {
                    break failure;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let failure = tokio::time::timeout(Duration::from_secs(30), failure).await.unwrap();
        assert_eq!(failure.message, "the server does not answer");
        assert!(failure.at >= before);
        assert_eq!(service.target_health()[0].last_success, None);
        service.stop(&token.to_string()).await.unwrap();
    }

    /// Requests that differ in the layout of their document only are the same request.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn requests_with_the_same_content_join() {
        let folder = tempfile::tempdir().unwrap();
        let (service, _, silent) = silent(folder.path(), true).await;
        let first = service.provision(in_development()).await.unwrap();
        // All three components are planned at once.
        silent.reaches(3).await;
        let text = in_development().text;
        let commented = format!("# a comment\n{}\n", text.replace('\n', "   # and another\n"));
        let tree: Value = serde_yaml::from_str(&text).unwrap();
        let Value::Object(entries) = &tree else { panic!("{tree}") };
        let reversed: landfall_adapter::descriptor::Object =
            entries.iter().rev().map(|(key, value)| (key.clone(), value.clone())).collect();
        let json = serde_json::to_string_pretty(&reversed).unwrap();
        let large = format!("{text}\n#{}\n", " ".repeat(10_000));
        for (what, text) in [("comments", &commented), ("JSON", &json), ("large", &large)] {
            let again = service.provision(product(text)).await.unwrap();
            assert_eq!((again.token, again.deduplicated), (first.token, true), "{what}");
        }
        let other = service.provision(product(&text.replace("version: 0.1.0", "version: 0.1.1"))).await;
        assert_ne!(text, text.replace("version: 0.1.0", "version: 0.1.1"));
        assert!(!other.unwrap().deduplicated);
    }
}
