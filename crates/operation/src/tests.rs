//! The engine on both stores, with runs that the test controls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};

use super::postgres::{PostgresSettings, PostgresStore};
use super::postgres_server::PostgresServer;
use super::sqlite::SqliteStore;
use super::*;
use crate::topology::{Attributes, Edit, Instance};
use landfall_adapter::Context;
use landfall_adapter::error::Error;

/// The longest that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(30);

fn settings() -> Settings {
    Settings {
        // Long, so that a test fails unless notifications arrive.
        poll: Duration::from_secs(3600),
        backoff_base: Duration::from_millis(20),
        backoff_cap: Duration::from_millis(50),
        cancel_grace: Duration::from_millis(50),
        ..Settings::default()
    }
}

/// The place of a test's tasks. The test may open it again, as the next process would.
enum Place {
    Folder(Arc<TempDir>),
    Database(String),
}

impl Place {
    fn folder() -> Self {
        Self::Folder(Arc::new(TempDir::new().unwrap()))
    }

    fn database() -> Self {
        Self::Database(PostgresServer::shared().unwrap().new_database().unwrap())
    }

    /// A fresh place of the same kind.
    fn another(&self) -> Self {
        match self {
            Self::Folder(_) => Self::folder(),
            Self::Database(_) => Self::database(),
        }
    }

    async fn open(&self, limits: Limits) -> Arc<dyn Store> {
        match self {
            Self::Folder(folder) => {
                let path = folder.path().join("landfall.db");
                Arc::new(SqliteStore::open(path.to_str().unwrap(), limits).await.unwrap())
            }
            Self::Database(url) => {
                let settings = PostgresSettings::parse(url).unwrap();
                Arc::new(PostgresStore::open(&settings, limits).await.unwrap())
            }
        }
    }

    /// The settings of a process that will be killed. If only one process can use the store, the next one takes its
    /// tasks over at once, otherwise when the lease expires.
    fn mortal(&self) -> Settings {
        match self {
            Self::Folder(_) => settings(),
            Self::Database(_) => Settings { lease: Duration::from_millis(900), ..settings() },
        }
    }
}

/// Each test on both stores.
macro_rules! on_both_stores {
    ($($test:ident)*) => {
        mod embedded {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
                async fn $test() {
                    super::$test(super::Place::folder()).await;
                }
            )*
        }

        mod replicated {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
                async fn $test() {
                    super::$test(super::Place::database()).await;
                }
            )*
        }
    };
}

on_both_stores! {
    a_task_runs_and_completes
    a_transient_failure_is_retried_and_the_wait_is_visible
    outage_of_target_and_store_fails_nothing
    repeated_failures_are_folded_in_the_log
    stop_between_retries_ends_the_task
    time_for_retries_is_used_completely
    permanent_error_fails_at_once_with_its_public_text
    panic_fails_the_task_and_keeps_the_worker
    stop_of_a_queued_task_ends_it_at_once
    stop_of_a_running_task_cancels_it
    a_stopped_task_ends_only_when_its_work_does
    a_stopped_task_is_not_retried
    stopped_run_that_does_not_react_is_aborted
    stopped_task_waits_for_work_that_cannot_be_aborted
    a_stopped_task_ends_after_its_blocking_thread
    a_panic_on_a_blocking_thread_fails_the_task
    a_drain_leaves_a_hanging_thread_to_its_lease
    run_waits_for_an_earlier_run_that_lost_its_lease
    stop_during_a_drain_wins
    a_run_that_takes_too_long_fails
    operations_have_time_limits_of_their_own
    log_lines_appear_while_a_task_runs
    validation_does_not_wait_for_provisioning
    full_queue_refuses_with_a_reason
    sixty_four_callers_with_one_request_get_one_token
    wait_returns_at_its_timeout
    run_records_deployments_of_its_components_only
    drain_waits_for_runs_and_claims_no_more
    drain_returns_unfinished_runs_to_the_queue
    restart_resumes_accepted_tasks
    poisoned_task_fails_and_others_complete
    random_load_runs_each_component_alone_and_in_order
    stop_between_claim_and_run_is_effective
    late_stop_returns_the_result
    lane_without_progress_is_reported
    a_worker_without_a_heartbeat_ends_before_its_lease_does
    store_outage_loses_nothing
    a_claim_whose_answer_is_lost_runs_when_its_lease_ends
    heartbeat_during_the_end_of_a_run_is_harmless
    next_run_begins_before_the_end_is_confirmed
}

/// A runner that asks the test for each result.
struct Puppet(mpsc::UnboundedSender<Visit>);

/// A run that has begun and waits for the test.
struct Visit {
    task: ClaimedTask,
    context: Context,
    deployments: Deployments,
    act: oneshot::Sender<Act>,
}

enum Act {
    Return(Result<Value, RunError>),
    Panic,
}

#[async_trait]
impl Runner for Puppet {
    async fn run(
        &self,
        task: &ClaimedTask,
        context: &Context,
        deployments: &Deployments,
    ) -> Result<Value, RunError> {
        let (act, told) = oneshot::channel();
        let visit =
            Visit { task: task.clone(), context: context.clone(), deployments: deployments.clone(), act };
        self.0.send(visit).map_err(|_| Error::permanent("the test is over"))?;
        let obeys = task.payload.get("stubborn").is_none();
        tokio::select! {
            act = told => match act {
                Ok(Act::Return(result)) => result,
                Ok(Act::Panic) => panic!("as told"),
                Err(_) => std::future::pending().await,
            },
            () = context.cancel.cancelled(), if obeys => Err(RunError {
                error: Error::cancelled("stopped on request"),
                outcome: Some(json!({"partly": true})),
            }),
        }
    }
}

impl Visit {
    fn complete(self, outcome: Value) {
        let _ = self.act.send(Act::Return(Ok(outcome)));
    }

    fn fail(self, error: Error) {
        let _ = self.act.send(Act::Return(Err(RunError { error, outcome: Some(json!({"failed": true})) })));
    }
}

struct Stage {
    engine: Engine,
    visits: mpsc::UnboundedReceiver<Visit>,
    store: Arc<dyn Store>,
    place: Place,
}

impl Stage {
    async fn new(place: Place) -> Self {
        Self::with(place, settings(), Limits::default()).await
    }

    async fn with(place: Place, settings: Settings, limits: Limits) -> Self {
        let store = place.open(limits).await;
        let (sender, visits) = mpsc::unbounded_channel();
        let engine = Engine::start(Arc::clone(&store), Arc::new(Puppet(sender)), settings);
        Self { engine, visits, store, place }
    }

    async fn visit(&mut self) -> Visit {
        tokio::time::timeout(PATIENCE, self.visits.recv()).await.expect("no run began").unwrap()
    }

    async fn end(&self, token: Token) -> Task {
        let task = self.engine.wait(&token, PATIENCE).await.unwrap().unwrap();
        assert!(task.state.is_terminal(), "{task:?}");
        task
    }
}

fn task(operation: Operation, components: &[&str], payload: Value) -> NewTask {
    NewTask {
        operation,
        components: components.iter().map(|c| ComponentKey::new(*c, "dev")).collect(),
        targets: Vec::new(),
        fingerprint: payload.to_string(),
        payload: payload.to_string().into(),
    }
}

fn provision(component: &str) -> NewTask {
    task(Operation::Provision, &[component], json!({"for": component}))
}

