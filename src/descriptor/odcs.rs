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
//! `physicalType` decides, where it is there and known: it says more than the seven logical types. A name of no
//! documented type leaves the decision to `logicalType`, since it may be one of another platform.
//!
//! | `logicalType` | without a `physicalType` |
//! |---|---|
//! | string | STRING; VARCHAR with `logicalTypeOptions.maxLength`; UUID or BYTES by `format` |
//! | integer | BIGINT; by `format` (`i8` to `i64`) a smaller one |
//! | number | DECIMAL; FLOAT and DOUBLE by `format` (`f32`, `f64`) |
//! | boolean | BOOLEAN |
//! | date | DATE; TIMESTAMP or TIMESTAMPZ when `format` has a time and a zone |
//! | timestamp, time | TIMESTAMP, TIME; TIMESTAMPZ with `timezone: true` |
//! | object | STRUCT of `properties`, JSON without them |
//! | array | ARRAY of `items` |
//!
//! The rest of the standard (servers, team, quality, custom properties, ...) is passed over. Technologies speak of
//! columns as OpenMetadata's shape writes them; [`Component::located`] says it in the shape of the author.

use serde_json::Value;

use super::contract::Names;
use super::document::{Entry, Node, Tree};
use super::problems::Problems;
use super::read::Fields;
use super::type_names::{self, Named, UnknownType};
use super::{Column, Component, ContractShape, DataContract, DataType, Problem, Written, contract, rules};

/// Levels of `properties` and `items`.
const MAX_DEPTH: usize = 16;

const LOGICAL_TYPES: [&str; 9] =
    ["string", "integer", "number", "boolean", "date", "timestamp", "time", "object", "array"];

/// Whether a data contract is one of ODCS.
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

/// The contract; what is wrong goes to `problems`.
pub(super) fn data_contract(fields: &Fields<'_>, problems: &mut Problems) -> DataContract {
    version(fields, problems);
    let mut contract = DataContract {
        shape: ContractShape::Odcs,
        columns_path: "dataContract.schema".to_owned(),
        ..DataContract::default()
    };
    for (_, node) in fields.list("slaProperties", problems) {
        let Some(promise) = Fields::of(node, "", node.at) else { continue };
        let text = |key: &str| promise.get(key).and_then(|entry| entry.node.source_text());
        if let (Some(property), Some(value)) = (text("property"), text("value")) {
            let value = text("unit").map_or_else(|| value.to_string(), |unit| format!("{value} {unit}"));
            contract.sla.insert(property.into_owned(), Value::String(value));
        }
    }
    let objects: Vec<(String, &Node)> = fields.list("schema", problems).collect();
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
            object_fields.missing("properties").remedy("list the columns of the table in `properties`")
        });
    }
    contract.schema = columns(&object_fields, 0, problems);
    contract.columns_path = "dataContract.schema[0].properties".to_owned();
    contract
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
    let (named, written) = data_type(fields, problems)?;
    let mut column = Column {
        description: fields.text("description", problems).unwrap_or_default(),
        tags: fields.tags(problems),
        required: flag(fields, "required", problems),
        unique: flag(fields, "unique", problems),
        path: fields.path.to_owned(),
        written,
        ..Column::of(DataType::String)
    };
    column.has_type(&named);
    match column.data_type {
        DataType::Struct if column.children.is_empty() => {
            column.children = columns(fields, depth + 1, problems);
            if column.children.is_empty() {
                // An object of which nothing is said holds anything.
                column.data_type = DataType::Json;
            }
        }
        DataType::Array if column.array_data_type.is_none() => items(fields, &mut column, depth, problems)?,
        _ => {}
    }
    if flag(fields, "primaryKey", problems) {
        let place = fields.get("primaryKeyPosition").and_then(|entry| match &entry.node.tree {
            Tree::Number(number, _) => number.as_u64().and_then(|number| u32::try_from(number).ok()),
            _ => None,
        });
        column.is_key(place.unwrap_or(1));
    }
    Some(column)
}

/// `items`: what an array is made of.
fn items(fields: &Fields<'_>, column: &mut Column, depth: usize, problems: &mut Problems) -> Option<()> {
    let Some(entry) = fields.get("items") else {
        problems.ask(|| fields.missing("items").remedy("describe the elements of the array in `items`"));
        return None;
    };
    let path = format!("{}.items", fields.path);
    let Some(of) = Fields::of(&entry.node, &path, entry.at) else {
        problems.ask(|| fields.wrong_kind(entry, "a mapping"));
        return None;
    };
    let element = property(&of, depth + 1, problems)?;
    column.array_data_type = Some(element.data_type);
    if element.data_type == DataType::Array {
        // What the inner array is made of, one child says.
        column.children = vec![Column { name: "element".to_owned(), ..element }];
    } else {
        column.data_length = element.data_length;
        column.precision = element.precision;
        column.scale = element.scale;
        column.children = element.children;
    }
    Some(())
}

