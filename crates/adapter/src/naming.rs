//! Building blocks of functions that derive resource names from identities.
//!
//! A derived name has one of two forms, which cannot be equal:
//!
//! - *clean*: every segment has only `a-z`, `0-9` and single inner hyphens ([`is_clean`]). [`joined`] puts two
//!   separators between the segments, which no segment contains.
//! - *hashed*: the readable part, cut to fit, three separators, and 16 hexadecimal digits of SHA-256 over the
//!   whole identity ([`with_hash`]).
//!
//! Derived names are stored in targets. So the functions of this module never change what they return.

use sha2::{Digest, Sha256};

/// Hexadecimal digits of the hash in a hashed name.
pub const HASH_DIGITS: usize = 16;

/// Whether a segment can be part of a clean name.
pub fn is_clean(segment: &str) -> bool {
    !segment.is_empty()
        && segment.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !segment.starts_with('-')
        && !segment.ends_with('-')
        && !segment.contains("--")
}

/// The ASCII letters and digits of a segment, in lower case, with one separator for everything between them.
pub fn readable(segment: &str, separator: char) -> String {
    let mut kept = String::new();
    for c in segment.chars() {
        if c.is_ascii_alphanumeric() {
            kept.push(c.to_ascii_lowercase());
        } else if !kept.is_empty() && !kept.ends_with(separator) {
            kept.push(separator);
        }
    }
    kept.truncate(kept.trim_end_matches(separator).len());
    kept
}

/// The readable parts of segments, with two separators between them. Segments with nothing readable are left out.
pub fn joined(segments: &[&str], separator: char) -> String {
    let mut name = String::new();
    for part in segments.iter().map(|segment| readable(segment, separator)).filter(|part| !part.is_empty()) {
        if !name.is_empty() {
            name.extend([separator; 2]);
        }
        name.push_str(&part);
    }
    name
}

/// A hashed name of at most `limit` bytes. `kept` is ASCII; `identity` tells apart whatever must not have the same
/// name.
pub fn with_hash(kept: &str, separator: char, limit: usize, identity: &[&str]) -> String {
    let room = limit.saturating_sub(HASH_DIGITS + 3);
    let kept = kept.get(..room).unwrap_or(kept).trim_end_matches(separator);
    let separators: String = [separator; 3].into_iter().collect();
    format!("{kept}{separators}{}", hash(identity))
}

/// SHA-256 over the parts of an identity.
pub fn digest(identity: &[&str]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in identity {
        // The length keeps ("ab", "c") apart from ("a", "bc").
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    digest.finalize().into()
}

/// The first 16 hexadecimal digits of [`digest`].
pub fn hash(identity: &[&str]) -> String {
    hex(&digest(identity), HASH_DIGITS)
}

/// The first `digits` hexadecimal digits of `bytes`.
pub fn hex(bytes: &[u8], digits: usize) -> String {
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    text.chars().take(digits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_never_change() {
        assert_eq!(hash(&["ab", "c"]), "601d5476e2ccfe2c");
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
        assert_eq!(joined(&["Cash  Flow!", "", "0", "_a-b_"], '_'), "cash_flow__0__a_b");
        assert_eq!(joined(&["a.b", "c"], '-'), "a-b--c");
        assert_eq!(with_hash("abc_", '_', 22, &["x"]), format!("abc___{}", hash(&["x"])));
        assert_eq!(with_hash("", '-', 63, &["x"]), format!("---{}", hash(&["x"])));
        assert_eq!(with_hash("abcdef", '_', 5, &["x"]), format!("___{}", hash(&["x"])), "there is no room");
    }

    #[test]
    fn clean_segments_have_single_inner_hyphens() {
        for (segment, clean) in [
            ("a", true),
            ("cash-flow-0", true),
            ("", false),
            ("-a", false),
            ("a-", false),
            ("a--b", false),
            ("a_b", false),
            ("A", false),
            ("\u{e4}", false),
        ] {
            assert_eq!(is_clean(segment), clean, "{segment}");
        }
    }
}
