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
//! Records of files come in runs and take the same way, but the next flush of them is computed while one is written: see `flight`.
//!
//! The outcome is per segment file, not per batch: a lane that cannot be written does not fail the others. A duplicate of a record in the same
//! flush waits for that record's outcome. The messages of one HTTP request are stored in order or not at all: behind one that was refused, or failed,
//! no later one of its batch is stored, or a repetition would come behind it (I3). Where the segments of a lane begin and end is in `lane`. [`Committer`] is synchronous and has no thread; `queue` wraps it in one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::flight::{Buffers, Flight, Hand, Stored};
use super::format::{self, OriginV1, PredecessorV1, RecordHeaderV1};
use super::index::Shared;
use super::key::Fingerprint;
use super::lane::LaneWriter;
use super::rows::{Nonces, Waiter};
use super::segment::{Done, record_bytes_max, segment_path};
use super::state::{self, Known, Remembered, SharedState};
use super::{AppendError, Durable};
use crate::contract::Mark;
use crate::limits;
use crate::record::{Digest, FeedId, FilePlace, FileProgress, Incarnation, Lane, Message, Origin, Payload};
use crate::status::condition::Code;

/// See the module's documentation.
#[derive(Debug)]
pub struct Committer {
    pub(super) shared: Arc<Shared>,
    pub(super) lanes: [LaneWriter; 3],
    state: SharedState,
    nonces: Nonces,
    /// Who writes and syncs what is to be under way.
    pub(super) hand: Hand,
    pub(super) buffers: Buffers,
    /// Rows that are being written and synced.
    pub(super) flight: Option<Flight>,
    /// Rows computed on top of them, or to be under way next.
    pub(super) ahead: Option<(Lane, Scratch)>,
    /// Feeds that are to move to another lane and cannot yet (see `configure`).
    pub(super) moves: BTreeMap<FeedId, Lane>,
    /// HTTP requests of this batch of which a message was not stored.
    broken: HashSet<RequestKey>,
}

/// One HTTP request.
type RequestKey = (FeedId, [u8; 32]);

/// One message of a flush, between `put` and the sync.
struct Pending {
    /// Its place in the batch.
    slot: usize,
    feed: FeedId,
    mark: Mark,
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

/// What a flush will become if its sync succeeds.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) heads: BTreeMap<FeedId, Ahead>,
    /// Runs of rows; their feeds have no messages.
    pub(super) stored: Vec<Stored>,
    /// Who waits for them.
    pub(super) waiters: Vec<Waiter>,
    pending: Vec<Pending>,
    /// Whole-message fingerprints in this flush, to find duplicates among themselves.
    seen: HashMap<(FeedId, Fingerprint), usize>,
    /// Sender identities in this flush.
    identities: HashSet<(FeedId, [u8; 16])>,
    /// Batch slot of a duplicate, and the pending record it repeats.
    repeats: Vec<(usize, usize)>,
    /// HTTP requests that wait for this flush.
    requests: HashSet<RequestKey>,
}

impl Scratch {
    fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.stored.is_empty()
    }

    /// Where a feed will be.
    pub(super) fn reach(&mut self, feed: &FeedId, ahead: Ahead) {
        match self.heads.get_mut(feed) {
            Some(known) => *known = ahead,
            None => drop(self.heads.insert(feed.clone(), ahead)),
        }
    }
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scratch({} messages, {} runs)", self.pending.len(), self.stored.len())
    }
}

/// A feed as it will be.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    pub(super) mark: Mark,
    /// Its newest place in a file, where it has rows in this flush.
    pub(super) place: Option<FilePlace>,
}

pub(super) type Answer = Result<Durable, AppendError>;

impl Committer {
    pub(super) fn new(shared: Arc<Shared>, last: [Option<PredecessorV1>; 3], state: SharedState) -> Self {
        let lanes = last.map(LaneWriter::new);
        let (hand, nonces) = (Hand::default(), Nonces::default());
        let buffers = Buffers::default();
        Self { shared, lanes, state, nonces, hand, buffers, flight: None, ahead: None, moves: BTreeMap::new(), broken: HashSet::new() }
    }

