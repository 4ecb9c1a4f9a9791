//! Authentication and authorization: tokens, users, certificates, and their reload while the server runs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use argon2::password_hash::PasswordHasher;
use argon2::{Argon2, Params};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use landfall::generated::airbyte::server::OPERATIONS as AIRBYTE;
use landfall::generated::flexdeploy::server::OPERATIONS as TOPOLOGY;
use landfall::generated::operator::server::OPERATIONS as OPERATOR;
use landfall::generated::tech_adapter::server::OPERATIONS as TECH_ADAPTER;
use landfall_adapter::tls::Trust;
use reqwest::Response;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{
    Builder, CommandOutput, INSTANCES, Landfall, PREFIX, STORAGE, cashflow, component_request, http, https,
    landfall, landfall_with,
};

const EXAMPLE: &str = "examples/cashflow.yaml";

/// A hash that is cheap to check.
pub(crate) fn cheap_hash(secret: &str) -> String {
    let params = Params::new(Params::MIN_M_COST, 1, 1, None).unwrap();
    Argon2::from(params).hash_password(secret.as_bytes()).unwrap().to_string()
}

/// Starts a server with one valid token.
fn with_token(token: &str, config: &str) -> Landfall {
    let tokens = "[[auth.tokens]]\nname = \"control-plane\"\nhash = { env = \"TOKEN_HASH\" }\n";
    Landfall::with().config(&format!("{config}\n{tokens}")).env("TOKEN_HASH", &cheap_hash(token)).start()
}

/// A server with the user `ops`, who may write, and the user `eye`, who may read. Their passwords are `right`.
pub(crate) fn with_users(config: &str) -> Builder {
    let users = r#"
[[auth.users]]
name = "ops"
role = "write"
password_hash = { env = "OPS_HASH" }
[[auth.users]]
name = "eye"
role = "read"
password_hash = { env = "EYE_HASH" }
"#;
    let server = Landfall::with().config(&format!("{config}\n{users}"));
    server.env("OPS_HASH", &cheap_hash("right")).env("EYE_HASH", &cheap_hash("right"))
}

async fn send(server: &Landfall, method: &str, path: &str, authorization: Option<&str>) -> Response {
    let url = format!("{}{path}", server.api().url());
    let mut request = http().build().unwrap().request(method.parse().unwrap(), url);
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    if method == "POST" {
        request = request.header("content-type", "application/json").body("{}");
    }
    request.send().await.unwrap()
}

#[track_caller]
fn assert_token_required(response: &Response) {
    assert_eq!(response.status(), 401);
    assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"Landfall\"");
    assert_eq!(response.headers()["content-type"], "application/json");
}

#[tokio::test]
async fn every_operation_but_the_probes_requires_a_token() {
    let server = with_token("right", "[auth]\nmax_failures = 1000");
    let adapter = TECH_ADAPTER.iter().flat_map(|operation| ["", PREFIX].map(|prefix| (operation, prefix)));
    let others = OPERATOR.iter().chain(AIRBYTE).map(|operation| (operation, ""));
    let mut closed = 0;
    for (operation, prefix) in adapter.chain(others) {
        let path = operation.path.replace("{token}", "3da5d0a2-9f3b-4a11-85a3-b5ddb73da032");
        let path = format!("{prefix}{}", path.replace("{version}", "0.0.1"));
        let open = ["health", "live"].contains(&operation.operation_id);
        for header in
            [None, Some("Bearer wrong"), Some("Bearer"), Some("Basic cmlnaHQ6cmlnaHQ="), Some("right")]
        {
            let response = send(&server, operation.method, &path, header).await;
            if open {
                assert_eq!(response.status(), 200, "{path} {header:?}");
                continue;
            }
            assert_token_required(&response);
            let body: Value = response.json().await.unwrap();
            assert!(body["error"].as_str().unwrap().to_lowercase().contains("token"), "{body:#}");
            assert_eq!(body["moreInfo"]["problems"][0], body["error"], "{body:#}");
            assert!(body["moreInfo"]["solutions"][0].is_string(), "{body:#}");
            closed += 1;
        }
        let response = send(&server, operation.method, &path, Some("bearer right")).await;
        let status = response.status().as_u16();
        assert!(operation.statuses.contains(&status), "{path} {status}");
        assert_eq!(response.headers().get("www-authenticate"), None);
    }
    assert_eq!(closed, 5 * (2 * TECH_ADAPTER.len() + AIRBYTE.len() + OPERATOR.len() - 2));
    // Without a token, an unknown path gets the same answer as an existing one.
    assert_token_required(&send(&server, "GET", "/nowhere", None).await);
    assert_eq!(send(&server, "GET", "/nowhere", Some("Bearer right")).await.status(), 404);
    // The topology contract requires users, but none are configured.
    assert_eq!(send(&server, "GET", INSTANCES, None).await.status(), 200);
}

