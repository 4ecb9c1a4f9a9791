//! The vendor's pages, word for word: every sample request of a page is sent unchanged, and the answer has the status
//! and the shape of the same page.
//!
//! tests/transcripts/ has the samples of the pages. Where a sample says `"descriptor": "string"`, or has lost the
//! indentation of its YAML, the request matches the schema and contains no descriptor: the answer is the page's
//! refusal. The same request with a descriptor gets the page's answer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};

use crate::contract::SLOW;
use crate::harness::{
    Answer, Api, Landfall, OUTPUT_PORT, cashflow, component_descriptor, product_request, replace_once,
    repository,
};

/// The samples of one page.
struct Page {
    exchanges: Vec<Exchange>,
    /// The samples of the page's schemas, by name.
    schemas: BTreeMap<String, Value>,
}

/// A sample request, with the answers of the page to it.
#[derive(Debug)]
struct Exchange {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Option<String>,
    answers: BTreeMap<u16, Printed>,
}

/// A sample answer.
#[derive(Debug, Default)]
struct Printed {
    schema: Option<String>,
    sample: Option<Value>,
}

impl Page {
    fn read(name: &str) -> Self {
        let file = repository().join("tests/transcripts").join(name);
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut page = Self { exchanges: Vec::new(), schemas: BTreeMap::new() };
        for block in text.split("\n### ").skip(1) {
            let (title, rest) = block.split_once('\n').unwrap();
            match title.split_once(' ').unwrap() {
                ("schema", name) => {
                    page.schemas.insert(name.to_owned(), serde_json::from_str(rest).unwrap());
                }
                (method, path) => page.exchanges.push(Exchange::read(method, path, rest)),
            }
        }
        page
    }

    fn exchange(&self, method: &str, path: &str) -> &Exchange {
        let found = self.exchanges.iter().find(|it| it.method == method && it.path == path);
        found.unwrap_or_else(|| panic!("the page prints no {method} {path}"))
    }
}

impl Exchange {
    fn read(method: &str, path: &str, text: &str) -> Self {
        let mut answers = text.split("\n< ");
        let request = answers.next().unwrap();
        let (headers, body) = request.split_once("\n\n").unwrap_or((request, ""));
        let header =
            |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
        let answer = |text: &str| {
            let (line, sample) = text.split_once('\n').unwrap_or((text, ""));
            let (status, schema) = line.split_once(' ').unwrap_or((line, ""));
            // One page prints a token without quotes.
            let sample = Some(sample.trim())
                .filter(|it| !it.is_empty())
                .map(|text| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())));
            let schema = Some(schema.to_owned()).filter(|it| !it.is_empty());
            (status.parse().unwrap(), Printed { schema, sample })
        };
        Self {
            method: method.to_owned(),
            path: path.replace("{{version}}", "0.0.1"),
            headers: headers.lines().filter_map(header).collect(),
            body: Some(body.trim().to_owned()).filter(|it| !it.is_empty()),
            answers: answers.map(answer).collect(),
        }
    }

    /// Sends the sample request with `body`, and with `token` where the path has a placeholder.
    async fn send(&self, api: &Api, body: Option<String>, token: &str) -> Answer {
        let path = self.path.replace("{token}", token);
        let headers = self.headers.clone();
        api.send(&self.method, &path, |mut request| {
            for (name, value) in headers {
                request = request.header(name, value);
            }
            match body {
                Some(body) => request.body(body),
                None => request,
            }
        })
        .await
    }

    /// The sample body with a descriptor.
    fn with_a_descriptor(&self) -> Option<String> {
        let mut body: Value = serde_json::from_str(self.body.as_deref()?).unwrap();
        if body["descriptor"].is_string() {
            body["descriptor"] = json!(cashflow());
        }
        if let Some(request) = body.pointer_mut("/provisionInfo/request") {
            *request = json!(component_descriptor(&cashflow(), OUTPUT_PORT));
        }
        if body["useCaseTemplateId"].is_string() {
            body["useCaseTemplateId"] = json!("urn:dmb:utm:output-port-template:1.0.0");
            body["environment"] = json!("production");
            body["params"]["namespace"] = json!("nobody");
            body["params"]["table"] = json!("nothing");
        }
        Some(body.to_string())
    }

    /// Asserts that the page documents the status and the shape of an answer to this request.
    #[track_caller]
    fn assert_documented(&self, page: &Page, answer: &Answer) {
        let place = format!("{} {}: {answer:?}", self.method, self.path);
        let printed =
            self.answers.get(&answer.status).unwrap_or_else(|| panic!("no such status on the page: {place}"));
        let is_token = answer.status == 202;
        if is_token && !self.headers.iter().any(|(name, _)| name == "Accept") {
            return assert!(answer.content_type.starts_with("text/plain"), "{place}");
        }
        let schema = printed.schema.as_deref().and_then(|name| page.schemas.get(name));
        for sample in printed.sample.iter().chain(schema) {
            check_same_shape("", &answer.json(), sample).unwrap_or_else(|what| panic!("{what}: {place}"));
        }
        if is_token {
            assert!(answer.json().is_string(), "{place}");
        }
    }
}

