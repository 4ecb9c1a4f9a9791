//! One run of a task, from the lease to the end.
//!
//! The [`Runner`] does the work in a tokio task of its own, so that a panic becomes an ordinary result. While
//! it runs, the worker renews the lease, writes the log to the store, and watches the time limit. The pure
//! function [`decide`] decides what the end of the run means for the task. Then the result is written, fenced
//! by the lease.
//!
//! A run has ended when its threads have ended. Work on blocking threads belongs to a [`Scope`], and the worker keeps
//! the lease, the slot and the state of the task until the scope is empty. A thread that does not end (for example
//! because a mount hangs) keeps its task, because it also keeps working on the target; the administrator's log
//! reports it. Only the end of the process ends such a thread: a drain waits for it no longer than for any other run,
//! and lets the lease expire.
//!
//! A worker that cannot reach its store stops the work by its own clock before the lease ends, so no other worker can
//! have started by then.

use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::engine::{Settings, Workers};
use super::operation::Operation;
use super::state::{Event, State};
use super::store::{Ending, Inventory, Settlement, Store};
use super::task::{ClaimedTask, ComponentKey, Deployment, Lease};
use landfall_adapter::blocking::{self, Scope};
use landfall_adapter::error::{Error, Kind, Result};
use landfall_adapter::{Attempt, Context, Journal, Level, LogLine, Memory};

/// How often the log of a run is written to the store.
const SHIP_EVERY: Duration = Duration::from_millis(250);
/// The maximum number of lines that are held while the store does not accept them.
const MAX_UNSHIPPED: usize = 2 * Journal::MAX_PENDING;
/// How often the administrator's log reports a run whose threads do not end.
const REPORT_EVERY: Duration = Duration::from_secs(60);
/// A wait for threads that is long enough for a line in the task's log.
const LONG_WAIT: Duration = Duration::from_secs(1);

/// Does the work of tasks; called by the engine. A runner does not deal with queues, leases or retries.
#[async_trait]
pub trait Runner: Send + Sync + 'static {
    /// Does the work of `task` from the start, whatever earlier runs left behind.
    ///
    /// `Ok` completes the task. A retryable error returns it to the queue while there is time for retries.
    /// [`Kind::Cancelled`] after [`Context::cancel`] fired ends the run as the cause of the cancellation
    /// requires. Any other error fails the task. The engine writes the error to the task's log. The future may
    /// be dropped at any await point after the lease has ended, or if it does not end within the grace period
    /// after a cancellation. Blocking work must go through [`landfall_adapter::blocking`], because the run may
    /// end only after that work.
    async fn run(
        &self,
        task: &ClaimedTask,
        context: &Context,
        deployments: &Deployments,
    ) -> Result<Value, RunError>;
}

/// Why a run failed.
#[derive(Debug)]
pub struct RunError {
    /// The error; its kind decides what happens to the task.
    pub error: Error,
    /// The outcome for the client, which is stored unless the task is retried.
    pub outcome: Option<Value>,
}

impl From<Error> for RunError {
    fn from(error: Error) -> Self {
        Self { error, outcome: None }
    }
}

/// Access of a running task to the stored deployments. It can read all of them, and write those of the task's
/// own components under the task's lease.
#[derive(Clone)]
pub struct Deployments {
    store: Arc<dyn Inventory>,
    lease: Lease,
    clock: Arc<LeaseClock>,
}

impl Deployments {
    /// Creates the value for a lease that is valid for `valid_for` from now.
    pub fn new(store: Arc<dyn Inventory>, lease: Lease, valid_for: Duration) -> Self {
        let clock = Arc::new(LeaseClock::new(Instant::now() + valid_for));
        Self { store, lease, clock }
    }

    /// The stored deployment of any component; `None` if there is none.
    pub async fn get(&self, key: &ComponentKey) -> Result<Option<Deployment>> {
        self.store.deployment(key).await
    }

    /// Stores a deployment durably. Returns [`Kind::Cancelled`] if the lease is lost or the component does not belong
    /// to the task.
    pub async fn put(&self, deployment: &Deployment) -> Result<()> {
        if self.store.put_deployment(&self.lease, deployment).await? { Ok(()) } else { Err(lease_lost()) }
    }

    /// The memory of a component of the task.
    pub fn memory(&self, key: ComponentKey) -> Arc<dyn Memory> {
        Arc::new(Remembered { deployments: self.clone(), key })
    }

    /// Deletes the memory of a component. Returns [`Kind::Cancelled`] as [`Self::put`] does, and also if the
    /// component has no stored deployment.
    pub async fn forget(&self, key: &ComponentKey) -> Result<()> {
        if self.store.remember(&self.lease, key, None).await? { Ok(()) } else { Err(lease_lost()) }
    }

    /// Returns [`Kind::Cancelled`] after the lease has expired by the clock of this process. Call it before every
    /// change: a process that was paused finds out here, before any of its timers has fired.
    pub fn check_lease(&self) -> Result<()> {
        if self.clock.is_over() { Err(lease_lost()) } else { Ok(()) }
    }
}

