//! An earlier version and this one: on one queue side by side, and one after the other on one store.
//!
//! `make upgrade` builds the earlier version from the history of the repository and runs these tests with it.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::campaign::trace::{self, Event};
use crate::harness::{
    Cluster, OUTPUT_PORT, STORAGE, acl_request, cashflow, cashflow_named, component_request, product_request,
    replace_once,
};
use crate::postgres::PostgresServer;

/// The program of the earlier version.
fn earlier() -> PathBuf {
    std::env::var_os("LANDFALL_EARLIER").expect("`make upgrade` sets LANDFALL_EARLIER").into()
}

const SLOW: &str = r#"
[operations]
concurrency = 2
lease = "1s"
poll = "20ms"
crash_pause = "20ms"
backoff = "20ms"

[targets.SLOW]
driver = "mock"
steps = 4
step_delay = "25ms"
trace = "file://{scratch}/trace.jsonl"

[[routes]]
group = "mock"
"#;

/// A task of a workload of its own.
fn request(number: usize) -> Value {
    let name = format!("upgrade{number}");
    let text = cashflow_named(&cashflow(), &name);
    let text = replace_once(&text, "    specific: {}", &format!("    specific: {{ serial: {number} }}"));
    component_request(&text, &format!("urn:dmb:cmp:finance:{name}:0:cashflow-calculation"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an earlier version: make upgrade"]
async fn earlier_and_current_version_share_one_queue() {
    let url = PostgresServer::shared().unwrap().new_database().unwrap();
    let mut cluster = Cluster::of(2).config(SLOW).store(&url).program(0, &earlier()).start();
    let trace_file = cluster.scratch().join("trace.jsonl");
    let mut tokens = Vec::new();
    for number in 0..40 {
        tokens.push(cluster.api(number % 2).post("/v1/provision", &request(number)).await.token());
    }
    // Each version reports the status of tasks that the other version accepted.
    for (number, token) in tokens.iter().enumerate().take(20) {
        let status = cluster.api((number + 1) % 2).wait(token).await;
        assert_eq!(status["status"], "COMPLETED", "{status:#}");
    }
    let pids = [0, 1].map(|replica| cluster.server(replica).pid().expect("a running server"));
    for pid in pids {
        let did = |event: &Event| matches!(event, Event::Begin { pid: of, .. } if *of == pid);
        assert!(trace::read(&trace_file).iter().any(did), "each version works on the queue");
    }
    // This version takes over the tasks that the earlier one was running.
    cluster.replica(0).kill_9();
    for token in &tokens {
        let status = cluster.api(1).wait(token).await;
        assert_eq!(status["status"], "COMPLETED", "{status:#}");
    }
    cluster.replica(0).upgrade();
    cluster.api(0).settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an earlier version: make upgrade"]
async fn current_version_continues_the_store_of_an_earlier_one() {
    let slow = r#"
[operations]
lease = "1s"
crash_pause = "20ms"

[targets.LOCAL_LAKE]
driver = "lakehouse"
warehouse = "file://{data_dir}/warehouse"
catalog = "sqlite://{data_dir}/catalog.db"

[targets.LOCAL_MOCK]
driver = "mock"
steps = 3
step_delay = "2s"

[[routes]]
technology = "S3"
group = "lakehouse"

[[routes]]
technology = "Iceberg"
group = "lakehouse"

[[routes]]
group = "mock"
"#;
    let mut cluster = Cluster::of(1).config(slow).program(0, &earlier()).start();
    let text = cashflow();
    let alone = |component: &str| component_request(&text, component);
    for component in [STORAGE, OUTPUT_PORT] {
        cluster.api(0).provision_and_wait(&alone(component)).await;
    }
    let access = acl_request(&text, OUTPUT_PORT, &["user:alice_example.com"]);
    let done = cluster.api(0).complete("/v1/updateacl", &access).await;
    let told = cluster.api(0).post("/v1/updateacl", &access).await.token();
    cluster.api(0).wait(&told).await;
    let under_way = cluster.api(0).post("/v1/provision", &request(1)).await.token();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let waiting = cluster.api(0).post("/v1/provision", &request(2)).await.token();

    cluster.replica(0).kill_9();
    cluster.replica(0).upgrade();
    // Completed tasks keep their status, and accepted tasks complete.
    assert_eq!(cluster.api(0).status(&told).await["info"], done["info"]);
    for token in [&under_way, &waiting] {
        assert_eq!(cluster.api(0).wait(token).await["status"], "COMPLETED");
    }
    // The resources are those of the earlier version: nothing has to change, and no principal loses access.
    let again = cluster.api(0).provision_and_wait(&alone(OUTPUT_PORT)).await;
    assert_eq!(
        again["result"],
        "provisioned: 1 component, nothing to change; access is recorded, not enforced"
    );
    assert_eq!(again["info"]["privateInfo"]["refs"], json!(["user:alice_example.com"]));
    let mut removal = product_request(&text);
    removal["removeData"] = json!(true);
    cluster.api(0).complete("/v1/unprovision", &removal).await;
    let left = cluster.resources().await;
    assert_eq!((left.buckets(), left.tables.len()), (Vec::new(), 0));
}
