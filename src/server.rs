//! Starts the server from a configuration, and drains it without losing work.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use log::{error, info, warn};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;

use crate::auth::{Callers, Credentials};
use crate::config::{Config, Import, StoreUrl};
use crate::http;
use landfall_adapter::error::{Error, Result};
use landfall_adapter::tls;
use landfall_operation::postgres::{PostgresSettings, PostgresStore};
use landfall_operation::sqlite::SqliteStore;
use landfall_operation::topology::{Installation, Target};
use landfall_operation::{
    Domain, DryRunSettings, Engine, ImportSettings, Limits as StoreLimits, ParseSettings, Service, Settings,
    Store, TechnologyRunner,
};

/// Serves until SIGTERM or SIGINT, then drains. SIGHUP reloads the credentials and the certificate.
/// Prints `listening on http://HOST:PORT`, or `https`, once it answers.
pub async fn serve(config: Config) -> Result<()> {
    // Before anything else: a process that reads the announcement may stop the server at once.
    let mut stop_signal = StopSignal::listen()?;
    let mut reload_signal = listen(SignalKind::hangup())?;
    let parses = ParseSettings {
        concurrency: config.operations.parse_concurrency,
        wait: config.operations.parse_wait,
    };
    let domain = Domain::new(installation(&config), config.descriptor, parses);
    let domain = Arc::new(domain.with_imports(imports(&config)));
    // Before the store: a configuration that cannot be served creates no store.
    let callers = Arc::new(Callers::new(config.auth.limits.clone(), config.auth.credentials.clone())?);
    let (tls, identity) = config.server.tls.as_ref().map(tls::server).transpose().map_err(unusable)?.unzip();
    http::can_listen(&config.server)?;
    let store = store(&config).await?;
    let seeded = store.seed_instances(domain.installation.seeds()).await?;
    if seeded > 0 {
        info!(instances = seeded; "the topology got an instance for each target that is new");
    }
    let topology = domain.topology(store.as_ref()).await?;
    for group in topology.empty_groups() {
        warn!("a route leads to group `{group}`, which no instance of the topology has");
    }
    for overridden in topology.overridden() {
        warn!("{overridden}");
    }
    let runner = Arc::new(TechnologyRunner::new(
        Arc::clone(&domain),
        Arc::clone(&store),
        config.operations.components_at_once,
    ));
    let engine = Engine::start(Arc::clone(&store), runner, settings(&config));
    let service = Arc::new(Service::new(domain, engine, Arc::clone(&store), dry_runs(&config)));

    let http::Bound { addresses, server } =
        http::bind(&config.server, Arc::clone(&service), Arc::clone(&callers), tls)?;
    let handle = server.handle();
    let serving = tokio::spawn(server);
    let scheme = if identity.is_some() { "https" } else { "http" };
    for (index, address) in addresses.iter().enumerate() {
        if index == 0 {
            announce(&format!("listening on {scheme}://{address}"));
        } else {
            info!("listening on {scheme}://{address}, too");
        }
        for warning in open_contract_warnings(address, &config) {
            warn!("{warning}");
        }
    }
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Some(warning) = open_files_warning(&limits, config.server.max_connections) {
        warn!("{warning}");
    }

    loop {
        tokio::select! {
            () = stop_signal.received() => break,
            // `None` means that no more signals can come, which does not happen.
            Some(()) = reload_signal.recv() => reload(&config, &callers, identity.as_deref()).await,
        }
    }
    info!("stopping: no new requests are taken");
    handle.stop(true).await;
    let drained = service.drain(config.server.drain_grace).await;
    if drained.handed_back > 0 {
        info!(tasks = drained.handed_back; "went back to the queue for the next process");
    }
    store.close().await;
    info!("stopped");
    match serving.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Error::permanent("the HTTP server failed").because(error)),
        Err(error) => Err(Error::permanent("the HTTP server failed").because(error)),
    }
}

/// Reloads the credentials and the certificate. Each is replaced as a whole, or stays unchanged.
#[expect(clippy::disallowed_methods, reason = "it is no work of a run")]
async fn reload(config: &Config, callers: &Callers, identity: Option<&tls::Identity>) {
    let source = config.auth.source.clone();
    match tokio::task::spawn_blocking(move || source.read()).await {
        Ok(Ok(credentials)) => {
            let Credentials { users, tokens } = &credentials;
            info!("read again who may call: {} users, {} tokens", users.len(), tokens.len());
            callers.reload(credentials);
        }
        Ok(Err(problems)) => error!("the credentials stay unchanged: {}", problems.join("; ")),
        Err(failed) => error!("the credentials stay unchanged: {failed}"),
    }
    if let (Some(identity), Some(files)) = (identity, &config.server.tls) {
        match identity.reload(files) {
            Ok(()) => info!("read the certificate again"),
            Err(wrong) => error!("the certificate stays unchanged: {}", unusable(wrong)),
        }
    }
}

