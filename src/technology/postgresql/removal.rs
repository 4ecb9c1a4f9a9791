//! Taking a component away, with its data or without.
//!
//! What belongs to a component is what carries its mark, and in the schema of a storage area what its owners' role
//! owns: that is what its workloads wrote. Everything is dropped with RESTRICT, in dependency order, in one transaction.
//! What somebody else made in a storage area, and what something of somebody else's depends on, is not dared: it stays,
//! the schema stays around it, and the plan says so.
//!
//! Before a role can go, what it owns has to be somebody else's and what it was granted has to be revoked: REASSIGN
//! OWNED gives the former to Landfall, and DROP OWNED, which then finds nothing to drop, does the latter. A role that
//! has rights in another database stays, and PostgreSQL says where.

use std::collections::BTreeSet;

use super::desired::{Left, Place, Standing, Step};
use super::loan;
use super::mark::{self, Mark};
use super::observe::{Relation, Schema, Seen};
use super::sql::{dotted, ident, literal};
use crate::technology::Action;

/// Access is revoked and the roles go; the data stays and is marked.
pub(super) fn release(place: &Place, seen: &Seen, standing: Standing) -> Left {
    let mut left = Left::default();
    let mut sql = joined(place, seen);
    sql.extend(roles(place, seen));
    if standing == Standing::Active {
        sql.extend(released(place, seen));
    }
    if !sql.is_empty() {
        let summary = match standing {
            Standing::Active => "revoke all access, drop the roles, and keep the data",
            _ => "drop the roles",
        };
        left.pieces.push(place.piece(Step::Release, Action::Release, summary, sql));
    }
    left
}

/// The data goes too.
pub(super) fn purge(place: &Place, seen: &Seen) -> Left {
    let mut left = Left::default();
    let mut sql = joined(place, seen);
    let mut dropped = Vec::new();
    let mut empty = true;
    let mut gone = seen.schema.is_none();
    if let Some(schema) = &seen.schema {
        let doomed = doomed(place, schema, seen);
        for relation in &schema.relations {
            if !doomed.iter().any(|one| one.name == relation.name) {
                empty = false;
                left.notes.push(spared(place, relation, seen));
            }
        }
        dropped.extend(doomed.iter().map(|relation| format!("`{}`", relation.name)));
        sql.extend(drops(place, &doomed));
        for extra in &schema.extras {
            let kind = extra.kind.to_ascii_lowercase();
            if extra.owner == seen.me || extra.owner == place.owner_role {
                dropped.push(format!("{kind} `{}`", extra.name));
                sql.push(format!("DROP {} {} RESTRICT", extra.kind, extra.name));
            } else {
                empty = false;
                left.notes.push(format!("{kind} `{}` belongs to `{}`: it stays", extra.name, extra.owner));
            }
        }
        empty &= !schema.others;
        let mine = schema.owner == seen.me || schema.owner == place.owner_role;
        sql.extend(roles(place, seen));
        if empty && mine {
            sql.push(format!("DROP SCHEMA {} RESTRICT", ident(&place.schema)));
            gone = true;
        } else if place.relation.is_none() {
            sql.extend(released(place, seen));
            left.notes.push(format!("schema `{}` is not empty: it stays, and is released", place.schema));
        } else if !doomed.iter().any(|one| Some(&one.name) == place.relation.as_ref()) {
            sql.extend(released(place, seen));
        }
    } else {
        sql.extend(roles(place, seen));
    }
    if !sql.is_empty() {
        let summary = match dropped.as_slice() {
            [] => "revoke all access, and drop what is left".to_owned(),
            names => format!("revoke all access, and drop {}", names.join(", ")),
        };
        left.pieces.push(place.piece(Step::Purge, Action::Drop, summary, sql));
    }
    if place.own_database && seen.database.is_some() {
        if gone && !seen.elsewhere {
            // Whoever is connected would hold it up for ever. Landfall may end its own sessions, and no others.
            let sql = vec![format!("DROP DATABASE {} WITH (FORCE)", ident(&place.database))];
            let summary = format!("drop the database `{}`", place.database);
            left.pieces.push(place.piece(Step::DropDatabase, Action::Drop, summary, sql));
        } else if gone {
            left.notes.push(format!("database `{}` has other schemas: it stays", place.database));
        }
    }
    left
}

