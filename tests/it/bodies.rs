//! The errors for bodies that are not JSON or do not match the schema, word by word, for every operation that has a
//! body; and the fields that may be null.

use serde_json::{Value, json};

use crate::harness::{
    AIRBYTE, Answer, INSTANCES, Landfall, OUTPUT_PORT, STORAGE, acl_request, airbyte_acl_request, cashflow,
    component_descriptor, component_request, product_request,
};

/// An operation with a body, and a valid body.
struct Operation {
    method: &'static str,
    path: String,
    good: Value,
}

fn operations() -> Vec<Operation> {
    let product = product_request(&cashflow());
    let acl = acl_request(&cashflow(), OUTPUT_PORT, &["user:a_b.com"]);
    let import =
        json!({ "useCaseTemplateId": "x", "environment": "production", "params": {}, "catalogInfo": {} });
    let airbyte_acl = airbyte_acl_request(&cashflow(), OUTPUT_PORT, &["a_b.com"], &["dev"]);
    let plan = json!({ "descriptorKind": "DATAPRODUCT_DESCRIPTOR", "descriptor": cashflow(), "operation": "UPDATEACL",
                       "removeData": false, "refs": ["user:a_b.com"] });
    let explain = json!({ "descriptorKind": "DATAPRODUCT_DESCRIPTOR", "descriptor": cashflow() });
    let instance = json!({ "instanceCode": "c", "instanceName": "n", "environments": [1], "workflows": [2],
                           "pluginOperations": [{ "pluginId": 1, "operation": "o" }], "isActive": true });
    let operation =
        |method, path: &str, good: &Value| Operation { method, path: path.to_owned(), good: good.clone() };
    vec![
        operation("POST", "/v1/validate", &product),
        operation("POST", "/v2/validate", &product),
        operation("POST", "/v1/provision", &product),
        operation("POST", "/v1/unprovision", &product),
        operation("POST", "/v1/updateacl", &acl),
        operation("POST", "/v1/reverse-provisioning", &import),
        operation("POST", &format!("{AIRBYTE}/validate"), &product),
        operation("POST", &format!("{AIRBYTE}/provision"), &product),
        operation("POST", &format!("{AIRBYTE}/unprovision"), &product),
        operation("POST", &format!("{AIRBYTE}/updateacl"), &airbyte_acl),
        operation("POST", "/landfall/v1/plan", &plan),
        operation("POST", "/landfall/v1/explain", &explain),
        operation("POST", INSTANCES, &instance),
        operation("PUT", &format!("{INSTANCES}/11001"), &instance),
        operation("PATCH", &format!("{INSTANCES}/11001"), &instance),
    ]
}

/// The error and the remedy of an answer, in any shape of error. Asserts the status that belongs to the shape.
fn told(operation: &Operation, answer: &Answer) -> String {
    let body = answer.json();
    let texts = |list: &Value| -> Vec<String> { serde_json::from_value(list.clone()).unwrap_or_default() };
    let error = if operation.path.ends_with("/v1/validate") || operation.path == format!("{AIRBYTE}/validate")
    {
        assert_eq!((answer.status, &body["valid"]), (200, &json!(false)), "{answer:?}");
        &body["error"]
    } else {
        assert_eq!(answer.status, 400, "{} {}: {answer:?}", operation.method, operation.path);
        &body
    };
    if let Some(message) = error["message"].as_str() {
        return message.to_owned();
    }
    let all = [texts(&error["errors"]), texts(&error["moreInfo"]["solutions"])].concat();
    assert_eq!(texts(&error["errors"]).len(), 1, "{error:#}");
    all.join("; ")
}

async fn send(server: &Landfall, operation: &Operation, body: impl Into<Vec<u8>>) -> Answer {
    let body = body.into();
    let send =
        |request: reqwest::RequestBuilder| request.header("content-type", "application/json").body(body);
    server.api().send(operation.method, &operation.path, send).await
}

const NOT_JSON: &str = "send one JSON object in UTF-8; a descriptor is a string in it";

