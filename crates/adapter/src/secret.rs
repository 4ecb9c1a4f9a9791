//! Texts that are never shown.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A password, or a text that contains one. It has no `Display`, and its `Debug` shows nothing.
#[derive(Clone)]
pub struct Secret {
    text: String,
    /// The file that it was read from.
    file: Option<PathBuf>,
}

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), file: None }
    }

    /// Reads a file, without the line end at the end. Blocks.
    pub fn from_file(path: &Path) -> io::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        Ok(Self { text: text.trim_end_matches(['\n', '\r']).to_owned(), file: Some(path.to_owned()) })
    }

    /// The secret text.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The file that it was read from, which may have another content now.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Reads the file again, on a blocking thread; `None` for a secret that does not come from a file.
    pub async fn read_again(&self) -> Option<io::Result<Self>> {
        let path = self.file.clone()?;
        let read = crate::blocking::run_regardless(move || Ok(Self::from_file(&path))).await;
        Some(read.unwrap_or_else(|error| Err(io::Error::other(error))))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_has_no_secret() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[tokio::test]
    async fn secret_of_a_file_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "first\n").unwrap();
        let secret = Secret::from_file(&path).unwrap();
        std::fs::write(&path, "second\r\n").unwrap();
        let again = secret.read_again().await.unwrap().unwrap();
        assert_eq!((secret.expose(), again.expose()), ("first", "second"));
        std::fs::remove_file(&path).unwrap();
        assert!(again.read_again().await.unwrap().is_err());
        assert!(Secret::new("fixed").read_again().await.is_none());
    }
}
