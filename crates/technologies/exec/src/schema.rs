//! JSON Schemas of a plug-in, and their errors as problems with a path, a value and a remedy.

use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use jsonschema::paths::LocationSegment;
use jsonschema::{PatternOptions, ValidationError, Validator};
use landfall_adapter::descriptor::{Problem, is_typo};
use serde_json::Value;

/// The most problems that are reported for one component.
const MAX_PROBLEMS: usize = 50;
/// The most steps of a regular expression, so that no text makes it slow.
const BACKTRACK_LIMIT: usize = 100_000;

/// A compiled JSON Schema.
pub(crate) struct Schema {
    validator: Validator,
    schema: Value,
}

impl Schema {
    /// Compiles a schema of JSON Schema 2020-12, or of the draft that it names. References lead to the schema itself.
    pub(crate) fn compile(schema: &Value) -> Result<Self, String> {
        jsonschema::options()
            .offline()
            .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(BACKTRACK_LIMIT))
            .build(schema)
            .map(|validator| Self { validator, schema: schema.clone() })
            .map_err(|error| error.to_string())
    }

    /// The problems of a value at `root`.
    pub(crate) fn problems(&self, value: &Value, root: &str) -> Vec<Problem> {
        let errors = self.validator.iter_errors(value);
        errors.take(MAX_PROBLEMS).flat_map(|error| self.explain(&error, root)).take(MAX_PROBLEMS).collect()
    }

    /// A problem for each thing that one error is about.
    fn explain(&self, error: &ValidationError<'_>, root: &str) -> Vec<Problem> {
        let path = path(error, root);
        let one = |message: String, remedy: String| {
            let value = error.instance();
            let problem = Problem::new(path.as_str(), message).remedy(remedy);
            vec![match shown(value) {
                Some(text) => problem.value(&text),
                None => problem,
            }]
        };
        match error.kind() {
            Kind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                vec![
                    Problem::new(format!("{path}.{name}"), format!("`{name}` is missing"))
                        .remedy(format!("add `{name}` to `{path}`")),
                ]
            }
            Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
                let known = self.properties(error);
                unexpected.iter().map(|name| unknown(&path, name, &known)).collect()
            }
            Kind::Type { kind } => {
                one(format!("is {}", type_of(error.instance())), format!("use {}", expected(kind)))
            }
            Kind::Enum { options } => {
                let options = options.as_array().map(Vec::as_slice).unwrap_or_default();
                let options = options.iter().map(|it| format!("`{}`", text(it))).collect::<Vec<_>>();
                one("is not one of the known values".to_owned(), format!("use one of {}", options.join(", ")))
            }
            Kind::Constant { expected_value } => {
                one("is not the only possible value".to_owned(), format!("use `{}`", text(expected_value)))
            }
            Kind::Pattern { pattern } => {
                one("does not match the pattern".to_owned(), format!("write a text that matches `{pattern}`"))
            }
            Kind::Minimum { limit } => one("is too small".to_owned(), format!("use at least {limit}")),
            Kind::ExclusiveMinimum { limit } => {
                one("is too small".to_owned(), format!("use more than {limit}"))
            }
            Kind::Maximum { limit } => one("is too large".to_owned(), format!("use at most {limit}")),
            Kind::ExclusiveMaximum { limit } => {
                one("is too large".to_owned(), format!("use less than {limit}"))
            }
            Kind::MinLength { limit } => {
                one("is too short".to_owned(), format!("use at least {limit} characters"))
            }
            Kind::MaxLength { limit } => {
                one("is too long".to_owned(), format!("use at most {limit} characters"))
            }
            Kind::MinItems { limit } => {
                one("has too few entries".to_owned(), format!("give at least {limit}"))
            }
            Kind::MaxItems { limit } => {
                one("has too many entries".to_owned(), format!("give at most {limit}"))
            }
            Kind::UniqueItems => one("has equal entries".to_owned(), "give each entry once".to_owned()),
            Kind::Format { format } => {
                one(format!("is not of the format `{format}`"), format!("write a valid `{format}`"))
            }
            _ => one(
                error.masked_with("the value").to_string(),
                format!("see the JSON Schema of the plug-in, at `{}`", error.schema_path().as_str()),
            ),
        }
    }

    /// The properties beside the keyword that found an unknown one.
    fn properties(&self, error: &ValidationError<'_>) -> Vec<String> {
        let keyword = error.schema_path().as_str();
        let around = keyword.rsplit_once('/').map_or("", |(around, _)| around);
        let properties = self.schema.pointer(around).and_then(|schema| schema.get("properties")?.as_object());
        properties.map(|them| them.keys().cloned().collect()).unwrap_or_default()
    }
}

fn unknown(path: &str, name: &str, known: &[String]) -> Problem {
    let problem = Problem::new(format!("{path}.{name}"), format!("`{name}` is unknown"));
    let close = known.iter().find(|known| is_typo(name, known));
    match close {
        Some(close) => problem.remedy(format!("did you mean `{close}`?")),
        None if known.is_empty() => problem.remedy("remove it"),
        None => problem.remedy(format!("remove it; there are: {}", known.join(", "))),
    }
}

