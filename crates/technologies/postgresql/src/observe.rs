//! Observes the database: one query of the catalogs, and counts of rows for refusals.
//!
//! One snapshot contains everything that a component may touch: its two roles and their members, its schema and its
//! content, the source of a view, and the roles that refs may mean. Planning from it is pure (see `desired.rs`).
//!
//! Rows are different from catalogs: a policy, a check or the query of a view may call functions of the owners, which
//! run with the rights of the reading role. So rows are read only with the rights of a reader (`guard.rs`).

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use tokio_postgres::types::ToSql;

use super::mark::Mark;
use super::possessions::Possessions;
use super::session::{Session, Unknown};
use super::sql::{dotted, ident, idents};
use landfall_adapter::error::{Error, Result};

/// Counting stops after this number of rows.
const MANY: i64 = 1000;

/// What to observe.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Question {
    pub(super) schema: String,
    /// The relations to observe; with [`Self::whole`], the wanted ones.
    pub(super) relations: Vec<String>,
    /// Whether the component owns everything in the schema.
    pub(super) whole: bool,
    /// Whether to observe the definitions of views on the component's tables, which a change may have to
    /// recreate.
    pub(super) views: bool,
    pub(super) owner_role: String,
    pub(super) reader_role: String,
    /// Schema and name of the source of a view.
    pub(super) source: Option<(String, String)>,
    /// Names of the roles that the refs of the access list may mean.
    pub(super) principals: Vec<String>,
}

/// The observed state.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Seen {
    /// The role of Landfall.
    pub(super) me: String,
    /// The version of the server, `server_version_num`: 150004 for release 15.4.
    pub(super) version: i32,
    /// Whether Landfall may grant the right to connect.
    pub(super) may_grant_connect: bool,
    /// Whether Landfall may create roles, databases, and schemas in this database.
    pub(super) may_create_role: bool,
    pub(super) may_create_database: bool,
    pub(super) may_create_schema: bool,
    pub(super) owner: Option<Role>,
    pub(super) reader: Option<Role>,
    pub(super) schema: Option<Schema>,
    pub(super) source: Option<Source>,
    /// Whether the database has another schema; `public` counts only if it has content. `false` without
    /// [`Question::whole`].
    pub(super) elsewhere: bool,
    /// The database of a storage area that has its own.
    #[serde(default)]
    pub(super) database: Option<Database>,
    /// The existing roles of [`Question::principals`].
    pub(super) principals: Vec<Known>,
    /// Roles of other components that own an object on which the component's roles have a right.
    pub(super) lenders: Vec<String>,
    /// What the component's roles own, for a removal.
    #[serde(skip)]
    pub(super) possessions: Possessions,
    /// Facts about rows, by probe.
    #[serde(skip)]
    pub(super) facts: BTreeMap<Probe, Count>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Database {
    pub(super) owner: String,
    pub(super) comment: Option<String>,
    /// Whether PUBLIC may connect.
    pub(super) public: bool,
    /// Whether a DROP DATABASE was interrupted. Such a database can only be dropped.
    #[serde(default)]
    pub(super) broken: bool,
    /// Whether Landfall may connect without being a member of the owners' role.
    pub(super) connects: bool,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Role {
    pub(super) comment: Option<String>,
    pub(super) login: bool,
    pub(super) connects: bool,
    /// Whether Landfall may grant and drop the role.
    pub(super) administrable: bool,
    pub(super) members: Vec<Member>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) grantor: String,
    /// Whether Landfall can revoke the membership. Since PostgreSQL 16, this needs the rights of the grantor.
    pub(super) revocable: bool,
}

