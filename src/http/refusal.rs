//! From an error to an answer: the one place that maps a kind to a status.
//!
//! A wrong request is 400 with every problem; everything else is 500 with a public message. The chain of causes goes
//! to the administrator's log and nowhere else. What is said is made here, as a [`Refusal`] or a [`Fault`]; each
//! contract has shapes of its own to say it in (`shapes`, and `airbyte`).

use log::{error, info, warn};

use crate::generated::runtime::{Answer, IntoResponse, Rejection, RejectionKind, RequestContext};
use landfall_adapter::descriptor::Problem;
use landfall_adapter::error::{Error, Kind, Result};

use super::pressure;

/// The shapes in which a contract says that a request was not served.
pub(super) trait Shapes {
    /// The body of 400.
    type Refused: From<Refusal>;
    /// The body of 500.
    type Failed: From<Fault>;
}

/// What is wrong with a request.
pub(super) struct Refusal {
    /// At least one, in document order.
    pub(super) problems: Vec<Said>,
    pub(super) user_message: String,
    /// The value that the first problem is about.
    pub(super) input: Option<String>,
    /// Where the first problem is.
    pub(super) input_error_field: Option<String>,
}

/// One problem in words, and what to do about it.
pub(super) struct Said {
    pub(super) text: String,
    pub(super) remedy: Option<String>,
}

impl Said {
    /// For a shape that has one text for both.
    pub(super) fn on_one_line(&self) -> String {
        match &self.remedy {
            Some(remedy) => format!("{}; {remedy}", self.text),
            None => self.text.clone(),
        }
    }
}

impl Refusal {
    /// Every problem, in document order; the first one is the one pointed at.
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

/// What to do about a request that does not reach its handler, where nothing better is known.
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

/// Why a request was not served, for a reason that is not the caller's, with what to do about it.
pub(super) struct Fault {
    pub(super) message: String,
    pub(super) solution: String,
}

impl Fault {
    pub(super) fn new(failure: &Error, solution: &str) -> Self {
        Self { message: failure.to_string(), solution: solution.to_owned() }
    }

    /// For a shape that has one text for both. Many messages say already what to do.
    pub(super) fn on_one_line(&self) -> String {
        if self.message.ends_with(&self.solution) {
            self.message.clone()
        } else {
            format!("{}; {}", self.message, self.solution)
        }
    }
}

/// 400 when the request is at fault, else 500: every operation that declares both.
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

/// The verdict of a validation: what is wrong with the request is its result, and no error.
pub(super) fn verdict(validated: Result<()>) -> Result<Option<Refusal>> {
    let Err(error) = validated else { return Ok(None) };
    problems(&error).map(|problems| Some(Refusal::of_problems(&problems))).ok_or(error)
}

/// What is wrong with the request, when it is the request that is wrong.
fn problems(error: &Error) -> Option<Vec<Problem>> {
    match error.kind() {
        Kind::Invalid(problems) => Some(problems.clone()),
        Kind::Conflict => Some(vec![Problem::new("", error.to_string())]),
        Kind::Retryable | Kind::Cancelled | Kind::Unsupported | Kind::Overloaded | Kind::Permanent => None,
    }
}

/// What a 500 says; its cause is logged here and only here. Where it will pass, the answer says when.
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

/// The 501 of what the target of an operation does not offer. Nothing is broken: the log gets no warning.
pub(super) fn not_offered(context: &RequestContext, failure: &Error, instead: &str) -> Fault {
    let operation = context.operation().operation_id;
    info!(operation; "answering 501: {}", failure.report());
    Fault::new(failure, instead)
}
