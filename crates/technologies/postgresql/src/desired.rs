//! Derives the changes from the observed state to the desired state. Pure functions.
//!
//! A [`Piece`] is one change with its statements. [`pieces`] returns all remaining changes, in order. It is called
//! for a plan, and again for each change that is applied, in the transaction of that change and under the component's
//! lock. A piece that the second call does not return is already done. This makes every change idempotent, and the
//! second call sees what has changed since the plan.
//!
//! This module finds every refusal before the first change, so no operation is refused half way. Landfall never uses
//! DROP ... CASCADE. An object of another owner is a conflict.

use std::collections::BTreeSet;

use super::columns::Table;
use super::mark::{self, Mark};
use super::observe::{Member, Relation, Role, Schema, Seen, has};
use super::people::{self, People};
use super::sql::{dotted, ident, literal};
use super::{evolution, membership, removal, view};
use landfall_adapter::descriptor::{Identifier, Problem};
use landfall_adapter::error::{Error, Result};
use landfall_adapter::{Action, Intent, Owner};

/// The identity and names of a component. An unprovision needs nothing else.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    pub(super) owner: Owner,
    pub(super) product: Identifier,
    pub(super) component: Identifier,
    pub(super) database: String,
    /// Whether the component depends on other components, which may create the source of its view.
    pub(super) waits: bool,
    /// Whether the component has its own database.
    pub(super) own_database: bool,
    pub(super) schema: String,
    /// The table or view of an output port. A storage area has its own schema instead; the output ports of a data
    /// product share one schema.
    pub(super) relation: Option<String>,
    pub(super) owner_role: String,
    pub(super) reader_role: String,
    /// The name in messages and plans: "schema `x`", "`x.y`".
    pub(super) what: String,
}

/// The desired state of a component.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Contract {
    pub(super) shape: Shape,
    pub(super) description: String,
    pub(super) tags: Vec<serde_json::Value>,
    /// Whether to revoke grants that other roles made (`specific.repair`).
    pub(super) repair: bool,
    pub(super) notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    /// A storage area with these tables. Its users may create more.
    Storage(Vec<Table>),
    /// An output port that is a table.
    Table(Table),
    /// An output port that is a view.
    View(view::View),
}

/// Identifies one change. Only this crate creates and reads it.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Create a storage area's own database. No transaction can contain this.
    CreateDatabase,
    DropDatabase,
    /// Create the roles and the schema.
    Prepare,
    Restore,
    CreateTable {
        table: String,
    },
    View,
    RenameColumn {
        table: String,
        from: String,
        to: String,
    },
    AddColumn {
        table: String,
        column: String,
    },
    DropColumn {
        table: String,
        column: String,
    },
    ChangeType {
        table: String,
        column: String,
    },
    Nullable {
        table: String,
        column: String,
    },
    PrimaryKey {
        table: String,
    },
    Unique {
        table: String,
        column: String,
    },
    Comments,
    Privileges,
    Owners,
    Repair,
    Revoke,
    /// Record the access control fields.
    Fields,
    Grant,
    Release,
    Purge,
}

/// One change, with the statements that make it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    pub(super) step: Step,
    pub(super) action: Action,
    pub(super) resource: String,
    pub(super) summary: String,
    pub(super) sql: Vec<String>,
    /// The statement of `sql` that may call functions of the owners. It runs with the owners' rights, not Landfall's.
    pub(super) as_owner: Option<String>,
}

/// The remaining changes.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Left {
    pub(super) pieces: Vec<Piece>,
    pub(super) notes: Vec<String>,
    /// The requested grants that are refused, with the reasons.
    pub(super) unmet: Vec<Problem>,
}

/// Whether the component exists, and whether an unprovision released it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Absent,
    Active,
    Released,
}

impl Place {
    pub(super) fn mark(&self) -> Mark {
        let id = self.owner.component.parse::<Identifier>();
        let told = id.is_ok_and(|id| id.belongs_to(&self.product));
        Mark { product: (!told).then(|| self.product.to_string()), ..Mark::of(&self.owner) }
    }

