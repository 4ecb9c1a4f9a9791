//! Who may read: refs, principals, and the difference between two lists of them.
//!
//! Pure, but for where a [`Principals`] looks names up. `refs` of the contract is always the full wanted set, so access is *reconciled*: what is wanted and
//! missing is granted, what is there and no longer wanted is revoked, revocations first.

mod principals;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::descriptor::Problem;

pub use principals::{Principals, Template, Unresolved};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refs_are_read_as_witboost_writes_them() {
        for (text, expected, principal) in [
            ("user:john.smith_example.com", "user:john.smith_example.com", "john.smith@example.com"),
            ("user:a_b_example.com", "user:a_b_example.com", "a_b@example.com"),
            ("user:alice", "user:alice", "alice"),
            ("user:default/alice_x.org", "user:alice_x.org", "alice@x.org"),
            ("USER:alice", "user:alice", "alice"),
            ("group:dev", "group:dev", "dev"),
            ("group:default/dev", "group:dev", "dev"),
            ("group:developers_mydomain.com", "group:developers_mydomain.com", "developers_mydomain.com"),
            ("teamalpha", "group:teamalpha", "teamalpha"),
            (" group:dev\n", "group:dev", "dev"),
            ("user:_x", "user:_x", "_x"),
            ("user:x_", "user:x_", "x_"),
        ] {
            let reference = Ref::parse(text).unwrap();
            assert_eq!(reference.to_string(), expected, "{text}");
            assert_eq!(reference.principal_name(), principal, "{text}");
            assert_eq!(Ref::parse(expected), Ok(reference), "what is written reads back: {text}");
        }
    }

    #[test]
    fn what_is_no_ref_is_a_problem_and_not_a_guess() {
        for (text, expected) in [
            ("role:admin", "the identity has an unknown prefix: `role:admin`"),
            ("user:", "the identity has no usable name: `user:`"),
            ("", "the identity has no usable name: ``"),
            ("group:a b", "the identity has no usable name: `group:a b`"),
            ("user:other/alice", "the identity has no usable name: `user:other/alice`"),
            ("user:a:b", "the identity has no usable name: `user:a:b`"),
        ] {
            assert_eq!(
                Ref::parse(text).map_err(|problem| problem.to_string()),
                Err(expected.to_owned()),
                "{text:?}"
            );
        }
    }

    #[test]
    fn reconciling_reaches_what_is_wanted_and_a_repeat_changes_nothing() {
        let set = |names: &str| names.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>();
        for (current, wanted, revoke, grant) in [
            ("", "", "", ""),
            ("", "alice bob", "", "alice bob"),
            ("alice", "alice bob", "", "bob"),
            ("alice bob", "bob", "alice", ""),
            ("alice bob", "carol", "alice bob", "carol"),
            ("alice bob", "", "alice bob", ""),
        ] {
            let steps = reconcile(&set(current), &set(wanted));
            assert_eq!((&steps.revoke, &steps.grant), (&set(revoke), &set(grant)), "{current} -> {wanted}");
            let reached: BTreeSet<_> = &(&set(current) - &steps.revoke) | &steps.grant;
            assert_eq!(reached, set(wanted));
            assert_eq!(reconcile(&reached, &set(wanted)), Reconciliation::default());
        }
    }
}
