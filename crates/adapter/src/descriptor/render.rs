//! Writes data contracts for imports: the reverse of `contract.rs` and `odcs.rs`.
//!
//! [`write_contract`] writes columns in the shape of the existing contract:
//!
//! | the contract | the columns |
//! |---|---|
//! | is an ODCS contract | properties of its schema object, merged into the existing ones |
//! | has OpenMetadata's list, or does not exist | a list of columns |
//!
//! When merging, values that already agree stay as written, and keys that Landfall does not read (`quality`,
//! `customProperties`, ...) are kept. So an import of an unchanged table returns its contract word for word.
//!
//! The result is read again and compared with the columns. Facts that the shape cannot express are reported.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::document::Node;
use super::problems::Problems;
use super::read::Fields;
use super::{Column, ContractShape, DataType, Object, Strictness, Tag, contract, odcs};

/// Keys of an ODCS property that describe its type.
const TYPE_KEYS: [&str; 4] = ["logicalType", "physicalType", "items", "properties"];
/// Options of a logical type that describe the type.
const TYPE_OPTIONS: [&str; 3] = ["maxLength", "format", "timezone"];

/// Columns in the shape of a data contract.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// The shape.
    pub shape: ContractShape,
    /// `dataContract.schema`.
    pub schema: Value,
    /// A sentence for each fact about the columns that this shape cannot express.
    pub lost: Vec<String>,
}

/// The columns of `table` in the shape of `contract`, the existing `dataContract`.
pub fn write_contract(columns: &[Column], table: &str, contract: Option<&Value>) -> Written {
    let existing = contract.and_then(Value::as_object);
    match existing.filter(|contract| is_odcs(contract)) {
        Some(contract) => {
            let dialect = Dialect::of(contract);
            let (schema, properties) = odcs_schema(columns, table, contract.get("schema"), dialect);
            let lost = lost(columns, &read_odcs(&properties), &[]);
            Written { shape: ContractShape::Odcs, schema, lost }
        }
        None => {
            let schema = Value::Array(columns.iter().map(open_metadata).map(Value::Object).collect());
            let lost = lost(columns, &read_open_metadata(&schema), &[]);
            Written { shape: ContractShape::OpenMetadata, schema, lost }
        }
    }
}

/// `slaProperties` of an ODCS contract with these promises; `None` if it already has all of them.
pub fn write_sla(sla: &Object, contract: &Value) -> Option<Value> {
    let mut entries: Vec<Value> =
        contract.get("slaProperties").and_then(Value::as_array).cloned().unwrap_or_default();
    let nodes: Vec<Node> = entries.iter().map(Node::of_json).collect();
    let said = odcs::promises(&nodes.iter().collect::<Vec<_>>());
    let before = entries.clone();
    for (name, promise) in sla {
        let promise = match promise {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let place = said.iter().enumerate().find_map(|(at, said)| match said {
            Some((known, said)) if known == name => Some((at, said)),
            _ => None,
        });
        match place.map(|(at, said)| (entries.get_mut(at), said)) {
            Some((_, said)) if *said == promise => {}
            Some((Some(Value::Object(entry)), _)) => {
                entry.insert("value".to_owned(), json!(promise));
                entry.shift_remove("unit");
            }
            _ => entries.push(json!({ "property": name, "value": promise })),
        }
    }
    (entries != before).then_some(Value::Array(entries))
}

/// Whether a `dataContract` is an ODCS contract.
fn is_odcs(contract: &Object) -> bool {
    let node = Node::of_json(&Value::Object(contract.clone()));
    Fields::of(&node, "", node.at).is_some_and(|fields| odcs::is_odcs(&fields))
}

// OpenMetadata

fn open_metadata(column: &Column) -> Object {
    let mut keys = Object::new();
    keys.insert("name".to_owned(), json!(column.name));
    keys.extend(type_keys(column));
    if !column.description.is_empty() {
        keys.insert("description".to_owned(), json!(column.description));
    }
    if let Some(constraint) = column.constraint() {
        keys.insert("constraint".to_owned(), json!(constraint));
    }
    if !column.tags.is_empty() {
        keys.insert("tags".to_owned(), Value::Array(column.tags.iter().map(tag).collect()));
    }
    if !column.children.is_empty() {
        let children = column.children.iter().map(open_metadata).map(Value::Object).collect();
        keys.insert("children".to_owned(), Value::Array(children));
    }
    keys
}

/// The type keys of a column, without its children, in OpenMetadata's shape.
pub fn type_keys(column: &Column) -> Object {
    let mut keys = Object::new();
    keys.insert("dataType".to_owned(), json!(column.data_type.name()));
    for (key, value) in
        [("dataLength", column.data_length), ("precision", column.precision), ("scale", column.scale)]
    {
        if let Some(value) = value {
            keys.insert(key.to_owned(), json!(value));
        }
    }
    if let Some(element) = column.array_data_type {
        keys.insert("arrayDataType".to_owned(), json!(element.name()));
    }
    keys
}

fn tag(tag: &Tag) -> Value {
    let mut object = Object::new();
    object.insert("tagFQN".to_owned(), json!(tag.fqn));
    for (key, value) in [("source", &tag.source), ("labelType", &tag.label_type)] {
        if !value.is_empty() {
            object.insert(key.to_owned(), json!(value));
        }
    }
    Value::Object(object)
}

/// Tags as a descriptor writes them.
pub fn write_tags(tags: &[Tag]) -> Value {
    Value::Array(tags.iter().map(tag).collect())
}

fn read_open_metadata(schema: &Value) -> Vec<Column> {
    let node = Node::of_json(&json!({ "schema": schema }));
    let mut problems = Problems::new(Strictness::Short);
    Fields::of(&node, "", node.at)
        .map(|fields| contract::columns(&fields, "schema", &mut problems))
        .unwrap_or_default()
}

// ODCS

/// The differences between versions of the standard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// 3.0: `date` is the logical type of all dates and times.
    V3_0,
    /// 3.1 and later: `timestamp` and `time` are logical types.
    V3_1,
}

