//! Removing a component, with or without its data.
//!
//! Objects of a component's roles never move to a role with rights: functions, views, rules and triggers run with the
//! rights of their owner, many of them for any caller. So a role that still owns objects stays, and is *emptied*: no
//! login, no members, no rights on objects of others, and `released` in its mark. A role that owns nothing is
//! dropped. docs/decisions/0012 explains why.
//!
//! With the data, all objects of its roles are dropped, in every schema of the database and of every kind
//! (`possessions.rs`), and in a storage area everything with its mark. Everything is dropped with RESTRICT, in the
//! order of dependencies, in one transaction. An object that an object of another owner needs stays, with its role
//! and the schema, and the plan says so.
//!
//! DROP OWNED is used only on roles that own nothing any more, to revoke what was granted to them.

use super::desired::{self, Left, Place, Standing, Step};
use super::mark::{self, Mark};
use super::membership;
use super::observe::{Relation, Role, Seen};
use super::possessions::{Object, Removal, Right};
use super::sql::{dotted, ident, idents, literal};
use landfall_adapter::Action;
use landfall_adapter::error::{Error, Result};

/// The maximum number of names in a summary.
const MAX_NAMED: usize = 50;

/// Returns the changes that revoke all access and keep the data. The kept data is marked as released and
/// belongs to a NOLOGIN role.
pub(super) fn release(place: &Place, seen: &Seen, standing: Standing) -> Result<Left> {
    let mut left = Left::default();
    let nothing = Removal::default();
    let mut sql = handed_back(place, seen, &nothing);
    if standing == Standing::Active {
        sql.extend(released(place, seen));
    }
    let emptied = roles(place, seen, &nothing, false, &mut left.notes)?;
    if !emptied.is_empty() {
        sql.extend(desired::own_connection(place, seen).filter(|_| seen.owner.is_some()));
    }
    sql.extend(emptied);
    left.notes.extend(running(seen));
    if !sql.is_empty() {
        let summary = match standing {
            Standing::Active => "revoke all access, and keep the data for a role without members",
            Standing::Absent => "drop the roles",
            Standing::Released => "revoke the roles' members and rights",
        };
        left.pieces.push(place.piece(Step::Release, Action::Release, summary, joined(place, seen, sql)));
    }
    Ok(left)
}

