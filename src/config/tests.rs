use std::io::Write;

use landfall_adapter::access::GroupMeaning;
use landfall_adapter::schemars::JsonSchema;
use landfall_adapter::settings::{FileUrl, Span};
use landfall_adapter::{Driver, Mistakes, Services};
use mock::{Mock, MockDriver, MockSettings};
use serde::Deserialize;

use super::*;

/// Records what it read.
struct Probe(Arc<std::sync::Mutex<Vec<Probed>>>);

#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "landfall_adapter::schemars")]
struct Probed {
    steps: u32,
    step_delay: Option<Span>,
    folder: FileUrl,
}

impl Driver for Probe {
    type Settings = Probed;
    type Technology = Mock;

    fn name(&self) -> &'static str {
        "probe"
    }

    fn open(&self, settings: Probed, services: &Services<'_>) -> Result<Mock, Mistakes> {
        assert!(!services.will_serve());
        self.0.lock().unwrap().push(settings);
        Ok(Mock::new(MockSettings::default()))
    }
}

pub(super) fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

pub(super) fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    load_with(text, environment, &Registry::builtin())
}

fn load_with(text: &str, environment: &[(&str, &str)], registry: &Registry) -> Result<Config, Vec<String>> {
    let file = file(text);
    let variables = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let config = Config::assemble(Some(file.path()), variables, &Overrides::default(), registry, Mode::Check);
    config.map_err(|problems| {
        problems.iter().map(|p| p.replace(&format!(" (in {})", file.path().display()), "")).collect()
    })
}

#[test]
fn nothing_configured_is_the_embedded_default() {
    let config =
        Config::assemble(None, std::iter::empty(), &Overrides::default(), &Registry::builtin(), Mode::Check)
            .unwrap();
    assert_eq!(config.server.listen, "127.0.0.1:8093");
    assert_eq!(config.server.base_paths, ["", "/datamesh.specificprovisioner"]);
    assert_eq!(config.store.url, StoreUrl::Sqlite("data/landfall.db".into()));
    let codes: Vec<_> =
        config.targets.iter().map(|target| (target.code.as_str(), target.group.as_str())).collect();
    assert_eq!(codes, [("LOCAL_LAKE", "lakehouse"), ("LOCAL_MOCK", "mock")]);
    assert_eq!(config.routes.len(), 3);
    assert_eq!(
        config.descriptor,
        Limits::default(),
        "defaults.toml and the code's defaults are the same numbers"
    );
}

#[test]
fn data_dir_moves_everything_embedded() {
    let overrides = Overrides { data_dir: Some("/srv/x".into()), listen: Some("127.0.0.1:0".into()) };
    let config =
        Config::assemble(None, std::iter::empty(), &overrides, &Registry::builtin(), Mode::Check).unwrap();
    assert_eq!(config.store.url, StoreUrl::Sqlite("/srv/x/landfall.db".into()));
    assert_eq!(config.server.listen, "127.0.0.1:0");
}

#[test]
fn reports_mistakes_in_paths_of_a_lakehouse() {
    let problems = |warehouse: &str| {
        let text = format!("[targets.L]\ndriver = \"lakehouse\"\nwarehouse = \"{warehouse}\"\n");
        load(&text, &[]).unwrap_err()
    };
    assert_eq!(
        problems("file:///"),
        [
            "targets.L.catalog: is missing, and the warehouse has no name for a file beside it; write `sqlite://FILE`"
        ]
    );
    assert_eq!(
        problems("file:///srv/50%"),
        [
            "targets.L.warehouse: `/srv/50%` has one of `%?#` or a control character, which readers of Iceberg take for \
          something else; choose another path"
        ]
    );
    assert_eq!(
        problems("/srv\"\ncatalog = \"/srv/c\"\nwharehouse = \"file:///srv"),
        [
            "targets.L.catalog: `/srv/c` is not supported; write `sqlite://PATH`",
            "targets.L.warehouse: `/srv` is not supported; write `file://PATH`",
            "targets.L.wharehouse: is not a configuration key; did you mean `targets.L.warehouse`?",
        ]
    );
    assert_eq!(
        load("[targets.L]\ndriver = \"lakehouse\"\nwharehouse = \"file:///srv\"\n", &[]).unwrap_err(),
        [
            "targets.L.warehouse: is missing",
            "targets.L.wharehouse: is not a configuration key; did you mean `targets.L.warehouse`?",
        ]
    );
}

