//! Descriptors and requests that try to exhaust the server. Each is refused within a second, memory stays small, and
//! the server serves all other callers.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{
    Answer, Api, Landfall, OUTPUT_PORT, STORAGE, WORKLOAD, cashflow, component_descriptor, component_request,
    http, product_request, replace_once, repository, walk,
};

/// A second; two without compiler optimisation.
const SOON: Duration = Duration::from_secs(if cfg!(debug_assertions) { 2 } else { 1 });
const MEGABYTE: usize = 1_000_000;
const JSON: &str = "application/json";
const MEMORY: u64 = 200 * 1024 * 1024;

#[tokio::test]
async fn hostile_descriptors_are_refused_quickly_with_little_memory() {
    let server = Landfall::with().alone().start();
    let api = server.api();
    let mut wrong = Vec::new();
    let mut requests = corpus();
    requests.extend(hostile());
    assert!(requests.len() >= 100, "only {} hostile descriptors", requests.len());
    for (name, request) in requests {
        let body = request.to_string().into_bytes();
        let (answer, took) = timed(api, "/v1/validate", JSON, &body).await;
        if answer.status != 200 || answer.json()["valid"] != false || took > SOON {
            wrong.push(format!("{name}: validate took {took:?}: {}", short(&answer.text)));
        }
        let (answer, took) = timed(api, "/v1/provision", JSON, &body).await;
        if answer.status != 400 || took > SOON {
            wrong.push(format!("{name}: provision took {took:?}: {} {}", answer.status, short(&answer.text)));
        }
        if answer.text.len() > MEGABYTE {
            wrong.push(format!("{name}: the refusal has {} bytes", answer.text.len()));
        }
    }
    assert!(wrong.is_empty(), "{} answers are not as they must be:\n{}", wrong.len(), wrong.join("\n"));
    assert_unharmed(&server).await;
    assert_eq!(server.resources().await.tables, []);
}

#[tokio::test]
async fn hostile_requests_are_refused_quickly_with_little_memory() {
    let server = Landfall::with().alone().start();
    let api = server.api();
    let good = product_request(&cashflow()).to_string().into_bytes();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("not JSON", b"descriptorKind: DATAPRODUCT_DESCRIPTOR".to_vec()),
        ("torn JSON", good[..good.len() / 2].to_vec()),
        ("two documents", [good.clone(), good.clone()].concat()),
        ("trailing comma", b"{\"descriptorKind\":\"COMPONENT_DESCRIPTOR\",}".to_vec()),
        (
            "duplicate keys",
            b"{\"descriptor\":\"a\",\"descriptor\":\"b\",\"descriptorKind\":\"COMPONENT_DESCRIPTOR\"}"
                .to_vec(),
        ),
        ("invalid UTF-8", [b"{\"descriptor\":\"\xff\xfe\",".as_slice(), &good[1..]].concat()),
        ("a lone surrogate", br#"{"descriptor":"\ud800","descriptorKind":"COMPONENT_DESCRIPTOR"}"#.to_vec()),
        ("a byte order mark", [b"\xef\xbb\xbf".as_slice(), b"{}"].concat()),
        ("UTF-16", "{}".encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("NUL bytes", vec![0; 1000]),
        ("deep arrays", b"[".repeat(MEGABYTE)),
        ("deep objects", b"{\"a\":".repeat(MEGABYTE / 5)),
        ("10 MB of blanks", vec![b' '; 10 * MEGABYTE]),
        ("10 MB of a string", [b"{\"descriptor\":\"".as_slice(), &vec![b'a'; 10 * MEGABYTE]].concat()),
        ("10 MB of zeros", b"0".repeat(10 * MEGABYTE)),
        ("a huge number", [b"{\"removeData\":1e".as_slice(), &b"9".repeat(1000), b"}"].concat()),
    ];
    for (name, body) in cases {
        for path in
            ["/v1/provision", "/v1/unprovision", "/v2/validate", "/v1/updateacl", "/v1/reverse-provisioning"]
        {
            let (answer, took) = timed(api, path, JSON, &body).await;
            assert_eq!(answer.status, 400, "{name} at {path}: {}", short(&answer.text));
            assert!(took < SOON, "{name} at {path} took {took:?}");
        }
        let (answer, took) = timed(api, "/v1/validate", JSON, &body).await;
        assert_eq!(answer.with_status(200).json()["valid"], false, "{name}");
        assert!(took < SOON, "{name} at /v1/validate took {took:?}");
    }
    assert_unharmed(&server).await;
}

/// A body that is not declared as JSON is refused in the contract's own shape, never in the framework's: a web page
/// can send it to any server.
#[tokio::test]
async fn wrong_content_type_gets_a_contract_error() {
    let server = Landfall::start();
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "image/png", "nonsense", ""] {
        let answer = server
            .api()
            .send("POST", "/v1/provision", |http| http.header("content-type", content_type).body("a=b"))
            .await;
        assert_eq!(answer.status, 400, "{content_type}: {answer:?}");
    }
    let request = component_request(&cashflow(), WORKLOAD).to_string();
    let without = |path: &'static str| server.api().send("POST", path, |http| http.body(request.clone()));
    let message = "the Content-Type is missing, send `application/json`";
    assert_eq!(without("/v1/provision").await.with_status(400).json()["errors"], json!([message]));
    let verdict = without("/v1/validate").await.with_status(200).json();
    assert_eq!((&verdict["valid"], &verdict["error"]["errors"]), (&json!(false), &json!([message])));
    for content_type in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json"] {
        let body = request.clone();
        let sent = server
            .api()
            .send("POST", "/v1/validate", |http| http.header("content-type", content_type).body(body));
        assert_eq!(sent.await.with_status(200).json(), json!({ "valid": true }), "{content_type}");
    }
}