fn unusable(wrong: Vec<tls::Wrong>) -> Error {
    let messages: Vec<_> = wrong.into_iter().map(|wrong| wrong.message).collect();
    Error::permanent(format!("the files of server.tls cannot be used: {}", messages.join("; ")))
}

/// Returns a warning for each contract without authentication, if the server is reachable from other machines.
fn open_contract_warnings(address: &SocketAddr, config: &Config) -> Vec<String> {
    if address.ip().is_loopback() {
        return Vec::new();
    }
    let Credentials { users, tokens } = &config.auth.credentials;
    let certified = config.server.tls.as_ref().is_some_and(|files| files.client_ca.is_some());
    let callers = if certified {
        "any caller with a certificate of server.tls.client_ca"
    } else {
        "any caller that reaches it"
    };
    let mut warnings = Vec::new();
    if tokens.is_empty() && !certified {
        warnings.push(format!(
            "the adapter contracts on {address} are open: {callers} may provision, unprovision and change access; set \
             [[auth.tokens]] or server.tls.client_ca"
        ));
    }
    if users.is_empty() {
        warnings.push(format!(
            "the topology contract on {address} is open: {callers} may change where components land; set \
             [[auth.users]] or auth.users_file"
        ));
    }
    if config.server.tls.is_none() && !(users.is_empty() && tokens.is_empty()) {
        warnings.push(format!(
            "passwords and tokens travel to {address} in the clear; set [server.tls], or listen on loopback behind a \
             proxy that encrypts"
        ));
    }
    warnings
}

/// Open files that the store and the targets may need beside connections.
const OTHER_FILES: usize = 250;

/// Returns a warning if connections can use all open files, so that none is left for the store. `limits` is the
/// text of `/proc/self/limits` on Linux, and empty on other systems.
fn open_files_warning(limits: &str, max_connections: usize) -> Option<String> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let most: usize = line.split_whitespace().next()?.parse().ok()?;
    (most < max_connections.saturating_add(OTHER_FILES)).then(|| {
        format!(
            "this process may open {most} files, and server.max_connections is {max_connections}: callers could take \
             those that the store needs; raise the limit (`ulimit -n`, LimitNOFILE) or lower the key, so that \
             {OTHER_FILES} are left"
        )
    })
}

