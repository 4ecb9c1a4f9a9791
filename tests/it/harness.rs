//! Starts the server under test as an administrator runs it: the real binary, a free port, a folder of its own.
//!
//! A [`Landfall`] stops with the test that started it. Its `Drop` sends SIGTERM and then asserts that the server exited
//! with success, that all accepted tasks have ended, and that nothing panicked in the server. On Linux, the kernel also
//! kills the server when the test binary is killed. A [`Cluster`] does the same for several servers that share a store.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;
use std::time::{Duration, Instant};

use landfall_adapter::tls::Trust;
use serde_json::{Value, json};
use sqlx::Row;
use tempfile::TempDir;

use crate::{contract, postgres};

/// How long a test waits for a process, a request or a task.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Tests that measure time or memory hold this lock alone. All others share it.
static MACHINE: RwLock<()> = RwLock::new(());

enum MachineLock {
    Shared(#[expect(dead_code, reason = "held, not read")] RwLockReadGuard<'static, ()>),
    Alone(#[expect(dead_code, reason = "held, not read")] RwLockWriteGuard<'static, ()>),
}

impl MachineLock {
    fn of(alone: bool) -> Self {
        // A failed test poisons the lock. The next test can still use it.
        if alone {
            Self::Alone(MACHINE.write().unwrap_or_else(PoisonError::into_inner))
        } else {
            Self::Shared(MACHINE.read().unwrap_or_else(PoisonError::into_inner))
        }
    }
}

/// A running server. A test must not start two: the second could wait forever for the lock of the first.
pub(crate) struct Landfall {
    replica: Replica,
    home: TempDir,
    _lock: MachineLock,
}

#[derive(Default, Clone)]
struct Settings {
    /// Runs instead of the program under test.
    program: Option<PathBuf>,
    config: String,
    environment: Vec<(String, String)>,
    alone: bool,
}

/// The settings of a server.
#[derive(Default)]
pub(crate) struct Builder(Settings);

impl Builder {
    /// Sets the content of the configuration file.
    pub(crate) fn config(mut self, toml: &str) -> Self {
        toml.clone_into(&mut self.0.config);
        self
    }

    /// Sets an environment variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.0.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs no other test at the same time. Tests that measure time or memory need this.
    pub(crate) fn alone(mut self) -> Self {
        self.0.alone = true;
        self
    }

    /// Starts the server, and returns once it listens.
    pub(crate) fn start(self) -> Landfall {
        let lock = MachineLock::of(self.0.alone);
        let home = TempDir::with_prefix("landfall-it-").expect("a temporary folder");
        let replica = Replica::start(self.0, home.path());
        Landfall { replica, home, _lock: lock }
    }
}

impl Landfall {
    /// Starts a server with the embedded defaults.
    pub(crate) fn start() -> Self {
        Self::with().start()
    }

    /// Starts to build a server with other settings than the defaults.
    pub(crate) fn with() -> Builder {
        Builder::default()
    }

    /// The HTTP client of the server. It is cheap to clone, and other tasks can use it.
    pub(crate) fn api(&self) -> &Api {
        self.replica.api()
    }

    /// The folder that the server gets as `--data-dir`.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// A folder for the test's own files.
    pub(crate) fn scratch(&self) -> &Path {
        self.home.path()
    }

    /// What the server has logged so far.
    pub(crate) fn log(&self) -> String {
        self.replica.log()
    }

    /// Kills the server (SIGKILL), as a crash does.
    pub(crate) fn kill_9(&mut self) {
        self.replica.kill_9();
    }

    /// Sends SIGTERM, so that the server drains, and returns its exit status.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.replica.terminate()
    }

    /// Starts the server again on the same data, after [`Self::kill_9`] or [`Self::terminate`]. The port may change.
    pub(crate) fn restart(&mut self) {
        self.replica.restart();
    }

    /// Largest resident set so far, in bytes. `None` without /proc.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        self.memory("VmHWM:")
    }

    /// Resident set, in bytes. `None` without /proc.
    pub(crate) fn resident_memory(&self) -> Option<u64> {
        self.memory("VmRSS:")
    }

