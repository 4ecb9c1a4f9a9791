//! Directories with an ownership mark.
//!
//! A bucket and the location of a table are directories with a file `.landfall.json`: the mark. It names the
//! component and environment that own the directory, and its state. A directory without a readable mark has an
//! unknown owner and is not touched.
//!
//! A marked directory appears as a whole (it is created elsewhere, mark first, and renamed into place) and disappears
//! as a whole (it is renamed and then deleted). So a crash leaves a directory with its mark, or one whose name shows
//! that it is being deleted, and for which owner. Such names begin with a dot, which names of buckets and tables
//! cannot.
//!
//! Everything here blocks: call it from a blocking thread.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::files::{self, Directory, Entry, Kind, Place};
use landfall_adapter::blocking::Cancellation;
use landfall_adapter::error::{Error, Result};
use landfall_adapter::{AccessList, Owner};

/// The mark's file name.
pub(super) const MARK_FILE: &str = ".landfall.json";
/// The version of the mark's layout that this code writes, and the newest that it reads.
const MARK_VERSION: u32 = 1;
/// A mark has a few hundred bytes and an access list; a larger file is not a mark.
const MAX_MARK_BYTES: u64 = 4 << 20;

/// How long an unfinished directory is left alone, because another process may be creating it.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// The content of a mark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mark {
    /// The version of this layout.
    pub(super) landfall: u32,
    /// The owner.
    #[serde(flatten)]
    pub(super) owner: Owner,
    /// The state of the directory.
    pub(super) state: State,
    /// The recorded access of a bucket. A table has it in its properties.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) access: Option<AccessList>,
    /// The catalog file of a table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) catalog: Option<String>,
    /// The last metadata file of a released table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) metadata_location: Option<String>,
}

/// The state of a marked directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// Provisioned.
    Active,
    /// Unprovisioned, with its data kept.
    Released,
    /// Being deleted; its content is incomplete.
    Purging,
}

impl Mark {
    /// The mark of an active directory.
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

/// The content of a path.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Found {
    /// Nothing.
    Absent,
    /// A directory without a mark.
    Bare,
    /// Not a directory, or a mark that cannot be read; the text says which.
    Odd(&'static str),
    /// A directory with a mark.
    Marked(Mark),
}

impl Found {
    /// The mark if it belongs to `owner`, `None` if the place is free, and otherwise a conflict that names both
    /// owners.
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
        "{what} exists and {why}, so it is not adopted for {owner}: choose another name, or move it away"
    ))
}

/// Returns the conflict between two owners of one resource. `theirs` is `None` if the other owner is unknown.
pub(super) fn foreign(what: &str, theirs: Option<&Owner>, ours: &Owner) -> Error {
    let holder = theirs.map_or_else(|| "an unknown owner".to_owned(), Owner::to_string);
    Error::conflict(format!(
        "{what} belongs to {holder}, so it is not touched for {ours}: choose another name, or unprovision the other first"
    ))
}

/// Reads a place without following links in its path.
pub(super) fn observe(place: &Place) -> Result<Found> {
    let failed = |e| files::failed("look at", &place.path(), e);
    let Some(parent) = place.parent().open_if_there().map_err(failed)? else { return Ok(Found::Absent) };
    loop {
        let directory = match parent.look(place.name()).map_err(failed)? {
            None => return Ok(Found::Absent),
            Some(Entry { kind: Kind::Link, .. }) => {
                return Ok(Found::Odd("is a symbolic link, which is not followed"));
            }
            Some(Entry { kind: Kind::Directory, .. }) => parent.child(place.name()),
            Some(_) => return Ok(Found::Odd("is not a directory")),
        };
        let directory = match directory {
            Ok(directory) => directory,
            // Another process replaced the directory after it was found: read again.
            Err(e) if e.kind() == io::ErrorKind::NotFound || files::is_link(&e) => continue,
            Err(e) => return Err(failed(e)),
        };
        if let Some(found) = read_mark(&directory)? {
            return Ok(found);
        }
        // Another process may have replaced the directory meanwhile. It has no mark only if it is still in its place.
        let place = parent.look(place.name()).map_err(failed)?.map(|entry| entry.identity);
        if place == Some(directory.identity().map_err(failed)?) {
            return Ok(Found::Bare);
        }
    }
}

