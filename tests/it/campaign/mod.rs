//! The crash campaign submits operations all the time while it kills servers, and their database, at random. It then
//! checks the trace, the store and the lakehouse: the servers completed every accepted task, one run at a time, in
//! order, and did no other work.
//!
//! `LANDFALL_CRASH_SEED` repeats a campaign: it determines the submissions and the disturbances, but not the exact time
//! of each. `LANDFALL_CRASH_OPERATIONS` is the number of operations.

mod lake;
pub(crate) mod plan;
pub(crate) mod trace;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use plan::{Fault, Plan, Rng, Submission};
use serde_json::Value;

use crate::harness::{Answer, Api, Cluster};
use crate::postgres::{Durability, PostgresServer};

const LEASE: Duration = Duration::from_millis(1500);
const STEPS: u64 = 5;
/// The number of open tasks of a submitter before it waits for the oldest.
const OUTSTANDING: usize = 6;
/// How long a submitter waits for an answer or for the end of a task, disturbances included.
const TIMEOUT: Duration = Duration::from_secs(120);

const CONFIG: &str = r#"
[store]
timeout = "2s"

[operations]
lease = "1500ms"
poll = "100ms"
# No task fails because of crashes: the seed decides how many crashes hit it.
max_crashes = 100000
crash_pause = "20ms"
backoff = "20ms"
backoff_cap = "300ms"

[targets.MOCK]
driver = "mock"
steps = 5
step_delay = "8ms"
trace = "file://{scratch}/trace.jsonl"

# Its steps, trace included, run on blocking threads.
[targets.THREADS]
driver = "mock"
group = "threads"
blocking = true
steps = 5
step_delay = "8ms"
trace = "file://{scratch}/trace.jsonl"

[targets.LAKE]
driver = "lakehouse"
warehouse = "file://{data_dir}/warehouse"
catalog = "sqlite://{data_dir}/catalog.db"

[[routes]]
technology = "S3"
group = "lakehouse"

[[routes]]
technology = "Threads"
group = "threads"

[[routes]]
technology = "Spark"
group = "mock"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_on_sqlite() {
    let cluster = Cluster::of(1).config(CONFIG).start();
    Campaign::new("SQLite", cluster, None).run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_on_postgres() {
    // The default durability, with commits on disk, as in production.
    let postgres = PostgresServer::start(Durability::Safe).expect("PostgreSQL starts");
    let url = postgres.new_database().expect("a database");
    let cluster = Cluster::of(2).config(CONFIG).store(&url).start();
    Campaign::new("PostgreSQL", cluster, Some(postgres)).run().await;
}

/// The value of an environment variable, or the default.
fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty());
    text.map_or(default, |text| text.parse().unwrap_or_else(|error| panic!("{name}: `{text}`: {error}")))
}

struct Campaign {
    store: &'static str,
    /// Dropped before `postgres`, because the drop of the cluster reads the pending tasks from the database.
    cluster: Cluster,
    postgres: Option<PostgresServer>,
    seed: u64,
    operations: usize,
    trace: PathBuf,
    state: Arc<SubmitterState>,
}

/// The state that all submitters share.
struct SubmitterState {
    /// The client for the latest process of each server. The process may be dead.
    apis: Mutex<Vec<Api>>,
    /// Submissions that have a token.
    accepted: AtomicUsize,
    /// Tasks that ended COMPLETED.
    completed: AtomicUsize,
    /// Requests without an answer, or with an answer that asks for a retry.
    repeats: AtomicUsize,
    /// The tokens, and the request of each.
    tokens: Mutex<BTreeMap<String, Value>>,
    violations: Mutex<Vec<String>>,
}

/// The number of disturbances of each kind.
#[derive(Default)]
struct Done {
    server_kills: usize,
    postgres_kills: usize,
    freezes: usize,
}

impl Campaign {
    fn new(store: &'static str, cluster: Cluster, postgres: Option<PostgresServer>) -> Self {
        let operations = setting("LANDFALL_CRASH_OPERATIONS", 80);
        let apis = (0..cluster.len()).map(|index| cluster.api(index).clone()).collect();
        Self {
            store,
            trace: cluster.scratch().join("trace.jsonl"),
            cluster,
            postgres,
            seed: setting("LANDFALL_CRASH_SEED", 20_260_101),
            operations: usize::try_from(operations).expect("a number of operations"),
            state: Arc::new(SubmitterState {
                apis: Mutex::new(apis),
                accepted: AtomicUsize::new(0),
                completed: AtomicUsize::new(0),
                repeats: AtomicUsize::new(0),
                tokens: Mutex::default(),
                violations: Mutex::default(),
            }),
        }
    }

