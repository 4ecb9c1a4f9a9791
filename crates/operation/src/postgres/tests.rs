//! The suite of all stores on a real server, and tests of what only this store has: several processes at once.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use super::*;
use crate::ledger::{COUNTS, STATE, SURPLUS, TASK, submit, write};
use crate::postgres_server::{self as server, PostgresServer};
use crate::store::{Inventory, Queue};
use crate::suite::{FORMAT_1, Tables, store_suite, submission, tables_suite};
use crate::{
    ClaimRequest, ClaimedTask, ComponentKey, Deployments, Ending, Engine, Hint, Lane, RunError, Runner,
    Settings, Settlement, State, StopScope, Store, Token,
};
use landfall_adapter::Context;
use landfall_adapter::error::Kind;

fn new_database() -> String {
    PostgresServer::shared().unwrap().new_database().unwrap()
}

async fn open(url: &str, limits: Limits) -> PostgresStore {
    PostgresStore::open(&PostgresSettings::parse(url).unwrap(), limits).await.unwrap()
}

async fn fresh(limits: Limits) -> (Arc<dyn Store>, Box<dyn Any>) {
    (Arc::new(open(&new_database(), limits).await), Box::new(()))
}

store_suite!(fresh);

struct Url(String);

impl Tables for Url {
    fn execute(&self, sql: &str) {
        server::query(&self.0, &format!("SET search_path = landfall; {sql}")).unwrap();
    }
}

async fn fresh_with_tables(limits: Limits) -> (Arc<dyn Store>, Box<dyn Tables>) {
    let url = new_database();
    (Arc::new(open(&url, limits).await), Box::new(Url(url)))
}

tables_suite!(fresh_with_tables);

