//! Sessions with the server: a small pool, deadlines on each, and statements that end when the work is stopped.
//!
//! - A session is borrowed for one piece of work and goes back only when all of it went well; every other one is
//!   closed. Nothing is reset, because nothing that failed is kept.
//! - Sessions live on the runtime that the pool was made on. Whoever borrows one may live on another that ends sooner.
//! - A stop is carried to the server: [`Session::within`] asks it to cancel the statement and waits for its answer. A
//!   run that is dropped half way does the same behind its back.
//! - `statement_timeout`, `lock_timeout` and `idle_in_transaction_session_timeout` are set on every session, so that
//!   neither we nor whoever we wait for can hold up a database.
//! - A server that is silent cannot keep to these, so every wait for it has a deadline here, too: `connect_timeout` for a
//!   session (`server.rs`) and for a sign of life of one that rested, and that much more than `statement_timeout` for a
//!   statement and for a session that others have. A session that missed one is thrown away.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement, ToStatement};

use super::server::{Opened, Server};
use super::sqlstate;
use landfall_adapter::Context;
use landfall_adapter::error::{Error, Result};

/// How long a statement that ran into its own timeout may take to end.
const GRACE: Duration = Duration::from_secs(2);
/// A session that rested for longer is tried before it is used.
const STALE: Duration = Duration::from_secs(1);

/// What a pool is made with.
#[derive(Debug, Clone)]
pub(super) struct PoolSettings {
    pub(super) server: Arc<Server>,
    pub(super) database: String,
    pub(super) connections: u32,
    /// Whether sessions rest until somebody needs one, or are closed after use.
    pub(super) rest: bool,
    pub(super) statement_timeout: Duration,
    pub(super) lock_timeout: Duration,
}

impl PoolSettings {
    /// What every session begins with. An empty search path: what is not written out in full is not found in somebody
    /// else's schema, nor among temporary objects, which would otherwise be looked at first. The one query of the catalogs takes longer to plan than to run, and every plan of it is the same.
    fn preparation(&self) -> String {
        let statement_timeout = self.statement_timeout.as_millis();
        let lock_timeout = self.lock_timeout.as_millis();
        format!(
            "SET statement_timeout = {statement_timeout}; SET lock_timeout = {lock_timeout}; \
             SET idle_in_transaction_session_timeout = {statement_timeout}; SET search_path = pg_catalog, pg_temp; \
             SET standard_conforming_strings = on; SET client_min_messages = warning; SET TimeZone = 'UTC'; \
             SET jit = off; SET plan_cache_mode = force_generic_plan"
        )
    }
}

/// The sessions with one database of a target. Cloning shares them.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    settings: PoolSettings,
    /// The runtime that sessions live on.
    home: Handle,
    permits: Arc<Semaphore>,
    resting: Mutex<Vec<(Connection, Instant)>>,
}

