//! The databases of a target and of the store stop under load and restart later. Every accepted task completes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::targets::CONFIG;
use super::{Group, check_log, expect_all_completed, mock_request, postgres_request, submit};
use crate::harness::{Api, Cluster};
use crate::postgres::{Durability, PostgresServer};

const SUBMITTERS: usize = 4;

pub(super) async fn attack(group: &mut Group) {
    let store = PostgresServer::start(Durability::Safe).expect("PostgreSQL starts");
    let target = PostgresServer::start(Durability::Safe).expect("PostgreSQL starts");
    let store_url = store.new_database().expect("a database");
    let (target_url, _) = target.new_target().expect("a target");
    // The quick version uses shorter pauses.
    let shorter =
        if group.scale.full { "" } else { "[operations]\nbackoff_cap = \"4s\"\n[store]\ntimeout = \"2s\"\n" };
    let cluster = Cluster::of(2)
        .config(&format!("{shorter}{CONFIG}"))
        .store(&store_url)
        .env(0, "PG_URL", &target_url)
        .env(1, "PG_URL", &target_url)
        .start();
    let apis: Vec<Api> = (0..2).map(|replica| cluster.api(replica).clone()).collect();

    let over = Arc::new(AtomicBool::new(false));
    let away = Duration::from_secs(group.scale.of(20, 300));
    let lead = Duration::from_secs(group.scale.of(4, 20));
    let submitters: Vec<_> = (0..SUBMITTERS)
        .map(|number| {
            let (api, over) = (apis[number % apis.len()].clone(), Arc::clone(&over));
            let pause = Duration::from_millis(group.scale.of(400, 1500));
            tokio::spawn(submit_all(api, number, pause, away * 3, over))
        })
        .collect();

    tokio::time::sleep(lead / 2).await;
    target.kill_immediately().expect("it stops");
    tokio::time::sleep(lead).await;
    store.kill_immediately().expect("it stops");
    tokio::time::sleep(away - lead).await;
    target.restart().expect("it starts");
    tokio::time::sleep(lead).await;
    store.restart().expect("it starts");
    let back = Instant::now();
    tokio::time::sleep(lead).await;
    over.store(true, Ordering::Release);

    let mut tokens = Vec::new();
    for submitter in submitters {
        let (accepted, refused) = submitter.await.expect("a submitter that does not panic");
        tokens.extend(accepted);
        for what in refused {
            group.fault(what);
        }
    }
    group.tried(
        tokens.len(),
        &format!("operations while two databases were away for {} s each", away.as_secs()),
    );
    expect_all_completed(group, &apis[0], &tokens, Duration::from_secs(240)).await;
    group.measured(format!("all completed {:.0} s after both were back", back.elapsed().as_secs_f64()));
    let states = cluster.store().query("SELECT state, count(*) FROM task GROUP BY state").await;
    group.expect(states.iter().all(|row| row[0] == "completed"), || format!("the store has {states:?}"));
    for replica in 0..cluster.len() {
        check_log(group, &cluster.server(replica).log());
    }
}

/// Submits one request after the other, for the mock and for PostgreSQL in turn. Returns the tokens and the refusals.
async fn submit_all(
    api: Api,
    number: usize,
    pause: Duration,
    timeout: Duration,
    over: Arc<AtomicBool>,
) -> (Vec<String>, Vec<String>) {
    let (mut tokens, mut refused) = (Vec::new(), Vec::new());
    let mut count = 0_usize;
    while !over.load(Ordering::Acquire) {
        let name = format!("load{number}x{count}");
        let request = if count.is_multiple_of(2) { mock_request(&name) } else { postgres_request(&name) };
        match submit(&api, "/v1/provision", &request, timeout).await {
            Ok(token) => tokens.push(token),
            Err(error) => refused.push(error),
        }
        count += 1;
        tokio::time::sleep(pause).await;
    }
    (tokens, refused)
}
