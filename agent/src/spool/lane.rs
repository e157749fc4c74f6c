//! The segments of a lane: made, given up, closed. The committer's half that knows files; what goes into them is in `committer`.
//!
//! ```text
//!   roll ──► open ──► full, or a feed joins or leaves ──► close: footer ──► roll
//!              └────► write or sync failed ──► give_up: never touched again ──► roll: the header of the next says where this one ends
//!
//!   rows     prepare: another file, while the last rows of the full one are under way; rows are computed for it
//!              └──► they landed ──► succeed: it is the open one, its header goes in front of its first rows; the full one gets its footer meanwhile
//!              └──► they failed ──► give_up takes it along: it holds nothing
//! ```
//!
//! I5: `roll` is where the quota is held; when it is used up, or the volume is, new messages are refused with `spool_full` until something is
//! released.

use std::io;
use std::path::Path;

use super::AppendError;
use super::committer::Committer;
use super::format::{BaseV1, DATA_START, FOOTER_RESERVE, PredecessorV1, SegmentHeaderV1, SegmentId};
use super::index::{Index, Segment, Shared};
use super::segment::{self, Closed, Closing, Named, Writer, segment_path};
use crate::record::Lane;
use crate::status::condition::Code;

/// What a lane writes to.
#[derive(Debug, Default)]
pub(super) struct LaneWriter {
    pub(super) open: Option<Writer>,
    /// The one behind it, for rows, while what is under way fills the open one: nothing of it is durable, not even a header.
    pub(super) next: Option<(Writer, Named)>,
    /// The last segment and where its durable records end, while none is open.
    last: Option<PredecessorV1>,
    /// The last segment was given up, and no successor says yet where it ends: after a crash all of it would count.
    pub(super) needs_cut: bool,
}

impl LaneWriter {
    pub(super) fn new(last: Option<PredecessorV1>) -> Self {
        Self { open: None, next: None, last, needs_cut: false }
    }

    /// Where rows go.
    pub(super) fn newest(&mut self) -> Option<&mut Writer> {
        self.next.as_mut().map(|(next, _)| next).or(self.open.as_mut())
    }
}

impl Committer {
    /// Never touches the open segment of a lane again; its successor will cut it at its durable end.
    pub(super) fn give_up(&mut self, lane: Lane) {
        let writer = &mut self.lanes[lane.index()];
        if let Some((next, _)) = writer.next.take() {
            let ordinal = next.header.ordinal;
            drop(next);
            self.shared.index().lanes[lane.index()].remove(&ordinal);
            segment::remove_unused(&*self.shared.disk, &segment_path(&self.shared.path, lane, ordinal));
        }
        let writer = &mut self.lanes[lane.index()];
        if let Some(open) = writer.open.take() {
            writer.last = Some(PredecessorV1 { id: open.header.id, valid_len: open.durable_end() });
            writer.needs_cut = true;
            if let Some(segment) = self.shared.index().segment(lane, open.header.ordinal) {
                segment.open = false;
            }
        }
    }

    /// Closes the lane's segment, if one is open, and makes the next with room for a record of `bytes`.
    /// Nothing is under way in it.
    pub(super) fn roll(&mut self, lane: Lane, bytes: u64) -> Result<(), AppendError> {
        self.close_segment(lane);
        let predecessor = self.lanes[lane.index()].last;
        let made = self.make(lane, bytes, predecessor, |shared, path, header, file_bytes| {
            Writer::create(&shared.disk, path, header, &shared.key, file_bytes)
        })?;
        let writer = &mut self.lanes[lane.index()];
        (writer.open, writer.needs_cut) = (Some(made), false);
        Ok(())
    }

    /// Makes a file for rows behind the lane's open segment, in which there is no room any more, while the last of them are under way.
    pub(super) fn prepare(&mut self, lane: Lane, bytes: u64) -> Result<(), AppendError> {
        let open = self.lanes[lane.index()].open.as_ref().expect("something is under way in it");
        let predecessor = Some(PredecessorV1 { id: open.header.id, valid_len: open.end() });
        let made = self.make(lane, bytes, predecessor, |shared, path, header, file_bytes| {
            Writer::allocate(&*shared.disk, path, header, &shared.key, file_bytes)
        })?;
        let named = self.hand.name(&self.shared.disk, &segment_path(&self.shared.path, lane, made.header.ordinal));
        self.lanes[lane.index()].next = Some((made, named));
        Ok(())
    }

