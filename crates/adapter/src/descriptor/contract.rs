//! The data contract: columns, promises, example rows.
//!
//! A contract has one of two shapes: the standard's list of columns in the vocabulary of OpenMetadata, which is read
//! here, or a contract of the Open Data Contract Standard, which `odcs.rs` reads. Both become the same [`Column`]s.

use std::collections::{HashMap, HashSet};

use super::document::{Entry, Node, Tree};
use super::keys::{self, Known, Says};
use super::problems::Problems;
use super::read::{Fields, did_you_mean};
use super::type_names::{self, Named};
use super::{Column, ContractShape, DataContract, DataType, Problem, SampleData, odcs, rules};

/// Keys of a column.
const KEYS: Known = Known {
    used: &["arrayDataType", "dataLength", "precision", "scale", "children", "constraint"],
    other: &["name", "dataType", "description", "tags"],
    foreign: &[
        ("required", Says::Yes, "`constraint: NOT_NULL`"),
        ("nullable", Says::No, "`constraint: NOT_NULL`"),
        ("primaryKey", Says::Yes, "`constraint: PRIMARY_KEY`"),
        ("unique", Says::Yes, "`constraint: UNIQUE`"),
        ("isNullable", Says::No, "`constraint: NOT_NULL`"),
        ("isPrimaryKey", Says::Yes, "`constraint: PRIMARY_KEY`"),
        ("isUnique", Says::Yes, "`constraint: UNIQUE`"),
    ],
    name: "a column",
};

/// `dataContract` of a component, with the `dataSharingAgreement` from inside or beside it.
pub(super) fn data_contract(component: &Fields<'_>, problems: &mut Problems) -> Option<DataContract> {
    let entry = component.get("dataContract")?;
    let path = format!("{}.dataContract", component.path);
    let Some(fields) = Fields::of(&entry.node, &path, entry.at) else {
        problems.ask(|| component.wrong_kind(entry, "a mapping"));
        return None;
    };
    if odcs::is_odcs(&fields) {
        return Some(DataContract {
            data_sharing_agreement: component.object("dataSharingAgreement", problems),
            ..odcs::data_contract(&fields, problems)
        });
    }
    let inside = fields.object("dataSharingAgreement", problems);
    let beside = component.object("dataSharingAgreement", problems);
    Some(DataContract {
        schema: columns(&fields, "schema", problems),
        shape: ContractShape::OpenMetadata,
        columns_path: "dataContract.schema".to_owned(),
        notes: Vec::new(),
        terms_and_conditions: fields.text("termsAndConditions", problems),
        endpoint: fields.text("endpoint", problems),
        sla: fields.object("SLA", problems),
        data_sharing_agreement: if inside.is_empty() { beside } else { inside },
    })
}

pub(super) fn columns(parent: &Fields<'_>, name: &str, problems: &mut Problems) -> Vec<Column> {
    let mut read = Vec::new();
    let mut names = Names::default();
    for (path, node) in parent.list(name, problems) {
        let Some(fields) = Fields::of(node, &path, node.at) else {
            problems.ask(|| {
                Problem::new(path.as_str(), format!("a column is a mapping, not {}", node.kind()))
                    .at(node.at)
                    .remedy("write `name` and `dataType`")
            });
            read.extend(problems.is_strict().then(|| Column::unread(&path, "")));
            continue;
        };
        let column = column(&fields, problems).or_else(|| unread(&fields, problems));
        let Some(column) = column else { continue };
        names.once(&column.name, &fields, "name", problems);
        read.push(column);
    }
    read
}

/// The placeholder of a column that could not be read, so that its name is known and later columns keep their
/// position. `None` in a short form.
pub(super) fn unread(fields: &Fields<'_>, problems: &Problems) -> Option<Column> {
    let name = fields.get("name").and_then(|entry| entry.node.source_text()).unwrap_or_default();
    problems.is_strict().then(|| Column::unread(fields.path, &name))
}

/// The names of the columns of one list.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<String, String>);

