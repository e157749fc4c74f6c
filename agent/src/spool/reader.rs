//! The unique reading end: reads each feed in order, settles, releases (I2, I3, I9).
//!
//! A cursor per feed walks the segments that hold records of that feed, up to the durable end. Where a seq is missing it says so: a [`Item::Gap`]
//! with the exact range and the chain at its end, so that the account can go on behind it. Settled marks move in memory; [`Reader::sync_marks`]
//! makes them durable and then, in this order, syncs the state database and unlinks segments in which nothing is unsettled. A segment is kept
//! while its predecessor is, because its header says where that one ends.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::format::{self, DATA_START};
use super::index::{Feed, Segment, Shared};
use super::key::Sealer;
use super::quarantine::{self, Quarantine};
use super::queue::RenewHandle;
use super::recovery;
use super::scan::{BodyError, Located, Scan};
use super::segment::lane_directory;
use super::state::{self, SharedState};
use super::{AppendError, FeedInfo, Item, QuarantineError, ReadError};
use crate::contract::Mark;
use crate::limits;
use crate::record::{Chain, FeedId, FileOrigin, HttpOrigin, Incarnation, Lane, Link, Origin, Payload, Position, Record};
use crate::status::condition::Code;

/// Where a feed is being read.
#[derive(Debug)]
struct Cursor {
    lane: Lane,
    ordinal: u64,
    incarnation: Incarnation,
    scan: Scan,
    sealer: Sealer,
    /// The seq last handed out; 0 before the first.
    after: u64,
    /// A record found behind a gap, kept for the next call.
    found: Option<Located>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    quarantine: Arc<Quarantine>,
    state: SharedState,
    renew: Option<RenewHandle>,
    cursors: BTreeMap<FeedId, Cursor>,
    /// Seq that could not be read, and how often in a row.
    failures: BTreeMap<FeedId, (u64, u32)>,
    marks_moved: bool,
    marks_synced: Option<Instant>,
}