#[tokio::test]
async fn wrong_method_or_path_gets_an_error_message() {
    let server = Landfall::start();
    for (method, path, status, said) in [
        (
            "DELETE",
            "/v1/provision",
            405,
            "no operation has the method `DELETE` at `/v1/provision`; use one of: POST",
        ),
        (
            "POST",
            "/landfall/v1/live",
            405,
            "no operation has the method `POST` at `/landfall/v1/live`; use one of: GET, HEAD",
        ),
        (
            "GET",
            "/v9/provision",
            404,
            "no operation has the path `/v9/provision`; see the API contract for its operations",
        ),
    ] {
        let answer = server.api().send(method, path, |http| http).await;
        assert_eq!(answer.with_status(status).json()["message"], said);
        assert!(said.starts_with(answer.json()["error"].as_str().unwrap()), "{answer:?}");
    }
}

/// A web page in a browser on this machine must not reach the server, also if authentication is off.
#[tokio::test]
async fn requests_from_foreign_web_pages_are_refused() {
    let server =
        Landfall::with().config("[server]\nallowed_origins = [\"https://console.example\"]\n").start();
    let own = server.api().url().to_owned();
    let port = own.rsplit_once(':').expect("a port").1.to_owned();
    let request = component_request(&cashflow(), WORKLOAD);
    let send = async |method: &str, path: &str, headers: &[(&str, &str)]| {
        let mut sent = http().build().unwrap().request(method.parse().unwrap(), format!("{own}{path}"));
        for (name, value) in headers {
            sent = sent.header(*name, *value);
        }
        let sent = if method == "GET" { sent } else { sent.json(&request) };
        let response = sent.send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap_or_default())
    };
    let foreign: &[&[(&str, &str)]] = &[
        &[("origin", "http://evil.example")],
        &[("origin", "null")],
        &[("origin", "http://localhost:3000")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("host", "evil.example")],
        &[("host", "rebound.example:8093"), ("origin", "http://rebound.example:8093")],
    ];
    let operations = [
        ("POST", "/v1/provision"),
        ("POST", "/v1/validate"),
        ("GET", "/v1/provision/x/status"),
        ("GET", "/landfall/v1/health"),
        ("GET", "/flexdeploy/rest/v1/topology/instance"),
        ("POST", "/flexdeploy/rest/v1/topology/instance"),
        ("OPTIONS", "/v1/provision"),
    ];
    for headers in foreign {
        for (method, path) in operations {
            let (status, body) = send(method, path, headers).await;
            assert_eq!(status, 403, "{method} {path} {headers:?}: {body}");
            let said = [&body["error"], &body["message"], &body["moreInfo"]["solutions"][0]];
            assert!(said.iter().all(|text| text.is_string()), "{body:#}");
        }
    }
    for headers in [
        &[("origin", own.as_str()), ("sec-fetch-site", "same-origin")][..],
        &[("origin", "https://console.example"), ("sec-fetch-site", "cross-site")],
        &[("host", &format!("localhost:{port}"))],
        &[("sec-fetch-site", "none")],
    ] {
        assert_eq!(
            send("POST", "/v1/validate", headers).await,
            (200, json!({ "valid": true })),
            "{headers:?}"
        );
    }
    let log = server.log();
    assert!(log.contains("answering 403 to 127.0.0.1: the request comes from a web page of `null`"), "{log}");
}

