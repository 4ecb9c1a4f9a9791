//! The store for several replicas: one PostgreSQL database, and no other coordination.
//!
//! - The queue writer holds one advisory lock during each of its transactions. So the queue changes by one
//!   transaction at a time over all replicas, and each transaction includes the writes that arrived in the
//!   meantime. If a replica hangs in a transaction, the server ends the transaction after half of
//!   [`PostgresSettings::patience`], so the other replicas wait no longer than that.
//! - The time is the server's clock, read in each transaction. The clocks of the replicas decide nothing.
//! - Notifications are sent after the commit, many in one `NOTIFY` (inside the transaction, `NOTIFY` would make every
//!   commit wait for every other). They are hints: a replica that receives none finds everything by polling.
//! - If the server does not respond within [`PostgresSettings::patience`], callers get a transient error, and the
//!   next attempt opens a new connection.
//!
//! The tables are in the schema `landfall`. The first process creates them.

mod news;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection as _, Executor as _, PgConnection};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use self::news::NEWS_QUEUE;
use super::ledger::commit::{Connection, Write, Writer, unavailable};
use super::ledger::fault::{Fault, Refused, failed};
use super::ledger::formats::known;
use super::ledger::pool::{Pool, PooledConnection};
use super::ledger::sql::{Arg, Dialect, Row, Statement, Transaction, args, execute_postgres, fetch_postgres};
use super::ledger::{self, Database, Ledger, Shared, between};
use super::migration::Migrations;
use super::operation::Lane;
use super::store::Limits;
use landfall_adapter::error::{Error, Result};

const MIGRATIONS: Migrations = Migrations(&[
    (1, "operations", include_str!("../../migrations/postgres/0001_operations.sql")),
    (2, "topology", include_str!("../../migrations/postgres/0002_topology.sql")),
    (3, "formats and bounds", include_str!("../../migrations/postgres/0003_formats_and_bounds.sql")),
    (4, "kinds and products", include_str!("../../migrations/postgres/0004_kinds_and_products.sql")),
    (5, "info and memory", include_str!("../../migrations/postgres/0005_info_and_memory.sql")),
]);

const SCHEMA: &str = "landfall";
/// Advisory locks of the database: one for writes to the queue, one for migrations.
const QUEUE_LOCK: i64 = i64::from_be_bytes(*b"landfall");
const MIGRATION_LOCK: i64 = QUEUE_LOCK + 1;

/// A connection that was idle for longer than this is tested before it is used.
const FRESH: Duration = Duration::from_secs(1);

const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

const FIRST_DUE: Statement<'_> = Statement::both(concat!(
    "SELECT run_at, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint FROM task \
     WHERE lane = $1 AND state = 'queued' AND blocked = 0 AND ",
    known!(),
    " ORDER BY run_at LIMIT 1"
));

/// A store in a PostgreSQL database; see the module documentation.
pub type PostgresStore = Ledger<PostgresDatabase>;

/// How to reach the database.
#[derive(Clone)]
pub struct PostgresSettings {
    /// Server, database and user. May contain a password, so it is never shown.
    pub connection: PgConnectOptions,
    /// Connections for reading and for data of single runs. One more writes to the queue, and one listens.
    pub connections: u32,
    /// The longest wait for a connection, and for the result of one statement.
    pub patience: Duration,
}

impl PostgresSettings {
    /// Parses `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=...`, with the default limits. The error does not
    /// quote the URL.
    pub fn parse(url: &str) -> Result<Self> {
        let connection = url.parse::<PgConnectOptions>().map_err(|_| {
            Error::permanent(
                "the store's URL cannot be read: write postgres://USER:PASSWORD@HOST:PORT/DATABASE, with special \
                 characters of the password percent-encoded",
            )
        })?;
        Ok(Self { connection, connections: 8, patience: Duration::from_secs(10) })
    }

    /// The database in messages, without the password: "`landfall` at db.example.com:5432 as `adapter`".
    fn place(&self) -> String {
        let options = &self.connection;
        let database = options.get_database().unwrap_or_else(|| options.get_username());
        format!(
            "`{database}` at {}:{} as `{}`",
            options.get_host(),
            options.get_port(),
            options.get_username()
        )
    }

