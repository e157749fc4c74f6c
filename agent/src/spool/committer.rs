//! The committer: the only place where a message becomes a record (I1, I3, I8).
//!
//! ```text
//!   batch ──► per lane, most urgent first:
//!               dedupe → room → seq, chain (on a scratch copy) → seal → pending
//!               flush: one write, one fdatasync
//!                 ok      adopt the scratch copy, tell the reader, remember for dedupe, answer `Durable`
//!                 failed  forget the scratch copy, give the segment up, answer the error; the seqs are used again in the successor,
//!                         whose header says where the failed segment ends
//! ```
//!
//! The outcome is per segment file, not per batch: a lane that cannot be written does not fail the others. A duplicate of a record in the same
//! flush waits for that record's outcome. Where the segments of a lane begin and end is in `lane`. [`Committer`] is synchronous and has no thread; `queue` wraps it in one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::format::{self, OriginV1, PredecessorV1, RecordHeaderV1};
use super::index::Shared;
use super::key::Fingerprint;
use super::lane::LaneWriter;
use super::segment::{record_bytes_max, segment_path};
use super::state::{self, Known, Remembered, SharedState};
use super::{AppendError, Durable};
use crate::contract::Mark;
use crate::limits;
use crate::record::{Digest, FeedId, FilePlace, FileProgress, Incarnation, Lane, Message, Nonce, Origin, Payload};
use crate::status::condition::Code;

/// See the module's documentation.
#[derive(Debug)]
pub struct Committer {
    pub(super) shared: Arc<Shared>,
    pub(super) lanes: [LaneWriter; 3],
    state: SharedState,
    /// Random bytes for nonces, drawn in bulk.
    random: Box<[u8; RANDOM_BYTES]>,
    /// So many of them are not used yet, at the front.
    random_left: usize,
    /// Feeds that are to move to another lane and cannot yet (see `configure`).
    pub(super) moves: BTreeMap<FeedId, Lane>,
}

/// Random bytes drawn at once.
const RANDOM_BYTES: usize = 4096;

/// One message of a flush, between `put` and the sync.
struct Pending {
    /// Its place in the batch.
    slot: usize,
    feed: FeedId,
    mark: Mark,
    place: Option<FilePlace>,
    reply: Payload,
    fingerprint: Option<Fingerprint>,
    received_at_ms: i64,
    resend_of: Option<u64>,
}

/// What is known of a message that is to be stored.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// The record it repeats, where it is let in all the same.
    resend_of: Option<u64>,
    /// The sender used its identity before.
    identity: bool,
}

impl Pending {
    fn files(&self) -> Option<FileProgress> {
        self.place.map(|place| FileProgress { seq: self.mark.seq, place })
    }
}

/// What a flush will become if its sync succeeds.
#[derive(Default)]
struct Scratch {
    heads: BTreeMap<FeedId, Ahead>,
    pending: Vec<Pending>,
    /// Whole-message fingerprints in this flush, to find duplicates among themselves.
    seen: HashMap<(FeedId, Fingerprint), usize>,
    /// Sender identities in this flush.
    identities: HashSet<(FeedId, [u8; 16])>,
    /// Batch slot of a duplicate, and the pending record it repeats.
    repeats: Vec<(usize, usize)>,
}

/// A feed as it will be.
#[derive(Clone, Copy)]
struct Ahead {
    mark: Mark,
    /// Its newest place in a file in this flush.
    place: Option<FilePlace>,
}

type Answer = Result<Durable, AppendError>;

impl Committer {
    pub(super) fn new(shared: Arc<Shared>, last: [Option<PredecessorV1>; 3], state: SharedState) -> Self {
        let lanes = last.map(LaneWriter::new);
        Self { shared, lanes, state, random: Box::new([0; RANDOM_BYTES]), random_left: 0, moves: BTreeMap::new() }
    }

