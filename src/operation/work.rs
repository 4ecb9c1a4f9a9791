//! From a request's text to components on their targets: parse, place, check.
//!
//! Pure but for what it is given to remember, so that `/validate`, `/provision`, the dry run, the worker and the
//! offline `landfall validate` cannot disagree. Costs what parsing costs; callers keep it off the async threads.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::descriptor::{
    self, Component, DataProduct, Descriptor, DescriptorKind, Limits, Problem, Scope, Strictness,
};
use crate::technology::{AccessList, Intent, Work};
use crate::topology::{Purpose, Target, Topology, same_code};

use super::service::ComponentPlace;
use super::{ComponentKey, Deployment, DeploymentStatus};

/// A descriptor as it arrived.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// How to read it.
    pub kind: DescriptorKind,
    /// YAML or JSON. Never logged.
    pub text: String,
}

impl std::fmt::Debug for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Document").field("kind", &self.kind).field("bytes", &self.text.len()).finish()
    }
}

/// Where a component was placed when its task was accepted; the task goes there whatever the topology says later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Component and environment.
    pub key: ComponentKey,
    /// Code of the target.
    pub target: String,
}

/// One component on its target.
#[derive(Clone)]
pub struct Assigned {
    /// What is to be worked on.
    pub work: Work,
    /// Where.
    pub target: Arc<Target>,
    /// Where it was unprovisioned, of a component that is provisioned again.
    pub before: Option<Arc<Target>>,
}

impl Assigned {
    /// Component and environment.
    pub fn key(&self) -> ComponentKey {
        key(&self.work.component, &self.work.environment)
    }
}

/// What a document comes to.
pub struct Resolved {
    /// Components to work on, each after what it depends on.
    pub assigned: Vec<Assigned>,
    /// Components that no route leads to: another adapter's.
    pub skipped: Vec<String>,
    /// Of the document's content; see [`Descriptor::digest`].
    pub digest: Option<[u8; 32]>,
}

fn key(component: &Component, environment: &str) -> ComponentKey {
    ComponentKey { component: component.id.to_string(), environment: environment.to_owned() }
}

/// Reads a document as strictly as the intent needs: what is to be created must be described in full, what is to be
/// removed or opened to somebody must only be identified. What is wrong with the parts that could be read is found
/// by their technologies even so: one answer has every problem.
pub(super) fn parse(
    document: &Document,
    intent: &Intent,
    topology: &Topology,
    limits: &Limits,
) -> Result<Descriptor, Vec<Problem>> {
    let strictness = match intent {
        Intent::Provision => Strictness::Full,
        Intent::Unprovision { .. } | Intent::UpdateAccess => Strictness::Short,
    };
    descriptor::parse(document.kind, document.text.as_str(), strictness, limits).map_err(|rejected| {
        let mut problems = rejected.problems;
        if let Some(readable) = rejected.readable {
            let resolver = Resolver::new(&readable, intent, topology, Places::Topology, &[], None);
            let sound = readable.product.all_components().filter(|component| {
                in_scope(&readable, component) && !problems.iter().any(|problem| is_under(problem, component))
            });
            let more: Vec<Problem> =
                sound.filter_map(|component| resolver.assign(component).err()).flatten().collect();
            problems.extend(more);
            problems = readable.locate(problems);
        }
        problems
    })
}

fn in_scope(descriptor: &Descriptor, component: &Component) -> bool {
    match &descriptor.scope {
        Scope::DataProduct => true,
        Scope::Component(id) => component.id == *id,
    }
}

fn is_under(problem: &Problem, component: &Component) -> bool {
    problem
        .path
        .strip_prefix(&component.path)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Where components may go.
#[derive(Clone, Copy)]
pub(super) enum Places<'a> {
    /// Where the topology says, or, for what exists, where it was provisioned.
    Topology,
    /// Where the task was accepted for.
    Fixed(&'a [Placement]),
}

/// Places and checks every component that the document asks to work on.
pub(super) fn resolve(
    descriptor: &Descriptor,
    intent: &Intent,
    topology: &Topology,
    places: Places<'_>,
    deployments: &[Deployment],
    access: Option<&AccessList>,
) -> Result<Resolved, Vec<Problem>> {
    let resolver = Resolver::new(descriptor, intent, topology, places, deployments, access);
    let mut resolved = Resolved { assigned: Vec::new(), skipped: Vec::new(), digest: None };
    let mut problems = Vec::new();
    let targets = descriptor.targets();
    for component in &targets {
        match resolver.assign(component) {
            Ok(Some(assigned)) => resolved.assigned.push(assigned),
            Ok(None) => resolved.skipped.push(component.id.to_string()),
            Err(found) => problems.extend(found),
        }
    }
    if resolved.assigned.is_empty() && problems.is_empty() {
        // Nothing is routed: asking for the first one gives the reason that fits them all.
        let environment = descriptor.product.environment.as_deref().unwrap_or_default();
        let first = targets.first().and_then(|component| {
            let choice = topology.choose(component, environment, Purpose::from(intent));
            choice.err().map(|problem| problem.under(&component.path))
        });
        problems.push(first.unwrap_or_else(|| {
            Problem::new("components", "the data product has no component")
                .remedy("add at least one component that this adapter is routed to")
        }));
    }
    if problems.is_empty() { Ok(resolved) } else { Err(descriptor.locate(problems)) }
}

/// Everything that decides where a component goes.
struct Resolver<'a> {
    descriptor: &'a Descriptor,
    product: Arc<DataProduct>,
    intent: &'a Intent,
    topology: &'a Topology,
    places: Places<'a>,
    deployments: &'a [Deployment],
    access: Option<&'a AccessList>,
}