    /// The settings of every session.
    fn session(&self) -> PgConnectOptions {
        let patience = format!("{}ms", self.patience.as_millis().max(1));
        let idle = format!("{}ms", (self.patience / 2).as_millis().max(1));
        self.connection
            .clone()
            .application_name("landfall")
            .statement_cache_capacity(128)
            .disable_statement_logging()
            .options([
                ("search_path", SCHEMA),
                ("statement_timeout", patience.as_str()),
                ("lock_timeout", patience.as_str()),
                ("idle_in_transaction_session_timeout", idle.as_str()),
                // With a server-wide `off`, the server could lose committed data.
                ("synchronous_commit", "on"),
                // Every statement finds its rows by an index. PostgreSQL keeps plans, and a plan that was made
                // when a table was small would later read the whole table.
                ("enable_seqscan", "off"),
                ("enable_hashjoin", "off"),
                ("enable_mergejoin", "off"),
                // Overrides the default of the role and the server; a standby still refuses.
                ("default_transaction_read_only", "off"),
            ])
    }
}

impl std::fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresSettings").field("place", &self.place()).finish_non_exhaustive()
    }
}

/// Connections to a database that other processes also use.
pub struct PostgresDatabase {
    writer: Writer,
    connections: Arc<Connections>,
    patience: Duration,
    /// The tasks that send and receive notifications. Dropping them ends both.
    _news: [AbortOnDropHandle<()>; 2],
}

impl PostgresStore {
    /// Connects, and creates or migrates the tables.
    ///
    /// Returns [`landfall_adapter::error::Kind::Permanent`] if that is impossible: no such server or role, no right
    /// to create the schema, or tables of a newer version.
    pub async fn open(settings: &PostgresSettings, limits: Limits) -> Result<Self> {
        migrate(settings).await?;
        let session = settings.session();
        let connections = Arc::new(Connections::new(&session, settings));
        // One more for the listener.
        let listener = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(settings.patience)
            .connect_lazy_with(session.clone());

        let (to_other_processes, news) = mpsc::channel(NEWS_QUEUE);
        let shared = Shared::new(limits, Some(to_other_processes));
        let instance = uuid::Uuid::new_v4().simple().to_string();
        let notify_replicas = news::notify_replicas(Arc::clone(&connections), news, instance.clone());
        let listen = news::listen(listener, shared.hints(), instance, settings.patience);
        let writer =
            QueueWriter { options: session, patience: settings.patience, session: None, proven: false };
        let database = PostgresDatabase {
            writer: Writer::start(writer),
            connections,
            patience: settings.patience,
            _news: [
                AbortOnDropHandle::new(tokio::spawn(notify_replicas)),
                AbortOnDropHandle::new(tokio::spawn(listen)),
            ],
        };
        Ok(ledger::open(database, shared))
    }
}

/// Migrates the tables, one process at a time.
async fn migrate(settings: &PostgresSettings) -> Result<()> {
    let place = settings.place();
    let unusable = |error: sqlx::Error| {
        Error::permanent(format!(
            "cannot use the operation store {place}: check that the server runs and answers there, that the role may \
             log in, and that it may create the schema `{SCHEMA}`"
        ))
        .because(error)
    };
    let options = settings
        .connection
        .clone()
        .application_name("landfall")
        .options([("search_path", SCHEMA), ("default_transaction_read_only", "off")]);
    let mut connection = match with_timeout(settings.patience, connect(&options)).await {
        Ok(connection) => connection,
        Err(error) if Fault::of(&error) == Fault::Standby => return Err(failed(error)),
        Err(error) => return Err(unusable(error)),
    };
    sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(MIGRATION_LOCK)
        .execute(&mut connection)
        .await
        .map_err(unusable)?;
    // `IF NOT EXISTS` needs the right to create the schema even if it exists.
    let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)")
        .bind(SCHEMA)
        .fetch_one(&mut connection)
        .await
        .map_err(unusable)?;
    if !there {
        sqlx::query("CREATE SCHEMA landfall").execute(&mut connection).await.map_err(unusable)?;
    }
    MIGRATIONS.run(&mut connection, &place).await?;
    // The end of the session also releases the lock.
    connection.close().await.map_err(unusable)
}

/// Opens a session on a server that accepts writes.
async fn connect(options: &PgConnectOptions) -> sqlx::Result<PgConnection> {
    let mut connection = options.connect().await?;
    let standby: bool = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(&mut connection).await?;
    if standby {
        // A standby is refused also for reading, because it may have old data.
        let place = format!("{}:{} is in recovery", options.get_host(), options.get_port());
        return Err(Refused::error(Fault::Standby, place));
    }
    Ok(connection)
}

fn no_answer() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "PostgreSQL does not answer"))
}

