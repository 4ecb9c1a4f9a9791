//! The server of a target: connections, TLS verification, and handling of a server that does not respond.
//!
//! - Every wait for the server has a deadline. Opening a session, including TLS and login, takes at most
//!   `connect_timeout`. TCP keepalives and `TCP_USER_TIMEOUT` are derived from it, so the system detects dead
//!   connections.
//! - A server that missed a deadline is *silent*. For the duration of `connect_timeout`, all callers fail immediately.
//!   Then one caller tries the server, and the others still fail immediately.
//! - If a session cannot be opened, the certificates, and a URL from a file, are read again. A rotated password or
//!   certificate therefore works without a restart.
//! - Certificates are always verified, unless the configuration turns TLS off. No mode encrypts without verification.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{CancelToken, Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use url::Url;

use super::sqlstate;
use landfall_adapter::Secret;
use landfall_adapter::error::{Error, Result};
use landfall_adapter::tls::{self, Trust};

/// The maximum time to wait for the end of a cancelled statement, and for the close of a session.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// The parsed URL. `Debug` shows no password.
#[derive(Clone)]
pub(super) struct Login {
    config: tokio_postgres::Config,
    tls: Option<Tls>,
    /// `HOST:PORT/DATABASE`, for messages.
    pub(super) place: String,
    pub(super) database: String,
}

#[derive(Clone, PartialEq)]
struct Tls {
    /// File of certificates to trust instead of those of the system.
    root: Option<PathBuf>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Login {
    /// Reads `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full&sslrootcert=PATH`. The problem never
    /// quotes the URL.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let mut url = Url::parse(url).map_err(|error| format!("is not a URL: {error}"))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(format!("has the scheme `{}`; write `postgres://USER@HOST/DATABASE`", url.scheme()));
        }
        let mut options: BTreeMap<String, String> = BTreeMap::new();
        let mut others = Vec::new();
        for (key, value) in url.query_pairs() {
            match key.as_ref() {
                "sslmode" | "sslrootcert" => {
                    options.insert(key.into_owned(), value.into_owned());
                }
                _ => others.push((key.into_owned(), value.into_owned())),
            }
        }
        url.set_query(None);
        if !others.is_empty() {
            url.query_pairs_mut().extend_pairs(others);
        }
        let mut config: tokio_postgres::Config =
            url.as_str().parse().map_err(|error: tokio_postgres::Error| {
                // The cause names the option, never its value.
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                format!("cannot be read: {}", cause.unwrap_or_else(|| error.to_string()))
            })?;
        let Some(database) = config.get_dbname().map(str::to_owned).filter(|name| !name.is_empty()) else {
            return Err("names no database; write `postgres://USER@HOST/DATABASE`".to_owned());
        };
        if config.get_user().is_none() {
            return Err("names no user; write `postgres://USER@HOST/DATABASE`".to_owned());
        }
        let is_local = |host: &Host| match host {
            Host::Tcp(name) => matches!(name.as_str(), "localhost" | "127.0.0.1" | "::1" | "[::1]"),
            Host::Unix(_) => true,
        };
        let local = config.get_hosts().iter().all(is_local);
        let tls = match options.get("sslmode").map(String::as_str) {
            Some("disable") => None,
            None if local => None,
            None | Some("verify-full") => Some(Tls { root: options.get("sslrootcert").map(PathBuf::from) }),
            Some(other) => {
                return Err(format!(
                    "has `sslmode={other}`, which does not verify the server; write `sslmode=verify-full` (with \
                     `sslrootcert=PATH` for your own certificate authority), or `sslmode=disable`"
                ));
            }
        };
        config
            .ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable })
            .application_name("landfall");
        let host = match config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            Some(Host::Unix(path)) => path.display().to_string(),
            None => "localhost".to_owned(),
        };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let place = format!("{host}:{port}/{database}");
        Ok(Self { config, tls, place, database })
    }

    /// Checks the file of trusted certificates. Blocks the thread.
    pub(super) fn check_files(&self) -> Result<(), String> {
        match self.tls.as_ref().and_then(|tls| tls.root.as_deref()) {
            Some(path) => {
                tls::client(Trust::File(path), None).map(drop).map_err(|what| format!("sslrootcert: {what}"))
            }
            None => Ok(()),
        }
    }

    /// The same login to another database of the server.
    fn to(&self, database: &str) -> Self {
        let mut other = self.clone();
        other.config.dbname(database);
        let server = self.place.strip_suffix(&self.database).unwrap_or_default();
        other.place = format!("{server}{database}");
        other.database = database.to_owned();
        other
    }

    /// Sets timeouts. One address may take half of `patience`, so that a silent address leaves time for
    /// another. The TCP settings detect a dead peer of an open connection, which has no other deadline.
    fn be_patient(&mut self, patience: Duration) {
        let second = Duration::from_secs(1);
        self.config
            .connect_timeout(patience / 2)
            .keepalives(true)
            .keepalives_idle(patience.max(second))
            .keepalives_interval((patience / 3).max(second))
            .keepalives_retries(3)
            .tcp_user_timeout((patience * 2).max(second));
    }
}

