//! HTTP/1.1 byte by byte, for requests that no HTTP client sends.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// A complete response.
#[derive(Debug, Clone)]
pub(super) struct RawAnswer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl RawAnswer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The state of a connection after an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The server keeps the connection open.
    Open,
    /// The server closed or reset the connection.
    Closed,
    /// The expected answers did not arrive in time.
    Silent,
}

/// The answers to the bytes that were sent.
#[derive(Debug, Clone)]
pub(super) struct Exchange {
    pub(super) answers: Vec<RawAnswer>,
    pub(super) end: End,
    pub(super) took: Duration,
}

/// A connection, and the bytes that were read and not parsed yet.
pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> std::io::Result<Self> {
        Ok(Self { stream: TcpStream::connect(address).await?, buffer: Vec::new() })
    }

    /// Opens a connection with a small receive buffer.
    pub(super) async fn open_narrow(address: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?;
        Ok(Self { stream: socket.connect(address).await?, buffer: Vec::new() })
    }

    /// Opens a connection from another loopback address.
    pub(super) async fn open_from(source: Ipv4Addr, address: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((source, 0)))?;
        Ok(Self { stream: socket.connect(address).await?, buffer: Vec::new() })
    }

    pub(super) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Sends bytes. The server may not read all of them.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Reads the next answer. `None` once the server has closed the connection. With `head`, the answer has no
    /// body, even if its headers declare one.
    pub(super) async fn answer(&mut self, head: bool) -> Option<RawAnswer> {
        loop {
            if let Some((answer, used)) = parse(&self.buffer, head, false) {
                self.buffer.drain(..used);
                // Interim answers (1xx) are skipped.
                if answer.status >= 200 {
                    return Some(answer);
                }
                continue;
            }
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk).await {
                Ok(read @ 1..) => self.buffer.extend_from_slice(&chunk[..read]),
                _ => {
                    let last = parse(&self.buffer, head, true);
                    self.buffer.clear();
                    return last.map(|(answer, _)| answer).filter(|answer| answer.status >= 200);
                }
            }
        }
    }
}

/// Sends bytes on a new connection, and reads up to `answers` answers.
pub(super) async fn exchange(
    address: SocketAddr,
    bytes: &[u8],
    answers: usize,
    head: bool,
    timeout: Duration,
) -> Exchange {
    let begun = Instant::now();
    let mut got = Vec::new();
    let Ok(mut connection) = Connection::open(address).await else {
        return Exchange { answers: got, end: End::Closed, took: begun.elapsed() };
    };
    // After the server has closed, written bytes are lost, but earlier answers can still be read.
    let end = {
        let (mut read, mut write) = connection.stream.split();
        let mut buffer = Vec::new();
        let reading = async {
            while got.len() < answers {
                if let Some((answer, used)) = parse(&buffer, head, false) {
                    buffer.drain(..used);
                    got.extend((answer.status >= 200).then_some(answer));
                    continue;
                }
                let mut chunk = [0; 16 * 1024];
                match read.read(&mut chunk).await {
                    Ok(n @ 1..) => buffer.extend_from_slice(&chunk[..n]),
                    _ => {
                        let last = parse(&buffer, head, true).map(|(answer, _)| answer);
                        got.extend(last.filter(|answer| answer.status >= 200));
                        return End::Closed;
                    }
                }
            }
            End::Open
        };
        let writing = async {
            let _ = write.write_all(bytes).await;
            std::future::pending::<()>().await;
        };
        let whole = async {
            tokio::select! {
                end = reading => end,
                () = writing => End::Silent,
            }
        };
        tokio::time::timeout(timeout, whole).await.unwrap_or(End::Silent)
    };
    Exchange { answers: got, end, took: begun.elapsed() }
}

/// The first answer in these bytes, and its length. With `closed`, no more bytes will arrive.
fn parse(bytes: &[u8], head: bool, closed: bool) -> Option<(RawAnswer, usize)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = text.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut answer = RawAnswer { status, headers, body: Vec::new() };
    if head || status < 200 || matches!(status, 204 | 304) {
        return Some((answer, end));
    }
    let rest = &bytes[end..];
    if answer.header("transfer-encoding").is_some() {
        let (body, used) = dechunk(rest)?;
        answer.body = body;
        return Some((answer, end + used));
    }
    match answer.header("content-length").map(str::parse::<usize>) {
        Some(Ok(length)) if rest.len() >= length => {
            answer.body = rest[..length].to_vec();
            Some((answer, end + length))
        }
        Some(_) => None,
        None if closed => {
            answer.body = rest.to_vec();
            Some((answer, bytes.len()))
        }
        None => None,
    }
}

fn dechunk(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = bytes[at..].windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + line]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        at += line + 2;
        if bytes.len() < at + size + 2 {
            return None;
        }
        body.extend_from_slice(&bytes[at..at + size]);
        at += size + 2;
        if size == 0 {
            return Some((body, at));
        }
    }
}

/// A request with a Host and, where there is a body, its length.
pub(super) fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    let has = |name: &str| headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name));
    if !has("host") {
        text.push_str(&format!("Host: {address}\r\n"));
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() && !has("content-length") && !has("transfer-encoding") {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    [text.as_bytes(), body].concat()
}

#[test]
fn parser_reads_consecutive_answers() {
    let two =
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 400 Bad\r\n\
                transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nrest";
    let (first, used) = parse(two, false, false).unwrap();
    assert_eq!(first.status, 100);
    let (second, more) = parse(&two[used..], false, false).unwrap();
    assert_eq!((second.status, second.text()), (200, "{}".to_owned()));
    let (third, last) = parse(&two[used + more..], false, false).unwrap();
    assert_eq!((third.status, third.text()), (400, "abc".to_owned()));
    assert_eq!(&two[used + more + last..], b"rest");
}
