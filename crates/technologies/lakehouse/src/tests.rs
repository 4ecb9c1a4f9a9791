use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use iceberg::Catalog;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use super::*;
use landfall_adapter::AccessList;
use landfall_adapter::access::Ref;
use landfall_adapter::any::AnyStep;
use landfall_adapter::conformance::{self, Case, Subject};
use landfall_adapter::descriptor::{Object, write_contract};
use landfall_adapter::error::Kind;
use landfall_adapter::import::Updates;
use landfall_adapter::testing::{self, CASHFLOW, Directly, PORT, STORAGE, work as work_of};

fn port() -> Work {
    work_of(&CASHFLOW.replace("format: Iceberg", "format: Iceberg\n      loadSampleData: true"), PORT)
}

fn bucket() -> Work {
    work_of(CASHFLOW, STORAGE)
}

const OTHER_PORT: &str = "urn:dmb:cmp:finance:other:1:port";

/// A data product with an output port of the given columns and `specific`, both as YAML in flow style.
fn port_text(columns: &str, specific: &str) -> String {
    format!(
        "{{id: 'urn:dmb:dp:finance:other:1', name: Other, version: 1.0.0, kind: dataproduct, environment: development,
          domain: finance, dataProductOwner: 'user:a_b.com', devGroup: dev, components: [{{id: '{OTHER_PORT}',
          name: Port, version: 1.0.0, kind: outputport, infrastructureTemplateId: 'urn:dmb:itm:x:1',
          useCaseTemplateId: 'urn:dmb:utm:x:1', dataContract: {{schema: {columns}}}, specific: {specific}}}]}}"
    )
}

fn port_with(columns: &str, specific: &str) -> Work {
    work_of(&port_text(columns, specific), OTHER_PORT)
}

fn with_access(mut work: Work, refs: &[&str]) -> Work {
    let mut refs: Vec<Ref> = refs.iter().map(|text| Ref::parse(text).unwrap()).collect();
    refs.sort();
    work.access = Some(AccessList { refs, fields: Object::new() });
    work
}

fn open(folder: &Path) -> Lakehouse {
    Lakehouse::new(LakehouseSettings {
        target: "LOCAL_LAKE".to_owned(),
        warehouse: folder.join("warehouse"),
        catalog: folder.join("catalog.db"),
    })
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
async fn storage_area_is_created_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path());
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
        Kind::Conflict
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
    let lake = open(folder.path());
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
    // A change was planned for a name that another owner has taken since.
    let purge = AnyStep::new(Step::Purge, Intent::Unprovision { remove_data: true });
    let purge = Change::new(Action::Drop, "", "", purge);
    assert!(lake.apply(&other, &purge, &Context::default()).await.is_err());
    assert!(path.exists());
}

#[tokio::test]
async fn output_port_is_created_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path());
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
    assert_eq!(*error.kind(), Kind::Conflict);
    let done = run(&lake, &only_bob, Intent::Provision).await;
    assert_eq!(done, ["Restore: take back the table and the data that were kept"]);
    let info = lake.describe(&only_bob, &Context::default()).await.unwrap();
    assert_eq!(public(&info, "rowCount"), "2");
    assert_eq!(info.private["refs"], serde_json::json!(["user:bob_example.com"]));

    // Kept data is deleted, too, by a later request for it.
    run(&lake, &only_bob, Intent::Unprovision { remove_data: false }).await;
    run(&lake, &only_bob, Intent::Unprovision { remove_data: true }).await;
    assert_eq!(std::fs::read_dir(folder.path().join("warehouse/tables")).unwrap().count(), 0);
    let done = run(&lake, &only_bob, Intent::Provision).await;
    assert_eq!(done.len(), 3);
    run(&lake, &only_bob, Intent::Unprovision { remove_data: true }).await;
    assert_eq!(std::fs::read_dir(folder.path().join("warehouse/tables")).unwrap().count(), 0);
}

const DIRECTION: &str = "        - name: direction\n          dataType: string";

struct Embedded {
    lake: Lakehouse,
    folder: tempfile::TempDir,
}

#[async_trait]
impl Subject for Embedded {
    async fn fresh() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { lake: open(folder.path()), folder }
    }

    fn technology(&self) -> &dyn landfall_adapter::any::AnyTechnology {
        &self.lake
    }

    fn cases(&self) -> Vec<Case> {
        let text = CASHFLOW
            .replace("format: Iceberg", "format: Iceberg\n      loadSampleData: true\n      allowDropColumns: true")
            .replace("monetary value", "amount")
            .replace("intervalOfChange: 2 day", "intervalOfChange: 1 day")
            .replace("        - name: direction\n          dataType: string\n          tags: []\n", "")
            .replace("        - direction\n", "")
            .replace("          - Incoming\n", "")
            .replace("          - Outgoing\n", "")
            .replace(
                "      termsAndConditions",
                "        - {name: currency, dataType: varchar, dataLength: 3, description: ISO 4217, tags: [{tagFQN: X.Y}]}\n      termsAndConditions",
            );
        vec![
            Case { work: port(), changed: Some(work_of(&text, PORT)) },
            Case { work: bucket(), changed: None },
        ]
    }

    /// Every file by its directory, marks and tables in full, without names and times.
    async fn observe(&self) -> Value {
        let mut seen = Object::new();
        for kind in ["buckets", "tables"] {
            let mut waiting = vec![self.folder.path().join("warehouse").join(kind)];
            while let Some(directory) = waiting.pop() {
                let Ok(entries) = directory.read_dir() else { continue };
                for path in entries.map(|entry| entry.unwrap().path()) {
                    if path.ends_with(marked::MARK_FILE) {
                        let mut mark: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                        mark.as_object_mut()
                            .unwrap()
                            .retain(|key, _| key != "catalog" && key != "metadataLocation");
                        seen.insert(format!("mark of {}", relative(self.folder.path(), &directory)), mark);
                    } else if path.is_dir() && !path.ends_with("data") && !path.ends_with("metadata") {
                        seen.insert(relative(self.folder.path(), &path), Value::Bool(true));
                        waiting.push(path);
                    }
                }
            }
        }
        for namespace in self.lake.opened().await.unwrap().catalog.sql.list_namespaces(None).await.unwrap() {
            seen.insert(format!("namespace {}", namespace.join(".")), Value::Bool(true));
            for ident in self.lake.opened().await.unwrap().catalog.sql.list_tables(&namespace).await.unwrap()
            {
                let table = self.lake.opened().await.unwrap().catalog.load(&ident).await.unwrap().unwrap();
                let properties: BTreeMap<_, _> = table.metadata().properties().clone().into_iter().collect();
                let schema = table.metadata().current_schema();
                let columns = properties::describe_columns(schema, table.metadata().properties()).unwrap();
                seen.insert(
                    format!("table {}", catalog::dotted(&ident)),
                    json!({
                        "properties": properties,
                        "schema": write_contract(&columns, "port", None).schema,
                        "rows": rows(&table).await,
                    }),
                );
            }
        }
        let sorted: BTreeMap<_, _> = seen.into_iter().collect();
        json!(sorted)
    }

    async fn granted(&self, work: &Work) -> std::collections::BTreeSet<String> {
        let info = self.lake.describe(work, &Context::default()).await.unwrap();
        info.private["refs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    }

    async fn occupy(&self, work: &Work) -> bool {
        let mut other = work.clone();
        other.environment = "somewhere else".to_owned();
        if work.component.kind == ComponentKind::OutputPort {
            let mut component = (*work.component).clone();
            component.specific.insert("namespace".to_owned(), json!("finance__cashflow__0__production"));
            other.component = Arc::new(component);
        }
        run(&self.lake, &other, Intent::Provision).await;
        true
    }
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap().display().to_string()
}

async fn rows(table: &iceberg::table::Table) -> Vec<String> {
    use futures::TryStreamExt;
    let batches: Vec<_> =
        table.scan().build().unwrap().to_arrow().await.unwrap().try_collect().await.unwrap();
    batches.iter().map(|batch| format!("{:?}", batch.columns())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    conformance::conforms::<Embedded>().await;
}

/// One column of every type, with one row that has a value in each.
const EVERY_TYPE: &str = "[
  {name: key, dataType: BIGINT, constraint: PRIMARY_KEY, description: the key},
  {name: boolean, dataType: BOOLEAN, constraint: NOT_NULL}, {name: tiny, dataType: tinyint},
  {name: small, dataType: SMALLINT}, {name: byteint, dataType: BYTEINT}, {name: int, dataType: INT},
  {name: long, dataType: LONG}, {name: float, dataType: FLOAT}, {name: double, dataType: DOUBLE},
  {name: number, dataType: NUMBER}, {name: numeric, dataType: NUMERIC, precision: 10},
  {name: decimal, dataType: DECIMAL, precision: 10, scale: 2}, {name: date, dataType: DATE},
  {name: time, dataType: TIME}, {name: timestamp, dataType: TIMESTAMP}, {name: datetime, dataType: DATETIME},
  {name: timestampz, dataType: TIMESTAMPZ}, {name: string, dataType: STRING, constraint: UNIQUE},
  {name: text, dataType: TEXT}, {name: mediumtext, dataType: MEDIUMTEXT},
  {name: char, dataType: CHAR, dataLength: 3}, {name: varchar, dataType: VARCHAR, dataLength: 20,
   tags: [{tagFQN: PII.Sensitive, source: Tag, labelType: Manual}]},
  {name: json, dataType: JSON}, {name: enum, dataType: ENUM}, {name: set, dataType: SET},
  {name: interval, dataType: INTERVAL}, {name: uuid, dataType: UUID}, {name: binary, dataType: BINARY, dataLength: 2},
  {name: bytes, dataType: BYTES}, {name: varbinary, dataType: VARBINARY, dataLength: 4},
  {name: blob, dataType: BLOB}, {name: mediumblob, dataType: MEDIUMBLOB}, {name: longblob, dataType: LONGBLOB},
  {name: strings, dataType: ARRAY, arrayDataType: STRING},
  {name: decimals, dataType: ARRAY, arrayDataType: DECIMAL, precision: 5, scale: 1},
  {name: structs, dataType: ARRAY, arrayDataType: STRUCT, children: [{name: a, dataType: INT, constraint: NOT_NULL,
   description: inner}, {name: b, dataType: VARCHAR, dataLength: 5, tags: [{tagFQN: A.B}]}]},
  {name: maps, dataType: ARRAY, arrayDataType: MAP, children: [{name: key, dataType: STRING}, {name: value, dataType: INT}]},
  {name: arrays, dataType: ARRAY, arrayDataType: ARRAY, children: [{name: element, dataType: ARRAY, arrayDataType: INT}]},
  {name: struct, dataType: STRUCT, description: nested, children: [{name: x, dataType: DATE},
   {name: inner, dataType: STRUCT, children: [{name: y, dataType: STRING}]}]},
  {name: map, dataType: MAP, children: [{name: value, dataType: STRUCT, children: [{name: z, dataType: DOUBLE}]}, {name: key, dataType: INT}]}
]";

const EVERY_VALUE: &str = "{columns: [key, boolean, tiny, small, byteint, int, long, float, double, number, numeric,
  decimal, date, time, timestamp, datetime, timestampz, string, text, mediumtext, char, varchar, json, enum, set,
  interval, uuid, binary, bytes, varbinary, blob, mediumblob, longblob, strings, decimals, structs, maps, arrays,
  struct, map], rows: [[1, true, 1, 2, 3, -4, 9007199254740993, 1.5, 2.5, 0.000000001, 1234567890, 12345678.90,
  '2024-02-29', '23:59:59.5', '2024-02-29T23:59:59', '2024-02-29 01:02', '2024-02-29T23:59:59+01:00', text, 12, true,
  abc, somewhat, {a: [1]}, A, s, P1D, f79c3e09-677c-4bbd-a479-3f349cb785e7, '0xCAFE', '0x', '0x01', '0x02', '0x03',
  '0x04', [a, null, c], [1.5], [{a: 1, b: x}, {a: 2}], [{k: 1}, {}], [[1, 2], [], null], {x: '1969-12-31', inner: {y: z}},
  {1: {z: 1.5}}], [2, false, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null,
  null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null,
  null, null, null, null]]}";

