//! Directories that say whose they are.
//!
//! A bucket and the location of a table are directories with a file `.landfall.json` in them: the mark. It names the
//! component and the environment that own the directory and what state it is in. What has no readable mark is
//! somebody else's and stays untouched.
//!
//! A marked directory appears whole (it is made elsewhere, mark first, and renamed into place) and disappears whole
//! (it is renamed and deleted then), so a crash leaves a directory with its mark, or one whose name says that it is
//! being deleted and for whom. Such names begin with a dot, which no bucket and no table name does.
//!
//! Everything here blocks: call it from a blocking thread.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::naming;
use crate::error::{Error, Result};
use crate::technology::{AccessList, Owner};

/// The mark's file name.
pub(super) const MARK_FILE: &str = ".landfall.json";
/// Version of the mark's layout that this code writes and the newest it reads.
const MARK_VERSION: u32 = 1;
/// A mark is a few hundred bytes and an access list; more is not one of ours.
const MAX_MARK_BYTES: u64 = 4 << 20;

/// How long a directory in the making is left alone: its maker may be another process.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// What a directory says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mark {
    /// Version of this layout.
    pub(super) landfall: u32,
    /// Whose it is.
    #[serde(flatten)]
    pub(super) owner: Owner,
    /// Whether it is in use.
    pub(super) state: State,
    /// Recorded access, for buckets. A table has it in its properties.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) access: Option<AccessList>,
    /// The catalog file a table is or was registered in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) catalog: Option<String>,
    /// Last metadata file of a released table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) metadata_location: Option<String>,
}

/// Whether a marked directory is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// Provisioned.
    Active,
    /// Unprovisioned, with its data kept.
    Released,
    /// Being deleted: what is left of it is worth nothing.
    Purging,
}

impl Mark {
    /// The mark of a directory in use.
    pub(super) fn active(owner: Owner) -> Self {
        Self {
            landfall: MARK_VERSION,
            owner,
            state: State::Active,
            access: None,
            catalog: None,
            metadata_location: None,
        }
    }
}

/// What is found at a path.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Found {
    /// Nothing.
    Absent,
    /// A directory without a mark.
    Bare,
    /// Something that is no directory, or has a mark that cannot be read; the text says what.
    Odd(&'static str),
    /// A directory with a mark.
    Marked(Mark),
}

impl Found {
    /// The mark if it is `owner`'s, nothing if the place is free, and a conflict that names both sides otherwise.
    pub(super) fn owned_by(self, owner: &Owner, what: &str) -> Result<Option<Mark>> {
        match self {
            Self::Absent => Ok(None),
            Self::Marked(mark) if mark.owner == *owner => Ok(Some(mark)),
            Self::Marked(mark) => Err(foreign(what, Some(&mark.owner), owner)),
            Self::Bare => Err(in_the_way(what, "has no ownership mark", owner)),
            Self::Odd(why) => Err(in_the_way(what, why, owner)),
        }
    }
}

fn in_the_way(what: &str, why: &str, owner: &Owner) -> Error {
    Error::conflict(format!(
        "{what} exists and {why}, so it is not taken for {}: choose another name, or move it away",
        described(owner)
    ))
}

/// "component `...` in environment `...`".
pub(super) fn described(owner: &Owner) -> String {
    format!("component `{}` in environment `{}`", owner.component, owner.environment)
}

/// The conflict of two owners over one resource.
pub(super) fn foreign(what: &str, theirs: Option<&Owner>, ours: &Owner) -> Error {
    let holder = theirs.map_or_else(|| "nobody that Landfall knows of".to_owned(), described);
    Error::conflict(format!(
        "{what} belongs to {holder}, so it is not touched for {}: choose another name, or unprovision the other first",
        described(ours)
    ))
}

/// Looks at a path without following a symlink there.
pub(super) fn observe(path: &Path) -> Result<Found> {
    let look = || match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("look at", path, e)),
    };
    let file = path.join(MARK_FILE);
    let Some(mut before) = look()? else { return Ok(Found::Absent) };
    loop {
        if !before.is_dir() {
            return Ok(Found::Odd("is not a directory"));
        }
        match fs::symlink_metadata(&file) {
            Ok(metadata) if metadata.is_file() && metadata.len() <= MAX_MARK_BYTES => break,
            Ok(_) => return Ok(Found::Odd("has a mark that is not a plain file")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed("look at", &file, e)),
        }
        // Between the two looks another process may have deleted the directory, and made another one: only one that is
        // still the same has no mark.
        let Some(after) = look()? else { return Ok(Found::Absent) };
        if same_file(&before, &after) {
            return Ok(Found::Bare);
        }
        before = after;
    }
    let mut text = String::new();
    match File::open(&file).and_then(|f| f.take(MAX_MARK_BYTES).read_to_string(&mut text)) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::InvalidData => {
            return Ok(Found::Odd("has an ownership mark that cannot be read"));
        }
        Err(e) => return Err(failed("read", &file, e)),
    }
    match serde_json::from_str::<Mark>(&text) {
        Ok(mark) if mark.landfall == MARK_VERSION => Ok(Found::Marked(mark)),
        Ok(_) => Ok(Found::Odd("has an ownership mark of another version of Landfall")),
        Err(_) => Ok(Found::Odd("has an ownership mark that cannot be read")),
    }
}

