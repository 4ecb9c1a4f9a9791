//! What generated servers and decoders share: reading a request, refusing it, writing and reading an answer.
//!
//! Written by hand in codegen/support and copied beside the generated code, which needs no crate of ours. It knows
//! HTTP and JSON and no contract: a fault in a request becomes a [`Rejection`], and the implementor of the contract's
//! trait turns that into the contract's own shape. Error bodies of the framework are never sent.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use actix_web::error::PayloadError;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap};
use actix_web::web::{self, Bytes};
use actix_web::{HttpRequest, HttpResponse};
use futures::StreamExt;
use regex::Regex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::json::{self, shorten};

// ---- operations and contexts --------------------------------------------------------------------------------------

/// An operation of a contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its name in the contract.
    pub operation_id: &'static str,
    /// Upper case.
    pub method: &'static str,
    /// Path template, e.g. `/v1/provision/{token}/status`.
    pub path: &'static str,
    /// The statuses that the contract declares, ascending.
    pub statuses: &'static [u16],
}

/// What a handler may know of the request besides its parameters and body.
#[derive(Clone, Debug)]
pub struct RequestContext {
    operation: Operation,
    request: HttpRequest,
}

impl RequestContext {
    /// The context of one request. Generated code and tests of handlers create it.
    pub fn new(operation: Operation, request: HttpRequest) -> Self {
        Self { operation, request }
    }

    /// The requested operation.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The request's headers.
    pub fn headers(&self) -> &HeaderMap {
        self.request.headers()
    }

    /// The request itself, for example for the extensions of a middleware.
    pub fn request(&self) -> &HttpRequest {
        &self.request
    }

    /// Whether the Accept header names this media type itself (`*/*` and `text/*` name none) and does not refuse it.
    pub fn accept_names(&self, media_type: &str) -> bool {
        self.accept_ranges().any(|(range, quality)| range.eq_ignore_ascii_case(media_type) && quality > 0.0)
    }

    /// The quality of a media type in the Accept headers, 0 to 1, with wildcards; 1 without an Accept header.
    pub fn accept_quality(&self, media_type: &str) -> f32 {
        if !self.headers().contains_key(header::ACCEPT) {
            return 1.0;
        }
        let family = media_type.split('/').next().unwrap_or_default();
        let mut best = (0, 0.0);
        for (range, quality) in self.accept_ranges() {
            let precision = if range.eq_ignore_ascii_case(media_type) {
                3
            } else if range.strip_suffix("/*").is_some_and(|it| it.eq_ignore_ascii_case(family)) {
                2
            } else if range == "*/*" {
                1
            } else {
                continue;
            };
            if precision > best.0 {
                best = (precision, quality);
            }
        }
        best.1
    }

    /// The form of a text that is declared as both: the one with the higher quality. With equal quality it is
    /// text/plain, unless only application/json is named.
    pub fn text_or_json(&self) -> TextOrJson {
        let (text, json) = (self.accept_quality("text/plain"), self.accept_quality("application/json"));
        let only_json_is_named = self.accept_names("application/json") && !self.accept_names("text/plain");
        if json > text || (json >= text && only_json_is_named) { TextOrJson::Json } else { TextOrJson::Text }
    }

    /// The media ranges of the Accept headers with their qualities.
    fn accept_ranges(&self) -> impl Iterator<Item = (&str, f32)> {
        let headers = self.headers().get_all(header::ACCEPT).filter_map(|value| value.to_str().ok());
        headers.flat_map(|value| value.split(',')).filter_map(|part| {
            let mut pieces = part.split(';').map(str::trim);
            let range = pieces.next().filter(|range| !range.is_empty())?;
            let quality = pieces.find_map(|piece| {
                let (name, value) = piece.split_once('=')?;
                name.trim_end().eq_ignore_ascii_case("q").then(|| value.trim_start().parse::<f32>().ok())?
            });
            // An invalid quality is ignored.
            Some((range, quality.filter(|it| (0.0..=1.0).contains(it)).unwrap_or(1.0)))
        })
    }
}

