//! Brings a folder of generated files up to date.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::{File, HEADER};

/// What [`write_if_changed`] did, as paths inside the folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Files that were written, because they are new or their content changed.
    pub written: Vec<PathBuf>,
    /// Generated files of earlier builds that are not generated any more.
    pub removed: Vec<PathBuf>,
}

/// A file is out of date, and could not be updated.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{}` is out of date and cannot be written: {source}; build once in a writable checkout and commit generated/",
    .path.display()
)]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// The cause.
    pub source: io::Error,
}

/// Make `folder` contain exactly `files`, and write only what differs: a folder that is up to date may be read-only.
///
/// Each file is written to a temporary name and renamed, so a reader never sees half of one. Files without the header
/// are left alone, unless one has the path of a generated file.
pub fn write_if_changed(folder: &Path, files: &[File]) -> Result<Changes, WriteError> {
    let mut changes = Changes::default();
    for file in files {
        let path = folder.join(&file.path);
        if fs::read_to_string(&path).is_ok_and(|content| content == file.content) {
            continue;
        }
        replace(&path, &file.content).map_err(|source| WriteError { path: path.clone(), source })?;
        changes.written.push(file.path.clone());
    }
    let wanted = files.iter().map(|file| folder.join(&file.path)).collect::<BTreeSet<_>>();
    for path in generated_files(folder) {
        if !wanted.contains(&path) {
            fs::remove_file(&path).map_err(|source| WriteError { path: path.clone(), source })?;
            changes.removed.push(path.strip_prefix(folder).unwrap_or(&path).to_owned());
        }
    }
    Ok(changes)
}

fn replace(path: &Path, content: &str) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    // The process id keeps two builds of one checkout (an editor's and a shell's) from using the same temporary file.
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let done = fs::write(&temporary, content).and_then(|()| fs::rename(&temporary, path));
    if done.is_err() {
        // Best effort: the first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    done
}

/// Our files below `folder`, by their header, sorted.
fn generated_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && fs::read_to_string(&path).is_ok_and(|content| content.starts_with(HEADER))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
