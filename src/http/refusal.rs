//! From errors to responses: the only place that maps kinds to statuses.
//!
//! A wrong request is answered with 400 and every problem, everything else with 500 and a public message. Only the
//! administrator's log has the chain of causes. A [`Refusal`] or a [`Fault`] has the content; each contract has its
//! own shapes for it (`shapes`, and `airbyte`).

use log::{error, info, warn};

use crate::generated::runtime::{Answer, IntoResponse, Rejection, RejectionKind, RequestContext};
use landfall_adapter::descriptor::Problem;
use landfall_adapter::error::{Error, Kind, Result};

use super::pressure;

/// The error types of a contract.
pub(super) trait Shapes {
    /// The body of 400.
    type Refused: From<Refusal>;
    /// The body of 500.
    type Failed: From<Fault>;
}

/// The problems of a request.
pub(super) struct Refusal {
    /// At least one, in document order.
    pub(super) problems: Vec<Said>,
    pub(super) user_message: String,
    /// The value that the first problem is about, if any.
    pub(super) input: Option<String>,
    /// The path of the first problem.
    pub(super) input_error_field: Option<String>,
}

/// The text of a problem, and its remedy, if any.
pub(super) struct Said {
    pub(super) text: String,
    pub(super) remedy: Option<String>,
}

impl Said {
    /// Both as one text, for contracts with one field.
    pub(super) fn on_one_line(&self) -> String {
        match &self.remedy {
            Some(remedy) => format!("{}; {remedy}", self.text),
            None => self.text.clone(),
        }
    }
}

impl Refusal {
    /// Every problem, in document order. The first one determines the field and the value.
    pub(super) fn of_problems(problems: &[Problem]) -> Self {
        let first = problems.first();
        Self {
            user_message: match problems {
                [one] => format!("The request cannot be served: {}", one.message),
                _ => format!("The request cannot be served: {} problems were found", problems.len()),
            },
            input: first.and_then(|problem| problem.value.clone()),
            input_error_field: first.map(|problem| problem.path.clone()).filter(|path| !path.is_empty()),
            problems: problems
                .iter()
                .map(|problem| Said { text: problem.to_string(), remedy: problem.remedy.clone() })
                .collect(),
        }
    }

    /// A request that does not fit its schema.
    pub(super) fn of_rejection(rejection: &Rejection) -> Self {
        let remedy = rejection.remedy.clone().unwrap_or_else(|| remedy_of(rejection.kind).to_owned());
        Self {
            problems: vec![Said { text: rejection.to_string(), remedy: Some(remedy) }],
            user_message: format!("The request does not fit the contract: {rejection}"),
            input: rejection.value.clone(),
            input_error_field: rejection.field.clone(),
        }
    }
}

/// The default remedy of a request that does not reach its handler.
fn remedy_of(kind: RejectionKind) -> &'static str {
    match kind {
        RejectionKind::TooLarge => "send a smaller body, or raise `server.max_body_bytes`",
        RejectionKind::TooSlow => {
            "send the body faster, raise `server.body_timeout` or lower `server.min_body_rate`"
        }
        RejectionKind::Interrupted => "send the request again",
        RejectionKind::ContentType => "send JSON, not compressed, with `Content-Type: application/json`",
        RejectionKind::Syntax => "send one JSON object in UTF-8; a descriptor is a string in it",
        RejectionKind::Schema | RejectionKind::Parameter => {
            "send what the operation's schema in the API contract asks for"
        }
    }
}

/// The reason why a valid request was not served, and the remedy.
pub(super) struct Fault {
    pub(super) message: String,
    pub(super) solution: String,
}

impl Fault {
    pub(super) fn new(failure: &Error, solution: &str) -> Self {
        Self { message: failure.to_string(), solution: solution.to_owned() }
    }

    /// Both as one text, for contracts with one field. Many messages already contain the remedy.
    pub(super) fn on_one_line(&self) -> String {
        if self.message.ends_with(&self.solution) {
            self.message.clone()
        } else {
            format!("{}; {}", self.message, self.solution)
        }
    }
}

/// Converts an error to 400 if the request is wrong, otherwise to 500, for operations that declare both.
impl<S, R> IntoResponse<S, R> for Error
where
    S: Shapes,
    R: Answer<400, S::Refused> + Answer<500, S::Failed>,
{
    fn into_response(self, context: &RequestContext) -> R {
        match problems(&self) {
            Some(problems) => <R as Answer<400, _>>::answer(Refusal::of_problems(&problems).into()),
            None => <R as Answer<500, _>>::answer(system_error(context, &self).into()),
        }
    }
}

/// Returns the result of a validation: `None` if valid, or the problems of the request, which are not an error
/// here.
pub(super) fn verdict(validated: Result<()>) -> Result<Option<Refusal>> {
    let Err(error) = validated else { return Ok(None) };
    problems(&error).map(|problems| Some(Refusal::of_problems(&problems))).ok_or(error)
}

/// Returns the problems if the request is wrong, or `None` for any other error.
fn problems(error: &Error) -> Option<Vec<Problem>> {
    match error.kind() {
        Kind::Invalid(problems) => Some(problems.clone()),
        Kind::Conflict => Some(vec![Problem::new("", error.to_string())]),
        Kind::Retryable | Kind::Cancelled | Kind::Unsupported | Kind::Overloaded | Kind::Permanent => None,
    }
}

/// Returns the content of a 500, and logs the cause, which is logged nowhere else. If the failure is transient,
/// the response gets `Retry-After`.
pub(super) fn system_error(context: &RequestContext, failure: &Error) -> Fault {
    let operation = context.operation().operation_id;
    pressure::note(context.request(), failure);
    if failure.is_retryable() {
        warn!(operation; "answering 500: {}", failure.report());
    } else {
        error!(operation; "answering 500: {}", failure.report());
    }
    let solution = if failure.is_retryable() {
        "try again later"
    } else {
        "ask the administrator to look at the adapter's log"
    };
    Fault::new(failure, solution)
}

/// Returns the content of a 501, for an operation that the target does not support. Logs it as information
/// only. `instead` is the remedy.
pub(super) fn not_offered(context: &RequestContext, failure: &Error, instead: &str) -> Fault {
    let operation = context.operation().operation_id;
    info!(operation; "answering 501: {}", failure.report());
    Fault::new(failure, instead)
}
