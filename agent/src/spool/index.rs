//! What the spool holds, in memory: a few bytes per segment and feed, never per record (I4).
//!
//! Committer, reader and monitor share one [`Index`] behind a mutex that is held for look-ups only, never across a disk operation. The committer
//! moves heads and open segments forward after a sync; the reader moves settled marks and takes released segments out; nobody else writes.
//!
//! ```text
//!   lanes  critical   [seg 7 closed][seg 8 closed][seg 9 open ▒▒▒░░░]
//!                          │ spans: feed a 120..340, feed b 7..9          durable_end ▲
//!   feeds  a: head 512, settled 131, lineage [inc 3 from 100, inc 4 from 400]
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::arrivals::Arrivals;
use super::disk::{Disk, DiskFile};
use super::format::{PredecessorV1, SegmentHeaderV1, SegmentId};
use super::heads::Heads;
use super::key::SpoolKey;
use super::resends::Resends;
use crate::contract::Mark;
use crate::record::{Chain, FeedId, FileProgress, Incarnation, Lane, Link, Position};
use crate::status::board::Board;

/// One feed's records in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub first: u64,
    pub last: u64,
    pub count: u64,
    /// The chain after `last`.
    pub chain: Chain,
    pub first_received_ms: i64,
    /// Its newest record of a file.
    pub files: Option<FileProgress>,
}

/// The one of two that is further.
pub fn newest(a: Option<FileProgress>, b: Option<FileProgress>) -> Option<FileProgress> {
    [a, b].into_iter().flatten().max_by_key(|progress| progress.seq)
}

/// A segment file.
#[derive(Clone, Debug)]
pub struct Segment {
    pub id: SegmentId,
    pub ordinal: u64,
    pub incarnation: Incarnation,
    pub predecessor: Option<PredecessorV1>,
    pub path: PathBuf,
    /// Bytes it takes on the volume.
    pub file_bytes: u64,
    /// Records before this offset are durable; nothing behind it is ever read.
    pub durable_end: u64,
    /// The committer still writes to it.
    pub open: bool,
    /// Something in it could not be read; it is kept aside when it is released.
    pub damaged: bool,
    pub spans: BTreeMap<FeedId, Span>,
}

impl Segment {
    pub fn new(header: &SegmentHeaderV1, path: PathBuf, file_bytes: u64, durable_end: u64) -> Self {
        Self {
            id: header.id,
            ordinal: header.ordinal,
            incarnation: header.incarnation,
            predecessor: header.predecessor,
            path,
            file_bytes,
            durable_end,
            open: false,
            damaged: false,
            spans: BTreeMap::new(),
        }
    }

    /// Takes a record into the spans, or so many in a row; what is said of it is said of the last.
    pub fn note(&mut self, feed: &FeedId, first: u64, count: u64, chain: Chain, received_at_ms: i64, files: Option<FileProgress>) {
        let last = first + count - 1;
        if let Some(span) = self.spans.get_mut(feed) {
            span.first = span.first.min(first);
            if last >= span.last {
                span.last = last;
                span.chain = chain;
            }
            span.files = newest(span.files, files);
            span.count += count;
            return;
        }
        self.spans.insert(feed.clone(), Span { first, last, count, chain, first_received_ms: received_at_ms, files });
    }
}

/// A feed as the spool knows it.
#[derive(Clone, Debug)]
pub struct Feed {
    /// Where new records go.
    pub lane: Lane,
    pub configured: bool,
    /// The durable head; seq 0 before the first record.
    pub head: Mark,
    /// Everything through here is settled.
    pub settled: Mark,
    /// Links of the incarnations that still matter, oldest first; the last is the current one.
    pub lineage: Vec<Link>,
    /// The newest durable record that came from a file.
    pub files: Option<FileProgress>,
}

impl Feed {
    /// One that nothing is known of.
    pub fn new(lane: Lane) -> Self {
        let genesis = Mark { seq: 0, chain: Chain::GENESIS };
        Self { lane, configured: false, head: genesis, settled: genesis, lineage: Vec::new(), files: None }
    }

    /// Configured, or still draining.
    pub fn is_live(&self) -> bool {
        self.configured || self.head.seq > self.settled.seq
    }

    /// Which incarnation made `seq`, as far as the lineage reaches back.
    pub fn incarnation_of(&self, seq: u64) -> Incarnation {
        let link = self.lineage.iter().rev().find(|link| link.base_seq() < seq).or_else(|| self.lineage.first());
        link.map_or(Incarnation([0; 16]), |link| link.incarnation)
    }

    /// The head under the incarnation that would write the next record.
    pub fn head_position(&self) -> Position {
        let incarnation = self.lineage.last().map_or(Incarnation([0; 16]), |link| link.incarnation);
        Position { incarnation, seq: self.head.seq, chain: self.head.chain }
    }