async fn a_task_runs_and_completes(place: Place) {
    let mut stage = Stage::new(place).await;
    let submitted = stage.engine.submit(provision("a")).await.unwrap();
    assert!(!submitted.deduplicated);
    let visit = stage.visit().await;
    assert_eq!(visit.task.token, submitted.token);
    assert_eq!(visit.task.payload, json!({"for": "a"}));
    assert_eq!(visit.task.attempt, 1);
    assert_eq!(stage.engine.counts().await.unwrap(), Counts { queued: 0, running: 1 });
    visit.context.journal.phase("a").info("working");
    visit.complete(json!({"b": 1, "a": [2]}));
    let task = stage.end(submitted.token).await;
    assert_eq!(task.state, State::Completed);
    assert_eq!(task.outcome, Some(json!({"b": 1, "a": [2]})));
    assert_eq!(task.reason, None);
    assert_eq!(task.logs.len(), 1);
    assert_eq!(task.logs[0].message, "working");
    assert_eq!(task.logs[0].phase.as_deref(), Some("a"));
    assert!(task.started_at >= Some(task.submitted_at) && task.finished_at >= task.started_at);
    assert_eq!(stage.engine.counts().await.unwrap(), Counts::default());
}

async fn a_transient_failure_is_retried_and_the_wait_is_visible(place: Place) {
    let mut stage = Stage::new(place).await;
    let token = stage.engine.submit(provision("a")).await.unwrap().token;
    stage.visit().await.fail(Error::retryable("the bucket is busy"));
    let visit = stage.visit().await;
    assert_eq!(visit.task.attempt, 2);
    visit.complete(json!(1));
    let task = stage.end(token).await;
    assert_eq!((task.state, task.attempt, task.outcome), (State::Completed, 2, Some(json!(1))));
    assert_eq!(task.logs.len(), 1);
    let text = &task.logs[0].message;
    assert!(
        text.starts_with("the bucket is busy; trying again in ")
            && text.ends_with(" UTC (operations.retry_for)"),
        "{text}"
    );
}

/// What happens while the target is unavailable, for example during the failover of a database.
#[derive(Default)]
struct Away {
    gone: std::sync::atomic::AtomicBool,
    runs: std::sync::atomic::AtomicUsize,
}

impl Away {
    async fn runs(&self, wanted: usize) {
        use std::sync::atomic::Ordering::SeqCst;
        let end = std::time::Instant::now() + PATIENCE;
        while self.runs.load(SeqCst) < wanted && std::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(self.runs.load(SeqCst) >= wanted, "{} of {wanted} runs", self.runs.load(SeqCst));
    }
}

#[async_trait]
impl Runner for Away {
    async fn run(&self, _: &ClaimedTask, context: &Context, _: &Deployments) -> Result<Value, RunError> {
        use std::sync::atomic::Ordering::SeqCst;
        self.runs.fetch_add(1, SeqCst);
        if self.gone.load(SeqCst) {
            context.journal.info("connecting");
            return Err(Error::retryable("the database does not answer").into());
        }
        Ok(json!(1))
    }
}

/// Many more attempts than a limit on attempts would allow, and a store that is unavailable for several leases: only
/// time limits the retries, and every accepted task completes.
async fn outage_of_target_and_store_fails_nothing(place: Place) {
    use std::sync::atomic::Ordering::SeqCst;
    const TASKS: usize = 20;
    const LEASE: Duration = Duration::from_millis(500);
    let (store, _passes) = Breakable::new(&place).await;
    let away = Arc::new(Away::default());
    let quick = Settings { lease: LEASE, poll: Duration::from_millis(20), ..settings() };
    let shared: Arc<dyn Store> = Arc::<Breakable>::clone(&store);
    let engine = Engine::start(shared, Arc::<Away>::clone(&away), quick);
    away.gone.store(true, SeqCst);
    let mut tokens = Vec::new();
    for number in 0..TASKS {
        tokens.push(engine.submit(provision(&format!("c{number}"))).await.unwrap().token);
    }
    away.runs(TASKS * 12).await;
    for point in [Point::Claim, Point::Heartbeat, Point::AppendLogs, Point::Settle] {
        store.break_at(point);
    }
    tokio::time::sleep(LEASE * 4).await;
    store.mend();
    away.runs(away.runs.load(SeqCst) + TASKS).await;
    away.gone.store(false, SeqCst);
    for token in tokens {
        let task = engine.wait(&token, PATIENCE).await.unwrap().unwrap();
        assert_eq!(task.state, State::Completed, "{task:?}");
    }
}

async fn repeated_failures_are_folded_in_the_log(place: Place) {
    use std::sync::atomic::Ordering::SeqCst;
    let store = place.open(Limits::default()).await;
    let away = Arc::new(Away::default());
    away.gone.store(true, SeqCst);
    let quick = Settings { backoff_cap: Duration::from_millis(1), ..settings() };
    let engine = Engine::start(store, Arc::<Away>::clone(&away), quick);
    let token = engine.submit(provision("a")).await.unwrap().token;
    away.runs(40).await;
    away.gone.store(false, SeqCst);
    let task = engine.wait(&token, PATIENCE).await.unwrap().unwrap();
    assert_eq!(task.state, State::Completed);
    assert!(task.attempt > 40, "{}", task.attempt);
    // The 1st, 2nd, 3rd, 5th, 9th, 17th, 33rd, ... of the same failure, each with the log lines of its run.
    let told: Vec<&str> = task.logs.iter().map(|line| line.message.as_str()).collect();
    assert!((14..=20).contains(&told.len()), "{told:?}");
    assert_eq!(told[0], "connecting");
    assert!(told[1].starts_with("the database does not answer; trying again in "), "{told:?}");
    let fifth = "the database does not answer (5 times in a row); trying again in ";
    assert!(told[7].starts_with(fifth), "{told:?}");
}

async fn stop_between_retries_ends_the_task(place: Place) {
    let mut stage = Stage::new(place).await;
    let token = stage.engine.submit(provision("a")).await.unwrap().token;
    stage.visit().await.fail(Error::retryable("the bucket is busy").after(Duration::from_secs(3000)));
    while stage.engine.counts().await.unwrap().queued == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let task = stage.engine.stop(&token, StopScope::Any).await.unwrap().unwrap();
    assert_eq!((task.state, task.attempt), (State::Terminated, 1));
    assert_eq!(task.reason.as_deref(), Some("stopped on request while it waited for its next run"));
    assert!(stage.visits.try_recv().is_err(), "it does not run again");
}

/// The time for retries runs from the first failure on, and includes the waits. It does not start with the run that
/// fails last.
async fn time_for_retries_is_used_completely(place: Place) {
    let settings =
        Settings { retry_for: Duration::from_secs(1), backoff_base: Duration::from_millis(1), ..settings() };
    let stage = Stage::with(place, settings, Limits::default()).await;
    let token = stage.engine.submit(provision("a")).await.unwrap().token;
    let Stage { engine, mut visits, .. } = stage;
    let drive = tokio::spawn(async move {
        while let Some(visit) = visits.recv().await {
            visit.fail(Error::retryable("the bucket is busy").after(Duration::from_millis(300)));
        }
    });
    let task = engine.wait(&token, PATIENCE).await.unwrap().unwrap();
    drop(engine);
    drive.await.unwrap();
    assert_eq!(task.state, State::Failed);
    // As many waits of 0.3 s as fit into a second, and the last attempt at its end, or two if the first of them comes
    // early; a slow machine has time for fewer.
    assert!((2..=6).contains(&task.attempt), "{task:?}");
    let reason = task.reason.unwrap();
    let end = ", past the 1 s of operations.retry_for";
    assert!(reason.starts_with("the bucket is busy; given up after ") && reason.ends_with(end), "{reason}");
}

