//! Clients guess passwords and tokens. The cost of the checks is bounded, and callers with valid credentials are
//! served.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use argon2::Argon2;
use argon2::password_hash::PasswordHasher;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::task::JoinSet;

use super::raw::{Connection, RawAnswer, request};
use super::{CANARY, Group, check_log};
use crate::harness::{INSTANCES, Landfall};

const CLIENTS: usize = 250;
/// The default of `auth.concurrency`.
const CONCURRENCY: u64 = 2;
const WAIT: Duration = Duration::from_secs(5);
const MIB: u64 = 1024 * 1024;

pub(super) async fn attack(group: &mut Group) {
    // `landfall hash-password` makes such hashes. Each check takes 19 MiB.
    let hash = Argon2::default().hash_password(b"right").expect("a hash").to_string();
    let newcomers = group.scale.of(4, 20);
    let users: String = ["ops".to_owned(), "eye".to_owned()]
        .into_iter()
        .chain((0..newcomers).map(|number| format!("new{number}")))
        .map(|name| {
            format!(
                "[[auth.users]]\nname = \"{name}\"\nrole = \"read\"\npassword_hash = {{ env = \"HASH\" }}\n"
            )
        })
        .collect();
    let tokens = "[[auth.tokens]]\nname = \"control-plane\"\nhash = { env = \"HASH\" }\n";
    let server = Landfall::with().alone().config(&format!("{users}{tokens}")).env("HASH", &hash).start();
    let address: SocketAddr = server.api().url().trim_start_matches("http://").parse().expect("an address");

    // From now on the server has verified this caller.
    let known = sign_in(address, Ipv4Addr::LOCALHOST, "ops").await;
    group.expect(known.is_ok(), || format!("before anything: {known:?}"));
    let before = resident(&server);
    let guesses = Arc::new(Guesses::default());
    let over = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(guess(address, number, Arc::clone(&guesses), Arc::clone(&over)));
    }

    let seconds = group.scale.of(10, 60);
    let (begun, mut largest, mut come) = (Instant::now(), 0, 0);
    let (mut slowest_known, mut slowest_new) = (Duration::ZERO, Duration::ZERO);
    while begun.elapsed() < Duration::from_secs(seconds) {
        largest = largest.max(resident(&server).unwrap_or_default());
        match sign_in(address, Ipv4Addr::LOCALHOST, "ops").await {
            Ok(took) => slowest_known = slowest_known.max(took),
            Err(answer) => group.fault(format!("a verified caller was refused: {answer}")),
        }
        // A caller that the server has not verified yet, from an address without guesses.
        let due = begun.elapsed().as_secs_f64() / f64::from(u32::try_from(seconds).expect("a minute"));
        #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
        if come < newcomers && due >= (come as f64) / (newcomers as f64) {
            let source = Ipv4Addr::new(127, 0, 9, u8::try_from(come + 1).expect("few"));
            match sign_in(address, source, &format!("new{come}")).await {
                Ok(took) => slowest_new = slowest_new.max(took),
                Err(answer) => group.fault(format!("a new caller was refused: {answer}")),
            }
            come += 1;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    over.store(true, Ordering::Release);
    clients.shutdown().await;

    let count = |of: &AtomicUsize| of.load(Ordering::Acquire);
    group.tried(count(&guesses.refused), &format!("wrong guesses by {CLIENTS} clients in {seconds} s"));
    group.tried(come, "new callers with valid credentials");
    group.measured(format!("{} guesses postponed", count(&guesses.postponed)));
    group.measured(format!(
        "verified callers served within {} ms, new ones within {} ms",
        slowest_known.as_millis(),
        slowest_new.as_millis()
    ));
    group.expect(count(&guesses.refused) > 50, || "fewer than 51 guesses were refused".to_owned());
    group.expect(slowest_known <= Duration::from_secs(2), || {
        format!("a verified caller waited {slowest_known:?}")
    });
    group.expect(slowest_new <= WAIT, || format!("a new caller waited {slowest_new:?}"));
    let wrong = guesses.wrong.lock().expect("no panic").clone();
    group.expect(wrong.is_empty(), || format!("guesses were answered {wrong:?}"));
    if let (Some(before), Some(peak)) = (before, server.peak_memory()) {
        let bound = before + 64 * MIB + CONCURRENCY * 20 * MIB;
        let (before, peak_mib, largest) = (before / MIB, peak / MIB, largest / MIB);
        group.measured(format!(
            "resident memory {before} MiB before, {peak_mib} MiB at most, bound {} MiB",
            bound / MIB
        ));
        group.expect(peak <= bound, || {
            format!("resident memory {before} MiB before, {peak_mib} MiB at most ({largest} MiB seen), bound {} MiB", bound / MIB)
        });
    } else {
        group.skipped("memory: /proc has no value");
    }
    check_log(group, &server.log());
}

/// Resident memory of the server, in bytes.
fn resident(server: &Landfall) -> Option<u64> {
    server.resident_memory()
}

#[derive(Default)]
struct Guesses {
    refused: AtomicUsize,
    /// 500 with Retry-After.
    postponed: AtomicUsize,
    wrong: std::sync::Mutex<Vec<String>>,
}

impl Guesses {
    fn note(&self, answer: &RawAnswer) {
        let retry_after = answer.header("retry-after").is_some();
        match answer.status {
            401 => drop(self.refused.fetch_add(1, Ordering::AcqRel)),
            500 if retry_after => drop(self.postponed.fetch_add(1, Ordering::AcqRel)),
            _ => {
                let mut wrong = self.wrong.lock().expect("no panic");
                if wrong.len() < 5 {
                    wrong.push(format!("{} {}", answer.status, answer.text()));
                }
            }
        }
    }
}

/// One of many guessing clients, ten of them at each address. It guesses for one of two existing users, for unknown
/// users, or for a token.
async fn guess(address: SocketAddr, number: usize, guesses: Arc<Guesses>, over: Arc<AtomicBool>) {
    let source = Ipv4Addr::new(127, 0, 7, u8::try_from(number / 10 + 1).expect("few"));
    let mut tries = 0_usize;
    while !over.load(Ordering::Acquire) {
        let Ok(mut connection) = Connection::open_from(source, address).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        loop {
            tries += 1;
            let name = match number % 4 {
                0 => "ops".to_owned(),
                1 => "eye".to_owned(),
                _ => format!("nobody{number}x{tries}"),
            };
            let bytes = if number % 4 == 3 {
                let value = format!("Bearer {CANARY}-{number}-{tries}");
                request(address, "GET", "/v1/provision/x/status", &[("Authorization", &value)], b"")
            } else {
                let value = format!("Basic {}", STANDARD.encode(format!("{name}:{CANARY}{tries}")));
                request(address, "GET", INSTANCES, &[("Authorization", &value)], b"")
            };
            if connection.send(&bytes).await.is_err() {
                break;
            }
            let Some(answer) = connection.answer(false).await else { break };
            guesses.note(&answer);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Signs in with the right password, and returns how long it took.
async fn sign_in(address: SocketAddr, source: Ipv4Addr, name: &str) -> Result<Duration, String> {
    let begun = Instant::now();
    let value = format!("Basic {}", STANDARD.encode(format!("{name}:right")));
    let bytes = request(address, "GET", INSTANCES, &[("Authorization", &value)], b"");
    let asked = async {
        let mut connection =
            Connection::open_from(source, address).await.map_err(|error| error.to_string())?;
        connection.send(&bytes).await.map_err(|error| error.to_string())?;
        connection.answer(false).await.ok_or_else(|| "no answer".to_owned())
    };
    let answer =
        tokio::time::timeout(WAIT * 3, asked).await.map_err(|_| "no answer in time".to_owned())??;
    match answer.status {
        200 => Ok(begun.elapsed()),
        status => Err(format!("{name}: {status} {} after {:?}", answer.text(), begun.elapsed())),
    }
}
