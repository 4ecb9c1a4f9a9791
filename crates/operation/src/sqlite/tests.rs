//! The suite of all stores, and tests of what only this store has.

use std::any::Any;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::ledger::{COUNTS, STATE, SURPLUS, TASK, submit, write};
use crate::store::Queue;
use crate::suite::{FORMAT_1, Tables, store_suite, submission, tables_suite};
use crate::{ClaimRequest, Counts, Ending, Lane, Settlement, State, StopScope, Store, Token};
use landfall_adapter::error::Kind;

/// In memory where possible: the suite tests what is written, not how long a disk takes.
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

struct File(TempDir);

impl Tables for File {
    fn execute(&self, sql: &str) {
        let options = SqliteConnectOptions::new().filename(location(&self.0)).busy_timeout(PATIENCE);
        let sql = sql.to_owned();
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut connection = options.connect().await.unwrap();
                sqlx::raw_sql(&sql).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            });
        };
        std::thread::spawn(run).join().unwrap();
    }
}

async fn fresh_with_tables(limits: Limits) -> (Arc<dyn Store>, Box<dyn Tables>) {
    let folder = folder();
    let store = SqliteStore::open(&location(&folder), limits).await.unwrap();
    (Arc::new(store), Box::new(File(folder)))
}

tables_suite!(fresh_with_tables);

struct Execute(&'static str);

#[async_trait]
impl Write for Execute {
    type Answer = u64;

    async fn write(&self, transaction: &mut dyn Transaction) -> sqlx::Result<u64> {
        transaction.execute(Statement::both(self.0), args![]).await
    }
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
async fn closed_store_reports_that_it_is_closed() {
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
    store.request_stop(&stopping, StopScope::Any).await.unwrap();
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

/// The pause is for processes that are killed repeatedly: a start does not end it.
#[tokio::test]
async fn startup_keeps_pauses_of_repeatedly_lost_tasks() {
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
    // A shorter pause, or a clock that was set back, cannot make it wait for longer than one pause.
    store.close().await;
    store = open(pausing(0)).await;
    assert!(claim(&store).await.is_some());
}

#[tokio::test]
async fn commits_are_flushed_and_payloads_do_not_outlive_their_task() {
    let folder = folder();
    let store = SqliteStore::open(&location(&folder), Limits::default()).await.unwrap();
    let token = store.submit(submission("a")).await.unwrap().token;
    store.request_stop(&token, StopScope::Any).await.unwrap();
    let payloads = Statement::both("SELECT payload FROM task");
    assert_eq!(store.database.read(payloads, args![]).await.unwrap()[0].optional_text(0).unwrap(), None);
    for table in ["task_component", "running_component"] {
        let count = format!("SELECT count(*) FROM {table}");
        let rows = store.database.read(Statement::both(&count), args![]).await.unwrap();
        assert_eq!(rows[0].int(0).unwrap(), 0, "{table}");
    }
    struct Pragmas;
    #[async_trait]
    impl Write for Pragmas {
        type Answer = (String, i64);
        async fn write(&self, transaction: &mut dyn Transaction) -> sqlx::Result<(String, i64)> {
            let journal = transaction.fetch(Statement::both("PRAGMA journal_mode"), args![]).await?;
            let synchronous = transaction.fetch(Statement::both("PRAGMA synchronous"), args![]).await?;
            Ok((journal[0].text(0)?.to_owned(), synchronous[0].int(0)?))
        }
    }
    assert_eq!(store.database.writer.write(Pragmas).await.unwrap(), ("wal".to_owned(), 2));
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
    store.database.writer.write(Execute("UPDATE task SET blocked = 0")).await.unwrap();
    let request =
        ClaimRequest { lane: Lane::Change, worker: "w".to_owned(), lease: Duration::from_secs(60), limit: 1 };
    store.claim(&request).await.unwrap_err();
    assert_eq!(store.counts().await.unwrap(), Counts { queued: 1, running: 1 });
}

#[tokio::test]
async fn failed_write_does_not_affect_others() {
    const BROKEN: Execute = Execute("INSERT INTO deployment (component) VALUES ('half')");
    let folder = folder();
    let store = SqliteStore::open(&location(&folder), Limits::default()).await.unwrap();
    let wave = futures::future::join_all((0..20).map(async |n| {
        if n % 2 == 0 {
            store.database.writer.write(BROKEN).await.is_ok()
        } else {
            store.submit(submission(&format!("c{n}"))).await.is_ok()
        }
    }));
    let outcomes = wave.await;
    assert!(outcomes.iter().enumerate().all(|(n, ok)| *ok == (n % 2 == 1)), "{outcomes:?}");
    assert_eq!(store.counts().await.unwrap().queued, 10);
}

/// Data that is written to a deleted file is gone at the next start.
#[tokio::test]
async fn a_removed_or_replaced_file_is_noticed() {
    const MOVED: &str = "a file of the operation store was removed or replaced while Landfall uses it: nothing is accepted \
                         until it is back or Landfall is started again";
    for suffix in ["", "-wal", ".lock"] {
        let folder = folder();
        let store = SqliteStore::open(&location(&folder), Limits::default()).await.unwrap();
        let kept = store.submit(submission("a")).await.unwrap().token;
        assert_eq!(store.state(&kept).await.unwrap(), Some(State::Queued));
        let (file, aside) = (location(&folder) + suffix, location(&folder) + ".aside");
        let refused = async |what: &str| {
            let error = store.submit(submission("b")).await.unwrap_err();
            assert_eq!(
                (error.kind(), error.to_string().as_str()),
                (&Kind::Retryable, MOVED),
                "{file} {what}"
            );
            let report = error.report();
            assert!(report.ends_with(&format!("`{file}` is not the file that was opened")), "{report}");
        };
        std::fs::rename(&file, &aside).unwrap();
        refused("removed").await;
        std::fs::copy(&aside, &file).unwrap();
        refused("replaced").await;
        assert_eq!(
            store.state(&kept).await.unwrap(),
            Some(State::Queued),
            "what was accepted is still known"
        );
        std::fs::rename(&aside, &file).unwrap();
        let token = store.submit(submission("b")).await.unwrap().token;
        store.close().await;
        let store = SqliteStore::open(&location(&folder), Limits::default()).await.unwrap();
        assert_eq!(
            store.state(&token).await.unwrap(),
            Some(State::Queued),
            "once it is back, nothing is lost"
        );
    }
}

/// Moves the changes in the write-ahead log into the database file.
fn checkpoint(folder: &TempDir) {
    let options = SqliteConnectOptions::new().filename(location(folder)).busy_timeout(PATIENCE);
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut connection = options.connect().await.unwrap();
            sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_all(&mut connection).await.unwrap();
        });
    };
    std::thread::spawn(run).join().unwrap();
}