#[test]
fn two_drivers_of_one_name_are_refused() {
    let registry = Registry::builtin().with(MockDriver);
    assert_eq!(
        load_with("", &[], &registry).unwrap_err(),
        ["targets: this program has two drivers `mock`; rename one of them"]
    );
}

#[test]
fn names_in_the_topology_are_bounded() {
    let text = format!(
        "[targets.{}]\ndriver = \"mock\"\n[targets.M]\ndriver = \"mock\"\ngroup = \" \"\n",
        "x".repeat(256)
    );
    let problems = load(&text, &[]).unwrap_err();
    let told = "a name in the topology has 1 to 255 characters, and no control characters; choose another";
    assert_eq!(
        problems,
        [format!("targets.M.group: {told}"), format!("targets.{}: {told}", "x".repeat(256))]
    );
}

#[test]
fn variables_override_the_file_and_match_target_codes() {
    let text = "data_dir = \"/srv\"\n[server]\nlisten = \"127.0.0.1:1\"\n[targets.My_Probe]\ndriver = \"probe\"\nsteps = 1\n";
    let variables = [
        ("LANDFALL__SERVER__LISTEN", "127.0.0.1:2"),
        ("LANDFALL__TARGETS__MY_PROBE__STEPS", "7"),
        ("LANDFALL__TARGETS__MY_PROBE__FOLDER", "file://{data_dir}/probe"),
        ("LANDFALL__OPERATIONS__CONCURRENCY", "3"),
        ("UNRELATED", "x"),
    ];
    let probed = Arc::default();
    let registry = Registry::default().with(Probe(Arc::clone(&probed)));
    let config = load_with(text, &variables, &registry).unwrap();
    assert_eq!(config.server.listen, "127.0.0.1:2");
    assert_eq!(config.targets.len(), 1);
    let [probed] = probed.lock().unwrap().clone().try_into().unwrap();
    assert_eq!((probed.steps, probed.step_delay), (7, None));
    assert_eq!(probed.folder.path(), Path::new("/srv/probe"));
    assert_eq!(config.operations.concurrency, 3);
    assert!(config.routes.is_empty(), "own targets replace the embedded ones, routes included");
}

#[test]
fn postgresql_store_url_is_a_secret_reference() {
    let postgres = |url: &str| StoreUrl::Postgres(Secret::new(url));
    let url = "postgres://adapter:hunter2@db:5432/landfall";
    let config = load("store.url = { env = \"STORE\" }\n", &[("STORE", url)]).unwrap();
    assert_eq!(config.store.url, postgres(url));
    assert!(!format!("{config:?}").contains("hunter2"));
    let kept = file(&format!("{url}\n"));
    let named = format!("store.url = {{ file = \"{}\" }}\nstore.timeout = \"3s\"\n", kept.path().display());
    let config = load(&named, &[]).unwrap();
    assert_eq!((config.store.url, config.store.timeout), (postgres(url), Duration::from_secs(3)));
    assert_eq!(load("", &[("LANDFALL__STORE__URL", url)]).unwrap().store.url, postgres(url));
    let without = "postgresql://adapter@db/landfall?sslmode=verify-full";
    assert_eq!(load(&format!("store.url = \"{without}\"\n"), &[]).unwrap().store.url, postgres(without));

    let refused = |text: &str| load(text, &[]).unwrap_err().join("\n");
    for text in [format!("store.url = \"{url}\"\n"), format!("store.url = \"{without}&password=hunter2\"\n")]
    {
        assert_eq!(
            refused(&text),
            "store.url: holds a password; leave it out of the file: `url = { env = \"NAME\" }` or \
             `{ file = \"PATH\" }` says where the URL stands"
        );
    }
    assert_eq!(
        refused("store.url = { env = \"STORE\" }\n"),
        "store.url.env: the variable `STORE` is not set, or empty"
    );
    assert_eq!(
        refused("store.url = { env = \"A\", file = \"b\" }\n"),
        "store.url: must be one of `{ env = \"NAME\" }` and `{ file = \"PATH\" }`"
    );
    assert!(
        refused("store.url = { file = \"/nowhere\" }\n")
            .starts_with("store.url.file: `/nowhere` cannot be read: ")
    );
    assert_eq!(
        refused("store.url = \"mysql://db\"\nstore.connections = 0\n"),
        "store.url: a URL with `mysql` is not supported; write `sqlite://PATH` or \
         `postgres://USER@HOST/DATABASE`\nstore.connections: `0` is too small; at least 1 is needed"
    );
}