    /// Commits a batch: one answer per message, in order. `Ok` only after the sync of the file that holds the record.
    pub fn commit(&mut self, mut batch: Vec<Message>) -> Vec<Answer> {
        self.carry_out_moves();
        let mut answers: Vec<Option<Answer>> = batch.iter().map(|_| None).collect();
        let mut lanes: [Vec<usize>; 3] = Default::default();
        for (slot, message) in batch.iter().enumerate() {
            let lane = self.shared.index().feeds.get(&message.feed).filter(|feed| feed.configured).map(|feed| feed.lane);
            let bytes = message.body.len() as u64;
            match lane {
                None => answers[slot] = Some(Err(AppendError::UnknownFeed(message.feed.clone()))),
                Some(_) if bytes > self.shared.message_bytes_max => answers[slot] = Some(Err(AppendError::TooLarge { bytes })),
                Some(_) if message.reply.len() > limits::REPLY_BYTES_MAX => {
                    answers[slot] = Some(Err(AppendError::TooLarge { bytes: message.reply.len() as u64 }));
                }
                Some(lane) => lanes[lane.index()].push(slot),
            }
        }
        for (lane, slots) in Lane::ALL.into_iter().zip(lanes) {
            if !slots.is_empty() {
                self.commit_lane(lane, &mut batch, &slots, &mut answers);
            }
        }
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(AppendError::Store("the batch was not finished".into())))).collect()
    }

    fn commit_lane(&mut self, lane: Lane, batch: &mut [Message], slots: &[usize], answers: &mut [Option<Answer>]) {
        let mut scratch = Scratch::default();
        for &slot in slots {
            let message = &batch[slot];
            let fingerprint =
                message.identity.as_ref().map(|id| self.shared.key.fingerprint(&message.feed, id, what_it_stands_for(message)));
            let in_flush = fingerprint.and_then(|print| scratch.seen.get(&(message.feed.clone(), print)).copied());
            if let Some(found) = in_flush.filter(|_| !self.takes_resends(&message.feed)) {
                scratch.repeats.push((slot, found));
                continue;
            }
            let known = match (in_flush, fingerprint) {
                (Some(found), _) => Seen { resend_of: Some(scratch.pending[found].mark.seq), identity: true },
                (None, None) => Seen::default(),
                (None, Some(print)) => match self.look_up(&message.feed, &print) {
                    Known::New { identity_seen } => Seen { resend_of: None, identity: identity_seen },
                    Known::Duplicate { seq, .. } if self.takes_resends(&message.feed) => Seen { resend_of: Some(seq), identity: true },
                    Known::Duplicate { seq, incarnation, reply } => {
                        let reply = Payload::new(reply.into());
                        answers[slot] = Some(Ok(Durable { seq, incarnation, reply, duplicate: true, resend_of: None }));
                        continue;
                    }
                },
            };
            if let Err(error) = check_identity(message, fingerprint, known, &scratch) {
                answers[slot] = Some(Err(error));
                continue;
            }
            let bytes = record_bytes_max(message.reply.len(), message.body.len());
            let open = self.lanes[lane.index()].open.as_ref();
            if open.is_some_and(|open| open.pending_bytes() >= limits::FLUSH_BYTES && open.has_room(bytes)) {
                self.flush(lane, std::mem::take(&mut scratch), answers);
            }
            if !self.lanes[lane.index()].open.as_ref().is_some_and(|open| open.has_room(bytes)) {
                self.flush(lane, std::mem::take(&mut scratch), answers);
                if let Err(error) = self.roll(lane, bytes) {
                    answers[slot] = Some(Err(error));
                    continue;
                }
            }
            if let Err(error) = self.check_follows(message, &scratch) {
                answers[slot] = Some(Err(error));
                continue;
            }
            self.put(lane, slot, message, fingerprint, known, &mut scratch);
            // It is encoded; a large one is not held twice until the disk is done.
            batch[slot].body = Payload::new(bytes::Bytes::new());
        }
        self.flush(lane, scratch, answers);
    }

    fn look_up(&self, feed: &FeedId, print: &Fingerprint) -> Known {
        state::lock(&self.state).look_up(feed, print, &self.shared)
    }

    /// A record of a file is stored only behind the one before it: where that one was refused, this one is, or a row would be lost.
    fn check_follows(&self, message: &Message, scratch: &Scratch) -> Result<(), AppendError> {
        let Origin::File(file) = &message.origin else { return Ok(()) };
        let pending = scratch.heads.get(&message.feed).and_then(|ahead| ahead.place);
        let before = pending.or_else(|| self.shared.index().feeds.get(&message.feed)?.files.map(|progress| progress.place));
        if before == file.follows {
            return Ok(());
        }
        Err(AppendError::Store("what comes before it in its file was not stored; the file is gone through again from there".into()))
    }

    /// Only asked about messages that were seen before.
    fn takes_resends(&self, feed: &FeedId) -> bool {
        self.shared.resends.is_open(feed, Instant::now())
    }

    /// Numbers, chains and encodes one message.
    fn put(&mut self, lane: Lane, slot: usize, message: &Message, print: Option<Fingerprint>, known: Seen, scratch: &mut Scratch) {
        let feed = message.feed.clone();
        let before = match scratch.heads.get(&feed) {
            Some(ahead) => ahead.mark,
            None => self.shared.index().feeds.get(&feed).expect("checked when the batch was split").head,
        };
        let nonce = self.nonce();
        let digest = Digest::of(&nonce, message.body.expose());
        let seq = before.seq + 1;
        let mark = Mark { seq, chain: before.chain.after(seq, &digest) };
        let in_flush = print.is_some_and(|p| !scratch.identities.insert((feed.clone(), p.identity)));
        let mut flags = format::stage_flag(message.stage);
        if message.clock_suspect {
            flags |= format::FLAG_CLOCK_SUSPECT;
        }
        // A resend is the same message again, not another one under its id.
        if known.resend_of.is_none() && (known.identity || in_flush) {
            flags |= format::FLAG_CONTROL_ID_REUSED;
        }
        if print.is_some() {
            flags |= format::FLAG_HAS_IDENTITY;
        }
        if matches!(&message.origin, Origin::File(file) if file.repeated) {
            flags |= format::FLAG_FILE_REPEATED;
        }
        if message.batch_mismatch {
            flags |= format::FLAG_BATCH_MISMATCH;
        }
        let control_id = message.identity.as_ref().map_or(&[][..], |id| &id.control_id[..]);
        let header = RecordHeaderV1 {
            feed: feed.to_string(),
            seq,
            flags,
            chain_before: before.chain,
            digest,
            nonce,
            synced_through: 0,
            received_at_ms: message.received_at_ms,
            identity_fingerprint: print.map_or([0; 16], |p| p.identity),
            body_fingerprint: print.map_or([0; 16], |p| p.body),
            control_id: control_id[..control_id.len().min(limits::CONTROL_ID_BYTES_MAX)].to_vec(),
            origin: stored_origin(&message.origin),
            resend_of: known.resend_of,
        };
        let open = self.lanes[lane.index()].open.as_mut().expect("rolled before");
        open.put(header, message.reply.expose(), message.body.expose());
        let place = message.origin.place();
        match scratch.heads.get_mut(&feed) {
            Some(ahead) => *ahead = Ahead { mark, place: place.or(ahead.place) },
            None => drop(scratch.heads.insert(feed.clone(), Ahead { mark, place })),
        }
        if let Some(print) = print {
            scratch.seen.insert((feed.clone(), print), scratch.pending.len());
        }
        let received_at_ms = message.received_at_ms;
        let (reply, resend_of) = (message.reply.clone(), known.resend_of);
        scratch.pending.push(Pending { slot, feed, mark, place, reply, fingerprint: print, received_at_ms, resend_of });
    }

    fn nonce(&mut self) -> Nonce {
        if self.random_left < 16 {
            getrandom::fill(&mut *self.random).expect("the kernel gives random numbers once it has started");
            self.random_left = RANDOM_BYTES;
        }
        self.random_left -= 16;
        let nonce: [u8; 16] = self.random[self.random_left..][..16].try_into().expect("16 of them");
        Nonce(nonce)
    }

    /// Makes the pending records of a lane durable and answers them, or fails them.
    fn flush(&mut self, lane: Lane, scratch: Scratch, answers: &mut [Option<Answer>]) {
        if scratch.pending.is_empty() {
            return;
        }
        let writer = &mut self.lanes[lane.index()];
        let open = writer.open.as_mut().expect("something is pending in it");
        match open.flush() {
            Ok(durable_end) => {
                let ordinal = open.header.ordinal;
                self.adopt(lane, ordinal, durable_end, scratch, answers);
            }
            Err(error) => {
                let path = segment_path(&self.shared.path, lane, open.header.ordinal);
                let text = format!("writing {} failed: {error}; check the disk", path.display());
                self.shared.board.raise(Code::SpoolWriteFailed, lane.as_str(), text.clone());
                self.give_up(lane);
                for slot in scratch.pending.iter().map(|pending| pending.slot).chain(scratch.repeats.iter().map(|(slot, _)| *slot)) {
                    answers[slot] = Some(Err(AppendError::Store(text.clone())));
                }
            }
        }
    }

    fn adopt(&mut self, lane: Lane, ordinal: u64, durable_end: u64, scratch: Scratch, answers: &mut [Option<Answer>]) {
        {
            let mut index = self.shared.index();
            for (feed, ahead) in &scratch.heads {
                let known = index.feeds.get_mut(feed).expect("feeds are never removed while open");
                known.head = ahead.mark;
                if let Some(place) = ahead.place {
                    let newest = scratch.pending.iter().rev().find(|pending| pending.place.is_some() && pending.feed == *feed);
                    debug_assert_eq!(newest.and_then(|pending| pending.place), Some(place), "places come in order");
                    known.files = newest.and_then(Pending::files);
                }
            }
            let segment = index.segment(lane, ordinal).expect("an open segment is never released");
            segment.durable_end = durable_end;
            for pending in &scratch.pending {
                segment.note(&pending.feed, pending.mark.seq, pending.mark.chain, pending.received_at_ms, pending.files());
            }
            for pending in &scratch.pending {
                index.arrivals.entry(pending.feed.clone()).or_default().note(pending.mark.seq, pending.received_at_ms);
            }
        }
        self.shared.board.clear(Code::SpoolWriteFailed, lane.as_str());
        let incarnation = self.shared.index().incarnation;
        // Records of a file have no identity of a sender's; they come as one.
        let is_bare = |pending: &Pending| pending.fingerprint.is_none() && pending.reply.is_empty();
        let runs = scratch.pending.chunk_by(|a, b| is_bare(a) && is_bare(b) && a.feed == b.feed && a.mark.seq + 1 == b.mark.seq);
        let remembered = runs.filter_map(|run| run.first().zip(run.last())).map(|(first, last)| Remembered {
            feed: last.feed.clone(),
            fingerprint: last.fingerprint,
            first: first.mark.seq,
            seq: last.mark.seq,
            incarnation,
            reply: last.reply.clone(),
        });
        state::lock(&self.state).remember(remembered);
        self.shared.appended.send_modify(|n| *n += scratch.pending.len() as u64);
        for (slot, repeated) in &scratch.repeats {
            let first = &scratch.pending[*repeated];
            answers[*slot] =
                Some(Ok(Durable { seq: first.mark.seq, incarnation, reply: first.reply.clone(), duplicate: true, resend_of: None }));
        }
        for pending in scratch.pending {
            let Pending { mark, reply, resend_of, .. } = pending;
            answers[pending.slot] = Some(Ok(Durable { seq: mark.seq, incarnation, reply, duplicate: false, resend_of }));
        }
    }

    /// Begins a new incarnation: everything written from now on carries it.
    pub(super) fn renew(&mut self) -> Result<Incarnation, AppendError> {
        for lane in Lane::ALL {
            self.close_segment(lane);
        }
        let mut incarnation = Incarnation([0; 16]);
        getrandom::fill(&mut incarnation.0).map_err(|error| AppendError::Store(format!("no random numbers: {error}")))?;
        {
            let mut index = self.shared.index();
            index.incarnation = incarnation;
            for feed in index.feeds.values_mut() {
                feed.begin(incarnation, limits::LINEAGE_MAX);
            }
        }
        self.shared.write_heads().map_err(|error| AppendError::Store(format!("writing the heads failed: {error}; check the disk")))?;
        self.shared.appended.send_modify(|n| *n += 1);
        Ok(incarnation)
    }

    /// Work for after the answers and for idle moments: brings the dedupe window up to date. True while there is more.
    pub fn idle(&mut self) -> bool {
        state::lock(&self.state).idle(&self.shared)
    }

    /// The clean stop: footers, heads, state.
    pub fn close(&mut self) {
        for lane in Lane::ALL {
            self.close_segment(lane);
        }
        if let Err(error) = self.shared.write_heads() {
            tracing::error!("the heads could not be written at stop: {error}; the next start recovers them from the journal");
        }
        state::lock(&self.state).close();
    }
}

