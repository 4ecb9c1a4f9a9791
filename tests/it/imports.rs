//! Imports as control planes request them: refusals before there is a task, failures of tasks, and results.
//!
//! `tests/corpus/imports/README.md` says how to add a case.

use serde_json::{Map, Value, json};

use crate::harness::{
    AIRBYTE, Api, Landfall, OUTPUT_PORT, PREFIX, cashflow, component_request, messages, replace_once,
    repository, walk,
};

const CONFIG: &str = r#"
[targets.LAKE]
driver = "lakehouse"
warehouse = "file://{data_dir}/warehouse"
catalog = "sqlite://{data_dir}/catalog.db"

[targets.MOCK]
driver = "mock"

[targets.WAREHOUSE]
driver = "postgresql"
url = { env = "IMPORTS_POSTGRESQL" }

[[routes]]
useCaseTemplateId = "urn:dmb:utm:iceberg-output-port"
group = "lakehouse"

[[routes]]
useCaseTemplateId = "urn:dmb:utm:output-port-template"
group = "lakehouse"

[[routes]]
useCaseTemplateId = "urn:dmb:utm:either"
technology = "S3"
group = "lakehouse"

[[routes]]
useCaseTemplateId = "urn:dmb:utm:either"
technology = "PostgreSQL"
group = "postgresql"

[[routes]]
useCaseTemplateId = "urn:dmb:utm:pg"
group = "postgresql"

[[routes]]
technology = "Spark"
group = "mock"
"#;

const IMPORTS: &str = "/v1/reverse-provisioning";

