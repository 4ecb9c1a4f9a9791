//! Read access: the members of the readers' role.
//!
//! A component has one role that holds the grants. Its members are the principals of the access list. So an entry of
//! the list is one row in one catalog, a revocation affects open sessions, and no grant on a single table can be
//! forgotten.
//!
//! - Landfall manages its own grants: the catalog stores the grantor. Grants of other roles are reported, and revoked
//!   only with `repair: true`.
//! - Owners have a role of their own, which access lists do not affect.
//! - Revocations come first, in their own transaction. If a principal cannot be found, they are still made; then
//!   nothing is granted, and every principal that cannot be found is named.
//! - A name without a prefix means what the identity source finds. If the source only builds names from a template,
//!   it means the one that has a role. The log says which.

use std::collections::{BTreeMap, BTreeSet};

use super::desired::{Left, Place, Step, reader_comment};
use super::mark::Mark;
use super::naming;
use super::observe::{Grant, Role, Seen};
use super::sql::{dotted, ident};
use landfall_adapter::access::{Candidate, Directory, Known, Lookups, Qualified, Ref, reconcile};
use landfall_adapter::descriptor::{Object, Problem};
use landfall_adapter::error::Result;
use landfall_adapter::{AccessList, Action, Intent, Work};

/// The maximum number of names in a line.
const MAX_NAMED: usize = 20;

/// The owners and the access list of a component, with the lookup result of every ref. The database is not read
/// for it.
#[derive(Debug, Clone, Default)]
pub(super) struct People {
    /// The access list that was requested last, if any.
    list: Option<AccessList>,
    /// The lookup result of each ref.
    known: BTreeMap<Ref, Known>,
    /// Owners of the data product.
    owners: Vec<Ref>,
}

/// The roles that a ref means.
#[derive(Default)]
struct Roles {
    /// The roles that exist in the database.
    there: BTreeSet<String>,
    /// Why members of the group have no usable role, one text for each member.
    missing: Vec<String>,
    /// For a ref without a prefix: a text that says what the name was resolved as.
    taken_for: Option<String>,
}

impl People {
    /// Looks up each ref, at most once in a run. Fails if an identity source does not respond, because the
    /// wanted access is unknown then.
    pub(super) async fn look_up(work: &Work, directory: &Directory, run: &Lookups) -> Result<Self> {
        let product = &work.product;
        let owner = product.owner.as_deref().and_then(|text| Ref::parse(text).ok());
        // `devGroup` is a group, with or without a prefix.
        let dev_group = product.dev_group.as_deref().and_then(|text| Qualified::parse(text).ok());
        let owners: Vec<Ref> = owner.into_iter().chain(dev_group.map(Ref::Qualified)).collect();
        let list = work.access.clone();
        let mut known = BTreeMap::new();
        for reference in owners.iter().chain(list.iter().flat_map(|list| &list.refs)) {
            if !known.contains_key(reference) {
                known.insert(reference.clone(), run.resolve(directory, reference).await?);
            }
        }
        Ok(Self { list, known, owners })
    }

    /// The names of all roles that the refs may mean, which the observation looks for.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names = BTreeSet::new();
        for known in self.known.values() {
            if let Known::Candidates(candidates) = known {
                names.extend(candidates.iter().flat_map(|candidate| candidate.principals.iter().cloned()));
            }
        }
        names.into_iter().filter(|name| naming::problem(name).is_none()).collect()
    }

    /// `accessControlFields`.
    pub(super) fn fields(&self) -> Object {
        self.list.as_ref().map(|list| list.fields.clone()).unwrap_or_default()
    }

    /// Returns the existing roles of a ref, or the reason why it means none.
    fn roles(&self, reference: &Ref, place: &Place, seen: &Seen) -> Result<Roles, String> {
        let candidates = match self.known.get(reference) {
            Some(Known::Candidates(candidates)) => candidates.as_slice(),
            Some(Known::Unknown(reason)) => return Err(reason.clone()),
            None => return Err("it was not looked up".to_owned()),
        };
        let mut there: Vec<(&Candidate, Roles)> = Vec::new();
        let mut reasons = Vec::new();
        for candidate in candidates {
            match roles(candidate, place, seen) {
                Ok(roles) => there.push((candidate, roles)),
                Err(why) if candidates.len() == 1 => reasons.push(why),
                Err(why) => reasons.push(format!("as a {}: {why}", candidate.reference.kind())),
            }
        }
        if let [(_, first), others @ ..] = there.as_slice()
            && others.iter().any(|(_, roles)| roles.there != first.there)
        {
            let spellings = there.iter().map(|(candidate, _)| format!("`{}`", candidate.reference));
            let spellings = spellings.collect::<Vec<_>>().join(" or ");
            return Err(format!(
                "there is a role for it as a user and another as a group: write {spellings}"
            ));
        }
        let undecided = there.len() > 1;
        let Some((candidate, mut roles)) = there.into_iter().next() else { return Err(reasons.join("; ")) };
        if let Ref::Bare(name) = reference {
            roles.taken_for = Some(if undecided {
                // The ref is both a user and a group, and both have the same role.
                format!("`{name}` is resolved as the role {}", named(&roles.there))
            } else {
                let (kind, principal) = (candidate.reference.kind(), candidate.reference.principal_name());
                format!("`{name}` is resolved as the {kind} `{principal}`")
            });
        }
        Ok(roles)
    }
}

