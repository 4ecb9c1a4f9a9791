//! From a ref to the principals of a technology, for example from `user:john.smith_example.com` to a database role.
//!
//! A [`Directory`] is a list of backends that are asked in order; the first that knows a ref answers. Each ref is
//! looked up separately, so an unknown one does not affect others. *Unknown* and *not available* are two answers: the
//! first is a fact about the ref ([`Resolution::Unknown`]), the second is a transient failure (an error), after which
//! no access is granted or revoked, because the wanted list is not known. [`Lookups`] keeps the answers of one run.
//!
//! A bare name is looked up as a user and as a group. If exactly one of the two is known, the name means that one,
//! and a note says which; otherwise it is unknown. A backend that derives names from their form cannot know what
//! exists. It returns names that the target may have, and the target decides ([`Known::Candidates`]).

#[cfg(feature = "ldap")]
mod ldap;
mod table;
mod template;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::{Qualified, Ref};
use crate::error::Result;

#[cfg(feature = "ldap")]
pub use ldap::{GroupMeaning, Ldap, LdapSettings};
pub use table::{Table, TableSettings};
pub use template::{Template, TemplateSettings};

/// The answer of one backend about a ref.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// The name that grants go to.
    Principal(String),
    /// A group that is replaced by its members: the names that grants go to.
    Members(BTreeSet<String>),
    /// The user or group exists, or several do, but no principal can be derived; the reason, as a text for users.
    Unusable(String),
    /// No user or group has this name; the reason, as a text for users.
    Unknown(String),
}

/// The answer of a directory about a ref.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// The possible meanings, at least one. A bare name has two if no backend can look it up: the user and the
    /// group. It means the one that exists on the target.
    Candidates(Vec<Candidate>),
    /// No principal is known, or a bare name is both a user and a group; the reason, as a text for users.
    Unknown(String),
}

/// One possible meaning of a ref.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The ref as a user or a group.
    pub reference: Qualified,
    /// The names that grants go to.
    pub principals: BTreeSet<String>,
    /// Whether `principals` are the members of a group, and not one principal.
    pub members: bool,
}

/// A backend: one way to find the principals of a ref.
#[async_trait]
pub trait Principals: Send + Sync {
    /// Returns the principals of a ref, or the reason why there are none. If the backend does not respond,
    /// returns a [`crate::error::Kind::Retryable`] error.
    async fn resolve(&self, reference: &Qualified) -> Result<Resolution>;

    /// Whether the backend checks that users and groups exist. If not, it only derives names from refs.
    fn looks_up(&self) -> bool {
        true
    }
}

/// Backends in the order in which they are asked.
#[derive(Clone)]
pub struct Directory {
    backends: Arc<[Arc<dyn Principals>]>,
}

/// The answer of a directory about a ref that is marked as a user or a group.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    resolution: Resolution,
    /// Whether the user or group exists, according to a backend that looks refs up.
    found: bool,
}

impl Directory {
    /// A directory that asks `backends` in this order.
    pub fn new(backends: Vec<Arc<dyn Principals>>) -> Self {
        Self { backends: backends.into() }
    }

    /// Looks a ref up: the first principals that a backend returns, or the reasons of all backends. Fails if a
    /// backend fails.
    async fn answer(&self, reference: &Qualified) -> Result<Answer> {
        let mut reasons = Vec::new();
        let mut found = false;
        for backend in self.backends.iter() {
            let looks_up = backend.looks_up();
            match backend.resolve(reference).await? {
                Resolution::Unknown(reason) => reasons.push(reason),
                Resolution::Unusable(reason) => {
                    found |= looks_up;
                    reasons.push(reason);
                }
                resolution => return Ok(Answer { resolution, found: found || looks_up }),
            }
        }
        if reasons.is_empty() {
            reasons.push("no identity backend is configured".to_owned());
        }
        let reasons = reasons.join("; ");
        let resolution = if found { Resolution::Unusable(reasons) } else { Resolution::Unknown(reasons) };
        Ok(Answer { resolution, found })
    }
}

/// The cached answers of directories in one run. A ref is looked up once in each directory, so a plan and its
/// changes see the same principals. Errors are not cached. Clones share the cache.
#[derive(Clone, Default)]
pub struct Lookups {
    known: Arc<Mutex<BTreeMap<Qualified, Vec<Given>>>>,
}

/// A directory, and its answer.
type Given = (Directory, Answer);

impl Lookups {
    /// Returns the directory's answer about a ref. The first call in a run asks the directory, later ones use
    /// the cache. Fails if a backend does not respond.
    pub async fn resolve(&self, directory: &Directory, reference: &Ref) -> Result<Known> {
        match reference {
            Ref::Qualified(reference) => {
                let answer = self.answer(directory, reference).await?;
                Ok(candidate(reference, answer.resolution)
                    .map_or_else(Known::Unknown, |one| Known::Candidates(vec![one])))
            }
            Ref::Bare(name) => {
                let (user, group) = (Qualified::User(name.clone()), Qualified::Group(name.clone()));
                let of_user = self.answer(directory, &user).await?;
                let of_group = self.answer(directory, &group).await?;
                Ok(either((user, of_user), (group, of_group)))
            }
        }
    }