async fn permanent_error_fails_at_once_with_its_public_text(place: Place) {
    let mut stage = Stage::new(place).await;
    let token = stage.engine.submit(provision("a")).await.unwrap().token;
    stage.visit().await.fail(Error::conflict("the table is not ours").because("a private cause"));
    let task = stage.end(token).await;
    assert_eq!((task.state, task.attempt), (State::Failed, 1));
    assert_eq!(task.reason.as_deref(), Some("the table is not ours"));
    assert_eq!(task.logs[0].message, "the table is not ours");
    assert!(!format!("{task:?}").contains("private"));
}

async fn panic_fails_the_task_and_keeps_the_worker(place: Place) {
    let mut stage = Stage::with(place, Settings { concurrency: 1, ..settings() }, Limits::default()).await;
    let first = stage.engine.submit(provision("a")).await.unwrap().token;
    let second = stage.engine.submit(provision("b")).await.unwrap().token;
    let visit = stage.visit().await;
    visit.context.journal.info("so far");
    let _ = visit.act.send(Act::Panic);
    let task = stage.end(first).await;
    assert_eq!(task.state, State::Failed);
    assert!(task.reason.unwrap().contains("internal error"));
    assert_eq!(task.logs[0].message, "so far");
    stage.visit().await.complete(json!(2));
    assert_eq!(stage.end(second).await.state, State::Completed);
}

async fn stop_of_a_queued_task_ends_it_at_once(place: Place) {
    let mut stage = Stage::new(place).await;
    let running = stage.engine.submit(provision("a")).await.unwrap().token;
    let queued = stage.engine.submit(task(Operation::Unprovision, &["a"], json!(1))).await.unwrap().token;
    let visit = stage.visit().await;
    let task = stage.engine.stop(&queued, StopScope::Any).await.unwrap().unwrap();
    assert_eq!((task.state, task.attempt), (State::Terminated, 0));
    visit.complete(json!(1));
    assert_eq!(stage.end(running).await.state, State::Completed);
    assert!(stage.visits.try_recv().is_err(), "it never ran");
    assert_eq!(stage.engine.stop(&Token::random(), StopScope::Any).await.unwrap(), None);
}

async fn stop_of_a_running_task_cancels_it(place: Place) {
    let mut stage = Stage::new(place).await;
    let token = stage.engine.submit(provision("a")).await.unwrap().token;
    let visit = stage.visit().await;
    let asked = stage.engine.stop(&token, StopScope::Any).await.unwrap().unwrap().state;
    assert!(matches!(asked, State::Stopping | State::Terminated), "{asked}");
    let task = stage.end(token).await;
    assert!(visit.context.cancel.is_cancelled());
    assert_eq!(task.state, State::Terminated);
    assert_eq!(task.outcome, Some(json!({"partly": true})));
    assert_eq!(task.reason.as_deref(), Some("stopped on request"));
    assert!(task.logs.iter().any(|line| line.message == "a stop was requested"), "{:?}", task.logs);
    // A second one changes nothing.
    assert_eq!(stage.engine.stop(&token, StopScope::Any).await.unwrap().unwrap(), task);
}

async fn a_stopped_task_ends_only_when_its_work_does(place: Place) {
    let patient = Settings { cancel_grace: PATIENCE, ..settings() };
    let mut stage = Stage::with(place, patient, Limits::default()).await;
    let stubborn = task(Operation::Provision, &["a"], json!({"stubborn": true}));
    let completes = stage.engine.submit(stubborn.clone()).await.unwrap().token;
    let visit = stage.visit().await;
    assert_eq!(stage.engine.stop(&completes, StopScope::Any).await.unwrap().unwrap().state, State::Stopping);
    visit.context.cancel.cancelled().await;
    // The same request is a new task now, and waits for the end of the stopped one.
    let again = stage.engine.submit(stubborn).await.unwrap();
    assert!(!again.deduplicated);
    assert_eq!(stage.engine.task(&completes).await.unwrap().unwrap().state, State::Stopping);
    visit.complete(json!("done already"));
    let task = stage.end(completes).await;
    assert_eq!((task.state, task.outcome), (State::Completed, Some(json!("done already"))));

    let visit = stage.visit().await;
    stage.engine.stop(&again.token, StopScope::Any).await.unwrap();
    visit.context.cancel.cancelled().await;
    visit.fail(Error::permanent("broke on the way"));
    assert_eq!(stage.end(again.token).await.state, State::Failed);
}

async fn a_stopped_task_is_not_retried(place: Place) {
    let patient = Settings { cancel_grace: PATIENCE, ..settings() };
    let mut stage = Stage::with(place, patient, Limits::default()).await;
    let token =
        stage.engine.submit(task(Operation::Provision, &["a"], json!({"stubborn": 1}))).await.unwrap().token;
    let visit = stage.visit().await;
    stage.engine.stop(&token, StopScope::Any).await.unwrap();
    visit.context.cancel.cancelled().await;
    visit.fail(Error::retryable("the bucket is busy"));
    let task = stage.end(token).await;
    assert_eq!(task.state, State::Terminated);
    assert!(task.logs.last().unwrap().message.contains("not tried again"));
}

const CUT_OFF: &str =
    "stopped: the work had not ended after the 50 ms of operations.cancel_grace and was cut off";

async fn stopped_run_that_does_not_react_is_aborted(place: Place) {
    let mut stage = Stage::new(place).await;
    let stubborn = task(Operation::Provision, &["a"], json!({"stubborn": 1}));
    let token = stage.engine.submit(stubborn).await.unwrap().token;
    let visit = stage.visit().await;
    visit.context.journal.info("so far");
    assert_eq!(stage.engine.stop(&token, StopScope::Any).await.unwrap().unwrap().state, State::Stopping);
    let task = stage.end(token).await;
    assert!(visit.act.is_closed(), "the work had ended by then");
    assert_eq!((task.state, task.outcome), (State::Terminated, None));
    assert_eq!(task.reason.as_deref(), Some("stopped on request"));
    let told: Vec<&str> = task.logs.iter().map(|line| line.message.as_str()).collect();
    assert!(told.contains(&"so far"), "{told:?}");
    assert_eq!(told.last(), Some(&CUT_OFF));
}

/// Blocks its thread for longer than the grace period and the lease, so it can be aborted only when it yields.
struct Blocker {
    begun: mpsc::UnboundedSender<()>,
    ended: Arc<std::sync::atomic::AtomicBool>,
}

#[async_trait]
impl Runner for Blocker {
    async fn run(&self, _: &ClaimedTask, _: &Context, _: &Deployments) -> Result<Value, RunError> {
        let _ = self.begun.send(());
        std::thread::sleep(Duration::from_secs(5));
        self.ended.store(true, std::sync::atomic::Ordering::SeqCst);
        std::future::pending().await
    }
}

async fn stopped_task_waits_for_work_that_cannot_be_aborted(place: Place) {
    let store = place.open(Limits::default()).await;
    let (begun, mut begins) = mpsc::unbounded_channel();
    let ended = Arc::<std::sync::atomic::AtomicBool>::default();
    let short = Settings { lease: Duration::from_secs(2), ..settings() };
    let engine = Engine::start(store, Arc::new(Blocker { begun, ended: Arc::clone(&ended) }), short);
    let token = engine.submit(provision("a")).await.unwrap().token;
    begins.recv().await.unwrap();
    engine.stop(&token, StopScope::Any).await.unwrap();
    let task = engine.wait(&token, PATIENCE).await.unwrap().unwrap();
    assert!(ended.load(std::sync::atomic::Ordering::SeqCst), "the work had ended by then");
    assert_eq!(task.state, State::Terminated);
    // The lease was renewed until then: no other process took the task.
    assert_eq!(task.logs.last().unwrap().message, CUT_OFF);
}

/// Works on a blocking thread that ignores cancellation; sends a message when it ends.
struct Threaded {
    begun: mpsc::UnboundedSender<Arc<AtomicBool>>,
    lasts: Duration,
}

