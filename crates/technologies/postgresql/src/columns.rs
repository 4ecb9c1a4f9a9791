//! Columns and tables of a data contract, or of `specific.tables`, which has the same keys.

use std::collections::BTreeSet;

use serde_json::Value;

use super::naming;
use super::types;
use landfall_adapter::descriptor::{Column, Object, Problem, SpecificReader, Tag, names};

/// PostgreSQL's maximum number of columns of a table, and of a view's select list.
const MAX_COLUMNS: usize = 1600;
/// The maximum number of tables of one storage area.
const MAX_TABLES: usize = 1000;
/// The maximum depth of `children`.
const MAX_DEPTH: usize = 16;

/// A wanted column.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    pub(super) name: String,
    /// The type as `format_type` writes it.
    pub(super) data_type: String,
    pub(super) required: bool,
    /// The position in the primary key; `None` if the column is not part of it.
    pub(super) key: Option<u32>,
    pub(super) unique: bool,
    pub(super) comment: Option<String>,
    /// The path of the column in the descriptor.
    pub(super) place: String,
}

/// A wanted table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) tags: Vec<Value>,
    pub(super) columns: Vec<Wanted>,
    /// The path of the list of columns in the descriptor.
    pub(super) place: String,
    /// Renamed columns, as (old name, new name).
    pub(super) renames: Vec<(String, String)>,
    pub(super) may_drop: bool,
    /// Notes for the user.
    pub(super) notes: Vec<String>,
}

/// Reads the columns of a list and checks them for PostgreSQL. `at` returns the path of the column with that index.
pub(super) fn wanted(
    columns: &[Column],
    place: &str,
    at: impl Fn(usize, &Column) -> String,
    problems: &mut Vec<Problem>,
) -> Vec<Wanted> {
    if columns.is_empty() {
        problems.push(
            Problem::new(place, "a table or view needs at least one column").remedy("describe its columns"),
        );
    }
    if columns.len() > MAX_COLUMNS {
        problems.push(
            Problem::new(place, format!("more than {MAX_COLUMNS} columns"))
                .value(columns.len())
                .remedy("split it into several tables"),
        );
        return Vec::new();
    }
    let mut seen = BTreeSet::new();
    let mut read = Vec::with_capacity(columns.len());
    for (index, column) in columns.iter().enumerate() {
        let place = at(index, column);
        let fault = naming::problem(&column.name)
            .or_else(|| (!seen.insert(column.name.clone())).then_some("the column exists twice"));
        if let Some(fault) = fault {
            problems.push(
                Problem::new(format!("{place}.name"), fault)
                    .value(&column.name)
                    .remedy("choose another name, of at most 63 bytes"),
            );
        } else {
            problems.extend(names::problem(format!("{place}.name"), &column.name));
        }
        if RESERVED.contains(&column.name.as_str()) {
            problems.push(
                Problem::new(
                    format!("{place}.name"),
                    "every table of PostgreSQL has a hidden column of this name",
                )
                .value(&column.name)
                .remedy("choose another name"),
            );
        }
        let (key, unique) = (column.primary_key, column.unique);
        let Some(data_type) = types::data_type(column, &place, problems) else { continue };
        if (key.is_some() || unique) && matches!(data_type.as_str(), "point" | "polygon") {
            problems.push(
                Problem::new(format!("{place}.constraint"), format!("a {data_type} cannot be unique"))
                    .remedy("remove the constraint, or use another type"),
            );
        }
        read.push(Wanted {
            name: column.name.clone(),
            comment: types::comment(column, &data_type),
            required: column.required,
            key,
            unique,
            data_type,
            place,
        });
    }
    read
}

/// Names of PostgreSQL's system columns, which no other column can have.
const RESERVED: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];

