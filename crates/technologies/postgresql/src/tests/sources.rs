//! The source of a view is checked against the document, without a database.

use super::*;
use landfall_adapter::Neighbours;
use landfall_adapter::testing::work_beside_others;

/// Returns the text of the example with each (from, to) replaced.
fn text(replacements: &[(&str, &str)]) -> String {
    replacements.iter().fold(ORDERS.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    })
}

fn problems(work: &Work) -> Vec<String> {
    let technology = Postgresql::new(settings("postgres://x@localhost/analytics"));
    let found = technology.check(work, &Intent::Provision);
    found.into_iter().map(|problem| work.component.located(problem).with_remedy()).collect()
}

fn view_problems(replacements: &[(&str, &str)]) -> Vec<String> {
    problems(&work_beside_others(&text(replacements), VIEW))
}

const SOURCE: &str = "source: {schema: sales__orders__1__storage__production, name: orders}";
const COLUMNS: &str = "- {name: customer, dataType: STRING}";

fn source(schema: &str, name: &str) -> String {
    format!("source: {{schema: {schema}, name: {name}}}")
}

#[test]
fn sources_in_the_same_document_are_checked() {
    assert_eq!(view_problems(&[]), [""; 0]);
    let of_storage = |column: &str| format!("`{STORAGE_SCHEMA}.orders` has no column `{column}`");
    for (replacements, expected) in [
        (
            [(COLUMNS, "- {name: custmer, dataType: STRING}")],
            format!(
                "components[1].dataContract.schema[1].name: {}: `custmer`; did you mean `customer`? use one of `id`, \
                 `customer`, `amount`, `ordered_at`, `items`, or say in `specific.columns` which it is",
                of_storage("custmer")
            ),
        ),
        (
            [("columns: {order_id: id}", "columns: {order_id: number}")],
            format!(
                "components[1].specific.columns.order_id: {}: `number`; use one of `id`, `customer`, `amount`, \
                 `ordered_at`, `items`",
                of_storage("number")
            ),
        ),
        (
            [(COLUMNS, "- {name: customer, dataType: INT}")],
            format!(
                "components[1].dataContract.schema[1].dataType: column `customer` of `{STORAGE_SCHEMA}.orders` is \
                 character varying(40), and some of its values may not fit integer: `integer`; use a type that is \
                 character varying(40) in PostgreSQL, or a wider one"
            ),
        ),
        (
            [(SOURCE, source(STORAGE_SCHEMA, "ordres").as_str())],
            format!(
                "components[1].specific.source.name: `{STORAGE}`, whose schema this is, lists no table `ordres`: `ordres`; \
                 did you mean `orders`? use one of `customers`, `orders`, or write `listed: false` in `source` for a table \
                 that its users make"
            ),
        ),
        (
            [(SOURCE, source(STORAGE_SCHEMA, "stock").as_str())],
            format!(
                "components[1].specific.source.name: `{STORAGE}`, whose schema this is, lists no table `stock`: `stock`; use \
                 one of `customers`, `orders`, or write `listed: false` in `source` for a table that its users make"
            ),
        ),
        (
            [(SOURCE, source(PORT_SCHEMA, "daily_total").as_str())],
            "components[1].specific.source.name: no output port of the data product makes `daily_total` in this schema: \
             `daily_total`; did you mean `daily_totals`? use one of `daily_totals`, `recent_orders`, or read from a storage \
             area"
                .to_owned(),
        ),
        (
            [(SOURCE, source(PORT_SCHEMA, "recent_orders").as_str())],
            format!(
                "components[1].specific.source: the view would read itself: `{PORT_SCHEMA}.recent_orders`; name a table or \
                 another view of the same data product"
            ),
        ),
        (
            [(SOURCE, source("sales__orders__1__storage__prodution", "orders").as_str())],
            format!(
                "components[1].specific.source.schema: no component of this document has such a schema: \
                 `sales__orders__1__storage__prodution`; did you mean `{STORAGE_SCHEMA}`?"
            ),
        ),
    ] {
        assert_eq!(view_problems(&replacements), [expected]);
    }
    // The source is another output port, so its data contract decides. Every wrong column is reported at once.
    let of_port = view_problems(&[(SOURCE, &source(PORT_SCHEMA, "daily_totals"))]);
    let paths: Vec<_> = of_port.iter().filter_map(|problem| problem.split(": ").next()).collect();
    assert_eq!(
        paths,
        [
            "components[1].specific.columns.order_id",
            "components[1].dataContract.schema[1].name",
            "components[1].dataContract.schema[2].name",
            "components[1].dataContract.schema[3].name"
        ],
        "{of_port:#?}"
    );
}

