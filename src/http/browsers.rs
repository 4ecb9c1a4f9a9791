//! Refuses requests that a web page sends without the knowledge of its reader.
//!
//! A browser lets any page send requests to every server that its machine can reach, and to names that the owner of
//! the page points at that server. No client of the contracts is a browser. So requests of other web pages are
//! refused, whatever they request:
//!
//! - an `Origin` that is neither this server's nor configured;
//! - a `Sec-Fetch-Site` of another site;
//! - if callers are not authenticated because only this machine can reach the server: a `Host` that is not a name of
//!   this machine.
//!
//! A page can omit all of these headers only in requests without a JSON body, and those change nothing: a JSON body
//! needs a Content-Type that a page cannot send without a preflight request.

use std::net::IpAddr;
use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::Uri;
use actix_web::http::header::{HOST, HeaderMap, HeaderName, ORIGIN};
use actix_web::http::uri::Authority;

use crate::auth::Callers;
use crate::config::Server;
use landfall_adapter::error::Error;

use super::callers::asks_for_a_user;
use super::refusal::Fault;
use super::shapes::AnyError;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The rules; see the module documentation.
pub(super) struct Browsers {
    callers: Arc<Callers>,
    /// `scheme://host[:port]`, in lower case.
    allowed_origins: Vec<String>,
    /// Whether only this machine can reach the server.
    is_loopback: bool,
}

/// Why a request is refused, and the remedy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Foreign {
    message: String,
    remedy: &'static str,
}

impl Browsers {
    pub(super) fn new(config: &Server, callers: Arc<Callers>, is_loopback: bool) -> Self {
        Self { callers, allowed_origins: config.allowed_origins.clone(), is_loopback }
    }

    /// Returns an error if a web page that may not call this server may have sent the request.
    pub(super) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Foreign> {
        let named = headers.get_all(HOST).map(|value| value.to_str().unwrap_or_default());
        // A browser sends exactly one Host. A request without one does not come from a browser, and several must all
        // be valid.
        let hosts: Vec<&str> = uri.authority().map(Authority::as_str).into_iter().chain(named).collect();
        if self.is_loopback && self.is_open(uri.path()) {
            hosts.iter().try_for_each(|host| self.named_locally(host))?;
        }
        let mut is_allowed = false;
        for origin in headers.get_all(ORIGIN) {
            let origin = origin.to_str().unwrap_or_default();
            is_allowed = self.allowed_origins.iter().any(|known| known.eq_ignore_ascii_case(origin));
            let is_ours = !hosts.is_empty() && hosts.iter().all(|host| is_same(origin, host));
            if !is_allowed && !is_ours {
                return Err(Foreign {
                    message: format!(
                        "the request comes from a web page of `{}`, which may not call this server",
                        shorten(origin)
                    ),
                    remedy: "call it without an Origin header, or name the origin in server.allowed_origins",
                });
            }
        }
        let site = headers.get(SEC_FETCH_SITE).map(|value| value.to_str().unwrap_or_default());
        match site {
            None | Some("same-origin" | "none") => Ok(()),
            Some(_) if is_allowed => Ok(()),
            Some(other) => Err(Foreign {
                message: format!(
                    "the request comes from a web page of another site (Sec-Fetch-Site `{}`), which may not call this \
                     server",
                    shorten(other)
                ),
                remedy: "call it from outside of a web page",
            }),
        }
    }

    /// Whether requests to this path need no credentials.
    fn is_open(&self, path: &str) -> bool {
        if asks_for_a_user(path) { !self.callers.asks_for_users() } else { !self.callers.asks_for_tokens() }
    }

    fn named_locally(&self, host: &str) -> Result<(), Foreign> {
        let is_ours = |origin: &String| is_same(origin, host);
        if is_loopback_name(host) || self.allowed_origins.iter().any(is_ours) {
            return Ok(());
        }
        Err(Foreign {
            message: format!(
                "the Host `{}` is no name of this machine, and only this machine may call this server",
                shorten(host)
            ),
            remedy: "call `localhost` or `127.0.0.1`, name the origin in server.allowed_origins, or set \
                     [[auth.tokens]] and [[auth.users]]",
        })
    }
}

/// The response 403, with the fields of all contracts.
pub(super) fn refusal(foreign: Foreign) -> HttpResponse {
    let error = Error::permanent(foreign.message);
    HttpResponse::Forbidden().json(AnyError::from(Fault::new(&error, foreign.remedy)))
}

/// The message for the log.
impl std::fmt::Display for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// Whether `host` is the host and port of `origin`. The scheme is not compared, because a proxy may encrypt.
fn is_same(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let default = if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 };
    let parts = |text: &str| {
        let authority: Authority = text.parse().ok().filter(|_| !text.contains('@'))?;
        let host = authority.host().to_ascii_lowercase();
        (!host.is_empty()).then(|| (host, authority.port_u16().unwrap_or(default)))
    };
    parts(authority).is_some_and(|ours| parts(host).is_some_and(|theirs| ours == theirs))
}

