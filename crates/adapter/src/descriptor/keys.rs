//! Keys of columns that are not what they look like: slips of the hand, and words of the other shape of data contract.
//!
//! Keys that mean nothing here are passed over, and a slip would lose what it was meant to say without a word: a
//! primary key, a length.

use super::Problem;
use super::document::{Entry, Tree, short};
use super::problems::{Problems, is_typo};
use super::read::Fields;

/// What a shape of data contract knows of the keys of a column.
pub(super) struct Known {
    /// Keys that decide what is made.
    pub(super) used: &'static [&'static str],
    /// Keys of the standard that look like one of those.
    pub(super) other: &'static [&'static str],
    /// Keys of the other shape: when they say something, and what says it here.
    pub(super) foreign: &'static [(&'static str, Says, &'static str)],
    /// What the other shape is called.
    pub(super) name: &'static str,
}

/// When a key of the other shape says something that would be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    /// With any value.
    Something,
    /// When it is true.
    Yes,
    /// When it is false.
    No,
    /// With another value than NULL.
    Constraint,
}

/// Reports keys that look like one that would decide something and is not there.
pub(super) fn report(fields: &Fields<'_>, known: &Known, problems: &mut Problems) {
    if !problems.is_strict() {
        return;
    }
    for entry in fields.entries().filter(|entry| !is_unfilled(entry)) {
        let key = entry.key.as_str();
        if known.used.contains(&key) || known.other.contains(&key) {
            continue;
        }
        if let Some((_, says, instead)) = known.foreign.iter().find(|(foreign, ..)| *foreign == key) {
            if says.says(entry) {
                let message = format!("{} has no `{key}`, so it would say nothing", known.name);
                problems.ask(|| problem_at(fields, entry, message).remedy(format!("write {instead}")));
            }
        } else if let Some(close) =
            known.used.iter().find(|used| fields.get(used).is_none() && is_slip(key, used))
        {
            problems.ask(|| {
                problem_at(fields, entry, "this key means nothing here".to_owned())
                    .remedy(format!("did you mean `{close}`?"))
            });
        }
    }
}

/// The key that was written for one of `wanted`, none of which is there.
pub(super) fn slip<'a>(fields: &Fields<'a>, wanted: &[&'static str]) -> Option<(&'a Entry, &'static str)> {
    fields
        .entries()
        .filter(|entry| !is_unfilled(entry))
        .find_map(|entry| Some((entry, *wanted.iter().find(|wanted| is_slip(&entry.key, wanted))?)))
}

fn problem_at(fields: &Fields<'_>, entry: &Entry, message: String) -> Problem {
    let problem = fields.problem(&short(&entry.key), message).at(entry.at);
    match entry.node.source_text() {
        Some(text) => problem.value(text),
        None => problem,
    }
}

/// Also `is_primary_key` and `primary-key` for `primaryKey`.
fn is_slip(key: &str, wanted: &str) -> bool {
    let plain: String = key.chars().take(60).filter(char::is_ascii_alphanumeric).collect();
    let plain = plain.to_ascii_lowercase();
    let plain = plain.strip_prefix("is").unwrap_or(&plain);
    plain.eq_ignore_ascii_case(wanted) || is_typo(key, wanted)
}

/// Whether it is what a template leaves behind where nothing was filled in.
fn is_unfilled(entry: &Entry) -> bool {
    match &entry.node.tree {
        Tree::Null => true,
        Tree::Text(text) => text.trim().is_empty(),
        Tree::List(items) => items.is_empty(),
        Tree::Mapping(entries) => entries.is_empty(),
        Tree::Bool(_) | Tree::Number(..) => false,
    }
}

impl Says {
    fn says(self, entry: &Entry) -> bool {
        let text = entry.node.source_text().unwrap_or_default();
        match self {
            Self::Something => true,
            Self::Yes => text.trim().eq_ignore_ascii_case("true"),
            Self::No => text.trim().eq_ignore_ascii_case("false"),
            Self::Constraint => !text.trim().eq_ignore_ascii_case("null"),
        }
    }
}
