//! What a run gives to a technology besides the component.

use tokio_util::sync::CancellationToken;

use crate::access::Lookups;
use crate::blocking::{self, Cancellation};
use crate::error::{Error, Result};
use crate::journal::Journal;

/// What a technology gets besides the work: where to log, and whether to stop.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// Lines the platform's users see while polling.
    pub journal: Journal,
    /// Cancelled when the task is stopped, loses its lease or the process drains.
    pub cancel: CancellationToken,
    /// What was looked up of people in this run.
    pub lookups: Lookups,
}

impl Context {
    /// [`Error::cancelled`] when the work should end here.
    pub fn check_cancelled(&self) -> Result<()> {
        if self.cancel.is_cancelled() { Err(Error::cancelled("stopped on request")) } else { Ok(()) }
    }

    /// Runs work on a thread that may block. The run ends only after it, however it ends; work that takes long looks at
    /// its [`Cancellation`] between entries.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cancellation) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        blocking::run_until(&self.cancel, work).await
    }
}
