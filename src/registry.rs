//! The drivers of this program.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsStr;
use std::fmt;
use std::process::ExitCode;
use std::sync::Arc;

use figment::value::Dict;
use landfall_adapter::any::AnyTechnology;
use landfall_adapter::{Driver, Mistakes, Services};

use crate::config::{Keys, read_settings};

/// Drivers by name.
#[derive(Default)]
pub struct Registry {
    drivers: BTreeMap<&'static str, Box<dyn Open>>,
    /// The names that were added more than once.
    clashes: Vec<&'static str>,
}

impl Registry {
    /// Returns a registry with the built-in drivers.
    pub fn builtin() -> Self {
        let registry = Self::default();
        #[cfg(all(feature = "exec", target_os = "linux"))]
        let registry = registry.with(exec::ExecDriver::default());
        #[cfg(feature = "lakehouse")]
        let registry = registry.with(lakehouse::LakehouseDriver);
        #[cfg(feature = "mock")]
        let registry = registry.with(mock::MockDriver);
        #[cfg(feature = "postgresql")]
        let registry = registry.with(postgresql::PostgresqlDriver);
        registry
    }

    /// Adds a driver. A duplicate name is a mistake of every configuration.
    #[must_use]
    pub fn with(mut self, driver: impl Driver) -> Self {
        match self.drivers.entry(driver.name()) {
            Entry::Vacant(free) => {
                free.insert(Box::new(driver));
            }
            Entry::Occupied(taken) => self.clashes.push(taken.key()),
        }
        self
    }

    pub(crate) fn get(&self, name: &str) -> Option<&dyn Open> {
        self.drivers.get(name).map(Box::as_ref)
    }

    /// The names of the drivers, in alphabetical order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.drivers.keys().copied()
    }

    /// Runs this process as a helper of the driver that accepts `argument`. `None` if no driver does.
    pub(crate) fn help(&self, argument: &OsStr) -> Option<ExitCode> {
        self.drivers.values().find_map(|driver| driver.help(argument))
    }

    /// The commands of all drivers, with a sentence for each.
    pub(crate) fn commands(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.drivers.values().flat_map(|driver| driver.commands().iter().copied())
    }

    pub(crate) fn clashes(&self) -> &[&'static str] {
        &self.clashes
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registry").field(&self.drivers.keys()).finish()
    }
}

/// A driver without its type of settings, so that drivers can be stored together.
pub(crate) trait Open: Send + Sync {
    /// The keys of its settings.
    fn keys(&self) -> Keys;

    /// See [`Driver::help`].
    fn help(&self, argument: &OsStr) -> Option<ExitCode>;

    /// See [`Driver::commands`].
    fn commands(&self) -> &'static [(&'static str, &'static str)];

    /// Creates the technology of a target from its table. `None` after mistakes, which are added to `mistakes`.
    fn open_table(
        &self,
        table: Dict,
        services: &Services<'_>,
        mistakes: &mut Mistakes,
    ) -> Option<Arc<dyn AnyTechnology>>;
}

impl<D: Driver> Open for D {
    fn keys(&self) -> Keys {
        Keys::of::<D::Settings>()
    }

    fn help(&self, argument: &OsStr) -> Option<ExitCode> {
        Driver::help(self, argument)
    }

    fn commands(&self) -> &'static [(&'static str, &'static str)] {
        Driver::commands(self)
    }

    fn open_table(
        &self,
        table: Dict,
        services: &Services<'_>,
        mistakes: &mut Mistakes,
    ) -> Option<Arc<dyn AnyTechnology>> {
        let settings = read_settings(table, mistakes)?;
        let technology = mistakes.keep(self.open(settings, services))?;
        Some(Arc::new(technology))
    }
}
