//! Configuration: defaults, then the file, then the environment, read into one typed value.
//!
//! Every key is read by name, so that all mistakes are reported at once, each with its key, its value, where it was
//! written and what would be right; keys that nothing reads are mistakes too. `defaults.toml` beside this file is
//! the list of keys. Nothing here is global and nothing is read later than at the start.

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

/// `server.tls.handshake_timeout` where it is not configured. These two are not in the defaults: `[server.tls]` would be
/// there then, and ask for a certificate.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// `server.tls.max_handshakes` where it is not configured.
const MAX_HANDSHAKES: u32 = 256;

/// What the topology contract is below of. Its callers are others than those of the adapter contracts.
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
    /// `[environments]`: Witboost name to the id that a topology uses.
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
    /// Where the Tech Adapter contract is mounted: `/` and prefixes such as `/datamesh.specificprovisioner`.
    pub base_paths: Vec<String>,
    /// How a 202 carries its token.
    pub token_format: TokenFormat,
    /// Work that ends within this time answers 200; zero answers 202 at once.
    pub respond_within: Duration,
    /// Largest request body in bytes.
    pub max_body_bytes: usize,
    /// Bytes of request bodies that are in memory at the same time.
    pub max_inflight_bytes: u32,
    /// How long a request waits for room for its body.
    pub inflight_wait: Duration,
    /// What `Retry-After` says where the error does not know.
    pub retry_after: Duration,
    /// How long running work may go on after SIGTERM.
    pub drain_grace: Duration,
    /// Within which time a whole request body must have arrived.
    pub body_timeout: Duration,
    /// Bytes a second that a request body must bring.
    pub min_body_rate: u32,
    /// Over which time that is measured.
    pub min_body_window: Duration,
    /// Within which time the head of a request must have arrived.
    pub header_timeout: Duration,
    /// How long a connection may be silent after a request was answered.
    pub keep_alive: Duration,
    /// How long a caller may read nothing of its answer.
    pub answer_timeout: Duration,
    /// Connections of all workers together.
    pub max_connections: usize,
    /// Web pages that may call: `scheme://host[:port]`.
    pub allowed_origins: Vec<String>,
    /// Within which time a TLS handshake must be done.
    pub handshake_timeout: Duration,
    /// TLS handshakes that are under way at the same time.
    pub max_handshakes: usize,
    /// HTTP worker threads.
    pub workers: usize,
    /// `[server.tls]`: files that were in order at the start.
    pub tls: Option<tls::Files>,
}

/// How a 202 carries its token.
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
    /// PostgreSQL: connections for reading and for running work, besides two of its own.
    pub connections: u32,
    /// PostgreSQL: longest wait for a connection, and for the answer to a statement.
    pub timeout: Duration,
}

/// Where operations are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// One file, one process.
    Sqlite(PathBuf),
    /// One database, many processes. The URL may hold a password.
    Postgres(Secret),
}

/// `[operations]`
#[derive(Debug, Clone)]
pub struct Operations {
    /// Tasks that run at the same time.
    pub concurrency: usize,
    /// Of those, how many may run on any one target.
    pub target_concurrency: u32,
    /// Components of one task that are worked on at the same time.
    pub components_at_once: usize,
    /// Asynchronous validations that run at the same time.
    pub validation_concurrency: usize,
    /// Imports that run at the same time.
    pub import_concurrency: usize,
    /// Descriptors of more than 8 KiB that are read at the same time for validations, and as many for everything else.
    pub parse_concurrency: usize,
    /// How long one of them waits for its turn.
    pub parse_wait: Duration,
    /// Dry runs that are under way at the same time.
    pub dry_run_concurrency: usize,
    /// How long a dry run waits for its turn.
    pub dry_run_wait: Duration,
    /// Longest dry run.
    pub dry_run_limit: Duration,
    /// How long a worker owns a task without a sign of life.
    pub lease: Duration,
    /// How often the queue is looked at without a hint.
    pub poll: Duration,
    /// First wait before a retry.
    pub backoff: Duration,
    /// Longest wait before a retry.
    pub backoff_cap: Duration,
    /// How long a task is tried again from its first transient failure on.
    pub retry_for: Duration,
    /// Runs of one task that may end with a crash of the process.
    pub max_crashes: u32,
    /// First wait after a task's process was lost for the second time.
    pub crash_pause: Duration,
    /// Tasks that may wait in each lane.
    pub max_queued: u32,
    /// How large the tasks that wait in a lane may be together.
    pub max_queued_bytes: u64,
    /// Log lines kept per task.
    pub max_log_lines: u32,
    /// Longest single run.
    pub run_limit: Duration,
    /// `[operations.run_limits]`: the longest single run of the operations for which it differs from `run_limit`.
    pub run_limits: HashMap<Operation, Duration>,
    /// How long a cancelled run may take to end.
    pub cancel_grace: Duration,
    /// How long the store may take to answer whether it can be written.
    pub health_timeout: Duration,
    /// How long a finished task can be asked for.
    pub keep_for: Duration,
    /// How many finished tasks can be asked for.
    pub keep_count: u64,
}

/// `[log]`
#[derive(Debug, Clone)]
pub struct Log {
    /// A level or an `env_logger` filter.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
    /// Lines of one kind a minute that unauthenticated callers can cause.
    pub peer_lines: u32,
}

/// How the administrator's log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[targets.CODE]`
#[derive(Clone)]
pub struct Target {
    /// The name routes and topologies know it by.
    pub code: String,
    /// What routes point at; the driver's name by default.
    pub group: String,
    /// Witboost environments it serves; empty: all.
    pub environments: Vec<String>,
    /// Tasks that may run on it at the same time, in all processes together; `None`: no bound of its own.
    pub concurrency: Option<u32>,
    /// What its driver made of its settings. Nothing is opened yet.
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

/// What comes from the command line and stands above the file and the environment.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--listen`
    pub listen: Option<String>,
    /// `--data-dir`
    pub data_dir: Option<String>,
}

impl Config {
    /// Reads everything; on failure every mistake, a line each.
    pub fn load(
        file: Option<&Path>,
        overrides: &Overrides,
        registry: &Registry,
    ) -> Result<Self, Vec<String>> {
        Self::assemble(file, variables(), overrides, registry, Mode::Check)
    }

    /// The same for a server that is about to start: what the configuration names on this machine (folders, files, the
    /// address) is looked at, too. Nothing is made.
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

/// What is done with a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// It is checked: the files and addresses that it names may be on another machine.
    Check,
    /// A server on this machine starts with it.
    Serve,
}

fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
}

/// What a reader of TOML says, without the line that it shows, which may hold a secret.
fn unquoted(message: &str) -> String {
    let is_quoted =
        |line: &&str| line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').starts_with('|');
    message.lines().filter(|line| !is_quoted(line)).map(str::trim).collect::<Vec<_>>().join(": ")
}

/// `LANDFALL__TARGETS__PG_MAIN__URL=x` as `targets.PG_MAIN.url = "x"`: keys in lower case, but for a target's code,
/// which takes the spelling that the file uses.
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
