//! Reads `specific`, which belongs to the technology and is therefore read strictly.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use serde_json::Value;

use super::document::short;
use super::problems::Suggestions;
use super::{Object, Problem};

/// The maximum number of unknown keys that are listed; further ones are counted.
const MAX_UNKNOWN: usize = 20;

/// Reads the keys that a technology knows, and reports all others.
///
/// Every getter returns `None` for an absent or empty value, and for a value of the wrong type after adding the
/// problem. [`Self::finish`] returns the problems, also for every key that was never read. Paths are relative to the
/// component: `specific.bucket`.
///
/// ```
/// use landfall_adapter::descriptor::SpecificReader;
///
/// let specific = serde_json::json!({ "buckt": "finance-cashflows" });
/// let mut reader = SpecificReader::new(specific.as_object().unwrap());
/// assert_eq!(reader.string("bucket"), None);
/// let problems = reader.finish();
/// assert_eq!(
///     problems[0].to_string(),
///     "specific.buckt: unknown key `buckt` in `specific`: `finance-cashflows`"
/// );
/// assert_eq!(problems[0].remedy.as_deref(), Some("did you mean `bucket`?"));
/// ```
#[derive(Debug)]
pub struct SpecificReader<'a> {
    object: &'a Object,
    prefix: String,
    asked: BTreeSet<&'static str>,
    problems: Vec<Problem>,
}

impl<'a> SpecificReader<'a> {
    /// Creates a reader of [`super::Component::specific`].
    pub fn new(specific: &'a Object) -> Self {
        Self::at("specific", specific)
    }

    /// Creates a reader of any object; `prefix` is its path.
    pub fn at(prefix: impl Into<String>, object: &'a Object) -> Self {
        Self { object, prefix: prefix.into(), asked: BTreeSet::new(), problems: Vec::new() }
    }

    /// Any value, unchecked. Absent and empty are the same: null, a blank text, an empty list.
    pub fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        self.asked.insert(key);
        self.object.get(key).filter(|value| !is_empty(value))
    }

    /// A text. A number is not accepted, because it would have lost leading zeros.
    pub fn string(&mut self, key: &'static str) -> Option<&'a str> {
        self.typed(key, "a text; put it in quotes", Value::as_str)
    }

    /// A required text that is not empty.
    pub fn required_string(&mut self, key: &'static str) -> Option<&'a str> {
        if self.value(key).is_none() {
            match self.object.get(key) {
                None | Some(Value::Null) => {
                    self.problem(key, format!("`{key}` is missing"), format!("add `{key}`"));
                }
                Some(_) => self.problem(key, format!("`{key}` is empty"), format!("fill in `{key}`")),
            }
            return None;
        }
        self.string(key)
    }

    /// `true` or `false`. `yes` and `no` are texts.
    pub fn boolean(&mut self, key: &'static str) -> Option<bool> {
        self.typed(key, "`true` or `false`", Value::as_bool)
    }

    /// A whole number within a range.
    pub fn integer(&mut self, key: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        let number = self.typed(key, "a whole number", Value::as_i64)?;
        if range.contains(&number) {
            return Some(number);
        }
        let remedy = format!("use {} to {}", range.start(), range.end());
        self.add(Problem::new(key, format!("`{key}` is out of range")).value(number).remedy(remedy));
        None
    }

    /// One of several names; upper and lower case are equal. Returns the spelling of `choices`.
    pub fn one_of(&mut self, key: &'static str, choices: &[&'static str]) -> Option<&'static str> {
        let text = self.typed(key, "a text", Value::as_str)?;
        let known = choices.iter().copied().find(|choice| choice.eq_ignore_ascii_case(text.trim()));
        if known.is_none() {
            let listed = choices.iter().map(|choice| format!("`{choice}`")).collect::<Vec<_>>().join(", ");
            let remedy = match Suggestions::default().closest(text, choices.iter().copied()) {
                Some(close) => format!("did you mean `{close}`?"),
                None => format!("use one of {listed}"),
            };
            self.add(Problem::new(key, format!("unknown `{key}`")).value(text).remedy(remedy));
        }
        known
    }

    /// A list of texts; other elements are problems.
    pub fn strings(&mut self, key: &'static str) -> Option<Vec<&'a str>> {
        let items = self.typed(key, "a list", Value::as_array)?;
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match item.as_str() {
                Some(text) => texts.push(text),
                None if self.problems.len() < MAX_UNKNOWN => {
                    self.add(
                        Problem::new(format!("{key}[{index}]"), format!("{} is not a text", kind(item)))
                            .remedy("put it in quotes"),
                    );
                }
                None => {}
            }
        }
        Some(texts)
    }

    /// A reader of a nested object; return it to [`Self::absorb`] afterwards.
    pub fn object(&mut self, key: &'static str) -> Option<SpecificReader<'a>> {
        let object = self.typed(key, "a mapping", Value::as_object)?;
        Some(Self::at(format!("{}.{key}", self.prefix), object))
    }

    /// Takes over the problems of a nested reader.
    pub fn absorb(&mut self, nested: SpecificReader<'_>) {
        self.problems.extend(nested.finish());
    }

    /// Adds a problem that only the technology can find.
    pub fn problem(&mut self, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        let problem = self.with_value(Problem::new(key, message).remedy(remedy), key);
        self.add(problem);
    }

    fn with_value(&self, problem: Problem, key: &str) -> Problem {
        match self.object.get(key) {
            Some(Value::String(text)) if !text.is_empty() => problem.value(text),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => problem.value(value),
            _ => problem,
        }
    }

    /// Every problem: those that were added, then the keys that were never read.
    pub fn finish(mut self) -> Vec<Problem> {
        let asked = std::mem::take(&mut self.asked);
        let unknown: Vec<&String> = self.object.keys().filter(|key| !asked.contains(key.as_str())).collect();
        let mut suggestions = Suggestions::default();
        for key in unknown.iter().take(MAX_UNKNOWN) {
            let close = suggestions.closest(
                key,
                // A key that is present was not meant.
                asked.iter().copied().filter(|known| !self.object.contains_key(*known)),
            );
            let remedy = match close {
                Some(close) => format!("did you mean `{close}`?"),
                None if asked.is_empty() => "remove it: no key is known here".to_owned(),
                None => format!("remove it, or use one of {}", listed(&asked)),
            };
            let name = short(key);
            let message = format!("unknown key `{name}` in `{}`", self.prefix);
            let problem = self.with_value(Problem::new(name, message).remedy(remedy), key);
            self.add(problem);
        }
        if let Some(more) = unknown.len().checked_sub(MAX_UNKNOWN).filter(|more| *more > 0) {
            self.add(Problem::new("", format!("{more} more unknown keys")).remedy("remove them"));
        }
        self.problems
    }

    fn typed<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(key)?;
        let typed = read(value);
        if typed.is_none() {
            self.problem(key, format!("`{key}` is {}", kind(value)), format!("use {wanted}"));
        }
        typed
    }

    fn add(&mut self, problem: Problem) {
        self.problems.push(problem.under(&self.prefix));
    }
}

