//! The embedded store: one SQLite file, one process.
//!
//! The process is alone with its file (see [`database`]), so every lease found at opening belongs to a process
//! that is gone: [`SqliteStore::open`] ends those leases, and the next sweep puts the tasks back without waiting
//! for the time to run out. Leases and due times are measured by a clock that only goes forward, whatever happens
//! to the time of day. News of commits need no channel outside the process.

mod database;
mod submit;
mod write;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use tokio::sync::broadcast;

use self::database::{Database, unavailable};
use self::submit::Submissions;
use super::state::State;
use super::store::{ClaimRequest, Claims, Expired, Hint, Limits, Settlement, Store, Submission};
use super::task::{
    ComponentKey, Counts, Deployment, DeploymentStatus, Lease, Operation, Submitted, Task, Token,
};
use crate::error::{Error, Result};
use crate::technology::{Level, LogLine};

/// Hints kept for a slow listener; one that falls further behind looks everywhere.
const HINTS: usize = 1024;

/// See the module documentation.
pub struct SqliteStore {
    database: Arc<Database>,
    submissions: Submissions,
    shared: Shared,
}

/// What every write needs.
#[derive(Clone)]
struct Shared {
    limits: Limits,
    clock: Clock,
    hints: broadcast::Sender<Hint>,
}

impl SqliteStore {
    /// Opens or creates the store at `location`: a path, or a URL `sqlite:PATH` or `sqlite://PATH`.
    ///
    /// Fails with [`crate::error::Kind::Conflict`] while another process has it open, and with
    /// [`crate::error::Kind::Permanent`] where the file cannot be created, read or brought up to date.
    pub async fn open(location: &str, limits: Limits) -> Result<Self> {
        let path = path_of(location)?;
        let database = Arc::new(Database::open(path).await?);
        let (hints, _) = broadcast::channel(HINTS);
        let shared = Shared { limits, clock: Clock::start(), hints };
        database.write(write::Reclaim { shared: shared.clone() }).await?;
        let submissions = Submissions::start(Arc::clone(&database), shared.clone());
        Ok(Self { database, submissions, shared })
    }
}

fn path_of(location: &str) -> Result<&Path> {
    let path =
        location.strip_prefix("sqlite://").or_else(|| location.strip_prefix("sqlite:")).unwrap_or(location);
    if path.is_empty() || path.contains('?') || path.contains(":memory:") {
        return Err(Error::permanent(format!(
            "`{location}` does not name a file for the operation store: write `sqlite://PATH`"
        )));
    }
    Ok(Path::new(path))
}

#[async_trait]
impl Store for SqliteStore {
    async fn submit(&self, submission: Submission) -> Result<Submitted> {
        self.submissions.submit(&submission).await
    }

    async fn task(&self, token: &Token) -> Result<Option<Task>> {
        sqlx::query(
            "SELECT operation, components, state, attempt, max_attempts, submitted_at, started_at, finished_at, \
             outcome, reason, targets FROM task WHERE id = ?",
        )
        .bind(token.to_string())
        .fetch_optional(self.database.readers())
        .await
        .map_err(unavailable)?
        .map(|row| {
            let row = Cells(&row);
            Ok(Task {
                token: *token,
                operation: row.name(0, Operation::parse)?,
                components: row.json(1)?,
                state: row.name(2, State::parse)?,
                attempt: row.get(3)?,
                max_attempts: row.get(4)?,
                submitted_at: row.time(5)?,
                started_at: row.optional_time(6)?,
                finished_at: row.optional_time(7)?,
                outcome: row.optional_json(8)?,
                reason: row.get(9)?,
                targets: row.json(10)?,
                logs: Vec::new(),
            })
        })
        .transpose()
        .map_err(|error: sqlx::Error| unreadable("a task", error))
    }

    async fn state(&self, token: &Token) -> Result<Option<State>> {
        sqlx::query("SELECT state FROM task WHERE id = ?")
            .bind(token.to_string())
            .fetch_optional(self.database.readers())
            .await
            .map_err(unavailable)?
            .map(|row| Cells(&row).name(0, State::parse))
            .transpose()
            .map_err(|error| unreadable("a task", error))
    }