/// Objects in which the pages show example keys.
const OPEN_OBJECTS: [&str; 2] = ["updates", "publicInfo"];

/// Returns an error if a value of the answer has another type than in the sample.
fn check_same_shape(path: &str, ours: &Value, printed: &Value) -> Result<(), String> {
    match (ours, printed) {
        (Value::Object(ours), Value::Object(printed)) => {
            for (key, printed) in printed {
                let path = format!("{path}.{key}");
                match ours.get(key) {
                    Some(ours) if OPEN_OBJECTS.contains(&key.as_str()) && ours.is_object() => {}
                    Some(ours) => check_same_shape(&path, ours, printed)?,
                    None => {}
                }
            }
            Ok(())
        }
        (Value::Array(ours), Value::Array(printed)) => match printed.first() {
            Some(printed) => {
                ours.iter().try_for_each(|ours| check_same_shape(&format!("{path}[]"), ours, printed))
            }
            None => Ok(()),
        },
        (Value::String(_), Value::String(_)) | (Value::Bool(_), Value::Bool(_)) => Ok(()),
        _ => Err(format!("`{path}` is {ours} and not such as {printed}")),
    }
}

/// The paths of values that the sample has and the answer does not have.
fn missing(path: &str, ours: &Value, printed: &Value) -> BTreeSet<String> {
    match (ours, printed) {
        (Value::Object(ours), Value::Object(printed)) => printed
            .iter()
            .flat_map(|(key, printed)| {
                let path = format!("{path}.{key}");
                match ours.get(key) {
                    Some(_) if OPEN_OBJECTS.contains(&key.as_str()) => BTreeSet::new(),
                    Some(ours) => missing(&path, ours, printed),
                    None => BTreeSet::from([path]),
                }
            })
            .collect(),
        (Value::Array(ours), Value::Array(printed)) => match (ours.last(), printed.first()) {
            (Some(ours), Some(printed)) => missing(&format!("{path}[]"), ours, printed),
            _ => BTreeSet::new(),
        },
        _ => BTreeSet::new(),
    }
}

#[track_caller]
fn assert_complete(answer: &Value, printed: &Value) {
    assert_eq!(missing("", answer, printed), BTreeSet::new(), "{answer:#}");
    check_same_shape("", answer, printed).unwrap_or_else(|what| panic!("{what}: {answer:#}"));
}

const PAGES: [&str; 3] =
    ["tech-adapter-2.6.3.http", "specific-provisioner-2.2.0.http", "airbyte-specific-provisioner.http"];

const UNKNOWN: &str = "3da5d0a2-9f3b-4a11-85a3-b5ddb73da032";