    fn memory(&self, key: &str) -> Option<u64> {
        let pid = self.replica.pid()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find(|line| line.starts_with(key))?;
        let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kibibytes * 1024)
    }

    /// Reloads the credentials (SIGHUP), and waits until the log contains `line` once more.
    pub(crate) async fn reload(&self, line: &str) {
        let seen = || self.log().matches(line).count();
        let (before, end) = (seen(), Instant::now() + TIMEOUT);
        self.replica.process.as_ref().expect("a running server").signal("-HUP");
        while seen() == before {
            assert!(Instant::now() < end, "`{line}` never came:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until no task is queued or running.
    pub(crate) async fn settle(&self) {
        self.api().settle().await;
    }

    /// All resources of the embedded lakehouse.
    pub(crate) async fn resources(&self) -> Resources {
        Resources::read(&self.data_dir()).await
    }
}

impl Drop for Landfall {
    fn drop(&mut self) {
        let store = StoreAt::Sqlite(self.data_dir().join("landfall.db"));
        stop_and_check(std::slice::from_mut(&mut self.replica), store);
    }
}

/// Servers that share a data folder and, when there are several, a PostgreSQL store.
pub(crate) struct Cluster {
    replicas: Vec<Replica>,
    store: StoreAt,
    home: TempDir,
    _lock: MachineLock,
}

/// The settings of a cluster.
pub(crate) struct ClusterBuilder {
    replicas: Vec<Settings>,
    store: Option<String>,
    home: TempDir,
}

impl ClusterBuilder {
    /// Sets the content of the configuration file of all replicas. `{scratch}` in it is [`Cluster::scratch`].
    pub(crate) fn config(mut self, toml: &str) -> Self {
        let toml = toml.replace("{scratch}", &self.home.path().to_string_lossy());
        for settings in &mut self.replicas {
            settings.config.clone_from(&toml);
        }
        self
    }

    /// Sets the PostgreSQL database of the operation store. Without it, the only replica uses its SQLite file.
    pub(crate) fn store(mut self, url: &str) -> Self {
        self.store = Some(url.to_owned());
        for settings in &mut self.replicas {
            settings.environment.insert(0, (STORE_URL.to_owned(), url.to_owned()));
        }
        self
    }

    /// Sets an environment variable of one replica.
    pub(crate) fn env(mut self, replica: usize, name: &str, value: &str) -> Self {
        self.replicas[replica].environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets another program for one replica.
    pub(crate) fn program(mut self, replica: usize, program: &Path) -> Self {
        self.replicas[replica].program = Some(program.to_owned());
        self
    }

    /// A folder for the test's own files.
    pub(crate) fn scratch(&self) -> &Path {
        self.home.path()
    }

    /// Starts all replicas, one after the other, and returns once they listen.
    pub(crate) fn start(self) -> Cluster {
        assert!(self.store.is_some() || self.replicas.len() == 1, "an SQLite file has one owner");
        let lock = MachineLock::of(false);
        let store = match self.store {
            Some(url) => StoreAt::Postgres(url),
            None => StoreAt::Sqlite(self.home.path().join("data/landfall.db")),
        };
        let replicas =
            self.replicas.into_iter().map(|settings| Replica::start(settings, self.home.path())).collect();
        Cluster { replicas, store, home: self.home, _lock: lock }
    }
}

impl Cluster {
    /// Starts to build a cluster of `replicas` servers.
    pub(crate) fn of(replicas: usize) -> ClusterBuilder {
        let home = TempDir::with_prefix("landfall-it-").expect("a temporary folder");
        ClusterBuilder { replicas: vec![Settings::default(); replicas], store: None, home }
    }

    /// One replica, to kill or start it.
    pub(crate) fn replica(&mut self, index: usize) -> &mut Replica {
        &mut self.replicas[index]
    }

    /// One replica, to read its state.
    pub(crate) fn server(&self, index: usize) -> &Replica {
        &self.replicas[index]
    }

    /// The HTTP client of one replica.
    pub(crate) fn api(&self, index: usize) -> &Api {
        self.replicas[index].api()
    }

    /// The number of replicas.
    pub(crate) fn len(&self) -> usize {
        self.replicas.len()
    }

    /// A folder for the test's own files.
    pub(crate) fn scratch(&self) -> &Path {
        self.home.path()
    }

    /// The operation store.
    pub(crate) fn store(&self) -> &StoreAt {
        &self.store
    }

    /// All resources of the embedded lakehouse.
    pub(crate) async fn resources(&self) -> Resources {
        Resources::read(&self.home.path().join("data")).await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        stop_and_check(&mut self.replicas, self.store.clone());
    }
}

/// The variable that configures the store of a server.
pub(crate) const STORE_URL: &str = "LANDFALL__STORE__URL";

/// The operation store, for tests that read it directly.
#[derive(Debug, Clone)]
pub(crate) enum StoreAt {
    Sqlite(PathBuf),
    Postgres(String),
}

impl StoreAt {
    /// Rows as text. The columns must be numbers or text, and both databases must accept the SQL.
    pub(crate) async fn query(&self, sql: &'static str) -> Vec<Vec<String>> {
        match self {
            Self::Sqlite(file) => query(file, sql)
                .await
                .iter()
                .map(|row| {
                    let text =
                        |index| row.try_get(index).unwrap_or_else(|_| row.get::<i64, _>(index).to_string());
                    (0..row.len()).map(text).collect()
                })
                .collect(),
            Self::Postgres(url) => postgres::query(url, &format!("SET search_path TO landfall; {sql}"))
                .unwrap_or_else(|error| panic!("{sql}: {error}"))
                .into_iter()
                .map(|row| row.into_iter().map(Option::unwrap_or_default).collect())
                .collect(),
        }
    }
}

/// Stops servers, and asserts that they exited with success, that nothing panicked in them and that no task is pending.
fn stop_and_check(replicas: &mut [Replica], store: StoreAt) {
    let ends: Vec<_> = replicas
        .iter_mut()
        .map(|replica| (replica.process.is_some().then(|| replica.terminate()), replica.log()))
        .collect();
    if thread::panicking() {
        for (index, (_, log)) in ends.iter().enumerate() {
            eprintln!("---- log of server {index} ----\n{log}---- end of the log of server {index} ----");
        }
        return;
    }
    for (status, log) in ends {
        if let Some(status) = status {
            assert!(status.success(), "the server left with {status}:\n{log}");
        }
        assert!(!log.contains("panicked at"), "something panicked in the server:\n{log}");
    }
    let pending = block_on(async move { store.query(PENDING).await });
    assert!(pending.is_empty(), "tasks left pending: {pending:?}");
}

const PENDING: &str = "SELECT id, state FROM task WHERE state NOT IN ('completed', 'failed', 'terminated')";

/// A server that a test can kill, freeze and restart.
pub(crate) struct Replica {
    process: Option<Process>,
    api: Api,
    settings: Settings,
    home: PathBuf,
    stderr: Arc<Mutex<String>>,
}

impl Replica {
    fn start(settings: Settings, home: &Path) -> Self {
        let stderr = Arc::default();
        let (process, url) = Process::start(&settings, home, &stderr);
        Self { process: Some(process), api: Api::new(&url), settings, home: home.to_owned(), stderr }
    }

    /// The HTTP client of the latest process.
    pub(crate) fn api(&self) -> &Api {
        &self.api
    }

    /// What all processes of this replica have logged so far.
    pub(crate) fn log(&self) -> String {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The pid of the process, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        Some(self.process.as_ref()?.child.id())
    }

    /// Kills the process (SIGKILL), as a crash does. Returns the pid of the killed process.
    pub(crate) fn kill_9(&mut self) -> u32 {
        let mut process = self.process.take().expect("a running server");
        process.child.kill().expect("kill");
        process.child.wait().expect("wait");
        process.child.id()
    }

    /// Sends SIGTERM, so that the server drains, and returns its exit status.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("a running server");
        process.terminate()
    }

    /// Starts the server again on the same data, after [`Self::kill_9`] or [`Self::terminate`]. The port may change.
    pub(crate) fn restart(&mut self) {
        assert!(self.process.is_none(), "still running");
        let (process, url) = Process::start(&self.settings, &self.home, &self.stderr);
        self.api = Api::new(&url);
        self.process = Some(process);
    }

    /// Starts the program under test, after another program has ended.
    pub(crate) fn upgrade(&mut self) {
        self.settings.program = None;
        self.restart();
    }

    /// Freezes the process (SIGSTOP), like a suspended machine. Returns its pid once it is stopped.
    pub(crate) fn freeze(&self) -> u32 {
        let process = self.process.as_ref().expect("a running server");
        process.signal("-STOP");
        let pid = process.child.id();
        let is_frozen = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.contains(") T")
        };
        let end = Instant::now() + TIMEOUT;
        while !is_frozen() {
            assert!(Instant::now() < end, "process {pid} does not stop");
            thread::sleep(Duration::from_millis(1));
        }
        pid
    }

    /// Resumes the process (SIGCONT).
    pub(crate) fn thaw(&self) {
        self.process.as_ref().expect("a running server").signal("-CONT");
    }
}

/// Runs a future to its end. `Drop` needs this, because it may run inside a runtime.
fn block_on<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    let run = move || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(future)
    };
    thread::spawn(run).join().expect("no panic")
}

