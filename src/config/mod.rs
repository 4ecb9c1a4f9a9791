//! Configuration: defaults, then the file, then the environment, as one typed value.
//!
//! Every key is read by name, so that all mistakes are reported at once, each with its key, its value, its place and
//! the remedy. Keys that nothing reads are mistakes, too. `defaults.toml` beside this file lists the keys. There is
//! no global state, and everything is read at startup.

mod auth;
mod identity;
mod import;
mod reader;
mod sections;
mod settings;
mod targets;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use figment::Figment;
use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Value};
use landfall_adapter::any::AnyTechnology;
use landfall_adapter::descriptor::Limits;
use landfall_adapter::{Secret, tls};
use landfall_operation::Operation;
use landfall_operation::topology::{Route, TopologyLimits};

use crate::registry::Registry;
use reader::{Reader, leaves};

pub use auth::{Auth, Source};
pub use identity::Identity;
pub use import::Import;
pub(crate) use settings::{Keys, read as read_settings};

const DEFAULTS: &str = include_str!("defaults.toml");
const ENVIRONMENTS: &str = include_str!("environments.toml");
const EMBEDDED: &str = include_str!("embedded.toml");
const PREFIX: &str = "LANDFALL__";

/// The default of `server.tls.handshake_timeout`. The defaults of `[server.tls]` are not in `defaults.toml`,
/// because then the section would exist and require a certificate.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// The default of `server.tls.max_handshakes`.
const MAX_HANDSHAKES: u32 = 256;

/// The prefix of the topology contract, which has other callers than the adapter contracts.
pub const TOPOLOGY_PATH: &str = "/flexdeploy";

/// The whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[auth]`
    pub auth: Auth,
    /// `[descriptor]`
    pub descriptor: Limits,
    /// `[store]`
    pub store: Store,
    /// `[operations]`
    pub operations: Operations,
    /// `[import]`
    pub import: Import,
    /// `[log]`
    pub log: Log,
    /// `[topology]`
    pub topology: TopologyLimits,
    /// `[environments]`: Witboost names and their ids in the topology.
    pub environments: BTreeMap<String, i64>,
    /// `[identity.NAME]`
    pub identities: BTreeMap<String, Identity>,
    /// `[targets.CODE]` in the order of their codes.
    pub targets: Vec<Target>,
    /// `[[routes]]` in order; the first match wins.
    pub routes: Vec<Route>,
}

/// `[server]`
#[derive(Debug, Clone)]
pub struct Server {
    /// `HOST:PORT`
    pub listen: String,
    /// The paths of the Tech Adapter contract: `/` and prefixes such as `/datamesh.specificprovisioner`.
    pub base_paths: Vec<String>,
    /// The form of the token in a 202.
    pub token_format: TokenFormat,
    /// Work that ends within this time is answered with 200; zero means 202 at once.
    pub respond_within: Duration,
    /// The maximum size of a request body in bytes.
    pub max_body_bytes: usize,
    /// The maximum size of all request bodies in memory.
    pub max_inflight_bytes: u32,
    /// How long a request waits for free memory for its body.
    pub inflight_wait: Duration,
    /// `Retry-After` of transient errors that do not set their own.
    pub retry_after: Duration,
    /// How long running work may continue after SIGTERM.
    pub drain_grace: Duration,
    /// The longest time for a whole request body.
    pub body_timeout: Duration,
    /// The lowest rate of a request body, in bytes per second.
    pub min_body_rate: u32,
    /// The period over which `min_body_rate` is measured.
    pub min_body_window: Duration,
    /// The longest time for the head of a request.
    pub header_timeout: Duration,
    /// How long a connection may be idle after a response.
    pub keep_alive: Duration,
    /// How long a caller may stop reading its response.
    pub answer_timeout: Duration,
    /// The maximum number of connections of all workers together.
    pub max_connections: usize,
    /// Origins of web pages that may call the server: `scheme://host[:port]`, in lower case.
    pub allowed_origins: Vec<String>,
    /// The maximum duration of a TLS handshake.
    pub handshake_timeout: Duration,
    /// The maximum number of simultaneous TLS handshakes.
    pub max_handshakes: usize,
    /// HTTP worker threads.
    pub workers: usize,
    /// `[server.tls]`, with valid files.
    pub tls: Option<tls::Files>,
}

