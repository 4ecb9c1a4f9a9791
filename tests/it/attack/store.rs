//! Failing stores: damaged, read-only, without privileges, and with rows that this version cannot read.

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::{
    Group, check_log, expect_all_completed, expect_recovery, health, mock_request, submit, try_request,
    wait_for_end, wait_for_health,
};
use crate::harness::{Cluster, Landfall, StoreAt, query_write};
use crate::postgres::PostgresServer;

const TIMEOUT: Duration = Duration::from_secs(45);

/// Overwrites bytes of the store's file while the server runs: first all pages but the first, then the whole file.
pub(super) async fn attack_sqlite(group: &mut Group) {
    for (what, from) in [("malformed pages", 4096), ("no database any more", 0)] {
        let mut server = Landfall::start();
        let mut tokens = Vec::new();
        for number in 0..group.scale.of(5, 50) {
            match submit(server.api(), "/v1/provision", &mock_request(&format!("kept{number}")), TIMEOUT)
                .await
            {
                Ok(token) => tokens.push(token),
                Err(error) => group.fault(error),
            }
        }
        expect_all_completed(group, server.api(), &tokens, TIMEOUT).await;
        let file = server.data_dir().join("landfall.db");
        query_write(&file, "PRAGMA wal_checkpoint(TRUNCATE)").await;
        let whole = std::fs::read(&file).expect("the store");
        overwrite(&file, from, &vec![0x5a; whole.len() - usize::try_from(from).expect("small")]);

        let (mut refused, mut accepted) = (0, 0);
        let token = tokens.first().cloned().unwrap_or_default();
        for number in 0..20 {
            for (method, path, body) in [
                ("POST", "/v1/provision".to_owned(), mock_request(&format!("lost{number}"))),
                ("GET", format!("/v1/provision/{token}/status"), Value::Null),
            ] {
                match try_request(server.api(), method, &path, &body).await {
                    Ok(answer) if answer.status == 500 => {
                        refused += 1;
                        let text = answer.json()["error"].as_str().unwrap_or_default().to_owned();
                        group.expect(!text.contains("try again later"), || {
                            format!("{what}: {method} is answered `{text}`")
                        });
                    }
                    Ok(answer) if method == "POST" && answer.status == 202 => accepted += 1,
                    Ok(_) => {}
                    Err(error) => group.fault(format!("{what}: {error}")),
                }
            }
            if group.faults.len() > 5 {
                break;
            }
        }
        group.tried(refused, &format!("requests refused ({what})"));
        group.expect(refused > 0, || {
            format!("{what}: nothing was refused, {accepted} requests were accepted")
        });
        match wait_for_health(server.api(), 503, Duration::from_secs(15)).await {
            Ok(answer) => {
                let reason = answer.json()["reason"].as_str().unwrap_or_default().to_owned();
                group.expect(!reason.is_empty() && !reason.contains("try again later"), || {
                    format!("{what}: the health says `{reason}`")
                });
                group.measured(format!("the health says `{reason}`"));
            }
            Err(error) => group.fault(format!("{what}: {error}")),
        }
        check_log(group, &server.log());

        // Restores a copy, as from a backup. The process that saw the damage must not go on.
        server.kill_9();
        for ending in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(file.with_file_name(format!("landfall.db{ending}")));
        }
        overwrite(&file, 0, &whole);
        server.restart();
        expect_all_completed(group, server.api(), &tokens, TIMEOUT).await;
        expect_recovery(group, server.api(), "restored", TIMEOUT).await;
    }
}

fn overwrite(file: &Path, from: u64, with: &[u8]) {
    let mut file = OpenOptions::new().read(true).write(true).open(file).expect("the store");
    file.seek(SeekFrom::Start(from)).expect("a place");
    file.write_all(with).expect("bytes");
    file.flush().expect("bytes");
}

