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
//! | purge | mark `purging`, catalog row goes, directory renamed, deleted | one of these states, all recognised; a process that is killed at the very end leaves an empty directory of the namespace, which its next table uses |
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
use std::sync::Arc;

use async_trait::async_trait;

use bucket::Bucket;
use catalog::TableCatalog;
pub use driver::{LakehouseDriver, Settings};
use files::Place;
use landfall_adapter::blocking::{Cancellation, run as blocking};
use landfall_adapter::descriptor::{ComponentKind, Problem};
use landfall_adapter::error::{Error, Result};
use landfall_adapter::{
    AccessList, AccessMode, Action, Bound, Capabilities, Change, Context, Import, ImportParams, Imported,
    Info, Intent, Kinds, Owner, Plan, Running, Technology, Work,
};
use table::Output;

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
/// a component touches neither. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Lakehouse {
    settings: LakehouseSettings,
    opened: Arc<tokio::sync::OnceCell<Opened>>,
}

/// A component of a lakehouse, and what is asked of it.
#[derive(Debug)]
pub struct Resource {
    lakehouse: Lakehouse,
    work: Work,
    intent: Intent,
    what: What,
}

#[derive(Debug)]
enum What {
    Bucket(Bucket),
    Table(Box<Output>),
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

/// What one change does: nobody else makes or reads one.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
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
        Self { settings, opened: Arc::default() }
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
    type Bound = Resource;

    fn name(&self) -> &'static str {
        "lakehouse"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            kinds: Kinds::Only(vec![ComponentKind::Storage, ComponentKind::OutputPort]),
            access: AccessMode::Recorded,
            reverse: true,
            stop: true,
        }
    }

    fn bind(&self, work: Work, intent: Intent) -> std::result::Result<Resource, Vec<Problem>> {
        let what = match work.component.kind {
            ComponentKind::Storage => What::Bucket(Bucket::read(&work, intent)?),
            ComponentKind::OutputPort => What::Table(Box::new(Output::read(&work, intent)?)),
            _ => return Err(vec![wrong_kind()]),
        };
        Ok(Resource { lakehouse: self.clone(), work, intent, what })
    }

    fn check_import(&self, params: &mut ImportParams<'_>) {
        reverse::check(params);
    }

    async fn reverse(&self, import: &Import, context: &Context) -> Result<Imported> {
        context.check_cancelled()?;
        self.opened().await?.read_back(import, context).await
    }
}

#[async_trait]
impl Bound for Resource {
    type Step = Step;

    async fn plan(&self, context: &Context) -> Result<Plan<Step>> {
        context.check_cancelled()?;
        let (opened, work) = (self.lakehouse.opened().await?, &self.work);
        let mut plan = match &self.what {
            What::Bucket(bucket) => opened.plan_bucket(bucket, work, self.intent).await?,
            What::Table(output) => opened.plan_table(output, work, self.intent).await?,
        };
        if !matches!(self.intent, Intent::Unprovision { .. }) {
            plan.notes.extend(access::undecided(work.access.as_ref()));
        }
        Ok(plan)
    }

    async fn apply(&self, step: &Step, context: &Running) -> Result<()> {
        context.check_cancelled()?;
        let (opened, work) = (self.lakehouse.opened().await?, &self.work);
        match &self.what {
            What::Bucket(bucket) => opened.apply_bucket(bucket, work, step, context).await,
            What::Table(output) => opened.apply_table(output, work, step, context).await,
        }
    }

    async fn describe(&self, context: &Context) -> Result<Info> {
        context.check_cancelled()?;
        let opened = self.lakehouse.opened().await?;
        match &self.what {
            What::Bucket(bucket) => opened.describe_bucket(bucket).await,
            What::Table(output) => opened.describe_table(output).await,
        }
    }
}

fn wrong_kind() -> Problem {
    Problem::new("kind", "the lakehouse provisions storage areas and output ports")
        .remedy("use the kind `storage` or `outputport`, or route the component elsewhere")
}

fn change(action: Action, resource: &str, summary: impl Into<String>, step: Step) -> Change<Step> {
    Change::new(action, resource, summary, step)
}

/// The access of what does not exist cannot be updated; trying again will not help, provisioning will.
fn not_provisioned(owner: &Owner) -> Error {
    Error::conflict(format!("{} is not provisioned: provision it first", marked::described(owner)))
}

/// `file:///...`, as the catalog has it.
fn location(path: &Path) -> String {
    format!("file://{}", path.display())
}

/// What is shown of every resource last: the files, and who has access.
fn with_access(info: Info, location: &str, list: &AccessList, shown: &str) -> Info {
    let info = info
        .text("access", "Access", "recorded, not enforced")
        .link("link", "Files", shown, location)
        .private("accessMode", "recorded")
        .private("refs", &list.refs);
    if list.fields.is_empty() { info } else { info.private("accessControlFields", &list.fields) }
}
