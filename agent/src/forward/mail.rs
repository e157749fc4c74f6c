//! The rollout's way to the uplink: documents and commands in, reported state, results and audit lines out, other uplink settings.
//!
//! ```text
//!   rollout ── post / replace_uplink ──► orders ──► shell ──► Mailbox (core) ──► uplink
//!           ◄── inbound ───────────────────────────── shell ◄── config/desired, command
//!           ◄── oneshot: endpoint, reason ─────────── PUBACK
//!           ◄── watch: endpoint that stands ───────── Up, Down
//!   renewal ── Post::use_identities ───► orders       ◄── certificate/issued; watch: endpoint that acknowledged something
//! ```
//!
//! Two have a say in the uplink's settings: the rollout (endpoints) and the renewal of our certificate (who we are there). What the uplink gets is
//! both together, made under one lock, so that neither undoes the other.
//!
//! [`Mail`] is the rollout's end, [`Post`] what others hold of it, [`PostOffice`] the forwarder's; the forwarder's thread never waits for the rollout. Orders are carried out in
//! order, and nothing posted after `replace_uplink` goes over a connection made from earlier settings: so an answer to such a letter proves the
//! new settings, and it names the endpoint, so that one a document added can be told from one of the bootstrap.
//!
//! Bounds (I4): letters by number and size; inbound by number and `DOCUMENT_BYTES_MAX`, of which one byte more is passed on where a payload is
//! larger, so that its refusal can be reported. When the rollout does not take what comes, the newest document waits in a place of its own
//! (it would not come again on this connection) and commands are dropped: they are never executed late, their sender repeats them. A retained
//! command is refused by the rollout: it would be executed after every reconnect.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

pub use super::mailbox::Letter;
use crate::config::settings::{Endpoint, UplinkSettings};
use crate::limits::{CERTIFICATE_BYTES_MAX, DOCUMENT_BYTES_MAX, LETTER_BYTES_MAX, MAIL_CERTIFICATES, MAIL_INBOUND, MAIL_ORDERS};
use crate::uplink::AckReason;
use crate::uplink::credentials::Identities;

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

/// What the uplink's settings are made of.
#[derive(Debug)]
struct Wanted {
    settings: UplinkSettings,
    identities: Identities,
}

/// The rollout's end.
#[derive(Debug)]
pub struct Mail {
    pub inbound: mpsc::Receiver<Inbound>,
    /// What came as a certificate; taken by whoever renews ours.
    pub certificates: Option<mpsc::Receiver<Bytes>>,
    post: Post,
}

impl Mail {
    /// See [`Post::post`].
    pub fn post(&self, letter: Letter) -> Result<oneshot::Receiver<Delivered>, NotPosted> {
        self.post.post(letter)
    }

    /// See [`Post::replace_uplink`].
    pub fn replace_uplink(&self, settings: UplinkSettings) -> Result<(), NotPosted> {
        self.post.replace_uplink(settings)
    }

    /// See [`Post::link`].
    pub fn link(&self) -> watch::Receiver<Option<Endpoint>> {
        self.post.link()
    }

    /// The way out, for others than the rollout.
    pub fn way_out(&self) -> Post {
        self.post.clone()
    }
}

/// The way out, and how the connection stands; cheap to clone.
#[derive(Clone, Debug)]
pub struct Post {
    wanted: Arc<Mutex<Wanted>>,
    orders: mpsc::Sender<Order>,
    link: watch::Receiver<Option<Endpoint>>,
    proven: watch::Receiver<Option<Endpoint>>,
}

impl Post {
    /// Hands a letter over. The receiver gets the broker's answer; it fails where there will be none: a newer reported state took its place,
    /// or too many letters wait for a connection.
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

    /// Goes on with other uplink settings; see [`crate::uplink::Uplink::replace`]. What they say of `confirm` and its like counts from the next
    /// start only: those belong to the bootstrap.
    pub fn replace_uplink(&self, settings: UplinkSettings) -> Result<(), NotPosted> {
        assert!(!settings.endpoints.is_empty(), "the bootstrap's endpoints are always among them");
        self.want(|wanted| wanted.settings = settings)
    }

    /// Goes on with other certificates of ours.
    pub fn use_identities(&self, identities: Identities) -> Result<(), NotPosted> {
        self.want(|wanted| wanted.identities = identities)
    }

    fn want(&self, change: impl FnOnce(&mut Wanted)) -> Result<(), NotPosted> {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut wanted);
        // Under the lock, so that orders are in the order of changes.
        self.order(Order::Replace(Box::new(wanted.identities.apply(&wanted.settings))))
    }

    /// The endpoint we are connected to.
    pub fn link(&self) -> watch::Receiver<Option<Endpoint>> {
        self.link.clone()
    }

    /// The endpoint we are connected to, from the first publish on that it acknowledged.
    pub fn proven(&self) -> watch::Receiver<Option<Endpoint>> {
        self.proven.clone()
    }

    fn order(&self, order: Order) -> Result<(), NotPosted> {
        self.orders.try_send(order).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotPosted::Full,
            mpsc::error::TrySendError::Closed(_) => NotPosted::Ended,
        })
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
    proven: watch::Sender<Option<Endpoint>>,
    certificates: mpsc::Sender<Bytes>,
    /// Host and port of the connection that came up last.
    last: Option<(String, u16)>,
    answers: HashMap<u64, oneshot::Sender<Delivered>>,
    next_id: u64,
}

