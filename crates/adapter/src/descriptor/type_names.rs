//! Names of types: OpenMetadata's, and those that users copy from their databases.
//!
//! A data contract may name a type as ODCS, Snowflake, BigQuery, Databricks, PostgreSQL, MySQL, Oracle, SQL Server,
//! Arrow or JDBC write it, with arguments: `varchar(20)`, `decimal(12,2)`, `timestamp_ntz`, `ARRAY<STRUCT<sku:
//! STRING>>`, `text[]`, `int not null`. Each name means one [`DataType`], for every technology. A name without a
//! counterpart is refused, with a remedy. If two dialects disagree about a name, OpenMetadata decides, then
//! PostgreSQL: `int8` has eight bytes.
//!
//! No part of a text is ignored: an unknown part makes the type unknown.

use std::borrow::Cow;

use super::{ContractShape, DataType};

/// The maximum length of a type's text, in bytes.
const MAX_LENGTH: usize = 10_000;
/// The maximum depth of `ARRAY<...>` and `STRUCT<...>` in one text.
const MAX_DEPTH: usize = 16;
/// The maximum digits of a decimal.
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
    ("serial2", DataType::SmallInt),
    ("integer", DataType::Int),
    ("int4", DataType::Int),
    ("int32", DataType::Int),
    ("mediumint", DataType::Int),
    ("serial", DataType::Int),
    ("serial4", DataType::Int),
    ("int8", DataType::BigInt),
    ("int64", DataType::BigInt),
    ("bigserial", DataType::BigInt),
    ("serial8", DataType::BigInt),
    ("float4", DataType::Float),
    ("float16", DataType::Float),
    ("float32", DataType::Float),
    ("halffloat", DataType::Float),
    ("real", DataType::Float),
    ("binary_float", DataType::Float),
    ("float8", DataType::Double),
    ("float64", DataType::Double),
    ("double precision", DataType::Double),
    ("binary_double", DataType::Double),
    ("dec", DataType::Decimal),
    ("decimal32", DataType::Decimal),
    ("decimal64", DataType::Decimal),
    ("decimal128", DataType::Decimal),
    ("decimal256", DataType::Decimal),
    ("str", DataType::String),
    ("utf8", DataType::String),
    ("large_utf8", DataType::String),
    ("large_string", DataType::String),
    ("varchar2", DataType::VarChar),
    ("nvarchar", DataType::VarChar),
    ("nvarchar2", DataType::VarChar),
    ("character varying", DataType::VarChar),
    ("char varying", DataType::VarChar),
    ("national character varying", DataType::VarChar),
    ("national char varying", DataType::VarChar),
    ("character", DataType::Char),
    ("bpchar", DataType::Char),
    ("nchar", DataType::Char),
    ("national character", DataType::Char),
    ("national char", DataType::Char),
    ("clob", DataType::Text),
    ("nclob", DataType::Text),
    ("character large object", DataType::Text),
    ("tinytext", DataType::Text),
    ("longtext", DataType::Text),
    ("ntext", DataType::Text),
    ("long varchar", DataType::Text),
    ("longvarchar", DataType::Text),
    ("longnvarchar", DataType::Text),
    ("citext", DataType::Text),
    ("timestamp_ntz", DataType::Timestamp),
    ("timestampntz", DataType::Timestamp),
    ("timestamp_s", DataType::Timestamp),
    ("timestamp_ms", DataType::Timestamp),
    ("timestamp_us", DataType::Timestamp),
    ("timestamp_ns", DataType::Timestamp),
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
    ("time32", DataType::Time),
    ("time64", DataType::Time),
    ("date32", DataType::Date),
    ("date64", DataType::Date),
    ("uniqueidentifier", DataType::Uuid),
    ("guid", DataType::Uuid),
    ("bytea", DataType::Bytes),
    ("raw", DataType::Bytes),
    ("long raw", DataType::Bytes),
    ("longvarbinary", DataType::Bytes),
    ("large_binary", DataType::Bytes),
    ("image", DataType::Bytes),
    ("fixed_size_binary", DataType::Binary),
    ("binary varying", DataType::VarBinary),
    ("binary large object", DataType::Blob),
    ("tinyblob", DataType::Blob),
    ("jsonb", DataType::Json),
    ("list", DataType::Array),
    ("large_list", DataType::Array),
    ("object", DataType::Struct),
    ("record", DataType::Struct),
    ("row", DataType::Struct),
];

/// Logical types of ODCS.
pub(super) const LOGICAL_TYPES: [&str; 9] =
    ["string", "integer", "number", "boolean", "date", "timestamp", "time", "object", "array"];