/// `specific.columns[2].name`
fn path(error: &ValidationError<'_>, root: &str) -> String {
    let mut path = root.to_owned();
    for segment in error.instance_path().segments() {
        match segment {
            LocationSegment::Property(name) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&name);
            }
            LocationSegment::Index(index) => {
                path.push('[');
                path.push_str(&index.to_string());
                path.push(']');
            }
        }
    }
    path
}

/// A value that fits in a message.
fn shown(value: &Value) -> Option<String> {
    match value {
        Value::String(_) | Value::Number(_) | Value::Bool(_) => Some(text(value)),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

fn expected(kind: &TypeKind) -> String {
    let name = |name: &str| {
        match name {
            "null" => "nothing",
            "boolean" => "a boolean",
            "number" => "a number",
            "integer" => "a whole number",
            "string" => "a text",
            "array" => "a list",
            _ => "a mapping",
        }
        .to_owned()
    };
    match kind {
        TypeKind::Single(one) => name(&one.to_string()),
        TypeKind::Multiple(many) => {
            let mut names: Vec<_> = many.iter().map(|one| name(&one.to_string())).collect();
            // "a text or nothing", and not the other way round.
            names.sort_by_key(|name| name == "nothing");
            names.join(" or ")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(schema: &Value, value: &Value) -> Vec<String> {
        let problems = Schema::compile(schema).unwrap().problems(value, "specific");
        let mut told: Vec<_> = problems.iter().map(Problem::with_remedy).collect();
        told.sort();
        told
    }

    #[test]
    fn errors_have_path_value_and_remedy() {
        let schema = json!({
            "type": "object",
            "required": ["table"],
            "additionalProperties": false,
            "properties": {
                "table": { "type": "string", "pattern": "^[a-z]+$", "maxLength": 8 },
                "retention": { "type": ["integer", "null"], "minimum": 1 },
                "mode": { "enum": ["append", "replace"] },
                "columns": { "type": "array", "maxItems": 2, "items": { "$ref": "#/$defs/column" } },
            },
            "$defs": { "column": { "type": "object", "required": ["name"], "properties": { "name": { "type": "string" } } } },
        });
        assert_eq!(
            told(&schema, &json!({ "table": "orders", "columns": [{ "name": "a" }] })),
            Vec::<String>::new()
        );
        assert_eq!(
            told(
                &schema,
                &json!({
                    "tabel": "x", "zzz": 1, "retention": 0, "mode": "upsert",
                    "columns": [{ "name": "a" }, { "name": 7 }, {}],
                })
            ),
            [
                "specific.columns: has too many entries; give at most 2",
                "specific.columns[1].name: is a number: `7`; use a text",
                "specific.columns[2].name: `name` is missing; add `name` to `specific.columns[2]`",
                "specific.mode: is not one of the known values: `upsert`; use one of `append`, `replace`",
                "specific.retention: is too small: `0`; use at least 1",
                "specific.tabel: `tabel` is unknown; did you mean `table`?",
                "specific.table: `table` is missing; add `table` to `specific`",
                "specific.zzz: `zzz` is unknown; remove it; there are: table, retention, mode, columns",
            ]
        );
        assert_eq!(
            told(&schema, &json!({ "table": "Orders and more", "retention": "long" })),
            [
                "specific.retention: is a text: `long`; use a whole number or nothing",
                "specific.table: does not match the pattern: `Orders and more`; write a text that matches `^[a-z]+$`",
                "specific.table: is too long: `Orders and more`; use at most 8 characters",
            ]
        );
        assert_eq!(told(&schema, &json!([])), ["specific: is a list; use a mapping"]);
        let either = json!({ "oneOf": [{ "type": "string" }, { "type": "number" }] });
        assert_eq!(
            told(&either, &json!(true)),
            [
                "specific: the value is not valid under any of the schemas listed in the 'oneOf' keyword: `true`; see the JSON \
                 Schema of the plug-in, at `/oneOf`"
            ]
        );
    }

    #[test]
    fn wrong_schemas_and_foreign_references_are_refused() {
        for (schema, part) in [
            (json!({ "type": "text" }), "text"),
            (json!({ "$ref": "https://example.com/schema.json" }), "example.com"),
            (json!({ "pattern": "(" }), "pattern"),
        ] {
            let error = Schema::compile(&schema).err().unwrap_or_default();
            assert!(error.contains(part) || error.contains("regex"), "{schema}: {error}");
        }
    }

    #[test]
    fn no_text_makes_a_pattern_slow() {
        let schema = Schema::compile(&json!({ "pattern": "^(?=(a+)+$)(a+)+b$" })).unwrap();
        let begun = std::time::Instant::now();
        assert_eq!(schema.problems(&json!("a".repeat(5000)), "specific").len(), 1);
        assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}
