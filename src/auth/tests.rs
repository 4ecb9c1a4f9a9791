use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt;

use super::*;

const BOUNDS: Bounds = Bounds { memory_kib: 65_536, iterations: 10 };

fn limits() -> Limits {
    Limits {
        concurrency: 2,
        wait: Duration::from_secs(60),
        max_waiting: 100,
        max_failures: 3,
        failure_window: Duration::from_secs(60),
        max_tracked: 100,
    }
}

fn hash(secret: &str) -> Hash {
    Hash::parse(&cheap(secret), &BOUNDS).unwrap()
}

fn user(name: &str, role: Role, password: &str) -> User {
    User { name: name.to_owned(), role, hash: hash(password) }
}

fn token(name: &str, secret: &str) -> Token {
    Token { name: name.to_owned(), hash: hash(secret) }
}

fn credentials() -> Credentials {
    Credentials {
        users: vec![user("ops", Role::Write, "right"), user("dev", Role::Read, "other")],
        tokens: vec![token("control-plane", "old-token"), token("next", "new-token")],
    }
}

/// Callers with a clock that the test sets.
struct Fixture {
    callers: Callers,
    passed: Arc<Mutex<Duration>>,
}

impl Fixture {
    fn new(limits: Limits, credentials: Credentials) -> Self {
        let passed: Arc<Mutex<Duration>> = Arc::default();
        let (start, clock) = (Instant::now(), Arc::clone(&passed));
        let mut callers = Callers::new(limits, credentials).unwrap();
        callers.clock = Arc::new(move || start + *clock.lock().unwrap());
        Self { callers, passed }
    }

    fn pass(&self, time: Duration) {
        *self.passed.lock().unwrap() += time;
    }

    async fn login(&self, from: u8, name: &str, password: &str) -> Result<Role, String> {
        self.basic(from, Some(&basic(name, password))).await
    }

    async fn basic(&self, from: u8, header: Option<&str>) -> Result<Role, String> {
        self.callers.basic(header, address(from)).await.map(|caller| caller.role).map_err(unauthorized_text)
    }

    async fn bearer(&self, from: u8, header: Option<&str>) -> Result<(), String> {
        self.callers.bearer(header, address(from)).await.map_err(unauthorized_text)
    }
}