/// The segment in which a feed goes on, as far as reading needs it.
struct Place {
    lane: Lane,
    ordinal: u64,
    durable_end: u64,
    last: Mark,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, quarantine: Arc<Quarantine>, state: SharedState) -> Self {
        Self {
            shared,
            quarantine,
            state,
            renew: None,
            cursors: BTreeMap::new(),
            failures: BTreeMap::new(),
            marks_moved: false,
            marks_synced: None,
        }
    }

    pub(super) fn set_renew(&mut self, renew: RenewHandle) {
        self.renew = Some(renew);
    }

    /// Every configured feed, and every other one that still holds unsettled records.
    pub fn feeds(&self) -> Vec<FeedInfo> {
        let index = self.shared.index();
        let wanted = index.feeds.iter().filter(|(_, feed)| feed.is_live());
        wanted.map(|(id, feed)| FeedInfo { id: id.clone(), lane: feed.lane, retired: !feed.configured }).collect()
    }

    /// Changes whenever `feeds` says something else because of a new configuration.
    pub fn shape(&self) -> u64 {
        self.shared.index().shape
    }

    /// The durable head (seq 0 and genesis before the first record), under the incarnation that is being written now.
    pub fn head(&self, feed: &FeedId) -> Position {
        let index = self.shared.index();
        let none = || Position { incarnation: index.incarnation, seq: 0, chain: Chain::GENESIS };
        index.feeds.get(feed).map_or_else(none, Feed::head_position)
    }

    pub fn settled(&self, feed: &FeedId) -> Mark {
        self.shared.index().feeds.get(feed).map_or(Mark { seq: 0, chain: Chain::GENESIS }, |feed| feed.settled)
    }

    /// Links of every incarnation that has unsettled records, and of the current one; oldest first.
    pub fn lineage(&self, feed: &FeedId) -> Vec<Link> {
        self.shared.index().feeds.get(feed).map(|feed| feed.lineage.clone()).unwrap_or_default()
    }

    /// Changes whenever something became durable.
    pub fn appended(&self) -> watch::Receiver<u64> {
        self.shared.appended.subscribe()
    }

    /// The record or gap that follows seq `after` of the feed; `None` at the durable head, which is never passed. What cannot be read is an error
    /// a few times, in case it passes, and then damage.
    pub fn next(&mut self, feed: &FeedId, after: u64) -> Result<Option<Item>, ReadError> {
        let outcome = self.try_next(feed, after);
        if outcome.is_ok() {
            if self.failures.remove(feed).is_some() {
                // Patience with one place must not outlast it.
                self.cursors.remove(feed);
            }
        } else {
            // The scan may have passed the record; the next attempt must meet it again.
            self.cursors.remove(feed);
            let failure = self.failures.entry(feed.clone()).or_insert((after, 0));
            *failure = if failure.0 == after { (after, failure.1 + 1) } else { (after, 1) };
        }
        outcome
    }

    fn try_next(&mut self, feed: &FeedId, after: u64) -> Result<Option<Item>, ReadError> {
        let Some((head, place)) = self.place(feed, after) else { return Ok(None) };
        let Some(place) = place else {
            // Nothing on disk reaches the head: a lost end.
            return Ok(Some(self.gap(feed, after, head, "lost_at_end")));
        };
        self.seek(feed, &place, after)?;
        let cursor = self.cursors.get_mut(feed).expect("seek put it there");
        loop {
            let found = match cursor.found.take() {
                Some(found) => Some(found),
                None => {
                    cursor.scan.next(place.durable_end).map_err(|source| ReadError::Io { feed: feed.clone(), seq: after + 1, source })?
                }
            };
            let Some(found) = found else {
                self.cursors.remove(feed);
                self.mark_damaged(&place);
                return Ok(Some(self.gap(feed, after, place.last, "damaged")));
            };
            if found.header.feed != feed.as_str() || found.header.seq <= after {
                continue;
            }
            if found.header.seq > after + 1 {
                let end = Mark { seq: found.header.seq - 1, chain: found.header.chain_before };
                cursor.found = Some(found);
                self.mark_damaged(&place);
                let gap = self.gap(feed, after, end, "damaged");
                return Ok(Some(gap));
            }
            let chain = found.header.chain();
            match cursor.scan.body(&cursor.sealer, &found) {
                Ok(body) => {
                    cursor.after = found.header.seq;
                    let record = record_of(feed, cursor.incarnation, &found, body.into_message());
                    if head.seq == record.seq {
                        cursor.scan.rest();
                    }
                    return Ok(Some(Item::Record(record)));
                }
                Err(BodyError::Damaged) => {
                    self.mark_damaged(&place);
                    let gap = self.gap(feed, after, Mark { seq: after + 1, chain }, "damaged_body");
                    return Ok(Some(gap));
                }
                Err(BodyError::Io(source)) => return Err(ReadError::Io { feed: feed.clone(), seq: after + 1, source }),
            }
        }
    }

    /// The feed's head, and the segment in which `after + 1` or the first seq behind it lies. `None` at the head.
    fn place(&self, feed: &FeedId, after: u64) -> Option<(Mark, Option<Place>)> {
        let index = self.shared.index();
        let known = index.feeds.get(feed).filter(|known| known.head.seq > after)?;
        let place_in = |lane: Lane, segment: &Segment| {
            let span = segment.spans.get(feed).filter(|span| span.last > after)?;
            let last = Mark { seq: span.last, chain: span.chain };
            Some((span.first, Place { lane, ordinal: segment.ordinal, durable_end: segment.durable_end, last }))
        };
        let here = self.cursors.get(feed).filter(|cursor| cursor.after == after);
        let here = here.and_then(|cursor| place_in(cursor.lane, index.lanes[cursor.lane.index()].get(&cursor.ordinal)?));
        let place = here.or_else(|| {
            let all = Lane::ALL.into_iter().flat_map(|lane| index.lanes[lane.index()].values().map(move |segment| (lane, segment)));
            all.filter_map(|(lane, segment)| place_in(lane, segment)).min_by_key(|(first, _)| *first)
        });
        Some((known.head, place.map(|(_, place)| place)))
    }

    /// Puts the feed's cursor into the segment, at or before what follows `after`.
    fn seek(&mut self, feed: &FeedId, place: &Place, after: u64) -> Result<(), ReadError> {
        if let Some(cursor) = self.cursors.get_mut(feed)
            && (cursor.lane, cursor.ordinal) == (place.lane, place.ordinal)
            && cursor.after <= after
            && cursor.found.as_ref().is_none_or(|found| found.header.seq > after)
        {
            cursor.after = after;
            return Ok(());
        }
        let segment = self.shared.index().lanes[place.lane.index()].get(&place.ordinal).cloned();
        let segment = segment.expect("only this reader releases segments");
        let open = self.shared.open_read(&segment.path);
        let file = open.map_err(|source| ReadError::Io { feed: feed.clone(), seq: after + 1, source })?;
        let scan = Scan::new(file, segment.id, DATA_START);
        let is_hopeless = self.failures.get(feed).is_some_and(|(seq, times)| *seq == after && *times >= limits::READ_ATTEMPTS);
        let cursor = Cursor {
            lane: place.lane,
            ordinal: place.ordinal,
            incarnation: segment.incarnation,
            scan: if is_hopeless { scan.tolerate() } else { scan },
            sealer: self.shared.key.sealer(&segment.id),
            after,
            found: None,
        };
        self.cursors.insert(feed.clone(), cursor);
        Ok(())
    }

    /// A gap from `after + 1` to `end`, cut where an incarnation ends, so that each names one.
    fn gap(&self, feed: &FeedId, after: u64, end: Mark, reason: &'static str) -> Item {
        let first = after + 1;
        let index = self.shared.index();
        let known = index.feeds.get(feed).expect("feeds are never removed while open");
        let border = known.lineage.iter().find(|link| link.base_seq() >= first && link.base_seq() < end.seq);
        let end = border.map_or(end, |link| Mark { seq: link.base_seq(), chain: link.base_chain() });
        state::lock(&self.state).forget(feed, first, end.seq);
        let text = format!("records {first} to {} cannot be read from disk ({reason}); the hub is told", end.seq);
        self.shared.board.raise(Code::SpoolDamaged, feed.as_str(), text);
        Item::Gap { incarnation: known.incarnation_of(end.seq), first, last: end.seq, chain: end.chain, reason }
    }

    fn mark_damaged(&self, place: &Place) {
        if let Some(segment) = self.shared.index().segment(place.lane, place.ordinal) {
            segment.damaged = true;
        }
    }

    /// Moves the settled mark forward; ignored where it would go back or past the head.
    pub fn settle(&mut self, feed: &FeedId, mark: Mark) {
        let mut index = self.shared.index();
        let Some(known) = index.feeds.get_mut(feed) else { return };
        if mark.seq > known.settled.seq && mark.seq <= known.head.seq {
            known.settled = mark;
            known.prune();
            let head = known.head.seq;
            if let Some(arrivals) = index.arrivals.get_mut(feed) {
                arrivals.settle(mark.seq, head);
            }
            self.marks_moved = true;
        }
    }

    /// Copies a record into quarantine; synced when this returns.
    pub fn quarantine(&mut self, record: &Record, reason: &str) -> Result<(), QuarantineError> {
        let bytes = record.body.expose();
        if !self.quarantine.has_room(bytes.len() as u64, 100) {
            self.shared.board.raise(Code::QuarantineFull, record.feed.as_str(), "quarantine is full; the feed waits until room is made");
            return Err(QuarantineError::Full);
        }
        let item = quarantine::Item {
            feed: &record.feed,
            record: Some(record),
            code: reason,
            peer: &record.origin.for_people(),
            at_ms: record.received_at_ms,
            bytes,
        };
        let put = self.quarantine.put(&*self.shared.disk, &self.shared.key, &item);
        put.map_err(|error| QuarantineError::Store(format!("quarantine of {} record {} failed: {error}", record.feed, record.seq)))?;
        self.shared.board.clear(Code::QuarantineFull, record.feed.as_str());
        let text = format!("{} entries were put into quarantine; read their reasons and decide", self.quarantine.entries());
        self.shared.board.raise(Code::QuarantineNotEmpty, "", text);
        Ok(())
    }

    /// Starts a new incarnation: the hub has seen more of this one than we hold.
    pub fn renew_incarnation(&mut self) -> Result<Incarnation, AppendError> {
        match &self.renew {
            Some(renew) => renew.renew(),
            None => Err(AppendError::Stopping),
        }
    }

    /// Makes moved marks durable and releases what they allow; at most once a second unless `now`.
    pub fn sync_marks(&mut self, now: bool) {
        let is_due = self.marks_synced.is_none_or(|at| at.elapsed() >= limits::HEADS_SYNC_INTERVAL);
        if !self.marks_moved || !(now || is_due) {
            return;
        }
        self.marks_synced = Some(Instant::now());
        if let Err(error) = self.shared.write_heads() {
            let text = format!("the heads could not be written: {error}; nothing is released until they can; check the disk");
            self.shared.board.raise(Code::SpoolWriteFailed, "heads", text);
            return;
        }
        self.shared.board.clear(Code::SpoolWriteFailed, "heads");
        self.marks_moved = false;
        self.release();
    }

    /// Unlinks segments in which nothing is unsettled. The heads that say so are durable.
    fn release(&mut self) {
        let released = {
            let index = self.shared.index();
            let lanes = Lane::ALL.into_iter().map(|lane| (lane, &index.lanes[lane.index()]));
            lanes
                .flat_map(|(lane, segments)| releasable(&index, segments).into_iter().map(move |segment| (lane, segment)))
                .collect::<Vec<_>>()
        };
        if released.is_empty() {
            return;
        }
        if let Err(error) = state::barrier(&self.state) {
            tracing::warn!("the dedupe window could not be synced ({error}); a message resent after a power cut may be stored again");
        }
        for (lane, (ordinal, path, damaged)) in released {
            if let Err(error) = self.unlink(lane, &path, damaged) {
                tracing::warn!(path = %path.display(), "a drained segment could not be removed: {error}; it is tried again");
                self.marks_moved = true;
                return;
            }
            self.cursors.retain(|_, cursor| (cursor.lane, cursor.ordinal) != (lane, ordinal));
            self.shared.index().lanes[lane.index()].remove(&ordinal);
        }
    }

    /// Removes one segment, durably: a successor, which says where this one ends, must never be gone while this one could come back.
    fn unlink(&self, lane: Lane, path: &Path, damaged: bool) -> std::io::Result<()> {
        let disk = &*self.shared.disk;
        let done = if damaged { recovery::set_aside(disk, &self.shared.path, path).map(|_| ()) } else { disk.remove(path) };
        match done {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => disk.sync_dir(&lane_directory(&self.shared.path, lane)),
        }
    }
}

