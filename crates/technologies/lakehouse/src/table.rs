//! Output ports: Iceberg tables.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use iceberg::spec::{DataFileFormat, NestedField, Schema, TableMetadata};
use iceberg::table::Table;
use iceberg::transaction::{AddColumn, ApplyTransactionAction};
use iceberg::writer::base_writer::data_file_writer::DataFileWriterBuilder;
use iceberg::writer::file_writer::ParquetWriterBuilder;
use iceberg::writer::file_writer::location_generator::{DefaultFileNameGenerator, DefaultLocationGenerator};
use iceberg::writer::file_writer::rolling_writer::RollingFileWriterBuilder;
use iceberg::writer::{IcebergWriter, IcebergWriterBuilder};
use iceberg::{NamespaceIdent, TableCreation, TableIdent};
use parquet::file::properties::WriterProperties;
use serde_json::json;

use super::catalog::failed;
use super::files::Place;
use super::marked::{self, Found, Mark, State};
use super::properties::{self, ACCESS_FIELDS, ACCESS_REFS};
use super::sample::Rows;
use super::types::{self, Wanted};
use super::{CATALOG_NAME, Opened, Step, access, blocking, change, evolution, naming, sample};
use landfall_adapter::descriptor::{Problem, SpecificReader};
use landfall_adapter::error::{Error, Result};
use landfall_adapter::{Action, Change, Context, Info, Intent, Owner, Plan, Work};

/// The table of a component.
#[derive(Debug, Clone)]
struct Port {
    namespace: String,
    name: String,
    /// "table `namespace.name`", in messages and plans.
    what: String,
    owner: Owner,
}

/// A component that is a table.
#[derive(Debug)]
pub(super) struct Output {
    port: Port,
    /// Only for a provisioning, so that every provisioned table can be unprovisioned.
    contract: Option<Contract>,
}

impl Output {
    /// Returns the table and its contract, or every problem.
    pub(super) fn read(work: &Work, intent: Intent) -> Result<Self, Vec<Problem>> {
        match intent {
            Intent::Provision => {
                let (port, contract) = Port::read(work)?;
                Ok(Self { port, contract: Some(contract) })
            }
            Intent::Unprovision { .. } | Intent::UpdateAccess => {
                Ok(Self { port: Port::find(work)?, contract: None })
            }
        }
    }

    fn contract(&self) -> Result<&Contract> {
        self.contract.as_ref().ok_or_else(|| Error::permanent("this step is of a provisioning"))
    }
}

/// The contract of a table.
#[derive(Debug)]
struct Contract {
    wanted: Wanted,
    /// Whether to load the sample rows (`specific.loadSampleData`).
    load: bool,
    rows: Option<Rows>,
    may_drop: bool,
}

impl Port {
    fn ident(&self) -> TableIdent {
        TableIdent::new(self.namespace_ident(), self.name.clone())
    }

    fn namespace_ident(&self) -> NamespaceIdent {
        NamespaceIdent::new(self.namespace.clone())
    }

    /// Returns the table and its contract, or all problems.
    fn read(work: &Work) -> Result<(Self, Contract), Vec<Problem>> {
        let mut specific = SpecificReader::new(&work.component.specific);
        let port = Self::named(work, &mut specific);
        specific.one_of("format", &["Iceberg"]);
        let load = specific.boolean("loadSampleData").unwrap_or(false);
        let may_drop = specific.boolean("allowDropColumns").unwrap_or(false);
        let mut problems = specific.finish();
        let component = &work.component;
        let contract = component.data_contract.as_ref();
        problems.extend(component.faults.contract.iter().cloned());
        let columns = contract.map_or(&[][..], |contract| &contract.schema);
        let mut wanted = types::wanted(columns).map_err(|more| problems.extend(more)).ok();
        if let (Some(wanted), Some(contract)) = (&mut wanted, contract) {
            wanted.notes.extend(contract.notes.iter().cloned());
        }
        if load {
            problems.extend(component.faults.sample.iter().cloned());
        }
        // Rows of unreadable columns are not checked.
        let readable = component.faults.contract.is_empty() && component.faults.sample.is_empty();
        let sample = component.sample_data.as_ref().filter(|_| load && readable);
        let rows = match (&wanted, sample) {
            (Some(wanted), Some(sample)) => sample::read(sample, &wanted.schema, &wanted.columns)
                .and_then(|rows| sample::writable(rows, &wanted.schema))
                .map_err(|more| problems.extend(more))
                .ok()
                .filter(|rows| rows.len() > 0),
            _ => None,
        };
        match (port, wanted) {
            (Some(port), Some(wanted)) if problems.is_empty() => {
                Ok((port, Contract { wanted, load, rows, may_drop }))
            }
            _ => Err(problems),
        }
    }