impl Dialect {
    fn of(contract: &Object) -> Self {
        let version = contract.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        let mut numbers = version.trim().trim_start_matches('v').split('.').skip(1);
        match numbers.next().and_then(|minor| minor.parse::<u32>().ok()) {
            Some(minor) if minor > 0 => Self::V3_1,
            _ => Self::V3_0,
        }
    }
}

/// The schema objects, with a new version of the table's object, and its properties.
fn odcs_schema(
    columns: &[Column],
    table: &str,
    existing: Option<&Value>,
    dialect: Dialect,
) -> (Value, Vec<Value>) {
    let mut objects = existing.and_then(Value::as_array).cloned().unwrap_or_default();
    let is_called = |object: &Value| {
        ["name", "physicalName"].iter().any(|key| object.get(key).and_then(Value::as_str) == Some(table))
    };
    let place = match objects.len() {
        1 => Some(0),
        _ => objects.iter().position(is_called),
    };
    let mut object = match place.and_then(|place| objects.get(place)) {
        Some(Value::Object(object)) => object.clone(),
        _ => Object::from_iter([
            ("name".to_owned(), json!(table)),
            ("logicalType".to_owned(), json!("object")),
            ("physicalType".to_owned(), json!("table")),
        ]),
    };
    let written = properties(columns, object.get("properties"), dialect);
    object.insert("properties".to_owned(), Value::Array(written.clone()));
    match place.and_then(|place| objects.get_mut(place)) {
        Some(there) => *there = Value::Object(object),
        None => objects.push(Value::Object(object)),
    }
    (Value::Array(objects), written)
}

/// Columns as properties, each merged into the existing one with its name.
fn properties(columns: &[Column], existing: Option<&Value>, dialect: Dialect) -> Vec<Value> {
    let mut by_name: HashMap<&str, &Object> = HashMap::new();
    let list = existing.and_then(Value::as_array).into_iter().flatten();
    for property in list.filter_map(Value::as_object) {
        if let Some(name) = property.get("name").and_then(Value::as_str) {
            by_name.entry(name).or_insert(property);
        }
    }
    let of = |column: &Column| by_name.get(column.name.as_str()).copied();
    let known: Vec<Option<Known>> = columns.iter().map(|column| Known::of(of(column)?)).collect();
    let places = key_places(columns, &known);
    columns
        .iter()
        .zip(&known)
        .zip(places)
        .map(|((column, known), place)| {
            let mut property = property(column, of(column), known.as_ref(), dialect);
            if let Some(place) = place {
                property.insert("primaryKeyPosition".to_owned(), json!(place));
            }
            Value::Object(property)
        })
        .collect()
}

/// The positions in the primary key to write: none if the existing ones give the same order, or if the target has no
/// order.
fn key_places(columns: &[Column], known: &[Option<Known>]) -> Vec<Option<u32>> {
    let keys: Vec<(usize, u32)> =
        columns.iter().enumerate().filter_map(|(index, column)| Some((index, column.primary_key?))).collect();
    let first = keys.first().map(|(_, place)| *place);
    let is_ordered = keys.iter().any(|(_, place)| Some(*place) != first);
    let sorted = |keys: &[(usize, u32)]| {
        let mut keys = keys.to_vec();
        keys.sort_by_key(|(_, place)| *place);
        keys.into_iter().map(|(index, _)| index).collect::<Vec<_>>()
    };
    let as_known: Vec<(usize, u32)> = keys
        .iter()
        .map(|(index, _)| {
            let known = known.get(*index).and_then(Option::as_ref);
            (*index, known.and_then(|known| known.column.primary_key).unwrap_or(1))
        })
        .collect();
    let is_known = sorted(&keys) == sorted(&as_known);
    (0..columns.len())
        .map(|index| {
            let place = keys.iter().find(|(key, _)| *key == index)?.1;
            (is_ordered && !is_known).then_some(place)
        })
        .collect()
}