/// The mark of an open directory, if it has one.
fn read_mark(directory: &Directory) -> Result<Option<Found>> {
    let failed = |e| files::failed("read", &directory.path().join(MARK_FILE), e);
    let name = OsStr::new(MARK_FILE);
    match directory.look(name).map_err(failed)? {
        None => return Ok(None),
        Some(Entry { kind: Kind::File, size, .. }) if size <= MAX_MARK_BYTES => {}
        Some(_) => return Ok(Some(Found::Odd("has a mark that is not a plain file"))),
    }
    let mut text = String::new();
    match directory.open_file(name).and_then(|file| file.take(MAX_MARK_BYTES).read_to_string(&mut text)) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => {
            return Ok(Some(Found::Odd("has an ownership mark that cannot be read")));
        }
        Err(e) => return Err(failed(e)),
    }
    Ok(Some(match serde_json::from_str::<Mark>(&text) {
        Ok(mark) if mark.landfall == MARK_VERSION => Found::Marked(mark),
        Ok(_) => Found::Odd("has an ownership mark of another version of Landfall"),
        Err(_) => Found::Odd("has an ownership mark that cannot be read"),
    }))
}

/// Creates a directory with its mark; it must not exist. `scratch` is a directory on the same file system.
pub(super) fn create(place: &Place, mark: &Mark, scratch: &Place) -> Result<()> {
    let path = place.path();
    let parent = place.parent();
    let parent = parent.make().map_err(|e| files::failed("create the directory", &parent.path(), e))?;
    // A unique name, because two creators of one directory must not delete each other's mark.
    let working = uuid::Uuid::new_v4().to_string();
    let working = OsStr::new(&working);
    let scratch = scratch.make().map_err(|e| files::failed("create the directory", &scratch.path(), e))?;
    let directory =
        scratch.make(working).map_err(|e| files::failed("create the directory", scratch.path(), e))?;
    let made = replace_mark(&directory, mark, &scratch).and_then(|()| {
        // If another process was faster, the next plan shows the owner.
        scratch.rename_new(working, &parent, place.name()).map_err(|e| files::failed("create", &path, e))
    });
    if made.is_err() {
        scratch.remove_tree(working, &Cancellation::never())?;
    }
    made?;
    parent.sync().map_err(|e| files::failed("sync", parent.path(), e))
}

/// Deletes the entries of `scratch` that interrupted calls of [`create`] left and that are older than
/// [`STALE`].
pub(super) fn tidy(scratch: &Place, cancellation: &Cancellation) -> Result<()> {
    let failed = |e| files::failed("tidy", &scratch.path(), e);
    let Some(scratch) = scratch.open_if_there().map_err(failed)? else { return Ok(()) };
    scratch.each(|name| {
        cancellation.check()?;
        match scratch.look(name).map_err(failed)? {
            Some(entry) if entry.age().is_some_and(|age| age > STALE) => {
                scratch.remove_tree(name, cancellation)
            }
            _ => Ok(()),
        }
    })
}

/// Replaces the mark of a directory. `scratch` is a directory on the same file system.
pub(super) fn write_mark(place: &Place, mark: &Mark, scratch: &Place) -> Result<()> {
    let failed = |e| files::failed("write the ownership mark of", &place.path(), e);
    let directory = place.open().map_err(failed)?;
    let scratch = scratch.make().map_err(failed)?;
    replace_mark(&directory, mark, &scratch)
}

fn replace_mark(directory: &Directory, mark: &Mark, scratch: &Directory) -> Result<()> {
    // A unique name, because a writer must not move the unfinished mark of another one into place.
    let working = format!("{}.json", uuid::Uuid::new_v4());
    let working = OsStr::new(&working);
    let write = || -> io::Result<()> {
        let mut file = scratch.create_new(working)?;
        file.write_all(&serde_json::to_vec_pretty(mark)?)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        scratch.rename(working, directory, OsStr::new(MARK_FILE))?;
        directory.sync()
    };
    write().map_err(|e| {
        // If the unfinished file cannot be deleted now, [`tidy`] deletes it later.
        let _ = scratch.remove_file(working);
        files::failed("write the ownership mark of", directory.path(), e)
    })
}