/// The limit applies before memory is exhausted.
#[tokio::test]
async fn body_over_the_limit_is_refused() {
    let server = Landfall::with().alone().start();
    let request = product_request(&"a".repeat(100 * MEGABYTE));
    let sent = tokio::time::timeout(
        Duration::from_secs(30),
        http().build().unwrap().post(format!("{}/v1/provision", server.api().url())).json(&request).send(),
    )
    .await
    .expect("an end within the time limit");
    // The server may close the connection before the whole body is sent, which the client sees as an error.
    if let Ok(response) = sent {
        assert_eq!(response.status().as_u16(), 400);
    }
    assert_unharmed(&server).await;
}

/// Sends a request, and returns the answer and its duration. On a busy machine there is one more attempt.
async fn timed(api: &Api, path: &str, content_type: &str, body: &[u8]) -> (Answer, Duration) {
    let mut tries = 0;
    loop {
        let body = body.to_vec();
        let start = Instant::now();
        let answer =
            api.send("POST", path, |http| http.header("content-type", content_type).body(body)).await;
        let took = start.elapsed();
        tries += 1;
        if took < SOON || tries == 2 {
            return (answer, took);
        }
    }
}

async fn assert_unharmed(server: &Landfall) {
    if let Some(memory) = server.peak_memory() {
        assert!(memory < MEMORY, "{} MiB of memory were used", memory / 1024 / 1024);
    }
    let result = server.api().validate(&product_request(&cashflow())).await;
    assert_eq!(result, json!({ "valid": true }), "the server answers on");
    server.api().provision_and_wait(&component_request(&cashflow(), WORKLOAD)).await;
}

fn short(text: &str) -> String {
    text.chars().take(300).collect()
}

/// The files of tests/corpus/hostile, as data products or components, by their content.
fn corpus() -> Vec<(String, Value)> {
    let mut requests = Vec::new();
    walk(&repository().join("tests/corpus/hostile"), &mut |path| {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        // JSON cannot carry bytes that are not UTF-8. The test replaces them, as a client does.
        let bytes = std::fs::read(path).expect("a file of the corpus");
        let text = String::from_utf8_lossy(&bytes);
        let kind = if text.contains("componentIdToProvision") {
            "COMPONENT_DESCRIPTOR"
        } else {
            "DATAPRODUCT_DESCRIPTOR"
        };
        requests.push((name, json!({ "descriptorKind": kind, "descriptor": text })));
    });
    requests.sort_by(|(a, _), (b, _)| a.cmp(b));
    requests
}

