//! The forwarder's shell: one thread that owns the spool's reader, the uplink and the core, and carries things between them.
//!
//! A turn: look at the heads if something was appended → publish what the core wants, a bounded number → carry out its effects → wait for the
//! uplink, an append, the core's next time, or the stop signal, a second at most. Reading the journal blocks this thread and no other; while it
//! does, the broker's answers wait in the uplink's bounded queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use super::Feeds;
use super::core::{Control, Core, Effect, Next, Offer, Rules, Seen};
use super::feed::Becomes;
use super::feeds::FeedFacts;
use super::mail::{Errand, PostOffice};
use super::mailbox::Letter;
use super::publish::Publisher;
use super::receipt;
use crate::clock;
use crate::config::settings::Settings;
use crate::contract::topic::Kind;
use crate::contract::{Outcome, Receipt};
use crate::limits::{
    CONDITIONS_TOLD_INTERVAL, EVENT_OVERHEAD_BYTES, FORWARD_ANSWERS_PER_TURN, FORWARD_PUBLISHES_PER_TURN, FORWARD_TICK, STATUS_INTERVAL,
};
use crate::record::Record;
use crate::spool::recent::Note;
use crate::spool::{Item, QuarantineError, Reader};
use crate::status::board::Board;
use crate::status::condition::Code;
use crate::uplink::{self, AckReason, NotTaken, Outgoing, Uplink, UplinkEvent, UplinkIdentity};

#[derive(Debug)]
pub(super) struct Shell {
    pub(super) core: Core,
    pub(super) reader: Reader,
    uplink: Uplink,
    pub(super) board: Arc<Board>,
    pub(super) feeds: Vec<FeedFacts>,
    /// What is configured; the journal says with `shape` when to look for feeds anew.
    pub(super) configured: watch::Receiver<Feeds>,
    pub(super) shape: u64,
    pub(super) publisher: Publisher,
    appended: watch::Receiver<u64>,
    beat: Arc<AtomicU64>,
    message_bytes_max: u64,
    marks_moved: bool,
    marks_at: Instant,
    /// Changes of conditions that the retained status told of, and when it did.
    told: (u64, Instant),
    office: PostOffice,
    /// A message that is of no use is mentioned once per connection.
    warned: bool,
}

/// What ended a wait.
enum Woken {
    Uplink(UplinkEvent),
    Appended(bool),
    Errand(Errand),
    Configured(bool),
    Time,
    Stop(Duration),
}

impl Shell {
    pub fn new(
        settings: &Settings,
        reader: Reader,
        board: Arc<Board>,
        runtime: &tokio::runtime::Handle,
        (beat, configured): (Arc<AtomicU64>, watch::Receiver<Feeds>),
        office: PostOffice,
    ) -> Self {
        let publisher = Publisher::new(&settings.gateway.site, &settings.gateway.id);
        let uplink = &settings.uplink;
        let rules = Rules { confirm: uplink.confirm, on_no_subscriber: uplink.on_no_subscriber, receipt_timeout: uplink.receipt_timeout };
        let (subscriptions, optional) = uplink::subscriptions(publisher.topics());
        let identity = UplinkIdentity {
            client_id: uplink::client_id(&settings.gateway.site, &settings.gateway.id),
            will: publisher.will(),
            subscriptions,
            optional,
            directory: uplink::sockets(std::env::var_os("RUNTIME_DIRECTORY").as_deref(), &settings.spool.path),
        };
        let now = Instant::now();
        let mut shell = Self {
            core: Core::new(rules, Vec::new(), now),
            appended: reader.appended(),
            shape: reader.shape(),
            reader,
            uplink: Uplink::start(uplink.clone(), identity, Arc::clone(&board), runtime),
            board,
            feeds: Vec::new(),
            configured,
            publisher,
            beat,
            message_bytes_max: settings.spool.message_bytes_max,
            marks_moved: false,
            marks_at: now,
            told: (0, now),
            office,
            warned: false,
        };
        shell.take_up_feeds(now);
        shell
    }

    /// Until the stop signal, or until whoever could give it is gone.
    pub async fn run(mut self, mut stop: oneshot::Receiver<Duration>) {
        let (mut spool_lives, mut told) = (true, true);
        let deadline = loop {
            let wait = self.turn();
            let woken = tokio::select! {
                biased;
                deadline = &mut stop => Woken::Stop(deadline.unwrap_or_default()),
                event = self.uplink.event() => Woken::Uplink(event),
                Some(errand) = self.office.errand() => Woken::Errand(errand),
                changed = self.appended.changed(), if spool_lives => Woken::Appended(changed.is_ok()),
                changed = self.configured.changed(), if told => Woken::Configured(changed.is_ok()),
                () = pause(wait) => Woken::Time,
            };
            match woken {
                Woken::Uplink(event) => self.hear(event).await,
                Woken::Appended(lives) => {
                    spool_lives = lives;
                    self.look_at_heads();
                }
                Woken::Errand(errand) => self.errand(errand),
                Woken::Configured(lives) => {
                    told = lives;
                    self.take_up_feeds(Instant::now());
                }
                Woken::Time => {}
                Woken::Stop(deadline) => break deadline,
            }
        };
        self.finish(Instant::now(), deadline).await;
    }

