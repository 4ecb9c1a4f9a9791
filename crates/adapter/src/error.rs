//! The error type of Landfall.
//!
//! An error has a *kind*, which decides what happens next (retry, refuse, fail), a *public message* for the
//! caller, and an *internal cause* for the administrator's log. `Display` prints only the public message.
//! [`Error::report`] prints the chain of causes; it is called once, where the error is handled. Only `http` maps
//! kinds to statuses.

use std::fmt;
use std::time::Duration;

use crate::descriptor::Problem;

/// What an error means for the work that it ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// The request is wrong. Every problem is listed.
    Invalid(Vec<Problem>),
    /// A resource of another owner has the name that is needed, or the target contradicts the request.
    Conflict,
    /// A transient failure: a later retry may succeed.
    Retryable,
    /// The work ended because it was cancelled.
    Cancelled,
    /// This technology or this build does not support it.
    Unsupported,
    /// The queue or another configured limit is exceeded.
    Overloaded,
    /// A retry does not help.
    Permanent,
}

/// An error with a kind, a public message and an internal cause.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    retry_after: Option<Duration>,
}

/// A `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None, retry_after: None }
    }

    /// A wrong request; `problems` must not be empty.
    pub fn invalid(problems: Vec<Problem>) -> Self {
        let message = match problems.as_slice() {
            [one] => one.to_string(),
            many => format!(
                "{} problems, the first: {}",
                many.len(),
                many.first().map_or_else(String::new, ToString::to_string)
            ),
        };
        Self::new(Kind::Invalid(problems), message)
    }

    /// A resource of another owner has the name that is needed.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }

    /// A transient failure.
    pub fn retryable(message: impl Into<String>) -> Self {
        Self::new(Kind::Retryable, message)
    }

    /// The work was cancelled.
    pub fn cancelled(message: impl Into<String>) -> Self {
        Self::new(Kind::Cancelled, message)
    }

    /// Not supported.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, message)
    }

    /// A configured limit is exceeded.
    pub fn overloaded(message: impl Into<String>) -> Self {
        Self::new(Kind::Overloaded, message)
    }

    /// A retry does not help.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self::new(Kind::Permanent, message)
    }

    /// Adds the internal cause, which only the administrator's log shows.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Sets how long to wait before a retry, if the target requested it. It has an effect only on a retryable
    /// error.
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The minimum wait before a retry, if the error has one.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The kind of the error.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Whether a later retry may succeed.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, Kind::Retryable | Kind::Overloaded)
    }

    /// The public message and the chain of causes, for the administrator's log.
    pub fn report(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|cause| cause as _)
    }
}
