//! Every write except a submission: its decision, and its statements.
//!
//! Only [`transition`] changes states. A write for a run first reads its lease and locks the task's row ([`held`]). A
//! worker that lost the lease changes nothing, and the lease cannot be taken away during the write.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use super::commit::Write;
use super::formats::{FORMAT, known};
use super::sql::{Dialect, Row, Statement, Transaction, args, to_json};
use super::{Shared, between, level_name, micros};
use crate::operation::{Lane, Operation};
use crate::state::{Event, IllegalTransition, State, transition};
use crate::store::{ClaimRequest, Claims, Due, Ending, Expired, Hint, Limits, Settlement, StopScope};
use crate::task::{ClaimedTask, ComponentKey, Deployment, Lease, Token};
use landfall_adapter::descriptor::ComponentKind;
use landfall_adapter::{Level, LogLine};

/// The maximum number of lost leases in one transaction.
const SWEEP: i64 = 100;

/// The oldest tasks that wait for nothing. A task whose runs crashed twice may be the reason why the process
/// ends. Such tasks run one at a time, so that the culprit uses up its own attempts and not those of its
/// neighbours. The sign in `+run_at` makes the databases read by `seq` and stop when there are enough, instead
/// of sorting all due tasks.
macro_rules! claimable {
    ($more:literal) => {
        concat!(
            "SELECT seq, targets FROM task WHERE lane = $1 AND state = 'queued' AND blocked = 0 AND +run_at <= $2 AND ",
            known!(),
            " AND (crashes < 2 OR seq = (\
               SELECT min(s.seq) FROM task s \
               WHERE s.state = 'queued' AND s.blocked = 0 AND s.crashes >= 2 AND s.run_at <= $2 AND ",
            known!(),
            " AND NOT EXISTS (SELECT 1 FROM task r WHERE r.lease_until IS NOT NULL AND r.crashes >= 2)))",
            $more,
            " ORDER BY seq LIMIT $3"
        )
    };
}
pub(crate) const CLAIMABLE: Statement<'_> = Statement::both(claimable!(""));
/// Like [`CLAIMABLE`], for the line `$4` only, and after position `$5`.
pub(crate) const CLAIMABLE_IN_LINE: Statement<'_> =
    Statement::both(claimable!(" AND place = $4 AND +seq > $5"));
/// The lines in which tasks of a lane wait, with one index lookup for each.
pub(crate) const LINES: Statement<'_> = Statement::both(
    "WITH RECURSIVE line (place) AS (\
       SELECT min(place) FROM task WHERE lane = $1 AND state = 'queued' AND blocked = 0 \
       UNION ALL SELECT (SELECT min(t.place) FROM task t \
         WHERE t.lane = $1 AND t.state = 'queued' AND t.blocked = 0 AND t.place > line.place) \
       FROM line WHERE line.place IS NOT NULL) \
     SELECT place FROM line WHERE place IS NOT NULL",
);
pub(crate) const BUSY: Statement<'_> =
    Statement::both("SELECT targets, lease_owner FROM task WHERE lease_until IS NOT NULL");
