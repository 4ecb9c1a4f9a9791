//! Data contracts of the Open Data Contract Standard (ODCS), version 3.0 and 3.1, as columns.
//!
//! ```yaml
//! dataContract:
//!   apiVersion: v3.0.2
//!   kind: DataContract
//!   schema:                     # one object: the table
//!     - name: orders
//!       properties:             # its columns
//!         - {name: order_id, logicalType: integer, physicalType: bigint, primaryKey: true, required: true}
//! ```
//!
//! `physicalType` decides if it is known, because it is more precise than the seven logical types. For an unknown
//! name, which may be a type of another platform, `logicalType` decides. A known type with invalid arguments, or
//! without a counterpart here, is refused, unless the logical type can hold all its values.
//!
//! | `logicalType` | without a `physicalType` |
//! |---|---|
//! | string | STRING; VARCHAR with `logicalTypeOptions.maxLength`; UUID or BYTES by `format` |
//! | integer | BIGINT; by `format` a smaller one (`i8` to `i32`) or a DECIMAL (`u64`, `i128`, `u128`) |
//! | number | DECIMAL; FLOAT and DOUBLE by `format` (`f32`, `f64`) |
//! | boolean | BOOLEAN |
//! | date | DATE; TIMESTAMP or TIMESTAMPZ when `format` has a time and a zone |
//! | timestamp, time | TIMESTAMP, TIME; TIMESTAMPZ with `timezone: true` |
//! | object | STRUCT of `properties`, JSON without them |
//! | array | ARRAY of `items`, JSON without them |
//!
//! `logicalType` also decides if a `physicalType` is ambiguous: a time zone, whether a NUMBER is whole, the time in
//! Oracle's DATE, whether `varchar[3]` is an array.
//!
//! The rest of the standard (servers, team, quality, custom properties, ...) is ignored. Technologies use the names
//! of OpenMetadata; [`super::Component::located`] converts problems to the author's shape.

use std::borrow::Cow;
use std::collections::HashSet;
use std::iter;

use serde_json::Value;

use super::contract::Names;
use super::document::{Entry, Node, Tree, short};
use super::keys::{self, Known, Says};
use super::problems::Problems;
use super::read::Fields;
use super::type_names::{self, Brackets, LOGICAL_TYPES, Named};
use super::{Column, ContractShape, DataContract, DataType, Problem, contract, rules};

/// The maximum depth of `properties` and `items`.
const MAX_DEPTH: usize = 16;

/// The maximum number of columns in a note.
const MAX_NAMED: usize = 5;

/// Keys of a property, except those of its type.
const KEYS: Known = Known {
    used: &[
        "logicalTypeOptions",
        "required",
        "unique",
        "primaryKey",
        "primaryKeyPosition",
        "items",
        "properties",
        "isNullable",
        "isUnique",
        "isPrimaryKey",
        "isPrimary",
    ],
    other: &["name", "logicalType", "physicalType", "dataType", "description", "tags", "physicalName"],
    foreign: &[
        ("constraint", Says::Constraint, "`primaryKey: true`, `required: true` or `unique: true`"),
        ("nullable", Says::No, "`required: true`"),
        ("arrayDataType", Says::Something, "`items`"),
        ("children", Says::Something, "`properties`"),
    ],
    name: "a property of ODCS",
};

/// The names of some keys in version 2 of the standard, and the value that means `true`. Contracts of version 3 may
/// still have them.
pub(super) const OLDER: [(&str, &str, bool); 4] = [
    ("required", "isNullable", false),
    ("unique", "isUnique", true),
    ("primaryKey", "isPrimaryKey", true),
    ("primaryKey", "isPrimary", true),
];

/// Keys of `logicalTypeOptions`; those after the first few are only similar.
const OPTIONS: Known = Known {
    used: &["format", "maxLength", "timezone", "precision", "scale"],
    other: &[
        "minLength",
        "defaultTimezone",
        "pattern",
        "maximum",
        "minimum",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "multipleOf",
        "maxItems",
        "minItems",
        "uniqueItems",
        "maxProperties",
        "minProperties",
        "required",
    ],
    foreign: &[],
    name: "ODCS",
};

/// Whether a data contract is an ODCS contract.
pub(super) fn is_odcs(contract: &Fields<'_>) -> bool {
    let says = |key: &str, what: &str| {
        contract.get(key).and_then(|entry| entry.node.source_text()).is_some_and(|text| text.trim() == what)
    };
    if says("kind", "DataContract") || contract.get("apiVersion").is_some() {
        return true;
    }
    let first = contract.get("schema").and_then(|entry| match &entry.node.tree {
        Tree::List(items) => items.first(),
        _ => None,
    });
    let first = first.and_then(|node| Fields::of(node, "", node.at));
    first.is_some_and(|first| {
        first.get("dataType").is_none()
            && ["properties", "logicalType", "physicalType"].iter().any(|key| first.written(key).is_some())
    })
}

/// The list of columns, wherever it is.
pub(super) fn properties<'a>(contract: &Fields<'a>) -> Option<&'a Entry> {
    let schema = contract.get("schema")?;
    let Tree::List(objects) = &schema.node.tree else { return None };
    let [object] = objects.as_slice() else { return None };
    Fields::of(object, "", object.at)?.get("properties")
}

/// For each entry of `slaProperties`, a unique name and the value with its unit; `None` if the entry has no
/// property or no value. The name is the property; a repeated property is followed by its element or a number.
pub(super) fn promises(entries: &[&Node]) -> Vec<Option<(String, String)>> {
    let mut known = HashSet::new();
    let promise = |node: &&Node| {
        let promise = Fields::of(node, "", node.at)?;
        let text = |key: &str| promise.get(key).and_then(|entry| entry.node.source_text());
        let (property, value) = (text("property")?, text("value")?);
        let value = text("unit").map_or_else(|| value.to_string(), |unit| format!("{value} {unit}"));
        let of_element = text("element").map(|element| format!("{property}.{element}"));
        let numbered = (2..).map(|number| format!("{property}.{number}"));
        let mut names = iter::once(property.to_string()).chain(of_element).chain(numbered);
        let name = names.find(|name| !known.contains(name))?;
        known.insert(name.clone());
        Some((name, value))
    };
    entries.iter().map(promise).collect()
}

