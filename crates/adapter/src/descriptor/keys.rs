//! Finds mistaken keys of columns: typos, and keys of the other shape of data contract.
//!
//! Unknown keys are ignored. So a mistaken key would silently lose a fact about the column, such as its primary
//! key or its length.

use super::Problem;
use super::document::{Entry, Tree, short};
use super::problems::{Problems, is_typo};
use super::read::Fields;

/// The keys of a column in one shape of data contract.
pub(super) struct Known {
    /// Keys that Landfall uses.
    pub(super) used: &'static [&'static str],
    /// Other valid keys of the standard, which are not typos of used ones.
    pub(super) other: &'static [&'static str],
    /// Keys of the other shape, when their values matter, and what to write instead.
    pub(super) foreign: &'static [(&'static str, Says, &'static str)],
    /// The name of this shape, for messages.
    pub(super) name: &'static str,
}

/// The values with which a key of the other shape has information that would be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    /// Any value.
    Something,
    /// `true`.
    Yes,
    /// `false`.
    No,
    /// Any value except `NULL`.
    Constraint,
}

/// Reports keys of the other shape, and keys that are probably typos of an absent used key.
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

/// The first entry whose key is probably a typo of one of `wanted`, and that key. All of `wanted` must be
/// absent.
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

/// Whether `key` is probably a typo of `wanted`, or another spelling: `is_primary_key`, `primary-key`,
/// `primaryKey`.
fn is_slip(key: &str, wanted: &str) -> bool {
    let plain: String = key.chars().take(60).filter(char::is_ascii_alphanumeric).collect();
    let plain = plain.to_ascii_lowercase();
    let plain = plain.strip_prefix("is").unwrap_or(&plain);
    plain.eq_ignore_ascii_case(wanted) || is_typo(key, wanted)
}

/// Whether the value is empty, as templates write it for empty inputs.
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