fn every_type() -> Work {
    let mut work = port_with(EVERY_TYPE, "{loadSampleData: true}");
    let sampled = port_text(EVERY_TYPE, "{loadSampleData: true}")
        .replace("dataContract:", &format!("sampleData: {EVERY_VALUE}, dataContract:"));
    work.component = work_of(&sampled, OTHER_PORT).component;
    work
}

async fn import(lake: &Lakehouse, params: Value) -> Result<Object> {
    let import = testing::import("development", &params, &json!({}));
    Ok(lake.reverse(&import, &Context::default()).await?.updates(&import).fields)
}

#[tokio::test]
async fn every_type_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path());
    let work = every_type();
    run(&lake, &work, Intent::Provision).await;
    let info = lake.describe(&work, &Context::default()).await.unwrap();
    assert_eq!(public(&info, "rowCount"), "2");
    let ident = iceberg::TableIdent::from_strs(["finance__other__1__development", "port"]).unwrap();
    let table = lake.opened().await.unwrap().catalog.load(&ident).await.unwrap().unwrap();
    assert_eq!(rows(&table).await.len(), 1);

    let updates = import(&lake, json!({ "table": "port" })).await.unwrap();
    assert_eq!(updates["spec.mesh.specific.namespace"], "finance__other__1__development");
    let schema = &updates["spec.mesh.dataContract.schema"];
    assert_eq!(
        schema[0],
        json!({ "name": "key", "dataType": "BIGINT", "description": "the key", "constraint": "PRIMARY_KEY" })
    );
    assert_eq!(
        schema[21],
        json!({ "name": "varchar", "dataType": "VARCHAR", "dataLength": 20,
                "tags": [{ "tagFQN": "PII.Sensitive", "source": "Tag", "labelType": "Manual" }] })
    );
    // The imported contract describes the same table: it needs no change, and creates an equal table elsewhere.
    let imported = port_with(&schema.to_string(), "{}");
    assert_eq!(
        types::wanted(&imported.component.data_contract.as_ref().unwrap().schema).unwrap().schema,
        types::wanted(&work.component.data_contract.as_ref().unwrap().schema).unwrap().schema,
    );
    let plan = lake.plan(&imported, &Intent::Provision, &Context::default()).await.unwrap();
    assert_eq!(plan.changes, []);
    let elsewhere = tempfile::tempdir().unwrap();
    let other = open(elsewhere.path());
    run(&other, &imported, Intent::Provision).await;
    assert_eq!(import(&other, json!({ "table": "port" })).await.unwrap(), updates);

    // Without Landfall's properties the types are Iceberg's own, and create an equal table again.
    let bare = properties::describe_columns(table.metadata().current_schema(), &HashMap::new()).unwrap();
    let bare = write_contract(&bare, "port", None);
    assert_eq!(bare.lost, Vec::<String>::new());
    let bare = port_with(&bare.schema.to_string(), "{}");
    assert_eq!(
        types::wanted(&bare.component.data_contract.as_ref().unwrap().schema).unwrap().schema,
        types::wanted(&work.component.data_contract.as_ref().unwrap().schema).unwrap().schema,
    );
}

#[tokio::test]
async fn imports_report_missing_parameters() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path());
    let error = import(&lake, json!({ "tabel": "x" })).await.unwrap_err();
    let Kind::Invalid(problems) = error.kind() else { panic!("{error}") };
    let told: Vec<_> = problems.iter().map(Problem::with_remedy).collect();
    assert_eq!(
        told,
        ["params.table: `table` is missing; add `table` to `params`; did you mean it by `tabel`?"]
    );
    let error = import(&lake, json!({ "table": "x" })).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no table `x` in the catalog of target `LOCAL_LAKE`: it is empty");
    run(&lake, &port(), Intent::Provision).await;
    let error = import(&lake, json!({ "table": "x", "namespace": "y" })).await.unwrap_err();
    assert!(
        error.to_string().ends_with("there are the namespaces `finance__cashflow__0__production`"),
        "{error}"
    );
    let error = import(&lake, json!({ "table": "x" })).await.unwrap_err();
    assert!(error.to_string().contains("`finance__cashflow__0__production.cashflow_output_port`"), "{error}");
    let mut other = port();
    other.environment = "development".to_owned();
    run(&lake, &other, Intent::Provision).await;
    let error = import(&lake, json!({ "table": "cashflow_output_port" })).await.unwrap_err();
    assert!(error.to_string().starts_with("2 tables are called `cashflow_output_port`"), "{error}");
    let named = json!({ "table": "cashflow_output_port", "namespace": "finance__cashflow__0__development" });
    let updates = import(&lake, named).await.unwrap();
    let keys: Vec<_> = updates.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "spec.mesh.description",
            "spec.mesh.dataContract.schema",
            "spec.mesh.dataContract.SLA",
            "spec.mesh.specific.format",
            "spec.mesh.specific.namespace",
            "spec.mesh.specific.table"
        ]
    );
    assert_eq!(updates["spec.mesh.dataContract.schema"][2]["dataType"], "NUMBER");
}

