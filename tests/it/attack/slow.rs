//! Slow and silent clients. The server answers all other callers quickly meanwhile.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use landfall_adapter::tls::Trust;
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

use super::raw::{Connection, request};
use super::{Group, check_log};
use crate::auth::{Authority, tls_config};
use crate::harness::{Landfall, WORKLOAD, cashflow, component_request, http, https};

/// The time limit for a good request. All slow clients together stay below `server.max_connections`.
const SOON: Duration = Duration::from_secs(2);

/// The behaviour of slow clients of one kind. Each client repeats this behaviour on each new connection.
#[derive(Debug, Clone)]
struct Slow {
    name: &'static str,
    clients: usize,
    /// Sent at once.
    begins: Vec<u8>,
    /// Sent afterwards, one byte a second.
    drips: Vec<u8>,
    /// Whether the client closes its sending half after `begins`.
    half_closes: bool,
    /// Whether the client reads the answers.
    reads: bool,
}

fn slow(name: &'static str, clients: usize, begins: impl Into<Vec<u8>>) -> Slow {
    Slow { name, clients, begins: begins.into(), drips: Vec::new(), half_closes: false, reads: true }
}

fn body_head(length: &str) -> String {
    format!(
        "POST /v1/provision HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
    )
}

pub(super) async fn attack(group: &mut Group) {
    let server = Landfall::with().alone().start();
    let address: SocketAddr = server.api().url().trim_start_matches("http://").parse().expect("an address");
    let drip = |slow: Slow| Slow { drips: b" ".repeat(600), ..slow };
    let large = "Content-Length: 8388607";
    let answers = request(address, "GET", "/nowhere", &[], b"").repeat(150);
    let half = request(address, "POST", "/v1/provision", &[("Content-Length", "1000")], b"{");
    let all = [
        drip(slow("headers, byte by byte", 100, "GET /v1/provision/x/status HTTP/1.1\r\nX-A: ")),
        drip(slow("nine bodies of 8 MB, byte by byte", 9, body_head(large) + "{")),
        slow("ninety bodies of 8 MB, one byte", 90, body_head(large) + "{"),
        slow("twenty bodies of 8 MB, 100 kB", 20, body_head(large) + "{" + &" ".repeat(100_000)),
        slow("ninety bodies in chunks, one byte", 90, body_head("Transfer-Encoding: chunked") + "1\r\n{\r\n"),
        slow("silent connections", 200, ""),
        Slow { reads: false, ..slow("unread answers", 40, answers) },
        Slow { half_closes: true, ..slow("half-closed connections", 50, half) },
    ];
    let seconds = group.scale.of(1, 12);
    let mut served = Served::default();
    if group.scale.full {
        for one in &all {
            served.merge(
                &measure_beside(group, address, std::slice::from_ref(one), seconds, &good_client(&server))
                    .await,
            );
        }
    } else {
        served.merge(&measure_beside(group, address, &all[1..3], seconds, &good_client(&server)).await);
    }
    served.merge(&measure_beside(group, address, &all, seconds * 2, &good_client(&server)).await);
    served.report(group, &all);
    check_log(group, &server.log());
}

/// Slow clients that never finish the TLS handshake.
pub(super) async fn attack_tls(group: &mut Group) {
    let authority = Authority::new();
    let (certificate, key) = authority.server();
    let server = Landfall::with().alone().config(&tls_config((&certificate, &key), None)).start();
    let address: SocketAddr = server.api().url().trim_start_matches("https://").parse().expect("an address");
    // The first bytes of a ClientHello of 512 bytes.
    let torn = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice();
    let all = [
        slow("silent TLS connections", group.scale.of(600, 300), ""),
        slow("torn TLS hellos", 200, torn),
        slow("no TLS at all", 50, "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
    ];
    let good = GoodClient { url: server.api().url().to_owned(), authority: Some(authority.certificate()) };
    let seconds = group.scale.of(3, 20);
    let mut served = measure_beside(group, address, &all[..1], seconds, &good).await;
    if group.scale.full {
        served.merge(&measure_beside(group, address, &all, seconds, &good).await);
    }
    let all = group.scale.of(&all[..1], &all[..]);
    served.report(group, all);
    check_log(group, &server.log());
}

/// A client that sends good requests.
struct GoodClient {
    url: String,
    authority: Option<std::path::PathBuf>,
}

fn good_client(server: &Landfall) -> GoodClient {
    GoodClient { url: server.api().url().to_owned(), authority: None }
}

impl GoodClient {
    fn client(&self) -> reqwest::Client {
        let builder = match &self.authority {
            None => http(),
            Some(authority) => https(Trust::File(Path::new(authority)), None),
        };
        builder.pool_max_idle_per_host(0).timeout(SOON * 5).build().expect("a client")
    }
}

/// The results of the good requests.
#[derive(Default)]
struct Served {
    requests: usize,
    slowest: Duration,
}

impl Served {
    fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.slowest = self.slowest.max(other.slowest);
    }

    fn report(&self, group: &mut Group, all: &[Slow]) {
        let clients: usize = all.iter().map(|one| one.clients).sum();
        let kinds = all.len();
        group.tried(self.requests, &format!("good requests beside {clients} slow clients of {kinds} kinds"));
        group.measured(format!("the slowest good request {} ms", self.slowest.as_millis()));
    }
}