#[async_trait]
impl Runner for Threaded {
    async fn run(&self, _: &ClaimedTask, _: &Context, _: &Deployments) -> Result<Value, RunError> {
        let (ended, lasts) = (Arc::<AtomicBool>::default(), self.lasts);
        let _ = self.begun.send(Arc::clone(&ended));
        landfall_adapter::blocking::run_regardless(move || {
            std::thread::sleep(lasts);
            ended.store(true, Ordering::SeqCst);
            Ok(())
        })
        .await?;
        Ok(json!(1))
    }
}

async fn a_stopped_task_ends_after_its_blocking_thread(place: Place) {
    let store = place.open(Limits::default()).await;
    let (begun, mut begins) = mpsc::unbounded_channel();
    let runner = Threaded { begun, lasts: Duration::from_millis(2500) };
    let short = Settings { lease: Duration::from_millis(900), ..settings() };
    let engine = Engine::start(store, Arc::new(runner), short);
    let token = engine.submit(provision("a")).await.unwrap().token;
    let next = engine.submit(task(Operation::Unprovision, &["a"], json!({}))).await.unwrap().token;
    let ended = begins.recv().await.unwrap();
    engine.stop(&token, StopScope::Any).await.unwrap();
    let task = engine.wait(&token, PATIENCE).await.unwrap().unwrap();
    assert!(ended.load(Ordering::SeqCst), "TERMINATED before the thread has ended");
    assert_eq!(task.state, State::Terminated);
    let told: Vec<&str> = task.logs.iter().map(|line| line.message.as_str()).collect();
    assert!(
        told.contains(&"a file operation that had begun does not end; the task ends after it"),
        "{told:?}"
    );
    assert!(
        told.iter().any(|line| line.starts_with("waited 2.") && line.ends_with("operations that had begun")),
        "{told:?}"
    );
    assert_eq!(told.last(), Some(&CUT_OFF));
    assert_eq!(engine.wait(&next, PATIENCE).await.unwrap().unwrap().state, State::Completed);
}

/// Panics on a blocking thread.
struct Panicking;

#[async_trait]
impl Runner for Panicking {
    async fn run(&self, _: &ClaimedTask, context: &Context, _: &Deployments) -> Result<Value, RunError> {
        context.blocking::<()>(|_| panic!("a bug on a blocking thread")).await?;
        Ok(json!(1))
    }
}

async fn a_panic_on_a_blocking_thread_fails_the_task(place: Place) {
    let engine = Engine::start(place.open(Limits::default()).await, Arc::new(Panicking), settings());
    let token = engine.submit(provision("a")).await.unwrap().token;
    let task = engine.wait(&token, PATIENCE).await.unwrap().unwrap();
    assert_eq!((task.state, task.attempt), (State::Failed, 1));
    let reason = "an internal error ended the operation; the administrator's log has more";
    assert_eq!(task.reason.as_deref(), Some(reason));
}

/// The process ends together with the blocked run, and no other process learns of it.
async fn a_drain_leaves_a_hanging_thread_to_its_lease(place: Place) {
    let store = place.open(Limits::default()).await;
    let (begun, mut begins) = mpsc::unbounded_channel();
    let runner = Threaded { begun, lasts: Duration::from_secs(4) };
    let engine = Engine::start(Arc::clone(&store), Arc::new(runner), settings());
    let token = engine.submit(provision("a")).await.unwrap().token;
    let ended = begins.recv().await.unwrap();
    let drained = engine.drain(Duration::from_millis(1)).await;
    assert!(!ended.load(Ordering::SeqCst), "a drain waits for a thread that hangs");
    assert_eq!(drained, Drained { handed_back: 0 });
    assert_eq!(store.state(&token).await.unwrap(), Some(State::Running), "it is not handed back");
}

async fn run_waits_for_an_earlier_run_that_lost_its_lease(place: Place) {
    let (store, _passes) = Breakable::new(&place).await;
    let (begun, mut begins) = mpsc::unbounded_channel();
    let runner = Threaded { begun, lasts: Duration::from_secs(3) };
    let quick = Settings { lease: Duration::from_millis(600), poll: Duration::from_millis(50), ..settings() };
    let engine = Engine::start(Arc::<Breakable>::clone(&store) as Arc<dyn Store>, Arc::new(runner), quick);
    store.break_at(Point::Heartbeat);
    let token = engine.submit(provision("a")).await.unwrap().token;
    let first = begins.recv().await.unwrap();
    // The only process takes the task up again when its lease has expired.
    while engine.task(&token).await.unwrap().unwrap().attempt < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    store.mend();
    let second = begins.recv().await.unwrap();
    assert!(first.load(Ordering::SeqCst), "two runs of a component at once");
    let task = engine.wait(&token, PATIENCE).await.unwrap().unwrap();
    assert_eq!(task.state, State::Completed);
    assert!(second.load(Ordering::SeqCst));
}

async fn stop_during_a_drain_wins(place: Place) {
    for stop_first in [true, false] {
        let patient = Settings { cancel_grace: Duration::from_secs(2), ..settings() };
        let mut stage = Stage::with(place.another(), patient, Limits::default()).await;
        let stubborn = task(Operation::Provision, &["a"], json!({"stubborn": 1}));
        let token = stage.engine.submit(stubborn).await.unwrap().token;
        let visit = stage.visit().await;
        if stop_first {
            stage.engine.stop(&token, StopScope::Any).await.unwrap();
        }
        let drain = stage.engine.drain(Duration::from_millis(1));
        let (drained, ()) = tokio::join!(drain, async {
            visit.context.cancel.cancelled().await;
            stage.engine.stop(&token, StopScope::Any).await.unwrap();
        });
        assert_eq!(drained, Drained { handed_back: 0 });
        let task = stage.engine.task(&token).await.unwrap().unwrap();
        assert_eq!(task.state, State::Terminated);
        let told = &task.logs.last().unwrap().message;
        let cut_off =
            "stopped: the work had not ended after the 2 s of operations.cancel_grace and was cut off";
        assert_eq!(told, cut_off, "stop first: {stop_first}");
    }
}

async fn a_run_that_takes_too_long_fails(place: Place) {
    let limited = Settings { run_limit: Duration::from_millis(20), ..settings() };
    let mut stage = Stage::with(place, limited, Limits::default()).await;
    let obedient = stage.engine.submit(provision("a")).await.unwrap().token;
    let stubborn =
        stage.engine.submit(task(Operation::Provision, &["b"], json!({"stubborn": 1}))).await.unwrap().token;
    let _visits = (stage.visit().await, stage.visit().await);
    let task = stage.end(obedient).await;
    assert_eq!((task.state, task.outcome), (State::Failed, Some(json!({"partly": true}))));
    assert_eq!(task.reason.as_deref(), Some("the run exceeded the 20 ms of operations.run_limit"));
    let task = stage.end(stubborn).await;
    assert_eq!((task.state, task.outcome), (State::Failed, None));
    assert!(task.reason.unwrap().contains("did not end after it was cancelled"));
}

async fn operations_have_time_limits_of_their_own(place: Place) {
    let own = [(Operation::Provision, Duration::from_millis(20))];
    let limited = Settings { run_limits: own.into(), ..settings() };
    let mut stage = Stage::with(place, limited, Limits::default()).await;
    let short = stage.engine.submit(provision("a")).await.unwrap().token;
    let _visit = stage.visit().await;
    let long = stage.engine.submit(task(Operation::Unprovision, &["b"], json!(1))).await.unwrap().token;
    let visit = stage.visit().await;
    let task = stage.end(short).await;
    assert_eq!(task.state, State::Failed);
    assert_eq!(task.reason.as_deref(), Some("the run exceeded the 20 ms of operations.run_limits.provision"));
    assert!(!visit.context.cancel.is_cancelled(), "the other one has more time");
    visit.complete(json!(1));
    assert_eq!(stage.end(long).await.state, State::Completed);
}

