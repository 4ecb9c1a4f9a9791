//! Names of types: OpenMetadata's own, and those that people copy from their databases.
//!
//! A data contract may name a type as ODCS, Snowflake, BigQuery, Databricks, PostgreSQL or JDBC write it, arguments and
//! all: `varchar(20)`, `decimal(12,2)`, `timestamp_ntz`, `ARRAY<STRUCT<sku: STRING>>`, `text[]`. Each name means one type
//! of [`DataType`], whatever technology provisions it; a name that has no equal there is refused with what to use
//! instead. Where two dialects disagree about a name, OpenMetadata decides, then PostgreSQL: `int8` has eight bytes.

use super::DataType;

/// Longest text of a type that is read, in bytes.
const MAX_LENGTH: usize = 10_000;
/// Levels of `ARRAY<...>` and `STRUCT<...>` in one text.
const MAX_DEPTH: usize = 16;
/// Digits of a decimal.
pub(super) const MAX_PRECISION: u32 = 38;

/// Other names of types, in lower case, in the order of the documentation.
pub(super) const ALIASES: &[(&str, DataType)] = &[
    ("bool", DataType::Boolean),
    ("bit", DataType::Boolean),
    ("byte", DataType::TinyInt),
    ("int1", DataType::TinyInt),
    ("int2", DataType::SmallInt),
    ("int16", DataType::SmallInt),
    ("short", DataType::SmallInt),
    ("smallserial", DataType::SmallInt),
    ("integer", DataType::Int),
    ("int4", DataType::Int),
    ("int32", DataType::Int),
    ("mediumint", DataType::Int),
    ("serial", DataType::Int),
    ("int8", DataType::BigInt),
    ("int64", DataType::BigInt),
    ("bigserial", DataType::BigInt),
    ("float4", DataType::Float),
    ("float32", DataType::Float),
    ("real", DataType::Float),
    ("float8", DataType::Double),
    ("float64", DataType::Double),
    ("double precision", DataType::Double),
    ("dec", DataType::Decimal),
    ("str", DataType::String),
    ("varchar2", DataType::VarChar),
    ("nvarchar", DataType::VarChar),
    ("nvarchar2", DataType::VarChar),
    ("character varying", DataType::VarChar),
    ("char varying", DataType::VarChar),
    ("national character varying", DataType::VarChar),
    ("character", DataType::Char),
    ("bpchar", DataType::Char),
    ("nchar", DataType::Char),
    ("national character", DataType::Char),
    ("clob", DataType::Text),
    ("nclob", DataType::Text),
    ("character large object", DataType::Text),
    ("tinytext", DataType::Text),
    ("longtext", DataType::Text),
    ("ntext", DataType::Text),
    ("longvarchar", DataType::Text),
    ("longnvarchar", DataType::Text),
    ("citext", DataType::Text),
    ("timestamp_ntz", DataType::Timestamp),
    ("timestampntz", DataType::Timestamp),
    ("timestamp without time zone", DataType::Timestamp),
    ("datetime2", DataType::DateTime),
    ("smalldatetime", DataType::DateTime),
    ("timestamptz", DataType::TimestampZ),
    ("timestamp_tz", DataType::TimestampZ),
    ("timestamp_ltz", DataType::TimestampZ),
    ("timestampltz", DataType::TimestampZ),
    ("timestamp with time zone", DataType::TimestampZ),
    ("timestamp with local time zone", DataType::TimestampZ),
    ("timestamp_with_timezone", DataType::TimestampZ),
    ("datetimeoffset", DataType::TimestampZ),
    ("time without time zone", DataType::Time),
    ("date32", DataType::Date),
    ("interval year to month", DataType::Interval),
    ("interval day to second", DataType::Interval),
    ("uniqueidentifier", DataType::Uuid),
    ("guid", DataType::Uuid),
    ("bytea", DataType::Bytes),
    ("raw", DataType::Bytes),
    ("longvarbinary", DataType::Bytes),
    ("image", DataType::Bytes),
    ("binary varying", DataType::VarBinary),
    ("binary large object", DataType::Blob),
    ("tinyblob", DataType::Blob),
    ("jsonb", DataType::Json),
    ("list", DataType::Array),
    ("object", DataType::Struct),
    ("record", DataType::Struct),
    ("row", DataType::Struct),
];