/// Returns the roles of a candidate, or the reason why one is missing. Members of a group may be missing; they
/// are reported in `missing`.
fn roles(candidate: &Candidate, place: &Place, seen: &Seen) -> Result<Roles, String> {
    let mut roles = Roles::default();
    for name in &candidate.principals {
        match role(name, place, seen) {
            Ok(()) => {
                roles.there.insert(name.clone());
            }
            Err(why) if candidate.members => roles.missing.push(why),
            Err(why) => return Err(why),
        }
    }
    Ok(roles)
}

/// Returns an error with the reason if a role does not exist, or cannot belong to a user or group.
fn role(name: &str, place: &Place, seen: &Seen) -> Result<(), String> {
    if let Some(fault) = naming::problem(name) {
        return Err(format!("it would be the role `{name}`, and {fault}"));
    }
    let Some(known) = seen.principals.iter().find(|known| known.name == name) else {
        return Err(format!("there is no role `{name}` in PostgreSQL"));
    };
    if known.marked || *name == place.owner_role || *name == place.reader_role || *name == seen.me {
        return Err(format!("the role `{name}` is Landfall's own"));
    }
    if name.starts_with("pg_") {
        return Err(format!("the role `{name}` is PostgreSQL's own"));
    }
    Ok(())
}

/// The members of a role that Landfall (`me`) added.
fn managed(role: Option<&Role>, me: &str) -> BTreeSet<String> {
    let members = role.iter().flat_map(|role| &role.members);
    members.filter(|member| member.grantor == me && member.name != me).map(|m| m.name.clone()).collect()
}

/// Members that another role added, with the grantor and whether the membership can be revoked.
fn foreign(role: Option<&Role>, me: &str) -> BTreeMap<String, (String, bool)> {
    let members = role.iter().flat_map(|role| &role.members);
    members
        .filter(|member| member.grantor != me && member.name != me)
        .map(|member| (member.name.clone(), (member.grantor.clone(), member.revocable)))
        .collect()
}