    async fn logs(&self, token: &Token, skip: u32) -> Result<Vec<LogLine>> {
        sqlx::query(
            "SELECT l.at, l.level, l.phase, l.message FROM task t JOIN task_log l ON l.task_seq = t.seq \
             WHERE t.id = ? AND l.line >= ? ORDER BY l.line",
        )
        .bind(token.to_string())
        .bind(skip)
        .fetch_all(self.database.readers())
        .await
        .map_err(unavailable)?
        .iter()
        .map(|row| {
            let row = Cells(row);
            Ok(LogLine {
                at: row.time(0)?,
                level: row.name(1, parse_level)?,
                phase: row.get(2)?,
                message: row.get(3)?,
            })
        })
        .collect::<sqlx::Result<_>>()
        .map_err(|error| unreadable("a log line", error))
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Claims> {
        if request.limit == 0 {
            return Ok(Claims::default());
        }
        self.database.write(write::Claim { request: request.clone(), shared: self.shared.clone() }).await
    }

    async fn heartbeat(&self, lease: &Lease, extension: Duration) -> Result<Option<State>> {
        let until = self.shared.clock.micros_in(extension);
        self.database.write(write::Heartbeat { lease: lease.clone(), until }).await
    }

    async fn append_logs(&self, lease: &Lease, lines: Vec<LogLine>) -> Result<Option<State>> {
        let max_log_lines = self.shared.limits.max_log_lines;
        self.database.write(write::AppendLogs { lease: lease.clone(), lines, max_log_lines }).await
    }

    async fn settle(&self, lease: &Lease, settlement: Settlement) -> Result<Option<State>> {
        let outcome = self
            .database
            .write(write::Settle { lease: lease.clone(), settlement, shared: self.shared.clone() })
            .await?;
        outcome.map_err(|illegal| Error::permanent("a run ended in a way its task cannot").because(illegal))
    }

    async fn request_stop(&self, token: &Token) -> Result<Option<State>> {
        self.database.write(write::RequestStop { token: *token, shared: self.shared.clone() }).await
    }

    async fn expire_leases(&self) -> Result<Vec<Expired>> {
        self.database.write(write::ExpireLeases { shared: self.shared.clone() }).await
    }

    async fn counts(&self) -> Result<Counts> {
        let row = sqlx::query(
            "SELECT (SELECT count(*) FROM task WHERE state = 'queued'), \
             (SELECT count(*) FROM task WHERE lease_until IS NOT NULL)",
        )
        .fetch_one(self.database.readers())
        .await
        .map_err(unavailable)?;
        let count = |index| row.try_get::<i64, _>(index).map(i64::unsigned_abs).map_err(unavailable);
        Ok(Counts { queued: count(0)?, running: count(1)? })
    }

    async fn deployment(&self, key: &ComponentKey) -> Result<Option<Deployment>> {
        sqlx::query(
            "SELECT target, status, access, updated_at, specific FROM deployment WHERE component = ? AND environment = ?",
        )
        .bind(&key.component)
        .bind(&key.environment)
        .fetch_optional(self.database.readers())
        .await
        .map_err(unavailable)?
        .map(|row| deployment(key.clone(), &Cells(&row)))
        .transpose()
        .map_err(|error| unreadable("a deployment", error))
    }

    async fn deployments(&self, components: &[String]) -> Result<Vec<Deployment>> {
        let rows = sqlx::query(
            "SELECT target, status, access, updated_at, specific, component, environment FROM deployment \
             WHERE component IN (SELECT value FROM json_each(?)) ORDER BY component, environment",
        )
        .bind(serde_json::Value::from(components).to_string())
        .fetch_all(self.database.readers())
        .await
        .map_err(unavailable)?;
        rows.iter()
            .map(|row| {
                let row = Cells(row);
                deployment(ComponentKey { component: row.get(5)?, environment: row.get(6)? }, &row)
            })
            .collect::<Result<_, sqlx::Error>>()
            .map_err(|error| unreadable("a deployment", error))
    }

    async fn put_deployment(&self, lease: &Lease, deployment: &Deployment) -> Result<bool> {
        self.database
            .write(write::PutDeployment { lease: lease.clone(), deployment: deployment.clone() })
            .await
    }

    async fn purge(&self) -> Result<u64> {
        let limits = &self.shared.limits;
        let newest_to_go: Option<i64> = sqlx::query_scalar(
            "SELECT finished_at FROM task WHERE finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT 1 OFFSET ?",
        )
        .bind(i64::try_from(limits.keep_count).unwrap_or(i64::MAX))
        .fetch_optional(self.database.readers())
        .await
        .map_err(unavailable)?;
        let too_old = Utc::now().timestamp_micros().saturating_sub(micros(limits.keep_for));
        let finished_until = newest_to_go.map_or(too_old, |at| at.max(too_old));
        self.database.write(write::Purge { finished_until }).await
    }

    fn hints(&self) -> broadcast::Receiver<Hint> {
        self.shared.hints.subscribe()
    }

    async fn close(&self) {
        self.database.close().await;
    }
}

impl Shared {
    /// Tells whoever listens.
    fn hint(&self, hint: Hint) {
        // An error means that nobody does.
        let _ = self.hints.send(hint);
    }
}

/// The time of day at the start, and from then on only forward.
#[derive(Debug, Clone, Copy)]
struct Clock {
    origin: i64,
    started: Instant,
}

impl Clock {
    fn start() -> Self {
        Self { origin: Utc::now().timestamp_micros(), started: Instant::now() }
    }

