//! The rules of the store, written once for every database.
//!
//! A [`Ledger`] is a [`Store`] on a [`Database`]. It contains the decisions (which requests join, which tasks may be
//! claimed, what an ending means) and their statements. A database adds connections, clocks, migrations and
//! notifications.
//!
//! Changes of the queue (submit, claim, settle, stop, expire) go through the *queue writer* of the database:
//! one transaction at a time over all processes, and each sees all earlier ones. So a change sees every earlier
//! task, no later commit can overtake an earlier one, and every change can be understood as if it were alone.
//! Changes of one row of a running task (heartbeat, log lines, deployments) and purges go *aside*, and do not
//! wait for the queue writer.

pub(super) mod commit;
pub(super) mod fault;
mod finished;
pub(super) mod formats;
pub(super) mod instances;
pub(super) mod pool;
pub(super) mod sql;
pub(super) mod submit;
pub(super) mod write;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::broadcast;

use self::commit::{Write, Writer};
use self::fault::failed;
use self::finished::Finished;
use self::formats::FORMAT;
use self::sql::{Arg, Row, Statement, args};
use self::submit::Submissions;
use super::operation::{Lane, Operation};
use super::state::State;
use super::store::{
    ClaimRequest, Claims, Due, Expired, Hint, Instances, Inventory, Limits, Queue, Settlement, StopScope,
    Store, Submission,
};
use super::task::{ComponentKey, Counts, Deployment, DeploymentStatus, Lease, Submitted, Task, Token};
use crate::topology::{Attributes, Edit, Instance};
use landfall_adapter::descriptor::ComponentKind;
use landfall_adapter::error::{Error, Result};
use landfall_adapter::{Level, LogLine};

/// Notifications that are kept for a slow listener; a listener that falls further behind looks everywhere.
const HINTS: usize = 1024;

/// A database that can contain a ledger.
#[async_trait]
pub(super) trait Database: Send + Sync + 'static {
    /// Reads committed data on a connection that does not wait for the writer.
    async fn read(&self, statement: Statement<'_>, args: &[Arg<'_>]) -> sqlx::Result<Vec<Row>>;

    /// Whether no other process can have the database open.
    fn is_exclusive(&self) -> bool;

    /// The queue writer: the only way to change the queue.
    fn queue(&self) -> &Writer;

    /// Writes data outside of the queue, in a short transaction.
    async fn write_aside<W: Write>(&self, work: W) -> Result<W::Answer>;

    /// How long until a task of the lane can be claimed: zero if one can be claimed now, `None` if no task waits only
    /// for time to pass. Read without the writer.
    async fn due_in(&self, lane: Lane) -> sqlx::Result<Option<Duration>>;

    /// Finishes calls in progress and closes the database.
    async fn close(&self);
}

/// A store on a database; see the module documentation.
pub struct Ledger<D> {
    pub(super) database: Arc<D>,
    submissions: Submissions,
    shared: Shared,
    finished: Finished,
    instances: instances::Copy,
    /// The time, in microseconds, up to which finished tasks are deleted. It is kept while a purge takes
    /// several batches, because computing it requires counting all finished tasks.
    collecting: Mutex<Option<i64>>,
}

/// State that every write needs.
#[derive(Clone)]
pub(super) struct Shared {
    limits: Limits,
    hints: broadcast::Sender<Hint>,
    /// The channel of notifications to other processes.
    to_other_processes: Option<tokio::sync::mpsc::Sender<Hint>>,
}

impl Shared {
    /// `to_other_processes` receives notifications; those that it cannot take are lost, which is allowed.
    pub(super) fn new(limits: Limits, to_other_processes: Option<tokio::sync::mpsc::Sender<Hint>>) -> Self {
        let (hints, _) = broadcast::channel(HINTS);
        Self { limits, hints, to_other_processes }
    }

    /// The sender for notifications that arrive from other processes.
    pub(super) fn hints(&self) -> broadcast::Sender<Hint> {
        self.hints.clone()
    }

    /// Notifies listeners in this process, and other processes if there is a channel to them.
    fn hint(&self, hint: Hint) {
        // An error means that there are no listeners.
        let _ = self.hints.send(hint);
        if let Some(to_other_processes) = &self.to_other_processes {
            let _ = to_other_processes.try_send(hint);
        }
    }
}

/// Creates a ledger on `database`, which accepts submissions from now on.
pub(super) fn open<D: Database>(database: D, shared: Shared) -> Ledger<D> {
    let database = Arc::new(database);
    let submissions = Submissions::start(Arc::clone(&database), shared.clone());
    Ledger {
        database,
        submissions,
        shared,
        finished: Finished::default(),
        instances: instances::Copy::default(),
        collecting: Mutex::default(),
    }
}