#[test]
fn postgresql_target_url_is_a_secret_reference() {
    let url = "postgres://landfall:hunter2@db.example.com/analytics?sslmode=verify-full";
    let text = "[targets.PG]\ndriver = \"postgresql\"\nurl = { env = \"PG_URL\" }\n";
    let config = load(text, &[("PG_URL", url)]).unwrap();
    assert_eq!(
        (config.targets[0].group.as_str(), config.targets[0].technology.name()),
        ("postgresql", "postgresql")
    );
    assert!(!format!("{config:?}").contains("hunter2"));

    let wrong = format!("{text}connections = 0\nidentity = []\nstatement_timeout = \"5\"\n");
    assert_eq!(
        load(&wrong, &[("PG_URL", "postgres://u:hunter2@db/d?sslmode=require")]).unwrap_err(),
        [
            "targets.PG.connections: `0` is too small; at least 1 is needed",
            "targets.PG.statement_timeout: `5` is not a duration; write a number and a unit: 500ms, 30s, 5m, 1h",
            "targets.PG.url: has `sslmode=require`, which does not verify the server; write \
             `sslmode=verify-full` (with `sslrootcert=PATH` for your own certificate authority), or `sslmode=disable`",
            "targets.PG.identity: is empty, so no principal would be found; name at least one [identity.NAME]",
        ]
    );
    assert_eq!(
        load("[targets.PG]\ndriver = \"postgresql\"\nurl = \"postgres://u@h/d\"\n", &[]).unwrap_err()[0],
        "targets.PG.url: must be one of `{ env = \"NAME\" }` and `{ file = \"PATH\" }`"
    );
}

#[test]
fn every_mistake_is_reported_at_once_by_its_text() {
    let text = r#"
        [server]
        listen = 7
        token_format = "yaml"
        respond_within = "soon"
        base_paths = ["no-slash"]
        max_inflight_bytes = 8388607
        retry_after = "10ms"
        lisen = "x"
        [log]
        level = "landfall=debug,loud"
        format = "xml"
        [operations]
        concurrency = 0
        lease = "1ms"
        [targets.A]
        driver = "oracle"
        url = "of an unknown key"
        [targets.B]
        driver = "mock"
        environments = ["moon"]
        [[routes]]
        technology = "S3"
        group = "nowhere"
        colour = "red"
        [[routes]]
        kind = " "
    "#;
    let problems = load(text, &[]).unwrap_err();
    let expected = [
        "server.listen: invalid type: found signed int `7`, expected a string",
        "server.base_paths: `no-slash` is not a path; write `/` or `/prefix`",
        "server.token_format: `yaml` is not known; use one of: auto, text, json",
        "server.respond_within: `soon` is not a duration; write a number and a unit: 500ms, 30s, 5m, 1h",
        "server.max_inflight_bytes: `8388607` is too small; at least the 8388608 of server.max_body_bytes are needed",
        "server.retry_after: `10ms` is too short; at least 1000 ms is needed",
        "log.level: `loud` is not a level; use one of: error, warn, info, debug, trace, off",
        "log.format: `xml` is not known; use one of: text, json",
        "operations.concurrency: `0` is too small; at least 1 is needed",
        "operations.lease: `1ms` is too short; at least 100 ms is needed",
        "targets.A.driver: `oracle` is not a driver; use one of: exec, lakehouse, mock, postgresql",
        "targets.B.environments: `moon` is not named in [environments], which has: development, production, qa",
        "routes[0]: `colour` is not a key of a route; use technology, platform, kind, infrastructureTemplateId, \
         useCaseTemplateId, group",
        "routes[1]: `kind` is empty; name one, or leave it out for any",
        "routes[1]: has no `group`; name the group of instances it leads to",
        "server.lisen: is not a configuration key; did you mean `server.listen`?",
    ];
    for line in expected {
        assert!(problems.iter().any(|problem| problem == line), "missing: {line}\nfound: {problems:#?}");
    }
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
}