/// The result of an import, put into the descriptor that the table was made from, needs no change, in either form of
/// the contract; if nothing changed, it equals the text of the author.
#[tokio::test]
async fn an_import_that_is_provisioned_changes_nothing() {
    for schema in testing::SCHEMAS {
        let folder = tempfile::tempdir().unwrap();
        let lake = open(folder.path());
        let text = testing::port_text(schema);
        let id = "urn:dmb:cmp:sales:shapes:1:port";
        run(&lake, &work_of(&text, id), Intent::Provision).await;
        let mesh = testing::mesh(&text);
        let descriptor: Value = serde_yaml::from_str(&text).unwrap();
        let wrapped = json!({ "dataProduct": descriptor, "componentIdToProvision": id });
        let mut seen = Vec::new();
        for params in [
            json!({ "table": "port" }),
            json!({ "descriptor": wrapped }),
            json!({ "environmentSpecificConfig": { "specific": { "table": "port" } }, "bucket": "unused" }),
        ] {
            let import = testing::import("production", &params, &mesh);
            let imported = lake.reverse(&import, &Context::default()).await.unwrap();
            let Updates { fields, lost } = imported.updates(&import);
            assert_eq!(lost, Vec::<String>::new());
            let again = work_of(&testing::updated(&text, &fields), id);
            assert_eq!(lake.check(&again, &Intent::Provision), []);
            let plan = lake.plan(&again, &Intent::Provision, &Context::default()).await.unwrap();
            assert_eq!(plan.changes, [], "{fields:#?}");
            seen.push(fields);
        }
        assert!(seen.iter().all(|fields| *fields == seen[0]), "{seen:#?}");
        let is_odcs = schema.contains("properties");
        let given = &seen[0]["spec.mesh.dataContract.schema"];
        assert_eq!(given[0].get("properties").is_some(), is_odcs, "{given:#}");
        if is_odcs {
            assert_eq!(*given, mesh["dataContract"]["schema"], "nothing changed");
        }
        // The other form of the same table is accepted, too.
        let other =
            json!({ "dataContract": { "kind": "DataContract", "apiVersion": "v3.0.2", "schema": [] } });
        let other = if is_odcs { json!({}) } else { other };
        let import = testing::import("production", &json!({ "table": "port" }), &other);
        let updates = lake.reverse(&import, &Context::default()).await.unwrap().updates(&import);
        assert_eq!(updates.lost, Vec::<String>::new());
        let again = work_of(&testing::updated(&text, &updates.fields), id);
        let plan = lake.plan(&again, &Intent::Provision, &Context::default()).await.unwrap();
        assert_eq!(plan.changes, [], "{:#?}", updates.fields);
    }
}

#[test]
fn import_parameters_are_checked_without_the_target() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(&folder.path().join("not made"));
    let component = json!({ "dataProduct": { "id": "urn:dmb:dp:finance:cashflow:0", "components": [
        { "id": PORT, "specific": { "namespace": "elsewhere" } }] }, "componentIdToProvision": PORT });
    for (params, problems, defaults) in [
        (
            json!({ "table": 7 }),
            vec!["params.table: `table` is a number: `7`; use a text; put it in quotes"],
            vec![],
        ),
        (
            json!({ "table": "t", "namespace": ["n"] }),
            vec!["params.namespace: `namespace` is a list; use a text; put it in quotes"],
            vec![],
        ),
        (
            json!({ "descriptor": { "id": "urn:dmb:dp:finance:cashflow:0" } }),
            vec!["params.table: `table` is missing; add `table` to `params`"],
            vec![],
        ),
        (
            json!({ "descriptor": component }),
            vec![],
            vec![
                "`namespace` is `elsewhere`, from `specific` of the descriptor",
                "`table` is `cashflow_output_port`, from the ids in the descriptor",
            ],
        ),
    ] {
        let import = testing::import("production", &params, &json!({}));
        let mut read = import.params();
        lake.check_import(&mut read);
        let checked = read.finish();
        let told: Vec<_> = checked.problems.iter().map(Problem::with_remedy).collect();
        assert_eq!(told, problems, "{params}");
        assert_eq!(checked.defaults, defaults, "{params}");
    }
    assert!(!folder.path().join("not made").exists());
}

fn check(work: &Work, intent: &Intent) -> Vec<Problem> {
    let nowhere = Path::new("/nowhere");
    let settings =
        LakehouseSettings { target: "LAKE".to_owned(), warehouse: nowhere.into(), catalog: nowhere.into() };
    Lakehouse::new(settings).check(work, intent)
}

fn problems(checked: Vec<Problem>) -> Vec<String> {
    checked.into_iter().map(|problem| problem.to_string()).collect()
}

#[test]
fn specific_is_read_strictly() {
    let checked =
        |columns: &str, specific: &str| problems(check(&port_with(columns, specific), &Intent::Provision));
    let column = "[{name: a, dataType: INT}]";
    assert_eq!(checked(column, "{format: iceberg, namespace: finance, table: t_1}"), [] as [&str; 0]);
    assert_eq!(
        checked(column, "{formt: Iceberg}"),
        ["specific.formt: unknown key `formt` in `specific`: `Iceberg`"]
    );
    assert_eq!(checked(column, "{format: Delta}"), ["specific.format: unknown `format`: `Delta`"]);
    assert_eq!(
        checked(column, "{table: ../x, namespace: A, loadSampleData: 'yes', allowDropColumns: 1}"),
        [
            "specific.namespace: the name begins with a lower-case letter or an underscore: `A`",
            "specific.table: the name begins with a lower-case letter or an underscore: `../x`",
            "specific.loadSampleData: `loadSampleData` is a text: `yes`",
            "specific.allowDropColumns: `allowDropColumns` is a number: `1`",
        ]
    );
    assert_eq!(checked("[]", "{}"), ["dataContract.schema: an Iceberg table needs at least one column"]);
    // A component that cannot be provisioned can still be found and removed.
    let odd = port_with("[]", "{formt: Iceberg}");
    assert_eq!(check(&odd, &Intent::Unprovision { remove_data: true }), []);
    let storage = |bucket: &str| {
        let text = CASHFLOW.replace("bucket: finance-cashflows", bucket);
        problems(check(&work_of(&text, STORAGE), &Intent::Provision))
    };
    assert_eq!(storage("bucket: abc"), [] as [&str; 0]);
    assert_eq!(storage("{}"), [] as [&str; 0]);
    assert_eq!(storage("buckt: abc"), ["specific.buckt: unknown key `buckt` in `specific`: `abc`"]);
    assert_eq!(
        storage("bucket: Abc"),
        ["specific.bucket: a bucket name has only lower-case letters, digits, hyphens and dots: `Abc`"]
    );
}