impl fmt::Debug for Deployments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deployments").field("lease", &self.lease).finish_non_exhaustive()
    }
}

struct Remembered {
    deployments: Deployments,
    key: ComponentKey,
}

#[async_trait]
impl Memory for Remembered {
    async fn recall(&self) -> Result<Option<Value>> {
        self.deployments.store.memory(&self.key).await
    }

    async fn remember(&self, value: Value) -> Result<()> {
        let Deployments { store, lease, .. } = &self.deployments;
        if store.remember(lease, &self.key, Some(&value)).await? { Ok(()) } else { Err(lease_lost()) }
    }
}

fn lease_lost() -> Error {
    Error::cancelled("another worker took this operation over")
}

/// The end of a lease, by the monotonic clock.
struct LeaseClock {
    origin: Instant,
    end_micros: AtomicU64,
}

impl LeaseClock {
    fn new(end: Instant) -> Self {
        let clock = Self { origin: Instant::now(), end_micros: AtomicU64::new(0) };
        clock.extend(end);
        clock
    }

    fn extend(&self, end: Instant) {
        let micros = end.saturating_duration_since(self.origin).as_micros();
        self.end_micros.store(u64::try_from(micros).unwrap_or(u64::MAX), Ordering::Release);
    }

    fn end(&self) -> Instant {
        self.origin + Duration::from_micros(self.end_micros.load(Ordering::Acquire))
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.end()
    }
}

/// The cause of a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// A stop was requested.
    Stop,
    /// The process ends.
    Drain,
    /// The run exceeded its limit.
    Overdue,
    /// The lease is lost, or cannot be renewed.
    Lease,
}

/// Cancels a run. The first cause counts, with one exception: a stop replaces a drain, because no other process
/// may continue a stopped task.
pub(super) struct Interrupt {
    cancel: CancellationToken,
    cause: Mutex<Option<Cause>>,
}

impl Interrupt {
    fn new(cancel: CancellationToken) -> Self {
        Self { cancel, cause: Mutex::new(None) }
    }

    pub(super) fn raise(&self, cause: Cause) {
        let mut held = self.cause.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_none() || (*held, cause) == (Some(Cause::Drain), Cause::Stop) {
            *held = Some(cause);
        }
        drop(held);
        self.cancel.cancel();
    }

