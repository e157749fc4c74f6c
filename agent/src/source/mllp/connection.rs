//! One connection: read → frame → judge → append → one write of the reply, strictly in that order, one message at a time.
//!
//! ```text
//!          ┌──────────────── drain: every event the bytes hold ◄──┐
//!          │ NeedsSlot: wait for a slot, read nothing             │
//!          │ Frame: append, then reply                            │
//!          ▼                                                      │
//!        fill: read │ asked to leave │ frame or idle deadline ────┘
//!             │ silence that ends a message without framing
//! ```
//!
//! 1. Replies go out in order of arrival because nothing else is looked at before one is written; pipelined frames wait in the socket.
//! 2. Whoever is asked to leave (stop, room for a newer connection) leaves between messages: a message whose append is under way is
//!    answered.
//! 3. Whatever ends a connection without an answer leaves the message with its sender, who sends it again: half frames, store failures, no
//!    room.
//!
//! Every wait has a deadline but one: the append itself ends when the disk answers. Giving up earlier would free the frame's slot while its
//! bytes still wait for the journal (I4); a committer that does not move is the watchdog's business.

use bytes::BufMut as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::pause::Pause;
use super::seats::{Ask, Seat};
use super::store::Store;
use super::witness::Witness;
use crate::clock;
use crate::config::settings::{MllpSettings, OnInvalid, OnStoreFailure};
use crate::limits::{LARGE_FRAME_WAIT, SOCKET_READ_BYTES, UNFRAMED_SILENCE};
use crate::record::{FeedId, Message, Origin, Payload, Stage};
use crate::source::ack::{self, Accepted, Fault, Ignored, Refused, Reply, Stamp, Verdict};
use crate::source::frame::{Event, Foreign, FrameLimits, Framer, JunkClass, Remainder};
use crate::source::oddity::{Oddity, PeerConditions, Seen};
use crate::source::slots::{FeedSlots, LargeFrameSlot};
use crate::source::tap::Fate;
use crate::source::tls::{Tls, Told};
use crate::spool::AppendError;
use crate::status::board::{Board, FeedCounters};

/// What all connections of a listener share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) feed: FeedId,
    pub(super) settings: MllpSettings,
    pub(super) frame_limits: FrameLimits,
    /// `REPLY_WRITE_TIMEOUT`, shorter in tests.
    pub(super) reply_timeout: Duration,
    pub(super) store: Store,
    pub(super) slots: FeedSlots,
    pub(super) counters: Arc<FeedCounters>,
    pub(super) board: Arc<Board>,
    pub(super) conditions: PeerConditions,
    pub(super) pause: watch::Sender<Pause>,
    pub(super) control_ids: ControlIds,
}

impl Shared {
    /// For what is told of connections that are refused.
    pub(super) fn told(&self) -> Told<'_> {
        Told { feed: &self.feed, counters: &self.counters, conditions: &self.conditions }
    }
}

/// Makes MSH-10 of replies: nine digits drawn at start, nine that count, and room for two that number the acknowledgements of one reply.
#[derive(Debug)]
pub(super) struct ControlIds {
    prefix: u64,
    last: AtomicU64,
}

impl ControlIds {
    /// `random` makes ids of different runs and feeds differ.
    pub(super) fn new(random: u64) -> Self {
        Self { prefix: random, last: AtomicU64::new(0) }
    }

    pub(super) fn next(&self) -> String {
        const NINE_DIGITS: u64 = 0xF_FFFF_FFFF;
        let count = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        format!("{:09X}{:09X}", self.prefix & NINE_DIGITS, count & NINE_DIGITS)
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    PeerClosed,
    Lost(io::ErrorKind),
    Asked(Ask),
    Idle,
    /// The store failed; closing without an answer leaves the message with its sender.
    StoreFailed,
    /// What came cannot be a message, and the feed answers that by closing.
    Invalid,
    Odd(Oddity),
}

impl Ending {
    /// For people.
    fn why(self) -> &'static str {
        match self {
            Self::PeerClosed => "the peer closed it",
            Self::Lost(io::ErrorKind::ConnectionReset) => "the peer reset it",
            Self::Lost(io::ErrorKind::TimedOut) => "the peer was gone: no answer to keepalive",
            Self::Lost(_) => "the network failed",
            Self::Asked(Ask::MakeRoom) => "closed for a newer connection: more than connections_max",
            Self::Asked(_) => "the agent stopped",
            Self::Idle => "closed for being idle: idle_timeout",
            Self::StoreFailed => "closed without an answer: the message could not be stored",
            Self::Invalid => "closed without an answer: what came cannot be a message (on_invalid)",
            Self::Odd(oddity) => oddity.name(),
        }
    }
}

