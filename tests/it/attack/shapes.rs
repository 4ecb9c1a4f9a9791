//! Malformed and unusual HTTP requests. The server answers each as the contract says, or closes the connection
//! if the bytes are not HTTP. The server accepts no invalid request, and then still serves a good request.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use landfall::generated::airbyte::server::OPERATIONS as AIRBYTE_OPERATIONS;
use landfall::generated::flexdeploy::server::OPERATIONS as TOPOLOGY;
use landfall::generated::operator::server::OPERATIONS as OPERATOR;
use landfall::generated::runtime::Operation;
use landfall::generated::tech_adapter::server::OPERATIONS as TECH_ADAPTER;
use serde_json::{Value, json};

use super::raw::{End, Exchange, RawAnswer, exchange, request};
use super::{CANARY, Group, check_log, mock_request, with_canary};
use crate::auth::cheap_hash;
use crate::campaign::plan::Rng;
use crate::contract;
use crate::harness::{
    AIRBYTE, Answer, INSTANCES, Landfall, PREFIX, StoreAt, WORKLOAD, cashflow, component_request,
};

const UNKNOWN: &str = "3da5d0a2-9f3b-4a11-85a3-b5ddb73da032";
const TOKEN: &str = "right-canary-7f31";
/// The time limit for an answer to a malformed request, on a busy machine.
const SOON: Duration = Duration::from_secs(8);
/// The time limit for the good request after each malformed one.
const GOOD: Duration = Duration::from_secs(2);

/// The expected answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    /// 4xx in a shape of the contract, or `valid: false` of a validation.
    Refused,
    /// Like `Refused`, or a closed connection without an answer: the request is not HTTP, or is not trustworthy.
    Broken,
    /// 401.
    Unauthorized,
    /// 2xx.
    Served,
    /// A status below 500, or 501, in a form that the contract declares.
    Declared,
}

struct Case {
    name: String,
    method: String,
    path: String,
    bytes: Vec<u8>,
    want: Want,
    /// The number of expected answers.
    answers: usize,
    /// Whether the case is one of many similar cases. The quick version skips most of these.
    common: bool,
    /// Whether the server may stay silent, because the request is incomplete.
    endless: bool,
}

/// Collects cases for one server.
struct Cases {
    address: SocketAddr,
    all: Vec<Case>,
}

impl Cases {
    fn bytes(&mut self, name: &str, method: &str, path: &str, want: Want, bytes: Vec<u8>) -> &mut Case {
        self.all.push(Case {
            name: name.to_owned(),
            method: method.to_owned(),
            path: path.to_owned(),
            bytes,
            want,
            answers: 1,
            common: false,
            endless: false,
        });
        self.all.last_mut().expect("just pushed")
    }

    fn add(
        &mut self,
        name: &str,
        (method, path): (&str, &str),
        headers: &[(&str, &str)],
        body: &[u8],
        want: Want,
    ) -> &mut Case {
        let bytes = request(self.address, method, path, headers, body);
        self.bytes(name, method, path, want, bytes)
    }
}

const JSON: (&str, &str) = ("Content-Type", "application/json");
const PROVISION: (&str, &str) = ("POST", "/v1/provision");

/// The body of a valid request. A case that has this body and must be refused has another fault.
fn good() -> Vec<u8> {
    component_request(&with_canary(&cashflow()), WORKLOAD).to_string().into_bytes()
}

fn operations() -> impl Iterator<Item = (&'static Operation, String)> {
    [TECH_ADAPTER, AIRBYTE_OPERATIONS, OPERATOR, TOPOLOGY].into_iter().flatten().map(|operation| {
        let path = operation.path.replace("{token}", UNKNOWN).replace("{version}", "0.0.1");
        (operation, path.replace("{Id}", "1"))
    })
}

pub(super) async fn attack(group: &mut Group) {
    let server = Landfall::with().alone().start();
    let mut cases = Cases { address: address(&server), all: Vec::new() };
    methods_and_paths(&mut cases);
    paths(&mut cases);
    unknown_tokens(&mut cases);
    content_types(&mut cases);
    web_pages(&mut cases);
    hosts(&mut cases);
    lengths(&mut cases);
    chunks(&mut cases);
    heads(&mut cases);
    not_http(&mut cases);
    documents(&mut cases);
    fields(&mut cases);
    connections(&mut cases);
    send_all(group, &server, cases, None).await;
    server.api().provision_and_wait(&mock_request("after")).await;
    expect_tasks(group, &server, 1).await;
    check_log(group, &server.log());
}

pub(super) async fn attack_with_tokens(group: &mut Group) {
    let config = "[auth]\nmax_failures = 100000\n[[auth.tokens]]\nname = \"control-plane\"\nhash = { env = \"HASH\" }\n\
                  [[auth.users]]\nname = \"ops\"\nrole = \"write\"\npassword_hash = { env = \"HASH\" }\n";
    let server = Landfall::with().alone().config(config).env("HASH", &cheap_hash(TOKEN)).start();
    let mut cases = Cases { address: address(&server), all: Vec::new() };
    wrong_tokens(&mut cases);
    send_all(group, &server, cases, Some(TOKEN)).await;
    expect_tasks(group, &server, 0).await;
    check_log(group, &server.log());
}

fn address(server: &Landfall) -> SocketAddr {
    server.api().url().trim_start_matches("http://").parse().expect("an address")
}

/// Sends the cases, one after the other, and a good request after each. Records every wrong answer as a fault.
/// The quick version skips most of the `common` cases, and sends fewer good requests.
async fn send_all(group: &mut Group, server: &Landfall, cases: Cases, token: Option<&str>) {
    let mut rng = Rng::new(group.scale.seed);
    let (mut tried, mut slowest, mut slowest_good) = (0, Duration::ZERO, Duration::ZERO);
    for case in cases.all {
        if case.common && !group.scale.full && !rng.chance(15) {
            continue;
        }
        tried += 1;
        let head = case.method == "HEAD";
        let timeout = if case.endless { SOON / 16 } else { SOON };
        let came = exchange(cases.address, &case.bytes, case.answers, head, timeout).await;
        slowest = slowest.max(came.took);
        if let Err(what) = judge(&case, &came) {
            group.fault(format!("{}: {what}", case.name));
        }
        // The quick version sends a good request after every fourth case only.
        if !group.scale.full && tried % 4 != 0 {
            continue;
        }
        match good_request(cases.address, token).await {
            Ok(took) => slowest_good = slowest_good.max(took),
            Err(what) => group.fault(format!("a good request after `{}`: {what}", case.name)),
        }
    }
    group.tried(tried, "requests");
    let (slowest, good) = (slowest.as_millis(), slowest_good.as_millis());
    group.measured(format!("slowest answer {slowest} ms, slowest good request {good} ms"));
    let alive = server.api().send("GET", "/landfall/v1/live", |request| request).await;
    group.expect(alive.status == 200, || format!("the liveness probe failed: {alive:?}"));
}

