//! Output ports in PostgreSQL, from the control plane's request to what alice can read; a directory resolves the
//! principals.

use serde_json::{Value, json};

use crate::harness::{
    CommandOutput, Landfall, acl_request, component_request, landfall, query_write, replace_once,
};
use crate::ldap::{LdapServer, PASSWORD as LDAP_PASSWORD, READER};
use crate::postgres::{PostgresServer, query};

const PORT: &str = "urn:dmb:cmp:sales:orders:1:recent-orders";
const STORAGE: &str = "urn:dmb:cmp:sales:orders:1:storage";
const EXAMPLE: &str = "crates/technologies/postgresql/examples/orders.yaml";
const PASSWORD: &str = "of everybody";

const PEOPLE: &str = "dn: uid=alice,dc=example,dc=org
objectClass: inetOrgPerson
uid: alice
cn: Alice
sn: A
mail: alice@example.com

dn: uid=carol,dc=example,dc=org
objectClass: inetOrgPerson
uid: carol
cn: Carol
sn: C
mail: carol@example.com

dn: uid=ghost,dc=example,dc=org
objectClass: inetOrgPerson
uid: ghost
cn: Ghost
sn: G
mail: ghost@example.com

dn: cn=analysts,dc=example,dc=org
objectClass: groupOfNames
cn: analysts
member: uid=carol,dc=example,dc=org
member: uid=ghost,dc=example,dc=org
";

fn product() -> String {
    std::fs::read_to_string(crate::harness::repository().join(EXAMPLE)).unwrap()
}

/// A server on a database of its own, where alice, bob and carol have roles, and a directory that knows them.
struct Stage {
    landfall: Landfall,
    database: String,
    /// The end of the role names of alice and the others. It differs in each test, because all tests share the
    /// roles of one server.
    suffix: String,
    _directory: LdapServer,
}

impl Stage {
    fn new() -> Self {
        let postgres = PostgresServer::shared().unwrap();
        let (url, database) = postgres.new_target().unwrap();
        let suffix = format!("_{database}");
        for name in ["alice", "bob", "carol"] {
            let role = format!("CREATE ROLE {name}{suffix} LOGIN PASSWORD '{PASSWORD}'");
            postgres.psql(&role).unwrap();
        }
        // The roles are named by `employeeNumber` of the directory.
        let people = ["alice", "carol", "ghost"].iter().fold(PEOPLE.to_owned(), |text, name| {
            replace_once(
                &text,
                &format!("\nuid: {name}\n"),
                &format!("\nuid: {name}\nemployeeNumber: {name}{suffix}\n"),
            )
        });
        let directory = LdapServer::start(&people);
        let config = format!(
            r#"
[identity.corporate]
kind = "ldap"
url = "{}"
bind_dn = "{READER}"
bind_password = {{ env = "LDAP_PASSWORD" }}
user_base = "dc=example,dc=org"
user_attribute = "employeeNumber"

[targets.PG]
driver = "postgresql"
url = {{ env = "PG_URL" }}
identity = ["corporate"]

[[routes]]
technology = "PostgreSQL"
group = "postgresql"
"#,
            directory.url()
        );
        let landfall =
            Landfall::with().config(&config).env("PG_URL", &url).env("LDAP_PASSWORD", LDAP_PASSWORD);
        Self { landfall: landfall.start(), database, suffix, _directory: directory }
    }

    fn superuser(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        PostgresServer::shared().unwrap().psql_in(&self.database, sql).unwrap()
    }

    /// The rows of the output port as a principal reads them, in a session of its own.
    fn read_as(&self, name: &str, info: &Value) -> Result<Vec<Vec<Option<String>>>, String> {
        let port = PostgresServer::shared().unwrap().port();
        let user = format!("{name}{}", self.suffix);
        let url =
            format!("postgres://{user}:{}@127.0.0.1:{port}/{}", PASSWORD.replace(' ', "%20"), self.database);
        let value = |key: &str| info["publicInfo"][key]["value"].as_str().unwrap().to_owned();
        query(&url, &format!("SELECT customer FROM \"{}\".\"{}\"", value("schema"), value("object")))
    }

