//! What the command line prints: plain lines, a progress bar where there is a terminal, or JSON.

use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Prints results to stdout and progress beside them.
pub(super) struct Output {
    json: bool,
    bar: Option<ProgressBar>,
}

impl Output {
    /// A bar of `steps` when stderr is a terminal; nothing but the result when `json`.
    pub(super) fn new(json: bool, steps: usize) -> Self {
        let bar = (!json && steps > 1 && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(Some(steps as u64), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self { json, bar }
    }

    /// A line for people.
    pub(super) fn say(&self, line: &str) {
        match &self.bar {
            _ if self.json => {}
            Some(bar) => bar.suspend(|| print(line)),
            None => print(line),
        }
    }

    /// What is being worked on.
    pub(super) fn working_on(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
        }
    }

    /// One step is done.
    pub(super) fn step(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// The result for programs.
    pub(super) fn result(&self, value: &serde_json::Value) {
        if self.json {
            print(&format!("{value:#}"));
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A closed pipe ends the reader's interest, not the command.
pub(super) fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Something is wrong.
pub(super) fn error(line: &str) {
    let _ = writeln!(std::io::stderr(), "error: {line}");
}
