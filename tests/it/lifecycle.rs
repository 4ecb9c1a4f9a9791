//! Provision, repeat, grant, revoke, import, stop, unprovision: what each leaves behind.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::contract::SLOW;
use crate::harness::{
    Api, Landfall, OUTPUT_PORT, STORAGE, WORKLOAD, acl_request, cashflow, cashflow_with_rows,
    component_request, messages, product_request, replace_once,
};

/// An unprovision request for a whole data product.
fn removal(descriptor: &str, remove_data: bool) -> Value {
    let mut request = product_request(descriptor);
    request["removeData"] = json!(remove_data);
    request
}

#[tokio::test]
async fn data_product_provision_creates_resources_and_logs() {
    let server = Landfall::start();
    let status = server.api().provision_and_wait(&product_request(&cashflow_with_rows())).await;

    let log = messages(&status).join("\n");
    for component in [OUTPUT_PORT, WORKLOAD, STORAGE] {
        let told = status["logs"].as_array().unwrap().iter().any(|line| {
            line["phase"] == component || line["message"].as_str().unwrap_or_default().contains(component)
        });
        assert!(told, "the log does not tell of {component}:\n{log}");
    }
    assert!(log.contains("recorded, not enforced"), "access is honest about itself:\n{log}");

    let resources = server.resources().await;
    assert!(resources.buckets().contains(&"finance-cashflows".to_owned()), "{resources:#?}");
    let table = resources.only_table();
    assert_eq!(table["format-version"], 2);
    let owner = table["properties"].to_string();
    assert!(owner.contains(OUTPUT_PORT) && owner.contains("production"), "the owner's mark: {owner}");
}

/// The workload depends on the storage area, which comes last in the descriptor.
#[tokio::test]
async fn components_are_provisioned_in_dependency_order() {
    let server = Landfall::start();
    let status = server.api().provision_and_wait(&product_request(&cashflow())).await;
    let phases: Vec<_> = status["logs"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|line| line["phase"].as_str().map(str::to_owned))
        .collect();
    let first = |component: &str| {
        phases
            .iter()
            .position(|phase| phase == component)
            .unwrap_or_else(|| panic!("{component}: {phases:?}"))
    };
    assert!(first(STORAGE) < first(WORKLOAD), "{phases:?}");
}

#[tokio::test]
async fn component_request_provisions_only_that_component() {
    let server = Landfall::start();
    server.api().provision_and_wait(&component_request(&cashflow(), STORAGE)).await;
    let resources = server.resources().await;
    assert_eq!(resources.buckets(), ["finance-cashflows"]);
    assert_eq!(resources.tables, []);
}

#[tokio::test]
async fn concurrent_equal_requests_create_one_set_of_resources() {
    let server = Landfall::start();
    let request = product_request(&cashflow_with_rows());
    let callers = (0..64).map(|_| {
        let (api, request) = (server.api().clone(), request.clone());
        tokio::spawn(async move {
            let token = api.post("/v1/provision", &request).await.token();
            (api.wait(&token).await, token)
        })
    });
    let mut tokens = BTreeSet::new();
    for caller in callers.collect::<Vec<_>>() {
        let (status, token) = caller.await.expect("no panic");
        assert_eq!(status["status"], "COMPLETED", "{status:#}");
        tokens.insert(token);
    }
    assert!(tokens.len() < 64, "requests in flight share a token");

    let resources = server.resources().await;
    let table = resources.only_table();
    assert_eq!(table["snapshots"].as_array().unwrap().len(), 1, "the rows are loaded once");
    assert_eq!(table["snapshots"][0]["summary"]["total-records"], "2");
}

#[tokio::test]
async fn repeated_provision_changes_nothing() {
    let server = Landfall::start();
    let request = product_request(&cashflow_with_rows());
    let first = server.api().provision_and_wait(&request).await;
    let before = server.resources().await;
    let again = server.api().provision_and_wait(&request).await;
    assert_eq!(server.resources().await, before);
    assert_eq!(again["info"], first["info"]);
    for line in messages(&again) {
        assert!(!line.to_lowercase().starts_with("create"), "it claims to have made something: {line}");
    }
}

