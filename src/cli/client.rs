//! The client: what a control plane does, from a terminal, with the generated client.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::{Config, Overrides};
use crate::generated::operator::{client as operator, types as operator_types};
use crate::generated::tech_adapter::client::{Client, Error, ResponseValue};
use crate::generated::tech_adapter::types;
use crate::registry::Registry;
use crate::server;
use landfall_adapter::descriptor::{self, DescriptorKind, Limits, Problem};
use landfall_operation::topology::Topology;
use landfall_operation::{Document, check_document};

use super::output::Output;
use super::remote::unauthorized;
use super::{Command, Failure, Remote};

/// The longest pause between two polls of a task.
const POLL_CAP: Duration = Duration::from_secs(1);

/// Runs every command that talks to a server.
pub(super) async fn run(output: &mut Output, command: Command) -> Result<(), Failure> {
    match command {
        Command::Deploy { file, component, remote } => {
            each(output, &remote, &read(&file)?, component.as_deref(), Direction::Deploy).await
        }
        Command::Undeploy { file, component, remove_data, remote } => {
            let direction = Direction::Undeploy { remove_data };
            each(output, &remote, &read(&file)?, component.as_deref(), direction).await
        }
        Command::Plan { file, remote } => plan(output, &remote, &read(&file)?).await,
        Command::Acl { file, component, refs, remote } => {
            acl(output, &remote, &read(&file)?, &component, refs).await
        }
        Command::Import { template, environment, params, catalog_info, remote } => {
            import(output, &remote, template, environment, params, catalog_info.as_deref()).await
        }
        Command::Status { token, remote } => status(output, &remote, &token).await,
        Command::Stop { token, remote } => stop(output, &remote, &token).await,
        Command::Topology { command } => super::topology::run(output, command).await,
        Command::Serve { .. } | Command::Validate { .. } | Command::HashPassword => Ok(()),
    }
}

/// Validates without a server, with the same parsing, routing and checking as `/v1/validate`.
pub(super) fn validate(
    output: &mut Output,
    file: &Path,
    component: Option<&str>,
    config: Option<PathBuf>,
    registry: &Registry,
) -> Result<(), Failure> {
    let config = Config::load(config.as_deref(), &Overrides::default(), registry).map_err(Failure::Usage)?;
    let text = read(file)?;
    let limits = &config.descriptor;
    let document = match component {
        Some(id) => Document::new(DescriptorKind::Component, of_component(&text, id, limits)?),
        None => Document::new(descriptor::kind_of(&text, limits), text),
    };
    let topology = Topology::of_configuration(Arc::new(server::installation(&config)));
    match check_document(&document, &topology, limits) {
        Ok(resolved) => {
            let ids: Vec<_> = resolved.assigned.iter().map(|one| one.work.component.id.as_str()).collect();
            output.say(&match document.kind {
                DescriptorKind::Component => format!("valid: `{}` is routed here", ids.join("`, `")),
                _ => format!("valid: {} of {} components are routed here", ids.len(), {
                    ids.len() + resolved.skipped.len()
                }),
            });
            let skipped: Vec<_> =
                resolved.skipped.iter().map(|it| json!({ "id": it.id, "reason": it.reason })).collect();
            for other in &resolved.skipped {
                report_skipped(output, &other.id, &other.reason);
            }
            output.result(json!({ "valid": true, "components": ids, "skipped": skipped }));
            Ok(())
        }
        Err(problems) => {
            let lines: Vec<String> = problems.iter().map(Problem::with_remedy).collect();
            output.result(json!({ "valid": false, "problems": lines }));
            Err(Failure::of_problems(&problems))
        }
    }
}

pub(super) fn read(file: &Path) -> Result<String, Failure> {
    let bytes =
        std::fs::read(file).map_err(|error| Failure::Usage(vec![format!("{}: {error}", file.display())]))?;
    String::from_utf8(bytes)
        .map_err(|_| Failure::Usage(vec![format!("{}: is not UTF-8 text", file.display())]))
}

/// Reads a file with a mapping in YAML or JSON.
fn read_mapping(file: &Path) -> Result<serde_json::Map<String, Value>, Failure> {
    serde_yaml::from_str(&read(file)?).map_err(|error| {
        Failure::Usage(vec![format!("{}: is not a mapping in YAML: {error}", file.display())])
    })
}

/// The COMPONENT_DESCRIPTOR of one component, from a data product or a component descriptor.
fn of_component(text: &str, component: &str, limits: &Limits) -> Result<String, Failure> {
    descriptor::of_component(text, component, limits).map_err(|problem| Failure::of_problems(&[problem]))
}

