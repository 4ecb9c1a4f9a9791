//! The Tech Adapter contract, 2.6.3 (which 2.2.0 clients speak too).

use std::sync::Arc;

use crate::descriptor::DescriptorKind;
use crate::error::{Error, Kind, Result};
use crate::generated::runtime::{Answer, Failure, Limits, Rejection, RequestContext, TextOrJson};
use crate::generated::tech_adapter::responses::*;
use crate::generated::tech_adapter::server::TechAdapter;
use crate::generated::tech_adapter::types;
use crate::operation::{Document, Operation, Report, State, Submitted, Task};
use crate::technology::{Level, LogLine, ReverseRequest};

use super::refusal::{Refusal, left_out, not_offered, problems, refuse, system_error};
use super::{Shared, TokenFormat, pressure};

/// Serves the contract from the service.
pub(super) struct Adapter {
    shared: Arc<Shared>,
}

impl Adapter {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// 202 with the token, or 200 when the work ended within `respond_within`.
    async fn accepted<R, S>(&self, context: &RequestContext, submitted: Result<Submitted>) -> R
    where
        S: From<Status>,
        R: Answer<200, S>
            + Answer<202, (types::Token, TextOrJson)>
            + Answer<400, types::RequestValidationError>
            + Answer<500, types::SystemError>,
    {
        let submitted = match submitted {
            Ok(submitted) => submitted,
            Err(error) => return refuse(context, &error),
        };
        if !self.shared.respond_within.is_zero() {
            pressure::release_room(context.request());
            // Whatever goes wrong while waiting, the task is accepted, and the token says so.
            if let Ok(Some(task)) =
                self.shared.service.wait(&submitted.token, self.shared.respond_within).await
                && task.state.is_terminal()
            {
                return <R as Answer<200, S>>::answer(Status::of(task).into());
            }
        }
        <R as Answer<202, _>>::answer(self.token(context, submitted.token.to_string()))
    }

    fn token(&self, context: &RequestContext, token: String) -> (types::Token, TextOrJson) {
        let form = match self.shared.token_format {
            TokenFormat::Text => TextOrJson::Text,
            TokenFormat::Json => TextOrJson::Json,
            TokenFormat::Auto
                if context.accept_names("application/json") && !context.accept_names("text/plain") =>
            {
                TextOrJson::Json
            }
            TokenFormat::Auto => TextOrJson::Text,
        };
        (types::Token(token), form)
    }

    /// The task of a token, when it is one of these operations.
    async fn task<R>(&self, context: &RequestContext, token: &str, of: &[Operation]) -> Result<Task, R>
    where
        R: Answer<400, types::RequestValidationError> + Answer<500, types::SystemError>,
    {
        match self.shared.service.task(token).await {
            Ok(Some(task)) if of.contains(&task.operation) => Ok(task),
            Ok(_) => Err(unknown(token, of)),
            Err(error) => Err(refuse(context, &error)),
        }
    }
}

fn unknown<R: Answer<400, types::RequestValidationError>>(token: &str, of: &[Operation]) -> R {
    let names = match of {
        [Operation::Validate] => "validation",
        [Operation::Reverse] => "reverse provisioning",
        _ => "provisioning",
    };
    R::answer(Refusal::of_unknown_token(token, names).into_error())
}

/// Tokens that `/v1/provision/{token}/...` takes.
const PROVISIONING: &[Operation] = &[Operation::Provision, Operation::Unprovision, Operation::UpdateAccess];

impl TechAdapter for Adapter {
    fn limits(&self) -> Limits {
        self.shared.limits
    }

    fn reject_validate(&self, _: &RequestContext, rejection: Rejection) -> ValidateResponse {
        ValidateResponse::Ok(Refusal::of_rejection(&rejection).into_validation())
    }

    fn reject_with_request_validation_error(
        &self,
        _: &RequestContext,
        rejection: Rejection,
    ) -> types::RequestValidationError {
        Refusal::of_rejection(&rejection).into_error()
    }

    fn fail_with_system_error(&self, context: &RequestContext, failure: Failure) -> types::SystemError {
        left_out(context, failure)
    }

    async fn validate(&self, context: &RequestContext, body: types::ProvisioningRequest) -> ValidateResponse {
        match self.shared.service.validate(document(body)).await {
            Ok(()) => ValidateResponse::Ok(types::ValidationResult { valid: true, error: None }),
            Err(error) => match problems(&error) {
                Some(problems) => ValidateResponse::Ok(Refusal::of_problems(&problems).into_validation()),
                None => ValidateResponse::InternalServerError(system_error(context, &error)),
            },
        }
    }

    async fn async_validate(
        &self,
        context: &RequestContext,
        body: types::ProvisioningRequest,
    ) -> AsyncValidateResponse {
        match self.shared.service.submit_validation(document(body)).await {
            Ok(submitted) => AsyncValidateResponse::answer(self.token(context, submitted.token.to_string())),
            Err(error) => refuse(context, &error),
        }
    }

