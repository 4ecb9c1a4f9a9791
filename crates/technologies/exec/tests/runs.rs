//! Plug-ins under a real supervisor: scripts with faults, and the example plug-ins in the conformance kit.

#![expect(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use landfall_adapter::access::Ref;
use landfall_adapter::conformance::{self, Case, Subject};
use landfall_adapter::descriptor::{Object, Problem};
use landfall_adapter::error::Kind;
use landfall_adapter::testing::{self, CASHFLOW, PORT, STORAGE};
use landfall_adapter::{
    AccessList, AccessMode, Action, Attempt, Bound, Context, Info, Intent, Memory, Result, Running,
    Technology, Work,
};
use landfall_exec::protocol::{Line, Request};
use landfall_exec::{ExecDriver, Plugin};
use serde_json::{Value, json};
use tempfile::TempDir;

const SUPERVISOR: &str = env!("CARGO_BIN_EXE_landfall-exec-supervisor");
const DESCRIBE: &str = r#"{"type":"result","protocols":["landfall.plugin/1"],"name":"script"}"#;
const DONE: &str = r#"{"type":"result"}"#;
/// A variable that every process of a test inherits, and no other has.
const MARK: &str = "LANDFALL_EXEC_TEST";

/// A script as a plug-in.
struct Script {
    plugin: Plugin,
    folder: TempDir,
    mark: String,
}

impl Script {
    /// A plug-in with this code for the verb in `$1`.
    async fn new(code: &str) -> Self {
        Self::with(code, json!({})).await
    }

    async fn with(code: &str, settings: Value) -> Self {
        let script = Self::unlearned(code, DESCRIBE, settings);
        script.plugin.learn(&Context::default()).await.unwrap();
        script
    }

    fn unlearned(code: &str, describe: &str, settings: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plugin");
        let here = folder.path().display();
        let text = format!(
            "#!/usr/bin/env bash\nhere={here}\nif [ \"$1\" = describe ]; then echo '{describe}'; exit; fi\n{code}\n"
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let mark = folder.path().file_name().unwrap().to_str().unwrap().to_owned();
        let plugin = open(&path, json!({ MARK: mark }), settings);
        Self { plugin, folder, mark }
    }

    /// Provisions the component, and returns the log.
    async fn provision(&self, context: &Context) -> Result<()> {
        provision(&self.plugin, &testing::work(CASHFLOW, PORT), context).await
    }

    /// The error of a provisioning, with the log before it.
    async fn refusal(&self) -> (Kind, String, Vec<String>) {
        let context = Context::default().with_memory(Arc::new(Kept::default()));
        let error = self.provision(&context).await.unwrap_err();
        (error.kind().clone(), error.to_string(), messages(&context))
    }

    /// Processes of this plug-in that are left.
    fn left(&self) -> Vec<String> {
        let variable = format!("{MARK}={}", self.mark);
        let has_mark = |path: &PathBuf| {
            fs::read(path.join("environ"))
                .is_ok_and(|bytes| bytes.split(|byte| *byte == 0).any(|one| one == variable.as_bytes()))
        };
        let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
        let named = |path: PathBuf| fs::read_to_string(path.join("cmdline")).unwrap_or_default();
        processes.filter(has_mark).map(named).collect()
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }
}

fn open(program: &Path, env: Value, more: Value) -> Plugin {
    let mut settings = json!({ "command": [program], "env": env });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let path = system_path();
    testing::open(
        &ExecDriver::supervised_by(SUPERVISOR),
        settings,
        &[("PATH", &path), ("SECRET_OF_LANDFALL", "x")],
    )
    .unwrap()
}

/// The system's programs first: its Python starts faster than the wrappers that some machines have before it.
fn system_path() -> String {
    format!("/usr/bin:{}", std::env::var("PATH").unwrap())
}

fn python() -> Command {
    let mut command = Command::new("/usr/bin/env");
    command.env("PATH", system_path()).arg("python3");
    command
}

async fn provision(plugin: &Plugin, work: &Work, context: &Context) -> Result<()> {
    let bound = plugin.bind(work.clone(), Intent::Provision).unwrap();
    for change in bound.plan(context).await?.changes {
        bound.apply(&change.step, &Running::new(context.clone())).await?;
    }
    Ok(())
}

fn messages(context: &Context) -> Vec<String> {
    context.journal.drain().into_iter().map(|line| line.message).collect()
}

/// A memory that records each value.
#[derive(Default)]
struct Kept(Mutex<Vec<Value>>);

impl Kept {
    fn states(&self) -> Vec<Value> {
        self.0.lock().unwrap().iter().map(|value| value["state"].clone()).collect()
    }
}

#[async_trait]
impl Memory for Kept {
    async fn recall(&self) -> Result<Option<Value>> {
        Ok(self.0.lock().unwrap().last().cloned())
    }

