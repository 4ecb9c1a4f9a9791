//! Objects that owners and readers create never get Landfall's rights. The assertions read the catalogs, not a list
//! in the tests.

use super::*;

/// One of each kind of object that a role without special rights can make in schema `{s}`, where it may create.
const EVERY_KIND: &[&str] = &[
    "CREATE FUNCTION {s}.{p}attack() RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$BEGIN \
       EXECUTE 'CREATE ROLE {evil}'; RETURN current_user; END$$",
    "CREATE FUNCTION {s}.{p}who() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT current_user::text'",
    "CREATE FUNCTION {s}.{p}fine(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true'",
    "CREATE FUNCTION {s}.{p}trigger() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN NEW; END'",
    "CREATE PROCEDURE {s}.{p}procedure() LANGUAGE sql AS 'SELECT 1'",
    "CREATE AGGREGATE {s}.{p}aggregate(int) (SFUNC = int4pl, STYPE = int)",
    "CREATE SEQUENCE {s}.{p}sequence",
    "CREATE TYPE {s}.{p}enum AS ENUM ('x')",
    "CREATE TYPE {s}.{p}composite AS (a int)",
    "CREATE TYPE {s}.{p}range AS RANGE (subtype = int)",
    "CREATE DOMAIN {s}.{p}domain AS int CHECK ({s}.{p}fine(VALUE))",
    "CREATE TABLE {s}.{p}table (a int CHECK ({s}.{p}fine(a)), b {s}.{p}enum, c bigserial, d {s}.{p}domain, \
       e text DEFAULT {s}.{p}who(), f int DEFAULT nextval('{s}.{p}sequence'), g int GENERATED ALWAYS AS IDENTITY)",
    "CREATE TABLE {s}.{p}parent (a int) PARTITION BY RANGE (a)",
    "CREATE TABLE {s}.{p}child PARTITION OF {s}.{p}parent DEFAULT",
    "CREATE FUNCTION {s}.{p}of_rows({s}.{p}table) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE INDEX ON {s}.{p}table (a) WHERE {s}.{p}fine(a)",
    "CREATE TRIGGER {p}trigger BEFORE INSERT ON {s}.{p}table FOR EACH ROW EXECUTE FUNCTION {s}.{p}trigger()",
    "CREATE RULE {p}rule AS ON UPDATE TO {s}.{p}table DO ALSO SELECT {s}.{p}who()",
    "ALTER TABLE {s}.{p}table ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY {p}policy ON {s}.{p}table USING ({s}.{p}fine(a))",
    "CREATE VIEW {s}.{p}view AS SELECT {s}.{p}who() FROM {s}.{p}table",
    "CREATE MATERIALIZED VIEW {s}.{p}materialized AS SELECT {s}.{p}who() FROM {s}.{p}parent",
    "CREATE STATISTICS {s}.{p}statistics ON (a + 1), a FROM {s}.{p}table",
    "CREATE FUNCTION {s}.{p}same({s}.{p}enum, {s}.{p}enum) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
    "CREATE OPERATOR {s}.~=~ (LEFTARG = {s}.{p}enum, RIGHTARG = {s}.{p}enum, FUNCTION = {s}.{p}same)",
    "CREATE FUNCTION {s}.{p}number({s}.{p}composite) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE CAST ({s}.{p}composite AS int) WITH FUNCTION {s}.{p}number({s}.{p}composite) AS ASSIGNMENT",
    "CREATE COLLATION {s}.{p}collation FROM pg_catalog.\"C\"",
    "CREATE CONVERSION {s}.{p}conversion FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8",
    "CREATE TEXT SEARCH DICTIONARY {s}.{p}dictionary (TEMPLATE = pg_catalog.simple)",
    "CREATE TEXT SEARCH CONFIGURATION {s}.{p}configuration (PARSER = pg_catalog.default)",
    "SELECT lo_create(0)",
    "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC",
    "CREATE FOREIGN TABLE {s}.{p}foreign (a int) SERVER {p}server",
];

/// Objects that need CREATE on the database, or USAGE on a foreign-data wrapper.
const IN_DATABASE: &[&str] = &[
    "CREATE SCHEMA {p}schema",
    "CREATE TABLE {p}schema.t (a int)",
    "CREATE PUBLICATION {p}publication FOR TABLE {p}schema.t",
    "CREATE SERVER {p}server FOREIGN DATA WRAPPER open_wrapper",
    "CREATE USER MAPPING FOR CURRENT_USER SERVER {p}server OPTIONS (password 'x')",
];

fn role_of(target: &Target, component: &str, kind: &str) -> String {
    naming::role(&target.database, &component.parse().unwrap(), "production", kind)
}

/// Lets every role create in `public`, and the given roles in the database.
fn open_up(target: &Target, roles: &[&str]) {
    target.as_superuser("GRANT ALL ON SCHEMA public TO PUBLIC");
    target.as_superuser("CREATE FOREIGN DATA WRAPPER open_wrapper");
    target.as_superuser("GRANT USAGE ON FOREIGN DATA WRAPPER open_wrapper TO PUBLIC");
    for role in roles {
        target.as_superuser(&format!("GRANT CREATE ON DATABASE {} TO \"{role}\"", target.database));
    }
}

