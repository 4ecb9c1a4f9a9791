//! Sample rows: from the values in a descriptor to Arrow.
//!
//! A cell is read as its column's type or refused. Nothing is rounded, cut off or guessed:
//!
//! | column | accepted |
//! |---|---|
//! | boolean | true, false, also quoted |
//! | int, long | whole numbers in range, also quoted |
//! | float, double | numbers, also quoted |
//! | decimal | numbers with no more digits than the column has, quoted when they have more than 15 |
//! | date | `2024-02-29` |
//! | time | `23:59`, `23:59:59`, `23:59:59.123456` |
//! | timestamp | `2024-02-29T23:59:59` or with a space, `2024-02-29`; no zone |
//! | timestamptz | RFC 3339 with a zone: `2024-02-29T23:59:59+01:00` |
//! | string | text, numbers and booleans (as written); JSON columns take any value |
//! | uuid | `f79c3e09-677c-4bbd-a479-3f349cb785e7` |
//! | fixed, binary | hexadecimal digits after `0x` |
//! | list | a list |
//! | struct | a mapping of column names |
//! | map | a mapping, or a list of `{key, value}` |
//!
//! null and a missing column become null if the column is optional.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float32Array, Float64Array,
    Int32Array, Int64Array, LargeBinaryArray, ListArray, MapArray, RecordBatch, StringArray, StructArray,
    Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType as ArrowType, Field, Fields};
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Timelike};
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::spec::{NestedField, PrimitiveType, Schema, Type};
use serde_json::Value;

use super::types::Declared;
use landfall_adapter::descriptor::{Column, DataType, Problem, SampleData};
use landfall_adapter::error::{Error, Result};

/// The maximum number of reported problems, because a wrong type appears in every row.
const MAX_PROBLEMS: usize = 20;

/// A value of a column.
#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Null,
    Boolean(bool),
    Int(i32),
    Long(i64),
    Float(f32),
    Double(f64),
    Decimal(i128),
    String(String),
    Bytes(Vec<u8>),
    List(Vec<Cell>),
    Struct(Vec<Cell>),
    Map(Vec<(Cell, Cell)>),
}

/// Sample rows that fit a schema.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rows(Vec<Cell>);

impl Rows {
    /// The number of rows.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Reads sample rows for `schema`; `declared` has the columns of the contract.
pub(super) fn read(
    sample: &SampleData,
    schema: &Schema,
    declared: &BTreeMap<String, Declared>,
) -> Result<Rows, Vec<Problem>> {
    let mut reading = Reading { declared, problems: Vec::new() };
    let fields = schema.as_struct().fields();
    let mut seen = BTreeSet::new();
    for (index, name) in sample.columns.iter().enumerate() {
        let path = format!("sampleData.columns[{index}]");
        if !seen.insert(name) {
            reading.problem(Problem::new(path, "the column occurs twice in the sample data").value(name));
        } else if schema.as_struct().field_by_name(name).is_none() {
            let names: Vec<_> = fields.iter().map(|field| format!("`{}`", field.name)).collect();
            reading.problem(
                Problem::new(path, "the data contract has no such column")
                    .value(name)
                    .remedy(format!("use the columns of `dataContract.schema`: {}", names.join(", "))),
            );
        }
    }
    // The position of each column's cell in a row.
    let places: Vec<Option<usize>> =
        fields.iter().map(|field| sample.columns.iter().position(|name| *name == field.name)).collect();
    let mut rows = Vec::with_capacity(sample.rows.len());
    for (index, row) in sample.rows.iter().enumerate() {
        if reading.problems.len() >= MAX_PROBLEMS {
            break;
        }
        let path = format!("sampleData.rows[{index}]");
        if row.len() != sample.columns.len() {
            reading.problem(
                Problem::new(
                    &path,
                    format!("the row has {} cells for {} columns", row.len(), sample.columns.len()),
                )
                .remedy("write one cell for each entry of `sampleData.columns`"),
            );
            continue;
        }
        let cells = fields
            .iter()
            .zip(&places)
            .map(|(field, place)| {
                let value = place.and_then(|place| row.get(place)).unwrap_or(&Value::Null);
                let path = place.map_or_else(|| path.clone(), |place| format!("{path}[{place}]"));
                reading.cell(value, field, &field.name, &path)
            })
            .collect();
        rows.push(Cell::Struct(cells));
    }
    reading.problems.truncate(MAX_PROBLEMS);
    if reading.problems.is_empty() { Ok(Rows(rows)) } else { Err(reading.problems) }
}

struct Reading<'a> {
    declared: &'a BTreeMap<String, Declared>,
    problems: Vec<Problem>,
}

