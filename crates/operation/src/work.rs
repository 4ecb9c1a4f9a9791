//! From the text of a request to components on their targets: parse, place, check.
//!
//! These functions do no I/O. `/validate`, `/provision`, the dry run and the worker use the same functions, so
//! their results agree. The offline `landfall validate` uses them without stored deployments, so it does not
//! find what contradicts an existing component. They take as long as parsing, so callers run them off the async
//! threads.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::topology::{Target, Topology, Unplaced, same_code};
use landfall_adapter::any::AnyBound;
use landfall_adapter::descriptor::{
    self, Causes, Component, ComponentKind, DataProduct, Descriptor, DescriptorKind, Identifier, Limits,
    Outline, Problem, Scope, Sent, Sequence, Strictness,
};
use landfall_adapter::{AccessList, Dependency, Info, Intent, Kinds, Neighbours, Work};

use landfall_adapter::error::{Error, Kind};

use super::request::SMALL;
use super::service::ComponentPlace;
use super::{ComponentKey, Deployment, DeploymentStatus, Operation};

/// A descriptor as it was sent.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// The kind of the descriptor.
    pub kind: DescriptorKind,
    /// YAML or JSON. Never logged.
    pub text: String,
    /// `latestEnrichedDescriptor` of the request, until it is read. Never stored, never logged.
    #[serde(skip)]
    pub latest: Option<String>,
    /// What dependencies of its components had published, according to `latestEnrichedDescriptor`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub published: BTreeMap<String, Info>,
}

impl Document {
    /// A descriptor without `latestEnrichedDescriptor`.
    pub fn new(kind: DescriptorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), latest: None, published: BTreeMap::new() }
    }

    /// The same descriptor with the `latestEnrichedDescriptor` of its request.
    #[must_use]
    pub fn with_latest(mut self, latest: Option<String>) -> Self {
        self.latest = latest.filter(|text| !text.trim().is_empty());
        self
    }

    /// Whether the texts have at most `SMALL` bytes in total, so that parsing takes well under a millisecond.
    pub(super) fn is_small(&self) -> bool {
        self.text.len() + self.latest.as_ref().map_or(0, String::len) <= SMALL
    }
}

impl std::fmt::Debug for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Document").field("kind", &self.kind).field("bytes", &self.text.len()).finish()
    }
}

/// The target of a component, as decided when its task was accepted. The task uses it even if the topology changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Component and environment.
    pub key: ComponentKey,
    /// Code of the target.
    pub target: String,
    /// The path of the component in the document, because another component may have the same id. Empty in tasks of
    /// versions that did not store it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
}

/// A component on its target.
#[derive(Clone)]
pub struct Assigned {
    /// The component with its data product, environment and dependencies.
    pub work: Work,
    /// The component, bound by the technology of the target.
    pub bound: Arc<dyn AnyBound>,
    /// The target.
    pub target: Arc<Target>,
    /// The target where the component was unprovisioned, if it is provisioned again.
    pub before: Option<Arc<Target>>,
}

impl Assigned {
    /// Component and environment.
    pub fn key(&self) -> ComponentKey {
        key(&self.work.component, &self.work.environment)
    }
}

/// A document with its components on their targets.
pub struct Resolved {
    /// The components to work on, each after its dependencies.
    pub assigned: Vec<Assigned>,
    /// The order of all components.
    pub sequence: Sequence,
    /// Components of a data product that no route leads to. They are left to other adapters.
    pub skipped: Vec<Skipped>,
    /// A digest of the document's content ([`Descriptor::digest`]), for a change that is about to be accepted; `None`
    /// otherwise.
    pub digest: Option<[u8; 32]>,
    /// What dependencies had published according to the request; it is stored with the task.
    pub published: BTreeMap<String, Info>,
}

/// A component that is left to another adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its id, or its name or path if it has none.
    pub id: String,
    /// The reason, with the nearest route.
    pub reason: String,
}

/// The same error with a prefix before the paths of its problems.
pub(super) fn under(error: Error, prefix: &str) -> Error {
    each_problem(error, |problem| problem.under(prefix))
}