/// Limits on the reading of a request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A body of more bytes is refused.
    pub body_bytes: usize,
    /// The number of bytes of a refused body that are read and discarded, so that the client can read the answer
    /// instead of a connection reset.
    pub drain_bytes: usize,
    /// A whole body must have arrived within this time.
    pub read_timeout: Duration,
    /// A body of more bytes is parsed on the blocking pool, not on the server's own thread.
    pub parse_inline_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 16 * 1024 * 1024,
            drain_bytes: 64 * 1024 * 1024,
            read_timeout: Duration::from_secs(30),
            parse_inline_bytes: 64 * 1024,
        }
    }
}

// ---- refusals -----------------------------------------------------------------------------------------------------

/// Why a request does not reach its handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectionKind {
    /// The body is larger than [`Limits::body_bytes`].
    TooLarge,
    /// The body took longer than [`Limits::read_timeout`], or its stream timed out.
    TooSlow,
    /// The connection broke, or the server is shutting down.
    Interrupted,
    /// The body is not declared as JSON.
    ContentType,
    /// The body is not valid JSON.
    Syntax,
    /// The body is JSON, but does not match the operation's schema.
    Schema,
    /// A parameter is not UTF-8, does not match its pattern, is missing, or is repeated.
    Parameter,
}

/// A request that does not match the contract. The message may be sent to the caller; it may quote a value of the
/// request, shortened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The kind of the fault.
    pub kind: RejectionKind,
    /// Where, in dot format (`refs[1]`, `provisionInfo.request`); for a parameter its name.
    pub field: Option<String>,
    /// The fault, as a sentence.
    pub message: String,
    /// The value, shortened to one line, if it fits into one.
    pub value: Option<String>,
    /// The remedy, if it is known without the contract.
    pub remedy: Option<String>,
}

impl Rejection {
    fn new(kind: RejectionKind, message: impl Into<String>) -> Self {
        Self { kind, field: None, message: message.into(), value: None, remedy: None }
    }

    fn of_parameter(name: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            field: Some(name.to_owned()),
            remedy: Some(remedy.into()),
            ..Self::new(RejectionKind::Parameter, message)
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(formatter, "`{field}`: {}", self.message),
            None => formatter.write_str(&self.message),
        }
    }
}

/// Why a caller is refused. The text may be sent to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// 401: the caller sent no credential, or a wrong one.
    Unauthorized(String),
    /// 403: the caller is authenticated, and not authorized.
    Forbidden(String),
    /// 500: authentication is not possible now.
    Unavailable(String),
}

impl fmt::Display for Denial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unauthorized(message) | Self::Forbidden(message) | Self::Unavailable(message) => {
                formatter.write_str(message)
            }
        }
    }
}

// ---- reading requests ---------------------------------------------------------------------------------------------

/// Where a prefix (`/`, `/base`, `/base/`) puts a path of the contract.
pub fn mount(prefix: &str, path: &str) -> String {
    let prefix = prefix.trim_matches('/');
    if prefix.is_empty() { path.to_owned() } else { format!("/{prefix}{path}") }
}

/// A path parameter, percent-decoded.
pub fn path_parameter(request: &HttpRequest, name: &str) -> Result<String, Rejection> {
    // actix has decoded the path already, all but `%`, `/` and `+`: what is left to decode can be decoded once more
    // without decoding anything twice.
    let raw = request.match_info().get(name).unwrap_or_default();
    match percent_decode(raw) {
        Some(value) if !value.contains(char::REPLACEMENT_CHARACTER) => Ok(value),
        _ => Err(no_text(name)),
    }
}

fn no_text(name: &str) -> Rejection {
    Rejection::of_parameter(name, "is not percent-encoded UTF-8 text", "send UTF-8, percent-encoded")
}