#[tokio::test]
async fn last_updateacl_request_defines_all_access() {
    let server = Landfall::start();
    let api = server.api();
    let descriptor = cashflow();
    api.provision_and_wait(&product_request(&descriptor)).await;

    let (alice, bob, developers) =
        ("user:alice_mydomain.com", "user:bob_mydomain.com", "group:developers_mydomain.com");
    let status = update_access(api, &[alice, developers]).await;
    assert!(messages(&status).join("\n").contains("recorded, not enforced"), "{status:#}");
    let granted = access_of(&server).await;
    assert!(granted.contains("alice") && granted.contains("developers"), "{granted}");

    // The same request again changes nothing.
    let before = server.resources().await;
    update_access(api, &[developers, alice, alice]).await;
    assert_eq!(server.resources().await, before);

    update_access(api, &[bob]).await;
    let granted = access_of(&server).await;
    assert!(granted.contains("bob"), "{granted}");
    assert!(!granted.contains("alice") && !granted.contains("developers"), "{granted}");

    // A later provisioning keeps the granted access.
    api.provision_and_wait(&product_request(&descriptor)).await;
    assert!(access_of(&server).await.contains("bob"));

    update_access(api, &[]).await;
    assert!(!access_of(&server).await.contains("bob"));
}

async fn update_access(api: &Api, refs: &[&str]) -> Value {
    api.complete("/v1/updateacl", &acl_request(&cashflow(), OUTPUT_PORT, refs)).await
}

/// The properties of the table with the recorded access.
async fn access_of(server: &Landfall) -> String {
    server.resources().await.only_table()["properties"].to_string()
}

/// An invalid prefix is a mistake in the request, not an unknown principal: no name is guessed, and nothing is
/// changed.
#[tokio::test]
async fn ref_with_an_unknown_prefix_is_refused() {
    let server = Landfall::start();
    let api = server.api();
    api.provision_and_wait(&product_request(&cashflow())).await;
    update_access(api, &["user:alice_mydomain.com"]).await;

    let strange = acl_request(&cashflow(), OUTPUT_PORT, &["user:bob_mydomain.com", "robot:r2d2"]);
    let refusal = api.post("/v1/updateacl", &strange).await.with_status(400).json();
    assert_eq!(refusal["inputErrorField"], "refs[1]");
    assert_eq!(refusal["errors"], json!(["refs[1]: the identity has an unknown prefix: `robot:r2d2`"]));
    let access = access_of(&server).await;
    assert!(access.contains("alice") && !access.contains("bob") && !access.contains("r2d2"), "{access}");
}

#[tokio::test]
async fn unprovision_removes_data_only_on_request() {
    let server = Landfall::start();
    let api = server.api();
    let descriptor = cashflow_with_rows();
    let request = product_request(&descriptor);
    api.provision_and_wait(&request).await;
    let data = |files: &[(std::path::PathBuf, u64)]| {
        files.iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "parquet")).count()
    };
    let first = server.resources().await;
    assert_eq!(data(&first.files), 1, "{first:#?}");

    api.complete("/v1/unprovision", &removal(&descriptor, false)).await;
    let kept = server.resources().await;
    assert_eq!(kept.tables, [], "deregistered");
    assert_eq!(data(&kept.files), 1, "kept: {kept:#?}");

    // A later provisioning restores the kept data, and does not load it twice.
    api.provision_and_wait(&request).await;
    let table = server.resources().await.only_table();
    assert_eq!(table["snapshots"].as_array().unwrap().last().unwrap()["summary"]["total-records"], "2");

    api.complete("/v1/unprovision", &removal(&descriptor, true)).await;
    let purged = server.resources().await;
    assert_eq!(purged.tables, []);
    assert_eq!(purged.files, [], "nothing is left");

    // Removing a component that is gone is no error.
    api.complete("/v1/unprovision", &removal(&descriptor, true)).await;
}

/// As short as the page's own sample of updateacl: ids, kinds and names, and no field that names a resource.
#[tokio::test]
async fn short_descriptor_finds_the_provisioned_component() {
    let server = Landfall::start();
    let api = server.api();
    api.provision_and_wait(&component_request(&cashflow(), STORAGE)).await;
    let short = json!({
        "componentIdToProvision": STORAGE,
        "dataProduct": {
            "id": "urn:dmb:dp:finance:cashflow:0",
            "components": [{ "id": STORAGE, "name": "Storage", "kind": "storage", "version": "0.0.1" }],
        },
    })
    .to_string();
    let access =
        json!({ "refs": ["user:alice_mydomain.com"], "provisionInfo": { "request": short, "result": "" } });
    let granted = api.complete("/v1/updateacl", &access).await;
    assert_eq!(granted["info"]["privateInfo"]["refs"], json!(["user:alice_mydomain.com"]), "{granted:#}");

    let removal =
        json!({ "descriptorKind": "COMPONENT_DESCRIPTOR", "descriptor": short, "removeData": true });
    api.complete("/v1/unprovision", &removal).await;
    assert_eq!(server.resources().await.buckets(), Vec::<String>::new());
}

