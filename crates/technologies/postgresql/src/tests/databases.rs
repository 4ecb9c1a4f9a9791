//! Databases of storage areas are created and dropped outside of transactions. A process that is killed between
//! any two statements leaves a state from which the next process continues.

use std::sync::atomic::Ordering;

use super::*;

/// A storage area with a database of its own and one table.
fn storage(target: &Target, database: &str) -> Work {
    let mut storage = with_access(&work(STORAGE), &[ALICE]);
    let specific = &mut Arc::make_mut(&mut storage.component).specific;
    specific.insert("level".to_owned(), json!("database"));
    specific.insert("database".to_owned(), json!(database));
    specific.insert(
        "tables".to_owned(),
        json!([{ "name": "t", "columns": [{ "name": "a", "dataType": "INT" }] }]),
    );
    assert_eq!(target.technology.check(&storage, &Intent::Provision), []);
    storage
}

/// Plans and applies with a process that is killed after this many statements; returns whether it was killed.
async fn killed(target: &Target, work: &Work, intent: Intent, statements: i64) -> bool {
    let technology = Postgresql::new(target.technology.0.settings.clone());
    let fuse = &technology.0.server.as_ref().unwrap().fuse;
    let context = Context::default();
    let plan = technology.plan(work, &intent, &context).await.unwrap();
    fuse.store(statements, Ordering::SeqCst);
    for change in &plan.changes {
        if let Err(error) = technology.apply(work, change, &context).await {
            assert_eq!(error.to_string(), "killed", "{}", error.report());
            return true;
        }
    }
    false
}

/// Plans and applies with a new process until nothing is left to change. Panics if that does not end.
async fn resumed(target: &Target, work: &Work, intent: Intent, what: &str) {
    let technology = Postgresql::new(target.technology.0.settings.clone());
    let context = Context::default();
    for _ in 0..20 {
        let plan = technology.plan(work, &intent, &context).await;
        let plan = plan.unwrap_or_else(|error| panic!("{what}: {}", error.report()));
        if plan.changes.is_empty() {
            return;
        }
        for change in &plan.changes {
            match technology.apply(work, change, &context).await {
                Ok(()) => {}
                // The server has not yet ended the session of the killed process.
                Err(error) if error.is_retryable() => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    break;
                }
                Err(error) => panic!("{what}: {}: {}", change.summary, error.report()),
            }
        }
    }
    panic!("{what}: it does not come to an end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_around_create_and_drop_database_converges() {
    let target = Target::alone();
    let before = target.everything();
    let mut number = 0;
    // The earlier state, the interrupted work, and the next request.
    for (earlier, cut_off, then) in [
        (&[][..], Intent::Provision, Intent::Provision),
        (&[], Intent::Provision, PURGE),
        (&[Intent::Provision], PURGE, PURGE),
        (&[Intent::Provision], PURGE, Intent::Provision),
        (&[Intent::Provision], KEEP, KEEP),
        (&[Intent::Provision, KEEP], Intent::Provision, PURGE),
        (&[Intent::Provision, KEEP], PURGE, PURGE),
    ] {
        for statements in 1.. {
            let what = format!("{earlier:?}, {cut_off:?} cut off after {statements} statements, {then:?}");
            number += 1;
            let storage = storage(&target, &format!("own_{number}"));
            for intent in earlier {
                resumed(&target, &storage, *intent, &what).await;
            }
            let more = killed(&target, &storage, cut_off, statements).await;
            resumed(&target, &storage, then, &what).await;
            if then == Intent::Provision {
                let info = target.technology.describe(&storage, &Context::default()).await.unwrap();
                assert_eq!(
                    info.private["readers"],
                    json!([ALICE.trim_start_matches("user:").replace('_', "@")]),
                    "{what}"
                );
            }
            resumed(&target, &storage, PURGE, &what).await;
            assert_eq!(target.everything(), before, "{what}");
            if !more {
                break;
            }
        }
    }
}

/// A drop that was interrupted on the server leaves a database that refuses connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_dropped_database_is_dropped_or_recreated() {
    let target = Target::alone();
    let before = target.everything();
    for (number, then) in [PURGE, Intent::Provision, KEEP].into_iter().enumerate() {
        for purged in [false, true] {
            let what = format!("{then:?}, purged: {purged}");
            let database = format!("half_{number}_{purged}");
            let storage = storage(&target, &database);
            target.provision(&storage).await;
            if purged {
                // Everything is done except the drop of the database.
                killed(&target, &storage, PURGE, 2).await;
            }
            let left = "SELECT count(*) FROM pg_database WHERE datname = ";
            assert_eq!(target.column(&format!("{left}'{database}'")), ["1"], "{what}");
            target.as_superuser(&format!(
                "UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{database}'"
            ));
            resumed(&target, &storage, then, &what).await;
            if then == Intent::Provision {
                let alive = target.server().psql_in(&database, &format!("SELECT * FROM {STORAGE_SCHEMA}.t"));
                assert_eq!(alive, Ok(Vec::new()), "{what}");
            }
            resumed(&target, &storage, PURGE, &what).await;
            assert_eq!(target.everything(), before, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn database_dropped_between_two_looks_is_retried() {
    let target = Target::alone();
    let storage = storage(&target, "gone");
    target.provision(&storage).await;
    let error = target.technology.0.session_with("not_there", &Context::default()).await.err().unwrap();
    assert!(error.is_retryable(), "{:?}: {error}", error.kind());
    assert!(error.to_string().contains("the database does not exist"), "{error}");
}