/// Returns the result, or [`no_answer`] after the timeout. The state of the connection is then unknown.
async fn with_timeout<T>(
    patience: Duration,
    work: impl Future<Output = sqlx::Result<T>> + Send,
) -> sqlx::Result<T> {
    timeout(patience, work).await.unwrap_or_else(|_| Err(no_answer()))
}

/// Connections for reading, for data of single runs, and for notifications.
struct Connections {
    /// The runtime that opens connections. A connection does not outlive its runtime, and HTTP workers have runtimes
    /// of their own, which end before running work does.
    runtime: Handle,
    options: PgConnectOptions,
    pool: Pool<PgConnection>,
    patience: Duration,
}

impl Connections {
    fn new(session: &PgConnectOptions, settings: &PostgresSettings) -> Self {
        // Shorter than the timeout of a statement, because a caller that waits here has started nothing, and a server
        // that is gone makes all callers wait.
        let pool = Pool::new(settings.connections, settings.patience / 4);
        Self { runtime: Handle::current(), options: session.clone(), pool, patience: settings.patience }
    }

    async fn connect(&self) -> sqlx::Result<PgConnection> {
        let (options, patience) = (self.options.clone(), self.patience / 4);
        let made = self.runtime.spawn(async move { with_timeout(patience, connect(&options)).await });
        made.await.unwrap_or(Err(sqlx::Error::PoolClosed))
    }

    /// Takes a permit and a connection from the pool. `anew`: discards the idle connections, because they are
    /// unusable, and opens a new one.
    async fn borrow(&self, anew: bool) -> sqlx::Result<(PooledConnection<PgConnection>, PgConnection)> {
        if anew {
            self.pool.discard();
        }
        let (lent, rested) = self.pool.borrow().await?;
        if let Some((mut connection, rested)) = rested
            && !anew
            && (rested <= FRESH || with_timeout(FRESH, connection.ping()).await.is_ok())
        {
            return Ok((lent, connection));
        }
        Ok((lent, self.connect().await?))
    }

    /// Runs one statement, on another connection if the first one is unusable.
    async fn read(&self, text: &str, args: &[Arg<'_>]) -> sqlx::Result<Vec<Row>> {
        let mut anew = false;
        loop {
            let (lent, mut connection) = self.borrow(anew).await?;
            match with_timeout(self.patience, fetch_postgres(&mut connection, text, args)).await {
                Ok(rows) => {
                    lent.give_back(connection);
                    return Ok(rows);
                }
                // The server was restarted since the connection was last used, or its rights changed.
                Err(error) if !anew && (is_cut_off(&error) || is_of_the_session(&error)) => anew = true,
                Err(error) => return Err(error),
            }
        }
    }
}

#[async_trait]
impl Database for PostgresDatabase {
    async fn read(&self, statement: Statement<'_>, args: &[Arg<'_>]) -> sqlx::Result<Vec<Row>> {
        self.connections.read(statement.text(Dialect::Postgres), args).await
    }

    fn is_exclusive(&self) -> bool {
        false
    }

    fn queue(&self) -> &Writer {
        &self.writer
    }

    async fn write_aside<W: Write>(&self, work: W) -> Result<W::Answer> {
        let connections = Arc::clone(&self.connections);
        let patience = self.patience;
        // Runs to the end even if the caller stops waiting, so that no connection is returned with an open
        // transaction.
        let written = self.connections.runtime.spawn(async move {
            let mut anew = false;
            loop {
                let (lent, connection) = connections.borrow(anew).await.map_err(failed)?;
                let mut session = Session::new(connection, patience);
                match aside(&mut session, &work).await {
                    Ok(answer) => {
                        lent.give_back(session.connection);
                        work.committed(&answer);
                        return Ok(answer);
                    }
                    Err(error) if !anew && is_of_the_session(&error) => anew = true,
                    Err(error) => return Err(failed(error)),
                }
            }
        });
        written.await.unwrap_or_else(|error| Err(unavailable(error)))
    }

    async fn due_in(&self, lane: Lane) -> sqlx::Result<Option<Duration>> {
        let rows = self.read(FIRST_DUE, args![lane.as_str()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let now = row.int(1)?;
        Ok(row.optional_int(0)?.map(|at| between(now, at)))
    }

    async fn close(&self) {
        self.writer.close().await;
        // An unreachable server must not keep this process from ending.
        for connection in self.connections.pool.close() {
            let _ = timeout(self.patience, connection.close()).await;
        }
    }
}

/// Whether the connection caused the error, and not the statement.
fn is_cut_off(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() != std::io::ErrorKind::TimedOut,
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| code.starts_with("57P") || code.starts_with("08"))
        }
        _ => false,
    }
}