/// Writes a line to stdout for users and scripts. A closed stdout does not stop the server.
fn announce(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Waits for SIGTERM or SIGINT. Signals are recorded from the creation of this value on.
struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    fn listen() -> Result<Self> {
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn listen(kind: SignalKind) -> Result<Signal> {
    signal(kind).map_err(|error| Error::permanent("signals cannot be received").because(error))
}

/// Returns every configured target, and the routes. A target opens its connections at its first use.
pub fn installation(config: &Config) -> Installation {
    let targets = config
        .targets
        .iter()
        .map(|target| Target {
            code: target.code.clone(),
            group: target.group.clone(),
            environments: target.environments.clone(),
            turns: target.concurrency.map(|bound| Arc::new(Semaphore::new(bound.max(1) as usize))),
            technology: Arc::clone(&target.technology),
        })
        .collect();
    Installation::new(targets, config.routes.clone(), config.environments.clone())
}

async fn store(config: &Config) -> Result<Arc<dyn Store>> {
    match &config.store.url {
        StoreUrl::Sqlite(path) => {
            Ok(Arc::new(SqliteStore::open(&path.to_string_lossy(), store_limits(config)).await?))
        }
        StoreUrl::Postgres(url) => {
            let mut settings = PostgresSettings::parse(url.expose())?;
            settings.connections = config.store.connections;
            settings.patience = config.store.timeout;
            Ok(Arc::new(PostgresStore::open(&settings, store_limits(config)).await?))
        }
    }
}

fn store_limits(config: &Config) -> StoreLimits {
    let operations = &config.operations;
    StoreLimits {
        max_queued: operations.max_queued,
        max_queued_bytes: operations.max_queued_bytes,
        per_target: Arc::new(
            config
                .targets
                .iter()
                .filter_map(|target| Some((target.code.clone(), target.concurrency?)))
                .collect(),
        ),
        target_concurrency: operations.target_concurrency,
        max_log_lines: operations.max_log_lines,
        max_crashes: operations.max_crashes,
        crash_pause: operations.crash_pause,
        keep_for: operations.keep_for,
        keep_count: operations.keep_count,
        topology: config.topology,
    }
}

fn settings(config: &Config) -> Settings {
    let operations = &config.operations;
    Settings {
        concurrency: operations.concurrency,
        validation_concurrency: operations.validation_concurrency,
        import_concurrency: operations.import_concurrency,
        lease: operations.lease,
        poll: operations.poll,
        backoff_base: operations.backoff,
        backoff_cap: operations.backoff_cap,
        retry_for: operations.retry_for,
        run_limit: operations.run_limit,
        run_limits: operations.run_limits.clone(),
        cancel_grace: operations.cancel_grace,
        health_timeout: operations.health_timeout,
    }
}

fn imports(config: &Config) -> ImportSettings {
    let Import { environment_key, prefixes } = config.import.clone();
    ImportSettings { environment_key, prefixes }
}

fn dry_runs(config: &Config) -> DryRunSettings {
    let operations = &config.operations;
    DryRunSettings {
        concurrency: operations.dry_run_concurrency,
        wait: operations.dry_run_wait,
        limit: operations.dry_run_limit,
        cancel_grace: operations.cancel_grace,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::auth::{Bounds, Hash, Role, Token, User, cheap};
    use crate::config::Overrides;
    use crate::registry::Registry;

    use super::*;

    /// A signal between the announcement and the first wait is not lost.
    #[tokio::test]
    async fn keeps_a_signal_sent_before_it_is_awaited() {
        let mut stop_signal = StopSignal::listen().unwrap();
        let own_pid = std::process::id().to_string();
        let sent = std::process::Command::new("kill").args(["-TERM", &own_pid]).status().unwrap();
        assert!(sent.success());
        tokio::time::timeout(Duration::from_secs(30), stop_signal.received()).await.unwrap();
    }

    #[test]
    fn warns_when_connections_may_take_all_open_files() {
        let limits = |most: &str| {
            format!(
                "Limit                     Soft Limit           Hard Limit           Units\n\
                 Max processes             100                  100                  processes\n\
                 Max open files            {most:20} 524288               files\n"
            )
        };
        assert_eq!(open_files_warning(&limits("1024"), 768), None);
        assert_eq!(open_files_warning(&limits("unlimited"), 768), None);
        assert_eq!(open_files_warning("", 768), None);
        let warning = open_files_warning(&limits("1000"), 768).unwrap();
        assert!(warning.starts_with("this process may open 1000 files, and server.max_connections is 768: "));
    }

    #[test]
    fn warns_about_unauthenticated_contracts() {
        let everywhere: SocketAddr = "0.0.0.0:8093".parse().unwrap();
        let adapter = "the adapter contracts on 0.0.0.0:8093 are open: any caller that reaches it may provision, unprovision \
                       and change access; set [[auth.tokens]] or server.tls.client_ca";
        let topology = "the topology contract on 0.0.0.0:8093 is open: any caller that reaches it may change where \
                        components land; set [[auth.users]] or auth.users_file";
        let certified = topology
            .replace("any caller that reaches it", "any caller with a certificate of server.tls.client_ca");
        let clear = "passwords and tokens travel to 0.0.0.0:8093 in the clear; set [server.tls], or listen on loopback \
                     behind a proxy that encrypts";
        let (users, tokens, tls, client_ca) = (1, 2, 4, 8);
        for (set, expected) in [
            (0, vec![adapter, topology]),
            (users, vec![adapter, clear]),
            (tokens, vec![topology, clear]),
            (users | tokens, vec![clear]),
            (tls, vec![adapter, topology]),
            (tls | users, vec![adapter]),
            (tls | tokens, vec![topology]),
            (tls | client_ca, vec![certified.as_str()]),
            (tls | client_ca | tokens, vec![certified.as_str()]),
            (tls | users | tokens, vec![]),
            (tls | client_ca | users, vec![]),
        ] {
            let mut config = Config::load(None, &Overrides::default(), &Registry::builtin()).unwrap();
            let bounds = Bounds { memory_kib: 8, iterations: 1 };
            let hash = || Hash::parse(&cheap("x"), &bounds).unwrap();
            if set & users > 0 {
                let user = User { name: "ops".to_owned(), role: Role::Write, hash: hash() };
                config.auth.credentials.users = vec![user];
            }
            if set & tokens > 0 {
                config.auth.credentials.tokens = vec![Token { name: "one".to_owned(), hash: hash() }];
            }
            if set & tls > 0 {
                let client_ca = (set & client_ca > 0).then(|| "ca.pem".into());
                config.server.tls =
                    Some(tls::Files { certificate: "c.pem".into(), key: "k.pem".into(), client_ca });
            }
            assert_eq!(open_contract_warnings(&everywhere, &config), expected, "{set}");
            for loopback in ["127.0.0.1:1", "[::1]:1"] {
                assert!(open_contract_warnings(&loopback.parse().unwrap(), &config).is_empty());
            }
        }
    }
}
