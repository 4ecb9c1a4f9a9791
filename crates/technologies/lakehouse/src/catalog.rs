//! The catalog of the tables, with guarantees that the library does not give.
//!
//! - A commit applies to the table as it was read, or returns a retryable error. The library would refresh a stale
//!   table and apply the updates again, which for properties overwrites the changes of another writer.
//! - A commit that reports success has happened. The library does not check whether SQLite committed; a read on
//!   another connection does.
//! - Each change has its own connections. If SQLite rolls a transaction back by itself, for example on a full disk,
//!   or does not commit it, the library and its pool lose track: the connection stays in a transaction forever, which
//!   hides its writes and blocks all other writers. Such a connection ends with its change.
//! - A commit that has begun is completed, even if its run is dropped, and the run ends after it: SQLite has a thread
//!   of its own, which completes a statement whose future was dropped.
//! - Commits of this process run one after the other, which closes the gap between reading a table and writing it
//!   that the library leaves for properties. Compare-and-swap excludes other processes; for properties, in the few
//!   remaining microseconds, the lease of the operation does.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use iceberg::io::{FileIO, FileIOBuilder};
use iceberg::spec::TableMetadata;
use iceberg::table::Table;
use iceberg::transaction::Transaction;
use iceberg::{
    Catalog, CatalogBuilder, ErrorKind, Namespace, NamespaceIdent, TableCommit, TableCreation, TableIdent,
};
use iceberg_catalog_sql::{SqlBindStyle, SqlCatalog, SqlCatalogBuilder};
use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

use super::CATALOG_NAME;
use super::storage::WarehouseStorageFactory;
use landfall_adapter::blocking;
use landfall_adapter::error::{Error, Kind, Result};

/// How often a table is read before its files count as missing.
const LOOKS: u32 = 3;

/// The property of namespaces that Landfall created. Only these are dropped when they are empty.
const NAMESPACE_MARK: &str = "landfall.created";

/// An SQLite catalog of the tables in one warehouse.
#[derive(Debug, Clone)]
pub(super) struct TableCatalog {
    /// The catalog for reads. Each change opens its own.
    pub(super) sql: Arc<SqlCatalog>,
    source: Arc<Source>,
    files: FileIO,
    commits: Arc<tokio::sync::Mutex<()>>,
}

/// What is needed to open the catalog again.
#[derive(Debug)]
struct Source {
    uri: String,
    warehouse: String,
    files: Arc<WarehouseStorageFactory>,
}

impl Source {
    async fn open(&self) -> iceberg::Result<SqlCatalog> {
        SqlCatalogBuilder::default()
            .uri(&self.uri)
            .warehouse_location(&self.warehouse)
            .sql_bind_style(SqlBindStyle::QMark)
            .with_storage_factory(self.files.clone())
            .load(CATALOG_NAME, HashMap::new())
            .await
    }
}

impl TableCatalog {
    /// Opens the catalog in a file, or creates it. Both paths are absolute.
    pub(super) async fn open(
        file: &str,
        warehouse: &Path,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        // The write-ahead log belongs to the file, so the library's connections use it, too, and readers in other
        // processes do not block commits. Full synchronisation is SQLite's default.
        SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .connect()
            .await?;
        let factory = Arc::new(WarehouseStorageFactory { root: warehouse.to_owned() });
        let files = FileIOBuilder::new(factory.clone()).build();
        let source =
            Source { uri: format!("sqlite://{file}"), warehouse: super::location(warehouse), files: factory };
        let sql = Arc::new(source.open().await?);
        Ok(Self { sql, source: Arc::new(source), files, commits: Arc::default() })
    }

    /// Returns the table, or `None` if it is not registered.
    pub(super) async fn load(&self, ident: &TableIdent) -> Result<Option<Table>> {
        let mut looks = 0;
        loop {
            looks += 1;
            match self.sql.load_table(ident).await {
                Ok(table) => return Ok(Some(table)),
                Err(e) if matches!(e.kind(), ErrorKind::TableNotFound | ErrorKind::NamespaceNotFound) => {
                    return Ok(None);
                }
                // Another process may have dropped the table after the catalog was read.
                Err(e) if e.kind() == ErrorKind::DataInvalid && looks < LOOKS => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(e) => return Err(failed(&format!("read table `{}`", dotted(ident)), e)),
            }
        }
    }

