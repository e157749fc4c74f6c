//! The forwarder's core: everything it decides, without a clock, a disk or a network.
//!
//! The shell (`shell.rs`) tells it what happened, asks it what to do next, and carries out the effects it asks for:
//!
//! ```text
//!   up down acked not_taken receipt head ──►┌──────┐──► next(): Control | Read | Wait(until)
//!   offer read_failed quarantine_failed ───►│ Core │──► effects(): Settle Raise Clear LookUp Renew
//!   looked_up renewed lineage stop      ───►└──────┘
//! ```
//!
//! Order on a connection: the retained status; what the rollout has to say (`mailbox.rs`); for each feed its whole lineage as `open`
//! checkpoints, before anything else of that feed; head checkpoints when due; then outcomes by shares. A hub that does not know where an
//! incarnation begins cannot confirm anything of it, so the lineage goes again whenever it may not have been heard: nobody was subscribed, or
//! receipts stay away. What the broker answers is in `answers.rs`, what the hub answers in `receipts.rs`, the last words in `ending.rs`.
//!
//! Nothing is read ahead: `next` names a feed and the seq after which to read, `offer` takes what was read and gives it a token, and only then
//! is it published. So at most one body is held beside those in flight.

use std::time::{Duration, Instant};

use super::checkpoint::Checkpoints;
use super::feed::{Becomes, Entry, Feed, FeedStart, Parked, State};
use super::mailbox::{Letter, Mailbox};
use super::pause::{Pause, pause};
use super::shares::Shares;
use super::window::{Flight, Window};
use crate::config::settings::{Confirm, OnNoSubscriber};
use crate::contract::{Checkpoint, Mark, OnlineState, Receipt};
use crate::limits::{CHECKPOINT_RECORDS, OUTCOME_OVERHEAD_BYTES, PARK_MAX, PARK_MIN, UNCONFIRMED_PER_FEED, UNCONFIRMED_TOTAL};
use crate::record::{Chain, Incarnation, Lane, Link, Position};
use crate::status::condition::Code;
use crate::uplink::AckReason;

/// What of the configuration the core decides by.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub confirm: Confirm,
    pub on_no_subscriber: OnNoSubscriber,
    pub receipt_timeout: Duration,
}

/// A publish that is not an outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    Status(OnlineState),
    Checkpoint(Checkpoint),
    Mail(Letter),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    Control {
        token: u64,
        what: Control,
    },
    /// Read what follows `after` and offer it.
    Read {
        feed: usize,
        after: u64,
    },
    /// Nothing before then, unless something happens.
    Wait(Option<Instant>),
}

/// What the core needs to know of an outcome that was read.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub first: u64,
    pub last: u64,
    pub incarnation: Incarnation,
    pub chain: Chain,
    /// Of its body.
    pub bytes: usize,
    pub gap: bool,
}

/// How to publish what was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    pub token: u64,
    /// For an exception that is not yet stored: quarantine first, publish only if that worked.
    pub becomes: Becomes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// `records`: by how many seqs the mark moved.
    Settle {
        feed: usize,
        mark: Mark,
        records: u64,
    },
    Raise {
        code: Code,
        feed: Option<usize>,
        text: String,
    },
    Clear {
        code: Code,
        feed: Option<usize>,
    },
    /// Read the outcome that ends at `receipt.through_seq` and hand it to `looked_up`.
    LookUp {
        feed: usize,
        receipt: Receipt,
    },
    /// Start a new incarnation and call `renewed`.
    Renew,
    /// A receipt that proved itself was written at this time.
    HubTime {
        unix_ms: i64,
    },
    /// The broker answered a letter.
    Answered {
        letter: u64,
        reason: AckReason,
    },
    /// A letter will not be answered any more.
    Forgotten {
        letter: u64,
    },
}

/// The gateway's status: told, or to be told.
#[derive(Debug)]
pub(super) struct Status {
    pub(super) state: OnlineState,
    pub(super) due: bool,
}