/// A connection, and what was prepared on it.
struct Connection {
    opened: Opened,
    prepared: HashMap<&'static str, Statement>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Pool {
    /// Opens nothing yet. Called on a runtime that outlives the work.
    pub(super) fn new(settings: PoolSettings, home: Handle) -> Self {
        let permits = Arc::new(Semaphore::new(usize::try_from(settings.connections).unwrap_or(1).max(1)));
        let shared = Shared { settings, home, permits, resting: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Borrows a session; waits for one when all are in use.
    pub(super) async fn session(&self, context: &Context) -> Result<Session> {
        context.check_cancelled()?;
        let server = &self.shared.settings.server;
        server.check_silence()?;
        let permit = tokio::select! {
            permit = self.permit() => permit?,
            () = context.cancel.cancelled() => return Err(Error::cancelled("stopped on request")),
        };
        server.admit()?;
        tokio::select! {
            made = self.connection() => Ok(self.lend(made?, permit)),
            () = context.cancel.cancelled() => Err(Error::cancelled("stopped on request")),
        }
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit> {
        let PoolSettings { server, connections, .. } = &self.shared.settings;
        let waiting = Arc::clone(&self.shared.permits).acquire_owned();
        match tokio::time::timeout(self.shared.patience(), waiting).await {
            Ok(permit) => permit.map_err(|e| Error::retryable("the target is closing").because(e)),
            Err(_) => Err(Error::retryable(format!(
                "all {connections} sessions (`connections`) of target `{}` were in use for {:?}",
                server.target(),
                self.shared.patience()
            ))),
        }
    }

    /// One that rested, or a new one.
    async fn connection(&self) -> Result<Connection> {
        let server = &self.shared.settings.server;
        while let Some((connection, since)) = self.shared.take() {
            let client = &connection.opened.client;
            if client.is_closed() {
                continue;
            }
            if since.elapsed() < STALE {
                return Ok(connection);
            }
            match tokio::time::timeout(server.patience(), client.check_connection()).await {
                Ok(Ok(())) => {
                    server.answered();
                    return Ok(connection);
                }
                Ok(Err(_)) => {}
                Err(_) => {
                    // Whatever happened to this one happened to those that rested beside it.
                    self.shared.end(connection);
                    self.shared.forget();
                }
            }
        }
        let pool = self.clone();
        let making = self.shared.home.spawn(async move {
            let PoolSettings { server, database, .. } = &pool.shared.settings;
            server.open(database, &pool.shared.settings.preparation()).await
        });
        let opened = making.await.map_err(|e| Error::retryable("no session was made").because(e))??;
        Ok(Connection { opened, prepared: HashMap::new() })
    }

    fn lend(&self, connection: Connection, permit: OwnedSemaphorePermit) -> Session {
        let Connection { opened, prepared } = connection;
        Session {
            opened: Some(opened),
            prepared: Mutex::new(prepared),
            shared: Arc::clone(&self.shared),
            usable: false,
            silent: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            _permit: permit,
        }
    }
}

impl Shared {
    fn take(&self) -> Option<(Connection, Instant)> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Closes what rests.
    fn forget(&self) {
        let resting = std::mem::take(&mut *self.resting.lock().unwrap_or_else(PoisonError::into_inner));
        for (connection, _) in resting {
            self.end(connection);
        }
    }

    fn end(&self, connection: Connection) {
        self.home.spawn(connection.opened.close());
    }

    /// Longest wait for a statement, and for a session that others have: long enough for the server to speak first.
    fn patience(&self) -> Duration {
        self.settings.statement_timeout.saturating_add(self.settings.server.patience())
    }
}

/// A borrowed session. What is not [`Session::give_back`]-ed is closed, and its statement cancelled.
pub(super) struct Session {
    opened: Option<Opened>,
    prepared: Mutex<HashMap<&'static str, Statement>>,
    shared: Arc<Shared>,
    usable: bool,
    /// Whether the server missed a deadline on it.
    silent: AtomicBool,
    /// A statement does not end: nothing more can be asked.
    given_up: AtomicBool,
    _permit: OwnedSemaphorePermit,
}

impl Session {
    /// One row of one text.
    pub(super) async fn text<T: ToStatement + ?Sized>(
        &self,
        statement: &T,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<String>> {
        let row = self.answer(self.client()?.query_opt(statement, parameters)).await?;
        row.map_or(Ok(None), |row| row.try_get(0).map_err(failed))
    }

    /// A statement that is one of few: what the server makes of it is kept with the session.
    pub(super) async fn prepared(&self, sql: &'static str) -> Result<Statement> {
        let kept = || self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept().get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.answer(self.client()?.prepare(sql)).await?;
        kept().insert(sql, statement.clone());
        Ok(statement)
    }

    /// Statements without an answer.
    pub(super) async fn execute(&self, sql: &str) -> Result<()> {
        #[cfg(test)]
        self.crash()?;
        self.answer(self.client()?.batch_execute(sql)).await?;
        #[cfg(test)]
        if sql == "COMMIT" || sql.contains(" DATABASE ") {
            self.shared.settings.server.fuse.fetch_sub(1, Ordering::SeqCst);
            self.crash()?;
        }
        Ok(())
    }

    /// An error once as many statements ran as a test allows: what comes after them never happens.
    #[cfg(test)]
    fn crash(&self) -> Result<()> {
        match self.shared.settings.server.fuse.load(Ordering::SeqCst) {
            ..=0 => Err(Error::retryable("killed")),
            _ => Ok(()),
        }
    }

    /// Waits for an answer of the server, a little longer than it may take itself.
    async fn answer<T>(&self, asking: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T> {
        let patience = self.shared.patience();
        match tokio::time::timeout(patience, asking).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                if error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION) {
                    // Those that were opened while the server takes no changes go on refusing them.
                    self.shared.forget();
                }
                Err(failed(error))
            }
            Err(_) => {
                let server = &self.shared.settings.server;
                self.silent.store(true, Ordering::Relaxed);
                server.missed();
                Err(Error::retryable(format!(
                    "target `{}` did not answer a statement within {patience:?} (`statement_timeout` and \
                     `connect_timeout`): see whether the server is frozen, overloaded or cut off",
                    server.target()
                )))
            }
        }
    }

    /// Makes it as good as new. To be called when functions of others may have run in it, after their transaction: no
    /// rollback takes back what they prepared under a name of ours, nor the advisory locks that they took.
    pub(super) async fn renew(&self) -> Result<()> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.execute("DISCARD ALL").await?;
        self.execute(&self.shared.settings.preparation()).await
    }

    /// For the rest of the transaction, waits a fifth as long for locks: others wait for one that it holds.
    pub(super) async fn be_impatient(&self) -> Result<()> {
        let wait = (self.shared.settings.lock_timeout / 5).as_millis().max(1);
        self.execute(&format!("SET LOCAL lock_timeout = {wait}")).await
    }

    /// Sets what a session begins with once more, in the middle of a transaction. To be called when functions of others ran
    /// in it, before anything else: a name that is not written out in full is found where they say.
    pub(super) async fn reset(&self) -> Result<()> {
        self.execute(&self.shared.settings.preparation()).await
    }

    /// The answer of a statement that runs functions of others, or why there is none. `backend` is the session's process,
    /// which is ended when the statement does not end within `limit`: a function may refuse to be cancelled.
    pub(super) async fn untrusted(
        &self,
        sql: &str,
        limit: Duration,
        backend: &str,
    ) -> Result<Result<Option<String>, Unknown>> {
        let asked = tokio::time::timeout(limit + GRACE, self.client()?.query_opt(sql, &[])).await;
        let Ok(answer) = asked else {
            self.given_up.store(true, Ordering::Relaxed);
            let (shared, end) = (Arc::clone(&self.shared), format!("SELECT pg_terminate_backend({backend})"));
            self.shared.home.spawn(async move {
                let PoolSettings { server, database, .. } = &shared.settings;
                let ended = server.open(database, &end).await.map(drop);
                if let Err(error) = ended {
                    log::warn!("a session that does not end could not be ended: {}", error.report());
                }
            });
            return Ok(Err(Unknown::Slow));
        };
        match answer {
            Ok(row) => row.map_or(Ok(Ok(None)), |row| row.try_get(0).map(Ok).map_err(failed)),
            Err(error) => untold(&error).map(Err),
        }
    }

    /// Whether nothing more can be asked of it.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    /// A statement without an answer that runs functions of others.
    pub(super) async fn execute_untrusted(&self, sql: &str) -> Result<()> {
        self.client()?.batch_execute(sql).await.map_err(|error| {
            let Some(code) = error.code().cloned() else { return failed(error) };
            let made = match code.code().get(..2).unwrap_or_default() {
                _ if code == SqlState::QUERY_CANCELED || code == SqlState::LOCK_NOT_AVAILABLE => {
                    return failed(error);
                }
                "22" => Error::conflict("a value that is there does not fit"),
                "23" => Error::conflict("the rows that are there stand against it"),
                "40" | "53" | "57" | "58" | "08" | "XX" => Error::retryable("PostgreSQL is not able to"),
                _ => Error::permanent(
                    "PostgreSQL refuses, or a function that the owners hung on the table does: they can run the change \
                     themselves and see why",
                ),
            };
            made.because(format!("SQLSTATE {}", code.code()))
        })
    }

    fn client(&self) -> Result<&Client> {
        if self.is_given_up() {
            return Err(Error::retryable("a statement of this session does not end"));
        }
        let opened = self.opened.as_ref().ok_or_else(|| Error::retryable("the session is closed"))?;
        Ok(&opened.client)
    }

    /// Waits for work on this session; when the context is cancelled meanwhile, the server is asked to cancel it, too.
    pub(super) async fn within<T>(
        &self,
        context: &Context,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let opened = self.opened.as_ref().ok_or_else(|| Error::retryable("the session is closed"))?;
        let cancellation = opened.cancellation();
        tokio::pin!(work);
        tokio::select! {
            done = &mut work => done,
            () = context.cancel.cancelled() => {
                let server = &self.shared.settings.server;
                let asked = server.cancel(cancellation).await;
                // It ends with the statement, or with the session.
                match tokio::time::timeout(server.grace(), work).await {
                    Ok(Ok(_)) => log::debug!("the work was done before it could be stopped"),
                    Ok(Err(error)) => log::debug!("stopped: {}", error.report()),
                    Err(_) => {
                        self.silent.store(!asked, Ordering::Relaxed);
                        context.journal.warn(format!(
                            "target `{}` does not answer: what it was told before the stop may still take effect",
                            server.target()
                        ));
                    }
                }
                Err(Error::cancelled("stopped on request"))
            }
        }
    }

    /// Ends the borrowing with what came of it.
    pub(super) fn give_back<T>(mut self, done: Result<T>) -> Result<T> {
        self.usable = done.is_ok();
        done
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(opened) = self.opened.take() else { return };
        if opened.client.is_closed() {
            return;
        }
        let prepared = std::mem::take(self.prepared.get_mut().unwrap_or_else(PoisonError::into_inner));
        let connection = Connection { opened, prepared };
        let usable = self.usable && !self.is_given_up();
        if usable && self.shared.settings.rest {
            let mut resting = self.shared.resting.lock().unwrap_or_else(PoisonError::into_inner);
            resting.push((connection, Instant::now()));
        } else if usable {
            self.shared.end(connection);
        } else {
            let cancellation = connection.opened.cancellation();
            let server = Arc::clone(&self.shared.settings.server);
            let asks = !self.silent.load(Ordering::Relaxed);
            self.shared.home.spawn(async move {
                if asks {
                    server.cancel(cancellation).await;
                }
                connection.opened.close().await;
            });
        }
    }
}

/// Why something about rows is not known. Functions of others may have run, so nothing that the server says is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    /// A row-level security policy would have to be asked.
    Policy,
    /// It takes too long.
    Slow,
    /// Anything else.
    Failed,
}

