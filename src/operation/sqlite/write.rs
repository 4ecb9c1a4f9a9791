//! Every write but the submission, each a transaction of its own meaning.

use std::time::Duration;

use async_trait::async_trait;
use chrono::Utc;
use serde::Serialize;
use serde_json::Value;
use sqlx::SqliteConnection;

use super::database::Write;
use super::{Cells, Shared, level_name, micros, to_json};
use crate::operation::state::{Event, IllegalTransition, State, transition};
use crate::operation::store::{ClaimRequest, Claims, Ending, Expired, Hint, Settlement};
use crate::operation::task::{ClaimedTask, Deployment, Lane, Lease, Operation, Token};
use crate::technology::{Level, LogLine};

/// Lost leases swept in one transaction at most.
const SWEEP: i64 = 100;
/// Terminal tasks collected in one transaction at most: small, because others wait for the writer meanwhile.
const PURGE: i64 = 200;

/// The oldest tasks that wait for nothing. One whose runs crashed twice may be what takes the process down: such tasks
/// run one at a time, so that the culprit uses up its own chances and not those of its neighbours.
pub(super) const CLAIMABLE: &str = "\
    SELECT seq, id, operation, components, payload, attempt, max_attempts, crashes, lease_epoch, begun_at FROM task \
    WHERE lane = ?1 AND state = 'queued' AND blocked = 0 AND run_at <= ?2 AND (crashes < 2 OR seq = (\
      SELECT min(s.seq) FROM task s \
      WHERE s.state = 'queued' AND s.blocked = 0 AND s.crashes >= 2 AND s.run_at <= ?2 \
      AND NOT EXISTS (SELECT 1 FROM task r WHERE r.lease_until IS NOT NULL AND r.crashes >= 2))) \
    ORDER BY seq LIMIT ?3";
/// When the next task of a lane becomes due by time alone.
pub(super) const NEXT_DUE: &str =
    "SELECT min(run_at) FROM task WHERE lane = ? AND state = 'queued' AND blocked = 0 AND run_at > ?";
/// Lets through the first in line for each component that came free, if it is the first for all of its components.
pub(super) const UNBLOCK: &str = "\
    UPDATE task SET blocked = 0 WHERE blocked = 1 AND seq IN (\
      SELECT (SELECT min(next.task_seq) FROM task_component next \
              WHERE next.component = free.value ->> 'component' \
              AND next.environment = free.value ->> 'environment') \
      FROM json_each(?) free) \
    AND NOT EXISTS (\
      SELECT 1 FROM task_component mine JOIN task_component earlier USING (component, environment) \
      WHERE mine.task_seq = task.seq AND earlier.task_seq < task.seq)";

/// Ends the leases of a process that is gone, and its waits for a time that its clock told. Who waits because its
/// process was lost again and again goes on waiting, though not for longer than it would have to from now.
pub(super) struct Reclaim {
    pub(super) shared: Shared,
}

#[async_trait]
impl Write for Reclaim {
    type Answer = ();

    async fn write(&self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        sqlx::query("UPDATE task SET lease_until = 0 WHERE lease_until IS NOT NULL")
            .execute(&mut *connection)
            .await?;
        let now = self.shared.clock.micros();
        let waiting =
            sqlx::query("SELECT seq, crashes, run_at FROM task WHERE state = 'queued' AND run_at > ?")
                .bind(now)
                .fetch_all(&mut *connection)
                .await?;
        for row in &waiting {
            let row = Cells(row);
            let pause = self.shared.limits.pause_after(row.get(1)?);
            sqlx::query("UPDATE task SET run_at = ?2 WHERE seq = ?1")
                .bind(row.get::<i64>(0)?)
                .bind(row.get::<i64>(2)?.min(now.saturating_add(micros(pause))))
                .execute(&mut *connection)
                .await?;
        }
        Ok(())
    }
}

pub(super) struct Claim {
    pub(super) request: ClaimRequest,
    pub(super) shared: Shared,
}