/// Serves one connection of a port with TLS, from its first byte to its end.
pub(super) async fn serve_tls(tls: Arc<Tls>, stream: TcpStream, peer: String, mut seat: Seat, shared: Arc<Shared>) {
    let handshake = tokio::select! {
        biased;
        _ask = asked_to_leave(&mut seat.ask) => {
            tracing::debug!(feed = %shared.feed, %peer, "connection ended in its TLS handshake: it made room, or the listener stops");
            return;
        }
        handshake = tls.handshake(stream) => handshake,
    };
    match handshake {
        Ok(stream) => {
            drop(tls); // the connection lives long and needs no more of it
            seat.touch();
            shared.counters.peer_accepted();
            serve(stream, peer, seat, shared).await;
        }
        Err(failed) => tls.tell(&failed, &shared.told(), &peer),
    }
}

/// Serves one connection to its end.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, peer: String, seat: Seat, shared: Arc<Shared>) {
    let framer = Framer::new(shared.frame_limits);
    let witness = Witness::new(&shared.board, &shared.counters, &shared.feed, &peer);
    let mut connection = Connection { stream, peer, seat, shared, framer, slot: None, timer: None, seen: Seen::default(), witness };
    let ending = connection.run().await;
    connection.farewell(ending).await;
}

struct Connection<S> {
    stream: S,
    peer: String,
    seat: Seat,
    shared: Arc<Shared>,
    framer: Framer,
    slot: Option<LargeFrameSlot>,
    /// The frame being received and when it must have ended.
    timer: Option<(u64, Instant)>,
    seen: Seen,
    witness: Witness,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    async fn run(&mut self) -> Ending {
        loop {
            if let Err(ending) = self.drain().await {
                return ending;
            }
            if let Err(ending) = self.fill().await {
                return ending;
            }
        }
    }

    async fn drain(&mut self) -> Result<(), Ending> {
        loop {
            match self.seat.asked() {
                Ask::Stay => {}
                ask => return Err(Ending::Asked(ask)),
            }
            let Some(event) = self.framer.next_event() else { return Ok(()) };
            self.handle(event).await?;
        }
    }

    async fn fill(&mut self) -> Result<(), Ending> {
        let deadline = self.deadline();
        let may_end = self.framer.may_end_by_silence();
        let mut room = self.framer.buffer().limit(SOCKET_READ_BYTES);
        tokio::select! {
            biased;
            ask = asked_to_leave(&mut self.seat.ask) => Err(Ending::Asked(ask)),
            read = self.stream.read_buf(&mut room) => match read {
                Ok(0) => {
                    if self.framer.silence() {
                        self.drain().await?;
                    }
                    Err(Ending::PeerClosed)
                }
                Ok(n) => {
                    self.seat.touch();
                    self.witness.read(n);
                    Ok(())
                }
                Err(error) => Err(Ending::Lost(error.kind())),
            },
            ending = expired(deadline) => Err(ending),
            () = sleep(UNFRAMED_SILENCE), if may_end => {
                self.framer.silence();
                Ok(())
            }
        }
    }