    async fn get_validation_status(
        &self,
        context: &RequestContext,
        token: String,
    ) -> GetValidationStatusResponse {
        match self.task(context, &token, &[Operation::Validate]).await {
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
        self.accepted::<_, types::ProvisioningStatus>(context, submitted).await
    }

    async fn unprovision(
        &self,
        context: &RequestContext,
        body: types::ProvisioningRequest,
    ) -> UnprovisionResponse {
        let remove_data = body.remove_data;
        let submitted = self.shared.service.unprovision(document(body), remove_data).await;
        self.accepted::<_, types::ProvisioningStatus>(context, submitted).await
    }

    async fn updateacl(&self, context: &RequestContext, body: types::UpdateAclRequest) -> UpdateaclResponse {
        let document = Document { kind: DescriptorKind::Component, text: body.provision_info.request };
        let fields = body.access_control_fields.unwrap_or_default();
        let submitted = self.shared.service.update_access(document, &body.refs, fields).await;
        self.accepted::<_, types::ProvisioningStatus>(context, submitted).await
    }

    async fn get_status(&self, context: &RequestContext, token: String) -> GetStatusResponse {
        match self.task(context, &token, PROVISIONING).await {
            Ok(task) => GetStatusResponse::Ok(Status::of(task).into()),
            Err(refusal) => refusal,
        }
    }

    async fn stop(&self, context: &RequestContext, token: String) -> StopResponse {
        if let Err(refusal) = self.task::<StopResponse>(context, &token, PROVISIONING).await {
            return refusal;
        }
        match self.shared.service.stop(&token).await {
            Ok(Some(task)) if task.state.is_terminal() => StopResponse::Ok(Status::of(task).into()),
            Ok(Some(_)) => StopResponse::answer(self.token(context, token)),
            Ok(None) => unknown(&token, PROVISIONING),
            Err(error) if *error.kind() == Kind::Unsupported => StopResponse::NotImplemented(not_offered(
                context,
                &error,
                "wait for the end of the operation: its status tells",
            )),
            Err(error) => refuse(context, &error),
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
        self.accepted::<_, types::ReverseProvisioningStatus>(context, submitted).await
    }

    async fn get_reverse_provisioning_status(
        &self,
        context: &RequestContext,
        token: String,
    ) -> GetReverseProvisioningStatusResponse {
        match self.task(context, &token, &[Operation::Reverse]).await {
            Ok(task) => GetReverseProvisioningStatusResponse::Ok(Status::of(task).into()),
            Err(refusal) => refusal,
        }
    }
}

fn document(body: types::ProvisioningRequest) -> Document {
    let kind = match body.descriptor_kind {
        types::DescriptorKind::DataproductDescriptor => DescriptorKind::DataProduct,
        types::DescriptorKind::ComponentDescriptor => DescriptorKind::Component,
        types::DescriptorKind::DataproductDescriptorWithResults => DescriptorKind::DataProductWithResults,
    };
    Document { kind, text: body.descriptor }
}

/// A task, with what it came to.
struct Status {
    state: State,
    report: Report,
    /// Why it did not complete.
    reason: Option<String>,
    logs: Vec<types::Log>,
}

impl Status {
    fn of(task: Task) -> Self {
        let report = task.outcome.map(serde_json::from_value::<Report>).transpose();
        let report = report
            .map_err(|error| {
                Error::permanent("the stored outcome cannot be read by this version").because(error)
            })
            .inspect_err(|error| log::error!(token:% = task.token; "{}", error.report()));
        Self {
            state: task.state,
            reason: task.reason,
            report: report.ok().flatten().unwrap_or_default(),
            logs: task.logs.into_iter().map(log_line).collect(),
        }
    }
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

impl From<Status> for types::ProvisioningStatus {
    fn from(status: Status) -> Self {
        let (name, result) = match status.state {
            State::Queued | State::Running | State::Stopping => {
                (types::ProvisioningStatusStatus::Running, "")
            }
            State::Completed => (types::ProvisioningStatusStatus::Completed, "completed"),
            State::Failed => (types::ProvisioningStatusStatus::Failed, "failed"),
            State::Terminated => (types::ProvisioningStatusStatus::Terminated, "stopped on request"),
        };
        let info = status
            .report
            .info
            .map(|info| types::Info { public_info: info.public, private_info: info.private });
        // A run that was cut off, or never began, left no report; the engine knows why even so.
        let result = match status.report.result {
            said if said.is_empty() => status.reason.unwrap_or_else(|| result.to_owned()),
            said => said,
        };
        Self { status: name, result, info, logs: status.logs }
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
        Self { status: name, updates: status.report.updates.unwrap_or_default(), logs: status.logs }
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
                let public_info = match status.report.problems.as_slice() {
                    [] => types::ValidationResult { valid: true, error: None },
                    problems => Refusal::of_problems(problems).into_validation(),
                };
                Self {
                    status: types::ValidationStatusStatus::Completed,
                    info: Some(types::ValidationInfo { public_info }),
                }
            }
        }
    }
}