    async fn answer(&self, directory: &Directory, reference: &Qualified) -> Result<Answer> {
        if let Some(known) = self.known(directory, reference) {
            return Ok(known);
        }
        let answer = directory.answer(reference).await?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(reference.clone()).or_default().push((directory.clone(), answer.clone()));
        Ok(answer)
    }

    fn known(&self, directory: &Directory, reference: &Qualified) -> Option<Answer> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |other: &Directory| Arc::ptr_eq(&other.backends, &directory.backends);
        known.get(reference)?.iter().find(|(other, _)| is_same(other)).map(|(_, known)| known.clone())
    }
}

/// The candidate with the principals of a resolution; `Err` is the reason why there are none.
fn candidate(reference: &Qualified, resolution: Resolution) -> Result<Candidate, String> {
    let (principals, members) = match resolution {
        Resolution::Principal(name) => (BTreeSet::from([name]), false),
        Resolution::Members(names) => (names, true),
        Resolution::Unusable(reason) | Resolution::Unknown(reason) => return Err(reason),
    };
    Ok(Candidate { reference: reference.clone(), principals, members })
}

/// Combines the answers about a bare name as a user and as a group. If one of them exists, only that one
/// counts. If both exist, the name is refused. If no backend finds either, both derived names are candidates.
fn either((user, of_user): (Qualified, Answer), (group, of_group): (Qualified, Answer)) -> Known {
    let [user_found, group_found] = [of_user.found, of_group.found];
    if user_found && group_found {
        return Known::Unknown(format!("it is a user and a group: write `{user}` or `{group}`"));
    }
    let of_user = candidate(&user, of_user.resolution);
    let of_group = candidate(&group, of_group.resolution);
    let chosen = match (user_found, group_found) {
        (true, _) => vec![of_user],
        (_, true) => vec![of_group],
        _ => vec![of_user, of_group],
    };
    let (candidates, reasons): (Vec<_>, Vec<_>) = chosen.into_iter().partition(Result::is_ok);
    match candidates.into_iter().flatten().collect::<Vec<_>>() {
        none if none.is_empty() => {
            Known::Unknown(reasons.into_iter().filter_map(Result::err).collect::<Vec<_>>().join("; "))
        }
        candidates => Known::Candidates(candidates),
    }
}

/// The output does not contain the answers.
impl fmt::Debug for Lookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lookups(..)")
    }
}

