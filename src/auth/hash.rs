//! Argon2 hashes in the PHC format: `$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH`.

use std::fmt;

use argon2::password_hash::PasswordHasher;
use argon2::password_hash::phc::{Output, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Params, Version};

use landfall_adapter::error::{Error, Result};

use super::verifiers::{Memory, OutOfMemory};

/// The maximum number of lanes (`p`). Lanes are computed one after the other, so a larger number is a mistake.
const MAX_LANES: u32 = 16;

/// OWASP's recommendation for argon2id, as (KiB of memory, iterations, lanes).
const RECOMMENDED: (u32, u32, u32) = (19_456, 2, 1);

/// The limits of one verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The maximum memory in KiB: `m`.
    pub memory_kib: u32,
    /// The maximum number of iterations: `t`.
    pub iterations: u32,
}

/// A hash of a secret. Its `Debug` and its errors never show it.
#[derive(Clone)]
pub struct Hash {
    text: String,
    argon2: Argon2<'static>,
    salt: Salt,
    output: Output,
}

impl Hash {
    /// Parses a hash. The error quotes nothing, because the text may be a secret in the wrong place.
    pub fn parse(text: &str, bounds: &Bounds) -> Result<Self, String> {
        let no_hash = || {
            "is not an argon2 hash (and is not shown, in case it is the secret itself); print one with \
             `landfall hash-password`"
                .to_owned()
        };
        let parsed = PasswordHash::new(text).map_err(|_| no_hash())?;
        let algorithm = Algorithm::try_from(parsed.algorithm.as_str()).map_err(|_| no_hash())?;
        let version = parsed.version.map(Version::try_from).transpose().map_err(|_| no_hash())?;
        let (Some(salt), Some(output)) = (parsed.salt, parsed.hash) else { return Err(no_hash()) };
        let params = Params::try_from(&parsed).map_err(|_| no_hash())?;
        let too_expensive = |what: &str, has: u32, most: u32, remedy: &str| {
            Err(format!("is an argon2 hash with {has} {what}, more than {most}; {remedy}"))
        };
        if params.m_cost() > bounds.memory_kib {
            let remedy = "raise auth.max_memory_kib, or print a cheaper one with `landfall hash-password`";
            return too_expensive("KiB of memory", params.m_cost(), bounds.memory_kib, remedy);
        }
        if params.t_cost() > bounds.iterations {
            let remedy = "raise auth.max_iterations, or print a cheaper one with `landfall hash-password`";
            return too_expensive("iterations", params.t_cost(), bounds.iterations, remedy);
        }
        if params.p_cost() > MAX_LANES {
            let remedy = "print another one with `landfall hash-password`";
            return too_expensive("lanes", params.p_cost(), MAX_LANES, remedy);
        }
        let argon2 = Argon2::new(algorithm, version.unwrap_or_default(), params);
        Ok(Self { text: text.to_owned(), argon2, salt, output })
    }

    /// Hashes a secret with OWASP's parameters and a new salt. Returns the hash in the PHC format.
    pub fn make(secret: &str) -> Result<String> {
        let (memory, iterations, lanes) = RECOMMENDED;
        let failed = |error: argon2::password_hash::Error| {
            Error::permanent("the secret cannot be hashed").because(error.to_string())
        };
        let params = Params::new(memory, iterations, lanes, None)
            .map_err(|error| Error::permanent("the secret cannot be hashed").because(error.to_string()))?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        Ok(argon2.hash_password(secret.as_bytes()).map_err(failed)?.to_string())
    }

    /// Whether this is the hash of `secret`. Computes in `memory` and compares in constant time, so that the
    /// time depends only on the parameters.
    pub(super) fn verifies(&self, secret: &str, memory: &mut Memory) -> Result<bool, OutOfMemory> {
        let blocks = memory.blocks(self.argon2.params().block_count())?;
        let mut buffer = [0; Output::MAX_LENGTH];
        let Some(computed) = buffer.get_mut(..self.output.len()) else { return Ok(false) };
        let done =
            self.argon2.hash_password_into_with_memory(secret.as_bytes(), &self.salt, computed, blocks);
        Ok(done.is_ok() && Output::new(computed).is_ok_and(|computed| computed == self.output))
    }

