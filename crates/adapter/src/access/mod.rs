//! Read access: refs, principals, and the difference between two access lists.
//!
//! `refs` of the contract is always the complete wanted list, so access is *reconciled*: missing grants are made, and
//! grants that are no longer wanted are revoked first. That part is pure. A [`Directory`] looks up refs.
//!
//! A name without `user:` or `group:` may be either. A directory looks it up as both ([`Lookups`]). A technology that
//! looks nothing up records it as written ([`recorded`]).

mod principals;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::descriptor::Problem;

pub use principals::{
    Candidate, Directory, Known, Lookups, Principals, Resolution, Table, TableSettings, Template,
    TemplateSettings,
};
#[cfg(feature = "ldap")]
pub use principals::{GroupMeaning, Ldap, LdapSettings};

/// An identity as Witboost writes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Ref {
    /// A ref with its prefix.
    Qualified(Qualified),
    /// A name without a prefix.
    Bare(String),
}

/// A ref that is known to be a user or a group. Names are stored without the prefix and the optional `default/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qualified {
    /// `user:john.smith_example.com`
    User(String),
    /// `group:dev`
    Group(String),
}

impl Ref {
    /// Parses `user:NAME`, `group:NAME`, `user:default/NAME`, `group:default/NAME` or a name without a prefix.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let remedy = "write `user:NAME_DOMAIN`, `group:NAME`, or a bare name that is a user's or a group's";
        Self::read(text, Self::Bare, remedy)
    }

    /// Parses a ref in a list of users: a name without a prefix is a user.
    pub fn parse_user(text: &str) -> Result<Self, Problem> {
        let remedy = "write `NAME_DOMAIN` or `user:NAME_DOMAIN`, and list groups as groups";
        match Self::read(text, |name| Self::Qualified(Qualified::User(name)), remedy)? {
            Self::Qualified(Qualified::Group(_)) => {
                Err(Problem::new("", "a group is no user").value(text).remedy(remedy))
            }
            user => Ok(user),
        }
    }

    /// Parses a ref in a list of groups: a name without a prefix is a group.
    pub fn parse_group(text: &str) -> Result<Self, Problem> {
        let remedy = "write `NAME` or `group:NAME`, and list users as users";
        match Self::read(text, |name| Self::Qualified(Qualified::Group(name)), remedy)? {
            Self::Qualified(Qualified::User(_)) => {
                Err(Problem::new("", "a user is no group").value(text).remedy(remedy))
            }
            group => Ok(group),
        }
    }

    /// Parses a list into a set, or returns a problem at `path[index]` for each invalid ref.
    pub fn parse_list(
        path: &str,
        texts: &[String],
        parse: fn(&str) -> Result<Self, Problem>,
    ) -> Result<BTreeSet<Self>, Vec<Problem>> {
        let mut refs = BTreeSet::new();
        let mut problems = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            match parse(text) {
                Ok(reference) => {
                    refs.insert(reference);
                }
                Err(problem) => problems.push(problem.under(&format!("{path}[{index}]"))),
            }
        }
        if problems.is_empty() { Ok(refs) } else { Err(problems) }
    }

    fn read(text: &str, bare: fn(String) -> Self, remedy: &str) -> Result<Self, Problem> {
        let trimmed = text.trim();
        let (prefix, name) = match trimmed.split_once(':') {
            Some((prefix, name)) => (Some(prefix.to_ascii_lowercase()), name),
            None => (None, trimmed),
        };
        let name = name.strip_prefix("default/").unwrap_or(name);
        let problem = |message: &str| Problem::new("", message).value(text).remedy(remedy);
        if name.is_empty()
            || name.chars().any(|c| c.is_control() || c.is_whitespace() || c == '/' || c == ':')
        {
            return Err(problem("the identity has no usable name"));
        }
        let name = name.to_owned();
        match prefix.as_deref() {
            None => Ok(bare(name)),
            Some("user") => Ok(Self::Qualified(Qualified::User(name))),
            Some("group") => Ok(Self::Qualified(Qualified::Group(name))),
            Some(_) => Err(problem("the identity has an unknown prefix")),
        }
    }
}

impl Qualified {
    /// Parses a ref; a name without a prefix is a group.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let remedy = "write `user:NAME_DOMAIN`, `group:NAME` or a bare group name";
        match Ref::read(text, |name| Ref::Qualified(Self::Group(name)), remedy)? {
            Ref::Qualified(reference) => Ok(reference),
            Ref::Bare(name) => Ok(Self::Group(name)),
        }
    }

    /// "user" or "group".
    pub fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Group(_) => "group",
        }
    }

    /// The name without its prefix. In the name of a user, the last `_` becomes `@`: `john.smith_example.com` is
    /// `john.smith@example.com`.
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
            Self::Qualified(reference) => reference.fmt(f),
            Self::Bare(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Qualified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "user:{name}"),
            Self::Group(name) => write!(f, "group:{name}"),
        }
    }
}