impl Reading<'_> {
    fn problem(&mut self, problem: Problem) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        }
    }

    /// Reads a cell; a wrong value adds a problem. `column` is the Iceberg path, `path` the path in the
    /// descriptor.
    fn cell(&mut self, value: &Value, field: &NestedField, column: &str, path: &str) -> Cell {
        if value.is_null() {
            if field.required {
                self.problem(
                    Problem::new(path, format!("column `{column}` is required and has no value here"))
                        .remedy("write a value, or drop the constraint"),
                );
            }
            return Cell::Null;
        }
        let declared = self.declared.get(column).map(|declared| &declared.column);
        let read = match field.field_type.as_ref() {
            Type::Primitive(primitive) => primitive_cell(value, primitive, declared),
            Type::List(list) => match value {
                Value::Array(values) => {
                    let inner = format!("{column}.{}", list.element_field.name);
                    Ok(Cell::List(
                        values
                            .iter()
                            .enumerate()
                            .map(|(i, value)| {
                                self.cell(value, &list.element_field, &inner, &format!("{path}[{i}]"))
                            })
                            .collect(),
                    ))
                }
                _ => Err("a list".to_owned()),
            },
            Type::Struct(structure) => match value {
                Value::Object(object) => {
                    for key in object.keys().filter(|key| structure.field_by_name(key).is_none()) {
                        self.problem(
                            Problem::new(
                                format!("{path}.{key}"),
                                format!("column `{column}` has no such child"),
                            )
                            .value(key),
                        );
                    }
                    Ok(Cell::Struct(
                        structure
                            .fields()
                            .iter()
                            .map(|field| {
                                let value = object.get(&field.name).unwrap_or(&Value::Null);
                                let inner = format!("{column}.{}", field.name);
                                self.cell(value, field, &inner, &format!("{path}.{}", field.name))
                            })
                            .collect(),
                    ))
                }
                _ => Err("a mapping".to_owned()),
            },
            Type::Map(map) => {
                let (key_path, value_path) = (format!("{column}.key"), format!("{column}.value"));
                let mut pair = |key: &Value, value: &Value, path: &str| {
                    let key = self.cell(key, &map.key_field, &key_path, path);
                    (key, self.cell(value, &map.value_field, &value_path, path))
                };
                match value {
                    Value::Object(object) => Ok(Cell::Map(
                        object
                            .iter()
                            .map(|(key, value)| {
                                pair(&Value::String(key.clone()), value, &format!("{path}.{key}"))
                            })
                            .collect(),
                    )),
                    Value::Array(entries) => Ok(Cell::Map(
                        entries
                            .iter()
                            .enumerate()
                            .map(|(i, entry)| {
                                let part = |name| entry.get(name).unwrap_or(&Value::Null);
                                pair(part("key"), part("value"), &format!("{path}[{i}]"))
                            })
                            .collect(),
                    )),
                    _ => Err("a mapping, or a list of `key` and `value`".to_owned()),
                }
            }
        };
        read.unwrap_or_else(|expected| {
            self.problem(
                Problem::new(path, format!("the cell does not fit column `{column}`"))
                    .value(value)
                    .remedy(format!("write {expected}")),
            );
            Cell::Null
        })
    }
}

