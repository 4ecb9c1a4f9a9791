//! What the engine asks of a database, in terms that several databases can keep.
//!
//! A store makes every call one transaction, decides about states by [`super::transition`] alone, and keeps time
//! by its own clock: no caller passes it the present. It is the only place that can enforce what the engine
//! promises, so the promises are written here, and one suite (`suite.rs`) holds every store to them:
//!
//! - what [`Store::submit`] answered is on disk;
//! - while a request is in flight and is the last word on its components, the same request answers the same token;
//! - a component is never under two leases at once, and its tasks are claimed in the order of submission;
//! - a write under a lease that is no longer the task's current one touches nothing, and says so;
//! - a terminal task never changes, except to be collected.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::broadcast;

use super::state::{Event, State};
use super::task::{
    ClaimedTask, ComponentKey, Counts, Deployment, Lane, Lease, NewTask, Submitted, Task, Token,
};
use crate::topology::{Attributes, Edit, Instance, TopologyLimits};
use landfall_adapter::LogLine;
use landfall_adapter::error::Result;

/// Keeps tasks, their logs, the deployments and the instances.
///
/// Errors are [`landfall_adapter::error::Kind::Retryable`] when the database does not answer,
/// [`landfall_adapter::error::Kind::Overloaded`] when the queue is full and [`landfall_adapter::error::Kind::Permanent`] when a row cannot
/// be read as what it should be.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Accepts work, durably, unless the same request is in flight and would end in the same state.
    async fn submit(&self, submission: Submission) -> Result<Submitted>;

    /// The task as it is now, with its log as it was at the same moment.
    async fn task(&self, token: &Token) -> Result<Option<Task>>;

    /// The state alone.
    async fn state(&self, token: &Token) -> Result<Option<State>>;

    /// Leases the oldest due tasks of a lane that wait for nothing else.
    async fn claim(&self, request: &ClaimRequest) -> Result<Claims>;

    /// Extends a lease to `lease` from now. `None` when it is lost; [`State::Stopping`] when a stop was asked for.
    async fn heartbeat(&self, lease: &Lease, extension: Duration) -> Result<Option<State>>;

    /// Adds to the task's log. `None` when the lease is lost; nothing was written then.
    async fn append_logs(&self, lease: &Lease, lines: Vec<LogLine>) -> Result<Option<State>>;

    /// Ends a run: the last log lines, the new state and whatever the ending carries, at once. Answers the new
    /// state, or `None` when the lease is lost; nothing was written then.
    async fn settle(&self, lease: &Lease, settlement: Settlement) -> Result<Option<State>>;

    /// Asks for a stop. Answers the state after the request, which is the final one for a task that has ended, the one
    /// before for a task that the scope leaves alone, and `None` for an unknown token.
    async fn request_stop(&self, token: &Token, scope: StopScope) -> Result<Option<State>>;

    /// Takes the tasks whose lease ran out away from their workers: back to the queue, or to the end of their life.
    async fn expire_leases(&self) -> Result<Vec<Expired>>;

    /// How much waits and runs, over all lanes.
    async fn counts(&self) -> Result<Counts>;

    /// Writes a row, as anything that is accepted would be.
    async fn check(&self) -> Result<()>;

    /// What is at the head of each lane: the oldest due task that `worker` could take, and the oldest that this version
    /// does not know.
    async fn due(&self, worker: &str) -> Result<Vec<Due>>;

    /// What is remembered of a component.
    async fn deployment(&self, key: &ComponentKey) -> Result<Option<Deployment>>;

    /// What is remembered of these components (by id), in every environment.
    async fn deployments(&self, components: &[String]) -> Result<Vec<Deployment>>;

    /// Remembers. `false` when the lease is lost, or the component is not among those of the leased task; nothing
    /// was written then.
    async fn put_deployment(&self, lease: &Lease, deployment: &Deployment) -> Result<bool>;

    /// What a technology remembers of a component.
    async fn memory(&self, key: &ComponentKey) -> Result<Option<Value>>;

    /// Remembers for a technology, or forgets. `false` when the lease is lost, or nothing is remembered of the component, or it
    /// is not among those of the leased task; nothing was written then.
    async fn remember(&self, lease: &Lease, key: &ComponentKey, memory: Option<&Value>) -> Result<bool>;

    /// All instances by id, as they are after every edit that was answered, in whatever process.
    async fn instances(&self) -> Result<Arc<[Instance]>>;

    /// Edits an instance; each edit sees all before it. [`landfall_adapter::error::Kind::Invalid`] when a code is taken or a limit
    /// reached, `None` when there is no such instance; nothing was written then.
    async fn edit_instance(&self, edit: Edit) -> Result<Option<Instance>>;

    /// Makes instances of targets of which none was ever made, and leaves all others as they are. Answers how many.
    async fn seed_instances(&self, seeds: Vec<Attributes>) -> Result<usize>;

    /// Collects one batch of terminal tasks that are past [`Limits::keep_for`] or [`Limits::keep_count`]. Answers
    /// how many; zero when nothing is left to collect.
    async fn purge(&self) -> Result<u64>;

    /// Gives one small part of the room that is free back to the file system, and keeps nothing of what was deleted.
    /// Answers whether there is more to do.
    async fn tidy(&self) -> Result<bool>;

    /// News of commits, from any process where the store can tell. A hint may be late, doubled or missing: it says
    /// where to look, never what is there.
    fn hints(&self) -> broadcast::Receiver<Hint>;

    /// Finishes what was begun and lets go of the database. Later calls answer an error.
    async fn close(&self);
}

