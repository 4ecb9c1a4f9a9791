//! The embedded lakehouse: directory buckets and Iceberg tables below one directory, no server.
//!
//! It is real enough to read with other people's tools, and small enough to be what a fresh install provisions:
//!
//! ```text
//! WAREHOUSE/buckets/finance-cashflows/              a storage area
//! WAREHOUSE/tables/NAMESPACE/TABLE/{data,metadata}  an output port
//! CATALOG                                           SQLite, the layout of Iceberg's SQL catalogs
//! ```
//!
//! What it guarantees:
//! - *Whose is it* is written into the target: a mark file in every bucket and table location (`marked.rs`), and
//!   properties in every table (`properties.rs`). What has no mark of ours is never adopted, altered or dropped.
//! - Catalog commits are optimistic: a table that moved since it was looked at is an error to retry, not something
//!   to write over. Two targets, or two processes, may share one warehouse and catalog.
//! - Nothing blocks an async thread, and what is reported as done has been synced. A run has ended when its threads
//!   have: long work stops between entries, and a change of the catalog is carried to its end (`landfall_adapter::blocking`).
//! - No symbolic link inside the warehouse is followed (`files.rs`).
//!
//! What it is not: access control. Lists are recorded with the resource, and everybody who can read the directory
//! reads the data. Every answer says so.
//!
//! # Reading it with other tools
//!
//! pyiceberg: `SqlCatalog("landfall", uri="sqlite:////ABSOLUTE/CATALOG", warehouse="file:///ABSOLUTE/WAREHOUSE")`.
//! The catalog's name has to be `landfall`: it is part of the catalog's primary key. DuckDB: `iceberg_scan` of the
//! metadata file that `describe` gives as `metadataLocation`. `tests/tools/read_iceberg.py` does both.
//!
//! # How a table appears and goes
//!
//! | step | order of effects | a crash in between leaves |
//! |---|---|---|
//! | create | marked directory, metadata file, catalog row | a marked directory without data: created again |
//! | load | data file, then one commit | an orphan file, and a table without snapshots: loaded again |
//! | release | mark `released` with the metadata's location, catalog row goes | the row, which counts: released again |
//! | restore | catalog row, mark `active` | the row, and a mark that is corrected |
//! | purge | mark `purging`, catalog row goes, directory renamed, deleted | one of these states, all recognised |
//!
//! A marked directory that holds data without being released or registered means that somebody dropped the table
//! behind Landfall's back; that is a conflict, with instructions.

mod access;
mod bucket;
mod catalog;
mod driver;
mod evolution;
mod files;
mod marked;
mod naming;
mod properties;
mod reverse;
mod sample;
mod storage;
mod table;
#[cfg(test)]
mod tests;
mod types;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::json;

use catalog::TableCatalog;
pub use driver::{LakehouseDriver, Settings};
use files::Place;
use landfall_adapter::blocking::{Cancellation, run as blocking};
use landfall_adapter::descriptor::{ComponentKind, Object, Problem};
use landfall_adapter::error::{Error, Result};
use landfall_adapter::{
    AccessList, AccessMode, Action, Capabilities, Change, Context, Import, ImportParams, Imported, Info,
    Intent, Kinds, Owner, Plan, Technology, Work,
};

/// The name of the catalog, which readers have to give: it is part of the key of every row.
pub const CATALOG_NAME: &str = "landfall";

/// Directories in the making, below the warehouse.
const SCRATCH: &str = ".creating";

/// Where a lakehouse is.
#[derive(Debug, Clone)]
pub struct LakehouseSettings {
    /// Code of the configured target, for messages.
    pub target: String,
    /// Directory of the buckets and tables; made when missing. Its path has none of `%?#` and no control
    /// characters: Iceberg's readers take locations as URLs and disagree about escapes.
    pub warehouse: PathBuf,
    /// SQLite file of the catalog; made when missing.
    pub catalog: PathBuf,
}