impl Unknown {
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::Policy => "a row-level security policy decides who sees which rows",
            Self::Slow => "looking takes longer than `count_timeout` of the target",
            Self::Failed => "the look at the rows failed",
        }
    }

    pub(super) fn remedy(self) -> &'static str {
        match self {
            Self::Policy => "have the owner disable row-level security meanwhile",
            Self::Slow => "have an administrator raise `count_timeout`",
            Self::Failed => "have an administrator look into the log",
        }
    }
}

/// What an error means that functions of others may have made. Its text is nobody's to read.
fn untold(error: &tokio_postgres::Error) -> Result<Unknown> {
    let Some(code) = error.code() else {
        return Err(Error::retryable("the session with PostgreSQL was lost"));
    };
    let passing = matches!(code.code().get(..2).unwrap_or_default(), "08" | "40" | "53" | "57" | "58");
    match () {
        () if *code == SqlState::QUERY_CANCELED => Ok(Unknown::Slow),
        () if passing => Err(Error::retryable("PostgreSQL is not able to look at the rows")
            .because(format!("SQLSTATE {}", code.code()))),
        () => {
            log::warn!("a look at rows failed: SQLSTATE {}", code.code());
            Ok(if *code == SqlState::INSUFFICIENT_PRIVILEGE { Unknown::Policy } else { Unknown::Failed })
        }
    }
}

/// What an error means for the work.
pub(super) fn failed(error: tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(db) => sqlstate::meaning(db),
        None => Error::retryable("the session with PostgreSQL was lost").because(error),
    }
}
