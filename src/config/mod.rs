//! Configuration: defaults, then the file, then the environment, read into one typed value.
//!
//! Every key is read by name, so that all mistakes are reported at once, each with its key, its value, where it was
//! written and what would be right; keys that nothing reads are mistakes too. `defaults.toml` beside this file is
//! the list of keys. Nothing here is global and nothing is read later than at the start.

mod auth;
mod identity;
mod import;
mod places;
mod secret;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Value};
use serde::de::DeserializeOwned;
use sqlx::postgres::PgConnectOptions;

use crate::descriptor::{ComponentKind, Limits};
use crate::technology::postgresql;
use crate::tls;
use crate::topology::{TopologyLimits, same_code};

pub use auth::{Auth, Source};
pub use identity::Identity;
pub use import::Import;
pub use secret::Secret;

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
    /// `[operations.run_limits]`
    pub run_limits: RunLimits,
    /// How long a cancelled run may take to end.
    pub cancel_grace: Duration,
    /// How long the store may take to answer whether it can be written.
    pub health_timeout: Duration,
    /// How long a finished task can be asked for.
    pub keep_for: Duration,
    /// How many finished tasks can be asked for.
    pub keep_count: u64,
}

/// `[operations.run_limits]`: the longest single run of one operation, where it is another than that of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunLimits {
    /// Of an asynchronous validation.
    pub validate: Option<Duration>,
    /// Of a provisioning.
    pub provision: Option<Duration>,
    /// Of an unprovisioning.
    pub unprovision: Option<Duration>,
    /// Of a change of access.
    pub updateacl: Option<Duration>,
    /// Of an import.
    pub reverse: Option<Duration>,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The name routes and topologies know it by.
    pub code: String,
    /// What routes point at; the driver's name by default.
    pub group: String,
    /// Witboost environments it serves; empty: all.
    pub environments: Vec<String>,
    /// Tasks that may run on it at the same time, in all processes together; `None`: no bound of its own.
    pub concurrency: Option<u32>,
    /// The technology and its settings.
    pub driver: Driver,
}

/// A technology and its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Driver {
    /// Directory buckets and Iceberg tables.
    Lakehouse {
        /// Folder of buckets and tables.
        warehouse: PathBuf,
        /// SQLite file of the Iceberg catalog.
        catalog: PathBuf,
    },
    /// Turns anything green.
    Mock {
        /// Changes that a provisioning pretends to make.
        steps: u32,
        /// Time that each takes.
        step_delay: Duration,
        /// Time that one takes to end when it is stopped.
        stop_delay: Duration,
        /// Whether each works on a thread that blocks.
        blocking: bool,
        /// Whether work under way can be stopped.
        stoppable: bool,
        /// Where it tells when each begins and ends.
        trace: Option<PathBuf>,
    },
    /// Schemas, tables, views and roles of a database.
    Postgresql {
        /// `postgres://...`, with the password.
        url: Secret,
        /// Sessions at the same time.
        connections: u32,
        /// Longest wait for the server to open a session, and for any sign of life.
        connect_timeout: Duration,
        /// Longest statement.
        statement_timeout: Duration,
        /// Longest wait for somebody else's lock.
        lock_timeout: Duration,
        /// Longest look at rows.
        count_timeout: Duration,
        /// From refs to roles, in the order in which they are asked.
        identity: Vec<Identity>,
    },
}

/// `[[routes]]`: an absent key matches everything; names match without case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Route {
    /// `technology` of the component.
    pub technology: Option<String>,
    /// `platform` of the component.
    pub platform: Option<String>,
    /// `kind` of the component.
    pub kind: Option<ComponentKind>,
    /// `infrastructureTemplateId`, whole or up to its last `:` (all versions).
    pub infrastructure_template_id: Option<String>,
    /// `useCaseTemplateId`, whole or up to its last `:` (all versions).
    pub use_case_template_id: Option<String>,
    /// Group of targets it leads to.
    pub group: String,
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
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, Vec<String>> {
        Self::assemble(file, variables(), overrides, Purpose::Look)
    }

    /// The same for a server that is about to start: what the configuration names on this machine (folders, files, the
    /// address) is looked at, too. Nothing is made.
    pub fn load_to_serve(file: Option<&Path>, overrides: &Overrides) -> Result<Self, Vec<String>> {
        Self::assemble(file, variables(), overrides, Purpose::Serve)
    }

    fn assemble(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
        overrides: &Overrides,
        purpose: Purpose,
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
        let config = Reader::new(&figment, &environment, purpose, &mut problems).config();
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(problems),
        }
    }
}

/// What a configuration is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Whatever it names may be on another machine.
    Look,
    /// To serve on this machine.
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