/// Reads rows of an SQLite file that the server owns, while the server uses it.
pub(crate) async fn query(file: &Path, sql: &'static str) -> Vec<sqlx::sqlite::SqliteRow> {
    use sqlx::ConnectOptions as _;
    let mut connection = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(file)
        .busy_timeout(TIMEOUT)
        .connect()
        .await
        .unwrap_or_else(|error| panic!("cannot open {}: {error}", file.display()));
    sqlx::query(sql)
        .fetch_all(&mut connection)
        .await
        .unwrap_or_else(|error| panic!("{sql} on {}: {error}", file.display()))
}

struct Process {
    child: Child,
}

impl Process {
    fn start(settings: &Settings, home: &Path, stderr: &Arc<Mutex<String>>) -> (Self, String) {
        let own = || PathBuf::from(env!("CARGO_BIN_EXE_landfall"));
        let mut command = command_killed_with_parent(settings.program.clone().unwrap_or_else(own));
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(home.join("data"))
            .current_dir(home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        remove_landfall_variables(&mut command);
        command.env("LANDFALL__LOG__LEVEL", "info,landfall=trace").env("RUST_BACKTRACE", "1");
        if !settings.config.is_empty() {
            let file = home.join("landfall.toml");
            std::fs::write(&file, &settings.config).expect("write the configuration");
            command.arg("--config").arg(file);
        }
        command.envs(settings.environment.iter().map(|(name, value)| (name, value)));

        let mut child = command.spawn().expect("start landfall");
        collect(child.stderr.take().expect("piped"), Arc::clone(stderr));
        let lines = lines_of(child.stdout.take().expect("piped"));
        let mut process = Self { child };
        let Some(url) = wait_for_url(&lines) else {
            let status = process.terminate();
            // The reader thread may not have read the last lines yet.
            thread::sleep(Duration::from_millis(100));
            let log = stderr.lock().unwrap_or_else(PoisonError::into_inner).clone();
            panic!("the server did not say where it listens ({status}):\n{log}");
        };
        (process, url)
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().expect("kill is a command");
        assert!(sent.success(), "kill {signal}: {sent}");
    }

    fn terminate(&mut self) -> ExitStatus {
        if let Some(status) = self.child.try_wait().expect("wait") {
            return status;
        }
        self.signal("-TERM");
        // A frozen process handles SIGTERM only after SIGCONT.
        self.signal("-CONT");
        let end = Instant::now() + TIMEOUT;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status;
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.child.kill().expect("kill");
        self.child.wait().expect("wait")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A command that the kernel kills when the thread that started it ends. This needs setpriv.
fn command_killed_with_parent(program: impl AsRef<OsStr>) -> Command {
    let works = Command::new("setpriv").args(["--pdeathsig", "KILL", "true"]).output();
    if works.is_ok_and(|output| output.status.success()) {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

/// Removes the settings that a developer made for their own server.
fn remove_landfall_variables(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LANDFALL") {
            command.env_remove(name);
        }
    }
}

fn collect(mut from: impl Read + Send + 'static, into: Arc<Mutex<String>>) {
    thread::spawn(move || {
        let mut buffer = [0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..read]);
            into.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
        }
    });
}

fn lines_of(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            // Reads the pipe to its end, even without a receiver. A full pipe would block the server.
            let _ = sender.send(line);
        }
    });
    receiver
}