/// Returns the changes that revoke all access and delete the data. Objects that others need stay, with a note.
pub(super) fn purge(place: &Place, seen: &Seen) -> Result<Left> {
    let mut left = Left::default();
    let removal = seen.possessions.removal(&seen.me);
    let mut sql = removal.drops.clone();
    if removal.together {
        let names = there(place, seen).into_iter().map(|(name, _)| name.as_str());
        sql.push(format!("DROP OWNED BY {} RESTRICT", idents(names)));
    }
    let objects = seen.possessions.objects.iter();
    let (gone, kept): (Vec<_>, Vec<_>) = objects.partition(|object| removal.gone.contains(&object.id));
    let mut schema_goes = seen.schema.is_none() || gone.iter().any(|object| object.schema);
    let mut shared_goes = false;
    if let Some(schema) = &seen.schema {
        let stays = |relation: &&Relation| {
            !gone.iter().any(|object| object.relation.as_ref() == Some(&relation.name))
        };
        let staying: Vec<&Relation> = schema.relations.iter().filter(stays).collect();
        left.notes.extend(staying.iter().map(|relation| reason_to_keep(place, relation, seen, &removal)));
        for extra in &schema.extras {
            if extra.owner != seen.me && extra.owner != place.owner_role && extra.owner != place.reader_role {
                let kind = extra.kind.to_ascii_lowercase();
                left.notes.push(format!("{kind} `{}` belongs to `{}`: it stays", extra.name, extra.owner));
            }
        }
        // The schema that output ports share is dropped with the last of them.
        if place.relation.is_some() && staying.is_empty() && !schema.others && schema.owner == seen.me {
            schema_goes = true;
            shared_goes = true;
        }
        let marked_stays = match &place.relation {
            None => !schema_goes,
            Some(name) => staying.iter().any(|relation| relation.name == *name),
        };
        sql.extend(released(place, seen).filter(|_| marked_stays));
    }
    for object in kept.iter().filter(|object| object.relation.is_none() && !object.schema) {
        let needed = needed(object, &removal);
        left.notes.extend(needed.map(|what| format!("{} is needed by {what}: it stays", named(object))));
    }
    if place.relation.is_none() && !schema_goes {
        left.notes.push(format!("schema `{}` is not empty: it stays, and is released", place.schema));
    }
    sql.extend(handed_back(place, seen, &removal));
    let elsewhere = seen.possessions.schemas.iter().any(|schema| {
        let empty = schema.public && schema.contents.iter().all(|id| removal.gone.contains(id));
        !empty && !removal.gone.contains(&schema.id)
    });
    let database = seen.database.as_ref().filter(|_| place.own_database);
    let database_goes = database.is_some() && schema_goes && !elsewhere;
    if let Some(database) = database.filter(|database| database_goes && database.owner != seen.me) {
        // The database is empty now, and is dropped after this transaction. Its owner changes before that, so
        // from then on only its mark shows which component it belongs to.
        if Mark::in_comment(database.comment.as_deref()).is_none() {
            let comment = literal(&place.mark().comment(""));
            sql.push(format!("COMMENT ON DATABASE {} IS {comment}", ident(&place.database)));
        }
        sql.push(format!("ALTER DATABASE {} OWNER TO CURRENT_USER", ident(&place.database)));
    }
    let emptied = roles(place, seen, &removal, database_goes, &mut left.notes)?;
    if !emptied.is_empty() && !database_goes {
        sql.extend(desired::own_connection(place, seen).filter(|_| seen.owner.is_some()));
    }
    sql.extend(emptied);
    if shared_goes {
        sql.push(format!("DROP SCHEMA {} RESTRICT", ident(&place.schema)));
    }
    if !sql.is_empty() {
        let dropped: Vec<String> = gone
            .iter()
            .filter(|object| !object.schema && !object.owner.is_empty())
            .filter(|object| !object.within.iter().any(|whole| removal.gone.contains(whole)))
            .map(|object| match &object.relation {
                Some(name) => format!("`{name}`"),
                None => named(object),
            })
            .collect();
        let more = dropped.len().saturating_sub(MAX_NAMED);
        let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
        let summary = match dropped.get(..dropped.len().min(MAX_NAMED)).unwrap_or_default() {
            [] => "revoke all access, and drop what is left".to_owned(),
            names => format!("revoke all access, and drop {}{tail}", names.join(", ")),
        };
        left.pieces.push(place.piece(Step::Purge, Action::Drop, summary, joined(place, seen, sql)));
    }
    if database_goes {
        // Open connections would block the drop forever. Landfall may end its own sessions, and no others.
        let sql = vec![format!("DROP DATABASE {} WITH (FORCE)", ident(&place.database))];
        let summary = format!("drop the database `{}`", place.database);
        left.pieces.push(place.piece(Step::DropDatabase, Action::Drop, summary, sql));
    } else if database.is_some() && schema_goes {
        left.notes.push(format!("database `{}` has other schemas: it stays", place.database));
    }
    Ok(left)
}

/// Returns kind and name for messages: "function `s.f(integer)`".
fn named(object: &Object) -> String {
    format!("{} `{}`", object.kind, object.name)
}

/// Returns the remaining object that needs `object`, if there is one.
fn needed<'a>(object: &'a Object, removal: &Removal) -> Option<&'a str> {
    let open = object.needs.iter().find(|need| !need.covers.iter().any(|id| removal.gone.contains(id)));
    open.map(|need| need.what.as_str())
}

/// The reason why a table or view is not dropped.
fn reason_to_keep(place: &Place, relation: &Relation, seen: &Seen, removal: &Removal) -> String {
    let name = format!("`{}.{}`", place.schema, relation.name);
    let roles = [&seen.me, &place.owner_role, &place.reader_role];
    if !roles.contains(&&relation.owner) {
        return format!("{name} belongs to `{}`: it stays", relation.owner);
    }
    let objects = &seen.possessions.objects;
    let goes = |schema: &str, other: &str| {
        let found = objects.iter().find(|object| object.relation.as_deref() == Some(other));
        schema == place.schema && found.is_some_and(|object| removal.gone.contains(&object.id))
    };
    let others: Vec<_> = relation
        .dependents
        .iter()
        .filter(|other| !goes(&other.schema, &other.name))
        .map(|other| format!("`{}.{}`", other.schema, other.name))
        .collect();
    let object = objects.iter().find(|object| object.relation.as_ref() == Some(&relation.name));
    match (others.as_slice(), object.and_then(|object| needed(object, removal))) {
        ([], Some(what)) => format!("{what} depends on {name}: it stays, and its data"),
        ([], None) => format!("{name} does not carry the mark of this component: it stays"),
        (names, _) => format!("{} depends on {name}: it stays, and its data", names.join(", ")),
    }
}

