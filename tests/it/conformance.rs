//! A stranger judges a running server by its specifications alone: schemathesis, with all its checks.
//!
//! spec/schemathesis.toml holds the two exceptions that the contract makes; schemathesis_hooks.py tells what a good
//! descriptor is and which tokens exist.

use std::collections::BTreeMap;
use std::fs;

use landfall::generated::runtime::Operation;
use landfall::generated::{operator, tech_adapter};
use serde_json::Value;

use crate::harness::{Landfall, repository, tool};

/// Requests that each operation must get, at least.
const EXAMPLES: usize = 100;

/// What schemathesis calls the scenarios that go from one operation to the next.
const STATEFUL: &str = "Stateful tests";

#[tokio::test]
async fn schemathesis_finds_nothing_to_complain_about() {
    let server = Landfall::start();
    let counts = judge(
        &server,
        "spec/tech-adapter-2.6.3.yaml",
        &["--phases", "examples,coverage,fuzzing", "--max-examples", "120"],
    );
    enough(&counts, tech_adapter::server::OPERATIONS);
    server.settle().await;
}

/// A caller that asks for JSON gets tokens that schemathesis can follow to their tasks, through the links.
#[tokio::test]
async fn schemathesis_follows_tokens_and_finds_nothing_to_complain_about() {
    let server = Landfall::start();
    let counts = judge(
        &server,
        "spec/tech-adapter-2.6.3.yaml",
        &["--phases", "stateful", "--max-examples", "30", "--header", "Accept: application/json"],
    );
    let followed = counts.get(STATEFUL).copied().unwrap_or_default();
    assert!(followed >= EXAMPLES, "only {followed} requests followed a token: {counts:?}");
    server.settle().await;
}

#[tokio::test]
async fn schemathesis_finds_nothing_to_complain_about_in_the_operators_api() {
    let server = Landfall::start();
    let counts = judge(
        &server,
        "spec/landfall-operator-1.0.0.yaml",
        &["--phases", "examples,coverage,fuzzing", "--max-examples", "120"],
    );
    // Health takes no input: there is little to try.
    let with_input: Vec<_> =
        operator::server::OPERATIONS.iter().filter(|operation| operation.method == "POST").copied().collect();
    enough(&counts, &with_input);
}

/// Runs schemathesis and returns how many requests each operation got.
fn judge(server: &Landfall, specification: &str, options: &[&str]) -> BTreeMap<String, usize> {
    let reports = server.scratch().join("schemathesis");
    let events = reports.join("events.ndjson");
    let output = tool("schemathesis")
        .args(["--config-file", "spec/schemathesis.toml", "run", specification])
        .args(["--url", server.api().url(), "--checks", "all", "--continue-on-failure", "--no-color"])
        .args(["--seed", "263", "--generation-database", "none"])
        .args(options)
        .arg("--report-dir")
        .arg(&reports)
        .arg("--report-ndjson-path")
        .arg(&events)
        .env("SCHEMATHESIS_HOOKS", "schemathesis_hooks")
        .env("PYTHONPATH", "tests/tools")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(repository())
        .output()
        .expect("schemathesis runs");
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "schemathesis left with {}:\n{report}\n{complaints}", output.status);

    let counts = requests_by_operation(&fs::read_to_string(&events).expect("a report of events"));
    println!("{report}");
    for (operation, count) in &counts {
        println!("{count:>6} requests to {operation}");
    }
    counts
}

fn enough(counts: &BTreeMap<String, usize>, operations: &[Operation]) {
    for operation in operations {
        let label = format!("{} {}", operation.method, operation.path);
        let count = counts.get(&label).copied().unwrap_or_default();
        assert!(count >= EXAMPLES, "{label} got only {count} requests: {counts:?}");
    }
}

/// `POST /v1/provision` -> how many requests it got, of every phase.
fn requests_by_operation(events: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in events.lines() {
        let event: Value = serde_json::from_str(line).expect("an event a line");
        let recorder = &event["ScenarioFinished"]["recorder"];
        let (Some(label), Some(interactions)) =
            (recorder["label"].as_str(), recorder["interactions"].as_object())
        else {
            continue;
        };
        // Methods that the contract does not know are tried too; they are no examples of the operation.
        let (method, _) = label.split_once(' ').expect("METHOD PATH, or STATEFUL");
        let own = interactions.values().filter(|one| label == STATEFUL || one["request"]["method"] == method);
        *counts.entry(label.to_owned()).or_default() += own.count();
    }
    counts
}
