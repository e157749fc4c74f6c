//! The receiver against a naive model: random histories of a gateway (restarts, restored images, quarantine, damage), delivered in any order
//! with losses, duplicates, conflicts and corrupt payloads, while this side is killed between and inside batches and loses what it may lose.
//!
//! Checked all the way: nothing acknowledged is lost, no line is written twice, nothing is confirmed that is not here, what is named missing is
//! exactly what is missing. At the end, when the gateway has sent again what was missing, everything is confirmed. The seed of a failure is
//! printed; `SITEWARD_HUB_SEEDS` sets how many are tried.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::desk::{Arrival, Desk};
use crate::contract::topic::Topics;
use crate::contract::{Checkpoint, Mark, Outcome, Receipt};
use crate::record::{Chain, Digest, Incarnation, Name, Nonce, Position, record_id};

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next() as u8)
    }
}

#[derive(Clone)]
struct Truth {
    nonce: Nonce,
    body: Vec<u8>,
    digest: Digest,
    chain: Chain,
    quarantined: bool,
    /// Damaged at the gateway: only the gap `first..=last` is told.
    gap: Option<(u64, u64)>,
}

struct Opening {
    incarnation: Incarnation,
    follows: Option<(usize, u64)>,
    records: BTreeMap<u64, Truth>,
    told: bool,
    /// The head told since the last crash: heads are not in the output.
    head: u64,
}

type Identity = (String, Chain);

struct World {
    random: Random,
    dir: PathBuf,
    desk: Option<Desk>,
    openings: Vec<Opening>,
    /// Index of the opening that appends now, and its head.
    now: usize,
    head: u64,
    settled: Mark,
    /// (opening, seq) accounted for and committed; identities of events that were acknowledged.
    received: BTreeSet<(usize, u64)>,
    acknowledged: BTreeSet<Identity>,
    batch_received: Vec<(usize, u64)>,
    batch_events: Vec<Identity>,
    batch_told: Vec<usize>,
    strangers: bool,
    /// Whose checkpoint came last in this batch.
    asked: usize,
    receipts: Vec<Receipt>,
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn topics() -> Topics {
    Topics::new(&name("site"), &name("gw"))
}

impl World {
    fn new(seed: u64, dir: &Path) -> Self {
        let mut world = Self {
            random: Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            dir: dir.to_owned(),
            desk: Some(Desk::open(&dir.join("out")).unwrap()),
            openings: Vec::new(),
            now: 0,
            head: 0,
            settled: Mark { seq: 0, chain: Chain::GENESIS },
            received: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            batch_received: Vec::new(),
            batch_events: Vec::new(),
            batch_told: Vec::new(),
            strangers: false,
            asked: 0,
            receipts: Vec::new(),
        };
        world.reopen(None);
        world
    }

    fn desk(&mut self) -> &mut Desk {
        self.desk.as_mut().unwrap()
    }

    fn reopen(&mut self, follows: Option<(usize, u64)>) {
        let incarnation = Incarnation(self.random.bytes());
        self.openings.push(Opening { incarnation, follows, records: BTreeMap::new(), told: false, head: 0 });
        self.now = self.openings.len() - 1;
        self.head = follows.map_or(0, |(_, seq)| seq);
    }

    /// The opening that made `seq` on the line of `opening`.
    fn owner(&self, opening: usize, seq: u64) -> usize {
        match self.openings[opening].follows {
            Some((parent, base)) if seq <= base => self.owner(parent, seq),
            _ => opening,
        }
    }

    fn chain_at(&self, opening: usize, seq: u64) -> Chain {
        if seq == 0 { Chain::GENESIS } else { self.openings[self.owner(opening, seq)].records[&seq].chain }
    }

    fn position(&self, opening: usize, seq: u64) -> Position {
        let owner = if seq == 0 { opening } else { self.owner(opening, seq) };
        Position { incarnation: self.openings[owner].incarnation, seq, chain: self.chain_at(opening, seq) }
    }

    fn append(&mut self) {
        let (nonce, body) = (Nonce(self.random.bytes()), self.random.bytes::<6>().to_vec());
        let digest = Digest::of(&nonce, &body);
        let chain = self.chain_at(self.now, self.head).after(self.head + 1, &digest);
        self.head += 1;
        let quarantined = self.random.chance(5);
        let truth = Truth { nonce, body, digest, chain, quarantined, gap: None };
        self.openings[self.now].records.insert(self.head, truth);
    }

