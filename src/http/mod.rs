//! HTTP: the only module that knows actix and the generated contracts.
//!
//! A handler converts, calls the service, converts. One file per contract, and what they share: `refusal`, the way from
//! an error to an answer; `tasks`, tokens and statuses; `shapes`, what several contracts define alike; and `callers` and
//! `pressure` for what stands around them all.

mod airbyte;
mod callers;
mod instances;
mod operator;
mod pressure;
mod refusal;
mod shapes;
mod tasks;
mod tech_adapter;

use std::sync::Arc;
use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::dev::ServiceRequest;
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, HttpResponse, HttpServer, web};

use crate::auth::Callers;
use crate::config::{Server, TokenFormat};
use crate::error::{Error, Result};
use crate::generated;
use crate::generated::runtime::Limits;
use crate::operation::Service;

use callers::{Door, admit};
use pressure::{Gate, guard};
use refusal::Fault;
use shapes::AnyError;

/// How long a caller may take to agree on a key.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the handlers share.
pub(crate) struct Shared {
    service: Arc<Service>,
    callers: Arc<Callers>,
    gate: Arc<Gate>,
    token_format: TokenFormat,
    respond_within: Duration,
    limits: Limits,
}

/// A server that is bound but has not answered yet.
pub(crate) struct Bound {
    /// The addresses it listens on, at least one: the real port where 0 was asked for.
    pub(crate) addresses: Vec<std::net::SocketAddr>,
    /// Runs until stopped through its handle.
    pub(crate) server: actix_web::dev::Server,
}

/// Binds and mounts every contract; with `tls`, nothing is served without. Must be called inside a Tokio runtime.
pub(crate) fn bind(
    config: &Server,
    service: Arc<Service>,
    callers: Arc<Callers>,
    tls: Option<rustls::ServerConfig>,
) -> Result<Bound> {
    let limits = Limits { body_bytes: config.max_body_bytes, ..Limits::default() };
    let gate = Arc::new(Gate::new(config, limits));
    let shared = Arc::new(Shared {
        service,
        callers,
        gate: Arc::clone(&gate),
        token_format: config.token_format,
        respond_within: config.respond_within,
        limits,
    });
    let door =
        Arc::new(Door { callers: Arc::clone(&shared.callers), limits, retry_after: config.retry_after });
    let adapter = web::Data::new(tech_adapter::Adapter::new(Arc::clone(&shared)));
    let airbyte = web::Data::new(airbyte::Provisioner::new(Arc::clone(&shared)));
    let operator = web::Data::new(operator::Operator::new(Arc::clone(&shared)));
    let instances = web::Data::new(instances::Instances::new(shared));
    let base_paths = config.base_paths.clone();
    let server = HttpServer::new(move || {
        let (adapter, airbyte, operator) = (adapter.clone(), airbyte.clone(), operator.clone());
        let (instances, base_paths) = (instances.clone(), base_paths.clone());
        let (gate, door) = (Arc::clone(&gate), Arc::clone(&door));
        App::new()
            .wrap(from_fn(move |request: ServiceRequest, next: Next<BoxBody>| {
                guard(Arc::clone(&gate), request, next)
            }))
            // The last one stands outside of all others: who is refused takes no room.
            .wrap(from_fn(move |request: ServiceRequest, next: Next<BoxBody>| {
                admit(Arc::clone(&door), request, next)
            }))
            .configure(move |app| {
                // Longer prefixes first: `/` would otherwise see their paths as its own.
                let mut prefixes = base_paths;
                prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.len()));
                for prefix in &prefixes {
                    generated::tech_adapter::server::configure(app, prefix, &adapter);
                }
                // The paths of the others have prefixes of their own.
                generated::airbyte::server::configure(app, "/", &airbyte);
                generated::operator::server::configure(app, "/", &operator);
                generated::flexdeploy::server::configure(app, "/", &instances);
            })
            .default_service(web::to(no_such_path))
    })
    .workers(config.workers)
    // Who closes its side has left: what only it waits for, such as a dry run, ends with it.
    .h1_allow_half_closed(false)
    .disable_signals()
    // The engine drains after the last request is answered, so requests get little time of their own.
    .shutdown_timeout(5)
    .tls_handshake_timeout(HANDSHAKE_TIMEOUT);
    let server = match tls {
        None => server.bind(&config.listen),
        Some(tls) => server.bind_rustls_0_23(&config.listen, tls),
    }
    .map_err(|error| {
        Error::permanent(format!(
            "cannot listen on `{}`; name a free HOST:PORT in server.listen or --listen",
            config.listen
        ))
        .because(error)
    })?;
    let addresses = server.addrs();
    if addresses.is_empty() {
        return Err(Error::permanent(format!("`{}` names no address to listen on", config.listen)));
    }
    Ok(Bound { addresses, server: server.run() })
}

async fn no_such_path(request: actix_web::HttpRequest) -> HttpResponse {
    let error = Error::unsupported(format!("no operation has the path `{}`", shorten(request.path())));
    let body = AnyError::from(Fault::new(&error, "see the API contract for its operations"));
    HttpResponse::NotFound().json(body)
}

fn shorten(text: &str) -> String {
    text.chars().take(200).collect()
}