    fn cause(&self) -> Option<Cause> {
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a run ended.
#[derive(Debug)]
enum Ended {
    Returned(Result<Value, RunError>),
    Panicked,
    /// The run did not end within the grace period after its cancellation, and was dropped.
    Aborted,
}

/// Runs a claimed task to its end. `claimed_at` is the time just before the claim, from which the lease is
/// counted.
pub(super) async fn work(workers: Arc<Workers>, task: ClaimedTask, claimed_at: Instant) {
    let limit = workers.settings.run_limit(task.operation).0;
    let attempt = Attempt { token: task.token.to_string().into(), number: task.attempt };
    let context = Context::default().with_deadline(Instant::now() + limit).with_attempt(attempt);
    let interrupt = Arc::new(Interrupt::new(context.cancel.clone()));
    let scope = Scope::new(&context.cancel);
    let _told = scope.cancel_on_drop();
    let registered = workers.register(&task, &interrupt);
    // A stop that was committed after the claim and before the registration could not be forwarded.
    if let Ok(Some(State::Stopping)) = workers.store.state(&task.token).await {
        interrupt.raise(Cause::Stop);
    }

    let lease = task.lease.clone();
    let facts = Facts::of(&task);
    let clock = Arc::new(LeaseClock::new(claimed_at + workers.settings.lease));
    let journal = context.journal.clone();
    let store: Arc<dyn Inventory> = Arc::<dyn Store>::clone(&workers.store);
    let deployments = Deployments { store, lease: lease.clone(), clock: Arc::clone(&clock) };
    let runner = Arc::clone(&workers.runner);
    log::info!(token:% = lease.token, operation:% = task.operation, attempt = task.attempt; "run begins");
    let (earlier, within) = (registered.earlier(), scope.clone());
    let mut run = AbortOnDropHandle::new(tokio::spawn(async move {
        within
            .enter(async {
                await_ends(earlier, &context).await?;
                runner.run(&task, &context, &deployments).await
            })
            .await
    }));

    let ran = CancellationToken::new();
    let mut keeping = pin!(keep_lease(&workers, &lease, &clock, &interrupt));
    let mut shipping = pin!(ship_logs(&workers, &lease, &journal, &interrupt, &ran));
    let mut watching = pin!(watch(&workers, facts.operation, &interrupt));
    let mut ended = tokio::select! {
        returned = &mut run => match returned {
            Ok(result) => Some(Ended::Returned(result)),
            Err(_) => Some(Ended::Panicked),
        },
        () = &mut keeping => None,
        _lost = &mut shipping => None,
        () = &mut watching => Some(Ended::Aborted),
    };
    if !run.is_finished() {
        run.abort();
        // An aborted run is dropped only at its next await point. Wait for that before the slot becomes free
        // and the end is written. The lease is renewed until then, so that no other worker starts the task.
        let lost = tokio::select! {
            _ = &mut run => false,
            () = &mut keeping, if ended.is_some() => true,
        };
        if lost {
            let _ = (&mut run).await;
            ended = None;
        }
    }
    let waiting = Instant::now();
    let mut threads = pin!(threads_end(&workers, &lease, &scope, &journal));
    let mut left = tokio::select! {
        biased;
        () = &mut threads => Left::Nothing,
        () = &mut keeping, if ended.is_some() => Left::Lease,
        _lost = &mut shipping, if ended.is_some() => Left::Lease,
        () = workers.drain_is_over() => Left::Threads,
    };
    if left == Left::Lease {
        ended = None;
        left = tokio::select! {
            () = &mut threads => Left::Nothing,
            () = workers.drain_is_over() => Left::Threads,
        };
    }
    if left == Left::Threads {
        log::warn!(
            token:% = lease.token, epoch = lease.epoch;
            "run not handed back: its work on a blocking thread has not ended; it ends with the process, and its lease runs \
             out"
        );
        return;
    }
    registered.work_has_ended();
    if waiting.elapsed() >= LONG_WAIT {
        journal.warn(format!("waited {} for file operations that had begun", spell(waiting.elapsed())));
    }
    let Some(ended) = ended else {
        log::warn!(token:% = lease.token, epoch = lease.epoch; "run abandoned: its lease is lost");
        return;
    };

    ran.cancel();
    let lines = tokio::select! {
        rest = &mut shipping => rest,
        () = &mut keeping => None,
    };
    let Some(lines) = lines else {
        log::warn!(token:% = lease.token, epoch = lease.epoch; "end of a run not written: its lease is lost");
        return;
    };
    if let Ended::Returned(Err(RunError { error, .. })) = &ended
        && let Some(report) = for_administrators(error)
    {
        log::warn!(token:% = lease.token; "run met an error: {report}");
    }
    let facts =
        Facts { ran_for: claimed_at.elapsed(), repeats: repeats(&workers, &lease, &ended, &lines), ..facts };
    let now = Utc::now();
    let (ending, closing) =
        decide(ended, interrupt.cause(), &facts, &workers.settings, random_fraction(), now);
    let retried = ending.event() == Event::Retry;
    if !retried {
        workers.repeats.forget(&lease.token);
    }
    // Lines that a retried run repeats are in the log already.
    let folded = retried && closing.is_none();
    let lines = if folded { Vec::new() } else { lines };
    let settlement = Settlement { ending, lines, closing };
    let mut settling = pin!(settle(&workers, &lease, settlement));
    tokio::select! {
        () = &mut settling => {}
        // A heartbeat also finds no lease when `settle` has just ended this run. So wait for the result of
        // `settle`, and warn only if there is none.
        () = &mut keeping => if timeout(workers.settings.lease, settling).await.is_err() {
            log::warn!(token:% = lease.token, epoch = lease.epoch; "end of a run not written: its lease is lost");
        }
    }
}

/// How many runs in a row before this one failed with the same error and the same lines that are not in the
/// store yet; 0 if this run did not end with a retryable error.
fn repeats(workers: &Workers, lease: &Lease, ended: &Ended, lines: &[LogLine]) -> u32 {
    match ended {
        Ended::Returned(Err(RunError { error, .. })) if error.is_retryable() => {
            workers.repeats.note(lease.token, &error.to_string(), lines)
        }
        _ => 0,
    }
}

/// What still runs when the wait for the threads of an ended run is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    /// Threads still run, and the lease was lost.
    Lease,
    /// Threads still run, and the process ends.
    Threads,
}

/// Waits for earlier runs of the same components in this process that lost their lease and whose threads continue.
async fn await_ends(earlier: Vec<CancellationToken>, context: &Context) -> Result<()> {
    if earlier.iter().all(CancellationToken::is_cancelled) {
        return Ok(());
    }
    context
        .journal
        .warn("waits for an earlier run of the same component, which lost its lease and has not ended");
    for run in earlier {
        tokio::select! {
            () = run.cancelled() => {}
            () = context.cancel.cancelled() => context.check_cancelled()?,
        }
    }
    Ok(())
}

/// Cancels the blocking work of the run, and waits until it has ended, however long that takes.
async fn threads_end(workers: &Workers, lease: &Lease, scope: &Scope, journal: &Journal) {
    let mut told = false;
    blocking::end_reporting(scope, workers.settings.cancel_grace, REPORT_EVERY, || {
        log::warn!(
            token:% = lease.token, epoch = lease.epoch;
            "a run keeps its task and its slot: its work on a blocking thread does not end; look for a disk or a mount \
             that hangs"
        );
        if !std::mem::replace(&mut told, true) {
            journal.warn("a file operation that had begun does not end; the task ends after it");
        }
    })
    .await;
}

/// The error with its chain of causes, for the administrator's log; the task's log has only the message. `None`
/// if the error has no cause, and for an invalid request, because its problems quote the descriptor.
fn for_administrators(error: &Error) -> Option<String> {
    let has_cause = std::error::Error::source(error).is_some();
    (has_cause && !matches!(error.kind(), Kind::Invalid(_))).then(|| error.report())
}

/// Writes the end of a run, and retries until the store responds.
async fn settle(workers: &Workers, lease: &Lease, settlement: Settlement) {
    let mut pause = Duration::from_millis(100);
    loop {
        match workers.store.settle(lease, settlement.clone()).await {
            Ok(Some(state)) => {
                if settlement.ending == Ending::Release && state == State::Queued {
                    workers.note_handed_back(lease.token);
                }
                log::info!(token:% = lease.token, state:% = state; "run ended");
                return;
            }
            Ok(None) => {
                log::warn!(token:% = lease.token, epoch = lease.epoch; "end of a run ignored: its lease was lost");
                return;
            }
            Err(error) if error.is_retryable() => {
                log::warn!(token:% = lease.token; "end of a run not written yet: {}", error.report());
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
            Err(error) => {
                log::error!(token:% = lease.token; "end of a run cannot be written: {}", error.report());
                return;
            }
        }
    }
}

/// Renews the lease until it is lost, and then returns. If the lease cannot be renewed, the run is cancelled
/// when a sixth of the lease is left.
async fn keep_lease(workers: &Workers, lease: &Lease, clock: &LeaseClock, interrupt: &Interrupt) {
    let length = workers.settings.lease;
    let mut next_beat = clock.end() - length + length / 3;
    loop {
        let give_up = clock.end() - length / 6;
        sleep_until(next_beat.min(give_up)).await;
        if Instant::now() >= give_up {
            interrupt.raise(Cause::Lease);
            sleep_until(clock.end()).await;
            return;
        }
        let asked = Instant::now();
        match timeout_at(give_up, workers.store.heartbeat(lease, length)).await {
            Ok(Ok(Some(state))) => {
                clock.extend(asked + length);
                next_beat = asked + length / 3;
                if state == State::Stopping {
                    interrupt.raise(Cause::Stop);
                }
            }
            Ok(Ok(None)) => {
                clock.extend(asked);
                interrupt.raise(Cause::Lease);
                return;
            }
            Ok(Err(error)) => {
                log::warn!(token:% = lease.token; "lease not extended yet: {}", error.report());
                next_beat = asked + length / 12;
            }
            Err(_) => {}
        }
    }
}

/// Writes log lines to the store. After the run has ended, returns the lines that are left, or `None` if the
/// lease is lost. If the store does not accept lines, the first `MAX_UNSHIPPED` are held, and one more line
/// reports how many others were dropped.
async fn ship_logs(
    workers: &Workers,
    lease: &Lease,
    journal: &Journal,
    interrupt: &Interrupt,
    ran: &CancellationToken,
) -> Option<Vec<LogLine>> {
    let mut held: Vec<LogLine> = Vec::new();
    let mut dropped = 0;
    loop {
        let ended = tokio::select! {
            () = ran.cancelled() => true,
            () = sleep(SHIP_EVERY) => false,
        };
        held.extend(journal.drain());
        dropped += bound(&mut held);
        let lines = || held.iter().cloned().chain(not_kept(dropped)).collect();
        if ended {
            return Some(lines());
        }
        if held.is_empty() {
            continue;
        }
        match workers.store.append_logs(lease, lines()).await {
            Ok(Some(state)) => {
                held.clear();
                dropped = 0;
                if state == State::Stopping {
                    interrupt.raise(Cause::Stop);
                }
            }
            Ok(None) => {
                interrupt.raise(Cause::Lease);
                return None;
            }
            Err(error) => log::warn!(token:% = lease.token; "log lines not kept yet: {}", error.report()),
        }
    }
}

/// Truncates `held` to `MAX_UNSHIPPED` lines, and returns the number of dropped lines.
fn bound(held: &mut Vec<LogLine>) -> usize {
    let dropped = held.len().saturating_sub(MAX_UNSHIPPED);
    held.truncate(MAX_UNSHIPPED);
    dropped
}

/// A log line with the number of dropped lines; `None` if none was dropped.
fn not_kept(dropped: usize) -> Option<LogLine> {
    let plural = if dropped == 1 { "line was" } else { "lines were" };
    let text = || format!("{dropped} {plural} not kept: the operation store did not take them in time");
    (dropped > 0).then(|| line(Level::Warning, text())).flatten()
}

/// Cancels the run when the process ends or the time limit is reached. Returns when the grace period after the
/// cancellation is over, also after a stop. Never returns if the lease is lost.
async fn watch(workers: &Workers, operation: Operation, interrupt: &Interrupt) {
    tokio::select! {
        () = workers.hand_back.cancelled() => interrupt.raise(Cause::Drain),
        () = sleep(workers.settings.run_limit(operation).0) => interrupt.raise(Cause::Overdue),
        () = interrupt.cancel.cancelled() => {}
    }
    if interrupt.cause() == Some(Cause::Lease) {
        // After the loss of the lease, `keep_lease` or `ship_logs` ends the run.
        std::future::pending::<()>().await;
    }
    sleep(workers.settings.cancel_grace).await;
}

/// The facts about a task that a decision needs.
#[derive(Debug, Clone, Copy)]
struct Facts {
    operation: Operation,
    /// Runs that were not lost to a crash, including this one.
    tries: u32,
    /// The time since the first transient failure; `None` if there was none before this run.
    failing_for: Option<Duration>,
    /// The duration of this run.
    ran_for: Duration,
    /// How many earlier runs in a row failed in the same way.
    repeats: u32,
}

impl Facts {
    fn of(task: &ClaimedTask) -> Self {
        Self {
            operation: task.operation,
            tries: task.attempt.saturating_sub(task.crashes).max(1),
            failing_for: task.failing_for,
            ran_for: Duration::ZERO,
            repeats: 0,
        }
    }

    /// The time since the first transient failure, which may be the failure of this run.
    fn elapsed(&self) -> Duration {
        self.failing_for.map_or(Duration::ZERO, |failing_for| failing_for.saturating_add(self.ran_for))
    }

    /// Whether the failure is written to the task's log: the first two times in a row, and then whenever
    /// `repeats` is a power of two.
    fn is_written(&self) -> bool {
        self.repeats <= 1 || self.repeats.is_power_of_two()
    }
}

/// Decides what happens to the task, and the last line of its log, if any. Pure: `fraction` (0 to 1) is the
/// jitter, and `now` is the time at which the run ended.
fn decide(
    ended: Ended,
    cause: Option<Cause>,
    facts: &Facts,
    settings: &Settings,
    fraction: f64,
    now: DateTime<Utc>,
) -> (Ending, Option<LogLine>) {
    let overdue = || {
        let (limit, key) = settings.run_limit(facts.operation);
        format!("the run exceeded the {} of {key}", spell(limit))
    };
    let RunError { error, outcome } = match ended {
        Ended::Returned(Ok(outcome)) => return (Ending::Succeed { outcome }, None),
        Ended::Returned(Err(error)) => error,
        Ended::Panicked => {
            return fail(
                None,
                "an internal error ended the operation; the administrator's log has more".to_owned(),
            );
        }
        Ended::Aborted => {
            return match cause {
                Some(Cause::Stop) => {
                    let grace = spell(settings.cancel_grace);
                    let text = format!(
                        "stopped: the work had not ended after the {grace} of operations.cancel_grace and was cut off"
                    );
                    (Ending::Stopped { outcome: None }, line(Level::Warning, text))
                }
                Some(Cause::Drain | Cause::Lease) => release(),
                Some(Cause::Overdue) | None => {
                    fail(None, format!("{} and did not end after it was cancelled", overdue()))
                }
            };
        }
    };
    match (error.kind(), cause) {
        (Kind::Cancelled, Some(Cause::Stop)) => {
            (Ending::Stopped { outcome }, line(Level::Info, format!("stopped: {error}")))
        }
        (Kind::Cancelled, Some(Cause::Drain | Cause::Lease)) => release(),
        (_, Some(Cause::Overdue)) => fail(outcome, overdue()),
        _ if error.is_retryable() && cause == Some(Cause::Stop) => {
            let reason = error.to_string();
            let closing = line(Level::Warning, format!("{reason}; not tried again, a stop was requested"));
            (Ending::Retry { after: Duration::ZERO, outcome, reason }, closing)
        }
        _ if error.is_retryable() => {
            let left = settings.retry_for.saturating_sub(facts.elapsed());
            if left.is_zero() {
                let plural = if facts.tries == 1 { "attempt" } else { "attempts" };
                let (elapsed, budget) = (spell(facts.elapsed()), spell(settings.retry_for));
                return fail(
                    outcome,
                    format!(
                        "{error}; given up after {} {plural} in {elapsed}, past the {budget} of operations.retry_for",
                        facts.tries
                    ),
                );
            }
            let asked_for = error.retry_after().unwrap_or_default();
            // The wait ends at the end of the retry time, with the last retry.
            let after = backoff(facts.tries, settings, fraction).max(asked_for).min(left);
            let closing = if facts.is_written() {
                let again = match facts.repeats {
                    0 => String::new(),
                    repeats => format!(" ({} times in a row)", repeats.saturating_add(1)),
                };
                let (wait, end) = (spell(after), moment(now, left));
                line(
                    Level::Warning,
                    format!("{error}{again}; trying again in {wait}, until {end} (operations.retry_for)"),
                )
            } else {
                None
            };
            (Ending::Retry { after, outcome, reason: error.to_string() }, closing)
        }
        _ => {
            let (ending, closing) = fail(outcome, error.to_string());
            match error.kind() {
                // The remedies follow.
                Kind::Invalid(problems) if problems.len() == 1 => {
                    (ending, problems.first().and_then(|one| line(Level::Error, one.with_remedy())))
                }
                _ => (ending, closing),
            }
        }
    }
}

fn fail(outcome: Option<Value>, reason: String) -> (Ending, Option<LogLine>) {
    let closing = line(Level::Error, reason.clone());
    (Ending::Fail { outcome, reason }, closing)
}

fn release() -> (Ending, Option<LogLine>) {
    (Ending::Release, line(Level::Info, "handed over: the process that ran it ends".to_owned()))
}

/// A line in the form that a journal stores: one line of limited length.
fn line(level: Level, message: String) -> Option<LogLine> {
    let journal = Journal::default();
    journal.log(level, message);
    journal.drain().pop()
}

/// The wait before the next attempt: doubles with each try from `backoff_base` up to `backoff_cap`. `fraction`
/// (0 to 1) reduces it to between half and all of that, so that tasks that failed together are not retried
/// together.
fn backoff(tries: u32, settings: &Settings, fraction: f64) -> Duration {
    let doublings = tries.saturating_sub(1).min(20);
    let ceiling = settings.backoff_base.saturating_mul(1 << doublings).min(settings.backoff_cap);
    ceiling.mul_f64(0.5 + fraction.clamp(0.0, 1.0) / 2.0)
}

/// The time `from_now` after `now` as text: `12:34:56 UTC`, with the date if it is on another day. A time that
/// is too far away becomes `it succeeds`.
fn moment(now: DateTime<Utc>, from_now: Duration) -> String {
    let then = chrono::Duration::from_std(from_now).ok().and_then(|wait| now.checked_add_signed(wait));
    match then {
        Some(then) if then.date_naive() == now.date_naive() => then.format("%H:%M:%S UTC").to_string(),
        Some(then) => then.format("%Y-%m-%d %H:%M:%S UTC").to_string(),
        None => "it succeeds".to_owned(),
    }
}

/// A duration for users: `20 ms`, `0.4 s`, `25 s`.
fn spell(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if (1..100).contains(&time.as_millis()) {
        format!("{} ms", time.as_millis())
    } else if time < Duration::from_secs(10) && time.subsec_millis() != 0 {
        format!("{seconds:.1} s")
    } else {
        format!("{seconds:.0} s")
    }
}

fn random_fraction() -> f64 {
    // 53 random bits fill a double. The low end of a version 4 UUID is all random.
    let bits = (Uuid::new_v4().as_u128() & ((1 << 53) - 1)) as u64;
    bits as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn returned(error: Error) -> Ended {
        Ended::Returned(Err(RunError { error, outcome: Some(json!("said")) }))
    }

    fn decided(ended: Ended, cause: Option<Cause>, tries: u32) -> Ending {
        decide(ended, cause, &facts(tries, 25), &Settings::default(), 1.0, noon()).0
    }

    fn facts(tries: u32, seconds: u64) -> Facts {
        Facts {
            operation: Operation::Provision,
            tries,
            failing_for: Some(Duration::from_secs(seconds)),
            ran_for: Duration::ZERO,
            repeats: 0,
        }
    }

    fn noon() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_014_400, 0).unwrap()
    }