#[cfg(unix)]
fn same_file(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(not(unix))]
fn same_file(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    one.created().ok() == other.created().ok()
}

/// Makes a directory with its mark; it must not exist. `scratch` is a directory on the same filesystem.
pub(super) fn create(path: &Path, mark: &Mark, scratch: &Path) -> Result<()> {
    let parent = parent(path)?;
    // A name of its own: two makers of one directory must not delete each other's mark.
    let working = scratch.join(uuid::Uuid::new_v4().to_string());
    for directory in [parent, &working] {
        create_directories(directory).map_err(|e| failed("create the directory", directory, e))?;
    }
    let made = write_mark(&working, mark, scratch).and_then(|()| {
        // Where somebody else was faster, planning again tells who.
        fs::rename(&working, path).map_err(|e| failed("create", path, e))
    });
    if made.is_err() {
        remove_tree(&working)?;
    }
    made?;
    sync_directory(parent).map_err(|e| failed("sync", parent, e))
}

/// Deletes what interrupted [`create`]s left in `scratch` long ago.
pub(super) fn tidy(scratch: &Path) -> io::Result<()> {
    let entries = match scratch.read_dir() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.modified()?.elapsed().is_ok_and(|age| age > STALE) {
            let remove = if metadata.is_dir() { fs::remove_dir_all } else { fs::remove_file };
            remove(entry.path())?;
        }
    }
    Ok(())
}

/// Replaces the mark of a directory. `scratch` is a directory on the same filesystem.
pub(super) fn write_mark(path: &Path, mark: &Mark, scratch: &Path) -> Result<()> {
    // A name of its own: of two writers, one must not put what the other has only begun into place.
    let working = scratch.join(format!("{}.json", uuid::Uuid::new_v4()));
    let write = || -> io::Result<()> {
        create_directories(scratch)?;
        let mut file = File::create_new(&working)?;
        file.write_all(&serde_json::to_vec_pretty(mark)?)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&working, path.join(MARK_FILE))?;
        sync_directory(path)
    };
    write().map_err(|e| {
        // Gone already when it was renamed, and tidied up later when it cannot go now.
        let _ = fs::remove_file(&working);
        failed("write the ownership mark of", path, e)
    })
}

/// Deletes a directory of `owner` with all that is in it, and what an interrupted purge left. Symlinks in it are
/// deleted, not followed.
pub(super) fn purge(path: &Path, owner: &Owner, what: &str) -> Result<()> {
    let working = purged_name(path, owner)?;
    remove_tree(&working)?;
    if observe(path)?.owned_by(owner, what)?.is_some() {
        fs::rename(path, &working).map_err(|e| failed("move away", path, e))?;
        remove_tree(&working)?;
    }
    let parent = parent(path)?;
    match sync_directory(parent) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("sync", parent, e)),
        _ => Ok(()),
    }
}

/// Deletes what an interrupted [`purge`] of `owner` left, and nothing else.
pub(super) fn sweep(path: &Path, owner: &Owner) -> Result<()> {
    remove_tree(&purged_name(path, owner)?)
}

/// Whether an interrupted [`purge`] of `owner` left something.
pub(super) fn has_leftovers(path: &Path, owner: &Owner) -> Result<bool> {
    let working = purged_name(path, owner)?;
    working.try_exists().map_err(|e| failed("look at", &working, e))
}

/// `.purged.NAME.HASH` next to `NAME`.
pub(super) fn purged_name(path: &Path, owner: &Owner) -> Result<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let hash = naming::hash(&[&owner.component, &owner.environment]);
    Ok(parent(path)?.join(format!(".purged.{name}.{hash}")))
}

fn parent(path: &Path) -> Result<&Path> {
    path.parent().ok_or_else(|| Error::permanent(format!("`{}` has no parent directory", path.display())))
}

/// Deletes a working name. `remove_dir_all` deletes symlinks, it does not follow them.
fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("delete", path, e)),
        _ => Ok(()),
    }
}

