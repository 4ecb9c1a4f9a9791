//! What a run of a plug-in means: pure, from what it said and how it ended.

use std::time::Duration;

use landfall_adapter::descriptor::Problem;
use landfall_adapter::error::{Error, Result};

use crate::protocol::{Failure, FailureKind, Outcome, ProblemPart, Verb};

/// The last `result` or `error` line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Result(Box<Outcome>),
    Error(Failure),
}

/// What a plug-in printed on standard output, besides log lines and checkpoints.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Said {
    /// The last `result` or `error`.
    pub(crate) answer: Option<Answer>,
    /// How many there were.
    pub(crate) answers: usize,
    /// Lines that are not of the protocol.
    pub(crate) stray: usize,
    /// Lines behind the first answer.
    pub(crate) late: usize,
}

/// How the process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Exit {
    /// With an exit code.
    Code(i32),
    /// By a signal that Landfall did not send.
    Signal(i32),
    /// It was not started, because another run of the component has not ended.
    Busy,
    /// It could not be started.
    NotStarted(String),
    /// The supervisor is gone.
    Unknown,
}

/// Why Landfall ended the process.
#[derive(Debug)]
pub(crate) enum Cut {
    /// The task was stopped, or has lost its lease.
    Stopped,
    /// The time is over.
    Overdue(Duration),
    /// It printed more than the limit, in bytes.
    TooMuch(u64),
    /// It printed a longer line than the limit, in bytes.
    LineTooLong(usize),
    /// A checkpoint could not be kept.
    Unkept(Error),
}

/// [`Cut`] without its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CutKind {
    Stopped,
    Overdue,
    TooMuch,
    LineTooLong,
    Unkept,
}

impl Cut {
    pub(crate) fn kind(&self) -> CutKind {
        match self {
            Self::Stopped => CutKind::Stopped,
            Self::Overdue(_) => CutKind::Overdue,
            Self::TooMuch(_) => CutKind::TooMuch,
            Self::LineTooLong(_) => CutKind::LineTooLong,
            Self::Unkept(_) => CutKind::Unkept,
        }
    }
}

/// Exit codes with a meaning of their own, from the specification.
mod code {
    pub(super) const UNKNOWN_VERB: i32 = 2;
    pub(super) const INVALID: i32 = 3;
    pub(super) const CONFLICT: i32 = 4;
    pub(super) const RETRY: i32 = 75;
}

/// The result of a run of the plug-in `name`.
pub(crate) fn verdict(name: &str, verb: Verb, said: Said, exit: Exit, cut: Option<Cut>) -> Result<Outcome> {
    let what = verb.name();
    if let Some(cut) = cut {
        return Err(match cut {
            Cut::Stopped => Error::cancelled("stopped on request"),
            Cut::Overdue(limit) => Error::retryable(format!(
                "plug-in `{name}` did not end `{what}` within {limit:?}: make it faster, or raise `timeout` of the target"
            )),
            Cut::TooMuch(limit) => Error::permanent(format!(
                "plug-in `{name}` printed more than {limit} bytes in `{what}`: print less, or raise `max_output` of the \
                 target"
            )),
            Cut::LineTooLong(limit) => Error::permanent(format!(
                "plug-in `{name}` printed a line of more than {limit} bytes in `{what}`: print shorter lines, or raise \
                 `max_line` of the target"
            )),
            Cut::Unkept(error) => error,
        });
    }
    match (said.answer, exit) {
        (_, Exit::Busy) => Err(Error::retryable(format!(
            "another run of plug-in `{name}` for this component has not ended: try again later"
        ))),
        (_, Exit::NotStarted(error)) => {
            Err(Error::retryable(format!("plug-in `{name}` cannot be started: {error}")))
        }
        (_, Exit::Unknown) => Err(Error::retryable(format!(
            "the supervisor of plug-in `{name}` ended during `{what}`, so its outcome is unknown"
        ))),
        (Some(Answer::Error(failure)), Exit::Code(_) | Exit::Signal(_)) => Err(failed(failure)),
        (Some(Answer::Result(outcome)), Exit::Code(0)) => Ok(*outcome),
        (None, Exit::Code(0)) => Err(Error::permanent(format!(
            "plug-in `{name}` ended `{what}` without a `result` line: nothing is known of what it did"
        ))),
        (_, Exit::Signal(signal)) => {
            Err(Error::retryable(format!("plug-in `{name}` was killed by signal {signal} during `{what}`")))
        }
        (_, Exit::Code(code)) => Err(by_code(name, what, code)),
    }
}

fn by_code(name: &str, what: &str, code: i32) -> Error {
    match code {
        code::UNKNOWN_VERB => Error::unsupported(format!("plug-in `{name}` does not know the verb `{what}`")),
        code::INVALID => Error::invalid(vec![
            Problem::new("", format!("plug-in `{name}` refuses the component, and does not say why"))
                .remedy("see the log of the operation"),
        ]),
        code::CONFLICT => Error::conflict(format!(
            "plug-in `{name}` reports a resource of another owner, and does not say which: see the log of the operation"
        )),
        code::RETRY => Error::retryable(format!("plug-in `{name}` asks to try `{what}` again later")),
        code => Error::permanent(format!(
            "plug-in `{name}` failed in `{what}` with exit code {code}: see the log of the operation"
        )),
    }
}

/// The error of an `error` line.
fn failed(failure: Failure) -> Error {
    let Failure { kind, message, problems, after_s } = failure;
    match kind {
        FailureKind::Invalid if problems.is_empty() => Error::invalid(vec![Problem::new("", message)]),
        FailureKind::Invalid => Error::invalid(problems.into_iter().map(problem).collect()),
        FailureKind::Conflict => Error::conflict(message),
        FailureKind::Unsupported => Error::unsupported(message),
        FailureKind::Permanent => Error::permanent(message),
        FailureKind::Retryable => match after_s {
            Some(seconds) => Error::retryable(message).after(Duration::from_secs(seconds)),
            None => Error::retryable(message),
        },
    }
}