    fn on(&self, arguments: &[&str]) -> CommandOutput {
        landfall(arguments.iter().copied().chain(["--url", self.landfall.api().url()]))
    }
}

#[tokio::test]
async fn access_follows_the_directory_until_revoked() {
    let stage = Stage::new();
    let api = stage.landfall.api();
    // As one task: the output port waits for its source.
    api.provision_and_wait(&crate::harness::product_request(&product())).await;
    let status = api.provision_and_wait(&component_request(&product(), PORT)).await;
    let info = &status["info"];
    let schema = info["publicInfo"]["schema"]["value"].as_str().unwrap();
    assert!(!schema.is_empty());
    stage.superuser(
        "INSERT INTO \"sales__orders__1__storage__production\".orders (id, customer) VALUES (1, 'acme')",
    );
    let acme = vec![vec![Some("acme".to_owned())]];
    for name in ["alice", "bob", "carol"] {
        assert!(stage.read_as(name, info).is_err(), "{name} was given nothing yet");
    }

    let give = async |refs: &[&str]| api.run("/v1/updateacl", &acl_request(&product(), PORT, refs)).await;
    let status = give(&["user:alice_example.com", "group:analysts"]).await;
    assert_eq!(status["status"], "COMPLETED", "{status:#}");
    let told = crate::harness::messages(&status).join("\n");
    assert!(told.contains("1 members of `group:analysts` are left out"), "{told}");
    assert_eq!(stage.read_as("alice", info).unwrap(), acme);
    assert_eq!(stage.read_as("carol", info).unwrap(), acme);
    assert!(stage.read_as("bob", info).is_err());

    // Alice is removed, and an unknown principal is added: the first is done, the second is reported.
    let status = give(&["group:analysts", "user:eve_example.com"]).await;
    assert_eq!(status["status"], "FAILED", "{status:#}");
    let result = status["result"].as_str().unwrap();
    assert!(result.contains("the directory has no `user:eve_example.com`"), "{result}");
    assert!(stage.read_as("alice", info).is_err());
    assert_eq!(stage.read_as("carol", info).unwrap(), acme);

    // Without a prefix, the directory decides the kind; two spellings of one principal are one.
    let status = give(&["alice_example.com", "analysts", "group:analysts"]).await;
    assert_eq!(status["status"], "COMPLETED", "{status:#}");
    let told = crate::harness::messages(&status).join("\n");
    for reading in [
        "`alice_example.com` is resolved as the user `alice@example.com`",
        "`analysts` is resolved as the group `analysts`",
    ] {
        assert!(told.contains(reading), "{reading}: {told}");
    }
    assert_eq!(stage.read_as("alice", info).unwrap(), acme);
    assert_eq!(stage.read_as("carol", info).unwrap(), acme);
    let status = give(&["alice_example.com", "analysts", "group:analysts"]).await;
    assert!(status["result"].as_str().unwrap().contains("nothing to change"), "{status:#}");
    // An unknown principal: alice is removed all the same.
    let status = give(&["analysts", "eve_example.com"]).await;
    assert_eq!(status["status"], "FAILED", "{status:#}");
    let result = status["result"].as_str().unwrap();
    assert!(
        result.contains(
            "the directory has no `user:eve_example.com`; the directory has no `group:eve_example.com`"
        ),
        "{result}"
    );
    assert!(stage.read_as("alice", info).is_err());

    give(&[]).await;
    assert!(stage.read_as("carol", info).is_err());
    let mut removal = crate::harness::product_request(&product());
    removal["removeData"] = json!(true);
    api.complete("/v1/unprovision", &removal).await;
    let left = stage.superuser("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'sales%'");
    assert_eq!(left, Vec::<Vec<Option<String>>>::new());
}

