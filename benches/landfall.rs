//! The measured server: the real program, started as an administrator starts it, in a folder of its own.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Result;
use crate::client::{Client, Requests, get, post};

/// A program that prints its address on its first line.
pub(crate) struct Program {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Program {
    /// Starts the program, and returns when it listens.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on http://").map(str::parse);
        match address {
            Some(Ok(address)) => Ok(Self { child, address }),
            _ => {
                child.kill()?;
                child.wait()?;
                Err(format!("{command:?} does not listen, it said `{}`", line.trim()).into())
            }
        }
    }
}

impl Drop for Program {
    /// Kills the program, because its unfinished work is not needed.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The targets of the benchmarks: mocks that differ in their work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Done at once.
    Quick,
    /// One step without duration, which writes a trace.
    Traced,
    /// One step of 100 ms, which writes a trace.
    Sleeping,
    /// Never done.
    Endless,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::Quick => "Quick",
            Self::Traced => "Traced",
            Self::Sleeping => "Sleeping",
            Self::Endless => "Endless",
        }
    }
}

/// A running Landfall.
pub(crate) struct Landfall {
    program: Program,
    home: Arc<TempDir>,
    numbers: Arc<AtomicU64>,
}

impl Landfall {
    /// Starts a server with its state in `store` (a URL), and a folder `home` that several servers may share.
    /// Its targets are mocks.
    pub(crate) fn start(store: &str, home: &Arc<TempDir>) -> Result<Self> {
        Self::start_with(store, home, &configuration(home.path()))
    }

    /// Starts a server with another configuration.
    pub(crate) fn start_with(store: &str, home: &Arc<TempDir>, configuration: &str) -> Result<Self> {
        let folder = home.path();
        let config = folder.join("landfall.toml");
        std::fs::write(&config, configuration)?;
        let log = File::options().append(true).create(true).open(folder.join("log"))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(&config).stderr(log);
        command.env("LANDFALL__STORE__URL", store).current_dir(folder);
        let program = Program::start(&mut command)
            .map_err(|error| format!("{error}\n{}", tail(&folder.join("log"))))?;
        Ok(Self { program, home: Arc::clone(home), numbers: Arc::default() })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.program.address
    }

    /// Numbers for requests, each used once.
    pub(crate) fn numbers(&self) -> &Arc<AtomicU64> {
        &self.numbers
    }

    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) async fn client(&self) -> Result<Client> {
        Client::connect(self.address()).await
    }

    /// Submits one component and returns its token.
    pub(crate) async fn provision(&self, client: &mut Client, target: Target) -> Result<(u64, String)> {
        let number = self.number();
        let (status, body) = client.call(&provision(target, number)).await?;
        let text = String::from_utf8_lossy(body).into_owned();
        if status == 202 { Ok((number, text)) } else { Err(format!("{status}: {text}").into()) }
    }

    /// The body of a task's status.
    pub(crate) async fn status(&self, client: &mut Client, token: &str) -> Result<Vec<u8>> {
        let (status, body) = client.call(&get(&status_path(token))).await?;
        if status == 200 { Ok(body.to_vec()) } else { Err(format!("{status} for a status").into()) }
    }

    /// Waits until the task is done.
    pub(crate) async fn done(&self, client: &mut Client, token: &str) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            let body: Value = serde_json::from_slice(&self.status(client, token).await?)?;
            match body.get("status").and_then(Value::as_str) {
                Some("COMPLETED") => return Ok(()),
                Some("RUNNING") => tokio::time::sleep(Duration::from_millis(5)).await,
                _ => return Err(format!("a task came to {body}").into()),
            }
        }
        Err("a task does not end".into())
    }

    /// The steps that the mocks have traced, as (begin or end, serial, microseconds since 1970).
    pub(crate) fn trace(&self) -> Result<Vec<(String, u64, i64)>> {
        let text = std::fs::read_to_string(self.home.path().join("trace")).unwrap_or_default();
        text.lines().map(step).collect()
    }
}