/// The same error with the paths of a technology's problems from the root of the document.
pub(super) fn located(error: Error, component: &Component) -> Error {
    each_problem(error, |problem| component.located(problem))
}

fn each_problem(error: Error, change: impl FnMut(Problem) -> Problem) -> Error {
    match error.kind() {
        Kind::Invalid(problems) => Error::invalid(problems.iter().cloned().map(change).collect()),
        _ => error,
    }
}

fn key(component: &Component, environment: &str) -> ComponentKey {
    ComponentKey { component: component.id.to_string(), environment: environment.to_owned() }
}

/// Parses a document as strictly as the intent requires: a component to provision must be described completely,
/// but for an unprovision or an update of access, it only needs to be identified. If parsing fails,
/// technologies still check the parts that could be read, so that one response has every problem.
///
/// Landfall's own components are those that a route leads to or, for an accepted task, those for which the task
/// was accepted.
pub(super) fn parse(
    document: &Document,
    intent: &Intent,
    topology: &Topology,
    places: Places<'_>,
    limits: &Limits,
) -> Result<Descriptor, Vec<Problem>> {
    let strictness = match intent {
        Intent::Provision => Strictness::Full,
        Intent::Unprovision { .. } | Intent::UpdateAccess => Strictness::Short,
    };
    let placed: HashMap<&str, &str> = match places {
        Places::Topology => HashMap::new(),
        Places::Fixed(placements) => {
            placements.iter().map(|it| (it.key.component.as_str(), it.path.as_str())).collect()
        }
    };
    let ours = |outline: &Outline| match places {
        Places::Topology => topology.is_routed(&outline.routing()),
        // Another component of the document may have the same id, so the path must match, too.
        Places::Fixed(_) => match outline.id.as_deref().and_then(|id| placed.get(id)) {
            Some(&"") => strictness == Strictness::Full || topology.is_routed(&outline.routing()),
            Some(path) => *path == outline.path,
            None => false,
        },
    };
    descriptor::parse(document.kind, document.text.as_str(), strictness, limits, &ours).map_err(|rejected| {
        let mut problems = rejected.problems;
        // In short form, the target of a component is not known without its stored deployment.
        if let (Some(readable), Strictness::Full) = (rejected.readable, strictness) {
            let is_broken = |component: &Component| problems.iter().any(|it| is_of(it, component));
            let broken = readable.product.all_components().filter(|it| is_broken(it));
            let broken = broken.map(|it| it.path.clone()).collect();
            let mut resolver = Resolver::new(&readable, intent, topology, places, &[], None);
            resolver.broken = Some(broken);
            let mut more = Vec::new();
            for component in readable.product.all_components().filter(|it| in_scope(&readable, it)) {
                let known = Causes::of(component, &problems);
                for problem in resolver.assign(component).err().unwrap_or_default() {
                    // Problems of the environment are found again with every component.
                    if !more.contains(&problem) && (problem.is_of_reading() || !known.may_cause(&problem)) {
                        more.push(problem);
                    }
                }
            }
            problems.extend(more);
            problems = readable.locate(problems);
        }
        problems
    })
}

/// What the dependencies of the document's components had published, according to `latestEnrichedDescriptor`.
/// An unreadable `latestEnrichedDescriptor` is ignored, because it is only the control plane's account of
/// earlier operations. Without one, returns [`Document::published`].
pub(super) fn published(
    document: &Document,
    descriptor: &Descriptor,
    limits: &Limits,
) -> BTreeMap<String, Info> {
    let Some(latest) = &document.latest else { return document.published.clone() };
    let named = descriptor.targets().into_iter().flat_map(|component| &component.depends_on);
    let wanted: HashSet<&str> = named.map(Identifier::as_str).collect();
    if wanted.is_empty() {
        return BTreeMap::new();
    }
    descriptor::published(latest, limits, &|id| wanted.contains(id)).unwrap_or_else(|_| {
        log::warn!("the `latestEnrichedDescriptor` of a request is ignored: it cannot be read");
        BTreeMap::new()
    })
}

