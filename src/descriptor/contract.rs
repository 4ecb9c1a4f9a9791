//! The data contract: columns in OpenMetadata's vocabulary, promises, example rows.

use std::collections::{HashMap, HashSet};

use super::document::{Entry, Node, Tree};
use super::problems::Problems;
use super::read::{Fields, did_you_mean};
use super::{Column, Constraint, DataContract, DataType, Problem, SampleData, rules};

/// Names people use for types that OpenMetadata calls something else.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("BOOL", "BOOLEAN"),
    ("INTEGER", "INT"),
    ("INT32", "INT"),
    ("INT64", "BIGINT"),
    ("LIST", "ARRAY"),
    ("OBJECT", "STRUCT"),
    ("RECORD", "STRUCT"),
    ("REAL", "FLOAT"),
    ("STR", "STRING"),
    ("TIMESTAMPTZ", "TIMESTAMPZ"),
    ("VARCHAR2", "VARCHAR"),
];

/// `dataContract` of a component, with the `dataSharingAgreement` from inside or beside it.
pub(super) fn data_contract(component: &Fields<'_>, problems: &mut Problems) -> Option<DataContract> {
    let entry = component.get("dataContract")?;
    let path = format!("{}.dataContract", component.path);
    let Some(fields) = Fields::of(&entry.node, &path, entry.at) else {
        problems.ask(|| component.wrong_kind(entry, "a mapping"));
        return None;
    };
    let inside = fields.object("dataSharingAgreement", problems);
    let beside = component.object("dataSharingAgreement", problems);
    Some(DataContract {
        schema: columns(&fields, "schema", problems),
        terms_and_conditions: fields.text("termsAndConditions", problems),
        endpoint: fields.text("endpoint", problems),
        sla: fields.object("SLA", problems),
        data_sharing_agreement: if inside.is_empty() { beside } else { inside },
    })
}

fn columns(parent: &Fields<'_>, name: &str, problems: &mut Problems) -> Vec<Column> {
    let mut read = Vec::new();
    let mut names: HashMap<String, String> = HashMap::new();
    for (path, node) in parent.list(name, problems) {
        let Some(fields) = Fields::of(node, &path, node.at) else {
            problems.ask(|| {
                Problem::new(path.as_str(), format!("a column is a mapping, not {}", node.kind()))
                    .at(node.at)
                    .remedy("write `name` and `dataType`")
            });
            continue;
        };
        let Some(column) = column(&fields, problems) else { continue };
        // Engines fold case, so two names that differ in case alone are one column to some of them.
        if let Some(first) = names.insert(column.name.to_lowercase(), column.name.clone()) {
            problems.ask(|| {
                fields
                    .problem("name", "two columns have the same name, without regard to case")
                    .at(fields.get("name").map_or(fields.at, |entry| entry.node.at))
                    .value(&column.name)
                    .remedy(format!("rename it; another is called `{first}`"))
            });
        }
        read.push(column);
    }
    read
}

fn column(fields: &Fields<'_>, problems: &mut Problems) -> Option<Column> {
    let name = fields.required_text("name", problems);
    if fields.get("dataType").is_none() {
        problems.ask(|| fields.missing("dataType"));
    }
    let data_type = data_type(fields, "dataType", problems);
    let column = Column {
        name: name.clone().unwrap_or_default(),
        data_type: data_type.unwrap_or(DataType::String),
        data_length: whole_number(fields, "dataLength", problems),
        precision: whole_number(fields, "precision", problems),
        scale: whole_number(fields, "scale", problems),
        array_data_type: self::data_type(fields, "arrayDataType", problems),
        children: columns(fields, "children", problems),
        description: fields.text("description", problems).unwrap_or_default(),
        constraint: constraint(fields, problems),
        tags: fields.tags(problems),
        path: fields.path.to_owned(),
    };
    if name.is_some() {
        rules::check(&column, fields, problems);
    }
    if data_type.is_some() {
        shape(&column, fields, problems);
    }
    (name.is_some() && data_type.is_some()).then_some(column)
}