macro_rules! columns {
    () => {
        "seq, id, operation, components, targets, payload, attempt, crashes, lease_epoch, begun_at"
    };
}
/// `begun_at` is the time of the first transient failure. Time in which the task was due and no process took it
/// does not count, so `begun_at` moves by that time.
macro_rules! take {
    ($list:literal) => {
        concat!(
            "UPDATE task SET state = $2, attempt = attempt + 1, lease_epoch = lease_epoch + 1, lease_owner = $3, \
             lease_until = $4, started_at = $5, begun_at = begun_at + $6 - run_at WHERE seq IN ",
             $list,
             " RETURNING ",
             columns!()
        )
    };
}
macro_rules! lock {
    ($list:literal) => {
        concat!(
            "INSERT INTO running_component (component, environment, task_seq) \
             SELECT component, environment, task_seq FROM task_component WHERE task_seq IN ",
            $list
        )
    };
}
/// Moves tasks to a running state, under a new lease. On PostgreSQL, [`LOCK`] is part of the statement, because
/// each statement is a round trip with the queue locked.
pub(crate) const TAKE: Statement<'_> = Statement::each(
    take!("(SELECT value FROM json_each($1))"),
    concat!(
        "WITH taken AS (",
        take!("(SELECT jsonb_array_elements($1::jsonb)::bigint)"),
        "), locked AS (",
        lock!("(SELECT jsonb_array_elements($1::jsonb)::bigint)"),
        ") SELECT ",
        columns!(),
        " FROM taken"
    ),
);
const LOCK: &str = lock!("(SELECT value FROM json_each($1))");
/// When the next task of a lane that waits only for time becomes due.
pub(crate) const NEXT_DUE: Statement<'_> = Statement::both(concat!(
    "SELECT run_at FROM task WHERE lane = $1 AND state = 'queued' AND blocked = 0 AND run_at > $2 AND ",
    known!(),
    " ORDER BY run_at LIMIT 1"
));
pub(crate) const HEARTBEAT: Statement<'_> = Statement::both(
    "UPDATE task SET lease_until = $3 \
     WHERE id = $1 AND lease_epoch = $2 AND state IN ('running', 'stopping') RETURNING state",
);
/// SQLite has one writer, so a row that was read does not change; PostgreSQL must lock it.
pub(crate) const HELD: Statement<'_> = Statement::each(
    "SELECT seq, state, log_lines FROM task \
     WHERE id = $1 AND lease_epoch = $2 AND state IN ('running', 'stopping')",
    "SELECT seq, state, log_lines FROM task \
     WHERE id = $1 AND lease_epoch = $2 AND state IN ('running', 'stopping') FOR NO KEY UPDATE",
);
const FIND: Statement<'_> = Statement::each(
    "SELECT seq, state, lease_epoch FROM task WHERE id = $1",
    "SELECT seq, state, lease_epoch FROM task WHERE id = $1 FOR NO KEY UPDATE",
);
pub(crate) const LOST: Statement<'_> = Statement::each(
    "SELECT seq, id, state, crashes FROM task WHERE lease_until IS NOT NULL AND lease_until <= $1 \
     ORDER BY lease_until LIMIT $2",
    "SELECT seq, id, state, crashes FROM task WHERE lease_until IS NOT NULL AND lease_until <= $1 \
     ORDER BY lease_until LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED",
);
/// Sets `begun_at`, the time of the first transient failure; `$6` is the current time. After a crash (`$5` > 0)
/// it is cleared. After a handover (`$4` > 0) it does not change. After a transient failure it is kept if it is
/// in the past; otherwise it becomes the current time.
const REQUEUE: Statement<'_> = Statement::both(
    "UPDATE task SET state = $2, run_at = $3, attempt = attempt - $4, crashes = crashes + $5, lease_owner = NULL, \
     lease_until = NULL, begun_at = CASE WHEN $5 > 0 THEN NULL WHEN $4 > 0 OR begun_at < $6 THEN begun_at ELSE $6 END \
     WHERE seq = $1",
);
/// Clears the deduplication key, so that the same request becomes a new task: this task will not complete it.
const STOPPING: Statement<'_> =
    Statement::both("UPDATE task SET state = $2, dedupe_key = NULL WHERE seq = $1");
const CRASHED: Statement<'_> = Statement::both("UPDATE task SET crashes = $2 WHERE seq = $1");
macro_rules! finish {
    ($most:literal, $least:literal) => {
        concat!(
            "UPDATE task SET state = $2, outcome = $3, reason = $4, finished_at = $5, dedupe_key = NULL, payload = NULL, \
             blocked = 0, lease_owner = NULL, lease_until = NULL, \
             kept_from = (SELECT elapsed + ",
            $most,
            "(0, ",
            $least,
            "($6 - seen_at, $7)) FROM clock WHERE one = 1) WHERE seq = $1"
        )
    };
}
macro_rules! unlock {
    () => {
        "DELETE FROM running_component WHERE task_seq = $1"
    };
}
/// Unblocks the first task in line for each component that `$1` released, if it is the first for all its components.
macro_rules! unblock {
    () => {
        "UPDATE task SET blocked = 0 WHERE blocked = 1 AND seq IN (\
           SELECT (SELECT min(next.task_seq) FROM task_component next \
                   WHERE next.component = free.component AND next.environment = free.environment \
                   AND next.task_seq > $1) \
           FROM task_component free WHERE free.task_seq = $1) \
         AND NOT EXISTS (\
           SELECT 1 FROM task_component mine JOIN task_component earlier USING (component, environment) \
           WHERE mine.task_seq = task.seq AND earlier.task_seq < task.seq AND earlier.task_seq <> $1)"
    };
}
macro_rules! leave {
    () => {
        "DELETE FROM task_component WHERE task_seq = $1"
    };
}
/// On PostgreSQL, [`UNLOCK`], [`UNBLOCK`] and [`LEAVE`] are part of the statement. All four parts see the state
/// before the statement, so each reads the rows of the task before they are deleted, and no two change the same
/// row.
pub(crate) const FINISH: Statement<'_> = Statement::each(
    finish!("max", "min"),
    concat!(
        "WITH unlocked AS (",
        unlock!(),
        "), unblocked AS (",
        unblock!(),
        "), gone AS (",
        leave!(),
        ") ",
        finish!("greatest", "least")
    ),
);
pub(crate) const UNLOCK: Statement<'_> = Statement::both(unlock!());
pub(crate) const UNBLOCK: &str = unblock!();
pub(crate) const LEAVE: &str = leave!();
pub(crate) const APPEND: Statement<'_> = Statement::each(
    "INSERT INTO task_log (task_seq, line, at, level, phase, message) \
     SELECT $1, key + (SELECT coalesce(max(line) + 1, 0) FROM task_log WHERE task_seq = $1), \
     value ->> 'at', value ->> 'level', value ->> 'phase', value ->> 'message' FROM json_each($2)",
    "INSERT INTO task_log (task_seq, line, at, level, phase, message) \
     SELECT $1, new.number - 1 + (SELECT coalesce(max(line) + 1, 0) FROM task_log WHERE task_seq = $1), \
     (new.value ->> 'at')::bigint, new.value ->> 'level', new.value ->> 'phase', new.value ->> 'message' \
     FROM jsonb_array_elements($2::jsonb) WITH ORDINALITY AS new (value, number)",
);
const COUNT_LINES: Statement<'_> =
    Statement::both("UPDATE task SET log_lines = log_lines + $2 WHERE seq = $1");
