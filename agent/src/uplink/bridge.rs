//! The bridge: rumqttc speaks plain MQTT to a one-shot unix socket, we own the line to the broker.
//!
//! ```text
//!   rumqttc ── unix socket, one peer, 0700 directory ── bridge task ── TCP or TLS ── broker
//! ```
//!
//! Why: rumqttc's own TLS drags outdated verification code in, knows neither keepalive nor TCP_USER_TIMEOUT, cannot tell a refused certificate
//! from a lost line, and keeps certificates for its life. With the line in our hands each connection reads its certificates anew.
//!
//! Life cycle: 1. [`open`] dials (see [`dial`](super::dial)) and only then binds the socket. 2. The task accepts exactly one peer, which must
//! be this very process, and unlinks the socket. 3. It copies both ways. 4. It ends when either side ends, or when the `Bridge` is dropped.
//!
//! Endings matter: what the broker said last (a DISCONNECT with its reason, PUBACKs) must still reach rumqttc, and what rumqttc said last must
//! still reach the broker. So when a write to the line fails, the line is read on; when the line ends, rumqttc gets end-of-file after its last
//! byte and may go on writing into the void; each at most for `BRIDGE_LINGER`. [`Bridge::end`] tells why the line ended; a DISCONNECT is
//! recognised in passing ([`sniff`](super::sniff)). A TLS peer that
//! closes without close_notify has closed normally: mosquitto does.
//!
//! Bounds: two buffers of `BRIDGE_BUFFER_BYTES`. A slow line pushes back on rumqttc, whose `poll` then waits; [`Bridge::bytes_sent`] tells a
//! slow line from a dead one.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::dial::{self, Line, Trace, Traffic, Way, tls_fault};
use super::sniff::Sniffer;
use crate::config::settings::{Endpoint, Proxy};
use crate::limits::{BRIDGE_BUFFER_BYTES, BRIDGE_LINGER, CONNECT_TIMEOUT};

pub use super::dial::{DialError, Waiting};
pub use super::proxy::ProxyError;

/// Why the line to the broker ended.
#[derive(Debug, Clone)]
pub enum End {
    /// The broker closed it.
    Closed,
    /// It broke.
    Lost(Arc<io::Error>),
    /// It said DISCONNECT with this reason code.
    Disconnected(u8),
    /// TLS told a reason after the handshake: in TLS 1.3 a refused client certificate shows only now.
    Tls(Arc<DialError>),
}

#[derive(Debug, Default)]
struct Shared {
    writing: AtomicBool,
    end: Mutex<Option<End>>,
}

impl Shared {
    /// The first reason stands, except that the broker's own word is better than what the socket says.
    fn set_end(&self, end: End) {
        let mut known = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() || matches!(end, End::Tls(_) | End::Disconnected(_)) {
            *known = Some(end);
        }
    }
}