/// An open connection, and the task that drives it.
pub(super) struct Opened {
    pub(super) client: Client,
    driver: JoinHandle<()>,
    /// The TLS connector of this connection, also used for cancel requests.
    tls: Option<MakeRustlsConnect>,
}

impl Opened {
    /// Returns what a cancel request needs. The result stays usable after the connection is closed.
    pub(super) fn cancellation(&self) -> Cancellation {
        Cancellation { token: self.client.cancel_token(), tls: self.tls.clone() }
    }

    /// Closes the connection. Aborts it if the server does not respond in time: a connection that waits for a response
    /// would otherwise stay open for ever.
    pub(super) async fn close(self) {
        let Self { client, mut driver, .. } = self;
        drop(client);
        if tokio::time::timeout(CANCEL_TIMEOUT, &mut driver).await.is_err() {
            driver.abort();
        }
    }
}

/// What a cancel request for a session's statement needs.
pub(super) struct Cancellation {
    token: CancelToken,
    tls: Option<MakeRustlsConnect>,
}

/// The server of a target, shared by its pools. See the module documentation.
pub(super) struct Server {
    target: String,
    /// The URL at startup.
    url: Secret,
    patience: Duration,
    current: Mutex<Current>,
    /// Until this time, callers do not wait for the server, because it missed a deadline.
    silent_until: Mutex<Option<Instant>>,
    /// How many more commits and database statements a test allows before all statements fail as in a crash.
    #[cfg(test)]
    pub(super) fuse: std::sync::atomic::AtomicI64,
}