fn step(line: &str) -> Result<(String, u64, i64)> {
    let line: Value = serde_json::from_str(line)?;
    let event = line.get("event").and_then(Value::as_str).ok_or("no event")?;
    let serial = line.get("serial").and_then(Value::as_u64).ok_or("no serial")?;
    let at = line.get("at").and_then(Value::as_i64).ok_or("no time")?;
    Ok((event.to_owned(), serial, at))
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let from = text.lines().count().saturating_sub(20);
    text.lines().skip(from).collect::<Vec<_>>().join("\n")
}

fn configuration(folder: &Path) -> String {
    let trace = folder.join("trace");
    let trace = trace.display();
    // A queue without limits, and no deletion of tasks during a measurement. Everything else is the default.
    let mut text = "[operations]\nmax_queued = 1000000\nkeep_count = 10000000\n".to_owned();
    for (target, settings) in [
        (Target::Quick, String::new()),
        (Target::Traced, format!("steps = 1\ntrace = \"file://{trace}\"\n")),
        (Target::Sleeping, format!("steps = 1\nstep_delay = \"200ms\"\ntrace = \"file://{trace}\"\n")),
        (Target::Endless, "steps = 1\nstep_delay = \"24h\"\n".to_owned()),
    ] {
        let name = target.name();
        text += &format!(
            "[targets.{name}]\ndriver = \"mock\"\ngroup = \"{name}\"\n{settings}\
             [[routes]]\ntechnology = \"{name}\"\ngroup = \"{name}\"\n"
        );
    }
    text
}

/// Requests to provision one component each, all different.
pub(crate) fn provisions(target: Target) -> Requests {
    Arc::new(move |number| provision(target, number))
}

fn provision(target: Target, number: u64) -> Vec<u8> {
    let body = json!({
        "descriptorKind": "COMPONENT_DESCRIPTOR",
        "descriptor": descriptor(target, number),
        "removeData": false,
    });
    post("/v1/provision", &body.to_string())
}

/// A request as a platform sends it for a small workload.
fn descriptor(target: Target, number: u64) -> String {
    let technology = target.name();
    format!(
        "dataProduct:
  dataProductOwnerDisplayName: John Smith
  environment: production
  domain: finance
  kind: dataproduct
  domainId: urn:dmb:dmn:finance
  id: urn:dmb:dp:finance:bench:0
  description: Data product representing operating cashflows
  devGroup: teamalpha
  ownerGroup: john.smith_example.com
  dataProductOwner: user:john.smith_example.com
  version: 0.1.0
  name: Bench
  useCaseTemplateId: urn:dmb:utm:dataproduct-template:0.0.0
  infrastructureTemplateId: urn:dmb:itm:dataproduct-provisioner:1
  tags: []
  specific: {{}}
  components:
    - kind: workload
      id: urn:dmb:cmp:finance:bench:0:workload-{number}
      description: Workload that computes the cashflow of a day
      name: Workload {number}
      version: 0.0.0
      infrastructureTemplateId: urn:dmb:itm:workload-provisioner:1
      useCaseTemplateId: urn:dmb:utm:workload-template:1.0.0
      dependsOn: []
      platform: AWS
      technology: {technology}
      workloadType: batch
      tags: []
      specific:
        serial: {number}
        schedule: 0 4 * * *
        memory: 4Gi
componentIdToProvision: urn:dmb:cmp:finance:bench:0:workload-{number}
"
    )
}

pub(crate) fn status_path(token: &str) -> String {
    format!("/v1/provision/{token}/status")
}

/// Requests for the statuses of these tasks, in a scattered order.
pub(crate) fn polls(tokens: &[String]) -> Requests {
    let requests: Vec<Vec<u8>> = tokens.iter().map(|token| get(&status_path(token))).collect();
    Arc::new(move |number| {
        let index = number.wrapping_mul(7919) % u64::try_from(requests.len().max(1)).unwrap_or(1);
        usize::try_from(index).ok().and_then(|index| requests.get(index)).cloned().unwrap_or_default()
    })
}

/// A folder on the disk of the build.
pub(crate) fn folder() -> Result<Arc<TempDir>> {
    Ok(Arc::new(TempDir::with_prefix_in("bench-", PathBuf::from(env!("CARGO_TARGET_TMPDIR")))?))
}
