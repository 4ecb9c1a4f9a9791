//! The warehouse as Iceberg's storage.
//!
//! Iceberg brings a local filesystem storage made for tests: it blocks the async threads, leaves files in the page
//! cache and follows any path it is given. This one
//! - does its file work on blocking threads,
//! - syncs every file, and the directories that name it, before it reports success, so that what the catalog
//!   points at survives a power cut,
//! - refuses every path that is not really below the warehouse: table metadata is written by other programs too.

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
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

fn failed(what: &str, path: &Path, error: std::io::Error) -> Error {
    // Not found means that the table's own books are wrong; anything else may pass (a full disk, a mount away).
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::DataInvalid,
        _ => ErrorKind::Unexpected,
    };
    Error::new(kind, format!("cannot {what} `{}`", path.display())).with_source(error)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::new(ErrorKind::Unexpected, "a file operation did not finish").with_source(e))?
}

impl WarehouseStorage {
    /// The path behind a location, if it is below the root even after symlinks.
    fn resolve(&self, location: &str) -> Result<PathBuf> {
        let path = local_path(location);
        let outside = || {
            Error::new(
                ErrorKind::DataInvalid,
                format!("`{location}` is not below the warehouse `{}`", self.root.display()),
            )
        };
        let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !path.is_absolute() || !plain || !path.starts_with(&self.root) || path == self.root {
            return Err(outside());
        }
        // The nearest ancestor that exists decides where a new file really goes.
        for ancestor in path.ancestors() {
            match ancestor.canonicalize() {
                Ok(real) if real.starts_with(&self.root) => return Ok(path),
                Ok(_) => return Err(outside()),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(failed("resolve", ancestor, e)),
            }
        }
        Err(outside())
    }

    /// Makes a new file and the directories it needs.
    fn create(&self, location: &str) -> Result<(File, PathBuf)> {
        let path = self.resolve(location)?;
        if let Some(parent) = path.parent() {
            super::marked::create_directories(parent)
                .map_err(|e| failed("create the directory", parent, e))?;
        }
        let file = File::create(&path).map_err(|e| failed("create", &path, e))?;
        Ok((file, path))
    }
}

/// Makes a written file durable: its bytes, then its name.
fn sync(file: &File, path: &Path) -> Result<()> {
    file.sync_all().map_err(|e| failed("sync", path, e))?;
    if let Some(parent) = path.parent() {
        super::marked::sync_directory(parent).map_err(|e| failed("sync", parent, e))?;
    }
    Ok(())
}

#[async_trait]
#[typetag::serde(name = "landfall-warehouse")]
impl Storage for WarehouseStorage {
    async fn exists(&self, path: &str) -> Result<bool> {
        let (storage, path) = (self.clone(), path.to_owned());
        blocking(move || {
            let path = storage.resolve(&path)?;
            path.try_exists().map_err(|e| failed("look at", &path, e))
        })
        .await
    }

    async fn metadata(&self, path: &str) -> Result<FileMetadata> {
        let (storage, path) = (self.clone(), path.to_owned());
        blocking(move || {
            let path = storage.resolve(&path)?;
            let metadata = std::fs::metadata(&path).map_err(|e| failed("look at", &path, e))?;
            Ok(FileMetadata { size: metadata.len() })
        })
        .await
    }

    async fn read(&self, path: &str) -> Result<Bytes> {
        let (storage, path) = (self.clone(), path.to_owned());
        blocking(move || {
            let path = storage.resolve(&path)?;
            std::fs::read(&path).map(Bytes::from).map_err(|e| failed("read", &path, e))
        })
        .await
    }

    async fn reader(&self, path: &str) -> Result<Box<dyn FileRead>> {
        let (storage, path) = (self.clone(), path.to_owned());
        blocking(move || {
            let path = storage.resolve(&path)?;
            let file = File::open(&path).map_err(|e| failed("open", &path, e))?;
            Ok(Box::new(Reader { file: Arc::new(file), path }) as Box<dyn FileRead>)
        })
        .await
    }

    async fn write(&self, path: &str, bytes: Bytes) -> Result<()> {
        let (storage, path) = (self.clone(), path.to_owned());
        blocking(move || {
            let (mut file, path) = storage.create(&path)?;
            file.write_all(&bytes).map_err(|e| failed("write", &path, e))?;
            sync(&file, &path)
        })
        .await
    }

    async fn writer(&self, path: &str) -> Result<Box<dyn FileWrite>> {
        let (storage, path) = (self.clone(), path.to_owned());
        blocking(move || {
            let (file, path) = storage.create(&path)?;
            Ok(Box::new(Writer { file: Some(file), path }) as Box<dyn FileWrite>)
        })
        .await
    }

    async fn delete(&self, path: &str) -> Result<()> {
        let (storage, path) = (self.clone(), path.to_owned());
        blocking(move || {
            let path = storage.resolve(&path)?;
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed("delete", &path, e)),
                _ => Ok(()),
            }
        })
        .await
    }

    async fn delete_prefix(&self, path: &str) -> Result<()> {
        // Whole directories go only through `marked::purge`, which asks whose they are first.
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
    file: Option<File>,
    path: PathBuf,
}

impl Writer {
    fn take(&mut self) -> Result<File> {
        let closed = || Error::new(ErrorKind::Unexpected, format!("`{}` is closed", self.path.display()));
        self.file.take().ok_or_else(closed)
    }
}

#[async_trait]
impl FileWrite for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let (mut file, path) = (self.take()?, self.path.clone());
        self.file = Some(
            blocking(move || {
                file.write_all(&bytes).map_err(|e| failed("write", &path, e))?;
                Ok(file)
            })
            .await?,
        );
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        let (file, path) = (self.take()?, self.path.clone());
        blocking(move || sync(&file, &path)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_below_the_warehouse() {
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
