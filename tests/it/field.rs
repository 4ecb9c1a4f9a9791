//! Documents like those that control planes and teams send. Every contract must give each its expected verdict.
//! `tests/corpus/field/README.md` says how to add a document.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{AIRBYTE, Api, Landfall, PREFIX, messages, query_write, repository, walk};

/// The targets and routes of the test server. The lakehouse and the mock run anywhere; PostgreSQL only
/// validates.
const CONFIG: &str = r#"
[targets.LAKE]
driver = "lakehouse"
group = "lakehouse"
warehouse = "file://{data_dir}/warehouse"
catalog = "sqlite://{data_dir}/catalog.db"

[targets.MOCK]
driver = "mock"
group = "mock"

[targets.WAREHOUSE]
driver = "postgresql"
group = "postgresql"
url = { env = "FIELD_POSTGRESQL" }

[[routes]]
technology = "S3"
group = "lakehouse"

[[routes]]
infrastructureTemplateId = "urn:dmb:itm:storage"
group = "lakehouse"

[[routes]]
technology = "PostgreSQL"
group = "postgresql"

[[routes]]
technology = "Tableau"
group = "mock"

[[routes]]
technology = "Spark"
kind = "workload"
group = "mock"
"#;

/// A document and its expected verdict, from the comments at its start.
#[derive(Default)]
struct Case {
    path: PathBuf,
    text: String,
    valid: bool,
    /// The problems, in order, without line and column.
    problems: Vec<String>,
    /// Parts of the remedies.
    remedies: Vec<String>,
    /// The components that the server leaves to other adapters, each with a part of the stated reason.
    left: Vec<(String, String)>,
    /// Whether the test calls only `validate` for this document.
    only_validate: bool,
    /// The expected status of an unprovision of this invalid document. `None` skips the unprovision.
    unprovision: Option<u16>,
}

impl Case {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let mut case = Self { path: path.to_owned(), text: text.clone(), ..Self::default() };
        let mut verdict = false;
        for line in text.lines().map_while(|line| line.strip_prefix("# ")) {
            let (word, rest) = line.split_once(": ").unwrap_or((line, ""));
            match word {
                "valid" => (case.valid, verdict) = (true, true),
                "invalid" => verdict = true,
                "problem" => case.problems.push(rest.to_owned()),
                "remedy" => case.remedies.push(rest.to_owned()),
                "left" => {
                    let (id, reason) = rest.split_once(" because ").unwrap_or((rest, ""));
                    case.left.push((id.to_owned(), reason.to_owned()));
                }
                "only validate" => case.only_validate = true,
                "unprovision" => case.unprovision = Some(rest.parse().unwrap()),
                "about" => {}
                other => panic!("{}: `# {other}` says nothing to this test", path.display()),
            }
        }
        assert!(verdict, "{} says neither `# valid` nor `# invalid`", path.display());
        case
    }

    fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        walk(&repository().join("tests/corpus/field"), &mut |path| {
            if path.extension().is_some_and(|extension| extension == "yaml" || extension == "json") {
                cases.push(Self::read(path));
            }
        });
        cases.sort_by(|a, b| a.path.cmp(&b.path));
        cases
    }

    fn name(&self) -> String {
        self.path.file_name().unwrap().to_string_lossy().into_owned()
    }

    fn is_component(&self) -> bool {
        self.text.contains("componentIdToProvision")
    }

    fn request(&self, remove_data: bool) -> Value {
        let kind = if self.is_component() { "COMPONENT_DESCRIPTOR" } else { "DATAPRODUCT_DESCRIPTOR" };
        json!({ "descriptorKind": kind, "descriptor": self.text, "removeData": remove_data })
    }

    /// Returns the text of the file with `problems` as its expected problems.
    fn rewritten(&self, problems: &[String]) -> String {
        let is_problem = |line: &&str| !line.starts_with("# problem: ");
        let mut lines: Vec<String> = self.text.lines().filter(is_problem).map(str::to_owned).collect();
        let at = lines.iter().position(|line| line == "# invalid").map_or(0, |at| at + 1);
        lines.splice(at..at, problems.iter().map(|problem| format!("# problem: {problem}")));
        lines.join("\n") + "\n"
    }
}

