//! Health as probes see it, with and without a body.

use serde_json::{Value, json};

use crate::harness::{Landfall, STORAGE, WORKLOAD, cashflow, component_request, http};

async fn probe(server: &Landfall, method: &str, path: &str) -> (u16, String) {
    let url = format!("{}{path}", server.api().url());
    let answer = http().build().unwrap().request(method.parse().unwrap(), url).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

const HEALTH: &str = "/landfall/v1/health";

#[tokio::test]
async fn head_requests_get_the_status_of_get_requests() {
    let server = Landfall::start();
    for path in ["/landfall/v1/live", HEALTH] {
        assert_eq!(probe(&server, "HEAD", path).await, (200, String::new()), "{path}");
    }
    let health: Value = serde_json::from_str(&probe(&server, "GET", HEALTH).await.1).unwrap();
    assert_eq!(
        (&health["status"], &health["lanes"], &health["reason"]),
        (&json!("UP"), &json!([]), &Value::Null)
    );
}

#[tokio::test]
async fn health_reports_the_last_success_of_each_target() {
    let server = Landfall::start();
    let api = server.api();
    let seen = async |code: &str| {
        let health = api.get(HEALTH).await.with_status(200).json();
        health["targets"].as_array().unwrap().iter().find(|one| one["code"] == code).unwrap().clone()
    };
    let before = seen("LOCAL_MOCK").await;
    assert_eq!((&before["technology"], &before["lastSuccess"]), (&json!("mock"), &Value::Null));
    api.provision_and_wait(&component_request(&cashflow(), WORKLOAD)).await;
    let after = seen("LOCAL_MOCK").await;
    assert!(after["lastSuccess"].as_str().unwrap().ends_with('Z'), "{after}");
    assert_eq!(after["lastFailure"], Value::Null);
}

/// A task that is accepted after its file was removed would be lost at the next start.
#[tokio::test]
async fn removed_store_file_refuses_requests_and_fails_health() {
    const MOVED: &str = "a file of the operation store was removed or replaced while Landfall uses it: nothing is accepted \
                         until it is back or Landfall is started again";
    let server = Landfall::start();
    let api = server.api();
    api.provision_and_wait(&component_request(&cashflow(), WORKLOAD)).await;
    let store = server.data_dir().join("landfall.db");
    let aside = store.with_extension("aside");
    std::fs::rename(&store, &aside).unwrap();
    let refusal =
        api.post("/v1/provision", &component_request(&cashflow(), STORAGE)).await.with_status(500).json();
    assert_eq!(refusal["error"], MOVED);
    // The server uses the result of one check for a second.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let health = api.get(HEALTH).await.with_status(503).json();
    assert_eq!((&health["status"], &health["reason"]), (&json!("DOWN"), &json!(MOVED)));
    assert_eq!(probe(&server, "HEAD", HEALTH).await, (503, String::new()));
    assert_eq!(probe(&server, "HEAD", "/landfall/v1/live").await.0, 200, "a start would lose what it knows");
    std::fs::rename(&aside, &store).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    api.get(HEALTH).await.with_status(200);
    api.provision_and_wait(&component_request(&cashflow(), STORAGE)).await;
}
