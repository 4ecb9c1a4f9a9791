//! Rows that this version cannot read: written by a newer one, or damaged. Each of them fails or waits alone.

use super::*;
use crate::topology::{Attributes, Edit};

/// Runs SQL on the tables, without the store.
pub(crate) trait Tables: Send + Sync {
    /// Any number of statements.
    fn execute(&self, sql: &str);
}

/// Opens a fresh store and its tables.
pub(crate) trait OpenTables: AsyncFn(Limits) -> (Arc<dyn Store>, Box<dyn Tables>) {}
impl<F: AsyncFn(Limits) -> (Arc<dyn Store>, Box<dyn Tables>)> OpenTables for F {}

fn set(tables: &dyn Tables, token: Token, what: &str) {
    tables.execute(&format!("UPDATE task SET {what} WHERE id = '{token}'"));
}

pub(crate) const FORMAT_1: &str = include_str!("../ledger/golden/format-1.sql");

/// A change of a stored type that makes older rows unreadable, or writes them differently, needs a new format
/// version.
pub(crate) async fn rows_of_every_format_are_read(open: impl OpenTables) {
    assert_eq!(crate::ledger::formats::FORMAT, 1, "a new format has a golden file of its own");
    let (store, tables) = open(Limits::default()).await;
    tables.execute(FORMAT_1);
    let token = |number: u32| format!("00000000-0000-4000-8000-{number:012}").parse::<Token>().unwrap();
    let mut claimed = Vec::new();
    for lane in Lane::ALL {
        claimed.extend(claim_all(&store, lane, LEASE, 9).await.tasks);
    }
    claimed.sort_by_key(|task| task.token);
    assert_eq!(
        claimed.iter().map(|task| task.token).collect::<Vec<_>>(),
        (1..=5).map(token).collect::<Vec<_>>()
    );
    let same = |written: String| assert!(FORMAT_1.contains(&written), "{written}");
    for task in claimed {
        let request: Request = serde_json::from_str(&task.payload.to_string()).unwrap();
        assert_eq!(request.operation(), task.operation);
        same(format!("'{}'", serde_json::to_string(&request).unwrap()));
    }
    let task = snapshot(&store, token(6)).await;
    let report: Report = serde_json::from_value(task.outcome.unwrap()).unwrap();
    assert_eq!(report.problems.len(), 2);
    same(format!("'{}'", serde_json::to_string(&report).unwrap()));
    assert_eq!((task.state, task.attempt, task.reason.as_deref()), (State::Failed, 2, Some("it broke")));
    let lines: Vec<_> = task.logs.iter().map(|line| (line.level, line.message.as_str())).collect();
    let levels = [Level::Debug, Level::Info, Level::Warning, Level::Error];
    assert_eq!(lines, levels.into_iter().zip(["one", "two", "three", "four"]).collect::<Vec<_>>());
    assert_eq!(task.logs[1].at.timestamp_micros(), 1_700_000_001_000_001);
    assert_eq!(task.logs[1].phase.as_deref(), Some("urn:dmb:cmp:d:p:0:d"));

    let ids = ["urn:dmb:cmp:d:p:0:a", "urn:dmb:cmp:d:p:0:b"].map(str::to_owned);
    let found = store.deployments(&ids).await.unwrap();
    assert_eq!(
        found.iter().map(|one| one.status.as_str()).collect::<Vec<_>>(),
        ["provisioned", "unprovisioned"]
    );
    same(format!("'{}'", serde_json::to_string(&found[0].access).unwrap()));
    same(format!("'{}'", serde_json::to_string(&found[0].specific).unwrap()));
}

