//! What every listening source needs of a port: opening it, handing it over, saying why it cannot be opened, options of its connections, and
//! when to accept again after accept failed. Who accepts what is the source's business.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::limits::{
    ACCEPT_RETRY_MAX, ACCEPT_RETRY_MIN, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES, LISTEN_BACKLOG, ODDITY_CHECK_INTERVAL,
};
use crate::record::FeedId;
use crate::status::board::Board;
use crate::status::condition::Code;
use crate::systemd::sockets::SocketStore;

/// The port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("feed `{feed}`: cannot listen on {listen}; {}", advice(.source))]
    Port { feed: FeedId, listen: SocketAddr, source: io::Error },
    /// Nobody could be answered, so the port stays closed.
    #[error("feed `{feed}`: cannot listen with TLS; {why}")]
    Tls { feed: FeedId, why: String },
    /// Nobody could prove who they are.
    #[error("feed `{feed}`: cannot take requests; {why}")]
    Tokens { feed: FeedId, why: String },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another program or feed has this port: `ss -ltnp` shows which",
        io::ErrorKind::AddrNotAvailable => "this address belongs to no interface of this machine: `ip addr` shows those that do",
        io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE; use a higher one or grant it in the unit",
        _ => "check `listen` of the feed",
    }
}

/// When to accept again after accept failed.
#[derive(Debug)]
pub struct Retry {
    at: Option<Instant>,
    next: Duration,
    log: Limited,
}

impl Default for Retry {
    fn default() -> Self {
        Self { at: None, next: ACCEPT_RETRY_MIN, log: Limited::default() }
    }
}

impl Retry {
    pub fn succeeded(&mut self) {
        *self = Self { log: std::mem::take(&mut self.log), ..Self::default() };
    }

    /// Says whether to log. A connection that was gone before it was accepted costs no delay.
    pub fn failed(&mut self, error: &io::Error, now: Instant) -> Option<u64> {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
        if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | WouldBlock) {
            return None;
        }
        self.at = Some(now + self.next);
        self.next = (self.next * 2).min(ACCEPT_RETRY_MAX);
        self.log.due(now)
    }

    pub fn until(&self, now: Instant) -> Option<Instant> {
        self.at.filter(|at| now < *at)
    }
}

/// Lets a line through once in `ODDITY_CHECK_INTERVAL` and counts the rest.
#[derive(Debug, Default)]
pub struct Limited {
    last: Option<Instant>,
    unsaid: u64,
}

impl Limited {
    /// `Some` with the number of lines left out since the last one, when it is time for one.
    pub fn due(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now < last + ODDITY_CHECK_INTERVAL) {
            self.unsaid += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

impl BindError {
    /// As a condition. `and_so` says what goes on all the same.
    pub fn tell(&self, board: &Board, feed: &FeedId, and_so: &str) {
        board.raise(Code::ListenerDown, feed.as_str(), format!("{}{and_so}", self.in_full()));
    }

    /// With its cause.
    pub fn in_full(&self) -> String {
        let source = std::error::Error::source(self).map(|source| format!(" ({source})")).unwrap_or_default();
        format!("{self}{source}")
    }
}

/// An open port. It outlives the listeners that accept from it: one can follow another (other settings, another feed) on the same socket, and what
/// connects in between waits in its backlog instead of being refused. Dropping it, and every acceptor made of it, closes the port; under systemd,
/// which has a copy of its own, dropping it ends the listening whoever still accepts, unless the agent ends (`systemd::sockets`).
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    socket: std::net::TcpListener,
    store: SocketStore,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.store.close(self.address, &self.socket);
    }
}

impl Port {
    /// Opens it, or takes it from `store`, where it was kept open; `feed` is named if that fails.
    pub fn open(store: &SocketStore, feed: &FeedId, address: SocketAddr) -> Result<Self, BindError> {
        if let Some(socket) = store.take(address) {
            return Ok(Self { address, socket, store: store.clone() });
        }
        let socket = listen(address).map_err(|source| BindError::Port { feed: feed.clone(), listen: address, source })?;
        store.keep(address, &socket);
        Ok(Self { address, socket, store: store.clone() })
    }

    /// As configured.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Another handle of the same socket. Must be called inside the runtime.
    pub fn acceptor(&self) -> io::Result<TcpListener> {
        TcpListener::from_std(self.socket.try_clone()?)
    }
}

fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?; // a restart must not wait for old connections to time out
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket.into())
}

/// Replies at once; notices when the peer is gone.
pub fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)?;
    rustix::net::sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    Ok(())
}
