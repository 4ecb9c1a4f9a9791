//! From a ref to the principals of a technology: who `user:john.smith_example.com` is where the grants are made.
//!
//! A [`Directory`] is a list of backends that are asked in order; the first that knows a ref answers. Each ref is looked
//! up by itself, so one that nobody knows takes no other with it. *Nobody knows it* and *nobody could be asked* are two
//! answers: the first is a fact about the ref ([`Resolution::Unknown`]), the second a passing condition (an error), upon
//! which nothing is granted or revoked, since the wanted list is not known then.

mod ldap;
mod table;
mod template;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;

use super::Ref;
use crate::error::Result;

pub use ldap::{GroupMeaning, Ldap, LdapSettings};
pub use table::{Table, TableSettings};
pub use template::{Template, TemplateSettings};

/// What is known of a ref.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// The names that grants go to; several, or none, where a group stands for its members.
    Principals(BTreeSet<String>),
    /// Nobody has it; why, in words fit for users.
    Unknown(String),
}

/// One way to find principals.
#[async_trait]
pub trait Principals: Send + Sync {
    /// Looks a ref up. Errors are [`crate::error::Kind::Retryable`] when the backend does not answer.
    async fn resolve(&self, reference: &Ref) -> Result<Resolution>;
}

/// What a list of refs comes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resolved {
    /// The principals, each with the refs that it stands for.
    pub principals: BTreeMap<String, BTreeSet<Ref>>,
    /// The refs that nobody knows, and why.
    pub unknown: BTreeMap<Ref, String>,
}

/// Backends in the order in which they are asked.
#[derive(Clone)]
pub struct Directory {
    backends: Vec<Arc<dyn Principals>>,
}

impl Directory {
    /// Asked in this order.
    pub fn new(backends: Vec<Arc<dyn Principals>>) -> Self {
        Self { backends }
    }

    /// Looks every ref up.
    pub async fn resolve(&self, refs: impl IntoIterator<Item = &Ref>) -> Result<Resolved> {
        let mut resolved = Resolved::default();
        for reference in refs {
            match self.one(reference).await? {
                Resolution::Principals(names) => {
                    for name in names {
                        resolved.principals.entry(name).or_default().insert(reference.clone());
                    }
                }
                Resolution::Unknown(reason) => {
                    resolved.unknown.insert(reference.clone(), reason);
                }
            }
        }
        Ok(resolved)
    }

    async fn one(&self, reference: &Ref) -> Result<Resolution> {
        let mut reasons = Vec::new();
        for backend in &self.backends {
            match backend.resolve(reference).await? {
                Resolution::Unknown(reason) => reasons.push(reason),
                known => return Ok(known),
            }
        }
        if reasons.is_empty() {
            reasons.push("no identity backend is configured".to_owned());
        }
        Ok(Resolution::Unknown(reasons.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Kind};

    /// Knows what it is told to.
    struct Fake(&'static [(&'static str, &'static [&'static str])], &'static str);

    #[async_trait]
    impl Principals for Fake {
        async fn resolve(&self, reference: &Ref) -> Result<Resolution> {
            if self.1.is_empty() {
                return Err(Error::retryable("the directory does not answer"));
            }
            let known = self.0.iter().find(|(known, _)| *known == reference.to_string());
            Ok(match known {
                Some((_, names)) => Resolution::Principals(names.iter().map(|&name| name.into()).collect()),
                None => Resolution::Unknown(self.1.to_owned()),
            })
        }
    }

    fn refs(list: &[&str]) -> Vec<Ref> {
        list.iter().map(|text| Ref::parse(text).unwrap()).collect()
    }

    #[tokio::test]
    async fn the_first_that_knows_answers_and_every_unknown_one_is_named() {
        let first = Fake(&[("user:alice", &["a"]), ("group:dev", &["a", "b"])], "not in the first");
        let second = Fake(&[("user:alice", &["never"]), ("user:bob", &["b"])], "not in the second");
        let directory = Directory::new(vec![Arc::new(first), Arc::new(second)]);
        let asked = refs(&["user:alice", "user:bob", "group:dev", "user:carol", "group:x"]);
        let resolved = directory.resolve(&asked).await.unwrap();
        let set = |list: &[&str]| refs(list).into_iter().collect::<BTreeSet<_>>();
        assert_eq!(
            resolved.principals,
            BTreeMap::from([
                ("a".to_owned(), set(&["user:alice", "group:dev"])),
                ("b".to_owned(), set(&["user:bob", "group:dev"]))
            ])
        );
        let reason = "not in the first; not in the second".to_owned();
        let unknown = refs(&["user:carol", "group:x"]).into_iter().map(|it| (it, reason.clone()));
        assert_eq!(resolved.unknown, unknown.collect());
    }

    #[tokio::test]
    async fn a_backend_that_does_not_answer_is_no_answer() {
        let away = Directory::new(vec![Arc::new(Fake(&[], "")), Arc::new(Fake(&[], "no"))]);
        let error = away.resolve(&refs(&["user:alice"])).await.unwrap_err();
        assert_eq!(*error.kind(), Kind::Retryable);
        let none = Directory::new(Vec::new()).resolve(&refs(&["user:alice"])).await.unwrap();
        assert_eq!(none.unknown.into_values().collect::<Vec<_>>(), ["no identity backend is configured"]);
    }
}
