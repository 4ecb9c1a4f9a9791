//! Topology: the choice of a component's target.
//!
//! Routes lead from a component's technology, platform, kind and templates to a *group*. *Instances* decide which
//! targets are in that group, which environments they serve, and whether anything may be placed there. Operators
//! change them while the service runs. The code of an instance names the configured target. Exactly one instance must
//! fit; none or several is a problem that names the candidates with the reasons against each. The choice is pure, so
//! `/validate` and `/provision` return the same result, and an explanation shows what the choice is made from.

mod instance;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Semaphore;

use crate::Operation;
use landfall_adapter::any::AnyTechnology;
use landfall_adapter::descriptor::{Component, ComponentKind, Problem, Routing, is_typo};

pub use instance::{
    Attributes, Edit, Filter, Instance, Patch, PluginOperation, TopologyLimits, code_key, same_code,
};

/// A configured target.
pub struct Target {
    /// Its name in the configuration.
    pub code: String,
    /// The initial group of its instance.
    pub group: String,
    /// The initial environments of its instance, by name; empty: all that have an id.
    pub environments: Vec<String>,
    /// Permits: one for each component that may be processed at the same time in this process. `None`: no
    /// limit.
    pub turns: Option<Arc<Semaphore>>,
    /// The technology.
    pub technology: Arc<dyn AnyTechnology>,
}

/// `[[routes]]`: an absent condition matches every value; upper and lower case are equal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Route {
    /// `technology` of the component.
    pub technology: Option<String>,
    /// `platform` of the component.
    pub platform: Option<String>,
    /// `kind` of the component.
    pub kind: Option<ComponentKind>,
    /// `infrastructureTemplateId`, whole or up to its last `:` (all versions).
    pub infrastructure_template_id: Option<String>,
    /// `useCaseTemplateId`, whole or up to its last `:` (all versions).
    pub use_case_template_id: Option<String>,
    /// The group of targets that it leads to.
    pub group: String,
}

/// The configuration: every target, the routes to groups, and the ids of environments. Never changes.
pub struct Installation {
    targets: Vec<Arc<Target>>,
    routes: Vec<Route>,
    environments: BTreeMap<String, i64>,
}

impl Installation {
    /// `routes` are tried in order; `environments` maps Witboost names to ids.
    pub fn new(targets: Vec<Target>, routes: Vec<Route>, environments: BTreeMap<String, i64>) -> Self {
        Self { targets: targets.into_iter().map(Arc::new).collect(), routes, environments }
    }

    /// Every target of the configuration.
    pub fn targets(&self) -> &[Arc<Target>] {
        &self.targets
    }

    /// The configured target with that code, whatever the instances are; `None` if it is not configured. Used
    /// for components that an earlier operation placed on it.
    pub fn target(&self, code: &str) -> Option<Arc<Target>> {
        self.targets.iter().find(|target| same_code(&target.code, code)).cloned()
    }

    /// The initial instances of the targets.
    pub fn seeds(&self) -> Vec<Attributes> {
        let seed = |target: &Arc<Target>| Attributes {
            code: target.code.clone(),
            name: target.code.clone(),
            description: Some(format!("Target of the configuration, driver {}", target.technology.name())),
            group: Some(target.group.clone()),
            environments: match target.environments.as_slice() {
                [] => self.environments.values().copied().collect(),
                some => some.iter().filter_map(|name| self.environment_id(name)).collect(),
            },
            is_active: true,
            is_deployment_target: true,
            ..Attributes::default()
        };
        self.targets.iter().map(seed).map(Attributes::without_repetition).collect()
    }

    fn environment(&self, name: &str) -> Option<(&str, i64)> {
        let found = self.environments.iter().find(|(known, _)| same_code(known, name));
        found.map(|(known, id)| (known.as_str(), *id))
    }

    fn environment_id(&self, name: &str) -> Option<i64> {
        self.environment(name).map(|(_, id)| id)
    }

    /// The codes of all targets, for remedies: "LAKE, WAREHOUSE".
    fn codes(&self) -> String {
        list(self.targets.iter().map(|target| target.code.clone()), "(none is configured)")
    }
}

