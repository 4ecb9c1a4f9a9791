//! `landfall topology`: the client side of the FlexDeploy Instance API, and the reasons for each placement.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use progenitor_client::Error;
use reqwest::StatusCode;
use serde_json::json;

use super::client::{invalid, origin, read, undeclared};
use super::output::Output;
use super::remote::{self, BasicUser};
use super::{Failure, Remote, Server};
use crate::generated::flexdeploy::client::Client;
use crate::generated::flexdeploy::types;
use crate::generated::operator::{client as operator, types as operator_types};

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show instances; all conditions must hold
    List {
        /// Its code, without case
        #[arg(long)]
        code: Option<String>,
        /// Part of its name, without case
        #[arg(long)]
        name: Option<String>,
        /// Its group, without case
        #[arg(long)]
        group: Option<String>,
        /// Its subgroup, without case
        #[arg(long)]
        sub_group: Option<String>,
        #[command(flatten)]
        remote: Administered,
    },
    /// Change the given attributes of an instance
    Set {
        /// Code of the instance
        code: String,
        /// Create it if it does not exist
        #[arg(long)]
        create: bool,
        #[command(flatten)]
        change: Change,
        #[command(flatten)]
        remote: Administered,
    },
    /// Show the target of each component of a data product, and why
    Explain {
        /// Descriptor of a data product or a component (YAML)
        file: PathBuf,
        #[command(flatten)]
        remote: Remote,
    },
}

impl Command {
    pub(super) fn is_json(&self) -> bool {
        match self {
            Self::List { remote, .. } | Self::Set { remote, .. } => remote.server.json,
            Self::Explain { remote, .. } => remote.json,
        }
    }
}

/// A server, for the users of its topology.
#[derive(Debug, Args)]
pub(super) struct Administered {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    user: BasicUser,
}

impl Administered {
    fn client(&self) -> Result<Client, Failure> {
        let Server { url, encryption, .. } = &self.server;
        let http = remote::http(url, encryption, self.user.authorization()?)?;
        Ok(Client::new_with_client(&origin(url)?, http))
    }
}