/// Creates one object of each kind, after SET ROLE to a role.
async fn make_all(target: &Target, user: &str, role: &str, schema: &str, prefix: &str) {
    let session = session_of(target, user).await;
    session.batch_execute(&format!("SET ROLE \"{role}\"")).await.unwrap();
    for template in IN_DATABASE.iter().chain(EVERY_KIND) {
        let sql = template
            .replace("{s}", schema)
            .replace("{p}", prefix)
            .replace("{evil}", &format!("evil_of_{}", target.database));
        session.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
}

/// The objects of a role, in every database of the server, from the catalogs.
fn owned(target: &Target, role: &str) -> Vec<String> {
    target.column(&format!(
        "SELECT CASE WHEN d.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())) \
           THEN pg_describe_object(d.classid, d.objid, 0) ELSE 'in another database: ' || d.classid::regclass END \
         FROM pg_shdepend d WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = '\"{role}\"'::regrole \
           AND d.deptype = 'o' ORDER BY 1"
    ))
}

fn exists(target: &Target, role: &str) -> bool {
    target.column(&format!("SELECT count(*) FROM pg_roles WHERE rolname = '{role}'")) == ["1"]
}

/// Landfall owns its database and the schemas that output ports share, and no object that runs code.
fn assert_nothing_runs_as_landfall(target: &Target, when: &str) {
    let landfall = &target.database;
    let allowed = [format!("database {landfall}"), format!("schema {PORT_SCHEMA}")];
    let more: Vec<_> =
        owned(target, landfall).into_iter().filter(|object| !allowed.contains(object)).collect();
    assert_eq!(more, [""; 0], "Landfall owns it {when}");
    for (catalog, owner) in [
        ("pg_proc", "proowner"),
        ("pg_class", "relowner"),
        ("pg_type", "typowner"),
        ("pg_operator", "oprowner"),
        ("pg_opclass", "opcowner"),
        ("pg_publication", "pubowner"),
        ("pg_foreign_server", "srvowner"),
        ("pg_event_trigger", "evtowner"),
        ("pg_default_acl", "defaclrole"),
        ("pg_largeobject_metadata", "lomowner"),
        ("pg_statistic_ext", "stxowner"),
    ] {
        let count = format!("SELECT count(*) FROM {catalog} WHERE {owner} = '{landfall}'::regrole");
        assert_eq!(target.column(&count), ["0"], "{catalog} {when}");
    }
    // A caller of a function that was left behind does not get Landfall's rights.
    let definers = target.column(
        "SELECT p.oid::regprocedure FROM pg_proc p WHERE p.prosecdef AND p.proname LIKE '%attack' ORDER BY 1",
    );
    for function in definers {
        target.as_superuser(&format!(
            "GRANT USAGE ON SCHEMA {} TO PUBLIC",
            function.split('.').next().filter(|name| !name.contains('(')).unwrap_or("public")
        ));
        let called = query(&target.url_of("bob@example.com"), &format!("SELECT {function}"));
        let error = called.expect_err("it made a role");
        assert!(error.contains("permission denied to create role"), "{function} {when}: {error}");
    }
    assert!(!exists(target, &format!("evil_of_{landfall}")), "{when}");
}

/// A role of kept data has no login, no members, and rights on its own objects only.
fn assert_rightless(target: &Target, role: &str) {
    let facts = target.column(&format!(
        "SELECT concat_ws(' ', rolcanlogin, rolsuper, rolcreaterole, rolcreatedb, (SELECT count(*) FROM pg_auth_members \
           WHERE roleid = r.oid AND (SELECT rolname FROM pg_roles g WHERE g.oid = member) <> '{}'), \
           (SELECT count(*) FROM pg_auth_members WHERE member = r.oid)) \
         FROM pg_roles r WHERE rolname = '{role}'",
        target.database
    ));
    assert_eq!(facts, ["f f f f 0 0"], "{role}");
    let foreign = target.column(&format!(
        "SELECT pg_describe_object(d.classid, d.objid, 0) FROM pg_shdepend d \
         WHERE d.refobjid = '\"{role}\"'::regrole AND d.deptype = 'a' AND NOT EXISTS (SELECT FROM pg_shdepend o \
           WHERE o.classid = d.classid AND o.objid = d.objid AND o.refobjid = d.refobjid AND o.deptype = 'o')"
    ));
    assert_eq!(foreign, [""; 0], "{role} has rights on what is not its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_owners_never_become_landfalls() {
    let target = Target::fresh();
    let listed = |component: &str| with_access(&work(component), &[ALICE]);
    target.provision(&listed(STORAGE)).await;
    target.provision(&listed(TABLE)).await;
    let (storage, table) = (role_of(&target, STORAGE, "owner"), role_of(&target, TABLE, "owner"));
    open_up(&target, &[&storage, &table]);
    let john = "john.smith@example.com";
    make_all(&target, john, &storage, STORAGE_SCHEMA, "s_").await;
    make_all(&target, john, &table, "public", "p_").await;
    let (in_storage, in_public) = (owned(&target, &storage), owned(&target, &table));
    assert!(in_storage.len() > 35 && in_public.len() > 30, "{in_storage:#?}");
    for round in 0..2 {
        for component in [STORAGE, TABLE] {
            target.run(&listed(component), KEEP).await;
            let when = format!("after keeping {component} in round {round}");
            assert_nothing_runs_as_landfall(&target, &when);
            let role = role_of(&target, component, "owner");
            assert_rightless(&target, &role);
            assert!(!exists(&target, &role_of(&target, component, "reader")));
            assert!(query(&target.url_of(john), &format!("SET ROLE \"{role}\"")).is_err(), "{when}");
            target.provision(&listed(component)).await;
            assert_nothing_runs_as_landfall(&target, "after provisioning again");
            query(&target.url_of(john), &format!("SET ROLE \"{role}\"")).unwrap();
        }
        assert_eq!(
            (owned(&target, &storage), owned(&target, &table)),
            (in_storage.clone(), in_public.clone())
        );
    }
    // From the active component, and from a kept one.
    target.run(&listed(TABLE), KEEP).await;
    for component in [TABLE, STORAGE] {
        target.run(&listed(component), PURGE).await;
        assert_nothing_runs_as_landfall(&target, "after removing the data");
        assert!(!exists(&target, &role_of(&target, component, "owner")));
        assert!(!exists(&target, &role_of(&target, component, "reader")));
    }
    let left = "SELECT relname FROM pg_class WHERE relname ~ '^[ps]_' UNION SELECT proname FROM pg_proc \
                WHERE proname ~ '^[ps]_' UNION SELECT typname FROM pg_type WHERE typname ~ '^_?[ps]_'";
    assert_eq!(target.column(left), [""; 0]);
}

/// On PostgreSQL 15, a reader may become the readers' role; on later releases, only if a superuser allows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_readers_never_become_landfalls() {
    let target = Target::fresh();
    let listed = with_access(&work(TABLE), &[ALICE]);
    target.provision(&listed).await;
    let reader = role_of(&target, TABLE, "reader");
    if target.version() >= 160_000 {
        target
            .as_landfall(&format!("GRANT \"{reader}\" TO \"alice@example.com\" WITH INHERIT TRUE, SET TRUE"));
    }
    open_up(&target, &[&reader]);
    make_all(&target, "alice@example.com", &reader, "public", "r_").await;
    let made = owned(&target, &reader);
    for _ in 0..2 {
        target.run(&listed, KEEP).await;
        assert_nothing_runs_as_landfall(&target, "after keeping");
        assert_eq!(owned(&target, &reader), made);
        assert_rightless(&target, &reader);
        assert!(!target.reads("alice@example.com", &format!("{PORT_SCHEMA}.daily_totals")));
        target.provision(&listed).await;
        assert!(target.reads("alice@example.com", &format!("{PORT_SCHEMA}.daily_totals")));
    }
    target.run(&listed, PURGE).await;
    assert_nothing_runs_as_landfall(&target, "after removing the data");
    assert!(!exists(&target, &reader) && !exists(&target, &role_of(&target, TABLE, "owner")));
}

/// Objects that others depend on stay, owned by a role without members; objects in another database keep their role
/// there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn remaining_objects_belong_to_a_role_without_rights() {
    let target = Target::fresh();
    let storage = with_access(&work(STORAGE), &[ALICE]);
    target.provision(&storage).await;
    let owner = role_of(&target, STORAGE, "owner");
    let john = session_of(&target, "john.smith@example.com").await;
    john.batch_execute(&format!(
        "SET ROLE \"{owner}\"; CREATE FUNCTION {STORAGE_SCHEMA}.f() RETURNS int LANGUAGE sql SECURITY DEFINER \
           AS 'SELECT 1'; CREATE TYPE {STORAGE_SCHEMA}.e AS ENUM ('x'); \
         CREATE TABLE {STORAGE_SCHEMA}.uses (a {STORAGE_SCHEMA}.e, b int DEFAULT {STORAGE_SCHEMA}.f()); \
         CREATE FUNCTION {STORAGE_SCHEMA}.of(r {STORAGE_SCHEMA}.uses) RETURNS int LANGUAGE sql AS 'SELECT 1'"
    ))
    .await
    .unwrap();
    target.as_superuser(&format!("CREATE VIEW public.theirs AS SELECT * FROM {STORAGE_SCHEMA}.uses"));
    let done = target.run(&storage, PURGE).await;
    assert!(done[0].contains("`orders`"), "{done:?}");
    assert_nothing_runs_as_landfall(&target, "after removing what could go");
    assert_rightless(&target, &owner);
    assert_eq!(
        owned(&target, &owner),
        [
            format!("function {STORAGE_SCHEMA}.f()"),
            format!("schema {STORAGE_SCHEMA}"),
            format!("table {STORAGE_SCHEMA}.uses"),
            format!("type {STORAGE_SCHEMA}.e"),
        ]
    );
    let plan = target.plan(&storage, PURGE).await.unwrap();
    assert_eq!(
        plan.notes,
        [
            format!("`public.theirs` depends on `{STORAGE_SCHEMA}.uses`: it stays, and its data"),
            format!("function `{STORAGE_SCHEMA}.f()` is needed by table {STORAGE_SCHEMA}.uses: it stays"),
            format!("type `{STORAGE_SCHEMA}.e` is needed by table {STORAGE_SCHEMA}.uses: it stays"),
            format!("schema `{STORAGE_SCHEMA}` is not empty: it stays, and is released"),
        ]
    );
    // The component is provisioned again, and then deleted when nothing depends on its objects.
    target.provision(&storage).await;
    target.as_superuser("DROP VIEW public.theirs");
    // An object in another database keeps the role, without members.
    let (_, elsewhere) = target.server().new_target().unwrap();
    target.server().psql_in(&elsewhere, &format!("GRANT CREATE ON SCHEMA public TO \"{owner}\"")).unwrap();
    let there = target.url_of("john.smith@example.com").replace(&target.database, &elsewhere);
    query(&there, &format!("SET ROLE \"{owner}\"; CREATE TABLE public.elsewhere (a int)")).unwrap();
    target.run(&storage, PURGE).await;
    let plan = target.plan(&storage, PURGE).await.unwrap();
    assert_eq!(
        plan.notes,
        [format!(
            "role `{owner}` owns or may use something in database `{elsewhere}`: the role stays, without members, until \
             that is gone"
        )]
    );
    assert_eq!(target.column(&format!("SELECT to_regnamespace('{STORAGE_SCHEMA}')")), [""]);
    let members = format!(
        "SELECT count(*) FROM pg_auth_members WHERE roleid = '\"{owner}\"'::regrole AND member <> '{}'::regrole",
        target.database
    );
    assert_eq!(target.column(&members), ["0"]);
    assert_eq!(
        target
            .server()
            .psql_in(&elsewhere, "SELECT relowner::regrole FROM pg_class WHERE relname = 'elsewhere'")
            .unwrap()[0][0],
        Some(owner.clone())
    );
    target.server().psql_in(&elsewhere, "DROP TABLE public.elsewhere").unwrap();
    target.server().psql_in(&elsewhere, &format!("REVOKE CREATE ON SCHEMA public FROM \"{owner}\"")).unwrap();
    // Temporary objects end with their session.
    target.provision(&storage).await;
    john.batch_execute(&format!("RESET ROLE; SET ROLE \"{owner}\"; CREATE TEMP TABLE temporary (a int)"))
        .await
        .unwrap();
    target.run(&storage, KEEP).await;
    target.run(&storage, PURGE).await;
    assert!(!exists(&target, &owner));
}

