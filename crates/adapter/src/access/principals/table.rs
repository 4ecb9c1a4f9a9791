//! Principals from a file: YAML or CSV, read again when it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use serde::Deserialize;

use super::{Principals, Resolution};
use crate::access::Qualified;
use crate::error::{Error, Result};

/// The maximum size of the file in bytes.
const LARGEST: u64 = 16 * 1024 * 1024;
/// How long the content is used before the file is checked for changes again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The place of the table. In the table, a ref without a prefix is a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSettings {
    /// A file that ends with `.csv` has one `ref,principal` per line. A ref on several lines is a group with
    /// these members. A first line `ref,principal` is a heading. Any other file is YAML: `ref: principal` or
    /// `ref: [member, ...]`.
    pub file: PathBuf,
}

/// A backend that reads principals from a file; see the module documentation.
pub struct Table {
    settings: TableSettings,
    kept: Mutex<Option<Kept>>,
}

type Entries = Arc<BTreeMap<Qualified, Resolution>>;

/// The content of the file, with its time and size (`stamp`) and the time of the last check (`looked`).
struct Kept {
    looked: Instant,
    stamp: Stamp,
    entries: Entries,
}

type Stamp = (Option<SystemTime>, u64);

impl Table {
    /// Creates the backend. It reads the file at the first look-up.
    pub fn new(settings: TableSettings) -> Self {
        Self { settings, kept: Mutex::default() }
    }

    /// Reads the file now; `Err` is its problem. Blocks.
    pub fn check(settings: &TableSettings) -> Result<(), String> {
        load(&settings.file, None).map(drop).map_err(|error| error.report())
    }

    /// Returns the entries, and reads a changed file again. An invalid file is a retryable error, because it is
    /// probably being edited.
    async fn entries(&self) -> Result<Entries> {
        let fresh = {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.as_ref()
                .map(|kept| (kept.looked.elapsed() < LOOK_EVERY, kept.stamp, Arc::clone(&kept.entries)))
        };
        if let Some((true, _, entries)) = fresh {
            return Ok(entries);
        }
        let known = fresh.map(|(_, stamp, entries)| (stamp, entries));
        let path = self.settings.file.clone();
        let looked = Instant::now();
        let (stamp, entries) = crate::blocking::run(move |_| load(&path, known)).await?;
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Kept { looked, stamp, entries: Arc::clone(&entries) });
        Ok(entries)
    }
}

#[async_trait]
impl Principals for Table {
    async fn resolve(&self, reference: &Qualified) -> Result<Resolution> {
        Ok(match self.entries().await?.get(reference) {
            Some(known) => known.clone(),
            None => Resolution::Unknown(format!("`{reference}` is not in the table of identities")),
        })
    }
}