/// Whether a new session may succeed: rights, roles, schemas and defaults may have changed since the old
/// session began. After such an error, nothing was committed.
fn is_of_the_session(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    // Errors of values and constraints belong to the statement, and locks and timeouts to the moment.
    const OTHERS: [&str; 8] = ["22", "23", "40", "53", "55", "57", "58", "08"];
    error.code().is_some_and(|code| !OTHERS.iter().any(|class| code.starts_with(class)))
}

/// Runs `work` in a transaction without the queue lock, so that it waits only for locks of the rows that it
/// writes.
async fn aside<W: Write>(session: &mut Session, work: &W) -> sqlx::Result<W::Answer> {
    session.begin("").await?;
    let answer = work.write(session).await?;
    session.commit().await?;
    Ok(answer)
}

/// A connection that runs one transaction after the other.
struct Session {
    connection: PgConnection,
    patience: Duration,
    /// The beginning of the transaction, by the server's clock.
    begun: i64,
}

impl Session {
    fn new(connection: PgConnection, patience: Duration) -> Self {
        Self { connection, patience, begun: 0 }
    }

    /// Begins a transaction with two statements in one message; the second one returns the time in
    /// microseconds. `first` (a FROM clause, or empty) runs before the time is read, and so before the
    /// snapshots of all later statements.
    async fn begin(&mut self, first: &str) -> sqlx::Result<()> {
        use sqlx::Row as _;
        let begin = format!("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {NOW} {first}");
        let rows = with_timeout(self.patience, self.connection.fetch_all(begin.as_str())).await?;
        self.begun = rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get(0)?;
        Ok(())
    }

    async fn commit(&mut self) -> sqlx::Result<()> {
        with_timeout(self.patience, self.connection.execute("COMMIT")).await.map(drop)
    }
}

#[async_trait]
impl Transaction for Session {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    fn now(&self) -> i64 {
        self.begun
    }

    fn time_of_day(&self) -> i64 {
        self.begun
    }

    async fn fetch(&mut self, statement: Statement<'_>, args: &[Arg<'_>]) -> sqlx::Result<Vec<Row>> {
        let text = statement.text(Dialect::Postgres);
        with_timeout(self.patience, fetch_postgres(&mut self.connection, text, args)).await
    }

    async fn execute(&mut self, statement: Statement<'_>, args: &[Arg<'_>]) -> sqlx::Result<u64> {
        let text = statement.text(Dialect::Postgres);
        with_timeout(self.patience, execute_postgres(&mut self.connection, text, args)).await
    }
}

/// Writes to the queue, on a session that is opened when it is needed.
struct QueueWriter {
    options: PgConnectOptions,
    patience: Duration,
    session: Option<Session>,
    /// Whether this session has committed something. If it has not, a new session would probably fail in the
    /// same way.
    proven: bool,
}

#[async_trait]
impl Connection for QueueWriter {
    async fn begin(&mut self) -> sqlx::Result<&mut dyn Transaction> {
        let session = match self.session.take() {
            Some(session) => session,
            None => {
                self.proven = false;
                Session::new(with_timeout(self.patience, connect(&self.options)).await?, self.patience)
            }
        };
        let session = self.session.insert(session);
        // The lock is taken before the snapshot of each later statement, so committed changes of others are
        // visible.
        session.begin(&format!("FROM pg_advisory_xact_lock({QUEUE_LOCK})")).await?;
        Ok(session)
    }

    async fn commit(&mut self) -> sqlx::Result<()> {
        self.session.as_mut().ok_or_else(no_answer)?.commit().await?;
        self.proven = true;
        Ok(())
    }

    async fn recover(&mut self, error: &sqlx::Error) -> bool {
        let Some(mut session) = self.session.take() else { return false };
        if is_of_the_session(error) {
            return self.proven;
        }
        let rolled_back = with_timeout(FRESH, session.connection.execute("ROLLBACK")).await;
        self.session = rolled_back.is_ok().then_some(session);
        false
    }

    async fn close(self) {
        if let Some(session) = self.session {
            // An error means that the server has already closed it.
            let _ = timeout(self.patience, session.connection.close()).await;
        }
    }
}

#[cfg(test)]
mod tests;
