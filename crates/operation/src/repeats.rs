//! The last failure of each retried task, so that its log repeats the same failure only a few times.
//!
//! Each process has its own memory: another process that continues the task writes the failure once more.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use super::task::Token;
use landfall_adapter::LogLine;

/// The last failures of retried tasks.
#[derive(Debug, Default)]
pub(super) struct Repeats(Mutex<HashMap<Token, Repeat>>);

#[derive(Debug, Clone, Copy)]
struct Repeat {
    /// A hash of the lines of the run.
    said: u64,
    /// How many runs before the last one had the same lines.
    times: u32,
}

impl Repeats {
    /// The maximum number of tasks. When it is reached, all entries are deleted, also those of tasks that ended in
    /// other processes.
    const MOST: usize = 4096;

    /// Records the lines of a run, and returns how many runs in a row had the same lines before.
    pub(super) fn note(&self, token: Token, failure: &str, lines: &[LogLine]) -> u32 {
        let mut hasher = DefaultHasher::new();
        failure.hash(&mut hasher);
        for line in lines {
            (&line.message, &line.phase).hash(&mut hasher);
        }
        let said = hasher.finish();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let times = match all.get(&token) {
            Some(last) if last.said == said => last.times.saturating_add(1),
            _ => 0,
        };
        if all.len() >= Self::MOST && !all.contains_key(&token) {
            all.clear();
        }
        all.insert(token, Repeat { said, times });
        times
    }

    /// Deletes the entry of a task that is not retried.
    pub(super) fn forget(&self, token: &Token) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_adapter::Journal;

    #[test]
    fn counts_equal_failures_in_a_row() {
        let repeats = Repeats::default();
        let (token, other) = (Token::random(), Token::random());
        let lines = |text: &str| {
            let journal = Journal::default();
            journal.info(text);
            journal.drain()
        };
        let note = |token, failure: &str, text: &str| repeats.note(token, failure, &lines(text));
        assert_eq!([0, 1, 2].map(|_| note(token, "away", "reading")), [0, 1, 2]);
        assert_eq!(note(other, "away", "reading"), 0);
        assert_eq!(note(token, "away", "made a table"), 0, "it got further this time");
        assert_eq!(note(token, "refused", "reading"), 0);
        assert_eq!(note(token, "refused", "reading"), 1);
        repeats.forget(&token);
        assert_eq!(note(token, "refused", "reading"), 0);
    }

    #[test]
    fn memory_of_failures_is_bounded() {
        let repeats = Repeats::default();
        for _ in 0..3 * Repeats::MOST {
            repeats.note(Token::random(), "away", &[]);
        }
        assert!(repeats.0.lock().unwrap().len() <= Repeats::MOST);
    }
}