    fn said(closing: Option<LogLine>) -> String {
        closing.map(|line| line.message).unwrap_or_default()
    }

    fn failed(reason: &str) -> Ending {
        Ending::Fail { outcome: Some(json!("said")), reason: reason.to_owned() }
    }

    #[test]
    fn only_administrators_see_causes_of_errors() {
        let disk_full = Error::retryable("cannot create the bucket").because("no space left on device");
        assert_eq!(
            for_administrators(&disk_full).as_deref(),
            Some("cannot create the bucket: no space left on device")
        );
        assert_eq!(for_administrators(&Error::conflict("it has another owner")), None);
        let quoted = Error::invalid(vec![
            landfall_adapter::descriptor::Problem::new("name", "is odd").value("secret"),
        ]);
        assert_eq!(for_administrators(&quoted.because("secret")), None);
    }

    #[test]
    fn finished_work_completes_despite_a_cancellation() {
        for cause in [None, Some(Cause::Stop), Some(Cause::Drain), Some(Cause::Overdue), Some(Cause::Lease)] {
            let ending = decided(Ended::Returned(Ok(json!(1))), cause, 1);
            assert_eq!(ending, Ending::Succeed { outcome: json!(1) }, "{cause:?}");
        }
    }

    #[test]
    fn cancelled_run_ends_as_its_cause_requires() {
        let cancelled = || returned(Error::cancelled("stopped on request"));
        let stopped = Ending::Stopped { outcome: Some(json!("said")) };
        assert_eq!(decided(cancelled(), Some(Cause::Stop), 1), stopped);
        assert_eq!(decided(cancelled(), Some(Cause::Drain), 1), Ending::Release);
        assert_eq!(decided(cancelled(), Some(Cause::Overdue), 1).event(), super::super::Event::Fail);
        // The run gave up without a cancellation.
        assert_eq!(decided(cancelled(), None, 1), failed("stopped on request"));
    }