/// The form of the token in a 202.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFormat {
    /// `text/plain`, unless the request accepts JSON and not text.
    Auto,
    /// Always the bare token.
    Text,
    /// Always a JSON string.
    Json,
}

/// `[store]`
#[derive(Debug, Clone)]
pub struct Store {
    /// `sqlite://PATH` or `postgres://...`
    pub url: StoreUrl,
    /// PostgreSQL: connections for reading and for running work. The store opens two more for itself.
    pub connections: u32,
    /// PostgreSQL: the longest wait for a connection, and for the result of a statement.
    pub timeout: Duration,
}

/// The database of the operations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// One file, one process.
    Sqlite(PathBuf),
    /// One database, many processes. The URL may contain a password.
    Postgres(Secret),
}

/// `[operations]`
#[derive(Debug, Clone)]
pub struct Operations {
    /// Tasks that run at the same time.
    pub concurrency: usize,
    /// Of these tasks, the maximum number that run on one target at the same time.
    pub target_concurrency: u32,
    /// Components of one task that are processed at the same time.
    pub components_at_once: usize,
    /// Asynchronous validations that run at the same time.
    pub validation_concurrency: usize,
    /// Imports that run at the same time.
    pub import_concurrency: usize,
    /// Descriptors larger than 8 KiB that are parsed at the same time for validations, and the same number for other
    /// work.
    pub parse_concurrency: usize,
    /// How long a descriptor waits for a free slot.
    pub parse_wait: Duration,
    /// Dry runs that run at the same time.
    pub dry_run_concurrency: usize,
    /// How long a dry run waits for a free slot.
    pub dry_run_wait: Duration,
    /// The maximum duration of a dry run.
    pub dry_run_limit: Duration,
    /// How long a worker keeps a task without a heartbeat.
    pub lease: Duration,
    /// How often the queue is polled without a notification.
    pub poll: Duration,
    /// The first wait before a retry.
    pub backoff: Duration,
    /// The longest wait before a retry.
    pub backoff_cap: Duration,
    /// How long a task is retried after its first transient failure.
    pub retry_for: Duration,
    /// How many runs of one task may end with a crash of the process.
    pub max_crashes: u32,
    /// The first wait after a task's process was lost for the second time.
    pub crash_pause: Duration,
    /// Tasks that may wait in each lane.
    pub max_queued: u32,
    /// The total size of the tasks that may wait in a lane.
    pub max_queued_bytes: u64,
    /// Log lines that are stored for each task.
    pub max_log_lines: u32,
    /// The maximum duration of a single run.
    pub run_limit: Duration,
    /// `[operations.run_limits]`: the maximum duration of a run for operations whose limit differs from
    /// `run_limit`.
    pub run_limits: HashMap<Operation, Duration>,
    /// How long a cancelled run may take to end.
    pub cancel_grace: Duration,
    /// How long the store may take to write a row for a health check.
    pub health_timeout: Duration,
    /// How long a finished task is kept.
    pub keep_for: Duration,
    /// How many finished tasks are kept.
    pub keep_count: u64,
}

/// `[log]`
#[derive(Debug, Clone)]
pub struct Log {
    /// A level or an `env_logger` filter.
    pub level: String,
    /// The format of the lines.
    pub format: LogFormat,
    /// How many lines of one kind unauthenticated callers can cause in one minute.
    pub peer_lines: u32,
}

/// The format of the administrator's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[targets.CODE]`
#[derive(Clone)]
pub struct Target {
    /// The name that routes and topologies use.
    pub code: String,
    /// The group that routes lead to; by default the name of the driver.
    pub group: String,
    /// The Witboost environments that the target serves; empty for all.
    pub environments: Vec<String>,
    /// How many tasks may run on the target at the same time, over all processes; `None` for no own limit.
    pub concurrency: Option<u32>,
    /// The technology. Its connections are not opened yet.
    pub technology: Arc<dyn AnyTechnology>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("code", &self.code)
            .field("group", &self.group)
            .field("technology", &self.technology.name())
            .finish_non_exhaustive()
    }
}

/// Options of the command line, which override the file and the environment.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--listen`
    pub listen: Option<String>,
    /// `--data-dir`
    pub data_dir: Option<String>,
}

