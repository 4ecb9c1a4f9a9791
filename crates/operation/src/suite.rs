//! The contract of every store. `store_suite!` instantiates it with a function that opens a fresh store.

mod instances;
mod odd;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use landfall_adapter::error::{Kind, Result};
use landfall_adapter::{AccessList, Level, LogLine};

const LEASE: Duration = Duration::from_secs(60);
/// A lease that has expired when it is first checked.
const NO_LEASE: Duration = Duration::ZERO;

/// One `#[tokio::test]` per check, each with a store of its own from `$open(Limits) -> Arc<dyn Store>` (async;
/// the second half of the pair it returns is kept for as long as the store is used).
macro_rules! store_suite {
    ($open:path: $($check:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                $crate::suite::$check(async |limits| $open(limits).await).await;
            }
        )*
    };
    ($open:path) => {
        $crate::suite::store_suite!($open:
            unknown_token_has_no_task
            submission_is_read_back_unchanged
            the_same_request_joins_while_it_is_in_flight
            a_stopped_task_is_not_joined
            a_superseded_task_is_not_joined
            a_full_queue_refuses_but_lets_join
            a_full_lane_refuses_nothing_of_the_others
            a_lane_is_bounded_by_bytes
            submissions_of_others_count_against_the_limit
            heads_of_lanes_are_the_next_claimed_tasks
            claims_are_in_order_of_submission_by_lane
            a_component_has_one_task_at_a_time_in_order
            a_task_of_several_components_waits_for_all_of_them
            a_retry_waits_and_keeps_its_place
            time_without_a_worker_does_not_count_as_failure
            a_crash_ends_the_time_of_failure
            a_release_gives_the_attempt_back
            stop_with_waiting_scope_leaves_running_tasks
            last_lines_of_a_stopped_run_are_correct
            the_state_machine_is_the_pure_table
            a_lost_lease_writes_nothing
            heartbeat_extends_the_lease_and_reports_a_stop
            an_expired_lease_requeues_until_it_is_given_up
            task_that_crashed_twice_waits
            suspects_run_one_at_a_time
            target_runs_at_most_its_limit
            a_full_target_leaves_slots_for_others
            logs_are_ordered_and_bounded
            deployments_are_written_under_the_lease_of_their_component
            memory_needs_the_lease_and_survives_other_writes
            old_tasks_are_collected_and_unfinished_ones_are_not
            edited_instance_is_read_back
            instance_codes_are_unique
            topology_size_is_limited
            the_longest_code_is_kept
            a_target_is_seeded_once_and_then_left_alone
            concurrent_edits_lose_nothing
            commits_send_notifications
            concurrent_submissions_join
            concurrent_claims_never_share
            a_random_history_agrees_with_the_model
        );
    };
}
pub(super) use store_suite;

/// The same for checks that change tables directly: `$open(Limits) -> (Arc<dyn Store>, Box<dyn Tables>)`.
macro_rules! tables_suite {
    ($open:path) => {
        $crate::suite::store_suite!($open:
            rows_of_every_format_are_read
            an_unknown_operation_is_left_alone
            a_suspect_of_an_unknown_operation_stops_no_other
            a_newer_format_is_left_alone
            an_unreadable_task_fails_alone
            invalid_numbers_do_not_block_other_tasks
            unreadable_running_task_does_not_block_claims
            unreadable_log_line_does_not_hide_its_task
            unreadable_deployment_is_named_and_blocks_no_other
            unreadable_instance_is_skipped_and_replaceable
            clock_jump_deletes_no_task
            retention_keeps_the_latest_finished_tasks
            reports_tasks_of_newer_versions
        );
    };
}
pub(super) use tables_suite;

pub(super) use self::instances::*;
pub(super) use self::odd::*;

/// Opens a fresh store.
pub(super) trait Open: AsyncFn(Limits) -> (Arc<dyn Store>, Box<dyn std::any::Any>) {}
impl<F: AsyncFn(Limits) -> (Arc<dyn Store>, Box<dyn std::any::Any>)> Open for F {}

fn request(operation: Operation, components: &[&str], fingerprint: &str) -> NewTask {
    NewTask {
        operation,
        components: components.iter().map(|c| ComponentKey::new(*c, "dev")).collect(),
        targets: vec!["t".to_owned()],
        fingerprint: fingerprint.to_owned(),
        payload: json!({"fingerprint": fingerprint}).to_string().into(),
    }
}

/// A provisioning, with a payload that the test searches for where it must not be.
pub(super) fn submission(component: &str) -> Submission {
    let task = NewTask {
        operation: Operation::Provision,
        components: vec![ComponentKey::new(component, "dev")],
        targets: Vec::new(),
        fingerprint: "f".to_owned(),
        payload: json!({"private": 1}).to_string().into(),
    };
    Submission { token: Token::random(), task }
}

fn provision(component: &str, fingerprint: &str) -> NewTask {
    request(Operation::Provision, &[component], fingerprint)
}

async fn try_submit(store: &Arc<dyn Store>, task: NewTask) -> Result<Submitted> {
    store.submit(Submission { token: Token::random(), task }).await
}

async fn submit(store: &Arc<dyn Store>, task: NewTask) -> Token {
    try_submit(store, task).await.unwrap().token
}

async fn claim_all(store: &Arc<dyn Store>, lane: Lane, lease: Duration, limit: usize) -> Claims {
    store.claim(&ClaimRequest { lane, worker: "w".to_owned(), lease, limit }).await.unwrap()
}

async fn claim(store: &Arc<dyn Store>) -> Option<ClaimedTask> {
    claim_all(store, Lane::Change, LEASE, 1).await.tasks.pop()
}

async fn claim_tokens(store: &Arc<dyn Store>) -> Vec<Token> {
    claim_all(store, Lane::Change, LEASE, 100).await.tasks.iter().map(|task| task.token).collect()
}

async fn settle(store: &Arc<dyn Store>, lease: &Lease, ending: Ending) -> Option<State> {
    store.settle(lease, Settlement { ending, lines: vec![], closing: None }).await.unwrap()
}

fn done() -> Ending {
    Ending::Succeed { outcome: json!({"done": true}) }
}

fn failed() -> Ending {
    Ending::Fail { outcome: None, reason: "it broke".to_owned() }
}

fn again() -> Ending {
    Ending::Retry { after: Duration::ZERO, outcome: None, reason: "not yet".to_owned() }
}

async fn state(store: &Arc<dyn Store>, token: Token) -> State {
    store.state(&token).await.unwrap().unwrap()
}

async fn snapshot(store: &Arc<dyn Store>, token: Token) -> Task {
    store.task(&token).await.unwrap().unwrap()
}

async fn log_of(store: &Arc<dyn Store>, token: Token) -> Vec<LogLine> {
    snapshot(store, token).await.logs
}

fn line(message: impl Into<String>) -> LogLine {
    LogLine { at: chrono::Utc::now(), level: Level::Info, message: message.into(), phase: None }
}

pub(super) async fn unknown_token_has_no_task(open: impl Open) {
    let (store, _kept) = open(Limits::default()).await;
    let token = Token::random();
    assert_eq!(store.task(&token).await.unwrap(), None);
    assert_eq!(store.state(&token).await.unwrap(), None);
    assert_eq!(store.request_stop(&token, StopScope::Any).await.unwrap(), None);
    assert_eq!(store.deployment(&ComponentKey::new("a", "dev")).await.unwrap(), None);
    assert_eq!(store.counts().await.unwrap(), Counts::default());
    assert_eq!(store.expire_leases().await.unwrap(), vec![]);
    assert_eq!(store.purge().await.unwrap(), 0);
    assert!(claim(&store).await.is_none());
}

