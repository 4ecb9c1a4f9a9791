//! Checks whether the folders and files of a configuration can be created, before anything is created.
//!
//! A check leaves nothing behind: it creates a missing folder and removes it again, because only that reveals
//! file systems on which no folder can be created. Transient causes (a full disk, a file system that does not
//! respond) are not reported as mistakes.

use std::io::{Error, ErrorKind};
use std::path::Path;

use rustix::fs::{Access, access};

/// Why a folder cannot be created or written; `None` if it can, or if the cause is transient.
pub fn folder_problem(path: &Path) -> Option<String> {
    let absolute = match std::path::absolute(path) {
        Ok(absolute) => absolute,
        Err(error) => return Some(format!("`{}` is not a path: {error}", path.display())),
    };
    let mut missing = None;
    for at in absolute.ancestors() {
        match std::fs::metadata(at) {
            Ok(found) if found.is_dir() => {
                return match missing {
                    Some(first) => made(first),
                    None => allowed(at, Access::WRITE_OK | Access::EXEC_OK),
                };
            }
            Ok(_) => {
                return Some(format!(
                    "`{}` is no folder; choose another path, or move it away",
                    at.display()
                ));
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                missing = Some(at);
            }
            Err(error) => return permanent_problem(at, &error, "cannot be looked at"),
        }
    }
    None
}

/// Why a file cannot be created, read or written; `None` if it can, or if the cause is transient.
pub fn file_problem(path: &Path) -> Option<String> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Some(format!("`{}` is a folder; name a file", path.display())),
        Ok(_) => allowed(path, Access::READ_OK | Access::WRITE_OK),
        Err(_) => match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => folder_problem(parent),
            None => folder_problem(Path::new(".")),
        },
    }
}

fn made(missing: &Path) -> Option<String> {
    match std::fs::create_dir(missing) {
        Ok(()) => {
            // Removing the folder fails if another process has put a file into it.
            let _ = std::fs::remove_dir(missing);
            None
        }
        // Another process has just created the folder.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && missing.is_dir() => None,
        Err(error) => permanent_problem(missing, &error, "cannot be made"),
    }
}

fn allowed(path: &Path, wanted: Access) -> Option<String> {
    let error = Error::from(access(path, wanted).err()?);
    permanent_problem(path, &error, "cannot be written")
}

fn permanent_problem(path: &Path, error: &Error, what: &str) -> Option<String> {
    let passes = matches!(
        error.kind(),
        ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::StaleNetworkFileHandle
            | ErrorKind::ResourceBusy
            | ErrorKind::TimedOut
            | ErrorKind::Interrupted
    ) || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
    let text = || {
        format!("`{}` {what}: {error}; choose another path, or give the server its rights", path.display())
    };
    (!passes).then(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_leave_nothing_behind_and_name_obstacles() {
        let root = tempfile::tempdir().unwrap();
        let taken = root.path().join("taken");
        std::fs::write(&taken, "x").unwrap();
        let there = || std::fs::read_dir(root.path()).unwrap().count();
        assert_eq!(folder_problem(root.path()), None);
        assert_eq!(folder_problem(&root.path().join("a/b/c")), None);
        assert_eq!(file_problem(&root.path().join("a/b/c.db")), None);
        assert_eq!(file_problem(&taken), None);
        assert_eq!(there(), 1, "nothing was left");
        let no_folder =
            |path: &Path| format!("`{}` is no folder; choose another path, or move it away", path.display());
        assert_eq!(folder_problem(&taken), Some(no_folder(&taken)));
        assert_eq!(folder_problem(&taken.join("lake")), Some(no_folder(&taken)));
        assert_eq!(file_problem(&taken.join("lake.db")), Some(no_folder(&taken)));
        let permanent_problem = format!("`{}` is a folder; name a file", root.path().display());
        assert_eq!(file_problem(root.path()), Some(permanent_problem));
        let nowhere = folder_problem(Path::new("/proc/no/such/lake")).unwrap();
        assert!(nowhere.starts_with("`/proc/no` cannot be made: "), "{nowhere}");
    }

    #[test]
    fn transient_causes_are_not_mistakes() {
        let path = Path::new("/x");
        for kind in [ErrorKind::StorageFull, ErrorKind::StaleNetworkFileHandle] {
            assert_eq!(permanent_problem(path, &Error::from(kind), "cannot be made"), None);
        }
        for kind in [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem] {
            assert!(permanent_problem(path, &Error::from(kind), "cannot be made").is_some());
        }
    }
}
