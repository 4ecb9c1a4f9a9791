//! spec/ is the source: a change there is a build away from everywhere it matters, and generated/ is never edited.
//!
//! The build is a real one, of a copy of the workspace that shares this build's folder and so its dependencies.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{replace_once, repository, walk};

/// What a build needs. Tests are not built.
const PARTS: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "build.rs",
    "codegen",
    "generated",
    "migrations",
    "rust-toolchain.toml",
    "spec",
    "src",
];

type Files = BTreeMap<PathBuf, Vec<u8>>;

#[test]
fn a_moved_path_changes_generated_code_only_and_an_edit_there_is_undone() {
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("workspace");
    let mut files = files_of(repository());
    // Cargo wants to see the test target that the manifest names.
    files.insert("tests/it/main.rs".into(), b"fn main() {}\n".to_vec());
    let document = PathBuf::from("spec/tech-adapter-2.6.3.yaml");
    let spec = String::from_utf8(files[&document].clone()).expect("UTF-8");
    let moved = replace_once(&spec, "  /v1/provision/{token}/stop:\n", "  /v1/tasks/{token}/halt:\n");
    files.insert(document, moved.into_bytes());
    let server = PathBuf::from("generated/tech_adapter/server.rs");
    let mut edited = files[&server].clone();
    edited.extend(b"// edited by hand\n");
    lay_out(&copy, &files);
    fs::write(copy.join(&server), edited).expect("write");

    let output = Command::new(env!("CARGO"))
        .args(["build", "--workspace", "--lib", "--locked", "--offline"])
        .current_dir(&copy)
        .env("CARGO_TARGET_DIR", target_folder())
        .output()
        .expect("cargo runs");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "code that binds to operations builds whatever their paths are:\n{log}");

    let after = files_of(&copy);
    let changed: Vec<_> = files
        .iter()
        .filter(|(path, content)| {
            PARTS.iter().any(|part| path.starts_with(part)) && after.get(*path) != Some(*content)
        })
        .map(|(path, _)| path.clone())
        .collect();
    assert!(!changed.is_empty(), "a moved path changes something");
    assert!(changed.iter().all(|path| path.starts_with("generated")), "{changed:?}");
    assert!(after.keys().all(|path| files.contains_key(path)), "nothing is added");
    let generated = String::from_utf8(after[&server].clone()).expect("UTF-8");
    assert!(generated.contains("/v1/tasks/{token}/halt"), "the new path is served");
    assert!(!generated.contains("edited by hand"), "the edit is undone");
}

fn files_of(root: &Path) -> Files {
    let mut files = Files::new();
    for part in PARTS {
        let path = root.join(part);
        let mut add = |file: &Path| {
            let content = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            files.insert(file.strip_prefix(root).expect("inside").to_owned(), content);
        };
        if path.is_file() { add(&path) } else { walk(&path, &mut add) }
    }
    files
}

/// Makes a folder hold exactly these files, and touches only those that differ: the build looks at times.
fn lay_out(root: &Path, files: &Files) {
    for path in files_of(root).keys().filter(|path| !files.contains_key(*path)) {
        fs::remove_file(root.join(path)).expect("remove");
    }
    for (path, content) in files {
        let path = root.join(path);
        if fs::read(&path).is_ok_and(|found| found == *content) {
            continue;
        }
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, content).expect("write");
    }
}

/// Where this test was built: target/debug/deps/it-... -> target
fn target_folder() -> PathBuf {
    let this = std::env::current_exe().expect("a path");
    this.ancestors().nth(3).expect("target/debug/deps/it").to_owned()
}