impl Names {
    /// Reports a name that the list already has. Case is ignored, because some engines ignore it.
    pub(super) fn once(&mut self, name: &str, fields: &Fields<'_>, key: &str, problems: &mut Problems) {
        if name.is_empty() {
            return;
        }
        if let Some(first) = self.0.insert(name.to_lowercase(), name.to_owned()) {
            problems.ask(|| {
                fields
                    .problem(key, "two columns have the same name, without regard to case")
                    .at(fields.get(key).map_or(fields.at, |entry| entry.node.at))
                    .value(name)
                    .remedy(format!("rename it; another is called `{first}`"))
            });
        }
    }
}

fn column(fields: &Fields<'_>, problems: &mut Problems) -> Option<Column> {
    let name = fields.required_text("name", problems);
    if fields.get("dataType").is_none() {
        problems.ask(|| fields.missing("dataType"));
    }
    let named = data_type(fields, "dataType", problems);
    let mut column = Column {
        name: name.clone().unwrap_or_default(),
        description: fields.text("description", problems).unwrap_or_default(),
        tags: fields.tags(problems),
        path: fields.path.to_owned(),
        ..Column::of(DataType::String)
    };
    let measures = ["dataLength", "precision", "scale"].map(|key| (key, whole_number(fields, key, problems)));
    let own_length = measures.iter().find(|(key, _)| *key == "dataLength").and_then(|(_, length)| *length);
    if let Some(named) = &named {
        column.has_type(named, "dataType", own_length);
    }
    if let Some(element) = data_type(fields, "arrayDataType", problems) {
        column.has_elements(&element, "arrayDataType", own_length);
    }
    for (key, own) in measures {
        let part = match key {
            "dataLength" => &mut column.data_length,
            "precision" => &mut column.precision,
            _ => &mut column.scale,
        };
        if let (Some(own), Some(said)) = (own, *part)
            && own != said
        {
            problems.ask(|| contradicts(fields, key, own, column.keys.of(key), said));
        }
        if own.is_some() {
            *part = own;
            column.keys.put(key, key);
        }
    }
    let children = columns(fields, "children", problems);
    if !children.is_empty() {
        column.children = children;
        column.keys.put("children", "children");
    } else if column.data_type == DataType::Struct
        && column.children.is_empty()
        && fields.get("children").is_none()
    {
        // As in ODCS: without a description it may contain anything.
        column.data_type = DataType::Json;
    }
    keys::report(fields, &KEYS, problems);
    constraint(fields, &mut column, problems);
    if name.is_some() {
        rules::check(&column, fields, problems);
    }
    if named.is_some() {
        shape(&column, fields, problems);
    }
    (name.is_some() && named.is_some()).then_some(column)
}

fn contradicts(fields: &Fields<'_>, key: &str, own: u32, type_key: &str, said: u32) -> Problem {
    fields
        .problem(key, format!("`{key}` contradicts `{type_key}`, which says {said}"))
        .at(fields.get(key).map_or(fields.at, |entry| entry.node.at))
        .value(own)
        .remedy("remove one of them")
}