async fn log_lines_appear_while_a_task_runs(place: Place) {
    let mut stage = Stage::with(place, settings(), Limits { max_log_lines: 3, ..Limits::default() }).await;
    let token = stage.engine.submit(provision("a")).await.unwrap().token;
    let visit = stage.visit().await;
    for expected in 1..=2 {
        visit.context.journal.info(format!("line {expected}"));
        let seen = async {
            loop {
                let logs = stage.engine.task(&token).await.unwrap().unwrap().logs;
                if logs.len() == expected {
                    break logs;
                }
                assert!(logs.len() < expected);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let logs = tokio::time::timeout(PATIENCE, seen).await.unwrap();
        assert_eq!(logs.last().unwrap().message, format!("line {expected}"));
    }
    for n in 3..10 {
        visit.context.journal.info(format!("line {n}"));
    }
    visit.fail(Error::permanent("it broke"));
    let texts: Vec<String> = stage.end(token).await.logs.into_iter().map(|line| line.message).collect();
    assert_eq!(texts, ["line 1", "line 2", "line 3", "further lines are not kept", "it broke"]);
}

async fn validation_does_not_wait_for_provisioning(place: Place) {
    let mut stage = Stage::with(place, Settings { concurrency: 1, ..settings() }, Limits::default()).await;
    stage.engine.submit(provision("a")).await.unwrap();
    stage.engine.submit(provision("b")).await.unwrap();
    let _busy = stage.visit().await;
    for operation in [Operation::Validate, Operation::Reverse] {
        let token = stage.engine.submit(task(operation, &[], json!(1))).await.unwrap().token;
        stage.visit().await.complete(json!("valid"));
        assert_eq!(stage.end(token).await.state, State::Completed);
    }
}

async fn full_queue_refuses_with_a_reason(place: Place) {
    let stage = Stage::with(
        place,
        Settings { concurrency: 1, ..settings() },
        Limits { max_queued: 0, ..Limits::default() },
    )
    .await;
    let error = stage.engine.submit(provision("a")).await.unwrap_err();
    assert_eq!(error.kind(), &landfall_adapter::error::Kind::Overloaded);
    let mut odd = provision("a");
    odd.components = vec![ComponentKey::new("a\0", "dev")];
    let error = stage.engine.submit(odd).await.unwrap_err();
    assert!(matches!(error.kind(), landfall_adapter::error::Kind::Invalid(_)));
}

async fn sixty_four_callers_with_one_request_get_one_token(place: Place) {
    let mut stage = Stage::new(place).await;
    let engine = Arc::new(stage.engine);
    let callers: Vec<_> = (0..64)
        .map(|_| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move { engine.submit(provision("a")).await.unwrap() })
        })
        .collect();
    let mut submitted = Vec::new();
    for caller in callers {
        submitted.push(caller.await.unwrap());
    }
    assert_eq!(submitted.iter().filter(|one| !one.deduplicated).count(), 1);
    assert!(submitted.iter().all(|one| one.token == submitted[0].token));
    let waits = submitted.iter().map(|one| engine.wait(&one.token, PATIENCE));
    let visit = stage.visits.recv().await.unwrap();
    let (ends, ()) = tokio::join!(futures::future::join_all(waits), async { visit.complete(json!(1)) });
    assert!(ends.into_iter().all(|end| end.unwrap().unwrap().state == State::Completed));
}

async fn wait_returns_at_its_timeout(place: Place) {
    let mut stage = Stage::new(place).await;
    let token = stage.engine.submit(provision("a")).await.unwrap().token;
    let visit = stage.visit().await;
    let task = stage.engine.wait(&token, Duration::from_millis(1)).await.unwrap().unwrap();
    assert_eq!(task.state, State::Running);
    assert_eq!(stage.engine.wait(&token, Duration::ZERO).await.unwrap().unwrap().state, State::Running);
    assert_eq!(stage.engine.wait(&Token::random(), Duration::MAX).await.unwrap(), None);
    visit.complete(json!(1));
    assert_eq!(stage.engine.wait(&token, Duration::MAX).await.unwrap().unwrap().state, State::Completed);
}

async fn run_records_deployments_of_its_components_only(place: Place) {
    let mut stage = Stage::new(place).await;
    let token = stage.engine.submit(provision("a")).await.unwrap().token;
    let visit = stage.visit().await;
    let deployment = |component: &str| Deployment {
        key: ComponentKey::new(component, "dev"),
        target: "LOCAL_LAKE".to_owned(),
        status: DeploymentStatus::Provisioned,
        access: None,
        specific: landfall_adapter::descriptor::Object::new(),
        kind: None,
        product: None,
        info: None,
        updated_at: chrono::Utc::now(),
    };
    let deployments = visit.deployments.clone();
    deployments.check_lease().unwrap();
    deployments.put(&deployment("a")).await.unwrap();
    assert_eq!(deployments.get(&deployment("a").key).await.unwrap().unwrap().target, "LOCAL_LAKE");
    let foreign = deployments.put(&deployment("b")).await.unwrap_err();
    assert_eq!(foreign.kind(), &landfall_adapter::error::Kind::Cancelled);
    visit.complete(json!(1));
    stage.end(token).await;
    deployments.put(&deployment("a")).await.unwrap_err();
    assert!(stage.engine.deployment(&deployment("a").key).await.unwrap().is_some());
}

async fn drain_waits_for_runs_and_claims_no_more(place: Place) {
    let mut stage = Stage::with(place, Settings { concurrency: 1, ..settings() }, Limits::default()).await;
    let running = stage.engine.submit(provision("a")).await.unwrap().token;
    let queued = stage.engine.submit(provision("b")).await.unwrap().token;
    let visit = stage.visit().await;
    let Stage { engine, mut visits, store, .. } = stage;
    let drained = tokio::join!(engine.drain(PATIENCE), async {
        // Accepted, for the next process.
        engine.submit(provision("c")).await.unwrap();
        visit.complete(json!(1));
    })
    .0;
    assert_eq!(drained, Drained { handed_back: 0 });
    assert_eq!(store.state(&running).await.unwrap(), Some(State::Completed));
    assert_eq!(store.state(&queued).await.unwrap(), Some(State::Queued));
    assert!(visits.try_recv().is_err());
}

async fn drain_returns_unfinished_runs_to_the_queue(place: Place) {
    let mut stage = Stage::new(place).await;
    let obedient = stage.engine.submit(provision("a")).await.unwrap().token;
    let stubborn =
        stage.engine.submit(task(Operation::Provision, &["b"], json!({"stubborn": 1}))).await.unwrap().token;
    let _visits = (stage.visit().await, stage.visit().await);
    assert_eq!(stage.engine.drain(Duration::from_millis(1)).await, Drained { handed_back: 2 });
    let Stage { engine, store, place, .. } = stage;
    drop(engine);
    store.close().await;
    let mut stage = Stage::with(place, settings(), Limits::default()).await;
    for _ in 0..2 {
        let visit = stage.visit().await;
        assert_eq!((visit.task.attempt, visit.task.crashes), (1, 0));
        visit.complete(json!(1));
    }
    for token in [obedient, stubborn] {
        let task = stage.end(token).await;
        assert_eq!(task.state, State::Completed);
        assert!(task.logs[0].message.starts_with("handed over"), "{:?}", task.logs);
    }
}

/// Simulates a process that is killed: it sends nothing and writes nothing.
async fn kill(stage: Stage) -> Place {
    let Stage { engine, store, place, .. } = stage;
    drop(engine);
    store.close().await;
    place
}

