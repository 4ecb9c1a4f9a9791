//! Authentication: verifies names and secrets against argon2 hashes. Unauthenticated callers cannot raise its cost.
//!
//! Guarantees:
//!
//! - A few dedicated threads verify secrets, each in one buffer. The number of concurrent verifications is limited, and
//!   an address has at most one. Callers whose address has fewer failures and fewer requests come first. A caller that
//!   waits longer than the configured time, or when too many already wait, gets an overload error, not a denial.
//! - A verified secret is cached as a keyed digest, one per user or token. From then on it passes in microseconds, from
//!   any address and under any load, until its hash changes.
//! - An address that fails too often for one user is refused without verification until its window ends. Other
//!   addresses, other users and cached secrets pass as before.
//! - No response shows whether the name or the secret was wrong: an unknown name costs as much as the most expensive
//!   hash, and the response about too many failures depends on the address alone. Timing can show it once an address is
//!   past its limit: the module then refuses unknown names without verification, but still verifies known names, so
//!   that they are not locked out.
//!
//! This module knows nothing of HTTP but the value of one header. Its caller determines the peer's address.

mod failures;
mod hash;
mod header;
mod turns;
mod verifiers;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ring::hmac;
use ring::rand::SystemRandom;

use crate::logging::PEER_LOGIN;
use landfall_adapter::error::{Error, Result};

pub use hash::{Bounds, Hash};

#[cfg(test)]
pub(crate) use hash::cheap;

use failures::Failures;
use turns::{Turn, Turns};
use verifiers::{Memory, OutOfMemory, Verifiers};

const NO_USER: &str = "a user is needed: send `Authorization: Basic` with a name and a password";
const MALFORMED_BASIC: &str = "the Authorization header is not `Basic` and the base64 of NAME:PASSWORD";
const WRONG_USER: &str = "the name or the password is wrong";
const NO_TOKEN: &str = "a token is needed: send `Authorization: Bearer` with it";
const MALFORMED_BEARER: &str = "the Authorization header is not `Bearer` and a token";
const WRONG_TOKEN: &str = "the token is wrong";

/// The rights of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// May read.
    Read,
    /// May read and change.
    Write,
}

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The configured name; `anonymous` if no users are configured.
    pub name: String,
    /// The user's rights.
    pub role: Role,
}

/// Why a call is denied. The texts are safe to send to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// The request has no valid credential, or the address has failed too often.
    Unauthorized(String),
    /// There was no capacity to verify the credential. It may be valid.
    Overloaded(String),
}

/// A user of the topology contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name. It contains no `:`, which ends a name in the header.
    pub name: String,
    /// The user's rights.
    pub role: Role,
    /// The hash of the user's password.
    pub hash: Hash,
}

/// A bearer token of the adapter contracts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// A label for the configuration. Callers do not send it.
    pub name: String,
    /// The hash of the token.
    pub hash: Hash,
}

/// The configured users and tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Credentials {
    /// The users. If there are none, the topology contract is open to every caller.
    pub users: Vec<User>,
    /// The tokens. If there are none, the adapter contracts are open to every caller.
    pub tokens: Vec<Token>,
}

/// Limits of authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The maximum number of secrets that are verified at the same time.
    pub concurrency: usize,
    /// The maximum time that a caller waits for its verification to start.
    pub wait: Duration,
    /// The maximum number of waiting callers.
    pub max_waiting: usize,
    /// After this many failures in one window, an address is refused without verification. Counted for each
    /// user, and for unknown users over all failures of the address.
    pub max_failures: u32,
    /// The length of a window, from its first failure.
    pub failure_window: Duration,
    /// The maximum number of addresses whose failures are counted.
    pub max_tracked: usize,
}

/// Verifies credentials; see the module documentation.
pub struct Callers {
    limits: Limits,
    key: Arc<hmac::Key>,
    book: RwLock<Arc<Book>>,
    failures: Arc<Mutex<Failures>>,
    turns: Turns,
    verifiers: Verifiers,
    clock: Clock,
}

/// The current time; tests set it.
type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// The kind of contract that is called. Failures are counted separately for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Audience {
    Basic,
    Bearer,
}

/// Credentials that are ready for verification.
#[derive(Default)]
struct Book {
    users: HashMap<String, Arc<Known>>,
    tokens: Vec<Arc<Known>>,
    /// The most expensive hash of a user, which is computed for an unknown name. Its result is ignored.
    decoy: Option<Hash>,
}

/// A user or token, with the cached digest of its secret.
struct Known {
    name: String,
    role: Role,
    hash: Hash,
    seen: Mutex<Option<hmac::Tag>>,
}

