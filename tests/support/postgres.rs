//! A real PostgreSQL for tests and measurements: its own folder, a free loopback port, SCRAM, nothing left behind.
//!
//! This file depends on no other file of the tests. Each crate that needs a server includes it with `#[path]`.
//!
//! A shell supervises the server and reads a pipe from the test process. When the pipe closes, the shell stops the
//! server and removes the folder. The pipe closes when the value is dropped, when the process returns from `main` with
//! the server in a static, and when the process is killed. The shell and the server do not run as root, because
//! PostgreSQL refuses that. They have a process group of their own, so that an interrupt from the terminal does not
//! reach them directly.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Column, ConnectOptions, Connection, Row, ValueRef};

/// The oldest release that the store supports.
const OLDEST: u32 = 15;
const SUPERUSER: &str = "fixture";
/// How long a server may take to start, to recover or to stop, on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How many ports are tried.
const PORTS: usize = 20;

/// The values of a row as text. `None` is NULL.
pub(crate) type TextRow = Vec<Option<String>>;

/// What survives a power failure. In both cases, committed data survives the loss of the server processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The default of PostgreSQL: a commit is on disk.
    Safe,
    /// No fsync, for tests that need no durability.
    Fast,
}

/// A running server. It stops, and its folder is removed, when the value is dropped or this process ends.
pub(crate) struct PostgresServer {
    supervisor: Mutex<Supervisor>,
    folder: PathBuf,
    port: u16,
    password: String,
    databases: AtomicU32,
}