/// Every operation of the topology, with every kind of credential.
#[tokio::test]
async fn user_roles_limit_access_to_the_topology() {
    let server = with_users("[auth]\nmax_failures = 1000").start();
    let basic = |pair: &str| Some(format!("Basic {}", STANDARD.encode(pair)));
    let all = server.api().send("GET", INSTANCES, |request| request.basic_auth("eye", Some("right"))).await;
    let id = all.with_status(200).json()[0]["instanceId"].to_string();
    for operation in TOPOLOGY {
        let path = operation.path.replace("{Id}", &id);
        let body = json!({ "instanceName": "n", "instanceCode": operation.operation_id });
        let ask = async |authorization: Option<String>| {
            let answer = server.api().send(operation.method, &path, |request| {
                let request = if operation.method == "GET" { request } else { request.json(&body) };
                match authorization {
                    Some(value) => request.header("authorization", value),
                    None => request,
                }
            });
            answer.await
        };
        for (credentials, expected) in [
            (None, "a user is needed: send `Authorization: Basic` with a name and a password"),
            (
                Some("Basic".to_owned()),
                "the Authorization header is not `Basic` and the base64 of NAME:PASSWORD",
            ),
            (
                Some("Bearer right".to_owned()),
                "the Authorization header is not `Basic` and the base64 of NAME:PASSWORD",
            ),
            (basic("ops"), "the Authorization header is not `Basic` and the base64 of NAME:PASSWORD"),
            (basic("ops:wrong"), "the name or the password is wrong"),
            (basic("nobody:right"), "the name or the password is wrong"),
            (basic(":"), "the name or the password is wrong"),
        ] {
            let answer = ask(credentials.clone()).await;
            assert_eq!(answer.with_status(401).json(), json!({ "message": expected }), "{credentials:?}");
            let url = format!("{}{path}", server.api().url());
            let asked = http().build().unwrap().request(operation.method.parse().unwrap(), url).send().await;
            let challenge = asked.unwrap().headers()["www-authenticate"].to_str().unwrap().to_owned();
            assert_eq!(challenge, "Basic realm=\"FlexDeploy Instance API\", charset=\"UTF-8\"");
        }
        let reader = ask(basic("eye:right")).await;
        if operation.method == "GET" {
            reader.with_status(200);
        } else {
            let expected =
                "`eye` may read the topology and not change it; this takes a user with the role `write`";
            assert_eq!(reader.with_status(403).json(), json!({ "message": expected }));
        }
        let writer = ask(basic("ops:right")).await;
        writer.with_status(if operation.method == "POST" { 201 } else { 200 });
    }
    let status = async |path: &str| send(&server, "POST", path, None).await.status().as_u16();
    assert_eq!(
        status("/v1/validate").await,
        200,
        "the adapter contracts require tokens, but none are configured"
    );
}

#[tokio::test]
async fn cli_sends_user_credentials() {
    let server = with_users("").start();
    let on = |arguments: &[&str], password: &str| {
        let url = server.api().url();
        let arguments = ["topology"].iter().chain(arguments).copied().chain(["--url", url]);
        landfall_with(&[("LANDFALL_PASSWORD", password)], "", arguments)
    };
    let listed = on(&["list", "--user", "eye"], "right").with_code(0);
    assert!(listed.out.contains("LOCAL_LAKE"), "{listed:?}");
    let refused = on(&["set", "LOCAL_LAKE", "--active", "false", "--user", "eye"], "right").with_code(3);
    assert!(refused.err.contains("`eye` may read the topology and not change it"), "{refused:?}");
    on(&["set", "LOCAL_LAKE", "--active", "false", "--user", "ops"], "right").with_code(0);
    for arguments in [vec!["list"], vec!["list", "--user", "ops"]] {
        let refused = on(&arguments, "wrong").with_code(4);
        let remedy = "name a user with --user, and set LANDFALL_PASSWORD or name a file with --password-file";
        assert!(refused.err.contains(remedy) && !refused.err.contains("wrong\n"), "{refused:?}");
    }
}

