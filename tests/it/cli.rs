//! The command line: what it prints, and the exit codes that `landfall --help` promises.
//!
//! 0 done; 1 the operation failed or was stopped; 2 wrong usage or configuration; 3 the request is not valid;
//! 4 the server cannot be reached or failed.

use serde_json::json;

use crate::auth::{cheap_hash, with_users};
use crate::contract::SLOW;
use crate::harness::{
    CommandOutput, Landfall, OUTPUT_PORT, STORAGE, WORKLOAD, cashflow, component_descriptor, landfall,
    product_request, replace_once,
};
use crate::postgres::PostgresServer;

const EXAMPLE: &str = "examples/cashflow.yaml";

/// Runs a command against this server.
fn run_on(server: &Landfall, arguments: &[&str]) -> CommandOutput {
    landfall(arguments.iter().copied().chain(["--url", server.api().url()]))
}

/// Writes a descriptor file for the test, and returns its path.
fn file(server: &Landfall, text: &str) -> String {
    let path = server.scratch().join("descriptor.yaml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn cli_deploys_imports_and_undeploys_a_data_product() {
    let server = Landfall::start();

    let plan = run_on(&server, &["plan", EXAMPLE]).with_code(0);
    assert!(plan.out.contains("finance-cashflows"), "{plan:?}");
    assert_eq!(server.resources().await.files, [], "a plan changes nothing");

    let deployed = run_on(&server, &["deploy", EXAMPLE]).with_code(0);
    let place = |id: &str| deployed.out.find(id).unwrap_or_else(|| panic!("{id}: {deployed:?}"));
    assert!(place(STORAGE) < place(WORKLOAD), "in the order of dependencies: {deployed:?}");
    assert!(deployed.out.contains("COMPLETED"), "{deployed:?}");
    assert!(!deployed.out.contains('\u{1b}'), "no terminal, no escape sequences: {deployed:?}");
    let resources = server.resources().await;
    resources.only_table();

    let plan = run_on(&server, &["plan", EXAMPLE, "--json"]).with_code(0).json();
    for component in plan["components"].as_array().unwrap() {
        assert_eq!(component["changes"], json!([]), "nothing is left to do: {component:#}");
    }

    let acl = [
        "acl",
        EXAMPLE,
        "--component",
        OUTPUT_PORT,
        "--ref",
        "user:alice_mydomain.com",
        "--ref",
        "group:dev",
    ];
    let granted = run_on(&server, &acl).with_code(0);
    assert!(granted.out.contains("recorded, not enforced"), "{granted:?}");
    assert!(server.resources().await.only_table()["properties"].to_string().contains("alice"));

    let (namespace, table) = resources.tables[0].0.rsplit_once('.').unwrap();
    let (namespace, table) = (format!("namespace={namespace}"), format!("table={table}"));
    let mut import = vec!["import", "--template", "urn:dmb:utm:output-port-template:1.0.0"];
    import.extend(["--environment", "production", "--param", &namespace, "--param", &table]);
    let imported = run_on(&server, &import).with_code(0);
    assert!(imported.out.contains("spec.mesh.dataContract.schema"), "{imported:?}");
    assert!(imported.out.contains("counterpartyId"), "{imported:?}");
    let folder = tempfile::tempdir().unwrap();
    let entry = folder.path().join("catalog-info.yaml");
    let contract = "apiVersion: v3.1.0, kind: DataContract, schema: [{name: t, properties: []}]";
    std::fs::write(&entry, format!("spec: {{mesh: {{dataContract: {{{contract}}}}}}}")).unwrap();
    import.extend(["--catalog-info", entry.to_str().unwrap()]);
    let imported = run_on(&server, &import).with_code(0);
    assert!(imported.out.contains("logicalType"), "in the shape of the entry: {imported:?}");
    std::fs::write(&entry, "- spec").unwrap();
    let refused = run_on(&server, &import).with_code(2);
    assert!(refused.err.contains("catalog-info.yaml: is not a mapping in YAML: "), "{refused:?}");

    run_on(&server, &["undeploy", EXAMPLE, "--remove-data"]).with_code(0);
    let left = server.resources().await;
    assert!(left.tables.is_empty() && left.files.is_empty(), "{left:#?}");
}

#[tokio::test]
async fn component_option_deploys_one_component() {
    let server = Landfall::start();
    let deployed =
        run_on(&server, &["deploy", EXAMPLE, "--component", STORAGE, "--json"]).with_code(0).json();
    let components = deployed["components"].as_array().unwrap();
    assert_eq!(components.len(), 1, "{deployed:#}");
    assert_eq!(components[0]["id"], STORAGE);
    assert_eq!(components[0]["status"]["status"], "COMPLETED");
    assert_eq!(server.resources().await.buckets(), ["finance-cashflows"]);

    let token = components[0]["token"].as_str().unwrap();
    let status = run_on(&server, &["status", token, "--json"]).with_code(0).json();
    assert_eq!(status["status"], "COMPLETED", "{status:#}");
}

#[tokio::test]
async fn url_option_may_contain_a_base_path() {
    let server = Landfall::start();
    let url = format!("{}/datamesh.specificprovisioner/", server.api().url());
    landfall(["deploy", EXAMPLE, "--component", STORAGE, "--url", &url]).with_code(0);
}

#[tokio::test]
async fn stop_command_terminates_the_task() {
    let server = Landfall::with().config(SLOW).start();
    let token = server.api().post("/v1/provision", &product_request(&cashflow())).await.token();
    run_on(&server, &["stop", &token]).with_code(0);
    assert_eq!(server.api().wait(&token).await["status"], "TERMINATED");
    let status = run_on(&server, &["status", &token]).with_code(1);
    assert!(status.out.contains("TERMINATED"), "{status:?}");
}

#[tokio::test]
async fn failed_operation_exits_with_code_1() {
    let server = Landfall::start();
    let foreign = server.data_dir().join("warehouse/buckets/finance-cashflows");
    std::fs::create_dir_all(&foreign).unwrap();
    std::fs::write(foreign.join("theirs.txt"), "not ours").unwrap();
    let deployed = run_on(&server, &["deploy", EXAMPLE, "--component", STORAGE]).with_code(1);
    assert!(deployed.out.contains("FAILED"), "{deployed:?}");
}

#[tokio::test]
async fn invalid_descriptor_exits_with_code_3_and_lists_problems() {
    let server = Landfall::start();
    let wrong = replace_once(&cashflow(), "dataType: number", "dataType: numbr");
    let wrong = replace_once(&wrong, "bucket: finance-cashflows", "bucket: Finance_Cashflows");
    let path = file(&server, &wrong);
    run_on(&server, &["undeploy", &path]).with_code(3);
    for command in ["deploy", "plan"] {
        let refused = run_on(&server, &[command, &path]).with_code(3);
        for told in
            ["components[0].dataContract.schema[2].dataType", "numbr", "components[2].specific.bucket"]
        {
            assert!(refused.err.contains(told), "{command}: `{told}` is not in {}", refused.err);
        }
    }
    let offline = landfall(["validate", &path]).with_code(3);
    assert!(offline.err.contains("components[0].dataContract.schema[2].dataType"), "{offline:?}");
    let report = landfall(["validate", &path, "--json"]).with_code(3).json();
    assert_eq!(report["valid"], false);
    assert!(report["problems"].as_array().unwrap().len() >= 2, "{report:#}");
}

#[tokio::test]
async fn unknown_token_exits_with_code_3() {
    let server = Landfall::start();
    for command in ["status", "stop"] {
        let refused = run_on(&server, &[command, "3da5d0a2-9f3b-4a11-85a3-b5ddb73da032"]).with_code(3);
        assert!(refused.err.contains("token"), "{refused:?}");
    }
}

#[test]
fn validate_command_needs_no_server() {
    let valid = landfall(["validate", EXAMPLE]).with_code(0);
    assert!(valid.out.contains("valid"), "{valid:?}");
    assert_eq!(landfall(["validate", EXAMPLE, "--json"]).with_code(0).json()["valid"], true);
    landfall(["validate", EXAMPLE, "--component", STORAGE]).with_code(0);
    landfall(["validate", EXAMPLE, "--component", "urn:dmb:cmp:finance:cashflow:0:nobody"]).with_code(3);
}

#[tokio::test]
async fn commands_accept_product_and_component_descriptors() {
    let server = Landfall::start();
    let path = file(&server, &component_descriptor(&cashflow(), STORAGE));
    let valid = landfall(["validate", &path]).with_code(0);
    assert_eq!(valid.out, format!("valid: `{STORAGE}` is routed here\n"));
    let other = landfall(["validate", &path, "--component", WORKLOAD, "--json"]).with_code(0).json();
    assert_eq!(other["components"], json!([WORKLOAD]));
    let nobody = landfall(["validate", &path, "--component", "nobody"]).with_code(3);
    assert!(nobody.err.contains("componentIdToProvision: the data product has no such component: `nobody`"));

    let explained = run_on(&server, &["topology", "explain", &path, "--json"]).with_code(0).json();
    assert_eq!(explained["components"][0]["id"], STORAGE);
    let planned = run_on(&server, &["plan", &path, "--json"]).with_code(0).json();
    assert_eq!(planned["components"].as_array().unwrap().len(), 1, "{planned:#}");
    let deployed = run_on(&server, &["deploy", &path]).with_code(0);
    assert!(deployed.out.contains(STORAGE) && !deployed.out.contains(WORKLOAD), "{deployed:?}");
    run_on(&server, &["acl", &path, "--component", STORAGE, "--ref", "user:a_b.c"]).with_code(0);
    run_on(&server, &["deploy", &path, "--component", WORKLOAD]).with_code(0);
    run_on(&server, &["undeploy", &path]).with_code(0);
}

#[tokio::test]
async fn unrouted_components_are_listed_with_the_nearest_route() {
    let server = Landfall::start();
    let typo = replace_once(&cashflow(), "technology: Spark", "technolgy: Spark");
    let path = file(&server, &typo);
    let expected = format!(
        "left to another adapter: {WORKLOAD}: no route leads here from technology `(none)`, kind `workload`, \
         infrastructureTemplateId `urn:dmb:itm:workload-provisioner:1`; did you mean `technology` by `technolgy`? then the \
         route is: technology Spark, kind workload -> mock"
    );
    let valid = landfall(["validate", &path]).with_code(0);
    assert_eq!(valid.out, format!("valid: 2 of 3 components are routed here\n{expected}\n"));
    let report = landfall(["validate", &path, "--json"]).with_code(0).json();
    assert_eq!(report["skipped"][0]["id"], WORKLOAD, "{report:#}");
    for command in ["plan", "deploy", "undeploy"] {
        let told = run_on(&server, &[command, &path]).with_code(0);
        assert!(told.out.contains(&expected), "{command}: {told:?}");
        let report = run_on(&server, &[command, &path, "--json"]).with_code(0).json();
        assert_eq!(report["skipped"][0]["id"], WORKLOAD, "{command}: {report:#}");
    }
}

#[test]
fn wrong_usage_exits_with_code_2() {
    let missing = landfall(["validate", "no/such/file.yaml"]).with_code(2);
    assert!(missing.err.contains("no/such/file.yaml"), "{missing:?}");
    for arguments in [
        vec![],
        vec!["dploy", EXAMPLE],
        vec!["deploy"],
        vec!["deploy", EXAMPLE, "--no-such-flag"],
        vec!["acl", EXAMPLE],
        vec!["import", "--template", "x"],
        vec!["import", "--template", "x", "--environment", "y", "--param", "no-equals-sign"],
    ] {
        landfall(arguments).with_code(2);
    }
}

#[test]
fn invalid_configuration_exits_with_code_2_and_lists_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("landfall.toml");
    let text = "[server]\nlistn = \"127.0.0.1:0\"\nrespond_within = \"soon\"\n[store]\nurl = \"mysql://x\"\n";
    std::fs::write(&path, text).unwrap();
    let refused = landfall(["serve", "--config", path.to_str().unwrap()]).with_code(2);
    for told in
        ["server.listn", "server.respond_within", "soon", "store.url: a URL with `mysql` is not supported"]
    {
        assert!(refused.err.contains(told), "`{told}` is not in {}", refused.err);
    }
    landfall(["serve", "--config", "no/such/file.toml"]).with_code(2);
}