/// What the type of a column asks of its other fields.
fn shape(column: &Column, fields: &Fields<'_>, problems: &mut Problems) {
    let data_type = column.data_type;
    let missing = |name: &'static str, why: String| fields.missing(name).remedy(why);
    if matches!(data_type, DataType::Char | DataType::VarChar | DataType::Binary | DataType::VarBinary) {
        match fields.get("dataLength") {
            None => problems.ask(|| {
                missing("dataLength", format!("{data_type} needs `dataLength`, its greatest length"))
            }),
            Some(entry) if column.data_length == Some(0) => problems.ask(|| {
                fields.problem("dataLength", "the length is zero").at(entry.node.at).remedy("use 1 or more")
            }),
            Some(_) => {}
        }
    }
    // What the children describe: the column itself or, for an array, its elements.
    let described = if data_type == DataType::Array {
        if fields.get("arrayDataType").is_none() {
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
        Some(of @ (DataType::Struct | DataType::Union)) if column.children.is_empty() => match children {
            None => problems.ask(|| missing("children", format!("{of} needs `children`, its fields"))),
            Some(entry) if is_empty_list(&entry.node) => problems.ask(|| {
                fields
                    .problem("children", "`children` is empty")
                    .at(entry.at)
                    .remedy(format!("{of} needs `children`, its fields"))
            }),
            // Children that could not be read have their own problems.
            Some(_) => {}
        },
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

fn is_empty_list(node: &Node) -> bool {
    matches!(&node.tree, Tree::List(items) if items.is_empty())
}

fn data_type(fields: &Fields<'_>, name: &str, problems: &mut Problems) -> Option<DataType> {
    let entry = fields.get(name)?;
    let Tree::Text(text) = &entry.node.tree else {
        problems.ask(|| fields.wrong_kind(entry, "the name of a type"));
        return None;
    };
    if let Ok(data_type) = text.parse() {
        return Some(data_type);
    }
    let known = OTHER_NAMES
        .iter()
        .find(|(other, _)| other.eq_ignore_ascii_case(text.trim()))
        .map(|(_, known)| *known);
    // Short names of types are close to one another, `clob` to `blob`; few slip at the first letter.
    let initial = text.trim().chars().next().map(|first| first.to_ascii_uppercase());
    let candidates =
        DataType::ALL.iter().map(|known| known.name()).filter(|name| name.chars().next() == initial);
    let close = known.or_else(|| problems.closest(text, candidates));
    problems.ask(|| {
        fields.problem(name, "unknown data type").at(entry.node.at).value(text).remedy(did_you_mean(
            close,
            "use one of OpenMetadata's, such as STRING, INT, DECIMAL or TIMESTAMP",
        ))
    });
    None
}

fn constraint(fields: &Fields<'_>, problems: &mut Problems) -> Option<Constraint> {
    const KNOWN: [(&str, Constraint); 4] = [
        ("PRIMARY_KEY", Constraint::PrimaryKey),
        ("NOT_NULL", Constraint::NotNull),
        ("UNIQUE", Constraint::Unique),
        ("NULL", Constraint::Null),
    ];
    let entry = fields.get("constraint")?;
    let Some(text) = entry.node.source_text() else {
        problems.ask(|| fields.wrong_kind(entry, "a text"));
        return None;
    };
    if text.trim().is_empty() {
        return None;
    }
    let known = KNOWN.iter().find(|(name, _)| name.eq_ignore_ascii_case(text.trim()));
    if known.is_none() {
        let close = problems.closest(&text, KNOWN.map(|(name, _)| name));
        problems.ask(|| {
            fields
                .problem("constraint", "unknown constraint")
                .at(entry.node.at)
                .value(&text)
                .remedy(did_you_mean(close, "use PRIMARY_KEY, NOT_NULL, UNIQUE or NULL"))
        });
    }
    known.map(|(_, constraint)| *constraint)
}

/// A whole number, also when it is written as a text.
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

/// Elements of `dataContract.schema`, readable or not.
fn schema_length(component: &Fields<'_>) -> usize {
    let schema =
        component.get("dataContract").and_then(|entry| Fields::of(&entry.node, "", entry.at)?.get("schema"));
    match schema.map(|entry| &entry.node.tree) {
        Some(Tree::List(columns)) => columns.len(),
        _ => 0,
    }
}

/// `sampleData` of a component. Columns take the spelling of the schema.
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
    // Where a column could not be read, a sample column may be that one.
    let complete = schema_length(component) == schema.len();
    let mut sample = SampleData::default();
    let mut seen = HashSet::new();
    for (path, node) in fields.list("columns", problems) {
        let Some(name) = node.source_text() else {
            problems.ask(|| {
                Problem::new(path, format!("the name of a column is a text, not {}", node.kind())).at(node.at)
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
                Problem::new(path.as_str(), "the column is there twice")
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
