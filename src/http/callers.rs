//! Access control for the adapter contracts.
//!
//! One middleware runs before all others. It refuses requests of foreign web pages (`browsers`) and requires a bearer
//! token for every path that is not on a short list, before it reserves room for a body or looks at the path. So a
//! new path is closed until it is added to the list. The list contains the topology contract, whose handlers
//! authenticate users themselves, and the health of the server, which probes read.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use actix_web::middleware::Next;
use actix_web::{HttpMessage, HttpRequest, HttpResponse};

use crate::auth::{Callers, Denied};
use crate::config::TOPOLOGY_PATH;
use crate::generated::operator::server::OPERATIONS;
use crate::generated::runtime::Limits;
use landfall_adapter::error::Error;

use crate::logging::{PEER_BROWSER, PEER_OVERLOAD};

use super::browsers::{self, Browsers};
use super::connections::UnderWay;
use super::pressure;
use super::refusal::Fault;
use super::shapes::AnyError;

/// The operationIds that need no token, because health probes call them.
const OPEN: [&str; 2] = ["live", "health"];

/// How long the body of a refused request is read, so that the client can read the response.
const PATIENCE: Duration = Duration::from_secs(10);

/// The required credentials, and how requests without them are refused.
pub(super) struct Middleware {
    pub(super) callers: Arc<Callers>,
    pub(super) browsers: Browsers,
    pub(super) limits: Limits,
    pub(super) retry_after: Duration,
}

/// The Authorization header and the peer's address. The address is that of the connection: headers of proxies are
/// ignored, because any caller can set them.
pub(super) fn credentials(request: &HttpRequest) -> (Option<&str>, IpAddr) {
    // A header that is not text counts as an empty, and so wrong, value.
    let header = request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
    let peer = request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip());
    (header, peer)
}

/// The address of the caller, for the log.
pub(super) fn shown(peer: Option<SocketAddr>) -> String {
    peer.map_or_else(|| "an unknown address".to_owned(), |address| address.ip().to_string())
}

/// The middleware: refuses requests of foreign web pages and requests without a valid token.
pub(super) async fn admit(
    middleware: Arc<Middleware>,
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    // Until this value is dropped, the connection does not count as idle.
    let _under_way = UnderWay::begin(request.request());
    let (header, peer) = credentials(request.request());
    let foreign = middleware.browsers.check(request.uri(), request.headers()).err();
    let denied = if foreign.is_some() || needs_no_token(request.method().as_str(), request.path()) {
        None
    } else {
        middleware.callers.bearer(header, peer).await.err()
    };
    let answer = match (foreign, denied) {
        (None, None) => return Ok(next.call(request).await?.map_into_boxed_body()),
        (Some(foreign), _) => {
            log::warn!(target: PEER_BROWSER, "answering 403 to {}: {foreign}", shown(request.peer_addr()));
            browsers::refusal(foreign)
        }
        (None, Some(Denied::Unauthorized(text))) => {
            log::debug!("answering 401 to {peer}: {text}");
            let solution = "send one of the tokens that this adapter knows; after too many failures, once it looks again";
            HttpResponse::Unauthorized()
                .insert_header((WWW_AUTHENTICATE, "Bearer realm=\"Landfall\""))
                .json(AnyError::from(Fault::new(&Error::permanent(text), solution)))
        }
        (None, Some(Denied::Overloaded(text))) => {
            log::warn!(target: PEER_OVERLOAD, "answering 500 to {peer}: {text}");
            let error = Error::overloaded(text);
            pressure::note(request.request(), &error);
            HttpResponse::InternalServerError().json(AnyError::from(Fault::new(&error, "try again later")))
        }
    };
    let patience = Limits {
        drain_bytes: middleware.limits.body_bytes,
        read_timeout: middleware.limits.read_timeout.min(PATIENCE),
        ..middleware.limits
    };
    pressure::discard(request.take_payload(), &patience).await;
    let mut response = request.into_response(answer);
    pressure::add_retry_after(&mut response, middleware.retry_after);
    Ok(response)
}