pub(super) async fn submission_is_read_back_unchanged(open: impl Open) {
    let (store, _kept) = open(Limits::default()).await;
    let before = chrono::Utc::now();
    let mut new = request(Operation::UpdateAccess, &["b", "a", "b"], "f");
    new.targets = vec!["u".to_owned(), "t".to_owned(), "u".to_owned()];
    let payload = json!({"z": [1, null, "ü\u{0}\"'"], "a": 1.5});
    new.payload = payload.to_string().into();
    let token = submit(&store, new.clone()).await;
    let task = snapshot(&store, token).await;
    assert_eq!(task.operation, Operation::UpdateAccess);
    assert_eq!(task.components, vec![ComponentKey::new("a", "dev"), ComponentKey::new("b", "dev")]);
    assert_eq!(task.targets, ["t", "u"]);
    assert_eq!((task.state, task.attempt), (State::Queued, 0));
    assert!((task.submitted_at - before).num_seconds().abs() < 60);
    assert_eq!((task.started_at, task.finished_at, task.outcome, task.reason), (None, None, None, None));
    let claimed = claim(&store).await.unwrap();
    assert_eq!(claimed.payload, payload);
    assert_eq!(claimed.payload.to_string(), payload.to_string(), "the order of keys is kept");
    assert_eq!(claimed.components, task.components);
    assert_eq!((claimed.attempt, claimed.crashes, claimed.failing_for), (1, 0, None));
    assert_eq!(claimed.lease.owner, "w");
}

pub(super) async fn the_same_request_joins_while_it_is_in_flight(open: impl Open) {
    let (store, _kept) = open(Limits::default()).await;
    let first = try_submit(&store, provision("a", "f")).await.unwrap();
    assert!(!first.deduplicated);
    let joined = Submitted { token: first.token, deduplicated: true };
    assert_eq!(try_submit(&store, provision("a", "f")).await.unwrap(), joined);
    let lease = claim(&store).await.unwrap().lease;
    assert_eq!(try_submit(&store, provision("a", "f")).await.unwrap(), joined, "while it runs");
    assert_eq!(settle(&store, &lease, again()).await, Some(State::Queued));
    assert_eq!(try_submit(&store, provision("a", "f")).await.unwrap(), joined, "while it waits for a retry");
    let lease = claim(&store).await.unwrap().lease;
    settle(&store, &lease, done()).await;
    assert!(!try_submit(&store, provision("a", "f")).await.unwrap().deduplicated, "after its end");

    // Operations without changes have no components, and join by operation and fingerprint alone.
    let validation = try_submit(&store, request(Operation::Validate, &[], "f")).await.unwrap();
    assert!(try_submit(&store, request(Operation::Validate, &[], "f")).await.unwrap().deduplicated);
    assert!(!try_submit(&store, request(Operation::Reverse, &[], "f")).await.unwrap().deduplicated);
    assert!(!try_submit(&store, request(Operation::Validate, &[], "g")).await.unwrap().deduplicated);
    assert_ne!(validation.token, first.token);
}

pub(super) async fn a_stopped_task_is_not_joined(open: impl Open) {
    let (store, _kept) = open(Limits::default()).await;
    let first = submit(&store, provision("a", "f")).await;
    claim(&store).await.unwrap();
    store.request_stop(&first, StopScope::Any).await.unwrap();
    let second = submit(&store, provision("a", "f")).await;
    assert_ne!(first, second, "the first one will not do what is asked now");
    store.request_stop(&second, StopScope::Any).await.unwrap();
    assert_ne!(submit(&store, provision("a", "f")).await, second);
}

pub(super) async fn a_superseded_task_is_not_joined(open: impl Open) {
    let (store, _kept) = open(Limits::default()).await;
    let up = submit(&store, provision("a", "f")).await;
    let down = submit(&store, request(Operation::Unprovision, &["b", "a"], "f")).await;
    let up_again = submit(&store, provision("a", "f")).await;
    assert_eq!(HashSet::from([up, down, up_again]).len(), 3, "the last word is up, so it must run last");
    assert_eq!(submit(&store, provision("a", "f")).await, up_again);
    // `down` is still the latest task of b, but not of a.
    assert_ne!(submit(&store, request(Operation::Unprovision, &["b", "a"], "f")).await, down);

    // The same for submissions so close together that a store may commit them at once.
    let wave = futures::future::join_all((0..60).map(|n| {
        let operation = if n % 2 == 0 { Operation::Provision } else { Operation::Unprovision };
        try_submit(&store, request(operation, &["c"], "f"))
    }));
    let tokens: Vec<Submitted> = wave.await.into_iter().map(|one| one.unwrap()).collect();
    let mut claimed = Vec::new();
    while let Some(task) = claim(&store).await {
        if task.components == [ComponentKey::new("c", "dev")] {
            claimed.push((task.token, task.operation));
        }
        settle(&store, &task.lease, done()).await;
    }
    let distinct: HashSet<Token> = tokens.iter().map(|one| one.token).collect();
    assert_eq!(claimed.len(), distinct.len());
    for pair in claimed.windows(2) {
        assert_ne!(pair[0].1, pair[1].1, "two of a kind in a row should have been one");
    }
}

pub(super) async fn a_full_queue_refuses_but_lets_join(open: impl Open) {
    let (store, _kept) = open(Limits { max_queued: 2, ..Limits::default() }).await;
    let first = submit(&store, provision("a", "f")).await;
    submit(&store, provision("b", "f")).await;
    let error = try_submit(&store, provision("c", "f")).await.unwrap_err();
    assert_eq!(error.kind(), &Kind::Overloaded);
    assert!(error.to_string().contains('2'), "{error}");
    assert_eq!(submit(&store, provision("a", "f")).await, first);
    claim(&store).await.unwrap();
    submit(&store, provision("c", "f")).await;
    // Fewer places than submissions, all at the same time, among them two equal requests.
    claim_tokens(&store).await;
    let names = ["d", "e", "e", "f", "g"];
    let wave = futures::future::join_all(names.map(|name| try_submit(&store, provision(name, "f")))).await;
    assert_eq!(wave.iter().filter(|one| one.is_err()).count(), 2);
    assert_eq!(store.counts().await.unwrap(), Counts { queued: 2, running: 3 });
}

pub(super) async fn a_full_lane_refuses_nothing_of_the_others(open: impl Open) {
    let (store, _kept) = open(Limits { max_queued: 2, ..Limits::default() }).await;
    let validate = async |n: u32| try_submit(&store, request(Operation::Validate, &[], &n.to_string())).await;
    validate(1).await.unwrap();
    validate(2).await.unwrap();
    let error = validate(3).await.unwrap_err();
    assert_eq!(error.kind(), &Kind::Overloaded);
    assert_eq!(
        error.to_string(),
        "2 operations are waiting in lane `validation`, which is the limit (operations.max_queued); try again later"
    );
    submit(&store, provision("a", "f")).await;
    submit(&store, request(Operation::Reverse, &[], "f")).await;
    // In one commit, for two lanes: only those of the full lane are refused.
    let wave = futures::future::join_all((0..6).map(|n| {
        let operation = [Operation::Validate, Operation::Reverse][n % 2];
        try_submit(&store, request(operation, &[], &format!("w{n}")))
    }));
    let accepted: Vec<bool> = wave.await.iter().map(Result::is_ok).collect();
    assert_eq!(accepted.iter().filter(|ok| **ok).count(), 1, "{accepted:?}");
}