    /// The orderly end: what is in flight is acknowledged, every head is told and confirmed, `offline` is said, marks are synced; each as far as
    /// the deadline allows. Without a connection there is nothing to wait for.
    async fn finish(mut self, start: Instant, deadline: Duration) {
        self.core.stop();
        self.turn_until(start + deadline / 2, |core, _| core.outcomes_in_flight() == 0).await;
        self.look_at_heads();
        self.core.last_heads(Instant::now());
        self.turn_until(start + deadline * 3 / 4, |core, now| core.quiet(now) && !core.awaiting_receipts()).await;
        self.core.say_offline();
        self.turn_until(start + deadline * 7 / 8, Core::quiet).await;
        self.reader.sync_marks(true);
        self.uplink.stop(deadline.saturating_sub(start.elapsed())).await;
    }

    async fn turn_until(&mut self, end: Instant, done: impl Fn(&Core, Instant) -> bool) {
        loop {
            let wait = self.turn();
            let now = Instant::now();
            if !self.core.is_up() || now >= end || done(&self.core, now) {
                return;
            }
            tokio::select! {
                biased;
                event = self.uplink.event() => self.hear(event).await,
                () = pause(wait.min(end - now)) => {}
            }
        }
    }

    /// One turn of work; says how long nothing is due by itself.
    fn turn(&mut self) -> Duration {
        self.beat.fetch_add(1, Ordering::Relaxed);
        self.tell_conditions();
        self.office.hand_over();
        let mut wait = Duration::ZERO;
        for _ in 0..FORWARD_PUBLISHES_PER_TURN {
            let now = Instant::now();
            match self.core.next(now) {
                Next::Control { token, what } => {
                    let outgoing = match &what {
                        Control::Mail(Letter::Released(record)) => self.released(token, record),
                        what => self.publisher.control(token, what, &self.board),
                    };
                    // The core has been told where it was not taken.
                    let _taken = self.publish(outgoing, now);
                }
                Next::Read { feed, after } => self.send(feed, after, now),
                Next::Wait(until) => {
                    wait = until
                        .map_or(FORWARD_TICK, |until| until.saturating_duration_since(now).clamp(Duration::from_millis(1), FORWARD_TICK));
                    break;
                }
            }
        }
        self.carry_out();
        if self.marks_moved && self.marks_at.elapsed() >= FORWARD_TICK {
            self.reader.sync_marks(false);
            (self.marks_moved, self.marks_at) = (false, Instant::now());
        }
        wait
    }

    // ---- down the wire ----

    /// False: the uplink did not take it.
    fn publish(&mut self, outgoing: Outgoing, now: Instant) -> bool {
        let token = outgoing.token;
        // What was not taken is dropped on purpose: it is read or made again from the journal when its turn comes.
        if let Err((why, _)) = self.uplink.try_publish(outgoing) {
            if let NotTaken::TooLarge { packet_bytes_max } = why {
                tracing::warn!(packet_bytes_max, "a publish is larger than the broker takes");
            }
            self.core.not_taken(token, why, now);
            return false;
        }
        true
    }

    /// Reads what follows `after` and publishes it as what the core says it becomes.
    fn send(&mut self, feed: usize, after: u64, now: Instant) {
        let id = self.feeds[feed].id.clone();
        let item = match self.reader.next(&id, after) {
            Ok(Some(item)) => item,
            Ok(None) => return self.unreadable(feed, after, "the journal ends before the head it gave", now),
            Err(error) => return self.unreadable(feed, after, &error.to_string(), now),
        };
        let Some(Offer { token, becomes }) = self.core.offer(feed, after, seen(&item), now) else {
            return tracing::error!(
                feed = id.as_str(),
                after,
                "the journal gave something else than what follows; the feed is tried again later"
            );
        };
        let facts = &self.feeds[feed];
        let outgoing = match (item, becomes) {
            (Item::Gap { incarnation, first, last, chain, reason }, _) => {
                let gap = Outcome::Gap { incarnation, first, last, chain, reason: reason.into() };
                self.publisher.outcome(token, &id, &gap)
            }
            (Item::Record(record), Becomes::Exception { reason, stored }) => {
                if !stored && !self.quarantine(feed, token, &record, reason, now) {
                    return;
                }
                let Record { incarnation, seq, digest, chain, .. } = record;
                let exception = Outcome::Exception { incarnation, seq, digest, chain, reason: reason.into() };
                self.publisher.outcome(token, &id, &exception)
            }
            (Item::Record(record), _) => self.publisher.event(token, facts.lane, facts.charset, &record),
        };
        if self.publish(outgoing, now) {
            self.board.note(Note::Published { feed: id, seq: after + 1, at_ms: clock::now().unix_ms });
        }
    }

