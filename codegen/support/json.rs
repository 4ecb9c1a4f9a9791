//! Strict JSON for a contract, with errors for the sender.
//!
//! serde is more lenient than a contract: it accepts a list for an object, and `{"A": null}` for the text `A`. Its
//! messages name Rust types, and it calls a number in place of an enumerated text a syntax error. [`read`] accepts
//! only an object for an object and only a text for a text. It distinguishes text that is not JSON from JSON that
//! does not match the schema, and names for both what was expected, what was found, and what to send. The error path
//! costs time, and no memory beyond the text.

use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IgnoredAny, IntoDeserializer,
    MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde_path_to_error::Segment;

/// A mistake in a JSON text. Every part may be sent to the sender, and is short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonProblem {
    /// Whether the text is JSON, but does not match the schema.
    pub is_schema: bool,
    /// Where, in dot format; empty for the text as a whole.
    pub field: Option<String>,
    /// The mistake.
    pub message: String,
    /// The value, shortened to a line; `None` if it is missing, a list or an object.
    pub value: Option<String>,
    /// The remedy; `None` if only the schema knows it.
    pub remedy: Option<String>,
}

/// Read one JSON value that is the whole text.
pub fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, JsonProblem> {
    let text = std::str::from_utf8(text).map_err(|error| not_utf8(text, error.valid_up_to()))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    match serde_path_to_error::deserialize(Strict(&mut deserializer)) {
        Ok(value) => deserializer.end().map(|()| value).map_err(|error| not_json(text, &error)),
        // A syntax error later in the text comes first, whatever else is wrong.
        Err(error) => Err(match serde_json::from_str::<IgnoredAny>(text) {
            // At the same place, the first reading has the better message.
            Err(syntax) => {
                let at = |error: &serde_json::Error| (error.line(), error.column());
                let first = error.inner();
                not_json(text, if at(first) == at(&syntax) { first } else { &syntax })
            }
            Ok(_) => misfit(text, &error),
        }),
    }
}

// ---- messages -----------------------------------------------------------------------------------------------------

fn not_utf8(text: &[u8], valid: usize) -> JsonProblem {
    let before = String::from_utf8_lossy(text.get(..valid).unwrap_or_default());
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|it| *it != '\n').count() + 1;
    syntax(format!("the body is not JSON: line {line}, column {column}: it is not UTF-8 text"))
}

fn not_json(text: &str, error: &serde_json::Error) -> JsonProblem {
    let (line, bytes) = (error.line(), error.column());
    let said = without_place(error);
    let said = match said.as_str() {
        "expected value" => "a value is expected".to_owned(),
        "trailing characters" => "something follows the value".to_owned(),
        said => said
            .strip_prefix("EOF while parsing ")
            .map_or(said.to_owned(), |it| format!("it ends within {it}")),
    };
    // serde counts bytes, and readers count characters.
    let start = text.split('\n').nth(line.saturating_sub(1)).unwrap_or_default();
    let column = start.char_indices().take_while(|(index, _)| *index < bytes).count().max(1);
    syntax(format!("the body is not JSON: line {line}, column {column}: {}", shorten(&said)))
}

fn syntax(message: String) -> JsonProblem {
    JsonProblem { is_schema: false, field: None, message, value: None, remedy: None }
}