async fn read<D: Database>(
    ledger: &Ledger<D>,
    statement: Statement<'_>,
    args: &[Arg<'_>],
) -> Result<Vec<Row>> {
    ledger.database.read(statement, args).await.map_err(failed)
}

/// The task with its log in order, from one moment: what a poll needs.
macro_rules! task {
    ($log:literal) => {
        concat!(
            "SELECT operation, components, targets, state, attempt, submitted_at, started_at, \
             finished_at, outcome, reason, (",
            $log,
            "), format FROM task WHERE id = $1"
        )
    };
}
pub(super) const TASK: Statement<'_> = Statement::each(
    task!(
        "SELECT json_group_array(json_array(at, level, phase, message)) FROM (SELECT at, level, phase, message \
         FROM task_log WHERE task_seq = task.seq ORDER BY line)"
    ),
    task!(
        "SELECT coalesce(json_agg(json_build_array(at, level, phase, message) ORDER BY line)::text, '[]') \
         FROM task_log WHERE task_seq = task.seq"
    ),
);
pub(super) const STATE: Statement<'_> = Statement::both("SELECT state FROM task WHERE id = $1");
pub(super) const COUNTS: Statement<'_> = Statement::both(
    "SELECT (SELECT count(*) FROM task WHERE state = 'queued'), \
     (SELECT count(*) FROM task WHERE lease_until IS NOT NULL)",
);
const DEPLOYMENTS: Statement<'_> = Statement::each(
    "SELECT component, environment, target, status, access, updated_at, specific, format, kind, product, info FROM deployment \
     WHERE component IN (SELECT value FROM json_each($1)) ORDER BY component, environment",
    "SELECT component, environment, target, status, access, updated_at, specific, format, kind, product, info FROM deployment \
     WHERE component IN (SELECT jsonb_array_elements_text($1::jsonb)) ORDER BY component, environment",
);
const DEPLOYMENT: Statement<'_> = Statement::both(
    "SELECT component, environment, target, status, access, updated_at, specific, format, kind, product, info FROM deployment \
     WHERE component = $1 AND environment = $2",
);
const MEMORY: Statement<'_> =
    Statement::both("SELECT memory FROM deployment WHERE component = $1 AND environment = $2");
/// The time at which the newest surplus task ended; `$1` terminal tasks are kept.
pub(super) const SURPLUS: Statement<'_> = Statement::both(
    "SELECT coalesce(kept_from, finished_at) FROM task WHERE finished_at IS NOT NULL \
     ORDER BY coalesce(kept_from, finished_at) DESC LIMIT 1 OFFSET $1",
);

#[async_trait]
impl<D: Database> Queue for Ledger<D> {
    async fn submit(&self, submission: Submission) -> Result<Submitted> {
        self.submissions.submit(&submission).await
    }