/// Removes the line and column from the end of a problem. They change when a line is added to the file.
fn without_place(problem: &str) -> String {
    match problem.rfind(" (line ") {
        Some(end) if problem.ends_with(')') => problem[..end].to_owned(),
        _ => problem.to_owned(),
    }
}

/// A contract: the base path of its API, and the version part of its paths.
struct Contract {
    prefix: &'static str,
    /// The part between the base path and the name of an operation.
    version: &'static str,
}

const CONTRACTS: [Contract; 3] = [
    Contract { prefix: AIRBYTE, version: "" },
    Contract { prefix: PREFIX, version: "/v1" },
    Contract { prefix: "", version: "/v1" },
];

impl Contract {
    fn is_airbyte(&self) -> bool {
        self.prefix == AIRBYTE
    }

    fn path(&self, operation: &str) -> String {
        format!("{}/{operation}", self.version)
    }

    fn access(&self, case: &Case) -> Value {
        if self.is_airbyte() {
            json!({ "acl": { "users": ["alice_x.com"], "groups": [] }, "provisionInfo": { "request": case.text } })
        } else {
            json!({ "refs": ["user:alice_x.com"], "provisionInfo": { "request": case.text, "result": "" } })
        }
    }

    /// Validates the document. Returns whether it is valid, the problems without remedies, and the text that
    /// contains the remedies.
    async fn verdict(&self, api: &Api, case: &Case) -> (bool, Vec<String>, String) {
        let answer = api.post(&self.path("validate"), &case.request(false)).await.with_status(200).json();
        let strings = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().filter_map(|it| it.as_str().map(str::to_owned)).collect()
        };
        let errors = strings(&answer["error"]["errors"]);
        let remedies = strings(&answer["error"]["moreInfo"]["solutions"]).join("\n");
        let problems = if self.is_airbyte() {
            // An Airbyte error has the remedy after the place and a semicolon. `difference` removes the place.
            errors.iter().map(|error| without_place(error.split("); ").next().unwrap_or(error))).collect()
        } else {
            errors.iter().map(|error| without_place(error)).collect()
        };
        (answer["valid"] == true, problems, if self.is_airbyte() { errors.join("\n") } else { remedies })
    }
}

/// Describes how `actual` differs from `expected`, without line and column. `None` if they are equal.
fn difference(expected: &[String], actual: &[String]) -> Option<String> {
    let cut = |text: &String| text.split(" (line ").next().unwrap_or(text).to_owned();
    let actual: Vec<String> = actual.iter().map(cut).collect();
    (expected != actual).then(|| format!("expected {expected:#?}, got {actual:#?}"))
}

