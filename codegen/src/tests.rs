//! The generator's output against the committed goldens; `UPDATE_GOLDEN=1 cargo test -p landfall-codegen --lib`
//! rewrites them. Not in tests/, where the goldens are compiled: a golden that is out of date may not compile.

use std::fs;
use std::path::Path;

use crate::{Document, File, generate, write_if_changed};

fn contract() -> String {
    fs::read_to_string("tests/golden/tasks.yaml").unwrap()
}

fn with_moved_paths() -> String {
    contract().replace("/v1/tasks", "/v2/jobs").replace("/{taskId}/notes/{noteId}", "/{taskId}/{noteId}/text")
}

/// The output for this contract, and for the one with security beside it.
fn generated(tasks: &str) -> Vec<File> {
    let boxes = fs::read_to_string("tests/golden/boxes.yaml").unwrap();
    generate(&[
        Document { text: tasks, source_name: "tasks.yaml", module: "tasks" },
        Document { text: &boxes, source_name: "boxes.yaml", module: "boxes" },
    ])
    .unwrap()
}

fn check(files: &[File]) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        for file in files {
            let path = Path::new("tests/golden").join(&file.path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, &file.content).unwrap();
        }
    }
    for file in files {
        let path = Path::new("tests/golden").join(&file.path);
        let golden = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            golden == file.content,
            "{} differs; if that is meant: UPDATE_GOLDEN=1 cargo test -p landfall-codegen --lib",
            path.display()
        );
    }
}

#[test]
fn contracts_generate_the_golden_files() {
    check(&generated(&contract()));
}

#[test]
fn moved_paths_give_the_goldens() {
    let mut files = generated(&with_moved_paths());
    files.retain(|file| file.path.starts_with("tasks"));
    for file in &mut files {
        file.path = Path::new("moved").join(file.path.file_name().unwrap());
    }
    check(&files);
}

/// Moving a path changes routes and requests only.
#[test]
fn a_moved_path_changes_neither_types_nor_responses() {
    let before = generated(&contract());
    let after = generated(&with_moved_paths());
    let changed = before.iter().zip(&after).filter(|(before, after)| before != after);
    let changed = changed.map(|(file, _)| file.path.to_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(changed, ["tasks/server.rs", "tasks/client.rs"]);
}

#[test]
fn the_same_documents_give_the_same_bytes() {
    for _ in 0..3 {
        assert_eq!(generated(&contract()), generated(&contract()));
    }
}

#[test]
fn generated_files_are_recognised_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let files = generated(&contract());
    assert_eq!(write_if_changed(folder.path(), &files).unwrap().written.len(), 11);
    let removed = write_if_changed(folder.path(), &[]).unwrap().removed;
    assert_eq!(removed.len(), 11);
}
