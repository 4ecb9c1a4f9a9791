//! The program as a library: the server and the whole command line, with drivers of one's own.

use std::process::ExitCode;

use clap::Parser;
use landfall_adapter::Driver;

use crate::cli;
use crate::registry::Registry;

/// A Tech Adapter: the server and the command line, with the drivers that are built in and others.
///
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     landfall::Adapter::builder().build().main()
/// }
/// ```
#[derive(Debug)]
pub struct Adapter {
    registry: Registry,
}

impl Adapter {
    /// An adapter with the drivers that are built in.
    pub fn builder() -> Builder {
        Builder { registry: Registry::builtin() }
    }

    /// Runs the command that the arguments of the process name, to its exit code.
    pub fn main(&self) -> ExitCode {
        cli::run(cli::Arguments::parse(), &self.registry)
    }
}

/// Collects drivers.
#[derive(Debug)]
pub struct Builder {
    registry: Registry,
}

impl Builder {
    /// Adds a driver: `[targets.CODE] driver = "NAME"` finds it by its name. A name that another driver has is told when
    /// the configuration is read.
    #[must_use]
    pub fn technology(self, driver: impl Driver) -> Self {
        Self { registry: self.registry.with(driver) }
    }

    /// The adapter.
    pub fn build(self) -> Adapter {
        Adapter { registry: self.registry }
    }
}
