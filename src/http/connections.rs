//! How connections are accepted, encrypted, timed and closed.
//!
//! This module limits what unauthenticated callers can do. A TLS handshake has a time limit and delays no other one;
//! only callers that have sent something take a permit. A connection is closed if no request is in progress and none
//! arrives completely in time, for the first request and every later one, and also if the caller does not read a
//! response. Each end that the caller causes is logged with its address, at a limited rate (`logging`).
//!
//! The framework has limits for the first request of a connection, but none for the head of a later one or for a
//! response that is not read, and it does not report the cause of a failed handshake. So this module builds the
//! listeners from its parts.

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_http::error::{DispatchError, ParseError};
use actix_http::{HttpService, Protocol, Request, Response};
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, fn_factory, fn_service, map_config,
};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, Server as ActixServer};
use actix_web::rt::net::TcpStream;
use actix_web::{Error as ActixError, HttpRequest};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpSocket;
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::Server;
use crate::logging::{PEER_HTTP, PEER_TLS};
use landfall_adapter::error::{Error, Result};

/// Connections that the system queues before they are accepted.
const BACKLOG: u32 = 1024;

/// The maximum time to close a connection.
const GOODBYE: Duration = Duration::from_secs(1);

/// The precision of the framework's clock for the timeout of the first request.
const TICK: Duration = Duration::from_millis(500);

/// How long open requests may take when the server stops, in seconds. The engine drains after the last
/// response, so this is short.
const SHUTDOWN: u64 = 5;

/// A bound server that does not respond yet.
pub(crate) struct Bound {
    /// The addresses that it listens on, at least one, with the real port instead of 0.
    pub(crate) addresses: Vec<SocketAddr>,
    /// The server. It runs until it is stopped through its handle.
    pub(crate) server: ActixServer,
}

/// Bound listeners with their addresses. They are bound before the application is created, because it may
/// depend on the addresses.
pub(super) struct Listeners(Vec<(std::net::TcpListener, SocketAddr)>);

/// State that connections of all listeners and workers share.
#[derive(Clone)]
struct Rules {
    tls: Option<Tls>,
    header_timeout: Duration,
    keep_alive: Duration,
    answer_timeout: Duration,
}

#[derive(Clone)]
struct Tls {
    acceptor: TlsAcceptor,
    under_way: Arc<Semaphore>,
    timeout: Duration,
}

impl Listeners {
    /// Binds every address of `listen`. Fails if none can be bound. Must be called inside a tokio runtime.
    pub(super) fn bind(listen: &str) -> Result<Self> {
        let failed = |error: io::Error| {
            Error::permanent(format!(
                "cannot listen on `{listen}`; name a free HOST:PORT in server.listen or --listen"
            ))
            .because(error)
        };
        let mut bound = Vec::new();
        let mut problem = None;
        for address in listen.to_socket_addrs().map_err(failed)? {
            match open(address).and_then(|listener| Ok((listener.local_addr()?, listener))) {
                Ok((address, listener)) => bound.push((listener, address)),
                Err(error) => problem = Some(error),
            }
        }
        match problem {
            Some(error) if bound.is_empty() => Err(failed(error)),
            _ if bound.is_empty() => {
                Err(Error::permanent(format!("`{listen}` names no address to listen on")))
            }
            _ => Ok(Self(bound)),
        }
    }