/// Bounds a store enforces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Tasks that may wait in each lane; more are refused.
    pub max_queued: u32,
    /// How large the payloads of the tasks that wait in a lane may be together, in bytes.
    pub max_queued_bytes: u64,
    /// How many tasks may run at once on a target, in all processes together; a target that is not named has no
    /// bound of its own.
    pub per_target: Arc<BTreeMap<String, u32>>,
    /// How many tasks may run at once on any one target in one process, so that a target which does not answer leaves
    /// slots for the others.
    pub target_concurrency: u32,
    /// Log lines kept of a task, besides those with which the engine closes a run.
    pub max_log_lines: u32,
    /// Runs of one task that may end with a lost lease (crash, hang) before it is given up.
    pub max_crashes: u32,
    /// How long a task that lost its worker for the second time waits before it runs again; doubles with each further
    /// time, up to 64 times this. A process that is killed again and again must not use up the chances of what it
    /// never got to finish. Zero: no wait.
    pub crash_pause: Duration,
    /// How long a terminal task can still be asked for.
    pub keep_for: Duration,
    /// How many terminal tasks are kept at most.
    pub keep_count: u64,
    /// How much of a topology is kept.
    pub topology: TopologyLimits,
}

impl Limits {
    /// How long a task waits after its worker was lost for the `crashes`th time. Once may be a coincidence.
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

/// Work, named.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The name it gets unless it is deduplicated.
    pub token: Token,
    /// The work.
    pub task: NewTask,
}

/// What a stop may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopScope {
    /// Whatever has not ended.
    Any,
    /// Only what has not begun: the work itself cannot be stopped.
    Waiting,
}

/// A worker process looking for work.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// Which queue.
    pub lane: Lane,
    /// Who asks; becomes [`Lease::owner`].
    pub worker: String,
    /// How long the lease lasts unless extended.
    pub lease: Duration,
    /// How many tasks at most.
    pub limit: usize,
}

/// The answer to a claim.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// The tasks, now running; oldest first.
    pub tasks: Vec<ClaimedTask>,
    /// How long until the next task of the lane becomes due by time alone, where one waits for that.
    pub next_due: Option<Duration>,
}

/// A task that may run now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Its lane.
    pub lane: Lane,
    /// Its place in the order of submission.
    pub seq: i64,
    /// Since when it may run.
    pub due_for: Duration,
    /// Whether this version can run it.
    pub known: bool,
}

/// How a run ended, and what it leaves.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// What becomes of the task.
    pub ending: Ending,
    /// What the run wrote and was not appended yet; counts against [`Limits::max_log_lines`].
    pub lines: Vec<LogLine>,
    /// The engine's own line about the ending; always kept.
    pub closing: Option<LogLine>,
}

/// What becomes of a task at the end of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// It did what was asked.
    Succeed {
        /// The result.
        outcome: Value,
    },
    /// It will not be tried again.
    Fail {
        /// What the run left to say, if it got to say anything.
        outcome: Option<Value>,
        /// One public sentence.
        reason: String,
    },
    /// It met a transient failure.
    Retry {
        /// How long to wait.
        after: Duration,
        /// What the run left to say; kept when the task was to stop and so ends here.
        outcome: Option<Value>,
        /// One public sentence.
        reason: String,
    },
    /// Its process ends; another one should take it up. Does not count as a run.
    Release,
    /// It ended because it was asked to.
    Stopped {
        /// What the run left to say.
        outcome: Option<Value>,
    },
}

impl Ending {
    /// The event this is to the state machine.
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
    /// The task.
    pub token: Token,
    /// Its state now.
    pub state: State,
    /// How many of its runs were lost so far.
    pub crashes: u32,
}

/// Something was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// A lane has a task that may be claimed.
    Queued(Lane),
    /// A running task was asked to stop.
    Stop(Token),
    /// A task reached a terminal state; tasks that waited for it may be claimed.
    Finished(Token),
    /// News may have been missed.
    Anything,
}
