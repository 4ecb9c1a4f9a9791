//! The embedded store: one SQLite file, one process.
//!
//! - A lock file beside the database keeps every other process out, so that what an open database says of running
//!   work is true of this process only. Every lease found at opening belongs to a process that is gone:
//!   [`SqliteStore::open`] ends those leases, and the next sweep puts the tasks back without waiting for the time to
//!   run out.
//! - Every commit is on disk before anybody hears of it (`WAL`, `synchronous=FULL`).
//! - There is one writer, for the queue and for everything else. Readers have connections of their own and never wait
//!   for it.
//! - Leases and due times are measured by a clock that only goes forward, whatever happens to the time of day.
//! - News of commits need no channel outside the process.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::Utc;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection as _, SqliteConnection};

use super::ledger::commit::{Connection, Write, Writer};
use super::ledger::rest::Rest;
use super::ledger::sql::{Arg, Dialect, Row, Statement, Transaction, args, execute_sqlite, fetch_sqlite};
use super::ledger::{self, Database, Ledger, Shared, between, micros};
use super::migration::Migrations;
use super::store::Limits;
use super::task::Lane;
use crate::error::{Error, Result};

const MIGRATIONS: Migrations = Migrations(&[
    (1, "operations", include_str!("../../../migrations/sqlite/0001_operations.sql")),
    (2, "targets", include_str!("../../../migrations/sqlite/0002_targets.sql")),
    (3, "topology", include_str!("../../../migrations/sqlite/0003_topology.sql")),
]);

const READERS: u32 = 4;
/// Longest wait for a lock of the file, and for a connection to read with.
const PATIENCE: Duration = Duration::from_secs(10);

/// A store in an SQLite file. See the module documentation.
pub type SqliteStore = Ledger<SqliteFile>;

/// An open file that this process has to itself.
pub struct SqliteFile {
    writer: Writer,
    readers: Rest<SqliteConnection>,
    /// How a reader is made.
    reading: SqliteConnectOptions,
    clock: Clock,
}

const FIRST_DUE: Statement<'_> =
    Statement::both("SELECT min(run_at) FROM task WHERE lane = $1 AND state = 'queued' AND blocked = 0");

impl SqliteStore {
    /// Opens or creates the store at `location`: a path, or a URL `sqlite:PATH` or `sqlite://PATH`.
    ///
    /// Fails with [`crate::error::Kind::Conflict`] while another process has it open, and with
    /// [`crate::error::Kind::Permanent`] where the file cannot be created, read or brought up to date.
    pub async fn open(location: &str, limits: Limits) -> Result<Self> {
        let file = SqliteFile::open(path_of(location)?).await?;
        file.writer.write(Reclaim { limits: limits.clone() }).await?;
        Ok(ledger::open(file, Shared::new(limits, None)))
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

impl SqliteFile {
    /// Opens the file, creates or migrates it, and keeps other processes out until it is dropped.
    async fn open(path: &Path) -> Result<Self> {
        let owned = path.to_owned();
        let lock = crate::blocking::run(move |_| prepare_files(&owned)).await?;

        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(PATIENCE)
            // Tokens are random, so the rows that are asked for lie all over the file: 16 MB for each connection.
            .pragma("cache_size", "-16384")
            .statement_cache_capacity(128)
            .thread_name(|_| "landfall-store".to_owned())
            .disable_statement_logging();
        let unusable = |error: sqlx::Error| {
            Error::permanent(format!(
                "cannot open the store `{}`: check the file and its folder",
                path.display()
            ))
            .because(error)
        };
        let mut connection = options.connect().await.map_err(unusable)?;
        MIGRATIONS.run(&mut connection, &format!("`{}`", path.display())).await?;
        let readers = Rest::new(READERS, PATIENCE);
        let reading = options.clone().read_only(true);
        let clock = Clock::start();
        let writer = Writer::start(FileWriter { connection, options, lock, clock, begun: clock.now() });
        Ok(Self { writer, readers, reading, clock })
    }
}

#[async_trait]
impl Database for SqliteFile {
    async fn read(&self, statement: Statement<'_>, args: &[Arg<'_>]) -> sqlx::Result<Vec<Row>> {
        let (lent, rested) = self.readers.borrow().await?;
        let mut connection = match rested {
            Some((connection, _)) => connection,
            None => self.reading.connect().await?,
        };
        let rows = fetch_sqlite(&mut connection, statement.text(Dialect::Sqlite), args).await?;
        lent.give_back(connection);
        Ok(rows)
    }

    fn is_exclusive(&self) -> bool {
        true
    }

    fn queue(&self) -> &Writer {
        &self.writer
    }

    async fn write_aside<W: Write>(&self, work: W) -> Result<W::Answer> {
        self.writer.write(work).await
    }

    async fn due_in(&self, lane: Lane) -> sqlx::Result<Option<Duration>> {
        let rows = self.read(FIRST_DUE, args![lane.as_str()]).await?;
        let first = rows.first().map_or(Ok(None), |row| row.optional_int(0))?;
        Ok(first.map(|at| between(self.clock.now(), at)))
    }

    async fn time_of_day(&self) -> sqlx::Result<i64> {
        Ok(Utc::now().timestamp_micros())
    }

    async fn close(&self) {
        for reader in self.readers.close() {
            if let Err(error) = reader.close().await {
                log::warn!("a reader of the operation store did not close cleanly: {error}");
            }
        }
        self.writer.close().await;
    }
}

/// The connection that writes.
struct FileWriter {
    connection: SqliteConnection,
    options: SqliteConnectOptions,
    /// Released by closing the file, after the connection.
    lock: File,
    clock: Clock,
    /// When the transaction began, by the clock.
    begun: i64,
}

#[async_trait]
impl Connection for FileWriter {
    async fn begin(&mut self) -> sqlx::Result<&mut dyn Transaction> {
        sqlx::query("BEGIN IMMEDIATE").execute(&mut self.connection).await?;
        self.begun = self.clock.now();
        Ok(self)
    }

