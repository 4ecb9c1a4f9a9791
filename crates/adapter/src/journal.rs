//! The log of a task, which users see while they poll.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::descriptor::names;

/// The level of a log line in the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// `DEBUG`
    Debug,
    /// `INFO`
    Info,
    /// `WARNING`
    Warning,
    /// `ERROR`
    Error,
}

/// A log line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// The time of the line.
    pub at: DateTime<Utc>,
    /// The level.
    pub level: Level,
    /// One line, at most [`Journal::MAX_MESSAGE`] bytes.
    pub message: String,
    /// The part of the task: a component id, if any.
    pub phase: Option<String>,
}

/// The log of running work. It is bounded: after [`Journal::MAX_PENDING`] undrained lines, further lines are only
/// counted, and the number is reported in one line. Clones share the journal. [`Journal::phase`] tags lines, and
/// [`Journal::group`] keeps the lines of concurrent parts together.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    lines: Arc<Mutex<Lines>>,
    phase: Option<Arc<str>>,
    group: Option<Arc<Group>>,
}

#[derive(Debug, Default)]
struct Lines {
    /// Lines to drain.
    ready: Vec<LogLine>,
    /// Groups that have not ended, and ended ones behind them, in the order in which they began. Lines of the
    /// first group are ready when they are written.
    groups: VecDeque<Waiting>,
    /// Lines of the other groups.
    waiting: usize,
    begun: u64,
    dropped: u64,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    lines: Vec<LogLine>,
    has_ended: bool,
}

/// Ends the group when its last journal is dropped.
#[derive(Debug)]
struct Group {
    lines: Arc<Mutex<Lines>>,
    number: u64,
}

impl Lines {
    fn add(&mut self, line: LogLine, group: Option<u64>) {
        let behind = self.groups.iter_mut().skip(1).find(|it| Some(it.number) == group);
        let is_behind = behind.is_some();
        let count = if is_behind { self.waiting } else { self.ready.len() };
        let lines = behind.map_or(&mut self.ready, |group| &mut group.lines);
        if count >= Journal::MAX_PENDING {
            self.dropped += 1;
            return;
        }
        lines.push(line);
        if is_behind {
            self.waiting += 1;
        }
    }

    fn end(&mut self, number: u64) {
        if let Some(group) = self.groups.iter_mut().find(|it| it.number == number) {
            group.has_ended = true;
        }
        while self.groups.front().is_some_and(|first| first.has_ended) {
            self.groups.pop_front();
            if let Some(next) = self.groups.front_mut() {
                self.waiting = self.waiting.saturating_sub(next.lines.len());
                self.ready.append(&mut next.lines);
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).end(self.number);
    }
}

impl Journal {
    /// The maximum length of a message in bytes; the rest is cut off.
    pub const MAX_MESSAGE: usize = 2000;
    /// The maximum number of undrained lines.
    pub const MAX_PENDING: usize = 1000;

    /// The same journal, which tags its lines.
    #[must_use]
    pub fn phase(&self, phase: &str) -> Self {
        Self { phase: Some(phase.into()), ..self.clone() }
    }

    /// The same journal for a part that runs beside others. Its lines are held back until the parts that
    /// began before it have ended, so the lines of each part stay together. The part ends when the last clone
    /// of this journal is dropped.
    #[must_use]
    pub fn group(&self, phase: &str) -> Self {
        let mut lines = self.lines();
        lines.begun += 1;
        let number = lines.begun;
        lines.groups.push_back(Waiting { number, lines: Vec::new(), has_ended: false });
        drop(lines);
        let group = Group { lines: Arc::clone(&self.lines), number };
        Self { lines: Arc::clone(&self.lines), phase: Some(phase.into()), group: Some(Arc::new(group)) }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a line.
    pub fn log(&self, level: Level, message: impl AsRef<str>) {
        let message = message.as_ref();
        let mut end = message.len().min(Self::MAX_MESSAGE);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        let text: String = message
            .get(..end)
            .unwrap_or_default()
            .chars()
            .map(|c| if c.is_control() || names::is_deceptive(c) { ' ' } else { c })
            .collect();
        let line =
            LogLine { at: Utc::now(), level, message: text, phase: self.phase.as_deref().map(str::to_owned) };
        self.lines().add(line, self.group.as_ref().map(|group| group.number));
    }

    /// Writes an INFO line.
    pub fn info(&self, message: impl AsRef<str>) {
        self.log(Level::Info, message);
    }

    /// Writes a WARNING line.
    pub fn warn(&self, message: impl AsRef<str>) {
        self.log(Level::Warning, message);
    }

    /// Writes an ERROR line.
    pub fn error(&self, message: impl AsRef<str>) {
        self.log(Level::Error, message);
    }

    /// Takes the lines since the last call.
    pub fn drain(&self) -> Vec<LogLine> {
        let mut journal = self.lines();
        let mut lines = std::mem::take(&mut journal.ready);
        let dropped = std::mem::take(&mut journal.dropped);
        drop(journal);
        if dropped > 0 {
            lines.push(LogLine {
                at: Utc::now(),
                level: Level::Warning,
                message: format!("{dropped} more lines were not kept"),
                phase: None,
            });
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(journal: &Journal) -> Vec<String> {
        let told = journal.drain().into_iter();
        told.map(|line| format!("{}: {}", line.phase.unwrap_or_default(), line.message)).collect()
    }

    #[test]
    fn lines_of_parts_that_run_side_by_side_follow_each_other() {
        let journal = Journal::default();
        let (a, b, c) = (journal.group("a"), journal.group("b"), journal.group("c"));
        b.info("1");
        a.info("1");
        c.info("1");
        journal.info("of all");
        assert_eq!(told(&journal), ["a: 1", ": of all"]);
        a.info("2");
        b.info("2");
        // The group has ended, but its lines still wait.
        drop(b);
        let clone = a.clone();
        drop(a);
        c.info("2");
        assert_eq!(told(&journal), ["a: 2"]);
        drop(clone);
        assert_eq!(told(&journal), ["b: 1", "b: 2", "c: 1", "c: 2"]);
        c.info("3");
        let d = journal.group("d");
        d.info("1");
        drop((c, d));
        assert_eq!(told(&journal), ["c: 3", "d: 1"]);
        journal.info("the end");
        assert_eq!(told(&journal), [": the end"]);
    }

    #[test]
    fn lines_that_wait_are_bounded() {
        let journal = Journal::default();
        let (first, second) = (journal.group("a"), journal.group("b"));
        for _ in 0..Journal::MAX_PENDING + 7 {
            second.info("x");
        }
        first.info("y");
        assert_eq!(told(&journal), ["a: y", ": 7 more lines were not kept"]);
        drop(first);
        assert_eq!(journal.drain().len(), Journal::MAX_PENDING);
        for _ in 0..Journal::MAX_PENDING + 7 {
            second.info("x");
        }
        assert_eq!(journal.drain().len(), Journal::MAX_PENDING + 1);
    }
}