/// Owners can connect, also if the database is closed to PUBLIC.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_connect_to_a_closed_database() {
    let target = Target::fresh();
    target.as_superuser(&format!("REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC", target.database));
    target.provision(&work(STORAGE)).await;
    target.provision(&work(TABLE)).await;
    let john = target.url_of("john.smith@example.com");
    let owner = role_of(&target, STORAGE, "owner");
    query(&john, &format!("SET ROLE \"{owner}\"; CREATE TABLE {STORAGE_SCHEMA}.mine (a int)")).unwrap();
    target.run(&work(STORAGE), KEEP).await;
    query(&john, "SELECT 1").unwrap();
    target.run(&work(TABLE), PURGE).await;
    let refused = query(&john, "SELECT 1").unwrap_err();
    assert!(refused.contains("permission denied for database"), "{refused}");
    target.provision(&work(STORAGE)).await;
    query(&john, &format!("SET ROLE \"{owner}\"; INSERT INTO {STORAGE_SCHEMA}.mine VALUES (1)")).unwrap();
}

/// The texts of the journal and of a description's result, as a consumer sees them.
async fn described(target: &Target, work: &Work) -> (Object, String) {
    let context = Context::default();
    let info = target.technology.describe(work, &context).await.unwrap();
    let said: Vec<_> = context.journal.drain().into_iter().map(|line| line.message).collect();
    (info.public, said.join("\n"))
}

