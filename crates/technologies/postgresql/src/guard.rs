//! Runs statements that may call functions of the owners, with the rights of the component's role only.
//!
//! The owner of a table can attach functions to it: in a policy, the query of a view, a check or an expression of an
//! index. PostgreSQL runs them with the rights of the role that uses the table, some of them already during planning.
//! `SET ROLE` does not protect against that, because a function can reset the role. A SECURITY DEFINER function does
//! protect: PostgreSQL does not allow SET ROLE inside it. So this module wraps such statements in a temporary SECURITY
//! DEFINER function. The function belongs to
//!
//! - the readers' role to read rows, in a READ ONLY transaction that is rolled back;
//! - the owners' role to change a table.
//!
//! The function is in a schema that no other role can write to. Both are gone at the end of the transaction.
//! Functions of the owners may leave settings, temporary objects and prepared statements behind. Therefore later
//! statements qualify all names, and the session is reset.
//!
//! Output of such functions (messages, notices, error texts) is never shown or logged.

use std::time::Duration;

use super::desired::Place;
use super::membership;
use super::observe::{Relation, Seen, has};
use super::session::{Session, Unknown};
use super::sql::{dotted, ident, literal};
use landfall_adapter::error::Result;

/// Returns an unpredictable name.
fn scratch() -> String {
    format!("landfall_{}", uuid::Uuid::new_v4().simple())
}

/// Returns statements that create `schema` and functions in it that belong to `role`. A function is its name
/// and its definition.
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

/// Runs a statement with the rights of the owners' role. Landfall must be a member of it.
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

/// Runs queries that read relations of the component. Returns one text for each query, or the reason why it is
/// unknown. The queries see the same rows as a reader. With `all_rows`, a query fails if a policy would hide
/// rows.
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
        // The readers' role does not exist, or may not read every relation yet. A temporary role gets the
        // rights of readers.
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
    // PostgreSQL resolves the names in an ATOMIC body when it creates the function, so the owner of the
    // function needs no USAGE on the schema.
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