    /// When reading must end, and why; a frame's time counts from its first byte.
    fn deadline(&mut self) -> Option<(Instant, Ending)> {
        let Some(frame) = self.framer.frame_in_progress() else {
            self.timer = None;
            return self.shared.settings.idle_timeout.map(|idle| (Instant::now() + idle, Ending::Idle));
        };
        if self.timer.is_none_or(|(timed, _)| timed != frame) {
            self.timer = Some((frame, Instant::now() + self.shared.settings.frame_timeout));
        }
        self.timer.map(|(_, at)| (at, Ending::Odd(Oddity::FrameTimeout)))
    }

    async fn handle(&mut self, event: Event) -> Result<(), Ending> {
        match event {
            Event::Frame(frame) => {
                self.witness.frame(frame.expose(), false);
                let reply = self.message(frame).await?;
                self.release_slot();
                self.send(reply).await?;
            }
            Event::Oversize { head, .. } => {
                self.witness.frame(head.expose(), true);
                let shared = Arc::clone(&self.shared);
                let reply = self.refuse(&ack::judge_oversize(head.expose(), &shared.settings.answers), head.clone()).await?;
                self.send(reply).await?;
            }
            Event::NeedsSlot => self.wait_for_slot().await?,
            Event::OverLimit => self.odd(Oddity::OverLimit),
            Event::Restarted { partial } => {
                self.odd(Oddity::Restarted);
                self.quarantine(Oddity::Restarted.name(), partial).await;
            }
            Event::Junk { class: JunkClass::Other, .. } => self.odd(Oddity::Junk),
            Event::Junk { class: JunkClass::UnframedMessage, .. } => {} // told when it began
            Event::Unframed => self.odd(Oddity::Unframed),
            Event::UnframedRest { rest } => {
                self.quarantine(Oddity::UnframedRest.name(), rest).await;
                return Err(Ending::Odd(Oddity::UnframedRest));
            }
            Event::Foreign(Foreign::TlsHello) => return Err(Ending::Odd(Oddity::TlsHello)),
            Event::Foreign(Foreign::HttpRequest) => return Err(Ending::Odd(Oddity::HttpRequest)),
            Event::JunkBudgetSpent { .. } => return Err(Ending::Odd(Oddity::JunkBudget)),
            Event::DiscardBudgetSpent { head, .. } => {
                self.quarantine(Oddity::DiscardBudget.name(), head).await;
                return Err(Ending::Odd(Oddity::DiscardBudget));
            }
        }
        self.release_slot();
        Ok(())
    }

    /// Gives the slot back unless the frame being received needs it.
    fn release_slot(&mut self) {
        if !self.framer.is_large() {
            self.slot = None;
        }
    }

    async fn wait_for_slot(&mut self) -> Result<(), Ending> {
        let since = Instant::now();
        let taken = tokio::select! {
            biased;
            ask = asked_to_leave(&mut self.seat.ask) => return Err(Ending::Asked(ask)),
            taken = timeout(LARGE_FRAME_WAIT, self.shared.slots.take()) => taken,
        };
        self.slot = Some(taken.map_err(|_| Ending::Odd(Oddity::LargeFrameWait))?);
        self.framer.grant();
        if let Some((_, at)) = &mut self.timer {
            *at += since.elapsed(); // the sender is not to blame for this wait
        }
        Ok(())
    }

    /// Everything about one complete frame but the writing of its reply. When this returns, the frame's memory is free.
    async fn message(&mut self, frame: Payload) -> Result<Option<Reply>, Ending> {
        let shared = Arc::clone(&self.shared);
        match ack::judge(frame.expose(), &shared.settings.answers) {
            Verdict::Accept(accepted) => self.append(&accepted, frame.clone()).await,
            Verdict::Refuse(refused) => self.refuse(&refused, frame.clone()).await,
            Verdict::Ignore(ignored) => {
                self.odd(match ignored {
                    Ignored::Acknowledgement => Oddity::Acknowledgement,
                    Ignored::CommitBlock => Oddity::CommitBlock,
                });
                Ok(None)
            }
        }
    }

