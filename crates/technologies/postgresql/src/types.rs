//! Column types, in both directions.
//!
//! | OpenMetadata | PostgreSQL | back |
//! |---|---|---|
//! | BOOLEAN | boolean | BOOLEAN |
//! | TINYINT, BYTEINT, SMALLINT | smallint | SMALLINT |
//! | INT | integer | INT |
//! | BIGINT, LONG | bigint | BIGINT |
//! | FLOAT | real | FLOAT |
//! | DOUBLE | double precision | DOUBLE |
//! | NUMBER, NUMERIC, DECIMAL with precision p and scale s (0 when absent) | numeric(p,s) | DECIMAL, p, s |
//! | NUMBER, NUMERIC, DECIMAL without either | numeric | NUMERIC |
//! | CHAR with dataLength n | character(n) | CHAR, n |
//! | VARCHAR with dataLength n | character varying(n) | VARCHAR, n |
//! | STRING, TEXT, MEDIUMTEXT, and ENUM and SET with a note | text | TEXT |
//! | DATE | date | DATE |
//! | TIME | time without time zone | TIME |
//! | TIMESTAMP, DATETIME | timestamp without time zone | TIMESTAMP |
//! | TIMESTAMPZ | timestamp with time zone | TIMESTAMPZ |
//! | INTERVAL | interval | INTERVAL |
//! | UUID | uuid | UUID |
//! | BINARY, VARBINARY, BYTES, BLOB, MEDIUMBLOB, LONGBLOB | bytea, of any length | BYTES |
//! | JSON, VARIANT, STRUCT, MAP, UNION | jsonb | JSON |
//! | POINT, POLYGON | point, polygon | POINT, POLYGON |
//! | ARRAY of a simple type | that type, `[]` | ARRAY |
//! | ARRAY of STRUCT, MAP, UNION, JSON, VARIANT or ARRAY | jsonb | JSON |
//! | GEOMETRY, GEOGRAPHY | refused: they need an extension | |
//! | | json | JSON |
//! | | time with time zone | TIME |
//! | | an enum type | ENUM |
//! | | a domain | as its base type |
//! | | any other (money, inet, xml, ranges, ...) | STRING, and a warning in the log |
//!
//! Types that PostgreSQL cannot express (`TINYINT`, the fields of a STRUCT) are stored in the comment of the column,
//! with the type that they were declared for. So an import returns what was declared.

use serde_json::{Value, json};

use super::mark::{self, ColumnNote};
use landfall_adapter::descriptor::{Column, DataType, Object, Problem, type_keys};

/// The maximum declared length of a text in PostgreSQL.
const MAX_LENGTH: u32 = 10_485_760;

/// Returns the type of a column as `format_type` writes it. `None` after problems, which are added to
/// `problems` with paths below `place`.
pub(super) fn data_type(column: &Column, place: &str, problems: &mut Vec<Problem>) -> Option<String> {
    match column.data_type {
        DataType::Array => match column.array_data_type {
            Some(element) => simple(element, column, place, "arrayDataType", problems)
                .map(|element| if element == "jsonb" { element } else { format!("{element}[]") }),
            None => {
                problems.push(
                    Problem::new(format!("{place}.arrayDataType"), "an ARRAY needs the type of its elements")
                        .remedy("write `arrayDataType`"),
                );
                None
            }
        },
        simple_type => simple(simple_type, column, place, "dataType", problems),
    }
}

/// Returns a note if the type is stored as another one that does not check the values: ENUM and SET.
pub(super) fn note(column: &Column, table: &str) -> Option<String> {
    matches!(column.data_type, DataType::Enum | DataType::Set).then(|| {
        format!(
            "column `{}` of `{table}`: {} is stored as text, its values are not checked",
            column.name, column.data_type
        )
    })
}