/// The same texts, with the paths of an ODCS contract.
#[test]
fn sources_are_checked_for_contracts_of_odcs() {
    let contract = text(&[]);
    let start = contract.find("    dataContract:\n").unwrap();
    let end = contract.find("    specific:\n      kind: view").unwrap();
    let odcs = |column: &str, own: &str| {
        let shape = format!(
            "    dataContract:\n      kind: DataContract\n      apiVersion: v3.0.2\n      schema:\n        - name: recent\n          \
             properties:\n            - {{name: order_id, logicalType: integer}}\n            - {column}\n"
        );
        let text = format!("{}{shape}{}", &contract[..start], &contract[end..]);
        problems(&work_beside_others(&text.replace("      freshness: ordered_at\n", own), VIEW))
    };
    assert_eq!(odcs("{name: customer, logicalType: string}", ""), [""; 0]);
    let told = odcs("{name: custmer, logicalType: string}", "");
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(
        told[0].starts_with(&format!(
            "components[1].dataContract.schema[0].properties[1].name: `{STORAGE_SCHEMA}.orders` has no column `custmer`: \
             `custmer`; did you mean `customer`?"
        )),
        "{told:#?}"
    );
    let told = odcs("{name: customer, logicalType: date}", "");
    assert!(
        told[0].starts_with("components[1].dataContract.schema[0].properties[1].logicalType: "),
        "{told:#?}"
    );
}

#[test]
fn unknown_sources_are_left_to_the_database() {
    let tables = {
        let start = ORDERS.find("      tables:\n").unwrap();
        let end = ORDERS.find("  - id: urn:dmb:cmp:sales:orders:1:recent-orders").unwrap();
        &ORDERS[start..end]
    };
    for replacements in [
        // Another schema, which may have any owner.
        vec![(SOURCE, source("staging", "orders"))],
        // Tables that the users of a storage area create.
        vec![(tables, "      {}\n".to_owned()), (SOURCE, source(STORAGE_SCHEMA, "anything"))],
        vec![(SOURCE, format!("source: {{schema: {STORAGE_SCHEMA}, name: theirs, listed: false}}"))],
        // The schema of a storage area with a database of its own is in that database.
        vec![
            ("      tables:", "      level: database\n      tables:".to_owned()),
            (SOURCE, source(STORAGE_SCHEMA, "x")),
        ],
    ] {
        let replacements: Vec<_> = replacements.iter().map(|(from, to)| (*from, to.as_str())).collect();
        assert_eq!(view_problems(&replacements), [""; 0], "{replacements:?}");
    }
    // An invalid storage area does not decide about sources.
    let broken = view_problems(&[
        ("name: customer, dataType: VARCHAR", "name: customer, dataType: NONSENSE"),
        (COLUMNS, "- {name: c, dataType: STRING}"),
    ]);
    assert_eq!(broken, [""; 0]);

    let unread = |numbers: Vec<usize>, source: &str| {
        let work = work_of(&text(&[(SOURCE, source)]), VIEW);
        problems(&Work { neighbours: Neighbours::new(numbers, false), ..work })
    };
    let port = source(PORT_SCHEMA, "daily_total");
    assert_eq!(unread(vec![1], &port), [""; 0], "an unread component may have it");
    assert_eq!(unread(vec![1, 2], &port), [""; 0]);
    assert_eq!(unread(vec![1], &source(STORAGE_SCHEMA, "ordres")), [""; 0], "the storage area was not read");
    assert_eq!(unread(vec![0, 1], &source(STORAGE_SCHEMA, "ordres")).len(), 1, "it lists all of its tables");
    assert_eq!(problems(&work_of(ORDERS, VIEW)), [""; 0]);
}
