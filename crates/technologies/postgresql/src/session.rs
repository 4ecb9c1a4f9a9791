//! Sessions with the server: a small pool, deadlines for every wait, and statements that end on cancellation.
//!
//! - A caller borrows a session for one unit of work. The session returns to the pool only if all of that work
//!   succeeds. Otherwise it is closed, so no session in the pool needs a reset.
//! - Sessions run on the runtime that created the pool. A caller may run on another runtime that ends earlier.
//! - A cancellation reaches the server: [`Session::within`] asks the server to cancel the statement and waits for its
//!   response. If a run is dropped, a background task cancels its statement.
//! - `statement_timeout`, `lock_timeout` and `idle_in_transaction_session_timeout` are set on every session, so that
//!   neither Landfall nor a lock holder can block a database for long.
//! - A server that does not respond cannot enforce these timeouts, so every wait for it has a deadline here, too. The
//!   deadline is `connect_timeout` for opening a session (`server.rs`) and for checking an idle one. It is the sum of
//!   `statement_timeout` and `connect_timeout` for a statement and for a free session. A session that misses its
//!   deadline is closed.

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

/// How long a statement may continue after its own timeout before the session is given up.
const GRACE: Duration = Duration::from_secs(2);
/// A session that was idle for longer is checked before it is used.
const STALE: Duration = Duration::from_secs(1);

/// The settings of a pool.
#[derive(Debug, Clone)]
pub(super) struct PoolSettings {
    pub(super) server: Arc<Server>,
    pub(super) database: String,
    pub(super) connections: u32,
    /// Whether the pool keeps idle sessions. Otherwise it closes sessions after use.
    pub(super) rest: bool,
    pub(super) statement_timeout: Duration,
    pub(super) lock_timeout: Duration,
}

impl PoolSettings {
    /// Returns the statements that every session begins with. The search path contains only `pg_catalog`, and
    /// `pg_temp` last: PostgreSQL would otherwise search temporary objects first. A name without a schema is therefore
    /// not found in another role's schema. The catalog query takes longer to plan than to run, and its plan does not
    /// depend on the parameters, so sessions use generic plans.
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

/// The sessions with one database of a target. Clones share the sessions.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    settings: PoolSettings,
    /// The runtime on which the sessions run.
    home: Handle,
    permits: Arc<Semaphore>,
    resting: Mutex<Vec<(Connection, Instant)>>,
}

