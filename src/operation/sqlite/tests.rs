//! The suite of all stores, and what only this one promises.

use std::any::Any;

use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;

use super::*;
use crate::error::Kind;
use crate::operation::suite::store_suite;
use crate::operation::{Ending, Lane, NewTask};

/// In memory where there is such a place: the suite asks what is written, not how long a disk takes.
fn folder() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

fn location(folder: &TempDir) -> String {
    folder.path().join("nested/landfall.db").to_str().unwrap().to_owned()
}

async fn fresh(limits: Limits) -> (Arc<dyn Store>, Box<dyn Any>) {
    let folder = folder();
    let store = SqliteStore::open(&location(&folder), limits).await.unwrap();
    (Arc::new(store), Box::new(folder))
}

store_suite!(fresh);

fn submission(component: &str) -> Submission {
    let task = NewTask {
        operation: Operation::Provision,
        components: vec![ComponentKey::new(component, "dev")],
        targets: Vec::new(),
        fingerprint: "f".to_owned(),
        payload: json!({"private": 1}),
        max_attempts: None,
    };
    Submission { token: Token::random(), task, max_attempts: 5 }
}

async fn claim(store: &SqliteStore) -> Option<super::super::ClaimedTask> {
    let request = ClaimRequest {
        lane: Lane::Change,
        worker: "w".to_owned(),
        lease: Duration::from_secs(3600),
        limit: 1,
    };
    store.claim(&request).await.unwrap().tasks.pop()
}

#[tokio::test]
async fn one_process_at_a_time_and_the_error_names_the_lock() {
    let folder = folder();
    let first = SqliteStore::open(&location(&folder), Limits::default()).await.unwrap();
    let error = SqliteStore::open(&location(&folder), Limits::default()).await.err().unwrap();
    assert_eq!(error.kind(), &Kind::Conflict);
    assert!(error.to_string().contains("landfall.db.lock"), "{error}");
    first.close().await;
    SqliteStore::open(&format!("sqlite://{}", location(&folder)), Limits::default()).await.unwrap();
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let folder = folder();
    let store = SqliteStore::open(&location(&folder), Limits::default()).await.unwrap();
    store.close().await;
    store.close().await;
    assert_eq!(store.submit(submission("a")).await.unwrap_err().kind(), &Kind::Retryable);
    assert_eq!(store.state(&Token::random()).await.unwrap_err().kind(), &Kind::Retryable);
}

#[tokio::test]
async fn locations_that_are_no_file_are_refused() {
    for location in ["", "sqlite://", "sqlite::memory:", "sqlite://x?mode=rwc"] {
        let error = SqliteStore::open(location, Limits::default()).await.err().unwrap();
        assert_eq!(error.kind(), &Kind::Permanent, "{location}");
    }
    let folder = folder();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let below_a_file = folder.path().join("file/landfall.db");
    let error = SqliteStore::open(below_a_file.to_str().unwrap(), Limits::default()).await.err().unwrap();
    assert_eq!(error.kind(), &Kind::Permanent);
}

#[tokio::test]
async fn a_file_of_another_version_is_refused() {
    let folder = folder();
    let store = SqliteStore::open(&location(&folder), Limits::default()).await.unwrap();
    store.close().await;
    let mut connection = SqliteConnectOptions::new().filename(location(&folder)).connect().await.unwrap();
    sqlx::query("INSERT INTO _sqlx_migrations SELECT 999, description, installed_on, success, checksum, 0 FROM _sqlx_migrations LIMIT 1")
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    let error = SqliteStore::open(&location(&folder), Limits::default()).await.err().unwrap();
    assert!(error.to_string().contains("another version"), "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn the_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let store = SqliteStore::open(&location(&folder), Limits::default()).await.unwrap();
    store.submit(submission("a")).await.unwrap();
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let file = format!("{}{suffix}", location(&folder));
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file}: {mode:o}");
    }
}

