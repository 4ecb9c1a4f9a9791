//! The PostgreSQL server of the other tests: what it must provide, and that no process or file of it remains.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::postgres::{Durability, PostgresServer, query};

/// Set for a copy of this binary that starts a server and waits to be killed.
const CHILD: &str = "LANDFALL_TEST_POSTGRES_VICTIM";

#[test]
fn new_database_belongs_to_an_ordinary_role_with_a_password() {
    let server = PostgresServer::shared().unwrap();
    let (one, other) = (server.new_database().unwrap(), server.new_database().unwrap());
    let who = query(&one, "SELECT rolsuper, rolname FROM pg_roles WHERE rolname = current_user").unwrap();
    assert_eq!(who.len(), 1);
    assert_eq!(who[0][0].as_deref(), Some("f"));
    query(&one, "CREATE TABLE mine (n bigint)").unwrap();
    query(&other, "CREATE TABLE mine (n bigint)").unwrap();

    let version = server.psql("SHOW server_version_num").unwrap();
    assert!(version[0][0].as_deref().unwrap().parse::<u32>().unwrap() >= 150_000, "{version:?}");
    assert_eq!(
        server.psql(
            "SELECT NULL, substr(rolpassword, 1, 13) FROM pg_authid WHERE rolpassword IS NOT NULL LIMIT 1"
        ),
        Ok(vec![vec![None, Some("SCRAM-SHA-256".to_owned())]])
    );
    let (before, after) = one.split_once('@').unwrap();
    let wrong = format!("{}x@{after}", &before[..before.len() - 1]);
    let refused = query(&wrong, "SELECT 1").unwrap_err();
    assert!(refused.contains("password authentication failed"), "{refused}");
}

#[test]
fn committed_rows_survive_an_immediate_shutdown() {
    let server = PostgresServer::start(Durability::Safe).unwrap();
    let port = server.port();
    assert_eq!(server.psql("SHOW fsync").unwrap(), [[Some("on".to_owned())]]);
    let url = server.new_database().unwrap();
    query(&url, "CREATE TABLE kept (n bigint)").unwrap();
    for n in 0..3 {
        query(&url, &format!("INSERT INTO kept VALUES ({n})")).unwrap();
        server.kill_immediately().unwrap();
        query(&url, "SELECT 1").expect_err("no server listens");
        server.restart().unwrap();
        assert_eq!(server.port(), port);
        let rows = query(&url, "SELECT n FROM kept ORDER BY n").unwrap();
        assert_eq!(rows.len(), n + 1, "{rows:?}");
    }
    let log = server.log();
    assert!(log.contains("database system was not properly shut down"), "{log}");
}

#[test]
fn dropped_server_removes_its_folder() {
    let server = PostgresServer::start(Durability::Fast).unwrap();
    let (folder, pid) = (server.folder().to_owned(), postmaster(&server));
    assert!(folder.is_dir() && is_alive(pid));
    drop(server);
    assert!(!folder.exists() && !is_alive(pid));
}

/// Statics are not dropped, and a killed process runs no drop: the server ends all the same.
#[test]
fn server_stops_when_its_parent_process_ends() {
    for ending in ["exit", "kill"] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "postgres_fixture::child_process_runs_a_server",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(CHILD, ending)
            .env("TMPDIR", std::env::temp_dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
        let (pid, folder) = loop {
            let line = lines.next().expect("it says where its server is").unwrap();
            // The test runner may have begun the line.
            if let Some((_, rest)) = line.rsplit_once("server ") {
                let (pid, folder) = rest.split_once(' ').unwrap();
                break (pid.parse::<u32>().unwrap(), PathBuf::from(folder));
            }
        };
        assert!(folder.is_dir() && is_alive(pid), "{folder:?} {pid}");
        if ending == "kill" {
            child.kill().unwrap();
        } else {
            drop(child.stdin.take());
        }
        child.wait().unwrap();
        let end = Instant::now() + Duration::from_secs(30);
        while is_alive(pid) || folder.exists() {
            assert!(Instant::now() < end, "after {ending}: {folder:?} {pid}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Not a test: [`server_stops_when_its_parent_process_ends`] starts it.
#[test]
fn child_process_runs_a_server() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let server = PostgresServer::shared().unwrap();
    println!("server {} {}", postmaster(server), server.folder().display());
    let _ = std::io::stdin().read_line(&mut String::new());
}

fn postmaster(server: &PostgresServer) -> u32 {
    let file = std::fs::read_to_string(server.folder().join("data/postmaster.pid")).unwrap();
    file.lines().next().unwrap().parse().unwrap()
}

fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
}
