//! A full disk, a read-only file system, removed files. The server completes the accepted tasks after the failure,
//! accepts no request that it cannot store, and reports the failure in its health.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{
    Group, check_log, expect_all_completed, expect_recovery, lake_request, mock_request, padded_mock_request,
    submit, try_request, wait_for_health,
};
use crate::harness::{Cluster, Landfall};

/// A slow target: its tasks are still under way when the disk becomes full.
const CONFIG: &str = r#"
[operations]
backoff_cap = "2s"

[targets.MOCK]
driver = "mock"
steps = 20
step_delay = "100ms"

[targets.LAKE]
driver = "lakehouse"
warehouse = "file://{data_dir}/warehouse"
catalog = "sqlite://{data_dir}/catalog.db"

[[routes]]
technology = "S3"
group = "lakehouse"

[[routes]]
group = "mock"
"#;

/// A small file system in memory. The drop unmounts it.
struct Mounted(PathBuf);

impl Mounted {
    /// Mounts a file system. `None` when this process may not mount.
    fn at(folder: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(folder).expect("a folder");
        let options = format!("size={size},mode=0755");
        let mounted =
            run("mount", &["-t", "tmpfs", "-o", &options, "landfall-attack", &folder.to_string_lossy()]);
        mounted.then(|| Self(folder.to_owned()))
    }

