//! Sessions with the server: a small pool, timeouts on each, and statements that end when the work is stopped.
//!
//! - A session is borrowed for one piece of work and goes back only when all of it went well; every other one is
//!   closed. Nothing is reset, because nothing that failed is kept.
//! - Sessions live on the runtime that the pool was made on. Whoever borrows one may live on another that ends sooner.
//! - A stop is carried to the server: [`Session::within`] asks it to cancel the statement and waits for its answer. A
//!   run that is dropped half way does the same behind its back.
//! - `statement_timeout`, `lock_timeout` and `idle_in_transaction_session_timeout` are set on every session, so that
//!   neither we nor whoever we wait for can hold up a database.
//! - Certificates are verified, or TLS is off because somebody wrote so: there is nothing in between.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{CancelToken, Client, NoTls, Statement, ToStatement};
use tokio_postgres_rustls::MakeRustlsConnect;
use url::Url;

use crate::error::{Error, Result};
use crate::technology::Context;

/// How long the server may take to answer a login.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the server may take to end a cancelled statement.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a statement that ran into its own timeout may take to end.
const GRACE: Duration = Duration::from_secs(2);
/// A session that rested for longer is tried before it is used.
const STALE: Duration = Duration::from_secs(1);

/// How sessions are made. `Debug` shows no password.
#[derive(Clone)]
pub(super) struct Login {
    config: tokio_postgres::Config,
    tls: Option<Tls>,
    /// `HOST:PORT/DATABASE`, for messages.
    pub(super) place: String,
    pub(super) database: String,
}

#[derive(Clone)]
struct Tls {
    /// Trusted instead of the system's certificates.
    root: Option<PathBuf>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Login {
    /// Reads `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full&sslrootcert=PATH`. The problem never
    /// quotes the URL.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let mut url = Url::parse(url).map_err(|error| format!("is not a URL: {error}"))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(format!("has the scheme `{}`; write `postgres://USER@HOST/DATABASE`", url.scheme()));
        }
        let mut options: BTreeMap<String, String> = BTreeMap::new();
        let mut others = Vec::new();
        for (key, value) in url.query_pairs() {
            match key.as_ref() {
                "sslmode" | "sslrootcert" => {
                    options.insert(key.into_owned(), value.into_owned());
                }
                _ => others.push((key.into_owned(), value.into_owned())),
            }
        }
        url.set_query(None);
        if !others.is_empty() {
            url.query_pairs_mut().extend_pairs(others);
        }
        let mut config: tokio_postgres::Config =
            url.as_str().parse().map_err(|error: tokio_postgres::Error| {
                // The cause names the option, never its value.
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                format!("cannot be read: {}", cause.unwrap_or_else(|| error.to_string()))
            })?;
        let Some(database) = config.get_dbname().map(str::to_owned).filter(|name| !name.is_empty()) else {
            return Err("names no database; write `postgres://USER@HOST/DATABASE`".to_owned());
        };
        if config.get_user().is_none() {
            return Err("names no user; write `postgres://USER@HOST/DATABASE`".to_owned());
        }
        let is_local = |host: &Host| match host {
            Host::Tcp(name) => matches!(name.as_str(), "localhost" | "127.0.0.1" | "::1" | "[::1]"),
            Host::Unix(_) => true,
        };
        let local = config.get_hosts().iter().all(is_local);
        let tls = match options.get("sslmode").map(String::as_str) {
            Some("disable") => None,
            None if local => None,
            None | Some("verify-full") => Some(Tls { root: options.get("sslrootcert").map(PathBuf::from) }),
            Some(other) => {
                return Err(format!(
                    "has `sslmode={other}`, which verifies nobody; write `sslmode=verify-full` (with `sslrootcert=PATH` \
                     where the certificate is your own), or `sslmode=disable`"
                ));
            }
        };
        config
            .ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable })
            .application_name("landfall")
            .connect_timeout(CONNECT_TIMEOUT);
        let host = match config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            Some(Host::Unix(path)) => path.display().to_string(),
            None => "localhost".to_owned(),
        };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let place = format!("{host}:{port}/{database}");
        Ok(Self { config, tls, place, database })
    }

    /// The same login to another database of the server.
    pub(super) fn to(&self, database: &str) -> Self {
        let mut other = self.clone();
        other.config.dbname(database);
        let server = self.place.strip_suffix(&self.database).unwrap_or_default();
        other.place = format!("{server}{database}");
        other.database = database.to_owned();
        other
    }

    async fn connector(&self) -> Result<Option<MakeRustlsConnect>> {
        let Some(tls) = &self.tls else { return Ok(None) };
        let (root, place) = (tls.root.clone(), self.place.clone());
        let made = tokio::task::spawn_blocking(move || connector(root, &place)).await;
        made.map_err(|e| Error::retryable("the certificates could not be read").because(e))?.map(Some)
    }
}

