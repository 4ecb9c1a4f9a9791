//! Private data: descriptors, access lists and the messages of a provider are in no log, and the internal cause of a
//! failure is in no answer.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::auth::cheap_hash;
use crate::harness::{
    Cluster, INSTANCES, Landfall, OUTPUT_PORT, STORAGE, acl_request, cashflow, cashflow_with_rows,
    component_request, http, product_request, replace_once, walk,
};
use crate::postgres::PostgresServer;

#[tokio::test]
async fn descriptors_and_principals_are_not_logged() {
    let server = Landfall::start();
    let api = server.api();
    let marked = replace_once(
        &cashflow_with_rows(),
        "description: Data product representing operating cashflows",
        "description: CANARY-DESCRIPTION",
    )
    .replace("CF-001", "CANARY-ROW");

    assert_eq!(api.validate(&product_request(&marked)).await["valid"], true);
    api.provision_and_wait(&product_request(&marked)).await;
    let refs = ["user:canary.person_example.com", "group:canary-group"];
    let mut request = acl_request(&marked, OUTPUT_PORT, &refs);
    request["accessControlFields"] = json!({ "reason": "CANARY-FIELD" });
    api.complete("/v1/updateacl", &request).await;

    let broken = replace_once(&marked, "dataType: number", "dataType: CANARY-TYPE");
    api.post("/v1/provision", &component_request(&broken, OUTPUT_PORT)).await.with_status(400);
    let torn = format!("{marked}\n  CANARY-TORN: [");
    api.post("/v1/provision", &product_request(&torn)).await.with_status(400);

    let log = server.log();
    assert!(!log.is_empty(), "the server logs something");
    let leaked: Vec<_> = log.lines().filter(|line| line.to_lowercase().contains("canary")).collect();
    assert!(leaked.is_empty(), "{}", leaked.join("\n"));
}

#[tokio::test]
async fn log_contains_the_token_of_each_operation() {
    let server = Landfall::start();
    let token = server.api().post("/v1/provision", &product_request(&cashflow())).await.token();
    server.api().wait(&token).await;
    assert!(server.log().contains(&token), "no line names {token}:\n{}", server.log());
}

/// At every log level: tokens, passwords and hashes, right and wrong ones, are in no log line, no answer and no file.
#[tokio::test]
async fn credentials_of_callers_are_never_written() {
    let (token, password) = ("secret-token-5e1d", "secret-password-77aa");
    let (wrong_token, wrong_password) = ("wrong-token-c0de", "wrong-password-beef");
    let (token_hash, user_hash) = (cheap_hash(token), cheap_hash(password));
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users.toml");
    let listed =
        |hash: &str| format!("[[users]]\nname = \"dev\"\nrole = \"read\"\npassword_hash = \"{hash}\"\n");
    std::fs::write(&users, listed(&user_hash)).unwrap();
    let config = format!(
        "[auth]\nmax_failures = 4\nusers_file = \"{}\"\n\
         [[auth.users]]\nname = \"ops\"\nrole = \"write\"\npassword_hash = \"{user_hash}\"\n\
         [[auth.tokens]]\nname = \"one\"\nhash = {{ env = \"TOKEN_HASH\" }}\n",
        users.display()
    );
    let server = Landfall::with()
        .config(&config)
        .env("TOKEN_HASH", &token_hash)
        .env("LANDFALL__LOG__LEVEL", "trace")
        .start();

    let basic = |password: &str| format!("Basic {}", STANDARD.encode(format!("ops:{password}")));
    let bearer = |token: &str| format!("Bearer {token}");
    let client = http().build().unwrap();
    let mut answers = String::new();
    let request = component_request(&cashflow(), STORAGE);
    for path in ["/v1/provision", "/v1/validate", "/landfall/v1/plan", "/flexdeploy/x", "/nowhere"] {
        for header in [bearer(token), bearer(wrong_token), basic(password), basic(wrong_password)] {
            let url = format!("{}{path}", server.api().url());
            let response =
                client.post(url).header("authorization", &header).json(&request).send().await.unwrap();
            answers.push_str(&format!("{:?}\n", response.headers()));
            answers.push_str(&response.text().await.unwrap());
        }
    }
    // For the instances, one request for each refusal, and one that is accepted.
    for (method, header) in [
        ("GET", basic(password)),
        ("POST", basic(password)),
        ("GET", basic(wrong_password)),
        ("POST", basic(wrong_password)),
        ("GET", bearer(token)),
    ]
    .into_iter()
    .chain((0..5).map(|_| ("GET", format!("Basic {}", STANDARD.encode(format!("dev:{wrong_password}"))))))
    {
        let url = format!("{}{INSTANCES}", server.api().url());
        let body = json!({ "instanceName": "n", "instanceCode": "c" });
        let request =
            client.request(method.parse().unwrap(), url).header("authorization", &header).json(&body);
        let response = request.send().await.unwrap();
        answers.push_str(&format!("{} {:?}\n", response.status(), response.headers()));
        answers.push_str(&response.text().await.unwrap());
    }
    for told in
        ["200 OK", "201 Created", "the name or the password is wrong", "is not `Basic` and the base64"]
    {
        assert!(answers.contains(told), "{told}: {answers}");
    }
    assert!(answers.matches("too many attempts").count() > 1, "{answers}");
    server.settle().await;
    server.reload("read again who may call: 2 users, 1 tokens").await;
    std::fs::write(&users, listed(wrong_password)).unwrap();
    server.reload("the credentials stay unchanged: ").await;
    std::fs::write(&users, listed(wrong_password).replace("[[users]]", "[[users")).unwrap();
    server.reload("the credentials stay unchanged: ").await;

    let log = server.log();
    assert!(log.contains("DEBUG"), "at every level: {log}");
    assert!(answers.contains("the token is wrong") && answers.contains("too many attempts"), "{answers}");
    let (right_pair, wrong_pair) = (basic(password), basic(wrong_password));
    let hash_part = |hash: &str| hash.rsplit('$').next().unwrap().to_owned();
    let secrets = [
        token,
        password,
        wrong_token,
        wrong_password,
        right_pair.strip_prefix("Basic ").unwrap(),
        wrong_pair.strip_prefix("Basic ").unwrap(),
        &hash_part(&token_hash),
        &hash_part(&user_hash),
    ];
    let mut files = 0;
    let mut written =
        vec![("the log".to_owned(), log.into_bytes()), ("an answer".to_owned(), answers.into_bytes())];
    walk(&server.data_dir(), &mut |path| {
        files += 1;
        written.push((path.display().to_string(), std::fs::read(path).unwrap()));
    });
    assert!(files >= 2, "the store is there");
    for (place, content) in &written {
        for secret in secrets {
            let found = content.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "`{secret}` is in {place}");
        }
    }
}

#[tokio::test]
async fn database_password_is_not_logged() {
    let url = PostgresServer::shared().unwrap().new_database().unwrap();
    let password = url.split_once("://").and_then(|(_, rest)| rest.split_once(':')).unwrap().1;
    let password = password.split_once('@').unwrap().0.to_owned();
    let cluster = Cluster::of(1).store(&url).env(0, "LANDFALL__LOG__LEVEL", "trace").start();
    cluster.api(0).provision_and_wait(&component_request(&cashflow(), STORAGE)).await;
    let log = cluster.server(0).log();
    assert!(password.len() > 8 && log.contains("accepted"), "{log}");
    assert!(!log.contains(&password), "{log}");
}