    /// The table without its contract, for operations that do not need one, so that everything provisioned can be
    /// unprovisioned.
    fn find(work: &Work) -> Result<Self, Vec<Problem>> {
        let mut specific = SpecificReader::new(&work.component.specific);
        match Self::named(work, &mut specific) {
            Some(port) => Ok(port),
            None => Err(specific.finish()),
        }
    }

    fn named(work: &Work, specific: &mut SpecificReader<'_>) -> Option<Self> {
        let mut name = |key: &'static str, default: String| -> Option<String> {
            if specific.value(key).is_none() {
                return Some(default);
            }
            let name = specific.string(key)?;
            match naming::table_problem(name) {
                None => Some(name.to_owned()),
                Some(fault) => {
                    specific.problem(key, fault, "choose a name such as `cashflow_output_port`");
                    None
                }
            }
        };
        let product = work.product.id.as_str();
        let namespace = name("namespace", naming::namespace(product, &work.environment));
        let table = name("table", naming::table(product, work.component.id.as_str()));
        let (namespace, name) = (namespace?, table?);
        let what = format!("table `{namespace}.{name}`");
        Some(Self { namespace, name, what, owner: work.owner() })
    }
}

/// The observed state of a table.
struct Observed {
    table: Option<Table>,
    directory: Found,
    leftovers: bool,
}

impl Opened {
    fn table_place(&self, port: &Port) -> Place {
        self.tables.join(&port.namespace).join(&port.name)
    }

    /// The table if it is in the catalog and belongs to this component; a conflict if it belongs to another owner.
    async fn own_table(&self, port: &Port) -> Result<Option<Table>> {
        let Some(table) = self.catalog.load(&port.ident()).await? else { return Ok(None) };
        match properties::owner(table.metadata().properties()) {
            Some(owner) if owner == port.owner => Ok(Some(table)),
            other => Err(marked::foreign(&port.what, other.as_ref(), &port.owner)),
        }
    }

    async fn directory(&self, port: &Port) -> Result<Found> {
        let path = self.table_place(port);
        blocking(move |_| marked::observe(&path)).await
    }

    async fn observe_table(&self, port: &Port) -> Result<Observed> {
        let table = self.own_table(port).await?;
        let (path, owner) = (self.table_place(port), port.owner.clone());
        let (directory, leftovers) =
            blocking(move |_| Ok((marked::observe(&path)?, marked::has_leftovers(&path, &owner)?))).await?;
        Ok(Observed { table, directory, leftovers })
    }

    fn mark(&self, port: &Port) -> Mark {
        Mark { catalog: Some(self.catalog_path.clone()), ..Mark::active(port.owner.clone()) }
    }

    /// The mark of the table's directory, if it belongs to this component and this catalog.
    fn own_mark(&self, found: Found, port: &Port) -> Result<Option<Mark>> {
        let what = format!("the location of {}", port.what);
        let mark = found.owned_by(&port.owner, &what)?;
        match mark.as_ref().and_then(|mark| mark.catalog.as_deref()) {
            Some(catalog) if catalog != self.catalog_path => Err(Error::conflict(format!(
                "{what} is in use by the catalog `{catalog}`, and target `{}` has the catalog `{}`: give the targets different warehouses, or the same catalog",
                self.target, self.catalog_path
            ))),
            _ => Ok(mark),
        }
    }

    /// Fails if the table is not in its own directory. Landfall deletes the files of a table by directory, so
    /// they must be there.
    fn at_its_place(&self, table: &Table, port: &Port) -> Result<()> {
        let (found, expected) =
            (super::storage::local_path(table.metadata().location()), self.table_place(port).path());
        if found == expected {
            return Ok(());
        }
        Err(Error::conflict(format!(
            "{} was moved to `{}` by another program, so its files are not touched: move it back to `{}`",
            port.what,
            found.display(),
            expected.display()
        )))
    }