/// The pattern of a parameter. The generator has checked that it compiles.
pub struct Pattern {
    text: &'static str,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    /// The pattern of a contract, to be compiled when it is needed.
    pub const fn new(text: &'static str) -> Self {
        Self { text, compiled: OnceLock::new() }
    }

    /// The value, given that it matches.
    pub fn check(&self, name: &str, value: String) -> Result<String, Rejection> {
        let compiled = self.compiled.get_or_init(|| Regex::new(self.text).ok());
        if compiled.as_ref().is_some_and(|pattern| pattern.is_match(&value)) {
            return Ok(value);
        }
        let message = format!("`{}` does not match `{}`", shorten(&value), self.text);
        Err(Rejection::of_parameter(name, message, "send a value that matches"))
    }
}

/// A query parameter, percent-decoded, `+` as a space. Other parameters are ignored.
pub fn query_parameter(request: &HttpRequest, name: &str) -> Result<Option<String>, Rejection> {
    let decode = |text: &str| percent_decode(&text.replace('+', " "));
    let pairs = request.query_string().split('&');
    let mut values = pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(|(key, _)| decode(key).is_some_and(|key| key == name))
        .map(|(_, value)| value);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Rejection::of_parameter(name, "is given more than once", "give it once"));
    }
    decode(value).map(Some).ok_or_else(|| no_text(name))
}

/// A query parameter that must be there.
pub fn required_query_parameter(request: &HttpRequest, name: &str) -> Result<String, Rejection> {
    query_parameter(request, name)?
        .ok_or_else(|| Rejection::of_parameter(name, "is missing", format!("add `{name}=`")))
}