/// A role that a ref may mean.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Known {
    pub(super) name: String,
    /// Whether the role has a mark of Landfall. Such a role is never a user or a group.
    pub(super) marked: bool,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Schema {
    pub(super) owner: String,
    pub(super) comment: Option<String>,
    /// All grants on the schema; without [`Question::whole`], only grants to the component's own roles.
    pub(super) grants: Vec<Grant>,
    /// Whether readers get rights on objects that the owner creates later.
    pub(super) by_default: bool,
    pub(super) relations: Vec<Relation>,
    /// Functions, types and sequences; empty without [`Question::whole`].
    pub(super) extras: Vec<Extra>,
    /// Whether the schema has content besides the observed relations; `false` with [`Question::whole`].
    pub(super) others: bool,
    /// Indexes, sequences and types that already have the name of a wanted relation.
    pub(super) taken: Vec<Taken>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Taken {
    pub(super) name: String,
    /// `index`, `sequence` or `type`.
    pub(super) kind: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Relation {
    pub(super) name: String,
    /// `relkind`: `r` table, `p` partitioned table, `v` view, `m` materialized view, `f` foreign table.
    pub(super) kind: char,
    pub(super) owner: String,
    /// Whether the owner is a role of a component.
    pub(super) owner_marked: bool,
    pub(super) comment: Option<String>,
    pub(super) grants: Vec<Grant>,
    pub(super) columns: Vec<SeenColumn>,
    pub(super) constraints: Vec<SeenConstraint>,
    pub(super) definition: Option<String>,
    /// Whether a rewrite of the rows runs only PostgreSQL's own functions, and none of the owners.
    pub(super) plain: bool,
    pub(super) dependents: Vec<Dependent>,
    /// Other objects that use the columns; empty without [`Question::views`].
    pub(super) holders: Vec<Holder>,
}

/// A policy, trigger, function, publication or foreign key that uses a column, so PostgreSQL does not drop the
/// column.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Holder {
    pub(super) column: String,
    /// The object as PostgreSQL describes it: "policy p on table t".
    pub(super) what: String,
    /// Whether the object also prevents a change of the column's type.
    pub(super) typed: bool,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct SeenColumn {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) data_type: String,
    pub(super) required: bool,
    pub(super) comment: Option<String>,
}

/// A primary key (`p`) or unique (`u`) constraint.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct SeenConstraint {
    pub(super) name: String,
    pub(super) kind: char,
    pub(super) columns: Vec<String>,
    /// Whether a foreign key refers to the constraint.
    pub(super) referred: bool,
}

/// A view that reads a relation, or a table with a foreign key to it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Dependent {
    pub(super) schema: String,
    pub(super) name: String,
    /// The columns that a view reads; empty for a table.
    #[serde(default)]
    pub(super) columns: Vec<String>,
    /// The observed view; `None` for a table, and for a view that is not observed itself.
    #[serde(default)]
    pub(super) view: Option<Box<Relation>>,
}

/// An entry of an access control list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) struct Grant {
    /// `None`: PUBLIC.
    pub(super) grantee: Option<String>,
    pub(super) privilege: String,
    pub(super) grantable: bool,
    /// The column, if the grant is for one column.
    pub(super) column: Option<String>,
    /// Whether the grantee is a role of a component.
    pub(super) marked: bool,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Extra {
    /// `ROUTINE`, `TYPE` or `SEQUENCE`.
    pub(super) kind: String,
    /// The signature as SQL writes it.
    pub(super) name: String,
    pub(super) owner: String,
}

/// The schema and the relation that a view reads. All grants in it are grants to the component's own roles.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Source {
    /// The comment of the schema, which contains its mark.
    pub(super) comment: Option<String>,
    pub(super) relation: Option<SourceRelation>,
    pub(super) schema_grants: Vec<Grant>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct SourceRelation {
    pub(super) owner: String,
    /// The roles of other components that own the relation or its schema.
    pub(super) lenders: Vec<String>,
    pub(super) grants: Vec<Grant>,
    pub(super) columns: Vec<SeenColumn>,
}

/// A number of rows, or the reason why it is unknown.
pub(super) type Count = Result<i64, Unknown>;

/// A question about rows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) enum Probe {
    /// The number of rows of a table.
    Rows { table: String },
    /// The number of rows without a value in a column.
    Nulls { table: String, column: String },
    /// The number of rows with a value in a column.
    Values { table: String, column: String },
    /// The number of rows that share their values of some columns with another row.
    Duplicates { table: String, columns: Vec<String> },
}

impl SourceRelation {
    pub(super) fn column(&self, name: &str) -> Option<&SeenColumn> {
        self.columns.iter().find(|column| column.name == name)
    }
}