#[tokio::test]
async fn too_many_failed_logins_get_a_retry_time() {
    let server = with_token("right", "[auth]\nmax_failures = 2\nfailure_window = \"1h\"");
    let text = async |token: &str| {
        let response = send(&server, "POST", "/v1/validate", Some(token)).await;
        let status = response.status().as_u16();
        (status, response.json::<Value>().await.unwrap()["error"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(text("Bearer one").await, (401, "the token is wrong".to_owned()));
    for token in ["Bearer two", "Bearer three", "Bearer right"] {
        let (status, error) = text(token).await;
        assert_eq!(status, 401);
        assert!(error.starts_with("too many attempts from this address failed; try again in 3"), "{error}");
    }
    assert_eq!(send(&server, "GET", "/landfall/v1/health", Some("Bearer one")).await.status(), 200);
}

#[tokio::test]
async fn verified_token_works_despite_failed_logins() {
    let server = with_token("right", "[auth]\nmax_failures = 1\nfailure_window = \"1h\"");
    for _ in 0..3 {
        assert_eq!(send(&server, "POST", "/v1/validate", Some("Bearer right")).await.status(), 200);
        assert_token_required(&send(&server, "POST", "/v1/validate", Some("Bearer wrong")).await);
    }
}

/// Bodies without a valid token reserve no memory, whether they arrive or not.
#[tokio::test]
async fn unauthenticated_bodies_reserve_no_memory() {
    let server = with_token(
        "right",
        "[server]\nmax_body_bytes = 3000000\nmax_inflight_bytes = 3000000\ninflight_wait = \"0s\"\n",
    );
    let url = format!("{}/v1/provision", server.api().url());
    for bytes in [10, 100_000, 2_900_000] {
        let response = http().build().unwrap().post(&url).body("x".repeat(bytes)).send().await.unwrap();
        assert_token_required(&response);
        assert!(response.text().await.unwrap().contains("a token is needed"));
    }
    let address = server.api().url().strip_prefix("http://").unwrap();
    let mut slow: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    for stream in &mut slow {
        let head = "POST /v1/provision HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2999999\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
    }
    for _ in 0..20 {
        let request = component_request(&cashflow(), STORAGE).to_string();
        let padded = format!("{request}{}", " ".repeat(2_900_000));
        let request = http().build().unwrap().post(url.replace("provision", "validate")).bearer_auth("right");
        let response = request.header("content-type", "application/json").body(padded).send().await.unwrap();
        assert_eq!(response.status(), 200);
    }
    // The server writes the answer once the body has arrived.
    let mut last = slow.pop().unwrap();
    last.write_all(&vec![b'x'; 2_999_999]).unwrap();
    let mut answer = [0; 12];
    last.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 401");
}

/// The topology contract checks users itself. Before that check, its callers are unauthenticated.
#[tokio::test]
async fn topology_bodies_without_a_user_reserve_no_memory() {
    let limits = "max_body_bytes = 3000000\nmax_inflight_bytes = 3000000\ninflight_wait = \"1s\"";
    let server = with_users(&format!("[server]\n{limits}\n")).start();
    let address = server.api().url().strip_prefix("http://").unwrap();
    let mut slow: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    for stream in &mut slow {
        let head = format!("POST {INSTANCES} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2999999\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
    }
    for index in 0..5 {
        let new = json!({ "instanceName": "n", "instanceCode": format!("c{index}") }).to_string();
        let padded = format!("{new}{}", " ".repeat(2_900_000));
        let request = http().build().unwrap().post(format!("{}{INSTANCES}", server.api().url()));
        let request = request.basic_auth("ops", Some("right")).header("content-type", "application/json");
        assert_eq!(request.body(padded).send().await.unwrap().status(), 201);
    }
    // The body of a valid user reserves memory, and releases it later.
    let mut held = TcpStream::connect(address).unwrap();
    let credentials = STANDARD.encode("ops:right");
    let head = format!(
        "POST {INSTANCES} HTTP/1.1\r\nhost: localhost\r\nauthorization: Basic {credentials}\r\n\
         content-type: application/json\r\ncontent-length: 2999999\r\n\r\n"
    );
    held.write_all(head.as_bytes()).unwrap();
    held.write_all(&vec![b' '; 2_999_990]).unwrap();
    let ask = async || {
        let request = json!({ "instanceName": "n", "instanceCode": "late" });
        let answer =
            server.api().send("POST", INSTANCES, |http| http.basic_auth("ops", Some("right")).json(&request));
        answer.await
    };
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let refused = loop {
        let answer = ask().await;
        if answer.status == 500 {
            break answer;
        }
        assert!(std::time::Instant::now() < end, "{answer:?}");
    };
    let message = "the requests under way hold 3000000 bytes, which is the limit; try again later";
    assert_eq!(refused.json(), json!({ "message": message }));
    drop(held);
    while ask().await.status == 500 {
        assert!(std::time::Instant::now() < end, "the memory is not released");
    }
}

/// A hash that costs what OWASP recommends: 19 MiB.
fn expensive_hash(secret: &str) -> String {
    let params = Params::new(19_456, 2, 1, None).unwrap();
    Argon2::from(params).hash_password(secret.as_bytes()).unwrap().to_string()
}

/// Guesses passwords from the source address `from` until `stop` is set. Returns the number of answered
/// guesses.
async fn guess(
    url: String,
    from: std::net::Ipv4Addr,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
) -> u32 {
    let client = http().local_address(std::net::IpAddr::from(from)).build().unwrap();
    let mut answered = 0;
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        let guess = format!("guess {answered}");
        let sent = client.get(&url).basic_auth("ops", Some(guess)).send().await;
        if let Ok(response) = sent {
            assert!([401, 500].contains(&response.status().as_u16()), "{response:?}");
            answered += 1;
        }
    }
    answered
}

/// 250 clients guess, each from its own address, while callers that the server has not verified yet sign in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn password_guessing_uses_bounded_memory_and_time() {
    const CALLERS: u32 = 5;
    const CONCURRENCY: u64 = 2;
    let mut config = String::from("[auth]\nwait = \"5s\"\nconcurrency = 2\n");
    let hash = expensive_hash("right");
    for name in (0..CALLERS).map(|n| format!("caller{n}")).chain(["ops".to_owned()]) {
        config.push_str(&format!(
            "[[auth.users]]\nname = \"{name}\"\nrole = \"read\"\npassword_hash = \"{hash}\"\n"
        ));
    }
    let server = Landfall::with().alone().config(&config).start();
    let url = format!("{}{INSTANCES}", server.api().url());
    server.api().get("/landfall/v1/health").await.with_status(200);
    let start = server.resident_memory();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let guessing: Vec<_> = (0..250_u8)
        .map(|n| {
            let from = std::net::Ipv4Addr::new(127, 0, 1, n + 1);
            tokio::spawn(guess(url.clone(), from, std::sync::Arc::clone(&stop)))
        })
        .collect();
    let mut waited = Vec::new();
    for caller in 0..CALLERS {
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        let client = http().build().unwrap();
        let began = std::time::Instant::now();
        let request = client.get(&url).basic_auth(format!("caller{caller}"), Some("right"));
        waited.push((request.send().await.unwrap().status().as_u16(), began.elapsed()));
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut answered = 0;
    for task in guessing {
        answered += task.await.unwrap();
    }
    assert!(answered >= 250, "{answered} guesses are no attack");
    if let (Some(start), Some(peak)) = (start, server.peak_memory()) {
        let bound = start + (64 + CONCURRENCY * 20) * 1024 * 1024;
        let mib = |bytes: u64| bytes / 1024 / 1024;
        assert!(
            peak < bound,
            "{} MiB at the peak, {} at the start, {answered} guesses",
            mib(peak),
            mib(start)
        );
    }
    for (status, took) in &waited {
        assert!(*status == 200 && *took < std::time::Duration::from_secs(5), "{waited:?}");
    }
}

#[tokio::test]
async fn cli_sends_the_token_or_names_the_missing_variable() {
    let server = with_token("right", "");
    let plan = ["plan", EXAMPLE, "--url", server.api().url()];
    for command in [plan.as_slice(), &["status", "x", "--url", server.api().url()]] {
        let refused = landfall(command).with_code(4);
        assert!(refused.err.contains("LANDFALL_TOKEN"), "{refused:?}");
        let wrong = landfall_with(&[("LANDFALL_TOKEN", "wrong-secret")], "", command).with_code(4);
        assert!(wrong.err.contains("LANDFALL_TOKEN") && !wrong.err.contains("wrong-secret"), "{wrong:?}");
    }
    landfall_with(&[("LANDFALL_TOKEN", "right")], "", plan).with_code(0);
    let file = server.scratch().join("token");
    std::fs::write(&file, "right\n").unwrap();
    let file = file.to_str().unwrap();
    let told = [("LANDFALL_TOKEN", "wrong")];
    landfall_with(&told, "", plan.iter().chain(&["--token-file", file])).with_code(0);
    landfall(plan.iter().chain(&["--token-file", "no/such/file"])).with_code(2);
    landfall(plan.iter().chain(&["--token", "right"])).with_code(2);
}

#[tokio::test]
async fn server_accepts_hashes_of_the_hash_password_command() {
    let hash = |stdin: &str| landfall_with(&[], stdin, ["hash-password"]);
    let printed = hash("correct horse\nsecond line\n").with_code(0);
    assert!(printed.out.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{printed:?}");
    assert_eq!(printed.err, "");
    for empty in ["", "\n", "\r\n"] {
        assert!(hash(empty).with_code(2).err.contains("empty"));
    }
    let config = "[[auth.tokens]]\nname = \"a\"\nhash = { env = \"HASH\" }\n";
    let server = Landfall::with().config(config).env("HASH", printed.out.trim()).start();
    let authorization = Some("Bearer correct horse");
    assert_token_required(&send(&server, "POST", "/v1/validate", authorization).await);
    drop(server);
    let printed = hash("correct-horse").with_code(0);
    let server = Landfall::with().config(config).env("HASH", printed.out.trim()).start();
    assert_eq!(send(&server, "POST", "/v1/validate", Some("Bearer correct-horse")).await.status(), 200);
}

// ---- certificates ---------------------------------------------------------------------------------------------------

/// A certificate authority, made with openssl.
pub(crate) struct Authority {
    folder: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let folder = TempDir::with_prefix("landfall-ca-").unwrap();
        let authority = Self { folder };
        authority.openssl(&format!("req -x509 {NEW_KEY} -subj /CN=ca -keyout ca.key -out ca.crt"));
        authority
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// Issues a certificate. Returns the paths of the certificate and its key.
    fn issue(&self, name: &str, extensions: &str) -> (PathBuf, PathBuf) {
        let path = |ending: &str| self.folder.path().join(format!("{name}.{ending}"));
        std::fs::write(path("ext"), extensions).unwrap();
        self.openssl(&format!("req {NEW_KEY} -subj /CN={name} -keyout {name}.key -out {name}.csr"));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile {name}.ext -out {name}.crt"
        ));
        (path("crt"), path("key"))
    }

    pub(crate) fn server(&self) -> (PathBuf, PathBuf) {
        self.issue("server", "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n")
    }

    fn client(&self) -> (PathBuf, PathBuf) {
        self.issue("client", "subjectAltName=DNS:control-plane\nextendedKeyUsage=clientAuth\n")
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(self.folder.path())
            .output()
            .expect("openssl is installed");
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";

pub(crate) fn tls_config((certificate, key): (&Path, &Path), client_ca: Option<&Path>) -> String {
    let mut text =
        format!("[server.tls]\ncertificate = \"{}\"\nkey = \"{}\"\n", certificate.display(), key.display());
    if let Some(path) = client_ca {
        text.push_str(&format!("client_ca = \"{}\"\n", path.display()));
    }
    text
}

async fn health(
    server: &Landfall,
    trust: Trust<'_>,
    identity: Option<(&Path, &Path)>,
) -> reqwest::Result<Response> {
    let client = https(trust, identity).build().unwrap();
    client.get(format!("{}/landfall/v1/health", server.api().url())).send().await
}

fn run_plan(server: &Landfall, more: &[&str]) -> CommandOutput {
    landfall(["plan", EXAMPLE, "--url", server.api().url()].iter().chain(more))
}

#[tokio::test]
async fn tls_server_refuses_unencrypted_connections() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (certificate, key) = ours.server();
    let server = Landfall::with().config(&tls_config((&certificate, &key), None)).start();
    let address = server.api().url().strip_prefix("https://").expect("the server announces https");

    let authority = ours.certificate();
    let response = health(&server, Trust::File(&authority), None).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, reqwest::Version::HTTP_11));
    assert!(
        health(&server, Trust::File(&theirs.certificate()), None).await.is_err(),
        "a certificate of another authority"
    );
    assert!(health(&server, Trust::System, None).await.is_err(), "a certificate of no system authority");
    let plain = http().build().unwrap().get(format!("http://{address}/landfall/v1/health")).send().await;
    assert!(plain.is_err(), "{plain:?}");

    let authority = authority.to_str().unwrap();
    run_plan(&server, &["--ca-file", authority]).with_code(0);
    let variable = [("LANDFALL_CA_FILE", authority)];
    landfall_with(&variable, "", ["plan", EXAMPLE, "--url", server.api().url()]).with_code(0);
    let refused = run_plan(&server, &[]).with_code(4);
    assert!(refused.err.contains("certificate"), "{refused:?}");
    run_plan(&server, &["--ca-file", "no/such/file"]).with_code(2);
    run_plan(&server, &["--ca-file", key.to_str().unwrap()]).with_code(2);
}

#[tokio::test]
async fn client_ca_refuses_callers_without_its_certificate() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let ((certificate, key), authority) = (ours.server(), ours.certificate());
    let (ours, theirs) = (ours.client(), (theirs.client(), ours));
    let ((strange_certificate, strange_key), _keeps_its_folder) = theirs;
    let config = tls_config((&certificate, &key), Some(&authority));
    let server = Landfall::with().config(&config).start();
    let trust = Trust::File(&authority);

    assert!(health(&server, trust, None).await.is_err(), "no certificate");
    let strange = health(&server, trust, Some((&strange_certificate, &strange_key))).await;
    assert!(strange.is_err(), "a certificate of another authority");
    assert!(health(&server, trust, Some((&certificate, &key))).await.is_err(), "a server certificate");
    let served = health(&server, trust, Some((&ours.0, &ours.1))).await.unwrap();
    assert_eq!(served.status(), 200);

    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (authority, certificate, key) = (text(&authority), text(&ours.0), text(&ours.1));
    let arguments = ["--ca-file", &authority, "--client-cert", &certificate, "--client-key", &key];
    run_plan(&server, &arguments).with_code(0);
    run_plan(&server, &arguments[..2]).with_code(4);
    run_plan(&server, &arguments[..4]).with_code(2);
    let (certificate, key) = (text(&strange_certificate), text(&strange_key));
    let strange = ["--ca-file", &authority, "--client-cert", &certificate, "--client-key", &key];
    run_plan(&server, &strange).with_code(4);
}