/// The embedded lakehouse, bound to one warehouse and catalog, which are opened when they are first used: checking
/// a component touches neither.
#[derive(Debug)]
pub struct Lakehouse {
    settings: LakehouseSettings,
    opened: tokio::sync::OnceCell<Opened>,
}

/// An open warehouse and its catalog.
#[derive(Debug)]
struct Opened {
    target: String,
    buckets: Place,
    tables: Place,
    /// Where directories are made before they get their name.
    scratch: Place,
    /// Absolute path of the catalog file.
    catalog_path: String,
    catalog: TableCatalog,
}

/// What one change does; `detail` of a [`Change`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
enum Step {
    /// Delete what an interrupted purge left.
    Clear,
    /// Correct the mark.
    Mark,
    Create,
    Restore,
    /// Columns by their Iceberg path.
    AddColumn {
        path: String,
    },
    DropColumn {
        path: String,
    },
    Properties,
    Load,
    Revoke {
        reference: String,
    },
    /// Access control fields.
    Fields,
    Grant {
        reference: String,
    },
    Release,
    Purge,
}

impl Lakehouse {
    /// A lakehouse that is not opened yet.
    pub fn new(settings: LakehouseSettings) -> Self {
        Self { settings, opened: tokio::sync::OnceCell::new() }
    }

    /// The warehouse and its catalog; a failure to open them is tried again by the next caller.
    async fn opened(&self) -> Result<&Opened> {
        self.opened.get_or_try_init(|| Opened::open(self.settings.clone())).await
    }
}

impl Opened {
    /// Opens the warehouse and the catalog, and makes what is missing.
    async fn open(settings: LakehouseSettings) -> Result<Self> {
        let LakehouseSettings { target, warehouse, catalog } = settings;
        let place = format!("of target `{target}`");
        let (warehouse, catalog) =
            blocking(move |cancellation| make_places(&warehouse, &catalog, &place, cancellation)).await?;
        let warehouse = PathBuf::from(warehouse);
        let opened = TableCatalog::open(&catalog, &warehouse).await.map_err(|e| {
            let what = format!("cannot open the catalog `{catalog}` of target `{target}`");
            catalog::unopened(&what, e)
        })?;
        let root = Place::root(&warehouse);
        Ok(Self {
            target,
            buckets: root.join("buckets"),
            tables: root.join("tables"),
            scratch: root.join(SCRATCH),
            catalog_path: catalog,
            catalog: opened,
        })
    }
}

/// Makes the warehouse and the directory of the catalog; their absolute paths without symlinks. What stands in the way
/// of that may pass, or be put right, while a task waits for it.
fn make_places(
    warehouse: &Path,
    catalog: &Path,
    place: &str,
    cancellation: &Cancellation,
) -> Result<(String, String)> {
    let make = |directory: &Path| {
        marked::create_directories(directory)?;
        directory.canonicalize()
    };
    let failed = |what: &str, path: &Path, e: std::io::Error| {
        let text = format!("cannot open the {what} `{}` {place}{}", path.display(), files::advice(&e));
        Error::retryable(text).because(e)
    };
    let real = std::path::absolute(warehouse).and_then(|path| make(&path));
    let warehouse = plain(real.map_err(|e| failed("warehouse", warehouse, e))?, "warehouse", place)?;
    let absolute = std::path::absolute(catalog).map_err(|e| failed("catalog", catalog, e))?;
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Err(Error::permanent(format!(
            "the catalog `{}` {place} is not a file name",
            catalog.display()
        )));
    };
    marked::tidy(&Place::root(Path::new(&warehouse)).join(SCRATCH), cancellation)?;
    let parent = make(parent).map_err(|e| failed("catalog", catalog, e))?;
    Ok((warehouse, plain(parent.join(name), "catalog", place)?))
}

/// A path that every reader understands the same way.
fn plain(path: PathBuf, what: &str, place: &str) -> Result<String> {
    let text =
        path.to_str().filter(|text| !text.contains(['%', '?', '#']) && !text.chars().any(char::is_control));
    text.map(str::to_owned).ok_or_else(|| {
        Error::permanent(format!(
            "the path `{}` of the {what} {place} has one of `%?#`, a control character or no UTF-8: choose another",
            path.display()
        ))
    })
}