fn stored_origin(origin: &Origin) -> OriginV1 {
    let cut = |text: &str, chars: usize| text.chars().take(chars).collect();
    match origin {
        Origin::Peer(peer) => OriginV1::Peer { peer: cut(peer, 64) },
        Origin::File(file) => OriginV1::File {
            place: file.place,
            start_offset: file.start_offset,
            name: cut(&file.name, limits::FILE_NAME_CHARS_MAX),
            content: file.content,
        },
        Origin::Http(http) => OriginV1::Http {
            peer: cut(&http.peer, limits::HTTP_PEER_CHARS_MAX),
            media_type: cut(&http.media_type, limits::MEDIA_TYPE_BYTES_MAX),
        },
    }
}

/// What must be the same for a message to be the same again.
fn what_it_stands_for(message: &Message) -> &[u8] {
    match &message.origin {
        Origin::Http(http) => &http.request,
        Origin::Peer(_) | Origin::File(_) => message.body.expose(),
    }
}

/// An idempotency key stands for one request; another one under it is refused.
fn check_identity(message: &Message, print: Option<Fingerprint>, known: Seen, scratch: &Scratch) -> Result<(), AppendError> {
    if !matches!(message.origin, Origin::Http(_)) || known.resend_of.is_some() {
        return Ok(());
    }
    if known.identity {
        return Err(AppendError::IdentityReused);
    }
    if print.is_some_and(|print| scratch.identities.contains(&(message.feed.clone(), print.identity))) {
        return Err(AppendError::Store("another message under the same identity is being stored; it is decided when that is done".into()));
    }
    Ok(())
}
