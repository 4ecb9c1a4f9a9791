//! The embedded store: one SQLite file, used by one process.
//!
//! - A lock file beside the database excludes every other process, so running tasks in an open database belong to
//!   this process. Every lease that exists at opening belongs to a process that is gone: [`SqliteStore::open`] ends
//!   those leases, and the next sweep returns the tasks to the queue at once.
//! - Every commit is on disk before its result is returned (`WAL`, `synchronous=FULL`).
//! - There is one writer, for the queue and everything else. Readers have their own connections and never wait for
//!   it.
//! - Leases and due times use a clock that only goes forward, whatever happens to the time of day.
//! - Notifications need no channel outside of the process.

mod guard;

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::Utc;
use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection as _, SqliteConnection};

use self::guard::Guard;
use super::ledger::commit::{Connection, Write, Writer};
use super::ledger::fault::Fault;
use super::ledger::formats::known;
use super::ledger::pool::Pool;
use super::ledger::sql::{Arg, Dialect, Row, Statement, Transaction, args, execute_sqlite, fetch_sqlite};
use super::ledger::{self, Database, Ledger, Shared, between, micros};
use super::migration::Migrations;
use super::operation::Lane;
use super::store::Limits;
use landfall_adapter::error::{Error, Result};

const MIGRATIONS: Migrations = Migrations(&[
    (1, "operations", include_str!("../../migrations/sqlite/0001_operations.sql")),
    (2, "targets", include_str!("../../migrations/sqlite/0002_targets.sql")),
    (3, "topology", include_str!("../../migrations/sqlite/0003_topology.sql")),
    (4, "formats and bounds", include_str!("../../migrations/sqlite/0004_formats_and_bounds.sql")),
    (5, "kinds and products", include_str!("../../migrations/sqlite/0005_kinds_and_products.sql")),
    (6, "info and memory", include_str!("../../migrations/sqlite/0006_info_and_memory.sql")),
]);

const READERS: u32 = 4;
/// The longest wait for a lock of the file, and for a connection to read.
const PATIENCE: Duration = Duration::from_secs(10);

/// Free pages that stay in the file, and how many are returned at a time: 1 MiB each.
const KEPT_FREE: i64 = 256;
const TIDIED: i64 = 256;
/// A file that cannot shrink is rewritten at startup if its content is not larger than this.
const REWRITTEN_AT_START: i64 = 64 * 1024 * 1024;

/// A store in an SQLite file; see the module documentation.
pub type SqliteStore = Ledger<SqliteFile>;

/// An open file that only this process uses.
pub struct SqliteFile {
    writer: Writer,
    readers: Pool<SqliteConnection>,
    /// Opens a connection for reading.
    reading: SqliteConnectOptions,
    guard: Guard,
    clock: Clock,
}

const FIRST_DUE: Statement<'_> = Statement::both(concat!(
    "SELECT run_at FROM task WHERE lane = $1 AND state = 'queued' AND blocked = 0 AND ",
    known!(),
    " ORDER BY run_at LIMIT 1"
));

impl SqliteStore {
    /// Opens or creates the store at `location`: a path, or a URL `sqlite:PATH` or `sqlite://PATH`.
    ///
    /// Returns [`landfall_adapter::error::Kind::Conflict`] if another process has it open, and
    /// [`landfall_adapter::error::Kind::Permanent`] if the file cannot be created, read or migrated.
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
    /// Opens the file, creates or migrates it, and excludes other processes until it is dropped.
    async fn open(path: &Path) -> Result<Self> {
        let owned = path.to_owned();
        let lock = landfall_adapter::blocking::run(move |_| prepare_files(&owned)).await?;

        let reading = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(PATIENCE)
            // No part of a descriptor stays in the file after its task has ended.
            .pragma("secure_delete", "ON")
            // 16 MB for each connection: tokens are random, so the rows that polls read are spread over the
            // file.
            .pragma("cache_size", "-16384")
            .statement_cache_capacity(128)
            .thread_name(|_| "landfall-store".to_owned())
            .disable_statement_logging();
        // The setting is stored in the file, so a connection that only reads cannot set it.
        let options = reading.clone().auto_vacuum(SqliteAutoVacuum::Incremental);
        let unusable = |error: sqlx::Error| {
            if Fault::of(&error) == Fault::Damaged {
                return Fault::Damaged.error(format!("`{}`: {error}", path.display()));
            }
            Error::permanent(format!(
                "cannot open the store `{}`: check the file and its folder",
                path.display()
            ))
            .because(error)
        };
        let mut connection = options.connect().await.map_err(unusable)?;
        let shrinks = can_shrink(&mut connection, path).await.map_err(unusable)?;
        MIGRATIONS.run(&mut connection, &format!("`{}`", path.display())).await?;
        let readers = Pool::new(READERS, PATIENCE);
        let reading = reading.read_only(true);
        let clock = Clock::start();
        let files = vec![path.to_owned(), beside(path, "-wal"), beside(path, ".lock")];
        let guard = Guard::of(files).await.map_err(unusable)?;
        let begun = clock.now();
        let writer = FileWriter { connection, options, lock, guard: guard.clone(), clock, begun, shrinks };
        Ok(Self { writer: Writer::start(writer), readers, reading, guard, clock })
    }
}

/// The value of a numeric pragma.
async fn pragma(connection: &mut SqliteConnection, name: &str) -> sqlx::Result<i64> {
    let rows = fetch_sqlite(connection, &format!("PRAGMA {name}"), args![]).await?;
    rows.first().ok_or(sqlx::Error::RowNotFound)?.int(0)
}

