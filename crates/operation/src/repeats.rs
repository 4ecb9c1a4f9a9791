//! Which failure a task that is tried again met last, so that its log has the same failure a few times and not once a try.
//!
//! It is the memory of one process: another one that takes the task up writes the failure once more.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use super::task::Token;
use landfall_adapter::LogLine;

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Repeats(Mutex<HashMap<Token, Repeat>>);

#[derive(Debug, Clone, Copy)]
struct Repeat {
    /// Hash of what the run had to say.
    said: u64,
    /// How many runs before the last one said the same.
    times: u32,
}

impl Repeats {
    /// Tasks remembered at most. Those that ended in another process are forgotten when it is reached, with all others.
    const MOST: usize = 4096;

    /// Remembers what a run had to say, and answers how many runs of the task in a row had said the same before.
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

    /// Forgets a task that is not tried again.
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