#[test]
fn key_of_another_certificate_is_a_configuration_error() {
    let authority = Authority::new();
    let ((certificate, _), (_, key)) = (authority.server(), authority.client());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("landfall.toml");
    std::fs::write(&path, tls_config((&certificate, &key), None)).unwrap();
    let refused = landfall(["serve", "--config", path.to_str().unwrap()]).with_code(2);
    let told = format!(
        "server.tls.key: `{}` is not the key of the first certificate in `{}`",
        key.display(),
        certificate.display()
    );
    assert!(refused.err.contains(&told), "{refused:?}");
}

/// Connections that send nothing do not delay other callers.
#[tokio::test]
async fn silent_tls_connections_delay_no_other_request() {
    let authority = Authority::new();
    let (certificate, key) = authority.server();
    let server = Landfall::with().alone().config(&tls_config((&certificate, &key), None)).start();
    let address = server.api().url().strip_prefix("https://").unwrap().to_owned();
    let silent: Vec<_> = (0..600).map(|_| TcpStream::connect(&address).unwrap()).collect();
    let ca = authority.certificate();
    for _ in 0..3 {
        let began = std::time::Instant::now();
        let served = health(&server, Trust::File(&ca), None).await.unwrap();
        let took = began.elapsed();
        assert_eq!(served.status(), 200);
        assert!(took < std::time::Duration::from_secs(2), "{took:?} behind {} silent ones", silent.len());
    }
    // The server closes the silent connections, because the TLS handshake has a timeout.
    let mut first = &silent[0];
    first.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    assert_eq!(first.read(&mut [0; 1]).unwrap_or(0), 0, "closed");
}