/// Reads keys, remembers which, and collects what is wrong.
struct Reader<'a> {
    figment: &'a Figment,
    environment: &'a BTreeMap<String, String>,
    purpose: Purpose,
    problems: &'a mut Vec<String>,
    read: BTreeSet<String>,
    data_dir: String,
}

impl<'a> Reader<'a> {
    fn new(
        figment: &'a Figment,
        environment: &'a BTreeMap<String, String>,
        purpose: Purpose,
        problems: &'a mut Vec<String>,
    ) -> Self {
        Self { figment, environment, purpose, problems, read: BTreeSet::new(), data_dir: String::new() }
    }

    fn problem(&mut self, key: &str, message: impl std::fmt::Display) {
        let origin = self
            .figment
            .find_metadata(key)
            .and_then(|metadata| metadata.source.as_ref())
            .and_then(|source| source.file_path())
            .map(|path| format!(" (in {})", path.display()))
            .unwrap_or_default();
        self.problems.push(format!("{key}: {message}{origin}"));
    }

    /// Notes what is wrong with a thing of this machine, where the configuration is to be served on it.
    fn look(&mut self, key: &str, look: impl FnOnce() -> Option<String>) {
        if self.purpose == Purpose::Serve
            && let Some(problem) = look()
        {
            self.problem(key, problem);
        }
    }

