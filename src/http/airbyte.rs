//! The Airbyte specific provisioner contract: the same work under its own paths, with simpler errors, and with access
//! as users and groups.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::generated::airbyte::responses::*;
use crate::generated::airbyte::server::Airbyte;
use crate::generated::airbyte::types;
use crate::generated::runtime::{IntoResponse, Limits, Rejection, RequestContext};
use landfall_adapter::access::Ref;
use landfall_adapter::descriptor::{DescriptorKind, Object};
use landfall_adapter::error::{Error, Result};
use landfall_operation::{Document, Lane, State};

use super::Shared;
use super::refusal::{Fault, Refusal, Said, Shapes, system_error, verdict};
use super::tasks::Status;

/// Serves the contract from the service. The version in its paths has no effect.
pub(super) struct Provisioner {
    shared: Arc<Shared>,
}

impl Provisioner {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl Shapes for Provisioner {
    type Refused = types::ValidationError;
    type Failed = types::SystemError;
}

/// The contract declares no 400 here, so problems of the request are a validation result.
impl IntoResponse<Provisioner, ValidateResponse> for Error {
    fn into_response(self, context: &RequestContext) -> ValidateResponse {
        ValidateResponse::InternalServerError(system_error(context, &self).into())
    }
}

impl Airbyte for Provisioner {
    type Error = Error;

    fn limits(&self) -> Limits {
        self.shared.limits
    }

    fn reject_validate(&self, _: &RequestContext, rejection: Rejection) -> ValidateResponse {
        ValidateResponse::Ok(Some(Refusal::of_rejection(&rejection)).into())
    }

    fn reject_with_validation_error(
        &self,
        _: &RequestContext,
        rejection: Rejection,
    ) -> types::ValidationError {
        Refusal::of_rejection(&rejection).into()
    }

    async fn validate(
        &self,
        _: &RequestContext,
        _version: String,
        body: types::ProvisioningRequest,
    ) -> Result<ValidateResponse> {
        let verdict = verdict(self.shared.service.validate(document(body)).await)?;
        Ok(ValidateResponse::Ok(verdict.into()))
    }

    async fn provision(
        &self,
        context: &RequestContext,
        _version: String,
        body: types::ProvisioningRequest,
    ) -> Result<ProvisionResponse> {
        let submitted = self.shared.service.provision(document(body)).await?;
        Ok(self.shared.accepted(context, submitted).await)
    }

    async fn unprovision(
        &self,
        context: &RequestContext,
        _version: String,
        body: types::ProvisioningRequest,
    ) -> Result<UnprovisionResponse> {
        // The contract cannot request the deletion of data.
        let remove_data = false;
        let submitted = self.shared.service.unprovision(document(body), remove_data).await?;
        Ok(self.shared.accepted(context, submitted).await)
    }

    async fn updateacl(
        &self,
        context: &RequestContext,
        _version: String,
        body: types::UpdateAclRequest,
    ) -> Result<UpdateaclResponse> {
        let document = Document::new(DescriptorKind::Component, body.provision_info.request);
        let submitted = self.shared.service.update_access(document, refs(&body.acl)?, Object::new()).await?;
        Ok(self.shared.accepted(context, submitted).await)
    }

    async fn get_status(
        &self,
        _: &RequestContext,
        _version: String,
        token: String,
    ) -> Result<GetStatusResponse> {
        let task = self.shared.task(&token, Lane::Change).await?;
        Ok(GetStatusResponse::Ok(Status::of(task).into()))
    }
}

fn document(body: types::ProvisioningRequest) -> Document {
    Document::new(body.descriptor_kind.into(), body.descriptor)
}

/// Returns users and groups as one set, or the problems of both lists.
fn refs(acl: &types::Acl) -> Result<BTreeSet<Ref>> {
    let users = Ref::parse_list("acl.users", &acl.users, Ref::parse_user);
    let groups = Ref::parse_list("acl.groups", &acl.groups, Ref::parse_group);
    match (users, groups) {
        (Ok(users), Ok(groups)) => Ok(users.into_iter().chain(groups).collect()),
        (users, groups) => {
            Err(Error::invalid(users.err().into_iter().chain(groups.err()).flatten().collect()))
        }
    }
}

/// The contract has no field for a remedy, so the remedy follows the problem in the same text.
impl From<Refusal> for types::ValidationError {
    fn from(refusal: Refusal) -> Self {
        let errors = refusal.problems.iter().map(Said::on_one_line);
        Self { errors: errors.collect() }
    }
}

impl From<Option<Refusal>> for types::ValidationResult {
    fn from(refusal: Option<Refusal>) -> Self {
        Self { valid: refusal.is_none(), error: refusal.map(Into::into) }
    }
}

impl From<Fault> for types::SystemError {
    fn from(fault: Fault) -> Self {
        Self { error: fault.on_one_line() }
    }
}

impl From<Status> for types::ProvisioningStatus {
    fn from(status: Status) -> Self {
        let name = match status.state {
            State::Queued | State::Running | State::Stopping => types::ProvisioningStatusStatus::Running,
            State::Completed => types::ProvisioningStatusStatus::Completed,
            // The contract has no TERMINATED; the result says that the task was stopped.
            State::Failed | State::Terminated => types::ProvisioningStatusStatus::Failed,
        };
        Self { status: name, result: Some(status.result()) }
    }
}
