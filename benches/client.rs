//! The load: callers on persistent connections, each of which sends its next request after the answer to the last.
//!
//! Requests are prepared bytes, and only the status and length of an answer are parsed: the load generator uses the
//! same processors as the server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Result;

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long callers send requests before the measurement starts, so that connections are open and statements
/// prepared.
const WARM_UP: Duration = Duration::from_millis(300);

/// Builds the request with a number; every number is used once.
pub(crate) type Requests = Arc<dyn Fn(u64) -> Vec<u8> + Send + Sync>;

/// One persistent connection.
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(16 * 1024) })
    }

    /// Sends one request, and returns the status and the body of the answer.
    pub(crate) async fn call(&mut self, request: &[u8]) -> Result<(u16, &[u8])> {
        tokio::time::timeout(PATIENCE, self.exchange(request))
            .await
            .map_err(|_| format!("no answer within {PATIENCE:?}"))?
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<(u16, &[u8])> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let mut head = None;
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the server closed the connection".into());
            }
            if head.is_none() {
                head = read_head(&self.buffer)?;
            }
            if let Some((status, start, length)) = head
                && self.buffer.len() >= start + length
            {
                return Ok((status, self.buffer.get(start..start + length).unwrap_or_default()));
            }
        }
    }
}

/// Status, start of the body and its length; `None` while the head is incomplete.
fn read_head(bytes: &[u8]) -> Result<Option<(u16, usize, usize)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(bytes.get(..end).unwrap_or_default())?;
    let status = head.split(' ').nth(1).ok_or("no status")?.parse()?;
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .ok_or("an answer without content-length")?;
    Ok(Some((status, end + 4, length.1.trim().parse()?)))
}

/// A GET of a path.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n").into_bytes()
}

/// A POST of JSON.
pub(crate) fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Answers per second of this many callers in `time`; all answers must have the `expected` status.
pub(crate) async fn load(
    address: SocketAddr,
    callers: usize,
    time: Duration,
    expected: u16,
    requests: &Requests,
    numbers: &Arc<AtomicU64>,
) -> Result<f64> {
    let begin = Instant::now() + WARM_UP;
    let end = begin + time;
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (requests, numbers) = (Arc::clone(requests), Arc::clone(numbers));
        let mut client = Client::connect(address).await?;
        tasks.spawn(async move {
            let mut count = 0_u64;
            loop {
                let request = requests(numbers.fetch_add(1, Ordering::Relaxed));
                let (status, body) = client.call(&request).await?;
                if status != expected {
                    let body = String::from_utf8_lossy(body).into_owned();
                    return Err(crate::Error::from(format!("{status} where {expected} was due: {body}")));
                }
                let now = Instant::now();
                if now >= end {
                    return Ok(count);
                }
                count += u64::from(now >= begin);
            }
        });
    }
    total(tasks, time).await
}

/// Returns the total rate per second of tasks that each return how much they did in `time`.
pub(crate) async fn total(mut tasks: JoinSet<Result<u64>>, time: Duration) -> Result<f64> {
    let mut count = 0.0;
    while let Some(one) = tasks.join_next().await {
        count += as_f64(one??);
    }
    Ok(count / time.as_secs_f64())
}

/// Converts a count to a float; infinity above `u32::MAX`, which no count reaches.
pub(crate) fn as_f64(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

/// The time from which on results of callers without HTTP count, so that they warm up like HTTP callers.
pub(crate) fn warm_until() -> Instant {
    Instant::now() + WARM_UP
}