fn unauthorized_text(denied: Denied) -> String {
    match denied {
        Denied::Unauthorized(text) => text,
        Denied::Overloaded(text) => panic!("nothing here is overloaded: {text}"),
    }
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

fn too_many(seconds: u32) -> Result<Role, String> {
    Err(format!("too many attempts from this address failed; try again in {seconds} s"))
}

fn wrong() -> Result<Role, String> {
    Err(WRONG_USER.to_owned())
}

#[tokio::test]
async fn every_header_gets_the_expected_answer() {
    let callers = Fixture::new(Limits { max_failures: 100, ..limits() }, credentials());
    let open = Fixture::new(limits(), Credentials::default());
    let (ops, dev) = (basic("ops", "right"), basic("dev", "other"));
    let cases: &[(Option<&str>, Result<Role, &str>)] = &[
        (None, Err(NO_USER)),
        (Some(""), Err(MALFORMED_BASIC)),
        (Some("Basic"), Err(MALFORMED_BASIC)),
        (Some("Basic "), Err(MALFORMED_BASIC)),
        (Some("Basic %%%"), Err(MALFORMED_BASIC)),
        (Some(&format!("Basic {}", STANDARD.encode("no colon"))), Err(MALFORMED_BASIC)),
        (Some(&format!("Basic {}", STANDARD.encode(b"ops:\xff"))), Err(MALFORMED_BASIC)),
        (Some(&ops.replace("Basic", "Bearer")), Err(MALFORMED_BASIC)),
        (Some(&basic("ops", &"x".repeat(5000))), Err(MALFORMED_BASIC)),
        (Some(&basic("nobody", "right")), Err(WRONG_USER)),
        (Some(&basic("", "right")), Err(WRONG_USER)),
        (Some(&basic("OPS", "right")), Err(WRONG_USER)),
        (Some(&basic("ops", "wrong")), Err(WRONG_USER)),
        (Some(&basic("ops", "")), Err(WRONG_USER)),
        (Some(&basic("ops", "other")), Err(WRONG_USER)),
        (Some(&basic("ops", "right ")), Err(WRONG_USER)),
        (Some(&ops), Ok(Role::Write)),
        (Some(&ops.replace("Basic", "basic")), Ok(Role::Write)),
        (Some(&dev), Ok(Role::Read)),
        (Some(&basic("ops", "wrong")), Err(WRONG_USER)),
    ];
    for (header, expected) in cases {
        let answer = callers.basic(1, *header).await;
        assert_eq!(
            answer.as_ref().map_err(String::as_str),
            expected.as_ref().map_err(|text| *text),
            "{header:?}"
        );
        assert_eq!(open.basic(1, *header).await, Ok(Role::Write), "without users: {header:?}");
    }
    let caller = callers.callers.basic(Some(&dev), address(1)).await.unwrap();
    assert_eq!(caller, Caller { name: "dev".to_owned(), role: Role::Read });
    assert_eq!(open.callers.basic(None, address(1)).await.unwrap().name, "anonymous");
}

#[tokio::test]
async fn every_token_gets_the_expected_answer() {
    let callers = Fixture::new(Limits { max_failures: 100, ..limits() }, credentials());
    let open = Fixture::new(limits(), Credentials { tokens: Vec::new(), ..credentials() });
    let cases: &[(Option<&str>, Result<(), &str>)] = &[
        (None, Err(NO_TOKEN)),
        (Some(""), Err(MALFORMED_BEARER)),
        (Some("Bearer"), Err(MALFORMED_BEARER)),
        (Some("Bearer "), Err(MALFORMED_BEARER)),
        (Some("Bearer old-token new-token"), Err(MALFORMED_BEARER)),
        (Some("Basic old-token"), Err(MALFORMED_BEARER)),
        (Some("old-token"), Err(MALFORMED_BEARER)),
        (Some(&format!("Bearer {}", "x".repeat(5000))), Err(MALFORMED_BEARER)),
        (Some("Bearer unknown"), Err(WRONG_TOKEN)),
        (Some("Bearer control-plane"), Err(WRONG_TOKEN)),
        (Some("Bearer old-token"), Ok(())),
        (Some("bearer new-token"), Ok(())),
        (Some("Bearer old-token"), Ok(())),
    ];
    for (header, expected) in cases {
        let answer = callers.bearer(1, *header).await;
        assert_eq!(
            answer.as_ref().map_err(String::as_str),
            expected.as_ref().map_err(|text| *text),
            "{header:?}"
        );
        assert_eq!(open.bearer(1, *header).await, Ok(()), "without tokens: {header:?}");
    }
}

#[tokio::test]
async fn refuses_an_address_after_too_many_failures_for_a_user() {
    let callers = Fixture::new(limits(), credentials());
    assert_eq!(callers.login(1, "ops", "1").await, wrong());
    callers.pass(Duration::from_secs(20));
    assert_eq!(callers.login(1, "ops", "2").await, wrong());
    assert_eq!(callers.login(1, "ops", "3").await, too_many(40));
    // The right password is refused, too: nothing is verified any more.
    assert_eq!(callers.login(1, "ops", "right").await, too_many(40));
    // Others are served: another user at this address, and the same user at another address.
    assert_eq!(callers.login(1, "dev", "other").await, Ok(Role::Read));
    assert_eq!(callers.login(2, "ops", "right").await, Ok(Role::Write));
    // A password that was verified at another address is accepted here, too. A wrong password still is not.
    assert_eq!(callers.login(1, "ops", "right").await, Ok(Role::Write));
    assert_eq!(callers.login(1, "ops", "4").await, too_many(40));
    callers.pass(Duration::from_secs(39));
    assert_eq!(callers.login(1, "ops", "5").await, too_many(1));
    callers.pass(Duration::from_secs(1));
    assert_eq!(callers.login(1, "ops", "6").await, wrong());
    // Tokens are counted separately.
    for _ in 0..2 {
        assert_eq!(callers.bearer(1, Some("Bearer x")).await, Err(WRONG_TOKEN.to_owned()));
    }
    assert!(callers.bearer(1, Some("Bearer x")).await.unwrap_err().starts_with("too many attempts"));
    assert!(callers.bearer(1, Some("Bearer old-token")).await.unwrap_err().starts_with("too many attempts"));
    assert_eq!(callers.bearer(2, Some("Bearer old-token")).await, Ok(()));
    assert_eq!(callers.bearer(1, Some("Bearer old-token")).await, Ok(()), "verified from elsewhere");
    assert_eq!(callers.login(1, "ops", "7").await, wrong());
}

/// For every sequence of attempts, an existing and an unknown name get the same answers.
#[tokio::test]
async fn no_response_reveals_whether_a_name_exists() {
    for others in 0..5 {
        let mut told = Vec::new();
        for name in ["ops", "nobody"] {
            let callers = Fixture::new(limits(), credentials());
            let mut answers = Vec::new();
            for n in 0..others {
                answers.push(callers.login(1, &format!("stranger {n}"), "x").await);
            }
            for _ in 0..5 {
                answers.push(callers.login(1, name, "x").await);
            }
            answers.push(callers.login(1, "stranger", "x").await);
            callers.pass(Duration::from_secs(60));
            answers.push(callers.login(1, name, "x").await);
            told.push(answers);
        }
        assert_eq!(told[0], told[1]);
    }
}

#[tokio::test]
async fn an_unknown_name_costs_the_most_expensive_hash() {
    let expensive = "$argon2id$v=19$m=64,t=3,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b9dWRWJTmaaJObG";
    let expensive = Hash::parse(expensive, &BOUNDS).unwrap();
    let mut credentials = credentials();
    credentials.users.insert(1, User { hash: expensive.clone(), ..user("x", Role::Read, "") });
    assert_eq!(Book::new(credentials, &Book::default()).decoy, Some(expensive));
}

#[tokio::test]
async fn a_reload_forgets_only_secrets_with_changed_hashes() {
    let callers = Fixture::new(Limits { max_failures: 1, ..limits() }, credentials());
    assert_eq!(callers.login(1, "ops", "right").await, Ok(Role::Write));
    assert_eq!(callers.login(1, "dev", "other").await, Ok(Role::Read));
    assert_eq!(callers.bearer(1, Some("Bearer old-token")).await, Ok(()));
    let mut next = credentials();
    let same = Hash::parse(callers.callers.book().users["dev"].hash.text(), &BOUNDS).unwrap();
    next.users = vec![user("ops", Role::Read, "newer"), User { hash: same, ..user("dev", Role::Write, "") }];
    next.tokens.remove(0);
    callers.callers.reload(next);
    // Above the limit, only remembered credentials are accepted.
    assert_eq!(callers.login(9, "ops", "right").await, too_many(60), "it is not the old one any more");
    assert_eq!(callers.login(9, "dev", "x").await, too_many(60));
    assert_eq!(callers.login(9, "dev", "other").await, Ok(Role::Write), "remembered, with the new role");
    assert_eq!(callers.login(9, "ops", "newer").await, too_many(60));
    assert_eq!(callers.login(8, "ops", "newer").await, Ok(Role::Read));
    assert!(callers.bearer(7, Some("Bearer old-token")).await.is_err());
    assert_eq!(callers.bearer(8, Some("Bearer new-token")).await, Ok(()));
    callers.callers.reload(Credentials::default());
    assert_eq!(callers.basic(1, None).await, Ok(Role::Write));
}

#[tokio::test]
async fn remembers_one_digest_per_user_and_no_secret() {
    let callers = Fixture::new(limits(), credentials());
    assert_eq!(callers.login(1, "ops", "right").await, Ok(Role::Write));
    let book = callers.callers.book();
    let ops = &book.users["ops"];
    assert!(ops.remembers(&callers.callers.key, "right"));
    for secret in ["wrong", "", "right ", "ops", "rightright"] {
        assert!(!ops.remembers(&callers.callers.key, secret), "{secret}");
    }
    assert!(book.users["dev"].seen.lock().unwrap().is_none());
    let another_process = Fixture::new(limits(), credentials());
    assert!(!ops.remembers(&another_process.callers.key, "right"), "the key is of this process");
    let shown = format!("{:?} {:?}", callers.callers, credentials());
    assert!(!shown.contains("right") && !shown.contains("argon2id"), "{shown}");
}

#[tokio::test]
async fn caller_without_a_turn_gets_overloaded_uncounted() {
    let callers = Fixture::new(Limits { wait: Duration::from_millis(1), ..limits() }, credentials());
    assert_eq!(callers.login(3, "dev", "other").await, Ok(Role::Read));
    let turns = &callers.callers.turns;
    let (first, second) = (turns.take(address(1), 0).await, turns.take(address(2), 0).await);
    let right = basic("ops", "right");
    for _ in 0..5 {
        let denied = callers.callers.basic(Some(&right), address(3)).await.unwrap_err();
        let text = "too many callers are being checked, which is the limit; try again later";
        assert_eq!(denied, Denied::Overloaded(text.to_owned()));
    }
    // Remembered credentials need no permit, and neither do credentials that are refused without verification.
    assert_eq!(callers.login(3, "dev", "other").await, Ok(Role::Read));
    assert_eq!(callers.basic(3, None).await, Err(NO_USER.to_owned()));
    drop((first, second));
    // Another thread returns the permit. The wait in the other fixture is too short to rely on that.
    let generous = Fixture::new(limits(), credentials());
    assert_eq!(generous.login(3, "ops", "right").await, Ok(Role::Write));
}

/// A caller that cannot wait at all is refused at once, not after the wait.
#[tokio::test]
async fn refuses_callers_beyond_max_waiting_at_once() {
    let callers = Fixture::new(Limits { max_waiting: 1, ..limits() }, credentials());
    let turns = &callers.callers.turns;
    let held = (turns.take(address(1), 0).await, turns.take(address(2), 0).await);
    let right = basic("ops", "right");
    let mut earlier = Box::pin(callers.callers.basic(Some(&right), address(3)));
    assert!(earlier.as_mut().now_or_never().is_none());
    let mut later = Box::pin(callers.callers.basic(Some(&right), address(4)));
    assert!(later.as_mut().now_or_never().is_none());
    assert_eq!(earlier.now_or_never(), Some(Err(busy())));
    drop(held);
    assert_eq!(later.await.map(|caller| caller.role), Ok(Role::Write));
}

#[tokio::test]
async fn counts_failures_of_callers_that_disconnect() {
    let callers = Fixture::new(Limits { max_failures: 1, ..limits() }, credentials());
    let header = basic("ops", "wrong");
    // All verification threads are busy, so the caller disconnects before its secret is verified.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    for _ in 0..callers.callers.limits.concurrency {
        let held = Arc::clone(&held);
        let busy = callers.callers.verifiers.run(move |_| held.lock().unwrap().recv());
        assert!(Box::pin(busy).as_mut().now_or_never().is_none());
    }
    {
        let mut attempt = Box::pin(callers.callers.basic(Some(&header), address(1)));
        // By now its hash is being computed.
        assert!(attempt.as_mut().now_or_never().is_none());
    }
    drop(release);
    // The attempt is counted before its turn ends.
    drop(callers.callers.turns.take(address(1), 0).await);
    assert_eq!(callers.login(1, "ops", "right").await, too_many(60));
}

/// Ten simultaneous requests of one new caller cost one verification: the others use the remembered result.
#[tokio::test]
async fn requests_of_one_caller_wait_for_each_other() {
    let callers = Fixture::new(limits(), credentials());
    let logins = (0..10).map(|_| callers.login(1, "ops", "right"));
    let answers = futures::future::join_all(logins).await;
    assert!(answers.iter().all(|answer| *answer == Ok(Role::Write)), "{answers:?}");
    // Ten wrong passwords cost three verifications: then the limit is reached, and the others are refused.
    let logins = (0..10).map(|_| callers.login(1, "dev", "wrong"));
    let answers = futures::future::join_all(logins).await;
    let looked_at = answers.iter().filter(|answer| **answer == wrong()).count();
    assert_eq!(looked_at, 2, "{answers:?}");
}