/// Whether a problem belongs to this component itself, and not to a component in it.
fn is_of(problem: &Problem, component: &Component) -> bool {
    problem.path.strip_prefix(&component.path).is_some_and(|rest| {
        rest.is_empty() || (rest.starts_with(['.', '[']) && !rest.starts_with(".components["))
    })
}

/// The components of a data product that are left to other adapters.
fn skipped(descriptor: &Descriptor, assigned: &[Assigned], topology: &Topology) -> Vec<Skipped> {
    let known: HashSet<&str> = assigned.iter().map(|one| one.work.component.id.as_str()).collect();
    let others = descriptor.others.iter();
    others
        .filter(|outline| !outline.id.as_deref().is_some_and(|id| known.contains(id)))
        .map(|outline| Skipped {
            id: outline
                .label()
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .take(MAX_LABEL)
                .collect(),
            reason: topology.unrouted(&outline.routing()),
        })
        .collect()
}

/// The maximum length of the label of a skipped component, in characters; Landfall's own identifiers are shorter.
const MAX_LABEL: usize = 512;

fn in_scope(descriptor: &Descriptor, component: &Component) -> bool {
    match &descriptor.scope {
        Scope::DataProduct => true,
        Scope::Component(id) => component.id == *id,
    }
}

/// Where the targets of the components come from.
#[derive(Clone, Copy)]
pub(super) enum Places<'a> {
    /// The topology, or the stored deployment for a component that exists.
    Topology,
    /// The placements of an accepted task.
    Fixed(&'a [Placement]),
}

/// Places and checks every component that the document asks to work on. Returns the components in order, or all
/// problems.
pub(super) fn resolve(
    descriptor: &Descriptor,
    intent: &Intent,
    topology: &Topology,
    places: Places<'_>,
    deployments: &[Deployment],
    access: Option<&AccessList>,
) -> Result<Resolved, Vec<Problem>> {
    let resolver = Resolver::new(descriptor, intent, topology, places, deployments, access);
    let mut assigned = Vec::new();
    let mut problems: Vec<Problem> = Vec::new();
    for component in descriptor.targets() {
        match resolver.assign(component) {
            Ok(one) => assigned.extend(one),
            Err(found) => {
                for problem in found {
                    // Problems of the environment are the same for every component of a group.
                    let of_environment = problem.path == resolver.environment_path();
                    if !of_environment || !problems.contains(&problem) {
                        problems.push(problem);
                    }
                }
            }
        }
    }
    let skipped = skipped(descriptor, &assigned, topology);
    if assigned.is_empty() && problems.is_empty() {
        problems.push(nothing_to_work_on(&skipped, topology));
    }
    if problems.is_empty() {
        Ok(Resolved {
            assigned,
            sequence: descriptor.sequence.clone(),
            skipped,
            digest: None,
            published: BTreeMap::new(),
        })
    } else {
        Err(descriptor.locate(problems))
    }
}

/// The targets of the document whose technologies have not learned their capabilities yet. Problems are left to
/// [`resolve`].
pub(super) fn targets_to_learn(
    descriptor: &Descriptor,
    intent: &Intent,
    topology: &Topology,
    places: Places<'_>,
    deployments: &[Deployment],
) -> Vec<Arc<Target>> {
    let resolver = Resolver::new(descriptor, intent, topology, places, deployments, None);
    let mut found: Vec<Arc<Target>> = Vec::new();
    for component in descriptor.targets() {
        if let Ok(Some((_, target))) = resolver.target(component)
            && !target.technology.is_known()
            && found.iter().all(|one| one.code != target.code)
        {
            found.push(target);
        }
    }
    found
}