/// Validates a complete descriptor on a new connection. Returns the duration of the request.
async fn good_request(address: SocketAddr, token: Option<&str>) -> Result<Duration, String> {
    let body = component_request(&cashflow(), WORKLOAD).to_string();
    let authorization = token.map(|token| format!("Bearer {token}"));
    let mut headers = vec![JSON];
    headers.extend(authorization.as_ref().map(|value| ("Authorization", value.as_str())));
    let bytes = request(address, "POST", "/v1/validate", &headers, body.as_bytes());
    let begun = Instant::now();
    let came = exchange(address, &bytes, 1, false, GOOD).await;
    let took = begun.elapsed();
    match came.answers.as_slice() {
        [answer] if answer.status == 200 && answer.text() == r#"{"valid":true}"# => Ok(took),
        _ => Err(format!("{came:?}")),
    }
}

fn judge(case: &Case, came: &Exchange) -> Result<(), String> {
    if came.answers.is_empty() {
        return match (case.want, came.end) {
            (Want::Broken, End::Closed) => Ok(()),
            (Want::Broken, End::Silent) if case.endless => Ok(()),
            _ => Err(format!("no answer: {:?} after {:?}", came.end, came.took)),
        };
    }
    if came.answers.len() < case.answers && came.end != End::Closed {
        return Err(format!("{} answers of {}", came.answers.len(), case.answers));
    }
    came.answers.iter().try_for_each(|answer| judge_one(case, answer))
}

