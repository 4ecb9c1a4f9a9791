//! Running what may meet functions of owners, with the rights of a role of theirs and no others.
//!
//! A policy, the query of a view, a check, an expression of an index: whoever owns a table hangs functions on it, and
//! PostgreSQL runs them with the rights of whoever touches the table, some of them as early as planning. `SET ROLE` is no
//! protection, since a function may set it back. A function with SECURITY DEFINER is: inside of it no role can be set.
//! So what may meet such functions is wrapped into one of our own that belongs to
//!
//! - the readers' role, where rows are looked at, in a transaction that can write nothing and is rolled back;
//! - the owners' role, where a table is changed.
//!
//! The function is in a schema that nobody else can write to, and both are gone at the end of the transaction. What ran
//! may have left settings, temporary objects and prepared statements behind: names are written out in full afterwards, and
//! the session is reset.
//!
//! Nothing that such functions say (messages, notices, the text of an error) is told to anybody.

use std::time::Duration;

use super::desired::Place;
use super::membership;
use super::observe::{Relation, Seen, has};
use super::session::{Session, Unknown};
use super::sql::{dotted, ident, literal};
use landfall_adapter::error::Result;

/// A name that nobody knows before.
fn scratch() -> String {
    format!("landfall_{}", uuid::Uuid::new_v4().simple())
}

/// Statements that make functions of a role's.
fn made(schema: &str, role: &str, functions: &[(String, String)]) -> Vec<String> {
    let (schema, role) = (ident(schema), ident(role));
    let mut sql = vec![format!("CREATE SCHEMA {schema}"), format!("GRANT ALL ON SCHEMA {schema} TO {role}")];
    for (name, definition) in functions {
        sql.push(format!("CREATE FUNCTION {name}() {definition}"));
        sql.push(format!("ALTER FUNCTION {name}() OWNER TO {role}"));
    }
    sql.push(format!("REVOKE ALL ON SCHEMA {schema} FROM {role}"));
    sql
}

/// Runs a statement as the owners' role, of which Landfall is a member.
pub(super) async fn as_owner(session: &Session, place: &Place, statement: &str) -> Result<()> {
    let schema = scratch();
    let name = dotted(&schema, "run");
    let definition = format!("RETURNS void LANGUAGE sql SECURITY DEFINER AS {}", literal(statement));
    let made = made(&schema, &place.owner_role, &[(name.clone(), definition)]);
    session.execute(&made.join("; ")).await?;
    session.execute_untrusted(&format!("SELECT {name}()")).await?;
    session.reset().await?;
    session
        .execute(&format!("DROP FUNCTION {name}() RESTRICT; DROP SCHEMA {} RESTRICT", ident(&schema)))
        .await
}

/// What queries say that read relations of the component, each one text or why it is not known. They see what a reader
/// sees; with `all_rows`, a query that a policy would hide rows from says nothing at all.
pub(super) async fn answers(
    session: &Session,
    place: &Place,
    seen: &Seen,
    queries: &[(&Relation, String)],
    all_rows: bool,
    limit: Duration,
) -> Result<Vec<Result<Option<String>, Unknown>>> {
    let schema = scratch();
    let backend = session.text("SELECT pg_backend_pid()::text", &[]).await?.unwrap_or_default();
    let mut sql = vec!["BEGIN".to_owned()];
    let reads = |relation: &Relation| has(&relation.grants, &place.reader_role, "SELECT");
    let role = if seen.reader.is_some() && queries.iter().all(|(relation, _)| reads(relation)) {
        sql.push(membership::join(&place.reader_role, seen));
        place.reader_role.clone()
    } else {
        // There are no readers, as long as the component is unprovisioned: somebody who may do what they could.
        if seen.owner.is_some() {
            sql.push(membership::join(&place.owner_role, seen));
        }
        sql.push(format!("CREATE ROLE {} NOLOGIN", ident(&schema)));
        sql.push(membership::join(&schema, seen));
        for (relation, _) in queries {
            let name = dotted(&place.schema, &relation.name);
            sql.push(format!("GRANT SELECT ON {name} TO {}", ident(&schema)));
        }
        schema.clone()
    };
    let names: Vec<String> =
        (0..queries.len()).map(|number| dotted(&schema, &format!("look_{number}"))).collect();
    // Names in such a body are looked up now, so that its owner need not be allowed to use the schema.
    let body = |query: &str| format!("RETURNS text LANGUAGE sql SECURITY DEFINER BEGIN ATOMIC {query}; END");
    let functions: Vec<(String, String)> =
        names.iter().cloned().zip(queries.iter().map(|(_, query)| body(query))).collect();
    sql.extend(made(&schema, &role, &functions));
    sql.push("SET TRANSACTION READ ONLY".to_owned());
    session.execute(&sql.join("; ")).await?;
    let settings = format!(
        "SAVEPOINT look; SET LOCAL statement_timeout = {}; SET LOCAL row_security = {}",
        limit.as_millis().max(1),
        if all_rows { "off" } else { "on" }
    );
    let mut answers = Vec::with_capacity(names.len());
    for name in &names {
        if session.is_given_up() {
            answers.push(Err(Unknown::Slow));
            continue;
        }
        session.execute(&settings).await?;
        let answer = session.untrusted(&format!("SELECT {name}()"), limit, &backend).await?;
        answers.push(answer.map_err(|why| match why {
            Unknown::Policy if !all_rows => Unknown::Failed,
            why => why,
        }));
        if !session.is_given_up() {
            session.execute("ROLLBACK TO SAVEPOINT look").await?;
        }
    }
    if !session.is_given_up() {
        session.execute("ROLLBACK").await?;
        session.renew().await?;
    }
    Ok(answers)
}
