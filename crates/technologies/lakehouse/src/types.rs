//! Column types, in both directions.
//!
//! | OpenMetadata | Iceberg | back |
//! |---|---|---|
//! | BOOLEAN | boolean | BOOLEAN |
//! | TINYINT, SMALLINT, BYTEINT, INT | int | INT |
//! | BIGINT, LONG | long | BIGINT |
//! | FLOAT | float | FLOAT |
//! | DOUBLE | double | DOUBLE |
//! | NUMBER, NUMERIC, DECIMAL with precision p and scale s (0 when absent) | decimal(p, s) | DECIMAL, p, s |
//! | NUMBER, NUMERIC, DECIMAL without precision | decimal(38, 9) | DECIMAL, 38, 9 |
//! | DATE | date | DATE |
//! | TIME | time | TIME |
//! | TIMESTAMP, DATETIME | timestamp | TIMESTAMP |
//! | TIMESTAMPZ | timestamptz | TIMESTAMPZ |
//! | STRING, TEXT, MEDIUMTEXT, CHAR, VARCHAR | string | STRING |
//! | JSON, ENUM, SET, INTERVAL | string, and a note says so | STRING |
//! | UUID | uuid | UUID |
//! | BINARY with dataLength n | fixed\[n\] | BINARY, n |
//! | BYTES, VARBINARY, BLOB, MEDIUMBLOB, LONGBLOB | binary | BYTES |
//! | ARRAY of arrayDataType | list, elements optional | ARRAY |
//! | STRUCT | struct | STRUCT |
//! | MAP, children: `key`, `value` | map | MAP |
//! | UNION, VARIANT, GEOGRAPHY, GEOMETRY, POINT, POLYGON | refused | |
//!
//! NOT_NULL and PRIMARY_KEY make a column required; primary keys are also the identifier fields of the table. UNIQUE
//! has no counterpart and is stored as a table property. So is every declared type that Iceberg cannot express
//! (`VARCHAR(20)`), so an import returns what was declared. `precision`, `scale`, `dataLength` and the `children` of
//! an ARRAY of STRUCT or MAP describe its elements. An ARRAY of ARRAY describes its element with one child.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use iceberg::spec::{
    ListType, MapType, NestedField, NestedFieldRef, PrimitiveType, Schema, StructType, Type,
};
use serde_json::{Value, json};

use landfall_adapter::descriptor::{Column, DataType, Object, Problem, names};
use landfall_adapter::error::{Error, Result};

/// The digits of a number without a declared precision.
const DEFAULT_DECIMAL: (u32, u32) = (38, 9);
/// Iceberg's maximum precision of a decimal.
const MAX_PRECISION: u32 = 38;
/// The maximum nesting of a contract; the limit of a descriptor is larger.
const MAX_DEPTH: usize = 16;

/// In a stored `dataType`: the Iceberg type that it was declared for. If the field has another type now, the
/// declaration no longer applies.
pub(super) const ICEBERG_TYPE: &str = "icebergType";

/// The schema of a data contract.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// The schema in Iceberg; field ids are provisional until the table is created.
    pub(super) schema: Schema,
    /// The columns by Iceberg path (`address.city`, `tags.element.key`).
    pub(super) columns: BTreeMap<String, Declared>,
    /// Notes for the user.
    pub(super) notes: Vec<String>,
}

/// A column of the contract behind an Iceberg field.
#[derive(Debug, Clone)]
pub(super) struct Declared {
    /// Path relative to the component.
    pub(super) path: String,
    /// The column; for the element of an ARRAY, the column of the ARRAY.
    pub(super) column: Column,
    /// The `dataType` with its parameters, if Iceberg's type alone would give another one.
    pub(super) data_type: Option<Value>,
}

