//! Blocking work, and when it has ended.
//!
//! A file operation blocks its thread, so it runs on a blocking thread. Dropping the future that waits for the
//! thread does not end the thread: a deletion of many files continues after its run was dropped. A run has ended
//! only when its threads have ended. This module makes that a fact that the engine can wait for:
//!
//! - [`run`] runs work on a blocking thread, and [`finish`] runs a future that must not be dropped half way. Both
//!   belong to the [`Scope`] of their run.
//! - Long work checks its [`Cancellation`] between entries. It fires when the run should end, and when no caller
//!   waits for the work any more. Work that has not started by then never starts.
//! - [`Scope::end`] waits until all work of the run has ended. The worker settles the run, frees its slot and
//!   releases its lease only after that.
//!
//! The scope is a task-local value and not an argument, because libraries call back without one: Iceberg's
//! storage gets only a path. It is not global state: it is visible only in what one task awaits, ends with the
//! task, and spawned tasks do not inherit it. Work outside of any scope (a dry run, a test) runs in the same way,
//! and nothing waits for its end.
//!
//! Clippy forbids `tokio::task::spawn_blocking` everywhere else (`clippy.toml`).

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::error::{Error, Result};

tokio::task_local! {
    static CURRENT: Scope;
}

/// How often waiting work on a blocking thread checks whether it was cancelled.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// All blocking work of one run. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    work: TaskTracker,
    cancel: CancellationToken,
}

impl Scope {
    /// Creates a scope whose work is cancelled when `parent` fires.
    pub fn new(parent: &CancellationToken) -> Self {
        Self { work: TaskTracker::new(), cancel: parent.child_token() }
    }

    /// Runs a future whose blocking work belongs to this scope.
    pub async fn enter<F: Future>(&self, future: F) -> F::Output {
        CURRENT.scope(self.clone(), future).await
    }

    /// The scope of the calling task, or a new one that nothing waits for.
    fn current() -> Self {
        CURRENT.try_with(Self::clone).unwrap_or_default()
    }

    /// Returns a guard that cancels the work when it is dropped.
    pub fn cancel_on_drop(&self) -> DropGuard {
        self.cancel.clone().drop_guard()
    }

    /// Whether no work is running.
    pub fn is_empty(&self) -> bool {
        self.work.is_empty()
    }

    /// Cancels the work. Call it when the run itself is over; then no work starts any more.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Cancels the work and waits until it has ended.
    pub async fn end(&self) {
        self.cancel();
        self.work.close();
        self.work.wait().await;
    }
}

/// Whether work was cancelled. A check costs one atomic read.
#[derive(Debug, Clone)]
pub struct Cancellation(CancellationToken);

impl Cancellation {
    /// A cancellation from a token.
    pub fn of(token: &CancellationToken) -> Self {
        Self(token.clone())
    }

    /// A cancellation that never fires.
    pub fn never() -> Self {
        Self(CancellationToken::new())
    }

    /// Returns [`Error::cancelled`] if the work should end.
    pub fn check(&self) -> Result<()> {
        if self.0.is_cancelled() { Err(stopped()) } else { Ok(()) }
    }

    /// Sleeps for that long, or until the work should end.
    pub fn pause(&self, time: Duration) -> Result<()> {
        let mut left = time;
        while !left.is_zero() {
            self.check()?;
            let slice = left.min(LOOK_EVERY);
            std::thread::sleep(slice);
            left -= slice;
        }
        self.check()
    }
}

fn stopped() -> Error {
    Error::cancelled("stopped on request")
}

/// Runs work on a blocking thread. The work is cancelled when its run should end and when the caller stops
/// waiting; if it has not started, it never starts. A panic in it becomes a permanent error.
pub async fn run<T: Send + 'static>(
    work: impl FnOnce(&Cancellation) -> Result<T> + Send + 'static,
) -> Result<T> {
    run_until(&Scope::current().cancel.clone(), work).await
}

/// Runs work as [`run`] does, but with the cancellation `cancel`.
pub(crate) async fn run_until<T: Send + 'static>(
    cancel: &CancellationToken,
    work: impl FnOnce(&Cancellation) -> Result<T> + Send + 'static,
) -> Result<T> {
    let cancel = cancel.child_token();
    let cancellation = Cancellation(cancel.clone());
    let _unwanted = cancel.drop_guard();
    spawn(move || {
        cancellation.check()?;
        work(&cancellation)
    })
    .await
}

/// Runs work that cannot be cancelled on a blocking thread, even if the run should end.
pub async fn run_regardless<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    spawn(work).await
}

#[expect(clippy::disallowed_methods, reason = "this is the place that tracks it")]
async fn spawn<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    // If the future is dropped before the work starts, it never starts.
    outcome(AbortOnDropHandle::new(Scope::current().work.spawn_blocking(work)).await)
}

