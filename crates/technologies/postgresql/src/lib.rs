//! The PostgreSQL technology. A storage area is a schema or a database. An output port is a table or a view. PostgreSQL
//! enforces read access.
//!
//! Guarantees:
//! - Ownership is recorded in the database: the comment of every role, schema, table and view contains a mark
//!   (`mark.rs`). Landfall never adopts, alters or drops an object without its own mark.
//! - Every change is one transaction under the component's advisory lock. The transaction observes the database again
//!   and derives the remaining changes again (`desired.rs`) before it executes any statement. After a crash, either
//!   the whole change is there or none of it.
//! - A component has an owners' role, which owns its objects, and a readers' role, which may read them. Both are
//!   NOLOGIN roles. A principal gets access as a member of the readers' role (`people.rs`). Landfall is a member of
//!   the owners' role only for the duration of a change (`membership.rs`).
//! - Landfall never becomes the owner of objects that the component's roles own, because functions and views run with
//!   the rights of their owner (`removal.rs`). Statements that may call functions of the owners run with the rights
//!   of the owners' role (`guard.rs`).
//! - Landfall never uses DROP ... CASCADE. It refuses a breaking change of columns and reports what would be lost
//!   (`evolution.rs`). It keeps objects that belong to others (`removal.rs`).
//! - All external names and texts are quoted in `sql.rs` before they enter a statement. The types are generated here
//!   (`types.rs`).
//! - A cancellation cancels the running statement on the server, and every wait has a deadline (`session.rs`).
//!
//! Landfall is not a superuser here. The role of the target has CREATEROLE and either owns the database or may create
//! in it. crates/technologies/postgresql/README.md has the statements that create this role.
//!
//! | step | in one transaction | after a crash |
//! |---|---|---|
//! | create, drop database | not transactional: first the owners' role, last the mark | the owner of the database identifies its component |
//! | prepare | roles, schema, marks, ownership | no change |
//! | create table, view | the relation, its comments and mark, its owner | no change |
//! | each change of a column | one ALTER TABLE | the column is unchanged |
//! | revoke, grant | all removed members, all new members | the members are unchanged |
//! | release, purge | grants, roles, objects, the mark of kept objects | no change |

mod columns;
mod desired;
mod driver;
mod evolution;
mod guard;
mod mark;
mod membership;
mod naming;
mod observe;
mod people;
mod possessions;
#[cfg(test)]
#[path = "../../../../tests/support/postgres.rs"]
mod postgres_server;
mod removal;
mod reverse;
mod server;
mod session;
mod sources;
mod sql;
mod sqlstate;
#[cfg(test)]
mod tests;
mod types;
mod view;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::runtime::Handle;

use desired::{Contract, Place, Shape, Standing, Step};
pub use driver::{PostgresqlDriver, Settings};
use landfall_adapter::Secret;
use landfall_adapter::access::Directory;
use landfall_adapter::descriptor::{
    Column, Component, ComponentKind, Identifier, Problem, SpecificReader, names,
};
use landfall_adapter::error::{Error, Kind, Result};
use landfall_adapter::{
    AccessMode, Bound, Capabilities, Change, Context, Found, Import, ImportParams, Imported, Info, Intent,
    Kinds, Plan, Running, Technology, Work,
};
use membership::MembershipGrant;
use observe::{Database, Question, Seen};
use people::People;
use server::{Login, Server};
use session::{Pool, PoolSettings, Session};
use sql::{dotted, ident};
use view::View;

/// The settings of a target, which is one database.
#[derive(Debug, Clone)]
pub struct PostgresqlSettings {
    /// Code of the configured target, for messages.
    pub target: String,
    /// `postgres://USER:PASSWORD@HOST/DATABASE?sslmode=verify-full`.
    pub url: Secret,
    /// Maximum number of concurrent sessions.
    pub connections: u32,
    /// Maximum time to open a session, and to wait for a response to a connection check.
    pub connect_timeout: Duration,
    /// Maximum duration of a statement.
    pub statement_timeout: Duration,
    /// Maximum time to wait for a lock that another session holds.
    pub lock_timeout: Duration,
    /// Maximum duration of a query that reads rows. Such a query may call functions of the owners.
    pub count_timeout: Duration,
    /// Maps refs to role names.
    pub directory: Directory,
}

/// One database of a PostgreSQL server. It opens the first connection on first use. Clones share the connections.
#[derive(Clone)]
pub struct Postgresql(Arc<Site>);

