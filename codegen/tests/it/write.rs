//! How a folder of generated files is brought up to date.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use landfall_codegen::{File, common, write_if_changed};

fn names(folder: &Path) -> Vec<String> {
    let mut names = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect::<Vec<_>>();
    names.sort();
    names
}

#[test]
fn leaves_up_to_date_files_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let files = common(&["tasks"]);
    let changes = write_if_changed(folder.path(), &files).unwrap();
    assert_eq!(changes.written.len(), files.len());
    let time = || fs::metadata(folder.path().join("mod.rs")).unwrap().modified().unwrap();
    let before = time();
    assert_eq!(write_if_changed(folder.path(), &files).unwrap(), Default::default());
    assert_eq!(time(), before);
}

#[test]
fn manual_edit_is_reverted_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let files = common(&["tasks"]);
    write_if_changed(folder.path(), &files).unwrap();
    fs::write(folder.path().join("runtime.rs"), "// mine").unwrap();
    let changes = write_if_changed(folder.path(), &files).unwrap();
    assert_eq!(changes.written, [Path::new("runtime.rs")]);
    assert_eq!(
        names(folder.path()),
        ["json.rs", "mod.rs", "runtime.rs", "transport.rs"],
        "no temporary file is left"
    );
}

#[test]
fn removes_obsolete_generated_files_and_keeps_others() {
    let folder = tempfile::tempdir().unwrap();
    let files = common(&["tasks"]);
    write_if_changed(folder.path(), &files).unwrap();
    fs::create_dir(folder.path().join("old")).unwrap();
    fs::copy(folder.path().join("mod.rs"), folder.path().join("old/mod.rs")).unwrap();
    fs::write(folder.path().join("README.md"), "mine").unwrap();
    fs::write(folder.path().join("mine.rs"), "// mine").unwrap();
    let changes = write_if_changed(folder.path(), &files).unwrap();
    assert_eq!((changes.written.len(), changes.removed), (0, vec!["old/mod.rs".into()]));
    assert!(folder.path().join("mine.rs").exists() && folder.path().join("README.md").exists());
}

#[test]
fn read_only_checkout_fails_only_if_outdated() {
    let folder = tempfile::tempdir().unwrap();
    let files = common(&["tasks"]);
    write_if_changed(folder.path(), &files).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
    assert_eq!(write_if_changed(folder.path(), &files).unwrap(), Default::default());

    // Permissions do not stop root, a folder in the place of a file does.
    let blocked = [File { path: "blocked.rs".into(), content: "// new".into() }];
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(folder.path().join("blocked.rs")).unwrap();
    let error = write_if_changed(folder.path(), &blocked).unwrap_err().to_string();
    assert!(error.contains("blocked.rs` is out of date and cannot be written: "), "{error}");
    assert!(error.ends_with("build once in a writable checkout and commit generated/"), "{error}");
    assert!(names(folder.path()).iter().all(|name| !name.contains("tmp")), "no temporary file is left");
}