/// Returns the value of a cell, or the expected form as text.
fn primitive_cell(value: &Value, primitive: &PrimitiveType, column: Option<&Column>) -> Result<Cell, String> {
    let data_type = column.map(|column| column.data_type);
    // Numbers may be quoted, and text may look like a number.
    let text = match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    };
    let trimmed = text.as_deref().map(str::trim);
    let no_boolean = trimmed.filter(|_| !value.is_boolean());
    let or = |cell: Option<Cell>, expected: &str| cell.ok_or_else(|| expected.to_owned());
    match primitive {
        PrimitiveType::Boolean => or(
            match trimmed.map(str::to_ascii_lowercase).as_deref() {
                Some("true") => Some(Cell::Boolean(true)),
                Some("false") => Some(Cell::Boolean(false)),
                _ => None,
            },
            "true or false",
        ),
        PrimitiveType::Int => or(
            no_boolean.and_then(whole).and_then(|n| n.try_into().ok()).map(Cell::Int),
            "a whole number of at most 32 bits",
        ),
        PrimitiveType::Long => or(
            no_boolean.and_then(whole).and_then(|n| n.try_into().ok()).map(Cell::Long),
            "a whole number of at most 64 bits",
        ),
        PrimitiveType::Float => or(
            no_boolean
                .and_then(|text| text.parse().ok())
                .filter(|number: &f32| number.is_finite())
                .map(Cell::Float),
            "a number",
        ),
        PrimitiveType::Double => or(
            no_boolean
                .and_then(|text| text.parse().ok())
                .filter(|number: &f64| number.is_finite())
                .map(Cell::Double),
            "a number",
        ),
        PrimitiveType::Decimal { .. } if already_rounded(value) => {
            Err("the number in quotes: without them, YAML readers keep 15 digits".to_owned())
        }
        PrimitiveType::Decimal { precision, scale } => no_boolean
            .and_then(|text| decimal(text, *precision, *scale))
            .map(Cell::Decimal)
            .ok_or_else(|| {
                format!(
                    "a number with at most {} digits before and {scale} after the point",
                    precision.saturating_sub(*scale)
                )
            }),
        PrimitiveType::Date => or(
            trimmed
                .and_then(|text| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok())
                .and_then(days)
                .map(Cell::Int),
            "a date such as `2024-02-29`",
        ),
        PrimitiveType::Time => {
            or(trimmed.and_then(time).map(Cell::Long), "a time such as `23:59:59` or `23:59:59.123456`")
        }
        PrimitiveType::Timestamp => or(
            trimmed.and_then(timestamp).map(Cell::Long),
            "a timestamp without a zone such as `2024-02-29T23:59:59`",
        ),
        PrimitiveType::Timestamptz => or(
            trimmed
                .and_then(|text| DateTime::parse_from_rfc3339(text).ok())
                .and_then(|moment| microseconds(moment.naive_utc()))
                .map(Cell::Long),
            "a timestamp with a zone such as `2024-02-29T23:59:59+01:00`",
        ),
        PrimitiveType::String if data_type == Some(DataType::Json) => Ok(Cell::String(match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })),
        PrimitiveType::String => {
            let longest = column
                .filter(|column| matches!(column.data_type, DataType::Char | DataType::VarChar))
                .and_then(|column| column.data_length);
            match (text, longest) {
                (Some(text), Some(longest)) if text.chars().count() > longest as usize => {
                    Err(format!("at most {longest} characters"))
                }
                (Some(text), _) => Ok(Cell::String(text)),
                (None, _) => Err("a text".to_owned()),
            }
        }
        PrimitiveType::Uuid => or(
            trimmed
                .and_then(|text| uuid::Uuid::parse_str(text).ok())
                .map(|uuid| Cell::Bytes(uuid.as_bytes().to_vec())),
            "a UUID such as `f79c3e09-677c-4bbd-a479-3f349cb785e7`",
        ),
        PrimitiveType::Fixed(length) => trimmed
            .and_then(hexadecimal)
            .filter(|bytes| bytes.len() as u64 == *length)
            .map(Cell::Bytes)
            .ok_or_else(|| format!("{length} bytes in hexadecimal such as `0xCAFE`")),
        PrimitiveType::Binary => {
            let longest =
                column.filter(|column| column.data_type == DataType::VarBinary).and_then(|c| c.data_length);
            match (trimmed.and_then(hexadecimal), longest) {
                (Some(bytes), Some(longest)) if bytes.len() > longest as usize => {
                    Err(format!("at most {longest} bytes"))
                }
                (Some(bytes), _) => Ok(Cell::Bytes(bytes)),
                (None, _) => Err("bytes in hexadecimal such as `0xCAFE`".to_owned()),
            }
        }
        PrimitiveType::TimestampNs | PrimitiveType::TimestamptzNs => {
            Err("nothing: the type is not supported".to_owned())
        }
    }
}