/// A component of a database, and the intent of the operation.
pub struct Resource {
    site: Arc<Site>,
    work: Work,
    intent: Intent,
    read: Read,
}

/// The database of a target, and the databases of its storage areas.
struct Site {
    settings: PostgresqlSettings,
    login: Result<Login, String>,
    /// `None` if the URL is not valid.
    server: Option<Arc<Server>>,
    home: Option<Handle>,
    /// One pool for each database: the database of the URL, and the own databases of storage areas.
    pools: Mutex<BTreeMap<String, Pool>>,
}

/// The parsed descriptor of a component, before anything is read from the database.
struct Read {
    place: Place,
    /// Only for provisioning.
    contract: Option<Contract>,
    question: Question,
    /// Whether the intent is unprovision.
    removal: bool,
    count_timeout: Duration,
}

impl Postgresql {
    /// Creates a target without a connection. Its connections run on the runtime that calls this function, if there is
    /// one.
    pub fn new(settings: PostgresqlSettings) -> Self {
        let login = Login::parse(settings.url.expose());
        let server = login.as_ref().ok().map(|login| {
            let url = settings.url.clone();
            Arc::new(Server::new(&settings.target, url, login.clone(), settings.connect_timeout))
        });
        let home = Handle::try_current().ok();
        Self(Arc::new(Site { login, server, home, pools: Mutex::default(), settings }))
    }
}

impl Site {
    fn login(&self) -> Result<&Login> {
        self.login.as_ref().map_err(|fault| {
            Error::permanent(format!("the URL of target `{}` {fault}", self.settings.target))
        })
    }

    /// Borrows a session with the database of the URL.
    async fn session(&self, context: &Context) -> Result<Session> {
        self.session_with(&self.login()?.database, context).await
    }

    async fn session_with(&self, database: &str, context: &Context) -> Result<Session> {
        let login = self.login()?;
        let Some(server) = &self.server else { return Err(Error::permanent("the URL cannot be read")) };
        let pool = {
            let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
            let make = || {
                let settings = PoolSettings {
                    server: Arc::clone(server),
                    database: database.to_owned(),
                    connections: self.settings.connections,
                    // Only the database of the URL keeps idle sessions: a server has too few connections for
                    // idle sessions with every database.
                    rest: database == login.database,
                    statement_timeout: self.settings.statement_timeout,
                    lock_timeout: self.settings.lock_timeout,
                };
                Pool::new(settings, self.home.clone().unwrap_or_else(Handle::current))
            };
            pools.entry(database.to_owned()).or_insert_with(make).clone()
        };
        pool.session(context).await
    }

    /// Observes a component in READ ONLY transactions.
    async fn look(&self, read: &Read, people: &People, context: &Context) -> Result<Seen> {
        let (session, database) = self.place_of(read, context).await?;
        let done = session.within(context, looked(&session, read, people, database)).await;
        session.give_back(done)
    }

    /// Returns a session with the component's database and, if the component has its own database, what was
    /// observed of that one. If the own database does not exist or is broken, the session is with the database
    /// of the URL.
    async fn place_of(&self, read: &Read, context: &Context) -> Result<(Session, Option<Database>)> {
        let session = self.session(context).await?;
        if !read.place.own_database {
            return Ok((session, None));
        }
        let found = session.within(context, observe::database(&session, &read.place.database)).await;
        let Some(database) = found? else { return Ok((session, None)) };
        if database.broken {
            return Ok((session, Some(database)));
        }
        session.give_back(Ok(()))?;
        Ok((self.session_with(&read.place.database, context).await?, Some(database)))
    }

    /// Parses the descriptor of a component, or returns all problems at once. Intents other than provisioning
    /// need only the names of the objects.
    fn read(&self, work: &Work, intent: Intent) -> Result<Read, Vec<Problem>> {
        let database = self.login.as_ref().map_or("", |login| &login.database);
        let mut specific = SpecificReader::new(&work.component.specific);
        let storage = work.component.kind == ComponentKind::Storage;
        let place = place(work, database, &mut specific);
        let count_timeout = self.settings.count_timeout;
        if intent != Intent::Provision {
            let removal = matches!(intent, Intent::Unprovision { .. });
            return match place {
                Some(place) => Ok(Read {
                    question: question(&place, None),
                    contract: None,
                    place,
                    removal,
                    count_timeout,
                }),
                None => Err(specific.finish()),
            };
        }
        let mut problems = Vec::new();
        let contract = if storage {
            storage_contract(work, &mut specific, &mut problems).map(|contract| (contract, true))
        } else {
            port_contract(work, place.as_ref(), &mut specific, &mut problems)
        };
        if let Some((Contract { shape: Shape::View(view), .. }, listed)) = &contract {
            problems.extend(sources::check(work, database, view, *listed));
        }
        let contract = contract.map(|(contract, _)| contract);
        let mut all = specific.finish();
        all.extend(names::in_specific(&work.component.specific, &["schema", "name", "database"]));
        all.extend(problems);
        match (place, contract) {
            (Some(place), Some(contract)) if all.is_empty() => Ok(Read {
                question: question(&place, Some(&contract)),
                contract: Some(contract),
                place,
                removal: false,
                count_timeout,
            }),
            _ => Err(all),
        }
    }
}