/// Deletes a directory of `owner` with all its content, and the rest of an interrupted purge. Links in it are
/// deleted, not followed. If it is cancelled, [`sweep`] deletes the rest.
pub(super) fn purge(place: &Place, owner: &Owner, what: &str, cancellation: &Cancellation) -> Result<()> {
    let failed = |e| files::failed("move away", &place.path(), e);
    let Some(parent) = place.parent().open_if_there().map_err(failed)? else { return Ok(()) };
    let working = purged(place, owner);
    parent.remove_tree(working.name(), cancellation)?;
    let identity = |place: &Place| {
        Ok::<_, Error>(parent.look(place.name()).map_err(failed)?.map(|entry| entry.identity))
    };
    let replaced = || Error::retryable(format!("{what} was replaced while it was to be deleted"));
    let before = identity(place)?;
    if observe(place)?.owned_by(owner, what)?.is_some() {
        if identity(place)? != before {
            return Err(replaced());
        }
        parent.rename_new(place.name(), &parent, working.name()).map_err(failed)?;
        // Another process may have put another directory there between the check and the rename. The mark does not
        // help: a run that lost its lease while it deleted this directory may still run, and may have deleted the
        // mark.
        let moved = identity(&working)?;
        if moved.is_some() && moved != before {
            parent.rename_new(working.name(), &parent, place.name()).map_err(failed)?;
            return Err(replaced());
        }
        parent.remove_tree(working.name(), cancellation)?;
    }
    parent.sync().map_err(|e| files::failed("sync", parent.path(), e))
}

/// Deletes only the rest of an interrupted [`purge`] of `owner`.
pub(super) fn sweep(place: &Place, owner: &Owner, cancellation: &Cancellation) -> Result<()> {
    let failed = |e| files::failed("look at", &place.path(), e);
    match place.parent().open_if_there().map_err(failed)? {
        Some(parent) => parent.remove_tree(purged(place, owner).name(), cancellation),
        None => Ok(()),
    }
}

/// Whether an interrupted [`purge`] of `owner` left files.
pub(super) fn has_leftovers(place: &Place, owner: &Owner) -> Result<bool> {
    let failed = |e| files::failed("look at", &place.path(), e);
    match place.parent().open_if_there().map_err(failed)? {
        Some(parent) => Ok(parent.look(purged(place, owner).name()).map_err(failed)?.is_some()),
        None => Ok(false),
    }
}

/// Whether a directory of this name has content.
pub(super) fn has_any(place: &Place, name: &str) -> Result<bool> {
    let inner = place.join(name);
    let failed = |e| files::failed("look at", &inner.path(), e);
    let Some(directory) = inner.open_if_there().map_err(failed)? else { return Ok(false) };
    let mut any = false;
    directory.each(|_| {
        any = true;
        Ok(())
    })?;
    Ok(any)
}

/// `.purged.NAME.HASH` next to `NAME`.
pub(super) fn purged(place: &Place, owner: &Owner) -> Place {
    let hash = landfall_adapter::naming::hash(&[&owner.component, &owner.environment]);
    place.parent().join(&format!(".purged.{}.{hash}", place.name().to_string_lossy()))
}

