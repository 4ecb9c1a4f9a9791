//! A process that has lost the lease of a task writes nothing. The tests freeze servers, cut their connections, change
//! their clocks and stop their database. With two servers on one PostgreSQL, either may get the task.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::campaign::trace::{self, Accepted, Event, Verdict};
use crate::harness::{
    Api, Cluster, Landfall, STORE_URL, StoreAt, WORKLOAD, cashflow, cashflow_named, component_request,
    replace_once,
};
use crate::postgres::{Durability, PostgresServer};
use crate::proxy::Proxy;

const TIMEOUT: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_secs(1);
/// The number of steps of a task. At 50 ms each, a task lasts three leases.
const STEPS: u64 = 60;
const CONFIG: &str = r#"
[store]
timeout = "2s"

[operations]
lease = "1s"
poll = "50ms"
crash_pause = "20ms"
backoff = "20ms"
backoff_cap = "200ms"

[targets.SLOW]
driver = "mock"
steps = 60
step_delay = "50ms"
trace = "file://{scratch}/trace.jsonl"

[[routes]]
group = "mock"
"#;

/// [`CONFIG`] with a longer lease that does not expire on a busy machine, and with slower steps and polls.
fn long_lease_config() -> String {
    replace_once(CONFIG, "lease = \"1s\"", "lease = \"3s\"").replace("50ms", "80ms")
}

/// The id of the slow component of a data product.
fn component(name: &str) -> String {
    format!("urn:dmb:cmp:finance:{name}:0:cashflow-calculation")
}

fn request(name: &str, serial: u64) -> Value {
    let text = replace_once(
        &cashflow_named(&cashflow(), name),
        "    specific: {}",
        &format!("    specific: {{ serial: {serial} }}"),
    );
    component_request(&text, &component(name))
}

/// Servers, and the trace file of their mock.
struct TracedCluster {
    cluster: Cluster,
    trace: PathBuf,
}

impl TracedCluster {
    fn new(cluster: Cluster) -> Self {
        let trace = cluster.scratch().join("trace.jsonl");
        Self { cluster, trace }
    }

    /// Waits until at least `steps` steps of a component have begun. Returns the index of the server that began
    /// the last one.
    async fn wait_for_worker(&self, name: &str, steps: usize) -> usize {
        let component = component(name);
        let mut pids = Vec::new();
        self.wait_until("a server works on it", || {
            pids = processes_that_began(&self.trace, &component);
            pids.len() >= steps
        })
        .await;
        let pid = *pids.last().expect("at least one");
        self.index(pid)
    }

    /// The index of the server with this pid.
    fn index(&self, pid: u32) -> usize {
        (0..self.cluster.len())
            .find(|index| self.cluster.server(*index).pid() == Some(pid))
            .unwrap_or_else(|| panic!("no server has pid {pid}"))
    }