#[derive(Debug)]
pub struct Core {
    pub(super) rules: Rules,
    pub(super) feeds: Vec<Feed>,
    /// `None` while there is no connection.
    pub(super) window: Option<Window>,
    pub(super) shares: Shares,
    /// Nobody is subscribed: no outcomes of any feed.
    pub(super) hold: Option<Pause>,
    /// A control publish was refused: refused ones are not repeated before.
    pub(super) control_pause: Option<Pause>,
    /// A hold has begun or gone on: before its probe goes what nobody heard.
    pub(super) speak_up: bool,
    /// The uplink's window is full against expectation.
    pub(super) full_until: Option<Instant>,
    /// The uplink said that its connection is gone; `down` will follow, after the answers that had arrived.
    pub(super) ending: bool,
    pub(super) renew_not_before: Option<Instant>,
    pub(super) next_token: u64,
    pub(super) raised: Vec<(Code, Option<usize>)>,
    pub(super) effects: Vec<Effect>,
    pub(super) mailbox: Mailbox,
    pub(super) status: Status,
    pub(super) stopping: bool,
}

impl Core {
    pub fn new(rules: Rules, feeds: Vec<FeedStart>, now: Instant) -> Self {
        let unconfirmed_max = unconfirmed_max(feeds.len());
        let shares = Shares::new(feeds.iter().map(|feed| feed.lane));
        let checkpoints = || Checkpoints::new(CHECKPOINT_RECORDS, rules.receipt_timeout);
        Self {
            rules,
            feeds: feeds.into_iter().map(|start| Feed::new(start, unconfirmed_max, checkpoints(), now)).collect(),
            window: None,
            shares,
            hold: None,
            control_pause: None,
            speak_up: false,
            full_until: None,
            ending: false,
            renew_not_before: None,
            next_token: 1,
            raised: Vec::new(),
            effects: Vec::new(),
            mailbox: Mailbox::default(),
            status: Status { state: OnlineState::Online, due: false },
            stopping: false,
        }
    }

    // ---- feeds that come and go ----

    /// One more feed; its lineage is published before anything else of it. Says its index.
    pub fn add(&mut self, start: FeedStart, now: Instant) -> usize {
        let index = self.feeds.len();
        self.shares.add(index, start.lane);
        let checkpoints = Checkpoints::new(CHECKPOINT_RECORDS, self.rules.receipt_timeout);
        self.feeds.push(Feed::new(start, 0, checkpoints, now));
        self.share_out();
        index
    }

    /// The lane of a feed, and whether it is configured, from now on. What is in flight counts where it was sent.
    pub fn reshape(&mut self, feed: usize, lane: Lane, retired: bool) {
        let known = &mut self.feeds[feed];
        let was_done = known.is_done();
        known.retired = retired;
        if was_done && !retired {
            known.open_again(); // it was passed over when others told theirs
        }
        if known.lane != lane {
            known.lane = lane;
            self.shares.move_to(feed, lane);
        }
        self.share_out();
    }

    /// I4: what may wait for confirmation, shared by those that have something to say.
    fn share_out(&mut self) {
        let most = unconfirmed_max(self.feeds.iter().filter(|feed| !feed.is_done()).count());
        self.feeds.iter_mut().for_each(|feed| feed.allow(most));
    }

    // ---- what happens around it ----

    /// Connected: everything begins anew with the status and the lineages. Without the broker's session even what it had acknowledged may be
    /// lost: it goes again, so that first arrivals stay in order (I3).
    pub fn up(&mut self, places: usize, session_present: bool, now: Instant) {
        self.down();
        self.window = Some(Window::new(places));
        self.status.due = true;
        self.mailbox.up();
        (self.full_until, self.control_pause) = (None, None);
        let soon = now + PARK_MIN;
        if let Some(hold) = &mut self.hold {
            hold.sooner(soon);
        }
        for feed in &mut self.feeds {
            feed.open_again();
            feed.reopened = false;
            feed.wait_anew(now);
            if !session_present && self.rules.confirm == Confirm::Receipt {
                feed.go_back();
            }
            if feed.head.seq > 0 {
                feed.checkpoints.force(now);
            }
            if let Some(Parked { pause, code: Some(Code::FeedParked) }) = &mut feed.parked {
                pause.sooner(soon);
            }
        }
    }

    /// The connection ended: no token will be answered any more.
    pub fn down(&mut self) {
        self.window = None;
        self.ending = false;
        self.feeds.iter_mut().for_each(Feed::down);
    }

    /// The rollout has something to say.
    pub fn post(&mut self, letter: u64, what: Letter) {
        if let Some(letter) = self.mailbox.post(letter, what) {
            self.effects.push(Effect::Forgotten { letter });
        }
    }

    pub fn is_up(&self) -> bool {
        self.window.is_some()
    }

