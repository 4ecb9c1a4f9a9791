//! The Tech Adapter contract, 2.6.3 (which 2.2.0 clients speak too).

use std::sync::Arc;

use crate::generated::runtime::{Answer, Failure, Limits, Rejection, RequestContext};
use crate::generated::tech_adapter::responses::*;
use crate::generated::tech_adapter::server::TechAdapter;
use crate::generated::tech_adapter::types;
use landfall_adapter::access::Ref;
use landfall_adapter::descriptor::DescriptorKind;
use landfall_adapter::error::{Error, Kind};
use landfall_adapter::{Level, LogLine, ReverseRequest};
use landfall_operation::{Document, Operation, State};

use super::Shared;
use super::refusal::{Refusal, Shapes, left_out, not_offered, refuse, verdict};
use super::tasks::{PROVISIONING, Status, TaskShapes, unknown};

/// Serves the contract from the service.
pub(super) struct Adapter {
    shared: Arc<Shared>,
}

impl Adapter {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl Shapes for Adapter {
    type Refused = types::RequestValidationError;
    type Failed = types::SystemError;
}

impl TaskShapes for Adapter {
    type Token = types::Token;
}

impl TechAdapter for Adapter {
    fn limits(&self) -> Limits {
        self.shared.limits
    }

    fn reject_validate(&self, _: &RequestContext, rejection: Rejection) -> ValidateResponse {
        ValidateResponse::Ok(Some(Refusal::of_rejection(&rejection)).into())
    }

    fn reject_with_request_validation_error(
        &self,
        _: &RequestContext,
        rejection: Rejection,
    ) -> types::RequestValidationError {
        Refusal::of_rejection(&rejection).into()
    }

    fn fail_with_system_error(&self, context: &RequestContext, failure: Failure) -> types::SystemError {
        left_out(context, failure).into()
    }

    async fn validate(&self, context: &RequestContext, body: types::ProvisioningRequest) -> ValidateResponse {
        let validated = self.shared.service.validate(document(body)).await;
        verdict::<Self, types::ValidationResult, _>(context, validated)
    }

    async fn async_validate(
        &self,
        context: &RequestContext,
        body: types::ProvisioningRequest,
    ) -> AsyncValidateResponse {
        match self.shared.service.submit_validation(document(body)).await {
            Ok(submitted) => {
                let token = submitted.token.to_string();
                AsyncValidateResponse::answer(self.shared.token::<Self>(context, token))
            }
            Err(error) => refuse::<Self, _>(context, &error),
        }
    }

    async fn get_validation_status(
        &self,
        context: &RequestContext,
        token: String,
    ) -> GetValidationStatusResponse {
        match self.shared.task::<Self, _>(context, &token, &[Operation::Validate]).await {
            Ok(task) => GetValidationStatusResponse::Ok(Status::of(task).into()),
            Err(refusal) => refusal,
        }
    }

    async fn provision(
        &self,
        context: &RequestContext,
        body: types::ProvisioningRequest,
    ) -> ProvisionResponse {
        let submitted = self.shared.service.provision(document(body)).await;
        self.shared.accepted::<Self, types::ProvisioningStatus, _>(context, submitted).await
    }

    async fn unprovision(
        &self,
        context: &RequestContext,
        body: types::ProvisioningRequest,
    ) -> UnprovisionResponse {
        let remove_data = body.remove_data.unwrap_or(false);
        let submitted = self.shared.service.unprovision(document(body), remove_data).await;
        self.shared.accepted::<Self, types::ProvisioningStatus, _>(context, submitted).await
    }

    async fn updateacl(&self, context: &RequestContext, body: types::UpdateAclRequest) -> UpdateaclResponse {
        let document = Document { kind: DescriptorKind::Component, text: body.provision_info.request };
        let fields = body.access_control_fields.unwrap_or_default();
        let submitted = match Ref::parse_list("refs", &body.refs, Ref::parse) {
            Ok(refs) => self.shared.service.update_access(document, refs, fields).await,
            Err(problems) => Err(Error::invalid(problems)),
        };
        self.shared.accepted::<Self, types::ProvisioningStatus, _>(context, submitted).await
    }

    async fn get_status(&self, context: &RequestContext, token: String) -> GetStatusResponse {
        match self.shared.task::<Self, _>(context, &token, PROVISIONING).await {
            Ok(task) => GetStatusResponse::Ok(Status::of(task).into()),
            Err(refusal) => refusal,
        }
    }

