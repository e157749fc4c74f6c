//! Listeners that come and change, without a connection refused where that can be avoided.
//!
//! ```text
//!   the new address is …                                      what happens
//!   open, whoever accepts from it now (also another feed)     the socket is handed over: what connects in between waits in its backlog
//!   free                                                      opened before the old one is let go
//!   the same port under another, overlapping address          the old one is let go first; opened again if the new one cannot be
//! ```
//!
//! Everything that can fail is done before anything is let go: certificates read, ports opened. A feed for which it fails keeps what it has, and
//! so does a feed that wants the address of one that stays where it is, because two feeds must never accept from one socket.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::running::{Running, Source};
use super::{FeedFault, Sources};
use crate::config::collide;
use crate::config::settings::{FeedSettings, SourceSettings};
use crate::limits::{HTTP_RELEASE, LISTENER_RELEASE};
use crate::record::FeedId;
use crate::source::mllp::{BindError, MllpListener};
use crate::source::port::Port;
use crate::status::condition::Code;

/// A change that can be made.
struct Ready {
    feed: FeedSettings,
    listen: SocketAddr,
    /// `None`: its port can be opened only when another one is let go.
    made: Option<(Arc<Port>, MllpListener)>,
}

pub(super) fn address(feed: &FeedSettings) -> Option<SocketAddr> {
    match &feed.source {
        SourceSettings::Mllp(mllp) => Some(mllp.listen),
        SourceSettings::Directory(_) | SourceSettings::Http(_) => None,
    }
}

pub(super) fn key_of(error: &BindError) -> &'static str {
    match error {
        BindError::Port { .. } => "feed.mllp.listen",
        BindError::Tls { .. } | BindError::Tokens { .. } => "feed.mllp.tls",
    }
}

impl Sources {
    /// Makes these listeners run, in place of what runs of the same feeds.
    pub(super) async fn change_listeners(&mut self, changed: Vec<FeedSettings>, again: bool) -> Vec<FeedFault> {
        let (mut faults, mut ready) = (Vec::new(), Vec::new());
        for feed in changed {
            match self.prepare(feed, again) {
                Ok(one) => ready.push(one),
                Err(fault) => faults.push(fault),
            }
        }
        while let Some((at, holder)) = self.conflict(&ready) {
            let one = ready.swap_remove(at);
            let reason = format!("feed `{holder}` still listens there, because it could not be changed either");
            faults.push(self.fault(one.feed.id, "feed.mllp.listen", reason));
        }
        for one in &ready {
            self.touch(&one.feed.id);
        }
        let old = self.let_go(&ready.iter().map(|one| one.feed.id.clone()).collect::<Vec<_>>()).await;
        for Ready { feed, listen, made } in ready {
            if let Some((port, listener)) = made {
                self.start_listener(feed, port, listener);
            } else {
                let before = old.iter().map(|(before, _)| before).find(|before| before.id == feed.id).cloned();
                faults.extend(self.open_late(feed, listen, before));
            }
        }
        faults
    }

    /// Does everything that can be done beside what runs.
    fn prepare(&self, feed: FeedSettings, again: bool) -> Result<Ready, FeedFault> {
        let SourceSettings::Mllp(settings) = &feed.source else {
            return Err(FeedFault { feed: feed.id, key: "feed.mllp", reason: "is no listener".to_owned() });
        };
        let listen = settings.listen;
        let port = match self.ports.get(&listen) {
            Some(port) => Some(Arc::clone(port)),
            None if self.ports.keys().any(|open| collide(*open, listen)) => None,
            None => Some(Arc::new(Port::open(&self.parts.sockets, &feed.id, listen).map_err(|error| self.told(&feed, &error))?)),
        };
        let Some(port) = port else {
            // Whether the address is one of this machine can be seen without its port.
            Port::open(&self.parts.sockets, &feed.id, SocketAddr::new(listen.ip(), 0)).map_err(|error| self.told(&feed, &error))?;
            if again && self.running.contains_key(&feed.id) {
                let reason =
                    "its port could not be had when the feed let go of it; apply the configuration again to try once more".to_owned();
                return Err(self.fault(feed.id, "feed.mllp.listen", reason));
            }
            return Ok(Ready { feed, listen, made: None });
        };
        let listener = self.listening(feed.id.clone(), settings.clone()).on(&port).map_err(|error| self.told(&feed, &error))?;
        Ok(Ready { feed, listen, made: Some((port, listener)) })
    }

    /// One of these that would accept where another feed stays, and that feed.
    fn conflict(&self, ready: &[Ready]) -> Option<(usize, FeedId)> {
        let stays = |id: &FeedId| !ready.iter().any(|one| one.feed.id == *id);
        let staying: Vec<(&FeedId, SocketAddr)> =
            self.running.iter().filter(|(id, _)| stays(id)).filter_map(|(id, source)| Some((id, address(&source.settings)?))).collect();
        ready.iter().enumerate().find_map(|(at, one)| {
            let holder = staying.iter().find(|(_, listen)| collide(*listen, one.listen))?;
            Some((at, holder.0.clone()))
        })
    }

    /// Stops a source and waits until it accepts no more; its connections leave by themselves, and then what is returned ends.
    pub(super) async fn release(source: Source) -> (FeedSettings, oneshot::Receiver<()>) {
        let Source { settings, stop, kind, mut ended } = source;
        tracing::info!(feed = %settings.id, "the feed's source stops");
        stop.send_replace(true);
        let is_free = match kind {
            Running::Mllp { accepted_no_more } => timeout(LISTENER_RELEASE, accepted_no_more).await.is_ok(),
            Running::Http => timeout(HTTP_RELEASE, &mut ended).await.is_ok(),
            Running::Directory => true,
        };
        if !is_free {
            tracing::warn!(feed = %settings.id, "the former listener does not let go of its port");
        }
        (settings, ended)
    }

    /// Opens a port that was not free before; if it cannot be, the feed goes on with what it had.
    fn open_late(&mut self, feed: FeedSettings, listen: SocketAddr, before: Option<FeedSettings>) -> Option<FeedFault> {
        let error = match self.open(&feed, listen) {
            Ok((port, listener)) => {
                self.start_listener(feed, port, listener);
                return None;
            }
            Err(error) => error,
        };
        if let Some(before) = before {
            self.put_back(&before);
        }
        Some(self.told(&feed, &error))
    }

    pub(super) fn open(&self, feed: &FeedSettings, listen: SocketAddr) -> Result<(Arc<Port>, MllpListener), BindError> {
        let port = self
            .ports
            .get(&listen)
            .map_or_else(|| Port::open(&self.parts.sockets, &feed.id, listen).map(Arc::new), |open| Ok(Arc::clone(open)))?;
        let SourceSettings::Mllp(settings) = &feed.source else { unreachable!("only listeners have an address") };
        let listener = self.listening(feed.id.clone(), settings.clone()).on(&port)?;
        Ok((port, listener))
    }

    fn told(&self, feed: &FeedSettings, error: &BindError) -> FeedFault {
        self.fault(feed.id.clone(), key_of(error), error.in_full())
    }

    pub(super) fn fault(&self, feed: FeedId, key: &'static str, reason: String) -> FeedFault {
        let and_so = if self.running.contains_key(&feed) { "it goes on as it was" } else { "nobody can send to it" };
        self.parts.board.raise(Code::ListenerDown, feed.as_str(), format!("{reason}; {and_so}, and it is tried again"));
        FeedFault { feed, key, reason }
    }
}