/// Whether free space can be returned step by step. Files of earlier versions cannot until they are rewritten.
async fn can_shrink(connection: &mut SqliteConnection, path: &Path) -> sqlx::Result<bool> {
    const INCREMENTAL: i64 = 2;
    if pragma(connection, "auto_vacuum").await? == INCREMENTAL {
        return Ok(true);
    }
    let pages = pragma(connection, "page_count").await? - pragma(connection, "freelist_count").await?;
    if pages.saturating_mul(pragma(connection, "page_size").await?) <= REWRITTEN_AT_START {
        match sqlx::query("VACUUM").execute(&mut *connection).await {
            Ok(_) => return Ok(pragma(connection, "auto_vacuum").await? == INCREMENTAL),
            Err(error) if Fault::of(&error) == Fault::Damaged => return Err(error),
            Err(error) => log::warn!("the operation store cannot be rewritten: {error}"),
        }
    }
    log::warn!(
        "the operation store `{}` cannot shrink: to change that, stop Landfall and run `sqlite3 FILE 'PRAGMA \
         auto_vacuum = 2; VACUUM'`",
        path.display()
    );
    Ok(false)
}

#[async_trait]
impl Database for SqliteFile {
    async fn read(&self, statement: Statement<'_>, args: &[Arg<'_>]) -> sqlx::Result<Vec<Row>> {
        let (lent, rested) = self.readers.borrow().await?;
        let mut connection = match rested {
            Some((connection, _)) => connection,
            None => {
                let made = self.guard.note(self.reading.connect().await)?;
                // The name may lead to another file now.
                self.guard.check().await?;
                made
            }
        };
        let rows =
            self.guard.note(fetch_sqlite(&mut connection, statement.text(Dialect::Sqlite), args).await)?;
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
    /// Released after the connection, by closing the file.
    lock: File,
    guard: Guard,
    clock: Clock,
    /// The beginning of the transaction, by the clock.
    begun: i64,
    /// Whether the file can return free space step by step.
    shrinks: bool,
}

#[async_trait]
impl Connection for FileWriter {
    async fn begin(&mut self) -> sqlx::Result<&mut dyn Transaction> {
        self.guard.check().await?;
        self.guard.note(sqlx::query("BEGIN IMMEDIATE").execute(&mut self.connection).await)?;
        self.begun = self.clock.now();
        Ok(self)
    }

    async fn commit(&mut self) -> sqlx::Result<()> {
        self.guard.note(sqlx::query("COMMIT").execute(&mut self.connection).await)?;
        self.guard.check().await
    }

    async fn recover(&mut self, error: &sqlx::Error) -> bool {
        let rolled_back = sqlx::query("ROLLBACK").execute(&mut self.connection).await.is_ok();
        // A new connection would open the file that the name leads to now; this one still has the original file.
        if rolled_back || Fault::of(error) == Fault::Moved || self.guard.check().await.is_err() {
            return false;
        }
        // The state of the connection is unknown. Closing it rolls back uncommitted changes.
        match self.options.connect().await {
            Ok(fresh) => self.connection = fresh,
            Err(error) => log::error!("the operation store cannot be reopened: {error}"),
        }
        false
    }

    async fn tidy(&mut self) -> sqlx::Result<bool> {
        self.guard.check().await?;
        let free = pragma(&mut self.connection, "freelist_count").await?;
        if self.shrinks && free > KEPT_FREE {
            let step = format!("PRAGMA incremental_vacuum({TIDIED})");
            sqlx::query(&step).fetch_all(&mut self.connection).await?;
            return Ok(true);
        }
        // Deleted data is overwritten in the file, but stays in the write-ahead log until that is truncated.
        let log =
            std::fs::metadata(beside(self.options.get_filename(), "-wal")).map_or(0, |found| found.len());
        if log > 0 {
            // Readers are not waited for; it is tried again later.
            sqlx::query("PRAGMA busy_timeout = 100").execute(&mut self.connection).await?;
            let cut = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_all(&mut self.connection).await;
            let patient = format!("PRAGMA busy_timeout = {}", PATIENCE.as_millis());
            sqlx::query(&patient).execute(&mut self.connection).await?;
            cut?;
        }
        Ok(false)
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
        self.guard.note(fetch_sqlite(&mut self.connection, statement.text(Dialect::Sqlite), args).await)
    }

    async fn execute(&mut self, statement: Statement<'_>, args: &[Arg<'_>]) -> sqlx::Result<u64> {
        self.guard.note(execute_sqlite(&mut self.connection, statement.text(Dialect::Sqlite), args).await)
    }
}

/// Ends the leases of a process that is gone, and makes waiting tasks due at once, because their due times
/// depend on the clock of that process. Only tasks whose worker was lost repeatedly continue to wait, at most
/// for one pause ([`Limits::pause_after`]) from now.
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
            let pause = self.limits.pause_after(row.clamped(1));
            let run_at = row.int(2)?.min(now.saturating_add(micros(pause)));
            let wait = Statement::both("UPDATE task SET run_at = $2 WHERE seq = $1");
            transaction.execute(wait, args![row.int(0)?, run_at]).await?;
        }
        Ok(())
    }
}

/// A clock that has the time of day at startup, and only goes forward from then on.
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

/// Creates the folder and the file, readable only for this user, and locks the lock file.
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

/// `landfall.db.lock` guards `landfall.db`. The database file cannot be locked itself, because SQLite locks ranges of
/// it.
fn lock_path(path: &Path) -> PathBuf {
    beside(path, ".lock")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
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
