//! Problems of a descriptor, in terms that its author can act on.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::names;

/// One problem, with its path and its remedy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Problem {
    /// Dot path from the root of the document: `dataProduct.components[0].dataContract.schema[2].dataType`.
    pub path: String,
    /// The line in the document, from 1, if known.
    pub line: Option<u32>,
    /// The column in the document, from 1, if known.
    pub column: Option<u32>,
    /// The value as written, shortened to one line.
    pub value: Option<String>,
    /// The problem, as a sentence without a full stop.
    pub message: String,
    /// The remedy ("use one of ...", "did you mean `bucket`?").
    pub remedy: Option<String>,
}

impl Problem {
    /// A problem at `path`, which callers may prefix later.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), ..Self::default() }
    }

    /// Sets the value, shortened to one line of at most 80 characters.
    #[must_use]
    pub fn value(mut self, value: impl fmt::Display) -> Self {
        let text = names::visible(&value.to_string().replace(char::is_control, " "));
        self.value = Some(match text.char_indices().nth(80) {
            Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
            None => text,
        });
        self
    }

    /// Sets the remedy.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        let remedy = remedy.into();
        // A remedy may quote a name from the document, so unreadable characters become spaces.
        let unreadable = |c: char| c.is_control() || names::is_deceptive(c);
        self.remedy =
            Some(if remedy.contains(unreadable) { remedy.replace(unreadable, " ") } else { remedy });
        self
    }

    /// The problem on one line, with its remedy.
    pub fn with_remedy(&self) -> String {
        match &self.remedy {
            Some(remedy) => format!("{self}; {remedy}"),
            None => self.to_string(),
        }
    }

    /// The same problem with a prefix: `specific.bucket` under `components[0]`.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        if !prefix.is_empty() {
            let separator = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
            self.path = format!("{prefix}{separator}{}", self.path);
        }
        self
    }
}

/// The end of a problem that counts further ones.
const SURPLUS: &str = " more problems are not listed";

impl Problem {
    /// The last line of a list: the number of further problems.
    pub(super) fn surplus(count: usize) -> Self {
        Self::new("", format!("{count}{SURPLUS}")).remedy("correct these first")
    }

    /// Whether it was found by parsing, and not by a technology.
    pub fn is_of_reading(&self) -> bool {
        self.line.is_some() || self.counted().is_some()
    }

    /// The number of problems that it counts, if it is such a last line.
    pub(super) fn counted(&self) -> Option<usize> {
        self.message.strip_suffix(SURPLUS)?.parse().ok()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if let Some(value) = &self.value {
            write!(f, ": `{value}`")?;
        }
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, " (line {line}, column {column})")?;
        }
        Ok(())
    }
}