#[test]
fn reports_duplicate_names() {
    let text = r#"
        [environments]
        dev = 1
        DEV = 2
        live = 1
        [targets.lake]
        driver = "mock"
        [targets.LAKE]
        driver = "mock"
    "#;
    let problems = load(text, &[]).unwrap_err();
    let expected = [
        "environments.dev: is equal to `DEV`: names are case-insensitive",
        "environments.live: `1` is the id of `dev`, too; give each environment its own",
        "targets.lake: is equal to `LAKE`: codes are case-insensitive",
    ];
    for line in expected {
        assert!(
            problems.iter().any(|problem| problem.starts_with(line)),
            "missing: {line}\nfound: {problems:#?}"
        );
    }
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
}

#[test]
fn route_with_a_group_of_another_type_is_reported_once() {
    let problems = load("[[routes]]\ngroup = 1\n", &[]).unwrap_err();
    assert_eq!(problems, ["routes[0]: `group` must be text"]);
}

/// An id that the defaults use may belong to another environment here.
#[test]
fn naming_environments_replaces_the_defaults() {
    let config = load("[environments]\nprod = 10001\n", &[]).unwrap();
    assert_eq!(config.environments.into_iter().collect::<Vec<_>>(), [("prod".to_owned(), 10001)]);
    let config = load("", &[]).unwrap();
    assert_eq!(config.environments.into_keys().collect::<Vec<_>>(), ["development", "production", "qa"]);
}

#[test]
fn operations_may_have_a_run_limit_of_their_own() {
    let text = "[operations.run_limits]\nprovision = \"2h\"\n";
    let config = load(text, &[("LANDFALL__OPERATIONS__RUN_LIMITS__UPDATEACL", "5s")]).unwrap();
    let (provision, updateacl) = (Duration::from_secs(7200), Duration::from_secs(5));
    let expected = HashMap::from([(Operation::Provision, provision), (Operation::UpdateAccess, updateacl)]);
    assert_eq!(config.operations.run_limits, expected);

    let text = "[operations.run_limits]\nprovision = \"0s\"\nupdatacl = \"1m\"\nreverse = 7\n";
    assert_eq!(
        load(text, &[]).unwrap_err(),
        [
            "operations.run_limits.provision: `0s` is too short; at least 1 ms is needed",
            "operations.run_limits.reverse: invalid type: found signed int `7`, expected a string",
            "operations.run_limits.updatacl: is not a configuration key; did you mean \
             `operations.run_limits.updateacl`?",
        ]
    );
}

#[test]
fn reports_missing_and_invalid_configuration_files() {
    let problems = load("[server\n", &[]).unwrap_err();
    assert_eq!(problems.len(), 1);
    // The invalid line may contain a secret.
    let problems = load("[log]\nlevel = \"hunter2\n", &[]).unwrap_err();
    assert_eq!(problems, ["TOML parse error at line 2, column 17: invalid basic string"]);
    let problems = Config::assemble(
        Some("/no/such.toml".as_ref()),
        std::iter::empty(),
        &Overrides::default(),
        &Registry::builtin(),
        Mode::Check,
    )
    .unwrap_err();
    assert_eq!(problems, ["the configuration file `/no/such.toml` does not exist or is not a file"]);
}

