//! Names of schemas, tables, views and roles.
//!
//! PostgreSQL silently truncates a name to 63 bytes, so two long names could become one. A name that the descriptor
//! does not set is derived from the identity by [`derived`]. Two identities never get the same name:
//!
//! - a *clean* segment has only `a-z`, `0-9` and single inner hyphens (`cashflow-output-port`);
//! - if the identifier is a URN with clean segments and the usual number of parts, and the name fits, hyphens become
//!   `_` and segments are joined by `__`, which no clean segment contains;
//! - otherwise the name has the readable part, `___` and 16 hexadecimal digits of SHA-256 over the identity. A clean
//!   name has no `___`, so the two forms are never equal.
//!
//! Roles belong to the whole cluster, so the database is part of their identity. Their names always have the second
//! form, because users do not type them.
//!
//! | identity | name |
//! |---|---|
//! | product `urn:dmb:dp:finance:cashflow:0` in `production` | schema `finance__cashflow__0__production` |
//! | component `...:0:storage-component` of it | schema `finance__cashflow__0__storage_component__production`, and the database, if it has its own |
//! | component `...:0:cashflow-output-port` of it | table or view `cashflow_output_port` |
//! | readers of the latter in the database `analytics` | role `cashflow_output_port__reader___` + hash |
//!
//! Names in a descriptor are used unchanged, also with capitals and quotation marks, up to 63 bytes.

use landfall_adapter::descriptor::Identifier;
use landfall_adapter::naming::{self, digest, hex};

/// The maximum length of a name in bytes: PostgreSQL's NAMEDATALEN minus one.
pub(super) const MAX_NAME: usize = 63;
/// The number of parts of a data product's URN: domain, name and major version. With another number of parts, a
/// product and a component could get the same name.
const PRODUCT_PARTS: usize = 3;

/// The schema of a data product's output ports.
pub(super) fn product_schema(product: &Identifier, environment: &str) -> String {
    let segments: Vec<_> = parts(product).into_iter().chain([environment]).collect();
    let plain = is_plain(product, "dp") && parts(product).len() == PRODUCT_PARTS;
    derived(&segments, &["product-schema", product.as_str(), environment], plain)
}

/// The database of a storage area that has its own.
pub(super) fn storage_database(component: &Identifier, environment: &str) -> String {
    let segments: Vec<_> = parts(component).into_iter().chain([environment]).collect();
    let plain = is_plain(component, "cmp") && parts(component).len() == PRODUCT_PARTS + 1;
    derived(&segments, &["storage-database", component.as_str(), environment], plain)
}

/// The schema of a storage area.
pub(super) fn storage_schema(component: &Identifier, environment: &str) -> String {
    let segments: Vec<_> = parts(component).into_iter().chain([environment]).collect();
    let plain = is_plain(component, "cmp") && parts(component).len() == PRODUCT_PARTS + 1;
    derived(&segments, &["storage-schema", component.as_str(), environment], plain)
}

/// The table or view of an output port, inside the schema of its data product.
pub(super) fn relation(product: &Identifier, component: &Identifier) -> String {
    let own = component.within(product);
    let segments: Vec<_> = own.map_or_else(|| parts(component), |own| own.split(':').collect());
    derived(&segments, &["relation", component.as_str()], own.is_some() && is_plain(component, "cmp"))
}

/// A role of a component in a database: `kind` is `owner` or `reader`.
pub(super) fn role(database: &str, component: &Identifier, environment: &str, kind: &str) -> String {
    let segments = [component.last_part(), kind];
    derived(&segments, &["role", database, component.as_str(), environment, kind], false)
}

/// The key of the advisory lock of a component or a data product.
pub(super) fn lock_key(identity: &str, environment: &str) -> i64 {
    let digest = digest(&["lock", identity, environment]);
    let mut bytes = [0; 8];
    bytes.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    i64::from_be_bytes(bytes)
}

/// Hexadecimal digits of a SHA-256, for comparing texts.
pub(super) fn fingerprint(text: &str) -> String {
    hex(&digest(&[text]), 32)
}