impl Relation {
    pub(super) fn column(&self, name: &str) -> Option<&SeenColumn> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The keyword of the relation's kind in statements, such as `TABLE` or `VIEW`.
    pub(super) fn keyword(&self) -> &'static str {
        match self.kind {
            'v' => "VIEW",
            'm' => "MATERIALIZED VIEW",
            'f' => "FOREIGN TABLE",
            _ => "TABLE",
        }
    }

    pub(super) fn mark(&self) -> Option<Mark> {
        Mark::in_comment(self.comment.as_deref())
    }
}

/// Whether a role has a privilege on a whole object.
pub(super) fn has(grants: &[Grant], role: &str, privilege: &str) -> bool {
    grants.iter().any(|grant| {
        grant.column.is_none() && grant.grantee.as_deref() == Some(role) && grant.privilege == privilege
    })
}

impl Schema {
    pub(super) fn relation(&self, name: &str) -> Option<&Relation> {
        self.relations.iter().find(|relation| relation.name == name)
    }

    pub(super) fn mark(&self) -> Option<Mark> {
        Mark::in_comment(self.comment.as_deref())
    }
}

impl Seen {
    pub(super) fn relation(&self, name: &str) -> Option<&Relation> {
        self.schema.as_ref()?.relation(name)
    }

    /// The index, sequence or type that already has this name, if any.
    pub(super) fn taken(&self, name: &str) -> Option<&Taken> {
        self.schema.as_ref()?.taken.iter().find(|taken| taken.name == name)
    }

    pub(super) fn fact(&self, probe: &Probe) -> Count {
        self.facts.get(probe).copied().unwrap_or(Ok(0))
    }
}

/// Returns SQL for the entries of an access control list. `acl` and `column` are SQL for the list and for the
/// name of a column. The slice makes a copy in memory: `aclexplode` would read a long compressed list as a
/// whole for each entry.
fn grants(acl: &str, column: &str) -> String {
    format!(
        "SELECT CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee) END AS grantee, \
                a.privilege_type AS privilege, a.is_grantable AS grantable, \
                {column} AS \"column\", \
                {marked} AS marked \
         FROM aclexplode(({acl})[:]) a",
        marked = marked("a.grantee"),
    )
}

/// Returns SQL for whether a role belongs to a component. `role` is SQL for its OID.
fn marked(role: &str) -> String {
    format!("coalesce(shobj_description({role}, 'pg_authid') LIKE '%landfall {{%', false)")
}

/// Whether a role, by its OID, belongs to a component and owns objects in this database. If it owns another database,
/// Landfall is a permanent member.
pub(super) fn lends(role: &str) -> String {
    format!(
        "{} AND strpos(shobj_description({role}, 'pg_authid'), \
           '\"database\":' || to_json(current_database()::text)::text) > 0",
        marked(role)
    )
}

/// Which of the component's own roles have a privilege that the owner of an object granted. A shared object has as
/// many entries as components, so the list is queried and not read.
fn own_grants(acl: &str, owner: &str, privilege: &str) -> String {
    list(&format!(
        "SELECT r.rolname AS grantee, '{privilege}' AS privilege, false AS grantable, NULL::name AS \"column\", \
           true AS marked \
         FROM pg_roles r WHERE r.rolname IN ($4, $5) \
           AND aclcontains({acl}, makeaclitem(r.oid, {owner}, '{privilege}', false))"
    ))
}

/// Returns SQL for the columns of relation `c`, as a JSON list.
fn columns(c: &str) -> String {
    format!(
        "(SELECT coalesce(json_agg(json_build_object('name', t.attname, \
             'type', format_type(t.atttypid, t.atttypmod), 'required', t.attnotnull, \
             'comment', col_description({c}.oid, t.attnum)) ORDER BY t.attnum), '[]') \
           FROM pg_attribute t WHERE t.attrelid = {c}.oid AND t.attnum > 0 AND NOT t.attisdropped)"
    )
}

/// Returns SQL for the rows of a query as a JSON list, sorted by their text.
fn list(query: &str) -> String {
    format!("(SELECT coalesce(json_agg(to_json(q) ORDER BY q::text), '[]') FROM ({query}) q)")
}

const MAY_CREATE_ROLE: &str =
    "(SELECT i.rolcreaterole OR i.rolsuper FROM pg_roles i WHERE i.rolname = current_user)";