#[tokio::test]
async fn field_documents_get_their_verdicts_in_every_contract() {
    let cases = Case::all();
    assert!(cases.len() >= 60, "only {} documents", cases.len());
    let server =
        Landfall::with().config(CONFIG).env("FIELD_POSTGRESQL", "postgres://x@127.0.0.1:1/nowhere").start();
    let bless = std::env::var_os("BLESS").is_some();
    let mut wrong = Vec::new();
    for case in &cases {
        for contract in &CONTRACTS {
            let api = server.api().under(contract.prefix);
            let mut told =
                |what: String| wrong.push(format!("{} at `{}`: {what}", case.name(), contract.prefix));
            let (valid, problems, remedies) = contract.verdict(&api, case).await;
            if valid != case.valid {
                told(format!("valid is {valid}: {problems:#?}"));
                continue;
            }
            if bless && contract.prefix.is_empty() && !valid {
                std::fs::write(&case.path, case.rewritten(&problems)).unwrap();
            }
            if let Some(difference) = difference(&case.problems, &problems) {
                told(difference);
            }
            for remedy in &case.remedies {
                if !remedies.contains(remedy.as_str()) {
                    told(format!("`{remedy}` is not in {remedies}"));
                }
            }
            if let Err(what) = run_operations(&api, contract, case).await {
                told(what);
            }
        }
        if let Err(what) = check_skipped(server.api(), case).await {
            wrong.push(format!("{}: {what}", case.name()));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of the verdicts are not as they must be:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Provisions and unprovisions a valid document. Expects a refused provision of an invalid document, and the
/// expected status of its unprovision. Returns the first wrong answer as an error.
async fn run_operations(api: &Api, contract: &Contract, case: &Case) -> Result<(), String> {
    if !case.valid {
        let refused = api.post(&contract.path("provision"), &case.request(false)).await;
        if refused.status != 400 {
            return Err(format!("provision answers {}: {}", refused.status, refused.text));
        }
        if let Some(expected) = case.unprovision {
            let answer = api.post(&contract.path("unprovision"), &case.request(false)).await;
            if answer.status != expected {
                return Err(format!("unprovision answers {}: {}", answer.status, answer.text));
            }
            if expected == 202 {
                expect_completed(api, contract, "unprovision", &answer.token()).await?;
            }
        }
        return Ok(());
    }
    if case.only_validate {
        return Ok(());
    }
    let mut steps = vec![("provision", case.request(false))];
    if case.is_component() {
        steps.push(("updateacl", contract.access(case)));
    }
    // The last contract also removes the data, so that no resource remains for the next document.
    steps.push(("unprovision", case.request(contract.prefix.is_empty())));
    for (operation, body) in steps {
        let answer = api.post(&contract.path(operation), &body).await;
        if answer.status != 202 {
            return Err(format!("{operation} answers {}: {}", answer.status, answer.text));
        }
        expect_completed(api, contract, operation, &answer.token()).await?;
    }
    Ok(())
}

async fn expect_completed(
    api: &Api,
    contract: &Contract,
    operation: &str,
    token: &str,
) -> Result<(), String> {
    let status = api.wait_at(&contract.path("provision"), token).await;
    if status["status"] == "COMPLETED" { Ok(()) } else { Err(format!("{operation} ended: {status:#}")) }
}

/// Checks that a dry run and the log list the components of other adapters, with the reasons.
async fn check_skipped(api: &Api, case: &Case) -> Result<(), String> {
    if !case.valid || case.left.is_empty() {
        return Ok(());
    }
    let mut body = case.request(false);
    body["operation"] = json!("PROVISION");
    let plan = api.post("/landfall/v1/plan", &body).await.with_status(200).json();
    let listed: Vec<(&str, &str)> = plan["skipped"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|it| Some((it["id"].as_str()?, it["reason"].as_str()?)))
        .collect();
    let ids: Vec<&str> = listed.iter().map(|(id, _)| *id).collect();
    let expected: Vec<&str> = case.left.iter().map(|(id, _)| id.as_str()).collect();
    if ids != expected {
        return Err(format!("left to others are {ids:?}, and not {expected:?}"));
    }
    for ((id, reason), (_, part)) in listed.iter().zip(&case.left) {
        if !reason.contains(part.as_str()) {
            return Err(format!("`{part}` is not why `{id}` is left: {reason}"));
        }
    }
    let done = api.provision_and_wait(&case.request(false)).await;
    let log = messages(&done).join("\n");
    if let Some((id, reason)) =
        listed.iter().find(|(id, reason)| !log.contains(&format!("{id}: left to another adapter: {reason}")))
    {
        return Err(format!("the log does not say that `{id}` is left: {reason}\n{log}"));
    }
    api.complete("/v1/unprovision", &case.request(true)).await;
    Ok(())
}

/// An unprovision may omit the environment: the server remembers it for its own component, and does not check
/// the components of other adapters.
#[tokio::test]
async fn unprovision_without_environment_ignores_foreign_components() {
    let server =
        Landfall::with().config(CONFIG).env("FIELD_POSTGRESQL", "postgres://x@127.0.0.1:1/x").start();
    let path = repository().join("tests/corpus/field/product-foreign-components.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let request = |text: &str| json!({ "descriptorKind": "DATAPRODUCT_DESCRIPTOR", "descriptor": text });
    server.api().provision_and_wait(&request(&text)).await;
    let short = text.replace("environment: development\n", "");
    let done = server.api().complete("/v1/unprovision", &request(&short)).await;
    assert!(done["result"].as_str().unwrap().starts_with("unprovisioned: 1 component"), "{done:#}");
}

/// A caller may serialise unset fields as null.
#[tokio::test]
async fn null_remove_data_means_false() {
    let server =
        Landfall::with().config(CONFIG).env("FIELD_POSTGRESQL", "postgres://x@127.0.0.1:1/x").start();
    let text =
        std::fs::read_to_string(repository().join("tests/corpus/field/minimal-component.yaml")).unwrap();
    let mut body =
        json!({ "descriptorKind": "COMPONENT_DESCRIPTOR", "descriptor": text, "removeData": false });
    server.api().provision_and_wait(&body).await;
    body["removeData"] = Value::Null;
    for prefix in ["", PREFIX] {
        let api = server.api().under(prefix);
        assert_eq!(api.validate(&body).await["valid"], true);
        api.complete("/v1/unprovision", &body).await;
    }
    assert!(!server.resources().await.buckets().is_empty(), "the data is kept");
}

const PORT: &str = "urn:dmb:cmp:sales:orders:0:orders";

/// A request with `removeData` for an output port of the lakehouse, or for its whole data product. `product`
/// adds lines to the data product, `before` adds components before the port, and `replaced` changes text of the
/// port.
fn port(kind: &str, product: &str, before: &str, replaced: (&str, &str)) -> Value {
    let own = format!(
        "    - id: {PORT}\n      name: Orders\n      kind: outputport\n      technology: S3\n      specific: {{table: \
         orders}}\n      dataContract: {{schema: [{{name: a, dataType: STRING}}]}}\n"
    );
    assert!(own.contains(replaced.0));
    let own = own.replace(replaced.0, replaced.1);
    let product = format!(
        "  id: urn:dmb:dp:sales:orders:0\n  name: Orders\n  version: 0.2.0\n  environment: development\n{product}  \
         components:\n{before}{own}"
    );
    let text = match kind {
        "COMPONENT_DESCRIPTOR" => format!("dataProduct:\n{product}componentIdToProvision: {PORT}\n"),
        _ => product.lines().map(|line| format!("{}\n", &line[2..])).collect(),
    };
    json!({ "descriptorKind": kind, "descriptor": text, "removeData": true })
}

/// The descriptor of an updateacl or unprovision may describe the component differently, or repeat its id.
#[tokio::test]
async fn unprovision_with_a_changed_descriptor_removes_everything() {
    let server =
        Landfall::with().config(CONFIG).env("FIELD_POSTGRESQL", "postgres://x@127.0.0.1:1/x").start();
    let kept = ("", "");
    let cases = [
        ("", format!("    - {{id: {PORT}, kind: storage, technology: Snowflake, name: dup}}\n"), kept),
        ("", format!("    - {{id: {PORT}, technology: Snowflake}}\n"), kept),
        ("", format!("    - {{id: {PORT}, kind: [a], specific: text, technology: S4}}\n"), kept),
        ("", format!("    - {{id: n, components: [{{id: {PORT}, kind: storage}}]}}\n"), kept),
        ("", String::new(), ("kind: outputport", "kind: storage")),
        ("", String::new(), ("kind: outputport", "kind: dataset")),
        ("", String::new(), ("kind: outputport", "kind: [a]")),
        ("", String::new(), ("kind: outputport", "kind: null")),
        ("", String::new(), ("technology: S3", "technology: Kafka")),
        ("", String::new(), ("specific: {table: orders}", "specific: \"\"")),
        ("", String::new(), ("specific: {table: orders}", "specific: []")),
        ("", String::new(), ("specific: {table: orders}", "specific: text")),
        ("", String::new(), ("specific: {table: orders}", "specific: {table: a, table: b}")),
        ("  specific: []\n", String::new(), kept),
        ("  specific: text\n  ownerGroup: a\n  ownerGroup: a\n", String::new(), kept),
    ];
    let good = port("COMPONENT_DESCRIPTOR", "", "", kept);
    for (product, before, replaced) in &cases {
        for kind in ["COMPONENT_DESCRIPTOR", "DATAPRODUCT_DESCRIPTOR"] {
            let told = || format!("{kind}: {product}{before}{replaced:?}");
            let body = port(kind, product, before, *replaced);
            let component = port("COMPONENT_DESCRIPTOR", product, before, *replaced);
            for contract in &CONTRACTS {
                let api = server.api().under(contract.prefix);
                let made = server.api().provision_and_wait(&good).await;
                assert!(!server.resources().await.tables.is_empty(), "{made:#}");
                let request = &component["descriptor"];
                let access = if contract.is_airbyte() {
                    json!({ "acl": { "users": ["alice_x.com"], "groups": [] }, "provisionInfo": { "request": request } })
                } else {
                    json!({ "refs": ["user:alice_x.com"], "provisionInfo": { "request": request, "result": "" } })
                };
                for (operation, body) in [("updateacl", &access), ("unprovision", &body)] {
                    let answer = api.post(&contract.path(operation), body).await;
                    assert_eq!(answer.status, 202, "{operation} {}: {}", told(), answer.text);
                    expect_completed(&api, contract, operation, &answer.token())
                        .await
                        .unwrap_or_else(|error| panic!("{}: {error}", told()));
                }
                let left = server.resources().await;
                assert!(left.tables.is_empty(), "{}: {:?}", told(), left.tables);
                if contract.is_airbyte() {
                    // The Airbyte contract cannot request the deletion of the data.
                    server.api().complete("/v1/unprovision", &good).await;
                }
                let files = server.resources().await.files;
                let data: Vec<_> = files.iter().filter(|(path, _)| path.starts_with("tables")).collect();
                assert!(data.is_empty(), "{}: {data:?}", told());
            }
        }
    }
}

/// The kind of a component cannot change while the component exists.
#[tokio::test]
async fn changed_kind_of_a_provisioned_component_is_refused() {
    let server =
        Landfall::with().config(CONFIG).env("FIELD_POSTGRESQL", "postgres://x@127.0.0.1:1/x").start();
    let api = server.api();
    let kind = "COMPONENT_DESCRIPTOR";
    let good = port(kind, "", "", ("", ""));
    let storage = port(kind, "", "", ("kind: outputport", "kind: storage"));
    let storage = port_without_table(storage);
    api.provision_and_wait(&good).await;
    let expected = "dataProduct.components[0].kind: this component is provisioned as `outputport`, and the \
                    descriptor declares another kind: `storage`";
    let validated = api.validate(&storage).await;
    assert_eq!(without_place(validated["error"]["errors"][0].as_str().unwrap()), expected, "{validated:#}");
    let remedy = "unprovision it first, or write `kind: outputport` again";
    assert_eq!(validated["error"]["moreInfo"]["solutions"], json!([remedy]));
    api.post("/v1/provision", &storage).await.with_status(400);
    // Simulates an earlier version, which did not store the kind.
    query_write(&server.data_dir().join("landfall.db"), "UPDATE deployment SET kind = NULL").await;
    for operation in ["/v1/provision", "/v1/unprovision"] {
        let done = api.run(operation, &storage).await;
        assert_eq!(done["status"], "FAILED", "{done:#}");
        let said = done["result"].as_str().unwrap();
        assert_eq!(
            without_place(said),
            "dataProduct.components[0].kind: this component exists as `outputport`: `storage`"
        );
    }
    assert_eq!(server.resources().await.tables.len(), 1);
    api.complete("/v1/unprovision", &good).await;
    assert!(server.resources().await.tables.is_empty());
    // A removal of the data under another kind fails, because it would leave the kept data behind.
    api.provision_and_wait(&good).await;
    let keeping = |mut request: Value| {
        request["removeData"] = json!(false);
        request
    };
    api.complete("/v1/unprovision", &keeping(good.clone())).await;
    let done = api.run("/v1/unprovision", &storage).await;
    assert_eq!(done["status"], "FAILED", "{done:#}");
    api.complete("/v1/unprovision", &keeping(storage.clone())).await;
    api.complete("/v1/unprovision", &good).await;
    assert!(server.resources().await.files.iter().all(|(path, _)| !path.starts_with("tables")));
    let again = api.complete("/v1/unprovision", &storage).await;
    assert_eq!(again["result"], "unprovisioned: 1 component, nothing to change");
    // Simulates a store that has lost the component.
    api.provision_and_wait(&good).await;
    query_write(&server.data_dir().join("landfall.db"), "DELETE FROM deployment").await;
    let done = api.run("/v1/unprovision", &storage).await;
    assert_eq!(done["status"], "FAILED", "{done:#}");
    api.complete("/v1/unprovision", &good).await;
    api.provision_and_wait(&storage).await;
    assert_eq!(server.resources().await.buckets().len(), 1);
    api.complete("/v1/unprovision", &good).await;
    assert!(server.resources().await.buckets().is_empty());
}

/// Component ids may be any text, so two data products may use the same component id. An existing resource
/// belongs to one of the two.
#[tokio::test]
async fn component_of_another_data_product_is_refused() {
    let server =
        Landfall::with().config(CONFIG).env("FIELD_POSTGRESQL", "postgres://x@127.0.0.1:1/x").start();
    let api = server.api();
    let good = port("COMPONENT_DESCRIPTOR", "", "", ("", ""));
    let mut other = good.clone();
    let text = good["descriptor"].as_str().unwrap();
    other["descriptor"] = json!(text.replace("urn:dmb:dp:sales:orders:0", "urn:dmb:dp:sales:returns:0"));
    api.provision_and_wait(&good).await;
    let expected = format!(
        "dataProduct.components[0].id: this component is provisioned in data product `urn:dmb:dp:sales:orders:0`, and this is \
         another one: `{PORT}`"
    );
    let validated = api.validate(&other).await;
    assert_eq!(without_place(validated["error"]["errors"][0].as_str().unwrap()), expected, "{validated:#}");
    let remedy = "give the component an identifier of its own, or unprovision it there first";
    assert_eq!(validated["error"]["moreInfo"]["solutions"], json!([remedy]));
    let access = json!({ "refs": [], "provisionInfo": { "request": other["descriptor"], "result": "" } });
    for (path, body) in [("/v1/provision", &other), ("/v1/unprovision", &other), ("/v1/updateacl", &access)] {
        let refused = api.post(path, body).await;
        refused.with_status(400);
        assert!(refused.text.contains("is provisioned in data product"), "{path}: {}", refused.text);
    }
    assert_eq!(server.resources().await.tables.len(), 1);

    // After an unprovision that keeps the data, the data stays in the first data product. The other data
    // product can then provision the component.
    let mut keeping = good.clone();
    keeping["removeData"] = json!(false);
    api.complete("/v1/unprovision", &keeping).await;
    let made = api.provision_and_wait(&other).await;
    let told = made["logs"].to_string();
    assert!(told.contains("data of this component was kept on target `LAKE`"), "{told}");
    let name = |tables: &[(String, std::path::PathBuf)]| {
        tables.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(name(&server.resources().await.tables), ["sales__returns__0__development.orders"]);
    api.complete("/v1/unprovision", &other).await;
    api.provision_and_wait(&good).await;
    assert_eq!(name(&server.resources().await.tables), ["sales__orders__0__development.orders"]);

    // Simulates an earlier version, which did not store the data product.
    query_write(&server.data_dir().join("landfall.db"), "UPDATE deployment SET product = NULL").await;
    assert_eq!(api.validate(&other).await["valid"], true);
}

fn port_without_table(mut request: Value) -> Value {
    let text = request["descriptor"].as_str().unwrap().replace("specific: {table: orders}", "specific: {}");
    request["descriptor"] = json!(text);
    request
}
