//! Servers that do not answer, or answer with errors: every wait has a deadline, every failure is retryable, and the
//! error names the cause.

use std::net::TcpListener;
use std::time::Instant;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Accepts connections and never sends a byte.
struct SilentServer {
    port: u16,
}

impl SilentServer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || listener.incoming().collect::<Vec<_>>());
        Self { port }
    }

    fn url(&self) -> String {
        format!("postgres://u:p@127.0.0.1:{}/d", self.port)
    }
}

/// Deadlines that are short enough for a test.
fn impatient(url: &str) -> Postgresql {
    Postgresql::new(PostgresqlSettings {
        connect_timeout: SECOND,
        statement_timeout: SECOND,
        ..settings(url)
    })
}

fn import_of(table: &str) -> Import {
    testing::import("production", &json!({ "table": table, "schema": PORT_SCHEMA }), &json!({}))
}

/// Every use of a server by the technology, with its name.
const ASKED: [&str; 4] = ["plan", "apply", "describe", "reverse"];

async fn ask(technology: &Postgresql, what: &str, change: &Change, context: &Context) -> Result<()> {
    let port = work(TABLE);
    match what {
        "plan" => technology.plan(&port, &Intent::Provision, context).await.map(drop),
        "apply" => technology.apply(&port, change, context).await,
        "describe" => technology.describe(&port, context).await.map(drop),
        _ => technology.reverse(&import_of("daily_totals"), context).await.map(drop),
    }
}

/// Returns the error and how long the call took. Panics if the call takes longer than 30 s.
async fn timed(asked: impl Future<Output = Result<()>>) -> (Error, Duration) {
    let begin = Instant::now();
    let done = tokio::time::timeout(30 * SECOND, asked).await;
    let error = done.expect("it waits for ever").unwrap_err();
    (error, begin.elapsed())
}