    async fn stop(&self, context: &RequestContext, token: String) -> StopResponse {
        if let Err(refusal) = self.shared.task::<Self, StopResponse>(context, &token, PROVISIONING).await {
            return refusal;
        }
        match self.shared.service.stop(&token).await {
            Ok(Some(task)) if task.state.is_terminal() => StopResponse::Ok(Status::of(task).into()),
            Ok(Some(task)) => {
                StopResponse::answer(self.shared.token::<Self>(context, task.token.to_string()))
            }
            Ok(None) => StopResponse::BadRequest(unknown(&token, PROVISIONING).into()),
            Err(error) if *error.kind() == Kind::Unsupported => {
                let instead = "wait for the end of the operation: its status tells";
                StopResponse::NotImplemented(not_offered(context, &error, instead).into())
            }
            Err(error) => refuse::<Self, _>(context, &error),
        }
    }

    async fn reverse_provision(
        &self,
        context: &RequestContext,
        body: types::ReverseProvisioningRequest,
    ) -> ReverseProvisionResponse {
        let request = ReverseRequest {
            use_case_template_id: body.use_case_template_id,
            environment: body.environment,
            params: body.params.unwrap_or_default(),
            catalog_info: body.catalog_info.unwrap_or_default(),
        };
        let submitted = self.shared.service.reverse(request).await;
        self.shared.accepted::<Self, types::ReverseProvisioningStatus, _>(context, submitted).await
    }

    async fn get_reverse_provisioning_status(
        &self,
        context: &RequestContext,
        token: String,
    ) -> GetReverseProvisioningStatusResponse {
        match self.shared.task::<Self, _>(context, &token, &[Operation::Reverse]).await {
            Ok(task) => GetReverseProvisioningStatusResponse::Ok(Status::of(task).into()),
            Err(refusal) => refusal,
        }
    }
}

fn document(body: types::ProvisioningRequest) -> Document {
    Document { kind: body.descriptor_kind.into(), text: body.descriptor }
}

fn log_line(line: LogLine) -> types::Log {
    let level = match line.level {
        Level::Debug => types::LogLevel::Debug,
        Level::Info => types::LogLevel::Info,
        Level::Warning => types::LogLevel::Warning,
        Level::Error => types::LogLevel::Error,
    };
    types::Log { timestamp: line.at, level, message: line.message, phase: line.phase }
}

fn log_lines(lines: Vec<LogLine>) -> Vec<types::Log> {
    lines.into_iter().map(log_line).collect()
}

impl From<Status> for types::ProvisioningStatus {
    fn from(status: Status) -> Self {
        let result = status.result();
        let name = match status.state {
            State::Queued | State::Running | State::Stopping => types::ProvisioningStatusStatus::Running,
            State::Completed => types::ProvisioningStatusStatus::Completed,
            State::Failed => types::ProvisioningStatusStatus::Failed,
            State::Terminated => types::ProvisioningStatusStatus::Terminated,
        };
        let info = status
            .report
            .info
            .map(|info| types::Info { public_info: info.public, private_info: info.private });
        Self { status: name, result, info, logs: log_lines(status.logs) }
    }
}

impl From<Status> for types::ReverseProvisioningStatus {
    fn from(status: Status) -> Self {
        let name = match status.state {
            State::Queued | State::Running | State::Stopping => {
                types::ReverseProvisioningStatusStatus::Running
            }
            State::Completed => types::ReverseProvisioningStatusStatus::Completed,
            // The contract has no TERMINATED here.
            State::Failed | State::Terminated => types::ReverseProvisioningStatusStatus::Failed,
        };
        Self {
            status: name,
            updates: status.report.updates.unwrap_or_default(),
            logs: log_lines(status.logs),
        }
    }
}

impl From<Status> for types::ValidationStatus {
    fn from(status: Status) -> Self {
        match status.state {
            State::Queued | State::Running | State::Stopping => {
                Self { status: types::ValidationStatusStatus::Running, info: None }
            }
            State::Failed | State::Terminated => {
                Self { status: types::ValidationStatusStatus::Failed, info: None }
            }
            State::Completed => {
                let problems = &status.report.problems;
                let refusal = (!problems.is_empty()).then(|| Refusal::of_problems(problems));
                Self {
                    status: types::ValidationStatusStatus::Completed,
                    info: Some(types::ValidationInfo { public_info: refusal.into() }),
                }
            }
        }
    }
}