#[tokio::test]
async fn provision_after_removal_restores_the_same_resources() {
    let server = Landfall::start();
    let api = server.api();
    let descriptor = cashflow_with_rows();
    let first = api.provision_and_wait(&product_request(&descriptor)).await;
    update_access(api, &["user:alice_mydomain.com"]).await;
    let before = server.resources().await;
    api.complete("/v1/unprovision", &removal(&descriptor, true)).await;

    let again = api.provision_and_wait(&product_request(&descriptor)).await;
    let after = server.resources().await;
    let names = |tables: &[(String, std::path::PathBuf)]| {
        tables.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&after.tables), names(&before.tables));
    assert_eq!(after.buckets(), before.buckets());
    assert_eq!(again["info"]["publicInfo"], first["info"]["publicInfo"]);
    assert!(access_of(&server).await.contains("alice"), "managed grants come back");
}

#[tokio::test]
async fn import_returns_the_columns_of_a_table() {
    let server = Landfall::start();
    let api = server.api();
    api.provision_and_wait(&product_request(&cashflow())).await;
    let before = server.resources().await;
    let (namespace, table) = before.tables[0].0.rsplit_once('.').unwrap();

    let request = json!({
        "useCaseTemplateId": "urn:dmb:utm:output-port-template:1.0.0",
        "environment": "production",
        "params": { "namespace": namespace, "table": table },
        "catalogInfo": { "spec": { "mesh": { "name": "CashFlow OutputPort" } } },
    });
    let token = api.post("/v1/reverse-provisioning", &request).await.token();
    let status = api.wait_at("/v1/reverse-provisioning", &token).await;
    assert_eq!(status["status"], "COMPLETED", "{status:#}");
    let columns = status["updates"]["spec.mesh.dataContract.schema"].as_array().unwrap();
    let names: Vec<_> = columns.iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["id", "direction", "amount", "counterpartyId"]);
    assert_eq!(columns[2]["description"], "monetary value of the cashflow");
    assert_eq!(server.resources().await, before, "an import changes nothing");

    let mut missing = request;
    missing["params"]["table"] = json!("no_such_table");
    let token = api.post("/v1/reverse-provisioning", &missing).await.token();
    let status = api.wait_at("/v1/reverse-provisioning", &token).await;
    assert_eq!(status["status"], "FAILED", "{status:#}");
    assert_eq!(status["updates"], json!({}));
    let errors = status["logs"].as_array().unwrap().iter().filter(|line| line["level"] == "ERROR");
    assert_ne!(errors.count(), 0, "{status:#}");
}

#[tokio::test]
async fn import_accepts_a_target_parameter() {
    let server = Landfall::start();
    let api = server.api();
    api.provision_and_wait(&component_request(&cashflow(), OUTPUT_PORT)).await;
    let request = json!({
        "useCaseTemplateId": "urn:dmb:utm:output-port-template:1.0.0",
        "environment": "production",
        "params": { "target": "local_lake", "table": "cashflow_output_port" },
    });
    let token = api.post("/v1/reverse-provisioning", &request).await.with_status(202).token();
    let status = api.wait_at("/v1/reverse-provisioning", &token).await;
    assert_eq!(status["status"], "COMPLETED", "{status:#}");
}

/// The log of a task that fails because of its request has the problem first, and then the remedy.
#[tokio::test]
async fn log_has_each_error_before_its_remedy() {
    let server = Landfall::start();
    let api = server.api();
    api.provision_and_wait(&component_request(&cashflow(), OUTPUT_PORT)).await;
    let one = replace_once(&cashflow(), "dataType: number", "dataType: DATE");
    let two = replace_once(
        &one,
        "name: direction\n          dataType: string",
        "name: direction\n          dataType: DATE",
    );
    for (text, problems) in [(one, 1), (two, 2)] {
        let status = api.run("/v1/provision", &component_request(&text, OUTPUT_PORT)).await;
        assert_eq!(status["status"], "FAILED", "{status:#}");
        let log = messages(&status);
        let all = |part: &str| {
            log.iter().enumerate().filter(|(_, line)| line.contains(part)).map(|(at, _)| at).collect()
        };
        let (errors, remedies): (Vec<usize>, Vec<usize>) =
            (all("cannot change from"), all("keep a type that is"));
        assert_eq!(remedies.len(), problems, "{log:#?}");
        for (error, remedy) in errors.iter().zip(&remedies) {
            let in_order = error < remedy
                || (error == remedy && log[*error].find("cannot change") < log[*error].find("keep a type"));
            assert!(in_order, "{log:#?}");
        }
        let last = status["logs"].as_array().unwrap().last().unwrap();
        assert_eq!(last["level"], "ERROR", "{log:#?}");
    }
}