/// `settings` and `identities` are those the uplink is started with.
pub(crate) fn mail(settings: UplinkSettings, identities: Identities) -> (Mail, PostOffice) {
    let (orders, taken) = mpsc::channel(MAIL_ORDERS);
    let (sender, inbound) = mpsc::channel(MAIL_INBOUND);
    let (certificates, came) = mpsc::channel(MAIL_CERTIFICATES);
    let ((link, standing), (proven, proof)) = (watch::channel(None), watch::channel(None));
    let office = PostOffice {
        orders: taken,
        inbound: sender,
        waiting: None,
        link,
        proven,
        certificates,
        last: None,
        answers: HashMap::new(),
        next_id: 1,
    };
    let wanted = Arc::new(Mutex::new(Wanted { settings, identities }));
    let post = Post { wanted, orders, link: standing, proven: proof };
    (Mail { inbound, certificates: Some(came), post }, office)
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

    /// The broker acknowledged a publish on the connection that stands.
    pub fn prove(&self) {
        if self.proven.borrow().is_none() {
            self.proven.send_replace(self.link.borrow().clone());
        }
    }

    /// Whether the broker that stands was verified by its certificate.
    pub fn is_verified(&self) -> bool {
        self.link.borrow().as_ref().is_some_and(|endpoint| endpoint.tls)
    }

    pub fn down(&mut self) {
        self.link.send_replace(None);
        self.proven.send_replace(None);
    }

    /// A certificate arrived. Where nobody has time for it, it is dropped: it comes again with the next connection, or when it is sent again.
    pub fn certificate(&self, payload: &Bytes) -> bool {
        payload.is_empty() || self.certificates.try_send(cut(payload, CERTIFICATE_BYTES_MAX)).is_ok()
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
    cut(payload, DOCUMENT_BYTES_MAX)
}

/// At most one byte more than `most`.
fn cut(payload: &Bytes, most: usize) -> Bytes {
    if payload.len() > most { Bytes::copy_from_slice(&payload[..=most]) } else { payload.clone() }
}

/// The other end, for tests of whoever holds a [`Mail`].
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Office(PostOffice);

#[cfg(test)]
pub(crate) fn office(settings: UplinkSettings, identities: Identities) -> (Mail, Office) {
    let (mail, office) = mail(settings, identities);
    (mail, Office(office))
}

#[cfg(test)]
impl Office {
    /// The next letter; other errands are forgotten.
    pub async fn letter(&mut self) -> Letter {
        loop {
            if let Errand::Post(_, letter) = self.0.errand().await.expect("somebody posts") {
                return letter;
            }
        }
    }

    /// Every certificate that came was taken up.
    pub fn is_read(&self) -> bool {
        self.0.certificates.capacity() == self.0.certificates.max_capacity()
    }

    /// Nothing waits to be done.
    pub fn is_idle(&self) -> bool {
        self.0.orders.is_empty()
    }

    /// The next letter with the number by which it is answered.
    pub async fn numbered(&mut self) -> (u64, Letter) {
        loop {
            if let Errand::Post(id, letter) = self.0.errand().await.expect("somebody posts") {
                return (id, letter);
            }
        }
    }

    /// The broker's answer.
    pub fn answered(&mut self, id: u64, reason: AckReason) {
        self.0.answered(id, reason);
    }

    /// The next errand, whatever it is.
    pub async fn errand(&mut self) -> Errand {
        self.0.errand().await.expect("somebody gives one")
    }

    pub fn certificate(&self, payload: &Bytes) {
        assert!(self.0.certificate(payload));
    }

    /// Connected there, and something was acknowledged.
    pub fn stands(&mut self, endpoint: Endpoint) {
        self.0.down();
        self.0.up(endpoint);
        self.0.prove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::scripted::some_settings;

    fn office() -> (Mail, PostOffice) {
        mail(some_settings(), Identities::default())
    }

    #[tokio::test]
    async fn a_document_the_rollout_has_no_room_for_waits_and_the_newest_wins() {
        let (mut mail, mut office) = office();
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
        let (mut mail, mut office) = office();
        assert!(office.command(&Bytes::new(), true) && mail.inbound.try_recv().is_err());
        assert!(office.command(&Bytes::from_static(b"c"), true));
        assert_eq!(mail.inbound.try_recv(), Ok(Inbound::Command { payload: Bytes::from_static(b"c"), retained: true }));
    }

    /// I4: an oversized document is passed on only as far as its refusal needs.
    #[test]
    fn an_oversized_document_is_cut_one_byte_behind_the_bound() {
        let (mut mail, mut office) = office();
        office.desired(&Bytes::from(vec![b'x'; DOCUMENT_BYTES_MAX * 2]), false);
        match mail.inbound.try_recv() {
            Ok(Inbound::Desired { payload, .. }) => assert_eq!(payload.len(), DOCUMENT_BYTES_MAX + 1),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_letter_that_is_superseded_gets_no_answer_and_others_name_the_endpoint() {
        let (mail, mut office) = office();
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
        let (_mail, mut office) = office();
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
        let (mail, _office) = office();
        let letter = Letter::Audit(Bytes::from(vec![0; LETTER_BYTES_MAX + 1]));
        assert_eq!(mail.post(letter).unwrap_err(), NotPosted::TooLarge);
    }
}