impl<'a> Resolver<'a> {
    fn new(
        descriptor: &'a Descriptor,
        intent: &'a Intent,
        topology: &'a Topology,
        places: Places<'a>,
        deployments: &'a [Deployment],
        access: Option<&'a AccessList>,
    ) -> Self {
        let product = Arc::new(descriptor.product.clone());
        Self { descriptor, product, intent, topology, places, deployments, access }
    }

    /// The component on its target, nothing when it is another adapter's, or everything wrong with it.
    fn assign(&self, component: &Component) -> Result<Option<Assigned>, Vec<Problem>> {
        let alone = |problem: Problem| vec![problem.under(&component.path)];
        let environment =
            environment(self.descriptor, component, self.topology, self.places, self.deployments)
                .map_err(|problem| vec![problem])?;
        let key = key(component, &environment);
        let remembered = self.deployments.iter().find(|deployment| deployment.key == key);
        let placed =
            place(&key, component, self.intent, self.topology, self.places, remembered).map_err(alone)?;
        let target = match placed {
            Some(target) => target,
            // A data product has components of other adapters; a component asked for by name has not.
            None if self.descriptor.scope == Scope::DataProduct => return Ok(None),
            None => self.topology.choose(component, &environment, self.intent.into()).map_err(alone)?,
        };
        let remembered_access = || remembered.and_then(|deployment| deployment.access.clone());
        let work = Work {
            product: Arc::clone(&self.product),
            component: Arc::new(as_provisioned(component, self.intent, remembered)),
            environment,
            access: self.access.cloned().or_else(remembered_access),
        };
        let capabilities = target.technology.capabilities();
        if !capabilities.kinds.contains(&component.kind) {
            let kinds = capabilities.kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
            let message =
                format!("target `{}` ({}) does not take this kind", target.code, target.technology.name());
            let problem = Problem::new("kind", message).value(component.kind.name());
            return Err(alone(problem.remedy(format!("it takes: {kinds}"))));
        }
        let problems = target.technology.check(&work, self.intent);
        let before = remembered
            .filter(|it| *self.intent == Intent::Provision && it.status == DeploymentStatus::Unprovisioned)
            .and_then(|deployment| self.topology.target(&deployment.target));
        if problems.is_empty() {
            Ok(Some(Assigned { work, target, before }))
        } else {
            Err(problems.into_iter().flat_map(alone).collect())
        }
    }
}

/// The component with the `specific` that it was provisioned with, where that and not the document decides: its
/// resources are to be found, and a short form or an edit since then does not name them.
fn as_provisioned(component: &Component, intent: &Intent, remembered: Option<&Deployment>) -> Component {
    let mut component = component.clone();
    if let (Intent::Unprovision { .. } | Intent::UpdateAccess, Some(deployment)) = (intent, remembered)
        && (deployment.status == DeploymentStatus::Provisioned || component.specific.is_empty())
    {
        component.specific.clone_from(&deployment.specific);
    }
    component
}