async fn restart_resumes_accepted_tasks(place: Place) {
    let mortal = place.mortal();
    let mut stage = Stage::with(place, Settings { concurrency: 1, ..mortal }, Limits::default()).await;
    let mut tokens = Vec::new();
    for name in ["a", "b", "c"] {
        tokens.push(stage.engine.submit(provision(name)).await.unwrap().token);
    }
    let stopped = stage.engine.submit(provision("d")).await.unwrap().token;
    let visit = stage.visit().await;
    stage.engine.stop(&stopped, StopScope::Any).await.unwrap();
    let place = kill(stage).await;
    // The lease that the killed run held is no longer valid.
    visit.deployments.get(&ComponentKey::new("a", "dev")).await.unwrap_err();

    let mut stage = Stage::with(place, settings(), Limits::default()).await;
    let mut begun = Vec::new();
    for _ in 0..3 {
        let visit = stage.visit().await;
        begun.push((visit.task.token, visit.task.attempt));
        visit.complete(json!(1));
    }
    begun.sort();
    let mut expected = vec![(tokens[0], 2), (tokens[1], 1), (tokens[2], 1)];
    expected.sort();
    assert_eq!(begun, expected);
    for token in tokens {
        assert_eq!(stage.end(token).await.state, State::Completed);
    }
    assert_eq!(stage.engine.task(&stopped).await.unwrap().unwrap().state, State::Terminated);
}

async fn poisoned_task_fails_and_others_complete(place: Place) {
    let limits = Limits { max_crashes: 4, ..Limits::default() };
    let mortal = place.mortal();
    let mut stage = Stage::with(place, mortal.clone(), limits.clone()).await;
    let poison = stage.engine.submit(provision("poison")).await.unwrap().token;
    let mut neighbours = Vec::new();
    for n in 0..6 {
        neighbours.push(stage.engine.submit(provision(&format!("n{n}"))).await.unwrap().token);
    }
    // Whenever the poisoned task runs, the process dies before another task makes progress.
    for _ in 0..limits.max_crashes {
        while stage.visit().await.task.token != poison {}
        let place = kill(stage).await;
        stage = Stage::with(place, mortal.clone(), limits.clone()).await;
    }
    let Stage { engine, mut visits, .. } = stage;
    let drive = tokio::spawn(async move {
        while let Some(visit) = visits.recv().await {
            assert_ne!(visit.task.token, poison);
            visit.complete(json!(1));
        }
    });
    let task = engine.wait(&poison, PATIENCE).await.unwrap().unwrap();
    assert_eq!(task.state, State::Failed);
    assert_eq!(task.reason.as_deref(), Some("given up after 4 interrupted runs"));
    for token in neighbours {
        let task = engine.wait(&token, PATIENCE).await.unwrap().unwrap();
        assert_eq!(task.state, State::Completed, "{task:?}");
    }
    drop(engine);
    drive.await.unwrap();
}

/// Does at once what the payload says, and reports two simultaneous runs of one component.
#[derive(Default)]
struct Referee {
    busy: std::sync::Mutex<std::collections::HashMap<ComponentKey, Token>>,
    /// The tasks that began, by component, each once.
    order: std::sync::Mutex<std::collections::HashMap<ComponentKey, Vec<u64>>>,
    fouls: std::sync::Mutex<Vec<String>>,
}

#[async_trait]
impl Runner for Referee {
    async fn run(&self, task: &ClaimedTask, _: &Context, _: &Deployments) -> Result<Value, RunError> {
        let number = task.payload["number"].as_u64().unwrap();
        for key in &task.components {
            if let Some(other) = self.busy.lock().unwrap().insert(key.clone(), task.token) {
                self.fouls.lock().unwrap().push(format!("{key}: {} and {other} at once", task.token));
            }
            let mut order = self.order.lock().unwrap();
            let begun = order.entry(key.clone()).or_default();
            if begun.last() != Some(&number) {
                begun.push(number);
            }
        }
        for _ in 0..task.payload["yields"].as_u64().unwrap() {
            tokio::task::yield_now().await;
        }
        for key in &task.components {
            self.busy.lock().unwrap().remove(key);
        }
        let failures = task.payload["failures"].as_u64().unwrap();
        match task.payload["then"].as_str().unwrap() {
            _ if u64::from(task.attempt) <= failures => Err(Error::retryable("not yet").into()),
            "panic" => panic!("as told"),
            "fail" => Err(Error::permanent("as told").into()),
            _ => Ok(task.payload["number"].clone()),
        }
    }
}

async fn random_load_runs_each_component_alone_and_in_order(place: Place) {
    for seed in 0..3 {
        let place = place.another();
        let store = place.open(Limits::default()).await;
        let referee = Arc::new(Referee::default());
        let quick = Settings { backoff_cap: Duration::from_millis(2), ..settings() };
        let engine = Engine::start(store, Arc::<Referee>::clone(&referee), quick);
        let mut dice = suite::Dice(seed);
        let mut expected: std::collections::HashMap<ComponentKey, Vec<u64>> = Default::default();
        let mut submitted = Vec::new();
        for number in 0..150u64 {
            let mut names: Vec<String> =
                (0..1 + dice.below(3)).map(|_| format!("c{}", dice.below(6))).collect();
            names.sort();
            names.dedup();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let then = ["complete", "complete", "complete", "fail", "panic"][dice.below(5)];
            let payload = json!({
                "number": number, "then": then, "failures": dice.below(3), "yields": dice.below(50),
            });
            let new = task(Operation::Provision, &names, payload);
            for key in new.distinct_components() {
                expected.entry(key).or_default().push(number);
            }
            submitted.push((engine.submit(new).await.unwrap().token, then));
        }
        for (token, then) in submitted {
            let task = engine.wait(&token, PATIENCE).await.unwrap().unwrap();
            let state = if then == "complete" { State::Completed } else { State::Failed };
            assert_eq!(task.state, state, "seed {seed}: {task:?}");
        }
        assert_eq!(*referee.fouls.lock().unwrap(), Vec::<String>::new(), "seed {seed}");
        assert_eq!(*referee.order.lock().unwrap(), expected, "seed {seed}");
        assert_eq!(engine.counts().await.unwrap(), Counts::default());
    }
}

/// The points at which a store can be made to wait or to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Point {
    /// A claim is committed, and the caller has no answer yet.
    Claimed,
    /// Before a heartbeat.
    Heartbeat,
    /// Before the end of a run is written.
    Settle,
    /// The end is committed, and the caller has no answer yet.
    Settled,
    /// Before log lines are written.
    AppendLogs,
    /// Before a claim.
    Claim,
}

/// Reports an arrival, and waits for its release.
type Gate = (oneshot::Sender<()>, oneshot::Receiver<()>);

/// A store with breakpoints.
struct Breakable {
    inner: Arc<dyn Store>,
    broken: std::sync::Mutex<std::collections::HashSet<Point>>,
    gates: std::sync::Mutex<std::collections::HashMap<Point, Gate>>,
    passed: mpsc::UnboundedSender<Point>,
    /// Locked for reading while a claim is in progress.
    claiming: tokio::sync::RwLock<()>,
}

impl Breakable {
    async fn new(place: &Place) -> (Arc<Self>, mpsc::UnboundedReceiver<Point>) {
        let inner = place.open(Limits::default()).await;
        let (passed, passes) = mpsc::unbounded_channel();
        let (broken, gates, claiming) = Default::default();
        let store = Self { inner, broken, gates, passed, claiming };
        (Arc::new(store), passes)
    }

