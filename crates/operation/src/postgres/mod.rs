//! The store of several replicas: one PostgreSQL database, no other coordination.
//!
//! - The queue writer holds one advisory lock for the length of each of its transactions, so that the queue changes
//!   by one transaction at a time, whichever replica it comes from, and each of them gathers what asks to be written
//!   meanwhile. A replica that hangs inside a transaction is cut off by the server after half of
//!   [`PostgresSettings::patience`], which is how long it can hold up the others.
//! - Time is the server's clock, read inside each transaction; the replicas' clocks decide nothing.
//! - News of commits go out after the commit, many in one `NOTIFY` (`NOTIFY` inside the transaction would make every
//!   commit wait for every other). They are hints: a replica that hears none finds everything by looking.
//! - A server that does not answer is given up on after [`PostgresSettings::patience`]; callers learn that they may
//!   try again, and the next attempt connects anew.
//!
//! The tables are in a schema of their own, `landfall`. Whoever starts first makes them.

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
/// Advisory locks of the database: whoever writes to the queue, and whoever brings the tables up to date.
const QUEUE_LOCK: i64 = i64::from_be_bytes(*b"landfall");
const MIGRATION_LOCK: i64 = QUEUE_LOCK + 1;

/// A connection that rested for longer than this is tried before it is used.
const FRESH: Duration = Duration::from_secs(1);

const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

const FIRST_DUE: Statement<'_> = Statement::both(concat!(
    "SELECT run_at, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint FROM task \
     WHERE lane = $1 AND state = 'queued' AND blocked = 0 AND ",
    known!(),
    " ORDER BY run_at LIMIT 1"
));

/// A store in a PostgreSQL database. See the module documentation.
pub type PostgresStore = Ledger<PostgresDatabase>;

/// How to reach the database.
#[derive(Clone)]
pub struct PostgresSettings {
    /// Where, as whom. May hold a password, so it is never shown.
    pub connection: PgConnectOptions,
    /// Connections for reading and for what concerns one run; one more writes to the queue and one listens.
    pub connections: u32,
    /// Longest wait for a connection, and for the answer to any one statement.
    pub patience: Duration,
}

impl PostgresSettings {
    /// For the URL `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=...`, with the default limits. The error
    /// does not quote the URL.
    pub fn parse(url: &str) -> Result<Self> {
        let connection = url.parse::<PgConnectOptions>().map_err(|_| {
            Error::permanent(
                "the store's URL cannot be read: write postgres://USER:PASSWORD@HOST:PORT/DATABASE, with special \
                 characters of the password percent-encoded",
            )
        })?;
        Ok(Self { connection, connections: 8, patience: Duration::from_secs(10) })
    }

    /// "landfall at db.example.com:5432 as adapter", without the password.
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

    /// With what every session of ours is to observe.
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
                // A server-wide `off` would let it forget what was promised.
                ("synchronous_commit", "on"),
                // Every statement finds its rows by an index. A plan is kept for as long as nothing is known to have
                // changed, and one that was made while a table was small would read all of it once it has grown.
                ("enable_seqscan", "off"),
                ("enable_hashjoin", "off"),
                ("enable_mergejoin", "off"),
                // Whatever the role's or the server's default is; a standby refuses all the same.
                ("default_transaction_read_only", "off"),
            ])
    }
}

impl std::fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresSettings").field("place", &self.place()).finish_non_exhaustive()
    }
}

/// Connections to a database that other processes use, too.
pub struct PostgresDatabase {
    writer: Writer,
    connections: Arc<Connections>,
    patience: Duration,
    /// Dropping them ends the exchange of news.
    _news: [AbortOnDropHandle<()>; 2],
}