    pub(super) async fn find_output(&self, output: &Output) -> Result<landfall_adapter::Found> {
        let port = &output.port;
        let seen = self.observe_table(port).await?;
        let what = vec![port.what.clone()];
        if seen.table.is_some() {
            return Ok(landfall_adapter::Found::Provisioned(what));
        }
        Ok(match self.own_mark(seen.directory, port)?.map(|mark| mark.state) {
            None | Some(State::Purging) => landfall_adapter::Found::Nothing,
            // Another program dropped an active table, but its data is still there.
            Some(State::Active | State::Released) => landfall_adapter::Found::Kept(what),
        })
    }

    pub(super) async fn plan_table(
        &self,
        output: &Output,
        work: &Work,
        intent: Intent,
    ) -> Result<Plan<Step>> {
        let port = &output.port;
        let mut plan = match intent {
            Intent::Provision => self.plan_provision(work, port, output.contract()?).await?,
            Intent::UpdateAccess => self.plan_access(work, port).await?,
            Intent::Unprovision { remove_data } => self.plan_unprovision(port, remove_data).await?,
        };
        plan.notes.push(access::NOTE.to_owned());
        Ok(plan)
    }

    async fn plan_provision(&self, work: &Work, port: &Port, contract: &Contract) -> Result<Plan<Step>> {
        let seen = self.observe_table(port).await?;
        let mut planning = Planning::new(work, port, contract);
        if seen.leftovers {
            planning.push(Action::Drop, "delete what an interrupted purge left", Step::Clear);
        }
        if let Some(table) = &seen.table {
            if self.at_its_place(table, port).is_ok() {
                let mark = match seen.directory {
                    // The mark was lost, and the table itself still names its owner.
                    Found::Bare | Found::Absent => None,
                    found => self.own_mark(found, port)?,
                };
                if mark.is_none_or(|mark| mark.state != State::Active) {
                    planning.push(Action::Alter, "correct the ownership mark", Step::Mark);
                }
            }
            planning.converge(table.metadata())?;
            return Ok(planning.plan);
        }
        match self.own_mark(seen.directory, port)? {
            None => planning.create(),
            Some(Mark { state: State::Purging, .. }) => {
                if !seen.leftovers {
                    planning.push(Action::Drop, "delete what an interrupted purge left", Step::Clear);
                }
                planning.create();
            }
            Some(Mark { state: State::Released, metadata_location: Some(kept), .. }) => {
                let metadata = self.kept_metadata(port, &kept).await?;
                planning.push(
                    Action::Restore,
                    "take back the table and the data that were kept",
                    Step::Restore,
                );
                planning.converge(&metadata).map_err(|e| kept_differs(e, port))?;
            }
            Some(_) => {
                let place = self.table_place(port);
                if blocking(move |_| marked::has_any(&place, "data")).await? {
                    return Err(Error::conflict(format!(
                        "{} is not in the catalog, but data of it is in `{}`: another program dropped it. Register its newest metadata file again, or unprovision the component with its data",
                        port.what,
                        self.table_place(port).path().display()
                    )));
                }
                planning.create();
            }
        }
        Ok(planning.plan)
    }

    /// The metadata of a released table.
    async fn kept_metadata(&self, port: &Port, location: &str) -> Result<TableMetadata> {
        let metadata = self.catalog.read_metadata(location).await?;
        match properties::owner(metadata.properties()) {
            Some(owner) if owner == port.owner => Ok(metadata),
            other => Err(marked::foreign(&port.what, other.as_ref(), &port.owner)),
        }
    }

    async fn plan_access(&self, work: &Work, port: &Port) -> Result<Plan<Step>> {
        let Some(table) = self.own_table(port).await? else {
            return Err(port.owner.not_provisioned());
        };
        let mut plan = Plan::default();
        if let Some(wanted) = &work.access {
            plan.changes =
                access::changes(&properties::access(table.metadata().properties())?, wanted, &port.what);
        }
        Ok(plan)
    }

