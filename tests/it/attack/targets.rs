//! Silent targets. Tasks of other targets keep their rate. Tasks of the silent target wait, log the reason, and can be
//! stopped.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{
    Group, check_log, expect_all_completed, mock_rate, mock_request, postgres_request, status, stop_and_wait,
    submit, try_request,
};
use crate::harness::{Landfall, messages, replace_once};
use crate::postgres::{Durability, PostgresServer};

pub(super) const CONFIG: &str = r#"
[targets.MOCK]
driver = "mock"
steps = 4
step_delay = "25ms"

[targets.PG]
driver = "postgresql"
url = { env = "PG_URL" }

[[routes]]
technology = "PostgreSQL"
group = "postgresql"

[[routes]]
group = "mock"
"#;

const DRIVER: &str = "driver = \"postgresql\"\n";
const IMPATIENT: &str = "driver = \"postgresql\"\nconnect_timeout = \"2s\"\n";
/// The number of tasks for the silent target.
const SILENT: usize = 50;
/// The fraction of the usual task rate that must remain beside a silent target. A target that blocks others
/// would leave nothing. The quick version requires less, because other work may use the machine.
fn required_rate(group: &Group) -> f64 {
    group.scale.of(0.5, 0.8)
}

/// Accepts connections and sends nothing, until the value is dropped.
struct Silent {
    port: u16,
    task: JoinHandle<()>,
}

