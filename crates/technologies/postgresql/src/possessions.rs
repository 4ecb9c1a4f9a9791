//! What the roles of a component have: objects, rights and memberships, of every kind and in the whole database.
//!
//! A removal has to know all of it, because an object that runs code (a function, a view, a trigger) runs with the
//! rights of its owner. So the list is PostgreSQL's own, `pg_shdepend`, and not a list of known kinds. Dependencies
//! are in `pg_depend`: an object is dropped only if no other object needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde::Deserialize;

use super::desired::Place;
use super::observe::lends;
use super::session::Session;
use landfall_adapter::error::{Error, Result};

/// Everything that the roles of a component have, as far as it is visible from one database.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub(super) struct Possessions {
    pub(super) objects: Vec<Object>,
    pub(super) rights: Vec<Right>,
    pub(super) memberships: Vec<Membership>,
    pub(super) elsewhere: Vec<Elsewhere>,
    /// Other schemas of a component's own database.
    pub(super) schemas: Vec<OtherSchema>,
}

/// An object that a role of the component owns. In the component's schema, also an object that Landfall owns.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Object {
    pub(super) id: String,
    /// Empty for a cast, which has no owner.
    pub(super) owner: String,
    /// The kind as `pg_identify_object` returns it: `table`, `function`, `text search dictionary`.
    pub(super) kind: String,
    /// The quoted name, as statements write it.
    pub(super) name: String,
    /// The unquoted name, if the object is a table or view in the component's schema.
    pub(super) relation: Option<String>,
    /// Whether the object is the component's schema.
    pub(super) schema: bool,
    /// Whether the object is code that runs with the rights of its owner.
    pub(super) definer: bool,
    /// Ids of the listed objects that this object is a part of.
    pub(super) within: Vec<String>,
    /// The objects that need this object.
    pub(super) needs: Vec<Need>,
}

/// An object that needs another one, described by `what`. It is dropped with any object whose id is in
/// `covers`. If `covers` is empty, it stays.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Need {
    pub(super) covers: Vec<String>,
    pub(super) what: String,
}

/// A right on an object of another role.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Right {
    /// The id of the object, as in [`Object::id`].
    pub(super) id: String,
    pub(super) role: String,
    pub(super) kind: String,
    pub(super) name: String,
    /// Whether Landfall can revoke the right.
    pub(super) revocable: bool,
}

/// A membership of the component's role in another role.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Membership {
    pub(super) role: String,
    pub(super) group: String,
    pub(super) grantor: String,
    pub(super) revocable: bool,
}

/// An object that no statement in this database can drop.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Elsewhere {
    pub(super) role: String,
    /// "something in database `x`", "subscription x".
    pub(super) what: String,
}

/// A schema that does not belong to the component.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct OtherSchema {
    pub(super) id: String,
    /// Whether it is `public`, which counts only if it has content.
    pub(super) public: bool,
    /// The ids of the objects in the schema.
    pub(super) contents: Vec<String>,
}

/// What a removal drops, and why the rest stays.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Removal {
    /// The ids of everything that is dropped, with parts.
    pub(super) gone: BTreeSet<String>,
    /// The DROP statements, in an order in which no remaining object needs a dropped one.
    pub(super) drops: Vec<String>,
    /// Whether the remaining objects can only be dropped together, with DROP OWNED.
    pub(super) together: bool,
}

impl Object {
    /// The keywords for the object's kind in ALTER and DROP; `None` if the kind has no such statement.
    pub(super) fn keyword(&self) -> Option<String> {
        Some(match self.kind.as_str() {
            "function" | "procedure" | "aggregate" | "window function" => "ROUTINE".to_owned(),
            "foreign-data wrapper" => "FOREIGN DATA WRAPPER".to_owned(),
            "statistics object" => "STATISTICS".to_owned(),
            "domain" => "TYPE".to_owned(),
            "table"
            | "view"
            | "materialized view"
            | "foreign table"
            | "sequence"
            | "type"
            | "schema"
            | "cast"
            | "collation"
            | "conversion"
            | "operator"
            | "operator class"
            | "operator family"
            | "language"
            | "text search configuration"
            | "text search dictionary"
            | "publication"
            | "server"
            | "extension"
            | "event trigger"
            | "user mapping"
            | "large object" => self.kind.to_ascii_uppercase(),
            _ => return None,
        })
    }