/// Sends good requests on new connections while the slow clients run.
async fn measure_beside(
    group: &mut Group,
    address: SocketAddr,
    all: &[Slow],
    seconds: u64,
    good: &GoodClient,
) -> Served {
    let names: Vec<&str> = all.iter().map(|one| one.name).collect();
    let name = names.join(", ");
    let over = Arc::new(AtomicBool::new(false));
    let opened = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for one in all {
        for _ in 0..one.clients {
            clients.spawn(keep_busy(address, one.clone(), Arc::clone(&over), Arc::clone(&opened)));
        }
    }
    let wanted: usize = all.iter().map(|one| one.clients).sum();
    let end = Instant::now() + Duration::from_secs(10);
    while opened.load(Ordering::Acquire) < wanted && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    group.expect(opened.load(Ordering::Acquire) >= wanted, || format!("{name}: not all could connect"));

    let client = good.client();
    let body = component_request(&cashflow(), WORKLOAD).to_string();
    let larger = format!("{body}{}", " ".repeat(1_000_000));
    let (mut served, mut slowest, mut wrong) = (0_usize, Duration::ZERO, Vec::new());
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        let validate = |body: &str| {
            let post = client.post(format!("{}/v1/validate", good.url));
            post.header("content-type", "application/json").body(body.to_owned())
        };
        let live = client.get(format!("{}/landfall/v1/live", good.url));
        for (what, call) in
            [("a probe", live), ("a validation", validate(&body)), ("1 MB", validate(&larger))]
        {
            let begun = Instant::now();
            let answer = match call.send().await {
                Ok(response) => {
                    let status = response.status().as_u16();
                    let text = response.text().await.unwrap_or_default();
                    (status == 200).then_some(()).ok_or(format!("{status} {text:.200}"))
                }
                Err(error) => Err(format!("{error:?}")),
            };
            let took = begun.elapsed();
            served += 1;
            slowest = slowest.max(took);
            if let Err(answer) = answer {
                wrong.push(format!("{what} after {took:?}: {answer}"));
            } else if took > SOON {
                wrong.push(format!("{what} was served after {took:?}"));
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    over.store(true, Ordering::Release);
    clients.shutdown().await;
    println!("attack {}: {name}: {served} good requests, the slowest {} ms", group.name, slowest.as_millis());
    group.expect(wrong.is_empty(), || {
        format!(
            "{name}: {} of {served} good requests failed: {:?}",
            wrong.len(),
            &wrong[..wrong.len().min(3)]
        )
    });
    Served { requests: served, slowest }
}

/// Runs one slow client. It connects again when the server closes its connection.
async fn keep_busy(address: SocketAddr, slow: Slow, over: Arc<AtomicBool>, opened: Arc<AtomicUsize>) {
    let mut first = true;
    while !over.load(Ordering::Acquire) {
        let opening =
            if slow.reads { Connection::open(address).await } else { Connection::open_narrow(address).await };
        if let Ok(mut connection) = opening {
            let begun = tokio::time::timeout(Duration::from_secs(2), connection.send(&slow.begins)).await;
            if std::mem::take(&mut first) {
                opened.fetch_add(1, Ordering::AcqRel);
            }
            if slow.half_closes {
                let _ = tokio::io::AsyncWriteExt::shutdown(connection.stream()).await;
            }
            match begun {
                // After a timeout the server does not read all bytes. The client still keeps the connection
                // open.
                Err(_) | Ok(Ok(())) => hold_connection(&mut connection, &slow).await,
                Ok(Err(_)) => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Keeps the connection until the server closes it.
async fn hold_connection(connection: &mut Connection, slow: &Slow) {
    let mut drips = slow.drips.chunks(1);
    loop {
        let second = Duration::from_secs(1);
        if slow.reads {
            let mut waste = [0; 4096];
            if let Ok(Ok(0) | Err(_)) =
                tokio::time::timeout(second, connection.stream().read(&mut waste)).await
            {
                return;
            }
        } else {
            tokio::time::sleep(second).await;
        }
        if let Some(drip) = drips.next()
            && connection.send(drip).await.is_err()
        {
            return;
        }
    }
}