fn role(name: &str) -> String {
    let members = list(
        "SELECT m.rolname AS name, coalesce(g.rolname, '') AS grantor, \
           current_setting('server_version_num')::int < 160000 \
             OR coalesce(pg_has_role(current_user, am.grantor, 'USAGE'), false) AS revocable FROM pg_auth_members am \
         JOIN pg_roles m ON m.oid = am.member LEFT JOIN pg_roles g ON g.oid = am.grantor WHERE am.roleid = r.oid",
    );
    format!(
        "(SELECT json_build_object('comment', shobj_description(r.oid, 'pg_authid'), 'login', r.rolcanlogin, \
           'connects', has_database_privilege(r.oid, current_database(), 'CONNECT'), 'members', {members}, \
           'administrable', pg_has_role(current_user, r.oid, 'MEMBER WITH ADMIN OPTION') \
             OR (current_setting('server_version_num')::int < 160000 AND {MAY_CREATE_ROLE})) \
          FROM pg_roles r WHERE r.rolname = {name})"
    )
}

/// Returns SQL for a relation as JSON; `c` is its alias. With `views`, views on the relation are included with
/// all their facts, and views on those views by name only.
fn relation(c: &str, views: bool) -> String {
    let grants = list(&format!(
        "{} UNION ALL SELECT x.* FROM pg_attribute t, LATERAL ({}) x WHERE t.attrelid = {c}.oid \
           AND t.attacl IS NOT NULL AND NOT t.attisdropped",
        grants(&format!("{c}.relacl"), "NULL::name"),
        grants("t.attacl", "t.attname"),
    ));
    let constraints = list(&format!(
        "SELECT k.conname AS name, k.contype AS kind, (SELECT json_agg(t.attname ORDER BY n.ordinality) \
           FROM unnest(k.conkey) WITH ORDINALITY n(attnum, ordinality) \
           JOIN pg_attribute t ON t.attrelid = k.conrelid AND t.attnum = n.attnum) AS columns, \
           EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = k.conindid \
             AND d.classid = 'pg_constraint'::regclass AND d.deptype = 'n') AS referred \
         FROM pg_constraint k WHERE k.conrelid = {c}.oid AND k.contype IN ('p', 'u')"
    ));
    let view = match views {
        true => format!("CASE WHEN v.relkind = 'v' THEN {} END", relation("v", false)),
        false => "NULL::json".to_owned(),
    };
    let holders = match views {
        true => list(&format!(
            "SELECT DISTINCT t.attname AS column, pg_describe_object(d.classid, d.objid, d.objsubid) AS what, \
               d.classid <> 'pg_constraint'::regclass AS typed \
             FROM pg_depend d JOIN pg_attribute t ON t.attrelid = d.refobjid AND t.attnum = d.refobjsubid \
             WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = {c}.oid AND d.refobjsubid > 0 \
               AND d.deptype = 'n' AND d.classid NOT IN ('pg_rewrite'::regclass, 'pg_attrdef'::regclass)"
        )),
        false => "'[]'::json".to_owned(),
    };
    let dependents = list(&format!(
        "SELECT vn.nspname AS schema, v.relname AS name, u.columns, {view} AS view \
         FROM (SELECT w.ev_class, coalesce(json_agg(DISTINCT t.attname) FILTER (WHERE t.attname IS NOT NULL), '[]') \
                  AS columns \
                FROM pg_depend d JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid \
                  LEFT JOIN pg_attribute t ON t.attrelid = d.refobjid AND t.attnum = d.refobjsubid AND t.attnum > 0 \
                WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = {c}.oid AND w.ev_class <> {c}.oid \
                GROUP BY w.ev_class) u \
           JOIN pg_class v ON v.oid = u.ev_class JOIN pg_namespace vn ON vn.oid = v.relnamespace \
         UNION ALL SELECT fn.nspname, f.relname, '[]', NULL FROM pg_class f \
           JOIN pg_namespace fn ON fn.oid = f.relnamespace \
         WHERE f.oid <> {c}.oid AND EXISTS (SELECT FROM pg_constraint k \
           WHERE k.contype = 'f' AND k.confrelid = {c}.oid AND k.conrelid = f.oid)"
    ));
    format!(
        "json_build_object('name', {c}.relname, 'kind', {c}.relkind, 'owner', pg_get_userbyid({c}.relowner), \
           'owner_marked', {}, 'comment', obj_description({c}.oid, 'pg_class'), 'grants', {grants}, 'constraints', {constraints}, \
           'dependents', {dependents}, 'holders', {holders}, \
           'plain', NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = {c}.oid) \
             AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = {c}.oid AND k.contype IN ('c', 'x')) \
             AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = {c}.oid AND (i.indexprs IS NOT NULL \
               OR i.indpred IS NOT NULL OR EXISTS (SELECT FROM unnest(i.indclass) o(id) JOIN pg_opclass oc \
                 ON oc.oid = o.id WHERE oc.opcnamespace <> 'pg_catalog'::regnamespace))) \
             AND NOT EXISTS (SELECT FROM pg_attribute t JOIN pg_type y ON y.oid = t.atttypid \
               WHERE t.attrelid = {c}.oid AND t.attnum > 0 AND NOT t.attisdropped \
                 AND (t.attgenerated <> '' OR y.typnamespace <> 'pg_catalog'::regnamespace)), \
           'definition', CASE WHEN {c}.relkind = 'v' THEN pg_get_viewdef({c}.oid) END, 'columns', {})",
        marked(&format!("{c}.relowner")),
        columns(c)
    )
}