/// Reads `specific.tables` of a storage area.
pub(super) fn tables(list: Option<&Value>, problems: &mut Vec<Problem>) -> Vec<Table> {
    const PLACE: &str = "specific.tables";
    let list = match list {
        None => return Vec::new(),
        Some(Value::Array(list)) if list.len() <= MAX_TABLES => list,
        Some(other) => {
            let fault = if other.is_array() {
                format!("more than {MAX_TABLES} tables")
            } else {
                "`tables` is not a list".to_owned()
            };
            problems.push(
                Problem::new(PLACE, fault).remedy("write a list of tables, each with `name` and `columns`"),
            );
            return Vec::new();
        }
    };
    let mut seen = BTreeSet::new();
    let mut read = Vec::with_capacity(list.len());
    for (index, item) in list.iter().enumerate() {
        let place = format!("{PLACE}[{index}]");
        let Some(object) = item.as_object() else {
            problems.push(Problem::new(place, "a table is a mapping").remedy("write `name` and `columns`"));
            continue;
        };
        let mut reader = SpecificReader::at(&place, object);
        let name = reader.required_string("name").unwrap_or_default().to_owned();
        let description = reader.string("description").unwrap_or_default().to_owned();
        let tags = super::mark::tags(&tags(reader.value("tags"), &place, problems));
        let columns = self::columns(reader.value("columns"), &format!("{place}.columns"), 0, problems);
        let renames = renames(&mut reader);
        let may_drop = reader.boolean("allowDropColumns").unwrap_or(false);
        let fault = naming::problem(&name)
            .or_else(|| (!seen.insert(name.clone())).then_some("the table exists twice"));
        if let Some(fault) = fault.filter(|_| !name.is_empty()) {
            reader.problem("name", fault, "choose another name, of at most 63 bytes");
        } else {
            problems.extend(names::problem(format!("{place}.name"), &name));
        }
        problems.extend(reader.finish());
        let notes = columns.iter().filter_map(|column| types::note(column, &name)).collect();
        let place = format!("{place}.columns");
        let columns = wanted(&columns, &place, |_, column| column.path.clone(), problems);
        read.push(Table { name, description, tags, columns, place, renames, may_drop, notes });
    }
    read
}

/// Reads `renameColumns: {old: new}` as (old name, new name).
pub(super) fn renames(reader: &mut SpecificReader<'_>) -> Vec<(String, String)> {
    match reader.value("renameColumns") {
        None => Vec::new(),
        Some(Value::Object(pairs)) => {
            let mut read = Vec::new();
            for (old, new) in pairs {
                match new.as_str() {
                    Some(new) => {
                        if let Some(fault) = names::fault(new) {
                            reader.problem(
                                "renameColumns",
                                format!("`{}`: {}", names::visible(new), fault.message),
                                fault.remedy,
                            );
                        }
                        read.push((old.clone(), new.to_owned()));
                    }
                    None => {
                        reader.problem(
                            "renameColumns",
                            "a new name is not a text",
                            "write `old: new` for each",
                        );
                    }
                }
            }
            read
        }
        Some(_) => {
            reader.problem("renameColumns", "`renameColumns` is not a mapping", "write `old: new` for each");
            Vec::new()
        }
    }
}

/// Returns a column with the declared type in `keys`, which come from its comment. `None` if the type cannot be
/// read.
pub(super) fn declared(name: &str, mut keys: Object) -> Option<Column> {
    // The name is not checked, because the column exists.
    keys.insert("name".to_owned(), Value::from("column"));
    let column = column(&keys, "", 0, &mut Vec::new())?;
    Some(Column { name: name.to_owned(), ..column })
}

/// Reads the tags in a comment. Tags that cannot be read are left out.
pub(super) fn tags_of(list: Vec<Value>) -> Vec<Tag> {
    let read = tags(Some(&Value::Array(list)), "", &mut Vec::new());
    read.into_iter().filter(|tag| !tag.fqn.is_empty()).collect()
}