    /// Commits a batch: one answer per message, in order. `Ok` only after the sync of the file that holds the record.
    pub fn commit(&mut self, mut batch: Vec<Message>) -> Vec<Answer> {
        self.carry_out_moves();
        self.broken.clear();
        let mut answers: Vec<Option<Answer>> = batch.iter().map(|_| None).collect();
        let mut lanes: [Vec<usize>; 3] = Default::default();
        for (slot, message) in batch.iter().enumerate() {
            let lane = self.shared.index().feeds.get(&message.feed).filter(|feed| feed.configured).map(|feed| feed.lane);
            let bytes = message.body.len() as u64;
            match lane {
                None => answers[slot] = Some(Err(AppendError::UnknownFeed(message.feed.clone()))),
                Some(_) if matches!(message.origin, Origin::File(_)) => {
                    answers[slot] = Some(Err(AppendError::Store("a record of a file goes with the rows of its file".into())));
                }
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
        // Rows that wait to be under way in this lane go with the messages: one sync.
        let mut scratch = self.overtake(lane);
        for &slot in slots {
            let message = &batch[slot];
            let fingerprint =
                message.identity.as_ref().map(|id| self.shared.key.fingerprint(&message.feed, id, what_it_stands_for(message)));
            let in_flush = fingerprint.and_then(|print| scratch.seen.get(&(message.feed.clone(), print)).copied());
            if let Some(found) = in_flush.filter(|_| !self.takes_resends(&message.feed)) {
                scratch.repeats.push((slot, found));
                scratch.requests.extend(request_of(message));
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
                self.refuse(slot, message, error, answers);
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
                    self.refuse(slot, message, error, answers);
                    continue;
                }
            }
            if let Err(error) = self.check_request(message) {
                self.refuse(slot, message, error, answers);
                continue;
            }
            self.put(lane, slot, message, fingerprint, known, &mut scratch);
            // It is encoded; a large one is not held twice until the disk is done.
            batch[slot].body = Payload::new(bytes::Bytes::new());
        }
        self.flush(lane, scratch, answers);
    }

    /// Refuses a message, and with it what comes behind it in its request.
    fn refuse(&mut self, slot: usize, message: &Message, error: AppendError, answers: &mut [Option<Answer>]) {
        self.broken.extend(request_of(message));
        answers[slot] = Some(Err(error));
    }

    fn look_up(&self, feed: &FeedId, print: &Fingerprint) -> Known {
        state::lock(&self.state).look_up(feed, print, &self.shared)
    }

    /// A record of an HTTP request is stored only behind the one before it: where that one was refused, this one is, or a repetition would be out of
    /// order.
    fn check_request(&self, message: &Message) -> Result<(), AppendError> {
        match request_of(message) {
            Some(request) if self.broken.contains(&request) => {
                Err(AppendError::Store("what comes before it in its request was not stored".into()))
            }
            _ => Ok(()),
        }
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
        let nonce = self.nonces.draw();
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
        if message.batch_mismatch {
            flags |= format::FLAG_BATCH_MISMATCH;
        }
        let control_id = message.identity.as_ref().map_or(&[][..], |id| &id.control_id[..]);
        let mut header = RecordHeaderV1 {
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
        open.lend(|| self.buffers.take());
        open.put(&mut header, message.reply.expose(), message.body.expose());
        scratch.reach(&feed, Ahead { mark, place: None });
        if let Some(print) = print {
            scratch.seen.insert((feed.clone(), print), scratch.pending.len());
        }
        scratch.requests.extend(request_of(message));
        let received_at_ms = message.received_at_ms;
        let (reply, resend_of) = (message.reply.clone(), known.resend_of);
        scratch.pending.push(Pending { slot, feed, mark, reply, fingerprint: print, received_at_ms, resend_of });
    }

    /// Makes the pending records of a lane durable and answers them, or fails them. Nothing is under way in the lane.
    fn flush(&mut self, lane: Lane, scratch: Scratch, answers: &mut [Option<Answer>]) {
        if scratch.is_empty() {
            return;
        }
        let open = self.lanes[lane.index()].open.as_mut().expect("something is pending in it");
        let done = open.job().run();
        // It answers them, one way or the other.
        drop(self.finish(lane, done, scratch, answers));
    }

    /// A job is done: adopts what it was for, or fails it with everything that was computed on top of it.
    pub(super) fn finish(&mut self, lane: Lane, done: Done, scratch: Scratch, answers: &mut [Option<Answer>]) -> Result<(), AppendError> {
        let open = self.lanes[lane.index()].open.as_mut().expect("nobody else closes it or gives it up");
        self.buffers.keep(done.bytes);
        self.shared.board.syncs.took(done.took);
        match done.outcome {
            Ok(()) => {
                let (ordinal, durable_end) = (open.header.ordinal, open.landed());
                self.adopt(lane, ordinal, durable_end, scratch, answers);
                Ok(())
            }
            Err(error) => {
                let path = segment_path(&self.shared.path, lane, open.header.ordinal);
                let text = format!("writing {} failed: {error}; check the disk", path.display());
                self.shared.board.raise(Code::SpoolWriteFailed, lane.as_str(), text.clone());
                self.give_up(lane);
                let error = AppendError::Store(text);
                self.broken.extend(scratch.requests);
                for slot in scratch.pending.iter().map(|pending| pending.slot).chain(scratch.repeats.iter().map(|(slot, _)| *slot)) {
                    answers[slot] = Some(Err(error.clone()));
                }
                // A feed notes how far its files are stored: what reached the disk all the same must not count after a crash, so the cut is made now.
                if !scratch.stored.is_empty()
                    && let Err(error) = self.roll(lane, 0)
                {
                    tracing::warn!(%lane, "the end of a segment that was given up is not on disk yet: {error}");
                }
                let on_top = self.ahead.take_if(|(ahead, _)| *ahead == lane).map(|(_, scratch)| scratch.waiters);
                for waiter in scratch.waiters.into_iter().chain(on_top.into_iter().flatten()) {
                    // A feed that gave up waiting looks at its progress.
                    drop(waiter.send(Err(error.clone())));
                }
                Err(error)
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
                    known.files = Some(FileProgress { seq: ahead.mark.seq, place });
                }
            }
            let segment = index.segment(lane, ordinal).expect("an open segment is never released");
            segment.durable_end = durable_end;
            for pending in &scratch.pending {
                segment.note(&pending.feed, pending.mark.seq, 1, pending.mark.chain, pending.received_at_ms, None);
            }
            for stored in &scratch.stored {
                let Stored { feed, first, last, place, received_at_ms } = stored;
                let progress = Some(FileProgress { seq: last.seq, place: *place });
                segment.note(feed, *first, last.seq + 1 - first, last.chain, *received_at_ms, progress);
            }
            for pending in &scratch.pending {
                index.arrivals.entry(pending.feed.clone()).or_default().note(pending.mark.seq, pending.received_at_ms);
            }
            for stored in &scratch.stored {
                index.arrivals.entry(stored.feed.clone()).or_default().note(stored.first, stored.received_at_ms);
            }
        }
        self.shared.board.clear(Code::SpoolWriteFailed, lane.as_str());
        let incarnation = self.shared.index().incarnation;
        let remembered = scratch.pending.iter().map(|pending| Remembered {
            feed: pending.feed.clone(),
            fingerprint: pending.fingerprint,
            first: pending.mark.seq,
            seq: pending.mark.seq,
            incarnation,
            reply: pending.reply.clone(),
        });
        // Records of a file have no identity of a sender's; a run of them comes as one.
        let covered = scratch.stored.iter().map(|stored| Remembered {
            feed: stored.feed.clone(),
            fingerprint: None,
            first: stored.first,
            seq: stored.last.seq,
            incarnation,
            reply: Payload::new(bytes::Bytes::new()),
        });
        state::lock(&self.state).remember(remembered.chain(covered));
        let rows: u64 = scratch.stored.iter().map(Stored::count).sum();
        self.shared.appended.send_modify(|n| *n += scratch.pending.len() as u64 + rows);
        for stored in &scratch.stored {
            self.shared.board.count(&stored.feed, stored.count(), 0, stored.received_at_ms);
        }
        for waiter in scratch.waiters {
            // A feed that gave up waiting looks at its progress.
            drop(waiter.send(Ok(())));
        }
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
        self.settle();
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
        self.settle();
        for lane in Lane::ALL {
            self.close_segment(lane);
        }
        if let Err(error) = self.shared.write_heads() {
            tracing::error!("the heads could not be written at stop: {error}; the next start recovers them from the journal");
        }
        state::lock(&self.state).close();
    }
}

/// As it is stored.
pub(super) fn stored_origin(origin: &Origin) -> OriginV1 {
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

fn request_of(message: &Message) -> Option<RequestKey> {
    match &message.origin {
        Origin::Http(http) => Some((message.feed.clone(), http.request)),
        Origin::Peer(_) | Origin::File(_) => None,
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