    #[test]
    fn retries_a_transient_failure() {
        let busy = || returned(Error::retryable("busy"));
        for (tries, seconds) in [(1, 1), (2, 2), (6, 32), (500, 60)] {
            let again = Ending::Retry {
                after: Duration::from_secs(seconds),
                outcome: Some(json!("said")),
                reason: "busy".to_owned(),
            };
            assert_eq!(decided(busy(), None, tries), again);
            assert_eq!(decided(busy(), Some(Cause::Drain), tries), again);
        }
        assert_eq!(decided(returned(Error::overloaded("full")), None, 1).event(), Event::Retry);
    }

    #[test]
    fn wait_is_the_longer_of_retry_after_and_backoff() {
        let settings = Settings::default();
        for (asked, waits, text) in [(0, 1, "1 s"), (90, 90, "90 s")] {
            let error = Error::retryable("busy").after(Duration::from_secs(asked));
            let first = Facts { failing_for: None, ran_for: Duration::from_secs(5000), ..facts(1, 0) };
            let (ending, closing) = decide(returned(error), None, &first, &settings, 1.0, noon());
            let Ending::Retry { after, .. } = ending else { panic!("{ending:?}") };
            assert_eq!(after, Duration::from_secs(waits));
            assert_eq!(
                said(closing),
                format!("busy; trying again in {text}, until 13:00:00 UTC (operations.retry_for)"),
                "how long the first run took is not how long it fails"
            );
        }
    }