    async fn append(&mut self, accepted: &Accepted<'_>, body: Payload) -> Result<Option<Reply>, Ending> {
        self.look_at(accepted);
        let received = clock::now();
        let stamp = self.stamp(received.unix_ms);
        let stage = if accepted.is_test() { Stage::Test } else { self.shared.settings.stage };
        let message = Message {
            feed: self.shared.feed.clone(),
            identity: accepted.identity(),
            body: body.clone(),
            reply: accepted.positive(&stamp),
            origin: Origin::Peer(self.peer.clone()),
            received_at_ms: received.unix_ms,
            clock_suspect: received.suspect,
            stage,
            batch_mismatch: accepted.mismatch().is_some(),
        };
        let error = match self.shared.store.append(message).await {
            Ok((reply, taken)) => {
                self.stored();
                self.witness.stored(taken, stage, &accepted.identity().map(|id| id.control_id).unwrap_or_default());
                return Ok(Some(reply));
            }
            Err(error) => error,
        };
        match error {
            AppendError::Stopping => Err(Ending::Asked(Ask::Stop)),
            AppendError::TooLarge { .. } => {
                self.shared.counters.refused.fetch_add(1, Ordering::Relaxed);
                self.odd(Oddity::OverLimit);
                self.witness.fate(Fate::Oversize);
                self.quarantine(Oddity::OverLimit.name(), body).await;
                Ok(accepted.too_large(&stamp))
            }
            AppendError::Full(_) | AppendError::Store(_) | AppendError::UnknownFeed(_) | AppendError::IdentityReused => {
                self.shared.counters.refused.fetch_add(1, Ordering::Relaxed);
                self.witness.fate(Fate::NotStored);
                self.store_failed(&error)?;
                Ok(accepted.store_failed(&stamp))
            }
        }
    }

    /// Notes what is odd about a message that is taken all the same.
    fn look_at(&mut self, accepted: &Accepted<'_>) {
        let found = [
            (accepted.has_unknown_manner(), Oddity::UnknownManner),
            (accepted.has_unknown_charset(), Oddity::UnknownCharset),
            (accepted.is_several(), Oddity::Batch),
            (accepted.mixes_tests(), Oddity::MixedTests),
            (accepted.mismatch().is_some(), Oddity::BatchMismatch),
        ];
        found.into_iter().filter(|(is_so, _)| *is_so).for_each(|(_, oddity)| self.odd(oddity));
    }

    fn stored(&self) {
        if !self.shared.pause.borrow().is_idle() {
            self.shared.pause.send_if_modified(Pause::stored);
        }
    }

    /// `Err` where the feed closes on store failures: the only answer after which every sender keeps the message.
    fn store_failed(&mut self, error: &AppendError) -> Result<(), Ending> {
        let (feed, peer) = (&self.shared.feed, &self.peer);
        if self.shared.settings.on_store_failure == OnStoreFailure::Nak {
            self.witness.odd(Oddity::StoreFailed);
            if self.seen.note(Oddity::StoreFailed) {
                tracing::warn!(%feed, %peer, oddity = Oddity::StoreFailed.name(), %error, "{}", Oddity::StoreFailed.text());
            }
            return Ok(());
        }
        let mut begins = None;
        self.shared.pause.send_if_modified(|pause| {
            begins = pause.failed(Instant::now());
            begins.is_some()
        });
        if let Some(pause) = begins {
            tracing::warn!(%feed, %peer, %error, pause_s = pause.as_secs(), "message could not be stored; connection closed without an \
                answer, so that the sender keeps the message. \
                New connections wait for a while. See the spool's condition");
        }
        Err(Ending::StoreFailed)
    }

    /// `Err` where the feed closes on what cannot be a message.
    async fn refuse(&mut self, refused: &Refused<'_>, bytes: Payload) -> Result<Option<Reply>, Ending> {
        let fault = refused.fault();
        self.shared.counters.refused.fetch_add(1, Ordering::Relaxed);
        self.witness.fate(if fault == Fault::OverLimit { Fate::Oversize } else { Fate::Refused });
        match fault {
            Fault::NoHeader => self.odd(Oddity::NoHeader),
            Fault::NoControlId => self.odd(Oddity::NoControlId),
            Fault::ControlIdUnusable => self.odd(Oddity::ControlIdUnusable),
            Fault::UnsupportedType | Fault::UnsupportedEvent | Fault::UnsupportedProcessingId | Fault::UnsupportedVersion => {
                self.odd(Oddity::NotAccepted);
            }
            Fault::OverLimit | Fault::StoreFailed => {} // told when it began
        }
        self.quarantine(fault.name(), bytes).await;
        if fault.is_invalid() && self.shared.settings.on_invalid == OnInvalid::Close {
            return Err(Ending::Invalid);
        }
        Ok(refused.reply(&self.stamp(clock::now().unix_ms)))
    }

