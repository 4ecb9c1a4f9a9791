use async_trait::async_trait;
use serde_json::json;

use super::*;
use landfall_adapter::descriptor::{
    ComponentKind, DescriptorKind, Limits, Misspelt, Routing, Strictness, parse,
};
use landfall_adapter::error::Result;
use landfall_adapter::{Bound, Capabilities, Context, Info, Intent, Kinds, Plan, Running, Technology, Work};

/// Does nothing, and says whether it could import.
struct Fake {
    reverse: bool,
}

#[async_trait]
impl Technology for Fake {
    type Bound = Self;

    fn name(&self) -> &str {
        "fake"
    }

    fn capabilities(&self) -> Capabilities {
        {
            let capabilities = Capabilities::new(Kinds::Any);
            if self.reverse { capabilities.with_import() } else { capabilities }
        }
    }

    fn bind(&self, _: Work, _: Intent) -> std::result::Result<Self, Vec<Problem>> {
        Ok(Self { reverse: self.reverse })
    }
}

#[async_trait]
impl Bound for Fake {
    type Step = ();

    async fn plan(&self, _: &Context) -> Result<Plan<()>> {
        Ok(Plan::default())
    }

    async fn apply(&self, (): &(), _: &Running) -> Result<()> {
        Ok(())
    }

    async fn describe(&self, _: &Context) -> Result<Info> {
        Ok(Info::default())
    }
}

fn target(code: &str, group: &str, environments: &[&str], reverse: bool) -> Target {
    Target {
        code: code.into(),
        group: group.into(),
        environments: environments.iter().map(|&e| e.into()).collect(),
        turns: None,
        technology: Arc::new(Fake { reverse }),
    }
}

fn route(technology: &str, group: &str) -> Route {
    Route { technology: Some(technology.into()), group: group.into(), ..Route::default() }
}

fn component() -> Component {
    let text = include_str!("../../../../examples/cashflow.yaml");
    let descriptor =
        parse(DescriptorKind::DataProduct, text, Strictness::Full, &Limits::default(), &|_| true).unwrap();
    descriptor.product.components[0].clone()
}

const IDS: [(&str, i64); 3] = [("development", 1), ("qa", 2), ("production", 3)];

fn installation(targets: Vec<Target>, routes: Vec<Route>) -> Arc<Installation> {
    let environments = IDS.map(|(name, id)| (name.to_owned(), id)).into();
    Arc::new(Installation::new(targets, routes, environments))
}

/// The initial state, before any change.
fn seeded(targets: Vec<Target>, routes: Vec<Route>) -> Topology {
    Topology::of_configuration(installation(targets, routes))
}

/// The same after a change of its first instance.
fn changed(topology: &Topology, change: impl FnOnce(&mut Attributes)) -> Topology {
    let mut instances = topology.instances.to_vec();
    change(&mut instances[0].attributes);
    Topology::new(Arc::clone(&topology.installation), instances.into())
}

fn chosen(topology: &Topology, environment: &str) -> Result<String, String> {
    match topology.choose(&component(), environment, Operation::Provision) {
        Ok(target) => Ok(target.code.clone()),
        Err(unplaced) => Err(unplaced.within("", "").with_remedy()),
    }
}

#[test]
fn route_selects_the_group_and_environment_the_instance() {
    let topology = seeded(
        vec![target("DEV", "lake", &["development"], false), target("PROD", "lake", &["Production"], false)],
        vec![route("Kafka", "other"), route("s3", "LAKE"), route("S3", "never")],
    );
    assert_eq!(chosen(&topology, "Development"), Ok("DEV".into()));
    assert_eq!(chosen(&topology, "production"), Ok("PROD".into()));
    assert_eq!(
        chosen(&topology, "qa"),
        Err("environment: no target of group `LAKE` serves the environment: `qa`; use one of: development, production; \
             or have an operator change the topology: DEV does not serve the environment; PROD does not serve the environment"
            .into())
    );
    assert_eq!(
        chosen(&topology, "staging"),
        Err("environment: environment `staging` has no id in the topology: `staging`; use one of: development, \
             production, qa; or give it an id in [environments] of the configuration"
            .into())
    );
}

#[test]
fn several_fitting_instances_are_a_problem() {
    let topology = seeded(
        vec![
            target("A", "lake", &[], false),
            target("B", "lake", &["qa"], false),
            target("C", "lake", &["production"], false),
        ],
        vec![route("S3", "lake")],
    );
    assert_eq!(chosen(&topology, "development"), Ok("A".into()));
    assert_eq!(
        chosen(&topology, "qa"),
        Err("technology: several instances of group `lake` accept this in environment `qa` (2): `S3`; have an operator \
             leave one of these for that environment, or route to different groups: A, B; \
             C does not serve the environment"
            .into())
    );
}