    fn drop_statement(&self) -> Option<String> {
        let keyword = self.keyword()?;
        Some(match self.kind.as_str() {
            // The name of a large object is its OID in digits, so quoting is not needed.
            "large object" => format!("SELECT pg_catalog.lo_unlink({})", self.name),
            "user mapping" => format!("DROP USER MAPPING {}", self.name),
            _ => format!("DROP {keyword} {} RESTRICT", self.name),
        })
    }
}

impl Right {
    /// The statement that revokes the right from `role`, with all grants that depend on it. `None` if the kind
    /// of object has no such statement.
    pub(super) fn revocation(&self, role: &str) -> Option<String> {
        let kind = match self.kind.as_str() {
            "table" | "view" | "materialized view" | "foreign table" | "sequence" => "TABLE",
            "function" | "procedure" | "aggregate" | "window function" => "ROUTINE",
            "type" | "domain" => "TYPE",
            "schema" => "SCHEMA",
            "database" => "DATABASE",
            "language" => "LANGUAGE",
            "foreign-data wrapper" => "FOREIGN DATA WRAPPER",
            "server" => "FOREIGN SERVER",
            "large object" => "LARGE OBJECT",
            "tablespace" => "TABLESPACE",
            _ => return None,
        };
        Some(format!("REVOKE ALL ON {kind} {} FROM {role} CASCADE", self.name))
    }
}

impl Possessions {
    /// Returns what can be dropped, and in which order. `mine` is Landfall's role.
    pub(super) fn removal(&self, mine: &str) -> Removal {
        let mut gone: BTreeSet<&str> = self.objects.iter().map(|object| object.id.as_str()).collect();
        // An object that a remaining object needs stays, too. Repeat until no further object stays.
        loop {
            let goes = |object: &&Object| {
                gone.contains(object.id.as_str())
                    && object.needs.iter().all(|need| covered(&need.covers, &gone))
                    && (object.within.is_empty() || covered(&object.within, &gone))
            };
            let left: BTreeSet<&str> =
                self.objects.iter().filter(goes).map(|object| object.id.as_str()).collect();
            if left.len() == gone.len() {
                break;
            }
            gone = left;
        }
        let everything = gone.len() == self.objects.len();
        let mut parts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for object in &self.objects {
            for whole in &object.within {
                parts.entry(whole.as_str()).or_default().push(object.id.as_str());
            }
        }
        // Parts are dropped with the object that they belong to.
        let mut waiting: Vec<&Object> = self
            .objects
            .iter()
            .filter(|object| gone.contains(object.id.as_str()) && !covered(&object.within, &gone))
            .collect();
        let mut removal = Removal::default();
        let mut done: BTreeSet<&str> = BTreeSet::new();
        while !waiting.is_empty() {
            let with_parts = |object: &Object| {
                let mut all = BTreeSet::from([object.id.clone()]);
                all.extend(parts.get(object.id.as_str()).into_iter().flatten().map(|id| (*id).to_owned()));
                all
            };
            let is_free = |object: &&Object| {
                let own = with_parts(object);
                object.drop_statement().is_some()
                    && object.needs.iter().all(|need| {
                        covered(&need.covers, &done) || need.covers.iter().any(|id| own.contains(id))
                    })
            };
            let (free, rest): (Vec<_>, Vec<_>) = waiting.iter().copied().partition(is_free);
            let (dropped, rest) = if free.is_empty() {
                let (tables, others) = tables_together(&rest, &done, &parts);
                if tables.is_empty() {
                    // The rest can only be dropped with DROP OWNED, so only if everything goes and none of it
                    // belongs to Landfall.
                    removal.together = everything && rest.iter().all(|object| object.owner != mine);
                    if removal.together {
                        done.extend(rest.iter().map(|object| object.id.as_str()));
                        for object in rest {
                            done.extend(parts.get(object.id.as_str()).into_iter().flatten());
                        }
                    }
                    break;
                }
                let names: Vec<_> = tables.iter().map(|table| table.name.as_str()).collect();
                removal.drops.push(format!("DROP TABLE {} RESTRICT", names.join(", ")));
                (tables, others)
            } else {
                removal.drops.extend(free.iter().filter_map(|object| object.drop_statement()));
                (free, rest)
            };
            for object in dropped {
                done.insert(object.id.as_str());
                done.extend(parts.get(object.id.as_str()).into_iter().flatten());
            }
            waiting = rest;
        }
        removal.gone = done.into_iter().map(str::to_owned).collect();
        removal
    }
}