    /// The mark of the schema. The schema of output ports has the mark of their data product.
    pub(super) fn schema_mark(&self) -> Mark {
        match self.relation {
            None => self.mark(),
            Some(_) => Mark::of(&Owner {
                component: self.product.to_string(),
                environment: self.owner.environment.clone(),
            }),
        }
    }

    pub(super) fn role_mark(&self) -> Mark {
        Mark { database: Some(self.database.clone()), ..self.mark() }
    }

    /// Returns whether the component exists, or a conflict if an object of another owner has its name.
    pub(super) fn standing(&self, seen: &Seen) -> Result<Standing> {
        for (name, role) in [(&self.owner_role, &seen.owner), (&self.reader_role, &seen.reader)] {
            let Some(role) = role else { continue };
            match Mark::in_comment(role.comment.as_deref()) {
                Some(mark) if mark.owner == self.owner && mark.database.as_ref() == Some(&self.database) => {}
                other => return Err(self.foreign(&format!("role `{name}`"), other.as_ref())),
            }
        }
        if let Some(database) = seen.database.as_ref().filter(|_| self.own_database) {
            match Mark::in_comment(database.comment.as_deref()) {
                Some(mark) if mark.owner == self.owner => {}
                // A new database has no mark yet. Its owner identifies the component instead: the owners' role,
                // whose mark is checked above.
                None if seen.owner.is_some() && database.owner == self.owner_role => {}
                other => return Err(self.foreign(&format!("database `{}`", self.database), other.as_ref())),
            }
        }
        let Some(schema) = &seen.schema else { return Ok(Standing::Absent) };
        let mark = match schema.mark() {
            Some(mark) if mark.owner == self.schema_mark().owner => mark,
            other => return Err(self.foreign(&format!("schema `{}`", self.schema), other.as_ref())),
        };
        let mark = match &self.relation {
            None => mark,
            Some(name) => match schema.relation(name) {
                None => return Ok(Standing::Absent),
                Some(relation) => self.own(relation)?,
            },
        };
        Ok(if mark.released { Standing::Released } else { Standing::Active })
    }

    /// Returns the mark of a relation, or a conflict if it is not this component's.
    pub(super) fn own(&self, relation: &Relation) -> Result<Mark> {
        match relation.mark() {
            Some(mark) if mark.owner == self.owner => Ok(mark),
            other => Err(self.foreign(&format!("`{}.{}`", self.schema, relation.name), other.as_ref())),
        }
    }

    fn foreign(&self, what: &str, mark: Option<&Mark>) -> Error {
        let whose = match mark {
            None => "it has no mark of Landfall, so its owner is unknown".to_owned(),
            Some(Mark { owner, database, .. }) => {
                let place =
                    database.as_ref().map(|name| format!(" in database `{name}`")).unwrap_or_default();
                format!("it belongs to `{}` in environment `{}`{place}", owner.component, owner.environment)
            }
        };
        Error::conflict(format!(
            "{what} has the name that {} needs: {whose}. Rename or remove it, or give the component another name in `specific`",
            self.owner
        ))
    }

    /// The error for an access update of a component that is not provisioned. A retry does not help.
    pub(super) fn not_provisioned(&self) -> Error {
        self.owner.not_provisioned()
    }

    pub(super) fn piece(
        &self,
        step: Step,
        action: Action,
        summary: impl Into<String>,
        sql: Vec<String>,
    ) -> Piece {
        Piece { step, action, resource: self.what.clone(), summary: summary.into(), sql, as_owner: None }
    }

    /// The owners' role and the readers' role, quoted.
    fn roles(&self) -> (String, String) {
        (ident(&self.owner_role), ident(&self.reader_role))
    }
}

/// Returns the remaining changes for an intent. With `strict`, a missing source is an error, even if another
/// component may still create it.
pub(super) fn pieces(
    place: &Place,
    contract: Option<&Contract>,
    seen: &Seen,
    people: &People,
    intent: Intent,
    strict: bool,
) -> Result<Left> {
    let standing = place.standing(seen)?;
    let left = match (intent, contract) {
        (Intent::Provision, Some(contract)) => provision(place, contract, seen, people, (standing, strict))?,
        (Intent::Provision, None) => {
            return Err(Error::permanent("a provisioning has no contract"));
        }
        (Intent::UpdateAccess, _) => {
            if standing != Standing::Active || seen.reader.is_none() {
                return Err(place.not_provisioned());
            }
            let mut left = Left::default();
            people::access(place, seen, people, intent, &mut left);
            left
        }
        (Intent::Unprovision { remove_data }, _) => unprovision(place, seen, standing, remove_data)?,
    };
    refuse_lost_rights(place, seen, &left)?;
    Ok(left)
}