async fn claim(store: &PostgresStore, lease: Duration, limit: usize) -> Vec<ClaimedTask> {
    let request = ClaimRequest { lane: Lane::Change, worker: "w".to_owned(), lease, limit };
    store.claim(&request).await.unwrap().tasks
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_that_start_at_once_both_get_the_tables() {
    let url = new_database();
    let limits = Limits::default;
    let stores = futures::future::join_all((0..4).map(|_| open(&url, limits()))).await;
    let token = stores[0].submit(submission("a")).await.unwrap().token;
    for store in &stores {
        assert_eq!(store.state(&token).await.unwrap(), Some(State::Queued));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submissions_of_two_processes_form_one_queue() {
    let url = new_database();
    let (a, b) = tokio::join!(open(&url, Limits::default()), open(&url, Limits::default()));
    let stores = [Arc::new(a), Arc::new(b)];
    // Both request the same eight components repeatedly, by two paths: each must see the other's tasks.
    let mut waves = Vec::new();
    for n in 0..400 {
        let store = Arc::clone(&stores[n % 2]);
        waves.push(tokio::spawn(async move {
            let mut submission = submission(&format!("c{}", n % 8));
            submission.task.fingerprint = (n / 16).to_string();
            store.submit(submission).await.unwrap()
        }));
    }
    let mut accepted = std::collections::HashSet::new();
    for wave in waves {
        accepted.insert(wave.await.unwrap().token);
    }
    // Each claim returns at most one task for a component, until all were returned.
    let mut done = 0;
    while done < accepted.len() {
        let claimed = claim(&stores[done % 2], MINUTE, 100).await;
        assert!(!claimed.is_empty(), "{done} of {} done, and the rest is stuck", accepted.len());
        assert!(claimed.len() <= 8);
        for task in claimed {
            let settlement =
                Settlement { ending: Ending::Succeed { outcome: json!(1) }, lines: vec![], closing: None };
            // Not by the process that claimed it: the lease is sufficient.
            stores[(done + 1) % 2].settle(&task.lease, settlement).await.unwrap().unwrap();
            done += 1;
        }
    }
    assert!(claim(&stores[0], MINUTE, 1).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn news_reach_other_processes() {
    let url = new_database();
    let (here, there) = tokio::join!(open(&url, Limits::default()), open(&url, Limits::default()));
    let mut hints = there.hints();
    // A new listener first gets `Anything`, because it may have missed changes.
    let next = async |hints: &mut tokio::sync::broadcast::Receiver<Hint>| {
        tokio::time::timeout(MINUTE, hints.recv()).await.unwrap().unwrap()
    };
    tokio::time::timeout(Duration::from_secs(1), hints.recv()).await.ok();
    let token = here.submit(submission("a")).await.unwrap().token;
    while next(&mut hints).await != Hint::Queued(Lane::Change) {}
    let lease = claim(&there, MINUTE, 1).await.pop().unwrap().lease;
    here.request_stop(&token, StopScope::Any).await.unwrap();
    while next(&mut hints).await != Hint::Stop(token) {}
    let mut at_home = here.hints();
    let settlement = Settlement { ending: Ending::Stopped { outcome: None }, lines: vec![], closing: None };
    there.settle(&lease, settlement).await.unwrap();
    while next(&mut at_home).await != Hint::Finished(token) {}
}

/// A process that hangs inside a transaction on the queue delays the others for a short time only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hanging_replica_blocks_the_queue_only_briefly() {
    let url = new_database();
    let mut settings = PostgresSettings::parse(&url).unwrap();
    settings.patience = Duration::from_secs(2);
    let store = PostgresStore::open(&settings, Limits::default()).await.unwrap();
    let mut hanging = QueueWriter {
        options: settings.session(),
        patience: settings.patience,
        session: None,
        proven: false,
    };
    let transaction = hanging.begin().await.unwrap();
    transaction
        .execute(
            Statement::both(
                "INSERT INTO deployment VALUES ('half', 'dev', 't', 'provisioned', NULL, '{}', 0)",
            ),
            args![],
        )
        .await
        .unwrap();
    // No answer from it for longer than half of the timeout.
    store.submit(submission("a")).await.unwrap();
    hanging.commit().await.unwrap_err();
    assert_eq!(store.deployment(&ComponentKey::new("half", "dev")).await.unwrap(), None);
    hanging.recover(&no_answer()).await;
    hanging.begin().await.unwrap();
    hanging.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_database_server_is_a_transient_failure() {
    let server = PostgresServer::start(server::Durability::Fast).unwrap();
    let store = open(&server.new_database().unwrap(), Limits::default()).await;
    let kept = store.submit(submission("a")).await.unwrap().token;
    let lease = claim(&store, MINUTE, 1).await.pop().unwrap().lease;
    for _ in 0..2 {
        server.kill_immediately().unwrap();
        let away = [
            store.submit(submission("b")).await.map(drop).unwrap_err(),
            store.state(&kept).await.map(drop).unwrap_err(),
            store.heartbeat(&lease, MINUTE).await.map(drop).unwrap_err(),
            store.append_logs(&lease, vec![]).await.map(drop).unwrap_err(),
        ];
        for error in away {
            assert_eq!(error.kind(), &Kind::Retryable, "{}", error.report());
            assert_eq!(error.to_string(), "the operation store does not answer; try again later");
        }
        server.restart().unwrap();
        assert_eq!(store.state(&kept).await.unwrap(), Some(State::Running));
        assert_eq!(store.heartbeat(&lease, MINUTE).await.unwrap(), Some(State::Running));
        store.submit(submission("b")).await.unwrap();
    }
    let settlement =
        Settlement { ending: Ending::Succeed { outcome: json!(1) }, lines: vec![], closing: None };
    assert_eq!(store.settle(&lease, settlement).await.unwrap(), Some(State::Completed));
}

/// Retries until it is accepted: sessions that were terminated, or that lack rights, are replaced.
async fn accepted(store: &PostgresStore, component: &str) -> Token {
    let end = Instant::now() + MINUTE;
    loop {
        match store.submit(submission(component)).await {
            Ok(submitted) => return submitted.token,
            Err(error) => assert!(Instant::now() < end, "{}", error.report()),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn end_sessions(server: &PostgresServer) {
    server
        .psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'landfall'")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_default_does_not_stop_the_store() {
    let server = PostgresServer::start(server::Durability::Fast).unwrap();
    let url = server.new_database().unwrap();
    let role = url.rsplit('/').next().unwrap();
    let store = open(&url, Limits::default()).await;
    accepted(&store, "a").await;
    server.psql(&format!("ALTER ROLE {role} SET default_transaction_read_only = on")).unwrap();
    end_sessions(&server);
    accepted(&store, "b").await;
    let lease = claim(&store, MINUTE, 1).await.pop().unwrap().lease;
    assert_eq!(store.append_logs(&lease, vec![]).await.unwrap(), Some(State::Running));
    open(&url, Limits::default()).await;
    server.psql("ALTER SYSTEM SET default_transaction_read_only = on").unwrap();
    server.psql("SELECT pg_reload_conf()").unwrap();
    accepted(&store, "c").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_a_recreated_role_are_replaced() {
    let server = PostgresServer::start(server::Durability::Fast).unwrap();
    let url = server.new_database().unwrap();
    let database = url.rsplit('/').next().unwrap().to_owned();
    let password = url.rsplit_once('@').unwrap().0.rsplit_once(':').unwrap().1.to_owned();
    let store = open(&url, Limits::default()).await;
    let kept = accepted(&store, "a").await;
    let lease = claim(&store, MINUTE, 1).await.pop().unwrap().lease;
    server.psql_in(&database, &format!("REASSIGN OWNED BY {database} TO fixture")).unwrap();
    server.psql_in(&database, &format!("DROP OWNED BY {database}")).unwrap();
    server.psql(&format!("DROP ROLE {database}")).unwrap();
    let error = store.submit(submission("b")).await.unwrap_err();
    assert_eq!(error.kind(), &Kind::Retryable);
    assert_eq!(
        error.to_string(),
        "the operation store refuses what Landfall asks of it: restore the rights of its role, and the schema"
    );
    server.psql(&format!("CREATE ROLE {database} LOGIN PASSWORD '{password}'")).unwrap();
    for what in ["SCHEMA landfall", "ALL TABLES IN SCHEMA landfall", "ALL SEQUENCES IN SCHEMA landfall"] {
        server.psql_in(&database, &format!("GRANT ALL ON {what} TO {database}")).unwrap();
    }
    assert_eq!(store.state(&kept).await.unwrap(), Some(State::Running));
    assert_eq!(store.heartbeat(&lease, MINUTE).await.unwrap(), Some(State::Running));
    store.submit(submission("b")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_is_refused_and_used_once_promoted() {
    const STANDBY: &str = "the operation store is a PostgreSQL standby, which takes no writes: name the primary in \
                           store.url, or promote it";
    let server = PostgresServer::start(server::Durability::Fast).unwrap();
    let url = server.new_database().unwrap();
    let store = open(&url, Limits::default()).await;
    let kept = accepted(&store, "a").await;
    server.psql("CHECKPOINT").unwrap();
    server.psql("COPY (SELECT 1) TO PROGRAM 'touch standby.signal'").unwrap();
    server.kill_immediately().unwrap();
    server.restart().unwrap();
    store.submit(submission("b")).await.expect_err("its session is gone");
    let errors = [
        store.submit(submission("b")).await.map(drop).unwrap_err(),
        store.state(&kept).await.map(drop).unwrap_err(),
        PostgresStore::open(&PostgresSettings::parse(&url).unwrap(), Limits::default()).await.err().unwrap(),
    ];
    for error in errors {
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (&Kind::Retryable, STANDBY),
            "{}",
            error.report()
        );
    }
    server.psql("SELECT pg_promote()").unwrap();
    assert_eq!(store.state(&kept).await.unwrap(), Some(State::Queued));
    accepted(&store, "b").await;
}

#[tokio::test]
async fn unusable_store_reports_the_reason_without_password() {
    let url = new_database();
    let refused = async |url: &str| {
        let error = PostgresStore::open(&PostgresSettings::parse(url).unwrap(), Limits::default())
            .await
            .err()
            .unwrap();
        assert_eq!(error.kind(), &Kind::Permanent);
        let report = format!("{} {error:?}", error.report());
        assert!(!report.contains("hunter2"), "{report}");
        error.report()
    };
    let (front, back) = url.split_once('@').unwrap();
    let (user, _) = front.rsplit_once(':').unwrap();
    let report = refused(&format!("{user}:hunter2@{back}")).await;
    assert!(report.contains("password authentication failed"), "{report}");
    assert!(report.starts_with("cannot use the operation store `landfall_"), "{report}");
    let report = refused(&format!("{url}x")).await;
    assert!(report.contains("does not exist"), "{report}");

    let settings = PostgresSettings::parse("postgres://a:hunter2@db.example.com:7777/b").unwrap();
    assert_eq!(
        format!("{settings:?}"),
        "PostgresSettings { place: \"`b` at db.example.com:7777 as `a`\", .. }"
    );
    let error = PostgresSettings::parse("postgres://a:hunter2@:x/").unwrap_err();
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn tables_of_another_version_are_refused() {
    let url = new_database();
    open(&url, Limits::default()).await.close().await;
    server::query(
        &url,
        "INSERT INTO landfall._sqlx_migrations SELECT 999, description, installed_on, success, checksum, 0 \
         FROM landfall._sqlx_migrations LIMIT 1",
    )
    .unwrap();
    let error =
        PostgresStore::open(&PostgresSettings::parse(&url).unwrap(), Limits::default()).await.err().unwrap();
    assert!(error.to_string().contains("another version"), "{error}");
}

#[tokio::test]
async fn store_of_the_previous_version_is_usable() {
    let url = new_database();
    server::query(&url, "CREATE SCHEMA landfall").unwrap();
    let options = PostgresSettings::parse(&url).unwrap().connection.options([("search_path", SCHEMA)]);
    let mut connection = options.connect().await.unwrap();
    Migrations(&MIGRATIONS.0[..2]).run(&mut connection, "before").await.unwrap();
    connection.close().await.unwrap();
    let tables = Url(url.clone());
    tables.execute(FORMAT_1);
    let store = open(&url, Limits::default()).await;
    let lines = Statement::both("SELECT DISTINCT place FROM task WHERE lane = 'change' AND bytes > 100");
    let rows = store.database.read(lines, args![]).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.text(0).unwrap()).collect::<Vec<_>>(), ["[\"LAKE\"]"]);
    assert_eq!(store.purge().await.unwrap(), 0, "since it finished, no process ran");
    tables.execute("UPDATE clock SET elapsed = elapsed + 31 * 24 * 3600000000");
    assert_eq!(store.purge().await.unwrap(), 1);
    assert_eq!(claim(&store, MINUTE, 9).await.len(), 3);
}

/// A role that may use the schema but not create one is sufficient after another role has created it.
#[tokio::test]
async fn accepts_a_schema_created_by_another_role() {
    let server = PostgresServer::shared().unwrap();
    let url = new_database();
    let database = url.rsplit('/').next().unwrap();
    server.psql(&format!("ALTER DATABASE {database} OWNER TO fixture")).unwrap();
    let error = PostgresStore::open(&PostgresSettings::parse(&url).unwrap(), Limits::default()).await;
    assert!(error.err().unwrap().report().contains("permission denied"));
    server.psql(&format!("GRANT CREATE ON DATABASE {database} TO {database}")).unwrap();
    server::query(&url, "CREATE SCHEMA landfall").unwrap();
    server.psql(&format!("REVOKE CREATE ON DATABASE {database} FROM {database}")).unwrap();
    open(&url, Limits::default()).await;
}

#[tokio::test]
async fn people_can_read_the_queue_and_no_payload_is_in_it() {
    let url = new_database();
    let store = open(&url, Limits::default()).await;
    let token = store.submit(submission("a")).await.unwrap().token;
    let rows = server::query(
        &url,
        "SELECT token, state, waits_for_earlier, now() - submitted_at < '1 minute', lease_until \
         FROM landfall.operation_overview",
    )
    .unwrap();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(rows, [vec![text(&token.to_string()), text("queued"), text("f"), text("t"), None]]);
    let columns = server::query(
        &url,
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'operation_overview' \
         AND column_name IN ('payload', 'outcome')",
    );
    assert_eq!(columns.unwrap(), Vec::<server::TextRow>::new());
}

#[tokio::test]
async fn payloads_end_with_their_task_and_commits_are_durable() {
    let url = new_database();
    let store = open(&url, Limits::default()).await;
    let token = store.submit(submission("a")).await.unwrap().token;
    store.request_stop(&token, StopScope::Any).await.unwrap();
    let rows = server::query(
        &url,
        "SELECT (SELECT count(*) FROM landfall.task WHERE payload IS NOT NULL), \
         (SELECT count(*) FROM landfall.task_component), (SELECT count(*) FROM landfall.running_component)",
    );
    assert_eq!(rows.unwrap(), [vec![Some("0".to_owned()); 3]]);
    let sessions =
        Statement::both("SELECT current_setting('synchronous_commit'), current_setting('search_path')");
    let rows = store.database.read(sessions, args![]).await.unwrap();
    assert_eq!((rows[0].text(0).unwrap(), rows[0].text(1).unwrap()), ("on", "landfall"));
}

/// Every statement that runs for each operation finds its rows by an index of unfinished work only, or by the task's
/// own key, however many tasks are retained.
#[tokio::test]
async fn hot_queries_do_not_scan() {
    let url = new_database();
    let store = open(&url, Limits::default()).await;
    server::query(
        &url,
        "SET search_path = landfall; \
         INSERT INTO task (id, operation, lane, components, targets, fingerprint, state, max_attempts, run_at, \
           submitted_at, finished_at) \
         SELECT 'old' || n, 'provision', 'change', '[]', '[]', 'f', 'completed', 5, n, n, n \
         FROM generate_series(1, 20000) n; \
         INSERT INTO task_log (task_seq, line, at, level, message) SELECT seq, 0, 0, 'info', 'x' FROM task; \
         ANALYZE;",
    )
    .unwrap();
    for n in 0..200 {
        store.submit(submission(&format!("c{n}"))).await.unwrap();
    }
    claim(&store, MINUTE, 8).await;
    let statements = [
        (write::CLAIMABLE, "'change', 1, 1"),
        (write::CLAIMABLE_IN_LINE, "'change', 1, 1, '[]', 1"),
        (write::LINES, "'change'"),
        (write::BUSY, ""),
        (write::NEXT_DUE, "'change', 1"),
        (FIRST_DUE, "'change'"),
        (write::HEARTBEAT, "'x', 1, 1"),
        (write::HELD, "'x', 1"),
        (write::LOST, "1, 1"),
        (write::TAKE, "'[1]', 'running', 'w', 1, 1, 1"),
        (write::FINISH, "1, 'failed', NULL, NULL, 1, 1, 1"),
        (write::TICK, "1, 1"),
        (write::UNKNOWN, "'change', 1"),
        (write::UNLOCK, "1"),
        (write::APPEND, "1, '[]'"),
        (write::PURGE_BATCH, "1"),
        (submit::LOOK, "'[]', '[]', 100000000, 1"),
        (submit::UNFINISHED, "'change'"),
        (submit::BLOCK, "100000000"),
        (submit::SUPERSEDE, "100000000"),
        (TASK, "'x'"),
        (STATE, "'x'"),
        (COUNTS, ""),
        (SURPLUS, "1"),
    ];
    for (statement, parameters) in statements {
        let text = statement.text(Dialect::Postgres);
        let call = if parameters.is_empty() { String::new() } else { format!("({parameters})") };
        // As sessions run it after some executions: planned once, for all parameters.
        let plan = server::query(
            &url,
            &format!(
                "SET search_path = landfall; SET plan_cache_mode = force_generic_plan; \
                 PREPARE hot AS {text}; EXPLAIN EXECUTE hot{call}"
            ),
        )
        .unwrap();
        let plan: Vec<String> = plan.into_iter().map(|mut row| row.remove(0).unwrap()).collect();
        for table in ["task", "task_log"] {
            for scan in [format!("Seq Scan on {table} "), format!("Seq Scan on {table}_")] {
                assert!(
                    !plan.iter().any(|step| step.contains(&scan) && !step.contains("task_component")),
                    "{text}\n{}",
                    plan.join("\n")
                );
            }
        }
    }
}

/// Certificates made with openssl, used by the server in its data directory.
fn make_certificates(server: &PostgresServer) -> String {
    let folder = server.folder().join("data").display().to_string();
    let commands = [
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.crt",
        "openssl req -newkey rsa:2048 -nodes -subj /CN=fixture -keyout server.key -out server.csr",
        "echo subjectAltName=IP:127.0.0.1 > names",
        "openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names \
         -out server.crt",
    ];
    let script = format!("cd {folder} && {}", commands.join(" && "));
    server.psql(&format!("COPY (SELECT 1) TO PROGRAM '({script}) 2>&1'")).expect("openssl is installed");
    for setting in ["ssl_ca_file = 'ca.crt'", "ssl = on"] {
        server.psql(&format!("ALTER SYSTEM SET {setting}")).unwrap();
    }
    server.psql("SELECT pg_reload_conf()").unwrap();
    format!("{folder}/ca.crt")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_can_use_tls_with_a_verified_certificate() {
    let server = PostgresServer::start(server::Durability::Fast).unwrap();
    let url = server.new_database().unwrap();
    let authority = make_certificates(&server);
    let checked = format!("{url}?sslmode=verify-full&sslrootcert={authority}");
    let end = Instant::now() + MINUTE;
    let store = loop {
        match PostgresStore::open(&PostgresSettings::parse(&checked).unwrap(), Limits::default()).await {
            Ok(store) => break store,
            // The server loads its new configuration asynchronously.
            Err(error) if Instant::now() > end => panic!("{}", error.report()),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let encrypted = Statement::both("SELECT ssl::int::bigint FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
    assert_eq!(store.database.read(encrypted, args![]).await.unwrap()[0].int(0).unwrap(), 1);

    let unknown = PostgresSettings::parse(&format!("{url}?sslmode=verify-full")).unwrap();
    let error = PostgresStore::open(&unknown, Limits::default()).await.err().unwrap().report();
    assert!(error.contains("certificate"), "{error}");
    let misnamed = checked.replace("@127.0.0.1:", "@localhost:");
    let error = PostgresStore::open(&PostgresSettings::parse(&misnamed).unwrap(), Limits::default())
        .await
        .err()
        .unwrap()
        .report();
    assert!(error.contains("certificate"), "{error}");
}

/// Runs until it is stopped.
struct Endless;

#[async_trait]
impl Runner for Endless {
    async fn run(
        &self,
        _task: &ClaimedTask,
        context: &Context,
        _deployments: &Deployments,
    ) -> Result<serde_json::Value, RunError> {
        context.cancel.cancelled().await;
        Err(Error::cancelled("stopped on request").into())
    }
}

/// Neither process polls the queue nor the leases: the other replica learns only from notifications.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_and_end_of_a_task_reach_other_replicas() {
    let url = new_database();
    let never = Duration::from_secs(3600);
    let busy = Settings { lease: never, poll: never, ..Settings::default() };
    let idle = Settings { concurrency: 1, ..busy.clone() };
    let (here, there) = tokio::join!(open(&url, Limits::default()), open(&url, Limits::default()));
    let (here, there): (Arc<dyn Store>, Arc<dyn Store>) = (Arc::new(here), Arc::new(there));
    let here = Engine::start(here, Arc::new(Endless), idle);
    // Takes the only slot here, so that the second task must run there.
    let mine = here.submit(submission("a").task).await.unwrap().token;
    let running = async |engine: &Engine, token: &Token| {
        while engine.task(token).await.unwrap().unwrap().state != State::Running {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(MINUTE, running(&here, &mine)).await.unwrap();
    let there = Engine::start(there, Arc::new(Endless), busy);
    let theirs = here.submit(submission("b").task).await.unwrap().token;
    tokio::time::timeout(MINUTE, running(&here, &theirs)).await.expect("news of a task to run");
    for (asked, token) in [(&there, &mine), (&here, &theirs)] {
        asked.stop(token, StopScope::Any).await.unwrap();
        let task = asked.wait(token, MINUTE).await.unwrap().unwrap();
        assert_eq!(task.state, State::Terminated);
    }
}
