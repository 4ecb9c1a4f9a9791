//! One SQLite file: who may open it, how it is written, how it is read.
//!
//! - A lock file beside the database keeps every other process out, so that what an open database says of running
//!   work is true of this process only.
//! - Every commit is on disk before anybody hears of it (`WAL`, `synchronous=FULL`).
//! - There is one writer: an actor that takes whatever asks to be written while the disk is busy and commits it
//!   together ("group commit"). A flush of some milliseconds is shared by all who wait for it.
//! - Readers have connections of their own and never wait for the writer.
//!
//! It knows nothing of tasks; any table of the embedded state may live here.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use sqlx::error::BoxDynError;
use sqlx::migrate::{MigrateError, Migration, MigrationSource, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection, SqlitePool};
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, Result};

/// Version, description and text of every migration, in order. A released one never changes.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "operations", include_str!("../../../migrations/sqlite/0001_operations.sql")),
    (2, "targets", include_str!("../../../migrations/sqlite/0002_targets.sql")),
];

/// Jobs that may wait for the writer before callers wait to hand theirs over.
const WRITER_QUEUE: usize = 1024;
/// Jobs committed together at most.
const WRITER_BATCH: usize = 256;
const READERS: u32 = 4;

/// See the module documentation.
pub(crate) struct Database {
    writer: mpsc::Sender<Message>,
    readers: SqlitePool,
}

/// Something to write. It runs inside a transaction that others may share, and may run a second time, alone, when
/// the shared transaction failed: what it keeps of a run must not survive into the next.
#[async_trait]
pub(crate) trait Write: Send + Sync + 'static {
    /// What the caller learns after the commit.
    type Answer: Send + Sync + 'static;

    /// Reads and writes. An error rolls the transaction back.
    async fn write(&self, connection: &mut SqliteConnection) -> sqlx::Result<Self::Answer>;

    /// Called once after the commit, even when the caller has gone.
    fn committed(&self, _answer: &Self::Answer) {}
}

impl Database {
    /// Opens the file, creates or migrates it, and keeps other processes out until it is dropped.
    pub(crate) async fn open(path: &Path) -> Result<Self> {
        let owned = path.to_owned();
        let lock = tokio::task::spawn_blocking(move || prepare_files(&owned))
            .await
            .map_err(|error| Error::permanent("opening the store was interrupted").because(error))??;

        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10))
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
        migrate(&mut connection, path).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .min_connections(1)
            .acquire_timeout(Duration::from_secs(10))
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(options.clone().read_only(true))
            .await
            .map_err(unusable)?;

        let (writer, jobs) = mpsc::channel(WRITER_QUEUE);
        tokio::spawn(Writer { connection, options, jobs, lock }.run());
        Ok(Self { writer, readers })
    }

    /// Commits `work` and answers what it found out. The commit happens even when the caller stops waiting.
    pub(crate) async fn write<W: Write>(&self, work: W) -> Result<W::Answer> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Call { work, answer: None, reply });
        self.writer.send(Message::Write(job)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Connections to read with.
    pub(crate) fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    /// Commits what was handed over, closes the file and releases the lock.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        let (done, closed) = oneshot::channel();
        if self.writer.send(Message::Close(done)).await.is_ok() {
            // An error means that the writer is gone already.
            let _ = closed.await;
        }
    }
}

/// The public face of a database error. All of them may pass: a full disk is emptied, a lock is released.
pub(crate) fn unavailable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::retryable("the operation store does not answer; try again later").because(error)
}

fn closed() -> Error {
    Error::retryable("the operation store is closing; try again later")
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

#[derive(Debug)]
struct Embedded;

impl MigrationSource<'static> for Embedded {
    fn resolve(self) -> BoxFuture<'static, Result<Vec<Migration>, BoxDynError>> {
        let migrations = MIGRATIONS
            .iter()
            .map(|&(version, description, sql)| {
                Migration::new(version, description.into(), MigrationType::Simple, sql.into(), false)
            })
            .collect();
        Box::pin(std::future::ready(Ok(migrations)))
    }
}

async fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<()> {
    let outcome = match Migrator::new(Embedded).await {
        Ok(migrator) => migrator.run(connection).await,
        Err(error) => Err(error),
    };
    outcome.map_err(|error| {
        let message = match error {
            MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_) => format!(
                "the operation store `{}` was written by another version of Landfall: run that one, or give this \
                 one another store",
                path.display()
            ),
            _ => format!("cannot bring the operation store `{}` up to date", path.display()),
        };
        Error::permanent(message).because(error)
    })
}

enum Message {
    Write(Box<dyn Job>),
    Close(oneshot::Sender<()>),
}

/// A [`Write`] without its type, with the way back to its caller.
#[async_trait]
trait Job: Send {
    /// Runs inside a transaction; a second time when the first transaction failed.
    async fn attempt(&mut self, connection: &mut SqliteConnection) -> sqlx::Result<()>;

    /// Tells the caller, after the commit or the last failure.
    fn conclude(self: Box<Self>, committed: Result<()>);
}

struct Call<W: Write> {
    work: W,
    answer: Option<W::Answer>,
    reply: oneshot::Sender<Result<W::Answer>>,
}

#[async_trait]
impl<W: Write> Job for Call<W> {
    async fn attempt(&mut self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        self.answer = Some(self.work.write(connection).await?);
        Ok(())
    }

    fn conclude(self: Box<Self>, committed: Result<()>) {
        let outcome = match (committed, self.answer) {
            (Ok(()), Some(answer)) => {
                self.work.committed(&answer);
                Ok(answer)
            }
            (Ok(()), None) => Err(Error::permanent("a write was committed without being run")),
            (Err(error), _) => Err(error),
        };
        // An error means that the caller stopped waiting.
        let _ = self.reply.send(outcome);
    }
}

struct Writer {
    connection: SqliteConnection,
    options: SqliteConnectOptions,
    jobs: mpsc::Receiver<Message>,
    /// Released by closing the file, after the connection.
    lock: File,
}

impl Writer {
    async fn run(mut self) {
        let mut messages = Vec::with_capacity(WRITER_BATCH);
        let mut close = None;
        while close.is_none() && self.jobs.recv_many(&mut messages, WRITER_BATCH).await > 0 {
            let mut jobs = Vec::with_capacity(messages.len());
            for message in messages.drain(..) {
                match message {
                    Message::Write(job) => jobs.push(job),
                    Message::Close(done) => close = Some(done),
                }
            }
            if !jobs.is_empty() {
                self.commit(jobs).await;
            }
        }
        let Self { connection, lock, .. } = self;
        if let Err(error) = connection.close().await {
            log::warn!("the operation store did not close cleanly: {error}");
        }
        drop(lock);
        if let Some(done) = close {
            // An error means that the closer stopped waiting.
            let _ = done.send(());
        }
    }

    /// Commits the jobs together or, where one of them fails, each by itself.
    async fn commit(&mut self, mut jobs: Vec<Box<dyn Job>>) {
        let together = self.transaction(&mut jobs).await;
        let several = jobs.len() > 1;
        for job in jobs {
            let mut alone = [job];
            let failed = match &together {
                Ok(()) => None,
                Err(_) if several => self.transaction(&mut alone).await.err().map(|error| error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            let [job] = alone;
            job.conclude(failed.map_or(Ok(()), |cause| Err(unavailable(cause))));
        }
    }

    async fn transaction(&mut self, jobs: &mut [Box<dyn Job>]) -> sqlx::Result<()> {
        let outcome = self.attempt(jobs).await;
        if outcome.is_err() && !self.roll_back().await {
            // The connection is in an unknown state. What it had not committed is rolled back by closing it.
            match self.options.connect().await {
                Ok(fresh) => self.connection = fresh,
                Err(error) => log::error!("the operation store cannot be reopened: {error}"),
            }
        }
        outcome
    }

    async fn attempt(&mut self, jobs: &mut [Box<dyn Job>]) -> sqlx::Result<()> {
        sqlx::query("BEGIN IMMEDIATE").execute(&mut self.connection).await?;
        for job in jobs {
            job.attempt(&mut self.connection).await?;
        }
        sqlx::query("COMMIT").execute(&mut self.connection).await?;
        Ok(())
    }

    async fn roll_back(&mut self) -> bool {
        sqlx::query("ROLLBACK").execute(&mut self.connection).await.is_ok()
    }
}
