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
    pub resend_of: Option<u64>,
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
        format::OriginV1::Peer { peer } | format::OriginV1::Http { peer, .. } => peer,
        format::OriginV1::File { .. } => String::new(),
    };
    Header { seq: header.seq, received_at_ms: header.received_at_ms, peer, control_id: header.control_id, resend_of: header.resend_of }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::config::settings::KeySource;
    use crate::limits::{MESSAGE_BYTES_MAX_DEFAULT, MIB, SEGMENT_BYTES_MIN};
    use crate::record::{Message, MessageIdentity, Payload};
    use crate::spool::{Options, Parts, StateChoice, disk::RealDisk, open_with};
    use crate::status::board::Board;

    fn feed(name: &str) -> FeedId {
        FeedId::new(name).unwrap()
    }

    fn parts(directory: &std::path::Path) -> Parts {
        let feeds = vec![(feed("a"), Lane::Normal), (feed("b"), Lane::Normal)];
        let (path, key) = (directory.join("spool"), KeySource::Auto);
        let options = Options { path, max_bytes: Some(64 * MIB), key, message_bytes_max: MESSAGE_BYTES_MAX_DEFAULT, feeds };
        open_with(options, Arc::new(RealDisk), StateChoice::None, &Board::new([feed("a"), feed("b")])).unwrap()
    }

    fn message(to: &str, n: u64, bytes: usize) -> Message {
        let control_id = Bytes::from(format!("ID{n}"));
        Message {
            feed: feed(to),
            identity: Some(MessageIdentity { application: Bytes::new(), facility: Bytes::new(), control_id }),
            body: Payload::new(vec![b'x'; bytes].into()),
            reply: Payload::new(Bytes::new()),
            origin: crate::record::Origin::Peer(format!("10.0.0.1:{n}")),
            received_at_ms: n.cast_signed(),
            clock_suspect: false,
            stage: crate::record::Stage::Live,
            batch_mismatch: false,
        }
    }

    #[test]
    fn records_are_found_newest_first_across_segments_and_page_by_page() {
        let directory = tempfile::tempdir().unwrap();
        let mut parts = parts(directory.path());
        let bytes = SEGMENT_BYTES_MIN as usize / 8;
        for n in 1..=40 {
            let batch = vec![message("a", n, bytes), message("b", n, 10)];
            assert!(parts.committer.commit(batch).iter().all(Result::is_ok));
        }
        let monitor = &parts.monitor;
        let seqs = |searched: &Searched| searched.found.iter().map(|header| header.seq).collect::<Vec<_>>();
        let one = monitor.search(&feed("a"), &Wanted::ControlId(b"ID7".to_vec()), u64::MAX, 10);
        assert_eq!((seqs(&one), one.records, one.down_to, one.more_below), (vec![7], 40, Some(1), None));
        assert_eq!(one.found[0].peer, "10.0.0.1:7");
        let by_seq = monitor.search(&feed("a"), &Wanted::Seq(40), u64::MAX, 10);
        assert_eq!(seqs(&by_seq), [40]);
        assert!(by_seq.records < 40, "only the segment that holds it is walked");
        assert_eq!(seqs(&monitor.search(&feed("a"), &Wanted::Since(38), u64::MAX, 10)), [40, 39, 38]);

        let (mut all, mut before) = (Vec::new(), u64::MAX);
        loop {
            let page = monitor.search(&feed("a"), &Wanted::All, before, 7);
            assert!(page.found.len() <= 7);
            all.extend(seqs(&page));
            let Some(below) = page.more_below else { break };
            assert!(below < before, "every page gets further");
            before = below;
        }
        assert_eq!(all, (1..=40).rev().collect::<Vec<_>>(), "nothing twice, nothing passed over");
        assert_eq!(monitor.search(&feed("c"), &Wanted::All, u64::MAX, 7), Searched::default());
    }
}