    async fn run(mut self) {
        let begun = Instant::now();
        let plan = Plan::new(self.seed, self.operations, self.cluster.len(), LEASE);
        println!(
            "campaign on {}: LANDFALL_CRASH_SEED={} LANDFALL_CRASH_OPERATIONS={}",
            self.store, self.seed, self.operations
        );
        let submitters: Vec<_> = (1..)
            .zip(plan.submitters.clone())
            .map(|(number, submissions)| {
                let rng = Rng::new(self.seed ^ number);
                tokio::spawn(submit_all(Arc::clone(&self.state), submissions, rng))
            })
            .collect();
        let mut done = Done::default();
        for disturbance in &plan.disturbances {
            while self.state.accepted.load(Ordering::Acquire) < disturbance.after
                && !submitters.iter().any(tokio::task::JoinHandle::is_finished)
            {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            tokio::time::sleep(disturbance.pause).await;
            self.disturb(disturbance, &mut done).await;
        }
        for submitter in submitters {
            submitter.await.expect("a submitter that does not panic");
        }
        self.cluster.api(0).settle().await;
        let judged = self.inspect(&plan).await;
        let count = |number: &AtomicUsize| number.load(Ordering::Acquire);
        println!(
            "campaign on {}: {} submissions accepted as {} operations, {} completed; {} kills of servers, {} kills of \
             PostgreSQL, {} servers frozen past their lease; {} requests repeated; {} runs cut off, {} steps late, {} whole runs of \
             {} serials; {:.1} s",
            self.store,
            count(&self.state.accepted),
            self.state.tokens.lock().unwrap_or_else(PoisonError::into_inner).len(),
            count(&self.state.completed),
            done.server_kills,
            done.postgres_kills,
            done.freezes,
            count(&self.state.repeats),
            judged.cut_runs,
            judged.late_steps,
            judged.whole_runs,
            plan.serials.values().map(Vec::len).sum::<usize>(),
            begun.elapsed().as_secs_f64(),
        );
        if !judged.violations.is_empty() {
            let kept = std::env::temp_dir().join(format!("landfall-campaign-{}.jsonl", self.seed));
            if std::fs::copy(&self.trace, &kept).is_ok() {
                println!("the trace is kept in {}", kept.display());
            }
        }
        assert!(
            judged.violations.is_empty(),
            "LANDFALL_CRASH_SEED={} broke promises:\n{}",
            self.seed,
            judged.violations.join("\n")
        );
        assert_eq!(count(&self.state.accepted), self.operations);
    }

    async fn disturb(&mut self, disturbance: &plan::Disturbance, done: &mut Done) {
        let all = 0..self.cluster.len();
        match disturbance.what {
            Fault::Kill(replica) => self.kill(&[replica], disturbance.lasts, done).await,
            Fault::KillAll => self.kill(&all.collect::<Vec<_>>(), disturbance.lasts, done).await,
            Fault::KillPostgres => {
                let postgres = self.postgres.as_ref().expect("the plan is for PostgreSQL");
                postgres.kill_immediately().expect("PostgreSQL stops");
                tokio::time::sleep(disturbance.lasts).await;
                postgres.restart().expect("PostgreSQL starts");
                done.postgres_kills += 1;
            }
            Fault::Freeze(replica) => {
                let pid = self.cluster.replica(replica).freeze();
                trace::note_frozen(&self.trace, pid);
                tokio::time::sleep(disturbance.lasts).await;
                self.cluster.replica(replica).thaw();
                done.freezes += 1;
            }
        }
    }

    async fn kill(&mut self, replicas: &[usize], down: Duration, done: &mut Done) {
        for replica in replicas {
            let pid = self.cluster.replica(*replica).kill_9();
            trace::note_killed(&self.trace, pid);
            done.server_kills += 1;
        }
        tokio::time::sleep(down).await;
        for replica in replicas {
            // Restarted on this thread, because a server ends with the thread that started it.
            self.cluster.replica(*replica).restart();
            let api = self.cluster.api(*replica).clone();
            self.state.apis.lock().unwrap_or_else(PoisonError::into_inner)[*replica] = api;
        }
    }

    /// Checks the trace, the tasks and the lakehouse at the end of the campaign.
    async fn inspect(&self, plan: &Plan) -> trace::Verdict {
        let mut verdict = trace::judge(&trace::read(&self.trace), &plan.serials, STEPS);
        verdict.violations.append(&mut self.state.violations.lock().unwrap_or_else(PoisonError::into_inner));

        // Every server must report every token as completed.
        let tokens = self.state.tokens.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for replica in 0..self.cluster.len() {
            for token in tokens.keys() {
                let status = self.cluster.api(replica).status(token).await;
                if status["status"] != "COMPLETED" {
                    verdict.violations.push(format!("server {replica} says of {token}: {status}"));
                }
            }
        }
        // Tasks whose answer was lost must complete, too, although no submitter has their token.
        let sql = "SELECT state, count(*) FROM task GROUP BY state";
        let states = self.cluster.store().query(sql).await;
        match states.as_slice() {
            [one]
                if one[0] == "completed"
                    && one[1].parse().is_ok_and(|count: usize| count >= tokens.len()) => {}
            _ => verdict.violations.push(format!("{} tokens, and the store has {states:?}", tokens.len())),
        }
        let resources = self.cluster.resources().await;
        let warehouse = self.cluster.scratch().join("data/warehouse");
        for lake in &plan.lakes {
            verdict.violations.extend(lake.violations(&warehouse, &resources));
        }
        let tables = plan.lakes.iter().filter(|lake| lake.table_exists()).count();
        if resources.tables.len() != tables {
            verdict.violations.push(format!("{tables} tables are wanted, there are {:?}", resources.tables));
        }
        verdict.violations.extend(leftovers(&warehouse));
        verdict
    }
}

/// The temporary folders of deletions that are still in the warehouse. There must be none.
fn leftovers(warehouse: &Path) -> Vec<String> {
    let names = |folder: &str| {
        let entries = std::fs::read_dir(warehouse.join(folder)).into_iter().flatten().flatten();
        entries.map(|entry| entry.path().display().to_string()).collect::<Vec<_>>()
    };
    names("buckets").into_iter().filter(|name| name.contains("/.purged.")).collect()
}

/// Submits one request after the other, and waits until all of them complete.
async fn submit_all(state: Arc<SubmitterState>, submissions: Vec<Submission>, mut rng: Rng) {
    let mut outstanding = VecDeque::<String>::new();
    for submission in submissions {
        while outstanding.len() >= OUTSTANDING
            && let Some(token) = outstanding.pop_front()
        {
            state.wait_for_completion(&token, &mut rng).await;
        }
        let (first, second) = (rng.below(state.size()), rng.below(state.size()));
        let tokens = if submission.twice {
            let (one, other) =
                tokio::join!(state.submit(&submission, first), state.submit(&submission, second));
            vec![one, other]
        } else {
            vec![state.submit(&submission, first).await]
        };
        state.accepted.fetch_add(1, Ordering::AcqRel);
        for token in tokens {
            if state.note(&token, &submission) {
                outstanding.push_back(token);
            }
        }
    }
    for token in outstanding {
        state.wait_for_completion(&token, &mut rng).await;
    }
}

impl SubmitterState {
    fn size(&self) -> usize {
        self.apis.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn api(&self, replica: usize) -> Api {
        let apis = self.apis.lock().unwrap_or_else(PoisonError::into_inner);
        apis[replica % apis.len()].clone()
    }

    /// Sends the request to one server after the other until one answers with another status than 500.
    async fn request_until_answered(
        &self,
        mut replica: usize,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Answer {
        let end = Instant::now() + TIMEOUT;
        loop {
            let api = self.api(replica);
            let asked = api.try_send(method, path, |request| match body {
                Some(body) => request.json(body),
                None => request,
            });
            match asked.await {
                Ok(answer) if answer.status != 500 => return answer,
                Ok(answer) => assert!(Instant::now() < end, "after {TIMEOUT:?}: {answer:?}"),
                Err(error) => assert!(Instant::now() < end, "after {TIMEOUT:?}: {error:?}"),
            }
            self.repeats.fetch_add(1, Ordering::AcqRel);
            replica += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Repeats the submission until a server answers with a token. This is safe even if a server has accepted
    /// an earlier request whose answer was lost.
    async fn submit(&self, submission: &Submission, replica: usize) -> String {
        self.request_until_answered(replica, "POST", submission.path, Some(&submission.body)).await.token()
    }

    /// Remembers a token, and returns whether it is new. Two different requests never share a token.
    fn note(&self, token: &str, submission: &Submission) -> bool {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let before = tokens.insert(token.to_owned(), submission.body.clone());
        if let Some(body) = before.as_ref().filter(|body| **body != submission.body) {
            self.violation(format!("{token} stands for {body} and for {}", submission.body));
        }
        before.is_none()
    }

    async fn wait_for_completion(&self, token: &str, rng: &mut Rng) {
        let path = format!("/v1/provision/{token}/status");
        let end = Instant::now() + TIMEOUT;
        loop {
            let answer = self.request_until_answered(rng.below(self.size()), "GET", &path, None).await;
            if answer.status != 200 {
                return self.violation(format!("{token} is not known: {answer:?}"));
            }
            let status = answer.json();
            match status["status"].as_str() {
                Some("COMPLETED") => {
                    self.completed.fetch_add(1, Ordering::AcqRel);
                    return;
                }
                Some("RUNNING") if Instant::now() < end => {}
                _ => return self.violation(format!("{token} did not complete: {status:#}")),
            }
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    }

    fn violation(&self, what: String) {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
}
