//! What one connection tells those who watch: the registry (counts), the tap (shape and fate) and the recent history (times per message).
//!
//! ```text
//! read ─► frame ─► fate | stored ─► answered        once per message, in this order; a message without `answered` was not finished
//!                                      ├─► registry: the code        ├─► tap: one observation, where somebody watches
//!                                      └─► history: one note, where a record or a duplicate is behind it
//! ```
//!
//! Nothing here can fail, wait or say no: the connection works the same with nobody watching.

use std::sync::Arc;

use super::registry::Registration;
use crate::clock;
use crate::limits::CONTROL_ID_BYTES_MAX;
use crate::record::{FeedId, Stage};
use crate::source::answer::AckCode;
use crate::source::oddity::Oddity;
use crate::source::tap::{Fate, Sighting, Tap};
use crate::spool::Durable;
use crate::spool::recent::Note;
use crate::status::board::{Board, FeedCounters};

/// What the store said of a message, for the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Of the record, or of the first copy.
    pub(super) seq: u64,
    pub(super) duplicate: bool,
    pub(super) resend_of: Option<u64>,
}

impl Taken {
    pub(super) fn of(durable: &Durable) -> Self {
        Self { seq: durable.seq(), duplicate: durable.is_duplicate(), resend_of: durable.resend_of() }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Witness {
    feed: FeedId,
    board: Arc<Board>,
    tap: Arc<Tap>,
    registration: Registration,
    current: Option<Current>,
}

/// The message between its frame and its answer.
#[derive(Debug)]
struct Current {
    received_at_ms: i64,
    sighting: Option<Sighting>,
    fate: Fate,
    /// Of its event, where it becomes one.
    stage: Option<Stage>,
    stored: Option<(Taken, Box<[u8]>)>,
}

impl Witness {
    pub(super) fn new(board: &Arc<Board>, counters: &FeedCounters, feed: &FeedId, peer: &str) -> Self {
        let registration = counters.registry.register(peer);
        Self { feed: feed.clone(), board: Arc::clone(board), tap: Arc::clone(&counters.tap), registration, current: None }
    }

    pub(super) fn read(&self, bytes: usize) {
        self.registration.read(bytes);
    }

    pub(super) fn odd(&self, oddity: Oddity) {
        self.registration.odd(oddity);
    }

    /// A complete frame. `cut`: it was over the limit and only its beginning is there.
    pub(super) fn frame(&mut self, frame: &[u8], cut: bool) {
        let received_at_ms = clock::now().unix_ms;
        self.registration.message(received_at_ms);
        let sighting = self.tap.sight(frame, cut);
        let fate = if cut { Fate::Oversize } else { Fate::default() };
        self.current = Some(Current { received_at_ms, sighting, fate, stage: None, stored: None });
    }

    /// What became of it, where nothing was stored.
    pub(super) fn fate(&mut self, fate: Fate) {
        if let Some(current) = &mut self.current {
            current.fate = fate;
        }
    }

    pub(super) fn stored(&mut self, taken: Taken, stage: Stage, control_id: &[u8]) {
        if let Some(current) = &mut self.current {
            current.fate = if taken.duplicate { Fate::Duplicate } else { Fate::Accepted };
            current.stage = (!taken.duplicate).then_some(stage);
            let control_id = &control_id[..control_id.len().min(CONTROL_ID_BYTES_MAX)];
            current.stored = Some((taken, control_id.into()));
        }
    }

    /// The message is finished: this was written, or nothing was due, or (`None` in `reply`) nothing could be written.
    pub(super) fn answered(&mut self, reply: Option<&[u8]>) {
        let Some(Current { received_at_ms, sighting, fate, stage, stored }) = self.current.take() else { return };
        let ack = reply.map_or(AckCode::None, AckCode::of_reply);
        self.registration.answered(ack);
        let at_ms = clock::now().unix_ms;
        let peer = self.registration.peer();
        if let Some(sighting) = sighting {
            self.tap.tell(sighting, received_at_ms, peer, fate, ack, stage);
        }
        let Some((Taken { seq, duplicate, resend_of }, control_id)) = stored else { return };
        let (feed, peer) = (self.feed.clone(), Arc::clone(peer));
        self.board.note(if duplicate {
            Note::Repeated { feed, seq, at_ms: received_at_ms, peer, control_id, ack }
        } else {
            Note::Stored { feed, seq, received_at_ms, peer, control_id, ack, ack_at_ms: (ack != AckCode::None).then_some(at_ms), resend_of }
        });
    }

    /// The connection is about to go.
    pub(super) fn ends(&mut self, why: &'static str) {
        // A message that was stored and not answered is noted all the same.
        self.answered(None);
        self.registration.ends(why);
    }
}
