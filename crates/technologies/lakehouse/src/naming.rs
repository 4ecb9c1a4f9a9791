//! Names of buckets, namespaces and tables.
//!
//! A name that the descriptor does not set is derived from the URN and the environment. Two identities never get the
//! same name:
//!
//! - a *clean* segment has only `a-z`, `0-9` and single inner hyphens (`cashflow-output-port`);
//! - if every segment is clean, they are joined by a doubled separator, which no clean segment contains. In tables
//!   and namespaces the separator is `__` and a hyphen becomes `_`. In buckets, where `_` is not allowed, the
//!   separator is `--` and a hyphen stays;
//! - otherwise (capitals, underscores, dots, another URN, a long name) the name has the readable part, a tripled
//!   separator and 16 hexadecimal digits of SHA-256 over the identity. A clean name has no tripled separator, so the
//!   two forms are never equal.
//!
//! | identity | name |
//! |---|---|
//! | product `urn:dmb:dp:finance:cashflow:0` in `production` | namespace `finance__cashflow__0__production` |
//! | component `...:0:cashflow-output-port` of it | table `cashflow_output_port` |
//! | component `...:0:Cashflow_Port` of it | table `cashflow_port___` + hash |
//! | component `urn:dmb:cmp:finance:cashflow:0:storage` in `production` | bucket `finance--cashflow--0--storage--production` |

use landfall_adapter::naming::{self, hash};

/// Longest derived or accepted name of a namespace or table.
const MAX_TABLE_NAME: usize = 128;
/// Longest bucket name of S3.
const MAX_BUCKET_NAME: usize = 63;

/// The namespace of a data product's tables in an environment.
pub(super) fn namespace(product: &str, environment: &str) -> String {
    let mut name = Name::new('_', MAX_TABLE_NAME);
    match product.strip_prefix("urn:dmb:dp:") {
        Some(rest) => rest.split(':').for_each(|segment| name.push(segment)),
        None => name.push_foreign(product),
    }
    name.push(environment);
    name.finish(&[product, environment])
}

/// The table of an output port, inside the namespace of its data product.
pub(super) fn table(product: &str, component: &str) -> String {
    let mut name = Name::new('_', MAX_TABLE_NAME);
    let own = product
        .strip_prefix("urn:dmb:dp:")
        .zip(component.strip_prefix("urn:dmb:cmp:"))
        .and_then(|(product, component)| component.strip_prefix(product)?.strip_prefix(':'));
    match own {
        Some(rest) => rest.split(':').for_each(|segment| name.push(segment)),
        None => name.push_foreign(component),
    }
    name.finish(&[component])
}

/// The bucket of a storage area in an environment.
pub(super) fn bucket(component: &str, environment: &str) -> String {
    let mut name = Name::new('-', MAX_BUCKET_NAME);
    match component.strip_prefix("urn:dmb:cmp:") {
        Some(rest) => rest.split(':').for_each(|segment| name.push(segment)),
        None => name.push_foreign(component),
    }
    name.push(environment);
    let identity = [component, environment];
    let plain = name.finish(&identity);
    if bucket_problem(&plain).is_none() {
        return plain;
    }
    // A reserved prefix or suffix, or too short: use a name without a readable part, because S3 would refuse this
    // one.
    format!("b---{}", hash(&identity))
}

/// A name that is being derived.
struct Name<'a> {
    separator: char,
    limit: usize,
    segments: Vec<&'a str>,
    /// Whether the segments alone identify the resource, so that the name needs no hash.
    is_plain: bool,
}

impl<'a> Name<'a> {
    fn new(separator: char, limit: usize) -> Self {
        Self { separator, limit, segments: Vec::new(), is_plain: true }
    }

    /// Adds an identifier of an unknown shape, which makes the name a hashed one.
    fn push_foreign(&mut self, identifier: &'a str) {
        self.segments.extend(identifier.split(':'));
        self.is_plain = false;
    }

    fn push(&mut self, segment: &'a str) {
        self.segments.push(segment);
    }

    fn finish(self, identity: &[&str]) -> String {
        let name = naming::joined(&self.segments, self.separator);
        let is_clean = self.is_plain && self.segments.iter().all(|segment| naming::is_clean(segment));
        if is_clean && name.len() <= self.limit {
            return name;
        }
        naming::with_hash(&name, self.separator, self.limit, identity)
    }
}

/// The reason why S3 would refuse a bucket name, if any.
pub(super) fn bucket_problem(name: &str) -> Option<&'static str> {
    const PREFIXES: [&str; 3] = ["xn--", "sthree-", "amzn-s3-demo-"];
    const SUFFIXES: [&str; 5] = ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"];
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    if !(3..=MAX_BUCKET_NAME).contains(&name.len()) {
        Some("a bucket name has 3 to 63 characters")
    } else if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.') {
        Some("a bucket name has only lower-case letters, digits, hyphens and dots")
    } else if !edge(name.chars().next()) || !edge(name.chars().next_back()) {
        Some("a bucket name begins and ends with a letter or a digit")
    } else if name.contains("..") {
        Some("a bucket name has no two dots in a row")
    } else if name.split('.').count() == 4 && name.split('.').all(|part| part.parse::<u8>().is_ok()) {
        Some("a bucket name is not shaped like an IP address")
    } else if PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        Some("a bucket name does not begin with `xn--`, `sthree-` or `amzn-s3-demo-`, which S3 reserves")
    } else if SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) {
        Some(
            "a bucket name does not end with a suffix that S3 reserves (`-s3alias`, `--ol-s3`, `.mrap`, `--x-s3`, `--table-s3`)",
        )
    } else {
        None
    }
}