impl Read {
    /// The same component without a contract.
    fn names_only(&self) -> Self {
        let place = self.place.clone();
        let question = question(&place, None);
        Self { question, contract: None, place, removal: false, count_timeout: self.count_timeout }
    }
}

/// Observes the component in the current transaction.
async fn observed(
    session: &Session,
    read: &Read,
    people: &People,
    database: Option<Database>,
) -> Result<Seen> {
    let mut question = Question { principals: people.names(), ..read.question.clone() };
    if read.place.own_database && database.as_ref().is_none_or(|database| database.broken) {
        // This session is with another database, in which a schema of the same name does not belong to the
        // component.
        question.schema = String::new();
    }
    let mut seen = observe::observe(session, &question).await?;
    if read.removal {
        let own_database = read.place.own_database && database.is_some();
        seen.possessions = possessions::possessions(session, &read.place, own_database).await?;
    }
    seen.database = database;
    read.place.standing(&seen)?;
    Ok(seen)
}

/// Observes the component in a READ ONLY transaction. Then it collects the facts about rows that provisioning needs.
async fn looked(session: &Session, read: &Read, people: &People, database: Option<Database>) -> Result<Seen> {
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let mut seen = observed(session, read, people, database).await?;
    session.execute("COMMIT").await?;
    let asked: Vec<(observe::Probe, &observe::Relation)> = probes(read, &seen)
        .into_iter()
        .filter_map(|probe| seen.relation(probe.table()).map(|relation| (probe, relation)))
        .collect();
    if !asked.is_empty() {
        let queries: Vec<_> =
            asked.iter().map(|(probe, relation)| (*relation, probe.query(&read.place.schema))).collect();
        // `true`: rows that a row security policy hides must count, too.
        let answers = guard::answers(session, &read.place, &seen, &queries, true, read.count_timeout).await?;
        let counted =
            |answer: Option<String>| answer.and_then(|count| count.parse().ok()).unwrap_or_default();
        let facts =
            asked.iter().zip(answers).map(|((probe, _), answer)| (probe.clone(), answer.map(counted)));
        seen.facts = facts.collect();
    }
    Ok(seen)
}

/// The facts about rows that the contract depends on.
fn probes(read: &Read, seen: &Seen) -> Vec<observe::Probe> {
    let tables = match read.contract.as_ref().map(|contract| &contract.shape) {
        Some(Shape::Storage(tables)) => tables.as_slice(),
        Some(Shape::Table(table)) => std::slice::from_ref(table),
        Some(Shape::View(_)) | None => &[],
    };
    let own = |table: &&columns::Table| {
        seen.relation(&table.name).is_some_and(|relation| read.place.own(relation).is_ok())
    };
    tables.iter().filter(own).flat_map(|table| evolution::probes(table, seen)).collect()
}

fn question(place: &Place, contract: Option<&Contract>) -> Question {
    let listed = match contract.map(|contract| &contract.shape) {
        Some(Shape::Storage(tables)) => tables.iter().map(|table| table.name.clone()).collect(),
        _ => Vec::new(),
    };
    Question {
        schema: place.schema.clone(),
        relations: place.relation.iter().cloned().chain(listed).collect(),
        whole: place.relation.is_none(),
        views: contract.is_some_and(|contract| !matches!(contract.shape, Shape::View(_))),
        owner_role: place.owner_role.clone(),
        reader_role: place.reader_role.clone(),
        source: match contract.map(|contract| &contract.shape) {
            Some(Shape::View(view)) => Some(view.source.clone()),
            _ => None,
        },
        principals: Vec::new(),
    }
}

/// The names of the objects of a component.
struct Names {
    /// Only for a storage area with its own database.
    database: Option<String>,
    schema: String,
    /// Only for an output port.
    relation: Option<String>,
}