#[tokio::test]
async fn leases_of_a_process_that_is_gone_end_at_opening() {
    let folder = folder();
    let store = SqliteStore::open(&location(&folder), Limits::default()).await.unwrap();
    let running = store.submit(submission("a")).await.unwrap().token;
    let stopping = store.submit(submission("b")).await.unwrap().token;
    let waiting = store.submit(submission("c")).await.unwrap().token;
    claim(&store).await.unwrap();
    claim(&store).await.unwrap();
    store.request_stop(&stopping).await.unwrap();
    let lease = claim(&store).await.unwrap().lease;
    let ending = Ending::Retry { after: Duration::from_secs(3600), outcome: None, reason: String::new() };
    store.settle(&lease, Settlement { ending, lines: vec![], closing: None }).await.unwrap();
    store.close().await;

    let store = SqliteStore::open(&location(&folder), Limits::default()).await.unwrap();
    assert_eq!(store.expire_leases().await.unwrap().len(), 2);
    assert_eq!(store.state(&running).await.unwrap(), Some(State::Queued));
    assert_eq!(store.state(&stopping).await.unwrap(), Some(State::Terminated));
    assert_eq!(claim(&store).await.unwrap().token, running);
    assert_eq!(claim(&store).await.unwrap().token, waiting, "its wait was measured by a clock that is gone");
}

/// The pause is there for processes that are killed again and again: a start does not end it.
#[tokio::test]
async fn a_start_does_not_end_the_pause_of_what_was_lost_again_and_again() {
    let folder = folder();
    let pausing = |seconds| Limits { crash_pause: Duration::from_secs(seconds), ..Limits::default() };
    let open = async |limits| SqliteStore::open(&location(&folder), limits).await.unwrap();
    let mut store = open(pausing(3600)).await;
    store.submit(submission("a")).await.unwrap();
    for _ in 0..2 {
        assert!(claim(&store).await.is_some());
        store.close().await;
        store = open(pausing(3600)).await;
        store.expire_leases().await.unwrap();
    }
    for _ in 0..2 {
        assert!(claim(&store).await.is_none(), "it waits");
        store.close().await;
        store = open(pausing(3600)).await;
    }
    // A shorter pause, or a clock that was put back, cannot make it wait for longer than a pause.
    store.close().await;
    store = open(pausing(0)).await;
    assert!(claim(&store).await.is_some());
}

#[tokio::test]
async fn commits_are_flushed_and_payloads_do_not_outlive_their_task() {
    let folder = folder();
    let store = SqliteStore::open(&location(&folder), Limits::default()).await.unwrap();
    let token = store.submit(submission("a")).await.unwrap().token;
    store.request_stop(&token).await.unwrap();
    let payload: Option<String> =
        sqlx::query_scalar("SELECT payload FROM task").fetch_one(store.database.readers()).await.unwrap();
    assert_eq!(payload, None);
    for table in ["task_component", "running_component"] {
        let rows: i64 = sqlx::query_scalar(&format!("SELECT count(*) FROM {table}"))
            .fetch_one(store.database.readers())
            .await
            .unwrap();
        assert_eq!(rows, 0, "{table}");
    }
    struct Pragmas;
    #[async_trait]
    impl database::Write for Pragmas {
        type Answer = (String, i64);
        async fn write(&self, connection: &mut sqlx::SqliteConnection) -> sqlx::Result<(String, i64)> {
            let journal = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *connection).await?;
            let synchronous = sqlx::query_scalar("PRAGMA synchronous").fetch_one(connection).await?;
            Ok((journal, synchronous))
        }
    }
    assert_eq!(store.database.write(Pragmas).await.unwrap(), ("wal".to_owned(), 2));
}

