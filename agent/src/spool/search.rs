//! Looking for messages in the journal: headers only, newest first, within a budget.
//!
//! What is not settled lies in the journal, perhaps among millions of others. A search walks the segments that hold records of the feed from
//! the newest down; inside a segment records can only be walked forwards, so a segment is read whole and its finds are turned round. The
//! budget is looked at between segments, and the answer says how far down it got, so that the next question can go on there. Bodies are not
//! read. Nothing is locked while the disk is read: a segment that is released meanwhile is passed over, its records are settled.

use std::time::Instant;

use super::format::{self, DATA_START, RecordHeaderV1};
use super::index::Segment;
use super::monitor::Monitor;
use super::scan::Scan;
use crate::limits::{SEARCH_RECORDS_MAX, SEARCH_TIME_MAX};
use crate::record::{FeedId, Lane};

/// Which messages are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    All,
    ControlId(Vec<u8>),
    Seq(u64),
    /// Received at or after this, in milliseconds since 1970.
    Since(i64),
}

impl Wanted {
    pub fn fits(&self, seq: u64, control_id: &[u8], received_at_ms: Option<i64>) -> bool {
        match self {
            Self::All => true,
            Self::ControlId(id) => id == control_id,
            Self::Seq(wanted) => *wanted == seq,
            Self::Since(since) => received_at_ms.is_some_and(|at| at >= *since),
        }
    }
}

/// A record's header, as far as people may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub seq: u64,
    pub received_at_ms: i64,
    pub peer: String,
    /// MSH-10, cut to 199 bytes.
    pub control_id: Vec<u8>,
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Searched {
    /// The newest first.
    pub found: Vec<Header>,
    /// Headers looked at.
    pub records: u64,
    /// The lowest seq it got to; `None` where it looked at nothing.
    pub down_to: Option<u64>,
    /// Where to go on: below this seq nothing was looked at, or more fits than was asked for.
    pub more_below: Option<u64>,
    /// A feed of that name is in the spool.
    pub head: Option<u64>,
    pub settled: u64,
}

impl Monitor {
    /// Searches the records of `feed` below `before`. Blocks on the disk.
    pub fn search(&self, feed: &FeedId, wanted: &Wanted, before: u64, most: usize) -> Searched {
        let mut searched = Searched::default();
        let mut segments: Vec<(u64, u64, Segment)> = {
            let index = self.shared.index();
            let known = index.feeds.get(feed);
            searched.head = known.map(|known| known.head.seq);
            searched.settled = known.map_or(0, |known| known.settled.seq);
            let all = Lane::ALL.into_iter().flat_map(|lane| index.lanes[lane.index()].values());
            let spans = all.filter_map(|segment| segment.spans.get(feed).map(|span| (span.first, span.last, segment)));
            let meant = spans.filter(|(first, last, _)| *first < before && is_meant(wanted, *first, *last));
            meant.map(|(first, last, segment)| (first, last, segment.clone())).collect()
        };
        segments.sort_by_key(|(_, last, _)| std::cmp::Reverse(*last));
        let begun = Instant::now();
        let is_spent = |records| records >= SEARCH_RECORDS_MAX || begun.elapsed() >= SEARCH_TIME_MAX;
        for (first, last, segment) in segments {
            if is_spent(searched.records) || searched.found.len() >= most {
                searched.more_below = Some((last + 1).min(before));
                break;
            }
            let mut finds = self.walk(feed, &segment, wanted, before, &mut searched.records);
            finds.reverse();
            searched.found.append(&mut finds);
            searched.down_to = Some(first);
        }
        searched.found.sort_by_key(|header| std::cmp::Reverse(header.seq));
        if searched.found.len() > most {
            searched.found.truncate(most);
            searched.more_below = searched.found.last().map(|header| header.seq);
        }
        searched
    }

    /// Everything in a segment that fits, in order. What cannot be read is not found; the reader says so when it gets there.
    fn walk(&self, feed: &FeedId, segment: &Segment, wanted: &Wanted, before: u64, records: &mut u64) -> Vec<Header> {
        let Ok(file) = self.shared.open_read(&segment.path) else { return Vec::new() };
        let mut scan = Scan::new(file, segment.id, DATA_START);
        let mut found = Vec::new();
        while let Ok(Some(located)) = scan.next(segment.durable_end) {
            let header = located.header;
            if header.feed != feed.as_str() || header.seq >= before {
                continue;
            }
            *records += 1;
            if wanted.fits(header.seq, &header.control_id, Some(header.received_at_ms)) {
                found.push(shown(header));
                if matches!(wanted, Wanted::Seq(_)) {
                    break;
                }
            }
        }
        found
    }
}

fn is_meant(wanted: &Wanted, first: u64, last: u64) -> bool {
    match wanted {
        Wanted::Seq(seq) => (first..=last).contains(seq),
        _ => true,
    }
}

fn shown(header: RecordHeaderV1) -> Header {
    let peer = match header.origin {
        format::OriginV1::Peer { peer } => peer,
        format::OriginV1::File { .. } => String::new(),
    };
    Header { seq: header.seq, received_at_ms: header.received_at_ms, peer, control_id: header.control_id }
}