/// Creates a directory and its missing parents, and makes each name durable. For the folders above a warehouse.
pub(super) fn create_directories(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Ok(()) => path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let Some(parent) = path.parent() else { return Err(e) };
            create_directories(parent)?;
            create_directories(path)
        }
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn owner(name: &str) -> Owner {
        Owner { component: format!("urn:dmb:cmp:{name}"), environment: "production".to_owned() }
    }

    fn purge(place: &Place, owner: &Owner, what: &str) -> Result<()> {
        super::purge(place, owner, what, &Cancellation::never())
    }

    /// A place for a bucket, and one for unfinished directories.
    fn places(folder: &tempfile::TempDir) -> (Place, Place) {
        let root = Place::root(folder.path());
        (root.join("bucket"), root.join("scratch"))
    }

    #[test]
    fn marks_decide_ownership() {
        let folder = tempfile::tempdir().unwrap();
        let (_, scratch) = places(&folder);
        let path = Place::root(folder.path()).join("a").join("b").join("bucket");
        assert_eq!(observe(&path).unwrap(), Found::Absent);
        create(&path, &Mark::active(owner("a")), &scratch).unwrap();
        assert_eq!(observe(&path).unwrap(), Found::Marked(Mark::active(owner("a"))));
        let error = observe(&path).unwrap().owned_by(&owner("b"), "bucket `bucket`").unwrap_err();
        assert!(error.to_string().contains("urn:dmb:cmp:a") && error.to_string().contains("urn:dmb:cmp:b"));
        assert!(purge(&path, &owner("b"), "bucket `bucket`").is_err());
        assert!(path.path().is_dir());
        // A second creation leaves it unchanged.
        fs::write(path.path().join("data"), "x").unwrap();
        assert!(create(&path, &Mark::active(owner("a")), &scratch).unwrap_err().is_retryable());
        assert!(path.path().join("data").exists());
        assert_eq!(scratch.path().read_dir().unwrap().count(), 0);
        tidy(&scratch, &Cancellation::never()).unwrap();
        tidy(&scratch.join("never"), &Cancellation::never()).unwrap();
    }

    /// Processes that share a warehouse may write a mark at the same time; a reader sees one of the two.
    #[test]
    fn simultaneous_writers_leave_a_complete_mark() {
        let folder = tempfile::tempdir().unwrap();
        let (path, scratch) = places(&folder);
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
        assert_eq!(scratch.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn purging_follows_no_symlink() {
        let folder = tempfile::tempdir().unwrap();
        let outside = folder.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "x").unwrap();
        let (path, scratch) = places(&folder);
        create(&path, &Mark::active(owner("a")), &scratch).unwrap();
        symlink(&outside, path.path().join("link")).unwrap();
        purge(&path, &owner("a"), "bucket").unwrap();
        assert!(!path.path().exists() && outside.join("precious").exists());
        // A symlink in place of the directory is a conflict.
        create(&Place::root(&outside).join("real"), &Mark::active(owner("a")), &scratch).unwrap();
        symlink(outside.join("real"), path.path()).unwrap();
        let refused = purge(&path, &owner("a"), "bucket `bucket`").unwrap_err();
        assert_eq!(
            refused.to_string(),
            "bucket `bucket` exists and is a symbolic link, which is not followed, so it is not adopted for component \
             `urn:dmb:cmp:a` in environment `production`: choose another name, or move it away"
        );
        assert!(outside.join("real").exists());
        purge(&Place::root(folder.path()).join("never"), &owner("a"), "bucket").unwrap();
    }

    /// A link in place of a parent folder, of a mark, and of the folder for unfinished directories.
    #[test]
    fn links_in_a_path_are_conflicts_and_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("w"), folder.path().join("outside"));
        fs::create_dir_all(outside.join("old")).unwrap();
        fs::create_dir(&root).unwrap();
        let long_ago = std::time::SystemTime::now() - STALE * 2;
        File::open(outside.join("old")).unwrap().set_modified(long_ago).unwrap();
        let root = Place::root(&root);
        let mark = Mark::active(owner("a"));

        symlink(&outside, root.join("tables").path()).unwrap();
        let table = root.join("tables").join("table");
        let refused = [
            observe(&table).unwrap_err(),
            create(&table, &mark, &root.join("scratch")).unwrap_err(),
            write_mark(&table, &mark, &root.join("scratch")).unwrap_err(),
            purge(&table, &owner("a"), "table").unwrap_err(),
            sweep(&table, &owner("a"), &Cancellation::never()).unwrap_err(),
            has_leftovers(&table, &owner("a")).unwrap_err(),
        ];
        for error in refused {
            assert_eq!(*error.kind(), landfall_adapter::error::Kind::Conflict, "{error}");
            assert!(
                error.to_string().contains("/tables` is a symbolic link, and inside a warehouse none"),
                "{error}"
            );
        }

        symlink(&outside, root.join("scratch").path()).unwrap();
        let bucket = root.join("bucket");
        assert_eq!(
            *tidy(&root.join("scratch"), &Cancellation::never()).unwrap_err().kind(),
            landfall_adapter::error::Kind::Conflict
        );
        create(&bucket, &mark, &root.join("scratch")).unwrap_err();
        create(&bucket, &mark, &root.join("fresh")).unwrap();
        fs::remove_file(bucket.path().join(MARK_FILE)).unwrap();
        fs::write(outside.join("mark"), serde_json::to_vec(&mark).unwrap()).unwrap();
        symlink(outside.join("mark"), bucket.path().join(MARK_FILE)).unwrap();
        assert_eq!(observe(&bucket).unwrap(), Found::Odd("has a mark that is not a plain file"));
        let names: Vec<_> = outside.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "nothing was deleted or made there: {names:?}");
    }

    /// Two runs purge one directory: one that lost its lease, and its successor.
    #[test]
    fn two_purges_at_once_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (path, scratch) = places(&folder);
        let done = std::sync::atomic::AtomicBool::new(false);
        let until_gone = || {
            while let Err(error) = purge(&path, &owner("a"), "table") {
                assert!(error.is_retryable(), "{error}");
            }
        };
        std::thread::scope(|threads| {
            let other = threads.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    until_gone();
                }
            });
            for _ in 0..500 {
                create(&path, &Mark::active(owner("a")), &scratch).unwrap();
                for name in ["data", "more data"] {
                    // The other purge may have deleted the directory already.
                    let _ = fs::write(path.path().join(name), "x");
                }
                until_gone();
                assert_eq!(observe(&path).unwrap(), Found::Absent);
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            other.join().unwrap();
        });
        assert!(!has_leftovers(&path, &owner("a")).unwrap());
    }

    #[test]
    fn sweep_deletes_the_rest_of_a_cancelled_purge() {
        let folder = tempfile::tempdir().unwrap();
        let (path, scratch) = places(&folder);
        create(&path, &Mark::active(owner("a")), &scratch).unwrap();
        fs::write(path.path().join("data"), "x").unwrap();
        let cancel = tokio_util::sync::CancellationToken::new();
        cancel.cancel();
        let stopped = super::purge(&path, &owner("a"), "bucket", &Cancellation::of(&cancel)).unwrap_err();
        assert_eq!(*stopped.kind(), landfall_adapter::error::Kind::Cancelled);
        assert!(!path.path().exists() && purged(&path, &owner("a")).path().join("data").exists());
        sweep(&path, &owner("a"), &Cancellation::never()).unwrap();
        assert!(!has_leftovers(&path, &owner("a")).unwrap());
    }

    #[test]
    fn unreadable_marks_are_conflicts() {
        let folder = tempfile::tempdir().unwrap();
        let (place, _) = places(&folder);
        fs::create_dir(place.path()).unwrap();
        for text in [
            "",
            "{}",
            "[]",
            "{\"landfall\":2,\"component\":\"a\",\"environment\":\"b\",\"state\":\"active\"}",
        ] {
            fs::write(place.path().join(MARK_FILE), text).unwrap();
            assert!(matches!(observe(&place).unwrap(), Found::Odd(_)), "{text}");
        }
        fs::write(place.path().join(MARK_FILE), [0xff, 0xfe]).unwrap();
        assert!(matches!(observe(&place).unwrap(), Found::Odd(_)));
    }

    #[test]
    fn an_interrupted_purge_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let (path, scratch) = places(&folder);
        create(&path, &Mark::active(owner("a")), &scratch).unwrap();
        fs::rename(path.path(), purged(&path, &owner("a")).path()).unwrap();
        assert!(has_leftovers(&path, &owner("a")).unwrap());
        assert!(!has_leftovers(&path, &owner("b")).unwrap());
        purge(&path, &owner("a"), "bucket").unwrap();
        assert!(!has_leftovers(&path, &owner("a")).unwrap());
    }
}