/// Reads the trusted certificates; blocks.
fn connector(root: Option<PathBuf>, place: &str) -> Result<MakeRustlsConnect> {
    let mut trusted = rustls::RootCertStore::empty();
    match root {
        Some(path) => {
            let failed = |e: rustls::pki_types::pem::Error| {
                Error::permanent(format!(
                    "the certificates `{}` (`sslrootcert`) for `{place}` cannot be read",
                    path.display()
                ))
                .because(e)
            };
            for certificate in CertificateDer::pem_file_iter(&path).map_err(failed)? {
                trusted.add(certificate.map_err(failed)?).map_err(|e| {
                    Error::permanent(format!(
                        "`{}` (`sslrootcert`) has no usable certificate",
                        path.display()
                    ))
                    .because(e)
                })?;
            }
        }
        None => {
            trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::permanent("TLS cannot be used").because(e))?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// What a pool is made with.
#[derive(Debug, Clone)]
pub(super) struct PoolSettings {
    pub(super) target: String,
    pub(super) login: Login,
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

/// The sessions of one target. Cloning shares them.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    settings: PoolSettings,
    /// The runtime that sessions live on.
    home: Handle,
    connector: tokio::sync::OnceCell<Option<MakeRustlsConnect>>,
    permits: Arc<Semaphore>,
    resting: Mutex<Vec<(Connection, Instant)>>,
}

/// A connection, and what was prepared on it.
struct Connection {
    client: Client,
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
        let shared = Shared {
            settings,
            home,
            connector: tokio::sync::OnceCell::new(),
            permits,
            resting: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Borrows a session; waits for one when all are in use.
    pub(super) async fn session(&self, context: &Context) -> Result<Session> {
        context.check_cancelled()?;
        let permit = tokio::select! {
            permit = Arc::clone(&self.shared.permits).acquire_owned() => permit,
            () = context.cancel.cancelled() => return Err(Error::cancelled("stopped on request")),
        };
        let permit = permit.map_err(|e| Error::retryable("the target is closing").because(e))?;
        while let Some((connection, since)) = self.shared.take() {
            let (client, fresh) = (&connection.client, since.elapsed() < STALE);
            if !client.is_closed() && (fresh || client.check_connection().await.is_ok()) {
                return Ok(self.lend(connection, permit));
            }
        }
        let pool = self.clone();
        let making = self.shared.home.spawn(async move { pool.connect().await });
        let client = tokio::select! {
            made = making => made.map_err(|e| Error::retryable("no session was made").because(e))??,
            () = context.cancel.cancelled() => return Err(Error::cancelled("stopped on request")),
        };
        Ok(self.lend(Connection { client, prepared: HashMap::new() }, permit))
    }

    fn lend(&self, connection: Connection, permit: OwnedSemaphorePermit) -> Session {
        let Connection { client, prepared } = connection;
        Session {
            client: Some(client),
            prepared: Mutex::new(prepared),
            shared: Arc::clone(&self.shared),
            usable: false,
            given_up: AtomicBool::new(false),
            _permit: permit,
        }
    }

    async fn connect(&self) -> Result<Client> {
        let PoolSettings { target, login, .. } = &self.shared.settings;
        let failed = |e: tokio_postgres::Error| {
            let place = format!("`{}` of target `{target}`", login.place);
            match e.as_db_error() {
                Some(db) if is_login_problem(db.code()) => Error::permanent(format!(
                    "the server does not let Landfall in to {place}: {}; check the URL of the target",
                    db.message()
                ))
                .because(e),
                None if is_untrusted(&e) => Error::permanent(format!(
                    "{place} does not prove who it is: check `sslrootcert` and the host in the URL of the target"
                ))
                .because(e),
                _ => Error::retryable(format!("{place} cannot be reached")).because(e),
            }
        };
        let connector = self.shared.connector.get_or_try_init(|| login.connector()).await?;
        let client = match connector {
            Some(tls) => {
                let (client, connection) = login.config.connect(tls.clone()).await.map_err(failed)?;
                tokio::spawn(driven(connection));
                client
            }
            None => {
                let (client, connection) = login.config.connect(NoTls).await.map_err(failed)?;
                tokio::spawn(driven(connection));
                client
            }
        };
        client.batch_execute(&self.shared.settings.preparation()).await.map_err(failed)?;
        Ok(client)
    }
}

/// Moves what a session sends and receives. Notices are not read: functions of others write them, with whatever is in them.
async fn driven<S, T>(mut connection: tokio_postgres::Connection<S, T>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = std::future::poll_fn(|context| connection.poll_message(context)).await {
        if let Err(error) = message {
            log::debug!("a session with PostgreSQL ended: {error}");
            return;
        }
    }
}

impl Shared {
    fn take(&self) -> Option<(Connection, Instant)> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Asks the server to end what a session is doing.
    async fn cancel(&self, token: CancelToken) {
        let cancelled = async {
            match self.connector.get().and_then(Option::as_ref) {
                Some(tls) => token.cancel_query(tls.clone()).await,
                None => token.cancel_query(NoTls).await,
            }
        };
        match tokio::time::timeout(CANCEL_TIMEOUT, cancelled).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::warn!("a statement could not be cancelled: {error}"),
            Err(_) => log::warn!("a statement could not be cancelled: the server does not answer"),
        }
    }
}

/// A borrowed session. What is not [`Session::give_back`]-ed is closed, and its statement cancelled.
pub(super) struct Session {
    client: Option<Client>,
    prepared: Mutex<HashMap<&'static str, Statement>>,
    shared: Arc<Shared>,
    usable: bool,
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
        let row = self.client()?.query_opt(statement, parameters).await.map_err(failed)?;
        row.map_or(Ok(None), |row| row.try_get(0).map_err(failed))
    }

    /// A statement that is one of few: what the server makes of it is kept with the session.
    pub(super) async fn prepared(&self, sql: &'static str) -> Result<Statement> {
        let kept = || self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept().get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.client()?.prepare(sql).await.map_err(failed)?;
        kept().insert(sql, statement.clone());
        Ok(statement)
    }

    /// Statements without an answer.
    pub(super) async fn execute(&self, sql: &str) -> Result<()> {
        self.client()?.batch_execute(sql).await.map_err(failed)
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
            let (pool, end) = (
                Pool { shared: Arc::clone(&self.shared) },
                format!("SELECT pg_terminate_backend({backend})"),
            );
            self.shared.home.spawn(async move {
                let ended = match pool.connect().await {
                    Ok(client) => client.batch_execute(&end).await.map_err(failed),
                    Err(error) => Err(error),
                };
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
        self.client.as_ref().ok_or_else(|| Error::retryable("the session is closed"))
    }

    /// Waits for work on this session; when the context is cancelled meanwhile, the server is asked to cancel it, too.
    pub(super) async fn within<T>(
        &self,
        context: &Context,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let token = self.client()?.cancel_token();
        tokio::pin!(work);
        tokio::select! {
            done = &mut work => done,
            () = context.cancel.cancelled() => {
                self.shared.cancel(token).await;
                // It ends with the statement, or with the session.
                match tokio::time::timeout(CANCEL_TIMEOUT, work).await {
                    Ok(Ok(_)) => log::debug!("the work was done before it could be stopped"),
                    Ok(Err(error)) => log::debug!("stopped: {}", error.report()),
                    Err(_) => log::warn!("a cancelled statement does not end"),
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
        let Some(client) = self.client.take() else { return };
        let usable = self.usable && !self.is_given_up();
        if usable && !self.shared.settings.rest {
            // Closed by being dropped.
        } else if usable && !client.is_closed() {
            let prepared = std::mem::take(self.prepared.get_mut().unwrap_or_else(PoisonError::into_inner));
            let mut resting = self.shared.resting.lock().unwrap_or_else(PoisonError::into_inner);
            resting.push((Connection { client, prepared }, Instant::now()));
        } else if !client.is_closed() {
            let (token, shared) = (client.cancel_token(), Arc::clone(&self.shared));
            let home = self.shared.home.clone();
            home.spawn(async move {
                shared.cancel(token).await;
                drop(client);
            });
        }
    }
}

/// Whether a certificate was refused.
fn is_untrusted(error: &tokio_postgres::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    let cause =
        cause.and_then(std::io::Error::get_ref).and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::InvalidCertificate(_)))
}

fn is_login_problem(code: &SqlState) -> bool {
    [
        SqlState::INVALID_PASSWORD,
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        SqlState::INVALID_CATALOG_NAME,
        SqlState::INSUFFICIENT_PRIVILEGE,
    ]
    .contains(code)
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

/// What an error of the server means for the work. The message is public, so it never has what PostgreSQL quotes from
/// rows: only the names of objects, in its first line or where something depends on something.
pub(super) fn failed(error: tokio_postgres::Error) -> Error {
    let Some(db) = error.as_db_error() else {
        return Error::retryable("the session with PostgreSQL was lost").because(error);
    };
    let (code, message) = (db.code(), db.message().to_owned());
    let made = match code.code().get(..2).unwrap_or_default() {
        _ if *code == SqlState::QUERY_CANCELED => {
            Error::retryable("a statement took longer than `statement_timeout` and was cancelled")
        }
        _ if *code == SqlState::LOCK_NOT_AVAILABLE => {
            Error::retryable("somebody else holds a lock for longer than `lock_timeout`")
        }
        _ if *code == SqlState::DEPENDENT_OBJECTS_STILL_EXIST => {
            let detail = db.detail().unwrap_or_default().replace('\n', "; ");
            Error::conflict(format!("{message}: {detail}"))
        }
        _ if [
            SqlState::DUPLICATE_SCHEMA,
            SqlState::DUPLICATE_DATABASE,
            SqlState::DUPLICATE_OBJECT,
            SqlState::DUPLICATE_TABLE,
            SqlState::DUPLICATE_COLUMN,
            SqlState::UNDEFINED_OBJECT,
            SqlState::UNDEFINED_TABLE,
            SqlState::UNDEFINED_COLUMN,
            SqlState::INVALID_SCHEMA_NAME,
        ]
        .contains(code) =>
        {
            Error::retryable(format!("somebody else was at work at the same time: {message}"))
        }
        _ if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
            Error::permanent(format!("the role of the target may not do this: {message}"))
        }
        // Two that make the same thing at the same moment: one is told so by an index of the catalogs.
        _ if *code == SqlState::UNIQUE_VIOLATION && db.schema() == Some("pg_catalog") => {
            Error::retryable(format!("somebody else was at work at the same time: {message}"))
        }
        // The message quotes the value.
        "22" => Error::conflict("a value that is there does not fit"),
        // The first line names a constraint; the row is in the detail.
        "23" => Error::conflict(format!("the rows that are there stand against it: {message}")),
        "40" | "53" | "57" | "58" | "08" => Error::retryable(format!("PostgreSQL is not able to: {message}")),
        // Written by a function of somebody's: a trigger on what is changed in a schema.
        "P0" => Error::permanent("a function of the database refuses, for example of an event trigger"),
        // "tuple concurrently updated": two grants on one object.
        "XX" => Error::retryable(format!("PostgreSQL failed: {message}")),
        _ => Error::permanent(format!("PostgreSQL refuses: {message}")),
    };
    // Not the error itself: its detail quotes rows, and that is nothing for a log either.
    let quotes_rows = code.code().starts_with("22") || code.code().starts_with("P0");
    let said = if quotes_rows { String::new() } else { format!(": {}", db.message()) };
    made.because(format!("SQLSTATE {}{said}", code.code()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_whether_the_server_is_verified() {
        for (url, tls, place) in [
            ("postgres://u:p@db.example.com/d", true, "db.example.com:5432/d"),
            (
                "postgres://u:p@db.example.com:1/d?sslmode=verify-full&sslrootcert=/ca.pem",
                true,
                "db.example.com:1/d",
            ),
            ("postgresql://u@db.example.com/d?sslmode=disable", false, "db.example.com:5432/d"),
            ("postgres://u@127.0.0.1:5433/d", false, "127.0.0.1:5433/d"),
            ("postgres://u@localhost/d?sslmode=verify-full", true, "localhost:5432/d"),
        ] {
            let login = Login::parse(url).unwrap();
            assert_eq!((login.tls.is_some(), login.place.as_str()), (tls, place), "{url}");
            assert!(!format!("{login:?}").contains("\"p\""));
        }
        for (url, said) in [
            ("db", "is not a URL"),
            ("mysql://u@h/d", "scheme `mysql`"),
            ("postgres://u:secret@h/d?sslmode=require", "sslmode=require"),
            ("postgres://u:secret@h/d?sslmode=prefer", "sslmode=prefer"),
            ("postgres://u:secret@h", "names no database"),
            ("postgres://h/d", "names no user"),
            ("postgres://u:secret@h/d?colour=blue", "colour"),
        ] {
            let problem = Login::parse(url).unwrap_err();
            assert!(problem.contains(said) && !problem.contains("secret"), "{problem}");
        }
    }
}
