//! The work of a task: observe, plan, apply, for each component in turn.
//!
//! Nothing of an earlier run is remembered but what the targets themselves show: a run after a crash plans again
//! and applies what is left. Stop is looked for between changes, and carried into a change by its context.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::Utc;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::descriptor::{Object, Problem};
use crate::error::{Error, Kind, Result};
use crate::technology::{AccessList, AccessMode, Context, Info, Intent, Plan, ReverseRequest};

use super::service::{Domain, Request, under};
use super::work::{Assigned, Document, Placement};
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
}

impl TechnologyRunner {
    /// `store` tells what was provisioned where, and who should have access.
    pub fn new(domain: Arc<Domain>, store: Arc<dyn Store>) -> Self {
        Self { domain, store }
    }

    async fn perform(
        &self,
        request: Request,
        context: &Context,
        deployments: &Deployments,
        report: &mut Report,
    ) -> Result<()> {
        match request {
            Request::Validate { document } => self.validate(&document, report).await,
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
            Request::Reverse { request, target } => self.reverse(&request, &target, context, report).await,
        }
    }

    /// An invalid document is a result, not a failure.
    async fn validate(&self, document: &Document, report: &mut Report) -> Result<()> {
        match self.domain.resolve(document, Intent::Provision, None, None, None).await {
            Ok(_) => report.result = "the descriptor is valid".to_owned(),
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
        request: &ReverseRequest,
        code: &str,
        context: &Context,
        report: &mut Report,
    ) -> Result<()> {
        let target = self
            .domain
            .topology
            .target(code)
            .ok_or_else(|| Error::permanent(format!("target `{code}` is not configured any more")))?;
        context.journal.info(format!("reading from target `{}` ({})", target.code, target.technology.name()));
        let updates = target.technology.reverse(request, context).await?;
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
        let resolved = self
            .domain
            .resolve(document, intent, Some(placements), Some(self.store.as_ref()), access)
            .await?;
        for id in &resolved.skipped {
            context.journal.info(format!("{id}: no route leads here, left to another adapter"));
        }
        let assigned = in_order(resolved.assigned, intent);
        let many = assigned.len() > 1;
        let mut changes = 0;
        let mut recorded = false;
        for (index, one) in assigned.iter().enumerate() {
            let id = one.work.component.id.to_string();
            let context = Context { journal: context.journal.phase(&id), cancel: context.cancel.clone() };
            let done = match component(one, intent, &context, deployments).await {
                Ok(done) => done,
                Err(error) => {
                    let left: Vec<String> = assigned
                        .iter()
                        .skip(index + 1)
                        .map(|next| next.work.component.id.to_string())
                        .collect();
                    if !left.is_empty() {
                        context.journal.warn(format!("not attempted after this: {}", left.join(", ")));
                    }
                    return Err(error);
                }
            };
            changes += done.changes;
            recorded |= done.recorded;
            if let Some(info) = done.info {
                merge(report.info.get_or_insert_default(), info, many.then_some(one));
            }
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

#[async_trait]
impl Runner for TechnologyRunner {
    async fn run(
        &self,
        task: &ClaimedTask,
        context: &Context,
        deployments: &Deployments,
    ) -> Result<Value, RunError> {
        let mut report = Report::default();
        let done = match serde_json::from_value::<Request>(task.payload.clone()) {
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
                // The engine writes the error itself; what it cannot tell is every problem, and what to do.
                if let Kind::Invalid(problems) = error.kind() {
                    for problem in problems {
                        if problems.len() > 1 {
                            context.journal.error(problem.to_string());
                        }
                        if let Some(remedy) = &problem.remedy {
                            context.journal.info(format!("to mend it: {remedy}"));
                        }
                    }
                    report.problems.clone_from(problems);
                }
                report.result = error.to_string();
                Err(RunError { outcome: Some(value(&report)), error })
            }
        }
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
) -> Result<Done> {
    let Assigned { work, target } = one;
    let technology = &target.technology;
    let journal = &context.journal;
    context.check_cancelled()?;
    let remembered = deployments.get(&one.key()).await?;
    let plan = plan(one, &intent, context, remembered.as_ref())
        .await
        .map_err(|error| under(error, &work.component.path))?;
    for note in &plan.notes {
        journal.info(note);
    }
    let mut deployment = Deployment {
        key: one.key(),
        target: target.code.clone(),
        status: DeploymentStatus::Provisioned,
        access: work.access.clone(),
        specific: work.component.specific.clone(),
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
    for (index, change) in plan.changes.iter().enumerate() {
        if context.cancel.is_cancelled() {
            journal.warn(format!("stopped: {index} of {count} changes made; not made: {}", change.summary));
            return Err(Error::cancelled("stopped on request"));
        }
        deployments.check_lease()?;
        if let Err(error) = technology.apply(work, change, context).await {
            journal.warn(format!("{index} of {count} changes made; not made: {}", change.summary));
            return Err(under(error, &work.component.path));
        }
        journal.info(format!("{} of {count}: {}", index + 1, change.summary));
    }
    let info = match intent {
        Intent::Unprovision { .. } => {
            deployment.status = DeploymentStatus::Unprovisioned;
            deployments.put(&deployment).await?;
            None
        }
        Intent::Provision | Intent::UpdateAccess => Some(technology.describe(work, context).await?),
    };
    let recorded = technology.capabilities().access == AccessMode::Recorded && info.is_some();
    Ok(Done { changes: count, recorded, info })
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
) -> Result<Plan> {
    let Assigned { work, target } = one;
    let planned = target.technology.plan(work, intent, context).await;
    let provisioned = remembered.is_some_and(|it| it.status == DeploymentStatus::Provisioned);
    match planned {
        Err(error)
            if *error.kind() == Kind::Conflict
                && matches!(intent, Intent::Unprovision { .. })
                && !provisioned =>
        {
            Ok(Plan {
                changes: Vec::new(),
                notes: vec![format!("it is not provisioned, so there is nothing to remove: {error}")],
            })
        }
        planned => planned,
    }
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
        into.public.insert(format!("{stem}{}", capitalised(&key)), entry);
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
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::config::Route;
    use crate::operation::sqlite::SqliteStore;
    use crate::operation::{Engine, Limits, Service, Settings, State, Submitted, Task};
    use crate::technology::Technology;
    use crate::technology::lakehouse::{Lakehouse, LakehouseSettings};
    use crate::technology::mock::Mock;
    use crate::technology::testing::{CASHFLOW, STORAGE};
    use crate::topology::{Target, Topology};

    /// The service with a lakehouse and a mock, everything in one folder.
    async fn embedded(folder: &Path) -> (Service, Arc<Domain>, Arc<dyn Store>) {
        let target = |code: &str, technology: Arc<dyn Technology>| Target {
            code: code.to_owned(),
            group: code.to_owned(),
            environments: Vec::new(),
            technology,
        };
        let lake = Lakehouse::new(LakehouseSettings {
            target: "LAKE".to_owned(),
            warehouse: folder.join("warehouse"),
            catalog: folder.join("catalog.db"),
        });
        let s3 = Some("S3".to_owned());
        let topology = Topology::new(
            vec![target("LAKE", Arc::new(lake)), target("MOCK", Arc::new(Mock::default()))],
            vec![
                Route { technology: s3, group: "LAKE".to_owned(), ..Route::default() },
                Route { group: "MOCK".to_owned(), ..Route::default() },
            ],
        );
        let domain = Arc::new(Domain::new(topology, crate::descriptor::Limits::default(), 1));
        let path = folder.join("landfall.db");
        let store: Arc<dyn Store> =
            Arc::new(SqliteStore::open(path.to_str().unwrap(), Limits::default()).await.unwrap());
        let runner = Arc::new(TechnologyRunner::new(Arc::clone(&domain), Arc::clone(&store)));
        let engine = Engine::start(Arc::clone(&store), runner, Settings::default());
        (Service::new(Arc::clone(&domain), engine, Arc::clone(&store)), domain, store)
    }

    fn product(text: &str) -> Document {
        Document { kind: crate::descriptor::DescriptorKind::DataProduct, text: text.to_owned() }
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

        let refused = ended(&service, service.provision(second.clone()).await).await;
        assert_eq!(refused.state, State::Failed);
        assert!(refused.reason.unwrap().contains("belongs to"));
        let tables = folder.path().join("warehouse/tables");
        assert!(tables.join("finance__cashflow__0__development").exists(), "made before the conflict");

        let intent = Intent::Unprovision { remove_data: true };
        let plans = service.plan(second.clone(), intent, &[]).await.unwrap();
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
        let component = |environment: &str| Document {
            kind: crate::descriptor::DescriptorKind::Component,
            text: format!(
                "dataProduct:\n  {}\ncomponentIdToProvision: {STORAGE}",
                text.replace("environment: production", environment).replace('\n', "\n  ")
            ),
        };
        let provision = async |environment: &str| {
            let done = ended(&service, service.provision(component(environment)).await).await;
            assert_eq!(done.state, State::Completed, "{:?}", done.reason);
        };
        provision("environment: production").await;
        let (intent, store) = (Intent::Unprovision { remove_data: true }, Some(store.as_ref()));
        let accepted = domain.resolve(&component(""), intent, None, store, None).await.unwrap();
        let placements = crate::operation::work::placements(&accepted);
        provision("environment: development").await;

        let resolved =
            domain.resolve(&component(""), intent, Some(placements.as_slice()), store, None).await.unwrap();
        assert_eq!(resolved.assigned[0].work.environment, "production");
        assert!(
            domain.resolve(&component(""), intent, None, store, None).await.is_err(),
            "now it has to be said"
        );
    }
}
