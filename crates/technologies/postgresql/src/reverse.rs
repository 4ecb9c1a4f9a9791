//! Reverse provisioning: a table or view as updates of a descriptor. Reads only.
//!
//! The parameters are `table` and `schema`. Without `table`, the descriptor's component decides. Without `schema`,
//! only one table may have the name. `database` is optional and must be the database of the target.
//!
//! | what | from |
//! |---|---|
//! | description | the comment, where there is one |
//! | columns | names, types, descriptions, constraints, tags and declared types |
//! | tags | the mark, where it has any |
//! | `specific.kind`, `.name`, `.schema` | the table itself |
//!
//! Default values and the queries of views are not read, because they may contain confidential texts.

use serde::Deserialize;
use serde_json::{Value, json};

use super::mark::{self, ColumnNote, Mark};
use super::session::Session;
use super::{columns, naming, types};
use landfall_adapter::Context;
use landfall_adapter::descriptor::{Column, DataType, Identifier, Object, Problem, names};
use landfall_adapter::error::{Error, Result};
use landfall_adapter::import::{ImportParams, Imported, ImportedTable, Parameter, Source};

/// The maximum number of names that an error lists.
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
    /// The type of the column; for a domain, its base type.
    #[serde(rename = "type")]
    data_type: String,
    /// `pg_type.typtype` of the type; for an array, of its elements.
    kind: char,
    required: bool,
    /// The position in the primary key.
    key: Option<u32>,
    unique: bool,
    comment: Option<String>,
}

/// The requested table.
pub(super) struct Asked {
    schema: Option<String>,
    table: String,
}

impl Asked {
    /// Reads the parameters. Problems are added to `params`. `database` is the database of the target, if
    /// known.
    pub(super) fn read(params: &mut ImportParams<'_>, database: Option<&str>) -> Option<Self> {
        let schema = params.text("schema").filter(|name| is_name(name, params));
        let table = params.text_or("table", "name");
        let named = table.is_some();
        let table = table.filter(|name| is_name(name, params));
        // In a descriptor, the database belongs to a storage area, which is not a table.
        let other = params.given("database");
        if let (Some(other), Some(database)) = (other, database)
            && other.value != database
        {
            params.problem(
                Problem::new(other.path, format!("imports read the database of the target, `{database}`"))
                    .value(&other.value)
                    .remedy("leave it out, or name the target of that database in `params.target`"),
            );
        }
        let import = params.import();
        let id = |id: &Option<String>| id.as_ref()?.parse::<Identifier>().ok();
        let derived = id(&import.subject().product).zip(id(&import.subject().component));
        let (table, source) = match (table, &derived) {
            (Some(table), _) => (table.value, table.source),
            (None, Some((product, component))) if !named => {
                let table = naming::relation(product, component);
                params.is_default("table", &table, Source::Descriptor, "the ids in the descriptor");
                (table, Source::Descriptor)
            }
            (None, _) => {
                if !named {
                    params.missing("table");
                }
                return None;
            }
        };
        // The table of the component is in the schema of its data product; a table that the user names may be
        // anywhere.
        let schema = match (schema, derived) {
            (Some(schema), _) => Some(schema.value),
            (None, Some((product, _))) if source == Source::Descriptor => {
                let schema = naming::product_schema(&product, &import.request().environment);
                params.is_default("schema", &schema, Source::Descriptor, "the ids in the descriptor");
                Some(schema)
            }
            (None, _) => None,
        };
        Some(Self { schema, table })
    }
}

/// Whether PostgreSQL can have an object of that name; adds a problem if not.
fn is_name(name: &Parameter, params: &mut ImportParams<'_>) -> bool {
    let fault = match name.value.as_str() {
        long if long.len() > naming::MAX_NAME => "PostgreSQL has no names of more than 63 bytes",
        nul if nul.contains('\0') => "PostgreSQL has no names with a NUL",
        _ => return true,
    };
    params.problem(
        Problem::new(name.path.as_str(), fault)
            .value(&name.value)
            .remedy("write the name as it is in PostgreSQL"),
    );
    false
}

/// Tables and views of that name, as a JSON list.
const QUERY: &str = "\
    SELECT coalesce(json_agg(json_build_object('schema', n.nspname, 'kind', c.relkind, \
      'comment', obj_description(c.oid, 'pg_class'), \
      'columns', (SELECT coalesce(json_agg(json_build_object('name', a.attname, \
          'type', CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) \
                       ELSE format_type(a.atttypid, a.atttypmod) END, \
          'kind', coalesce(e.typtype, b.typtype, t.typtype), 'required', a.attnotnull OR t.typnotnull, \
          'key', (SELECT array_position(k.conkey, a.attnum) FROM pg_constraint k \
             WHERE k.conrelid = c.oid AND k.contype = 'p'), \
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

/// Reads the requested table or view. Fails if none or several have the name.
pub(super) async fn read_back(session: &Session, asked: &Asked, context: &Context) -> Result<Imported> {
    let (schema, table) = (asked.schema.as_deref(), asked.table.as_str());
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
    // Names that would be refused in a descriptor are imported unchanged.
    for warning in one.columns.iter().filter_map(|column| names::warning("column", &column.name)) {
        context.journal.warn(warning);
    }
    Ok(imported(one, table, context).into())
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

fn imported(found: Found, table: &str, context: &Context) -> ImportedTable {
    let (description, mark) = found.comment.as_deref().map_or(("", None), mark::split::<Mark>);
    let kind = if matches!(found.kind, 'v' | 'm') { "view" } else { "table" };
    ImportedTable {
        table: table.to_owned(),
        columns: found.columns.iter().map(|column| column_of(column, context)).collect(),
        description: Some(description.to_owned()),
        tags: columns::tags_of(mark.map(|mark| mark.tags).unwrap_or_default()),
        specific: Object::from_iter([
            ("kind".to_owned(), json!(kind)),
            ("name".to_owned(), json!(table)),
            ("schema".to_owned(), json!(found.schema)),
        ]),
        ..ImportedTable::default()
    }
}

fn column_of(found: &FoundColumn, context: &Context) -> Column {
    let (description, note) = found.comment.as_deref().map_or(("", None), mark::split::<ColumnNote>);
    let note = note.unwrap_or_default();
    let declared = note.declared.filter(|_| note.made.as_ref() == Some(&found.data_type));
    let of_note = declared.and_then(|declared| columns::declared(&found.name, declared));
    let mut column = of_note.unwrap_or_else(|| {
        let (declared, faithful) = types::describe(&found.data_type, found.kind);
        if !faithful {
            context.journal.warn(format!(
                "column `{}` is {}, which a data contract cannot say: it is given as {}",
                found.name,
                found.data_type,
                declared.get("dataType").and_then(Value::as_str).unwrap_or_default()
            ));
        }
        columns::declared(&found.name, declared).unwrap_or_else(|| Column::of(DataType::String))
    });
    column.name.clone_from(&found.name);
    column.description = description.to_owned();
    column.required = found.required;
    column.unique = found.unique;
    if let Some(place) = found.key {
        column.is_key(place);
    }
    column.tags = columns::tags_of(note.tags);
    column
}
