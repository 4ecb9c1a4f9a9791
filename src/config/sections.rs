//! The sections with fixed keys: `[server]`, `[store]`, `[operations]`, ...

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{TcpListener, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use figment::value::Value;
use landfall_adapter::descriptor::Limits;
use landfall_adapter::settings::file_problem;
use landfall_adapter::{Secret, tls};
use landfall_operation::Operation;
use landfall_operation::topology::{TopologyLimits, same_code};
use sqlx::postgres::PgConnectOptions;

use super::reader::Reader;
use super::{
    Config, HANDSHAKE_TIMEOUT, Identity, Log, LogFormat, MAX_HANDSHAKES, Operations, Server, Store, StoreUrl,
    TOPOLOGY_PATH, TokenFormat,
};
use crate::registry::Registry;

impl Reader<'_> {
    pub(super) fn config(&mut self, registry: &Registry) -> Option<Config> {
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
        let principals = identities
            .iter()
            .map(|(name, identity)| (name.clone(), identity.as_ref().map(Identity::principals)))
            .collect();
        let targets = self.targets(registry, &environments, &principals);
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
            identities: identities
                .into_iter()
                .filter_map(|(name, identity)| Some((name, identity?)))
                .collect(),
            targets,
            routes,
        })
    }

    pub(super) fn server(&mut self) -> Option<Server> {
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

    /// Reads origins and converts them to lower case, as browsers send them.
    pub(super) fn allowed_origins(&mut self) -> Option<Vec<String>> {
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

    /// Reads `[server.tls]`. `None` if the section is missing, or after a mistake.
    pub(super) fn tls(&mut self) -> Option<tls::Files> {
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

    /// A path as written, if there is one.
    pub(super) fn plain_path(&mut self, key: &str) -> Option<PathBuf> {
        let text: String = self.optional(key)?;
        if text.is_empty() {
            self.problem(key, "is empty; name a file");
            return None;
        }
        Some(PathBuf::from(text.replace("{data_dir}", &self.data_dir)))
    }

    pub(super) fn store(&mut self) -> Option<Store> {
        let url = self.store_url();
        let connections = self.at_least_one::<u32>("store.connections");
        let timeout = self.duration("store.timeout", Duration::from_millis(100));
        Some(Store { url: url?, connections: connections?, timeout: timeout? })
    }

    pub(super) fn store_url(&mut self) -> Option<StoreUrl> {
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
            self.look(KEY, || file_problem(&path));
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

    /// Checks the URL of a store in PostgreSQL. A mistake does not quote the value, because it may be a
    /// password in the wrong place.
    pub(super) fn postgres(&mut self, key: &str, url: Secret) -> Option<StoreUrl> {
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

    pub(super) fn base_paths(&mut self) -> Option<Vec<String>> {
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

    pub(super) fn limits(&mut self) -> Option<Limits> {
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

    pub(super) fn operations(&mut self) -> Option<Operations> {
        const INSTANT: Duration = Duration::from_millis(1);
        let concurrency = self.at_least_one::<u16>("operations.concurrency");
        let target_concurrency = self.at_least_one("operations.target_concurrency");
        let components_at_once = self.at_least_one::<u16>("operations.components_at_once");
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
        let own_limit = |operation: Operation| {
            Some((operation, self.optional_duration(operation.description().run_limit, INSTANT)?))
        };
        let run_limits = Operation::ALL.into_iter().filter_map(own_limit).collect();
        let cancel_grace = self.duration("operations.cancel_grace", INSTANT);
        let health_timeout = self.duration("operations.health_timeout", INSTANT);
        let keep_for = self.duration("operations.keep_for", INSTANT);
        let keep_count = self.at_least_one("operations.keep_count");
        Some(Operations {
            concurrency: usize::from(concurrency?),
            target_concurrency: target_concurrency?,
            components_at_once: usize::from(components_at_once?),
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

    pub(super) fn log(&mut self) -> Option<Log> {
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

    pub(super) fn topology(&mut self) -> Option<TopologyLimits> {
        let max_instances = self.at_least_one("topology.max_instances");
        let max_entries = self.at_least_one("topology.max_entries");
        let max_text = self.at_least_one("topology.max_text");
        Some(TopologyLimits { max_instances: max_instances?, max_entries: max_entries?, max_text: max_text? })
    }

    pub(super) fn environments(&mut self) -> BTreeMap<String, i64> {
        let names = self.children("environments");
        let mut environments: BTreeMap<String, i64> = BTreeMap::new();
        for name in names {
            let key = format!("environments.{name}");
            let Some(id) = self.required::<i64>(&key) else { continue };
            let same_name = |other: &&String| same_code(other, &name);
            if let Some(other) = environments.keys().find(same_name).cloned() {
                self.problem(&key, format_args!("is equal to `{other}`: names are case-insensitive"));
            }
            if let Some((other, _)) = environments.iter().find(|(_, known)| **known == id) {
                let what = format!("`{id}` is the id of `{other}`, too; give each environment its own");
                self.problem(&key, what);
            }
            environments.insert(name, id);
        }
        environments
    }
}

/// Returns the problem with a file that the URL of a store names, if any.
fn store_files(url: &str) -> Option<String> {
    let url = url::Url::parse(url).ok()?;
    url.query_pairs().find_map(|(name, path)| {
        let is_file = ["sslrootcert", "sslcert", "sslkey"].contains(&name.as_ref());
        let error = std::fs::read(&*path).err().filter(|_| is_file)?;
        Some(format!("{name}: `{path}` cannot be read: {error}"))
    })
}

/// Returns why no server can listen on `listen`; `None` if one of its addresses can be used. Binds a test
/// listener and closes it at once.
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
            // The process that uses the address may be about to stop.
            Err(error) if error.kind() == ErrorKind::AddrInUse => return None,
            Err(error) => problem = told(&error),
        }
    }
    problem
}

/// Whether a URL contains a password: `scheme://user:password@host`.
fn has_password(url: &str) -> bool {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    user.contains(':') || url.contains("password=")
}
