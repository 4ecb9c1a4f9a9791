//! Classifies errors of PostgreSQL in one table, by SQLSTATE.
//!
//! - *Transient*: the server, its administrator or other sessions can fix the failure without a change of the
//!   descriptor. Examples are outages, full disks, standbys, lost rights and changed passwords. Landfall retries; the
//!   message names the fault and the remedy for the administrator.
//! - *Conflict*: existing rows or objects prevent the change.
//! - *Permanent*: the same statement will fail again.
//!
//! The message is public. It contains what PostgreSQL reports about objects. It never contains values from rows, nor
//! messages from functions of the owners, which may raise any text with any code.

use tokio_postgres::error::DbError;

use landfall_adapter::error::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Transient,
    Conflict,
    Permanent,
}

use Meaning::{Conflict, Permanent, Transient};

/// A row for one code of five characters, or for all codes of a class that have no row of their own.
struct Row {
    code: &'static str,
    meaning: Meaning,
    /// The fault, written before the message of PostgreSQL.
    says: &'static str,
    /// The remedy for the administrator.
    remedy: &'static str,
}

const fn row(code: &'static str, meaning: Meaning, says: &'static str, remedy: &'static str) -> Row {
    Row { code, meaning, says, remedy }
}

const REFUSES: &str = "PostgreSQL refuses";
const SAME_TIME: &str = "another session made a conflicting change";
const UNABLE: &str = "PostgreSQL cannot do this now";
const CODE_OF_OWNERS: &str = "code of the owners (a function, policy, check or trigger) failed";
const LOGIN: &str = "the server rejects the login of Landfall";
const CHECK_LOGIN: &str =
    "check the user and the password in the URL of the target, and `pg_hba.conf` of the server";
const AWAY: &str = "PostgreSQL starts, stops or has lost a process";
const WAIT_FOR_SERVER: &str = "make sure that the server comes back";

/// Every class of the manual, and the codes that differ from their class.
const TABLE: &[Row] = &[
    // Classes that are not errors.
    row("00", Permanent, REFUSES, ""),
    row("01", Permanent, REFUSES, ""),
    row("02", Permanent, REFUSES, ""),
    row("03", Permanent, REFUSES, ""),
    row("08", Transient, "the connection with PostgreSQL failed", WAIT_FOR_SERVER),
    row("09", Permanent, CODE_OF_OWNERS, ""),
    row("0A", Permanent, REFUSES, ""),
    row("0B", Permanent, REFUSES, ""),
    row("0F", Permanent, REFUSES, ""),
    row("0L", Permanent, REFUSES, ""),
    row("0P", Permanent, REFUSES, ""),
    row("0Z", Permanent, REFUSES, ""),
    row("10", Permanent, REFUSES, ""),
    row("20", Permanent, REFUSES, ""),
    row("21", Permanent, REFUSES, ""),
    // Messages of this class quote values, so they are not shown.
    row("22", Conflict, "an existing value does not fit", ""),
    // The message names only the constraint. The detail quotes the row, and is not shown.
    row("23", Conflict, "existing rows violate the constraint", ""),
    row("24", Permanent, REFUSES, ""),
    row("25", Permanent, REFUSES, ""),
    row(
        "25006",
        Transient,
        "the server is read-only",
        "promote the standby, point the URL of the target to the primary, or end `default_transaction_read_only`",
    ),
    row("25P03", Transient, "a session was idle in a transaction for too long and was ended", ""),
    row("25P04", Transient, "a transaction took longer than `transaction_timeout` and was ended", ""),
    row("26", Permanent, REFUSES, ""),
    row("27", Permanent, REFUSES, ""),
    row("28", Transient, LOGIN, CHECK_LOGIN),
    row("2B", Permanent, REFUSES, ""),
    row("2BP01", Conflict, "", ""),
    row("2D", Permanent, REFUSES, ""),
    row("2F", Permanent, CODE_OF_OWNERS, ""),
    row("34", Permanent, REFUSES, ""),
    row("38", Permanent, CODE_OF_OWNERS, ""),
    row("39", Permanent, CODE_OF_OWNERS, ""),
    row("3B", Permanent, REFUSES, ""),
    row(
        "3D",
        Transient,
        "the database does not exist",
        "complete the failover or the restore, or name another database in the URL of the target",
    ),
    row("3F", Transient, SAME_TIME, ""),
    row("40", Transient, SAME_TIME, ""),
    row("42", Permanent, REFUSES, ""),
    row(
        "42501",
        Transient,
        "the role of the target may not do this",
        "have a superuser run the statements of \"Before the first use\"",
    ),
    row("42701", Transient, SAME_TIME, ""),
    row("42703", Transient, SAME_TIME, ""),
    row("42704", Transient, SAME_TIME, ""),
    row("42710", Transient, SAME_TIME, ""),
    row("42P01", Transient, SAME_TIME, ""),
    row("42P04", Transient, SAME_TIME, ""),
    row("42P06", Transient, SAME_TIME, ""),
    row("42P07", Transient, SAME_TIME, ""),
    row("44", Conflict, "existing rows violate the constraint", ""),
    row("53", Transient, UNABLE, "add the missing resources to the server"),
    row(
        "53100",
        Transient,
        "a disk of PostgreSQL is full",
        "free space on the server; the change is retried meanwhile",
    ),
    row(
        "53200",
        Transient,
        "PostgreSQL is out of memory or shared memory",
        "raise its limits, or wait for others to end",
    ),
    row(
        "53300",
        Transient,
        "PostgreSQL has too many sessions",
        "raise `max_connections` or the limit of the role, or lower `connections` of the target",
    ),
    row("54", Conflict, "a limit of PostgreSQL is exceeded", ""),
    row("55", Permanent, REFUSES, ""),
    row(
        "55000",
        Transient,
        "the object is not in a state for it",
        "allow connections to the database again, or complete the interrupted drop",
    ),
    row("55006", Transient, "the object is in use", "end the sessions that use it"),
    row("55P03", Transient, "another session holds a lock for longer than `lock_timeout`", ""),
    row("57", Transient, AWAY, WAIT_FOR_SERVER),
    row("57014", Transient, "a statement took longer than `statement_timeout` and was cancelled", ""),
    row("57P04", Transient, "the database was dropped meanwhile", ""),
    row("58", Transient, "PostgreSQL cannot read or write its files", "check the disks of the server"),
    row("72", Transient, UNABLE, ""),
    row("F0", Transient, "the configuration of PostgreSQL is wrong", "check the files of the server"),
    row("HV", Permanent, "a foreign data wrapper failed", ""),
    row("HV00N", Transient, "a foreign server does not answer", ""),
    row("P0", Permanent, CODE_OF_OWNERS, ""),
    // "tuple concurrently updated": two grants on one object.
    row("XX", Transient, "PostgreSQL failed", ""),
    row("XX001", Permanent, "a file of PostgreSQL is damaged", "restore it"),
    row("XX002", Permanent, "an index of PostgreSQL is damaged", "rebuild it"),
];