    /// The durable head of a feed.
    pub fn head(&mut self, feed: usize, head: Position) {
        let feed = &mut self.feeds[feed];
        if head.seq >= feed.head.seq {
            feed.head = head;
        }
    }

    /// The lineage of a feed changed: the new links are published before anything else of that feed.
    pub fn lineage(&mut self, feed: usize, lineage: Vec<Link>, now: Instant) {
        let feed = &mut self.feeds[feed];
        let told = |link: &&Link| feed.lineage.iter().take(feed.opens).any(|old| old.incarnation == link.incarnation);
        feed.opens = lineage.iter().take_while(told).count();
        feed.lineage = lineage;
        feed.checkpoints.force(now);
    }

    pub fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    // ---- what to do next ----

    pub fn next(&mut self, now: Instant) -> Next {
        self.tend_receipts(now);
        let full = self.full_until.is_some_and(|until| now < until);
        if full || self.ending || self.window.is_none() {
            return Next::Wait(self.wake(now));
        }
        self.full_until = None;
        if self.speak_up && self.hold.is_none_or(|hold| hold.over(now)) {
            self.speak_up = false;
            self.feeds.iter_mut().filter(|feed| feed.unheard).for_each(Feed::open_again);
        }
        if let Some(next) = self.control(now) {
            return next;
        }
        if let Some(feed) = self.pick(now)
            && let Some(after) = self.feeds[feed].after()
        {
            return Next::Read { feed, after };
        }
        Next::Wait(self.wake(now))
    }

    fn pick(&mut self, now: Instant) -> Option<usize> {
        let window = self.window.as_ref()?;
        let held = self.hold.is_some_and(|hold| !hold.over(now) || window.outcomes() > 0);
        if self.stopping || held {
            return None;
        }
        let feeds = &self.feeds;
        self.shares.pick(|lane| window.admits(lane), |feed| feeds[feed].ready(now))
    }

    fn control(&mut self, now: Instant) -> Option<Next> {
        if !self.window.as_ref()?.admits_control() {
            return None;
        }
        let again = self.control_pause.is_none_or(|pause| pause.over(now));
        if self.status.due && again {
            self.status.due = false;
            return Some(self.publish_control(Flight::Status, Control::Status(self.status.state)));
        }
        if let Some((letter, what)) = self.mailbox.next(again) {
            return Some(self.publish_control(Flight::Mail { letter }, Control::Mail(what)));
        }
        for index in 0..self.feeds.len() {
            let feed = &mut self.feeds[index];
            if feed.is_done() {
                continue;
            }
            if feed.opened() && feed.opens_again && again {
                feed.open_again();
            }
            if let Some(link) = feed.lineage.get(feed.opens).copied() {
                let (id, settled, at) = (feed.id.clone(), feed.settled(), feed.opens);
                feed.opens += 1;
                let open = Checkpoint::Open { feed: id, incarnation: link.incarnation, follows: link.follows, settled };
                return Some(self.publish_control(Flight::Open { feed: index, link: at }, Control::Checkpoint(open)));
            }
            if again && self.head_due(index).is_some_and(|due| due <= now) {
                let feed = &mut self.feeds[index];
                let doubtful = feed.unheard || feed.checkpoints.repeats();
                feed.reopened = doubtful && !feed.reopened && !feed.lineage.is_empty();
                if feed.reopened {
                    feed.open_again();
                    return self.control(now);
                }
                let head = self.head_of(index, now);
                return Some(self.publish_control(Flight::Head { feed: index }, Control::Checkpoint(head)));
            }
        }
        None
    }

    pub(super) fn head_due(&self, feed: usize) -> Option<Instant> {
        let feed = &self.feeds[feed];
        if feed.is_done() {
            return None;
        }
        feed.checkpoints.due(feed.drained(), self.rules.confirm == Confirm::Receipt && feed.acked() > 0)
    }

    fn head_of(&mut self, feed: usize, now: Instant) -> Checkpoint {
        let feed = &mut self.feeds[feed];
        let Position { incarnation, seq, chain } = feed.head;
        feed.checkpoints.published(seq, feed.acked_mark().seq, now);
        Checkpoint::Head { feed: feed.id.clone(), incarnation, seq, chain, count: feed.count_of_incarnation(), settled: feed.settled() }
    }

    fn publish_control(&mut self, flight: Flight, what: Control) -> Next {
        let token = self.token(flight);
        Next::Control { token, what }
    }

