//! The rules of docs/ARCHITECTURE.md that the compiler does not check.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{repository, walk};

/// The modules and crates that each module of the root crate must not use. For the other crates, see the manifests.
const MUST_NOT_KNOW: &[(&str, &[&str])] = &[
    ("http", &["cli"]),
    ("auth", &["http", "cli", "server", "config", "registry", "generated", "actix_web"]),
    ("config", &["http", "cli", "server", "generated", "actix_web"]),
    ("registry", &["http", "cli", "server", "generated", "actix_web"]),
    ("cli", &["http", "actix_web"]),
];

/// The crates of this repository that each crate may depend on, except in tests.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("crates/adapter", &[]),
    ("crates/operation", &["landfall-adapter"]),
    ("crates/technologies/exec", &["landfall-adapter"]),
    ("crates/technologies/lakehouse", &["landfall-adapter"]),
    ("crates/technologies/mock", &["landfall-adapter"]),
    ("crates/technologies/postgresql", &["landfall-adapter"]),
];

#[test]
fn crates_depend_only_on_lower_layers() {
    let mut found = Vec::new();
    walk(&repository().join("crates"), &mut |path| {
        if path.ends_with("Cargo.toml") {
            found.push(relative(path.parent().unwrap_or(path)));
        }
    });
    found.sort();
    assert_eq!(found, MAY_DEPEND_ON.iter().map(|(folder, _)| (*folder).to_owned()).collect::<Vec<_>>());
    for (folder, allowed) in MAY_DEPEND_ON {
        let manifest = read(&repository().join(folder).join("Cargo.toml"));
        let dependencies = section(&manifest, "[dependencies]");
        let ours: Vec<_> = dependencies.iter().filter(|line| line.contains("landfall")).collect();
        for line in &ours {
            assert!(allowed.iter().any(|name| line.starts_with(name)), "{folder}/Cargo.toml: {line}");
        }
        assert!(!manifest.contains("actix"), "{folder} knows actix");
    }
}

/// The lines of a section of a manifest.
fn section<'a>(manifest: &'a str, name: &str) -> Vec<&'a str> {
    let after = manifest.lines().skip_while(|line| *line != name).skip(1);
    after.take_while(|line| !line.starts_with('[')).filter(|line| !line.is_empty()).collect()
}

/// Outside of its folder, a technology is named in one line of the registry and one line of the manifest.
#[test]
fn technology_is_named_in_two_lines_outside_its_folder() {
    let manifest = read(&repository().join("Cargo.toml"));
    let own: Vec<_> = rust_files(&["src", "crates/adapter", "crates/operation"])
        .into_iter()
        .filter(|file| file.file_name().is_some_and(|name| name != "tests.rs"))
        .map(|file| (relative(&file), without_tests(&code_of(&read(&file)))))
        .collect();
    for (folder, _) in MAY_DEPEND_ON {
        let Some(name) = folder.strip_prefix("crates/technologies/") else { continue };
        let named =
            |line: &&str| line.contains(&format!("{name}::")) || line.contains(&format!("landfall_{name}"));
        let lines =
            own.iter().flat_map(|(file, code)| code.lines().filter(named).map(move |line| (file, line)));
        let lines: Vec<_> = lines.collect();
        assert!(
            matches!(lines.as_slice(), [(file, _)] if *file == "src/registry.rs"),
            "{name} is named by {lines:?}"
        );
        let lines: Vec<_> =
            manifest.lines().filter(|line| line.contains(&format!("landfall-{name}"))).collect();
        assert_eq!(lines.len(), 1, "Cargo.toml names {name}: {lines:?}");
    }
}

/// A third party can add a technology without a change to this repository.
#[test]
fn example_adapter_is_short_and_unknown_to_other_code() {
    let program = read(&repository().join("examples/notes-adapter/src/main.rs"));
    assert!(program.lines().count() <= 150, "{} lines", program.lines().count());
    for file in rust_files(&["src", "crates", "codegen"]) {
        let code = read(&file).to_lowercase();
        assert!(!code.contains("notes-adapter") && !code.contains("notes_adapter"), "{}", relative(&file));
    }
    let manifest = read(&repository().join("examples/notes-adapter/Cargo.toml"));
    let ours = section(&manifest, "[dependencies]").into_iter().filter(|line| line.starts_with("landfall"));
    let names: Vec<_> = ours.filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, ["landfall", "landfall-adapter"]);
}

/// The code up to the tests at its end.
fn without_tests(code: &str) -> String {
    code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
}

#[test]
fn modules_use_only_lower_layers() {
    let mut wrong = Vec::new();
    for (module, forbidden) in MUST_NOT_KNOW {
        let files = files_of(module);
        assert!(!files.is_empty(), "there is no module `{module}`");
        for file in files {
            let known = referenced_names(&read(&file));
            for name in forbidden.iter().filter(|name| known.contains(**name)) {
                wrong.push(format!("{} uses `{name}`", relative(&file)));
            }
        }
    }
    assert!(wrong.is_empty(), "the dependency rule is broken:\n{}", wrong.join("\n"));
}