/// A start that fails leaves no files, and its error lists every mistake of every key and file.
#[tokio::test]
async fn invalid_configuration_creates_no_store() {
    let folder = tempfile::tempdir().unwrap();
    let (taken, data) = (folder.path().join("taken"), folder.path().join("data"));
    std::fs::write(&taken, "no folder, no certificate, no table: [").unwrap();
    let taken = taken.display().to_string();
    let wrong = format!(
        r#"
[server]
listen = "127.0.0.1:http"

[identity.people]
kind = "table"
file = "{taken}"

[identity.corporate]
kind = "ldap"
url = "ldaps://directory.example.com"
user_base = "dc=example,dc=com"
bind_dn = "cn=x"
bind_password = {{ env = "NOT_SET" }}
ca_file = "{taken}"

[targets.LAKE]
driver = "lakehouse"
warehouse = "file://{taken}/warehouse"

[targets.ODD]
driver = "lakehouse"
warehouse = "file://{{data_dir}}/50%"
catalog = "sqlite://{}"

[targets.PG]
driver = "postgresql"
url = {{ file = "/no/such/secret" }}
identity = ["people", "corporate"]

[targets.PG_TLS]
driver = "postgresql"
url = {{ env = "PG_URL" }}

[targets.GREEN]
driver = "mock"
trace = "file://{taken}/trace.jsonl"
"#,
        folder.path().display(),
    );
    let mistakes = [
        "server.listen: cannot listen on `127.0.0.1:http`: ",
        "identity.people.file: the table of identities cannot be used: ",
        "identity.corporate.bind_password.env: the variable `NOT_SET` is not set, or empty",
        "identity.corporate.ca_file: `",
        "targets.LAKE.warehouse: `",
        "targets.ODD.warehouse: `",
        "targets.ODD.catalog: `",
        "targets.PG.url.file: `/no/such/secret` cannot be read: ",
        "targets.PG_TLS.url: sslrootcert: `",
        "targets.GREEN.trace: `",
    ];
    let pg_url = format!("postgres://u@db.example.com/d?sslmode=verify-full&sslrootcert={taken}");
    let path = folder.path().join("landfall.toml");
    let start = |text: &str, store: &str| {
        std::fs::write(&path, text).unwrap();
        let environment = [("PG_URL", pg_url.as_str()), ("LANDFALL__STORE__URL", store)];
        let arguments = ["serve", "--config", path.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
        crate::harness::landfall_with(&environment, "", arguments).with_code(2)
    };
    let postgres = PostgresServer::shared().unwrap();
    let url = postgres.new_database().unwrap();
    let database = url.rsplit('/').next().unwrap().split('?').next().unwrap().to_owned();
    for store in ["sqlite://{data_dir}/landfall.db", url.as_str()] {
        let refused = start(&wrong, store);
        for told in mistakes {
            assert!(refused.err.contains(told), "`{told}` is not in {}", refused.err);
        }
        assert_eq!(refused.err.lines().count(), mistakes.len(), "{}", refused.err);
        assert!(!data.exists(), "a folder was made");
    }
    // A single mistake is enough.
    let keys = "[server]\nlisten = \"127.0.0.1:0\"\n";
    for (text, store) in [
        (
            format!("{keys}[targets.L]\ndriver = \"lakehouse\"\nwarehouse = \"file://{taken}/w\"\n"),
            url.as_str(),
        ),
        (format!("{keys}lisen = 1\n"), url.as_str()),
        (keys.to_owned(), "postgres://u@host:port/d"),
        (keys.to_owned(), "postgres://u@host/d?sslmode=verify-full&sslrootcert=/no/such/file"),
        (keys.to_owned(), &format!("sqlite://{taken}/landfall.db")),
        (keys.to_owned(), "sqlite://landfall.db?mode=memory"),
    ] {
        let refused = start(&text, store);
        assert_eq!(refused.err.lines().count(), 1, "{}", refused.err);
        assert!(!data.exists(), "a folder was made");
    }
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'landfall'";
    assert_eq!(postgres.psql_in(&database, schemas).unwrap(), [[Some("0".to_owned())]]);
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "nothing but what the test made: {names:?}");
}

