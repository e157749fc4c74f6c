//! Feeds that come, go and move while the spool is open (I3, I8).
//!
//! ```text
//!   added     known to the index → heads with its lineage durable → it can be appended to
//!   removed   no append is taken any more; its records stay, are read and settled as before (retired)
//!   again     goes on behind the record with which it ended, for ever: a feed is never forgotten
//!   moved     what is stored stays in the old lane; new records go to the new one, read in order of seq over both
//! ```
//!
//! Called between two batches by the committer's thread, so that every record before it is durable or refused. Two things keep a crash from
//! telling another story:
//!
//! - A lane whose last segment was given up after a failed write may hold, behind its durable end, a record whose number is given again. The cut
//!   in the successor's header says that it does not count. So a feed leaves such a lane only when the successor exists; until then it keeps the
//!   old lane, and the move is tried again before every batch.
//! - A segment's header says where each of its feeds stood. So the segment of a lane that a feed joins is closed, and the feed begins in a new one.
//!
//! When heads cannot be written nothing changes: the new feed stays unknown to everybody who could append, and it may be asked for again.

use super::committer::Committer;
use super::index::Feed;
use crate::limits::{FEEDS_KNOWN_MAX, FEEDS_MAX, LINEAGE_MAX};
use crate::record::{FeedId, Lane};

/// Why the spool cannot take these feeds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigureError {
    #[error("more than {FEEDS_MAX} feeds, with those that still drain; take some away first, and let them drain")]
    TooManyFeeds,
    #[error(
        "more than {FEEDS_KNOWN_MAX} different feeds were configured over time, and each is remembered; use ids again that were used before"
    )]
    TooManyKnown,
    #[error("the positions of new feeds could not be written: {0}; check the disk")]
    Store(String),
    #[error("the agent is stopping")]
    Stopping,
}

/// Feeds that are configured or drain, and all that are known.
pub(super) fn check_bounds(live: usize, known: usize) -> Result<(), ConfigureError> {
    if live > FEEDS_MAX {
        return Err(ConfigureError::TooManyFeeds);
    }
    if known > FEEDS_KNOWN_MAX { Err(ConfigureError::TooManyKnown) } else { Ok(()) }
}

impl Committer {
    /// These feeds are configured from now on, and no others.
    pub fn configure(&mut self, wanted: &[(FeedId, Lane)]) -> Result<(), ConfigureError> {
        self.settle();
        let joining = self.learn(wanted)?;
        if !joining.is_empty() {
            self.shared.write_heads().map_err(|error| ConfigureError::Store(error.to_string()))?;
        }
        for (_, lane) in &joining {
            self.close_segment(*lane);
        }
        {
            let mut index = self.shared.index();
            for (id, feed) in &mut index.feeds {
                feed.configured = wanted.iter().any(|(wanted, _)| wanted == id);
            }
            self.moves.clear();
            for (id, lane) in wanted {
                if index.feeds.get(id).is_some_and(|feed| feed.lane != *lane) {
                    self.moves.insert(id.clone(), *lane);
                }
            }
            index.shape += 1;
        }
        self.carry_out_moves();
        self.shared.appended.send_modify(|n| *n += 1);
        Ok(())
    }

    /// Makes room in the index for those that are not configured yet; returns them with the lanes they begin in.
    fn learn(&mut self, wanted: &[(FeedId, Lane)]) -> Result<Vec<(FeedId, Lane)>, ConfigureError> {
        let mut index = self.shared.index();
        let is_wanted = |id: &FeedId| wanted.iter().any(|(wanted, _)| wanted == id);
        let draining = index.feeds.iter().filter(|(id, feed)| !is_wanted(id) && feed.head.seq > feed.settled.seq).count();
        let unknown = wanted.iter().filter(|(id, _)| !index.feeds.contains_key(id)).count();
        check_bounds(wanted.len() + draining, index.feeds.len() + unknown)?;
        let incarnation = index.incarnation;
        let mut joining = Vec::new();
        for (id, lane) in wanted {
            let feed = index.feeds.entry(id.clone()).or_insert_with(|| {
                let mut feed = Feed::new(*lane);
                feed.begin(incarnation, LINEAGE_MAX);
                feed
            });
            if !feed.configured {
                joining.push((id.clone(), feed.lane));
            }
        }
        Ok(joining)
    }

    /// Moves the feeds whose old lane can be left; see the module's documentation.
    pub(super) fn carry_out_moves(&mut self) {
        if self.moves.is_empty() {
            return;
        }
        self.settle();
        for (id, lane) in std::mem::take(&mut self.moves) {
            let Some(old) = self.shared.index().feeds.get(&id).map(|feed| feed.lane) else { continue };
            if self.lanes[old.index()].needs_cut
                && let Err(error) = self.roll(old, 0)
            {
                tracing::warn!(feed = %id, from = %old, to = %lane, "the feed keeps its lane until the end of that lane is on disk: {error}");
                self.moves.insert(id, lane);
                continue;
            }
            self.close_segment(lane);
            let mut index = self.shared.index();
            if let Some(feed) = index.feeds.get_mut(&id) {
                feed.lane = lane;
            }
            index.shape += 1;
        }
    }
}