/// Code of an owner that runs while rows are counted has the rights of a reader, and its messages are not public.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_counted_with_the_rights_of_a_reader() {
    let target = Target::fresh();
    let mut patient = target.technology.0.settings.clone();
    patient.count_timeout = Duration::from_millis(700);
    let target = Target { technology: Postgresql::new(patient), ..target };
    let columns = "[{name: id, dataType: INT, constraint: PRIMARY_KEY}, {name: a, dataType: STRING}]";
    let plain = port(columns, "{rowCount: true, freshness: id}");
    target.provision(&plain).await;
    let owner = naming::role(&target.database, &plain.component.id, "development", "owner");
    target.as_superuser("GRANT ALL ON SCHEMA public TO PUBLIC");
    target.as_superuser(&format!("INSERT INTO {OTHER_TABLE} VALUES (1, 'x'), (2, NULL)"));
    target.as_superuser(&format!("GRANT \"{owner}\" TO \"john.smith@example.com\""));
    let john = session_of(&target, "john.smith@example.com").await;
    let landfall = &target.database;
    let policy = |body: &str| {
        format!(
            "SET ROLE \"{owner}\"; CREATE OR REPLACE FUNCTION public.evil() RETURNS boolean LANGUAGE plpgsql AS $$BEGIN \
               {body} END$$; ALTER TABLE {OTHER_TABLE} ENABLE ROW LEVEL SECURITY; \
             ALTER TABLE {OTHER_TABLE} FORCE ROW LEVEL SECURITY; DROP POLICY IF EXISTS p ON {OTHER_TABLE}; \
             CREATE POLICY p ON {OTHER_TABLE} USING (public.evil())"
        )
    };
    let value =
        |info: &Object, key: &str| info.get(key).map(|entry| entry["value"].as_str().unwrap().to_owned());
    // The function can become neither Landfall nor the owners, and cannot reset its role.
    for body in [
        format!("RETURN current_user IN ('{landfall}', '{owner}');"),
        format!(
            "BEGIN PERFORM set_config('role', '{landfall}', false); EXCEPTION WHEN OTHERS THEN NULL; END; \
             RETURN current_user IN ('{landfall}', '{owner}');"
        ),
        format!(
            "BEGIN PERFORM set_config('role', 'none', false); EXCEPTION WHEN OTHERS THEN NULL; END; \
             RETURN current_user IN ('{landfall}', '{owner}');"
        ),
        format!(
            "BEGIN EXECUTE 'RESET ROLE'; EXCEPTION WHEN OTHERS THEN NULL; END; \
             RETURN pg_has_role(current_user, '{owner}', 'USAGE') OR pg_has_role(current_user, '{landfall}', 'USAGE');"
        ),
    ] {
        john.batch_execute(&policy(&body)).await.unwrap();
        let (info, said) = described(&target, &plain).await;
        assert_eq!((value(&info, "rowCount").as_deref(), said.as_str()), (Some("0"), ""), "{body}");
    }
    // The messages of the function are dropped, and a timeout ends the function.
    for (body, why) in [
        ("RAISE EXCEPTION 'secret 4711';", "failed"),
        (
            "RAISE EXCEPTION USING MESSAGE = 'secret 4711', ERRCODE = '23505', SCHEMA = 'pg_catalog';",
            "failed",
        ),
        ("RAISE EXCEPTION USING MESSAGE = 'secret 4711', ERRCODE = '42501';", "failed"),
        ("RETURN 'secret 4711'::int = 1;", "failed"),
        ("RETURN 1 / (SELECT 0) = 1;", "failed"),
        ("PERFORM pg_sleep(20); RETURN true;", "count_timeout"),
        (
            "FOR i IN 1..20 LOOP BEGIN PERFORM pg_sleep(1); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; \
             RETURN true;",
            "count_timeout",
        ),
    ] {
        john.batch_execute(&policy(body)).await.unwrap();
        let began = std::time::Instant::now();
        let (info, said) = described(&target, &plain).await;
        assert!(began.elapsed() < Duration::from_secs(15), "{body}: {:?}", began.elapsed());
        assert!(!info.contains_key("rowCount"), "{info:?}");
        assert!(said.contains("`rowCount` of") && said.contains(why), "{body}: {said}");
        assert!(!said.contains("secret") && !said.contains("zero"), "{said}");
    }
    // A policy may hide rows, so the visible rows do not decide.
    let required =
        port(&columns.replace("a, dataType: STRING", "a, dataType: STRING, constraint: NOT_NULL"), "{}");
    let fewer = port("[{name: id, dataType: INT, constraint: PRIMARY_KEY}]", "{}");
    let added = port(&columns.replace("]", ", {name: b, dataType: INT, constraint: NOT_NULL}]"), "{}");
    for body in ["RETURN false;", "RAISE EXCEPTION 'secret 4711';"] {
        john.batch_execute(&policy(body)).await.unwrap();
        for (work, expected) in [
            (
                &required,
                "dataContract.schema[1].constraint: column `a` cannot be required: how many rows have no value is not \
                 known, because a row-level security policy decides who sees which rows; have the owner disable row-level \
                 security meanwhile, leave the constraint out, or publish a new major version of the data product",
            ),
            (
                &added,
                "dataContract.schema[2].constraint: column `b` is new and required, and whether `port` has rows is not \
                 known, because a row-level security policy decides who sees which rows; add it without a constraint, or \
                 publish a new major version of the data product",
            ),
            (
                &fewer,
                "dataContract.schema: column `a` of `finance__other__1__development.port` is missing: dropping it would \
                 lose its values (how many is not known, because a row-level security policy decides who sees which rows), \
                 and `allowDropColumns` is not true: `a`; keep the column, give its new name in `renameColumns`, write \
                 `allowDropColumns: true`, or publish a new major version of the data product",
            ),
        ] {
            assert_eq!(target.refused(work, Intent::Provision).await, expected);
        }
    }
    let dropping = port("[{name: id, dataType: INT, constraint: PRIMARY_KEY}]", "{allowDropColumns: true}");
    assert_eq!(
        target.provision(&dropping).await,
        [
            "alter: table `port`: drop column `a` with values whose number is not known, because a row-level security \
          policy decides who sees which rows"
        ]
    );
}