    /// Reads a metadata file, also of a table that is not registered.
    pub(super) async fn read_metadata(&self, location: &str) -> Result<TableMetadata> {
        let read = TableMetadata::read_from(&self.files, location).await;
        read.map_err(|e| failed(&format!("read the table metadata `{location}`"), e))
    }

    /// Creates a table, and its namespace if it is missing.
    pub(super) async fn create(&self, ident: &TableIdent, creation: TableCreation) -> Result<()> {
        let ident = ident.clone();
        self.in_turn(async move |catalog, sql| {
            create_namespace(&sql, ident.namespace()).await?;
            let table = sql.create_table(ident.namespace(), creation).await;
            let table = table.map_err(|e| failed(&format!("create table `{}`", dotted(&ident)), e))?;
            catalog.committed(&table).await
        })
        .await
    }

    /// Runs a change of the catalog after all earlier changes, on its own connections. A change that has begun
    /// is completed.
    async fn in_turn<T, F>(&self, work: impl FnOnce(Self, SqlCatalog) -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let catalog = self.clone();
        blocking::finish(async move {
            let commits = Arc::clone(&catalog.commits);
            let _commit = commits.lock().await;
            // The run may have been cancelled during the wait.
            blocking::check()?;
            let sql = catalog.source.open().await.map_err(|e| failed("open the catalog", e))?;
            work(catalog, sql).await
        })
        .await
    }

    /// Registers a table with its newest metadata file.
    pub(super) async fn register(&self, ident: &TableIdent, location: String) -> Result<()> {
        let ident = ident.clone();
        self.in_turn(async move |catalog, sql| {
            create_namespace(&sql, ident.namespace()).await?;
            let table = sql.register_table(&ident, location).await;
            let table = table.map_err(|e| failed(&format!("register table `{}`", dotted(&ident)), e))?;
            catalog.committed(&table).await
        })
        .await
    }

    /// Commits a transaction on the table as it was read, or returns an error.
    pub(super) async fn commit(
        &self,
        table: &Table,
        build: impl FnOnce(Transaction) -> iceberg::Result<Transaction>,
    ) -> Result<()> {
        let what = format!("change table `{}`", dotted(table.identifier()));
        let transaction = build(Transaction::new(table)).map_err(|e| failed(&what, e))?;
        let location = table.metadata_location().map(str::to_owned);
        self.in_turn(async move |catalog, sql| {
            let unmoved = Unmoved { catalog: &sql, location: location.as_deref() };
            let committed = transaction.commit(&unmoved).await.map_err(|e| failed(&what, e))?;
            catalog.committed(&committed).await
        })
        .await
    }

    /// Fails unless the commit that produced `table` is in the catalog.
    async fn committed(&self, table: &Table) -> Result<()> {
        let now = self.load(table.identifier()).await?;
        let location = table.metadata_location();
        let kept = now.is_some_and(|now| {
            now.metadata_location() == location
                || now
                    .metadata()
                    .metadata_log()
                    .iter()
                    .any(|log| Some(log.metadata_file.as_str()) == location)
        });
        if kept {
            return Ok(());
        }
        Err(Error::retryable(format!(
            "the catalog did not keep a change of table `{}`",
            dotted(table.identifier())
        )))
    }

    /// Removes a table from the catalog, unless it has changed since it was read.
    pub(super) async fn deregister(&self, table: &Table) -> Result<()> {
        let (ident, location) = (table.identifier().clone(), table.metadata_location().map(str::to_owned));
        let what = format!("take table `{}` out of the catalog", dotted(&ident));
        self.in_turn(async move |catalog, sql| {
            match catalog.load(&ident).await? {
                Some(now) if now.metadata_location() == location.as_deref() => {}
                Some(_) => {
                    return Err(Error::retryable(format!("cannot {what}: it was changed meanwhile")));
                }
                None => return Ok(()),
            }
            blocking::check()?;
            sql.drop_table(&ident).await.map_err(|e| failed(&what, e))?;
            if catalog.load(&ident).await?.is_some() {
                return Err(Error::retryable(format!("cannot {what}: the catalog kept it")));
            }
            Ok(())
        })
        .await
    }