/// Overwrites a part of the database.
fn damage(folder: &TempDir, from: usize) {
    let mut bytes = std::fs::read(location(folder)).unwrap();
    let end = if from == 0 { 16 } else { bytes.len() };
    bytes[from..end].fill(0xAA);
    use std::io::Write as _;
    // In place, so that it stays the same file.
    OpenOptions::new().write(true).open(location(folder)).unwrap().write_all(&bytes).unwrap();
}

const DAMAGED: &str = "the operation store is damaged: stop Landfall, restore the store from a backup (of an SQLite file, \
                       the one with its -wal), and start again";

#[tokio::test]
async fn damaged_file_is_a_permanent_failure() {
    let folder = folder();
    let store = SqliteStore::open(&location(&folder), Limits::default()).await.unwrap();
    let token = store.submit(submission("a")).await.unwrap().token;
    checkpoint(&folder);
    damage(&folder, 4096);
    let mut errors = vec![store.state(&token).await.unwrap_err(), store.task(&token).await.unwrap_err()];
    errors.push(store.submit(submission("b")).await.unwrap_err());
    errors.push(store.purge().await.unwrap_err());
    store.close().await;
    for error in errors {
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (&Kind::Permanent, DAMAGED),
            "{}",
            error.report()
        );
    }
}

#[tokio::test]
async fn a_damaged_file_is_refused_at_the_start() {
    for from in [0, 100] {
        let folder = folder();
        let store = SqliteStore::open(&location(&folder), Limits::default()).await.unwrap();
        store.close().await;
        damage(&folder, from);
        let error = SqliteStore::open(&location(&folder), Limits::default()).await.err().unwrap();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (&Kind::Permanent, DAMAGED),
            "{}",
            error.report()
        );
    }
}

const MARKER: &str = "a descriptor that must not be found";

fn marked(component: &str) -> crate::Submission {
    let mut marked = submission(component);
    marked.task.payload = serde_json::json!({"text": MARKER.repeat(5_000)}).to_string().into();
    marked
}

fn holds_the_marker(folder: &TempDir) -> bool {
    ["", "-wal", "-shm"].iter().any(|suffix| {
        let bytes = std::fs::read(location(folder) + suffix).unwrap();
        bytes.windows(MARKER.len()).any(|window| window == MARKER.as_bytes())
    })
}

