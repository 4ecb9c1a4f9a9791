//! Output ports that are views on a table or view of the same data product.
//!
//! A view reads with the rights of its owner, so Landfall decides what it may read, and not PostgreSQL: only
//! relations of the same data product in the same environment. Otherwise every author could read all tables by naming
//! them.
//!
//! `CREATE OR REPLACE VIEW` can only add columns at the end. It is used if that is enough, because grants and views
//! on the view stay. Otherwise the view is dropped and created again with all its grants, in one transaction. If
//! somebody else has a view on it, the change is refused; CASCADE is never used.
//!
//! The mark of a view has two fingerprints: of the requested query, and of the query as PostgreSQL stores it. If
//! either differs, the contract or the view has changed.

use std::collections::BTreeMap;

use super::columns::Wanted;
use super::desired::{self, Contract, Left, Place, Step, column_comment};
use super::mark::Mark;
use super::naming::fingerprint;
use super::observe::{Dependent, Grant, Relation, Seen, SourceRelation, has};
use super::sql::{dotted, ident, literal};
use super::types::widens;
use landfall_adapter::Action;
use landfall_adapter::descriptor::{Problem, Suggestions};
use landfall_adapter::error::{Error, Kind, Result};

/// A wanted view.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct View {
    pub(super) name: String,
    /// Schema and name of the source.
    pub(super) source: (String, String),
    /// The columns, each with the name of its column in the source.
    pub(super) columns: Vec<(String, Wanted)>,
}

/// Returns the remaining changes of a view.
///
/// The same request may still create or change the source. So a plan only notes a missing source. With
/// `strict`, when the plan is applied, a missing source is an error before anything changes.
pub(super) fn plan(place: &Place, view: &View, seen: &Seen, strict: bool) -> Result<Left> {
    let source = match source(place, view, seen) {
        Err(error) if !strict && place.waits => {
            let Kind::Invalid(problems) = error.kind() else { return Err(error) };
            let notes =
                problems.iter().map(|problem| format!("as things are now: {}", problem.with_remedy()));
            let summary = format!("make view `{}`, once what it reads is as it should be", view.name);
            // This piece is never executed: `apply` either returns the error, or plans the real change.
            let piece = place.piece(Step::View, Action::Create, summary, Vec::new());
            return Ok(Left { pieces: vec![piece], notes: notes.collect(), ..Left::default() });
        }
        source => source?,
    };
    let query = query(view, source);
    let mut left = Left::default();
    let name = dotted(&place.schema, &view.name);
    let asked = fingerprint(&query);
    let (sql, summary) = match seen.relation(&view.name) {
        None => {
            desired::refuse_taken(place, &view.name, seen)?;
            (create(place, &name, &query), format!("create view `{}`", view.name))
        }
        Some(have) => {
            let mark = place.own(have)?;
            if have.kind != 'v' {
                return Err(Error::invalid(vec![
                    Problem::new(
                        "specific.kind",
                        format!(
                            "`{}.{}` is a table and cannot become a view: its rows would be lost",
                            place.schema, view.name
                        ),
                    )
                    .value("view")
                    .remedy("unprovision the component with its data first, or write `kind: table`"),
                ]));
            }
            let made = have.definition.as_deref().map(fingerprint);
            if mark.asked.as_ref() == Some(&asked) && mark.made == made && made.is_some() {
                return Ok(left);
            }
            let changed = if mark.asked.as_ref() == Some(&asked) {
                "it was changed outside of Landfall: restore it"
            } else {
                "follow the contract"
            };
            if grows(view, have) {
                let sql = vec![format!("CREATE OR REPLACE VIEW {name} AS {query}")];
                (sql, format!("view `{}`: {changed}", view.name))
            } else {
                refuse_dependents(place, have)?;
                let mut sql = vec![format!("DROP VIEW {name} RESTRICT")];
                sql.extend(create(place, &name, &query));
                sql.extend(
                    have.grants.iter().filter(|grant| kept(grant, have, view)).map(|g| regrant(g, &name)),
                );
                (sql, format!("rebuild view `{}` with its grants: {changed}", view.name))
            }
        }
    };
    // `seal` adds the mark and the description.
    left.pieces.push(place.piece(Step::View, Action::Create, summary, sql));
    Ok(left)
}

/// Returns statements for the comments and the mark of a view that was just created or changed. The mark has a
/// fingerprint of the stored query, which exists only now.
pub(super) fn seal(place: &Place, view: &View, contract: &Contract, seen: &Seen) -> Result<Vec<String>> {
    let source = source(place, view, seen)?;
    let Some(have) = seen.relation(&view.name) else {
        return Err(Error::retryable(format!("view `{}` is gone", view.name)));
    };
    let name = dotted(&place.schema, &view.name);
    let mark = Mark {
        asked: Some(fingerprint(&query(view, source))),
        made: have.definition.as_deref().map(fingerprint),
        tags: contract.tags.clone(),
        ..place.mark()
    };
    let mut sql =
        vec![format!("COMMENT ON VIEW {name} IS {}", literal(&mark.comment(&contract.description)))];
    sql.extend(view.columns.iter().map(|(_, column)| column_comment(&name, column)));
    Ok(sql)
}