fn percent_decode(raw: &str) -> Option<String> {
    let mut bytes = raw.bytes();
    let mut decoded = Vec::with_capacity(raw.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let value = digit(bytes.next())? * 16 + digit(bytes.next())?;
            decoded.push(u8::try_from(value).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

/// Read a body and parse it as JSON.
///
/// A body is JSON only if the request declares it: a web page can send any other content type to another server
/// without a preflight. A compressed body is refused.
pub async fn read_json<T>(
    request: &HttpRequest,
    payload: web::Payload,
    limits: &Limits,
) -> Result<T, Rejection>
where
    T: DeserializeOwned + Send + 'static,
{
    let declared = check_headers(request.headers());
    let body = match actix_web::rt::time::timeout(limits.read_timeout, read(payload, limits, declared)).await
    {
        Ok(body) => body?,
        Err(_) => {
            let message = format!("the request body did not arrive within {:?}", limits.read_timeout);
            return Err(Rejection::new(RejectionKind::TooSlow, message));
        }
    };
    if body.len() <= limits.parse_inline_bytes {
        return parse(&body);
    }
    let stopping = |_| Rejection::new(RejectionKind::Interrupted, "the server is going down");
    web::block(move || parse(&body)).await.map_err(stopping)?
}

fn check_headers(headers: &HeaderMap) -> Result<(), Rejection> {
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match text(header::CONTENT_TYPE) {
        Some(content_type) if is_json(&content_type) => {}
        Some(content_type) => {
            let message =
                format!("the Content-Type is `{}`, send `application/json`", shorten(&content_type));
            return Err(Rejection::new(RejectionKind::ContentType, message));
        }
        None => {
            let message = "the Content-Type is missing, send `application/json`";
            return Err(Rejection::new(RejectionKind::ContentType, message));
        }
    }
    if let Some(encoding) = text(header::CONTENT_ENCODING)
        && !encoding.eq_ignore_ascii_case("identity")
    {
        let message = format!("the Content-Encoding is `{}`, send the body as it is", shorten(&encoding));
        return Err(Rejection::new(RejectionKind::ContentType, message));
    }
    Ok(())
}

fn is_json(content_type: &str) -> bool {
    let essence = essence(content_type);
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// The media type without its parameters, in lower case.
fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Read the body. A body that is refused for its size, or because of `declared`, is drained.
async fn read(
    mut payload: web::Payload,
    limits: &Limits,
    declared: Result<(), Rejection>,
) -> Result<Vec<u8>, Rejection> {
    if let Err(refusal) = declared {
        discard(payload, 0, limits).await;
        return Err(refusal);
    }
    let mut body = Vec::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(broken_off)?;
        let seen = body.len().saturating_add(chunk.len());
        if seen > limits.body_bytes {
            drop(body);
            discard(payload, seen, limits).await;
            let message = format!("the request body is larger than {} bytes", limits.body_bytes);
            return Err(Rejection::new(RejectionKind::TooLarge, message));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// A stream that times out returns a timeout whose text may be sent to the caller.
fn broken_off(error: PayloadError) -> Rejection {
    match error {
        PayloadError::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => {
            Rejection::new(RejectionKind::TooSlow, error.to_string())
        }
        error => {
            let message = format!("the request body broke off: {error}");
            Rejection::new(RejectionKind::Interrupted, message)
        }
    }
}

/// Read a body that is not needed, within the limits: a sender that is cut off would not read the answer.
pub async fn drain(payload: web::Payload, limits: &Limits) {
    // The rest is dropped at the timeout.
    let _ = actix_web::rt::time::timeout(limits.read_timeout, discard(payload, 0, limits)).await;
}

/// Read from byte `seen` on, to the end of the body or to the limits.
async fn discard(mut payload: web::Payload, mut seen: usize, limits: &Limits) {
    while seen <= limits.drain_bytes.max(limits.body_bytes)
        && let Some(Ok(chunk)) = payload.next().await
    {
        seen = seen.saturating_add(chunk.len());
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Rejection> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Rejection::new(RejectionKind::Syntax, "the request has no body"));
    }
    json::read(body).map_err(|problem| Rejection {
        kind: if problem.is_schema { RejectionKind::Schema } else { RejectionKind::Syntax },
        field: problem.field,
        message: problem.message,
        value: problem.value,
        remedy: problem.remedy,
    })
}

// ---- writing answers ----------------------------------------------------------------------------------------------

/// A response that has a variant for `STATUS` with this body.
///
/// Every generated response implements it once a declared status, so that code for several operations can be written
/// once: `fn refuse<R: Answer<400, types::RequestValidationError>>(..) -> R`. An undeclared status does not compile.
pub trait Answer<const STATUS: u16, Body> {
    /// The response with that status.
    fn answer(body: Body) -> Self;
}

/// An error that becomes a response `R` of the contract that the implementor `I` serves.
///
/// A generated trait requires it of its `Error`, once for each operation that can fail. One implementation serves all
/// operations that declare the same statuses: `impl<R> IntoResponse<I, R> for Error where R: Answer<400, ..> +
/// Answer<500, ..>`.
pub trait IntoResponse<I, R> {
    /// The response, with one of the statuses that `R` has.
    fn into_response(self, context: &RequestContext) -> R;
}

/// The form of a text that a contract declares both as text/plain and as application/json.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextOrJson {
    /// As it is, text/plain.
    Text,
    /// Quoted, application/json.
    Json,
}

/// An answer without a body.
pub fn empty_response(status: u16) -> HttpResponse {
    // Generated code passes statuses of `spec::variant` only, all of which exist.
    HttpResponse::new(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
}

/// A JSON answer.
pub fn json_response<T: Serialize>(status: u16, body: &T) -> HttpResponse {
    match serde_json::to_vec(body) {
        Ok(bytes) => with_body(status, "application/json", bytes),
        // No schema type can fail to serialise: all map keys are strings.
        Err(_) => HttpResponse::InternalServerError().finish(),
    }
}

/// A text answer, of a schema that is a string.
pub fn text_response<T: Serialize>(status: u16, body: &T) -> HttpResponse {
    match serde_json::to_value(body) {
        Ok(serde_json::Value::String(text)) => {
            with_body(status, "text/plain; charset=utf-8", text.into_bytes())
        }
        // The generator refuses text/plain of anything but a string.
        _ => HttpResponse::InternalServerError().finish(),
    }
}

fn with_body(status: u16, content_type: &'static str, body: Vec<u8>) -> HttpResponse {
    let mut response = empty_response(status).set_body(Bytes::from(body)).map_into_boxed_body();
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

/// An answer with the authentication that the caller must send.
pub fn challenge(mut response: HttpResponse, challenge: &'static str) -> HttpResponse {
    response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static(challenge));
    response
}

/// The answer to a method that a path does not have.
pub fn method_not_allowed(allow: &'static str) -> HttpResponse {
    HttpResponse::MethodNotAllowed().insert_header((header::ALLOW, allow)).finish()
}

// ---- reading answers ----------------------------------------------------------------------------------------------

/// An answer that the contract does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer {status} to `{operation_id}` is not of the contract: {problem}")]
pub struct DecodeError {
    /// The operation.
    pub operation_id: &'static str,
    /// The status of the answer.
    pub status: u16,
    /// The violation.
    pub problem: DecodeProblem,
}

/// The way in which an answer violates the contract.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeProblem {
    /// The contract has no such status for the operation.
    #[error("the status is not declared")]
    Status,
    /// The content type is not the declared one.
    #[error("its content type is `{found}`, declared is {declared}")]
    ContentType {
        /// The declared one.
        declared: &'static str,
        /// The one that was sent; empty if there was none.
        found: String,
    },
    /// The body does not fit the schema.
    #[error("its body does not fit: {}{message}", .field.as_ref().map(|it| format!("`{it}`: ")).unwrap_or_default())]
    Body {
        /// Where, in dot format.
        field: Option<String>,
        /// The mismatch.
        message: String,
    },
}

/// Read an answer that has no body.
pub fn decode_empty(body: &[u8]) -> Result<(), DecodeProblem> {
    if body.is_empty() {
        return Ok(());
    }
    Err(DecodeProblem::Body { field: None, message: format!("{} bytes where none are declared", body.len()) })
}

/// Read a JSON answer.
pub fn decode_json<T: DeserializeOwned>(content_type: Option<&str>, body: &[u8]) -> Result<T, DecodeProblem> {
    if !content_type.is_some_and(is_json) {
        return Err(wrong_content_type("application/json", content_type));
    }
    json::read(body).map_err(|problem| DecodeProblem::Body { field: problem.field, message: problem.message })
}

/// Read a text answer.
pub fn decode_text<T: DeserializeOwned>(content_type: Option<&str>, body: &[u8]) -> Result<T, DecodeProblem> {
    if !content_type.is_some_and(|it| essence(it) == "text/plain") {
        return Err(wrong_content_type("text/plain", content_type));
    }
    let wrong = |message: String| DecodeProblem::Body { field: None, message };
    let text = std::str::from_utf8(body).map_err(|error| wrong(error.to_string()))?;
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
        .map_err(|error| wrong(error.to_string()))
}

/// Read an answer that may have either form.
pub fn decode_text_or_json<T: DeserializeOwned>(
    content_type: Option<&str>,
    body: &[u8],
) -> Result<(T, TextOrJson), DecodeProblem> {
    match content_type {
        Some(it) if is_json(it) => decode_json(content_type, body).map(|body| (body, TextOrJson::Json)),
        Some(it) if essence(it) == "text/plain" => {
            decode_text(content_type, body).map(|body| (body, TextOrJson::Text))
        }
        other => Err(wrong_content_type("text/plain or application/json", other)),
    }
}

fn wrong_content_type(declared: &'static str, found: Option<&str>) -> DecodeProblem {
    DecodeProblem::ContentType { declared, found: found.unwrap_or_default().to_owned() }
}
