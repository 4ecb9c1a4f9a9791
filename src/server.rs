//! Wiring: from a configuration to a server that answers, and back to nothing without losing work.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use log::{info, warn};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{Config, Driver, RunLimits, StoreUrl};
use crate::error::{Error, Result};
use crate::http;
use crate::operation::postgres::{PostgresSettings, PostgresStore};
use crate::operation::sqlite::SqliteStore;
use crate::operation::{
    Domain, Engine, Limits as StoreLimits, Operation, Service, Settings, Store, TechnologyRunner,
};
use crate::technology::Technology;
use crate::technology::lakehouse::{Lakehouse, LakehouseSettings};
use crate::technology::mock::{Mock, MockSettings};
use crate::technology::postgresql::{Postgresql, PostgresqlSettings};
use crate::topology::{Installation, Target};

/// Serves until SIGTERM or SIGINT, then drains. Prints `listening on http://HOST:PORT` once it answers.
pub async fn serve(config: Config) -> Result<()> {
    // Before anything else: whoever reads that the server listens may stop it at once.
    let mut stop_signal = StopSignal::listen()?;
    let parses = config.operations.parse_concurrency;
    let domain = Arc::new(Domain::new(installation(&config), config.descriptor, parses));
    let store = store(&config).await?;
    let seeded = store.seed_instances(domain.installation.seeds()).await?;
    if seeded > 0 {
        info!(instances = seeded; "the topology got an instance for each target that is new");
    }
    let runner = Arc::new(TechnologyRunner::new(Arc::clone(&domain), Arc::clone(&store)));
    let engine = Engine::start(Arc::clone(&store), runner, settings(&config));
    let service = Arc::new(Service::new(domain, engine, Arc::clone(&store)));

    let http::Bound { address, server } = http::bind(&config.server, Arc::clone(&service))?;
    let handle = server.handle();
    let serving = tokio::spawn(server);
    announce(&format!("listening on http://{address}"));
    if !address.ip().is_loopback() {
        warn!("anybody who reaches {address} may provision: callers are not authenticated");
    }

    stop_signal.received().await;
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

/// On stdout, for people and scripts alike; a closed stdout is no reason not to serve.
fn announce(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// SIGTERM or SIGINT, kept from the moment somebody listens.
struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    fn listen() -> Result<Self> {
        let failed = |error| Error::permanent("signals cannot be received").because(error);
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Every configured target and the routes to them. Touches nothing: a target is opened when it is first used.
pub fn installation(config: &Config) -> Installation {
    let targets = config
        .targets
        .iter()
        .map(|target| Target {
            code: target.code.clone(),
            group: target.group.clone(),
            environments: target.environments.clone(),
            technology: technology(&target.code, &target.driver),
        })
        .collect();
    Installation::new(targets, config.routes.clone(), config.environments.clone())
}

fn technology(code: &str, driver: &Driver) -> Arc<dyn Technology> {
    match driver {
        Driver::Lakehouse { warehouse, catalog } => Arc::new(Lakehouse::new(LakehouseSettings {
            target: code.to_owned(),
            warehouse: warehouse.clone(),
            catalog: catalog.clone(),
        })),
        Driver::Mock { steps, step_delay, stop_delay, stoppable, trace } => {
            Arc::new(Mock::new(MockSettings {
                steps: *steps,
                step_delay: *step_delay,
                stop_delay: *stop_delay,
                unstoppable: !*stoppable,
                trace: trace.clone(),
            }))
        }
        Driver::Postgresql { url, connections, statement_timeout, lock_timeout, principals } => {
            Arc::new(Postgresql::new(PostgresqlSettings {
                target: code.to_owned(),
                url: url.clone(),
                connections: *connections,
                statement_timeout: *statement_timeout,
                lock_timeout: *lock_timeout,
                principals: principals.clone(),
            }))
        }
    }
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
        per_target: Arc::new(
            config
                .targets
                .iter()
                .filter_map(|target| Some((target.code.clone(), target.concurrency?)))
                .collect(),
        ),
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
        max_attempts: operations.max_attempts,
        backoff_base: operations.backoff,
        backoff_cap: operations.backoff_cap,
        retry_for: operations.retry_for,
        run_limit: operations.run_limit,
        run_limits: run_limits(&operations.run_limits),
        cancel_grace: operations.cancel_grace,
    }
}

fn run_limits(configured: &RunLimits) -> HashMap<Operation, Duration> {
    let RunLimits { validate, provision, unprovision, updateacl, reverse } = *configured;
    [
        (Operation::Validate, validate),
        (Operation::Provision, provision),
        (Operation::Unprovision, unprovision),
        (Operation::UpdateAccess, updateacl),
        (Operation::Reverse, reverse),
    ]
    .into_iter()
    .filter_map(|(operation, limit)| Some((operation, limit?)))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The time between the announcement and the first look at the signals is no time without them.
    #[tokio::test]
    async fn a_signal_that_nobody_waits_for_yet_is_kept() {
        let mut stop_signal = StopSignal::listen().unwrap();
        let own_pid = std::process::id().to_string();
        let sent = std::process::Command::new("kill").args(["-TERM", &own_pid]).status().unwrap();
        assert!(sent.success());
        tokio::time::timeout(Duration::from_secs(30), stop_signal.received()).await.unwrap();
    }
}