/// Makes a directory and the missing ones above it, each name made durable.
pub(super) fn create_directories(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Ok(()) => path.parent().map_or(Ok(()), sync_directory),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let Some(parent) = path.parent() else { return Err(e) };
            create_directories(parent)?;
            create_directories(path)
        }
        Err(e) => Err(e),
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Most causes pass (a full disk, a mount away, a directory that just went): worth another try.
fn failed(what: &str, path: &Path, error: io::Error) -> Error {
    Error::retryable(format!("cannot {what} `{}`", path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> Owner {
        Owner { component: format!("urn:dmb:cmp:{name}"), environment: "production".to_owned() }
    }

    #[test]
    fn whose_it_is_decides() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/bucket");
        assert_eq!(observe(&path).unwrap(), Found::Absent);
        create(&path, &Mark::active(owner("a")), &folder.path().join("scratch")).unwrap();
        assert_eq!(observe(&path).unwrap(), Found::Marked(Mark::active(owner("a"))));
        let error = observe(&path).unwrap().owned_by(&owner("b"), "bucket `bucket`").unwrap_err();
        assert!(error.to_string().contains("urn:dmb:cmp:a") && error.to_string().contains("urn:dmb:cmp:b"));
        assert!(purge(&path, &owner("b"), "bucket `bucket`").is_err());
        assert!(path.is_dir());
        // Creating over it leaves it as it was.
        fs::write(path.join("data"), "x").unwrap();
        assert!(
            create(&path, &Mark::active(owner("a")), &folder.path().join("scratch"))
                .unwrap_err()
                .is_retryable()
        );
        assert!(path.join("data").exists());
        assert_eq!(folder.path().join("scratch").read_dir().unwrap().count(), 0);
        tidy(&folder.path().join("scratch")).unwrap();
        tidy(&folder.path().join("never")).unwrap();
    }

    /// Processes that share a warehouse may meet on a mark, one of them late: whoever looks reads one of the two.
    #[test]
    fn writers_that_meet_leave_a_whole_mark() {
        let folder = tempfile::tempdir().unwrap();
        let (path, scratch) = (folder.path().join("bucket"), folder.path().join("scratch"));
        create(&path, &Mark::active(owner("a")), &scratch).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for state in [State::Released, State::Active].repeat(50) {
                        write_mark(&path, &Mark { state, ..Mark::active(owner("a")) }, &scratch).unwrap();
                        assert!(matches!(observe(&path).unwrap(), Found::Marked(_)));
                    }
                });
            }
        });
        assert_eq!(scratch.read_dir().unwrap().count(), 0);
    }

    #[test]
    fn purging_follows_no_symlink() {
        let folder = tempfile::tempdir().unwrap();
        let outside = folder.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "x").unwrap();
        let path = folder.path().join("bucket");
        create(&path, &Mark::active(owner("a")), &folder.path().join("scratch")).unwrap();
        std::os::unix::fs::symlink(&outside, path.join("link")).unwrap();
        purge(&path, &owner("a"), "bucket").unwrap();
        assert!(!path.exists() && outside.join("precious").exists());
        // A symlink in place of the directory is not ours.
        create(&outside.join("real"), &Mark::active(owner("a")), &folder.path().join("scratch")).unwrap();
        std::os::unix::fs::symlink(outside.join("real"), &path).unwrap();
        assert!(purge(&path, &owner("a"), "bucket").is_err());
        assert!(outside.join("real").exists());
        purge(&folder.path().join("never"), &owner("a"), "bucket").unwrap();
    }

    #[test]
    fn unreadable_marks_are_nobodys() {
        let folder = tempfile::tempdir().unwrap();
        for text in [
            "",
            "{}",
            "[]",
            "{\"landfall\":2,\"component\":\"a\",\"environment\":\"b\",\"state\":\"active\"}",
        ] {
            fs::write(folder.path().join(MARK_FILE), text).unwrap();
            assert!(matches!(observe(folder.path()).unwrap(), Found::Odd(_)), "{text}");
        }
        fs::write(folder.path().join(MARK_FILE), [0xff, 0xfe]).unwrap();
        assert!(matches!(observe(folder.path()).unwrap(), Found::Odd(_)));
    }

    #[test]
    fn an_interrupted_purge_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bucket");
        create(&path, &Mark::active(owner("a")), &folder.path().join("scratch")).unwrap();
        fs::rename(&path, purged_name(&path, &owner("a")).unwrap()).unwrap();
        assert!(has_leftovers(&path, &owner("a")).unwrap());
        assert!(!has_leftovers(&path, &owner("b")).unwrap());
        purge(&path, &owner("a"), "bucket").unwrap();
        assert!(!has_leftovers(&path, &owner("a")).unwrap());
    }
}