/// Reads the columns of a contract.
pub(super) fn wanted(columns: &[Column]) -> Result<Wanted, Vec<Problem>> {
    let mut reading = Reading::default();
    if columns.is_empty() {
        reading.problems.push(
            Problem::new("dataContract.schema", "an Iceberg table needs at least one column")
                .remedy("describe the columns of the output port in `dataContract.schema`"),
        );
    }
    let fields = reading.fields(columns, "", "dataContract.schema", 0);
    if !reading.problems.is_empty() {
        return Err(reading.problems);
    }
    let schema = Schema::builder()
        .with_fields(fields)
        .with_identifier_field_ids(reading.identifiers)
        .build()
        .map_err(|e| {
            vec![Problem::new("dataContract.schema", format!("not a schema of Iceberg: {}", e.message()))]
        })?;
    Ok(Wanted { schema, columns: reading.declared, notes: reading.notes })
}

#[derive(Default)]
struct Reading {
    last_id: i32,
    identifiers: Vec<i32>,
    declared: BTreeMap<String, Declared>,
    notes: Vec<String>,
    problems: Vec<Problem>,
}

impl Reading {
    fn id(&mut self) -> i32 {
        self.last_id += 1;
        self.last_id
    }

    fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// The fields of a struct. `parent` is its Iceberg path, `path` the descriptor's list of its columns.
    fn fields(&mut self, columns: &[Column], parent: &str, path: &str, depth: usize) -> Vec<NestedFieldRef> {
        let mut fields = Vec::with_capacity(columns.len());
        let mut seen = BTreeSet::new();
        for (index, column) in columns.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let name = column.name.as_str();
            let fault = if name.trim().is_empty() {
                Some(("the column has no name", "name the column"))
            } else if name.contains('.') {
                Some((
                    "Iceberg cannot distinguish a column name with a dot from a nested column",
                    "use an underscore instead of the dot",
                ))
            } else if !seen.insert(name.to_lowercase()) {
                Some((
                    "the column name occurs twice; engines do not tell upper from lower case",
                    "rename one of the columns",
                ))
            } else {
                None
            };
            if let Some((message, remedy)) = fault {
                self.problem(Problem::new(format!("{path}.name"), message).value(name).remedy(remedy));
                continue;
            }
            if let Some(problem) = names::problem(format!("{path}.name"), name) {
                self.problem(problem);
                continue;
            }
            let own = if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") };
            let id = self.id();
            let Some(field_type) = self.column_type(column, &own, &path, depth) else { continue };
            if column.primary_key.is_some() {
                let usable = parent.is_empty() && field_type.is_primitive() && !field_type.is_floating_type();
                if usable {
                    self.identifiers.push(id);
                } else {
                    self.problem(
                        Problem::new(
                            format!("{path}.constraint"),
                            "a primary key is a top-level column of a simple type other than FLOAT and DOUBLE",
                        )
                        .value("PRIMARY_KEY")
                        .remedy("write `NOT_NULL`, or choose another key"),
                    );
                }
            }
            self.declare(&own, &path, column, &field_type);
            fields.push(Arc::new(field(id, name, field_type, column.required, &column.description)));
        }
        fields
    }

    fn declare(&mut self, iceberg_path: &str, path: &str, column: &Column, field_type: &Type) {
        let declared = type_keys(column);
        let mut observed = Column::of(DataType::String);
        let returns = describe_type(field_type, "", &mut observed, &|_, _, _| {}).is_ok()
            && type_keys(&observed) == declared;
        let data_type = (!returns).then(|| {
            let mut declared = declared;
            declared.insert(ICEBERG_TYPE.to_owned(), json!(readable(field_type)));
            Value::Object(declared)
        });
        self.declared.insert(
            iceberg_path.to_owned(),
            Declared { path: path.to_owned(), column: column.clone(), data_type },
        );
    }

    fn column_type(&mut self, column: &Column, own: &str, path: &str, depth: usize) -> Option<Type> {
        self.data_type(column.data_type, column, own, path, "dataType", depth)
    }

    /// The Iceberg type of `data_type`, with the lengths and children of `column`. `key` is the key of the column
    /// that declares it.
    fn data_type(
        &mut self,
        data_type: DataType,
        column: &Column,
        own: &str,
        path: &str,
        key: &str,
        depth: usize,
    ) -> Option<Type> {
        if depth > MAX_DEPTH {
            self.problem(Problem::new(path, format!("columns nest deeper than {MAX_DEPTH} levels")));
            return None;
        }
        let primitive = match data_type {
            DataType::Boolean => PrimitiveType::Boolean,
            DataType::TinyInt | DataType::SmallInt | DataType::ByteInt | DataType::Int => PrimitiveType::Int,
            DataType::BigInt | DataType::Long => PrimitiveType::Long,
            DataType::Float => PrimitiveType::Float,
            DataType::Double => PrimitiveType::Double,
            DataType::Number | DataType::Numeric | DataType::Decimal => self.decimal(column, path)?,
            DataType::Date => PrimitiveType::Date,
            DataType::Time => PrimitiveType::Time,
            DataType::Timestamp | DataType::DateTime => PrimitiveType::Timestamp,
            DataType::TimestampZ => PrimitiveType::Timestamptz,
            DataType::String | DataType::Text | DataType::MediumText | DataType::Char | DataType::VarChar => {
                PrimitiveType::String
            }
            DataType::Json | DataType::Enum | DataType::Set | DataType::Interval => {
                self.notes.push(format!("column `{own}`: {data_type} is stored as a string"));
                PrimitiveType::String
            }
            DataType::Uuid => PrimitiveType::Uuid,
            DataType::Binary => match column.data_length {
                Some(length) if length > 0 => PrimitiveType::Fixed(u64::from(length)),
                _ => {
                    self.problem(
                        Problem::new(
                            format!("{path}.dataLength"),
                            "BINARY needs a length of at least one byte",
                        )
                        .remedy("write `dataLength`, or use BYTES or VARBINARY"),
                    );
                    return None;
                }
            },
            DataType::Bytes
            | DataType::VarBinary
            | DataType::Blob
            | DataType::MediumBlob
            | DataType::LongBlob => PrimitiveType::Binary,
            DataType::Array => return self.list(column, own, path, key, depth),
            DataType::Struct => return self.structure(column, own, path, depth),
            DataType::Map => return self.map(column, own, path, depth),
            DataType::Union
            | DataType::Variant
            | DataType::Geography
            | DataType::Geometry
            | DataType::Point
            | DataType::Polygon => {
                self.problem(
                    Problem::new(format!("{path}.{key}"), "an Iceberg v2 table has no such type")
                        .value(data_type)
                        .remedy("use STRING, JSON or BYTES, or a STRUCT of simple columns"),
                );
                return None;
            }
        };
        Some(Type::Primitive(primitive))
    }

    fn decimal(&mut self, column: &Column, path: &str) -> Option<PrimitiveType> {
        let (precision, scale) = match (column.precision, column.scale) {
            (None, None) => DEFAULT_DECIMAL,
            (Some(precision), scale) => (precision, scale.unwrap_or(0)),
            (None, Some(scale)) => (MAX_PRECISION, scale),
        };
        let mut fault = |key: &str, value: u32, message: &str| {
            self.problem(
                Problem::new(format!("{path}.{key}"), message)
                    .value(value)
                    .remedy("write a precision of 1 to 38 and a scale of at most the precision"),
            );
            None
        };
        if !(1..=MAX_PRECISION).contains(&precision) {
            fault("precision", precision, "Iceberg decimals have 1 to 38 digits")
        } else if scale > precision {
            fault("scale", scale, "the scale is larger than the precision")
        } else {
            Some(PrimitiveType::Decimal { precision, scale })
        }
    }

    fn structure(&mut self, column: &Column, own: &str, path: &str, depth: usize) -> Option<Type> {
        if column.children.is_empty() {
            self.problem(
                Problem::new(format!("{path}.children"), "a STRUCT needs at least one column")
                    .remedy("list its columns in `children`"),
            );
            return None;
        }
        let before = self.problems.len();
        let fields = self.fields(&column.children, own, &format!("{path}.children"), depth + 1);
        (self.problems.len() == before).then(|| Type::Struct(StructType::new(fields)))
    }

    fn list(&mut self, column: &Column, own: &str, path: &str, key: &str, depth: usize) -> Option<Type> {
        // `arrayDataType: ARRAY` cannot describe the inner array, so one child does.
        let own = format!("{own}.element");
        let id = self.id();
        let element = match (column.array_data_type, column.children.as_slice()) {
            (Some(DataType::Array), [child]) => {
                let path = format!("{path}.children[0]");
                let element = self.column_type(child, &own, &path, depth + 1)?;
                self.declare(&own, &path, child, &element);
                element
            }
            (Some(DataType::Array), _) => {
                self.problem(
                    Problem::new(format!("{path}.children"), "an ARRAY of ARRAY needs one child")
                        .remedy("describe the inner ARRAY as the only entry of `children`"),
                );
                return None;
            }
            (Some(inner), _) => self.data_type(inner, column, &own, path, "arrayDataType", depth + 1)?,
            (None, _) => {
                let key = if key == "dataType" { "arrayDataType" } else { key };
                self.problem(
                    Problem::new(format!("{path}.{key}"), "an ARRAY needs the type of its elements")
                        .remedy("write `arrayDataType`"),
                );
                return None;
            }
        };
        Some(Type::List(ListType::new(Arc::new(NestedField::list_element(id, element, false)))))
    }

    fn map(&mut self, column: &Column, own: &str, path: &str, depth: usize) -> Option<Type> {
        let find = |name: &str| {
            column.children.iter().enumerate().find(|(_, child)| child.name.eq_ignore_ascii_case(name))
        };
        let (Some((key_at, key)), Some((value_at, value)), 2) =
            (find("key"), find("value"), column.children.len())
        else {
            self.problem(
                Problem::new(format!("{path}.children"), "a MAP has two children, `key` and `value`")
                    .value(format!("{} children", column.children.len()))
                    .remedy("describe both, and nothing else"),
            );
            return None;
        };
        let (key_id, value_id) = (self.id(), self.id());
        let (key_own, value_own) = (format!("{own}.key"), format!("{own}.value"));
        let (key_path, value_path) =
            (format!("{path}.children[{key_at}]"), format!("{path}.children[{value_at}]"));
        let key_type = self.column_type(key, &key_own, &key_path, depth + 1);
        let value_type = self.column_type(value, &value_own, &value_path, depth + 1);
        let (key_type, value_type) = (key_type?, value_type?);
        self.declare(&key_own, &key_path, key, &key_type);
        self.declare(&value_own, &value_path, value, &value_type);
        let required = value.required;
        let mut key_field = NestedField::map_key_element(key_id, key_type);
        let mut value_field = NestedField::map_value_element(value_id, value_type, required);
        key_field.doc = doc(&key.description);
        value_field.doc = doc(&value.description);
        Some(Type::Map(MapType::new(Arc::new(key_field), Arc::new(value_field))))
    }
}

