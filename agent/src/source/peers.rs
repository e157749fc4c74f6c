//! Who may connect by address. Pure: the accept loop asks before it gives a seat, so that strangers cost nobody else theirs.
//!
//! A listener that whoever reaches it may send to is the condition `listener_open`: it is not bound to loopback, asks for no client
//! certificate, and has no list of peers (or one that lets everybody in).

use std::net::{IpAddr, SocketAddr};

use crate::config::settings::{ListenerTls, Network};

/// An empty list lets everybody in.
pub fn admits(peers: &[Network], peer: IpAddr) -> bool {
    peers.is_empty() || peers.iter().any(|network| network.contains(peer))
}

/// The text of `listener_open`, if it is.
pub fn open_to_all(peers: &[Network], tls: Option<&ListenerTls>, listen: SocketAddr) -> Option<String> {
    let proven = tls.is_some_and(|tls| tls.client_ca.is_some());
    let listed = !peers.is_empty() && !peers.iter().any(Network::is_everything);
    (!proven && !listed && !listen.ip().to_canonical().is_loopback()).then(|| {
        format!("whoever reaches {listen} may send to this feed; list its senders in `peers`, or ask for their certificates with client_ca")
    })
}