fn sized(component: &str, bytes: usize) -> NewTask {
    NewTask { payload: json!({"text": "x".repeat(bytes)}).to_string().into(), ..provision(component, "f") }
}

pub(super) async fn a_lane_is_bounded_by_bytes(open: impl Open) {
    let (store, _kept) = open(Limits { max_queued_bytes: 1000, ..Limits::default() }).await;
    submit(&store, sized("a", 400)).await;
    submit(&store, sized("b", 400)).await;
    let error = try_submit(&store, sized("c", 400)).await.unwrap_err();
    assert_eq!(error.kind(), &Kind::Overloaded);
    assert_eq!(
        error.to_string(),
        "the operations that wait in lane `change` and this one, of 411 bytes, are larger than the limit of 1000 bytes \
         (operations.max_queued_bytes); try again later"
    );
    submit(&store, sized("d", 10)).await;
    submit(&store, NewTask { payload: sized("e", 900).payload, ..request(Operation::Validate, &[], "f") })
        .await;
    let lease = claim(&store).await.unwrap().lease;
    submit(&store, sized("c", 400)).await;
    // The running task waits again.
    settle(&store, &lease, again()).await;
    try_submit(&store, sized("f", 400)).await.unwrap_err();
    while let Some(task) = claim(&store).await {
        settle(&store, &task.lease, done()).await;
    }
    submit(&store, sized("g", 5000)).await;
    try_submit(&store, sized("h", 10)).await.expect_err("the one before takes all there is");
}

/// The view of another process: it gets no notifications and polls.
pub(super) async fn submissions_of_others_count_against_the_limit(open: impl Open) {
    let (store, _kept) = open(Limits { max_queued: 5, ..Limits::default() }).await;
    let mut accepted = 0;
    for n in 0..20 {
        accepted += usize::from(try_submit(&store, provision(&format!("c{n}"), "f")).await.is_ok());
        if n == 2 {
            for task in claim_all(&store, Lane::Change, LEASE, 3).await.tasks {
                settle(&store, &task.lease, again()).await;
            }
        }
    }
    assert_eq!(accepted, 5);
}

pub(super) async fn heads_of_lanes_are_the_next_claimed_tasks(open: impl Open) {
    let per_target = Arc::new(BTreeMap::from([("closed".to_owned(), 0)]));
    let (store, _kept) = open(Limits { per_target, ..Limits::default() }).await;
    store.check().await.unwrap();
    let lanes = async || -> Vec<(Lane, bool)> {
        store.due("w").await.unwrap().iter().map(|due| (due.lane, due.known)).collect()
    };
    assert_eq!(lanes().await, []);
    submit(&store, NewTask { targets: vec!["closed".to_owned()], ..provision("a", "f") }).await;
    submit(&store, provision("a", "g")).await;
    assert_eq!(lanes().await, [], "one waits for its target, the other for the first");
    submit(&store, provision("b", "f")).await;
    submit(&store, request(Operation::Reverse, &[], "f")).await;
    assert_eq!(lanes().await, [(Lane::Change, true), (Lane::Import, true)]);
    let due = store.due("w").await.unwrap()[0];
    assert!(due.due_for < Duration::from_secs(30), "{due:?}");
    claim(&store).await.unwrap();
    assert_eq!(lanes().await, [(Lane::Import, true)]);
}

pub(super) async fn claims_are_in_order_of_submission_by_lane(open: impl Open) {
    let (store, _kept) = open(Limits::default()).await;
    let mut expected = Vec::new();
    for name in ["a", "b", "c", "d"] {
        expected.push(submit(&store, provision(name, "f")).await);
    }
    let validation = submit(&store, request(Operation::Validate, &[], "f")).await;
    let import = submit(&store, request(Operation::Reverse, &[], "f")).await;
    assert_eq!(claim_all(&store, Lane::Validation, LEASE, 9).await.tasks[0].token, validation);
    assert_eq!(claim_all(&store, Lane::Import, LEASE, 9).await.tasks[0].token, import);
    assert_eq!(claim_all(&store, Lane::Change, LEASE, 0).await.tasks.len(), 0);
    let first: Vec<Token> =
        claim_all(&store, Lane::Change, LEASE, 3).await.tasks.iter().map(|task| task.token).collect();
    assert_eq!(first, expected[..3]);
    assert_eq!(claim_tokens(&store).await, expected[3..]);
    assert_eq!(claim_tokens(&store).await, vec![]);
}

pub(super) async fn a_component_has_one_task_at_a_time_in_order(open: impl Open) {
    let (store, _kept) = open(Limits::default()).await;
    let first = submit(&store, provision("a", "1")).await;
    let second = submit(&store, provision("a", "2")).await;
    let third = submit(&store, provision("a", "3")).await;
    let elsewhere =
        submit(&store, NewTask { components: vec![ComponentKey::new("a", "prod")], ..provision("a", "1") })
            .await;
    let claimed = claim_all(&store, Lane::Change, LEASE, 9).await.tasks;
    assert_eq!(claimed.iter().map(|task| task.token).collect::<Vec<_>>(), vec![first, elsewhere]);
    // A task that leaves the middle of the line lets no other task overtake.
    store.request_stop(&second, StopScope::Any).await.unwrap();
    assert_eq!(claim_tokens(&store).await, vec![]);
    settle(&store, &claimed[0].lease, failed()).await;
    assert_eq!(claim_tokens(&store).await, vec![third]);
}

pub(super) async fn a_task_of_several_components_waits_for_all_of_them(open: impl Open) {
    let (store, _kept) = open(Limits::default()).await;
    let a = submit(&store, provision("a", "1")).await;
    let b = submit(&store, provision("b", "1")).await;
    let both = submit(&store, request(Operation::Provision, &["b", "a"], "1")).await;
    let a_later = submit(&store, provision("a", "2")).await;
    let c = submit(&store, provision("c", "1")).await;
    let claimed = claim_all(&store, Lane::Change, LEASE, 9).await.tasks;
    assert_eq!(claimed.iter().map(|task| task.token).collect::<Vec<_>>(), vec![a, b, c]);
    settle(&store, &claimed[0].lease, done()).await;
    assert_eq!(claim_tokens(&store).await, vec![], "b is still taken, and no task overtakes on a");
    settle(&store, &claimed[1].lease, done()).await;
    let claimed = claim_all(&store, Lane::Change, LEASE, 9).await.tasks;
    assert_eq!(claimed.iter().map(|task| task.token).collect::<Vec<_>>(), vec![both]);
    settle(&store, &claimed[0].lease, done()).await;
    assert_eq!(claim_tokens(&store).await, vec![a_later]);
}

