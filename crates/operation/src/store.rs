//! The interface between the engine and a database. More than one database can implement it.
//!
//! A store makes every call one transaction, decides about states with [`super::transition`] alone, and uses its own
//! clock: no caller passes the current time. Only a store can enforce what the engine promises, so the promises are
//! listed here, and one test suite (`suite.rs`) checks them for every store:
//!
//! - when [`Queue::submit`] returns, the task is on disk;
//! - while a request is in flight and no later request concerns its components, the same request gets the same token;
//! - a component is never under two leases at once, and its tasks are claimed in the order of submission;
//! - a write under a lease that is no longer the task's current one changes nothing, and the result reports that;
//! - a terminal task never changes, until it is purged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::broadcast;

use super::operation::Lane;
use super::state::{Event, State};
use super::task::{ClaimedTask, ComponentKey, Counts, Deployment, Lease, NewTask, Submitted, Task, Token};
use crate::topology::{Attributes, Edit, Instance, TopologyLimits};
use landfall_adapter::LogLine;
use landfall_adapter::error::Result;

/// Tasks and their logs.
///
/// Errors are [`landfall_adapter::error::Kind::Retryable`] when the database does not answer,
/// [`landfall_adapter::error::Kind::Overloaded`] when the queue is full and
/// [`landfall_adapter::error::Kind::Permanent`] when a row is not valid. The other traits of this module have the
/// same errors.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Stores a task durably and returns its token. If the same request is in flight and still decides the
    /// state of its components, no task is stored, and the result has the token of the earlier task.
    async fn submit(&self, submission: Submission) -> Result<Submitted>;

    /// The task and its log, both read at the same moment; `None` for an unknown token.
    async fn task(&self, token: &Token) -> Result<Option<Task>>;

    /// The state of a task; `None` for an unknown token.
    async fn state(&self, token: &Token) -> Result<Option<State>>;

    /// Leases the oldest due tasks of a lane that have no earlier task to wait for.
    async fn claim(&self, request: &ClaimRequest) -> Result<Claims>;

    /// Extends the lease until `extension` from now. Returns the state of the task ([`State::Stopping`] when a
    /// stop was requested), or `None` when the lease is lost.
    async fn heartbeat(&self, lease: &Lease, extension: Duration) -> Result<Option<State>>;

    /// Adds lines to the task's log. Returns the state of the task, or `None` when the lease is lost; then
    /// nothing is written.
    async fn append_logs(&self, lease: &Lease, lines: Vec<LogLine>) -> Result<Option<State>>;

    /// Ends a run: writes the last log lines, the new state and the data of the ending in one transaction. Returns
    /// the new state, or `None` when the lease is lost; then nothing is written.
    async fn settle(&self, lease: &Lease, settlement: Settlement) -> Result<Option<State>>;

    /// Requests a stop. Returns the state after the request: the final state of a task that has ended, the unchanged
    /// state of a task outside the scope, and `None` for an unknown token.
    async fn request_stop(&self, token: &Token, scope: StopScope) -> Result<Option<State>>;

    /// Ends a batch of expired leases, and returns their tasks; an empty list when no lease has expired. Each
    /// task returns to the queue or gets a terminal state.
    async fn expire_leases(&self) -> Result<Vec<Expired>>;

    /// How many tasks wait and run, in all lanes.
    async fn counts(&self) -> Result<Counts>;

    /// The head of each lane: the oldest due task that `worker` can take, and the oldest due task whose
    /// operation or format this version does not know.
    async fn due(&self, worker: &str) -> Result<Vec<Due>>;

    /// Notifications of commits, also from other processes if the store supports that. A hint can be late,
    /// duplicated or missing, so a receiver reads the store to learn the current state.
    fn hints(&self) -> broadcast::Receiver<Hint>;
}