#[test]
fn columns_that_iceberg_does_not_have() {
    let checked = |columns: &str| problems(check(&port_with(columns, "{}"), &Intent::Provision));
    assert_eq!(
        checked(
            "[{name: a.b, dataType: INT}, {name: u, dataType: UNION, children: [{name: x, dataType: INT}]},
              {name: g, dataType: GEOGRAPHY}, {name: v, dataType: ARRAY, arrayDataType: VARIANT},
              {name: s, dataType: STRUCT, children: [{name: p, dataType: POINT}]},
              {name: k, dataType: FLOAT, constraint: PRIMARY_KEY}, {name: aa, dataType: ARRAY, arrayDataType: ARRAY}]"
        ),
        [
            "dataContract.schema[0].name: Iceberg cannot distinguish a column name with a dot from a nested column: `a.b`",
            "dataContract.schema[1].dataType: an Iceberg v2 table has no such type: `UNION`",
            "dataContract.schema[2].dataType: an Iceberg v2 table has no such type: `GEOGRAPHY`",
            "dataContract.schema[3].arrayDataType: an Iceberg v2 table has no such type: `VARIANT`",
            "dataContract.schema[4].children[0].dataType: an Iceberg v2 table has no such type: `POINT`",
            "dataContract.schema[5].constraint: a primary key is a top-level column of a simple type other than FLOAT and DOUBLE: `PRIMARY_KEY`",
            "dataContract.schema[6].children: an ARRAY of ARRAY needs one child",
        ]
    );
    let notes = types::wanted(
        &port_with("[{name: a, dataType: JSON}]", "{}").component.data_contract.as_ref().unwrap().schema,
    )
    .unwrap()
    .notes;
    assert_eq!(notes, ["column `a`: JSON is stored as a string"]);
}

#[test]
fn invalid_sample_rows_are_refused() {
    let sampled = |columns: &str, sample: &str| {
        let text = port_text(columns, "{loadSampleData: true}")
            .replace("dataContract:", &format!("sampleData: {sample}, dataContract:"));
        problems(check(&work_of(&text, OTHER_PORT), &Intent::Provision))
    };
    assert_eq!(
        sampled(
            "[{name: i, dataType: INT, constraint: NOT_NULL}, {name: d, dataType: DECIMAL, precision: 4, scale: 2},
              {name: t, dataType: DATE}, {name: v, dataType: VARCHAR, dataLength: 2}, {name: l, dataType: ARRAY, arrayDataType: INT},
              {name: s, dataType: STRUCT, children: [{name: x, dataType: INT, constraint: NOT_NULL}]}]",
            "{columns: [i, d, t, v, l, s], rows: [[1, 1.25, '2024-02-29', ab, [1], {x: 1}], [null, 1.255, '2023-02-29', abc, [1, x], {}],
              [3000000000, 100, 5, [a], 1, {x: 1, y: 2}], [1.5, 1234567890123456.7, 2024, ab, null, [1]]]}"
        ),
        [
            "sampleData.rows[1][0]: column `i` is required and has no value here",
            "sampleData.rows[1][1]: the cell does not fit column `d`: `1.255`",
            "sampleData.rows[1][2]: the cell does not fit column `t`: `\"2023-02-29\"`",
            "sampleData.rows[1][3]: the cell does not fit column `v`: `\"abc\"`",
            "sampleData.rows[1][4][1]: the cell does not fit column `l.element`: `\"x\"`",
            "sampleData.rows[1][5].x: column `s.x` is required and has no value here",
            "sampleData.rows[2][0]: the cell does not fit column `i`: `3000000000`",
            "sampleData.rows[2][1]: the cell does not fit column `d`: `100`",
            "sampleData.rows[2][2]: the cell does not fit column `t`: `5`",
            "sampleData.rows[2][3]: the cell does not fit column `v`: `[\"a\"]`",
            "sampleData.rows[2][4]: the cell does not fit column `l`: `1`",
            "sampleData.rows[2][5].y: column `s` has no such child: `y`",
            "sampleData.rows[3][0]: the cell does not fit column `i`: `1.5`",
            "sampleData.rows[3][1]: the cell does not fit column `d`: `1234567890123456.8`",
            "sampleData.rows[3][2]: the cell does not fit column `t`: `2024`",
            "sampleData.rows[3][5]: the cell does not fit column `s`: `[1]`",
        ]
    );
    // A required column that the sample leaves out; and rows that are not requested are not checked.
    let columns = "[{name: i, dataType: INT, constraint: NOT_NULL}, {name: j, dataType: INT}]";
    assert_eq!(
        sampled(columns, "{columns: [j], rows: [[1]]}"),
        ["sampleData.rows[0]: column `i` is required and has no value here"]
    );
    let text = port_text(columns, "{}")
        .replace("dataContract:", "sampleData: {columns: [j], rows: [[x]]}, dataContract:");
    assert_eq!(check(&work_of(&text, OTHER_PORT), &Intent::Provision), []);
    let many =
        sampled("[{name: i, dataType: INT}]", &format!("{{columns: [i], rows: [{}]}}", "[x],".repeat(500)));
    assert_eq!(many.len(), 20);
}

/// From one contract to another on an existing table: the changes, or the refusal.
async fn evolve(
    before: &str,
    after: &str,
    specific: &str,
) -> Result<Vec<String>, Vec<(String, String, String)>> {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path());
    run(&lake, &port_with(before, "{}"), Intent::Provision).await;
    let work = port_with(after, specific);
    match lake.plan(&work, &Intent::Provision, &Context::default()).await {
        Ok(plan) => {
            let done = run(&lake, &work, Intent::Provision).await;
            let imported = import(&lake, json!({ "table": "port" })).await.unwrap();
            let there = imported["spec.mesh.dataContract.schema"].to_string();
            let again =
                lake.plan(&port_with(&there, specific), &Intent::Provision, &Context::default()).await;
            assert_eq!(again.unwrap().changes, [], "the import is what was asked for");
            let notes = plan.notes.into_iter().filter(|note| note != access::NOTE);
            Ok(done.into_iter().chain(notes).collect())
        }
        Err(e) => match e.kind() {
            Kind::Invalid(problems) => Err(problems
                .iter()
                .map(|p| (p.path.clone(), p.message.clone(), p.remedy.clone().unwrap_or_default()))
                .collect()),
            _ => panic!("{e}"),
        },
    }
}

#[tokio::test]
async fn tables_follow_their_contract() {
    let a = "{name: a, dataType: INT}";
    let done = evolve(
        &format!("[{a}, {{name: b, dataType: STRING, constraint: NOT_NULL}}]"),
        &format!("[{{name: c, dataType: STRING, description: new}}, {a}]"),
        "{allowDropColumns: true}",
    )
    .await;
    assert_eq!(
        done.unwrap(),
        [
            "Alter: add column `c` string",
            "Alter: drop column `b`; its values stay in earlier snapshots",
            "`b` dropped and `c` added: if one is the new name of the other, its values do not move",
        ]
    );
    // The order alone is no difference.
    let b = "{name: b, dataType: STRING}";
    assert_eq!(evolve(&format!("[{a}, {b}]"), &format!("[{b}, {a}]"), "{}").await.unwrap(), [] as [&str; 0]);
    // Nested, below every kind of parent.
    let nested = |more: &str| {
        format!(
            "[{{name: s, dataType: STRUCT, children: [{a}{more}]}}, {{name: l, dataType: ARRAY, arrayDataType: STRUCT, children: [{a}{more}]}},
              {{name: m, dataType: MAP, children: [{{name: key, dataType: STRING}}, {{name: value, dataType: STRUCT, children: [{a}{more}]}}]}}]"
        )
    };
    let more = ", {name: n, dataType: STRUCT, children: [{name: x, dataType: INT, description: deep}]}";
    assert_eq!(
        evolve(&nested(""), &nested(more), "{}").await.unwrap(),
        [
            "Alter: add column `s.n` struct<x: int>",
            "Alter: add column `l.element.n` struct<x: int>",
            "Alter: add column `m.value.n` struct<x: int>",
        ]
    );
    assert_eq!(
        evolve(&nested(more), &nested(""), "{allowDropColumns: true}").await.unwrap(),
        [
            "Alter: drop column `s.n`; its values stay in earlier snapshots",
            "Alter: drop column `l.element.n`; its values stay in earlier snapshots",
            "Alter: drop column `m.value.n`; its values stay in earlier snapshots",
        ]
    );
    // A description cannot change in place; a table property stores the new one, and removes it again.
    assert_eq!(
        evolve(
            "[{name: a, dataType: INT, description: one}, {name: b, dataType: INT, description: two}]",
            "[{name: a, dataType: INT, description: three}, {name: b, dataType: INT}]",
            "{}"
        )
        .await
        .unwrap(),
        ["Alter: update the properties `landfall.description.a`, `landfall.description.b`"]
    );
    // Declared types that are one type in Iceberg.
    assert_eq!(
        evolve(
            "[{name: a, dataType: VARCHAR, dataLength: 5}]",
            "[{name: a, dataType: VARCHAR, dataLength: 9, constraint: UNIQUE, tags: [{tagFQN: A.B}]}]",
            "{}"
        )
        .await
        .unwrap(),
        ["Alter: update the properties `landfall.constraint.a`, `landfall.tags.a`, `landfall.type.a`"]
    );
}

