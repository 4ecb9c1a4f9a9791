//! PyIceberg and DuckDB, which do not know Landfall, read what it created.

use serde_json::{Value, json};

use crate::harness::{Landfall, OUTPUT_PORT, cashflow_with_rows, product_request, python, replace_once};

/// The content of the only table, as both engines read it.
async fn read(server: &Landfall) -> Value {
    let resources = server.resources().await;
    let [(table, _)] = resources.tables.as_slice() else { panic!("not one table: {resources:#?}") };
    let data = server.data_dir();
    let out = python([
        "tests/tools/read_iceberg.py".as_ref(),
        "--catalog".as_ref(),
        data.join("catalog.db").as_os_str(),
        "--warehouse".as_ref(),
        data.join("warehouse").as_os_str(),
        "--table".as_ref(),
        table.as_ref(),
    ]);
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("not JSON ({error}): {out}"))
}

/// The rows, in an order that does not depend on the engine.
fn rows(engine: &Value) -> Vec<Value> {
    let mut rows = engine["rows"].as_array().unwrap().clone();
    rows.sort_by_key(|row| row["id"].as_str().unwrap_or_default().to_owned());
    rows
}

#[tokio::test]
async fn pyiceberg_and_duckdb_read_columns_and_sample_rows() {
    let server = Landfall::start();
    server.api().provision_and_wait(&product_request(&cashflow_with_rows())).await;
    let read = read(&server).await;

    let column = |name, kind, doc| json!({ "name": name, "type": kind, "doc": doc, "required": false });
    assert_eq!(
        read["pyiceberg"]["columns"],
        json!([
            column("id", "string", Value::Null),
            column("direction", "string", Value::Null),
            column("amount", "decimal(38, 9)", json!("monetary value of the cashflow")),
            column("counterpartyId", "string", json!("identifier of the counterparty")),
        ])
    );
    let names_and_types: Vec<_> = read["duckdb"]["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| (column["name"].as_str().unwrap(), column["type"].as_str().unwrap()))
        .collect();
    let expected = [
        ("id", "VARCHAR"),
        ("direction", "VARCHAR"),
        ("amount", "DECIMAL(38,9)"),
        ("counterpartyId", "VARCHAR"),
    ];
    assert_eq!(names_and_types, expected);

    let row = |id, direction, amount, counterparty| json!({ "id": id, "direction": direction, "amount": amount, "counterpartyId": counterparty });
    let expected = [
        row("CF-001", "Incoming", "10000.000000000", "cpty:12345"),
        row("CF-002", "Outgoing", "5000.000000000", "cpty:67890"),
    ];
    for engine in ["pyiceberg", "duckdb"] {
        assert_eq!(rows(&read[engine]), expected, "{engine}");
    }

    let properties = &read["pyiceberg"]["properties"];
    assert_eq!(properties["comment"], "Output port exposing cashflow data");
    assert_eq!(properties["landfall.component"], OUTPUT_PORT);
    assert_eq!(properties["landfall.sla.upTime"], "99.9%");
}

/// Required columns, tags, nested columns, and rows that are loaded once, however often the component is provisioned.
#[tokio::test]
async fn pyiceberg_and_duckdb_read_nested_and_required_columns() {
    let server = Landfall::start();
    let rich = replace_once(
        &cashflow_with_rows(),
        "        - name: direction\n          dataType: string\n          tags: []\n",
        "        - name: direction\n          dataType: VARCHAR\n          dataLength: 8\n          \
         constraint: NOT_NULL\n          tags:\n            - tagFQN: Finance.Flow\n              \
         source: Classification\n              labelType: Manual\n        \
         - name: booked\n          dataType: TIMESTAMP\n        \
         - name: address\n          dataType: STRUCT\n          children:\n            \
         - name: city\n              dataType: STRING\n",
    );
    for _ in 0..2 {
        server.api().provision_and_wait(&product_request(&rich)).await;
    }
    let read = read(&server).await;
    let columns = read["pyiceberg"]["columns"].as_array().unwrap();
    let column = |name: &str| columns.iter().find(|column| column["name"] == name).unwrap();
    assert_eq!(column("direction")["required"], true);
    assert_eq!(column("booked")["type"], "timestamp");
    assert!(column("address")["type"].as_str().unwrap().starts_with("struct<"), "{columns:#?}");
    assert!(read["pyiceberg"]["properties"].to_string().contains("Finance.Flow"));
    assert_eq!(read["pyiceberg"]["snapshots"], 1);
    for engine in ["pyiceberg", "duckdb"] {
        let rows = rows(&read[engine]);
        assert_eq!(rows.len(), 2, "{engine}: {rows:#?}");
        assert_eq!(rows[0]["booked"], Value::Null, "{engine}");
    }
}
