//! What the rollout wants published beside the outcomes: the reported state, results of commands, audit lines, records released from quarantine.
//! Pure; part of the core.
//!
//! They are control publishes: exempt from the lanes' shares, bounded by number here and by bytes where they are posted. Only the newest
//! reported state counts: it replaces an older one that was not told yet, and goes again on every connection, because the broker at the other
//! end may be another one; so does the request for a certificate. The rest goes in order, each until it is answered once; what was in flight when a connection ended goes again (at
//! least once). A refusal is an answer: whoever posted it is told and decides; only the reported state is repeated by itself, after the pause
//! that all refused control publishes share.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::limits::LETTERS_MAX;
use crate::record::Record;

/// A publish of the rollout's. Payloads are JSON, as the contract says.
#[derive(Clone)]
pub enum Letter {
    /// Retained: the state of the configuration.
    Reported(Bytes),
    /// Retained: the request for a certificate.
    Certificate(Bytes),
    CommandResult(Bytes),
    Audit(Bytes),
    /// A record out of quarantine: its event, in the place that its exception left open.
    Released(Arc<Record>),
}

impl Letter {
    pub fn payload(&self) -> &Bytes {
        match self {
            Self::Reported(payload) | Self::Certificate(payload) | Self::CommandResult(payload) | Self::Audit(payload) => payload,
            Self::Released(record) => record.body.expose(),
        }
    }
}

/// Of records: the same identity is the same record.
impl PartialEq for Letter {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Reported(a), Self::Reported(b))
            | (Self::Certificate(a), Self::Certificate(b))
            | (Self::CommandResult(a), Self::CommandResult(b))
            | (Self::Audit(a), Self::Audit(b)) => a == b,
            (Self::Released(a), Self::Released(b)) => (&a.feed, a.incarnation, a.seq) == (&b.feed, b.incarnation, b.seq),
            _ => false,
        }
    }
}

impl Eq for Letter {}

impl std::fmt::Debug for Letter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self {
            Self::Reported(_) => "reported",
            Self::Certificate(_) => "certificate request",
            Self::CommandResult(_) => "command result",
            Self::Audit(_) => "audit",
            Self::Released(_) => "released record",
        };
        write!(f, "{kind} [{} bytes]", self.payload().len())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Due,
    /// Refused: due again after the pause.
    Refused,
    InFlight,
    /// Only of what is retained, which stays.
    Told,
}

#[derive(Debug)]
struct Item {
    id: u64,
    letter: Letter,
    state: State,
}

#[derive(Debug, Default)]
pub struct Mailbox {
    reported: Option<Item>,
    certificate: Option<Item>,
    queue: VecDeque<Item>,
}

impl Mailbox {
    /// Takes a letter; the id of one that will not be answered any more: an older one of what is retained, or this one where there is no room.
    pub fn post(&mut self, id: u64, letter: Letter) -> Option<u64> {
        let item = Item { id, letter, state: State::Due };
        match item.letter {
            Letter::Reported(_) => return self.reported.replace(item).map(|old| old.id),
            Letter::Certificate(_) => return self.certificate.replace(item).map(|old| old.id),
            Letter::CommandResult(_) | Letter::Audit(_) | Letter::Released(_) => {}
        }
        // I4: a record may be large; one that waits for its answer is enough.
        let is_record = |letter: &Letter| matches!(letter, Letter::Released(_));
        let second = is_record(&item.letter) && self.queue.iter().any(|waiting| is_record(&waiting.letter));
        if second || self.queue.len() >= LETTERS_MAX {
            return Some(id);
        }
        self.queue.push_back(item);
        None
    }

    fn items(&mut self) -> impl Iterator<Item = &mut Item> {
        self.reported.iter_mut().chain(&mut self.certificate).chain(&mut self.queue)
    }

    /// The next to publish. `again`: what was refused may go too.
    pub fn next(&mut self, again: bool) -> Option<(u64, Letter)> {
        let item = self.items().find(|item| item.state == State::Due || again && item.state == State::Refused)?;
        item.state = State::InFlight;
        Some((item.id, item.letter.clone()))
    }