const PUT_DEPLOYMENT: Statement<'_> = Statement::both(
    "INSERT INTO deployment (component, environment, target, status, access, updated_at, specific, format, kind, \
     product, info) \
     SELECT component, environment, $4, $5, $6, $7, $8, $9, $10, $11, $12 FROM running_component \
     WHERE task_seq = $1 AND component = $2 AND environment = $3 \
     ON CONFLICT (component, environment) DO UPDATE SET target = excluded.target, \
     status = excluded.status, access = excluded.access, updated_at = excluded.updated_at, \
     specific = excluded.specific, format = excluded.format, kind = excluded.kind, product = excluded.product, \
     info = CASE WHEN excluded.status = 'unprovisioned' THEN NULL ELSE coalesce(excluded.info, deployment.info) END",
);
const REMEMBER: Statement<'_> = Statement::both(
    "UPDATE deployment SET memory = $4 WHERE component = $2 AND environment = $3 \
     AND EXISTS (SELECT 1 FROM running_component WHERE task_seq = $1 AND component = $2 AND environment = $3)",
);
/// Few at a time, because on SQLite others wait for the writer meanwhile. With an array, PostgreSQL looks up
/// each task by its key.
pub(crate) const PURGE_BATCH: Statement<'_> = Statement::each(
    "DELETE FROM task WHERE seq IN (SELECT seq FROM task WHERE finished_at IS NOT NULL \
     AND coalesce(kept_from, finished_at) <= $1 ORDER BY coalesce(kept_from, finished_at) LIMIT 200)",
    "DELETE FROM task WHERE seq = ANY (ARRAY (SELECT seq FROM task WHERE finished_at IS NOT NULL \
     AND coalesce(kept_from, finished_at) <= $1 ORDER BY coalesce(kept_from, finished_at) LIMIT 200))",
);

pub(super) struct Claim {
    pub(super) request: ClaimRequest,
    pub(super) shared: Shared,
}

impl Claim {
    /// The tasks to take, oldest first.
    async fn choose(&self, transaction: &mut dyn Transaction) -> sqlx::Result<Vec<i64>> {
        let (lane, now) = (self.request.lane.as_str(), transaction.now());
        let limit = self.request.limit;
        let rows_of = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let mut room = Room::new(&self.shared.limits);
        if room.is_bounded() {
            for row in transaction.fetch(BUSY, args![]).await? {
                let mine =
                    row.optional_text(1).is_ok_and(|owner| owner == Some(self.request.worker.as_str()));
                room.take(&targets(&row, 0), mine);
            }
        }
        let rows = transaction.fetch(CLAIMABLE, args![lane, now, rows_of(limit)]).await?;
        let all = rows.len() < limit;
        let mut chosen = Vec::with_capacity(rows.len());
        let mut last = -1;
        for row in &rows {
            last = row.int(0)?;
            if room.take_if_free(&targets(row, 1)) {
                chosen.push(last);
            }
        }
        if all || chosen.len() == limit {
            return Ok(chosen);
        }
        // Thousands of tasks of full targets may be in front, so each line is read by itself.
        let wanted = limit - chosen.len();
        let mut found = Vec::new();
        for line in transaction.fetch(LINES, args![lane]).await? {
            let place = line.text(0)?;
            let of = serde_json::from_str::<Vec<String>>(place).unwrap_or_default();
            if !room.is_free(&of) {
                continue;
            }
            let rows =
                transaction.fetch(CLAIMABLE_IN_LINE, args![lane, now, rows_of(wanted), place, last]).await?;
            for row in &rows {
                found.push((row.int(0)?, targets(row, 1)));
            }
        }
        found.sort();
        for (seq, targets) in found {
            if chosen.len() < limit && room.take_if_free(&targets) {
                chosen.push(seq);
            }
        }
        Ok(chosen)
    }