    /// Drops a namespace that Landfall created, if it has no table.
    pub(super) async fn drop_empty_namespace(&self, namespace: &NamespaceIdent) -> Result<()> {
        let namespace = namespace.clone();
        let what = format!("drop the empty namespace `{}`", namespace.join("."));
        self.in_turn(async move |catalog, sql| {
            let properties = match catalog.sql.get_namespace(&namespace).await {
                Ok(found) => found.properties().clone(),
                Err(e) if e.kind() == ErrorKind::NamespaceNotFound => return Ok(()),
                Err(e) => return Err(failed(&what, e)),
            };
            if !properties.contains_key(NAMESPACE_MARK) {
                return Ok(());
            }
            let tables = catalog.sql.list_tables(&namespace).await.map_err(|e| failed(&what, e))?;
            if !tables.is_empty() {
                return Ok(());
            }
            sql.drop_namespace(&namespace).await.map_err(|e| failed(&what, e))?;
            if catalog.sql.namespace_exists(&namespace).await.map_err(|e| failed(&what, e))? {
                return Err(Error::retryable(format!("cannot {what}: the catalog kept it")));
            }
            Ok(())
        })
        .await
    }

    /// The top-level namespaces.
    pub(super) async fn namespaces(&self) -> Result<Vec<NamespaceIdent>> {
        self.sql.list_namespaces(None).await.map_err(|e| failed("list the namespaces of the catalog", e))
    }

    /// The tables of a namespace; empty if it does not exist.
    pub(super) async fn tables(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        match self.sql.list_tables(namespace).await {
            Ok(tables) => Ok(tables),
            Err(e) if e.kind() == ErrorKind::NamespaceNotFound => Ok(Vec::new()),
            Err(e) => Err(failed(&format!("list the tables of the namespace `{}`", namespace.join(".")), e)),
        }
    }
}

async fn create_namespace(sql: &SqlCatalog, namespace: &NamespaceIdent) -> Result<()> {
    let mark = HashMap::from([(NAMESPACE_MARK.to_owned(), "true".to_owned())]);
    match sql.create_namespace(namespace, mark).await {
        Err(e) if e.kind() != ErrorKind::NamespaceAlreadyExists => {
            Err(failed(&format!("create the namespace `{}`", namespace.join(".")), e))
        }
        _ => Ok(()),
    }
}

/// `namespace.table`.
pub(super) fn dotted(ident: &TableIdent) -> String {
    format!("{}.{}", ident.namespace().join("."), ident.name())
}

/// Converts a library error. Transient errors are retried: a faster commit, a busy database, a full disk. Damaged
/// data and an invalid state are permanent.
pub(super) fn failed(what: &str, error: iceberg::Error) -> Error {
    if let Some(own) = own_error(&error) {
        let make = match own.kind() {
            Kind::Cancelled => return Error::cancelled(own.to_string()),
            Kind::Permanent => Error::permanent,
            Kind::Conflict => Error::conflict,
            _ => Error::retryable,
        };
        return make(format!("cannot {what}: {own}")).because(error);
    }
    let make = match error.kind() {
        ErrorKind::DataInvalid | ErrorKind::FeatureUnsupported => Error::permanent,
        _ => Error::retryable,
    };
    let why = match error.kind() {
        ErrorKind::CatalogCommitConflicts
        | ErrorKind::TableAlreadyExists
        | ErrorKind::PreconditionFailed
        | ErrorKind::NamespaceNotFound => ": it was changed meanwhile",
        ErrorKind::DataInvalid => ": its files are missing or damaged",
        _ => of_sqlite(&error).unwrap_or_default(),
    };
    make(format!("cannot {what}{why}")).because(error)
}

/// The error for a catalog that cannot be opened: transient, unless the file is not a catalog.
pub(super) fn open_failed(what: &str, error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    let why = of_sqlite(error.as_ref()).unwrap_or_default();
    let make = if why == DAMAGED { Error::permanent } else { Error::retryable };
    make(format!("{what}{why}")).because(error)
}

