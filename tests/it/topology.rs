//! Placement of components: the FlexDeploy Instance API as its page prints it, and its effect.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{
    Answer, Api, Cluster, CommandOutput, INSTANCES, Landfall, OUTPUT_PORT, STORAGE, acl_request, cashflow,
    component_request, landfall, product_request, replace_once,
};
use crate::postgres::PostgresServer;

async fn put(api: &Api, id: &Value, body: &Value) -> Answer {
    api.send("PUT", &format!("{INSTANCES}/{id}"), |request| request.json(body)).await
}

async fn patch(api: &Api, id: &Value, body: &Value) -> Answer {
    api.send("PATCH", &format!("{INSTANCES}/{id}"), |request| request.json(body)).await
}

async fn find(api: &Api, query: &str) -> Vec<Value> {
    let found = api.get(&format!("{INSTANCES}{query}")).await.with_status(200).json();
    found.as_array().unwrap().clone()
}

/// The instance of a configured target.
async fn instance_of(api: &Api, code: &str) -> Value {
    let found = find(api, &format!("?instanceCode={code}")).await;
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

/// Creates an instance that the page assumes to exist. Returns its id.
async fn create_instance(api: &Api, instance: &str) -> Value {
    let instance: Value = serde_json::from_str(instance).unwrap();
    let created = api.post(INSTANCES, &instance).await.with_status(201).json();
    assert_eq!(without_id(&created), without_id(&instance));
    created["instanceId"].clone()
}

fn without_id(instance: &Value) -> Value {
    let mut instance = instance.clone();
    assert!(instance.as_object_mut().unwrap().shift_remove("instanceId").unwrap().is_i64());
    instance
}

fn message(answer: &Answer) -> String {
    answer.json()["message"].as_str().unwrap_or_else(|| panic!("no message: {answer:?}")).to_owned()
}

// ---- the page -----------------------------------------------------------------------------------------------------

/// An instance that the page prints twice: as the existing instance, and as the answer.
const GET: &str = r#"{
	"description": "GET example description",
	"environments": [11001],
	"workflows": [],
	"instanceId": 11004,
	"instanceName": "GET Example Name",
	"isActive": true, "pluginOperations": [],
	"instanceCode": "GETEXAMPLECODE",
	"groupCode": "GET example group",
	"subGroupCode": "GET example sub group",
	"isDeploymentTarget": false
}"#;

#[tokio::test]
async fn documented_get_by_id_returns_the_instance() {
    let server = Landfall::start();
    let id = create_instance(server.api(), GET).await;
    let found = server.api().get(&format!("{INSTANCES}/{id}")).await.with_status(200).json();
    assert_eq!(without_id(&found), without_id(&serde_json::from_str(GET).unwrap()));
    assert_eq!(found["instanceId"], id);
}

const LIST: &str = r#"[
	{
		"description": "GET example description",
		"environments": [10001],
		"workflows": [10001],
		"instanceId": 10000,
		"instanceName": "GET Example Name",
		"isActive": true,
		"pluginOperations": [{"propertySetName":"pluginName","ownerId":12345}],
		"instanceCode": "GETEXAMPLECODE",
		"groupCode": "Group",
		"subGroupCode": "GET example sub group",
		"isDeploymentTarget": false
	},
	{ 
		"description": "GET example 2 description", 
		"environments": [10001, 10002, 10003], 
		"workflows": [10001, 10002, 10003], 
		"instanceId": 10012, 
		"instanceName": "GET Example 2 Name", 
		"isActive": true, 
		"pluginOperations": [], 
		"instanceCode": "GETEXAMPLECODE2", 
		"groupCode": "group", 
		"subGroupCode": "GET example 2 sub group", 
		"isDeploymentTarget": true
	}
]"#;