fn simple(
    data_type: DataType,
    column: &Column,
    place: &str,
    key: &str,
    problems: &mut Vec<Problem>,
) -> Option<String> {
    let fixed = match data_type {
        DataType::Boolean => "boolean",
        DataType::TinyInt | DataType::ByteInt | DataType::SmallInt => "smallint",
        DataType::Int => "integer",
        DataType::BigInt | DataType::Long => "bigint",
        DataType::Float => "real",
        DataType::Double => "double precision",
        DataType::String | DataType::Text | DataType::MediumText | DataType::Enum | DataType::Set => "text",
        DataType::Date => "date",
        DataType::Time => "time without time zone",
        DataType::Timestamp | DataType::DateTime => "timestamp without time zone",
        DataType::TimestampZ => "timestamp with time zone",
        DataType::Interval => "interval",
        DataType::Uuid => "uuid",
        DataType::Binary
        | DataType::VarBinary
        | DataType::Bytes
        | DataType::Blob
        | DataType::MediumBlob
        | DataType::LongBlob => "bytea",
        DataType::Json
        | DataType::Variant
        | DataType::Struct
        | DataType::Map
        | DataType::Union
        | DataType::Array => "jsonb",
        DataType::Point => "point",
        DataType::Polygon => "polygon",
        DataType::Number | DataType::Numeric | DataType::Decimal => {
            return match (column.precision, column.scale) {
                (None, None) => Some("numeric".to_owned()),
                (precision, scale) => {
                    let (precision, scale) = (precision.unwrap_or(38), scale.unwrap_or(0));
                    if (1..=38).contains(&precision) && scale <= precision {
                        return Some(format!("numeric({precision},{scale})"));
                    }
                    problems.push(
                        Problem::new(
                            format!("{place}.{}", column.keys.of("precision")),
                            "not a precision and scale",
                        )
                        .value(format!("{precision}, {scale}"))
                        .remedy("write a precision of 1 to 38 and a scale of at most the precision"),
                    );
                    None
                }
            };
        }
        DataType::Char | DataType::VarChar => {
            let name = if data_type == DataType::Char { "character" } else { "character varying" };
            return match column.data_length {
                Some(length) if (1..=MAX_LENGTH).contains(&length) => Some(format!("{name}({length})")),
                length => {
                    let value = length.map_or_else(|| "none".to_owned(), |length| length.to_string());
                    problems.push(
                        Problem::new(
                            format!("{place}.{}", column.keys.of("dataLength")),
                            format!("not a length of {data_type}"),
                        )
                        .value(value)
                        .remedy(format!("write 1 to {MAX_LENGTH}, or use TEXT")),
                    );
                    None
                }
            };
        }
        DataType::Geography | DataType::Geometry => {
            problems.push(
                Problem::new(
                    format!("{place}.{}", column.keys.of(key)),
                    "PostgreSQL has no such type without an extension",
                )
                .value(data_type)
                .remedy("use POINT, POLYGON, JSON (GeoJSON) or TEXT (WKT)"),
            );
            return None;
        }
    };
    Some(fixed.to_owned())
}

/// The comment of a column: description, tags, and the declared type if PostgreSQL's type alone would give another
/// one.
pub(super) fn comment(column: &Column, made: &str) -> Option<String> {
    let declared = declared(column);
    let returns = describe(made, 'b').0 == declared;
    let note = ColumnNote {
        made: (!returns).then(|| made.to_owned()),
        declared: (!returns).then_some(declared),
        tags: mark::tags(&column.tags),
    };
    note.comment(&column.description)
}

/// The type keys of a column, as a data contract writes them.
fn declared(column: &Column) -> Object {
    let mut keys = type_keys(column);
    if !column.children.is_empty() {
        let children: Vec<Value> = column.children.iter().map(|child| Value::Object(whole(child))).collect();
        keys.insert("children".to_owned(), Value::Array(children));
    }
    keys
}

/// A child column, as a data contract writes it.
fn whole(column: &Column) -> Object {
    let mut keys = Object::new();
    keys.insert("name".to_owned(), json!(column.name));
    keys.extend(declared(column));
    if !column.description.is_empty() {
        keys.insert("description".to_owned(), json!(column.description));
    }
    if let Some(name) = column.constraint() {
        keys.insert("constraint".to_owned(), json!(name));
    }
    let tags = mark::tags(&column.tags);
    if !tags.is_empty() {
        keys.insert("tags".to_owned(), Value::Array(tags));
    }
    keys
}