/// The type, and where it was written.
fn data_type(fields: &Fields<'_>, problems: &mut Problems) -> Option<(Named, Written)> {
    let physical = fields.get("physicalType").and_then(|entry| Some((entry, entry.node.source_text()?)));
    let wrong = match &physical {
        None => None,
        Some((entry, text)) => match type_names::parse(text) {
            Ok(mut named) => {
                without_length(&mut named, fields);
                return Some((named, Written::PhysicalType));
            }
            Err(wrong) => Some((*entry, text, wrong)),
        },
    };
    if let Some(named) = logical(fields, problems) {
        return Some((named?, Written::LogicalType));
    }
    problems.ask(|| match wrong {
        Some((entry, text, UnknownType { message, remedy })) => {
            fields.problem("physicalType", message).at(entry.node.at).value(text).remedy(remedy)
        }
        None => {
            fields.missing("logicalType").remedy(format!("add `logicalType`: {}", LOGICAL_TYPES.join(", ")))
        }
    });
    None
}

/// The type by `logicalType`: none where there is no such key, `Some(None)` where it is wrong.
fn logical(fields: &Fields<'_>, problems: &mut Problems) -> Option<Option<Named>> {
    let entry = fields.get("logicalType")?;
    let text = entry.node.source_text()?;
    let options = fields.get("logicalTypeOptions");
    let options = options.and_then(|entry| Fields::of(&entry.node, "", entry.at));
    let option = |key: &str| options.as_ref()?.get(key)?.node.source_text();
    let format = option("format").unwrap_or_default().to_lowercase();
    let zone = option("timezone").is_some_and(|text| text == "true");
    let data_type = match text.trim().to_ascii_lowercase().as_str() {
        "string" => match format.as_str() {
            "uuid" => DataType::Uuid,
            "binary" | "byte" => DataType::Bytes,
            _ => {
                let length = option("maxLength").and_then(|text| text.parse::<u32>().ok());
                let mut named = Named::of(DataType::String);
                if let Some(length) = length.filter(|length| *length > 0) {
                    named.data_type = DataType::VarChar;
                    named.length = Some(length);
                }
                return Some(Some(named));
            }
        },
        "integer" => match format.as_str() {
            "i8" | "int8" => DataType::TinyInt,
            "i16" | "int16" | "u8" => DataType::SmallInt,
            "i32" | "int32" | "u16" => DataType::Int,
            _ => DataType::BigInt,
        },
        "number" => match format.as_str() {
            "f32" | "float" | "float32" => DataType::Float,
            "f64" | "double" | "float64" => DataType::Double,
            _ => DataType::Decimal,
        },
        "boolean" => DataType::Boolean,
        // Version 3.0 has no type for a time of day: the format tells.
        "date" if zone || format.contains(['z', 'x']) => DataType::TimestampZ,
        "date" if format.contains('h') => DataType::Timestamp,
        "date" => DataType::Date,
        "timestamp" if zone => DataType::TimestampZ,
        "timestamp" => DataType::Timestamp,
        "time" => DataType::Time,
        "object" => DataType::Struct,
        "array" => DataType::Array,
        _ => {
            problems.ask(|| {
                fields
                    .problem("logicalType", "ODCS has no such logical type")
                    .at(entry.node.at)
                    .value(&text)
                    .remedy(format!(
                        "use one of {}, or say the type in `physicalType`",
                        LOGICAL_TYPES.join(", ")
                    ))
            });
            return Some(None);
        }
    };
    Some(Some(Named::of(data_type)))
}

/// A text or a string of bytes without a length has no limit, or the one of the logical type.
fn without_length(named: &mut Named, fields: &Fields<'_>) {
    if named.length.is_some() {
        return;
    }
    let limit = || {
        let options = fields.get("logicalTypeOptions")?;
        let options = Fields::of(&options.node, "", options.at)?;
        options.get("maxLength")?.node.source_text()?.parse::<u32>().ok().filter(|length| *length > 0)
    };
    match named.data_type {
        DataType::VarChar => match limit() {
            Some(length) => named.length = Some(length),
            None => named.data_type = DataType::Text,
        },
        // As SQL means it.
        DataType::Char => named.length = Some(limit().unwrap_or(1)),
        DataType::Binary | DataType::VarBinary => named.data_type = DataType::Bytes,
        _ => {}
    }
    if let Some(element) = &mut named.element {
        without_length(element, fields);
    }
    for (_, field) in &mut named.fields {
        without_length(field, fields);
    }
}