/// Reads the contract; problems are added to `problems`.
pub(super) fn data_contract(fields: &Fields<'_>, problems: &mut Problems) -> DataContract {
    version(fields, problems);
    let mut contract = DataContract {
        shape: ContractShape::Odcs,
        columns_path: "dataContract.schema".to_owned(),
        ..DataContract::default()
    };
    let entries: Vec<&Node> = fields.list("slaProperties", problems).map(|(_, node)| node).collect();
    let promises = promises(&entries).into_iter().flatten();
    contract.sla.extend(promises.map(|(name, promise)| (name, Value::String(promise))));
    let objects: Vec<(String, &Node)> = fields.list("schema", problems).collect();
    if let Some(column) = objects.iter().find_map(|(path, node)| column_among_objects(path, node)) {
        problems.ask(|| {
            let remedy = "put the columns under `properties` of one schema object";
            let remedy = if column.get("dataType").is_some() {
                format!(
                    "{remedy}, with `physicalType` for `dataType`; or remove `kind` and `apiVersion`, which make it a contract \
                     of ODCS"
                )
            } else {
                remedy.to_owned()
            };
            fields
                .problem("schema", "there are columns where ODCS has schema objects")
                .at(column.at)
                .value(column.get("name").and_then(|entry| entry.node.source_text()).unwrap_or_default())
                .remedy(remedy)
        });
        return contract;
    }
    let [(path, object)] = objects.as_slice() else {
        if objects.len() > 1 {
            problems.ask(|| {
                fields
                    .problem(
                        "schema",
                        "the contract has several schema objects, and a component is one table",
                    )
                    .at(objects.get(1).map_or(fields.at, |(_, node)| node.at))
                    .value(format!("{} objects", objects.len()))
                    .remedy("keep one of them, and make a component of each other one")
            });
        }
        return contract;
    };
    let Some(object_fields) = Fields::of(object, path, object.at) else {
        problems.ask(|| {
            Problem::new(path.as_str(), format!("a schema object is a mapping, not {}", object.kind()))
                .at(object.at)
                .remedy("write `name` and `properties`")
        });
        return contract;
    };
    if object_fields.written("properties").is_none() {
        problems.ask(|| {
            let missing = object_fields.missing("properties");
            match keys::slip(&object_fields, &["properties"]) {
                Some(_) => missing,
                None => missing.remedy("list the columns of the table in `properties`"),
            }
        });
    }
    contract.schema = columns(&object_fields, 0, problems);
    contract.columns_path = "dataContract.schema[0].properties".to_owned();
    contract.notes.extend(physical_names(&contract.schema));
    contract
}

/// A column in place of a schema object.
fn column_among_objects<'a>(path: &'a str, node: &'a Node) -> Option<Fields<'a>> {
    let fields = Fields::of(node, path, node.at)?;
    let logical = fields.get("logicalType").and_then(|entry| entry.node.source_text());
    let is_column = fields.get("properties").is_none()
        && (fields.get("dataType").is_some()
            || logical.is_some_and(|text| !text.trim().eq_ignore_ascii_case("object")));
    is_column.then_some(fields)
}

/// The note about columns with another `physicalName`. They keep their own name, because another one would remove the
/// column with its values.
fn physical_names(columns: &[Column]) -> Option<String> {
    fn collect(columns: &[Column], found: &mut Vec<String>) {
        for column in columns {
            if let Some(physical) = &column.physical_name {
                found.push(format!("`{}` (`{}`)", short(&column.name), short(physical)));
            }
            collect(&column.children, found);
        }
    }
    let mut found = Vec::new();
    collect(columns, &mut found);
    let more = found.len().saturating_sub(MAX_NAMED);
    found.truncate(MAX_NAMED);
    if more > 0 {
        found.push(format!("and {more} more"));
    }
    (!found.is_empty()).then(|| {
        format!("columns have the `name` of the contract, and not its `physicalName`: {}", found.join(", "))
    })
}

fn version(fields: &Fields<'_>, problems: &mut Problems) {
    let Some(entry) = fields.get("apiVersion") else { return };
    let Some(text) = entry.node.source_text() else { return };
    if text.trim().trim_start_matches('v').split('.').next() != Some("3") {
        problems.ask(|| {
            fields
                .problem("apiVersion", "this version of the Open Data Contract Standard is not read")
                .at(entry.node.at)
                .value(&text)
                .remedy("write the contract in version 3, such as `v3.0.2` or `v3.1.0`")
        });
    }
}

/// `properties` of a schema object, or of a nested object.
fn columns(parent: &Fields<'_>, depth: usize, problems: &mut Problems) -> Vec<Column> {
    let mut read = Vec::new();
    let mut names = Names::default();
    for (path, node) in parent.list("properties", problems) {
        let Some(fields) = Fields::of(node, &path, node.at) else {
            problems.ask(|| {
                Problem::new(path.as_str(), format!("a property is a mapping, not {}", node.kind()))
                    .at(node.at)
                    .remedy("write `name` and `logicalType`")
            });
            read.extend(problems.is_strict().then(|| Column::unread(&path, "")));
            continue;
        };
        let name = fields.required_text("name", problems);
        let column = property(&fields, depth, problems).or_else(|| contract::unread(&fields, problems));
        let Some(column) = column else { continue };
        if name.is_none() && !problems.is_strict() {
            continue;
        }
        let column = Column { name: name.unwrap_or_default(), ..column };
        rules::check(&column, &fields, problems);
        names.once(&column.name, &fields, "name", problems);
        read.push(column);
    }
    read
}

