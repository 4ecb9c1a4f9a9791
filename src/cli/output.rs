//! The output of the command line: plain lines, a progress bar on a terminal, or one JSON document.

use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value};

/// Prints results to stdout and progress beside them. As JSON, stdout gets one document, when the command has ended.
pub(super) struct Output {
    json: bool,
    bar: Option<ProgressBar>,
    /// The result so far, as JSON.
    result: Option<Value>,
}

impl Output {
    /// Lines of text, or one document.
    pub(super) fn new(json: bool) -> Self {
        Self { json, bar: None, result: None }
    }

    /// A bar of `steps` when stderr is a terminal.
    pub(super) fn expect(&mut self, steps: usize) {
        self.bar = (!self.json && steps > 1 && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(Some(steps as u64), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}") {
                bar.set_style(style);
            }
            bar
        });
    }

    /// A line of text.
    pub(super) fn say(&self, line: &str) {
        match &self.bar {
            _ if self.json => {}
            Some(bar) => bar.suspend(|| print(line)),
            None => print(line),
        }
    }

    /// The current step.
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

    /// The result as JSON; replaces the earlier one.
    pub(super) fn result(&mut self, value: Value) {
        self.result = Some(value);
    }

    /// The command has succeeded.
    pub(super) fn end(&mut self) {
        if let Some(result) = self.result.take().filter(|_| self.json) {
            print(&format!("{result:#}"));
        }
    }

    /// The command has failed: prints the result so far, with `errors`.
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

/// Ignores errors: a closed pipe must not end the command.
pub(super) fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints an error.
pub(super) fn error(line: &str) {
    let _ = writeln!(std::io::stderr(), "error: {line}");
}
