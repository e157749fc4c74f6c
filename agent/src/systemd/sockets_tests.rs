//! The store, with a datagram socket in systemd's place.

use std::io::IoSliceMut;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::*;
use crate::record::FeedId;
use crate::source::port::Port;

struct Systemd {
    directory: tempfile::TempDir,
    socket: UnixDatagram,
    stored: BTreeMap<String, OwnedFd>,
}

impl Systemd {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { directory, socket, stored: BTreeMap::new() }
    }

    fn address(&self) -> UnixAddress {
        notify_address(self.directory.path().join("notify").as_os_str()).unwrap()
    }

    /// A process begins with what is stored.
    fn begin(&mut self) -> SocketStore {
        let handed: Vec<(String, TcpListener)> = std::mem::take(&mut self.stored).into_iter().map(|(name, fd)| (name, fd.into())).collect();
        // systemd keeps its own copies.
        self.stored.extend(handed.iter().map(|(name, socket)| (name.clone(), socket.try_clone().unwrap().into())));
        let handed: Vec<(&str, Option<TcpListener>)> = handed.iter().map(|(name, s)| (name.as_str(), s.try_clone().ok())).collect();
        SocketStore::of(Some(self.address()), handed.into_iter())
    }

    /// Does as it was told; its names.
    fn heed(&mut self) -> Vec<String> {
        let mut bytes = [0; 512];
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut along = RecvAncillaryBuffer::new(&mut space);
            let Ok(read) = recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut along, RecvFlags::empty()) else { break };
            let words = String::from_utf8(bytes[..read.bytes].to_vec()).unwrap();
            let name = words.split_once("FDNAME=").unwrap().1.to_owned();
            let fd = along.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                _ => None,
            });
            assert_eq!(words.starts_with("FDSTORE=1"), fd.is_some(), "{words}");
            match fd {
                Some(fd) => drop(self.stored.insert(name, fd)),
                None => drop(self.stored.remove(&name)),
            }
        }
        self.stored.keys().cloned().collect()
    }
}

fn feed() -> FeedId {
    FeedId::new("f").unwrap()
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn connects(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(5)).is_ok()
}

#[test]
fn a_name_is_an_address_without_colons() {
    for address in ["0.0.0.0:2575", "[::]:2575", "[fe80::1]:6661", "127.0.0.1:1"] {
        let address: SocketAddr = address.parse().unwrap();
        let name = name_of(address);
        assert!(!name.contains(':'), "{name}");
        assert_eq!(address_of(&name), Some(address));
    }
    assert_eq!((address_of("siteward.socket"), address_of("unknown"), address_of("")), (None, None, None));
}

/// The agent ends with the port open, by a stop or by a kill, and whoever connects meanwhile waits for the next one.
#[test]
fn who_connects_between_two_processes_waits_for_the_second() {
    let (mut systemd, address) = (Systemd::new(), free());
    let first = systemd.begin();
    let port = Port::open(&first, &feed(), address).unwrap();
    assert_eq!(systemd.heed(), [name_of(address)]);
    first.leave();
    drop((port, first));
    assert_eq!(systemd.heed().len(), 1, "it keeps the socket");
    let waits = TcpStream::connect(address).expect("nobody accepts, nobody is refused");
    let second = systemd.begin();
    assert_eq!(second.waiting(), 1);
    let taken = second.take(address).expect("the same socket");
    let (_, peer) = loop {
        // The socket does not block.
        match taken.accept() {
            Ok(accepted) => break accepted,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    };
    assert_eq!(peer, waits.local_addr().unwrap());
    assert!(second.take(address).is_none(), "once");
}

/// Nobody may connect where nobody will answer, even if systemd does not hear of it.
#[test]
fn a_port_that_closes_listens_no_more_though_systemd_has_a_copy() {
    let (mut systemd, address) = (Systemd::new(), free());
    let store = systemd.begin();
    let port = Port::open(&store, &feed(), address).unwrap();
    assert_eq!(systemd.heed().len(), 1);
    let copy = systemd.stored.values().next().unwrap().try_clone().unwrap();
    let waits = TcpStream::connect(address).unwrap();
    drop(port);
    assert!(!connects(address), "its copies are deaf too");
    let mut byte = [0];
    assert!(std::io::Read::read(&mut &waits, &mut byte).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset));
    assert!(systemd.heed().is_empty());
    // The port can be had again at once, under another address too, while a copy of the old one is still about.
    let port = Port::open(&store, &feed(), SocketAddr::from(([0, 0, 0, 0], address.port()))).unwrap();
    assert!(connects(address));
    assert_eq!(systemd.heed().len(), 1);
    drop((port, copy));
}

/// A feed that is gone, paused, or elsewhere after the restart.
#[test]
fn what_no_feed_takes_is_closed_before_the_agent_is_ready() {
    let (mut systemd, gone, moved) = (Systemd::new(), free(), free());
    let first = systemd.begin();
    let ports = [gone, moved].map(|address| Port::open(&first, &feed(), address).unwrap());
    systemd.heed();
    first.leave();
    drop((ports, first));
    let second = systemd.begin();
    let wide = SocketAddr::from(([0, 0, 0, 0], moved.port()));
    let port = Port::open(&second, &feed(), wide).expect("what stands in its way goes");
    assert!(connects(gone));
    second.close_rest();
    assert!(!connects(gone) && connects(moved));
    assert_eq!(systemd.heed(), [name_of(wide)]);
    drop(port);
}

#[test]
fn a_start_that_fails_leaves_no_port_open() {
    let (mut systemd, address) = (Systemd::new(), free());
    let first = systemd.begin();
    let port = Port::open(&first, &feed(), address).unwrap();
    systemd.heed();
    first.leave();
    drop((port, first));
    assert!(connects(address));
    drop(systemd.begin());
    assert!(!connects(address));
    assert!(systemd.heed().is_empty());
}

#[test]
fn a_socket_that_is_not_what_it_is_called_is_not_used() {
    let (mut systemd, address, other) = (Systemd::new(), free(), free());
    systemd.stored.insert(name_of(other), TcpListener::bind(address).unwrap().into());
    systemd.stored.insert("strange".to_owned(), TcpListener::bind(free()).unwrap().into());
    let store = systemd.begin();
    assert_eq!(store.waiting(), 0);
    assert!(!connects(address));
    assert!(systemd.heed().is_empty());
}