pub(super) async fn a_retry_waits_and_keeps_its_place(open: impl Open) {
    let (store, _kept) = open(Limits::default()).await;
    let first = submit(&store, provision("a", "1")).await;
    submit(&store, provision("a", "2")).await;
    let lease = claim(&store).await.unwrap().lease;
    let hour = Duration::from_secs(3600);
    let ending = Ending::Retry { after: hour, outcome: None, reason: "not yet".to_owned() };
    assert_eq!(settle(&store, &lease, ending).await, Some(State::Queued));
    let claims = claim_all(&store, Lane::Change, LEASE, 9).await;
    assert_eq!(claims.tasks.len(), 0, "no task overtakes a waiting one");
    let next_due = claims.next_due.unwrap();
    assert!(next_due <= hour && next_due > hour - Duration::from_secs(60), "{next_due:?}");
    assert_eq!(claim_all(&store, Lane::Import, LEASE, 9).await.next_due, None);
    assert_eq!(store.request_stop(&first, StopScope::Any).await.unwrap(), Some(State::Terminated));
    let reason = snapshot(&store, first).await.reason;
    assert_eq!(reason.as_deref(), Some("stopped on request while it waited for its next run"));
    assert_eq!(claim_tokens(&store).await.len(), 1);
}

/// Runs and requested waits use up the time for retries. The time in which a due task waits because all processes are
/// down does not, nor does a jump of the clock.
pub(super) async fn time_without_a_worker_does_not_count_as_failure(open: impl Open) {
    let (store, _kept) = open(Limits::default()).await;
    let lapse = Duration::from_secs(1);
    submit(&store, provision("a", "1")).await;
    let claimed = claim(&store).await.unwrap();
    assert_eq!(claimed.failing_for, None);
    // The first run takes long, and has not failed meanwhile.
    tokio::time::sleep(lapse).await;
    settle(&store, &claimed.lease, again()).await;
    tokio::time::sleep(lapse).await;
    let claimed = claim(&store).await.unwrap();
    assert!(claimed.failing_for.unwrap() < lapse, "{:?}", claimed.failing_for);
    let wait = Duration::from_millis(200);
    let ending = Ending::Retry { after: wait, outcome: None, reason: "not yet".to_owned() };
    settle(&store, &claimed.lease, ending).await;
    tokio::time::sleep(wait + lapse).await;
    let claimed = claim(&store).await.unwrap();
    let so_far = claimed.failing_for.unwrap();
    assert!(so_far >= wait && so_far < wait + lapse, "{so_far:?}");
    // The count continues after a handover.
    settle(&store, &claimed.lease, Ending::Release).await;
    let claimed = claim(&store).await.unwrap();
    assert!(claimed.failing_for.unwrap() >= so_far, "{:?} {so_far:?}", claimed.failing_for);
}

pub(super) async fn a_crash_ends_the_time_of_failure(open: impl Open) {
    let (store, _kept) = open(Limits::default()).await;
    submit(&store, provision("a", "1")).await;
    let lease = claim(&store).await.unwrap().lease;
    settle(&store, &lease, again()).await;
    let claimed = claim_all(&store, Lane::Change, Duration::from_millis(1), 1).await.tasks.remove(0);
    assert!(claimed.failing_for.is_some());
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(store.expire_leases().await.unwrap().len(), 1);
    let claimed = claim(&store).await.unwrap();
    assert_eq!((claimed.crashes, claimed.failing_for), (1, None));
}

pub(super) async fn a_release_gives_the_attempt_back(open: impl Open) {
    let (store, _kept) = open(Limits::default()).await;
    let token = submit(&store, provision("a", "1")).await;
    for epoch in 1..=3 {
        let claimed = claim(&store).await.unwrap();
        assert_eq!((claimed.attempt, claimed.crashes, claimed.lease.epoch), (1, 0, epoch));
        assert_eq!(settle(&store, &claimed.lease, Ending::Release).await, Some(State::Queued));
    }
    assert_eq!(snapshot(&store, token).await.attempt, 0);
}

pub(super) async fn stop_with_waiting_scope_leaves_running_tasks(open: impl Open) {
    let (store, _kept) = open(Limits::default()).await;
    let running = submit(&store, provision("a", "1")).await;
    let lease = claim(&store).await.unwrap().lease;
    let before = snapshot(&store, running).await;
    let stop = async |token| store.request_stop(&token, StopScope::Waiting).await.unwrap();
    assert_eq!(stop(running).await, Some(State::Running));
    assert_eq!(snapshot(&store, running).await, before);
    let waiting = submit(&store, provision("a", "2")).await;
    assert_eq!(stop(waiting).await, Some(State::Terminated));
    settle(&store, &lease, again()).await;
    assert_eq!(stop(running).await, Some(State::Terminated), "it waits for its retry");
    assert_eq!(stop(Token::random()).await, None);
}

pub(super) async fn last_lines_of_a_stopped_run_are_correct(open: impl Open) {
    let (store, _kept) = open(Limits::default()).await;
    for (ending, expected) in [
        (Ending::Release, "stopped on request, as the process that ran it ended"),
        (again(), "not yet; not tried again, a stop was requested"),
        (Ending::Stopped { outcome: None }, "closing"),
        (done(), "closing"),
    ] {
        let token = submit(&store, provision("a", "f")).await;
        let lease = claim(&store).await.unwrap().lease;
        store.request_stop(&token, StopScope::Any).await.unwrap();
        let settlement = Settlement { ending, lines: vec![], closing: Some(line("closing")) };
        store.settle(&lease, settlement).await.unwrap().unwrap();
        let logs = log_of(&store, token).await;
        assert_eq!(logs.last().unwrap().message, expected);
    }
}

/// Moves a task into every state and applies every event to it.
pub(super) async fn the_state_machine_is_the_pure_table(open: impl Open) {
    let (store, _kept) = open(Limits { max_crashes: 2, ..Limits::default() }).await;
    for (number, (from, event)) in
        State::ALL.into_iter().flat_map(|from| Event::ALL.map(|event| (from, event))).enumerate()
    {
        // Expiry and giving up differ by the number of runs that were lost before.
        let lost_before = event == Event::GiveUp;
        let length = if matches!(event, Event::Expire | Event::GiveUp) { NO_LEASE } else { LEASE };
        let token = submit(&store, provision(&format!("component {number}"), "f")).await;
        let take = async |length| claim_all(&store, Lane::Change, length, 1).await.tasks.pop().unwrap();
        if lost_before && from != State::Queued {
            take(NO_LEASE).await;
            store.expire_leases().await.unwrap();
        }
        let mut lease = None;
        if from != State::Queued {
            lease = Some(take(length).await.lease);
        }
        match (from, &lease) {
            (State::Stopping, _) => {
                store.request_stop(&token, StopScope::Any).await.unwrap();
            }
            (State::Completed, Some(lease)) => {
                settle(&store, lease, done()).await;
            }
            (State::Failed, Some(lease)) => {
                settle(&store, lease, failed()).await;
            }
            (State::Terminated, Some(lease)) => {
                store.request_stop(&token, StopScope::Any).await.unwrap();
                settle(&store, lease, Ending::Stopped { outcome: None }).await;
            }
            _ => {}
        }
        assert_eq!(state(&store, token).await, from);

        let lease = lease.unwrap_or_else(|| Lease { token, epoch: 0, owner: "w".to_owned() });
        let worker = async |ending| {
            let settlement = Settlement { ending, lines: vec![], closing: None };
            // A lost lease and an illegal event both leave the task unchanged.
            let _ = store.settle(&lease, settlement).await;
        };
        match event {
            Event::Claim => {
                claim_all(&store, Lane::Change, LEASE, 100).await;
            }
            Event::Succeed => worker(done()).await,
            Event::Fail => worker(failed()).await,
            Event::Retry => worker(again()).await,
            Event::Release => worker(Ending::Release).await,
            Event::Stopped => worker(Ending::Stopped { outcome: None }).await,
            Event::Stop => {
                store.request_stop(&token, StopScope::Any).await.unwrap();
            }
            Event::Expire | Event::GiveUp => {
                store.expire_leases().await.unwrap();
            }
        }
        let expected = transition(from, event).unwrap_or(from);
        assert_eq!(state(&store, token).await, expected, "{from} x {event:?}");
        let task = snapshot(&store, token).await;
        assert_eq!(task.finished_at.is_some(), expected.is_terminal());
        assert_eq!(
            task.reason.is_some(),
            matches!(expected, State::Failed | State::Terminated),
            "{from} x {event:?}"
        );

        // It must not block the next one.
        store.request_stop(&token, StopScope::Any).await.unwrap();
        if state(&store, token).await == State::Stopping {
            let epoch = i64::from(lost_before) + 1;
            settle(&store, &Lease { epoch, ..lease }, Ending::Stopped { outcome: None }).await;
        }
        assert!(state(&store, token).await.is_terminal(), "{from} x {event:?}");
    }
}

