//! The warehouse as Iceberg's storage.
//!
//! Iceberg brings a local filesystem storage made for tests: it blocks the async threads, leaves files in the page
//! cache and follows any path it is given. This one
//! - does its file work on blocking threads,
//! - syncs every file, and the directories that name it, before it reports success, so that what the catalog
//!   points at survives a power cut,
//! - refuses every path that is not below the warehouse, and every link on the way (`files.rs`): table metadata is
//!   written by other programs too.

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use iceberg::io::{
    FileMetadata, FileRead, FileWrite, InputFile, OutputFile, Storage, StorageConfig, StorageFactory,
};
use iceberg::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use super::files::{self, Directory, Entry, Kind, Place};

/// Files below one directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct WarehouseStorage {
    /// Absolute, without symlinks.
    root: PathBuf,
}

/// Gives the catalog its [`WarehouseStorage`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct WarehouseStorageFactory {
    /// Absolute, without symlinks.
    pub(super) root: PathBuf,
}

#[typetag::serde(name = "landfall-warehouse")]
impl StorageFactory for WarehouseStorageFactory {
    fn build(&self, _config: &StorageConfig) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(WarehouseStorage { root: self.root.clone() }))
    }
}

/// The path of a `file:` location. Percent signs stay as they are, as every local Iceberg reader takes them.
pub(super) fn local_path(location: &str) -> PathBuf {
    let path =
        location.strip_prefix("file://").or_else(|| location.strip_prefix("file:")).unwrap_or(location);
    PathBuf::from(path)
}

fn failed(what: &str, path: &Path, error: io::Error) -> Error {
    // Not found means that the table's metadata is wrong. Every other error has Landfall's own error as its source,
    // which `catalog::failed` returns.
    if error.kind() == io::ErrorKind::NotFound {
        return Error::new(ErrorKind::DataInvalid, format!("cannot {what} `{}`", path.display()))
            .with_source(error);
    }
    ours(files::failed(what, path, error))
}

fn ours(error: landfall_adapter::error::Error) -> Error {
    Error::new(ErrorKind::Unexpected, error.to_string()).with_source(error)
}

/// Runs file work on a blocking thread. Fails without starting it if the run is cancelled.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    landfall_adapter::blocking::run(move |_| Ok(work())).await.map_err(ours)?
}

impl WarehouseStorage {
    /// Returns the place of a location. Fails if it is not below the root. Links in the path are refused when
    /// it is opened.
    fn resolve(&self, location: &str) -> Result<Place> {
        Place::below(&self.root, &local_path(location)).ok_or_else(|| {
            Error::new(
                ErrorKind::DataInvalid,
                format!("`{location}` is not below the warehouse `{}`", self.root.display()),
            )
        })
    }

    /// Returns the place of a location, and its entry, if it exists. A link is an error.
    fn look(&self, location: &str) -> Result<(Place, Option<Entry>)> {
        let place = self.resolve(location)?;
        let path = place.path();
        let parent = place.parent().open_if_there().map_err(|e| failed("look at", &path, e))?;
        let entry = parent.map(|parent| parent.look(place.name())).transpose();
        let entry = entry.map_err(|e| failed("look at", &path, e))?.flatten();
        if entry.is_some_and(|entry| entry.kind == Kind::Link) {
            let link = place.open().err().unwrap_or_else(|| io::Error::other("a link"));
            return Err(failed("look at", &path, link));
        }
        Ok((place, entry))
    }

    fn open(&self, location: &str) -> Result<(File, PathBuf)> {
        let place = self.resolve(location)?;
        let path = place.path();
        let opened = place.parent().open().and_then(|parent| parent.open_file(place.name()));
        Ok((opened.map_err(|e| failed("open", &path, e))?, path))
    }

    /// Creates or truncates a file. Creates missing directories.
    fn create(&self, location: &str) -> Result<Written> {
        let place = self.resolve(location)?;
        let path = place.path();
        let parent = place.parent().make().map_err(|e| failed("create the directory of", &path, e))?;
        let file = parent.create_file(place.name()).map_err(|e| failed("create", &path, e))?;
        Ok(Written { file, parent, path })
    }
}

/// A file that is being written, and its directory.
struct Written {
    file: File,
    parent: Directory,
    path: PathBuf,
}

impl Written {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| failed("write", &self.path, e))
    }

    /// Makes the file durable: first its bytes, then its name.
    fn sync(&self) -> Result<()> {
        let synced = self.file.sync_all().and_then(|()| self.parent.sync());
        synced.map_err(|e| failed("sync", &self.path, e))
    }
}

#[async_trait]
#[typetag::serde(name = "landfall-warehouse")]
impl Storage for WarehouseStorage {
    async fn exists(&self, path: &str) -> Result<bool> {
        let (storage, path) = (self.clone(), path.to_owned());
        blocking(move || Ok(storage.look(&path)?.1.is_some())).await
    }

    async fn metadata(&self, path: &str) -> Result<FileMetadata> {
        let (storage, path) = (self.clone(), path.to_owned());
        blocking(move || {
            let (place, entry) = storage.look(&path)?;
            let missing = || failed("look at", &place.path(), io::ErrorKind::NotFound.into());
            Ok(FileMetadata { size: entry.ok_or_else(missing)?.size })
        })
        .await
    }

    async fn read(&self, path: &str) -> Result<Bytes> {
        let (storage, path) = (self.clone(), path.to_owned());
        blocking(move || {
            let (mut file, path) = storage.open(&path)?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(|e| failed("read", &path, e))?;
            Ok(Bytes::from(bytes))
        })
        .await
    }