fn wait_for_url(lines: &Receiver<String>) -> Option<String> {
    let end = Instant::now() + TIMEOUT;
    while let Ok(line) = lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
        if let Some(url) = line.strip_prefix("listening on ") {
            return Some(url.trim().trim_end_matches('/').to_owned());
        }
    }
    None
}

/// Sends requests to one server, and checks every answer to an operation of a contract against that contract.
#[derive(Clone)]
pub(crate) struct Api {
    url: String,
    /// Comes before the path of each request.
    base_path: String,
    http: reqwest::Client,
    seen: Arc<Mutex<Seen>>,
}

/// For each checked answer: the name of the contract, the operationId, and the status.
pub(crate) type Seen = BTreeSet<(&'static str, &'static str, u16)>;

/// A complete response.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) text: String,
}

impl Answer {
    /// The body, which must be JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }

    /// Asserts the status, and returns the answer.
    #[track_caller]
    pub(crate) fn with_status(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// The token in a 202 answer. Panics for another status.
    #[track_caller]
    pub(crate) fn token(&self) -> String {
        self.with_status(202);
        match serde_json::from_str(&self.text) {
            Ok(Value::String(token)) => token,
            _ => self.text.clone(),
        }
    }
}

impl Api {
    fn new(url: &str) -> Self {
        // The server closes an idle connection after 5 s. The client closes it earlier, so that no request uses a
        // connection that the server is closing.
        let http = http()
            .timeout(TIMEOUT)
            .pool_idle_timeout(Duration::from_secs(1))
            .build()
            .expect("an HTTP client");
        Self { url: url.to_owned(), base_path: String::new(), http, seen: Arc::default() }
    }

