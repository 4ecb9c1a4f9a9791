//! Changes that PostgreSQL would refuse are refused before the first one runs, with the reason.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use landfall_adapter::access::{Principals, Qualified, Resolution};

const COLUMNS: &str =
    "{name: id, dataType: INT}, {name: a, dataType: INT}, {name: b, dataType: VARCHAR, dataLength: 9}";

async fn table(target: &Target, columns: &str, rows: &str) {
    target.provision(&port(&format!("[{columns}]"), "{}")).await;
    if !rows.is_empty() {
        target.as_superuser(&format!("INSERT INTO {OTHER_TABLE} VALUES {rows}"));
    }
}

async fn refused(target: &Target, columns: &str, specific: &str) -> String {
    target.refused(&port(&format!("[{columns}]"), specific), Intent::Provision).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_over_duplicate_rows_are_refused_with_their_number() {
    let target = Target::fresh();
    table(&target, COLUMNS, "(1, 1, 'x'), (1, 1, 'y'), (2, 1, 'y'), (NULL, 1, NULL), (NULL, 2, NULL)").await;
    let more = "make the values differ first, leave the constraint out, or publish a new major version of the data product";
    let with = |id: &str, a: &str, b: &str| {
        format!(
            "{{name: id, dataType: INT{id}}}, {{name: a, dataType: INT{a}}}, {{name: b, dataType: VARCHAR, dataLength: 9{b}}}"
        )
    };
    let (key, unique) = (", constraint: PRIMARY_KEY", ", constraint: UNIQUE");
    assert_eq!(
        refused(&target, &with(unique, unique, ""), "{}").await,
        format!(
            "dataContract.schema[0].constraint: column `id` cannot be unique: 2 rows of a value that another row has, too; {more}\n\
             dataContract.schema[1].constraint: column `a` cannot be unique: 4 rows of a value that another row has, too; {more}"
        )
    );
    // NULLs are distinct from one another.
    assert_eq!(
        refused(&target, &with("", "", unique), "{}").await,
        format!(
            "dataContract.schema[2].constraint: column `b` cannot be unique: 2 rows of a value that another row has, too; {more}"
        )
    );
    let both = refused(&target, &with(key, key, ""), "{}").await;
    assert!(
        both.starts_with(
            "dataContract.schema[0].constraint: column `id` cannot be required: 2 rows without a value"
        ),
        "{both}"
    );
    assert!(both.ends_with(&format!(
        "dataContract.schema: `id`, `a` cannot be the primary key of `{OTHER_TABLE}`: 2 rows of values that another row has, too; {more}"
    )), "{both}");
    // The same refusal for a column that is also renamed.
    let renamed = "{name: id, dataType: INT}, {name: z, dataType: INT, constraint: UNIQUE}, {name: b, dataType: STRING}";
    let said = refused(&target, renamed, "{renameColumns: {a: z}}").await;
    assert!(said.contains("column `z` cannot be unique: 4 rows"), "{said}");
    // Once the rows are valid, the change is made.
    target.as_superuser(&format!("DELETE FROM {OTHER_TABLE} WHERE id IS NULL OR b = 'x'"));
    let done = target.provision(&port(&format!("[{}]", with(key, "", "")), "{}")).await;
    assert_eq!(done, ["alter: table `port`: primary key (id)"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plan_refuses_changes_of_columns_in_use() {
    let target = Target::fresh();
    table(&target, &COLUMNS.replace("id, dataType: INT", "id, dataType: INT, constraint: UNIQUE"), "").await;
    let drop_b = "{name: id, dataType: INT, constraint: UNIQUE}, {name: a, dataType: INT}";
    let wider_a = COLUMNS
        .replace("a, dataType: INT", "a, dataType: BIGINT")
        .replace("id, dataType: INT", "id, dataType: INT, constraint: UNIQUE");
    for (make, unmake, columns, said) in [
        (
            format!("CREATE VIEW public.v AS SELECT b FROM {OTHER_TABLE}"),
            "DROP VIEW public.v".to_owned(),
            drop_b,
            "cannot be dropped: it is used by view `public.v`",
        ),
        (
            format!("CREATE VIEW public.v AS SELECT a FROM {OTHER_TABLE}"),
            "DROP VIEW public.v".to_owned(),
            &wider_a,
            "cannot get another type: it is used by view `public.v`",
        ),
        (
            format!("CREATE POLICY p ON {OTHER_TABLE} USING (b <> '' AND a > 0)"),
            format!("DROP POLICY p ON {OTHER_TABLE}"),
            drop_b,
            "cannot be dropped: it is used by policy p on table",
        ),
        (
            format!("CREATE POLICY p ON {OTHER_TABLE} USING (b <> '' AND a > 0)"),
            format!("DROP POLICY p ON {OTHER_TABLE}"),
            &wider_a,
            "cannot get another type: it is used by policy p on table",
        ),
        (
            format!(
                "CREATE FUNCTION public.f() RETURNS text BEGIN ATOMIC SELECT max(b) FROM {OTHER_TABLE}; END"
            ),
            "DROP FUNCTION public.f".to_owned(),
            drop_b,
            "cannot be dropped: it is used by function public.f()",
        ),
        (
            format!("CREATE TABLE public.r (id int REFERENCES {OTHER_TABLE} (id))"),
            "DROP TABLE public.r".to_owned(),
            COLUMNS,
            "column `id` must stay unique: a foreign key refers to it",
        ),
        (
            format!("CREATE TABLE public.r (id int REFERENCES {OTHER_TABLE} (id))"),
            "DROP TABLE public.r".to_owned(),
            "{name: a, dataType: INT}, {name: b, dataType: VARCHAR, dataLength: 9}",
            "cannot be dropped: it is used by constraint r_id_fkey on table",
        ),
    ] {
        target.as_superuser(&make);
        let text = refused(&target, columns, "{allowDropColumns: true}").await;
        assert!(text.contains(said), "{make}: {text}");
        target.as_superuser(&unmake);
    }
    target.provision(&port(&format!("[{drop_b}]"), "{allowDropColumns: true}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_taken_by_other_kinds_are_refused_at_plan() {
    let target = Target::fresh();
    target.provision(&work(TABLE)).await;
    for (make, unmake, kind) in [
        ("CREATE SEQUENCE {}", "DROP SEQUENCE {}", "a sequence"),
        ("CREATE TYPE {} AS ENUM ('x')", "DROP TYPE {}", "a type"),
        ("CREATE TYPE {} AS (a int)", "DROP TYPE {}", "a type"),
    ] {
        // A table and a view of the schema of output ports, and a table of a storage area.
        target.as_superuser(&make.replace("{}", &format!("{PORT_SCHEMA}.recent_orders")));
        target.provision(&work(STORAGE)).await;
        let said = target.refused(&work(VIEW), Intent::Provision).await;
        let expected = format!(
            "`{PORT_SCHEMA}.recent_orders` cannot be made: there is {kind} of this name. Rename or remove it"
        );
        assert!(said.starts_with(&expected), "{said}");
        target.as_superuser(&unmake.replace("{}", &format!("{PORT_SCHEMA}.recent_orders")));
        target.as_superuser(&make.replace("{}", &format!("{STORAGE_SCHEMA}.third")));
        let third = changed(
            STORAGE,
            &[(
                "            - {name: email, dataType: STRING, constraint: UNIQUE}",
                "            - {name: email, dataType: STRING, constraint: UNIQUE}\n        - name: third\n          columns: [{name: a, dataType: INT}]",
            )],
        );
        let said = target.refused(&third, Intent::Provision).await;
        assert!(
            said.contains(&format!("`{STORAGE_SCHEMA}.third` cannot be made: there is {kind}")),
            "{said}"
        );
        target.as_superuser(&unmake.replace("{}", &format!("{STORAGE_SCHEMA}.third")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plan_reports_missing_rights_with_the_statement() {
    let target = Target::alone();
    let me = &target.database;
    let own = {
        let mut storage = work(STORAGE);
        let specific = &mut Arc::make_mut(&mut storage.component).specific;
        specific.insert("level".to_owned(), json!("database"));
        storage
    };
    for (take, give, work, said) in [
        (
            "ALTER ROLE {} NOCREATEROLE",
            "ALTER ROLE {} CREATEROLE",
            &work(TABLE),
            "`ALTER ROLE \"{}\" CREATEROLE`",
        ),
        ("ALTER ROLE {} NOCREATEDB", "ALTER ROLE {} CREATEDB", &own, "`ALTER ROLE \"{}\" CREATEDB`"),
        (
            "ALTER DATABASE {} OWNER TO fixture; GRANT CONNECT ON DATABASE {} TO {} WITH GRANT OPTION",
            "GRANT CREATE ON DATABASE {} TO {}",
            &work(TABLE),
            "`GRANT CREATE ON DATABASE \"{}\" TO \"{}\"`",
        ),
    ] {
        let filled = |text: &str| text.replace("{}", me);
        target.as_superuser(&filled(take));
        let error = target.plan(work, Intent::Provision).await.unwrap_err();
        let expected = format!(
            "the role of the target lacks rights for the change: have a superuser run {}",
            filled(said)
        );
        assert!(error.is_retryable() && error.to_string() == expected, "{}", error.report());
        target.as_superuser(&filled(give));
        target.provision(work).await;
        target.run(work, PURGE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn role_with_rights_in_another_database_stays_empty() {
    let target = Target::alone();
    let port = work(TABLE);
    target.provision(&port).await;
    let reader = naming::role(&target.database, &port.component.id, "production", "reader");
    target.as_superuser("CREATE DATABASE other_one");
    target
        .server()
        .psql_in("other_one", &format!("CREATE TABLE t (); GRANT SELECT ON t TO {reader}"))
        .unwrap();
    let roles = format!("SELECT rolname FROM pg_roles WHERE rolname = '{reader}'");
    let plan = target.technology.plan(&port, &PURGE, &Context::default()).await.unwrap();
    let note = format!(
        "role `{reader}` owns or may use something in database `other_one`: the role stays, without members, until that is \
         gone"
    );
    assert!(plan.notes.contains(&note), "{:?}", plan.notes);
    target.run(&port, PURGE).await;
    assert_eq!(target.as_superuser(&roles).len(), 1);
    target.server().psql_in("other_one", "DROP TABLE t").unwrap();
    target.run(&port, PURGE).await;
    assert!(target.as_superuser(&roles).is_empty());
}

/// A lookup that counts its calls.
struct Counting(Arc<AtomicUsize>);

#[async_trait]
impl Principals for Counting {
    async fn resolve(&self, reference: &Qualified) -> Result<Resolution> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(Resolution::Principal(reference.principal_name()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directory_is_asked_once_a_run_about_each_ref() {
    let target = Target::fresh();
    let asked = Arc::new(AtomicUsize::new(0));
    let mut settings = target.technology.0.settings.clone();
    settings.directory = Directory::new(vec![Arc::new(Counting(Arc::clone(&asked)))]);
    let technology = Postgresql::new(settings);
    let port = with_access(&work(TABLE), &[ALICE, "user:bob_example.com"]);
    // The owner, the group of developers and two readers.
    for expected in [4, 8] {
        let context = Context::default();
        let plan = technology.plan(&port, &Intent::Provision, &context).await.unwrap();
        for change in &plan.changes {
            technology.apply(&port, change, &context).await.unwrap();
        }
        assert!(expected > 4 || plan.changes.len() > 3, "{:?}", plan.changes);
        assert_eq!(asked.load(Ordering::SeqCst), expected, "a run asks once, and the next one again");
    }
}