#[tokio::test]
async fn non_json_bodies_get_the_position_of_the_error() {
    let server = Landfall::start();
    for operation in operations() {
        let good = operation.good.to_string();
        let cut = &good[..good.len() - 1];
        let last = cut.chars().count();
        for (body, said) in [
            (
                "descriptorKind: COMPONENT_DESCRIPTOR\n".to_owned(),
                "line 1, column 1: a value is expected".to_owned(),
            ),
            (
                "{\n  \"refs\": [user:a_b.com]\n}".to_owned(),
                "line 2, column 12: a value is expected".to_owned(),
            ),
            (cut.to_owned(), format!("line 1, column {last}: it ends within an object")),
            (format!("{good}\n{good}"), "line 2, column 1: something follows the value".to_owned()),
        ] {
            let told = told(&operation, &send(&server, &operation, body).await);
            assert_eq!(told, format!("the body is not JSON: {said}; {NOT_JSON}"), "{}", operation.path);
        }
        for empty in ["", " \n"] {
            let told = told(&operation, &send(&server, &operation, empty).await);
            assert_eq!(told, format!("the request has no body; {NOT_JSON}"), "{}", operation.path);
        }
        let told = told(&operation, &send(&server, &operation, b"{\"descriptor\":\"\xe9\"}".to_vec()).await);
        assert_eq!(
            told,
            format!("the body is not JSON: line 1, column 16: it is not UTF-8 text; {NOT_JSON}"),
            "{}",
            operation.path
        );
    }
}

#[tokio::test]
async fn non_object_bodies_are_refused_with_their_type() {
    let server = Landfall::start();
    for operation in operations() {
        let values: Vec<&Value> = operation.good.as_object().unwrap().values().collect();
        let list = json!(values).to_string();
        for (body, found) in [
            ("[]", "a list"),
            // serde accepts a list of the field values, in order, as the object.
            (list.as_str(), "a list"),
            ("null", "`null`"),
            ("true", "`true`"),
            ("7", "the number `7`"),
            ("\"a text\"", "the string `a text`"),
        ] {
            let told = told(&operation, &send(&server, &operation, body).await);
            let expected = format!("expected an object, found {found}; send the body as an object");
            assert_eq!(told, expected, "{}", operation.path);
        }
    }
}

const KINDS: &str =
    "one of `DATAPRODUCT_DESCRIPTOR`, `COMPONENT_DESCRIPTOR`, `DATAPRODUCT_DESCRIPTOR_WITH_RESULTS`";
const WHOLE: &str = "a whole number of 64 bits";