fn flag(fields: &Fields<'_>, name: &str, problems: &mut Problems) -> bool {
    let Some(entry) = fields.get(name) else { return false };
    match &entry.node.tree {
        Tree::Bool(value) => *value,
        Tree::Text(text) if text.trim().eq_ignore_ascii_case("true") => true,
        Tree::Text(text) if text.trim().eq_ignore_ascii_case("false") => false,
        _ => {
            problems.ask(|| fields.wrong_kind(entry, "`true` or `false`"));
            false
        }
    }
}

impl Component {
    /// A problem that a technology found, as the author of the document knows it: from the root, and where the data
    /// contract has another shape than OpenMetadata's, with the paths and words of that shape.
    #[must_use]
    pub fn located(&self, problem: Problem) -> Problem {
        let contract = self.data_contract.as_ref().filter(|contract| contract.shape == ContractShape::Odcs);
        match contract {
            Some(contract) => self.in_odcs(problem, contract),
            None => problem,
        }
        .under(&self.path)
    }

    fn in_odcs(&self, mut problem: Problem, contract: &DataContract) -> Problem {
        let Some(rest) = problem.path.strip_prefix("dataContract.schema") else { return problem };
        if rest.is_empty() {
            problem.path.clone_from(&contract.columns_path);
        } else if let Some(path) = odcs_path(&contract.schema, rest) {
            let own = path.strip_prefix(self.path.as_str()).unwrap_or(&path);
            problem.path = own.trim_start_matches('.').to_owned();
        }
        // What is written there is a flag.
        let is_constraint =
            |value: &mut String| matches!(value.as_str(), "PRIMARY_KEY" | "NOT_NULL" | "UNIQUE");
        if problem.value.take_if(is_constraint).is_some() {
            problem.value = Some("true".to_owned());
        }
        problem.message = in_words(&problem.message);
        problem.remedy = problem.remedy.map(|remedy| in_words(&remedy));
        problem
    }
}

/// `[2].children[0].constraint` as `...properties[2].properties[0].required`, from the root of the document.
fn odcs_path(columns: &[Column], rest: &str) -> Option<String> {
    let (index, rest) = rest.strip_prefix('[')?.split_once(']')?;
    let column = columns.get(index.parse::<usize>().ok()?)?;
    let Some(key) = rest.strip_prefix('.') else { return Some(column.path.clone()) };
    if let Some(nested) = key.strip_prefix("children").filter(|nested| nested.starts_with('[')) {
        return odcs_path(&column.children, nested);
    }
    let of_type = match column.written {
        Written::LogicalType => "logicalType",
        Written::PhysicalType | Written::InParent | Written::DataType => "physicalType",
    };
    let key = match key {
        "constraint" if column.primary_key.is_some() => "primaryKey",
        "constraint" if column.unique && !column.required => "unique",
        "constraint" => "required",
        "dataLength" if column.written == Written::LogicalType => "logicalTypeOptions.maxLength",
        "dataType" | "dataLength" | "precision" | "scale" => of_type,
        "arrayDataType" if column.written == Written::LogicalType => "items",
        "arrayDataType" => of_type,
        "children" if column.data_type == DataType::Array => "items",
        "children" => "properties",
        other => other,
    };
    Some(format!("{}.{key}", column.path))
}

/// The words of ODCS for those of OpenMetadata.
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
    use super::super::{Descriptor, DescriptorKind, Limits, Strictness, parse};
    use super::*;

    fn read(contract: &str) -> Result<Descriptor, Vec<String>> {
        let text = format!(
            "id: urn:dmb:dp:sales:orders:0\nname: Orders\nversion: 0.1.0\nenvironment: production\ncomponents:\n\
             - id: urn:dmb:cmp:sales:orders:0:orders\n  name: Orders\n  kind: outputport\n  version: 0.1.0\n  \
             technology: S3\n  dataContract: {contract}\n"
        );
        parse(DescriptorKind::DataProduct, text, Strictness::Full, &Limits::default(), &|_| true)
            .map_err(|rejected| rejected.problems.into_iter().map(without_position).collect())
    }

    fn without_position(mut problem: Problem) -> String {
        problem.line = None;
        problem.with_remedy()
    }

    fn component(contract: &str) -> Component {
        read(contract).unwrap().product.components[0].clone()
    }

    /// Without what tells the shapes apart.
    fn plain(columns: &[Column]) -> Vec<Column> {
        let strip = |column: &Column| Column {
            path: String::new(),
            written: Written::default(),
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
    fn problems_of_a_contract_are_told_in_its_shape() {
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
                        "{at}.schema[0].properties[0].logicalType: ODCS has no such logical type: `strin`; use one of string, integer, number, boolean, date, timestamp, time, object, \
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

    #[test]
    fn problems_of_a_technology_are_told_in_the_shape_of_the_contract() {
        let component = component(
            "{kind: DataContract, schema: [{name: t, properties: [\
             {name: a, logicalType: object, properties: [{name: x, logicalType: string}]},\
             {name: b, physicalType: 'char(3)', primaryKey: true}]}]}",
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
