//! `[targets.CODE] driver = "exec"`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use landfall_adapter::descriptor::Object;
use landfall_adapter::schemars::JsonSchema;
use landfall_adapter::settings::{Count, SecretReference, Span};
use landfall_adapter::{Driver, Mistakes, Services};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use tokio::sync::OnceCell;

use crate::plugin::{Plugin, Shared};
use crate::protocol::PROTOCOL;
use crate::run::Program;
use crate::supervisor::{ARGUMENT as SUPERVISE, supervise};
use crate::tools;

/// Variables of Landfall that a plug-in gets. Others may have secrets of other targets.
const PASSED_ON: [&str; 9] =
    ["HOME", "LANG", "LC_ALL", "PATH", "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR", "TZ", "USER"];
/// Says which protocol Landfall speaks, before a plug-in has read anything.
const PROTOCOL_VARIABLE: &str = "LANDFALL_PROTOCOL";

/// The driver of plug-ins.
#[derive(Debug, Clone)]
pub struct ExecDriver {
    supervisor: PathBuf,
}

impl Default for ExecDriver {
    /// This program supervises: it calls [`supervise`](crate::supervise) when its first argument is
    /// [`SUPERVISE`](crate::SUPERVISE).
    fn default() -> Self {
        // Also when the file was replaced by a newer version in the meantime.
        Self::supervised_by("/proc/self/exe")
    }
}

impl ExecDriver {
    /// Another program supervises.
    pub fn supervised_by(program: impl Into<PathBuf>) -> Self {
        Self { supervisor: program.into() }
    }
}

/// The settings in `[targets.CODE]`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "landfall_adapter::schemars")]
pub struct Settings {
    /// The absolute path of the program, and its arguments. Landfall adds the verb.
    command: Vec<String>,
    /// Variables of the plug-in: texts, or references to secrets.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    env: BTreeMap<String, Variable>,
    /// Handed to the plug-in with each request.
    #[serde(default)]
    settings: Object,
    /// The identity sources that look up refs, in this order.
    identity: Option<Vec<String>>,
    /// The working directory.
    #[serde(default = "root")]
    directory: PathBuf,
    /// The longest time of a run.
    #[serde(default = "timeout")]
    timeout: Span<1000>,
    /// Time to end after SIGTERM, before SIGKILL.
    #[serde(default = "grace")]
    grace: Span,
    /// How long a plug-in goes on while Landfall gives no sign. Shorter than `operations.lease`.
    #[serde(default = "silence")]
    silence: Span<2000>,
    /// The longest line on standard output, in bytes.
    #[serde(default = "max_line")]
    max_line: Count,
    /// The most output of a run, in bytes.
    #[serde(default = "max_output")]
    max_output: Count,
    /// The most lines of a run in the log of the operation.
    #[serde(default = "max_log_lines")]
    max_log_lines: Count,
}

fn root() -> PathBuf {
    PathBuf::from("/")
}

fn timeout() -> Span<1000> {
    Span::new(Duration::from_secs(3600))
}

fn grace() -> Span {
    Span::new(Duration::from_secs(10))
}

fn silence() -> Span<2000> {
    Span::new(Duration::from_secs(10))
}

fn max_line() -> Count {
    Count::new(1 << 20)
}

fn max_output() -> Count {
    Count::new(64 << 20)
}

fn max_log_lines() -> Count {
    Count::new(10_000)
}

/// The value of a variable.
#[derive(Debug)]
enum Variable {
    Text(String),
    Secret(SecretReference),
}

impl<'de> Deserialize<'de> for Variable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Self::Text(text)),
            other => serde_json::from_value(other)
                .map(Self::Secret)
                .map_err(|error| D::Error::custom(format!("{error}, or a text that is no secret"))),
        }
    }
}

impl Driver for ExecDriver {
    type Settings = Settings;
    type Technology = Plugin;

    fn name(&self) -> &'static str {
        "exec"
    }

    fn open(&self, settings: Settings, services: &Services<'_>) -> Result<Plugin, Mistakes> {
        let mut mistakes = Mistakes::new();
        let name = match settings.command.first() {
            None => {
                mistakes.add("command", "is empty; write the absolute path of a program, then its arguments");
                None
            }
            Some(program) => {
                if let Some(problem) = program_problem(program, services.will_serve()) {
                    mistakes.add("command", problem);
                }
                Path::new(program).file_name().map(|name| name.to_string_lossy().into_owned())
            }
        };
        if services.will_serve() && !settings.directory.is_dir() {
            let directory = settings.directory.display();
            mistakes.add("directory", format_args!("`{directory}` is no directory; name an existing one"));
        }
        let mut env = passed_on(|name| services.variable(name).map(str::to_owned));
        for (name, value) in &settings.env {
            if name.is_empty() || name.contains(['=', '\0']) || name == PROTOCOL_VARIABLE {
                mistakes.add("env", format_args!("`{name}` cannot be set; choose another name"));
                continue;
            }
            let text = match value {
                Variable::Text(text) => Some(text.clone()),
                Variable::Secret(reference) => {
                    let secret = services.secret(&format!("env.{name}"), reference);
                    mistakes.keep(secret).map(|secret| secret.expose().to_owned())
                }
            };
            env.extend(text.map(|text| (name.clone(), text)));
        }
        let directory = mistakes.keep(services.directory("identity", settings.identity.as_deref()));
        let (name, directory) = mistakes.or(name.zip(directory))?;
        let program = Program {
            name,
            command: settings.command,
            env,
            directory: settings.directory,
            supervisor: self.supervisor.clone(),
            timeout: settings.timeout.get(),
            grace: settings.grace.get(),
            silence: settings.silence.get(),
            max_line: usize::try_from(settings.max_line.get()).unwrap_or(usize::MAX),
            max_output: settings.max_output.get().into(),
            max_log_lines: settings.max_log_lines.get().into(),
            observed: None,
        };
        Ok(Plugin::new(Shared {
            program: Arc::new(program),
            target: services.target().to_owned(),
            settings: settings.settings,
            directory,
            description: OnceCell::new(),
        }))
    }

    fn help(&self, argument: &OsStr) -> Option<ExitCode> {
        match argument.to_str() {
            Some(SUPERVISE) => Some(supervise()),
            Some(tools::COMMAND) => Some(tools::run()),
            _ => None,
        }
    }

    fn commands(&self) -> &'static [(&'static str, &'static str)] {
        &[(tools::COMMAND, "Make, check and run programs for targets with `driver = \"exec\"`")]
    }
}

/// The variables that every plug-in gets.
pub(crate) fn passed_on(variable: impl Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let passed_on = PASSED_ON.iter().filter_map(|name| Some(((*name).to_owned(), variable(name)?)));
    passed_on.chain([(PROTOCOL_VARIABLE.to_owned(), PROTOCOL.to_owned())]).collect()
}

/// Why a program cannot be started, if it cannot.
fn program_problem(program: &str, look: bool) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let path = Path::new(program);
    if !path.is_absolute() {
        return Some(format!("`{program}` is no absolute path; a search in PATH could find another program"));
    }
    if !look {
        return None;
    }
    match std::fs::metadata(path) {
        Err(error) => Some(format!("`{program}` cannot be used: {error}")),
        Ok(found) if !found.is_file() => Some(format!("`{program}` is no file; name a program")),
        Ok(found) if found.permissions().mode() & 0o111 == 0 => {
            Some(format!("`{program}` is not executable; run `chmod +x` on it"))
        }
        Ok(_) => None,
    }
}
