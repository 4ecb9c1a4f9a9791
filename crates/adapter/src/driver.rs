//! From the configuration of a target to a technology.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::access::{Directory, Principals, Template, TemplateSettings};
use crate::settings::SecretReference;
use crate::{Secret, Technology};

/// A kind of target: the value of `driver` in `[targets.CODE]`. It reads the settings of a target and makes its
/// technology.
pub trait Driver: Send + Sync + 'static {
    /// The keys of `[targets.CODE]` except `driver`, `group`, `environments` and `concurrency`. The JSON
    /// Schema lists the valid keys. Do not use `flatten` or untagged enums, because serde loses track of the
    /// keys in them. [`settings`](crate::settings) has types for durations, files and secrets.
    type Settings: DeserializeOwned + JsonSchema;

    /// The technology that it makes.
    type Technology: Technology;

    /// The name in the configuration, such as `lakehouse`. It is unique within a program.
    fn name(&self) -> &'static str;

    /// Makes the technology of one target, or returns every mistake in the settings. It must not connect to
    /// anything, because it also runs when a descriptor or a configuration is only checked. It may look at
    /// local files and folders if [`Services::will_serve`] is true.
    fn open(&self, settings: Self::Settings, services: &Services<'_>) -> Result<Self::Technology, Mistakes>;

    /// Runs this process as a helper, and returns its exit code, if the first argument of the program is one that the
    /// driver gave it: a driver may start its own program again. Called before anything else, also before any thread
    /// starts. The default has no helper.
    fn help(&self, _argument: &OsStr) -> Option<ExitCode> {
        None
    }

    /// The arguments of [`Driver::help`] that are commands for users, each with a sentence for `--help`. The default has
    /// none.
    fn commands(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }
}

/// Mistakes in the settings of a target, each with its key, relative to `[targets.CODE]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mistakes(Vec<(String, String)>);

impl Mistakes {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// A list with one mistake. The message names the value, unless it may be a secret, and the remedy.
    pub fn one(key: impl Into<String>, message: impl fmt::Display) -> Self {
        let mut mistakes = Self::new();
        mistakes.add(key, message);
        mistakes
    }

    /// Adds a mistake.
    pub fn add(&mut self, key: impl Into<String>, message: impl fmt::Display) {
        self.0.push((key.into(), message.to_string()));
    }

    /// Returns the value, or adds its mistakes to this list.
    pub fn keep<T>(&mut self, result: Result<T, Self>) -> Option<T> {
        result.map_err(|Self(more)| self.0.extend(more)).ok()
    }

    /// Returns `value` if it is `Some` and the list is empty; otherwise `Err` with the list.
    pub fn or<T>(self, value: Option<T>) -> Result<T, Self> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(self),
        }
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Keys and messages, in the order in which they were added.
impl IntoIterator for Mistakes {
    type Item = (String, String);
    type IntoIter = std::vec::IntoIter<(String, String)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// What Landfall offers to a driver that opens a target.
pub struct Services<'a> {
    target: &'a str,
    will_serve: bool,
    variables: &'a BTreeMap<String, String>,
    identities: &'a BTreeMap<String, Option<Arc<dyn Principals>>>,
}

impl<'a> Services<'a> {
    /// The services for the target `code`. `variables` are those of the process. An identity source is `None`
    /// if its own configuration is wrong.
    pub fn new(
        target: &'a str,
        will_serve: bool,
        variables: &'a BTreeMap<String, String>,
        identities: &'a BTreeMap<String, Option<Arc<dyn Principals>>>,
    ) -> Self {
        Self { target, will_serve, variables, identities }
    }

    /// The code of the target, for messages.
    pub fn target(&self) -> &str {
        self.target
    }

    /// Whether a server is about to start on this machine. If not, files and folders in the settings may be
    /// on another machine.
    pub fn will_serve(&self) -> bool {
        self.will_serve
    }

    /// The environment variable `name` of the process; `None` if it is not set.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Reads the secret that the setting `key` refers to.
    pub fn secret(&self, key: &str, reference: &SecretReference) -> Result<Secret, Mistakes> {
        match reference {
            SecretReference::Variable(name) => match self.variables.get(name) {
                Some(text) if !text.is_empty() => Ok(Secret::new(text.as_str())),
                _ => Err(Mistakes::one(
                    format!("{key}.env"),
                    format_args!("the variable `{name}` is not set, or empty"),
                )),
            },
            SecretReference::File(path) => Secret::from_file(Path::new(path)).map_err(|error| {
                Mistakes::one(format!("{key}.file"), format_args!("`{path}` cannot be read: {error}"))
            }),
        }
    }

    /// The identity sources that the setting `key` names, in this order. Without names, refs are mapped by
    /// their text alone.
    pub fn directory(&self, key: &str, names: Option<&[String]>) -> Result<Directory, Mistakes> {
        let Some(names) = names else {
            return Ok(Directory::new(vec![Arc::new(Template::new(TemplateSettings::default()))]));
        };
        let mut mistakes = Mistakes::new();
        let mut found: Vec<Arc<dyn Principals>> = Vec::new();
        for name in names {
            match self.identities.get(name) {
                Some(identity) => found.extend(identity.clone()),
                None => {
                    let right = self.identities.iter().filter(|(_, identity)| identity.is_some());
                    let right = right.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
                    mistakes.add(key, format_args!("there is no [identity.{name}]; there are: {right}"));
                }
            }
        }
        if names.is_empty() {
            mistakes.add(key, "is empty, so no principal would be found; name at least one [identity.NAME]");
        }
        mistakes.or(Some(Directory::new(found)))
    }
}

impl fmt::Debug for Services<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").field("target", &self.target).finish_non_exhaustive()
    }
}
