//! Identifiers that a careless naming function maps to one name: ten thousand arbitrary ones, and similar ones for
//! each.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::descriptor::Identifier;

/// Distinct identifiers, at least `count` of them.
pub fn identifiers(count: usize) -> Vec<Identifier> {
    let part = || {
        prop_oneof![
            "[a-c]{1,2}",
            "[a-zA-Z0-9._~-]{1,6}",
            "\\PC{1,6}",
            prop::sample::select(vec![
                "a-b", "a_b", "a--b", "a__b", "-a", "0", "é", "e\u{301}", "pg-a", "cmp", "dp"
            ])
            .prop_map(str::to_owned),
        ]
    };
    let parts = || prop::collection::vec(part(), 1..6).prop_map(|parts| parts.join(":"));
    let text = prop_oneof![
        parts(),
        parts().prop_map(|text| format!("urn:dmb:cmp:{text}")),
        parts().prop_map(|text| format!("urn:dmb:dp:{text}")),
        parts().prop_map(|text| format!("urn:dmb:cmp:f:p:0:{text}")),
        parts().prop_map(|text| format!("urn:other:cmp:f:p:0:{text}")),
        parts().prop_map(|text| format!("{text}{}", "x".repeat(200))),
    ];
    let mut runner = TestRunner::deterministic();
    let mut found = BTreeSet::new();
    while found.len() < count {
        let text = text.new_tree(&mut runner).expect("a text").current();
        let opaque = ["urn:dmb:cmp:", "urn:dmb:dp:"].iter().find_map(|prefix| text.strip_prefix(prefix));
        let twins = [
            opaque.unwrap_or(&text).to_owned(),
            format!("urn:dmb:cmp:{text}"),
            text.to_uppercase(),
            text.to_lowercase(),
            text.replace('-', "_"),
            text.replace(':', "-"),
            text.replace(':', "::"),
            format!("{text}:"),
            format!("{text} "),
            text.clone(),
        ];
        found.extend(twins.iter().filter_map(|twin| twin.parse::<Identifier>().ok()));
    }
    found.into_iter().collect()
}
