mod databases;
mod outages;
mod refusals;
mod sources;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::OnceLock;

use serde_json::json;

use super::*;
use crate::postgres_server::{Durability, PostgresServer, query};
use landfall_adapter::AccessList;
use landfall_adapter::access::Ref;
use landfall_adapter::conformance::{self, Case, Subject};
use landfall_adapter::descriptor::Object;
use landfall_adapter::error::Kind;
use landfall_adapter::import::Updates;
use landfall_adapter::testing::{self, Directly, work as work_of};

const ORDERS: &str = include_str!("../examples/orders.yaml");
const INVALID: &str = include_str!("../examples/invalid.yaml");
const STORAGE: &str = "urn:dmb:cmp:sales:orders:1:storage";
const VIEW: &str = "urn:dmb:cmp:sales:orders:1:recent-orders";
const TABLE: &str = "urn:dmb:cmp:sales:orders:1:daily-totals";
const STORAGE_SCHEMA: &str = "sales__orders__1__storage__production";
const PORT_SCHEMA: &str = "sales__orders__1__production";
const PASSWORD: &str = "of-a-person";

/// A server with the principals of the tests: alice and bob, carol through the group `developers`, and the owner.
fn server() -> &'static PostgresServer {
    static READY: OnceLock<()> = OnceLock::new();
    let server = PostgresServer::shared().unwrap();
    READY.get_or_init(|| people(server));
    server
}

fn people(server: &PostgresServer) {
    for name in ["alice@example.com", "bob@example.com", "carol@example.com", "john.smith@example.com"] {
        server.psql(&format!("CREATE ROLE \"{name}\" LOGIN PASSWORD '{PASSWORD}'")).unwrap();
    }
    server.psql("CREATE ROLE developers").unwrap();
    server.psql("GRANT developers TO \"carol@example.com\"").unwrap();
}

fn settings(url: &str) -> PostgresqlSettings {
    PostgresqlSettings {
        target: "PG_MAIN".to_owned(),
        url: Secret::new(url),
        connections: 4,
        connect_timeout: Duration::from_secs(10),
        statement_timeout: Duration::from_secs(60),
        lock_timeout: Duration::from_secs(10),
        count_timeout: Duration::from_secs(5),
        directory: Directory::default(),
    }
}

/// A new database, and the technology that connects to it as a role without superuser rights.
struct Target {
    technology: Postgresql,
    /// A server of its own, for a test that creates more than one database.
    own: Option<PostgresServer>,
    database: String,
}

impl Target {
    fn fresh() -> Self {
        Self::on(None)
    }

    fn alone() -> Self {
        let own = PostgresServer::start(Durability::Fast).unwrap();
        people(&own);
        Self::on(Some(own))
    }

    fn server(&self) -> &PostgresServer {
        self.own.as_ref().unwrap_or_else(|| server())
    }

    fn on(own: Option<PostgresServer>) -> Self {
        let server = own.as_ref().unwrap_or_else(|| server());
        let (url, database) = server.new_target().unwrap();
        Self { technology: Postgresql::new(settings(&url)), own, database }
    }

    /// The URL of the database for another role.
    fn url_of(&self, user: &str) -> String {
        let user = user.replace('@', "%40");
        format!("postgres://{user}:{PASSWORD}@127.0.0.1:{}/{}", self.server().port(), self.database)
    }

    fn as_superuser(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.server().psql_in(&self.database, sql).unwrap()
    }

    /// Runs statements as the role of the target, which is temporarily a member of the components' roles. Since
    /// PostgreSQL 16, only the grantor can revoke a grant.
    fn as_landfall(&self, sql: &str) {
        let all = |what: &str| {
            format!(
                "DO $$ DECLARE r name; BEGIN FOR r IN SELECT rolname FROM pg_roles \
                 WHERE shobj_description(oid, 'pg_authid') LIKE '%landfall {{%\"{}\"%' AND rolname LIKE '%owner%' \
                 LOOP EXECUTE format('{what} CURRENT_USER', r); END LOOP; END $$",
                self.database
            )
        };
        let sql = format!("{}; {sql}; {}", all("GRANT %I TO"), all("REVOKE %I FROM"));
        query(self.technology.0.settings.url.expose(), &sql).unwrap();
    }

    fn version(&self) -> u32 {
        self.column("SHOW server_version_num")[0].parse().unwrap()
    }

    fn column(&self, sql: &str) -> Vec<String> {
        self.as_superuser(sql).into_iter().map(|row| row[0].clone().unwrap_or_default()).collect()
    }

    async fn plan(&self, work: &Work, intent: Intent) -> Result<Plan> {
        self.technology.plan(work, &intent, &Context::default()).await
    }

    /// Plans and applies; returns the changes, one line each.
    async fn run(&self, work: &Work, intent: Intent) -> Vec<String> {
        let context = Context::default();
        assert_eq!(self.technology.check(work, &intent), []);
        let plan = self.plan(work, intent).await.unwrap_or_else(|error| panic!("{}", error.report()));
        let mut done = Vec::new();
        for change in &plan.changes {
            let applied = self.technology.apply(work, change, &context).await;
            assert!(applied.is_ok(), "{}: {}", change.summary, applied.unwrap_err().report());
            done.push(format!("{}: {}", change.action.name(), change.summary));
        }
        if let Ok(again) = self.plan(work, intent).await {
            assert_eq!(again.changes, [], "one pass is enough");
        }
        done
    }

    async fn provision(&self, work: &Work) -> Vec<String> {
        self.run(work, Intent::Provision).await
    }

    async fn refused(&self, work: &Work, intent: Intent) -> String {
        let error = self.plan(work, intent).await.unwrap_err();
        match error.kind() {
            Kind::Invalid(problems) => {
                problems.iter().map(Problem::with_remedy).collect::<Vec<_>>().join("\n")
            }
            _ => error.to_string(),
        }
    }

    /// Whether a user that logs in may read the relation.
    fn reads(&self, user: &str, relation: &str) -> bool {
        match query(&self.url_of(user), &format!("SELECT * FROM {relation}")) {
            Ok(_) => true,
            Err(error) if error.contains("permission denied") => false,
            Err(error) => panic!("{user}: {error}"),
        }
    }

    /// All objects, one line each, without the facts that differ between databases.
    fn everything(&self) -> Vec<String> {
        let mut lines = self.everything_in(&self.database);
        let owned =
            "SELECT datname FROM pg_database WHERE shobj_description(oid, 'pg_database') LIKE '%landfall {%'";
        for database in self.column(owned).iter().filter(|_| self.own.is_some()) {
            let comment = format!(
                "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{database}'"
            );
            lines.push(format!("database {database} {:?}", self.column(&comment)));
            lines.extend(self.everything_in(database));
        }
        lines
    }

    fn everything_in(&self, database: &str) -> Vec<String> {
        const SYSTEM: &str =
            "n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'public')";
        let acl = |kind: &str, name: &str, acl: &str, from: &str| {
            format!(
                "SELECT concat_ws(' ', '{kind} grant', {name}, coalesce(r.rolname, 'PUBLIC'), a.privilege_type, \
                 a.is_grantable) FROM {from}, aclexplode({acl}) a LEFT JOIN pg_roles r ON r.oid = a.grantee"
            )
        };
        let classes = format!(
            "(SELECT c.*, n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                               WHERE {SYSTEM}) c"
        );
        let parts = [
            format!(
                "SELECT concat_ws(' ', 'schema', n.nspname, pg_get_userbyid(n.nspowner), \
                 obj_description(n.oid, 'pg_namespace')) FROM pg_namespace n WHERE {SYSTEM}"
            ),
            acl(
                "schema",
                "n.nspname",
                "n.nspacl",
                &format!("(SELECT * FROM pg_namespace n WHERE {SYSTEM}) n"),
            ),
            format!(
                "SELECT concat_ws(' ', 'relation', c.nspname, c.relname, c.relkind, pg_get_userbyid(c.relowner), \
                 obj_description(c.oid, 'pg_class'), CASE WHEN c.relkind = 'v' THEN pg_get_viewdef(c.oid) END) \
                 FROM {classes}"
            ),
            acl("relation", "c.relname", "c.relacl", &classes),
            format!(
                "SELECT concat_ws(' ', 'column', c.relname, t.attname, format_type(t.atttypid, t.atttypmod), \
                 t.attnotnull, col_description(c.oid, t.attnum), t.attacl) \
                 FROM {classes} JOIN pg_attribute t ON t.attrelid = c.oid AND t.attnum > 0 AND NOT t.attisdropped"
            ),
            format!(
                "SELECT concat_ws(' ', 'constraint', c.relname, k.contype, pg_get_constraintdef(k.oid)) \
                 FROM {classes} JOIN pg_constraint k ON k.conrelid = c.oid"
            ),
            format!(
                "SELECT concat_ws(' ', 'role', r.rolname, r.rolcanlogin, shobj_description(r.oid, 'pg_authid')) \
                 FROM pg_roles r WHERE shobj_description(r.oid, 'pg_authid') LIKE '%\"database\":\"{}\"%'",
                database
            ),
            format!(
                "SELECT concat_ws(' ', 'member', r.rolname, m.rolname, am.admin_option) FROM pg_auth_members am \
                 JOIN pg_roles r ON r.oid = am.roleid JOIN pg_roles m ON m.oid = am.member \
                 WHERE shobj_description(r.oid, 'pg_authid') LIKE '%\"database\":\"{}\"%'",
                database
            ),
            acl("default", "pg_get_userbyid(d.defaclrole)", "d.defaclacl", "pg_default_acl d"),
            format!(
                "SELECT concat_ws(' ', 'database', d.datacl::text) FROM pg_database d WHERE d.datname = '{}'",
                database
            ),
        ];
        let sql = format!("SELECT q FROM ({}) AS x(q)", parts.join(" UNION ALL "));
        let lines = self.server().psql_in(database, &sql).unwrap();
        let lines = lines.into_iter().map(|row| row[0].clone().unwrap_or_default());
        let mut names = vec![(self.database.clone(), "DATABASE".to_owned())];
        for component in [STORAGE, VIEW, TABLE] {
            for kind in ["owner", "reader"] {
                let id = component.parse().unwrap();
                let name = naming::role(database, &id, "production", kind);
                names.push((name, format!("{kind} of {component}")));
            }
        }
        let mut lines: Vec<String> = lines
            .map(|line| names.iter().fold(line, |line, (name, instead)| line.replace(name, instead)))
            .collect();
        lines.sort();
        lines
    }
}

fn work(component: &str) -> Work {
    work_of(ORDERS, component)
}