impl PostgresServer {
    /// Makes a cluster and starts it. The error says what is missing and how to get it.
    pub(crate) fn start(durability: Durability) -> Result<Self, String> {
        let programs = programs()?;
        let password = random_text()?;
        let mut supervisor = Supervisor::start(&programs)?;
        let folder = supervisor.make(&password, durability)?;
        for _ in 0..PORTS {
            let port = free_port()?;
            supervisor.ask(&format!("start {port}"), "started")?;
            let server = Self {
                supervisor: Mutex::new(supervisor),
                folder: folder.clone(),
                port,
                password: password.clone(),
                databases: AtomicU32::new(0),
            };
            match server.await_answer() {
                Ok(()) => return Ok(server),
                // Another process took the port: try the next port.
                Err(error) if error.contains("Address already in use") => {
                    supervisor = server.into_supervisor();
                    supervisor.ask("stop QUIT", "stopped")?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(format!("no free port for PostgreSQL in {PORTS} attempts"))
    }

    /// The server for the whole process, started on first use with [`Durability::Fast`].
    pub(crate) fn shared() -> Result<&'static Self, String> {
        static SHARED: OnceLock<Result<PostgresServer, String>> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(Durability::Fast)).as_ref().map_err(Clone::clone)
    }

    /// Makes a database with a role of its own, which has a password and is no superuser. Returns the URL.
    pub(crate) fn new_database(&self) -> Result<String, String> {
        let name = format!("landfall_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let password = random_text()?;
        self.psql(&format!("CREATE ROLE {name} LOGIN PASSWORD '{password}'"))?;
        self.psql(&format!("CREATE DATABASE {name} OWNER {name}"))?;
        Ok(format!("postgres://{name}:{password}@{}:{}/{name}", Ipv4Addr::LOCALHOST, self.port))
    }

    /// Makes a database for a PostgreSQL target. Its role may make roles and databases. Returns the URL, and
    /// the name that the database and the role share.
    pub(crate) fn new_target(&self) -> Result<(String, String), String> {
        let url = self.new_database()?;
        let (_, name) = url.rsplit_once('/').ok_or("no database in the URL")?;
        let name = name.to_owned();
        self.psql(&format!("ALTER ROLE {name} CREATEROLE CREATEDB"))?;
        Ok((url, name))
    }

    /// The port of the server.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The folder of the server. It belongs to the user that runs the server.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs SQL as the superuser, outside of the databases of tests.
    pub(crate) fn psql(&self, sql: &str) -> Result<Vec<TextRow>, String> {
        query(&self.superuser_url(), sql)
    }

    /// Runs SQL as the superuser, in the database of a test.
    pub(crate) fn psql_in(&self, database: &str, sql: &str) -> Result<Vec<TextRow>, String> {
        let url = self.superuser_url();
        let (server, _) = url.rsplit_once('/').ok_or("no database in the URL")?;
        query(&format!("{server}/{database}"), sql)
    }

    /// Ends every process of the server at once, like a crash (`pg_ctl stop -m immediate`). Connections are reset, no
    /// transaction is finished, and the next start recovers.
    pub(crate) fn kill_immediately(&self) -> Result<(), String> {
        self.supervisor().ask("stop QUIT", "stopped")
    }

    /// Starts the server again on the same port and data, after [`Self::kill_immediately`]. Returns once it answers.
    pub(crate) fn restart(&self) -> Result<(), String> {
        self.supervisor().ask(&format!("start {}", self.port), "started")?;
        self.await_answer()
    }

    /// Freezes every process of the server (SIGSTOP). The kernel still accepts connections, but the server does not
    /// answer on them.
    pub(crate) fn freeze(&self) -> Result<(), String> {
        self.supervisor().ask("signal STOP", "signalled")
    }

    /// Resumes the server after [`Self::freeze`].
    pub(crate) fn thaw(&self) -> Result<(), String> {
        self.supervisor().ask("signal CONT", "signalled")
    }

    /// What the server has logged.
    pub(crate) fn log(&self) -> String {
        let text = fs::read(self.folder.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    fn superuser_url(&self) -> String {
        format!("postgres://{SUPERUSER}:{}@{}:{}/postgres", self.password, Ipv4Addr::LOCALHOST, self.port)
    }

    fn supervisor(&self) -> std::sync::MutexGuard<'_, Supervisor> {
        self.supervisor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn into_supervisor(self) -> Supervisor {
        self.supervisor.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn await_answer(&self) -> Result<(), String> {
        let end = Instant::now() + TIMEOUT;
        loop {
            let Err(error) = self.psql("SELECT 1") else { return Ok(()) };
            let alive = self.supervisor().ask("alive", "alive").is_ok();
            if !alive || Instant::now() >= end {
                return Err(format!("PostgreSQL does not answer: {error}\nits log:\n{}", self.log()));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Runs SQL on any database, in one implicit transaction. The SQL runs on its own thread, so any caller may
/// wait for the result.
pub(crate) fn query(url: &str, sql: &str) -> Result<Vec<TextRow>, String> {
    let (url, sql) = (url.to_owned(), sql.to_owned());
    let run = move || -> Result<Vec<TextRow>, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| error.to_string())?.block_on(async {
            tokio::time::timeout(TIMEOUT, fetch(&url, &sql))
                .await
                .map_err(|_| format!("no answer within {TIMEOUT:?}"))?
                .map_err(|error| error.to_string())
        })
    };
    thread::spawn(run).join().map_err(|_| "the query panicked".to_owned())?
}

async fn fetch(url: &str, sql: &str) -> sqlx::Result<Vec<TextRow>> {
    let options: PgConnectOptions = url.parse()?;
    let mut connection: PgConnection = options.disable_statement_logging().connect().await?;
    // The simple protocol returns text for every type.
    let rows = sqlx::raw_sql(sql).fetch_all(&mut connection).await?;
    let mut texts = Vec::with_capacity(rows.len());
    for row in rows {
        let mut text = TextRow::new();
        for column in row.columns() {
            let value = row.try_get_raw(column.ordinal())?;
            let read = || value.as_str().map(str::to_owned).map_err(sqlx::Error::Decode);
            text.push(if value.is_null() { None } else { Some(read()?) });
        }
        texts.push(text);
    }
    connection.close().await?;
    Ok(texts)
}

/// The shell that owns the server. It answers each line with one line.
struct Supervisor {
    child: Child,
    /// Dropped first: the closed pipe makes the shell clean up.
    commands: Option<ChildStdin>,
    answers: Receiver<String>,
}

/// The script of the shell. `$1` is the folder of the programs, `$2` the parent of temporary folders.
const SCRIPT: &str = r#"
trap '' HUP INT TERM PIPE
umask 077
folder=$(mktemp -d "$2/landfall-postgres-XXXXXXXX") || { echo "failed: no folder can be made in $2"; exit 1; }
server=
signal() {
  for process in "$server" $(cat "/proc/$server/task/$server/children" 2>/dev/null); do
    kill "-$1" "$process" 2>/dev/null
  done
}
stop() {
  if [ -n "$server" ]; then
    kill "-$1" "$server" 2>/dev/null
    signal CONT
    wait "$server" 2>/dev/null
    server=
  fi
}
while IFS=' ' read -r command first second; do
  case "$command" in
    make)
      printf '%s' "$first" > "$folder/password"
      if "$1/initdb" --pgdata="$folder/data" --username=fixture --pwfile="$folder/password" \
          --auth=scram-sha-256 --encoding=UTF8 --locale=C --no-sync > "$folder/log" 2>&1; then
        {
          echo "fsync = $second"
          echo "full_page_writes = $second"
          echo "listen_addresses = '127.0.0.1'"
          echo "unix_socket_directories = ''"
          echo "password_encryption = 'scram-sha-256'"
          echo "max_connections = 200"
          echo "shared_buffers = 32MB"
          echo "log_line_prefix = '%m [%p] %q%u@%d '"
        } >> "$folder/data/postgresql.conf"
        echo "made $folder"
      else
        echo "failed: initdb: $(tr '\n' ' ' < "$folder/log")"
      fi
      ;;
    start)
      "$1/postgres" -D "$folder/data" -p "$first" >> "$folder/log" 2>&1 < /dev/null &
      server=$!
      echo "started"
      ;;
    alive)
      # One that has ended and was not waited for is still there for kill, in state Z.
      state=$(sed 's/.*) //' "/proc/$server/stat" 2>/dev/null)
      case "$state" in ''|Z*) echo "failed: it has ended" ;; *) echo "alive" ;; esac
      ;;
    signal)
      signal "$first"
      echo "signalled"
      ;;
    stop)
      stop "$first"
      echo "stopped"
      ;;
  esac