#[test]
fn every_reason_against_an_instance_is_named() {
    let topology = seeded(vec![target("A", "lake", &[], false)], vec![route("S3", "lake")]);
    let allowing = |operation: &str| PluginOperation { plugin_id: 1, operation: operation.to_owned() };
    type Change = Box<dyn Fn(&mut Attributes)>;
    let cases: [(Change, &str); 5] = [
        (Box::new(|a| a.is_active = false), "is not active"),
        (Box::new(|a| a.is_deployment_target = false), "is no deployment target"),
        (Box::new(|a| a.environments.clear()), "does not serve the environment"),
        (
            Box::new(move |a| a.plugin_operations = vec![allowing("unprovision")]),
            "does not have `provision` among its pluginOperations",
        ),
        (Box::new(|a| a.code = "Z".to_owned()), "has a code that no configured target has"),
    ];
    for (change, reason) in &cases {
        let topology = changed(&topology, |attributes| change(attributes));
        let code = &topology.instances[0].attributes.code;
        assert_eq!(
            chosen(&topology, "qa"),
            Err(format!(
                "technology: no instance of group `lake` accepts this in environment `qa` (2): `S3`; deploy to another environment, or have an operator \
                 change the topology: {code} {reason}"
            ))
        );
    }
    let all = changed(&topology, |attributes| cases.iter().for_each(|(change, _)| change(attributes)));
    let told = chosen(&all, "qa").unwrap_err();
    for (_, reason) in &cases {
        assert!(told.contains(reason), "{told}");
    }
    let allowed = changed(&topology, |a| a.plugin_operations = vec![allowing("x"), allowing("PROVISION")]);
    assert_eq!(chosen(&allowed, "qa"), Ok("A".into()));
    let elsewhere = changed(&topology, |attributes| attributes.group = None);
    assert_eq!(
        chosen(&elsewhere, "qa"),
        Err("technology: the topology has no instance of group `lake`: `S3`; give an instance the groupCode `lake`; its \
             instanceCode names the target: A"
            .into())
    );
    assert!(elsewhere.target("a").is_some(), "what is there is still found");
}

#[test]
fn seed_serves_the_environments_of_its_target_or_all() {
    let installation = installation(
        vec![target("A", "lake", &[], false), target("B", "x", &["QA", "qa"], false)],
        Vec::new(),
    );
    let seeds = installation.seeds();
    assert_eq!(seeds[0].environments, [1, 3, 2], "by name");
    assert_eq!(seeds[1].environments, [2]);
    assert!(seeds.iter().all(|seed| seed.is_active && seed.is_deployment_target));
    assert_eq!(seeds[1].group.as_deref(), Some("x"));
}

#[test]
fn missing_route_is_a_problem_with_the_routes() {
    let spark = Route { kind: Some(ComponentKind::Workload), ..route("Spark", "mock") };
    let topology = seeded(vec![target("A", "mock", &[], false)], vec![spark]);
    assert!(!topology.is_routed(&component().routing()));
    assert_eq!(
        chosen(&topology, "qa"),
        Err("technology: no route leads from this component to a target: `S3`; use what is routed here: technology \
             Spark, kind workload -> mock; or add a [[routes]] entry to the configuration"
            .into())
    );
}

#[test]
fn unrouted_component_gets_a_route_suggestion() {
    let storage = Route { kind: Some(ComponentKind::Storage), ..route("S3", "lake") };
    let dashboards = Route {
        kind: Some(ComponentKind::of("Dashboard")),
        platform: Some("Cloud".into()),
        ..route("Tableau", "boards")
    };
    let topology = seeded(vec![target("A", "lake", &[], false)], vec![storage, dashboards]);
    let slip = |key: &str, field, value: &str| [Misspelt { key: key.into(), field, value: value.into() }];
    let (technolgy, none) = (slip("technolgy", "technology", "S3"), Routing::default());
    let cases = [
        (
            Routing { kind: Some("storage"), misspelt: &technolgy, ..none },
            "no route leads here from technology `(none)`, kind `storage`; did you mean `technology` by `technolgy`? \
             then the route is: technology S3, kind storage -> lake",
        ),
        (
            Routing { technology: Some("Tablaeu"), platform: Some("cloud"), kind: Some("dashboard"), ..none },
            "no route leads here from technology `Tablaeu`, platform `cloud`, kind `dashboard`; did you mean technology \
             `Tableau`? then the route is: technology Tableau, platform Cloud, kind dashboard -> boards",
        ),
        (
            Routing { technology: Some("Kafka"), kind: Some("storage"), ..none },
            "no route leads here from technology `Kafka`, kind `storage`; the nearest route is: technology S3, kind \
             storage -> lake, and asks for technology `S3`",
        ),
        (
            none,
            "no route leads here from technology `(none)`; the nearest route is: technology S3, kind storage -> lake, \
                and asks for technology `S3` and kind `storage`",
        ),
    ];
    for (routing, expected) in cases {
        assert!(!topology.is_routed(&routing));
        assert_eq!(topology.unrouted(&routing), expected);
    }
    let board =
        Routing { technology: Some(" tableau "), platform: Some("CLOUD"), kind: Some("DASHBOARD"), ..none };
    assert!(topology.is_routed(&board));
    assert_eq!(
        seeded(Vec::new(), Vec::new()).unrouted(&none),
        "no route leads here from technology `(none)`"
    );
}