/// A problem of a plug-in.
pub(crate) fn problem(ProblemPart { path, message, fix }: ProblemPart) -> Problem {
    let problem = Problem::new(path, message);
    match fix {
        Some(fix) => problem.remedy(fix),
        None => problem,
    }
}

#[cfg(test)]
mod tests {
    use landfall_adapter::error::Kind;

    use super::*;

    fn result() -> Option<Answer> {
        Some(Answer::Result(Box::new(Outcome { changed: Some(true), ..Outcome::default() })))
    }

    fn failure(kind: FailureKind) -> Option<Answer> {
        Some(Answer::Error(Failure { kind, message: "no".to_owned(), problems: Vec::new(), after_s: None }))
    }

    /// Every answer with every end.
    #[test]
    fn every_end_has_one_meaning() {
        let not_started = || Exit::NotStarted("no such file".to_owned());
        let done = "done";
        for (answer, exit, expected) in [
            (result(), Exit::Code(0), done),
            (
                None,
                Exit::Code(0),
                "Permanent: plug-in `p` ended `provision` without a `result` line: nothing is known of what it did",
            ),
            (failure(FailureKind::Conflict), Exit::Code(0), "Conflict: no"),
            (result(), Exit::Code(2), "Unsupported: plug-in `p` does not know the verb `provision`"),
            (None, Exit::Code(3), "Invalid([..]): plug-in `p` refuses the component, and does not say why"),
            (
                None,
                Exit::Code(4),
                "Conflict: plug-in `p` reports a resource of another owner, and does not say which: see the log of the operation",
            ),
            (result(), Exit::Code(75), "Retryable: plug-in `p` asks to try `provision` again later"),
            (
                result(),
                Exit::Code(1),
                "Permanent: plug-in `p` failed in `provision` with exit code 1: see the log of the operation",
            ),
            (
                None,
                Exit::Code(255),
                "Permanent: plug-in `p` failed in `provision` with exit code 255: see the log of the operation",
            ),
            (failure(FailureKind::Permanent), Exit::Code(75), "Permanent: no"),
            (failure(FailureKind::Retryable), Exit::Code(1), "Retryable: no"),
            (failure(FailureKind::Unsupported), Exit::Code(0), "Unsupported: no"),
            (failure(FailureKind::Invalid), Exit::Code(3), "Invalid([..]): no"),
            (failure(FailureKind::Retryable), Exit::Signal(9), "Retryable: no"),
            (result(), Exit::Signal(9), "Retryable: plug-in `p` was killed by signal 9 during `provision`"),
            (None, Exit::Signal(11), "Retryable: plug-in `p` was killed by signal 11 during `provision`"),
            (
                None,
                Exit::Busy,
                "Retryable: another run of plug-in `p` for this component has not ended: try again later",
            ),
            (None, not_started(), "Retryable: plug-in `p` cannot be started: no such file"),
            (
                result(),
                Exit::Unknown,
                "Retryable: the supervisor of plug-in `p` ended during `provision`, so its outcome is unknown",
            ),
        ] {
            let told = format!("{answer:?} {exit:?}");
            let said = Said { answer, answers: 1, ..Said::default() };
            let found = match verdict("p", Verb::Provision, said, exit, None) {
                Ok(outcome) => {
                    assert_eq!(outcome.changed, Some(true));
                    done.to_owned()
                }
                Err(error) => {
                    let kind = match error.kind() {
                        Kind::Invalid(_) => "Invalid([..])".to_owned(),
                        kind => format!("{kind:?}"),
                    };
                    format!("{kind}: {error}")
                }
            };
            assert!(found.starts_with(expected), "{told}: {found}");
        }
    }

    #[test]
    fn what_landfall_ended_is_explained_by_that() {
        let cuts = [
            (Cut::Stopped, "stopped on request"),
            (
                Cut::Overdue(Duration::from_secs(90)),
                "plug-in `p` did not end `provision` within 90s: make it faster, or raise `timeout` of the target",
            ),
            (
                Cut::TooMuch(10),
                "plug-in `p` printed more than 10 bytes in `provision`: print less, or raise `max_output` of the target",
            ),
            (
                Cut::LineTooLong(10),
                "plug-in `p` printed a line of more than 10 bytes in `provision`: print shorter lines, or raise `max_line` of \
                 the target",
            ),
            (Cut::Unkept(Error::cancelled("the lease is lost")), "the lease is lost"),
        ];
        for (cut, expected) in cuts {
            let said = Said { answer: result(), answers: 1, ..Said::default() };
            let error = verdict("p", Verb::Provision, said, Exit::Signal(15), Some(cut)).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn problems_and_waits_of_an_error_line_are_kept() {
        let part = ProblemPart {
            path: "specific.size".to_owned(),
            message: "is too large".to_owned(),
            fix: Some("use at most 7".to_owned()),
        };
        let invalid = Failure {
            kind: FailureKind::Invalid,
            message: "wrong".to_owned(),
            problems: vec![part],
            after_s: None,
        };
        let Kind::Invalid(problems) = failed(invalid).kind().clone() else { panic!("invalid") };
        assert_eq!(problems[0].with_remedy(), "specific.size: is too large; use at most 7");
        let wait = Failure {
            kind: FailureKind::Retryable,
            message: "busy".to_owned(),
            problems: Vec::new(),
            after_s: Some(30),
        };
        assert_eq!(failed(wait).retry_after(), Some(Duration::from_secs(30)));
    }
}
