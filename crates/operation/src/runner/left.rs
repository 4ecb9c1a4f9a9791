//! Resources that an earlier operation left as another kind, under another name or on another target.

use std::collections::BTreeSet;
use std::iter;
use std::sync::Arc;

use landfall_adapter::descriptor::{Component, DataProduct, Problem};
use landfall_adapter::error::Error;
use landfall_adapter::{Action, Context, Found, Intent, Kinds, Plan, Work};

use crate::topology::same_code;
use crate::work::Assigned;
use crate::{Deployment, DeploymentStatus};

/// The problem of a component that exists as another kind than its descriptor names, or that kept its data as another
/// kind, if Landfall has no record of it. Otherwise its resources would stay behind unnoticed.
pub(super) async fn made_as_another_kind(
    one: &Assigned,
    plan: &Plan,
    intent: &Intent,
    context: &Context,
    remembered: Option<&Deployment>,
) -> Option<Problem> {
    let Assigned { work, target, .. } = one;
    let own = &work.component.kind;
    let Kinds::Only(kinds) = target.technology.capabilities().kinds else { return None };
    let is_there = remembered.is_some_and(|it| it.status == DeploymentStatus::Provisioned);
    let removes_nothing = matches!(intent, Intent::Unprovision { .. }) && plan.changes.is_empty();
    let made = remembered.and_then(|deployment| deployment.kind.as_ref());
    let candidates: Vec<_> = match (remembered, made) {
        (Some(_), Some(made)) if removes_nothing && made != own => vec![made],
        // An earlier version did not record the kind.
        (Some(_), None) if is_there && *intent != Intent::UpdateAccess => {
            let others = kinds.iter().filter(|kind| *kind != own);
            iter::once(own).chain(others).collect()
        }
        (None, _) if removes_nothing => kinds.iter().filter(|kind| *kind != own).collect(),
        _ => return None,
    };
    let silent = context.silent();
    for kind in candidates {
        let mut component = Component::clone(&work.component);
        component.kind.clone_from(kind);
        if let Some(deployment) = remembered {
            component.specific.clone_from(&deployment.specific);
        }
        let there = Work { component: Arc::new(component), access: None, ..work.clone() };
        // Bind as for an unprovision, because the component only needs to be identified.
        let Ok(bound) = target.technology.bind(there, Intent::Unprovision { remove_data: true }) else {
            continue;
        };
        let exists = match bound.find(&silent).await {
            Ok(Found::Provisioned(_)) => true,
            Ok(Found::Kept(_)) => *intent == (Intent::Unprovision { remove_data: true }),
            _ => false,
        };
        if exists && kind == own {
            return None;
        }
        if exists {
            let was = kind.name();
            return Some(
                Problem::new("kind", format!("this component exists as `{was}`"))
                    .value(own.name())
                    .remedy(format!("write `kind: {was}`, or unprovision it as that first")),
            );
        }
    }
    None
}

/// A note about data that an unprovision kept, if the component is now provisioned elsewhere. The earlier technology
/// is asked what it would restore.
pub(super) async fn kept_elsewhere(
    one: &Assigned,
    plan: &Plan,
    intent: &Intent,
    context: &Context,
    remembered: Option<&Deployment>,
) -> Option<String> {
    let deployment = remembered.filter(|it| it.status == DeploymentStatus::Unprovisioned)?;
    let moved = !same_code(&deployment.target, &one.target.code);
    let kind = deployment.kind.as_ref().unwrap_or(&one.work.component.kind);
    let mut product = DataProduct::clone(&one.work.product);
    if let Some(id) = deployment.product.as_ref().and_then(|id| id.parse().ok()) {
        product.id = id;
    }
    let renamed = deployment.specific != one.work.component.specific
        || *kind != one.work.component.kind
        || product.id != one.work.product.id;
    if *intent != Intent::Provision || !(moved || renamed) {
        return None;
    }
    let code = &deployment.target;
    let stays = "is not moved: copy it, or provision the component there again to take it back";
    let Some(before) = &one.before else {
        return moved.then(|| {
            format!(
                "the component was unprovisioned on target `{code}`, which is not configured any more: data that was \
                 kept there {stays}"
            )
        });
    };
    let mut component = Component::clone(&one.work.component);
    component.specific.clone_from(&deployment.specific);
    component.kind.clone_from(kind);
    let there = Work { product: Arc::new(product), component: Arc::new(component), ..one.work.clone() };
    let silent = context.silent();
    let restored = || {
        let restored = plan.changes.iter().filter(|change| change.action == Action::Restore);
        restored.map(|change| change.resource.clone()).collect::<BTreeSet<_>>()
    };
    let found = match before.technology.bind(there, Intent::Unprovision { remove_data: true }) {
        Ok(bound) => bound.find(&silent).await,
        Err(problems) => Err(Error::invalid(problems)),
    };
    let old: BTreeSet<String> = match found {
        Ok(Found::Kept(resources)) => resources.into_iter().collect(),
        Ok(_) => return None,
        Err(error) if moved => {
            return Some(format!(
                "the component was unprovisioned on target `{code}`, which cannot say whether it kept data ({error}): what \
                 it kept {stays}"
            ));
        }
        Err(_) => return None,
    };
    if old.is_empty() || (!moved && restored() == old) {
        return None;
    }
    let names = old.into_iter().collect::<Vec<_>>().join(", ");
    Some(format!("data of this component was kept on target `{code}` ({names}), and {stays}"))
}