/// Documents that the test generates.
fn hostile() -> Vec<(String, Value)> {
    let mut texts: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, text: String| texts.push((name.to_owned(), text));

    // The YAML itself.
    for (name, text) in [
        ("empty", ""),
        ("blank", " \n\t\n"),
        ("only a comment", "# nothing"),
        ("null", "~"),
        ("a number", "42"),
        ("a string", "urn:dmb:dp:finance:cashflow:0"),
        ("a list", "- a\n- b"),
        ("two documents", "---\nid: a\n---\nid: b"),
        ("an unclosed quote", "id: \"urn:dmb"),
        ("an unclosed list", "components: [[["),
        ("a tab", "id: a\n\tname: b"),
        ("an unknown alias", "id: *nobody"),
        ("an alias of itself", "components: &a [*a]"),
        ("a python object", "id: !!python/object/apply:os.system ['true']"),
        ("a binary tag", "id: !!binary aGVsbG8="),
        ("a local tag", "id: !mine x"),
        ("a directive", "%YAML 9.9\n---\nid: a"),
        ("a complex key", "? [a, b]\n: c"),
        ("NUL", "id: \0"),
        ("control characters", "id: \u{1}\u{7}\u{1b}[31m"),
        ("a byte order mark in the middle", "id: a\n\u{feff}name: b"),
        ("not a character", "id: \u{ffff}\u{fffe}"),
    ] {
        add(name, text.to_owned());
    }
    add("100k flow mappings deep", "{a: ".repeat(100_000));
    add("100k flow sequences deep", "[".repeat(100_000));
    add("100k closed sequences deep", format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)));
    add("2k block mappings deep", (0..2000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect());
    add("block sequences deep", "- ".repeat(50_000));
    let laughs: String = (1..12)
        .map(|level| {
            let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
            format!("a{level}: &a{level} [{aliases}]\n")
        })
        .collect();
    add("a billion laughs", format!("a0: &a0 lol\n{laughs}components: *a11\n"));
    add("200k aliases", format!("x: &x {}\ny: [{}]", "v".repeat(1000), "*x, ".repeat(200_000)));
    add("100k anchors", (0..100_000).map(|n| format!("k{n}: &a{n} v\n")).collect());
    add("merge keys", "base: &b {id: a}\nx: {<<: *b}\n".to_owned());
    add("10 MB of a plain scalar", format!("id: {}", "a".repeat(10 * MEGABYTE)));
    add("10 MB of a key", format!("{}: a", "k".repeat(10 * MEGABYTE)));
    add("10 MB of a comment", format!("#{}\nid: a", "c".repeat(10 * MEGABYTE)));
    add("10 MB of newlines", "\n".repeat(10 * MEGABYTE));
    add("10 MB of dashes", "-\n".repeat(5 * MEGABYTE));
    add("10 MB of colons", ": ".repeat(5 * MEGABYTE));
    add("10 MB of quotes", "\"a\" ".repeat(MEGABYTE * 5 / 2));
    add("10 MB of emoji", "💩".repeat(MEGABYTE * 5 / 2));
    add("10 MB of a block scalar", format!("id: |\n{}", "  aaaaaaa\n".repeat(MEGABYTE)));
    add("10 MB of components", format!("{}components:\n{}", head(), "- {}\n".repeat(MEGABYTE * 5 / 2)));
    add(
        "100k components",
        format!("{}components:\n{}", head(), "- {kind: storage, id: x}\n".repeat(100_000)),
    );
    add("a key twice", format!("{}\nid: urn:dmb:dp:finance:cashflow:1", cashflow()));
    add("a key 10k times", format!("{}{}", cashflow(), "\nname: a".repeat(10_000)));

    // A valid descriptor with one fault: (the original text, its replacement).
    let spoilt = [
        ("id: urn:dmb:dp:finance:cashflow:0\n", "id: urn:dmb:dp:finance:cashflow:zero\n"),
        ("id: urn:dmb:dp:finance:cashflow:0\n", "id: urn:dmb:dp:finance:cashflow:99999999999999999999999\n"),
        ("id: urn:dmb:dp:finance:cashflow:0\n", "id: [urn:dmb:dp:finance:cashflow:0]\n"),
        ("id: urn:dmb:dp:finance:cashflow:0\n", "id: {a: b}\n"),
        ("id: urn:dmb:dp:finance:cashflow:0\n", "id: ~\n"),
        ("id: urn:dmb:dp:finance:cashflow:0\n", "id: [0x41]\n"),
        ("id: urn:dmb:dp:finance:cashflow:0\n", ""),
        ("version: 0.1.0\n", "version: 7.1.0\n"),
        ("version: 0.1.0\n", "version: latest\n"),
        ("version: 0.1.0\n", "version: [0, 1, 0]\n"),
        ("version: 0.1.0\n", "version: 1e999999999\n"),
        ("environment: production\n", ""),
        ("environment: production\n", "environment: [production]\n"),
        ("environment: production\n", "environment: \"\"\n"),
        ("components:\n", "parts:\n"),
        ("kind: outputport", "kind: spaceship"),
        ("kind: outputport", "kind: [outputport]"),
        ("kind: outputport", "kind: 1e400"),
        ("  - kind: storage\n", "  - kind: ~\n"),
        ("id: urn:dmb:cmp:finance:cashflow:0:cashflow-calculation\n", "id: {a: 12}\n"),
        (
            "id: urn:dmb:cmp:finance:cashflow:0:cashflow-calculation\n",
            "id: urn:dmb:cmp:finance:cashflow:0:cashflow-output-port\n",
        ),
        ("id: urn:dmb:cmp:finance:cashflow:0:cashflow-calculation\n", "name2: x\n"),
        (
            "      - urn:dmb:cmp:finance:cashflow:0:storage-component\n",
            "      - urn:dmb:cmp:finance:cashflow:0:nobody\n",
        ),
        (
            "      - urn:dmb:cmp:finance:cashflow:0:storage-component\n",
            "      - urn:dmb:cmp:finance:cashflow:0:cashflow-calculation\n",
        ),
        ("      - urn:dmb:cmp:finance:cashflow:0:storage-component\n", "      - {a: b}\n"),
        ("      - urn:dmb:cmp:finance:cashflow:0:storage-component\n", "      - [17]\n"),
        ("dataType: number", "dataType: numbr"),
        ("dataType: number", "dataType: ~"),
        ("dataType: number", "dataType: [number]"),
        ("dataType: number", "dataType: no"),
        ("dataType: number", "dataType: VARCHAR"),
        ("dataType: number", "dataType: CHAR\n          dataLength: 0"),
        ("dataType: number", "dataType: CHAR\n          dataLength: -1"),
        ("dataType: number", "dataType: CHAR\n          dataLength: 99999999999999999999999999"),
        ("dataType: number", "dataType: CHAR\n          dataLength: .inf"),
        ("dataType: number", "dataType: CHAR\n          dataLength: ten"),
        ("dataType: number", "dataType: ARRAY"),
        ("dataType: number", "dataType: ARRAY\n          arrayDataType: nothing"),
        ("dataType: number", "dataType: STRUCT\n          children: {}"),
        ("dataType: number", "dataType: STRUCT\n          children: [1, 2]"),
        ("dataType: number", "dataType: MAP\n          children: []"),
        ("- name: amount\n", "- name: id\n"),
        ("- name: amount\n", "- name: ~\n"),
        ("- name: amount\n", "- name: {}\n"),
        ("- name: amount\n", "- name: \"\"\n"),
        ("- name: amount\n", "- nam: amount\n"),
        ("bucket: finance-cashflows", "bucket: Finance"),
        ("bucket: finance-cashflows", "bucket: a"),
        ("bucket: finance-cashflows", "bucket: ../../../tmp/escape"),
        ("bucket: finance-cashflows", "bucket: /etc/passwd"),
        ("bucket: finance-cashflows", "bucket: 192.168.5.4"),
        ("bucket: finance-cashflows", "bucket: a..b"),
        ("bucket: finance-cashflows", "bucket: \"a\\0b\""),
        ("bucket: finance-cashflows", "bucket: [finance-cashflows]"),
        ("bucket: finance-cashflows", "bucket: no"),
        ("bucket: finance-cashflows", "bucket: 1e3"),
        ("bucket: finance-cashflows", "buckt: finance-cashflows"),
        ("format: Iceberg", "format: Excel"),
        ("format: Iceberg", "format: [Iceberg]"),
        ("format: Iceberg", "format: Iceberg\n      loadSampleData: maybe"),
        ("format: Iceberg", "format: Iceberg\n      loadSampelData: true"),
        ("version: 0.0.0\n    dependsOn:\n", "version: {major: 0}\n    dependsOn:\n"),
        ("      schema:\n", "      schema: none\n      columns:\n"),
    ];
    let good = cashflow();
    for (number, (from, to)) in spoilt.into_iter().enumerate() {
        let name = format!("spoilt {number}: `{}` for `{}`", to.trim(), from.trim());
        // The start of the line distinguishes a key at the top level from the same key in a component.
        let text = if from.ends_with('\n') && good.matches(from).count() > 1 {
            replace_once(&good, &format!("\n{from}"), &format!("\n{to}"))
        } else {
            replace_once(&good, from, to)
        };
        texts.push((name, text));
    }
    texts.push((
        "a huge schema".to_owned(),
        replace_once(
            &good,
            "      schema:\n",
            &format!("      schema:\n{}", "        - {name: a, dataType: string}\n".repeat(20_000)),
        ),
    ));

    let mut requests: Vec<_> = texts.into_iter().map(|(name, text)| (name, product_request(&text))).collect();

    // The same for a component.
    let mut component = |name: &str, text: String| {
        let request = json!({ "descriptorKind": "COMPONENT_DESCRIPTOR", "descriptor": text });
        requests.push((format!("component: {name}"), request));
    };
    let good = component_descriptor(&cashflow(), STORAGE);
    component(
        "no component of that id",
        replace_once(
            &good,
            &format!("componentIdToProvision: {STORAGE}"),
            "componentIdToProvision: urn:dmb:cmp:finance:cashflow:0:nobody",
        ),
    );
    component("no id", replace_once(&good, &format!("componentIdToProvision: {STORAGE}"), ""));
    component(
        "a list for an id",
        replace_once(
            &good,
            &format!("componentIdToProvision: {STORAGE}"),
            &format!("componentIdToProvision: [{OUTPUT_PORT}]"),
        ),
    );
    component("no data product", format!("componentIdToProvision: {STORAGE}"));
    component(
        "a data product that is a string",
        format!("dataProduct: x\ncomponentIdToProvision: {STORAGE}"),
    );
    component("a bare data product", cashflow());
    let nested = (0..60).fold(String::from("{}"), |inner, _| format!("{{components: [{inner}]}}"));
    component("nested for ever", format!("dataProduct: {nested}\ncomponentIdToProvision: {STORAGE}"));
    requests
}

/// The part of a valid descriptor before its components.
fn head() -> String {
    cashflow().split("components:").next().expect("a head").to_owned()
}

/// Many hostile requests at once do not delay a valid request.
#[tokio::test]
async fn valid_request_completes_during_an_attack() {
    let server = Landfall::with().alone().start();
    let bomb = product_request(&"{a: ".repeat(100_000));
    let attack = |api: Api| {
        let bomb = bomb.clone();
        tokio::spawn(async move {
            for _ in 0..5 {
                api.post("/v1/provision", &bomb).await.with_status(400);
            }
        })
    };
    let attackers: Vec<_> = (0..16).map(|_| attack(server.api().clone())).collect();
    let honest = Instant::now();
    server.api().provision_and_wait(&product_request(&cashflow())).await;
    assert!(honest.elapsed() < Duration::from_secs(5), "it took {:?}", honest.elapsed());
    for attacker in attackers {
        attacker.await.expect("no panic");
    }
    assert_unharmed(&server).await;
}