/// A connection and its prepared statements.
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
    /// Creates a pool without connections. `home` is the runtime of the sessions, and must live as long as the
    /// pool is used.
    pub(super) fn new(settings: PoolSettings, home: Handle) -> Self {
        let permits = Arc::new(Semaphore::new(usize::try_from(settings.connections).unwrap_or(1).max(1)));
        let shared = Shared { settings, home, permits, resting: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Borrows a session. Waits if all sessions are in use.
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

    /// Returns an idle connection, or opens a new one.
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
                    // The other idle connections are probably broken for the same reason.
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

    /// Closes all idle connections.
    fn forget(&self) {
        let resting = std::mem::take(&mut *self.resting.lock().unwrap_or_else(PoisonError::into_inner));
        for (connection, _) in resting {
            self.end(connection);
        }
    }

    fn end(&self, connection: Connection) {
        self.home.spawn(connection.opened.close());
    }

    /// The maximum time to wait for a statement or for a free session. The server's own timeout ends before it.
    fn patience(&self) -> Duration {
        self.settings.statement_timeout.saturating_add(self.settings.server.patience())
    }
}

/// A borrowed session. Without [`Session::give_back`], dropping it closes the connection and cancels its statement.
pub(super) struct Session {
    opened: Option<Opened>,
    prepared: Mutex<HashMap<&'static str, Statement>>,
    shared: Arc<Shared>,
    usable: bool,
    /// Whether the server missed a deadline on this session.
    silent: AtomicBool,
    /// Whether a statement does not end. The session then accepts no more statements.
    given_up: AtomicBool,
    _permit: OwnedSemaphorePermit,
}

impl Session {
    /// Runs a query that returns at most one row with one text.
    pub(super) async fn text<T: ToStatement + ?Sized>(
        &self,
        statement: &T,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<String>> {
        let row = self.answer(self.client()?.query_opt(statement, parameters)).await?;
        row.map_or(Ok(None), |row| row.try_get(0).map_err(failed))
    }

    /// Prepares a statement once and keeps it with the session. Only for the few static statements.
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

    /// Executes statements that return no rows.
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

    /// Fails if the commits that a test allows are used up, to simulate a crash.
    #[cfg(test)]
    fn crash(&self) -> Result<()> {
        match self.shared.settings.server.fuse.load(Ordering::SeqCst) {
            ..=0 => Err(Error::retryable("killed")),
            _ => Ok(()),
        }
    }

    /// Waits for a response, longer than the server's own statement timeout. A missed deadline marks the
    /// session and the server as silent.
    async fn answer<T>(&self, asking: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T> {
        let patience = self.shared.patience();
        match tokio::time::timeout(patience, asking).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                if error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION) {
                    // Sessions that were opened while the server was read-only may stay read-only, so none is
                    // reused.
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

    /// Resets the session to its initial state. Call this after a transaction that may have run functions of
    /// others. A rollback neither removes the statements that they prepared, whose names may equal Landfall's,
    /// nor releases their advisory locks.
    pub(super) async fn renew(&self) -> Result<()> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.execute("DISCARD ALL").await?;
        self.execute(&self.shared.settings.preparation()).await
    }

    /// Reduces the lock timeout to a fifth for the rest of the transaction, because others wait for a lock that it
    /// holds.
    pub(super) async fn be_impatient(&self) -> Result<()> {
        let wait = (self.shared.settings.lock_timeout / 5).as_millis().max(1);
        self.execute(&format!("SET LOCAL lock_timeout = {wait}")).await
    }

    /// Repeats the initial settings within a transaction. Call this directly after functions of others ran in it: they
    /// may have changed the search path, which decides where a name without a schema is found.
    pub(super) async fn reset(&self) -> Result<()> {
        self.execute(&self.shared.settings.preparation()).await
    }

    /// Runs a statement that calls functions of others. Returns its result, or why there is none. `backend` is the
    /// server process of the session. It is terminated if the statement does not end within `limit`, because a
    /// function can ignore a cancellation.
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
            Err(error) => classify_hidden(&error).map(Err),
        }
    }

    /// Whether the session accepts no more statements.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Executes a statement that calls functions of others and returns no rows.
    pub(super) async fn execute_untrusted(&self, sql: &str) -> Result<()> {
        self.client()?.batch_execute(sql).await.map_err(|error| {
            let Some(code) = error.code().cloned() else { return failed(error) };
            let made = match code.code().get(..2).unwrap_or_default() {
                _ if code == SqlState::QUERY_CANCELED || code == SqlState::LOCK_NOT_AVAILABLE => {
                    return failed(error);
                }
                "22" => Error::conflict("an existing value does not fit"),
                "23" => Error::conflict("existing rows violate the constraint"),
                "40" | "53" | "57" | "58" | "08" | "XX" => Error::retryable("PostgreSQL cannot do this now"),
                _ => Error::permanent(
                    "PostgreSQL refuses the change, or a function that the owners attached to the table does: have an \
                     owner run the change to see why",
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

    /// Waits for work on this session. If the context is cancelled meanwhile, also asks the server to cancel the
    /// statement.
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
                // `work` ends when the statement or the session ends.
                match tokio::time::timeout(server.grace(), work).await {
                    Ok(Ok(_)) => log::debug!("the work was done before it could be stopped"),
                    Ok(Err(error)) => log::debug!("stopped: {}", error.report()),
                    Err(_) => {
                        self.silent.store(!asked, Ordering::Relaxed);
                        context.journal.warn(format!(
                            "target `{}` does not answer: statements sent before the stop may still take effect",
                            server.target()
                        ));
                    }
                }
                Err(Error::cancelled("stopped on request"))
            }
        }
    }

    /// Returns the session to the pool if `done` is a success, and closes it otherwise. Returns `done`.
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

/// Why a fact about rows is unknown. Functions of others may have run, so this contains no text from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    /// A row-level security policy filters the rows.
    Policy,
    /// The query exceeds its time limit.
    Slow,
    /// Anything else.
    Failed,
}

impl Unknown {
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::Policy => "a row-level security policy decides who sees which rows",
            Self::Slow => "the query takes longer than `count_timeout` of the target",
            Self::Failed => "the query of the rows failed",
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

/// Returns why a query failed, if functions of others may have raised the error. The text of the error is never
/// shown or logged.
fn classify_hidden(error: &tokio_postgres::Error) -> Result<Unknown> {
    let Some(code) = error.code() else {
        return Err(Error::retryable("the session with PostgreSQL was lost"));
    };
    let transient = matches!(code.code().get(..2).unwrap_or_default(), "08" | "40" | "53" | "57" | "58");
    match () {
        () if *code == SqlState::QUERY_CANCELED => Ok(Unknown::Slow),
        () if transient => Err(Error::retryable("PostgreSQL cannot read the rows now")
            .because(format!("SQLSTATE {}", code.code()))),
        () => {
            log::warn!("a query of rows failed: SQLSTATE {}", code.code());
            Ok(if *code == SqlState::INSUFFICIENT_PRIVILEGE { Unknown::Policy } else { Unknown::Failed })
        }
    }
}

/// Converts an error of the driver.
pub(super) fn failed(error: tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(db) => sqlstate::meaning(db),
        None => Error::retryable("the session with PostgreSQL was lost").because(error),
    }
}
