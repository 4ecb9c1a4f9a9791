//! The attack tests: hostile callers, silent targets, full disks, wrong clocks and broken databases. Each group checks
//! that the server still serves all other callers.
//!
//! Each group is one test. By default it is small. `make attack` runs all groups at full size (`LANDFALL_ATTACK=full`),
//! one after the other, and prints a line for each. `LANDFALL_ATTACK_SEED` repeats the random choices. The tests use
//! only loopback addresses.

mod away;
mod clock;
mod disk;
mod guessing;
mod raw;
mod shapes;
mod slow;
mod store;
mod targets;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt;
use serde_json::{Value, json};

use crate::harness::{
    Answer, Api, WORKLOAD, cashflow, cashflow_named, component_request, messages, repository,
};

/// The default seed.
const SEED: u64 = 20_261_126;
/// A text in every descriptor and token of these tests. It must never be in a log.
const CANARY: &str = "canary-7f31";

/// The size of the attack.
#[derive(Debug, Clone, Copy)]
struct Scale {
    full: bool,
    seed: u64,
}

impl Scale {
    fn wanted() -> Self {
        Self { full: setting("LANDFALL_ATTACK").is_some_and(|size| size == "full"), seed: seed() }
    }

    /// The value for the current size.
    fn of<T>(self, quick: T, full: T) -> T {
        if self.full { full } else { quick }
    }
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

fn seed() -> u64 {
    let parse = |text: String| text.parse().unwrap_or_else(|error| panic!("LANDFALL_ATTACK_SEED: {error}"));
    setting("LANDFALL_ATTACK_SEED").map_or(SEED, parse)
}

/// A group of attacks and its results.
struct Group {
    name: &'static str,
    scale: Scale,
    begun: Instant,
    took: Duration,
    /// The number of attempts of each kind.
    tried: Vec<String>,
    /// Other measurements.
    measured: Vec<String>,
    /// The duration of each recovery of a server.
    recoveries: Vec<Duration>,
    skipped: Vec<String>,
    faults: Vec<String>,
}

impl Group {
    fn new(name: &'static str, scale: Scale) -> Self {
        Self {
            name,
            scale,
            begun: Instant::now(),
            took: Duration::ZERO,
            tried: Vec::new(),
            measured: Vec::new(),
            recoveries: Vec::new(),
            skipped: Vec::new(),
            faults: Vec::new(),
        }
    }

    fn tried(&mut self, count: usize, what: &str) {
        self.tried.push(format!("{count} {what}"));
    }

    fn measured(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.measured.contains(&what) {
            self.measured.push(what);
        }
    }

    fn skipped(&mut self, what: impl Into<String>) {
        let what = what.into();
        println!("attack {}: SKIPPED: {what}", self.name);
        self.skipped.push(what);
    }

    /// Records a fault, and prints it at once, because a later failure may end the process.
    fn fault(&mut self, what: impl Into<String>) {
        let what = what.into();
        println!("attack {}: FAULT: {what}", self.name);
        self.faults.push(what);
    }

    fn expect(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.fault(otherwise());
        }
    }

    /// Runs the attack. A panic counts as a fault.
    async fn run(mut self, attack: impl AsyncFnOnce(&mut Self)) -> Self {
        println!("attack {}: LANDFALL_ATTACK_SEED={}", self.name, self.scale.seed);
        if let Err(panic) = AssertUnwindSafe(attack(&mut self)).catch_unwind().await {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            self.fault(format!("panicked: {}", text.unwrap_or_default()));
        }
        self.took = self.begun.elapsed();
        if let Some(slowest) = self.recoveries.iter().max() {
            let (count, seconds) = (self.recoveries.len(), slowest.as_secs_f64());
            self.measured.push(format!("{count} recoveries, the slowest after {seconds:.1} s"));
        }
        println!("{}", self.line());
        self
    }

    fn line(&self) -> String {
        let list = |of: &[String]| of.join(", ");
        let mut line = format!(
            "attack {}: {}; {:.1} s; {} faults",
            self.name,
            list(&self.tried),
            self.took.as_secs_f64(),
            self.faults.len()
        );
        for (what, of) in [("measured", &self.measured), ("skipped", &self.skipped)] {
            if !of.is_empty() {
                line.push_str(&format!("; {what}: {}", list(of)));
            }
        }
        line
    }