fn size(folder: &TempDir) -> u64 {
    std::fs::metadata(location(folder)).unwrap().len()
}

#[tokio::test]
async fn a_file_shrinks_and_keeps_no_descriptor_after_its_end() {
    let folder = folder();
    let store = SqliteStore::open(&location(&folder), Limits::default()).await.unwrap();
    let mut tokens = Vec::new();
    for n in 0..40 {
        tokens.push(store.submit(marked(&format!("c{n}"))).await.unwrap().token);
    }
    checkpoint(&folder);
    let full = size(&folder);
    assert!(full > 6_000_000 && holds_the_marker(&folder), "{full}");
    for token in tokens {
        store.request_stop(&token, StopScope::Any).await.unwrap();
    }
    store.purge().await.unwrap();
    let mut steps = 0;
    while store.tidy().await.unwrap() {
        steps += 1;
    }
    assert!(steps > 3, "{steps}: not all at once");
    assert!(!holds_the_marker(&folder), "it is in the file still");
    let rest = size(&folder);
    assert!(rest < 2_500_000, "{rest} of {full}");
    store.submit(submission("a")).await.unwrap();
}

#[tokio::test]
async fn store_of_the_previous_version_is_usable() {
    let folder = folder();
    let path = location(&folder);
    drop(prepare_files(Path::new(&path)).unwrap());
    let mut connection = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    Migrations(&MIGRATIONS.0[..3]).run(&mut connection, "before").await.unwrap();
    connection.close().await.unwrap();
    let earlier = File(folder);
    earlier.execute(FORMAT_1);
    let store = SqliteStore::open(&path, Limits::default()).await.unwrap();
    let lines = Statement::both("SELECT DISTINCT place FROM task WHERE lane = 'change' AND bytes > 100");
    let rows = store.database.read(lines, args![]).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.text(0).unwrap()).collect::<Vec<_>>(), ["[\"LAKE\"]"]);
    assert_eq!(store.purge().await.unwrap(), 0, "since it finished, no process ran");
    earlier.execute("UPDATE clock SET elapsed = elapsed + 31 * 24 * 3600000000");
    assert_eq!(store.purge().await.unwrap(), 1);
    assert!(claim(&store).await.is_some());
}

#[tokio::test]
async fn file_of_an_earlier_version_is_made_shrinkable() {
    let folder = folder();
    SqliteStore::open(&location(&folder), Limits::default()).await.unwrap().close().await;
    let earlier = File(folder);
    earlier.execute("PRAGMA auto_vacuum = 0; VACUUM;");
    let store = SqliteStore::open(&location(&earlier.0), Limits::default()).await.unwrap();
    let rows = store.database.read(Statement::both("PRAGMA auto_vacuum"), args![]).await.unwrap();
    assert_eq!(rows[0].int(0).unwrap(), 2);
    store.submit(submission("a")).await.unwrap();
}

/// Every query that runs for each operation finds its rows by an index that holds unfinished work only.
#[tokio::test]
async fn hot_queries_do_not_scan() {
    let folder = folder();
    let store = SqliteStore::open(&location(&folder), Limits::default()).await.unwrap();
    for statement in [
        write::CLAIMABLE,
        write::CLAIMABLE_IN_LINE,
        write::LINES,
        write::BUSY,
        write::NEXT_DUE,
        write::UNKNOWN,
        write::FINISH,
        FIRST_DUE,
        write::HEARTBEAT,
        write::HELD,
        write::LOST,
        Statement::both(write::UNBLOCK),
        Statement::both(write::LEAVE),
        write::UNLOCK,
        write::APPEND,
        write::PURGE_BATCH,
        submit::LOOK,
        submit::UNFINISHED,
        Statement::both(submit::COMPONENTS),
        submit::BLOCK,
        submit::SUPERSEDE,
        TASK,
        STATE,
        COUNTS,
        SURPLUS,
    ] {
        let query = statement.text(Dialect::Sqlite);
        let explain = format!("EXPLAIN QUERY PLAN {query}");
        for step in store.database.read(Statement::both(&explain), args![]).await.unwrap() {
            // `id`, `parent`, `notused`, `detail`
            let step = step.text(3).unwrap();
            let partial = step.contains("USING COVERING INDEX task_") || step.contains("USING INDEX task_");
            assert!(!step.starts_with("SCAN task") || partial, "{query}\n{step}");
            assert!(!step.starts_with("SCAN mine") || step.contains("VIRTUAL TABLE"), "{query}\n{step}");
            assert!(!step.contains("TEMP B-TREE"), "{query}\n{step}");
        }
    }
}