#[tokio::test]
async fn breaking_changes_are_refused() {
    let refused = async |before: &str, after: &str, specific: &str| {
        let problems = evolve(before, after, specific).await.unwrap_err();
        assert!(problems.iter().all(|(_, _, remedy)| !remedy.is_empty()));
        problems.into_iter().map(|(path, message, _)| format!("{path}: {message}")).collect::<Vec<_>>()
    };
    assert_eq!(
        refused(
            "[{name: a, dataType: INT}, {name: b, dataType: STRING}, {name: c, dataType: INT}, {name: d, dataType: INT, constraint: NOT_NULL},
              {name: s, dataType: STRUCT, children: [{name: x, dataType: INT}]}]",
            "[{name: a, dataType: BIGINT}, {name: B, dataType: STRING}, {name: c, dataType: INT, constraint: NOT_NULL}, {name: d, dataType: INT},
              {name: s, dataType: STRUCT, children: [{name: x, dataType: DATE}, {name: y, dataType: INT, constraint: NOT_NULL}]},
              {name: e, dataType: INT, constraint: NOT_NULL}]",
            "{}"
        )
        .await,
        [
            "dataContract.schema[0].dataType: column `a` cannot change from int to long; the type of a column is fixed",
            "dataContract.schema[1].name: the table has this column as `b`; a column cannot be renamed",
            "dataContract.schema[2].constraint: column `c` is optional and cannot become required: rows already in the table may lack a value",
            "dataContract.schema[3].constraint: column `d` is required and cannot become optional: the table would go on refusing nulls",
            "dataContract.schema[4].children[0].dataType: column `s.x` cannot change from int to date; the type of a column is fixed",
            "dataContract.schema[4].children[1].constraint: column `s.y` is new and required, but the rows already in the table have no value for it",
            "dataContract.schema[5].constraint: column `e` is new and required, but the rows already in the table have no value for it",
        ]
    );
    assert_eq!(
        refused(
            "[{name: a, dataType: INT, constraint: PRIMARY_KEY}, {name: b, dataType: INT, constraint: NOT_NULL}]",
            "[{name: b, dataType: INT, constraint: NOT_NULL}]",
            "{allowDropColumns: true}"
        )
        .await,
        ["dataContract.schema: column `a` is a primary key of the table and cannot be dropped"]
    );
    assert_eq!(
        refused(
            "[{name: a, dataType: INT, constraint: NOT_NULL}]",
            "[{name: a, dataType: INT, constraint: PRIMARY_KEY}]",
            "{}"
        )
        .await,
        ["dataContract.schema: the primary key cannot change from none to `a`"]
    );
    assert_eq!(
        refused(
            "[{name: a, dataType: INT}, {name: c, dataType: 'ARRAY<BIGINT>'}, {name: d, dataType: 'ARRAY<ARRAY<BIGINT>>'}]",
            "[{name: a, dataType: INT}, {name: c, dataType: 'ARRAY<STRING>'}, {name: d, dataType: 'ARRAY<ARRAY<STRING>>'}]",
            "{}"
        )
        .await,
        [
            "dataContract.schema[1].arrayDataType: column `c.element` cannot change from long to string; the type of a column is fixed",
            "dataContract.schema[2].children[0].arrayDataType: column `d.element.element` cannot change from long to string; the type of a column is fixed",
        ]
    );
}

/// The same rules as in every technology, for both forms of a data contract.
#[tokio::test]
async fn dropping_a_column_needs_allow_drop_columns() {
    let (a, b) = ("{name: a, dataType: INT}", "{name: b, dataType: INT}");
    let (x, y) = ("{name: x, logicalType: integer}", "{name: y, logicalType: integer}");
    let nested = |more: &str| format!("[{{name: s, dataType: STRUCT, children: [{a}{more}]}}]");
    let odcs = |more: &str| {
        let properties = format!("{x}, {{name: s, logicalType: object, properties: [{y}{more}]}}");
        format!("[{{name: t, logicalType: object, properties: [{properties}]}}]")
    };
    let odcs_top = |more: &str| format!("[{{name: t, logicalType: object, properties: [{x}{more}]}}]");
    let message = |column: &str| {
        format!(
            "column `{column}` of the table is missing: dropping it would take its values from readers, and \
             `allowDropColumns` is not true"
        )
    };
    for (before, after, path, column) in [
        (format!("[{a}, {b}]"), format!("[{a}]"), "dataContract.schema", "b"),
        (nested(&format!(", {b}")), nested(""), "dataContract.schema[0].children", "s.b"),
        (odcs_top(&format!(", {y}")), odcs_top(""), "dataContract.schema[0].properties", "y"),
        (
            odcs(", {name: z, logicalType: date}"),
            odcs(""),
            "dataContract.schema[0].properties[1].properties",
            "s.z",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let lake = open(folder.path());
        run(&lake, &port_with(&before, "{}"), Intent::Provision).await;
        for specific in ["{}", "{allowDropColumns: false}"] {
            let work = port_with(&after, specific);
            let error = lake.plan(&work, &Intent::Provision, &Context::default()).await.unwrap_err();
            let Kind::Invalid(problems) = error.kind() else { panic!("{error}") };
            let [problem] = problems.as_slice() else { panic!("{problems:?}") };
            let problem = work.component.located(problem.clone());
            assert_eq!(problem.path, format!("components[0].{path}"));
            assert_eq!(problem.message, message(column));
            assert_eq!(problem.value.as_deref(), column.rsplit('.').next());
            assert_eq!(
                problem.remedy.as_deref(),
                Some(
                    "keep the column, write `allowDropColumns: true`, or publish a new major version of the data product"
                )
            );
        }
        let done = run(&lake, &port_with(&after, "{allowDropColumns: true}"), Intent::Provision).await;
        assert_eq!(done[0], format!("Alter: drop column `{column}`; its values stay in earlier snapshots"));
    }
}

#[tokio::test]
async fn bare_names_are_recorded_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path());
    for work in [port(), bucket()] {
        let listed = with_access(work.clone(), &["alice_corp.com", "dev", "group:dev"]);
        let done = run(&lake, &listed, Intent::Provision).await;
        let grants: Vec<_> = done.iter().filter(|change| change.starts_with("Grant")).collect();
        assert_eq!(
            grants,
            ["Grant: grant `alice_corp.com` (recorded)", "Grant: grant `group:dev` (recorded)"]
        );
        let plan = lake.plan(&listed, &Intent::UpdateAccess, &Context::default()).await.unwrap();
        assert_eq!(plan.changes, [], "a repeat changes nothing");
        let told =
            "`alice_corp.com` recorded as written: no directory says whether this is a user or a group";
        assert!(plan.notes.contains(&told.to_owned()), "{:?}", plan.notes);
        let info = lake.describe(&listed, &Context::default()).await.unwrap();
        let refs = info.private["refs"].as_array().unwrap();
        assert!(
            refs.len() == 2 && refs.contains(&json!("alice_corp.com")) && refs.contains(&json!("group:dev"))
        );
        let fewer = with_access(work, &["dev"]);
        assert_eq!(
            run(&lake, &fewer, Intent::UpdateAccess).await,
            [
                "Revoke: revoke `alice_corp.com` (recorded)",
                "Revoke: revoke `group:dev` (recorded)",
                "Grant: grant `dev` (recorded)"
            ]
        );
    }
}

#[tokio::test]
async fn physical_names_are_noted_in_the_plan() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path());
    let port = landfall_adapter::testing::port_of(
        "[{name: t, properties: [{name: reference_date, physicalName: ref_dt, logicalType: date}]}]",
    );
    let plan = lake.plan(&port, &Intent::Provision, &Context::default()).await.unwrap();
    let note =
        "columns have the `name` of the contract, and not its `physicalName`: `reference_date` (`ref_dt`)";
    assert!(plan.notes.iter().any(|found| found == note), "{:?}", plan.notes);
}