/// Names of types without a counterpart, what to write instead, and the logical types of ODCS that can hold all their
/// values.
const WITHOUT_EQUAL: &[(&str, &str, &[&str])] = &[
    ("any", "use VARIANT or JSON", &LOGICAL_TYPES),
    ("bigdecimal", "use DECIMAL with a precision of at most 38", &[]),
    ("bignumeric", "use DECIMAL with a precision of at most 38", &[]),
    ("bit varying", "use BINARY or STRING", &["string"]),
    ("cidr", "use STRING", &["string"]),
    ("decfloat", "use DOUBLE, or DECIMAL with a precision of at most 38", &[]),
    ("duration", "use INTERVAL or BIGINT", &["integer", "string"]),
    ("hstore", "use MAP or JSON", &["object"]),
    ("hugeint", HUGE, &[]),
    ("inet", "use STRING", &["string"]),
    ("int128", HUGE, &[]),
    ("int256", HUGE, &[]),
    ("macaddr", "use STRING", &["string"]),
    ("money", "use DECIMAL with precision 19 and scale 4", &["number"]),
    ("null", "name the type of its values", &LOGICAL_TYPES),
    ("rowid", "use STRING", &["string"]),
    ("urowid", "use STRING", &["string"]),
    ("smallmoney", "use DECIMAL with precision 10 and scale 4", &["number"]),
    ("sql_variant", "use VARIANT", &[]),
    ("time with time zone", TIME_WITH_ZONE, &["string"]),
    ("timetz", TIME_WITH_ZONE, &["string"]),
    ("time_with_timezone", TIME_WITH_ZONE, &["string"]),
    ("tinyint unsigned", "use SMALLINT", &["integer", "number"]),
    ("utinyint", "use SMALLINT", &["integer", "number"]),
    ("uint8", "use SMALLINT", &["integer", "number"]),
    ("smallint unsigned", "use INT", &["integer", "number"]),
    ("usmallint", "use INT", &["integer", "number"]),
    ("uint16", "use INT", &["integer", "number"]),
    ("mediumint unsigned", "use INT", &["integer", "number"]),
    ("int unsigned", "use BIGINT", &["integer", "number"]),
    ("integer unsigned", "use BIGINT", &["integer", "number"]),
    ("uinteger", "use BIGINT", &["integer", "number"]),
    ("uint32", "use BIGINT", &["integer", "number"]),
    ("bigint unsigned", UNSIGNED_BIGINT, &["number"]),
    ("ubigint", UNSIGNED_BIGINT, &["number"]),
    ("uint64", UNSIGNED_BIGINT, &["number"]),
    ("uhugeint", HUGE, &[]),
    ("uint128", HUGE, &[]),
    ("uint256", HUGE, &[]),
    ("varbit", "use BINARY or STRING", &["string"]),
    ("void", "name the type of its values", &LOGICAL_TYPES),
    ("xml", "use STRING", &["string"]),
    ("xmltype", "use STRING", &["string"]),
    ("year", "use SMALLINT", &["integer", "number"]),
];

const HUGE: &str = "use DECIMAL with precision 38 and scale 0, as far as that goes, or STRING";
const UNSIGNED_BIGINT: &str = "use DECIMAL with precision 20 and scale 0";
const TIME_WITH_ZONE: &str = "use TIME, without the zone, or STRING";

/// A parsed type.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Named {
    pub(super) data_type: DataType,
    /// In characters or bytes, if given.
    pub(super) length: Option<u32>,
    pub(super) precision: Option<u32>,
    pub(super) scale: Option<u32>,
    /// The element of an ARRAY, if given.
    pub(super) element: Option<Box<Named>>,
    /// The fields of a STRUCT, or `key` and `value` of a MAP, if given.
    pub(super) fields: Vec<(String, Named)>,
    /// `NOT NULL`
    pub(super) required: bool,
    /// `COMMENT '...'`
    pub(super) description: Option<String>,
    /// `bpchar` has no limit without a length, whereas other names of CHAR have one character.
    pub(super) unlimited: bool,
    /// It explicitly has no time zone.
    pub(super) without_zone: bool,
}

/// The meaning of a number in square brackets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Brackets {
    /// A length if the type has one, otherwise the size of an array, as in PostgreSQL.
    Either,
    /// The size of an array, because the contract declares an array.
    Size,
    /// An argument, because the contract declares no array.
    Argument,
}

/// Why a text is not a type. The remedy is computed when the error is reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum UnknownType {
    /// The name is unknown.
    NoSuchName {
        /// In lower case.
        name: String,
        /// Whether it is the type of a part.
        part: bool,
        /// Whether it begins with the name of a type.
        known: bool,
    },
    /// A known type of another platform, without a counterpart.
    WithoutEqual {
        /// In lower case.
        name: String,
        part: bool,
        remedy: &'static str,
        /// Logical types of ODCS that can hold its values.
        held_by: &'static [&'static str],
    },
    /// A known type with invalid arguments.
    Wrong { message: &'static str, remedy: &'static str },
}