    /// The addresses, at least one.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().map(|(_, address)| *address).collect()
    }

    /// Serves `app`; encrypted if `tls` is set.
    pub(super) fn serve<F, I, S, B>(
        self,
        config: &Server,
        tls: Option<rustls::ServerConfig>,
        app: F,
    ) -> Result<Bound>
    where
        F: Fn() -> I + Send + Clone + 'static,
        I: IntoServiceFactory<S, Request>,
        S: ServiceFactory<Request, Config = AppConfig> + 'static,
        S::Error: Into<ActixError> + 'static,
        S::InitError: std::fmt::Debug,
        S::Response: Into<Response<B>> + 'static,
        S::Service: 'static,
        <S::Service as Service<Request>>::Future: 'static,
        B: MessageBody + 'static,
    {
        let addresses = self.addresses();
        let rules = Rules {
            tls: tls.map(|tls| Tls::new(config, tls)),
            header_timeout: config.header_timeout,
            keep_alive: config.keep_alive,
            answer_timeout: config.answer_timeout,
        };
        let mut builder = actix_server::Server::build()
            .workers(config.workers)
            .max_concurrent_connections(config.max_connections.div_ceil(config.workers))
            .disable_signals()
            .shutdown_timeout(SHUTDOWN);
        let shutdown = builder.graceful_shutdown_signal();
        for (listener, address) in self.0 {
            let (app, rules, shutdown) = (app.clone(), rules.clone(), shutdown.clone());
            let factory = move || {
                let shutdown = shutdown.clone();
                let app =
                    map_config(app().into_factory().map_err(|error| error.into().error_response()), |()| {
                        AppConfig::default()
                    });
                let http = HttpService::build()
                    .keep_alive(rules.keep_alive)
                    .client_request_timeout(rules.header_timeout)
                    .client_disconnect_timeout(GOODBYE)
                    // A caller that closes its side has left, so work that only it needs, such as a dry run, is
                    // cancelled.
                    .h1_allow_half_closed(false)
                    .graceful_shutdown_signal(move || {
                        let signal = shutdown.clone();
                        async move { signal.notified().await }
                    })
                    .on_connect_ext(|connection: &Connection, extensions| {
                        extensions.insert(Rc::clone(&connection.exchange));
                    })
                    .finish(app);
                let (http, rules) = (Rc::new(http), rules.clone());
                fn_factory(move || {
                    let (http, rules) = (Rc::clone(&http), rules.clone());
                    async move {
                        let http = Rc::new(http.new_service(()).await?);
                        Ok::<_, ()>(fn_service(move |tcp: TcpStream| {
                            let (http, rules) = (Rc::clone(&http), rules.clone());
                            async move {
                                rules.attend(tcp, |opened| http.call(opened)).await;
                                Ok::<_, ()>(())
                            }
                        }))
                    }
                })
            };
            builder = builder
                .listen(format!("http-{address}"), listener, factory)
                .map_err(|error| Error::permanent(format!("cannot serve on `{address}`")).because(error))?;
        }
        Ok(Bound { addresses, server: builder.run() })
    }
}