#[test]
fn type_attributes_apply_to_the_table() {
    let work = port_with(
        "[{name: a, dataType: int not null}, {name: b, dataType: \"STRUCT<x: INT NOT NULL COMMENT 'the x', y: STRING>\"}]",
        "{}",
    );
    let schema = types::wanted(&work.component.data_contract.as_ref().unwrap().schema).unwrap().schema;
    let field = |name: &str| schema.field_by_name(name).unwrap();
    assert!(field("a").required && !field("b").required && field("b.x").required && !field("b.y").required);
    assert_eq!(field("b.x").doc.as_deref(), Some("the x"));
}

async fn apply(lake: &Lakehouse, work: &Work, step: Step) -> Result<()> {
    let step = AnyStep::new(step, Intent::Provision);
    let change = Change::new(Action::Alter, "table", "a step by hand", step);
    lake.apply(work, &change, &Context::default()).await
}

/// Crashes inside a change, which the wrapper of the kit does not reach.
#[tokio::test]
async fn half_done_changes_converge() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path());
    let work = port();
    let location = folder
        .path()
        .canonicalize()
        .unwrap()
        .join("warehouse/tables/finance__cashflow__0__production/cashflow_output_port");
    let owner = work.owner();
    let root = Place::root(&folder.path().canonicalize().unwrap().join("warehouse"));
    let place = root.join("tables").join("finance__cashflow__0__production").join("cashflow_output_port");
    let set_state = |state: State| {
        let Found::Marked(mark) = marked::observe(&place).unwrap() else { panic!() };
        marked::write_mark(&place, &marked::Mark { state, ..mark }, &root.join("scratch")).unwrap();
    };
    use marked::{Found, State};
    // Create: the directory exists, the table does not.
    let mark = marked::Mark {
        catalog: Some(lake.opened().await.unwrap().catalog_path.clone()),
        ..marked::Mark::active(owner.clone())
    };
    marked::create(&place, &mark, &lake.opened().await.unwrap().scratch).unwrap();
    assert_eq!(run(&lake, &work, Intent::Provision).await.len(), 2);
    // Release: the mark is written, the catalog is not.
    set_state(State::Released);
    assert_eq!(run(&lake, &work, Intent::Provision).await, ["Alter: correct the ownership mark"]);
    set_state(State::Released);
    assert_eq!(run(&lake, &work, Intent::Unprovision { remove_data: false }).await.len(), 1);
    // Restore: the table is registered, and the mark is still released.
    apply(&lake, &work, Step::Restore).await.unwrap();
    set_state(State::Released);
    assert_eq!(run(&lake, &work, Intent::Provision).await, ["Alter: correct the ownership mark"]);
    // Purge: stopped before the catalog, after it, and during the deletion.
    set_state(State::Purging);
    assert_eq!(run(&lake, &work, Intent::Provision).await, ["Alter: correct the ownership mark"]);
    let ident =
        iceberg::TableIdent::from_strs(["finance__cashflow__0__production", "cashflow_output_port"]).unwrap();
    set_state(State::Purging);
    lake.opened().await.unwrap().catalog.sql.drop_table(&ident).await.unwrap();
    assert_eq!(run(&lake, &work, Intent::Provision).await.len(), 3);
    set_state(State::Purging);
    lake.opened().await.unwrap().catalog.sql.drop_table(&ident).await.unwrap();
    // No later request restores data whose purge has begun.
    run(&lake, &work, Intent::Unprovision { remove_data: false }).await;
    assert!(!location.exists());
    run(&lake, &work, Intent::Provision).await;
    // Only the mark was lost.
    std::fs::remove_file(location.join(marked::MARK_FILE)).unwrap();
    assert_eq!(run(&lake, &work, Intent::Provision).await, ["Alter: correct the ownership mark"]);
    // A mark of a later version is not overwritten.
    std::fs::write(location.join(marked::MARK_FILE), "{\"landfall\": 2}").unwrap();
    let error = lake.plan(&work, &Intent::Provision, &Context::default()).await.unwrap_err();
    assert_eq!(*error.kind(), Kind::Conflict, "{error}");
    assert!(apply(&lake, &work, Step::Mark).await.is_err());
    std::fs::remove_file(location.join(marked::MARK_FILE)).unwrap();
    run(&lake, &work, Intent::Provision).await;
    // The deletion was interrupted: the rest is deleted, and so is the namespace.
    lake.opened().await.unwrap().catalog.sql.drop_table(&ident).await.unwrap();
    std::fs::rename(&location, marked::purged(&place, &owner).path()).unwrap();
    run(&lake, &work, Intent::Unprovision { remove_data: false }).await;
    assert!(!location.parent().unwrap().exists());
    assert_eq!(lake.opened().await.unwrap().catalog.namespaces().await.unwrap(), []);
}

/// On a full disk SQLite rolls a whole transaction back, or does not commit it, and the library checks neither. The
/// triggers have the same effect without a full disk.
#[tokio::test]
async fn failed_catalog_transactions_leave_nothing_behind() {
    const ROLLED_BACK: &str = "SELECT RAISE(ROLLBACK, 'the disk is full')";
    const NOT_COMMITTED: &str = "INSERT INTO child VALUES (1)";
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path());
    let (work, context) = (port(), Context::default());
    lake.opened().await.unwrap();
    let outside = async |sql: &str| {
        let file = folder.path().join("catalog.db");
        let mut connection = SqliteConnectOptions::new().filename(file).connect().await.unwrap();
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM iceberg_tables")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
        count
    };
    outside(
        "CREATE TABLE parent (id PRIMARY KEY); \
         CREATE TABLE child (id REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
    )
    .await;
    for table in ["iceberg_namespace_properties", "iceberg_tables"] {
        for how in [ROLLED_BACK, NOT_COMMITTED, ROLLED_BACK, NOT_COMMITTED] {
            outside(&format!("CREATE TRIGGER full BEFORE INSERT ON {table} BEGIN {how}; END")).await;
            let plan = lake.plan(&work, &Intent::Provision, &context).await.unwrap();
            let error = lake.apply(&work, &plan.changes[0], &context).await.unwrap_err();
            assert!(error.is_retryable(), "{how} {table}: {error}");
            assert_eq!(outside("DROP TRIGGER full").await, 0, "{how} {table}");
        }
    }
    run(&lake, &work, Intent::Provision).await;
    assert_eq!(outside("SELECT 1").await, 1, "another program sees the table");
    // A drop that failed is not reported as done.
    let keep =
        "CREATE TRIGGER full BEFORE DELETE ON iceberg_namespace_properties BEGIN SELECT RAISE(IGNORE); END";
    outside(keep).await;
    let purge = Intent::Unprovision { remove_data: true };
    let mut last = None;
    for change in &lake.plan(&work, &purge, &context).await.unwrap().changes {
        last = lake.apply(&work, change, &context).await.err();
    }
    let error = last.expect("the namespace is still there");
    assert!(error.is_retryable(), "{error}");
    assert!(error.to_string().contains("the catalog kept it"), "{error}");
    outside("DROP TRIGGER full").await;
    run(&lake, &work, purge).await;
    assert_eq!(lake.opened().await.unwrap().catalog.namespaces().await.unwrap(), []);
}