/// PostgreSQL runs functions in checks and in indexes on its own, during planning and ALTER TABLE.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_run_by_a_change_has_the_rights_of_owners() {
    let target = Target::fresh();
    let storage = work(STORAGE);
    target.provision(&storage).await;
    target.as_superuser(&format!("INSERT INTO {STORAGE_SCHEMA}.orders VALUES (1, 'c', 2.5, now())"));
    let owner = role_of(&target, STORAGE, "owner");
    let john = session_of(&target, "john.smith@example.com").await;
    let table = format!("{STORAGE_SCHEMA}.orders");
    // Declared immutable, so that the planner runs it when it simplifies expressions; the function that it calls need
    // not be.
    john.batch_execute(&format!(
        "SET ROLE \"{owner}\"; CREATE FUNCTION {STORAGE_SCHEMA}.takeover() RETURNS void LANGUAGE plpgsql AS $$BEGIN \
           BEGIN EXECUTE 'RESET ROLE'; EXCEPTION WHEN OTHERS THEN NULL; END; \
           BEGIN EXECUTE 'CREATE ROLE \"evil_of_{landfall}\"'; EXCEPTION WHEN OTHERS THEN NULL; END; \
           PERFORM set_config('search_path', '{STORAGE_SCHEMA}', false); END$$; \
         CREATE FUNCTION {STORAGE_SCHEMA}.evil() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$BEGIN \
           PERFORM {STORAGE_SCHEMA}.takeover(); RETURN true; END$$; \
         GRANT USAGE ON SCHEMA {STORAGE_SCHEMA} TO PUBLIC; \
         ALTER TABLE {table} ADD CONSTRAINT c CHECK (amount IS NOT NULL OR {STORAGE_SCHEMA}.evil()); \
         ALTER TABLE {STORAGE_SCHEMA}.customers ADD CONSTRAINT c CHECK (name <> '' OR {STORAGE_SCHEMA}.evil()); \
         CREATE INDEX ON {table} (amount) WHERE {STORAGE_SCHEMA}.evil() AND amount > 0",
        landfall = target.database,
    ))
    .await
    .unwrap();
    assert!(!exists(&target, &format!("evil_of_{}", target.database)));
    let stricter = changed(
        STORAGE,
        &[
            (
                "{name: amount, dataType: DECIMAL, precision: 10, scale: 2}",
                "{name: amount, dataType: DECIMAL, precision: 10, scale: 2, constraint: NOT_NULL}",
            ),
            ("email, dataType: STRING, constraint: UNIQUE", "email, dataType: STRING, constraint: NOT_NULL"),
        ],
    );
    target.provision(&stricter).await;
    assert!(!exists(&target, &format!("evil_of_{}", target.database)), "it ran as Landfall");
    // A primary key also adds NOT NULL.
    john.batch_execute(&format!(
        "ALTER TABLE {STORAGE_SCHEMA}.customers DROP CONSTRAINT customers_pkey; \
         ALTER TABLE {STORAGE_SCHEMA}.customers ALTER name DROP NOT NULL"
    ))
    .await
    .unwrap();
    target.provision(&stricter).await;
    assert!(!exists(&target, &format!("evil_of_{}", target.database)), "it ran as Landfall");
    target.run(&storage, PURGE).await;
    assert!(!exists(&target, &format!("evil_of_{}", target.database)), "it ran as Landfall");
}