/// An instance, with the reasons against it.
#[derive(Clone)]
pub struct Candidate {
    /// `instanceId`
    pub id: i64,
    /// `instanceCode`
    pub code: String,
    /// The reasons why it is passed over; empty if it fits.
    pub against: Vec<String>,
    target: Option<Arc<Target>>,
}

impl Candidate {
    /// The configured target, if there is no reason against it.
    fn fitting(&self) -> Option<&Arc<Target>> {
        self.target.as_ref().filter(|_| self.against.is_empty())
    }

    /// The candidate in messages: "LAKE (instance 11001)".
    fn name(&self) -> String {
        match self.id {
            NOT_MADE => self.code.clone(),
            id => format!("{} (instance {id})", self.code),
        }
    }

    /// The candidate with the reasons against it: "LAKE (instance 11001) is not active and does not serve the
    /// environment"
    fn summary(&self) -> String {
        format!("{} {}", self.name(), self.against.join(" and "))
    }
}

/// How the target of a component is chosen.
pub struct Explanation {
    /// The first matching route as text, and its group.
    pub route: Option<(String, String)>,
    /// The id of the environment, if it has one.
    pub environment_id: Option<i64>,
    /// The instances of the group, by id.
    pub candidates: Vec<Candidate>,
}

/// The reason against an instance in another environment.
const NOT_SERVED: &str = "does not serve the environment";

/// The id of an instance that is not created yet.
const NOT_MADE: i64 = 0;

/// Configuration and instances at one time.
#[derive(Clone)]
pub struct Topology {
    installation: Arc<Installation>,
    /// By id.
    instances: Arc<[Instance]>,
}

impl Topology {
    /// A topology with the stored instances.
    pub fn new(installation: Arc<Installation>, instances: Arc<[Instance]>) -> Self {
        Self { installation, instances }
    }

    /// A topology with the initial instances of the configuration, which have no ids yet.
    pub fn of_configuration(installation: Arc<Installation>) -> Self {
        let seeds = installation.seeds().into_iter();
        let instances = seeds.map(|attributes| Instance { id: NOT_MADE, attributes }).collect();
        Self { installation, instances }
    }

    /// The configured target with that code; see [`Installation::target`].
    pub fn target(&self, code: &str) -> Option<Arc<Target>> {
        self.installation.target(code)
    }

    /// An environment in the spelling of the configuration.
    pub fn environment<'n>(&'n self, name: &'n str) -> &'n str {
        self.installation.environment(name).map_or(name, |(known, _)| known)
    }

    /// Whether a route leads to a group for this component; otherwise it belongs to another adapter.
    pub fn is_routed(&self, routing: &Routing<'_>) -> bool {
        self.route(routing).is_some()
    }

