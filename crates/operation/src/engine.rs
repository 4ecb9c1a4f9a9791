//! The public interface of the engine, and its workers.
//!
//! Each lane has a dispatcher. It claims as many tasks as it has free slots, and spawns a run for each. It
//! looks for tasks after a notification, when a slot becomes free, when the next task becomes due, and at a
//! fixed interval. Polling alone would find every task; notifications only make it faster. A sweeper takes
//! tasks from lost workers and deletes old ones. Everything ends when the engine is dropped; running work is
//! then in the same state as after a kill of the process.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use uuid::Uuid;

use super::health::{Health, Probe, Watch};
use super::operation::{Lane, Operation};
use super::repeats::Repeats;
use super::store::{ClaimRequest, Claims, Hint, StopScope, Store, Submission};
use super::task::{ClaimedTask, ComponentKey, Counts, Deployment, NewTask, Submitted, Task, Token};
use super::worker::{Cause, Interrupt, Runner, work};
use landfall_adapter::descriptor::Problem;
use landfall_adapter::error::{Error, Result};

/// How often old tasks are deleted, and the pause between two batches.
const PURGE_EVERY: Duration = Duration::from_secs(60);
const PURGE_PAUSE: Duration = Duration::from_millis(50);
/// The maximum number of calls of [`Store::tidy`] after a purge; the remaining steps follow after the next
/// purge.
const MOST_TIDYING: u32 = 500;
/// The longest pause between two claims while the store does not respond.
const MAX_CLAIM_PAUSE: Duration = Duration::from_secs(10);

/// Settings of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Tasks of [`Lane::Change`] that run at once in this process.
    pub concurrency: usize,
    /// Tasks of [`Lane::Validation`] that run at once.
    pub validation_concurrency: usize,
    /// Tasks of [`Lane::Import`] that run at once.
    pub import_concurrency: usize,
    /// How long a worker keeps a task without a heartbeat. The worker sends one after each third of it.
    pub lease: Duration,
    /// How often the engine looks for work without a notification.
    pub poll: Duration,
    /// The longest wait before the second attempt; it doubles with each further attempt.
    pub backoff_base: Duration,
    /// The longest wait before any attempt, unless the error requests a longer one.
    pub backoff_cap: Duration,
    /// How long a task is retried after its first transient failure.
    pub retry_for: Duration,
    /// The longest run; after that it is cancelled, and the task fails.
    pub run_limit: Duration,
    /// The longest run of operations that have their own limit.
    pub run_limits: HashMap<Operation, Duration>,
    /// How long a run may take to end after a stop, at its time limit or when the process ends; then it is dropped.
    pub cancel_grace: Duration,
    /// How long the store may take to write a row for a health check.
    pub health_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            concurrency: 8,
            validation_concurrency: 2,
            import_concurrency: 2,
            lease: Duration::from_secs(30),
            poll: Duration::from_secs(1),
            backoff_base: Duration::from_secs(1),
            backoff_cap: Duration::from_secs(60),
            retry_for: Duration::from_secs(3600),
            run_limit: Duration::from_secs(30 * 60),
            run_limits: HashMap::new(),
            cancel_grace: Duration::from_secs(10),
            health_timeout: Duration::from_secs(5),
        }
    }
}

impl Settings {
    fn slots(&self, lane: Lane) -> usize {
        match lane {
            Lane::Change => self.concurrency,
            Lane::Validation => self.validation_concurrency,
            Lane::Import => self.import_concurrency,
        }
    }

    /// The longest run of an operation, and its configuration key.
    pub(super) fn run_limit(&self, operation: Operation) -> (Duration, &'static str) {
        let Some(own) = self.run_limits.get(&operation) else {
            return (self.run_limit, "operations.run_limit");
        };
        (*own, operation.description().run_limit)
    }
}

/// The result of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Tasks that went back to the queue, because their run did not end within the grace period.
    pub handed_back: usize,
}

/// Runs accepted tasks; see the documentation of the crate.
pub struct Engine {
    workers: Arc<Workers>,
    /// The dispatchers; they end after a drain.
    dispatchers: TaskTracker,
    /// Dropping them ends all work of the engine.
    _background: Vec<AbortOnDropHandle<()>>,
}

