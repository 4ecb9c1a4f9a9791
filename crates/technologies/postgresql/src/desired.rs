//! From what is there to what is asked for. Pure.
//!
//! A [`Piece`] is one change with the statements that make it. [`pieces`] gives all that are left, in order, and it is
//! called twice: for a plan, and again when one of them is applied, in the transaction that applies it and under the
//! component's lock. A piece that is not left any more was done before. So a change is idempotent without looking so,
//! and what has changed since the plan was made is seen.
//!
//! Nothing is refused half way: every refusal is found here, before the first change. Nothing is ever dropped with
//! CASCADE, and what belongs to somebody else is a conflict.

use std::collections::BTreeSet;

use super::columns::Table;
use super::mark::{self, Mark};
use super::observe::{Member, Relation, Role, Schema, Seen, has};
use super::people::{self, People};
use super::sql::{dotted, ident, literal};
use super::{evolution, membership, removal, view};
use landfall_adapter::descriptor::Identifier;
use landfall_adapter::error::{Error, Result};
use landfall_adapter::{Action, Intent, Owner};

/// Where a component is: all that taking it away needs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    pub(super) owner: Owner,
    pub(super) product: Identifier,
    pub(super) component: Identifier,
    pub(super) database: String,
    /// Whether it comes after other components, which may bring what it reads.
    pub(super) waits: bool,
    /// Whether the database is this component's.
    pub(super) own_database: bool,
    pub(super) schema: String,
    /// Of an output port. A storage area has its schema to itself; that of output ports is their data product's.
    pub(super) relation: Option<String>,
    pub(super) owner_role: String,
    pub(super) reader_role: String,
    /// "schema `x`", "`x.y`", in messages and plans.
    pub(super) what: String,
}

/// What a component asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Contract {
    pub(super) shape: Shape,
    pub(super) description: String,
    pub(super) tags: Vec<serde_json::Value>,
    /// Whether what others granted is taken away.
    pub(super) repair: bool,
    pub(super) notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    /// A storage area with these tables, and whatever its users make.
    Storage(Vec<Table>),
    /// An output port that is a table.
    Table(Table),
    /// An output port that is a view.
    View(view::View),
}

/// What one change does: nobody else makes or reads one.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The database of a storage area that has its own: the one change that no transaction can hold.
    CreateDatabase,
    DropDatabase,
    /// Roles and schema.
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
    /// Access control fields.
    Fields,
    Grant,
    /// Somebody who cannot be found was to be let in.
    Refuse,
    Release,
    Purge,
}

/// One change with its statements.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    pub(super) step: Step,
    pub(super) action: Action,
    pub(super) resource: String,
    pub(super) summary: String,
    pub(super) sql: Vec<String>,
    /// The one of `sql` that may meet functions of owners: it is run with their rights and not with Landfall's.
    pub(super) as_owner: Option<String>,
}

/// All that is left to do.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Left {
    pub(super) pieces: Vec<Piece>,
    pub(super) notes: Vec<String>,
}

/// Whether the component is there.
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

    /// The mark of the schema: of output ports, it is their data product's.
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

    /// Whether it is there; a conflict when something of somebody else's is in the way.
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
                // Between being made and being marked, its owner says whose it is: a role with our mark, looked at above.
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

    /// The mark of a relation, if it is this component's.
    pub(super) fn own(&self, relation: &Relation) -> Result<Mark> {
        match relation.mark() {
            Some(mark) if mark.owner == self.owner => Ok(mark),
            other => Err(self.foreign(&format!("`{}.{}`", self.schema, relation.name), other.as_ref())),
        }
    }

    fn foreign(&self, what: &str, mark: Option<&Mark>) -> Error {
        let Owner { component, environment } = &self.owner;
        let whose = match mark {
            None => "it carries no mark of Landfall, so it is somebody else's".to_owned(),
            Some(Mark { owner, database, .. }) => {
                let place =
                    database.as_ref().map(|name| format!(" in database `{name}`")).unwrap_or_default();
                format!("it belongs to `{}` in environment `{}`{place}", owner.component, owner.environment)
            }
        };
        Error::conflict(format!(
            "{what} is in the way of component `{component}` in environment `{environment}`: {whose}. Rename or remove \
             it, or give the component another name in `specific`"
        ))
    }

    /// The access of what does not exist cannot be updated; trying again will not help, provisioning will.
    pub(super) fn not_provisioned(&self) -> Error {
        Error::conflict(format!(
            "component `{}` in environment `{}` is not provisioned: provision it first",
            self.owner.component, self.owner.environment
        ))
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

    /// The readers' role and the owners', which a statement may name.
    fn roles(&self) -> (String, String) {
        (ident(&self.owner_role), ident(&self.reader_role))
    }
}

/// All that is left to do for an intent. `strict`: what is missing now counts, although it may yet come.
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
            return Err(Error::permanent("nothing is known of what is to be provisioned"));
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
    // In what is left of a database there is nothing to look at, and nothing to keep.
    let gone = broken.then(|| Seen { database: None, ..seen.clone() });
    let mut left = match remove_data {
        true => removal::purge(place, gone.as_ref().unwrap_or(seen))?,
        false => removal::release(place, gone.as_ref().unwrap_or(seen), standing)?,
    };
    if broken {
        let summary = format!("drop what is left of the database `{}`", place.database);
        // First: the roles cannot go before it.
        left.pieces
            .insert(0, place.piece(Step::DropDatabase, Action::Drop, summary, vec![drop_database(place)]));
        left.notes.push(format!(
            "a removal of the database `{}` was cut off earlier: of its data nothing is left to keep",
            place.database
        ));
    }
    Ok(left)
}

