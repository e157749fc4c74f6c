//! Figures of the spool for the status: never blocks on the disk.

use std::sync::Arc;

use super::arrivals::Arrivals;
use super::index::{Index, Shared};
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
            segments: index.lanes.iter().map(|lane| lane.len() as u64).sum(),
            lanes: Lane::ALL.into_iter().map(|lane| lane_view(&index, lane)).collect(),
            feeds: feed_views(&index),
            incarnation: index.incarnation,
        }
    }
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