impl PostgresStore {
    /// Connects, and makes the tables or brings them up to date.
    ///
    /// Fails with [`landfall_adapter::error::Kind::Permanent`] where that cannot be done: no such server, no such role, no right
    /// to make the schema, tables of a newer version.
    pub async fn open(settings: &PostgresSettings, limits: Limits) -> Result<Self> {
        migrate(settings).await?;
        let session = settings.session();
        let connections = Arc::new(Connections::new(&session, settings));
        // For the one that listens for good.
        let listener = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(settings.patience)
            .connect_lazy_with(session.clone());

        let (to_other_processes, news) = mpsc::channel(NEWS_QUEUE);
        let shared = Shared::new(limits, Some(to_other_processes));
        let instance = uuid::Uuid::new_v4().simple().to_string();
        let tell = news::tell(Arc::clone(&connections), news, instance.clone());
        let listen = news::listen(listener, shared.hints(), instance, settings.patience);
        let writer =
            QueueWriter { options: session, patience: settings.patience, session: None, proven: false };
        let database = PostgresDatabase {
            writer: Writer::start(writer),
            connections,
            patience: settings.patience,
            _news: [AbortOnDropHandle::new(tokio::spawn(tell)), AbortOnDropHandle::new(tokio::spawn(listen))],
        };
        Ok(ledger::open(database, shared))
    }
}

/// Brings the tables up to date, one process at a time.
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
    let mut connection = match patiently(settings.patience, connect(&options)).await {
        Ok(connection) => connection,
        Err(error) if Fault::of(&error) == Fault::Standby => return Err(failed(error)),
        Err(error) => return Err(unusable(error)),
    };
    sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(MIGRATION_LOCK)
        .execute(&mut connection)
        .await
        .map_err(unusable)?;
    // `IF NOT EXISTS` would ask for the right to create it even where it is there.
    let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)")
        .bind(SCHEMA)
        .fetch_one(&mut connection)
        .await
        .map_err(unusable)?;
    if !there {
        sqlx::query("CREATE SCHEMA landfall").execute(&mut connection).await.map_err(unusable)?;
    }
    MIGRATIONS.run(&mut connection, &place).await?;
    // Which lets go of the lock, too.
    connection.close().await.map_err(unusable)
}

/// A session on a server that takes writes.
async fn connect(options: &PgConnectOptions) -> sqlx::Result<PgConnection> {
    let mut connection = options.connect().await?;
    let standby: bool = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(&mut connection).await?;
    if standby {
        // Also for reading: what it knows may be old.
        let place = format!("{}:{} is in recovery", options.get_host(), options.get_port());
        return Err(Refused::error(Fault::Standby, place));
    }
    Ok(connection)
}

fn no_answer() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "PostgreSQL does not answer"))
}

/// The answer, or [`no_answer`] once the patience is over. What was under way on the connection is then unknown.
async fn patiently<T>(
    patience: Duration,
    work: impl Future<Output = sqlx::Result<T>> + Send,
) -> sqlx::Result<T> {
    timeout(patience, work).await.unwrap_or_else(|_| Err(no_answer()))
}

/// Connections for reading, for what concerns one run, and for telling news.
struct Connections {
    /// Where they are made, whoever asks: a connection does not outlive the runtime that made it, and HTTP workers have
    /// runtimes of their own, which end before the work under way does.
    runtime: Handle,
    options: PgConnectOptions,
    pool: Pool<PgConnection>,
    patience: Duration,
}

impl Connections {
    fn new(session: &PgConnectOptions, settings: &PostgresSettings) -> Self {
        // Shorter than the patience for an answer: whoever waits here has nothing under way yet, and a server that is
        // gone keeps everybody waiting.
        let pool = Pool::new(settings.connections, settings.patience / 4);
        Self { runtime: Handle::current(), options: session.clone(), pool, patience: settings.patience }
    }

    async fn connect(&self) -> sqlx::Result<PgConnection> {
        let (options, patience) = (self.options.clone(), self.patience / 4);
        let made = self.runtime.spawn(async move { patiently(patience, connect(&options)).await });
        made.await.unwrap_or(Err(sqlx::Error::PoolClosed))
    }

    /// `anew`: not one that rested, since those are of no use.
    async fn borrow(&self, anew: bool) -> sqlx::Result<(PooledConnection<PgConnection>, PgConnection)> {
        if anew {
            self.pool.discard();
        }
        let (lent, rested) = self.pool.borrow().await?;
        if let Some((mut connection, rested)) = rested
            && !anew
            && (rested <= FRESH || patiently(FRESH, connection.ping()).await.is_ok())
        {
            return Ok((lent, connection));
        }
        Ok((lent, self.connect().await?))
    }