/// Reports fields of a column that its type requires or does not allow.
fn shape(column: &Column, fields: &Fields<'_>, problems: &mut Problems) {
    let data_type = column.data_type;
    let missing = |name: &'static str, why: String| fields.missing(name).remedy(why);
    if matches!(data_type, DataType::Char | DataType::VarChar | DataType::Binary | DataType::VarBinary) {
        match fields.get("dataLength") {
            None if column.data_length.is_none() => problems.ask(|| {
                missing("dataLength", format!("{data_type} needs `dataLength`, its greatest length"))
            }),
            Some(entry) if column.data_length == Some(0) => problems.ask(|| {
                fields.problem("dataLength", "the length is zero").at(entry.node.at).remedy("use 1 or more")
            }),
            _ => {}
        }
    }
    // The children describe the column itself or, for an array, its elements.
    let described = if data_type == DataType::Array {
        if fields.get("arrayDataType").is_none() && column.array_data_type.is_none() {
            problems.ask(|| {
                missing("arrayDataType", "ARRAY needs `arrayDataType`, the type of its elements".into())
            });
        }
        column.array_data_type
    } else {
        Some(data_type)
    };
    let children = fields.get("children");
    match described {
        Some(of @ (DataType::Struct | DataType::Union)) if column.children.is_empty() => {
            // Children that could not be read have their own problems.
            if children.is_none() {
                problems.ask(|| missing("children", format!("{of} needs `children`, its fields")));
            }
        }
        Some(DataType::Map) => {
            let mut names: Vec<_> =
                column.children.iter().map(|child| child.name.to_ascii_lowercase()).collect();
            names.sort_unstable();
            if names != ["key", "value"] {
                problems.ask(|| match children {
                    Some(entry) => fields
                        .problem("children", "MAP has exactly two children, `key` and `value`")
                        .at(entry.at)
                        .remedy("describe both, and nothing else"),
                    None => missing("children", "MAP needs `children`: `key` and `value`".into()),
                });
            }
        }
        Some(
            DataType::Struct
            | DataType::Union
            | DataType::Array
            | DataType::Json
            | DataType::Variant
            | DataType::Enum
            | DataType::Set,
        )
        | None => {}
        Some(simple) if !column.children.is_empty() => problems.ask(|| {
            fields
                .problem("children", format!("{simple} has no children"))
                .at(children.map_or(fields.at, |entry| entry.at))
                .remedy("remove them, or use STRUCT")
        }),
        Some(_) => {}
    }
    if let (Some(precision), Some(scale)) = (column.precision, column.scale)
        && scale > precision
    {
        problems.ask(|| {
            fields
                .problem("scale", "there are more digits after the point than digits")
                .at(fields.get("scale").map_or(fields.at, |entry| entry.node.at))
                .value(scale)
                .remedy(format!("use at most the precision, {precision}"))
        });
    }
}

fn data_type(fields: &Fields<'_>, name: &str, problems: &mut Problems) -> Option<Named> {
    let entry = fields.get(name)?;
    let Tree::Text(text) = &entry.node.tree else {
        problems.ask(|| fields.wrong_kind(entry, "the name of a type"));
        return None;
    };
    match type_names::parse(text) {
        Ok(named) => Some(named),
        Err(unknown) => {
            problems.ask(|| {
                fields
                    .problem(name, unknown.message())
                    .at(entry.node.at)
                    .value(text)
                    .remedy(unknown.remedy(ContractShape::OpenMetadata))
            });
            None
        }
    }
}

fn constraint(fields: &Fields<'_>, column: &mut Column, problems: &mut Problems) {
    const KNOWN: [&str; 4] = ["PRIMARY_KEY", "NOT_NULL", "UNIQUE", "NULL"];
    let Some(entry) = fields.get("constraint") else { return };
    let Some(text) = entry.node.source_text() else {
        problems.ask(|| fields.wrong_kind(entry, "a text"));
        return;
    };
    let text = text.trim();
    match KNOWN.iter().find(|name| name.eq_ignore_ascii_case(text)) {
        Some(&"PRIMARY_KEY") => column.is_key(1),
        Some(&"NOT_NULL") => column.required = true,
        Some(&"UNIQUE") => {
            column.unique = true;
            // There is only one constraint; the other one is in the type.
            return;
        }
        Some(_) => {
            if column.required {
                problems.ask(|| {
                    fields
                        .problem("constraint", "`constraint` contradicts `dataType`, which says NOT NULL")
                        .at(entry.node.at)
                        .value(text)
                        .remedy("remove one of them")
                });
            }
            return;
        }
        None if text.is_empty() => {}
        None => {
            let close = problems.closest(text, KNOWN);
            problems.ask(|| {
                fields
                    .problem("constraint", "unknown constraint")
                    .at(entry.node.at)
                    .value(text)
                    .remedy(did_you_mean(close, "use PRIMARY_KEY, NOT_NULL, UNIQUE or NULL"))
            });
        }
    }
    if !text.is_empty() {
        column.keys.put("constraint", "constraint");
    }
}

