//! Tests of the reader: documents, and the components and problems that it returns.

use super::*;

#[path = "../../../../tests/corpus/generated.rs"]
mod generated;

const CASHFLOW: &str = include_str!("../../../../examples/cashflow.yaml");

/// Parses a text for every test. Also uses the readable part of a rejected descriptor, which must not panic.
fn parse(
    kind: DescriptorKind,
    text: impl AsRef<[u8]>,
    strictness: Strictness,
    limits: &Limits,
) -> Result<Descriptor, Vec<Problem>> {
    with_faults(super::parse(kind, text, strictness, limits, &|_| true))
}

/// Adds the problems of the parts that only some technologies use, as if each component were one of those.
fn with_faults(read: Result<Descriptor, Rejected>) -> Result<Descriptor, Vec<Problem>> {
    let faults = |descriptor: &Descriptor| {
        let of = |component: &Component| {
            let Faults { contract, sample } = component.faults.clone();
            component.without_consequences(contract.into_iter().chain(sample).collect())
        };
        descriptor.product.all_components().flat_map(of).collect::<Vec<_>>()
    };
    match read {
        Ok(descriptor) => match faults(&descriptor) {
            found if found.is_empty() => Ok(descriptor),
            found => Err(descriptor.locate(found)),
        },
        Err(Rejected { mut problems, readable }) => {
            if let Some(readable) = readable {
                assert!(readable.product.all_components().all(|component| !component.path.is_empty()));
                assert_eq!(readable.locate(problems.clone()).len(), problems.len());
                problems.extend(faults(&readable));
                problems = readable.locate(problems);
            }
            Err(problems)
        }
    }
}

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
fn data_product_of_the_page_is_accepted() {
    let descriptor = full(DescriptorKind::DataProduct, CASHFLOW).unwrap();
    assert_eq!(descriptor.product.name, "CashFlow");
    let order: Vec<_> = descriptor.targets().iter().map(|c| c.id.last_part()).collect();
    assert_eq!(order, ["cashflow-output-port", "storage-component", "cashflow-calculation"]);
}

