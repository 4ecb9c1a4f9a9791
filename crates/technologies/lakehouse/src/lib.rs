//! The embedded lakehouse: directory buckets and Iceberg tables below one directory, without a server.
//!
//! Standard Iceberg tools can read its tables, and it is small enough to be the default target of a new installation:
//!
//! ```text
//! WAREHOUSE/buckets/finance-cashflows/              a storage area
//! WAREHOUSE/tables/NAMESPACE/TABLE/{data,metadata}  an output port
//! CATALOG                                           SQLite, the layout of Iceberg's SQL catalogs
//! ```
//!
//! Guarantees:
//! - The target records the owner of each resource: in a mark file in every bucket and table location (`marked.rs`),
//!   and in properties of every table (`properties.rs`). Landfall never adopts, alters or drops a resource without its
//!   own mark.
//! - Catalog commits are optimistic. If a table changed since Landfall read it, the commit fails with an error to retry
//!   and overwrites nothing. Two targets, or two processes, may share one warehouse and catalog.
//! - No operation blocks an async thread, and Landfall syncs a change before it reports the change as done. A run ends
//!   only when its threads have ended: long work stops between entries, and a catalog change that has begun completes
//!   (`landfall_adapter::blocking`).
//! - Landfall follows no symbolic link inside the warehouse (`files.rs`).
//!
//! The lakehouse does not enforce access. It records the access list with the resource, but every user who can read the
//! directory can read the data. Every plan and every description of a resource says so.
//!
//! # Reading the tables with other tools
//!
//! pyiceberg: `SqlCatalog("landfall", uri="sqlite:////ABSOLUTE/CATALOG", warehouse="file:///ABSOLUTE/WAREHOUSE")`.
//! The catalog must be named `landfall`, because the name is part of the catalog's primary key. DuckDB: `iceberg_scan`
//! of the metadata file that `describe` returns as `metadataLocation`. `tests/tools/read_iceberg.py` does both.
//!
//! # How a table is created and removed
//!
//! | step | order of effects | state after a crash, and what the next run does |
//! |---|---|---|
//! | create | create the marked directory, the metadata file, the catalog row | a marked directory without data: create again |
//! | load | write the data file, then commit once | an orphan file, and a table without snapshots: load again |
//! | release | set the mark to `released` with the metadata's location, remove the catalog row | the row, which takes precedence: release again |
//! | restore | add the catalog row, set the mark to `active` | the row, and a mark that the next run corrects |
//! | purge | set the mark to `purging`, remove the catalog row, rename the directory, delete it | one of these states; the next run recognises each of them. A process killed at the very end leaves an empty namespace directory, which the namespace's next table uses |
//!
//! If a marked directory holds data but is neither released nor registered, another program dropped the table. Landfall
//! reports a conflict with instructions.

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
    AccessList, AccessMode, Action, Bound, Capabilities, Change, Context, Found, Import, ImportParams,
    Imported, Info, Intent, Kinds, Plan, Running, Technology, Work,
};
use table::Output;

/// The name of the catalog. Readers must use it, because it is part of the key of every row.
pub const CATALOG_NAME: &str = "landfall";

/// Directory below the warehouse in which new directories are prepared.
const SCRATCH: &str = ".creating";

/// The location of a lakehouse.
#[derive(Debug, Clone)]
pub struct LakehouseSettings {
    /// Code of the configured target, used in messages.
    pub target: String,
    /// Directory of the buckets and tables, created when missing. Its path must not contain `%`, `?`, `#` or control
    /// characters: Iceberg readers treat locations as URLs and disagree about escapes.
    pub warehouse: PathBuf,
    /// SQLite file of the catalog, created when missing.
    pub catalog: PathBuf,
}

/// The embedded lakehouse, with one warehouse and one catalog. Both are opened at their first use; checking a component
/// opens neither. Clones share them.
#[derive(Debug, Clone)]
pub struct Lakehouse {
    settings: LakehouseSettings,
    opened: Arc<tokio::sync::OnceCell<Opened>>,
}

/// A component bound to a lakehouse, with the intent of the operation.
#[derive(Debug)]
pub struct Resource {
    lakehouse: Lakehouse,
    work: Work,
    intent: Intent,
    kind: ResourceKind,
}

#[derive(Debug)]
enum ResourceKind {
    Bucket(Bucket),
    Table(Box<Output>),
}

/// An open warehouse and its catalog.
#[derive(Debug)]
struct Opened {
    target: String,
    buckets: Place,
    tables: Place,
    /// Directory in which new directories are prepared before they are renamed into place.
    scratch: Place,
    /// Absolute path of the catalog file.
    catalog_path: String,
    catalog: TableCatalog,
}

/// The action of one change. Only this crate creates and reads steps.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Delete the leftovers of an interrupted purge.
    Clear,
    /// Correct the ownership mark.
    Mark,
    Create,
    Restore,
    /// `path` is the Iceberg path of the column.
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
    /// Record the access control fields.
    Fields,
    Grant {
        reference: String,
    },
    Release,
    Purge,
}

impl Lakehouse {
    /// Creates a lakehouse without opening its warehouse or catalog.
    pub fn new(settings: LakehouseSettings) -> Self {
        Self { settings, opened: Arc::default() }
    }

    /// The open warehouse and catalog. After a failure, the next caller tries to open them again.
    async fn opened(&self) -> Result<&Opened> {
        self.opened.get_or_try_init(|| Opened::open(self.settings.clone())).await
    }
}