    fn unreadable(&mut self, feed: usize, after: u64, error: &str, now: Instant) {
        let id = self.feeds[feed].id.as_str();
        tracing::error!(feed = id, after, "the journal cannot be read, the feed is tried again later; check the disk: {error}");
        self.core.read_failed(feed, now);
    }

    fn quarantine(&mut self, feed: usize, token: u64, record: &Record, reason: &'static str, now: Instant) -> bool {
        match self.reader.quarantine(record, reason) {
            Ok(()) => {
                tracing::warn!(
                    feed = record.feed.as_str(),
                    seq = record.seq,
                    reason,
                    "the broker cannot take this record; it is in quarantine"
                );
                self.board.note(Note::Quarantined { feed: record.feed.clone(), seq: record.seq, at_ms: clock::now().unix_ms });
                self.core.quarantined(feed, record.seq);
                true
            }
            Err(error) => {
                tracing::error!(feed = record.feed.as_str(), seq = record.seq, reason, "not put into quarantine, the feed waits: {error}");
                self.core.quarantine_failed(feed, token, matches!(error, QuarantineError::Full), now);
                false
            }
        }
    }

    // ---- up the wire ----

    /// Handles an event, and those that are there already.
    async fn hear(&mut self, first: UplinkEvent) {
        let mut event = first;
        for _ in 0..FORWARD_ANSWERS_PER_TURN {
            self.heard(event);
            event = tokio::select! {
                biased;
                event = self.uplink.event() => event,
                () = std::future::ready(()) => return,
            };
        }
        self.heard(event);
    }

    fn heard(&mut self, event: UplinkEvent) {
        let now = Instant::now();
        match event {
            UplinkEvent::Acked { token, reason } => {
                if let (Some((feed, seq)), AckReason::Success) = (self.core.outcome_in_flight(token), reason) {
                    self.board.note(Note::Acked { feed: self.feeds[feed].id.clone(), seq, at_ms: clock::now().unix_ms });
                }
                if matches!(reason, AckReason::Success | AckReason::NoMatchingSubscribers) {
                    self.office.prove();
                }
                self.core.acked(token, reason, now);
            }
            UplinkEvent::Message { topic, payload, retained } => self.message(&topic, &payload, retained, now),
            UplinkEvent::Down { .. } => {
                // Answers that came before the end still name the endpoint.
                self.carry_out();
                self.office.down();
                self.core.down();
            }
            UplinkEvent::Up { endpoint, window, packet_bytes_max, session_present } => {
                // A session that waited elsewhere knows nothing of what was acknowledged since.
                let session_present = self.office.up(endpoint) && session_present;
                self.warned = false;
                self.publisher.connected();
                self.compare_limits(packet_bytes_max);
                self.look_at_heads();
                self.tell_lineages(now);
                self.core.up(window, session_present, now);
            }
        }
    }

    /// The hub hears of conditions that were raised or ended, changes in quick succession together; and now and then of what waits.
    fn tell_conditions(&mut self) {
        let (changes, elapsed) = (self.board.condition_changes(), self.told.1.elapsed());
        if (changes != self.told.0 && elapsed >= CONDITIONS_TOLD_INTERVAL) || elapsed >= STATUS_INTERVAL {
            self.told = (changes, Instant::now());
            self.core.status_changed();
        }
    }

    /// Said at once, not when the first message meets the limit.
    fn compare_limits(&self, packet_bytes_max: Option<u32>) {
        let needed = self.message_bytes_max + EVENT_OVERHEAD_BYTES as u64;
        match packet_bytes_max.filter(|&most| u64::from(most) < needed) {
            None => self.board.clear(Code::BrokerPacketLimit, ""),
            Some(most) => {
                let text = format!(
                    "the broker takes packets of {most} bytes, message_bytes_max is {}: a message above the broker's limit goes to quarantine;                      raise the broker's maximum packet size to {needed} or lower message_bytes_max",
                    self.message_bytes_max
                );
                self.board.raise(Code::BrokerPacketLimit, "", text);
            }
        }
    }

    fn errand(&mut self, errand: Errand) {
        match errand {
            Errand::Post(id, letter) => self.core.post(id, letter),
            Errand::Replace(settings) => self.uplink.replace(settings),
            Errand::Checkpoint => self.core.last_heads(Instant::now()),
        }
    }