impl Engine {
    /// Starts the engine. Must be called inside a tokio runtime.
    pub fn start(store: Arc<dyn Store>, runner: Arc<dyn Runner>, mut settings: Settings) -> Self {
        settings.lease = settings.lease.clamp(Duration::from_millis(10), Duration::from_secs(24 * 3600));
        let workers = Arc::new(Workers {
            store,
            runner,
            settings,
            worker: worker_name(),
            running: Mutex::default(),
            repeats: Repeats::default(),
            runs: Mutex::default(),
            waiting: Mutex::default(),
            wake: Lane::ALL.map(|lane| (lane, Notify::new())),
            no_more_claims: CancellationToken::new(),
            hand_back: CancellationToken::new(),
            hand_back_since: OnceLock::new(),
            handed_back: Mutex::default(),
            probe: Probe::new(),
            watch: Watch::default(),
        });
        let dispatchers = TaskTracker::new();
        // Subscribe before the first claim, so that no notification is missed.
        let hints = workers.store.hints();
        let mut background = vec![
            AbortOnDropHandle::new(tokio::spawn(relay(Arc::clone(&workers), hints))),
            AbortOnDropHandle::new(tokio::spawn(sweep(Arc::clone(&workers)))),
        ];
        background.extend(
            Lane::ALL
                .map(|lane| AbortOnDropHandle::new(dispatchers.spawn(dispatch(Arc::clone(&workers), lane)))),
        );
        dispatchers.close();
        Self { workers, dispatchers, _background: background }
    }

    /// Accepts a task. When this returns, the task is on disk; it is also accepted if the caller stops waiting.
    ///
    /// Returns [`landfall_adapter::error::Kind::Overloaded`] if the queue is full, and
    /// [`landfall_adapter::error::Kind::Retryable`] if the store does not respond. In the second case the task may
    /// have been accepted, and submitting it again is safe.
    pub async fn submit(&self, task: NewTask) -> Result<Submitted> {
        for key in &task.components {
            if key.component.contains('\0') || key.environment.contains('\0') {
                return Err(Error::invalid(vec![Problem::new(
                    "",
                    "the component id or the environment contains a NUL character",
                )]));
            }
        }
        let operation = task.operation;
        let submission = Submission { token: Token::random(), task };
        let submitted = self.workers.store.submit(submission).await?;
        log::info!(
            token:% = submitted.token, operation:% = operation, deduplicated = submitted.deduplicated; "accepted"
        );
        Ok(submitted)
    }

    /// The current task with its log; `None` if it is unknown or was deleted.
    pub async fn task(&self, token: &Token) -> Result<Option<Task>> {
        self.workers.store.task(token).await
    }

    /// Waits until the task has ended, at most for `patience`, and returns the task; `None` if the token is
    /// unknown.
    pub async fn wait(&self, token: &Token, patience: Duration) -> Result<Option<Task>> {
        const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
        let deadline = Instant::now() + patience.min(FOREVER);
        let waiter = self.workers.await_end(*token);
        loop {
            let mut ended = std::pin::pin!(waiter.notify.notified());
            // Subscribe before the state is read, so that an end in between is not missed.
            ended.as_mut().enable();
            match self.workers.store.state(token).await? {
                None => return Ok(None),
                Some(state) if state.is_terminal() || Instant::now() >= deadline => {
                    return self.task(token).await;
                }
                Some(_) => {}
            }
            tokio::select! {
                () = ended => {}
                () = sleep_until(deadline.min(Instant::now() + self.workers.settings.poll)) => {}
            }
        }
    }

    /// Requests a stop, and returns the task after the request. A task that has ended, or that is outside the scope,
    /// does not change.
    pub async fn stop(&self, token: &Token, scope: StopScope) -> Result<Option<Task>> {
        match self.workers.store.request_stop(token, scope).await? {
            None => Ok(None),
            Some(state) => {
                log::info!(token:% = token, state:% = state; "stop requested");
                self.task(token).await
            }
        }
    }

    /// How many tasks wait and run.
    pub async fn counts(&self) -> Result<Counts> {
        self.workers.store.counts().await
    }

    /// Whether the engine can accept and run operations.
    pub async fn health(&self) -> Health {
        let Workers { store, settings, probe, watch, .. } = &*self.workers;
        let stuck_after = (settings.lease * 2).max(settings.poll * 10);
        Health {
            store: probe.ask(store, settings.health_timeout).await,
            stuck: watch.stuck(stuck_after, Instant::now()),
        }
    }

    /// The stored deployment of a component.
    pub async fn deployment(&self, key: &ComponentKey) -> Result<Option<Deployment>> {
        self.workers.store.deployment(key).await
    }

    /// Claims no more tasks, waits up to `grace` for running ones, and returns the others to the queue. Tasks that
    /// are submitted in the meantime stay for the next process. Leases are renewed until the end.
    pub async fn drain(&self, grace: Duration) -> Drained {
        self.workers.no_more_claims.cancel();
        if timeout(grace, self.dispatchers.wait()).await.is_err() {
            self.workers.hand_back_since.get_or_init(Instant::now);
            self.workers.hand_back.cancel();
            self.dispatchers.wait().await;
        }
        let handed_back = self.workers.handed_back.lock().unwrap_or_else(PoisonError::into_inner).len();
        Drained { handed_back }
    }
}