/// Returns the source of a view. Fails if the source does not exist, belongs to another data product, or lacks
/// a column.
fn source<'a>(place: &Place, view: &View, seen: &'a Seen) -> Result<&'a SourceRelation> {
    let (schema, name) = &view.source;
    let refuse = |message: String, remedy: &str| {
        Error::invalid(vec![
            Problem::new("specific.source", message).value(format!("{schema}.{name}")).remedy(remedy),
        ])
    };
    let found = seen.source.as_ref();
    let relation = found.and_then(|source| source.relation.as_ref());
    let (Some(found), Some(source)) = (found, relation) else {
        return Err(refuse(
            format!("there is no table or view `{schema}.{name}`"),
            "name a table or view of the same data product, and let the output port depend on its component",
        ));
    };
    // The mark of the source's schema decides. Output ports share the schema of their data product.
    let mark = Mark::in_comment(found.comment.as_deref());
    let ours = mark
        .is_some_and(|mark| mark.owner.environment == place.owner.environment && mark.is_of(&place.product));
    if !ours {
        return Err(refuse(
            format!("`{schema}.{name}` does not belong to data product `{}`", place.product),
            "read from a storage area or an output port of the same data product",
        ));
    }
    let columns: Vec<_> =
        source.columns.iter().map(|column| (column.name.clone(), column.data_type.clone())).collect();
    let problems = unreadable(view, &columns);
    if problems.is_empty() { Ok(source) } else { Err(Error::invalid(problems)) }
}

/// Returns a problem for each column that the view cannot read from a source with `columns`, given as (name,
/// type).
pub(super) fn unreadable(view: &View, columns: &[(String, String)]) -> Vec<Problem> {
    let (schema, name) = &view.source;
    let types: BTreeMap<&str, &str> =
        columns.iter().map(|(name, data_type)| (name.as_str(), data_type.as_str())).collect();
    let mut suggestions = Suggestions::default();
    let mut problems = Vec::new();
    for (from, column) in &view.columns {
        match types.get(from.as_str()) {
            None => {
                let close = suggestions.closest(from, types.keys().copied());
                let close = close.map(|close| format!("did you mean `{close}`? ")).unwrap_or_default();
                let one_of = one_of(columns.iter().map(|(name, _)| name.as_str()));
                let (place, more) = match *from == column.name {
                    true => (format!("{}.name", column.place), ", or say in `specific.columns` which it is"),
                    false => (format!("specific.columns.{}", column.name), ""),
                };
                problems.push(
                    Problem::new(place, format!("`{schema}.{name}` has no column `{from}`"))
                        .value(from)
                        .remedy(format!("{close}use {one_of}{more}")),
                );
            }
            Some(have) if !widens(have, &column.data_type) => problems.push(
                Problem::new(
                    format!("{}.dataType", column.place),
                    format!(
                        "column `{from}` of `{schema}.{name}` is {have}, and some of its values may not fit {}",
                        column.data_type
                    ),
                )
                .value(&column.data_type)
                .remedy(format!("use a type that is {have} in PostgreSQL, or a wider one")),
            ),
            Some(_) => {}
        }
    }
    problems
}

/// "one of `a`, `b`", limited to a few.
pub(super) fn one_of<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 20;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names.take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match more {
        0 => format!("one of {shown}"),
        _ => format!("one of {shown} and {more} more"),
    }
}

fn query(view: &View, source: &SourceRelation) -> String {
    let columns: Vec<String> = view
        .columns
        .iter()
        .map(|(from, column)| {
            let same = source.column(from).is_some_and(|have| have.data_type == column.data_type);
            let cast = if same { String::new() } else { format!("::{}", column.data_type) };
            format!("s.{}{cast} AS {}", ident(from), ident(&column.name))
        })
        .collect();
    let (schema, name) = &view.source;
    format!("SELECT {} FROM {} s", columns.join(", "), dotted(schema, name))
}

fn create(place: &Place, name: &str, query: &str) -> Vec<String> {
    let mut sql = vec![format!("CREATE VIEW {name} AS {query}")];
    // The old mark stays until `seal`, so that the view always has one.
    sql.push(format!("COMMENT ON VIEW {name} IS {}", literal(&place.mark().comment(""))));
    let owner = ident(&place.owner_role);
    sql.extend(desired::handed_over(place, vec![format!("ALTER VIEW {name} OWNER TO {owner}")]));
    sql.push(format!("GRANT SELECT ON {name} TO {}", ident(&place.reader_role)));
    sql
}