pub(super) async fn a_lost_lease_writes_nothing(open: impl Open) {
    let (store, _kept) = open(Limits::default()).await;
    let token = submit(&store, provision("a", "f")).await;
    let zombie = claim_all(&store, Lane::Change, NO_LEASE, 1).await.tasks.pop().unwrap().lease;
    store.expire_leases().await.unwrap();

    let queued = snapshot(&store, token).await;
    all_writes_are_ignored(&store, &zombie).await;
    assert_eq!(snapshot(&store, token).await, queued, "while it is queued again");

    let heir = claim(&store).await.unwrap().lease;
    assert_eq!(heir.epoch, zombie.epoch + 1);
    let running = snapshot(&store, token).await;
    all_writes_are_ignored(&store, &zombie).await;
    all_writes_are_ignored(&store, &Lease { epoch: heir.epoch + 1, ..heir.clone() }).await;
    all_writes_are_ignored(&store, &Lease { token: Token::random(), ..heir.clone() }).await;
    assert_eq!(snapshot(&store, token).await, running, "while another worker runs it");

    store.request_stop(&token, StopScope::Any).await.unwrap();
    let stopping = snapshot(&store, token).await;
    all_writes_are_ignored(&store, &zombie).await;
    assert_eq!(snapshot(&store, token).await, stopping);

    assert_eq!(settle(&store, &heir, done()).await, Some(State::Completed));
    let completed = snapshot(&store, token).await;
    all_writes_are_ignored(&store, &zombie).await;
    all_writes_are_ignored(&store, &heir).await;
    assert_eq!(snapshot(&store, token).await, completed, "after its end, even for the worker that ended it");
    assert_eq!(store.deployment(&ComponentKey::new("a", "dev")).await.unwrap(), None);
}

async fn all_writes_are_ignored(store: &Arc<dyn Store>, lease: &Lease) {
    assert_eq!(store.heartbeat(lease, LEASE).await.unwrap(), None);
    assert_eq!(store.append_logs(lease, vec![line("zombie")]).await.unwrap(), None);
    assert!(!store.put_deployment(lease, &deployment("a", "zombie")).await.unwrap());
    for ending in [done(), failed(), again(), Ending::Release, Ending::Stopped { outcome: None }] {
        let settlement = Settlement { ending, lines: vec![line("zombie")], closing: Some(line("zombie")) };
        assert_eq!(store.settle(lease, settlement).await.unwrap(), None);
    }
}

pub(super) async fn heartbeat_extends_the_lease_and_reports_a_stop(open: impl Open) {
    let (store, _kept) = open(Limits::default()).await;
    let token = submit(&store, provision("a", "f")).await;
    let lease = claim_all(&store, Lane::Change, NO_LEASE, 1).await.tasks.pop().unwrap().lease;
    assert_eq!(store.heartbeat(&lease, LEASE).await.unwrap(), Some(State::Running));
    assert_eq!(store.expire_leases().await.unwrap(), vec![], "extended in time");
    store.request_stop(&token, StopScope::Any).await.unwrap();
    assert_eq!(store.heartbeat(&lease, LEASE).await.unwrap(), Some(State::Stopping));
    assert_eq!(store.append_logs(&lease, vec![line("x")]).await.unwrap(), Some(State::Stopping));
    assert_eq!(
        settle(&store, &lease, Ending::Stopped { outcome: Some(json!(1)) }).await,
        Some(State::Terminated)
    );
    let task = snapshot(&store, token).await;
    assert_eq!(task.outcome, Some(json!(1)));
    assert_eq!(task.reason.as_deref(), Some("stopped on request"));
    assert_eq!(store.request_stop(&token, StopScope::Any).await.unwrap(), Some(State::Terminated));
    assert_eq!(snapshot(&store, token).await, task);
}

pub(super) async fn an_expired_lease_requeues_until_it_is_given_up(open: impl Open) {
    let (store, _kept) = open(Limits { max_crashes: 3, ..Limits::default() }).await;
    let token = submit(&store, provision("a", "f")).await;
    let next = submit(&store, provision("a", "g")).await;
    for crashes in 1..=3 {
        let claimed = claim_all(&store, Lane::Change, NO_LEASE, 1).await.tasks.pop().unwrap();
        assert_eq!((claimed.token, claimed.attempt, claimed.crashes), (token, crashes, crashes - 1));
        let state = if crashes < 3 { State::Queued } else { State::Failed };
        assert_eq!(store.expire_leases().await.unwrap(), vec![Expired { token, state, crashes }]);
        assert_eq!(store.expire_leases().await.unwrap(), vec![]);
    }
    let task = snapshot(&store, token).await;
    assert_eq!(task.reason.as_deref(), Some("given up after 3 interrupted runs"));
    assert_eq!(task.logs.len(), 3);
    assert_eq!(task.logs[2].level, Level::Error);

    // A task that is being stopped is not tried again.
    claim_all(&store, Lane::Change, NO_LEASE, 1).await;
    store.request_stop(&next, StopScope::Any).await.unwrap();
    store.expire_leases().await.unwrap();
    assert_eq!(state(&store, next).await, State::Terminated);
}

pub(super) async fn task_that_crashed_twice_waits(open: impl Open) {
    const PAUSE: Duration = Duration::from_secs(3600);
    let (store, _kept) = open(Limits { crash_pause: PAUSE, ..Limits::default() }).await;
    let token = submit(&store, provision("a", "f")).await;
    for _ in 0..2 {
        let claimed = claim_all(&store, Lane::Change, NO_LEASE, 1).await.tasks;
        assert_eq!(claimed.first().map(|task| task.token), Some(token), "once is no reason to wait");
        store.expire_leases().await.unwrap();
    }
    let claims = claim_all(&store, Lane::Change, NO_LEASE, 1).await;
    assert!(claims.tasks.is_empty());
    let due = claims.next_due.unwrap();
    assert!(due <= PAUSE && due > PAUSE / 2, "{due:?}");
    let log = log_of(&store, token).await;
    assert_eq!(log[1].message, "the run was interrupted (2 of at most 10); it starts again in 3600s");

    let limits = Limits { crash_pause: Duration::from_secs(1), ..Limits::default() };
    let pauses: Vec<_> =
        [0, 1, 2, 3, 4, 8, 9, u32::MAX].map(|crashes| limits.pause_after(crashes).as_secs()).into();
    assert_eq!(pauses, [0, 0, 1, 2, 4, 64, 64, 64]);
}