/// Failures of unauthenticated connections are logged with the address, and the number of lines is limited.
#[tokio::test]
async fn log_lines_about_unauthenticated_callers_are_limited() {
    let authority = Authority::new();
    let (certificate, key) = authority.server();
    let config = format!(
        "[log]\npeer_lines = 3\n{}[[auth.tokens]]\nname = \"one\"\nhash = {{ env = \"TOKEN_HASH\" }}\n",
        tls_config((&certificate, &key), None)
    );
    let server = Landfall::with().config(&config).env("TOKEN_HASH", &cheap_hash("right")).start();
    let address = server.api().url().strip_prefix("https://").unwrap().to_owned();
    let client = https(Trust::File(&authority.certificate()), None).build().unwrap();
    for _ in 0..20 {
        let mut plain = TcpStream::connect(&address).unwrap();
        plain.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let _ = plain.read(&mut [0; 100]);
        let url = format!("{}/v1/validate", server.api().url());
        let refused = client.post(url).bearer_auth("wrong").json(&json!({})).send().await.unwrap();
        assert_eq!(refused.status(), 401);
    }
    let log = server.log();
    let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(lines(" WARN  landfall::peer::tls] no TLS with 127.0.0.1:"), 3, "{log}");
    let logins = lines(" WARN  landfall::peer::login] 127.0.0.1 is denied: the token is wrong");
    assert_eq!(logins, 3, "{log}");
    assert_eq!(lines(" WARN  rustls") + lines(" ERROR rustls") + lines("actix_http"), 0, "{log}");
}