    /// Reads a row of [`TAKE`], or returns the column that cannot be read, and why.
    fn read(&self, row: &Row, now: i64) -> Result<ClaimedTask, (&'static str, sqlx::Error)> {
        let in_column = |column: &'static str| move |error: sqlx::Error| (column, error);
        let token = row.name(1, parse_token).map_err(in_column("id"))?;
        row.json::<Vec<String>>(4).map_err(in_column("targets"))?;
        let failing_since = row.optional_int(9).map_err(in_column("begun_at"))?;
        Ok(ClaimedTask {
            token,
            operation: row.name(2, Operation::parse).map_err(in_column("operation"))?,
            components: row.json(3).map_err(in_column("components"))?,
            payload: row.json(5).map_err(in_column("payload"))?,
            attempt: row.count(6).map_err(in_column("attempt"))?,
            crashes: row.count(7).map_err(in_column("crashes"))?,
            failing_for: failing_since.map(|at| between(at, now)),
            lease: Lease {
                token,
                epoch: row.int(8).map_err(in_column("lease_epoch"))?,
                owner: self.request.worker.clone(),
            },
        })
    }
}

/// How many tasks run on each target, and how many may.
struct Room<'b> {
    /// The limits over all processes, by target; other targets have none.
    bounds: &'b BTreeMap<String, u32>,
    running: BTreeMap<String, i64>,
    /// The limit in this process, the same for each target.
    bound_here: u32,
    running_here: BTreeMap<String, i64>,
}

impl<'b> Room<'b> {
    fn new(limits: &'b Limits) -> Self {
        Self {
            bounds: &limits.per_target,
            running: BTreeMap::new(),
            bound_here: limits.target_concurrency,
            running_here: BTreeMap::new(),
        }
    }

    fn is_bounded(&self) -> bool {
        !self.bounds.is_empty() || self.bound_here < u32::MAX
    }

    /// Counts a task on each of its targets. `here`: it runs in this process.
    fn take(&mut self, targets: &[String], here: bool) {
        for target in targets {
            *self.running.entry(target.clone()).or_default() += 1;
            if here {
                *self.running_here.entry(target.clone()).or_default() += 1;
            }
        }
    }

    fn is_free(&self, targets: &[String]) -> bool {
        let below = |running: &BTreeMap<String, i64>, target: &String, bound: u32| {
            running.get(target).copied().unwrap_or_default() < i64::from(bound)
        };
        targets.iter().all(|target| {
            below(&self.running_here, target, self.bound_here)
                && self.bounds.get(target).is_none_or(|bound| below(&self.running, target, *bound))
        })
    }

    fn take_if_free(&mut self, targets: &[String]) -> bool {
        let free = self.is_free(targets);
        if free {
            self.take(targets, true);
        }
        free
    }
}

/// The targets in a column; empty if they cannot be read. Such a task counts against no limit, and fails when
/// it is taken.
fn targets(row: &Row, index: usize) -> Vec<String> {
    row.json(index).unwrap_or_default()
}

/// The result of a claim.
pub(super) struct Claimed {
    pub(super) claims: Claims,
    /// Tasks that could not be read, and why; they have failed.
    unreadable: Vec<(Option<Token>, String)>,
}

#[async_trait]
impl Write for Claim {
    type Answer = Claimed;

    async fn write(&self, transaction: &mut dyn Transaction) -> sqlx::Result<Claimed> {
        let now = transaction.now();
        let seqs = self.choose(transaction).await?;
        let mut tasks = Vec::with_capacity(seqs.len());
        let mut unreadable = Vec::new();
        if !seqs.is_empty() {
            let seqs = to_json(&seqs)?;
            let running = transition(State::Queued, Event::Claim).map_err(|error| refused(&error))?;
            let until = now.saturating_add(micros(self.request.lease));
            let today = transaction.time_of_day();
            let rows = transaction
                .fetch(TAKE, args![&seqs, running.as_str(), &self.request.worker, until, today, now])
                .await?;
            if transaction.dialect() == Dialect::Sqlite {
                transaction.execute(Statement::both(LOCK), args![&seqs]).await?;
            }
            for row in &rows {
                let seq = row.int(0)?;
                match self.read(row, now) {
                    Ok(task) => tasks.push((seq, task)),
                    Err((column, cause)) => {
                        fail_unreadable(seq, column, transaction).await?;
                        unreadable
                            .push((row.name(1, parse_token).ok(), format!("column `{column}`: {cause}")));
                    }
                }
            }
        }
        tasks.sort_by_key(|(seq, _)| *seq);
        let tasks: Vec<ClaimedTask> = tasks.into_iter().map(|(_, task)| task).collect();
        let next_due = if tasks.len() < self.request.limit {
            let rows = transaction.fetch(NEXT_DUE, args![self.request.lane.as_str(), now]).await?;
            rows.first().map_or(Ok(None), |row| row.optional_int(0))?.map(|due| between(now, due))
        } else {
            None
        };
        Ok(Claimed { claims: Claims { tasks, next_due }, unreadable })
    }