struct Current {
    login: Login,
    /// Created from the certificates on first use.
    connector: Option<MakeRustlsConnect>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Server {
    /// Creates a server without connecting to it.
    pub(super) fn new(target: &str, url: Secret, mut login: Login, patience: Duration) -> Self {
        login.be_patient(patience);
        Self {
            target: target.to_owned(),
            url,
            patience,
            current: Mutex::new(Current { login, connector: None }),
            silent_until: Mutex::default(),
            #[cfg(test)]
            fuse: std::sync::atomic::AtomicI64::new(i64::MAX),
        }
    }

    /// Maximum time to wait for a response (`connect_timeout`).
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    pub(super) fn target(&self) -> &str {
        &self.target
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn silent_until(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.silent_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns an error while the server is known to be silent.
    pub(super) fn check_silence(&self) -> Result<()> {
        let until = *self.silent_until();
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        match left.filter(|left| !left.is_zero()) {
            Some(left) => Err(Error::retryable(format!(
                "target `{}` did not answer within {:?} (`connect_timeout`) a moment ago, and is tried again in {} s",
                self.target,
                self.patience,
                left.as_secs() + 1
            ))
            .after(left)),
            None => Ok(()),
        }
    }

    /// Like [`Self::check_silence`]. After the silence, the first caller may try the server. All others still
    /// get an error until that caller succeeds, or for another `patience`.
    pub(super) fn admit(&self) -> Result<()> {
        self.check_silence()?;
        let mut silent_until = self.silent_until();
        if silent_until.is_some() {
            *silent_until = Some(Instant::now() + self.patience);
        }
        Ok(())
    }

    /// Records that the server responded, which ends the silence.
    pub(super) fn answered(&self) {
        *self.silent_until() = None;
    }

    /// Records that the server missed a deadline. For the duration of `patience`, callers fail immediately.
    pub(super) fn missed(&self) {
        *self.silent_until() = Some(Instant::now() + self.patience);
    }

    /// Opens a session and runs `preparation`. If that fails and the file of the URL has changed, tries once more.
    pub(super) async fn open(&self, database: &str, preparation: &str) -> Result<Opened> {
        let first = match self.attempt(database, preparation).await {
            Ok(opened) => return Ok(opened),
            Err(error) => error,
        };
        self.current().connector = None;
        match self.read_again().await {
            true => self.attempt(database, preparation).await,
            false => Err(first),
        }
    }

    /// Reads the file of the URL again. Returns whether it contains another usable URL.
    async fn read_again(&self) -> bool {
        let Some(read) = self.url.read_again().await else { return false };
        let unusable = |why: &dyn std::fmt::Display| {
            log::warn!(
                "target `{}`: the file of `url` was read again and cannot be used: {why}",
                self.target
            );
            false
        };
        let secret = match read {
            Ok(secret) => secret,
            Err(error) => return unusable(&error),
        };
        let mut login = match Login::parse(secret.expose()) {
            Ok(login) => login,
            Err(fault) => return unusable(&format_args!("the URL {fault}")),
        };
        login.be_patient(self.patience);
        let mut current = self.current();
        if login.database != current.login.database {
            return unusable(&"it names another database, which needs a restart");
        }
        if login.config == current.login.config && login.tls == current.login.tls {
            return false;
        }
        log::info!("target `{}`: the file of `url` has changed, and its new content is used", self.target);
        *current = Current { login, connector: None };
        true
    }

    async fn attempt(&self, database: &str, preparation: &str) -> Result<Opened> {
        let login = self.current().login.to(database);
        let opening = async {
            let connector = self.connector(&login).await?;
            let failed = |error| self.refused(&login, &error);
            let opened = match connector {
                Some(tls) => {
                    let (client, connection) = login.config.connect(tls.clone()).await.map_err(failed)?;
                    Opened { client, driver: tokio::spawn(driven(connection)), tls: Some(tls) }
                }
                None => {
                    let (client, connection) = login.config.connect(NoTls).await.map_err(failed)?;
                    Opened { client, driver: tokio::spawn(driven(connection)), tls: None }
                }
            };
            opened.client.batch_execute(preparation).await.map_err(failed)?;
            Ok(opened)
        };
        match tokio::time::timeout(self.patience, opening).await {
            Ok(Ok(opened)) => {
                self.answered();
                Ok(opened)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => {
                self.missed();
                Err(self.silent(&login.place))
            }
        }
    }

    /// The error for a session that could not be opened in time.
    fn silent(&self, place: &str) -> Error {
        Error::retryable(format!(
            "target `{}` did not answer within {:?} (`connect_timeout`): see whether the server at `{place}` is frozen, \
             overloaded or cut off",
            self.target, self.patience
        ))
    }

    /// Classifies a connection error. All of them are retryable, because they can be fixed without a restart.
    fn refused(&self, login: &Login, error: &tokio_postgres::Error) -> Error {
        let place = format!("`{}` of target `{}`", login.place, self.target);
        let cause = std::error::Error::source(error);
        let io = cause.and_then(|cause| cause.downcast_ref::<std::io::Error>());
        let kind = io.map(std::io::Error::kind);
        match kind {
            Some(ErrorKind::TimedOut) => self.missed(),
            _ => self.answered(),
        }
        if let Some(db) = error.as_db_error() {
            let meaning = sqlstate::meaning(db);
            let reread = match self.url.file() {
                Some(_) => "; the file of `url` is read again at each try",
                None => "",
            };
            let hint = if db.code().code().starts_with("28") { reread } else { "" };
            return Error::retryable(format!("{place}: {meaning}{hint}")).because(format!(
                "SQLSTATE {}: {}",
                db.code().code(),
                db.message()
            ));
        }
        let text = error.to_string();
        let (what, remedy) = match kind {
            _ if is_untrusted(error) => (
                "has no trusted certificate",
                "check `sslrootcert` and the host in the URL of the target, and the certificate of the server",
            ),
            _ if text.starts_with("error performing TLS") => (
                "cannot be reached with TLS",
                "turn `ssl` on in the server, or write `sslmode=disable` in the URL of the target",
            ),
            _ if text.starts_with("authentication") => (
                "and Landfall support no common login method",
                "check the password in the URL of the target, and `pg_hba.conf` of the server",
            ),
            _ if io.is_some_and(|io| io.to_string().contains("failed to lookup address")) => (
                "cannot be reached: the name of its host is not known",
                "check the host in the URL of the target, and the name service",
            ),
            Some(ErrorKind::ConnectionRefused) => (
                "cannot be reached: nothing listens there",
                "make sure that PostgreSQL runs, and check host and port in the URL of the target",
            ),
            Some(ErrorKind::TimedOut) => {
                ("cannot be reached: it did not answer within half of `connect_timeout`", "check the network")
            }
            // With `target_session_attrs=read-write` in the URL.
            Some(ErrorKind::PermissionDenied) => {
                ("is read-only", "promote the standby, or point the URL of the target to the primary")
            }
            Some(ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable) => {
                ("cannot be reached: there is no route to it", "check the network")
            }
            _ => (
                "cannot be reached: the connection broke",
                "make sure that PostgreSQL runs, and check the network",
            ),
        };
        // The error contains no password. Its chain goes to the log only.
        let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
        Error::retryable(format!("{place} {what}; {remedy}")).because(format!("{text}{cause}"))
    }

    async fn connector(&self, login: &Login) -> Result<Option<MakeRustlsConnect>> {
        let Some(tls) = &login.tls else { return Ok(None) };
        if let Some(known) = self.current().connector.clone() {
            return Ok(Some(known));
        }
        let (root, place) = (tls.root.clone(), login.place.clone());
        let made = landfall_adapter::blocking::run(move |_| connector(root, &place)).await?;
        self.current().connector = Some(made.clone());
        Ok(Some(made))
    }

    /// Asks the server to cancel the statement of a session. Returns whether the server accepted the request.
    pub(super) async fn cancel(&self, Cancellation { token, tls }: Cancellation) -> bool {
        let cancelled = async {
            match tls {
                Some(tls) => token.cancel_query(tls).await,
                None => token.cancel_query(NoTls).await,
            }
        };
        match tokio::time::timeout(self.grace(), cancelled).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                log::warn!("target `{}`: a statement could not be cancelled: {error}", self.target);
                false
            }
            Err(_) => {
                log::warn!(
                    "target `{}`: a statement could not be cancelled: the server did not answer within {:?}",
                    self.target,
                    self.grace()
                );
                false
            }
        }
    }

    /// Returns the maximum time to wait for the end of a cancelled statement.
    pub(super) fn grace(&self) -> Duration {
        CANCEL_TIMEOUT.min(self.patience)
    }
}

/// Drives a connection. The next use of the session reports an error of the connection. Notices are ignored, because
/// functions of others can write any text into them.
async fn driven<S, T>(mut connection: tokio_postgres::Connection<S, T>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(Ok(_)) = std::future::poll_fn(|context| connection.poll_message(context)).await {}
}

/// Creates a TLS connector from the trusted certificates: those in `root`, or else the system's. Blocks the
/// thread.
fn connector(root: Option<PathBuf>, place: &str) -> Result<MakeRustlsConnect> {
    let mut trusted = rustls::RootCertStore::empty();
    match root {
        Some(path) => {
            let failed = |e: rustls::pki_types::pem::Error| {
                Error::retryable(format!(
                    "the certificates `{}` (`sslrootcert`) for `{place}` cannot be read; check the file",
                    path.display()
                ))
                .because(e)
            };
            for certificate in CertificateDer::pem_file_iter(&path).map_err(failed)? {
                trusted.add(certificate.map_err(failed)?).map_err(|e| {
                    Error::retryable(format!(
                        "`{}` (`sslrootcert`) has no usable certificate; check the file",
                        path.display()
                    ))
                    .because(e)
                })?;
            }
        }
        None => {
            trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::permanent("TLS cannot be used").because(e))?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// Whether the error is that TLS refused a certificate.
fn is_untrusted(error: &tokio_postgres::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    let cause =
        cause.and_then(std::io::Error::get_ref).and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::InvalidCertificate(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_decide_about_tls_verification() {
        for (url, tls, place) in [
            ("postgres://u:p@db.example.com/d", true, "db.example.com:5432/d"),
            (
                "postgres://u:p@db.example.com:1/d?sslmode=verify-full&sslrootcert=/ca.pem",
                true,
                "db.example.com:1/d",
            ),
            ("postgresql://u@db.example.com/d?sslmode=disable", false, "db.example.com:5432/d"),
            ("postgres://u@127.0.0.1:5433/d", false, "127.0.0.1:5433/d"),
            ("postgres://u@localhost/d?sslmode=verify-full", true, "localhost:5432/d"),
        ] {
            let login = Login::parse(url).unwrap();
            assert_eq!((login.tls.is_some(), login.place.as_str()), (tls, place), "{url}");
            assert!(!format!("{login:?}").contains("\"p\""));
        }
        for (url, said) in [
            ("db", "is not a URL"),
            ("mysql://u@h/d", "scheme `mysql`"),
            ("postgres://u:secret@h/d?sslmode=require", "sslmode=require"),
            ("postgres://u:secret@h/d?sslmode=prefer", "sslmode=prefer"),
            ("postgres://u:secret@h", "names no database"),
            ("postgres://h/d", "names no user"),
            ("postgres://u:secret@h/d?colour=blue", "colour"),
        ] {
            let problem = Login::parse(url).unwrap_err();
            assert!(problem.contains(said) && !problem.contains("secret"), "{problem}");
        }
    }
}
