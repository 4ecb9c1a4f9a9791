//! Checks the source of a view against the same document, before anything exists.
//!
//! Only tables and columns that components of the document declare can be checked. Tables that users create in
//! a storage area without a list, components of other adapters, and components that were not read are unknown.

use std::collections::BTreeMap;

use super::view::{self, View};
use super::{columns, names_of};
use landfall_adapter::Work;
use landfall_adapter::descriptor::{Component, ComponentKind, Problem, SpecificReader, Suggestions};

/// What the components of a document create on one target, by schema.
#[derive(Debug, Default)]
struct Index {
    schemas: BTreeMap<String, Schema>,
}

/// What is declared in a schema.
#[derive(Debug, Default)]
struct Schema {
    /// The tables and views of the schema, by name.
    relations: BTreeMap<String, Relation>,
    /// Whether the schema belongs to a storage area without a valid list of tables, so that it may have any
    /// table.
    open: bool,
    /// The id of the storage area that the schema belongs to, if any.
    lists: Option<String>,
}

/// A table or view, and the component that declares it.
#[derive(Debug)]
struct Relation {
    component: String,
    /// The name and type of each column; `None` if the declaration is not valid.
    columns: Option<Vec<(String, String)>>,
}

/// Returns the problems with the source of a view; empty if the source is valid or not known. `listed` is
/// `specific.source.listed`: whether the storage area must list the table.
pub(super) fn check(work: &Work, database: &str, view: &View, listed: bool) -> Vec<Problem> {
    let Some(index) = work.neighbours.index(|| index(work, database)) else { return Vec::new() };
    let (schema, name) = &view.source;
    let shown = format!("{schema}.{name}");
    let mut suggestions = Suggestions::default();
    let Some(known) = index.schemas.get(schema) else {
        // The schema may belong to any adapter. It is a mistake only if every component of the document was
        // read and the name is similar to a declared schema.
        let names = index.schemas.keys().map(String::as_str);
        return match suggestions.closest(schema, names).filter(|_| work.neighbours.are_complete()) {
            Some(close) => vec![
                Problem::new("specific.source.schema", "no component of this document has such a schema")
                    .value(schema)
                    .remedy(format!("did you mean `{close}`?")),
            ],
            None => Vec::new(),
        };
    };
    match known.relations.get(name) {
        Some(relation) if relation.component == work.component.id.as_str() => {
            vec![
                Problem::new("specific.source", "the view would read itself")
                    .value(shown)
                    .remedy("name a table or another view of the same data product"),
            ]
        }
        Some(Relation { columns: Some(columns), .. }) => view::unreadable(view, columns),
        Some(Relation { columns: None, .. }) => Vec::new(),
        None if known.open || !(listed || known.lists.is_none()) => Vec::new(),
        // A component that was not read may declare this table or view.
        None if known.lists.is_none() && !work.neighbours.are_complete() => Vec::new(),
        None => {
            let names = known.relations.keys().map(String::as_str);
            let close = suggestions.closest(name, names);
            let close = close.map(|close| format!("did you mean `{close}`? ")).unwrap_or_default();
            let (message, otherwise) = match &known.lists {
                Some(storage) => (
                    format!("`{storage}`, whose schema this is, lists no table `{name}`"),
                    "or write `listed: false` in `source` for a table that its users make",
                ),
                None => (
                    format!("no output port of the data product makes `{name}` in this schema"),
                    "or read from a storage area",
                ),
            };
            let one_of = view::one_of(known.relations.keys().map(String::as_str));
            vec![
                Problem::new("specific.source.name", message)
                    .value(name)
                    .remedy(format!("{close}use {one_of}, {otherwise}")),
            ]
        }
    }
}

fn index(work: &Work, database: &str) -> Index {
    let mut index = Index::default();
    for component in work.neighbours.components(&work.product) {
        add(&mut index, work, component, database);
    }
    index
}

/// Adds what a component declares. Drops the problems of its declarations, because the check of that component
/// reports them.
fn add(index: &mut Index, work: &Work, component: &Component, database: &str) {
    if !matches!(component.kind, ComponentKind::Storage | ComponentKind::OutputPort) {
        return;
    }
    let mut specific = SpecificReader::new(&component.specific);
    let Some(names) = names_of(&work.product.id, component, &work.environment, &mut specific) else { return };
    // A view can read only from its own database.
    if names.database.as_deref().is_some_and(|own| own != database) {
        return;
    }
    let schema = index.schemas.entry(names.schema).or_default();
    let id = component.id.to_string();
    let mut problems = Vec::new();
    let Some(name) = names.relation else {
        let tables = columns::tables(specific.value("tables"), &mut problems);
        schema.open |= tables.is_empty() || !problems.is_empty();
        schema.lists = Some(id.clone());
        for table in tables {
            let columns = problems.is_empty().then(|| named(table.columns));
            schema.relations.insert(table.name, Relation { component: id.clone(), columns });
        }
        return;
    };
    let declared = component.data_contract.as_ref().map_or(&[][..], |contract| &contract.schema);
    let columns = columns::wanted(declared, "", |_, _| String::new(), &mut problems);
    let columns = problems.is_empty().then(|| named(columns));
    schema.relations.insert(name, Relation { component: id, columns });
}

fn named(columns: Vec<columns::Wanted>) -> Vec<(String, String)> {
    columns.into_iter().map(|column| (column.name, column.data_type)).collect()
}