/// Returns the names in `specific`, or else names derived from the identity of the storage area or output port.
fn names_of(
    product: &Identifier,
    component: &Component,
    environment: &str,
    specific: &mut SpecificReader<'_>,
) -> Option<Names> {
    let id = &component.id;
    if component.kind != ComponentKind::Storage {
        let default = naming::product_schema(product, environment);
        let schema = named(specific, "schema", naming::schema_problem, default);
        let default = naming::relation(product, id);
        let relation = named(specific, "name", naming::problem, default);
        return Some(Names { database: None, schema: schema?, relation: Some(relation?) });
    }
    // Read both keys in any case, because a key that is never read is reported as unknown.
    let _ = (specific.value("schema"), specific.value("database"));
    let mut database = None;
    if level(specific)? == "database" {
        let default = naming::storage_database(id, environment);
        database = Some(named(specific, "database", naming::database_problem, default)?);
    } else if specific.value("database").is_some() {
        let remedy = "remove it, or write `level: database`";
        specific.problem("database", "a schema is in the database of the target", remedy);
    }
    let default = naming::storage_schema(id, environment);
    let schema = named(specific, "schema", naming::schema_problem, default)?;
    Some(Names { database, schema, relation: None })
}

/// Returns the location of the component.
fn place(work: &Work, database: &str, specific: &mut SpecificReader<'_>) -> Option<Place> {
    let (product, component, environment) = (&work.product.id, &work.component.id, &work.environment);
    let Names { database: own_database, schema, relation } =
        names_of(product, &work.component, environment, specific)?;
    let own = own_database.is_some();
    if own_database.as_deref() == Some(database) {
        specific.problem("database", "this is the database of the target", "choose another name");
        return None;
    }
    let database = own_database.as_deref().unwrap_or(database);
    let what = match &relation {
        None if own => format!("database `{database}`"),
        None => format!("schema `{schema}`"),
        Some(name) => format!("`{schema}.{name}`"),
    };
    Some(Place {
        owner: work.owner(),
        product: product.clone(),
        component: component.clone(),
        database: database.to_owned(),
        own_database: own,
        waits: !work.component.depends_on.is_empty(),
        owner_role: naming::role(database, component, environment, "owner"),
        reader_role: naming::role(database, component, environment, "reader"),
        schema,
        relation,
        what,
    })
}