const DAMAGED: &str = ": its file is damaged, or no SQLite database; restore it";

/// Returns the cause and the remedy of an SQLite error, in words that can follow a message.
fn of_sqlite(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let mut cause = Some(error);
    let code = loop {
        let error = cause?;
        if let Some(sqlx::Error::Database(error)) = error.downcast_ref::<sqlx::Error>() {
            break error.code()?.parse::<i32>().ok()?;
        }
        cause = error.source();
    };
    // The low byte is the primary code; https://www.sqlite.org/rescode.html.
    Some(match code & 0xff {
        5 | 6 => ": another program holds the catalog for too long",
        8 => ": the file of the catalog is read-only; let Landfall's user write it",
        10 => ": the disk of the catalog reports an error; check it, and the system's log",
        11 | 26 => DAMAGED,
        13 => ": the disk of the catalog is full; free space on it",
        14 => ": its file cannot be opened; let Landfall's user read and write it, and its folder",
        _ => return None,
    })
}

/// Returns the error of Landfall's own storage inside a library error, if there is one.
fn own_error(error: &iceberg::Error) -> Option<&Error> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(own) = error.downcast_ref::<Error>() {
            return Some(own);
        }
        cause = error.source();
    }
    None
}

/// The catalog as one commit sees it. Loading the table fails if its metadata location is not `location` any
/// more.
#[derive(Debug)]
struct Unmoved<'a> {
    catalog: &'a SqlCatalog,
    location: Option<&'a str>,
}

impl Unmoved<'_> {
    fn not_here<T>(&self) -> iceberg::Result<T> {
        Err(iceberg::Error::new(
            ErrorKind::FeatureUnsupported,
            "a commit loads and updates its table, nothing else",
        ))
    }
}

#[async_trait]
impl Catalog for Unmoved<'_> {
    async fn load_table(&self, ident: &TableIdent) -> iceberg::Result<Table> {
        let table = self.catalog.load_table(ident).await?;
        if table.metadata_location() == self.location {
            return Ok(table);
        }
        Err(iceberg::Error::new(ErrorKind::CatalogCommitConflicts, "the table moved since it was read"))
    }

    async fn update_table(&self, commit: TableCommit) -> iceberg::Result<Table> {
        self.catalog.update_table(commit).await
    }

    async fn list_namespaces(&self, _: Option<&NamespaceIdent>) -> iceberg::Result<Vec<NamespaceIdent>> {
        self.not_here()
    }

    async fn create_namespace(
        &self,
        _: &NamespaceIdent,
        _: HashMap<String, String>,
    ) -> iceberg::Result<Namespace> {
        self.not_here()
    }

    async fn get_namespace(&self, _: &NamespaceIdent) -> iceberg::Result<Namespace> {
        self.not_here()
    }

    async fn namespace_exists(&self, _: &NamespaceIdent) -> iceberg::Result<bool> {
        self.not_here()
    }

    async fn update_namespace(&self, _: &NamespaceIdent, _: HashMap<String, String>) -> iceberg::Result<()> {
        self.not_here()
    }

    async fn drop_namespace(&self, _: &NamespaceIdent) -> iceberg::Result<()> {
        self.not_here()
    }

    async fn list_tables(&self, _: &NamespaceIdent) -> iceberg::Result<Vec<TableIdent>> {
        self.not_here()
    }

    async fn create_table(&self, _: &NamespaceIdent, _: TableCreation) -> iceberg::Result<Table> {
        self.not_here()
    }

    async fn drop_table(&self, _: &TableIdent) -> iceberg::Result<()> {
        self.not_here()
    }

    async fn purge_table(&self, _: &TableIdent) -> iceberg::Result<()> {
        self.not_here()
    }

    async fn table_exists(&self, _: &TableIdent) -> iceberg::Result<bool> {
        self.not_here()
    }

    async fn rename_table(&self, _: &TableIdent, _: &TableIdent) -> iceberg::Result<()> {
        self.not_here()
    }

    async fn register_table(&self, _: &TableIdent, _: String) -> iceberg::Result<Table> {
        self.not_here()
    }
}
