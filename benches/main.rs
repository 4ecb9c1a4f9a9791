//! `make bench`: measures Landfall, and in the same run a baseline on the same machine.
//!
//! Machines differ and are shared, so a figure alone says little. Every measurement runs in rounds that alternate
//! between Landfall and its baseline, and the result is the ratio of the two in the same round. docs/benchmarks.md
//! explains the output.

mod beside;
mod client;
mod fixed;
mod landfall;
mod opaque;
mod place;
mod ports;
#[path = "../tests/support/postgres.rs"]
mod postgres;
mod raw;
mod report;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::future::BoxFuture;

use self::client::load;
use self::landfall::{Landfall, Target, folder, polls, provisions};
use self::place::{Kind, Place};
use self::postgres::{Durability, PostgresServer};
use self::raw::GroupCommit;
use self::report::{Goal, Line, Report, quantile};

/// An error ends the run and is printed.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

const CALLERS: [usize; 3] = [1, 16, 64];
/// How many tasks may run on one target at the same time (`operations.target_concurrency`); the default.
const CONCURRENCY: usize = 8;

/// Finished tasks in a store that counts as empty: enough to request a different one each time.
const FEW: u64 = 2_000;
/// Finished tasks that are requested repeatedly.
const ASKED_AGAIN: usize = 100;

/// The size of the measurements.
struct Scale {
    rounds: usize,
    accepts: Duration,
    polls: Duration,
    latencies: usize,
    retained: u64,
    slept: u64,
    sleep_rounds: usize,
    ports: u64,
    port_rounds: usize,
    validations: usize,
}

impl Scale {
    const FULL: Self = Self {
        rounds: 5,
        accepts: Duration::from_secs(1),
        polls: Duration::from_millis(400),
        latencies: 300,
        retained: 1_000_000,
        slept: 500,
        sleep_rounds: 3,
        ports: 1000,
        port_rounds: 40,
        validations: 20,
    };
    const QUICK: Self = Self {
        rounds: 1,
        accepts: Duration::from_millis(700),
        polls: Duration::from_millis(400),
        latencies: 50,
        retained: 50_000,
        slept: 100,
        sleep_rounds: 1,
        ports: 100,
        port_rounds: 10,
        validations: 3,
    };
}

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    if fixed::serve().await? {
        return Ok(());
    }
    // `cargo test --all-targets` runs this program, too, to test that it starts; a measurement takes minutes, so it
    // needs a variable.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("nothing is measured without --bench: run `make bench`");
        return Ok(());
    }
    let quick = std::env::var_os("QUICK").is_some_and(|value| !value.is_empty() && value != "0");
    let only = std::env::var("ONLY").unwrap_or_default();
    let scale = if quick { Scale::QUICK } else { Scale::FULL };
    let begun = Instant::now();
    let postgres = PostgresServer::start(Durability::Safe)?;
    let cores = std::thread::available_parallelism()?;
    println!(
        "{cores} cores, shared by the server, its database and the load; PostgreSQL {}; disk: {}{}",
        place::version(&postgres)?,
        env!("CARGO_TARGET_TMPDIR"),
        if quick { "; QUICK: too short to conclude anything" } else { "" }
    );
    println!("server: the release profile without optimisation across crates (profile.bench)");
    println!("ratio: the median of the rounds; each round measures both sides, one right after the other");
    let mut report = Report::default();
    let parts = ["sqlite", "postgres", "replicas", "ports", "opaque", "beside"];
    for (part, kind) in [("sqlite", Kind::Sqlite), ("postgres", Kind::Postgres)] {
        if chosen(&only, part, &parts) {
            store(kind, &postgres, &scale, &only, &mut report).await?;
        }
    }
    if chosen(&only, "replicas", &parts) {
        replicas(&postgres, &scale, &mut report).await?;
    }
    if chosen(&only, "ports", &parts) {
        ports::measure(scale.ports, scale.port_rounds, &mut report).await?;
    }
    if chosen(&only, "beside", &parts) {
        beside::measure(scale.validations.min(3), &mut report).await?;
    }
    if chosen(&only, "opaque", &parts) {
        opaque::measure(scale.validations, &mut report).await?;
    }
    report.verdicts();
    println!("\nmeasured in {} s", begun.elapsed().as_secs());
    Ok(())
}

/// Whether `only`, a list of names, selects this part: when it names it, or no part of its kind.
fn chosen(only: &str, part: &str, kind: &[&str]) -> bool {
    let named = |part: &str| only.split(',').any(|one| one == part);
    named(part) || !kind.iter().any(|one| named(one))
}