    #[test]
    fn last_attempt_is_at_the_end_of_the_retry_time() {
        let settings = Settings { retry_for: Duration::from_secs(60), ..Settings::default() };
        let after = |tries, elapsed: u64, hint| {
            let error = Error::retryable("busy").after(Duration::from_secs(hint));
            let facts = Facts { ran_for: Duration::from_secs(2), ..facts(tries, elapsed - 2) };
            let (ending, closing) = decide(returned(error), None, &facts, &settings, 1.0, noon());
            (ending.event(), said(closing))
        };
        let again =
            |text: &str| (Event::Retry, format!("busy; trying again in {text} (operations.retry_for)"));
        assert_eq!(after(5, 40, 0), again("16 s, until 12:00:20 UTC"));
        assert_eq!(after(5, 57, 0), again("3 s, until 12:00:03 UTC"));
        assert_eq!(after(1, 50, 300), again("10 s, until 12:00:10 UTC"));
        let given_up = "busy; given up after 9 attempts in 60 s, past the 60 s of operations.retry_for";
        assert_eq!(after(9, 60, 0), (Event::Fail, given_up.to_owned()));
        let given_up = "busy; given up after 1 attempt in 75 s, past the 60 s of operations.retry_for";
        assert_eq!(after(1, 75, 0), (Event::Fail, given_up.to_owned()));
    }