/// A whole number, also written as a text.
fn whole_number(fields: &Fields<'_>, name: &str, problems: &mut Problems) -> Option<u32> {
    let entry = fields.get(name)?;
    let number = match &entry.node.tree {
        Tree::Number(number, _) => number.as_u64().and_then(|number| u32::try_from(number).ok()),
        Tree::Text(text) => text.trim().parse().ok(),
        _ => None,
    };
    if number.is_none() {
        problems.ask(|| not_a_number(fields, entry));
    }
    number
}

fn not_a_number(fields: &Fields<'_>, entry: &Entry) -> Problem {
    let problem = fields
        .problem(&entry.key, format!("`{}` should be a whole number", entry.key))
        .at(entry.node.at)
        .remedy(format!("use a whole number, at most {}", u32::MAX));
    match entry.node.source_text() {
        Some(text) => problem.value(text),
        None => problem,
    }
}

/// The number of columns in the document, also unreadable ones.
fn schema_length(component: &Fields<'_>) -> usize {
    let Some(entry) = component.get("dataContract") else { return 0 };
    let Some(contract) = Fields::of(&entry.node, "", entry.at) else { return 0 };
    let columns = if odcs::is_odcs(&contract) { odcs::properties(&contract) } else { contract.get("schema") };
    match columns.map(|entry| &entry.node.tree) {
        Some(Tree::List(columns)) => columns.len(),
        _ => 0,
    }
}

/// `sampleData` of a component. Column names get the spelling of the schema.
pub(super) fn sample_data(
    component: &Fields<'_>,
    contract: Option<&DataContract>,
    problems: &mut Problems,
) -> Option<SampleData> {
    let entry = component.get("sampleData")?;
    let path = format!("{}.sampleData", component.path);
    let Some(fields) = Fields::of(&entry.node, &path, entry.at) else {
        problems.ask(|| component.wrong_kind(entry, "a mapping"));
        return None;
    };
    let schema: &[Column] = contract.map_or(&[], |contract| &contract.schema);
    let known: HashMap<String, &str> =
        schema.iter().map(|column| (column.name.to_lowercase(), column.name.as_str())).collect();
    // A sample column may belong to a column that could not be read.
    let complete = schema_length(component) == schema.len() && schema.iter().all(|it| !it.name.is_empty());
    let mut sample = SampleData::default();
    let mut seen = HashSet::new();
    for (path, node) in fields.list("columns", problems) {
        let Some(name) = node.source_text() else {
            problems.ask(|| {
                Problem::new(path, format!("the name of a column is a text, not {}", node.kind()))
                    .at(node.at)
                    .remedy("write the name of a column of the schema")
            });
            continue;
        };
        let folded = name.to_lowercase();
        match known.get(&folded) {
            Some(spelling) => sample.columns.push((*spelling).to_owned()),
            None => {
                if complete && !schema.is_empty() {
                    let close = problems.closest(&name, schema.iter().map(|column| column.name.as_str()));
                    problems.ask(|| {
                        Problem::new(path.as_str(), "the schema has no such column")
                            .at(node.at)
                            .value(&name)
                            .remedy(did_you_mean(close, "use the name of a column of the schema"))
                    });
                }
                sample.columns.push(name.clone().into_owned());
            }
        }
        if !seen.insert(folded) {
            problems.ask(|| {
                Problem::new(path.as_str(), "the column exists twice")
                    .at(node.at)
                    .value(&name)
                    .remedy("remove one")
            });
        }
    }
    let width = sample.columns.len();
    for (path, node) in fields.list("rows", problems) {
        let Tree::List(cells) = &node.tree else {
            problems.ask(|| {
                Problem::new(path, format!("a row is a list, not {}", node.kind()))
                    .at(node.at)
                    .remedy("write the cells in the order of `columns`")
            });
            continue;
        };
        if cells.len() != width {
            problems.ask(|| {
                Problem::new(path, format!("the row has {} cells and there are {width} columns", cells.len()))
                    .at(node.at)
                    .remedy("give every row a cell for every column")
            });
            continue;
        }
        sample.rows.push(cells.iter().map(Node::to_json).collect());
    }
    Some(sample)
}