/// The page contradicts itself about plugin operations: the form of its sample is accepted, and the answer has the
/// form of its definition.
#[tokio::test]
async fn documented_get_by_query_filters_instances() {
    let server = Landfall::start();
    let mut list: Vec<Value> = serde_json::from_str(LIST).unwrap();
    for instance in &list {
        server.api().post(INSTANCES, instance).await.with_status(201);
    }
    list[0]["pluginOperations"] = json!([{"pluginId": 12345, "operation": "pluginName"}]);
    let list: Vec<Value> = list.iter().map(without_id).collect();
    for (query, expected) in [
        ("?groupCode=Group", vec![0, 1]),
        ("?groupCode=GROUP", vec![0, 1]),
        ("?instanceCode=getexamplecode", vec![0]),
        ("?instanceCode=getexample", vec![]),
        ("?instanceName=example%202", vec![1]),
        ("?instanceName=Get+Example", vec![0, 1]),
        ("?instanceName=NAME&groupCode=group&subGroupCode=GET%20example%20sub%20group", vec![0]),
        ("?instanceName=NAME&groupCode=other", vec![]),
        ("?groupCode=group&unknown=1", vec![0, 1]),
    ] {
        let found: Vec<Value> = find(server.api(), query).await.iter().map(without_id).collect();
        let expected: Vec<Value> = expected.into_iter().map(|index: usize| list[index].clone()).collect();
        assert_eq!(found, expected, "{query}");
    }
    let codes = |all: Vec<Value>| all.iter().map(|it| it["instanceCode"].clone()).collect::<Vec<_>>();
    assert_eq!(
        codes(find(server.api(), "").await),
        ["LOCAL_LAKE", "LOCAL_MOCK", "GETEXAMPLECODE", "GETEXAMPLECODE2"],
        "without parameters all of them, those of the configuration first"
    );
}

#[tokio::test]
async fn documented_post_creates_the_instance() {
    let input = r#"{
	"description": "POST example description",
	"environments": [11001],
	"workflows": [],
	"instanceId": 1,
	"instanceName": "POST Example Name",
	"isActive": true,
	"pluginOperations": [],
	"instanceCode": "POSTEXAMPLECODE",
	"groupCode": "POST example group",
	"subGroupCode": "POST example sub group",
	"isDeploymentTarget": false
}"#;
    let output = r#"{
	"description": "POST example description",
	"environments": [11001],
	"workflows": [],
	"instanceId": 11004,
	"instanceName": "POST Example Name",
	"isActive": true,
	"pluginOperations": [],
	"instanceCode": "POSTEXAMPLECODE",
	"groupCode": "POST example group",
	"subGroupCode": "POST example sub group",
	"isDeploymentTarget": false
}"#;
    let server = Landfall::start();
    let post = |body: &'static str| {
        server.api().send("POST", INSTANCES, move |request| {
            request.header("content-type", "application/json").body(body)
        })
    };
    let created = post(input).await.with_status(201).json();
    assert_eq!(without_id(&created), without_id(&serde_json::from_str(output).unwrap()));
    assert_ne!(created["instanceId"], 1, "the id is made here");

    let least = post(r#"{"instanceName": "Least", "instanceCode": "LEAST"}"#).await.with_status(201).json();
    assert_eq!(
        without_id(&least),
        json!({
            "description": null, "environments": [], "workflows": [], "instanceName": "Least", "isActive": true,
            "pluginOperations": [], "instanceCode": "LEAST", "groupCode": null, "subGroupCode": null,
            "isDeploymentTarget": true
        })
    );
    assert!(least["instanceId"].as_i64() > created["instanceId"].as_i64());
}