    fn assert_held(&self) {
        assert!(
            self.faults.is_empty(),
            "LANDFALL_ATTACK_SEED={}: {} faults:\n{}",
            self.scale.seed,
            self.faults.len(),
            self.faults.join("\n")
        );
    }
}

/// Declares a test for each group.
macro_rules! groups {
    ($($name:literal, $test:ident: $attack:path;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                Group::new($name, Scale::wanted()).run($attack).await.assert_held();
            }
        )*
    };
}

groups! {
    "HTTP shapes", malformed_http_requests_are_refused: shapes::attack;
    "HTTP shapes with tokens", requests_without_a_valid_token_are_refused: shapes::attack_with_tokens;
    "slow clients", slow_clients_delay_no_other_requests: slow::attack;
    "slow TLS clients", slow_tls_clients_delay_no_other_requests: slow::attack_tls;
    "guessing", credential_guessing_uses_bounded_memory: guessing::attack;
    "silent target", silent_target_blocks_no_other_target: targets::attack_silent;
    "frozen target", tasks_of_a_frozen_target_complete_after_it_resumes: targets::attack_frozen;
    "databases away", database_outages_fail_no_task: away::attack;
    "full disk", full_disks_lose_no_accepted_work: disk::attack_full;
    "files taken away", removed_store_files_are_detected_before_a_202: disk::attack_files;
    "clock jumps", clock_jumps_lose_and_delete_no_task: clock::attack;
    "damaged SQLite store", damaged_sqlite_store_reports_the_damage: store::attack_sqlite;
    "unusable PostgreSQL store", unusable_postgres_store_recovers: store::attack_postgres;
    "unknown rows", unknown_rows_block_no_other_tasks: store::attack_rows;
}

// ---- shared by the groups -------------------------------------------------------------------------------------------

/// A component of the mock in a data product of its own.
fn mock_request(name: &str) -> Value {
    padded_mock_request(name, 0)
}

/// [`mock_request`] with a comment of `padding` bytes.
fn padded_mock_request(name: &str, padding: usize) -> Value {
    let component = WORKLOAD.replace("cashflow:0", &format!("{name}:0"));
    let text = format!("{}\n# {}", cashflow_named(&cashflow(), name), "x".repeat(padding));
    component_request(&with_canary(&text), &component)
}

/// The output port of the lakehouse in a data product of its own.
fn lake_request(name: &str) -> Value {
    let component = crate::harness::OUTPUT_PORT.replace("cashflow:0", &format!("{name}:0"));
    let text = cashflow_named(&crate::harness::cashflow_with_rows(), name);
    component_request(&with_canary(&text), &component)
}

/// A storage area in PostgreSQL in a data product of its own.
fn postgres_request(name: &str) -> Value {
    let example = repository().join("crates/technologies/postgresql/examples/orders.yaml");
    let text = std::fs::read_to_string(example).expect("the example is there");
    let text = text.replace("sales:orders:1", &format!("sales:{name}:1"));
    component_request(&with_canary(&text), &format!("urn:dmb:cmp:sales:{name}:1:storage"))
}

fn with_canary(descriptor: &str) -> String {
    format!("{descriptor}\n# {CANARY}\n")
}

/// Records a fault when the log contains a panic or the canary.
fn check_log(group: &mut Group, log: &str) {
    for word in ["panicked at", CANARY] {
        if let Some(line) = log.lines().find(|line| line.contains(word)) {
            group.fault(format!("the log has `{word}`: {line}"));
        }
    }
}

/// Sends a request to a server that may not answer.
async fn try_request(api: &Api, method: &str, path: &str, body: &Value) -> Result<Answer, String> {
    let shape = |request: reqwest::RequestBuilder| if body.is_null() { request } else { request.json(body) };
    api.try_send(method, path, shape).await.map_err(|error| format!("{method} {path}: {error:?}"))
}

/// The status of a task. `None` when the server does not answer with 200.
async fn status(api: &Api, token: &str) -> Option<Value> {
    let answer =
        try_request(api, "GET", &format!("/v1/provision/{token}/status"), &Value::Null).await.ok()?;
    (answer.status == 200).then(|| answer.json())
}