/// A column as a property, or as the `items` of an array if it has no name.
fn property(column: &Column, existing: Option<&Object>, known: Option<&Known>, dialect: Dialect) -> Object {
    let mut property = existing.cloned().unwrap_or_default();
    if !column.name.is_empty() {
        property.insert("name".to_owned(), json!(column.name));
    }
    let has_type = |known: &&Known| known.typed && has_type(&property, &known.column, column);
    let is_said = known.filter(has_type).is_some();
    let known = known.map(|known| &known.column);
    if is_said {
        nested(&mut property, column, dialect);
    } else {
        new_type(&mut property, column, dialect);
    }
    let known_key = known.is_some_and(|known| known.primary_key.is_some());
    let is_key = column.primary_key.is_some();
    if is_key && !known_key {
        property.insert("primaryKey".to_owned(), json!(true));
    } else if known_key && !is_key {
        remove(&mut property, "primaryKey");
        property.shift_remove("primaryKeyPosition");
    }
    // A key is required, with or without `required`.
    let known_required = known.is_some_and(|known| known.required);
    flag(
        &mut property,
        "required",
        column.required,
        if is_key { known_key } else { known_required && !known_key },
    );
    flag(&mut property, "unique", column.unique, known.is_some_and(|known| known.unique));
    let said = known.map(|known| known.description.as_str()).unwrap_or_default();
    if said != column.description {
        text(&mut property, "description", &column.description);
    }
    if known.map(|known| known.tags.as_slice()).unwrap_or_default() != column.tags {
        let one = |label: &Tag| match (label.source.as_str(), label.label_type.as_str()) {
            ("", "") => json!(label.fqn),
            _ => tag(label),
        };
        match column.tags.is_empty() {
            true => property.shift_remove("tags"),
            false => property.insert("tags".to_owned(), column.tags.iter().map(one).collect()),
        };
    }
    property
}

fn flag(property: &mut Object, key: &str, wanted: bool, known: bool) {
    match (wanted, known) {
        (true, false) => drop(property.insert(key.to_owned(), json!(true))),
        (false, true) => remove(property, key),
        (false, false) if property.get(key).is_some_and(is_true) || is_said_by_older(property, key) => {
            remove(property, key);
        }
        _ => {}
    }
}

fn is_said_by_older(property: &Object, key: &str) -> bool {
    let mut older = odcs::OLDER.iter().filter(|(newer, ..)| *newer == key);
    older.any(|(_, older, meant)| property.get(*older).is_some_and(|value| is_true(value) == *meant))
}

/// Removes a key, and its name in version 2 of the standard.
fn remove(property: &mut Object, key: &str) {
    property.shift_remove(key);
    for (_, older, _) in odcs::OLDER.iter().filter(|(newer, ..)| *newer == key) {
        property.shift_remove(*older);
    }
}

fn is_true(value: &Value) -> bool {
    value.as_bool().or_else(|| Some(value.as_str()?.trim().eq_ignore_ascii_case("true"))) == Some(true)
}

fn text(property: &mut Object, key: &str, text: &str) {
    match text.is_empty() {
        true => property.shift_remove(key),
        false => property.insert(key.to_owned(), json!(text)),
    };
}

/// Whether a property already has the type of a column, and the places for its nested columns.
fn has_type(property: &Object, known: &Column, column: &Column) -> bool {
    let has_place = match column.data_type {
        DataType::Struct => property.contains_key("properties"),
        DataType::Array => property.contains_key("items"),
        _ => true,
    };
    same_type(known, column) && (has_place || column.children.iter().all(is_plain))
}

/// Whether a column has only a type.
fn is_plain(column: &Column) -> bool {
    column.description.is_empty()
        && column.tags.is_empty()
        && !column.required
        && !column.unique
        && column.children.iter().all(is_plain)
}

fn same_type(a: &Column, b: &Column) -> bool {
    let of = |column: &Column| {
        (
            column.data_type,
            column.data_length,
            column.precision,
            column.scale,
            column.array_data_type,
            column.children.len(),
        )
    };
    // The child of an ARRAY of ARRAY is its element, whatever its name.
    let unnamed = (a.data_type, a.array_data_type) == (DataType::Array, Some(DataType::Array));
    of(a) == of(b)
        && a.children.iter().zip(&b.children).all(|(a, b)| (unnamed || a.name == b.name) && same_type(a, b))
}

