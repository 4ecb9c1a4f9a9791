//! The engine on the embedded store, with runs that a test leads by the hand.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};

use super::sqlite::SqliteStore;
use super::*;
use crate::error::Error;
use crate::technology::Context;

/// No test waits for anything longer than this.
const PATIENCE: Duration = Duration::from_secs(30);

fn settings() -> Settings {
    Settings {
        backoff_base: Duration::from_millis(20),
        backoff_cap: Duration::from_millis(50),
        cancel_grace: Duration::from_millis(50),
        ..Settings::default()
    }
}

/// A runner that asks the test what to do.
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
    folder: Arc<TempDir>,
}

impl Stage {
    async fn new() -> Self {
        Self::with(settings(), Limits::default()).await
    }

    async fn with(settings: Settings, limits: Limits) -> Self {
        Self::open(Arc::new(TempDir::new().unwrap()), settings, limits).await
    }

    async fn open(folder: Arc<TempDir>, settings: Settings, limits: Limits) -> Self {
        let path = folder.path().join("landfall.db");
        let store: Arc<dyn Store> =
            Arc::new(SqliteStore::open(path.to_str().unwrap(), limits).await.unwrap());
        let (sender, visits) = mpsc::unbounded_channel();
        let engine = Engine::start(Arc::clone(&store), Arc::new(Puppet(sender)), settings);
        Self { engine, visits, store, folder }
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
        fingerprint: payload.to_string(),
        payload,
        max_attempts: None,
    }
}

fn provision(component: &str) -> NewTask {
    task(Operation::Provision, &[component], json!({"for": component}))
}

#[tokio::test]
async fn a_task_runs_and_completes() {
    let mut stage = Stage::new().await;
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
