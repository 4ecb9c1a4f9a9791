//! From an error to the contracts' error shapes: the one place that maps a kind to a status.
//!
//! A wrong request is 400 with every problem; everything else is 500 with a public message. The chain of causes goes
//! to the administrator's log and nowhere else.

use std::collections::BTreeSet;

use log::{error, info, warn};

use crate::descriptor::Problem;
use crate::error::{Error, Kind};
use crate::generated::runtime::{Answer, Failure, Rejection, RequestContext};
use crate::generated::tech_adapter::types::{
    ErrorMoreInfo, RequestValidationError, SystemError, ValidationError, ValidationResult,
};

use super::pressure;

/// The shape in which both contracts tell what is wrong with a request.
pub(super) struct Refusal {
    errors: Vec<String>,
    user_message: String,
    input: Option<String>,
    input_error_field: Option<String>,
    solutions: Vec<String>,
}

impl Refusal {
    /// Every problem, in document order; the first one is the one pointed at.
    pub(super) fn of_problems(problems: &[Problem]) -> Self {
        let first = problems.first();
        let mut seen = BTreeSet::new();
        Self {
            errors: problems.iter().map(ToString::to_string).collect(),
            user_message: match problems {
                [one] => format!("The request cannot be served: {}", one.message),
                _ => format!("The request cannot be served: {} problems were found", problems.len()),
            },
            input: first.and_then(|problem| problem.value.clone()),
            input_error_field: first.map(|problem| problem.path.clone()).filter(|path| !path.is_empty()),
            solutions: problems
                .iter()
                .filter_map(|problem| problem.remedy.clone())
                .filter(|remedy| seen.insert(remedy.clone()))
                .collect(),
        }
    }

    /// A request that does not fit its schema.
    pub(super) fn of_rejection(rejection: &Rejection) -> Self {
        Self {
            errors: vec![rejection.to_string()],
            user_message: format!("The request does not fit the contract: {rejection}"),
            input: None,
            input_error_field: rejection.field.clone(),
            solutions: vec!["send what the operation's schema in the API contract asks for".to_owned()],
        }
    }

    /// A token that stands for no task of that operation.
    pub(super) fn of_unknown_token(token: &str, operation: &str) -> Self {
        let problem = Problem::new("token", format!("no {operation} task has this token, or it has expired"))
            .value(token)
            .remedy(
                "poll with the token that the 202 answer gave; start the operation again if it has expired",
            );
        Self::of_problems(&[problem])
    }

    fn more_info(&self) -> ErrorMoreInfo {
        ErrorMoreInfo { problems: self.errors.clone(), solutions: self.solutions.clone() }
    }

    /// As the 400 of the contract.
    pub(super) fn into_error(self) -> RequestValidationError {
        RequestValidationError {
            more_info: Some(self.more_info()),
            errors: self.errors,
            user_message: Some(self.user_message),
            input: self.input,
            input_error_field: self.input_error_field,
        }
    }

    /// As the answer of a validation.
    pub(super) fn into_validation(self) -> ValidationResult {
        let error = ValidationError {
            more_info: Some(self.more_info()),
            errors: self.errors,
            user_message: Some(self.user_message),
            input: self.input,
            input_error_field: self.input_error_field,
        };
        ValidationResult { valid: false, error: Some(error) }
    }
}

/// The contract's answer to an error: 400 when the request is at fault, else 500.
pub(super) fn refuse<R>(context: &RequestContext, error: &Error) -> R
where
    R: Answer<400, RequestValidationError> + Answer<500, SystemError>,
{
    match problems(error) {
        Some(problems) => R::answer(Refusal::of_problems(&problems).into_error()),
        None => R::answer(system_error(context, error)),
    }
}

/// What is wrong with the request, when it is the request that is wrong.
pub(super) fn problems(error: &Error) -> Option<Vec<Problem>> {
    match error.kind() {
        Kind::Invalid(problems) => Some(problems.clone()),
        Kind::Conflict => Some(vec![Problem::new("", error.to_string())]),
        Kind::Retryable | Kind::Cancelled | Kind::Unsupported | Kind::Overloaded | Kind::Permanent => None,
    }
}

/// The 500 of the contract; its cause is logged here and only here. Where it will pass, the answer says when.
pub(super) fn system_error(context: &RequestContext, failure: &Error) -> SystemError {
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
    fault(failure, solution)
}

/// The shape of every error that is not the request's, with what to do about it.
pub(super) fn fault(failure: &Error, solution: &str) -> SystemError {
    SystemError {
        error: failure.to_string(),
        user_message: Some(format!("The operation could not be carried out: {failure}")),
        input: None,
        input_error_field: None,
        more_info: Some(ErrorMoreInfo {
            problems: vec![failure.to_string()],
            solutions: vec![solution.to_owned()],
        }),
    }
}

/// The 501 of what the target of an operation does not offer. Nothing is broken: the log gets no warning.
pub(super) fn not_offered(context: &RequestContext, failure: &Error, instead: &str) -> SystemError {
    let operation = context.operation().operation_id;
    info!(operation; "answering 501: {}", failure.report());
    fault(failure, instead)
}

/// The 500 or 501 of an operation that is left out.
pub(super) fn left_out(context: &RequestContext, failure: Failure) -> SystemError {
    system_error(context, &Error::unsupported(failure.to_string()))
}