    fn optional<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        self.read.insert(key.to_owned());
        let value = self.figment.find_value(key).ok()?;
        match value.deserialize::<T>() {
            Ok(read) => Some(read),
            Err(error) => {
                self.problem(key, error.kind);
                None
            }
        }
    }

    fn required<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        if self.figment.find_value(key).is_err() {
            self.read.insert(key.to_owned());
            self.problem(key, "is missing");
            return None;
        }
        self.optional(key)
    }

    fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let text: String = self.required(key)?;
        let chosen = choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
        if chosen.is_none() {
            let names = choices.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            self.problem(key, format_args!("`{text}` is not known; use one of: {names}"));
        }
        chosen
    }

    fn duration(&mut self, key: &str, least: Duration) -> Option<Duration> {
        let text: String = self.required(key)?;
        match parse_duration(&text) {
            Some(duration) if duration >= least => Some(duration),
            Some(_) => {
                self.problem(
                    key,
                    format_args!("`{text}` is too short; at least {} ms is needed", least.as_millis()),
                );
                None
            }
            None => {
                self.problem(
                    key,
                    format_args!("`{text}` is not a duration; write a number and a unit: 500ms, 30s, 5m, 1h"),
                );
                None
            }
        }
    }

    fn optional_duration(&mut self, key: &str, least: Duration) -> Option<Duration> {
        if self.figment.contains(key) {
            self.duration(key, least)
        } else {
            // Known all the same: a misspelt key is told from it.
            self.read.insert(key.to_owned());
            None
        }
    }

    fn at_least_one<T: DeserializeOwned + PartialOrd + From<u8> + std::fmt::Display>(
        &mut self,
        key: &str,
    ) -> Option<T> {
        let number: T = self.required(key)?;
        if number < T::from(1) {
            self.problem(key, format_args!("`{number}` is too small; at least 1 is needed"));
            return None;
        }
        Some(number)
    }

    /// Refuses a key of an earlier version, and says what took its place.
    fn removed(&mut self, key: &str, instead: &str) {
        if self.figment.contains(key) {
            self.read.insert(key.to_owned());
            self.problem(key, format_args!("is not a key any more; remove it, and set {instead}"));
        }
    }

    fn path(&mut self, key: &str, scheme: &str) -> Option<PathBuf> {
        let text: String = self.required(key)?;
        let text = text.replace("{data_dir}", &self.data_dir);
        match text.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://")) {
            Some(path) if !path.is_empty() => Some(PathBuf::from(path)),
            _ => {
                self.problem(key, format_args!("`{text}` is not supported; write `{scheme}://PATH`"));
                None
            }
        }
    }

    fn config(&mut self) -> Option<Config> {
        self.data_dir = self.required("data_dir").unwrap_or_default();
        let server = self.server();
        let auth = self.auth();
        let descriptor = self.limits();
        let store = self.store();
        let operations = self.operations();
        let import = self.import();
        let log = self.log();
        let topology = self.topology();
        let environments = self.environments();
        let identities = self.identities();
        let targets = self.targets(&environments, &identities);
        let routes = self.routes();
        self.unknown_keys();
        Some(Config {
            server: server?,
            auth: auth?,
            descriptor: descriptor?,
            store: store?,
            operations: operations?,
            import: import?,
            log: log?,
            topology: topology?,
            environments,
            targets,
            routes,
        })
    }

    fn server(&mut self) -> Option<Server> {
        const INSTANT: Duration = Duration::from_millis(1);
        let listen: Option<String> = self.required("server.listen");
        if let Some(listen) = &listen {
            self.look("server.listen", || cannot_listen(listen));
        }
        let base_paths = self.base_paths();
        let formats = [("auto", TokenFormat::Auto), ("text", TokenFormat::Text), ("json", TokenFormat::Json)];
        let token_format = self.choice("server.token_format", &formats);
        let respond_within = self.duration("server.respond_within", Duration::ZERO);
        let max_body_bytes = self.at_least_one::<u32>("server.max_body_bytes");
        let max_inflight_bytes = self.at_least_one::<u32>("server.max_inflight_bytes");
        if let (Some(one), Some(all)) = (max_body_bytes, max_inflight_bytes)
            && all < one
        {
            self.problem(
                "server.max_inflight_bytes",
                format_args!("`{all}` is too small; at least the {one} of server.max_body_bytes are needed"),
            );
        }
        let inflight_wait = self.duration("server.inflight_wait", Duration::ZERO);
        let retry_after = self.duration("server.retry_after", Duration::from_secs(1));
        let drain_grace = self.duration("server.drain_grace", Duration::ZERO);
        let body_timeout = self.duration("server.body_timeout", INSTANT);
        let min_body_rate = self.required::<u32>("server.min_body_rate");
        let min_body_window = self.duration("server.min_body_window", INSTANT);
        let header_timeout = self.duration("server.header_timeout", INSTANT);
        let keep_alive = self.duration("server.keep_alive", INSTANT);
        let answer_timeout = self.duration("server.answer_timeout", INSTANT);
        let max_connections = self.at_least_one::<u32>("server.max_connections");
        let allowed_origins = self.allowed_origins();
        let workers = self.at_least_one::<u16>("server.workers");
        let handshake_timeout = self.optional_duration("server.tls.handshake_timeout", INSTANT);
        let max_handshakes = match self.figment.contains("server.tls.max_handshakes") {
            true => self.at_least_one::<u32>("server.tls.max_handshakes"),
            false => {
                self.read.insert("server.tls.max_handshakes".to_owned());
                Some(MAX_HANDSHAKES)
            }
        };
        let tls = self.tls();
        Some(Server {
            listen: listen?,
            base_paths: base_paths?,
            token_format: token_format?,
            respond_within: respond_within?,
            max_body_bytes: usize::try_from(max_body_bytes?).ok()?,
            max_inflight_bytes: max_inflight_bytes?,
            inflight_wait: inflight_wait?,
            retry_after: retry_after?,
            drain_grace: drain_grace?,
            body_timeout: body_timeout?,
            min_body_rate: min_body_rate?,
            min_body_window: min_body_window?,
            header_timeout: header_timeout?,
            keep_alive: keep_alive?,
            answer_timeout: answer_timeout?,
            max_connections: usize::try_from(max_connections?).ok()?,
            allowed_origins: allowed_origins?,
            handshake_timeout: handshake_timeout.unwrap_or(HANDSHAKE_TIMEOUT),
            max_handshakes: usize::try_from(max_handshakes?).ok()?,
            workers: usize::from(workers?),
            tls,
        })
    }

    /// In lower case, as browsers send them.
    fn allowed_origins(&mut self) -> Option<Vec<String>> {
        const KEY: &str = "server.allowed_origins";
        let origins: Vec<String> = self.required(KEY)?;
        for origin in &origins {
            let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            let is_origin = rest.is_some_and(|rest| {
                !rest.is_empty()
                    && !rest.contains(['/', '?', '#', '@', '*', ' '])
                    && rest == rest.to_lowercase()
            });
            if !is_origin {
                self.problem(
                    KEY,
                    format_args!(
                        "`{origin}` is not an origin; write `https://HOST` or `https://HOST:PORT`, in lower case"
                    ),
                );
            }
        }
        Some(origins)
    }

    /// `None` also where something is wrong, which is told then.
    fn tls(&mut self) -> Option<tls::Files> {
        const KEYS: [&str; 3] = ["server.tls.certificate", "server.tls.key", "server.tls.client_ca"];
        let wanted = self.figment.contains("server.tls");
        let [certificate, key, client_ca] = KEYS.map(|key| self.plain_path(key));
        for (name, path) in [(KEYS[0], &certificate), (KEYS[1], &key)] {
            if wanted && path.is_none() && !self.figment.contains(name) {
                self.problem(name, "is missing; name a PEM file");
            }
        }
        let files = tls::Files { certificate: certificate?, key: key?, client_ca };
        for wrong in tls::check(&files) {
            let key = match wrong.part {
                tls::Part::Certificate => KEYS[0],
                tls::Part::Key => KEYS[1],
                tls::Part::ClientCa => KEYS[2],
            };
            self.problem(key, wrong.message);
        }
        Some(files)
    }

    /// A path as it is written, if it is.
    fn plain_path(&mut self, key: &str) -> Option<PathBuf> {
        let text: String = self.optional(key)?;
        if text.is_empty() {
            self.problem(key, "is empty; name a file");
            return None;
        }
        Some(PathBuf::from(text.replace("{data_dir}", &self.data_dir)))
    }

    fn store(&mut self) -> Option<Store> {
        let url = self.store_url();
        let connections = self.at_least_one::<u32>("store.connections");
        let timeout = self.duration("store.timeout", Duration::from_millis(100));
        Some(Store { url: url?, connections: connections?, timeout: timeout? })
    }

    fn store_url(&mut self) -> Option<StoreUrl> {
        const KEY: &str = "store.url";
        let is_text = matches!(self.figment.find_value(KEY), Ok(Value::String(..)));
        if !is_text {
            return self.secret(KEY).and_then(|url| self.postgres(KEY, url));
        }
        let text: String = self.required(KEY)?;
        if let Some(path) = text.strip_prefix("sqlite://").filter(|path| !path.is_empty()) {
            let path = path.replace("{data_dir}", &self.data_dir);
            if path.contains('?') || path.contains(":memory:") {
                self.problem(
                    KEY,
                    format_args!("`{path}` is no file; write `sqlite://PATH`, without options"),
                );
                return None;
            }
            let path = PathBuf::from(path);
            self.look(KEY, || places::file(&path));
            return Some(StoreUrl::Sqlite(path));
        }
        let in_file = self.figment.find_metadata(KEY).and_then(|metadata| metadata.source.as_ref());
        if in_file.is_some_and(|source| source.file_path().is_some()) && has_password(&text) {
            self.problem(
                KEY,
                "holds a password; leave it out of the file: `url = { env = \"NAME\" }` or `{ file = \"PATH\" }` says \
                 where the URL stands",
            );
            return None;
        }
        self.postgres(KEY, Secret::new(text))
    }

    /// The problem does not quote it: it may be a password in the wrong place.
    fn postgres(&mut self, key: &str, url: Secret) -> Option<StoreUrl> {
        let text = url.expose();
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            if text.parse::<PgConnectOptions>().is_err() {
                self.problem(
                    key,
                    "cannot be read; write `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, with special characters of the \
                     password percent-encoded",
                );
                return None;
            }
            self.look(key, || store_files(url.expose()));
            return Some(StoreUrl::Postgres(url));
        }
        let scheme = text.split_once("://").map_or("no scheme", |(scheme, _)| scheme).to_owned();
        self.problem(
            key,
            format_args!(
                "a URL with `{scheme}` is not supported; write `sqlite://PATH` or `postgres://USER@HOST/DATABASE`"
            ),
        );
        None
    }

    /// A secret by reference: `{ env = "NAME" }` or `{ file = "PATH" }`. A line end at the end is not part of it.
    fn secret(&mut self, key: &str) -> Option<Secret> {
        let (env, file) = (format!("{key}.env"), format!("{key}.file"));
        let name: Option<String> = self.optional(&env);
        let path: Option<String> = self.optional(&file);
        match (name, path) {
            (Some(name), None) => match self.environment.get(&name) {
                Some(text) if !text.is_empty() => Some(Secret::new(text.as_str())),
                _ => {
                    self.problem(&env, format_args!("the variable `{name}` is not set, or empty"));
                    None
                }
            },
            (None, Some(path)) => match Secret::from_file(Path::new(&path)) {
                Ok(secret) => Some(secret),
                Err(error) => {
                    self.problem(&file, format_args!("`{path}` cannot be read: {error}"));
                    None
                }
            },
            _ => {
                self.read.insert(key.to_owned());
                self.problem(key, "must be one of `{ env = \"NAME\" }` and `{ file = \"PATH\" }`");
                None
            }
        }
    }

    fn base_paths(&mut self) -> Option<Vec<String>> {
        const KEY: &str = "server.base_paths";
        let paths: Vec<String> = self.required(KEY)?;
        let mut normal = Vec::new();
        for path in &paths {
            let trimmed = path.trim_end_matches('/');
            if !(trimmed.is_empty() || trimmed.starts_with('/')) || trimmed.contains(['{', '}', '?', '#']) {
                self.problem(KEY, format_args!("`{path}` is not a path; write `/` or `/prefix`"));
            } else if trimmed == TOPOLOGY_PATH || trimmed.starts_with(&format!("{TOPOLOGY_PATH}/")) {
                self.problem(KEY, format_args!("`{path}` belongs to the topology contract; choose another"));
            } else if !normal.iter().any(|known| known == trimmed) {
                normal.push(trimmed.to_owned());
            }
        }
        if paths.is_empty() {
            self.problem(KEY, "is empty; name at least one path, such as `/`");
        }
        Some(normal)
    }

    fn limits(&mut self) -> Option<Limits> {
        let max_bytes = self.at_least_one::<u32>("descriptor.max_bytes");
        let max_depth = self.at_least_one::<u16>("descriptor.max_depth");
        let max_nodes = self.at_least_one::<u32>("descriptor.max_nodes");
        let max_aliases = self.required::<u32>("descriptor.max_aliases");
        let max_scalar_bytes = self.at_least_one::<u32>("descriptor.max_scalar_bytes");
        Some(Limits {
            max_bytes: usize::try_from(max_bytes?).ok()?,
            max_depth: usize::from(max_depth?),
            max_nodes: usize::try_from(max_nodes?).ok()?,
            max_aliases: usize::try_from(max_aliases?).ok()?,
            max_scalar_bytes: usize::try_from(max_scalar_bytes?).ok()?,
        })
    }

    fn operations(&mut self) -> Option<Operations> {
        const INSTANT: Duration = Duration::from_millis(1);
        let concurrency = self.at_least_one::<u16>("operations.concurrency");
        let target_concurrency = self.at_least_one("operations.target_concurrency");
        let validation_concurrency = self.at_least_one::<u16>("operations.validation_concurrency");
        let import_concurrency = self.at_least_one::<u16>("operations.import_concurrency");
        let parse_concurrency = self.at_least_one::<u16>("operations.parse_concurrency");
        let parse_wait = self.duration("operations.parse_wait", INSTANT);
        let dry_run_concurrency = self.at_least_one::<u16>("operations.dry_run_concurrency");
        let dry_run_wait = self.duration("operations.dry_run_wait", INSTANT);
        let dry_run_limit = self.duration("operations.dry_run_limit", INSTANT);
        let lease = self.duration("operations.lease", Duration::from_millis(100));
        let poll = self.duration("operations.poll", INSTANT);
        self.removed(
            "operations.max_attempts",
            "operations.retry_for: transient failures are retried for that long, however many runs it takes",
        );
        let backoff = self.duration("operations.backoff", INSTANT);
        let backoff_cap = self.duration("operations.backoff_cap", INSTANT);
        let retry_for = self.duration("operations.retry_for", INSTANT);
        let max_crashes = self.at_least_one("operations.max_crashes");
        let crash_pause = self.duration("operations.crash_pause", Duration::ZERO);
        let max_queued = self.at_least_one("operations.max_queued");
        let max_queued_bytes = self.at_least_one("operations.max_queued_bytes");
        let max_log_lines = self.at_least_one("operations.max_log_lines");
        let run_limit = self.duration("operations.run_limit", INSTANT);
        let run_limits = RunLimits {
            validate: self.optional_duration("operations.run_limits.validate", INSTANT),
            provision: self.optional_duration("operations.run_limits.provision", INSTANT),
            unprovision: self.optional_duration("operations.run_limits.unprovision", INSTANT),
            updateacl: self.optional_duration("operations.run_limits.updateacl", INSTANT),
            reverse: self.optional_duration("operations.run_limits.reverse", INSTANT),
        };
        let cancel_grace = self.duration("operations.cancel_grace", INSTANT);
        let health_timeout = self.duration("operations.health_timeout", INSTANT);
        let keep_for = self.duration("operations.keep_for", INSTANT);
        let keep_count = self.at_least_one("operations.keep_count");
        Some(Operations {
            concurrency: usize::from(concurrency?),
            target_concurrency: target_concurrency?,
            validation_concurrency: usize::from(validation_concurrency?),
            import_concurrency: usize::from(import_concurrency?),
            parse_concurrency: usize::from(parse_concurrency?),
            parse_wait: parse_wait?,
            dry_run_concurrency: usize::from(dry_run_concurrency?),
            dry_run_wait: dry_run_wait?,
            dry_run_limit: dry_run_limit?,
            lease: lease?,
            poll: poll?,
            backoff: backoff?,
            backoff_cap: backoff_cap?,
            retry_for: retry_for?,
            max_crashes: max_crashes?,
            crash_pause: crash_pause?,
            max_queued: max_queued?,
            max_queued_bytes: max_queued_bytes?,
            max_log_lines: max_log_lines?,
            run_limit: run_limit?,
            run_limits,
            cancel_grace: cancel_grace?,
            health_timeout: health_timeout?,
            keep_for: keep_for?,
            keep_count: keep_count?,
        })
    }

    fn log(&mut self) -> Option<Log> {
        let level: Option<String> = self.required("log.level");
        for part in level.iter().flat_map(|filter| filter.split(',')) {
            let name = part.rsplit('=').next().unwrap_or_default().trim();
            if name.parse::<log::LevelFilter>().is_err() {
                self.problem(
                    "log.level",
                    format_args!("`{name}` is not a level; use one of: error, warn, info, debug, trace, off"),
                );
            }
        }
        let format = self.choice("log.format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
        let peer_lines = self.at_least_one("log.peer_lines");
        Some(Log { level: level?, format: format?, peer_lines: peer_lines? })
    }

    fn topology(&mut self) -> Option<TopologyLimits> {
        let max_instances = self.at_least_one("topology.max_instances");
        let max_entries = self.at_least_one("topology.max_entries");
        let max_text = self.at_least_one("topology.max_text");
        Some(TopologyLimits { max_instances: max_instances?, max_entries: max_entries?, max_text: max_text? })
    }

    fn environments(&mut self) -> BTreeMap<String, i64> {
        let names = self.children("environments");
        let mut environments: BTreeMap<String, i64> = BTreeMap::new();
        for name in names {
            let key = format!("environments.{name}");
            let Some(id) = self.required::<i64>(&key) else { continue };
            let same_name = |other: &&String| same_code(other, &name);
            if let Some(other) = environments.keys().find(same_name).cloned() {
                self.problem(&key, format_args!("is `{other}`, too: names are told apart without case"));
            }
            if let Some((other, _)) = environments.iter().find(|(_, known)| **known == id) {
                let what = format!("`{id}` is the id of `{other}`, too; give each environment its own");
                self.problem(&key, what);
            }
            environments.insert(name, id);
        }
        environments
    }

    fn targets(
        &mut self,
        environments: &BTreeMap<String, i64>,
        identities: &BTreeMap<String, Identity>,
    ) -> Vec<Target> {
        let codes = self.children("targets");
        for (index, code) in codes.iter().enumerate() {
            if let Some(other) = codes.iter().take(index).find(|other| same_code(other, code)) {
                let what = format!("is `{other}`, too: codes are told apart without case");
                self.problem(&format!("targets.{code}"), what);
            }
        }
        codes.into_iter().filter_map(|code| self.target(code, environments, identities)).collect()
    }

    fn target(
        &mut self,
        code: String,
        environments: &BTreeMap<String, i64>,
        identities: &BTreeMap<String, Identity>,
    ) -> Option<Target> {
        let key = |name: &str| format!("targets.{code}.{name}");
        let name: Option<String> = self.required(&key("driver"));
        self.check_code(&format!("targets.{code}"), &code);
        let group: Option<String> = self.optional(&key("group"));
        if let Some(group) = &group {
            self.check_code(&key("group"), group);
        }
        let served: Vec<String> = self.optional(&key("environments")).unwrap_or_default();
        for environment in &served {
            if !environments.keys().any(|known| known.eq_ignore_ascii_case(environment)) {
                let known = environments.keys().cloned().collect::<Vec<_>>().join(", ");
                self.problem(
                    &key("environments"),
                    format_args!("`{environment}` is not named in [environments], which has: {known}"),
                );
            }
        }
        let concurrency = match self.figment.contains(&key("concurrency")) {
            true => self.at_least_one(&key("concurrency")),
            false => None,
        };
        let Some(name) = name else {
            self.pass_over(&format!("targets.{code}"));
            return None;
        };
        let driver = match name.as_str() {
            "lakehouse" => self.lakehouse(&key)?,
            "mock" => {
                let steps = self.optional(&key("steps")).unwrap_or_default();
                let step_delay =
                    self.optional_duration(&key("step_delay"), Duration::ZERO).unwrap_or_default();
                let stop_delay =
                    self.optional_duration(&key("stop_delay"), Duration::ZERO).unwrap_or_default();
                let blocking = self.optional(&key("blocking")).unwrap_or_default();
                let stoppable = self.optional(&key("stoppable")).unwrap_or(true);
                let trace = match self.figment.contains(&key("trace")) {
                    true => {
                        let trace = self.path(&key("trace"), "file")?;
                        self.look(&key("trace"), || places::file(&trace));
                        Some(trace)
                    }
                    false => None,
                };
                Driver::Mock { steps, step_delay, stop_delay, blocking, stoppable, trace }
            }
            "postgresql" => self.postgresql(&key, identities)?,
            other => {
                self.problem(
                    &key("driver"),
                    format_args!("`{other}` is not a driver; use one of: lakehouse, mock, postgresql"),
                );
                self.pass_over(&format!("targets.{code}"));
                return None;
            }
        };
        Some(Target { group: group.unwrap_or(name), code, environments: served, concurrency, driver })
    }

    /// What the topology keeps of a target has the bounds of what its API takes.
    fn check_code(&mut self, key: &str, code: &str) {
        if code.trim().is_empty() || code.chars().any(char::is_control) || code.chars().count() > MAX_CODE {
            self.problem(
                key,
                format_args!(
                    "a name in the topology has 1 to {MAX_CODE} characters, and no control characters; choose another"
                ),
            );
        }
    }

    fn lakehouse(&mut self, key: &dyn Fn(&str) -> String) -> Option<Driver> {
        let (warehouse_key, catalog_key) = (key("warehouse"), key("catalog"));
        let warehouse = self.path(&warehouse_key, "file");
        let catalog = match self.figment.contains(&catalog_key) {
            true => self.path(&catalog_key, "sqlite"),
            false => {
                self.read.insert(catalog_key.clone());
                warehouse.as_deref().and_then(|warehouse| {
                    let beside = catalog_beside(warehouse);
                    if beside.is_none() {
                        let what = "is missing, and the warehouse has no name for a file beside it; write `sqlite://FILE`";
                        self.problem(&catalog_key, what);
                    }
                    beside
                })
            }
        };
        for (key, path) in [(&warehouse_key, &warehouse), (&catalog_key, &catalog)] {
            let text = path.as_deref().map(Path::to_string_lossy).unwrap_or_default();
            // A catalog that is derived would say the same again.
            let is_written = self.figment.contains(key);
            if is_written && text.contains(|c: char| matches!(c, '%' | '?' | '#') || c.is_control()) {
                self.problem(
                    key,
                    format_args!(
                        "`{text}` has one of `%?#` or a control character, which readers of Iceberg take for something \
                         else; choose another path"
                    ),
                );
            }
        }
        let before = self.problems.len();
        if let Some(warehouse) = &warehouse {
            self.look(&warehouse_key, || places::folder(warehouse));
        }
        // One that is beside a wrong warehouse would say the same again.
        let is_told = self.problems.len() > before && !self.figment.contains(&catalog_key);
        if let Some(catalog) = catalog.as_deref().filter(|_| !is_told) {
            self.look(&catalog_key, || places::file(catalog));
        }
        Some(Driver::Lakehouse { warehouse: warehouse?, catalog: catalog? })
    }

    fn postgresql(
        &mut self,
        key: &dyn Fn(&str) -> String,
        identities: &BTreeMap<String, Identity>,
    ) -> Option<Driver> {
        const INSTANT: Duration = Duration::from_millis(1);
        let url = self.secret(&key("url"));
        if let Some(url) = &url {
            match postgresql::check_url(url) {
                Err(problem) => self.problem(&key("url"), problem),
                Ok(()) => self.look(&key("url"), || postgresql::check_files(url).err()),
            }
        }
        let connections = match self.figment.contains(&key("connections")) {
            true => self.at_least_one(&key("connections")),
            false => Some(4),
        };
        let connect_timeout = self.optional_duration(&key("connect_timeout"), Duration::from_millis(100));
        let statement_timeout = self.optional_duration(&key("statement_timeout"), INSTANT);
        let lock_timeout = self.optional_duration(&key("lock_timeout"), INSTANT);
        let count_timeout = self.optional_duration(&key("count_timeout"), INSTANT);
        let identity = self.identity_of(&key("identity"), identities);
        Some(Driver::Postgresql {
            url: url?,
            connections: connections?,
            connect_timeout: connect_timeout.unwrap_or(Duration::from_secs(10)),
            statement_timeout: statement_timeout.unwrap_or(Duration::from_secs(5 * 60)),
            lock_timeout: lock_timeout.unwrap_or(Duration::from_secs(10)),
            count_timeout: count_timeout.unwrap_or(Duration::from_secs(5)),
            identity: identity?,
        })
    }

    fn routes(&mut self) -> Vec<Route> {
        let rows = match self.figment.find_value("routes") {
            Ok(Value::Array(_, rows)) => rows,
            Ok(_) => {
                self.read.insert("routes".to_owned());
                self.problem("routes", "must be a list; write [[routes]] for each");
                return Vec::new();
            }
            Err(_) => Vec::new(),
        };
        let mut routes = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            let at = format!("routes[{index}]");
            let Value::Dict(_, row) = row else {
                self.problem(&at, "must be a table");
                continue;
            };
            let mut route = Route::default();
            for (name, value) in row {
                let Some(text) = value.as_str().map(str::to_owned) else {
                    self.problem(&at, format_args!("`{name}` must be text"));
                    continue;
                };
                match name.as_str() {
                    "technology" => route.technology = Some(text),
                    "platform" => route.platform = Some(text),
                    "infrastructureTemplateId" | "infrastructure_template_id" => {
                        route.infrastructure_template_id = Some(text)
                    }
                    "useCaseTemplateId" | "use_case_template_id" => route.use_case_template_id = Some(text),
                    "group" => route.group = text,
                    "kind" => match ComponentKind::of(&text) {
                        ComponentKind::Unspecified => {
                            self.problem(&at, "`kind` is empty; name one, or leave it out for any");
                        }
                        kind => route.kind = Some(kind),
                    },
                    _ => self.problem(
                        &at,
                        format_args!(
                            "`{name}` is not a key of a route; use technology, platform, kind, \
                             infrastructureTemplateId, useCaseTemplateId, group"
                        ),
                    ),
                }
            }
            // Which groups there are is said by the topology, while the service runs.
            if route.group.is_empty() {
                self.problem(&at, "has no `group`; name the group of instances it leads to");
            } else {
                routes.push(route);
            }
        }
        routes
    }

    fn children(&mut self, key: &str) -> Vec<String> {
        match self.figment.find_value(key) {
            Ok(Value::Dict(_, children)) => children.into_keys().collect(),
            Ok(_) => {
                self.problem(key, "must be a table");
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }

    /// Which keys a table may have is not known, where its kind is not: none of them is misspelt.
    fn pass_over(&mut self, key: &str) {
        if let Ok(table) = self.figment.find_value(key) {
            let mut written = Vec::new();
            leaves(key, &table, &mut written);
            self.read.extend(written);
        }
    }

    /// What nothing read is misspelt.
    fn unknown_keys(&mut self) {
        let Ok(root) = self.figment.extract::<Dict>() else { return };
        let mut written = Vec::new();
        for (key, value) in &root {
            if key != "routes" {
                leaves(key, value, &mut written);
            }
        }
        for key in written {
            if self.read.contains(&key) {
                continue;
            }
            let nearest = did_you_mean(self.read.iter().map(String::as_str), &key);
            self.problem(&key, format_args!("is not a configuration key{nearest}"));
        }
    }
}

/// Characters of a code or a group, as the topology keeps them.
const MAX_CODE: usize = 255;

/// The catalog of a warehouse that names none: a file beside it, so that two warehouses never share one by accident.
fn catalog_beside(warehouse: &Path) -> Option<PathBuf> {
    let mut name = warehouse.file_name()?.to_owned();
    name.push(".catalog.db");
    Some(warehouse.with_file_name(name))
}

/// What is wrong with the files that the URL of a store names, if anything.
fn store_files(url: &str) -> Option<String> {
    let url = url::Url::parse(url).ok()?;
    url.query_pairs().find_map(|(name, path)| {
        let is_file = ["sslrootcert", "sslcert", "sslkey"].contains(&name.as_ref());
        let error = std::fs::read(&*path).err().filter(|_| is_file)?;
        Some(format!("{name}: `{path}` cannot be read: {error}"))
    })
}

/// Why nothing can listen there, if none of its addresses can be had. Whoever listens for this look stops at once.
fn cannot_listen(listen: &str) -> Option<String> {
    let told = |error: &std::io::Error| {
        Some(format!("cannot listen on `{listen}`: {error}; name a free HOST:PORT, here or by --listen"))
    };
    let addresses = match listen.to_socket_addrs() {
        Ok(addresses) => addresses,
        Err(error) => return told(&error),
    };
    let mut problem = Some(format!("`{listen}` names no address to listen on; name a free HOST:PORT"));
    for address in addresses {
        match TcpListener::bind(address) {
            Ok(_) => return None,
            // Whoever has it may be about to stop.
            Err(error) if error.kind() == ErrorKind::AddrInUse => return None,
            Err(error) => problem = told(&error),
        }
    }
    problem
}

/// The known key that was probably meant.
fn did_you_mean<'a>(known: impl Iterator<Item = &'a str>, key: &str) -> String {
    known
        .map(|known| (strsim::damerau_levenshtein(known, key), known))
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map(|(_, known)| format!("; did you mean `{known}`?"))
        .unwrap_or_default()
}

fn leaves(prefix: &str, value: &Value, keys: &mut Vec<String>) {
    match value {
        Value::Dict(_, children) if !children.is_empty() => {
            for (key, child) in children {
                leaves(&format!("{prefix}.{key}"), child, keys);
            }
        }
        Value::Dict(..) => {}
        _ => keys.push(prefix.to_owned()),
    }
}

/// Whether a URL carries one: `scheme://user:password@host`.
fn has_password(url: &str) -> bool {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    user.contains(':') || url.contains("password=")
}

/// `500ms`, `30s`, `5m`, `1h`.
fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    match unit.trim() {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
