//! How often lines of one kind are written.
//!
//! Any caller can cause errors: broken TLS, broken HTTP, wrong passwords. The limiter writes a limited number of lines
//! of each kind per minute, and then the number of lines that it left out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The window in which lines are counted.
pub(super) const WINDOW: Duration = Duration::from_secs(60);

/// The limiter; see the module documentation.
pub(super) struct Limiter {
    /// The maximum number of lines of one kind in one window.
    most: u64,
    kinds: BTreeMap<String, Window>,
}

struct Window {
    since: Instant,
    lines: u64,
}

/// The number of lines of one kind that were not written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub(super) kind: String,
    pub(super) lines: u64,
}

impl Limiter {
    pub(super) fn new(most: u32) -> Self {
        Self { most: most.into(), kinds: BTreeMap::new() }
    }

    /// Counts one more line of this kind, and returns whether it may be written.
    pub(super) fn admits(&mut self, kind: &str, now: Instant) -> bool {
        if !self.kinds.contains_key(kind) {
            self.kinds.insert(kind.to_owned(), Window { since: now, lines: 0 });
        }
        let Some(window) = self.kinds.get_mut(kind) else { return true };
        window.lines = window.lines.saturating_add(1);
        window.lines <= self.most
    }

    /// Closes expired windows, and returns the lines that were left out in them.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<LeftOut> {
        let mut left_out = Vec::new();
        self.kinds.retain(|kind, window| {
            if now.saturating_duration_since(window.since) < WINDOW {
                return true;
            }
            let lines = window.lines.saturating_sub(self.most);
            if lines > 0 {
                left_out.push(LeftOut { kind: kind.clone(), lines });
            }
            false
        });
        left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_reports_lines_beyond_the_limit() {
        let (mut limiter, start) = (Limiter::new(2), Instant::now());
        let admitted: Vec<_> = (0..5).map(|_| limiter.admits("tls", start)).collect();
        assert_eq!(admitted, [true, true, false, false, false]);
        assert!(limiter.admits("login", start), "each kind has a limit of its own");
        let late = start + WINDOW - Duration::from_millis(1);
        assert!(!limiter.admits("tls", late));
        assert_eq!(limiter.sweep(late), []);
        let over = start + WINDOW;
        assert_eq!(limiter.sweep(over), [LeftOut { kind: "tls".to_owned(), lines: 4 }]);
        assert!(limiter.admits("tls", over));
        assert_eq!(limiter.sweep(over + WINDOW), [], "nothing was left out");
        assert!(limiter.kinds.is_empty());
    }
}