/// Asserts the refusal of a page: 400, or `valid: false` if the page has no 400.
#[track_caller]
fn assert_refused(exchange: &Exchange, answer: &Answer) {
    if exchange.answers.contains_key(&400) {
        let errors = answer.with_status(400).json();
        assert!(!errors["errors"].as_array().unwrap().is_empty(), "{}: {errors:#}", exchange.path);
    } else {
        let verdict = answer.with_status(200).json();
        assert_eq!(verdict["valid"], false, "{}: {verdict:#}", exchange.path);
    }
}

#[tokio::test]
async fn printed_samples_fit_the_schema_and_are_refused() {
    let server = Landfall::start();
    let api = server.api();
    for name in PAGES {
        let page = Page::read(name);
        for exchange in &page.exchanges {
            let answer = exchange.send(api, exchange.body.clone(), UNKNOWN).await;
            // After a 202, a task checks the request.
            let is_task = answer.status == 202;
            if is_task {
                assert!(exchange.path.starts_with("/v2/validate") || exchange.path.contains("reverse"));
            } else {
                assert_refused(exchange, &answer);
                let schema = !answer.text.contains("does not fit the contract");
                assert!(schema, "{}: the sample does not fit the schema: {answer:?}", exchange.path);
            }
            exchange.assert_documented(&page, &answer);
            // The samples for curl and Python have no body.
            if exchange.body.is_some() {
                assert_refused(exchange, &exchange.send(api, None, UNKNOWN).await);
            }
        }
    }
    server.settle().await;
}

