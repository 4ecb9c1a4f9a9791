//! Reads keys by name, records which keys were read, and collects mistakes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use figment::Figment;
use figment::value::{Dict, Value};
use landfall_adapter::Secret;
use landfall_adapter::settings::duration;
use serde::de::DeserializeOwned;

use super::Mode;

/// Reads keys, records which keys were read, and collects mistakes.
pub(super) struct Reader<'a> {
    pub(super) figment: &'a Figment,
    pub(super) environment: &'a BTreeMap<String, String>,
    pub(super) mode: Mode,
    pub(super) problems: &'a mut Vec<String>,
    pub(super) read: BTreeSet<String>,
    pub(super) data_dir: String,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        figment: &'a Figment,
        environment: &'a BTreeMap<String, String>,
        mode: Mode,
        problems: &'a mut Vec<String>,
    ) -> Self {
        Self { figment, environment, mode, problems, read: BTreeSet::new(), data_dir: String::new() }
    }

    pub(super) fn problem(&mut self, key: &str, message: impl std::fmt::Display) {
        let origin = self
            .figment
            .find_metadata(key)
            .and_then(|metadata| metadata.source.as_ref())
            .and_then(|source| source.file_path())
            .map(|path| format!(" (in {})", path.display()))
            .unwrap_or_default();
        self.problems.push(format!("{key}: {message}{origin}"));
    }

    /// Calls `look` and adds the mistake it returns, but only if a server on this machine starts with the
    /// configuration.
    pub(super) fn look(&mut self, key: &str, look: impl FnOnce() -> Option<String>) {
        if self.mode == Mode::Serve
            && let Some(problem) = look()
        {
            self.problem(key, problem);
        }
    }

    pub(super) fn optional<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        self.read.insert(key.to_owned());
        let value = self.figment.find_value(key).ok()?;
        match value.deserialize::<T>() {
            Ok(read) => Some(read),
            Err(error) => {
                self.problem(key, error.kind);
                None
            }
        }
    }

    pub(super) fn required<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        if self.figment.find_value(key).is_err() {
            self.read.insert(key.to_owned());
            self.problem(key, "is missing");
            return None;
        }
        self.optional(key)
    }

    pub(super) fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let text: String = self.required(key)?;
        let chosen = choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
        if chosen.is_none() {
            let names = choices.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            self.problem(key, format_args!("`{text}` is not known; use one of: {names}"));
        }
        chosen
    }

    pub(super) fn duration(&mut self, key: &str, least: Duration) -> Option<Duration> {
        let text: String = self.required(key)?;
        duration(&text, least).map_err(|problem| self.problem(key, problem)).ok()
    }

    pub(super) fn optional_duration(&mut self, key: &str, least: Duration) -> Option<Duration> {
        if self.figment.contains(key) {
            self.duration(key, least)
        } else {
            // Record the key as known, so that a misspelt key gets a suggestion.
            self.read.insert(key.to_owned());
            None
        }
    }

    pub(super) fn at_least_one<T: DeserializeOwned + PartialOrd + From<u8> + std::fmt::Display>(
        &mut self,
        key: &str,
    ) -> Option<T> {
        let number: T = self.required(key)?;
        if number < T::from(1) {
            self.problem(key, format_args!("`{number}` is too small; at least 1 is needed"));
            return None;
        }
        Some(number)
    }

    /// Refuses a key of an earlier version, and names its replacement.
    pub(super) fn removed(&mut self, key: &str, instead: &str) {
        if self.figment.contains(key) {
            self.read.insert(key.to_owned());
            self.problem(key, format_args!("is not a key any more; remove it, and set {instead}"));
        }
    }

    /// Reads a secret by reference: `{ env = "NAME" }` or `{ file = "PATH" }`. A line break at the end of the
    /// file is not part of the secret. `None` after a mistake.
    pub(super) fn secret(&mut self, key: &str) -> Option<Secret> {
        let (env, file) = (format!("{key}.env"), format!("{key}.file"));
        let name: Option<String> = self.optional(&env);
        let path: Option<String> = self.optional(&file);
        match (name, path) {
            (Some(name), None) => match self.environment.get(&name) {
                Some(text) if !text.is_empty() => Some(Secret::new(text.as_str())),
                _ => {
                    self.problem(&env, format_args!("the variable `{name}` is not set, or empty"));
                    None
                }
            },
            (None, Some(path)) => match Secret::from_file(Path::new(&path)) {
                Ok(secret) => Some(secret),
                Err(error) => {
                    self.problem(&file, format_args!("`{path}` cannot be read: {error}"));
                    None
                }
            },
            _ => {
                self.read.insert(key.to_owned());
                self.problem(key, "must be one of `{ env = \"NAME\" }` and `{ file = \"PATH\" }`");
                None
            }
        }
    }

    pub(super) fn children(&mut self, key: &str) -> Vec<String> {
        match self.figment.find_value(key) {
            Ok(Value::Dict(_, children)) => children.into_keys().collect(),
            Ok(_) => {
                self.problem(key, "must be a table");
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }

    /// Marks all keys below `key` as read, so that none is reported. For a table whose kind, and so whose keys,
    /// are unknown.
    pub(super) fn skip_key(&mut self, key: &str) {
        if let Ok(table) = self.figment.find_value(key) {
            let mut written = Vec::new();
            leaves(key, &table, &mut written);
            self.read.extend(written);
        }
    }

    /// Adds a mistake for every key that nothing has read.
    pub(super) fn unknown_keys(&mut self) {
        let Ok(root) = self.figment.extract::<Dict>() else { return };
        let mut written = Vec::new();
        for (key, value) in &root {
            if key != "routes" {
                leaves(key, value, &mut written);
            }
        }
        for key in written {
            if self.read.contains(&key) {
                continue;
            }
            let nearest = did_you_mean(self.read.iter().map(String::as_str), &key);
            self.problem(&key, format_args!("is not a configuration key{nearest}"));
        }
    }
}

/// Returns `; did you mean ...?` with the most similar known key, or nothing if none is similar.
pub(super) fn did_you_mean<'a>(known: impl Iterator<Item = &'a str>, key: &str) -> String {
    known
        .map(|known| (strsim::damerau_levenshtein(known, key), known))
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map(|(_, known)| format!("; did you mean `{known}`?"))
        .unwrap_or_default()
}

pub(super) fn leaves(prefix: &str, value: &Value, keys: &mut Vec<String>) {
    match value {
        Value::Dict(_, children) if !children.is_empty() => {
            for (key, child) in children {
                leaves(&format!("{prefix}.{key}"), child, keys);
            }
        }
        Value::Dict(..) => {}
        _ => keys.push(prefix.to_owned()),
    }
}