/// Returns the `level` of a storage area, or `None` if the value is not valid.
fn level(specific: &mut SpecificReader<'_>) -> Option<&'static str> {
    match specific.value("level") {
        None => Some("schema"),
        Some(_) => specific.one_of("level", &["schema", "database"]),
    }
}

/// Returns a name from `specific`, or the default.
fn named(
    specific: &mut SpecificReader<'_>,
    key: &'static str,
    fault: fn(&str) -> Option<&'static str>,
    default: String,
) -> Option<String> {
    if specific.value(key).is_none() {
        return Some(default);
    }
    let name = specific.string(key)?;
    match fault(name) {
        None => Some(name.to_owned()),
        Some(fault) => {
            specific.problem(key, fault, "choose another name, or leave it out to have one derived");
            None
        }
    }
}

fn storage_contract(
    work: &Work,
    specific: &mut SpecificReader<'_>,
    problems: &mut Vec<Problem>,
) -> Option<Contract> {
    let repair = specific.boolean("repair").unwrap_or(false);
    let tables = columns::tables(specific.value("tables"), problems);
    Some(Contract {
        notes: Vec::new(),
        shape: Shape::Storage(tables),
        description: work.component.description.clone(),
        tags: desired::tags(&work.component.tags),
        repair,
    })
}

/// Returns the contract of an output port, and `specific.source.listed`: whether the storage area must list the
/// source of a view.
fn port_contract(
    work: &Work,
    place: Option<&Place>,
    specific: &mut SpecificReader<'_>,
    problems: &mut Vec<Problem>,
) -> Option<(Contract, bool)> {
    const SCHEMA: &str = "dataContract.schema";
    let component = &work.component;
    let name = place.and_then(|place| place.relation.clone()).unwrap_or_default();
    let declared: &[Column] = component.data_contract.as_ref().map_or(&[], |contract| &contract.schema);
    problems.extend(component.faults.contract.iter().cloned());
    let columns = columns::wanted(declared, SCHEMA, |index, _| format!("{SCHEMA}[{index}]"), problems);
    let mut notes: Vec<String> = declared.iter().filter_map(|column| types::note(column, &name)).collect();
    notes.extend(component.data_contract.iter().flat_map(|contract| contract.notes.iter().cloned()));
    let repair = specific.boolean("repair").unwrap_or(false);
    statistics(specific, declared);
    let (source, listed) = source(specific).unzip();
    let kind = specific.one_of("kind", &["table", "view"]);
    let from = sources(specific, declared);
    let may_drop = specific.boolean("allowDropColumns");
    let renames = columns::renames(specific);
    let is_view = kind.map_or(source.is_some(), |kind| kind == "view");
    let shape = if is_view {
        for (key, given) in [("allowDropColumns", may_drop.is_some()), ("renameColumns", !renames.is_empty())]
        {
            if given {
                specific.problem(key, format!("a view has no use for `{key}`"), "remove it");
            }
        }
        if source.is_none() && specific.value("source").is_none() {
            specific.problem("source", "a view needs a source", "write `source: {schema: ..., name: ...}`");
        }
        let columns = columns
            .into_iter()
            .map(|column| {
                let source =
                    from.iter().find(|(name, _)| *name == column.name).map(|(_, source)| source.clone());
                (source.unwrap_or_else(|| column.name.clone()), column)
            })
            .collect();
        Shape::View(View { name, source: source?, columns })
    } else {
        for key in ["source", "columns"] {
            if specific.value(key).is_some() {
                specific.problem(
                    key,
                    format!("a table has no use for `{key}`"),
                    "remove it, or write `kind: view`",
                );
            }
        }
        Shape::Table(columns::Table {
            name,
            description: component.description.clone(),
            tags: desired::tags(&component.tags),
            columns,
            place: SCHEMA.to_owned(),
            renames,
            may_drop: may_drop.unwrap_or(false),
            // The notes are in the contract.
            notes: Vec::new(),
        })
    };
    let contract = Contract {
        shape,
        description: component.description.clone(),
        tags: desired::tags(&component.tags),
        repair,
        notes,
    };
    Some((contract, listed.unwrap_or(true)))
}

/// Reads `rowCount` and `freshness`: the statistics about rows that the info includes.
fn statistics<'a>(specific: &mut SpecificReader<'a>, declared: &[Column]) -> (bool, Option<&'a str>) {
    let count = specific.boolean("rowCount").unwrap_or(false);
    let column = specific.string("freshness");
    if column.is_some_and(|name| !declared.iter().any(|column| column.name == name)) {
        specific.problem(
            "freshness",
            "the data contract has no such column",
            "name a column with a time in it",
        );
        return (count, None);
    }
    (count, column)
}

/// Reads `source: {schema, name}` as (schema, name), and `source.listed`.
fn source(specific: &mut SpecificReader<'_>) -> Option<((String, String), bool)> {
    let mut nested = specific.object("source")?;
    let listed = nested.boolean("listed").unwrap_or(true);
    let mut name = |key: &'static str| {
        let name = nested.required_string(key)?;
        match naming::problem(name) {
            None => Some(name.to_owned()),
            Some(fault) => {
                nested.problem(key, fault, "write the name as it is in PostgreSQL");
                None
            }
        }
    };
    let (schema, name) = (name("schema"), name("name"));
    specific.absorb(nested);
    Some(((schema?, name?), listed))
}

/// Reads `columns: {column of the port: column of the source}`.
fn sources(specific: &mut SpecificReader<'_>, declared: &[Column]) -> Vec<(String, String)> {
    let Some(value) = specific.value("columns") else { return Vec::new() };
    let remedy = "write `column: column of the source` for those whose names differ";
    let Value::Object(pairs) = value else {
        specific.problem("columns", "`columns` is not a mapping", remedy);
        return Vec::new();
    };
    let mut read = Vec::new();
    for (name, from) in pairs {
        match from.as_str() {
            Some(from) if naming::problem(from).is_none() && declared.iter().any(|c| c.name == *name) => {
                read.push((name.clone(), from.to_owned()));
            }
            _ => specific.problem(
                "columns",
                format!("`{name}` is no column of the contract, or not mapped to a name"),
                remedy,
            ),
        }
    }
    read
}

#[async_trait]
impl Technology for Postgresql {
    type Bound = Resource;

    fn name(&self) -> &str {
        "postgresql"
    }

    fn capabilities(&self) -> Capabilities {
        let kinds = Kinds::Only(vec![ComponentKind::Storage, ComponentKind::OutputPort]);
        Capabilities::new(kinds).access(AccessMode::Enforced).with_import()
    }

