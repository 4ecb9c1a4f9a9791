//! Limits of memory for request bodies, and `Retry-After`.
//!
//! One middleware around all contracts does what no handler can do: it accounts for the bodies in memory, and adds
//! `Retry-After` to responses with a transient error.
//!
//! A body takes room for the bytes that have arrived, not for its declared length, so connections that declare much
//! and send little do not block others. After its first part, a body also reserves room for the rest, so that bodies
//! that arrive at the same time are read one after the other instead of all of them halfway. The reservation lasts
//! while the body arrives fast. A body that finds no room in time is refused and releases its room, so bodies that
//! fill the room together do not wait for each other forever. A body that arrives too slowly is ended.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::PayloadError;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap};
use actix_web::middleware::Next;
use actix_web::rt::time::{sleep_until, timeout};
use actix_web::web::Bytes;
use actix_web::{HttpMessage, HttpRequest, HttpResponse};
use futures::StreamExt;
use futures::stream::{LocalBoxStream, unfold};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::config::Server;
use crate::generated::flexdeploy::types::InstanceError;
use crate::generated::runtime::Limits;
use crate::logging::PEER_OVERLOAD;
use landfall_adapter::error::Error;

use super::callers;
use super::refusal::Fault;
use super::shapes::AnyError;

/// A body reserves room only after this number of bytes has arrived.
const FIRST_PART: u32 = 64 * 1024;

/// How long a new reservation lasts.
const RESERVED_FOR: Duration = Duration::from_millis(500);

/// Each time this number of bytes arrives, a reservation lasts one second longer.
const FAST: u32 = 1024 * 1024;

/// The maximum time that a reservation lasts from the last chunk on.
const RESERVED_AT_MOST: Duration = Duration::from_secs(1);

/// The time until a retry is useful, if known. A handler that returns a transient error stores it in the
/// extensions of the request.
struct ComeBack(Option<Duration>);

/// Makes the response carry `Retry-After`, if the error is transient.
pub(super) fn note(request: &HttpRequest, error: &Error) {
    if error.is_retryable() {
        request.extensions_mut().insert(ComeBack(error.retry_after()));
    }
}

/// Releases the room of the request's body. Call this when the body is no longer needed and the request waits
/// for something else.
pub(super) fn release_room(request: &HttpRequest) {
    if let Some(room) = request.extensions().get::<Rc<Room>>() {
        room.release();
    }
}

/// Makes the body take room from now on. Call this after authentication, if a handler authenticates before it
/// reads the body.
pub(super) fn mark_authenticated(request: &HttpRequest) {
    if let Some(room) = request.extensions().get::<Rc<Room>>() {
        room.counts.set(true);
    }
}

/// The limit of memory for bodies, and the settings for bodies that exceed it.
pub(super) struct Gate {
    room: Arc<Semaphore>,
    /// The maximum number of bytes of all bodies together.
    total: u32,
    /// The maximum size of one body in bytes.
    largest: u32,
    wait: Duration,
    /// The minimum number of bytes in each `window`.
    least: u64,
    window: Duration,
    retry_after: Duration,
    limits: Limits,
}

impl Gate {
    pub(super) fn new(config: &Server, limits: Limits) -> Self {
        let least = config.min_body_window.as_millis().saturating_mul(config.min_body_rate.into()) / 1000;
        Self {
            room: Arc::new(Semaphore::new(usize::try_from(config.max_inflight_bytes).unwrap_or(usize::MAX))),
            total: config.max_inflight_bytes,
            largest: u32::try_from(config.max_body_bytes).unwrap_or(u32::MAX).min(config.max_inflight_bytes),
            wait: config.inflight_wait,
            least: u64::try_from(least).unwrap_or(u64::MAX),
            window: config.min_body_window,
            retry_after: config.retry_after,
            limits,
        }
    }

    fn is_full(&self) -> Error {
        Error::overloaded(format!(
            "the requests under way hold {} bytes, which is the limit; try again later",
            self.total
        ))
    }
}