    fn committed(&self, Claimed { unreadable, .. }: &Claimed) {
        for (token, cause) in unreadable {
            match token {
                Some(token) => log::error!(token:% = token; "a stored request cannot be read: {cause}"),
                None => log::error!("a stored request cannot be read: {cause}"),
            }
            self.shared.hint(token.map_or(Hint::Anything, Hint::Finished));
        }
    }
}

/// Fails a task that was just taken and cannot be read. Other tasks are not affected.
async fn fail_unreadable(seq: i64, column: &str, transaction: &mut dyn Transaction) -> sqlx::Result<()> {
    let failed = transition(State::Running, Event::Fail).map_err(|error| refused(&error))?;
    let reason = format!(
        "the stored request cannot be read by this version of Landfall (column `{column}`); send it again"
    );
    let said = line(Level::Error, &reason, transaction);
    append(seq, &[said], transaction).await?;
    finish(seq, failed, None, Some(&reason), transaction).await
}

/// The first task of a lane that this version does not run.
pub(crate) const UNKNOWN: Statement<'_> = Statement::both(concat!(
    "SELECT seq, run_at FROM task WHERE lane = $1 AND state = 'queued' AND blocked = 0 AND +run_at <= $2 AND NOT (",
    known!(),
    ") ORDER BY seq LIMIT 1"
));
const DUE_SINCE: Statement<'_> = Statement::both("SELECT seq, run_at FROM task WHERE seq = $1");

/// Looks at what a claim would take, without taking it.
pub(super) struct LookAtHeads {
    pub(super) worker: String,
    pub(super) shared: Shared,
}

#[async_trait]
impl Write for LookAtHeads {
    type Answer = Vec<Due>;

    async fn write(&self, transaction: &mut dyn Transaction) -> sqlx::Result<Vec<Due>> {
        let now = transaction.now();
        let mut heads = Vec::new();
        for lane in Lane::ALL {
            let (worker, lease) = (self.worker.clone(), Duration::ZERO);
            let request = ClaimRequest { lane, worker, lease, limit: 1 };
            let claim = Claim { request, shared: self.shared.clone() };
            let mut rows = Vec::new();
            if let Some(seq) = claim.choose(transaction).await?.first() {
                rows.extend(
                    transaction.fetch(DUE_SINCE, args![*seq]).await?.into_iter().map(|row| (row, true)),
                );
            }
            let unknown = transaction.fetch(UNKNOWN, args![lane.as_str(), now]).await?;
            rows.extend(unknown.into_iter().map(|row| (row, false)));
            for (row, known) in rows {
                heads.push(Due { lane, seq: row.int(0)?, due_for: between(row.int(1)?, now), known });
            }
        }
        Ok(heads)
    }
}

/// The most by which one tick advances the clock of retention. A longer time counts only this much, because a
/// clock that jumped, a paused process and a downtime of all processes look the same.
const LONGEST_TICK: Duration = Duration::from_secs(600);

/// Advances the clock of retention. It also shows whether the store can be written.
pub(crate) const TICK: Statement<'_> = Statement::each(
    "UPDATE clock SET elapsed = elapsed + max(0, min($1 - seen_at, $2)), seen_at = $1 WHERE one = 1 RETURNING elapsed",
    "UPDATE clock SET elapsed = elapsed + greatest(0, least($1 - seen_at, $2)), seen_at = $1 WHERE one = 1 \
     RETURNING elapsed",
);

/// Returns the clock of retention: the total time in which any process ran, in microseconds.
pub(super) struct Tick;

#[async_trait]
impl Write for Tick {
    type Answer = i64;

    async fn write(&self, transaction: &mut dyn Transaction) -> sqlx::Result<i64> {
        let rows = transaction.fetch(TICK, args![transaction.now(), micros(LONGEST_TICK)]).await?;
        rows.first().ok_or(sqlx::Error::RowNotFound)?.int(0)
    }
}

pub(super) struct Heartbeat {
    pub(super) lease: Lease,
    pub(super) extension: Duration,
}

#[async_trait]
impl Write for Heartbeat {
    type Answer = Option<State>;

    async fn write(&self, transaction: &mut dyn Transaction) -> sqlx::Result<Option<State>> {
        let until = transaction.now().saturating_add(micros(self.extension));
        let token = self.lease.token.to_string();
        transaction
            .fetch(HEARTBEAT, args![&token, self.lease.epoch, until])
            .await?
            .first()
            .map(|row| row.name(0, State::parse))
            .transpose()
    }
}

pub(super) struct AppendLogs {
    pub(super) lease: Lease,
    pub(super) lines: Vec<LogLine>,
    pub(super) max_log_lines: u32,
}

#[async_trait]
impl Write for AppendLogs {
    type Answer = Option<State>;

