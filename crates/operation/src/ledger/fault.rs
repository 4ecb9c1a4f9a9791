//! What a database error means for the caller: whether it is transient, and the remedy.

use std::fmt;

use sqlx::postgres::PgDatabaseError;

use landfall_adapter::error::Error;

/// Why a database call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The database does not respond in time.
    Away,
    /// The disk of the database is full.
    Full,
    /// The database is read-only at the moment.
    ReadOnly,
    /// The server is a PostgreSQL standby.
    Standby,
    /// The role lacks a right, or an object is missing.
    Denied,
    /// The files of the database are damaged.
    Damaged,
    /// A row violates a constraint or a type.
    Unreadable,
    /// A file was removed or replaced while it was in use.
    Moved,
}

impl Fault {
    pub(crate) fn of(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => Self::Unreadable,
            sqlx::Error::Configuration(cause) => match cause.downcast_ref::<Refused>() {
                Some(refused) => refused.fault,
                None => Self::Away,
            },
            sqlx::Error::Database(error) => match (error.try_downcast_ref::<PgDatabaseError>(), error.code())
            {
                (Some(error), _) => Self::of_postgres(error.code(), error.message()),
                (None, Some(code)) => Self::of_sqlite(code.parse().unwrap_or_default()),
                (None, None) => Self::Away,
            },
            _ => Self::Away,
        }
    }

    fn of_postgres(code: &str, message: &str) -> Self {
        match code {
            "25006" => Self::ReadOnly,
            "0A000" if message.contains("recovery") => Self::Standby,
            "53100" => Self::Full,
            "42501" | "42704" | "42P01" | "3F000" | "3D000" => Self::Denied,
            _ if code.starts_with("28") => Self::Denied,
            "XX001" | "XX002" => Self::Damaged,
            _ => Self::Away,
        }
    }

    /// The fault for an extended SQLite result code, whose lower byte is the primary code.
    fn of_sqlite(code: i32) -> Self {
        /// `SQLITE_READONLY_DBMOVED`
        const MOVED: i32 = 1032;
        match (code, code & 0xff) {
            (MOVED, _) => Self::Moved,
            (_, 8) => Self::ReadOnly,
            (_, 13) => Self::Full,
            (_, 11 | 26) => Self::Damaged,
            _ => Self::Away,
        }
    }

    /// The public error; `cause` is for the administrator's log.
    pub(crate) fn error(self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        let error = match self {
            Self::Away => Error::retryable("the operation store does not answer; try again later"),
            Self::Full => {
                Error::retryable("the operation store cannot be written, its disk is full; try again later")
            }
            Self::ReadOnly => {
                Error::retryable("the operation store cannot be written, it is read-only; try again later")
            }
            Self::Standby => Error::retryable(
                "the operation store is a PostgreSQL standby, which takes no writes: name the primary in store.url, or \
                 promote it",
            ),
            Self::Denied => Error::retryable(
                "the operation store refuses what Landfall asks of it: restore the rights of its role, and the schema",
            ),
            Self::Damaged => Error::permanent(
                "the operation store is damaged: stop Landfall, restore the store from a backup (of an SQLite file, the one \
                 with its -wal), and start again",
            ),
            Self::Unreadable => Error::permanent("the operation store holds a row that cannot be read"),
            Self::Moved => Error::retryable(
                "a file of the operation store was removed or replaced while Landfall uses it: nothing is accepted until \
                 it is back or Landfall is started again",
            ),
        };
        error.because(cause)
    }
}

/// The error of a store that this process finds unusable without a database error.
#[derive(Debug)]
pub(crate) struct Refused {
    fault: Fault,
    what: String,
}

impl Refused {
    pub(crate) fn error(fault: Fault, what: impl Into<String>) -> sqlx::Error {
        sqlx::Error::Configuration(Box::new(Self { fault, what: what.into() }))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Refused {}

/// The public error of a database error.
pub(crate) fn failed(error: sqlx::Error) -> Error {
    Fault::of(&error).error(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_both_databases_have_remedies() {
        for (code, fault) in [
            (5, Fault::Away),
            (10, Fault::Away),
            (8, Fault::ReadOnly),
            (776, Fault::ReadOnly),
            (1032, Fault::Moved),
            (13, Fault::Full),
            (11, Fault::Damaged),
            (267, Fault::Damaged),
            (779, Fault::Damaged),
            (26, Fault::Damaged),
        ] {
            assert_eq!(Fault::of_sqlite(code), fault, "{code}");
        }
        for (code, message, fault) in [
            ("57P01", "terminating connection", Fault::Away),
            ("25006", "cannot execute UPDATE in a read-only transaction", Fault::ReadOnly),
            ("0A000", "cannot set transaction read-write mode during recovery", Fault::Standby),
            ("0A000", "cached plan must not change result type", Fault::Away),
            ("53100", "could not extend file", Fault::Full),
            ("42501", "permission denied for table task", Fault::Denied),
            ("28P01", "password authentication failed", Fault::Denied),
            ("XX001", "invalid page in block 1", Fault::Damaged),
        ] {
            assert_eq!(Fault::of_postgres(code, message), fault, "{code}");
        }
    }
}
