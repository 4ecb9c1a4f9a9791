//! `[targets.CODE] driver = "postgresql"`.

use std::time::Duration;

use landfall_adapter::schemars::JsonSchema;
use landfall_adapter::settings::{Count, SecretReference, Span};
use landfall_adapter::{Driver, Mistakes, Secret, Services};
use serde::Deserialize;

use super::server::Login;
use super::{Postgresql, PostgresqlSettings};

/// The driver of PostgreSQL databases.
#[derive(Debug, Clone, Copy)]
pub struct PostgresqlDriver;

/// The settings in `[targets.CODE]`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "landfall_adapter::schemars")]
pub struct Settings {
    /// Reference to the secret with the URL, `postgres://USER:PASSWORD@HOST/DATABASE?sslmode=verify-full`.
    url: SecretReference,
    /// Maximum number of concurrent sessions.
    #[serde(default = "connections")]
    connections: Count,
    /// Maximum time to open a session, and to wait for a response to a connection check.
    connect_timeout: Option<Span<100>>,
    /// Maximum duration of a statement.
    statement_timeout: Option<Span>,
    /// Maximum time to wait for a lock that another session holds.
    lock_timeout: Option<Span>,
    /// Maximum duration of a query that reads rows.
    count_timeout: Option<Span>,
    /// Names of the `[identity.NAME]` sections that map refs to roles, in lookup order.
    identity: Option<Vec<String>>,
}

fn connections() -> Count {
    Count::new(4)
}

impl Driver for PostgresqlDriver {
    type Settings = Settings;
    type Technology = Postgresql;

    fn name(&self) -> &'static str {
        "postgresql"
    }

    fn open(&self, settings: Settings, services: &Services<'_>) -> Result<Postgresql, Mistakes> {
        let mut mistakes = Mistakes::new();
        let url = mistakes.keep(services.secret("url", &settings.url));
        if let Some(problem) = url.as_ref().and_then(|url| url_problem(url, services.will_serve())) {
            mistakes.add("url", problem);
        }
        let directory = mistakes.keep(services.directory("identity", settings.identity.as_deref()));
        let (url, directory) = mistakes.or(url.zip(directory))?;
        let or = |span: Option<Span>, seconds| span.map_or(Duration::from_secs(seconds), Span::get);
        Ok(Postgresql::new(PostgresqlSettings {
            target: services.target().to_owned(),
            url,
            connections: settings.connections.get(),
            connect_timeout: settings.connect_timeout.map_or(Duration::from_secs(10), Span::get),
            statement_timeout: or(settings.statement_timeout, 5 * 60),
            lock_timeout: or(settings.lock_timeout, 10),
            count_timeout: or(settings.count_timeout, 5),
            directory,
        }))
    }
}

/// Returns the problem with the URL, if any, and with `look` also with the files that the URL names. The
/// message never quotes the URL.
fn url_problem(url: &Secret, look: bool) -> Option<String> {
    match Login::parse(url.expose()) {
        Ok(login) => look.then(|| login.check_files().err()).flatten(),
        Err(problem) => Some(problem),
    }
}

#[cfg(test)]
mod tests {
    use landfall_adapter::testing::open;
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_the_url_secret_and_default_limits() {
        let variables =
            [("PG_URL", "postgres://landfall:hunter2@db.example.com/analytics?sslmode=verify-full")];
        let reference = json!({ "env": "PG_URL" });
        let settings =
            open(&PostgresqlDriver, json!({ "url": reference }), &variables).unwrap().0.settings.clone();
        assert_eq!(settings.url.expose(), variables[0].1);
        assert!(!format!("{settings:?}").contains("hunter2"));
        let seconds = [
            settings.connect_timeout,
            settings.statement_timeout,
            settings.lock_timeout,
            settings.count_timeout,
        ];
        assert_eq!((settings.connections, seconds.map(|limit| limit.as_secs())), (4, [10, 300, 10, 5]));
        let more =
            json!({ "url": reference, "connections": 9, "lock_timeout": "1s", "connect_timeout": "3s" });
        let settings = open(&PostgresqlDriver, more, &variables).unwrap().0.settings.clone();
        assert_eq!((settings.connections, settings.lock_timeout.as_secs()), (9, 1));
        assert_eq!(settings.connect_timeout.as_secs(), 3);
    }
}
