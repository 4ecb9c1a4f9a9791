//! The command line: `serve`, and the client side of the contract through the generated client.
//!
//! Exit codes: 0 done; 1 the operation failed or was stopped; 2 wrong usage (also a wrong configuration);
//! 3 the request is not valid; 4 the server cannot be reached or failed.

mod client;
mod output;
mod password;
mod remote;
mod topology;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{Config, Overrides};
use crate::registry::Registry;
use crate::{logging, server};
use landfall_adapter::descriptor::Problem;

use output::Output;
use remote::{BearerToken, Encryption};

/// A Witboost Tech Adapter: speaks the contract, provisions real technologies, loses no operation.
#[derive(Debug, Parser)]
#[command(name = "landfall", version, after_help = EXIT_CODES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

impl Arguments {
    /// The arguments of the process. Ends the process if they are wrong, or ask for help, which also lists the commands of
    /// drivers.
    pub(crate) fn of_process(registry: &Registry) -> Self {
        let commands: Vec<_> =
            registry.commands().map(|(name, text)| format!("  {name:<9} {text}")).collect();
        let mut command = Self::command();
        if !commands.is_empty() {
            command =
                command.after_help(format!("Commands of drivers:\n{}\n\n{EXIT_CODES}", commands.join("\n")));
        }
        let parsed = Self::from_arg_matches(&command.get_matches());
        parsed.unwrap_or_else(|error| error.exit())
    }
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 the operation failed or was stopped; 2 wrong usage or configuration; \
                          3 the request is not valid; 4 the server cannot be reached or failed.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the contract until SIGTERM
    Serve {
        /// Configuration file (TOML)
        #[arg(long, env = "LANDFALL_CONFIG")]
        config: Option<PathBuf>,
        /// HOST:PORT to listen on; port 0 picks a free one
        #[arg(long)]
        listen: Option<String>,
        /// Folder of everything embedded: store, catalog, warehouse
        #[arg(long)]
        data_dir: Option<String>,
    },
    /// Provision a data product, component by component
    Deploy {
        /// Descriptor of a data product or a component (YAML)
        file: PathBuf,
        /// Only this component
        #[arg(long)]
        component: Option<String>,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show what deploying would change, and change nothing
    Plan {
        /// Descriptor of a data product or a component (YAML)
        file: PathBuf,
        #[command(flatten)]
        remote: Remote,
    },
    /// Unprovision a data product, in reverse order
    Undeploy {
        /// Descriptor of a data product or a component (YAML)
        file: PathBuf,
        /// Only this component
        #[arg(long)]
        component: Option<String>,
        /// Delete the data too
        #[arg(long)]
        remove_data: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Give exactly the given users and groups read access to a component
    Acl {
        /// Descriptor of a data product or a component (YAML)
        file: PathBuf,
        /// The component
        #[arg(long)]
        component: String,
        /// user:NAME_DOMAIN, group:NAME, or a name that is looked up as both; repeat for several, none revokes all
        #[arg(long = "ref")]
        refs: Vec<String>,
        #[command(flatten)]
        remote: Remote,
    },
    /// Read an existing resource into catalog updates
    Import {
        /// Use case template of the component to import into
        #[arg(long)]
        template: String,
        /// Witboost environment
        #[arg(long)]
        environment: String,
        /// Parameter of the import, NAME=VALUE; repeat for several
        #[arg(long = "param", value_parser = parameter)]
        params: Vec<(String, serde_json::Value)>,
        /// File with the catalog entry of the entity to import into (its catalog-info.yaml)
        #[arg(long, value_name = "FILE")]
        catalog_info: Option<PathBuf>,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show the status of a task
    Status {
        /// The token from the 202 answer
        token: String,
        #[command(flatten)]
        remote: Remote,
    },
    /// Ask a task to stop
    Stop {
        /// The token from the 202 answer
        token: String,
        #[command(flatten)]
        remote: Remote,
    },
    /// List, change and explain the deployment targets of components
    Topology {
        #[command(subcommand)]
        command: topology::Command,
    },
    /// Check a descriptor without a server
    Validate {
        /// Descriptor of a data product or a component (YAML)
        file: PathBuf,
        /// Only this component
        #[arg(long)]
        component: Option<String>,
        /// Configuration file (TOML) with the targets and routes to check against
        #[arg(long, env = "LANDFALL_CONFIG")]
        config: Option<PathBuf>,
        /// Print one JSON document, also when the command fails
        #[arg(long)]
        json: bool,
    },
    /// Print the hash of a password or token, for the configuration; from the terminal, or the first line of stdin
    HashPassword,
}

/// Where the server is, and how to print.
#[derive(Debug, Args)]
struct Server {
    /// Address of the server, with its base path if it has one
    #[arg(long, env = "LANDFALL_URL", default_value = "http://127.0.0.1:8093")]
    url: String,
    /// Print one JSON document, also when the command fails
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    encryption: Encryption,
}

/// A server, for callers with its token.
#[derive(Debug, Args)]
struct Remote {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    token: BearerToken,
}

impl std::ops::Deref for Remote {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Remote {
    /// A client with credentials.
    fn http(&self) -> Result<reqwest::Client, Failure> {
        remote::http(&self.url, &self.encryption, self.token.authorization()?)
    }
}

/// Parses `NAME=VALUE`. A value that is valid JSON is parsed; any other value is text.
fn parameter(text: &str) -> Result<(String, serde_json::Value), String> {
    let (name, value) =
        text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
}

/// Why a command failed.
#[derive(Debug)]
enum Failure {
    /// The operation ended FAILED or TERMINATED; the reason is already printed.
    Operation(String),
    /// Wrong usage or configuration.
    Usage(Vec<String>),
    /// The request is not valid.
    Invalid(Vec<String>),
    /// The server cannot be reached or failed.
    Server(Vec<String>),
}

impl Failure {
    fn of_problems(problems: &[Problem]) -> Self {
        Self::Invalid(problems.iter().map(Problem::with_remedy).collect())
    }

    fn server(line: String) -> Self {
        Self::Server(vec![line])
    }

    /// Adds to a server failure that the task was accepted, and how to see its status.
    fn of_task(self, token: &str) -> Self {
        match self {
            Self::Server(mut lines) => {
                lines.push(format!("the task was accepted; see `landfall status {token}`"));
                Self::Server(lines)
            }
            other => other,
        }
    }

    fn report(self, output: &mut Output) -> ExitCode {
        let (code, lines) = match self {
            Self::Operation(line) => {
                output.fail(&[line]);
                return ExitCode::from(1);
            }
            Self::Usage(lines) => (2, lines),
            Self::Invalid(lines) => (3, lines),
            Self::Server(lines) => (4, lines),
        };
        output.fail(&lines);
        for line in lines {
            output::error(&line);
        }
        ExitCode::from(code)
    }
}

impl Command {
    /// Whether the result is printed as JSON.
    fn is_json(&self) -> bool {
        match self {
            Self::Serve { .. } | Self::HashPassword => false,
            Self::Validate { json, .. } => *json,
            Self::Topology { command } => command.is_json(),
            Self::Deploy { remote, .. }
            | Self::Plan { remote, .. }
            | Self::Undeploy { remote, .. }
            | Self::Acl { remote, .. }
            | Self::Import { remote, .. }
            | Self::Status { remote, .. }
            | Self::Stop { remote, .. } => remote.json,
        }
    }
}

/// Runs a command to its exit code, with the drivers of a registry.
pub fn run(arguments: Arguments, registry: &Registry) -> ExitCode {
    let mut output = Output::new(arguments.command.is_json());
    let done = match arguments.command {
        Command::Serve { config, listen, data_dir } => {
            serve(config, Overrides { listen, data_dir }, registry)
        }
        Command::Validate { file, component, config, .. } => {
            client::validate(&mut output, &file, component.as_deref(), config, registry)
        }
        Command::HashPassword => password::hash(),
        command => run_remote(&mut output, command),
    };
    match done {
        Ok(()) => {
            output.end();
            ExitCode::SUCCESS
        }
        Err(failure) => failure.report(&mut output),
    }
}

fn serve(file: Option<PathBuf>, overrides: Overrides, registry: &Registry) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::server(format!("the runtime cannot be started: {error}")))?;
    // Drivers create technologies when they read the configuration, and technologies keep their connections on this
    // runtime.
    let entered = runtime.enter();
    let config = Config::load_to_serve(file.as_deref(), &overrides, registry).map_err(Failure::Usage)?;
    drop(entered);
    logging::start(&config.log);
    let served = runtime.block_on(server::serve(config)).map_err(|error| Failure::server(error.report()));
    // Do not wait for threads that hang: all required work has ended, and the rest ends with the process.
    runtime.shutdown_background();
    served
}

fn run_remote(output: &mut Output, command: Command) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::server(format!("the runtime cannot be started: {error}")))?;
    runtime.block_on(client::run(output, command))
}