/// The component's roles, if they exist.
fn there<'a>(place: &'a Place, seen: &'a Seen) -> Vec<(&'a String, &'a Role)> {
    let roles = [(&place.reader_role, &seen.reader), (&place.owner_role, &seen.owner)];
    roles.into_iter().filter_map(|(name, role)| role.as_ref().map(|role| (name, role))).collect()
}

/// Returns `sql`, preceded by statements that make Landfall a member of the component's roles, and followed by
/// statements that end the memberships. A dropped role needs no end.
fn joined(place: &Place, seen: &Seen, sql: Vec<String>) -> Vec<String> {
    let roles = there(place, seen);
    let mut all: Vec<String> = roles.iter().map(|(name, _)| membership::join(name, seen)).collect();
    let dropped = |name: &str| sql.contains(&dropping(name));
    let leave = |name: &str| format!("REVOKE {} FROM CURRENT_USER", ident(name));
    let left: Vec<String> =
        roles.iter().filter(|(name, _)| !dropped(name)).map(|(name, _)| leave(name)).collect();
    all.extend(sql);
    all.extend(left);
    all
}

fn dropping(role: &str) -> String {
    format!("DROP ROLE {}", ident(role))
}

/// Returns statements that give Landfall's remaining objects to the owners' role. An earlier version of
/// Landfall kept data as its own objects. If the role does not exist, it is created without rights.
fn handed_back(place: &Place, seen: &Seen, removal: &Removal) -> Vec<String> {
    let mine = seen.possessions.objects.iter().filter(|object| {
        object.owner == seen.me
            && !removal.gone.contains(&object.id)
            // A sequence of a column changes its owner with the table.
            && (object.kind != "sequence" || object.within.is_empty())
    });
    let owner = ident(&place.owner_role);
    let mut moved: Vec<(bool, String)> = mine
        .filter_map(|object| {
            let keyword = object.keyword().filter(|_| object.kind != "extension")?;
            Some((object.kind != "schema", format!("ALTER {keyword} {} OWNER TO {owner}", object.name)))
        })
        .collect();
    // The schema comes first, because the new owner of an object needs rights on the schema.
    moved.sort();
    if moved.is_empty() {
        return Vec::new();
    }
    let moved = desired::handed_over(place, moved.into_iter().map(|(_, statement)| statement).collect());
    if seen.owner.is_some() {
        return moved;
    }
    let mark = Mark { released: true, ..place.role_mark() };
    let mut sql = vec![format!("CREATE ROLE {owner} NOLOGIN")];
    sql.push(format!(
        "COMMENT ON ROLE {owner} IS {}",
        literal(&desired::role_comment(place, "Owners", &mark))
    ));
    sql.push(membership::join(&place.owner_role, seen));
    sql.extend(moved);
    sql.push(format!("REVOKE {owner} FROM CURRENT_USER"));
    sql
}

/// Returns statements that drop each role of the component, or take its rights if it must stay. Adds a note for
/// each reason to stay.
fn roles(
    place: &Place,
    seen: &Seen,
    removal: &Removal,
    database_goes: bool,
    notes: &mut Vec<String>,
) -> Result<Vec<String>> {
    let had = &seen.possessions;
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for (name, role) in there(place, seen) {
        let keeps_database = place.own_database
            && !database_goes
            && seen.database.as_ref().is_some_and(|database| database.owner == *name);
        let gets_back = *name == place.owner_role
            && had.objects.iter().any(|object| object.owner == seen.me && !removal.gone.contains(&object.id));
        let owns = had.objects.iter().any(|o| o.owner == *name && !removal.gone.contains(&o.id));
        let elsewhere: Vec<&str> =
            had.elsewhere.iter().filter(|one| one.role == *name).map(|one| one.what.as_str()).collect();
        let stuck: Vec<String> = had
            .rights
            .iter()
            .filter(|right| right.role == *name && !right.revocable)
            .map(|right| format!("{} `{}`", right.kind, right.name))
            .collect();
        for what in &elsewhere {
            notes.push(format!(
                "role `{name}` owns or may use {what}: the role stays, without members, until that is gone"
            ));
        }
        if !stuck.is_empty() {
            notes.push(format!(
                "role `{name}` has rights on {} that another role granted and only that role can revoke: the role stays, \
                 without members, until they do",
                stuck.join(", ")
            ));
        }
        if owns || keeps_database || gets_back || !elsewhere.is_empty() || !stuck.is_empty() {
            let (before, after) = emptied(place, seen, name, role, removal, notes)?;
            first.extend(before);
            last.extend(after);
        } else {
            last.push(format!("DROP OWNED BY {} RESTRICT", ident(name)));
            last.push(dropping(name));
        }
    }
    // All statements that may have to wait for readers come before this lock, so that it is held only briefly.
    if !last.is_empty() {
        first.push(membership::database_lock());
        first.extend(last);
    }
    Ok(first)
}