fn listed(keys: &BTreeSet<&'static str>) -> String {
    keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(problems: &[Problem]) -> Vec<String> {
        problems
            .iter()
            .map(|problem| format!("{problem}; {}", problem.remedy.as_deref().unwrap_or_default()))
            .collect()
    }

    #[test]
    fn valid_values_are_read() {
        let specific = json!({
            "bucket": "b", "loadSampleData": true, "retention": 7, "format": "iceberg", "paths": ["a", "b"],
            "encryption": {"key": "k"}, "nothing": null,
        });
        let mut reader = SpecificReader::new(specific.as_object().unwrap());
        assert_eq!(reader.required_string("bucket"), Some("b"));
        assert_eq!(reader.boolean("loadSampleData"), Some(true));
        assert_eq!(reader.integer("retention", 1..=30), Some(7));
        assert_eq!(reader.one_of("format", &["Iceberg", "Parquet"]), Some("Iceberg"));
        assert_eq!(reader.strings("paths"), Some(vec!["a", "b"]));
        assert_eq!(reader.string("nothing"), None);
        assert_eq!(reader.string("absent"), None);
        let mut encryption = reader.object("encryption").unwrap();
        assert_eq!(encryption.string("key"), Some("k"));
        reader.absorb(encryption);
        assert_eq!(reader.finish(), []);
    }

    #[test]
    fn invalid_values_are_reported() {
        let specific = json!({
            "bucket": 12, "loadSampleData": "yes", "retention": 70, "days": 1.5, "format": "Icberg",
            "kind": "nothing like it", "paths": ["a", 1], "encryption": {"kye": "k"}, "name": "", "bukcet": "x",
            "zzz": 1,
        });
        let mut reader = SpecificReader::new(specific.as_object().unwrap());
        reader.string("bucket");
        reader.boolean("loadSampleData");
        reader.integer("retention", 1..=30);
        reader.integer("days", 1..=30);
        reader.one_of("format", &["Iceberg", "Parquet"]);
        reader.one_of("kind", &["one", "two"]);
        reader.strings("paths");
        reader.required_string("name");
        reader.required_string("owner");
        let mut encryption = reader.object("encryption").unwrap();
        encryption.string("key");
        reader.absorb(encryption);
        assert_eq!(
            lines(&reader.finish()),
            [
                "specific.bucket: `bucket` is a number: `12`; use a text; put it in quotes",
                "specific.loadSampleData: `loadSampleData` is a text: `yes`; use `true` or `false`",
                "specific.retention: `retention` is out of range: `70`; use 1 to 30",
                "specific.days: `days` is a fraction: `1.5`; use a whole number",
                "specific.format: unknown `format`: `Icberg`; did you mean `Iceberg`?",
                "specific.kind: unknown `kind`: `nothing like it`; use one of `one`, `two`",
                "specific.paths[1]: a number is not a text; put it in quotes",
                "specific.name: `name` is empty; fill in `name`",
                "specific.owner: `owner` is missing; add `owner`",
                "specific.encryption.kye: unknown key `kye` in `specific.encryption`: `k`; did you mean `key`?",
                "specific.bukcet: unknown key `bukcet` in `specific`: `x`; remove it, or use one of `bucket`, `days`, `encryption`, `format`, \
                 `kind`, `loadSampleData`, `name`, `owner`, `paths`, `retention`",
                "specific.zzz: unknown key `zzz` in `specific`: `1`; remove it, or use one of `bucket`, `days`, `encryption`, `format`, \
                 `kind`, `loadSampleData`, `name`, `owner`, `paths`, `retention`",
            ]
        );
    }

    #[test]
    fn a_thousand_unknown_keys_are_counted() {
        let object: Object = (0..1_000).map(|number| (format!("key{number}"), json!(1))).collect();
        let mut reader = SpecificReader::new(&object);
        reader.string("bucket");
        let problems = reader.finish();
        assert_eq!(problems.len(), MAX_UNKNOWN + 1);
        assert_eq!(problems[MAX_UNKNOWN].to_string(), "specific: 980 more unknown keys");
        let mut empty = SpecificReader::new(&object);
        empty.value("key0");
        assert_eq!(SpecificReader::new(&Object::new()).finish(), []);
    }
}
