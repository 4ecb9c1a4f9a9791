//! Files below one directory, reached without following a symbolic link.
//!
//! A process that may write into a warehouse can replace a bucket, a namespace or a table with a link at any moment.
//! A check before each use would leave the time between the two. So paths are not used at all: each directory on the
//! way is opened inside its parent with `O_NOFOLLOW`, and all work is done in the open directory. No other process
//! can exchange an open directory.
//!
//! Only the root is opened by its path, because the administrator decides where the warehouse is.
//!
//! Everything here blocks: call it from a blocking thread.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::{self as unix, AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use landfall_adapter::blocking::Cancellation;
use landfall_adapter::error::{Error, Result};

/// The flags with which directories are opened.
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A path below a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    root: Arc<Path>,
    /// The path below `root`; it has only plain names, no `..`.
    below: PathBuf,
}

impl Place {
    /// The root itself.
    pub(super) fn root(root: &Path) -> Self {
        Self { root: root.into(), below: PathBuf::new() }
    }

    /// The place of a path below `root`; `None` if its text leads elsewhere.
    pub(super) fn below(root: &Path, path: &Path) -> Option<Self> {
        let below = path.strip_prefix(root).ok()?;
        let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        (plain && below.file_name().is_some()).then(|| Self { root: root.into(), below: below.to_owned() })
    }

    /// The place of a name in this directory.
    pub(super) fn join(&self, name: &str) -> Self {
        Self { root: Arc::clone(&self.root), below: self.below.join(name) }
    }

    /// The path, for messages and locations. Do not open it: it may lead through a link.
    pub(super) fn path(&self) -> PathBuf {
        self.root.join(&self.below)
    }

    /// The last name.
    pub(super) fn name(&self) -> &OsStr {
        self.below.file_name().unwrap_or_default()
    }

    /// The parent directory.
    pub(super) fn parent(&self) -> Self {
        let below = self.below.parent().unwrap_or(Path::new("")).to_owned();
        Self { root: Arc::clone(&self.root), below }
    }

    /// Opens the directory.
    pub(super) fn open(&self) -> io::Result<Directory> {
        self.walk(Directory::child)
    }

    /// Opens the directory; `None` if it or a parent does not exist.
    pub(super) fn open_if_there(&self) -> io::Result<Option<Directory>> {
        match self.open() {
            Ok(directory) => Ok(Some(directory)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Opens the directory. Creates it and its parents if they are missing, and makes each name durable.
    pub(super) fn make(&self) -> io::Result<Directory> {
        self.walk(Directory::make)
    }

    fn walk(&self, enter: impl Fn(&Directory, &OsStr) -> io::Result<Directory>) -> io::Result<Directory> {
        let root =
            Directory { fd: unix::open(&*self.root, FOLDER, Mode::empty())?, path: self.root.to_path_buf() };
        self.below.iter().try_fold(root, |directory, name| enter(&directory, name))
    }
}

/// An open directory.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

/// Device and inode, which identify a file.
pub(super) type Identity = (unix::Dev, u64);

/// An entry of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    /// The size of a file in bytes.
    pub(super) size: u64,
    /// Distinguishes the entry from others that had the same name.
    pub(super) identity: Identity,
    /// When the entry was last changed, in seconds since 1970.
    modified: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
    Link,
    Other,
}

impl Entry {
    /// How long ago it was written.
    pub(super) fn age(&self) -> Option<Duration> {
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(self.modified).ok()?);
        modified.elapsed().ok()
    }
}

impl Directory {
    /// The path, for messages only.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the device and inode of the directory.
    pub(super) fn identity(&self) -> io::Result<Identity> {
        let stat = unix::fstat(&self.fd)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Opens a directory in this one.
    pub(super) fn child(&self, name: &OsStr) -> io::Result<Self> {
        let fd = unix::openat(&self.fd, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())
            .map_err(|e| self.refused(name, e))?;
        Ok(Self { fd, path: self.path.join(name) })
    }

    /// Opens a directory in this one, and creates it if it is missing.
    pub(super) fn make(&self, name: &OsStr) -> io::Result<Self> {
        match unix::mkdirat(&self.fd, name, Mode::from_raw_mode(0o777)) {
            Ok(()) => self.sync()?,
            Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        self.child(name)
    }

    /// Returns the entry with this name, or `None`. A link is not followed.
    pub(super) fn look(&self, name: &OsStr) -> io::Result<Option<Entry>> {
        let stat = match unix::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Directory,
            FileType::RegularFile => Kind::File,
            FileType::Symlink => Kind::Link,
            _ => Kind::Other,
        };
        Ok(Some(Entry {
            kind,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            identity: (stat.st_dev, stat.st_ino),
            modified: stat.st_mtime,
        }))
    }

    /// Opens a plain file for reading.
    pub(super) fn open_file(&self, name: &OsStr) -> io::Result<File> {
        // If the name is a pipe, `NONBLOCK` prevents a wait for its other end.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = unix::openat(&self.fd, name, flags, Mode::empty()).map_err(|e| self.refused(name, e))?;
        let file = File::from(fd);
        if file.metadata()?.is_file() {
            return Ok(file);
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("`{}` is no file", self.path.join(name).display()),
        ))
    }

