//! Tokens and statuses of tasks, for all contracts.
//!
//! A token belongs to the engine, so a client can poll it through another contract than the one that created it.

use crate::generated::runtime::{Answer, RequestContext, TextOrJson};
use landfall_adapter::LogLine;
use landfall_adapter::descriptor::Problem;
use landfall_adapter::error::{Error, Result};
use landfall_operation::{Lane, Report, State, Submitted, Task};

use super::{Shared, TokenFormat, pressure};

impl Shared {
    /// Returns 202 with the token, or 200 with the status if the task ended within `respond_within`.
    pub(super) async fn accepted<S, T, R>(&self, context: &RequestContext, submitted: Submitted) -> R
    where
        S: From<Status>,
        T: From<String>,
        R: Answer<200, S> + Answer<202, (T, TextOrJson)>,
    {
        if !self.respond_within.is_zero() {
            pressure::release_room(context.request());
            // The task is accepted even if waiting fails.
            if let Ok(Some(task)) = self.service.wait(&submitted.token, self.respond_within).await
                && task.state.is_terminal()
            {
                return <R as Answer<200, S>>::answer(Status::of(task).into());
            }
        }
        <R as Answer<202, _>>::answer(self.token(context, &submitted.token))
    }

    /// The token in the form that the caller accepts.
    pub(super) fn token<T: From<String>>(
        &self,
        context: &RequestContext,
        token: &impl ToString,
    ) -> (T, TextOrJson) {
        let form = match self.token_format {
            TokenFormat::Text => TextOrJson::Text,
            TokenFormat::Json => TextOrJson::Json,
            TokenFormat::Auto => context.text_or_json(),
        };
        (token.to_string().into(), form)
    }

    /// Returns the task of a token. Fails if no task of this lane has the token.
    pub(super) async fn task(&self, token: &str, lane: Lane) -> Result<Task> {
        let task = self.service.task(token).await?;
        task.filter(|task| task.operation.lane() == lane).ok_or_else(|| unknown(token, lane))
    }
}

/// The error that no task of this lane has the token.
pub(super) fn unknown(token: &str, lane: Lane) -> Error {
    let operation = match lane {
        Lane::Validation => "validation",
        Lane::Import => "reverse provisioning",
        Lane::Change => "provisioning",
    };
    let problem = Problem::new("token", format!("no {operation} task has this token, or it has expired"))
        .value(token)
        .remedy("poll with the token that the 202 answer gave; start the operation again if it has expired");
    Error::invalid(vec![problem])
}

/// A task and its report.
pub(super) struct Status {
    pub(super) state: State,
    pub(super) report: Report,
    pub(super) logs: Vec<LogLine>,
    /// Why the task did not complete; `None` if it completed or still runs.
    reason: Option<String>,
}

impl Status {
    pub(super) fn of(task: Task) -> Self {
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
            logs: task.logs,
        }
    }

    /// Returns the result as a sentence; empty while the task runs.
    pub(super) fn result(&self) -> String {
        if !self.report.result.is_empty() {
            return self.report.result.clone();
        }
        // A run that was dropped or never began has no report, but the engine knows the reason.
        self.reason.clone().unwrap_or_else(|| {
            let said = match self.state {
                State::Queued | State::Running | State::Stopping => "",
                State::Completed => "completed",
                State::Failed => "failed",
                State::Terminated => "stopped on request",
            };
            said.to_owned()
        })
    }
}