/// What `set` changes.
#[derive(Debug, Default, PartialEq, Eq, Args)]
pub(super) struct Change {
    /// Whether anything new may be placed there
    #[arg(long)]
    active: Option<bool>,
    /// Whether it is a deployment target at all
    #[arg(long)]
    deployment_target: Option<bool>,
    /// The group that routes lead to
    #[arg(long)]
    group: Option<String>,
    /// The subgroup
    #[arg(long)]
    sub_group: Option<String>,
    /// The name
    #[arg(long)]
    name: Option<String>,
    /// The description
    #[arg(long)]
    description: Option<String>,
    /// Id of an environment to serve, too; repeat for several
    #[arg(long = "add-environment", value_name = "ID")]
    add_environments: Vec<i64>,
    /// Ids of the environments to serve and no other, separated by commas; `none` for none
    #[arg(long, value_name = "IDS", value_parser = ids, conflicts_with = "add_environments")]
    environments: Option<Ids>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Ids(Vec<i64>);

fn ids(text: &str) -> Result<Ids, String> {
    let id =
        |id: &str| id.trim().parse().map_err(|_| format!("`{id}` is not an id; write 10001,10002 or none"));
    match text {
        "none" => Ok(Ids(Vec::new())),
        _ => text.split(',').map(id).collect::<Result<_, _>>().map(Ids),
    }
}

/// Runs a command.
pub(super) async fn run(output: &mut Output, command: Command) -> Result<(), Failure> {
    match command {
        Command::List { code, name, group, sub_group, remote } => {
            let found = find(&remote, &remote.client()?, code, name, group, sub_group).await?;
            for instance in &found {
                output.say(&summary(instance));
            }
            output.result(json!(found));
            Ok(())
        }
        Command::Set { code, create, change, remote } => {
            if change == Change::default() && !create {
                return Err(Failure::Usage(vec![
                    "nothing to set; see `landfall topology set --help`".to_owned(),
                ]));
            }
            let instance = set(&remote, code, create, change).await?;
            output.say(&summary(&instance));
            output.result(json!(instance));
            Ok(())
        }
        Command::Explain { file, remote } => explain(output, &remote, read(&file)?).await,
    }
}

async fn find(
    remote: &Administered,
    client: &Client,
    code: Option<String>,
    name: Option<String>,
    group: Option<String>,
    sub_group: Option<String>,
) -> Result<Vec<types::Instance>, Failure> {
    // The generated client orders the parameters by name.
    let found =
        client.find_instances(group.as_deref(), code.as_deref(), name.as_deref(), sub_group.as_deref()).await;
    found.map(|found| found.into_inner().0).map_err(|error| failure(&remote.server.url, error))
}

async fn set(
    remote: &Administered,
    code: String,
    create: bool,
    change: Change,
) -> Result<types::Instance, Failure> {
    let client = remote.client()?;
    let found = find(remote, &client, Some(code.clone()), None, None, None).await?;
    let edited = match found.into_iter().next() {
        None if create => client.create_instance(&created(code, change)).await,
        None => {
            let all = find(remote, &client, None, None, None, None).await?;
            let codes = all.into_iter().map(|it| it.instance_code).collect::<Vec<_>>().join(", ");
            return Err(Failure::Invalid(vec![format!(
                "no instance has the code `{code}`; use one of: {codes}; or make it with --create"
            )]));
        }
        Some(instance) => {
            let id = instance.instance_id.to_string();
            match change.environments {
                Some(_) => client.replace_instance(&id, &replaced(instance, change)).await,
                None => client.update_instance(&id, &patched(change)).await,
            }
        }
    };
    edited
        .map(progenitor_client::ResponseValue::into_inner)
        .map_err(|error| failure(&remote.server.url, error))
}

fn created(code: String, change: Change) -> types::NewInstance {
    types::NewInstance {
        description: change.description,
        environments: Some(change.environments.map_or(change.add_environments, |Ids(ids)| ids)),
        group_code: change.group,
        instance_name: change.name.unwrap_or_else(|| code.clone()),
        instance_code: code,
        instance_id: None,
        is_active: change.active,
        is_deployment_target: change.deployment_target,
        plugin_operations: None,
        sub_group_code: change.sub_group,
        workflows: None,
    }
}

fn patched(change: Change) -> types::InstancePatch {
    types::InstancePatch {
        description: change.description,
        environments: Some(change.add_environments),
        group_code: change.group,
        instance_name: change.name,
        is_active: change.active,
        is_deployment_target: change.deployment_target,
        sub_group_code: change.sub_group,
        ..types::InstancePatch::default()
    }
}

/// Returns the whole instance with the changes. Only a request with the whole instance can replace a list.
fn replaced(instance: types::Instance, change: Change) -> types::NewInstance {
    let operation = |operation: types::PluginOperation| types::PluginOperationInput {
        plugin_id: Some(operation.plugin_id),
        operation: Some(operation.operation),
        owner_id: None,
        property_set_name: None,
    };
    types::NewInstance {
        description: change.description.or(instance.description),
        environments: Some(change.environments.map_or(instance.environments, |Ids(ids)| ids)),
        group_code: change.group.or(instance.group_code),
        instance_code: instance.instance_code,
        instance_id: None,
        instance_name: change.name.unwrap_or(instance.instance_name),
        is_active: Some(change.active.unwrap_or(instance.is_active)),
        is_deployment_target: Some(change.deployment_target.unwrap_or(instance.is_deployment_target)),
        plugin_operations: Some(instance.plugin_operations.into_iter().map(operation).collect()),
        sub_group_code: change.sub_group.or(instance.sub_group_code),
        workflows: Some(instance.workflows),
    }
}

/// Returns one line about an instance: "LAKE (11001): group lakehouse, environments 10001 10002, active,
/// deployment target".
fn summary(instance: &types::Instance) -> String {
    let environments = instance.environments.iter().map(i64::to_string).collect::<Vec<_>>().join(" ");
    let mut parts = vec![match &instance.group_code {
        Some(group) => format!("group {group}"),
        None => "no group".to_owned(),
    }];
    parts.push(match environments.as_str() {
        "" => "no environments".to_owned(),
        some => format!("environments {some}"),
    });
    parts.push(if instance.is_active { "active" } else { "not active" }.to_owned());
    parts.push(
        if instance.is_deployment_target { "deployment target" } else { "no deployment target" }.to_owned(),
    );
    if !instance.plugin_operations.is_empty() {
        let names: Vec<_> = instance.plugin_operations.iter().map(|it| it.operation.as_str()).collect();
        parts.push(format!("only {}", names.join(" ")));
    }
    format!("{} ({}): {}", instance.instance_code, instance.instance_id, parts.join(", "))
}

/// Shows the target of every component and the reasons. Fails if a component has no target.
async fn explain(output: &mut Output, remote: &Remote, text: String) -> Result<(), Failure> {
    let client = operator::Client::new_with_client(&origin(&remote.url)?, remote.http()?);
    let request =
        operator_types::ExplainRequest { descriptor_kind: super::client::kind_of(&text), descriptor: text };
    let explanation = match client.explain(&request).await {
        Ok(explanation) => explanation.into_inner(),
        Err(error) => return Err(super::client::operator_failure(&remote.url, error)),
    };
    let mut problems = Vec::new();
    for place in &explanation.components {
        let id = place.environment_id.map_or_else(|| "no id".to_owned(), |id| id.to_string());
        output.say(&format!("{} in {} ({id})", place.id, place.environment));
        output.say(&match &place.route {
            Some(route) => format!("  route: {route}"),
            None => "  no route: another adapter is asked".to_owned(),
        });
        for candidate in &place.candidates {
            let against = match candidate.against.as_slice() {
                [] => "fits".to_owned(),
                some => some.join(", "),
            };
            output.say(&format!("  {} ({}): {against}", candidate.instance_code, candidate.instance_id));
        }
        if let Some(target) = &place.target {
            output.say(&format!("  target: {target}"));
        }
        if let Some(target) = &place.provisioned_on {
            output.say(&format!("  is provisioned on: {target}"));
        }
        problems.extend(place.problems.iter().map(|problem| format!("{}: {problem}", place.id)));
    }
    output.result(json!(explanation));
    if problems.is_empty() { Ok(()) } else { Err(invalid(problems, Vec::new())) }
}

fn failure(url: &str, error: Error<types::InstanceError>) -> Failure {
    match error {
        Error::ErrorResponse(answer) if answer.status() == StatusCode::UNAUTHORIZED => {
            Failure::server(format!(
                "{url}: {}; name a user with --user, and set LANDFALL_PASSWORD or name a file with --password-file",
                answer.into_inner().message
            ))
        }
        Error::ErrorResponse(answer) if answer.status().is_client_error() => {
            Failure::Invalid(vec![answer.into_inner().message])
        }
        Error::ErrorResponse(answer) => Failure::server(answer.into_inner().message),
        other => undeclared(url, &other),
    }
}
