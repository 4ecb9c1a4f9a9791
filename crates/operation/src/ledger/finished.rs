//! A cache of finished tasks that were polled recently.
//!
//! A finished task does not change until it is purged. When this process purges, it empties the cache. After a purge
//! by another process, an entry can outlive its task by at most [`KEPT_FOR`].

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::task::{Task, Token};

const KEPT_FOR: Duration = Duration::from_secs(10);
/// The maximum number and size of entries, which limit the memory.
const MOST: usize = 512;
const LARGEST: usize = 32 * 1024;

/// The cache; see the module documentation.
#[derive(Default)]
pub(super) struct Finished(Mutex<HashMap<Token, Kept>>);

struct Kept {
    since: Instant,
    task: Task,
}

impl Finished {
    /// The task with its log.
    pub(super) fn task(&self, token: &Token) -> Option<Task> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(token).filter(|kept| kept.since.elapsed() < KEPT_FOR).map(|kept| kept.task.clone())
    }

    /// Keeps a finished task, unless it is large. `outcome` is the length of its outcome as text.
    pub(super) fn keep(&self, task: &Task, outcome: usize) {
        let size: usize = task.logs.iter().map(|line| line.message.len() + 64).sum();
        if !task.state.is_terminal() || outcome.saturating_add(size) > LARGEST {
            return;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST {
            all.retain(|_, kept| kept.since.elapsed() < KEPT_FOR);
        }
        if all.len() >= MOST {
            // A client that polls so many tasks at once polls each of them once.
            all.clear();
        }
        all.insert(task.token, Kept { since: Instant::now(), task: task.clone() });
    }

    /// Empties the cache.
    pub(super) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;
    use crate::{Operation, State};
    use landfall_adapter::{Level, LogLine};

    fn task(state: State) -> Task {
        let now = Utc::now();
        Task {
            token: Token::random(),
            operation: Operation::Provision,
            components: Vec::new(),
            targets: Vec::new(),
            state,
            attempt: 1,
            submitted_at: now,
            started_at: Some(now),
            finished_at: state.is_terminal().then_some(now),
            outcome: None,
            reason: None,
            logs: log(),
        }
    }

    fn log() -> Vec<LogLine> {
        let line = |message: &str| LogLine {
            at: Utc::now(),
            level: Level::Info,
            message: message.to_owned(),
            phase: None,
        };
        vec![line("one"), line("two")]
    }

    #[test]
    fn caches_only_small_finished_tasks() {
        let finished = Finished::default();
        let (done, running, large) = (task(State::Completed), task(State::Running), task(State::Failed));
        finished.keep(&done, 100);
        finished.keep(&running, 100);
        finished.keep(&large, LARGEST);
        assert_eq!(finished.task(&done.token).as_ref(), Some(&done));
        assert!(finished.task(&running.token).is_none() && finished.task(&large.token).is_none());
        finished.forget();
        assert!(finished.task(&done.token).is_none());
    }

    #[test]
    fn number_of_entries_is_limited() {
        let finished = Finished::default();
        for _ in 0..3 * MOST {
            finished.keep(&task(State::Completed), 0);
            assert!(finished.0.lock().unwrap().len() <= MOST);
        }
    }
}