    #[test]
    fn an_end_on_another_day_has_a_date() {
        assert_eq!(moment(noon(), Duration::from_secs(86_400)), "2027-01-16 12:00:00 UTC");
        assert_eq!(moment(noon(), Duration::MAX), "it succeeds");
    }

    /// Simulates retries with the default settings until `end(attempt, seconds since the start)` is true or the
    /// task fails. Returns the start of each attempt in seconds, the log lines and the ending.
    fn outage(mut end: impl FnMut(u32, u64) -> bool) -> (Vec<f64>, Vec<String>, Ending) {
        let (mut at, mut tries, mut lines) = (0.0, vec![0.0], Vec::new());
        for number in 1.. {
            let facts = Facts {
                operation: Operation::Provision,
                tries: number,
                failing_for: (number > 1).then(|| Duration::from_secs_f64(at)),
                ran_for: Duration::ZERO,
                repeats: number - 1,
            };
            let away = !end(number, at as u64);
            let ended = if away { returned(Error::retryable("away")) } else { Ended::Returned(Ok(json!(1))) };
            let (ending, closing) =
                decide(ended, None, &facts, &Settings::default(), random_fraction(), noon());
            lines.extend(closing.map(|line| line.message));
            let Ending::Retry { after, .. } = ending else { return (tries, lines, ending) };
            at += after.as_secs_f64();
            tries.push(at);
        }
        unreachable!("it is tried for ever")
    }

    #[test]
    fn outage_of_five_minutes_fails_nothing() {
        for _ in 0..100 {
            let (tries, lines, ending) = outage(|_, seconds| seconds >= 300);
            assert_eq!(ending, Ending::Succeed { outcome: json!(1) });
            assert!(*tries.last().unwrap() <= 361.0, "within a minute of its return: {tries:?}");
            assert!(lines.len() <= 6, "{lines:?}");
        }
    }

    #[test]
    fn outage_without_end_uses_the_whole_time_for_retries() {
        for _ in 0..100 {
            let (tries, lines, ending) = outage(|_, _| false);
            assert_eq!(ending.event(), Event::Fail);
            assert!((tries.last().unwrap() - 3600.0).abs() < 0.001, "{tries:?}");
            assert!((60..=130).contains(&tries.len()), "{}", tries.len());
            assert!(tries.windows(2).take(3).all(|pair| pair[1] - pair[0] >= 0.5), "no hammering: {tries:?}");
            // Attempts 1, 2, 3, 5, ... and the last one.
            assert!(lines.len() <= 10, "{lines:?}");
            assert!(lines[3].starts_with("away (5 times in a row); trying again in "), "{lines:?}");
            assert!(lines.last().unwrap().starts_with("away; given up after "), "{lines:?}");
        }
    }