/// Names of real types that nothing here means the same as, and what to write instead.
const WITHOUT_EQUAL: &[(&str, &str)] = &[
    ("any", "use VARIANT or JSON"),
    ("bigdecimal", "use DECIMAL with a precision of at most 38"),
    ("bignumeric", "use DECIMAL with a precision of at most 38"),
    ("cidr", "use STRING"),
    ("hstore", "use MAP or JSON"),
    ("inet", "use STRING"),
    ("macaddr", "use STRING"),
    ("money", "use DECIMAL with precision 19 and scale 4"),
    ("null", "name the type of its values"),
    ("rowid", "use STRING"),
    ("smallmoney", "use DECIMAL with precision 10 and scale 4"),
    ("sql_variant", "use VARIANT"),
    ("time with time zone", "use TIME, without the zone, or STRING"),
    ("timetz", "use TIME, without the zone, or STRING"),
    ("time_with_timezone", "use TIME, without the zone, or STRING"),
    ("uint8", "use SMALLINT"),
    ("uint16", "use INT"),
    ("uint32", "use BIGINT"),
    ("uint64", "use DECIMAL with precision 20 and scale 0"),
    ("void", "name the type of its values"),
    ("xml", "use STRING"),
    ("year", "use SMALLINT"),
];

/// A type as its text says it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Named {
    pub(super) data_type: DataType,
    /// In characters or bytes, where the text has one.
    pub(super) length: Option<u32>,
    pub(super) precision: Option<u32>,
    pub(super) scale: Option<u32>,
    /// Of an ARRAY, where the text has it.
    pub(super) element: Option<Box<Named>>,
    /// Of a STRUCT, or `key` and `value` of a MAP, where the text has them.
    pub(super) fields: Vec<(String, Named)>,
}

/// Why a text is not the name of a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnknownType {
    pub(super) message: &'static str,
    pub(super) remedy: String,
}

impl Named {
    pub(super) fn of(data_type: DataType) -> Self {
        Self { data_type, length: None, precision: None, scale: None, element: None, fields: Vec::new() }
    }
}

/// Reads the text of a type.
pub(super) fn parse(text: &str) -> Result<Named, UnknownType> {
    if text.len() > MAX_LENGTH {
        return Err(unknown("the type is too long", "describe it with nested columns"));
    }
    let mut reader = Reader { rest: text.trim_start(), depth: 0 };
    let named = reader.data_type()?;
    reader.skip_blanks();
    if reader.rest.is_empty() { Ok(named) } else { Err(shape()) }
}

fn unknown(message: &'static str, remedy: impl Into<String>) -> UnknownType {
    UnknownType { message, remedy: remedy.into() }
}

fn shape() -> UnknownType {
    unknown("unknown data type", "write the name of one type, such as STRING, DECIMAL(12,2) or ARRAY<STRING>")
}

/// The type of a name, without regard to case.
fn by_name(name: &str) -> Option<DataType> {
    let alias = || ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, data_type)| *data_type);
    name.parse().ok().or_else(alias)
}

/// What to do about a name that nothing is called.
fn no_such(name: &str) -> UnknownType {
    if let Some((_, remedy)) = WITHOUT_EQUAL.iter().find(|(other, _)| *other == name) {
        return unknown("this type has no equal here", *remedy);
    }
    match closest(name) {
        Some(close) => unknown("unknown data type", format!("did you mean `{close}`?")),
        None => unknown(
            "unknown data type",
            "use one of OpenMetadata's, such as STRING, INT, DECIMAL or TIMESTAMP, or a name of the documented table",
        ),
    }
}