impl Opened {
    /// Opens the warehouse and the catalog, and creates them when they are missing.
    async fn open(settings: LakehouseSettings) -> Result<Self> {
        let LakehouseSettings { target, warehouse, catalog } = settings;
        let place = format!("of target `{target}`");
        let (warehouse, catalog) =
            blocking(move |cancellation| create_places(&warehouse, &catalog, &place, cancellation)).await?;
        let warehouse = PathBuf::from(warehouse);
        let opened = TableCatalog::open(&catalog, &warehouse).await.map_err(|e| {
            let what = format!("cannot open the catalog `{catalog}` of target `{target}`");
            catalog::open_failed(&what, e)
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

/// Creates the warehouse and the directory of the catalog. Returns the absolute paths of the warehouse and the catalog
/// file, without symbolic links. I/O errors are retryable: the cause may pass, or an administrator may fix it.
fn create_places(
    warehouse: &Path,
    catalog: &Path,
    place: &str,
    cancellation: &Cancellation,
) -> Result<(String, String)> {
    let create = |directory: &Path| {
        marked::create_directories(directory)?;
        directory.canonicalize()
    };
    let failed = |what: &str, path: &Path, e: std::io::Error| {
        let text = format!("cannot open the {what} `{}` {place}{}", path.display(), files::advice(&e));
        Error::retryable(text).because(e)
    };
    let real = std::path::absolute(warehouse).and_then(|path| create(&path));
    let warehouse = portable(real.map_err(|e| failed("warehouse", warehouse, e))?, "warehouse", place)?;
    let absolute = std::path::absolute(catalog).map_err(|e| failed("catalog", catalog, e))?;
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Err(Error::permanent(format!(
            "the catalog `{}` {place} is not a file name",
            catalog.display()
        )));
    };
    marked::tidy(&Place::root(Path::new(&warehouse)).join(SCRATCH), cancellation)?;
    let parent = create(parent).map_err(|e| failed("catalog", catalog, e))?;
    Ok((warehouse, portable(parent.join(name), "catalog", place)?))
}

/// Returns the path as text. Fails if Iceberg readers may interpret it in different ways.
fn portable(path: PathBuf, what: &str, place: &str) -> Result<String> {
    let text =
        path.to_str().filter(|text| !text.contains(['%', '?', '#']) && !text.chars().any(char::is_control));
    text.map(str::to_owned).ok_or_else(|| {
        Error::permanent(format!(
            "the path `{}` of the {what} {place} contains one of `%?#` or a control character, or is not UTF-8: \
             choose another path",
            path.display()
        ))
    })
}

#[async_trait]
impl Technology for Lakehouse {
    type Bound = Resource;

    fn name(&self) -> &str {
        "lakehouse"
    }

    fn capabilities(&self) -> Capabilities {
        let kinds = Kinds::Only(vec![ComponentKind::Storage, ComponentKind::OutputPort]);
        Capabilities::new(kinds).access(AccessMode::Recorded).with_import()
    }

    fn bind(&self, work: Work, intent: Intent) -> std::result::Result<Resource, Vec<Problem>> {
        let kind = match work.component.kind {
            ComponentKind::Storage => ResourceKind::Bucket(Bucket::read(&work, intent)?),
            ComponentKind::OutputPort => ResourceKind::Table(Box::new(Output::read(&work, intent)?)),
            _ => return Err(vec![wrong_kind()]),
        };
        Ok(Resource { lakehouse: self.clone(), work, intent, kind })
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

    async fn find(&self, context: &Context) -> Result<Found> {
        context.check_cancelled()?;
        let opened = self.lakehouse.opened().await?;
        match &self.kind {
            ResourceKind::Bucket(bucket) => opened.find_bucket(bucket).await,
            ResourceKind::Table(output) => opened.find_output(output).await,
        }
    }

    async fn plan(&self, context: &Context) -> Result<Plan<Step>> {
        context.check_cancelled()?;
        let (opened, work) = (self.lakehouse.opened().await?, &self.work);
        let mut plan = match &self.kind {
            ResourceKind::Bucket(bucket) => opened.plan_bucket(bucket, work, self.intent).await?,
            ResourceKind::Table(output) => opened.plan_table(output, work, self.intent).await?,
        };
        if !matches!(self.intent, Intent::Unprovision { .. }) {
            plan.notes.extend(access::bare_names_note(work.access.as_ref()));
        }
        Ok(plan)
    }

    async fn apply(&self, step: &Step, context: &Running) -> Result<()> {
        context.check_cancelled()?;
        let (opened, work) = (self.lakehouse.opened().await?, &self.work);
        match &self.kind {
            ResourceKind::Bucket(bucket) => opened.apply_bucket(bucket, work, step, context).await,
            ResourceKind::Table(output) => opened.apply_table(output, work, step, context).await,
        }
    }

    async fn describe(&self, context: &Context) -> Result<Info> {
        context.check_cancelled()?;
        let opened = self.lakehouse.opened().await?;
        match &self.kind {
            ResourceKind::Bucket(bucket) => opened.describe_bucket(bucket).await,
            ResourceKind::Table(output) => opened.describe_table(output).await,
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

/// Returns the location of a path in the form of the catalog: `file:///...`.
fn location(path: &Path) -> String {
    format!("file://{}", path.display())
}

/// Adds the link to the files and the recorded access list, which are the last entries of every description.
fn with_access(info: Info, location: &str, list: &AccessList, shown: &str) -> Info {
    let info = info
        .text("access", "Access", "recorded, not enforced")
        .link("link", "Files", shown, location)
        .private("accessMode", "recorded")
        .private("refs", &list.refs);
    if list.fields.is_empty() { info } else { info.private("accessControlFields", &list.fields) }
}