/// Whether an unquoted number may have lost digits when the descriptor was parsed.
fn already_rounded(value: &Value) -> bool {
    let Value::Number(number) = value else { return false };
    let digits = number.to_string().bytes().filter(u8::is_ascii_digit).count();
    number.is_f64() && (digits > 15 || number.as_f64().is_some_and(|number| number.abs() >= 1e15))
}

/// Parses a whole number, also in the forms `12.0` and `1e3`.
fn whole(text: &str) -> Option<i128> {
    decimal(text, 38, 0)
}

/// A decimal number as its unscaled value, only if it is exact.
fn decimal(text: &str, precision: u32, scale: u32) -> Option<i128> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty()
        || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit())
    {
        return None;
    }
    let significant = format!("{whole}{fraction}");
    let significant = significant.trim_start_matches('0');
    // The value is `significant * 10^shift` in units of the last stored digit.
    let shift = i64::from(exponent) - i64::try_from(fraction.len()).ok()? + i64::from(scale);
    let unscaled = if significant.is_empty() {
        String::new()
    } else if shift >= 0 {
        let zeros = usize::try_from(shift).ok().filter(|zeros| *zeros <= 38)?;
        format!("{significant}{}", "0".repeat(zeros))
    } else {
        let cut = usize::try_from(-shift).ok()?;
        let kept = significant.len().checked_sub(cut)?;
        let (kept, lost) = significant.split_at_checked(kept)?;
        if lost.bytes().any(|b| b != b'0') {
            return None;
        }
        kept.to_owned()
    };
    if unscaled.len() > precision as usize {
        return None;
    }
    let value = if unscaled.is_empty() { 0 } else { unscaled.parse::<i128>().ok()? };
    Some(if negative { -value } else { value })
}

fn days(date: NaiveDate) -> Option<i32> {
    i32::try_from(date.signed_duration_since(NaiveDate::default()).num_days()).ok()
}

fn time(text: &str) -> Option<i64> {
    let time =
        ["%H:%M:%S%.f", "%H:%M"].iter().find_map(|format| NaiveTime::parse_from_str(text, format).ok())?;
    // More precise values than microseconds would be cut off.
    let exact = time.nanosecond().is_multiple_of(1000) && time.nanosecond() < 1_000_000_000;
    exact.then(|| {
        i64::from(time.num_seconds_from_midnight()) * 1_000_000 + i64::from(time.nanosecond() / 1000)
    })
}

fn timestamp(text: &str) -> Option<i64> {
    ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
        .or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0))
        .and_then(microseconds)
}

fn microseconds(moment: NaiveDateTime) -> Option<i64> {
    let exact = moment.nanosecond().is_multiple_of(1000) && moment.nanosecond() < 1_000_000_000;
    exact.then(|| moment.and_utc().timestamp_micros())
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))?.as_bytes();
    if digits.len() % 2 != 0 {
        return None;
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    digits
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        })
        .collect()
}