#[tokio::test]
async fn documented_put_replaces_the_instance() {
    let current = r#"{
	"description": "Example description",
	"environments": [],
	"workflows": [],
	"instanceId": 11104,
	"instanceName": "Example Name",
	"isActive": false,
	"pluginOperations": [],
	"instanceCode": "EXAMPLECODE",
	"groupCode": "Group",
	"subGroupCode": "Sub Group",
	"isDeploymentTarget": false
}"#;
    let input = r#"{
	"description": "PUT description",
	"environments": [11001],
	"workflows": [11104],
	"instanceId": 1,
	"instanceName": "PUT Name",
	"isActive": true,
	"pluginOperations": [],
	"instanceCode": "PUTCODE",
	"groupCode": "PUT group",
	"subGroupCode": "PUT sub group",
	"isDeploymentTarget": true
}"#;
    let output = r#"{
	"description": "PUT description",
	"environments": [11001],
	"workflows": [11104],
	"instanceId": 11104,
	"instanceName": "PUT Name",
	"isActive": true,
	"pluginOperations": [],
	"instanceCode": "PUTCODE",
	"groupCode": "PUT group",
	"subGroupCode": "PUT sub group",
	"isDeploymentTarget": true
}"#;
    let server = Landfall::start();
    let id = create_instance(server.api(), current).await;
    let answer = put(server.api(), &id, &serde_json::from_str(input).unwrap()).await.with_status(200).json();
    assert_eq!(without_id(&answer), without_id(&serde_json::from_str(output).unwrap()));
    assert_eq!(answer["instanceId"], id, "the id in the body is ignored");

    let least = json!({"instanceName": "N", "instanceCode": "C"});
    let answer = put(server.api(), &id, &least).await.with_status(200).json();
    assert_eq!(
        (&answer["environments"], &answer["workflows"], &answer["description"], &answer["isActive"]),
        (&json!([]), &json!([]), &json!(null), &json!(true)),
        "what is not there is gone, or as by default"
    );
}

#[tokio::test]
async fn documented_patch_updates_the_instance() {
    let current = r#"{
	"description": "Example description",
	"environments": [11001],
	"workflows": [],
	"instanceId": 11104,
	"instanceName": "Example Name",
	"isActive": false,
	"pluginOperations": [],
	"instanceCode": "EXAMPLECODE",
	"groupCode": "Group",
	"subGroupCode": "Sub Group",
	"isDeploymentTarget": false
}"#;
    let input = r#"{
	"description": "PATCH example description",
	"environments": null,
	"workflows": null,
	"instanceId": null,
	"instanceName": null,
	"isActive": null,
	"pluginOperations": null,
	"instanceCode": "PATCHEXAMPLECODE",
	"groupCode": null,
	"subGroupCode": null,
	"isDeploymentTarget": null
}"#;
    let output = r#"{
	"description": "PATCH example description",
	"environments": [11001],
	"workflows": [],
	"instanceId": 11104,
	"instanceName": "Example Name",
	"isActive": false,
	"pluginOperations": [],
	"instanceCode": "PATCHEXAMPLECODE",
	"groupCode": "Group",
	"subGroupCode": "Sub Group",
	"isDeploymentTarget": false
}"#;
    let server = Landfall::start();
    let id = create_instance(server.api(), current).await;
    let answer =
        patch(server.api(), &id, &serde_json::from_str(input).unwrap()).await.with_status(200).json();
    assert_eq!(without_id(&answer), without_id(&serde_json::from_str(output).unwrap()));
    assert_eq!(answer["instanceId"], id);

    let more = json!({
        "environments": [11002, 11001], "workflows": [5],
        "pluginOperations": [{"pluginId": 1, "operation": "provision"}],
        "plugins": [{"propertySetName": "updateacl", "ownerId": 2}, {"ownerId": 1, "propertySetName": "provision"}]
    });
    for _ in 0..2 {
        let answer = patch(server.api(), &id, &more).await.with_status(200).json();
        assert_eq!(answer["environments"], json!([11001, 11002]));
        assert_eq!(answer["workflows"], json!([5]));
        assert_eq!(
            answer["pluginOperations"],
            json!([{"pluginId": 1, "operation": "provision"}, {"pluginId": 2, "operation": "updateacl"}])
        );
    }
}