    async fn write(&self, transaction: &mut dyn Transaction) -> sqlx::Result<Option<State>> {
        let Some(held) = held(&self.lease, transaction).await? else { return Ok(None) };
        append_bounded(&held, &self.lines, None, self.max_log_lines, transaction).await?;
        Ok(Some(held.state))
    }
}

pub(super) struct Settle {
    pub(super) lease: Lease,
    pub(super) settlement: Settlement,
    pub(super) shared: Shared,
}

#[async_trait]
impl Write for Settle {
    type Answer = Result<Option<State>, IllegalTransition>;

    async fn write(&self, transaction: &mut dyn Transaction) -> sqlx::Result<Self::Answer> {
        let Some(held) = held(&self.lease, transaction).await? else { return Ok(Ok(None)) };
        let Settlement { ending, lines, closing } = &self.settlement;
        let next = match transition(held.state, ending.event()) {
            Ok(next) => next,
            Err(illegal) => return Ok(Err(illegal)),
        };
        // If the run did not see the stop, its closing line would be wrong, so it is replaced.
        let unheard = (next == State::Terminated).then_some(ending).and_then(|ending| match ending {
            Ending::Release => Some("stopped on request, as the process that ran it ended".to_owned()),
            Ending::Retry { reason, .. } => Some(format!("{reason}; not tried again, a stop was requested")),
            _ => None,
        });
        let closing = match unheard {
            Some(text) => Some(line(Level::Info, &text, transaction)),
            None => closing.clone(),
        };
        append_bounded(&held, lines, closing, self.shared.limits.max_log_lines, transaction).await?;
        if next == State::Queued {
            let (wait, handed_back) = match ending {
                Ending::Retry { after, .. } => (*after, 0_i64),
                _ => (Duration::ZERO, 1),
            };
            let now = transaction.now();
            let run_at = now.saturating_add(micros(wait));
            let args = args![held.seq, next.as_str(), run_at, handed_back, 0_i64, now];
            transaction.execute(REQUEUE, args).await?;
            transaction.execute(UNLOCK, args![held.seq]).await?;
        } else {
            let (outcome, reason) = match ending {
                Ending::Succeed { outcome } => (Some(outcome), None),
                Ending::Fail { outcome, reason } | Ending::Retry { outcome, reason, .. } => {
                    (outcome.as_ref(), Some(reason.as_str()))
                }
                Ending::Release => (None, None),
                Ending::Stopped { outcome } => (outcome.as_ref(), None),
            };
            let reason = if next == State::Terminated { Some("stopped on request") } else { reason };
            finish(held.seq, next, outcome, reason, transaction).await?;
        }
        Ok(Ok(Some(next)))
    }

    fn committed(&self, answer: &Self::Answer) {
        match answer {
            Ok(Some(State::Queued)) => {
                for lane in Lane::ALL {
                    self.shared.hint(Hint::Queued(lane));
                }
            }
            Ok(Some(_)) => self.shared.hint(Hint::Finished(self.lease.token)),
            Ok(None) | Err(_) => {}
        }
    }
}

pub(super) struct RequestStop {
    pub(super) token: Token,
    pub(super) scope: StopScope,
    pub(super) shared: Shared,
}

#[async_trait]
impl Write for RequestStop {
    type Answer = Option<State>;