#[test]
fn tls_files_are_checked_before_the_start() {
    let refused = |text: &str| load(&format!("[server.tls]\n{text}"), &[]).unwrap_err();
    assert_eq!(
        refused("certificat = \"x\"\n"),
        [
            "server.tls.certificate: is missing; name a PEM file",
            "server.tls.key: is missing; name a PEM file",
            "server.tls.certificat: is not a configuration key; did you mean `server.tls.certificate`?",
        ]
    );
    let empty = file("no PEM at all");
    let empty = empty.path().display().to_string();
    assert_eq!(
        refused(&format!("certificate = \"{empty}\"\nkey = \"{empty}\"\nclient_ca = \"{empty}\"\n")),
        [
            format!(
                "server.tls.certificate: `{empty}` holds no certificate; it must be PEM, `-----BEGIN CERTIFICATE-----`"
            ),
            format!(
                "server.tls.key: `{empty}` holds no key; it must be PEM, `-----BEGIN PRIVATE KEY-----`, without a \
                 passphrase"
            ),
            format!(
                "server.tls.client_ca: `{empty}` holds no certificate; it must be PEM, `-----BEGIN CERTIFICATE-----`"
            ),
        ]
    );
    let torn = file("-----BEGIN CERTIFICATE-----\nhunter2!\n");
    let torn = torn.path().display().to_string();
    let problems = refused(&format!("certificate = \"{torn}\"\nkey = \"/nowhere\"\n"));
    assert_eq!(problems.first(), Some(&format!("server.tls.certificate: `{torn}` is not PEM")));
    assert!(problems[1].starts_with("server.tls.key: `/nowhere` cannot be read: "), "{problems:#?}");
}

#[test]
fn rejects_base_paths_of_the_topology_contract() {
    let refused = load("server.base_paths = [\"/flexdeploy/\", \"/flexdeploy/x\", \"/flexdeployer\"]\n", &[]);
    assert_eq!(
        refused.unwrap_err(),
        ["/flexdeploy/", "/flexdeploy/x"].map(|path| format!(
            "server.base_paths: `{path}` belongs to the topology contract; choose another"
        ))
    );
}

#[test]
fn identities_are_read_and_named_by_targets() {
    let text = r#"
        [identity.local]
        kind = "table"
        file = "/etc/people.yaml"
        [identity.corp]
        kind = "ldap"
        url = "ldaps://directory"
        bind_dn = "cn=x"
        bind_password = { env = "LDAP_PASSWORD" }
        user_base = "dc=x"
        [targets.PG]
        driver = "postgresql"
        url = { env = "PG" }
        identity = ["local", "corp"]
        [targets.PLAIN]
        driver = "postgresql"
        url = { env = "PG" }
    "#;
    let variables = [("LDAP_PASSWORD", "hunter2"), ("PG", "postgres://landfall:hunter2@localhost/db")];
    let config = load(text, &variables).unwrap();
    let (Some(Identity::Table(table)), Some(Identity::Ldap(ldap))) =
        (config.identities.get("local"), config.identities.get("corp"))
    else {
        panic!("{:?}", config.identities)
    };
    assert_eq!(table.file, Path::new("/etc/people.yaml"));
    assert_eq!((ldap.group_base.as_str(), ldap.user_filter.as_str()), ("dc=x", "(mail={name})"));
    assert_eq!(ldap.group, GroupMeaning::Members("member".to_owned()));
    assert!(!format!("{config:?}").contains("hunter2"));

    let wrong = r#"
        [identity.a]
        kind = "template"
        user = "{mail}"
        group = "everybody"
        [identity.b]
        kind = "ldap"
        url = "ldap://directory"
        bind_dn = "cn=x"
        bind_password = { env = "NOT_SET" }
        user_base = "dc=x"
        user_filter = "mail={name}"
        group = "roles"
        [identity.c]
        kind = "file"
        path = "of an unknown key"
        [identity.d]
        kind = "ldap"
        url = "http://directory"
        user_base = "dc=x"
        member_atribute = "m"
        [targets.PG]
        driver = "postgresql"
        url = { env = "PG" }
        identity = ["a", "b", "nobody"]
    "#;
    let problems = load(wrong, &variables).unwrap_err();
    let expected = [
        "identity.a.user: `{mail}` is not known; use {name}, {user}, {domain}",
        "identity.a.group: `everybody` names the same principal for everybody; use {name} or {user}",
        "identity.b.bind_password.env: the variable `NOT_SET` is not set, or empty",
        "identity.b.url: `ldap://directory` would carry the password in the clear; write `ldaps://`, or set starttls",
        "identity.b.user_filter: `mail={name}` is not a filter; write it in parentheses: `(mail={name})`",
        "identity.b.group: `roles` is not known; use one of: members, attribute",
        "identity.c.kind: `file` is not known; use one of: template, table, ldap",
        "identity.d.url: is no address of a directory; write `ldaps://HOST` or `ldap://HOST`",
        "identity.d.member_atribute: is not a configuration key; did you mean `identity.d.member_attribute`?",
        "targets.PG.identity: there is no [identity.nobody]; there are: a, d",
    ];
    for line in expected {
        assert!(problems.iter().any(|problem| problem == line), "missing: {line}\nfound: {problems:#?}");
    }
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
}