    async fn remember(&self, value: Value) -> Result<()> {
        self.0.lock().unwrap().push(value);
        Ok(())
    }
}

#[tokio::test]
async fn request_has_what_the_specification_says() {
    let script = Script::with(
        &format!("cat > $here/$1.json; env > $here/env; pwd > $here/pwd; echo '{DONE}'"),
        json!({ "settings": { "schema": "landing" } }),
    )
    .await;
    let mut work = testing::work(CASHFLOW, PORT);
    work.dependencies.push(landfall_adapter::Dependency {
        id: STORAGE.parse().unwrap(),
        info: Info::default().text("path", "Path", "/a").private("key", 1),
    });
    let attempt = Attempt { token: "7".into(), number: 2 };
    let context = Context::default().with_memory(Arc::new(Kept::default())).with_attempt(attempt);
    provision(&script.plugin, &work, &context).await.unwrap();
    let request: Value = serde_json::from_str(&script.file("provision.json")).unwrap();
    let schema: Value =
        serde_json::from_str(&fs::read_to_string(schemas().join("request.schema.json")).unwrap()).unwrap();
    jsonschema::validate(&schema, &request).unwrap();
    assert_eq!(request["protocol"], "landfall.plugin/1");
    assert_eq!(request["verb"], "provision");
    assert_eq!((&request["operation"]["id"], &request["operation"]["attempt"]), (&json!("7"), &json!(2)));
    assert_eq!(request["operation"]["dry_run"], false);
    assert!(request["operation"]["deadline"].as_str().unwrap().ends_with('Z'));
    assert_eq!(request["target"], json!({ "code": "TARGET", "settings": { "schema": "landing" } }));
    assert_eq!(request["environment"], work.environment);
    assert_eq!(request["owner"]["component"], PORT);
    assert_eq!(request["owner"]["key"], "c_urn_dmb_cmp_finance_cashflow_0_cash___9d5c05024d998889");
    assert_eq!(request["component"]["id"], PORT);
    assert_eq!(request["product"]["components"].as_array().unwrap().len(), 3);
    assert_eq!(request["dependencies"][STORAGE]["private_info"], json!({ "key": 1 }));
    assert_eq!(request["state"], Value::Null);
    assert_eq!(request.get("access"), None);
    assert_eq!(script.file("pwd"), "/\n");
    let env = script.file("env");
    assert!(env.contains("LANDFALL_PROTOCOL=landfall.plugin/1\n"), "{env}");
    assert!(!env.contains("SECRET_OF_LANDFALL"), "only chosen variables are passed on: {env}");
}

/// What a faulty plug-in leads to: the kind, the text, and a line of the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_has_its_error_and_leaves_no_process() {
    let invalid = r#"{"type":"error","kind":"invalid","message":"m","problems":[{"path":"specific.a","message":"is wrong","fix":"fix it"}]}"#;
    let problem = Problem::new("specific.a", "is wrong").remedy("fix it");
    let result = format!("echo '{DONE}'");
    for (name, code, kind, text, line) in [
        ("no result", ":".to_owned(), Kind::Permanent, "ended `provision` without a `result` line", ""),
        (
            "wrong exit code",
            format!("{result}; exit 9"),
            Kind::Permanent,
            "failed in `provision` with exit code 9",
            "",
        ),
        ("unknown verb", "exit 2".to_owned(), Kind::Unsupported, "does not know the verb `provision`", ""),
        (
            "asks for a retry",
            "exit 75".to_owned(),
            Kind::Retryable,
            "asks to try `provision` again later",
            "",
        ),
        (
            "not JSON",
            "echo hello; exit 4".to_owned(),
            Kind::Conflict,
            "reports a resource of another owner",
            "hello",
        ),
        (
            "error line",
            format!("echo '{invalid}'; exit 1"),
            Kind::Invalid(vec![problem]),
            "specific.a: is wrong",
            "",
        ),
        ("killed", "kill -9 $$".to_owned(), Kind::Retryable, "was killed by signal 9 during `provision`", ""),
        (
            "standard error",
            "echo 'of curl' >&2; exit 1".to_owned(),
            Kind::Permanent,
            "exit code 1",
            "of curl",
        ),
        (
            "long line",
            "head -c 2000000 /dev/zero | tr '\\0' x; sleep 60".to_owned(),
            Kind::Permanent,
            "printed a line of more than 1048576 bytes",
            "",
        ),
        (
            "grandchild keeps the pipe",
            "sleep 300 & exit 1".to_owned(),
            Kind::Permanent,
            "exit code 1",
            "left 1 processes, which were killed",
        ),
        (
            "setsid escape",
            "setsid bash -c 'setsid sleep 300 & sleep 300' & sleep 0.2; exit 1".to_owned(),
            Kind::Permanent,
            "exit code 1",
            "which were killed",
        ),
    ] {
        let script = Script::new(&code).await;
        let begun = Instant::now();
        let (found, message, log) = script.refusal().await;
        assert_eq!(found, kind, "{name}: {message}");
        assert!(message.contains(text), "{name}: {message}");
        assert!(log.iter().any(|it| it.contains(line)) || line.is_empty(), "{name}: {log:?}");
        assert!(begun.elapsed() < Duration::from_secs(15), "{name} took {:?}", begun.elapsed());
        assert_eq!(script.left(), Vec::<String>::new(), "{name}");
    }
}

