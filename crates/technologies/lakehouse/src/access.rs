//! Recorded access: the list is stored with the resource, and nothing prevents other reads.
//!
//! The list of a bucket is in its mark, and the list of a table in its properties. It is reconciled like an enforced
//! list, revocations first, so it always equals the list that was requested last.

use std::collections::BTreeSet;

use super::{Step, change};
use landfall_adapter::access::{self, Ref, reconcile};
use landfall_adapter::{AccessList, Action, Change};

/// A note in every plan.
pub(super) const NOTE: &str = "access is recorded, not enforced";

/// The note about names without a prefix, which are recorded as written.
pub(super) fn bare_names_note(wanted: Option<&AccessList>) -> Option<String> {
    const SHOWN: usize = 20;
    let refs = access::recorded(&wanted?.refs);
    let bare: Vec<_> = refs.iter().filter(|reference| matches!(reference, Ref::Bare(_))).collect();
    let mut names: Vec<String> = bare.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    if bare.len() > SHOWN {
        names.push(format!("{} more", bare.len() - SHOWN));
    }
    let told = "recorded as written: no directory says whether this is a user or a group";
    (!bare.is_empty()).then(|| format!("{} {told}", names.join(", ")))
}

/// The changes from the recorded to the wanted list.
pub(super) fn changes(recorded: &AccessList, wanted: &AccessList, resource: &str) -> Vec<Change<Step>> {
    let wanted_refs: Vec<Ref> = access::recorded(&wanted.refs).into_iter().collect();
    let difference = reconcile(&names(&recorded.refs), &names(&wanted_refs));
    let mut changes = Vec::new();
    for reference in difference.revoke {
        let summary = format!("revoke `{reference}` (recorded)");
        changes.push(change(Action::Revoke, resource, summary, Step::Revoke { reference }));
    }
    if recorded.fields != wanted.fields {
        changes.push(change(Action::Alter, resource, "record the access control fields", Step::Fields));
    }
    for reference in difference.grant {
        let summary = format!("grant `{reference}` (recorded)");
        changes.push(change(Action::Grant, resource, summary, Step::Grant { reference }));
    }
    changes
}

/// Returns the recorded list after this step; `None` if the step changes nothing.
pub(super) fn after(recorded: &AccessList, step: &Step, wanted: Option<&AccessList>) -> Option<AccessList> {
    let mut next = recorded.clone();
    match step {
        Step::Revoke { reference } => next.refs.retain(|held| held.to_string() != *reference),
        Step::Grant { reference } => {
            next.refs.extend(Ref::parse(reference).ok());
            next.refs.sort();
            next.refs.dedup();
        }
        Step::Fields => next.fields = wanted?.fields.clone(),
        _ => {}
    }
    (next != *recorded).then_some(next)
}

/// Returns an empty access list.
pub(super) fn none() -> AccessList {
    AccessList { refs: Vec::new(), fields: landfall_adapter::descriptor::Object::new() }
}

/// Refs as texts.
pub(super) fn names(refs: &[Ref]) -> BTreeSet<String> {
    refs.iter().map(ToString::to_string).collect()
}