/// Awaits a future that continues to its end when the caller stops waiting, and belongs to the scope until then.
/// For libraries with threads of their own: SQLite completes a statement whose future was dropped.
pub async fn finish<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let scope = Scope::current();
    if scope.cancel.is_cancelled() {
        return Err(stopped());
    }
    outcome(scope.work.clone().spawn(async move { scope.enter(work).await }).await)
}

/// Returns [`Error::cancelled`] if the run of the calling task should end. Inside [`finish`], check this before a
/// step that cannot be undone.
pub fn check() -> Result<()> {
    if Scope::current().cancel.is_cancelled() { Err(stopped()) } else { Ok(()) }
}

fn outcome<T>(joined: Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    joined.unwrap_or_else(|error| {
        Err(if error.is_panic() {
            Error::permanent("an internal error ended the operation; the administrator's log has more")
                .because(error)
        } else {
            Error::retryable("the process ends, and took up no more work").because(error)
        })
    })
}

/// Waits for the end of a scope. Until then, calls `report` after `first`, and then after each `every`.
pub async fn end_reporting(scope: &Scope, first: Duration, every: Duration, mut report: impl FnMut()) {
    let mut wait = first;
    let ended = scope.end();
    tokio::pin!(ended);
    loop {
        tokio::select! {
            () = &mut ended => return,
            () = sleep(wait) => report(),
        }
        wait = every;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use super::*;
    use crate::error::Kind;

    /// Runs until it is cancelled.
    async fn count(counter: &Arc<AtomicUsize>) -> Result<()> {
        let counter = Arc::clone(counter);
        run(move |cancellation| {
            loop {
                counter.fetch_add(1, Ordering::AcqRel);
                cancellation.pause(Duration::from_millis(1))?;
            }
        })
        .await
    }

    async fn begun(counter: &AtomicUsize) {
        while counter.load(Ordering::Acquire) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_scope_ends_after_work_whose_future_was_dropped() {
        let scope = Scope::new(&CancellationToken::new());
        let counter = Arc::new(AtomicUsize::new(0));
        scope
            .enter(async {
                tokio::select! {
                    _ = count(&counter) => panic!("it counts without end"),
                    () = begun(&counter) => {}
                }
            })
            .await;
        scope.end().await;
        assert!(scope.is_empty());
        let counted = counter.load(Ordering::Acquire);
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(counter.load(Ordering::Acquire), counted);
    }

    #[tokio::test]
    async fn a_cancelled_scope_begins_no_work() {
        let cancel = CancellationToken::new();
        let scope = Scope::new(&cancel);
        cancel.cancel();
        let counter = Arc::new(AtomicUsize::new(0));
        let ended = scope.enter(count(&counter)).await.unwrap_err();
        assert_eq!(*ended.kind(), Kind::Cancelled);
        let finished = scope.enter(finish(async { Ok(()) })).await.unwrap_err();
        assert_eq!(*finished.kind(), Kind::Cancelled);
        assert_eq!(counter.load(Ordering::Acquire), 0);
        // Work that cannot be cancelled is completed.
        scope.enter(run_regardless(|| Ok(()))).await.unwrap();
    }

    #[tokio::test]
    async fn dropped_future_that_must_finish_finishes() {
        let scope = Scope::new(&CancellationToken::new());
        let counter = Arc::new(AtomicUsize::new(0));
        let inner = Arc::clone(&counter);
        scope
            .enter(async {
                let work = finish(async move {
                    inner.store(1, Ordering::Release);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    inner.store(2, Ordering::Release);
                    Ok(())
                });
                tokio::select! {
                    _ = work => panic!("it takes 50 ms"),
                    () = begun(&counter) => {}
                }
            })
            .await;
        assert_eq!(counter.load(Ordering::Acquire), 1);
        scope.end().await;
        assert_eq!(counter.load(Ordering::Acquire), 2);
    }

    #[tokio::test]
    async fn a_panic_in_blocking_work_is_an_internal_error() {
        let error = run::<()>(|_| panic!("a bug")).await.unwrap_err();
        assert_eq!(*error.kind(), Kind::Permanent);
        assert_eq!(
            error.to_string(),
            "an internal error ended the operation; the administrator's log has more"
        );
        assert!(error.report().contains("a bug"), "{}", error.report());
    }

    #[tokio::test]
    async fn work_that_hangs_is_reported_until_it_ends() {
        let scope = Scope::new(&CancellationToken::new());
        let begun = Instant::now();
        scope
            .enter(async {
                let hangs = run_regardless(|| {
                    std::thread::sleep(Duration::from_millis(300));
                    Ok(())
                });
                let _ = tokio::time::timeout(Duration::from_millis(20), hangs).await;
            })
            .await;
        let mut reports = 0;
        end_reporting(&scope, Duration::from_millis(50), Duration::from_millis(60), || reports += 1).await;
        assert!(begun.elapsed() >= Duration::from_millis(300));
        assert!((2..=5).contains(&reports), "{reports}");
    }
}