#[tokio::test]
async fn odd_output_is_reported_and_does_not_fail_the_run() {
    let code = format!(
        "echo hello; echo '{{\"type\":\"log\",\"level\":\"WARNING\",\"message\":\"careful\"}}'; echo '{DONE}'; \
         echo '{{\"type\":\"progress\",\"done\":3,\"total\":3,\"message\":\"tables\"}}'; echo '{DONE}'"
    );
    let script = Script::new(&code).await;
    let context = Context::default().with_memory(Arc::new(Kept::default()));
    script.provision(&context).await.unwrap();
    assert_eq!(
        messages(&context),
        [
            "hello",
            "careful",
            "3 of 3 done: tables",
            "plug-in `plugin` printed 1 lines on standard output that are not of the protocol",
            "plug-in `plugin` printed 2 results or errors; the last one counts",
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_output_is_ended_within_the_limit() {
    let line = format!("{{\"type\":\"log\",\"message\":\"{}\"}}", "x".repeat(500));
    let script =
        Script::with(&format!("yes '{line}'"), json!({ "max_output": 20_000_000, "max_log_lines": 100 }))
            .await;
    let before = resident_kb();
    let (kind, message, log) = script.refusal().await;
    assert_eq!(kind, Kind::Permanent);
    assert!(message.contains("printed more than 20000000 bytes"), "{message}");
    assert!(log.len() < 110, "{}", log.len());
    assert!(log.last().unwrap().contains("more lines of plug-in `plugin` were not kept"), "{log:?}");
    assert_eq!(script.left(), Vec::<String>::new());
    let more = resident_kb().saturating_sub(before);
    assert!(more < 32 << 10, "reading took {more} kB");
}

/// Resident memory that is not of files.
fn resident_kb() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_run_gets_sigterm_then_sigkill() {
    for (code, settings, least, most) in [
        ("trap 'echo bye >&2; exit 1' TERM; while :; do sleep 0.05; done", json!({}), 0, 5),
        ("trap '' TERM; while :; do sleep 0.05; done", json!({ "grace": "1s" }), 1, 8),
    ] {
        let script = Script::with(code, settings).await;
        let context = Context::default().with_memory(Arc::new(Kept::default()));
        let stop = context.cancel.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(700)).await;
            stop.cancel();
        });
        let begun = Instant::now();
        let error = script.provision(&context).await.unwrap_err();
        let took = begun.elapsed().as_secs_f64() - 0.7;
        assert_eq!(*error.kind(), Kind::Cancelled, "{error}");
        assert!((f64::from(least)..f64::from(most)).contains(&took), "{code} took {took} s");
        assert_eq!(script.left(), Vec::<String>::new(), "{code}");
        assert_eq!(messages(&context).contains(&"bye".to_owned()), least == 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_past_its_timeout_is_ended_and_retried() {
    let script = Script::with("sleep 60", json!({ "timeout": "1s" })).await;
    let (kind, message, _) = script.refusal().await;
    assert_eq!(kind, Kind::Retryable);
    assert_eq!(
        message,
        "plug-in `plugin` did not end `provision` within 1s: make it faster, or raise `timeout` of the target"
    );
    assert_eq!(script.left(), Vec::<String>::new());
}

/// The caller of a run may stop waiting, like a dry run at its deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_that_nobody_waits_for_is_ended() {
    let script = Script::new("touch $here/begun; sleep 60").await;
    let context = Context::default().with_memory(Arc::new(Kept::default()));
    let _ = tokio::time::timeout(Duration::from_secs(2), script.provision(&context)).await.unwrap_err();
    assert!(script.folder.path().join("begun").exists());
    let end = Instant::now() + Duration::from_secs(10);
    while !script.left().is_empty() {
        assert!(Instant::now() < end, "{:?}", script.left());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_are_kept_and_handed_to_the_next_run() {
    let code = r#"
        request=$(cat)
        echo "$request" > $here/last
        if [ "$(jq -r .state.step <<< "$request")" = 1 ]; then echo '{"type":"result","state":{"step":2}}'; exit; fi
        echo '{"type":"state","state":{"step":0}}'
        echo '{"type":"state","state":{"step":1}}'
        sleep 0.2
        kill -9 $$"#;
    let script = Script::new(code).await;
    let kept = Arc::new(Kept::default());
    let context = Context::default().with_memory(Arc::clone(&kept) as Arc<dyn Memory>);
    script.provision(&context).await.unwrap_err();
    assert_eq!(kept.states(), [Value::Null, json!({ "step": 0 }), json!({ "step": 1 })]);
    script.provision(&context).await.unwrap();
    assert_eq!(kept.states().last(), Some(&json!({ "step": 2 })));
}

/// A checkpoint that cannot be kept, because the lease is lost, ends the run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unkept_checkpoint_ends_the_run() {
    struct Lost;
    #[async_trait]
    impl Memory for Lost {
        async fn recall(&self) -> Result<Option<Value>> {
            Ok(None)
        }

        async fn remember(&self, _: Value) -> Result<()> {
            Err(landfall_adapter::Error::cancelled("the lease is lost"))
        }
    }
    let script = Script::new(r#"echo '{"type":"state","state":1}'; sleep 60"#).await;
    let error = script.provision(&Context::default().with_memory(Arc::new(Lost))).await.unwrap_err();
    assert_eq!(error.to_string(), "the lease is lost");
    assert_eq!(script.left(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_of_one_component_never_overlap() {
    let code = format!("echo begin >> $here/trace; sleep 0.2; echo end >> $here/trace; echo '{DONE}'");
    let script = Arc::new(Script::new(&code).await);
    let run = || {
        let script = Arc::clone(&script);
        tokio::spawn(async move {
            script.provision(&Context::default().with_memory(Arc::new(Kept::default()))).await.unwrap();
        })
    };
    for one in [run(), run(), run()] {
        one.await.unwrap();
    }
    assert_eq!(script.file("trace"), "begin\nend\n".repeat(3));
}

/// Landfall is killed: the plug-in and what it started end, without anybody who would do it but the supervisor.
#[test]
fn nothing_is_left_when_landfall_is_killed() {
    let script = Script::unlearned(":", DESCRIBE, json!({}));
    // A process that stands for Landfall: it has a supervisor, and dies.
    let marker = format!("{MARK}={}", script.mark);
    let code = format!(
        "import json, os, socket, subprocess, time\n\
         ours, theirs = socket.socketpair()\n\
         start = {{'command': ['/bin/bash', '-c', 'trap \"\" TERM; setsid sleep 300 & sleep 300'], 'env': [['PATH', os.environ['PATH']],\n\
           {:?}.split('=')], 'directory': '/', 'lock': {:?}, 'wait_ms': 1000, 'grace_ms': 60000, 'silence_ms': 60000, 'input': 2}}\n\
         subprocess.Popen([{SUPERVISOR:?}, 'supervise-plugin'], stdin=theirs, start_new_session=True)\n\
         theirs.close()\n\
         ours.sendall((json.dumps(start) + '\\n{{}}').encode())\n\
         print(ours.recv(1000).decode(), flush=True)\n\
         time.sleep(300)\n",
        marker, script.mark
    );
    let mut landfall = python().args(["-c", &code]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while script.left().len() < 3 {
        assert!(Instant::now() < end, "{:?}", script.left());
        std::thread::sleep(Duration::from_millis(20));
    }
    landfall.kill().unwrap();
    landfall.wait().unwrap();
    let killed = Instant::now();
    while !script.left().is_empty() {
        assert!(killed.elapsed() < Duration::from_secs(6), "{:?}", script.left());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
async fn descriptions_that_cannot_be_used_say_why() {
    for (describe, expected) in [
        (
            r#"{"type":"result","protocols":["landfall.plugin/9"],"name":"a"}"#,
            "plug-in `plugin` cannot be used: it does not speak `landfall.plugin/1`; its `protocols`: landfall.plugin/9",
        ),
        (
            r#"{"type":"result","name":"a"}"#,
            "plug-in `plugin` cannot be used: it does not speak `landfall.plugin/1`; its `protocols`: none",
        ),
        (
            r#"{"type":"result","protocols":["landfall.plugin/1"]}"#,
            "plug-in `plugin` cannot be used: it has no `name`",
        ),
        (
            r#"{"type":"result","protocols":["landfall.plugin/1"],"name":"a","access":"enforced"}"#,
            "plug-in `plugin` cannot be used: it has `access`, and not the verb `access`",
        ),
        (
            r#"{"type":"result","protocols":["landfall.plugin/1"],"name":"a","settings":{"required":["folder"]}}"#,
            "plug-in `plugin` cannot be used: it refuses the settings of the target: settings.folder: `folder` is missing; add \
             `folder` to `settings`",
        ),
        ("", "plug-in `plugin` ended `describe` without a `result` line: nothing is known of what it did"),
    ] {
        let script = Script::unlearned(":", describe, json!({}));
        let error = script.plugin.learn(&Context::default()).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert!(!Technology::is_known(&script.plugin));
    }
}

#[tokio::test]
async fn specific_is_checked_by_the_schema_of_its_kind() {
    let describe = r#"{"type":"result","protocols":["landfall.plugin/1"],"name":"a","verbs":["plan"],
        "specific":{"outputport":{"required":["zone"]},"*":{}}}"#;
    let script = Script::unlearned(":", &describe.replace('\n', ""), json!({}));
    script.plugin.learn(&Context::default()).await.unwrap();
    let bind = |component, intent| {
        let bound = script.plugin.bind(testing::work(CASHFLOW, component), intent);
        bound.map(drop).map_err(|problems| problems.iter().map(Problem::with_remedy).collect::<Vec<_>>())
    };
    assert_eq!(
        bind(PORT, Intent::Provision),
        Err(vec!["specific.zone: `zone` is missing; add `zone` to `specific`".to_owned()])
    );
    assert_eq!(bind(STORAGE, Intent::Provision), Ok(()));
    assert_eq!(bind(PORT, Intent::Unprovision { remove_data: true }), Ok(()), "what is there can be removed");
    assert!(Technology::capabilities(&script.plugin).observes);
}

#[tokio::test]
async fn plan_of_a_plugin_is_one_change_with_parts() {
    let describe =
        r#"{"type":"result","protocols":["landfall.plugin/1"],"name":"a","verbs":["plan","check"]}"#;
    let planned = r#"{"type":"result","notes":["careful"],"changes":[{"action":"create","resource":"table x"},
        {"action":"drop","resource":"table y","summary":"it is gone","destructive":true}]}"#;
    let code = format!(
        "case $1 in plan) cat > $here/plan; echo '{}';; check) echo '{}';; esac",
        planned.replace('\n', ""),
        r#"{"type":"result","problems":[{"path":"specific.x","message":"no such zone"}]}"#
    );
    let script = Script::unlearned(&code, describe, json!({}));
    let context = Context::default();
    script.plugin.learn(&context).await.unwrap();
    let bound = script
        .plugin
        .bind(testing::work(CASHFLOW, PORT), Intent::Unprovision { remove_data: false })
        .unwrap();
    let plan = bound.plan(&context).await.unwrap();
    assert_eq!(plan.notes, ["careful"]);
    let [change] = plan.changes.as_slice() else { panic!("{plan:?}") };
    assert_eq!((change.action, change.destructive), (Action::Run, true));
    assert_eq!(change.summary, "run `unprovision` of plug-in `a`");
    let parts: Vec<_> =
        change.parts.iter().map(|part| (part.action.as_str(), part.resource.as_str())).collect();
    assert_eq!(parts, [("create", "table x"), ("drop", "table y")]);
    let request: Value = serde_json::from_str(&script.file("plan")).unwrap();
    assert_eq!((&request["plan_of"], &request["remove_data"]), (&json!("unprovision"), &json!(false)));
    assert_eq!(request["operation"]["dry_run"], true);
    let bound = script.plugin.bind(testing::work(CASHFLOW, PORT), Intent::Provision).unwrap();
    assert!(bound.has_check());
    let problems: Vec<_> = bound.check(&context).await.unwrap().iter().map(Problem::with_remedy).collect();
    assert_eq!(problems, ["specific.x: no such zone"]);
}

fn allowing(refs: &[&str]) -> Work {
    let mut refs: Vec<Ref> = refs.iter().map(|text| Ref::parse(text).unwrap()).collect();
    refs.sort();
    Work { access: Some(AccessList { refs, fields: Object::new() }), ..testing::work(CASHFLOW, PORT) }
}

/// A crash during a grant leaves its outcome unknown, so the principal can be revoked later.
#[tokio::test]
async fn access_is_revoked_also_after_a_run_of_unknown_outcome() {
    let describe = r#"{"type":"result","protocols":["landfall.plugin/1"],"name":"a","verbs":["access"],"access":"enforced"}"#;
    let code = format!(
        "[ $1 = access ] || {{ echo '{DONE}'; exit; }}
         jq -c '[.access.revoke[].name, \"|\", .access.grant[].name, \"|\", .access.principals[].name]' >> $here/access
         [ -e $here/broken ] && kill -9 $$
         echo '{DONE}'"
    );
    let script = Script::unlearned(&code, describe, json!({}));
    let context = Context::default().with_memory(Arc::new(Kept::default()));
    script.plugin.learn(&context).await.unwrap();
    assert_eq!(Technology::capabilities(&script.plugin).access, AccessMode::Enforced);
    let update = async |refs: &[&str]| {
        let bound = script.plugin.bind(allowing(refs), Intent::UpdateAccess).unwrap();
        let plan = bound.plan(&context).await?;
        for change in &plan.changes {
            bound.apply(&change.step, &Running::new(context.clone())).await?;
        }
        Result::<_>::Ok((
            plan.changes.iter().map(|change| change.action).collect::<Vec<_>>(),
            plan.unmet.len(),
        ))
    };
    let early = update(&["user:alice"]).await.unwrap_err();
    assert_eq!(*early.kind(), Kind::Conflict, "{early}");
    provision(&script.plugin, &testing::work(CASHFLOW, PORT), &context).await.unwrap();
    let broken = script.folder.path().join("broken");
    fs::write(&broken, "").unwrap();
    update(&["user:alice"]).await.unwrap_err();
    fs::remove_file(&broken).unwrap();
    assert_eq!(update(&["user:bob"]).await.unwrap(), (vec![Action::Revoke, Action::Grant], 0));
    assert_eq!(update(&["user:bob"]).await.unwrap(), (vec![], 0), "a repeat changes nothing");
    assert_eq!(update(&["user:bob", "unclear"]).await.unwrap(), (vec![], 1), "it may be a user or a group");
    assert_eq!(update(&[]).await.unwrap(), (vec![Action::Revoke], 0));
    assert_eq!(
        script.file("access").lines().collect::<Vec<_>>(),
        [
            r#"["|","alice","|","alice"]"#,
            r#"["alice","|","|"]"#,
            r#"["|","bob","|","bob"]"#,
            r#"["bob","|","|"]"#,
        ]
    );
}

fn schemas() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../spec/plugin")
}

/// The published JSON Schemas are those of the types. `UPDATE_GOLDEN=1` writes them.
#[test]
fn published_schemas_are_current() {
    use landfall_adapter::schemars::generate::SchemaSettings;
    let of_request =
        SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<Request<'_>>();
    let of_line =
        SchemaSettings::draft2020_12().for_deserialize().into_generator().into_root_schema_for::<Line>();
    for (name, schema) in [("request", of_request), ("line", of_line)] {
        let path = schemas().join(format!("{name}.schema.json"));
        let wanted = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::create_dir_all(schemas()).unwrap();
            fs::write(&path, &wanted).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap_or_default(), wanted, "{name}: run with UPDATE_GOLDEN=1");
        // Any validator can use them.
        jsonschema::meta::validate(&schema.to_value()).unwrap();
    }
}

/// What the example plug-ins print fits the published schema.
#[test]
fn examples_print_lines_of_the_schema() {
    let schema: Value =
        serde_json::from_str(&fs::read_to_string(schemas().join("line.schema.json")).unwrap()).unwrap();
    for program in ["notes/notes.sh", "sqlite/sqlite_port.py"] {
        let output = Command::new(examples().join(program)).arg("describe").output().unwrap();
        for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            jsonschema::validate(&schema, &serde_json::from_slice(line).unwrap()).unwrap();
        }
    }
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../examples/plugins")
}

/// An example plug-in on a folder.
struct Example {
    plugin: Plugin,
    folder: TempDir,
    source: &'static str,
}

impl Example {
    async fn of(source: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = json!({ "settings": { "folder": folder.path() } });
        let plugin = open(&examples().join(source), json!({}), settings);
        plugin.learn(&Context::default()).await.unwrap();
        Self { plugin, folder, source }
    }

    fn path(&self, work: &Work, suffix: &str) -> PathBuf {
        let owner = landfall_exec::protocol::OwnerPart::from(work.owner());
        self.folder.path().join(owner.key + suffix)
    }

    /// The output of a program on the folder.
    fn ask(&self, script: &str) -> Value {
        let output = python().args(["-c", script]).arg(self.folder.path()).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}: {error}", self.source))
    }
}

struct Notes(Example);

#[async_trait]
impl Subject for Notes {
    async fn fresh() -> Self {
        Self(Example::of("notes/notes.sh").await)
    }

    fn technology(&self) -> &dyn landfall_adapter::any::AnyTechnology {
        &self.0.plugin
    }

    fn cases(&self) -> Vec<Case> {
        let work = |text: &str| testing::work(&CASHFLOW.replace("bucket: finance-cashflows", text), STORAGE);
        vec![Case { work: work("text: one"), changed: Some(work("text: two")) }]
    }

    async fn observe(&self) -> Value {
        self.0.ask("import json, pathlib, sys\nprint(json.dumps({p.name: p.read_text() for p in pathlib.Path(sys.argv[1]).iterdir()}))")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bash_example_conforms() {
    conformance::conforms::<Notes>().await;
}

struct Sqlite(Example);

/// The content of each file, read by Python's own SQLite.
const DUMP: &str = "import json, pathlib, sqlite3, sys
dump = lambda p: sorted(line for line in sqlite3.connect(p).iterdump())
print(json.dumps({p.name: dump(p) for p in sorted(pathlib.Path(sys.argv[1]).glob('*.db'))}))";

const READERS: &str = "import json, pathlib, sqlite3, sys
[print(json.dumps([r[0] for r in sqlite3.connect(p).execute('SELECT name FROM _access')])) for p in pathlib.Path(sys.argv[1]).glob('*.db')] or print('[]')";

#[async_trait]
impl Subject for Sqlite {
    async fn fresh() -> Self {
        Self(Example::of("sqlite/sqlite_port.py").await)
    }

    fn technology(&self) -> &dyn landfall_adapter::any::AnyTechnology {
        &self.0.plugin
    }

    fn cases(&self) -> Vec<Case> {
        let more = CASHFLOW.replacen("- name: id", "- {name: remark, dataType: TEXT}\n        - name: id", 1);
        assert_ne!(more, CASHFLOW);
        vec![Case { work: testing::work(CASHFLOW, PORT), changed: Some(testing::work(&more, PORT)) }]
    }

    async fn observe(&self) -> Value {
        self.0.ask(DUMP)
    }

    async fn granted(&self, _: &Work) -> BTreeSet<String> {
        let names: Vec<String> = serde_json::from_value(self.0.ask(READERS)).unwrap();
        let reference = |name: &String| match name.split_once('@') {
            Some((user, domain)) => format!("user:{user}_{domain}"),
            None => format!("group:{name}"),
        };
        names.iter().map(reference).collect()
    }

    async fn occupy(&self, work: &Work) -> bool {
        let path = self.0.path(work, ".db");
        let code = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('CREATE TABLE theirs (a)')";
        python().args(["-c", code]).arg(path).status().unwrap().success()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_example_conforms() {
    conformance::conforms::<Sqlite>().await;
}

#[tokio::test]
async fn python_example_imports_a_file() {
    let example = Example::of("sqlite/sqlite_port.py").await;
    let code = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('CREATE TABLE data (id INTEGER, name TEXT)')";
    let path = example.folder.path().join("old.db");
    assert!(python().args(["-c", code]).arg(path).status().unwrap().success());
    let import = testing::import("production", &json!({ "file": "old.db" }), &json!({}));
    let mut params = import.params();
    Technology::check_import(&example.plugin, &mut params);
    assert_eq!(params.finish().ignored, None, "all parameters are handed on");
    let imported = Technology::reverse(&example.plugin, &import, &Context::default()).await.unwrap();
    assert_eq!(
        Value::Object(imported.updates(&import).fields),
        json!({
            "spec.mesh.dataContract.schema": [{ "name": "id", "dataType": "BIGINT" }, { "name": "name", "dataType": "TEXT" }],
            "spec.mesh.specific.table": "data",
        })
    );
    let missing = testing::import("production", &json!({}), &json!({}));
    let error = Technology::reverse(&example.plugin, &missing, &Context::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "params.file: `file` is missing or no file name");
}
