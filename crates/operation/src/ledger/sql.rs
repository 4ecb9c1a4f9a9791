//! The SQL interface to both databases: parameters and columns are integers and texts.
//!
//! Parameters are `$1`, `$2`, which both databases accept. Lists are passed as JSON text. How a statement unpacks
//! them is one of the few differences between the databases ([`Statement::each`]).

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

/// The kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

/// A statement for both databases.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Statement<'s> {
    sqlite: &'s str,
    postgres: &'s str,
}

impl<'s> Statement<'s> {
    /// The same text for both.
    pub(crate) const fn both(text: &'s str) -> Self {
        Self { sqlite: text, postgres: text }
    }

    /// One text for each.
    pub(crate) const fn each(sqlite: &'s str, postgres: &'s str) -> Self {
        Self { sqlite, postgres }
    }

    pub(crate) fn text(self, dialect: Dialect) -> &'s str {
        match dialect {
            Dialect::Sqlite => self.sqlite,
            Dialect::Postgres => self.postgres,
        }
    }
}

/// A parameter.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arg<'a> {
    Int(i64),
    Text(&'a str),
    OptionalText(Option<&'a str>),
}

impl From<i64> for Arg<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<u32> for Arg<'_> {
    fn from(value: u32) -> Self {
        Self::Int(value.into())
    }
}

impl<'a> From<&'a str> for Arg<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a String> for Arg<'a> {
    fn from(value: &'a String) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<Option<&'a str>> for Arg<'a> {
    fn from(value: Option<&'a str>) -> Self {
        Self::OptionalText(value)
    }
}

/// The parameters of a statement.
macro_rules! args {
    ($($value:expr),* $(,)?) => { &[$($crate::ledger::sql::Arg::from($value)),*] };
}
pub(crate) use args;

/// An open transaction.
#[async_trait]
pub(crate) trait Transaction: Send {
    /// The kind of database, for the few steps that only one of them needs.
    fn dialect(&self) -> Dialect;

    /// The time that leases and waits use, in microseconds, at the beginning of the transaction.
    fn now(&self) -> i64;

    /// The time of day in microseconds since 1970, at the beginning of the transaction.
    fn time_of_day(&self) -> i64;

    /// Runs a statement, and returns the rows that it reads or returns.
    async fn fetch(&mut self, statement: Statement<'_>, args: &[Arg<'_>]) -> sqlx::Result<Vec<Row>>;

    /// Runs a statement that writes, and returns the number of rows that it changed.
    async fn execute(&mut self, statement: Statement<'_>, args: &[Arg<'_>]) -> sqlx::Result<u64>;
}

/// Binds the parameters.
macro_rules! bound {
    ($query:expr, $args:expr) => {{
        let mut query = $query;
        for arg in $args {
            query = match *arg {
                Arg::Int(value) => query.bind(value),
                Arg::Text(value) => query.bind(value),
                Arg::OptionalText(value) => query.bind(value),
            };
        }
        query
    }};
}

fn sqlite<'q>(
    text: &'q str,
    args: &'q [Arg<'q>],
) -> Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments<'q>> {
    bound!(sqlx::query(text), args)
}

fn postgres<'q>(
    text: &'q str,
    args: &'q [Arg<'q>],
) -> Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments> {
    bound!(sqlx::query(text), args)
}