#[tokio::test]
async fn observes_changes_by_other_programs() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path());
    let work = with_access(port(), &["group:developers"]);
    run(&lake, &work, Intent::Provision).await;
    let ident =
        iceberg::TableIdent::from_strs(["finance__cashflow__0__production", "cashflow_output_port"]).unwrap();
    // Properties that other programs set stay.
    let table = lake.opened().await.unwrap().catalog.load(&ident).await.unwrap().unwrap();
    let theirs = |tx: iceberg::transaction::Transaction| {
        use iceberg::transaction::ApplyTransactionAction;
        tx.update_table_properties()
            .set("theirs".to_owned(), "1".to_owned())
            .set("landfall.sla.timeliness".to_owned(), "never".to_owned())
            .apply(tx)
    };
    lake.opened().await.unwrap().catalog.commit(&table, theirs).await.unwrap();
    // A commit that is based on the older snapshot fails.
    let error = lake.opened().await.unwrap().catalog.commit(&table, theirs).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(
        run(&lake, &work, Intent::Provision).await,
        ["Alter: update the properties `landfall.sla.timeliness`"]
    );
    let table = lake.opened().await.unwrap().catalog.load(&ident).await.unwrap().unwrap();
    assert_eq!(table.metadata().properties()["theirs"], "1");
    // Kept data is compared with the contract of the request that takes it back.
    run(&lake, &work, Intent::Unprovision { remove_data: false }).await;
    let as_int = work_of(&CASHFLOW.replace(DIRECTION, &DIRECTION.replace("string", "int")), PORT);
    let renamed = CASHFLOW.replace("direction", "way");
    let renamed =
        work_of(&renamed.replace("format: Iceberg", "format: Iceberg\n      allowDropColumns: true"), PORT);
    let error = lake.plan(&as_int, &Intent::Provision, &Context::default()).await.unwrap_err();
    let Kind::Invalid(problems) = error.kind() else { panic!("{error}") };
    assert_eq!(problems[0].path, "dataContract.schema[1].dataType");
    assert!(problems[0].remedy.as_ref().unwrap().contains("was kept by an earlier unprovision"));
    let plan = lake.plan(&renamed, &Intent::Provision, &Context::default()).await.unwrap();
    let actions: Vec<_> = plan.changes.iter().map(|change| change.action).collect();
    assert_eq!(actions, [Action::Restore, Action::Alter, Action::Alter]);
    run(&lake, &renamed, Intent::Provision).await;
    // The table was dropped outside of Landfall, and its data still exists.
    lake.opened().await.unwrap().catalog.sql.drop_table(&ident).await.unwrap();
    let error = lake.plan(&work, &Intent::Provision, &Context::default()).await.unwrap_err();
    assert_eq!(*error.kind(), Kind::Conflict);
    assert!(error.to_string().contains("another program dropped it"), "{error}");
    run(&lake, &work, Intent::Unprovision { remove_data: true }).await;
    run(&lake, &work, Intent::Provision).await;
    // The same warehouse behind another catalog.
    let other = Lakehouse::new(LakehouseSettings {
        target: "OTHER".to_owned(),
        warehouse: folder.path().join("warehouse"),
        catalog: folder.path().join("other.db"),
    });
    for intent in [Intent::Provision, Intent::Unprovision { remove_data: true }] {
        let error = other.plan(&work, &intent, &Context::default()).await.unwrap_err();
        assert_eq!(*error.kind(), Kind::Conflict, "{error}");
    }
    // Missing metadata is an error; the table is not created again.
    let location =
        folder.path().join("warehouse/tables/finance__cashflow__0__production/cashflow_output_port");
    std::fs::remove_dir_all(location.join("metadata")).unwrap();
    let error = lake.plan(&work, &Intent::Provision, &Context::default()).await.unwrap_err();
    assert_eq!(*error.kind(), Kind::Permanent, "{error}");
}

#[test]
fn column_names_that_look_like_others_are_refused() {
    let work = port_with(
        r#"[{name: "a\u202Eb", dataType: INT}, {name: s, dataType: STRUCT, children: [{name: "cafe\u0301", dataType: INT}]},
            {name: " x", dataType: INT}]"#,
        "{}",
    );
    let found: Vec<_> = check(&work, &Intent::Provision).iter().map(Problem::with_remedy).collect();
    assert_eq!(
        found,
        [
            "dataContract.schema[0].name: the name has the direction control U+202E: `a<U+202E>b`; leave it out, or write a \
             letter, a digit or a sign that can be seen",
            "dataContract.schema[1].children[0].name: the name is not in the normal form NFKC, so that another name can look \
             the same: it has U+0065 U+0301 where U+00E9 is meant: `cafe\u{301}`; write U+00E9 instead of U+0065 U+0301",
            "dataContract.schema[2].name: the name begins or ends with white space: ` x`; write `x`",
        ]
    );
    // Data from before the fault can be removed.
    assert_eq!(check(&work, &Intent::Unprovision { remove_data: true }), []);
}

/// Kept data is changed to the contract of the request that takes it back; a contract that does not allow that is
/// refused before the first change.
#[tokio::test]
async fn kept_data_follows_a_changed_contract_or_is_refused_by_plan() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path());
    let with = |columns: &str, rows: &str| {
        let text = port_text(columns, "{loadSampleData: true, allowDropColumns: true}")
            .replace("dataContract:", &format!("sampleData: {rows}, dataContract:"));
        work_of(&text, OTHER_PORT)
    };
    let (a, b, c) = ("{name: a, dataType: INT}", "{name: b, dataType: STRING}", "{name: c, dataType: DATE}");
    let first = with(&format!("[{a}, {b}]"), "{columns: [a, b], rows: [[1, x]]}");
    run(&lake, &first, Intent::Provision).await;
    let keep = Intent::Unprovision { remove_data: false };
    run(&lake, &first, keep).await;

    // Another order, one column dropped, one new.
    let done =
        run(&lake, &with(&format!("[{c}, {a}]"), "{columns: [a], rows: [[7]]}"), Intent::Provision).await;
    assert_eq!(
        done,
        [
            "Restore: take back the table and the data that were kept",
            "Alter: add column `c` date",
            "Alter: drop column `b`; its values stay in earlier snapshots",
        ]
    );
    let info = lake.describe(&first, &Context::default()).await.unwrap();
    assert_eq!((public(&info, "rowCount"), public(&info, "columnCount")), ("1".to_owned(), "2".to_owned()));
    run(&lake, &first, keep).await;

    // A required column: nothing is changed, and the data is not taken back.
    let required = with(
        &format!("[{c}, {a}, {{name: d, dataType: INT, constraint: NOT_NULL}}]"),
        "{columns: [a, d], rows: [[7, 1]]}",
    );
    let error = lake.plan(&required, &Intent::Provision, &Context::default()).await.unwrap_err();
    let Kind::Invalid(problems) = error.kind() else { panic!("{error}") };
    assert_eq!(
        problems.iter().map(Problem::with_remedy).collect::<Vec<_>>(),
        [
            "dataContract.schema[2].constraint: column `d` is new and required, but the rows already in the table have no value \
             for it; add it without a constraint, or publish a new major version of the data product; the data of table \
             `finance__other__1__development.port` was kept by an earlier unprovision, and unprovisioning with its data removes \
             it"
        ]
    );
    assert_eq!(lake.opened().await.unwrap().catalog.namespaces().await.unwrap().len(), 1);
    run(&lake, &first, Intent::Unprovision { remove_data: true }).await;
    assert_eq!(lake.opened().await.unwrap().catalog.namespaces().await.unwrap(), []);
    run(&lake, &required, Intent::Provision).await;
}

#[test]
fn columns_that_partitions_are_made_of_are_not_dropped() {
    use iceberg::spec::{
        FormatVersion, NullOrder, SortDirection, SortField, SortOrder, TableMetadataBuilder, Transform,
        UnboundPartitionSpec,
    };
    let columns =
        "[{name: a, dataType: INT}, {name: s, dataType: STRUCT, children: [{name: x, dataType: INT}]},
                    {name: c, dataType: INT}]";
    let work = port_with(columns, "{}");
    let schema = types::wanted(&work.component.data_contract.as_ref().unwrap().schema).unwrap().schema;
    let id = |path: &str| schema.field_id_by_name(path).unwrap();
    let spec = UnboundPartitionSpec::builder()
        .add_partition_field(id("a"), "a_part", Transform::Identity)
        .unwrap()
        .build();
    let sorted = SortField::builder()
        .source_id(id("s.x"))
        .direction(SortDirection::Ascending)
        .null_order(NullOrder::First)
        .transform(Transform::Identity)
        .build();
    let order = SortOrder::builder().with_order_id(1).with_sort_field(sorted).build(&schema).unwrap();
    let location = "file:///w/t".to_owned();
    let metadata =
        TableMetadataBuilder::new(schema.clone(), spec, order, location, FormatVersion::V2, HashMap::new())
            .unwrap()
            .build()
            .unwrap()
            .metadata;
    let said = |drop: &[&str]| {
        let drop: Vec<String> = drop.iter().map(|path| (*path).to_owned()).collect();
        evolution::in_use(&metadata, &drop).iter().map(Problem::with_remedy).collect::<Vec<_>>()
    };
    assert_eq!(said(&["c"]), [] as [&str; 0]);
    assert_eq!(
        said(&["a", "s", "c"]),
        [
            "dataContract.schema: column `a` is in the partitions that another program gave the table, and cannot be dropped: \
             `a`; keep the column, or take it out of the table's partitions first",
            "dataContract.schema: column `s.x` is in the sort order that another program gave the table, and cannot be dropped: \
             `s.x`; keep the column, or take it out of the table's sort order first",
        ]
    );
}