/// The access list: revocations, fields, and grants or the reasons against them.
pub(super) fn access(place: &Place, seen: &Seen, people: &People, intent: Intent, left: &mut Left) {
    let Some(list) = &people.list else { return };
    let reader = ident(&place.reader_role);
    let have = managed(seen.reader.as_ref(), &seen.me);
    let others = foreign(seen.reader.as_ref(), &seen.me);
    let mut wanted = BTreeSet::new();
    let mut lost = Vec::new();
    let mut taken = Vec::new();
    for reference in &list.refs {
        match people.roles(reference, place, seen) {
            Ok(roles) => {
                let is_new = roles.there.iter().any(|name| !have.contains(name));
                wanted.extend(roles.there);
                left.notes.extend(roles.taken_for.clone());
                taken.extend(roles.taken_for.filter(|_| is_new));
                left.notes.extend(without_role(reference, &roles.missing));
            }
            Err(why) => lost.push((reference, why)),
        }
    }
    let steps = reconcile(&have, &wanted);
    if !steps.revoke.is_empty() {
        let sql = steps.revoke.iter().map(|name| format!("REVOKE {reader} FROM {}", ident(name))).collect();
        let summary = format!("revoke read access from {}", named(&steps.revoke));
        left.pieces.push(place.piece(Step::Revoke, Action::Revoke, summary, sql));
    }
    let noted = seen.reader.as_ref().and_then(|role| Mark::in_comment(role.comment.as_deref()));
    if noted.is_some_and(|mark| mark.fields != list.fields) {
        let sql = vec![reader_comment(place, &list.fields)];
        let summary = "record the access control fields";
        left.pieces.push(place.piece(Step::Fields, Action::Alter, summary, sql));
    }
    for (reference, why) in &lost {
        left.notes.push(format!("`{reference}` cannot be found: {why}"));
    }
    if !lost.is_empty() && intent == Intent::UpdateAccess {
        left.unmet = refusals(lost);
        return;
    }
    let grant: BTreeSet<String> =
        steps.grant.iter().filter(|name| !others.contains_key(*name)).cloned().collect();
    if !grant.is_empty() {
        let sql = grant.iter().map(|name| membership_grant(&reader, name, seen.version)).collect();
        let readings = joined(taken.into_iter());
        let readings = if readings.is_empty() { readings } else { format!(": {readings}") };
        let summary = format!("grant read access to {}{readings}", named(&grant));
        left.pieces.push(place.piece(Step::Grant, Action::Grant, summary, sql));
    }
}

/// Returns a note about the members of a group that have no role; `None` if there are none.
fn without_role(reference: &Ref, missing: &[String]) -> Option<String> {
    let reasons = joined(missing.iter().cloned());
    (!missing.is_empty())
        .then(|| format!("{} members of `{reference}` are left out: {reasons}", missing.len()))
}

/// Returns a problem for each ref that cannot be found, which is why nothing is granted.
fn refusals(lost: Vec<(&Ref, String)>) -> Vec<Problem> {
    let refusal = |(reference, why): (&Ref, String)| {
        let remedy = match reference {
            Ref::Qualified(_) => "have the role made, or leave the ref out".to_owned(),
            Ref::Bare(name) => format!(
                "write `user:{name}` or `group:{name}`, have the user or the group made, or leave the ref out"
            ),
        };
        Problem::new("refs", format!("no access was granted: {why}"))
            .value(reference)
            .remedy(format!("{remedy}; what was to be revoked is revoked"))
    };
    lost.into_iter().map(refusal).collect()
}

/// Returns the statement that makes `name` a member of `role`, which is already quoted. The member inherits the
/// rights. Since PostgreSQL 16, it cannot SET ROLE: a session that did would keep access after a revocation.
fn membership_grant(role: &str, name: &str, version: i32) -> String {
    let how = if version >= 160_000 { " WITH INHERIT TRUE, SET FALSE" } else { "" };
    format!("GRANT {role} TO {}{how}", ident(name))
}

/// Adds the changes that make the owners of the data product the members of the owners' role. Adds a note for
/// each owner without a role.
pub(super) fn owners(place: &Place, seen: &Seen, people: &People, left: &mut Left) {
    let role = ident(&place.owner_role);
    let mut wanted = BTreeSet::new();
    for reference in &people.owners {
        match people.roles(reference, place, seen) {
            Ok(roles) => {
                wanted.extend(roles.there);
                left.notes.extend(roles.taken_for.map(|reading| format!("the owner {reading}")));
                left.notes.extend(without_role(reference, &roles.missing));
            }
            Err(why) => left.notes.push(format!("the owner `{reference}` gets no role: {why}")),
        }
    }
    let steps = reconcile(&managed(seen.owner.as_ref(), &seen.me), &wanted);
    let others = foreign(seen.owner.as_ref(), &seen.me);
    let mut sql: Vec<String> =
        steps.revoke.iter().map(|name| format!("REVOKE {role} FROM {}", ident(name))).collect();
    let join = |name: &String| format!("GRANT {role} TO {}", ident(name));
    sql.extend(steps.grant.iter().filter(|name| !others.contains_key(*name)).map(join));
    if !sql.is_empty() {
        let summary = match wanted.is_empty() {
            true => "remove all its owners".to_owned(),
            false => format!("make {} its owners", named(&wanted)),
        };
        left.pieces.push(place.piece(Step::Owners, Action::Alter, summary, sql));
    }
}

