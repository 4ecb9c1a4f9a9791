//! A connection between a server and its database that can fail as networks do.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

/// What the proxy does with the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Whole,
    /// No byte is delivered in either direction; connections stay open, and new ones are accepted.
    BlackHole,
    /// Connections are reset, and so are new ones.
    Cut,
}

/// Forwards a loopback port to another port, until the value is dropped. A thread of its own does this, so the
/// test may block.
pub(crate) struct Proxy {
    port: u16,
    wire: Arc<watch::Sender<Wire>>,
    _alive: oneshot::Sender<()>,
}

impl Proxy {
    /// Starts a proxy to a port on this machine.
    pub(crate) fn to(port: u16) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.set_nonblocking(true).expect("non-blocking");
        let own = listener.local_addr().expect("an address").port();
        let wire = Arc::new(watch::Sender::new(Wire::Whole));
        let (_alive, dropped) = oneshot::channel();
        let state = wire.subscribe();
        thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = serve(listener, SocketAddr::from((Ipv4Addr::LOCALHOST, port)), state) => {}
                    _ = dropped => {}
                }
            });
        });
        Self { port: own, wire, _alive }
    }

    /// The same URL, through this proxy.
    pub(crate) fn url(&self, url: &str) -> String {
        let mut url: url::Url = url.parse().expect("a URL");
        url.set_port(Some(self.port)).expect("it has a host");
        url.into()
    }

    /// Stops the delivery of bytes, without a reset.
    pub(crate) fn black_hole(&self) {
        self.wire.send_replace(Wire::BlackHole);
    }

    /// Resets every connection, and each new one.
    pub(crate) fn cut(&self) {
        self.wire.send_replace(Wire::Cut);
    }

    /// Returns to the normal state, and delivers the bytes that were held.
    pub(crate) fn heal(&self) {
        self.wire.send_replace(Wire::Whole);
    }
}

async fn serve(listener: TcpListener, to: SocketAddr, wire: watch::Receiver<Wire>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        tokio::spawn(forward(client, to, wire.clone()));
    }
}

async fn forward(mut client: TcpStream, to: SocketAddr, mut wire: watch::Receiver<Wire>) {
    let mut cut = wire.clone();
    let mut server = None;
    tokio::select! {
        () = relay(&mut client, &mut server, to, &mut wire) => {}
        _ = cut.wait_for(|wire| *wire == Wire::Cut) => {
            // A reset, without a proper close.
            for stream in server.iter().chain([&client]) {
                let _ = stream.set_zero_linger();
            }
        }
    }
}

/// Copies bytes until one side closes: for these two ends, a half-closed connection is closed.
async fn relay(
    client: &mut TcpStream,
    server: &mut Option<TcpStream>,
    to: SocketAddr,
    wire: &mut watch::Receiver<Wire>,
) {
    if wire.wait_for(|wire| *wire == Wire::Whole).await.is_err() {
        return;
    }
    let Ok(connected) = TcpStream::connect(to).await else { return };
    let (from_server, to_server) = server.insert(connected).split();
    let (from_client, to_client) = client.split();
    tokio::select! {
        () = copy(from_client, to_server, wire.clone()) => {}
        () = copy(from_server, to_client, wire.clone()) => {}
    }
}

async fn copy(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut wire: watch::Receiver<Wire>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if wire.wait_for(|wire| *wire == Wire::Whole).await.is_err()
            || to.write_all(&buffer[..read]).await.is_err()
        {
            return;
        }
    }
}

/// Sends bytes to an echo server through the proxy, and reads an answer. `None` without an answer in 300 ms.
async fn echo(stream: &mut TcpStream) -> Option<std::io::Result<usize>> {
    let asked = async {
        stream.write_all(b"ping").await?;
        stream.read(&mut [0; 4]).await
    };
    tokio::time::timeout(Duration::from_millis(300), asked).await.ok()
}

#[tokio::test]
async fn proxy_forwards_holds_delivers_and_resets_connections() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    let proxy = Proxy::to(port);
    let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port));
    let mut stream = connect().await.unwrap();
    assert_eq!(echo(&mut stream).await.unwrap().unwrap(), 4);

    proxy.black_hole();
    assert!(echo(&mut stream).await.is_none());
    let mut late = connect().await.unwrap();
    assert!(echo(&mut late).await.is_none(), "a new connection is taken, and carries nothing");
    proxy.heal();
    assert_eq!(stream.read(&mut [0; 4]).await.unwrap(), 4, "what was held is delivered");
    assert_eq!(late.read(&mut [0; 4]).await.unwrap(), 4);

    proxy.cut();
    let reset = echo(&mut stream).await.unwrap().unwrap_err();
    assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
    proxy.heal();
    assert_eq!(echo(&mut connect().await.unwrap()).await.unwrap().unwrap(), 4);
}