/// Settled, closed segments whose predecessor is gone or goes with them, oldest first.
fn releasable(index: &super::index::Index, segments: &BTreeMap<u64, Segment>) -> Vec<(u64, PathBuf, bool)> {
    let mut kept = Vec::new();
    let mut out = Vec::new();
    for segment in segments.values() {
        let needed = segment.predecessor.is_some_and(|predecessor| kept.contains(&predecessor.id));
        if segment.open || needed || !index.is_settled(segment) {
            kept.push(segment.id);
        } else {
            out.push((segment.ordinal, segment.path.clone(), segment.damaged));
        }
    }
    out
}

fn record_of(feed: &FeedId, incarnation: Incarnation, located: &Located, body: bytes::Bytes) -> Record {
    let header = &located.header;
    let origin = origin_of(&header.origin, header.flags);
    Record {
        feed: feed.clone(),
        incarnation,
        seq: header.seq,
        digest: header.digest,
        chain: header.chain(),
        nonce: header.nonce,
        control_id: header.control_id.clone().into(),
        origin,
        received_at_ms: header.received_at_ms,
        clock_suspect: header.flags & format::FLAG_CLOCK_SUSPECT != 0,
        control_id_reused: header.flags & format::FLAG_CONTROL_ID_REUSED != 0,
        stage: format::stage_of(header.flags),
        batch_mismatch: header.flags & format::FLAG_BATCH_MISMATCH != 0,
        resend_of: header.resend_of,
        body: Payload::new(body),
    }
}

/// What [`stored_origin`](super::committer::stored_origin) stored.
pub(super) fn origin_of(stored: &format::OriginV1, flags: u32) -> Origin {
    match stored {
        format::OriginV1::Peer { peer } => Origin::Peer(peer.clone()),
        format::OriginV1::File { place, start_offset, name, content } => Origin::File(FileOrigin {
            place: *place,
            start_offset: *start_offset,
            name: name.clone(),
            content: *content,
            repeated: flags & format::FLAG_FILE_REPEATED != 0,
        }),
        format::OriginV1::Http { peer, media_type } => {
            Origin::Http(HttpOrigin { peer: peer.clone(), media_type: media_type.clone(), request: [0; 32] })
        }
    }
}