/// The kind of a file, for requests that accept both kinds.
pub(super) fn kind_of(text: &str) -> operator_types::DescriptorKind {
    match descriptor::kind_of(text, &Limits::default()) {
        DescriptorKind::Component => operator_types::DescriptorKind::ComponentDescriptor,
        _ => operator_types::DescriptorKind::DataproductDescriptor,
    }
}

fn report_skipped(output: &Output, id: &str, reason: &str) {
    output.say(&format!("left to another adapter: {id}: {reason}"));
}

#[derive(Clone, Copy)]
enum Direction {
    Deploy,
    Undeploy { remove_data: bool },
}

/// Provisions or unprovisions component after component, in the order of the server's plan.
async fn each(
    output: &mut Output,
    remote: &Remote,
    text: &str,
    only: Option<&str>,
    direction: Direction,
) -> Result<(), Failure> {
    let client = client(remote)?;
    let (ids, skipped) = match only {
        Some(id) => (vec![id.to_owned()], Vec::new()),
        None => {
            let planned = match direction {
                Direction::Deploy => operator_types::PlanRequestOperation::Provision,
                Direction::Undeploy { .. } => operator_types::PlanRequestOperation::Unprovision,
            };
            let plan = dry_run(remote, text, planned).await?;
            (plan.components.into_iter().map(|component| component.id).collect(), plan.skipped)
        }
    };
    output.expect(ids.len());
    for other in &skipped {
        report_skipped(output, &other.id, &other.reason);
    }
    let mut results = Vec::new();
    output.result(json!({ "components": results, "skipped": skipped }));
    for id in &ids {
        output.working_on(id);
        output.say(id);
        let (answer, remove_data) = match direction {
            Direction::Deploy => (client.provision(&request(text, id, false)?).await, false),
            Direction::Undeploy { remove_data } => {
                (client.unprovision(&request(text, id, remove_data)?).await, remove_data)
            }
        };
        let done = follow(&client, output, answer).await?;
        results
            .push(json!({ "id": id, "removeData": remove_data, "token": done.token, "status": done.status }));
        output.result(json!({ "components": results, "skipped": skipped }));
        ended_well(id, &done.status)?;
        output.step();
    }
    Ok(())
}

fn request(text: &str, component: &str, remove_data: bool) -> Result<types::ProvisioningRequest, Failure> {
    Ok(types::ProvisioningRequest {
        descriptor_kind: types::DescriptorKind::ComponentDescriptor,
        descriptor: of_component(text, component, &Limits::default())?,
        latest_enriched_descriptor: None,
        remove_data: Some(remove_data),
    })
}

async fn plan(output: &mut Output, remote: &Remote, text: &str) -> Result<(), Failure> {
    let plan = dry_run(remote, text, operator_types::PlanRequestOperation::Provision).await?;
    let operator_types::Plan { components, skipped } = plan;
    for component in &components {
        output.say(&format!("{} on {} ({})", component.id, component.target, component.technology));
        match &component.pending {
            Some(why) => output.say(&format!("  not yet: {why}")),
            None if component.changes.is_empty() => output.say("  no change"),
            None => {}
        }
        for change in &component.changes {
            let deletes = if change.destructive == Some(true) { " (deletes data)" } else { "" };
            output.say(&format!("  {}: {}{deletes}", change.resource, change.summary));
            for part in &change.parts {
                let deletes = if part.destructive == Some(true) { " (deletes data)" } else { "" };
                let summary =
                    if part.summary.is_empty() { String::new() } else { format!(": {}", part.summary) };
                output.say(&format!("    {} {}{summary}{deletes}", part.action, part.resource));
            }
        }
        for problem in &component.unmet {
            output.say(&format!("  cannot be done: {problem}"));
        }
    }
    for other in &skipped {
        report_skipped(output, &other.id, &other.reason);
    }
    output.result(json!({ "components": components, "skipped": skipped }));
    Ok(())
}

async fn dry_run(
    remote: &Remote,
    text: &str,
    operation: operator_types::PlanRequestOperation,
) -> Result<operator_types::Plan, Failure> {
    let client = operator::Client::new_with_client(&origin(&remote.url)?, remote.http()?);
    let request = operator_types::PlanRequest {
        operation: Some(operation),
        descriptor_kind: kind_of(text),
        descriptor: text.to_owned(),
        remove_data: None,
        refs: None,
    };
    match client.plan(&request).await {
        Ok(plan) => Ok(plan.into_inner()),
        Err(error) => Err(operator_failure(&remote.url, error)),
    }
}