/// The reason why a name from the descriptor cannot be used, if any.
pub(super) fn problem(name: &str) -> Option<&'static str> {
    if name.trim().is_empty() {
        Some("the name is empty")
    } else if name.len() > MAX_NAME {
        Some("the name is longer than 63 bytes, after which PostgreSQL cuts it")
    } else if name.chars().any(char::is_control) {
        Some("the name has a control character")
    } else {
        None
    }
}

/// The reason why a schema cannot have this name, if any.
pub(super) fn schema_problem(name: &str) -> Option<&'static str> {
    if name.starts_with("pg_") || name == "information_schema" {
        Some("the name is reserved by PostgreSQL")
    } else if name == "public" {
        Some("the schema `public` belongs to everybody")
    } else {
        problem(name)
    }
}

/// The reason why a database cannot have this name, if any.
pub(super) fn database_problem(name: &str) -> Option<&'static str> {
    if matches!(name, "postgres" | "template0" | "template1") {
        Some("the database is PostgreSQL's own")
    } else {
        problem(name)
    }
}

/// Whether the identifier is a URN of Witboost for this entity. Only then do its readable parts identify it.
fn is_plain(identifier: &Identifier, entity: &str) -> bool {
    identifier.as_str().starts_with("urn:dmb:") && identifier.urn().is_some_and(|urn| urn.entity == entity)
}

/// The readable parts of an identifier: for a URN the parts after its entity, otherwise the whole text.
fn parts(identifier: &Identifier) -> Vec<&str> {
    match identifier.urn() {
        Some(urn) => urn.parts().collect(),
        None => identifier.as_str().split(':').collect(),
    }
}