fn field(id: i32, name: &str, field_type: Type, required: bool, description: &str) -> NestedField {
    let mut field = NestedField::new(id, name, field_type, required);
    field.doc = doc(description);
    field
}

fn doc(description: &str) -> Option<String> {
    (!description.is_empty()).then(|| description.to_owned())
}

/// The type keys of a column, without its children.
fn type_keys(column: &Column) -> Object {
    let mut keys = Object::new();
    keys.insert("dataType".to_owned(), json!(column.data_type.name()));
    if let Some(length) = column.data_length {
        keys.insert("dataLength".to_owned(), json!(length));
    }
    if let Some(precision) = column.precision {
        keys.insert("precision".to_owned(), json!(precision));
    }
    if let Some(scale) = column.scale {
        keys.insert("scale".to_owned(), json!(scale));
    }
    if let Some(inner) = column.array_data_type {
        keys.insert("arrayDataType".to_owned(), json!(inner.name()));
    }
    keys
}

/// Restores the keys that [`type_keys`] wrote, if they can be read.
pub(super) fn declared_type(column: &mut Column, keys: &Object) {
    let data_type = |key: &str| keys.get(key).and_then(Value::as_str)?.parse::<DataType>().ok();
    let number =
        |key: &str| keys.get(key).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
    let Some(own) = data_type("dataType") else { return };
    column.data_type = own;
    column.data_length = number("dataLength");
    column.precision = number("precision");
    column.scale = number("scale");
    column.array_data_type = data_type("arrayDataType");
}