/// The sequence of the page, with a descriptor; each token is polled as on the page.
#[tokio::test]
async fn samples_with_a_descriptor_get_the_documented_answer() {
    let server = Landfall::start();
    let api = server.api();
    for name in PAGES {
        let page = Page::read(name);
        for exchange in page.exchanges.iter().filter(|it| it.body.is_some()) {
            let answer = exchange.send(api, exchange.with_a_descriptor(), "").await;
            exchange.assert_documented(&page, &answer);
            if exchange.path.ends_with("/v1/validate") || exchange.path.ends_with("0.0.1/validate") {
                assert_eq!(answer.with_status(200).json(), json!({ "valid": true }));
                continue;
            }
            let token = answer.token();
            let polled = status_exchange(&page, exchange);
            loop {
                let answer = polled.send(api, None, &token).await;
                answer.with_status(200);
                polled.assert_documented(&page, &answer);
                if answer.json()["status"] != "RUNNING" {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
    }
}

/// The page's status request for the task of an exchange.
fn status_exchange<'p>(page: &'p Page, exchange: &Exchange) -> &'p Exchange {
    let stem = exchange.path.replace("unprovision", "provision").replace("updateacl", "provision");
    page.exchange("GET", &format!("{stem}/{{token}}/status"))
}

/// A server that waits for the end of short work answers with the 200 that the pages show first.
#[tokio::test]
async fn respond_within_answers_samples_with_a_direct_200() {
    let server = Landfall::with().config("[server]\nrespond_within = \"30s\"\n").start();
    for name in PAGES {
        let page = Page::read(name);
        for exchange in page.exchanges.iter().filter(|it| it.body.is_some()) {
            let answer = exchange.send(server.api(), exchange.with_a_descriptor(), "").await;
            exchange.assert_documented(&page, &answer);
            let asynchronous = exchange.path.ends_with("/v2/validate");
            answer.with_status(if asynchronous { 202 } else { 200 });
        }
    }
    server.settle().await;
}

/// The samples of the schemas show every attribute. For each schema, the test gets an answer with all
/// attributes.
#[tokio::test]
async fn answers_contain_every_documented_attribute() {
    let server = Landfall::start();
    let api = server.api();
    let page = Page::read("specific-provisioner-2.2.0.http");
    let wrong = replace_once(&cashflow(), "dataType: number", "dataType: numbr");

    let done = api.provision_and_wait(&product_request(&cashflow())).await;
    assert_complete(&done, &page.schemas["ProvisioningStatus"]);
    let token = api.post("/v2/validate", &product_request(&wrong)).await.token();
    let verdict = api.wait_at("/v2/validate", &token).await;
    assert_complete(&verdict, &page.schemas["ValidationStatus"]);
    assert_complete(&verdict["info"]["publicInfo"], &page.schemas["ValidationResult"]);
    let shown = page.exchange("POST", "/v1/validate").answers[&200].sample.as_ref().unwrap();
    assert_complete(&api.validate(&product_request(&wrong)).await, shown);
    let refused = api.post("/v1/provision", &product_request(&wrong)).await.with_status(400).json();
    assert_complete(&refused, &page.schemas["RequestValidationError"]);
    let import = page.exchange("POST", "/v1/reverse-provisioning");
    // The sample has the inputs of some template. This import also needs the name of a table.
    let mut asked: Value = serde_json::from_str(import.body.as_deref().unwrap()).unwrap();
    asked["params"]["table"] = json!("cashflow_output_port");
    let token = api.post("/v1/reverse-provisioning", &asked).await.token();
    let imported = api.wait_at("/v1/reverse-provisioning", &token).await;
    let mut printed = page.schemas["ReverseProvisioningStatus"].clone();
    // The phase of a log line is a component, and an import has no component.
    printed["logs"][0].as_object_mut().unwrap().remove("phase");
    assert_complete(&imported, &printed);
}

/// All pages have RUNNING, COMPLETED and FAILED. Only the 2.6.3 page has TERMINATED. For a client of the
/// Airbyte contract, a stopped task is FAILED.
#[tokio::test]
async fn every_documented_status_value_is_answered() {
    let server = Landfall::with().config(SLOW).start();
    let api = server.api();
    let pages = PAGES.map(Page::read);
    let [tech_adapter, _, airbyte] = &pages;
    let provision = tech_adapter.exchange("POST", "/v1/provision");
    let stop = tech_adapter.exchange("POST", "/v1/provision/{token}/stop");
    let status = tech_adapter.exchange("GET", "/v1/provision/{token}/status");
    let elsewhere = status_exchange(
        airbyte,
        airbyte.exchange("POST", "/datamesh.airbytespecificprovisioner/0.0.1/provision"),
    );

    let token = provision.send(api, provision.with_a_descriptor(), "").await.token();
    for (exchange, page) in [(status, tech_adapter), (elsewhere, airbyte)] {
        let running = exchange.send(api, None, &token).await;
        exchange.assert_documented(page, &running);
        assert_eq!(running.json()["status"], "RUNNING");
    }
    let stopping = stop.send(api, None, &token).await;
    stop.assert_documented(tech_adapter, &stopping);
    assert_eq!(stopping.with_status(202).token(), token);
    api.wait(&token).await;
    let stopped = stop.send(api, None, &token).await;
    stop.assert_documented(tech_adapter, &stopped);
    assert_eq!(stopped.with_status(200).json()["status"], "TERMINATED");
    let failed = elsewhere.send(api, None, &token).await;
    elsewhere.assert_documented(airbyte, &failed);
    assert_eq!(failed.json()["status"], "FAILED");
    let result = failed.json()["result"].as_str().unwrap().to_owned();
    assert!(result.contains("stopped"), "{result}");
    assert_eq!(result, stopped.json()["result"], "it says the same in both");
}

/// The sample data product of the 2.6.3 page is the example of this repository, except for lost indentation.
#[test]
fn example_matches_the_data_product_of_the_page() {
    let page = Page::read("tech-adapter-2.6.3.http");
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    for exchange in page.exchanges.iter().filter_map(|it| it.body.as_deref()) {
        let body: Value = serde_json::from_str(exchange).unwrap();
        if let Some(descriptor) = body["descriptor"].as_str() {
            assert_eq!(words(descriptor), words(&cashflow()));
        }
    }
}