/// A plan shows differences between the database and the descriptor; after a deployment there are none.
#[tokio::test]
async fn plan_shows_schema_drift() {
    let stage = Stage::new();
    let plan = stage.on(&["plan", EXAMPLE]).with_code(0);
    assert!(
        plan.out.contains("make view `recent_orders`, once what it reads is as it should be"),
        "{plan:?}"
    );
    stage.on(&["deploy", EXAMPLE]).with_code(0);
    let changes = |plan: &Value| -> usize {
        let of = |component: &Value| component["changes"].as_array().unwrap().len();
        plan["components"].as_array().unwrap().iter().map(of).sum()
    };
    let plan = stage.on(&["plan", EXAMPLE, "--json"]).with_code(0).json();
    assert_eq!(changes(&plan), 0, "{plan:#}");

    stage.superuser(
        "ALTER TABLE \"sales__orders__1__storage__production\".customers DROP COLUMN email; \
         COMMENT ON COLUMN \"sales__orders__1__storage__production\".orders.id IS 'something else'",
    );
    let plan = stage.on(&["plan", EXAMPLE]).with_code(0);
    for told in ["add column `email`", "update descriptions"] {
        assert!(plan.out.contains(told), "{told}: {plan:?}");
    }
    stage.on(&["deploy", EXAMPLE, "--component", STORAGE]).with_code(0);
    let plan = stage.on(&["plan", EXAMPLE, "--json"]).with_code(0).json();
    assert_eq!(changes(&plan), 0, "{plan:#}");
}

/// A component that changes its kind leaves nothing of the earlier kind behind.
#[tokio::test]
async fn unprovision_as_output_port_removes_a_storage_area() {
    let stage = Stage::new();
    let api = stage.landfall.api();
    let store = stage.landfall.data_dir().join("landfall.db");
    let schemas = || {
        let sql = "SELECT nspname FROM pg_namespace WHERE nspname = 'sales__orders__1__storage__production'";
        stage.superuser(sql).len()
    };
    let mut good = component_request(&product(), STORAGE);
    good["removeData"] = json!(true);
    let mut port = component_request(&product().replacen("kind: storage", "kind: outputport", 1), STORAGE);
    port["removeData"] = json!(true);
    for forget in ["UPDATE deployment SET kind = NULL", "DELETE FROM deployment"] {
        api.provision_and_wait(&good).await;
        query_write(&store, forget).await;
        let done = api.run("/v1/unprovision", &port).await;
        // An unprovision finds all objects of a component by its role, whatever their names are.
        let gone = done["status"] == "COMPLETED";
        assert_eq!(schemas(), usize::from(!gone), "{done:#}");
        api.complete("/v1/unprovision", &good).await;
        assert_eq!(schemas(), 0);
    }
    api.provision_and_wait(&good).await;
    api.complete("/v1/unprovision", &port).await;
    assert_eq!(schemas(), 0);
    let again = api.complete("/v1/unprovision", &port).await;
    assert_eq!(again["result"], "unprovisioned: 1 component, nothing to change");
}

/// A secret of a target is in no answer and no log, also if the database refuses it.
#[tokio::test]
async fn refused_database_password_is_not_disclosed() {
    let url = PostgresServer::shared().unwrap().new_database().unwrap();
    let (scheme, rest) = url.split_once("://").unwrap();
    let (user, host) = rest.split_once('@').unwrap();
    let user = user.split(':').next().unwrap();
    let config = "[operations]\nretry_for = \"1ms\"\n[targets.PG]\ndriver = \"postgresql\"\nurl = { env = \"PG_URL\" }\n\
                  [[routes]]\ngroup = \"postgresql\"\n";
    let wrong = format!("{scheme}://{user}:canary-password@{host}");
    let server = Landfall::with().config(config).env("PG_URL", &wrong).start();
    let request =
        component_request(&replace_once(&product(), "version: 1.0.0\nenv", "version: 1.0.1\nenv"), STORAGE);
    let status = server.api().run("/v1/provision", &request).await;
    assert_eq!(status["status"], "FAILED", "{status:#}");
    assert!(!status.to_string().contains("canary"), "{status:#}");
    assert!(!server.log().contains("canary-password"), "{}", server.log());
}