/// The problem of a document without any component to work on.
fn nothing_to_work_on(skipped: &[Skipped], topology: &Topology) -> Problem {
    const SHOWN: usize = 3;
    let (first, one) = match skipped {
        [] => {
            return Problem::new("components", "the data product has no component")
                .remedy("add at least one component that this adapter is routed to");
        }
        [one] => (one, true),
        [first, ..] => (first, false),
    };
    let message = if one {
        "no route leads from the component to a target".to_owned()
    } else {
        format!("no route leads from any of the {} components to a target", skipped.len())
    };
    let mut reasons: Vec<String> =
        skipped.iter().take(SHOWN).map(|it| format!("`{}`: {}", it.id, it.reason)).collect();
    if skipped.len() > SHOWN {
        reasons.push(format!("and {} more", skipped.len() - SHOWN));
    }
    Problem::new("components", message).value(&first.id).remedy(format!(
        "use what is routed here: {}; or add a [[routes]] entry to the configuration ({})",
        topology.routed(),
        reasons.join("; ")
    ))
}

/// Everything that decides the target of a component.
struct Resolver<'a> {
    descriptor: &'a Descriptor,
    product: Arc<DataProduct>,
    intent: &'a Intent,
    topology: &'a Topology,
    places: Places<'a>,
    deployments: &'a [Deployment],
    access: Option<&'a AccessList>,
    /// The paths of components with parse problems; `None` if the document has none.
    broken: Option<HashSet<String>>,
    neighbours: OnceCell<HashMap<String, Neighbours>>,
    /// The data product as it was sent; created when a technology asks for it.
    sent: OnceCell<Arc<Value>>,
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
        Self {
            descriptor,
            product,
            intent,
            topology,
            places,
            deployments,
            access,
            broken: None,
            neighbours: OnceCell::new(),
            sent: OnceCell::new(),
        }
    }

    /// The component as it was sent, if its technology asks for it.
    fn sent(&self, component: &Component, target: &Target) -> Option<Sent> {
        target.technology.reads_sent().then(|| {
            let product = self.sent.get_or_init(|| self.descriptor.sent_product());
            self.descriptor.sent(product, component)
        })
    }

    /// The components that go to the target `code`; for an accepted task, only those for which it was accepted.
    /// Empty unless the intent is a provisioning, because only a provisioning compares components with each
    /// other.
    fn neighbours(&self, code: &str) -> Neighbours {
        if *self.intent != Intent::Provision {
            return Neighbours::default();
        }
        let all = self.neighbours.get_or_init(|| {
            let mut numbers: HashMap<String, Vec<usize>> = HashMap::new();
            // Targets of components whose columns could not be read.
            let mut unread: HashSet<String> = HashSet::new();
            for (number, component) in self.descriptor.product.components.iter().enumerate() {
                let is_broken = self.broken.as_ref().is_some_and(|broken| broken.contains(&component.path));
                if is_broken || (matches!(self.places, Places::Fixed(_)) && !self.concerns(component)) {
                    continue;
                }
                match self.target(component) {
                    Ok(Some((_, target))) if component.faults.contract.is_empty() => {
                        numbers.entry(target.code.clone()).or_default().push(number);
                    }
                    Ok(Some((_, target))) => drop(unread.insert(target.code.clone())),
                    Ok(None) | Err(_) => {}
                }
            }
            let complete = self.broken.is_none() && self.descriptor.scope == Scope::DataProduct;
            let made = numbers.into_iter().map(|(code, numbers)| {
                let complete = complete && !unread.contains(&code);
                (code, Neighbours::new(numbers, complete))
            });
            made.collect()
        });
        all.get(code).cloned().unwrap_or_default()
    }

    /// What the dependencies of a component published.
    fn dependencies(&self, component: &Component, environment: &str) -> Vec<Dependency> {
        let published = |id: &Identifier| {
            if let Some(info) = self.product.published.get(id.as_str()) {
                return Some(info.clone());
            }
            let key = ComponentKey::new(id.as_str(), environment);
            self.remembered(&key).filter(|it| it.status == DeploymentStatus::Provisioned)?.info.clone()
        };
        let known = component
            .depends_on
            .iter()
            .filter_map(|id| Some(Dependency { id: id.clone(), info: published(id)? }));
        known.collect()
    }

    fn environment_path(&self) -> &'static str {
        environment_path(self.descriptor)
    }

    /// The key and the target of a component; `None` if it belongs to another adapter. Returns a problem if no
    /// target can be chosen, if the target does not accept the component's kind, or if the component
    /// contradicts its deployment.
    fn target(&self, component: &Component) -> Result<Option<(ComponentKey, Arc<Target>)>, Problem> {
        // A data product may have components of other adapters; their environment does not matter.
        if self.descriptor.scope == Scope::DataProduct && !self.concerns(component) {
            return Ok(None);
        }
        let within = |problem: Unplaced| problem.within(product_path(self.descriptor), &component.path);
        let environment =
            environment(self.descriptor, component, self.topology, self.places, self.deployments)?;
        let key = key(component, &environment);
        let remembered = self.remembered(&key);
        if let Some(problem) = remembered.and_then(|it| of_another_product(&self.product, component, it)) {
            return Err(problem.under(&component.path));
        }
        let component = as_provisioned(component, self.intent, remembered);
        let component = component.as_ref();
        if let Some(unread) =
            component.unread.iter().find(|it| remembered.is_none() && it.decides_the_place())
        {
            return Err(unread.problem.clone());
        }
        let placed =
            place(&key, component, self.intent, self.topology, self.places, remembered).map_err(within)?;
        let target = match placed {
            Some(target) => target,
            None if self.descriptor.scope == Scope::DataProduct => return Ok(None),
            None => self.topology.choose(component, &environment, (*self.intent).into()).map_err(within)?,
        };
        let capabilities = target.technology.capabilities();
        let kinds = capabilities.kinds;
        if let Some(problem) = kinds.problem(&component.kind, &target.code, target.technology.name()) {
            let unread = component.unread.iter().find(|it| it.field == "kind");
            return Err(unread.map_or(problem.under(&component.path), |unread| unread.problem.clone()));
        }
        if *self.intent == Intent::Provision
            && let Some(problem) = remembered.and_then(|it| kind_changed(component, it, &kinds))
        {
            return Err(problem.under(&component.path));
        }
        Ok(Some((key, target)))
    }

    /// Whether a route leads to the component, or it has a stored deployment; for a task, whether the task was
    /// accepted for it.
    fn concerns(&self, component: &Component) -> bool {
        let id = component.id.as_str();
        match self.places {
            Places::Fixed(placements) => placements.iter().any(|placement| placement.key.component == id),
            Places::Topology => {
                self.topology.is_routed(&component.routing())
                    || self.deployments.iter().any(|deployment| deployment.key.component == id)
            }
        }
    }

    fn remembered(&self, key: &ComponentKey) -> Option<&'a Deployment> {
        self.deployments.iter().find(|deployment| deployment.key == *key)
    }

    /// Returns `problem`, which keeps a component from its target, and further problems of the component. If it
    /// concerns the environment, these are the problems that the component has in any environment. If it
    /// concerns the kind, these are the problems of its data contract, because the right kind may use the
    /// contract.
    fn with_further_problems(&self, component: &Component, problem: Problem) -> Vec<Problem> {
        let of_contract = || component.without_consequences(component.faults.contract.clone());
        let (of_environment, of_kind) =
            (problem.path == self.environment_path(), problem.path == format!("{}.kind", component.path));
        let mut problems = vec![problem];
        if of_kind {
            problems.extend(of_contract());
        }
        let target = self.topology.any_target(component);
        let Some(target) = target.filter(|_| of_environment && *self.intent == Intent::Provision) else {
            return problems;
        };
        let kinds = target.technology.capabilities().kinds;
        if let Some(problem) = kinds.problem(&component.kind, &target.code, target.technology.name()) {
            problems.push(problem.under(&component.path));
            problems.extend(of_contract());
            return problems;
        }
        let work = Work {
            product: Arc::clone(&self.product),
            component: Arc::new(component.clone()),
            environment: self.product.environment.clone().unwrap_or_default(),
            access: None,
            neighbours: Neighbours::default(),
            dependencies: Vec::new(),
            sent: self.sent(component, &target),
        };
        let found = target.technology.bind(work, *self.intent).err().unwrap_or_default();
        problems.extend(component.without_consequences(found));
        problems
    }

    /// The component on its target; `None` if it belongs to another adapter. The error has all problems of the
    /// component.
    fn assign(&self, component: &Component) -> Result<Option<Assigned>, Vec<Problem>> {
        let (key, target) = match self.target(component) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(None),
            Err(problem) => return Err(self.with_further_problems(component, problem)),
        };
        let remembered = self.remembered(&key);
        let remembered_access = || remembered.and_then(|deployment| deployment.access.clone());
        let provisioned = as_provisioned(component, self.intent, remembered);
        let unread = provisioned.unread.iter().filter(|it| it.field == "specific");
        let unread: Vec<Problem> = unread.map(|it| it.problem.clone()).collect();
        if !unread.is_empty() {
            return Err(unread);
        }
        let work = Work {
            product: Arc::clone(&self.product),
            component: Arc::new(provisioned.into_owned()),
            environment: key.environment.clone(),
            access: self.access.cloned().or_else(remembered_access),
            neighbours: self.neighbours(&target.code),
            dependencies: self.dependencies(component, &key.environment),
            sent: self.sent(component, &target),
        };
        let bound = target.technology.bind(work.clone(), *self.intent);
        let before = remembered
            .filter(|it| *self.intent == Intent::Provision && it.status == DeploymentStatus::Unprovisioned)
            .and_then(|deployment| self.topology.target(&deployment.target));
        match bound {
            Ok(bound) => Ok(Some(Assigned { work, bound, target, before })),
            Err(problems) => Err(component.without_consequences(problems)),
        }
    }
}