fn server(config: &str) -> Landfall {
    Landfall::with()
        .config(&format!("{CONFIG}{config}"))
        .env("IMPORTS_POSTGRESQL", "postgres://x@127.0.0.1:1/nowhere")
        .start()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|it| it.as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn field_imports_get_their_answers_in_both_contracts() {
    let server = server("");
    for environment in ["development", "production"] {
        let text =
            replace_once(&cashflow(), "environment: production", &format!("environment: {environment}"));
        server.api().provision_and_wait(&component_request(&text, OUTPUT_PORT)).await;
    }
    let mut files = Vec::new();
    walk(&repository().join("tests/corpus/imports"), &mut |path| {
        if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path.to_owned());
        }
    });
    files.sort();
    assert!(files.len() >= 30, "only {} cases", files.len());
    let before = server.resources().await;
    let mut wrong = Vec::new();
    for file in &files {
        let case: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        for prefix in ["", PREFIX] {
            if let Err(what) = judge(&server.api().under(prefix), &case).await {
                wrong.push(format!("{} at `{prefix}`: {what}", file.file_name().unwrap().to_string_lossy()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} answers are not as they must be:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(server.resources().await, before, "an import changes nothing");
    let nothing = server.api().under(AIRBYTE).post("/reverse-provisioning", &json!({})).await;
    assert_eq!(nothing.status, 404, "that contract has no such operation");
}

async fn judge(api: &Api, case: &Value) -> Result<(), String> {
    const KEYS: [&str; 7] = ["about", "request", "refused", "solutions", "failed", "updates", "log"];
    let unknown: Vec<&String> =
        case.as_object().unwrap().keys().filter(|key| !KEYS.contains(&key.as_str())).collect();
    assert!(unknown.is_empty(), "{unknown:?} say nothing to this test");
    let answer = api.post(IMPORTS, &case["request"]).await;
    if case["refused"].is_array() {
        if answer.status != 400 {
            return Err(format!("it is answered with {}: {}", answer.status, answer.text));
        }
        let error = answer.json();
        if error["errors"] != case["refused"] {
            return Err(format!("{:#}", error["errors"]));
        }
        let first = strings(&case["refused"])[0].clone();
        let field = error["inputErrorField"].as_str().unwrap_or_default();
        if !first.starts_with(&format!("{field}: ")) || field.is_empty() {
            return Err(format!("the field is `{field}`"));
        }
        if let Some(input) = error["input"].as_str()
            && !first.ends_with(&format!("`{input}`"))
        {
            return Err(format!("the value is `{input}`"));
        }
        let solutions = strings(&error["moreInfo"]["solutions"]).join("\n");
        let missing = strings(&case["solutions"]).into_iter().find(|part| !solutions.contains(part.as_str()));
        return match missing {
            Some(part) => Err(format!("`{part}` is not in {solutions}")),
            None => Ok(()),
        };
    }
    if answer.status != 202 {
        return Err(format!("it is answered with {}: {}", answer.status, answer.text));
    }
    let status = api.wait_at(IMPORTS, &answer.token()).await;
    let log = messages(&status);
    for line in strings(&case["log"]) {
        let count = log.iter().filter(|told| **told == line).count();
        if count != 1 {
            return Err(format!("`{line}` is {count} times in {log:#?}"));
        }
    }
    if let Some(part) = case["failed"].as_str() {
        let is_told = status["logs"].as_array().unwrap().iter().any(|line| {
            line["level"] == "ERROR" && line["message"].as_str().is_some_and(|message| message.contains(part))
        });
        let is_right = status["status"] == "FAILED" && status["updates"] == json!({}) && is_told;
        return if is_right { Ok(()) } else { Err(format!("{status:#}")) };
    }
    if status["status"] != "COMPLETED" {
        return Err(format!("{status:#}"));
    }
    let expected = case["updates"].as_object().expect("a case has one of `refused`, `failed` and `updates`");
    let other: Vec<String> = expected
        .iter()
        .filter(|(key, value)| status["updates"][key.as_str()] != **value)
        .map(|(key, _)| format!("{key}: {:#}", status["updates"][key.as_str()]))
        .collect();
    if other.is_empty() { Ok(()) } else { Err(other.join("\n")) }
}

/// The component of a document: it provides `spec.mesh` of the catalog entry, and receives the updates.
fn component(document: &mut Value) -> &mut Value {
    let components = document["dataProduct"]["components"].as_array_mut().unwrap();
    components.iter_mut().find(|component| component["id"] == OUTPUT_PORT).unwrap()
}

fn put(document: &mut Value, prefix: &str, updates: &Map<String, Value>) {
    for (key, value) in updates {
        let mut place = component(document);
        for part in key.strip_prefix(prefix).unwrap().split('.') {
            place = &mut place[part];
        }
        *place = value.clone();
    }
}

/// The sequence of a control plane: import, put the updates into the entity, deploy it.
#[tokio::test]
async fn provision_after_import_changes_nothing() {
    let odcs = json!({ "apiVersion": "v3.0.2", "kind": "DataContract", "id": "x",
        "slaProperties": [{ "property": "latency", "value": 4, "unit": "h" }],
        "schema": [{ "name": "cashflows", "quality": [{ "rule": "rowCount" }], "properties": [
            { "name": "id", "logicalType": "integer", "primaryKey": true, "businessName": "Number" },
            { "name": "amount", "physicalType": "decimal(12,2)", "required": true, "unique": true, "tags": ["money"] },
            { "name": "lines", "logicalType": "array", "items": { "logicalType": "object", "properties": [
                { "name": "sku", "logicalType": "string", "logicalTypeOptions": { "maxLength": 20 } }] } },
        ] }] });
    for contract in [None, Some(odcs)] {
        let server = server("");
        let api = server.api();
        let request = component_request(&cashflow(), OUTPUT_PORT);
        let mut document: Value = serde_yaml::from_str(request["descriptor"].as_str().unwrap()).unwrap();
        if let Some(contract) = &contract {
            component(&mut document)["dataContract"] = contract.clone();
            component(&mut document)["sampleData"] = json!(null);
        }
        let with = |document: &Value| {
            let mut request = request.clone();
            request["descriptor"] = json!(document.to_string());
            request
        };
        api.provision_and_wait(&with(&document)).await;
        let before = component(&mut document).clone();
        let import = json!({
            "useCaseTemplateId": "urn:dmb:utm:output-port-template:1.0.0",
            "environment": "production",
            "params": { "descriptor": document, "environmentSpecificConfig": {} },
            "catalogInfo": { "apiVersion": "witboost.com/v2", "kind": "Component", "spec": { "mesh": before } },
        });
        let token = api.post(IMPORTS, &import).await.token();
        let status = api.wait_at(IMPORTS, &token).await;
        assert_eq!(status["status"], "COMPLETED", "{status:#}");
        let warnings = status["logs"].as_array().unwrap().iter().filter(|line| line["level"] == "WARNING");
        assert_eq!(warnings.count(), 0, "{status:#}");
        let updates = status["updates"].as_object().unwrap();
        if let Some(contract) = &contract {
            assert_eq!(updates["spec.mesh.dataContract.schema"], contract["schema"], "word for word");
            assert!(!updates.contains_key("spec.mesh.dataContract.slaProperties"), "{updates:#?}");
        }
        put(&mut document, "spec.mesh.", updates);
        let mut plan = with(&document);
        plan["operation"] = json!("PROVISION");
        let plan = api.post("/landfall/v1/plan", &plan).await.with_status(200).json();
        assert_eq!(plan["components"][0]["changes"], json!([]), "{plan:#}");
        let done = api.provision_and_wait(&with(&document)).await;
        let result = done["result"].as_str().unwrap();
        assert!(result.starts_with("provisioned: 1 component, nothing to change"), "{result}");
    }
}

#[tokio::test]
async fn import_updates_use_the_configured_prefixes() {
    let config = r#"
[import]
environment_key = "perEnvironment"

[import.prefixes]
"spec.mesh" = ["spec.mesh", "parameters"]
"spec.mesh.dataContract.schema" = "parameters.schemaDefinition.schemaColumns"
"spec.mesh.specific" = "environmentParameters"
"spec.mesh.dataContract.SLA" = []
"#;
    let server = server(config);
    let api = server.api();
    api.provision_and_wait(&component_request(&cashflow(), OUTPUT_PORT)).await;
    let import = json!({
        "useCaseTemplateId": "urn:dmb:utm:output-port-template:1.0.0",
        "environment": "production",
        "params": { "perEnvironment": { "specific": { "table": "cashflow_output_port" } },
                    "environmentSpecificConfig": { "specific": { "table": "another" } } },
    });
    let token = api.post(IMPORTS, &import).await.token();
    let status = api.wait_at(IMPORTS, &token).await;
    assert_eq!(status["status"], "COMPLETED", "{status:#}");
    let keys: Vec<&str> = status["updates"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "spec.mesh.description",
            "parameters.description",
            "parameters.schemaDefinition.schemaColumns",
            "environmentParameters.format",
            "environmentParameters.namespace",
            "environmentParameters.table",
        ]
    );
    let ignored = "parameters that nothing reads are ignored: `environmentSpecificConfig`";
    assert!(messages(&status).iter().any(|line| line == ignored), "{status:#}");
}