/// Splits `waiting` into tables that refer to each other, which one statement can drop, and the other objects.
fn tables_together<'a>(
    waiting: &[&'a Object],
    done: &BTreeSet<&str>,
    parts: &BTreeMap<&str, Vec<&str>>,
) -> (Vec<&'a Object>, Vec<&'a Object>) {
    let mut tables: Vec<&Object> = waiting.iter().copied().filter(|object| object.kind == "table").collect();
    loop {
        let mut group = done.clone();
        for table in &tables {
            group.insert(table.id.as_str());
            group.extend(parts.get(table.id.as_str()).into_iter().flatten());
        }
        let left: Vec<&Object> = tables
            .iter()
            .copied()
            .filter(|table| table.needs.iter().all(|need| covered(&need.covers, &group)))
            .collect();
        if left.len() == tables.len() {
            break;
        }
        tables = left;
    }
    let rest = waiting.iter().copied().filter(|object| !tables.iter().any(|table| table.id == object.id));
    let rest = rest.collect();
    (tables, rest)
}

fn covered(covers: &[String], by: &BTreeSet<&str>) -> bool {
    covers.iter().any(|id| by.contains(id.as_str()))
}

/// The query. Objects in a temporary schema end with their session, and DROP OWNED removes them. Parameters: owners'
/// role, readers' role, schema, relation (none for a storage area), whether the database is the component's own.
fn query() -> String {
    // Dependencies of objects that are a part of another one and are dropped with it: indexes, rules, defaults
    // of columns, owned sequences, partitions.
    const PART: &str = "d.deptype IN ('a', 'i', 'P', 'S', 'e')";
    const ID: &str = "classid::text || ':' ||";
    let lends = lends("a.owner");
    format!(
        "WITH RECURSIVE roles AS MATERIALIZED (SELECT r.oid, r.rolname FROM pg_roles r WHERE r.rolname IN ($1, $2)), \
         me AS MATERIALIZED (SELECT r.oid, r.rolname FROM pg_roles r WHERE r.rolname = current_user), \
         here AS MATERIALIZED (SELECT b.oid FROM pg_database b WHERE b.datname = current_database()), \
         space AS MATERIALIZED (SELECT n.oid, n.nspowner FROM pg_namespace n WHERE n.nspname = $3), \
         owned AS MATERIALIZED ( \
           SELECT d.classid, d.objid, r.rolname AS owner FROM pg_shdepend d JOIN roles r ON r.oid = d.refobjid \
             WHERE d.refclassid = 'pg_authid'::regclass AND d.deptype = 'o' AND d.dbid = (SELECT oid FROM here) \
               AND d.classid <> 'pg_default_acl'::regclass AND NOT EXISTS (SELECT FROM pg_depend x \
                 JOIN pg_namespace t ON t.oid = x.refobjid WHERE x.classid = d.classid AND x.objid = d.objid \
                   AND x.refclassid = 'pg_namespace'::regclass AND t.nspname LIKE 'pg\\_temp\\_%') \
           UNION ALL SELECT d.classid, d.objid, me.rolname FROM space n \
             JOIN pg_depend x ON x.refclassid = 'pg_namespace'::regclass AND x.refobjid = n.oid AND x.deptype = 'n' \
             JOIN pg_shdepend d ON d.dbid = (SELECT oid FROM here) AND d.classid = x.classid AND d.objid = x.objid \
               AND d.refclassid = 'pg_authid'::regclass AND d.deptype = 'o' JOIN me ON me.oid = d.refobjid \
             WHERE $4::text IS NULL OR (d.classid = 'pg_class'::regclass AND EXISTS (SELECT FROM pg_class c \
               WHERE c.oid = d.objid AND c.relname::text = $4::text)) \
           UNION ALL SELECT 'pg_namespace'::regclass::oid, n.oid, me.rolname FROM space n JOIN me ON me.oid = n.nspowner \
             WHERE $4::text IS NULL), \
         parts AS ( \
           SELECT o.classid AS c, o.objid AS o, o.classid, o.objid FROM owned o \
           UNION SELECT p.c, p.o, d.classid, d.objid FROM parts p JOIN pg_depend d \
             ON d.refclassid = p.classid AND d.refobjid = p.objid AND {PART}), \
         mine AS MATERIALIZED ( \
           SELECT o.classid, o.objid, o.owner FROM owned o \
           UNION ALL SELECT DISTINCT d.classid, d.objid, ''::name FROM parts p \
             JOIN pg_depend d ON d.refclassid = p.classid AND d.refobjid = p.objid \
             WHERE d.classid IN ('pg_cast'::regclass, 'pg_transform'::regclass) AND NOT EXISTS (SELECT FROM pg_depend r \
               WHERE r.classid = d.classid AND r.objid = d.objid AND NOT EXISTS (SELECT FROM parts q \
                 WHERE q.classid = r.refclassid AND q.objid = r.refobjid))), \
         needs AS MATERIALIZED ( \
           SELECT DISTINCT p.c, p.o, d.classid, d.objid FROM parts p JOIN pg_depend d \
             ON d.refclassid = p.classid AND d.refobjid = p.objid AND d.deptype = 'n'), \
         up AS ( \
           SELECT DISTINCT n.classid AS c, n.objid AS o, n.classid, n.objid FROM needs n \
           UNION SELECT u.c, u.o, d.refclassid, d.refobjid FROM up u JOIN pg_depend d \
             ON d.classid = u.classid AND d.objid = u.objid AND {PART}), \
         said AS MATERIALIZED ( \
           SELECT u.c, u.o, coalesce(json_agg(u.{ID} u.objid ORDER BY u.classid, u.objid) \
               FILTER (WHERE EXISTS (SELECT FROM mine m WHERE m.classid = u.classid AND m.objid = u.objid)), '[]') AS covers, \
             coalesce(min(pg_describe_object(u.classid, u.objid, 0)) FILTER (WHERE NOT EXISTS (SELECT FROM pg_depend d \
               WHERE d.classid = u.classid AND d.objid = u.objid AND {PART})), '') AS what \
           FROM up u GROUP BY u.c, u.o), \
         lists AS ( \
           SELECT d.refobjid, d.classid, d.objid, a.owner, a.acl FROM pg_shdepend d JOIN roles r ON r.oid = d.refobjid, \
             LATERAL ( \
               SELECT c.relowner AS owner, c.relacl AS acl FROM pg_class c \
                 WHERE d.classid = 'pg_class'::regclass AND d.objsubid = 0 AND c.oid = d.objid \
               UNION ALL SELECT c.relowner, t.attacl FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid \
                 WHERE d.classid = 'pg_class'::regclass AND d.objsubid <> 0 AND c.oid = d.objid AND t.attnum = d.objsubid \
               UNION ALL SELECT n.nspowner, n.nspacl FROM pg_namespace n \
                 WHERE d.classid = 'pg_namespace'::regclass AND n.oid = d.objid \
               UNION ALL SELECT p.proowner, p.proacl FROM pg_proc p WHERE d.classid = 'pg_proc'::regclass AND p.oid = d.objid \
               UNION ALL SELECT y.typowner, y.typacl FROM pg_type y WHERE d.classid = 'pg_type'::regclass AND y.oid = d.objid \
               UNION ALL SELECT l.lanowner, l.lanacl FROM pg_language l \
                 WHERE d.classid = 'pg_language'::regclass AND l.oid = d.objid \
               UNION ALL SELECT w.fdwowner, w.fdwacl FROM pg_foreign_data_wrapper w \
                 WHERE d.classid = 'pg_foreign_data_wrapper'::regclass AND w.oid = d.objid \
               UNION ALL SELECT s.srvowner, s.srvacl FROM pg_foreign_server s \
                 WHERE d.classid = 'pg_foreign_server'::regclass AND s.oid = d.objid \
               UNION ALL SELECT b.datdba, b.datacl FROM pg_database b \
                 WHERE d.classid = 'pg_database'::regclass AND b.oid = d.objid \
               UNION ALL SELECT t.spcowner, t.spcacl FROM pg_tablespace t \
                 WHERE d.classid = 'pg_tablespace'::regclass AND t.oid = d.objid \
               UNION ALL SELECT l.lomowner, l.lomacl FROM pg_largeobject_metadata l \
                 WHERE d.classid = 'pg_largeobject'::regclass AND l.oid = d.objid \
               UNION ALL SELECT e.defaclrole, e.defaclacl FROM pg_default_acl e \
                 WHERE d.classid = 'pg_default_acl'::regclass AND e.oid = d.objid) a \
             WHERE d.refclassid = 'pg_authid'::regclass AND d.deptype = 'a' AND d.dbid IN (0, (SELECT oid FROM here))), \
         rights AS ( \
           SELECT DISTINCT a.refobjid, a.classid, a.objid, e.grantor = (SELECT oid FROM me) OR (e.grantor = a.owner \
               AND (a.owner IN (SELECT oid FROM roles UNION ALL SELECT oid FROM me) OR {lends})) AS revocable \
           FROM lists a, aclexplode(a.acl[:]) e WHERE e.grantee = a.refobjid) \
         SELECT json_build_object( \
           'objects', (SELECT coalesce(json_agg(json_build_object('id', m.{ID} m.objid, 'owner', m.owner, 'kind', i.type, \
               'name', CASE WHEN m.classid = 'pg_user_mapping'::regclass THEN (SELECT format('FOR %I SERVER %I', \
                   u.usename, u.srvname) FROM pg_user_mappings u WHERE u.umid = m.objid) ELSE i.identity END, \
               'relation', (SELECT c.relname FROM pg_class c, space n WHERE m.classid = 'pg_class'::regclass \
                  AND c.oid = m.objid AND c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f')), \
               'schema', m.classid = 'pg_namespace'::regclass AND EXISTS (SELECT FROM space n WHERE n.oid = m.objid), \
               'definer', m.classid = 'pg_proc'::regclass AND EXISTS (SELECT FROM pg_proc p WHERE p.oid = m.objid \
                  AND p.prosecdef), \
               'within', coalesce(w.list, '[]'), 'needs', coalesce(e.list, '[]')) \
               ORDER BY i.type, i.identity, m.objid), '[]') \
             FROM mine m LEFT JOIN ( \
                 SELECT p.classid, p.objid, json_agg(p.c::text || ':' || p.o ORDER BY p.c, p.o) AS list FROM parts p \
                   WHERE p.c <> p.classid OR p.o <> p.objid GROUP BY p.classid, p.objid) w \
                 ON w.classid = m.classid AND w.objid = m.objid \
               LEFT JOIN (SELECT n.c, n.o, json_agg(json_build_object('covers', s.covers, 'what', s.what) \
                   ORDER BY s.what, s.c, s.o) AS list FROM needs n JOIN said s ON s.c = n.classid AND s.o = n.objid \
                   GROUP BY n.c, n.o) e ON e.c = m.classid AND e.o = m.objid, \
               LATERAL pg_identify_object(m.classid, m.objid, 0) i), \
           'rights', (SELECT coalesce(json_agg(json_build_object('id', a.{ID} a.objid, 'role', r.rolname, \
               'kind', i.type, 'name', i.identity, 'revocable', a.revocable) ORDER BY r.rolname, i.type, i.identity, a.revocable), '[]') \
             FROM rights a JOIN roles r ON r.oid = a.refobjid, LATERAL pg_identify_object(a.classid, a.objid, 0) i), \
           'memberships', (SELECT coalesce(json_agg(json_build_object('role', r.rolname, 'group', g.rolname, \
               'grantor', coalesce(t.rolname, ''), 'revocable', am.grantor = (SELECT oid FROM me) OR CASE WHEN \
                  current_setting('server_version_num')::int < 160000 THEN NOT g.rolsuper \
                  ELSE coalesce(pg_has_role(current_user, am.grantor, 'USAGE'), false) END) \
               ORDER BY r.rolname, g.rolname, t.rolname), '[]') \
             FROM pg_auth_members am JOIN roles r ON r.oid = am.member JOIN pg_roles g ON g.oid = am.roleid \
               LEFT JOIN pg_roles t ON t.oid = am.grantor), \
           'elsewhere', (SELECT coalesce(json_agg(json_build_object('role', x.role, 'what', x.what) \
               ORDER BY x.role, x.what), '[]') FROM ( \
             SELECT DISTINCT r.rolname AS role, 'something in database `' || b.datname || '`' AS what FROM pg_shdepend d \
               JOIN roles r ON r.oid = d.refobjid JOIN pg_database b ON b.oid = d.dbid \
               WHERE d.refclassid = 'pg_authid'::regclass AND d.dbid NOT IN (0, (SELECT oid FROM here)) \
             UNION ALL SELECT r.rolname, pg_describe_object(d.classid, d.objid, 0) FROM pg_shdepend d \
               JOIN roles r ON r.oid = d.refobjid WHERE d.refclassid = 'pg_authid'::regclass AND d.deptype = 'o' \
                 AND d.dbid = 0 AND NOT ($5 AND d.classid = 'pg_database'::regclass AND d.objid = (SELECT oid FROM here)) \
             ) x), \
           'schemas', (SELECT coalesce(json_agg(json_build_object('id', 'pg_namespace'::regclass::oid::text || ':' || n.oid, \
               'public', n.nspname = 'public', 'contents', (SELECT coalesce(json_agg(d.{ID} d.objid), '[]') FROM pg_depend d \
                  WHERE n.nspname = 'public' AND d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid \
                    AND d.deptype = 'n')) ORDER BY n.oid), '[]') \
             FROM pg_namespace n WHERE $5 AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', $3)) \
         )::text"
    )
}

/// Observes what the roles of a component have.
pub(super) async fn possessions(session: &Session, place: &Place, own_database: bool) -> Result<Possessions> {
    static QUERY: LazyLock<String> = LazyLock::new(query);
    // If the component's own database does not exist, the schema of that name in this database does not belong to it.
    let schema = if place.own_database && !own_database { "" } else { place.schema.as_str() };
    let statement = session.prepared(&QUERY).await?;
    let text = session
        .text(&statement, &[&place.owner_role, &place.reader_role, &schema, &place.relation, &own_database])
        .await?;
    serde_json::from_str(&text.unwrap_or_default())
        .map_err(|e| Error::permanent("the catalogs of PostgreSQL have an unexpected shape").because(e))
}
