//! Break-glass: what somebody on site changes for some hours, on top of whatever configuration runs, and what ends by itself.
//!
//! ```text
//!   `siteward override set` ─► keeper: written (durable) ─► sources: feeds = overlay(configured feeds) ─► told: condition, reported state, audit
//!                                   ▲ time, `override clear`, the feed is gone                └── cannot be had ─► taken back, and said
//!                                   └────────────────────────────────────────────────────► the feed as it is configured
//! ```
//!
//! 1. An override changes one thing of one feed: its port, who may connect, or that nothing is taken. It never adds a feed and takes none away.
//! 2. It lies on top: a document that is tried, committed or taken back meanwhile changes what is below. Where a committed configuration has no
//!    such feed any more, the override ends and says so; a trial that may be taken back ends none.
//! 3. It holds for the time that was asked, at most [`OVERRIDE_TIME_MAX`](crate::limits::OVERRIDE_TIME_MAX), counted while the agent runs (I10, see
//!    [`timed`](crate::timed)): a kill costs a little of it and never adds any.
//! 4. A file that cannot be read overrides nothing: what is configured runs.
//!
//! This file is pure; `store` keeps it, `keeper` owns it while the agent runs, `sources` puts it to use.

pub mod handle;
pub mod keeper;
pub mod store;

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::collide;
use crate::config::settings::{FeedSettings, Network, SourceSettings};
use crate::forward::Feeds;
use crate::limits::{OVERRIDE_VALUE_BYTES_TOLD, OVERRIDES_MAX};
use crate::record::FeedId;
use crate::timed::{Holding, Timed};

/// What is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Port(u16),
    Peers(Vec<Network>),
    /// Nothing is taken from its senders.
    Pause,
}

/// Kinds of change: a feed has at most one override of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Port,
    Peers,
    Pause,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Port => "port",
            Self::Peers => "peers",
            Self::Pause => "pause",
        }
    }
}

impl Change {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Port(_) => Kind::Port,
            Self::Peers(_) => Kind::Peers,
            Self::Pause => Kind::Pause,
        }
    }

    /// `2576`, `10.1.0.0/16, 10.2.0.7/32`; nothing for a pause.
    pub fn value(&self) -> String {
        match self {
            Self::Port(port) => port.to_string(),
            Self::Peers(peers) => peers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            Self::Pause => String::new(),
        }
    }

    /// The same where it stands beside others: of a long list its beginning, and how many more there are.
    pub fn short_value(&self) -> String {
        let Self::Peers(peers) = self else { return self.value() };
        let mut text = String::new();
        for (at, peer) in peers.iter().enumerate() {
            let (before, peer) = (if at == 0 { "" } else { ", " }, peer.to_string());
            if text.len() + before.len() + peer.len() > OVERRIDE_VALUE_BYTES_TOLD {
                return format!("{text} \u{2026} and {} more", peers.len() - at);
            }
            text.extend([before, &peer]);
        }
        text
    }

    /// For people: what the feed does.
    fn sentence(&self) -> String {
        match self {
            Self::Port(port) => format!("it listens on port {port}"),
            Self::Peers(_) => format!("it takes connections of {}", self.short_value()),
            Self::Pause => "it takes nothing".to_owned(),
        }
    }
}

/// What an override is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    pub feed: FeedId,
    pub change: Change,
}

impl Changed {
    fn is(&self, feed: &FeedId, kind: Kind) -> bool {
        self.feed == *feed && self.change.kind() == kind
    }
}

/// One override.
pub type Override = Timed<Changed>;

/// All of them, on top of the configured feeds.
pub type Overrides = Holding<Changed>;

impl Overrides {
    /// Takes the place of an earlier one of this kind.
    pub fn set(&mut self, new: Override) -> Result<(), String> {
        self.take(|old| old.what.is(&new.what.feed, new.what.change.kind()));
        if self.list().len() >= OVERRIDES_MAX {
            return Err("as many overrides hold as may; clear one".to_owned());
        }
        self.put(new);
        Ok(())
    }