    /// Begins `incarnation` at the head. One that never got a record leaves no trace.
    pub fn begin(&mut self, incarnation: Incarnation, lineage_max: usize) {
        let is_empty = self.lineage.last().is_some_and(|link| link.base_seq() == self.head.seq);
        let follows = match self.lineage.last() {
            None => None,
            Some(link) if is_empty => link.follows,
            Some(link) => Some(Position { incarnation: link.incarnation, seq: self.head.seq, chain: self.head.chain }),
        };
        if is_empty {
            self.lineage.pop();
        }
        self.lineage.push(Link { incarnation, follows });
        self.prune();
        if self.lineage.len() > lineage_max {
            self.lineage.remove(0);
        }
    }

    /// Forgets incarnations all of whose records are settled.
    pub fn prune(&mut self) {
        while self.lineage.len() > 1 && self.lineage[1].base_seq() <= self.settled.seq {
            self.lineage.remove(0);
        }
    }
}

/// Everything in the spool.
#[derive(Debug)]
pub struct Index {
    pub incarnation: Incarnation,
    pub feeds: BTreeMap<FeedId, Feed>,
    /// Of each feed, when its unsettled records came.
    pub arrivals: BTreeMap<FeedId, Arrivals>,
    /// Grows with every change of which feeds are configured, and of their lanes.
    pub shape: u64,
    pub lanes: [BTreeMap<u64, Segment>; 3],
    /// Ordinal of the next segment of each lane.
    pub next_ordinal: [u64; 3],
    /// Bytes of heads and spare.
    pub other_bytes: u64,
    /// The quota of the whole spool, and what of it segments may take: the rest belongs to heads, spare and quarantine.
    pub max_bytes: u64,
    pub segment_bytes_max: u64,
}

/// As far as the segments tell.
pub fn arrivals(lanes: &[BTreeMap<u64, Segment>; 3], feeds: &BTreeMap<FeedId, Feed>) -> BTreeMap<FeedId, Arrivals> {
    let spans = lanes.iter().flat_map(BTreeMap::values).flat_map(|segment| &segment.spans);
    let mut firsts: Vec<(&FeedId, u64, i64)> = spans.map(|(feed, span)| (feed, span.first, span.first_received_ms)).collect();
    firsts.sort_unstable();
    let mut arrivals: BTreeMap<FeedId, Arrivals> = BTreeMap::new();
    for (feed, seq, received_ms) in firsts {
        arrivals.entry(feed.clone()).or_default().note(seq, received_ms);
    }
    for (id, feed) in feeds {
        if let Some(arrivals) = arrivals.get_mut(id) {
            arrivals.settle(feed.settled.seq, feed.head.seq);
        }
    }
    arrivals
}

impl Index {
    /// Bytes all segments take on the volume.
    pub fn bytes(&self) -> u64 {
        self.segments().map(|segment| segment.file_bytes).sum::<u64>()
    }

    /// Of all lanes.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.lanes.iter().flat_map(BTreeMap::values)
    }

    pub fn segment(&mut self, lane: Lane, ordinal: u64) -> Option<&mut Segment> {
        self.lanes[lane.index()].get_mut(&ordinal)
    }

    pub fn is_settled(&self, segment: &Segment) -> bool {
        segment.spans.iter().all(|(feed, span)| self.feeds.get(feed).is_none_or(|known| known.settled.seq >= span.last))
    }
}

/// What committer, reader and monitor share.
#[derive(Debug)]
pub struct Shared {
    pub path: PathBuf,
    pub disk: Arc<dyn Disk>,
    pub key: SpoolKey,
    pub board: Arc<Board>,
    pub segment_bytes: u64,
    pub message_bytes_max: u64,
    pub appended: watch::Sender<u64>,
    pub heads: Mutex<Heads>,
    pub resends: Arc<Resends>,
    index: Mutex<Index>,
}

impl Shared {
    #[expect(clippy::too_many_arguments, reason = "called once, by open")]
    pub fn new(
        path: PathBuf,
        disk: Arc<dyn Disk>,
        key: SpoolKey,
        board: Arc<Board>,
        segment_bytes: u64,
        message_bytes_max: u64,
        heads: Heads,
        index: Index,
    ) -> Arc<Self> {
        let (appended, _) = watch::channel(0);
        Arc::new(Self {
            path,
            disk,
            key,
            board,
            segment_bytes,
            message_bytes_max,
            appended,
            heads: Mutex::new(heads),
            resends: Arc::default(),
            index: Mutex::new(index),
        })
    }

    pub fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn open_read(&self, path: &std::path::Path) -> std::io::Result<Arc<dyn DiskFile>> {
        self.disk.open_read(path).map(Arc::from)
    }

    /// Writes the heads, and until both copies exist: later they must be writable on a full disk.
    pub fn write_first_heads(&self) -> std::io::Result<()> {
        self.write_heads()?;
        let is_complete = self.heads.lock().unwrap_or_else(PoisonError::into_inner).is_complete();
        if is_complete { Ok(()) } else { self.write_heads() }
    }

    /// Writes heads and settled marks as they are now, and syncs them.
    pub fn write_heads(&self) -> std::io::Result<()> {
        let mut heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken under the heads' lock, so that an older picture never overwrites a newer one.
        let content = {
            let index = self.index();
            super::heads::content(&index, self.key.check_value())
        };
        heads.write(&*self.disk, content)
    }
}