    async fn plan_unprovision(&self, port: &Port, remove_data: bool) -> Result<Plan<Step>> {
        let seen = self.observe_table(port).await?;
        let mark = self.own_mark(seen.directory, port)?;
        let step = |action, summary: &str, step| change(action, &port.what, summary, step);
        let mut changes = Vec::new();
        // A purge that was requested earlier is always completed.
        let purging = seen.table.is_none() && mark.as_ref().is_some_and(|mark| mark.state == State::Purging);
        match (&seen.table, &mark) {
            (Some(table), _) => {
                self.at_its_place(table, port)?;
                changes.push(if remove_data {
                    step(Action::Drop, "drop the table and delete its data", Step::Purge)
                } else {
                    step(
                        Action::Release,
                        "take the table out of the catalog, and keep its data",
                        Step::Release,
                    )
                });
            }
            (None, Some(_)) if remove_data && !purging => {
                changes.push(step(Action::Drop, "delete the data that was kept", Step::Purge));
            }
            _ => {}
        }
        if purging || seen.leftovers {
            changes.push(step(Action::Drop, "delete what an interrupted purge left", Step::Clear));
        }
        Ok(Plan::new(changes))
    }

    pub(super) async fn apply_table(
        &self,
        output: &Output,
        work: &Work,
        step: &Step,
        context: &Context,
    ) -> Result<()> {
        let port = &output.port;
        match step {
            Step::Clear => self.clear(port).await,
            Step::Mark => self.set_mark(port, self.mark(port)).await,
            Step::Create => self.create(work, port, output.contract()?, context).await,
            Step::Restore => self.restore(port).await,
            Step::AddColumn { path } => self.add_column(port, output.contract()?, path).await,
            Step::DropColumn { path } => self.drop_column(port, path).await,
            Step::Properties => self.set_properties(work, port, output.contract()?).await,
            Step::Load => self.load(work, port, output.contract()?, context).await,
            Step::Revoke { .. } | Step::Fields | Step::Grant { .. } => {
                self.record_access(work, port, step).await
            }
            Step::Release => self.release(port).await,
            Step::Purge => self.purge(port).await,
        }
    }

    /// Returns the table of a change. It existed when the plan was made; if it is gone, the error is retryable.
    async fn planned(&self, port: &Port) -> Result<Table> {
        self.own_table(port).await?.ok_or_else(|| Error::retryable(format!("{} is gone", port.what)))
    }

    async fn set_mark(&self, port: &Port, mark: Mark) -> Result<()> {
        let (path, scratch) = (self.table_place(port), self.scratch.clone());
        match self.directory(port).await? {
            Found::Marked(found) if found == mark => Ok(()),
            // The caller knows from the catalog that the table belongs to this component.
            Found::Bare => blocking(move |_| marked::write_mark(&path, &mark, &scratch)).await,
            found => match self.own_mark(found, port)? {
                Some(_) => blocking(move |_| marked::write_mark(&path, &mark, &scratch)).await,
                None => blocking(move |_| marked::create(&path, &mark, &scratch)).await,
            },
        }
    }

    async fn clear(&self, port: &Port) -> Result<()> {
        let purging = match self.directory(port).await? {
            Found::Marked(mark) => mark.owner == port.owner && mark.state == State::Purging,
            _ => false,
        };
        let unregistered = purging && self.own_table(port).await?.is_none();
        self.catalog.drop_empty_namespace(&port.namespace_ident()).await?;
        let (path, owner, what) = (self.table_place(port), port.owner.clone(), port.what.clone());
        let namespace = self.tables.join(&port.namespace);
        blocking(move |cancellation| {
            if unregistered {
                marked::purge(&path, &owner, &what, cancellation)?;
            } else {
                marked::sweep(&path, &owner, cancellation)?;
            }
            remove_if_empty(&namespace);
            Ok(())
        })
        .await
    }

    async fn create(&self, work: &Work, port: &Port, contract: &Contract, context: &Context) -> Result<()> {
        if self.own_table(port).await?.is_some() {
            return Ok(());
        }
        // Not `set_mark`: without a table, an unmarked directory has an unknown owner.
        let mark = self.mark(port);
        let (path, scratch) = (self.table_place(port), self.scratch.clone());
        match self.own_mark(self.directory(port).await?, port)? {
            Some(found) if found == mark => {}
            Some(_) => blocking(move |_| marked::write_mark(&path, &mark, &scratch)).await?,
            None => blocking(move |_| marked::create(&path, &mark, &scratch)).await?,
        }
        context.check_cancelled()?;
        let Wanted { schema, .. } = &contract.wanted;
        let creation = TableCreation::builder()
            .name(port.name.clone())
            .location(super::location(&self.table_place(port).path()))
            .schema(schema.clone())
            .properties(properties::wanted(work, &contract.wanted, schema))
            .build();
        self.catalog.create(&port.ident(), creation).await
    }