    fn stamp(&self, unix_ms: i64) -> Stamp {
        Stamp { time: ack::dtm_utc(unix_ms), control_id: self.shared.control_ids.next() }
    }

    /// One write for one reply; nothing where none is due.
    async fn send(&mut self, reply: Option<Reply>) -> Result<(), Ending> {
        let Some(reply) = reply.filter(|reply| !reply.bytes().is_empty()) else {
            self.witness.answered(None);
            return Ok(());
        };
        let write = async {
            self.stream.write_all(reply.bytes()).await?;
            self.stream.flush().await // TLS keeps the end of what the socket did not take at once
        };
        match timeout(self.shared.reply_timeout, write).await {
            Ok(Ok(())) => {
                self.witness.answered(Some(reply.bytes()));
                Ok(())
            }
            Ok(Err(error)) => Err(Ending::Lost(error.kind())),
            Err(_) => Err(Ending::Odd(Oddity::ReplyNotTaken)),
        }
    }

    async fn quarantine(&self, code: &'static str, bytes: Payload) {
        if !bytes.is_empty() {
            self.shared.store.quarantine(&self.shared.feed, &self.peer, code, bytes).await;
        }
    }

    fn odd(&mut self, oddity: Oddity) {
        self.witness.odd(oddity);
        self.shared.conditions.raise(oddity, &self.peer, std::time::Instant::now());
        if self.seen.note(oddity) {
            tracing::warn!(feed = %self.shared.feed, peer = %self.peer, oddity = oddity.name(), "{}", oddity.text());
        }
    }

    /// What is left to say and to keep.
    async fn farewell(&mut self, ending: Ending) {
        let remainder = self.framer.finish();
        match (ending, remainder) {
            (Ending::PeerClosed | Ending::Lost(_), Remainder::Partial(partial)) => {
                self.odd(Oddity::CutOff);
                self.quarantine(Oddity::CutOff.name(), partial).await;
            }
            (Ending::PeerClosed | Ending::Lost(_), Remainder::Junk { class: JunkClass::Other, .. }) => self.odd(Oddity::Junk),
            (Ending::Odd(oddity), remainder) => {
                self.odd(oddity);
                if let (Oddity::FrameTimeout, Remainder::Partial(partial)) = (oddity, remainder) {
                    self.quarantine(oddity.name(), partial).await;
                }
            }
            _ => {}
        }
        let (feed, peer) = (&self.shared.feed, &self.peer);
        if let Some(repeated) = self.seen.repeated() {
            tracing::info!(%feed, %peer, "connection ended; it had shown, counting all: {repeated}");
        }
        tracing::debug!(%feed, %peer, ?ending, "connection ended");
        self.witness.ends(ending.why());
        // FIN before the descriptor goes; an error means that the peer is gone already.
        let _gone = timeout(Duration::from_secs(1), self.stream.shutdown()).await;
    }
}

/// Ends when somebody wants the connection to leave.
async fn asked_to_leave(ask: &mut watch::Receiver<Ask>) -> Ask {
    // The sender lives in the seat's entry, which only the seat itself removes: an error would mean the listener is gone.
    ask.wait_for(|ask| *ask != Ask::Stay).await.map_or(Ask::Stop, |ask| *ask)
}

async fn expired(deadline: Option<(Instant, Ending)>) -> Ending {
    match deadline {
        Some((at, ending)) => {
            sleep_until(at).await;
            ending
        }
        None => std::future::pending().await,
    }
}
