//! What the engine gives to a technology for one run, besides the component.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::access::Lookups;
use crate::blocking::{self, Cancellation};
use crate::error::{Error, Result};
use crate::journal::Journal;

/// The environment of a call: the log, cancellation, the deadline, and the technology's memory of the component.
#[derive(Clone, Default)]
pub struct Context {
    /// Log lines that users see while they poll.
    pub journal: Journal,
    /// Is cancelled when the task is stopped, when its lease is lost, and when the process drains.
    pub cancel: CancellationToken,
    /// Results of identity lookups in this run.
    pub lookups: Lookups,
    deadline: Option<Instant>,
    memory: Option<Arc<dyn Memory>>,
    attempt: Option<Attempt>,
}

/// One run of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The token of the task: the same for each of its runs.
    pub token: Arc<str>,
    /// The number of the run, from 1.
    pub number: u32,
}

impl Context {
    /// The same context with another journal.
    #[must_use]
    pub fn with_journal(&self, journal: Journal) -> Self {
        Self { journal, ..self.clone() }
    }

    /// The same context with a journal that discards everything.
    #[must_use]
    pub fn silent(&self) -> Self {
        self.with_journal(Journal::default())
    }

    /// The same context with a deadline.
    #[must_use]
    pub fn with_deadline(self, deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    /// The same context with the memory of a component.
    #[must_use]
    pub fn with_memory(self, memory: Arc<dyn Memory>) -> Self {
        Self { memory: Some(memory), ..self }
    }

    /// The same context in a run of a task.
    #[must_use]
    pub fn with_attempt(self, attempt: Attempt) -> Self {
        Self { attempt: Some(attempt), ..self }
    }

    /// The run of a task that this call belongs to; `None` in a dry run, and when a request is checked.
    pub fn attempt(&self) -> Option<&Attempt> {
        self.attempt.as_ref()
    }

    /// The time at which the run is cancelled, if it has a limit.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Returns [`Error::cancelled`] if the work should end.
    pub fn check_cancelled(&self) -> Result<()> {
        if self.cancel.is_cancelled() { Err(stopped()) } else { Ok(()) }
    }

    /// Waits for a future that does not use this context. Returns [`Error::cancelled`] as soon as the work
    /// should end, and a retryable error at the deadline.
    pub async fn within<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let over = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(stopped()),
            done = work => done,
            () = over => Err(Error::retryable("the target did not answer before the time of the run was over")),
        }
    }

    /// Runs work on a blocking thread. The run does not end before this work does. Long work checks its
    /// [`Cancellation`] between entries.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cancellation) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        blocking::run_until(&self.cancel, work).await
    }

    /// Returns the last value of [`Running::remember`] for this component and environment, from any run;
    /// `None` after an unprovisioning with data.
    pub async fn recall<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        let Some(memory) = &self.memory else { return Ok(None) };
        let Some(value) = memory.recall().await? else { return Ok(None) };
        let unreadable = |error: serde_json::Error| {
            let kind = format!("{:?} error in its JSON", error.classify());
            Error::permanent("what the technology remembers of this component cannot be read by this version")
                .because(kind)
        };
        serde_json::from_value(value).map(Some).map_err(unreadable)
    }
}

fn stopped() -> Error {
    Error::cancelled("stopped on request")
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("cancelled", &self.cancel.is_cancelled())
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// The context of [`apply`](crate::Bound::apply), which can also remember. A plan cannot, because it changes
/// nothing.
#[derive(Debug, Clone)]
pub struct Running(Context);

impl Running {
    /// The maximum size of a component's memory, in bytes of JSON.
    pub const MAX_MEMORY: usize = 256 << 10;

    /// Creates the context for applying changes.
    pub fn new(context: Context) -> Self {
        Self(context)
    }

    /// Replaces the memory of the component. The value is durable when this returns, and later runs can
    /// recall it, also after a crash. Returns [`Error::cancelled`] if the run has lost its lease. Operators
    /// can read the memory, so it must not contain secrets.
    ///
    /// A crash can happen between a side effect and this call. So remember what you are about to do before
    /// you do it, and the result afterwards. If a later run recalls only the first, the outcome is unknown.
    pub async fn remember<T: Serialize + Sync>(&self, value: &T) -> Result<()> {
        let odd = |error| Error::permanent("what is to be remembered is no JSON").because(error);
        let value = serde_json::to_value(value).map_err(odd)?;
        let size = value.to_string().len();
        if size > Self::MAX_MEMORY {
            let most = Self::MAX_MEMORY;
            return Err(Error::permanent(format!(
                "the technology would remember {size} bytes of this component, and at most {most} are kept"
            )));
        }
        match &self.memory {
            Some(memory) => memory.remember(value).await,
            None => Err(Error::permanent("nothing can be remembered here")),
        }
    }
}

impl Deref for Running {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.0
    }
}

/// The store of a technology's memory of one component.
#[async_trait]
pub trait Memory: Send + Sync {
    /// The last remembered value.
    async fn recall(&self) -> Result<Option<Value>>;

    /// Stores the value durably, or returns an error.
    async fn remember(&self, value: Value) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;
    use crate::error::Kind;

    #[derive(Default)]
    struct Kept(Mutex<Option<Value>>);

    #[async_trait]
    impl Memory for Kept {
        async fn recall(&self) -> Result<Option<Value>> {
            Ok(self.0.lock().unwrap().clone())
        }

        async fn remember(&self, value: Value) -> Result<()> {
            *self.0.lock().unwrap() = Some(value);
            Ok(())
        }
    }

    #[tokio::test]
    async fn recalls_memory_and_limits_its_size() {
        let running = Running::new(Context::default().with_memory(Arc::new(Kept::default())));
        assert_eq!(running.recall::<String>().await.unwrap(), None);
        running.remember(&"a token").await.unwrap();
        assert_eq!(running.recall::<String>().await.unwrap().as_deref(), Some("a token"));
        let error = running.recall::<u64>().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "what the technology remembers of this component cannot be read by this version"
        );
        assert!(!error.report().contains("a token"), "{}", error.report());
        let error = running.remember(&"x".repeat(Running::MAX_MEMORY - 1)).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the technology would remember 262145 bytes of this component, and at most 262144 are kept"
        );
        running.remember(&"x".repeat(Running::MAX_MEMORY - 2)).await.unwrap();
        let without = Running::new(Context::default());
        assert_eq!(without.remember(&1).await.unwrap_err().to_string(), "nothing can be remembered here");
        assert_eq!(without.recall::<u64>().await.unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_end_by_deadline_or_stop() {
        let context = Context::default().with_deadline(Instant::now() + Duration::from_secs(5));
        let never = || std::future::pending::<Result<()>>();
        let begun = Instant::now();
        let error = context.within(never()).await.unwrap_err();
        assert_eq!((error.is_retryable(), begun.elapsed()), (true, Duration::from_secs(5)));
        assert_eq!(context.within(async { Ok(1) }).await.unwrap(), 1);
        context.cancel.cancel();
        assert_eq!(*context.within(never()).await.unwrap_err().kind(), Kind::Cancelled);
        assert_eq!(
            *Context::default().within(async { Err::<(), _>(stopped()) }).await.unwrap_err().kind(),
            Kind::Cancelled
        );
    }
}
