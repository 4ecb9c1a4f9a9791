//! The last success and failure of each target, for health responses.
//!
//! The runner and dry runs record each call of a technology. Only transient failures count as failures of the target.
//! A wrong request, a conflict and a stop say nothing about the target, and are not recorded.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};

use landfall_adapter::error::{Error, Result};

/// The recorded health of one configured target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetHealth {
    /// Code in the configuration.
    pub code: String,
    /// Name of its technology: `postgresql`.
    pub technology: String,
    /// The last success since the process started, if any.
    pub last_success: Option<DateTime<Utc>>,
    /// The last transient failure since the process started.
    pub last_failure: Option<TargetFailure>,
}

/// A transient failure of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetFailure {
    /// The time of the failure.
    pub at: DateTime<Utc>,
    /// The public message, in one line.
    pub message: String,
}

/// The last success and the last failure of each target.
#[derive(Debug, Default)]
pub(super) struct TargetRecorder(Mutex<BTreeMap<String, Last>>);

#[derive(Debug, Clone, Default)]
pub(super) struct Last {
    pub(super) success: Option<DateTime<Utc>>,
    pub(super) failure: Option<TargetFailure>,
}

impl TargetRecorder {
    /// The maximum length of a stored message, in characters.
    const MAX_MESSAGE: usize = 500;

    /// Records the result of a call to the technology of a target, and passes it on.
    pub(super) fn record<T>(&self, code: &str, result: Result<T>) -> Result<T> {
        match &result {
            Ok(_) => self.change(code, |last| last.success = Some(Utc::now())),
            Err(error) if error.is_retryable() => self.failed(code, error),
            Err(_) => {}
        }
        result
    }

    /// Records a failure.
    pub(super) fn failed(&self, code: &str, error: &Error) {
        let message = error
            .to_string()
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(Self::MAX_MESSAGE)
            .collect();
        self.change(code, |last| last.failure = Some(TargetFailure { at: Utc::now(), message }));
    }

    /// The recorded health of a target.
    pub(super) fn last(&self, code: &str) -> Last {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(code).cloned().unwrap_or_default()
    }

    /// The codes are those of configured targets, so there are no more entries than targets.
    fn change(&self, code: &str, change: impl FnOnce(&mut Last)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(code) {
            Some(last) => change(last),
            None => change(all.entry(code.to_owned()).or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_adapter::descriptor::Problem;

    #[test]
    fn records_transient_failures_and_successes_alone() {
        let recorder = TargetRecorder::default();
        let known = |code: &str| {
            let last = recorder.last(code);
            (last.success.is_some(), last.failure.map(|failure| failure.message))
        };
        assert_eq!(known("PG"), (false, None));
        for error in [
            Error::invalid(vec![Problem::new("name", "is wrong")]),
            Error::conflict("another component owns it"),
            Error::cancelled("stopped on request"),
            Error::permanent("not provisioned"),
        ] {
            recorder.record::<()>("PG", Err(error)).unwrap_err();
            assert_eq!(known("PG"), (false, None));
        }
        let away = Error::retryable("the server\ndoes not answer").because("a private cause");
        recorder.record::<()>("PG", Err(away)).unwrap_err();
        let message = "the server does not answer".to_owned();
        assert_eq!(known("PG"), (false, Some(message.clone())));
        assert_eq!(recorder.record("PG", Ok(7)).unwrap(), 7);
        assert_eq!(known("PG"), (true, Some(message)), "the last failure stays");
        assert_eq!(known("LAKE"), (false, None));

        recorder.failed("PG", &Error::retryable("é".repeat(3000)));
        assert_eq!(known("PG").1.unwrap(), "é".repeat(500));
    }
}