/// The component with the kind and `specific` that it was provisioned with, for intents that have to find its
/// resources: a short form or a later edit may not name them. [`Component::unread`] then has only problems of fields
/// that the document decides.
fn as_provisioned<'c>(
    component: &'c Component,
    intent: &Intent,
    remembered: Option<&Deployment>,
) -> Cow<'c, Component> {
    let (Intent::Unprovision { .. } | Intent::UpdateAccess, Some(deployment)) = (intent, remembered) else {
        return Cow::Borrowed(component);
    };
    let is_there = deployment.status == DeploymentStatus::Provisioned;
    let not_stated = |field: &str, absent: bool| {
        is_there || absent || component.unread.iter().any(|unread| unread.field == field)
    };
    let mut provisioned = component.clone();
    if not_stated("specific", component.specific.is_empty()) {
        provisioned.specific.clone_from(&deployment.specific);
        provisioned.unread.retain(|unread| unread.field != "specific");
    }
    if let Some(kind) = &deployment.kind
        && not_stated("kind", component.kind == ComponentKind::Unspecified)
    {
        provisioned.kind.clone_from(kind);
        provisioned.unread.retain(|unread| unread.field != "kind");
    }
    Cow::Owned(provisioned)
}

/// The problem of a provisioned component that changes its kind, if the kind decides its resources: the existing ones
/// would be left behind.
fn kind_changed(component: &Component, remembered: &Deployment, kinds: &Kinds) -> Option<Problem> {
    let kind = remembered.kind.as_ref().filter(|_| remembered.status == DeploymentStatus::Provisioned)?;
    if *kind == component.kind || *kinds == Kinds::Any {
        return None;
    }
    let message = format!(
        "this component is provisioned as `{}`, and the descriptor declares another kind",
        kind.name()
    );
    Some(
        Problem::new("kind", message)
            .value(component.kind.name())
            .remedy(format!("unprovision it first, or write `kind: {}` again", kind.name())),
    )
}