/// Why a request to the operator API failed.
pub(super) fn operator_failure(
    url: &str,
    error: operator::Error<operator_types::RequestValidationErrorOrSystemError>,
) -> Failure {
    match error {
        operator::Error::ErrorResponse(answer) => match answer.into_inner() {
            operator_types::RequestValidationErrorOrSystemError::RequestValidationError(error) => {
                invalid(error.errors, error.more_info.map(|more| more.solutions).unwrap_or_default())
            }
            operator_types::RequestValidationErrorOrSystemError::SystemError(error) => {
                Failure::server(error.error)
            }
        },
        other => undeclared(url, &other),
    }
}

async fn acl(
    output: &mut Output,
    remote: &Remote,
    text: &str,
    component: &str,
    refs: Vec<String>,
) -> Result<(), Failure> {
    let client = client(remote)?;
    let request = types::UpdateAclRequest {
        refs,
        provision_info: types::ProvisionInfo {
            request: of_component(text, component, &Limits::default())?,
            result: Some(Value::from("")),
        },
        access_control_fields: None,
    };
    let done = follow(&client, output, client.updateacl(&request).await).await?;
    output.result(json!({ "id": component, "token": done.token, "status": done.status }));
    ended_well(component, &done.status)
}

async fn import(
    output: &mut Output,
    remote: &Remote,
    template: String,
    environment: String,
    params: Vec<(String, Value)>,
    catalog_info: Option<&Path>,
) -> Result<(), Failure> {
    let catalog_info = catalog_info.map(read_mapping).transpose()?;
    let client = client(remote)?;
    let request = types::ReverseProvisioningRequest {
        use_case_template_id: template,
        environment,
        params: Some(params.into_iter().collect()),
        catalog_info,
    };
    let answer = client.reverse_provision(&request).await.map_err(|error| failure(&remote.url, error))?;
    let status = match answer.into_inner() {
        types::ReverseProvisioningStatusOrToken::ReverseProvisioningStatus(status) => status,
        types::ReverseProvisioningStatusOrToken::Token(token) => {
            let mut wait = Pace::new();
            loop {
                let status = client
                    .get_reverse_provisioning_status(&token)
                    .await
                    .map_err(|error| failure(&remote.url, error).of_task(&token))?;
                if status.status != types::ReverseProvisioningStatusStatus::Running {
                    break status.into_inner();
                }
                wait.next().await;
            }
        }
    };
    say_logs(output, &status.logs);
    for (field, value) in &status.updates {
        output.say(&format!("{field}: {value}"));
    }
    output.result(json!(status));
    match status.status {
        types::ReverseProvisioningStatusStatus::Completed => Ok(()),
        _ => Err(import_failed(&status)),
    }
}

/// Returns the failure of an import. The contract has the reason only in the log, so the errors in the log are
/// the message.
fn import_failed(status: &types::ReverseProvisioningStatus) -> Failure {
    let errors = status.logs.iter().filter(|log| log.level == types::LogLevel::Error);
    let said: Vec<_> = errors.map(|log| log.message.as_str()).collect();
    Failure::Operation(format!("{}: {}", status.status, said.join("; ")))
}

/// Shows the status of a task. A token does not show the kind of its task, so each kind of task is requested
/// until one exists.
async fn status(output: &mut Output, remote: &Remote, token: &str) -> Result<(), Failure> {
    let client = client(remote)?;
    let unknown = match client.get_status(token).await {
        Ok(status) => {
            let status = status.into_inner();
            say_logs(output, &status.logs);
            output.say(&format!("{}: {}", status.status, status.result));
            output.result(json!(status));
            return match status.status {
                types::ProvisioningStatusStatus::Running => Ok(()),
                _ => ended_well(token, &status),
            };
        }
        Err(error) => failure(&remote.url, error),
    };
    if let Ok(status) = client.get_reverse_provisioning_status(token).await {
        let status = status.into_inner();
        say_logs(output, &status.logs);
        output.say(&status.status.to_string());
        output.result(json!(status));
        return match status.status {
            types::ReverseProvisioningStatusStatus::Failed => Err(import_failed(&status)),
            _ => Ok(()),
        };
    }
    if let Ok(status) = client.get_validation_status(token).await {
        let status = status.into_inner();
        output.say(&status.status.to_string());
        output.result(json!(status));
        return match status.status {
            types::ValidationStatusStatus::Failed => {
                Err(Failure::Operation(format!("{token}: {}", status.status)))
            }
            _ => Ok(()),
        };
    }
    Err(unknown)
}

