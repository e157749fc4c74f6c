//! Tests of the forwarder's core: every rule by name (`rules`, `receipts`), and a model with random faults (`model`).
//!
//! The core does no I/O, so a test is the shell: it gives journals to read, takes what is published, and turns the clock.

mod mail;
mod model;
mod receipts;
mod rules;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::core::{Control, Core, Effect, Next, Offer, Rules, Seen};
use super::feed::{Becomes, FeedStart};
use crate::config::settings::{Confirm, OnNoSubscriber};
use crate::contract::{Checkpoint, Mark, Receipt};
use crate::limits::RECEIPT_TIMEOUT_DEFAULT;
use crate::record::{Chain, Digest, FeedId, Incarnation, Lane, Link, Name, Position};
use crate::status::condition::Code;
use crate::uplink::{AckReason, NotTaken};

const RULES: Rules = Rules { confirm: Confirm::Receipt, on_no_subscriber: OnNoSubscriber::Hold, receipt_timeout: RECEIPT_TIMEOUT_DEFAULT };
const PUBACK: Rules = Rules { confirm: Confirm::Puback, ..RULES };

/// A feed's journal: what a reader would give.
#[derive(Clone, Debug)]
struct Journal {
    id: FeedId,
    lane: Lane,
    lineage: Vec<Link>,
    base: Mark,
    items: Vec<Seen>,
    settled: Mark,
}

impl Journal {
    fn new(name: &str, lane: Lane, base: u64) -> Self {
        let chain = if base == 0 { Chain::GENESIS } else { Chain([9; 32]) };
        let (first, base) = (Incarnation([1; 16]), Mark { seq: base, chain });
        let follows = (base.seq > 0).then_some(Position { incarnation: Incarnation([7; 16]), seq: base.seq, chain });
        let lineage = vec![Link { incarnation: first, follows }];
        Self { id: Name::new(name).unwrap(), lane, lineage, base, items: Vec::new(), settled: base }
    }

    fn head(&self) -> Position {
        let incarnation = self.lineage.last().unwrap().incarnation;
        let (seq, chain) = self.items.last().map_or((self.base.seq, self.base.chain), |s| (s.last, s.chain));
        Position { incarnation, seq, chain }
    }

    fn append(&mut self, span: u64, bytes: usize) {
        let Position { incarnation, seq, chain } = self.head();
        let chain = (seq + 1..=seq + span).fold(chain, |chain, seq| chain.after(seq, &Digest([seq as u8; 32])));
        self.items.push(Seen { first: seq + 1, last: seq + span, incarnation, chain, bytes, gap: span > 1 });
    }

    fn renew(&mut self, id: u8) {
        let Position { seq, chain, .. } = self.head();
        let follows = self.items.last().map(|s| Position { incarnation: s.incarnation, seq, chain });
        let follows = follows.or(self.lineage.last().and_then(|link| link.follows));
        self.lineage.push(Link { incarnation: Incarnation([id; 16]), follows });
    }

    /// What follows `after`, if that is where an outcome begins.
    fn after(&self, after: u64) -> Option<Seen> {
        let index = self.items.partition_point(|s| s.last <= after);
        self.items.get(index).copied()
    }

    fn at(&self, seq: u64) -> Seen {
        self.after(seq - 1).unwrap()
    }

    fn start(&self) -> FeedStart {
        let lineage = self.lineage.clone();
        FeedStart { id: self.id.clone(), lane: self.lane, settled: self.settled, head: self.head(), lineage }
    }
}

/// Something published and not answered yet.
#[derive(Clone, Debug)]
enum Sent {
    Control { token: u64, what: Control },
    Outcome { token: u64, feed: usize, seen: Seen, becomes: Becomes },
}

impl Sent {
    fn token(&self) -> u64 {
        match self {
            Self::Control { token, .. } | Self::Outcome { token, .. } => *token,
        }
    }
}

/// The shell of tests.
#[derive(Debug)]
struct Bench {
    core: Core,
    rules: Rules,
    now: Instant,
    journals: Vec<Journal>,
    wire: VecDeque<Sent>,
    effects: Vec<Effect>,
    /// What quarantine answers: `None` stored, `Some(full)` not.
    quarantine: Option<bool>,
    wake: Option<Instant>,
}

impl Bench {
    fn new(rules: Rules, journals: Vec<Journal>) -> Self {
        let now = Instant::now();
        let core = Core::new(rules, journals.iter().map(Journal::start).collect(), now);
        Self { core, rules, now, journals, wire: VecDeque::new(), effects: Vec::new(), quarantine: None, wake: None }
    }

    /// One critical feed with `records` records; connected.
    fn one(rules: Rules, records: usize) -> Self {
        let mut bench = Self::new(rules, vec![Journal::new("a", Lane::Critical, 0)]);
        bench.append(0, records);
        bench.up(100);
        bench
    }

    fn append(&mut self, feed: usize, records: usize) {
        (0..records).for_each(|_| self.journals[feed].append(1, 700));
        self.core.head(feed, self.journals[feed].head());
    }

    fn up(&mut self, window: usize) {
        self.core.up(window, true, self.now);
        self.run();
    }