#[async_trait]
impl Write for Claim {
    type Answer = Claims;

    async fn write(&self, connection: &mut SqliteConnection) -> sqlx::Result<Claims> {
        let lane = self.request.lane.as_str();
        let now = self.shared.clock.micros();
        let limit = i64::try_from(self.request.limit).unwrap_or(i64::MAX);
        let rows =
            sqlx::query(CLAIMABLE).bind(lane).bind(now).bind(limit).fetch_all(&mut *connection).await?;

        let mut seqs: Vec<i64> = Vec::with_capacity(rows.len());
        let mut tasks = Vec::with_capacity(rows.len());
        for row in &rows {
            let row = Cells(row);
            let token = row.name(1, parse_token)?;
            seqs.push(row.get(0)?);
            tasks.push(ClaimedTask {
                token,
                operation: row.name(2, Operation::parse)?,
                components: row.json(3)?,
                payload: row.json(4)?,
                attempt: row.get::<u32>(5)?.saturating_add(1),
                max_attempts: row.get(6)?,
                crashes: row.get(7)?,
                begun: row.get::<Option<i64>>(9)?.map_or(Duration::ZERO, |at| {
                    Duration::from_micros(u64::try_from(now.saturating_sub(at)).unwrap_or(0))
                }),
                lease: Lease {
                    token,
                    epoch: row.get::<i64>(8)?.saturating_add(1),
                    owner: self.request.worker.clone(),
                },
            });
        }
        if !seqs.is_empty() {
            let seqs = to_json(&seqs)?;
            let running = transition(State::Queued, Event::Claim).map_err(|error| refused(&error))?;
            sqlx::query(
                "UPDATE task SET state = ?2, attempt = attempt + 1, lease_epoch = lease_epoch + 1, \
                 lease_owner = ?3, lease_until = ?4, started_at = ?5, begun_at = coalesce(begun_at, ?6) \
                 WHERE seq IN (SELECT value FROM json_each(?1))",
            )
            .bind(&seqs)
            .bind(running.as_str())
            .bind(&self.request.worker)
            .bind(self.shared.clock.micros_in(self.request.lease))
            .bind(Utc::now().timestamp_micros())
            .bind(now)
            .execute(&mut *connection)
            .await?;
            sqlx::query(
                "INSERT INTO running_component (component, environment, task_seq) \
                 SELECT component, environment, task_seq FROM task_component \
                 WHERE task_seq IN (SELECT value FROM json_each(?))",
            )
            .bind(&seqs)
            .execute(&mut *connection)
            .await?;
        }

        let next_due = if tasks.len() < self.request.limit {
            let due: Option<i64> =
                sqlx::query_scalar(NEXT_DUE).bind(lane).bind(now).fetch_one(connection).await?;
            due.map(|due| Duration::from_micros(due.saturating_sub(now).unsigned_abs()))
        } else {
            None
        };
        Ok(Claims { tasks, next_due })
    }
}

pub(super) struct Heartbeat {
    pub(super) lease: Lease,
    pub(super) until: i64,
}

#[async_trait]
impl Write for Heartbeat {
    type Answer = Option<State>;