    /// Creates a file, or truncates the existing one.
    pub(super) fn create_file(&self, name: &OsStr) -> io::Result<File> {
        self.file_to_write(name, OFlags::TRUNC)
    }

    /// Creates a file that must not exist.
    pub(super) fn create_new(&self, name: &OsStr) -> io::Result<File> {
        self.file_to_write(name, OFlags::EXCL)
    }

    fn file_to_write(&self, name: &OsStr, how: OFlags) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | how;
        let fd = unix::openat(&self.fd, name, flags, Mode::from_raw_mode(0o666));
        fd.map(File::from).map_err(|e| self.refused(name, e))
    }

    /// Moves an entry to another directory, and replaces a file of the same name.
    pub(super) fn rename(&self, name: &OsStr, to: &Self, new_name: &OsStr) -> io::Result<()> {
        Ok(unix::renameat(&self.fd, name, &to.fd, new_name)?)
    }

    /// Moves an entry to another directory, where the name must not exist.
    pub(super) fn rename_new(&self, name: &OsStr, to: &Self, new_name: &OsStr) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        match unix::renameat_with(&self.fd, name, &to.fd, new_name, unix::RenameFlags::NOREPLACE) {
            // Not every file system supports the flag.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            renamed => return Ok(renamed?),
        }
        // Only an empty directory could be replaced.
        self.rename(name, to, new_name)
    }

    /// Deletes a file or a link, if it exists.
    pub(super) fn remove_file(&self, name: &OsStr) -> io::Result<()> {
        match unix::unlinkat(&self.fd, name, AtFlags::empty()) {
            Err(e) if e != Errno::NOENT => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// Deletes an empty directory.
    pub(super) fn remove_directory(&self, name: &OsStr) -> io::Result<()> {
        Ok(unix::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)?)
    }

    /// Deletes an entry with all its content; links are deleted, not followed. Checks for cancellation before each
    /// entry.
    ///
    /// At most two levels are open, however deep they nest: deeper directories are first moved up to the top.
    pub(super) fn remove_tree(&self, name: &OsStr, cancellation: &Cancellation) -> Result<()> {
        let failed = |e: io::Error| failed("delete", &self.path.join(name), e);
        match self.look(name).map_err(failed)? {
            None => return Ok(()),
            Some(entry) if entry.kind != Kind::Directory => return self.remove_file(name).map_err(failed),
            Some(_) => {}
        }
        let mut hoisted = 0;
        loop {
            let top = match self.child(name) {
                Ok(top) => top,
                // Another process deleted the entry, too.
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(e) => return Err(failed(e)),
            };
            let mut folders = Vec::new();
            top.each(|entry| {
                cancellation.check()?;
                match top.unlink_unless_directory(entry).map_err(failed)? {
                    true => Ok(()),
                    false => {
                        folders.push(entry.to_owned());
                        Ok(())
                    }
                }
            })?;
            for folder in folders {
                let inner = match top.child(&folder) {
                    Ok(inner) => inner,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(failed(e)),
                };
                inner.each(|entry| {
                    cancellation.check()?;
                    if inner.unlink_unless_directory(entry).map_err(failed)? {
                        return Ok(());
                    }
                    inner.hoist(entry, &top, &mut hoisted).map_err(failed)
                })?;
                match top.remove_directory(&folder) {
                    // Entries that are added meanwhile are deleted in the next round.
                    Err(e) if is_gone_or_full(&e) => {}
                    removed => removed.map_err(failed)?,
                }
            }
            match self.remove_directory(name) {
                Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                removed => return removed.map_err(failed),
            }
        }
    }

    /// Deletes a name that is not a directory. Returns whether it is gone.
    fn unlink_unless_directory(&self, name: &OsStr) -> io::Result<bool> {
        match unix::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            // The error for a directory depends on the system, and other errors may have the same code.
            Err(e @ (Errno::ISDIR | Errno::PERM)) => match self.look(name)? {
                None => Ok(true),
                Some(entry) if entry.kind == Kind::Directory => Ok(false),
                Some(_) => Err(e.into()),
            },
            Err(e) => Err(e.into()),
        }
    }

    /// Moves a directory up to `top`, under an unused name.
    fn hoist(&self, name: &OsStr, top: &Self, hoisted: &mut u64) -> io::Result<()> {
        loop {
            *hoisted += 1;
            match self.rename_new(name, top, OsStr::new(&format!(".deep.{hoisted}"))) {
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty
                    ) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                renamed => return renamed,
            }
        }
    }

    /// Calls `with` for each name except `.` and `..`.
    pub(super) fn each(&self, mut with: impl FnMut(&OsStr) -> Result<()>) -> Result<()> {
        let listed = |e: Errno| failed("list", &self.path, e.into());
        for entry in Dir::read_from(&self.fd).map_err(listed)? {
            let entry = entry.map_err(listed)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                with(name)?;
            }
        }
        Ok(())
    }

    /// Makes the names in the directory durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(unix::fsync(&self.fd)?)
    }

    /// Converts a system error. If the name is a link, the result is the [`Link`] conflict.
    fn refused(&self, name: &OsStr, error: Errno) -> io::Error {
        let is_link = matches!(error, Errno::LOOP | Errno::NOTDIR | Errno::MLINK)
            && self.look(name).is_ok_and(|entry| entry.is_some_and(|entry| entry.kind == Kind::Link));
        if is_link { io::Error::other(Link(self.path.join(name))) } else { error.into() }
    }
}

