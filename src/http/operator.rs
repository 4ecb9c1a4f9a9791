//! Landfall's own operator API: dry runs and health. Not part of any Witboost contract.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::generated::operator::responses::*;
use crate::generated::operator::server::Operator as Contract;
use crate::generated::operator::types;
use crate::generated::runtime::{Limits, Rejection, RequestContext};
use landfall_adapter::access::Ref;
use landfall_adapter::descriptor::Problem;
use landfall_adapter::error::{Error, Result};
use landfall_adapter::{AccessMode, Intent, Part};
use landfall_operation::topology::Candidate;
use landfall_operation::{ComponentPlace, ComponentPlan, Counts, Document, Skipped, Stuck, TargetHealth};

use super::Shared;
use super::refusal::{Refusal, Shapes};

/// Serves the operator API from the service.
pub(super) struct Operator {
    shared: Arc<Shared>,
}

impl Operator {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl Shapes for Operator {
    type Refused = types::RequestValidationError;
    type Failed = types::SystemError;
}

impl Contract for Operator {
    type Error = Error;

    fn limits(&self) -> Limits {
        self.shared.limits
    }

    fn reject_with_request_validation_error(
        &self,
        _: &RequestContext,
        rejection: Rejection,
    ) -> types::RequestValidationError {
        Refusal::of_rejection(&rejection).into()
    }

    async fn plan(&self, _: &RequestContext, body: types::PlanRequest) -> Result<PlanResponse> {
        let operation = body.operation.unwrap_or(types::PlanRequestOperation::Provision);
        let (intent, refs) = match operation {
            types::PlanRequestOperation::Provision => (Intent::Provision, BTreeSet::new()),
            types::PlanRequestOperation::Unprovision => {
                let remove_data = body.remove_data.unwrap_or(false);
                (Intent::Unprovision { remove_data }, BTreeSet::new())
            }
            types::PlanRequestOperation::Updateacl => {
                let refs = body.refs.unwrap_or_default();
                let refs = Ref::parse_list("refs", &refs, Ref::parse).map_err(Error::invalid)?;
                (Intent::UpdateAccess, refs)
            }
        };
        let document = Document::new(body.descriptor_kind.into(), body.descriptor);
        let planned = self.shared.service.plan(document, intent, refs).await?;
        Ok(PlanResponse::Ok(types::Plan {
            components: planned.components.into_iter().map(component).collect(),
            skipped: planned.skipped.into_iter().map(skipped).collect(),
        }))
    }

    async fn explain(&self, _: &RequestContext, body: types::ExplainRequest) -> Result<ExplainResponse> {
        let document = Document::new(body.descriptor_kind.into(), body.descriptor);
        let places = self.shared.service.explain(document).await?;
        let components = places.into_iter().map(place).collect();
        Ok(ExplainResponse::Ok(types::Explanation { components }))
    }

    async fn live(&self, _: &RequestContext) -> LiveResponse {
        LiveResponse::Ok(types::Life { version: env!("CARGO_PKG_VERSION").to_owned() })
    }

    async fn health(&self, _: &RequestContext) -> HealthResponse {
        let health = self.shared.service.health().await;
        let stuck = health.stuck.iter().find(|stuck| stuck.known).map(|stuck| lane(stuck).reason);
        let (counts, reason) = match health.store {
            Ok(counts) => (counts, stuck),
            Err(reason) => (Counts::default(), Some(reason)),
        };
        let body = types::Health {
            status: if reason.is_none() { types::HealthStatus::Up } else { types::HealthStatus::Down },
            version: env!("CARGO_PKG_VERSION").to_owned(),
            queued: counts.queued,
            running: counts.running,
            reason,
            lanes: health.stuck.iter().map(lane).collect(),
            targets: self.shared.service.target_health().into_iter().map(target).collect(),
        };
        match body.status {
            types::HealthStatus::Up => HealthResponse::Ok(body),
            types::HealthStatus::Down => HealthResponse::ServiceUnavailable(body),
        }
    }
}

/// Converts the health of a target. Leaves out the message of the failure, because health needs no credentials.
fn target(health: TargetHealth) -> types::TargetHealth {
    let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true);
    types::TargetHealth {
        code: health.code,
        technology: health.technology,
        last_success: health.last_success.map(time),
        last_failure: health.last_failure.map(|failure| time(failure.at)),
    }
}

fn lane(stuck: &Stuck) -> types::LaneHealth {
    let (lane, seconds) = (stuck.lane.as_str(), stuck.due_for.as_secs());
    let reason = if stuck.known {
        format!("lane `{lane}` does not move: its oldest operation has been due for {seconds} s")
    } else {
        format!(
            "lane `{lane}` has an operation, due for {seconds} s, that only a newer version of Landfall knows"
        )
    };
    types::LaneHealth { lane: lane.to_owned(), oldest_due_seconds: seconds, reason }
}

fn place(place: ComponentPlace) -> types::ComponentPlace {
    let (route, group) = place.explanation.route.unzip();
    let (target, problem) = match place.target {
        Some(Ok(target)) => (Some(target), None),
        Some(Err(problem)) => (None, Some(problem)),
        None => (None, None),
    };
    let candidate = |candidate: Candidate| types::Candidate {
        instance_id: candidate.id,
        instance_code: candidate.code,
        against: candidate.against,
    };
    types::ComponentPlace {
        id: place.id,
        name: place.name,
        environment: place.environment,
        environment_id: place.explanation.environment_id,
        route,
        group,
        candidates: place.explanation.candidates.into_iter().map(candidate).collect(),
        target,
        provisioned_on: place.provisioned_on,
        problems: problem.iter().map(Problem::with_remedy).collect(),
    }
}

fn skipped(skipped: Skipped) -> types::SkippedComponent {
    types::SkippedComponent { id: skipped.id, reason: skipped.reason }
}

fn part(part: Part) -> types::PlannedPart {
    types::PlannedPart {
        action: part.action,
        resource: part.resource,
        summary: part.summary,
        destructive: part.destructive.then_some(true),
    }
}

fn component(plan: ComponentPlan) -> types::ComponentPlan {
    types::ComponentPlan {
        id: plan.id,
        name: plan.name,
        environment: plan.environment,
        technology: plan.technology,
        target: plan.target,
        access: match plan.access {
            AccessMode::Enforced => types::AccessMode::Enforced,
            AccessMode::Recorded => types::AccessMode::Recorded,
            AccessMode::Delegated => types::AccessMode::Delegated,
            // The access list is ignored, or this API has no name for the mode.
            _ => types::AccessMode::None,
        },
        unmet: plan.unmet.iter().map(ToString::to_string).collect(),
        pending: plan.pending,
        changes: plan
            .changes
            .into_iter()
            .map(|change| types::PlannedChange {
                action: change.action.name().to_owned(),
                resource: change.resource,
                summary: change.summary,
                destructive: change.destructive.then_some(true),
                parts: change.parts.into_iter().map(part).collect(),
            })
            .collect(),
    }
}
