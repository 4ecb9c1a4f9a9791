//! The FlexDeploy Instance API: the topology, for those who run the platform.

use std::sync::Arc;

use crate::auth::{Denied, Role};
use crate::generated::flexdeploy::responses::*;
use crate::generated::flexdeploy::server::Flexdeploy;
use crate::generated::flexdeploy::types;
use crate::generated::runtime::{Answer, Denial, Limits, Rejection, RequestContext};
use crate::logging::PEER_OVERLOAD;
use landfall_adapter::descriptor::Problem;
use landfall_adapter::error::{Error, Result};
use landfall_operation::topology::{Attributes, Edit, Filter, Instance, Patch, PluginOperation};

use super::Shared;
use super::callers::credentials;
use super::pressure;
use super::refusal::{Fault, Refusal, Said, Shapes};

/// Serves the contract from the service.
pub(super) struct Instances {
    shared: Arc<Shared>,
}

impl Instances {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl Shapes for Instances {
    type Refused = types::InstanceError;
    type Failed = types::InstanceError;
}

impl Flexdeploy for Instances {
    type Error = Error;

    fn limits(&self) -> Limits {
        self.shared.limits
    }

    async fn authorize(&self, context: &RequestContext) -> Result<(), Denial> {
        let (authorization, peer) = credentials(context.request());
        let caller = self.shared.callers.basic(authorization, peer).await.map_err(|denied| match denied {
            Denied::Unauthorized(message) => {
                log::debug!("answering 401 to {peer}: {message}");
                Denial::Unauthorized(message)
            }
            Denied::Overloaded(message) => {
                log::warn!(target: PEER_OVERLOAD, "answering 500 to {peer}: {message}");
                let error = Error::overloaded(message);
                pressure::note(context.request(), &error);
                Denial::Unavailable(error.to_string())
            }
        })?;
        if caller.role == Role::Read && context.operation().method != "GET" {
            return Err(Denial::Forbidden(format!(
                "`{}` may read the topology and not change it; this takes a user with the role `write`",
                caller.name
            )));
        }
        // The body counts only from here on, so that the body of an unauthenticated caller takes no room.
        pressure::mark_authenticated(context.request());
        Ok(())
    }

    fn deny_with_instance_error(&self, _: &RequestContext, denial: &Denial) -> types::InstanceError {
        let (Denial::Unauthorized(message) | Denial::Forbidden(message) | Denial::Unavailable(message)) =
            denial;
        types::InstanceError { message: message.clone() }
    }

    fn reject_with_instance_error(&self, _: &RequestContext, rejection: Rejection) -> types::InstanceError {
        Refusal::of_rejection(&rejection).into()
    }

    async fn find_instances(
        &self,
        _: &RequestContext,
        code: Option<String>,
        name: Option<String>,
        group: Option<String>,
        sub_group: Option<String>,
    ) -> Result<FindInstancesResponse> {
        let found = self.shared.service.instances(&Filter { code, name, group, sub_group }).await?;
        Ok(FindInstancesResponse::Ok(found.into_iter().map(instance).collect::<Vec<_>>().into()))
    }

    async fn get_instance(&self, _: &RequestContext, id: String) -> Result<GetInstanceResponse> {
        let found = match number(&id) {
            Some(number) => self.shared.service.instance(number).await?,
            None => None,
        };
        Ok(answer(found, &id))
    }

    async fn create_instance(
        &self,
        _: &RequestContext,
        body: types::NewInstance,
    ) -> Result<CreateInstanceResponse> {
        let created = self.shared.service.edit_instance(Edit::Create(attributes(body)?)).await?;
        let created = created.ok_or_else(|| Error::permanent("the new instance was not found"))?;
        Ok(CreateInstanceResponse::Created(instance(created)))
    }

    async fn replace_instance(
        &self,
        _: &RequestContext,
        id: String,
        body: types::NewInstance,
    ) -> Result<ReplaceInstanceResponse> {
        let edited = match number(&id) {
            Some(number) => {
                self.shared.service.edit_instance(Edit::Replace(number, attributes(body)?)).await?
            }
            None => None,
        };
        Ok(answer(edited, &id))
    }