/// One connection. Dropping it closes everything at once; [`Bridge::finish`] lets the last bytes through.
#[derive(Debug)]
pub struct Bridge {
    /// Where rumqttc connects to, once.
    pub socket: PathBuf,
    traffic: Arc<Traffic>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Bridge {
    /// Bytes the kernel took for the line so far, TLS included.
    pub fn bytes_sent(&self) -> u64 {
        self.traffic.sent()
    }

    /// Bytes that came from the line so far, TLS included.
    pub fn bytes_received(&self) -> u64 {
        self.traffic.received()
    }

    /// Bytes are waiting for the line to take them.
    pub fn is_writing(&self) -> bool {
        self.shared.writing.load(Ordering::Relaxed)
    }

    /// Why the line ended; `None` while it has not, or when our side ended it.
    pub fn end(&self) -> Option<End> {
        self.shared.end.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until everything rumqttc wrote has been handed over and the line is closed. rumqttc must have closed its side.
    pub async fn finish(mut self, deadline: Instant) {
        // A task that failed or ran late has nothing more to hand over; dropping `self` ends it.
        let _ = timeout_at(deadline, &mut self.task).await;
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Removes the socket's name when the listener has no more use for it.
struct Unlink(PathBuf);

impl Drop for Unlink {
    fn drop(&mut self) {
        // Not there any more is as good; anything else is found when the name is next bound.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Connects to the broker and offers the connection on a socket in `directory` (made 0700 if it is not there). Must run inside the runtime.
pub async fn open(endpoint: &Endpoint, tls: Option<Arc<ClientConfig>>, directory: &Path, deadline: Instant) -> Result<Bridge, DialError> {
    open_through(None, endpoint, tls, directory, deadline).await
}

/// As [`open`], through a proxy where the endpoint has TLS.
pub async fn open_through(
    proxy: Option<&Proxy>,
    endpoint: &Endpoint,
    tls: Option<Arc<ClientConfig>>,
    directory: &Path,
    deadline: Instant,
) -> Result<Bridge, DialError> {
    let traffic = Arc::<Traffic>::default();
    let line = dial::dial(Way { endpoint, proxy, tls }, &traffic, deadline, &mut Trace::default()).await?;
    let (listener, unlink) = bind(directory)?;
    let socket = unlink.0.clone();
    let shared = Arc::<Shared>::default();
    let ours = Ends { endpoint: endpoint.clone(), shared: shared.clone() };
    let task = tokio::spawn(async move {
        let Some(local) = accept(listener, unlink).await else { return };
        match line {
            Line::Plain(stream) => ours.copy(stream, local).await,
            Line::Tls(stream) => ours.copy(*stream, local).await,
        }
    });
    Ok(Bridge { socket, traffic, shared, task })
}

fn bind(directory: &Path) -> Result<(UnixListener, Unlink), DialError> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let local = |path: &Path| {
        let path = path.to_owned();
        move |source| DialError::Local { path, source }
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(local(directory))?;
    let path = directory.join(format!("{}-{}.mqtt", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
    let unlink = Unlink(path.clone());
    // A name left behind by a process that had our number before and was killed.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(local(&path)(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(local(&path))?;
    Ok((listener, unlink))
}

/// Exactly one peer, and only ourselves. The name is gone when this returns.
async fn accept(listener: UnixListener, _unlink: Unlink) -> Option<UnixStream> {
    let (peer, _) = timeout(CONNECT_TIMEOUT, listener.accept()).await.ok()?.ok()?;
    let pid = peer.peer_cred().ok()?.pid()?;
    (u32::try_from(pid) == Ok(std::process::id())).then_some(peer)
}

/// What the copying needs to tell why it ended.
struct Ends {
    endpoint: Endpoint,
    shared: Arc<Shared>,
}

impl Ends {
    fn of(&self, error: io::Error) -> End {
        match tls_fault(&self.endpoint, &error) {
            Some(fault) => End::Tls(Arc::new(fault)),
            None if error.kind() == io::ErrorKind::UnexpectedEof => End::Closed,
            None => End::Lost(Arc::new(error)),
        }
    }

    async fn copy<S: AsyncRead + AsyncWrite>(&self, line: S, mut local: UnixStream) {
        let (from_line, mut to_line) = tokio::io::split(line);
        let (mut from_local, to_local) = local.split();
        let mut down = pin!(self.down(from_line, to_local));
        let first = {
            let mut up = pin!(self.up(&mut from_local, &mut to_line));
            tokio::select! {
                biased;
                () = &mut down => First::LineRead,
                first = &mut up => first,
            }
        };
        let rest = async {
            match first {
                // rumqttc reads to the end; what it still writes has nowhere to go.
                First::LineRead => discard(&mut from_local).await,
                // The broker's last words may still be on their way in.
                First::LineWrite => tokio::select! {
                    () = &mut down => {}
                    () = discard(&mut from_local) => {}
                },
                First::Local => {
                    // A courtesy to the broker; the line may be gone already.
                    let _ = to_line.shutdown().await;
                    down.await;
                }
            }
        };
        // Either way it is over now.
        let _ = timeout(BRIDGE_LINGER, rest).await;
    }

    /// rumqttc to broker, until rumqttc closes or the line takes no more.
    async fn up(&self, from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> First {
        let mut buffer = vec![0; BRIDGE_BUFFER_BYTES];
        loop {
            // One read takes everything rumqttc has written so far, so one flush serves many packets.
            let count = match from.read(&mut buffer).await {
                Ok(0) | Err(_) => return First::Local,
                Ok(count) => count,
            };
            let sent = async {
                to.write_all(&buffer[..count]).await?;
                to.flush().await
            };
            self.shared.writing.store(true, Ordering::Relaxed);
            let sent = sent.await;
            self.shared.writing.store(false, Ordering::Relaxed);
            if let Err(error) = sent {
                self.shared.set_end(self.of(error));
                return First::LineWrite;
            }
        }
    }

    /// Broker to rumqttc, until either ends. The reason is known before rumqttc can notice.
    async fn down(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let mut buffer = vec![0; BRIDGE_BUFFER_BYTES];
        let mut sniffer = Sniffer::new();
        loop {
            match from.read(&mut buffer).await {
                Ok(0) => break self.shared.set_end(End::Closed),
                Err(error) => break self.shared.set_end(self.of(error)),
                Ok(count) => {
                    let farewell = sniffer.feed(&buffer[..count]);
                    if let Some(code) = farewell {
                        self.shared.set_end(End::Disconnected(code));
                    }
                    if to.write_all(&buffer[..count]).await.is_err() {
                        return; // rumqttc is gone; `up` notices too
                    }
                    if farewell.is_some() {
                        break; // nothing follows it
                    }
                }
            }
        }
        // Already closed by rumqttc is as good.
        let _ = to.shutdown().await;
    }
}

/// Which side ended first, and how.
enum First {
    LineRead,
    LineWrite,
    Local,
}

/// Reads until the end of the file.
async fn discard(from: &mut (impl AsyncRead + Unpin)) {
    let mut buffer = [0; 4096];
    while matches!(from.read(&mut buffer).await, Ok(1..)) {}
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;
    use tokio::net::TcpListener;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    async fn listening() -> (TcpListener, Endpoint) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, Endpoint::new("127.0.0.1", port, false))
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_the_ends_are_handed_over() {
        let (listener, endpoint) = listening().await;
        let directory = TempDir::new().unwrap();
        let bridge = open(&endpoint, None, directory.path(), soon()).await.unwrap();
        let (mut broker, _) = listener.accept().await.unwrap();
        let mut local = UnixStream::connect(&bridge.socket).await.unwrap();
        let large = vec![7; 1_000_000];
        let (sent, received) = tokio::join!(local.write_all(&large), async {
            let mut received = vec![0; large.len()];
            broker.read_exact(&mut received).await.unwrap();
            received
        });
        sent.unwrap();
        assert_eq!(received, large);
        assert_eq!(bridge.bytes_sent(), 1_000_000);
        broker.write_all(b"last words").await.unwrap();
        drop(broker);
        let mut heard = Vec::new();
        local.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"last words");
        assert!(matches!(bridge.end(), Some(End::Closed)));
    }

    #[tokio::test]
    async fn finish_hands_over_what_was_written_before_the_close() {
        let (listener, endpoint) = listening().await;
        let directory = TempDir::new().unwrap();
        let bridge = open(&endpoint, None, directory.path(), soon()).await.unwrap();
        let (mut broker, _) = listener.accept().await.unwrap();
        let mut local = UnixStream::connect(&bridge.socket).await.unwrap();
        local.write_all(b"goodbye").await.unwrap();
        drop(local);
        let reading = tokio::spawn(async move {
            let mut heard = Vec::new();
            broker.read_to_end(&mut heard).await.unwrap();
            heard
        });
        bridge.finish(soon()).await;
        assert_eq!(reading.await.unwrap(), b"goodbye");
    }

    #[tokio::test]
    async fn the_socket_takes_one_peer() {
        let (_listener, endpoint) = listening().await;
        let directory = TempDir::new().unwrap();
        let bridge = open(&endpoint, None, directory.path(), soon()).await.unwrap();
        let mut first = UnixStream::connect(&bridge.socket).await.unwrap();
        first.write_all(b"x").await.unwrap();
        while bridge.bytes_sent() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(UnixStream::connect(&bridge.socket).await.is_err());
    }

    #[tokio::test]
    async fn what_is_wrong_with_an_endpoint_is_told_apart() {
        let (listener, endpoint) = listening().await;
        let directory = TempDir::new().unwrap();
        let dial = async |endpoint: &Endpoint| open(endpoint, None, directory.path(), soon()).await.unwrap_err();
        assert!(matches!(dial(&Endpoint { tls: true, ..endpoint.clone() }).await, DialError::NoTls { .. }));
        let unknown = Endpoint { host: "no-such-host.invalid".into(), ..endpoint.clone() };
        let error = dial(&unknown).await;
        assert!(error.to_string().starts_with("mqtt://no-such-host.invalid:"), "{error}");
        assert!(matches!(error, DialError::Dns { .. } | DialError::Timeout { .. }), "{error:?}");
        let far = directory.path().join("x".repeat(120));
        let error = open(&endpoint, None, &far, soon()).await.unwrap_err();
        assert!(matches!(&error, DialError::Local { .. }) && error.to_string().contains("its path be short"), "{error}");
        drop(listener);
        assert!(matches!(dial(&endpoint).await, DialError::Refused { .. }));
    }
}
