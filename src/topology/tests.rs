use async_trait::async_trait;
use serde_json::json;

use super::*;
use crate::descriptor::{ComponentKind, DescriptorKind, Limits, Strictness, parse};
use crate::error::Result;
use crate::technology::{
    AccessMode, Capabilities, Change, Context, Info, Intent, Plan, ReverseRequest, Work,
};

/// Does nothing, and says whether it could import.
struct Fake {
    reverse: bool,
}

#[async_trait]
impl Technology for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            kinds: &ComponentKind::ALL,
            access: AccessMode::None,
            reverse: self.reverse,
            stop: true,
        }
    }
    fn check(&self, _: &Work, _: &Intent) -> Vec<Problem> {
        Vec::new()
    }
    async fn plan(&self, _: &Work, _: &Intent, _: &Context) -> Result<Plan> {
        Ok(Plan::default())
    }
    async fn apply(&self, _: &Work, _: &Change, _: &Context) -> Result<()> {
        Ok(())
    }
    async fn describe(&self, _: &Work, _: &Context) -> Result<Info> {
        Ok(Info::default())
    }
    async fn reverse(&self, _: &ReverseRequest, _: &Context) -> Result<Object> {
        Ok(Object::new())
    }
}

fn target(code: &str, group: &str, environments: &[&str], reverse: bool) -> Target {
    Target {
        code: code.into(),
        group: group.into(),
        environments: environments.iter().map(|&e| e.into()).collect(),
        technology: Arc::new(Fake { reverse }),
    }
}

fn route(technology: &str, group: &str) -> Route {
    Route { technology: Some(technology.into()), group: group.into(), ..Route::default() }
}

fn component() -> Component {
    let text = include_str!("../../examples/cashflow.yaml");
    let descriptor = parse(DescriptorKind::DataProduct, text, Strictness::Full, &Limits::default()).unwrap();
    descriptor.product.components[0].clone()
}

fn chosen(topology: &Topology, environment: &str) -> Result<String, String> {
    match topology.choose(&component(), environment) {
        Ok(target) => Ok(target.code.clone()),
        Err(problem) => Err(format!("{problem}; {}", problem.remedy.clone().unwrap_or_default())),
    }
}

#[test]
fn the_first_matching_route_leads_to_the_group_and_the_environment_picks_the_target() {
    let topology = Topology::new(
        vec![target("DEV", "lake", &["development"], false), target("PROD", "lake", &["production"], false)],
        vec![route("Kafka", "other"), route("s3", "LAKE"), route("S3", "never")],
    );
    assert_eq!(chosen(&topology, "Development"), Ok("DEV".into()));
    assert_eq!(chosen(&topology, "production"), Ok("PROD".into()));
    assert_eq!(
        chosen(&topology, "qa"),
        Err("technology: no target of group `LAKE` serves environment `qa`: `S3`; deploy to an environment that one of \
             these serves: DEV (fake; development), PROD (fake; production)"
            .into())
    );
}

#[test]
fn several_fitting_targets_are_a_problem_that_names_them() {
    let topology = Topology::new(
        vec![target("A", "lake", &[], false), target("B", "lake", &["qa"], false)],
        vec![route("S3", "lake")],
    );
    assert_eq!(chosen(&topology, "production"), Ok("A".into()));
    assert_eq!(
        chosen(&topology, "qa"),
        Err("technology: several targets of group `lake` serve environment `qa`: `S3`; leave one of these for that \
             environment, or give them groups of their own: A (fake; all environments), B (fake; qa)"
            .into())
    );
}

#[test]
fn no_route_is_a_problem_that_lists_what_is_routed() {
    let spark = Route { kind: Some(ComponentKind::Workload), ..route("Spark", "mock") };
    let topology = Topology::new(vec![target("A", "mock", &[], false)], vec![spark]);
    assert!(!topology.is_routed(&component()));
    assert_eq!(
        chosen(&topology, "qa"),
        Err("technology: no route leads from this component to a target: `S3`; use what is routed here: technology \
             Spark, kind workload -> mock; or add a [[routes]] entry to the configuration"
            .into())
    );
}

#[test]
fn every_condition_of_a_route_must_hold_and_a_template_may_leave_its_version_open() {
    let component = component();
    let conditions = [
        (Route::default(), true),
        (Route { platform: Some("aws".into()), ..Route::default() }, true),
        (Route { platform: Some("Azure".into()), ..Route::default() }, false),
        (Route { kind: Some(ComponentKind::OutputPort), ..Route::default() }, true),
        (Route { kind: Some(ComponentKind::Storage), ..Route::default() }, false),
        (
            Route {
                infrastructure_template_id: Some("urn:dmb:itm:output-port-provisioner:1".into()),
                ..Route::default()
            },
            true,
        ),
        (
            Route {
                infrastructure_template_id: Some("urn:dmb:itm:output-port-provisioner".into()),
                ..Route::default()
            },
            true,
        ),
        (
            Route {
                infrastructure_template_id: Some("urn:dmb:itm:output-port-provisioner:2".into()),
                ..Route::default()
            },
            false,
        ),
        (
            Route {
                use_case_template_id: Some("urn:dmb:utm:output-port-template".into()),
                ..Route::default()
            },
            true,
        ),
        (Route { use_case_template_id: Some("urn:dmb:utm:output".into()), ..Route::default() }, false),
        (
            Route { platform: Some("AWS".into()), kind: Some(ComponentKind::Storage), ..Route::default() },
            false,
        ),
    ];
    for (route, expected) in conditions {
        assert_eq!(route.matches(&component), expected, "{route:?}");
    }
}

#[test]
fn an_import_goes_to_the_named_target_or_the_only_one_that_can() {
    let lake = || target("LAKE", "lake", &[], true);
    let mock = || target("MOCK", "mock", &[], false);
    let routes = || vec![route("S3", "lake"), route("Spark", "mock")];
    let choose = |topology: &Topology, params: serde_json::Value| {
        topology
            .choose_import("urn:dmb:utm:x:1", "qa", params.as_object().unwrap())
            .map(|target| target.code.clone())
            .map_err(|problem| format!("{problem}; {}", problem.remedy.clone().unwrap_or_default()))
    };
    let one = Topology::new(vec![lake(), mock()], routes());
    assert_eq!(choose(&one, json!({})), Ok("LAKE".into()));
    assert_eq!(choose(&one, json!({"target": "lake"})), Ok("LAKE".into()));
    assert_eq!(
        choose(&one, json!({"target": "MOCK"})),
        Err("params.target: no target of that name can import from environment `qa`: `MOCK`; name one of: LAKE (fake; \
             all environments)"
            .into())
    );
    let two = Topology::new(vec![lake(), target("LAKE2", "lake", &[], true)], routes());
    assert_eq!(
        choose(&two, json!({})),
        Err("useCaseTemplateId: several targets can import for this template: `urn:dmb:utm:x:1`; name one of them in \
             `params.target`: LAKE (fake; all environments), LAKE2 (fake; all environments)"
            .into())
    );
    assert_eq!(choose(&two, json!({"target": "LAKE2"})), Ok("LAKE2".into()));
    let none = Topology::new(vec![mock()], routes());
    assert_eq!(
        choose(&none, json!({})),
        Err("useCaseTemplateId: nothing in environment `qa` can import for this template: `urn:dmb:utm:x:1`; name a \
             target in `params.target`: (none is configured)"
            .into())
    );
}
