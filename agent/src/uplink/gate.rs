//! The one lock that the forwarder's publishes and the connection task share.
//!
//! Open while a connection stands. Handing a publish to rumqttc and noting its token happen under the same lock, so the order of the notes is
//! the order of the publishes. The connection task takes the gate away before it drops anything of rumqttc: a publish never goes to a
//! connection that is gone.
//!
//! The lock is held for a channel send and a few counters, never across an await.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::publisher::{self, Publisher};
use super::window::{Full, Window};
use super::{NotTaken, Outgoing};

/// Where accepted publishes go.
#[derive(Debug)]
pub(super) enum Outlet {
    Mqtt(Publisher),
    #[cfg(test)]
    Scripted(tokio::sync::mpsc::Sender<Outgoing>),
}

/// What stands while a connection does.
#[derive(Debug)]
pub(super) struct Live {
    pub window: Window,
    pub outlet: Outlet,
    pub packet_bytes_max: Option<u32>,
    /// The connection is being left: nothing more is taken.
    pub leaving: bool,
    /// The broker has been owing an answer since then; meaningless while nothing is open.
    pub owing_since: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<Option<Live>>);

impl Gate {
    fn live(&self) -> MutexGuard<'_, Option<Live>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open(&self, live: Live) {
        *self.live() = Some(live);
    }

    /// Afterwards nothing is taken any more.
    pub(super) fn close(&self) -> Option<Live> {
        self.live().take()
    }

    /// Runs `work` on the connection's state; `None` while there is none.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Live) -> T) -> Option<T> {
        self.live().as_mut().map(work)
    }

    #[allow(clippy::result_large_err)] // the publish comes back whole; boxing it would cost more often than it saves
    pub(super) fn try_publish(&self, outgoing: Outgoing) -> Result<(), (NotTaken, Outgoing)> {
        match self.live().as_mut() {
            Some(live) if !live.leaving => live.try_publish(outgoing),
            _ => Err((NotTaken::NoConnection, outgoing)),
        }
    }
}

impl Live {
    #[allow(clippy::result_large_err)] // as above
    pub(super) fn try_publish(&mut self, outgoing: Outgoing) -> Result<(), (NotTaken, Outgoing)> {
        let live = self;
        let bytes = match publisher::packet_bytes(&outgoing, live.packet_bytes_max) {
            Ok(bytes) => bytes,
            Err(packet_bytes_max) => return Err((NotTaken::TooLarge { packet_bytes_max }, outgoing)),
        };
        if live.window.open() == 0 {
            live.owing_since = Instant::now();
        }
        match live.window.offer(outgoing.token, bytes) {
            Ok(()) => {}
            Err(Full) => return Err((NotTaken::WindowFull, outgoing)),
        }
        let handed = match &live.outlet {
            Outlet::Mqtt(publisher) => publisher.publish(outgoing),
            #[cfg(test)]
            Outlet::Scripted(taken) => taken.try_send(outgoing).map_err(tokio::sync::mpsc::error::TrySendError::into_inner),
        };
        handed.map_err(|outgoing| {
            live.window.retract();
            (NotTaken::NoConnection, outgoing)
        })
    }
}
