//! Reverse provisioning: any table or view, ours or not, as updates of a descriptor. Reads only.
//!
//! `params` has `table` and, unless one table alone has that name, `schema`. The answer's keys, in their order:
//!
//! | key | from |
//! |---|---|
//! | `spec.mesh.dataContract.schema` | columns with types, descriptions, constraints, tags and declared types |
//! | `spec.mesh.description` | the comment, where there is one |
//! | `spec.mesh.specific.kind`, `.name`, `.schema` | the table itself |
//! | `spec.mesh.tags` | the mark, where it has any |
//!
//! Default values and the queries of views are not read: they may hold what is nobody else's business.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::mark::{self, ColumnNote, Mark};
use super::session::Session;
use super::types;
use crate::descriptor::{Object, SpecificReader, names};
use crate::error::{Error, Result};
use crate::technology::Context;

/// Names listed in an error at most.
const MAX_LISTED: usize = 10;

#[derive(Deserialize)]
struct Found {
    schema: String,
    kind: char,
    comment: Option<String>,
    columns: Vec<FoundColumn>,
}

#[derive(Deserialize)]
struct FoundColumn {
    name: String,
    /// Of a domain, its base type.
    #[serde(rename = "type")]
    data_type: String,
    /// `typtype` of the type, or of an array's elements.
    kind: char,
    required: bool,
    key: bool,
    unique: bool,
    comment: Option<String>,
}

/// Schema, where it is given, and table.
pub(super) fn params(params: &Object) -> Result<(Option<String>, String)> {
    let mut params = SpecificReader::at("params", params);
    let schema = params.string("schema").map(str::to_owned);
    let table = params.required_string("table").map(str::to_owned);
    let problems = params.finish();
    match table {
        Some(table) if problems.is_empty() => Ok((schema, table)),
        _ => Err(Error::invalid(problems)),
    }
}

/// Tables and views of that name, as a JSON list.
const QUERY: &str = "\
    SELECT coalesce(json_agg(json_build_object('schema', n.nspname, 'kind', c.relkind, \
      'comment', obj_description(c.oid, 'pg_class'), \
      'columns', (SELECT coalesce(json_agg(json_build_object('name', a.attname, \
          'type', CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) \
                       ELSE format_type(a.atttypid, a.atttypmod) END, \
          'kind', coalesce(e.typtype, b.typtype, t.typtype), 'required', a.attnotnull OR t.typnotnull, \
          'key', EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'p' \
             AND a.attnum = ANY (k.conkey)), \
          'unique', EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'u' \
             AND k.conkey = ARRAY[a.attnum]), \
          'comment', col_description(c.oid, a.attnum)) ORDER BY a.attnum), '[]') \
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
          LEFT JOIN pg_type b ON b.oid = t.typbasetype AND t.typtype = 'd' \
          LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A' \
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)) ORDER BY n.nspname), '[]')::text \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relname::text = $1::text \
      AND ($2::text IS NULL OR n.nspname::text = $2::text) \
      AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'";

/// The updates.
pub(super) async fn read_back(
    session: &Session,
    schema: Option<&str>,
    table: &str,
    context: &Context,
) -> Result<Object> {
    session.execute("BEGIN READ ONLY").await?;
    let text = session.text(QUERY, &[&table, &schema]).await?.unwrap_or_default();
    let mut found: Vec<Found> = serde_json::from_str(&text)
        .map_err(|e| Error::permanent("the catalogs of PostgreSQL have an unexpected shape").because(e))?;
    let asked = schema.map_or_else(|| table.to_owned(), |schema| format!("{schema}.{table}"));
    let one = match (found.pop(), found.is_empty()) {
        (Some(one), true) => one,
        (None, _) => {
            let near = near(session, schema).await?;
            return Err(Error::permanent(format!("there is no table or view `{asked}`: {near}")));
        }
        (Some(last), false) => {
            let schemas: Vec<_> =
                found.iter().chain([&last]).take(MAX_LISTED).map(|one| format!("`{}`", one.schema)).collect();
            return Err(Error::permanent(format!(
                "{} tables are called `{table}`: say which one with `schema`, one of {}",
                found.len() + 1,
                schemas.join(", ")
            )));
        }
    };
    session.execute("COMMIT").await?;
    context.journal.info(format!("read {} columns of `{}.{table}`", one.columns.len(), one.schema));
    // What is there is what is told, also where it would be refused.
    for warning in one.columns.iter().filter_map(|column| names::warning("column", &column.name)) {
        context.journal.warn(warning);
    }
    Ok(updates(&one, table, context))
}

/// "it has ...", to choose from.
async fn near(session: &Session, schema: Option<&str>) -> Result<String> {
    let sql = "SELECT string_agg(q.name, ', ') FROM (SELECT '`' || n.nspname || '.' || c.relname || '`' AS name \
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname <> 'information_schema' \
                 AND n.nspname NOT LIKE 'pg\\_%' AND ($1::text IS NULL OR n.nspname::text = $1::text) \
               ORDER BY 1 LIMIT 10) q";
    Ok(match session.text(sql, &[&schema]).await? {
        Some(names) => format!("there are {names}"),
        None => "there is none at all".to_owned(),
    })
}

fn updates(found: &Found, table: &str, context: &Context) -> Object {
    let (description, mark) = found.comment.as_deref().map_or(("", None), mark::split::<Mark>);
    let columns: Vec<Value> = found.columns.iter().map(|column| column_of(column, context)).collect();
    let mut updates = BTreeMap::new();
    updates.insert("dataContract.schema", json!(columns));
    if !description.is_empty() {
        updates.insert("description", json!(description));
    }
    if let Some(mark) = mark.filter(|mark| !mark.tags.is_empty()) {
        updates.insert("tags", json!(mark.tags));
    }
    let kind = if matches!(found.kind, 'v' | 'm') { "view" } else { "table" };
    updates.insert("specific.kind", json!(kind));
    updates.insert("specific.name", json!(table));
    updates.insert("specific.schema", json!(found.schema));
    updates.into_iter().map(|(key, value)| (format!("spec.mesh.{key}"), value)).collect()
}

fn column_of(found: &FoundColumn, context: &Context) -> Value {
    let mut column = Object::new();
    column.insert("name".to_owned(), json!(found.name));
    let (description, note) = found.comment.as_deref().map_or(("", None), mark::split::<ColumnNote>);
    let note = note.unwrap_or_default();
    match note.declared.filter(|_| note.made.as_ref() == Some(&found.data_type)) {
        Some(declared) => column.extend(declared),
        None => {
            let (declared, faithful) = types::describe(&found.data_type, found.kind);
            if !faithful {
                context.journal.warn(format!(
                    "column `{}` is {}, which a data contract cannot say: it is given as {}",
                    found.name,
                    found.data_type,
                    declared.get("dataType").and_then(Value::as_str).unwrap_or_default()
                ));
            }
            column.extend(declared);
        }
    }
    if !description.is_empty() {
        column.insert("description".to_owned(), json!(description));
    }
    let constraint = match found {
        FoundColumn { key: true, .. } => Some("PRIMARY_KEY"),
        FoundColumn { required: true, .. } => Some("NOT_NULL"),
        FoundColumn { unique: true, .. } => Some("UNIQUE"),
        _ => None,
    };
    if let Some(constraint) = constraint {
        column.insert("constraint".to_owned(), json!(constraint));
    }
    if !note.tags.is_empty() {
        column.insert("tags".to_owned(), json!(note.tags));
    }
    Value::Object(column)
}
