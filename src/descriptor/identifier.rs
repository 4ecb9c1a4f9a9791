//! Identifiers: URNs, read as RFC 8141 means them and not by counting colons.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A URN such as `urn:dmb:cmp:finance:cashflow:0:cashflow-output-port`.
///
/// What comes after the namespace is a list of non-empty parts. The first is the *entity* (`dp`, `cmp`, `dmn`); for
/// a data product the rest is its identity, domain, name and major version, and the identifier of a component
/// starts with the identity of its data product. The platform's own samples use `dp` for both, so nothing here
/// relies on the entity, nor on how many parts a domain or a component's name has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Identifier(String);

/// Why a text is not an [`Identifier`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidIdentifier {
    /// It does not start with `urn:`.
    NotAUrn,
    /// The namespace is not 2 to 32 letters, digits or hyphens.
    Namespace,
    /// Nothing between two colons, or nothing after the namespace.
    EmptyPart,
    /// A character that a URN cannot hold.
    Character(char),
    /// Longer than [`Identifier::MAX_LENGTH`].
    TooLong,
}

impl Identifier {
    /// Longest identifier, in bytes.
    pub const MAX_LENGTH: usize = 512;

    /// Stands where an identifier could not be read, until the whole reading is given up for it.
    pub(super) fn placeholder() -> Self {
        Self(String::new())
    }

    /// The whole URN, as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Namespace: `dmb`.
    pub fn namespace(&self) -> &str {
        self.0.split(':').nth(1).unwrap_or_default()
    }

    /// First part after the namespace: `dp`, `cmp`, `dmn`.
    pub fn entity(&self) -> &str {
        self.0.split(':').nth(2).unwrap_or_default()
    }

    /// The parts after the entity: `finance`, `cashflow`, `0`, `cashflow-output-port`.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.identity().split(':').filter(|part| !part.is_empty())
    }

    /// Everything after the entity: `finance:cashflow:0` for a data product.
    pub fn identity(&self) -> &str {
        self.0.splitn(4, ':').nth(3).unwrap_or_default()
    }

    /// The last part: `cashflow-output-port`.
    pub fn last_part(&self) -> &str {
        self.0.rsplit(':').next().unwrap_or_default()
    }

    /// The major version of a data product: its last part, where that is a number.
    pub fn major(&self) -> Option<u64> {
        self.parts().next_back()?.parse().ok()
    }

    /// What this component is called within `product`: `cashflow-output-port`, or `component:0`. `None` when the
    /// identifier does not start with the data product's identity.
    pub fn within<'a>(&'a self, product: &Self) -> Option<&'a str> {
        if self.namespace() != product.namespace() {
            return None;
        }
        self.identity().strip_prefix(product.identity())?.strip_prefix(':')
    }

    /// Whether this is a component of `product`, by its name.
    pub fn belongs_to(&self, product: &Self) -> bool {
        self.within(product).is_some()
    }
}

impl FromStr for Identifier {
    type Err = InvalidIdentifier;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > Self::MAX_LENGTH {
            return Err(InvalidIdentifier::TooLong);
        }
        let mut parts = text.split(':');
        if !parts.next().is_some_and(|scheme| scheme.eq_ignore_ascii_case("urn")) {
            return Err(InvalidIdentifier::NotAUrn);
        }
        let namespace = parts.next().ok_or(InvalidIdentifier::EmptyPart)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if !(2..=32).contains(&namespace.len())
            || !namespace.bytes().all(plain)
            || namespace.starts_with('-')
            || namespace.ends_with('-')
        {
            return Err(InvalidIdentifier::Namespace);
        }
        let mut any = false;
        for part in parts {
            any = true;
            if part.is_empty() {
                return Err(InvalidIdentifier::EmptyPart);
            }
            // pchar of RFC 3986, and the slash.
            if let Some(wrong) =
                part.chars().find(|c| !(c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=@%/".contains(*c)))
            {
                return Err(InvalidIdentifier::Character(wrong));
            }
        }
        if any { Ok(Self(text.to_owned())) } else { Err(InvalidIdentifier::EmptyPart) }
    }
}

impl TryFrom<String> for Identifier {
    type Error = InvalidIdentifier;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Identifier> for String {
    fn from(identifier: Identifier) -> Self {
        identifier.0
    }
}

impl AsRef<str> for Identifier {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for InvalidIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAUrn => f.write_str("the identifier does not start with `urn:`"),
            Self::Namespace => {
                f.write_str("the namespace of the identifier is not 2 to 32 letters, digits or hyphens")
            }
            Self::EmptyPart => f.write_str("the identifier has an empty part"),
            Self::Character(c) => write!(f, "the identifier holds {c:?}"),
            Self::TooLong => write!(f, "the identifier is longer than {} bytes", Identifier::MAX_LENGTH),
        }
    }
}

