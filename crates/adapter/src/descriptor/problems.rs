//! Collects problems at a limited cost.

use super::document::Position;
use super::{Problem, Strictness};

/// The maximum number of listed problems; further ones are counted.
pub(super) const MAX_LISTED: usize = 100;

/// All problems so far. Problems are created only while there is room, so a descriptor with a million mistakes costs
/// no more than one with a hundred.
#[derive(Debug)]
pub(super) struct Problems {
    listed: Vec<Problem>,
    more: usize,
    strictness: Strictness,
    suggestions: Suggestions,
}

impl Problems {
    pub(super) fn new(strictness: Strictness) -> Self {
        Self { listed: Vec::new(), more: 0, strictness, suggestions: Suggestions::default() }
    }

    /// Begins a separate list for a part that only some technologies use; [`Self::close`] ends it.
    pub(super) fn apart(&mut self) -> Self {
        let suggestions = std::mem::take(&mut self.suggestions);
        Self { listed: Vec::new(), more: 0, strictness: self.strictness, suggestions }
    }

    /// Ends a separate list, and returns its problems with paths relative to the component.
    pub(super) fn close(&mut self, mut apart: Self, component: &str) -> Vec<Problem> {
        self.suggestions = std::mem::take(&mut apart.suggestions);
        let relative = |mut problem: Problem| {
            if let Some(own) = problem.path.strip_prefix(component) {
                problem.path = own.trim_start_matches('.').to_owned();
            }
            problem
        };
        apart.into_list().into_iter().map(relative).collect()
    }

    /// The strictness.
    pub(super) fn strictness(&self) -> Strictness {
        self.strictness
    }

    /// Whether everything is required.
    pub(super) fn is_strict(&self) -> bool {
        self.strictness == Strictness::Full
    }

    /// Whether there is no problem.
    pub(super) fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// Whether another problem would be listed, and not only counted.
    pub(super) fn has_room(&self) -> bool {
        self.listed.len() < MAX_LISTED
    }

    /// Adds a problem that makes the descriptor unusable for any purpose.
    pub(super) fn add(&mut self, make: impl FnOnce() -> Problem) {
        if self.has_room() {
            self.listed.push(make());
        } else {
            self.more += 1;
        }
    }

    /// Adds a problem of a full descriptor only.
    pub(super) fn ask(&mut self, make: impl FnOnce() -> Problem) {
        if self.is_strict() {
            self.add(make);
        }
    }

    /// A suggestion, if there is room for a problem and a candidate is similar.
    pub(super) fn closest<'a>(
        &mut self,
        wanted: &str,
        candidates: impl IntoIterator<Item = &'a str>,
    ) -> Option<&'a str> {
        if self.has_room() { self.suggestions.closest(wanted, candidates) } else { None }
    }

    /// The problems in document order, with a last line for those that were only counted.
    pub(super) fn into_list(self) -> Vec<Problem> {
        in_order(self.listed, self.more)
    }
}

/// A list in document order, limited to the maximum.
pub(super) fn in_order(listed: Vec<Problem>, more: usize) -> Vec<Problem> {
    let (counts, mut listed): (Vec<_>, Vec<_>) =
        listed.into_iter().partition(|problem| problem.counted().is_some());
    // A stable sort: problems at the same position, or at none, keep their order.
    listed.sort_by_key(|problem| (problem.line.unwrap_or(u32::MAX), problem.column.unwrap_or(u32::MAX)));
    let more = more + counts.iter().filter_map(Problem::counted).sum::<usize>();
    let more = more + listed.len().saturating_sub(MAX_LISTED);
    listed.truncate(MAX_LISTED);
    if more > 0 {
        listed.push(Problem::surplus(more));
    }
    listed
}

impl Problem {
    /// The position; unknown parts are left out.
    #[must_use]
    pub(super) fn at(mut self, position: Position) -> Self {
        if position.line > 0 {
            self.line = Some(position.line);
            self.column = Some(position.column);
        }
        self
    }
}

/// Finds the most similar text among many, within a limit of comparisons, because edit distance is quadratic and both
/// sides come from outside.
#[derive(Debug)]
pub struct Suggestions {
    budget: usize,
}

impl Default for Suggestions {
    fn default() -> Self {
        Self { budget: 2_000_000 }
    }
}

impl Suggestions {
    /// The candidate of which the text is probably a typo, see [`is_typo`].
    pub fn closest<'a>(
        &mut self,
        wanted: &str,
        candidates: impl IntoIterator<Item = &'a str>,
    ) -> Option<&'a str> {
        let mut best: Option<(usize, &str)> = None;
        for candidate in candidates {
            let cost = wanted.len().saturating_mul(candidate.len()).saturating_add(16);
            self.budget = self.budget.checked_sub(cost)?;
            if let Some(distance) = slips(wanted, candidate)
                && best.is_none_or(|(least, _)| distance < least)
            {
                best = Some((distance, candidate));
            }
        }
        best.map(|(_, candidate)| candidate)
    }
}

/// Whether `wanted` is probably a typo of `candidate`: equal except for case and one letter in a short word, two
/// letters from eight on, three from sixteen on. Digits must be equal, because another number has another meaning.
pub fn is_typo(wanted: &str, candidate: &str) -> bool {
    slips(wanted, candidate).is_some()
}

fn slips(wanted: &str, candidate: &str) -> Option<usize> {
    let wanted = wanted.trim();
    let longest = wanted.len().max(candidate.len());
    let allowed = match longest {
        ..8 => 1,
        8..16 => 2,
        _ => 3,
    };
    // Longer texts are not words, and cost too much.
    if wanted.is_empty()
        || longest > 2 * super::Identifier::MAX_LENGTH
        || wanted.len().abs_diff(candidate.len()) > 2 * allowed
    {
        return None;
    }
    let digits = |text: &str| text.bytes().filter(u8::is_ascii_digit).collect::<Vec<u8>>();
    if digits(wanted) != digits(candidate) {
        return None;
    }
    let distance = strsim::osa_distance(&wanted.to_lowercase(), &candidate.to_lowercase());
    (distance <= allowed).then_some(distance)
}

#[cfg(test)]
mod tests {
    use super::is_typo;

    #[test]
    fn small_differences_are_typos() {
        for (wanted, candidate) in [
            ("kye", "key"),
            ("buckt", "bucket"),
            ("Icberg", "Iceberg"),
            ("technolgy", "technology"),
            ("outptuport", "outputport"),
            ("output-port", "outputport"),
            ("strnig", "STRING"),
            ("S3", "s3"),
            ("infrastructureTemplateID", "infrastructureTemplateId"),
        ] {
            assert!(is_typo(wanted, candidate), "{wanted} {candidate}");
        }
    }

    #[test]
    fn different_words_are_not_typos() {
        for (wanted, candidate) in [
            ("apiVersion", "version"),
            ("float64", "FLOAT"),
            ("timestamp_ntz", "TIMESTAMPZ"),
            ("int8", "INT"),
            ("c1", "c2"),
            ("port-1", "port-2"),
            ("longtext", "LONGBLOB"),
            ("S3", "S4"),
            ("", "x"),
        ] {
            assert!(!is_typo(wanted, candidate), "{wanted} {candidate}");
        }
    }
}