/// One side of a comparison: its rate with this many callers, measured for this long.
type Side<'a> = Box<dyn Fn(usize, Duration) -> BoxFuture<'a, Result<f64>> + 'a>;

/// The rates of each side, for each round.
async fn contest(rounds: usize, callers: usize, time: Duration, sides: &[Side<'_>]) -> Result<Vec<Vec<f64>>> {
    let mut rates = vec![Vec::with_capacity(rounds); sides.len()];
    for _ in 0..rounds {
        for (side, rates) in sides.iter().zip(&mut rates) {
            rates.push(side(callers, time).await?);
        }
    }
    Ok(rates)
}

/// A server with its store.
struct Site {
    server: Landfall,
    /// A thousand finished tasks, spread over the whole store.
    finished: Vec<String>,
}

impl Site {
    /// Starts a server whose store has this many finished tasks.
    async fn with(kind: Kind, postgres: &PostgresServer, finished: u64) -> Result<Self> {
        let home = folder()?;
        let place = Place::fresh(kind, home.path(), postgres)?;
        let server = Landfall::start(&place.url(), &home)?;
        let mut client = server.client().await?;
        let (_, token) = server.provision(&mut client, Target::Quick).await?;
        server.done(&mut client, &token).await?;
        drop(server);
        let finished = place.fill(finished).await?;
        let server = Landfall::start(&place.url(), &home)?;
        // Skip the number that the task above has.
        server.number();
        Ok(Self { server, finished })
    }

    /// Puts a task that does not end into every slot; returns their tokens.
    async fn occupy(&self) -> Result<Vec<String>> {
        let mut client = self.server.client().await?;
        let mut running = Vec::new();
        for _ in 0..CONCURRENCY {
            running.push(self.server.provision(&mut client, Target::Endless).await?.1);
        }
        // Wait until the tasks have begun and their log lines are in the store.
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(running)
    }
}

/// The exact size of a task's payload.
async fn payload(kind: Kind, postgres: &PostgresServer) -> Result<String> {
    let home = folder()?;
    let place = Place::fresh(kind, home.path(), postgres)?;
    let server = Landfall::start(&place.url(), &home)?;
    server.provision(&mut server.client().await?, Target::Endless).await?;
    place.payload().await
}

async fn store(
    kind: Kind,
    postgres: &PostgresServer,
    scale: &Scale,
    only: &str,
    report: &mut Report,
) -> Result<()> {
    let payload = payload(kind, postgres).await?;
    let home = folder()?;
    let database = postgres.new_database()?;
    let writer = match kind {
        Kind::Sqlite => raw::sqlite(home.path(), &payload).await?,
        Kind::Postgres => raw::postgres(&database, &payload).await?,
    };
    let empty = Site::with(kind, postgres, FEW).await?;
    let seeding = Instant::now();
    let full = Site::with(kind, postgres, scale.retained).await?;
    place::checkpoint(postgres)?;
    println!(
        "\n{}: a payload of {} bytes; empty store: {FEW} finished tasks; full store: {}, put there in {} s",
        kind.name(),
        payload.len(),
        scale.retained,
        seeding.elapsed().as_secs()
    );

    let chosen = |part| chosen(only, part, &["latency", "polls", "accepts"]);
    if chosen("latency") {
        latency(kind, &empty, &full, &writer, scale, report).await?;
    }
    let running = [empty.occupy().await?, full.occupy().await?];
    if chosen("polls") {
        statuses(kind, &empty, &full, &running, scale, report).await?;
    }
    if chosen("accepts") {
        accepts(kind, &empty, &full, &writer, (postgres, &database, &payload), scale, report).await?;
    }
    Ok(())
}

/// Measures the time from sending a request to the first line that its run writes to the trace, by one clock.
async fn latency(
    kind: Kind,
    empty: &Site,
    full: &Site,
    writer: &GroupCommit,
    scale: &Scale,
    report: &mut Report,
) -> Result<()> {
    let sites = [empty, full];
    let mut sent = [Vec::new(), Vec::new()];
    let mut commits = Vec::new();
    for _ in 0..scale.latencies {
        for (site, sent) in sites.iter().zip(&mut sent) {
            let mut client = site.server.client().await?;
            // Wait until the work of the earlier measurement is done.
            tokio::time::sleep(Duration::from_millis(25)).await;
            let at = i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_micros())?;
            let (serial, _) = site.server.provision(&mut client, Target::Traced).await?;
            sent.push((serial, at));
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
        let begun = Instant::now();
        writer.insert_one().await?;
        commits.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut waits = Vec::new();
    for (site, sent) in sites.iter().zip(&sent) {
        let begins: std::collections::HashMap<u64, i64> = site
            .server
            .trace()?
            .into_iter()
            .filter(|(event, ..)| event == "begin")
            .map(|(_, serial, at)| (serial, at))
            .collect();
        let mut times = Vec::with_capacity(sent.len());
        for (serial, at) in sent {
            let begin = begins.get(serial).ok_or("a task that did not begin")?;
            times.push(f64::from(i32::try_from(begin - at)?) / 1e3);
        }
        waits.push(times);
    }
    report.heading(&format!("{}: from the request to the begin of the work, idle server", kind.name()));
    let [empty, full] = waits.as_mut_slice() else { return Err("two sites".into()) };
    for (name, part) in [("p50", 0.5), ("p99", 0.99)] {
        let [of_empty, of_full, of_commit] =
            [&mut *empty, &mut *full, &mut commits].map(|times| [quantile(times, part)]);
        report.line(&Line {
            subject: "latency",
            what: format!("{} accept to start, {name}", kind.name()),
            unit: "ms",
            figures: &of_empty,
            baseline: "one raw insert, one caller",
            base: &of_commit,
            goal: Goal::None,
        });
        report.line(&Line {
            subject: "a full store against an empty one, latency",
            what: format!("{} accept to start, {name}, full store", kind.name()),
            unit: "ms",
            figures: &of_full,
            baseline: "empty store",
            base: &of_empty,
            goal: Goal::AtMost(1.1),
        });
    }
    Ok(())
}

async fn statuses(
    kind: Kind,
    empty: &Site,
    full: &Site,
    running: &[Vec<String>; 2],
    scale: &Scale,
    report: &mut Report,
) -> Result<()> {
    let home = folder()?;
    report.heading(&format!("{}: status polls", kind.name()));
    let [empty_running, full_running] = running;
    for (name, in_empty, in_full) in [
        ("finished, once each", empty.finished.as_slice(), full.finished.as_slice()),
        ("finished, again and again", again(&empty.finished), again(&full.finished)),
        ("running", empty_running, full_running),
    ] {
        let sample = in_empty.first().ok_or("no task")?;
        let answer = empty.server.status(&mut empty.server.client().await?, sample).await?;
        let fixed = fixed::answering(home.path(), &answer)?;
        let requests = [polls(in_empty), polls(in_empty), polls(in_full)];
        let servers = [(fixed.address, &empty.server), (empty.server.address(), &empty.server)];
        let servers = [servers, [(full.server.address(), &full.server); 2]].concat();
        let sides: Vec<Side<'_>> = servers
            .iter()
            .zip(&requests)
            .map(|((address, server), requests)| -> Side<'_> {
                Box::new(move |callers, time| {
                    Box::pin(load(*address, callers, time, 200, requests, server.numbers()))
                })
            })
            .collect();
        for callers in CALLERS {
            let rates = contest(scale.rounds, callers, scale.polls, &sides).await?;
            let [fixed, empty, full] = rates.as_slice() else { return Err("three sides".into()) };
            let baseline = format!("actix, the same {} bytes from memory", answer.len());
            let what = format!("{} {name}, {callers} callers", kind.name());
            report.line(&Line {
                subject: "status polls against a static answer",
                what: what.clone(),
                unit: "polls/s",
                figures: empty,
                baseline: &baseline,
                base: fixed,
                goal: Goal::AtLeast(0.5),
            });
            report.line(&Line {
                subject: "a full store against an empty one, status polls",
                what: what + ", full store",
                unit: "polls/s",
                figures: full,
                baseline: "empty store",
                base: empty,
                goal: Goal::AtLeast(0.9),
            });
        }
    }
    Ok(())
}

fn again(tokens: &[String]) -> &[String] {
    tokens.get(..ASKED_AGAIN).unwrap_or(tokens)
}

async fn accepts(
    kind: Kind,
    empty: &Site,
    full: &Site,
    writer: &GroupCommit,
    (postgres, database, payload): (&PostgresServer, &str, &str),
    scale: &Scale,
    report: &mut Report,
) -> Result<()> {
    report.heading(&format!("{}: durable accepts, every slot busy so that they stay queued", kind.name()));
    let requests = provisions(Target::Endless);
    let home = folder()?;
    let inserting = match kind {
        Kind::Sqlite => fixed::inserting(home.path(), &home.path().display().to_string())?,
        Kind::Postgres => fixed::inserting(home.path(), &postgres.new_database()?)?,
    };
    let mut sides: Vec<Side<'_>> = vec![Box::new(|callers, time| Box::pin(writer.load(callers, time)))];
    let (empty, full) = (&empty.server, &full.server);
    let servers = [(inserting.address, empty), (empty.address(), empty), (full.address(), full)];
    for (address, numbered) in servers {
        let requests = &requests;
        sides.push(Box::new(move |callers, time| {
            Box::pin(load(address, callers, time, 202, requests, numbered.numbers()))
        }));
    }
    if kind == Kind::Postgres {
        sides.push(Box::new(|callers, time| Box::pin(raw::postgres_each(database, payload, callers, time))));
    }
    for callers in CALLERS {
        let rates = contest(scale.rounds, callers, scale.accepts, &sides).await?;
        let [grouped, http, empty, full, each @ ..] = rates.as_slice() else {
            return Err("four sides".into());
        };
        let what = format!("{} accepts, {callers} callers", kind.name());
        let (goal, note) = match each.first() {
            Some(each) => {
                report.line(&Line {
                    subject: "durable accepts against raw inserts",
                    what: what.clone(),
                    unit: "accepts/s",
                    figures: empty,
                    baseline: "raw inserts, a connection and commit each",
                    base: each,
                    goal: Goal::AtLeast(0.7),
                });
                (Goal::None, "raw inserts, one writer that gathers")
            }
            None => (Goal::AtLeast(0.7), "raw inserts, one writer that gathers"),
        };
        report.line(&Line {
            subject: "durable accepts against raw inserts",
            what: what.clone(),
            unit: "accepts/s",
            figures: empty,
            baseline: note,
            base: grouped,
            goal,
        });
        report.line(&Line {
            subject: "durable accepts against raw inserts",
            what: what.clone(),
            unit: "accepts/s",
            figures: empty,
            baseline: "the same writer behind actix",
            base: http,
            goal: Goal::None,
        });
        report.line(&Line {
            subject: "a full store against an empty one, durable accepts",
            what: what + ", full store",
            unit: "accepts/s",
            figures: full,
            baseline: "empty store",
            base: empty,
            goal: Goal::AtLeast(0.9),
        });
    }
    Ok(())
}

/// How long this many servers on one PostgreSQL take for tasks that sleep, 8 at a time each.
async fn replicas(postgres: &PostgresServer, scale: &Scale, report: &mut Report) -> Result<()> {
    report.heading("PostgreSQL: replicas");
    let [mut one, mut two] = [Vec::new(), Vec::new()];
    for _ in 0..scale.sleep_rounds {
        one.push(sleep_through(postgres, 1, scale.slept).await?);
        two.push(sleep_through(postgres, 2, scale.slept).await?);
    }
    report.line(&Line {
        subject: "two replicas against one",
        what: format!("one replica, {} tasks of 200 ms, 8 slots", scale.slept),
        unit: "s",
        figures: &one,
        baseline: "two replicas",
        base: &two,
        goal: Goal::AtLeast(1.9),
    });
    let ideal = client::as_f64(scale.slept) * 0.2 / 8.0;
    report.line(&Line {
        subject: "two replicas against one",
        what: "one replica".to_owned(),
        unit: "s",
        figures: &one,
        baseline: "sleep alone",
        base: &vec![ideal; one.len()],
        goal: Goal::None,
    });
    Ok(())
}

async fn sleep_through(postgres: &PostgresServer, replicas: usize, tasks: u64) -> Result<f64> {
    let home = folder()?;
    let place = Place::fresh(Kind::Postgres, home.path(), postgres)?;
    let mut servers = Vec::new();
    for _ in 0..replicas {
        servers.push(Landfall::start(&place.url(), &home)?);
    }
    // The replicas know one another, and the database server has finished its background writes.
    place::checkpoint(postgres)?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let first = servers.first().ok_or("no server")?;
    let requests = provisions(Target::Sleeping);
    let begun = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_micros();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..16 {
        let server = servers.get(caller % replicas).ok_or("no server")?;
        let mut client = server.client().await?;
        let (requests, numbers) = (Arc::clone(&requests), Arc::clone(first.numbers()));
        callers.spawn(async move {
            loop {
                let number = numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if number >= tasks {
                    return Ok::<_, Error>(());
                }
                let (status, _) = client.call(&requests(number)).await?;
                if status != 202 {
                    return Err(format!("{status} where 202 was due").into());
                }
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    let patience = Instant::now() + Duration::from_secs(120);
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let ends: Vec<i64> =
            first.trace()?.into_iter().filter(|(event, ..)| event == "end").map(|(.., at)| at).collect();
        if ends.len() >= usize::try_from(tasks)? {
            let last = ends.into_iter().max().ok_or("no end")?;
            let micros = i32::try_from(i128::from(last) - i128::try_from(begun)?)?;
            return Ok(f64::from(micros) / 1e6);
        }
        if Instant::now() > patience {
            return Err(format!("{} of {tasks} tasks ended", ends.len()).into());
        }
    }
}
