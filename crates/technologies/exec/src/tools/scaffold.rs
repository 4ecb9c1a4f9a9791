//! `landfall plugin new`: a program to begin with.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::Language;

const PYTHON: &str = include_str!("new.py");
const SH: &str = include_str!("new.sh");

/// Writes an executable file, which must not exist.
pub(super) fn write(file: &Path, language: Language) -> Result<(), String> {
    let text = match language {
        Language::Python => PYTHON,
        Language::Sh => SH,
    };
    let name = file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || !name.chars().all(is_plain) {
        return Err(format!("`{}`: choose a file name of letters, digits, `-` and `_`", file.display()));
    }
    let written = OpenOptions::new().write(true).create_new(true).mode(0o755).open(file);
    written
        .and_then(|mut file| file.write_all(text.replace("PLUGIN_NAME", &name).as_bytes()))
        .map_err(|error| format!("`{}` cannot be written: {error}", file.display()))?;
    println!("wrote {}; next: landfall plugin check {}", file.display(), file.display());
    Ok(())
}