fn unprovision(place: &Place, seen: &Seen, standing: Standing, remove_data: bool) -> Result<Left> {
    let broken = is_broken(seen);
    // A broken database cannot be observed, and it has no data to keep.
    let gone = broken.then(|| Seen { database: None, ..seen.clone() });
    let mut left = match remove_data {
        true => removal::purge(place, gone.as_ref().unwrap_or(seen))?,
        false => removal::release(place, gone.as_ref().unwrap_or(seen), standing)?,
    };
    if broken {
        let summary = format!("drop what is left of the database `{}`", place.database);
        // The drop of the database comes first, because a role that owns a database cannot be dropped.
        left.pieces
            .insert(0, place.piece(Step::DropDatabase, Action::Drop, summary, vec![drop_database(place)]));
        left.notes.push(format!(
            "a removal of the database `{}` was interrupted earlier: none of its data is left to keep",
            place.database
        ));
    }
    Ok(left)
}

/// Fails if the role of the target lacks rights for the changes. The error is retryable, because an administrator can
/// grant them.
fn refuse_lost_rights(place: &Place, seen: &Seen, left: &Left) -> Result<()> {
    if left.pieces.is_empty() {
        return Ok(());
    }
    let me = ident(&seen.me);
    let needs = |word: &str| left.pieces.iter().flat_map(|piece| &piece.sql).any(|sql| sql.starts_with(word));
    let mut missing = Vec::new();
    if needs("CREATE ROLE") && !seen.may_create_role {
        missing.push(format!("ALTER ROLE {me} CREATEROLE"));
    }
    if needs("CREATE DATABASE") && !seen.may_create_database {
        missing.push(format!("ALTER ROLE {me} CREATEDB"));
    }
    if needs("CREATE SCHEMA") && !place.own_database && !seen.may_create_schema {
        missing.push(format!("GRANT CREATE ON DATABASE {} TO {me}", ident(&place.database)));
    }
    for (name, role) in [(&place.owner_role, &seen.owner), (&place.reader_role, &seen.reader)] {
        if role.as_ref().is_some_and(|role| !role.administrable) {
            missing.push(format!("GRANT {} TO {me} WITH ADMIN OPTION", ident(name)));
        }
    }
    match missing.as_slice() {
        [] => Ok(()),
        missing => Err(Error::retryable(format!(
            "the role of the target lacks rights for the change: have a superuser run `{}`",
            missing.join("; ")
        ))),
    }
}