    fn bind(&self, work: Work, intent: Intent) -> Result<Resource, Vec<Problem>> {
        if !matches!(work.component.kind, ComponentKind::Storage | ComponentKind::OutputPort) {
            return Err(vec![wrong_kind()]);
        }
        let read = self.0.read(&work, intent)?;
        Ok(Resource { site: Arc::clone(&self.0), work, intent, read })
    }

    fn check_import(&self, params: &mut ImportParams<'_>) {
        let database = self.0.login.as_ref().ok().map(|login| login.database.as_str());
        reverse::Asked::read(params, database);
    }

    async fn reverse(&self, import: &Import, context: &Context) -> Result<Imported> {
        context.check_cancelled()?;
        let mut params = import.params();
        let asked = reverse::Asked::read(&mut params, Some(&self.0.login()?.database));
        let problems = params.finish().problems;
        let Some(asked) = asked.filter(|_| problems.is_empty()) else {
            return Err(Error::invalid(problems));
        };
        let session = self.0.session(context).await?;
        let done = session.within(context, reverse::read_back(&session, &asked, context)).await;
        session.give_back(done)
    }
}

#[async_trait]
impl Bound for Resource {
    type Step = Step;

    async fn find(&self, context: &Context) -> Result<Found> {
        context.check_cancelled()?;
        let seen = self.site.look(&self.read, &People::default(), context).await?;
        let place = &self.read.place;
        Ok(match place.standing(&seen)? {
            Standing::Absent => Found::Nothing,
            Standing::Active => Found::Provisioned(vec![place.what.clone()]),
            Standing::Released => Found::Kept(vec![place.what.clone()]),
        })
    }

    async fn plan(&self, context: &Context) -> Result<Plan<Step>> {
        context.check_cancelled()?;
        let (site, read) = (&self.site, &self.read);
        let people = People::look_up(&self.work, &site.settings.directory, &context.lookups).await?;
        let seen = site.look(read, &people, context).await?;
        let left = desired::pieces(&read.place, read.contract.as_ref(), &seen, &people, self.intent, false)?;
        let changes = left
            .pieces
            .into_iter()
            .map(|piece| {
                let drops_values = matches!(piece.step, Step::DropColumn { .. });
                let change = Change::new(piece.action, piece.resource, piece.summary, piece.step);
                if drops_values { change.destructive() } else { change }
            })
            .collect();
        Ok(Plan::new(changes).with_notes(left.notes).with_unmet(left.unmet))
    }

    async fn apply(&self, step: &Step, context: &Running) -> Result<()> {
        context.check_cancelled()?;
        let (site, read) = (&self.site, &self.read);
        let people = People::look_up(&self.work, &site.settings.directory, &context.lookups).await?;
        if matches!(step, Step::CreateDatabase | Step::DropDatabase) {
            return site.apply_to_database(read, &people, self.intent, step, context).await;
        }
        let (session, database) = site.place_of(read, context).await?;
        let applying = applied(&session, read, &people, self.intent, step, (context, database));
        let done = session.within(context, applying).await;
        session.give_back(done)
    }

    async fn describe(&self, context: &Context) -> Result<Info> {
        context.check_cancelled()?;
        // The info describes the observed state, not the contract.
        let (site, read) = (&self.site, self.read.names_only());
        let seen = site.look(&read, &People::default(), context).await?;
        if read.place.standing(&seen)? != Standing::Active {
            return Ok(Info::default());
        }
        let mut info = site.info(&read.place, &seen);
        site.add_statistics(&self.work, &read.place, &seen, &mut info, context).await?;
        Ok(info)
    }
}