/// Returns the views that read a column and must be recreated when its type changes. `None` if one of them
/// belongs to another data product, or has views on it. Then the change is refused.
pub(super) fn rebuilt<'a>(
    place: &Place,
    relation: &'a Relation,
    column: &str,
) -> Option<Vec<(&'a Dependent, &'a Relation)>> {
    let readers = relation.dependents.iter().filter(|one| one.columns.iter().any(|name| name == column));
    readers
        .map(|dependent| {
            let view = dependent.view.as_deref()?;
            let mark = view.mark()?;
            let ours = mark.owner.environment == place.owner.environment && mark.is_of(&place.product);
            (ours && view.dependents.is_empty()).then_some((dependent, view))
        })
        .collect()
}

/// Returns the statements that drop the views on a column, and those that create them again with owner,
/// comments and grants. `None` if [`rebuilt`] returns `None`.
pub(super) fn around(place: &Place, relation: &Relation, column: &str) -> Option<(Vec<String>, Vec<String>)> {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for (dependent, view) in rebuilt(place, relation, column)? {
        let (schema, role) = (ident(&dependent.schema), ident(&view.owner));
        let name = dotted(&dependent.schema, &dependent.name);
        before.push(format!("DROP VIEW {name} RESTRICT"));
        after.push(format!("CREATE VIEW {name} AS {}", view.definition.as_ref()?));
        after.push(format!(
            "COMMENT ON VIEW {name} IS {}",
            literal(view.comment.as_deref().unwrap_or_default())
        ));
        for column in view.columns.iter().filter(|column| column.comment.is_some()) {
            let text = literal(column.comment.as_deref().unwrap_or_default());
            after.push(format!("COMMENT ON COLUMN {name}.{} IS {text}", ident(&column.name)));
        }
        if view.owner_marked {
            after.push(format!("GRANT CREATE ON SCHEMA {schema} TO {role}"));
            after.push(format!("ALTER VIEW {name} OWNER TO {role}"));
            after.push(format!("REVOKE CREATE ON SCHEMA {schema} FROM {role}"));
        }
        let others = view.grants.iter().filter(|grant| grant.grantee.as_deref() != Some(&view.owner));
        after.extend(others.map(|grant| regrant(grant, &name)));
    }
    Some((before, after))
}

/// Whether the view keeps its existing columns, with names and types, and only gets new ones at the end.
fn grows(view: &View, have: &Relation) -> bool {
    have.columns.len() <= view.columns.len()
        && have
            .columns
            .iter()
            .zip(&view.columns)
            .all(|(old, (_, new))| old.name == new.name && old.data_type == new.data_type)
}

fn refuse_dependents(place: &Place, have: &Relation) -> Result<()> {
    if have.dependents.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = have
        .dependents
        .iter()
        .map(|dependent| format!("`{}.{}`", dependent.schema, dependent.name))
        .collect();
    Err(Error::conflict(format!(
        "view `{}.{}` must be recreated, and {} reads it: drop that first, or keep the columns as they are and add new \
         ones at the end",
        place.schema,
        have.name,
        names.join(", ")
    )))
}

/// Whether the recreated view gets this grant again. The owner needs none, and a grant on a dropped column
/// ends.
fn kept(grant: &Grant, have: &Relation, view: &View) -> bool {
    grant.grantee.as_deref() != Some(&have.owner)
        && grant
            .column
            .as_ref()
            .is_none_or(|name| view.columns.iter().any(|(_, column)| column.name == *name))
}

fn regrant(grant: &Grant, name: &str) -> String {
    let column = grant.column.as_deref().map(|name| format!(" ({})", ident(name))).unwrap_or_default();
    let grantee = grant.grantee.as_deref().map_or_else(|| "PUBLIC".to_owned(), ident);
    let option = if grant.grantable { " WITH GRANT OPTION" } else { "" };
    format!("GRANT {}{column} ON {name} TO {grantee}{option}", grant.privilege)
}

/// Returns the missing grants that let the owner of the view read its source.
pub(super) fn source_privileges(place: &Place, view: &View, seen: &Seen) -> Vec<String> {
    let Some(found) = &seen.source else { return Vec::new() };
    let Some(source) = &found.relation else { return Vec::new() };
    let (schema, name) = &view.source;
    let owner = ident(&place.owner_role);
    let mut sql = Vec::new();
    if source.owner == place.owner_role {
        return sql;
    }
    if *schema != place.schema && !has(&found.schema_grants, &place.owner_role, "USAGE") {
        sql.push(format!("GRANT USAGE ON SCHEMA {} TO {owner}", ident(schema)));
    }
    if !has(&source.grants, &place.owner_role, "SELECT") {
        sql.push(format!("GRANT SELECT ON {} TO {owner}", dotted(schema, name)));
    }
    sql
}