    fn restart(&mut self) {
        let follows = (self.head > 0).then(|| (self.owner(self.now, self.head), self.head));
        self.reopen(follows);
    }

    /// An older image of the disk is put back.
    fn restore(&mut self) {
        if self.head > 1 {
            let seq = 1 + self.random.below(self.head as usize - 1) as u64;
            let owner = self.owner(self.now, seq);
            if self.settled.seq > seq {
                self.settled = Mark { seq: 0, chain: Chain::GENESIS };
            }
            self.reopen(Some((owner, seq)));
        }
    }

    fn damage(&mut self) {
        let at = self.random.below(self.openings.len());
        let seqs: Vec<u64> = self.openings[at].records.keys().copied().collect();
        if seqs.is_empty() {
            return;
        }
        let first = seqs[self.random.below(seqs.len())];
        let last = (first + self.random.below(4) as u64).min(*seqs.last().unwrap());
        let range = self.openings[at].records.range(first..=last);
        if range.clone().all(|(_, truth)| truth.gap.is_none()) {
            for seq in first..=last {
                self.openings[at].records.get_mut(&seq).unwrap().gap = Some((first, last));
            }
        }
    }

    fn event(&self, at: usize, seq: u64, truth: &Truth, body: &[u8]) -> Arrival {
        let id = format!("{}/raw", record_id(&name("gw"), &name("feed"), self.openings[at].incarnation, seq));
        let mut arrival = Arrival::new(&topics().event(&name("feed")), body.to_vec());
        arrival.attributes = [
            ("id", id),
            ("incarnation", self.openings[at].incarnation.to_string()),
            ("sequence", seq.to_string()),
            ("chain", truth.chain.to_string()),
            ("recorddigest", truth.digest.to_string()),
            ("nonce", truth.nonce.to_string()),
            ("itemindex", "0".into()),
            ("itemcount", "1".into()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
        arrival
    }

    fn deliver(&mut self, at: usize, seq: u64) {
        let Some(truth) = self.openings[at].records.get(&seq).cloned() else { return };
        let incarnation = self.openings[at].incarnation;
        let outcome = topics().outcome(&name("feed"));
        let arrival = if let Some((first, last)) = truth.gap {
            let gap = Outcome::Gap { incarnation, first, last, chain: self.chain_at(at, last), reason: "damaged".into() };
            self.batch_received.extend((first..=last).map(|seq| (at, seq)));
            Arrival::new(&outcome, serde_json::to_vec(&gap).unwrap())
        } else if truth.quarantined && self.random.chance(70) {
            let Truth { digest, chain, .. } = truth;
            self.batch_received.push((at, seq));
            let exception = Outcome::Exception { incarnation, seq, digest, chain, reason: "oversize".into() };
            Arrival::new(&outcome, serde_json::to_vec(&exception).unwrap())
        } else {
            self.batch_received.push((at, seq));
            let event = self.event(at, seq, &truth, &truth.body);
            self.batch_events.push((event.attributes[0].1.clone(), truth.chain));
            event
        };
        self.desk().take(&arrival).unwrap();
    }

    /// An event that claims a seq with something else, or a payload that is not what it claims.
    fn deliver_stranger(&mut self) {
        let (at, seq) = self.any_seq();
        let Some(mut truth) = self.openings[at].records.get(&seq).cloned() else { return };
        if self.random.chance(50) {
            let corrupt = self.event(at, seq, &truth, b"something else");
            self.desk().take(&corrupt).unwrap();
            return;
        }
        self.strangers = true;
        truth.body = b"stranger".to_vec();
        truth.digest = Digest::of(&truth.nonce, &truth.body);
        truth.chain = Chain(self.random.bytes());
        let event = self.event(at, seq, &truth, &truth.body);
        self.batch_events.push((event.attributes[0].1.clone(), truth.chain));
        self.desk().take(&event).unwrap();
    }

    fn any_seq(&mut self) -> (usize, u64) {
        let at = self.random.below(self.openings.len());
        let records = &self.openings[at].records;
        let base = self.openings[at].follows.map_or(0, |(_, seq)| seq);
        (at, base + 1 + self.random.below(records.len()) as u64)
    }

    fn open(&mut self, at: usize) {
        let Opening { incarnation, follows, .. } = self.openings[at];
        let follows = follows.map(|(parent, seq)| self.position(parent, seq));
        let open = Checkpoint::Open { feed: name("feed"), incarnation, follows, settled: self.settled };
        self.desk().take(&Arrival::new(&topics().checkpoint(), serde_json::to_vec(&open).unwrap())).unwrap();
        self.batch_told.push(at);
        self.asked = at;
    }

    fn checkpoint(&mut self) {
        let (chain, at) = (self.chain_at(self.now, self.head), self.now);
        let Opening { incarnation, ref records, .. } = self.openings[at];
        let count = records.len() as u64;
        self.asked = at;
        let head = Checkpoint::Head { feed: name("feed"), incarnation, seq: self.head, chain, count, settled: self.settled };
        self.openings[at].head = self.head;
        self.desk().take(&Arrival::new(&topics().checkpoint(), serde_json::to_vec(&head).unwrap())).unwrap();
    }

    fn commit(&mut self) {
        let committed = self.desk().commit().unwrap();
        self.received.extend(self.batch_received.drain(..));
        self.acknowledged.extend(self.batch_events.drain(..));
        self.tell();
        for (topic, receipt) in committed.receipts {
            assert_eq!(topic, topics().receipt());
            self.check(&receipt);
            self.receipts.push(receipt);
        }
        if self.random.chance(10) {
            self.desk().save();
            if self.random.chance(50) {
                self.copy("kept");
            }
        }
    }

    /// The openings on the line of `at`, newest first.
    fn line(&self, at: usize) -> Vec<usize> {
        std::iter::successors(Some(at), |at| self.openings[*at].follows.map(|(parent, _)| parent)).collect()
    }

    /// Those of which the gateway sends an open checkpoint: with unsettled records on its line, and the newest.
    fn unsettled(&self) -> Vec<usize> {
        let line = self.line(self.now);
        let older = line.iter().filter_map(|at| self.openings[*at].follows).take_while(|(_, end)| *end > self.settled.seq);
        std::iter::once(self.now).chain(older.map(|(parent, _)| parent)).collect()
    }

    /// What a receipt says against what is known to be here.
    fn check(&mut self, receipt: &Receipt) {
        let at = self.asked;
        let base = self.openings[at].follows.map_or(0, |(_, seq)| seq);
        let (end, to) = (self.openings[at].records.keys().last().copied().unwrap_or(base), self.openings[at].head.max(base));
        let here = |seq: u64| self.received.contains(&(self.owner(at, seq), seq));
        let through = (1..=end).take_while(|seq| here(*seq)).last().unwrap_or(0);
        assert!(receipt.through_seq <= through, "confirmed {} where only {through} is here", receipt.through_seq);
        assert_eq!(receipt.chain, self.chain_at(at, receipt.through_seq));
        let told = self.line(at).iter().all(|at| self.openings[*at].told);
        if receipt.through_seq > 0 && told {
            assert_eq!(receipt.incarnation, self.position(at, receipt.through_seq).incarnation);
        }
        if told && !self.strangers {
            assert_eq!(receipt.through_seq, through);
            let missing: BTreeSet<u64> = (through + 1..=end.max(to)).filter(|seq| !here(*seq)).collect();
            let named: BTreeSet<u64> = receipt.missing.iter().flat_map(|(first, last)| *first..=*last).collect();
            assert!(named.is_subset(&missing), "{named:?} of {missing:?}");
            assert_eq!(named.range(..=to).count(), missing.range(..=to).count(), "{named:?} of {missing:?} to {to}");
        }
        if at == self.now && self.random.chance(30) {
            self.settled = Mark { seq: receipt.through_seq, chain: receipt.chain };
        }
    }

    fn tell(&mut self) {
        for at in self.batch_told.drain(..) {
            self.openings[at].told = true;
        }
    }

    fn copy(&self, to: &str) {
        let to = self.dir.join(to);
        let _ = std::fs::remove_dir_all(&to);
        std::fs::create_dir(&to).unwrap();
        std::fs::copy(self.dir.join("out.ledger"), to.join("ledger")).unwrap();
        for file in std::fs::read_dir(self.dir.join("out.index")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }

    /// kill -9, or the power: what was not committed is gone, in whole or up to any byte; what is beside the output may be old or gone.
    fn crash(&mut self) {
        let staged = std::mem::take(&mut self.desk().staged);
        self.desk = None;
        let out = self.dir.join("out");
        let mut bytes = std::fs::read(&out).unwrap();
        if self.random.chance(30) {
            // All of the batch was written, nobody was answered: it counts.
            bytes.extend_from_slice(&staged);
            self.received.extend(self.batch_received.drain(..));
            self.acknowledged.extend(self.batch_events.drain(..));
            self.tell();
        } else if !staged.is_empty() {
            let first_line = staged.iter().position(|b| *b == b'\n').unwrap();
            bytes.extend_from_slice(&staged[..self.random.below(first_line + 1)]);
        }
        self.batch_received.clear();
        self.batch_events.clear();
        self.batch_told.clear();
        self.openings.iter_mut().for_each(|opening| opening.head = 0);
        std::fs::write(&out, bytes).unwrap();
        let kept = self.dir.join("kept");
        match self.random.below(6) {
            0 => std::fs::remove_file(self.dir.join("out.ledger")).unwrap_or(()),
            1 => std::fs::remove_dir_all(self.dir.join("out.index")).unwrap(),
            2 => std::fs::write(self.dir.join("out.ledger"), self.random.bytes::<40>()).unwrap(),
            3 if kept.exists() && std::fs::read(kept.join("id")).ok() == std::fs::read(self.dir.join("out.index/id")).ok() => {
                std::fs::copy(kept.join("ledger"), self.dir.join("out.ledger")).unwrap();
                for file in std::fs::read_dir(&kept).unwrap().map(Result::unwrap).filter(|f| f.file_name() != "ledger") {
                    std::fs::copy(file.path(), self.dir.join("out.index").join(file.file_name())).unwrap();
                }
            }
            _ => {}
        }
        self.desk = Some(Desk::open(&out).unwrap());
        self.check_output();
    }

    fn check_output(&self) {
        let mut seen = BTreeSet::new();
        for line in std::fs::read_to_string(self.dir.join("out")).unwrap().lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            if line["kind"] == "event" || (line["kind"] == "conflict" && line["id"].is_string()) {
                let identity = (line["id"].as_str().unwrap().to_owned(), line["chain"].as_str().unwrap().parse().unwrap());
                assert!(seen.insert(identity), "written twice: {line}");
            }
        }
        for identity in &self.acknowledged {
            assert!(seen.contains(identity), "acknowledged and lost: {}", identity.0);
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..30 => (0..=self.random.below(5)).for_each(|_| self.append()),
            30..34 => self.restart(),
            34..36 => self.restore(),
            36..38 => self.damage(),
            38..75 => {
                let (at, first) = self.any_seq();
                let last = first + self.random.below(6) as u64;
                (first..=last).for_each(|seq| self.deliver(at, seq));
            }
            75..80 => {
                let line = self.unsettled();
                let at = line[self.random.below(line.len())];
                self.open(at);
            }
            80..83 => self.deliver_stranger(),
            83..90 => {
                self.checkpoint();
                self.commit();
            }
            90..96 => self.commit(),
            _ => self.crash(),
        }
    }

    /// The gateway comes back and sends what is missing until nothing is.
    fn finish(&mut self) {
        for round in 0..40 {
            self.unsettled().iter().rev().for_each(|at| self.open(*at));
            self.commit();
            self.checkpoint();
            self.commit();
            let receipt = self.receipts.last().unwrap().clone();
            if receipt.through_seq == self.head && round > 1 {
                assert_eq!(receipt.missing, []);
                return self.check_output();
            }
            for seq in receipt.through_seq + 1..=self.head {
                let at = self.owner(self.now, seq);
                self.deliver(at, seq);
            }
            self.commit();
        }
        panic!("never confirmed: {:?} of {}", self.receipts.last(), self.head);
    }
}

/// I3, I8, I9: see the module.
#[test]
fn whatever_the_order_and_whatever_is_lost_the_account_says_the_truth() {
    let seeds = std::env::var("SITEWARD_HUB_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    for seed in 1..=seeds {
        let outcome = std::panic::catch_unwind(|| {
            // Memory, where there is any: what a disk forgets is played, not awaited.
            let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
            let mut world = World::new(seed, dir.path());
            for _ in 0..120 {
                world.step();
            }
            world.commit();
            world.finish();
        });
        if let Err(panic) = outcome {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