impl Config {
    /// Reads the configuration, or returns every mistake, one line each.
    pub fn load(
        file: Option<&Path>,
        overrides: &Overrides,
        registry: &Registry,
    ) -> Result<Self, Vec<String>> {
        Self::assemble(file, variables(), overrides, registry, Mode::Check)
    }

    /// Like [`Config::load`], for a server that is about to start: also checks the folders, files and address
    /// on this machine. Creates nothing.
    pub fn load_to_serve(
        file: Option<&Path>,
        overrides: &Overrides,
        registry: &Registry,
    ) -> Result<Self, Vec<String>> {
        Self::assemble(file, variables(), overrides, registry, Mode::Serve)
    }

    fn assemble(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
        overrides: &Overrides,
        registry: &Registry,
        mode: Mode,
    ) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut own = Figment::new();
        if let Some(path) = file {
            if !path.is_file() {
                return Err(vec![format!(
                    "the configuration file `{}` does not exist or is not a file",
                    path.display()
                )]);
            }
            own = own.merge(Toml::file_exact(path));
        }
        if let Err(error) = own.extract::<Dict>() {
            let place = file.map(|path| format!(" (in {})", path.display())).unwrap_or_default();
            return Err(error.into_iter().map(|e| unquoted(&e.kind.to_string()) + &place).collect());
        }
        let environment: BTreeMap<String, String> = environment.collect();
        let variables = environment_layer(&own, &environment);
        own = own.merge(Serialized::defaults(variables));

        let mut figment = Figment::from(Toml::string(DEFAULTS));
        if own.find_value("environments").is_err() {
            figment = figment.merge(Toml::string(ENVIRONMENTS));
        }
        if own.find_value("targets").is_err() && own.find_value("routes").is_err() {
            figment = figment.merge(Toml::string(EMBEDDED));
        }
        figment = figment.merge(own);
        if let Some(listen) = &overrides.listen {
            figment = figment.merge(Serialized::default("server.listen", listen));
        }
        if let Some(data_dir) = &overrides.data_dir {
            figment = figment.merge(Serialized::default("data_dir", data_dir));
        }
        let config = Reader::new(&figment, &environment, mode, &mut problems).config(registry);
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(problems),
        }
    }
}

/// What a configuration is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// To check it. The files and addresses in it may be on another machine.
    Check,
    /// To start a server on this machine.
    Serve,
}

fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
}

/// Returns the message of the TOML parser without the quoted line, which may contain a secret.
fn unquoted(message: &str) -> String {
    let is_quoted =
        |line: &&str| line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').starts_with('|');
    message.lines().filter(|line| !is_quoted(line)).map(str::trim).collect::<Vec<_>>().join(": ")
}

/// Reads `LANDFALL__TARGETS__PG_MAIN__URL=x` as `targets.PG_MAIN.url = "x"`: keys are in lower case, except the code
/// of a target, which gets the spelling of the file.
fn environment_layer(file: &Figment, variables: &BTreeMap<String, String>) -> Dict {
    let codes: Vec<String> = match file.find_value("targets") {
        Ok(Value::Dict(_, targets)) => targets.keys().cloned().collect(),
        _ => Vec::new(),
    };
    let mut root = Dict::new();
    for (name, text) in variables {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let segments: Vec<&str> = rest.split("__").collect();
        let is_target = segments.first().is_some_and(|s| s.eq_ignore_ascii_case("targets"));
        let keys: Vec<String> = segments
            .iter()
            .enumerate()
            .map(|(index, segment)| match index {
                1 if is_target => codes
                    .iter()
                    .find(|code| code.eq_ignore_ascii_case(segment))
                    .cloned()
                    .unwrap_or_else(|| (*segment).to_owned()),
                _ => segment.to_ascii_lowercase(),
            })
            .collect();
        let Ok(value) = text.parse::<Value>();
        insert(&mut root, &keys, value);
    }
    root
}

fn insert(dict: &mut Dict, keys: &[String], value: Value) {
    match keys {
        [] => {}
        [last] => {
            dict.insert(last.clone(), value);
        }
        [first, rest @ ..] => {
            let entry = dict.entry(first.clone()).or_insert_with(|| Value::from(Dict::new()));
            if !matches!(entry, Value::Dict(..)) {
                *entry = Value::from(Dict::new());
            }
            if let Value::Dict(_, inner) = entry {
                insert(inner, rest, value);
            }
        }
    }
}