/// The nested columns of a property with the right type.
fn nested(property: &mut Object, column: &Column, dialect: Dialect) {
    match column.data_type {
        DataType::Struct if property.contains_key("properties") => {
            let written = properties(&column.children, property.get("properties"), dialect);
            property.insert("properties".to_owned(), Value::Array(written));
        }
        DataType::Array => {
            let Some(Value::Object(items)) = property.get("items") else { return };
            let known = Known::of(items);
            let Some(element) = element(column) else { return };
            let items = self::property(&element, Some(items), known.as_ref(), dialect);
            property.insert("items".to_owned(), Value::Object(items));
        }
        _ => {}
    }
}

/// Replaces the type of a column.
fn new_type(property: &mut Object, column: &Column, dialect: Dialect) {
    for key in TYPE_KEYS {
        property.shift_remove(key);
    }
    if let Some(Value::Object(options)) = property.get_mut("logicalTypeOptions") {
        for key in TYPE_OPTIONS {
            options.shift_remove(key);
        }
        if options.is_empty() {
            property.shift_remove("logicalTypeOptions");
        }
    }
    property.insert("logicalType".to_owned(), json!(logical_type(column.data_type, dialect)));
    match column.data_type {
        DataType::Struct => {
            let written = properties(&column.children, None, dialect);
            property.insert("properties".to_owned(), Value::Array(written));
        }
        DataType::Array => {
            if let Some(element) = element(column) {
                let items = self::property(&element, None, None, dialect);
                property.insert("items".to_owned(), Value::Object(items));
            }
        }
        _ => {
            property.insert("physicalType".to_owned(), json!(physical_type(column)));
        }
    }
}

/// The element of an ARRAY, as a column without a name.
fn element(column: &Column) -> Option<Column> {
    let of = column.array_data_type?;
    if of == DataType::Array {
        let child = column.children.first()?;
        return Some(Column { name: String::new(), ..child.clone() });
    }
    Some(Column {
        data_length: column.data_length,
        precision: column.precision,
        scale: column.scale,
        children: column.children.clone(),
        ..Column::of(of)
    })
}

fn logical_type(data_type: DataType, dialect: Dialect) -> &'static str {
    match data_type {
        DataType::Boolean => "boolean",
        DataType::TinyInt
        | DataType::ByteInt
        | DataType::SmallInt
        | DataType::Int
        | DataType::BigInt
        | DataType::Long => "integer",
        DataType::Float | DataType::Double | DataType::Decimal | DataType::Numeric | DataType::Number => {
            "number"
        }
        DataType::Date => "date",
        DataType::Timestamp | DataType::TimestampZ | DataType::DateTime => match dialect {
            Dialect::V3_0 => "date",
            Dialect::V3_1 => "timestamp",
        },
        DataType::Time => match dialect {
            Dialect::V3_0 => "date",
            Dialect::V3_1 => "time",
        },
        DataType::Array => "array",
        DataType::Struct | DataType::Map | DataType::Union | DataType::Json | DataType::Variant => "object",
        _ => "string",
    }
}