impl std::error::Error for InvalidIdentifier {}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Identifier {
        text.parse().unwrap()
    }

    #[test]
    fn parts_are_found_by_meaning() {
        let product = id("urn:dmb:dp:finance:cashflow:0");
        assert_eq!((product.namespace(), product.entity()), ("dmb", "dp"));
        assert_eq!((product.identity(), product.major()), ("finance:cashflow:0", Some(0)));
        let port = id("urn:dmb:cmp:finance:cashflow:0:cashflow-output-port");
        assert_eq!(port.within(&product), Some("cashflow-output-port"));
        assert_eq!((port.last_part(), port.major()), ("cashflow-output-port", None));
    }

    #[test]
    fn a_component_may_be_written_like_a_data_product() {
        let system = id("urn:dmb:dp:finance:a-system:0");
        assert_eq!(id("urn:dmb:dp:finance:a-system:0:component:0").within(&system), Some("component:0"));
    }

    #[test]
    fn what_only_looks_alike_does_not_belong() {
        let product = id("urn:dmb:dp:finance:cashflow:0");
        for stranger in [
            "urn:dmb:cmp:finance:cashflow:01:port",
            "urn:dmb:cmp:finance:cashflow:1:port",
            "urn:dmb:cmp:finance:cashflow:0",
            "urn:dmb:dp:finance:cashflow:0",
            "urn:other:cmp:finance:cashflow:0:port",
            "urn:dmb:cmp:x:finance:cashflow:0:port",
        ] {
            assert!(!id(stranger).belongs_to(&product), "{stranger}");
        }
    }

    #[test]
    fn short_urns_have_empty_ends() {
        let short = id("urn:dmb:dp");
        assert_eq!((short.entity(), short.identity(), short.major()), ("dp", "", None));
        assert_eq!(short.parts().count(), 0);
        assert!(!id("urn:dmb:dp:a").belongs_to(&short));
    }

    #[test]
    fn what_is_no_urn_is_told() {
        for (text, why) in [
            ("", InvalidIdentifier::NotAUrn),
            ("finance:cashflow", InvalidIdentifier::NotAUrn),
            ("urn", InvalidIdentifier::EmptyPart),
            ("urn:dmb", InvalidIdentifier::EmptyPart),
            ("urn:dmb:", InvalidIdentifier::EmptyPart),
            ("urn:dmb:dp:", InvalidIdentifier::EmptyPart),
            ("urn:d:dp", InvalidIdentifier::Namespace),
            ("urn:-dmb:dp", InvalidIdentifier::Namespace),
            ("urn:dm b:dp", InvalidIdentifier::Namespace),
            ("urn:dmb:d p", InvalidIdentifier::Character(' ')),
            ("urn:dmb:dp:a?b", InvalidIdentifier::Character('?')),
            ("urn:dmb:dp:a#b", InvalidIdentifier::Character('#')),
        ] {
            assert_eq!(text.parse::<Identifier>(), Err(why), "{text}");
        }
        assert_eq!(
            format!("urn:dmb:{}", "x".repeat(600)).parse::<Identifier>(),
            Err(InvalidIdentifier::TooLong)
        );
        assert!(serde_json::from_str::<Identifier>("\"nonsense\"").is_err());
    }
}
