//! The segments of a lane: made, given up, closed. The committer's half that knows files; what goes into them is in `committer`.
//!
//! ```text
//!   roll ──► open ──► full, or a feed joins or leaves ──► close: footer ──► roll
//!              └────► write or sync failed ──► give_up: never touched again ──► roll: the header of the next says where this one ends
//! ```
//!
//! I5: `roll` is where the quota is held; when it is used up, or the volume is, new messages are refused with `spool_full` until something is
//! released.

use std::io;

use super::AppendError;
use super::committer::Committer;
use super::format::{self, DATA_START, FOOTER_RESERVE, PredecessorV1, SegmentHeaderV1, SegmentId};
use super::index::Segment;
use super::segment::{Writer, segment_path};
use crate::record::Lane;
use crate::status::condition::Code;

/// What a lane writes to.
#[derive(Debug, Default)]
pub(super) struct LaneWriter {
    pub(super) open: Option<Writer>,
    /// The last segment and where its durable records end, while none is open.
    last: Option<PredecessorV1>,
    /// The last segment was given up, and no successor says yet where it ends: after a crash all of it would count.
    pub(super) needs_cut: bool,
}

impl LaneWriter {
    pub(super) fn new(last: Option<PredecessorV1>) -> Self {
        Self { open: None, last, needs_cut: false }
    }
}

impl Committer {
    /// Never touches the open segment of a lane again; its successor will cut it at its durable end.
    pub(super) fn give_up(&mut self, lane: Lane) {
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
            // Where a feed that has drained ended is known by the heads alone; there may be many of them.
            let live = index.feeds.iter().filter(|(_, feed)| feed.is_live());
            let bases = live.map(|(id, feed)| format::BaseV1 {
                feed: id.to_string(),
                follows: feed.lineage.last().and_then(|link| link.follows),
                head_seq: feed.head.seq,
                head_chain: feed.head.chain,
                files: feed.files,
            });
            SegmentHeaderV1 {
                id,
                lane: lane.index() as u8,
                ordinal,
                key_generation: 0,
                flags: 0,
                incarnation: index.incarnation,
                predecessor: self.lanes[lane.index()].last,
                bases: bases.collect(),
            }
        };
        let path = segment_path(&self.shared.path, lane, header.ordinal);
        match Writer::create(&*self.shared.disk, &path, header.clone(), &self.shared.key, file_bytes) {
            Ok(open) => {
                let mut segment = Segment::new(&header, path, file_bytes, DATA_START);
                segment.open = true;
                self.shared.index().lanes[lane.index()].insert(header.ordinal, segment);
                let writer = &mut self.lanes[lane.index()];
                (writer.open, writer.needs_cut) = (Some(open), false);
                self.shared.board.clear(Code::SpoolFull, "");
                Ok(())
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

    pub(super) fn close_segment(&mut self, lane: Lane) {
        let Some(open) = self.lanes[lane.index()].open.take() else { return };
        let (ordinal, id, durable_end) = (open.header.ordinal, open.header.id, open.durable_end());
        let Some(segment) = self.shared.index().segment(lane, ordinal).cloned() else { return };
        let closed = open.close(&segment);
        let mut index = self.shared.index();
        if let Some(segment) = index.segment(lane, ordinal) {
            segment.open = false;
            match closed {
                Ok(len) => segment.file_bytes = len,
                Err(error) => {
                    tracing::warn!(path = %segment.path.display(), "no footer was written: {error}; the next start scans this segment");
                }
            }
        }
        drop(index);
        self.lanes[lane.index()].last = Some(PredecessorV1 { id, valid_len: durable_end });
    }
}

pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
