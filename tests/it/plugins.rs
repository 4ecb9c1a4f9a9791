//! Plug-ins over HTTP, and which of their processes and checkpoints remain after kill -9 of the server.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{
    Api, Landfall, OUTPUT_PORT, acl_request, cashflow, component_request, messages, replace_once, repository,
};

/// A variable that every process of a plug-in inherits, and no other process has.
const MARK: &str = "LANDFALL_IT_PLUGIN";

/// A target for output ports with the program in a file.
fn config(program: &Path, folder: &Path) -> String {
    format!(
        "[targets.PORTS]\ndriver = \"exec\"\ncommand = [{program:?}]\ngrace = \"1s\"\n\
         [targets.PORTS.env]\n{MARK} = {folder:?}\n\
         [targets.PORTS.settings]\nfolder = {folder:?}\n\
         [targets.MOCK]\ndriver = \"mock\"\n\
         [[routes]]\nkind = \"outputport\"\ngroup = \"exec\"\n\
         [[routes]]\nkind = \"storage\"\ngroup = \"mock\"\n"
    )
}

/// A bash script as a plug-in, which finds its folder in `$here`.
fn script(folder: &Path, code: &str) -> PathBuf {
    let path = folder.join("plugin.sh");
    let describe = r#"{"type":"result","protocols":["landfall.plugin/1"],"name":"script"}"#;
    let here = folder.display();
    let text = format!(
        "#!/usr/bin/env bash\nhere={here}\nif [ \"$1\" = describe ]; then echo '{describe}'; exit; fi\n{code}\n"
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The processes of the plug-in with this folder.
fn processes(folder: &Path) -> Vec<String> {
    let variable = format!("{MARK}={}", folder.display());
    let has_mark = |path: &PathBuf| {
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|one| one == variable.as_bytes())
    };
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    all.filter(has_mark).map(|path| fs::read_to_string(path.join("cmdline")).unwrap_or_default()).collect()
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The only SQLite file of the plug-in, read by Python's own SQLite.
fn sqlite(folder: &Path, sql: &str) -> Value {
    let code = "import json, pathlib, sqlite3, sys\n\
                [file] = pathlib.Path(sys.argv[1]).glob('*.db')\n\
                print(json.dumps([list(row) for row in sqlite3.connect(file).execute(sys.argv[2])]))";
    let output = Command::new("python3").args(["-c", code]).arg(folder).arg(sql).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

async fn provision(api: &Api) -> String {
    api.post("/v1/provision", &component_request(&cashflow(), OUTPUT_PORT)).await.token()
}

#[tokio::test]
async fn python_plugin_serves_every_operation() {
    let folder = TempDir::with_prefix("landfall-it-").unwrap();
    let program = repository().join("examples/plugins/sqlite/sqlite_port.py");
    let server = Landfall::with().config(&config(&program, folder.path())).start();
    let api = server.api();
    let request = component_request(&cashflow(), OUTPUT_PORT);
    assert_eq!(api.validate(&request).await["valid"], true);
    let wrong =
        replace_once(&cashflow(), "      format: Iceberg\n", "      format: Iceberg\n      table: 9 lives\n");
    let refused = api.validate(&component_request(&wrong, OUTPUT_PORT)).await.to_string();
    assert!(refused.contains("specific.table: does not match the pattern: `9 lives`"), "{refused}");

    let status = api.provision_and_wait(&request).await;
    let log = messages(&status);
    assert!(log.contains(&"4 of 4 done: column `counterpartyId`".to_owned()), "{log:?}");
    assert_eq!(status["info"]["publicInfo"]["table"]["value"], "data", "{status:#}");
    assert_eq!(
        sqlite(folder.path(), "SELECT name, type FROM pragma_table_info('data')"),
        json!([["id", "TEXT"], ["direction", "TEXT"], ["amount", "NUMERIC"], ["counterpartyId", "TEXT"]])
    );
    let status = api.provision_and_wait(&request).await;
    assert!(status["result"].as_str().unwrap().contains("nothing to change"), "{status:#}");

    for (refs, expected) in [
        (vec!["user:alice_corp.com", "group:dev"], json!([["alice@corp.com"], ["dev"]])),
        (vec!["group:dev"], json!([["dev"]])),
        (vec![], json!([])),
    ] {
        let status = api.complete("/v1/updateacl", &acl_request(&cashflow(), OUTPUT_PORT, &refs)).await;
        assert!(status["result"].as_str().unwrap().contains("recorded, not enforced"), "{status:#}");
        assert_eq!(sqlite(folder.path(), "SELECT name FROM _access ORDER BY name"), expected);
    }

    let file = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().file_name();
    let import = json!({
        "useCaseTemplateId": "urn:dmb:utm:port:1.0.0", "environment": "production",
        "params": { "target": "PORTS", "file": file.to_str().unwrap() },
    });
    let token = api.post("/v1/reverse-provisioning", &import).await.token();
    let imported = api.wait_at("/v1/reverse-provisioning", &token).await;
    assert_eq!(imported["status"], "COMPLETED", "{imported:#}");
    assert_eq!(imported["updates"]["spec.mesh.specific.table"], "data", "{imported:#}");

    let mut remove = request.clone();
    remove["removeData"] = json!(true);
    api.complete("/v1/unprovision", &remove).await;
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn stopped_plugin_leaves_no_process() {
    let folder = TempDir::with_prefix("landfall-it-").unwrap();
    let program = script(folder.path(), "trap '' TERM; setsid sleep 300 & while :; do sleep 0.05; done");
    let server = Landfall::with().config(&config(&program, folder.path())).start();
    let api = server.api();
    let token = provision(api).await;
    until("the plug-in runs", || processes(folder.path()).len() >= 2).await;
    api.post(&format!("/v1/provision/{token}/stop"), &json!({})).await;
    assert_eq!(api.wait(&token).await["status"], "TERMINATED");
    assert_eq!(processes(folder.path()), Vec::<String>::new(), "TERMINATED means that it has ended");
}

/// After kill -9 of the server no process goes on, and the next server hands the last checkpoint to the next run.
#[tokio::test]
async fn killed_server_leaves_no_plugin_and_uses_its_checkpoint() {
    let folder = TempDir::with_prefix("landfall-it-").unwrap();
    let code = r#"
        request=$(cat)
        jq -c '[.operation.attempt, .state.step]' <<< "$request" >> $here/trace
        step=$(jq -r '.state.step // 0' <<< "$request")
        if [ "$step" = 0 ]; then
            echo '{"type":"state","state":{"step":1}}'
            (trap '' TERM; setsid sleep 300) &
            sleep 300
        fi
        echo '{"type":"result","changed":true}'"#;
    let program = script(folder.path(), code);
    let mut server = Landfall::with().config(&config(&program, folder.path())).start();
    let token = provision(server.api()).await;
    until("the plug-in runs", || processes(folder.path()).len() >= 3).await;
    // Gives the server time to store the checkpoint.
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.kill_9();
    until("processes are left", || processes(folder.path()).is_empty()).await;
    server.restart();
    let status = server.api().wait(&token).await;
    assert_eq!(status["status"], "COMPLETED", "{status:#}");
    let trace = fs::read_to_string(folder.path().join("trace")).unwrap();
    assert_eq!(trace, "[1,null]\n[2,1]\n");
}

#[tokio::test]
async fn unusable_plugin_fails_its_own_target_only() {
    let folder = TempDir::with_prefix("landfall-it-").unwrap();
    let program = script(folder.path(), "");
    fs::write(&program, "#!/bin/sh\necho '{\"type\":\"result\",\"name\":\"old\"}'\n").unwrap();
    let server = Landfall::with().config(&config(&program, folder.path())).start();
    let api = server.api();
    let refused = api.post("/v1/provision", &component_request(&cashflow(), OUTPUT_PORT)).await;
    let error = refused.with_status(500).json().to_string();
    assert!(error.contains("it does not speak `landfall.plugin/1`; its `protocols`: none"), "{error}");
    api.provision_and_wait(&component_request(&cashflow(), crate::harness::STORAGE)).await;
    // Corrects the program.
    script(folder.path(), "echo '{\"type\":\"result\",\"changed\":true}'");
    api.provision_and_wait(&component_request(&cashflow(), OUTPUT_PORT)).await;
}

/// What `landfall plugin check` reports of a script, as `name in verb`. `described` replaces a text of its description.
fn faults(folder: &Path, described: (&str, &str), code: &str) -> Vec<String> {
    let program = script(folder, code);
    let text = fs::read_to_string(&program).unwrap();
    fs::write(&program, text.replacen(described.0, described.1, 1)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
    command.args(["plugin", "check", "--report", "json", "--timeout", "3"]).arg(&program);
    let output = command.env(MARK, folder).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let faults = report["faults"].as_array().unwrap();
    assert_eq!(output.status.success(), faults.is_empty(), "{output:?}");
    let named =
        |fault: &Value| format!("{} in {}", fault["name"].as_str().unwrap(), fault["verb"].as_str().unwrap());
    faults.iter().map(named).collect()
}

#[test]
fn plugin_check_names_each_planted_fault() {
    let result = r#"echo '{"type":"result","changed":true}'"#;
    let in_provision = |code: &str| format!("if [ $1 = provision ]; then {code}; else {result}; fi");
    let line = format!(r#"{{"type":"log","message":"{}"}}"#, "x".repeat(1000));
    let plan = r#"[ $1 = plan ] && { echo '{"type":"result","changes":[{"action":"alter","resource":"x"}]}'; exit; }"#;
    let same = ("", "");
    for (planted, described, code, expected) in [
        ("nothing", same, result.to_owned(), &[][..]),
        ("no result", same, in_provision(":"), &["no-result in provision"]),
        ("two results", same, in_provision(&format!("{result}; {result}")), &["two-results in provision"]),
        (
            "8 MB line",
            same,
            in_provision("head -c 8000000 /dev/zero | tr '\\0' x"),
            &["long-line in provision"],
        ),
        ("not JSON", same, in_provision(&format!("echo hello; {result}")), &["not-json in provision"]),
        (
            "1 GB of output",
            same,
            in_provision(&format!("yes '{line}' | head -c 1000000000")),
            &["too-much-output in provision"],
        ),
        (
            "ignores SIGTERM",
            same,
            in_provision("trap '' TERM; while :; do sleep 0.1; done"),
            &["deadline in provision", "ignores-sigterm in provision"],
        ),
        (
            "grandchild keeps the pipe",
            same,
            in_provision(&format!("sleep 300 & {result}")),
            &["left-process in provision"],
        ),
        (
            "setsid escape",
            same,
            in_provision(&format!("setsid sleep 300 & sleep 0.2; {result}")),
            &["escaped-process in provision"],
        ),
        ("wrong exit code", same, in_provision(&format!("{result}; exit 3")), &["exit-code in provision"]),
        ("past its deadline", same, in_provision("sleep 60"), &["deadline in provision"]),
        ("unknown protocol", ("plugin/1", "plugin/9"), String::new(), &["unknown-protocol in describe"]),
        (
            "plan not empty after provision",
            (r#""name""#, r#""verbs":["plan"],"name""#),
            format!("{plan}; {result}"),
            &["plan-not-empty in plan"],
        ),
    ] {
        let folder = TempDir::with_prefix("landfall-it-").unwrap();
        let found = faults(folder.path(), described, &code);
        assert_eq!(found, expected, "{planted}");
        assert_eq!(processes(folder.path()), Vec::<String>::new(), "{planted}");
    }
}

#[test]
fn new_plugins_pass_the_check() {
    let folder = TempDir::with_prefix("landfall-it-").unwrap();
    for (language, name) in [("python", "orders.py"), ("sh", "orders.sh")] {
        let path = folder.path().join(name);
        let landfall = || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
            command.arg("plugin");
            command
        };
        let made = landfall().args(["new", "--lang", language]).arg(&path).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let again = landfall().args(["new", "--lang", language]).arg(&path).output().unwrap();
        assert_eq!(again.status.code(), Some(2), "an existing file stays: {again:?}");
        let checked = landfall().arg("check").arg(&path).output().unwrap();
        let text = String::from_utf8(checked.stdout).unwrap();
        assert!(checked.status.success() && text.contains("\nno fault in "), "{text}");
        let ran = landfall().args(["run", "provision"]).arg(&path).output().unwrap();
        let text = String::from_utf8(ran.stdout).unwrap();
        assert!(ran.status.success() && text.contains("create or update c_"), "{text}");
    }
    let help = Command::new(env!("CARGO_BIN_EXE_landfall")).arg("--help").output().unwrap();
    assert!(String::from_utf8(help.stdout).unwrap().contains("Commands of drivers:\n  plugin "));
}

#[test]
fn example_plugins_pass_the_check() {
    for (program, specific) in [("notes/notes.sh", r#"{"text":"milk"}"#), ("sqlite/sqlite_port.py", "{}")] {
        let folder = TempDir::with_prefix("landfall-it-").unwrap();
        let settings = json!({ "folder": folder.path() }).to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
        command.args(["plugin", "check", "--specific", specific, "--settings", &settings]);
        let checked = command.arg(repository().join("examples/plugins").join(program)).output().unwrap();
        assert!(checked.status.success(), "{program}: {}", String::from_utf8_lossy(&checked.stdout));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{program} left files");
    }
}