    async fn write(&self, transaction: &mut dyn Transaction) -> sqlx::Result<Option<State>> {
        let rows = transaction.fetch(FIND, args![&self.token.to_string()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (seq, state) = (row.int(0)?, row.name(1, State::parse)?);
        let left_alone = state == State::Running && self.scope == StopScope::Waiting;
        if state.is_terminal() || state == State::Stopping || left_alone {
            return Ok(Some(state));
        }
        let next = transition(state, Event::Stop).map_err(|error| refused(&error))?;
        let said = line(Level::Info, "a stop was requested", transaction);
        append(seq, &[said], transaction).await?;
        if next.is_terminal() {
            let reason = match row.int(2)? {
                0 => "stopped on request before it began",
                _ => "stopped on request while it waited for its next run",
            };
            finish(seq, next, None, Some(reason), transaction).await?;
        } else {
            transaction.execute(STOPPING, args![seq, next.as_str()]).await?;
        }
        Ok(Some(next))
    }

    fn committed(&self, answer: &Option<State>) {
        match answer {
            Some(State::Stopping) => self.shared.hint(Hint::Stop(self.token)),
            Some(_) => self.shared.hint(Hint::Finished(self.token)),
            None => {}
        }
    }
}

pub(super) struct ExpireLeases {
    pub(super) shared: Shared,
}

#[async_trait]
impl Write for ExpireLeases {
    type Answer = Vec<Expired>;

    async fn write(&self, transaction: &mut dyn Transaction) -> sqlx::Result<Vec<Expired>> {
        let max_crashes = self.shared.limits.max_crashes;
        let now = transaction.now();
        let rows = transaction.fetch(LOST, args![now, SWEEP]).await?;
        let mut swept = Vec::with_capacity(rows.len());
        for row in &rows {
            let seq = row.int(0)?;
            let crashes = row.clamped(3).saturating_add(1);
            let event = if crashes >= max_crashes { Event::GiveUp } else { Event::Expire };
            let Ok(before) = row.name(2, State::parse) else { continue };
            let state = transition(before, event).map_err(|error| refused(&error))?;
            if state == State::Queued {
                let pause = self.shared.limits.pause_after(crashes);
                let run_at = now.saturating_add(micros(pause));
                transaction.execute(REQUEUE, args![seq, state.as_str(), run_at, 0_i64, 1_i64, now]).await?;
                let again = if pause.is_zero() { String::new() } else { format!(" in {pause:?}") };
                let text = format!(
                    "the run was interrupted ({crashes} of at most {max_crashes}); it starts again{again}"
                );
                let said = line(Level::Warning, &text, transaction);
                append(seq, &[said], transaction).await?;
                transaction.execute(UNLOCK, args![seq]).await?;
            } else {
                transaction.execute(CRASHED, args![seq, crashes]).await?;
                let (level, reason) = if state == State::Terminated {
                    (
                        Level::Warning,
                        "stopped on request; the run was interrupted before it could confirm".to_owned(),
                    )
                } else {
                    (Level::Error, format!("given up after {crashes} interrupted runs"))
                };
                let said = line(level, &reason, transaction);
                append(seq, &[said], transaction).await?;
                finish(seq, state, None, Some(&reason), transaction).await?;
            }
            if let Ok(token) = row.name(1, parse_token) {
                swept.push(Expired { token, state, crashes });
            }
        }
        Ok(swept)
    }

    fn committed(&self, swept: &Vec<Expired>) {
        for expired in swept {
            if expired.state.is_terminal() {
                self.shared.hint(Hint::Finished(expired.token));
            }
        }
        if !swept.is_empty() {
            for lane in Lane::ALL {
                self.shared.hint(Hint::Queued(lane));
            }
        }
    }
}

pub(super) struct PutDeployment {
    pub(super) lease: Lease,
    pub(super) deployment: Deployment,
}

#[async_trait]
impl Write for PutDeployment {
    type Answer = bool;

    async fn write(&self, transaction: &mut dyn Transaction) -> sqlx::Result<bool> {
        let Some(held) = held(&self.lease, transaction).await? else { return Ok(false) };
        let Deployment { key, target, status, access, specific, kind, product, info, .. } = &self.deployment;
        let access = access.as_ref().map(to_json).transpose()?;
        let info = info.as_ref().map(to_json).transpose()?;
        let today = transaction.time_of_day();
        let written = transaction
            .execute(
                PUT_DEPLOYMENT,
                args![
                    held.seq,
                    &key.component,
                    &key.environment,
                    target,
                    status.as_str(),
                    access.as_deref(),
                    today,
                    &to_json(specific)?,
                    FORMAT,
                    kind.as_ref().map(ComponentKind::name),
                    product.as_deref(),
                    info.as_deref(),
                ],
            )
            .await?;
        Ok(written > 0)
    }
}

pub(super) struct Remember {
    pub(super) lease: Lease,
    pub(super) key: ComponentKey,
    pub(super) memory: Option<String>,
}

#[async_trait]
impl Write for Remember {
    type Answer = bool;

    async fn write(&self, transaction: &mut dyn Transaction) -> sqlx::Result<bool> {
        let Some(held) = held(&self.lease, transaction).await? else { return Ok(false) };
        let ComponentKey { component, environment } = &self.key;
        let args = args![held.seq, component, environment, self.memory.as_deref()];
        Ok(transaction.execute(REMEMBER, args).await? > 0)
    }
}

pub(super) struct Purge {
    pub(super) finished_until: i64,
}

#[async_trait]
impl Write for Purge {
    type Answer = u64;

    async fn write(&self, transaction: &mut dyn Transaction) -> sqlx::Result<u64> {
        transaction.execute(PURGE_BATCH, args![self.finished_until]).await
    }
}

/// A task under a valid lease.
struct Held {
    seq: i64,
    state: State,
    log_lines: u32,
}

/// Reads a task under its lease: `None` if the lease is not the task's current one. The row is locked until the
/// transaction ends.
async fn held(lease: &Lease, transaction: &mut dyn Transaction) -> sqlx::Result<Option<Held>> {
    transaction
        .fetch(HELD, args![&lease.token.to_string(), lease.epoch])
        .await?
        .first()
        .map(|row| {
            Ok(Held { seq: row.int(0)?, state: row.name(1, State::parse)?, log_lines: row.clamped(2) })
        })
        .transpose()
}

/// Appends as many lines as the limit allows, and always `closing`. `task.log_lines` counts the lines without
/// `closing`. After the line that reports dropped lines, it exceeds the limit by one, and no further lines are
/// appended.
async fn append_bounded(
    held: &Held,
    lines: &[LogLine],
    closing: Option<LogLine>,
    limit: u32,
    transaction: &mut dyn Transaction,
) -> sqlx::Result<()> {
    let mut kept = Vec::new();
    if !lines.is_empty() && held.log_lines <= limit {
        let room = usize::try_from(limit - held.log_lines).unwrap_or(usize::MAX);
        kept.extend(lines.iter().take(room).cloned());
        if lines.len() > room {
            kept.push(line(Level::Warning, "further lines are not kept", transaction));
        }
    }
    let counted = i64::try_from(kept.len()).unwrap_or(i64::MAX);
    kept.extend(closing);
    append(held.seq, &kept, transaction).await?;
    if counted > 0 {
        transaction.execute(COUNT_LINES, args![held.seq, counted]).await?;
    }
    Ok(())
}

/// A row of `task_log` as the JSON functions of the databases read it.
#[derive(Serialize)]
struct NewLine<'a> {
    at: i64,
    level: &'static str,
    phase: Option<&'a str>,
    message: String,
}

async fn append(seq: i64, lines: &[LogLine], transaction: &mut dyn Transaction) -> sqlx::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let rows: Vec<NewLine<'_>> = lines
        .iter()
        .map(|line| NewLine {
            at: line.at.timestamp_micros(),
            level: level_name(line.level),
            phase: line.phase.as_deref(),
            message: without_nul(&line.message),
        })
        .collect();
    transaction.execute(APPEND, args![seq, &to_json(&rows)?]).await?;
    Ok(())
}