/// Applies one change in one transaction. The transaction observes the database and derives the remaining changes
/// again.
async fn applied(
    session: &Session,
    read: &Read,
    people: &People,
    intent: Intent,
    step: &Step,
    (context, database): (&Context, Option<Database>),
) -> Result<()> {
    let (place, contract) = (&read.place, read.contract.as_ref());
    // The facts about rows were read before this transaction. They decide only about refusals; PostgreSQL
    // itself checks the rows again.
    let mut before = match step {
        Step::ChangeType { .. } => Some(looked(session, read, people, database.clone()).await?),
        _ => None,
    };
    let (mut membership, mut seen) = loop {
        begin(session, place).await?;
        if let Some(lock) = membership::product_lock(place, before.as_ref(), step) {
            session.execute(&lock).await?;
            session.be_impatient().await?;
        }
        let mut membership = MembershipGrant::default();
        if let (Step::ChangeType { table, .. }, Some(before)) = (step, &before) {
            // From now on, no other session can add triggers, checks or indexes to the table.
            membership = MembershipGrant::of(place, contract, before, step);
            let mut sql = membership.granted(place, before);
            sql.push(format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", dotted(&place.schema, table)));
            session.execute(&sql.join("; ")).await?;
        }
        let seen = observed(session, read, people, database.clone()).await?;
        if before.is_some() || probes(read, &seen).is_empty() {
            break (membership, seen);
        }
        session.execute("ROLLBACK").await?;
        before = Some(looked(session, read, people, database.clone()).await?);
    };
    seen.facts = before.map(|seen| seen.facts).unwrap_or_default();
    let left = desired::pieces(place, contract, &seen, people, intent, true)?;
    if *step == Step::Grant && !left.unmet.is_empty() {
        return Err(Error::invalid(left.unmet));
    }
    let Some(piece) = left.pieces.iter().find(|piece| piece.step == *step) else {
        return session.execute("ROLLBACK").await;
    };
    membership.add(MembershipGrant::of(place, contract, &seen, step));
    session.execute(&membership.granted(place, &seen).join("; ")).await?;
    for statement in &piece.sql {
        if piece.as_owner.as_ref() == Some(statement) {
            guard::as_owner(session, place, statement).await?;
            continue;
        }
        let done = session.execute(statement).await;
        // The shared schema of output ports was empty when it was observed, but another output port was created
        // since then.
        let shared = place.relation.is_some() && statement.starts_with("DROP SCHEMA");
        done.map_err(|error| match error.kind() {
            Kind::Conflict if shared => Error::retryable(error.to_string()),
            _ => error,
        })?;
    }
    if let (Step::View, Some(contract)) = (step, &read.contract)
        && let Shape::View(view) = &contract.shape
    {
        let made = observed(session, read, people, database).await?;
        for statement in view::seal(place, view, contract, &made)? {
            session.execute(&statement).await?;
        }
    }
    session.execute(&membership.revoked().join("; ")).await?;
    context.check_cancelled()?;
    session.execute("COMMIT").await?;
    match piece.as_owner {
        Some(_) => session.renew().await,
        None => Ok(()),
    }
}

/// Begins a transaction and takes the component's lock.
async fn begin(session: &Session, place: &Place) -> Result<()> {
    session.execute("BEGIN").await?;
    let key = naming::lock_key(&place.owner.component, &place.owner.environment);
    session.text("SELECT pg_advisory_xact_lock($1)::text", &[&key]).await?;
    Ok(())
}

impl Site {
    /// Creates or drops the database. PostgreSQL does not do that in a transaction, so this function first decides
    /// under the component's lock and then executes the statements. The owners' role owns the new database from the
    /// start: its owner identifies the database until it has a mark.
    async fn apply_to_database(
        &self,
        read: &Read,
        people: &People,
        intent: Intent,
        step: &Step,
        context: &Context,
    ) -> Result<()> {
        let (session, database) = self.place_of(read, context).await?;
        let looking = async {
            begin(&session, &read.place).await?;
            let seen = observed(&session, read, people, database).await?;
            let left = desired::pieces(&read.place, read.contract.as_ref(), &seen, people, intent, true)?;
            if *step == Step::CreateDatabase {
                for statement in desired::owner_role(&read.place, &seen) {
                    session.execute(&statement).await?;
                }
            } else if !desired::is_broken(&seen) && left.pieces.iter().any(|piece| piece.step == Step::Purge)
            {
                return Err(Error::retryable(format!("{} is not empty yet", read.place.what)));
            }
            session.execute("COMMIT").await?;
            Ok(left.pieces.into_iter().find(|piece| piece.step == *step))
        };
        let done = session.within(context, looking).await;
        let Some(piece) = session.give_back(done)? else { return Ok(()) };
        if *step == Step::DropDatabase {
            let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
            pools.remove(&read.place.database);
        }
        let session = self.session(context).await?;
        let working = async {
            if *step == Step::DropDatabase {
                let others = "SELECT count(*)::text FROM pg_stat_activity \
                              WHERE datname::text = $1::text AND usename <> current_user";
                let count = session.text(others, &[&read.place.database]).await?.unwrap_or_default();
                if count != "0" {
                    return Err(Error::retryable(format!(
                        "{count} sessions of other roles with {} are open: they have to end first",
                        read.place.what
                    )));
                }
            }
            for statement in &piece.sql {
                context.check_cancelled()?;
                session.execute(statement).await?;
            }
            Ok(())
        };
        let done = session.within(context, working).await;
        session.give_back(done)
    }

    fn info(&self, place: &Place, seen: &Seen) -> Info {
        let Place { database, schema, .. } = place;
        let encoded: String = url::form_urlencoded::byte_serialize(schema.as_bytes()).collect();
        let info = Info::default()
            .text("address", "Address", format!("jdbc:postgresql:{database}?currentSchema={encoded}"))
            .text("database", "Database", database)
            .text("schema", "Schema", schema);
        let (info, command) = match &place.relation {
            Some(name) => {
                let relation = seen.relation(name);
                let kind =
                    if relation.is_some_and(|relation| relation.kind == 'v') { "View" } else { "Table" };
                let columns = relation.map_or(0, |relation| relation.columns.len());
                let info = info.text("object", kind, name).text("columnCount", "Columns", columns);
                (info, format!("SELECT * FROM {} LIMIT 10", dotted(schema, name)))
            }
            None => {
                let tables = seen.schema.as_ref().map_or(0, |schema| schema.relations.len());
                (info.text("tableCount", "Tables and views", tables), format!("\\dt {}.*", ident(schema)))
            }
        };
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
        let (readers, owners) = people::shown(seen);
        let info = info
            .text("psql", "psql", format!("psql -d {} -c {}", quoted(database), quoted(&command)))
            .text("access", "Access", "enforced")
            .private("target", &self.settings.target)
            .private("database", database)
            .private("schema", schema)
            .private("object", &place.relation)
            .private("ownerRole", &place.owner_role)
            .private("readerRole", &place.reader_role)
            .private("accessMode", "enforced")
            .private("readers", readers)
            .private("owners", owners);
        let reader = seen.reader.as_ref().and_then(|role| mark::Mark::in_comment(role.comment.as_deref()));
        match reader.map(|mark| mark.fields).filter(|fields| !fields.is_empty()) {
            Some(fields) => info.private("accessControlFields", fields),
            None => info,
        }
    }

    /// Adds the row count and the newest value to the info if `specific` asks for them. A query that exceeds the time
    /// limit adds nothing.
    async fn add_statistics(
        &self,
        work: &Work,
        place: &Place,
        seen: &Seen,
        info: &mut Info,
        context: &Context,
    ) -> Result<()> {
        let mut specific = SpecificReader::new(&work.component.specific);
        let declared: &[Column] =
            work.component.data_contract.as_ref().map_or(&[], |contract| &contract.schema);
        let (count, newest) = statistics(&mut specific, declared);
        let Some(relation) = place.relation.as_ref().and_then(|name| seen.relation(name)) else {
            return Ok(());
        };
        let name = dotted(&place.schema, &relation.name);
        let mut asked = Vec::new();
        if count {
            asked.push(("rowCount", "Rows", format!("SELECT count(*)::text FROM {name}")));
        }
        if let Some(column) = newest.filter(|column| relation.column(column).is_some()) {
            asked.push((
                "freshness",
                "Newest",
                format!("SELECT max(t.{})::text FROM {name} t", ident(column)),
            ));
        }
        if asked.is_empty() {
            return Ok(());
        }
        let session = self.session(context).await?;
        let queries: Vec<_> = asked.iter().map(|(_, _, sql)| (relation, sql.clone())).collect();
        let asking = guard::answers(&session, place, seen, &queries, false, self.settings.count_timeout);
        let done = session.within(context, asking).await;
        let answers = match session.give_back(done) {
            Ok(answers) => answers,
            Err(error) if *error.kind() == Kind::Cancelled => return Err(error),
            Err(error) => {
                log::warn!("the rows of {} were not counted: {}", place.what, error.report());
                asked.iter().map(|_| Err(session::Unknown::Failed)).collect()
            }
        };
        for ((key, label, _), answer) in asked.iter().zip(answers) {
            match answer {
                Ok(value) => {
                    let value = value.unwrap_or_else(|| "none".to_owned());
                    *info = std::mem::take(info).text(key, label, value);
                }
                Err(why) => {
                    context.journal.warn(format!("`{key}` of {} is not known: {}", place.what, why.why()));
                }
            }
        }
        Ok(())
    }
}

fn wrong_kind() -> Problem {
    Problem::new("kind", "PostgreSQL has storage areas and output ports")
        .remedy("use the kind `storage` or `outputport`, or route the component elsewhere")
}