fn columns(list: Option<&Value>, place: &str, depth: usize, problems: &mut Vec<Problem>) -> Vec<Column> {
    let list = match list {
        None => return Vec::new(),
        Some(Value::Array(list)) if depth <= MAX_DEPTH => list,
        Some(other) => {
            let fault = if other.is_array() { "columns nest too deep" } else { "the columns are not a list" };
            problems.push(Problem::new(place, fault).remedy("write a list of columns"));
            return Vec::new();
        }
    };
    let mut read = Vec::with_capacity(list.len());
    for (index, item) in list.iter().enumerate() {
        let place = format!("{place}[{index}]");
        match item.as_object() {
            Some(object) => read.extend(column(object, &place, depth, problems)),
            None => problems
                .push(Problem::new(place, "a column is a mapping").remedy("write `name` and `dataType`")),
        }
    }
    read
}

fn column(object: &Object, place: &str, depth: usize, problems: &mut Vec<Problem>) -> Option<Column> {
    let mut reader = SpecificReader::at(place, object);
    let name = reader.required_string("name").map(str::to_owned);
    let mut number = |key: &'static str| {
        reader.integer(key, 0..=i64::from(u32::MAX)).and_then(|number| u32::try_from(number).ok())
    };
    let (data_length, precision, scale) = (number("dataLength"), number("precision"), number("scale"));
    let typed = |text: &str| Column::typed(text, data_length);
    let mut own = reader.required_string("dataType").and_then(|text| match typed(text) {
        Ok(column) => Some(column),
        Err((message, remedy)) => {
            reader.problem("dataType", message, &remedy);
            None
        }
    });
    if let Some(text) = reader.string("arrayDataType")
        && let Some(column) = &mut own
        && let Err((message, remedy)) = column.typed_elements(text, data_length)
    {
        reader.problem("arrayDataType", message, &remedy);
    }
    // As in a data contract, an empty list counts as absent.
    let constraint = match reader.value("constraint").and_then(Value::as_str) {
        Some(text) if text.trim().is_empty() => None,
        _ => reader.one_of("constraint", &["NULL", "NOT_NULL", "UNIQUE", "PRIMARY_KEY"]),
    };
    let description = reader.string("description").unwrap_or_default().to_owned();
    let children = columns(reader.value("children"), &format!("{place}.children"), depth + 1, problems);
    let tags = tags(reader.value("tags"), place, problems);
    problems.extend(reader.finish());
    let mut column = Column { name: name?, tags, path: place.to_owned(), ..own? };
    for (key, measure, said) in [
        ("dataLength", &mut column.data_length, data_length),
        ("precision", &mut column.precision, precision),
        ("scale", &mut column.scale, scale),
    ] {
        if said.is_some() {
            *measure = said;
            column.keys.is_own(key);
        }
    }
    if !children.is_empty() {
        column.children = children;
        column.keys.is_own("children");
    }
    if !description.is_empty() {
        column.description = description;
    }
    match constraint {
        Some("PRIMARY_KEY") => column.is_key(1),
        Some("NOT_NULL") => column.required = true,
        Some("UNIQUE") => column.unique = true,
        _ => {}
    }
    Some(column)
}

/// Reads tags as OpenMetadata writes them. All fields except `tagFQN` are optional.
fn tags(list: Option<&Value>, place: &str, problems: &mut Vec<Problem>) -> Vec<Tag> {
    let list = match list {
        None => return Vec::new(),
        Some(Value::Array(list)) => list,
        Some(_) => {
            problems
                .push(Problem::new(format!("{place}.tags"), "`tags` is not a list").remedy("write a list"));
            return Vec::new();
        }
    };
    let mut read = Vec::new();
    for (index, tag) in list.iter().enumerate() {
        let text = |key: &str| tag.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let fqn = text("tagFQN");
        if fqn.is_empty() {
            problems.push(
                Problem::new(format!("{place}.tags[{index}]"), "the tag has no `tagFQN`")
                    .remedy("write `tagFQN: PII.Sensitive`"),
            );
        }
        read.push(Tag { fqn, source: text("source"), label_type: text("labelType") });
    }
    read
}
