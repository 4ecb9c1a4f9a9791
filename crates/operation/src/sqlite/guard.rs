//! Whether the files that were opened are still the ones that their names lead to, and whether they still are a database.
//!
//! A file that is removed or replaced stays open: everything would go on, and all of it would be gone at the next start.
//! So the identity (device and inode) of the database, its write-ahead log and the lock is compared with what it was
//! before each commit, and again after it: nobody is answered for what is on no disk that the next start will read. And
//! what was once found damaged is not written to any more.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::ledger::fault::{Fault, Refused};
use landfall_adapter::blocking;

/// See the module documentation.
#[derive(Clone)]
pub(super) struct Guard {
    files: Arc<[Known]>,
    damage: Arc<OnceLock<String>>,
}

struct Known {
    path: PathBuf,
    /// `None` where there was no such file, as some file systems have no write-ahead log.
    identity: Option<(u64, u64)>,
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

impl Guard {
    /// Of the files as they are now.
    pub(super) async fn of(paths: Vec<PathBuf>) -> sqlx::Result<Self> {
        let look = move || {
            paths.into_iter().map(|path| Known { identity: identity(&path), path }).collect::<Arc<[Known]>>()
        };
        let files =
            blocking::run_regardless(move || Ok(look())).await.map_err(|_| sqlx::Error::PoolClosed)?;
        Ok(Self { files, damage: Arc::default() })
    }

    /// Refuses what would be lost.
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

    /// Remembers when the database was found damaged.
    pub(super) fn note<T>(&self, outcome: sqlx::Result<T>) -> sqlx::Result<T> {
        if let Err(error) = &outcome
            && Fault::of(error) == Fault::Damaged
        {
            let _ = self.damage.set(error.to_string());
        }
        outcome
    }
}