/// A type of PostgreSQL as a data contract writes it, and whether that is exact. `made` is the result of
/// `format_type`, `kind` is `pg_type.typtype`.
pub(super) fn describe(made: &str, kind: char) -> (Object, bool) {
    let mut keys = Object::new();
    let mut put = |key: &str, value: Value| keys.insert(key.to_owned(), value);
    if let Some(element) = made.strip_suffix("[]") {
        let (mut inner, faithful) = describe(element, kind);
        put("dataType", json!(DataType::Array.name()));
        put("arrayDataType", inner.shift_remove("dataType").unwrap_or_default());
        keys.extend(inner);
        return (keys, faithful);
    }
    let (name, modifier) = match made.split_once('(') {
        Some((name, rest)) => (name, rest.trim_end_matches(')')),
        None => (made, ""),
    };
    let number = |text: &str| text.trim().parse::<u32>().ok();
    let data_type = match name {
        "boolean" => DataType::Boolean,
        "smallint" => DataType::SmallInt,
        "integer" => DataType::Int,
        "bigint" => DataType::BigInt,
        "real" => DataType::Float,
        "double precision" => DataType::Double,
        "text" => DataType::Text,
        "date" => DataType::Date,
        "interval" => DataType::Interval,
        "uuid" => DataType::Uuid,
        "bytea" => DataType::Bytes,
        "json" | "jsonb" => DataType::Json,
        "point" => DataType::Point,
        "polygon" => DataType::Polygon,
        // A type with a modifier, such as `timestamp(3) with time zone`, has the modifier in the middle.
        _ if made.starts_with("timestamp") && made.ends_with("with time zone") => DataType::TimestampZ,
        _ if made.starts_with("timestamp") => DataType::Timestamp,
        _ if made.starts_with("time") && made.contains("time zone") => DataType::Time,
        "numeric" => {
            if let Some((precision, scale)) = modifier.split_once(',') {
                put("dataType", json!(DataType::Decimal.name()));
                // A negative scale is valid in PostgreSQL, but not in a data contract.
                let (Some(precision), Some(scale)) = (number(precision), number(scale)) else {
                    put("dataType", json!(DataType::Numeric.name()));
                    return (keys, false);
                };
                put("precision", json!(precision));
                put("scale", json!(scale));
                return (keys, true);
            }
            DataType::Numeric
        }
        "character" | "character varying" => match number(modifier) {
            Some(length) => {
                let data_type = if name == "character" { DataType::Char } else { DataType::VarChar };
                put("dataType", json!(data_type.name()));
                put("dataLength", json!(length));
                return (keys, true);
            }
            None => DataType::Text,
        },
        _ if kind == 'e' => DataType::Enum,
        _ => {
            put("dataType", json!(DataType::String.name()));
            return (keys, false);
        }
    };
    put("dataType", json!(data_type.name()));
    (keys, true)
}

/// Whether a type holds every value of another one unchanged.
pub(super) fn widens(from: &str, to: &str) -> bool {
    if from == to {
        return true;
    }
    if let (Some(from), Some(to)) = (from.strip_suffix("[]"), to.strip_suffix("[]")) {
        return widens(from, to);
    }
    let digits = |integer: &str| match integer {
        "smallint" => Some(5),
        "integer" => Some(10),
        "bigint" => Some(19),
        _ => None,
    };
    let length = |text: &str, name: &str| -> Option<u32> {
        text.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')')?.parse().ok()
    };
    let decimal = |text: &str| -> Option<(u32, u32)> {
        let (precision, scale) = text.strip_prefix("numeric(")?.strip_suffix(')')?.split_once(',')?;
        Some((precision.parse().ok()?, scale.parse().ok()?))
    };
    if let Some(have) = digits(from) {
        return match (digits(to), decimal(to)) {
            (Some(want), _) => have < want,
            (_, Some((precision, scale))) => precision.saturating_sub(scale) >= have,
            _ => to == "numeric",
        };
    }
    if let Some((precision, scale)) = decimal(from) {
        return match decimal(to) {
            Some((wider, finer)) => {
                finer >= scale && wider.saturating_sub(finer) >= precision.saturating_sub(scale)
            }
            None => to == "numeric",
        };
    }
    if let Some(have) = length(from, "character varying") {
        return to == "text" || length(to, "character varying").is_some_and(|want| want >= have);
    }
    if let Some(have) = length(from, "character") {
        return length(to, "character").is_some_and(|want| want >= have);
    }
    matches!((from, to), ("real", "double precision"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_widens_only_where_every_value_stays() {
        for (from, to) in [
            ("smallint", "bigint"),
            ("integer", "numeric"),
            ("integer", "numeric(12,2)"),
            ("numeric(10,2)", "numeric(12,3)"),
            ("numeric(10,2)", "numeric"),
            ("character varying(3)", "character varying(4)"),
            ("character varying(3)", "text"),
            ("character(3)", "character(9)"),
            ("real", "double precision"),
            ("integer[]", "bigint[]"),
            ("text", "text"),
        ] {
            assert!(widens(from, to), "{from} -> {to}");
            assert!(from == to || !widens(to, from), "{to} -> {from}");
        }
        for (from, to) in [
            ("integer", "numeric(11,2)"),
            ("numeric(10,2)", "numeric(12,5)"),
            ("text", "integer"),
            ("integer", "text"),
            ("character(3)", "text"),
            ("timestamp without time zone", "timestamp with time zone"),
            ("bigint", "double precision"),
            ("integer", "bigint[]"),
        ] {
            assert!(!widens(from, to), "{from} -> {to}");
        }
    }
}
