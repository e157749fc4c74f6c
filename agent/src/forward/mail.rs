//! The rollout's way to the uplink: documents and commands in, reported state, results and audit lines out, other uplink settings.
//!
//! ```text
//!   rollout ── post / replace_uplink ──► orders ──► shell ──► Mailbox (core) ──► uplink
//!           ◄── inbound ───────────────────────────── shell ◄── config/desired, command
//!           ◄── oneshot: endpoint, reason ─────────── PUBACK
//!           ◄── watch: endpoint that stands ───────── Up, Down
//! ```
//!
//! [`Mail`] is the rollout's end, [`PostOffice`] the forwarder's; the forwarder's thread never waits for the rollout. Orders are carried out in
//! order, and nothing posted after `replace_uplink` goes over a connection made from earlier settings: so an answer to such a letter proves the
//! new settings, and it names the endpoint, so that one a document added can be told from one of the bootstrap.
//!
//! Bounds (I4): letters by number and size; inbound by number and `DOCUMENT_BYTES_MAX`, of which one byte more is passed on where a payload is
//! larger, so that its refusal can be reported. When the rollout does not take what comes, the newest document waits in a place of its own
//! (it would not come again on this connection) and commands are dropped: they are never executed late, their sender repeats them. A retained
//! command is refused by the rollout: it would be executed after every reconnect.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

pub use super::mailbox::Letter;
use crate::config::settings::{Endpoint, UplinkSettings};
use crate::limits::{DOCUMENT_BYTES_MAX, LETTER_BYTES_MAX, MAIL_INBOUND, MAIL_ORDERS};
use crate::uplink::AckReason;

/// What the hub sent to the rollout.
#[derive(Clone, PartialEq, Eq)]
pub enum Inbound {
    Desired {
        payload: Bytes,
        retained: bool,
    },
    /// A retained one is no command: it is handed on only so that it can be refused and told.
    Command {
        payload: Bytes,
        retained: bool,
    },
}

/// I7: sizes, not content.
impl std::fmt::Debug for Inbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Desired { payload, retained } => write!(f, "document [{} bytes, retained {retained}]", payload.len()),
            Self::Command { payload, retained } => write!(f, "command [{} bytes, retained {retained}]", payload.len()),
        }
    }
}

/// The broker's answer to a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    pub endpoint: Endpoint,
    pub reason: AckReason,
}

impl Delivered {
    /// The broker has it. (That nobody is subscribed right now does not matter to a retained publish, nor to the proof that the line works.)
    pub fn is_acknowledged(&self) -> bool {
        matches!(self.reason, AckReason::Success | AckReason::NoMatchingSubscribers)
    }
}

/// Why a letter or an order was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPosted {
    #[error("the letter has more than {LETTER_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the forwarder takes no more letters now")]
    Full,
    #[error("the forwarder has ended")]
    Ended,
}

#[derive(Debug)]
enum Order {
    Post(Letter, oneshot::Sender<Delivered>),
    Replace(Box<UplinkSettings>),
    Checkpoint,
}

/// Posts letters; cheap to clone.
#[derive(Clone, Debug)]
pub struct Poster {
    orders: mpsc::Sender<Order>,
}

impl Poster {
    /// As [`Mail::post`].
    pub fn post(&self, letter: Letter) -> Result<oneshot::Receiver<Delivered>, NotPosted> {
        // A record was bounded when it was taken.
        if !matches!(letter, Letter::Released(_)) && letter.payload().len() > LETTER_BYTES_MAX {
            return Err(NotPosted::TooLarge);
        }
        let (answer, answered) = oneshot::channel();
        self.order(Order::Post(letter, answer)).map(|()| answered)
    }

    /// Every feed that has something tells its head once more, now.
    pub fn checkpoint(&self) -> Result<(), NotPosted> {
        self.order(Order::Checkpoint)
    }

    fn order(&self, order: Order) -> Result<(), NotPosted> {
        self.orders.try_send(order).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotPosted::Full,
            mpsc::error::TrySendError::Closed(_) => NotPosted::Ended,
        })
    }
}

/// The rollout's end.
#[derive(Debug)]
pub struct Mail {
    pub inbound: mpsc::Receiver<Inbound>,
    poster: Poster,
    link: watch::Receiver<Option<Endpoint>>,
}

