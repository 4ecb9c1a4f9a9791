//! `[import]`: how imports are read and answered.

use figment::value::Value;

use super::reader::{Reader, did_you_mean};
use landfall_adapter::import::{FIELDS, MESH};

/// `[import]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The parameter with which the control plane sends the environment-specific values of an entity.
    pub environment_key: String,
    /// The prefixes that an update may have, and their replacements.
    pub prefixes: Vec<(String, Vec<String>)>,
}

/// The first part that the path of a sent update may have.
const ROOTS: [&str; 4] = [MESH, "parameters", "environmentParameters", "witboost.parameters"];

const PREFIXES: &str = "import.prefixes";

impl Reader<'_> {
    pub(super) fn import(&mut self) -> Option<Import> {
        let environment_key = self.environment_key();
        let prefixes = self.prefixes();
        Some(Import { environment_key: environment_key?, prefixes: prefixes? })
    }

    fn environment_key(&mut self) -> Option<String> {
        const KEY: &str = "import.environment_key";
        let key: String = self.required(KEY)?;
        let fault = match key.as_str() {
            blank if blank.trim().is_empty() => "is empty",
            "descriptor" | "target" => "means something else in the parameters of an import",
            _ if key.chars().any(char::is_control) => "has a control character",
            _ => return Some(key),
        };
        self.problem(
            KEY,
            format_args!(
                "`{}` {fault}; write the environmentSpecificConfigKey of the control plane",
                key.escape_debug()
            ),
        );
        None
    }

    /// Reads `import.prefixes`: a table of prefixes, or a text or list that applies to all updates. `None`
    /// after a mistake.
    fn prefixes(&mut self) -> Option<Vec<(String, Vec<String>)>> {
        self.read.insert(PREFIXES.to_owned());
        let mut rows = Vec::new();
        match self.figment.find_value(PREFIXES) {
            Ok(table @ Value::Dict(..)) => flatten("", table, &mut rows),
            Ok(list) => rows.push((MESH.to_owned(), list)),
            Err(_) => {}
        }
        let (mut prefixes, mut wrong) = (Vec::new(), false);
        for (from, value) in rows {
            self.read.insert(format!("{PREFIXES}.{from}"));
            let at = if from == MESH { PREFIXES.to_owned() } else { format!("{PREFIXES}.{from}") };
            let Some(to) = self.places(&at, value) else {
                wrong = true;
                continue;
            };
            if let Some(fault) = unknown_field(&from) {
                self.problem(&at, fault);
                wrong = true;
                continue;
            }
            for place in &to {
                let taken = |(_, others): &&(String, Vec<String>)| others.contains(place);
                if let Some((other, _)) = prefixes.iter().find(taken) {
                    let fault =
                        format!("`{place}` is also the replacement of `{other}`; give each a different one");
                    self.problem(&at, fault);
                    wrong = true;
                }
            }
            prefixes.push((from, to));
        }
        if !prefixes.iter().any(|(from, _)| from == MESH) {
            prefixes.push((MESH.to_owned(), vec![MESH.to_owned()]));
        }
        if prefixes.iter().all(|(_, to)| to.is_empty()) && !wrong {
            self.problem(PREFIXES, format_args!("leaves no update; name one of: {}", ROOTS.join(", ")));
            wrong = true;
        }
        (!wrong).then_some(prefixes)
    }

    /// Reads a text or a list of texts, each a path below one of [`ROOTS`]. `None` after a mistake.
    fn places(&mut self, at: &str, value: Value) -> Option<Vec<String>> {
        let texts: Option<Vec<String>> = match value {
            Value::String(_, text) => Some(vec![text]),
            Value::Array(_, items) => items.into_iter().map(Value::into_string).collect(),
            _ => None,
        };
        let Some(texts) = texts else {
            self.problem(
                at,
                format_args!(
                    "must be text or a list of texts, each beginning with one of: {}",
                    ROOTS.join(", ")
                ),
            );
            return None;
        };
        let mut right = true;
        for text in &texts {
            let is_rooted = ROOTS.iter().any(|root| {
                text.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            });
            let is_path = text.split('.').all(|part| !part.is_empty() && part.trim() == part);
            if !(is_rooted && is_path) {
                let nearest = did_you_mean(ROOTS.into_iter(), text);
                let names = ROOTS.join(", ");
                self.problem(
                    at,
                    format_args!(
                        "`{text}` is no place for updates; use {names}, or a path below one{nearest}"
                    ),
                );
                right = false;
            }
        }
        right.then_some(texts)
    }
}

/// Flattens nested tables into (dotted path, value), because TOML reads `spec.mesh.tags` without quotes as
/// three keys.
fn flatten(path: &str, value: Value, rows: &mut Vec<(String, Value)>) {
    match value {
        Value::Dict(_, children) => {
            for (key, child) in children {
                let path = if path.is_empty() { key } else { format!("{path}.{key}") };
                flatten(&path, child, rows);
            }
        }
        other => rows.push((path.to_owned(), other)),
    }
}

/// Returns a message if no update can begin with the prefix `from`.
fn unknown_field(from: &str) -> Option<String> {
    let known = || FIELDS.iter().map(|field| format!("{MESH}.{field}"));
    let is_known = from == MESH
        || known().any(|field| {
            field == from
                || field.strip_prefix(from).is_some_and(|rest| rest.starts_with('.'))
                || (field.ends_with(".specific")
                    && from.strip_prefix(&field).is_some_and(|rest| rest.len() > 1 && rest.starts_with('.')))
        });
    if is_known {
        return None;
    }
    let all: Vec<String> = known().collect();
    let nearest = did_you_mean(all.iter().map(String::as_str), from);
    Some(format!(
        "no update of an import begins with `{from}`; use {MESH}, or one of: {}{nearest}",
        all.join(", ")
    ))
}