/// Writes a terminal state, and unblocks the tasks that waited for this one.
async fn finish(
    seq: i64,
    state: State,
    outcome: Option<&Value>,
    reason: Option<&str>,
    transaction: &mut dyn Transaction,
) -> sqlx::Result<()> {
    let outcome = outcome.map(to_json).transpose()?;
    let reason = reason.map(without_nul);
    let today = transaction.time_of_day();
    transaction
        .execute(
            FINISH,
            args![
                seq,
                state.as_str(),
                outcome.as_deref(),
                reason.as_deref(),
                today,
                transaction.now(),
                micros(LONGEST_TICK)
            ],
        )
        .await?;
    if transaction.dialect() == Dialect::Sqlite {
        for statement in [UNLOCK, Statement::both(UNBLOCK), Statement::both(LEAVE)] {
            transaction.execute(statement, args![seq]).await?;
        }
    }
    Ok(())
}

/// The text with U+FFFD instead of NUL, because PostgreSQL texts cannot contain NUL.
fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{FFFD}")
}

fn line(level: Level, message: &str, transaction: &dyn Transaction) -> LogLine {
    let at = DateTime::from_timestamp_micros(transaction.time_of_day()).unwrap_or_else(Utc::now);
    LogLine { at, level, message: message.to_owned(), phase: None }
}

fn parse_token(text: &str) -> Option<Token> {
    text.parse().ok()
}

/// The state machine refused a row that the query had selected for it, so the row is not valid.
fn refused(error: &IllegalTransition) -> sqlx::Error {
    sqlx::Error::Decode(error.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_takes_slots_on_all_its_targets_or_none() {
        let per_target = std::sync::Arc::new(BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]));
        let limits = Limits { per_target, target_concurrency: 3, ..Limits::default() };
        let on = |targets: &[&str]| targets.iter().map(|target| (*target).to_owned()).collect::<Vec<_>>();
        let full = |room: &Room<'_>| -> Vec<&str> {
            ["a", "b", "c"].into_iter().filter(|target| !room.is_free(&on(&[target]))).collect()
        };
        let mut room = Room::new(&limits);
        assert!(room.take_if_free(&on(&["b", "c"])));
        assert!(room.take_if_free(&on(&["a", "b"])));
        assert_eq!(full(&room), ["a", "b"]);
        assert!(!room.take_if_free(&on(&["b"])));
        assert!(room.take_if_free(&on(&["c"])));
        assert!(room.take_if_free(&[]));
        // The limit was lowered, and more tasks are running: the target is full, too.
        let mut room = Room::new(&limits);
        room.take(&on(&["a"]), false);
        room.take(&on(&["a"]), false);
        assert_eq!(full(&room), ["a"]);
        assert!(!room.take_if_free(&on(&["a", "b"])));
        assert_eq!(full(&room), ["a"], "nothing was taken of b");
        // Tasks of other processes do not count against the limit of this one.
        for _ in 0..3 {
            room.take(&on(&["c"]), false);
        }
        for _ in 0..3 {
            assert!(room.take_if_free(&on(&["c"])));
        }
        assert!(!room.take_if_free(&on(&["c"])));
    }
}
