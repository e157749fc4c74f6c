//! The model: a core, a broker and a hub, random faults, virtual time. The seed is printed; `SITEWARD_SEED` repeats one run,
//! `SITEWARD_RUNS` asks for more.
//!
//! ```text
//!   Bench.wire ──broker──► inbox ──hub──► held (first arrivals) ──► receipts ──► core
//!      ▲  acks, late or never │ lost when the broker loses its memory    late, lost, repeated, out of date
//! ```
//!
//! Checked all the time: I2 (a mark never passes what the hub holds, or what the broker took where the promise ends there), I3 (first arrivals
//! in order unless the broker refused something), I4 (window, lane part and unconfirmed records bounded), and that nothing of a feed is
//! published before its lineage. Checked at the end, when faults stop: everything durable arrives and is settled, within bounded time.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::limits::UNCONFIRMED_PER_FEED;

const FEEDS: usize = 4;

/// splitmix64
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// The hub's account of one feed.
#[derive(Debug, Default)]
struct Account {
    start: Option<Mark>,
    /// First arrivals: first seq → what came.
    held: BTreeMap<u64, Seen>,
    /// Incarnations whose beginning it was told; of others it confirms nothing.
    told: Vec<Incarnation>,
    order: Vec<u64>,
    head: u64,
}

impl Account {
    fn take(&mut self, seen: Seen) {
        let before = self.held.insert(seen.first, seen);
        if before.is_none() {
            self.order.push(seen.first);
        }
    }

    /// What the account is complete through: seq, chain and incarnation.
    fn through(&self) -> Option<(Mark, Option<Incarnation>)> {
        let mut at = (self.start?, None);
        while let Some(seen) = self.held.get(&(at.0.seq + 1)).filter(|seen| self.told.contains(&seen.incarnation)) {
            at = (Mark { seq: seen.last, chain: seen.chain }, Some(seen.incarnation));
        }
        Some(at)
    }

    fn receipt(&self, journal: &Journal) -> Option<Receipt> {
        let (Mark { seq, chain }, incarnation) = self.through()?;
        let (mut missing, mut next) = (Vec::new(), seq + 1);
        for seen in self.held.range(next..).map(|(_, seen)| seen).filter(|seen| seen.first <= self.head) {
            if seen.first > next {
                missing.push((next, seen.first - 1));
            }
            next = seen.last + 1;
        }
        if next <= self.head {
            missing.push((next, self.head));
        }
        let incarnation = incarnation.unwrap_or(journal.lineage[0].incarnation);
        Some(Receipt { feed: journal.id.clone(), incarnation, through_seq: seq, chain, missing, time: None })
    }
}

/// What goes wrong in a run, in percent.
#[derive(Debug)]
struct Faults {
    refusals: u64,
    connection: u64,
    amnesia: u64,
    /// The broker acknowledged something and loses it on its way to the hub, silently.
    loss: u64,
    receipts: u64,
    restarts: u64,
    disk: u64,
}