    fn message(&mut self, topic: &str, payload: &Bytes, retained: bool, now: Instant) {
        match self.publisher.topics().ours(topic) {
            Some(Kind::Receipt) => self.receipt(payload, now),
            Some(Kind::Desired) => self.office.desired(payload, retained),
            Some(Kind::Command) if self.office.command(payload, retained) => {}
            Some(Kind::Command) => self.warn_once("a command was dropped: too many came at once; it is not executed"),
            Some(Kind::CertificateIssued) if self.office.certificate(payload) => {}
            Some(Kind::CertificateIssued) => self.warn_once("a certificate came while others are being looked at; it is to be sent again"),
            _ => self.warn_once("a message on a topic that we did not subscribe to was ignored"),
        }
    }

    fn receipt(&mut self, payload: &Bytes, now: Instant) {
        let receipt = match receipt::parse(payload) {
            Ok(receipt) => receipt,
            Err(error) => return self.warn_once(&format!("a message on the receipt topic was ignored: {error}; check the hub's version")),
        };
        if let Some(feed) = self.core.feed_named(&receipt.feed) {
            self.core.head(feed, self.reader.head(&receipt.feed));
        }
        if !self.core.receipt(receipt, now) {
            self.warn_once("a receipt for a feed that this gateway does not have was ignored");
        }
    }

    fn warn_once(&mut self, text: &str) {
        if !std::mem::replace(&mut self.warned, true) {
            tracing::warn!("{text}");
        }
    }

    // ---- the spool's side ----

    fn look_at_heads(&mut self) {
        self.appended.mark_unchanged();
        if self.reader.shape() != self.shape {
            self.take_up_feeds(Instant::now());
        }
        for (index, facts) in self.feeds.iter().enumerate() {
            self.core.head(index, self.reader.head(&facts.id));
        }
    }

    fn tell_lineages(&mut self, now: Instant) {
        for (index, facts) in self.feeds.iter().enumerate() {
            self.core.lineage(index, self.reader.lineage(&facts.id), now);
        }
    }

    /// Effects, and what follows from them.
    fn carry_out(&mut self) {
        for effect in self.core.effects() {
            self.effect(effect);
        }
        // A look-up may settle.
        for effect in self.core.effects() {
            self.effect(effect);
        }
    }

    fn subject(&self, feed: Option<usize>) -> &str {
        feed.map_or("", |feed| self.feeds[feed].id.as_str())
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Settle { feed, mark, records } => {
                let facts = &self.feeds[feed];
                self.board.note(Note::Settled { feed: facts.id.clone(), seq: mark.seq, at_ms: clock::now().unix_ms });
                self.reader.settle(&facts.id, mark);
                facts.counters.released.fetch_add(records, Ordering::Relaxed);
                self.marks_moved = true;
                if facts.retired && mark.seq >= self.reader.head(&facts.id).seq {
                    self.board.clear(Code::FeedRetired, facts.id.as_str());
                }
            }
            Effect::Raise { code, feed, text } => self.board.raise(code, self.subject(feed), text),
            Effect::Clear { code, feed } => self.board.clear(code, self.subject(feed)),
            Effect::LookUp { feed, receipt } => self.look_up(feed, &receipt),
            Effect::Renew => self.renew(),
            Effect::HubTime { unix_ms } if self.office.is_verified() => clock::hear_hub(unix_ms),
            Effect::HubTime { .. } => {}
            Effect::Answered { letter, reason } => self.office.answered(letter, reason),
            Effect::Forgotten { letter } => self.office.forget(letter),
        }
    }

    fn look_up(&mut self, feed: usize, receipt: &Receipt) {
        let found = match self.reader.next(&receipt.feed, receipt.through_seq - 1) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(
                    feed = receipt.feed.as_str(),
                    "a receipt could not be compared with the journal; the next one will be: {error}"
                );
                None
            }
        };
        self.core.looked_up(feed, receipt, found.as_ref().map(seen), Instant::now());
    }

    fn renew(&mut self) {
        match self.reader.renew_incarnation() {
            Ok(incarnation) => {
                tracing::warn!(%incarnation, "new records go on under a new incarnation: the hub holds more of the last one than this spool");
                self.look_at_heads();
                self.tell_lineages(Instant::now());
            }
            Err(error) => tracing::error!("no new incarnation could be started, it is tried again at the hub's next receipt: {error}"),
        }
    }
}

/// Waits; for no time at all it lets others run once.
async fn pause(wait: Duration) {
    if wait.is_zero() {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(wait).await;
    }
}

fn seen(item: &Item) -> Seen {
    match item {
        Item::Record(r) => Seen { first: r.seq, last: r.seq, incarnation: r.incarnation, chain: r.chain, bytes: r.body.len(), gap: false },
        Item::Gap { incarnation, first, last, chain, .. } => {
            Seen { first: *first, last: *last, incarnation: *incarnation, chain: *chain, bytes: 0, gap: true }
        }
    }
}