fn is_loopback_name(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let name = name.strip_suffix('.').unwrap_or(name);
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

fn shorten(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use crate::auth::{Bounds, Credentials, Hash, Role, Token, User, cheap};
    use crate::config::{Config, Overrides};
    use crate::registry::Registry;

    use super::*;

    fn browsers(credentials: Credentials, allowed: &[&str], is_loopback: bool) -> Browsers {
        let config = Config::load(None, &Overrides::default(), &Registry::builtin()).unwrap();
        let callers = Callers::new(config.auth.limits, credentials).unwrap();
        Browsers {
            callers: Arc::new(callers),
            allowed_origins: allowed.iter().map(|origin| (*origin).to_owned()).collect(),
            is_loopback,
        }
    }

    fn hash() -> Hash {
        Hash::parse(&cheap("right"), &Bounds { memory_kib: 8, iterations: 1 }).unwrap()
    }

    fn tokens() -> Credentials {
        Credentials { tokens: vec![Token { name: "one".to_owned(), hash: hash() }], ..Credentials::default() }
    }

    fn users() -> Credentials {
        let user = User { name: "ops".to_owned(), role: Role::Read, hash: hash() };
        Credentials { users: vec![user], ..Credentials::default() }
    }

    /// Returns the message if the request is refused.
    fn refused(browsers: &Browsers, path: &str, headers: &[(&str, &str)]) -> Option<String> {
        let mut request = TestRequest::get().uri(path);
        for header in headers {
            request = request.append_header(*header);
        }
        let request = request.to_http_request();
        browsers.check(request.uri(), request.headers()).err().map(|foreign| foreign.message)
    }

    const PROVISION: &str = "/v1/provision";

    #[test]
    fn foreign_origins_are_refused_and_own_ones_pass() {
        let open = browsers(tokens(), &["https://console.example"], false);
        for (origin, host, passes) in [
            ("https://landfall.example", "landfall.example", true),
            ("https://landfall.example", "landfall.example:443", true),
            ("http://landfall.example", "landfall.example:80", true),
            ("http://localhost:8093", "localhost:8093", true),
            ("http://LOCALHOST:8093", "localhost:8093", true),
            ("http://[::1]:8093", "[::1]:8093", true),
            ("https://console.example", "landfall.example", true),
            ("https://Console.Example", "landfall.example", true),
            ("http://console.example", "landfall.example", false),
            ("https://console.example:8443", "landfall.example", false),
            ("http://localhost:3000", "localhost:8093", false),
            ("http://evil.example", "localhost:8093", false),
            ("http://localhost:8093.evil.example", "localhost:8093", false),
            ("http://evil.example@localhost:8093", "localhost:8093", false),
            ("null", "localhost:8093", false),
            ("", "localhost:8093", false),
            ("file://", "localhost:8093", false),
        ] {
            let refused = refused(&open, PROVISION, &[("origin", origin), ("host", host)]);
            assert_eq!(refused.is_none(), passes, "{origin} at {host}: {refused:?}");
            assert!(refused.is_none_or(|message| message.contains(&format!("a web page of `{origin}`"))));
        }
        let twice = [("origin", "http://a:1"), ("origin", "http://evil.example"), ("host", "a:1")];
        assert!(refused(&open, PROVISION, &twice).is_some());
        assert!(refused(&open, PROVISION, &[("origin", "http://a:1")]).is_some(), "without a Host");
    }

    #[test]
    fn requests_of_other_sites_are_refused() {
        let open = browsers(tokens(), &["https://console.example"], false);
        for (site, passes) in
            [("same-origin", true), ("none", true), ("same-site", false), ("cross-site", false), ("", false)]
        {
            let refused = refused(&open, "/landfall/v1/health", &[("sec-fetch-site", site), ("host", "a")]);
            assert_eq!(refused.is_none(), passes, "{site}: {refused:?}");
        }
        let console =
            [("sec-fetch-site", "cross-site"), ("origin", "https://console.example"), ("host", "a")];
        assert_eq!(refused(&open, PROVISION, &console), None);
    }

    #[test]
    fn an_open_loopback_server_is_called_by_its_own_names() {
        let open = browsers(Credentials::default(), &["https://proxy.example"], true);
        for (host, passes) in [
            ("localhost", true),
            ("localhost:8093", true),
            ("LocalHost.:8093", true),
            ("127.0.0.1:8093", true),
            ("127.9.8.7", true),
            ("[::1]:8093", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("proxy.example", true),
            ("evil.example", false),
            ("evil.example:8093", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("192.0.2.1", false),
            ("[2001:db8::1]", false),
            ("0.0.0.0:8093", false),
            ("", false),
            ("a b", false),
        ] {
            let refused = refused(&open, PROVISION, &[("host", host)]);
            assert_eq!(refused.is_none(), passes, "{host}: {refused:?}");
        }
        assert_eq!(refused(&open, PROVISION, &[]), None);
        let rebound = [("host", "evil.example")];
        // Paths that need credentials accept any `Host`: a page has no credentials, and the server may be
        // behind a proxy.
        for (path, credentials, passes) in [
            (PROVISION, tokens(), true),
            (PROVISION, users(), false),
            ("/flexdeploy/x", users(), true),
            ("/flexdeploy/x", tokens(), false),
        ] {
            assert_eq!(
                refused(&browsers(credentials, &[], true), path, &rebound).is_none(),
                passes,
                "{path}"
            );
        }
        assert_eq!(refused(&browsers(Credentials::default(), &[], false), PROVISION, &rebound), None);
    }
}
