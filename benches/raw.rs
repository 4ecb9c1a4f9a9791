//! The baseline of an accept: a durable insertion of the same size, without any other work.
//!
//! The table has a key and a payload as large as that of a task. Both databases are as durable as Landfall's: SQLite
//! with WAL and `synchronous = FULL`, PostgreSQL with `fsync` and `synchronous_commit`. Other settings of the store,
//! which cost time (`secure_delete`) or save it (its cache), are not set here.

use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection as _, Executor as _};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::Result;
use crate::client::{total, warm_until};

/// Rows that one INSERT of SQLite may have, largest first: any number of rows is put together from few prepared
/// statements.
const ROWS_PER_STATEMENT: [usize; 3] = [32, 4, 1];
/// The largest number of insertions in one commit.
const BATCH: usize = 512;

/// One connection that commits the insertions that arrived since its last commit.
pub(crate) struct GroupCommit {
    rows: mpsc::Sender<Row>,
    payload: String,
}

/// A row to insert, and the channel that reports its commit.
type Row = (String, oneshot::Sender<()>);

impl GroupCommit {
    fn start(mut connection: RawConnection, payload: &str) -> Self {
        let (rows, mut receiver) = mpsc::channel::<Row>(BATCH);
        tokio::spawn(async move {
            let mut waiting = Vec::with_capacity(BATCH);
            while receiver.recv_many(&mut waiting, BATCH).await > 0 {
                let (payloads, replies): (Vec<_>, Vec<_>) = waiting.drain(..).unzip();
                if let Err(error) = connection.insert(&payloads).await {
                    // The waiting caller notices that its channel is closed.
                    eprintln!("the baseline cannot insert: {error}");
                    return;
                }
                for one in replies {
                    let _ = one.send(());
                }
            }
        });
        Self { rows, payload: payload.to_owned() }
    }

    /// Inserts one row; it is on disk when this returns.
    pub(crate) async fn insert(&self, payload: String) -> Result<()> {
        let (done, committed) = oneshot::channel();
        self.rows.send((payload, done)).await?;
        Ok(committed.await?)
    }

    /// The same, with the payload of the writer.
    pub(crate) async fn insert_one(&self) -> Result<()> {
        self.insert(self.payload.clone()).await
    }

    /// Insertions per second of this many callers.
    pub(crate) async fn load(&self, callers: usize, time: Duration) -> Result<f64> {
        let begin = warm_until();
        let end = begin + time;
        let mut tasks = JoinSet::new();
        for _ in 0..callers {
            let one = Self { rows: self.rows.clone(), payload: self.payload.clone() };
            tasks.spawn(async move {
                let mut count = 0;
                loop {
                    one.insert_one().await?;
                    let now = Instant::now();
                    if now >= end {
                        return Ok(count);
                    }
                    count += u64::from(now >= begin);
                }
            });
        }
        total(tasks, time).await
    }
}

enum RawConnection {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl RawConnection {
    async fn insert(&mut self, payloads: &[String]) -> Result<()> {
        match self {
            Self::Sqlite(connection) => {
                connection.execute("BEGIN IMMEDIATE").await?;
                let mut rest = payloads;
                while let Some((rows, later)) =
                    ROWS_PER_STATEMENT.iter().find_map(|size| rest.split_at_checked(*size))
                {
                    rest = later;
                    let places = vec!["(?)"; rows.len()].join(", ");
                    let text = format!("INSERT INTO raw (payload) VALUES {places}");
                    let mut insert = sqlx::query(&text);
                    for payload in rows {
                        insert = insert.bind(payload);
                    }
                    insert.execute(&mut *connection).await?;
                }
                connection.execute("COMMIT").await?;
            }
            Self::Postgres(connection) => {
                sqlx::query("INSERT INTO raw (payload) SELECT unnest($1::text[])")
                    .bind(payloads)
                    .execute(connection)
                    .await?;
            }
        }
        Ok(())
    }
}

/// A writer to an SQLite file of its own.
pub(crate) async fn sqlite(folder: &Path, payload: &str) -> Result<GroupCommit> {
    let mut connection = SqliteConnectOptions::new()
        .filename(folder.join("raw.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .disable_statement_logging()
        .connect()
        .await?;
    connection.execute("CREATE TABLE raw (id INTEGER PRIMARY KEY, payload TEXT NOT NULL)").await?;
    Ok(GroupCommit::start(RawConnection::Sqlite(connection), payload))
}

/// A writer to a PostgreSQL database of its own.
pub(crate) async fn postgres(url: &str, payload: &str) -> Result<GroupCommit> {
    let mut connection = connect(url).await?;
    connection
        .execute(
            "CREATE TABLE raw (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, payload TEXT NOT NULL)",
        )
        .await?;
    Ok(GroupCommit::start(RawConnection::Postgres(connection), payload))
}

async fn connect(url: &str) -> Result<PgConnection> {
    Ok(url.parse::<PgConnectOptions>()?.disable_statement_logging().connect().await?)
}

/// Insertions per second of this many callers with a connection each, into the table that [`postgres`] created: a
/// commit for each, which PostgreSQL flushes together.
pub(crate) async fn postgres_each(url: &str, payload: &str, callers: usize, time: Duration) -> Result<f64> {
    let mut connections = Vec::with_capacity(callers);
    for _ in 0..callers {
        connections.push(connect(url).await?);
    }
    let begin = warm_until();
    let end = begin + time;
    let mut tasks = JoinSet::new();
    for mut connection in connections {
        let payload = payload.to_owned();
        tasks.spawn(async move {
            let mut count = 0;
            loop {
                sqlx::query("INSERT INTO raw (payload) VALUES ($1)")
                    .bind(payload.as_str())
                    .execute(&mut connection)
                    .await?;
                let now = Instant::now();
                if now >= end {
                    connection.close().await?;
                    return Ok(count);
                }
                count += u64::from(now >= begin);
            }
        });
    }
    total(tasks, time).await
}