#[test]
fn unreachable_server_exits_with_code_4() {
    // No server listens on port 1.
    let lost = landfall(["deploy", EXAMPLE, "--url", "http://127.0.0.1:1"]).with_code(4);
    assert!(lost.err.contains("127.0.0.1:1"), "{lost:?}");
}

#[test]
fn occupied_port_is_named_in_the_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let refused = landfall(["serve", "--listen", &address, "--data-dir", data]).with_code(4);
    assert!(refused.err.contains(&address), "{refused:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "no store was made");
}

#[test]
fn help_explains_every_command_and_the_exit_codes() {
    let help = landfall(["--help"]).with_code(0).out;
    for word in [
        "serve",
        "deploy",
        "plan",
        "undeploy",
        "acl",
        "import",
        "status",
        "stop",
        "validate",
        "hash-password",
        "Exit",
    ] {
        assert!(help.contains(word), "`{word}` is not in {help}");
    }
}

// ---- --json --------------------------------------------------------------------------------------------------------

/// The JSON document of a failed command. Stdout contains nothing else, and `errors` has the reasons.
#[track_caller]
fn expect_failure(finished: CommandOutput, code: i32) -> serde_json::Value {
    let finished = finished.with_code(code);
    let document = finished.json();
    assert_eq!(finished.out, format!("{document:#}\n"));
    let errors = document["errors"].as_array().unwrap_or_else(|| panic!("no errors: {finished:?}"));
    assert!(!errors.is_empty(), "{finished:?}");
    if code != 1 {
        let lines: String =
            errors.iter().map(|error| format!("error: {}\n", error.as_str().unwrap())).collect();
        assert_eq!(finished.err, lines, "stderr has the same errors");
    }
    document
}