    fn micros(&self) -> i64 {
        self.origin.saturating_add(micros(self.started.elapsed()))
    }

    fn micros_in(&self, duration: Duration) -> i64 {
        self.micros().saturating_add(micros(duration))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn unreadable(what: &str, error: sqlx::Error) -> Error {
    Error::permanent(format!("the operation store holds {what} that cannot be read")).because(error)
}

/// The columns target, status, access, updated_at and specific of a row.
fn deployment(key: ComponentKey, row: &Cells<'_>) -> sqlx::Result<Deployment> {
    Ok(Deployment {
        key,
        target: row.get(0)?,
        status: row.name(1, DeploymentStatus::parse)?,
        access: row.optional_json(2)?,
        updated_at: row.time(3)?,
        specific: row.json(4)?,
    })
}

/// Reads the columns of a row as what they stand for.
struct Cells<'r>(&'r SqliteRow);

impl<'r> Cells<'r> {
    fn get<T>(&self, index: usize) -> sqlx::Result<T>
    where
        T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
    {
        self.0.try_get(index)
    }

    fn name<T>(&self, index: usize, parse: fn(&str) -> Option<T>) -> sqlx::Result<T> {
        let text: &str = self.get(index)?;
        parse(text).ok_or_else(|| sqlx::Error::Decode(format!("`{text}` is not a known name").into()))
    }

    fn json<T: DeserializeOwned>(&self, index: usize) -> sqlx::Result<T> {
        from_json(self.get(index)?)
    }

    fn optional_json<T: DeserializeOwned>(&self, index: usize) -> sqlx::Result<Option<T>> {
        self.get::<Option<&str>>(index)?.map(from_json).transpose()
    }

    fn time(&self, index: usize) -> sqlx::Result<DateTime<Utc>> {
        time(self.get(index)?)
    }

    fn optional_time(&self, index: usize) -> sqlx::Result<Option<DateTime<Utc>>> {
        self.get::<Option<i64>>(index)?.map(time).transpose()
    }
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

fn time(micros: i64) -> sqlx::Result<DateTime<Utc>> {
    DateTime::from_timestamp_micros(micros)
        .ok_or_else(|| sqlx::Error::Decode(format!("{micros} is not a time").into()))
}

fn from_json<T: DeserializeOwned>(text: &str) -> sqlx::Result<T> {
    // The error of serde_json may quote the text; only its place goes on.
    serde_json::from_str(text).map_err(|error| {
        sqlx::Error::Decode(
            format!("not the JSON expected, line {} column {}", error.line(), error.column()).into(),
        )
    })
}

fn to_json<T: serde::Serialize>(value: &T) -> sqlx::Result<String> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}

#[cfg(test)]
mod tests;
