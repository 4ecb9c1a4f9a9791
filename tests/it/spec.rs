//! spec/ is the source: a change there reaches all generated code with the next build, and generated/ is never edited
//! by hand.
//!
//! The tests run the build script of this build on a copy. tests/tools/spec-is-the-source.sh shows in `make ci`, with
//! a real build, that the rest compiles with a moved path.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{replace_once, repository, walk};

/// The files that the build script may read or write, and those that it must not.
const PARTS: &[&str] = &["Cargo.toml", "build.rs", "codegen", "crates", "generated", "spec", "src"];

const SERVER: &str = "generated/tech_adapter/server.rs";

/// A path of each contract that could move: document, module, path, new path, method that serves it. Both paths are
/// equally long, so that rustfmt breaks no line elsewhere.
const MOVES: &[[&str; 5]] = &[
    [
        "spec/tech-adapter-2.6.3.yaml",
        "tech_adapter",
        "/v1/provision/{token}/stop",
        "/v1/workloads/{token}/halt",
        "fn stop",
    ],
    [
        "spec/specific-provisioner-2.2.0.yaml",
        "specific_provisioner",
        "/v1/updateacl",
        "/v1/changeacl",
        "fn updateacl",
    ],
    [
        "spec/airbyte-specific-provisioner.yaml",
        "airbyte",
        "/datamesh.airbytespecificprovisioner/{version}/validate",
        "/datamesh.airbytespecificprovisioner/{version}/appraise",
        "fn validate",
    ],
    [
        "spec/flexdeploy-instance.yaml",
        "flexdeploy",
        "/flexdeploy/rest/v1/topology/instance/{Id}",
        "/flexdeploy/rest/v2/topology/machines/{Id}",
        "fn update_instance",
    ],
    [
        "spec/landfall-operator-1.0.0.yaml",
        "operator",
        "/landfall/v1/health",
        "/landfall/v1/status",
        "fn health",
    ],
];

type Files = BTreeMap<PathBuf, Vec<u8>>;

#[test]
fn moved_path_changes_only_that_path_in_generated_code() {
    let files = files_of(repository());
    for [document, module, from, to, method] in MOVES {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut files = files.clone();
        let spec = String::from_utf8(files[Path::new(document)].clone()).expect("UTF-8");
        let moved = replace_once(&spec, &format!("\n  {from}:\n"), &format!("\n  {to}:\n"));
        files.insert(document.into(), moved.into_bytes());
        write_files(folder.path(), &files);

        build(folder.path());
        let after = files_of(folder.path());
        assert!(after.keys().eq(files.keys()), "no file comes or goes");
        let changed: Vec<_> = files.keys().filter(|path| after[*path] != files[*path]).collect();
        assert!(!changed.is_empty(), "a moved path changes something");
        let own = Path::new("generated").join(module);
        for path in changed {
            assert!(path.starts_with(&own), "{} is not generated from {document}", path.display());
            let (old, new) = (lines(&files[path]), lines(&after[path]));
            assert_eq!(old.len(), new.len(), "{}", path.display());
            for (old, new) in old.iter().zip(&new).filter(|(old, new)| old != new) {
                assert!(is_moved(old, new, from, to), "more than a path changes: {old} -> {new}");
            }
        }
        let server = String::from_utf8(after[&own.join("server.rs")].clone()).expect("UTF-8");
        assert!(server.contains(to) && server.contains(method), "{from} is not bound to its operationId");
    }
}

/// Whether a line differs only by the path; the client writes `{}` for each parameter.
fn is_moved(old: &str, new: &str, from: &str, to: &str) -> bool {
    let pieces = |path: &str| match path.split_once('{') {
        Some((head, rest)) => [head.to_owned(), rest.split_once('}').map_or("", |it| it.1).to_owned()],
        None => [path.to_owned(), String::new()],
    };
    let parts = pieces(from).into_iter().zip(pieces(to)).filter(|(from, _)| from.len() > 1);
    parts.fold(old.to_owned(), |line, (from, to)| line.replace(&from, &to)) == new
}

/// The build refuses a document that it does not generate code for.
#[test]
fn every_specification_has_generated_code() {
    let documents: Vec<_> = files_of(repository())
        .into_keys()
        .filter(|path| path.starts_with("spec") && path.extension().is_some_and(|it| it == "yaml"))
        .collect();
    let mut known: Vec<_> = MOVES.iter().map(|[document, ..]| PathBuf::from(document)).collect();
    known.sort();
    assert_eq!(documents, known);
    for [document, module, ..] in MOVES {
        let header = fs::read_to_string(repository().join(format!("generated/{module}/mod.rs")));
        assert!(header.is_ok_and(|text| text.contains(document)), "generated/{module} is not of {document}");
    }
}

#[test]
fn build_reverts_edits_in_generated_code() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let files = files_of(repository());
    let mut spoilt = files.clone();
    spoilt.get_mut(Path::new(SERVER)).expect("it is there").extend(b"// edited by hand\n");
    spoilt.remove(Path::new("generated/tech_adapter/types.rs")).expect("it is there");
    write_files(folder.path(), &spoilt);

    build(folder.path());
    assert!(files_of(folder.path()) == files, "after the build, generated/ is what it was before the edit");
}

/// A second build writes nothing: the committed files equal the generated ones.
#[test]
fn build_of_the_committed_sources_writes_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_files(folder.path(), &files_of(repository()));
    let said = build(folder.path());
    assert!(!said.contains("cargo::warning"), "{said}");
}

/// Does the first step of `cargo build` for a package.
fn build(folder: &Path) -> String {
    let output = Command::new(build_script()).current_dir(folder).output().expect("the build script runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

/// The build script that cargo compiled for this build: target/debug/build/landfall-.../build-script-build.
fn build_script() -> PathBuf {
    let folder = Path::new(env!("OUT_DIR")).ancestors().nth(2).expect("target/debug/build");
    let mut scripts: Vec<_> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("landfall-")))
        .map(|path| path.join("build-script-build"))
        .filter(|path| path.exists())
        .collect();
    // Earlier builds may have one, too.
    scripts.sort_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).ok());
    scripts.pop().expect("cargo compiled a build script")
}

fn lines(content: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(content).lines().map(str::to_owned).collect()
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

fn write_files(root: &Path, files: &Files) {
    for (path, content) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, content).expect("write");
    }
}