/// A property, or the `items` of an array, which have no name.
pub(super) fn property(fields: &Fields<'_>, depth: usize, problems: &mut Problems) -> Option<Column> {
    if depth > MAX_DEPTH {
        problems.ask(|| {
            Problem::new(fields.path, format!("properties nest deeper than {MAX_DEPTH} levels"))
                .at(fields.at)
                .remedy("use `logicalType: object` without `properties`, which is JSON")
        });
        return None;
    }
    keys::report(fields, &KEYS, problems);
    if let Some(entry) = fields.get("logicalTypeOptions") {
        let path = format!("{}.logicalTypeOptions", fields.path);
        match Fields::of(&entry.node, &path, entry.at) {
            Some(options) => keys::report(&options, &OPTIONS, problems),
            None if is_blank(entry) => {}
            None => {
                problems.ask(|| fields.wrong_kind(entry, "a mapping").remedy("write `name: value` in it"))
            }
        }
    }
    let Typed { named, key, length_in_type } = data_type(fields, problems)?;
    let text = |key: &str| fields.get(key).and_then(|entry| entry.node.source_text());
    let (required, unique) =
        (present_key(fields, "required", problems), present_key(fields, "unique", problems));
    let mut column = Column {
        description: fields.text("description", problems).unwrap_or_default(),
        tags: fields.tags(problems),
        required: required.is_some(),
        unique: unique.is_some(),
        physical_name: text("physicalName").map(|name| name.trim().to_owned()).filter(|physical| {
            !physical.is_empty() && text("name").is_some_and(|name| name.trim() != physical)
        }),
        path: fields.path.to_owned(),
        ..Column::of(DataType::String)
    };
    column.keys.put("constraint", required.or(unique).unwrap_or("required"));
    column.keys.put("dataType", key);
    column.keys.put("arrayDataType", "items");
    column.keys.put("children", "properties");
    for measure in ["precision", "scale"] {
        column.keys.put(measure, key);
    }
    column.has_type(&named, key, None);
    if let Some(required) = required {
        column.keys.put("constraint", required);
    }
    if !length_in_type {
        column.keys.put("dataLength", "logicalTypeOptions.maxLength");
    }
    match column.data_type {
        DataType::Struct | DataType::Map if column.children.is_empty() => {
            parts(fields, &mut column, depth, problems)
        }
        DataType::Array if column.array_data_type.is_none() => items(fields, &mut column, depth, problems)?,
        _ => {}
    }
    primary_key(fields, &mut column, problems);
    Some(column)
}

/// `properties` of an object: its fields, or the key and the value of a map. Without a description it may contain
/// anything.
fn parts(fields: &Fields<'_>, column: &mut Column, depth: usize, problems: &mut Problems) {
    column.children = columns(fields, depth + 1, problems);
    if column.children.is_empty() {
        column.data_type = DataType::Json;
    } else if column.data_type == DataType::Map {
        let mut names: Vec<_> = column.children.iter().map(|child| child.name.to_ascii_lowercase()).collect();
        names.sort_unstable();
        if names != ["key", "value"] {
            problems.ask(|| {
                let at = fields.get("properties").map_or(fields.at, |entry| entry.at);
                let count = column.children.len();
                fields
                    .problem("properties", "a MAP has two properties, `key` and `value`")
                    .at(at)
                    .value(format!("{count} {}", if count == 1 { "property" } else { "properties" }))
                    .remedy("describe both, and nothing else; without `properties` it is JSON")
            });
        }
    }
}

fn primary_key(fields: &Fields<'_>, column: &mut Column, problems: &mut Problems) {
    const POSITION: &str = "primaryKeyPosition";
    let position = fields.get(POSITION).and_then(|entry| {
        let text = entry.node.source_text().unwrap_or_default();
        match text.trim().parse::<i64>() {
            // The standard writes -1 for no position.
            Ok(place) => u32::try_from(place).ok().filter(|place| *place > 0),
            Err(_) if text.trim().is_empty() && entry.node.source_text().is_some() => None,
            Err(_) => {
                problems.ask(|| {
                    fields.wrong_kind(entry, "a whole number").remedy("write the place in the key, from 1")
                });
                None
            }
        }
    });
    if let Some(key) = present_key(fields, "primaryKey", problems) {
        column.is_key(position.unwrap_or(1));
        column.keys.put("constraint", key);
    } else if position.is_some()
        && !OLDER.iter().any(|(_, older, _)| fields.get(older).is_some())
        && fields.get("primaryKey").is_none()
    {
        problems.ask(|| {
            fields.missing("primaryKey").remedy("add `primaryKey: true`, or remove `primaryKeyPosition`")
        });
    }
}

/// `items`: the elements of an array. Without a description it may contain anything.
fn items(fields: &Fields<'_>, column: &mut Column, depth: usize, problems: &mut Problems) -> Option<()> {
    let is_empty = |entry: &&Entry| match &entry.node.tree {
        Tree::Mapping(entries) => entries.is_empty(),
        Tree::Text(text) => text.trim().is_empty(),
        _ => false,
    };
    let Some(entry) = fields.get("items").filter(|entry| !is_empty(entry)) else {
        column.data_type = DataType::Json;
        return Some(());
    };
    let path = format!("{}.items", fields.path);
    let Some(of) = Fields::of(&entry.node, &path, entry.at) else {
        problems.ask(|| {
            fields.wrong_kind(entry, "a mapping").remedy("write the `logicalType` of the elements in it")
        });
        return None;
    };
    let element = property(&of, depth + 1, problems)?;
    for (key, of_element) in [
        ("arrayDataType", "dataType"),
        ("dataLength", "dataLength"),
        ("precision", "precision"),
        ("scale", "scale"),
        ("children", "children"),
    ] {
        column.keys.put(key, format!("items.{}", element.keys.of(of_element)));
    }
    column.array_data_type = Some(element.data_type);
    if element.data_type == DataType::Array {
        // One child describes the inner array.
        column.children = vec![Column { name: "element".to_owned(), ..element }];
    } else {
        column.data_length = element.data_length;
        column.precision = element.precision;
        column.scale = element.scale;
        column.children = element.children;
    }
    Some(())
}

/// The type of a property.
struct Typed {
    named: Named,
    /// Where it is written.
    key: &'static str,
    /// Whether its length is written there, too.
    length_in_type: bool,
}