    /// Why no route matches, with the nearest route: for components that are left to another adapter.
    pub fn unrouted(&self, routing: &Routing<'_>) -> String {
        let shown: Vec<String> = [
            ("technology", routing.technology.or(Some("(none)"))),
            ("platform", routing.platform),
            ("kind", routing.kind),
            ("infrastructureTemplateId", routing.infrastructure_template_id),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| format!("{name} `{}`", shortened(value))))
        .collect();
        let reason = format!("no route leads here from {}", shown.join(", "));
        match self.slip(routing).or_else(|| self.nearest(routing)) {
            Some(hint) => format!("{reason}; {hint}"),
            None => reason,
        }
    }

    /// A hint with the route that was probably meant, if a field name or a value has a typo; `None` otherwise.
    fn slip(&self, routing: &Routing<'_>) -> Option<String> {
        let renamed = routing.misspelt.iter().find_map(|slip| {
            let mut meant = *routing;
            match slip.field {
                "technology" => meant.technology = Some(&slip.value),
                "platform" => meant.platform = Some(&slip.value),
                "infrastructureTemplateId" => meant.infrastructure_template_id = Some(&slip.value),
                _ => meant.use_case_template_id = Some(&slip.value),
            }
            let route = self.route(&meant)?;
            let key = shortened(&slip.key);
            Some(format!("did you mean `{}` by `{key}`? then the route is: {}", slip.field, route.summary()))
        });
        renamed.or_else(|| {
            self.installation.routes.iter().find_map(|route| {
                let slips = route.unmet(routing);
                if slips.is_empty() || !slips.iter().all(Unmet::is_close) {
                    return None;
                }
                let meant = slips.iter().map(|slip| format!("{} `{}`", slip.field, slip.wanted));
                Some(format!(
                    "did you mean {}? then the route is: {}",
                    meant.collect::<Vec<_>>().join(" and "),
                    route.summary()
                ))
            })
        })
    }

    /// A hint with the route that has the fewest unmet conditions; `None` if a route matches or there is no
    /// route.
    fn nearest(&self, routing: &Routing<'_>) -> Option<String> {
        let unmet = self.installation.routes.iter().map(|route| (route, route.unmet(routing)));
        // Among routes with equally many unmet conditions, prefer more unmet conditions that look like typos,
        // then more conditions in total.
        let (route, unmet) = unmet.min_by_key(|(route, unmet)| {
            let close = unmet.iter().filter(|unmet| unmet.is_close()).count();
            (unmet.len(), Reverse(close), Reverse(route.conditions().len()))
        })?;
        if unmet.is_empty() {
            return None;
        }
        let asks =
            unmet.iter().map(|unmet| format!("{} `{}`", unmet.field, unmet.wanted)).collect::<Vec<_>>();
        Some(format!("the nearest route is: {}, and asks for {}", route.summary(), asks.join(" and ")))
    }

    /// Groups that a route leads to and no instance has.
    pub fn empty_groups(&self) -> Vec<&str> {
        let is_empty = |group: &&str| {
            let of = |instance: &Instance| {
                instance.attributes.group.as_deref().is_some_and(|it| same_code(it, group))
            };
            !self.instances.iter().any(of)
        };
        self.installation.routes.iter().map(|route| route.group.as_str()).filter(is_empty).collect()
    }

    /// Differences between the instances and the configuration of their targets, one line each: the keys, the values
    /// that apply, and how to change them.
    pub fn overridden(&self) -> Vec<String> {
        let of_targets = self.installation.targets.iter().filter_map(|target| self.overridden_target(target));
        let unknown = self.instances.iter().filter(|instance| {
            let Attributes { code, is_active, is_deployment_target, .. } = &instance.attributes;
            *is_active && *is_deployment_target && self.installation.target(code).is_none()
        });
        let of_instances = unknown.map(|Instance { id, attributes }| {
            let code = shortened(&attributes.code);
            format!(
                "instance {id} of the topology has the code `{code}`, and the configuration has no [targets.{code}]: nothing is \
                 placed there; configure the target, or run `landfall topology set {} --active false`",
                word(&code)
            )
        });
        of_targets.chain(of_instances).collect()
    }

    fn overridden_target(&self, target: &Target) -> Option<String> {
        let Target { code, group, environments, .. } = target;
        let ids: BTreeSet<i64> = match environments.as_slice() {
            [] => self.installation.environments.values().copied().collect(),
            some => some.iter().filter_map(|name| self.installation.environment_id(name)).collect(),
        };
        let listed = |ids: &BTreeSet<i64>| match list(ids.iter().map(i64::to_string), "").replace(", ", ",") {
            none if none.is_empty() => "none".to_owned(),
            some => some,
        };
        let mut found = self.instances.iter().filter(|instance| same_code(&instance.attributes.code, code));
        let Some(Instance { id, attributes }) = found.next() else {
            return Some(format!(
                "targets.{code} has no instance in the topology any more, which decides: nothing new is placed there; run \
                 `landfall topology set {} --create --active true --deployment-target true --group {} --environments {}`, or \
                 remove the target",
                word(code),
                word(group),
                listed(&ids)
            ));
        };
        let mut differences = Vec::new();
        let mut options = Vec::new();
        let there = attributes.group.as_deref().unwrap_or_default();
        if !same_code(there, group) {
            differences
                .push(format!("targets.{code}.group is `{group}`, and its groupCode `{}`", shortened(there)));
            options.push(format!("--group {}", word(group)));
        }
        let served: BTreeSet<i64> = attributes.environments.iter().copied().collect();
        if served != ids {
            let whence = if environments.is_empty() { " (all of [environments])" } else { "" };
            differences.push(format!(
                "targets.{code}.environments is {}{whence}, and it serves {}",
                listed(&ids),
                listed(&served)
            ));
            options.push(format!("--environments {}", listed(&ids)));
        }
        (!differences.is_empty()).then(|| {
            format!(
                "instance {id} of the topology, which is kept in the store, decides: {}; to have what is configured, run \
                 `landfall topology set {} {}`",
                differences.join("; "),
                word(code),
                options.join(" ")
            )
        })
    }

    /// A target that the component may get in some environment; `None` unless all such targets have the same
    /// technology.
    pub fn any_target(&self, component: &Component) -> Option<Arc<Target>> {
        let explanation = self.explain(component, "", Operation::Unprovision);
        let mut targets = explanation.candidates.into_iter().filter_map(|candidate| candidate.target);
        let first = targets.next()?;
        let name = first.technology.name();
        targets.all(|target| target.technology.name() == name).then_some(first)
    }

    fn route(&self, routing: &Routing<'_>) -> Option<&Route> {
        self.installation.routes.iter().find(|route| route.unmet(routing).is_empty())
    }

    /// What [`Self::choose`] decides from: the first matching route, the environment id and the candidates.
    pub fn explain(&self, component: &Component, environment: &str, operation: Operation) -> Explanation {
        let route = self.route(&component.routing());
        let environment_id = self.installation.environment_id(environment);
        let in_group = |instance: &&Instance| {
            let group = instance.attributes.group.as_deref().unwrap_or_default();
            route.is_some_and(|route| same_code(group, &route.group))
        };
        let candidates = self.instances.iter().filter(in_group);
        Explanation {
            route: route.map(|route| (route.summary(), route.group.clone())),
            environment_id,
            candidates: candidates.map(|it| self.candidate(it, environment_id, operation)).collect(),
        }
    }

    fn candidate(&self, instance: &Instance, environment: Option<i64>, operation: Operation) -> Candidate {
        let attributes = &instance.attributes;
        let target = self.installation.target(&attributes.code);
        let operation = operation.description().plugin_operation;
        let allowed = &attributes.plugin_operations;
        let lacks = |wanted: &str| {
            !allowed.is_empty() && !allowed.iter().any(|allowed| same_code(&allowed.operation, wanted))
        };
        let against = [
            (operation.is_some() && !attributes.is_active, "is not active".to_owned()),
            (operation.is_some() && !attributes.is_deployment_target, "is no deployment target".to_owned()),
            (!environment.is_some_and(|id| attributes.environments.contains(&id)), NOT_SERVED.to_owned()),
            (
                operation.is_some_and(lacks),
                format!("does not have `{}` among its pluginOperations", operation.unwrap_or_default()),
            ),
            (target.is_none(), "has a code that no configured target has".to_owned()),
        ];
        Candidate {
            id: instance.id,
            code: attributes.code.clone(),
            against: against.into_iter().filter_map(|(applies, reason)| applies.then_some(reason)).collect(),
            target,
        }
    }

    /// The target of `component` in `environment`; a problem unless exactly one instance fits.
    pub fn choose(
        &self,
        component: &Component,
        environment: &str,
        operation: Operation,
    ) -> Result<Arc<Target>, Unplaced> {
        self.check_environment(environment).map_err(Unplaced::Environment)?;
        let explanation = self.explain(component, environment, operation);
        if let Some(problem) = self.not_served(&explanation, environment) {
            return Err(Unplaced::Environment(problem));
        }
        self.choose_instance(component, environment, explanation).map_err(Unplaced::Component)
    }

    /// The problem of an environment that no target of the group serves; `None` if one serves it, or if no
    /// other environment could be used instead.
    fn not_served(&self, explanation: &Explanation, environment: &str) -> Option<Problem> {
        let (_, group) = explanation.route.as_ref()?;
        let candidates = &explanation.candidates;
        if !candidates.iter().all(|candidate| candidate.against.iter().any(|reason| reason == NOT_SERVED)) {
            return None;
        }
        let elsewhere: Vec<&str> = candidates
            .iter()
            .filter(|candidate| candidate.against == [NOT_SERVED])
            .map(|candidate| candidate.code.as_str())
            .collect();
        let served = |id: &i64| {
            self.instances.iter().map(|instance| &instance.attributes).any(|attributes| {
                elsewhere.contains(&attributes.code.as_str()) && attributes.environments.contains(id)
            })
        };
        let known: Vec<&String> = self
            .installation
            .environments
            .iter()
            .filter(|(_, id)| served(id))
            .map(|(name, _)| name)
            .collect();
        if known.is_empty() {
            return None;
        }
        let names = list(known.into_iter().cloned(), "");
        let message = format!("no target of group `{group}` serves the environment");
        Some(Problem::new("environment", message).value(environment).remedy(format!(
            "use one of: {names}; or have an operator change the topology: {}",
            candidates.iter().map(Candidate::summary).collect::<Vec<_>>().join("; ")
        )))
    }

    /// The target of the only candidate that fits. Problems have paths relative to the component.
    fn choose_instance(
        &self,
        component: &Component,
        environment: &str,
        explanation: Explanation,
    ) -> Result<Arc<Target>, Problem> {
        let problem = |message: String| {
            Problem::new("technology", message).value(component.technology.as_deref().unwrap_or("(none)"))
        };
        let Some((_, group)) = explanation.route else {
            let slip =
                self.slip(&component.routing()).map(|slip| format!("{slip}; else ")).unwrap_or_default();
            return Err(problem("no route leads from this component to a target".to_owned()).remedy(
                format!(
                    "{slip}use what is routed here: {}; or add a [[routes]] entry to the configuration",
                    self.routed()
                ),
            ));
        };
        let id = explanation.environment_id.unwrap_or(NOT_MADE);
        let candidates = explanation.candidates;
        let fitting: Vec<_> = candidates.iter().filter_map(Candidate::fitting).collect();
        match fitting.as_slice() {
            [one] => Ok(Arc::clone(one)),
            [] if candidates.is_empty() => {
                Err(problem(format!("the topology has no instance of group `{group}`")).remedy(format!(
                    "give an instance the groupCode `{group}`; its instanceCode names the target: {}",
                    self.installation.codes()
                )))
            }
            [] => Err(problem(format!(
                "no instance of group `{group}` accepts this in environment `{environment}` ({id})"
            ))
            .remedy(format!(
                "deploy to another environment, or have an operator change the topology: {}",
                candidates.iter().map(Candidate::summary).collect::<Vec<_>>().join("; ")
            ))),
            _ => {
                let (fitting, passed): (Vec<_>, Vec<_>) =
                    candidates.iter().partition(|candidate| candidate.fitting().is_some());
                let mut remedy = format!(
                    "have an operator leave one of these for that environment, or route to different groups: {}",
                    list(fitting.into_iter().map(Candidate::name), "")
                );
                for candidate in passed {
                    remedy.push_str("; ");
                    remedy.push_str(&candidate.summary());
                }
                Err(problem(format!(
                    "several instances of group `{group}` accept this in environment `{environment}` ({id})"
                ))
                .remedy(remedy))
            }
        }
    }

    /// Every route, for remedies.
    pub fn routed(&self) -> String {
        let routes = self.installation.routes.iter().map(Route::summary).collect::<Vec<_>>();
        if routes.is_empty() { "(nothing)".to_owned() } else { routes.join("; ") }
    }

    /// The id of an environment; the problem has the path `environment`.
    pub fn check_environment(&self, environment: &str) -> Result<i64, Problem> {
        if let Some(id) = self.installation.environment_id(environment) {
            return Ok(id);
        }
        let names = || self.installation.environments.keys();
        let close = names().find(|name| is_typo(environment, name));
        let meant = close.map(|close| format!("did you mean `{close}`? ")).unwrap_or_default();
        let known = list(names().cloned(), "(none)");
        let message = format!("environment `{}` has no id in the topology", shortened(environment));
        Err(Problem::new("environment", message).value(environment).remedy(format!(
            "{meant}use one of: {known}; or give it an id in [environments] of the configuration"
        )))
    }

    /// The target that an import reads from: the named one with its path, or else the only target that can import and
    /// that a route for the template leads to. If there are several, the one that the component's own route leads to.
    pub fn choose_import(
        &self,
        template: &str,
        environment: &str,
        named: Option<(String, Value)>,
        component: Option<&Routing<'_>>,
    ) -> Result<Arc<Target>, Problem> {
        let id = self.check_environment(environment)?;
        let mut able: Vec<Importer<'_>> = Vec::new();
        let mut passed = Vec::new();
        for instance in self.instances.iter() {
            let mut candidate = self.candidate(instance, Some(id), Operation::Reverse);
            if let Some(target) = &candidate.target
                && !target.technology.capabilities().reverse
            {
                candidate.against.push(format!("cannot import ({})", target.technology.name()));
            }
            match candidate.fitting() {
                Some(target) => able.push(Importer {
                    group: instance.attributes.group.as_deref(),
                    name: candidate.name(),
                    target: Arc::clone(target),
                }),
                None => passed.push(candidate.summary()),
            }
        }
        let choice = |of: &[&Importer<'_>]| list(of.iter().map(|importer| importer.name.clone()), "");
        let others = || passed.iter().fold(String::new(), |text, one| format!("{text}; {one}"));
        if let Some((path, code)) = named {
            let is_named = |importer: &&Importer<'_>| {
                code.as_str().is_some_and(|code| same_code(&importer.target.code, code.trim()))
            };
            return able.iter().find(is_named).map(|importer| Arc::clone(&importer.target)).ok_or_else(
                || {
                    let message = format!("no target of that name imports from environment `{environment}`");
                    let problem = Problem::new(path, message)
                        .value(code.as_str().map_or_else(|| code.to_string(), str::to_owned));
                    match able.iter().collect::<Vec<_>>().as_slice() {
                        [] => problem.remedy(format!("{NO_IMPORTER}{}", others())),
                        able => problem.remedy(format!("name one of: {}{}", choice(able), others())),
                    }
                },
            );
        }
        let in_group = |importer: &Importer<'_>, route: &Route| {
            importer.group.is_some_and(|group| same_code(group, &route.group))
        };
        let mut routed: Vec<&Importer<'_>> = able
            .iter()
            .filter(|importer| {
                let mut routes = self.installation.routes.iter();
                routes.any(|route| route.matches_template(template) && in_group(importer, route))
            })
            .collect();
        if let Some(route) = component.filter(|_| routed.len() != 1).and_then(|routing| self.route(routing)) {
            let own: Vec<_> = able.iter().filter(|importer| in_group(importer, route)).collect();
            if !own.is_empty() {
                routed = own;
            }
        }
        let problem = |message: &str| Problem::new("useCaseTemplateId", message).value(template);
        match routed.as_slice() {
            [one] => Ok(Arc::clone(&one.target)),
            [] => {
                let problem = problem("no configured target imports this template");
                Err(match able.iter().collect::<Vec<_>>().as_slice() {
                    [] => problem.remedy(format!("{NO_IMPORTER}{}", others())),
                    able => problem.remedy(format!(
                        "route the template to the group of one that imports, or name it in `params.target`: {}{}",
                        choice(able),
                        others()
                    )),
                })
            }
            several => Err(problem("several configured targets import this template")
                .remedy(format!("name one of them in `params.target`: {}", choice(several)))),
        }
    }
}

