//! The parts of the Airbyte specific provisioner contract that differ from the other contracts.

use serde_json::{Value, json};

use crate::contract::SLOW;
use crate::harness::{
    AIRBYTE, Landfall, OUTPUT_PORT, STORAGE, airbyte_acl_request, cashflow, component_request,
    product_request, replace_once,
};

fn strings(array: &Value) -> Vec<String> {
    array.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// Names of users and groups may have a prefix, but do not need one.
#[tokio::test]
async fn updateacl_replaces_all_users_and_groups() {
    let server = Landfall::start();
    let api = server.api().under(AIRBYTE);
    server.api().provision_and_wait(&product_request(&cashflow())).await;
    let grant = async |users: &[&str], groups: &[&str]| {
        let token = api
            .post("/updateacl", &airbyte_acl_request(&cashflow(), OUTPUT_PORT, users, groups))
            .await
            .token();
        let status = api.wait_at("/provision", &token).await;
        assert_eq!(status["status"], "COMPLETED", "{status:#}");
        server.resources().await.only_table()["properties"].to_string()
    };
    let granted =
        grant(&["alice_mydomain.com", "user:bob_mydomain.com"], &["developers", "group:finance"]).await;
    for name in ["user:alice_mydomain.com", "user:bob_mydomain.com", "group:developers", "group:finance"] {
        assert!(granted.contains(name), "{name} is not in {granted}");
    }
    let granted = grant(&[], &["developers"]).await;
    assert!(!granted.contains("alice") && granted.contains("group:developers"), "{granted}");
}

/// The contract has no field for remedies, so each error contains its remedy.
#[tokio::test]
async fn errors_name_the_airbyte_field_and_the_remedy() {
    let server = Landfall::start();
    let api = server.api().under(AIRBYTE);
    let acl = airbyte_acl_request(
        &cashflow(),
        OUTPUT_PORT,
        &["group:dev", "alice", "robot:r2d2"],
        &["dev", "user:alice"],
    );
    let errors = strings(&api.post("/updateacl", &acl).await.with_status(400).json()["errors"]);
    assert_eq!(
        errors,
        [
            "acl.users[0]: a group is no user: `group:dev`; write `NAME_DOMAIN` or `user:NAME_DOMAIN`, and list groups \
             as groups",
            "acl.users[2]: the identity has an unknown prefix: `robot:r2d2`; write `NAME_DOMAIN` or \
             `user:NAME_DOMAIN`, and list groups as groups",
            "acl.groups[1]: a user is no group: `user:alice`; write `NAME` or `group:NAME`, and list users as users",
        ]
    );

    let wrong = product_request(&replace_once(&cashflow(), "dataType: number", "dataType: numbr"));
    let elsewhere = server.api().post("/v1/provision", &wrong).await.with_status(400).json();
    let remedy = elsewhere["moreInfo"]["solutions"][0].as_str().unwrap();
    let expected = format!("{}; {remedy}", elsewhere["errors"][0].as_str().unwrap());
    let errors = strings(&api.post("/provision", &wrong).await.with_status(400).json()["errors"]);
    assert_eq!(errors, [expected.as_str()], "the same as in the other contract");
    let verdict = api.post("/validate", &wrong).await.with_status(200).json();
    assert_eq!(verdict, json!({ "valid": false, "error": { "errors": [expected] } }));

    let misfit = api.post("/updateacl", &json!({ "acl": { "users": [1] } })).await.with_status(400).json();
    let said = "`acl.users[0]`: expected a string, found the number `1`; send `acl.users[0]` as a string";
    assert_eq!(misfit, json!({ "errors": [said] }));
}

/// The path may have any version number. Other text gets a 400, or `valid: false` from an operation without a
/// 400.
#[tokio::test]
async fn path_version_accepts_only_digits_and_dots() {
    let server = Landfall::start();
    let request = product_request(&cashflow());
    for (version, good) in [
        ("0.0.1", true),
        ("1", true),
        ("12.0", true),
        ("v1", false),
        ("1.", false),
        ("%7B%7Bversion%7D%7D", false),
    ] {
        let api = server.api().under(&format!("/datamesh.airbytespecificprovisioner/{version}"));
        let verdict = api.post("/validate", &request).await.with_status(200).json();
        assert_eq!(verdict["valid"], good, "{version}: {verdict:#}");
        if !good {
            let error = api.post("/provision", &request).await.with_status(400).json();
            let error = error["errors"][0].as_str().unwrap();
            assert!(error.starts_with("`version`: `") && error.contains("does not match"), "{error}");
        }
    }
    server.api().get("/datamesh.airbytespecificprovisioner/validate").await.with_status(404);
}

/// All contracts share the tokens of the engine.
#[tokio::test]
async fn tasks_can_be_polled_through_another_contract() {
    let server = Landfall::with().config(SLOW).start();
    let (api, airbyte) = (server.api(), server.api().under(AIRBYTE));
    let token = airbyte.post("/provision", &component_request(&cashflow(), STORAGE)).await.token();
    assert_eq!(api.status(&token).await["status"], "RUNNING");
    assert_eq!(
        airbyte.post("/provision", &component_request(&cashflow(), STORAGE)).await.token(),
        token,
        "joined"
    );
    let here = api.wait(&token).await;
    let there = airbyte.wait_at("/provision", &token).await;
    assert_eq!(there, json!({ "status": here["status"], "result": here["result"] }));

    let validation = api.post("/v2/validate", &product_request(&cashflow())).await.token();
    api.wait_at("/v2/validate", &validation).await;
    airbyte.get(&format!("/provision/{validation}/status")).await.with_status(400);
}

/// The contract has no `removeData`. The server keeps the data even when a caller sends the field.
#[tokio::test]
async fn airbyte_unprovision_keeps_the_data() {
    let server = Landfall::start();
    let api = server.api().under(AIRBYTE);
    server.api().provision_and_wait(&component_request(&cashflow(), STORAGE)).await;
    let mut request = component_request(&cashflow(), STORAGE);
    request["removeData"] = json!(true);
    let token = api.post("/unprovision", &request).await.token();
    let status = api.wait_at("/provision", &token).await;
    assert_eq!(status["status"], "COMPLETED", "{status:#}");
    assert_eq!(server.resources().await.buckets(), ["finance-cashflows"]);
}

#[tokio::test]
async fn token_format_follows_setting_and_accept_header() {
    let request = product_request(&cashflow());
    for (format, accept, quoted) in [
        ("auto", "*/*", false),
        ("auto", "application/json", true),
        ("json", "*/*", true),
        ("text", "application/json", false),
    ] {
        let server = Landfall::with().env("LANDFALL__SERVER__TOKEN_FORMAT", format).start();
        let api = server.api().under(AIRBYTE);
        let answer =
            api.send("POST", "/provision", |http| http.header("accept", accept).json(&request)).await;
        assert_eq!(answer.with_status(202).text.starts_with('"'), quoted, "{format} {accept}: {answer:?}");
        api.wait_at("/provision", &answer.token()).await;
    }
}
