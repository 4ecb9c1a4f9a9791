//! Who may read: refs, principals, and the difference between two lists of them.
//!
//! Pure. `refs` of the contract is always the full wanted set, so access is *reconciled*: what is wanted and
//! missing is granted, what is there and no longer wanted is revoked, revocations first.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::descriptor::Problem;

/// An identity as Witboost writes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Ref {
    /// `user:john.smith_example.com`, kept without the prefix and the optional `default/`.
    User(String),
    /// `group:dev`, or a bare name.
    Group(String),
}

impl Ref {
    /// Reads `user:NAME`, `group:NAME`, `user:default/NAME`, `group:default/NAME` or a bare group name.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let trimmed = text.trim();
        let (prefix, name) = match trimmed.split_once(':') {
            Some((prefix, name)) => (prefix, name),
            None => ("group", trimmed),
        };
        let name = name.strip_prefix("default/").unwrap_or(name);
        let problem = |message: &str| {
            Problem::new("", message)
                .value(text)
                .remedy("write `user:NAME_DOMAIN`, `group:NAME` or a bare group name")
        };
        if name.is_empty()
            || name.chars().any(|c| c.is_control() || c.is_whitespace() || c == '/' || c == ':')
        {
            return Err(problem("the identity has no usable name"));
        }
        match prefix.to_ascii_lowercase().as_str() {
            "user" => Ok(Self::User(name.to_owned())),
            "group" => Ok(Self::Group(name.to_owned())),
            _ => Err(problem("the identity has an unknown prefix")),
        }
    }

    /// Name without prefix; a user's last `_` is its `@`: `john.smith_example.com` is `john.smith@example.com`.
    pub fn principal_name(&self) -> String {
        match self {
            Self::Group(name) => name.clone(),
            Self::User(name) => match name.rsplit_once('_') {
                Some((local, domain)) if !local.is_empty() && !domain.is_empty() => {
                    format!("{local}@{domain}")
                }
                _ => name.clone(),
            },
        }
    }
}

impl TryFrom<String> for Ref {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).map_err(|problem| problem.to_string())
    }
}

impl From<Ref> for String {
    fn from(reference: Ref) -> Self {
        reference.to_string()
    }
}

impl fmt::Display for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "user:{name}"),
            Self::Group(name) => write!(f, "group:{name}"),
        }
    }
}

/// The difference between who has access and who should.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reconciliation {
    /// Has access and should not: applied first.
    pub revoke: BTreeSet<String>,
    /// Should have access and has not.
    pub grant: BTreeSet<String>,
}

/// What turns `current` into `wanted`. Both are the names of *managed* grants only.
pub fn reconcile(current: &BTreeSet<String>, wanted: &BTreeSet<String>) -> Reconciliation {
    Reconciliation { revoke: current - wanted, grant: wanted - current }
}