fn data_type(fields: &Fields<'_>, problems: &mut Problems) -> Option<Typed> {
    let physical = fields.get("physicalType").filter(|entry| !is_blank(entry));
    let logical_entry = fields.get("logicalType").filter(|entry| !is_blank(entry));
    let logical_text = logical_entry.and_then(|entry| entry.node.source_text());
    let logical_text = logical_text.map(|text| text.trim().to_ascii_lowercase());
    let logical_type = LOGICAL_TYPES.into_iter().find(|known| logical_text.as_deref() == Some(*known));
    if let Some(entry) = physical {
        let Some(text) = entry.node.source_text() else {
            problems.ask(|| fields.wrong_kind(entry, "a text").remedy("write the name of one type"));
            return None;
        };
        let brackets = match logical_type {
            Some("array") => Brackets::Size,
            Some(_) => Brackets::Argument,
            None => Brackets::Either,
        };
        match type_names::parse_with(&text, brackets) {
            Ok(named) => {
                let length_in_type = named.length.is_some();
                let named = with_logical(named, logical_type, fields, entry, problems)?;
                return Some(Typed { named, key: "physicalType", length_in_type });
            }
            Err(unknown) if logical_type.is_some_and(|logical| unknown.leaves_it_to(logical)) => {}
            // A problem of the logical type is reported below.
            Err(_) if logical_entry.is_some() && logical_type.is_none() => {}
            Err(unknown) => {
                problems.ask(|| {
                    fields
                        .problem("physicalType", unknown.message())
                        .at(entry.node.at)
                        .value(&text)
                        .remedy(unknown.remedy(ContractShape::Odcs))
                });
                return None;
            }
        }
    }
    let Some(entry) = logical_entry else {
        problems.ask(|| without_type(fields));
        return None;
    };
    // A typo in the options would lose a part of the type.
    if physical.is_none() {
        let named_so = fields.get("dataType").filter(|entry| !is_blank(entry));
        let slip = named_so.or_else(|| keys::slip(fields, &["physicalType"]).map(|(entry, _)| entry));
        if let Some(slip) = slip {
            problems.ask(|| {
                let problem = fields
                    .problem(&short(&slip.key), format!("a property of ODCS has no `{}`", short(&slip.key)))
                    .at(slip.at)
                    .remedy("rename it to `physicalType`");
                match slip.node.source_text() {
                    Some(text) => problem.value(text),
                    None => problem,
                }
            });
        }
    }
    let Some(text) = logical_text else {
        problems.ask(|| {
            fields.wrong_kind(entry, "a text").remedy(format!(
                "use one of {}; a property may be null unless it is `required`",
                LOGICAL_TYPES.join(", ")
            ))
        });
        return None;
    };
    let Some(logical_type) = logical_type else {
        let close = problems.closest(&text, LOGICAL_TYPES);
        problems.ask(|| {
            let all = format!("use one of {}, or say the type in `physicalType`", LOGICAL_TYPES.join(", "));
            fields
                .problem("logicalType", "ODCS has no such logical type")
                .at(entry.node.at)
                .value(entry.node.source_text().unwrap_or_default())
                .remedy(match close {
                    Some(close) => format!("did you mean `{close}`? {all}"),
                    None => all,
                })
        });
        return None;
    };
    let named = logical(logical_type, fields, problems)?;
    Some(Typed { named, key: "logicalType", length_in_type: false })
}

/// Neither type is present, unless under a similar key.
fn without_type(fields: &Fields<'_>) -> Problem {
    let missing = fields.missing("logicalType");
    let slip = keys::slip(fields, &["logicalType", "physicalType"]);
    let other = fields.get("dataType").map(|entry| (entry, "physicalType"));
    match slip.or(other) {
        Some((entry, wanted)) => {
            missing.at(entry.at).remedy(format!("rename `{}` to `{wanted}`", short(&entry.key)))
        }
        None => missing.remedy(format!("add `logicalType`: {}", LOGICAL_TYPES.join(", "))),
    }
}

fn is_blank(entry: &Entry) -> bool {
    matches!(&entry.node.tree, Tree::Text(text) if text.trim().is_empty())
}

/// The value of an option in `logicalTypeOptions`, if it is not blank.
fn option<'a>(fields: &Fields<'a>, key: &str) -> Option<(&'a Entry, Cow<'a, str>)> {
    let options = fields.get("logicalTypeOptions")?;
    let entry = Fields::of(&options.node, "", options.at)?.get(key)?;
    let text = entry.node.source_text()?;
    (!text.trim().is_empty()).then_some((entry, text))
}

/// A number of `logicalTypeOptions`.
fn measure(fields: &Fields<'_>, key: &str, problems: &mut Problems) -> Option<u32> {
    let (entry, text) = option(fields, key)?;
    let number = text.trim().parse::<u32>().ok();
    if number.is_none() {
        problems.ask(|| {
            fields
                .problem(&format!("logicalTypeOptions.{key}"), format!("`{key}` should be a whole number"))
                .at(entry.node.at)
                .value(&text)
                .remedy(format!("use a whole number, at most {}", u32::MAX))
        });
    }
    number
}

/// Whether the times of a property have a zone, as far as its logical type shows.
fn has_zone(fields: &Fields<'_>, problems: &mut Problems) -> bool {
    let Some((entry, text)) = option(fields, "timezone") else { return false };
    match text.trim().to_ascii_lowercase().as_str() {
        "true" => true,
        "false" => false,
        _ => {
            problems.ask(|| {
                fields
                    .problem("logicalTypeOptions.timezone", "`timezone` should be `true` or `false`")
                    .at(entry.node.at)
                    .value(&text)
                    .remedy("write `true` where the values have a zone; which one, `defaultTimezone` says")
            });
            false
        }
    }
}

/// The time and zone in the format of a logical date, because version 3.0 has no other type for them.
fn in_format(fields: &Fields<'_>) -> (bool, bool) {
    let format = option(fields, "format").map(|(_, text)| text.to_lowercase()).unwrap_or_default();
    let zone = format.contains(['z', 'x']);
    (zone || format.contains('h'), zone)
}