    fn remount(&self, options: &str) -> bool {
        run("mount", &["-o", &format!("remount,{options}"), &self.0.to_string_lossy()])
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &["--lazy", &self.0.to_string_lossy()]);
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// Fills the rest of a disk with one file, and returns the path of the file.
fn fill(folder: &Path) -> PathBuf {
    let path = folder.join("filler");
    let mut file = File::create(&path).expect("a file");
    for size in [1 << 16, 1 << 12, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
    path
}

const NO_MOUNT: &str = "no file system can be mounted here (it takes root)";

pub(super) async fn attack_full(group: &mut Group) {
    let builder = Cluster::of(1).config(CONFIG);
    let data = builder.scratch().join("data");
    let Some(mounted) = Mounted::at(&data, "24m") else {
        group.skipped(NO_MOUNT);
        return;
    };
    let warehouse = Mounted::at(&data.join("warehouse"), "8m").expect("the first one could be mounted");
    let cluster = builder.start();
    let api = cluster.api(0);
    let timeout = Duration::from_secs(60);
    let (tasks, lasts) = (group.scale.of(6, 40), Duration::from_secs(group.scale.of(3, 20)));

    for (what, folder) in [("the store's disk", &mounted.0), ("the warehouse", &warehouse.0)] {
        let is_store = folder == &mounted.0;
        let prefix = if is_store { "full" } else { "lake" };
        let mut tokens = Vec::new();
        for number in 0..tasks {
            for request in
                [mock_request(&format!("{prefix}m{number}")), lake_request(&format!("{prefix}l{number}"))]
            {
                match submit(api, "/v1/provision", &request, timeout).await {
                    Ok(token) => tokens.push(token),
                    Err(error) => group.fault(error),
                }
            }
            if number == tasks / 2 && !is_store {
                break;
            }
        }
        let filler = fill(folder);
        if is_store {
            tokens.extend(refused_while(group, api, what, lasts).await);
        } else {
            for number in 0..tasks {
                let request = lake_request(&format!("{prefix}n{number}"));
                match submit(api, "/v1/provision", &request, timeout).await {
                    Ok(token) => tokens.push(token),
                    Err(error) => group.fault(format!("{what} is full: {error}")),
                }
            }
            tokio::time::sleep(lasts).await;
        }
        std::fs::remove_file(filler).expect("the filler goes");
        group.tried(tokens.len(), &format!("operations across a full disk ({what})"));
        expect_all_completed(group, api, &tokens, Duration::from_secs(120)).await;
        expect_recovery(group, api, &format!("{prefix}-again"), timeout).await;
        if let Err(error) = wait_for_health(api, 200, timeout).await {
            group.fault(error);
        }
    }

    // A file system becomes read-only after errors of its disk.
    let before = submit(api, "/v1/provision", &lake_request("readonly0"), timeout).await;
    if let Ok(token) = &before {
        expect_all_completed(group, api, std::slice::from_ref(token), timeout).await;
    }
    if warehouse.remount("ro") {
        let token = submit(api, "/v1/provision", &lake_request("readonly1"), timeout).await;
        tokio::time::sleep(lasts).await;
        group.expect(warehouse.remount("rw"), || "the warehouse cannot be made writable again".to_owned());
        match token {
            Ok(token) => expect_all_completed(group, api, &[token], Duration::from_secs(120)).await,
            Err(error) => group.fault(format!("the warehouse is read-only: {error}")),
        }
        group.tried(1, "operation across a read-only warehouse");
    } else {
        group.skipped("a read-only warehouse: it cannot be remounted");
    }
    check_log(group, &cluster.server(0).log());
    drop(cluster);
    drop(warehouse);
    drop(mounted);
}

/// Submits requests while the server cannot write its store, and expects the 500 of the contract, no token, and a
/// failing health. Returns the tokens of the requests that were accepted before that.
///
/// SQLite writes into the free space of its existing log file. So the server accepts some MiB on a full disk, and they
/// are durable. Large requests use up most of that space and smaller ones the rest, until the smallest one is refused.
async fn refused_while(
    group: &mut Group,
    api: &crate::harness::Api,
    what: &str,
    lasts: Duration,
) -> Vec<String> {
    const LARGEST: usize = 256 << 10;
    const ACCEPTED: usize = 100;
    let end = std::time::Instant::now() + lasts;
    let (mut number, mut refused) = (0, 0);
    let mut padding = LARGEST;
    let mut accepted = Vec::new();
    while std::time::Instant::now() < end || refused == 0 || padding > 0 {
        let request = padded_mock_request(&format!("meanwhile{number}"), padding);
        match try_request(api, "POST", "/v1/provision", &request).await {
            Ok(answer) if answer.status == 500 => {
                refused += 1;
                padding /= 2;
                let text = answer.json()["error"].as_str().unwrap_or_default().to_owned();
                group
                    .expect(text.contains("store"), || format!("{what} is full, and the answer is {text:?}"));
            }
            Ok(answer) if answer.status == 202 => accepted.push(answer.token()),
            other => group.fault(format!("{what} is full, and the answer is {other:?}")),
        }
        number += 1;
        if accepted.len() > ACCEPTED {
            group.fault(format!("{what} is full, and {} requests were accepted", accepted.len()));
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    group.tried(refused, "requests refused meanwhile");
    match wait_for_health(api, 503, Duration::from_secs(30)).await {
        Ok(answer) => {
            let reason = answer.json()["reason"].as_str().unwrap_or_default().to_owned();
            group.expect(!reason.is_empty(), || {
                format!("{what} is full, and the health gives no reason: {answer:?}")
            });
            group.measured(format!("the health says `{reason}`"));
        }
        Err(error) => group.fault(format!("{what} is full: {error}")),
    }
    accepted
}

/// Files of the store disappear while the server runs, for example because a job deletes temporary files.
pub(super) async fn attack_files(group: &mut Group) {
    let files = ["landfall.db", "landfall.db-wal", "landfall.db.lock"];
    for file in files {
        let server = Landfall::start();
        let api = server.api();
        let timeout = Duration::from_secs(30);
        expect_recovery(group, api, "before", timeout).await;
        let (path, elsewhere) = (server.data_dir().join(file), server.scratch().join("elsewhere"));
        std::fs::rename(&path, &elsewhere).expect("the file is there");
        for number in 0..3 {
            let request = mock_request(&format!("gone{number}"));
            match try_request(api, "POST", "/v1/provision", &request).await {
                Ok(answer) if answer.status == 500 => {
                    let text = answer.json()["error"].as_str().unwrap_or_default().to_owned();
                    group.expect(text.contains("store"), || {
                        format!("`{file}` is gone, and the answer is {text:?}")
                    });
                }
                other => group.fault(format!("`{file}` is gone, and a request was answered {other:?}")),
            }
        }
        if let Err(error) = wait_for_health(api, 503, Duration::from_secs(15)).await {
            group.fault(format!("`{file}` is gone: {error}"));
        }
        // A copy under the same name is another file.
        if file == "landfall.db" {
            std::fs::copy(&elsewhere, &path).expect("a copy");
            let answer = try_request(api, "POST", "/v1/provision", &mock_request("copy")).await;
            let refused = answer.as_ref().is_ok_and(|answer| answer.status == 500);
            group.expect(refused, || {
                format!("`{file}` is another file, and a request was answered {answer:?}")
            });
        }
        std::fs::rename(&elsewhere, &path).expect("the file goes back");
        expect_recovery(group, api, &format!("back-{}", file.replace('.', "-")), timeout).await;
        group.tried(4, &format!("requests without `{file}`"));
        check_log(group, &server.log());
    }
}
