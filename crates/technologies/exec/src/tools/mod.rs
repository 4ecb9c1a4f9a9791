//! `landfall plugin`: tools for authors of plug-ins.

mod check;
mod scaffold;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use clap::{Args, Parser, Subcommand, ValueEnum};
use landfall_adapter::access::{Directory, Template, TemplateSettings};
use landfall_adapter::descriptor::{DescriptorKind, Limits, Object, Problem, Strictness, parse};
use landfall_adapter::error::{Error, Kind};
use landfall_adapter::{Bound, Context, Intent, Memory, Neighbours, Result, Running, Technology, Work};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::driver;
use crate::plugin::{BoundPlugin, Plugin, Shared};
use crate::run::{Observed, Program};

/// The first argument.
pub(crate) const COMMAND: &str = "plugin";

/// Make, check and run programs for targets with `driver = "exec"`.
#[derive(Debug, Parser)]
#[command(name = "landfall plugin", version)]
struct Arguments {
    #[command(subcommand)]
    tool: Tool,
}

#[derive(Debug, Subcommand)]
enum Tool {
    /// Write a new program that passes `check`, into a new file
    New {
        /// The file, such as `orders.py`; it must not exist
        file: PathBuf,
        /// The language
        #[arg(long, value_enum)]
        lang: Language,
    },
    /// Provision, repeat, grant, stop and remove a component, and report each fault of the program by name
    Check {
        #[command(flatten)]
        subject: Subject,
        /// The format of the report
        #[arg(long, value_enum, default_value = "text")]
        report: Report,
        /// The longest time of one run, in seconds
        #[arg(long, default_value_t = 60)]
        timeout: u64,
    },
    /// Run one verb, and show the log and the result
    Run {
        /// What to do
        #[arg(value_enum)]
        verb: RunVerb,
        /// For `unprovision`: delete the data too
        #[arg(long)]
        remove_data: bool,
        #[command(flatten)]
        subject: Subject,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Language {
    Python,
    Sh,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Report {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RunVerb {
    Describe,
    Check,
    Plan,
    Provision,
    Unprovision,
}

/// A program and a component.
#[derive(Debug, Args)]
struct Subject {
    /// Descriptor of a data product (YAML); by default one with an output port of three columns
    #[arg(long)]
    descriptor: Option<PathBuf>,
    /// The id of the component in it; by default the first one
    #[arg(long)]
    component: Option<String>,
    /// `specific` of the default component, as JSON
    #[arg(long, conflicts_with = "descriptor")]
    specific: Option<String>,
    /// `settings` of the target, as JSON
    #[arg(long, default_value = "{}")]
    settings: String,
    /// A file that keeps the state of the component between calls
    #[arg(long)]
    state: Option<PathBuf>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// The descriptor that is used without `--descriptor`; `KIND` and `SPECIFIC` are replaced.
const DEFAULT: &str = "\
{id: 'urn:dmb:dp:landfall:plugin-check:0', name: Plug-in check, version: 0.1.0, environment: check, domain: landfall,
 components: [{id: 'urn:dmb:cmp:landfall:plugin-check:0:component', name: Component, version: 0.1.0, kind: KIND,
 dataContract: {schema: [{name: id, dataType: BIGINT}, {name: name, dataType: TEXT}, {name: amount, dataType: DOUBLE}]},
 specific: SPECIFIC}]}";

/// Runs a tool, and returns its exit code: 0 done, 1 a fault or a failure, 2 wrong usage.
pub(crate) fn run() -> ExitCode {
    let arguments =
        Arguments::parse_from(std::iter::once("landfall plugin".into()).chain(std::env::args_os().skip(2)));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let done = match (runtime, arguments.tool) {
        (Err(error), _) => Err(error.to_string()),
        (Ok(_), Tool::New { file, lang }) => scaffold::write(&file, lang).map(|()| true),
        (Ok(runtime), Tool::Check { subject, report, timeout }) => {
            runtime.block_on(check::run(&subject, report, Duration::from_secs(timeout)))
        }
        (Ok(runtime), Tool::Run { verb, remove_data, subject }) => {
            runtime.block_on(one(&subject, verb, remove_data))
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// A plug-in that is not on a configured target, and what is seen of its runs.
struct Bench {
    plugin: Plugin,
    observed: Arc<Mutex<Vec<Observed>>>,
    memory: Arc<File>,
}

impl Bench {
    fn new(subject: &Subject, timeout: Duration) -> Result<Self, String> {
        let command = absolute(&subject.command)?;
        let settings: Object = serde_json::from_str(&subject.settings)
            .map_err(|error| format!("--settings is no JSON object: {error}"))?;
        let observed = Arc::<Mutex<Vec<Observed>>>::default();
        let variables: BTreeMap<String, String> = std::env::vars().collect();
        let mut env = driver::passed_on(|name| variables.get(name).cloned());
        // An author's shell is the operator: all its variables are handed on.
        env.extend(variables);
        let program = Program {
            name: command.first().map(|path| name_of(path)).unwrap_or_default(),
            command,
            env,
            directory: "/".into(),
            supervisor: "/proc/self/exe".into(),
            timeout,
            grace: Duration::from_secs(3),
            silence: Duration::from_secs(10),
            max_line: 1 << 20,
            max_output: 64 << 20,
            max_log_lines: 10_000,
            observed: Some(Arc::clone(&observed)),
        };
        let plugin = Plugin::new(Shared {
            program: Arc::new(program),
            target: "CHECK".to_owned(),
            settings,
            directory: Directory::new(vec![Arc::new(Template::new(TemplateSettings::default()))]),
            description: OnceCell::new(),
        });
        let memory = Arc::new(File::open(subject.state.clone())?);
        Ok(Self { plugin, observed, memory })
    }

    fn context(&self) -> Context {
        Context::default().with_memory(Arc::clone(&self.memory) as Arc<dyn Memory>)
    }

    /// What was seen since the last call.
    fn seen(&self) -> Vec<Observed> {
        std::mem::take(&mut self.observed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The component of the subject.
    fn work(&self, subject: &Subject) -> Result<Work, String> {
        let text = match &subject.descriptor {
            Some(path) => fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?,
            None => {
                let specific = subject.specific.as_deref().unwrap_or("{}");
                serde_json::from_str::<Object>(specific)
                    .map_err(|error| format!("--specific is no JSON object: {error}"))?;
                let kind = self.plugin.first_kind();
                DEFAULT.replace("KIND", kind.as_deref().unwrap_or("outputport")).replace("SPECIFIC", specific)
            }
        };
        let limits = Limits::default();
        let descriptor = parse(DescriptorKind::DataProduct, text, Strictness::Full, &limits, &|_| true)
            .map_err(|rejected| told(&rejected.problems))?;
        let all: Vec<_> = descriptor.product.all_components().collect();
        let component = match &subject.component {
            None => all.first().copied(),
            Some(id) => all.into_iter().find(|component| component.id.as_str() == id),
        };
        let component = component.ok_or("the descriptor has no such component")?.clone();
        let sent = descriptor.sent(&descriptor.sent_product(), &component);
        Ok(Work {
            environment: descriptor.product.environment.clone().unwrap_or_default(),
            product: Arc::new(descriptor.product),
            component: Arc::new(component),
            access: None,
            neighbours: Neighbours::default(),
            dependencies: Vec::new(),
            sent: Some(sent),
        })
    }

    fn bind(&self, work: &Work, intent: Intent) -> Result<BoundPlugin> {
        self.plugin.bind(work.clone(), intent).map_err(Error::invalid)
    }

    /// Plans and applies.
    async fn apply(&self, work: &Work, intent: Intent, context: &Context) -> Result<()> {
        let bound = self.bind(work, intent)?;
        let plan = bound.plan(context).await?;
        for change in &plan.changes {
            bound.apply(&change.step, &Running::new(context.clone())).await?;
        }
        if intent == (Intent::Unprovision { remove_data: true }) {
            self.memory.set(None)?;
        }
        Ok(())
    }
}

fn absolute(command: &[String]) -> Result<Vec<String>, String> {
    let mut command = command.to_vec();
    if let Some(first) = command.first_mut() {
        let path = fs::canonicalize(&*first)
            .map_err(|error| format!("`{first}`: {error}; name a program by its path"))?;
        *first = path.to_string_lossy().into_owned();
    }
    Ok(command)
}

fn name_of(path: &str) -> String {
    Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn told(problems: &[Problem]) -> String {
    problems.iter().map(Problem::with_remedy).collect::<Vec<_>>().join("\n")
}

/// The message of an error, with all its problems.
fn explained(error: &Error) -> String {
    match error.kind() {
        Kind::Invalid(problems) => told(problems),
        _ => error.report(),
    }
}

/// Memory in a file, or only in this process.
struct File {
    path: Option<PathBuf>,
    value: Mutex<Option<Value>>,
}

impl File {
    fn open(path: Option<PathBuf>) -> Result<Self, String> {
        let read = path.as_ref().filter(|path| path.exists()).map(fs::read_to_string);
        let text = read.transpose().map_err(|error| format!("--state: {error}"))?;
        let value = text.map(|text| serde_json::from_str(&text)).transpose();
        let value = value.map_err(|error| format!("--state is no JSON: {error}"))?;
        Ok(Self { path, value: Mutex::new(value) })
    }

    fn set(&self, value: Option<Value>) -> Result<()> {
        let text = value.as_ref().unwrap_or(&Value::Null).to_string();
        if let Some(path) = &self.path {
            fs::write(path, text)
                .map_err(|error| Error::permanent("--state cannot be written").because(error))?;
        }
        *self.value.lock().unwrap_or_else(PoisonError::into_inner) = value;
        Ok(())
    }
}

#[async_trait]
impl Memory for File {
    async fn recall(&self) -> Result<Option<Value>> {
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(value.filter(|value| !value.is_null()))
    }

    async fn remember(&self, value: Value) -> Result<()> {
        self.set(Some(value))
    }
}

/// `landfall plugin run`
async fn one(subject: &Subject, verb: RunVerb, remove_data: bool) -> Result<bool, String> {
    let bench = Bench::new(subject, Duration::from_secs(3600))?;
    let context = bench.context();
    let outcome = one_verb(&bench, subject, verb, remove_data, &context).await;
    for line in context.journal.drain() {
        println!("{:?} {}", line.level, line.message);
    }
    match outcome {
        Ok(text) => {
            println!("{text}");
            Ok(true)
        }
        Err(error) => {
            println!("failed: {}", explained(&error));
            Ok(false)
        }
    }
}

async fn one_verb(
    bench: &Bench,
    subject: &Subject,
    verb: RunVerb,
    remove_data: bool,
    context: &Context,
) -> Result<String> {
    bench.plugin.learn(context).await?;
    let intent = match verb {
        RunVerb::Unprovision => Intent::Unprovision { remove_data },
        _ => Intent::Provision,
    };
    if matches!(verb, RunVerb::Describe) {
        return Ok(format!("{:#?}", bench.plugin.capabilities()));
    }
    let work = bench.work(subject).map_err(Error::permanent)?;
    let bound = bench.bind(&work, intent)?;
    match verb {
        RunVerb::Check if !bound.has_check() => Ok("the program has no `check`".to_owned()),
        RunVerb::Check => {
            let problems = bound.check(context).await?;
            Ok(if problems.is_empty() { "no problems".to_owned() } else { told(&problems) })
        }
        RunVerb::Plan => {
            let plan = bound.plan(context).await?;
            let mut lines = Vec::new();
            for change in &plan.changes {
                lines.push(format!("{}: {}", change.resource, change.summary));
                lines.extend(
                    change
                        .parts
                        .iter()
                        .map(|part| format!("  {} {}: {}", part.action, part.resource, part.summary)),
                );
            }
            lines.extend(plan.notes);
            Ok(if lines.is_empty() { "no change".to_owned() } else { lines.join("\n") })
        }
        RunVerb::Describe | RunVerb::Provision | RunVerb::Unprovision => {
            bench.apply(&work, intent, context).await?;
            let info = bound.describe(context).await?;
            Ok(json!({ "publicInfo": info.public, "privateInfo": info.private }).to_string())
        }
    }
}