fn first_change() -> Change {
    let step = landfall_adapter::any::AnyStep::new(Step::Prepare, Intent::Provision);
    Change::new(landfall_adapter::Action::Create, "", "a change", step)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_server_misses_connect_timeout_and_is_retried() {
    let silent = SilentServer::start();
    for what in ASKED {
        let technology = impatient(&silent.url());
        let (error, took) = timed(ask(&technology, what, &first_change(), &Context::default())).await;
        assert_eq!(
            error.to_string(),
            format!(
                "target `PG_MAIN` did not answer within 1s (`connect_timeout`): see whether the server at \
                 `127.0.0.1:{}/d` is frozen, overloaded or cut off",
                silent.port
            ),
            "{what}"
        );
        assert!(error.is_retryable() && took < 5 * SECOND, "{what}: {took:?}");
        // No other caller waits for the silent server during the pause.
        let (error, took) = timed(ask(&technology, what, &first_change(), &Context::default())).await;
        assert!(error.is_retryable() && took < SECOND / 2, "{what}: {took:?}");
        assert!(error.to_string().contains("a moment ago, and is tried again in 1 s"), "{error}");
        assert!(error.retry_after().is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_server_blocks_few_tasks() {
    let silent = SilentServer::start();
    let technology = Arc::new(impatient(&silent.url()));
    let begin = Instant::now();
    let many = (0..50).map(|_| {
        let technology = Arc::clone(&technology);
        tokio::spawn(async move {
            timed(ask(&technology, "plan", &first_change(), &Context::default())).await.0.is_retryable()
        })
    });
    for one in many.collect::<Vec<_>>() {
        assert!(one.await.unwrap());
    }
    assert!(begin.elapsed() < 8 * SECOND, "{:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_while_the_server_is_silent_ends_at_once() {
    let silent = SilentServer::start();
    for what in ASKED {
        let technology = Postgresql::new(settings(&silent.url()));
        let context = Context::default();
        let stopping = context.cancel.clone();
        tokio::spawn(async move {
            tokio::time::sleep(SECOND / 5).await;
            stopping.cancel();
        });
        let (error, took) = timed(ask(&technology, what, &first_change(), &context)).await;
        assert_eq!(*error.kind(), Kind::Cancelled, "{what}");
        assert!(took < 5 * SECOND, "{what}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_server_misses_deadlines_and_is_used_again() {
    let target = Target::alone();
    let port = work(TABLE);
    let technology = impatient(target.technology.0.settings.url.expose());
    let context = Context::default();
    for change in technology.plan(&port, &Intent::Provision, &context).await.unwrap().changes {
        technology.apply(&port, &change, &context).await.unwrap();
    }
    // Idle sessions are checked before they are used.
    tokio::time::sleep(SECOND + SECOND / 5).await;
    target.server().freeze().unwrap();
    for what in ASKED {
        let (error, took) = timed(ask(&technology, what, &first_change(), &context)).await;
        assert!(error.is_retryable() && took < 6 * SECOND, "{what}: {took:?}: {}", error.report());
        assert!(error.to_string().contains("did not answer within 1s (`connect_timeout`)"), "{error}");
    }
    target.server().thaw().unwrap();
    tokio::time::sleep(SECOND + SECOND / 5).await;
    // One caller checks the server for all. Lost sessions hold no place in the pool.
    technology.plan(&port, &Intent::Provision, &context).await.unwrap();
    let again = (0..8).map(|_| technology.plan(&port, &Intent::Provision, &context));
    for plan in futures::future::join_all(again).await {
        assert_eq!(plan.unwrap().changes, []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statement_on_a_frozen_server_ends_by_deadline_or_stop() {
    let target = Target::alone();
    slow_down(&target);
    let port = work(TABLE);
    let url = target.technology.0.settings.url.expose();
    let slow = |statement_timeout| {
        Postgresql::new(PostgresqlSettings { connect_timeout: SECOND, statement_timeout, ..settings(url) })
    };
    for stopped in [false, true] {
        let technology = slow(if stopped { 600 * SECOND } else { 3 * SECOND });
        let context = Context::default();
        let plan = technology.plan(&port, &Intent::Provision, &context).await.unwrap();
        let applying = timed(technology.apply(&port, &plan.changes[0], &context));
        let ((error, took), ()) = tokio::join!(applying, async {
            until(&target, "1").await;
            target.server().freeze().unwrap();
            if stopped {
                context.cancel.cancel();
            }
        });
        target.server().thaw().unwrap();
        assert!(took < 12 * SECOND, "{took:?}");
        if stopped {
            assert_eq!(*error.kind(), Kind::Cancelled);
            let said = context.journal.drain().into_iter().map(|line| line.message).collect::<Vec<_>>();
            let warning =
                "target `PG_MAIN` does not answer: statements sent before the stop may still take effect";
            assert_eq!(said, [warning]);
        } else {
            assert_eq!(
                error.to_string(),
                "target `PG_MAIN` did not answer a statement within 4s (`statement_timeout` and `connect_timeout`): see \
                 whether the server is frozen, overloaded or cut off"
            );
            assert!(error.is_retryable());
        }
        until(&target, "0").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_in_use_are_waited_for_with_a_deadline() {
    let target = Target::fresh();
    let technology = Postgresql::new(PostgresqlSettings {
        connections: 1,
        connect_timeout: SECOND,
        statement_timeout: SECOND,
        ..settings(target.technology.0.settings.url.expose())
    });
    let context = Context::default();
    let held = technology.0.session(&context).await.unwrap();
    let (error, took) = timed(ask(&technology, "plan", &first_change(), &context)).await;
    assert_eq!(error.to_string(), "all 1 sessions (`connections`) of target `PG_MAIN` were in use for 2s");
    assert!(error.is_retryable() && took < 10 * SECOND, "{took:?}");
    drop(held);
    technology.plan(&work(TABLE), &Intent::Provision, &context).await.unwrap();
}

/// A fault that an administrator or an outage causes, and its repair.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outages_are_retried_with_a_reason_until_they_end() {
    let target = Target::alone();
    let (name, port) = (target.database.clone(), work(TABLE));
    let url = target.technology.0.settings.url.expose();
    let context = Context::default();
    // Each case has its own pool, because an idle session of a shared pool would already be authenticated.
    let cases: [(&str, String, String, &str); 8] = [
        (
            "read-only default",
            format!("ALTER ROLE {name} SET default_transaction_read_only = on"),
            format!("ALTER ROLE {name} RESET default_transaction_read_only"),
            "the server is read-only: cannot execute",
        ),
        (
            "changed password",
            format!("ALTER ROLE {name} PASSWORD 'another'"),
            format!("ALTER ROLE {name} PASSWORD '{}'", password_of(url)),
            "the server rejects the login of Landfall: password authentication failed",
        ),
        (
            "no login",
            format!("ALTER ROLE {name} NOLOGIN"),
            format!("ALTER ROLE {name} LOGIN"),
            "the server rejects the login of Landfall: role",
        ),
        (
            "no more sessions",
            format!("ALTER ROLE {name} CONNECTION LIMIT 0"),
            format!("ALTER ROLE {name} CONNECTION LIMIT -1"),
            "PostgreSQL has too many sessions: too many connections for role",
        ),
        (
            "a database without its name",
            format!("ALTER DATABASE {name} RENAME TO elsewhere"),
            format!("ALTER DATABASE elsewhere RENAME TO {name}"),
            "the database does not exist: database",
        ),
        (
            "a closed database",
            format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"),
            format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"),
            "the object is not in a state for it: database",
        ),
        (
            "no right to connect",
            format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC, {name}"),
            format!("GRANT ALL ON DATABASE {name} TO {name}"),
            "the role of the target may not do this: permission denied for database",
        ),
        (
            "no right to make roles",
            format!("ALTER ROLE {name} NOCREATEROLE"),
            format!("ALTER ROLE {name} CREATEROLE"),
            "the role of the target lacks rights for the change: have a superuser run `ALTER ROLE",
        ),
    ];
    let everything = async |technology: &Postgresql| -> Result<()> {
        for change in technology.plan(&port, &Intent::Provision, &context).await?.changes {
            technology.apply(&port, &change, &context).await?;
        }
        Ok(())
    };
    let begin = |database: &str, sql: &str| target.server().psql_in(database, sql).unwrap();
    for (what, cause, end, expected) in &cases {
        let technology = Postgresql::new(settings(url));
        begin("postgres", cause);
        let error = everything(&technology).await.unwrap_err();
        assert!(error.is_retryable(), "{what}: {:?}: {}", error.kind(), error.report());
        assert!(error.to_string().contains(expected), "{what}: {error}");
        begin("postgres", end);
        let seen = technology.plan(&port, &Intent::Provision, &context).await;
        assert!(seen.is_ok(), "{what} is over: {}", seen.unwrap_err().report());
    }
    // The whole server stops.
    let technology = Postgresql::new(settings(url));
    technology.plan(&port, &Intent::Provision, &context).await.unwrap();
    target.server().kill_immediately().unwrap();
    let error = everything(&technology).await.unwrap_err();
    assert!(error.is_retryable(), "{}", error.report());
    assert!(error.to_string().contains("nothing listens there"), "{error}");
    target.server().restart().unwrap();
    everything(&technology).await.unwrap();
    // A host name that cannot be resolved.
    let nowhere = Postgresql::new(settings("postgres://u:p@nowhere.invalid/d?sslmode=disable"));
    let error = everything(&nowhere).await.unwrap_err();
    assert!(
        error.is_retryable() && error.to_string().contains("the name of its host is not known"),
        "{error}"
    );
    // A server without TLS.
    let secret = Postgresql::new(settings(&format!("{url}?sslmode=verify-full")));
    let error = everything(&secret).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("cannot be reached with TLS"), "{error}");
}

fn password_of(url: &str) -> String {
    url::Url::parse(url).unwrap().password().unwrap().to_owned()
}

/// A session that was opened while the server was read-only stays read-only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_from_a_read_only_period_are_replaced() {
    let target = Target::fresh();
    let (name, port, context) = (&target.database, work(TABLE), Context::default());
    server().psql(&format!("ALTER ROLE {name} SET default_transaction_read_only = on")).unwrap();
    let technology = &target.technology;
    let many = (0..4).map(|_| technology.plan(&port, &Intent::Provision, &context));
    let plans = futures::future::join_all(many).await;
    let plan = plans.into_iter().next().unwrap().unwrap();
    server().psql(&format!("ALTER ROLE {name} RESET default_transaction_read_only")).unwrap();
    let error = technology.apply(&port, &plan.changes[0], &context).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("the server is read-only"), "{error}");
    technology.apply(&port, &plan.changes[0], &context).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn password_rotated_in_its_file_works_without_restart() {
    let target = Target::fresh();
    let url = target.technology.0.settings.url.expose().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("url");
    std::fs::write(&path, format!("{url}\n")).unwrap();
    let technology =
        Postgresql::new(PostgresqlSettings { url: Secret::from_file(&path).unwrap(), ..settings("") });
    let context = Context::default();
    let plan = async || technology.plan(&work(TABLE), &Intent::Provision, &context).await;
    plan().await.unwrap();
    // The idle session is terminated, and the next one needs the new password.
    let rotate = format!(
        "ALTER ROLE {0} PASSWORD 'rotated'; \
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{0}'",
        target.database
    );
    server().psql(&rotate).unwrap();
    let error = loop {
        // Retry until the client has noticed the end of the session.
        match plan().await {
            Err(error) if error.to_string().contains("lost") => {}
            Err(error) => break error,
            Ok(_) => tokio::time::sleep(SECOND / 20).await,
        }
    };
    assert!(error.is_retryable(), "{}", error.report());
    assert!(error.to_string().ends_with("; the file of `url` is read again at each try"), "{error}");
    // An unusable file changes nothing.
    for wrong in ["no URL", &url.replace(&target.database, "another")] {
        std::fs::write(&path, wrong).unwrap();
        assert!(plan().await.unwrap_err().to_string().contains("password authentication failed"));
    }
    std::fs::write(&path, url.replace(&password_of(&url), "rotated")).unwrap();
    plan().await.unwrap();
}