fn provision(
    place: &Place,
    contract: &Contract,
    seen: &Seen,
    people: &People,
    (standing, strict): (Standing, bool),
) -> Result<Left> {
    let mut left = Left { notes: contract.notes.clone(), ..Left::default() };
    let mut add = |piece: Piece| {
        if !piece.sql.is_empty() {
            left.pieces.push(piece);
        }
    };
    if place.own_database {
        add(place.piece(
            Step::CreateDatabase,
            Action::Create,
            format!("create the database `{}`", place.database),
            database(place, seen),
        ));
    }
    add(place.piece(
        Step::Prepare,
        Action::Create,
        preparation(place, seen),
        prepare(place, contract, seen, people),
    ));
    if standing == Standing::Released {
        add(place.piece(
            Step::Restore,
            Action::Restore,
            "restore what an earlier unprovision kept",
            comments(place, contract, seen),
        ));
    }
    match &contract.shape {
        Shape::Storage(tables) => {
            for table in tables {
                let evolved = evolution::table(place, table, seen)?;
                evolved.pieces.into_iter().for_each(&mut add);
                left.notes.extend(evolved.notes);
            }
        }
        Shape::Table(table) => {
            let evolved = evolution::table(place, table, seen)?;
            evolved.pieces.into_iter().for_each(&mut add);
            left.notes.extend(evolved.notes);
        }
        Shape::View(view) => {
            let made = view::plan(place, view, seen, strict)?;
            left.pieces.extend(made.pieces);
            left.notes.extend(made.notes);
        }
    }
    let mut add = |piece: Piece| {
        if !piece.sql.is_empty() {
            left.pieces.push(piece);
        }
    };
    if standing == Standing::Active {
        add(place.piece(
            Step::Comments,
            Action::Alter,
            "update descriptions and tags",
            comments(place, contract, seen),
        ));
    }
    add(place.piece(
        Step::Privileges,
        Action::Alter,
        "grant the roles of owners and readers their rights",
        privileges(place, contract, seen),
    ));
    if let Some(storage) = seen.schema.as_ref().filter(|_| place.relation.is_none()) {
        left.notes.extend(unlisted(place, contract, storage));
    }
    let there = |role: &Option<Role>| role.as_ref().is_some_and(|role| !role.connects);
    let (shut_out, names) = without_connection(place, seen, there);
    if !names.is_empty() && !seen.may_grant_connect {
        left.notes.push(format!(
            "{shut_out} may not connect to the database, and Landfall may not grant that: have its owner run `GRANT CONNECT \
             ON DATABASE {} TO {names}`",
            ident(&place.database),
        ));
    }
    people::owners(place, seen, people, &mut left);
    people::foreign_grants(place, contract.repair, seen, &mut left);
    people::access(place, seen, people, Intent::Provision, &mut left);
    Ok(left)
}

/// Returns which of "readers" and "owners" match `may_not`, and their quoted roles.
fn without_connection(
    place: &Place,
    seen: &Seen,
    may_not: impl Fn(&Option<Role>) -> bool,
) -> (String, String) {
    let roles = [("readers", &place.reader_role, &seen.reader), ("owners", &place.owner_role, &seen.owner)];
    let shut_out = roles.into_iter().filter(|(_, _, role)| may_not(role));
    let (who, names): (Vec<&str>, Vec<String>) = shut_out.map(|(who, name, _)| (who, ident(name))).unzip();
    (who.join(" and "), names.join(", "))
}

/// Returns a note for every marked table that `specific.tables` no longer contains.
fn unlisted(place: &Place, contract: &Contract, schema: &Schema) -> Vec<String> {
    let Shape::Storage(tables) = &contract.shape else { return Vec::new() };
    let listed: BTreeSet<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    let left_over = schema
        .relations
        .iter()
        .filter(|relation| relation.mark().is_some() && !listed.contains(relation.name.as_str()));
    left_over
        .map(|relation| {
            format!(
                "table `{}.{}` is no longer in `specific.tables`: it is kept",
                place.schema, relation.name
            )
        })
        .collect()
}

/// The comment of a role.
pub(super) fn role_comment(place: &Place, who: &str, mark: &Mark) -> String {
    mark.comment(&format!(
        "{who} of component {} in environment {}",
        place.owner.component, place.owner.environment
    ))
}

pub(super) fn reader_comment(place: &Place, fields: &landfall_adapter::descriptor::Object) -> String {
    let mark = Mark { fields: fields.clone(), ..place.role_mark() };
    let (_, reader) = place.roles();
    format!("COMMENT ON ROLE {reader} IS {}", literal(&role_comment(place, "Readers", &mark)))
}

/// Whether a DROP DATABASE of the component's own database was interrupted.
pub(super) fn is_broken(seen: &Seen) -> bool {
    seen.database.as_ref().is_some_and(|database| database.broken)
}

fn drop_database(place: &Place) -> String {
    format!("DROP DATABASE {} WITH (FORCE)", ident(&place.database))
}

/// Returns the statements that the component's own database still needs. Each runs outside of a transaction.
/// The owners' role must exist before.
fn database(place: &Place, seen: &Seen) -> Vec<String> {
    let (name, owner) = (ident(&place.database), ident(&place.owner_role));
    let mut sql = Vec::new();
    let broken = is_broken(seen);
    let there = seen.database.as_ref().filter(|_| !broken);
    if broken {
        sql.push(drop_database(place));
    }
    if there.is_none() {
        sql.push(format!("CREATE DATABASE {name} OWNER {owner} TEMPLATE template0"));
    }
    if there.is_none_or(|database| database.public) {
        sql.push(format!("REVOKE CONNECT, TEMPORARY ON DATABASE {name} FROM PUBLIC"));
    }
    let text = format!("Storage area {} in environment {}", place.owner.component, place.owner.environment);
    let comment = place.mark().comment(&text);
    if there.is_none_or(|database| database.comment.as_ref() != Some(&comment)) {
        sql.push(format!("COMMENT ON DATABASE {name} IS {}", literal(&comment)));
    }
    sql
}