    /// Runs one statement, by another connection when the one at hand turns out to be of no use.
    async fn read(&self, text: &str, args: &[Arg<'_>]) -> sqlx::Result<Vec<Row>> {
        let mut anew = false;
        loop {
            let (lent, mut connection) = self.borrow(anew).await?;
            match patiently(self.patience, fetch_postgres(&mut connection, text, args)).await {
                Ok(rows) => {
                    lent.give_back(connection);
                    return Ok(rows);
                }
                // The server was restarted since the connection was last used, or changed what it may do.
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
        // To the end, even when the caller stops waiting: no connection goes back with a transaction on it.
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
        // A server that is away shall not keep this process from ending.
        for connection in self.connections.pool.close() {
            let _ = timeout(self.patience, connection.close()).await;
        }
    }
}

/// Whether the connection is to blame, and not the statement.
fn is_cut_off(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() != std::io::ErrorKind::TimedOut,
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| code.starts_with("57P") || code.starts_with("08"))
        }
        _ => false,
    }
}

/// Whether the server refused, and a new session may be let do it: rights, roles, schemas and defaults change while old
/// sessions stay as they were. Nothing was committed then.
fn is_of_the_session(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    // Values and constraints are the statement's, locks and timeouts the moment's.
    const OTHERS: [&str; 8] = ["22", "23", "40", "53", "55", "57", "58", "08"];
    error.code().is_some_and(|code| !OTHERS.iter().any(|class| code.starts_with(class)))
}

/// One transaction that waits for no other but for the row it writes to.
async fn aside<W: Write>(session: &mut Session, work: &W) -> sqlx::Result<W::Answer> {
    session.begin("").await?;
    let answer = work.write(session).await?;
    session.commit().await?;
    Ok(answer)
}

/// A connection for one transaction after the other.
struct Session {
    connection: PgConnection,
    patience: Duration,
    /// When the transaction began, by the server's clock.
    begun: i64,
}

impl Session {
    fn new(connection: PgConnection, patience: Duration) -> Self {
        Self { connection, patience, begun: 0 }
    }

    /// Begins a transaction by two statements in one message; the second one tells the time in microseconds. What stands
    /// in `first` (a FROM clause, or nothing) happens before that, and before any snapshot.
    async fn begin(&mut self, first: &str) -> sqlx::Result<()> {
        use sqlx::Row as _;
        let begin = format!("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {NOW} {first}");
        let rows = patiently(self.patience, self.connection.fetch_all(begin.as_str())).await?;
        self.begun = rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get(0)?;
        Ok(())
    }

    async fn commit(&mut self) -> sqlx::Result<()> {
        patiently(self.patience, self.connection.execute("COMMIT")).await.map(drop)
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
        patiently(self.patience, fetch_postgres(&mut self.connection, text, args)).await
    }

    async fn execute(&mut self, statement: Statement<'_>, args: &[Arg<'_>]) -> sqlx::Result<u64> {
        let text = statement.text(Dialect::Postgres);
        patiently(self.patience, execute_postgres(&mut self.connection, text, args)).await
    }
}

/// Writes to the queue, by a session that is made when it is needed.
struct QueueWriter {
    options: PgConnectOptions,
    patience: Duration,
    session: Option<Session>,
    /// Whether something was committed by this session: one that never could has no better one to make way for.
    proven: bool,
}

#[async_trait]
impl Connection for QueueWriter {
    async fn begin(&mut self) -> sqlx::Result<&mut dyn Transaction> {
        let session = match self.session.take() {
            Some(session) => session,
            None => {
                self.proven = false;
                Session::new(patiently(self.patience, connect(&self.options)).await?, self.patience)
            }
        };
        let session = self.session.insert(session);
        // The lock comes first, the snapshot of each statement after it: what others committed is seen.
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
        let rolled_back = patiently(FRESH, session.connection.execute("ROLLBACK")).await;
        self.session = rolled_back.is_ok().then_some(session);
        false
    }

    async fn close(self) {
        if let Some(session) = self.session {
            // An error means that the server has closed it already.
            let _ = timeout(self.patience, session.connection.close()).await;
        }
    }
}

#[cfg(test)]
mod tests;