pub(crate) async fn an_unknown_operation_is_left_alone(open: impl OpenTables) {
    let (store, tables) = open(Limits::default()).await;
    let newer = submit(&store, provision("a", "f")).await;
    let behind = submit(&store, provision("a", "g")).await;
    let known = submit(&store, provision("b", "f")).await;
    set(&*tables, newer, "operation = 'teleport'");
    assert_eq!(claim_tokens(&store).await, [known]);
    let claims = claim_all(&store, Lane::Change, LEASE, 1).await;
    assert_eq!((claims.tasks.len(), claims.next_due), (0, None));
    assert_eq!(state(&store, newer).await, State::Queued, "a newer replica takes it");
    let error = store.task(&newer).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the operation `teleport` is not known to this version of Landfall; ask a newer one"
    );
    // It keeps its place in the line of its component, and can be stopped.
    assert_eq!(store.request_stop(&newer, StopScope::Any).await.unwrap(), Some(State::Terminated));
    assert_eq!(claim_tokens(&store).await, [behind]);
}

pub(crate) async fn a_suspect_of_an_unknown_operation_stops_no_other(open: impl OpenTables) {
    let (store, tables) = open(Limits::default()).await;
    let newer = submit(&store, provision("a", "f")).await;
    let known = submit(&store, provision("b", "f")).await;
    set(&*tables, newer, "operation = 'teleport', crashes = 2");
    set(&*tables, known, "crashes = 2");
    assert_eq!(claim_tokens(&store).await, [known]);
}

pub(crate) async fn a_newer_format_is_left_alone(open: impl OpenTables) {
    let (store, tables) = open(Limits::default()).await;
    let newer = submit(&store, provision("a", "f")).await;
    let known = submit(&store, provision("b", "f")).await;
    set(&*tables, newer, "format = 99, payload = 'not JSON at all'");
    assert_eq!(claim_tokens(&store).await, [known]);
    assert_eq!(claim_all(&store, Lane::Change, LEASE, 1).await.next_due, None);
    assert_eq!(state(&store, newer).await, State::Queued);
    let error = store.task(&newer).await.unwrap_err();
    assert_eq!(error.kind(), &Kind::Retryable);
    assert_eq!(
        error.to_string(),
        "the operation was stored in format 99, and this version of Landfall reads 1; ask a newer one"
    );
}