/// The wanted list for a technology that looks nothing up: names without a prefix stay as written, unless the list
/// also has them with a prefix.
pub fn recorded(refs: &[Ref]) -> BTreeSet<Ref> {
    let has = |reference: Qualified| refs.contains(&Ref::Qualified(reference));
    let is_repeated = |reference: &&Ref| match reference {
        Ref::Qualified(_) => false,
        Ref::Bare(name) => has(Qualified::User(name.clone())) || has(Qualified::Group(name.clone())),
    };
    refs.iter().filter(|reference| !is_repeated(reference)).cloned().collect()
}

/// The difference between the current and the wanted access.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reconciliation {
    /// Principals to revoke, which is done first.
    pub revoke: BTreeSet<String>,
    /// Principals to grant access to.
    pub grant: BTreeSet<String>,
}

/// The difference between `current` and `wanted`, which are the names of *managed* grants only.
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
            (" group:dev\n", "group:dev", "dev"),
            ("user:_x", "user:_x", "_x"),
            ("user:x_", "user:x_", "x_"),
        ] {
            let Ok(Ref::Qualified(reference)) = Ref::parse(text) else { panic!("{text}") };
            assert_eq!(reference.to_string(), expected, "{text}");
            assert_eq!(reference.principal_name(), principal, "{text}");
            assert_eq!(Qualified::parse(expected), Ok(reference), "what is written reads back: {text}");
        }
    }

    #[test]
    fn bare_names_are_neither_users_nor_groups() {
        for (text, expected) in
            [("teamalpha", "teamalpha"), (" alice_corp.com\n", "alice_corp.com"), ("default/dev", "dev")]
        {
            let reference = Ref::parse(text).unwrap();
            assert_eq!(reference, Ref::Bare(expected.to_owned()), "{text}");
            let written = serde_json::to_string(&reference).unwrap();
            assert_eq!(written, format!("\"{expected}\""));
            assert_eq!(
                serde_json::from_str::<Ref>(&written).unwrap(),
                reference,
                "what is written reads back"
            );
        }
        assert_eq!(Qualified::parse("dev"), Ok(Qualified::Group("dev".to_owned())));
    }

    #[test]
    fn bare_name_beside_its_prefix_is_recorded_once() {
        let list = |texts: &[&str]| {
            let refs: Vec<_> = texts.iter().map(|text| Ref::parse(text).unwrap()).collect();
            recorded(&refs).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(list(&["dev", "alice_corp.com"]), ["alice_corp.com", "dev"]);
        assert_eq!(list(&["dev", "group:dev", "user:ann", "ann", "eve"]), ["user:ann", "group:dev", "eve"]);
        assert_eq!(list(&["dev", "user:dev", "group:dev"]), ["user:dev", "group:dev"]);
    }

    #[test]
    fn reports_invalid_refs() {
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
    fn lists_of_one_kind_need_no_prefix_and_take_no_other() {
        let read = |parse: fn(&str) -> Result<Ref, Problem>, text: &str| {
            parse(text).map(|it| it.to_string()).map_err(|problem| problem.message)
        };
        for (text, expected) in [
            ("alice_example.com", Ok("user:alice_example.com")),
            ("user:alice_example.com", Ok("user:alice_example.com")),
            ("default/alice", Ok("user:alice")),
            ("group:dev", Err("a group is no user")),
            ("role:dev", Err("the identity has an unknown prefix")),
            (" ", Err("the identity has no usable name")),
        ] {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(read(Ref::parse_user, text), expected, "{text:?}");
        }
        assert_eq!(read(Ref::parse_group, "dev"), Ok("group:dev".to_owned()));
        assert_eq!(read(Ref::parse_group, "group:dev"), Ok("group:dev".to_owned()));
        assert_eq!(read(Ref::parse_group, "user:dev"), Err("a user is no group".to_owned()));
    }

    #[test]
    fn list_becomes_a_set_or_reports_all_problems() {
        let list = |texts: &[&str]| {
            let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
            Ref::parse_list("acl.users", &texts, Ref::parse_user)
        };
        let refs = list(&["b", "user:a", "b"]).unwrap();
        assert_eq!(refs.iter().map(ToString::to_string).collect::<Vec<_>>(), ["user:a", "user:b"]);
        let problems = list(&["", "a", "group:g"]).unwrap_err();
        let paths = problems.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>();
        assert_eq!(paths, ["acl.users[0]", "acl.users[2]"]);
    }

    #[test]
    fn reconciling_reaches_the_wanted_set_and_is_idempotent() {
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
