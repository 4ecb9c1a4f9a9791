//! Hostile descriptors that are too large to keep as files. All of them are refused.

use std::fmt::Write as _;

const HEAD: &str = "id: urn:dmb:dp:finance:cashflow:0\nname: n\nversion: 0.1.0\nenvironment: e\n";

/// Name and text; to be sent as `DATAPRODUCT_DESCRIPTOR`.
pub(crate) fn large() -> Vec<(&'static str, String)> {
    vec![
        ("ten megabytes", format!("{HEAD}components: []\ndescription: {}\n", "x".repeat(10 << 20))),
        ("ten megabytes of comments", "# nothing\n".repeat(1 << 20)),
        ("one byte too many", format!("{HEAD}#{}", " ".repeat((4 << 20) - HEAD.len()))),
        ("a hundred thousand open mappings", "{a: ".repeat(100_000)),
        ("a million open lists", "[".repeat(1_000_000)),
        ("a million dashes", "- ".repeat(1_000_000)),
        ("a million question marks", "? ".repeat(1_000_000)),
        ("a megabyte of colons", ":".repeat(1 << 20)),
        ("a megabyte of commas", format!("[{}]", ",".repeat(1 << 20))),
        ("a megabyte of spaces", " ".repeat(1 << 20)),
        ("a megabyte of line ends", "\n".repeat(1 << 20)),
        ("a quote that never ends", format!("{HEAD}description: \"{}", "x ".repeat(1 << 20))),
        ("a key of a megabyte", format!("{}: x", "k".repeat(1 << 20))),
        ("a number of a megabyte", format!("{HEAD}components: {}", "9".repeat(1 << 20))),
        ("half a million values", format!("[{}]", "0,".repeat(500_000))),
        ("a hundred thousand documents", "---\n".repeat(100_000)),
        ("ten thousand equal keys", format!("{HEAD}components: []\n{}", "k: v\nk: w\n".repeat(5000))),
        ("ten thousand empty components", format!("{HEAD}components:\n{}", "- {}\n".repeat(10_000))),
        ("three thousand equal components", components(3_000, |_| "c: d".to_owned(), |_| 0)),
        ("a circle of three thousand", components(3_000, |i| depends_on((i + 1) % 3_000), |i| i)),
        ("a chain of three thousand to nowhere", components(3_000, |i| depends_on(i + 1), |i| i)),
        ("five thousand unknown types", columns(5_000)),
        ("a thousand anchors, each of the one before", {
            let mut text = "a0: &a0 [x]\n".to_owned();
            for i in 1..1_000 {
                let _ = writeln!(text, "a{i}: &a{i} [*a{}, *a{}]", i - 1, i - 1);
            }
            text
        }),
    ]
}

fn components(count: usize, extra: impl Fn(usize) -> String, number: impl Fn(usize) -> usize) -> String {
    let mut text = format!("{HEAD}components:\n");
    for i in 0..count {
        let _ = writeln!(
            text,
            "- {{id: 'urn:dmb:cmp:finance:cashflow:0:c{}', kind: storage, name: n, version: 0.0.0, {}}}",
            number(i),
            extra(i)
        );
    }
    text
}

fn depends_on(number: usize) -> String {
    format!("dependsOn: ['urn:dmb:cmp:finance:cashflow:0:c{number}']")
}

fn columns(count: usize) -> String {
    let mut text = format!(
        "{HEAD}components:\n- id: urn:dmb:cmp:finance:cashflow:0:c\n  kind: outputport\n  name: n\n  version: 0.0.0\n  \
         dataContract:\n    schema:\n"
    );
    for i in 0..count {
        let _ = writeln!(text, "    - {{name: c{i}, dataType: stringgg}}");
    }
    text
}