/// What the store keeps about each component between operations: its deployment, and its memory (the data that
/// its technology stored).
#[async_trait]
pub trait Inventory: Send + Sync + 'static {
    /// The stored deployment of a component; `None` if there is none.
    async fn deployment(&self, key: &ComponentKey) -> Result<Option<Deployment>>;

    /// The stored deployments of these components (by id), in every environment.
    async fn deployments(&self, components: &[String]) -> Result<Vec<Deployment>>;

    /// Stores a deployment. Returns `false`, and writes nothing, when the lease is lost or the component is not part
    /// of the leased task.
    async fn put_deployment(&self, lease: &Lease, deployment: &Deployment) -> Result<bool>;

    /// The data that a technology stored for a component; `None` if there is none.
    async fn memory(&self, key: &ComponentKey) -> Result<Option<Value>>;

    /// Stores or deletes a technology's data for a component. Returns `false`, and writes nothing, when the lease is
    /// lost, when the component has no stored deployment, or when it is not part of the leased task.
    async fn remember(&self, lease: &Lease, key: &ComponentKey, memory: Option<&Value>) -> Result<bool>;
}

/// The instances of the topology.
#[async_trait]
pub trait Instances: Send + Sync + 'static {
    /// All instances by id. The result includes every edit that returned before the call, in any process.
    async fn instances(&self) -> Result<Arc<[Instance]>>;

    /// Creates or changes an instance, and returns the result. Each edit sees all earlier ones. Returns
    /// [`landfall_adapter::error::Kind::Invalid`] when an attribute is not valid, a code is taken or a limit is
    /// reached, and `None` when the instance does not exist; then nothing is written.
    async fn edit_instance(&self, edit: Edit) -> Result<Option<Instance>>;

    /// Creates instances for targets that never had one, and leaves all others unchanged. Returns how many it
    /// created.
    async fn seed_instances(&self, seeds: Vec<Attributes>) -> Result<usize>;
}

/// The complete interface of a store: the three traits above, and maintenance.
#[async_trait]
pub trait Store: Queue + Inventory + Instances {
    /// Writes a test row, to check that the store can accept tasks.
    async fn check(&self) -> Result<()>;

    /// Deletes one batch of terminal tasks that exceed [`Limits::keep_for`] or [`Limits::keep_count`]. Returns how
    /// many; zero when no task is left to delete.
    async fn purge(&self) -> Result<u64>;

    /// Does one short step of maintenance: gives free space back to the file system, so that no deleted data
    /// stays in the database file. Returns `true` if more steps are needed.
    async fn tidy(&self) -> Result<bool>;

    /// Finishes the calls in progress and closes the database. Later calls return an error.
    async fn close(&self);
}

/// Limits that a store enforces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How many tasks can wait in each lane; the store rejects more.
    pub max_queued: u32,
    /// The total size, in bytes, of the payloads that can wait in a lane.
    pub max_queued_bytes: u64,
    /// How many tasks can run at once on a target, over all processes; a target without an entry has no limit of its
    /// own.
    pub per_target: Arc<BTreeMap<String, u32>>,
    /// How many tasks can run at once on one target in one process, so that a target that does not answer leaves
    /// slots for the others.
    pub target_concurrency: u32,
    /// How many log lines are kept per task, not counting the closing lines of the engine.
    pub max_log_lines: u32,
    /// How many runs of one task can lose their lease (crash, hang) before the engine gives the task up.
    pub max_crashes: u32,
    /// How long a task that lost its worker for the second time waits before it runs again. The wait doubles each
    /// further time, up to 64 times this value. So a process that is killed again and again does not use up the
    /// attempts of tasks that it never finished. Zero means no wait.
    pub crash_pause: Duration,
    /// How long a terminal task is kept before it is purged.
    pub keep_for: Duration,
    /// The maximum number of terminal tasks that are kept.
    pub keep_count: u64,
    /// The limits of the stored topology.
    pub topology: TopologyLimits,
}