#[tokio::test]
async fn invalid_topology_requests_get_specific_errors() {
    let server = Landfall::start();
    let api = server.api();
    let lake = instance_of(api, "LOCAL_LAKE").await["instanceId"].clone();
    let taken = api.post(INSTANCES, &json!({"instanceName": "n", "instanceCode": "local_lake"})).await;
    assert_eq!(
        message(taken.with_status(400)),
        format!(
            "instanceCode: instance {lake} has this code: `local_lake`; choose another one, in which case makes no \
             difference, or change instance {lake}"
        )
    );
    for (body, expected) in [
        (json!({"instanceCode": "A"}), "`instanceName`: is missing; add `instanceName`"),
        (
            json!({"instanceCode": " ", "instanceName": ""}),
            "instanceCode: is blank; give the instance one; instanceName: is blank; give the instance one",
        ),
        (
            json!({"instanceCode": "A", "instanceName": "a", "pluginOperations": [{"pluginId": 1}]}),
            "pluginOperations[0]: is no plugin operation; give it a `pluginId` and an `operation`",
        ),
        (
            json!({"instanceCode": "A", "instanceName": "a", "environments": ["production"]}),
            "`environments[0]`: expected a whole number of 64 bits, found the string `production`; send `environments[0]` \
             as a whole number of 64 bits",
        ),
    ] {
        let told = message(api.post(INSTANCES, &body).await.with_status(400));
        assert!(told.starts_with(expected), "{told}");
    }
    for id in ["1", "99999999999999999999"] {
        let path = format!("{INSTANCES}/{id}");
        let get = api.get(&path).await;
        assert_eq!(
            message(get.with_status(404)),
            format!("no instance has the id `{id}`; GET without an id lists all of them")
        );
        let body = json!({"instanceName": "n", "instanceCode": "c"});
        api.send("PUT", &path, |request| request.json(&body)).await.with_status(404);
        api.send("PATCH", &path, |request| request.json(&body)).await.with_status(404);
    }
    let told = message(api.get(&format!("{INSTANCES}/lake")).await.with_status(400));
    assert!(told.contains("`lake`"), "{told}");
    let twice = api.get(&format!("{INSTANCES}?groupCode=a&groupCode=b")).await;
    assert!(message(twice.with_status(400)).contains("groupCode"));
    assert_eq!(find(api, "").await.len(), 2, "nothing was made");
}

// ---- edits at once ------------------------------------------------------------------------------------------------

async fn assert_no_append_is_lost(cluster: &Cluster) {
    const CALLERS: i64 = 200;
    let new = json!({"instanceName": "n", "instanceCode": "POPULAR"});
    let id = cluster.api(0).post(INSTANCES, &new).await.with_status(201).json()["instanceId"].clone();
    let mut callers = tokio::task::JoinSet::new();
    for environment in 0..CALLERS {
        let api = cluster.api(usize::try_from(environment).unwrap() % cluster.len()).clone();
        let id = id.clone();
        callers.spawn(async move {
            patch(&api, &id, &json!({"environments": [environment]})).await.with_status(200);
        });
    }
    callers.join_all().await;
    for replica in 0..cluster.len() {
        let instance = instance_of(cluster.api(replica), "popular").await;
        let all: BTreeSet<i64> =
            instance["environments"].as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect();
        assert_eq!(all, (0..CALLERS).collect());
    }
}

#[tokio::test]
async fn concurrent_patches_lose_no_append_on_sqlite() {
    assert_no_append_is_lost(&Cluster::of(1).start()).await;
}

#[tokio::test]
async fn concurrent_patches_lose_no_append_on_postgresql() {
    let url = PostgresServer::shared().unwrap().new_database().unwrap();
    let cluster = Cluster::of(2).store(&url).start();
    assert_eq!(find(cluster.api(1), "").await.len(), 2, "two servers seed once");
    assert_no_append_is_lost(&cluster).await;
}

// ---- where components land ----------------------------------------------------------------------------------------

const TWO_LAKES: &str = r#"
[targets.LAKE_DEV]
driver = "lakehouse"
environments = ["development"]
warehouse = "file://{data_dir}/dev/warehouse"

[targets.LAKE_PROD]
driver = "lakehouse"
environments = ["production"]
warehouse = "file://{data_dir}/prod/warehouse"

[targets.MOCK]
driver = "mock"

[[routes]]
technology = "Spark"
group = "mock"

[[routes]]
group = "lakehouse"
"#;

fn development() -> String {
    replace_once(&cashflow(), "environment: production", "environment: development")
}

