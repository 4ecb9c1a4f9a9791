//! The drivers of this program.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::Arc;

use figment::value::Dict;
use landfall_adapter::any::AnyTechnology;
use landfall_adapter::{Driver, Mistakes, Services};

use crate::config::{Keys, read_settings};

/// Drivers by name.
#[derive(Default)]
pub struct Registry {
    drivers: BTreeMap<&'static str, Box<dyn Open>>,
    /// Duplicate names.
    clashes: Vec<&'static str>,
}

impl Registry {
    /// The built-in drivers, one line for each.
    pub fn builtin() -> Self {
        let registry = Self::default();
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

    /// In alphabetical order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.drivers.keys().copied()
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

/// A driver with any settings.
pub(crate) trait Open: Send + Sync {
    /// The keys of its settings.
    fn keys(&self) -> Keys;

    /// The technology of a target, or `None` after its mistakes were added.
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