impl Limits {
    /// How long a task waits after its worker was lost for the `crashes`th time. The first loss causes no wait: it
    /// may be a coincidence.
    pub(super) fn pause_after(&self, crashes: u32) -> Duration {
        crashes
            .checked_sub(2)
            .map_or(Duration::ZERO, |doublings| self.crash_pause.saturating_mul(1 << doublings.min(6)))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_queued: 10_000,
            max_queued_bytes: u64::MAX,
            per_target: Arc::default(),
            target_concurrency: u32::MAX,
            max_log_lines: 2_000,
            max_crashes: 10,
            crash_pause: Duration::ZERO,
            keep_for: Duration::from_secs(30 * 24 * 3600),
            keep_count: 1_000_000,
            topology: TopologyLimits::default(),
        }
    }
}

/// A task and the token that it gets.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The token of the new task; unused if the submission joins a task that is in flight.
    pub token: Token,
    /// What to store.
    pub task: NewTask,
}

/// Which tasks a stop can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopScope {
    /// Every task that has not ended.
    Any,
    /// Only a task that has not started, for operations that cannot be stopped while they run.
    Waiting,
}

/// A request of a worker process for tasks.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// Only tasks of this lane are claimed.
    pub lane: Lane,
    /// The name of the worker process; stored as [`Lease::owner`].
    pub worker: String,
    /// How long the lease lasts if it is not extended.
    pub lease: Duration,
    /// The maximum number of tasks.
    pub limit: usize,
}

/// The response to a claim.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// The tasks, now running; oldest first.
    pub tasks: Vec<ClaimedTask>,
    /// How long until the next task of the lane becomes due, if a task waits only for time to pass.
    pub next_due: Option<Duration>,
}

/// A task that can run now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The lane that it waits in.
    pub lane: Lane,
    /// Its position in the order of submission.
    pub seq: i64,
    /// How long it has been due.
    pub due_for: Duration,
    /// Whether this version can run it.
    pub known: bool,
}

/// How a run ended, and its last log lines.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// What happens to the task.
    pub ending: Ending,
    /// Lines of the run that are not appended yet; they count against [`Limits::max_log_lines`].
    pub lines: Vec<LogLine>,
    /// The engine's own line about the ending; always kept.
    pub closing: Option<LogLine>,
}

/// What happens to a task at the end of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// The run succeeded.
    Succeed {
        /// The result, as the client reads it.
        outcome: Value,
    },
    /// The run failed, and the task is not retried.
    Fail {
        /// The outcome of the failed run, if it has one.
        outcome: Option<Value>,
        /// Why the run failed, in one sentence that clients may read.
        reason: String,
    },
    /// The run met a transient failure.
    Retry {
        /// The wait before the next run.
        after: Duration,
        /// The outcome of the run; kept only when a stop was requested, because the task then ends here.
        outcome: Option<Value>,
        /// Why the run failed, in one sentence that clients may read.
        reason: String,
    },
    /// The process ends, and the task returns to the queue for another process. The run does not count as an
    /// attempt.
    Release,
    /// The run ended because a stop was requested.
    Stopped {
        /// The outcome of the run, if it has one.
        outcome: Option<Value>,
    },
}

impl Ending {
    /// The event for the state machine.
    pub fn event(&self) -> Event {
        match self {
            Self::Succeed { .. } => Event::Succeed,
            Self::Fail { .. } => Event::Fail,
            Self::Retry { .. } => Event::Retry,
            Self::Release => Event::Release,
            Self::Stopped { .. } => Event::Stopped,
        }
    }
}

/// A task that lost its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    /// The task whose lease expired.
    pub token: Token,
    /// Its new state.
    pub state: State,
    /// How many of its runs have been lost.
    pub crashes: u32,
}

/// A notification of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// A lane has a task that can be claimed.
    Queued(Lane),
    /// A stop was requested for a running task.
    Stop(Token),
    /// A task reached a terminal state; tasks that waited for it can be claimed.
    Finished(Token),
    /// Notifications may have been missed.
    Anything,
}