    fn token(&mut self, flight: Flight) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        if let Some(window) = &mut self.window {
            window.enter(token, flight);
        }
        token
    }

    /// What was read after `after` of `feed` is to be published. `None`: it is not what the core asked for; read again later.
    pub fn offer(&mut self, feed: usize, after: u64, seen: Seen, now: Instant) -> Option<Offer> {
        let known = &self.feeds[feed];
        if !self.is_up() || known.after() != Some(after) || seen.first != after + 1 || seen.last < seen.first {
            self.read_failed(feed, now);
            return None;
        }
        let same = known.entry(seen.first).filter(|e| e.chain == seen.chain && !seen.gap);
        let becomes = if seen.gap { Becomes::Gap } else { same.map_or(Becomes::Event, |e| e.becomes) };
        let lane = known.lane;
        let bytes = OUTCOME_OVERHEAD_BYTES + if becomes == Becomes::Event { seen.bytes } else { 0 };
        let flight = Flight::Outcome { feed, first: seen.first, lane, bytes, event: becomes == Becomes::Event };
        let token = self.token(flight);
        let Seen { first, last, incarnation, chain, .. } = seen;
        self.feeds[feed].sending(Entry { first, last, incarnation, chain, state: State::Unsent, becomes }, token);
        self.shares.charge(lane, bytes);
        Some(Offer { token, becomes })
    }

    /// The disk did not give what follows: the feed is left alone for a while. The spool raises the condition, it knows the file.
    pub fn read_failed(&mut self, feed: usize, now: Instant) {
        self.park(feed, u64::MAX, None, now);
    }

    pub(super) fn park(&mut self, feed: usize, token: u64, code: Option<Code>, now: Instant) {
        let parked = &mut self.feeds[feed].parked;
        let mut inner = parked.map(|p| p.pause);
        let before = parked.and_then(|p| p.code);
        pause(&mut inner, token, now, self.next_token, (PARK_MIN, PARK_MAX));
        *parked = inner.map(|pause| Parked { pause, code: code.or(before) });
        if let Some(before) = before.filter(|&before| code.is_some_and(|code| code != before)) {
            self.clear(before, Some(feed));
        }
    }

    // ---- time ----

    /// When something becomes due by itself.
    fn wake(&self, now: Instant) -> Option<Instant> {
        let receipts = self.rules.confirm == Confirm::Receipt;
        if self.window.is_none() || self.ending {
            return None;
        }
        let floor = self.full_until.unwrap_or(now);
        let control = self.control_pause.map(|p| p.until);
        let held = self.hold.map(|p| p.until).filter(|&until| until > now);
        let feeds = self.feeds.iter().enumerate().flat_map(|(index, feed)| {
            let due = self.head_due(index).map(|due| control.map_or(due, |pause| due.max(pause)));
            let parked = feed.parked.map(|p| p.pause.until).filter(|&until| until > now);
            let overdue = feed.overdue_at(self.rules.receipt_timeout).filter(|_| receipts);
            [due, parked, overdue]
        });
        // What is due already waits for room in the window, not for the clock.
        feeds.chain([held, control]).flatten().filter(|&at| at > floor).chain(self.full_until).min()
    }

    /// Something changed that the status tells; the last word is not taken back.
    pub fn status_changed(&mut self) {
        if self.is_up() && self.status.state == OnlineState::Online && !self.stopping {
            self.status.due = true;
        }
    }

    pub(super) fn status_again(&mut self) {
        self.status.due = true;
    }

    // ---- conditions ----

    pub(super) fn raise(&mut self, code: Code, feed: Option<usize>, text: String) {
        if !self.raised.contains(&(code, feed)) {
            self.raised.push((code, feed));
        }
        self.effects.push(Effect::Raise { code, feed, text });
    }

    pub(super) fn clear(&mut self, code: Code, feed: Option<usize>) {
        if let Some(at) = self.raised.iter().position(|&raised| raised == (code, feed)) {
            self.raised.swap_remove(at);
            self.effects.push(Effect::Clear { code, feed });
        }
    }
}

/// Outcomes of each feed that may wait for a receipt, where so many feeds share the whole.
fn unconfirmed_max(feeds: usize) -> usize {
    (UNCONFIRMED_TOTAL / feeds.max(1)).min(UNCONFIRMED_PER_FEED)
}
