//! What a change needs during its transaction: membership in component roles, and locks on shared objects. Pure.
//!
//! Objects belong to NOLOGIN roles, so a role that alters them must be a member of their owner. Landfall grants
//! itself the membership at the start of a change and revokes it at the end. If it were a member of every owners'
//! role all the time, PostgreSQL would check all of them for each statement, and a stolen login of Landfall could
//! reach more objects.
//!
//! Two grants on one object at the same time are an error in PostgreSQL ("tuple concurrently updated"). Output ports
//! of a data product grant on the same schema, and all components on the same database. So such a change takes a lock
//! first. The order is always: component, data product, roles, database.

use std::collections::BTreeSet;

use super::desired::{Contract, Place, Shape, Step};
use super::naming;
use super::observe::Seen;
use super::sql::ident;
use super::view;

/// Roles that Landfall is a member of during one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct MembershipGrant {
    roles: BTreeSet<String>,
}

impl MembershipGrant {
    /// The memberships that a step needs. Steps that create or drop the component's own roles handle these
    /// themselves.
    pub(super) fn of(place: &Place, contract: Option<&Contract>, seen: &Seen, step: &Step) -> Self {
        let mut roles = BTreeSet::new();
        // In a component's own database, the membership is permanent, because its creation runs outside of a
        // transaction.
        if !place.own_database && alters(step) {
            roles.insert(place.owner_role.clone());
            let shape = contract.map(|contract| &contract.shape);
            if let (Step::View | Step::Privileges, Some(Shape::View(_))) = (step, shape) {
                let source = seen.source.iter().filter_map(|source| source.relation.as_ref());
                roles.extend(source.flat_map(|source| source.lenders.iter().cloned()));
            }
            if let Step::ChangeType { table, column } = step {
                let rebuilt = seen.relation(table).and_then(|table| view::rebuilt(place, table, column));
                let views = rebuilt.unwrap_or_default().into_iter().map(|(_, view)| view);
                roles.extend(views.filter(|view| view.owner_marked).map(|view| view.owner.clone()));
            }
        }
        if matches!(step, Step::Release | Step::Purge) {
            // Only a member of the owner can revoke grants on an object.
            roles.extend(seen.lenders.iter().cloned());
        }
        Self { roles }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.roles.extend(other.roles);
    }

    /// Returns the statements for the start of the transaction. An owners' role that does not exist yet is left
    /// out, because it is created with its membership.
    pub(super) fn granted(&self, place: &Place, seen: &Seen) -> Vec<String> {
        let there = |role: &&String| seen.owner.is_some() || **role != place.owner_role;
        self.roles.iter().filter(there).map(|role| join(role, seen)).collect()
    }

    /// Returns the statements for the end of the transaction.
    pub(super) fn revoked(&self) -> Vec<String> {
        self.roles.iter().map(|role| format!("REVOKE {} FROM CURRENT_USER", ident(role))).collect()
    }
}

/// Returns the statement that makes Landfall a member of a role. Since PostgreSQL 16, the creator of a role may
/// grant it, but does not have its rights. To create objects for the role, Landfall must grant the role to
/// itself.
pub(super) fn join(role: &str, seen: &Seen) -> String {
    let how = if seen.version >= 160_000 { " WITH INHERIT TRUE, SET TRUE" } else { "" };
    format!("GRANT {} TO CURRENT_USER{how}", ident(role))
}

/// Whether a step touches objects of an owners' role that stays.
fn alters(step: &Step) -> bool {
    match step {
        Step::Prepare
        | Step::Restore
        | Step::CreateTable { .. }
        | Step::View
        | Step::RenameColumn { .. }
        | Step::AddColumn { .. }
        | Step::DropColumn { .. }
        | Step::ChangeType { .. }
        | Step::Nullable { .. }
        | Step::PrimaryKey { .. }
        | Step::Unique { .. }
        | Step::Comments
        | Step::Privileges
        | Step::Repair => true,
        Step::CreateDatabase
        | Step::DropDatabase
        | Step::Owners
        | Step::Revoke
        | Step::Fields
        | Step::Grant
        | Step::Release
        | Step::Purge => false,
    }
}

/// Returns the statement that locks the data product, if a step changes what its components share. `before` is
/// the latest observation, made before the lock.
pub(super) fn product_lock(place: &Place, before: Option<&Seen>, step: &Step) -> Option<String> {
    let shared = match step {
        Step::Prepare
        | Step::CreateTable { .. }
        | Step::View
        | Step::Privileges
        | Step::Repair
        | Step::Release
        | Step::Purge => true,
        Step::ChangeType { table, .. } => before
            .and_then(|seen| seen.relation(table))
            .is_none_or(|relation| !relation.dependents.is_empty()),
        _ => false,
    };
    let key = naming::lock_key(place.product.as_ref(), &place.owner.environment);
    shared.then(|| lock(key))
}

/// Returns the statement that takes the lock for changes of the right to connect.
pub(super) fn database_lock() -> String {
    lock(naming::lock_key("database", ""))
}

fn lock(key: i64) -> String {
    format!("SELECT pg_advisory_xact_lock({key})")
}