/// Returns the missing statements for the owners' role.
pub(super) fn owner_role(place: &Place, seen: &Seen) -> Vec<String> {
    let (owner, _) = place.roles();
    let mut sql = Vec::new();
    let join = membership::join(&place.owner_role, seen);
    match &seen.owner {
        None => {
            sql.push(format!("CREATE ROLE {owner} NOLOGIN"));
            let comment = role_comment(place, "Owners", &place.role_mark());
            sql.push(format!("COMMENT ON ROLE {owner} IS {}", literal(&comment)));
            sql.push(join);
        }
        Some(role) => {
            if role.login {
                sql.push(format!("ALTER ROLE {owner} NOLOGIN"));
            }
            if is_released(role) {
                let comment = role_comment(place, "Owners", &place.role_mark());
                sql.push(format!("COMMENT ON ROLE {owner} IS {}", literal(&comment)));
            }
            // Since PostgreSQL 16, the creator of a role is a member of it, but does not have its rights.
            let joined = |member: &Member| member.name == seen.me && member.grantor == seen.me;
            if place.own_database && !role.members.iter().any(joined) {
                sql.push(join);
            }
        }
    }
    sql
}

/// Whether an unprovision released the role. A released role has no rights except on its own objects.
fn is_released(role: &Role) -> bool {
    Mark::in_comment(role.comment.as_deref()).is_some_and(|mark| mark.released)
}

/// Returns the missing statements for the roles and the schema, and for ownership that later changes need.
fn prepare(place: &Place, contract: &Contract, seen: &Seen, people: &People) -> Vec<String> {
    let (owner, reader) = place.roles();
    let mut sql = owner_role(place, seen);
    match &seen.reader {
        None => {
            sql.push(format!("CREATE ROLE {reader} NOLOGIN"));
            sql.push(reader_comment(place, &people.fields()));
        }
        Some(role) => {
            if role.login {
                sql.push(format!("ALTER ROLE {reader} NOLOGIN"));
            }
            if is_released(role) {
                sql.push(reader_comment(place, &people.fields()));
            }
        }
    }
    if seen.schema.is_none() {
        let schema = ident(&place.schema);
        let whose = if place.relation.is_none() { format!(" AUTHORIZATION {owner}") } else { String::new() };
        sql.push(format!("CREATE SCHEMA {schema}{whose}"));
        sql.push(format!("COMMENT ON SCHEMA {schema} IS {}", literal(&schema_comment(place, contract))));
    }
    sql.extend(ownership(place, seen));
    sql
}

/// Returns the statement that lets Landfall connect to the component's own database without membership in the
/// owners' role. `None` if it is not needed.
pub(super) fn own_connection(place: &Place, seen: &Seen) -> Option<String> {
    let database = seen.database.as_ref().filter(|_| place.own_database)?;
    let missing = !database.connects || database.owner == seen.me;
    missing.then(|| format!("GRANT CONNECT ON DATABASE {} TO CURRENT_USER", ident(&place.database)))
}

