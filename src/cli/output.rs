//! The output of the command line: plain lines, a progress bar on a terminal, or one JSON document.

use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value};

/// Prints results to stdout, and progress on a terminal. With `json`, stdout gets one document when the command
/// has ended.
pub(super) struct Output {
    json: bool,
    bar: Option<ProgressBar>,
    /// The result so far, as JSON.
    result: Option<Value>,
}

impl Output {
    /// Creates an output of plain lines, or with `json` of one JSON document.
    pub(super) fn new(json: bool) -> Self {
        Self { json, bar: None, result: None }
    }

    /// Shows a progress bar of `steps` if stderr is a terminal.
    pub(super) fn expect(&mut self, steps: usize) {
        self.bar = (!self.json && steps > 1 && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(Some(steps as u64), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}") {
                bar.set_style(style);
            }
            bar
        });
    }

    /// Prints a line of text.
    pub(super) fn say(&self, line: &str) {
        match &self.bar {
            _ if self.json => {}
            Some(bar) => bar.suspend(|| print(line)),
            None => print(line),
        }
    }

    /// Shows `what` as the current step.
    pub(super) fn working_on(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
        }
    }

    /// Advances the progress bar by one step.
    pub(super) fn step(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// Sets the result of the command as JSON, and replaces an earlier result.
    pub(super) fn result(&mut self, value: Value) {
        self.result = Some(value);
    }

    /// Ends a successful command: prints the JSON document.
    pub(super) fn end(&mut self) {
        if let Some(result) = self.result.take().filter(|_| self.json) {
            print(&format!("{result:#}"));
        }
    }

    /// Ends a failed command: prints the JSON document with the result so far and `errors`.
    pub(super) fn fail(&mut self, errors: &[String]) {
        if !self.json {
            return;
        }
        let mut document = match self.result.take() {
            Some(Value::Object(result)) => result,
            _ => Map::new(),
        };
        document.insert("errors".to_owned(), errors.into());
        print(&format!("{:#}", Value::Object(document)));
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Prints a line to stdout. Ignores errors, because a closed pipe must not end the command.
pub(super) fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints an error.
pub(super) fn error(line: &str) {
    let _ = writeln!(std::io::stderr(), "error: {line}");
}
