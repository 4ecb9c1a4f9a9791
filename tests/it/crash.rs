//! kill -9 at the worst moments. The next process completes every accepted task, once.

use std::time::Duration;

use crate::harness::{
    Landfall, Resources, cashflow_named, cashflow_with_rows, component_request, product_request,
};

const TIMES: usize = 50;

/// Asserts that each data product in `names` exists once, with its two rows once.
fn assert_each_exists_once(resources: &Resources, names: &[String]) {
    assert_eq!(resources.tables.len(), names.len(), "{:#?}", resources.tables);
    for (name, metadata) in &resources.tables {
        let table: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(metadata).expect("metadata")).expect("JSON");
        let last = table["snapshots"].as_array().and_then(|all| all.last()).expect("a snapshot");
        assert_eq!(last["summary"]["total-records"], "2", "{name}: {last:#}");
    }
    let buckets = resources.buckets();
    for name in names {
        let bucket = format!("finance-{name}");
        assert_eq!(buckets.iter().filter(|found| **found == bucket).count(), 1, "{bucket}: {buckets:?}");
    }
}

/// For each task: accept it, kill the server, restart it, and wait for the task to complete.
#[tokio::test]
async fn tasks_accepted_before_a_kill_complete_once() {
    let mut server = Landfall::start();
    let names: Vec<_> = (0..TIMES).map(|turn| format!("crash{turn}")).collect();
    let mut tokens = Vec::new();
    for name in &names {
        let descriptor = cashflow_named(&cashflow_with_rows(), name);
        let token = server.api().post("/v1/provision", &product_request(&descriptor)).await.token();
        server.kill_9();
        server.restart();
        assert_eq!(server.api().wait(&token).await["status"], "COMPLETED");
        tokens.push(token);
    }
    assert_each_exists_once(&server.resources().await, &names);

    // Later processes still read the ended tasks, unchanged.
    let before = server.resources().await;
    server.kill_9();
    server.restart();
    for token in &tokens {
        assert_eq!(server.api().status(token).await["status"], "COMPLETED");
    }
    assert_eq!(server.resources().await, before);
}

/// The test does not wait between kills. The first tasks are interrupted many times before they make progress.
#[tokio::test]
async fn tasks_accepted_before_many_kills_complete_once() {
    let mut server = Landfall::start();
    let names: Vec<_> = (0..TIMES).map(|turn| format!("storm{turn}")).collect();
    let mut tokens = Vec::new();
    for name in &names {
        let descriptor = cashflow_named(&cashflow_with_rows(), name);
        tokens.push(server.api().post("/v1/provision", &product_request(&descriptor)).await.token());
        server.kill_9();
        server.restart();
    }
    for token in &tokens {
        let status = server.api().wait(token).await;
        assert_eq!(status["status"], "COMPLETED", "{status:#}");
    }
    assert_each_exists_once(&server.resources().await, &names);
}

/// The pause before each kill grows, so that the kills hit every part of the work.
#[tokio::test]
async fn kills_during_the_work_create_no_duplicates() {
    let mut server = Landfall::start();
    let names: Vec<_> = (0..20).map(|turn| format!("midway{turn}")).collect();
    for (turn, name) in (0_u64..).zip(&names) {
        let descriptor = cashflow_named(&cashflow_with_rows(), name);
        let token = server.api().post("/v1/provision", &product_request(&descriptor)).await.token();
        for again in 1..=2 {
            tokio::time::sleep(Duration::from_millis(turn * 4 * again)).await;
            server.kill_9();
            server.restart();
        }
        let status = server.api().wait(&token).await;
        assert_eq!(status["status"], "COMPLETED", "{status:#}");
    }
    assert_each_exists_once(&server.resources().await, &names);
}

/// SIGTERM drains the server: the process exits with success, and no accepted task is lost.
#[tokio::test]
async fn drain_loses_no_accepted_task() {
    let mut server = Landfall::start();
    let mut tokens = Vec::new();
    for turn in 0..8 {
        let descriptor = cashflow_named(&cashflow_with_rows(), &format!("drain{turn}"));
        tokens.push(server.api().post("/v1/provision", &product_request(&descriptor)).await.token());
    }
    let status = server.terminate();
    assert!(status.success(), "{status}");
    server.restart();
    for token in &tokens {
        assert_eq!(server.api().wait(token).await["status"], "COMPLETED");
    }
}

/// The lease of the dead process must not block the same component for long.
#[tokio::test]
async fn component_accepts_requests_right_after_a_crash() {
    let mut server = Landfall::start();
    let name = "again";
    let storage = format!("urn:dmb:cmp:finance:{name}:0:storage-component");
    let request = component_request(&cashflow_named(&cashflow_with_rows(), name), &storage);
    let first = server.api().post("/v1/provision", &request).await.token();
    server.kill_9();
    server.restart();
    let second = server.api().provision_and_wait(&request).await;
    assert_eq!(second["status"], "COMPLETED");
    assert_eq!(server.api().wait(&first).await["status"], "COMPLETED");
}