/// An extension of a request: the memory of its body, or of values made from it.
struct Room {
    gate: Arc<Gate>,
    held: RefCell<Option<OwnedSemaphorePermit>>,
    /// Whether arriving bytes take room: not before authentication, and not after the room was released.
    counts: Cell<bool>,
    /// Whether the body was refused because it found no room in time.
    refused: Cell<bool>,
}

impl Room {
    /// Takes room for more bytes. Fails if there is no room in time.
    async fn grow(&self, bytes: u32) -> Result<(), ()> {
        let acquired = timeout(self.gate.wait, Arc::clone(&self.gate.room).acquire_many_owned(bytes)).await;
        let Ok(Ok(permit)) = acquired else { return Err(()) };
        let mut held = self.held.borrow_mut();
        match held.as_mut() {
            Some(held) => held.merge(permit),
            None => *held = Some(permit),
        }
        Ok(())
    }

    /// Releases the room of this number of bytes.
    fn shrink(&self, bytes: u32) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        drop(self.held.borrow_mut().as_mut().and_then(|held| held.split(bytes)));
    }

    /// Releases all room. Bytes that arrive later take no room.
    fn release(&self) {
        self.counts.set(false);
        *self.held.borrow_mut() = None;
    }
}

/// A body that is being received; see the module documentation.
struct Body {
    payload: Payload,
    room: Rc<Room>,
    /// The declared length in bytes, at most the maximum size of a body.
    expected: u32,
    received: u32,
    /// The bytes of room that it has: those received and those reserved.
    held: u32,
    /// The end of the reservation; `None` if there is none.
    reserved_until: Option<Instant>,
    /// Whether a reservation has ended; there is no second one.
    is_slow: bool,
    /// The end of the current window, in which `in_window` bytes have arrived so far.
    window_ends: Instant,
    in_window: u64,
    is_over: bool,
}

impl Body {
    fn metered(payload: Payload, room: Rc<Room>, expected: u32) -> Payload {
        let window_ends = Instant::now() + room.gate.window;
        let body = Self {
            payload,
            room,
            expected,
            received: 0,
            held: 0,
            reserved_until: None,
            is_slow: false,
            window_ends,
            in_window: 0,
            is_over: false,
        };
        let chunks: LocalBoxStream<'static, _> =
            Box::pin(unfold(body, |mut body| async move { body.next().await.map(|chunk| (chunk, body)) }));
        Payload::from(chunks)
    }

    async fn next(&mut self) -> Option<Result<Bytes, PayloadError>> {
        if self.is_over {
            return None;
        }
        let chunk = match self.receive().await {
            Some(Ok(chunk)) => chunk,
            end => {
                self.is_over = true;
                self.end_reservation();
                return end;
            }
        };
        if !self.room.counts.get() {
            return Some(Ok(chunk));
        }
        let length = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
        self.received = self.received.saturating_add(length);
        if self.received > self.room.gate.largest {
            // The body is refused, and the rest is discarded.
            self.room.release();
            return Some(Ok(chunk));
        }
        if self.hold().await.is_err() {
            self.is_over = true;
            drop(chunk);
            self.room.release();
            self.room.refused.set(true);
            self.discard().await;
            let error = self.room.gate.is_full().to_string();
            return Some(Err(PayloadError::Io(io::Error::other(error))));
        }
        Some(Ok(chunk))
    }