    async fn restore(&self, port: &Port) -> Result<()> {
        if self.own_table(port).await?.is_none() {
            let mark = self.own_mark(self.directory(port).await?, port)?;
            let Some(Mark { state: State::Released, metadata_location: Some(kept), .. }) = mark else {
                return Err(Error::retryable(format!("what was kept of {} is gone", port.what)));
            };
            self.kept_metadata(port, &kept).await?;
            self.catalog.register(&port.ident(), kept).await?;
        }
        self.set_mark(port, self.mark(port)).await
    }

    async fn add_column(&self, port: &Port, contract: &Contract, path: &str) -> Result<()> {
        let table = self.planned(port).await?;
        if table.metadata().current_schema().field_by_name(path).is_some() {
            return Ok(());
        }
        let field = contract.wanted.schema.field_by_name(path);
        let field = field.ok_or_else(|| Error::permanent(format!("the contract has no column `{path}`")))?;
        let column = new_column(path, field);
        self.catalog.commit(&table, |tx| tx.update_schema().add_column(column).apply(tx)).await
    }

    async fn drop_column(&self, port: &Port, path: &str) -> Result<()> {
        let table = self.planned(port).await?;
        if table.metadata().current_schema().field_by_name(path).is_none() {
            return Ok(());
        }
        self.catalog.commit(&table, |tx| tx.update_schema().delete_column(path).apply(tx)).await
    }

    async fn set_properties(&self, work: &Work, port: &Port, contract: &Contract) -> Result<()> {
        let table = self.planned(port).await?;
        let wanted = properties::wanted(work, &contract.wanted, table.metadata().current_schema());
        let difference = properties::difference(table.metadata().properties(), &wanted);
        if difference.is_empty() {
            return Ok(());
        }
        self.catalog
            .commit(&table, |tx| {
                let update = tx.update_table_properties();
                let update =
                    difference.set.into_iter().fold(update, |update, (key, value)| update.set(key, value));
                difference.remove.into_iter().fold(update, |update, key| update.remove(key)).apply(tx)
            })
            .await
    }

    async fn record_access(&self, work: &Work, port: &Port, step: &Step) -> Result<()> {
        let table = self.planned(port).await?;
        let recorded = properties::access(table.metadata().properties())?;
        let Some(next) = access::after(&recorded, step, work.access.as_ref()) else { return Ok(()) };
        self.catalog
            .commit(&table, |tx| {
                let update = tx
                    .update_table_properties()
                    .set(ACCESS_REFS.to_owned(), properties::refs_text(&access::names(&next.refs)));
                let update = if next.fields.is_empty() {
                    update.remove(ACCESS_FIELDS.to_owned())
                } else {
                    update.set(ACCESS_FIELDS.to_owned(), json!(next.fields).to_string())
                };
                update.apply(tx)
            })
            .await
    }