    async fn commit(&mut self) -> sqlx::Result<()> {
        sqlx::query("COMMIT").execute(&mut self.connection).await.map(drop)
    }

    async fn recover(&mut self) {
        if sqlx::query("ROLLBACK").execute(&mut self.connection).await.is_ok() {
            return;
        }
        // The connection is in an unknown state. What it had not committed is rolled back by closing it.
        match self.options.connect().await {
            Ok(fresh) => self.connection = fresh,
            Err(error) => log::error!("the operation store cannot be reopened: {error}"),
        }
    }

    async fn close(self) {
        let Self { connection, lock, .. } = self;
        if let Err(error) = connection.close().await {
            log::warn!("the operation store did not close cleanly: {error}");
        }
        drop(lock);
    }
}

#[async_trait]
impl Transaction for FileWriter {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    fn now(&self) -> i64 {
        self.begun
    }

    fn time_of_day(&self) -> i64 {
        Utc::now().timestamp_micros()
    }

    async fn fetch(&mut self, statement: Statement<'_>, args: &[Arg<'_>]) -> sqlx::Result<Vec<Row>> {
        fetch_sqlite(&mut self.connection, statement.text(Dialect::Sqlite), args).await
    }

    async fn execute(&mut self, statement: Statement<'_>, args: &[Arg<'_>]) -> sqlx::Result<u64> {
        execute_sqlite(&mut self.connection, statement.text(Dialect::Sqlite), args).await
    }
}

/// Ends the leases of a process that is gone, and its waits for a time that its clock told. Who waits because its
/// process was lost again and again goes on waiting, though not for longer than it would have to from now.
struct Reclaim {
    limits: Limits,
}

#[async_trait]
impl Write for Reclaim {
    type Answer = ();

    async fn write(&self, transaction: &mut dyn Transaction) -> sqlx::Result<()> {
        let end = Statement::both("UPDATE task SET lease_until = 0 WHERE lease_until IS NOT NULL");
        transaction.execute(end, args![]).await?;
        let now = transaction.now();
        let waiting =
            Statement::both("SELECT seq, crashes, run_at FROM task WHERE state = 'queued' AND run_at > $1");
        for row in transaction.fetch(waiting, args![now]).await? {
            let pause = self.limits.pause_after(row.count(1)?);
            let run_at = row.int(2)?.min(now.saturating_add(micros(pause)));
            let wait = Statement::both("UPDATE task SET run_at = $2 WHERE seq = $1");
            transaction.execute(wait, args![row.int(0)?, run_at]).await?;
        }
        Ok(())
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

    fn now(&self) -> i64 {
        self.origin.saturating_add(micros(self.started.elapsed()))
    }
}

/// Creates the folder and the file, readable for this user alone, and locks the lock file.
fn prepare_files(path: &Path) -> Result<File> {
    let cannot = |what: &str, path: &Path, error: std::io::Error| {
        Error::permanent(format!("cannot {what} `{}` for the operation store", path.display())).because(error)
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| cannot("create the folder", folder, error))?;
    }
    let lock_path = lock_path(path);
    let lock = private_file(&lock_path).map_err(|error| cannot("create", &lock_path, error))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(Error::conflict(format!(
                "the operation store `{}` is in use by another process, which holds `{}`: stop that process, or \
                 give this one another store",
                path.display(),
                lock_path.display()
            )));
        }
        Err(TryLockError::Error(error)) => return Err(cannot("lock", &lock_path, error)),
    }
    private_file(path).map_err(|error| cannot("create", path, error))?;
    Ok(lock)
}

/// `landfall.db` is guarded by `landfall.db.lock`. The database itself cannot be: SQLite locks ranges of it.
fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

fn private_file(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}

#[cfg(test)]
mod tests;
