//! Rules for single fields: attributes of `validator` on the model, converted to problems here.
//!
//! `validator` reports names of Rust fields, without an order. A problem needs the key that the author wrote, and its
//! position.

use std::borrow::Cow;

use validator::{Validate, ValidationError};

use super::problems::Problems;
use super::read::Fields;

/// Checks the rules of one struct against the mapping that it was read from.
pub(super) fn check(model: &impl Validate, fields: &Fields<'_>, problems: &mut Problems) {
    if !problems.is_strict() {
        return;
    }
    let Err(errors) = model.validate() else { return };
    let mut broken: Vec<_> = errors
        .field_errors()
        .into_iter()
        .flat_map(|(field, errors)| errors.iter().map(move |error| (yaml_name(&field), error)))
        .collect();
    broken.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (name, error) in broken {
        // A missing field, or a field that is not a text, is reported where it is read.
        let Some((entry, text)) =
            fields.get(&name).and_then(|entry| Some((entry, entry.node.source_text()?)))
        else {
            continue;
        };
        problems.add(|| {
            let (message, remedy) = explain(&name, error);
            let problem = fields.problem(&name, message).at(entry.node.at).remedy(remedy);
            if text.is_empty() { problem } else { problem.value(text) }
        });
    }
}

/// The YAML key of a Rust field: `data_length` is `dataLength`.
fn yaml_name(field: &str) -> String {
    let mut name = String::with_capacity(field.len());
    let mut upper = false;
    for c in field.chars() {
        if c == '_' {
            upper = true;
        } else {
            name.push(if upper { c.to_ascii_uppercase() } else { c });
            upper = false;
        }
    }
    name
}

fn explain(name: &str, error: &ValidationError) -> (String, String) {
    let limit = |key: &str| error.params.get(key).map(ToString::to_string);
    let range = match (limit("min"), limit("max")) {
        (Some(min), Some(max)) => format!("{min} to {max}"),
        (Some(min), None) => format!("{min} or more"),
        (None, Some(max)) => format!("at most {max}"),
        (None, None) => String::new(),
    };
    match error.code.as_ref() {
        "length" if error.params.get("value").and_then(|value| value.as_str()) == Some("") => {
            (format!("`{name}` is empty"), format!("fill in `{name}`"))
        }
        "length" => (format!("`{name}` is too long"), format!("use {range} characters")),
        "range" => (format!("`{name}` is out of range"), format!("use {range}")),
        code => (
            error.message.as_deref().unwrap_or(code).to_owned(),
            error.params.get("remedy").and_then(|value| value.as_str()).unwrap_or_default().to_owned(),
        ),
    }
}

fn broken(message: &'static str, remedy: &'static str) -> ValidationError {
    let mut error = ValidationError::new("rule").with_message(Cow::Borrowed(message));
    error.add_param("remedy".into(), &remedy);
    error
}

/// A name on one line with a visible character.
pub(super) fn one_line(name: &str) -> Result<(), ValidationError> {
    // A NUL is reported everywhere.
    if name.chars().any(|c| c.is_control() && c != '\0') {
        return Err(broken("the name holds a control character", "write it on one line"));
    }
    if !name.is_empty() && name.trim().is_empty() {
        return Err(broken("the name is blank", "use letters"));
    }
    Ok(())
}

/// `MAJOR.MINOR.PATCH`, with the additions of semantic versions.
pub(super) fn version(version: &str) -> Result<(), ValidationError> {
    let (numbers, suffix) = match version.find(['-', '+']) {
        Some(end) => version.split_at(end),
        None => (version, ""),
    };
    let numbers: Vec<_> = numbers.split('.').collect();
    let number = |text: &&str| {
        !text.is_empty()
            && text.len() <= 9
            && text.bytes().all(|byte| byte.is_ascii_digit())
            && (text.len() == 1 || !text.starts_with('0'))
    };
    let suffix_fits = suffix.is_empty()
        || (suffix.len() > 1
            && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-+.".contains(&byte)));
    if numbers.len() == 3 && numbers.iter().all(number) && suffix_fits {
        Ok(())
    } else {
        Err(broken("the version is not `MAJOR.MINOR.PATCH`", "write three numbers, such as `0.1.0`"))
    }
}

/// The major version of a valid version.
pub(super) fn major(text: &str) -> Option<u64> {
    version(text).ok()?;
    text.split(['.', '-', '+']).next()?.parse().ok()
}