/// The problem of a component that is provisioned in another data product. Ids are arbitrary texts, so an equal id in
/// another data product names another component.
fn of_another_product(
    product: &DataProduct,
    component: &Component,
    remembered: &Deployment,
) -> Option<Problem> {
    let other =
        remembered.product.as_deref().filter(|_| remembered.status == DeploymentStatus::Provisioned)?;
    if other == product.id.as_str() {
        return None;
    }
    let message = format!("this component is provisioned in data product `{other}`, and this is another one");
    Some(
        Problem::new("id", message)
            .value(&component.id)
            .remedy("give the component an identifier of its own, or unprovision it there first"),
    )
}

/// The path of the data product in its document.
fn product_path(descriptor: &Descriptor) -> &'static str {
    match descriptor.scope {
        Scope::DataProduct => "",
        Scope::Component(_) => "dataProduct",
    }
}

fn environment_path(descriptor: &Descriptor) -> &'static str {
    match descriptor.scope {
        Scope::DataProduct => "environment",
        Scope::Component(_) => "dataProduct.environment",
    }
}

/// The environment of the product. A short form may lack it; then it is the environment that the task was
/// accepted for, or the only one in which the component has a stored deployment. If none or several are
/// possible, returns a problem.
fn environment(
    descriptor: &Descriptor,
    component: &Component,
    topology: &Topology,
    places: Places<'_>,
    deployments: &[Deployment],
) -> Result<String, Problem> {
    if let Some(environment) = &descriptor.product.environment {
        // Use one spelling, because the environment is part of the key of a deployment.
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
    let path = environment_path(descriptor);
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

/// The target of a component; `None` if no route leads to one, or if the task was not accepted for it.
fn place(
    key: &ComponentKey,
    component: &Component,
    intent: &Intent,
    topology: &Topology,
    places: Places<'_>,
    remembered: Option<&Deployment>,
) -> Result<Option<Arc<Target>>, Unplaced> {
    let gone = |code: &str| {
        Unplaced::Component(
            Problem::new(
                "technology",
                format!(
                    "this component was provisioned on target `{code}`, which is not configured any more"
                ),
            )
            .remedy(format!("put [targets.{code}] back into the configuration")),
        )
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
            // An unprovisioned component also goes to its earlier target, because its data may have been kept there.
            if let (Intent::Unprovision { .. } | Intent::UpdateAccess, Some(deployment)) =
                (intent, remembered)
            {
                match topology.target(&deployment.target) {
                    Some(target) => return Ok(Some(target)),
                    None if is_there => return Err(gone(&deployment.target)),
                    None => {}
                }
            }
            if !topology.is_routed(&component.routing()) {
                return Ok(None);
            }
            let chosen = topology.choose(component, &key.environment, (*intent).into())?;
            match remembered.filter(|_| is_there) {
                Some(deployment) if !same_code(&deployment.target, &chosen.code) => {
                    let problem = Problem::new(
                        "technology",
                        format!(
                            "this component is provisioned on target `{}`, and its target is now `{}`",
                            deployment.target, chosen.code
                        ),
                    );
                    Err(Unplaced::Component(
                        problem.remedy("unprovision it first, or route it to where it is"),
                    ))
                }
                _ => Ok(Some(chosen)),
            }
        }
    }
}

/// The target that each component would get now, and why.
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
                        .map_err(|problem| problem.within(product_path(descriptor), ""))
                        .transpose()
                };
                places.push(ComponentPlace {
                    id: key.component.clone(),
                    name: component.name.clone(),
                    explanation: topology.explain(component, &environment, Operation::Provision),
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

/// The placements to store with the task.
pub(super) fn placements(resolved: &Resolved) -> Vec<Placement> {
    resolved
        .assigned
        .iter()
        .map(|one| Placement {
            key: one.key(),
            target: one.target.code.clone(),
            path: one.work.component.path.clone(),
        })
        .collect()
}

/// Validates a document without a server: returns the components with and without a route, or every problem.
pub fn check_document(
    document: &Document,
    topology: &Topology,
    limits: &Limits,
) -> Result<Resolved, Vec<Problem>> {
    let descriptor = parse(document, &Intent::Provision, topology, Places::Topology, limits)?;
    resolve(&descriptor, &Intent::Provision, topology, Places::Topology, &[], None)
}
