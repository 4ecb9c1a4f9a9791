//! The program as a library: the server and the command line, with your own drivers.

use std::process::ExitCode;

use landfall_adapter::Driver;

use crate::cli;
use crate::registry::Registry;

/// A Tech Adapter: the server and the command line, with the built-in drivers and those added to its
/// [`Builder`].
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
    /// Returns a builder that already has the built-in drivers.
    pub fn builder() -> Builder {
        Builder { registry: Registry::builtin() }
    }

    /// Runs the command in the arguments of the process, and returns its exit code.
    pub fn main(&self) -> ExitCode {
        let helper = std::env::args_os().nth(1).and_then(|argument| self.registry.help(&argument));
        helper.unwrap_or_else(|| cli::run(cli::Arguments::of_process(&self.registry), &self.registry))
    }
}

/// Collects drivers.
#[derive(Debug)]
pub struct Builder {
    registry: Registry,
}

impl Builder {
    /// Adds a driver, which `[targets.CODE] driver = "NAME"` refers to. A duplicate name is reported when the
    /// configuration is read.
    #[must_use]
    pub fn technology(self, driver: impl Driver) -> Self {
        Self { registry: self.registry.with(driver) }
    }

    /// Returns the adapter with all added drivers.
    pub fn build(self) -> Adapter {
        Adapter { registry: self.registry }
    }
}
