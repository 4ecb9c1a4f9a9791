//! Blocking work, and when it has ended.
//!
//! A file operation blocks its thread, so it runs on a thread that may block. Dropping the future that waits for such
//! a thread does not end the thread: a deletion of many files goes on after the run that began it was cut off. A run
//! is over only when its threads are, and this module makes that a fact that can be waited for:
//!
//! - [`run`] runs work on a blocking thread and [`finish`] a future that must not be dropped half way. Both count in
//!   the [`Scope`] of the run that they work for.
//! - Work that takes long looks at its [`Cancellation`] between entries: it fires when the run is told to end, and
//!   when nobody waits for the work any more. Work that was not begun by then never begins.
//! - [`Scope::end`] waits until nothing of the run is left. The worker settles a run, frees its slot and gives up its
//!   lease only after that.
//!
//! The scope travels with the task and not as an argument, because libraries call back without one: Iceberg's storage
//! gets a path and nothing else. That is no global state. A task-local value is an argument of all that one task
//! awaits, ends with it, and is seen by nothing else; tasks that are spawned do not inherit it. Work outside of any
//! scope (a dry run, a test) runs the same way, and nothing waits for its end.
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

/// How often work that waits on a blocking thread looks whether it is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// All the blocking work of one run. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    work: TaskTracker,
    cancel: CancellationToken,
}

impl Scope {
    /// Work in it is told to end when `parent` fires.
    pub fn new(parent: &CancellationToken) -> Self {
        Self { work: TaskTracker::new(), cancel: parent.child_token() }
    }

    /// Runs a future whose blocking work counts here.
    pub async fn enter<F: Future>(&self, future: F) -> F::Output {
        CURRENT.scope(self.clone(), future).await
    }

    /// The scope that the calling task runs in, or one that nothing waits for.
    fn current() -> Self {
        CURRENT.try_with(Self::clone).unwrap_or_default()
    }

    /// Tells what is left to end when the guard is dropped.
    pub fn cancel_on_drop(&self) -> DropGuard {
        self.cancel.clone().drop_guard()
    }

    /// Whether nothing of it is under way.
    pub fn is_empty(&self) -> bool {
        self.work.is_empty()
    }

    /// Tells what is left to end. To be called when the run itself is over: nothing begins after that.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Tells what is left to end, and waits until it has.
    pub async fn end(&self) {
        self.cancel();
        self.work.close();
        self.work.wait().await;
    }
}

/// Whether work is still wanted. A look at it costs an atomic read.
#[derive(Debug, Clone)]
pub struct Cancellation(CancellationToken);

impl Cancellation {
    /// Of a token that means the same.
    pub fn of(token: &CancellationToken) -> Self {
        Self(token.clone())
    }

    /// Work that is wanted whatever happens.
    pub fn never() -> Self {
        Self(CancellationToken::new())
    }

    /// [`Error::cancelled`] when the work should end here.
    pub fn check(&self) -> Result<()> {
        if self.0.is_cancelled() { Err(stopped()) } else { Ok(()) }
    }

    /// Blocks for so long, or until the work should end.
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

/// Runs work on a thread that may block. It is told to end when the run is, or when the caller stops waiting; then it
/// does not begin at all. A panic in it is an error that trying again does not help.
pub async fn run<T: Send + 'static>(
    work: impl FnOnce(&Cancellation) -> Result<T> + Send + 'static,
) -> Result<T> {
    run_until(&Scope::current().cancel.clone(), work).await
}

/// The same, told to end by `cancel`.
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

/// Runs work on a thread that may block, also when the run was told to end: work that cannot be stopped.
pub async fn run_regardless<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    spawn(work).await
}

#[expect(clippy::disallowed_methods, reason = "this is the place that tracks it")]
async fn spawn<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    // Dropped before it has begun, it never begins.
    outcome(AbortOnDropHandle::new(Scope::current().work.spawn_blocking(work)).await)
}

/// Awaits a future that goes on to its end when the caller stops waiting, and counts in the scope until then. For
/// what works on threads of its own: SQLite carries out a statement whose future was dropped.
pub async fn finish<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let scope = Scope::current();
    if scope.cancel.is_cancelled() {
        return Err(stopped());
    }
    outcome(scope.work.clone().spawn(async move { scope.enter(work).await }).await)
}

/// [`Error::cancelled`] when the run that the calling task works for should end. For what is in [`finish`]: a look before
/// what cannot be taken back.
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

/// Waits for the end of a scope, and calls `report` each time that `every` has passed.
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

    /// Counts until it is told to end.
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
        // What cannot be stopped is done all the same.
        scope.enter(run_regardless(|| Ok(()))).await.unwrap();
    }

    #[tokio::test]
    async fn a_future_that_must_finish_does_when_it_is_dropped() {
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
