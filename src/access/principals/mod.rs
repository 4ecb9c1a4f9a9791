//! From a ref to the principals of a technology: who `user:john.smith_example.com` is where the grants are made.
//!
//! A [`Directory`] is a list of backends that are asked in order; the first that knows a ref answers. Each ref is looked
//! up by itself, so one that nobody knows takes no other with it. *Nobody knows it* and *nobody could be asked* are two
//! answers: the first is a fact about the ref ([`Resolution::Unknown`]), the second a passing condition (an error), upon
//! which nothing is granted or revoked, since the wanted list is not known then. [`Lookups`] keeps the answers of one run.

mod ldap;
mod table;
mod template;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::Ref;
use crate::error::Result;

pub use ldap::{GroupMeaning, Ldap, LdapSettings};
pub use table::{Table, TableSettings};
pub use template::{Template, TemplateSettings};

/// What is known of a ref.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// The name that grants go to.
    Principal(String),
    /// A group that stands for its members: the names of those.
    Members(BTreeSet<String>),
    /// Nobody has it; why, in words fit for users.
    Unknown(String),
}

/// One way to find principals.
#[async_trait]
pub trait Principals: Send + Sync {
    /// Looks a ref up. Errors are [`crate::error::Kind::Retryable`] when the backend does not answer.
    async fn resolve(&self, reference: &Ref) -> Result<Resolution>;
}

/// Backends in the order in which they are asked.
#[derive(Clone)]
pub struct Directory {
    backends: Arc<[Arc<dyn Principals>]>,
}

impl Directory {
    /// Asked in this order.
    pub fn new(backends: Vec<Arc<dyn Principals>>) -> Self {
        Self { backends: backends.into() }
    }

    /// Looks a ref up; the first backend that knows it answers.
    pub async fn resolve(&self, reference: &Ref) -> Result<Resolution> {
        let mut reasons = Vec::new();
        for backend in self.backends.iter() {
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

/// What directories answered in one run, so that each is asked once about a ref: a plan and the changes that follow from
/// it see the same people. Errors are not kept. Cloning shares it.
#[derive(Clone, Default)]
pub struct Lookups {
    known: Arc<Mutex<BTreeMap<Ref, Vec<Answer>>>>,
}

/// The directory that gave it, and the answer.
type Answer = (Directory, Resolution);

impl Lookups {
    /// What the directory said of a ref in this run; asks it the first time.
    pub async fn resolve(&self, directory: &Directory, reference: &Ref) -> Result<Resolution> {
        if let Some(known) = self.known(directory, reference) {
            return Ok(known);
        }
        let resolution = directory.resolve(reference).await?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(reference.clone()).or_default().push((directory.clone(), resolution.clone()));
        Ok(resolution)
    }

    fn known(&self, directory: &Directory, reference: &Ref) -> Option<Resolution> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |other: &Directory| Arc::ptr_eq(&other.backends, &directory.backends);
        known.get(reference)?.iter().find(|(other, _)| is_same(other)).map(|(_, known)| known.clone())
    }
}

/// Who it was about is nobody's business.
impl fmt::Debug for Lookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lookups(..)")
    }
}

/// By the form of names alone.
impl Default for Directory {
    fn default() -> Self {
        Self::new(vec![Arc::new(Template::new(TemplateSettings::default()))])
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").field("backends", &self.backends.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Kind};

    /// Knows what it is told to.
    struct Fake(&'static [(&'static str, &'static str)], &'static str);

    #[async_trait]
    impl Principals for Fake {
        async fn resolve(&self, reference: &Ref) -> Result<Resolution> {
            if self.1.is_empty() {
                return Err(Error::retryable("the directory does not answer"));
            }
            let known = self.0.iter().find(|(known, _)| *known == reference.to_string());
            Ok(match known {
                Some((_, name)) => Resolution::Principal((*name).to_owned()),
                None => Resolution::Unknown(self.1.to_owned()),
            })
        }
    }

    #[tokio::test]
    async fn the_first_that_knows_answers() {
        let first = Fake(&[("user:alice", "a")], "not in the first");
        let second = Fake(&[("user:alice", "never"), ("user:bob", "b")], "not in the second");
        let directory = Directory::new(vec![Arc::new(first), Arc::new(second)]);
        for (text, expected) in [
            ("user:alice", Resolution::Principal("a".to_owned())),
            ("user:bob", Resolution::Principal("b".to_owned())),
            ("user:carol", Resolution::Unknown("not in the first; not in the second".to_owned())),
        ] {
            assert_eq!(directory.resolve(&Ref::parse(text).unwrap()).await.unwrap(), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn lookups_of_a_run_tell_directories_apart() {
        let directory = |name| {
            let known: &'static [(&str, &str)] = match name {
                "a" => &[("user:alice", "a")],
                _ => &[("user:alice", "b")],
            };
            Directory::new(vec![Arc::new(Fake(known, "nobody"))])
        };
        let (first, second, run) = (directory("a"), directory("b"), Lookups::default());
        let alice = Ref::parse("user:alice").unwrap();
        for _ in 0..2 {
            for (directory, name) in [(&first, "a"), (&second, "b")] {
                let found = run.resolve(directory, &alice).await.unwrap();
                assert_eq!(found, Resolution::Principal(name.to_owned()));
            }
        }
        assert_eq!(format!("{run:?}"), "Lookups(..)");
    }

    #[tokio::test]
    async fn a_backend_that_does_not_answer_is_no_answer() {
        let alice = Ref::parse("user:alice").unwrap();
        let away = Directory::new(vec![Arc::new(Fake(&[], "")), Arc::new(Fake(&[], "no"))]);
        assert_eq!(*away.resolve(&alice).await.unwrap_err().kind(), Kind::Retryable);
        let none = Directory::new(Vec::new()).resolve(&alice).await.unwrap();
        assert_eq!(none, Resolution::Unknown("no identity backend is configured".to_owned()));
    }
}