#[derive(Debug)]
struct World {
    bench: Bench,
    random: Random,
    faults: Faults,
    window: usize,
    /// The broker took these and their answers are on the way.
    answers: VecDeque<(u64, AckReason)>,
    inbox: VecDeque<Sent>,
    hub: Vec<Account>,
    /// Seqs the broker took, of each feed.
    taken: Vec<BTreeSet<u64>>,
    receipts: Vec<Receipt>,
    /// The broker refused or lost something of the feed, so its first arrivals may be out of order.
    refused: [bool; FEEDS],
    opened: [bool; FEEDS],
    /// The broker never takes some of the records.
    too_large: bool,
    seed: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let lanes = [Lane::Critical, Lane::Normal, Lane::Bulk, Lane::Critical];
        let base = [0, 0, u64::MAX / 2, 7][random.below(4) as usize];
        let journals = lanes.iter().enumerate().map(|(i, lane)| Journal::new(&format!("feed-{i}"), *lane, base)).collect();
        let rules = if random.chance(75) { RULES } else { PUBACK };
        let mut some = |percent| if random.chance(50) { random.below(percent) } else { 0 };
        let faults = Faults {
            refusals: some(10),
            connection: some(4),
            amnesia: if rules.confirm == Confirm::Receipt { some(50) } else { 0 },
            loss: if rules.confirm == Confirm::Receipt { some(5) } else { 0 },
            receipts: some(60),
            restarts: some(2),
            disk: some(5),
        };
        let window = 1 + random.below(40) as usize;
        let too_large = random.chance(30);
        Self {
            bench: Bench::new(rules, journals),
            random,
            faults,
            window,
            answers: VecDeque::new(),
            inbox: VecDeque::new(),
            hub: (0..FEEDS).map(|_| Account::default()).collect(),
            taken: vec![BTreeSet::new(); FEEDS],
            receipts: Vec::new(),
            refused: [false; FEEDS],
            opened: [false; FEEDS],
            too_large,
            seed,
        }
    }

    /// Runs the core and looks at what it did.
    fn work(&mut self) {
        let (known, effects) = (self.bench.wire.len(), self.bench.effects.len());
        self.bench.run();
        for sent in self.bench.wire.iter().skip(known) {
            match sent {
                Sent::Control { what: Control::Checkpoint(Checkpoint::Open { feed, incarnation, .. }), .. } => {
                    let index = self.bench.core.feed_named(feed).unwrap();
                    let newest = self.bench.journals[index].lineage.last().unwrap().incarnation;
                    self.opened[index] |= *incarnation == newest;
                }
                Sent::Outcome { feed, .. } => assert!(self.opened[*feed], "seed {}: an outcome before its lineage", self.seed),
                Sent::Control { .. } => {}
            }
        }
        self.check_bounds();
        for at in effects..self.bench.effects.len() {
            if let Effect::Settle { feed, mark, .. } = self.bench.effects[at] {
                self.check_settled(feed, mark);
            }
        }
        self.bench.effects.clear();
    }

    /// I4
    fn check_bounds(&self) {
        let seed = self.seed;
        let outcomes = |lane: Option<Lane>| {
            let of = |f: usize| lane.is_none_or(|lane| self.bench.journals[f].lane == lane);
            self.bench.wire.iter().filter(|s| matches!(s, Sent::Outcome { feed, .. } if of(*feed))).count()
        };
        let in_flight = self.bench.wire.len() + self.answers.len();
        assert!(in_flight <= self.window, "seed {seed}: {in_flight} in flight in a window of {}", self.window);
        let part = (self.window * 3 / 4).max(1);
        for lane in [Lane::Normal, Lane::Bulk] {
            assert!(outcomes(Some(lane)) <= part, "seed {seed}: {lane} holds more than its part");
        }
        assert!(self.bench.core.feeds.iter().all(|feed| feed.unconfirmed() <= UNCONFIRMED_PER_FEED));
    }

    /// I2
    fn check_settled(&self, feed: usize, mark: Mark) {
        let (seed, journal) = (self.seed, &self.bench.journals[feed]);
        assert_eq!(journal.at(mark.seq).chain, mark.chain, "seed {seed}: a mark with a foreign chain");
        if self.bench.rules.confirm == Confirm::Receipt {
            let through = self.hub[feed].through().expect("an account").0;
            assert!(mark.seq <= through.seq, "seed {seed}: settled {} but the hub has {}", mark.seq, through.seq);
        } else {
            let not_taken = journal.items.iter().find(|s| s.last <= mark.seq && !self.taken[feed].contains(&s.first));
            assert!(not_taken.is_none(), "seed {seed}: settled {} without the broker's word", mark.seq);
        }
    }

    // ---- the world's turn ----

    fn broker_takes(&mut self) {
        let Some(sent) = self.bench.wire.pop_front() else { return };
        let reason = self.broker_says(&sent);
        let success = matches!(reason, AckReason::Success);
        if let Sent::Outcome { feed, seen, .. } = &sent {
            if success {
                self.taken[*feed].insert(seen.first);
            } else {
                self.refused[*feed] = true;
            }
        }
        self.answers.push_back((sent.token(), reason));
        if success {
            self.inbox.push_back(sent);
        }
    }

    fn broker_says(&mut self, sent: &Sent) -> AckReason {
        if let Sent::Outcome { seen, becomes: Becomes::Event, .. } = sent
            && self.too_large
            && seen.first.is_multiple_of(37)
        {
            return AckReason::PacketTooLarge; // for ever: that record cannot go
        }
        if !self.random.chance(self.faults.refusals) {
            return AckReason::Success;
        }
        let reasons = [
            AckReason::NotAuthorized,
            AckReason::QuotaExceeded,
            AckReason::Other(0x83),
            AckReason::NoMatchingSubscribers,
            AckReason::PayloadFormatInvalid,
        ];
        reasons[self.random.below(5) as usize]
    }

    fn hub_works(&mut self) {
        if self.random.chance(self.faults.loss) && self.inbox.pop_front().is_some() {
            self.refused[0] = true;
        }
        match self.inbox.pop_front() {
            Some(Sent::Outcome { feed, seen, .. }) => self.hub[feed].take(seen),
            Some(Sent::Control { what: Control::Checkpoint(checkpoint), .. }) => {
                let feed = self.bench.core.feed_named(checkpoint.feed()).unwrap();
                let account = &mut self.hub[feed];
                let (Checkpoint::Open { settled, .. } | Checkpoint::Head { settled, .. }) = checkpoint;
                account.start.get_or_insert(settled);
                if let Checkpoint::Open { incarnation, .. } = checkpoint {
                    account.told.push(incarnation);
                }
                if let Checkpoint::Head { seq, .. } = checkpoint {
                    account.head = account.head.max(seq);
                    self.receipts.extend(self.hub[feed].receipt(&self.bench.journals[feed]));
                }
            }
            _ => {}
        }
    }

    fn a_receipt_arrives(&mut self) {
        if self.receipts.is_empty() {
            return;
        }
        let trouble = self.random.chance(self.faults.receipts);
        let at = if trouble { self.random.below(self.receipts.len() as u64) as usize } else { 0 };
        let receipt = if trouble && self.random.chance(30) { self.receipts[at].clone() } else { self.receipts.remove(at) };
        let lost = trouble && self.random.chance(30);
        if self.bench.core.is_up() && !lost {
            assert!(self.bench.core.receipt(receipt, self.bench.now));
        }
    }

    fn connection_ends(&mut self) {
        // Some of what was on the way arrived, and no answer will ever come.
        for _ in 0..self.random.below(self.bench.wire.len() as u64 + 1) {
            self.broker_takes();
        }
        self.answers.clear();
        self.bench.down();
        self.opened = [false; FEEDS];
    }

    fn connects(&mut self) {
        let session = !self.random.chance(self.faults.amnesia);
        if !session {
            self.inbox.clear();
        }
        self.window = 1 + self.random.below(40) as usize;
        self.bench.core.up(self.window, session, self.bench.now);
    }

    /// The agent is killed: only what is durable remains, and a new incarnation begins.
    fn restart(&mut self) {
        self.connection_ends();
        let renewed = self.bench.journals[0].lineage.len() as u8 + 1;
        let start = self.bench.now;
        for journal in &mut self.bench.journals {
            journal.renew(renewed);
        }
        self.bench.core = Core::new(self.bench.rules, self.bench.journals.iter().map(Journal::start).collect(), start);
    }

    fn step(&mut self) {
        let feed = self.random.below(FEEDS as u64) as usize;
        match self.random.below(100) {
            0..20 => {
                let (span, bytes) = if self.random.chance(3) { (1 + self.random.below(20), 0) } else { (1, 700) };
                self.bench.journals[feed].append(span, bytes);
                self.bench.core.head(feed, self.bench.journals[feed].head());
            }
            20..45 => self.broker_takes(),
            45..65 => {
                if let Some((token, reason)) = self.answers.pop_front() {
                    self.bench.core.acked(token, reason, self.bench.now);
                }
            }
            65..85 => self.hub_works(),
            85..92 => self.a_receipt_arrives(),
            92..97 => self.bench.now += Duration::from_millis(1 << self.random.below(12)),
            _ if !self.bench.core.is_up() => self.connects(),
            _ if self.random.chance(self.faults.connection * 10) => self.connection_ends(),
            _ if self.random.chance(self.faults.restarts) && self.bench.journals[0].lineage.len() < 60 => self.restart(),
            _ if self.random.chance(self.faults.disk) => self.bench.core.read_failed(feed, self.bench.now),
            _ => self.bench.quarantine = self.random.chance(self.faults.disk).then(|| self.random.chance(50)),
        }
        self.work();
    }

    /// Faults are over: everything arrives and settles, and time does not run for ever.
    fn heal(&mut self) {
        self.faults = Faults { refusals: 0, connection: 0, amnesia: 0, loss: 0, receipts: 0, restarts: 0, disk: 0 };
        self.bench.quarantine = None;
        if !self.bench.core.is_up() {
            self.connects();
        }
        let end = self.bench.now + Duration::from_hours(1);
        while self.bench.journals.iter().any(|j| j.settled.seq < j.head().seq) {
            assert!(self.bench.now < end, "seed {}: stalled: {:#?}", self.seed, self.bench.core.feeds);
            self.work();
            while !self.bench.wire.is_empty() || !self.answers.is_empty() || !self.inbox.is_empty() || !self.receipts.is_empty() {
                self.broker_takes();
                if let Some((token, reason)) = self.answers.pop_front() {
                    self.bench.core.acked(token, reason, self.bench.now);
                }
                self.hub_works();
                self.a_receipt_arrives();
                self.work();
            }
            let next = self.bench.wake.unwrap_or(self.bench.now);
            self.bench.now = next.max(self.bench.now + Duration::from_millis(10));
        }
    }

    /// I3
    fn check_end(&self) {
        for (feed, journal) in self.bench.journals.iter().enumerate() {
            let (seed, account) = (self.seed, &self.hub[feed]);
            if self.bench.rules.confirm == Confirm::Receipt {
                let held: Vec<_> = account.held.values().map(|s| (s.first, s.last, s.chain)).collect();
                let sent: Vec<_> = journal.items.iter().map(|s| (s.first, s.last, s.chain)).collect();
                assert_eq!(held, sent, "seed {seed}: {} arrived with exactly one outcome each", journal.id);
            }
            if !self.refused.contains(&true) {
                assert!(account.order.is_sorted(), "seed {seed}: {} arrived out of order: {:?}", journal.id, account.order);
            }
        }
    }
}

fn run(seed: u64) -> (usize, bool) {
    let mut world = World::new(seed);
    let steps = 500 + world.random.below(4_000);
    for _ in 0..steps {
        world.step();
    }
    world.heal();
    world.check_end();
    (world.bench.journals.iter().map(|j| j.items.len()).sum(), world.refused.contains(&true))
}

/// I2, I3, I4
#[test]
fn whatever_goes_wrong_everything_arrives_and_nothing_settles_early() {
    let asked = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = asked("SITEWARD_SEED") {
        run(seed);
        return;
    }
    let first = Random(crate::clock::now().unix_ms.unsigned_abs()).next();
    let runs = asked("SITEWARD_RUNS").unwrap_or(300);
    println!("seeds {first} to {}", first.wrapping_add(runs - 1));
    let (mut outcomes, mut refused) = (0, 0);
    for n in 0..runs {
        let seed = first.wrapping_add(n);
        let result = std::panic::catch_unwind(|| run(seed));
        let (count, refusals) = result.unwrap_or_else(|_| panic!("repeat this run with SITEWARD_SEED={seed}"));
        outcomes += count;
        refused += usize::from(refusals);
    }
    println!("{runs} runs, {outcomes} outcomes, {refused} runs with refusals or losses");
}