/// Returns the whole query. Its parameters `$1` to `$8`: schema, relations, whole, owners' role, readers' role,
/// schema and name of the source, principals.
fn query(views: bool) -> String {
    const RELATIONS: &str = "c.relkind IN ('r', 'p', 'v', 'm', 'f')";
    let relation = relation("c", views);
    let all_grants = list(&grants("n.nspacl", "NULL::name"));
    let schema_grants = own_grants("n.nspacl", "n.nspowner", "USAGE");
    let source_grants = own_grants("c.relacl", "c.relowner", "SELECT");
    let source_columns = columns("c");
    let lenders = format!(
        "(SELECT coalesce(json_agg(r.rolname ORDER BY r.rolname), '[]') FROM pg_roles r \
          WHERE r.oid IN (n.nspowner, c.relowner) AND r.rolname <> current_user AND {})",
        lends("r.oid")
    );
    // The content of a schema is found by its dependencies, without reading all objects of the database.
    let wanted = "SELECT w.oid FROM pg_class w WHERE NOT $3 AND w.relnamespace = n.oid AND w.relname = ANY ($2) \
        UNION ALL SELECT d.objid FROM pg_depend d WHERE $3 AND d.refclassid = 'pg_namespace'::regclass \
          AND d.refobjid = n.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'n'";
    let others = format!(
        "EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid \
           AND d.deptype = 'n' AND NOT (d.classid = 'pg_statistic_ext'::regclass AND EXISTS ( \
             SELECT FROM pg_statistic_ext e JOIN pg_class c ON c.oid = e.stxrelid WHERE e.oid = d.objid \
               AND c.relnamespace = n.oid AND c.relname = ANY ($2))) AND NOT (d.classid = 'pg_class'::regclass AND EXISTS (SELECT FROM pg_class c \
             WHERE c.relnamespace = n.oid AND c.relname = ANY ($2) AND {RELATIONS} AND (c.oid = d.objid \
               OR EXISTS (SELECT FROM pg_depend o WHERE o.classid = 'pg_class'::regclass AND o.objid = d.objid \
                 AND o.refclassid = 'pg_class'::regclass AND o.refobjid = c.oid AND o.deptype IN ('a', 'i'))))))"
    );
    let extras = list(
        "SELECT 'ROUTINE' AS kind, p.oid::regprocedure::text AS name, pg_get_userbyid(p.proowner) AS owner \
           FROM pg_proc p WHERE p.pronamespace = n.oid \
         UNION ALL SELECT 'TYPE', format_type(y.oid, NULL), pg_get_userbyid(y.typowner) FROM pg_type y \
           WHERE y.typnamespace = n.oid AND y.typtype IN ('d', 'e', 'r', 'c') \
             AND (y.typrelid = 0 OR (SELECT k.relkind = 'c' FROM pg_class k WHERE k.oid = y.typrelid)) \
         UNION ALL SELECT 'SEQUENCE', format('%I.%I', n.nspname, s.relname), pg_get_userbyid(s.relowner) \
           FROM pg_class s WHERE s.relnamespace = n.oid AND s.relkind = 'S' AND NOT EXISTS ( \
             SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = s.oid \
               AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i'))",
    );
    // PostgreSQL renames an array type if another object needs its name.
    let taken = list(
        "SELECT k.relname AS name, CASE k.relkind WHEN 'i' THEN 'index' WHEN 'S' THEN 'sequence' ELSE 'type' END AS kind \
           FROM pg_class k WHERE k.relnamespace = n.oid AND k.relname = ANY ($2) AND k.relkind NOT IN ('r', 'p', 'v', 'm', 'f') \
         UNION ALL SELECT y.typname, 'type' FROM pg_type y WHERE y.typnamespace = n.oid AND y.typname = ANY ($2) \
           AND y.typrelid = 0 AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = y.oid)",
    );
    let (owner, reader) = (role("$4"), role("$5"));
    format!(
        "SELECT json_build_object( \
           'me', current_user, 'version', current_setting('server_version_num')::int, \
           'may_grant_connect', \
              has_database_privilege(current_user, current_database(), 'CONNECT WITH GRANT OPTION'), \
           'may_create_role', {MAY_CREATE_ROLE}, \
           'may_create_database', \
              (SELECT i.rolcreatedb OR i.rolsuper FROM pg_roles i WHERE i.rolname = current_user), \
           'may_create_schema', has_database_privilege(current_user, current_database(), 'CREATE'), \
           'owner', {owner}, 'reader', {reader}, \
           'schema', (SELECT json_build_object('owner', pg_get_userbyid(n.nspowner), \
               'comment', obj_description(n.oid, 'pg_namespace'), \
               'grants', CASE WHEN $3 THEN {all_grants} ELSE {schema_grants} END, \
               'by_default', EXISTS (SELECT FROM pg_default_acl da, aclexplode(da.defaclacl) a \
                  WHERE da.defaclnamespace = n.oid AND da.defaclobjtype = 'r' \
                    AND pg_get_userbyid(da.defaclrole) = $4 AND pg_get_userbyid(a.grantee) = $5 \
                    AND a.privilege_type = 'SELECT'), \
               'relations', (SELECT coalesce(json_agg({relation} ORDER BY c.relname), '[]') FROM pg_class c \
                  WHERE {RELATIONS} AND c.oid = ANY (ARRAY({wanted}))), \
               'extras', CASE WHEN $3 THEN {extras} ELSE '[]' END, \
               'others', CASE WHEN $3 THEN false ELSE {others} END, 'taken', {taken}) \
             FROM pg_namespace n WHERE n.nspname = $1), \
           'source', (SELECT json_build_object('comment', obj_description(n.oid, 'pg_namespace'), \
               'schema_grants', {schema_grants}, \
               'relation', (SELECT json_build_object('owner', pg_get_userbyid(c.relowner), \
                   'lenders', {lenders}, 'grants', {source_grants}, 'columns', {source_columns}) FROM pg_class c \
                  WHERE c.relnamespace = n.oid AND {RELATIONS} AND c.relname = $7)) \
             FROM pg_namespace n WHERE n.nspname = $6), \
           'lenders', (SELECT coalesce(json_agg(DISTINCT o.rolname), '[]') FROM pg_shdepend d \
               LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid \
               LEFT JOIN pg_namespace n ON d.classid = 'pg_namespace'::regclass AND n.oid = d.objid \
               LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid \
               LEFT JOIN pg_type y ON d.classid = 'pg_type'::regclass AND y.oid = d.objid \
               JOIN pg_roles o ON o.oid = coalesce(c.relowner, n.nspowner, p.proowner, y.typowner) \
             WHERE d.refclassid = 'pg_authid'::regclass \
               AND d.refobjid = ANY (ARRAY(SELECT r.oid FROM pg_roles r WHERE r.rolname IN ($4, $5))) \
               AND d.deptype = 'a' AND d.dbid IS NOT DISTINCT FROM \
                 (SELECT b.oid FROM pg_database b WHERE b.datname = current_database()) \
               AND o.rolname NOT IN ($4, $5, current_user) AND {lends}), \
           'elsewhere', $3 AND EXISTS (SELECT FROM pg_namespace n WHERE n.nspname <> 'information_schema' \
               AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> $1 \
               AND (n.nspname <> 'public' OR EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid) \
                 OR EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = n.oid) \
                 OR EXISTS (SELECT FROM pg_type t WHERE t.typnamespace = n.oid))), \
           'principals', (SELECT coalesce(json_agg(json_build_object('name', p.rolname, \
               'marked', {})), '[]') FROM unnest($8::text[]) AS u (name), \
             LATERAL (SELECT r.oid, r.rolname FROM pg_roles r WHERE r.rolname = u.name OFFSET 0) p))::text",
        marked("p.oid"),
        lends = lends("o.oid")
    )
}