    #[test]
    fn lines_that_are_dropped_are_counted() {
        let journal = Journal::default();
        let mut held = Vec::new();
        let mut dropped = 0;
        for number in 0..MAX_UNSHIPPED + 3 {
            journal.info(format!("line {number}"));
            held.extend(journal.drain());
            dropped += bound(&mut held);
        }
        assert_eq!((held.len(), held.last().unwrap().message.as_str()), (MAX_UNSHIPPED, "line 1999"));
        assert_eq!(
            said(not_kept(dropped)),
            "3 lines were not kept: the operation store did not take them in time"
        );
        assert_eq!(not_kept(0), None);
    }

    #[test]
    fn a_run_that_takes_too_long_names_the_limit_that_it_met() {
        let mut settings = Settings::default();
        let reason = |settings: &Settings| {
            let ended = returned(Error::cancelled("stopped on request"));
            said(decide(ended, Some(Cause::Overdue), &facts(1, 0), settings, 1.0, noon()).1)
        };
        settings.run_limits.insert(Operation::Unprovision, Duration::from_secs(60));
        assert_eq!(reason(&settings), "the run exceeded the 1800 s of operations.run_limit");
        settings.run_limits.insert(Operation::Provision, Duration::from_secs(7200));
        assert_eq!(reason(&settings), "the run exceeded the 7200 s of operations.run_limits.provision");
    }

    #[test]
    fn durations_are_displayed_in_short_form() {
        let spelt = [0, 40, 400, 2_000, 9_940, 25_000, 25_600].map(|ms| spell(Duration::from_millis(ms)));
        assert_eq!(spelt, ["0 s", "40 ms", "0.4 s", "2 s", "9.9 s", "25 s", "26 s"]);
    }

    #[test]
    fn permanent_errors_panics_and_long_runs_fail() {
        let errors: [fn() -> Error; 3] =
            [|| Error::permanent("no"), || Error::conflict("no"), || Error::unsupported("no")];
        for error in errors {
            for cause in [None, Some(Cause::Stop), Some(Cause::Drain)] {
                assert_eq!(decided(returned(error()), cause, 1), failed("no"));
            }
        }
        assert_eq!(decided(Ended::Panicked, None, 1).event(), super::super::Event::Fail);
    }

    #[test]
    fn dropped_run_ends_as_its_cause_requires() {
        let cut_off =
            |cause| decide(Ended::Aborted, Some(cause), &facts(1, 0), &Settings::default(), 1.0, noon());
        let overdue =
            "the run exceeded the 1800 s of operations.run_limit and did not end after it was cancelled";
        assert_eq!(cut_off(Cause::Overdue).0, Ending::Fail { outcome: None, reason: overdue.to_owned() });
        assert_eq!(cut_off(Cause::Drain).0, Ending::Release);
        let (ending, closing) = cut_off(Cause::Stop);
        assert_eq!(ending, Ending::Stopped { outcome: None });
        assert_eq!(
            said(closing),
            "stopped: the work had not ended after the 10 s of operations.cancel_grace and was cut off"
        );
    }

    #[test]
    fn first_cause_wins_and_stop_precedes_drain() {
        use Cause::*;
        for (causes, stands) in [
            ([Stop, Drain], Stop),
            ([Drain, Stop], Stop),
            ([Stop, Overdue], Stop),
            ([Overdue, Stop], Overdue),
            ([Overdue, Drain], Overdue),
            ([Drain, Lease], Drain),
            ([Lease, Stop], Lease),
        ] {
            let interrupt = Interrupt::new(CancellationToken::new());
            causes.into_iter().for_each(|cause| interrupt.raise(cause));
            assert_eq!(interrupt.cause(), Some(stands), "{causes:?}");
        }
    }

    #[test]
    fn backoff_grows_to_its_cap_with_jitter() {
        let settings = Settings::default();
        let wait = |tries, fraction| backoff(tries, &settings, fraction).as_secs();
        assert_eq!([1, 2, 3, 6, 7, 8, 1000].map(|tries| wait(tries, 1.0)), [1, 2, 4, 32, 60, 60, 60]);
        assert_eq!(wait(7, 0.5), 45);
        assert_eq!(wait(7, 0.0), 30, "never less than half");
        let fractions: Vec<f64> = (0..100).map(|_| random_fraction()).collect();
        assert!(fractions.iter().all(|fraction| (0.0..1.0).contains(fraction)));
        assert!(fractions.iter().any(|f| *f < 0.3) && fractions.iter().any(|f| *f > 0.7));
    }

    #[test]
    fn crashes_do_not_count_as_attempts() {
        let facts = |attempt, crashes| {
            let token = super::super::Token::random();
            Facts::of(&ClaimedTask {
                token,
                operation: Operation::Provision,
                components: vec![],
                payload: Value::Null,
                attempt,
                crashes,
                failing_for: None,
                lease: Lease { token, epoch: 1, owner: String::new() },
            })
            .tries
        };
        assert_eq!([facts(1, 0), facts(4, 1), facts(3, 2)], [1, 3, 1]);
    }
}