fn is_gone_or_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty)
}

/// The conflict of a symbolic link in place of a directory or file.
#[derive(Debug, thiserror::Error)]
#[error("`{}` is a symbolic link", .0.display())]
pub(super) struct Link(PathBuf);

/// Whether a link caused the error.
pub(super) fn is_link(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Link>())
}

/// Converts a system error. A link is a conflict. All others are transient, with a remedy in the message: a full
/// disk, an unmounted file system, revoked permissions, a directory that was just deleted.
pub(super) fn failed(what: &str, path: &Path, error: io::Error) -> Error {
    let path = path.display();
    if let Some(link) = error.get_ref().and_then(|inner| inner.downcast_ref::<Link>()) {
        let text = format!(
            "cannot {what} `{path}`: {link}, and inside a warehouse none is followed; put the directory or the file itself \
             there"
        );
        return Error::conflict(text);
    }
    Error::retryable(format!("cannot {what} `{path}`{}", advice(&error))).because(error)
}

/// The cause and the remedy, if the system reports one: `: the disk is full; free space on it`.
pub(super) fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => ": the disk is full; free space on it",
        io::ErrorKind::QuotaExceeded => {
            ": the disk quota of Landfall's user is used up; raise it, or free space"
        }
        io::ErrorKind::ReadOnlyFilesystem => ": the file system is read-only; mount it for writing",
        io::ErrorKind::PermissionDenied => ": Landfall's user may not; let it read, write and search there",
        io::ErrorKind::NotADirectory => ": a part of the path is not a directory; move it away",
        io::ErrorKind::StaleNetworkFileHandle => ": the network file system went away; mount it again",
        _ if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
            ": the disk reports an error; check it, and the system's log"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use tokio_util::sync::CancellationToken;

    use super::*;

    fn wanted() -> Cancellation {
        Cancellation::of(&CancellationToken::new())
    }

    #[test]
    fn links_are_refused_anywhere_in_a_path() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("warehouse");
        let outside = folder.path().join("outside");
        fs::create_dir_all(root.join("real/inner")).unwrap();
        fs::create_dir_all(outside.join("inner")).unwrap();
        fs::write(outside.join("inner/file"), "precious").unwrap();
        symlink(&outside, root.join("link")).unwrap();
        symlink(folder.path().join("nowhere"), root.join("dangling")).unwrap();
        symlink(outside.join("inner/file"), root.join("real/inner/file")).unwrap();
        let place = Place::root(&root);

        for way in ["link", "link/inner", "dangling", "dangling/inner"] {
            let place = way.split('/').fold(place.clone(), |place, name| place.join(name));
            for refused in [place.open().unwrap_err(), place.make().unwrap_err()] {
                assert!(is_link(&refused), "{way}: {refused}");
                let error = failed("open", &place.path(), refused);
                let name = way.split('/').next().unwrap();
                assert_eq!(
                    error.to_string(),
                    format!(
                        "cannot open `{}`: `{}` is a symbolic link, and inside a warehouse none is followed; put the \
                         directory or the file itself there",
                        place.path().display(),
                        root.join(name).display()
                    )
                );
                assert_eq!(*error.kind(), landfall_adapter::error::Kind::Conflict);
            }
        }
        assert!(!folder.path().join("nowhere").exists());
        let inner = place.join("real").join("inner").open().unwrap();
        let name = OsStr::new("file");
        assert!(is_link(&inner.open_file(name).unwrap_err()));
        assert!(is_link(&inner.create_file(name).unwrap_err()));
        assert!(inner.create_new(name).is_err());
        assert_eq!(inner.look(name).unwrap().unwrap().kind, Kind::Link);
        assert_eq!(fs::read_to_string(outside.join("inner/file")).unwrap(), "precious");
    }

    /// An open directory stays the same.
    #[test]
    fn open_directory_is_unaffected_by_a_swapped_link() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("warehouse");
        let outside = folder.path().join("outside");
        fs::create_dir_all(root.join("bucket")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("mark"), "precious").unwrap();
        let held = Place::root(&root).join("bucket").open().unwrap();
        fs::rename(root.join("bucket"), root.join("moved")).unwrap();
        symlink(&outside, root.join("bucket")).unwrap();
        held.create_file(OsStr::new("mark")).unwrap();
        assert_eq!(fs::read_to_string(outside.join("mark")).unwrap(), "precious");
        assert!(root.join("moved/mark").exists());
    }

    #[test]
    fn deletes_deep_trees_without_following_links() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        let outside = root.join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "x").unwrap();
        fs::create_dir(root.join("tree")).unwrap();
        // Deeper than the limits of file descriptors and of paths.
        let mut deepest = Place::root(&root).join("tree").open().unwrap();
        for depth in 0..3000 {
            deepest = deepest.make(OsStr::new("a-directory")).unwrap();
            if depth % 100 == 0 {
                deepest.create_file(OsStr::new("file")).unwrap();
                unix::symlinkat(&outside, &deepest.fd, "link").unwrap();
            }
        }
        fs::create_dir(root.join("tree/.deep.1")).unwrap();
        fs::write(root.join("tree/.deep.1/file"), "x").unwrap();
        fs::write(root.join("tree/.deep.2"), "x").unwrap();
        let top = Place::root(&root).open().unwrap();
        top.remove_tree(OsStr::new("tree"), &wanted()).unwrap();
        assert!(!root.join("tree").exists());
        assert!(outside.join("precious").exists());
        top.remove_tree(OsStr::new("tree"), &wanted()).unwrap();
        symlink(&outside, root.join("tree")).unwrap();
        top.remove_tree(OsStr::new("tree"), &wanted()).unwrap();
        assert!(outside.join("precious").exists() && !root.join("tree").is_symlink());
    }

    #[test]
    fn cancelled_deletion_stops_between_entries() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("tree")).unwrap();
        for file in 0..100 {
            fs::write(folder.path().join(format!("tree/{file}")), "x").unwrap();
        }
        let cancel = CancellationToken::new();
        let top = Place::root(folder.path()).open().unwrap();
        let tree = top.child(OsStr::new("tree")).unwrap();
        let mut left = 100;
        let stopped = tree.each(|name| {
            Cancellation::of(&cancel).check()?;
            tree.remove_file(name).unwrap();
            left -= 1;
            if left == 60 {
                cancel.cancel();
            }
            Ok(())
        });
        assert_eq!(*stopped.unwrap_err().kind(), landfall_adapter::error::Kind::Cancelled);
        let stopped = top.remove_tree(OsStr::new("tree"), &Cancellation::of(&cancel)).unwrap_err();
        assert_eq!(*stopped.kind(), landfall_adapter::error::Kind::Cancelled);
        assert_eq!(fs::read_dir(folder.path().join("tree")).unwrap().count(), 60);
    }

    #[test]
    fn file_system_errors_have_remedies_and_are_transient() {
        for (errno, text) in [
            (Errno::NOSPC, "the disk is full; free space on it"),
            (Errno::DQUOT, "the disk quota of Landfall's user is used up; raise it, or free space"),
            (Errno::ROFS, "the file system is read-only; mount it for writing"),
            (Errno::ACCESS, "Landfall's user may not; let it read, write and search there"),
            (Errno::PERM, "Landfall's user may not; let it read, write and search there"),
            (Errno::IO, "the disk reports an error; check it, and the system's log"),
            (Errno::STALE, "the network file system went away; mount it again"),
        ] {
            let error = failed("write", Path::new("/w/x"), errno.into());
            assert_eq!(error.to_string(), format!("cannot write `/w/x`: {text}"));
            assert!(error.is_retryable());
        }
        assert_eq!(failed("write", Path::new("/x"), Errno::BUSY.into()).to_string(), "cannot write `/x`");
    }

    #[test]
    fn only_plain_paths_below_the_root_are_accepted() {
        let root = Path::new("/w");
        assert_eq!(Place::below(root, Path::new("/w/a/b")).unwrap().path(), Path::new("/w/a/b"));
        for elsewhere in ["/w", "/w/", "/w/../x", "/w/a/../../x", "/x/a", "w/a", "/wa"] {
            assert_eq!(Place::below(root, Path::new(elsewhere)), None, "{elsewhere}");
        }
    }
}