/// A component of the example with one text replaced.
fn changed(component: &str, replacements: &[(&str, &str)]) -> Work {
    let mut text = ORDERS.to_owned();
    for (from, to) in replacements {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    work_of(&text, component)
}

fn with_access(work: &Work, refs: &[&str]) -> Work {
    let mut refs: Vec<Ref> = refs.iter().map(|text| Ref::parse(text).unwrap()).collect();
    refs.sort();
    Work { access: Some(AccessList { refs, fields: Object::new() }), ..work.clone() }
}

const KEEP: Intent = Intent::Unprovision { remove_data: false };
const PURGE: Intent = Intent::Unprovision { remove_data: true };

struct Conforming<const CASE: usize>(Target);

#[async_trait]
impl<const CASE: usize> Subject for Conforming<CASE> {
    async fn fresh() -> Self {
        if CASE == 3 {
            return Self(Target::alone());
        }
        let target = Target::fresh();
        if CASE == 1 {
            target.provision(&work(STORAGE)).await;
        }
        Self(target)
    }

    fn technology(&self) -> &dyn landfall_adapter::any::AnyTechnology {
        &self.0.technology
    }

    fn cases(&self) -> Vec<Case> {
        let storage = changed(
            STORAGE,
            &[
                ("Where the orders pipeline writes", "Where orders are"),
                ("dataLength: 40, constraint: NOT_NULL", "dataLength: 80"),
                (
                    "{name: amount, dataType: DECIMAL, precision: 10",
                    "{name: sum, dataType: DECIMAL, precision: 12",
                ),
                (
                    "            - {name: email, dataType: STRING, constraint: UNIQUE}",
                    "            - {name: email, dataType: STRING, constraint: NOT_NULL}\n            - {name: phone, dataType: STRING, constraint: UNIQUE, description: With the country}\n        - name: third\n          columns: [{name: a, dataType: INT}]",
                ),
                (
                    "          description: One row for each order\n",
                    "          renameColumns: {amount: sum}\n          allowDropColumns: true\n",
                ),
                (
                    "            - {name: ordered_at, dataType: TIMESTAMPZ, description: When the order came in}\n",
                    "",
                ),
            ],
        );
        let view = changed(
            VIEW,
            &[
                ("The orders that consumers see", "Orders; \"for\" '''consumers'''"),
                ("        - {name: customer, dataType: STRING}\n", ""),
                ("columns: {order_id: id}", "columns: {order_id: id, who: customer}"),
                (
                    "        - {name: order_id, ",
                    "        - {name: who, dataType: VARCHAR, dataLength: 40}\n        - {name: order_id, ",
                ),
            ],
        );
        let table = changed(
            TABLE,
            &[
                (
                    "{name: orders, dataType: INT, description",
                    "{name: orders, dataType: BIGINT, constraint: UNIQUE, description",
                ),
                ("precision: 14, scale: 2, constraint: NOT_NULL", "precision: 14, scale: 2"),
            ],
        );
        let own = changed(
            STORAGE,
            &[("      tables:", "      level: database\n      database: own\n      tables:")],
        );
        let mut own_changed = own.clone();
        own_changed.component = Arc::clone(&storage.component);
        let specific = &mut Arc::make_mut(&mut own_changed.component).specific;
        specific.insert("level".to_owned(), json!("database"));
        specific.insert("database".to_owned(), json!("own"));
        let all = [(work(STORAGE), storage), (work(VIEW), view), (work(TABLE), table), (own, own_changed)];
        let (work, changed) = all.into_iter().nth(CASE).unwrap();
        vec![Case { work, changed: Some(changed) }]
    }

    async fn observe(&self) -> Value {
        json!(self.0.everything())
    }

    async fn granted(&self, work: &Work) -> BTreeSet<String> {
        let database = if CASE == 3 { "own" } else { &self.0.database };
        let role = naming::role(database, &work.component.id, &work.environment, "reader");
        let members = self.0.column(&format!(
            "SELECT m.rolname FROM pg_auth_members am JOIN pg_roles m ON m.oid = am.member \
             JOIN pg_roles r ON r.oid = am.roleid WHERE r.rolname = '{role}' AND m.rolname <> '{}'",
            // Since PostgreSQL 16, the creator of a role is a member of it, but does not have its rights.
            self.0.database
        ));
        members
            .into_iter()
            .map(|name| match name.split_once('@') {
                Some((name, domain)) => format!("user:{name}_{domain}"),
                None => format!("group:{name}"),
            })
            .collect()
    }

    async fn occupy(&self, work: &Work) -> bool {
        if CASE == 3 {
            // Created by Landfall, but without a mark of this component.
            self.0.as_superuser(&format!("CREATE DATABASE own OWNER {}", self.0.database));
            return true;
        }
        if work.component.kind == ComponentKind::Storage {
            self.0.as_superuser(&format!("CREATE SCHEMA {STORAGE_SCHEMA}"));
            return true;
        }
        // The schema belongs to the data product; only the table in it does not.
        let other = if work.component.id.as_str() == VIEW { TABLE } else { VIEW };
        if other == VIEW {
            self.0.provision(&self::work(STORAGE)).await;
        }
        self.0.provision(&self::work(other)).await;
        let name = naming::relation(&work.product.id, &work.component.id);
        self.0.as_superuser(&format!("CREATE TABLE {PORT_SCHEMA}.{name} (theirs int)"));
        true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storage_area_conforms() {
    conformance::conforms::<Conforming<0>>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_conforms() {
    conformance::conforms::<Conforming<3>>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_conforms() {
    conformance::conforms::<Conforming<1>>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_conforms() {
    conformance::conforms::<Conforming<2>>().await;
}

const ALICE: &str = "user:alice_example.com";
const BOB: &str = "user:bob_example.com";
const DEVELOPERS: &str = "group:developers";

/// Which of alice, bob and carol may read the output port, tested by login.
fn readers(target: &Target) -> Vec<&'static str> {
    let people = ["alice", "bob", "carol"];
    let relation = format!("{PORT_SCHEMA}.daily_totals");
    people.into_iter().filter(|name| target.reads(&format!("{name}@example.com"), &relation)).collect()
}

/// A session that stays open.
async fn session_of(target: &Target, user: &str) -> tokio_postgres::Client {
    let (client, connection) =
        tokio_postgres::connect(&target.url_of(user), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_listed_principals_can_read() {
    let target = Target::fresh();
    let port = work(TABLE);
    target.provision(&port).await;
    assert_eq!(readers(&target), [""; 0]);
    let update = async |refs: &[&str]| target.run(&with_access(&port, refs), Intent::UpdateAccess).await;

    assert_eq!(update(&[ALICE]).await, ["grant: grant read access to `alice@example.com`"]);
    assert_eq!(readers(&target), ["alice"]);
    // Add and preserve; carol is one of the developers.
    assert_eq!(update(&[ALICE, BOB, DEVELOPERS]).await.len(), 1);
    assert_eq!(readers(&target), ["alice", "bob", "carol"]);
    assert_eq!(update(&[ALICE, BOB, DEVELOPERS]).await, [""; 0], "a repeat changes nothing");

    // Access ends for a session that is open, even in the middle of a transaction.
    let bob = session_of(&target, "bob@example.com").await;
    let select = format!("SELECT * FROM {PORT_SCHEMA}.daily_totals");
    bob.batch_execute("BEGIN").await.unwrap();
    bob.batch_execute(&select).await.unwrap();
    assert_eq!(update(&[ALICE, DEVELOPERS]).await, ["revoke: revoke read access from `bob@example.com`"]);
    let error = bob.batch_execute(&select).await.unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("permission denied"), "{error}");
    assert_eq!(readers(&target), ["alice", "carol"]);

    // Replaced: the revocation runs first.
    assert_eq!(
        update(&[BOB]).await,
        [
            "revoke: revoke read access from `alice@example.com`, `developers`",
            "grant: grant read access to `bob@example.com`"
        ]
    );
    assert_eq!(readers(&target), ["bob"]);
    update(&[]).await;
    assert_eq!(readers(&target), [""; 0]);
    assert_eq!(update(&[]).await, [""; 0]);

    // Readers may only read. Since 16 they cannot become the role, which would keep access after a revocation.
    update(&[ALICE]).await;
    let role = naming::role(&target.database, &port.component.id, "production", "reader");
    let became = query(&target.url_of("alice@example.com"), &format!("SET ROLE {role}"));
    assert_eq!(became.is_ok(), target.version() < 160_000, "{became:?}");
    let alice = session_of(&target, "alice@example.com").await;
    for forbidden in [
        format!("INSERT INTO {PORT_SCHEMA}.daily_totals VALUES (now(), 1, 1)"),
        format!("DROP TABLE {PORT_SCHEMA}.daily_totals"),
        format!("CREATE TABLE {PORT_SCHEMA}.mine (a int)"),
        format!("COMMENT ON TABLE {PORT_SCHEMA}.daily_totals IS 'mine'"),
    ] {
        assert!(alice.batch_execute(&forbidden).await.is_err(), "{forbidden}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_refs_block_grants_but_no_revocations() {
    let target = Target::fresh();
    let port = work(TABLE);
    target.provision(&with_access(&port, &[ALICE])).await;
    let asked =
        with_access(&port, &[BOB, "user:nobody_example.com", "group:nowhere", "group:pg_read_all_data"]);
    let plan = target.plan(&asked, Intent::UpdateAccess).await.unwrap();
    let context = Context::default();
    assert_eq!(plan.changes.len(), 1);
    target.technology.apply(&asked, &plan.changes[0], &context).await.unwrap();
    let named: Vec<_> = plan.unmet.iter().map(|problem| problem.to_string()).collect();
    assert_eq!(
        named,
        [
            "refs: no access was granted: there is no role `nobody@example.com` in PostgreSQL: \
             `user:nobody_example.com`",
            "refs: no access was granted: there is no role `nowhere` in PostgreSQL: `group:nowhere`",
            "refs: no access was granted: the role `pg_read_all_data` is PostgreSQL's own: \
             `group:pg_read_all_data`",
        ]
    );
    assert_eq!(readers(&target), [""; 0], "alice is out, and bob is not in");
    // The readers of one component cannot become readers of another.
    let reader = naming::role(&target.database, &port.component.id, "production", "reader");
    let others = with_access(&work(STORAGE), &[&format!("group:{reader}")]);
    target.run(&work(STORAGE), Intent::Provision).await;
    let plan = target.plan(&others, Intent::UpdateAccess).await.unwrap();
    assert!(plan.notes[0].contains("Landfall's own"), "{:?}", plan.notes);
    // A provisioning restores the remaining readers, and reports the unknown ones.
    let again = with_access(&port, &[BOB, "user:nobody_example.com"]);
    target.provision(&again).await;
    assert_eq!(readers(&target), ["bob"]);
    let plan = target.plan(&again, Intent::Provision).await.unwrap();
    assert!(plan.notes.iter().any(|note| note.contains("`user:nobody_example.com` cannot be found")));
}

/// With the default identity only the form of a name is checked, and PostgreSQL decides whether the role exists.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bare_names_mean_the_existing_role() {
    let target = Target::fresh();
    let port = work(TABLE);
    target.provision(&port).await;
    let bare = with_access(&port, &["alice_example.com", "developers", DEVELOPERS, ALICE]);
    assert_eq!(
        target.run(&bare, Intent::UpdateAccess).await,
        [
            "grant: grant read access to `alice@example.com`, `developers`: `alice_example.com` is resolved as the user \
             `alice@example.com`, `developers` is resolved as the role `developers`"
        ]
    );
    assert_eq!(readers(&target), ["alice", "carol"], "by logging in");
    let again = target.plan(&bare, Intent::UpdateAccess).await.unwrap();
    assert_eq!(again.changes, [], "a repeat changes nothing");
    assert_eq!(
        again.notes,
        [
            "`alice_example.com` is resolved as the user `alice@example.com`",
            "`developers` is resolved as the role `developers`"
        ]
    );
    assert_eq!(target.run(&with_access(&port, &[ALICE, DEVELOPERS]), Intent::UpdateAccess).await, [""; 0]);

    // Both spellings exist as roles: the ref is refused, and roles that are not listed are revoked first.
    target.as_superuser("CREATE ROLE \"twin@example.com\"; CREATE ROLE \"twin_example.com\"");
    let asked = with_access(&port, &["twin_example.com", "nobody_example.com", BOB]);
    let plan = target.plan(&asked, Intent::UpdateAccess).await.unwrap();
    let context = Context::default();
    target.technology.apply(&asked, &plan.changes[0], &context).await.unwrap();
    assert_eq!(readers(&target), [""; 0], "revoked, whatever cannot be found");
    assert_eq!(plan.changes.len(), 1);
    let told: Vec<_> = plan.unmet.iter().map(Problem::with_remedy).collect();
    let revoked = "what was to be revoked is revoked";
    assert_eq!(
        told,
        [
            format!(
                "refs: no access was granted: as a user: there is no role `nobody@example.com` in PostgreSQL; as a \
                 group: there is no role `nobody_example.com` in PostgreSQL: `nobody_example.com`; write \
                 `user:nobody_example.com` or `group:nobody_example.com`, have the user or the group made, or leave the \
                 ref out; {revoked}"
            ),
            format!(
                "refs: no access was granted: there is a role for it as a user and another as a group: write \
                 `user:twin_example.com` or `group:twin_example.com`: `twin_example.com`; write \
                 `user:twin_example.com` or `group:twin_example.com`, have the user or the group made, or leave the \
                 ref out; {revoked}"
            ),
        ]
    );
    assert_eq!(readers(&target), [""; 0]);
    target.as_superuser("DROP ROLE \"twin@example.com\"; DROP ROLE \"twin_example.com\"");

    // A bare owner is looked up the same way.
    let owned = changed(TABLE, &[("user:john.smith_example.com", "bob_example.com")]);
    target.provision(&with_access(&owned, &[])).await;
    let plan = target.plan(&with_access(&owned, &[]), Intent::Provision).await.unwrap();
    let note = "the owner `bob_example.com` is resolved as the user `bob@example.com`";
    assert!(plan.notes.contains(&note.to_owned()), "{:?}", plan.notes);
    assert_eq!(readers(&target), ["bob"], "as an owner");
}

/// If the directory does not answer, no role is revoked, and the run is tried again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bare_names_wait_for_a_directory_that_is_away() {
    let target = Target::fresh();
    let port = work(TABLE);
    target.provision(&with_access(&port, &[ALICE])).await;
    let mut settings = target.technology.0.settings.clone();
    let file = std::path::PathBuf::from("/nowhere/people.yaml");
    let table = landfall_adapter::access::Table::new(landfall_adapter::access::TableSettings { file });
    settings.directory = Directory::new(vec![Arc::new(table)]);
    let technology = Postgresql::new(settings);
    let asked = with_access(&port, &["bob_example.com"]);
    let error = technology.plan(&asked, &Intent::UpdateAccess, &Context::default()).await.unwrap_err();
    assert!(error.is_retryable(), "{}", error.report());
    assert_eq!(readers(&target), ["alice"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_and_foreign_grants_stay_and_managed_ones_come_back() {
    let target = Target::fresh();
    let port = work(TABLE);
    let listed = with_access(&port, &[ALICE, DEVELOPERS]);
    target.provision(&listed).await;
    let relation = format!("{PORT_SCHEMA}.daily_totals");
    let reader = naming::role(&target.database, &port.component.id, "production", "reader");
    assert!(target.reads("john.smith@example.com", &relation), "the owner of the data product");
    let foreign = [
        format!("GRANT USAGE ON SCHEMA {PORT_SCHEMA} TO \"bob@example.com\""),
        format!("GRANT SELECT ON {relation} TO \"bob@example.com\""),
        format!("GRANT {reader} TO \"carol@example.com\""),
    ];
    foreign.iter().for_each(|sql| drop(target.as_superuser(sql)));
    target.run(&with_access(&port, &[]), Intent::UpdateAccess).await;
    assert!(target.reads("john.smith@example.com", &relation));
    assert_eq!(readers(&target), ["bob", "carol"], "by the grants of another role");

    // A plan reports grants of other roles, and revokes them only with `repair`.
    let plan = target.plan(&with_access(&port, &[]), Intent::Provision).await.unwrap();
    assert_eq!(plan.changes, []);
    let of_others: Vec<_> =
        plan.notes.iter().filter(|note| note.starts_with("granted by another role")).collect();
    assert_eq!(of_others.len(), 2, "{:?}", plan.notes);
    let repairing = changed(TABLE, &[("      kind: table", "      kind: table\n      repair: true")]);
    let done = target.provision(&with_access(&repairing, &[])).await;
    assert_eq!(done.len(), 1, "{done:?}");
    assert!(done[0].starts_with("revoke: take away what others granted:"), "{done:?}");
    if target.version() >= 160_000 {
        // Only the role that granted the membership to carol can revoke it, and the note says so.
        assert_eq!(readers(&target), ["carol"]);
        let plan = target.plan(&with_access(&repairing, &[]), Intent::Provision).await.unwrap();
        assert!(
            plan.notes.iter().any(|note| note.contains("only `fixture` can revoke that")),
            "{:?}",
            plan.notes
        );
        target.as_superuser(&format!("REVOKE {reader} FROM \"carol@example.com\""));
    }
    assert_eq!(readers(&target), [""; 0]);

    // Provisioning and updateacl give the same access list.
    target.provision(&listed).await;
    for intent in [KEEP, PURGE] {
        target.run(&listed, intent).await;
        let roles = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'daily_totals%' AND \
                     shobj_description(oid, 'pg_authid') LIKE '%\"' || current_database() || '\"%'";
        // Kept data needs an owner.
        assert_eq!(target.column(roles), [if intent == KEEP { "1" } else { "0" }]);
        if intent == KEEP {
            assert!(!target.reads("alice@example.com", &relation));
        }
        target.provision(&listed).await;
        assert_eq!(readers(&target), ["alice", "carol"]);
        assert!(target.reads("john.smith@example.com", &relation));
    }
}

/// Access control fields are free text: they are kept and shown, and have no effect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_control_fields_are_kept_and_shown() {
    let target = Target::fresh();
    let mut listed = with_access(&work(TABLE), &[ALICE]);
    let fields = json!({ "where": "'; DROP TABLE x; --", "deep": [{ "\\": "landfall {}" }] });
    listed.access.as_mut().unwrap().fields = fields.as_object().unwrap().clone();
    target.provision(&work(TABLE)).await;
    let done = target.run(&listed, Intent::UpdateAccess).await;
    assert_eq!(done.len(), 2);
    let info = target.technology.describe(&listed, &Context::default()).await.unwrap();
    assert_eq!(info.private["accessControlFields"], fields);
    assert_eq!(info.private["readers"], json!(["alice@example.com"]));
    assert!(!json!(info.public).to_string().contains("alice"));
    assert_eq!(target.run(&listed, Intent::UpdateAccess).await, [""; 0]);
}

/// The connection details in the public info work with psql.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psql_command_of_the_info_works() {
    let target = Target::fresh();
    target.provision(&work(STORAGE)).await;
    target.as_superuser(&format!(
        "INSERT INTO {STORAGE_SCHEMA}.orders VALUES (1, 'c', 2.5, '2024-02-29T12:00:00Z', '[]'), (2, 'd', 1, NULL, NULL)"
    ));
    let port = with_access(&work(VIEW), &[ALICE]);
    target.provision(&port).await;
    let info = target.technology.describe(&port, &Context::default()).await.unwrap();
    let value = |key: &str| info.public[key]["value"].as_str().unwrap().to_owned();
    assert_eq!(value("address"), format!("jdbc:postgresql:{}?currentSchema={PORT_SCHEMA}", target.database));
    assert_eq!((value("schema"), value("object")), (PORT_SCHEMA.to_owned(), "recent_orders".to_owned()));
    assert_eq!(
        (value("rowCount"), value("freshness")),
        ("2".to_owned(), "2024-02-29 12:00:00+00".to_owned())
    );
    assert!(!json!(info.public).to_string().contains("127.0.0.1"), "no host in it");
    assert!(!json!(info).to_string().contains(PASSWORD));
    let output = std::process::Command::new("sh")
        .args(["-c", &value("psql")])
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", server().port().to_string())
        .env("PGUSER", "alice@example.com")
        .env("PGPASSWORD", PASSWORD)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("order_id") && text.contains("(2 rows)"), "{text} {:?}", output.stderr);
    // The view lets readers read rows of a table that they may not read directly.
    assert!(!target.reads("alice@example.com", &format!("{STORAGE_SCHEMA}.orders")));
}

const OTHER: &str = "urn:dmb:cmp:finance:other:1:port";

/// A data product with an output port of the given columns and `specific`, both as YAML in flow style.
fn port(columns: &str, specific: &str) -> Work {
    component(OTHER, "outputport", columns, specific)
}

fn component(id: &str, kind: &str, columns: &str, specific: &str) -> Work {
    let text = format!(
        "{{id: 'urn:dmb:dp:finance:other:1', name: Other, version: 1.0.0, kind: dataproduct, environment: development,
          domain: finance, dataProductOwner: 'user:a_b.com', devGroup: dev, components: [{{id: '{id}',
          name: Port, version: 1.0.0, kind: {kind}, infrastructureTemplateId: 'urn:dmb:itm:x:1',
          useCaseTemplateId: 'urn:dmb:utm:x:1', dataContract: {{schema: {columns}}}, specific: {specific}}}]}}"
    );
    work_of(&text, id)
}

const OTHER_TABLE: &str = "finance__other__1__development.port";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_follow_their_contract() {
    let target = Target::fresh();
    let first = "[{name: id, dataType: INT, constraint: PRIMARY_KEY}, {name: a, dataType: VARCHAR, dataLength: 3}, \
                 {name: b, dataType: DECIMAL, precision: 5, scale: 2}, {name: c, dataType: STRING, constraint: UNIQUE}]";
    target.provision(&port(first, "{}")).await;
    target.as_superuser(&format!(
        "INSERT INTO {OTHER_TABLE} VALUES (1, 'abc', 123.45, 'x'), (2, NULL, 1, NULL)"
    ));
    let next = "[{name: id, dataType: BIGINT, constraint: PRIMARY_KEY}, {name: aa, dataType: STRING}, \
                {name: b, dataType: DECIMAL, precision: 10, scale: 4, constraint: NOT_NULL, description: Amount}, \
                {name: d, dataType: DATE, description: Day}]";
    let next = port(next, "{renameColumns: {a: aa}, allowDropColumns: true}");
    let planned = target.plan(&next, Intent::Provision).await.unwrap();
    let destructive = planned.changes.iter().filter(|change| change.destructive);
    let destructive: Vec<_> = destructive.map(|change| change.summary.as_str()).collect();
    assert_eq!(
        destructive,
        ["table `port`: drop column `c` with 1 value"],
        "a dropped column is the only loss"
    );
    assert_eq!(
        target.provision(&next).await,
        [
            "alter: table `port`: column `id` from integer to bigint",
            "alter: table `port`: rename column `a` to `aa`",
            "alter: table `port`: column `aa` from character varying(3) to text",
            "alter: table `port`: column `b` from numeric(5,2) to numeric(10,4)",
            "alter: table `port`: column `b` is required",
            "alter: table `port`: add column `d` date",
            "alter: table `port`: drop column `c` with 1 value",
            "alter: update descriptions and tags",
        ]
    );
    let rows = target.as_superuser(&format!("SELECT id, aa, b, d FROM {OTHER_TABLE} ORDER BY id"));
    assert_eq!(
        rows[0],
        ["1", "abc", "123.4500"]
            .map(|text| Some(text.to_owned()))
            .into_iter()
            .chain([None])
            .collect::<Vec<_>>()
    );

    for (columns, specific, expected) in [
        (
            "[{name: id, dataType: BIGINT, constraint: PRIMARY_KEY}, {name: aa, dataType: STRING}, {name: b, dataType: INT}, {name: d, dataType: DATE}]",
            "{}",
            "dataContract.schema[2].dataType: column `b` of `finance__other__1__development.port` is numeric(10,4), and some of its values may not fit integer: `integer`; keep a type that is numeric(10,4), add a column under another name, or publish a new major version of the data product",
        ),
        (
            "[{name: id, dataType: BIGINT, constraint: PRIMARY_KEY}, {name: b, dataType: DECIMAL, precision: 10, scale: 4, constraint: NOT_NULL}, {name: d, dataType: DATE, constraint: NOT_NULL}, {name: e, dataType: DATE, constraint: NOT_NULL}]",
            "{}",
            "dataContract.schema[2].constraint: column `d` cannot be required: 2 rows without a value; fill in the values first, leave the constraint out, or publish a new major version of the data product\n\
             dataContract.schema[3].constraint: column `e` is new and required, but the rows already in `port` have no value for it; add it without a constraint, or publish a new major version of the data product\n\
             dataContract.schema: column `aa` of `finance__other__1__development.port` is missing: dropping it would lose 1 value, and `allowDropColumns` is not true: `aa`; keep the column, give its new name in `renameColumns`, write `allowDropColumns: true`, or publish a new major version of the data product",
        ),
        (
            "[{name: id, dataType: BIGINT}, {name: aa, dataType: STRING, constraint: PRIMARY_KEY}, {name: b, dataType: DECIMAL, precision: 10, scale: 4}, {name: d, dataType: DATE}]",
            "{}",
            "dataContract.schema[1].constraint: column `aa` cannot be required: 1 row without a value; fill in the values first, leave the constraint out, or publish a new major version of the data product\n\
             dataContract.schema: the primary key of `finance__other__1__development.port` cannot change from `id` to `aa`: references to its rows would break; keep the PRIMARY_KEY constraints, or publish a new major version of the data product",
        ),
        (
            "[{name: id, dataType: BIGINT}]",
            "{kind: view, source: {schema: a, name: b}}",
            "specific.source: there is no table or view `a.b`: `a.b`; name a table or view of the same data product, and let the output port depend on its component",
        ),
    ] {
        assert_eq!(target.refused(&port(columns, specific), Intent::Provision).await, expected);
    }
    // Rows that violate a constraint; their values are not in the error.
    target.as_superuser(&format!(
        "INSERT INTO {OTHER_TABLE} VALUES (3, 'secret', 1, NULL), (4, 'secret', 1, NULL)"
    ));
    let unique = port(
        "[{name: id, dataType: BIGINT, constraint: PRIMARY_KEY}, {name: aa, dataType: STRING, constraint: UNIQUE}, {name: b, dataType: DECIMAL, precision: 10, scale: 4, constraint: NOT_NULL, description: Amount}, {name: d, dataType: DATE, description: Day}]",
        "{}",
    );
    let refused = target.refused(&unique, Intent::Provision).await;
    assert_eq!(
        refused,
        "dataContract.schema[1].constraint: column `aa` cannot be unique: 2 rows of a value that another row has, too; make \
         the values differ first, leave the constraint out, or publish a new major version of the data product"
    );
}

/// One column of every kind.
const EVERY_TYPE: &str = "[
  {name: key, dataType: BIGINT, constraint: PRIMARY_KEY, description: the key},
  {name: boolean, dataType: BOOLEAN, constraint: NOT_NULL}, {name: tiny, dataType: TINYINT},
  {name: small, dataType: SMALLINT}, {name: byteint, dataType: BYTEINT}, {name: int, dataType: INT},
  {name: long, dataType: LONG}, {name: float, dataType: FLOAT}, {name: double, dataType: DOUBLE},
  {name: number, dataType: NUMBER}, {name: numeric, dataType: NUMERIC, precision: 10},
  {name: decimal, dataType: DECIMAL, precision: 10, scale: 2}, {name: date, dataType: DATE},
  {name: time, dataType: TIME}, {name: timestamp, dataType: TIMESTAMP}, {name: datetime, dataType: DATETIME},
  {name: timestampz, dataType: TIMESTAMPZ}, {name: string, dataType: STRING, constraint: UNIQUE},
  {name: text, dataType: TEXT}, {name: mediumtext, dataType: MEDIUMTEXT}, {name: point, dataType: POINT},
  {name: char, dataType: CHAR, dataLength: 3}, {name: varchar, dataType: VARCHAR, dataLength: 20,
   tags: [{tagFQN: PII.Sensitive, source: Tag, labelType: Manual}]}, {name: polygon, dataType: POLYGON},
  {name: json, dataType: JSON}, {name: enum, dataType: ENUM}, {name: set, dataType: SET},
  {name: variant, dataType: VARIANT}, {name: union, dataType: UNION, children: [{name: a, dataType: INT}]},
  {name: interval, dataType: INTERVAL}, {name: uuid, dataType: UUID}, {name: binary, dataType: BINARY, dataLength: 2},
  {name: bytes, dataType: BYTES}, {name: varbinary, dataType: VARBINARY, dataLength: 4},
  {name: blob, dataType: BLOB}, {name: mediumblob, dataType: MEDIUMBLOB}, {name: longblob, dataType: LONGBLOB},
  {name: strings, dataType: ARRAY, arrayDataType: STRING},
  {name: decimals, dataType: ARRAY, arrayDataType: DECIMAL, precision: 5, scale: 1},
  {name: structs, dataType: ARRAY, arrayDataType: STRUCT, children: [{name: a, dataType: INT, description: inner,
   constraint: NOT_NULL}, {name: b, dataType: VARCHAR, dataLength: 5, tags: [{tagFQN: A.B}]}]},
  {name: struct, dataType: STRUCT, children: [{name: x, dataType: DATE}, {name: inner, dataType: STRUCT,
   children: [{name: y, dataType: STRING}]}], description: nested},
  {name: map, dataType: MAP, children: [{name: key, dataType: INT}, {name: value, dataType: DOUBLE}]}]";

async fn import(target: &Target, params: Value) -> Result<Object> {
    let import = testing::import("development", &params, &json!({}));
    Ok(target.technology.reverse(&import, &Context::default()).await?.updates(&import).fields)
}

/// The result of an import, put into the descriptor that the table or view was made from, needs no change, in either
/// form of the contract.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_is_provisioned_changes_nothing() {
    let id = "urn:dmb:cmp:sales:shapes:1:port";
    for schema in testing::SCHEMAS {
        let target = Target::fresh();
        let text = testing::port_text(schema);
        target.provision(&work_of(&text, id)).await;
        let before = target.everything();
        let mesh = testing::mesh(&text);
        let product: Value = serde_yaml::from_str(&text).unwrap();
        let wrapped = json!({ "dataProduct": product, "componentIdToProvision": id });
        let mut seen = Vec::new();
        for params in [
            json!({ "table": "port", "database": target.database }),
            json!({ "descriptor": wrapped }),
            json!({ "environmentSpecificConfig": { "specific": { "name": "port" } }, "bucket": "unused" }),
        ] {
            let import = testing::import("production", &params, &mesh);
            let imported = target.technology.reverse(&import, &Context::default()).await.unwrap();
            let Updates { fields, lost } = imported.updates(&import);
            assert_eq!(lost, Vec::<String>::new());
            let again = work_of(&testing::updated(&text, &fields), id);
            assert_eq!(target.technology.check(&again, &Intent::Provision), []);
            assert_eq!(target.plan(&again, Intent::Provision).await.unwrap().changes, [], "{fields:#?}");
            seen.push(fields);
        }
        assert!(seen.iter().all(|fields| *fields == seen[0]), "{seen:#?}");
        let is_odcs = schema.contains("properties");
        let given = &seen[0]["spec.mesh.dataContract.schema"];
        assert_eq!(given[0].get("properties").is_some(), is_odcs, "{given:#}");
        if is_odcs {
            assert_eq!(*given, mesh["dataContract"]["schema"], "nothing changed");
        }
        // The other form of the same table is accepted, too.
        let other = json!({ "dataContract": { "kind": "DataContract", "apiVersion": "v3.1.0" } });
        let other = if is_odcs { json!({}) } else { other };
        let import = testing::import("production", &json!({ "table": "port" }), &other);
        let updates = target.technology.reverse(&import, &Context::default()).await.unwrap().updates(&import);
        assert_eq!(updates.lost, Vec::<String>::new());
        let again = work_of(&testing::updated(&text, &updates.fields), id);
        assert_eq!(
            target.plan(&again, Intent::Provision).await.unwrap().changes,
            [],
            "{:#?}",
            updates.fields
        );
        assert_eq!(target.everything(), before, "nothing was written");
    }
}

/// In an ODCS contract a column may be required and unique, and the primary key has an order of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn import_returns_key_order_and_reports_losses() {
    let target = Target::fresh();
    let id = "urn:dmb:cmp:sales:shapes:1:port";
    let text = testing::port_text(
        "[{name: t, properties: [
           {name: a, logicalType: integer, primaryKey: true, primaryKeyPosition: 2},
           {name: b, logicalType: integer, primaryKey: true, primaryKeyPosition: 1},
           {name: c, logicalType: string, required: true, unique: true}]}]",
    );
    target.provision(&work_of(&text, id)).await;
    let read = async |mesh: &Value| {
        let import = testing::import("production", &json!({ "table": "port" }), mesh);
        target.technology.reverse(&import, &Context::default()).await.unwrap().updates(&import)
    };
    let updates = read(&testing::mesh(&text)).await;
    assert_eq!(
        updates.fields["spec.mesh.dataContract.schema"],
        testing::mesh(&text)["dataContract"]["schema"]
    );
    let empty = read(&json!({ "dataContract": { "kind": "DataContract" } })).await;
    assert_eq!(empty.lost, Vec::<String>::new());
    let properties = &empty.fields["spec.mesh.dataContract.schema"][0]["properties"];
    assert_eq!(
        (&properties[0]["primaryKeyPosition"], &properties[1]["primaryKeyPosition"]),
        (&json!(2), &json!(1))
    );
    let again = work_of(&testing::updated(&text, &empty.fields), id);
    assert_eq!(target.plan(&again, Intent::Provision).await.unwrap().changes, []);
    assert_eq!(
        read(&json!({})).await.lost,
        ["column `c`: that no two rows have the same value", "the order of the primary key: b, a"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_is_imported_and_provisioned_changes_nothing() {
    let target = Target::fresh();
    for component in [STORAGE, VIEW] {
        target.provision(&work(component)).await;
    }
    let view = work(VIEW);
    let updates = import(&target, json!({ "schema": PORT_SCHEMA, "table": "recent_orders" })).await.unwrap();
    assert_eq!(updates["spec.mesh.specific.kind"], "view");
    let mut product: Value = serde_yaml::from_str(ORDERS).unwrap();
    product["components"].as_array_mut().unwrap().retain(|component| component["id"] == VIEW);
    product["components"][0]["dependsOn"] = json!([]);
    let again = work_of(&testing::updated(&product.to_string(), &updates), VIEW);
    assert_eq!(again.component.specific["source"], view.component.specific["source"]);
    assert_eq!(target.technology.check(&again, &Intent::Provision), []);
    assert_eq!(target.plan(&again, Intent::Provision).await.unwrap().changes, []);
}

#[test]
fn import_parameters_are_checked_without_the_server() {
    let nowhere = Postgresql::new(settings("postgres://u:p@127.0.0.1:1/analytics"));
    let long = "n".repeat(64);
    let component = json!({ "dataProduct": { "id": "urn:dmb:dp:sales:orders:1", "components": [
        { "id": TABLE, "specific": { "schema": "elsewhere", "database": "own" } }] }, "componentIdToProvision": TABLE });
    for (params, problems, defaults) in [
        (json!({ "table": false }), vec!["params.table: `table` is a boolean: `false`; use a text; put it in quotes".to_owned()], vec![]),
        (
            json!({ "table": long, "schema": "a\u{0}b" }),
            vec![
                "params.schema: PostgreSQL has no names with a NUL: `a b`; write the name as it is in PostgreSQL".to_owned(),
                format!(
                    "params.table: PostgreSQL has no names of more than 63 bytes: `{long}`; write the name as it is in \
                     PostgreSQL"
                ),
            ],
            vec![],
        ),
        (
            json!({ "table": "t", "environmentSpecificConfig": { "database": "sales" } }),
            vec![
                "params.environmentSpecificConfig.database: imports read the database of the target, `analytics`: `sales`; \
                 leave it out, or name the target of that database in `params.target`"
                    .to_owned(),
            ],
            vec!["`database` is `sales`, from `params.environmentSpecificConfig.database`"],
        ),
        (json!({ "name": "t" }), vec!["params.table: `table` is missing; add `table` to `params`".to_owned()], vec![]),
        (
            json!({ "descriptor": component }),
            vec![],
            vec![
                "`schema` is `elsewhere`, from `specific` of the descriptor",
                "`table` is `daily_totals`, from the ids in the descriptor",
            ],
        ),
    ] {
        let import = testing::import("production", &params, &json!({}));
        let mut read = import.params();
        nowhere.check_import(&mut read);
        let checked = read.finish();
        let told: Vec<_> = checked.problems.iter().map(Problem::with_remedy).collect();
        assert_eq!(told, problems, "{params}");
        assert_eq!(checked.defaults, defaults, "{params}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_comes_back_as_it_was_declared() {
    let target = Target::fresh();
    target.provision(&port(EVERY_TYPE, "{}")).await;
    let before = target.everything();
    let updates = import(&target, json!({ "table": "port" })).await.unwrap();
    let declared: Value = {
        // Parse the list as JSON, because the test does not trust the descriptor's own reader.
        let column = |column: &Column| json!(column.name);
        let work = port(EVERY_TYPE, "{}");
        json!(work.component.data_contract.as_ref().unwrap().schema.iter().map(column).collect::<Vec<_>>())
    };
    let columns = updates["spec.mesh.dataContract.schema"].as_array().unwrap();
    assert_eq!(json!(columns.iter().map(|column| &column["name"]).collect::<Vec<_>>()), declared);
    // The imported contract, declared again, changes nothing.
    let again = port(&json!(columns).to_string(), "{}");
    assert_eq!(target.plan(&again, Intent::Provision).await.unwrap().changes, []);
    let first = port(EVERY_TYPE, "{}");
    let schema = |work: &Work| work.component.data_contract.clone().unwrap().schema;
    assert_eq!(schema(&first), schema(&again));
    assert_eq!(
        updates.keys().collect::<Vec<_>>(),
        [
            "spec.mesh.dataContract.schema",
            "spec.mesh.specific.kind",
            "spec.mesh.specific.name",
            "spec.mesh.specific.schema",
        ]
    );
    assert_eq!(target.everything(), before, "nothing was written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_others_can_be_imported() {
    let target = Target::fresh();
    for sql in [
        "CREATE SCHEMA \"Their's\"",
        "CREATE TYPE \"Their's\".mood AS ENUM ('good', 'bad')",
        "CREATE DOMAIN \"Their's\".amount AS numeric(9,3) CHECK (VALUE > 0)",
        "CREATE TABLE \"Their's\".\"T\" (id serial PRIMARY KEY, mood \"Their's\".mood, moods \"Their's\".mood[], \
           amount \"Their's\".amount NOT NULL, host inet DEFAULT '10.0.0.1', at time with time zone, \
           v varchar, j json, secret text DEFAULT 'hunter2' UNIQUE)",
        "COMMENT ON TABLE \"Their's\".\"T\" IS 'Not ours'",
        "COMMENT ON COLUMN \"Their's\".\"T\".host IS 'Where'",
        "CREATE VIEW public.\"T\" AS SELECT 'hunter2'::text AS password",
    ] {
        target.as_superuser(sql);
    }
    let updates = import(&target, json!({ "table": "T", "schema": "Their's" })).await.unwrap();
    assert_eq!(
        json!(updates),
        json!({
            "spec.mesh.dataContract.schema": [
                { "name": "id", "dataType": "INT", "constraint": "PRIMARY_KEY" },
                { "name": "mood", "dataType": "ENUM" },
                { "name": "moods", "dataType": "ARRAY", "arrayDataType": "ENUM" },
                { "name": "amount", "dataType": "DECIMAL", "precision": 9, "scale": 3, "constraint": "NOT_NULL" },
                { "name": "host", "dataType": "STRING", "description": "Where" },
                { "name": "at", "dataType": "TIME" },
                { "name": "v", "dataType": "TEXT" },
                { "name": "j", "dataType": "JSON" },
                { "name": "secret", "dataType": "TEXT", "constraint": "UNIQUE" },
            ],
            "spec.mesh.description": "Not ours",
            "spec.mesh.specific.kind": "table",
            "spec.mesh.specific.name": "T",
            "spec.mesh.specific.schema": "Their's",
        })
    );
    assert!(!json!(updates).to_string().contains("hunter2"));
    for (params, expected) in [
        (
            json!({ "table": "T" }),
            "2 tables are called `T`: say which one with `schema`, one of `Their's`, `public`",
        ),
        (json!({ "table": "t" }), "there is no table or view `t`: there are `Their's.T`, `public.T`"),
        (json!({ "table": "t", "schema": "x" }), "there is no table or view `x.t`: there is none at all"),
        (json!({ "tabel": "T" }), "params.table: `table` is missing"),
    ] {
        assert_eq!(import(&target, params).await.unwrap_err().to_string(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repairs_changes_by_others() {
    let target = Target::fresh();
    let listed = |component: &str| with_access(&work(component), &[ALICE]);
    for component in [STORAGE, VIEW, TABLE] {
        target.provision(&listed(component)).await;
    }
    let (reader, owner) = (
        naming::role(&target.database, &VIEW.parse().unwrap(), "production", "reader"),
        naming::role(&target.database, &TABLE.parse().unwrap(), "production", "owner"),
    );
    let before = target.everything();
    for (component, sql, planned) in [
        (TABLE, format!("ALTER TABLE {PORT_SCHEMA}.daily_totals DROP COLUMN orders"), "add column `orders`"),
        (
            TABLE,
            format!("ALTER TABLE {PORT_SCHEMA}.daily_totals ALTER total DROP NOT NULL"),
            "`total` is required",
        ),
        (TABLE, format!("COMMENT ON COLUMN {PORT_SCHEMA}.daily_totals.orders IS 'x'"), "update descriptions"),
        (
            TABLE,
            format!("REVOKE \"{owner}\" FROM \"john.smith@example.com\""),
            "make `john.smith@example.com` its owners",
        ),
        (VIEW, format!("REVOKE SELECT ON {PORT_SCHEMA}.recent_orders FROM \"{reader}\""), "grant the roles"),
        (
            VIEW,
            format!("REVOKE \"{reader}\" FROM \"alice@example.com\""),
            "grant read access to `alice@example.com`",
        ),
        (VIEW, format!("DROP ROLE \"{reader}\""), ""),
        (VIEW, format!("DROP VIEW {PORT_SCHEMA}.recent_orders"), "create view `recent_orders`"),
        (
            VIEW,
            format!(
                "CREATE OR REPLACE VIEW {PORT_SCHEMA}.recent_orders AS SELECT id AS order_id, \
                     customer::text AS customer, amount::numeric(12,2) AS amount, ordered_at FROM {STORAGE_SCHEMA}.orders WHERE id < 10"
            ),
            "it was changed outside of Landfall",
        ),
        (STORAGE, format!("DROP TABLE {STORAGE_SCHEMA}.customers"), "create table `customers`"),
        (STORAGE, format!("ALTER SCHEMA {STORAGE_SCHEMA} OWNER TO {}", target.database), "give the roles"),
    ] {
        if planned.is_empty() {
            // PostgreSQL refuses to drop a role that holds grants.
            assert!(server().psql_in(&target.database, &sql).is_err());
            continue;
        }
        if sql.starts_with("REVOKE") {
            target.as_landfall(&sql)
        } else {
            drop(target.as_superuser(&sql))
        }
        let plan = target.plan(&listed(component), Intent::Provision).await.unwrap();
        assert!(plan.changes.iter().any(|change| change.summary.contains(planned)), "{sql}: {plan:#?}");
        target.provision(&listed(component)).await;
        let column_moved = sql.contains("DROP COLUMN");
        if !column_moved {
            assert_eq!(target.everything(), before, "{sql}");
        }
    }
    assert!(target.reads("alice@example.com", &format!("{PORT_SCHEMA}.recent_orders")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuilt_view_keeps_its_grants_and_nothing_is_cascaded() {
    let target = Target::fresh();
    target.provision(&work(STORAGE)).await;
    target.provision(&with_access(&work(VIEW), &[ALICE])).await;
    let view = format!("{PORT_SCHEMA}.recent_orders");
    for sql in [
        format!("GRANT USAGE ON SCHEMA {PORT_SCHEMA} TO \"bob@example.com\""),
        format!("GRANT SELECT ON {view} TO \"bob@example.com\" WITH GRANT OPTION"),
        format!("GRANT SELECT (order_id, amount) ON {view} TO developers"),
    ] {
        target.as_superuser(&sql);
    }
    let narrower = changed(VIEW, &[("        - {name: customer, dataType: STRING}\n", "")]);
    let done = target.provision(&with_access(&narrower, &[ALICE])).await;
    assert_eq!(done, ["create: rebuild view `recent_orders` with its grants: follow the contract"]);
    assert!(target.reads("alice@example.com", &view) && target.reads("bob@example.com", &view));
    let acl = target.column(&format!(
        "SELECT privilege_type || is_grantable FROM pg_class, aclexplode(relacl) a JOIN pg_roles r ON r.oid = a.grantee \
         WHERE pg_class.oid = '{view}'::regclass AND rolname = 'bob@example.com'"
    ));
    assert_eq!(acl, ["SELECTtrue"]);
    let columns = target.column(&format!(
        "SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = '{view}'::regclass AND attacl IS NOT NULL"
    ));
    assert_eq!(columns, ["order_id,amount"]);

    // A view of another role depends on it: columns may be added at the end, and everything else is refused.
    target.as_superuser(&format!("CREATE VIEW public.theirs AS SELECT * FROM {view}"));
    let wider = changed(
        VIEW,
        &[
            ("        - {name: customer, dataType: STRING}\n", ""),
            (
                "        - {name: ordered_at, dataType: TIMESTAMPZ}\n",
                "        - {name: ordered_at, dataType: TIMESTAMPZ}\n        - {name: items, dataType: JSON}\n",
            ),
        ],
    );
    assert_eq!(target.provision(&wider).await, ["create: view `recent_orders`: follow the contract"]);
    let refused = target.refused(&work(VIEW), Intent::Provision).await;
    assert!(refused.contains("`public.theirs` reads it"), "{refused}");
    // A purge keeps the view, too, and a note says so.
    target.run(&work(VIEW), PURGE).await;
    let plan = target.plan(&work(VIEW), PURGE).await.unwrap();
    assert_eq!(plan.notes, [format!("`public.theirs` depends on `{view}`: it stays, and its data")]);
    // The owner of the kept view is a role without other rights.
    let read = server().psql_in(&target.database, "SELECT count(*) FROM public.theirs").unwrap_err();
    assert!(read.contains("permission denied for table orders"), "{read}");
    target.as_superuser("DROP VIEW public.theirs");
    target.run(&work(VIEW), PURGE).await;
    assert_eq!(target.column(&format!("SELECT to_regclass('{view}')")), [""]);
}

/// A column becomes wider although an output port reads it; a view of another role prevents the change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn widens_a_column_under_a_view() {
    let target = Target::fresh();
    target.provision(&work(STORAGE)).await;
    target.provision(&with_access(&work(VIEW), &[ALICE])).await;
    let view = format!("{PORT_SCHEMA}.recent_orders");
    target.as_superuser(&format!("GRANT SELECT (amount) ON {view} TO developers"));
    target.as_superuser(&format!("INSERT INTO {STORAGE_SCHEMA}.orders VALUES (1, 'c', 2.5)"));
    let before = target.everything();
    let wider =
        changed(STORAGE, &[("dataLength: 40, constraint: NOT_NULL", "dataLength: 80, constraint: NOT_NULL")]);
    let done = target.provision(&wider).await;
    assert_eq!(
        done,
        [
            "alter: table `orders`: column `customer` from character varying(40) to character varying(80), and the \
             views on it are recreated with their grants",
        ]
    );
    let after: Vec<String> =
        target.everything().into_iter().map(|line| line.replace("varying(80)", "varying(40)")).collect();
    assert_eq!(after, before, "nothing else changed");
    assert!(target.reads("alice@example.com", &view));
    assert_eq!(
        target.plan(&with_access(&work(VIEW), &[ALICE]), Intent::Provision).await.unwrap().changes,
        []
    );

    target
        .as_superuser(&format!("CREATE VIEW public.theirs AS SELECT customer FROM {STORAGE_SCHEMA}.orders"));
    let widest = changed(
        STORAGE,
        &[(
            "dataType: VARCHAR, dataLength: 40, constraint: NOT_NULL",
            "dataType: STRING, constraint: NOT_NULL",
        )],
    );
    let refused = target.refused(&widest, Intent::Provision).await;
    assert!(refused.contains("cannot get another type: it is used by view"), "{refused}");
    assert!(refused.contains("view `public.theirs`"), "{refused}");
    assert_eq!(target.column("SELECT count(*) FROM public.theirs"), ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_reads_its_own_data_product_only() {
    let target = Target::fresh();
    target.provision(&work(STORAGE)).await;
    target.as_superuser("CREATE SCHEMA hr");
    target.as_superuser("CREATE TABLE hr.salaries (id bigint, amount numeric)");
    target.as_superuser("GRANT ALL ON SCHEMA hr TO PUBLIC");
    target.as_superuser("GRANT ALL ON hr.salaries TO PUBLIC");
    for source in ["{schema: hr, name: salaries}", "{schema: pg_catalog, name: pg_authid}"] {
        let thief = port("[{name: id, dataType: BIGINT}]", &format!("{{kind: view, source: {source}}}"));
        let refused = target.refused(&thief, Intent::Provision).await;
        assert!(refused.contains("does not belong to data product"), "{refused}");
    }
    let thief = format!("{{kind: view, source: {{schema: {STORAGE_SCHEMA}, name: orders}}}}");
    let refused = target.refused(&port("[{name: id, dataType: BIGINT}]", &thief), Intent::Provision).await;
    assert!(refused.contains("does not belong to data product `urn:dmb:dp:finance:other:1`"), "{refused}");
    // Only columns that exist, with their type. A component that comes after others is planned all the same, because
    // they may create what is missing, and none of its changes runs before they have.
    let wrong = changed(
        VIEW,
        &[
            ("dataType: TIMESTAMPZ}\n    specific", "dataType: DATE}\n    specific"),
            ("columns: {order_id: id}", "columns: {order_id: no}"),
        ],
    );
    let early = Target::fresh();
    for (target, work, expected) in [
        (
            &target,
            wrong,
            format!(
                "specific.columns.order_id: `{STORAGE_SCHEMA}.orders` has no column `no`: `no`; use one of `id`, \
                 `customer`, `amount`, `ordered_at`, `items`\n\
                 dataContract.schema[3].dataType: column `ordered_at` of `{STORAGE_SCHEMA}.orders` is timestamp with time \
                 zone, and some of its values may not fit date: `date`; use a type that is timestamp with time zone in \
                 PostgreSQL, or a wider one"
            ),
        ),
        (
            &early,
            work(VIEW),
            format!(
                "specific.source: there is no table or view `{STORAGE_SCHEMA}.orders`: `{STORAGE_SCHEMA}.orders`; name a \
                 table or view of the same data product, and let the output port depend on its component"
            ),
        ),
    ] {
        let before = target.everything();
        let plan = target.plan(&work, Intent::Provision).await.unwrap();
        let said: Vec<_> =
            plan.notes.iter().filter_map(|note| note.strip_prefix("as things are now: ")).collect();
        assert_eq!(said.join("\n"), expected);
        for change in &plan.changes {
            let error = target.technology.apply(&work, change, &Context::default()).await.unwrap_err();
            let Kind::Invalid(problems) = error.kind() else { panic!("{}", error.report()) };
            let lines: Vec<_> = problems.iter().map(Problem::with_remedy).collect();
            assert_eq!(lines.join("\n"), expected);
        }
        assert_eq!(target.everything(), before);
    }
    early.provision(&work(STORAGE)).await;
    early.provision(&work(VIEW)).await;
}

/// The tables of workloads are deleted with the data; objects of other roles, and objects that others depend on, are
/// kept. An opaque id does not name its data product: the mark does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_that_name_no_product_read_their_own_only() {
    let of = |product: &str, id: &str, kind: &str, specific: &str| {
        let text = format!(
            "{{id: '{product}', name: Other, version: 0.1.0, environment: development, components: [{{id: '{id}',
              name: Port, kind: {kind}, specific: {specific}, dataContract: {{schema: [{{name: id, dataType: INT}}]}}}}]}}"
        );
        work_of(&text, id)
    };
    let tables = "{schema: area, tables: [{name: orders, columns: [{name: id, dataType: INT}]}]}";
    let view = "{kind: view, source: {schema: area, name: orders}}";
    for (mine, area, port, theirs, thief) in [
        ("my system", "raw area", "orders view", "their system", "orders view 2"),
        // The area has the name of a component of the other data product.
        (
            "urn:dmb:dp:sales:mine:0",
            "urn:dmb:cmp:sales:theirs:0:raw",
            "urn:dmb:cmp:sales:mine:0:view",
            "urn:dmb:dp:sales:theirs:0",
            "urn:dmb:cmp:sales:theirs:0:view",
        ),
    ] {
        let target = Target::fresh();
        let storage = of(mine, area, "storage", tables);
        target.provision(&storage).await;
        assert_eq!(target.provision(&storage).await, [""; 0]);
        target.provision(&of(mine, port, "outputport", view)).await;
        let refused = target.refused(&of(theirs, thief, "outputport", view), Intent::Provision).await;
        assert!(refused.contains(&format!("does not belong to data product `{theirs}`")), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purge_reports_objects_that_stay() {
    let target = Target::fresh();
    let storage = with_access(&work(STORAGE), &[ALICE]);
    target.provision(&storage).await;
    let owner = naming::role(&target.database, &STORAGE.parse().unwrap(), "production", "owner");
    // The owner of the data product is a member of the owners' role, and creates objects with it.
    let john = session_of(&target, "john.smith@example.com").await;
    john.batch_execute(&format!(
        "SET ROLE \"{owner}\"; CREATE TABLE {STORAGE_SCHEMA}.raw (a int); CREATE TABLE {STORAGE_SCHEMA}.child (b bigint \
           REFERENCES {STORAGE_SCHEMA}.orders); CREATE VIEW {STORAGE_SCHEMA}.v AS SELECT * FROM {STORAGE_SCHEMA}.raw; \
           CREATE FUNCTION {STORAGE_SCHEMA}.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; \
           CREATE SEQUENCE {STORAGE_SCHEMA}.s; CREATE TYPE {STORAGE_SCHEMA}.t AS ENUM ('x')"
    ))
    .await
    .unwrap();
    assert!(target.reads("alice@example.com", &format!("{STORAGE_SCHEMA}.raw")), "by default privileges");
    // The component is kept, and provisioned again with all its objects.
    let before = target.everything();
    target.run(&storage, KEEP).await;
    assert!(!target.reads("alice@example.com", &format!("{STORAGE_SCHEMA}.raw")));
    target.provision(&storage).await;
    assert_eq!(target.everything(), before);

    target.as_superuser(&format!("CREATE TABLE {STORAGE_SCHEMA}.foreign_table (a int)"));
    target.as_superuser(&format!("CREATE VIEW public.theirs AS SELECT * FROM {STORAGE_SCHEMA}.customers"));
    let plan = target.plan(&storage, PURGE).await.unwrap();
    assert_eq!(
        plan.notes,
        [
            format!("`public.theirs` depends on `{STORAGE_SCHEMA}.customers`: it stays, and its data"),
            format!("`{STORAGE_SCHEMA}.foreign_table` belongs to `fixture`: it stays"),
            format!("schema `{STORAGE_SCHEMA}` is not empty: it stays, and is released"),
        ]
    );
    target.run(&storage, PURGE).await;
    let left = target.column(&format!(
        "SELECT relname FROM pg_class WHERE relnamespace = '{STORAGE_SCHEMA}'::regnamespace AND relkind <> 'i' ORDER BY 1"
    ));
    assert_eq!(left, ["customers", "foreign_table"]);
    assert!(!target.reads("alice@example.com", &format!("{STORAGE_SCHEMA}.customers")));
    target.as_superuser(&format!("DROP VIEW public.theirs; DROP TABLE {STORAGE_SCHEMA}.foreign_table"));
    target.run(&storage, PURGE).await;
    assert_eq!(target.column(&format!("SELECT to_regnamespace('{STORAGE_SCHEMA}')")), [""]);
}

/// Names and texts that reach a statement, with every character that needs quoting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_texts_are_quoted() {
    let target = Target::fresh();
    server().psql("DO $$BEGIN CREATE ROLE \"x\"\";DROP--\" LOGIN PASSWORD 'of-a-person'; EXCEPTION WHEN duplicate_object THEN NULL; END$$").unwrap();
    let before = target.everything();
    let evil = [
        "it's \"quoted\"; DROP SCHEMA public CASCADE; --",
        "select",
        "Größe ☃ 名前",
        "a.b",
        "\\'; SELECT 1; --",
        "$$; DROP TABLE x; $$",
        "%I%s%L {} {{",
        "pad  ded",
        "UPPER",
        "ימין לשמאל",
    ];
    let long = "n".repeat(63);
    let mut names: Vec<&str> = evil.to_vec();
    names.push(&long);
    let columns: Vec<Value> = names
        .iter()
        .map(|name| {
            json!({ "name": name, "dataType": "STRING", "description": format!("{name}\nlandfall {{}}"),
                    "tags": [{ "tagFQN": name, "source": name }] })
        })
        .collect();
    for name in &names {
        let schema = if *name == "select" { "table" } else { name };
        let tables = json!({ "schema": schema, "tables": [{ "name": name, "description": name, "columns": columns,
                             "tags": [{ "tagFQN": name }] }] });
        let mut storage = component("urn:dmb:cmp:finance:other:1:s", "storage", "[]", &tables.to_string());
        let component = Arc::make_mut(&mut storage.component);
        component.description = format!("{name}\n\nlandfall {{\"component\":\"x\",\"environment\":\"y\"}}");
        storage.environment = (*name).to_owned();
        let mut listed = with_access(&storage, &["user:x\";DROP--"]);
        listed.access.as_mut().unwrap().fields = [((*name).to_owned(), json!(name))].into_iter().collect();
        target.provision(&listed).await;
        let from: Object = names.iter().map(|name| (format!("{name}_"), json!(name))).collect();
        let short: Vec<Value> = columns
            .iter()
            .map(|column| {
                let mut column = column.clone();
                column["name"] = json!(format!("{}_", column["name"].as_str().unwrap()));
                column
            })
            .take(evil.len())
            .collect();
        let from: Object = from.into_iter().take(evil.len()).collect();
        let view = json!({ "schema": format!("{}2", &schema.get(..schema.len().min(62)).unwrap_or(schema)), "name": name,
                           "kind": "view", "source": { "schema": schema, "name": name }, "columns": from });
        let mut view = port(&json!(short).to_string(), &view.to_string());
        view.environment = (*name).to_owned();
        let view = with_access(&view, &["user:x\";DROP--"]);
        target.provision(&view).await;
        let info = target.technology.describe(&view, &Context::default()).await.unwrap();
        let command = info.public["psql"]["value"].as_str().unwrap();
        let output = std::process::Command::new("sh")
            .args(["-c", command])
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", server().port().to_string())
            .env("PGUSER", "x\";DROP--")
            .env("PGPASSWORD", PASSWORD)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("(0 rows)"), "{command}: {text} {}", String::from_utf8_lossy(&output.stderr));
        let imported = import(&target, json!({ "schema": schema, "table": name })).await.unwrap();
        let read = imported["spec.mesh.dataContract.schema"].as_array().unwrap();
        assert_eq!(read.len(), columns.len());
        for (read, written) in read.iter().zip(&columns) {
            assert_eq!((&read["name"], &read["tags"]), (&written["name"], &written["tags"]));
            assert_eq!(read["description"].as_str(), written["description"].as_str().map(str::trim));
        }
        assert_eq!(imported["spec.mesh.description"], name.trim());
        for (work, intent) in
            [(&view, KEEP), (&listed, KEEP), (&listed, Intent::Provision), (&view, PURGE), (&listed, PURGE)]
        {
            target.run(work, intent).await;
        }
        assert_eq!(target.everything(), before, "{name}");
    }
}

/// Names that are longer than PostgreSQL allows, and equal up to that length.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_names_stay_distinct() {
    let target = Target::fresh();
    let columns = "[{name: a, dataType: INT}]";
    let long = "n".repeat(200);
    let mut all = Vec::new();
    for last in ["a", "b"] {
        let id = format!("urn:dmb:cmp:finance:other:1:{long}{last}");
        all.push(with_access(&component(&id, "outputport", columns, "{}"), &[ALICE]));
        all.push(with_access(&component(&id.replace(":nn", ":s-nn"), "storage", "[]", "{}"), &[ALICE]));
    }
    for work in &all {
        assert_ne!(target.provision(work).await, [""; 0]);
    }
    let roles = target.column(
        "SELECT count(*) FROM pg_roles WHERE \
        shobj_description(oid, 'pg_authid') LIKE '%\"database\":\"' || current_database() || '\"%'",
    );
    assert_eq!(roles, ["8"]);
    let too_long = port(columns, &format!("{{name: {long}}}"));
    let problems = target.technology.check(&too_long, &Intent::Provision);
    assert!(
        problems[0].to_string().starts_with("specific.name: the name is longer than 63 bytes"),
        "{problems:?}"
    );
    let unknown = with_access(&all[0], &[&format!("group:{long}")]);
    let plan = target.plan(&unknown, Intent::UpdateAccess).await.unwrap();
    assert!(plan.notes[0].contains("the name is longer than 63 bytes"), "{:?}", plan.notes);
}

/// Landfall's quoting equals the server's.
#[test]
fn quoting_agrees_with_the_server() {
    use proptest::strategy::{Strategy, ValueTree};
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let text = proptest::string::string_regex("[a-z_ \"'\\\\$%;.\u{0}éß名☃A-Z0-9\n-]{0,20}").unwrap();
    let mut texts: Vec<String> = (0..300).map(|_| text.new_tree(&mut runner).unwrap().current()).collect();
    texts.extend(["select", "user", "a\"b", "'", "\\", "\\'", "E'", "U&\"x\""].map(str::to_owned));
    let rows: Vec<String> = texts
        .iter()
        .map(|text| {
            let plain = text.replace('\0', "");
            let bytes: String = plain.bytes().map(|byte| format!("{byte:02x}")).collect();
            format!(
                "(convert_from('\\x{bytes}'::bytea, 'UTF8'), {}, {})",
                sql::literal(text),
                sql::literal(&sql::ident(text))
            )
        })
        .collect();
    let wrong = server()
        .psql(&format!(
            "SELECT * FROM (VALUES {}) AS x(given, literal, ident) WHERE given <> literal \
             OR ident NOT IN (quote_ident(given), '\"' || quote_ident(given) || '\"')",
            rows.join(", ")
        ))
        .unwrap();
    assert_eq!(wrong, [[None::<String>; 0]; 0]);
}

/// A sleep in every statement that changes a schema.
fn slow_down(target: &Target) {
    target.as_superuser(
        "CREATE FUNCTION public.slow() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(600); END'",
    );
    target.as_superuser("CREATE EVENT TRIGGER slow ON ddl_command_start EXECUTE FUNCTION public.slow()");
}

fn sleeping(target: &Target) -> String {
    let sql =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    target.column(sql).remove(0)
}

async fn until(target: &Target, count: &str) {
    let end = std::time::Instant::now() + Duration::from_secs(30);
    while sleeping(target) != count {
        assert!(std::time::Instant::now() < end, "no {count} statements are under way");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_the_statement_on_the_server() {
    let target = Target::fresh();
    let before = target.everything();
    slow_down(&target);
    let port = work(TABLE);
    let plan = target.plan(&port, Intent::Provision).await.unwrap();
    let context = Context::default();
    let (applied, ()) = tokio::join!(target.technology.apply(&port, &plan.changes[0], &context), async {
        until(&target, "1").await;
        context.cancel.cancel();
    });
    assert_eq!(*applied.unwrap_err().kind(), Kind::Cancelled);
    assert_eq!(sleeping(&target), "0");
    // A run that is dropped leaves nothing behind either.
    let context = Context::default();
    tokio::select! {
        _ = target.technology.apply(&port, &plan.changes[0], &context) => panic!("it takes ten minutes"),
        () = until(&target, "1") => {}
    }
    until(&target, "0").await;
    target.as_superuser("DROP EVENT TRIGGER slow");
    target.as_superuser("DROP FUNCTION public.slow()");
    assert_eq!(target.everything(), before);
    target.provision(&port).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_statements_are_retried_later() {
    let target = Target::fresh();
    let port = work(TABLE);
    target.provision(&port).await;
    let url = server().new_database().unwrap();
    let mut impatient = settings(&url);
    impatient.url = Secret::new(target.technology.0.settings.url.expose().to_owned());
    impatient.lock_timeout = Duration::from_millis(100);
    let technology = Postgresql::new(impatient);
    let wider = changed(TABLE, &[("{name: orders, dataType: INT", "{name: orders, dataType: BIGINT")]);
    let plan = technology.plan(&wider, &Intent::Provision, &Context::default()).await.unwrap();
    let owner = session_of(&target, "john.smith@example.com").await;
    owner.batch_execute(&format!("BEGIN; LOCK TABLE {PORT_SCHEMA}.daily_totals")).await.unwrap();
    let error = technology.apply(&wider, &plan.changes[0], &Context::default()).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("lock_timeout"), "{}", error.report());
    owner.batch_execute("ROLLBACK").await.unwrap();
    technology.apply(&wider, &plan.changes[0], &Context::default()).await.unwrap();
    // A server that is down is a transient failure, and so is a wrong password; no error contains the password.
    let mut nowhere = settings("postgres://u:p@127.0.0.1:1/d");
    let error = Postgresql::new(nowhere.clone()).plan(&port, &PURGE, &Context::default()).await.unwrap_err();
    assert!(error.is_retryable(), "{}", error.report());
    nowhere.url = Secret::new(target.url_of("alice@example.com").replace(PASSWORD, "wrong"));
    let error = Postgresql::new(nowhere).plan(&port, &PURGE, &Context::default()).await.unwrap_err();
    assert_eq!(*error.kind(), Kind::Retryable, "{}", error.report());
    assert!(!error.report().contains("wrong"), "{}", error.report());
}

/// Several processes work on one component at the same time: each succeeds or fails with an error that is retryable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simultaneous_runs_of_a_component_succeed_or_retry() {
    let target = Target::fresh();
    let provision = async |work: Work| {
        let technology = Postgresql::new(target.technology.0.settings.clone());
        for _ in 0..20 {
            let context = Context::default();
            let plan = technology.plan(&work, &Intent::Provision, &context).await.unwrap();
            let mut again = false;
            for change in &plan.changes {
                if let Err(error) = technology.apply(&work, change, &context).await {
                    assert!(error.is_retryable(), "{}", error.report());
                    again = true;
                    break;
                }
            }
            if !again {
                return;
            }
        }
        panic!("it never ends");
    };
    let second =
        component("urn:dmb:cmp:finance:other:1:second", "outputport", "[{name: a, dataType: INT}]", "{}");
    tokio::join!(
        provision(with_access(&work(TABLE), &[ALICE])),
        provision(with_access(&work(TABLE), &[ALICE])),
        provision(with_access(&work(STORAGE), &[BOB])),
        provision(with_access(&work(STORAGE), &[BOB])),
        provision(second),
        provision(port("[{name: a, dataType: INT}]", "{}")),
    );
    assert_eq!(
        target.plan(&with_access(&work(TABLE), &[ALICE]), Intent::Provision).await.unwrap().changes,
        []
    );
    assert!(target.reads("alice@example.com", &format!("{PORT_SCHEMA}.daily_totals")));
}

/// Output ports grant on the same schema, table and database at the same time, which PostgreSQL refuses without
/// locks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_ports_of_a_data_product_run_in_parallel() {
    let target = Target::fresh();
    target.server().psql(&format!("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", target.database)).unwrap();
    let columns = "[{name: a, dataType: INT}]";
    let id = |name: String| format!("urn:dmb:cmp:finance:other:1:{name}");
    let tables = "{schema: src, tables: [{name: t, columns: [{name: a, dataType: INT}]}]}";
    let storage = component(&id("storage".to_owned()), "storage", "[]", tables);
    target.provision(&storage).await;
    let view = "{kind: view, source: {schema: src, name: t}}";
    let works: Vec<Work> = (0..12)
        .map(|number| {
            let specific = if number % 2 == 0 { "{}" } else { view };
            component(&id(format!("port-{number}")), "outputport", columns, specific)
        })
        .map(|work| with_access(&work, &[ALICE, BOB]))
        .collect();
    let before = target.everything();
    for intent in [Intent::Provision, Intent::UpdateAccess, KEEP, Intent::Provision, PURGE] {
        let all = works.iter().map(async |work| {
            let technology = Postgresql::new(target.technology.0.settings.clone());
            let context = Context::default();
            let plan = technology.plan(work, &intent, &context).await.unwrap();
            for change in &plan.changes {
                let applied = technology.apply(work, change, &context).await;
                assert!(applied.is_ok(), "{}: {}", change.summary, applied.unwrap_err().report());
            }
            assert_eq!(technology.plan(work, &intent, &context).await.unwrap().changes, []);
        });
        futures::future::join_all(all).await;
        if intent == Intent::Provision {
            for number in 0..12 {
                assert!(
                    target
                        .reads("alice@example.com", &format!("finance__other__1__development.port_{number}"))
                );
            }
        }
        // No membership outlives the change that needs it.
        let member = format!(
            "SELECT count(*) FROM pg_auth_members WHERE member = '{}'::regrole AND grantor = member",
            target.database
        );
        assert_eq!(target.column(&member), ["0"], "{intent:?}");
    }
    assert_eq!(target.everything(), before);
}

#[test]
fn invalid_components_get_every_problem() {
    let technology = Postgresql::new(settings("postgres://u@localhost/d"));
    let mut said = String::new();
    for last in ["storage", "view", "table"] {
        let work = work_of(INVALID, &format!("urn:dmb:cmp:sales:wrong:1:{last}"));
        said.push_str(&format!("{last}\n"));
        for problem in technology.check(&work, &Intent::Provision) {
            said.push_str(&format!("  {}\n", problem.with_remedy()));
        }
    }
    assert_eq!(said, include_str!("../examples/invalid.expected.txt"), "{said}");
}

#[test]
fn problems_of_columns_have_their_original_paths() {
    let technology = Postgresql::new(settings("postgres://u@localhost/d"));
    let mut work = work_of(landfall_adapter::testing::CASHFLOW, landfall_adapter::testing::STORAGE);
    let specific = r#"{"tables": [{"name": "t", "columns": [
        {"name": "a", "dataType": "ARRAY<GEOGRAPHY>"}, {"name": "b", "dataType": "VARCHAR(16777216)"},
        {"name": "c", "dataType": "VARCHAR", "dataLength": 16777216}, {"name": "d", "dataType": "bpchar"},
        {"name": "e", "dataType": "bpchar", "dataLength": 16777216}, {"name": "f", "dataType": "UBIGINT"}]}]}"#;
    Arc::make_mut(&mut work.component).specific = serde_json::from_str(specific).unwrap();
    let mut found: Vec<_> =
        technology.check(&work, &Intent::Provision).iter().map(ToString::to_string).collect();
    found.sort();
    let at = "specific.tables[0].columns";
    assert_eq!(
        found,
        [
            format!("{at}[0].dataType: PostgreSQL has no such type without an extension: `GEOGRAPHY`"),
            format!("{at}[1].dataType: not a length of VARCHAR: `16777216`"),
            format!("{at}[2].dataLength: not a length of VARCHAR: `16777216`"),
            format!("{at}[4].dataLength: not a length of CHAR: `16777216`"),
            format!("{at}[5].dataType: this type has no equal here: `UBIGINT`"),
        ]
    );
}

/// Only provisioning refuses such a name; a component that already has it can be removed.
#[test]
fn refuses_confusable_names() {
    let technology = Postgresql::new(settings("postgres://u@localhost/d"));
    let mut work = work_of(landfall_adapter::testing::CASHFLOW, landfall_adapter::testing::STORAGE);
    let specific = r#"{
        "schema": "fin\u202eance",
        "tables": [{ "name": "a\u200bb", "renameColumns": { "old": "cafe\u0301" },
                     "columns": [{ "name": "\uff41", "dataType": "INT" }] }]
    }"#;
    Arc::make_mut(&mut work.component).specific = serde_json::from_str(specific).unwrap();
    let mut found: Vec<_> =
        technology.check(&work, &Intent::Provision).iter().map(ToString::to_string).collect();
    found.sort();
    let twin = "the name is not in the normal form NFKC, so that another name can look the same";
    assert_eq!(
        found,
        [
            "specific.schema: the name has the direction control U+202E: `fin<U+202E>ance`".to_owned(),
            format!(
                "specific.tables[0].columns[0].name: {twin}: it has U+FF41 where U+0061 is meant: `\u{ff41}`"
            ),
            "specific.tables[0].name: the name has the invisible character U+200B: `a<U+200B>b`".to_owned(),
            format!(
                "specific.tables[0].renameColumns: `cafe\u{301}`: {twin}: it has U+0065 U+0301 where U+00E9 is meant"
            ),
        ]
    );
    assert_eq!(technology.check(&work, &Intent::Unprovision { remove_data: true }), []);
}

/// The statements of crates/technologies/postgresql/README.md that create the role of a target, for a database of
/// this name.
fn bootstrap(role: &str, database: &str) -> Vec<String> {
    const PAGE: &str = include_str!("../README.md");
    let blocks = PAGE.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let sql: String = blocks.collect::<Vec<_>>().join("");
    let sql = sql.replace("landfall", role).replace("analytics", database).replace("choose one", PASSWORD);
    let plain = sql.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n");
    plain.split(';').map(|sql| sql.trim().to_owned()).filter(|sql| !sql.is_empty()).collect()
}

/// The documented statements are sufficient: on a database that Landfall's role owns, and on one of another owner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documented_statements_are_sufficient() {
    for own in [true, false] {
        let (role, database) = (format!("page_role_{own}"), format!("page_database_{own}"));
        let statements = bootstrap(&role, &database);
        assert_eq!(statements.len(), 5, "{statements:?}");
        server().psql(&statements[0]).unwrap();
        if own {
            server().psql(&statements[1]).unwrap();
            server().psql(&statements[2]).unwrap();
        } else {
            server().psql(&format!("CREATE DATABASE {database}")).unwrap();
            server().psql(&statements[2]).unwrap();
            server().psql(&statements[3]).unwrap();
            server().psql(&statements[4]).unwrap();
        }
        server();
        let url = format!("postgres://{role}:{PASSWORD}@127.0.0.1:{}/{database}", server().port());
        let target = Target { technology: Postgresql::new(settings(&url)), own: None, database };
        let before = target.everything();
        let all = [STORAGE, VIEW, TABLE].map(|component| with_access(&work(component), &[ALICE]));
        for work in &all {
            target.provision(work).await;
        }
        assert!(target.reads("alice@example.com", &format!("{PORT_SCHEMA}.recent_orders")));
        let outside = query(&target.url_of("bob@example.com"), "SELECT 1").unwrap_err();
        assert!(outside.contains("permission denied for database"), "{outside}");
        for intent in [KEEP, Intent::Provision, PURGE] {
            for work in all.iter().rev() {
                // A view cannot be created before its source, and here no connection is lost in between.
                if intent == Intent::Provision && work.component.kind == ComponentKind::OutputPort {
                    target.provision(&all[0]).await;
                }
                target.run(work, intent).await;
            }
        }
        assert_eq!(target.everything(), before);
    }
}

/// The server's certificate is verified, and the session is encrypted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_verified() {
    let server = PostgresServer::start(Durability::Fast).unwrap();
    let folder = server.folder().join("data");
    let folder = folder.display();
    let authority = |name: &str| {
        format!(
            "openssl req -x509 -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.crt -days 2 \
               -subj /CN={name} 2>/dev/null"
        )
    };
    let make = format!(
        "cd {folder} && {} && {} && openssl req -x509 -newkey rsa:2048 -nodes -keyout server.key -out server.crt \
           -days 2 -subj /CN=localhost -CA ca.crt -CAkey ca.key -addext subjectAltName=DNS:localhost \
           -addext basicConstraints=critical,CA:FALSE 2>/dev/null && chmod 600 server.key",
        authority("ca"),
        authority("other"),
    );
    server.psql(&format!("COPY (SELECT 1) TO PROGRAM '{make}'")).unwrap();
    server.psql("ALTER SYSTEM SET ssl = on").unwrap();
    let url = server.new_database().unwrap();
    server.psql(&format!("ALTER ROLE {} CREATEROLE", url.rsplit_once('/').unwrap().1)).unwrap();
    server.psql("SELECT pg_reload_conf()").unwrap();
    // The test client must be able to read the certificates, too.
    let certificates = tempfile::tempdir().unwrap();
    for name in ["ca.crt", "other.crt"] {
        let text = server.psql(&format!("SELECT pg_read_file('{folder}/{name}')")).unwrap();
        std::fs::write(certificates.path().join(name), text[0][0].as_deref().unwrap()).unwrap();
    }
    let with = |host: &str, name: &str| {
        let root = certificates.path().join(name);
        let url = url.replace("127.0.0.1", host);
        Postgresql::new(settings(&format!("{url}?sslmode=verify-full&sslrootcert={}", root.display())))
    };
    let port = work(TABLE);
    let outcome = async |technology: &Postgresql| {
        let mut last = None;
        for _ in 0..100 {
            match technology.plan(&port, &Intent::Provision, &Context::default()).await {
                Ok(plan) => return Ok(plan),
                // Until the server has loaded its new configuration.
                Err(error) if error.report().contains("server does not support TLS") => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap())
    };
    let trusted = with("localhost", "ca.crt");
    let plan = outcome(&trusted).await.unwrap();
    for change in &plan.changes {
        trusted.apply(&port, change, &Context::default()).await.unwrap();
    }
    let encrypted = server
        .psql("SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND application_name = 'landfall'")
        .unwrap();
    assert_ne!(encrypted[0][0].as_deref(), Some("0"));
    for (technology, why) in
        [(with("localhost", "other.crt"), "another authority"), (with("127.0.0.1", "ca.crt"), "another name")]
    {
        let error = outcome(&technology).await.unwrap_err();
        assert_eq!(*error.kind(), Kind::Retryable, "{why}");
        assert!(error.to_string().contains("has no trusted certificate"), "{why}: {}", error.report());
    }
    let error = outcome(&with("localhost", "missing.crt")).await.unwrap_err();
    assert!(error.to_string().contains("missing.crt"), "{}", error.report());
}

/// A storage area with a database of its own: only its readers can connect, and objects of other roles stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn database_is_private_and_dropped_only_when_empty() {
    let target = Target::alone();
    let name = "It's \\ \"own\"; --";
    let mut storage = with_access(&work(STORAGE), &[ALICE]);
    let specific = &mut Arc::make_mut(&mut storage.component).specific;
    specific.insert("level".to_owned(), json!("database"));
    specific.insert("database".to_owned(), json!(name));
    let before = target.everything();
    let done = target.provision(&storage).await;
    assert_eq!(done[0], format!("create: create the database `{name}`"));
    let info = target.technology.describe(&storage, &Context::default()).await.unwrap();
    assert_eq!(info.public["database"]["value"], name);
    let output = |user: &str, command: &str| {
        let output = std::process::Command::new("psql")
            .args(["-w", "-d", name, "-c", command])
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", target.server().port().to_string())
            .env("PGUSER", user)
            .env("PGPASSWORD", PASSWORD)
            .output()
            .unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let select = format!("SELECT * FROM {STORAGE_SCHEMA}.orders");
    assert!(output("alice@example.com", &select).contains("(0 rows)"));
    assert!(output("bob@example.com", &select).contains("permission denied for database"));
    for intent in [KEEP, Intent::Provision] {
        target.run(&storage, intent).await;
    }
    assert!(output("alice@example.com", &select).contains("(0 rows)"));
    let owner = naming::role(name, &storage.component.id, "production", "owner");
    let made = output("john.smith@example.com", &format!("SET ROLE {owner}; CREATE SCHEMA owners"));
    assert!(made.contains("CREATE SCHEMA"), "{made}");
    let encoded = name.replace(' ', "%20").replace('"', "%22").replace('\\', "%5C");
    let in_it = |sql: &str| target.server().psql_in(&encoded, sql).unwrap();
    in_it("CREATE SCHEMA theirs");
    target.run(&storage, PURGE).await;
    let plan = target.plan(&storage, PURGE).await.unwrap();
    assert_eq!(plan.notes, [format!("database `{name}` has other schemas: it stays")]);
    assert_eq!(
        in_it("SELECT to_regnamespace('owners')")[0],
        [None],
        "what the owners made went with the data"
    );
    in_it("DROP SCHEMA theirs");
    target.run(&storage, PURGE).await;
    assert_eq!(target.everything(), before);
    // The membership of the target's role is not counted.
    let specific = &mut Arc::make_mut(&mut storage.component).specific;
    specific.insert("database".to_owned(), json!(target.database));
    let problems = target.technology.check(&storage, &Intent::Provision);
    assert!(problems[0].to_string().contains("the database of the target"), "{problems:?}");
}

/// Landfall may do more than the owners of a table. Code that they attach to it must not run as Landfall.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_an_owner_runs_as_landfall() {
    let target = Target::fresh();
    let storage = work(STORAGE);
    target.provision(&storage).await;
    target.provision(&work(VIEW)).await;
    target.as_superuser(&format!("INSERT INTO {STORAGE_SCHEMA}.orders VALUES (1, 'c', 2.5, now())"));
    let role =
        |component: &str| naming::role(&target.database, &component.parse().unwrap(), "production", "owner");
    let john = session_of(&target, "john.smith@example.com").await;
    // In a transaction that may write, the function grants john the rights of Landfall. In any other it leaves
    // session state that a rollback does not remove, for the next transaction of the session.
    john.batch_execute(&format!(
        "SET ROLE \"{owner}\"; CREATE FUNCTION {STORAGE_SCHEMA}.takeover() RETURNS text LANGUAGE plpgsql AS $$BEGIN \
           EXECUTE 'CREATE ROLE \"evil_of_{landfall}\"'; RETURN '{{}}'; END$$; \
         CREATE FUNCTION {STORAGE_SCHEMA}.evil() RETURNS boolean LANGUAGE plpgsql AS $$DECLARE n text; BEGIN \
           IF current_user <> '{landfall}' THEN RETURN true; END IF; \
           IF current_setting('transaction_read_only') = 'off' THEN PERFORM {STORAGE_SCHEMA}.takeover(); END IF; \
           PERFORM pg_advisory_lock(4242), set_config('search_path', '{STORAGE_SCHEMA}', false); \
           FOR n IN SELECT name FROM pg_prepared_statements WHERE parameter_types::text LIKE '%text[]%' LOOP \
             EXECUTE format('DEALLOCATE %I', n); \
             EXECUTE format('PREPARE %I (text, text[], bool, text, text, text, text, text[]) AS \
                             SELECT {STORAGE_SCHEMA}.takeover()', n); \
           END LOOP; RETURN true; END$$; \
         GRANT USAGE ON SCHEMA {STORAGE_SCHEMA} TO PUBLIC",
        owner = role(STORAGE),
        landfall = target.database,
    ))
    .await
    .unwrap();
    let harmless = || {
        let made = target
            .column(&format!("SELECT count(*) FROM pg_roles WHERE rolname = 'evil_of_{}'", target.database));
        assert_eq!(made, ["0"], "it ran as Landfall");
        let held =
            target.column("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4242");
        assert_eq!(held, ["0"]);
    };
    // A policy runs when rows are read.
    let table = format!("{STORAGE_SCHEMA}.orders");
    john.batch_execute(&format!(
        "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; ALTER TABLE {table} FORCE ROW LEVEL SECURITY; \
         CREATE POLICY p ON {table} USING ({STORAGE_SCHEMA}.evil())"
    ))
    .await
    .unwrap();
    let narrower = changed(
        STORAGE,
        &[
            (
                "            - {name: ordered_at, dataType: TIMESTAMPZ, description: When the order came in}\n",
                "",
            ),
            ("          description: One row for each order\n", "          allowDropColumns: true\n"),
        ],
    );
    target.run(&work(VIEW), PURGE).await;
    target.provision(&narrower).await;
    harmless();
    // A check runs when a column is rewritten.
    john.batch_execute(&format!(
        "ALTER TABLE {table} DISABLE ROW LEVEL SECURITY; ALTER TABLE {table} ADD CHECK ({STORAGE_SCHEMA}.evil())"
    ))
    .await
    .unwrap();
    let wider = changed(
        STORAGE,
        &[
            (
                "            - {name: ordered_at, dataType: TIMESTAMPZ, description: When the order came in}\n",
                "",
            ),
            ("          description: One row for each order\n", "          allowDropColumns: true\n"),
            ("precision: 10, scale: 2", "precision: 12, scale: 4"),
        ],
    );
    let refused = target.refused(&wider, Intent::Provision).await;
    assert!(refused.contains("would run as Landfall"), "{refused}");
    // A check of a table that inherits from the component's table.
    john.batch_execute(&format!(
        "ALTER TABLE {table} DROP CONSTRAINT orders_check; \
         CREATE TABLE {STORAGE_SCHEMA}.child (CHECK ({STORAGE_SCHEMA}.evil())) INHERITS ({table})"
    ))
    .await
    .unwrap();
    let refused = target.refused(&wider, Intent::Provision).await;
    assert!(refused.contains("tables that inherit from it"), "{refused}");
    john.batch_execute(&format!("DROP TABLE {STORAGE_SCHEMA}.child")).await.unwrap();
    harmless();
    // The query of a view runs when its rows are counted. The owners can change the query of an output port only with
    // a grant from a superuser.
    john.batch_execute("RESET ROLE").await.unwrap();
    target.provision(&storage).await;
    let view = with_access(&work(VIEW), &[ALICE]);
    target.provision(&view).await;
    target.as_superuser(&format!("GRANT CREATE ON SCHEMA {PORT_SCHEMA} TO \"{}\"", role(VIEW)));
    john.batch_execute(&format!(
        "SET ROLE \"{}\"; CREATE OR REPLACE VIEW {PORT_SCHEMA}.recent_orders AS SELECT id AS order_id, \
         customer::text AS customer, amount::numeric(12,2) AS amount, ordered_at FROM {table} WHERE {STORAGE_SCHEMA}.evil()",
        role(VIEW)
    ))
    .await
    .unwrap();
    let info = target.technology.describe(&view, &Context::default()).await.unwrap();
    assert_eq!(info.public["rowCount"]["value"], "1");
    target.provision(&storage).await;
    target.provision(&work(TABLE)).await;
    harmless();
}

mod privileges;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_shapes_of_a_contract_make_one_table() {
    let target = Target::fresh();
    let [older, odcs] = landfall_adapter::testing::SCHEMAS.map(landfall_adapter::testing::port_of);
    assert!(!target.provision(&older).await.is_empty());
    assert_eq!(target.provision(&odcs).await, [""; 0], "the same table, written otherwise");
}