/// Observes the database.
pub(super) async fn observe(session: &Session, question: &Question) -> Result<Seen> {
    let source = question.source.clone();
    let (source_schema, source_name) =
        source.map_or((None, None), |(schema, name)| (Some(schema), Some(name)));
    let parameters: &[&(dyn ToSql + Sync)] = &[
        &question.schema,
        &question.relations,
        &question.whole,
        &question.owner_role,
        &question.reader_role,
        &source_schema,
        &source_name,
        &question.principals,
    ];
    static PLAIN: LazyLock<String> = LazyLock::new(|| query(false));
    static WITH_VIEWS: LazyLock<String> = LazyLock::new(|| query(true));
    let sql: &'static str = if question.views { &WITH_VIEWS } else { &PLAIN };
    let text = session.text(&session.prepared(sql).await?, parameters).await?.unwrap_or_default();
    serde_json::from_str(&text)
        .map_err(|e| Error::permanent("the catalogs of PostgreSQL have an unexpected shape").because(e))
}

/// Observes a database of the server from a session with another database. `None` if it does not exist.
pub(super) async fn database(session: &Session, name: &str) -> Result<Option<Database>> {
    const QUERY: &str = "SELECT json_build_object('owner', pg_get_userbyid(d.datdba), \
        'comment', shobj_description(d.oid, 'pg_database'), 'broken', d.datconnlimit = -2, \
        'public', d.datacl IS NULL OR EXISTS (SELECT FROM aclexplode(d.datacl) a \
           WHERE a.grantee = 0 AND a.privilege_type = 'CONNECT'), \
        'connects', EXISTS (SELECT FROM aclexplode(d.datacl) a JOIN pg_roles r ON r.oid = a.grantee \
           WHERE r.rolname = current_user AND a.privilege_type = 'CONNECT'))::text FROM pg_database d WHERE d.datname::text = $1::text";
    let Some(text) = session.text(QUERY, &[&name]).await? else { return Ok(None) };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|e| Error::permanent("the catalogs of PostgreSQL have an unexpected shape").because(e))
}

