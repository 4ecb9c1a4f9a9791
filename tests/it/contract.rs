//! The contracts, operation by operation: Tech Adapter 2.6.3, Specific Provisioner 2.2.0 and Airbyte.
//!
//! [`check`] checks every answer that any test gets against each contract that has the operation: an answer at a path
//! of 2.6.3 must also be valid for a client of 2.2.0. The tests below check what a schema cannot express.

use landfall::generated::runtime::{DecodeError, Operation};
use landfall::generated::{airbyte, flexdeploy, specific_provisioner, tech_adapter};
use serde_json::{Value, json};

use crate::auth::with_users;
use crate::harness::{
    AIRBYTE, Answer, Api, INSTANCES, Landfall, OUTPUT_PORT, PREFIX, STORAGE, Seen, acl_request,
    airbyte_acl_request, cashflow, component_request, product_request, query_write, replace_once,
};

/// A document of spec/, with the decoder of its generated module.
struct Contract {
    name: &'static str,
    operations: &'static [Operation],
    decode: fn(&Operation, &Answer) -> Result<(), DecodeError>,
}

macro_rules! contract {
    ($name:ident: $($operation:literal => $response:ident),* $(,)?) => {
        Contract {
            name: stringify!($name),
            operations: $name::server::OPERATIONS,
            decode: |operation, answer| {
                let (content_type, body) = (Some(answer.content_type.as_str()), answer.text.as_bytes());
                match operation.operation_id {
                    $($operation => {
                        $name::responses::$response::decode(answer.status, content_type, body).map(drop)
                    })*
                    other => panic!(concat!(stringify!($name), " has an operation unknown here: {}"), other),
                }
            },
        }
    };
}

const CONTRACTS: &[Contract] = &[
    contract!(tech_adapter:
        "asyncValidate" => AsyncValidateResponse,
        "getValidationStatus" => GetValidationStatusResponse,
        "validate" => ValidateResponse,
        "provision" => ProvisionResponse,
        "unprovision" => UnprovisionResponse,
        "getStatus" => GetStatusResponse,
        "stop" => StopResponse,
        "updateacl" => UpdateaclResponse,
        "reverseProvision" => ReverseProvisionResponse,
        "getReverseProvisioningStatus" => GetReverseProvisioningStatusResponse,
    ),
    contract!(specific_provisioner:
        "asyncValidate" => AsyncValidateResponse,
        "getValidationStatus" => GetValidationStatusResponse,
        "validate" => ValidateResponse,
        "provision" => ProvisionResponse,
        "unprovision" => UnprovisionResponse,
        "getStatus" => GetStatusResponse,
        "updateacl" => UpdateaclResponse,
        "reverseProvision" => ReverseProvisionResponse,
        "getReverseProvisioningStatus" => GetReverseProvisioningStatusResponse,
    ),
    contract!(airbyte:
        "validate" => ValidateResponse,
        "provision" => ProvisionResponse,
        "unprovision" => UnprovisionResponse,
        "getStatus" => GetStatusResponse,
        "updateacl" => UpdateaclResponse,
    ),
    contract!(flexdeploy:
        "findInstances" => FindInstancesResponse,
        "createInstance" => CreateInstanceResponse,
        "getInstance" => GetInstanceResponse,
        "replaceInstance" => ReplaceInstanceResponse,
        "updateInstance" => UpdateInstanceResponse,
    ),
];

/// Asserts that every contract with this operation declares the answer: its status, its content type and its schema.
/// Returns the operations and the status. The set is empty for a path of no contract.
#[track_caller]
pub(crate) fn check(method: &str, path: &str, answer: &Answer) -> Seen {
    verdict(method, path, answer).unwrap_or_else(|broken| panic!("{broken}"))
}