/// The rows as one Arrow batch of `schema`, with field ids.
pub(super) fn batch(rows: &Rows, schema: &Schema) -> Result<RecordBatch> {
    let arrow = schema_to_arrow_schema(schema).map_err(|e| unbuildable(e.message().to_owned()))?;
    let cells: Vec<&Cell> = rows.0.iter().collect();
    let columns = struct_columns(&cells, arrow.fields())?;
    RecordBatch::try_new(Arc::new(arrow), columns).map_err(|e| unbuildable(e.to_string()))
}

/// Checks that a batch can be made of the rows, before anything is changed.
pub(super) fn writable(rows: Rows, schema: &Schema) -> Result<Rows, Vec<Problem>> {
    match batch(&rows, schema) {
        Ok(_) => Ok(rows),
        Err(error) => Err(vec![
            Problem::new("sampleData", error.report())
                .remedy("correct the rows, or leave `loadSampleData` out"),
        ]),
    }
}

fn unbuildable(cause: String) -> Error {
    Error::permanent("the sample rows cannot be written as a batch").because(cause)
}

fn struct_columns(cells: &[&Cell], fields: &Fields) -> Result<Vec<ArrayRef>> {
    fields
        .iter()
        .enumerate()
        .map(|(index, field)| {
            let column: Vec<&Cell> = cells
                .iter()
                .map(|cell| match cell {
                    Cell::Struct(parts) => parts.get(index).unwrap_or(&Cell::Null),
                    _ => &Cell::Null,
                })
                .collect();
            array(&column, field)
        })
        .collect()
}

/// Selects the values of one kind; all others are null.
macro_rules! values {
    ($cells:expr, $kind:ident) => {
        $cells.iter().map(|cell| if let Cell::$kind(value) = cell { Some(value.clone()) } else { None })
    };
}

