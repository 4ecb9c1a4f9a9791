//! HTTP: the only module that uses actix and the generated contracts.
//!
//! A handler converts the request, calls the service, and converts the result. Each contract has a file. They share:
//! `refusal`, which converts errors to responses; `tasks`, for tokens and statuses; `shapes`, for types that several
//! contracts have; `callers`, `browsers` and `pressure`, the middleware of all contracts; and `connections`, which
//! accepts connections.

mod airbyte;
mod browsers;
mod callers;
mod connections;
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
use actix_web::{App, HttpResponse, web};

use crate::auth::Callers;
use crate::config::{Server, TokenFormat};
use crate::generated;
use crate::generated::runtime::Limits;
use landfall_adapter::error::{Error, Result};
use landfall_operation::Service;

use browsers::Browsers;
use callers::{Middleware, admit};
use connections::Listeners;
use pressure::{Gate, guard};
use refusal::Fault;
use shapes::AnyError;

pub(crate) use connections::Bound;

/// State that the handlers share.
pub(crate) struct Shared {
    service: Arc<Service>,
    callers: Arc<Callers>,
    token_format: TokenFormat,
    respond_within: Duration,
    limits: Limits,
}

/// Checks that the address can be used, before anything is created.
pub(crate) fn can_listen(config: &Server) -> Result<()> {
    Listeners::bind(&config.listen).map(drop)
}

/// Binds the address and mounts every contract. With `tls`, only encrypted connections are served. Must be
/// called inside a tokio runtime.
pub(crate) fn bind(
    config: &Server,
    service: Arc<Service>,
    callers: Arc<Callers>,
    tls: Option<rustls::ServerConfig>,
) -> Result<Bound> {
    let limits =
        Limits { body_bytes: config.max_body_bytes, read_timeout: config.body_timeout, ..Limits::default() };
    let listeners = Listeners::bind(&config.listen)?;
    let is_loopback = listeners.addresses().iter().all(|address| address.ip().is_loopback());
    let browsers = Browsers::new(config, Arc::clone(&callers), is_loopback);
    let gate = Arc::new(Gate::new(config, limits));
    let shared = Arc::new(Shared {
        service,
        callers,
        token_format: config.token_format,
        respond_within: config.respond_within,
        limits,
    });
    let middleware = Arc::new(Middleware {
        callers: Arc::clone(&shared.callers),
        browsers,
        limits,
        retry_after: config.retry_after,
    });
    let adapter = web::Data::new(tech_adapter::Adapter::new(Arc::clone(&shared)));
    let airbyte = web::Data::new(airbyte::Provisioner::new(Arc::clone(&shared)));
    let operator = web::Data::new(operator::Operator::new(Arc::clone(&shared)));
    let instances = web::Data::new(instances::Instances::new(shared));
    let base_paths = config.base_paths.clone();
    let app = move || {
        let (adapter, airbyte, operator) = (adapter.clone(), airbyte.clone(), operator.clone());
        let (instances, base_paths) = (instances.clone(), base_paths.clone());
        let (gate, middleware) = (Arc::clone(&gate), Arc::clone(&middleware));
        App::new()
            .wrap(from_fn(move |request: ServiceRequest, next: Next<BoxBody>| {
                guard(Arc::clone(&gate), request, next)
            }))
            // The last middleware is the outermost: a refused request reserves no memory.
            .wrap(from_fn(move |request: ServiceRequest, next: Next<BoxBody>| {
                admit(Arc::clone(&middleware), request, next)
            }))
            .configure(move |app| {
                // Longer prefixes come first. Otherwise `/` would match the paths below them.
                let mut prefixes = base_paths;
                prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.len()));
                for prefix in &prefixes {
                    generated::tech_adapter::server::configure(app, prefix, &adapter);
                }
                // The paths of the other contracts already have their own prefixes.
                generated::airbyte::server::configure(app, "/", &airbyte);
                generated::operator::server::configure(app, "/", &operator);
                generated::flexdeploy::server::configure(app, "/", &instances);
            })
            .default_service(web::to(no_such_path))
    };
    listeners.serve(config, tls, app)
}

async fn no_such_path(request: actix_web::HttpRequest) -> HttpResponse {
    let error = Error::unsupported(format!("no operation has the path `{}`", shorten(request.path())));
    let body = AnyError::from(Fault::new(&error, "see the API contract for its operations"));
    HttpResponse::NotFound().json(body)
}

fn shorten(text: &str) -> String {
    text.chars().take(200).collect()
}
