//! Identifiers: opaque texts, which are read as URNs (RFC 8141) if they are URNs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The identifier of a data product or a component: any text on one line.
///
/// Identifiers are compared byte by byte, without folding or normalisation. Most are URNs such as
/// `urn:dmb:cmp:finance:cashflow:0:cashflow-output-port`, and [`Self::urn`] returns their parts, but no code may
/// require that.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Identifier(String);

/// The parts of a URN.
///
/// After the namespace there is a list of non-empty parts. The first one is the *entity* (`dp`, `cmp`, `dmn`). For a
/// data product, the rest is domain, name and major version, and a component's identifier begins with the same parts.
/// The platform's samples use `dp` for both, so no code relies on the entity, or on the number of parts of a domain
/// or a component name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Urn<'a> {
    /// `dmb`
    pub namespace: &'a str,
    /// First part after the namespace: `dp`, `cmp`, `dmn`.
    pub entity: &'a str,
    /// The part after the entity: `finance:cashflow:0` for a data product. May be empty.
    pub identity: &'a str,
}

/// Why a text is not an [`Identifier`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidIdentifier {
    /// It is empty.
    Empty,
    /// It has a control character.
    Character(char),
    /// It is longer than [`Identifier::MAX_LENGTH`].
    TooLong,
}

impl Identifier {
    /// The maximum length in bytes.
    pub const MAX_LENGTH: usize = 512;

    /// Replaces an identifier that could not be read, until reading ends with its problem.
    pub(super) fn placeholder() -> Self {
        Self(String::new())
    }

    /// The text, as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The parts, if it is a URN.
    pub fn urn(&self) -> Option<Urn<'_>> {
        Urn::of(&self.0)
    }

    /// The last part between colons, or the whole text: `cashflow-output-port`. For users; it is not unique.
    pub fn last_part(&self) -> &str {
        self.0.rsplit(':').next().unwrap_or_default()
    }

    /// The major version of a data product: its last part, if it is a URN and that part is a number.
    pub fn major(&self) -> Option<u64> {
        self.urn()?.parts().next_back()?.parse().ok()
    }

    /// The name of this component within `product`: `cashflow-output-port`, or `component:0`. `None` if one of them
    /// is not a URN, or the identifier does not begin with the parts of the data product.
    pub fn within<'a>(&'a self, product: &Self) -> Option<&'a str> {
        let (own, product) = (self.urn()?, product.urn()?);
        if own.namespace != product.namespace {
            return None;
        }
        own.identity.strip_prefix(product.identity)?.strip_prefix(':')
    }

    /// Whether its name belongs to a component of `product`. `false` for an identifier that is not a URN.
    pub fn belongs_to(&self, product: &Self) -> bool {
        self.within(product).is_some()
    }
}

impl<'a> Urn<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once(':')?;
        let (namespace, rest) = rest.split_once(':')?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let sound = scheme.eq_ignore_ascii_case("urn")
            && (2..=32).contains(&namespace.len())
            && namespace.bytes().all(plain)
            && !namespace.starts_with('-')
            && !namespace.ends_with('-');
        // pchar of RFC 3986, and the slash.
        let character = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=@%/".contains(c);
        let parts = || rest.split(':');
        if !sound || !parts().all(|part| !part.is_empty() && part.chars().all(character)) {
            return None;
        }
        let (entity, identity) = rest.split_once(':').unwrap_or((rest, ""));
        Some(Self { namespace, entity, identity })
    }

    /// The parts after the entity: `finance`, `cashflow`, `0`, `cashflow-output-port`.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &'a str> + use<'a> {
        self.identity.split(':').filter(|part| !part.is_empty())
    }
}

impl FromStr for Identifier {
    type Err = InvalidIdentifier;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().is_empty() {
            return Err(InvalidIdentifier::Empty);
        }
        if text.len() > Self::MAX_LENGTH {
            return Err(InvalidIdentifier::TooLong);
        }
        match text.chars().find(|c| c.is_control()) {
            Some(wrong) => Err(InvalidIdentifier::Character(wrong)),
            None => Ok(Self(text.to_owned())),
        }
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
            Self::Empty => f.write_str("the identifier is empty"),
            Self::Character(c) => {
                write!(f, "the identifier holds the control character U+{:04X}", u32::from(*c))
            }
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
    fn parts_are_found_by_their_fields() {
        let product = id("urn:dmb:dp:finance:cashflow:0");
        let urn = product.urn().unwrap();
        assert_eq!((urn.namespace, urn.entity), ("dmb", "dp"));
        assert_eq!((urn.identity, product.major()), ("finance:cashflow:0", Some(0)));
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
    fn similar_ids_do_not_belong_to_the_product() {
        let product = id("urn:dmb:dp:finance:cashflow:0");
        for stranger in [
            "urn:dmb:cmp:finance:cashflow:01:port",
            "urn:dmb:cmp:finance:cashflow:1:port",
            "urn:dmb:cmp:finance:cashflow:0",
            "urn:dmb:dp:finance:cashflow:0",
            "urn:other:cmp:finance:cashflow:0:port",
            "urn:dmb:cmp:x:finance:cashflow:0:port",
            "finance:cashflow:0:port",
            "port",
        ] {
            assert!(!id(stranger).belongs_to(&product), "{stranger}");
        }
    }

    #[test]
    fn short_urns_have_empty_segments() {
        let short = id("urn:dmb:dp");
        let urn = short.urn().unwrap();
        assert_eq!((urn.entity, urn.identity, short.major()), ("dp", "", None));
        assert_eq!(urn.parts().count(), 0);
        assert!(!id("urn:dmb:dp:a").belongs_to(&short));
    }

    #[test]
    fn text_that_is_no_urn_is_an_opaque_identifier() {
        for text in [
            "finance:cashflow",
            "urn",
            "urn:dmb",
            "urn:dmb:",
            "urn:dmb:dp:",
            "urn:dmb:dp:a::b",
            "urn:d:dp",
            "urn:-dmb:dp",
            "urn:dm b:dp",
            "urn:dmb:d p",
            "urn:dmb:dp:a?b",
            "checks/orders#1",
            "My component",
            "\u{e9}",
        ] {
            let opaque = id(text);
            assert_eq!((opaque.as_str(), opaque.urn(), opaque.major()), (text, None, None));
            assert!(!opaque.belongs_to(&id("urn:dmb:dp:a:b:0")) && !opaque.belongs_to(&opaque), "{text}");
        }
        assert_eq!(id("my-system:component-1").last_part(), "component-1");
        assert_eq!(id("my component").last_part(), "my component");
    }

    #[test]
    fn invalid_text_is_not_an_identifier() {
        for (text, why) in [
            ("", InvalidIdentifier::Empty),
            (" \u{a0}", InvalidIdentifier::Empty),
            ("a\nb", InvalidIdentifier::Character('\n')),
            ("urn:dmb:dp:a\0", InvalidIdentifier::Character('\0')),
            ("\u{85}x", InvalidIdentifier::Character('\u{85}')),
        ] {
            assert_eq!(text.parse::<Identifier>(), Err(why), "{text:?}");
        }
        assert_eq!("x".repeat(513).parse::<Identifier>(), Err(InvalidIdentifier::TooLong));
        assert!(serde_json::from_str::<Identifier>("\"a\\u0000\"").is_err());
    }
}