/// The text of a type, as `type_names.rs` reads it.
fn physical_type(column: &Column) -> String {
    let name = column.data_type.name().to_lowercase();
    let text_of = |column: &Column| physical_type(column);
    match column.data_type {
        DataType::Char | DataType::VarChar | DataType::Binary | DataType::VarBinary => {
            match column.data_length {
                Some(length) => format!("{name}({length})"),
                None => name,
            }
        }
        DataType::Decimal | DataType::Numeric | DataType::Number => match (column.precision, column.scale) {
            (Some(precision), scale) => format!("{name}({precision},{})", scale.unwrap_or(0)),
            _ => name,
        },
        DataType::Array => match element(column) {
            Some(element) => format!("{name}<{}>", text_of(&element)),
            None => name,
        },
        DataType::Map => {
            let part = |name: &str| {
                column.children.iter().find(|child| child.name.eq_ignore_ascii_case(name)).map(text_of)
            };
            match (part("key"), part("value")) {
                (Some(key), Some(value)) => format!("{name}<{key}, {value}>"),
                _ => name,
            }
        }
        DataType::Struct => {
            let field = |child: &Column| {
                let is_word = child.name.chars().all(|c| c.is_alphanumeric() || c == '_');
                let quote = if is_word { "" } else { "`" };
                format!("{quote}{}{quote} {}", child.name, text_of(child))
            };
            format!("{name}<{}>", column.children.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        _ => name,
    }
}

/// The column of an existing property.
struct Known {
    column: Column,
    /// Whether it has a valid type.
    typed: bool,
}

impl Known {
    fn of(property: &Object) -> Option<Self> {
        if let Some(column) = read_property(property) {
            return Some(Self { column, typed: true });
        }
        let mut plain = property.clone();
        for key in TYPE_KEYS {
            plain.shift_remove(key);
        }
        plain.insert("logicalType".to_owned(), json!("string"));
        Some(Self { column: read_property(&plain)?, typed: false })
    }
}

fn read_property(property: &Object) -> Option<Column> {
    let node = Node::of_json(&Value::Object(property.clone()));
    let mut problems = Problems::new(Strictness::Short);
    let column = odcs::property(&Fields::of(&node, "", node.at)?, 0, &mut problems)?;
    let name = property.get("name").and_then(Value::as_str).unwrap_or_default();
    Some(Column { name: name.to_owned(), ..column })
}

fn read_odcs(properties: &[Value]) -> Vec<Column> {
    properties.iter().filter_map(Value::as_object).filter_map(read_property).collect()
}

// Differences

/// The facts about `columns` that are missing in `read`, which was written from them. `path` is their path.
fn lost(columns: &[Column], read: &[Column], path: &[&str]) -> Vec<String> {
    let mut lost = Vec::new();
    let by_name: HashMap<&str, &Column> = read.iter().map(|read| (read.name.as_str(), read)).collect();
    for column in columns {
        let path: Vec<&str> = path.iter().copied().chain([column.name.as_str()]).collect();
        let what = super::names::visible(&path.join("."));
        let Some(read) = by_name.get(column.name.as_str()) else {
            lost.push(format!("column `{what}`: it cannot be written"));
            continue;
        };
        let mut parts = Vec::new();
        if !same_outer_type(column, read) {
            parts.push(format!("its type {}", spelled(column)));
        }
        for (part, kept) in [
            ("that every row has a value", read.required == column.required),
            ("that no two rows have the same value", read.unique == column.unique),
            ("its description", read.description == column.description),
            ("its tags", read.tags == column.tags),
        ] {
            if !kept {
                parts.push(part.to_owned());
            }
        }
        if !parts.is_empty() {
            lost.push(format!("column `{what}`: {}", parts.join(", ")));
        }
        match (column.children.as_slice(), read.children.as_slice()) {
            // The element of an ARRAY of ARRAY, whatever its name.
            ([of], [found]) if column.array_data_type == Some(DataType::Array) => {
                let found = Column { name: of.name.clone(), ..found.clone() };
                lost.extend(self::lost(&column.children, &[found], &path));
            }
            (of, found) => lost.extend(self::lost(of, found, &path)),
        }
    }
    let order = |columns: &[Column]| {
        let mut keys: Vec<(u32, String)> =
            columns.iter().filter_map(|column| Some((column.primary_key?, column.name.clone()))).collect();
        keys.sort_by_key(|(place, _)| *place);
        keys.into_iter().map(|(_, name)| name).collect::<Vec<_>>()
    };
    let key = order(columns);
    if key.len() > 1 && key != order(read) {
        lost.push(format!("the order of the primary key: {}", super::names::visible(&key.join(", "))));
    }
    lost
}

/// Children are compared separately.
fn same_outer_type(a: &Column, b: &Column) -> bool {
    let of = |column: &Column| {
        (column.data_type, column.data_length, column.precision, column.scale, column.array_data_type)
    };
    of(a) == of(b)
}

/// A type as users write it.
fn spelled(column: &Column) -> String {
    let numbers: Vec<String> = [column.data_length, column.precision, column.scale]
        .iter()
        .flatten()
        .map(ToString::to_string)
        .collect();
    let numbers = if numbers.is_empty() { String::new() } else { format!("({})", numbers.join(", ")) };
    match column.array_data_type {
        Some(element) => format!("{} of {element}{numbers}", column.data_type),
        None => format!("{}{numbers}", column.data_type),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::document::Tree;
    use super::*;

    /// Columns of an ODCS contract, without the differences between the shapes.
    fn read(schema: &Value) -> Vec<Column> {
        let written = schema[0]["properties"].as_array().unwrap();
        plain(&read_odcs(written))
    }

    fn plain(columns: &[Column]) -> Vec<Column> {
        let strip = |column: &Column| Column {
            path: String::new(),
            keys: Default::default(),
            children: plain(&column.children),
            ..column.clone()
        };
        columns.iter().map(strip).collect()
    }

    fn open_metadata_of(schema: &Value) -> Vec<Column> {
        plain(&read_open_metadata(schema))
    }

    /// Every type, and every other fact about a column.
    fn every_column() -> Vec<Column> {
        let simple = DataType::ALL.iter().filter(|data_type| {
            !matches!(
                data_type,
                DataType::Array
                    | DataType::Map
                    | DataType::Struct
                    | DataType::Union
                    | DataType::Char
                    | DataType::VarChar
                    | DataType::Binary
                    | DataType::VarBinary
            )
        });
        let mut schema: Vec<Value> = simple
            .map(|data_type| json!({ "name": format!("c_{data_type}"), "dataType": data_type.name() }))
            .collect();
        let more = json!([
            { "name": "char", "dataType": "CHAR", "dataLength": 3 },
            { "name": "varchar", "dataType": "VARCHAR", "dataLength": 20, "tags": [{ "tagFQN": "a" }] },
            { "name": "binary", "dataType": "BINARY", "dataLength": 4 },
            { "name": "varbinary", "dataType": "VARBINARY", "dataLength": 5, "description": "Bytes" },
            { "name": "money", "dataType": "DECIMAL", "precision": 12, "scale": 2, "constraint": "NOT_NULL" },
            { "name": "number", "dataType": "NUMBER", "precision": 12, "scale": 0, "constraint": "UNIQUE" },
            { "name": "key", "dataType": "BIGINT", "constraint": "PRIMARY_KEY",
              "tags": [{ "tagFQN": "PII", "source": "Tag", "labelType": "Manual" }] },
            { "name": "texts", "dataType": "ARRAY", "arrayDataType": "VARCHAR", "dataLength": 7 },
            { "name": "grid", "dataType": "ARRAY", "arrayDataType": "ARRAY", "children": [
                { "name": "element", "dataType": "ARRAY", "arrayDataType": "DECIMAL", "precision": 9, "scale": 1 }] },
            { "name": "address", "dataType": "STRUCT", "children": [
                { "name": "city", "dataType": "STRING", "constraint": "NOT_NULL", "description": "Where" },
                { "name": "odd name", "dataType": "STRUCT", "children": [{ "name": "x", "dataType": "INT" }] }] },
            { "name": "lines", "dataType": "ARRAY", "arrayDataType": "STRUCT", "children": [
                { "name": "sku", "dataType": "VARCHAR", "dataLength": 20, "description": "Article" }] },
            { "name": "prices", "dataType": "MAP", "children": [
                { "name": "key", "dataType": "STRING" },
                { "name": "value", "dataType": "STRUCT", "children": [
                    { "name": "odd-name", "dataType": "DECIMAL", "precision": 9, "scale": 2 },
                    { "name": "tags", "dataType": "ARRAY", "arrayDataType": "STRING" }] }] },
        ]);
        schema.extend(more.as_array().unwrap().iter().cloned());
        open_metadata_of(&Value::Array(schema))
    }

    #[test]
    fn every_column_is_read_back_from_both_shapes() {
        let columns = every_column();
        let older = write_contract(&columns, "t", None);
        assert_eq!((older.shape, older.lost), (ContractShape::OpenMetadata, Vec::new()));
        assert_eq!(open_metadata_of(&older.schema), columns);
        for version in ["v3.0.2", "v3.1.0"] {
            let contract = json!({ "kind": "DataContract", "apiVersion": version });
            let written = write_contract(&columns, "t", Some(&contract));
            assert_eq!((written.shape, written.lost), (ContractShape::Odcs, Vec::new()), "{version}");
            assert_eq!(read(&written.schema), columns, "{version}");
            let of = |name: &str| {
                let properties = written.schema[0]["properties"].as_array().unwrap();
                properties.iter().find(|property| property["name"] == name).unwrap().clone()
            };
            let time = if version == "v3.0.2" { "date" } else { "timestamp" };
            assert_eq!(
                of("c_TIMESTAMPZ"),
                json!({ "name": "c_TIMESTAMPZ", "logicalType": time, "physicalType": "timestampz" })
            );
            assert_eq!(
                of("key"),
                json!({ "name": "key", "logicalType": "integer", "physicalType": "bigint", "primaryKey": true,
                        "required": true, "tags": [{ "tagFQN": "PII", "source": "Tag", "labelType": "Manual" }] })
            );
            assert_eq!(
                of("prices")["physicalType"],
                "map<string, struct<`odd-name` decimal(9,2), tags array<string>>>"
            );
        }
    }

    /// The author's text stays while it has the same meaning.
    #[test]
    fn equal_contract_is_returned_unchanged() {
        let contract = json!({
            "apiVersion": "v3.0.2", "kind": "DataContract", "team": [{ "username": "x" }],
            "slaProperties": [{ "property": "latency", "value": 4, "unit": "h", "driver": "regulatory" }],
            "schema": [{ "name": "orders", "physicalName": "orders_v1", "quality": [{ "rule": "rowCount" }], "properties": [
                { "name": "id", "logicalType": "integer", "primaryKey": true, "primaryKeyPosition": 2, "quality": [1] },
                { "name": "part", "physicalType": "int4", "primaryKey": true, "primaryKeyPosition": 1, "required": false },
                { "name": "total", "logicalType": "number", "physicalType": "decimal(12,2)", "required": true,
                  "unique": true, "classification": "restricted", "tags": ["money"], "examples": [1.5] },
                { "name": "code", "logicalType": "string", "logicalTypeOptions": { "maxLength": 9, "pattern": "[A-Z]+" } },
                { "name": "old", "logicalType": "string", "isNullable": false, "isUnique": true },
                { "name": "rest", "logicalType": "object" },
                { "name": "lines", "logicalType": "array", "items": { "logicalType": "object", "properties": [
                    { "name": "sku", "logicalType": "string", "description": "Article", "businessName": "Article" }] } },
                { "name": "flat", "physicalType": "ARRAY<STRUCT<a STRING, b INT64>>" },
            ] }],
        });
        let columns = read(&contract["schema"]);
        let written = write_contract(&columns, "another", Some(&contract));
        assert_eq!(written.schema, contract["schema"]);
        assert_eq!(written.lost, Vec::<String>::new());
        let sla = |text: &str| Object::from_iter([("latency".to_owned(), json!(text))]);
        assert_eq!(write_sla(&sla("4 h"), &contract), None);
        assert_eq!(
            write_sla(&sla("5 h"), &contract),
            Some(json!([{ "property": "latency", "value": "5 h", "driver": "regulatory" }]))
        );
        // A property that exists several times, as it is read.
        let entries = json!([
            { "property": "latency", "value": 4, "unit": "h" },
            { "property": "latency", "element": "orders.total", "value": 5 },
            { "property": "latency", "element": "orders.total", "value": 6.5 },
            { "property": "latency" },
        ]);
        let contract = json!({ "apiVersion": "v3.1.0", "slaProperties": entries });
        let node = Node::of_json(&contract["slaProperties"]);
        let Tree::List(nodes) = &node.tree else { panic!("a list") };
        let read = odcs::promises(&nodes.iter().collect::<Vec<_>>()).into_iter().flatten();
        let mut sla: Object = read.map(|(name, promise)| (name, json!(promise))).collect();
        assert_eq!(
            Value::Object(sla.clone()),
            json!({ "latency": "4 h", "latency.orders.total": "5", "latency.2": "6.5" })
        );
        assert_eq!(write_sla(&sla, &contract), None);
        sla.insert("latency.2".to_owned(), json!("7"));
        let written = write_sla(&sla, &contract).unwrap();
        assert_eq!(written[2], json!({ "property": "latency", "element": "orders.total", "value": "7" }));
        assert_eq!(written.as_array().unwrap().len(), 4);
    }

    #[test]
    fn different_contract_is_corrected_in_place() {
        let contract = json!({ "kind": "DataContract", "apiVersion": "v3.1.0", "schema": [
            { "name": "t", "physicalType": "view", "properties": [
                { "name": "gone", "logicalType": "string" },
                { "name": "id", "logicalType": "string", "logicalTypeOptions": { "maxLength": 3 }, "primaryKey": true,
                  "primaryKeyPosition": 1, "unique": true, "description": "Old", "businessName": "Id" },
                { "name": "old", "logicalType": "date", "isNullable": false, "isUnique": false, "isPrimaryKey": true },
                { "name": "flat", "physicalType": "struct<a string>" },
                { "name": "lines", "logicalType": "array", "items": { "logicalType": "object", "properties": [
                    { "name": "sku", "logicalType": "string", "quality": [1] }] } },
            ] }] });
        let columns = open_metadata_of(&json!([
            { "name": "id", "dataType": "UUID", "constraint": "NOT_NULL", "description": "New" },
            { "name": "old", "dataType": "DATE" },
            { "name": "flat", "dataType": "STRUCT", "children": [
                { "name": "a", "dataType": "STRING", "description": "Said now" }] },
            { "name": "lines", "dataType": "ARRAY", "arrayDataType": "STRUCT", "children": [
                { "name": "sku", "dataType": "STRING", "constraint": "NOT_NULL" }] },
            { "name": "at", "dataType": "TIME" },
        ]));
        let written = write_contract(&columns, "t", Some(&contract));
        assert_eq!(
            written.schema,
            json!([{ "name": "t", "physicalType": "view", "properties": [
                { "name": "id", "businessName": "Id", "logicalType": "string", "physicalType": "uuid", "required": true,
                  "description": "New" },
                { "name": "old", "logicalType": "date", "isUnique": false },
                { "name": "flat", "logicalType": "object", "properties": [
                    { "name": "a", "logicalType": "string", "physicalType": "string", "description": "Said now" }] },
                { "name": "lines", "logicalType": "array", "items": { "logicalType": "object", "properties": [
                    { "name": "sku", "logicalType": "string", "quality": [1], "required": true }] } },
                { "name": "at", "logicalType": "time", "physicalType": "time" },
            ] }])
        );
        assert_eq!(read(&written.schema), columns);
    }

    #[test]
    fn reports_facts_that_a_shape_cannot_express() {
        let mut columns = open_metadata_of(&json!([
            { "name": "a", "dataType": "INT", "constraint": "PRIMARY_KEY" },
            { "name": "b", "dataType": "INT", "constraint": "PRIMARY_KEY" },
            { "name": "c", "dataType": "UNION", "children": [{ "name": "x", "dataType": "INT" }] },
            { "name": "d", "dataType": "DECIMAL", "scale": 2 },
        ]));
        columns[0].primary_key = Some(2);
        columns[1].unique = true;
        let lost = |contract: Option<&Value>| write_contract(&columns, "t", contract).lost;
        assert_eq!(
            lost(None),
            ["column `b`: that no two rows have the same value", "the order of the primary key: b, a"]
        );
        let odcs = json!({ "kind": "DataContract" });
        assert_eq!(
            lost(Some(&odcs)),
            ["column `c.x`: it cannot be written", "column `d`: its type DECIMAL(2)"]
        );
        let written = write_contract(&columns, "t", Some(&odcs)).schema;
        assert_eq!(
            (&written[0]["name"], &written[0]["properties"][0]["primaryKeyPosition"]),
            (&json!("t"), &json!(2))
        );
    }

    /// Any JSON made of words of an ODCS contract.
    fn anything() -> impl Strategy<Value = Value> {
        const WORDS: [&str; 16] = [
            "true",
            "false",
            "string",
            "integer",
            "number",
            "array",
            "object",
            "date",
            "decimal(12,2)",
            "varchar(9)",
            "struct<a string>",
            "array<int>",
            "map<string, int>",
            "nothing",
            "",
            "v3.1.0",
        ];
        const KEYS: [&str; 18] = [
            "name",
            "logicalType",
            "physicalType",
            "logicalTypeOptions",
            "maxLength",
            "format",
            "timezone",
            "items",
            "properties",
            "required",
            "unique",
            "primaryKey",
            "primaryKeyPosition",
            "description",
            "tags",
            "tagFQN",
            "quality",
            "schema",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-2i64..40).prop_map(Value::from),
            proptest::sample::select(&WORDS[..]).prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::vec((proptest::sample::select(&KEYS[..]), inner), 0..5).prop_map(
                    |pairs| {
                        Value::Object(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
                    }
                ),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        /// Any contract describes the columns correctly after one run, and a second run does not change it.
        #[test]
        fn columns_merge_into_any_contract(parts in proptest::collection::vec(anything(), 24), schema in anything()) {
            let columns = every_column();
            let mut columns: Vec<Column> = columns.into_iter().rev().take(parts.len()).collect();
            columns.reverse();
            let properties: Vec<Value> = columns
                .iter()
                .zip(&parts)
                .map(|(column, part)| {
                    let mut property = part.as_object().cloned().unwrap_or_default();
                    property.insert("name".to_owned(), json!(column.name));
                    Value::Object(property)
                })
                .collect();
            for schema in [json!([{ "name": "t", "properties": properties }]), schema] {
                let contract = json!({ "kind": "DataContract", "schema": schema });
                let written = write_contract(&columns, "t", Some(&contract));
                prop_assert_eq!(&written.lost, &Vec::<String>::new());
                let again = json!({ "kind": "DataContract", "schema": written.schema });
                prop_assert_eq!(&write_contract(&columns, "t", Some(&again)).schema, &again["schema"]);
            }
        }
    }

    #[test]
    fn odcs_contracts_are_recognized() {
        for (contract, shape) in [
            (json!({ "schema": [{ "name": "a", "dataType": "INT" }] }), ContractShape::OpenMetadata),
            (json!({ "schema": [] }), ContractShape::OpenMetadata),
            (json!("text"), ContractShape::OpenMetadata),
            (json!(null), ContractShape::OpenMetadata),
            (json!({ "schema": [{ "name": "t", "properties": [] }] }), ContractShape::Odcs),
            (json!({ "apiVersion": "v3.0.2" }), ContractShape::Odcs),
            (json!({ "kind": "DataContract", "schema": "none" }), ContractShape::Odcs),
        ] {
            assert_eq!(write_contract(&[], "t", Some(&contract)).shape, shape, "{contract}");
        }
    }
}