impl UnknownType {
    pub(super) fn message(&self) -> Cow<'static, str> {
        match self {
            Self::NoSuchName { name, part: true, .. } => {
                format!("a part of it has an unknown data type, `{}`", shown(name)).into()
            }
            Self::NoSuchName { .. } => "unknown data type".into(),
            Self::WithoutEqual { name, part: true, .. } => {
                format!("a part of it has a type that has no equal here, `{}`", shown(name)).into()
            }
            Self::WithoutEqual { .. } => "this type has no equal here".into(),
            Self::Wrong { message, .. } => (*message).into(),
        }
    }

    /// The remedy, in the words of a shape of data contract.
    pub(super) fn remedy(&self, shape: ContractShape) -> String {
        match self {
            Self::NoSuchName { name, .. } => match (closest(name), shape) {
                (Some(close), _) => format!("did you mean `{close}`?"),
                (None, ContractShape::OpenMetadata) => {
                    "use one of OpenMetadata's, such as STRING, INT, DECIMAL or TIMESTAMP, or a name of the documented table"
                        .to_owned()
                }
                (None, ContractShape::Odcs) => {
                    "use a name of the documented table, such as `decimal(12,2)`, or leave `physicalType` out and say the \
                     type in `logicalType`"
                        .to_owned()
                }
            },
            Self::WithoutEqual { remedy, .. } | Self::Wrong { remedy, .. } => (*remedy).to_owned(),
        }
    }

    /// Whether a logical type of ODCS may decide instead: for an unknown name, or a type whose values the logical
    /// type can hold.
    pub(super) fn leaves_it_to(&self, logical: &str) -> bool {
        match self {
            Self::NoSuchName { part, known, .. } => !part && !known,
            Self::WithoutEqual { part, held_by, .. } => !part && held_by.contains(&logical),
            Self::Wrong { .. } => false,
        }
    }
}

fn shown(name: &str) -> String {
    name.chars().take(60).collect()
}

impl Named {
    pub(super) fn of(data_type: DataType) -> Self {
        Self {
            data_type,
            length: None,
            precision: None,
            scale: None,
            element: None,
            fields: Vec::new(),
            required: false,
            description: None,
            unlimited: false,
            without_zone: false,
        }
    }

    fn is_bare(&self) -> bool {
        self.length.is_none() && self.precision.is_none() && self.element.is_none() && self.fields.is_empty()
    }
}

/// Parses the text of a type.
pub(super) fn parse(text: &str) -> Result<Named, UnknownType> {
    parse_with(text, Brackets::Either)
}

/// Parses the text of a type, with a known meaning of a number in square brackets.
pub(super) fn parse_with(text: &str, brackets: Brackets) -> Result<Named, UnknownType> {
    if text.len() > MAX_LENGTH {
        return Err(wrong("the type is too long", "describe it with nested columns"));
    }
    let mut reader = Reader { rest: text.trim_start(), depth: 0, brackets };
    let named = reader.data_type()?;
    reader.skip_blanks();
    if reader.rest.is_empty() { Ok(named) } else { Err(shape()) }
}

fn wrong(message: &'static str, remedy: &'static str) -> UnknownType {
    UnknownType::Wrong { message, remedy }
}

fn shape() -> UnknownType {
    wrong("unknown data type", "write the name of one type, such as STRING, DECIMAL(12,2) or ARRAY<STRING>")
}

/// The type of a name; upper and lower case are equal.
fn by_name(name: &str) -> Option<DataType> {
    let alias = || ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, data_type)| *data_type);
    name.parse().ok().or_else(alias)
}

/// The type that was probably meant: one letter away or, for a long name, two, and only if all similar names mean the
/// same type. A wrong guess is worse than none, so the first letter, digits and short parts of a name (`_tz`) must be
/// equal.
fn closest(name: &str) -> Option<&'static str> {
    let length = name.chars().count();
    if !(3..=40).contains(&length) {
        return None;
    }
    let allowed = if length > 6 { 2 } else { 1 };
    let names = DataType::ALL.iter().map(|data_type| (data_type.name(), *data_type));
    let distances: Vec<(usize, &'static str, DataType)> = names
        .chain(ALIASES.iter().copied())
        .filter(|(known, _)| known.len().abs_diff(length) <= allowed)
        .filter(|(known, _)| is_alike(name, &known.to_ascii_lowercase()))
        .map(|(known, data_type)| (strsim::osa_distance(name, &known.to_ascii_lowercase()), known, data_type))
        .filter(|(distance, ..)| *distance <= allowed)
        .collect();
    let least = distances.iter().map(|(distance, ..)| *distance).min()?;
    let mut nearest = distances.iter().filter(|(distance, ..)| *distance == least);
    let (_, known, data_type) = nearest.next()?;
    nearest.all(|(_, _, other)| other == data_type).then_some(known)
}