    /// The same server under another base path.
    pub(crate) fn under(&self, prefix: &str) -> Self {
        Self { base_path: format!("{}{prefix}", self.base_path), ..self.clone() }
    }

    /// The URL of the server.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The operations that were called, with the statuses that they answered.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, |request| request).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, |request| request.json(body)).await
    }

    /// Sends any request. `shape` adds headers and a body.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        shape: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Answer {
        self.try_send(method, path, shape).await.unwrap_or_else(|error| panic!("no answer: {error:?}"))
    }

    /// Like [`Self::send`], but returns an error when the server does not answer.
    pub(crate) async fn try_send(
        &self,
        method: &str,
        path: &str,
        shape: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> reqwest::Result<Answer> {
        let url = format!("{}{}{path}", self.url, self.base_path);
        let request = self.http.request(method.parse().expect("a method"), url);
        let response = shape(request).send().await?;
        let status = response.status().as_u16();
        let content_type = response
            .headers()
            .get("content-type")
            .map(|value| value.to_str().expect("ASCII").to_owned())
            .unwrap_or_default();
        let answer = Answer { status, content_type, text: response.text().await? };
        let path = format!("{}{path}", self.base_path);
        let seen = contract::check(method, &path, &answer);
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).extend(seen);
        Ok(answer)
    }

    /// Waits until no task is queued or running.
    pub(crate) async fn settle(&self) {
        let end = Instant::now() + TIMEOUT;
        loop {
            let health = self.get("/landfall/v1/health").await.with_status(200).json();
            if health["queued"] == 0 && health["running"] == 0 {
                return;
            }
            assert!(Instant::now() < end, "still busy after {TIMEOUT:?}: {health:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends a request to /v1/validate, and returns the body of the 200.
    pub(crate) async fn validate(&self, body: &Value) -> Value {
        self.post("/v1/validate", body).await.with_status(200).json()
    }

    /// The status of a provision, unprovision or updateacl task.
    pub(crate) async fn status(&self, token: &str) -> Value {
        self.get(&format!("/v1/provision/{token}/status")).await.with_status(200).json()
    }

    /// Polls a task until it ends, and returns the last status. `path` is the path of the operations of that
    /// kind: `/v1/provision`, `/v2/validate` or `/v1/reverse-provisioning`.
    pub(crate) async fn wait_at(&self, path: &str, token: &str) -> Value {
        let end = Instant::now() + TIMEOUT;
        loop {
            let status = self.get(&format!("{path}/{token}/status")).await.with_status(200).json();
            if status["status"] != "RUNNING" {
                return status;
            }
            assert!(Instant::now() < end, "still running after {TIMEOUT:?}: {status:#}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn wait(&self, token: &str) -> Value {
        self.wait_at("/v1/provision", token).await
    }

    /// Sends a request, polls its task to the end, and returns the last status.
    pub(crate) async fn run(&self, path: &str, body: &Value) -> Value {
        let token = self.post(path, body).await.token();
        self.wait(&token).await
    }

    /// Like [`Self::run`], and asserts that the task completes.
    pub(crate) async fn complete(&self, path: &str, body: &Value) -> Value {
        let status = self.run(path, body).await;
        assert_eq!(status["status"], "COMPLETED", "{status:#}");
        status
    }

    pub(crate) async fn provision_and_wait(&self, body: &Value) -> Value {
        self.complete("/v1/provision", body).await
    }
}

/// A client for servers without TLS.
pub(crate) fn http() -> reqwest::ClientBuilder {
    https(Trust::Nobody, None)
}

/// A client with these trusted roots and an optional client certificate with its key.
pub(crate) fn https(trust: Trust<'_>, identity: Option<(&Path, &Path)>) -> reqwest::ClientBuilder {
    let tls = landfall_adapter::tls::client(trust, identity).expect("the files are in order");
    #[expect(clippy::disallowed_methods, reason = "this function sets the TLS configuration")]
    reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls)
}

/// Everything in the embedded lakehouse, for comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resources {
    /// `namespace.table` and the path of its current metadata.
    pub(crate) tables: Vec<(String, PathBuf)>,
    /// The files of the warehouse: the path relative to the warehouse, and the size.
    pub(crate) files: Vec<(PathBuf, u64)>,
}

impl Resources {
    async fn read(data_dir: &Path) -> Self {
        let catalog = data_dir.join("catalog.db");
        let mut tables = Vec::new();
        if catalog.exists() {
            let sql =
                "SELECT table_namespace, table_name, metadata_location FROM iceberg_tables ORDER BY 1, 2";
            for row in query(&catalog, sql).await {
                let name = format!("{}.{}", row.get::<String, _>(0), row.get::<String, _>(1));
                let location: String = row.get(2);
                tables.push((name, PathBuf::from(location.trim_start_matches("file://"))));
            }
        }
        let mut files = Vec::new();
        let warehouse = data_dir.join("warehouse");
        walk(&warehouse, &mut |path| {
            let size = path.metadata().map(|metadata| metadata.len()).unwrap_or_default();
            files.push((path.strip_prefix(&warehouse).expect("inside").to_owned(), size));
        });
        files.sort();
        Self { tables, files }
    }

    /// The storage areas.
    pub(crate) fn buckets(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .files
            .iter()
            .filter_map(|(path, _)| path.strip_prefix("buckets").ok()?.components().next())
            .map(|first| first.as_os_str().to_string_lossy().into_owned())
            .collect();
        names.dedup();
        names
    }

    /// The metadata document of the only table.
    #[track_caller]
    pub(crate) fn only_table(&self) -> Value {
        let [(_, metadata)] = self.tables.as_slice() else { panic!("not one table: {:?}", self.tables) };
        let text = std::fs::read_to_string(metadata)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", metadata.display()));
        serde_json::from_str(&text).expect("Iceberg metadata is JSON")
    }
}

/// Calls `visit` with every file below a folder.
pub(crate) fn walk(folder: &Path, visit: &mut impl FnMut(&Path)) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a folder can be read").path();
        if path.is_dir() {
            walk(&path, visit);
        } else {
            visit(&path);
        }
    }
}