    /// The cost of a verification, to compare hashes: memory times iterations.
    pub(super) fn cost(&self) -> u64 {
        let params = self.argon2.params();
        u64::from(params.m_cost()) * u64::from(params.t_cost())
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Hash {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Hash {}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash(..)")
    }
}

/// A very cheap hash, for tests.
#[cfg(test)]
pub(crate) fn cheap(secret: &str) -> String {
    let params = Params::new(Params::MIN_M_COST, 1, 1, None).unwrap();
    Argon2::from(params).hash_password(secret.as_bytes()).unwrap().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { memory_kib: 65_536, iterations: 10 };

    #[test]
    fn new_hash_verifies_and_has_its_parameters() {
        let text = Hash::make("correct horse").unwrap();
        assert!(text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
        let hash = Hash::parse(&text, &BOUNDS).unwrap();
        let mut memory = Memory::default();
        assert_eq!(hash.verifies("correct horse", &mut memory), Ok(true));
        assert_eq!(hash.verifies("correct horse ", &mut memory), Ok(false));
        assert_ne!(text, Hash::make("correct horse").unwrap(), "salted");
        assert_eq!(format!("{hash:?}"), "Hash(..)");
    }

    /// A used buffer that is larger than needed gives the same result as the crate.
    #[test]
    fn reused_buffer_changes_no_result() {
        let mut memory = Memory::default();
        let larger = Hash::parse(&Hash::make("other").unwrap(), &BOUNDS).unwrap();
        assert_eq!(larger.verifies("other", &mut memory), Ok(true));
        for algorithm in [Algorithm::Argon2d, Algorithm::Argon2i, Algorithm::Argon2id] {
            for version in [Version::V0x10, Version::V0x13] {
                for (m, t, p, length) in [(8, 1, 1, 32), (64, 3, 2, 16), (1000, 2, 4, 64), (100, 1, 3, 10)] {
                    let params = Params::new(m, t, p, Some(length)).unwrap();
                    let argon2 = Argon2::new(algorithm, version, params);
                    let text = argon2.hash_password(b"right").unwrap().to_string();
                    let hash = Hash::parse(&text, &BOUNDS).unwrap();
                    assert_eq!(hash.verifies("right", &mut memory), Ok(true), "{text}");
                    assert_eq!(hash.verifies("wrong", &mut memory), Ok(false), "{text}");
                }
            }
        }
    }

    #[test]
    fn never_quotes_an_invalid_hash() {
        let bcrypt = "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW";
        let scrypt =
            "$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E";
        let no_output = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ";
        let no_salt = "$argon2id$v=19$m=8,t=1,p=1";
        let too_little_memory = "$argon2id$v=19$m=1,t=1,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b9dWRWJTmaaJObG";
        let no_version = "$argon2id$v=18$m=8,t=1,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b9dWRWJTmaaJObG";
        for text in ["", "hunter2", "$", bcrypt, scrypt, no_output, no_salt, too_little_memory, no_version] {
            let error = Hash::parse(text, &BOUNDS).unwrap_err();
            assert!(error.starts_with("is not an argon2 hash"), "{text}: {error}");
            assert!(text.len() < 2 || !error.contains(text), "{error}");
        }
    }

    #[test]
    fn refuses_expensive_hashes_with_the_limiting_key() {
        let refused = |parameters: &str| {
            let text = format!("$argon2id$v=19${parameters}$c29tZXNhbHQ$RdescudvJCsgt3ub+b9dWRWJTmaaJObG");
            Hash::parse(&text, &BOUNDS).map(drop)
        };
        assert_eq!(refused("m=65536,t=10,p=16"), Ok(()));
        assert_eq!(
            refused("m=65537,t=1,p=1").unwrap_err(),
            "is an argon2 hash with 65537 KiB of memory, more than 65536; raise auth.max_memory_kib, or print a \
             cheaper one with `landfall hash-password`"
        );
        assert!(
            refused("m=8,t=11,p=1").unwrap_err().contains("11 iterations, more than 10; raise auth.max_iter")
        );
        assert!(refused("m=1024,t=1,p=17").unwrap_err().contains("17 lanes, more than 16; print another"));
    }
}
