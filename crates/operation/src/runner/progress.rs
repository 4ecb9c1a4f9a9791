//! How far work got, written to the log however it ends.

use landfall_adapter::error::{Error, Kind};
use landfall_adapter::{Change, Journal};

use crate::work::Assigned;

/// How work ended before it was complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Stopped,
    Failed,
    /// The work was dropped before it returned.
    CutOff,
}

impl End {
    pub(super) fn of(error: &Error) -> Self {
        if *error.kind() == Kind::Cancelled { Self::Stopped } else { Self::Failed }
    }

    pub(super) fn verb(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::CutOff => "cut off",
        }
    }
}

/// The progress of a component's changes. If the work ends before the last change, `drop` logs that, because no
/// other code of dropped work runs.
pub(super) struct ChangeProgress<'a> {
    pub(super) journal: &'a Journal,
    pub(super) changes: &'a [Change],
    pub(super) made: usize,
    /// Whether the next change has begun.
    pub(super) begun: bool,
    pub(super) end: End,
}

impl<'a> ChangeProgress<'a> {
    pub(super) fn new(journal: &'a Journal, changes: &'a [Change]) -> Self {
        Self { journal, changes, made: 0, begun: false, end: End::CutOff }
    }
}

impl Drop for ChangeProgress<'_> {
    fn drop(&mut self) {
        let (made, left) = self.changes.split_at(self.made.min(self.changes.len()));
        let (unfinished, left) = left.split_at(usize::from(self.begun).min(left.len()));
        if unfinished.is_empty() && left.is_empty() {
            return;
        }
        let (verb, count) = (self.end.verb(), self.changes.len());
        self.journal.warn(match made {
            [] => format!("{verb} with 0 of {count} changes made"),
            _ => format!("{verb} with {} of {count} changes made: {}", made.len(), summaries(made)),
        });
        for (what, changes) in [("not finished", unfinished), ("not made", left)] {
            if !changes.is_empty() {
                self.journal.warn(format!("{what}: {}", summaries(changes)));
            }
        }
    }
}

fn summaries(changes: &[Change]) -> String {
    few(changes.iter().map(|change| change.summary.clone()))
}

/// The state of one component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    NotBegun,
    Planning,
    Working,
    Done,
    Ended(End),
}

/// The progress of a task's components; like [`ChangeProgress`] for components.
pub(super) struct ComponentProgress<'a> {
    pub(super) journal: &'a Journal,
    pub(super) assigned: &'a [Assigned],
    pub(super) stages: Vec<Stage>,
    /// Whether the work on a component has begun.
    pub(super) is_working: bool,
}

impl<'a> ComponentProgress<'a> {
    pub(super) fn new(journal: &'a Journal, assigned: &'a [Assigned]) -> Self {
        Self { journal, assigned, stages: vec![Stage::NotBegun; assigned.len()], is_working: false }
    }

    pub(super) fn enter(&mut self, number: usize, stage: Stage) {
        self.is_working |= stage == Stage::Working;
        if let Some(at) = self.stages.get_mut(number) {
            *at = stage;
        }
    }

    /// The ids of the components in this state.
    fn ids(&self, is_there: impl Fn(Stage) -> bool) -> Vec<String> {
        let there = self.assigned.iter().zip(&self.stages).filter(|(_, stage)| is_there(**stage));
        there.map(|(one, _)| one.work.component.id.to_string()).collect()
    }
}

impl Drop for ComponentProgress<'_> {
    fn drop(&mut self) {
        if self.assigned.len() < 2 || self.stages.iter().all(|stage| *stage == Stage::Done) {
            return;
        }
        let ends = [End::Failed, End::Stopped, End::CutOff].map(|end| {
            let ids = self.ids(|stage| match stage {
                Stage::Ended(ended) => ended == end,
                // The work was dropped before it returned.
                Stage::Planning | Stage::Working => end == End::CutOff,
                Stage::NotBegun | Stage::Done => false,
            });
            (end.verb(), ids)
        });
        let ends: Vec<_> = ends.into_iter().filter(|(_, ids)| !ids.is_empty()).collect();
        if !self.is_working && !ends.is_empty() {
            for (verb, ids) in ends {
                self.journal
                    .warn(format!("nothing was changed in this run: {verb} while planning {}", few(ids)));
            }
            return;
        }
        self.journal.warn(format!("components done: {}", few(self.ids(|stage| stage == Stage::Done))));
        for (verb, ids) in ends {
            self.journal.warn(format!("{verb} in: {}", few(ids)));
        }
        let left = self.ids(|stage| stage == Stage::NotBegun);
        if !left.is_empty() {
            self.journal.warn(format!("not begun: {}", few(left)));
        }
    }
}

/// The first few, shortened, and the number of the others, in one line.
pub(super) fn few(items: impl IntoIterator<Item = String, IntoIter: ExactSizeIterator>) -> String {
    const SHOWN: usize = 5;
    const LENGTH: usize = 120;
    let items = items.into_iter();
    let count = items.len();
    let mut shown: Vec<String> = items
        .take(SHOWN)
        .map(|item| match item.char_indices().nth(LENGTH) {
            Some((end, _)) => format!("{}...", item.get(..end).unwrap_or_default()),
            None => item,
        })
        .collect();
    if count == 0 {
        shown.push("none".to_owned());
    } else if count > SHOWN {
        shown.push(format!("and {} more", count - SHOWN));
    }
    shown.join("; ")
}
