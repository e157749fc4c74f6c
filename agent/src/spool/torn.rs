//! Records of files behind a hole in what was never synced (I3).
//!
//! A power cut may keep the end of a batch and lose its middle: sectors reach the disk in any order. A record from the network behind such a hole
//! is kept; the hole is reported, and whoever was not answered sends again. A file does not send again: a feed goes on behind its newest record,
//! so the rows in the hole would never come. But the file is still there, because nothing of this batch was ever answered. Therefore records of a
//! file that stand behind a hole of their feed, in a batch that nothing proves to have been synced, are left out, and the file is read again from
//! the hole.
//!
//! ```text
//!   synced batch │ row 7 row 8 ▒▒▒▒▒ row 10 row 11 │          10 and 11 wait …
//!                │                                 │ row 12   … a record of a later batch says that theirs was synced: the hole is damage, they stay
//!                                                  ┴ end      … none does: they are left out, row 9 is read again
//! ```

use std::collections::BTreeMap;

use super::format::BaseV1;
use crate::record::{Chain, FeedId, FileProgress};

/// A record met by the scan of a segment without a footer.
#[derive(Debug)]
pub struct Met {
    pub feed: FeedId,
    pub seq: u64,
    pub chain: Chain,
    pub received_at_ms: i64,
    pub files: Option<FileProgress>,
    pub start: u64,
    pub end: u64,
    pub synced_through: u64,
    /// Its body is as it was written.
    pub whole: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Torn {
    /// What each feed's next record must be.
    next: BTreeMap<FeedId, u64>,
    waiting: Vec<Met>,
    damage_end: u64,
    /// A successor says that everything in this segment was durable.
    is_proven: bool,
}

impl Torn {
    pub fn new(bases: &[BaseV1], is_proven: bool) -> Self {
        let next = bases.iter().filter_map(|base| Some((FeedId::new(&base.feed).ok()?, base.head_seq + 1))).collect();
        Self { next, waiting: Vec::new(), damage_end: 0, is_proven }
    }

    /// Bytes before this offset are no record.
    pub fn damage(&mut self, end: u64) {
        self.damage_end = self.damage_end.max(end);
    }

    /// Those that waited and are proven by `met` to have been synced.
    pub fn proven_by(&mut self, met: &Met) -> Vec<Met> {
        if !met.whole || self.waiting.is_empty() {
            return Vec::new();
        }
        let (proven, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|waiting| waiting.start < met.synced_through);
        self.waiting = waiting;
        let proven: Vec<Met> = proven;
        for record in &proven {
            self.next.insert(record.feed.clone(), record.seq + 1);
        }
        proven
    }

    /// Takes a record; gives it back if it counts.
    pub fn take(&mut self, met: Met) -> Option<Met> {
        let is_next = self.next.get(&met.feed).is_none_or(|next| *next == met.seq);
        let is_doubtful = met.files.is_some() && !self.is_proven && (!met.whole || (!is_next && self.damage_end > met.synced_through));
        if !met.whole {
            self.damage(met.end);
        }
        if is_doubtful {
            self.waiting.push(met);
            return None;
        }
        self.next.insert(met.feed.clone(), met.seq + 1);
        Some(met)
    }

    /// Where records start that are left out.
    pub fn left_out(self) -> Vec<u64> {
        self.waiting.into_iter().map(|met| met.start).collect()
    }
}