    /// Returns the next chunk. Ends the reservation when its time is over. Returns an error if the body arrives
    /// too slowly.
    async fn receive(&mut self) -> Option<Result<Bytes, PayloadError>> {
        loop {
            let due = self.reserved_until.map_or(self.window_ends, |until| until.min(self.window_ends));
            tokio::select! {
                biased;
                chunk = self.payload.next() => {
                    let length = chunk.as_ref().and_then(|chunk| chunk.as_ref().ok()).map_or(0, Bytes::len);
                    self.in_window = self.in_window.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
                    let latest = Instant::now() + RESERVED_AT_MOST;
                    self.reserved_until = self.reserved_until.map(|until| latest.min(until + time_for(length)));
                    return chunk;
                }
                () = sleep_until(due) => {}
            }
            let now = Instant::now();
            if self.reserved_until.is_some_and(|until| until <= now) {
                self.end_reservation();
            }
            if self.window_ends <= now {
                let (least, window) = (self.room.gate.least, self.room.gate.window);
                if self.in_window < least {
                    let message = format!(
                        "the request body came too slowly: {} bytes in {window:?}, where at least {least} are needed; \
                         send it faster, or have server.min_body_rate lowered",
                        self.in_window
                    );
                    return Some(Err(PayloadError::Io(io::Error::new(io::ErrorKind::TimedOut, message))));
                }
                self.in_window = 0;
                self.window_ends = now + window;
            }
        }
    }

    /// Reads the rest, so that the client can read the response, unless the client stalls.
    async fn discard(&mut self) {
        let (most, window) = (self.room.gate.limits.drain_bytes, self.room.gate.window);
        let mut seen = 0_usize;
        while seen <= most
            && let Ok(Some(Ok(chunk))) = timeout(window, self.payload.next()).await
        {
            seen = seen.saturating_add(chunk.len());
        }
    }

    /// Takes room for the received bytes, and once [`FIRST_PART`] has arrived also for the rest. Fails if there
    /// is no room in time.
    async fn hold(&mut self) -> Result<(), ()> {
        let reserves = !self.is_slow && self.received >= FIRST_PART && self.expected > self.received;
        let wanted = if reserves { self.expected } else { self.received };
        if wanted <= self.held {
            return Ok(());
        }
        let began = Instant::now();
        self.room.grow(wanted - self.held).await?;
        self.held = wanted;
        if reserves {
            self.reserved_until = Some(Instant::now() + RESERVED_FOR);
        }
        // The window is extended by the wait for room, which the client did not cause.
        self.window_ends += began.elapsed();
        Ok(())
    }

    fn end_reservation(&mut self) {
        if self.reserved_until.take().is_some() {
            self.is_slow = true;
            self.room.shrink(self.held.saturating_sub(self.received));
            self.held = self.held.min(self.received);
        }
    }
}

/// By how much a chunk of this size extends a reservation.
fn time_for(bytes: usize) -> Duration {
    Duration::from_secs(1).mul_f64(f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)) / f64::from(FAST))
}