/// For each field: an invalid value, its description in the error, and the expected type.
fn misfits() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    vec![
        ("descriptorKind", json!("SYSTEM_DESCRIPTOR"), "the string `SYSTEM_DESCRIPTOR`", KINDS),
        ("descriptorKind", json!(5), "the number `5`", KINDS),
        ("descriptorKind", json!(null), "`null`", KINDS),
        ("descriptorKind", json!({ "COMPONENT_DESCRIPTOR": null }), "an object", KINDS),
        ("descriptor", json!({ "id": "x" }), "an object", "a string"),
        ("descriptor", json!(null), "`null`", "a string"),
        ("removeData", json!("false"), "the string `false`", "true or false"),
        ("removeData", json!(0), "the number `0`", "true or false"),
        ("latestEnrichedDescriptor", json!({}), "an object", "a string"),
        ("provisionInfo", json!([]), "a list", "an object"),
        ("provisionInfo", json!(["text", ""]), "a list", "an object"),
        ("provisionInfo", json!("text"), "the string `text`", "an object"),
        ("provisionInfo.request", json!({ "id": "x" }), "an object", "a string"),
        ("accessControlFields", json!("x"), "the string `x`", "an object"),
        ("refs", json!("user:a_b.com"), "the string `user:a_b.com`", "a list"),
        ("refs[0]", json!(5), "the number `5`", "a string"),
        ("acl", json!([[], []]), "a list", "an object"),
        ("acl.users", json!("a_b.com"), "the string `a_b.com`", "a list"),
        ("acl.users[0]", json!({}), "an object", "a string"),
        ("acl.groups", json!(null), "`null`", "a list"),
        ("acl.groups[0]", json!(1.5), "the number `1.5`", "a string"),
        ("useCaseTemplateId", json!(1), "the number `1`", "a string"),
        ("environment", json!(["production"]), "a list", "a string"),
        ("params", json!([1]), "a list", "an object"),
        ("params", json!("namespace=x"), "the string `namespace=x`", "an object"),
        ("catalogInfo", json!("kind: x"), "the string `kind: x`", "an object"),
        (
            "operation",
            json!("DEPLOY"),
            "the string `DEPLOY`",
            "one of `PROVISION`, `UNPROVISION`, `UPDATEACL`",
        ),
        ("operation", json!(true), "`true`", "one of `PROVISION`, `UNPROVISION`, `UPDATEACL`"),
        ("instanceCode", json!(1), "the number `1`", "a string"),
        ("instanceName", json!({}), "an object", "a string"),
        ("environments", json!(1), "the number `1`", "a list"),
        ("environments[0]", json!("production"), "the string `production`", WHOLE),
        ("environments[0]", json!(1.5), "the number `1.5`", WHOLE),
        ("environments[0]", json!(9_223_372_036_854_775_808_u64), "the number `9223372036854775808`", WHOLE),
        ("workflows[0]", json!(null), "`null`", WHOLE),
        ("pluginOperations", json!({}), "an object", "a list"),
        ("pluginOperations[0]", json!([1, "o", null, null]), "a list", "an object"),
        ("pluginOperations[0].pluginId", json!("1"), "the string `1`", WHOLE),
        ("pluginOperations[0].operation", json!(1), "the number `1`", "a string"),
        ("isActive", json!("yes"), "the string `yes`", "true or false"),
    ]
}

/// `acl.users[0]` as `/acl/users/0`.
fn pointer(field: &str) -> String {
    format!("/{}", field.replace(['.', '['], "/").replace(']', ""))
}

#[tokio::test]
async fn wrong_field_types_are_reported_with_a_remedy() {
    let server = Landfall::start();
    let mut unused: Vec<_> = misfits().iter().map(|it| it.0).collect();
    for operation in operations() {
        for (field, value, found, expected) in misfits() {
            let mut body = operation.good.clone();
            match body.pointer_mut(&pointer(field)) {
                // Optional fields that the valid body does not have.
                None if field == "latestEnrichedDescriptor"
                    && operation.path.starts_with("/v1/provision") =>
                {
                    body[field] = value.clone();
                }
                None if field == "accessControlFields" && operation.path.starts_with("/v1/updateacl") => {
                    body[field] = value.clone();
                }
                // The Airbyte contract has no such field.
                Some(_) if field == "removeData" && operation.path.starts_with(AIRBYTE) => continue,
                // All fields of a patch may be null.
                Some(_) if operation.method == "PATCH" && value.is_null() && !field.ends_with(']') => {
                    continue;
                }
                Some(place) => *place = value.clone(),
                None => continue,
            }
            unused.retain(|it| *it != field);
            let answer = send(&server, &operation, body.to_string()).await;
            let told = told(&operation, &answer);
            let said = format!("`{field}`: expected {expected}, found {found}; send `{field}` as {expected}");
            assert_eq!(told, said, "{} {value}", operation.path);
            let body = answer.json();
            let error = if body["error"].is_object() { &body["error"] } else { &body };
            if error["moreInfo"].is_object() {
                assert_eq!(error["inputErrorField"], field);
                let input = match &value {
                    Value::String(text) => json!(text),
                    Value::Array(_) | Value::Object(_) => Value::Null,
                    other => json!(other.to_string()),
                };
                assert_eq!(error["input"], input, "{error:#}");
                assert_eq!(
                    error["userMessage"],
                    format!(
                        "The request does not fit the contract: `{field}`: expected {expected}, found {found}"
                    )
                );
            }
        }
    }
    assert!(unused.is_empty(), "of no operation: {unused:?}");
}

