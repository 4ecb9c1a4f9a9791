//! The log of an operation: what the platform's users see while they poll.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::descriptor::names;

/// Level of a log line of the contract.
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

/// A line the platform's users see.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// When.
    pub at: DateTime<Utc>,
    /// How bad.
    pub level: Level,
    /// One line, at most [`Journal::MAX_MESSAGE`] bytes.
    pub message: String,
    /// Which part of the task: a component id, or absent.
    pub phase: Option<String>,
}

/// Where work writes its progress. Bounded: past [`Journal::MAX_PENDING`] undrained lines, further ones are
/// counted and reported as one line. Cloning shares the journal; [`Journal::phase`] tags lines.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    pending: Arc<Mutex<Vec<LogLine>>>,
    dropped: Arc<AtomicU64>,
    phase: Option<Arc<str>>,
}

impl Journal {
    /// Longest message kept; the rest is cut.
    pub const MAX_MESSAGE: usize = 2000;
    /// Undrained lines kept.
    pub const MAX_PENDING: usize = 1000;

    /// The same journal, with lines tagged.
    #[must_use]
    pub fn phase(&self, phase: &str) -> Self {
        Self { phase: Some(phase.into()), ..self.clone() }
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
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.len() < Self::MAX_PENDING {
            pending.push(line);
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
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

    /// Takes what was written since the last call.
    pub fn drain(&self) -> Vec<LogLine> {
        let mut lines = std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
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
