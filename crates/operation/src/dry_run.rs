//! Limits for dry runs, separate from accepted work: how many at a time, the wait for a permit, and a deadline.
//!
//! A dry run continues in a tokio task of its own, which keeps its permit until the work has ended. The caller
//! stops waiting at the deadline, or leaves earlier. In both cases the work is cancelled, and dropped if it
//! does not end.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use crate::topology::Target;
use landfall_adapter::Context;
use landfall_adapter::error::{Error, Result};

/// The limits of dry runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DryRunSettings {
    /// The maximum number of concurrent dry runs in this process.
    pub concurrency: usize,
    /// The longest wait for a permit; then the dry run is refused.
    pub wait: Duration,
    /// The longest dry run, without the wait; then it is cancelled.
    pub limit: Duration,
    /// How long a cancelled dry run may take to end; then it is dropped. The dry run keeps its permit until it
    /// has ended.
    pub cancel_grace: Duration,
}

impl Default for DryRunSettings {
    fn default() -> Self {
        Self {
            concurrency: 2,
            wait: Duration::from_secs(10),
            limit: Duration::from_secs(60),
            cancel_grace: Duration::from_secs(10),
        }
    }
}

/// The target that a dry run is working on, for its errors.
#[derive(Clone, Default)]
pub(super) struct At(Arc<Mutex<Option<Arc<Target>>>>);

impl At {
    pub(super) fn set(&self, target: &Arc<Target>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(target));
    }

    pub(super) fn target(&self) -> Option<Arc<Target>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Runs dry runs within their limits.
pub(super) struct DryRuns {
    turns: Arc<Semaphore>,
    settings: DryRunSettings,
}

impl DryRuns {
    pub(super) fn new(settings: DryRunSettings) -> Self {
        Self { turns: Arc::new(Semaphore::new(settings.concurrency.max(1))), settings }
    }

    /// Waits for a permit, then for the work. Returns `None` if the deadline came first.
    pub(super) async fn run<T, F>(&self, work: impl FnOnce(Context) -> F) -> Result<Option<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let DryRunSettings { concurrency, wait, limit, cancel_grace } = self.settings;
        let turn = match timeout(wait, Arc::clone(&self.turns).acquire_owned()).await {
            Ok(Ok(turn)) => turn,
            Ok(Err(closed)) => return Err(Error::retryable("the server is shutting down").because(closed)),
            Err(_) => {
                return Err(Error::overloaded(format!(
                    "{concurrency} dry runs are under way, which is the limit; try again later"
                )));
            }
        };
        let context = Context::default().with_deadline(Instant::now() + limit);
        let cancel = context.cancel.clone();
        // Fires at the deadline, and when the caller drops this future.
        let _cancels = context.cancel.clone().drop_guard();
        let work = work(context);
        let task = tokio::spawn(async move {
            let _turn = turn;
            let cut_off = async {
                cancel.cancelled().await;
                sleep(cancel_grace).await;
            };
            tokio::select! {
                done = work => done,
                () = cut_off => Err(Error::cancelled("the dry run was cut off")),
            }
        });
        match timeout(limit, task).await {
            Ok(Ok(done)) => done.map(Some),
            Ok(Err(panic)) => Err(Error::permanent("an internal error ended the dry run").because(panic)),
            Err(_) => Ok(None),
        }
    }

    /// The error after the deadline of a dry run, or of the other work that `what` names.
    pub(super) fn overdue(&self, what: &str, at: Option<&Target>) -> Error {
        let at = at.map_or_else(String::new, |target| {
            format!(" in target `{}` ({})", target.code, target.technology.name())
        });
        Error::retryable(format!(
            "the {what} took longer than the {} s of operations.dry_run_limit{at} and was cancelled; try again later",
            self.settings.limit.as_secs_f64()
        ))
    }
}