/// Returns statements that take login, members, and rights on objects of others from a remaining role. The
/// second list has the statements on the database, which other components share. Fails if only another role can
/// revoke a membership.
fn emptied(
    place: &Place,
    seen: &Seen,
    name: &str,
    role: &Role,
    removal: &Removal,
    notes: &mut Vec<String>,
) -> Result<(Vec<String>, Vec<String>)> {
    let (quoted, had) = (ident(name), &seen.possessions);
    let what = if *name == place.owner_role { "owners" } else { "readers" };
    let granted_by = |grantor: &str| match grantor {
        by if by == seen.me || seen.version < 160_000 => String::new(),
        by => format!(" GRANTED BY {}", ident(by)),
    };
    let (mut sql, mut shared) = (Vec::new(), Vec::new());
    if role.login {
        sql.push(format!("ALTER ROLE {quoted} NOLOGIN"));
    }
    for member in &role.members {
        if member.name == seen.me {
            if member.grantor == seen.me {
                sql.push(format!("REVOKE {quoted} FROM CURRENT_USER"));
                sql.push(membership::join(name, seen));
            }
        } else if member.revocable || member.grantor == seen.me {
            let by = granted_by(&member.grantor);
            sql.push(format!("REVOKE {quoted} FROM {}{by}", ident(&member.name)));
        } else {
            return Err(Error::conflict(format!(
                "`{}` is one of the {what} of {}, granted by `{}`, and would own what is kept: have `{}` run `REVOKE {quoted} \
                 FROM {}`",
                member.name,
                place.what,
                member.grantor,
                member.grantor,
                ident(&member.name)
            )));
        }
    }
    for membership in had.memberships.iter().filter(|membership| membership.role == *name) {
        if membership.revocable {
            let by = granted_by(&membership.grantor);
            sql.push(format!("REVOKE {} FROM {quoted}{by}", ident(&membership.group)));
        } else {
            notes.push(format!(
                "role `{name}` stays a member of `{}`: only `{}` may end that",
                membership.group, membership.grantor
            ));
        }
    }
    let kept = |right: &&Right| !removal.gone.contains(&right.id);
    for right in had.rights.iter().filter(|right| right.role == *name && right.revocable).filter(kept) {
        let to = if right.kind == "database" { &mut shared } else { &mut sql };
        to.extend(right.revocation(&quoted));
    }
    if *name == place.reader_role
        && seen.owner.is_some()
        && seen.schema.as_ref().is_some_and(|s| s.by_default)
    {
        sql.push(format!(
            "ALTER DEFAULT PRIVILEGES FOR ROLE {} IN SCHEMA {} REVOKE ALL ON TABLES FROM {quoted}",
            ident(&place.owner_role),
            ident(&place.schema)
        ));
    }
    let (text, found) = mark::split::<Mark>(role.comment.as_deref().unwrap_or_default());
    if let Some(found) = found.filter(|mark| !mark.released) {
        let comment = Mark { released: true, ..found }.comment(text);
        sql.push(format!("COMMENT ON ROLE {quoted} IS {}", literal(&comment)));
    }
    Ok((sql, shared))
}

/// Returns a note about kept code that runs with the rights of its owner and so can read the kept data, if
/// there is any.
fn running(seen: &Seen) -> Option<String> {
    let kept: Vec<String> =
        seen.possessions.objects.iter().filter(|object| object.definer).map(named).take(MAX_NAMED).collect();
    (!kept.is_empty()).then(|| {
        format!(
            "a role that may execute it reads the kept data through {}: revoke EXECUTE or USAGE of the \
             schema if that is not wanted",
            kept.join(", ")
        )
    })
}

/// Returns the statement that sets `released` in the mark of the schema or relation. `None` if there is no
/// mark, or it is already released.
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
