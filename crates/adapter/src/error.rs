//! The one error of Landfall.
//!
//! An error has a *kind* that decides what happens next (retry, refuse, give up), a *public message* that a
//! person on the other side of the contract may read, and an *internal cause* that only the administrator's log
//! sees. `Display` prints the public message alone; [`Error::report`] prints the chain, once, where it is handled.
//! `http` is the only place that maps a kind to a status.

use std::fmt;
use std::time::Duration;

use crate::descriptor::Problem;

/// What an error means for the work it stopped.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// The request cannot be served as written; every problem found is listed.
    Invalid(Vec<Problem>),
    /// What is in the target belongs to somebody else, or contradicts what is asked.
    Conflict,
    /// A transient failure: trying again later may succeed.
    Retryable,
    /// The work was asked to stop and did.
    Cancelled,
    /// Not offered by this technology or this build.
    Unsupported,
    /// The bounded queue or another configured limit is full.
    Overloaded,
    /// Trying again will not help.
    Permanent,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    retry_after: Option<Duration>,
}

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None, retry_after: None }
    }

    /// The request is wrong; `problems` must not be empty.
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

    /// Somebody else's resource is in the way.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }

    /// A transient failure.
    pub fn retryable(message: impl Into<String>) -> Self {
        Self::new(Kind::Retryable, message)
    }

    /// The work was asked to stop and did.
    pub fn cancelled(message: impl Into<String>) -> Self {
        Self::new(Kind::Cancelled, message)
    }

    /// Not offered here.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, message)
    }

    /// A configured limit is reached.
    pub fn overloaded(message: impl Into<String>) -> Self {
        Self::new(Kind::Overloaded, message)
    }

    /// Trying again will not help.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self::new(Kind::Permanent, message)
    }

    /// Attaches the internal cause. It reaches the administrator's log only.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says how long to wait before another try: what the target asked for, where it did. Means something only on an
    /// error that is retryable.
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// How long to wait at least before another try, where the error knows.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// What the error means for the work it stopped.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Whether trying the same work again later may succeed.
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