    async fn task(&self, token: &Token) -> Result<Option<Task>> {
        if let Some(task) = self.finished.task(token) {
            return Ok(Some(task));
        }
        let rows = read(self, TASK, args![&token.to_string()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let task = task(*token, row)?;
        self.finished.keep(&task, row.optional_text(9).ok().flatten().map_or(0, str::len));
        Ok(Some(task))
    }

    async fn state(&self, token: &Token) -> Result<Option<State>> {
        let rows = read(self, STATE, args![&token.to_string()]).await?;
        rows.first()
            .map(|row| row.name(0, State::parse))
            .transpose()
            .map_err(|error| unreadable("a task", error))
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Claims> {
        if request.limit == 0 {
            return Ok(Claims::default());
        }
        // Most claims find nothing, and need not wait for the writer.
        let due = self.database.due_in(request.lane).await.map_err(failed)?;
        if due != Some(Duration::ZERO) {
            return Ok(Claims { tasks: Vec::new(), next_due: due });
        }
        let claim = write::Claim { request: request.clone(), shared: self.shared.clone() };
        Ok(self.database.queue().write(claim).await?.claims)
    }

    async fn heartbeat(&self, lease: &Lease, extension: Duration) -> Result<Option<State>> {
        self.database.write_aside(write::Heartbeat { lease: lease.clone(), extension }).await
    }

    async fn append_logs(&self, lease: &Lease, lines: Vec<LogLine>) -> Result<Option<State>> {
        let max_log_lines = self.shared.limits.max_log_lines;
        self.database.write_aside(write::AppendLogs { lease: lease.clone(), lines, max_log_lines }).await
    }

    async fn settle(&self, lease: &Lease, settlement: Settlement) -> Result<Option<State>> {
        let settle = write::Settle { lease: lease.clone(), settlement, shared: self.shared.clone() };
        let outcome = self.database.queue().write(settle).await?;
        outcome.map_err(|illegal| Error::permanent("a run ended in a way its task cannot").because(illegal))
    }

    async fn request_stop(&self, token: &Token, scope: StopScope) -> Result<Option<State>> {
        let stop = write::RequestStop { token: *token, scope, shared: self.shared.clone() };
        self.database.queue().write(stop).await
    }

    async fn expire_leases(&self) -> Result<Vec<Expired>> {
        self.database.queue().write(write::ExpireLeases { shared: self.shared.clone() }).await
    }

    async fn counts(&self) -> Result<Counts> {
        let rows = read(self, COUNTS, args![]).await?;
        let count = |index| rows.first().map_or(Ok(0), |row| row.int(index)).map(i64::unsigned_abs);
        let counts = || Ok(Counts { queued: count(0)?, running: count(1)? });
        counts().map_err(|error| unreadable("a count", error))
    }

    async fn due(&self, worker: &str) -> Result<Vec<Due>> {
        let look = write::LookAtHeads { worker: worker.to_owned(), shared: self.shared.clone() };
        self.database.write_aside(look).await
    }

    fn hints(&self) -> broadcast::Receiver<Hint> {
        self.shared.hints.subscribe()
    }
}

#[async_trait]
impl<D: Database> Inventory for Ledger<D> {
    async fn deployment(&self, key: &ComponentKey) -> Result<Option<Deployment>> {
        let rows = read(self, DEPLOYMENT, args![&key.component, &key.environment]).await?;
        rows.first().map(deployment).transpose()
    }

    async fn deployments(&self, components: &[String]) -> Result<Vec<Deployment>> {
        let list = sql::to_json(&components).map_err(failed)?;
        read(self, DEPLOYMENTS, args![&list]).await?.iter().map(deployment).collect()
    }

    async fn put_deployment(&self, lease: &Lease, deployment: &Deployment) -> Result<bool> {
        self.database
            .write_aside(write::PutDeployment { lease: lease.clone(), deployment: deployment.clone() })
            .await
    }

    async fn memory(&self, key: &ComponentKey) -> Result<Option<Value>> {
        let rows = read(self, MEMORY, args![&key.component, &key.environment]).await?;
        let memory =
            |row: &Row| row.optional_json(0).map_err(|error| unreadable("the memory of a technology", error));
        rows.first().map(memory).transpose().map(Option::flatten)
    }

    async fn remember(&self, lease: &Lease, key: &ComponentKey, memory: Option<&Value>) -> Result<bool> {
        let memory = memory.map(Value::to_string);
        self.database.write_aside(write::Remember { lease: lease.clone(), key: key.clone(), memory }).await
    }
}

#[async_trait]
impl<D: Database> Instances for Ledger<D> {
    async fn instances(&self) -> Result<Arc<[Instance]>> {
        instances::all(self).await
    }

    async fn edit_instance(&self, edit: Edit) -> Result<Option<Instance>> {
        instances::edit(self, edit, self.shared.limits.topology).await
    }

    async fn seed_instances(&self, seeds: Vec<Attributes>) -> Result<usize> {
        instances::seed(self, seeds).await
    }
}

#[async_trait]
impl<D: Database> Store for Ledger<D> {
    async fn check(&self) -> Result<()> {
        self.database.queue().write(write::Tick).await.map(drop)
    }

    async fn purge(&self) -> Result<u64> {
        let remembered = *self.collecting.lock().unwrap_or_else(PoisonError::into_inner);
        let finished_until = match remembered {
            Some(until) => until,
            None => collectable_until(self).await?,
        };
        let gone = self.database.write_aside(write::Purge { finished_until }).await?;
        *self.collecting.lock().unwrap_or_else(PoisonError::into_inner) =
            (gone > 0).then_some(finished_until);
        if gone > 0 {
            self.finished.forget();
        }
        Ok(gone)
    }

    async fn tidy(&self) -> Result<bool> {
        self.database.queue().tidy().await
    }

    async fn close(&self) {
        self.database.close().await;
    }
}

/// The time, in microseconds, up to which finished tasks are too old or too many. It is measured by a clock
/// that advances only while a process runs, so a jump of the system clock does not move it far.
async fn collectable_until<D: Database>(ledger: &Ledger<D>) -> Result<i64> {
    let Limits { keep_for, keep_count, .. } = ledger.shared.limits;
    let now = ledger.database.write_aside(write::Tick).await?;
    let keep_count = i64::try_from(keep_count).unwrap_or(i64::MAX);
    let rows = read(ledger, SURPLUS, args![keep_count]).await?;
    let surplus = rows.first().map(|row| row.int(0)).transpose().map_err(failed)?;
    let too_old = now.saturating_sub(micros(keep_for));
    Ok(surplus.map_or(too_old, |at| at.max(too_old)))
}

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The duration between two times in microseconds; zero if the second is not later.
pub(super) fn between(from: i64, to: i64) -> Duration {
    Duration::from_micros(u64::try_from(to.saturating_sub(from)).unwrap_or(0))
}

fn unreadable(what: &str, error: sqlx::Error) -> Error {
    Error::permanent(format!("the operation store holds {what} that cannot be read")).because(error)
}

/// A line of a log in [`TASK`]: time, level, phase, message.
#[derive(Deserialize)]
struct Line(i64, String, Option<String>, String);

/// Reads a row of [`TASK`]. Unreadable components, targets and times of log lines get a default, so that they
/// do not hide how the task ended.
fn task(token: Token, row: &Row) -> Result<Task> {
    let unreadable = |error| unreadable("a task", error);
    let format = row.int(11).map_err(unreadable)?;
    if format > FORMAT {
        return Err(Error::retryable(format!(
            "the operation was stored in format {format}, and this version of Landfall reads {FORMAT}; ask a newer one"
        )));
    }
    let name = row.text(0).map_err(unreadable)?;
    let Some(operation) = Operation::parse(name) else {
        return Err(Error::retryable(format!(
            "the operation `{name}` is not known to this version of Landfall; ask a newer one"
        )));
    };
    let submitted_at = row.time(5).map_err(unreadable)?;
    let line = |Line(at, level, phase, message)| LogLine {
        at: sql::time(at).unwrap_or(submitted_at),
        level: parse_level(&level).unwrap_or(Level::Info),
        phase,
        message,
    };
    let described = || -> sqlx::Result<Task> {
        Ok(Task {
            token,
            operation,
            components: row.json(1).unwrap_or_default(),
            targets: row.json(2).unwrap_or_default(),
            state: row.name(3, State::parse)?,
            attempt: row.clamped(4),
            submitted_at,
            started_at: row.optional_time(6)?,
            finished_at: row.optional_time(7)?,
            outcome: row.optional_json(8)?,
            reason: row.optional_text(9)?.map(str::to_owned),
            logs: row.json::<Vec<Line>>(10)?.into_iter().map(line).collect(),
        })
    };
    described().map_err(unreadable)
}

/// Reads a row of [`DEPLOYMENT`] or [`DEPLOYMENTS`].
fn deployment(row: &Row) -> Result<Deployment> {
    let unnamed = |error| unreadable("a deployment", error);
    let key = ComponentKey::new(row.text(0).map_err(unnamed)?, row.text(1).map_err(unnamed)?);
    let odd = |why: String| {
        let ComponentKey { component, environment } = &key;
        format!(
            "what is remembered of component `{component}` in environment `{environment}` cannot be read by this version \
             of Landfall ({why}); run a version that can, or restore the operation store"
        )
    };
    let format = row.int(7).map_err(unnamed)?;
    if format > FORMAT {
        return Err(Error::retryable(odd(format!("format {format}, and this version reads {FORMAT}"))));
    }
    let in_column = |column: &'static str| {
        move |error: sqlx::Error| Error::permanent(odd(format!("column `{column}`"))).because(error)
    };
    Ok(Deployment {
        target: row.text(2).map_err(in_column("target"))?.to_owned(),
        status: row.name(3, DeploymentStatus::parse).map_err(in_column("status"))?,
        access: row.optional_json(4).map_err(in_column("access"))?,
        updated_at: row.time(5).map_err(in_column("updated_at"))?,
        specific: row.json(6).map_err(in_column("specific"))?,
        kind: row.optional_text(8).map_err(in_column("kind"))?.map(ComponentKind::of),
        product: row.optional_text(9).map_err(in_column("product"))?.map(str::to_owned),
        info: row.optional_json(10).map_err(in_column("info"))?,
        key,
    })
}

/// The persisted name of a level.
fn level_name(level: Level) -> &'static str {
    match level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warning => "warning",
        Level::Error => "error",
    }
}

fn parse_level(text: &str) -> Option<Level> {
    [Level::Debug, Level::Info, Level::Warning, Level::Error]
        .into_iter()
        .find(|level| level_name(*level) == text)
}