/// Every command that talks to a server, with arguments that it takes.
fn remote_commands(file: &str) -> Vec<Vec<&str>> {
    let token = "3da5d0a2-9f3b-4a11-85a3-b5ddb73da032";
    vec![
        vec!["plan", file],
        vec!["deploy", file],
        vec!["deploy", file, "--component", STORAGE],
        vec!["undeploy", file],
        vec!["undeploy", file, "--component", STORAGE, "--remove-data"],
        vec!["acl", file, "--component", STORAGE],
        vec!["import", "--template", "urn:dmb:utm:output-port-template:1.0.0", "--environment", "production"],
        vec!["status", token],
        vec!["stop", token],
        vec!["topology", "list"],
        vec!["topology", "set", "LOCAL_LAKE", "--active", "false"],
        vec!["topology", "explain", file],
    ]
}

#[test]
fn json_output_without_a_server_is_one_document() {
    for arguments in remote_commands(EXAMPLE) {
        let all = |more: &[&'static str]| {
            landfall(arguments.iter().copied().chain(["--json"]).chain(more.iter().copied()))
        };
        let lost = expect_failure(all(&["--url", "http://127.0.0.1:1"]), 4);
        assert!(
            lost["errors"][0].as_str().unwrap().starts_with("http://127.0.0.1:1: "),
            "{arguments:?}: {lost:#}"
        );
        for (url, why) in [
            ("nowhere", "relative URL without a base"),
            ("http://", "empty host"),
            ("localhost:8093", "it is neither http nor https"),
        ] {
            let usage = expect_failure(all(&["--url", url]), 2);
            let expected = json!({ "errors": [format!("--url `{url}`: {why}; write http://HOST:PORT")] });
            assert_eq!(usage["errors"], expected["errors"], "{arguments:?}");
        }
    }
}