    async fn update_instance(
        &self,
        _: &RequestContext,
        id: String,
        body: types::InstancePatch,
    ) -> Result<UpdateInstanceResponse> {
        let edited = match number(&id) {
            Some(number) => self.shared.service.edit_instance(Edit::Patch(number, patch(body)?)).await?,
            None => None,
        };
        Ok(answer(edited, &id))
    }
}

/// The response 200 with the instance, or 404.
fn answer<R>(found: Option<Instance>, id: &str) -> R
where
    R: Answer<200, types::Instance> + Answer<404, types::InstanceError>,
{
    match found {
        Some(found) => <R as Answer<200, _>>::answer(instance(found)),
        None => {
            let message = format!("no instance has the id `{id}`; GET without an id lists all of them");
            <R as Answer<404, _>>::answer(types::InstanceError { message })
        }
    }
}

impl From<Refusal> for types::InstanceError {
    fn from(refusal: Refusal) -> Self {
        let problems = refusal.problems.iter().map(Said::on_one_line);
        Self { message: problems.collect::<Vec<_>>().join("; ") }
    }
}

impl From<Fault> for types::InstanceError {
    fn from(fault: Fault) -> Self {
        Self { message: fault.on_one_line() }
    }
}

/// Parses an id. `None` if it is not a number; no instance has such an id.
fn number(id: &str) -> Option<i64> {
    id.parse().ok()
}

fn attributes(body: types::NewInstance) -> Result<Attributes> {
    Ok(Attributes {
        code: body.instance_code,
        name: body.instance_name,
        description: body.description,
        group: body.group_code,
        sub_group: body.sub_group_code,
        environments: body.environments.unwrap_or_default(),
        workflows: body.workflows.unwrap_or_default(),
        plugin_operations: operations("pluginOperations", body.plugin_operations)?,
        is_active: body.is_active.unwrap_or(true),
        is_deployment_target: body.is_deployment_target.unwrap_or(true),
    })
}

/// Converts a patch. The contract has two names for the list of operations; the entries of both are added.
fn patch(body: types::InstancePatch) -> Result<Patch> {
    let mut plugin_operations = operations("pluginOperations", body.plugin_operations)?;
    plugin_operations.extend(operations("plugins", body.plugins)?);
    Ok(Patch {
        code: body.instance_code,
        name: body.instance_name,
        description: body.description,
        group: body.group_code,
        sub_group: body.sub_group_code,
        environments: body.environments.unwrap_or_default(),
        workflows: body.workflows.unwrap_or_default(),
        plugin_operations,
        is_active: body.is_active,
        is_deployment_target: body.is_deployment_target,
    })
}

/// Converts the two forms of an operation in the contract to one, or returns a problem for each invalid entry.
fn operations(path: &str, list: Option<Vec<types::PluginOperationInput>>) -> Result<Vec<PluginOperation>> {
    let mut problems = Vec::new();
    let mut read = Vec::new();
    for (index, entry) in list.unwrap_or_default().into_iter().enumerate() {
        match (entry.plugin_id, entry.operation, entry.owner_id, entry.property_set_name) {
            (Some(plugin_id), Some(operation), None, None)
            | (None, None, Some(plugin_id), Some(operation)) => {
                read.push(PluginOperation { plugin_id, operation });
            }
            _ => problems.push(
                Problem::new(format!("{path}[{index}]"), "is no plugin operation")
                    .remedy("give it a `pluginId` and an `operation`"),
            ),
        }
    }
    if problems.is_empty() { Ok(read) } else { Err(Error::invalid(problems)) }
}

fn instance(instance: Instance) -> types::Instance {
    let Instance { id, attributes } = instance;
    types::Instance {
        description: attributes.description,
        environments: attributes.environments,
        workflows: attributes.workflows,
        instance_id: id,
        instance_name: attributes.name,
        is_active: attributes.is_active,
        plugin_operations: attributes
            .plugin_operations
            .into_iter()
            .map(|PluginOperation { plugin_id, operation }| types::PluginOperation { plugin_id, operation })
            .collect(),
        instance_code: attributes.code,
        group_code: attributes.group,
        sub_group_code: attributes.sub_group,
        is_deployment_target: attributes.is_deployment_target,
    }
}
