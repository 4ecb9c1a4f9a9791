//! What the server can hold at once, and when to come back.
//!
//! One middleware around every contract does two things that no handler can do for itself: it makes a request wait
//! before its body is taken into memory, and it adds `Retry-After` to an answer whose error will pass.

use std::sync::Arc;
use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderMap};
use actix_web::middleware::Next;
use actix_web::rt::time::timeout;
use actix_web::{HttpMessage, HttpRequest, HttpResponse};
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Server;
use crate::error::{Error, Result};
use crate::generated::runtime::Limits;

use super::callers;
use super::refusal::Fault;
use super::shapes::AnyError;

/// Left in a request's extensions by whoever answers it with an error that will pass: how long that takes, where it is
/// known.
struct ComeBack(Option<Duration>);

/// Left in a request's extensions while its body, or what was made of it, is in memory.
struct Room(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

/// Has the answer say when to try again, if the error is one that passes.
pub(super) fn note(request: &HttpRequest, error: &Error) {
    if error.is_retryable() {
        request.extensions_mut().insert(ComeBack(error.retry_after()));
    }
}

/// To be called when a request is done with its body and waits for something else.
pub(super) fn release_room(request: &HttpRequest) {
    request.extensions_mut().remove::<Room>();
}

/// How much may be in memory, and what is answered beyond it.
pub(super) struct Gate {
    room: Arc<Semaphore>,
    /// Bytes in all.
    total: u32,
    /// What one body takes at most: more of it is not kept.
    largest: u32,
    wait: Duration,
    retry_after: Duration,
    limits: Limits,
}

impl Gate {
    pub(super) fn new(config: &Server, limits: Limits) -> Self {
        Self {
            room: Arc::new(Semaphore::new(usize::try_from(config.max_inflight_bytes).unwrap_or(usize::MAX))),
            total: config.max_inflight_bytes,
            largest: u32::try_from(config.max_body_bytes).unwrap_or(u32::MAX).min(config.max_inflight_bytes),
            wait: config.inflight_wait,
            retry_after: config.retry_after,
            limits,
        }
    }

    /// Waits for room for the body of a request, which is kept until the request is answered; none is needed where there is
    /// no body.
    pub(super) async fn make_room(&self, request: &HttpRequest) -> Result<()> {
        let bytes = claim(request.headers(), self.largest);
        if bytes == 0 {
            return Ok(());
        }
        match timeout(self.wait, Arc::clone(&self.room).acquire_many_owned(bytes)).await {
            Ok(Ok(permit)) => {
                request.extensions_mut().insert(Room(permit));
                Ok(())
            }
            Ok(Err(closed)) => Err(Error::retryable("the server is going down").because(closed)),
            Err(_) => Err(Error::overloaded(format!(
                "the requests under way hold {} bytes, which is the limit; try again later",
                self.total
            ))),
        }
    }
}

/// What a body will take, before it is there: what it declares, and the most that it may have where it declares
/// nothing.
fn claim(headers: &HeaderMap, largest: u32) -> u32 {
    let length =
        headers.get(header::CONTENT_LENGTH).map(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
    match length {
        Some(Some(bytes)) => u32::try_from(bytes).unwrap_or(u32::MAX).min(largest),
        // A number that is none is refused elsewhere.
        Some(None) => largest,
        None if headers.contains_key(header::TRANSFER_ENCODING) => largest,
        None => 0,
    }
}

/// The middleware.
pub(super) async fn guard(
    gate: Arc<Gate>,
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let room = match callers::asks_for_a_user(request.path()) {
        // It makes room itself, once it knows who calls.
        true => Ok(()),
        false => gate.make_room(request.request()).await,
    };
    let mut response = match room {
        Ok(()) => {
            let response = next.call(request).await?.map_into_boxed_body();
            // The answer may be read slowly; what was asked is forgotten by then.
            release_room(response.request());
            response
        }
        Err(error) => {
            log::warn!("answering 500: {}", error.report());
            note(request.request(), &error);
            throw_away(request.take_payload(), &gate.limits).await;
            let body = AnyError::from(Fault::new(&error, "try again later"));
            request.into_response(HttpResponse::InternalServerError().json(body))
        }
    };
    say_when(&mut response, gate.retry_after);
    Ok(response)
}

/// Adds `Retry-After` where [`note`] left word.
pub(super) fn say_when(response: &mut ServiceResponse<BoxBody>, retry_after: Duration) {
    let come_back = response.request().extensions_mut().remove::<ComeBack>();
    if let Some(ComeBack(hint)) = come_back
        && response.status().is_server_error()
    {
        let seconds = whole_seconds(hint.unwrap_or(retry_after));
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
}

/// Reads a body that nobody wants, so that its sender gets to read the answer instead of a broken connection.
pub(super) async fn throw_away(mut payload: Payload, limits: &Limits) {
    let drain = async {
        let mut seen = 0_usize;
        while let Some(Ok(chunk)) = payload.next().await {
            seen = seen.saturating_add(chunk.len());
            if seen > limits.drain_bytes {
                return;
            }
        }
    };
    // However it ends, the answer is the same.
    let _ = timeout(limits.read_timeout, drain).await;
}

/// `Retry-After` has no fractions, and zero would be an invitation to come back at once.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_takes_what_it_declares_and_one_that_declares_nothing_the_most() {
        let claimed = |pairs: &[(header::HeaderName, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(name.clone(), header::HeaderValue::from_str(value).unwrap());
            }
            claim(&headers, 1000)
        };
        assert_eq!(claimed(&[]), 0, "no body");
        for (length, bytes) in
            [("0", 0), ("7", 7), ("1000", 1000), ("1001", 1000), ("99999999999999", 1000), ("x", 1000)]
        {
            assert_eq!(claimed(&[(header::CONTENT_LENGTH, length)]), bytes, "{length}");
        }
        assert_eq!(claimed(&[(header::TRANSFER_ENCODING, "chunked")]), 1000);
    }

    /// What the error knows goes before what is configured; what will not pass says nothing.
    #[actix_web::test]
    async fn an_answer_says_when_to_come_back_as_far_as_that_is_known() {
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
        let gate = Arc::new(Gate {
            room: Arc::new(Semaphore::new(10)),
            total: 10,
            largest: 10,
            wait: Duration::ZERO,
            retry_after: Duration::from_secs(7),
            limits: Limits::default(),
        });
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
    fn seconds_are_whole_and_never_none() {
        let seconds = [0, 1, 999, 1000, 1001, 5000].map(|ms| whole_seconds(Duration::from_millis(ms)));
        assert_eq!(seconds, [1, 1, 1, 1, 2, 5]);
    }
}
