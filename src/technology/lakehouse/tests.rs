use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::*;
use crate::access::Ref;
use crate::descriptor::{DescriptorKind, Limits, Strictness, parse};
use crate::error::Kind;
use crate::technology::{AccessList, ReverseRequest};

const CASHFLOW: &str = include_str!("../../../examples/cashflow.yaml");
const PORT: &str = "urn:dmb:cmp:finance:cashflow:0:cashflow-output-port";
const STORAGE: &str = "urn:dmb:cmp:finance:cashflow:0:storage-component";

fn work_of(text: &str, component: &str) -> Work {
    let descriptor = parse(DescriptorKind::DataProduct, text, Strictness::Full, &Limits::default()).unwrap();
    let product = Arc::new(descriptor.product);
    let component = product.component(&component.parse().unwrap()).unwrap().clone();
    Work {
        environment: product.environment.clone().unwrap(),
        product,
        component: Arc::new(component),
        access: None,
    }
}

fn port() -> Work {
    work_of(&CASHFLOW.replace("format: Iceberg", "format: Iceberg\n      loadSampleData: true"), PORT)
}

fn bucket() -> Work {
    work_of(CASHFLOW, STORAGE)
}

/// An output port of the given columns and `specific`, both as YAML in flow style.
fn port_with(columns: &str, specific: &str) -> Work {
    let text = format!(
        "{{id: 'urn:dmb:dp:finance:other:1', name: Other, version: 1.0.0, kind: dataproduct, environment: development, \
         domain: finance, dataProductOwner: 'user:a_b.com', devGroup: dev, components: [{{id: 'urn:dmb:cmp:finance:other:1:port', \
         name: Port, version: 1.0.0, kind: outputport, infrastructureTemplateId: 'urn:dmb:itm:x:1', \
         dataContract: {{schema: {columns}}}, specific: {specific}}}]}}"
    );
    work_of(&text, "urn:dmb:cmp:finance:other:1:port")
}

fn with_access(mut work: Work, refs: &[&str]) -> Work {
    let mut refs: Vec<Ref> = refs.iter().map(|text| Ref::parse(text).unwrap()).collect();
    refs.sort();
    work.access = Some(AccessList { refs, fields: Object::new() });
    work
}

async fn open(folder: &Path) -> Lakehouse {
    Lakehouse::open(LakehouseSettings {
        target: "LOCAL_LAKE".to_owned(),
        warehouse: folder.join("warehouse"),
        catalog: folder.join("catalog.db"),
    })
    .await
    .unwrap()
}

async fn run(lake: &Lakehouse, work: &Work, intent: Intent) -> Vec<String> {
    let context = Context::default();
    assert_eq!(lake.check(work, &intent), []);
    let plan = lake.plan(work, &intent, &context).await.unwrap();
    assert!(plan.notes.contains(&access::NOTE.to_owned()));
    let mut done = Vec::new();
    for change in &plan.changes {
        lake.apply(work, change, &context).await.unwrap();
        done.push(format!("{:?}: {}", change.action, change.summary));
    }
    let again = lake.plan(work, &intent, &context).await;
    match again {
        Ok(plan) => assert_eq!(plan.changes, []),
        Err(e) => assert!(matches!(intent, Intent::Unprovision { .. }), "{e}"),
    }
    done
}

fn public(info: &Info, key: &str) -> String {
    info.public[key]["value"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_storage_area_comes_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path()).await;
    let work = with_access(bucket(), &["user:alice_example.com"]);
    let done = run(&lake, &work, Intent::Provision).await;
    assert_eq!(done, ["Create: create the bucket", "Grant: grant `user:alice_example.com` (recorded)"]);
    let path = folder.path().join("warehouse/buckets/finance-cashflows");
    std::fs::write(path.join("data.csv"), "1").unwrap();
    let info = lake.describe(&work, &Context::default()).await.unwrap();
    assert_eq!(public(&info, "bucket"), "finance-cashflows");
    assert_eq!(info.private["refs"], serde_json::json!(["user:alice_example.com"]));

    let done = run(&lake, &work, Intent::Unprovision { remove_data: false }).await;
    assert_eq!(done.len(), 1);
    assert!(path.join("data.csv").exists());
    assert_eq!(lake.describe(&work, &Context::default()).await.unwrap(), Info::default());
    assert!(matches!(
        lake.plan(&work, &Intent::UpdateAccess, &Context::default()).await.unwrap_err().kind(),
        Kind::Permanent
    ));
    let done = run(&lake, &work, Intent::Provision).await;
    assert_eq!(done, ["Restore: take back the bucket and the data that were kept"]);
    assert!(path.join("data.csv").exists());
    run(&lake, &work, Intent::Unprovision { remove_data: true }).await;
    assert!(!path.exists());
    assert_eq!(std::fs::read_dir(folder.path().join("warehouse/buckets")).unwrap().count(), 0);
}

