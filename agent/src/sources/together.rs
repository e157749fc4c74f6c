//! Listeners and HTTP feeds that change at once, where one may need what another one holds.
//!
//! ```text
//!   pass     each by itself: HTTP feeds join, listeners open, what was theirs before is let go behind them    http.rs, listeners.rs
//!            ── as long as something succeeds: what it left may be what another one waits for
//!   the rest where only feeds of this change are in each other's way: all of them are let go, all are begun; or all are put back
//! ```
//!
//! Feeds that share a port have one TLS, so it can change only for all of them; two feeds that exchange ports, and a feed that becomes another kind
//! of source on its own port, hold what is wanted themselves. What waits for a port that somebody else has, or a feed that stays as it is, is not
//! tried at the cost of what runs. When nothing new was asked for (`again`) there are passes only.

use std::net::SocketAddr;

use tokio::sync::oneshot;

use super::running::Source;
use super::{FeedFault, Sources, http, listeners};
use crate::config::collide;
use crate::config::settings::{FeedSettings, SourceSettings};
use crate::record::FeedId;

/// Where a feed listens.
pub(super) fn listen(feed: &FeedSettings) -> Option<SocketAddr> {
    match &feed.source {
        SourceSettings::Mllp(mllp) => Some(mllp.listen),
        SourceSettings::Http(http) => Some(http.listen),
        SourceSettings::Directory(_) => None,
    }
}

/// Both cannot run, though neither stands in the way of a listener of the other's own kind: that is the business of `listeners`, or they share.
pub(super) fn excludes(held: &FeedSettings, wanted: &FeedSettings) -> bool {
    if !listen(held).zip(listen(wanted)).is_some_and(|(held, wanted)| collide(held, wanted)) {
        return false;
    }
    match (&held.source, &wanted.source) {
        (SourceSettings::Http(held), SourceSettings::Http(wanted)) => held.listen != wanted.listen || held.tls != wanted.tls,
        (SourceSettings::Mllp(_), SourceSettings::Mllp(_)) => false,
        _ => true,
    }
}

impl Sources {
    /// Makes these run, in place of what runs of the same feeds.
    pub(super) async fn change(&mut self, mut left: Vec<FeedSettings>, again: bool) -> Vec<FeedFault> {
        let mut is_first = true;
        let mut faults = loop {
            let before = left.len();
            let faults = self.pass(&left, again || !is_first).await;
            left.retain(|feed| faults.iter().any(|fault| fault.feed == feed.id));
            self.faulty.extend(left.iter().map(|feed| feed.id.clone()));
            is_first = false;
            if left.is_empty() || left.len() == before {
                break faults;
            }
        };
        if again {
            return faults;
        }
        let together = self.in_each_others_way(left);
        if !together.is_empty() {
            faults.retain(|fault| !together.iter().any(|feed| feed.id == fault.feed));
            faults.extend(self.change_together(&together).await);
        }
        faults
    }

    /// Each by itself.
    async fn pass(&mut self, left: &[FeedSettings], again: bool) -> Vec<FeedFault> {
        let (mut faults, mut listeners, mut leaving) = (Vec::new(), Vec::new(), Vec::new());
        for feed in left {
            match &feed.source {
                SourceSettings::Http(settings) => faults.extend(self.replace_http(feed, settings, left, &mut leaving)),
                SourceSettings::Mllp(_) | SourceSettings::Directory(_) => listeners.push(feed.clone()),
            }
        }
        for source in leaving {
            drop(Self::release(source).await.1); // its connections leave by themselves
        }
        faults.extend(self.change_listeners(listeners, again).await);
        faults
    }

    /// Those of these for which nothing but these is in the way.
    fn in_each_others_way(&self, mut left: Vec<FeedSettings>) -> Vec<FeedSettings> {
        left.retain(|feed| self.can_be_read(feed));
        loop {
            let goes = |source: &Source| left.iter().any(|feed| feed.id == source.settings.id);
            let hopeless = left.iter().position(|feed| {
                let mut holders = self.running.values().filter(|source| excludes(&source.settings, feed)).peekable();
                holders.peek().is_none() || !holders.all(goes)
            });
            match hopeless {
                Some(at) => drop(left.swap_remove(at)),
                None => return left,
            }
        }
    }

    /// Lets go of all of them and begins all of them, or puts all back.
    async fn change_together(&mut self, feeds: &[FeedSettings]) -> Vec<FeedFault> {
        let ids: Vec<FeedId> = feeds.iter().map(|feed| feed.id.clone()).collect();
        for id in &ids {
            self.touch(id);
        }
        let before = self.let_go(&ids).await;
        let failed = feeds.iter().find_map(|feed| self.begin(feed).err().map(|(key, why)| (feed.id.clone(), key, why)));
        let Some((failed, key, why)) = failed else { return Vec::new() };
        drop(self.let_go(&ids).await);
        for (before, _) in &before {
            self.put_back(before);
        }
        let others = format!("it shares a port with feed `{failed}`, which could not be changed with it");
        let fault = |id: FeedId| if id == failed { self.fault(id, key, why.clone()) } else { self.fault(id, "feed", others.clone()) };
        ids.into_iter().map(fault).collect()
    }

    /// Starts a feed that does not run.
    pub(super) fn begin(&mut self, feed: &FeedSettings) -> Result<(), (&'static str, String)> {
        match &feed.source {
            SourceSettings::Mllp(settings) => {
                let opened = self.open(feed, settings.listen).map_err(|error| (listeners::key_of(&error), error.in_full()))?;
                self.start_listener(feed.clone(), opened.0, opened.1);
            }
            SourceSettings::Http(settings) => {
                let joined = self.join(feed, settings).map_err(|error| (http::key_of(&error), error.in_full()))?;
                self.start_http(feed.clone(), joined);
            }
            SourceSettings::Directory(_) => self.start_directory(feed.clone()),
        }
        Ok(())
    }

    /// Starts what ran before.
    pub(super) fn put_back(&mut self, before: &FeedSettings) {
        if let Err((_, why)) = self.begin(before) {
            tracing::error!(feed = %before.id, "what it had before cannot be had again either: {why}");
        }
    }

    /// Stops the sources of these feeds, all at once, and waits until their ports are free.
    pub(super) async fn let_go(&mut self, feeds: &[FeedId]) -> Vec<(FeedSettings, oneshot::Receiver<()>)> {
        let sources: Vec<Source> = feeds.iter().filter_map(|id| self.running.remove(id)).collect();
        for source in &sources {
            source.stop.send_replace(true);
        }
        let mut gone = Vec::with_capacity(sources.len());
        for source in sources {
            gone.push(Self::release(source).await);
        }
        self.close_unused_ports();
        gone
    }

    /// A feed that is gone may still hold a port that another one needs. One that is wanted at this very address takes it over as it is.
    pub(super) fn close_unused_ports(&mut self) {
        let mut taken_over: Vec<SocketAddr> = Vec::new();
        taken_over.extend(self.wanted.iter().filter(|feed| !self.is_paused(&feed.id)).filter_map(listeners::address));
        let (ports, running) = (&mut self.ports, &self.running);
        let is_held = |port: &SocketAddr| running.values().any(|source| listeners::address(&source.settings) == Some(*port));
        ports.retain(|port, _| taken_over.contains(port) || is_held(port));
    }

    /// Nobody accepts from it: whoever connects is to see that.
    pub(super) fn close_idle_ports(&mut self) {
        let (ports, running) = (&mut self.ports, &self.running);
        ports.retain(|port, _| running.values().any(|source| listeners::address(&source.settings) == Some(*port)));
    }
}
