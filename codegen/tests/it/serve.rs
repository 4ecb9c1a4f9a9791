//! The generated server and client over a real connection.

#![expect(clippy::disallowed_methods, reason = "`start` has installed what they would panic without")]

use std::time::Duration;

use actix_web::web::Data;
use actix_web::{App, HttpResponse, HttpServer, web};

use crate::golden::runtime::{Limits, Rejection, RejectionKind, RequestContext, TextOrJson};
use crate::golden::tasks::client::{Client, Error};
use crate::golden::tasks::{responses::*, server, types};
use crate::here::Implementor;
use crate::moved;

/// A server on a free port, at `/` and at `/base`, with a default service that reports that it was reached.
struct Server {
    url: String,
    implementor: Data<Implementor>,
    handle: actix_web::dev::ServerHandle,
}

fn start(limits: Limits) -> Server {
    // A client needs a cryptography provider, whether it encrypts or not; another test may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let implementor = Data::new(Implementor { limits, ..Default::default() });
    let shared = implementor.clone();
    let other = Data::new(moved::Implementor::default());
    let server = HttpServer::new(move || {
        App::new()
            .configure(|config| server::configure(config, "/", &shared))
            .configure(|config| server::configure(config, "/base/", &shared))
            .configure(|config| crate::golden::moved::server::configure(config, "", &other))
            .default_service(web::to(|| async { HttpResponse::NotFound().body("default") }))
    })
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
    async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> reqwest::Response {
        let request = reqwest::Client::new().post(format!("{}{path}", self.url)).body(body);
        request.header("content-type", "application/json").send().await.unwrap()
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

async fn decode(response: reqwest::Response) -> CreateTaskResponse {
    let status = response.status().as_u16();
    let content_type = response.headers().get("content-type").map(|value| value.to_str().unwrap().to_owned());
    CreateTaskResponse::decode(status, content_type.as_deref(), &response.bytes().await.unwrap()).unwrap()
}

const TASK: &str = r#"{"name":"a","owner":{"name":"o"}}"#;

fn task() -> types::CreateTaskRequest {
    serde_json::from_str(TASK).unwrap()
}

#[actix_web::test]
async fn the_client_speaks_to_the_server() {
    let server = start(Limits::default());
    for url in [server.url.clone(), format!("{}/base", server.url)] {
        let client = Client::new(&url);
        let created = client.create_task(&task()).await.unwrap().into_inner();
        assert_eq!(created, types::TaskOrToken::Token("token-a".to_owned().into()));
        let note = client.read_note("a b/c", "50%+\u{e9}?").await.unwrap().into_inner();
        assert_eq!(
            note.0, "a b/c|50%+\u{e9}?",
            "parameters come decoded, and once only; text comes as it is"
        );
        client.ping("there").await.unwrap();
        match client.read_note("x", "none").await {
            Err(Error::UnexpectedResponse(response)) => assert_eq!(response.status(), 404),
            other => panic!("{other:?}"),
        }
    }
}

#[actix_web::test]
async fn error_becomes_a_declared_response() {
    let server = start(Limits::default());
    for (name, status) in [("refused", 400), ("broken", 500)] {
        let answer =
            decode(server.post("/v1/tasks", TASK.replace(r#""a""#, &format!("{name:?}"))).await).await;
        assert_eq!(answer.status(), status, "{answer:?}");
    }
    let client = Client::new(&server.url);
    match client.list_tasks().await {
        Err(Error::ErrorResponse(error)) => {
            assert_eq!((error.status().as_u16(), error.message.as_str()), (500, "listTasks is broken"));
        }
        other => panic!("{other:?}"),
    }
    for (note, status) in [("1", 204), ("x", 400), ("0", 501)] {
        let url = format!("{}/v1/tasks/a/notes/{note}", server.url);
        assert_eq!(reqwest::Client::new().delete(url).send().await.unwrap().status(), status, "{note}");
    }
}

#[actix_web::test]
async fn the_accept_header_is_known_to_the_handler() {
    let server = start(Limits::default());
    let text = server.post("/v1/tasks", TASK).await;
    assert_eq!(text.headers().get("content-type").unwrap(), "text/plain; charset=utf-8");
    assert_eq!(text.text().await.unwrap(), "token-a");
    let request = reqwest::Client::new().post(format!("{}/v1/tasks", server.url)).body(TASK);
    let json = request
        .header("content-type", "application/json")
        .header("accept", "application/json")
        .send()
        .await
        .unwrap();
    assert_eq!(json.headers().get("content-type").unwrap(), "application/json");
    assert_eq!(json.text().await.unwrap(), "\"token-a\"");
}

#[actix_web::test]
async fn refuses_invalid_bodies_in_the_contracts_shape() {
    let server = start(Limits::default());
    use RejectionKind::*;
    let cases = [
        (r#"{"name":"a"}"#, Schema, Some("owner")),
        (r#"{"name":"a","owner":{}}"#, Schema, Some("owner.name")),
        (r#"{"name":"a","owner":{"name":"o","age":-1}}"#, Schema, Some("owner.age")),
        (
            r#"{"name":"a","owner":{"name":"o"},"watchers":[{"name":"w"},{"name":3}]}"#,
            Schema,
            Some("watchers[1].name"),
        ),
        (r#"{"name":"a","owner":{"name":"o"},"urgent":null}"#, Schema, Some("urgent")),
        (r#"[]"#, Schema, None),
        (r#"{"name":"#, Syntax, None),
        (r#"{"name":"a","owner":{"name":"o"}} x"#, Syntax, None),
        ("", Syntax, None),
    ];
    for (body, kind, field) in cases {
        let answer = decode(server.post("/v1/tasks", body).await).await;
        let CreateTaskResponse::BadRequest(problem) = answer else { panic!("{body}: {answer:?}") };
        let rejection = server.last_rejection();
        assert_eq!((rejection.kind, rejection.field.as_deref()), (kind, field), "{body}: {rejection}");
        assert_eq!(problem.problem, rejection.message);
        assert_eq!(rejection.remedy.is_some(), kind == Schema, "{body}: {rejection:?}");
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(decode(server.post("/v1/tasks", deep).await).await.status(), 400);
    assert_eq!(server.last_rejection().kind, Schema, "a list, seen at its first byte");
    let null_note = r#"{"name":"a","owner":{"name":"o"},"note":null,"unknown":1}"#;
    assert_eq!(decode(server.post("/v1/tasks", null_note).await).await.status(), 202, "nullable, and open");
}

#[actix_web::test]
async fn implementor_decides_responses_without_400() {
    let server = start(Limits::default());
    let response = server.post("/v1/tasks/check", "{}").await;
    assert_eq!(response.status(), 200);
    let verdict: types::CheckTaskOkBody = response.json().await.unwrap();
    assert!(!verdict.good);
    assert_eq!(verdict.reason.unwrap(), "`name`: is missing");
}

#[actix_web::test]
async fn a_body_that_is_not_declared_as_json_is_refused() {
    let server = start(Limits::default());
    let send = async |headers: &[(&str, &str)]| {
        let mut request = reqwest::Client::new().post(format!("{}/v1/tasks", server.url)).body(TASK);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(send(&[("content-type", "Application/JSON; charset=utf-8")]).await, 202);
    assert_eq!(send(&[("content-type", "application/merge-patch+json")]).await, 202);
    for headers in [
        &[][..],
        &[("content-type", "text/plain")],
        &[("content-type", "application/x-www-form-urlencoded")],
        &[("content-type", "")],
        &[("content-type", "application/json"), ("content-encoding", "gzip")],
    ] {
        assert_eq!(send(headers).await, 400, "{headers:?}");
        assert_eq!(server.last_rejection().kind, RejectionKind::ContentType);
    }
}

#[actix_web::test]
async fn oversized_body_is_refused_with_a_readable_response() {
    let limits = Limits { body_bytes: 100_000, parse_inline_bytes: 1_000, ..Limits::default() };
    let server = start(limits);
    let body = |size: usize| format!(r#"{{"name":"{}","owner":{{"name":"o"}}}}"#, "x".repeat(size));
    assert_eq!(decode(server.post("/v1/tasks", body(50_000)).await).await.status(), 202, "parsed elsewhere");
    for size in [100_000, 8_000_000] {
        assert_eq!(decode(server.post("/v1/tasks", body(size)).await).await.status(), 400);
        assert_eq!(server.last_rejection().kind, RejectionKind::TooLarge);
        assert_eq!(server.last_rejection().message, "the request body is larger than 100000 bytes");
    }
    let chunks = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 1000])).take_bytes(300);
    assert_eq!(
        decode(server.post("/v1/tasks", reqwest::Body::wrap_stream(chunks)).await).await.status(),
        400
    );
}

/// `StreamExt::take` under a name that says what it counts here.
trait TakeBytes: futures::Stream + Sized {
    fn take_bytes(self, chunks: usize) -> futures::stream::Take<Self> {
        futures::StreamExt::take(self, chunks)
    }
}
impl<S: futures::Stream> TakeBytes for S {}

#[actix_web::test]
async fn a_body_that_does_not_arrive_is_refused_in_time() {
    let server = start(Limits { read_timeout: Duration::from_millis(50), ..Limits::default() });
    let body = reqwest::Body::wrap_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    assert_eq!(decode(server.post("/v1/tasks", body).await).await.status(), 400);
    assert_eq!(server.last_rejection().kind, RejectionKind::TooSlow);
}

#[actix_web::test]
async fn a_long_value_does_not_come_back_whole() {
    let server = start(Limits::default());
    let body = format!(r#"{{"name":"a","owner":"{}"}}"#, "\u{e9}".repeat(10_000));
    server.post("/v1/tasks", body).await;
    let message = server.last_rejection().message;
    assert!(message.chars().count() < 300, "{message}");
    assert!(
        message.starts_with("expected an object, found the string `\u{e9}\u{e9}")
            && message.ends_with("...`"),
        "{message}"
    );
}

#[actix_web::test]
async fn wrong_method_is_405_with_allow() {
    let server = start(Limits::default());
    let client = reqwest::Client::new();
    let send = async |method: &str, path: &str| {
        let method = method.parse().unwrap();
        client.request(method, format!("{}{path}", server.url)).send().await.unwrap()
    };
    for (method, path, allow) in [
        ("PUT", "/v1/tasks", "GET, HEAD, POST"),
        ("PATCH", "/base/v1/tasks", "GET, HEAD, POST"),
        ("OPTIONS", "/v1/tasks/a/notes/b", "GET, HEAD, DELETE"),
        ("GET", "/v1/tasks/check", "POST"),
    ] {
        let response = send(method, path).await;
        assert_eq!(
            (response.status().as_u16(), response.headers().get("allow").unwrap().to_str().unwrap()),
            (405, allow)
        );
        assert_eq!(response.text().await.unwrap(), "");
    }
    for path in ["/", "/v1", "/v1/tasks/", "/other/v1/tasks", "/base", "/v1/tasks//notes/b"] {
        assert_eq!(send("GET", path).await.text().await.unwrap(), "default", "{path}");
    }
}

#[actix_web::test]
async fn head_answers_as_get_does_without_a_body() {
    let server = start(Limits::default());
    for path in ["/v1/tasks", "/base/v1/tasks", "/v1/tasks/a/notes/b"] {
        let url = format!("{}{path}", server.url);
        let get = reqwest::get(&url).await.unwrap();
        let head = reqwest::Client::new().head(&url).send().await.unwrap();
        assert_eq!(head.status(), get.status(), "{path}");
        assert_eq!(head.headers().get("content-type"), get.headers().get("content-type"), "{path}");
        assert_eq!(head.text().await.unwrap(), "", "{path}");
    }
}

#[actix_web::test]
async fn refuses_non_text_parameters_in_the_contracts_shape() {
    let server = start(Limits::default());
    for raw in ["%ff", "%zz"] {
        let response = reqwest::get(format!("{}/v1/tasks/a/notes/{raw}", server.url)).await.unwrap();
        assert_eq!(response.status(), 400, "{raw}");
        let problem: types::Problem = response.json().await.unwrap();
        assert_eq!(problem.where_.as_deref(), Some("noteId"));
    }
    let empty =
        reqwest::Client::new().delete(format!("{}/v1/tasks/a/notes/%ff", server.url)).send().await.unwrap();
    assert_eq!((empty.status().as_u16(), empty.text().await.unwrap().as_str()), (400, ""));
}

#[actix_web::test]
async fn the_same_implementor_serves_the_moved_paths() {
    let server = start(Limits::default());
    let client = crate::golden::moved::client::Client::new(&server.url);
    let note = client.read_note("a", "b").await.unwrap().into_inner();
    assert_eq!(note.0, "a|b");
    assert_eq!(crate::golden::moved::server::READ_NOTE.path, "/v2/jobs/{taskId}/{noteId}/text");
}

#[test]
fn the_operations_are_listed_with_their_statuses() {
    let statuses =
        server::OPERATIONS.iter().map(|it| (it.operation_id, it.method, it.statuses)).collect::<Vec<_>>();
    assert_eq!(
        statuses,
        [
            ("listTasks", "GET", &[200, 500][..]),
            ("createTask", "POST", &[201, 202, 400, 500]),
            ("readNote", "GET", &[200, 400, 404, 500]),
            ("deleteNote", "DELETE", &[204, 400, 501]),
            ("checkTask", "POST", &[200, 500]),
            ("ping", "GET", &[204, 404]),
        ]
    );
}

#[test]
fn accept_headers_are_understood() {
    let context = |accept: Option<&str>| {
        let request = actix_web::test::TestRequest::default();
        let request =
            accept.into_iter().fold(request, |request, value| request.insert_header(("accept", value)));
        RequestContext::new(server::PING, request.to_http_request())
    };
    let quality = |accept, media_type| context(accept).accept_quality(media_type);
    assert_eq!(quality(None, "text/plain"), 1.0);
    assert_eq!(quality(Some("application/json"), "text/plain"), 0.0);
    assert_eq!(quality(Some("*/*;q=0.1, text/*;q=0.5"), "text/plain"), 0.5);
    assert_eq!(quality(Some("text/plain;q=0, */*"), "text/plain"), 0.0);
    assert!(context(Some("text/html, Application/JSON;q=0.2")).accept_names("application/json"));
    assert!(!context(Some("*/*, application/json;q=0")).accept_names("application/json"));
    assert!(!context(None).accept_names("application/json"));
}

#[test]
fn accept_header_prefers_text_or_json() {
    use TextOrJson::*;
    let cases = [
        (None, Text),
        (Some(""), Text),
        (Some("*/*"), Text),
        (Some("text/plain"), Text),
        (Some("TEXT/PLAIN; charset=utf-8"), Text),
        (Some("text/*"), Text),
        (Some("application/json"), Json),
        (Some("Application/Json;q=0.1"), Json),
        (Some("application/*"), Json),
        (Some("application/json, text/plain"), Text),
        (Some("application/json, text/plain, */*"), Text),
        (Some("application/json;q=0.9, text/plain;q=0.8"), Json),
        (Some("application/json;q=0.8, text/plain;q=0.9"), Text),
        (Some("application/json; Q = 0.8, text/plain; q=0.1"), Json),
        (Some("application/json, */*"), Json),
        (Some("application/json, */*;q=0.8"), Json),
        (Some("application/json;q=0.5, */*"), Text),
        (Some("application/json;q=0.5, text/*;q=0.6"), Text),
        (Some("text/plain;q=0, */*"), Json),
        (Some("application/json;q=0, */*"), Text),
        (Some("text/*;q=0.1, */*;q=0.5"), Json),
        (Some("text/html, application/json;q=0.2"), Json),
        (Some("text/html"), Text),
        (Some("application/json;q=0"), Text),
        (Some("application/json;q=2, text/plain;q=nan"), Text),
    ];
    for (accept, expected) in cases {
        let mut request = actix_web::test::TestRequest::default();
        if let Some(accept) = accept {
            request = request.insert_header(("accept", accept));
        }
        let context = RequestContext::new(server::PING, request.to_http_request());
        assert_eq!(context.text_or_json(), expected, "Accept: {accept:?}");
    }
    // Several headers are one list.
    let request = actix_web::test::TestRequest::default();
    let request = request
        .append_header(("accept", "text/plain;q=0.2"))
        .append_header(("accept", "application/json;q=0.3"));
    assert_eq!(RequestContext::new(server::PING, request.to_http_request()).text_or_json(), Json);
}