#[async_trait]
impl Technology for Lakehouse {
    fn name(&self) -> &'static str {
        "lakehouse"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            kinds: Kinds::Only(&[ComponentKind::Storage, ComponentKind::OutputPort]),
            access: AccessMode::Recorded,
            reverse: true,
            stop: true,
        }
    }

    fn check(&self, work: &Work, intent: &Intent) -> Vec<Problem> {
        match work.component.kind {
            ComponentKind::Storage => bucket::check(work, intent),
            ComponentKind::OutputPort => table::check(work, intent),
            _ => vec![wrong_kind()],
        }
    }

    async fn plan(&self, work: &Work, intent: &Intent, context: &Context) -> Result<Plan> {
        context.check_cancelled()?;
        let mut plan = match work.component.kind {
            ComponentKind::Storage => self.opened().await?.plan_bucket(work, intent).await,
            ComponentKind::OutputPort => self.opened().await?.plan_table(work, intent).await,
            _ => Err(Error::invalid(vec![wrong_kind()])),
        }?;
        if !matches!(intent, Intent::Unprovision { .. }) {
            plan.notes.extend(access::undecided(work.access.as_ref()));
        }
        Ok(plan)
    }

    async fn apply(&self, work: &Work, change: &Change, context: &Context) -> Result<()> {
        context.check_cancelled()?;
        let step = serde_json::from_value(change.detail.clone()).map_err(|e| {
            Error::permanent(format!("`{}` is not a change of the lakehouse", change.summary)).because(e)
        })?;
        match work.component.kind {
            ComponentKind::Storage => self.opened().await?.apply_bucket(work, step, context).await,
            ComponentKind::OutputPort => self.opened().await?.apply_table(work, step, context).await,
            _ => Err(Error::invalid(vec![wrong_kind()])),
        }
    }

    async fn describe(&self, work: &Work, context: &Context) -> Result<Info> {
        context.check_cancelled()?;
        match work.component.kind {
            ComponentKind::Storage => self.opened().await?.describe_bucket(work).await,
            ComponentKind::OutputPort => self.opened().await?.describe_table(work).await,
            _ => Ok(Info::default()),
        }
    }

    fn check_import(&self, params: &mut ImportParams<'_>) {
        reverse::check(params);
    }

    async fn reverse(&self, import: &Import, context: &Context) -> Result<Imported> {
        context.check_cancelled()?;
        self.opened().await?.read_back(import, context).await
    }
}

fn wrong_kind() -> Problem {
    Problem::new("kind", "the lakehouse provisions storage areas and output ports")
        .remedy("use the kind `storage` or `outputport`, or route the component elsewhere")
}

/// A change with its step inside.
fn change(action: Action, resource: &str, summary: impl Into<String>, step: &Step) -> Change {
    Change { action, resource: resource.to_owned(), summary: summary.into(), detail: json!(step) }
}

/// The access of what does not exist cannot be updated; trying again will not help, provisioning will.
fn not_provisioned(owner: &Owner) -> Error {
    Error::conflict(format!("{} is not provisioned: provision it first", marked::described(owner)))
}

/// `file:///...`, as the catalog has it.
fn location(path: &Path) -> String {
    format!("file://{}", path.display())
}

fn entry(info: &mut Object, key: &str, label: &str, value: &str) {
    info.insert(key.to_owned(), json!({ "type": "string", "label": label, "value": value }));
}

fn link(info: &mut Object, value: &str, href: &str) {
    info.insert("link".to_owned(), json!({ "type": "link", "label": "Files", "value": value, "href": href }));
}

fn private_access(info: &mut Object, list: &AccessList) {
    info.insert("accessMode".to_owned(), json!("recorded"));
    info.insert("refs".to_owned(), json!(list.refs));
    if !list.fields.is_empty() {
        info.insert("accessControlFields".to_owned(), json!(list.fields));
    }
}