/// Returns statements that give Landfall's objects to the owners' role, and USAGE of the schema to both roles.
/// They come before all other changes.
fn ownership(place: &Place, seen: &Seen) -> Vec<String> {
    let (owner, _) = place.roles();
    let schema = ident(&place.schema);
    let shared = place.relation.is_some();
    let mut sql = Vec::new();
    if place.own_database && seen.database.as_ref().is_some_and(|database| database.owner == seen.me) {
        sql.push(format!("ALTER DATABASE {} OWNER TO {owner}", ident(&place.database)));
    }
    sql.extend(own_connection(place, seen));
    if !shared && seen.schema.as_ref().is_some_and(|schema| schema.owner == seen.me) {
        sql.push(format!("ALTER SCHEMA {schema} OWNER TO {owner}"));
    }
    // A role that owns the schema needs no grant. One statement grants to all roles, because each GRANT
    // rewrites the schema's whole access control list.
    let nothing = Vec::new();
    let grants = seen.schema.as_ref().map_or(&nothing, |schema| &schema.grants);
    let users = [(shared, &place.owner_role), (true, &place.reader_role)];
    let missing = users.into_iter().filter(|(needed, role)| *needed && !has(grants, role, "USAGE"));
    let missing: Vec<String> = missing.map(|(_, role)| ident(role)).collect();
    if !missing.is_empty() {
        sql.push(format!("GRANT USAGE ON SCHEMA {schema} TO {}", missing.join(", ")));
    }
    let relations = seen.schema.iter().flat_map(|schema| &schema.relations);
    let mut moved: Vec<String> = relations
        .filter(|relation| relation.owner == seen.me)
        .map(|relation| {
            let name = dotted(&place.schema, &relation.name);
            format!("ALTER {} {name} OWNER TO {owner}", relation.keyword())
        })
        .collect();
    if !shared {
        let extras = seen.schema.iter().flat_map(|schema| &schema.extras);
        let mine = extras.filter(|extra| extra.owner == seen.me);
        moved.extend(mine.map(|extra| format!("ALTER {} {} OWNER TO {owner}", extra.kind, extra.name)));
    }
    sql.extend(handed_over(place, moved));
    sql
}

/// Fails if an index, a sequence or a type already has the name of a new relation.
pub(super) fn refuse_taken(place: &Place, name: &str, seen: &Seen) -> Result<()> {
    match seen.taken(name) {
        None => Ok(()),
        Some(taken) => Err(Error::conflict(format!(
            "`{}.{name}` cannot be made: there is {} {} of this name. Rename or remove it, or choose another name in \
             `specific`",
            place.schema,
            if taken.kind == "index" { "an" } else { "a" },
            taken.kind
        ))),
    }
}

/// Returns the text that describes [`prepare`] in a plan.
fn preparation(place: &Place, seen: &Seen) -> String {
    let mut parts = Vec::new();
    match (&seen.owner, &seen.reader) {
        (None, None) => parts.push("create the roles of owners and readers".to_owned()),
        (None, Some(_)) => parts.push("create the role of owners".to_owned()),
        (Some(_), None) => parts.push("create the role of readers".to_owned()),
        (Some(_), Some(_)) => {}
    }
    if seen.schema.is_none() {
        parts.push(format!("create the schema `{}`", place.schema));
    }
    let released = seen.owner.iter().chain(&seen.reader).any(is_released);
    match parts.is_empty() {
        true if released => "take back the roles of owners and readers".to_owned(),
        true if !ownership(place, seen).is_empty() => {
            "give the roles of owners and readers their objects and rights".to_owned()
        }
        true => "restore the roles of owners and readers".to_owned(),
        false => parts.join(", and "),
    }
}

fn schema_comment(place: &Place, contract: &Contract) -> String {
    match place.relation {
        None => Mark { tags: contract.tags.clone(), ..place.mark() }.comment(&contract.description),
        Some(_) => place.schema_mark().comment(&format!("Output ports of data product {}", place.product)),
    }
}

/// The comment of a table, with its mark.
pub(super) fn table_comment(place: &Place, contract_text: &str, tags: &[serde_json::Value]) -> String {
    Mark { tags: tags.to_vec(), ..place.mark() }.comment(contract_text)
}