#[test]
fn all_conditions_of_a_route_must_match() {
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
        assert_eq!(route.unmet(&component.routing()).is_empty(), expected, "{route:?}");
    }
}

#[test]
fn import_uses_the_named_target_or_the_only_one() {
    let lake = || target("LAKE", "lake", &[], true);
    let mock = || target("MOCK", "mock", &[], false);
    let routes = || vec![route("S3", "lake"), route("Spark", "mock")];
    let choose = |topology: &Topology, named: serde_json::Value| {
        let named = Some(("params.target".to_owned(), named)).filter(|(_, code)| !code.is_null());
        topology
            .choose_import("urn:dmb:utm:x:1", "qa", named, None)
            .map(|target| target.code.clone())
            .map_err(|problem| problem.with_remedy())
    };
    let one = seeded(vec![lake(), mock()], routes());
    assert_eq!(choose(&one, json!(null)), Ok("LAKE".into()));
    assert_eq!(choose(&one, json!(" lake ")), Ok("LAKE".into()));
    assert_eq!(
        choose(&one, json!("MOCK")),
        Err("params.target: no target of that name imports from environment `qa`: `MOCK`; name one of: LAKE; MOCK \
             cannot import (fake)"
            .into())
    );
    assert_eq!(
        choose(&one, json!({"code": "LAKE"})),
        Err("params.target: no target of that name imports from environment `qa`: `{\"code\":\"LAKE\"}`; name one of: \
             LAKE; MOCK cannot import (fake)"
            .into())
    );
    let two = seeded(vec![lake(), target("LAKE2", "lake", &[], true)], routes());
    assert_eq!(
        choose(&two, json!(null)),
        Err("useCaseTemplateId: several configured targets import this template: `urn:dmb:utm:x:1`; name one of them in \
             `params.target`: LAKE, LAKE2"
            .into())
    );
    assert_eq!(choose(&two, json!("LAKE2")), Ok("LAKE2".into()));
    let none = seeded(vec![mock()], routes());
    assert_eq!(
        choose(&none, json!(null)),
        Err("useCaseTemplateId: no configured target imports this template: `urn:dmb:utm:x:1`; configure a target that \
             imports from this environment (lakehouse or postgresql); MOCK cannot import (fake)"
            .into())
    );
    assert_eq!(
        choose(&none, json!("LAKE")),
        Err("params.target: no target of that name imports from environment `qa`: `LAKE`; configure a target that imports \
             from this environment (lakehouse or postgresql); MOCK cannot import (fake)"
            .into())
    );
    let elsewhere = seeded(vec![lake(), mock()], vec![route("Spark", "mock")]);
    assert_eq!(
        choose(&elsewhere, json!(null)),
        Err("useCaseTemplateId: no configured target imports this template: `urn:dmb:utm:x:1`; route the template to the \
             group of one that imports, or name it in `params.target`: LAKE; MOCK cannot import (fake)"
            .into())
    );
}

/// What the descriptor of an import says of its component decides between targets, and finds one that no route of the
/// template leads to.
#[test]
fn an_import_goes_where_the_route_of_its_component_leads() {
    let by_template = Route {
        use_case_template_id: Some("urn:dmb:utm:other".to_owned()),
        ..route("PostgreSQL", "warehouse")
    };
    let targets = vec![
        target("LAKE", "lake", &[], true),
        target("POND", "pond", &[], true),
        target("WAREHOUSE", "warehouse", &[], true),
    ];
    let topology = seeded(targets, vec![route("S3", "lake"), route("HDFS", "pond"), by_template]);
    let choose = |technology: &str, template: &str| {
        let routing = Routing {
            technology: Some(technology),
            use_case_template_id: Some("urn:dmb:utm:other:1"),
            ..Routing::default()
        };
        topology.choose_import(template, "qa", None, Some(&routing)).map(|target| target.code.clone())
    };
    assert_eq!(choose("S3", "urn:dmb:utm:x:1"), Ok("LAKE".to_owned()));
    assert_eq!(choose("HDFS", "urn:dmb:utm:x:1"), Ok("POND".to_owned()));
    assert_eq!(choose("PostgreSQL", "urn:dmb:utm:x:1"), Ok("WAREHOUSE".to_owned()));
    let several = choose("Oracle", "urn:dmb:utm:x:1").unwrap_err();
    assert_eq!(several.message, "several configured targets import this template");
}

