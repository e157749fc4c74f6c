//! Listening sockets that outlive the agent: systemd keeps a copy of each (its file descriptor store) and hands them to the next process, so that no
//! sender is refused while the agent restarts, is upgraded, or was killed.
//!
//! ```text
//!   a port is opened ──► stored under its address       its feeds are gone, moved or paused ──► shut down, taken out of the store, closed
//!   the agent ends, however ──► systemd's copy listens on; whoever connects waits in its backlog
//!   the next start ──► taken back by address ──► what no feed wants is shut down ──► READY
//! ```
//!
//! 1. A socket belongs to an address, not to a feed (as in `sources`); TLS, peers and what is understood on it are the feed's. One whose real address
//!    is not the one it is stored under is never used.
//! 2. Nobody may connect where nobody will answer: a port that closes while the agent runs is *shut down*, which ends the listening of every copy at
//!    once, systemd's too, and resets what waits in the backlog. systemd then drops its copy by itself; that it is also told so is for the order in
//!    its books. So a lost notification cannot leave a port open. A start that fails before the feeds run shuts down all that it was handed.
//! 3. An agent that ends ([`SocketStore::leave`]) shuts nothing down. Where it is stopped and not restarted, systemd closes what it holds.
//! 4. Outside systemd, and where it keeps nothing (`FileDescriptorStoreMax=0`, or full), ports open and close as they do anywhere: a notification that
//!    cannot be sent costs a restart in which senders are refused, and is logged at debug.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use listenfd::ListenFd;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use socket2::SockRef;

use crate::config::collide;
use crate::limits::{LISTEN_BACKLOG, NOTIFY_TIMEOUT};

/// Cheap to clone. The default keeps nothing.
#[derive(Clone, Debug, Default)]
pub struct SocketStore(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Where systemd listens; `None`: nobody keeps anything.
    systemd: Option<UnixAddress>,
    /// Handed back and not taken yet.
    returned: Mutex<BTreeMap<SocketAddr, TcpListener>>,
    /// The agent ends: what closes now is for the next one.
    leaves: AtomicBool,
}

