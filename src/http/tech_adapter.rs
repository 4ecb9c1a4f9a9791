//! The Tech Adapter contract 2.6.3, which clients of 2.2.0 also use.

use std::sync::Arc;

use crate::generated::runtime::{Answer, IntoResponse, Limits, Rejection, RequestContext};
use crate::generated::tech_adapter::responses::*;
use crate::generated::tech_adapter::server::TechAdapter;
use crate::generated::tech_adapter::types;
use landfall_adapter::access::Ref;
use landfall_adapter::descriptor::DescriptorKind;
use landfall_adapter::error::{Error, Kind, Result};
use landfall_adapter::{Level, LogLine, ReverseRequest};
use landfall_operation::{Document, Lane, State};

use super::Shared;
use super::refusal::{Refusal, Shapes, not_offered, system_error, verdict};
use super::tasks::{Status, unknown};

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

/// The contract declares no 400 here, so problems of the request are a validation result.
impl IntoResponse<Adapter, ValidateResponse> for Error {
    fn into_response(self, context: &RequestContext) -> ValidateResponse {
        ValidateResponse::InternalServerError(system_error(context, &self).into())
    }
}

impl TechAdapter for Adapter {
    type Error = Error;

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

    async fn validate(
        &self,
        _: &RequestContext,
        body: types::ProvisioningRequest,
    ) -> Result<ValidateResponse> {
        let verdict = verdict(self.shared.service.validate(document(body)).await)?;
        Ok(ValidateResponse::Ok(verdict.into()))
    }

    async fn async_validate(
        &self,
        context: &RequestContext,
        body: types::ProvisioningRequest,
    ) -> Result<AsyncValidateResponse> {
        let submitted = self.shared.service.submit_validation(document(body)).await?;
        Ok(AsyncValidateResponse::answer(self.shared.token(context, &submitted.token)))
    }

    async fn get_validation_status(
        &self,
        _: &RequestContext,
        token: String,
    ) -> Result<GetValidationStatusResponse> {
        let task = self.shared.task(&token, Lane::Validation).await?;
        Ok(GetValidationStatusResponse::Ok(Status::of(task).into()))
    }

    async fn provision(
        &self,
        context: &RequestContext,
        body: types::ProvisioningRequest,
    ) -> Result<ProvisionResponse> {
        let submitted = self.shared.service.provision(document(body)).await?;
        Ok(self.shared.accepted(context, submitted).await)
    }

    async fn unprovision(
        &self,
        context: &RequestContext,
        body: types::ProvisioningRequest,
    ) -> Result<UnprovisionResponse> {
        let remove_data = body.remove_data.unwrap_or(false);
        let submitted = self.shared.service.unprovision(document(body), remove_data).await?;
        Ok(self.shared.accepted(context, submitted).await)
    }

    async fn updateacl(
        &self,
        context: &RequestContext,
        body: types::UpdateAclRequest,
    ) -> Result<UpdateaclResponse> {
        let document = Document::new(DescriptorKind::Component, body.provision_info.request);
        let fields = body.access_control_fields.unwrap_or_default();
        let refs = Ref::parse_list("refs", &body.refs, Ref::parse).map_err(Error::invalid)?;
        let submitted = self.shared.service.update_access(document, refs, fields).await?;
        Ok(self.shared.accepted(context, submitted).await)
    }

    async fn get_status(&self, _: &RequestContext, token: String) -> Result<GetStatusResponse> {
        let task = self.shared.task(&token, Lane::Change).await?;
        Ok(GetStatusResponse::Ok(Status::of(task).into()))
    }

    async fn stop(&self, context: &RequestContext, token: String) -> Result<StopResponse> {
        self.shared.task(&token, Lane::Change).await?;
        match self.shared.service.stop(&token).await {
            Ok(Some(task)) if task.state.is_terminal() => Ok(StopResponse::Ok(Status::of(task).into())),
            Ok(Some(task)) => Ok(StopResponse::answer(self.shared.token(context, &task.token))),
            Ok(None) => Err(unknown(&token, Lane::Change)),
            Err(error) if *error.kind() == Kind::Unsupported => {
                let instead = "wait for the end of the operation: its status tells";
                Ok(StopResponse::NotImplemented(not_offered(context, &error, instead).into()))
            }
            Err(error) => Err(error),
        }
    }

    async fn reverse_provision(
        &self,
        context: &RequestContext,
        body: types::ReverseProvisioningRequest,
    ) -> Result<ReverseProvisionResponse> {
        let request = ReverseRequest {
            use_case_template_id: body.use_case_template_id,
            environment: body.environment,
            params: body.params.unwrap_or_default(),
            catalog_info: body.catalog_info.unwrap_or_default(),
        };
        let submitted = self.shared.service.reverse(request).await?;
        Ok(self.shared.accepted(context, submitted).await)
    }

    async fn get_reverse_provisioning_status(
        &self,
        _: &RequestContext,
        token: String,
    ) -> Result<GetReverseProvisioningStatusResponse> {
        let task = self.shared.task(&token, Lane::Import).await?;
        Ok(GetReverseProvisioningStatusResponse::Ok(Status::of(task).into()))
    }
}

fn document(body: types::ProvisioningRequest) -> Document {
    Document::new(body.descriptor_kind.into(), body.descriptor).with_latest(body.latest_enriched_descriptor)
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
