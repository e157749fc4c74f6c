//! An open port. It outlives the listeners that accept from it: one can follow another (other settings, another feed) on the same socket, and what
//! connects in between waits in its backlog instead of being refused. Dropping it, and every acceptor made of it, closes the port.

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use tokio::net::TcpListener;

use super::BindError;
use crate::limits::LISTEN_BACKLOG;
use crate::record::FeedId;

/// See the module's documentation.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    socket: std::net::TcpListener,
}

impl Port {
    /// Opens it; `feed` is named if that fails.
    pub fn open(feed: &FeedId, address: SocketAddr) -> Result<Self, BindError> {
        let socket = listen(address).map_err(|source| BindError::Port { feed: feed.clone(), listen: address, source })?;
        Ok(Self { address, socket })
    }

    /// As configured.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Another handle of the same socket.
    pub(super) fn acceptor(&self) -> io::Result<TcpListener> {
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