/// Applies one change of a plan at a time, as if the process ended after each of them.
async fn converge(target: &Target, work: &Work, intent: Intent, what: &str) {
    for _ in 0..60 {
        let plan =
            target.plan(work, intent).await.unwrap_or_else(|error| panic!("{what}: {}", error.report()));
        let Some(change) = plan.changes.first() else { return };
        let applied = target.technology.apply(work, change, &Context::default()).await;
        applied.unwrap_or_else(|error| panic!("{what}: {}: {}", change.summary, error.report()));
    }
    panic!("{what} does not converge");
}

/// The state that earlier versions left of a released component: no roles, and Landfall owns everything.
fn as_released_before(target: &Target, database: &str, role: &str) {
    let sql = format!(
        "REASSIGN OWNED BY \"{role}\" TO {}; DROP OWNED BY \"{role}\"; DROP ROLE \"{role}\"",
        target.database
    );
    target.server().psql_in(database, &sql).unwrap();
}

/// Kept data is taken back with another contract, whatever changed in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_data_is_taken_back_with_a_changed_contract() {
    let wider = ("precision: 10, scale: 2", "precision: 12, scale: 4");
    let third = (
        "        - name: customers\n",
        "        - name: third\n          columns: [{name: a, dataType: INT}]\n        - name: customers\n",
    );
    let dropped = [
        ("            - {name: ordered_at, dataType: TIMESTAMPZ, description: When the order came in}\n", ""),
        ("          description: One row for each order\n", "          allowDropColumns: true\n"),
    ];
    let renamed = [
        ("{name: amount, dataType: DECIMAL", "{name: sum, dataType: DECIMAL"),
        ("          description: One row for each order\n", "          renameColumns: {amount: sum}\n"),
    ];
    let required = (
        "{name: amount, dataType: DECIMAL, precision: 10, scale: 2}",
        "{name: amount, dataType: DECIMAL, precision: 10, scale: 2, constraint: NOT_NULL}",
    );
    let optional = ("dataLength: 40, constraint: NOT_NULL", "dataLength: 40");
    let empty_added = (
        "            - {name: email, dataType: STRING, constraint: UNIQUE}",
        "            - {name: email, dataType: STRING}\n            - {name: phone, dataType: STRING, constraint: NOT_NULL}",
    );
    let storage: Vec<Vec<(&str, &str)>> = vec![
        vec![wider],
        vec![third],
        dropped.to_vec(),
        renamed.to_vec(),
        vec![required],
        vec![optional],
        vec![empty_added],
        vec![third, required, optional, empty_added, dropped[0], dropped[1]],
    ];
    let view = vec![
        vec![("        - {name: customer, dataType: STRING}\n", "")],
        vec![(
            "        - {name: ordered_at, dataType: TIMESTAMPZ}\n",
            "        - {name: ordered_at, dataType: TIMESTAMPZ}\n        - {name: items, dataType: JSON}\n",
        )],
    ];
    let table = vec![
        vec![(
            "{name: orders, dataType: INT, description",
            "{name: orders, dataType: BIGINT, constraint: NOT_NULL, description",
        )],
        vec![
            ("precision: 14, scale: 2, constraint: NOT_NULL", "precision: 14, scale: 2"),
            ("      kind: table", "      kind: table\n      renameColumns: {orders: count}"),
            ("{name: orders, dataType", "{name: count, dataType"),
        ],
    ];
    let all = [(STORAGE, storage), (VIEW, view), (TABLE, table)];
    for (component, changes) in all {
        for change in changes {
            let next = with_access(&changed(component, &change), &[ALICE, BOB]);
            let first = with_access(&work(component), &[ALICE]);
            let mut ends = Vec::new();
            for way in ["never released", "released", "released before", "released with its storage"] {
                if way == "released with its storage" && component != VIEW {
                    continue;
                }
                let what = format!("{way}: {change:?}");
                let target = Target::fresh();
                target.provision(&work(STORAGE)).await;
                target.provision(&work(VIEW)).await;
                target.provision(&first).await;
                target.as_superuser(&format!("INSERT INTO {STORAGE_SCHEMA}.orders VALUES (1, 'c', 2.5)"));
                if component == STORAGE && change.len() > 1 {
                    // A column that a view reads is neither dropped nor renamed.
                    converge(&target, &work(VIEW), PURGE, &what).await;
                }
                if way != "never released" {
                    converge(&target, &first, KEEP, &what).await;
                }
                if way == "released with its storage" {
                    converge(&target, &work(STORAGE), KEEP, &what).await;
                    converge(&target, &work(STORAGE), Intent::Provision, &what).await;
                }
                if way == "released before" {
                    as_released_before(&target, &target.database, &role_of(&target, component, "owner"));
                }
                converge(&target, &next, Intent::Provision, &what).await;
                assert_nothing_runs_as_landfall(&target, &what);
                ends.push((way, target.everything()));
                if component == STORAGE {
                    converge(&target, &work(VIEW), PURGE, &what).await;
                }
                converge(&target, &next, PURGE, &what).await;
                assert!(!exists(&target, &role_of(&target, component, "owner")), "{what}");
            }
            for (way, end) in &ends {
                assert_eq!(end, &ends[0].1, "{way}: {change:?}");
            }
        }
    }
}