    /// A letter that could not be handed over.
    pub fn not_taken(&mut self, id: u64) {
        self.set(id, State::Due);
    }

    /// The broker answered.
    pub fn answered(&mut self, id: u64, fine: bool) {
        self.set(id, if fine { State::Told } else { State::Refused });
        self.queue.retain(|item| item.id != id);
    }

    fn set(&mut self, id: u64, state: State) {
        if let Some(item) = self.items().find(|item| item.id == id) {
            item.state = state;
        }
    }

    pub fn up(&mut self) {
        self.items().for_each(|item| item.state = State::Due);
    }

    /// Something is to go at once.
    pub fn is_due(&self) -> bool {
        self.reported.iter().chain(&self.certificate).chain(&self.queue).any(|item| item.state == State::Due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(text: &'static str) -> Letter {
        Letter::Reported(Bytes::from_static(text.as_bytes()))
    }

    fn audit(text: &'static str) -> Letter {
        Letter::Audit(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn only_the_newest_reported_state_goes_and_it_goes_again_on_every_connection() {
        let mut mailbox = Mailbox::default();
        assert_eq!(mailbox.post(1, reported("a")), None);
        assert_eq!(mailbox.post(2, reported("b")), Some(1));
        assert_eq!(mailbox.next(false), Some((2, reported("b"))));
        assert_eq!(mailbox.next(false), None);
        mailbox.answered(2, true);
        assert!(!mailbox.is_due());
        mailbox.up();
        assert_eq!(mailbox.next(false), Some((2, reported("b"))));
    }

    #[test]
    fn an_answer_to_an_older_state_does_not_speak_for_the_newer_one() {
        let mut mailbox = Mailbox::default();
        mailbox.post(1, reported("a"));
        mailbox.next(false);
        mailbox.post(2, reported("b"));
        mailbox.answered(1, true);
        assert_eq!(mailbox.next(false), Some((2, reported("b"))));
    }

    #[test]
    fn letters_go_in_order_and_again_after_a_lost_connection() {
        let mut mailbox = Mailbox::default();
        mailbox.post(1, audit("a"));
        mailbox.post(2, audit("b"));
        assert_eq!((mailbox.next(false), mailbox.next(false)), (Some((1, audit("a"))), Some((2, audit("b")))));
        mailbox.answered(2, true);
        mailbox.up();
        assert_eq!(mailbox.next(false), Some((1, audit("a"))));
        mailbox.answered(1, false);
        mailbox.up();
        assert_eq!(mailbox.next(true), None, "a refusal is an answer");
    }

    #[test]
    fn a_refused_state_waits_for_the_pause() {
        let mut mailbox = Mailbox::default();
        mailbox.post(1, reported("a"));
        mailbox.next(false);
        mailbox.answered(1, false);
        assert_eq!(mailbox.next(false), None);
        assert_eq!(mailbox.next(true), Some((1, reported("a"))));
    }

    /// I4: records may be large, so a second one is not taken while one waits for its answer.
    #[test]
    fn one_released_record_waits_at_a_time() {
        let mut mailbox = Mailbox::default();
        let record = |seq| Letter::Released(Arc::new(crate::spool::kept::tests::record(&crate::record::FeedId::new("a").unwrap(), seq)));
        assert_eq!((mailbox.post(1, record(7)), mailbox.post(2, record(8))), (None, Some(2)));
        assert_eq!(mailbox.next(false), Some((1, record(7))));
        mailbox.answered(1, true);
        assert_eq!(mailbox.post(3, record(8)), None);
    }

    /// I4: a WAN that is down for days does not fill the memory with audit lines.
    #[test]
    fn a_full_mailbox_gives_the_letter_back_but_always_takes_the_state() {
        let mut mailbox = Mailbox::default();
        for id in 0..LETTERS_MAX as u64 {
            assert_eq!(mailbox.post(id, audit("a")), None);
        }
        assert_eq!(mailbox.post(1000, audit("b")), Some(1000));
        assert_eq!(mailbox.post(1001, reported("c")), None);
    }
}