#[tokio::test]
async fn the_schema_itself_refuses_two_running_tasks_on_a_component() {
    let folder = folder();
    let store = SqliteStore::open(&location(&folder), Limits::default()).await.unwrap();
    store.submit(submission("a")).await.unwrap();
    let mut other = submission("a");
    other.task.fingerprint = "g".to_owned();
    store.submit(other).await.unwrap();
    claim(&store).await.unwrap();
    struct Unblock;
    #[async_trait]
    impl database::Write for Unblock {
        type Answer = ();
        async fn write(&self, connection: &mut sqlx::SqliteConnection) -> sqlx::Result<()> {
            sqlx::query("UPDATE task SET blocked = 0").execute(connection).await.map(drop)
        }
    }
    store.database.write(Unblock).await.unwrap();
    let request =
        ClaimRequest { lane: Lane::Change, worker: "w".to_owned(), lease: Duration::from_secs(60), limit: 1 };
    store.claim(&request).await.unwrap_err();
    assert_eq!(store.counts().await.unwrap(), Counts { queued: 1, running: 1 });
}

#[tokio::test]
async fn a_write_that_fails_takes_nobody_with_it() {
    struct Broken;
    #[async_trait]
    impl database::Write for Broken {
        type Answer = ();
        async fn write(&self, connection: &mut sqlx::SqliteConnection) -> sqlx::Result<()> {
            sqlx::query("INSERT INTO deployment (component) VALUES ('half')")
                .execute(connection)
                .await
                .map(drop)
        }
    }
    let folder = folder();
    let store = SqliteStore::open(&location(&folder), Limits::default()).await.unwrap();
    let wave = futures::future::join_all((0..20).map(async |n| {
        if n % 2 == 0 {
            store.database.write(Broken).await.is_ok()
        } else {
            store.submit(submission(&format!("c{n}"))).await.is_ok()
        }
    }));
    let outcomes = wave.await;
    assert!(outcomes.iter().enumerate().all(|(n, ok)| *ok == (n % 2 == 1)), "{outcomes:?}");
    assert_eq!(store.counts().await.unwrap().queued, 10);
}

/// Every query that runs for each operation finds its rows by an index that holds unfinished work only.
#[tokio::test]
async fn hot_queries_do_not_scan() {
    let folder = folder();
    let store = SqliteStore::open(&location(&folder), Limits::default()).await.unwrap();
    for query in [
        write::CLAIMABLE,
        write::NEXT_DUE,
        write::UNBLOCK,
        submit::BLOCK,
        submit::SUPERSEDE,
        "SELECT count(*) FROM (SELECT 1 FROM task WHERE state = 'queued' LIMIT 10)",
        "SELECT count(*) FROM task WHERE lease_until IS NOT NULL",
        "SELECT seq FROM task WHERE lease_until IS NOT NULL AND lease_until <= 1 ORDER BY lease_until LIMIT 1",
        "SELECT id FROM task WHERE dedupe_key IS NOT NULL AND dedupe_key IN (SELECT value FROM json_each('[]'))",
        "SELECT seq FROM task WHERE id = 'x' AND lease_epoch = 1 AND state IN ('running', 'stopping')",
        "DELETE FROM task_component WHERE task_seq = 1",
        "DELETE FROM running_component WHERE task_seq = 1",
        "SELECT coalesce(max(line) + 1, 0) FROM task_log WHERE task_seq = 1",
        "SELECT seq FROM task WHERE finished_at IS NOT NULL AND finished_at <= 1 ORDER BY finished_at LIMIT 1",
    ] {
        let plan = sqlx::query(&format!("EXPLAIN QUERY PLAN {query}"))
            .fetch_all(store.database.readers())
            .await
            .unwrap();
        for step in plan {
            let step: String = step.try_get("detail").unwrap();
            let partial = step.contains("USING COVERING INDEX task_") || step.contains("USING INDEX task_");
            assert!(!step.starts_with("SCAN task") || partial, "{query}\n{step}");
            assert!(!step.starts_with("SCAN mine") && !step.contains("TEMP B-TREE"), "{query}\n{step}");
        }
    }
}