// ---- reload ---------------------------------------------------------------------------------------------------------

const READ_AGAIN: &str = "read again who may call: ";
const STAYS: &str = "the credentials stay unchanged: ";

#[tokio::test]
async fn sighup_reloads_only_valid_credential_files() {
    let folder = tempfile::tempdir().unwrap();
    let (hash, users) = (folder.path().join("hash"), folder.path().join("users.toml"));
    let user = |name: &str| {
        format!("[[users]]\nname = \"{name}\"\nrole = \"read\"\npassword_hash = \"{}\"\n", cheap_hash("x"))
    };
    std::fs::write(&hash, cheap_hash("first")).unwrap();
    std::fs::write(&users, user("canary-a")).unwrap();
    let config = format!(
        "[auth]\nusers_file = \"{}\"\n[[auth.tokens]]\nname = \"one\"\nhash = {{ file = \"{}\" }}\n",
        users.display(),
        hash.display()
    );
    let server = Landfall::with().config(&config).start();
    let status = async |token: &str| {
        send(&server, "POST", "/v1/validate", Some(&format!("Bearer {token}"))).await.status().as_u16()
    };
    assert_eq!((status("first").await, status("second").await), (200, 401));

    // A reload applies all files or none.
    std::fs::write(&hash, cheap_hash("second")).unwrap();
    std::fs::write(&users, "").unwrap();
    server.reload(STAYS).await;
    assert_eq!((status("first").await, status("second").await), (200, 401));

    std::fs::write(&users, user("canary-a") + &user("canary-b")).unwrap();
    server.reload(&format!("{READ_AGAIN}2 users, 1 tokens")).await;
    assert_eq!((status("first").await, status("second").await), (401, 200));

    std::fs::write(&hash, "canary-plain").unwrap();
    server.reload(STAYS).await;
    assert_eq!(status("second").await, 200);
    std::fs::remove_file(&hash).unwrap();
    server.reload(STAYS).await;
    assert_eq!(status("second").await, 200);
    assert!(!server.log().contains("canary"), "no names, no secrets: {}", server.log());
}

#[tokio::test]
async fn sighup_without_files_keeps_the_server_running() {
    let server = Landfall::start();
    server.reload(&format!("{READ_AGAIN}0 users, 0 tokens")).await;
    server.api().get("/landfall/v1/health").await.with_status(200);
}

#[tokio::test]
async fn sighup_reloads_the_tls_certificate() {
    let (first, second) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("server.crt"), folder.path().join("server.key"));
    let put = |(new, new_key): (PathBuf, PathBuf)| {
        std::fs::copy(new, &certificate).unwrap();
        std::fs::copy(new_key, &key).unwrap();
    };
    put(first.server());
    let server = Landfall::with().config(&tls_config((&certificate, &key), None)).start();
    let (old, new) = (first.certificate(), second.certificate());
    assert!(health(&server, Trust::File(&old), None).await.is_ok());

    std::fs::write(&key, "torn").unwrap();
    server.reload("the certificate stays unchanged: ").await;
    assert!(health(&server, Trust::File(&old), None).await.is_ok());

    put(second.server());
    server.reload("read the certificate again").await;
    assert!(health(&server, Trust::File(&new), None).await.is_ok());
    assert!(health(&server, Trust::File(&old), None).await.is_err());
}