#[test]
fn removed_bound_of_attempts_names_the_time_for_retries() {
    let told = "operations.max_attempts: is not a key any more; remove it, and set operations.retry_for: transient \
                failures are retried for that long, however many runs it takes";
    assert_eq!(load("[operations]\nmax_attempts = 5\n", &[]).unwrap_err(), [told]);
    let variable = [("LANDFALL__OPERATIONS__MAX_ATTEMPTS", "5")];
    assert_eq!(load("", &variable).unwrap_err(), [told]);
    let config = load("", &[]).unwrap();
    assert_eq!(config.operations.retry_for, Duration::from_secs(3600));
}

#[test]
fn limits_of_callers_are_read_and_checked() {
    let config = load("", &[]).unwrap();
    let server = &config.server;
    assert_eq!((server.handshake_timeout, server.max_handshakes), (Duration::from_secs(3), 256));
    assert_eq!((server.min_body_rate, server.max_connections), (1024, 768));
    assert!(server.allowed_origins.is_empty());
    assert_eq!((config.log.peer_lines, config.auth.limits.max_waiting), (20, 1000));
    let text = "[server]\nmin_body_rate = 0\nallowed_origins = [\"https://a.example\", \"http://b:1\"]\n";
    let server = load(text, &[]).unwrap().server;
    assert_eq!((server.min_body_rate, server.allowed_origins.len()), (0, 2));

    let wrong = "[server]\nmax_connections = 0\nheader_timeout = \"0s\"\nallowed_origins = [\"*\", \"a.example\", \
                 \"https://A.example\", \"https://a.example/\"]\n[server.tls]\nmax_handshakes = 0\n\
                 handshake_timeout = \"3\"\n[auth]\nmax_waiting = 0\n[log]\npeer_lines = 0\n";
    let problems = load(wrong, &[]).unwrap_err();
    let not_an_origin = |origin: &str| {
        format!(
            "server.allowed_origins: `{origin}` is not an origin; write `https://HOST` or `https://HOST:PORT`, in lower \
             case"
        )
    };
    for expected in [
        "server.max_connections: `0` is too small; at least 1 is needed".to_owned(),
        "server.header_timeout: `0s` is too short; at least 1 ms is needed".to_owned(),
        not_an_origin("*"),
        not_an_origin("a.example"),
        not_an_origin("https://A.example"),
        not_an_origin("https://a.example/"),
        "server.tls.max_handshakes: `0` is too small; at least 1 is needed".to_owned(),
        "server.tls.handshake_timeout: `3` is not a duration; write a number and a unit: 500ms, 30s, 5m, 1h"
            .to_owned(),
        "server.tls.certificate: is missing; name a PEM file".to_owned(),
        "server.tls.key: is missing; name a PEM file".to_owned(),
        "auth.max_waiting: `0` is too small; at least 1 is needed".to_owned(),
        "log.peer_lines: `0` is too small; at least 1 is needed".to_owned(),
    ] {
        assert!(problems.contains(&expected), "missing: {expected}\nfound: {problems:#?}");
    }
    assert_eq!(problems.len(), 12, "{problems:#?}");
}

