//! The clock jumps by years. No lease expires, no accepted task is lost, and no finished task is deleted.

use std::time::Duration;

use super::{Group, check_log, expect_all_completed, mock_request, status, submit};
use crate::harness::Cluster;
use crate::losers::WallClock;
use crate::postgres::PostgresServer;

const CONFIG: &str = r#"
[operations]
lease = "3s"
poll = "100ms"

[targets.MOCK]
driver = "mock"
steps = 10
step_delay = "100ms"

[[routes]]
group = "mock"
"#;

/// Far beyond `keep_for`.
const JUMPS: [&str; 4] = ["+10y", "-10y", "+1y", "+0"];

pub(super) async fn attack(group: &mut Group) {
    let url = PostgresServer::shared().and_then(PostgresServer::new_database).expect("a database");
    for (store, url) in [("SQLite", None), ("PostgreSQL", Some(url))] {
        let mut builder = Cluster::of(1).config(CONFIG);
        if let Some(url) = &url {
            builder = builder.store(url);
        }
        let (clock, environment) = WallClock::of(builder.scratch(), 0);
        for (name, value) in environment {
            builder = builder.env(0, name, &value);
        }
        let mut cluster = builder.start();
        let (tasks, timeout) = (group.scale.of(4, 20), Duration::from_secs(60));
        let mut tokens = Vec::new();
        let accept = async |group: &mut Group, cluster: &Cluster, prefix: &str| {
            let mut accepted = Vec::new();
            for number in 0..tasks {
                let name = format!("{prefix}x{number}");
                match submit(cluster.api(0), "/v1/provision", &mock_request(&name), timeout).await {
                    Ok(token) => accepted.push(token),
                    Err(error) => group.fault(error),
                }
            }
            accepted
        };
        let first = accept(group, &cluster, "first").await;
        expect_all_completed(group, cluster.api(0), &first, timeout).await;
        tokens.extend(first);
        for (number, jump) in JUMPS.into_iter().enumerate() {
            // Some tasks are under way at the jump. Others are submitted under the wrong time.
            let before = accept(group, &cluster, &format!("before{number}")).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            clock.jump(jump);
            let after = accept(group, &cluster, &format!("after{number}")).await;
            for tokens in [&before, &after] {
                expect_all_completed(group, cluster.api(0), tokens, timeout).await;
            }
            tokens.extend(before.into_iter().chain(after));
            // A server deletes old tasks at its start, and once a minute.
            let status = cluster.replica(0).terminate();
            group.expect(status.success(), || format!("at {jump} the server left with {status}"));
            cluster.replica(0).restart();
            tokio::time::sleep(Duration::from_millis(group.scale.of(300, 2000))).await;
        }
        if group.scale.full {
            // The server searches for old tasks once more, with a clock far ahead.
            clock.jump("+20y");
            tokio::time::sleep(Duration::from_secs(65)).await;
        }
        let mut unknown = 0;
        for token in &tokens {
            unknown += usize::from(status(cluster.api(0), token).await.is_none());
        }
        group.tried(tokens.len(), &format!("operations across {} jumps of ten years ({store})", JUMPS.len()));
        group.expect(unknown == 0, || format!("{store}: {unknown} of {} tokens are forgotten", tokens.len()));
        let log = cluster.server(0).log();
        for word in ["lost its worker", "lease is lost"] {
            group.expect(!log.contains(word), || format!("{store}: the log says `{word}`"));
        }
        check_log(group, &log);
    }
}
