//! schemathesis tests a running server against its specifications, with all its checks.
//!
//! spec/schemathesis.toml has the exceptions that the contracts require. schemathesis_hooks.py provides valid
//! descriptors and tokens of existing tasks. To add a contract, add a [`Case`] and its line in `cases!`.

use std::collections::BTreeMap;
use std::fs;

use landfall::generated::runtime::Operation;
use landfall::generated::{airbyte, flexdeploy, operator, specific_provisioner, tech_adapter};
use serde_json::Value;

use crate::auth::with_users;
use crate::harness::{Builder, Landfall, repository, tool};

/// The minimum number of requests to each operation with input, and of requests in scenarios.
const EXAMPLES: usize = 100;

/// The label of schemathesis for scenarios with several operations.
const STATEFUL: &str = "Stateful tests";

/// A specification, and how to test a server against it.
struct Case {
    document: &'static str,
    operations: &'static [Operation],
    /// Configures the server under test, for example with users when the specification requires them.
    server: fn() -> Builder,
    /// More options for schemathesis, for example credentials.
    options: &'static [&'static str],
    /// The number of scenarios with several operations (`--max-examples`).
    ways: &'static str,
}

const TECH_ADAPTER: Case = Case {
    document: "spec/tech-adapter-2.6.3.yaml",
    operations: tech_adapter::server::OPERATIONS,
    server: Landfall::with,
    options: &[],
    ways: "30",
};
const SPECIFIC_PROVISIONER: Case = Case {
    document: "spec/specific-provisioner-2.2.0.yaml",
    operations: specific_provisioner::server::OPERATIONS,
    server: Landfall::with,
    options: &[],
    ways: "30",
};
const AIRBYTE: Case = Case {
    document: "spec/airbyte-specific-provisioner.yaml",
    operations: airbyte::server::OPERATIONS,
    server: Landfall::with,
    options: &[],
    ways: "30",
};
const OPERATOR: Case = Case {
    document: "spec/landfall-operator-1.0.0.yaml",
    operations: operator::server::OPERATIONS,
    server: Landfall::with,
    options: &[],
    ways: "30",
};

const FLEXDEPLOY: Case = Case {
    document: "spec/flexdeploy-instance.yaml",
    operations: flexdeploy::server::OPERATIONS,
    server: || with_users("[auth]\nmax_failures = 1000000\n[topology]\nmax_instances = 100000"),
    options: &["--auth", "ops:right"],
    // The scenarios of this contract are shorter, so there are more of them.
    ways: "90",
};

/// Declares two tests for each case. One tests each operation alone, and one follows tokens to their tasks. It
/// asks for JSON, because schemathesis can then read the tokens and follow the links.
macro_rules! cases {
    ($($case:ident: $alone:ident, $following:ident;)*) => {$(
        #[tokio::test]
        async fn $alone() {
            $case.judge_operations().await;
        }

        #[tokio::test]
        async fn $following() {
            $case.judge_tokens().await;
        }
    )*};
}

cases! {
    TECH_ADAPTER: schemathesis_finds_no_error_in_2_6_3, schemathesis_follows_the_tokens_of_2_6_3;
    SPECIFIC_PROVISIONER: schemathesis_finds_no_error_in_2_2_0, schemathesis_follows_the_tokens_of_2_2_0;
    AIRBYTE: schemathesis_finds_no_error_in_airbyte, schemathesis_follows_the_tokens_of_airbyte;
    FLEXDEPLOY: schemathesis_finds_no_error_in_flexdeploy, schemathesis_follows_the_ids_of_flexdeploy;
}

/// The operator contract has no tokens to follow.
#[tokio::test]
async fn schemathesis_finds_no_error_in_the_operator_api() {
    OPERATOR.judge_operations().await;
}

impl Case {
    async fn judge_operations(&self) {
        let server = (self.server)().start();
        let phases = ["--phases", "examples,coverage,fuzzing", "--max-examples", "120"];
        let counts = judge(&server, self.document, &[&phases, self.options].concat());
        for operation in self.operations.iter().filter(|operation| takes_input(operation)) {
            let label = format!("{} {}", operation.method, operation.path);
            let count = counts.get(&label).copied().unwrap_or_default();
            assert!(count >= EXAMPLES, "{label} got only {count} requests: {counts:?}");
        }
        server.settle().await;
    }

    async fn judge_tokens(&self) {
        let server = (self.server)().start();
        let phases =
            ["--phases", "stateful", "--max-examples", self.ways, "--header", "Accept: application/json"];
        let counts = judge(&server, self.document, &[&phases, self.options].concat());
        let followed = counts.get(STATEFUL).copied().unwrap_or_default();
        assert!(followed >= EXAMPLES, "only {followed} requests followed a token: {counts:?}");
        server.settle().await;
    }
}

/// Whether an operation takes input, judged by its method and path. schemathesis sends few requests to others.
fn takes_input(operation: &Operation) -> bool {
    operation.method != "GET" || operation.path.contains('{')
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

/// The number of requests of all phases for each operation, such as `POST /v1/provision`.
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
        // schemathesis also tries unknown methods. They do not count for the operation.
        let (method, _) = label.split_once(' ').expect("METHOD PATH, or STATEFUL");
        let own = interactions.values().filter(|one| label == STATEFUL || one["request"]["method"] == method);
        *counts.entry(label.to_owned()).or_default() += own.count();
    }
    counts
}