/// Returns the expected size of a body in bytes: its declared length, `largest` if the length is not declared,
/// or 0 without a body.
fn expected(headers: &HeaderMap, largest: u32) -> u32 {
    let length =
        headers.get(header::CONTENT_LENGTH).map(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
    match length {
        Some(Some(bytes)) => u32::try_from(bytes).unwrap_or(u32::MAX).min(largest),
        // An invalid number is refused elsewhere.
        Some(None) => largest,
        None if headers.contains_key(header::TRANSFER_ENCODING) => largest,
        None => 0,
    }
}

/// The middleware: accounts for the request's body, and adds `Retry-After`.
pub(super) async fn guard(
    gate: Arc<Gate>,
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let expected = expected(request.headers(), gate.largest);
    let asks_for_a_user = callers::asks_for_a_user(request.path());
    let room = Rc::new(Room {
        gate: Arc::clone(&gate),
        held: RefCell::new(None),
        // The handlers of the topology contract accept the body themselves, after authentication.
        counts: Cell::new(!asks_for_a_user),
        refused: Cell::new(false),
    });
    if expected > 0 {
        let payload = Body::metered(request.take_payload(), Rc::clone(&room), expected);
        request.set_payload(payload);
        request.extensions_mut().insert(Rc::clone(&room));
    }
    let mut response = next.call(request).await?.map_into_boxed_body();
    // The body is not needed any more, and the client may read the response slowly.
    room.release();
    if room.refused.get() {
        let error = gate.is_full();
        let peer = response.request().peer_addr();
        log::warn!(target: PEER_OVERLOAD, "answering 500 to {}: {}", callers::shown(peer), error.report());
        note(response.request(), &error);
        let fault = Fault::new(&error, "try again later");
        let answer = match asks_for_a_user {
            true => HttpResponse::InternalServerError().json(InstanceError { message: fault.on_one_line() }),
            false => HttpResponse::InternalServerError().json(AnyError::from(fault)),
        };
        response = response.into_response(answer);
    }
    add_retry_after(&mut response, gate.retry_after);
    Ok(match response.status() {
        StatusCode::METHOD_NOT_ALLOWED => no_such_method(response),
        _ => response,
    })
}

/// A response 405 with the fields of all contracts. The framework's has no body.
fn no_such_method(response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
    let allow = response.headers().get(header::ALLOW).cloned();
    let offered = allow.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let request = response.request();
    let method: String = request.method().as_str().chars().take(40).collect();
    let path: String = request.path().chars().take(200).collect();
    let error = Error::unsupported(format!("no operation has the method `{method}` at `{path}`"));
    let fault = Fault::new(&error, &format!("use one of: {offered}"));
    let mut answer = HttpResponse::MethodNotAllowed().json(AnyError::from(fault));
    if let Some(allow) = allow {
        answer.headers_mut().insert(header::ALLOW, allow);
    }
    response.into_response(answer)
}

/// Adds `Retry-After` if [`note`] was called.
pub(super) fn add_retry_after(response: &mut ServiceResponse<BoxBody>, retry_after: Duration) {
    let come_back = response.request().extensions_mut().remove::<ComeBack>();
    if let Some(ComeBack(hint)) = come_back
        && response.status().is_server_error()
    {
        let seconds = whole_seconds(hint.unwrap_or(retry_after));
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
}

/// Reads and discards a body, so that its sender can read the response instead of a broken connection.
pub(super) async fn discard(mut payload: Payload, limits: &Limits) {
    let drain = async {
        let mut seen = 0_usize;
        while let Some(Ok(chunk)) = payload.next().await {
            seen = seen.saturating_add(chunk.len());
            if seen > limits.drain_bytes {
                return;
            }
        }
    };
    // The result does not matter.
    let _ = timeout(limits.read_timeout, drain).await;
}

/// Rounds up to whole seconds, at least 1: `Retry-After` has no fractions, and zero would cause an immediate
/// retry.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(total: u32, wait: Duration) -> Arc<Gate> {
        Arc::new(Gate { least: 100, ..without_minimum_rate(total, wait) })
    }

    /// Limits without a minimum rate.
    fn without_minimum_rate(total: u32, wait: Duration) -> Gate {
        Gate {
            room: Arc::new(Semaphore::new(usize::try_from(total).unwrap())),
            total,
            largest: total,
            wait,
            least: 0,
            window: WINDOW,
            retry_after: Duration::from_secs(7),
            limits: Limits::default(),
        }
    }

    /// A body that a test sends in parts.
    struct Sender(futures::channel::mpsc::UnboundedSender<Result<Bytes, PayloadError>>);

    impl Sender {
        fn send(&self, bytes: usize) {
            self.0.unbounded_send(Ok(Bytes::from(vec![b'x'; bytes]))).unwrap();
        }
    }

    fn body(gate: &Arc<Gate>, expected: u32) -> (Sender, Payload, Rc<Room>) {
        let (sender, chunks) = futures::channel::mpsc::unbounded();
        let chunks: LocalBoxStream<'static, _> = Box::pin(chunks);
        let room = Rc::new(Room {
            gate: Arc::clone(gate),
            held: RefCell::new(None),
            counts: Cell::new(true),
            refused: Cell::new(false),
        });
        let payload = Body::metered(Payload::from(chunks), Rc::clone(&room), expected);
        (Sender(sender), payload, room)
    }

    /// Returns the length of the next chunk, or the error text. `None` if nothing arrives within 20 ms, or at
    /// the end.
    async fn next(payload: &mut Payload) -> Option<Result<usize, String>> {
        let next = timeout(Duration::from_millis(20), payload.next()).await.ok()??;
        Some(next.map(|chunk| chunk.len()).map_err(|error| error.to_string()))
    }

    const KIB: u32 = 1024;

    const WINDOW: Duration = Duration::from_millis(500);

    #[tokio::test]
    async fn body_takes_room_for_arrived_bytes_only() {
        let gate = gate(1000, Duration::from_secs(1));
        let bodies: Vec<_> = (0..9).map(|_| body(&gate, 1000)).collect();
        let mut read = Vec::new();
        for (sender, mut payload, room) in bodies {
            sender.send(1);
            assert_eq!(next(&mut payload).await, Some(Ok(1)));
            assert_eq!(next(&mut payload).await, None);
            read.push((sender, payload, room));
        }
        assert_eq!(gate.room.available_permits(), 991);
        let (sender, mut payload, room) = body(&gate, 900);
        sender.send(900);
        assert_eq!(next(&mut payload).await, Some(Ok(900)));
        room.release();
        drop(read);
        assert_eq!(gate.room.available_permits(), 1000);
    }

    #[tokio::test]
    async fn a_fast_body_reserves_its_rest_and_a_stalled_one_loses_it() {
        let gate = Arc::new(without_minimum_rate(10 * KIB * KIB, Duration::from_secs(1)));
        let (sender, mut payload, room) = body(&gate, 8 * KIB * KIB);
        let available = || u32::try_from(gate.room.available_permits()).unwrap() / KIB;
        sender.send(256 * 1024);
        assert_eq!(next(&mut payload).await, Some(Ok(256 * 1024)));
        assert_eq!(available(), 2 * KIB);
        // Arriving bytes extend the reservation.
        sender.send(1024 * 1024);
        assert_eq!(next(&mut payload).await, Some(Ok(1024 * 1024)));
        assert!(timeout(RESERVED_FOR, payload.next()).await.is_err());
        assert_eq!(available(), 2 * KIB);
        assert!(timeout(RESERVED_AT_MOST, payload.next()).await.is_err());
        assert_eq!(available(), 10 * KIB - 1280, "what arrived is held");
        sender.send(1024 * 1024);
        assert_eq!(next(&mut payload).await, Some(Ok(1024 * 1024)));
        assert_eq!(available(), 10 * KIB - 2304, "it grows as it arrives");
        drop(sender);
        assert_eq!(next(&mut payload).await, None);
        room.release();
        assert_eq!(available(), 10 * KIB);
    }

    /// Partial bodies that fill the room together: those that cannot grow are refused, and the others are read
    /// completely.
    #[tokio::test]
    async fn bodies_that_fill_the_memory_wait_with_a_deadline() {
        let gate = gate(1000, Duration::from_millis(100));
        let outcomes = futures::future::join_all((0..10).map(|_| async {
            let (sender, mut payload, room) = body(&gate, 200);
            for _ in 0..4 {
                sender.send(50);
                tokio::time::sleep(Duration::from_millis(10)).await;
                match payload.next().await.unwrap() {
                    Ok(_) => {}
                    Err(error) => {
                        assert!(room.refused.get());
                        return Err(error.to_string());
                    }
                }
            }
            room.release();
            Ok(())
        }))
        .await;
        let served = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert!(served > 0, "{outcomes:?}");
        for refused in outcomes.into_iter().filter_map(Result::err) {
            assert!(
                refused.contains("the requests under way hold 1000 bytes, which is the limit"),
                "{refused}"
            );
        }
        assert_eq!(gate.room.available_permits(), 1000);
    }

    #[tokio::test]
    async fn slow_body_is_ended() {
        let gate = gate(1000, Duration::from_secs(1));
        let (sender, mut payload, room) = body(&gate, 900);
        for _ in 0..2 {
            sender.send(100);
            assert_eq!(next(&mut payload).await, Some(Ok(100)));
            assert!(timeout(WINDOW * 8 / 10, payload.next()).await.is_err(), "fast enough");
        }
        sender.send(99);
        let mut ended = payload.next().await.unwrap();
        while ended.is_ok() {
            ended = payload.next().await.unwrap();
        }
        let told = ended.map_err(|error| error.to_string()).unwrap_err();
        assert!(told.starts_with("the request body came too slowly: "), "{told}");
        let remedy = " bytes in 500ms, where at least 100 are needed; send it faster, or have server.min_body_rate lowered";
        assert!(told.ends_with(remedy), "{told}");
        assert!(payload.next().await.is_none());
        assert!(!room.refused.get());
    }

    #[tokio::test]
    async fn discarded_body_reserves_no_memory() {
        let gate = gate(100, Duration::ZERO);
        let (sender, mut payload, room) = body(&gate, 100);
        room.counts.set(false);
        for _ in 0..5 {
            sender.send(90);
            assert_eq!(next(&mut payload).await, Some(Ok(90)));
        }
        assert_eq!(gate.room.available_permits(), 100);
        let (sender, mut payload, _room) = body(&gate, 100);
        for (bytes, left) in [(90, 10), (90, 100), (90, 100)] {
            sender.send(bytes);
            assert_eq!(next(&mut payload).await, Some(Ok(90)));
            assert_eq!(gate.room.available_permits(), left, "past the largest body nothing is kept");
        }
    }

    #[test]
    fn reserves_the_declared_or_the_largest_size() {
        let claimed = |pairs: &[(header::HeaderName, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(name.clone(), header::HeaderValue::from_str(value).unwrap());
            }
            expected(&headers, 1000)
        };
        assert_eq!(claimed(&[]), 0, "no body");
        for (length, bytes) in
            [("0", 0), ("7", 7), ("1000", 1000), ("1001", 1000), ("99999999999999", 1000), ("x", 1000)]
        {
            assert_eq!(claimed(&[(header::CONTENT_LENGTH, length)]), bytes, "{length}");
        }
        assert_eq!(claimed(&[(header::TRANSFER_ENCODING, "chunked")]), 1000);
    }

    /// The error's own delay wins over the configured one; a permanent error has no `Retry-After`.
    #[actix_web::test]
    async fn transient_errors_carry_retry_after() {
        use actix_web::middleware::from_fn;
        use actix_web::{App, test, web};
        async fn fail(request: HttpRequest) -> HttpResponse {
            let error = match request.path() {
                "/hint" => Error::retryable("away").after(Duration::from_millis(89_001)),
                "/away" => Error::retryable("away"),
                "/full" => Error::overloaded("full"),
                _ => Error::permanent("broken"),
            };
            note(&request, &error);
            HttpResponse::InternalServerError().finish()
        }
        let gate = gate(10, Duration::ZERO);
        let app = App::new()
            .wrap(from_fn(move |request: ServiceRequest, next: Next<BoxBody>| {
                guard(Arc::clone(&gate), request, next)
            }))
            .default_service(web::to(fail));
        let app = test::init_service(app).await;
        for (path, expected) in
            [("/hint", Some("90")), ("/away", Some("7")), ("/full", Some("7")), ("/broken", None)]
        {
            let request = test::TestRequest::get().uri(path).to_request();
            let response = test::call_service(&app, request).await;
            let header = response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap());
            assert_eq!(header, expected, "{path}");
        }
    }

    #[test]
    fn retry_after_is_whole_and_at_least_one_second() {
        let seconds = [0, 1, 999, 1000, 1001, 5000].map(|ms| whole_seconds(Duration::from_millis(ms)));
        assert_eq!(seconds, [1, 1, 1, 1, 2, 5]);
    }
}