/// The type of a `physicalType`, with the help of the logical type if it is ambiguous.
fn with_logical(
    mut named: Named,
    logical_type: Option<&str>,
    fields: &Fields<'_>,
    physical: &Entry,
    problems: &mut Problems,
) -> Option<Named> {
    match (named.data_type, logical_type) {
        // BigQuery uses this name for the elements of a repeated record.
        (DataType::Struct, Some("array")) if named.fields.is_empty() && fields.get("items").is_some() => {
            named.data_type = DataType::Array;
        }
        // Oracle's DATE includes a time.
        (DataType::Date, Some("timestamp")) => named.data_type = DataType::Timestamp,
        (data_type, Some("integer")) if type_names::is_decimal(data_type) && named.precision.is_none() => {
            named.precision = Some(type_names::MAX_PRECISION);
            named.scale = Some(0);
        }
        _ => {}
    }
    let in_date = logical_type == Some("date") && in_format(fields).1;
    match named.data_type {
        DataType::Timestamp | DataType::DateTime | DataType::Time
            if has_zone(fields, problems) || in_date =>
        {
            if named.without_zone || named.data_type == DataType::Time {
                problems.ask(|| {
                    let text = physical.node.source_text().unwrap_or_default();
                    fields
                        .problem(
                            "physicalType",
                            "the type has no zone, and `logicalTypeOptions` says that there is one",
                        )
                        .at(physical.node.at)
                        .value(text)
                        .remedy("use a type with a zone, such as `timestamptz`, or write `timezone: false`")
                });
                return None;
            }
            named.data_type = DataType::TimestampZ;
        }
        _ => {}
    }
    digits(&mut named, fields, problems);
    let limit = measure(fields, "maxLength", problems).filter(|length| *length > 0);
    without_length(&mut named, limit);
    Some(named)
}

/// The digits of a number from the options.
fn digits(named: &mut Named, fields: &Fields<'_>, problems: &mut Problems) {
    if type_names::is_decimal(named.data_type) && named.precision.is_none() {
        named.precision = measure(fields, "precision", problems);
        named.scale = measure(fields, "scale", problems);
    }
}

/// The type of a valid `logicalType`, with its options.
fn logical(logical_type: &str, fields: &Fields<'_>, problems: &mut Problems) -> Option<Named> {
    let format = option(fields, "format").map(|(_, text)| text.trim().to_lowercase()).unwrap_or_default();
    let format = format.as_str();
    let whole =
        |digits: u32| Named { precision: Some(digits), scale: Some(0), ..Named::of(DataType::Decimal) };
    let data_type = match logical_type {
        "string" => match format {
            "uuid" => DataType::Uuid,
            "binary" | "byte" => DataType::Bytes,
            _ => {
                let mut named = Named::of(DataType::String);
                if let Some(length) = measure(fields, "maxLength", problems).filter(|length| *length > 0) {
                    named.data_type = DataType::VarChar;
                    named.length = Some(length);
                }
                return Some(named);
            }
        },
        "integer" => match format {
            "i8" | "int8" => DataType::TinyInt,
            "i16" | "int16" | "u8" => DataType::SmallInt,
            "i32" | "int32" | "u16" => DataType::Int,
            "u64" | "uint64" => return Some(whole(20)),
            // Within 38 digits.
            "i128" | "u128" | "int128" | "uint128" => return Some(whole(type_names::MAX_PRECISION)),
            _ => DataType::BigInt,
        },
        "number" => match format {
            "f32" | "float" | "float32" => DataType::Float,
            "f64" | "double" | "float64" => DataType::Double,
            _ => {
                let mut named = Named::of(DataType::Decimal);
                digits(&mut named, fields, problems);
                return Some(named);
            }
        },
        "boolean" => DataType::Boolean,
        "date" => match (in_format(fields), has_zone(fields, problems)) {
            ((_, true), _) | (_, true) => DataType::TimestampZ,
            ((true, false), false) => DataType::Timestamp,
            ((false, false), false) => DataType::Date,
        },
        "timestamp" if has_zone(fields, problems) => DataType::TimestampZ,
        "timestamp" => DataType::Timestamp,
        "time" if has_zone(fields, problems) => {
            let at = option(fields, "timezone").map_or(fields.at, |(entry, _)| entry.node.at);
            problems.ask(|| {
                fields
                    .problem("logicalTypeOptions.timezone", "a time of day with a zone has no equal here")
                    .at(at)
                    .value(true)
                    .remedy("write `timezone: false`, or use `logicalType: string`")
            });
            return None;
        }
        "time" => DataType::Time,
        "object" => DataType::Struct,
        _ => DataType::Array,
    };
    Some(Named::of(data_type))
}

/// A text or a string of bytes without a length has no limit, or the limit of the logical type.
fn without_length(named: &mut Named, limit: Option<u32>) {
    if named.length.is_none() {
        match named.data_type {
            DataType::VarChar => match limit {
                Some(length) => named.length = Some(length),
                None => named.data_type = DataType::Text,
            },
            // As in SQL; PostgreSQL's own name is different.
            DataType::Char => named.length = limit.or_else(|| (!named.unlimited).then_some(1)),
            DataType::Binary | DataType::VarBinary => named.data_type = DataType::Bytes,
            _ => {}
        }
    }
    if let Some(element) = &mut named.element {
        without_length(element, limit);
    }
    for (_, field) in &mut named.fields {
        without_length(field, limit);
    }
}

/// The key for `name`: the key itself, or else its name in version 2.
fn present_key(fields: &Fields<'_>, name: &'static str, problems: &mut Problems) -> Option<&'static str> {
    if fields.get(name).is_some() {
        return (flag(fields, name, problems) == Some(true)).then_some(name);
    }
    let older = OLDER.iter().filter(|(newer, ..)| *newer == name);
    older
        .map(|(_, older, meant)| (*older, *meant))
        .find(|(older, meant)| flag(fields, older, problems) == Some(*meant))
        .map(|(older, _)| older)
}

fn flag(fields: &Fields<'_>, name: &str, problems: &mut Problems) -> Option<bool> {
    let entry = fields.get(name)?;
    match &entry.node.tree {
        Tree::Bool(value) => Some(*value),
        Tree::Text(text) if text.trim().eq_ignore_ascii_case("true") => Some(true),
        Tree::Text(text) if text.trim().eq_ignore_ascii_case("false") => Some(false),
        _ => {
            problems.ask(|| fields.wrong_kind(entry, "`true` or `false`"));
            None
        }
    }
}

/// A problem of a technology in the words of ODCS.
pub(super) fn in_its_words(mut problem: Problem) -> Problem {
    // The value there is a flag.
    let is_constraint = |value: &mut String| matches!(value.as_str(), "PRIMARY_KEY" | "NOT_NULL" | "UNIQUE");
    if problem.value.take_if(is_constraint).is_some() {
        problem.value = Some("true".to_owned());
    }
    problem.message = in_words(&problem.message);
    problem.remedy = problem.remedy.map(|remedy| in_words(&remedy));
    problem
}

