//! Migrations that are part of the program, and what their errors mean for the caller.

use futures::future::BoxFuture;
use sqlx::error::BoxDynError;
use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationSource, MigrationType, Migrator};

use super::ledger::fault::Fault;
use landfall_adapter::error::{Error, Result};

/// Version, description and text of every migration, in order. A released one never changes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Migrations(pub(super) &'static [(i64, &'static str, &'static str)]);

impl MigrationSource<'static> for Migrations {
    fn resolve(self) -> BoxFuture<'static, Result<Vec<Migration>, BoxDynError>> {
        let migrations = self
            .0
            .iter()
            .map(|&(version, description, sql)| {
                Migration::new(version, description.into(), MigrationType::Simple, sql.into(), false)
            })
            .collect();
        Box::pin(std::future::ready(Ok(migrations)))
    }
}

impl Migrations {
    /// Brings the database up to date. `place` names it in errors.
    pub(super) async fn run<C: Migrate>(self, connection: &mut C, place: &str) -> Result<()> {
        let outcome = match Migrator::new(self).await {
            Ok(migrator) => migrator.run_direct(connection).await,
            Err(error) => Err(error),
        };
        outcome.map_err(|error| {
            if let MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) = &error
                && Fault::of(cause) == Fault::Damaged
            {
                return Fault::Damaged.error(format!("{place}: {error}"));
            }
            let message = match error {
                MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_) => format!(
                    "the operation store {place} was written by another version of Landfall: run that one, or give \
                     this one another store"
                ),
                _ => format!("cannot bring the operation store {place} up to date"),
            };
            Error::permanent(message).because(error)
        })
    }
}