impl Probe {
    pub(super) fn table(&self) -> &str {
        match self {
            Self::Rows { table }
            | Self::Nulls { table, .. }
            | Self::Values { table, .. }
            | Self::Duplicates { table, .. } => table,
        }
    }

    /// Returns the query that counts the rows, up to [`MANY`] + 1.
    pub(super) fn query(&self, schema: &str) -> String {
        let table = dotted(schema, self.table());
        let condition = match self {
            Self::Rows { .. } => "true".to_owned(),
            Self::Nulls { column, .. } => format!("t.{} IS NULL", ident(column)),
            Self::Values { column, .. } => format!("t.{} IS NOT NULL", ident(column)),
            Self::Duplicates { columns, .. } => {
                let columns = idents(columns.iter().map(String::as_str));
                let shared = format!("SELECT {columns} FROM {table} GROUP BY {columns} HAVING count(*) > 1");
                format!("({columns}) IN ({shared})")
            }
        };
        format!("SELECT count(*)::text FROM (SELECT FROM {table} t WHERE {condition} LIMIT {}) q", MANY + 1)
    }
}

/// "3 rows", "more than 1000 rows".
pub(super) fn counted(count: i64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count if count > MANY => format!("more than {MANY} {what}s"),
        count => format!("{count} {what}s"),
    }
}
