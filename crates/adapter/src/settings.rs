//! Types for the settings of a driver, with their own error messages.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

pub use crate::places::{file_problem, folder_problem};

/// A duration with a unit (`500ms`, `30s`, `5m`, `1h`), of at least `LEAST_MS` milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span<const LEAST_MS: u64 = 1>(Duration);

impl<const LEAST_MS: u64> Span<LEAST_MS> {
    /// Creates a default value.
    pub const fn new(duration: Duration) -> Self {
        Self(duration)
    }

    /// The duration.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl<'de, const LEAST_MS: u64> Deserialize<'de> for Span<LEAST_MS> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        duration(&text, Duration::from_millis(LEAST_MS)).map(Self).map_err(D::Error::custom)
    }
}

impl<const LEAST_MS: u64> JsonSchema for Span<LEAST_MS> {
    fn schema_name() -> Cow<'static, str> {
        format!("Span{LEAST_MS}").into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+ ?(ms|s|m|h)$" })
    }
}

/// Parses a duration, or returns the mistake.
pub fn duration(text: &str, least: Duration) -> Result<Duration, String> {
    match parse_duration(text) {
        Some(duration) if duration >= least => Ok(duration),
        Some(_) => Err(format!("`{text}` is too short; at least {} ms is needed", least.as_millis())),
        None => Err(format!("`{text}` is not a duration; write a number and a unit: 500ms, 30s, 5m, 1h")),
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    match unit.trim() {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
}

/// A number of at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count(u32);

impl Count {
    /// Creates a default value.
    pub const fn new(count: u32) -> Self {
        Self(count)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            0 => Err(D::Error::custom("`0` is too small; at least 1 is needed")),
            count => Ok(Self(count)),
        }
    }
}

impl JsonSchema for Count {
    fn schema_name() -> Cow<'static, str> {
        "Count".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": u32::MAX })
    }
}

/// A file or folder, written as `file://PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileUrl(PathBuf);

impl FileUrl {
    /// Creates the URL of a path.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl<'de> Deserialize<'de> for FileUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        path("file", &text).map(Self).map_err(D::Error::custom)
    }
}

impl JsonSchema for FileUrl {
    fn schema_name() -> Cow<'static, str> {
        "FileUrl".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^file://." })
    }
}

/// The path in `SCHEME://PATH`, or the mistake in the text.
pub fn path(scheme: &str, text: &str) -> Result<PathBuf, String> {
    match text.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://")) {
        Some(path) if !path.is_empty() => Ok(PathBuf::from(path)),
        _ => Err(format!("`{text}` is not supported; write `{scheme}://PATH`")),
    }
}

/// A reference to a secret: `{ env = "NAME" }` or `{ file = "PATH" }`.
/// [`Services::secret`](crate::Services::secret) reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum SecretReference {
    /// A variable of the process.
    #[serde(rename = "env")]
    Variable(String),
    /// A file; a line end at the end is not part of the secret.
    #[serde(rename = "file")]
    File(String),
}

/// The expected form. The message never quotes the value, because it may be the secret itself.
const EITHER: &str = "must be one of `{ env = \"NAME\" }` and `{ file = \"PATH\" }`";

impl<'de> Deserialize<'de> for SecretReference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReferenceVisitor)
    }
}

struct ReferenceVisitor;

impl<'de> Visitor<'de> for ReferenceVisitor {
    type Value = SecretReference;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EITHER)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretReference, A::Error> {
        let mut found = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "env" => found.push(SecretReference::Variable(map.next_value()?)),
                "file" => found.push(SecretReference::File(map.next_value()?)),
                _ => return Err(A::Error::custom(EITHER)),
            }
        }
        match found.pop() {
            Some(reference) if found.is_empty() => Ok(reference),
            _ => Err(A::Error::custom(EITHER)),
        }
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<SecretReference, E> {
        Err(E::custom(EITHER))
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<SecretReference, E> {
        Err(E::custom(EITHER))
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<SecretReference, E> {
        Err(E::custom(EITHER))
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<SecretReference, E> {
        Err(E::custom(EITHER))
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<SecretReference, E> {
        Err(E::custom(EITHER))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, _: A) -> Result<SecretReference, A::Error> {
        Err(A::Error::custom(EITHER))
    }
}

impl JsonSchema for SecretReference {
    fn schema_name() -> Cow<'static, str> {
        "SecretReference".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "properties": { "env": { "type": "string" }, "file": { "type": "string" } },
            "minProperties": 1,
            "maxProperties": 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn durations_require_a_unit() {
        for (text, milliseconds) in
            [("0s", 0), ("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("1h", 3_600_000)]
        {
            assert_eq!(duration(text, Duration::ZERO), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "5", "s", "-1s", "1.5s", "99999999999999999999s", "18446744073709551615h", "5 days"]
        {
            let told = format!("`{text}` is not a duration; write a number and a unit: 500ms, 30s, 5m, 1h");
            assert_eq!(duration(text, Duration::ZERO), Err(told));
        }
    }

    #[test]
    fn a_secret_is_a_reference_and_nothing_else_is_quoted() {
        let read = |value: Value| {
            serde_json::from_value::<SecretReference>(value).map_err(|error| error.to_string())
        };
        assert_eq!(read(json!({ "env": "A" })), Ok(SecretReference::Variable("A".to_owned())));
        assert_eq!(read(json!({ "file": "/a" })), Ok(SecretReference::File("/a".to_owned())));
        for wrong in [
            json!("hunter2"),
            json!(["hunter2"]),
            json!({}),
            json!({ "env": "A", "file": "b" }),
            json!({ "hunter2": "hunter2" }),
            json!(7),
            json!(-7),
            json!(7.5),
            json!(true),
        ] {
            assert_eq!(read(wrong), Err(EITHER.to_owned()));
        }
        let null = read(Value::Null).unwrap_err();
        assert!(null.ends_with(EITHER), "{null}");
    }
}