/// Reports memberships and grants that other roles made, and revokes them with `repair`.
pub(super) fn foreign_grants(place: &Place, repair: bool, seen: &Seen, left: &mut Left) {
    let mut found: Vec<(String, String)> = Vec::new();
    for (name, role, what) in
        [(&place.reader_role, &seen.reader, "readers"), (&place.owner_role, &seen.owner, "owners")]
    {
        for (member, (grantor, revocable)) in foreign(role.as_ref(), &seen.me) {
            if repair && !revocable {
                left.notes.push(format!(
                    "`{member}` is one of the {what}, granted by `{grantor}`, and only `{grantor}` can revoke that"
                ));
                continue;
            }
            let by = if seen.version >= 160_000 {
                format!(" GRANTED BY {}", ident(&grantor))
            } else {
                String::new()
            };
            found.push((
                format!("`{member}` is one of the {what}, granted by `{grantor}`"),
                format!("REVOKE {} FROM {}{by}", ident(name), ident(&member)),
            ));
        }
    }
    if let Some(schema) = seen.schema.as_ref() {
        // The schema that output ports share belongs to none of them.
        if place.relation.is_none() {
            let what = (format!("schema `{}`", place.schema), format!("SCHEMA {}", ident(&place.schema)));
            found.extend(grants(place, &schema.grants, &schema.owner, &["USAGE"], &what));
        }
        for relation in &schema.relations {
            let ours = relation.owner == place.owner_role || relation.owner == seen.me;
            if ours {
                let name = dotted(&place.schema, &relation.name);
                let what = (format!("`{}.{}`", place.schema, relation.name), name);
                found.extend(grants(place, &relation.grants, &relation.owner, &["SELECT"], &what));
            } else if relation.mark().is_some_and(|mark| mark.owner == place.owner) {
                left.notes.push(format!(
                    "`{}.{}` has been given to `{}`: readers may not be able to read it",
                    place.schema, relation.name, relation.owner
                ));
            }
        }
    }
    if found.is_empty() {
        return;
    }
    if repair {
        let (what, sql): (BTreeSet<String>, Vec<String>) = found.into_iter().unzip();
        let summary = format!("take away what others granted: {}", joined(what.iter().cloned()));
        left.pieces.push(place.piece(Step::Repair, Action::Revoke, summary, sql));
    } else {
        for (what, _) in found {
            left.notes
                .push(format!("granted by another role, and kept without `specific.repair: true`: {what}"));
        }
    }
}

/// Returns each unexpected grant as a description and the statement that revokes it. Expected are grants to the
/// owner, to roles of Landfall, and of `readers_may` to the readers.
fn grants(
    place: &Place,
    grants: &[Grant],
    owner: &str,
    readers_may: &[&str],
    (what, object): &(String, String),
) -> Vec<(String, String)> {
    let expected = |grant: &&Grant| {
        let grantee = grant.grantee.as_deref();
        grantee == Some(owner)
            || grantee == Some(&place.owner_role)
            || (grantee == Some(&place.reader_role) && readers_may.contains(&grant.privilege.as_str()))
            || (grant.marked && grantee != Some(&place.reader_role))
    };
    let strange = grants.iter().filter(|grant| !expected(grant));
    strange
        .map(|grant| {
            let who =
                grant.grantee.as_deref().map_or_else(|| "everybody".to_owned(), |name| format!("`{name}`"));
            let from = grant.grantee.as_deref().map_or_else(|| "PUBLIC".to_owned(), ident);
            let column =
                grant.column.as_deref().map(|name| format!(" ({})", ident(name))).unwrap_or_default();
            (
                format!("{who} has {} on {what}", grant.privilege),
                format!("REVOKE {}{column} ON {object} FROM {from}", grant.privilege),
            )
        })
        .collect()
}

fn named(names: &BTreeSet<String>) -> String {
    joined(names.iter().map(|name| format!("`{name}`")))
}

fn joined(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(MAX_NAMED);
    let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{tail}", names.take(MAX_NAMED).collect::<Vec<_>>().join(", "))
}

/// The readers and the owners that Landfall added, for the info.
pub(super) fn shown(seen: &Seen) -> (Vec<String>, Vec<String>) {
    let list = |role: Option<&Role>| managed(role, &seen.me).into_iter().collect();
    (list(seen.reader.as_ref()), list(seen.owner.as_ref()))
}