/// Reads from SQLite.
pub(crate) async fn fetch_sqlite(
    on: &mut SqliteConnection,
    text: &str,
    args: &[Arg<'_>],
) -> sqlx::Result<Vec<Row>> {
    Ok(sqlite(text, args).fetch_all(on).await?.into_iter().map(Row::Sqlite).collect())
}

/// Writes to SQLite.
pub(crate) async fn execute_sqlite(
    on: &mut SqliteConnection,
    text: &str,
    args: &[Arg<'_>],
) -> sqlx::Result<u64> {
    Ok(sqlite(text, args).execute(on).await?.rows_affected())
}

/// Reads from PostgreSQL.
pub(crate) async fn fetch_postgres(
    on: &mut PgConnection,
    text: &str,
    args: &[Arg<'_>],
) -> sqlx::Result<Vec<Row>> {
    Ok(postgres(text, args).fetch_all(on).await?.into_iter().map(Row::Postgres).collect())
}

/// Writes to PostgreSQL.
pub(crate) async fn execute_postgres(
    on: &mut PgConnection,
    text: &str,
    args: &[Arg<'_>],
) -> sqlx::Result<u64> {
    Ok(postgres(text, args).execute(on).await?.rows_affected())
}

/// A row of either database, with typed access to its columns.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

macro_rules! cell {
    ($row:expr, $index:expr, $as:ty) => {
        match $row {
            Row::Sqlite(row) => row.try_get::<$as, _>($index),
            Row::Postgres(row) => row.try_get::<$as, _>($index),
        }
    };
}

impl Row {
    pub(crate) fn int(&self, index: usize) -> sqlx::Result<i64> {
        cell!(self, index, i64)
    }

    pub(crate) fn optional_int(&self, index: usize) -> sqlx::Result<Option<i64>> {
        cell!(self, index, Option<i64>)
    }

    pub(crate) fn text(&self, index: usize) -> sqlx::Result<&str> {
        cell!(self, index, &str)
    }

    pub(crate) fn optional_text(&self, index: usize) -> sqlx::Result<Option<&str>> {
        cell!(self, index, Option<&str>)
    }

    /// A number from 0 to `u32::MAX`; any other value is an error.
    pub(crate) fn count(&self, index: usize) -> sqlx::Result<u32> {
        let value = self.int(index)?;
        u32::try_from(value).map_err(|_| sqlx::Error::Decode(format!("{value} is no count").into()))
    }

    /// A number, limited to the range of `u32`; 0 if it cannot be read. For columns with little effect, because
    /// one damaged row must not stop a query of many rows.
    pub(crate) fn clamped(&self, index: usize) -> u32 {
        self.int(index).map_or(0, |value| u32::try_from(value.max(0)).unwrap_or(u32::MAX))
    }

    pub(crate) fn name<T>(&self, index: usize, parse: fn(&str) -> Option<T>) -> sqlx::Result<T> {
        name(self.text(index)?, parse)
    }

    pub(crate) fn json<T: DeserializeOwned>(&self, index: usize) -> sqlx::Result<T> {
        from_json(self.text(index)?)
    }

    pub(crate) fn optional_json<T: DeserializeOwned>(&self, index: usize) -> sqlx::Result<Option<T>> {
        self.optional_text(index)?.map(from_json).transpose()
    }

    pub(crate) fn time(&self, index: usize) -> sqlx::Result<DateTime<Utc>> {
        time(self.int(index)?)
    }

    pub(crate) fn optional_time(&self, index: usize) -> sqlx::Result<Option<DateTime<Utc>>> {
        self.optional_int(index)?.map(time).transpose()
    }
}

pub(crate) fn name<T>(text: &str, parse: fn(&str) -> Option<T>) -> sqlx::Result<T> {
    parse(text).ok_or_else(|| sqlx::Error::Decode(format!("`{text}` is not a known name").into()))
}

pub(crate) fn time(micros: i64) -> sqlx::Result<DateTime<Utc>> {
    DateTime::from_timestamp_micros(micros)
        .ok_or_else(|| sqlx::Error::Decode(format!("{micros} is not a time").into()))
}

fn from_json<T: DeserializeOwned>(text: &str) -> sqlx::Result<T> {
    // The error of serde_json may quote the text, so only its position is used.
    serde_json::from_str(text).map_err(|error| {
        sqlx::Error::Decode(
            format!("not the JSON expected, line {} column {}", error.line(), error.column()).into(),
        )
    })
}

pub(crate) fn to_json<T: Serialize>(value: &T) -> sqlx::Result<String> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}