#[test]
fn json_output_for_invalid_files_is_one_document() {
    let missing = "no/such/file.yaml";
    let mut commands: Vec<_> =
        remote_commands(missing).into_iter().filter(|it| it.contains(&missing)).collect();
    commands.push(vec!["validate", missing]);
    for arguments in commands {
        let report = expect_failure(landfall(arguments.iter().copied().chain(["--json"])), 2);
        let expected = json!({ "errors": ["no/such/file.yaml: No such file or directory (os error 2)"] });
        assert_eq!(report, expected, "{arguments:?}");
    }
    let binary = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(binary.path(), b"\xff").unwrap();
    let path = binary.path().to_str().unwrap();
    let report = expect_failure(landfall(["validate", path, "--json"]), 2);
    assert_eq!(report, json!({ "errors": [format!("{path}: is not UTF-8 text")] }));

    let config = expect_failure(landfall(["validate", EXAMPLE, "--json", "--config", "no/such.toml"]), 2);
    assert!(config["errors"][0].as_str().unwrap().contains("no/such.toml"), "{config:#}");
    for arguments in remote_commands(EXAMPLE) {
        let (flag, user): (_, &[&str]) = match arguments[..2] {
            ["topology", "list" | "set"] => ("--password-file", &["--user", "ops"]),
            _ => ("--token-file", &[]),
        };
        let more = ["--json", flag, "no/secret"].into_iter().chain(user.iter().copied());
        let report = expect_failure(landfall(arguments.iter().copied().chain(more)), 2);
        let expected = json!({ "errors": ["no/secret: No such file or directory (os error 2)"] });
        assert_eq!(report, expected, "{arguments:?}");
    }
    assert_eq!(
        expect_failure(landfall(["topology", "set", "X", "--json"]), 2),
        json!({ "errors": ["nothing to set; see `landfall topology set --help`"] })
    );
}