/// Whether two names have the same first letter, digits and short parts.
fn is_alike(name: &str, known: &str) -> bool {
    let digits = |text: &str| text.bytes().filter(u8::is_ascii_digit).collect::<Vec<u8>>();
    let short = |text: &str| {
        let parts = text.split(['_', ' ']).filter(|part| part.len() <= 3);
        parts.map(str::to_owned).collect::<Vec<String>>()
    };
    name.chars().next() == known.chars().next()
        && digits(name) == digits(known)
        && (!name.contains(['_', ' ']) && !known.contains(['_', ' ']) || short(name) == short(known))
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
    /// The meaning for the whole text; in parts of it, a number in square brackets can be either.
    brackets: Brackets,
}

/// Words of an interval.
const INTERVAL: [&str; 13] = [
    "year", "years", "quarter", "month", "months", "week", "day", "days", "hour", "hours", "minute",
    "second", "to",
];

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

    /// Consumes these words, if they are next.
    fn take_words(&mut self, words: &[&str]) -> bool {
        let before = self.rest;
        let taken = words.iter().all(|word| self.word().is_some_and(|next| next.eq_ignore_ascii_case(word)));
        if !taken {
            self.rest = before;
        }
        taken
    }

    /// Whether these words are next.
    fn has_words(&mut self, words: &[&str]) -> bool {
        let before = self.rest;
        let taken = self.take_words(words);
        self.rest = before;
        taken
    }

    /// Whether the next word describes the column and not its type.
    fn at_attribute(&mut self) -> bool {
        let options = |reader: &mut Self| {
            let before = reader.rest;
            let found = reader.take_words(&["options"]) && reader.peek() == Some('(');
            reader.rest = before;
            found
        };
        self.has_words(&["not", "null"])
            || self.has_words(&["null"])
            || self.has_words(&["comment"])
            || self.has_words(&["collate"])
            || self.has_words(&["charset"])
            || self.has_words(&["character", "set"])
            || options(self)
    }

    /// Words up to the next sign or attribute, in lower case, with one blank between them.
    fn name(&mut self, mut name: String) -> String {
        while name.is_empty() || !self.at_attribute() {
            let Some(word) = self.word() else { break };
            if !name.is_empty() {
                name.push(' ');
            }
            name.push_str(&word.to_lowercase());
        }
        name
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

    /// The error for a name that is no type here.
    fn no_such(&self, name: &str) -> UnknownType {
        let part = self.depth > 1;
        if let Some((_, remedy, held_by)) = WITHOUT_EQUAL.iter().find(|(other, ..)| *other == name) {
            return UnknownType::WithoutEqual { name: name.to_owned(), part, remedy, held_by };
        }
        let known = name.split_once(' ').is_some_and(|(first, _)| is_name(first));
        UnknownType::NoSuchName { name: name.to_owned(), part, known }
    }

    fn data_type(&mut self) -> Result<Named, UnknownType> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(wrong("the type nests too deeply", "describe it with nested columns"));
        }
        let mut named = self.plain_type()?;
        while self.take('[') {
            named = self.bracket(named)?;
        }
        self.attributes(&mut named)?;
        self.depth -= 1;
        Ok(named)
    }

    /// A type without square brackets.
    fn plain_type(&mut self) -> Result<Named, UnknownType> {
        if self.take_words(&["interval"]) {
            return self.interval();
        }
        let name = self.name(String::new());
        if name.is_empty() {
            return Err(shape());
        }
        if let Some(stem) = name.strip_suffix(" array") {
            let element = self.simple(stem)?;
            return self.sized_array(element);
        }
        // PostgreSQL's name of an array type.
        if let Some(data_type) = name.strip_prefix('_').and_then(by_name) {
            return Ok(array_of(Named::of(data_type)));
        }
        match self.peek() {
            Some('<') => self.composite(&name, '<', '>'),
            Some('(')
                if matches!(by_name(&name), Some(DataType::Array | DataType::Map | DataType::Struct)) =>
            {
                self.composite(&name, '(', ')')
            }
            // The brackets of an unknown type may contain anything.
            Some('(') if !is_name(&name) => Err(self.no_such(&name)),
            Some('(') => {
                let arguments = self.arguments()?;
                // `timestamp(3) with time zone`, `int(10) unsigned`.
                let name = self.name(name);
                match name.strip_suffix(" array") {
                    Some(stem) => {
                        let element = self.with_arguments(stem, &arguments)?;
                        self.sized_array(element)
                    }
                    None => self.with_arguments(&name, &arguments),
                }
            }
            _ => self.simple(&name),
        }
    }

    /// `integer ARRAY[4]` of SQL; no technology enforces the size.
    fn sized_array(&mut self, element: Named) -> Result<Named, UnknownType> {
        if self.take('[') && !(self.word().is_some() && self.take(']')) {
            return Err(shape());
        }
        Ok(array_of(element))
    }

    /// A type without arguments.
    fn simple(&self, name: &str) -> Result<Named, UnknownType> {
        let mut named = Named::of(self.named(name)?);
        named.unlimited = name == "bpchar";
        named.without_zone = has_no_zone(name);
        Ok(named)
    }

    /// The type of a name. An unsigned number becomes a signed one if that only affects the range of values.
    fn named(&self, name: &str) -> Result<DataType, UnknownType> {
        let signless = || {
            let data_type = by_name(name.strip_suffix(" unsigned")?)?;
            let any_sign = is_decimal(data_type) || matches!(data_type, DataType::Float | DataType::Double);
            any_sign.then_some(data_type)
        };
        by_name(name).or_else(signless).ok_or_else(|| self.no_such(name))
    }

    /// The part after `INTERVAL`: `DAY(2) TO SECOND(6)`.
    fn interval(&mut self) -> Result<Named, UnknownType> {
        loop {
            if self.peek() == Some('(') {
                self.arguments()?;
            }
            if !INTERVAL.iter().any(|unit| self.take_words(&[*unit])) {
                return Ok(Named::of(DataType::Interval));
            }
        }
    }

    /// `ARRAY<...>`, `MAP<..., ...>`, `STRUCT<name type, name: type>`.
    fn composite(&mut self, name: &str, open: char, close: char) -> Result<Named, UnknownType> {
        let data_type = self.named(name)?;
        self.take(open);
        let mut named = Named::of(data_type);
        match data_type {
            DataType::Array => {
                // Arrow and Parquet name the element.
                let before = self.rest;
                if !(self.word().is_some() && self.take(':')) {
                    self.rest = before;
                }
                named.element = Some(Box::new(self.data_type()?));
            }
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
            Some(quote @ ('`' | '"')) => self.quoted(quote),
            _ => self.word().map(str::to_owned).ok_or_else(shape),
        }
    }

    /// A quoted text; a quote in it is doubled, or follows a backslash.
    fn quoted(&mut self, quote: char) -> Result<String, UnknownType> {
        if !self.take(quote) {
            return Err(shape());
        }
        let mut text = String::new();
        let mut chars = self.rest.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            let next = chars.peek().map(|(_, next)| *next);
            if c == '\\' && quote == '\'' && next == Some(quote) || c == quote && next == Some(quote) {
                text.push(quote);
                chars.next();
            } else if c == quote {
                self.rest = self.rest.get(at + c.len_utf8()..).unwrap_or_default();
                return Ok(text);
            } else {
                text.push(c);
            }
        }
        Err(shape())
    }

    /// `(12, 2)`, `(20 char)`, `('a', 'b')`.
    fn arguments(&mut self) -> Result<Vec<String>, UnknownType> {
        self.take('(');
        let mut arguments = Vec::new();
        loop {
            let argument = match self.peek() {
                Some('\'') => self.quoted('\'')?,
                Some('-') => {
                    self.take('-');
                    format!("-{}", self.words())
                }
                Some('*') => {
                    self.take('*');
                    "*".to_owned()
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

    /// The content of square brackets: nothing or the size of an array, as in PostgreSQL; a length, as in samples of
    /// ODCS; a unit, as in Arrow.
    fn bracket(&mut self, named: Named) -> Result<Named, UnknownType> {
        let (inside, rest) = self.rest.split_once(']').ok_or_else(shape)?;
        self.rest = rest;
        let inside = inside.trim().to_lowercase();
        if inside.is_empty() {
            return Ok(array_of(named));
        }
        let parts: Vec<String> = inside.split(',').map(|part| part.trim().to_owned()).collect();
        if let Some(unit) = parts.first()
            && unit.starts_with(|c: char| c.is_alphabetic())
            && unit != "max"
        {
            return in_units(named, unit, parts.get(1..).unwrap_or_default());
        }
        let brackets = if self.depth > 1 { Brackets::Either } else { self.brackets };
        let is_argument = named.is_bare()
            && match brackets {
                Brackets::Size => false,
                Brackets::Argument => true,
                Brackets::Either => has_length(named.data_type) || parts.len() > 1,
            };
        if is_argument {
            self.with_arguments(&named.data_type.name().to_lowercase(), &parts)
        } else if matches!(parts.as_slice(), [size] if size.parse::<u32>().is_ok()) {
            // PostgreSQL does not enforce the size, either.
            Ok(array_of(named))
        } else {
            Err(shape())
        }
    }

    /// The facts about a column after its type.
    fn attributes(&mut self, named: &mut Named) -> Result<(), UnknownType> {
        loop {
            if self.take_words(&["not", "null"]) {
                named.required = true;
            } else if self.take_words(&["null"]) {
            } else if self.take_words(&["comment"]) {
                let quote = self.peek().filter(|c| matches!(c, '\'' | '"')).ok_or_else(shape)?;
                named.description = Some(self.quoted(quote)?);
            } else if self.take_words(&["collate"])
                || self.take_words(&["charset"])
                || self.take_words(&["character", "set"])
            {
                match self.peek() {
                    Some(quote @ ('\'' | '"')) => self.quoted(quote).map(drop)?,
                    _ => self.word().map(drop).ok_or_else(shape)?,
                }
            } else if self.at_attribute() {
                self.options()?;
            } else {
                return Ok(());
            }
        }
    }

    /// BigQuery's `OPTIONS(description = '...')`; no other option concerns a type.
    fn options(&mut self) -> Result<(), UnknownType> {
        self.take_words(&["options"]);
        self.take('(');
        loop {
            match self.peek() {
                Some(')') => {
                    self.take(')');
                    return Ok(());
                }
                Some(quote @ ('\'' | '"')) => self.quoted(quote).map(drop)?,
                Some(c) if c != '(' => {
                    self.take(c);
                }
                _ => return Err(shape()),
            }
        }
    }

    fn with_arguments(&self, name: &str, arguments: &[String]) -> Result<Named, UnknownType> {
        let data_type = self.named(name)?;
        let mut named = Named { without_zone: has_no_zone(name), ..Named::of(data_type) };
        let number =
            |argument: &str| argument.split(' ').next().and_then(|digits| digits.parse::<u32>().ok());
        let first = arguments.first().map(String::as_str).unwrap_or_default();
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
                    _ => {
                        return Err(wrong("this is not a length", "write a length of 1 or more in brackets"));
                    }
                }
            }
            DataType::Decimal | DataType::Numeric | DataType::Number => {
                let scale = arguments.get(1).map_or(Some(0), |scale| number(scale));
                // Oracle's `NUMBER(*,0)` has the maximum number of digits.
                let precision = if first == "*" { Some(MAX_PRECISION) } else { number(first) };
                // The argument of ClickHouse's `Decimal64(4)` is the scale, and `NUMBER(*)` has any scale.
                let needs_scale = first == "*" || name.ends_with(|c: char| c.is_ascii_digit());
                match (precision, scale) {
                    (Some(precision), Some(scale))
                        if (1..=MAX_PRECISION).contains(&precision)
                            && scale <= precision
                            && arguments.len() <= 2
                            && (arguments.len() == 2 || !needs_scale) =>
                    {
                        named.precision = Some(precision);
                        named.scale = Some(scale);
                    }
                    _ => {
                        return Err(wrong(
                            "this is not a precision and a scale",
                            "write a precision of 1 to 38 and a scale of at most the precision, such as DECIMAL(12,2)",
                        ));
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
                    return Err(wrong("a string of bits has no equal here", "use BINARY or STRING"));
                }
            }
            // A display width, digits of seconds or a maximum size: no technology stores them.
            DataType::TinyInt
            | DataType::SmallInt
            | DataType::Int
            | DataType::BigInt
            | DataType::Double
            | DataType::Time
            | DataType::Timestamp
            | DataType::TimestampZ
            | DataType::DateTime
            | DataType::Interval
            | DataType::Enum
            | DataType::Set
            | DataType::Blob
            | DataType::Geography
            | DataType::Geometry => {}
            _ => return Err(wrong("this type has no arguments", "remove what is in brackets")),
        }
        Ok(named)
    }
}

/// Whether it is the name of a type, here or on another platform.
fn is_name(name: &str) -> bool {
    by_name(name).is_some() || WITHOUT_EQUAL.iter().any(|(other, ..)| *other == name)
}

fn has_no_zone(name: &str) -> bool {
    name.contains("ntz") || name.contains("without time zone")
}

pub(super) fn is_decimal(data_type: DataType) -> bool {
    matches!(data_type, DataType::Decimal | DataType::Numeric | DataType::Number)
}

/// Whether a number after the type is a length or a number of digits.
fn has_length(data_type: DataType) -> bool {
    is_decimal(data_type)
        || matches!(
            data_type,
            DataType::Char
                | DataType::VarChar
                | DataType::String
                | DataType::Binary
                | DataType::VarBinary
                | DataType::Bytes
        )
}

/// Arrow's `timestamp[us, tz=UTC]`, `time64[us]` and `date32[day]`.
fn in_units(named: Named, unit: &str, more: &[String]) -> Result<Named, UnknownType> {
    let is_time = matches!(unit, "s" | "ms" | "us" | "ns");
    let data_type = match (named.data_type, more) {
        (DataType::Timestamp | DataType::Time, []) if is_time => named.data_type,
        (DataType::Timestamp, [zone]) if is_time && zone.starts_with("tz=") => DataType::TimestampZ,
        (DataType::Date, []) if unit == "day" || unit == "ms" => DataType::Date,
        _ => return Err(shape()),
    };
    if named.is_bare() { Ok(Named::of(data_type)) } else { Err(shape()) }
}

fn array_of(element: Named) -> Named {
    Named { element: Some(Box::new(element)), ..Named::of(DataType::Array) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> String {
        match parse(text) {
            Ok(named) => spelled(&named),
            Err(unknown) => format!("{}; {}", unknown.message(), unknown.remedy(ContractShape::OpenMetadata)),
        }
    }

    fn spelled(named: &Named) -> String {
        let mut text = named.data_type.name().to_owned();
        if named.unlimited {
            text += "*";
        }
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
        if named.required {
            text += "!";
        }
        if let Some(description) = &named.description {
            text += &format!("'{description}'");
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
            ("row(a integer not null)", "STRUCT<a:INT!>"),
            ("map<string, double>", "MAP<key:STRING,value:DOUBLE>"),
            ("enum('a', 'b')", "ENUM"),
            ("int not null", "INT!"),
            ("varchar(20) NOT NULL", "VARCHAR(20)!"),
            ("varchar(20) null", "VARCHAR(20)"),
            ("timestamp(3) with time zone not null", "TIMESTAMPZ!"),
            ("STRUCT<x: INT NOT NULL, y: ARRAY<INT> NOT NULL>", "STRUCT<x:INT!,y:ARRAY<INT>!>"),
            ("STRUCT<id: INT COMMENT 'the key', name: STRING>", "STRUCT<id:INT'the key',name:STRING>"),
            ("STRUCT<id: INT NOT NULL COMMENT 'it''s \\'the\\' key'>", "STRUCT<id:INT!'it's 'the' key'>"),
            (
                "STRUCT<a INT64 OPTIONS(description='x, (y)'), comment STRING>",
                "STRUCT<a:BIGINT,comment:STRING>",
            ),
            ("varchar(20) character set utf8mb4 collate utf8_bin", "VARCHAR(20)"),
            ("string collate UTF8_LCASE", "STRING"),
            ("struct<id:int,iv:interval day>", "STRUCT<id:INT,iv:INTERVAL>"),
            ("INTERVAL DAY(2) TO SECOND(6)", "INTERVAL"),
            ("interval year(4) to month not null", "INTERVAL!"),
            ("interval(6)", "INTERVAL"),
            ("interval second(3)", "INTERVAL"),
            ("varchar[3]", "VARCHAR(3)"),
            ("character varying[3]", "VARCHAR(3)"),
            ("decimal[10,2]", "DECIMAL(10,2)"),
            ("numeric[4]", "NUMERIC(4,0)"),
            ("binary[16]", "BINARY(16)"),
            ("varchar[max]", "TEXT"),
            ("varchar(3)[4]", "ARRAY<VARCHAR(3)>"),
            ("varchar[3][]", "ARRAY<VARCHAR(3)>"),
            ("text[3]", "ARRAY<TEXT>"),
            ("integer[3]", "ARRAY<INT>"),
            ("integer array[4]", "ARRAY<INT>"),
            ("varchar(3) array", "ARRAY<VARCHAR(3)>"),
            ("_int4", "ARRAY<INT>"),
            ("_text", "ARRAY<TEXT>"),
            ("timestamp[us]", "TIMESTAMP"),
            ("timestamp[us, tz=UTC]", "TIMESTAMPZ"),
            ("date32[day]", "DATE"),
            ("time64[us]", "TIME"),
            ("fixed_size_binary[16]", "BINARY(16)"),
            ("list<item: string>", "ARRAY<STRING>"),
            ("decimal128(12, 2)", "DECIMAL(12,2)"),
            ("bpchar", "CHAR*"),
            ("bpchar(3)", "CHAR(3)"),
            ("NUMBER(*,0)", "NUMBER(38,0)"),
            ("double(16,4)", "DOUBLE"),
            ("decimal(10,2) unsigned", "DECIMAL(10,2)"),
            ("BINARY_DOUBLE", "DOUBLE"),
            ("timestamp_ms", "TIMESTAMP"),
            ("serial8", "BIGINT"),
            ("blob(1M)", "BLOB"),
        ] {
            assert_eq!(read(text), meant, "{text}");
        }
    }

    #[test]
    fn unknown_names_suggest_equivalent_types() {
        let general = "unknown data type; use one of OpenMetadata's, such as STRING, INT, DECIMAL or TIMESTAMP, or a \
                       name of the documented table";
        for (text, said) in [
            ("STRNG", "unknown data type; did you mean `STRING`?"),
            ("timestmap", "unknown data type; did you mean `TIMESTAMP`?"),
            ("int9", general),
            ("timestampx", general),
            ("foo", general),
            ("fixed[16]", general),
            ("xbigint", general),
            ("timestamp_xz", general),
            ("int identity(1,1)", general),
            ("int primary key", general),
            ("UBIGINT", "this type has no equal here; use DECIMAL with precision 20 and scale 0"),
            ("UTINYINT", "this type has no equal here; use SMALLINT"),
            ("int(10) unsigned", "this type has no equal here; use BIGINT"),
            (
                "STRUCT<a: FOO>",
                "a part of it has an unknown data type, `foo`; use one of OpenMetadata's, such as STRING, INT, \
              DECIMAL or TIMESTAMP, or a name of the documented table",
            ),
            (
                "array<money>",
                "a part of it has a type that has no equal here, `money`; use DECIMAL with precision 19 and \
              scale 4",
            ),
            (
                "timestamp[x]",
                "unknown data type; write the name of one type, such as STRING, DECIMAL(12,2) or ARRAY<STRING>",
            ),
            (
                "decimal64(4)",
                "this is not a precision and a scale; write a precision of 1 to 38 and a scale of at most the \
              precision, such as DECIMAL(12,2)",
            ),
            (
                "NUMBER(*)",
                "this is not a precision and a scale; write a precision of 1 to 38 and a scale of at most the \
              precision, such as DECIMAL(12,2)",
            ),
            ("varchar(20) for bit data", general),
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
    fn contract_decides_meaning_of_numbers_in_brackets() {
        let read = |text, brackets| spelled(&parse_with(text, brackets).unwrap());
        for (text, size, argument) in [
            ("varchar[3]", "ARRAY<VARCHAR>", "VARCHAR(3)"),
            ("text[3]", "ARRAY<TEXT>", "VARCHAR(3)"),
            ("integer[3]", "ARRAY<INT>", "INT"),
            ("text[]", "ARRAY<TEXT>", "ARRAY<TEXT>"),
            ("struct<a:varchar[3]>", "STRUCT<a:VARCHAR(3)>", "STRUCT<a:VARCHAR(3)>"),
        ] {
            assert_eq!(read(text, Brackets::Size), size, "{text}");
            assert_eq!(read(text, Brackets::Argument), argument, "{text}");
        }
    }

    #[test]
    fn logical_type_decides_only_without_loss() {
        for (text, logical, leaves) in [
            ("SOME_OTHER_PLATFORM", "string", true),
            ("VECTOR(FLOAT, 256)", "array", true),
            ("LowCardinality(Nullable(String))", "string", true),
            ("RANGE<DATE>", "string", true),
            ("xml", "string", true),
            ("xml", "object", false),
            ("uint32", "integer", true),
            ("uint64", "integer", false),
            ("uint64", "number", true),
            ("bigint unsigned", "integer", false),
            ("money", "number", true),
            ("time with time zone", "time", false),
            ("decimal(39,0)", "number", false),
            ("varchar(0)", "string", false),
            ("int identity(1,1)", "integer", false),
            ("varchar(20) for bit data", "string", false),
            ("struct<a: FOO>", "object", false),
            ("array<xml>", "array", false),
            ("struct<a int", "object", false),
        ] {
            assert_eq!(parse(text).unwrap_err().leaves_it_to(logical), leaves, "{text} {logical}");
        }
    }

    #[test]
    fn no_alias_hides_a_name_of_openmetadata() {
        for (alias, data_type) in ALIASES {
            assert!(alias.parse::<DataType>().is_err(), "{alias}");
            assert_eq!(parse(alias).unwrap().data_type, *data_type, "{alias}");
            assert_eq!(ALIASES.iter().filter(|(other, _)| other == alias).count(), 1, "{alias}");
        }
        for (other, ..) in WITHOUT_EQUAL {
            assert!(by_name(other).is_none(), "{other}");
        }
    }

    #[test]
    fn every_name_is_in_the_documentation() {
        let page = include_str!("../../../../docs/data-contracts.md");
        for (alias, data_type) in ALIASES {
            let row = page.lines().find(|line| line.starts_with(&format!("| {data_type} |")));
            assert!(row.is_some_and(|row| row.contains(&format!("`{alias}`"))), "{alias} of {data_type}");
        }
        for (name, remedy, _) in WITHOUT_EQUAL {
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
