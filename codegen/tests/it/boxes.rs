//! The contract behind Basic authentication, over a real connection: authentication, and parameters.

#![expect(clippy::disallowed_methods, reason = "`start` has installed what they would panic without")]

use std::convert::Infallible;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use actix_web::web::Data;
use actix_web::{App, HttpServer};

use crate::golden::boxes::client::{Client, Error};
use crate::golden::boxes::{responses::*, server, types};
use crate::golden::runtime::{Denial, IntoResponse, Limits, Rejection, RejectionKind, RequestContext};

/// Accepts `good`, forbids `bad`, cannot decide about `slow`; records its refusals and the callers it checked.
#[derive(Default)]
struct Implementor {
    limits: Limits,
    rejections: Mutex<Vec<Rejection>>,
    asked: Mutex<Vec<&'static str>>,
}

/// Nothing fails here, so any response will do.
impl<R> IntoResponse<Implementor, R> for Infallible {
    fn into_response(self, _: &RequestContext) -> R {
        match self {}
    }
}

impl server::Boxes for Implementor {
    type Error = Infallible;

    fn limits(&self) -> Limits {
        self.limits
    }

    async fn authorize(&self, context: &RequestContext) -> Result<(), Denial> {
        self.asked.lock().unwrap().push(context.operation().operation_id);
        match context.headers().get("authorization").map(|value| value.to_str().unwrap()) {
            Some("good") => Ok(()),
            Some("bad") => Err(Denial::Forbidden("not you".into())),
            Some("slow") => Err(Denial::Unavailable("unknown".into())),
            _ => Err(Denial::Unauthorized("say who you are".into())),
        }
    }

    fn deny_with_problem(&self, _: &RequestContext, denial: &Denial) -> types::Problem {
        types::Problem { problem: denial.to_string(), where_: None }
    }

    fn deny_with_failed(&self, _: &RequestContext, denial: &Denial) -> types::Failed {
        types::Failed { message: denial.to_string() }
    }

    fn reject_with_problem(&self, _: &RequestContext, rejection: Rejection) -> types::Problem {
        self.rejections.lock().unwrap().push(rejection.clone());
        types::Problem { problem: rejection.message, where_: rejection.field }
    }

    async fn find_boxes(
        &self,
        _: &RequestContext,
        owner_name: String,
        label: Option<String>,
    ) -> Result<FindBoxesResponse, Infallible> {
        Ok(FindBoxesResponse::Ok(vec![a_box(&format!("{owner_name}|{label:?}"))].into()))
    }

    async fn read_box(
        &self,
        _: &RequestContext,
        room_code: String,
        box_id: String,
        view: Option<String>,
    ) -> Result<ReadBoxResponse, Infallible> {
        Ok(match box_id.as_str() {
            "404" => ReadBoxResponse::NotFound,
            "0" => ReadBoxResponse::Ok(types::Box { label: None, ..a_box("") }),
            _ => ReadBoxResponse::Ok(a_box(&format!("{room_code}|{box_id}|{view:?}"))),
        })
    }

    async fn replace_box(
        &self,
        _: &RequestContext,
        _: String,
        _: String,
        body: types::NewBox,
    ) -> Result<ReplaceBoxResponse, Infallible> {
        Ok(ReplaceBoxResponse::Ok(a_box(&body.label)))
    }
}

fn a_box(label: &str) -> types::Box {
    types::Box { id: 1, label: Some(label.to_owned()), tags: Vec::new(), note: None }
}

struct Server {
    url: String,
    implementor: Data<Implementor>,
    handle: actix_web::dev::ServerHandle,
}

fn start(limits: Limits) -> Server {
    let implementor = Data::new(Implementor { limits, ..Default::default() });
    let shared = implementor.clone();
    // A client needs a cryptography provider, whether it encrypts or not; another test may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = HttpServer::new(move || App::new().configure(|app| server::configure(app, "/", &shared)))
        .workers(1)
        .disable_signals()
        .bind(("127.0.0.1", 0))
        .unwrap();
    let url = format!("http://{}", server.addrs().first().unwrap());
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    Server { url, implementor, handle }
}

impl Server {
    fn request(&self, who: &str, method: &str, path: &str) -> reqwest::RequestBuilder {
        let request = reqwest::Client::new().request(method.parse().unwrap(), format!("{}{path}", self.url));
        if who.is_empty() { request } else { request.header("authorization", who) }
    }

    async fn get(&self, who: &str, path: &str) -> reqwest::Response {
        self.request(who, "GET", path).send().await.unwrap()
    }

