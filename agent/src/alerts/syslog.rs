//! Hands lines to the syslog receiver: one task, one line at a time, in order.
//!
//! ```text
//!   outbox ─► first line ─► look up, connect, write (one deadline) ─┬─► handed over: taken off
//!               ▲                                                   └─► failed: line dropped, back off, from one second to a minute
//!               └───────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! UDP: one datagram a line, and a moment in which the receiver's host may say that nobody listens there; then the line waits and goes again. A host
//! that is off, or a firewall, says nothing: what goes there is gone, and nobody can tell, so nothing here ever says that UDP arrives. TCP: one
//! connection that is kept, octet counting (RFC 6587); before each line it is looked whether the receiver has closed it. Unix: one datagram a line,
//! as `/dev/log` takes them. What lies in a TCP buffer when the receiver dies is gone: syslog has no answer. The condition itself stays on every other surface. Nobody waits for this task; a receiver that hangs costs the line's deadline and
//! then the back-off, while the outbox fills and says what it drops.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket, UnixDatagram, lookup_host};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::line::line;
use super::outbox::Outbox;
use crate::config::settings::authority;
use crate::limits::{SYSLOG_BACKOFF_MAX, SYSLOG_BACKOFF_MIN, SYSLOG_DEADLINE, SYSLOG_STOP, SYSLOG_UDP_LOOK};
use crate::record::Name;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Udp { host: String, port: u16 },
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Udp { host, port } => write!(f, "udp://{}", authority(host, *port)),
            Self::Tcp { host, port } => write!(f, "tcp://{}", authority(host, *port)),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[derive(Debug)]
enum Way {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Unix(UnixDatagram),
}

impl Way {
    async fn open(target: &Target) -> io::Result<Self> {
        match target {
            Target::Udp { host, port } => {
                let addr = lookup_host((host.as_str(), *port)).await?.next().ok_or_else(|| io::Error::other("the name has no address"))?;
                let any = if addr.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).await?;
                socket.connect(addr).await?;
                Ok(Self::Udp(socket))
            }
            Target::Tcp { host, port } => TcpStream::connect((host.as_str(), *port)).await.map(Self::Tcp),
            Target::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                Ok(Self::Unix(socket))
            }
        }
    }

    async fn write(&mut self, line: &str) -> io::Result<()> {
        match self {
            Self::Udp(socket) => {
                socket.send(line.as_bytes()).await?;
                // The answer "nobody listens" is an error of the socket; whatever else comes is of no meaning.
                let mut nothing = [0u8; 16];
                timeout(SYSLOG_UDP_LOOK, socket.recv(&mut nothing)).await.unwrap_or(Ok(0)).map(drop)
            }
            Self::Unix(socket) => socket.send(line.as_bytes()).await.map(drop),
            Self::Tcp(stream) => stream.write_all(format!("{} {line}", line.len()).as_bytes()).await,
        }
    }

    /// Whether the receiver has closed it; whatever it says is of no meaning and dropped.
    fn is_closed(&self) -> bool {
        let Self::Tcp(stream) = self else { return false };
        let mut nothing = [0u8; 512];
        match stream.try_read(&mut nothing) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

/// What the sender works with.
#[derive(Debug)]
pub struct Sender {
    pub target: Target,
    pub site: Name,
    pub gateway: Name,
    /// See [`line()`].
    pub runbook: String,
    pub outbox: Arc<Outbox>,
}

impl Sender {
    /// Until told to stop; then what waits has a moment to go.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut way = None;
        tokio::select! {
            _ended = stop.wait_for(|stop| *stop) => {}
            () = self.go_on(&mut way) => {}
        }
        let until = Instant::now() + SYSLOG_STOP;
        while self.outbox.first().is_some() {
            if !matches!(timeout_at(until, self.one(&mut way)).await, Ok(Ok(()))) {
                break; // told after the next start
            }
        }
    }

    async fn go_on(&self, way: &mut Option<Way>) {
        let (mut pause, mut is_down) = (SYSLOG_BACKOFF_MIN, false);
        loop {
            match self.one(way).await {
                Ok(()) => {
                    if std::mem::take(&mut is_down) {
                        self.is_back();
                    }
                    pause = SYSLOG_BACKOFF_MIN;
                }
                Err(error) => {
                    let text = format!("alert lines do not reach {}: {error}; check [alerts] syslog and the receiver", self.target);
                    if !std::mem::replace(&mut is_down, true) {
                        tracing::warn!("{text}; they wait");
                    }
                    self.outbox.failed(text);
                    *way = None;
                    sleep(pause).await;
                    pause = next_pause(pause);
                }
            }
        }
    }

    fn is_back(&self) {
        if matches!(self.target, Target::Udp { .. }) {
            tracing::info!("alert lines go to {} again; whether they arrive UDP does not tell", self.target);
        } else {
            tracing::info!("alert lines reach {} again", self.target);
        }
    }

    /// Waits for a line and hands it over. Cancelled in between, it is handed over again.
    async fn one(&self, way: &mut Option<Way>) -> io::Result<()> {
        let (number, alert, dropped) = self.outbox.next().await;
        let text = line(&self.site, &self.gateway, &self.runbook, &alert, dropped);
        if way.as_ref().is_some_and(Way::is_closed) {
            *way = None;
        }
        let hand_over = async {
            // Half a line must not stay on a connection that is used again.
            let mut used = match way.take() {
                Some(known) => known,
                None => Way::open(&self.target).await?,
            };
            used.write(&text).await?;
            Ok(used)
        };
        let late = |_| Err(io::Error::other(format!("no answer within {} s", SYSLOG_DEADLINE.as_secs())));
        *way = Some(timeout(SYSLOG_DEADLINE, hand_over).await.unwrap_or_else(late)?);
        self.outbox.handed_over(number, dropped);
        Ok(())
    }
}