/// Returns statements for the comments that differ, and the marks in them.
fn comments(place: &Place, contract: &Contract, seen: &Seen) -> Vec<String> {
    let mut sql = Vec::new();
    let mut table = |table: &Table| {
        if let Some(relation) = seen.relation(&table.name).filter(|relation| relation.kind != 'v') {
            let comment = table_comment(place, &table.description, &table.tags);
            sql.extend(relation_comments(place, relation, &comment, &table.columns));
        }
    };
    match &contract.shape {
        Shape::Storage(tables) => {
            tables.iter().for_each(&mut table);
            if let Some(schema) = &seen.schema {
                let wanted = schema_comment(place, contract);
                if schema.comment.as_deref() != Some(&wanted) {
                    sql.push(format!("COMMENT ON SCHEMA {} IS {}", ident(&place.schema), literal(&wanted)));
                }
            }
        }
        Shape::Table(wanted) => table(wanted),
        Shape::View(view) => {
            if let Some(relation) = seen.relation(&view.name).filter(|relation| relation.kind == 'v') {
                let old = relation.mark().unwrap_or_else(|| place.mark());
                let mark =
                    Mark { asked: old.asked, made: old.made, tags: contract.tags.clone(), ..place.mark() };
                let comment = mark.comment(&contract.description);
                let columns: Vec<_> = view.columns.iter().map(|(_, column)| column.clone()).collect();
                sql.extend(relation_comments(place, relation, &comment, &columns));
            }
        }
    }
    sql
}

/// Returns statements for the comments of a relation and its columns that differ.
pub(super) fn relation_comments(
    place: &Place,
    relation: &Relation,
    comment: &str,
    columns: &[super::columns::Wanted],
) -> Vec<String> {
    let name = dotted(&place.schema, &relation.name);
    let mut sql = Vec::new();
    if relation.comment.as_deref() != Some(comment) {
        sql.push(format!("COMMENT ON {} {name} IS {}", relation.keyword(), literal(comment)));
    }
    for column in columns {
        if let Some(have) = relation.column(&column.name)
            && have.comment != column.comment
        {
            sql.push(column_comment(&name, column));
        }
    }
    sql
}

/// The statement for the comment of a column. `table` is already quoted.
pub(super) fn column_comment(table: &str, column: &super::columns::Wanted) -> String {
    let text = column.comment.as_deref().map_or_else(|| "NULL".to_owned(), literal);
    format!("COMMENT ON COLUMN {table}.{} IS {text}", ident(&column.name))
}

/// Returns the missing grants for the roles.
fn privileges(place: &Place, contract: &Contract, seen: &Seen) -> Vec<String> {
    let (owner, reader) = place.roles();
    let mut sql = Vec::new();
    if place.relation.is_none() && !seen.schema.as_ref().is_some_and(|schema| schema.by_default) {
        sql.push(format!(
            "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {} GRANT SELECT ON TABLES TO {reader}",
            ident(&place.schema)
        ));
    }
    let ours = |relation: &&Relation| relation.owner == seen.me || relation.owner == place.owner_role;
    for relation in seen.schema.iter().flat_map(|schema| &schema.relations).filter(ours) {
        if !has(&relation.grants, &place.reader_role, "SELECT") {
            sql.push(format!("GRANT SELECT ON {} TO {reader}", dotted(&place.schema, &relation.name)));
        }
    }
    if let Shape::View(view) = &contract.shape {
        sql.extend(view::source_privileges(place, view, seen));
    }
    // The lock and the GRANT come last, so that the transaction waits for nothing else while it holds the lock.
    // A role that does not exist yet counts as one that may not connect.
    let may_not = |role: &Option<Role>| role.as_ref().is_none_or(|role| !role.connects);
    let (_, shut_out) = without_connection(place, seen, may_not);
    if !shut_out.is_empty() && seen.may_grant_connect {
        sql.push(membership::database_lock());
        sql.push(format!("GRANT CONNECT ON DATABASE {} TO {shut_out}", ident(&place.database)));
    }
    sql
}

/// Returns `moved`, the statements that change owners, with a temporary grant of CREATE on the shared schema of
/// output ports around them. A new owner needs this right, and owners do not have it there.
pub(super) fn handed_over(place: &Place, moved: Vec<String>) -> Vec<String> {
    if moved.is_empty() || place.relation.is_none() {
        return moved;
    }
    let (schema, owner) = (ident(&place.schema), ident(&place.owner_role));
    let mut sql = vec![format!("GRANT CREATE ON SCHEMA {schema} TO {owner}")];
    sql.extend(moved);
    sql.push(format!("REVOKE CREATE ON SCHEMA {schema} FROM {owner}"));
    sql
}

/// Returns tags in the form of a mark.
pub(super) fn tags(tags: &[landfall_adapter::descriptor::Tag]) -> Vec<serde_json::Value> {
    mark::tags(tags)
}