pub(super) async fn suspects_run_one_at_a_time(open: impl Open) {
    let (store, _kept) = open(Limits::default()).await;
    let mut suspects = Vec::new();
    for name in ["a", "b", "c"] {
        suspects.push(submit(&store, provision(name, "f")).await);
    }
    for _ in 0..2 {
        claim_all(&store, Lane::Change, NO_LEASE, 3).await;
        assert_eq!(store.expire_leases().await.unwrap().len(), 3);
    }
    let innocent = submit(&store, provision("d", "f")).await;
    let claimed = claim_all(&store, Lane::Change, LEASE, 9).await.tasks;
    assert_eq!(claimed.iter().map(|task| task.token).collect::<Vec<_>>(), vec![suspects[0], innocent]);
    assert_eq!(claim_tokens(&store).await, vec![], "another suspect runs");
    settle(&store, &claimed[0].lease, done()).await;
    assert_eq!(claim_tokens(&store).await, vec![suspects[1]]);
}

pub(super) async fn target_runs_at_most_its_limit(open: impl Open) {
    let per_target = Arc::new(BTreeMap::from([("slow".to_owned(), 2), ("closed".to_owned(), 0)]));
    let (store, _kept) = open(Limits { per_target, ..Limits::default() }).await;
    let mut number = 0;
    let mut on = async |targets: &[&str]| {
        number += 1;
        let targets = targets.iter().map(|target| (*target).to_owned()).collect();
        submit(&store, NewTask { targets, ..provision(&format!("c{number}"), "f") }).await
    };
    let mut slow = Vec::new();
    for _ in 0..4 {
        slow.push(on(&["slow"]).await);
    }
    let both = on(&["fast", "slow"]).await;
    let fast = on(&["fast"]).await;
    on(&["closed"]).await;
    let nowhere = on(&[]).await;
    let claims = claim_all(&store, Lane::Change, LEASE, 3).await;
    let tokens = |claims: &Claims| claims.tasks.iter().map(|task| task.token).collect::<Vec<_>>();
    assert_eq!(tokens(&claims), [slow[0], slow[1], fast], "the oldest, but for those of a full target");
    assert_eq!(claim_tokens(&store).await, [nowhere]);
    assert_eq!(claim_tokens(&store).await, []);
    settle(&store, &claims.tasks[0].lease, done()).await;
    settle(&store, &claims.tasks[2].lease, done()).await;
    assert_eq!(claim_tokens(&store).await, [slow[2]]);
    settle(&store, &claims.tasks[1].lease, again()).await;
    assert_eq!(claim_tokens(&store).await, [slow[1]], "a retry keeps its place in the line of its target");
    store.request_stop(&slow[3], StopScope::Any).await.unwrap();
    assert_eq!(claim_tokens(&store).await, []);
    assert_eq!(state(&store, both).await, State::Queued);
}

pub(super) async fn a_full_target_leaves_slots_for_others(open: impl Open) {
    let (store, _kept) = open(Limits { target_concurrency: 3, ..Limits::default() }).await;
    let on = async |number: usize, targets: &[&str]| {
        let targets = targets.iter().map(|target| (*target).to_owned()).collect();
        submit(&store, NewTask { targets, ..provision(&format!("c{number}"), "f") }).await
    };
    let long: Vec<String> = (0..60).map(|number| format!("another target {number}")).collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    let mut silent = Vec::new();
    for number in 0..50 {
        silent.push(on(number, &["silent"]).await);
    }
    let both = on(50, &["quick", "silent"]).await;
    let quick = [on(51, &["quick"]).await, on(52, &["quick"]).await];
    let many = on(53, &long).await;
    let nowhere = on(54, &[]).await;
    let take = async |worker: &str, limit| {
        let request = ClaimRequest { lane: Lane::Change, worker: worker.to_owned(), lease: LEASE, limit };
        store.claim(&request).await.unwrap().tasks
    };
    let tokens = |tasks: &[ClaimedTask]| tasks.iter().map(|task| task.token).collect::<Vec<_>>();
    let here = take("here", 16).await;
    let expected = [&silent[..3], &quick, &[many, nowhere]].concat();
    assert_eq!(tokens(&here), expected, "the oldest, but for those of a full target");
    assert_eq!(tokens(&take("here", 16).await), []);
    assert_eq!(tokens(&take("there", 4).await), silent[3..6], "each process has a bound of its own");
    settle(&store, &here[0].lease, again()).await;
    assert_eq!(tokens(&take("here", 16).await), [silent[0]], "a retry keeps its place");
    settle(&store, &here[1].lease, done()).await;
    settle(&store, &here[3].lease, done()).await;
    assert_eq!(tokens(&take("here", 16).await), [silent[6]]);
    assert_eq!(state(&store, both).await, State::Queued);
}

pub(super) async fn logs_are_ordered_and_bounded(open: impl Open) {
    let (store, _kept) = open(Limits { max_log_lines: 5, ..Limits::default() }).await;
    let token = submit(&store, provision("a", "f")).await;
    let lease = claim(&store).await.unwrap().lease;
    let odd = LogLine {
        at: chrono::DateTime::from_timestamp_micros(1_700_000_000_123_456).unwrap(),
        level: Level::Debug,
        message: "quotes \" ' and ü".to_owned(),
        phase: Some("a".to_owned()),
    };
    store.append_logs(&lease, vec![odd.clone(), line("2"), line("3")]).await.unwrap();
    store.append_logs(&lease, vec![]).await.unwrap();
    assert_eq!(log_of(&store, token).await[0], odd);
    store.append_logs(&lease, vec![line("4"), line("5")]).await.unwrap();
    assert_eq!(log_of(&store, token).await.len(), 5, "the limit itself is kept");
    store.append_logs(&lease, vec![line("6"), line("7")]).await.unwrap();
    store.append_logs(&lease, vec![line("8")]).await.unwrap();
    let settlement = Settlement { ending: failed(), lines: vec![line("9")], closing: Some(line("the end")) };
    store.settle(&lease, settlement).await.unwrap();
    let log = log_of(&store, token).await;
    let texts: Vec<_> = log[3..].iter().map(|line| line.message.as_str()).collect();
    assert_eq!(texts, ["4", "5", "further lines are not kept", "the end"]);
}

fn deployment(component: &str, target: &str) -> Deployment {
    Deployment {
        key: ComponentKey::new(component, "dev"),
        target: target.to_owned(),
        status: DeploymentStatus::Provisioned,
        access: None,
        specific: landfall_adapter::descriptor::Object::new(),
        kind: None,
        product: None,
        info: None,
        updated_at: chrono::Utc::now(),
    }
}