fn open(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Allow a port whose last connections are still being closed.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// A connection for the framework.
type Opened = (Connection, Protocol, Option<SocketAddr>);

impl Rules {
    /// Accepts TLS if configured, and serves the connection with timeouts until it ends. Logs an end that the
    /// caller caused.
    async fn attend<F>(&self, tcp: TcpStream, serve: impl FnOnce(Opened) -> F)
    where
        F: Future<Output = Result<(), DispatchError>>,
    {
        // A closed connection has no address.
        let Ok(peer) = tcp.peer_addr() else { return };
        let stream = match &self.tls {
            None => Stream::Plain(tcp),
            Some(tls) => match tls.accept(tcp).await {
                Ok(stream) => Stream::Tls(Box::new(stream)),
                Err(problem) => {
                    log::warn!(target: PEER_TLS, "no TLS with {peer}: {problem}");
                    return;
                }
            },
        };
        let connection = Connection::new(stream, self);
        let exchange = Rc::clone(&connection.exchange);
        let began = Instant::now();
        let ended = serve((connection, Protocol::Http1, Some(peer))).await;
        let is_late = began.elapsed().saturating_add(TICK) >= self.header_timeout;
        let problem = match ended {
            // Any other error would stop the server.
            Ok(()) if is_late && exchange.requests.get() == 0 && !exchange.has_left.get() => {
                format!("no whole request came within {:?}", self.header_timeout)
            }
            Err(DispatchError::Parse(ParseError::TooLarge)) => {
                "the head of a request is too large".to_owned()
            }
            Err(DispatchError::Parse(error)) => format!("what came is no HTTP: {error}"),
            Err(DispatchError::Io(error)) if error.kind() == io::ErrorKind::TimedOut => error.to_string(),
            Ok(()) => return,
            // The caller has disconnected.
            Err(error) => {
                log::debug!(target: PEER_HTTP, "closing the connection of {peer}: {error}");
                return;
            }
        };
        log::warn!(target: PEER_HTTP, "closing the connection of {peer}: {problem}");
    }
}

impl Tls {
    fn new(config: &Server, mut tls: rustls::ServerConfig) -> Self {
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self {
            acceptor: TlsAcceptor::from(Arc::new(tls)),
            under_way: Arc::new(Semaphore::new(config.max_handshakes)),
            timeout: config.handshake_timeout,
        }
    }

    /// Returns the encrypted stream, or the reason why the handshake failed.
    async fn accept(&self, tcp: TcpStream) -> Result<TlsStream<TcpStream>, String> {
        let handshake = async {
            // A silent connection takes no handshake permit.
            tcp.readable().await?;
            let _permit = self.under_way.acquire().await.map_err(io::Error::other)?;
            self.acceptor.accept(tcp).await
        };
        match timeout(self.timeout, handshake).await {
            Ok(accepted) => accepted.map_err(|error| error.to_string()),
            Err(_) => Err(format!("the handshake took longer than {:?}", self.timeout)),
        }
    }
}

/// The progress of a connection.
pub(super) struct Exchange {
    under_way: Cell<usize>,
    /// The number of complete requests.
    requests: Cell<usize>,
    /// Whether the caller has stopped sending.
    has_left: Cell<bool>,
    /// Since when the server waits for the caller to send something: the end of the last response, or the last
    /// time that a part of it was read.
    waits_since: Cell<Instant>,
}

/// A request in progress. Until this value is dropped, the caller need not send anything.
pub(super) struct UnderWay(Rc<Exchange>);

impl UnderWay {
    /// Counts a new request of the connection. `None` if the request has no connection, as in tests.
    pub(super) fn begin(request: &HttpRequest) -> Option<Self> {
        let exchange = request.conn_data::<Rc<Exchange>>()?;
        exchange.under_way.set(exchange.under_way.get().saturating_add(1));
        exchange.requests.set(exchange.requests.get().saturating_add(1));
        Some(Self(Rc::clone(exchange)))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get().saturating_sub(1));
        self.0.waits_since.set(Instant::now());
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A stream that fails with [`io::ErrorKind::TimedOut`] if its caller sends nothing, or reads nothing, for too long.
struct Connection {
    stream: Stream,
    exchange: Rc<Exchange>,
    silence: Duration,
    answer_timeout: Duration,
    /// Since when a write waits for the caller to read; `None` if no write waits.
    stuck_since: Option<Instant>,
    reading: Alarm,
    writing: Alarm,
}

impl Connection {
    fn new(stream: Stream, rules: &Rules) -> Self {
        let now = Instant::now();
        Self {
            stream,
            exchange: Rc::new(Exchange {
                under_way: Cell::new(0),
                requests: Cell::new(0),
                has_left: Cell::new(false),
                waits_since: Cell::new(now),
            }),
            // A caller may first be idle, and then take the header timeout for a request.
            silence: rules.keep_alive.saturating_add(rules.header_timeout),
            answer_timeout: rules.answer_timeout,
            stuck_since: None,
            reading: Alarm(None),
            writing: Alarm(None),
        }
    }

    /// Returns the outcome of a write. If it is pending for too long because the caller reads nothing, returns
    /// an error.
    fn written<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stuck_since = None;
            return outcome;
        }
        let since = *self.stuck_since.get_or_insert_with(Instant::now);
        ready!(self.writing.poll(context, since, self.answer_timeout));
        Poll::Ready(Err(timed_out(format!("no part of an answer was read within {:?}", self.answer_timeout))))
    }
}

/// A timer that wakes the task that polls it.
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    fn poll(&mut self, context: &mut Context<'_>, since: Instant, after: Duration) -> Poll<()> {
        // A time beyond the range of the clock never comes.
        let Some(due) = since.checked_add(after) else { return Poll::Pending };
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if sleep.deadline() != due {
            sleep.as_mut().reset(due);
        }
        sleep.as_mut().poll(context)
    }
}

fn timed_out(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, message)
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
        };
        if read.is_ready() {
            this.exchange.has_left.set(buffer.filled().len() == before);
        }
        if read.is_ready() || this.exchange.under_way.get() > 0 {
            return read;
        }
        ready!(this.reading.poll(context, this.exchange.waits_since.get(), this.silence));
        Poll::Ready(Err(timed_out(format!("no whole request came within {:?}", this.silence))))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
        };
        if matches!(outcome, Poll::Ready(Ok(1..))) {
            this.exchange.waits_since.set(Instant::now());
        }
        this.written(context, outcome)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
        };
        this.written(context, outcome)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
        };
        this.written(context, outcome)
    }
}
