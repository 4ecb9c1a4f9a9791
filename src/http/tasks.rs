//! What the contracts that make tasks share: the token of a task that was accepted, and the status of one that is polled.
//!
//! A token belongs to the engine, not to a contract: what one accepted, another may poll.

use crate::generated::runtime::{Answer, RequestContext, TextOrJson};
use landfall_adapter::LogLine;
use landfall_adapter::error::{Error, Result};
use landfall_operation::{Operation, Report, State, Submitted, Task};

use super::refusal::{Refusal, Shapes, refuse};
use super::{Shared, TokenFormat, pressure};

/// Tokens that a status of provision, unprovision or updateacl is asked for with.
pub(super) const PROVISIONING: &[Operation] =
    &[Operation::Provision, Operation::Unprovision, Operation::UpdateAccess];

/// A contract whose work is done by tasks.
pub(super) trait TaskShapes: Shapes {
    /// The body of 202.
    type Token: From<String>;
}

impl Shared {
    /// 202 with the token, or 200 when the work ended within `respond_within`.
    pub(super) async fn accepted<C, S, R>(&self, context: &RequestContext, submitted: Result<Submitted>) -> R
    where
        C: TaskShapes,
        S: From<Status>,
        R: Answer<200, S>
            + Answer<202, (C::Token, TextOrJson)>
            + Answer<400, C::Refused>
            + Answer<500, C::Failed>,
    {
        let submitted = match submitted {
            Ok(submitted) => submitted,
            Err(error) => return refuse::<C, _>(context, &error),
        };
        if !self.respond_within.is_zero() {
            pressure::release_room(context.request());
            // Whatever goes wrong while waiting, the task is accepted, and the token says so.
            if let Ok(Some(task)) = self.service.wait(&submitted.token, self.respond_within).await
                && task.state.is_terminal()
            {
                return <R as Answer<200, S>>::answer(Status::of(task).into());
            }
        }
        <R as Answer<202, _>>::answer(self.token::<C>(context, submitted.token.to_string()))
    }

    /// The token in the form that the caller can read.
    pub(super) fn token<C: TaskShapes>(
        &self,
        context: &RequestContext,
        token: String,
    ) -> (C::Token, TextOrJson) {
        let form = match self.token_format {
            TokenFormat::Text => TextOrJson::Text,
            TokenFormat::Json => TextOrJson::Json,
            TokenFormat::Auto => context.text_or_json(),
        };
        (token.into(), form)
    }

    /// The task of a token, when it is one of these operations.
    pub(super) async fn task<C, R>(
        &self,
        context: &RequestContext,
        token: &str,
        of: &[Operation],
    ) -> Result<Task, R>
    where
        C: Shapes,
        R: Answer<400, C::Refused> + Answer<500, C::Failed>,
    {
        match self.service.task(token).await {
            Ok(Some(task)) if of.contains(&task.operation) => Ok(task),
            Ok(_) => Err(<R as Answer<400, _>>::answer(unknown(token, of).into())),
            Err(error) => Err(refuse::<C, _>(context, &error)),
        }
    }
}

/// A token that stands for no task of these operations.
pub(super) fn unknown(token: &str, of: &[Operation]) -> Refusal {
    let names = match of {
        [Operation::Validate] => "validation",
        [Operation::Reverse] => "reverse provisioning",
        _ => "provisioning",
    };
    Refusal::of_unknown_token(token, names)
}

/// A task, with what it came to.
pub(super) struct Status {
    pub(super) state: State,
    pub(super) report: Report,
    pub(super) logs: Vec<LogLine>,
    /// Why it did not complete.
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

    /// What it came to, in a sentence; empty while it runs.
    pub(super) fn result(&self) -> String {
        if !self.report.result.is_empty() {
            return self.report.result.clone();
        }
        // A run that was cut off, or never began, left no report; the engine knows why even so.
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