/// Changes an SQLite file that the server owns.
pub(crate) async fn query_write(file: &Path, sql: &'static str) {
    query(file, sql).await;
}

/// The root of the repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command of the program under test.
pub(crate) fn landfall<I: AsRef<OsStr>>(arguments: impl IntoIterator<Item = I>) -> CommandOutput {
    landfall_with(&[], "", arguments)
}

/// Runs a command with environment variables and standard input.
pub(crate) fn landfall_with<I: AsRef<OsStr>>(
    environment: &[(&str, &str)],
    stdin: &str,
    arguments: impl IntoIterator<Item = I>,
) -> CommandOutput {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
    remove_landfall_variables(&mut command);
    let mut child = command
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(repository())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    // The command may end without reading its input.
    let _ = child.stdin.take().expect("piped").write_all(stdin.as_bytes());
    let output = child.wait_with_output().expect("the program ends");
    CommandOutput {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// How a command ended, and what it printed.
#[derive(Debug)]
pub(crate) struct CommandOutput {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl CommandOutput {
    /// Asserts the exit code, and returns itself.
    #[track_caller]
    pub(crate) fn with_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    /// Its stdout as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }
}

/// Runs a pinned Python tool to its end and returns its output. Panics when the tool fails.
pub(crate) fn python<'a>(arguments: impl IntoIterator<Item = &'a OsStr>) -> String {
    let home = TempDir::with_prefix("landfall-home-").expect("a temporary folder");
    let output = tool("python")
        .args(arguments)
        .current_dir(repository())
        // DuckDB stores its extensions in the home folder.
        .env("HOME", home.path())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap_or_else(|error| panic!("cannot run python: {error}"));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "python left with {}:\n{stdout}\n{stderr}", output.status);
    stdout
}

/// A program of the pinned Python environment.
pub(crate) fn tool(name: &str) -> Command {
    let tools =
        std::env::var_os("LANDFALL_TOOLS").map_or_else(|| repository().join("target/tools"), PathBuf::from);
    let program = tools.join("venv/bin").join(name);
    assert!(program.exists(), "{} is missing: run `make tools`, or `make test`", program.display());
    Command::new(program)
}

/// The data product of the contract documentation.
pub(crate) fn cashflow() -> String {
    std::fs::read_to_string(repository().join("examples/cashflow.yaml")).expect("the example is there")
}

/// [`cashflow`], with its sample rows loaded.
pub(crate) fn cashflow_with_rows() -> String {
    replace_once(&cashflow(), "format: Iceberg", "format: Iceberg\n      loadSampleData: true")
}

/// `text` with another name of the data product, so that it shares no resource with the example.
pub(crate) fn cashflow_named(text: &str, name: &str) -> String {
    text.replace("finance:cashflow:0", &format!("finance:{name}:0"))
        .replace("bucket: finance-cashflows", &format!("bucket: finance-{name}"))
}

/// Replaces the only occurrence of `from` in `text`.
#[track_caller]
pub(crate) fn replace_once(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "`{from}` must be there once");
    text.replacen(from, to, 1)
}

