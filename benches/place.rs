//! The operation store of a measured server, and direct access to it: reading and filling.

use std::path::{Path, PathBuf};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection as _, Row as _};

use crate::Result;
use crate::postgres::PostgresServer;

/// The two databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }
}

/// A store of one or more servers.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Sqlite(PathBuf),
    Postgres(String),
}

impl Place {
    /// Returns an empty store.
    pub(crate) fn fresh(kind: Kind, folder: &Path, server: &PostgresServer) -> Result<Self> {
        Ok(match kind {
            Kind::Sqlite => Self::Sqlite(folder.join("landfall.db")),
            Kind::Postgres => Self::Postgres(server.new_database()?),
        })
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite://{}", path.display()),
            Self::Postgres(url) => url.clone(),
        }
    }

    /// Runs statements one by one; returns the first column of the last one's rows, as text.
    async fn run(&self, statements: &[String]) -> Result<Vec<String>> {
        match self {
            Self::Sqlite(path) => {
                let options = SqliteConnectOptions::new().filename(path).disable_statement_logging();
                let mut connection: SqliteConnection = options.connect().await?;
                let mut rows = Vec::new();
                for statement in statements {
                    rows = sqlx::raw_sql(statement).fetch_all(&mut connection).await?;
                }
                let column = rows.iter().map(|row| row.try_get(0)).collect::<sqlx::Result<_>>()?;
                connection.close().await?;
                Ok(column)
            }
            Self::Postgres(url) => {
                let url =
                    url.parse::<sqlx::postgres::PgConnectOptions>()?.options([("search_path", "landfall")]);
                let mut connection = url.disable_statement_logging().connect().await?;
                let mut rows = Vec::new();
                for statement in statements {
                    rows = sqlx::raw_sql(statement).fetch_all(&mut connection).await?;
                }
                let column = rows.iter().map(|row| row.try_get(0)).collect::<sqlx::Result<_>>()?;
                connection.close().await?;
                Ok(column)
            }
        }
    }

    /// The payload of an unfinished task.
    pub(crate) async fn payload(&self) -> Result<String> {
        let some = "SELECT payload FROM task WHERE payload IS NOT NULL LIMIT 1".to_owned();
        Ok(self.run(&[some]).await?.pop().ok_or("no unfinished task")?)
    }

    /// Copies the only task, which is finished, and its log `count` times, and adds a deployment for every tenth.
    /// Returns a thousand of the tokens, spread over the whole store.
    pub(crate) async fn fill(&self, count: u64) -> Result<Vec<String>> {
        let columns = "operation, lane, targets, fingerprint, state, attempt, max_attempts, run_at, begun_at, \
                       lease_epoch, log_lines, outcome, reason, submitted_at, started_at, finished_at";
        let of_template =
            columns.split(", ").map(|column| format!("t.{column}")).collect::<Vec<_>>().join(", ");
        let component = |number: &str| {
            format!(
                "'[{{\"component\":\"urn:dmb:cmp:finance:kept:0:workload-' || {number} || \
                 '\",\"environment\":\"production\"}}]'"
            )
        };
        let sample =
            format!("SELECT id FROM task WHERE seq % {} = 1 ORDER BY id LIMIT 1000", (count / 1000).max(1));
        let deployments = |numbers: &str, number: &str| {
            format!(
                "INSERT INTO deployment (component, environment, target, status, specific, updated_at) \
                 SELECT 'urn:dmb:cmp:finance:kept:0:workload-' || {number}, environment, target, status, specific, \
                 updated_at FROM deployment, {numbers} WHERE {number} % 10 = 0"
            )
        };
        let statements = match self {
            Self::Sqlite(_) => {
                let numbers = format!(
                    "(WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) \
                     SELECT i FROM n) AS n"
                );
                let id = "lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || \
                          substr(hex(randomblob(2)), 2) || '-8' || substr(hex(randomblob(2)), 2) || '-' || \
                          hex(randomblob(6)))";
                vec![
                    "PRAGMA cache_size = -400000".to_owned(),
                    "BEGIN IMMEDIATE".to_owned(),
                    format!(
                        "INSERT INTO task (id, components, {columns}) SELECT {id}, {}, {of_template} \
                         FROM {numbers} CROSS JOIN task t WHERE t.seq = 1",
                        component("n.i")
                    ),
                    "INSERT INTO task_log (task_seq, line, at, level, phase, message) \
                     SELECT t.seq, l.line, l.at, l.level, l.phase, l.message \
                     FROM task t CROSS JOIN task_log l WHERE l.task_seq = 1 AND t.seq > 1"
                        .to_owned(),
                    deployments(&numbers, "n.i"),
                    "COMMIT".to_owned(),
                    "ANALYZE".to_owned(),
                    "PRAGMA wal_checkpoint(TRUNCATE)".to_owned(),
                    sample,
                ]
            }
            Self::Postgres(_) => {
                let numbers = format!("generate_series(1, {count}) AS n (i)");
                vec![
                    // Counted together afterwards, and not row by row.
                    "ALTER TABLE task_log DROP CONSTRAINT task_log_task_seq_fkey".to_owned(),
                    format!(
                        "INSERT INTO task (id, components, {columns}) SELECT gen_random_uuid()::text, {}, \
                         {of_template} FROM {numbers} CROSS JOIN task t WHERE t.seq = 1",
                        component("n.i")
                    ),
                    "INSERT INTO task_log (task_seq, line, at, level, phase, message) \
                     SELECT t.seq, l.line, l.at, l.level, l.phase, l.message \
                     FROM task t CROSS JOIN task_log l WHERE l.task_seq = 1 AND t.seq > 1"
                        .to_owned(),
                    deployments(&numbers, "n.i"),
                    "ALTER TABLE task_log ADD CONSTRAINT task_log_task_seq_fkey FOREIGN KEY (task_seq) \
                     REFERENCES task (seq) ON DELETE CASCADE"
                        .to_owned(),
                    "VACUUM ANALYZE task".to_owned(),
                    "VACUUM ANALYZE task_log".to_owned(),
                    "VACUUM ANALYZE deployment".to_owned(),
                    sample,
                ]
            }
        };
        self.run(&statements).await
    }
}

/// Makes PostgreSQL write its dirty pages, so that it does not do so during a measurement.
pub(crate) fn checkpoint(server: &PostgresServer) -> Result<()> {
    server.psql("CHECKPOINT")?;
    Ok(())
}

/// "PostgreSQL 15.18 (Debian ...)", shortened.
pub(crate) fn version(server: &PostgresServer) -> Result<String> {
    let rows = server.psql("SHOW server_version")?;
    Ok(rows.into_iter().flatten().flatten().next().unwrap_or_default())
}