/// The parser reports invalid arguments before it knows about `--json`.
#[test]
fn invalid_arguments_print_no_json_document() {
    for arguments in
        [vec!["deploy", "--json"], vec!["status", "--json"], vec!["plan", EXAMPLE, "--json", "--jsn"]]
    {
        let refused = landfall(arguments).with_code(2);
        assert_eq!(refused.out, "", "{refused:?}");
        assert!(refused.err.starts_with("error: "), "{refused:?}");
    }
}

#[tokio::test]
async fn json_output_of_refused_requests_is_one_document() {
    let server = Landfall::start();
    let wrong = replace_once(&cashflow(), "bucket: finance-cashflows", "bucket: Finance_Cashflows");
    let path = file(&server, &wrong);
    let json = |arguments: &[&str]| run_on(&server, &[arguments, &["--json"]].concat());

    let local = expect_failure(json_locally(&["validate", &path]), 3);
    let problem = local["problems"][0].as_str().unwrap();
    assert!(problem.starts_with("components[2].specific.bucket"), "{local:#}");
    assert_eq!(local, json!({ "valid": false, "problems": [problem], "errors": [problem] }));
    let local = expect_failure(json_locally(&["validate", EXAMPLE, "--component", "nobody"]), 3);
    assert_eq!(local["problems"], local["errors"], "{local:#}");

    for arguments in remote_commands(&path).into_iter().filter(|it| it.contains(&path.as_str())) {
        // These commands do not fail for the invalid bucket of this component.
        if ["acl", "undeploy", "topology"].contains(&arguments[0]) {
            continue;
        }
        let refused = expect_failure(json(&arguments), 3);
        let errors: Vec<String> = serde_json::from_value(refused["errors"].clone()).unwrap();
        assert!(errors[0].contains("specific.bucket") && errors[1].starts_with("remedy: "), "{refused:#}");
    }
    let nobody = "componentIdToProvision: the data product has no such component: `nobody`";
    for arguments in
        [["deploy", EXAMPLE, "--component", "nobody"], ["undeploy", EXAMPLE, "--component", "nobody"]]
    {
        let refused = expect_failure(json(&arguments), 3);
        assert!(refused["errors"][0].as_str().unwrap().starts_with(nobody), "{refused:#}");
        assert_eq!(
            (&refused["components"], &refused["skipped"]),
            (&json!([]), &json!([])),
            "nothing was done"
        );
    }
    let refused = expect_failure(json(&["acl", EXAMPLE, "--component", "nobody"]), 3);
    let said = refused["errors"][0].as_str().unwrap();
    assert!(said.starts_with(&format!("provisionInfo.request.{nobody}")), "{refused:#}");
    let refused = expect_failure(json(&["acl", EXAMPLE, "--component", STORAGE, "--ref", "robot:r2d2"]), 3);
    assert!(refused["errors"][0].as_str().unwrap().starts_with("refs[0]: "), "{refused:#}");

    let token = "3da5d0a2-9f3b-4a11-85a3-b5ddb73da032";
    for command in ["status", "stop"] {
        let unknown = expect_failure(json(&[command, token]), 3);
        let expected = json!({ "errors": [
            format!("token: no provisioning task has this token, or it has expired: `{token}`"),
            "remedy: poll with the token that the 202 answer gave; start the operation again if it has expired",
        ] });
        assert_eq!(unknown, expected, "{command}");
    }
    let unknown = expect_failure(json(&["topology", "set", "nobody", "--active", "true"]), 3);
    let said = unknown["errors"][0].as_str().unwrap();
    assert!(said.starts_with("no instance has the code `nobody`; use one of: "), "{unknown:#}");
    let unplaced =
        file(&server, &replace_once(&cashflow(), "environment: production", "environment: nowhere"));
    let explained = expect_failure(json(&["topology", "explain", &unplaced]), 3);
    assert_eq!(explained["components"].as_array().unwrap().len(), 3, "the whole explanation: {explained:#}");
}

fn json_locally(arguments: &[&str]) -> CommandOutput {
    landfall(arguments.iter().copied().chain(["--json"]))
}

