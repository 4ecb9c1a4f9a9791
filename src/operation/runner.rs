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
use crate::technology::{AccessList, AccessMode, Context, Info, Intent, ReverseRequest};

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
        let mut assigned = resolved.assigned;
        if matches!(intent, Intent::Unprovision { .. }) {
            // What was built on something goes before it.
            assigned.reverse();
        }
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
                Err(Error::permanent("the stored request cannot be read by this version").because(error))
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
    let plan =
        technology.plan(work, &intent, context).await.map_err(|error| under(error, &work.component.path))?;
    for note in &plan.notes {
        journal.info(note);
    }
    // Written before the first change: what a crash leaves behind must be found where it was put.
    let mut deployment = Deployment {
        key: one.key(),
        target: target.code.clone(),
        status: DeploymentStatus::Provisioned,
        access: work.access.clone(),
        updated_at: Utc::now(),
    };
    deployments.put(&deployment).await?;
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
            return Err(error);
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