#[test]
fn updates_of_imports_may_have_other_prefixes() {
    let mesh = || ("spec.mesh".to_owned(), vec!["spec.mesh".to_owned()]);
    let import = |text: &str| load(text, &[]).map(|config| config.import);
    let default = Import { environment_key: "environmentSpecificConfig".to_owned(), prefixes: vec![mesh()] };
    assert_eq!(import("").unwrap(), default);
    let list = import("[import]\nprefixes = [\"spec.mesh\", \"parameters\"]\n").unwrap();
    let both = vec!["spec.mesh".to_owned(), "parameters".to_owned()];
    assert_eq!(list.prefixes, [("spec.mesh".to_owned(), both.clone())]);
    let variables = [("LANDFALL__IMPORT__PREFIXES", "[\"spec.mesh\", \"parameters\"]")];
    assert_eq!(load("", &variables).unwrap().import.prefixes, list.prefixes);
    // With quotes or without.
    let table = "[import]\nenvironment_key = \"custom\"\n[import.prefixes]\n\"spec.mesh.dataContract\" = \"parameters.contract\"\n\
                 spec.mesh.specific.table = [\"environmentParameters.table\"]\nspec.mesh.tags = []\n";
    let read = import(table).unwrap();
    assert_eq!(read.environment_key, "custom");
    let mut prefixes = read.prefixes;
    prefixes.sort();
    let one = |from: &str, to: &[&str]| (from.to_owned(), to.iter().map(|to| (*to).to_owned()).collect());
    assert_eq!(
        prefixes,
        [
            mesh(),
            one("spec.mesh.dataContract", &["parameters.contract"]),
            one("spec.mesh.specific.table", &["environmentParameters.table"]),
            one("spec.mesh.tags", &[]),
        ]
    );
}

#[test]
fn reports_mistakes_in_update_prefixes_at_startup() {
    const ROOTS: &str = "spec.mesh, parameters, environmentParameters, witboost.parameters";
    let refused = |text: &str| load(text, &[]).unwrap_err();
    assert_eq!(
        refused("[import]\nenvironment_key = \" \"\nprefixes = [\"parameter\", \"spec.mesh.\", \"metadata\"]\nprefix = 1\n"),
        [
            "import.environment_key: ` ` is empty; write the environmentSpecificConfigKey of the control plane".to_owned(),
            format!(
                "import.prefixes: `parameter` is no place for updates; use {ROOTS}, or a path below one; did you mean \
                 `parameters`?"
            ),
            format!(
                "import.prefixes: `spec.mesh.` is no place for updates; use {ROOTS}, or a path below one; did you mean \
                 `spec.mesh`?"
            ),
            format!("import.prefixes: `metadata` is no place for updates; use {ROOTS}, or a path below one"),
            "import.prefix: is not a configuration key; did you mean `import.prefixes`?".to_owned(),
        ]
    );
    assert_eq!(
        refused("[import]\nenvironment_key = \"descriptor\"\nprefixes = 7\n"),
        [
            "import.environment_key: `descriptor` means something else in the parameters of an import; write the \
             environmentSpecificConfigKey of the control plane"
                .to_owned(),
            format!("import.prefixes: must be text or a list of texts, each beginning with one of: {ROOTS}"),
        ]
    );
    assert_eq!(
        refused("import.prefixes = []\n"),
        [format!("import.prefixes: leaves no update; name one of: {ROOTS}")]
    );
    let fields = "spec.mesh.description, spec.mesh.tags, spec.mesh.dataContract.schema, \
                  spec.mesh.dataContract.termsAndConditions, spec.mesh.dataContract.endpoint, spec.mesh.dataContract.SLA, \
                  spec.mesh.dataContract.slaProperties, spec.mesh.dataSharingAgreement, spec.mesh.specific";
    assert_eq!(
        refused(
            "[import.prefixes]\n\"spec.mesh.tag\" = \"parameters.a\"\n\"spec.mesh.description\" = \"parameters.b\"\n\
             \"spec.mesh.tags\" = [\"parameters.c\", \"parameters.b\"]\nother = [1]\n"
        ),
        [
            format!("import.prefixes.other: must be text or a list of texts, each beginning with one of: {ROOTS}"),
            format!(
                "import.prefixes.spec.mesh.tag: no update of an import begins with `spec.mesh.tag`; use spec.mesh, or one \
                 of: {fields}; did you mean `spec.mesh.tags`?"
            ),
            "import.prefixes.spec.mesh.tags: `parameters.b` is also the replacement of `spec.mesh.description`; give each a \
             different one"
                .to_owned(),
        ]
    );
}