/// A target that an import may read from.
struct Importer<'a> {
    group: Option<&'a str>,
    /// Its instance, for remedies.
    name: String,
    target: Arc<Target>,
}

const NO_IMPORTER: &str = "configure a target that imports from this environment (lakehouse or postgresql)";

fn list(names: impl Iterator<Item = String>, none: &str) -> String {
    let all = names.collect::<Vec<_>>();
    if all.is_empty() { none.to_owned() } else { all.join(", ") }
}

/// Why a component has no target.
#[derive(Debug, Clone, PartialEq)]
pub enum Unplaced {
    /// The environment has no id, or the group does not serve it; the path is `environment`.
    Environment(Problem),
    /// A problem of the component or its group; the path is relative to the component.
    Component(Problem),
}

impl Unplaced {
    /// The problem with its path in a document.
    #[must_use]
    pub fn within(self, product: &str, component: &str) -> Problem {
        match self {
            Self::Environment(problem) => problem.under(product),
            Self::Component(problem) => problem.under(component),
        }
    }
}

/// A condition of a route that a component does not meet.
struct Unmet<'a> {
    field: &'static str,
    wanted: &'a str,
    found: Option<&'a str>,
}

impl Unmet<'_> {
    /// Whether the value is probably a typo; for a template, with or without its version.
    fn is_close(&self) -> bool {
        let Some(found) = self.found.map(str::trim) else { return false };
        let family = found.rsplit_once(':').filter(|_| self.field.ends_with("TemplateId"));
        is_typo(found, self.wanted) || family.is_some_and(|(family, _)| is_typo(family, self.wanted))
    }
}