/// The type that was probably meant: one letter away or, of a long name, two; and only when everything as close means
/// the same. A guess that means something else is worse than none.
fn closest(name: &str) -> Option<&'static str> {
    let length = name.chars().count();
    if !(3..=40).contains(&length) {
        return None;
    }
    let allowed = if length > 6 { 2 } else { 1 };
    let names = DataType::ALL.iter().map(|data_type| (data_type.name(), *data_type));
    let distances: Vec<(usize, &'static str, DataType)> = names
        .chain(ALIASES.iter().copied())
        .map(|(known, data_type)| (strsim::osa_distance(name, &known.to_lowercase()), known, data_type))
        .filter(|(distance, ..)| *distance <= allowed)
        .collect();
    let least = distances.iter().map(|(distance, ..)| *distance).min()?;
    let mut nearest = distances.iter().filter(|(distance, ..)| *distance == least);
    let (_, known, data_type) = nearest.next()?;
    nearest.all(|(_, _, other)| other == data_type).then_some(known)
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, expected: char) -> bool {
        self.skip_blanks();
        match self.rest.strip_prefix(expected) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn peek(&mut self) -> Option<char> {
        self.skip_blanks();
        self.rest.chars().next()
    }

    /// Letters, digits and underscores.
    fn word(&mut self) -> Option<&'a str> {
        self.skip_blanks();
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        (!word.is_empty()).then_some(word)
    }

    /// Words up to the next sign, in lower case, with one blank between them.
    fn words(&mut self) -> String {
        let mut words = String::new();
        while let Some(word) = self.word() {
            if !words.is_empty() {
                words.push(' ');
            }
            words.push_str(&word.to_lowercase());
        }
        words
    }

    fn data_type(&mut self) -> Result<Named, UnknownType> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(unknown("the type nests too deeply", "describe it with nested columns"));
        }
        let mut name = self.words();
        // `NOT NULL` in a STRUCT<...> says something of the field, and not of its type.
        for suffix in [" not null", " null"] {
            if let Some(stem) = name.strip_suffix(suffix) {
                name = stem.to_owned();
            }
        }
        if name.is_empty() {
            return Err(shape());
        }
        let of_array = name.strip_suffix(" array").map(str::to_owned);
        let is_array = of_array.is_some();
        let name = of_array.unwrap_or(name);
        let mut named = match self.peek() {
            Some('<') => self.composite(&name, '<', '>')?,
            Some('(')
                if matches!(by_name(&name), Some(DataType::Array | DataType::Map | DataType::Struct)) =>
            {
                self.composite(&name, '(', ')')?
            }
            Some('(') => {
                let arguments = self.arguments()?;
                // `timestamp(3) with time zone`, `varchar(20) not null`.
                let after = self.words();
                let after = after.trim_end_matches("not null").trim_end();
                let name = if after.is_empty() { name } else { format!("{name} {after}") };
                with_arguments(&name, &arguments)?
            }
            _ => {
                let data_type = by_name(&name).ok_or_else(|| no_such(&name))?;
                Named::of(data_type)
            }
        };
        if is_array {
            named = array_of(named);
        }
        while self.take('[') {
            // `integer[]`, and `integer[3]`, whose size PostgreSQL does not enforce either.
            let _ = self.word();
            if !self.take(']') {
                return Err(shape());
            }
            named = array_of(named);
        }
        self.depth -= 1;
        Ok(named)
    }

    /// `ARRAY<...>`, `MAP<..., ...>`, `STRUCT<name type, name: type>`.
    fn composite(&mut self, name: &str, open: char, close: char) -> Result<Named, UnknownType> {
        let data_type = by_name(name).ok_or_else(|| no_such(name))?;
        self.take(open);
        let mut named = Named::of(data_type);
        match data_type {
            DataType::Array => named.element = Some(Box::new(self.data_type()?)),
            DataType::Map => {
                let key = self.data_type()?;
                if !self.take(',') {
                    return Err(shape());
                }
                let value = self.data_type()?;
                named.fields = vec![("key".to_owned(), key), ("value".to_owned(), value)];
            }
            DataType::Struct => loop {
                let field = self.field_name()?;
                let _ = self.take(':');
                let field_type = self.data_type()?;
                named.fields.push((field, field_type));
                if !self.take(',') {
                    break;
                }
            },
            _ => return Err(shape()),
        }
        if self.take(close) { Ok(named) } else { Err(shape()) }
    }

    fn field_name(&mut self) -> Result<String, UnknownType> {
        match self.peek() {
            Some(quote @ ('`' | '"')) => {
                let inside = self.rest.get(1..).unwrap_or_default();
                let (name, rest) = inside.split_once(quote).ok_or_else(shape)?;
                self.rest = rest;
                Ok(name.to_owned())
            }
            _ => self.word().map(str::to_owned).ok_or_else(shape),
        }
    }

    /// `(12, 2)`, `(20 char)`, `('a', 'b')`.
    fn arguments(&mut self) -> Result<Vec<String>, UnknownType> {
        self.take('(');
        let mut arguments = Vec::new();
        loop {
            let argument = match self.peek() {
                Some('\'') => {
                    let inside = self.rest.get(1..).unwrap_or_default();
                    let (text, rest) = inside.split_once('\'').ok_or_else(shape)?;
                    self.rest = rest;
                    text.to_owned()
                }
                Some('-') => {
                    self.take('-');
                    format!("-{}", self.words())
                }
                _ => self.words(),
            };
            arguments.push(argument);
            if self.take(')') {
                return Ok(arguments);
            }
            if !self.take(',') {
                return Err(shape());
            }
        }
    }
}