    fn down(&mut self) {
        self.core.down();
        self.wire.clear();
    }

    /// What the shell does in a turn, until there is nothing to do; never forever.
    fn run(&mut self) {
        for _ in 0..200_000 {
            match self.core.next(self.now) {
                Next::Control { token, what } => self.wire.push_back(Sent::Control { token, what }),
                Next::Read { feed, after } => self.send(feed, after),
                Next::Wait(wake) => {
                    self.wake = wake;
                    return self.carry_out();
                }
            }
        }
        panic!("the core never waits");
    }

    fn send(&mut self, feed: usize, after: u64) {
        let Some(seen) = self.journals[feed].after(after) else { return self.core.read_failed(feed, self.now) };
        let Some(Offer { token, becomes }) = self.core.offer(feed, after, seen, self.now) else { return };
        if let Becomes::Exception { stored: false, .. } = becomes {
            if let Some(full) = self.quarantine {
                return self.core.quarantine_failed(feed, token, full, self.now);
            }
            self.core.quarantined(feed, seen.first);
        }
        self.wire.push_back(Sent::Outcome { token, feed, seen, becomes });
    }

    fn carry_out(&mut self) {
        loop {
            let effects = self.core.effects();
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                match &effect {
                    Effect::Settle { feed, mark, .. } => self.journals[*feed].settled = *mark,
                    Effect::LookUp { feed, receipt } => {
                        let found = self.journals[*feed].after(receipt.through_seq - 1);
                        self.core.looked_up(*feed, receipt, found, self.now);
                    }
                    _ => {}
                }
                self.effects.push(effect);
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.run();
    }

    fn ack(&mut self, token: u64, reason: AckReason) {
        self.wire.retain(|sent| sent.token() != token);
        self.core.acked(token, reason, self.now);
        self.run();
    }

    /// Answers everything on the wire with success, until nothing new comes.
    fn ack_all(&mut self) {
        while let Some(sent) = self.wire.front() {
            self.ack(sent.token(), AckReason::Success);
        }
    }

    /// Answers the control publishes that are on the wire; says how many.
    fn answer_controls(&mut self, reason: AckReason) -> usize {
        let controls: Vec<_> = self.wire.iter().filter(|s| matches!(s, Sent::Control { .. })).map(Sent::token).collect();
        for &token in &controls {
            self.ack(token, reason);
        }
        controls.len()
    }

    /// Lets `time` pass and sees that no outcome was published before its end.
    fn not_before(&mut self, time: Duration) {
        let tick = Duration::from_millis(1);
        self.pass(time.saturating_sub(tick));
        assert!(!self.wire.iter().any(|s| matches!(s, Sent::Outcome { .. })));
        self.pass(tick);
    }

    /// Token of the outcome of `feed` that begins at `seq`.
    fn token(&self, feed: usize, seq: u64) -> u64 {
        let found = self.wire.iter().find(|s| matches!(s, Sent::Outcome { feed: f, seen, .. } if *f == feed && seen.first == seq));
        found.expect("it is on the wire").token()
    }

    /// Answers one outcome.
    fn answer(&mut self, feed: usize, seq: u64, reason: AckReason) {
        self.ack(self.token(feed, seq), reason);
    }

    /// Firsts of a feed's outcomes on the wire, in order.
    fn outcomes(&self, feed: usize) -> Vec<u64> {
        let first = |s: &Sent| match s {
            Sent::Outcome { feed: f, seen, .. } if *f == feed => Some(seen.first),
            _ => None,
        };
        self.wire.iter().filter_map(first).collect()
    }

    fn checkpoints(&self) -> Vec<Checkpoint> {
        let checkpoint = |s: &Sent| match s {
            Sent::Control { what: Control::Checkpoint(checkpoint), .. } => Some(checkpoint.clone()),
            _ => None,
        };
        self.wire.iter().filter_map(checkpoint).collect()
    }

    /// An honest receipt.
    fn receipt_of(&self, feed: usize, through: u64, missing: &[(u64, u64)]) -> Receipt {
        let journal = &self.journals[feed];
        let (incarnation, chain) = if through == journal.base.seq {
            (journal.lineage[0].incarnation, journal.base.chain)
        } else {
            let seen = journal.at(through);
            (seen.incarnation, seen.chain)
        };
        Receipt { feed: journal.id.clone(), incarnation, through_seq: through, chain, missing: missing.to_vec(), time: None }
    }

    fn receive(&mut self, receipt: Receipt) {
        assert!(self.core.receipt(receipt, self.now));
        self.run();
    }

    fn receipt(&mut self, feed: usize, through: u64, missing: &[(u64, u64)]) {
        self.receive(self.receipt_of(feed, through, missing));
    }

    fn settled(&self, feed: usize) -> u64 {
        self.journals[feed].settled.seq
    }

    fn raised(&self, code: Code) -> bool {
        let last = self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Raise { code: c, .. } if *c == code => Some(true),
            Effect::Clear { code: c, .. } if *c == code => Some(false),
            _ => None,
        });
        last.unwrap_or(false)
    }
}