pub(crate) async fn an_unreadable_task_fails_alone(open: impl OpenTables) {
    let (store, tables) = open(Limits::default()).await;
    let mut odd = Vec::new();
    for (number, (what, column)) in [
        ("payload = '{\"secret'", "payload"),
        ("payload = NULL", "payload"),
        ("components = 'x'", "components"),
        ("targets = '{}'", "targets"),
        ("attempt = -7", "attempt"),
        ("crashes = -7", "crashes"),
    ]
    .into_iter()
    .enumerate()
    {
        let token = submit(&store, provision(&format!("odd{number}"), "f")).await;
        set(&*tables, token, what);
        odd.push((token, column));
    }
    let good = submit(&store, provision("good", "f")).await;
    let behind = submit(&store, provision("odd0", "g")).await;
    let mut hints = store.hints();
    assert_eq!(claim_tokens(&store).await, [good], "in the same claim");
    assert_eq!(claim_tokens(&store).await, [behind], "the task that waited for one of them runs");
    let mut told: HashSet<Token> = odd.iter().map(|(token, _)| *token).collect();
    let all = async {
        while !told.is_empty() {
            if let Hint::Finished(token) = hints.recv().await.unwrap() {
                told.remove(&token);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all).await.expect("every waiting caller is notified");
    for (token, column) in odd {
        let task = snapshot(&store, token).await;
        let expected = format!(
            "the stored request cannot be read by this version of Landfall (column `{column}`); send it again"
        );
        assert_eq!((task.state, task.reason), (State::Failed, Some(expected.clone())));
        assert_eq!(task.logs.last().unwrap().message, expected);
    }
}

pub(crate) async fn invalid_numbers_do_not_block_other_tasks(open: impl OpenTables) {
    let (store, tables) = open(Limits { max_crashes: 3, ..Limits::default() }).await;
    let odd = submit(&store, provision("a", "f")).await;
    let good = submit(&store, provision("b", "f")).await;
    claim_all(&store, Lane::Change, NO_LEASE, 2).await;
    set(&*tables, odd, "crashes = -1");
    let swept: Vec<_> = store.expire_leases().await.unwrap().iter().map(|one| one.token).collect();
    assert_eq!(swept.len(), 2, "{swept:?}");
    assert_eq!(state(&store, good).await, State::Queued);

    let claims = claim_all(&store, Lane::Change, LEASE, 2).await.tasks;
    let lease = &claims.iter().find(|task| task.token == good).unwrap().lease;
    set(&*tables, good, "log_lines = -1");
    store.append_logs(lease, vec![line("x")]).await.unwrap();
    assert_eq!(settle(&store, lease, done()).await, Some(State::Completed));
}

pub(crate) async fn unreadable_running_task_does_not_block_claims(open: impl OpenTables) {
    let per_target = Arc::new(BTreeMap::from([("t".to_owned(), 2)]));
    let (store, tables) = open(Limits { per_target, ..Limits::default() }).await;
    let odd = submit(&store, provision("a", "f")).await;
    let next = submit(&store, provision("b", "f")).await;
    assert!(claim(&store).await.is_some());
    set(&*tables, odd, "targets = 'x'");
    assert_eq!(claim_tokens(&store).await, [next]);
}

pub(crate) async fn unreadable_log_line_does_not_hide_its_task(open: impl OpenTables) {
    let (store, tables) = open(Limits::default()).await;
    let token = submit(&store, provision("a", "f")).await;
    let lease = claim(&store).await.unwrap().lease;
    store.append_logs(&lease, vec![line("one"), line("two"), line("three")]).await.unwrap();
    tables.execute("UPDATE task_log SET level = 'notice' WHERE line = 0");
    tables.execute("UPDATE task_log SET at = 9223372036854775807 WHERE line = 1");
    let log = log_of(&store, token).await;
    let texts: Vec<_> = log.iter().map(|line| line.message.as_str()).collect();
    assert_eq!(texts, ["one", "two", "three"]);
}

pub(crate) async fn unreadable_deployment_is_named_and_blocks_no_other(open: impl OpenTables) {
    let (store, tables) = open(Limits::default()).await;
    submit(&store, request(Operation::Provision, &["a", "b", "c", "d"], "f")).await;
    let lease = claim(&store).await.unwrap().lease;
    for name in ["a", "b", "c", "d"] {
        assert!(store.put_deployment(&lease, &deployment(name, "lake")).await.unwrap());
    }
    tables.execute("UPDATE deployment SET specific = '{\"secret' WHERE component = 'a'");
    tables.execute("UPDATE deployment SET format = 99 WHERE component = 'b'");
    tables.execute("UPDATE deployment SET access = '[]' WHERE component = 'd'");
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    for (name, why) in
        [("a", "column `specific`"), ("b", "format 99, and this version reads 1"), ("d", "column `access`")]
    {
        let expected = format!(
            "what is remembered of component `{name}` in environment `dev` cannot be read by this version of \
             Landfall ({why}); run a version that can, or restore the operation store"
        );
        let error = store.deployment(&ComponentKey::new(name, "dev")).await.unwrap_err();
        let kind = if name == "b" { Kind::Retryable } else { Kind::Permanent };
        assert_eq!((error.kind(), error.to_string()), (&kind, expected.clone()));
        assert!(!error.report().contains("secret"), "{}", error.report());
        let error = store.deployments(&names(&["c", name])).await.unwrap_err();
        assert_eq!(error.to_string(), expected, "unknown is not absent");
    }
    assert_eq!(store.deployments(&names(&["c"])).await.unwrap().len(), 1);
}

pub(crate) async fn unreadable_instance_is_skipped_and_replaceable(open: impl OpenTables) {
    let (store, tables) = open(Limits::default()).await;
    let named =
        |code: &str| Attributes { code: code.to_owned(), name: code.to_owned(), ..Attributes::default() };
    let make = async |code: &str| store.edit_instance(Edit::Create(named(code))).await.unwrap().unwrap().id;
    let (odd, good) = (make("A").await, make("B").await);
    tables.execute(&format!("UPDATE instance SET attributes = '{{' WHERE id = {odd}"));
    tables.execute("UPDATE topology SET revision = revision + 1");
    make("C").await;
    let ids: Vec<i64> = store.instances().await.unwrap().iter().map(|instance| instance.id).collect();
    assert!(ids.contains(&good) && !ids.contains(&odd), "{ids:?}");
    let error = store.edit_instance(Edit::Patch(odd, Default::default())).await.unwrap_err();
    assert_eq!(error.to_string(), format!("the attributes of instance {odd} as stored cannot be read"));
    store.edit_instance(Edit::Replace(odd, named("A"))).await.unwrap().unwrap();
    assert_eq!(store.instances().await.unwrap().len(), 3);
}

pub(crate) async fn reports_tasks_of_newer_versions(open: impl OpenTables) {
    let (store, tables) = open(Limits::default()).await;
    let newer = submit(&store, provision("a", "f")).await;
    set(&*tables, newer, "operation = 'teleport'");
    let heads: Vec<_> = store.due("w").await.unwrap().iter().map(|due| (due.lane, due.known)).collect();
    assert_eq!(heads, [(Lane::Change, false)]);
}

const TEN_YEARS: i64 = 10 * 365 * 24 * 3600 * 1_000_000;
const HOUR: i64 = 3600 * 1_000_000;

async fn finish(store: &Arc<dyn Store>, component: &str) -> Token {
    let token = submit(store, provision(component, "f")).await;
    let lease = claim(store).await.unwrap().lease;
    settle(store, &lease, done()).await;
    token
}

/// After a clock jumps ahead, all earlier rows seem to be older by that time.
pub(crate) async fn clock_jump_deletes_no_task(open: impl OpenTables) {
    let keep_for = Duration::from_secs(3600);
    let (store, tables) = open(Limits { keep_for, ..Limits::default() }).await;
    let before = finish(&store, "a").await;
    tables.execute(&format!("UPDATE task SET finished_at = finished_at - {TEN_YEARS}"));
    tables.execute(&format!("UPDATE clock SET seen_at = seen_at - {TEN_YEARS}"));
    assert_eq!(store.purge().await.unwrap(), 0);
    let meanwhile = finish(&store, "b").await;
    // The clock jumps back: rows that were written meanwhile seem to be from the future.
    tables.execute(&format!("UPDATE task SET finished_at = finished_at + {TEN_YEARS}"));
    tables.execute(&format!("UPDATE clock SET seen_at = seen_at + {TEN_YEARS}"));
    assert_eq!(store.purge().await.unwrap(), 0);
    let after = finish(&store, "c").await;
    for token in [before, meanwhile, after] {
        assert_eq!(state(&store, token).await, State::Completed);
    }
    // Time that passes while a process measures it counts, whichever clock wrote the end.
    tables.execute(&format!("UPDATE clock SET elapsed = elapsed + {HOUR} - 1800000000"));
    assert_eq!(store.purge().await.unwrap(), 0, "half of it");
    // A little more, because the time while the clock was back did not count.
    tables.execute("UPDATE clock SET elapsed = elapsed + 1860000000");
    assert_eq!(store.purge().await.unwrap(), 3);
}

pub(crate) async fn retention_keeps_the_latest_finished_tasks(open: impl OpenTables) {
    let (store, tables) = open(Limits { keep_count: 1, ..Limits::default() }).await;
    let first = finish(&store, "a").await;
    // It finished while the clock was ahead.
    tables.execute(&format!("UPDATE task SET finished_at = finished_at + {TEN_YEARS}"));
    let second = finish(&store, "b").await;
    assert_eq!(store.purge().await.unwrap(), 1);
    assert_eq!(store.state(&first).await.unwrap(), None);
    assert_eq!(state(&store, second).await, State::Completed);
}