#[tokio::test]
async fn missing_fields_are_reported_by_path() {
    let server = Landfall::start();
    for (path, body, field) in [
        ("/v1/provision", json!({}), "descriptor"),
        ("/v1/provision", json!({ "descriptor": "x" }), "descriptorKind"),
        ("/v1/updateacl", json!({ "refs": [] }), "provisionInfo"),
        ("/v1/updateacl", json!({ "refs": [], "provisionInfo": {} }), "provisionInfo.request"),
        ("/v1/reverse-provisioning", json!({ "environment": "x" }), "useCaseTemplateId"),
        ("/landfall/v1/plan", json!({ "descriptorKind": "COMPONENT_DESCRIPTOR" }), "descriptor"),
        ("/landfall/v1/explain", json!({ "descriptor": "x" }), "descriptorKind"),
        (INSTANCES, json!({ "instanceCode": "c" }), "instanceName"),
        (&format!("{AIRBYTE}/updateacl"), json!({ "acl": { "users": [] } }), "acl.groups"),
    ] {
        let operation = Operation { method: "POST", path: path.to_owned(), good: body.clone() };
        let told = told(&operation, &send(&server, &operation, body.to_string()).await);
        assert_eq!(told, format!("`{field}`: is missing; add `{field}`"), "{path}");
    }
}

/// For optional fields, null means absent.
#[tokio::test]
async fn null_means_absent_for_optional_fields() {
    let server = Landfall::start();
    let api = server.api();
    api.provision_and_wait(&product_request(&cashflow())).await;

    let mut request = component_request(&cashflow(), STORAGE);
    request["removeData"] = Value::Null;
    request["latestEnrichedDescriptor"] = Value::Null;
    assert_eq!(api.validate(&request).await, json!({ "valid": true }));
    for path in ["/v2/validate", "/v1/provision"] {
        let token = api.post(path, &request).await.with_status(202).token();
        let under = if path == "/v2/validate" { path } else { "/v1/provision" };
        assert_eq!(api.wait_at(under, &token).await["status"], "COMPLETED", "{path}");
    }
    api.complete("/v1/unprovision", &request).await;
    assert_eq!(server.resources().await.buckets(), ["finance-cashflows"], "null is not true");

    let mut acl = acl_request(&cashflow(), OUTPUT_PORT, &["user:a_b.com"]);
    acl["accessControlFields"] = Value::Null;
    acl["provisionInfo"]["result"] = Value::Null;
    api.complete("/v1/updateacl", &acl).await;

    let import =
        json!({ "useCaseTemplateId": "x", "environment": "production", "params": null, "catalogInfo": null });
    let answer = api.post("/v1/reverse-provisioning", &import).await;
    assert!(!answer.text.contains("found `null`"), "{answer:?}");

    let descriptor = component_descriptor(&cashflow(), OUTPUT_PORT);
    let plan = json!({ "descriptorKind": "COMPONENT_DESCRIPTOR", "descriptor": descriptor, "operation": null,
                       "removeData": null, "refs": null });
    let planned = api.post("/landfall/v1/plan", &plan).await.with_status(200).json();
    assert_eq!(planned["components"][0]["changes"], json!([]), "as PROVISION: {planned:#}");

    let instance = json!({ "instanceCode": "c", "instanceName": "n", "environments": null, "workflows": null,
                           "pluginOperations": null, "isActive": null, "isDeploymentTarget": null, "description": null,
                           "groupCode": null, "subGroupCode": null, "instanceId": null });
    let created = api.post(INSTANCES, &instance).await.with_status(201).json();
    assert_eq!((&created["isActive"], &created["environments"]), (&json!(true), &json!([])));
    let path = format!("{INSTANCES}/{}", created["instanceId"]);
    let nothing =
        json!({ "instanceCode": null, "instanceName": null, "plugins": null, "environments": null });
    api.send("PATCH", &path, |request| request.json(&nothing)).await.with_status(200);
}