    async fn reader(&self, path: &str) -> Result<Box<dyn FileRead>> {
        let (storage, path) = (self.clone(), path.to_owned());
        blocking(move || {
            let (file, path) = storage.open(&path)?;
            Ok(Box::new(Reader { file: Arc::new(file), path }) as Box<dyn FileRead>)
        })
        .await
    }

    async fn write(&self, path: &str, bytes: Bytes) -> Result<()> {
        let (storage, path) = (self.clone(), path.to_owned());
        blocking(move || {
            let mut written = storage.create(&path)?;
            written.write(&bytes)?;
            written.sync()
        })
        .await
    }

    async fn writer(&self, path: &str) -> Result<Box<dyn FileWrite>> {
        let (storage, path) = (self.clone(), path.to_owned());
        blocking(move || {
            let written = storage.create(&path)?;
            Ok(Box::new(Writer { path: written.path.clone(), written: Some(written) }) as Box<dyn FileWrite>)
        })
        .await
    }

    async fn delete(&self, path: &str) -> Result<()> {
        let (storage, path) = (self.clone(), path.to_owned());
        blocking(move || {
            let place = storage.resolve(&path)?;
            let parent = place.parent().open_if_there();
            let removed =
                parent.and_then(|parent| parent.map_or(Ok(()), |parent| parent.remove_file(place.name())));
            removed.map_err(|e| failed("delete", &place.path(), e))
        })
        .await
    }

    async fn delete_prefix(&self, path: &str) -> Result<()> {
        // Only `marked::purge` deletes whole directories; it checks their owner first.
        Err(Error::new(ErrorKind::FeatureUnsupported, format!("`{path}` is not deleted as a whole")))
    }

    async fn delete_stream(&self, mut paths: BoxStream<'static, String>) -> Result<()> {
        while let Some(path) = paths.next().await {
            self.delete(&path).await?;
        }
        Ok(())
    }

    fn new_input(&self, path: &str) -> Result<InputFile> {
        Ok(InputFile::new(Arc::new(self.clone()), path.to_owned()))
    }

    fn new_output(&self, path: &str) -> Result<OutputFile> {
        Ok(OutputFile::new(Arc::new(self.clone()), path.to_owned()))
    }
}

struct Reader {
    file: Arc<File>,
    path: PathBuf,
}

#[async_trait]
impl FileRead for Reader {
    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let (file, path) = (Arc::clone(&self.file), self.path.clone());
        blocking(move || {
            let length = usize::try_from(range.end.saturating_sub(range.start))
                .map_err(|e| Error::new(ErrorKind::DataInvalid, "the range is too long").with_source(e))?;
            let mut buffer = vec![0; length];
            file.read_exact_at(&mut buffer, range.start).map_err(|e| failed("read", &path, e))?;
            Ok(Bytes::from(buffer))
        })
        .await
    }
}

struct Writer {
    written: Option<Written>,
    path: PathBuf,
}

impl Writer {
    fn take(&mut self) -> Result<Written> {
        let closed = || Error::new(ErrorKind::Unexpected, format!("`{}` is closed", self.path.display()));
        self.written.take().ok_or_else(closed)
    }
}

#[async_trait]
impl FileWrite for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let mut written = self.take()?;
        self.written = Some(
            blocking(move || {
                written.write(&bytes)?;
                Ok(written)
            })
            .await?,
        );
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        let written = self.take()?;
        blocking(move || written.sync()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn paths_outside_the_warehouse_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("warehouse");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(folder.path().join("secret"), "s").unwrap();
        std::os::unix::fs::symlink(folder.path(), root.join("out")).unwrap();
        let storage = WarehouseStorage { root: root.clone() };
        let root = root.to_str().unwrap();
        for outside in [
            format!("{root}/../secret"),
            format!("{root}/out/secret"),
            format!("{root}/out/new/file"),
            format!("file://{root}"),
            "relative".to_owned(),
            "/etc/passwd".to_owned(),
        ] {
            assert!(storage.write(&outside, Bytes::new()).await.is_err(), "{outside}");
            assert!(storage.read(&outside).await.is_err(), "{outside}");
            assert!(storage.delete(&outside).await.is_err(), "{outside}");
        }
        let link = format!("{root}/link");
        std::os::unix::fs::symlink(folder.path().join("secret"), &link).unwrap();
        assert!(storage.write(&link, Bytes::new()).await.is_err());
        assert!(storage.read(&link).await.is_err());
        assert!(storage.exists(&link).await.is_err());
        let refused =
            super::super::catalog::failed("read table `t`", storage.reader(&link).await.err().unwrap());
        assert_eq!(*refused.kind(), landfall_adapter::error::Kind::Conflict);
        assert_eq!(
            refused.to_string(),
            format!(
                "cannot read table `t`: cannot open `{link}`: `{link}` is a symbolic link, and inside a warehouse none is \
                 followed; put the directory or the file itself there"
            )
        );
        assert_eq!(std::fs::read_to_string(folder.path().join("secret")).unwrap(), "s");
        let inside = format!("file://{root}/a/b/c");
        storage.write(&inside, Bytes::from_static(b"abc")).await.unwrap();
        let reader = storage.reader(&inside).await.unwrap();
        assert_eq!(reader.read(1..3).await.unwrap(), Bytes::from_static(b"bc"));
        assert!(storage.exists(&inside).await.unwrap());
        storage.delete(&inside).await.unwrap();
        storage.delete(&inside).await.unwrap();
        assert!(!storage.exists(&inside).await.unwrap());
    }
}