#[tokio::test]
async fn schema_change_evolves_the_table_or_is_refused() {
    let server = Landfall::start();
    let api = server.api();
    api.provision_and_wait(&product_request(&cashflow_with_rows())).await;

    let text = cashflow_with_rows();
    let anchor = "description: identifier of the counterparty\n          tags: []\n";
    let wider = replace_once(
        &text,
        anchor,
        &format!(
            "{anchor}        - name: bookedOn\n          dataType: DATE\n          description: day of booking\n"
        ),
    );
    api.provision_and_wait(&product_request(&wider)).await;
    let table = server.resources().await.only_table();
    assert!(table["schemas"].to_string().contains("bookedOn"), "{table:#}");
    assert_eq!(table["snapshots"].as_array().unwrap().len(), 1, "rows are not loaded again");

    let before = server.resources().await;
    let breaking = replace_once(&text, "dataType: number", "dataType: DATE");
    let answer = api.post("/v1/provision", &product_request(&breaking)).await;
    let told = if answer.status == 400 {
        answer.text
    } else {
        let status = api.wait(&answer.token()).await;
        assert_eq!(status["status"], "FAILED", "{status:#}");
        status.to_string()
    };
    assert!(told.contains("amount"), "the column is named: {told}");
    assert_eq!(server.resources().await.tables, before.tables);
}

/// A storage area of another owner is never adopted.
#[tokio::test]
async fn foreign_storage_area_is_left_unchanged() {
    let server = Landfall::start();
    let api = server.api();
    let foreign = server.data_dir().join("warehouse/buckets/finance-cashflows");
    std::fs::create_dir_all(&foreign).unwrap();
    std::fs::write(foreign.join("theirs.txt"), "not ours").unwrap();

    let status = api.run("/v1/provision", &component_request(&cashflow(), STORAGE)).await;
    assert_eq!(status["status"], "FAILED", "{status:#}");
    assert!(status.to_string().contains("finance-cashflows"), "{status:#}");
    let mut removal = component_request(&cashflow(), STORAGE);
    removal["removeData"] = json!(true);
    api.run("/v1/unprovision", &removal).await;
    assert_eq!(std::fs::read_to_string(foreign.join("theirs.txt")).unwrap(), "not ours");
}

#[tokio::test]
async fn task_log_grows_while_the_task_runs() {
    let server = Landfall::with().config(SLOW).start();
    let api = server.api();
    let token = api.post("/v1/provision", &product_request(&cashflow())).await.token();
    let mut lengths = BTreeSet::new();
    let mut last = Vec::new();
    loop {
        let status = api.status(&token).await;
        let log = messages(&status);
        assert!(log.starts_with(&last), "lines are only ever added: {last:?} then {log:?}");
        lengths.insert(log.len());
        last = log;
        if status["status"] != "RUNNING" {
            assert_eq!(status["status"], "COMPLETED", "{status:#}");
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(lengths.len() >= 3, "the log was seen at {lengths:?} lines only");
}

#[tokio::test]
async fn running_and_queued_tasks_can_be_stopped() {
    let server = Landfall::with().config(SLOW).start();
    let api = server.api();
    let running = api.post("/v1/provision", &product_request(&cashflow())).await.token();
    let mut other = product_request(&cashflow());
    other["removeData"] = json!(true);
    let queued = api.post("/v1/unprovision", &other).await.token();
    assert_ne!(running, queued);

    for token in [&queued, &running] {
        let answer = api.post(&format!("/v1/provision/{token}/stop"), &json!({})).await;
        assert!([200, 202].contains(&answer.status), "{answer:?}");
    }
    for token in [&queued, &running] {
        let status = api.wait(token).await;
        assert_eq!(status["status"], "TERMINATED", "{status:#}");
    }

    // A stopped task can be requested again.
    api.provision_and_wait(&component_request(&cashflow(), STORAGE)).await;
}

#[tokio::test]
async fn stopping_an_ended_task_changes_nothing() {
    let server = Landfall::start();
    let api = server.api();
    let token = api.post("/v1/provision", &product_request(&cashflow())).await.token();
    api.wait(&token).await;
    let status = api.post(&format!("/v1/provision/{token}/stop"), &json!({})).await.with_status(200).json();
    assert_eq!(status["status"], "COMPLETED", "{status:#}");
    assert_eq!(api.status(&token).await["status"], "COMPLETED");
}

#[tokio::test]
async fn unrouted_component_error_names_the_served_routes() {
    let server = Landfall::start();
    let odd = replace_once(&cashflow(), "technology: Spark", "technology: Fortran");
    let result = server.api().validate(&component_request(&odd, WORKLOAD)).await;
    assert_eq!(result["valid"], false, "{result:#}");
    let told = result["error"].to_string();
    assert!(told.contains("Fortran") && told.contains("Spark"), "{result:#}");
}