impl SocketStore {
    /// What systemd handed to this process. Once, before there are threads: it reads and clears the environment.
    pub fn take_back() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut handed = ListenFd::from_env();
        let sockets: Vec<Option<TcpListener>> = (0..handed.len()).map(|at| handed.take_tcp_listener(at).ok().flatten()).collect();
        let systemd = std::env::var_os("NOTIFY_SOCKET").and_then(|socket| notify_address(&socket).ok());
        Self::of(systemd, names.split(':').zip(sockets))
    }

    fn of<'a>(systemd: Option<UnixAddress>, handed: impl Iterator<Item = (&'a str, Option<TcpListener>)>) -> Self {
        let mut returned = BTreeMap::new();
        for (name, socket) in handed {
            let Some(socket) = socket else { continue }; // no socket of ours, and no business of ours
            match address_of(name).filter(|address| is_as_named(&socket, *address)) {
                Some(address) => drop(returned.insert(address, socket)),
                None => end(systemd.as_ref(), name, &socket),
            }
        }
        Self(Arc::new(Inner { systemd, returned: Mutex::new(returned), leaves: AtomicBool::new(false) }))
    }

    fn returned(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, TcpListener>> {
        self.0.returned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many sockets were handed back and not taken yet.
    pub fn waiting(&self) -> usize {
        self.returned().len()
    }

    /// The socket of this address from before the start, listening. One in whose way another stands is to be opened, so that one goes.
    pub fn take(&self, address: SocketAddr) -> Option<TcpListener> {
        let found = self.returned().remove(&address);
        if found.is_none() {
            self.close_where(|other| collide(other, address));
        }
        let socket = found?;
        // The backlog may be another one than that of the version before.
        let usable = socket.set_nonblocking(true).and_then(|()| Ok(rustix::net::listen(&socket, LISTEN_BACKLOG)?));
        match usable {
            Ok(()) => Some(socket),
            Err(error) => {
                tracing::warn!(%address, %error, "a port from before the restart cannot be used; it is opened anew");
                self.end(address, &socket);
                None
            }
        }
    }

    /// Has systemd keep a copy. Whether it does shows at the next start only.
    pub fn keep(&self, address: SocketAddr, socket: &TcpListener) {
        if self.0.systemd.is_some() && address.port() != 0 {
            tell(self.0.systemd.as_ref(), &format!("FDSTORE=1\nFDNAME={}", name_of(address)), Some(socket.as_fd()));
        }
    }

    /// Nobody listens at this address any more. Does nothing when the agent ends.
    pub fn close(&self, address: SocketAddr, socket: &TcpListener) {
        if self.0.systemd.is_some() && !self.0.leaves.load(Ordering::Relaxed) {
            self.end(address, socket);
        }
    }

    /// The feeds run: what none of them took is closed.
    pub fn close_rest(&self) {
        self.close_where(|_| true);
    }

    fn close_where(&self, is_over: impl Fn(SocketAddr) -> bool) {
        for (address, socket) in self.returned().extract_if(.., |address, _| is_over(*address)) {
            tracing::info!(%address, "no feed listens here any more; the port is closed");
            self.end(address, &socket);
        }
    }

    /// From now on what closes is the next process's.
    pub fn leave(&self) {
        self.0.leaves.store(true, Ordering::Relaxed);
    }

    fn end(&self, address: SocketAddr, socket: &TcpListener) {
        end(self.0.systemd.as_ref(), &name_of(address), socket);
    }
}

impl Drop for Inner {
    /// A start that failed: nobody will answer here.
    fn drop(&mut self) {
        let returned = self.returned.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (address, socket) in std::mem::take(returned) {
            end(self.systemd.as_ref(), &name_of(address), &socket);
        }
    }
}

fn end(systemd: Option<&UnixAddress>, name: &str, socket: &TcpListener) {
    if let Err(error) = SockRef::from(socket).shutdown(Shutdown::Both) {
        tracing::debug!(name, %error, "a port was shut down already");
    }
    tell(systemd, &format!("FDSTOREREMOVE=1\nFDNAME={name}"), None);
}

fn tell(systemd: Option<&UnixAddress>, words: &str, socket: Option<BorrowedFd<'_>>) {
    let Some(systemd) = systemd else { return };
    if let Err(error) = send(systemd, words, socket) {
        tracing::debug!(%error, "systemd could not be told of a port; a restart may refuse its senders");
    }
}

fn notify_address(socket: &OsStr) -> io::Result<UnixAddress> {
    match socket.as_bytes() {
        [b'@', name @ ..] => UnixAddress::from_abstract_name(name),
        _ => UnixAddress::from_pathname(socket),
    }
}

fn send(systemd: &UnixAddress, words: &str, socket: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let notify = UnixDatagram::unbound()?;
    notify.set_write_timeout(Some(NOTIFY_TIMEOUT))?;
    notify.connect_addr(systemd)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut along = SendAncillaryBuffer::new(&mut space);
    if let Some(socket) = &socket {
        let fits = along.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(socket)));
        assert!(fits, "there is room for one descriptor");
    }
    sendmsg(&notify, &[IoSlice::new(words.as_bytes())], &mut along, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// A name in the store has no colon.
fn name_of(address: SocketAddr) -> String {
    address.to_string().replace(':', "_")
}

fn address_of(name: &str) -> Option<SocketAddr> {
    name.replace('_', ":").parse().ok()
}

fn is_as_named(socket: &TcpListener, address: SocketAddr) -> bool {
    let listens = rustix::net::sockopt::socket_acceptconn(socket).unwrap_or(false);
    listens && socket.local_addr().is_ok_and(|local| local == address)
}

#[cfg(test)]
#[path = "sockets_tests.rs"]
mod tests;