impl Mail {
    /// Hands a letter over. The receiver gets the broker's answer; it fails where there will be none: a newer reported state took its place,
    /// or too many letters wait for a connection.
    pub fn post(&self, letter: Letter) -> Result<oneshot::Receiver<Delivered>, NotPosted> {
        self.poster.post(letter)
    }

    /// For others who have something to say.
    pub fn poster(&self) -> Poster {
        self.poster.clone()
    }

    /// Goes on with other uplink settings; see [`crate::uplink::Uplink::replace`]. What they say of `confirm` and its like counts from the next
    /// start only: those belong to the bootstrap.
    pub fn replace_uplink(&self, settings: UplinkSettings) -> Result<(), NotPosted> {
        assert!(!settings.endpoints.is_empty(), "the bootstrap's endpoints are always among them");
        self.poster.order(Order::Replace(Box::new(settings)))
    }

    /// The endpoint we are connected to.
    pub fn link(&self) -> watch::Receiver<Option<Endpoint>> {
        self.link.clone()
    }
}

/// What the shell has to do for the rollout.
#[derive(Debug)]
pub(crate) enum Errand {
    Post(u64, Letter),
    Replace(UplinkSettings),
    Checkpoint,
}

/// The forwarder's end.
#[derive(Debug)]
pub(crate) struct PostOffice {
    orders: mpsc::Receiver<Order>,
    inbound: mpsc::Sender<Inbound>,
    /// A document the rollout had no room for.
    waiting: Option<Inbound>,
    link: watch::Sender<Option<Endpoint>>,
    /// Host and port of the connection that came up last.
    last: Option<(String, u16)>,
    answers: HashMap<u64, oneshot::Sender<Delivered>>,
    next_id: u64,
}

pub(crate) fn mail() -> (Mail, PostOffice) {
    let (orders, taken) = mpsc::channel(MAIL_ORDERS);
    let (sender, inbound) = mpsc::channel(MAIL_INBOUND);
    let (link, standing) = watch::channel(None);
    let office = PostOffice { orders: taken, inbound: sender, waiting: None, link, last: None, answers: HashMap::new(), next_id: 1 };
    (Mail { inbound, poster: Poster { orders }, link: standing }, office)
}

impl PostOffice {
    /// The next errand; `None` for ever once the rollout is gone. Cancel-safe.
    pub async fn errand(&mut self) -> Option<Errand> {
        match self.orders.recv().await? {
            Order::Replace(settings) => Some(Errand::Replace(*settings)),
            Order::Checkpoint => Some(Errand::Checkpoint),
            Order::Post(letter, answer) => {
                let id = self.next_id;
                self.next_id += 1;
                self.answers.insert(id, answer);
                Some(Errand::Post(id, letter))
            }
        }
    }

    /// There will be no answer.
    pub fn forget(&mut self, id: u64) {
        self.answers.remove(&id);
    }

    /// The broker answered a letter. A reported state that is told once more has nobody waiting.
    pub fn answered(&mut self, id: u64, reason: AckReason) {
        if let (Some(answer), Some(endpoint)) = (self.answers.remove(&id), self.link.borrow().clone()) {
            // Whoever posted it may have lost interest.
            let _ = answer.send(Delivered { endpoint, reason });
        }
    }

    /// Connected; false: to another address than the time before, whose broker (and the hub behind it) need not have what that one has.
    pub fn up(&mut self, endpoint: Endpoint) -> bool {
        let address = (endpoint.host.clone(), endpoint.port);
        self.link.send_replace(Some(endpoint));
        self.last.replace(address.clone()).is_none_or(|last| last == address)
    }

    pub fn down(&mut self) {
        self.link.send_replace(None);
    }

    /// A document arrived. An empty one only removes what the broker kept.
    pub fn desired(&mut self, payload: &Bytes, retained: bool) {
        if payload.is_empty() {
            return;
        }
        self.waiting = Some(Inbound::Desired { payload: bounded(payload), retained });
        self.hand_over();
    }

