//! Checks that the open files are still the files at their paths, and remembers when SQLite found one damaged.
//!
//! A file that is removed or replaced stays open: the process would continue, and all its work would be lost at the
//! next start. So the identity (device and inode) of the database, its write-ahead log and the lock is compared
//! before and after each commit, and when a connection is opened. So no commit succeeds that the next start would not
//! find; an open reader may still return rows of a replaced file. No write is made to a database that was found
//! damaged.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::ledger::fault::{Fault, Refused};
use landfall_adapter::blocking;

/// The identities of the files, and the first damage that was found.
#[derive(Clone)]
pub(super) struct Guard {
    files: Arc<[Known]>,
    damage: Arc<OnceLock<String>>,
}

struct Known {
    path: PathBuf,
    /// `None` if the file did not exist: on some file systems there is no write-ahead log.
    identity: Option<(u64, u64)>,
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

impl Guard {
    /// Records the current identities of the files at `paths`.
    pub(super) async fn of(paths: Vec<PathBuf>) -> sqlx::Result<Self> {
        let look = move || {
            paths.into_iter().map(|path| Known { identity: identity(&path), path }).collect::<Arc<[Known]>>()
        };
        let files =
            blocking::run_regardless(move || Ok(look())).await.map_err(|_| sqlx::Error::PoolClosed)?;
        Ok(Self { files, damage: Arc::default() })
    }

    /// Returns an error if a file was removed or replaced, or if damage was found before.
    pub(super) async fn check(&self) -> sqlx::Result<()> {
        if let Some(cause) = self.damage.get() {
            return Err(Refused::error(Fault::Damaged, cause.clone()));
        }
        let files = Arc::clone(&self.files);
        let look = move || {
            let moved = |known: &&Known| known.identity.is_some() && identity(&known.path) != known.identity;
            files.iter().find(moved).map(|known| known.path.display().to_string())
        };
        match blocking::run_regardless(move || Ok(look())).await {
            Ok(None) => Ok(()),
            Ok(Some(path)) => {
                Err(Refused::error(Fault::Moved, format!("`{path}` is not the file that was opened")))
            }
            Err(_) => Err(sqlx::Error::PoolClosed),
        }
    }

    /// Passes an outcome on, and records it if it is the error of a damaged database.
    pub(super) fn note<T>(&self, outcome: sqlx::Result<T>) -> sqlx::Result<T> {
        if let Err(error) = &outcome
            && Fault::of(error) == Fault::Damaged
        {
            let _ = self.damage.set(error.to_string());
        }
        outcome
    }
}