    /// What was under way in the open segment has landed: the prepared one takes its place.
    pub(super) fn succeed(&mut self, lane: Lane) {
        let Some((mut next, named)) = self.lanes[lane.index()].next.take() else { return };
        if let Some(closing) = self.take_open(lane) {
            let closed = self.hand.close(closing);
            self.note_closed(closed);
        }
        debug_assert_eq!(next.header.predecessor, self.lanes[lane.index()].last, "it ends where it was to end");
        next.header.bases = bases(&self.shared.index());
        next.begin_with(named);
        self.lanes[lane.index()].open = Some(next);
    }

    fn make(
        &self,
        lane: Lane,
        bytes: u64,
        predecessor: Option<PredecessorV1>,
        create: impl FnOnce(&Shared, &Path, SegmentHeaderV1, u64) -> io::Result<Writer>,
    ) -> Result<Writer, AppendError> {
        let file_bytes = self.shared.segment_bytes.max(DATA_START + bytes + FOOTER_RESERVE);
        let mut id = SegmentId([0; 16]);
        getrandom::fill(&mut id.0).map_err(|error| AppendError::Store(format!("no random numbers: {error}")))?;
        let header = {
            let mut index = self.shared.index();
            let (used, max) = (index.bytes(), index.segment_bytes_max);
            if used + file_bytes > max {
                drop(index);
                return Err(self.full(format!("{used} of {max} bytes are in use and a new segment needs {file_bytes}")));
            }
            // The name is used up even if making the file fails.
            let ordinal = index.next_ordinal[lane.index()];
            index.next_ordinal[lane.index()] += 1;
            SegmentHeaderV1 {
                id,
                lane: lane.index() as u8,
                ordinal,
                key_generation: 0,
                flags: 0,
                incarnation: index.incarnation,
                predecessor,
                bases: bases(&index),
            }
        };
        let path = segment_path(&self.shared.path, lane, header.ordinal);
        match create(&self.shared, &path, header.clone(), file_bytes) {
            Ok(made) => {
                let mut segment = Segment::new(&header, path, file_bytes, DATA_START);
                segment.open = true;
                self.shared.index().lanes[lane.index()].insert(header.ordinal, segment);
                self.shared.board.clear(Code::SpoolFull, "");
                Ok(made)
            }
            Err(error) if is_full(&error) => Err(self.full(format!("the volume has no room for a segment of {file_bytes} bytes"))),
            Err(error) => {
                let text = format!("making {} failed: {error}; check the disk", path.display());
                self.shared.board.raise(Code::SpoolWriteFailed, lane.as_str(), text.clone());
                Err(AppendError::Store(text))
            }
        }
    }

    fn full(&self, text: String) -> AppendError {
        self.shared.board.raise(
            Code::SpoolFull,
            "",
            format!("new messages are refused: {text}; let the uplink drain or give the spool more room"),
        );
        AppendError::Full(text)
    }

    /// Closes the lane's segment, if one is open; its footer is on disk when this returns. Nothing is under way or ahead in it.
    pub(super) fn close_segment(&mut self, lane: Lane) {
        debug_assert!(self.lanes[lane.index()].next.is_none(), "rows are ahead");
        if let Some(closing) = self.take_open(lane) {
            self.note_closed([closing.run()]);
        }
    }

    /// The lane's segment is not the open one any more; what is left to do for it.
    fn take_open(&mut self, lane: Lane) -> Option<Closing> {
        let open = self.lanes[lane.index()].open.take()?;
        let (ordinal, id, valid_len) = (open.header.ordinal, open.header.id, open.durable_end());
        let closing = self.shared.index().segment(lane, ordinal).map(|segment| {
            segment.open = false;
            open.close(lane, segment)
        });
        self.lanes[lane.index()].last = closing.is_some().then_some(PredecessorV1 { id, valid_len }).or(self.lanes[lane.index()].last);
        closing
    }

    /// Footers were written, or were not.
    pub(super) fn note_closed(&mut self, closed: impl IntoIterator<Item = Closed>) {
        for Closed { lane, ordinal, outcome } in closed {
            let mut index = self.shared.index();
            let Some(segment) = index.segment(lane, ordinal) else { continue };
            match outcome {
                Ok(len) => segment.file_bytes = len,
                Err(error) => {
                    tracing::warn!(path = %segment.path.display(), "no footer was written: {error}; the next start scans this segment");
                }
            }
        }
    }
}

/// Where every feed is durable. Where one that has drained ended is known by the heads alone; there may be many of them.
fn bases(index: &Index) -> Vec<BaseV1> {
    let live = index.feeds.iter().filter(|(_, feed)| feed.is_live());
    let bases = live.map(|(id, feed)| BaseV1 {
        feed: id.to_string(),
        follows: feed.lineage.last().and_then(|link| link.follows),
        head_seq: feed.head.seq,
        head_chain: feed.head.chain,
        files: feed.files,
    });
    bases.collect()
}

pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