    async fn load(&self, work: &Work, port: &Port, contract: &Contract, context: &Context) -> Result<()> {
        let table = self.planned(port).await?;
        if table.metadata().current_snapshot().is_some() {
            return Ok(());
        }
        // Use the schema of the table and not of the contract: the columns may have another order, and the data
        // file needs the table's field ids.
        let schema = table.metadata().current_schema();
        if work.component.sample_data.is_none() {
            return Ok(());
        }
        let (component, own) = (Arc::clone(&work.component), Arc::clone(schema));
        let columns = contract.wanted.columns.clone();
        let batch = blocking(move |cancellation| {
            let sample =
                component.sample_data.as_ref().ok_or_else(|| Error::permanent("there are no sample rows"))?;
            let rows = sample::read(sample, &own, &columns).map_err(Error::invalid)?;
            cancellation.check()?;
            sample::batch(&rows, &own)
        })
        .await?;
        let rows = batch.num_rows();
        let what = format!("write the sample rows of {}", port.what);
        let locations = DefaultLocationGenerator::new(table.metadata()).map_err(|e| failed(&what, e))?;
        let names = DefaultFileNameGenerator::new(
            format!("sample-{}", uuid::Uuid::new_v4()),
            None,
            DataFileFormat::Parquet,
        );
        let parquet = ParquetWriterBuilder::new(WriterProperties::default(), schema.clone());
        let rolling = RollingFileWriterBuilder::new_with_default_file_size(
            parquet,
            table.file_io().clone(),
            locations,
            names,
        );
        let mut writer =
            DataFileWriterBuilder::new(rolling).build(None).await.map_err(|e| failed(&what, e))?;
        writer.write(batch).await.map_err(|e| failed(&what, e))?;
        let files = writer.close().await.map_err(|e| failed(&what, e))?;
        context.check_cancelled()?;
        self.catalog
            .commit(&table, |tx| {
                tx.fast_append()
                    .set_snapshot_properties(HashMap::from([(
                        "landfall.sample-data".to_owned(),
                        "true".to_owned(),
                    )]))
                    .add_data_files(files)
                    .apply(tx)
            })
            .await?;
        context.journal.info(format!("loaded {rows} sample rows into {}", port.what));
        Ok(())
    }

    async fn release(&self, port: &Port) -> Result<()> {
        let Some(table) = self.own_table(port).await? else { return Ok(()) };
        self.at_its_place(&table, port)?;
        let mark = Mark {
            state: State::Released,
            metadata_location: table.metadata_location().map(str::to_owned),
            ..self.mark(port)
        };
        self.set_mark(port, mark).await?;
        self.catalog.deregister(&table).await
    }

    async fn purge(&self, port: &Port) -> Result<()> {
        if let Some(table) = self.own_table(port).await? {
            self.at_its_place(&table, port)?;
            self.set_mark(port, Mark { state: State::Purging, ..self.mark(port) }).await?;
            self.catalog.deregister(&table).await?;
        }
        self.own_mark(self.directory(port).await?, port)?;
        let (path, owner, what) = (self.table_place(port), port.owner.clone(), port.what.clone());
        // Drop the namespace with its last table, while something is left that causes a retry.
        self.catalog.drop_empty_namespace(&port.namespace_ident()).await?;
        let namespace = self.tables.join(&port.namespace);
        blocking(move |cancellation| {
            marked::purge(&path, &owner, &what, cancellation)?;
            remove_if_empty(&namespace);
            Ok(())
        })
        .await
    }

    pub(super) async fn describe_table(&self, output: &Output) -> Result<Info> {
        let port = &output.port;
        let Some(table) = self.own_table(port).await? else { return Ok(Info::default()) };
        let metadata = table.metadata();
        let rows = metadata
            .current_snapshot()
            .and_then(|snapshot| snapshot.summary().additional_properties.get("total-records").cloned())
            .unwrap_or_else(|| "0".to_owned());
        let columns = metadata.current_schema().as_struct().fields().len();
        let info = Info::default()
            .text("tableName", "Table", format!("{}.{}", port.namespace, port.name))
            .text("location", "Location", metadata.location())
            .text("format", "Format", "Iceberg")
            .text("rowCount", "Rows", rows)
            .text("columnCount", "Columns", columns)
            .private("target", &self.target)
            .private("catalog", CATALOG_NAME)
            .private("catalogUri", format!("sqlite:///{}", self.catalog_path))
            .private("namespace", &port.namespace)
            .private("table", &port.name)
            .private("tableUuid", metadata.uuid().to_string())
            .private("metadataLocation", table.metadata_location());
        let access = properties::access(metadata.properties())?;
        Ok(super::with_access(info, metadata.location(), &access, "Open"))
    }
}

/// Deletes the directory of the namespace with its last table, in the same piece of blocking work, because after that
/// nothing would cause a retry. A directory with content stays.
fn remove_if_empty(namespace: &Place) {
    if let Ok(tables) = namespace.parent().open() {
        let _ = tables.remove_directory(namespace.name());
    }
}

/// A plan of a provision under construction.
struct Planning<'a> {
    work: &'a Work,
    port: &'a Port,
    contract: &'a Contract,
    plan: Plan<Step>,
}