    fn last_rejection(&self) -> Rejection {
        self.implementor.rejections.lock().unwrap().last().cloned().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
    }
}

const CHALLENGE: &str = r#"Basic realm="Boxes", charset="UTF-8""#;

#[actix_web::test]
async fn denied_caller_gets_the_contracts_error_shape() {
    let server = start(Limits::default());
    let cases = [
        ("", "/v1/boxes?ownerName=o", 401, r#"{"problem":"say who you are"}"#),
        ("bad", "/v1/boxes?ownerName=o", 403, ""),
        ("slow", "/v1/boxes?ownerName=o", 500, r#"{"message":"unknown"}"#),
        ("", "/v1/rooms/a/boxes/1", 401, ""),
        ("bad", "/v1/rooms/a/boxes/1", 403, ""),
    ];
    for (who, path, status, body) in cases {
        let response = server.get(who, path).await;
        assert_eq!(response.status(), status, "{who} {path}");
        let challenge = response.headers().get("www-authenticate").map(|value| value.to_str().unwrap());
        assert_eq!(challenge, (status == 401).then_some(CHALLENGE), "{who} {path}");
        assert_eq!(response.text().await.unwrap(), body, "{who} {path}");
    }
}

#[actix_web::test]
async fn the_caller_is_looked_at_before_the_request() {
    let server = start(Limits::default());
    for path in ["/v1/boxes", "/v1/boxes?ownerName=%zz", "/v1/rooms/%ff/boxes/x"] {
        assert_eq!(server.get("", path).await.status(), 401, "{path}");
        assert_eq!(server.get("good", path).await.status(), 400, "{path}");
    }
    let put = |body: &'static str| server.request("bad", "PUT", "/v1/rooms/a/boxes/1").body(body).send();
    assert_eq!(put("no JSON").await.unwrap().status(), 403);
    assert_eq!(*server.implementor.asked.lock().unwrap().last().unwrap(), "replaceBox");
    let asked = server.implementor.asked.lock().unwrap().len();
    assert_eq!(server.request("", "PATCH", "/v1/boxes").send().await.unwrap().status(), 405);
    assert_eq!(server.implementor.asked.lock().unwrap().len(), asked, "there is nothing to be let in to");
}

/// The body of a refused request is read all the same, so that the caller receives the answer.
#[actix_web::test]
async fn a_refused_sender_reads_the_answer() {
    let server = start(Limits { body_bytes: 1_000, ..Limits::default() });
    for (who, path, status) in [
        ("", "/v1/rooms/a/boxes/1", 401),
        ("bad", "/v1/rooms/a/boxes/1", 403),
        ("good", "/v1/rooms/a/boxes/x", 400),
    ] {
        let body = "x".repeat(8_000_000);
        let answer = server.request(who, "PUT", path).body(body).send().await;
        assert_eq!(answer.unwrap().status(), status, "{who} {path}");
    }
}

#[actix_web::test]
async fn a_refused_body_that_does_not_arrive_is_not_waited_for() {
    let server = start(Limits { read_timeout: Duration::from_millis(50), ..Limits::default() });
    let body = reqwest::Body::wrap_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let began = Instant::now();
    let answer = server.request("", "PUT", "/v1/rooms/a/boxes/1").body(body).send().await;
    assert_eq!(answer.unwrap().status(), 401);
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[actix_web::test]
async fn query_parameters_come_decoded_and_others_are_passed_over() {
    let server = start(Limits::default());
    let cases = [
        ("?ownerName=o", "o|None"),
        ("?ownerName=o&label=", "o|Some(\"\")"),
        ("?ownerName=o&label", "o|Some(\"\")"),
        ("?label=a+b%2B%26%3d%20c&ownerName=%C3%A9", "\u{e9}|Some(\"a b+&= c\")"),
        ("?ownerName=o&owner+name=x&ownername=y&%zz=z&&=&x=%ff", "o|None"),
        ("?%6fwnerName=a=b", "a=b|None"),
    ];
    for (query, expected) in cases {
        let response = server.get("good", &format!("/v1/boxes{query}")).await;
        assert_eq!(response.status(), 200, "{query}");
        let found: types::FindBoxesOkBody = response.json().await.unwrap();
        assert_eq!(found.0.first().unwrap().label.as_deref(), Some(expected), "{query}");
    }
}

#[actix_web::test]
async fn a_query_parameter_that_does_not_fit_is_refused_by_name() {
    let server = start(Limits::default());
    let cases = [
        ("", "ownerName", "is missing"),
        ("?label=x", "ownerName", "is missing"),
        ("?ownerName=a&ownerName=a", "ownerName", "is given more than once"),
        ("?ownerName=a&label=x&%6Cabel=y", "label", "is given more than once"),
        ("?ownerName=%ff", "ownerName", "is not percent-encoded UTF-8 text"),
        ("?ownerName=a&label=%4", "label", "is not percent-encoded UTF-8 text"),
    ];
    for (query, field, message) in cases {
        let response = server.get("good", &format!("/v1/boxes{query}")).await;
        assert_eq!(response.status(), 400, "{query}");
        let problem: types::Problem = response.json().await.unwrap();
        assert_eq!((problem.where_.as_deref(), problem.problem.as_str()), (Some(field), message), "{query}");
        assert_eq!(server.last_rejection().kind, RejectionKind::Parameter);
    }
}

#[actix_web::test]
async fn refused_path_parameter_names_value_and_pattern() {
    let server = start(Limits::default());
    for (raw, value) in [("x", "x"), ("1%202", "1 2"), ("-1", "-1"), ("%0A1", "\n1"), ("1%0A", "1\n")] {
        let response = server.get("good", &format!("/v1/rooms/a/boxes/{raw}")).await;
        assert_eq!(response.status(), 400, "{raw}");
        let rejection = server.last_rejection();
        assert_eq!(
            (rejection.kind, rejection.field.as_deref()),
            (RejectionKind::Parameter, Some("boxId")),
            "{raw}"
        );
        assert_eq!(rejection.message, format!("`{value}` does not match `^[0-9]+$`"));
    }
    server.get("good", &format!("/v1/rooms/a/boxes/{}", "x".repeat(5_000))).await;
    assert!(server.last_rejection().message.len() < 400, "{}", server.last_rejection());
}

/// Several parameters of a path arrive in its order, whatever the order of their declarations.
#[actix_web::test]
async fn the_client_speaks_to_the_server() {
    let server = start(Limits::default());
    let headers = [("authorization".parse().unwrap(), "good".parse().unwrap())].into_iter().collect();
    let http = reqwest::Client::builder().default_headers(headers).build().unwrap();
    let client = Client::new_with_client(&server.url, http);

    let read = client.read_box("room/1 +", "12", Some("a b+&")).await.unwrap().into_inner();
    assert_eq!(read.label.unwrap(), "room/1 +|12|Some(\"a b+&\")");
    let found = client.find_boxes(None, "o n").await.unwrap().into_inner();
    assert_eq!(found.0.first().unwrap().label.as_deref(), Some("o n|None"));
    match client.read_box("a", "404", None).await {
        Err(Error::UnexpectedResponse(response)) => assert_eq!(response.status(), 404, "it has no body"),
        other => panic!("{other:?}"),
    }
    match client.read_box("a", "x", None).await {
        Err(Error::ErrorResponse(error)) => assert_eq!(error.status(), 400),
        other => panic!("{other:?}"),
    }
}

/// Required and nullable: null is written, and a missing field violates the contract. Only nullable: the field is
/// left out.
#[actix_web::test]
async fn writes_required_fields_also_when_null() {
    let server = start(Limits::default());
    let response = server.get("good", "/v1/rooms/a/boxes/0").await;
    assert_eq!(response.text().await.unwrap(), r#"{"id":1,"label":null,"tags":[]}"#);
    let decode = |text: &str| ReadBoxResponse::decode(200, Some("application/json"), text.as_bytes());
    assert!(decode(r#"{"id":1,"label":null,"tags":[]}"#).is_ok());
    assert!(decode(r#"{"id":1,"tags":[]}"#).is_err());
    let body = |text: &str| serde_json::from_str::<types::NewBox>(text);
    let nulls = body(r#"{"label":"a","tags":null,"sealed":null,"id":null}"#).unwrap();
    assert_eq!(nulls, body(r#"{"label":"a"}"#).unwrap());
    assert!(body(r#"{"label":null}"#).is_err());
}

#[test]
fn an_answer_without_a_body_is_read_back() {
    assert_eq!(ReadBoxResponse::decode(401, None, b""), Ok(ReadBoxResponse::Unauthorized));
    assert_eq!(ReadBoxResponse::decode(403, None, b""), Ok(ReadBoxResponse::Forbidden));
    assert!(ReadBoxResponse::decode(403, Some("application/json"), b"{}").is_err());
}