done
stop QUIT
rm -rf "$folder"
"#;

impl Supervisor {
    fn start(programs: &Path) -> Result<Self, String> {
        let mut command = unprivileged_command()?;
        command
            .args(["sh", "-c", SCRIPT, "landfall-postgres"])
            .arg(programs)
            .arg(std::env::temp_dir())
            // The user of the server may not be able to read the current folder.
            .current_dir("/")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()))
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut child = command.spawn().map_err(|error| format!("cannot run {command:?}: {error}"))?;
        let answers = child.stdout.take().ok_or("no pipe")?;
        Ok(Self { commands: child.stdin.take(), answers: lines(answers), child })
    }

    fn make(&mut self, password: &str, durability: Durability) -> Result<PathBuf, String> {
        let fsync = match durability {
            Durability::Safe => "on",
            Durability::Fast => "off",
        };
        let answer = self.answer(&format!("make {password} {fsync}"))?;
        answer.strip_prefix("made ").map(PathBuf::from).ok_or(answer)
    }

    fn ask(&mut self, command: &str, expected: &str) -> Result<(), String> {
        let answer = self.answer(command)?;
        if answer == expected { Ok(()) } else { Err(answer) }
    }

    fn answer(&mut self, command: &str) -> Result<String, String> {
        let lost = |what: &dyn std::fmt::Display| format!("the shell around PostgreSQL is lost: {what}");
        let pipe = self.commands.as_mut().ok_or_else(|| lost(&"it was stopped"))?;
        pipe.write_all(format!("{command}\n").as_bytes()).map_err(|error| lost(&error))?;
        self.answers.recv_timeout(TIMEOUT).map_err(|error| lost(&error))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        drop(self.commands.take());
        let _ = self.child.wait();
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The folder with `initdb` and `postgres`: on the PATH, or where Debian puts the newest.
fn programs() -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut installed: Vec<PathBuf> = installed.map(|version| version.path().join("bin")).collect();
    installed.sort_by_key(|folder| std::cmp::Reverse(release(folder)));
    folders.extend(installed);
    folders.into_iter().find(|folder| release(folder) >= Some(OLDEST)).ok_or_else(|| {
        format!(
            "no initdb and postgres of PostgreSQL {OLDEST} or newer, neither on the PATH nor in \
             /usr/lib/postgresql/*/bin: run `make tools`, or install the package postgresql"
        )
    })
}