impl<'a> Planning<'a> {
    fn new(work: &'a Work, port: &'a Port, contract: &'a Contract) -> Self {
        let mut plan = Plan::default().with_notes(contract.wanted.notes.clone());
        if contract.load && contract.rows.is_none() {
            plan.notes
                .push("`specific.loadSampleData` is true, and there are no sample rows to load".to_owned());
        }
        Self { work, port, contract, plan }
    }

    fn push(&mut self, action: Action, summary: impl Into<String>, step: Step) {
        self.plan.changes.push(change(action, &self.port.what, summary, step));
    }

    fn create(&mut self) {
        let fields = self.contract.wanted.schema.as_struct().fields();
        let columns: Vec<_> = fields.iter().map(|field| column_text(field)).collect();
        self.push(Action::Create, format!("create the table with {}", columns.join(", ")), Step::Create);
        self.load();
        self.reconcile(&access::none());
    }

    /// Plans from an existing table, in the catalog or released, to the contract.
    fn converge(&mut self, metadata: &TableMetadata) -> Result<()> {
        let (schema, wanted): (&Schema, _) = (metadata.current_schema(), &self.contract.wanted);
        let evolution = evolution::evolve(schema, wanted, self.contract.may_drop).map_err(Error::invalid)?;
        let in_use = evolution::in_use(metadata, &evolution.drop);
        if !in_use.is_empty() {
            return Err(Error::invalid(in_use));
        }
        for path in evolution.add {
            let field_type =
                wanted.schema.field_by_name(&path).map(|field| types::readable(&field.field_type));
            let summary = format!("add column `{path}` {}", field_type.unwrap_or_default());
            self.push(Action::Alter, summary, Step::AddColumn { path });
        }
        for path in evolution.drop {
            let summary = format!("drop column `{path}`; its values stay in earlier snapshots");
            self.push(Action::Alter, summary, Step::DropColumn { path });
        }
        self.plan.notes.extend(evolution.notes);
        let wanted: BTreeMap<_, _> = properties::wanted(self.work, wanted, schema);
        let difference = properties::difference(metadata.properties(), &wanted);
        if !difference.is_empty() {
            let keys: Vec<_> = difference.keys().iter().map(|key| format!("`{key}`")).collect();
            self.push(Action::Alter, format!("update the properties {}", keys.join(", ")), Step::Properties);
        }
        if metadata.current_snapshot().is_none() {
            self.load();
        }
        // Without a requested list, the recorded one stays.
        if self.work.access.is_some() {
            self.reconcile(&properties::access(metadata.properties())?);
        }
        Ok(())
    }

    fn load(&mut self) {
        if let Some(rows) = &self.contract.rows {
            self.push(Action::Load, format!("load {} sample rows", rows.len()), Step::Load);
        }
    }

    fn reconcile(&mut self, recorded: &landfall_adapter::AccessList) {
        if let Some(wanted) = &self.work.access {
            self.plan.changes.extend::<Vec<Change<Step>>>(access::changes(recorded, wanted, &self.port.what));
        }
    }
}

fn column_text(field: &NestedField) -> String {
    let required = if field.required { " required" } else { "" };
    format!("`{}` {}{required}", field.name, types::readable(&field.field_type))
}

/// An optional column for `update_schema`, below its parent.
fn new_column(path: &str, field: &NestedField) -> AddColumn {
    let column = AddColumn::builder().name(&field.name).field_type((*field.field_type).clone());
    let parent = path.rsplit_once('.').map(|(parent, _)| parent);
    // Each call of the builder changes its type, so the four cases are written out.
    match (parent, field.doc.as_deref()) {
        (None, None) => column.build(),
        (None, Some(doc)) => column.doc(doc).build(),
        (Some(parent), None) => column.parent(parent).build(),
        (Some(parent), Some(doc)) => column.parent(parent).doc(doc).build(),
    }
}

/// Adds to a refusal of a kept table that an unprovision with its data removes it.
fn kept_differs(error: Error, port: &Port) -> Error {
    match error.kind() {
        landfall_adapter::error::Kind::Invalid(problems) => Error::invalid(
            problems
                .iter()
                .cloned()
                .map(|mut problem| {
                    let remedy = problem.remedy.take().unwrap_or_default();
                    problem.remedy(format!(
                        "{remedy}; the data of {} was kept by an earlier unprovision, and unprovisioning with its data removes it",
                        port.what
                    ))
                })
                .collect(),
        ),
        _ => error,
    }
}