    /// A command arrived; false: dropped. An empty one only removes what the broker kept.
    pub fn command(&mut self, payload: &Bytes, retained: bool) -> bool {
        payload.is_empty() || self.inbound.try_send(Inbound::Command { payload: bounded(payload), retained }).is_ok()
    }

    /// Offers what waits once more.
    pub fn hand_over(&mut self) {
        if let Some(document) = self.waiting.take()
            && let Err(mpsc::error::TrySendError::Full(document)) = self.inbound.try_send(document)
        {
            self.waiting = Some(document);
        }
    }
}

/// At most one byte more than a document may have.
fn bounded(payload: &Bytes) -> Bytes {
    if payload.len() > DOCUMENT_BYTES_MAX { Bytes::copy_from_slice(&payload[..=DOCUMENT_BYTES_MAX]) } else { payload.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_document_the_rollout_has_no_room_for_waits_and_the_newest_wins() {
        let (mut mail, mut office) = mail();
        for _ in 0..MAIL_INBOUND {
            assert!(office.command(&Bytes::from_static(b"c"), false));
        }
        assert!(!office.command(&Bytes::from_static(b"late"), false));
        office.desired(&Bytes::from_static(b"old"), true);
        office.desired(&Bytes::from_static(b"new"), true);
        for _ in 0..MAIL_INBOUND {
            assert_eq!(mail.inbound.recv().await, Some(Inbound::Command { payload: Bytes::from_static(b"c"), retained: false }));
        }
        office.hand_over();
        assert_eq!(mail.inbound.recv().await, Some(Inbound::Desired { payload: Bytes::from_static(b"new"), retained: true }));
        office.hand_over();
        assert!(mail.inbound.try_recv().is_err());
    }

    /// It is refused there, and told; an empty one is what clears the topic.
    #[test]
    fn a_retained_command_is_handed_on_as_such() {
        let (mut mail, mut office) = mail();
        assert!(office.command(&Bytes::new(), true) && mail.inbound.try_recv().is_err());
        assert!(office.command(&Bytes::from_static(b"c"), true));
        assert_eq!(mail.inbound.try_recv(), Ok(Inbound::Command { payload: Bytes::from_static(b"c"), retained: true }));
    }

    /// I4: an oversized document is passed on only as far as its refusal needs.
    #[test]
    fn an_oversized_document_is_cut_one_byte_behind_the_bound() {
        let (mut mail, mut office) = mail();
        office.desired(&Bytes::from(vec![b'x'; DOCUMENT_BYTES_MAX * 2]), false);
        match mail.inbound.try_recv() {
            Ok(Inbound::Desired { payload, .. }) => assert_eq!(payload.len(), DOCUMENT_BYTES_MAX + 1),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_letter_that_is_superseded_gets_no_answer_and_others_name_the_endpoint() {
        let (mail, mut office) = mail();
        let (first, second) = (mail.post(Letter::Reported(Bytes::new())).unwrap(), mail.post(Letter::Reported(Bytes::new())).unwrap());
        let Some(Errand::Post(old, _)) = office.errand().await else { panic!("a letter") };
        let Some(Errand::Post(new, _)) = office.errand().await else { panic!("a letter") };
        office.forget(old);
        assert!(first.await.is_err());
        let endpoint = Endpoint::new("hub", 8883, true).added(None);
        office.up(endpoint.clone());
        office.answered(new, AckReason::Success);
        assert_eq!(second.await, Ok(Delivered { endpoint, reason: AckReason::Success }));
    }

    #[test]
    fn another_address_is_another_broker_whatever_it_says_of_our_session() {
        let (_mail, mut office) = mail();
        let at = |host: &str| Endpoint::new(host, 8883, true);
        assert!(office.up(at("a")), "the first is nobody's successor");
        office.down();
        assert!(office.up(at("a").added(None)));
        assert!(!office.up(at("b")));
        assert!(!office.up(at("a")));
        assert!(office.up(at("a")));
    }

    #[test]
    fn a_letter_that_is_too_large_is_not_posted() {
        let (mail, _office) = mail();
        let letter = Letter::Audit(Bytes::from(vec![0; LETTER_BYTES_MAX + 1]));
        assert_eq!(mail.post(letter).unwrap_err(), NotPosted::TooLarge);
    }
}