impl Route {
    fn unmet<'a>(&'a self, routing: &Routing<'a>) -> Vec<Unmet<'a>> {
        type Matches = fn(Option<&str>, Option<&str>) -> bool;
        let kind = self.kind.as_ref().map(ComponentKind::name);
        let (itm, utm) = (self.infrastructure_template_id.as_deref(), self.use_case_template_id.as_deref());
        let conditions: [(_, _, _, Matches); 5] = [
            ("technology", self.technology.as_deref(), routing.technology, same),
            ("platform", self.platform.as_deref(), routing.platform, same),
            ("kind", kind, routing.kind, same),
            ("infrastructureTemplateId", itm, routing.infrastructure_template_id, template),
            ("useCaseTemplateId", utm, routing.use_case_template_id, template),
        ];
        conditions
            .into_iter()
            .filter(|(_, wanted, found, matches)| !matches(*wanted, *found))
            .filter_map(|(field, wanted, found, _)| Some(Unmet { field, wanted: wanted?, found }))
            .collect()
    }

    /// Whether the route's template condition matches `id`. An import has only a template, and no technology.
    fn matches_template(&self, id: &str) -> bool {
        template(self.use_case_template_id.as_deref(), Some(id))
    }

    /// The conditions as texts: "technology S3", "kind storage".
    fn conditions(&self) -> Vec<String> {
        [
            ("technology", self.technology.as_deref()),
            ("platform", self.platform.as_deref()),
            ("kind", self.kind.as_ref().map(ComponentKind::name)),
            ("infrastructureTemplateId", self.infrastructure_template_id.as_deref()),
            ("useCaseTemplateId", self.use_case_template_id.as_deref()),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| format!("{name} {value}")))
        .collect()
    }

    /// The route as text: "technology S3, kind storage -> lakehouse".
    fn summary(&self) -> String {
        let conditions = self.conditions();
        let conditions = if conditions.is_empty() { "anything".to_owned() } else { conditions.join(", ") };
        format!("{conditions} -> {}", self.group)
    }
}

/// A value of a document as part of a line: shortened, and without control characters.
fn shortened(value: &str) -> String {
    let text: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// A text as one word of a command line.
fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':');
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// Whether a value meets a condition, ignoring case; an absent condition matches every value.
fn same(wanted: Option<&str>, found: Option<&str>) -> bool {
    wanted.is_none_or(|wanted| found.is_some_and(|found| found.trim().eq_ignore_ascii_case(wanted.trim())))
}

/// `urn:dmb:itm:s3:1` matches itself; `urn:dmb:itm:s3` matches every version of it.
fn template(wanted: Option<&str>, found: Option<&str>) -> bool {
    same(wanted, found)
        || same(wanted, found.and_then(|found| found.trim().rsplit_once(':')).map(|(family, _)| family))
}

#[cfg(test)]
mod tests;
