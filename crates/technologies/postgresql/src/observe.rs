//! What is there: one query of the catalogs, and a look at rows where a refusal should say what would be lost.
//!
//! Everything a component may touch is seen at once, in one snapshot: its two roles and who is in them, its schema
//! with what is in it, the relation that a view reads from, and the roles that refs may mean. What is planned from it
//! is pure (see `desired.rs`).
//!
//! Rows are another matter than catalogs: a policy, a check or the query of a view may call functions of whoever owns
//! it, and they run with the rights of whoever looks. So rows are only looked at with the rights of a reader (`guard.rs`).

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use tokio_postgres::types::ToSql;

use super::mark::Mark;
use super::possessions::Possessions;
use super::session::{Session, Unknown};
use super::sql::{dotted, ident, idents};
use landfall_adapter::error::{Error, Result};

/// More than so many rows are not counted.
const MANY: i64 = 1000;

/// What to look at.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Question {
    pub(super) schema: String,
    /// Relations to look at; with [`Self::whole`], those that shall be there.
    pub(super) relations: Vec<String>,
    /// Whether all that is in the schema is the component's affair.
    pub(super) whole: bool,
    /// Whether the views on its tables may have to be made anew.
    pub(super) views: bool,
    pub(super) owner_role: String,
    pub(super) reader_role: String,
    /// Schema and name of what a view reads from.
    pub(super) source: Option<(String, String)>,
    /// Roles that refs may mean.
    pub(super) principals: Vec<String>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Seen {
    /// The role that Landfall is.
    pub(super) me: String,
    /// `server_version_num`.
    pub(super) version: i32,
    /// Whether Landfall may let others connect.
    pub(super) may_grant_connect: bool,
    /// Whether it may make roles, databases, and schemas in this database.
    pub(super) may_create_role: bool,
    pub(super) may_create_database: bool,
    pub(super) may_create_schema: bool,
    pub(super) owner: Option<Role>,
    pub(super) reader: Option<Role>,
    pub(super) schema: Option<Schema>,
    pub(super) source: Option<Source>,
    /// Whether there is another schema; `public` only when there is something in it. With [`Question::whole`] only.
    pub(super) elsewhere: bool,
    /// Of a storage area that has one of its own.
    #[serde(default)]
    pub(super) database: Option<Database>,
    /// Of [`Question::principals`], those that there are.
    pub(super) principals: Vec<Known>,
    /// Other roles of ours that own something on which the component's roles have a right.
    pub(super) lenders: Vec<String>,
    /// What the component's roles have, where it is to be taken away.
    #[serde(skip)]
    pub(super) possessions: Possessions,
    /// Answers about rows, by what was asked.
    #[serde(skip)]
    pub(super) facts: BTreeMap<Probe, Count>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Database {
    pub(super) owner: String,
    pub(super) comment: Option<String>,
    /// Whether everybody may connect.
    pub(super) public: bool,
    /// Whether a drop of it was begun and not ended. Nothing but another drop is possible then.
    #[serde(default)]
    pub(super) broken: bool,
    /// Whether Landfall may, without being a member of the owners' role.
    pub(super) connects: bool,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Role {
    pub(super) comment: Option<String>,
    pub(super) login: bool,
    pub(super) connects: bool,
    /// Whether Landfall may grant and drop it.
    pub(super) administrable: bool,
    pub(super) members: Vec<Member>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) grantor: String,
    /// Whether Landfall could revoke it. Since 16, that takes the rights of whoever granted it.
    pub(super) revocable: bool,
}

/// A role that a ref may mean.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Known {
    pub(super) name: String,
    /// Whether it has a mark of ours: no person and no group then.
    pub(super) marked: bool,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Schema {
    pub(super) owner: String,
    pub(super) comment: Option<String>,
    /// Without [`Question::whole`], those to the component's own roles.
    pub(super) grants: Vec<Grant>,
    /// Whether readers get what the owner makes from now on.
    pub(super) by_default: bool,
    pub(super) relations: Vec<Relation>,
    /// Functions, types and sequences; none without [`Question::whole`].
    pub(super) extras: Vec<Extra>,
    /// Whether there is anything that was not asked for; never with [`Question::whole`].
    pub(super) others: bool,
    /// Indexes, sequences and types with a name that was asked for: no relation can get it.
    pub(super) taken: Vec<Taken>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Taken {
    pub(super) name: String,
    /// "index", "sequence", "type"
    pub(super) kind: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Relation {
    pub(super) name: String,
    /// `relkind`: r, p, v, m, f.
    pub(super) kind: char,
    pub(super) owner: String,
    /// Whether that is a role of ours.
    pub(super) owner_marked: bool,
    pub(super) comment: Option<String>,
    pub(super) grants: Vec<Grant>,
    pub(super) columns: Vec<SeenColumn>,
    pub(super) constraints: Vec<SeenConstraint>,
    pub(super) definition: Option<String>,
    /// Whether rewriting its rows would run nothing but PostgreSQL's own functions.
    pub(super) plain: bool,
    pub(super) dependents: Vec<Dependent>,
    /// What else uses one of its columns; none without [`Question::views`].
    pub(super) holders: Vec<Holder>,
}

/// A policy, trigger, function, publication or foreign key that uses a column, so that PostgreSQL does not drop it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Holder {
    pub(super) column: String,
    /// As PostgreSQL describes it: "policy p on table t".
    pub(super) what: String,
    /// Whether it stands against another type, too.
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
    /// Whether a foreign key refers to it.
    pub(super) referred: bool,
}

/// A view that reads from a relation, or a table that refers to it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Dependent {
    pub(super) schema: String,
    pub(super) name: String,
    /// The columns that it reads.
    #[serde(default)]
    pub(super) columns: Vec<String>,
    /// All of it, where it is a view that depends on what was asked for.
    #[serde(default)]
    pub(super) view: Option<Box<Relation>>,
}

/// An entry of an access control list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) struct Grant {
    /// `None`: everybody.
    pub(super) grantee: Option<String>,
    pub(super) privilege: String,
    pub(super) grantable: bool,
    /// For one column only.
    pub(super) column: Option<String>,
    /// Whether the grantee is a role of ours.
    pub(super) marked: bool,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Extra {
    /// `ROUTINE`, `TYPE` or `SEQUENCE`.
    pub(super) kind: String,
    /// As SQL writes it.
    pub(super) name: String,
    pub(super) owner: String,
}

/// What a view reads from. Of grants there are those to the component's own roles.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Source {
    /// Of its schema.
    pub(super) comment: Option<String>,
    pub(super) relation: Option<SourceRelation>,
    pub(super) schema_grants: Vec<Grant>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct SourceRelation {
    pub(super) owner: String,
    /// Roles of ours that own it or its schema: of other components of the data product.
    pub(super) lenders: Vec<String>,
    pub(super) grants: Vec<Grant>,
    pub(super) columns: Vec<SeenColumn>,
}

/// How many rows, or why that is not known.
pub(super) type Count = Result<i64, Unknown>;

/// A question about rows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) enum Probe {
    /// How many rows a table has.
    Rows { table: String },
    /// How many of them lack a value in a column.
    Nulls { table: String, column: String },
    /// How many have one.
    Values { table: String, column: String },
    /// How many rows share their values of some columns with another row.
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

    /// As statements name its kind.
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

/// Whether a role has a privilege on all of an object.
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

    /// What has a name that a relation shall get.
    pub(super) fn taken(&self, name: &str) -> Option<&Taken> {
        self.schema.as_ref()?.taken.iter().find(|taken| taken.name == name)
    }

    pub(super) fn fact(&self, probe: &Probe) -> Count {
        self.facts.get(probe).copied().unwrap_or(Ok(0))
    }
}