    /// The next caller that arrives there waits. The first half of the result reports its arrival, the second
    /// releases it.
    fn hold(&self, point: Point) -> (oneshot::Receiver<()>, oneshot::Sender<()>) {
        let (here, arrived) = oneshot::channel();
        let (go, released) = oneshot::channel();
        self.gates.lock().unwrap().insert(point, (here, released));
        (arrived, go)
    }

    fn break_at(&self, point: Point) {
        self.broken.lock().unwrap().insert(point);
    }

    fn mend(&self) {
        self.broken.lock().unwrap().clear();
    }

    async fn pass(&self, point: Point) -> landfall_adapter::error::Result<()> {
        let gate = self.gates.lock().unwrap().remove(&point);
        if let Some((here, released)) = gate {
            let _ = here.send(());
            let _ = released.await;
        }
        let _ = self.passed.send(point);
        if self.broken.lock().unwrap().contains(&point) {
            return Err(Error::retryable("as told"));
        }
        Ok(())
    }
}

#[async_trait]
impl Queue for Breakable {
    async fn submit(&self, submission: Submission) -> landfall_adapter::error::Result<Submitted> {
        self.inner.submit(submission).await
    }

    async fn task(&self, token: &Token) -> landfall_adapter::error::Result<Option<Task>> {
        self.inner.task(token).await
    }

    async fn state(&self, token: &Token) -> landfall_adapter::error::Result<Option<State>> {
        self.inner.state(token).await
    }

    async fn claim(&self, request: &ClaimRequest) -> landfall_adapter::error::Result<Claims> {
        let _under_way = self.claiming.read().await;
        self.pass(Point::Claim).await?;
        let claims = self.inner.claim(request).await?;
        if !claims.tasks.is_empty() {
            self.pass(Point::Claimed).await?;
        }
        Ok(claims)
    }

    async fn heartbeat(
        &self,
        lease: &Lease,
        extension: Duration,
    ) -> landfall_adapter::error::Result<Option<State>> {
        self.pass(Point::Heartbeat).await?;
        self.inner.heartbeat(lease, extension).await
    }

    async fn append_logs(
        &self,
        lease: &Lease,
        lines: Vec<landfall_adapter::LogLine>,
    ) -> landfall_adapter::error::Result<Option<State>> {
        self.pass(Point::AppendLogs).await?;
        self.inner.append_logs(lease, lines).await
    }

    async fn settle(
        &self,
        lease: &Lease,
        settlement: Settlement,
    ) -> landfall_adapter::error::Result<Option<State>> {
        self.pass(Point::Settle).await?;
        let settled = self.inner.settle(lease, settlement).await;
        self.pass(Point::Settled).await?;
        settled
    }

    async fn request_stop(
        &self,
        token: &Token,
        scope: StopScope,
    ) -> landfall_adapter::error::Result<Option<State>> {
        self.inner.request_stop(token, scope).await
    }

    async fn expire_leases(&self) -> landfall_adapter::error::Result<Vec<Expired>> {
        self.inner.expire_leases().await
    }

    async fn counts(&self) -> landfall_adapter::error::Result<Counts> {
        self.inner.counts().await
    }

    async fn due(&self, worker: &str) -> landfall_adapter::error::Result<Vec<Due>> {
        self.inner.due(worker).await
    }

    fn hints(&self) -> tokio::sync::broadcast::Receiver<Hint> {
        self.inner.hints()
    }
}

#[async_trait]
impl Inventory for Breakable {
    async fn deployment(&self, key: &ComponentKey) -> landfall_adapter::error::Result<Option<Deployment>> {
        self.inner.deployment(key).await
    }

    async fn deployments(&self, components: &[String]) -> landfall_adapter::error::Result<Vec<Deployment>> {
        self.inner.deployments(components).await
    }

    async fn put_deployment(
        &self,
        lease: &Lease,
        deployment: &Deployment,
    ) -> landfall_adapter::error::Result<bool> {
        self.inner.put_deployment(lease, deployment).await
    }

    async fn memory(&self, key: &ComponentKey) -> landfall_adapter::error::Result<Option<Value>> {
        self.inner.memory(key).await
    }

    async fn remember(
        &self,
        lease: &Lease,
        key: &ComponentKey,
        memory: Option<&Value>,
    ) -> landfall_adapter::error::Result<bool> {
        self.inner.remember(lease, key, memory).await
    }
}

#[async_trait]
impl Instances for Breakable {
    async fn instances(&self) -> landfall_adapter::error::Result<Arc<[Instance]>> {
        self.inner.instances().await
    }

    async fn edit_instance(&self, edit: Edit) -> landfall_adapter::error::Result<Option<Instance>> {
        self.inner.edit_instance(edit).await
    }

    async fn seed_instances(&self, seeds: Vec<Attributes>) -> landfall_adapter::error::Result<usize> {
        self.inner.seed_instances(seeds).await
    }
}

#[async_trait]
impl Store for Breakable {
    async fn check(&self) -> landfall_adapter::error::Result<()> {
        self.inner.check().await
    }

    async fn purge(&self) -> landfall_adapter::error::Result<u64> {
        self.inner.purge().await
    }