fn array_of(element: Named) -> Named {
    Named { element: Some(Box::new(element)), ..Named::of(DataType::Array) }
}

fn with_arguments(name: &str, arguments: &[String]) -> Result<Named, UnknownType> {
    let data_type = by_name(name).ok_or_else(|| no_such(name))?;
    let mut named = Named::of(data_type);
    let number = |argument: &str| argument.split(' ').next().and_then(|digits| digits.parse::<u32>().ok());
    let first = arguments.first().map(String::as_str).unwrap_or_default();
    let wrong = |message, remedy: &str| Err(unknown(message, remedy));
    match data_type {
        DataType::Char
        | DataType::VarChar
        | DataType::String
        | DataType::Text
        | DataType::Binary
        | DataType::VarBinary
        | DataType::Bytes => {
            let text = !matches!(data_type, DataType::Binary | DataType::VarBinary | DataType::Bytes);
            match number(first) {
                Some(length) if length > 0 && arguments.len() == 1 => {
                    named.length = Some(length);
                    named.data_type = match data_type {
                        DataType::String | DataType::Text => DataType::VarChar,
                        DataType::Bytes => DataType::VarBinary,
                        other => other,
                    };
                }
                _ if matches!(first, "max" | "-1") => {
                    named.data_type = if text { DataType::Text } else { DataType::Bytes };
                }
                _ => return wrong("this is not a length", "write a length of 1 or more in brackets"),
            }
        }
        DataType::Decimal | DataType::Numeric | DataType::Number => {
            let scale = arguments.get(1).map_or(Some(0), |scale| number(scale));
            match (number(first), scale) {
                (Some(precision), Some(scale))
                    if (1..=MAX_PRECISION).contains(&precision)
                        && scale <= precision
                        && arguments.len() <= 2 =>
                {
                    named.precision = Some(precision);
                    named.scale = Some(scale);
                }
                _ => {
                    return wrong(
                        "this is not a precision and a scale",
                        "write a precision of 1 to 38 and a scale of at most the precision, such as DECIMAL(12,2)",
                    );
                }
            }
        }
        DataType::Float => {
            // In SQL the argument is a number of binary digits.
            if number(first).is_some_and(|digits| digits > 24) {
                named.data_type = DataType::Double;
            }
        }
        DataType::Boolean if name == "bit" => {
            if number(first) != Some(1) {
                return wrong("a string of bits has no equal here", "use BINARY or STRING");
            }
        }
        // A display width, or digits of a second: no engine that is provisioned here keeps them.
        DataType::TinyInt
        | DataType::SmallInt
        | DataType::Int
        | DataType::BigInt
        | DataType::Time
        | DataType::Timestamp
        | DataType::TimestampZ
        | DataType::DateTime
        | DataType::Interval
        | DataType::Enum
        | DataType::Set
        | DataType::Geography
        | DataType::Geometry => {}
        _ => return wrong("this type has no arguments", "remove what is in brackets"),
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> String {
        match parse(text) {
            Ok(named) => spelled(&named),
            Err(UnknownType { message, remedy }) => format!("{message}; {remedy}"),
        }
    }

    fn spelled(named: &Named) -> String {
        let mut text = named.data_type.name().to_owned();
        let numbers: Vec<String> =
            [named.length, named.precision, named.scale].iter().flatten().map(u32::to_string).collect();
        if !numbers.is_empty() {
            text += &format!("({})", numbers.join(","));
        }
        if let Some(element) = &named.element {
            text += &format!("<{}>", spelled(element));
        }
        if !named.fields.is_empty() {
            let fields: Vec<String> =
                named.fields.iter().map(|(name, field)| format!("{name}:{}", spelled(field))).collect();
            text += &format!("<{}>", fields.join(","));
        }
        text
    }

    #[test]
    fn names_of_dialects_mean_one_type() {
        for (text, meant) in [
            ("STRING", "STRING"),
            ("Timestamp", "TIMESTAMP"),
            ("float64", "DOUBLE"),
            ("timestamp_ntz", "TIMESTAMP"),
            ("TIMESTAMP_NTZ(9)", "TIMESTAMP"),
            ("timestamp(3) with time zone", "TIMESTAMPZ"),
            ("clob", "TEXT"),
            ("bytea", "BYTES"),
            ("int8", "BIGINT"),
            ("character varying", "VARCHAR"),
            ("character  varying ( 20 )", "VARCHAR(20)"),
            ("varchar2(20 char)", "VARCHAR(20)"),
            ("nvarchar(max)", "TEXT"),
            ("varbinary(-1)", "BYTES"),
            ("STRING(10)", "VARCHAR(10)"),
            ("bool", "BOOLEAN"),
            ("bit(1)", "BOOLEAN"),
            ("NUMBER(38,0)", "NUMBER(38,0)"),
            ("decimal(12)", "DECIMAL(12,0)"),
            ("float(53)", "DOUBLE"),
            ("float(10)", "FLOAT"),
            ("int(11)", "INT"),
            ("double precision", "DOUBLE"),
            ("text[]", "ARRAY<TEXT>"),
            ("numeric(4,2)[][]", "ARRAY<ARRAY<NUMERIC(4,2)>>"),
            ("integer array", "ARRAY<INT>"),
            ("ARRAY<STRUCT<sku STRING, n INT64>>", "ARRAY<STRUCT<sku:STRING,n:BIGINT>>"),
            ("struct<a:int,`b c`:array<string>>", "STRUCT<a:INT,b c:ARRAY<STRING>>"),
            ("ARRAY(NUMBER(10,2))", "ARRAY<NUMBER(10,2)>"),
            ("row(a integer not null)", "STRUCT<a:INT>"),
            ("map<string, double>", "MAP<key:STRING,value:DOUBLE>"),
            ("enum('a', 'b')", "ENUM"),
        ] {
            assert_eq!(read(text), meant, "{text}");
        }
    }

    #[test]
    fn unknown_names_say_what_means_the_same() {
        let general = "unknown data type; use one of OpenMetadata's, such as STRING, INT, DECIMAL or TIMESTAMP, or a \
                       name of the documented table";
        for (text, said) in [
            ("STRNG", "unknown data type; did you mean `STRING`?"),
            ("timestmap", "unknown data type; did you mean `TIMESTAMP`?"),
            ("int9", general),
            ("timestampx", general),
            ("foo", general),
            ("money", "this type has no equal here; use DECIMAL with precision 19 and scale 4"),
            ("timetz", "this type has no equal here; use TIME, without the zone, or STRING"),
            (
                "decimal(39,2)",
                "this is not a precision and a scale; write a precision of 1 to 38 and a scale of at most the \
                 precision, such as DECIMAL(12,2)",
            ),
            ("varchar(0)", "this is not a length; write a length of 1 or more in brackets"),
            ("bit(8)", "a string of bits has no equal here; use BINARY or STRING"),
            ("date(3)", "this type has no arguments; remove what is in brackets"),
            (
                "array<string",
                "unknown data type; write the name of one type, such as STRING, DECIMAL(12,2) or ARRAY<STRING>",
            ),
        ] {
            assert_eq!(read(text), said, "{text}");
        }
        assert_eq!(read(&"array<".repeat(20)), "the type nests too deeply; describe it with nested columns");
        assert_eq!(read(&"x".repeat(10_001)), "the type is too long; describe it with nested columns");
    }

    #[test]
    fn no_alias_hides_a_name_of_openmetadata() {
        for (alias, data_type) in ALIASES {
            assert!(alias.parse::<DataType>().is_err(), "{alias}");
            assert_eq!(parse(alias).unwrap().data_type, *data_type, "{alias}");
            assert_eq!(ALIASES.iter().filter(|(other, _)| other == alias).count(), 1, "{alias}");
        }
        for (other, _) in WITHOUT_EQUAL {
            assert!(by_name(other).is_none(), "{other}");
        }
    }

    #[test]
    fn every_name_is_in_the_documentation() {
        let page = include_str!("../../docs/data-contracts.md");
        for (alias, data_type) in ALIASES {
            let row = page.lines().find(|line| line.starts_with(&format!("| {data_type} |")));
            assert!(row.is_some_and(|row| row.contains(&format!("`{alias}`"))), "{alias} of {data_type}");
        }
        for (name, remedy) in WITHOUT_EQUAL {
            assert!(page.contains(&format!("| `{name}` | {remedy} |")), "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,60}|[a-z]{1,9}[<(\\[][a-z0-9,:<>()\\[\\] ]{0,30}") {
            let _ = parse(&text);
        }
    }
}