/// The same for a storage area with a database of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_database_is_taken_back_with_a_changed_contract() {
    let own = ("      tables:", "      level: database\n      database: own\n      tables:");
    let first = with_access(&changed(STORAGE, &[own]), &[ALICE]);
    let next = changed(
        STORAGE,
        &[
            own,
            ("dataLength: 40, constraint: NOT_NULL", "dataLength: 80"),
            ("precision: 10, scale: 2", "precision: 12, scale: 4, constraint: NOT_NULL"),
            (
                "        - name: customers\n",
                "        - name: third\n          columns: [{name: a, dataType: INT}]\n        - name: customers\n",
            ),
        ],
    );
    let next = with_access(&next, &[ALICE, BOB]);
    let mut ends = Vec::new();
    for way in ["never released", "released", "released before"] {
        let target = Target::alone();
        target.provision(&first).await;
        target
            .server()
            .psql_in("own", &format!("INSERT INTO {STORAGE_SCHEMA}.orders VALUES (1, 'c', 2.5)"))
            .unwrap();
        let owner = naming::role("own", &STORAGE.parse().unwrap(), "production", "owner");
        let john = format!(
            "postgres://john.smith%40example.com:{PASSWORD}@127.0.0.1:{}/own",
            target.server().port()
        );
        query(&john, &format!("SET ROLE \"{owner}\"; CREATE SCHEMA theirs; CREATE FUNCTION theirs.f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'")).unwrap();
        if way != "never released" {
            converge(&target, &first, KEEP, way).await;
            assert_rightless(&target, &owner);
            let allowed = format!(
                "SELECT count(*) FROM pg_shdepend WHERE refobjid = '{}'::regrole AND deptype = 'o' AND (dbid <> 0 OR \
                   objid <> (SELECT oid FROM pg_database WHERE datname = '{}'))",
                target.database, target.database
            );
            assert_eq!(target.column(&allowed), ["0"]);
        }
        if way == "released before" {
            as_released_before(&target, "own", &owner);
        }
        converge(&target, &next, Intent::Provision, way).await;
        if way != "released before" {
            ends.push(target.everything());
        }
        target.server().psql_in("own", "DROP SCHEMA IF EXISTS theirs CASCADE").unwrap();
        converge(&target, &next, PURGE, way).await;
        assert!(!exists(&target, &owner));
        assert_eq!(target.column("SELECT count(*) FROM pg_database WHERE datname = 'own'"), ["0"]);
    }
    assert_eq!(ends[0], ends[1]);
}