/// Words of ODCS for words of OpenMetadata.
fn in_words(text: &str) -> String {
    const WORDS: [(&str, &str); 10] = [
        ("`arrayDataType`", "`items`"),
        ("`dataType`", "`logicalType` or `physicalType`"),
        ("`dataLength`", "`logicalTypeOptions.maxLength`"),
        ("`children`", "`properties`"),
        ("`dataContract.schema`", "`properties`"),
        ("`NOT_NULL`", "`required: true`"),
        ("`PRIMARY_KEY`", "`primaryKey: true`"),
        ("`UNIQUE`", "`unique: true`"),
        ("PRIMARY_KEY constraints", "`primaryKey: true`"),
        ("NOT_NULL", "`required: true`"),
    ];
    WORDS.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::super::{Component, Descriptor, DescriptorKind, Keys, Limits, Strictness, parse};
    use super::*;

    fn parsed(contract: &str) -> Descriptor {
        let text = format!(
            "id: urn:dmb:dp:sales:orders:0\nname: Orders\nversion: 0.1.0\nenvironment: production\ncomponents:\n\
             - id: urn:dmb:cmp:sales:orders:0:orders\n  name: Orders\n  kind: outputport\n  version: 0.1.0\n  \
             technology: S3\n  dataContract: {contract}\n"
        );
        parse(DescriptorKind::DataProduct, text, Strictness::Full, &Limits::default(), &|_| true).unwrap()
    }

    /// With the problems of the contract, as a technology that creates a table reports them.
    fn read(contract: &str) -> Result<Descriptor, Vec<String>> {
        let descriptor = parsed(contract);
        let component = &descriptor.product.components[0];
        let problems = component.without_consequences(component.faults.contract.clone());
        if problems.is_empty() {
            return Ok(descriptor);
        }
        Err(problems.into_iter().map(without_position).collect())
    }

    fn without_position(mut problem: Problem) -> String {
        problem.line = None;
        problem.with_remedy()
    }

    fn component(contract: &str) -> Component {
        read(contract).unwrap().product.components[0].clone()
    }

    /// Without the differences between the shapes.
    fn plain(columns: &[Column]) -> Vec<Column> {
        let strip = |column: &Column| Column {
            path: String::new(),
            keys: Keys::default(),
            children: plain(&column.children),
            ..column.clone()
        };
        columns.iter().map(strip).collect()
    }

    fn columns(contract: &str) -> Vec<Column> {
        plain(&component(contract).data_contract.unwrap().schema)
    }

    #[test]
    fn both_shapes_of_one_table_give_equal_columns() {
        let older = columns(
            "{schema: [\
             {name: order_id, dataType: BIGINT, constraint: PRIMARY_KEY, description: Number of the order},\
             {name: placed_at, dataType: TIMESTAMP, constraint: NOT_NULL},\
             {name: total, dataType: DECIMAL, precision: 12, scale: 2, tags: [{tagFQN: money}]},\
             {name: lines, dataType: ARRAY, arrayDataType: STRUCT, children: [\
               {name: sku, dataType: VARCHAR, dataLength: 20}, {name: quantity, dataType: BIGINT}]},\
             {name: grid, dataType: ARRAY, arrayDataType: ARRAY, children: [\
               {name: element, dataType: ARRAY, arrayDataType: DOUBLE}]},\
             {name: prices, dataType: ARRAY, arrayDataType: ARRAY, children: [\
               {name: element, dataType: ARRAY, arrayDataType: DECIMAL, precision: 9, scale: 1}]},\
             {name: code, dataType: TEXT, constraint: UNIQUE},\
             {name: rest, dataType: JSON},\
             {name: express, dataType: BOOLEAN}]}",
        );
        let odcs = columns(
            "{apiVersion: v3.0.2, kind: DataContract, id: x, version: 1.0.0, status: active, servers: [{server: x}], \
             schema: [{name: orders, logicalType: object, physicalType: table, quality: [{rule: x}], properties: [\
             {name: order_id, logicalType: integer, physicalType: bigint, primaryKey: true, primaryKeyPosition: 1, \
               required: true, description: Number of the order},\
             {name: placed_at, logicalType: date, physicalType: timestamp, required: true},\
             {name: total, logicalType: number, physicalType: 'decimal(12,2)', tags: [money]},\
             {name: lines, logicalType: array, items: {logicalType: object, properties: [\
               {name: sku, logicalType: string, logicalTypeOptions: {maxLength: 20}}, \
               {name: quantity, logicalType: integer}]}},\
             {name: grid, logicalType: array, items: {logicalType: array, items: {logicalType: number, \
               logicalTypeOptions: {format: f64}}}},\
             {name: prices, logicalType: array, items: {logicalType: array, items: {physicalType: 'decimal(9,1)'}}},\
             {name: code, physicalType: varchar, unique: true},\
             {name: rest, logicalType: object, customProperties: [{property: x, value: y}]},\
             {name: express, logicalType: boolean, physicalType: SOME_OTHER_PLATFORM}]}]}",
        );
        assert_eq!(older, odcs);
    }

    #[test]
    fn a_property_may_be_required_and_unique_and_keys_have_an_order() {
        let contract = component(
            "{kind: DataContract, apiVersion: v3.1.0, slaProperties: [{property: latency, value: 4, unit: h}], schema: \
             [{name: t, properties: [{name: a, logicalType: string, required: true, unique: true}, \
             {name: b, logicalType: timestamp, logicalTypeOptions: {timezone: true}, primaryKey: true, \
             primaryKeyPosition: 2}, {name: c, logicalType: integer, primaryKey: true}]}]}",
        )
        .data_contract
        .unwrap();
        let [a, b, c] = contract.schema.as_slice() else { panic!("{contract:?}") };
        assert!(a.required && a.unique && a.primary_key.is_none());
        assert_eq!((b.data_type, b.primary_key, b.required), (DataType::TimestampZ, Some(2), true));
        assert_eq!((c.primary_key, c.required), (Some(1), true));
        assert_eq!(contract.sla["latency"], "4 h");
    }

    #[test]
    fn problems_use_the_shape_of_the_contract() {
        let at = "components[0].dataContract";
        for (contract, said) in [
            (
                "{kind: DataContract, apiVersion: v2.2.2, schema: []}",
                vec![format!(
                    "{at}.apiVersion: this version of the Open Data Contract Standard is not read: `v2.2.2`; write the contract in version 3, such as `v3.0.2` or `v3.1.0`"
                )],
            ),
            (
                "{schema: [{name: a, properties: [{name: x, logicalType: strin}, {name: y}, {logicalType: date}, \
                 {name: z, physicalType: money}, {name: X, logicalType: date}, {name: v, logicalType: array}]}]}",
                vec![
                    format!(
                        "{at}.schema[0].properties[0].logicalType: ODCS has no such logical type: `strin`; did you mean `string`? use one of string, integer, number, boolean, date, timestamp, time, object, \
                         array, or say the type in `physicalType`"
                    ),
                    format!(
                        "{at}.schema[0].properties[1].logicalType: `logicalType` is missing; add \
                         `logicalType`: string, integer, number, boolean, date, timestamp, time, object, array"
                    ),
                ],
            ),
            (
                "{kind: DataContract, schema: [{name: a, properties: []}, {name: b, properties: []}]}",
                vec![format!(
                    "{at}.schema: the contract has several schema objects, and a component is one table: `2 objects`; keep one of them, and make a component of each other one"
                )],
            ),
        ] {
            let found = read(contract).unwrap_err();
            for one in said {
                assert!(found.contains(&one), "{one}\nis not among {found:#?}");
            }
        }
    }

    /// Types as the lakehouse and PostgreSQL see them.
    fn types(property: &str) -> String {
        fn told(column: &Column) -> String {
            let measures = [column.data_length, column.precision, column.scale];
            let measures: Vec<_> = measures.iter().flatten().map(u32::to_string).collect();
            let element = column.array_data_type.map(|element| format!(" of {element}")).unwrap_or_default();
            let children: Vec<_> =
                column.children.iter().map(|child| format!("{} {}", child.name, told(child))).collect();
            let required = if column.required { " required" } else { "" };
            format!("{}{element}{measures:?}{children:?}{required}", column.data_type)
                .replace(['"', '\\'], "")
        }
        let contract =
            format!("{{kind: DataContract, schema: [{{name: t, properties: [{{name: a, {property}}}]}}]}}");
        match read(&contract) {
            Ok(descriptor) => {
                let contract = descriptor.product.components[0].data_contract.clone().unwrap();
                told(&contract.schema[0]).replace("[]", "")
            }
            Err(problems) => {
                let at = "components[0].dataContract.schema[0].properties[0].";
                problems.iter().map(|it| it.trim_start_matches(at)).collect::<Vec<_>>().join("; ")
            }
        }
    }

    #[test]
    fn physical_type_completes_an_open_logical_type() {
        for (property, meant) in [
            ("logicalType: string, physicalType: 'varchar[3]'", "VARCHAR[3]"),
            ("logicalType: array, physicalType: 'varchar[3]'", "ARRAY of TEXT"),
            ("logicalType: string, physicalType: 'text[20]'", "VARCHAR[20]"),
            ("logicalType: string, physicalType: bpchar", "TEXT"),
            ("logicalType: string, physicalType: bpchar, logicalTypeOptions: {maxLength: 3}", "CHAR[3]"),
            ("logicalType: string, physicalType: char", "CHAR[1]"),
            (
                "logicalType: timestamp, physicalType: timestamp, logicalTypeOptions: {timezone: true}",
                "TIMESTAMPZ",
            ),
            (
                "logicalType: timestamp, physicalType: datetime, logicalTypeOptions: {timezone: 'True'}",
                "TIMESTAMPZ",
            ),
            (
                "logicalType: timestamp, physicalType: timestamp, logicalTypeOptions: {timezone: false}",
                "TIMESTAMP",
            ),
            (
                "logicalType: date, physicalType: timestamp, logicalTypeOptions: {format: 'yyyy-MM-ddTHH:mm:ssZ'}",
                "TIMESTAMPZ",
            ),
            ("logicalType: timestamp, physicalType: DATE", "TIMESTAMP"),
            ("logicalType: date, physicalType: DATE", "DATE"),
            ("logicalType: integer, physicalType: NUMBER", "NUMBER[38, 0]"),
            ("logicalType: integer, physicalType: 'NUMBER(9)'", "NUMBER[9, 0]"),
            ("logicalType: number, physicalType: NUMBER", "NUMBER"),
            ("logicalType: number, logicalTypeOptions: {precision: 12, scale: 2}", "DECIMAL[12, 2]"),
            ("logicalType: integer, logicalTypeOptions: {format: u64}", "DECIMAL[20, 0]"),
            ("logicalType: integer, logicalTypeOptions: {format: i128}", "DECIMAL[38, 0]"),
            ("logicalType: integer, logicalTypeOptions: {format: u32}", "BIGINT"),
            ("logicalType: number, physicalType: BINARY_DOUBLE", "DOUBLE"),
            ("logicalType: integer, physicalType: uint32", "BIGINT"),
            ("logicalType: string, physicalType: xml", "STRING"),
            ("logicalType: integer, physicalType: int not null", "INT required"),
            ("logicalType: integer, physicalType: int not null, required: false", "INT required"),
            ("physicalType: 'STRUCT<x: INT NOT NULL, y: STRING>'", "STRUCT[x INT required, y STRING]"),
            ("logicalType: array, physicalType: list", "JSON"),
            ("logicalType: array, items: {logicalType: array}", "ARRAY of JSON"),
            ("logicalType: object, physicalType: map", "JSON"),
            (
                "logicalType: object, physicalType: map, properties: [{name: key, logicalType: string}, {name: value, \
                 logicalType: date}]",
                "MAP[key STRING, value DATE]",
            ),
            (
                "logicalType: array, physicalType: RECORD, items: {logicalType: object, properties: [{name: x, logicalType: date}]}",
                "ARRAY of STRUCT[x DATE]",
            ),
            ("logicalType: string, physicalType: '', logicalTypeOptions: ''", "STRING"),
        ] {
            assert_eq!(types(property), meant, "{property}");
        }
    }

    #[test]
    fn keys_of_a_primary_key_have_places() {
        let place = |property: &str| {
            let contract = format!(
                "{{kind: DataContract, schema: [{{name: t, properties: [{{name: a, logicalType: date, {property}}}]}}]}}"
            );
            read(&contract)
                .map(|it| it.product.components[0].data_contract.as_ref().unwrap().schema[0].primary_key)
        };
        assert_eq!(place("primaryKey: true, primaryKeyPosition: '2'"), Ok(Some(2)));
        assert_eq!(place("primaryKey: true, primaryKeyPosition: -1"), Ok(Some(1)));
        assert_eq!(place("primaryKey: false, primaryKeyPosition: 1"), Ok(None));
        assert!(place("primaryKeyPosition: 1").is_err());
        assert!(place("primaryKey: true, primaryKeyPosition: first").is_err());
    }

    #[test]
    fn keys_of_version_2_keep_their_meaning() {
        let constraints = |property: &str| {
            let contract = format!(
                "{{apiVersion: v3.0.2, schema: [{{name: t, properties: [{{name: a, logicalType: date, {property}}}]}}]}}"
            );
            let descriptor = read(&contract)?;
            let column = &descriptor.product.components[0].data_contract.as_ref().unwrap().schema[0];
            let place = column.keys.of("constraint").to_owned();
            Ok::<_, Vec<String>>((column.required, column.unique, column.primary_key, place))
        };
        for (property, expected) in [
            ("isNullable: false", (true, false, None, "isNullable")),
            ("isNullable: true", (false, false, None, "required")),
            ("isNullable: false, required: false", (false, false, None, "required")),
            ("isUnique: 'true'", (false, true, None, "isUnique")),
            ("isNullable: false, isUnique: true", (true, true, None, "isNullable")),
            ("isPrimaryKey: true", (true, false, Some(1), "isPrimaryKey")),
            ("isPrimary: true, primaryKeyPosition: 2", (true, false, Some(2), "isPrimary")),
        ] {
            let (required, unique, key, place) = expected;
            assert_eq!(constraints(property), Ok((required, unique, key, place.to_owned())), "{property}");
        }
        assert!(constraints("isNullable: perhaps").is_err());
    }

    #[test]
    fn sla_values_of_several_elements_are_kept() {
        let contract = component(
            "{kind: DataContract, slaProperties: [{property: latency, value: 4, unit: d, element: t.a}, \
             {property: latency, value: 5, unit: d, element: t.b}, {property: latency, value: 6}], schema: \
             [{name: t, properties: [{name: a, logicalType: date}]}]}",
        );
        let sla = contract.data_contract.unwrap().sla;
        let sla: Vec<_> =
            sla.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap())).collect();
        assert_eq!(sla, ["latency=4 d", "latency.t.b=5 d", "latency.2=6"]);
    }

    #[test]
    fn a_physical_name_is_noted_and_not_used() {
        let contract = |properties: &str| {
            let text = format!("{{kind: DataContract, schema: [{{name: t, properties: [{properties}]}}]}}");
            component(&text).data_contract.unwrap()
        };
        let noted = contract(
            "{name: a, physicalName: txn_a, logicalType: object, properties: [{name: b, physicalName: txn_b, logicalType: date}]}, \
             {name: c, physicalName: c, logicalType: date}, {name: d, physicalName: '', logicalType: date}",
        );
        assert_eq!(noted.schema[0].name, "a");
        assert_eq!(
            noted.notes,
            [
                "columns have the `name` of the contract, and not its `physicalName`: `a` (`txn_a`), `b` (`txn_b`)"
            ]
        );
        assert!(contract("{name: c, physicalName: c, logicalType: date}").notes.is_empty());
    }

    #[test]
    fn thousands_of_unknown_types_cost_as_much_as_a_hundred() {
        let properties: Vec<_> =
            (0..12_000).map(|number| format!("{{name: c{number}, physicalType: typ{number}}}")).collect();
        let started = std::time::Instant::now();
        let problems = read(&format!(
            "{{kind: DataContract, schema: [{{name: t, properties: [{}]}}]}}",
            properties.join(", ")
        ))
        .unwrap_err();
        assert_eq!(problems.len(), 101);
        assert_eq!(problems[100], "components[0]: 11900 more problems are not listed; correct these first");
        assert!(started.elapsed() < std::time::Duration::from_secs(30), "{:?}", started.elapsed());
    }

    #[test]
    fn technology_problems_use_the_shape_of_the_contract() {
        let component = component(
            "{kind: DataContract, schema: [{name: t, properties: [\
             {name: a, logicalType: object, properties: [{name: x, logicalType: string}]},\
             {name: b, physicalType: 'char(3)', primaryKey: true},\
             {name: c, logicalType: array, items: {logicalType: string}},\
             {name: d, physicalType: 'struct<x: int> not null'}]}]}",
        );
        for (path, told) in [
            ("dataContract.schema[0].children[0].dataType", "properties[0].properties[0].logicalType"),
            (
                "dataContract.schema[0].children[0].dataLength",
                "properties[0].properties[0].logicalTypeOptions.maxLength",
            ),
            ("dataContract.schema[0].children", "properties[0].properties"),
            ("dataContract.schema[0].constraint", "properties[0].required"),
            ("dataContract.schema[1].dataLength", "properties[1].physicalType"),
            ("dataContract.schema[2].arrayDataType", "properties[2].items.logicalType"),
            ("dataContract.schema[2].dataLength", "properties[2].items.logicalTypeOptions.maxLength"),
            ("dataContract.schema[3].children[0].dataType", "properties[3].physicalType"),
            ("dataContract.schema[3].children[0].name", "properties[3].physicalType"),
            ("dataContract.schema[3].constraint", "properties[3].physicalType"),
            ("dataContract.schema[1].constraint", "properties[1].primaryKey"),
            ("dataContract.schema[1].name", "properties[1].name"),
            ("dataContract.schema[1]", "properties[1]"),
            ("dataContract.schema", "properties"),
        ] {
            let located =
                component.located(Problem::new(path, "m").remedy("write `NOT_NULL`, or `dataLength`"));
            assert_eq!(located.path, format!("components[0].dataContract.schema[0].{told}"), "{path}");
            assert_eq!(located.remedy.unwrap(), "write `required: true`, or `logicalTypeOptions.maxLength`");
        }
        assert_eq!(component.located(Problem::new("specific.x", "m")).path, "components[0].specific.x");
    }
}