impl Silent {
    async fn listen() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let task = tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                held.push(stream);
            }
        });
        Self { port, task }
    }

    fn url(&self) -> String {
        format!("postgres://landfall:canary-7f31@127.0.0.1:{}/target", self.port)
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) async fn attack_silent(group: &mut Group) {
    let silent = Silent::listen().await;
    // The quick version has a shorter connect timeout than the default.
    let config = if group.scale.full { CONFIG.to_owned() } else { replace_once(CONFIG, DRIVER, IMPATIENT) };
    let server = Landfall::with().alone().config(&config).env("PG_URL", &silent.url()).start();
    let api = server.api();
    let (tasks, limit) = (group.scale.of(48, 240), Duration::from_secs(group.scale.of(20, 60)));
    let required = required_rate(group);
    let usual = mock_rate(api, "before", tasks, limit).await;

    let mut tokens = Vec::new();
    for number in 0..SILENT {
        match submit(api, "/v1/provision", &postgres_request(&format!("silent{number}")), limit).await {
            Ok(token) => tokens.push(token),
            Err(error) => group.fault(format!("a task of the silent target was {error}")),
        }
    }
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut beside = mock_rate(api, "beside", tasks, limit).await;
    if beside < usual * required {
        // The machine may have been busy.
        beside = mock_rate(api, "again", tasks, limit).await.max(beside);
    }
    group.tried(tokens.len(), "tasks of a silent target");
    group.tried(2 * tasks, "tasks of another");

    dry_runs(group, &server, usual).await;

    // Each task logs what it waits for, and when the server tries again.
    let wanted = group.scale.of(8, SILENT).min(tokens.len());
    let timeout = Duration::from_secs(group.scale.of(40, 240));
    let reasons = ["answer", "reach", "in use", "timed out"];
    let says = |status: &Value| {
        let tells =
            |line: &String| line.contains("again") && reasons.iter().any(|reason| line.contains(reason));
        messages(status).iter().any(tells)
    };
    let mut telling = 0;
    let mut last = None;
    while begun.elapsed() < timeout && telling < wanted {
        telling = 0;
        for token in &tokens {
            let Some(status) = status(api, token).await else { continue };
            telling += usize::from(says(&status));
            if status["status"] != "RUNNING" {
                group.fault(format!(
                    "a task of the silent target ended {}: {:?}",
                    status["status"],
                    messages(&status)
                ));
            }
            last = Some(status);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    group.measured(format!("{telling} of the silent ones told why they wait within {seconds:.0} s"));
    group.expect(telling >= wanted, || {
        let log = last.as_ref().map(messages);
        format!("{telling} of {wanted} silent tasks say what they wait for after {seconds:.0} s; the last: {log:?}")
    });

    let begun = Instant::now();
    let stops = tokens.iter().map(|token| stop_and_wait(api, token, Duration::from_secs(30)));
    for ended in futures::future::join_all(stops).await {
        match ended {
            Ok(status) if status["status"] == "TERMINATED" => {}
            Ok(status) => {
                group.fault(format!("a stopped task ended {}: {:?}", status["status"], messages(&status)))
            }
            Err(error) => group.fault(error),
        }
    }
    group.measured(format!("all stopped within {:.1} s", begun.elapsed().as_secs_f64()));

    // The machine may have been idle before, and busy since: a rate that fell is compared with a second baseline, too.
    let after = if beside < usual * required { mock_rate(api, "after", tasks, limit).await } else { usual };
    let usual = usual.min(after);
    group.measured(format!("{usual:.1} tasks/s without and {beside:.1} tasks/s beside it"));
    group.expect(beside >= usual * required, || {
        format!("{usual:.1} tasks/s without the silent target, {beside:.1} tasks/s beside it")
    });
    check_log(group, &server.log());
}

/// Dry runs on the silent target end by themselves, and block neither other dry runs nor accepted tasks.
async fn dry_runs(group: &mut Group, server: &Landfall, usual: f64) {
    const DRY_RUNS: usize = 24;
    let api = server.api();
    let plan = |request: Value| json!({ "descriptorKind": request["descriptorKind"], "descriptor": request["descriptor"] });
    let limit = Duration::from_secs(55);
    let one = async |number: usize| {
        let request = plan(postgres_request(&format!("dry{number}")));
        let begun = Instant::now();
        let asked = try_request(api, "POST", "/landfall/v1/plan", &request);
        (tokio::time::timeout(limit, asked).await, begun.elapsed())
    };
    let silent = futures::future::join_all((0..DRY_RUNS).map(one));
    let others = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let rate = mock_rate(api, "dry", 24, Duration::from_secs(20)).await;
        let begun = Instant::now();
        let mock = plan(mock_request("dry"));
        let mock = tokio::time::timeout(limit, try_request(api, "POST", "/landfall/v1/plan", &mock)).await;
        (rate, mock, begun.elapsed())
    };
    let (silent, (rate, mock, mock_took)) = tokio::join!(silent, others);
    let mut slowest = Duration::ZERO;
    for (answer, took) in silent {
        slowest = slowest.max(took);
        match answer {
            Ok(Ok(answer)) if answer.status == 500 && answer.text.contains("again") => {}
            Ok(other) => group.fault(format!("a dry run on the silent target: {other:?}")),
            Err(_) => group.fault(format!("a dry run on the silent target has no answer after {limit:?}")),
        }
    }
    group.tried(DRY_RUNS, "dry runs on it");
    group.measured(format!("dry runs ended within {:.1} s", slowest.as_secs_f64()));
    group.expect(rate >= usual * required_rate(group) / 2.0, || {
        format!("{usual:.1} tasks/s without, {rate:.1} tasks/s beside dry runs on the silent target")
    });
    // A dry run beyond the limit is refused with a remedy.
    match mock {
        Ok(Ok(answer)) if answer.status == 200 || (answer.status == 500 && answer.text.contains("again")) => {
            group.measured(format!(
                "a dry run elsewhere {} after {:.1} s",
                answer.status,
                mock_took.as_secs_f64()
            ));
        }
        other => group.fault(format!("a dry run on another target: {other:?} after {mock_took:?}")),
    }
}

/// A PostgreSQL server freezes during its work, and then resumes.
pub(super) async fn attack_frozen(group: &mut Group) {
    let postgres = PostgresServer::start(Durability::Fast).expect("PostgreSQL starts");
    let (url, _) = postgres.new_target().expect("a target");
    let server = Landfall::with().alone().config(CONFIG).env("PG_URL", &url).start();
    let api = server.api();
    let (tasks, frozen) = (group.scale.of(16, 60), Duration::from_secs(group.scale.of(4, 45)));
    let mut tokens = Vec::new();
    for number in 0..tasks {
        match submit(api, "/v1/provision", &postgres_request(&format!("frozen{number}")), frozen).await {
            Ok(token) => tokens.push(token),
            Err(error) => group.fault(error),
        }
    }
    let end = Instant::now() + Duration::from_secs(30);
    while status(api, &tokens[0]).await.is_some_and(|status| status["status"] == "RUNNING")
        && Instant::now() < end
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let processes = processes_of(&postgres);
    signal("-STOP", &processes);
    let mut running = 0;
    for token in &tokens {
        running += usize::from(status(api, token).await.is_some_and(|status| status["status"] == "RUNNING"));
    }
    let rate = mock_rate(api, "beside", group.scale.of(24, 240), frozen).await;
    tokio::time::sleep(frozen).await;
    signal("-CONT", &processes);
    group.tried(tokens.len(), "tasks of a target frozen in the middle");
    group.measured(format!("{running} were under way, {rate:.1} tasks/s elsewhere meanwhile"));
    group.expect(running > 0, || "the target was frozen too late".to_owned());
    group.expect(rate > 1.0, || format!("{rate:.1} tasks/s of another target meanwhile"));
    let begun = Instant::now();
    expect_all_completed(group, api, &tokens, Duration::from_secs(150)).await;
    group.measured(format!("all completed {:.1} s after it went on", begun.elapsed().as_secs_f64()));
    check_log(group, &server.log());
}

/// The server process and its children.
fn processes_of(postgres: &PostgresServer) -> Vec<u32> {
    let file = fs::read_to_string(postgres.folder().join("data/postmaster.pid")).expect("it runs");
    let first = file.lines().next().and_then(|line| line.parse::<u32>().ok()).expect("a pid");
    let parent = |pid: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // The parent process goes first.
    [first].into_iter().chain(pids.filter(|pid| parent(*pid) == Some(first))).collect()
}

fn signal(signal: &str, processes: &[u32]) {
    for pid in processes {
        // The process may have ended meanwhile.
        let _ = std::process::Command::new("kill")
            .args([signal, &pid.to_string()])
            .stderr(std::process::Stdio::null())
            .status();
    }
}
