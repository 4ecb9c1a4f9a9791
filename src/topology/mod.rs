//! Topology: where a component lands.
//!
//! Routes lead from what a component says of itself (technology, platform, kind, templates) to a *group* of targets;
//! the environment picks the target in the group. Exactly one must fit: none or several is a problem that names the
//! candidates and why each was passed over. The choice is pure, so `/validate` gives the same answer as `/provision`.

use std::sync::Arc;

use crate::config::Route;
use crate::descriptor::{Component, Object, Problem};
use crate::technology::Technology;

/// A configured target: a technology bound to one real place.
pub struct Target {
    /// Its name in the configuration.
    pub code: String,
    /// What routes point at.
    pub group: String,
    /// Witboost environments it serves; empty: all.
    pub environments: Vec<String>,
    /// What provisions there.
    pub technology: Arc<dyn Technology>,
}

impl Target {
    fn serves(&self, environment: &str) -> bool {
        self.environments.is_empty()
            || self.environments.iter().any(|served| served.eq_ignore_ascii_case(environment))
    }

    /// "LOCAL_LAKE (lakehouse; all environments)"
    fn summary(&self) -> String {
        let environments = if self.environments.is_empty() {
            "all environments".to_owned()
        } else {
            self.environments.join(", ")
        };
        format!("{} ({}; {environments})", self.code, self.technology.name())
    }
}

/// Every target and the routes to them.
pub struct Topology {
    targets: Vec<Arc<Target>>,
    routes: Vec<Route>,
}

impl Topology {
    /// `routes` are tried in order.
    pub fn new(targets: Vec<Target>, routes: Vec<Route>) -> Self {
        Self { targets: targets.into_iter().map(Arc::new).collect(), routes }
    }

    /// The target of that code, whatever the routes say: where an earlier operation went.
    pub fn target(&self, code: &str) -> Option<Arc<Target>> {
        self.targets.iter().find(|target| target.code.eq_ignore_ascii_case(code)).cloned()
    }

    /// Whether any route leads somewhere for this component; other adapters serve the rest of a data product.
    pub fn is_routed(&self, component: &Component) -> bool {
        self.route(component).is_some()
    }

    fn route(&self, component: &Component) -> Option<&Route> {
        self.routes.iter().find(|route| route.matches(component))
    }

    /// Where `component` lands in `environment`; problems have paths relative to the component.
    pub fn choose(&self, component: &Component, environment: &str) -> Result<Arc<Target>, Problem> {
        let Some(route) = self.route(component) else {
            let routed = self.routes.iter().map(Route::summary).collect::<Vec<_>>().join("; ");
            return Err(Problem::new("technology", "no route leads from this component to a target")
                .value(component.technology.as_deref().unwrap_or("(none)"))
                .remedy(format!(
                    "use what is routed here: {routed}; or add a [[routes]] entry to the configuration"
                )));
        };
        let group: Vec<_> =
            self.targets.iter().filter(|t| t.group.eq_ignore_ascii_case(&route.group)).collect();
        let fitting: Vec<_> = group.iter().filter(|target| target.serves(environment)).collect();
        match fitting.as_slice() {
            [one] => Ok(Arc::clone(one)),
            [] => Err(Problem::new(
                "technology",
                format!("no target of group `{}` serves environment `{environment}`", route.group),
            )
            .value(component.technology.as_deref().unwrap_or("(none)"))
            .remedy(format!(
                "deploy to an environment that one of these serves: {}",
                summaries(group.iter().copied())
            ))),
            _ => Err(Problem::new(
                "technology",
                format!("several targets of group `{}` serve environment `{environment}`", route.group),
            )
            .value(component.technology.as_deref().unwrap_or("(none)"))
            .remedy(format!(
                "leave one of these for that environment, or give them groups of their own: {}",
                summaries(fitting.into_iter().copied())
            ))),
        }
    }