#[tokio::test]
async fn foreign_buckets_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path()).await;
    let path = folder.path().join("warehouse/buckets/finance-cashflows");
    std::fs::create_dir_all(&path).unwrap();
    std::fs::write(path.join("theirs"), "1").unwrap();
    for intent in [Intent::Provision, Intent::Unprovision { remove_data: true }, Intent::UpdateAccess] {
        let error = lake.plan(&bucket(), &intent, &Context::default()).await.unwrap_err();
        assert_eq!(*error.kind(), Kind::Conflict, "{error}");
    }
    std::fs::remove_dir_all(&path).unwrap();
    run(&lake, &bucket(), Intent::Provision).await;
    let mut other = bucket();
    other.environment = "development".to_owned();
    let error = lake.plan(&other, &Intent::Provision, &Context::default()).await.unwrap_err();
    assert_eq!(*error.kind(), Kind::Conflict);
    assert!(error.to_string().contains("production") && error.to_string().contains("development"), "{error}");
    // A change planned for a name that became somebody else's.
    let purge = change(Action::Drop, "", "", &Step::Purge);
    assert!(lake.apply(&other, &purge, &Context::default()).await.is_err());
    assert!(path.exists());
}

#[tokio::test]
async fn an_output_port_comes_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path()).await;
    let work = with_access(port(), &["user:alice_example.com", "group:developers"]);
    let done = run(&lake, &work, Intent::Provision).await;
    assert_eq!(
        done,
        [
            "Create: create the table with `id` string, `direction` string, `amount` decimal(38, 9), `counterpartyId` string",
            "Load: load 2 sample rows",
            "Grant: grant `group:developers` (recorded)",
            "Grant: grant `user:alice_example.com` (recorded)",
        ]
    );
    let info = lake.describe(&work, &Context::default()).await.unwrap();
    assert_eq!(public(&info, "tableName"), "finance__cashflow__0__production.cashflow_output_port");
    assert_eq!(public(&info, "rowCount"), "2");
    assert!(info.private["metadataLocation"].as_str().unwrap().ends_with(".metadata.json"));

    let only_bob = with_access(port(), &["user:bob_example.com"]);
    let done = run(&lake, &only_bob, Intent::UpdateAccess).await;
    assert_eq!(done.len(), 3);
    assert!(done[0].starts_with("Revoke") && done[2].starts_with("Grant"));

    run(&lake, &only_bob, Intent::Unprovision { remove_data: false }).await;
    assert_eq!(lake.describe(&only_bob, &Context::default()).await.unwrap(), Info::default());
    let error = lake.plan(&only_bob, &Intent::UpdateAccess, &Context::default()).await.unwrap_err();
    assert_eq!(*error.kind(), Kind::Permanent);
    let done = run(&lake, &only_bob, Intent::Provision).await;
    assert_eq!(done, ["Restore: take back the table and the data that were kept"]);
    let info = lake.describe(&only_bob, &Context::default()).await.unwrap();
    assert_eq!(public(&info, "rowCount"), "2");
    assert_eq!(info.private["refs"], serde_json::json!(["user:bob_example.com"]));

    // Kept data goes too, when it is asked for later.
    run(&lake, &only_bob, Intent::Unprovision { remove_data: false }).await;
    run(&lake, &only_bob, Intent::Unprovision { remove_data: true }).await;
    assert_eq!(std::fs::read_dir(folder.path().join("warehouse/tables")).unwrap().count(), 0);
    let done = run(&lake, &only_bob, Intent::Provision).await;
    assert_eq!(done.len(), 3);
    run(&lake, &only_bob, Intent::Unprovision { remove_data: true }).await;
    assert_eq!(std::fs::read_dir(folder.path().join("warehouse/tables")).unwrap().count(), 0);
}

/// Leaves a warehouse with tables behind for a look with other tools:
/// `LANDFALL_KEEP=/tmp/lake cargo test --lib a_warehouse_to_look_at -- --ignored`.
#[tokio::test]
#[ignore = "leaves files behind, for a look by hand"]
async fn a_warehouse_to_look_at() {
    let folder = std::path::PathBuf::from(std::env::var("LANDFALL_KEEP").unwrap());
    let lake = open(&folder).await;
    run(&lake, &with_access(port(), &["user:alice_example.com"]), Intent::Provision).await;
}