/// Whether a path belongs to the topology contract, whose handlers authenticate callers themselves.
pub(super) fn asks_for_a_user(path: &str) -> bool {
    path.strip_prefix(TOPOLOGY_PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn needs_no_token(method: &str, path: &str) -> bool {
    let probe = OPERATIONS.iter().any(|known| {
        OPEN.contains(&known.operation_id)
            && (known.method == method || method == "HEAD")
            && known.path == path
    });
    asks_for_a_user(path) || probe
}

#[cfg(test)]
mod tests {
    use actix_http::Request;
    use actix_web::dev::{Service, ServiceResponse};
    use actix_web::middleware::from_fn;
    use actix_web::test::{TestRequest, call_service, init_service, read_body_json};
    use actix_web::{App, web};

    use crate::auth::{Bounds, Credentials, Hash, Token, cheap};
    use crate::config::{Config, Overrides};
    use crate::registry::Registry;

    use super::*;

    #[test]
    fn only_the_topology_contract_and_the_health_need_no_token() {
        for (method, path) in [
            ("HEAD", "/landfall/v1/live"),
            ("GET", "/landfall/v1/health"),
            ("GET", "/landfall/v1/live"),
            ("GET", "/flexdeploy"),
            ("DELETE", "/flexdeploy/rest/v1/x"),
        ] {
            assert!(needs_no_token(method, path), "{method} {path}");
        }
        for (method, path) in [
            ("POST", "/landfall/v1/health"),
            ("GET", "/landfall/v1/health/"),
            ("GET", "//landfall/v1/health"),
            ("GET", "/landfall/v1/healthy"),
            ("POST", "/landfall/v1/plan"),
            ("GET", "/flexdeployer"),
            ("GET", "/Flexdeploy/x"),
            ("GET", "//flexdeploy/x"),
            ("GET", "/x/flexdeploy/x"),
            ("GET", "/%66lexdeploy/x"),
            ("POST", "/v1/provision"),
            ("GET", "/"),
            ("GET", ""),
        ] {
            assert!(!needs_no_token(method, path), "{method} {path}");
        }
    }

    /// A middleware in which no caller can be verified and no token is valid.
    fn crowded() -> Arc<Middleware> {
        let limits = crate::auth::Limits {
            concurrency: 0,
            wait: Duration::from_millis(1),
            max_waiting: 1,
            max_failures: 1,
            failure_window: Duration::from_secs(60),
            max_tracked: 1,
        };
        let bounds = Bounds { memory_kib: 8, iterations: 1 };
        let token = Token { name: "one".to_owned(), hash: Hash::parse(&cheap("right"), &bounds).unwrap() };
        let credentials = Credentials { tokens: vec![token], ..Credentials::default() };
        let callers = Arc::new(Callers::new(limits, credentials).unwrap());
        let config = Config::load(None, &Overrides::default(), &Registry::builtin()).unwrap();
        let browsers = Browsers::new(&config.server, Arc::clone(&callers), true);
        Arc::new(Middleware {
            callers,
            browsers,
            limits: Limits::default(),
            retry_after: Duration::from_millis(6500),
        })
    }

    /// A service behind the middleware that answers 200.
    async fn app(
        middleware: Arc<Middleware>,
    ) -> impl Service<Request, Response = ServiceResponse, Error = actix_web::Error> {
        let app = App::new()
            .wrap(from_fn(move |request: ServiceRequest, next: Next<BoxBody>| {
                admit(Arc::clone(&middleware), request, next)
            }))
            .default_service(web::to(HttpResponse::Ok));
        init_service(app).await
    }

    #[actix_web::test]
    async fn an_overloaded_check_answers_with_retry_after() {
        let app = app(crowded()).await;
        let ask = |header: Option<&str>| {
            let request = TestRequest::post().uri("/v1/provision").set_payload("{}");
            match header {
                Some(value) => request.insert_header((AUTHORIZATION, value)).to_request(),
                None => request.to_request(),
            }
        };
        let busy = call_service(&app, ask(Some("Bearer right"))).await;
        assert_eq!(busy.status(), 500);
        assert_eq!(busy.headers().get("retry-after").unwrap(), "7");
        let body: serde_json::Value = read_body_json(busy).await;
        assert_eq!(body["error"], "too many callers are being checked, which is the limit; try again later");
        assert_eq!(body["moreInfo"]["solutions"], serde_json::json!(["try again later"]));
        let missing = call_service(&app, ask(None)).await;
        assert_eq!((missing.status().as_u16(), missing.headers().get("retry-after")), (401, None));
        assert_eq!(missing.headers().get(WWW_AUTHENTICATE).unwrap(), "Bearer realm=\"Landfall\"");
    }

    #[actix_web::test]
    async fn a_page_of_others_is_refused_before_a_token_is_looked_at() {
        let app = app(crowded()).await;
        for path in ["/v1/provision", "/landfall/v1/live", "/flexdeploy/x"] {
            let request = TestRequest::get().uri(path).insert_header(("origin", "http://evil.example"));
            let refused = call_service(&app, request.to_request()).await;
            assert_eq!((refused.status().as_u16(), refused.headers().get(WWW_AUTHENTICATE)), (403, None));
            let body: serde_json::Value = read_body_json(refused).await;
            let message =
                "the request comes from a web page of `http://evil.example`, which may not call this server";
            let remedy = "call it without an Origin header, or name the origin in server.allowed_origins";
            assert_eq!(body["error"], message);
            assert_eq!(body["message"], format!("{message}; {remedy}"));
            assert_eq!(body["moreInfo"]["solutions"], serde_json::json!([remedy]));
        }
    }

    #[test]
    fn ignores_forwarding_headers_of_proxies() {
        let peer = "192.0.2.1:7".parse().unwrap();
        let request = TestRequest::get().peer_addr(peer).insert_header(("x-forwarded-for", "203.0.113.9"));
        let request = request.insert_header(("forwarded", "for=203.0.113.9"));
        let request = request.insert_header((AUTHORIZATION, b"Basic \xff".as_slice())).to_http_request();
        assert_eq!(
            credentials(&request),
            (Some(""), peer.ip()),
            "and a header that is no text is not a missing one"
        );
        let bare = TestRequest::get().to_http_request();
        assert_eq!(credentials(&bare), (None, IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
    }
}