fn next_pause(pause: Duration) -> Duration {
    (pause * 2).min(SYSLOG_BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::alerts::line::Alert;
    use crate::clock::WallTime;
    use crate::status::condition::Code;

    fn sender(target: Target) -> (Sender, Arc<Outbox>) {
        let (outbox, name) = (Arc::<Outbox>::default(), |text| Name::new(text).unwrap());
        (
            Sender {
                target,
                site: name("s"),
                gateway: name("g"),
                runbook: "https://wiki.example.org/r".into(),
                outbox: Arc::clone(&outbox),
            },
            outbox,
        )
    }

    fn put(outbox: &Outbox, text: &str) {
        let at = WallTime { unix_ms: 0, suspect: false };
        let (subject, since) = (String::new(), String::new());
        outbox.put(Alert { code: Code::SpoolFull, subject, is_feed: false, over: false, text: text.into(), since, at });
    }

    async fn frame(stream: &mut TcpStream) -> String {
        let mut digits = String::new();
        loop {
            match stream.read_u8().await.unwrap() {
                b' ' => break,
                digit => digits.push(digit.into()),
            }
        }
        let mut line = vec![0; digits.parse().unwrap()];
        stream.read_exact(&mut line).await.unwrap();
        String::from_utf8(line).unwrap()
    }

    #[tokio::test]
    async fn a_tcp_receiver_that_went_away_gets_the_next_line_on_a_new_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, outbox) = sender(Target::Tcp { host: "127.0.0.1".into(), port });
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(sender.run(stopped));
        for n in 0..3 {
            put(&outbox, &format!("line {n}\u{e9}"));
            let (mut stream, _) = listener.accept().await.unwrap();
            let line = frame(&mut stream).await;
            assert!(
                line.ends_with(&format!("raised: line {n}\u{e9}")) && line.contains("runbook=\"https://wiki.example.org/r#spool_full\""),
                "{line}"
            );
            drop(stream); // closed in order: seen before the next line
            sleep(Duration::from_millis(50)).await;
        }
        assert_eq!((outbox.shown(None).sent, outbox.shown(None).waiting), (3, 0));
        stop.send_replace(true);
        task.await.unwrap();
    }

    /// Nobody listens, and the host says so: every line waits, and goes when somebody does.
    #[tokio::test]
    async fn lines_that_udp_is_refused_wait_until_somebody_listens() {
        let free = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = free.local_addr().unwrap();
        drop(free);
        let (sender, outbox) = sender(Target::Udp { host: "127.0.0.1".into(), port: addr.port() });
        let (stop, stopped) = watch::channel(false);
        (0..3).for_each(|n| put(&outbox, &format!("line {n}")));
        let task = tokio::spawn(sender.run(stopped));
        while outbox.shown(None).error.is_none() {
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!((outbox.shown(None).sent, outbox.shown(None).waiting), (0, 3));
        let receiver = UdpSocket::bind(addr).await.unwrap();
        for n in 0..3 {
            let mut bytes = [0; 2048];
            let length = receiver.recv(&mut bytes).await.unwrap();
            assert!(std::str::from_utf8(&bytes[..length]).unwrap().ends_with(&format!("raised: line {n}")));
        }
        stop.send_replace(true);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn datagrams_reach_a_unix_socket_and_what_waits_goes_at_the_stop() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let (sender, outbox) = sender(Target::Unix(path));
        put(&outbox, "one");
        let (stop, stopped) = watch::channel(false);
        stop.send_replace(true);
        sender.run(stopped).await;
        let mut bytes = [0; 2048];
        let n = receiver.recv(&mut bytes).await.unwrap();
        assert!(std::str::from_utf8(&bytes[..n]).unwrap().ends_with("raised: one"));
    }

    #[test]
    fn the_pause_grows_to_a_minute() {
        let last = (0..20).fold(SYSLOG_BACKOFF_MIN, |pause, _| next_pause(pause));
        assert_eq!(last, SYSLOG_BACKOFF_MAX);
    }
}