fn array(cells: &[&Cell], field: &Field) -> Result<ArrayRef> {
    let present = || NullBuffer::from_iter(cells.iter().map(|cell| **cell != Cell::Null));
    let arrow = |e: arrow_schema::ArrowError| unbuildable(e.to_string());
    Ok(match field.data_type() {
        ArrowType::Boolean => Arc::new(BooleanArray::from_iter(values!(cells, Boolean))),
        ArrowType::Int32 => Arc::new(Int32Array::from_iter(values!(cells, Int))),
        ArrowType::Int64 => Arc::new(Int64Array::from_iter(values!(cells, Long))),
        ArrowType::Float32 => Arc::new(Float32Array::from_iter(values!(cells, Float))),
        ArrowType::Float64 => Arc::new(Float64Array::from_iter(values!(cells, Double))),
        ArrowType::Decimal128(precision, scale) => Arc::new(
            Decimal128Array::from_iter(values!(cells, Decimal))
                .with_precision_and_scale(*precision, *scale)
                .map_err(arrow)?,
        ),
        ArrowType::Date32 => Arc::new(Date32Array::from_iter(values!(cells, Int))),
        ArrowType::Time64(_) => Arc::new(Time64MicrosecondArray::from_iter(values!(cells, Long))),
        ArrowType::Timestamp(_, zone) => Arc::new(
            TimestampMicrosecondArray::from_iter(values!(cells, Long)).with_timezone_opt(zone.clone()),
        ),
        ArrowType::Utf8 => Arc::new(StringArray::from_iter(values!(cells, String))),
        ArrowType::LargeBinary => Arc::new(LargeBinaryArray::from_iter(values!(cells, Bytes))),
        ArrowType::FixedSizeBinary(size) => Arc::new(
            FixedSizeBinaryArray::try_from_sparse_iter_with_size(values!(cells, Bytes), *size)
                .map_err(arrow)?,
        ),
        ArrowType::Struct(fields) => Arc::new(
            StructArray::try_new_with_length(
                fields.clone(),
                struct_columns(cells, fields)?,
                Some(present()),
                cells.len(),
            )
            .map_err(arrow)?,
        ),
        ArrowType::List(element) => {
            let lists: Vec<&[Cell]> = cells
                .iter()
                .map(|cell| if let Cell::List(list) = cell { list.as_slice() } else { &[] })
                .collect();
            let elements: Vec<&Cell> = lists.iter().flat_map(|list| list.iter()).collect();
            let offsets = OffsetBuffer::from_lengths(lists.iter().map(|list| list.len()));
            let values = array(&elements, element)?;
            Arc::new(
                ListArray::try_new(Arc::clone(element), offsets, values, Some(present())).map_err(arrow)?,
            )
        }
        ArrowType::Map(entries, sorted) => {
            let maps: Vec<&[(Cell, Cell)]> = cells
                .iter()
                .map(|cell| if let Cell::Map(map) = cell { map.as_slice() } else { &[] })
                .collect();
            let pairs: Vec<Cell> = maps
                .iter()
                .flat_map(|map| map.iter())
                .map(|(key, value)| Cell::Struct(vec![key.clone(), value.clone()]))
                .collect();
            let offsets = OffsetBuffer::from_lengths(maps.iter().map(|map| map.len()));
            let ArrowType::Struct(fields) = entries.data_type() else {
                return Err(unbuildable("a map whose entries are no struct".to_owned()));
            };
            let columns = struct_columns(&pairs.iter().collect::<Vec<_>>(), fields)?;
            let structure = StructArray::try_new_with_length(fields.clone(), columns, None, pairs.len())
                .map_err(arrow)?;
            Arc::new(
                MapArray::try_new(Arc::clone(entries), offsets, structure, Some(present()), *sorted)
                    .map_err(arrow)?,
            )
        }
        other => return Err(unbuildable(format!("no array of {other}"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_or_refused() {
        for (text, precision, scale, expected) in [
            ("10000", 38, 9, Some(10_000_000_000_000)),
            ("0.1", 38, 9, Some(100_000_000)),
            ("-1.5", 3, 2, Some(-150)),
            ("+1", 3, 2, Some(100)),
            (".5", 3, 2, Some(50)),
            ("5.", 3, 2, Some(500)),
            ("1.500", 3, 2, Some(150)),
            ("1.505", 3, 2, None),
            ("10", 3, 2, None),
            ("1e2", 5, 2, Some(10_000)),
            ("1E-2", 5, 2, Some(1)),
            ("1e-3", 5, 2, None),
            ("0e999999999", 5, 2, Some(0)),
            ("1e999999999", 5, 2, None),
            ("1e-999999999", 5, 2, None),
            ("-0", 5, 2, Some(0)),
            ("", 5, 2, None),
            (".", 5, 2, None),
            ("-", 5, 2, None),
            ("1,5", 5, 2, None),
            ("NaN", 5, 2, None),
            ("99999999999999999999999999999999999999", 38, 0, Some(10i128.pow(38) - 1)),
            ("100000000000000000000000000000000000000", 38, 0, None),
        ] {
            assert_eq!(decimal(text, precision, scale), expected, "{text}");
        }
    }

    #[test]
    fn timestamps_and_times_are_parsed() {
        assert_eq!(timestamp("1970-01-02"), Some(86_400_000_000));
        assert_eq!(timestamp("1970-01-01T00:00:01.000001"), Some(1_000_001));
        assert_eq!(timestamp("1970-01-01 00:00:01"), Some(1_000_000));
        assert_eq!(timestamp("1970-01-01T00:00:00.0000001"), None);
        assert_eq!(timestamp("1970-01-01T00:00:00Z"), None);
        assert_eq!(time("00:00:01.5"), Some(1_500_000));
        assert_eq!(time("24:00"), None);
        assert_eq!(days(NaiveDate::from_ymd_opt(1969, 12, 31).unwrap()), Some(-1));
        assert_eq!(hexadecimal("0xCAfe"), Some(vec![0xca, 0xfe]));
        assert_eq!(hexadecimal("CAFE"), None);
        assert_eq!(hexadecimal("0xC"), None);
    }
}
