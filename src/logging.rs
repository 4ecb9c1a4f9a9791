//! The administrator's log: `log` records through `env_logger`, as text or one JSON object per line, on stderr.
//!
//! Users of the platform see the journal of a task instead. Neither ever contains a descriptor, a credential or an
//! access list.
//!
//! Lines that an unauthenticated caller can cause have a target below [`PEER`] and the caller's address. Only a
//! limited number of lines per minute is written for each such target ([`limit`]), so that callers can neither fill
//! the disk nor hide other lines.

mod limit;

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{SecondsFormat, Utc};
use env_logger::{Builder, Logger};
use log::kv::{Key, Value, VisitSource};
use log::{Metadata, Record};
use serde_json::{Map, Value as Json};

use crate::config::{Log, LogFormat};

use limit::{LeftOut, Limiter};

/// The targets of lines that an unauthenticated caller can cause are below this one.
const PEER: &str = "landfall::peer::";

/// Connections that send no HTTP or no complete request, or that break.
pub(crate) const PEER_HTTP: &str = "landfall::peer::http";

/// Failed TLS handshakes.
pub(crate) const PEER_TLS: &str = "landfall::peer::tls";

/// Wrong passwords and tokens.
pub(crate) const PEER_LOGIN: &str = "landfall::peer::login";

/// Requests that are refused because of other callers.
pub(crate) const PEER_OVERLOAD: &str = "landfall::peer::overload";

/// Requests of other web pages.
pub(crate) const PEER_BROWSER: &str = "landfall::peer::browser";

/// Targets whose lines are limited: those below [`PEER`], and libraries that log errors of connections.
const LIMITED: [&str; 3] = [PEER, "actix_server", "actix_web"];

/// How often the log reports lines that were left out.
const SWEEP: Duration = Duration::from_secs(5);

/// Starts logging. Every later call changes nothing.
pub fn start(config: &Log) {
    let mut builder = Builder::new();
    builder.parse_filters(&config.level);
    // Libraries that log every statement or response would hide other lines.
    for noisy in ["sqlx", "iceberg", "actix_server", "actix_web", "mio", "hyper"] {
        builder.filter_module(noisy, log::LevelFilter::Warn);
    }
    // `http::connections` logs the same failures with the caller's address.
    for silent in ["actix_http", "rustls", "tokio_rustls"] {
        builder.filter_module(silent, log::LevelFilter::Off);
    }
    if config.format == LogFormat::Json {
        builder.format(|out, record| {
            let mut fields = Fields(Map::new());
            fields.0.insert("at".into(), Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true).into());
            fields.0.insert("level".into(), record.level().as_str().into());
            fields.0.insert("target".into(), record.target().into());
            fields.0.insert("message".into(), record.args().to_string().into());
            // A field that cannot be read is left out; the line itself matters more.
            let _ = record.key_values().visit(&mut fields);
            writeln!(out, "{}", Json::Object(fields.0))
        });
    }
    let inner = builder.build();
    log::set_max_level(inner.filter());
    let limited = Limited { inner, limiter: Arc::new(Mutex::new(Limiter::new(config.peer_lines))) };
    let limiter = Arc::clone(&limited.limiter);
    if log::set_boxed_logger(Box::new(limited)).is_ok() {
        // If the thread cannot start, the next line reports the lines that were left out.
        let _ = thread::Builder::new().name("log-limit".to_owned()).spawn(move || {
            loop {
                thread::sleep(SWEEP);
                report_dropped_lines(&limiter);
            }
        });
    }
}

/// A logger that writes only the lines that the limiter allows.
struct Limited {
    inner: Logger,
    limiter: Arc<Mutex<Limiter>>,
}

impl log::Log for Limited {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.inner.enabled(record.metadata()) {
            return;
        }
        let target = record.target();
        if LIMITED.iter().any(|prefix| target.starts_with(prefix)) {
            let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
            if !limiter.admits(target, Instant::now()) {
                return;
            }
        }
        self.inner.log(record);
    }

    fn flush(&self) {
        self.inner.flush();
    }
}

/// Reports the lines that were left out in expired windows. These reports do not count: there is one for each kind
/// and window.
fn report_dropped_lines(limiter: &Mutex<Limiter>) {
    let left_out = limiter.lock().unwrap_or_else(PoisonError::into_inner).sweep(Instant::now());
    for LeftOut { kind, lines } in left_out {
        let cause = kind.rsplit("::").next().unwrap_or_default();
        log::warn!(
            "{lines} further lines about callers ({cause}) were left out in {} s; log.peer_lines bounds them",
            limit::WINDOW.as_secs()
        );
    }
}

struct Fields(Map<String, Json>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        let json = match (value.to_u64(), value.to_i64(), value.to_bool()) {
            (Some(number), _, _) => number.into(),
            (_, Some(number), _) => number.into(),
            (_, _, Some(truth)) => truth.into(),
            _ => value.to_string().into(),
        };
        self.0.insert(key.as_str().to_owned(), json);
        Ok(())
    }
}