fn judge_one(case: &Case, answer: &RawAnswer) -> Result<(), String> {
    let told = || format!("{} {}", answer.status, answer.text().chars().take(300).collect::<String>());
    let status = answer.status;
    if status >= 500 && !(case.want == Want::Declared && status == 501) {
        return Err(format!("answered {}", told()));
    }
    let text = answer.text();
    let valid_false =
        || status == 200 && text.starts_with(r#"{"error":"#) && text.contains(r#""valid":false"#);
    let fits = match case.want {
        Want::Refused | Want::Broken => (400..500).contains(&status) || valid_false(),
        Want::Unauthorized => status == 401,
        Want::Served => (200..300).contains(&status),
        Want::Declared => true,
    };
    if !fits {
        return Err(format!("{:?} was wanted, and it answered {}", case.want, told()));
    }
    // The HTTP layer gives some answers itself: unauthenticated, unknown path or method, not HTTP.
    let content_type = answer.header("content-type").unwrap_or_default().to_owned();
    let path = case.path.split('?').next().unwrap_or_default();
    let whole = Answer { status, content_type: content_type.clone(), text: text.clone() };
    let has_message = || {
        let body = serde_json::from_str::<Value>(&text).unwrap_or_default();
        let words = body["error"].is_string() || body["errors"].is_array() || body["message"].is_string();
        content_type.starts_with("application/json") && words
    };
    let is_framework_answer = match status {
        405 => text.is_empty() && answer.header("allow").is_some(),
        400 | 408 | 413 | 414 | 431 if case.want == Want::Broken => text.is_empty() || has_message(),
        401 | 403 | 404 | 408 | 413 | 415 | 417 | 421 | 431 => has_message(),
        _ => false,
    };
    if case.method == "HEAD" || is_framework_answer {
        return Ok(());
    }
    if (400..500).contains(&status) && !has_message() {
        return Err(format!("answered without words: {}", told()));
    }
    contract::verdict(&case.method, path, &whole).map(drop)
}

async fn expect_tasks(group: &mut Group, server: &Landfall, wanted: usize) {
    server.settle().await;
    let store = StoreAt::Sqlite(server.data_dir().join("landfall.db"));
    let tasks = store.query("SELECT id, operation FROM task").await;
    group.expect(tasks.len() == wanted, || format!("{wanted} tasks were wanted, there are {tasks:?}"));
    let changed = store.query("SELECT code_key FROM instance WHERE code_key LIKE '%canary%'").await;
    group.expect(changed.is_empty(), || format!("the topology was changed: {changed:?}"));
}

// ---- the shapes -----------------------------------------------------------------------------------------------------

fn methods_and_paths(cases: &mut Cases) {
    let methods =
        ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get", "POSTED"];
    let mut paths: Vec<String> = operations().map(|(_, path)| path).collect();
    paths.sort();
    paths.dedup();
    for path in &paths {
        for method in methods {
            let known = operations().find(|(operation, its)| its == path && operation.method == method);
            let probe = path.starts_with("/landfall/v1/live") || path.starts_with("/landfall/v1/health");
            let gets = operations().any(|(operation, its)| its == *path && operation.method == "GET");
            let want = match known {
                _ if probe && method == "HEAD" => Want::Served,
                _ if gets && method == "HEAD" => Want::Declared,
                Some((operation, _)) if operation.method == "GET" => Want::Declared,
                _ => Want::Refused,
            };
            let case = cases.add(&format!("{method} {path} without a body"), (method, path), &[], b"", want);
            case.common = !(probe && method == "HEAD");
        }
    }
    // The body of a CONNECT request has no end. The server discards bytes for a while before it answers.
    cases.add("CONNECT", ("CONNECT", "example.org:443"), &[], b"", Want::Broken).endless = true;
    cases.add("OPTIONS *", ("OPTIONS", "*"), &[], b"", Want::Broken);
    cases.add("PRI *", ("PRI", "*"), &[], b"", Want::Broken);
    cases.add("a long method", (&"M".repeat(10_000), "/v1/provision"), &[], b"", Want::Broken);
    cases.add("a method with a bracket", ("P(ST", "/v1/provision"), &[JSON], &good(), Want::Broken);
    cases.add(
        "a preflight",
        ("OPTIONS", "/v1/provision"),
        &[("Origin", "http://evil.example"), ("Access-Control-Request-Method", "POST")],
        b"",
        Want::Refused,
    );
}

fn paths(cases: &mut Cases) {
    let body = good();
    for path in [
        "/v1/provision/",
        "//v1/provision",
        "/v1//provision",
        "/v1/./provision/../provisio",
        "/V1/PROVISION",
        "/v1%2Fprovision",
        "/v1/provision%2F",
        "/v1/provision%00",
        "/v1/provision;a=b",
        "/v1/provision/x",
        "/%2e%2e/v1/provision",
        "/../v1/provision",
        "/v1/provision%20",
        "/v1/provision.json",
        "/v1/provision%3Fa=b",
        "/v1\\provision",
        "/v1/provision%23",
        "/v1/provisio\u{f1}",
        "/v1/pr%6Fvisions",
    ] {
        let want = if path.is_ascii() { Want::Refused } else { Want::Broken };
        cases.add(&format!("the path {path}"), ("POST", path), &[JSON], &body, want);
    }
    let doubled = format!("{PREFIX}{PREFIX}/v1/provision");
    cases.add("a base path twice", ("POST", &doubled), &[JSON], &body, Want::Refused);
    cases.add("a path of 60 kB", ("POST", &format!("/{}", "p".repeat(60_000))), &[JSON], &body, Want::Broken);
    cases.add("a path of 4 kB", ("POST", &format!("/{}", "p/".repeat(2000))), &[JSON], &body, Want::Refused);
    cases.add(
        "a query of 20 kB",
        ("GET", &format!("{INSTANCES}?q={}", "q".repeat(20_000))),
        &[],
        b"",
        Want::Declared,
    );
    for query in [
        "groupCode=%ff",
        "groupCode=%",
        "groupCode=%zz",
        "groupCode=a&groupCode=b",
        "groupCode=%00",
        "&&&&",
        "=",
        "?",
        "groupCode",
        "groupCode=%2527",
        "groupCode[]=a",
        "isActive=maybe",
    ] {
        cases.add(
            &format!("the query {query}"),
            ("GET", &format!("{INSTANCES}?{query}")),
            &[],
            b"",
            Want::Declared,
        );
    }
    for id in [
        "0",
        "-1",
        "1.5",
        "x",
        "9223372036854775807",
        "9223372036854775808",
        "99999999999999999999999",
        "%00",
        "%2e%2e",
        "1%2F2",
        "+1",
        "١",
        "0x1",
        "",
        "null",
    ] {
        let want = if id.is_ascii() { Want::Refused } else { Want::Broken };
        cases.add(
            &format!("the instance `{id}`"),
            ("GET", &format!("{INSTANCES}/{id}")),
            &[],
            b"",
            if id.is_empty() { Want::Declared } else { want },
        );
        cases.add(
            &format!("a change of the instance `{id}`"),
            ("PATCH", &format!("{INSTANCES}/{id}")),
            &[JSON],
            br#"{"instanceCode":"canary-7f31"}"#,
            want,
        );
    }
}

fn unknown_tokens(cases: &mut Cases) {
    let long = "a".repeat(5000);
    let tokens = [
        UNKNOWN,
        "3DA5D0A2-9F3B-4A11-85A3-B5DDB73DA032",
        "3da5d0a29f3b4a1185a3b5ddb73da032",
        "%7B3da5d0a2-9f3b-4a11-85a3-b5ddb73da032%7D",
        "urn:uuid:3da5d0a2-9f3b-4a11-85a3-b5ddb73da032",
        "%203da5d0a2-9f3b-4a11-85a3-b5ddb73da032",
        "3da5d0a2-9f3b-4a11-85a3-b5ddb73da032%0A",
        "%223da5d0a2-9f3b-4a11-85a3-b5ddb73da032%22",
        "00000000-0000-0000-0000-000000000000",
        "x",
        "%25",
        "%2525",
        "%2F",
        "a%2Fb",
        "..%2F..%2Fetc",
        "%2e%2e",
        ".",
        "%00",
        "%ff",
        "%zz",
        "%",
        "'%20OR%20'1'='1",
        "%3Cscript%3E",
        "null",
        "undefined",
        "-",
        "*",
        "%E2%80%AE",
        "%F0%9F%92%A9",
        &long,
    ];
    for token in tokens {
        for (method, path) in [
            ("GET", format!("/v1/provision/{token}/status")),
            ("GET", format!("/v2/validate/{token}/status")),
            ("GET", format!("/v1/reverse-provisioning/{token}/status")),
            ("POST", format!("/v1/provision/{token}/stop")),
            ("GET", format!("{AIRBYTE}/provision/{token}/status")),
        ] {
            let short: String = token.chars().take(60).collect();
            let case = cases.add(
                &format!("{method} {path:.40} of `{short}`"),
                (method, &path),
                &[],
                b"",
                Want::Refused,
            );
            case.common = true;
        }
    }
}

/// Content types, encodings and Accept headers. Only JSON is accepted: a web page may send other types, such as
/// `text/plain`, without a preflight.
fn content_types(cases: &mut Cases) {
    let body = good();
    let posts = ["/v1/provision", "/v1/unprovision", "/v2/validate", "/v1/validate"];
    for content_type in [
        "",
        "text/plain",
        "text/plain;charset=UTF-8",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/json",
        "application/jsonx",
        "application/javascript",
        "application/xml",
        "*/*",
        "json",
        "application/",
        "/json",
        "text/plain; application/json",
        "text/plain, application/json",
        "application/octet-stream",
        "text/html+json",
    ] {
        for path in posts {
            let name = format!("the type `{content_type}` at {path}");
            cases.add(&name, ("POST", path), &[("Content-Type", content_type)], &body, Want::Refused);
        }
    }
    let acl = json!({ "refs": ["user:a_b.c"], "provisionInfo": { "request": cashflow(), "result": "" } })
        .to_string();
    let import =
        json!({ "useCaseTemplateId": "urn:dmb:utm:output-port-template:1.0.0", "environment": "production",
                         "params": { "namespace": "n", "table": "t" } })
        .to_string();
    let instance = json!({ "instanceName": CANARY, "instanceCode": CANARY }).to_string();
    let plan = json!({ "descriptorKind": "DATAPRODUCT_DESCRIPTOR", "descriptor": cashflow() }).to_string();
    let (airbyte, instance_1) = (format!("{AIRBYTE}/provision"), format!("{INSTANCES}/1"));
    for ((method, path), body) in [
        (("POST", "/v1/updateacl"), acl.as_bytes()),
        (("POST", "/v1/reverse-provisioning"), import.as_bytes()),
        (("POST", "/landfall/v1/plan"), plan.as_bytes()),
        (("POST", "/landfall/v1/explain"), plan.as_bytes()),
        (("POST", airbyte.as_str()), body.as_slice()),
        (("POST", INSTANCES), instance.as_bytes()),
        (("PUT", instance_1.as_str()), instance.as_bytes()),
        (("PATCH", instance_1.as_str()), instance.as_bytes()),
    ] {
        cases.add(&format!("no type at {method} {path}"), (method, path), &[], body, Want::Refused);
        let text = [("Content-Type", "text/plain")];
        cases.add(&format!("text/plain at {method} {path}"), (method, path), &text, body, Want::Refused);
    }
    for path in posts {
        cases.add(&format!("no type at {path}"), ("POST", path), &[], &body, Want::Refused);
        let two = [JSON, ("Content-Type", "text/plain")];
        cases.add(&format!("two types at {path}"), ("POST", path), &two, b"{}", Want::Refused);
    }
    let valid = ("POST", "/v1/validate");
    for fine in [
        "application/json",
        "APPLICATION/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
    ] {
        cases.add(&format!("the type `{fine}`"), valid, &[("Content-Type", fine)], &body, Want::Served);
    }
    for encoding in ["gzip", "deflate", "br", "zstd", "x-gzip", "gzip, gzip", "nonsense", "identity, gzip"] {
        let headers = [JSON, ("Content-Encoding", encoding)];
        cases.add(&format!("the encoding `{encoding}`"), PROVISION, &headers, &body, Want::Refused);
    }
    for accept in ["text/html", "image/png", "*/*;q=0", "nonsense", "application/json;q=2", ""] {
        let path = ("GET", "/v1/provision/x/status");
        cases.add(&format!("Accept `{accept}`"), path, &[("Accept", accept)], b"", Want::Refused);
    }
}

/// The headers by which a browser describes the web page that sends a request.
fn web_pages(cases: &mut Cases) {
    let body = good();
    let own = format!("http://{}", cases.address);
    let stop = format!("/v1/provision/{UNKNOWN}/stop");
    let foreign: &[&[(&str, &str)]] = &[
        &[("Origin", "http://evil.example")],
        &[("Origin", "https://evil.example:8093")],
        &[("Origin", "null")],
        &[("Origin", "http://127.0.0.1.evil.example")],
        &[("Origin", "http://localhost.evil.example")],
        &[("Origin", "http://evil.example#127.0.0.1")],
        &[("Origin", "file://")],
        &[("Origin", "nonsense")],
        &[("Origin", "http://127.0.0.1:1")],
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "same-site")],
        &[("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors")],
        &[("Origin", "http://evil.example"), ("Sec-Fetch-Site", "same-origin")],
    ];
    for headers in foreign {
        let all: Vec<(&str, &str)> = [JSON].iter().chain(headers.iter()).copied().collect();
        for (method, path) in [
            PROVISION,
            ("POST", "/v1/unprovision"),
            ("POST", "/v2/validate"),
            ("POST", "/landfall/v1/plan"),
            ("POST", stop.as_str()),
        ] {
            cases.add(&format!("{headers:?} at {path}"), (method, path), &all, &body, Want::Refused);
        }
        let instance = json!({ "instanceName": CANARY, "instanceCode": CANARY }).to_string();
        cases.add(
            &format!("{headers:?} at {INSTANCES}"),
            ("POST", INSTANCES),
            &all,
            instance.as_bytes(),
            Want::Refused,
        );
    }
    for (name, value) in
        [("Origin", own.as_str()), ("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "none")]
    {
        let headers = [JSON, (name, value)];
        cases.add(&format!("{name}: {value}"), ("POST", "/v1/validate"), &headers, &body, Want::Served);
    }
}

/// A Host header with a foreign name is refused, because the name may resolve to this machine (DNS rebinding).
fn hosts(cases: &mut Cases) {
    let body = good();
    let port = cases.address.port();
    let ported = format!("evil.example:{port}");
    for host in [
        "evil.example",
        ported.as_str(),
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "127.0.0.1@evil.example",
        "evil.example#127.0.0.1",
        "0.0.0.0",
        "192.0.2.1",
        "[2001:db8::1]",
    ] {
        let headers = [("Host", host), JSON];
        cases.add(&format!("Host {host}"), PROVISION, &headers, &body, Want::Refused);
        cases.add(
            &format!("Host {host} for a status"),
            ("GET", "/v1/provision/x/status"),
            &headers[..1],
            b"",
            Want::Refused,
        );
    }
    let (localhost, six) = (format!("localhost:{port}"), format!("[::1]:{port}"));
    for host in
        ["localhost", "LOCALHOST", "127.0.0.1", "127.0.0.2", "[::1]", localhost.as_str(), six.as_str()]
    {
        cases.add(
            &format!("Host {host}"),
            ("POST", "/v1/validate"),
            &[("Host", host), JSON],
            &body,
            Want::Served,
        );
    }
    let length = body.len();
    let mut head = |name: &str, lines: &str, want| {
        let text = format!("{lines}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
        cases.bytes(name, "POST", "/v1/provision", want, [text.as_bytes(), &body].concat());
    };
    head("no Host", "POST /v1/provision HTTP/1.1\r\n", Want::Broken);
    head("an empty Host", "POST /v1/provision HTTP/1.1\r\nHost:\r\n", Want::Broken);
    head(
        "two Hosts",
        "POST /v1/provision HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n",
        Want::Broken,
    );
    head(
        "two Hosts, the first foreign",
        "POST /v1/provision HTTP/1.1\r\nHost: evil.example\r\nHost: 127.0.0.1\r\n",
        Want::Broken,
    );
    head(
        "a foreign target with our Host",
        "POST http://evil.example/v1/provision HTTP/1.1\r\nHost: 127.0.0.1\r\n",
        Want::Broken,
    );
    head(
        "our target with a foreign Host",
        "POST http://127.0.0.1/v1/provision HTTP/1.1\r\nHost: evil.example\r\n",
        Want::Broken,
    );
}

fn lengths(cases: &mut Cases) {
    let body = good();
    let length = body.len();
    for value in [
        "-1",
        "+5",
        "0x10",
        "1e3",
        "5, 5",
        "5,6",
        "5 5",
        "",
        "five",
        "99999999999999999999999",
        "18446744073709551616",
        "1.0",
        "\u{a0}5",
    ] {
        let headers = [JSON, ("Content-Length", value)];
        cases.add(&format!("the length `{value}`"), PROVISION, &headers, &body, Want::Broken);
    }
    let (exact, less) = (length.to_string(), (length - 1).to_string());
    let two = [JSON, ("Content-Length", exact.as_str()), ("Content-Length", less.as_str())];
    cases.add("two lengths", PROVISION, &two, &body, Want::Broken);
    cases.add(
        "a length that is too short",
        PROVISION,
        &[JSON, ("Content-Length", &less)],
        &body,
        Want::Refused,
    );
    cases.add("a length of zero", PROVISION, &[JSON, ("Content-Length", "0")], &body, Want::Refused);
    let both = [JSON, ("Content-Length", "5"), ("Transfer-Encoding", "chunked")];
    cases.add("a length and chunks", PROVISION, &both, b"5\r\n{\"a\":\r\n2\r\n1}\r\n0\r\n\r\n", Want::Broken);
    for encoding in [
        "identity",
        "gzip",
        "chunked, gzip",
        "gzip, chunked",
        "chunked, chunked",
        "xchunked",
        "chunkedx",
        "\u{b}chunked",
        "CHUNKED ",
        "chunked;q=1",
        ", chunked",
    ] {
        let headers = [JSON, ("Transfer-Encoding", encoding)];
        cases.add(
            &format!("the transfer encoding `{encoding}`"),
            PROVISION,
            &headers,
            b"2\r\n{}\r\n0\r\n\r\n",
            Want::Broken,
        );
    }
    let huge = vec![b' '; 9_000_000];
    cases.add("9 MB of blanks", PROVISION, &[JSON], &huge, Want::Refused);
    cases.add("9 MB at a path that is not there", ("POST", "/nowhere"), &[JSON], &huge, Want::Broken);
    cases.add("a body on GET", ("GET", "/v1/provision/x/status"), &[JSON], &body, Want::Refused);
    cases.add("9 MB on GET", ("GET", "/landfall/v1/live"), &[JSON], &huge, Want::Declared);
}

fn chunks(cases: &mut Cases) {
    let chunked = [JSON, ("Transfer-Encoding", "chunked")];
    let body = good();
    let whole = [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n"].concat();
    let valid = ("POST", "/v1/validate");
    cases.add("chunks", valid, &chunked, &[whole.as_slice(), b"0\r\n\r\n"].concat(), Want::Served);
    let bytes: Vec<u8> =
        body.iter().flat_map(|byte| [b"1\r\n".as_slice(), &[*byte], b"\r\n"].concat()).collect();
    cases.add("chunks of a byte", valid, &chunked, &[bytes.as_slice(), b"0\r\n\r\n"].concat(), Want::Served);
    cases.add(
        "a trailer",
        valid,
        &chunked,
        &[whole.as_slice(), b"0\r\nX-Trailer: a\r\n\r\n"].concat(),
        Want::Declared,
    );
    let tricks: &[(&str, &[u8])] = &[
        ("a size beyond 64 bits", b"fffffffffffffffff\r\n{}"),
        ("the largest size", b"ffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
        ("a negative size", b"-1\r\n{}\r\n0\r\n\r\n"),
        ("a size with 0x", b"0x2\r\n{}\r\n0\r\n\r\n"),
        ("no size", b"\r\n{}\r\n0\r\n\r\n"),
        ("letters for a size", b"zz\r\n{}\r\n0\r\n\r\n"),
        ("no end of a chunk", b"2\r\n{}0\r\n\r\n"),
        ("bare line feeds", b"2\n{}\n0\n\n"),
        ("a carriage return in the size", b"2\r\r\n{}\r\n0\r\n\r\n"),
        ("a NUL in the size", b"2\0\r\n{}\r\n0\r\n\r\n"),
        ("blanks before the size", b"   2\r\n{}\r\n0\r\n\r\n"),
        ("an endless size", &[b'0'; 20_000]),
    ];
    for (name, bytes) in tricks {
        let endless = ["the largest size", "an endless size", "a size beyond 64 bits"].contains(name);
        cases.add(&format!("chunks: {name}"), PROVISION, &chunked, bytes, Want::Broken).endless = endless;
    }
    let extension = [b"2;x=".as_slice(), &[b'e'; 100_000], b"\r\n{}\r\n0\r\n\r\n"].concat();
    cases.add("chunks: an extension of 100 kB", PROVISION, &chunked, &extension, Want::Broken);
    let trailer = [b"2\r\n{}\r\n0\r\n".as_slice(), &b"A: b\r\n".repeat(20_000), b"\r\n"].concat();
    cases.add("chunks: 20,000 trailers", PROVISION, &chunked, &trailer, Want::Broken);
    let many = [b"1\r\n \r\n".repeat(500_000).as_slice(), b"0\r\n\r\n"].concat();
    cases.add("chunks: 500,000", PROVISION, &chunked, &many, Want::Refused);
}

fn heads(cases: &mut Cases) {
    let long = "v".repeat(60_000);
    let million = "v".repeat(1_000_000);
    let path = ("GET", "/v1/provision/x/status");
    cases.add("a header of 60 kB", path, &[("X-Long", &long)], b"", Want::Broken);
    cases.add("a header of 1 MB", path, &[("X-Long", &million)], b"", Want::Broken);
    let many: Vec<(String, String)> = (0..200).map(|n| (format!("X-{n}"), "v".to_owned())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    cases.add("200 headers", path, &many, b"", Want::Broken);
    cases.add("50 headers", path, &many[..50], b"", Want::Refused);
    cases.add("one header 90 times", path, &vec![("X", "v"); 90], b"", Want::Refused);
    let line = |text: &str| {
        format!("GET /v1/provision/x/status HTTP/1.1\r\nHost: 127.0.0.1\r\n{text}\r\n\r\n").into_bytes()
    };
    for (name, text) in [
        ("a NUL in a header", "X-A: a\0b"),
        ("a NUL in a name", "X\0A: b"),
        ("a carriage return in a header", "X-A: a\rb"),
        ("a control character", "X-A: a\u{1}b"),
        ("DEL", "X-A: a\u{7f}b"),
        ("a blank before the colon", "X-A : b"),
        ("a folded line", "X-A: a\r\n b"),
        ("no colon", "nonsense"),
        ("no name", ": a"),
        ("a name with a bracket", "X(A): b"),
        ("a blank first", " X-A: b"),
    ] {
        cases.bytes(name, "GET", "/v1/provision/x/status", Want::Broken, line(text));
    }
    let bytes = |text: &[u8]| {
        [b"GET /v1/provision/x/status HTTP/1.1\r\nHost: 127.0.0.1\r\n".as_slice(), text, b"\r\n\r\n"].concat()
    };
    cases.bytes(
        "bytes that are no text in a header",
        "GET",
        "/v1/provision/x/status",
        Want::Broken,
        bytes(b"X-A: \xff\xfe"),
    );
    cases.bytes(
        "bytes that are no text in a name",
        "GET",
        "/v1/provision/x/status",
        Want::Broken,
        bytes(b"\xff: a"),
    );
    cases.bytes(
        "a NUL in the path",
        "GET",
        "/",
        Want::Broken,
        b"GET /v1/x\0y HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".to_vec(),
    );
    cases.bytes(
        "bytes that are no text in the path",
        "GET",
        "/",
        Want::Broken,
        b"GET /v1/\xff\xfe HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".to_vec(),
    );
    cases.bytes(
        "a blank in the path",
        "GET",
        "/",
        Want::Broken,
        b"GET /v1/a b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".to_vec(),
    );
    cases.add(
        "an upgrade to WebSocket",
        ("GET", "/v1/provision/x/status"),
        &[("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Key", "x")],
        b"",
        Want::Refused,
    );
    cases.add(
        "an upgrade to h2c",
        ("GET", "/v1/provision/x/status"),
        &[
            ("Upgrade", "h2c"),
            ("Connection", "Upgrade, HTTP2-Settings"),
            ("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA"),
        ],
        b"",
        Want::Refused,
    );
    cases.add(
        "another method in a header",
        ("POST", "/v1/provision/x/status"),
        &[("X-HTTP-Method-Override", "GET")],
        b"",
        Want::Refused,
    );
    cases.add(
        "another path in a header",
        ("GET", "/nowhere"),
        &[("X-Original-URL", "/landfall/v1/live"), ("X-Rewrite-URL", "/landfall/v1/live")],
        b"",
        Want::Refused,
    );
}

fn not_http(cases: &mut Cases) {
    let hello = b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03abcdefghijklmnopqrstuvwxyz012345";
    for (name, bytes) in [
        ("noise", b"garbage\r\n\r\n".as_slice()),
        ("a TLS hello", hello.as_slice()),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("HTTP/0.9", b"GET /\r\n\r\n"),
        ("HTTP/3.0", b"GET / HTTP/3.0\r\nHost: 127.0.0.1\r\n\r\n"),
        ("HTTP/1.9", b"GET / HTTP/1.9\r\nHost: 127.0.0.1\r\n\r\n"),
        ("http/1.1", b"GET / http/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
        ("another protocol", b"GET / SIP/2.0\r\nHost: 127.0.0.1\r\n\r\n"),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        ("a mail", b"EHLO evil.example\r\nMAIL FROM:<a@b>\r\n\r\n"),
        ("Redis", b"*1\r\n$4\r\nPING\r\n\r\n"),
        ("binary", b"\0\x01\x02\x03\xff\xfe\r\n\r\n\r\n\r\n"),
        ("no target", b"GET  HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
        ("a target without a slash", b"GET v1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
        ("bare line feeds", b"GET /nowhere HTTP/1.1\nHost: 127.0.0.1\n\n"),
        ("empty lines first", b"\r\n\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
    ] {
        cases.bytes(name, "GET", "/", Want::Broken, bytes.to_vec());
    }
}

/// Bodies that are not JSON, or not the expected JSON.
fn documents(cases: &mut Cases) {
    let good = String::from_utf8(good()).expect("text");
    let wide: String = (0..100_000).map(|n| format!("\"k{n}\":0,")).collect();
    let documents: Vec<(&str, Vec<u8>)> = vec![
        ("nothing but blanks", b" \n\t ".to_vec()),
        ("YAML", b"descriptorKind: COMPONENT_DESCRIPTOR".to_vec()),
        ("torn", good.as_bytes()[..good.len() / 2].to_vec()),
        ("twice", good.repeat(2).into_bytes()),
        ("with rest", format!("{good} x").into_bytes()),
        ("in an array", format!("[{good}]").into_bytes()),
        ("an empty array", b"[]".to_vec()),
        ("null", b"null".to_vec()),
        ("a number", b"1".to_vec()),
        ("a text", b"\"canary-7f31\"".to_vec()),
        ("true", b"true".to_vec()),
        ("an empty object", b"{}".to_vec()),
        ("invalid UTF-8", [b"{\"descriptor\":\"\xff\xfe\",".as_slice(), &good.as_bytes()[1..]].concat()),
        ("a surrogate alone", br#"{"descriptor":"\ud800","descriptorKind":"COMPONENT_DESCRIPTOR"}"#.to_vec()),
        ("NULs", vec![0; 1000]),
        ("a NUL in the text", good.replace("production", "produc\\u0000tion").into_bytes()),
        ("a byte order mark", [b"\xef\xbb\xbf".as_slice(), good.as_bytes()].concat()),
        ("UTF-16", good.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("100,000 arrays deep", b"[".repeat(100_000)),
        ("100,000 objects deep", b"{\"a\":".repeat(100_000)),
        (
            "deep in a field that is not read",
            format!("{{\"x\":{}{},\"descriptor\":\"{CANARY}\"}}", "[".repeat(2000), "]".repeat(2000))
                .into_bytes(),
        ),
        ("a key twice", format!("{{\"descriptorKind\":\"COMPONENT_DESCRIPTOR\",{}", &good[1..]).into_bytes()),
        ("single quotes", good.replace('"', "'").into_bytes()),
        ("comments", format!("/* canary */{good}").into_bytes()),
        ("NaN", b"{\"removeData\":NaN}".to_vec()),
        ("1e999999", b"{\"removeData\":1e999999}".to_vec()),
        (
            "a number of 100,000 digits",
            [b"{\"removeData\":".as_slice(), &b"9".repeat(100_000), b"}"].concat(),
        ),
    ];
    for (name, body) in documents {
        for path in
            ["/v1/provision", "/v1/updateacl", "/v1/reverse-provisioning", "/landfall/v1/plan", INSTANCES]
        {
            let case =
                cases.add(&format!("JSON: {name} at {path}"), ("POST", path), &[JSON], &body, Want::Refused);
            case.common = path != "/v1/provision";
        }
    }
    let many =
        format!("{{{wide}\"descriptorKind\":\"COMPONENT_DESCRIPTOR\",\"descriptor\":\"canary-7f31\"}}");
    cases.add("JSON: 100,000 keys", PROVISION, &[JSON], many.as_bytes(), Want::Refused);
}

/// Wrong values for every field of these requests. The rest of each request is invalid too, so the server
/// accepts none of them.
fn fields(cases: &mut Cases) {
    let no_product = json!("id: canary-7f31");
    let requests = [
        (
            "/v1/provision",
            json!({ "descriptorKind": "COMPONENT_DESCRIPTOR", "descriptor": no_product,
            "latestEnrichedDescriptor": "canary-7f31", "removeData": false }),
        ),
        (
            "/v1/updateacl",
            json!({ "refs": ["user:canary-7f31_b.c"],
            "provisionInfo": { "request": no_product, "result": "canary-7f31" } }),
        ),
        (
            "/v1/reverse-provisioning",
            json!({ "useCaseTemplateId": "canary-7f31", "environment": "canary-7f31",
            "params": { "a": "b" }, "catalogInfo": { "a": "b" } }),
        ),
        (
            "/landfall/v1/plan",
            json!({ "operation": "PROVISION", "descriptorKind": "COMPONENT_DESCRIPTOR",
            "descriptor": no_product, "removeData": false, "refs": ["canary-7f31"] }),
        ),
        (
            "/landfall/v1/explain",
            json!({ "descriptorKind": "COMPONENT_DESCRIPTOR", "descriptor": no_product }),
        ),
    ];
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(1e308),
        json!(u64::MAX),
        json!(""),
        json!("\u{0}"),
        json!("\u{202e}"),
        json!("x".repeat(100_000)),
        json!([]),
        json!({}),
        json!([[]]),
        json!([null]),
        json!({ "a": { "b": [] } }),
    ];
    for (path, request) in requests {
        let object = request.as_object().expect("an object");
        let mut places: Vec<String> = object.keys().map(|key| format!("/{key}")).collect();
        if path == "/v1/updateacl" {
            places.extend(["/provisionInfo/request", "/provisionInfo/result", "/refs/0"].map(str::to_owned));
        }
        for place in places {
            for value in &values {
                let mut wrong = request.clone();
                *wrong.pointer_mut(&place).expect("it is there") = value.clone();
                let short: String = value.to_string().chars().take(20).collect();
                let name = format!("{place} is {short} at {path}");
                let body = wrong.to_string();
                cases.add(&name, ("POST", path), &[JSON], body.as_bytes(), Want::Refused).common = true;
            }
            let mut without = request.clone();
            let (parent, key) = place.rsplit_once('/').expect("a pointer");
            match without.pointer_mut(parent).expect("it is there") {
                Value::Object(object) => drop(object.remove(key)),
                _ => continue,
            }
            let name = format!("no {place} at {path}");
            cases.add(&name, ("POST", path), &[JSON], without.to_string().as_bytes(), Want::Refused).common =
                true;
        }
    }
    for value in &values {
        for field in ["instanceName", "instanceCode", "groupCode", "isActive", "environments", "properties"] {
            let mut wrong = json!({ "instanceName": CANARY });
            wrong[field] = value.clone();
            if field != "instanceCode" {
                // The code is invalid too, so that no request creates an instance.
                wrong["instanceCode"] = json!([CANARY]);
            }
            let short: String = value.to_string().chars().take(20).collect();
            let want =
                if field == "instanceCode" && value.is_string() { Want::Declared } else { Want::Refused };
            cases
                .add(
                    &format!("{field} is {short} at {INSTANCES}"),
                    ("POST", INSTANCES),
                    &[JSON],
                    wrong.to_string().as_bytes(),
                    want,
                )
                .common = true;
        }
    }
}

/// More than one request on a connection, and bytes between them.
fn connections(cases: &mut Cases) {
    let address = cases.address;
    let valid = request(
        address,
        "POST",
        "/v1/validate",
        &[JSON],
        &component_request(&cashflow(), WORKLOAD).to_string().into_bytes(),
    );
    let live = request(address, "GET", "/landfall/v1/live", &[], b"");
    let smuggled = request(address, "POST", "/v1/provision", &[JSON], &good());
    cases.bytes("20 requests at once", "POST", "/v1/validate", Want::Served, valid.repeat(20)).answers = 20;
    cases.bytes("100 probes at once", "GET", "/landfall/v1/live", Want::Served, live.repeat(100)).answers =
        100;
    // The server refuses these requests, and must not read their bodies as further requests.
    let refused =
        |path: &str, headers: &[(&str, &str)], body: &[u8]| request(address, "POST", path, headers, body);
    for (name, first) in [
        ("a body at a path that is not there", refused("/nowhere", &[JSON], &smuggled)),
        ("a body of another type", refused("/v1/provision", &[("Content-Type", "text/plain")], &smuggled)),
        ("a body that is no JSON", refused("/v1/provision", &[JSON], &smuggled)),
        (
            "a body of a foreign page",
            refused("/v1/provision", &[JSON, ("Origin", "http://evil.example")], &smuggled),
        ),
        ("a body on DELETE", request(address, "DELETE", "/v1/provision", &[JSON], &smuggled)),
        ("a body on GET", request(address, "GET", "/v1/provision/x/status", &[], &smuggled)),
    ] {
        let name = format!("{name}, and a probe on the same connection");
        let case = cases.bytes(&name, "POST", "/nowhere", Want::Declared, [first, live.clone()].concat());
        case.answers = 2;
    }
    let head = "POST /v1/provision HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\n";
    cases.bytes(
        "a request within chunks",
        "POST",
        "/nowhere",
        Want::Broken,
        [
            format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", smuggled.len()).as_bytes(),
            &smuggled,
            b"\r\n0\r\n\r\n",
        ]
        .concat(),
    );
    let expect = [JSON, ("Expect", "100-continue")];
    let body = component_request(&cashflow(), WORKLOAD).to_string();
    cases.add("Expect: 100-continue", ("POST", "/v1/validate"), &expect, body.as_bytes(), Want::Served);
    cases.add("Expect: 100-continue, refused", ("POST", "/nowhere"), &expect, &good(), Want::Refused);
    cases.add(
        "Expect: something else",
        ("POST", "/nowhere"),
        &[JSON, ("Expect", "200-ok")],
        &good(),
        Want::Refused,
    );
    for (name, text, want) in [
        ("HTTP/1.0", "GET /landfall/v1/live HTTP/1.0\r\n\r\n".to_owned(), Want::Served),
        ("HTTP/1.0 with a Host", "GET /landfall/v1/live HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".to_owned(), Want::Served),
        ("HTTP/1.0 that stays", "GET /landfall/v1/live HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_owned(), Want::Served),
        ("HTTP/1.0 with a body", format!("POST /v1/validate HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()), Want::Served),
        ("HTTP/1.0 with chunks", "POST /v1/provision HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n".to_owned(), Want::Broken),
        ("HTTP/1.0 without a length", "POST /v1/provision HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\r\n".to_owned(), Want::Broken),
    ] {
        let mut words = text.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        cases.bytes(name, &method, &path, want, text.into_bytes());
    }
    cases.add(
        "Connection: close",
        ("GET", "/landfall/v1/live"),
        &[("Connection", "close")],
        b"",
        Want::Served,
    );
    cases.add(
        "Connection: everything",
        ("GET", "/landfall/v1/live"),
        &[("Connection", "close, keep-alive, upgrade, te")],
        b"",
        Want::Served,
    );
}

/// Requests with a missing, wrong or malformed token.
fn wrong_tokens(cases: &mut Cases) {
    let body = good();
    let long = format!("Bearer {}", "t".repeat(30_000));
    let right = format!("Bearer {TOKEN}");
    let spelled = |text: &str| text.replace("TOKEN", TOKEN);
    let headers: Vec<Vec<(&str, String)>> = [
        "",
        "Bearer",
        "Bearer ",
        "Bearer canary-7f31",
        "Bearer TOKENx",
        "Bearer xTOKEN",
        "Bearer TOKEN TOKEN",
        "Bearer \"TOKEN\"",
        "Bearer TOKEN,TOKEN",
        "Basic TOKEN",
        "Basic b3BzOnJpZ2h0LWNhbmFyeS03ZjMx",
        "Token TOKEN",
        "TOKEN",
        "BearerTOKEN",
        "Bearer:TOKEN",
        "Bearer RIGHT-CANARY-7F31",
        "Digest username=ops",
        "Negotiate TOKEN",
        "Bearer =",
        "Bearer canary-7f31/../TOKEN",
        "Bearer %72ight-canary-7f31",
    ]
    .into_iter()
    .map(|value| vec![("Authorization", spelled(value))])
    .chain([
        vec![],
        vec![("Authorization", long)],
        vec![("Proxy-Authorization", right.clone())],
        vec![("X-Authorization", right.clone())],
        vec![("Cookie", format!("Authorization={right}"))],
        vec![("X-Forwarded-For", "127.0.0.1".to_owned())],
        vec![("X-Forwarded-User", "ops".to_owned())],
        vec![("Authorization", "Bearer canary-7f31".to_owned()), ("Authorization", right.clone())],
    ])
    .collect();
    for (number, headers) in headers.iter().enumerate() {
        let mut all: Vec<(&str, &str)> = vec![JSON];
        all.extend(headers.iter().map(|(name, value)| (*name, value.as_str())));
        for (operation, path) in operations() {
            if ["live", "health"].contains(&operation.operation_id) || path.starts_with(INSTANCES) {
                continue;
            }
            let body: &[u8] = if operation.method == "GET" { b"" } else { &body };
            let name = format!("credentials {number} at {} {path}", operation.method);
            let case = cases.add(&name, (operation.method, &path), &all, body, Want::Unauthorized);
            case.common = path != "/v1/provision";
        }
    }
    let instance = json!({ "instanceName": CANARY, "instanceCode": CANARY }).to_string();
    for value in [
        "",
        "Basic",
        "Basic !!!",
        "Basic b3Bz",
        "Basic b3BzOg==",
        "Basic Og==",
        "Bearer right-canary-7f31",
        "Basic b3BzOndyb25n",
        "basic b3BzOndyb25n",
    ] {
        let headers = [JSON, ("Authorization", value)];
        cases.add(
            &format!("`{value}` at {INSTANCES}"),
            ("POST", INSTANCES),
            &headers,
            instance.as_bytes(),
            Want::Unauthorized,
        );
        cases.add(
            &format!("`{value}` to look at {INSTANCES}"),
            ("GET", INSTANCES),
            &headers[1..],
            b"",
            Want::Unauthorized,
        );
    }
    for path in [
        "/landfall/v1/live/../plan",
        "/landfall/v1/live%2f..%2fplan",
        "//landfall/v1/plan",
        "/landfall/v1/health/..%2fplan",
        "/landfall/v1/LIVE",
        "/landfall/v1/live/",
        "/landfall/v1/live;x/../plan",
        "/flexdeployer/x",
        "/FLEXDEPLOY/rest/v1/topology/instance",
        "/%66lexdeploy/../v1/provision",
        "/v1/provision?access_token=right-canary-7f31",
        "/v1/provision#right-canary-7f31",
        "/landfall/v1/live?/../../v1/provision",
    ] {
        let want =
            if path.contains('?') && path.starts_with("/landfall") { Want::Refused } else { Want::Broken };
        let case = cases.add(&format!("without a token: {path}"), ("POST", path), &[JSON], &body, want);
        case.path = "/nowhere".to_owned();
    }
    // Paths under /flexdeploy require no token, so they must not lead to other operations.
    for path in [
        "/flexdeploy/../v1/provision",
        "/flexdeploy/..%2fv1%2fprovision",
        "/flexdeploy//v1/provision",
        "/flexdeploy/%2e%2e/v1/provision",
    ] {
        let case =
            cases.add(&format!("without a token: {path}"), ("POST", path), &[JSON], &body, Want::Refused);
        case.path = "/nowhere".to_owned();
    }
    let both = [JSON, ("Authorization", right.as_str())];
    cases.add("the right token", ("POST", "/v1/validate"), &both, &body, Want::Served);
    let lower = format!("bearer {TOKEN}");
    cases.add(
        "the right token, in lower case",
        ("POST", "/v1/validate"),
        &[JSON, ("Authorization", &lower)],
        &body,
        Want::Served,
    );
    for (method, path) in [
        ("GET", "/landfall/v1/live"),
        ("GET", "/landfall/v1/health"),
        ("HEAD", "/landfall/v1/live"),
        ("HEAD", "/landfall/v1/health"),
    ] {
        cases.add(&format!("{method} {path} without a token"), (method, path), &[], b"", Want::Served);
    }
}