    async fn wait_until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + TIMEOUT;
        while !holds() {
            assert!(Instant::now() < end, "waited for this for {TIMEOUT:?}: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Freezes a server during a step, and returns its pid. Tries again if no step was under way, because a
    /// server that has just checked its lease would still begin the next step after the thaw.
    async fn freeze_in_a_step(&self, server: usize) -> u32 {
        loop {
            let frozen = self.cluster.server(server).freeze();
            if matches!(trace::read(&self.trace).last(), Some(Event::Begin { pid, .. }) if *pid == frozen) {
                trace::note_frozen(&self.trace, frozen);
                return frozen;
            }
            self.cluster.server(server).thaw();
            tokio::time::sleep(Duration::from_millis(7)).await;
        }
    }

    fn judge(&self, accepted: &[(&str, &[u64])]) -> Verdict {
        let accepted: Accepted =
            accepted.iter().map(|(name, serials)| (component(name), serials.to_vec())).collect();
        trace::judge(&trace::read(&self.trace), &accepted, STEPS)
    }

    #[track_caller]
    fn assert_in_order(&self, accepted: &[(&str, &[u64])]) {
        let verdict = self.judge(accepted);
        assert!(verdict.violations.is_empty(), "{:#?}", verdict.violations);
    }

    /// All that the store contains about a task, for comparison.
    async fn stored(&self, token: &str) -> Vec<Vec<String>> {
        let store: &StoreAt = self.cluster.store();
        let task = "SELECT id, state, attempt, crashes, lease_epoch, log_lines, COALESCE(reason, ''), outcome, \
                    started_at, finished_at FROM task";
        let log = "SELECT t.id, l.line, l.message FROM task_log l JOIN task t ON t.seq = l.task_seq ORDER BY l.line";
        let mut rows = store.query(task).await;
        rows.extend(store.query(log).await);
        rows.retain(|row| row[0] == token);
        assert!(rows.len() > 1, "a task and its log: {rows:?}");
        rows
    }

    /// Waits until a server reaches its store again.
    async fn wait_for_recovery(&self, server: usize) {
        let end = Instant::now() + Duration::from_secs(15);
        while try_request(self.cluster.api(server), "GET", "/landfall/v1/health", &Value::Null).await.status
            != 200
        {
            assert!(Instant::now() < end, "server {server} does not recover");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The pid of the process that began each step of a component, in order.
fn processes_that_began(trace: &Path, of: &str) -> Vec<u32> {
    let begin = |event| match event {
        Event::Begin { pid, component, .. } if component == of => Some(pid),
        _ => None,
    };
    trace::read(trace).into_iter().filter_map(begin).collect()
}

/// Sends a request to a server that may answer with an error. Panics without an answer.
async fn try_request(api: &Api, method: &str, path: &str, body: &Value) -> crate::harness::Answer {
    let shape = |request: reqwest::RequestBuilder| if body.is_null() { request } else { request.json(body) };
    api.try_send(method, path, shape).await.unwrap_or_else(|error| panic!("{method} {path}: {error:?}"))
}

/// Stops the other servers, and asserts that the server that lost a task completes a new task alone.
async fn assert_works_again(watched: &mut TracedCluster, loser: usize, name: &str) {
    let others: Vec<usize> = (0..watched.cluster.len()).filter(|index| *index != loser).collect();
    for other in others {
        let status = watched.cluster.replica(other).terminate();
        assert!(status.success(), "{status}");
    }
    let status = watched.cluster.api(loser).provision_and_wait(&request(name, 1)).await;
    assert_eq!(status["status"], "COMPLETED");
    let pid = watched.cluster.server(loser).pid().expect("it lives");
    assert_eq!(processes_that_began(&watched.trace, &component(name)), vec![pid; STEPS as usize]);
}

#[tokio::test]
async fn thawed_server_changes_nothing_after_losing_its_lease() {
    let url = PostgresServer::shared().unwrap().new_database().unwrap();
    let mut watched = TracedCluster::new(Cluster::of(2).config(CONFIG).store(&url).start());
    let token = watched.cluster.api(0).post("/v1/provision", &request("zombie", 1)).await.token();
    let loser = watched.wait_for_worker("zombie", 5).await;
    let winner = 1 - loser;
    let pid = watched.freeze_in_a_step(loser).await;

    let before = watched.cluster.api(winner).wait(&token).await;
    assert_eq!(before["status"], "COMPLETED", "{before:#}");
    let (stored, begun) =
        (watched.stored(&token).await, processes_that_began(&watched.trace, &component("zombie")));
    assert_eq!(begun.len() - begun.iter().filter(|by| **by == pid).count(), STEPS as usize);

    watched.cluster.replica(loser).thaw();
    watched
        .wait_until("the loser says so", || watched.cluster.server(loser).log().contains("its lease is lost"))
        .await;
    // Gives the loser enough time for a wrong write.
    tokio::time::sleep(LEASE * 2).await;
    assert_eq!(processes_that_began(&watched.trace, &component("zombie")), begun, "no further step");
    assert_eq!(watched.stored(&token).await, stored);
    for replica in [loser, winner] {
        assert_eq!(watched.cluster.api(replica).status(&token).await, before);
    }
    watched.assert_in_order(&[("zombie", &[1])]);
    assert_works_again(&mut watched, loser, "after").await;
}

/// The loser resumes while the winner works on the task. Only the lease shows which of the two servers owns the
/// task; the state of the task does not.
#[tokio::test]
async fn thawed_server_adds_nothing_while_another_runs_its_task() {
    let url = PostgresServer::shared().unwrap().new_database().unwrap();
    let mut watched = TracedCluster::new(Cluster::of(2).config(CONFIG).store(&url).start());
    let token = watched.cluster.api(0).post("/v1/provision", &request("undead", 1)).await.token();
    // After 14 steps, the server has logged some of them, but not all.
    let loser = watched.wait_for_worker("undead", 14).await;
    let winner = 1 - loser;
    let pid = watched.freeze_in_a_step(loser).await;
    let begun_by = |pid: u32| {
        processes_that_began(&watched.trace, &component("undead")).iter().filter(|by| **by == pid).count()
    };
    let winners = watched.cluster.server(winner).pid().expect("it lives");
    watched.wait_until("the other takes it over", || begun_by(winners) > 0).await;
    let count_log_lines = |rows: &[Vec<String>], step: u64| {
        // The mock logs this line after a step.
        let line = format!("mock `CashFlow Calculation`: idle step {step} of {STEPS}");
        rows.iter().filter(|row| row.len() == 3 && row[2] == line).count()
    };
    let (before, begun) = (watched.stored(&token).await, begun_by(pid));
    watched.cluster.server(loser).thaw();

    let status = watched.cluster.api(winner).wait(&token).await;
    assert_eq!(status["status"], "COMPLETED", "{status:#}");
    let log = || watched.cluster.server(loser).log();
    watched.wait_until("the loser says so", || log().contains("its lease is lost")).await;
    assert_eq!(begun_by(pid), begun, "no further step");
    assert_eq!(begun_by(winners), STEPS as usize);
    let after = watched.stored(&token).await;
    // The winner may have logged the first steps before the test read the store.
    for step in 6..=STEPS {
        assert_eq!(
            count_log_lines(&after, step),
            count_log_lines(&before, step) + 1,
            "step {step}: {after:#?}"
        );
    }
    watched.assert_in_order(&[("undead", &[1])]);
    assert_works_again(&mut watched, loser, "after").await;
}

/// The only server takes its expired task again. The server never has two runs of the task at once.
#[tokio::test]
async fn thawed_server_runs_its_expired_task_once_at_a_time() {
    let watched = TracedCluster::new(Cluster::of(1).config(CONFIG).start());
    let token = watched.cluster.api(0).post("/v1/provision", &request("sleeper", 1)).await.token();
    watched.wait_for_worker("sleeper", 5).await;
    watched.freeze_in_a_step(0).await;
    tokio::time::sleep(LEASE * 2).await;
    watched.cluster.server(0).thaw();
    let status = watched.cluster.api(0).wait(&token).await;
    assert_eq!(status["status"], "COMPLETED", "{status:#}");
    watched.assert_in_order(&[("sleeper", &[1])]);
}

#[tokio::test]
async fn server_without_its_store_stops_before_another_starts() {
    assert_stops_without_its_store(CONFIG).await;
}

/// Each step runs on a blocking thread, which does not end when its run is cancelled.
#[tokio::test]
async fn server_without_its_store_ends_its_blocking_threads() {
    let blocking = replace_once(CONFIG, "steps = 60", "steps = 60\nblocking = true");
    assert_stops_without_its_store(&blocking).await;
}

async fn assert_stops_without_its_store(config: &str) {
    let postgres = PostgresServer::shared().unwrap();
    let url = postgres.new_database().unwrap();
    let wires = [Proxy::to(postgres.port()), Proxy::to(postgres.port())];
    let cluster = Cluster::of(2)
        .config(config)
        .store(&url)
        .env(0, STORE_URL, &wires[0].url(&url))
        .env(1, STORE_URL, &wires[1].url(&url))
        .start();
    let mut watched = TracedCluster::new(cluster);
    let token = watched.cluster.api(0).post("/v1/provision", &request("island", 1)).await.token();
    let loser = watched.wait_for_worker("island", 5).await;
    let winner = 1 - loser;
    wires[loser].black_hole();

    let refused =
        try_request(watched.cluster.api(loser), "POST", "/v1/provision", &request("other", 1)).await;
    refused.with_status(500);
    let status = watched.cluster.api(winner).wait(&token).await;
    assert_eq!(status["status"], "COMPLETED", "{status:#}");
    let begun = processes_that_began(&watched.trace, &component("island"));
    let pid = watched.cluster.server(winner).pid().expect("it lives");
    assert_eq!(begun.iter().filter(|by| **by == pid).count(), STEPS as usize);
    assert!(begun.len() > STEPS as usize, "both worked on it");
    // No process was killed or frozen. If the loser had not ended its step before the winner began, their steps
    // would overlap.
    watched.assert_in_order(&[("island", &[1])]);
    let stored = watched.stored(&token).await;

    wires[loser].heal();
    watched.wait_for_recovery(loser).await;
    tokio::time::sleep(LEASE * 2).await;
    assert_eq!(watched.stored(&token).await, stored, "a delayed write changed the store");
    assert_eq!(processes_that_began(&watched.trace, &component("island")), begun, "no further step");
    assert_eq!(watched.cluster.api(loser).status(&token).await, status);
    // The server may have accepted the refused request. Repeating it is safe.
    watched.cluster.api(loser).provision_and_wait(&request("other", 1)).await;
    assert_works_again(&mut watched, loser, "after").await;
}

/// The server reconnects after connection resets, and completes the task in one run.
#[tokio::test]
async fn store_connections_are_reopened_after_resets() {
    let postgres = PostgresServer::shared().unwrap();
    let url = postgres.new_database().unwrap();
    let wire = Proxy::to(postgres.port());
    let watched = TracedCluster::new(
        Cluster::of(1).config(&long_lease_config()).store(&url).env(0, STORE_URL, &wire.url(&url)).start(),
    );
    let token = watched.cluster.api(0).post("/v1/provision", &request("cut", 1)).await.token();
    watched.wait_for_worker("cut", 2).await;
    for _ in 0..5 {
        wire.cut();
        tokio::time::sleep(LEASE / 10).await;
        wire.heal();
        tokio::time::sleep(LEASE / 5).await;
    }
    let end = Instant::now() + TIMEOUT;
    let path = format!("/v1/provision/{token}/status");
    loop {
        let answer = try_request(watched.cluster.api(0), "GET", &path, &Value::Null).await;
        if answer.status == 200 && answer.json()["status"] != "RUNNING" {
            assert_eq!(answer.json()["status"], "COMPLETED", "{answer:?}");
            break;
        }
        assert!(Instant::now() < end, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let verdict = watched.judge(&[("cut", &[1])]);
    assert_eq!(
        verdict,
        Verdict { violations: vec![], whole_runs: 1, cut_runs: 0, late_steps: 0 },
        "leases outlast it"
    );
}

/// The wall clock of one server, controlled by libfaketime.
pub(crate) struct WallClock(PathBuf);

impl WallClock {
    /// Creates the file from which libfaketime reads the offset. Returns the clock, and the environment
    /// variables for the server. The monotonic clock does not change.
    pub(crate) fn of(scratch: &Path, server: usize) -> (Self, Vec<(&'static str, String)>) {
        let file = scratch.join(format!("clock{server}"));
        let clock = Self(file.clone());
        clock.jump("+0");
        let environment = vec![
            ("LD_PRELOAD", libfaketime()),
            ("FAKETIME_TIMESTAMP_FILE", file.to_string_lossy().into_owned()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        (clock, environment)
    }

    /// Sets the offset from the true time: `+6h`, `-6h`.
    pub(crate) fn jump(&self, to: &str) {
        // A rename replaces the file at once, so that a reader never sees an empty or half-written file.
        let fresh = self.0.with_extension("fresh");
        std::fs::write(&fresh, format!("{to}\n")).expect("the clock's file");
        std::fs::rename(&fresh, &self.0).expect("the clock's file");
    }
}

fn libfaketime() -> String {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let places = folders.chain(["/usr/lib", "/usr/local/lib"].map(PathBuf::from));
    let mut files = places.map(|folder| folder.join("faketime/libfaketime.so.1"));
    let found = files.find(|file| file.exists());
    found
        .unwrap_or_else(|| {
            panic!("libfaketime is missing: run `make tools`, or install the package faketime")
        })
        .to_string_lossy()
        .into_owned()
}

/// The offset of the writing clock for each event of the trace, rounded to hours.
fn trace_clock_offsets(trace: &Path) -> Vec<i64> {
    let now = chrono::Utc::now().timestamp_micros();
    let hour = 3_600_000_000;
    let text = std::fs::read_to_string(trace).unwrap_or_default();
    let at = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()?["at"].as_i64());
    at.map(|at| (at - now + hour / 2).div_euclid(hour)).collect()
}

/// Changes the clocks of the servers while one of them works.
async fn jump_clocks(watched: &TracedCluster, clocks: &[WallClock]) {
    let token = watched.cluster.api(0).post("/v1/provision", &request("time", 1)).await.token();
    let worker = watched.wait_for_worker("time", 3).await;
    // Each jump lasts longer than the pause between two lease renewals, and between two searches for lost workers.
    let pause = Duration::from_millis(1100);
    clocks[worker].jump("-6h");
    tokio::time::sleep(pause).await;
    let others = || clocks.iter().enumerate().filter(|(server, _)| *server != worker);
    for (_, clock) in others() {
        clock.jump("+6h");
    }
    tokio::time::sleep(pause).await;
    clocks[worker].jump("+6h");
    tokio::time::sleep(pause).await;
    for (_, clock) in others() {
        clock.jump("-6h");
    }
    tokio::time::sleep(pause).await;
    clocks[worker].jump("-6h");
    // This task is accepted under wrong clocks, and runs after the first.
    let second = watched.cluster.api(worker).post("/v1/provision", &request("time", 2)).await.token();
    for token in [&token, &second] {
        for server in 0..watched.cluster.len() {
            assert_eq!(watched.cluster.api(server).wait(token).await["status"], "COMPLETED");
        }
    }
    let verdict = watched.judge(&[("time", &[1, 2])]);
    assert_eq!(verdict, Verdict { violations: vec![], whole_runs: 2, cut_runs: 0, late_steps: 0 });
    for server in 0..watched.cluster.len() {
        let log = watched.cluster.server(server).log();
        assert!(!log.contains("lost its worker") && !log.contains("lease is lost"), "{log}");
    }
    let told = trace_clock_offsets(&watched.trace);
    assert!(told.contains(&6) && told.contains(&-6), "the clocks did jump: {told:?}");
}

fn with_clocks(
    mut cluster: crate::harness::ClusterBuilder,
    servers: usize,
) -> (TracedCluster, Vec<WallClock>) {
    let mut clocks = Vec::new();
    for server in 0..servers {
        let (clock, environment) = WallClock::of(cluster.scratch(), server);
        clocks.push(clock);
        for (name, value) in environment {
            cluster = cluster.env(server, name, &value);
        }
    }
    (TracedCluster::new(cluster.start()), clocks)
}

#[tokio::test]
async fn clock_jumps_end_no_lease_on_sqlite() {
    let (watched, clocks) = with_clocks(Cluster::of(1).config(&long_lease_config()), 1);
    jump_clocks(&watched, &clocks).await;
}

/// Each start deletes expired tasks. The clock is ten years ahead at one start and correct at the next.
#[tokio::test]
async fn clock_jumps_of_years_delete_no_recent_tasks() {
    let home = tempfile::tempdir().unwrap();
    let (clock, environment) = WallClock::of(home.path(), 0);
    let mut server = Landfall::with().config("[operations]\nkeep_for = \"24h\"\nkeep_count = 2\n");
    for (name, value) in environment {
        server = server.env(name, &value);
    }
    let mut server = server.start();
    let done = async |server: &Landfall| {
        let body = component_request(&cashflow(), WORKLOAD);
        let token = server.api().post("/v1/provision", &body).await.token();
        assert_eq!(server.api().wait(&token).await["status"], "COMPLETED");
        token
    };
    let mut tokens = vec![done(&server).await];
    for jump in ["+10y", "+0"] {
        clock.jump(jump);
        server.terminate();
        server.restart();
        // The deletion at the start ends well before the next operation ends.
        tokens.push(done(&server).await);
        tokio::time::sleep(Duration::from_millis(500)).await;
        for token in tokens.iter().rev().take(2) {
            assert_eq!(server.api().status(token).await["status"], "COMPLETED", "{jump}");
        }
    }
    server.kill_9();
    server.restart();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let kept: Vec<u16> = futures::future::join_all(
        tokens
            .iter()
            .map(async |token| server.api().get(&format!("/v1/provision/{token}/status")).await.status),
    )
    .await;
    assert_eq!(kept, [400, 200, 200], "only the task that ended first is deleted, whatever the clock was");
}

#[tokio::test]
async fn clock_jumps_end_no_lease_on_postgres() {
    let url = PostgresServer::shared().unwrap().new_database().unwrap();
    let (watched, clocks) = with_clocks(Cluster::of(2).config(&long_lease_config()).store(&url), 2);
    jump_clocks(&watched, &clocks).await;
}

#[tokio::test]
async fn servers_recover_after_their_database_restarts() {
    let postgres = PostgresServer::start(Durability::Fast).unwrap();
    let url = postgres.new_database().unwrap();
    let watched = TracedCluster::new(Cluster::of(2).config(CONFIG).store(&url).start());
    let pids = [0, 1].map(|index| watched.cluster.server(index).pid());
    let token = watched.cluster.api(0).post("/v1/provision", &request("away", 1)).await.token();
    watched.wait_for_worker("away", 3).await;
    postgres.kill_immediately().unwrap();

    let status = format!("/v1/provision/{token}/status");
    for replica in 0..2 {
        let api = watched.cluster.api(replica);
        for (method, path, body) in [
            ("POST", "/v1/provision", request("meanwhile", 1)),
            ("POST", "/v1/unprovision", request("meanwhile", 1)),
            ("POST", "/v1/validate", request("meanwhile", 1)),
            ("POST", "/v2/validate", request("meanwhile", 1)),
            ("GET", status.as_str(), Value::Null),
        ] {
            let asked = Instant::now();
            let answer = try_request(api, method, path, &body).await;
            answer.with_status(500);
            // `try_request` has checked the answer against the contract.
            assert!(answer.content_type.starts_with("application/json"), "{answer:?}");
            let text = answer.json()["error"].as_str().unwrap_or_default().to_owned();
            assert!(text.contains("store") && text.contains("try again"), "{method} {path}: {text}");
            assert!(asked.elapsed() < Duration::from_secs(30), "{method} {path}: {:?}", asked.elapsed());
        }
        try_request(api, "GET", "/landfall/v1/health", &Value::Null).await.with_status(503);
        try_request(api, "GET", "/landfall/v1/live", &Value::Null).await.with_status(200);
    }
    tokio::time::sleep(LEASE * 3).await;
    postgres.restart().unwrap();

    for replica in 0..2 {
        watched.wait_for_recovery(replica).await;
        let api = watched.cluster.api(replica);
        assert_eq!(api.wait(&token).await["status"], "COMPLETED");
        let name = format!("back{replica}");
        assert_eq!(api.provision_and_wait(&request(&name, 1)).await["status"], "COMPLETED");
    }
    assert_eq!([0, 1].map(|index| watched.cluster.server(index).pid()), pids, "the same processes");
    watched.assert_in_order(&[("away", &[1]), ("back0", &[1]), ("back1", &[1])]);
    assert!(
        processes_that_began(&watched.trace, &component("meanwhile")).is_empty(),
        "refused requests start no work"
    );
}
