//! Stopping: the answer in each state of a task, its log, and that another request completes the rest.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{
    Answer, Api, Landfall, OUTPUT_PORT, STORAGE, WORKLOAD, acl_request, cashflow, component_request,
    messages, product_request, replace_once,
};

/// The workload takes a while, and more time to stop; a change of its access takes too long; all others are quick.
const WORKLOAD_IS_SLOW: &str = r#"
[operations.run_limits]
updateacl = "50ms"

[targets.SLOW]
driver = "mock"
group = "slow"
steps = 20
step_delay = "300ms"
stop_delay = "1s"

[targets.LAKE]
driver = "lakehouse"
group = "lake"
warehouse = "file://{data_dir}/warehouse"
catalog = "sqlite://{data_dir}/catalog.db"

[[routes]]
kind = "workload"
group = "slow"

[[routes]]
group = "lake"
"#;

const UNKNOWN: &str = "3da5d0a2-9f3b-4a11-85a3-b5ddb73da032";

async fn stop(api: &Api, token: &str) -> Answer {
    api.post(&format!("/v1/provision/{token}/stop"), &json!({})).await
}

/// Stops a task, expects a 200, and returns its body, which says how the task ended.
async fn stopped(api: &Api, token: &str) -> Value {
    stop(api, token).await.with_status(200).json()
}