/// Changes of an administrator to the database of a running server, each reverted later.
pub(super) async fn attack_postgres(group: &mut Group) {
    let postgres = PostgresServer::shared().expect("PostgreSQL");
    let url = postgres.new_database().expect("a database");
    let (before, name) = url.rsplit_once('/').expect("a name");
    let password =
        before.rsplit_once('@').and_then(|(user, _)| user.rsplit_once(':')).map(|(_, it)| it.to_owned());
    let password = password.expect("a password");
    let cluster = Cluster::of(1).store(&url).config("[store]\ntimeout = \"2s\"\n").start();
    let api = cluster.api(0);
    expect_recovery(group, api, "before", TIMEOUT).await;
    // Privileges on tables are changed in the database itself, the rest from outside.
    let superuser = |sql: String| {
        let done = if sql.contains("SCHEMA") { postgres.psql_in(name, &sql) } else { postgres.psql(&sql) };
        done.map(drop).unwrap_or_else(|error| panic!("{sql}: {error}"));
    };
    let disconnect = || {
        superuser(format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{name}'"));
    };

    // The store begins its transactions READ WRITE, so this default changes nothing. Existing sessions are replaced.
    for (what, on, off) in [
        (
            "database",
            format!("ALTER DATABASE {name} SET default_transaction_read_only = on"),
            format!("ALTER DATABASE {name} RESET default_transaction_read_only"),
        ),
        (
            "role",
            format!("ALTER ROLE {name} SET default_transaction_read_only = on"),
            format!("ALTER ROLE {name} RESET default_transaction_read_only"),
        ),
    ] {
        superuser(on);
        disconnect();
        expect_recovery(group, api, &format!("read-only-{what}"), TIMEOUT).await;
        superuser(off);
        expect_recovery(group, api, &format!("writable-{what}"), TIMEOUT).await;
    }
    let lasts = Duration::from_secs(group.scale.of(3, 15));
    for (what, on, off) in [
        (
            "tables",
            format!("REVOKE ALL ON ALL TABLES IN SCHEMA landfall FROM {name}"),
            format!("GRANT ALL ON ALL TABLES IN SCHEMA landfall TO {name}"),
        ),
        (
            "schema",
            format!("REVOKE ALL ON SCHEMA landfall FROM {name}"),
            format!("GRANT ALL ON SCHEMA landfall TO {name}"),
        ),
        ("login", format!("ALTER ROLE {name} NOLOGIN"), format!("ALTER ROLE {name} LOGIN")),
        (
            "password",
            format!("ALTER ROLE {name} PASSWORD 'another'"),
            format!("ALTER ROLE {name} PASSWORD '{password}'"),
        ),
        (
            "connections",
            format!("ALTER ROLE {name} CONNECTION LIMIT 0"),
            format!("ALTER ROLE {name} CONNECTION LIMIT -1"),
        ),
    ] {
        superuser(on);
        if !matches!(what, "tables" | "schema") {
            disconnect();
        }
        if let Err(error) = wait_for_health(api, 503, Duration::from_secs(15)).await {
            group.fault(format!("without {what}: {error}"));
        }
        match try_request(api, "POST", "/v1/provision", &mock_request(&format!("without-{what}"))).await {
            Ok(answer) if answer.status == 500 => {}
            other => group.fault(format!("without {what}, a request was answered {other:?}")),
        }
        tokio::time::sleep(lasts).await;
        superuser(off);
        expect_recovery(group, api, &format!("with-{what}"), TIMEOUT).await;
        if let Err(error) = wait_for_health(api, 200, Duration::from_secs(15)).await {
            group.fault(format!("with {what} again: {error}"));
        }
    }
    group.tried(7, "ways to take the store's database away");
    check_log(group, &cluster.server(0).log());
}

/// Rows of another version: one with an unknown operation, and one with an unreadable payload.
pub(super) async fn attack_rows(group: &mut Group) {
    let url = PostgresServer::shared().and_then(PostgresServer::new_database).expect("a database");
    // Tasks run one after the other, so that rows wait long enough to be changed.
    let config = "[operations]\nconcurrency = 1\n[targets.MOCK]\ndriver = \"mock\"\nsteps = 10\nstep_delay = \"100ms\"\n\
                  [[routes]]\ngroup = \"mock\"\n";
    for (store, url) in [("SQLite", None), ("PostgreSQL", Some(url))] {
        let mut builder = Cluster::of(1).config(config);
        if let Some(url) = &url {
            builder = builder.store(url);
        }
        let cluster = builder.start();
        let api = cluster.api(0);
        let mut tokens = Vec::new();
        for number in 0..6 {
            match submit(api, "/v1/provision", &mock_request(&format!("row{number}")), TIMEOUT).await {
                Ok(token) => tokens.push(token),
                Err(error) => group.fault(error),
            }
        }
        // The second and the third wait behind the first.
        write(cluster.store(), "UPDATE task SET operation = 'teleport' WHERE state = 'queued' AND seq = (SELECT min(seq) + 1 FROM task)").await;
        write(cluster.store(), "UPDATE task SET payload = '{\"canary-7f31\"' WHERE state = 'queued' AND seq = (SELECT min(seq) + 2 FROM task)").await;
        tokens.remove(1);
        let unreadable = tokens.remove(1);
        expect_all_completed(group, api, &tokens, Duration::from_secs(30)).await;
        expect_recovery(group, api, "behind", TIMEOUT).await;
        match wait_for_end(api, &unreadable, TIMEOUT).await {
            Ok(status) if status["status"] == "FAILED" => {
                group.measured(format!(
                    "{store}: an unreadable row fails with `{}`",
                    status["result"].as_str().unwrap_or_default()
                ));
            }
            Ok(status) => group.fault(format!("{store}: the unreadable row ended {status}")),
            Err(error) => group.fault(format!("{store}: the unreadable row: {error}")),
        }
        let states = cluster.store().query("SELECT state FROM task WHERE operation = 'teleport'").await;
        group.expect(states == [["queued"]], || {
            format!("{store}: the row of an unknown operation is {states:?}")
        });
        let told = health(api).await;
        group.expect(told.as_ref().is_some_and(|answer| answer.status == 200), || {
            format!("{store}: the health is {told:?}")
        });
        group.tried(2, &format!("rows of another version ({store})"));
        check_log(group, &cluster.server(0).log());
        write(cluster.store(), "DELETE FROM task WHERE operation = 'teleport'").await;
    }
}

async fn write(store: &StoreAt, sql: &'static str) {
    match store {
        StoreAt::Sqlite(file) => query_write(file, sql).await,
        StoreAt::Postgres(_) => drop(store.query(sql).await),
    }
}
