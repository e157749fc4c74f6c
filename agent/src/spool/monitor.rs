//! Figures of the spool for the status: never blocks on the disk.

use std::sync::Arc;

use super::arrivals::Arrivals;
use super::format::DATA_START;
use super::index::{Index, Segment, Shared, Span};
use super::quarantine::{Listed, Quarantine};
use crate::record::{FeedId, FileProgress, Incarnation, Lane};

/// Looks, and can do nothing else.
#[derive(Debug, Clone)]
pub struct Monitor {
    pub(super) shared: Arc<Shared>,
    quarantine: Arc<Quarantine>,
}

/// The spool at one moment.
#[derive(Debug, Clone)]
pub struct SpoolView {
    /// Bytes the spool takes on the volume.
    pub bytes: u64,
    pub max_bytes: u64,
    /// Bytes written of what is not settled, as near as segments tell. Segments are made in full size, so `bytes` stands still while they fill.
    pub waiting_bytes: u64,
    /// Bytes that may still be written before a new segment finds no room.
    pub room_bytes: u64,
    pub segments: u64,
    pub lanes: Vec<LaneView>,
    pub feeds: Vec<FeedView>,
    pub incarnation: Incarnation,
}

#[derive(Debug, Clone)]
pub struct LaneView {
    pub lane: Lane,
    /// Unsettled records of the feeds now in this lane.
    pub records: u64,
    /// Bytes of its segments.
    pub bytes: u64,
    /// When the oldest segment that holds something unsettled got its first record of such a feed: the oldest record is this old or younger.
    pub oldest_received_ms: Option<i64>,
}

#[derive(Debug, Clone)]
pub struct FeedView {
    pub id: FeedId,
    pub lane: Lane,
    pub retired: bool,
    pub last_seq: u64,
    pub settled_seq: u64,
    /// When its oldest unsettled record came, within about a second (within a segment's span for what was there at start).
    pub oldest_received_ms: Option<i64>,
    /// The feed's current incarnation.
    pub incarnation: Incarnation,
    /// Its newest durable record that came from a file.
    pub files: Option<FileProgress>,
}

impl Monitor {
    pub(super) fn new(shared: Arc<Shared>, quarantine: Arc<Quarantine>) -> Self {
        Self { shared, quarantine }
    }

    /// What lies in quarantine, the newest first, at most `most`; and how many there are. Reads the head of each file.
    pub fn quarantined(&self, feed: Option<&FeedId>, most: usize) -> std::io::Result<(Vec<Listed>, u64)> {
        self.quarantine.list(&*self.shared.disk, feed, most)
    }

    pub fn view(&self) -> SpoolView {
        let index = self.shared.index();
        SpoolView {
            bytes: index.bytes() + index.other_bytes + self.quarantine.bytes(),
            max_bytes: index.max_bytes,
            waiting_bytes: index.segments().map(|segment| waiting_bytes(&index, segment)).sum(),
            room_bytes: room_bytes(&index, self.shared.segment_bytes),
            segments: index.lanes.iter().map(|lane| lane.len() as u64).sum(),
            lanes: Lane::ALL.into_iter().map(|lane| lane_view(&index, lane)).collect(),
            feeds: feed_views(&index),
            incarnation: index.incarnation,
        }
    }
}