/// A program that can write to the warehouse replaces a directory by a link.
#[tokio::test]
async fn links_in_a_warehouse_are_conflicts_for_every_intent() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path());
    let (port, bucket) = (port(), bucket());
    run(&lake, &port, Intent::Provision).await;
    run(&lake, &bucket, Intent::Provision).await;
    let warehouse = folder.path().canonicalize().unwrap().join("warehouse");
    let table = "tables/finance__cashflow__0__production/cashflow_output_port";
    for (work, name) in [
        (&port, "tables"),
        (&port, "tables/finance__cashflow__0__production"),
        (&port, table),
        (&bucket, "buckets"),
        (&bucket, "buckets/finance-cashflows"),
    ] {
        let (path, outside) = (warehouse.join(name), folder.path().join("outside"));
        std::fs::rename(&path, &outside).unwrap();
        symlink(&outside, &path).unwrap();
        for intent in [
            Intent::Provision,
            Intent::Unprovision { remove_data: false },
            Intent::Unprovision { remove_data: true },
        ] {
            let error = lake.plan(work, &intent, &Context::default()).await.unwrap_err();
            assert_eq!(*error.kind(), Kind::Conflict, "{name} {intent:?}: {error}");
            assert!(error.to_string().contains("symbolic link"), "{name} {intent:?}: {error}");
        }
        for step in [Step::Purge, Step::Release, Step::Clear] {
            if let Err(error) = apply(&lake, work, step.clone()).await {
                assert_eq!(*error.kind(), Kind::Conflict, "{name} {step:?}: {error}");
            }
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::rename(&outside, &path).unwrap();
        run(&lake, work, Intent::Provision).await;
    }
    let info = lake.describe(&port, &Context::default()).await.unwrap();
    assert_eq!(public(&info, "rowCount"), "2");
}

#[tokio::test]
async fn target_that_cannot_be_opened_is_retried() {
    let folder = tempfile::tempdir().unwrap();
    let lake = |warehouse: &str, catalog: &str| {
        Lakehouse::new(LakehouseSettings {
            target: "LAKE".to_owned(),
            warehouse: folder.path().join(warehouse),
            catalog: folder.path().join(catalog),
        })
    };
    let at = |name: &str| folder.path().canonicalize().unwrap().join(name).display().to_string();
    std::fs::write(folder.path().join("file"), "no catalog, and no folder either").unwrap();
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    let opened = async |lake: Lakehouse| {
        let error = lake.plan(&bucket(), &Intent::Provision, &Context::default()).await.unwrap_err();
        (error.is_retryable(), error.to_string())
    };
    let no_folder = format!(
        "cannot open the warehouse `{}` of target `LAKE`: a part of the path is not a directory; move it away",
        folder.path().join("file/warehouse").display()
    );
    assert_eq!(opened(lake("file/warehouse", "catalog.db")).await, (true, no_folder));
    let no_file = format!(
        "cannot open the catalog `{}` of target `LAKE`: its file cannot be opened; let Landfall's user read and write it, \
         and its folder",
        at("folder")
    );
    assert_eq!(opened(lake("warehouse", "folder")).await, (true, no_file));
    let damaged = format!(
        "cannot open the catalog `{}` of target `LAKE`: its file is damaged, or no SQLite database; restore it",
        at("file")
    );
    assert_eq!(opened(lake("warehouse", "file")).await, (false, damaged));
}

/// A deletion that runs when the run is cancelled stops, and the run ends after it.
#[tokio::test]
async fn a_purge_stops_between_entries_and_is_finished_later() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path());
    let work = bucket();
    run(&lake, &work, Intent::Provision).await;
    let path = folder.path().join("warehouse/buckets/finance-cashflows");
    for file in 0..5000 {
        std::fs::write(path.join(format!("{file}")), "").unwrap();
    }
    let cancel = tokio_util::sync::CancellationToken::new();
    let scope = landfall_adapter::blocking::Scope::new(&cancel);
    let purged = scope.enter(apply(&lake, &work, Step::Purge));
    let stopped = async {
        while path.exists() {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    };
    let (purged, ()) = tokio::join!(purged, stopped);
    scope.end().await;
    assert_eq!(*purged.unwrap_err().kind(), Kind::Cancelled);
    let keep = Intent::Unprovision { remove_data: false };
    assert_eq!(run(&lake, &work, keep).await, ["Drop: delete what an interrupted purge left"]);
    assert_eq!(path.parent().unwrap().read_dir().unwrap().count(), 0);
}

/// Two processes on one warehouse, simulated in one process.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_targets_share_a_warehouse() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (Arc::new(open(folder.path())), Arc::new(open(folder.path())));
    let until_done = |lake: Arc<Lakehouse>, work: Work, intent: Intent| async move {
        let context = Context::default();
        'again: for _ in 0..100 {
            let plan = match lake.plan(&work, &intent, &context).await {
                Ok(plan) if plan.changes.is_empty() => return,
                Ok(plan) => plan,
                Err(e) => {
                    assert!(e.is_retryable(), "{}", e.report());
                    continue;
                }
            };
            for change in &plan.changes {
                if let Err(e) = lake.apply(&work, change, &context).await {
                    assert!(e.is_retryable(), "{}", e.report());
                    continue 'again;
                }
            }
        }
        panic!("no end");
    };
    let works: Vec<Work> = ["production", "development", "qa"]
        .into_iter()
        .map(|environment| {
            let mut work = with_access(port(), &["user:a_b.com", "user:c_d.com", "group:e"]);
            work.environment = environment.to_owned();
            work
        })
        .collect();
    for intent in [
        Intent::Provision,
        Intent::Unprovision { remove_data: false },
        Intent::Provision,
        Intent::Unprovision { remove_data: true },
        Intent::Provision,
    ] {
        let mut tasks = tokio::task::JoinSet::new();
        for work in &works {
            for lake in [&one, &two] {
                tasks.spawn(until_done(Arc::clone(lake), work.clone(), intent));
            }
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    }
    for work in &works {
        let info = one.describe(work, &Context::default()).await.unwrap();
        assert_eq!(public(&info, "rowCount"), "2");
        assert_eq!(info.private["refs"].as_array().unwrap().len(), 3);
    }
}

/// A directory that cannot be opened may work later: a disk is full or not mounted, or rights are missing.
#[tokio::test]
async fn warehouse_that_cannot_be_opened_is_retried() {
    let folder = tempfile::tempdir().unwrap();
    let in_the_way = folder.path().join("in-the-way");
    std::fs::write(&in_the_way, "a file").unwrap();
    let settings = LakehouseSettings {
        target: "LAKE".to_owned(),
        warehouse: in_the_way.join("warehouse"),
        catalog: folder.path().join("catalog.db"),
    };
    let lakehouse = Lakehouse::new(settings);
    let storage = landfall_adapter::testing::work(landfall_adapter::testing::CASHFLOW, STORAGE);
    let planned = async || lakehouse.plan(&storage, &Intent::Provision, &Context::default()).await;
    let error = planned().await.unwrap_err();
    let expected = format!(
        "cannot open the warehouse `{}` of target `LAKE`: a part of the path is not a directory; move it away",
        in_the_way.join("warehouse").display()
    );
    assert!(error.is_retryable() && error.to_string() == expected, "{}", error.report());
    std::fs::remove_file(&in_the_way).unwrap();
    planned().await.unwrap();
}

#[tokio::test]
async fn both_shapes_of_a_contract_make_one_table() {
    let folder = tempfile::tempdir().unwrap();
    let lake = open(folder.path());
    let [older, odcs] = landfall_adapter::testing::SCHEMAS.map(landfall_adapter::testing::port_of);
    assert_eq!(run(&lake, &older, Intent::Provision).await.len(), 1);
    assert_eq!(run(&lake, &odcs, Intent::Provision).await, [""; 0], "the same table, written otherwise");
}