/// Repeats a request until the server answers with a token. This is safe even if the server has accepted an
/// earlier request whose answer was lost.
async fn submit(api: &Api, path: &str, body: &Value, timeout: Duration) -> Result<String, String> {
    let end = Instant::now() + timeout;
    loop {
        let last = match try_request(api, "POST", path, body).await {
            Ok(answer) if answer.status == 202 => return Ok(answer.token()),
            Ok(answer) if answer.status != 500 => return Err(format!("refused: {answer:?}")),
            Ok(answer) => format!("{answer:?}"),
            Err(error) => error,
        };
        if Instant::now() >= end {
            return Err(format!("not accepted within {timeout:?}: {last}"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits for the end of a task, also while the server does not answer.
async fn wait_for_end(api: &Api, token: &str, timeout: Duration) -> Result<Value, String> {
    let end = Instant::now() + timeout;
    let mut last = None;
    loop {
        match status(api, token).await {
            Some(status) if status["status"] != "RUNNING" => return Ok(status),
            Some(status) => last = Some(status),
            None => {}
        }
        if Instant::now() >= end {
            let log = last.as_ref().map(messages).unwrap_or_default();
            return Err(format!("{token} has not ended within {timeout:?}: {log:?}"));
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// Waits until all tasks complete. Every other end is a fault.
async fn expect_all_completed(group: &mut Group, api: &Api, tokens: &[String], timeout: Duration) {
    let end = Instant::now() + timeout;
    for token in tokens {
        match wait_for_end(api, token, end.saturating_duration_since(Instant::now())).await {
            Ok(status) if status["status"] == "COMPLETED" => {}
            Ok(status) => group.fault(format!("{token} ended {}: {:?}", status["status"], messages(&status))),
            Err(error) => group.fault(error),
        }
    }
}

/// Several callers submit tasks of the mock, each one task after the other. Returns the completed tasks per second.
async fn mock_rate(api: &Api, prefix: &str, tasks: usize, limit: Duration) -> f64 {
    const CALLERS: usize = 8;
    let (done, begun) = (AtomicUsize::new(0), Instant::now());
    let caller = async |caller: usize| {
        for number in (caller..tasks).step_by(CALLERS) {
            let left = limit.saturating_sub(begun.elapsed());
            let request = mock_request(&format!("{prefix}{number}"));
            let Ok(token) = submit(api, "/v1/provision", &request, left).await else { return };
            match wait_for_end(api, &token, left).await {
                Ok(status) if status["status"] == "COMPLETED" => done.fetch_add(1, Ordering::AcqRel),
                _ => return,
            };
        }
    };
    futures::future::join_all((0..CALLERS).map(caller)).await;
    #[expect(clippy::cast_precision_loss, reason = "a few hundred tasks")]
    let done = done.load(Ordering::Acquire) as f64;
    done / begun.elapsed().as_secs_f64()
}

/// The answer to a health request. `None` without an answer in time.
async fn health(api: &Api) -> Option<Answer> {
    let asked = try_request(api, "GET", "/landfall/v1/health", &Value::Null);
    tokio::time::timeout(Duration::from_secs(20), asked).await.ok()?.ok()
}

/// Waits until the health has this status. The error contains the last answer.
async fn wait_for_health(api: &Api, wanted: u16, timeout: Duration) -> Result<Answer, String> {
    let end = Instant::now() + timeout;
    loop {
        let last = health(api).await;
        match last {
            Some(answer) if answer.status == wanted => return Ok(answer),
            last if Instant::now() >= end => {
                return Err(format!("the health is not {wanted} after {timeout:?}: {last:?}"));
            }
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Waits until the server accepts and completes a request again.
async fn expect_recovery(group: &mut Group, api: &Api, name: &str, timeout: Duration) {
    let begun = Instant::now();
    let request = mock_request(name);
    let recovered = async {
        let token = submit(api, "/v1/provision", &request, timeout).await?;
        wait_for_end(api, &token, timeout).await
    };
    match recovered.await {
        Ok(status) if status["status"] == "COMPLETED" => {
            group.recoveries.push(begun.elapsed());
        }
        Ok(status) => group.fault(format!("`{name}` ended {status}")),
        Err(error) => group.fault(format!("`{name}`: {error}")),
    }
}

/// Stops a task and waits for its end.
async fn stop_and_wait(api: &Api, token: &str, timeout: Duration) -> Result<Value, String> {
    let answer = try_request(api, "POST", &format!("/v1/provision/{token}/stop"), &json!({})).await?;
    if !matches!(answer.status, 200 | 202) {
        return Err(format!("a stop of {token} was answered {answer:?}"));
    }
    wait_for_end(api, token, timeout).await
}