/// A field as a column: its name, its type, and what `decorate` adds for its Iceberg path.
pub(super) fn describe(
    field: &NestedField,
    path: &str,
    decorate: &dyn Fn(&str, &NestedField, &mut Column),
) -> Result<Column> {
    let mut column = Column { name: field.name.clone(), ..Column::of(DataType::String) };
    describe_type(&field.field_type, path, &mut column, decorate)?;
    decorate(path, field, &mut column);
    Ok(column)
}

/// Sets the type of `column`, and its children.
fn describe_type(
    field_type: &Type,
    path: &str,
    column: &mut Column,
    decorate: &dyn Fn(&str, &NestedField, &mut Column),
) -> Result<()> {
    let child = |field: &NestedField| describe(field, &format!("{path}.{}", field.name), decorate);
    match field_type {
        Type::Primitive(primitive) => {
            column.data_type = match primitive {
                PrimitiveType::Boolean => DataType::Boolean,
                PrimitiveType::Int => DataType::Int,
                PrimitiveType::Long => DataType::BigInt,
                PrimitiveType::Float => DataType::Float,
                PrimitiveType::Double => DataType::Double,
                PrimitiveType::Decimal { .. } => DataType::Decimal,
                PrimitiveType::Date => DataType::Date,
                PrimitiveType::Time => DataType::Time,
                PrimitiveType::Timestamp => DataType::Timestamp,
                PrimitiveType::Timestamptz => DataType::TimestampZ,
                PrimitiveType::String => DataType::String,
                PrimitiveType::Uuid => DataType::Uuid,
                PrimitiveType::Fixed(_) => DataType::Binary,
                PrimitiveType::Binary => DataType::Bytes,
                PrimitiveType::TimestampNs | PrimitiveType::TimestamptzNs => {
                    return Err(Error::unsupported(format!(
                        "column `{path}` has the type `{primitive}` of Iceberg v3, which a data contract cannot express"
                    )));
                }
            };
            match primitive {
                PrimitiveType::Decimal { precision, scale } => {
                    column.precision = Some(*precision);
                    column.scale = Some(*scale);
                }
                PrimitiveType::Fixed(length) => column.data_length = u32::try_from(*length).ok(),
                _ => {}
            }
        }
        Type::Struct(structure) => {
            column.data_type = DataType::Struct;
            column.children = structure.fields().iter().map(|field| child(field)).collect::<Result<_>>()?;
        }
        Type::Map(map) => {
            column.data_type = DataType::Map;
            column.children = vec![child(&map.key_field)?, child(&map.value_field)?];
        }
        Type::List(list) => {
            let field = &list.element_field;
            column.data_type = DataType::Array;
            if matches!(*field.field_type, Type::List(_)) {
                column.array_data_type = Some(DataType::Array);
                column.children = vec![child(field)?];
            } else {
                let mut element = Column::of(DataType::String);
                describe_type(&field.field_type, &format!("{path}.{}", field.name), &mut element, decorate)?;
                column.array_data_type = Some(element.data_type);
                column.data_length = element.data_length;
                column.precision = element.precision;
                column.scale = element.scale;
                column.children = element.children;
            }
        }
    }
    Ok(())
}

/// A type as users write it: `decimal(38, 9)`, `list<string>`.
pub(super) fn readable(field_type: &Type) -> String {
    match field_type {
        Type::Primitive(primitive) => primitive.to_string(),
        Type::List(list) => format!("list<{}>", readable(&list.element_field.field_type)),
        Type::Map(map) => {
            format!("map<{}, {}>", readable(&map.key_field.field_type), readable(&map.value_field.field_type))
        }
        Type::Struct(structure) => {
            let fields: Vec<_> = structure
                .fields()
                .iter()
                .map(|field| format!("{}: {}", field.name, readable(&field.field_type)))
                .collect();
            format!("struct<{}>", fields.join(", "))
        }
    }
}

/// The fields directly inside a type, with the last step of their Iceberg paths.
pub(super) fn inner_fields(field_type: &Type) -> Vec<&NestedFieldRef> {
    match field_type {
        Type::Primitive(_) => Vec::new(),
        Type::Struct(structure) => structure.fields().iter().collect(),
        Type::List(list) => vec![&list.element_field],
        Type::Map(map) => vec![&map.key_field, &map.value_field],
    }
}
