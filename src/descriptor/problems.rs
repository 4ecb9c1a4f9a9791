//! Collecting problems at a bounded cost.

use super::document::Position;
use super::{Problem, Strictness};

/// Problems listed in one answer; past that, they are counted.
pub(super) const MAX_LISTED: usize = 100;

/// Every problem found so far. Problems are made only while there is room for them, so a descriptor with a million
/// mistakes costs no more than one with a hundred.
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

    /// What is asked at the moment.
    pub(super) fn strictness(&self) -> Strictness {
        self.strictness
    }

    /// Whether everything is asked.
    pub(super) fn is_strict(&self) -> bool {
        self.strictness == Strictness::Full
    }

    /// Asks for no more than this from here on; gives back what was asked before.
    pub(super) fn asking(&mut self, strictness: Strictness) -> Strictness {
        std::mem::replace(&mut self.strictness, strictness)
    }

    /// Whether there is no problem so far.
    pub(super) fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// Whether another problem would be listed, and not only counted.
    pub(super) fn has_room(&self) -> bool {
        self.listed.len() < MAX_LISTED
    }

    /// Something that makes the descriptor unusable for any purpose.
    pub(super) fn add(&mut self, make: impl FnOnce() -> Problem) {
        if self.has_room() {
            self.listed.push(make());
        } else {
            self.more += 1;
        }
    }

    /// Something that is asked of a full descriptor only.
    pub(super) fn ask(&mut self, make: impl FnOnce() -> Problem) {
        if self.is_strict() {
            self.add(make);
        }
    }

    /// "did you mean", when there is room for a problem and one of the candidates is close.
    pub(super) fn closest<'a>(
        &mut self,
        wanted: &str,
        candidates: impl IntoIterator<Item = &'a str>,
    ) -> Option<&'a str> {
        if self.has_room() { self.suggestions.closest(wanted, candidates) } else { None }
    }

    /// In document order, with a last line for those that were only counted.
    pub(super) fn into_list(mut self) -> Vec<Problem> {
        // Stable: problems at one place, or at none, stay in the order in which they were found.
        self.listed
            .sort_by_key(|problem| (problem.line.unwrap_or(u32::MAX), problem.column.unwrap_or(u32::MAX)));
        if self.more > 0 {
            self.listed.push(
                Problem::new("", format!("{} more problems are not listed", self.more))
                    .remedy("correct these first"),
            );
        }
        self.listed
    }
}

impl Problem {
    /// Where it is; an unknown position is left out.
    #[must_use]
    pub(super) fn at(mut self, position: Position) -> Self {
        if position.line > 0 {
            self.line = Some(position.line);
            self.column = Some(position.column);
        }
        self
    }
}

/// Finds the closest of many texts, within a budget of comparisons: edit distance is quadratic, and both sides of
/// it come from outside.
#[derive(Debug)]
pub(super) struct Suggestions {
    budget: usize,
}

impl Default for Suggestions {
    fn default() -> Self {
        Self { budget: 2_000_000 }
    }
}

impl Suggestions {
    /// The candidate that differs by at most a third of its letters, without regard to case.
    pub(super) fn closest<'a>(
        &mut self,
        wanted: &str,
        candidates: impl IntoIterator<Item = &'a str>,
    ) -> Option<&'a str> {
        let wanted = wanted.trim().to_lowercase();
        let mut best: Option<(usize, &str)> = None;
        for candidate in candidates {
            let cost = wanted.len().saturating_mul(candidate.len()).saturating_add(16);
            self.budget = self.budget.checked_sub(cost)?;
            let longest = wanted.len().max(candidate.len());
            let allowed = (longest / 3).max(1);
            if wanted.len().abs_diff(candidate.len()) > allowed {
                continue;
            }
            let distance = strsim::osa_distance(&wanted, &candidate.to_lowercase());
            if distance <= allowed && best.is_none_or(|(least, _)| distance < least) {
                best = Some((distance, candidate));
            }
        }
        best.map(|(_, candidate)| candidate)
    }
}