/// The text is JSON, and serde stopped at one of its values.
fn misfit(text: &str, failure: &serde_path_to_error::Error<serde_json::Error>) -> JsonProblem {
    let steps: Vec<&Segment> = failure.path().iter().collect();
    let path = failure.path().to_string();
    let said = without_place(failure.inner());
    let place = |member: Option<&str>| match (path.as_str(), member) {
        (".", member) => member.map(str::to_owned),
        (path, None) => Some(path.to_owned()),
        (path, Some(member)) => Some(format!("{path}.{member}")),
    };
    let problem = |field: Option<String>, message: String, value, remedy| JsonProblem {
        is_schema: true,
        field: field.as_deref().map(shorten),
        message,
        value,
        remedy,
    };
    // serde reports these two at the object; its sender looks for the field.
    let member = |start: &str| said.strip_prefix(start)?.strip_suffix('`');
    if let Some(name) = member("missing field `") {
        let field = place(Some(name));
        let remedy = field.as_deref().map(|field| format!("add `{}`", shorten(field)));
        return problem(field, "is missing".to_owned(), None, remedy);
    }
    if let Some(name) = member("duplicate field `") {
        let remedy = Some("send it once".to_owned());
        return problem(place(Some(name)), "is there more than once".to_owned(), None, remedy);
    }
    let field = place(None);
    if let Some((_, expected)) = said.rsplit_once(", expected ") {
        let (expected, found) = (expectation(expected), find(text, &steps));
        let named = field.as_deref().map_or("the body".to_owned(), |field| format!("`{}`", shorten(field)));
        let message = match &found {
            Some(found) => format!("expected {expected}, found {found}"),
            None => format!("expected {expected}"),
        };
        let value = found.and_then(|found| found.value());
        return problem(field, message, value, Some(format!("send {named} as {expected}")));
    }
    match said.as_str() {
        "recursion limit exceeded" => {
            let remedy = Some("send a value of fewer levels".to_owned());
            problem(field, "is nested too deeply, the limit is 127 levels".to_owned(), None, remedy)
        }
        "number out of range" => {
            let remedy = Some("send a number that 64 bits can hold".to_owned());
            problem(field, "is a number out of range".to_owned(), None, remedy)
        }
        // Escapes that stand for no character: valid by the grammar of JSON, and not text.
        _ if failure.inner().is_syntax() => not_json(text, failure.inner()),
        said => problem(field, shorten(said), find(text, &steps).and_then(|found| found.value()), None),
    }
}

fn without_place(error: &serde_json::Error) -> String {
    let said = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    said.strip_suffix(&place).unwrap_or(&said).to_owned()
}

/// What serde expected, in terms of JSON.
fn expectation(serde: &str) -> String {
    let said = match serde {
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "an object",
        "i64" | "u64" => "a whole number of 64 bits",
        "i32" | "u32" => "a whole number of 32 bits",
        "f32" | "f64" => "a number",
        other if other.starts_with("struct ") => "an object",
        other => other,
    };
    shorten(said)
}

/// A text may be a whole descriptor; the message quotes only its two ends.
pub fn shorten(text: &str) -> String {
    const HEAD: usize = 160;
    const TAIL: usize = 120;
    let length = text.chars().count();
    if length <= HEAD + TAIL + 5 {
        return text.to_owned();
    }
    let head = text.chars().take(HEAD).collect::<String>();
    let tail = text.chars().skip(length - TAIL).collect::<String>();
    format!("{head} ... {tail}")
}

/// A value, as it is quoted.
enum Found {
    Null,
    Boolean(bool),
    Number(String),
    /// Shortened to a line.
    Text(String),
    List,
    Object,
}

impl Found {
    fn of_text(text: &str) -> Self {
        const LENGTH: usize = 80;
        let line = text.chars().map(|it| if it.is_control() { ' ' } else { it });
        let mut short: String = line.take(LENGTH).collect();
        if text.chars().nth(LENGTH).is_some() {
            short.push_str("...");
        }
        Self::Text(short)
    }

    fn value(&self) -> Option<String> {
        match self {
            Self::Null => Some("null".to_owned()),
            Self::Boolean(value) => Some(value.to_string()),
            Self::Number(text) | Self::Text(text) => Some(text.clone()),
            Self::List | Self::Object => None,
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => formatter.write_str("`null`"),
            Self::Boolean(value) => write!(formatter, "`{value}`"),
            Self::Number(text) => write!(formatter, "the number `{text}`"),
            Self::Text(text) => write!(formatter, "the string `{text}`"),
            Self::List => formatter.write_str("a list"),
            Self::Object => formatter.write_str("an object"),
        }
    }
}

/// The value at a path; of equal keys, the last one.
fn find(text: &str, steps: &[&Segment]) -> Option<Found> {
    Find(steps).deserialize(&mut serde_json::Deserializer::from_str(text)).ok().flatten()
}

