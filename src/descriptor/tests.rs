//! What goes in, and what comes out.

use super::*;

const CASHFLOW: &str = include_str!("../../examples/cashflow.yaml");

fn full(kind: DescriptorKind, text: &str) -> Result<Descriptor, Vec<Problem>> {
    parse(kind, text, Strictness::Full, &Limits::default())
}

fn as_component(product: &str, id: &str) -> String {
    let mut text = format!("componentIdToProvision: {id}\ndataProduct:\n");
    for line in product.lines() {
        text.push_str("  ");
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[test]
fn the_page_s_data_product() {
    let descriptor = full(DescriptorKind::DataProduct, CASHFLOW).unwrap();
    assert_eq!(descriptor.product.name, "CashFlow");
    let order: Vec<_> = descriptor.targets().iter().map(|c| c.id.last_part()).collect();
    assert_eq!(order, ["cashflow-output-port", "storage-component", "cashflow-calculation"]);
}

#[test]
fn the_page_s_component() {
    let id = "urn:dmb:cmp:finance:cashflow:0:cashflow-output-port";
    let descriptor = full(DescriptorKind::Component, &as_component(CASHFLOW, id)).unwrap();
    let [component] = descriptor.targets()[..] else { panic!("one component") };
    assert_eq!(component.path, "dataProduct.components[0]");
    let contract = component.data_contract.as_ref().unwrap();
    assert_eq!(contract.schema.len(), 4);
    assert_eq!(contract.schema[2].path, "dataProduct.components[0].dataContract.schema[2]");
    assert_eq!(component.sample_data.as_ref().unwrap().rows.len(), 2);
}
