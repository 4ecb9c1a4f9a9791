//! From the configuration of a target to a technology.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::access::{Directory, Principals, Template, TemplateSettings};
use crate::settings::SecretReference;
use crate::{Secret, Technology};

/// A driver: what `[targets.CODE] driver = "NAME"` names. It reads the settings of one target and makes the technology
/// that works on it.
pub trait Driver: Send + Sync + 'static {
    /// Every key of `[targets.CODE]` but `driver`, `group`, `environments` and `concurrency`. Its JSON Schema says which
    /// keys there are: neither `flatten` nor untagged enums can be part of it, for serde loses track of keys in them.
    /// [`settings`](crate::settings) has types for durations, files and secrets.
    type Settings: DeserializeOwned + JsonSchema;

    /// What it makes.
    type Technology: Technology;

    /// The name in the configuration: `lakehouse`. Two drivers of one program have different names.
    fn name(&self) -> &'static str;

    /// Makes the technology of one target, or says everything that is wrong with the settings. Connects to nothing: it is
    /// also called where a descriptor or a configuration is only checked. It looks at files and folders of the machine only
    /// when [`Services::will_serve`].
    fn open(&self, settings: Self::Settings, services: &Services<'_>) -> Result<Self::Technology, Mistakes>;
}

/// What is wrong with the settings of a target: each mistake with its key, relative to `[targets.CODE]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mistakes(Vec<(String, String)>);

impl Mistakes {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One mistake. The message names the value, unless it may be a secret, and says what would be right.
    pub fn one(key: impl Into<String>, message: impl fmt::Display) -> Self {
        let mut mistakes = Self::new();
        mistakes.add(key, message);
        mistakes
    }

    /// Adds one.
    pub fn add(&mut self, key: impl Into<String>, message: impl fmt::Display) {
        self.0.push((key.into(), message.to_string()));
    }

    /// The value, or `None` after its mistakes were added to these.
    pub fn keep<T>(&mut self, result: Result<T, Self>) -> Option<T> {
        result.map_err(|Self(more)| self.0.extend(more)).ok()
    }

    /// The value when there is one and nothing is wrong, or else the mistakes.
    pub fn or<T>(self, value: Option<T>) -> Result<T, Self> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(self),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Key and message, in the order in which they were added.
impl IntoIterator for Mistakes {
    type Item = (String, String);
    type IntoIter = std::vec::IntoIter<(String, String)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// What a driver gets from Landfall when it opens a target.
pub struct Services<'a> {
    target: &'a str,
    will_serve: bool,
    variables: &'a BTreeMap<String, String>,
    identities: &'a BTreeMap<String, Option<Arc<dyn Principals>>>,
}

impl<'a> Services<'a> {
    /// For the target of that code. `variables` are those of the process; an identity is `None` where its own configuration
    /// is wrong.
    pub fn new(
        target: &'a str,
        will_serve: bool,
        variables: &'a BTreeMap<String, String>,
        identities: &'a BTreeMap<String, Option<Arc<dyn Principals>>>,
    ) -> Self {
        Self { target, will_serve, variables, identities }
    }

    /// Code of the target, for messages.
    pub fn target(&self) -> &str {
        self.target
    }

    /// Whether a server is about to start on this machine. Otherwise files and folders that the settings name may be on
    /// another one.
    pub fn will_serve(&self) -> bool {
        self.will_serve
    }

    /// The secret that the setting `key` refers to.
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

    /// The configured `[identity.NAME]` that the setting `key` names, in the order in which they are asked. Without names:
    /// by the form of names alone.
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
            mistakes.add(key, "is empty, so that nobody would be found; name at least one [identity.NAME]");
        }
        mistakes.or(Some(Directory::new(found)))
    }
}

impl fmt::Debug for Services<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").field("target", &self.target).finish_non_exhaustive()
    }
}