    /// Where an import reads from: `params.target` when given, else the one target that can import and that a route
    /// for the template leads to.
    pub fn choose_import(
        &self,
        template: &str,
        environment: &str,
        params: &Object,
    ) -> Result<Arc<Target>, Problem> {
        let able: Vec<_> = self
            .targets
            .iter()
            .filter(|target| target.technology.capabilities().reverse && target.serves(environment))
            .collect();
        if let Some(code) = params.get("target") {
            let named = code
                .as_str()
                .and_then(|code| able.iter().find(|target| target.code.eq_ignore_ascii_case(code)));
            return named.map(|target| Arc::clone(target)).ok_or_else(|| {
                Problem::new(
                    "params.target",
                    format!("no target of that name can import from environment `{environment}`"),
                )
                .value(code.as_str().map_or_else(|| code.to_string(), str::to_owned))
                .remedy(format!("name one of: {}", summaries(able.iter().copied())))
            });
        }
        let routed: Vec<_> = able
            .iter()
            .filter(|target| {
                self.routes.iter().any(|route| {
                    route.group.eq_ignore_ascii_case(&target.group) && route.matches_template(template)
                })
            })
            .collect();
        match routed.as_slice() {
            [one] => Ok(Arc::clone(one)),
            [] => Err(Problem::new(
                "useCaseTemplateId",
                format!("nothing in environment `{environment}` can import for this template"),
            )
            .value(template)
            .remedy(format!("name a target in `params.target`: {}", summaries(able.iter().copied())))),
            _ => Err(Problem::new("useCaseTemplateId", "several targets can import for this template")
                .value(template)
                .remedy(format!(
                    "name one of them in `params.target`: {}",
                    summaries(routed.into_iter().copied())
                ))),
        }
    }
}

fn summaries<'a>(targets: impl Iterator<Item = &'a Arc<Target>>) -> String {
    let all = targets.map(|target| target.summary()).collect::<Vec<_>>();
    if all.is_empty() { "(none is configured)".to_owned() } else { all.join(", ") }
}

impl Route {
    fn matches(&self, component: &Component) -> bool {
        same(self.technology.as_deref(), component.technology.as_deref())
            && same(self.platform.as_deref(), component.platform.as_deref())
            && self.kind.is_none_or(|kind| kind == component.kind)
            && template(
                self.infrastructure_template_id.as_deref(),
                component.infrastructure_template_id.as_deref(),
            )
            && template(self.use_case_template_id.as_deref(), component.use_case_template_id.as_deref())
    }

    /// An import names no technology, only its template.
    fn matches_template(&self, id: &str) -> bool {
        template(self.use_case_template_id.as_deref(), Some(id))
    }

    /// "technology S3, kind storage -> lakehouse"
    fn summary(&self) -> String {
        let conditions: Vec<String> = [
            ("technology", self.technology.as_deref()),
            ("platform", self.platform.as_deref()),
            ("kind", self.kind.map(|kind| kind.name())),
            ("infrastructureTemplateId", self.infrastructure_template_id.as_deref()),
            ("useCaseTemplateId", self.use_case_template_id.as_deref()),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| format!("{name} {value}")))
        .collect();
        let conditions = if conditions.is_empty() { "anything".to_owned() } else { conditions.join(", ") };
        format!("{conditions} -> {}", self.group)
    }
}

/// An absent condition matches everything.
fn same(wanted: Option<&str>, found: Option<&str>) -> bool {
    wanted.is_none_or(|wanted| found.is_some_and(|found| found.eq_ignore_ascii_case(wanted)))
}

/// `urn:dmb:itm:s3:1` matches itself; `urn:dmb:itm:s3` matches every version of it.
fn template(wanted: Option<&str>, found: Option<&str>) -> bool {
    same(wanted, found)
        || same(wanted, found.and_then(|found| found.rsplit_once(':')).map(|(family, _)| family))
}

#[cfg(test)]
mod tests;
