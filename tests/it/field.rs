//! Documents in the shapes that control planes and teams send, each with the verdict that it must get, from every
//! contract. `tests/corpus/field/README.md` says how to add one: a file with its verdict is enough.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{AIRBYTE, Api, Landfall, PREFIX, messages, repository, walk};

/// What the documents are judged by: two technologies that run anywhere, and one that is only asked what it checks.
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

/// A document and what is expected of it, from the comments that it begins with.
#[derive(Default)]
struct Case {
    path: PathBuf,
    text: String,
    valid: bool,
    /// What is wrong, in order, without line and column.
    problems: Vec<String>,
    /// Parts of what is to be done about it.
    remedies: Vec<String>,
    /// Components that are left to other adapters, each with a part of the reason.
    left: Vec<(String, String)>,
    /// Nothing but `validate` is asked.
    only_validate: bool,
    /// The status of an unprovision of what is not valid.
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

    /// The file as it would have to be for these problems to be expected.
    fn rewritten(&self, problems: &[String]) -> String {
        let is_problem = |line: &&str| !line.starts_with("# problem: ");
        let mut lines: Vec<String> = self.text.lines().filter(is_problem).map(str::to_owned).collect();
        let at = lines.iter().position(|line| line == "# invalid").map_or(0, |at| at + 1);
        lines.splice(at..at, problems.iter().map(|problem| format!("# problem: {problem}")));
        lines.join("\n") + "\n"
    }
}

/// The same without the place, which a line more would move.
fn without_place(problem: &str) -> String {
    match problem.rfind(" (line ") {
        Some(end) if problem.ends_with(')') => problem[..end].to_owned(),
        _ => problem.to_owned(),
    }
}

/// A contract, as these tests call it.
struct Contract {
    prefix: &'static str,
    /// What comes before the name of an operation.
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

    /// Whether the document is valid, and what is wrong with it, in the words that all contracts share.
    async fn verdict(&self, api: &Api, case: &Case) -> (bool, Vec<String>, String) {
        let answer = api.post(&self.path("validate"), &case.request(false)).await.with_status(200).json();
        let strings = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().filter_map(|it| it.as_str().map(str::to_owned)).collect()
        };
        let errors = strings(&answer["error"]["errors"]);
        let remedies = strings(&answer["error"]["moreInfo"]["solutions"]).join("\n");
        let problems = if self.is_airbyte() {
            // The remedy is behind a semicolon there: what comes before it ends with the place.
            errors.iter().map(|error| without_place(error.split("); ").next().unwrap_or(error))).collect()
        } else {
            errors.iter().map(|error| without_place(error)).collect()
        };
        (answer["valid"] == true, problems, if self.is_airbyte() { errors.join("\n") } else { remedies })
    }
}

/// The first of what the two differ in, if anything.
fn difference(expected: &[String], actual: &[String]) -> Option<String> {
    let cut = |text: &String| text.split(" (line ").next().unwrap_or(text).to_owned();
    let actual: Vec<String> = actual.iter().map(cut).collect();
    (expected != actual).then(|| format!("expected {expected:#?}, got {actual:#?}"))
}

#[tokio::test]
async fn documents_of_the_field_get_their_verdicts_everywhere() {
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
            if let Err(what) = operations(&api, contract, case).await {
                told(what);
            }
        }
        if let Err(what) = left(server.api(), case).await {
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

/// What is valid goes all the way and back; what is not is refused, and may still have to go.
async fn operations(api: &Api, contract: &Contract, case: &Case) -> Result<(), String> {
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
                ended(api, contract, "unprovision", &answer.token()).await?;
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
    // The last one leaves nothing to the next document.
    steps.push(("unprovision", case.request(contract.prefix.is_empty())));
    for (operation, body) in steps {
        let answer = api.post(&contract.path(operation), &body).await;
        if answer.status != 202 {
            return Err(format!("{operation} answers {}: {}", answer.status, answer.text));
        }
        ended(api, contract, operation, &answer.token()).await?;
    }
    Ok(())
}

async fn ended(api: &Api, contract: &Contract, operation: &str, token: &str) -> Result<(), String> {
    let status = api.wait_at(&contract.path("provision"), token).await;
    if status["status"] == "COMPLETED" { Ok(()) } else { Err(format!("{operation} ended: {status:#}")) }
}

/// What is left to other adapters is listed by a dry run and in the log.
async fn left(api: &Api, case: &Case) -> Result<(), String> {
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

/// The short form of an unprovision says no environment: that of ours is known, and a neighbour's is not asked.
#[tokio::test]
async fn a_short_form_goes_whatever_its_neighbours_are() {
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

/// A caller may serialise what it does not set as null.
#[tokio::test]
async fn a_null_remove_data_means_false() {
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