    async fn write(&self, connection: &mut SqliteConnection) -> sqlx::Result<Option<State>> {
        sqlx::query(
            "UPDATE task SET lease_until = ?3 \
             WHERE id = ?1 AND lease_epoch = ?2 AND state IN ('running', 'stopping') RETURNING state",
        )
        .bind(self.lease.token.to_string())
        .bind(self.lease.epoch)
        .bind(self.until)
        .fetch_optional(connection)
        .await?
        .map(|row| Cells(&row).name(0, State::parse))
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

    async fn write(&self, connection: &mut SqliteConnection) -> sqlx::Result<Option<State>> {
        let Some(held) = held(&self.lease, connection).await? else { return Ok(None) };
        append_bounded(&held, &self.lines, self.max_log_lines, connection).await?;
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

    async fn write(&self, connection: &mut SqliteConnection) -> sqlx::Result<Self::Answer> {
        let Some(held) = held(&self.lease, connection).await? else { return Ok(Ok(None)) };
        let Settlement { ending, lines, closing } = &self.settlement;
        let next = match transition(held.state, ending.event()) {
            Ok(next) => next,
            Err(illegal) => return Ok(Err(illegal)),
        };
        append_bounded(&held, lines, self.shared.limits.max_log_lines, connection).await?;
        append(held.seq, closing.as_slice(), connection).await?;
        if next == State::Queued {
            let (wait, handed_back) = match ending {
                Ending::Retry { after, .. } => (*after, 0),
                _ => (Duration::ZERO, 1),
            };
            sqlx::query(
                "UPDATE task SET state = ?2, run_at = ?3, attempt = attempt - ?4, lease_owner = NULL, \
                 lease_until = NULL WHERE seq = ?1",
            )
            .bind(held.seq)
            .bind(next.as_str())
            .bind(self.shared.clock.micros_in(wait))
            .bind(handed_back)
            .execute(&mut *connection)
            .await?;
            unlock(held.seq, connection).await?;
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
            finish(held.seq, next, outcome, reason, connection).await?;
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
    pub(super) shared: Shared,
}

#[async_trait]
impl Write for RequestStop {
    type Answer = Option<State>;

    async fn write(&self, connection: &mut SqliteConnection) -> sqlx::Result<Option<State>> {
        let Some(row) = sqlx::query("SELECT seq, state FROM task WHERE id = ?")
            .bind(self.token.to_string())
            .fetch_optional(&mut *connection)
            .await?
        else {
            return Ok(None);
        };
        let row = Cells(&row);
        let (seq, state) = (row.get(0)?, row.name(1, State::parse)?);
        if state.is_terminal() || state == State::Stopping {
            return Ok(Some(state));
        }
        let next = transition(state, Event::Stop).map_err(|error| refused(&error))?;
        append(seq, &[line(Level::Info, "a stop was requested")], connection).await?;
        if next.is_terminal() {
            finish(seq, next, None, Some("stopped on request before it began"), connection).await?;
        } else {
            // From here on the same request is a new one: it asks for what this task will not finish.
            sqlx::query("UPDATE task SET state = ?2, dedupe_key = NULL WHERE seq = ?1")
                .bind(seq)
                .bind(next.as_str())
                .execute(connection)
                .await?;
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

    async fn write(&self, connection: &mut SqliteConnection) -> sqlx::Result<Vec<Expired>> {
        let max_crashes = self.shared.limits.max_crashes;
        let now = self.shared.clock.micros();
        let rows = sqlx::query(
            "SELECT seq, id, state, crashes FROM task WHERE lease_until IS NOT NULL AND lease_until <= ? \
             ORDER BY lease_until LIMIT ?",
        )
        .bind(now)
        .bind(SWEEP)
        .fetch_all(&mut *connection)
        .await?;
        let mut swept = Vec::with_capacity(rows.len());
        for row in &rows {
            let row = Cells(row);
            let seq: i64 = row.get(0)?;
            let crashes = row.get::<u32>(3)?.saturating_add(1);
            let event = if crashes >= max_crashes { Event::GiveUp } else { Event::Expire };
            let state = transition(row.name(2, State::parse)?, event).map_err(|error| refused(&error))?;
            if state == State::Queued {
                let pause = self.shared.limits.pause_after(crashes);
                sqlx::query(
                    "UPDATE task SET state = ?2, crashes = ?3, run_at = ?4, lease_owner = NULL, lease_until = NULL \
                     WHERE seq = ?1",
                )
                .bind(seq)
                .bind(state.as_str())
                .bind(crashes)
                .bind(now.saturating_add(pause.as_micros().try_into().unwrap_or(i64::MAX)))
                .execute(&mut *connection)
                .await?;
                let again = if pause.is_zero() { String::new() } else { format!(" in {pause:?}") };
                let text = format!(
                    "the run was interrupted ({crashes} of at most {max_crashes}); it starts again{again}"
                );
                append(seq, &[line(Level::Warning, &text)], connection).await?;
                unlock(seq, connection).await?;
            } else {
                sqlx::query("UPDATE task SET crashes = ?2 WHERE seq = ?1")
                    .bind(seq)
                    .bind(crashes)
                    .execute(&mut *connection)
                    .await?;
                let (level, reason) = if state == State::Terminated {
                    (
                        Level::Warning,
                        "stopped on request; the run was interrupted before it could confirm".to_owned(),
                    )
                } else {
                    (Level::Error, format!("given up after {crashes} interrupted runs"))
                };
                append(seq, &[line(level, &reason)], connection).await?;
                finish(seq, state, None, Some(&reason), connection).await?;
            }
            swept.push(Expired { token: row.name(1, parse_token)?, state, crashes });
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

    async fn write(&self, connection: &mut SqliteConnection) -> sqlx::Result<bool> {
        let Deployment { key, target, status, access, specific, .. } = &self.deployment;
        let written = sqlx::query(
            "INSERT INTO deployment (component, environment, target, status, access, updated_at, specific) \
             SELECT ?3, ?4, ?5, ?6, ?7, ?8, ?9 WHERE EXISTS (\
               SELECT 1 FROM task t JOIN running_component r ON r.task_seq = t.seq \
               WHERE t.id = ?1 AND t.lease_epoch = ?2 AND t.state IN ('running', 'stopping') \
               AND r.component = ?3 AND r.environment = ?4) \
             ON CONFLICT (component, environment) DO UPDATE SET target = excluded.target, \
             status = excluded.status, access = excluded.access, updated_at = excluded.updated_at, \
             specific = excluded.specific",
        )
        .bind(self.lease.token.to_string())
        .bind(self.lease.epoch)
        .bind(&key.component)
        .bind(&key.environment)
        .bind(target)
        .bind(status.as_str())
        .bind(access.as_ref().map(to_json).transpose()?)
        .bind(Utc::now().timestamp_micros())
        .bind(to_json(specific)?)
        .execute(connection)
        .await?;
        Ok(written.rows_affected() > 0)
    }
}

pub(super) struct Purge {
    pub(super) finished_until: i64,
}

#[async_trait]
impl Write for Purge {
    type Answer = u64;

    async fn write(&self, connection: &mut SqliteConnection) -> sqlx::Result<u64> {
        let gone = sqlx::query(
            "DELETE FROM task WHERE seq IN (SELECT seq FROM task WHERE finished_at IS NOT NULL \
             AND finished_at <= ? ORDER BY finished_at LIMIT ?)",
        )
        .bind(self.finished_until)
        .bind(PURGE)
        .execute(connection)
        .await?;
        Ok(gone.rows_affected())
    }
}

/// A task under a lease that is still good.
struct Held {
    seq: i64,
    state: State,
    log_lines: u32,
}

/// The fence: nothing for a lease that is not the task's current one.
async fn held(lease: &Lease, connection: &mut SqliteConnection) -> sqlx::Result<Option<Held>> {
    sqlx::query(
        "SELECT seq, state, log_lines FROM task \
         WHERE id = ? AND lease_epoch = ? AND state IN ('running', 'stopping')",
    )
    .bind(lease.token.to_string())
    .bind(lease.epoch)
    .fetch_optional(connection)
    .await?
    .map(|row| {
        let row = Cells(&row);
        Ok(Held { seq: row.get(0)?, state: row.name(1, State::parse)?, log_lines: row.get(2)? })
    })
    .transpose()
}

/// Appends as many lines as the limit leaves room for. `task.log_lines` counts them, and passes the limit by one
/// when the line that says so is written.
async fn append_bounded(
    held: &Held,
    lines: &[LogLine],
    limit: u32,
    connection: &mut SqliteConnection,
) -> sqlx::Result<()> {
    if lines.is_empty() || held.log_lines > limit {
        return Ok(());
    }
    let room = usize::try_from(limit - held.log_lines).unwrap_or(usize::MAX);
    let mut kept: Vec<LogLine> = lines.iter().take(room).cloned().collect();
    if lines.len() > room {
        kept.push(line(Level::Warning, "further lines are not kept"));
    }
    append(held.seq, &kept, connection).await?;
    sqlx::query("UPDATE task SET log_lines = log_lines + ?2 WHERE seq = ?1")
        .bind(held.seq)
        .bind(i64::try_from(kept.len()).unwrap_or(i64::MAX))
        .execute(connection)
        .await?;
    Ok(())
}

/// A row of `task_log` as SQLite's JSON functions read it.
#[derive(Serialize)]
struct NewLine<'a> {
    at: i64,
    level: &'static str,
    phase: Option<&'a str>,
    message: &'a str,
}

async fn append(seq: i64, lines: &[LogLine], connection: &mut SqliteConnection) -> sqlx::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let rows: Vec<NewLine<'_>> = lines
        .iter()
        .map(|line| NewLine {
            at: line.at.timestamp_micros(),
            level: level_name(line.level),
            phase: line.phase.as_deref(),
            message: &line.message,
        })
        .collect();
    sqlx::query(
        "INSERT INTO task_log (task_seq, line, at, level, phase, message) \
         SELECT ?1, key + (SELECT coalesce(max(line) + 1, 0) FROM task_log WHERE task_seq = ?1), \
         value ->> 'at', value ->> 'level', value ->> 'phase', value ->> 'message' FROM json_each(?2)",
    )
    .bind(seq)
    .bind(to_json(&rows)?)
    .execute(connection)
    .await?;
    Ok(())
}

/// Frees the components of a task that runs no longer.
async fn unlock(seq: i64, connection: &mut SqliteConnection) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM running_component WHERE task_seq = ?").bind(seq).execute(connection).await?;
    Ok(())
}

/// Writes a terminal state, and lets the tasks through that waited for this one.
async fn finish(
    seq: i64,
    state: State,
    outcome: Option<&Value>,
    reason: Option<&str>,
    connection: &mut SqliteConnection,
) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE task SET state = ?2, outcome = ?3, reason = ?4, finished_at = ?5, dedupe_key = NULL, \
         payload = NULL, blocked = 0, lease_owner = NULL, lease_until = NULL WHERE seq = ?1",
    )
    .bind(seq)
    .bind(state.as_str())
    .bind(outcome.map(to_json).transpose()?)
    .bind(reason)
    .bind(Utc::now().timestamp_micros())
    .execute(&mut *connection)
    .await?;
    unlock(seq, connection).await?;
    let freed = sqlx::query(
        "DELETE FROM task_component WHERE task_seq = ? \
         RETURNING json_object('component', component, 'environment', environment)",
    )
    .bind(seq)
    .fetch_all(&mut *connection)
    .await?;
    if freed.is_empty() {
        return Ok(());
    }
    let freed: Vec<&str> = freed.iter().map(|row| Cells(row).get(0)).collect::<sqlx::Result<_>>()?;
    sqlx::query(UNBLOCK).bind(format!("[{}]", freed.join(","))).execute(connection).await?;
    Ok(())
}

fn line(level: Level, message: &str) -> LogLine {
    LogLine { at: Utc::now(), level, message: message.to_owned(), phase: None }
}

fn parse_token(text: &str) -> Option<Token> {
    text.parse().ok()
}

/// The state machine refused what the query just selected for it: the row is not what the schema promises.
fn refused(error: &IllegalTransition) -> sqlx::Error {
    sqlx::Error::Decode(error.to_string().into())
}