impl Callers {
    /// Starts the threads. Fails only if the system has no random numbers, or cannot start threads.
    pub fn new(limits: Limits, credentials: Credentials) -> Result<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|error| Error::permanent("the system has no random numbers").because(error))?;
        let failures = Failures::new(limits.max_failures, limits.failure_window, limits.max_tracked);
        Ok(Self {
            turns: Turns::new(limits.concurrency, limits.max_waiting),
            verifiers: Verifiers::start(limits.concurrency)?,
            failures: Arc::new(Mutex::new(failures)),
            book: RwLock::new(Arc::new(Book::new(credentials, &Book::default()))),
            key: Arc::new(key),
            clock: Arc::new(Instant::now),
            limits,
        })
    }

    /// Replaces the credentials. Cached secrets of unchanged hashes stay valid.
    pub fn reload(&self, credentials: Credentials) {
        let mut book = self.book.write().unwrap_or_else(PoisonError::into_inner);
        *book = Arc::new(Book::new(credentials, &book));
    }

    /// Whether callers of the topology contract must authenticate.
    pub fn asks_for_users(&self) -> bool {
        self.book().decoy.is_some()
    }

    /// Whether callers of the adapter contracts need a token.
    pub fn asks_for_tokens(&self) -> bool {
        !self.book().tokens.is_empty()
    }

    /// Authenticates a caller of the topology contract. `authorization` is the value of the header. Without
    /// configured users, every caller may do everything.
    pub async fn basic(&self, authorization: Option<&str>, peer: IpAddr) -> Result<Caller, Denied> {
        let book = self.book();
        let Some(decoy) = &book.decoy else {
            return Ok(Caller { name: "anonymous".to_owned(), role: Role::Write });
        };
        let header = authorization.ok_or_else(|| unauthorized(NO_USER))?;
        let (name, password) = header::basic(header).ok_or_else(|| unauthorized(MALFORMED_BASIC))?;
        let user = book.users.get(&name).cloned();
        let attempt = Attempt {
            audience: Audience::Basic,
            peer,
            name: user.is_some().then_some(name),
            secret: password,
            decoy: Some(decoy.clone()).filter(|_| user.is_none()),
            candidates: user.into_iter().collect(),
        };
        let user = self.verified(attempt).await?;
        Ok(Caller { name: user.name.clone(), role: user.role })
    }

    /// Returns an error if a caller may not use the adapter contracts. Without configured tokens, every caller
    /// may.
    pub async fn bearer(&self, authorization: Option<&str>, peer: IpAddr) -> Result<(), Denied> {
        let book = self.book();
        if book.tokens.is_empty() {
            return Ok(());
        }
        let header = authorization.ok_or_else(|| unauthorized(NO_TOKEN))?;
        let token = header::bearer(header).ok_or_else(|| unauthorized(MALFORMED_BEARER))?;
        let attempt = Attempt {
            audience: Audience::Bearer,
            peer,
            name: None,
            secret: token.to_owned(),
            candidates: book.tokens.clone(),
            decoy: None,
        };
        self.verified(attempt).await.map(drop)
    }

    async fn verified(&self, attempt: Attempt) -> Result<Arc<Known>, Denied> {
        if let Some(known) = attempt.remembered(&self.key) {
            return Ok(known);
        }
        self.check_failure_limit(&attempt)?;
        let failures = self.failures_of(&attempt);
        let turn = tokio::time::timeout(self.limits.wait, self.turns.take(attempt.peer, failures))
            .await
            .map_err(|_| busy())?
            .map_err(|_| busy())?;
        // Another request of the same caller may have been verified or refused in the meantime.
        if let Some(known) = attempt.remembered(&self.key) {
            return Ok(known);
        }
        self.check_failure_limit(&attempt)?;
        let key = Arc::clone(&self.key);
        let (failures, clock) = (Arc::clone(&self.failures), Arc::clone(&self.clock));
        // The verification completes and is counted even when the caller disconnects.
        self.verifiers
            .run(move |memory| attempt.carry_out(turn, memory, &key, &failures, &clock))
            .await
            .unwrap_or_else(|| Err(busy()))
    }

    fn failures_of(&self, attempt: &Attempt) -> u32 {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.of_address(attempt.audience, attempt.peer, (self.clock)())
    }

    fn check_failure_limit(&self, attempt: &Attempt) -> Result<(), Denied> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.refused_for(attempt.audience, attempt.peer, attempt.name.as_deref(), (self.clock)()) {
            Some(wait) => Err(too_many_failures(wait)),
            None => Ok(()),
        }
    }

    fn book(&self) -> Arc<Book> {
        Arc::clone(&self.book.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One secret, and the hashes to verify it against.
struct Attempt {
    audience: Audience,
    peer: IpAddr,
    /// The name of the user, if the user exists.
    name: Option<String>,
    secret: String,
    candidates: Vec<Arc<Known>>,
    /// The hash to compute, and whose result is ignored, if there is no candidate.
    decoy: Option<Hash>,
}

impl Attempt {
    fn remembered(&self, key: &hmac::Key) -> Option<Arc<Known>> {
        self.candidates.iter().find(|known| known.remembers(key, &self.secret)).cloned()
    }

    /// Verifies the secret. Remembers a right secret, and counts a wrong one as a failure. Then drops `turn`,
    /// the permit.
    fn carry_out(
        &self,
        turn: Turn,
        memory: &mut Memory,
        key: &hmac::Key,
        failures: &Mutex<Failures>,
        clock: &Clock,
    ) -> Result<Arc<Known>, Denied> {
        let outcome = match self.find(memory) {
            Ok(Some(known)) => {
                known.remember(key, &self.secret);
                Ok(known)
            }
            Ok(None) => {
                Err(self.failed(&mut failures.lock().unwrap_or_else(PoisonError::into_inner), clock()))
            }
            Err(OutOfMemory) => {
                log::error!("the system has no memory to verify a secret");
                Err(busy())
            }
        };
        drop(turn);
        outcome
    }

    /// Returns the user or token that the secret belongs to; `None` if the secret is wrong.
    fn find(&self, memory: &mut Memory) -> Result<Option<Arc<Known>>, OutOfMemory> {
        if let Some(decoy) = &self.decoy {
            std::hint::black_box(decoy.verifies(&self.secret, memory)?);
        }
        for known in &self.candidates {
            if known.hash.verifies(&self.secret, memory)? {
                return Ok(Some(Arc::clone(known)));
            }
        }
        Ok(None)
    }

    fn failed(&self, failures: &mut Failures, now: Instant) -> Denied {
        let count = failures.count(self.audience, self.peer, self.name.as_deref(), now);
        let wrong = match self.audience {
            Audience::Basic => WRONG_USER,
            Audience::Bearer => WRONG_TOKEN,
        };
        log::warn!(target: PEER_LOGIN, "{} is denied: {wrong}", self.peer);
        if count.reached {
            log::warn!(
                target: PEER_LOGIN,
                "{} failed to authenticate too often; further attempts are refused for a while",
                self.peer
            );
        }
        count.wait.map_or_else(|| unauthorized(wrong), too_many_failures)
    }
}

fn busy() -> Denied {
    Denied::Overloaded("too many callers are being checked, which is the limit; try again later".to_owned())
}

fn unauthorized(message: &str) -> Denied {
    Denied::Unauthorized(message.to_owned())
}

fn too_many_failures(wait: Duration) -> Denied {
    let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1);
    Denied::Unauthorized(format!("too many attempts from this address failed; try again in {seconds} s"))
}

impl Book {
    fn new(credentials: Credentials, before: &Self) -> Self {
        let decoy = credentials.users.iter().map(|user| &user.hash).max_by_key(|hash| hash.cost()).cloned();
        let users = credentials
            .users
            .into_iter()
            .map(|User { name, role, hash }| {
                let seen = before.users.get(&name).and_then(|known| known.seen_for(&hash));
                (name.clone(), Arc::new(Known { name, role, hash, seen: Mutex::new(seen) }))
            })
            .collect();
        let tokens = credentials
            .tokens
            .into_iter()
            .map(|Token { name, hash }| {
                let known = before.tokens.iter().find(|known| known.name == name);
                let seen = known.and_then(|known| known.seen_for(&hash));
                Arc::new(Known { name, role: Role::Write, hash, seen: Mutex::new(seen) })
            })
            .collect();
        Self { users, tokens, decoy }
    }
}

impl Known {
    fn remembers(&self, key: &hmac::Key, secret: &str) -> bool {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Compared in constant time.
        seen.is_some_and(|tag| hmac::verify(key, &self.message(secret), tag.as_ref()).is_ok())
    }

    fn remember(&self, key: &hmac::Key, secret: &str) {
        let tag = hmac::sign(key, &self.message(secret));
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(tag);
    }

    /// Returns the cached digest if `hash` is the hash it was verified against.
    fn seen_for(&self, hash: &Hash) -> Option<hmac::Tag> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).filter(|_| self.hash == *hash)
    }

    /// Returns the bytes of the digest's input: name, secret and hash, each preceded by its length, so that
    /// different values give different bytes.
    fn message(&self, secret: &str) -> Vec<u8> {
        let mut message = Vec::new();
        for part in [self.name.as_str(), secret, self.hash.text()] {
            message.extend_from_slice(&part.len().to_be_bytes());
            message.extend_from_slice(part.as_bytes());
        }
        message
    }
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callers").field("limits", &self.limits).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