#[test]
fn component_of_the_page_is_accepted() {
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
    let path = format!("{}/../../tests/corpus/{folder}", env!("CARGO_MANIFEST_DIR"));
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

/// All texts for an author, one line for each problem and each remedy.
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
fn refuses_hostile_descriptors_with_these_texts() {
    let (mut actual, mut accepted) = (String::new(), Vec::new());
    for (name, bytes) in corpus("hostile") {
        match parse(kind_of(&name), &bytes, Strictness::Full, &Limits::default()) {
            Ok(_) => accepted.push(name),
            Err(problems) => actual.push_str(&format!("{name}\n{}", printed(&problems))),
        }
    }
    assert!(accepted.is_empty(), "expected to be refused: {accepted:?}");
    let golden = format!("{}/../../tests/corpus/hostile.expected.txt", env!("CARGO_MANIFEST_DIR"));
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

#[test]
fn large_descriptors_are_refused_in_bounded_answers() {
    for (name, text) in generated::large() {
        let start = std::time::Instant::now();
        let problems = full(DescriptorKind::DataProduct, &text).expect_err(name);
        assert!((1..=101).contains(&problems.len()), "{name}: {} problems", problems.len());
        let longest = problems.iter().map(|problem| problem.to_string().len()).max().unwrap();
        assert!(longest < 600, "{name}: a problem of {longest} bytes");
        // Unoptimised and on a busy machine; the test catches only time that is not linear.
        assert!(start.elapsed().as_secs() < 30, "{name} took {:?}", start.elapsed());
    }
}

#[test]
fn the_deepest_descriptor_fits_a_small_stack() {
    let read = || {
        for (open, close) in [("{a: ", "}"), ("[", "]"), ("- ", ""), ("? ", "")] {
            let text = format!("{}1{}", open.repeat(64), close.repeat(64));
            let _ = full(DescriptorKind::DataProduct, &text);
        }
        let mut column = "{name: leaf, dataType: int}".to_owned();
        for _ in 0..28 {
            column = format!("{{name: a, dataType: struct, children: [{column}]}}");
        }
        let mut component =
            format!("{{{}, dataContract: {{schema: [{column}]}}}}", member("a", "outputport"));
        let product = format!("{PRODUCT}components: [{component}]\n");
        let descriptor = full(DescriptorKind::DataProduct, &product).unwrap();
        assert_eq!(descriptor.clone(), descriptor);
        component = format!("{{{}}}", member("leaf", "storage"));
        for level in 0..30 {
            component = format!("{{{}, components: [{component}]}}", member(&format!("c{level}"), "storage"));
        }
        let product = format!("{PRODUCT}components: [{component}]\n");
        let descriptor = full(DescriptorKind::DataProduct, &product).unwrap();
        assert_eq!(descriptor.targets().len(), 31);
    };
    std::thread::Builder::new().stack_size(256 << 10).spawn(read).unwrap().join().unwrap();
}

const PRODUCT: &str =
    "id: urn:dmb:dp:finance:cashflow:0\nname: CashFlow\nversion: 0.1.0\nenvironment: production\n";

/// The fields every component has, in flow style.
fn member(name: &str, kind: &str) -> String {
    format!("id: 'urn:dmb:cmp:finance:cashflow:0:{name}', kind: {kind}, name: {name}, version: 0.0.0")
}

fn product_of(components: &[String]) -> String {
    let mut text = format!("{PRODUCT}components:\n");
    for component in components {
        text.push_str(&format!("- {{{component}}}\n"));
    }
    text
}

fn harmless(name: &str) -> Descriptor {
    let (_, bytes) = corpus("harmless").into_iter().find(|(found, _)| found == name).unwrap();
    parse(kind_of(name), bytes, Strictness::Full, &Limits::default()).unwrap()
}

#[test]
fn text_stays_as_it_was_written() {
    let port = &harmless("numbers-as-text").product.components[0];
    assert_eq!(port.name, "2024");
    assert_eq!(port.description, "0.10");
    assert_eq!(port.technology.as_deref(), Some("3"));
    assert_eq!(port.platform.as_deref(), Some("true"));

    let norway = harmless("norway").product;
    assert_eq!(norway.components[0].description, "no");
    assert_eq!(norway.components[0].technology.as_deref(), Some("Off"));
    assert_eq!(
        serde_json::to_string(&norway.components[0].specific).unwrap(),
        r#"{"country":"no","other":"NO","on":"off","yes":"yes"}"#
    );
    assert_eq!(
        serde_json::to_string(&harmless("octal").product.components[0].specific).unwrap(),
        r#"{"mode":"010","postcode":"01234","under":"1_000"}"#
    );
    assert_eq!(harmless("json").product.name, "CashFlow 😀 /");
    assert_eq!(harmless("alias").product.components[0].description, "Port of call");
}

#[test]
fn null_means_absent() {
    let port = &harmless("null-everywhere").product.components[0];
    assert_eq!((port.data_contract.as_ref(), port.sample_data.as_ref()), (None, None));
    assert_eq!(port.platform, None);
    assert!(port.specific.is_empty() && port.tags.is_empty() && port.depends_on.is_empty());
}

#[test]
fn owners_and_groups_have_two_names() {
    let product = full(DescriptorKind::DataProduct, CASHFLOW).unwrap().product;
    assert_eq!(product.owner.as_deref(), Some("user:john.smith_example.com"));
    assert_eq!(product.dev_group.as_deref(), Some("teamalpha"));
    let text = format!("{PRODUCT}projectOwner: user:a_b.c\nownerGroup: group:d\ncomponents: []\n");
    let product = full(DescriptorKind::DataProduct, &text).unwrap().product;
    assert_eq!(product.owner.as_deref(), Some("user:a_b.c"));
    assert_eq!(product.dev_group.as_deref(), Some("group:d"));
}

#[test]
fn the_data_sharing_agreement_is_inside_or_beside() {
    let beside = full(DescriptorKind::DataProduct, CASHFLOW).unwrap().product;
    let contract = beside.components[0].data_contract.as_ref().unwrap();
    assert!(contract.data_sharing_agreement.contains_key("intendedUsage"));
    assert_eq!(contract.sla["upTime"], "99.9%");
    assert_eq!(contract.terms_and_conditions, None, "what is empty is not there");
    let inside = harmless("agreement-inside").product;
    assert_eq!(inside.components[0].data_contract.as_ref().unwrap().data_sharing_agreement["purpose"], "x");
}

#[test]
fn sample_data_takes_the_spelling_of_the_schema() {
    let product = harmless("sample-other-case").product;
    let sample = product.components[0].sample_data.as_ref().unwrap();
    assert_eq!(sample.columns, ["id", "amount"]);
    assert_eq!(sample.rows[0], [serde_json::json!("a"), serde_json::json!(1)]);
}

#[test]
fn tags_are_texts_or_mappings() {
    let tags = &harmless("tags").product.components[0].tags;
    let read: Vec<_> = tags.iter().map(|tag| (tag.fqn.as_str(), tag.source.as_str())).collect();
    assert_eq!(read, [("plain", ""), ("PII.Sensitive", "Classification"), ("G.term", "Glossary")]);
}

#[test]
fn dependencies_on_other_data_products_are_ignored() {
    let product = harmless("depends-on-other-product").product;
    assert!(product.components[0].depends_on.is_empty());
}

const ACL_REQUEST: &str = r#"{"componentIdToProvision":"urn:dmb:dp:finance:a-system:0:component:0","dataProduct":{"id":"urn:dmb:dp:finance:a-system:0","components":[{"id":"urn:dmb:dp:finance:a-system:0:component:0","name":"S3 storage","description":"A system that does something","kind":"storage","version":"0.0.1"},{"id":"urn:dmb:dp:finance:a-system:0:component:1","name":"A system that does something","description":"A system that does something","kind":"outputport","version":"0.0.1"}]}}"#;

#[test]
fn the_page_s_short_form_is_enough_to_update_access() {
    let read = |strictness| parse(DescriptorKind::Component, ACL_REQUEST, strictness, &Limits::default());
    let descriptor = read(Strictness::Short).unwrap();
    let [target] = descriptor.targets()[..] else { panic!("one target") };
    assert_eq!(target.name, "S3 storage");
    assert_eq!(target.kind, ComponentKind::Storage);
    assert_eq!(target.path, "dataProduct.components[0]");
    assert_eq!((descriptor.product.version, descriptor.product.environment), (None, None));

    assert_eq!(
        printed(&read(Strictness::Full).unwrap_err()),
        "  dataProduct.name: `name` is missing (line 1, column 71)\n    \
             add `name`\n  \
           dataProduct.version: `version` is missing (line 1, column 71)\n    \
             add `version`\n  \
           dataProduct.environment: `environment` is missing (line 1, column 71)\n    \
             add `environment`\n"
    );
}

#[test]
fn provisioned_components_can_be_unprovisioned() {
    for (name, bytes) in corpus("harmless") {
        let read = |strictness| parse(kind_of(&name), &bytes, strictness, &Limits::default());
        assert_eq!(read(Strictness::Full).unwrap(), read(Strictness::Short).unwrap(), "{name}");
    }
}

#[test]
fn short_form_leaves_out_invalid_parts() {
    let text = product_of(&[
        format!("{}, dataContract: {{schema: [{{name: a, dataType: strnig}}, {{name: b, dataType: int}}]}}, dependsOn: ['urn:dmb:cmp:finance:cashflow:0:b', nonsense, 'urn:dmb:cmp:finance:cashflow:0:gone']", member("a", "outputport")),
        format!("{}, dependsOn: ['urn:dmb:cmp:finance:cashflow:0:a']", member("b", "storage")),
    ])
    .replace("0.1.0", "7");
    let descriptor =
        parse(DescriptorKind::DataProduct, &text, Strictness::Short, &Limits::default()).unwrap();
    assert_eq!(descriptor.product.version.as_deref(), Some("7"));
    let component = &descriptor.product.components[0];
    assert_eq!(component.data_contract.as_ref().unwrap().schema.len(), 1);
    assert_eq!(component.depends_on.len(), 1);
    // A cycle has an order, too.
    assert_eq!(descriptor.targets().len(), 2);
    assert_eq!(full(DescriptorKind::DataProduct, &text).unwrap_err().len(), 4);
}

#[test]
fn problems_of_a_component_are_its_own() {
    let text = product_of(&[
        format!("{}, dataContract: {{schema: [{{name: a, dataType: strnig}}]}}", after("a", &["gone"])),
        format!("{}, components: [{{{}}}]", after("b", &[]), member("b:inner", "storage")),
        after("c", &["d"]),
        after("d", &["c"]),
    ]);
    let paths = |name: &str| {
        let text = as_component(&text, &format!("urn:dmb:cmp:finance:cashflow:0:{name}"));
        match full(DescriptorKind::Component, &text) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.into_iter().map(|problem| problem.path).collect::<Vec<_>>(),
        }
    };
    assert_eq!(paths("a"), ["dataProduct.components[0].dataContract.schema[0].dataType"]);
    assert!(paths("b").is_empty());
    assert!(paths("b:inner").is_empty());
    assert!(paths("c").is_empty(), "what its neighbour depends on is the neighbour's");
    assert_eq!(full(DescriptorKind::DataProduct, &text).unwrap_err().len(), 3);
}

#[test]
fn short_forms_still_need_identifiers() {
    let read = |text: &str| {
        let problems = parse(DescriptorKind::DataProduct, text, Strictness::Short, &Limits::default());
        problems.unwrap_err().iter().map(|problem| problem.path.clone()).collect::<Vec<_>>()
    };
    assert_eq!(read("components: [{}]"), ["id", "components[0].id"]);
    assert_eq!(read("{id: 'urn:dmb:dp:a:b:0', components: {}}"), ["components"]);
}

#[test]
fn a_product_without_its_components_is_refused_in_any_form() {
    for components in
        ["", ", components: []", ", components: ''", ", components: {}", ", components: [], components: []"]
    {
        let text =
            format!("{{dataProduct: {{id: 'urn:dmb:dp:a:b:0'{components}}}, componentIdToProvision: x}}");
        for strictness in [Strictness::Full, Strictness::Short] {
            let problems =
                parse(DescriptorKind::Component, &text, strictness, &Limits::default()).unwrap_err();
            assert!(!problems.is_empty(), "{components} {strictness:?}");
        }
    }
}

/// Reads as an adapter for S3 does.
fn serving_s3(kind: DescriptorKind, text: &str, strictness: Strictness) -> Result<Descriptor, Vec<Problem>> {
    let s3 = |outline: &Outline| outline.technology.as_deref() == Some("S3");
    with_faults(super::parse(kind, text, strictness, &Limits::default(), &s3))
}

/// Components of other adapters, and values that match no component.
const NEIGHBOURS: &[&str] = &[
    "{kind: dashboard, id: 'urn:dmb:cmp:finance:cashflow:0:board', name: Board, technology: Tableau}",
    "{kind: quality, id: checks/orders#1, name: Checks, specific: [a, b]}",
    "{kind: quality, id: checks/orders#1, name: The same id again, version: 1.0}",
    "{kind: workload, name: No id at all, dependsOn: nothing}",
    "{id: 5, kind: [a], name: {a: b}, dataContract: none, sampleData: [], tags: t, components: {a: b}}",
    "{name: twice, name: twice, specific: {a: 1, a: 2, ? [x] : y, ~: z}}",
    "{<<: {a: b}, name: !ruby/object x, specific: !include other.yaml}",
    r#"{name: "a\0b", id: "\x07", "a\0": b}"#,
    "text",
    "5",
    "~",
    "[]",
    "[[]]",
    "{}",
    "{components: [text, {components: [~, {id: x, id: y}]}]}",
    "{id: 'urn:dmb:cmp:finance:cashflow:0:c', dependsOn: ['urn:dmb:cmp:finance:cashflow:0:c']}",
];

#[test]
fn neighbours_of_any_shape_do_not_matter() {
    let ours =
        format!("{}, technology: S3, dependsOn: [checks/orders#1, elsewhere]", member("ours", "storage"));
    let mut components = vec![ours.clone()];
    components.extend(NEIGHBOURS.iter().map(|neighbour| (*neighbour).to_owned()));
    let mut product = format!("{PRODUCT}components:\n");
    for (number, component) in components.iter().enumerate() {
        let line = if number == 0 { format!("{{{component}}}") } else { component.clone() };
        product.push_str(&format!("- {line}\n"));
    }
    let id = "urn:dmb:cmp:finance:cashflow:0:ours";
    let component = as_component(&product, id);
    for strictness in [Strictness::Full, Strictness::Short] {
        let whole = serving_s3(DescriptorKind::DataProduct, &product, strictness).unwrap();
        let found = whole.product.component(&id.parse().unwrap()).unwrap();
        assert_eq!(found.depends_on.iter().map(Identifier::as_str).collect::<Vec<_>>(), ["checks/orders#1"]);
        // Every place of a component, also the nested ones.
        assert_eq!(whole.others.len(), NEIGHBOURS.len() + 4);
        assert_eq!(whole.others[0].technology.as_deref(), Some("Tableau"));
        let alone = serving_s3(DescriptorKind::Component, &component, strictness).unwrap();
        assert_eq!(alone.targets().len(), 1);
        // As the requested component it may be of any kind.
        let odd = as_component(&product, "'checks/orders#1'");
        let odd = serving_s3(DescriptorKind::Component, &odd, strictness);
        let problems = odd.map(|read| read.targets().len()).map_err(|problems| problems.len());
        let expected = if strictness == Strictness::Full { Err(2) } else { Ok(1) };
        assert_eq!(problems, expected, "repeated, and `specific` is a list");
    }
}

#[test]
fn reports_ambiguity_in_own_components_with_position() {
    let text = format!(
        "{PRODUCT}components:\n- {{{}, specific: {{a: 1, a: 2, ? [x] : y, <<: {{b: c}}, c: !include d}}}}\n",
        member("ours", "storage")
    );
    let at = |problems: Vec<Problem>| {
        problems.iter().map(|it| format!("{}: {}", it.path, it.message)).collect::<Vec<_>>()
    };
    assert_eq!(
        at(full(DescriptorKind::DataProduct, &text).unwrap_err()),
        [
            "components[0].specific.a: the key exists twice",
            "components[0].specific: the key of a mapping is not a text",
            "components[0].specific: the merge key `<<` is not supported",
            "components[0].specific.c: this YAML tag is not supported",
        ]
    );
}

#[test]
fn only_routed_components_of_a_component_are_read() {
    let broken = "dataContract: {schema: [{name: a, dataType: strnig}]}";
    let nested = |technology: &str| {
        let child = format!("{{{}, technology: {technology}, {broken}}}", member("b:inner", "outputport"));
        let text =
            product_of(&[format!("{}, technology: S3, components: [{child}]", member("b", "storage"))]);
        let text = as_component(&text, "urn:dmb:cmp:finance:cashflow:0:b");
        serving_s3(DescriptorKind::Component, &text, Strictness::Full).map(|read| read.targets().len())
    };
    assert_eq!(nested("Soda"), Ok(1));
    let problems = nested("S3").unwrap_err();
    assert_eq!(problems[0].path, "dataProduct.components[0].components[0].dataContract.schema[0].dataType");
}

#[test]
fn repeated_own_id_is_a_problem_except_for_removal() {
    let text = product_of(&[
        format!("{}, technology: Kafka", member("a", "outputport")),
        format!("{}, technology: S3", member("a", "storage")),
    ]);
    let problems = serving_s3(DescriptorKind::DataProduct, &text, Strictness::Full).unwrap_err();
    assert_eq!(problems[0].path, "components[1].id");
    let component = as_component(&text, "urn:dmb:cmp:finance:cashflow:0:a");
    let read = serving_s3(DescriptorKind::Component, &component, Strictness::Short).unwrap();
    assert_eq!(read.targets()[0].kind, ComponentKind::Storage, "the one that is routed here");
    let read = serving_s3(DescriptorKind::DataProduct, &text, Strictness::Short).unwrap();
    assert_eq!(read.targets().len(), 1);
}

#[test]
fn a_component_needs_little_more_than_an_id() {
    let text = "id: my-system:2\nname: my-system\nversion: 2.7.1\nenvironment: e\ncomponents:\n\
                - {id: my-component-1, name: A, infrastructureTemplateId: t, dependsOn: []}\n\
                - {id: My other component, name: B, kind: Dashboard, apiVersion: v1, dependsOn: [my-component-1, x]}\n";
    let product = full(DescriptorKind::DataProduct, text).unwrap().product;
    assert_eq!(product.components[0].kind, ComponentKind::Unspecified);
    assert_eq!(product.components[1].kind, ComponentKind::Other("dashboard".to_owned()));
    assert!(product.components.iter().all(|it| it.version.as_deref() == Some("2.7.1")));
    assert_eq!(product.components[1].depends_on.len(), 1);

    let same = text.replace("my-component-1, name", "'my-system:2', name");
    let problems = full(DescriptorKind::DataProduct, &same).unwrap_err();
    assert_eq!(problems[0].message, "the component has the identifier of its data product");
}

#[test]
fn tab_is_reported_with_its_position() {
    let head = format!("{PRODUCT}components:\n");
    for (text, line, column) in [
        (format!("{head}- id: a\n  specific:\n\t  bucket: x\n"), 8, 1),
        (format!("{head}- id: a\n  specific:\n  \tbucket: x\n"), 8, 3),
        (format!("{head}- id: a\n  specific:\n    a: b\n\tbucket: x\n"), 9, 1),
        (format!("{head}-\tid: a\n\tname: b\n"), 7, 1),
        (format!("{PRODUCT}specific:\n  a:\n    b: c\n\td: e\n"), 8, 1),
    ] {
        let problems = full(DescriptorKind::DataProduct, &text).unwrap_err();
        assert_eq!(
            (problems[0].line, problems[0].column),
            (Some(line), Some(column)),
            "{text:?} {problems:?}"
        );
    }
}

#[test]
fn parsing_costs_in_proportion_to_opaque_content() {
    let neighbour = |number: usize| {
        let deep = format!("{}x{}", "{k: [".repeat(12), "]}".repeat(12));
        format!(
            "{{id: n{number}, name: N, technology: Kafka, dependsOn: [n{}], specific: {deep}}}",
            number / 2
        )
    };
    let read = |count: usize| {
        let ours = format!("{{{}, technology: S3}}", member("ours", "storage"));
        let components: String = (0..count).map(|number| format!("- {}\n", neighbour(number))).collect();
        let text = format!("{PRODUCT}components:\n- {ours}\n{components}");
        let start = std::time::Instant::now();
        serving_s3(DescriptorKind::DataProduct, &text, Strictness::Full).unwrap();
        start.elapsed()
    };
    let least = |count| (0..5).map(|_| read(count)).min().unwrap();
    let (few, many) = (least(200), least(1_600));
    assert!(many < few * 8 * 3, "200 neighbours take {few:?}, 1600 take {many:?}");
}

#[test]
fn descriptors_with_results_are_accepted() {
    let problems = full(DescriptorKind::DataProductWithResults, CASHFLOW).unwrap_err();
    assert_eq!(
        printed(&problems),
        "  this kind of descriptor is not in use: `DATAPRODUCT_DESCRIPTOR_WITH_RESULTS`\n    \
         send a `DATAPRODUCT_DESCRIPTOR` or a `COMPONENT_DESCRIPTOR`\n"
    );
    assert_eq!("COMPONENT_DESCRIPTOR".parse(), Ok(DescriptorKind::Component));
    assert!("component_descriptor".parse::<DescriptorKind>().is_err());
}

#[test]
fn limits_are_configurable() {
    let refused = |limits: Limits| {
        let problems = parse(DescriptorKind::DataProduct, CASHFLOW, Strictness::Full, &limits).unwrap_err();
        printed(&problems)
    };
    let default = Limits::default();
    assert_eq!(
        refused(Limits { max_bytes: 1_000, ..default }),
        format!(
            "  the descriptor is too large: `{} bytes`\n    \
               keep it under 1000 bytes, or raise `descriptor.max_bytes`\n",
            CASHFLOW.len()
        )
    );
    assert!(
        refused(Limits { max_depth: 4, ..default })
            .contains("use at most 4 levels, or raise `descriptor.max_depth`")
    );
    assert!(
        refused(Limits { max_nodes: 100, ..default })
            .contains("use at most 100 values, or raise `descriptor.max_nodes`")
    );
    assert!(
        refused(Limits { max_scalar_bytes: 100, ..default }).contains("raise `descriptor.max_scalar_bytes`")
    );
    let aliases = parse(
        DescriptorKind::DataProduct,
        "a: &a x\nb: *a\nc: *a\n",
        Strictness::Full,
        &Limits { max_aliases: 1, ..default },
    );
    assert!(printed(&aliases.unwrap_err()).contains("raise `descriptor.max_aliases`"));
}

#[test]
fn problems_of_a_technology_get_document_paths() {
    let id = "urn:dmb:cmp:finance:cashflow:0:storage-component";
    let text = as_component(CASHFLOW, id).replace("bucket:", "buckt:");
    let descriptor = full(DescriptorKind::Component, &text).unwrap();
    let component = descriptor.targets()[0];
    let mut reader = SpecificReader::new(&component.specific);
    assert_eq!(reader.required_string("bucket"), None);
    let mut problems: Vec<_> =
        reader.finish().into_iter().map(|problem| problem.under(&component.path)).collect();
    problems.insert(0, Problem::new("platform", "no such platform").under(&component.path));
    problems.insert(0, Problem::new("dataProduct.components[2].dependsOn[3].x", "not there"));
    problems.insert(0, Problem::new("dataProduct.nowhere", "not there either"));
    assert_eq!(
        printed(&descriptor.locate(problems)),
        "  dataProduct.nowhere: not there either (line 2, column 1)\n  \
           dataProduct.components[2].dependsOn[3].x: not there (line 117, column 7)\n  \
           dataProduct.components[2].platform: no such platform: `AWS` (line 118, column 17)\n  \
           dataProduct.components[2].specific.bucket: `bucket` is missing (line 122, column 7)\n    \
             add `bucket`\n  \
           dataProduct.components[2].specific.buckt: unknown key `buckt` in `specific`: `finance-cashflows` (line 123, column 16)\n    \
             did you mean `bucket`?\n"
    );
}

#[test]
fn keys_with_dots_are_located() {
    let text = format!("{PRODUCT}components: []\na.b: 1\na: {{b: {{c: 2}}, b.c: 3}}\n");
    let descriptor = full(DescriptorKind::DataProduct, &text).unwrap();
    let at = |path: &str| {
        let located = descriptor.locate(vec![Problem::new(path, "here")]);
        (located[0].line.unwrap(), located[0].column.unwrap(), located[0].value.clone())
    };
    assert_eq!(at("a.b"), (6, 6, Some("1".to_owned())));
    assert_eq!(at("a.b.c"), (6, 6, None));
    assert_eq!(at(""), (1, 1, None));
    assert_eq!(at("components[0]"), (5, 1, None));
    assert_eq!(at("components[99999999999999999999]"), (5, 1, None));
    assert_eq!(at("components["), (5, 1, None));
}

#[test]
fn components_are_found_however_deeply_nested() {
    let inner = format!("{{{}}}", member("outer:inner", "storage"));
    let text = product_of(&[
        format!(
            "{}, components: [{{{}, components: [{inner}]}}]",
            member("a", "outputport"),
            member("outer", "storage")
        ),
        member("z", "workload"),
    ]);
    let product = full(DescriptorKind::DataProduct, &text).unwrap().product;
    let names: Vec<_> = product.all_components().map(|component| component.name.as_str()).collect();
    assert_eq!(names, ["a", "outer", "outer:inner", "z"]);
    let id: Identifier = "urn:dmb:cmp:finance:cashflow:0:outer:inner".parse().unwrap();
    assert_eq!(product.component(&id).unwrap().path, "components[0].components[0].components[0]");
    assert_eq!(product.component(&product.id), None);
}

fn order(components: &[String]) -> Vec<String> {
    let descriptor = full(DescriptorKind::DataProduct, &product_of(components)).unwrap();
    descriptor.targets().iter().map(|component| component.name.clone()).collect()
}

fn after(name: &str, dependencies: &[&str]) -> String {
    let ids: Vec<_> =
        dependencies.iter().map(|name| format!("'urn:dmb:cmp:finance:cashflow:0:{name}'")).collect();
    format!("{}, dependsOn: [{}]", member(name, "storage"), ids.join(", "))
}

#[test]
fn dependencies_come_first_and_the_rest_stays_as_written() {
    assert_eq!(order(&[after("a", &[]), after("b", &[]), after("c", &[])]), ["a", "b", "c"]);
    assert_eq!(order(&[after("a", &["c"]), after("b", &[]), after("c", &[])]), ["b", "c", "a"]);
    assert_eq!(order(&[after("a", &["b", "c", "b"]), after("b", &["c"]), after("c", &[])]), ["c", "b", "a"]);
}

#[test]
fn nested_components_follow_their_parent_unless_it_needs_them() {
    let nested = |parent: &str, child: &str| format!("{parent}, components: [{{{child}}}]");
    assert_eq!(order(&[nested(&after("a", &["z"]), &after("i", &[])), after("z", &[])]), ["z", "a", "i"]);
    assert_eq!(order(&[nested(&after("a", &["i"]), &after("i", &[])), after("z", &[])]), ["z", "i", "a"]);
    // Through another component, too.
    assert_eq!(order(&[nested(&after("a", &["m"]), &after("i", &[])), after("m", &["i"])]), ["i", "m", "a"]);
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    /// Tokens of YAML and of descriptors, valid and invalid.
    fn token() -> impl Strategy<Value = String> {
        prop_oneof![
            prop::sample::select(vec![
                "- ",
                ": ",
                "\n",
                "\n  ",
                "\n    ",
                "{",
                "}",
                "[",
                "]",
                ",",
                "'",
                "\"",
                "|",
                ">",
                "&a ",
                "*a",
                "!!str ",
                "!x ",
                "<<: ",
                "? ",
                "#",
                "---\n",
                "...\n",
                "%",
                "@",
                "\t",
                "\r\n",
                "\0",
                "\u{feff}",
                "\u{85}",
                "\u{2028}",
                "null",
                "~",
                "true",
                "no",
                "0.1",
                "1e999",
                "-",
                "0x1",
                ".nan",
                "id: ",
                "kind: ",
                "name: ",
                "version: ",
                "components:\n",
                "dataContract:\n",
                "schema:\n",
                "dataType: ",
                "children: ",
                "dependsOn: ",
                "specific: ",
                "dataProduct:\n",
                "componentIdToProvision: ",
                "urn:dmb:dp:finance:cashflow:0",
                "sampleData:\n",
                "rows: ",
                "columns: ",
                "outputport",
                "STRUCT",
                "😀",
            ])
            .prop_map(str::to_owned),
            "\\PC{0,6}",
        ]
    }

    /// The text with a part removed, repeated or replaced.
    fn mutated(text: &'static str) -> impl Strategy<Value = String> {
        let end = text.len();
        prop::collection::vec((0..end, 0..80_usize, token(), 0..4_u8), 1..6).prop_map(move |edits| {
            let mut text = text.to_owned();
            for (start, length, token, what) in edits {
                let boundary = |mut index: usize, text: &str| {
                    index = index.min(text.len());
                    while !text.is_char_boundary(index) {
                        index -= 1;
                    }
                    index
                };
                let start = boundary(start, &text);
                let stop = boundary(start + length, &text);
                let piece = text[start..stop].to_owned();
                match what {
                    0 => text.replace_range(start..stop, ""),
                    1 => text.replace_range(start..stop, &token),
                    2 => text.insert_str(start, &token),
                    _ => text.insert_str(stop, &piece),
                }
            }
            text
        })
    }

    /// For every input: an answer, and one that can be displayed.
    fn answers(text: &str) -> Result<(), TestCaseError> {
        for kind in [DescriptorKind::DataProduct, DescriptorKind::Component] {
            let strict = parse(kind, text, Strictness::Full, &Limits::default());
            let short = parse(kind, text, Strictness::Short, &Limits::default());
            prop_assert!(strict.is_err() || short.is_ok(), "provisioned, and not to be unprovisioned");
            for problems in [&strict, &short].into_iter().filter_map(|result| result.as_ref().err()) {
                prop_assert!((1..=101).contains(&problems.len()));
                for problem in problems {
                    let shown = format!("{problem}{}", problem.remedy.as_deref().unwrap_or_default());
                    prop_assert!(!shown.contains(char::is_control), "{shown:?}");
                    prop_assert!(shown.len() < 1_500, "{} bytes", shown.len());
                }
                prop_assert!(
                    problems
                        .windows(2)
                        .all(|pair| pair[0].line.unwrap_or(u32::MAX) <= pair[1].line.unwrap_or(u32::MAX))
                );
            }
            if let Ok(descriptor) = &strict {
                let whole = descriptor.scope == Scope::DataProduct;
                let expected = if whole { descriptor.product.components.len() } else { 1 };
                prop_assert_eq!(descriptor.targets().len(), expected);
            }
        }
        Ok(())
    }

    /// Any YAML value.
    fn value() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            prop::sample::select(NEIGHBOURS).prop_map(str::to_owned),
            any::<i64>().prop_map(|number| number.to_string()),
            any::<bool>().prop_map(|yes| yes.to_string()),
            "\\PC{0,12}".prop_map(|text| serde_json::Value::from(text).to_string()),
            Just("~".to_owned()),
            prop::sample::select(vec![
                "!!int abc",
                "!!bool yes",
                "!!timestamp 2020-01-01",
                "!!str 5",
                "!!seq a"
            ])
            .prop_map(str::to_owned),
        ];
        let key = prop_oneof![
            prop::sample::select(vec![
                "id",
                "name",
                "kind",
                "version",
                "technology",
                "platform",
                "dependsOn",
                "components",
                "specific",
                "dataContract",
                "schema",
                "tags",
                "sampleData",
                "info",
                "<<",
                "~",
                "[a]",
                "!x y",
            ])
            .prop_map(str::to_owned),
            "[a-z]{1,4}",
        ];
        leaf.prop_recursive(5, 40, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6)
                    .prop_map(|items| format!("[{}]", items.join(", "))),
                prop::collection::vec((key.clone(), inner), 0..6).prop_map(|entries| {
                    let entries = entries.into_iter().map(|(key, value)| format!("? {key} : {value}"));
                    format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
                }),
            ]
        })
    }

    /// The problems of the components of an adapter for S3; their places, by their names.
    fn verdict(kind: DescriptorKind, neighbours: &[(u8, String)], strictness: Strictness) -> Vec<String> {
        let ours = [
            format!(
                "{{{}, technology: S3, dependsOn: ['urn:dmb:cmp:finance:cashflow:0:b']}}",
                member("a", "storage")
            ),
            format!(
                "{{{}, technology: S3, description: !!str 5, dataContract: {{schema: [{{name: x, dataType: strnig}}]}}, specific: {{a: 1, a: 2}}}}",
                member("b", "outputport")
            ),
        ];
        let mut places = Vec::new();
        let mut text = format!("{PRODUCT}components:\n");
        for (position, own) in ours.iter().enumerate() {
            for (_, neighbour) in neighbours.iter().filter(|(at, _)| usize::from(at % 3) == position) {
                text.push_str(&format!("- {neighbour}\n"));
                places.push(None);
            }
            text.push_str(&format!("- {own}\n"));
            places.push(Some(position));
        }
        for (_, neighbour) in neighbours.iter().filter(|(at, _)| at % 3 == 2) {
            text.push_str(&format!("- {neighbour}\n"));
        }
        if kind == DescriptorKind::Component {
            text = as_component(&text, "urn:dmb:cmp:finance:cashflow:0:b");
        }
        match serving_s3(kind, &text, strictness) {
            Ok(read) => read
                .targets()
                .iter()
                .filter(|it| it.technology.as_deref() == Some("S3"))
                .map(|it| {
                    let mut it = (*it).clone();
                    it.path = String::new();
                    it.unread.iter_mut().for_each(|unread| unread.problem = Problem::default());
                    if let Some(contract) = &mut it.data_contract {
                        contract.schema.iter_mut().for_each(|column| column.path = String::new());
                    }
                    format!("{it:?}")
                })
                .collect(),
            Err(problems) => problems
                .into_iter()
                .map(|mut problem| {
                    (problem.line, problem.column) = (None, None);
                    for (index, place) in places.iter().enumerate() {
                        if let Some(place) = place {
                            let (from, to) = (format!("components[{index}]."), format!("ours[{place}]."));
                            problem.path = problem.path.replace(&from, &to);
                        }
                    }
                    // The place of the first of two equal keys moves with the text before it.
                    problem.with_remedy().split(" on line ").next().map(str::to_owned).unwrap_or_default()
                })
                .collect(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_neighbour_changes_a_verdict(neighbours in prop::collection::vec((any::<u8>(), value()), 1..6)) {
            for kind in [DescriptorKind::DataProduct, DescriptorKind::Component] {
                for strictness in [Strictness::Full, Strictness::Short] {
                    let (with, without) = (verdict(kind, &neighbours, strictness), verdict(kind, &[], strictness));
                    prop_assert_eq!(with, without, "{:?} {:?}", kind, strictness);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_gets_an_answer(tokens in prop::collection::vec(token(), 0..60)) {
            answers(&tokens.concat())?;
        }

        #[test]
        fn any_bytes_get_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(DescriptorKind::DataProduct, bytes, Strictness::Full, &Limits::default());
        }

        #[test]
        fn any_mutation_of_a_descriptor_gets_an_answer(text in mutated(CASHFLOW)) {
            answers(&text)?;
        }

        #[test]
        fn any_mutation_of_a_short_form_gets_an_answer(text in mutated(ACL_REQUEST)) {
            answers(&text)?;
        }

        #[test]
        fn identifiers_are_kept_as_written(
            namespace in "[a-zA-Z0-9]{2,8}",
            parts in prop::collection::vec("[a-zA-Z0-9_.~!$&'()*+,;=@%/-]{1,12}", 1..8),
        ) {
            let text = format!("urn:{namespace}:{}", parts.join(":"));
            let id: Identifier = text.parse().unwrap();
            prop_assert_eq!(id.as_str(), &text);
            prop_assert_eq!(id.to_string(), text);
            let urn = id.urn().unwrap();
            prop_assert_eq!(urn.namespace, namespace);
            prop_assert_eq!(urn.entity, parts[0].as_str());
            prop_assert!(urn.parts().eq(parts[1..].iter().map(String::as_str)));
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(serde_json::from_str::<Identifier>(&json).unwrap(), id);
        }

        #[test]
        fn any_text_is_accepted_or_refused_as_identifier(text in "\\PC{0,40}") {
            if let Ok(id) = text.parse::<Identifier>() {
                prop_assert_eq!(id.as_str(), text);
            }
        }

        #[test]
        fn every_order_respects_the_dependencies(
            edges in prop::collection::vec((0..12_usize, 0..12_usize), 0..30),
            parents in prop::collection::vec(0..12_usize, 12),
        ) {
            // Edges lead down, so there is no cycle; parents are arbitrary, so they may contradict them.
            let components: Vec<_> = (0..12)
                .map(|number| {
                    let down: Vec<_> = edges
                        .iter()
                        .filter(|(from, to)| *from == number && to < from)
                        .map(|(_, to)| format!("c{to}"))
                        .collect();
                    let down: Vec<_> = down.iter().map(String::as_str).collect();
                    (number, after(&format!("c{number}"), &down))
                })
                .collect();
            // The first half is nested, one each, in components of the second half.
            let mut written = Vec::new();
            for (number, text) in components.iter().skip(6) {
                let nested: Vec<_> = components
                    .iter()
                    .take(6)
                    .filter(|(child, _)| parents[*child] % 6 + 6 == *number)
                    .map(|(_, text)| format!("{{{text}}}"))
                    .collect();
                written.push(format!("{text}, components: [{}]", nested.join(", ")));
            }
            let descriptor = full(DescriptorKind::DataProduct, &product_of(&written)).unwrap();
            let ordered = descriptor.targets();
            prop_assert_eq!(ordered.len(), 12);
            for (index, component) in ordered.iter().enumerate() {
                for dependency in &component.depends_on {
                    prop_assert!(ordered[..index].iter().any(|before| &before.id == dependency));
                }
            }
        }
    }
}

#[test]
fn digest_is_of_the_content_and_not_of_its_layout() {
    let digest = |text: &str| {
        let limits = Limits::default();
        Document::read(text.as_bytes(), &limits).unwrap().digest()
    };
    let base = digest("a: 1\nb:\n  - x\n  - {c: true, d: null}\n");
    for same in [
        "# said\nb: [x, {d: ~, c: true}]   # in passing\na: 1",
        r#"{"b": ["x", {"c": true, "d": null}], "a": 1}"#,
        "a: 1\nb: [&x 'x', {\"c\": true, d: }]\n",
    ] {
        assert_eq!(digest(same), base, "{same}");
    }
    for other in [
        "a: 2\nb: [x, {c: true, d: null}]",
        "a: 1.0\nb: [x, {c: true, d: null}]",
        "a: '1'\nb: [x, {c: true, d: null}]",
        "a: 1\nb: [{c: true, d: null}, x]",
        "a: 1\nb: [x, {c: false, d: null}]",
        "a: 1\nb: [x, {c: true}]",
        "a: 1\nb: [x, c: true, d: null]",
        "a: 1\nb: [x, [{c: true, d: null}]]",
        "ab: 1\nb: [x, {c: true, d: null}]",
    ] {
        assert_ne!(digest(other), base, "{other}");
    }
}

#[test]
fn every_problem_has_a_remedy() {
    let odd = [
        "text",
        "[a]",
        "{a: b}",
        "1",
        "true",
        "!x y",
        "!!int a",
        "!!binary '?'",
        "''",
        "[]",
        "[[], {}, 1, '']",
    ];
    let fields = [
        "kind",
        "name",
        "version",
        "technology",
        "tags",
        "dependsOn",
        "specific",
        "components",
        "dataContract",
        "sampleData",
        "dataSharingAgreement",
    ];
    let within = ["schema", "SLA", "endpoint", "apiVersion", "slaProperties"];
    let of_column = [
        "name",
        "dataType",
        "dataLength",
        "precision",
        "arrayDataType",
        "children",
        "constraint",
        "tags",
        "logicalType",
        "physicalType",
        "required",
        "primaryKey",
        "items",
        "properties",
    ];
    let mut texts: Vec<String> = Vec::new();
    for value in odd {
        texts.extend(fields.map(|field| format!("{field}: {value}")));
        texts.extend(within.map(|field| format!("dataContract: {{{field}: {value}}}")));
        texts.extend(of_column.map(|field| format!("dataContract: {{schema: [{{{field}: {value}}}]}}")));
        let odcs = |field| {
            format!("dataContract: {{kind: DataContract, schema: [{{properties: [{{{field}: {value}}}]}}]}}")
        };
        texts.extend(of_column.map(odcs));
        texts.extend(["columns", "rows"].map(|field| format!("sampleData: {{{field}: {value}}}")));
    }
    let mut texts: Vec<Vec<u8>> = texts
        .into_iter()
        .map(|text| {
            format!("{PRODUCT}components:\n- {{id: 'urn:dmb:cmp:finance:cashflow:0:x', {text}}}\n")
                .into_bytes()
        })
        .collect();
    texts.extend(corpus("hostile").into_iter().map(|(_, bytes)| bytes));
    for text in texts {
        for strictness in [Strictness::Full, Strictness::Short] {
            let read = parse(DescriptorKind::DataProduct, &text, strictness, &Limits::default());
            for problem in read.err().into_iter().flatten() {
                let remedy = problem.remedy.as_deref().unwrap_or_default();
                assert!(!remedy.is_empty(), "{problem}\n{}", String::from_utf8_lossy(&text));
            }
        }
    }
}

#[test]
fn technology_paths_lead_to_the_written_text() {
    let text = product_of(&[format!(
        "{}, dataContract: {{schema: [{{name: a, dataType: 'varchar(20) not null'}}, {{name: b, dataType: VARCHAR, dataLength: 9}}, \
         {{name: c, dataType: 'ARRAY<STRUCT<x: INT>>'}}, {{name: d, dataType: ARRAY, arrayDataType: 'varchar(3)'}}, \
         {{name: e, dataType: ARRAY, arrayDataType: STRUCT, children: [{{name: x, dataType: 'decimal(3,1)'}}]}}]}}",
        member("a", "outputport")
    )]);
    let descriptor = full(DescriptorKind::DataProduct, &text).unwrap();
    let component = &descriptor.product.components[0];
    for (path, told) in [
        ("[0].dataLength", "[0].dataType"),
        ("[0].constraint", "[0].dataType"),
        ("[0].name", "[0].name"),
        ("[1].dataLength", "[1].dataLength"),
        ("[2].arrayDataType", "[2].dataType"),
        ("[2].children[0].dataType", "[2].dataType"),
        ("[2].children[0].name", "[2].dataType"),
        ("[3].arrayDataType", "[3].arrayDataType"),
        ("[3].dataLength", "[3].arrayDataType"),
        ("[4].children[0].scale", "[4].children[0].dataType"),
        ("", ""),
    ] {
        let located = component.located(Problem::new(format!("dataContract.schema{path}"), "m"));
        assert_eq!(located.path, format!("components[0].dataContract.schema{told}"), "{path}");
    }
}

#[test]
fn yaml_tags_do_not_change_positions() {
    for before in ["", "---\n", "# comment\n", "# comment\n---\n", "\u{feff}", "\n\n--- # begin\n"] {
        let text =
            format!("{before}{PRODUCT}components: [{{{}, description: !!int abc, name: !!str 12}}]\n", {
                "id: 'urn:dmb:cmp:finance:cashflow:0:x', kind: storage"
            });
        let lines = u32::try_from(before.lines().count()).unwrap() - u32::from(before == "\u{feff}");
        let problems = full(DescriptorKind::DataProduct, &text).unwrap_err();
        let [problem] = problems.as_slice() else { panic!("{before:?}: {problems:?}") };
        assert_eq!(problem.message, "the value is not what its YAML tag says");
        assert_eq!((problem.line, problem.column), (Some(lines + 5), Some(89)), "{before:?}");
        let text = text.replace("!!int abc", "!!int '5'");
        let read = full(DescriptorKind::DataProduct, &text).unwrap();
        assert_eq!(read.product.components[0].name, "12");
        let component = super::of_component(&text, "x", &Limits::default()).unwrap();
        assert!(component.contains("componentIdToProvision: \"x\""), "{component}");
    }
}

#[test]
fn length_beside_a_type_name_is_its_length() {
    for (column, meant) in [
        ("dataType: bpchar", (DataType::Text, None, None)),
        ("dataType: bpchar, dataLength: 3", (DataType::Char, None, Some(3))),
        ("dataType: 'bpchar(3)'", (DataType::Char, None, Some(3))),
        ("dataType: 'bpchar[]'", (DataType::Array, Some(DataType::Text), None)),
        (
            "dataType: ARRAY, arrayDataType: bpchar, dataLength: 3",
            (DataType::Array, Some(DataType::Char), Some(3)),
        ),
    ] {
        let text = product_of(&[format!(
            "{}, dataContract: {{schema: [{{name: a, {column}}}]}}",
            member("a", "outputport")
        )]);
        let descriptor = full(DescriptorKind::DataProduct, &text).unwrap();
        let column_read = &descriptor.product.components[0].data_contract.as_ref().unwrap().schema[0];
        let read = (column_read.data_type, column_read.array_data_type, column_read.data_length);
        assert_eq!(read, meant, "{column}");
    }
}

#[test]
fn tagged_values_have_the_type_of_their_tag() {
    let specific = |value: &str| {
        let text = product_of(&[format!("{}, specific: {{v: {value}}}", member("x", "storage"))]);
        full(DescriptorKind::DataProduct, &text)
            .map(|read| read.product.components[0].specific["v"].to_string())
    };
    for (written, read) in [
        ("!!str 5", "\"5\""),
        ("!!str 1.0", "\"1.0\""),
        ("!!str true", "\"true\""),
        ("!!str ~", "\"~\""),
        ("!!str ''", "\"\""),
        ("!!str '5'", "\"5\""),
        ("!!int 5", "5"),
        ("!!int '-5'", "-5"),
        ("!!float 5", "5.0"),
        ("!!float '1.5'", "1.5"),
        ("!!bool true", "true"),
        ("!!bool 'False'", "false"),
        ("!!null x", "null"),
        ("!!timestamp 2020-01-01", "\"2020-01-01\""),
        ("!!binary aGVsbG8=", "\"hello\""),
        ("!!seq [1]", "[1]"),
        ("!!map {a: !!str 1}", "{\"a\":\"1\"}"),
        ("! 5", "\"5\""),
    ] {
        assert_eq!(specific(written).as_deref(), Ok(read), "{written}");
    }
    for wrong in [
        "!!int abc",
        "!!int 1.5",
        "!!int []",
        "!!bool yes",
        "!!float x",
        "!!binary '?'",
        "!!binary /w==",
        "!!seq a",
        "!!map [a]",
        "!!str [a]",
        "!!null {}",
    ] {
        let problems = specific(wrong).unwrap_err();
        assert_eq!(problems.len(), 1, "{wrong}: {problems:?}");
        assert_eq!(problems[0].message, "the value is not what its YAML tag says", "{wrong}");
    }
}

#[test]
fn short_form_keeps_problems_of_deciding_fields() {
    let text = format!(
        "{PRODUCT}specific: text\nname: again\ncomponents:\n- {{id: x, kind: [a], specific: {{t: a, t: b}}, technology: S3, \
         technology: S4, tags: 1, tags: 2}}\n"
    );
    let read = parse(DescriptorKind::DataProduct, &text, Strictness::Short, &Limits::default()).unwrap();
    let unread = &read.product.components[0].unread;
    let told: Vec<_> =
        unread.iter().map(|it| (it.field, it.problem.path.as_str(), it.problem.message.as_str())).collect();
    assert_eq!(
        told,
        [
            ("kind", "components[0].kind", "`kind` is a list and should be a text"),
            ("specific", "components[0].specific.t", "the key exists twice"),
            ("technology", "components[0].technology", "the key exists twice"),
        ]
    );
    for key in ["id: y\n", "environment: y\n", "components: []\n"] {
        let twice = format!("{key}{text}");
        let problems =
            parse(DescriptorKind::DataProduct, &twice, Strictness::Short, &Limits::default()).unwrap_err();
        assert_eq!(problems.len(), 1, "{key}: {problems:?}");
    }
}

#[test]
fn a_type_and_its_constraint_agree() {
    let read = |column: &str| {
        let text = product_of(&[format!(
            "{}, dataContract: {{schema: [{{name: a, {column}}}]}}",
            member("a", "outputport")
        )]);
        let read = full(DescriptorKind::DataProduct, &text).map_err(|problems| problems[0].to_string());
        let column = read?.product.components[0].data_contract.as_ref().unwrap().schema[0].clone();
        Ok::<_, String>((column.required, column.unique))
    };
    assert_eq!(read("dataType: int not null"), Ok((true, false)));
    assert_eq!(read("dataType: int not null, constraint: UNIQUE"), Ok((true, true)));
    assert_eq!(read("dataType: int null"), Ok((false, false)));
    assert_eq!(
        read("dataType: int not null, constraint: 'NULL'").unwrap_err(),
        "components[0].dataContract.schema[0].constraint: `constraint` contradicts `dataType`, which says NOT NULL: `NULL` \
         (line 6, column 157)"
    );
}