#[test]
fn code_has_no_todos_and_no_unexplained_ignored_tests() {
    let mut wrong = Vec::new();
    for file in rust_files(&["src", "codegen", "crates", "examples", "tests"])
        .into_iter()
        .chain([repository().join("build.rs")])
    {
        let code = code_of(&read(&file));
        for mark in ["todo!", "unimplemented!", "#[ignore]", "dbg!"] {
            if code.contains(mark) {
                wrong.push(format!("{} contains `{mark}`", relative(&file)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn generated_files_start_with_the_generated_mark() {
    let files = rust_files(&["generated"]);
    assert!(!files.is_empty(), "generated/ is committed");
    for file in &files {
        assert!(
            read(file).starts_with("// @generated"),
            "{} does not begin with the mark of generated code",
            relative(file)
        );
    }
}

fn files_of(module: &str) -> Vec<PathBuf> {
    let mut files = rust_files(&[&format!("src/{module}")]);
    let single = repository().join(format!("src/{module}.rs"));
    files.extend(single.exists().then_some(single));
    files
}

fn rust_files(folders: &[&str]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in folders {
        walk(&repository().join(folder), &mut |path| {
            if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path.to_owned());
            }
        });
    }
    // This file contains the words that it searches for.
    files.retain(|file| !file.ends_with(file!()));
    files.sort();
    files
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn relative(file: &Path) -> String {
    file.strip_prefix(repository()).unwrap_or(file).display().to_string()
}

/// Top-level modules of this crate, and other crates, that a file refers to.
fn referenced_names(source: &str) -> BTreeSet<String> {
    let code = code_of(source);
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            names.extend(heads_of_group(group));
        } else {
            names.insert(identifier(rest));
        }
    }
    if code.contains("actix_web") || code.contains("actix_rt") {
        names.insert("actix_web".to_owned());
    }
    names
}

/// `a::{b, c}, d as e, ...}` -> a, d
fn heads_of_group(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let mut depth = 0_usize;
    let mut expect_head = true;
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expect_head = true,
            _ if expect_head && !character.is_whitespace() => {
                heads.push(identifier(&group[at..]));
                expect_head = false;
            }
            _ => {}
        }
    }
    heads
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The source without comments and without the content of strings.
fn code_of(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(character) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if rest.starts_with("/*") {
            rest = rest.find("*/").map_or("", |end| &rest[end + 2..]);
        } else if let Some(hashes) = raw_string(rest) {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = &rest[hashes + 2..];
            rest = body.find(&close).map_or("", |end| &body[end + close.len()..]);
            code.push_str("\"\"");
        } else if character == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            rest = end.map_or("", |end| &rest[end + 2..]);
            code.push_str("\"\"");
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") {
            rest = &rest[rest[1..].find('\'').map_or(1, |end| end + 2)..];
        } else {
            code.push(character);
            rest = &rest[character.len_utf8()..];
        }
    }
    code
}

/// The number of `#` of a raw string at the start of `text`.
fn raw_string(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('r')?;
    let hashes = rest.chars().take_while(|c| *c == '#').count();
    rest[hashes..].starts_with('"').then_some(hashes)
}

#[test]
fn scanner_ignores_comments_and_strings() {
    let source = r##"
        //! [`crate::http`] is only mentioned.
        use crate::{descriptor::{Component, Problem}, operation as tasks};
        use crate::error::Error;
        /* crate::cli */
        const TEXT: &str = "crate::server \" crate::topology";
        const RAW: &str = r#"crate::generated"#;
        const QUOTE: char = '"'; fn f() { crate::access::f(); }
    "##;
    let expected = ["access", "descriptor", "error", "operation"].map(str::to_owned);
    assert_eq!(referenced_names(source), BTreeSet::from(expected));
}

/// Anchors are GitHub's: a heading in lower case, without punctuation, with hyphens for spaces.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let slug = |heading: &str| -> String {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(slug).collect()
}

#[test]
fn links_between_pages_resolve() {
    let mut pages: Vec<PathBuf> = vec![repository().join("README.md"), repository().join("CHANGELOG.md")];
    for folder in ["docs", "crates", "examples"] {
        walk(&repository().join(folder), &mut |path| {
            if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path.to_owned());
            }
        });
    }
    assert!(pages.len() > 25, "{pages:?}");
    let mut broken = Vec::new();
    for page in &pages {
        let text = read(page);
        for (_, rest) in text.match_indices("](").map(|(at, mark)| (at, &text[at + mark.len()..])) {
            let Some((link, _)) = rest.split_once(')') else { continue };
            if link.contains("://") || link.contains(char::is_whitespace) {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            let is_page = target.extension().is_some_and(|it| it == "md");
            if !target.exists()
                || (is_page && !anchor.is_empty() && !anchors(&read(&target)).contains(anchor))
            {
                broken.push(format!("{}: {link}", relative(page)));
            }
        }
    }
    assert_eq!(broken, [""; 0]);
}

#[test]
fn test_names_have_at_most_60_characters() {
    let mut long = Vec::new();
    for file in rust_files(&["src", "crates", "codegen", "tests", "examples"]) {
        let source = read(&file);
        let mut is_test = false;
        for line in source.lines().map(str::trim_start) {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            let name = line.split_once("fn ").and_then(|(_, rest)| rest.split_once('('));
            if let Some((name, _)) = name.filter(|_| is_test) {
                is_test = false;
                if name.len() > 60 {
                    long.push(format!("{}: {name}", relative(&file)));
                }
            }
        }
    }
    assert_eq!(long, [""; 0], "a test is named by its subject, the condition and the outcome");
}