async fn stop(output: &mut Output, remote: &Remote, token: &str) -> Result<(), Failure> {
    let client = client(remote)?;
    let answer = client.stop(token).await.map_err(|error| failure(&remote.url, error))?.into_inner();
    match answer {
        types::ProvisioningStatusOrToken::ProvisioningStatus(status) => {
            output.say(&format!("{}: {}", status.status, status.result));
            output.result(json!(status));
        }
        types::ProvisioningStatusOrToken::Token(token) => {
            output.say(&format!("{}: stopping", *token));
            output.result(json!({ "token": *token }));
        }
    }
    Ok(())
}

/// The status of a task that has ended.
struct Done {
    token: Option<String>,
    status: types::ProvisioningStatus,
}

/// Prints new log lines of a task until it has ended.
async fn follow(
    client: &Client,
    output: &Output,
    answer: Result<
        ResponseValue<types::ProvisioningStatusOrToken>,
        Error<types::RequestValidationErrorOrSystemError>,
    >,
) -> Result<Done, Failure> {
    let url = crate::generated::tech_adapter::client::ClientInfo::baseurl(client).to_owned();
    let done = match answer.map_err(|error| failure(&url, error))?.into_inner() {
        types::ProvisioningStatusOrToken::ProvisioningStatus(status) => {
            say_logs(output, &status.logs);
            Done { token: None, status }
        }
        types::ProvisioningStatusOrToken::Token(token) => {
            let mut shown = 0;
            let mut wait = Pace::new();
            loop {
                let status = client.get_status(&token).await;
                let status = status.map_err(|error| failure(&url, error).of_task(&token))?.into_inner();
                say_logs(output, status.logs.get(shown..).unwrap_or_default());
                shown = shown.max(status.logs.len());
                if status.status != types::ProvisioningStatusStatus::Running {
                    break Done { token: Some((*token).clone()), status };
                }
                wait.next().await;
            }
        }
    };
    output.say(&format!("  {}: {}", done.status.status, done.status.result));
    Ok(done)
}

fn say_logs(output: &Output, logs: &[types::Log]) {
    for log in logs {
        output.say(&format!("  {:7} {}", log.level.to_string(), log.message));
    }
}

/// The pause between two polls. It grows with each poll, up to [`POLL_CAP`].
struct Pace(Duration);

impl Pace {
    fn new() -> Self {
        Self(Duration::from_millis(20))
    }

    async fn next(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(POLL_CAP);
    }
}

fn ended_well(what: &str, status: &types::ProvisioningStatus) -> Result<(), Failure> {
    match status.status {
        types::ProvisioningStatusStatus::Completed => Ok(()),
        other => Err(Failure::Operation(format!("{what}: {other}: {}", status.result))),
    }
}

fn client(remote: &Remote) -> Result<Client, Failure> {
    origin(&remote.url)?;
    Ok(Client::new_with_client(remote.url.trim_end_matches('/'), remote.http()?))
}

/// Returns the scheme, host and port of a URL. The operator API is mounted there, independent of the base path.
pub(super) fn origin(url: &str) -> Result<String, Failure> {
    let wrong = |why: &str| Failure::Usage(vec![format!("--url `{url}`: {why}; write http://HOST:PORT")]);
    let parsed = url::Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
    if !["http", "https"].contains(&parsed.scheme()) {
        return Err(wrong("it is neither http nor https"));
    }
    Ok(parsed.origin().ascii_serialization())
}

fn failure(url: &str, error: Error<types::RequestValidationErrorOrSystemError>) -> Failure {
    match error {
        Error::ErrorResponse(answer) => match answer.into_inner() {
            types::RequestValidationErrorOrSystemError::RequestValidationError(error) => {
                invalid(error.errors, error.more_info.map(|more| more.solutions).unwrap_or_default())
            }
            types::RequestValidationErrorOrSystemError::SystemError(error) => Failure::server(error.error),
        },
        other => undeclared(url, &other),
    }
}

pub(super) fn invalid(errors: Vec<String>, solutions: Vec<String>) -> Failure {
    Failure::Invalid(
        errors
            .into_iter()
            .chain(solutions.into_iter().map(|solution| format!("remedy: {solution}")))
            .collect(),
    )
}

/// Returns the failure of a request without a response, or with a response that the contract does not declare.
pub(super) fn undeclared<E: std::fmt::Debug>(url: &str, error: &Error<E>) -> Failure
where
    Error<E>: std::error::Error,
{
    if error.status().is_some_and(|status| status == reqwest::StatusCode::UNAUTHORIZED) {
        return unauthorized(url);
    }
    let mut text = format!("{url}: {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    Failure::server(text)
}