/// Follows a path, and stores nothing outside of it.
struct Find<'a>(&'a [&'a Segment]);

impl<'de> DeserializeSeed<'de> for Find<'_> {
    type Value = Option<Found>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Find<'_> {
    type Value = Option<Found>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Some(Found::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Some(Found::Boolean(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Some(Found::Number(value.to_string())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Some(Found::Number(value.to_string())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        // As JSON writes it: with a point or an exponent.
        Ok(Some(Found::Number(format!("{value:?}"))))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(Found::of_text(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let Some((step, rest)) = self.0.split_first() else {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Some(Found::List));
        };
        let mut found = None;
        for index in 0.. {
            if matches!(step, Segment::Seq { index: wanted } if *wanted == index) {
                found = list.next_element_seed(Find(rest))?.flatten();
            } else if list.next_element::<IgnoredAny>()?.is_none() {
                break;
            }
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = self.0.is_empty().then_some(Found::Object);
        while let Some(key) = map.next_key::<String>()? {
            match self.0.split_first() {
                Some((Segment::Map { key: wanted }, rest)) if *wanted == key => {
                    found = map.next_value_seed(Find(rest))?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

// ---- strict reading -----------------------------------------------------------------------------------------------

/// Accepts only an object for an object, and only a text for an enumerated text, at every depth.
struct Strict<T>(T);

macro_rules! forward {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method(StrictVisitor { visitor, is_object: false })
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<D> {
    type Error = D::Error;

    forward! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_char deserialize_str deserialize_string deserialize_bytes
        deserialize_byte_buf deserialize_option deserialize_unit deserialize_seq deserialize_map
        deserialize_identifier deserialize_ignored_any
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_unit_struct(name, StrictVisitor { visitor, is_object: false })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_newtype_struct(name, StrictVisitor { visitor, is_object: false })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple(length, StrictVisitor { visitor, is_object: false })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple_struct(name, length, StrictVisitor { visitor, is_object: false })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_struct(name, fields, StrictVisitor { visitor, is_object: true })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(OneOf { visitor, variants })
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

struct StrictVisitor<V> {
    visitor: V,
    /// Whether only an object is accepted.
    is_object: bool,
}

macro_rules! visit {
    ($($method:ident: $type:ty,)*) => {$(
        fn $method<E: serde::de::Error>(self, value: $type) -> Result<V::Value, E> {
            self.visitor.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for StrictVisitor<V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(formatter)
    }

    visit! {
        visit_bool: bool, visit_i8: i8, visit_i16: i16, visit_i32: i32, visit_i64: i64, visit_i128: i128,
        visit_u8: u8, visit_u16: u16, visit_u32: u32, visit_u64: u64, visit_u128: u128,
        visit_f32: f32, visit_f64: f64, visit_char: char,
        visit_str: &str, visit_borrowed_str: &'de str, visit_string: String,
        visit_bytes: &[u8], visit_borrowed_bytes: &'de [u8], visit_byte_buf: Vec<u8>,
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_some(Strict(deserializer))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_newtype_struct(Strict(deserializer))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<V::Value, A::Error> {
        if self.is_object {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self));
        }
        self.visitor.visit_seq(Strict(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(Strict(map))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_enum(data)
    }
}

impl<'de, T: DeserializeSeed<'de>> DeserializeSeed<'de> for Strict<T> {
    type Value = T::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T::Value, D::Error> {
        self.0.deserialize(Strict(deserializer))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        self.0.next_element_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.0.next_value_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

/// An enumeration of a contract: a text.
struct OneOf<V> {
    visitor: V,
    variants: &'static [&'static str],
}

impl<'de, V: Visitor<'de>> Visitor<'de> for OneOf<V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.variants {
            [one] => write!(formatter, "`{one}`"),
            [one, other] => write!(formatter, "`{one}` or `{other}`"),
            several => write!(formatter, "one of `{}`", several.join("`, `")),
        }
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<V::Value, E> {
        self.visitor.visit_enum(text.into_deserializer())
    }
}