/// Of the bytes written to a segment, the share of its unsettled records.
fn waiting_bytes(index: &Index, segment: &Segment) -> u64 {
    let unsettled = |(feed, span): (&FeedId, &Span)| {
        let settled = index.feeds.get(feed).map_or(u64::MAX, |known| known.settled.seq);
        span.last.saturating_sub(settled).min(span.count)
    };
    let (waiting, all) = segment.spans.iter().fold((0, 0), |(waiting, all), span| (waiting + unsettled(span), all + span.1.count));
    let bytes = u128::from(written_bytes(segment)) * u128::from(waiting) / u128::from(all.max(1));
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn written_bytes(segment: &Segment) -> u64 {
    if segment.open { segment.durable_end.saturating_sub(DATA_START) } else { segment.file_bytes }
}

/// What fits into whole new segments, and the rest of those that are open.
fn room_bytes(index: &Index, segment_bytes: u64) -> u64 {
    let free = index.segment_bytes_max.saturating_sub(index.bytes());
    let open = index.segments().filter(|segment| segment.open).map(|segment| segment.file_bytes.saturating_sub(segment.durable_end));
    free / segment_bytes.max(1) * segment_bytes + open.sum::<u64>()
}

fn lane_view(index: &Index, lane: Lane) -> LaneView {
    let segments = &index.lanes[lane.index()];
    let unsettled = segments
        .values()
        .flat_map(|segment| &segment.spans)
        .filter(|(feed, span)| index.feeds.get(*feed).is_some_and(|known| span.last > known.settled.seq));
    LaneView {
        lane,
        records: index.feeds.values().filter(|feed| feed.lane == lane).map(|feed| feed.head.seq - feed.settled.seq).sum(),
        bytes: segments.values().map(|segment| segment.file_bytes).sum(),
        oldest_received_ms: unsettled.map(|(_, span)| span.first_received_ms).min(),
    }
}

fn feed_views(index: &Index) -> Vec<FeedView> {
    let views = index.feeds.iter().map(|(id, feed)| FeedView {
        id: id.clone(),
        lane: feed.lane,
        retired: !feed.configured,
        last_seq: feed.head.seq,
        settled_seq: feed.settled.seq,
        oldest_received_ms: if feed.head.seq > feed.settled.seq { index.arrivals.get(id).and_then(Arrivals::oldest) } else { None },
        incarnation: feed.head_position().incarnation,
        files: feed.files,
    });
    views.filter(|view| !view.retired || view.last_seq > view.settled_seq).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Mark;
    use crate::limits::MIB;
    use crate::record::{Chain, Name};
    use crate::spool::format::{SegmentHeaderV1, SegmentId};
    use crate::spool::index::Feed;

    fn segment(open: bool, durable_end: u64, spans: &[(&str, u64, u64)]) -> Segment {
        let header = SegmentHeaderV1 {
            id: SegmentId([0; 16]),
            lane: 0,
            ordinal: 0,
            key_generation: 0,
            flags: 0,
            incarnation: Incarnation([0; 16]),
            predecessor: None,
            bases: Vec::new(),
        };
        let mut segment = Segment::new(&header, "x".into(), 16 * MIB, DATA_START + durable_end);
        segment.open = open;
        for (feed, first, count) in spans {
            segment.note(&Name::new(feed).unwrap(), *first, *count, Chain::GENESIS, 0, None);
        }
        segment
    }

    fn index(settled: u64, segments: impl IntoIterator<Item = Segment>) -> Index {
        let mut feed = Feed::new(Lane::Critical);
        feed.settled = Mark { seq: settled, chain: Chain::GENESIS };
        let lane = (0..).zip(segments).collect();
        Index {
            incarnation: Incarnation([0; 16]),
            feeds: [(Name::new("a").unwrap(), feed)].into(),
            arrivals: [].into(),
            shape: 0,
            lanes: [lane, [].into(), [].into()],
            next_ordinal: [0; 3],
            other_bytes: 0,
            max_bytes: 64 * MIB,
            segment_bytes_max: 60 * MIB,
        }
    }

    /// A segment of full size into which a little is written takes its full size on the volume; what waits in it is little.
    #[test]
    fn what_waits_grows_with_every_record_and_not_with_every_segment() {
        let waits = |settled, written, count| waiting_bytes(&index(settled, []), &segment(true, written, &[("a", 1, count)]));
        assert_eq!([waits(0, 1000, 10), waits(0, 2000, 20), waits(5, 1000, 10), waits(10, 1000, 10)], [1000, 2000, 500, 0]);
        let closed = segment(false, 9 * MIB, &[("a", 1, 4), ("gone", 1, 4)]);
        assert_eq!(waiting_bytes(&index(0, []), &closed), 8 * MIB, "a feed that nobody knows waits for nothing");
    }

    #[test]
    fn room_is_what_whole_segments_and_the_open_ones_can_take() {
        let all = [segment(false, 0, &[]), segment(true, 4 * MIB - DATA_START, &[])];
        assert_eq!(room_bytes(&index(0, all), 16 * MIB), (16 + 12) * MIB);
        assert_eq!(room_bytes(&index(0, (0..4).map(|_| segment(false, 0, &[]))), 16 * MIB), 0, "more than may be taken");
    }
}