/// Polls until a log line has this prefix.
async fn wait_for_log_line(api: &Api, token: &str, beginning: &str) {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let status = api.status(token).await;
        if messages(&status).iter().any(|line| line.starts_with(beginning)) {
            return;
        }
        assert!(Instant::now() < end, "`{beginning}` never came: {status:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn removal(mut request: Value) -> Value {
    request["removeData"] = json!(true);
    request
}

#[tokio::test]
async fn stop_request_answer_depends_on_the_task_state() {
    let server = Landfall::with().config(WORKLOAD_IS_SLOW).start();
    let api = server.api();
    let slow = component_request(&cashflow(), WORKLOAD);

    // One runs, and behind it another one waits for the same component.
    let running = api.post("/v1/provision", &slow).await.token();
    wait_for_log_line(api, &running, "1 of 20: ").await;
    let queued = api.post("/v1/unprovision", &slow).await.token();
    assert_eq!(api.status(&queued).await["status"], "RUNNING");

    // Queued: it ends at once, and says that it had not begun.
    let ended = stopped(api, &queued).await;
    assert_eq!(ended["status"], "TERMINATED", "{ended:#}");
    assert_eq!(ended["result"], "stopped on request before it began");
    assert_eq!(messages(&ended), ["a stop was requested"]);

    // Running: accepted, and the token stays valid. Stopping: the same answer again.
    for _ in 0..2 {
        assert_eq!(stop(api, &running).await.token(), running);
        assert_eq!(api.status(&running).await["status"], "RUNNING", "its work has not ended");
    }
    let ended = api.wait(&running).await;
    assert_eq!(ended["status"], "TERMINATED", "{ended:#}");

    // Terminated: the result stays.
    assert_eq!(stopped(api, &running).await, ended);
    assert_eq!(stopped(api, &queued).await["status"], "TERMINATED");

    // Completed.
    let completed = api.post("/v1/provision", &component_request(&cashflow(), STORAGE)).await.token();
    assert_eq!(api.wait(&completed).await["status"], "COMPLETED");
    assert_eq!(stopped(api, &completed).await["status"], "COMPLETED");

    // Failed.
    let failed = api.post("/v1/updateacl", &acl_request(&cashflow(), WORKLOAD, &[])).await.token();
    let ended = api.wait(&failed).await;
    assert_eq!(ended["status"], "FAILED", "{ended:#}");
    assert_eq!(
        messages(&ended).last().unwrap(),
        "the run exceeded the 50 ms of operations.run_limits.updateacl"
    );
    assert_eq!(stopped(api, &failed).await, ended);

    // Unknown, and of another kind of task.
    let validation = api.post("/v2/validate", &slow).await.token();
    for token in [UNKNOWN, "nonsense", &validation] {
        let refusal = stop(api, token).await.with_status(400).json();
        assert_eq!(refusal["inputErrorField"], "token", "{refusal:#}");
        assert_eq!(
            refusal["errors"],
            json!([format!("token: no provisioning task has this token, or it has expired: `{token}`")])
        );
    }
    api.wait_at("/v2/validate", &validation).await;
}

#[tokio::test]
async fn stopped_task_logs_finished_and_missing_changes() {
    let server = Landfall::with().config(WORKLOAD_IS_SLOW).start();
    let api = server.api();
    let token = api.post("/v1/provision", &component_request(&cashflow(), WORKLOAD)).await.token();
    wait_for_log_line(api, &token, "2 of 20: ").await;
    stop(api, &token).await.with_status(202);
    let status = api.wait(&token).await;
    let log = messages(&status);
    let made = log.iter().filter(|line| line.contains(" of 20: idle step ")).count();
    let steps = |from: usize, to: usize| {
        (from..=to).map(|n| format!("idle step {n} of 20")).collect::<Vec<_>>().join("; ")
    };
    assert!((2..=4).contains(&made), "{log:#?}");
    let expected = [
        "a stop was requested".to_owned(),
        format!("stopped with {made} of 20 changes made: {}", steps(1, made)),
        format!("not finished: {}", steps(made + 1, made + 1)),
        format!("not made: {}; and {} more", steps(made + 2, made + 6), 20 - made - 6),
        "stopped: stopped on request".to_owned(),
    ];
    // Another thread logs the request to stop, so the position of that line may differ.
    for line in &expected {
        assert!(log.contains(line), "`{line}` is missing: {log:#?}");
    }
    assert_eq!(status["result"], "stopped on request");
}

/// The storage area, the slow workload, and then the output port.
fn cashflow_with_slow_middle() -> String {
    replace_once(
        &cashflow(),
        "dependsOn: []\n    platform: AWS\n    technology: S3\n    outputPortType",
        &format!("dependsOn:\n      - {WORKLOAD}\n    platform: AWS\n    technology: S3\n    outputPortType"),
    )
}

#[tokio::test]
async fn provision_and_unprovision_resume_after_a_stop() {
    let server = Landfall::with().config(WORKLOAD_IS_SLOW).start();
    let api = server.api();
    let request = product_request(&cashflow_with_slow_middle());

    let token = api.post("/v1/provision", &request).await.token();
    wait_for_log_line(api, &token, "1 of 20: ").await;
    stop(api, &token).await.with_status(202);
    let status = api.wait(&token).await;
    assert_eq!(status["status"], "TERMINATED", "{status:#}");
    let log = messages(&status);
    for line in [
        format!("components done: {STORAGE}"),
        format!("stopped in: {WORKLOAD}"),
        format!("not begun: {OUTPUT_PORT}"),
    ] {
        assert!(log.contains(&line), "`{line}` is missing: {log:#?}");
    }
    let partly = server.resources().await;
    assert_eq!(partly.buckets(), ["finance-cashflows"]);
    assert_eq!(partly.tables, []);

    // Again: existing resources stay unchanged, missing ones are created.
    let status = api.provision_and_wait(&request).await;
    let log = status["logs"].as_array().unwrap();
    let of = |component: &str| -> Vec<&str> {
        let lines = log.iter().filter(|line| line["phase"] == component);
        lines.filter_map(|line| line["message"].as_str()).collect()
    };
    assert!(of(STORAGE).contains(&"nothing to change on target `LAKE`"), "{log:#?}");
    assert!(of(OUTPUT_PORT).iter().any(|line| line.starts_with("1 of 1: create the table")), "{log:#?}");
    let whole = server.resources().await;
    assert_eq!(whole.buckets(), ["finance-cashflows"]);
    assert_eq!(whole.tables.len(), 1, "{whole:#?}");

    // The removal is stopped half way, too: the output port is removed first, the storage area last.
    let token = api.post("/v1/unprovision", &removal(request.clone())).await.token();
    wait_for_log_line(api, &token, "1 of 20: ").await;
    stop(api, &token).await.with_status(202);
    let log = messages(&api.wait(&token).await);
    for line in [
        format!("components done: {OUTPUT_PORT}"),
        format!("stopped in: {WORKLOAD}"),
        format!("not begun: {STORAGE}"),
    ] {
        assert!(log.contains(&line), "`{line}` is missing: {log:#?}");
    }
    let partly = server.resources().await;
    assert_eq!((partly.buckets(), partly.tables), (vec!["finance-cashflows".to_owned()], Vec::new()));
    api.complete("/v1/unprovision", &removal(request)).await;
    assert_eq!(server.resources().await.files, []);
}

/// The mock ends its step after the grace period: the engine aborts it.
#[tokio::test]
async fn task_that_ignores_a_stop_is_cancelled_and_logged() {
    let config = format!("[operations]\ncancel_grace = \"200ms\"\n{WORKLOAD_IS_SLOW}");
    let server = Landfall::with().config(&config).start();
    let api = server.api();
    let token = api.post("/v1/provision", &product_request(&cashflow_with_slow_middle())).await.token();
    wait_for_log_line(api, &token, "1 of 20: ").await;
    stop(api, &token).await.with_status(202);
    let status = api.wait(&token).await;
    assert_eq!(status["status"], "TERMINATED", "{status:#}");
    let log = messages(&status);
    let cut_off =
        "stopped: the work had not ended after the 0.2 s of operations.cancel_grace and was cut off";
    assert_eq!(log.last().unwrap(), cut_off, "{log:#?}");
    assert!(
        log.iter().any(|line| line.starts_with("cut off with 1 of 20 changes made: idle step 1")),
        "{log:#?}"
    );
    assert!(log.contains(&format!("cut off in: {WORKLOAD}")), "{log:#?}");
}

#[tokio::test]
async fn unstoppable_task_can_only_be_stopped_while_queued() {
    let config = r#"
        [targets.SLOW]
        driver = "mock"
        steps = 4
        step_delay = "300ms"
        stoppable = false
        [[routes]]
        group = "mock"
    "#;
    let server = Landfall::with().config(config).start();
    let api = server.api();
    let request = component_request(&cashflow(), WORKLOAD);
    let running = api.post("/v1/provision", &request).await.token();
    wait_for_log_line(api, &running, "1 of 4: ").await;
    let queued = api.post("/v1/unprovision", &request).await.token();

    let refusal = stop(api, &running).await.with_status(501).json();
    let text = "the operation runs on target `SLOW` (mock), which cannot stop work under way";
    assert_eq!(refusal["error"], text);
    assert_eq!(refusal["moreInfo"]["problems"], json!([text]));
    assert_eq!(
        refusal["moreInfo"]["solutions"],
        json!(["wait for the end of the operation: its status tells"])
    );
    assert_eq!(stopped(api, &queued).await["status"], "TERMINATED");

    let status = api.wait(&running).await;
    assert_eq!(status["status"], "COMPLETED", "the refusal changed nothing: {status:#}");
    assert_eq!(stopped(api, &running).await["status"], "COMPLETED");
}

/// The work of each step is on a blocking thread, which takes longer to end than the grace period.
const BLOCKING: &str = r#"
[operations]
cancel_grace = "200ms"

[targets.SLOW]
driver = "mock"
steps = 3
step_delay = "400ms"
stop_delay = "1500ms"
blocking = true
trace = "file://{data_dir}/trace.jsonl"

[[routes]]
group = "mock"
"#;

#[tokio::test]
async fn next_task_waits_for_the_thread_of_a_stopped_task() {
    let server = Landfall::with().config(BLOCKING).start();
    let api = server.api();
    let trace = server.data_dir().join("trace.jsonl");
    let lines = || -> Vec<(String, String, bool)> {
        let text = std::fs::read_to_string(&trace).unwrap_or_default();
        let line = |line: &str| {
            let line: Value = serde_json::from_str(line).expect("a line of the trace");
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            (text("event"), text("intent"), line["done"].as_bool().unwrap_or_default())
        };
        text.lines().map(line).collect()
    };
    let request = component_request(&cashflow(), WORKLOAD);
    let token = api.post("/v1/provision", &request).await.token();
    wait_for_log_line(api, &token, "1 of 3: ").await;
    let next = api.post("/v1/unprovision", &request).await.token();
    stop(api, &token).await.with_status(202);
    let status = api.wait(&token).await;
    assert_eq!(status["status"], "TERMINATED", "{status:#}");
    let at_the_end = lines();
    let (event, intent, done) = at_the_end[3].clone();
    assert_eq!((event.as_str(), intent.as_str(), done), ("end", "provision", false), "{at_the_end:?}");

    assert_eq!(api.wait(&next).await["status"], "COMPLETED");
    let all = lines();
    let events: Vec<_> = all.iter().map(|(event, intent, _)| format!("{event} {intent}")).collect();
    let mut expected = ["begin provision", "end provision"].repeat(2);
    expected.extend(["begin unprovision", "end unprovision"].repeat(3));
    assert_eq!(events, expected, "two runs of a component at once");
}

/// The number of entries in all buckets, also while a bucket is being deleted.
fn files_left(server: &Landfall) -> usize {
    let buckets = server.data_dir().join("warehouse/buckets");
    let folders = std::fs::read_dir(buckets).into_iter().flatten().flatten();
    folders.map(|folder| std::fs::read_dir(folder.path()).into_iter().flatten().count()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminated_task_deletes_no_more_files() {
    const FILES: usize = 30_000;
    let server = Landfall::with().config(WORKLOAD_IS_SLOW).start();
    let api = server.api();
    let request = component_request(&cashflow(), STORAGE);
    api.provision_and_wait(&request).await;
    let bucket = server.data_dir().join("warehouse/buckets/finance-cashflows");
    for file in 0..FILES {
        std::fs::write(bucket.join(format!("file-{file}")), "").unwrap();
    }
    let all = files_left(&server);
    let token = api.post("/v1/unprovision", &removal(request.clone())).await.token();
    let end = Instant::now() + Duration::from_secs(30);
    while files_left(&server) == all {
        assert!(Instant::now() < end, "the deletion never began");
    }
    stop(api, &token).await;
    let status = api.wait(&token).await;
    let left = files_left(&server);
    assert_eq!(status["status"], "TERMINATED", "{left} left of {all}: {status:#}");
    assert!(left > 0, "everything was deleted after the stop");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(files_left(&server), left, "files are deleted after the stop was answered");
    let log = messages(&status);
    assert!(log.contains(&"not finished: delete the bucket and all that is in it".to_owned()), "{log:#?}");
    // Again: the rest is deleted.
    api.complete("/v1/unprovision", &removal(request)).await;
    assert_eq!(server.resources().await.files, []);
}

/// The hanging thread ends with the process, and the next process takes over its task.
#[tokio::test]
async fn drain_does_not_wait_for_a_hanging_thread() {
    let config = r#"
        [server]
        drain_grace = "100ms"
        [operations]
        cancel_grace = "300ms"
        [targets.HANGS]
        driver = "mock"
        steps = 1
        step_delay = "8s"
        blocking = true
        stoppable = false
        trace = "file://{data_dir}/trace.jsonl"
        [[routes]]
        group = "mock"
    "#;
    let mut server = Landfall::with().config(config).start();
    let trace = server.data_dir().join("trace.jsonl");
    let begun = || std::fs::read_to_string(&trace).unwrap_or_default().matches("\"begin\"").count();
    let token = server.api().post("/v1/provision", &component_request(&cashflow(), WORKLOAD)).await.token();
    let end = Instant::now() + Duration::from_secs(30);
    while begun() == 0 {
        assert!(Instant::now() < end, "the step never began");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let asked = Instant::now();
    assert!(server.terminate().success());
    assert!(asked.elapsed() < Duration::from_secs(5), "it waited for the thread: {:?}", asked.elapsed());
    assert!(
        server.log().contains("run not handed back: its work on a blocking thread has not ended"),
        "{}",
        server.log()
    );
    server.restart();
    assert_eq!(server.api().wait(&token).await["status"], "COMPLETED");
    assert_eq!(begun(), 2);
}
