//! What must stay between the caller and the adapter: descriptors, access lists and what a provider says are in
//! no log, and a failure's inner cause is in no answer.

use serde_json::json;

use crate::harness::{
    Landfall, OUTPUT_PORT, acl_request, cashflow, cashflow_with_rows, component_request, product_request,
    replace_once,
};

#[tokio::test]
async fn neither_descriptors_nor_principals_are_logged() {
    let server = Landfall::start();
    let api = server.api();
    let marked = replace_once(
        &cashflow_with_rows(),
        "description: Data product representing operating cashflows",
        "description: CANARY-DESCRIPTION",
    )
    .replace("CF-001", "CANARY-ROW");

    assert_eq!(api.validate(&product_request(&marked)).await["valid"], true);
    api.provision_and_wait(&product_request(&marked)).await;
    let refs = ["user:canary.person_example.com", "group:canary-group"];
    let mut request = acl_request(&marked, OUTPUT_PORT, &refs);
    request["accessControlFields"] = json!({ "reason": "CANARY-FIELD" });
    api.complete("/v1/updateacl", &request).await;

    let broken = replace_once(&marked, "dataType: number", "dataType: CANARY-TYPE");
    api.post("/v1/provision", &component_request(&broken, OUTPUT_PORT)).await.with_status(400);
    let torn = format!("{marked}\n  CANARY-TORN: [");
    api.post("/v1/provision", &product_request(&torn)).await.with_status(400);

    let log = server.log();
    assert!(!log.is_empty(), "the server logs something");
    let leaked: Vec<_> = log.lines().filter(|line| line.to_lowercase().contains("canary")).collect();
    assert!(leaked.is_empty(), "{}", leaked.join("\n"));
}

#[tokio::test]
async fn an_operation_is_found_in_the_log_by_its_token() {
    let server = Landfall::start();
    let token = server.api().post("/v1/provision", &product_request(&cashflow())).await.token();
    server.api().wait(&token).await;
    assert!(server.log().contains(&token), "no line names {token}:\n{}", server.log());
}