    async fn tidy(&self) -> landfall_adapter::error::Result<bool> {
        self.inner.tidy().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

async fn breakable(
    place: Place,
    settings: Settings,
) -> (Stage, Arc<Breakable>, mpsc::UnboundedReceiver<Point>) {
    let (breakable, passes) = Breakable::new(&place).await;
    let (sender, visits) = mpsc::unbounded_channel();
    let store: Arc<dyn Store> = Arc::<Breakable>::clone(&breakable);
    let engine = Engine::start(Arc::clone(&store), Arc::new(Puppet(sender)), settings);
    (Stage { engine, visits, store, place }, breakable, passes)
}

async fn stop_between_claim_and_run_is_effective(place: Place) {
    let (mut stage, store, _passes) = breakable(place, settings()).await;
    let (arrived, go) = store.hold(Point::Claimed);
    let token = stage.engine.submit(provision("a")).await.unwrap().token;
    arrived.await.unwrap();
    assert_eq!(stage.engine.stop(&token, StopScope::Any).await.unwrap().unwrap().state, State::Stopping);
    go.send(()).unwrap();
    assert!(stage.visit().await.context.cancel.is_cancelled());
    assert_eq!(stage.end(token).await.state, State::Terminated);
}

async fn late_stop_returns_the_result(place: Place) {
    let (mut stage, store, _passes) = breakable(place, settings()).await;
    let token = stage.engine.submit(provision("a")).await.unwrap().token;
    let (arrived, go) = store.hold(Point::Settle);
    stage.visit().await.complete(json!(1));
    arrived.await.unwrap();
    // The work is done, and its end is not written yet.
    assert_eq!(stage.engine.stop(&token, StopScope::Any).await.unwrap().unwrap().state, State::Stopping);
    go.send(()).unwrap();
    assert_eq!(stage.end(token).await.state, State::Completed);
    assert_eq!(stage.engine.stop(&token, StopScope::Any).await.unwrap().unwrap().state, State::Completed);
}

/// An end is committed before the worker knows of it: tasks that waited for it may begin then.
async fn next_run_begins_before_the_end_is_confirmed(place: Place) {
    let (mut stage, store, _passes) = breakable(place, settings()).await;
    let first = stage.engine.submit(provision("a")).await.unwrap().token;
    let (arrived, go) = store.hold(Point::Settled);
    stage.visit().await.complete(json!(1));
    arrived.await.unwrap();
    let request = task(Operation::Unprovision, &["a"], json!({}));
    let second = stage.engine.submit(request).await.unwrap().token;
    let visit = tokio::time::timeout(Duration::from_secs(10), stage.visit()).await.unwrap();
    assert_eq!(visit.task.token, second);
    go.send(()).unwrap();
    visit.complete(json!(2));
    let ended = stage.end(second).await;
    assert_eq!(ended.logs.iter().map(|line| line.message.as_str()).collect::<Vec<_>>(), [""; 0]);
    assert_eq!(stage.end(first).await.state, State::Completed);
}

async fn lane_without_progress_is_reported(place: Place) {
    let quick = Settings { lease: Duration::from_millis(300), poll: Duration::from_millis(20), ..settings() };
    let (mut stage, store, _passes) = breakable(place, quick).await;
    let health = stage.engine.health().await;
    assert_eq!((health.store, health.stuck), (Ok(Counts::default()), vec![]));
    store.break_at(Point::Claim);
    // A claim in progress may still take the task.
    drop(store.claiming.write().await);
    let token = stage.engine.submit(provision("a")).await.unwrap().token;
    let end = std::time::Instant::now() + PATIENCE;
    let stuck = loop {
        let health = stage.engine.health().await;
        assert_eq!(health.store.unwrap().queued, 1);
        if let Some(stuck) = health.stuck.first() {
            break *stuck;
        }
        assert!(std::time::Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((stuck.lane, stuck.known), (Lane::Change, true));
    assert!(stuck.due_for >= Duration::from_millis(600), "{stuck:?}");
    store.mend();
    stage.visit().await.complete(json!(1));
    stage.end(token).await;
    while !stage.engine.health().await.stuck.is_empty() {
        assert!(std::time::Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn a_worker_without_a_heartbeat_ends_before_its_lease_does(place: Place) {
    let short = Settings { lease: Duration::from_millis(600), ..settings() };
    let (mut stage, store, mut passes) = breakable(place, short).await;
    store.break_at(Point::Heartbeat);
    let before = std::time::Instant::now();
    let token =
        stage.engine.submit(task(Operation::Provision, &["a"], json!({"stubborn": 1}))).await.unwrap().token;
    let visit = stage.visit().await;
    visit.deployments.check_lease().unwrap();
    visit.context.cancel.cancelled().await;
    let (asked, deployments) = (before.elapsed(), visit.deployments.clone());
    assert!(asked >= Duration::from_millis(400), "{asked:?}");
    // Aborted at the end of the lease, whether it reacts to cancellation or not.
    let mut act = visit.act;
    act.closed().await;
    deployments.check_lease().unwrap_err();
    while passes.try_recv().is_ok_and(|point| point != Point::Settle) {}
    assert!(passes.is_empty(), "the end of a lost run is not written");
    store.mend();

    // The next lease is renewed beyond its first length.
    let visit = stage.visit().await;
    assert_eq!((visit.task.token, visit.task.crashes), (token, 1));
    let mut beats = 0;
    while beats < 4 {
        beats += usize::from(passes.recv().await.unwrap() == Point::Heartbeat);
    }
    visit.deployments.check_lease().unwrap();
    visit.complete(json!(1));
    assert_eq!(stage.end(token).await.state, State::Completed);
}

async fn store_outage_loses_nothing(place: Place) {
    let quick = Settings { poll: Duration::from_millis(10), ..settings() };
    let (mut stage, store, mut passes) = breakable(place, quick).await;
    let mut passed = async |point| while passes.recv().await.unwrap() != point {};
    store.break_at(Point::Claim);
    let token = stage.engine.submit(provision("a")).await.unwrap().token;
    passed(Point::Claim).await;
    store.mend();
    let visit = stage.visit().await;
    store.break_at(Point::AppendLogs);
    store.break_at(Point::Settle);
    visit.context.journal.info("kept");
    passed(Point::AppendLogs).await;
    visit.complete(json!(1));
    passed(Point::Settle).await;
    assert_eq!(stage.engine.task(&token).await.unwrap().unwrap().state, State::Running);
    store.mend();
    let task = stage.end(token).await;
    assert_eq!(task.state, State::Completed);
    assert_eq!(task.logs.iter().filter(|line| line.message == "kept").count(), 1);
}

async fn a_claim_whose_answer_is_lost_runs_when_its_lease_ends(place: Place) {
    let short = Settings { lease: Duration::from_millis(100), poll: Duration::from_millis(10), ..settings() };
    let (mut stage, store, _passes) = breakable(place, short).await;
    store.break_at(Point::Claimed);
    let (arrived, go) = store.hold(Point::Claimed);
    let token = stage.engine.submit(provision("a")).await.unwrap().token;
    arrived.await.unwrap();
    go.send(()).unwrap();
    while stage.engine.counts().await.unwrap().queued == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    store.mend();
    stage.visit().await.complete(json!(1));
    assert_eq!(stage.end(token).await.state, State::Completed);
}

async fn heartbeat_during_the_end_of_a_run_is_harmless(place: Place) {
    let short = Settings { lease: Duration::from_millis(300), ..settings() };
    let (mut stage, store, mut passes) = breakable(place, short).await;
    stage.engine.submit(provision("a")).await.unwrap();
    let _visit = stage.visit().await;
    let (arrived, go) = store.hold(Point::Settled);
    let drained = tokio::join!(stage.engine.drain(Duration::from_millis(1)), async {
        arrived.await.unwrap();
        while passes.try_recv().is_ok() {}
        while passes.recv().await.unwrap() != Point::Heartbeat {}
        // The answer that the lease is gone comes before the end of the run.
        tokio::time::sleep(Duration::from_millis(30)).await;
        go.send(()).unwrap();
    })
    .0;
    assert_eq!(drained, Drained { handed_back: 1 });
}

/// The other half of [`kill_minus_nine_loses_nothing`]: a process that accepts until it is killed. Started alone, it
/// has no store and does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_process_accepts_until_killed() {
    use std::io::Write;
    let Ok(path) = std::env::var("LANDFALL_TEST_STORE") else { return };
    let store = Arc::new(SqliteStore::open(&path, Limits::default()).await.unwrap());
    let engine = Engine::start(store, Arc::new(Referee::default()), settings());
    for number in 0u64.. {
        let payload = json!({
            "number": number, "then": "complete", "failures": 0, "yields": 10, "pid": std::process::id(),
        });
        let new = task(Operation::Provision, &[&format!("c{}", number % 5)], payload);
        let token = engine.submit(new).await.unwrap().token;
        let mut out = std::io::stdout().lock();
        writeln!(out, "ACCEPTED {token}").unwrap();
        out.flush().unwrap();
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_minus_nine_loses_nothing() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("landfall.db").to_str().unwrap().to_owned();
    let mut accepted = Vec::new();
    for round in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::child_process_accepts_until_killed", "--nocapture"])
            .env("LANDFALL_TEST_STORE", &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let wanted = accepted.len() + 20 + round;
        while accepted.len() < wanted {
            let line = lines.next().expect("the process ended by itself").unwrap();
            if let Some((_, token)) = line.split_once("ACCEPTED ") {
                accepted.push(token.parse::<Token>().unwrap());
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // The requests that it still answered were accepted, too.
        for line in lines.map_while(Result::ok) {
            if let Some(Ok(token)) = line.split_once("ACCEPTED ").map(|(_, token)| token.parse::<Token>()) {
                accepted.push(token);
            }
        }
    }
    let store = Arc::new(SqliteStore::open(&path, Limits::default()).await.unwrap());
    let referee = Arc::new(Referee::default());
    let engine = Engine::start(store, Arc::<Referee>::clone(&referee), settings());
    for token in accepted {
        let task = engine.wait(&token, PATIENCE).await.unwrap().expect("an accepted task is gone");
        assert_eq!(task.state, State::Completed, "{task:?}");
    }
    assert_eq!(*referee.fouls.lock().unwrap(), Vec::<String>::new());
}