/// The second base path of the default configuration.
pub(crate) const PREFIX: &str = "/datamesh.specificprovisioner";

/// The path of the topology instances.
pub(crate) const INSTANCES: &str = "/flexdeploy/rest/v1/topology/instance";

/// The base path of the Airbyte contract. The server accepts any version in it.
pub(crate) const AIRBYTE: &str = "/datamesh.airbytespecificprovisioner/0.0.1";

pub(crate) const OUTPUT_PORT: &str = "urn:dmb:cmp:finance:cashflow:0:cashflow-output-port";
pub(crate) const WORKLOAD: &str = "urn:dmb:cmp:finance:cashflow:0:cashflow-calculation";
pub(crate) const STORAGE: &str = "urn:dmb:cmp:finance:cashflow:0:storage-component";

/// A ProvisioningRequest for a whole data product.
pub(crate) fn product_request(descriptor: &str) -> Value {
    json!({ "descriptorKind": "DATAPRODUCT_DESCRIPTOR", "descriptor": descriptor, "removeData": false })
}

/// A ProvisioningRequest for one component of a data product.
pub(crate) fn component_request(descriptor: &str, component: &str) -> Value {
    json!({
        "descriptorKind": "COMPONENT_DESCRIPTOR",
        "descriptor": component_descriptor(descriptor, component),
        "removeData": false,
    })
}

/// The YAML of a COMPONENT_DESCRIPTOR.
pub(crate) fn component_descriptor(descriptor: &str, component: &str) -> String {
    let mut text = String::from("dataProduct:\n");
    for line in descriptor.lines() {
        let _ = writeln!(text, "  {line}");
    }
    let _ = writeln!(text, "componentIdToProvision: {component}");
    text
}

/// The body of an updateacl for one component.
pub(crate) fn acl_request(descriptor: &str, component: &str, refs: &[&str]) -> Value {
    json!({
        "refs": refs,
        "provisionInfo": { "request": component_descriptor(descriptor, component), "result": "" },
    })
}

/// The body of an updateacl in the Airbyte contract.
pub(crate) fn airbyte_acl_request(
    descriptor: &str,
    component: &str,
    users: &[&str],
    groups: &[&str],
) -> Value {
    json!({
        "acl": { "users": users, "groups": groups },
        "provisionInfo": { "request": component_descriptor(descriptor, component) },
    })
}

/// The messages of a task's log.
pub(crate) fn messages(status: &Value) -> Vec<String> {
    status["logs"]
        .as_array()
        .map(|lines| {
            lines.iter().map(|line| line["message"].as_str().unwrap_or_default().to_owned()).collect()
        })
        .unwrap_or_default()
}