pub(super) async fn deployments_are_written_under_the_lease_of_their_component(open: impl Open) {
    let (store, _kept) = open(Limits::default()).await;
    submit(&store, request(Operation::Provision, &["a", "b"], "f")).await;
    submit(&store, provision("c", "f")).await;
    let claimed = claim_all(&store, Lane::Change, LEASE, 9).await.tasks;
    let (ab, c) = (&claimed[0].lease, &claimed[1].lease);
    assert!(store.put_deployment(ab, &deployment("a", "lake")).await.unwrap());
    assert!(store.put_deployment(ab, &deployment("b", "lake")).await.unwrap());
    assert!(!store.put_deployment(ab, &deployment("c", "lake")).await.unwrap(), "another task's");
    assert!(!store.put_deployment(c, &deployment("a", "lake")).await.unwrap(), "another task's");
    let elsewhere = Deployment { key: ComponentKey::new("a", "prod"), ..deployment("a", "lake") };
    assert!(!store.put_deployment(ab, &elsewhere).await.unwrap(), "another environment's");

    let mut fields = landfall_adapter::descriptor::Object::new();
    fields.insert("z".to_owned(), Value::from(1));
    let refs = vec![landfall_adapter::access::Ref::parse("user:a_b.c").unwrap()];
    let changed = Deployment {
        status: DeploymentStatus::Unprovisioned,
        access: Some(AccessList { refs, fields: fields.clone() }),
        specific: fields,
        kind: Some(landfall_adapter::descriptor::ComponentKind::Other("dashboard".to_owned())),
        product: Some("a product".to_owned()),
        ..deployment("a", "pg")
    };
    assert!(store.put_deployment(ab, &changed).await.unwrap());
    settle(&store, ab, done()).await;
    assert!(!store.put_deployment(ab, &deployment("a", "late")).await.unwrap());
    let found = store.deployment(&changed.key).await.unwrap().unwrap();
    assert_eq!(Deployment { updated_at: changed.updated_at, ..found }, changed);
    assert_eq!(store.deployment(&ComponentKey::new("c", "dev")).await.unwrap(), None);
}

pub(super) async fn memory_needs_the_lease_and_survives_other_writes(open: impl Open) {
    let (store, _kept) = open(Limits::default()).await;
    submit(&store, provision("a", "f")).await;
    submit(&store, provision("b", "f")).await;
    let claimed = claim_all(&store, Lane::Change, LEASE, 9).await.tasks;
    let (a, b) = (&claimed[0].lease, &claimed[1].lease);
    let key = ComponentKey::new("a", "dev");
    let memory = |value: i64| serde_json::json!({ "token": value });
    assert!(!store.remember(a, &key, Some(&memory(1))).await.unwrap(), "nothing is known of it yet");
    assert_eq!(store.memory(&key).await.unwrap(), None);
    let info = landfall_adapter::Info::default().text("path", "Path", "/x").private("secret", false);
    let published = Deployment { info: Some(info.clone()), ..deployment("a", "lake") };
    assert!(store.put_deployment(a, &published).await.unwrap());
    assert!(store.remember(a, &key, Some(&memory(2))).await.unwrap());
    assert!(!store.remember(b, &key, Some(&memory(3))).await.unwrap(), "another task's");
    assert!(store.put_deployment(a, &deployment("a", "lake")).await.unwrap());
    assert_eq!(store.memory(&key).await.unwrap(), Some(memory(2)));
    assert_eq!(store.deployment(&key).await.unwrap().unwrap().info, Some(info));
    let gone = Deployment { status: DeploymentStatus::Unprovisioned, ..published };
    assert!(store.put_deployment(a, &gone).await.unwrap());
    assert_eq!(store.deployment(&key).await.unwrap().unwrap().info, None, "what is gone publishes nothing");
    assert_eq!(store.memory(&key).await.unwrap(), Some(memory(2)), "data may have been kept");
    assert!(store.remember(a, &key, None).await.unwrap());
    assert_eq!(store.memory(&key).await.unwrap(), None);
    settle(&store, a, done()).await;
    assert!(!store.remember(a, &key, Some(&memory(4))).await.unwrap(), "the lease is over");
    assert_eq!(store.memory(&key).await.unwrap(), None);
}

pub(super) async fn old_tasks_are_collected_and_unfinished_ones_are_not(open: impl Open) {
    let (store, _kept) = open(Limits { keep_count: 2, ..Limits::default() }).await;
    let mut tokens = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        tokens.push(submit(&store, provision(name, "f")).await);
        if name != "a" {
            let settlement = Settlement { ending: done(), lines: vec![line("x")], closing: None };
            let lease = claim_all(&store, Lane::Change, LEASE, 2).await.tasks.pop().unwrap().lease;
            store.settle(&lease, settlement).await.unwrap();
        }
        if name == "b" {
            // a is claimed first and stays running.
            assert_eq!(state(&store, tokens[0]).await, State::Running);
        }
    }
    assert_eq!(store.purge().await.unwrap(), 2);
    assert_eq!(store.purge().await.unwrap(), 0);
    let left: Vec<bool> = futures::future::join_all(tokens.iter().map(|token| store.task(token)))
        .await
        .into_iter()
        .map(|task| task.unwrap().is_some())
        .collect();
    assert_eq!(left, [true, false, false, true, true]);
    assert_eq!(log_of(&store, tokens[4]).await.len(), 1);

    let (store, _kept) = open(Limits { keep_for: Duration::ZERO, ..Limits::default() }).await;
    let token = submit(&store, provision("a", "f")).await;
    assert_eq!(store.purge().await.unwrap(), 0);
    store.request_stop(&token, StopScope::Any).await.unwrap();
    assert_eq!(store.purge().await.unwrap(), 1);
    assert_eq!(store.task(&token).await.unwrap(), None);
}

pub(super) async fn commits_send_notifications(open: impl Open) {
    let (store, _kept) = open(Limits::default()).await;
    let mut hints = store.hints();
    let mut hinted = async |wanted: Hint| {
        let found = async { while hints.recv().await.unwrap() != wanted {} };
        tokio::time::timeout(Duration::from_secs(10), found)
            .await
            .unwrap_or_else(|_| panic!("no {wanted:?}"));
    };
    let token = submit(&store, provision("a", "f")).await;
    hinted(Hint::Queued(Lane::Change)).await;
    let lease = claim(&store).await.unwrap().lease;
    settle(&store, &lease, again()).await;
    hinted(Hint::Queued(Lane::Change)).await;
    let lease = claim(&store).await.unwrap().lease;
    store.request_stop(&token, StopScope::Any).await.unwrap();
    hinted(Hint::Stop(token)).await;
    settle(&store, &lease, Ending::Release).await;
    hinted(Hint::Finished(token)).await;
    let token = submit(&store, request(Operation::Validate, &[], "f")).await;
    hinted(Hint::Queued(Lane::Validation)).await;
    store.request_stop(&token, StopScope::Any).await.unwrap();
    hinted(Hint::Finished(token)).await;
}

pub(super) async fn concurrent_submissions_join(open: impl Open) {
    let (store, _kept) = open(Limits::default()).await;
    let wave: Vec<_> = (0..64)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(
                async move { try_submit(&store, provision(&format!("c{}", n % 4), "f")).await.unwrap() },
            )
        })
        .collect();
    let mut tokens = HashSet::new();
    let mut fresh = 0;
    for one in wave {
        let submitted = one.await.unwrap();
        tokens.insert(submitted.token);
        fresh += usize::from(!submitted.deduplicated);
    }
    assert_eq!((tokens.len(), fresh), (4, 4));
    assert_eq!(store.counts().await.unwrap().queued, 4);
}