/// What the role of the target may not do any more, before it is tried. An administrator can give it back, so it is
/// tried again later.
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
            "the role of the target may not do what is to be done: have a superuser run `{}`",
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
    let mut left = Left { pieces: Vec::new(), notes: contract.notes.clone() };
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
            "take back what an earlier unprovision kept",
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
        "give the roles of owners and readers what they need",
        privileges(place, contract, seen),
    ));
    if let Some(storage) = seen.schema.as_ref().filter(|_| place.relation.is_none()) {
        left.notes.extend(unlisted(place, contract, storage));
    }
    let there = |role: &Option<Role>| role.as_ref().is_some_and(|role| !role.connects);
    let (shut_out, names) = without_connection(place, seen, there);
    if !names.is_empty() && !seen.may_grant_connect {
        left.notes.push(format!(
            "{shut_out} may not connect to the database, and Landfall may not let them: have its owner run `GRANT CONNECT \
             ON DATABASE {} TO {names}`",
            ident(&place.database),
        ));
    }
    people::owners(place, seen, people, &mut left);
    people::strangers(place, contract.repair, seen, &mut left);
    people::access(place, seen, people, Intent::Provision, &mut left);
    Ok(left)
}

/// Of owners and readers those who may not connect: what they are, and their roles.
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

/// Tables that were listed once.
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
                "table `{}.{}` is not in `specific.tables` any more: it is kept",
                place.schema, relation.name
            )
        })
        .collect()
}

/// The comments of the roles.
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

/// Whether the component has a database of its own and a drop of that was cut off.
pub(super) fn is_broken(seen: &Seen) -> bool {
    seen.database.as_ref().is_some_and(|database| database.broken)
}

fn drop_database(place: &Place) -> String {
    format!("DROP DATABASE {} WITH (FORCE)", ident(&place.database))
}

/// What a database of the component's own still lacks. The statements run one by one, each for itself: before them, its
/// owners' role is made.
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

/// The owners' role, as far as it is missing.
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
            // Since 16, whoever makes a role is a member of it without its rights.
            let joined = |member: &Member| member.name == seen.me && member.grantor == seen.me;
            if place.own_database && !role.members.iter().any(joined) {
                sql.push(join);
            }
        }
    }
    sql
}

/// Whether an unprovision left a role with nothing but what it owns.
fn is_released(role: &Role) -> bool {
    Mark::in_comment(role.comment.as_deref()).is_some_and(|mark| mark.released)
}

/// Roles and schema, as far as they are missing, and what the roles need before anything else is changed.
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

/// Landfall gets into a database of the component's own also while it is no member of the owners' role.
pub(super) fn own_connection(place: &Place, seen: &Seen) -> Option<String> {
    let database = seen.database.as_ref().filter(|_| place.own_database)?;
    let missing = !database.connects || database.owner == seen.me;
    missing.then(|| format!("GRANT CONNECT ON DATABASE {} TO CURRENT_USER", ident(&place.database)))
}

/// What has to be the roles' before anything of it is changed: objects, and the use of the schema.
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
    // An owner of the schema has it anyway. One statement: each writes the list of all who use the schema again.
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

/// A relation cannot get the name of an index, a sequence or a type.
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

/// What [`prepare`] does, for people.
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
            "give the roles of owners and readers what is theirs".to_owned()
        }
        true => "make the roles of owners and readers what they were".to_owned(),
        false => parts.join(", and "),
    }
}

fn schema_comment(place: &Place, contract: &Contract) -> String {
    match place.relation {
        None => Mark { tags: contract.tags.clone(), ..place.mark() }.comment(&contract.description),
        Some(_) => place.schema_mark().comment(&format!("Output ports of data product {}", place.product)),
    }
}

/// The comment of a table of the component.
pub(super) fn table_comment(place: &Place, contract_text: &str, tags: &[serde_json::Value]) -> String {
    Mark { tags: tags.to_vec(), ..place.mark() }.comment(contract_text)
}

/// Comments that are not as they should be, and the marks in them.
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

/// Comments of a relation and its columns, where they differ.
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

/// `table` is quoted.
pub(super) fn column_comment(table: &str, column: &super::columns::Wanted) -> String {
    let text = column.comment.as_deref().map_or_else(|| "NULL".to_owned(), literal);
    format!("COMMENT ON COLUMN {table}.{} IS {text}", ident(&column.name))
}

/// What the roles have to be granted.
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
    // Last: nothing waits any more once the lock is held.
    // Of a role that is yet to be made, it is only known then.
    let may_not = |role: &Option<Role>| role.as_ref().is_none_or(|role| !role.connects);
    let (_, shut_out) = without_connection(place, seen, may_not);
    if !shut_out.is_empty() && seen.may_grant_connect {
        sql.push(membership::database_lock());
        sql.push(format!("GRANT CONNECT ON DATABASE {} TO {shut_out}", ident(&place.database)));
    }
    sql
}

/// In the schema that output ports share, owners may make nothing: they get the right for a moment.
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

/// Tags of the component.
pub(super) fn tags(tags: &[landfall_adapter::descriptor::Tag]) -> Vec<serde_json::Value> {
    mark::tags(tags)
}