/// The buckets under a lake's folder.
fn buckets(server: &Landfall, lake: &str) -> Vec<String> {
    let folder = server.data_dir().join(lake).join("warehouse/buckets");
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn environments_route_to_their_active_targets() {
    let server = Landfall::with().config(TWO_LAKES).start();
    let api = server.api();
    api.provision_and_wait(&product_request(&development())).await;
    assert_eq!((buckets(&server, "dev").len(), buckets(&server, "prod").len()), (1, 0));
    api.provision_and_wait(&product_request(&cashflow())).await;
    assert_eq!((buckets(&server, "dev").len(), buckets(&server, "prod").len()), (1, 1));

    let production = instance_of(api, "LAKE_PROD").await["instanceId"].clone();
    patch(api, &production, &json!({"isActive": false})).await.with_status(200);
    let dev = instance_of(api, "LAKE_DEV").await["instanceId"].clone();
    let expected = "components[0].technology: no instance of group `lakehouse` accepts this in environment `production` \
                    (10002): `S3`";
    let remedy = format!(
        "deploy to another environment, or have an operator change the topology: LAKE_DEV (instance {dev}) does not serve the environment; \
         LAKE_PROD (instance {production}) is not active"
    );
    let refused = api.post("/v1/provision", &product_request(&cashflow())).await.with_status(400).json();
    let validated = api.validate(&product_request(&cashflow())).await;
    assert_eq!(validated["valid"], false);
    for error in [&refused, &validated["error"]] {
        assert!(error["errors"][0].as_str().unwrap().starts_with(expected), "{error:#}");
        assert_eq!(error["moreInfo"]["solutions"], json!([remedy]));
    }
    let token = api.post("/v2/validate", &product_request(&cashflow())).await.token();
    let validated = api.wait_at("/v2/validate", &token).await;
    assert_eq!(validated["info"]["publicInfo"]["error"]["moreInfo"]["solutions"], json!([remedy]));

    let acl = acl_request(&cashflow(), OUTPUT_PORT, &["user:alice_example.com"]);
    api.complete("/v1/updateacl", &acl).await;
    let mut removal = product_request(&cashflow());
    removal["removeData"] = json!(true);
    api.complete("/v1/unprovision", &removal).await;
    assert_eq!((buckets(&server, "dev").len(), buckets(&server, "prod").len()), (1, 0));
}

/// If the configuration and the store differ, the log says so, with the command to run.
#[tokio::test]
async fn startup_log_lists_overridden_configuration() {
    let mut server = Landfall::with().config(TWO_LAKES).start();
    assert!(!server.log().contains("topology set"), "{}", server.log());
    let dev = instance_of(server.api(), "LAKE_DEV").await["instanceId"].clone();
    patch(server.api(), &dev, &json!({"groupCode": "other", "environments": [10003]})).await.with_status(200);
    server.terminate();
    server.restart();
    let told = format!(
        "instance {dev} of the topology, which is kept in the store, decides: targets.LAKE_DEV.group is `lakehouse`, and \
         its groupCode `other`; targets.LAKE_DEV.environments is 10001, and it serves 10001,10003; to have what is \
         configured, run `landfall topology set LAKE_DEV --group lakehouse --environments 10001`"
    );
    let end = Instant::now() + Duration::from_secs(30);
    while !server.log().contains(&told) && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let log = server.log();
    assert!(log.contains(&told), "{log}");
    assert_eq!(log.matches("topology set").count(), 1, "one line for each: {log}");
    run_on(&server, &["set", "LAKE_DEV", "--group", "lakehouse", "--environments", "10001"]).with_code(0);
    server.terminate();
    server.restart();
    instance_of(server.api(), "LAKE_DEV").await;
    let log = server.log();
    assert_eq!(log.matches("topology set").count(), 1, "nothing new is told: {log}");
}

/// Data that was kept is found at its old place, whatever changed in the topology since, and however often it is
/// requested; a component that never existed causes no error.
#[tokio::test]
async fn kept_data_is_removed_from_its_original_target() {
    let server = Landfall::with().config(TWO_LAKES).start();
    let api = server.api();
    let removal = |remove_data: bool| {
        let mut removal = product_request(&cashflow());
        removal["removeData"] = json!(remove_data);
        removal
    };
    api.provision_and_wait(&component_request(&cashflow(), STORAGE)).await;
    api.complete("/v1/unprovision", &removal(false)).await;
    let lake = |code: &'static str| async move { instance_of(api, code).await["instanceId"].clone() };
    let (dev, production) = (lake("LAKE_DEV").await, lake("LAKE_PROD").await);
    patch(api, &production, &json!({"isActive": false})).await.with_status(200);
    patch(api, &dev, &json!({"environments": [10002]})).await.with_status(200);
    let mut elsewhere = find(api, "?instanceCode=LAKE_PROD").await.remove(0);
    elsewhere["environments"] = json!([]);
    put(api, &production, &elsewhere).await.with_status(200);
    assert_eq!(buckets(&server, "prod").len(), 1, "it was kept");

    api.complete("/v1/unprovision", &removal(true)).await;
    assert_eq!((buckets(&server, "dev").len(), buckets(&server, "prod").len()), (0, 0));
    api.complete("/v1/unprovision", &removal(true)).await;
}

/// Another spelling of an environment is the same environment, also for existing resources.
#[tokio::test]
async fn environment_names_ignore_case() {
    let server = Landfall::with().config(TWO_LAKES).start();
    let api = server.api();
    let shouted = replace_once(&cashflow(), "environment: production", "environment: PRODUCTION");
    api.provision_and_wait(&product_request(&shouted)).await;
    let mut removal = product_request(&cashflow());
    removal["removeData"] = json!(true);
    api.complete("/v1/unprovision", &removal).await;
    assert_eq!(buckets(&server, "prod").len(), 0);
}

#[tokio::test]
async fn removing_a_target_from_rotation_selects_the_other() {
    let server = Landfall::with().config(TWO_LAKES).start();
    let api = server.api();
    let lake = |code: &'static str| async move { instance_of(api, code).await["instanceId"].clone() };
    let (dev, production) = (lake("LAKE_DEV").await, lake("LAKE_PROD").await);
    patch(api, &dev, &json!({"environments": [10002]})).await.with_status(200);
    let refused = api.post("/v1/provision", &product_request(&cashflow())).await.with_status(400).json();
    assert_eq!(
        refused["moreInfo"]["solutions"],
        json!([format!(
            "have an operator leave one of these for that environment, or route to different groups: LAKE_DEV \
             (instance {dev}), LAKE_PROD (instance {production})"
        )])
    );
    patch(api, &production, &json!({"isDeploymentTarget": false})).await.with_status(200);
    api.provision_and_wait(&product_request(&cashflow())).await;
    assert_eq!((buckets(&server, "dev").len(), buckets(&server, "prod").len()), (1, 0));
}

#[tokio::test]
async fn running_task_keeps_its_target_after_deactivation() {
    let url = PostgresServer::shared().unwrap().new_database().unwrap();
    let config = r#"
[targets.SLOW]
driver = "mock"
steps = 20
step_delay = "50ms"
[[routes]]
group = "mock"
"#;
    let cluster = Cluster::of(2).config(config).store(&url).start();
    let (here, there) = (cluster.api(0), cluster.api(1));
    let component = "urn:dmb:cmp:finance:cashflow:0:cashflow-calculation";
    let request = component_request(&cashflow(), component);
    let token = here.post("/v1/provision", &request).await.token();
    let slow = instance_of(there, "SLOW").await["instanceId"].clone();
    patch(there, &slow, &json!({"isActive": false})).await.with_status(200);
    assert_eq!(here.status(&token).await["status"], "RUNNING", "it is not over by then");

    let later = component_request(
        &replace_once(&cashflow(), "    specific: {}", "    specific: { later: 1 }"),
        component,
    );
    for api in [here, there] {
        assert_eq!(api.validate(&later).await["valid"], false, "seen by every server at once");
        api.post("/v1/provision", &later).await.with_status(400);
    }
    assert_eq!(here.wait(&token).await["status"], "COMPLETED");
    patch(here, &slow, &json!({"isActive": true})).await.with_status(200);
    assert_eq!(there.validate(&later).await["valid"], true);
}

#[tokio::test]
async fn topology_changes_survive_a_restart() {
    let mut server = Landfall::start();
    let lake = instance_of(server.api(), "LOCAL_LAKE").await;
    let moved = json!({"instanceName": "Renamed", "isActive": false, "groupCode": "other"});
    patch(server.api(), &lake["instanceId"], &moved).await.with_status(200);
    let before = find(server.api(), "").await;
    server.kill_9();
    server.restart();
    assert_eq!(find(server.api(), "").await, before);
}

// ---- the command line ---------------------------------------------------------------------------------------------

fn run_on(server: &Landfall, arguments: &[&str]) -> CommandOutput {
    let url = server.api().url();
    landfall(["topology"].into_iter().chain(arguments.iter().copied()).chain(["--url", url]))
}

#[tokio::test]
async fn cli_lists_sets_and_explains_the_topology() {
    let server = Landfall::with().config(TWO_LAKES).start();
    let listed = run_on(&server, &["list", "--group", "LAKEHOUSE"]).with_code(0);
    let lines: Vec<&str> = listed.out.lines().collect();
    assert_eq!(
        lines,
        [
            "LAKE_DEV (11001): group lakehouse, environments 10001, active, deployment target",
            "LAKE_PROD (11002): group lakehouse, environments 10002, active, deployment target",
        ]
    );
    assert_eq!(run_on(&server, &["list", "--json"]).with_code(0).json().as_array().unwrap().len(), 3);

    let set = run_on(&server, &["set", "lake_prod", "--active", "false", "--add-environment", "10003"]);
    assert_eq!(
        set.with_code(0).out.trim_end(),
        "LAKE_PROD (11002): group lakehouse, environments 10002 10003, not active, deployment target"
    );
    let explained = run_on(&server, &["explain", "examples/cashflow.yaml"]).with_code(3);
    for line in [
        format!("{OUTPUT_PORT} in production (10002)"),
        "  route: anything -> lakehouse".to_owned(),
        "  LAKE_DEV (11001): does not serve the environment".to_owned(),
        "  LAKE_PROD (11002): is not active".to_owned(),
        "  MOCK (11003): fits".to_owned(),
        "  target: MOCK".to_owned(),
    ] {
        assert!(explained.out.lines().any(|told| told == line), "{line}: {explained:?}");
    }
    assert!(explained.err.contains("no instance of group `lakehouse` accepts this"), "{explained:?}");

    let set = run_on(&server, &["set", "LAKE_PROD", "--active", "true", "--environments", "10002"]);
    assert!(set.with_code(0).out.contains("environments 10002, active"));
    run_on(&server, &["explain", "examples/cashflow.yaml"]).with_code(0);
    server.api().provision_and_wait(&product_request(&cashflow())).await;
    let explained = run_on(&server, &["explain", "examples/cashflow.yaml", "--json"]).with_code(0).json();
    for component in explained["components"].as_array().unwrap() {
        assert_eq!(component["provisionedOn"], component["target"], "{component:#}");
    }

    let unknown = run_on(&server, &["set", "NEW", "--group", "lakehouse"]).with_code(3);
    assert_eq!(
        unknown.err.trim_end(),
        "error: no instance has the code `NEW`; use one of: LAKE_DEV, LAKE_PROD, MOCK; or make it with --create"
    );
    let made =
        run_on(&server, &["set", "NEW", "--create", "--group", "lakehouse", "--deployment-target", "false"]);
    assert_eq!(
        made.with_code(0).out.trim_end(),
        "NEW (11004): group lakehouse, no environments, active, no deployment target"
    );
    let none = run_on(&server, &["set", "MOCK", "--environments", "none"]).with_code(0);
    assert!(none.out.contains("no environments"), "{none:?}");
    let nothing = run_on(&server, &["set", "NEW"]).with_code(2);
    assert!(nothing.err.contains("nothing to set"), "{nothing:?}");
}