/// What is dropped.
fn doomed<'a>(place: &Place, schema: &'a Schema, seen: &Seen) -> Vec<&'a Relation> {
    let ours = |relation: &&Relation| {
        let mine = relation.owner == seen.me || relation.owner == place.owner_role;
        // Of an output port there is one, and it has its mark; where a mark is lost, the owner says whose it is.
        mine && (place.relation.is_none() || relation.mark().is_some_and(|mark| mark.owner == place.owner))
    };
    let mut doomed: Vec<&Relation> = schema.relations.iter().filter(ours).collect();
    // What depends on one of them has to go, too, or that one stays; then the same for those that depend on that one.
    loop {
        let names: BTreeSet<&str> = doomed.iter().map(|relation| relation.name.as_str()).collect();
        let free = |relation: &&Relation| {
            relation
                .dependents
                .iter()
                .all(|other| other.schema == place.schema && names.contains(other.name.as_str()))
        };
        let left: Vec<&Relation> = doomed.iter().copied().filter(free).collect();
        if left.len() == doomed.len() {
            return doomed;
        }
        doomed = left;
    }
}

/// Dependents first; tables that refer to each other go together.
fn drops(place: &Place, doomed: &[&Relation]) -> Vec<String> {
    let mut waiting: Vec<&Relation> = doomed.to_vec();
    let mut sql = Vec::new();
    while !waiting.is_empty() {
        let names: BTreeSet<String> = waiting.iter().map(|relation| relation.name.clone()).collect();
        let is_free = |relation: &&Relation| !relation.dependents.iter().any(|d| names.contains(&d.name));
        let (free, rest): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_free);
        if free.is_empty() {
            let tables: Vec<_> = rest.iter().map(|relation| dotted(&place.schema, &relation.name)).collect();
            sql.push(format!("DROP TABLE {} RESTRICT", tables.join(", ")));
            return sql;
        }
        for relation in free {
            let name = dotted(&place.schema, &relation.name);
            sql.push(format!("DROP {} {name} RESTRICT", relation.keyword()));
        }
        waiting = rest;
    }
    sql
}

/// Why something is not dropped.
fn spared(place: &Place, relation: &Relation, seen: &Seen) -> String {
    let name = format!("`{}.{}`", place.schema, relation.name);
    if relation.owner != seen.me && relation.owner != place.owner_role {
        return format!("{name} belongs to `{}`: it stays", relation.owner);
    }
    let others: Vec<_> =
        relation.dependents.iter().map(|other| format!("`{}.{}`", other.schema, other.name)).collect();
    match others.as_slice() {
        [] => format!("{name} does not carry the mark of this component: it stays"),
        names => format!("{} depends on {name}: it stays, and its data", names.join(", ")),
    }
}

/// The component's roles, as far as they are there.
fn there<'a>(place: &'a Place, seen: &Seen) -> Vec<&'a String> {
    let roles = [(&place.reader_role, &seen.reader), (&place.owner_role, &seen.owner)];
    roles.into_iter().filter_map(|(name, role)| role.as_ref().map(|_| name)).collect()
}

/// Has Landfall be a member of them, until they are gone.
fn joined(place: &Place, seen: &Seen) -> Vec<String> {
    there(place, seen).into_iter().map(|name| loan::join(name, seen)).collect()
}

/// The roles go, and what they had is Landfall's.
fn roles(place: &Place, seen: &Seen) -> Vec<String> {
    let mut sql = Vec::new();
    if let Some(database) = seen.database.as_ref().filter(|_| place.own_database)
        && Mark::in_comment(database.comment.as_deref()).is_none()
    {
        // Without the role that owns it, nothing else would say whose it is.
        let comment = literal(&place.mark().comment(""));
        sql.push(format!("COMMENT ON DATABASE {} IS {comment}", ident(&place.database)));
    }
    let roles = there(place, seen);
    sql.extend(roles.iter().map(|name| format!("REASSIGN OWNED BY {} TO CURRENT_USER", ident(name))));
    // What may have to wait for whoever reads the objects is done: the next statements take no time.
    sql.extend(roles.first().map(|_| loan::database_lock()));
    for name in &roles {
        let role = ident(name);
        sql.push(format!("DROP OWNED BY {role} RESTRICT"));
        sql.push(format!("DROP ROLE {role}"));
    }
    sql
}

/// The mark of what is kept, unless it has it.
fn released(place: &Place, seen: &Seen) -> Option<String> {
    let schema = seen.schema.as_ref()?;
    let (what, comment) = match &place.relation {
        None => (format!("SCHEMA {}", ident(&place.schema)), schema.comment.as_deref()?),
        Some(name) => {
            let relation = schema.relation(name)?;
            let name = dotted(&place.schema, name);
            (format!("{} {name}", relation.keyword()), relation.comment.as_deref()?)
        }
    };
    let (text, mark) = mark::split::<Mark>(comment);
    let mark = mark.filter(|mark| !mark.released)?;
    let comment = Mark { released: true, ..mark }.comment(text);
    Some(format!("COMMENT ON {what} IS {}", literal(&comment)))
}