/// The row for a code that the table does not have, such as one of a later release.
const UNKNOWN: Row = row("", Permanent, REFUSES, "");

/// Codes whose error leaves out the message of PostgreSQL, because that message repeats the text of the row or
/// quotes a value.
const SAID: [&str; 8] = ["25P03", "25P04", "53100", "55P03", "57014", "57P04", "HV00N", "XX002"];

fn find(code: &str) -> &'static Row {
    let class = code.get(..2).unwrap_or_default();
    let of = |wanted: &str| TABLE.iter().find(|row| row.code == wanted);
    of(code).or_else(|| of(class)).unwrap_or(&UNKNOWN)
}

/// Classifies an error of the server.
pub(super) fn meaning(db: &DbError) -> Error {
    explained(db.code().code(), db.message(), db.detail(), db.schema(), db.where_())
}

fn explained(
    code: &str,
    message: &str,
    detail: Option<&str>,
    schema: Option<&str>,
    context: Option<&str>,
) -> Error {
    // Two sessions created the same object concurrently, and a unique index of the catalogs rejected one of them.
    let row = match code {
        "23505" if schema == Some("pg_catalog") => find("40"),
        code => find(code),
    };
    // Only errors from functions have a context, and their text is not trusted.
    let of_owners = context.is_some() || row.says == CODE_OF_OWNERS;
    let quotes_rows = code.starts_with("22");
    let mut text = row.says.to_owned();
    if of_owners && row.says != CODE_OF_OWNERS {
        text = match text.is_empty() {
            true => CODE_OF_OWNERS.to_owned(),
            false => format!("{text}: raised by code of the owners, whose message is not shown"),
        };
    } else if code == "2BP01" {
        text = format!("{message}: {}", detail.unwrap_or_default().replace('\n', "; "));
    } else if !of_owners && !quotes_rows && !SAID.contains(&code) {
        text = format!("{text}: {message}");
    }
    if !row.remedy.is_empty() {
        text = format!("{text}; {}", row.remedy);
    }
    let made = match row.meaning {
        Transient => Error::retryable(text),
        Conflict => Error::conflict(text),
        Permanent => Error::permanent(text),
    };
    // The cause is a text and not the database error, because the detail of that error quotes rows, which must
    // not be logged.
    let said = if quotes_rows || of_owners { String::new() } else { format!(": {message}") };
    made.because(format!("SQLSTATE {code}{said}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_adapter::error::Kind;

    /// The classes of appendix A of the manual of PostgreSQL 17, and `10`, which exists since release 9.
    const CLASSES: [&str; 44] = [
        "00", "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "20", "21", "22", "23",
        "24", "25", "26", "27", "28", "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "40", "42", "44",
        "53", "54", "55", "57", "58", "72", "F0", "HV", "P0", "XX",
    ];

    #[test]
    fn classifies_every_sqlstate_class() {
        let mut classes: Vec<&str> =
            TABLE.iter().map(|row| row.code).filter(|code| code.len() == 2).collect();
        classes.sort_unstable();
        assert_eq!(classes, CLASSES);
        let mut codes: Vec<&str> = TABLE.iter().map(|row| row.code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), TABLE.len(), "a code exists twice");
    }

    #[test]
    fn transient_sqlstates_are_retryable_with_a_remedy() {
        let said = |code: &str| {
            let error = explained(code, "MESSAGE", None, None, None);
            (error.is_retryable(), error.to_string())
        };
        for (code, expected) in [
            ("08006", "the connection with PostgreSQL failed: MESSAGE; make sure that the server comes back"),
            ("25006", "the server is read-only: MESSAGE; promote the standby, "),
            (
                "28000",
                "the server rejects the login of Landfall: MESSAGE; check the user and the password in the URL",
            ),
            (
                "28P01",
                "the server rejects the login of Landfall: MESSAGE; check the user and the password in the URL",
            ),
            ("3D000", "the database does not exist: MESSAGE; complete the failover"),
            ("40001", "another session made a conflicting change: MESSAGE"),
            ("40P01", "another session made a conflicting change: MESSAGE"),
            ("42501", "the role of the target may not do this: MESSAGE; have a superuser run the statements"),
            ("42P07", "another session made a conflicting change: MESSAGE"),
            ("53100", "a disk of PostgreSQL is full; free space on the server"),
            ("53200", "PostgreSQL is out of memory or shared memory: MESSAGE; raise its limits"),
            ("53300", "PostgreSQL has too many sessions: MESSAGE; raise `max_connections`"),
            ("53400", "PostgreSQL cannot do this now: MESSAGE; add the missing resources to the server"),
            ("55000", "the object is not in a state for it: MESSAGE; allow connections to the database"),
            ("55006", "the object is in use: MESSAGE; end the sessions that use it"),
            ("55P03", "another session holds a lock for longer than `lock_timeout`"),
            ("57014", "a statement took longer than `statement_timeout` and was cancelled"),
            (
                "57P01",
                "PostgreSQL starts, stops or has lost a process: MESSAGE; make sure that the server comes back",
            ),
            (
                "57P02",
                "PostgreSQL starts, stops or has lost a process: MESSAGE; make sure that the server comes back",
            ),
            (
                "57P03",
                "PostgreSQL starts, stops or has lost a process: MESSAGE; make sure that the server comes back",
            ),
            ("57P04", "the database was dropped meanwhile"),
            ("58030", "PostgreSQL cannot read or write its files: MESSAGE; check the disks of the server"),
            ("72000", "PostgreSQL cannot do this now: MESSAGE"),
            ("F0001", "the configuration of PostgreSQL is wrong: MESSAGE; check the files of the server"),
            ("XX000", "PostgreSQL failed: MESSAGE"),
        ] {
            let (retryable, text) = said(code);
            assert!(retryable && text.starts_with(expected), "{code}: {retryable}: {text}");
        }
        for code in ["0A000", "42601", "42804", "55P02", "P0001", "XX001", "ZZ000", ""] {
            assert!(!said(code).0, "{code}: {}", said(code).1);
        }
    }

    #[test]
    fn errors_quote_neither_rows_nor_code_of_owners() {
        let schema = Some("pg_catalog");
        for (code, detail, schema, context, kind, expected) in [
            ("22003", None, None, None, Kind::Conflict, "an existing value does not fit"),
            (
                "23505",
                Some("Key (a)=(1)"),
                None,
                None,
                Kind::Conflict,
                "existing rows violate the constraint: MESSAGE",
            ),
            (
                "23505",
                None,
                schema,
                None,
                Kind::Retryable,
                "another session made a conflicting change: MESSAGE",
            ),
            ("2BP01", Some("view a\nview b"), None, None, Kind::Conflict, "MESSAGE: view a; view b"),
            ("54000", None, None, None, Kind::Conflict, "a limit of PostgreSQL is exceeded: MESSAGE"),
            ("P0001", None, None, None, Kind::Permanent, CODE_OF_OWNERS),
            ("2BP01", None, None, Some("function"), Kind::Conflict, CODE_OF_OWNERS),
            (
                "40001",
                None,
                None,
                Some("PL/pgSQL function"),
                Kind::Retryable,
                "another session made a conflicting change: raised by code of the owners, whose message is not shown",
            ),
        ] {
            let error = explained(code, "MESSAGE", detail, schema, context);
            assert_eq!((error.kind(), error.to_string().as_str()), (&kind, expected), "{code}");
            let log = error.report();
            let public = expected.contains("MESSAGE");
            assert_eq!(log.contains("MESSAGE"), public, "{log}");
            assert!(log.contains(&format!("SQLSTATE {code}")), "{log}");
        }
    }
}