/// Like [`check`], but returns a violation as an error.
pub(crate) fn verdict(method: &str, path: &str, answer: &Answer) -> Result<Seen, String> {
    let path = path.strip_prefix(PREFIX).unwrap_or(path);
    let mut seen = Seen::new();
    for contract in CONTRACTS {
        let operation =
            contract.operations.iter().find(|it| it.method == method && matches_template(it.path, path));
        let Some(operation) = operation else { continue };
        if contract.name == "specific_provisioner" && is_terminated(answer) {
            continue;
        }
        if let Err(error) = (contract.decode)(operation, answer) {
            return Err(format!("{method} {path} broke the contract {}: {error}\n{answer:?}", contract.name));
        }
        seen.insert((contract.name, operation.operation_id, answer.status));
    }
    Ok(seen)
}

/// Whether the status is TERMINATED, the only status value of 2.6.3 that 2.2.0 does not have.
fn is_terminated(answer: &Answer) -> bool {
    serde_json::from_str::<Value>(&answer.text).is_ok_and(|body| body["status"] == "TERMINATED")
}

/// Whether a path matches a template such as `/v1/provision/{token}/status`.
fn matches_template(template: &str, path: &str) -> bool {
    let path = path.split('?').next().unwrap_or_default();
    let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len()
        && template.iter().zip(&path).all(|(part, actual)| part.starts_with('{') || part == actual)
}

/// The declared statuses that no test provokes, with the reason.
const NOT_EXERCISED: &[(&str, u16, &str)] =
    &[("findInstances", 403, "every user may read"), ("getInstance", 403, "every user may read")];

/// Routes all components to a slow mock.
pub(crate) const SLOW: &str = r#"
[targets.SLOW]
driver = "mock"
steps = 4
step_delay = "150ms"

[[routes]]
group = "mock"
"#;

const UNKNOWN: &str = "3da5d0a2-9f3b-4a11-85a3-b5ddb73da032";

const STATUS_PATHS: &[(&str, &str)] = &[
    ("GET", "/v2/validate/{}/status"),
    ("GET", "/v1/provision/{}/status"),
    ("POST", "/v1/provision/{}/stop"),
    ("GET", "/v1/reverse-provisioning/{}/status"),
];

fn import_request() -> Value {
    json!({
        "useCaseTemplateId": "urn:dmb:utm:output-port-template:1.0.0",
        "environment": "production",
        "params": { "namespace": "nobody", "table": "nothing" },
    })
}

#[tokio::test]
async fn every_declared_status_is_exercised_or_excused() {
    let mut seen = Seen::new();

    {
        let server = Landfall::start();
        exercise_accepted_and_refused(server.api()).await;
        exercise_topology(server.api()).await;
        exercise_broken_store(&server).await;
        seen.extend(server.api().seen());
    }
    {
        let server = with_users("").start();
        let api = server.api();
        for (method, path) in
            [("GET", ""), ("POST", ""), ("GET", "/11001"), ("PUT", "/11001"), ("PATCH", "/11001")]
        {
            let path = format!("{INSTANCES}{path}");
            api.send(method, &path, |request| request).await.with_status(401);
            if method != "GET" {
                api.send(method, &path, |request| request.basic_auth("eye", Some("right")))
                    .await
                    .with_status(403);
            }
        }
        seen.extend(api.seen());
    }
    {
        let server = Landfall::with().config("[server]\nrespond_within = \"30s\"\n").start();
        exercise_direct_answers(server.api()).await;
        seen.extend(server.api().seen());
    }
    {
        // A task that takes 2 s to stop has not ended when the stop request is answered.
        let server = Landfall::with().config(SLOW).env("LANDFALL__TARGETS__SLOW__STOP_DELAY", "2s").start();
        let api = server.api();
        let token = api.post("/v1/provision", &product_request(&cashflow())).await.token();
        until_it_logs(api, &token).await;
        let stop = format!("/v1/provision/{token}/stop");
        api.post(&stop, &json!({})).await.with_status(202);
        assert_eq!(api.wait(&token).await["status"], "TERMINATED");
        api.post(&stop, &json!({})).await.with_status(200);
        seen.extend(api.seen());
    }
    {
        let server = Landfall::with().config(SLOW).env("LANDFALL__TARGETS__SLOW__STOPPABLE", "false").start();
        let api = server.api();
        let token = api.post("/v1/provision", &component_request(&cashflow(), STORAGE)).await.token();
        until_it_logs(api, &token).await;
        api.post(&format!("/v1/provision/{token}/stop"), &json!({})).await.with_status(501);
        assert_eq!(api.wait(&token).await["status"], "COMPLETED");
        seen.extend(api.seen());
    }

    let declared: Seen = CONTRACTS
        .iter()
        .flat_map(|contract| contract.operations.iter().map(|operation| (contract.name, operation)))
        .flat_map(|(name, operation)| {
            operation.statuses.iter().map(move |it| (name, operation.operation_id, *it))
        })
        .collect();
    let excuse = |(_, operation, status): &(&str, &str, u16)| {
        NOT_EXERCISED.iter().find(|(name, number, _)| (name, number) == (operation, status))
    };
    let missing: Vec<_> = declared.difference(&seen).filter(|it| excuse(it).is_none()).collect();
    assert!(missing.is_empty(), "declared, and neither exercised nor excused: {missing:?}");
    let idle: Vec<_> = seen.iter().filter_map(excuse).collect();
    assert!(idle.is_empty(), "excused without need: {idle:?}");
    for (operation, status, _) in NOT_EXERCISED {
        let is_declared = declared.iter().any(|it| (it.1, it.2) == (*operation, *status));
        assert!(is_declared, "excused, and declared nowhere: {operation} {status}");
    }
}