/// The name of the worker: "landfall-7f9c/12-4d1e...", with the machine or pod, the process id, and a unique part.
fn worker_name() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_default();
    let host = if host.is_empty() { "localhost" } else { &host };
    format!("{host}/{}-{}", std::process::id(), Uuid::new_v4().simple())
}

/// State that the parts of an engine share.
pub(super) struct Workers {
    pub(super) store: Arc<dyn Store>,
    pub(super) runner: Arc<dyn Runner>,
    pub(super) settings: Settings,
    /// The name of this process in leases.
    worker: String,
    running: Mutex<HashMap<Token, Arc<Interrupt>>>,
    /// The last failure of each retried task, so that its log does not repeat the same failure each time.
    pub(super) repeats: Repeats,
    /// Each run with its components, and a token that fires when it has ended.
    runs: Mutex<Vec<(Vec<ComponentKey>, CancellationToken)>>,
    waiting: Mutex<HashMap<Token, (usize, Arc<Notify>)>>,
    wake: [(Lane, Notify); Lane::ALL.len()],
    no_more_claims: CancellationToken,
    /// Fires when running work must go back to the queue.
    pub(super) hand_back: CancellationToken,
    hand_back_since: OnceLock<Instant>,
    /// Tasks that went back to the queue. A set of tasks and not a number of runs, because a claim that was in
    /// progress when the drain began may start one of them again.
    handed_back: Mutex<HashSet<Token>>,
    probe: Probe,
    watch: Watch,
}

impl Workers {
    /// Registers a run, so that it can be stopped and later runs of its components can wait for it, until the guard
    /// is dropped.
    pub(super) fn register(&self, task: &ClaimedTask, interrupt: &Arc<Interrupt>) -> Registered<'_> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.insert(task.token, Arc::clone(interrupt));
        drop(running);
        let over = CancellationToken::new();
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let shares = |components: &[ComponentKey]| components.iter().any(|key| task.components.contains(key));
        let earlier =
            runs.iter().filter(|(components, _)| shares(components)).map(|(_, over)| over.clone()).collect();
        runs.push((task.components.clone(), over.clone()));
        Registered { workers: self, token: task.token, interrupt: Arc::clone(interrupt), over, earlier }
    }

    /// Completes when a drain no longer waits for running work: `cancel_grace` after the hand-back began.
    pub(super) async fn drain_is_over(&self) {
        self.hand_back.cancelled().await;
        let since = self.hand_back_since.get().copied().unwrap_or_else(Instant::now);
        sleep_until(since + self.settings.cancel_grace).await;
    }

    pub(super) fn note_handed_back(&self, token: Token) {
        self.handed_back.lock().unwrap_or_else(PoisonError::into_inner).insert(token);
    }

    fn await_end(&self, token: Token) -> Waiter<'_> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, notify) = waiting.entry(token).or_default();
        *count += 1;
        Waiter { workers: self, token, notify: Arc::clone(notify) }
    }

    fn interrupt(&self, token: &Token, cause: Cause) {
        let interrupt = self.running.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned();
        if let Some(interrupt) = interrupt {
            interrupt.raise(cause);
        }
    }

    fn announce_end(&self, token: &Token) {
        if let Some((_, notify)) = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).get(token) {
            notify.notify_waiters();
        }
    }

    fn announce_all_ends(&self) {
        for (_, notify) in self.waiting.lock().unwrap_or_else(PoisonError::into_inner).values() {
            notify.notify_waiters();
        }
    }

    fn wake(&self, lane: Lane) {
        for (_, notify) in self.wake.iter().filter(|(of, _)| *of == lane) {
            notify.notify_one();
        }
    }

    fn wake_all(&self) {
        for (_, notify) in &self.wake {
            notify.notify_one();
        }
    }

    async fn woken(&self, lane: Lane) {
        for (_, notify) in self.wake.iter().filter(|(of, _)| *of == lane) {
            notify.notified().await;
        }
    }
}

/// Keeps a run registered.
pub(super) struct Registered<'c> {
    workers: &'c Workers,
    token: Token,
    interrupt: Arc<Interrupt>,
    over: CancellationToken,
    earlier: Vec<CancellationToken>,
}

impl Registered<'_> {
    /// The end tokens of earlier runs of the same components in this process. There is such a run only if it lost its
    /// lease.
    pub(super) fn earlier(&self) -> Vec<CancellationToken> {
        self.earlier.clone()
    }

    /// Records that the work of the run has ended. Call this before the end is written to the store, because
    /// the next run of the components may start right after that write.
    pub(super) fn work_has_ended(&self) {
        self.over.cancel();
        self.workers
            .runs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(_, over)| !over.is_cancelled());
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.work_has_ended();
        let mut running = self.workers.running.lock().unwrap_or_else(PoisonError::into_inner);
        // A later run of the same task may have replaced the entry.
        if running.get(&self.token).is_some_and(|current| Arc::ptr_eq(current, &self.interrupt)) {
            running.remove(&self.token);
        }
    }
}