/// The release of the server programs in a folder; `None` without server programs.
fn release(folder: &Path) -> Option<u32> {
    if !folder.join("initdb").is_file() {
        return None;
    }
    let output = Command::new(folder.join("postgres")).arg("--version").output().ok()?;
    // "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"
    let text = String::from_utf8(output.stdout).ok()?;
    let version = text.split(' ').nth(2)?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// A command that runs its arguments without root rights: as the current user, or, when that is root, as `postgres` or
/// `nobody`.
fn unprivileged_command() -> Result<Command, String> {
    if id(&["-u"]) != Some(0) {
        return Ok(Command::new("env"));
    }
    for user in ["postgres", "nobody"] {
        let (Some(uid), Some(gid)) = (id(&["-u", user]), id(&["-g", user])) else { continue };
        let ways = [
            (
                "setpriv",
                vec![format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()],
            ),
            ("runuser", vec!["-u".to_owned(), user.to_owned(), "--".to_owned()]),
        ];
        for (program, arguments) in ways {
            let works = Command::new(program).args(&arguments).arg("true").stdin(Stdio::null()).output();
            if works.is_ok_and(|output| output.status.success()) {
                let mut command = Command::new(program);
                command.args(arguments);
                return Ok(command);
            }
        }
    }
    Err("PostgreSQL does not run as root, and neither setpriv nor runuser can switch to another user: install \
         util-linux, or run as another user"
        .to_owned())
}

fn id(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).stderr(Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// A port that is free now, below the range from which the kernel assigns ports. The kernel gives it to no other
/// process while the server is down. (In that range, a client that connects to a closed loopback port may get the same
/// port as its own source port, and then talks to itself.)
fn free_port() -> Result<u16, String> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let lowest_given: u16 =
        range.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(32_768);
    let end = lowest_given.clamp(10_000, 32_768);
    for _ in 0..1000 {
        let port = 5_000 + u16::from_le_bytes(random_bytes()?) % (end - 5_000);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err("no free port".to_owned())
}

fn random_text() -> Result<String, String> {
    let bytes: [u8; 16] = random_bytes()?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn random_bytes<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    let mut source = fs::File::open("/dev/urandom").map_err(|error| format!("/dev/urandom: {error}"))?;
    source.read_exact(&mut bytes).map_err(|error| format!("/dev/urandom: {error}"))?;
    Ok(bytes)
}

/// No crate uses all items. Naming them here prevents warnings about dead code.
const _: () = {
    let _ = (Durability::Safe, Durability::Fast);
    let _ = PostgresServer::shared;
    let _ = PostgresServer::new_database;
    let _ = PostgresServer::port;
    let _ = PostgresServer::psql_in;
    let _ = PostgresServer::folder;
    let _ = PostgresServer::kill_immediately;
    let _ = (PostgresServer::freeze, PostgresServer::thaw);
    let _ = PostgresServer::restart;
};