/// The environment of the product; a short form may lack it, then the one the task was accepted for, or the only one
/// where the component is known.
fn environment(
    descriptor: &Descriptor,
    component: &Component,
    topology: &Topology,
    places: Places<'_>,
    deployments: &[Deployment],
) -> Result<String, Problem> {
    if let Some(environment) = &descriptor.product.environment {
        // In one spelling: what is remembered is found by it.
        return Ok(topology.environment(environment).to_owned());
    }
    let id = component.id.to_string();
    if let Places::Fixed(placements) = places
        && let Some(placement) = placements.iter().find(|placement| placement.key.component == id)
    {
        return Ok(placement.key.environment.clone());
    }
    let known: Vec<&str> =
        deployments.iter().filter(|d| d.key.component == id).map(|d| d.key.environment.as_str()).collect();
    let path = match descriptor.scope {
        Scope::DataProduct => "environment",
        Scope::Component(_) => "dataProduct.environment",
    };
    match known.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => Err(Problem::new(
            path,
            "the environment is missing, and this component was never provisioned here",
        )
        .remedy("add `environment` to the data product, or provision the component first")),
        several => {
            Err(Problem::new(path, "the environment is missing, and this component is known in several")
                .remedy(format!("add `environment` to the data product: one of {}", several.join(", "))))
        }
    }
}

/// The target, or none when no route leads anywhere.
fn place(
    key: &ComponentKey,
    component: &Component,
    intent: &Intent,
    topology: &Topology,
    places: Places<'_>,
    remembered: Option<&Deployment>,
) -> Result<Option<Arc<Target>>, Problem> {
    let gone = |code: &str| {
        Problem::new(
            "technology",
            format!("this component was provisioned on target `{code}`, which is not configured any more"),
        )
        .remedy(format!("put [targets.{code}] back into the configuration"))
    };
    match places {
        Places::Fixed(placements) => match placements.iter().find(|placement| placement.key == *key) {
            Some(placement) => {
                topology.target(&placement.target).map(Some).ok_or_else(|| gone(&placement.target))
            }
            None => Ok(None),
        },
        Places::Topology => {
            let is_there = remembered.is_some_and(|it| it.status == DeploymentStatus::Provisioned);
            // Also what was unprovisioned goes to where it was: its data may have been kept there.
            if let (Intent::Unprovision { .. } | Intent::UpdateAccess, Some(deployment)) =
                (intent, remembered)
            {
                match topology.target(&deployment.target) {
                    Some(target) => return Ok(Some(target)),
                    None if is_there => return Err(gone(&deployment.target)),
                    None => {}
                }
            }
            if !topology.is_routed(component) {
                return Ok(None);
            }
            let chosen = topology.choose(component, &key.environment, intent.into())?;
            match remembered.filter(|_| is_there) {
                Some(deployment) if !same_code(&deployment.target, &chosen.code) => Err(Problem::new(
                    "technology",
                    format!(
                        "this component is provisioned on target `{}`, and now belongs on `{}`",
                        deployment.target, chosen.code
                    ),
                )
                .remedy("unprovision it first, or route it to where it is")),
                _ => Ok(Some(chosen)),
            }
        }
    }
}

/// Where each component would land were it provisioned now, and why.
pub(super) fn explain(
    descriptor: &Descriptor,
    topology: &Topology,
    deployments: &[Deployment],
) -> Result<Vec<ComponentPlace>, Vec<Problem>> {
    let mut places = Vec::new();
    let mut problems = Vec::new();
    for component in descriptor.targets() {
        match environment(descriptor, component, topology, Places::Topology, deployments) {
            Ok(environment) => {
                let key = key(component, &environment);
                let remembered = deployments.iter().find(|deployment| deployment.key == key);
                let chosen = || {
                    place(&key, component, &Intent::Provision, topology, Places::Topology, remembered)
                        .map(|target| target.map(|target| target.code.clone()))
                        .transpose()
                };
                places.push(ComponentPlace {
                    id: key.component.clone(),
                    name: component.name.clone(),
                    explanation: topology.explain(component, &environment, Purpose::Provision),
                    target: chosen(),
                    provisioned_on: remembered
                        .filter(|deployment| deployment.status == DeploymentStatus::Provisioned)
                        .map(|deployment| deployment.target.clone()),
                    environment,
                });
            }
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(places) } else { Err(descriptor.locate(problems)) }
}

/// Where everything was placed, to be kept with the task.
pub(super) fn placements(resolved: &Resolved) -> Vec<Placement> {
    resolved
        .assigned
        .iter()
        .map(|one| Placement { key: one.key(), target: one.target.code.clone() })
        .collect()
}

/// What `/validate` says, without a server: the ids of the components that are routed here, or every problem.
pub fn check_document(
    document: &Document,
    topology: &Topology,
    limits: &Limits,
) -> Result<Vec<String>, Vec<Problem>> {
    let descriptor = parse(document, &Intent::Provision, topology, limits)?;
    let resolved = resolve(&descriptor, &Intent::Provision, topology, Places::Topology, &[], None)?;
    Ok(resolved.assigned.iter().map(|one| one.work.component.id.to_string()).collect())
}