/// The entries of an access control list `acl`; `column` is SQL for the name of a column. The slice is a copy in memory:
/// of a long list, which PostgreSQL keeps compressed, `aclexplode` would read the whole again for each entry.
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

/// Whether a role, by its OID, is one of ours.
fn marked(role: &str) -> String {
    format!("coalesce(shobj_description({role}, 'pg_authid') LIKE '%landfall {{%', false)")
}

/// Whether a role, by its OID, is one of ours that owns things in this database. Of one that owns another database,
/// Landfall is a member for good.
pub(super) fn lends(role: &str) -> String {
    format!(
        "{} AND strpos(shobj_description({role}, 'pg_authid'), \
           '\"database\":' || to_json(current_database()::text)::text) > 0",
        marked(role)
    )
}

/// Which of the component's own roles have a privilege that the owner of something granted. What many components share
/// has as many entries as they are, so the list is asked and not read.
fn own_grants(acl: &str, owner: &str, privilege: &str) -> String {
    list(&format!(
        "SELECT r.rolname AS grantee, '{privilege}' AS privilege, false AS grantable, NULL::name AS \"column\", \
           true AS marked \
         FROM pg_roles r WHERE r.rolname IN ($4, $5) \
           AND aclcontains({acl}, makeaclitem(r.oid, {owner}, '{privilege}', false))"
    ))
}

/// The columns of relation `c`, as JSON.
fn columns(c: &str) -> String {
    format!(
        "(SELECT coalesce(json_agg(json_build_object('name', t.attname, \
             'type', format_type(t.atttypid, t.atttypmod), 'required', t.attnotnull, \
             'comment', col_description({c}.oid, t.attnum)) ORDER BY t.attnum), '[]') \
           FROM pg_attribute t WHERE t.attrelid = {c}.oid AND t.attnum > 0 AND NOT t.attisdropped)"
    )
}

/// A JSON list of the rows of a query, in their own order.
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

/// A relation as JSON; `c` is its alias. With `views` those on it are told in full, and those on these by name.
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

/// The whole query. Parameters: schema, relations, whole, owner role, reader role, schema and name of the source,
/// principals.
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
    // What is in a schema is found by what depends on it, and so without looking at all that is in the database.
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
    // An array type makes room for whoever wants its name.
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

/// Looks.
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

/// A database of the server, from whichever other.
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

    /// Counts rows, up to a thousand and one.
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