/// A directory that derives principals from the form of names, and looks nothing up.
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
    use proptest::prelude::*;

    use super::*;
    use crate::error::{Error, Kind};

    /// A backend with these pairs of ref and principal. `*` as a principal: the entry exists, but has no usable
    /// one.
    struct Fake(Vec<(String, String)>, &'static str);

    impl Fake {
        fn of(known: &[(&str, &str)], otherwise: &'static str) -> Arc<dyn Principals> {
            let known = known.iter().map(|(reference, name)| ((*reference).to_owned(), (*name).to_owned()));
            Arc::new(Self(known.collect(), otherwise))
        }
    }

    #[async_trait]
    impl Principals for Fake {
        async fn resolve(&self, reference: &Qualified) -> Result<Resolution> {
            if self.1.is_empty() {
                return Err(Error::retryable("the directory does not answer"));
            }
            let known = self.0.iter().find(|(known, _)| *known == reference.to_string());
            Ok(match known {
                Some((known, name)) if name == "*" => Resolution::Unusable(format!("several `{known}`")),
                Some((_, name)) => Resolution::Principal(name.clone()),
                None => Resolution::Unknown(format!("no `{reference}` {}", self.1)),
            })
        }
    }

    async fn resolved(directory: &Directory, text: &str) -> Result<String, String> {
        let known = Lookups::default().resolve(directory, &Ref::parse(text).unwrap()).await;
        match known.map_err(|error| format!("{:?}", error.kind()))? {
            Known::Candidates(candidates) => {
                let one = |it: &Candidate| {
                    format!("{} = {}", it.reference, it.principals.iter().cloned().collect::<String>())
                };
                Ok(candidates.iter().map(one).collect::<Vec<_>>().join(", "))
            }
            Known::Unknown(reason) => Err(reason),
        }
    }

    #[tokio::test]
    async fn first_backend_that_knows_the_ref_answers() {
        let first = Fake::of(&[("user:alice", "a")], "in the first");
        let second = Fake::of(&[("user:alice", "never"), ("user:bob", "b")], "in the second");
        let directory = Directory::new(vec![first, second]);
        for (text, expected) in [
            ("user:alice", Ok("user:alice = a")),
            ("user:bob", Ok("user:bob = b")),
            ("user:carol", Err("no `user:carol` in the first; no `user:carol` in the second")),
        ] {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(resolved(&directory, text).await, expected, "{text}");
        }
    }

    #[tokio::test]
    async fn bare_names_mean_the_only_lookup_result() {
        let known = [
            ("user:alice_corp.com", "alice"),
            ("group:dev", "developers"),
            ("user:both", "b"),
            ("group:both", "b"),
            ("user:twins", "*"),
            ("user:mixed", "*"),
            ("group:mixed", "m"),
        ];
        let form = || -> Arc<dyn Principals> { Arc::new(Template::new(TemplateSettings::default())) };
        let looking = Directory::new(vec![Fake::of(&known, "here")]);
        let then_form = Directory::new(vec![Fake::of(&known, "here"), form()]);
        let form_only = Directory::default();
        let ambiguous = "it is a user and a group: write `user:both` or `group:both`";
        for (text, in_directory, with_form, by_form) in [
            (
                "alice_corp.com",
                Ok("user:alice_corp.com = alice"),
                Ok("user:alice_corp.com = alice"),
                Ok("user:alice_corp.com = alice@corp.com, group:alice_corp.com = alice_corp.com"),
            ),
            (
                "dev",
                Ok("group:dev = developers"),
                Ok("group:dev = developers"),
                Ok("user:dev = dev, group:dev = dev"),
            ),
            ("both", Err(ambiguous), Err(ambiguous), Ok("user:both = both, group:both = both")),
            (
                "nobody",
                Err("no `user:nobody` here; no `group:nobody` here"),
                Ok("user:nobody = nobody, group:nobody = nobody"),
                Ok("user:nobody = nobody, group:nobody = nobody"),
            ),
            // The user exists, but has no usable principal: the group is not used instead.
            (
                "mixed",
                Err("it is a user and a group: write `user:mixed` or `group:mixed`"),
                Err("it is a user and a group: write `user:mixed` or `group:mixed`"),
                Ok("user:mixed = mixed, group:mixed = mixed"),
            ),
            (
                "twins",
                Err("several `user:twins`"),
                Ok("user:twins = twins"),
                Ok("user:twins = twins, group:twins = twins"),
            ),
        ] {
            for (directory, expected) in
                [(&looking, in_directory), (&then_form, with_form), (&form_only, by_form)]
            {
                let expected = expected.map(str::to_owned).map_err(str::to_owned);
                assert_eq!(resolved(directory, text).await, expected, "{text}");
            }
        }
        let settings = TemplateSettings { user: "{user}@{domain}".into(), group: "g_{name}".into() };
        let partly = Directory::new(vec![Arc::new(Template::new(settings))]);
        assert_eq!(resolved(&partly, "dev").await, Ok("group:dev = g_dev".to_owned()), "a user has a domain");
    }

    #[tokio::test]
    async fn lookups_of_a_run_tell_directories_apart() {
        let directory = |name| Directory::new(vec![Fake::of(&[("user:alice", name)], "here")]);
        let (first, second, run) = (directory("a"), directory("b"), Lookups::default());
        // The cache serves refs with a prefix and bare names.
        for text in ["user:alice", "alice", "user:alice"] {
            for (directory, name) in [(&first, "a"), (&second, "b")] {
                let found = run.resolve(directory, &Ref::parse(text).unwrap()).await.unwrap();
                let reference = Qualified::parse("user:alice").unwrap();
                let principals = BTreeSet::from([name.to_owned()]);
                let alice = Candidate { reference, principals, members: false };
                assert_eq!(found, Known::Candidates(vec![alice]));
            }
        }
        assert_eq!(format!("{run:?}"), "Lookups(..)");
    }

    #[tokio::test]
    async fn unavailable_backend_is_a_transient_failure() {
        let away = Directory::new(vec![Fake::of(&[], ""), Fake::of(&[], "here")]);
        for text in ["user:alice", "alice"] {
            let error = Lookups::default().resolve(&away, &Ref::parse(text).unwrap()).await.unwrap_err();
            assert_eq!(*error.kind(), Kind::Retryable);
            let none = resolved(&Directory::new(Vec::new()), text).await.unwrap_err();
            assert!(none.contains("no identity backend is configured"), "{none}");
        }
    }

    proptest! {
        /// For every directory, a bare name means its only prefixed spelling, or it is unknown.
        #[test]
        fn bare_names_are_their_one_prefixed_spelling(
            known in prop::collection::btree_map("(user|group):[ab]_?[ab]", "[xyz*]", 0..6),
            name in "[ab]_?[ab]",
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let known: Vec<_> = known.into_iter().collect();
            let has = |prefix: &str| known.iter().any(|(reference, _)| *reference == format!("{prefix}:{name}"));
            let directory = Directory::new(vec![Arc::new(Fake(known.clone(), "here"))]);
            let read = |text: &str| runtime.block_on(resolved(&directory, text));
            let bare = read(&name);
            let [user, group] = ["user", "group"].map(|prefix| read(&format!("{prefix}:{name}")));
            match (has("user"), has("group")) {
                (true, false) => prop_assert_eq!(bare, user),
                (false, true) => prop_assert_eq!(bare, group),
                _ => prop_assert!(bare.is_err()),
            }
        }
    }
}