/// Keeps the registration of a caller that waits for the end of a task.
struct Waiter<'c> {
    workers: &'c Workers,
    token: Token,
    notify: Arc<Notify>,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.workers.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((count, _)) = waiting.get_mut(&self.token) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.token);
            }
        }
    }
}

/// Forwards notifications of commits.
async fn relay(workers: Arc<Workers>, mut hints: tokio::sync::broadcast::Receiver<Hint>) {
    loop {
        match hints.recv().await {
            Ok(Hint::Queued(lane)) => workers.wake(lane),
            Ok(Hint::Stop(token)) => workers.interrupt(&token, Cause::Stop),
            Ok(Hint::Finished(token)) => {
                workers.announce_end(&token);
                workers.wake_all();
            }
            // Some notifications were missed, so anything may have happened. The next heartbeat finds a missed stop.
            Ok(Hint::Anything) | Err(RecvError::Lagged(_)) => {
                workers.announce_all_ends();
                workers.wake_all();
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// Keeps the slots of a lane busy until the engine drains, then waits until they are free.
async fn dispatch(workers: Arc<Workers>, lane: Lane) {
    let slots = workers.settings.slots(lane).max(1);
    let mut runs = JoinSet::new();
    let mut failures = 0u32;
    loop {
        let draining = workers.no_more_claims.is_cancelled();
        if draining && runs.is_empty() {
            return;
        }
        let free = slots.saturating_sub(runs.len());
        let mut nap = workers.settings.poll;
        workers.watch.note_slots(lane, free > 0 && !draining, Instant::now());
        if free > 0 && !draining {
            let claimed_at = Instant::now();
            let request = ClaimRequest {
                lane,
                worker: workers.worker.clone(),
                lease: workers.settings.lease,
                limit: free,
            };
            match workers.store.claim(&request).await {
                Ok(Claims { tasks, next_due }) => {
                    failures = 0;
                    for task in tasks {
                        runs.spawn(work(Arc::clone(&workers), task, claimed_at));
                    }
                    nap = next_due.map_or(nap, |due| due.min(nap));
                }
                Err(error) => {
                    log::error!(lane = lane.as_str(); "no work can be claimed: {}", error.report());
                    failures = failures.saturating_add(1);
                    nap = nap.saturating_mul(1 << failures.min(10)).min(MAX_CLAIM_PAUSE);
                }
            }
        }
        let full = runs.len() >= slots;
        tokio::select! {
            Some(ended) = runs.join_next() => {
                if let Err(error) = ended {
                    log::error!(lane = lane.as_str(); "a worker ended abnormally: {error}");
                }
            }
            () = workers.woken(lane), if !full => {}
            () = workers.no_more_claims.cancelled(), if !draining => {}
            () = sleep(nap), if !full => {}
        }
    }
}

/// Takes tasks from lost workers, and deletes old ones.
async fn sweep(workers: Arc<Workers>) {
    let pace = (workers.settings.lease / 3).max(Duration::from_millis(10));
    let mut purged_at: Option<Instant> = None;
    loop {
        match workers.store.expire_leases().await {
            Ok(expired) if expired.is_empty() => {}
            Ok(expired) => {
                for one in expired {
                    log::warn!(
                        token:% = one.token, state:% = one.state, crashes = one.crashes; "a run lost its worker"
                    );
                }
                // One call ends only a limited number of leases.
                continue;
            }
            Err(error) => log::error!("lost workers cannot be looked for: {}", error.report()),
        }
        if let Ok(due) = workers.store.due(&workers.worker).await {
            workers.watch.note_due(&due, Instant::now());
        }
        if purged_at.is_none_or(|at| at.elapsed() >= PURGE_EVERY) {
            purge(&workers).await;
            purged_at = Some(Instant::now());
        }
        sleep(pace).await;
    }
}

async fn purge(workers: &Workers) {
    loop {
        match workers.store.purge().await {
            Ok(0) => break,
            Ok(_) => sleep(PURGE_PAUSE).await,
            Err(error) => {
                log::error!("old operations cannot be collected: {}", error.report());
                return;
            }
        }
    }
    for _ in 0..MOST_TIDYING {
        match workers.store.tidy().await {
            Ok(false) => return,
            Ok(true) => sleep(PURGE_PAUSE).await,
            Err(error) => {
                log::warn!("the operation store cannot be tidied: {}", error.report());
                return;
            }
        }
    }
}