#[test]
fn reports_overridden_configuration_with_valid_values() {
    let targets =
        || vec![target("LAKE", "lake", &["production", "qa"], false), target("MOCK", "a group", &[], false)];
    let topology = seeded(targets(), Vec::new());
    assert_eq!(topology.overridden(), [""; 0], "what was just made says the same");
    let same = changed(&topology, |lake| {
        lake.code = "lake".into();
        lake.group = Some("LAKE".into());
        lake.environments.reverse();
        lake.is_active = false;
    });
    assert_eq!(same.overridden(), [""; 0], "in other spellings, and switched off");
    let mut instances = topology.instances.to_vec();
    for (id, instance) in (11001..).zip(&mut instances) {
        instance.id = id;
    }
    instances[0].attributes.group = Some("b\nc".into());
    instances[0].attributes.environments = vec![1];
    instances[1].attributes.code = "GREEN".into();
    let topology = Topology::new(Arc::clone(&topology.installation), instances.into());
    assert_eq!(
        topology.overridden(),
        [
            "instance 11001 of the topology, which is kept in the store, decides: targets.LAKE.group is `lake`, and its \
             groupCode `b c`; targets.LAKE.environments is 2,3, and it serves 1; to have what is configured, run \
             `landfall topology set LAKE --group lake --environments 2,3`",
            "targets.MOCK has no instance in the topology any more, which decides: nothing new is placed there; run \
             `landfall topology set MOCK --create --active true --deployment-target true --group 'a group' --environments \
             1,2,3`, or remove the target",
            "instance 11002 of the topology has the code `GREEN`, and the configuration has no [targets.GREEN]: nothing is \
             placed there; configure the target, or run `landfall topology set GREEN --active false`",
        ]
    );
    let none = changed(&seeded(targets(), Vec::new()), |lake| lake.environments = Vec::new());
    assert_eq!(
        none.overridden(),
        [
            "instance 0 of the topology, which is kept in the store, decides: targets.LAKE.environments is 2,3, and it serves \
          none; to have what is configured, run `landfall topology set LAKE --environments 2,3`"
        ]
    );
}

#[test]
fn an_environment_without_targets_is_its_own_problem() {
    let topology = seeded(
        vec![target("A", "lake", &["development"], false), target("B", "lake", &["production"], false)],
        vec![route("S3", "lake")],
    );
    let other = changed(&topology, |attributes| attributes.is_active = false);
    assert_eq!(
        chosen(&other, "qa"),
        Err("environment: no target of group `lake` serves the environment: `qa`; use one of: production; or have an operator \
             change the topology: A is not active and does not serve the environment; B does not serve the environment"
            .into())
    );
    // It is served, and what keeps the component away is something else.
    assert_eq!(
        chosen(&other, "development"),
        Err("technology: no instance of group `lake` accepts this in environment `development` (1): `S3`; deploy to another environment, \
             or have an operator change the topology: A is not active; B does not serve the environment"
            .into())
    );
}

#[test]
fn typo_in_a_versioned_template_suggests_its_route() {
    let template = Route {
        infrastructure_template_id: Some("urn:dmb:itm:storage-adapter".to_owned()),
        group: "lake".to_owned(),
        ..Route::default()
    };
    let topology = seeded(vec![target("A", "lake", &[], false)], vec![route("S3", "lake"), template]);
    for written in
        ["urn:dmb:itm:storage-adaptor:1", "urn:dmb:itm:storage-adaptor", "urn:dmb:itm:storage_adapter:12"]
    {
        let routing = Routing { infrastructure_template_id: Some(written), ..Routing::default() };
        assert_eq!(
            topology.unrouted(&routing),
            format!(
                "no route leads here from technology `(none)`, infrastructureTemplateId `{written}`; did you mean \
                 infrastructureTemplateId `urn:dmb:itm:storage-adapter`? then the route is: infrastructureTemplateId \
                 urn:dmb:itm:storage-adapter -> lake"
            )
        );
    }
}