/// Reads the file; returns the `known` entries if its time and size have not changed. `Err` is retryable.
fn load(path: &Path, known: Option<(Stamp, Entries)>) -> Result<(Stamp, Entries)> {
    let failed = |what: String| Error::retryable(format!("the table of identities cannot be used: {what}"));
    let unreadable =
        |error: std::io::Error| failed(format!("`{}` cannot be read", path.display())).because(error);
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    let stamp = (metadata.modified().ok(), metadata.len());
    if let Some((of, entries)) = known
        && of == stamp
    {
        return Ok((stamp, entries));
    }
    if metadata.len() > LARGEST {
        return Err(failed(format!("`{}` is larger than {LARGEST} bytes", path.display())));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let is_csv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    let entries = if is_csv { from_csv(&text) } else { from_yaml(&text) };
    entries
        .map(|entries| (stamp, Arc::new(entries)))
        .map_err(|what| failed(format!("`{}`: {what}", path.display())))
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Names {
    One(String),
    Several(BTreeSet<String>),
}

fn from_yaml(text: &str) -> Result<BTreeMap<Qualified, Resolution>, String> {
    if text.trim().is_empty() {
        return Ok(BTreeMap::new());
    }
    // The parser's error is not shown, because it may quote the file.
    let rows: BTreeMap<String, Names> = serde_yaml::from_str(text).map_err(|_| {
        "is no mapping of refs to a name or a list of names; quote what YAML takes for another value"
            .to_owned()
    })?;
    let mut entries = BTreeMap::new();
    for (key, names) in rows {
        let known = match names {
            Names::One(name) => Resolution::Principal(name),
            Names::Several(names) => Resolution::Members(names),
        };
        add(&mut entries, &key, known)?;
    }
    Ok(entries)
}

/// Parses the CSV form. It has no quoting, because neither refs nor principals have commas or line ends.
fn from_csv(text: &str) -> Result<BTreeMap<Qualified, Resolution>, String> {
    let mut entries = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || (index == 0 && line.eq_ignore_ascii_case("ref,principal")) {
            continue;
        }
        let (key, name) = line
            .split_once(',')
            .filter(|(_, name)| !name.contains(','))
            .ok_or_else(|| format!("line {} is not `ref,principal`", index + 1))?;
        add(&mut entries, key.trim(), Resolution::Principal(name.trim().to_owned()))
            .map_err(|what| format!("line {}: {what}", index + 1))?;
    }
    Ok(entries)
}

/// Adds an entry. Several names of one ref are the members of a group.
fn add(entries: &mut BTreeMap<Qualified, Resolution>, key: &str, known: Resolution) -> Result<(), String> {
    let reference = Qualified::parse(key).map_err(|problem| problem.with_remedy())?;
    let names = |known: &Resolution| match known {
        Resolution::Principal(name) => BTreeSet::from([name.clone()]),
        Resolution::Members(names) => names.clone(),
        Resolution::Unknown(_) | Resolution::Unusable(_) => BTreeSet::new(),
    };
    if names(&known).iter().any(|name| name.trim().is_empty()) {
        return Err(format!("`{key}` has a blank principal"));
    }
    let known = match entries.get(&reference) {
        None => known,
        Some(before) => Resolution::Members(&names(before) | &names(&known)),
    };
    if matches!((&reference, &known), (Qualified::User(_), Resolution::Members(_))) {
        return Err(format!("`{key}` has several principals: only groups have"));
    }
    entries.insert(reference, known);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn resolved(table: &Table, reference: &str) -> Result<Vec<String>, String> {
        match table.resolve(&Qualified::parse(reference).unwrap()).await {
            Ok(Resolution::Principal(name)) => Ok(vec![name]),
            Ok(Resolution::Members(names)) => Ok(names.into_iter().collect()),
            Ok(Resolution::Unknown(reason) | Resolution::Unusable(reason)) => Err(reason),
            Err(error) => Err(format!("error: {error}")),
        }
    }

    fn table(name: &str, text: &str) -> (Table, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        (Table::new(TableSettings { file }), folder)
    }

    #[tokio::test]
    async fn both_formats_have_the_same_content() {
        let yaml = "user:alice_x.org: alice\ngroup:dev: [alice, bob]\nempty: []\n";
        let csv = "ref,principal\nuser:alice_x.org, alice\ngroup:dev,alice\n\ndev,bob\n";
        for (name, text) in [("t.yaml", yaml), ("t.CSV", csv)] {
            let (table, _folder) = table(name, text);
            assert_eq!(
                resolved(&table, "user:default/alice_x.org").await,
                Ok(vec!["alice".to_owned()]),
                "{name}"
            );
            assert_eq!(
                resolved(&table, "dev").await,
                Ok(vec!["alice".to_owned(), "bob".to_owned()]),
                "{name}"
            );
            assert_eq!(
                resolved(&table, "user:dev").await,
                Err("`user:dev` is not in the table of identities".to_owned())
            );
        }
        let (table, _folder) = table("t.yaml", yaml);
        assert_eq!(resolved(&table, "group:empty").await, Ok(Vec::new()), "known, without members");
    }

    #[tokio::test]
    async fn reports_mistakes_in_the_file_without_quoting_it() {
        for (name, text, expected) in [
            ("t.yaml", "- a\n", "is no mapping of refs to a name or a list of names"),
            (
                "t.yaml",
                "user:a: 12\n",
                "is no mapping of refs to a name or a list of names; quote what YAML takes",
            ),
            ("t.yaml", "role:x: z\n", "the identity has an unknown prefix: `role:x`"),
            ("t.yaml", "user:a: ['']\n", "`user:a` has a blank principal"),
            ("t.csv", "user:a,b\nuser:c\n", "line 2 is not `ref,principal`"),
            ("t.csv", "user:a,b\nuser:a,c\n", "line 2: `user:a` has several principals: only groups have"),
            ("t.csv", "a,b,c\n", "line 1 is not `ref,principal`"),
        ] {
            let (table, folder) = table(name, text);
            let told = resolved(&table, "user:a").await.unwrap_err();
            let file = folder.path().join(name);
            let start =
                format!("error: the table of identities cannot be used: `{}`: {expected}", file.display());
            assert!(told.starts_with(&start), "{told}");
        }
        let gone = Table::new(TableSettings { file: "/nowhere/t.yaml".into() });
        assert!(resolved(&gone, "user:a").await.unwrap_err().contains("`/nowhere/t.yaml` cannot be read"));
    }

    #[tokio::test]
    async fn a_changed_file_is_read_again() {
        let (table, folder) = table("t.yaml", "user:a: one\n");
        assert_eq!(resolved(&table, "user:a").await, Ok(vec!["one".to_owned()]));
        std::fs::write(folder.path().join("t.yaml"), "user:a: another\n").unwrap();
        let end = Instant::now() + Duration::from_secs(30);
        while resolved(&table, "user:a").await != Ok(vec!["another".to_owned()]) {
            assert!(Instant::now() < end, "the change is not seen");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