#[tokio::test]
async fn json_output_without_credentials_is_one_document() {
    let tokens = "[[auth.tokens]]\nname = \"one\"\nhash = { env = \"TOKEN_HASH\" }\n";
    let server = with_users(tokens).env("TOKEN_HASH", &cheap_hash("right")).start();
    let url = server.api().url();
    for arguments in remote_commands(EXAMPLE) {
        let refused = expect_failure(run_on(&server, &[&arguments, &["--json"][..]].concat()), 4);
        let expected = match arguments[..2] {
            ["topology", "list" | "set"] => format!(
                "{url}: a user is needed: send `Authorization: Basic` with a name and a password; name a user with --user, \
                 and set LANDFALL_PASSWORD or name a file with --password-file"
            ),
            _ => format!(
                "{url}: the server does not know who calls (401); set LANDFALL_TOKEN to a token that it knows, or name a \
                 file with --token-file"
            ),
        };
        assert_eq!(refused["errors"], json!([expected]), "{arguments:?}");
    }
}

/// A mock that cannot write its trace fails.
const BROKEN_WORKLOAD: &str = r#"
[operations]
retry_for = "1ms"
[targets.LAKE]
driver = "lakehouse"
warehouse = "file://{data_dir}/warehouse"
catalog = "sqlite://{data_dir}/catalog.db"
[targets.MOCK]
driver = "mock"
steps = 1
trace = "file://{data_dir}/no/such/folder/trace"
[[routes]]
technology = "S3"
group = "lakehouse"
[[routes]]
technology = "Spark"
group = "mock"
"#;

/// The last of three components fails. The document has the completed components and the token of the failed one.
#[tokio::test]
async fn json_output_of_a_failure_lists_completed_components() {
    let server = Landfall::with().config(BROKEN_WORKLOAD).start();
    let json = |arguments: &[&str]| run_on(&server, &[arguments, &["--json"]].concat());
    let acl = expect_failure(json(&["acl", EXAMPLE, "--component", OUTPUT_PORT, "--ref", "user:a_b.c"]), 1);
    assert_eq!(acl["status"]["status"], "FAILED", "{acl:#}");
    let reason = acl["status"]["result"].as_str().unwrap();
    assert_eq!(acl["errors"], json!([format!("{OUTPUT_PORT}: FAILED: {reason}")]));

    let deployed = expect_failure(json(&["deploy", EXAMPLE]), 1);
    let components = deployed["components"].as_array().unwrap();
    let ids: Vec<_> = components.iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [OUTPUT_PORT, STORAGE, WORKLOAD]);
    for done in &components[..2] {
        assert_eq!(done["status"]["status"], "COMPLETED", "{deployed:#}");
    }
    let last = &components[2];
    let reason = last["status"]["result"].as_str().unwrap();
    assert_eq!(deployed["errors"], json!([format!("{WORKLOAD}: FAILED: {reason}")]));
    assert_eq!(deployed["skipped"], json!([]));
    let token = last["token"].as_str().unwrap();
    let status = expect_failure(json(&["status", token]), 1);
    assert_eq!(status["errors"], json!([format!("{token}: FAILED: {reason}")]));
    assert_eq!(status["status"], "FAILED");

    let mut import = vec!["import", "--template", "urn:dmb:utm:output-port-template:1.0.0"];
    import.extend(["--environment", "production", "--param", "namespace=nobody", "--param", "table=nothing"]);
    let imported = expect_failure(json(&import), 1);
    assert_eq!((&imported["status"], &imported["updates"]), (&json!("FAILED"), &json!({})));
    assert!(imported["errors"][0].as_str().unwrap().starts_with("FAILED: "), "{imported:#}");
}

/// `status` and `stop` accept a token with JSON quotes, and in upper case.
#[tokio::test]
async fn cli_accepts_quoted_and_uppercase_tokens() {
    let server = Landfall::start();
    let token = server.api().post("/v1/provision", &product_request(&cashflow())).await.token();
    server.api().wait(&token).await;
    for spelling in [format!("\"{token}\""), token.to_uppercase()] {
        let status = run_on(&server, &["status", &spelling, "--json"]).with_code(0).json();
        assert_eq!(status["status"], "COMPLETED", "{spelling}");
        run_on(&server, &["stop", &spelling]).with_code(0);
    }
    run_on(&server, &["status", &format!("\"{token}")]).with_code(3);
}