    /// Takes out those of a feed, of one kind or all; what was taken out.
    pub fn clear(&mut self, feed: &FeedId, kind: Option<Kind>) -> Vec<Override> {
        self.take(|one| one.what.feed == *feed && kind.is_none_or(|kind| one.what.change.kind() == kind))
    }

    /// Takes out those that change what is not there (any more).
    pub fn end_homeless(&mut self, feeds: &[FeedSettings]) -> Vec<Override> {
        self.take(|one| !feeds.iter().any(|feed| feed.id == one.what.feed && fits(feed, &one.what.change).is_ok()))
    }

    pub fn is_paused(&self, feed: &FeedId) -> bool {
        self.list().iter().any(|one| one.what.is(feed, Kind::Pause))
    }

    /// The feeds as they are to run. A feed that is paused stays among them.
    pub fn apply(&self, feeds: &Feeds) -> Feeds {
        if self.list().is_empty() {
            return Arc::clone(feeds);
        }
        let of =
            |feed: &FeedSettings| self.list().iter().map(|one| &one.what).filter(|one| one.feed == feed.id).fold(feed.clone(), changed);
        feeds.iter().map(of).collect()
    }

    /// What a condition says of a feed.
    pub fn sentence(&self, feed: &FeedId) -> Option<String> {
        let of: Vec<&Override> = self.list().iter().filter(|one| one.what.feed == *feed).collect();
        let told = |one: &&Override| {
            let (who, reason, for_s) = (&one.who, &one.reason, one.asked.as_secs());
            format!("{} for {for_s} s by an override of {who} ({reason})", one.what.change.sentence())
        };
        let all: Vec<String> = of.iter().map(told).collect();
        (!all.is_empty()).then(|| format!("{}; it ends by itself or with `siteward override clear --feed {feed}`", all.join("; ")))
    }
}

fn changed(mut feed: FeedSettings, one: &Changed) -> FeedSettings {
    let (listen, peers) = match &mut feed.source {
        SourceSettings::Mllp(mllp) => (&mut mllp.listen, &mut mllp.peers),
        SourceSettings::Http(http) => (&mut http.listen, &mut http.peers),
        SourceSettings::Directory(_) => return feed,
    };
    match &one.change {
        Change::Port(port) => listen.set_port(*port),
        Change::Peers(other) => peers.clone_from(other),
        Change::Pause => {}
    }
    feed
}

fn listen(feed: &FeedSettings) -> Option<SocketAddr> {
    match &feed.source {
        SourceSettings::Mllp(mllp) => Some(mllp.listen),
        SourceSettings::Http(http) => Some(http.listen),
        SourceSettings::Directory(_) => None,
    }
}

/// Whether this can be changed of a feed.
pub fn fits(feed: &FeedSettings, change: &Change) -> Result<(), String> {
    if listen(feed).is_some() || *change == Change::Pause {
        return Ok(());
    }
    Err(format!("feed `{}` reads a directory, it has no {}; it can only be paused", feed.id, change.kind().as_str()))
}

/// A feed whose port a changed one would take.
pub fn in_the_way<'f>(feeds: &'f [FeedSettings], feed: &FeedSettings, change: &Change) -> Option<&'f FeedId> {
    let Change::Port(port) = change else { return None };
    let mut wanted = listen(feed)?;
    wanted.set_port(*port);
    let is_http = |feed: &FeedSettings| matches!(feed.source, SourceSettings::Http(_));
    // HTTP feeds of one address share the port.
    let shares = |other: &FeedSettings| is_http(feed) && is_http(other) && listen(other) == Some(wanted);
    let taken = |other: &&FeedSettings| other.id != feed.id && listen(other).is_some_and(|at| collide(at, wanted)) && !shares(other);
    feeds.iter().find(taken).map(|other| &other.id)
}

#[cfg(test)]
mod keeper_tests;
#[cfg(test)]
mod tests;