/// The reason why a namespace or table cannot have this name from the descriptor, if any.
pub(super) fn table_problem(name: &str) -> Option<&'static str> {
    let first = name.bytes().next();
    if name.len() > MAX_TABLE_NAME {
        Some("the name has at most 128 characters")
    } else if !first.is_some_and(|b| b.is_ascii_lowercase() || b == b'_') {
        Some("the name begins with a lower-case letter or an underscore")
    } else if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
        Some("the name has only lower-case letters, digits and underscores")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use landfall_adapter::testing::{assert_distinct, identifiers};

    #[test]
    fn clean_identities_read_well() {
        let product = "urn:dmb:dp:finance:cashflow:0";
        assert_eq!(namespace(product, "production"), "finance__cashflow__0__production");
        assert_eq!(
            table(product, "urn:dmb:cmp:finance:cashflow:0:cashflow-output-port"),
            "cashflow_output_port"
        );
        assert_eq!(
            bucket("urn:dmb:cmp:finance:cashflow:0:storage", "production"),
            "finance--cashflow--0--storage--production"
        );
    }

    /// Identities to which a simpler function would give the same name.
    #[test]
    fn no_two_identities_share_a_name() {
        let segments = [
            "a",
            "b",
            "a-b",
            "a_b",
            "A-b",
            "a.b",
            "a--b",
            "a__b",
            "-a",
            "a-",
            "é",
            "e\u{301}",
            "",
            "a b",
            "a\u{202e}b",
            "a\u{200b}b",
        ];
        let mut products = vec!["x".to_owned(), "urn:other:dp:a".to_owned()];
        for one in segments {
            products.push(format!("urn:dmb:dp:{one}"));
            for two in segments {
                products.push(format!("urn:dmb:dp:{one}:{two}"));
            }
        }
        let mut namespaces = HashMap::new();
        let mut buckets = HashMap::new();
        for product in &products {
            for environment in segments.iter().chain(&["ol-s3", "production"]) {
                let identity = (product.clone(), (*environment).to_owned());
                let name = namespace(product, environment);
                assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{name}");
                assert_eq!(namespaces.insert(name, identity.clone()), None);
                let component = product.replace(":dp:", ":cmp:");
                let name = bucket(&component, environment);
                assert_eq!(bucket_problem(&name), None, "{name}");
                assert_eq!(buckets.insert(name, identity), None);
            }
        }
        let product = "urn:dmb:dp:f:p:0";
        let mut tables = HashMap::new();
        for one in segments {
            for prefix in ["urn:dmb:cmp:f:p:0:", "urn:dmb:cmp:", "urn:x:cmp:f:p:0:"] {
                let component = format!("{prefix}{one}");
                assert_eq!(tables.insert(table(product, &component), component), None);
            }
        }
    }

    #[test]
    fn names_of_ten_thousand_identifiers_are_distinct() {
        let ids = identifiers(10_000);
        let texts = || ids.iter().map(|id| id.as_str());
        assert_distinct(texts().map(|id| (namespace(id, "production"), id.to_owned())));
        assert_distinct(texts().map(|id| (bucket(id, "production"), id.to_owned())));
        for product in ["urn:dmb:dp:f:p:0", "f:p:0"] {
            assert_distinct(texts().map(|id| (table(product, id), id.to_owned())));
        }
        for id in texts() {
            assert_eq!(bucket_problem(&bucket(id, "production")), None, "{id}");
            let name = namespace(id, "production");
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{name}");
        }
    }

    #[test]
    fn opaque_identifiers_have_names_of_their_own() {
        let product = "urn:dmb:dp:f:p:0";
        assert_eq!(table(product, "urn:dmb:cmp:f:p:0:raw"), "raw");
        assert!(table(product, "raw").starts_with("raw___"));
        assert!(table("f:p:0", "f:p:0:raw").starts_with("f__p__0__raw___"));
        assert!(bucket("my component", "production").starts_with("my-component--production---"));
    }

    #[test]
    fn long_names_are_cut_and_stay_distinct() {
        let long = "a".repeat(300);
        let one = bucket(&format!("urn:dmb:cmp:{long}:x"), "production");
        let two = bucket(&format!("urn:dmb:cmp:{long}:y"), "production");
        assert!(one.len() <= 63 && one != two);
        assert_eq!(bucket_problem(&one), None);
        assert!(namespace(&format!("urn:dmb:dp:{long}"), "production").len() <= 128);
    }

    #[test]
    fn bucket_rules() {
        for good in ["abc", "finance-cashflows", "a.b.c", "1.2.3.x", "0ab"] {
            assert_eq!(bucket_problem(good), None, "{good}");
        }
        for bad in [
            "",
            "ab",
            "Abc",
            "a_b_c",
            "-abc",
            "abc-",
            "a..b",
            "192.168.0.1",
            "xn--abc",
            "abc-s3alias",
            "a/b/c",
            "../etc",
            "a b c",
            "é-bucket",
            ".abc",
            "a\u{202e}bc",
            "a\u{200b}bc",
            "\u{ff41}bc",
        ] {
            assert!(bucket_problem(bad).is_some(), "{bad}");
        }
    }
}