pub(super) async fn concurrent_claims_never_share(open: impl Open) {
    let (store, _kept) = open(Limits::default()).await;
    for n in 0..60 {
        submit(&store, provision(&format!("c{}", n % 20), &n.to_string())).await;
    }
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut taken = Vec::new();
                while store.counts().await.unwrap().queued > 0 {
                    for task in claim_all(&store, Lane::Change, LEASE, 2).await.tasks {
                        taken.push(task.token);
                        assert_eq!(settle(&store, &task.lease, done()).await, Some(State::Completed));
                    }
                }
                taken
            })
        })
        .collect();
    let mut taken = Vec::new();
    for worker in workers {
        taken.extend(worker.await.unwrap());
    }
    assert_eq!(taken.len(), 60);
    assert_eq!(taken.iter().collect::<HashSet<_>>().len(), 60);
}

/// A small generator, so that a seed reproduces a history (SplitMix64).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap()
    }
}

/// A simple model of what a store must do.
#[derive(Default)]
struct Model {
    /// In order of submission.
    tasks: Vec<ModelTask>,
}

struct ModelTask {
    token: Token,
    new: NewTask,
    state: State,
    attempt: u32,
    crashes: u32,
    joinable: bool,
    lease: Option<Lease>,
    expired: bool,
}

impl ModelTask {
    fn shares_component(&self, other: &NewTask) -> bool {
        self.new.components.iter().any(|key| other.components.contains(key))
    }
}

impl Model {
    const MAX_CRASHES: u32 = 4;

    fn join(&self, new: &NewTask) -> Option<Token> {
        let key = new.dedupe_key();
        self.tasks.iter().find(|task| task.joinable && task.new.dedupe_key() == key).map(|task| task.token)
    }

    fn submit(&mut self, token: Token, new: NewTask) {
        for task in &mut self.tasks {
            if task.shares_component(&new) {
                task.joinable = false;
            }
        }
        self.tasks.push(ModelTask {
            token,
            new,
            state: State::Queued,
            attempt: 0,
            crashes: 0,
            joinable: true,
            lease: None,
            expired: false,
        });
    }

    fn claimable(&self, limit: usize) -> Vec<usize> {
        let mut suspect_runs = self.tasks.iter().any(|task| task.state.is_leased() && task.crashes >= 2);
        let mut found = Vec::new();
        for (index, task) in self.tasks.iter().enumerate() {
            let blocked = self
                .tasks
                .iter()
                .take(index)
                .any(|earlier| !earlier.state.is_terminal() && earlier.shares_component(&task.new));
            if task.state != State::Queued || blocked || found.len() == limit {
                continue;
            }
            if task.crashes >= 2 && std::mem::replace(&mut suspect_runs, true) {
                continue;
            }
            found.push(index);
        }
        found
    }

    fn apply(&mut self, index: usize, event: Event) -> State {
        let task = &mut self.tasks[index];
        task.state = transition(task.state, event).unwrap();
        if task.state.is_terminal() || task.state == State::Stopping {
            task.joinable = false;
        }
        if !task.state.is_leased() {
            task.lease = None;
            task.expired = false;
        }
        task.state
    }

    fn leased(&self) -> Vec<usize> {
        (0..self.tasks.len()).filter(|index| self.tasks[*index].lease.is_some()).collect()
    }
}

pub(super) async fn a_random_history_agrees_with_the_model(open: impl Open) {
    for seed in 0..12 {
        let (store, _kept) = open(Limits { max_crashes: Model::MAX_CRASHES, ..Limits::default() }).await;
        random_history(&store, seed).await;
    }
}

async fn random_history(store: &Arc<dyn Store>, seed: u64) {
    let mut dice = Dice(seed);
    let mut model = Model::default();
    let names = ["a", "b", "c", "d"];
    for step in 0..150 {
        let at = format!("seed {seed}, step {step}");
        match dice.below(10) {
            0..=3 => {
                let count = 1 + dice.below(3);
                let components: Vec<&str> = (0..count).map(|_| names[dice.below(4)]).collect();
                let operation = [Operation::Provision, Operation::Unprovision][dice.below(2)];
                let new = request(operation, &components, ["f", "g"][dice.below(2)]);
                let submitted = try_submit(store, new.clone()).await.unwrap();
                match model.join(&new) {
                    Some(token) => {
                        assert_eq!(submitted, Submitted { token, deduplicated: true }, "{at}");
                    }
                    None => {
                        assert!(!submitted.deduplicated, "{at}");
                        model.submit(submitted.token, new);
                    }
                }
            }
            4 | 5 => {
                let limit = 1 + dice.below(3);
                let short = dice.below(3) == 0;
                let length = if short { NO_LEASE } else { LEASE };
                let claimed = claim_all(store, Lane::Change, length, limit).await.tasks;
                let expected = model.claimable(limit);
                assert_eq!(
                    claimed.iter().map(|task| task.token).collect::<Vec<_>>(),
                    expected.iter().map(|index| model.tasks[*index].token).collect::<Vec<_>>(),
                    "{at}"
                );
                for (index, claimed) in expected.into_iter().zip(claimed) {
                    model.apply(index, Event::Claim);
                    let task = &mut model.tasks[index];
                    task.attempt += 1;
                    assert_eq!((claimed.attempt, claimed.crashes), (task.attempt, task.crashes), "{at}");
                    task.lease = Some(claimed.lease);
                    task.expired = short;
                }
            }
            6 | 7 => {
                let leased = model.leased();
                if leased.is_empty() {
                    continue;
                }
                let index = leased[dice.below(leased.len())];
                let ending = match dice.below(5) {
                    0 | 1 => done(),
                    2 => failed(),
                    3 => again(),
                    _ => Ending::Release,
                };
                let event = ending.event();
                let lease = model.tasks[index].lease.clone().unwrap();
                let answered = settle(store, &lease, ending).await;
                let expected = model.apply(index, event);
                assert_eq!(answered, Some(expected), "{at}");
                if expected == State::Queued && event == Event::Release {
                    model.tasks[index].attempt -= 1;
                }
            }
            8 => {
                if model.tasks.is_empty() {
                    continue;
                }
                let index = dice.below(model.tasks.len());
                let task = &model.tasks[index];
                let expected =
                    if task.state.is_terminal() { task.state } else { model.apply(index, Event::Stop) };
                let answered = store.request_stop(&model.tasks[index].token, StopScope::Any).await.unwrap();
                assert_eq!(answered, Some(expected), "{at}");
            }
            _ => {
                let mut expected = BTreeMap::new();
                for index in 0..model.tasks.len() {
                    if model.tasks[index].expired {
                        model.tasks[index].crashes += 1;
                        let crashes = model.tasks[index].crashes;
                        let event = if crashes >= Model::MAX_CRASHES { Event::GiveUp } else { Event::Expire };
                        expected.insert(model.tasks[index].token, (model.apply(index, event), crashes));
                    }
                }
                let swept = store.expire_leases().await.unwrap();
                let swept: BTreeMap<_, _> =
                    swept.into_iter().map(|one| (one.token, (one.state, one.crashes))).collect();
                assert_eq!(swept, expected, "{at}");
            }
        }
        let count = |wanted: fn(State) -> bool| {
            u64::try_from(model.tasks.iter().filter(|task| wanted(task.state)).count()).unwrap()
        };
        let counts =
            Counts { queued: count(|state| state == State::Queued), running: count(State::is_leased) };
        assert_eq!(store.counts().await.unwrap(), counts, "{at}");
    }
    for task in &model.tasks {
        assert_eq!(state(store, task.token).await, task.state, "seed {seed}");
    }
}