async fn until_it_logs(api: &Api, token: &str) {
    while api.status(token).await["logs"] == json!([]) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Gets 202 and 400 from every operation that has them, and 200 from the status operations.
async fn exercise_accepted_and_refused(api: &Api) {
    let request = product_request(&cashflow());
    api.validate(&request).await;
    let token = api.post("/v2/validate", &request).await.token();
    assert_eq!(api.wait_at("/v2/validate", &token).await["status"], "COMPLETED");
    api.provision_and_wait(&request).await;
    api.complete("/v1/updateacl", &acl_request(&cashflow(), OUTPUT_PORT, &["user:alice_mydomain.com"])).await;
    let token = api.post("/v1/reverse-provisioning", &import_request()).await.token();
    let imported = api.wait_at("/v1/reverse-provisioning", &token).await;
    assert_eq!(imported["status"], "FAILED", "there is nothing of that name: {imported:#}");
    api.complete("/v1/unprovision", &request).await;

    for path in
        ["/v2/validate", "/v1/provision", "/v1/unprovision", "/v1/updateacl", "/v1/reverse-provisioning"]
    {
        let error = api.post(path, &json!({ "unrelated": 1 })).await.with_status(400).json();
        assert!(!error["errors"].as_array().unwrap().is_empty(), "{path}: {error:#}");
    }
    for (method, path) in STATUS_PATHS {
        api.send(method, &path.replace("{}", UNKNOWN), |request| request).await.with_status(400);
    }

    let api = &api.under(AIRBYTE);
    assert_eq!(api.post("/validate", &request).await.with_status(200).json(), json!({ "valid": true }));
    let acl = airbyte_acl_request(&cashflow(), OUTPUT_PORT, &["alice_mydomain.com"], &[]);
    for (path, body) in [("/provision", &request), ("/updateacl", &acl), ("/unprovision", &request)] {
        let token = api.post(path, body).await.token();
        assert_eq!(api.wait_at("/provision", &token).await["status"], "COMPLETED");
        let error = api.post(path, &json!({ "unrelated": 1 })).await.with_status(400).json();
        assert!(!error["errors"].as_array().unwrap().is_empty(), "{path}: {error:#}");
    }
    api.get(&format!("/provision/{UNKNOWN}/status")).await.with_status(400);
}

/// Gets every status of the topology, except 401, 403 and 500.
async fn exercise_topology(api: &Api) {
    let new = json!({ "instanceName": "n", "instanceCode": "c" });
    let created = api.post(INSTANCES, &new).await.with_status(201).json();
    let path = format!("{INSTANCES}/{}", created["instanceId"]);
    api.get(INSTANCES).await.with_status(200);
    api.get(&path).await.with_status(200);
    api.get(&format!("{INSTANCES}?groupCode=a&groupCode=b")).await.with_status(400);
    api.get(&format!("{INSTANCES}/x")).await.with_status(400);
    api.get(&format!("{INSTANCES}/1")).await.with_status(404);
    api.post(INSTANCES, &new).await.with_status(400);
    for method in ["PUT", "PATCH"] {
        api.send(method, &path, |request| request.json(&new)).await.with_status(200);
        api.send(method, &path, |request| request.json(&json!([]))).await.with_status(400);
        api.send(method, &format!("{INSTANCES}/1"), |request| request.json(&new)).await.with_status(404);
    }
}

/// Gets 500 from every operation: renames tables of the store while the server runs, and renames them back.
async fn exercise_broken_store(server: &Landfall) {
    let store = server.data_dir().join("landfall.db");
    query_write(&store, "ALTER TABLE task RENAME TO task_elsewhere").await;
    let api = server.api();
    let request = product_request(&cashflow());
    for path in ["/v2/validate", "/v1/provision", "/v1/unprovision"] {
        api.post(path, &request).await.with_status(500);
    }
    api.post("/v1/updateacl", &acl_request(&cashflow(), OUTPUT_PORT, &[])).await.with_status(500);
    api.post("/v1/reverse-provisioning", &import_request()).await.with_status(500);
    for (method, path) in STATUS_PATHS {
        let answer = api.send(method, &path.replace("{}", UNKNOWN), |request| request).await;
        let error = answer.with_status(500).json();
        for secret in ["sqlite", "SQL", "no such table", "landfall.db"] {
            assert!(!answer.text.contains(secret), "the answer discloses the cause: {error:#}");
        }
    }
    {
        let api = api.under(AIRBYTE);
        api.post("/provision", &request).await.with_status(500);
        api.post("/unprovision", &request).await.with_status(500);
        let acl = airbyte_acl_request(&cashflow(), OUTPUT_PORT, &[], &[]);
        api.post("/updateacl", &acl).await.with_status(500);
        let error = api.get(&format!("/provision/{UNKNOWN}/status")).await.with_status(500).json();
        assert!(error["error"].as_str().unwrap().ends_with("; try again later"), "{error:#}");
    }
    query_write(&store, "ALTER TABLE task_elsewhere RENAME TO task").await;

    query_write(&store, "ALTER TABLE deployment RENAME TO deployment_elsewhere").await;
    for path in ["/v1/validate", &format!("{AIRBYTE}/validate")] {
        api.post(path, &request).await.with_status(500);
    }
    query_write(&store, "ALTER TABLE deployment_elsewhere RENAME TO deployment").await;

    // The server caches the instances until one changes.
    let new = json!({ "instanceName": "n", "instanceCode": "changed" });
    let created = api.post(INSTANCES, &new).await.with_status(201).json();
    let path = format!("{INSTANCES}/{}", created["instanceId"]);
    query_write(&store, "ALTER TABLE instance RENAME TO instance_elsewhere").await;
    api.get(INSTANCES).await.with_status(500);
    api.get(&path).await.with_status(500);
    api.post(INSTANCES, &new).await.with_status(500);
    for method in ["PUT", "PATCH"] {
        let answer = api.send(method, &path, |request| request.json(&new)).await;
        let error = answer.with_status(500).json();
        assert_eq!(error["message"], "the operation store does not answer; try again later", "{error:#}");
    }
    query_write(&store, "ALTER TABLE instance_elsewhere RENAME TO instance").await;
    api.provision_and_wait(&request).await;
}

/// Gets 200 from the operations: `respond_within` is long enough for all work here.
async fn exercise_direct_answers(api: &Api) {
    let request = product_request(&cashflow());
    let done = api.post("/v1/provision", &request).await.with_status(200).json();
    assert_eq!(done["status"], "COMPLETED", "{done:#}");
    let acl = acl_request(&cashflow(), OUTPUT_PORT, &["user:alice_mydomain.com"]);
    assert_eq!(api.post("/v1/updateacl", &acl).await.with_status(200).json()["status"], "COMPLETED");
    let imported = api.post("/v1/reverse-provisioning", &import_request()).await.with_status(200).json();
    assert_eq!(imported["status"], "FAILED", "{imported:#}");
    assert_eq!(imported["updates"], json!({}), "{imported:#}");
    assert_eq!(api.post("/v1/unprovision", &request).await.with_status(200).json()["status"], "COMPLETED");

    let api = &api.under(AIRBYTE);
    let acl = airbyte_acl_request(&cashflow(), OUTPUT_PORT, &["alice_mydomain.com"], &[]);
    for (path, body) in [("/provision", &request), ("/updateacl", &acl), ("/unprovision", &request)] {
        assert_eq!(api.post(path, body).await.with_status(200).json()["status"], "COMPLETED", "{path}");
    }
}

/// The page prints the token without quotes; a caller that prefers JSON, or accepts nothing else, gets a JSON string.
#[tokio::test]
async fn accept_header_selects_the_token_format() {
    let server = Landfall::start();
    let api = server.api();
    let request = product_request(&cashflow());
    let cases = [
        (None, "text/plain"),
        (Some("*/*"), "text/plain"),
        (Some("text/plain"), "text/plain"),
        (Some("application/json, text/plain"), "text/plain"),
        (Some("application/json, text/plain, */*"), "text/plain"),
        (Some("application/json"), "application/json"),
        (Some("application/json;q=0.9"), "application/json"),
        (Some("text/plain;q=0.5, application/json"), "application/json"),
        (Some("text/plain, application/json;q=0.5"), "text/plain"),
        (Some("text/plain;q=0, */*"), "application/json"),
        (Some("application/json;q=0.5, */*"), "text/plain"),
        (Some("application/*"), "application/json"),
        (Some("text/*"), "text/plain"),
        (Some("image/png"), "text/plain"),
    ];
    for (accept, expected) in cases {
        let answer = api
            .send("POST", "/v2/validate", |mut http| {
                if let Some(accept) = accept {
                    http = http.header("accept", accept);
                }
                http.json(&request)
            })
            .await;
        assert!(answer.with_status(202).content_type.starts_with(expected), "Accept {accept:?}: {answer:?}");
        let is_json = answer.text.starts_with('"');
        assert_eq!(is_json, expected == "application/json", "Accept {accept:?}: {answer:?}");
        api.wait_at("/v2/validate", &answer.token()).await;
    }
}

#[tokio::test]
async fn token_format_setting_overrides_the_accept_header() {
    for (format, accept, quoted) in [("json", "*/*", true), ("text", "application/json", false)] {
        let server = Landfall::with().env("LANDFALL__SERVER__TOKEN_FORMAT", format).start();
        let api = server.api();
        let request = product_request(&cashflow());
        let answer =
            api.send("POST", "/v2/validate", |http| http.header("accept", accept).json(&request)).await;
        assert_eq!(answer.with_status(202).text.starts_with('"'), quoted, "{answer:?}");
        api.wait_at("/v2/validate", &answer.token()).await;
    }
}

/// The documentation calls `removeData` required and gives it a default. The samples of 2.2.0 omit it.
#[tokio::test]
async fn request_samples_of_both_versions_are_accepted() {
    let server = Landfall::start();
    let api = server.api();
    let full = product_request(&cashflow());
    let mut without_default = full.clone();
    without_default.as_object_mut().unwrap().remove("removeData");
    let mut with_null = full.clone();
    with_null["latestEnrichedDescriptor"] = Value::Null;
    let mut enriched = full.clone();
    enriched["latestEnrichedDescriptor"] = json!(cashflow());
    let mut unknown_field = full.clone();
    unknown_field["aFieldOfTomorrow"] = json!({ "a": [1] });
    for request in [full, without_default, with_null, enriched, unknown_field] {
        assert_eq!(api.validate(&request).await, json!({ "valid": true }));
        api.provision_and_wait(&request).await;
    }
}

/// 2.2.0 requires `result` and both infos. Callers of both versions must be able to read the answers.
#[tokio::test]
async fn task_status_fits_both_contract_versions() {
    let server = Landfall::start();
    let api = server.api();
    let status = api.provision_and_wait(&component_request(&cashflow(), OUTPUT_PORT)).await;
    assert!(status["result"].is_string(), "{status:#}");
    assert!(status["info"]["privateInfo"].is_object(), "{status:#}");
    let public = status["info"]["publicInfo"].as_object().unwrap();
    assert!(!public.is_empty(), "{status:#}");
    for (key, entry) in public {
        let camel = key.starts_with(|c: char| c.is_ascii_lowercase())
            && key.chars().all(|c| c.is_ascii_alphanumeric());
        assert!(camel, "`{key}` is not camelCase");
        let kind = entry["type"].as_str().unwrap_or_default();
        assert!(["string", "link", "date"].contains(&kind), "{key}: {entry:#}");
        assert!(entry["label"].is_string() && entry["value"].is_string(), "{key}: {entry:#}");
        assert_eq!(entry["href"].is_string(), kind == "link", "{key}: {entry:#}");
    }
    for line in status["logs"].as_array().unwrap() {
        let timestamp = line["timestamp"].as_str().unwrap();
        assert!(chrono::DateTime::parse_from_rfc3339(timestamp).is_ok(), "{line:#}");
    }
}

#[tokio::test]
async fn async_validation_gives_the_synchronous_result() {
    let server = Landfall::start();
    let api = server.api();
    let broken = replace_once(&cashflow(), "dataType: number", "dataType: numbr");
    for (descriptor, valid) in [(cashflow(), true), (broken, false)] {
        let request = product_request(&descriptor);
        let at_once = api.validate(&request).await;
        assert_eq!(at_once["valid"], valid, "{at_once:#}");
        let token = api.post("/v2/validate", &request).await.token();
        let later = api.wait_at("/v2/validate", &token).await;
        assert_eq!(later["status"], "COMPLETED", "{later:#}");
        assert_eq!(later["info"]["publicInfo"], at_once);
    }
}

/// The contract declares no 404, so an unknown token gets a 400.
#[tokio::test]
async fn unknown_tokens_of_any_form_get_400() {
    let server = Landfall::start();
    let long = "a".repeat(4000);
    let tokens = [UNKNOWN, "x", "0", "%00", "%2e%2e%2f", "%F0%9F%92%A9", "'%20OR%201=1--", "null", &long];
    for (method, path) in STATUS_PATHS {
        for token in tokens {
            let answer = server.api().send(method, &path.replace("{}", token), |request| request).await;
            let error = answer.with_status(400).json();
            assert!(!error["errors"].as_array().unwrap().is_empty(), "{error:#}");
        }
    }
}

/// A caller may send a token as plain text, as a JSON string, and in upper case.
#[tokio::test]
async fn quoted_and_uppercase_tokens_are_accepted() {
    let server = Landfall::with().config(SLOW).env("LANDFALL__TARGETS__SLOW__STOP_DELAY", "2s").start();
    let api = server.api();
    let paths = [
        "/v1/provision/{}/status",
        &format!("{PREFIX}/v1/provision/{{}}/status"),
        &format!("{AIRBYTE}/provision/{{}}/status"),
    ];
    let spellings = |token: &str| {
        let upper = token.to_uppercase();
        [token.to_owned(), format!("%22{token}%22"), format!("\"{token}\""), format!("%22{upper}%22"), upper]
    };
    let token = api.post("/v1/provision", &product_request(&cashflow())).await.token();
    for spelling in spellings(&token) {
        for path in paths {
            let status = api.get(&path.replace("{}", &spelling)).await.with_status(200).json();
            assert_eq!(status["status"], "RUNNING", "{path} {spelling}");
        }
    }
    let [.., quoted, upper] = spellings(&token);
    let stopping = api.post(&format!("/v1/provision/{quoted}/stop"), &json!({})).await;
    assert_eq!(stopping.with_status(202).token(), token, "as it was handed out");
    assert_eq!(api.wait(&token).await["status"], "TERMINATED");
    let stopped = api.post(&format!("/v1/provision/{upper}/stop"), &json!({})).await;
    assert_eq!(stopped.with_status(200).json()["status"], "TERMINATED");

    let bare = token.replace('-', "");
    for other in [
        format!("%22{token}"),
        format!("{token}%22"),
        format!("%22%22{token}%22%22"),
        format!("'{token}'"),
        format!("%5C%22{token}%5C%22"),
        format!("%20{token}"),
        format!("%22{token}%20%22"),
        format!("%7B{token}%7D"),
        format!("urn:uuid:{token}"),
        format!("%22{bare}%22"),
        bare,
        "%22%22".to_owned(),
        "%22".to_owned(),
        format!("%2522{token}%2522"),
    ] {
        for path in paths {
            let error = api.get(&path.replace("{}", &other)).await.with_status(400).json();
            assert!(
                error["errors"][0].as_str().unwrap().contains("no provisioning task has this token"),
                "{other}"
            );
        }
        api.post(&format!("/v1/provision/{other}/stop"), &json!({})).await.with_status(400);
    }

    let server = Landfall::start();
    let api = server.api();
    let validation = api.post("/v2/validate", &product_request(&cashflow())).await.token();
    let import = api.post("/v1/reverse-provisioning", &import_request()).await.token();
    for (path, token) in [("/v2/validate", validation), ("/v1/reverse-provisioning", import)] {
        api.wait_at(path, &token).await;
        for spelling in spellings(&token) {
            api.get(&format!("{path}/{spelling}/status")).await.with_status(200);
        }
        api.get(&format!("{path}/%22{token}/status")).await.with_status(400);
    }
}

/// A token belongs to one kind of operation: the token of an import is unknown at /v1/provision.
#[tokio::test]
async fn token_is_valid_only_for_its_own_operation() {
    let server = Landfall::start();
    let api = server.api();
    let validation = api.post("/v2/validate", &product_request(&cashflow())).await.token();
    api.wait_at("/v2/validate", &validation).await;
    let import = api.post("/v1/reverse-provisioning", &import_request()).await.token();
    api.wait_at("/v1/reverse-provisioning", &import).await;
    for token in [&validation, &import] {
        api.get(&format!("/v1/provision/{token}/status")).await.with_status(400);
    }
    api.get(&format!("/v2/validate/{import}/status")).await.with_status(400);
    api.get(&format!("/v1/reverse-provisioning/{validation}/status")).await.with_status(400);
}

#[tokio::test]
async fn both_base_paths_serve_the_same_api() {
    let server = Landfall::start();
    let prefixed = server.api().under(PREFIX);
    assert_eq!(prefixed.validate(&product_request(&cashflow())).await, json!({ "valid": true }));
    let token = prefixed.post("/v1/provision", &product_request(&cashflow())).await.token();
    assert_eq!(server.api().wait(&token).await["status"], "COMPLETED");
    assert_eq!(prefixed.wait(&token).await["status"], "COMPLETED");
}

/// /v1/validate declares no 400, so an invalid body gets 200 with `valid: false`.
#[tokio::test]
async fn validate_answers_invalid_bodies_with_valid_false() {
    let server = Landfall::start();
    for (body, field) in misfits() {
        let result = server.api().validate(&body).await;
        assert_eq!(result["valid"], false, "{body:#}");
        assert!(!result["error"]["errors"].as_array().unwrap().is_empty(), "{result:#}");
        if let Some(field) = field {
            assert_eq!(result["error"]["inputErrorField"], field, "{body:#}: {result:#}");
        }
    }
}

#[tokio::test]
async fn provision_refuses_invalid_bodies_by_field() {
    let server = Landfall::start();
    for (body, field) in misfits() {
        let error = server.api().post("/v1/provision", &body).await.with_status(400).json();
        assert!(!error["errors"].as_array().unwrap().is_empty(), "{error:#}");
        if let Some(field) = field {
            assert_eq!(error["inputErrorField"], field, "{body:#}: {error:#}");
        }
    }
    let acl = acl_request(&cashflow(), STORAGE, &[]);
    for (pointer, value, field) in [
        ("/refs", json!(["user:a_b.com", 5]), "refs[1]"),
        ("/refs", json!("user:a_b.com"), "refs"),
        ("/provisionInfo", json!([]), "provisionInfo"),
        ("/provisionInfo/request", json!(7), "provisionInfo.request"),
    ] {
        let mut body = acl.clone();
        *body.pointer_mut(pointer).unwrap() = value;
        let error = server.api().post("/v1/updateacl", &body).await.with_status(400).json();
        assert_eq!(error["inputErrorField"], field, "{error:#}");
    }
}

fn misfits() -> Vec<(Value, Option<&'static str>)> {
    let with = |key: &str, value: Value| {
        let mut body = product_request(&cashflow());
        body[key] = value;
        body
    };
    let without = |key: &str| {
        let mut body = product_request(&cashflow());
        body.as_object_mut().unwrap().remove(key);
        body
    };
    vec![
        (json!({}), None),
        (json!([]), None),
        (json!(null), None),
        (json!("DATAPRODUCT_DESCRIPTOR"), None),
        (without("descriptor"), None),
        (without("descriptorKind"), None),
        (with("descriptorKind", json!("SYSTEM_DESCRIPTOR")), Some("descriptorKind")),
        (with("descriptor", json!({ "id": "x" })), Some("descriptor")),
        (with("descriptor", json!(null)), Some("descriptor")),
        (with("removeData", json!("false")), Some("removeData")),
        (with("latestEnrichedDescriptor", json!(1)), Some("latestEnrichedDescriptor")),
    ]
}

/// One answer has all problems, including those that only a technology finds. Each has a path and a remedy.
#[tokio::test]
async fn invalid_descriptor_gets_all_problems_and_remedies() {
    let dependency = "      - urn:dmb:cmp:finance:cashflow:0:storage-component\n";
    let mut wrong = replace_once(&cashflow(), "dataType: number", "dataType: numbr");
    wrong = replace_once(&wrong, dependency, &dependency.replace("component\n", "componen\n"));
    wrong = replace_once(&wrong, "bucket: finance-cashflows", "bucket: Finance_Cashflows");
    let paths = [
        "components[0].dataContract.schema[2].dataType",
        "components[1].dependsOn[0]",
        "components[2].specific.bucket",
    ];
    assert_explained(&wrong, &paths, &["NUMBER", "storage-component"]).await;

    let wrong = replace_once(&cashflow(), "format: Iceberg", "format: Iceberg\n      loadSampelData: true");
    assert_explained(&wrong, &["components[0].specific.loadSampelData"], &["loadSampleData"]).await;
}

async fn assert_explained(wrong: &str, paths: &[&str], remedies: &[&str]) {
    let server = Landfall::start();
    let error = server.api().post("/v1/provision", &product_request(wrong)).await.with_status(400).json();
    let problems = strings(&error["moreInfo"]["problems"]);
    for path in paths {
        assert!(problems.iter().any(|problem| problem.contains(path)), "{path} is not in {problems:#?}");
    }
    let solutions = strings(&error["moreInfo"]["solutions"]).join("\n");
    for remedy in remedies {
        assert!(solutions.contains(remedy), "{remedy} is not in {solutions}");
    }
    assert!(error["userMessage"].as_str().is_some_and(|message| !message.is_empty()), "{error:#}");
    let field = error["inputErrorField"].as_str().unwrap();
    assert!(problems.iter().any(|problem| problem.contains(field)), "{field} is one of {problems:#?}");
    assert_eq!(server.resources().await.tables, [], "the refused request created nothing");

    let result = server.api().validate(&product_request(wrong)).await;
    assert_eq!(strings(&result["error"]["moreInfo"]["problems"]), problems, "validate says the same");
}

fn strings(array: &Value) -> Vec<String> {
    let array = array.as_array().unwrap_or_else(|| panic!("not an array: {array}"));
    array.iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// Validation has no side effects.
#[tokio::test]
async fn validation_changes_no_resources() {
    let server = Landfall::start();
    let before = server.resources().await;
    assert_eq!(server.api().validate(&product_request(&cashflow())).await["valid"], true);
    assert_eq!(server.resources().await, before);
}