/// Returns the name for these segments; see the module documentation. If `plain` is false, or the segments are
/// not clean or too long, the name ends in a hash of `identity`, which must be unique.
fn derived(segments: &[&str], identity: &[&str], plain: bool) -> String {
    let name = naming::joined(segments, '_');
    let is_clean = plain && segments.iter().all(|segment| naming::is_clean(segment));
    // A schema must not begin with `pg_`.
    if is_clean && name.len() <= MAX_NAME && !name.starts_with("pg_") {
        return name;
    }
    let kept = name.get(..MAX_NAME - naming::HASH_DIGITS - 3).unwrap_or(&name);
    let kept = match kept.trim_matches('_').trim_start_matches("pg_") {
        "" => "x",
        kept => kept,
    };
    naming::with_hash(kept, '_', MAX_NAME, identity)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use landfall_adapter::testing::{assert_distinct, identifiers};

    fn id(text: &str) -> Identifier {
        text.parse().unwrap()
    }

    #[test]
    fn clean_identities_read_well() {
        let product = id("urn:dmb:dp:finance:cashflow:0");
        let storage = id("urn:dmb:cmp:finance:cashflow:0:storage-component");
        let port = id("urn:dmb:cmp:finance:cashflow:0:cashflow-output-port");
        assert_eq!(product_schema(&product, "production"), "finance__cashflow__0__production");
        assert_eq!(
            storage_schema(&storage, "production"),
            "finance__cashflow__0__storage_component__production"
        );
        assert_eq!(relation(&product, &port), "cashflow_output_port");
        let role = role("analytics", &port, "production", "reader");
        assert!(role.starts_with("cashflow_output_port__reader___") && role.len() <= MAX_NAME, "{role}");
    }

    /// Identities to which a simpler function would give the same name.
    #[test]
    fn no_two_identities_share_a_name() {
        let long = "a".repeat(200);
        let longer = format!("{long}b");
        let segments =
            ["a", "b", "a-b", "a_b", "A-b", "a.b", "a--b", "a__b", "-a", "a-", "pg-a", &long, &longer];
        let (mut schemas, mut relations, mut roles) = (HashMap::new(), HashMap::new(), HashMap::new());
        let product = id("urn:dmb:dp:f:p:0");
        schemas.insert(product_schema(&product, "a"), ("product", product.clone(), "a"));
        for one in segments {
            for namespace in ["urn:dmb:cmp", "urn:other:cmp", "urn:dmb:dp"] {
                let component = id(&format!("{namespace}:f:p:0:{one}"));
                let name = relation(&product, &component);
                assert_eq!(problem(&name), None, "{name}");
                assert_eq!(relations.insert(name, component.clone()), None);
                for environment in segments {
                    let names =
                        [storage_schema(&component, environment), product_schema(&component, environment)];
                    for (of, name) in ["storage", "product"].into_iter().zip(names) {
                        assert_eq!(schema_problem(&name), None, "{name}");
                        let identity = (of, component.clone(), environment);
                        assert_eq!(schemas.insert(name, identity), None);
                    }
                    for kind in ["owner", "reader"] {
                        for database in ["x", "y"] {
                            let name = role(database, &component, environment, kind);
                            assert_eq!(problem(&name), None, "{name}");
                            let identity = (database, component.clone(), environment, kind);
                            assert_eq!(roles.insert(name, identity), None);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn names_of_ten_thousand_identifiers_are_distinct() {
        let ids = identifiers(10_000);
        let named = |name: &dyn Fn(&Identifier) -> String| {
            ids.iter().map(|id| (name(id), id.to_string())).collect::<Vec<_>>()
        };
        for product in ["urn:dmb:dp:f:p:0", "f:p:0"].map(id) {
            assert_distinct(named(&|id| relation(&product, id)).into_iter());
        }
        // Schemas of data products and of storage areas are in one database.
        let mut schemas = named(&|id| product_schema(id, "production"));
        schemas.extend(
            named(&|id| storage_schema(id, "production"))
                .into_iter()
                .map(|(name, id)| (name, id + " storage")),
        );
        assert!(schemas.iter().all(|(name, _)| schema_problem(name).is_none()));
        assert_distinct(schemas.into_iter());
        assert_distinct(named(&|id| storage_database(id, "production")).into_iter());
        for kind in ["owner", "reader"] {
            assert_distinct(named(&|id| role("db", id, "production", kind)).into_iter());
        }
        let locks: std::collections::HashSet<i64> =
            ids.iter().map(|id| lock_key(id.as_str(), "production")).collect();
        assert_eq!(locks.len(), ids.len());
    }

    /// These names must not change, because existing objects have them.
    #[test]
    fn names_of_urns_are_as_they_were() {
        for (name, expected) in [
            (
                product_schema(&id("urn:dmb:dp:finance:cash.flow:0"), "production"),
                "finance__cash_flow__0__production___7f10725cdf71e313",
            ),
            (
                storage_schema(&id("urn:dmb:cmp:finance:cash.flow:0:Cashflow_Port"), "production"),
                "finance__cash_flow__0__cashflow_port__produc___dc2c5f23d0e44bf5",
            ),
            (
                relation(
                    &id("urn:dmb:dp:finance:cash.flow:0"),
                    &id("urn:dmb:cmp:finance:cash.flow:0:Cashflow_Port"),
                ),
                "cashflow_port___39c3cb97711fb47f",
            ),
            (
                relation(&id("urn:dmb:dp:finance:cash.flow:0"), &id("urn:other:cmp:finance:cashflow:0:port")),
                "finance__cashflow__0__port___c3b2b6b8efe16f1e",
            ),
            (
                role("db", &id("urn:dmb:cmp:finance:cash.flow:0:Cashflow_Port"), "production", "owner"),
                "cashflow_port__owner___eb37d9017a61d3a2",
            ),
        ] {
            assert_eq!(name, expected);
        }
    }

    #[test]
    fn names_written_by_hand() {
        for good in ["a", "Select", "it's \"quoted\"; --", "größe", "a.b"] {
            assert_eq!(problem(good), None, "{good}");
        }
        for bad in ["", " ", "a\nb", &"é".repeat(32)] {
            assert!(problem(bad).is_some(), "{bad}");
        }
        for bad in ["public", "pg_catalog", "pg_x", "information_schema"] {
            assert!(schema_problem(bad).is_some(), "{bad}");
        }
    }
}
