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

/// Files of a folder of the corpus, by name.
fn corpus(folder: &str) -> Vec<(String, Vec<u8>)> {
    let path = format!("{}/tests/corpus/{folder}", env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

fn kind_of(name: &str) -> DescriptorKind {
    if name.starts_with("wrapped.") { DescriptorKind::Component } else { DescriptorKind::DataProduct }
}

/// Everything an author would read, a line a problem and a line a remedy.
fn printed(problems: &[Problem]) -> String {
    let mut text = String::new();
    for problem in problems {
        text.push_str(&format!("  {problem}\n"));
        if let Some(remedy) = &problem.remedy {
            text.push_str(&format!("    {remedy}\n"));
        }
    }
    text
}

#[test]
fn hostile_descriptors_are_refused_in_these_words() {
    let mut actual = String::new();
    for (name, bytes) in corpus("hostile") {
        match parse(kind_of(&name), &bytes, Strictness::Full, &Limits::default()) {
            Ok(_) => panic!("{name} is expected to be refused"),
            Err(problems) => actual.push_str(&format!("{name}\n{}", printed(&problems))),
        }
    }
    let golden = format!("{}/tests/corpus/hostile.expected.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&golden, &actual).unwrap();
    }
    let expected = std::fs::read_to_string(&golden).unwrap_or_default();
    for (expected, actual) in expected.lines().zip(actual.lines()) {
        assert_eq!(expected, actual, "run with BLESS=1 and read the difference, if it is meant");
    }
    assert_eq!(expected.lines().count(), actual.lines().count());
}

#[test]
fn harmless_descriptors_are_read() {
    for (name, bytes) in corpus("harmless") {
        if let Err(problems) = parse(kind_of(&name), &bytes, Strictness::Full, &Limits::default()) {
            panic!("{name} is expected to be read:\n{}", printed(&problems));
        }
    }
}