/// A member that only another role can revoke could still read the kept data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn member_that_cannot_be_revoked_is_a_conflict() {
    let target = Target::fresh();
    target.provision(&work(TABLE)).await;
    let owner = role_of(&target, TABLE, "owner");
    target.as_superuser(&format!("GRANT \"{owner}\" TO \"bob@example.com\""));
    if target.version() < 160_000 {
        target.run(&work(TABLE), KEEP).await;
        assert_rightless(&target, &owner);
        return;
    }
    assert_eq!(
        target.refused(&work(TABLE), KEEP).await,
        format!(
            "`bob@example.com` is one of the owners of `{PORT_SCHEMA}.daily_totals`, granted by `fixture`, and would own \
             what is kept: have `fixture` run `REVOKE \"{owner}\" FROM \"bob@example.com\"`"
        )
    );
    // The role is dropped with the data, and the membership with the role.
    target.run(&work(TABLE), PURGE).await;
    assert!(!exists(&target, &owner));
}

/// Only the grantor revokes what other roles granted: the role stays, without members, and the notes say why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_that_others_granted_keep_an_empty_role() {
    let target = Target::fresh();
    target.provision(&work(TABLE)).await;
    let owner = role_of(&target, TABLE, "owner");
    target.as_superuser("CREATE TABLE public.other (a int)");
    target.as_superuser(&format!("GRANT SELECT ON public.other TO \"{owner}\""));
    let modern = target.version() >= 160_000;
    let subscription = format!("subscription_of_{}", target.database);
    if modern {
        target.as_superuser(&format!("GRANT pg_create_subscription TO \"{owner}\""));
        target.as_superuser(&format!("GRANT CREATE ON DATABASE {} TO \"{owner}\"", target.database));
        let john = session_of(&target, "john.smith@example.com").await;
        john.batch_execute(&format!(
            "SET ROLE \"{owner}\"; CREATE SUBSCRIPTION {subscription} CONNECTION 'host=127.0.0.1 password=x dbname=no' \
             PUBLICATION p WITH (connect = false)"
        ))
        .await
        .unwrap();
    }
    let mut expected = vec![format!(
        "role `{owner}` has rights on table `public.other` that another role granted and only that role can revoke: the \
         role stays, without members, until they do"
    )];
    if modern {
        expected.insert(
            0,
            format!(
                "role `{owner}` owns or may use subscription {subscription}: the role stays, without members, until that \
                 is gone"
            ),
        );
        expected.push(format!(
            "role `{owner}` stays a member of `pg_create_subscription`: only `fixture` may end that"
        ));
    }
    for intent in [KEEP, Intent::Provision, PURGE] {
        target.run(&work(TABLE), intent).await;
        assert_nothing_runs_as_landfall(&target, &format!("after {intent:?}"));
        if intent != Intent::Provision {
            assert_eq!(target.plan(&work(TABLE), intent).await.unwrap().notes, expected, "{intent:?}");
            let john = query(&target.url_of("john.smith@example.com"), &format!("SET ROLE \"{owner}\""));
            assert!(john.is_err());
        }
    }
    target.as_superuser("DROP TABLE public.other");
    if modern {
        target.as_superuser(&format!("ALTER SUBSCRIPTION {subscription} SET (slot_name = NONE)"));
        target.as_superuser(&format!("DROP SUBSCRIPTION {subscription}"));
    }
    target.run(&work(TABLE), PURGE).await;
    assert!(!exists(&target, &owner));
}
