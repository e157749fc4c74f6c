//! The rollout under the same model: random documents, evidence, WAN, operators and commands, on a disk that fails, fills up and forgets, with an end
//! at any operation and between any two actions.
//!
//! The model knows what each document is worth (it makes the evidence), so it can say of every ledger that is to be written whether the step is one
//! that may be taken. After an end the rollout must stand on the last ledger that was durable, or on one that was being written.

use harness::sim::{Errno, Op, Rng, SimDisk};
use siteward::limits::ROLLOUT_RETRIES_MAX;
use siteward::record::{DocumentDigest, FeedId};
use siteward::rollout::facts::UplinkEvidence;
use siteward::rollout::ledger::Ledger;
use siteward::rollout::machine::RunState;
use siteward::rollout::{
    Action, ConfirmBy, Evidence, Facts, FeedFault, Found, Generation, Input, Machine, Memory, Meta, Now, Offer, Stamp, Store, Stored,
    Verdict,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use super::Check;

#[path = "rollout_rules.rs"]
mod rules;

pub(super) const ROOT: &str = "/var/lib/siteward";
pub(super) const TRIAL_MS: u64 = 60_000;

/// What a document is worth; the rollout has to find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worth {
    Good,
    PortTaken,
    NobodyReturns,
    DeadEndpoint,
}

#[derive(Clone, Debug)]
pub(super) struct Document {
    pub(super) offer: Offer,
    pub(super) envelope: Vec<u8>,
    worth: Worth,
}

/// What the model saw of the trial that is on.
#[derive(Debug, Default)]
struct Shadow {
    started: u64,
    last: Option<Evidence>,
    acked: bool,
    acked_by_added: bool,
}

pub(super) struct World {
    rng: Rng,
    disk: SimDisk,
    faults: u64,
    ms: u64,
    pub(super) wan_up: bool,
    machine: Option<(Machine, Store)>,
    documents: Vec<Document>,
    /// What the gateway does now.
    applied: Generation,
    /// The last ledger that was durable, and those whose writing ended who knows how.
    durable: Option<Ledger>,
    perhaps: Vec<Ledger>,
    proven: BTreeSet<u64>,
    tries: BTreeMap<DocumentDigest, u32>,
    stopped_in_trial: BTreeSet<DocumentDigest>,
    commands: BTreeSet<u64>,
    shadow: Shadow,
    last_idle: Option<UplinkEvidence>,
    commits: u64,
    log: VecDeque<String>,
}

fn require(holds: bool, what: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(what()) }
}

fn config(name: &str) -> PathBuf {
    Path::new(ROOT).join("config").join(name)
}

fn facts_of(ledger: &Ledger) -> Option<&Facts> {
    ledger.candidate.as_ref().map(|candidate| &candidate.facts)
}

impl World {
    pub(super) fn new(seed: u64, faults: u64) -> Self {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::new(rng.draw(), Path::new(ROOT));
        Self {
            rng,
            disk,
            faults,
            ms: 0,
            wan_up: true,
            machine: None,
            documents: Vec::new(),
            applied: Generation::Bootstrap,
            durable: None,
            perhaps: Vec::new(),
            proven: BTreeSet::from([0]),
            tries: BTreeMap::new(),
            stopped_in_trial: BTreeSet::new(),
            commands: BTreeSet::new(),
            shadow: Shadow::default(),
            last_idle: None,
            commits: 0,
            log: VecDeque::new(),
        }
    }

    fn note(&mut self, line: String) {
        self.log.push_back(line);
        if self.log.len() > 60 {
            self.log.pop_front();
        }
    }

    fn now(&mut self) -> Now {
        let suspect = self.rng.percent(20);
        Now { mono_ms: self.ms, wall: Stamp { unix_ms: self.rng.draw().cast_signed() >> 20, suspect } }
    }

    fn ledger(&self) -> &Ledger {
        self.machine.as_ref().expect("running").0.ledger()
    }

    // ---- a process ----

    fn boot(&mut self) -> Check {
        self.ms = self.rng.below(1000); // the steady clock begins anew
        let Ok((store, stored)) = Store::open(self.disk.handle(), Path::new(ROOT)) else { return Ok(()) };
        let Stored { ledger, is_damaged, proven, unproven } = stored;
        let visible: Vec<&Ledger> = self.durable.iter().chain(&self.perhaps).collect();
        let found = if let Some(ledger) = ledger {
            require(visible.contains(&&ledger), || format!("the ledger that was found was never written: {ledger:?}"))?;
            Found::Ledger(Box::new(ledger))
        } else {
            require(self.durable.is_none(), || format!("a durable ledger is gone; {proven:?} {unproven:?}"))?;
            require(!is_damaged || proven.is_empty(), || "a proven document before the first ledger".to_owned())?;
            Found::Nothing
        };
        let now = self.now();
        let (machine, actions) = Machine::boot(found, now);
        let committed = machine.committed().0.clone();
        self.note(format!("boot on {} ({:?})", committed.revision(), machine.run_state()));
        require(self.proven.contains(&committed.revision()), || format!("runs {} which was never committed", committed.revision()))?;
        require(matches!(machine.run_state(), RunState::Local | RunState::Committed | RunState::CommittedLocal), || {
            "a trial at a start".into()
        })?;
        require(facts_of(machine.ledger()).is_none(), || "a trial that goes on after a stop".to_owned())?;
        if let Some(facts) = committed.facts() {
            let kept = store.envelope(facts.digest).map_err(|error| format!("the committed document: {error}"))?;
            let known = self.documents.iter().find(|d| d.offer.facts.digest == facts.digest).expect("a document of ours");
            require(kept == known.envelope, || "the committed document has other bytes".to_owned())?;
        }
        self.applied = committed;
        self.last_idle = None;
        self.machine = Some((machine, store));
        self.execute(actions, None)
    }

    /// The process ends, one way or the other.
    fn end(&mut self) -> Check {
        require(self.disk.violations().is_empty(), || format!("{:?}", self.disk.violations()))?;
        if let Some((machine, _)) = self.machine.take()
            && let Some(facts) = facts_of(machine.ledger())
        {
            self.stopped_in_trial.insert(facts.digest);
        }
        let killed = !self.disk.is_frozen() && self.rng.percent(40);
        self.note(if killed { "killed".into() } else { "power cut".into() });
        self.disk = if killed { self.disk.kill() } else { self.disk.power_cut() };
        Ok(())
    }

    /// Executes what the machine asks for; the end may come before any of it.
    fn execute(&mut self, actions: Vec<Action>, envelope: Option<&[u8]>) -> Check {
        let mut todo = VecDeque::from(actions);
        for _ in 0..100 {
            let Some(action) = todo.pop_front() else { return Ok(()) };
            if self.disk.is_frozen() || self.rng.percent(3) {
                return self.end();
            }
            match action {
                Action::Persist { ledger, keep } => {
                    self.may_be_written(&ledger)?;
                    let now = self.now();
                    let (machine, store) = self.machine.as_mut().expect("running");
                    let saved = store.save(&ledger, keep.map(|digest| (digest, envelope))).map_err(|error| error.to_string());
                    let next = machine.step(now, Input::Persisted(saved.clone()));
                    self.note(format!("ledger {saved:?}"));
                    if saved.is_ok() {
                        if !self.disk.is_frozen() {
                            self.is_kept(&ledger)?;
                        }
                        self.durable = Some(*ledger);
                        self.perhaps.clear();
                    } else {
                        self.perhaps.push(*ledger);
                    }
                    if self.disk.is_frozen() {
                        return self.end();
                    }
                    next.into_iter().rev().for_each(|action| todo.push_front(action));
                }
                other => self.carry_out(other, &mut todo)?,
            }
            if self.machine.is_none() {
                return Ok(());
            }
        }
        Err("the machine never comes to rest".to_owned())
    }

    fn carry_out(&mut self, action: Action, todo: &mut VecDeque<Action>) -> Check {
        match action {
            Action::Apply(facts) => {
                self.is_durable(|ledger| facts_of(ledger) == Some(&facts), "applied before it is staged on disk")?;
                let gone = self.disk.unsynced(&config(&format!("{}.candidate", facts.digest)));
                require(gone.is_empty(), || format!("applied, and its document could be lost: {gone:?}"))?;
                let tries = self.tries.entry(facts.digest).or_default();
                *tries += 1;
                require(*tries <= 1 + ROLLOUT_RETRIES_MAX, || format!("revision {} is tried {tries} times", facts.revision))?;
                require(!self.stopped_in_trial.contains(&facts.digest), || format!("{} is tried after a stop", facts.revision))?;
                self.applied = Generation::Document(facts);
            }
            Action::Revert(to) => {
                require(to == *self.machine.as_ref().expect("running").0.committed().0, || "back to something else".to_owned())?;
                self.applied = to;
            }
            Action::Report => self.check_report()?,
            Action::Reconsider(facts) => {
                let document = self.documents.iter().find(|d| d.offer.facts == facts).expect("a document of ours").clone();
                let now = self.now();
                let (machine, store) = self.machine.as_mut().expect("running");
                store.envelope(facts.digest).map_err(|error| format!("the document that waited: {error}"))?;
                let next = machine.step(now, Input::Offered(document.offer));
                next.into_iter().rev().for_each(|action| todo.push_front(action));
            }
            Action::RunCommand(counter) => {
                self.is_durable(|ledger| ledger.highest_command >= counter, "a command runs before its counter is on disk")?;
                require(self.commands.insert(counter), || format!("command {counter} runs twice"))?;
            }
            Action::Retire(_) | Action::RefuseCommand { .. } | Action::Answer(_) => {}
            Action::Persist { .. } => unreachable!("executed by the caller"),
        }
        Ok(())
    }

    // ---- steps ----

    fn give(&mut self, input: Input, envelope: Option<&[u8]>) -> Check {
        let now = self.now();
        let Some((machine, _)) = &mut self.machine else { return Ok(()) };
        let actions = machine.step(now, input);
        self.execute(actions, envelope)
    }

    pub(super) fn new_document(&mut self) -> Document {
        let highest = self.documents.iter().map(|d| d.offer.facts.revision).max().unwrap_or(0);
        let revision = if self.rng.percent(85) { highest + 1 } else { self.rng.between(1, highest + 1) };
        let mut digest = [0; 32];
        self.rng.fill(&mut digest);
        let worth = *self.rng.pick(&[Worth::Good, Worth::Good, Worth::Good, Worth::PortTaken, Worth::NobodyReturns, Worth::DeadEndpoint]);
        let confirm = if self.rng.percent(80) { ConfirmBy::PeersReturn } else { ConfirmBy::Bound };
        let facts =
            Facts { revision, digest: DocumentDigest(digest), trial_s: TRIAL_MS / 1000, confirm, meta: Meta::new("a", None, "r", None) };
        let verdict = if self.rng.percent(85) {
            Verdict::Good
        } else {
            let memory = *self.rng.pick(&[Memory::Forget, Memory::Again, Memory::Final]);
            Verdict::Refused { code: "invalid".into(), why: "feed[0].lane: unknown".into(), memory }
        };
        let endpoints = worth == Worth::DeadEndpoint || self.rng.percent(20);
        let added_feeds = vec![FeedId::new("new").expect("a name")];
        let offer = Offer { facts, verdict, added_feeds, endpoints_changed: endpoints, endpoints_added: endpoints, uplink_up: self.wan_up };
        let len = if self.rng.percent(5) { 200_000 } else { self.rng.between(100, 4000) };
        let mut envelope = vec![0; len as usize];
        self.rng.fill(&mut envelope);
        Document { offer, envelope, worth }
    }

    fn offer(&mut self) -> Check {
        let mut document = if self.documents.is_empty() || self.rng.percent(50) {
            let document = self.new_document();
            self.documents.push(document.clone());
            document
        } else {
            self.rng.pick(&self.documents).clone()
        };
        document.offer.uplink_up = self.wan_up;
        self.note(format!("offer {} {:?} {:?}", document.offer.facts.revision, document.worth, document.offer.verdict));
        self.give(Input::Offered(document.offer), Some(&document.envelope))
    }

    fn applied(&mut self) -> Check {
        let Some(facts) = facts_of(self.ledger()).cloned() else { return Ok(()) };
        let fault = || FeedFault { feed: FeedId::new("a").expect("a name"), key: "feed.mllp.listen".into(), why: "in use".into() };
        let result = if self.rng.percent(90) { Ok(()) } else { Err(fault().to_string()) };
        self.note(format!("applied {}: {}", facts.revision, result.is_ok()));
        self.shadow = Shadow { started: self.ms, ..Shadow::default() };
        self.give(Input::Applied { digest: facts.digest, result }, None)
    }

    fn evidence(&mut self) -> Check {
        let digest = self.applied.facts().map(|facts| facts.digest);
        let document = self.documents.iter().find(|d| Some(d.offer.facts.digest) == digest).cloned();
        let (worth, adds) = document.map_or((Worth::Good, false), |d| (d.worth, d.offer.endpoints_added));
        let endpoint_is_new = adds && worth != Worth::DeadEndpoint && self.rng.percent(80);
        let acked_after_change = self.rng.percent(70);
        let uplink = if self.wan_up { UplinkEvidence::Up { endpoint_is_new, acked_after_change } } else { UplinkEvidence::Down };
        let nobody = worth == Worth::NobodyReturns || self.rng.percent(10);
        let waiting_for_peers = if nobody { vec![FeedId::new("lab").expect("a name")] } else { Vec::new() };
        let listeners_bound = worth != Worth::PortTaken && self.rng.percent(95);
        let evidence = Evidence { listeners_bound, directories_readable: self.rng.percent(95), faults: vec![], waiting_for_peers, uplink };
        match self.machine.as_ref().map(|(machine, _)| machine.run_state()) {
            Some(RunState::Trial) => {
                if let UplinkEvidence::Up { endpoint_is_new, acked_after_change: true } = uplink {
                    self.shadow.acked = true;
                    self.shadow.acked_by_added |= endpoint_is_new;
                }
                self.shadow.last = Some(evidence.clone());
            }
            _ => self.last_idle = Some(uplink),
        }
        self.note(format!("evidence {evidence:?}"));
        self.give(Input::Evidence(evidence), None)
    }

    /// Time passes. Whatever the disk says, no trial outlives its deadline.
    fn tick(&mut self) -> Check {
        self.ms += self.rng.between(1, TRIAL_MS / 2);
        self.note(format!("tick {}", self.ms));
        self.give(Input::Tick, None)?;
        let late = self.ms >= self.shadow.started + TRIAL_MS;
        match &self.machine {
            Some((machine, _)) if late => require(machine.run_state() != RunState::Trial, || "a trial outlives its deadline".to_owned()),
            _ => Ok(()),
        }
    }

    fn arm(&mut self) {
        if self.rng.percent(self.faults) {
            match self.rng.below(4) {
                0 => self.disk.freeze_after(self.rng.between(1, 12)),
                1 => {
                    let room = self.rng.below(300_000);
                    self.disk.set_capacity(self.disk.used() + room);
                    self.note(format!("disk full but {room}"));
                }
                2 => self.disk.set_capacity(u64::MAX),
                _ => {
                    let op = *self.rng.pick(&Op::CHANGING);
                    let (after, times) = (self.rng.below(4), self.rng.between(1, 3));
                    self.disk.fail(op, after, times, if self.rng.percent(50) { Errno::Io } else { Errno::NoSpace });
                    self.note(format!("{op:?} will fail"));
                }
            }
        }
    }

    fn step(&mut self) -> Check {
        self.arm();
        if self.machine.is_none() || self.disk.is_frozen() {
            if self.disk.is_frozen() {
                self.end()?;
            }
            return self.boot();
        }
        match (self.rng.below(100), self.machine.as_ref().map(|(machine, _)| machine.run_state())) {
            (0..70, Some(RunState::Staged)) => self.applied(),
            (0..20, _) => self.offer(),
            (20..55, _) => self.evidence(),
            (55..85, _) => self.tick(),
            (85..90, _) => {
                self.wan_up = !self.wan_up;
                Ok(())
            }
            (90..93, _) => self.give(Input::RollbackAsked { who: "on site".into(), why: "because".into() }, None),
            (93..96, _) => {
                let counter = self.ledger().highest_command + self.rng.below(3);
                self.give(Input::CommandAccepted { counter }, None)
            }
            _ => self.end(),
        }
    }

    /// At the last everything is in order, and a good document is taken.
    fn settle(&mut self) -> Check {
        if self.machine.is_some() {
            self.end()?;
        }
        self.disk.clear_faults();
        self.disk.set_capacity(u64::MAX);
        for _ in 0..2000 {
            self.wan_up = true;
            if self.machine.is_none() {
                self.boot()?;
                continue;
            }
            let mut document = self.new_document();
            (document.worth, document.offer.verdict) = (Worth::Good, Verdict::Good);
            document.offer.facts.revision = self.documents.iter().map(|d| d.offer.facts.revision).max().unwrap_or(0) + 1;
            let wanted = document.offer.facts.revision;
            self.documents.push(document.clone());
            self.give(Input::Offered(document.offer), Some(&document.envelope))?;
            for _ in 0..60 {
                match self.machine.as_ref().map(|(machine, _)| machine.run_state()) {
                    Some(RunState::Staged) => self.applied()?,
                    Some(RunState::Trial) => self.evidence()?,
                    _ => break,
                }
            }
            if self.machine.as_ref().is_some_and(|(machine, _)| machine.committed().0.revision() == wanted) {
                return self.is_durable(|ledger| ledger.committed.revision() == wanted, "committed at the last, and not on disk");
            }
        }
        Err("no good document is taken on a healthy disk".to_owned())
    }
}

fn play(theme: u64, histories: u64, faults: u64) {
    let long = std::env::var_os("SITEWARD_LONG").is_some();
    let only: Option<u64> = std::env::var("SITEWARD_SEED").ok().and_then(|seed| seed.parse().ok());
    let first = theme * 1_000_000;
    let count = if long { histories * 20 } else { histories };
    let mut commits = 0;
    for seed in (first..first + count).filter(|seed| only.is_none_or(|only| only == *seed)) {
        let mut world = World::new(seed, faults);
        let played = (0..150).try_for_each(|_| world.step()).and_then(|()| world.settle());
        commits += world.commits;
        if let Err(error) = played {
            let steps: Vec<String> = world.log.into_iter().collect();
            panic!("seed {seed}: {error}\n{}\ndisk:\n{}", steps.join("\n"), world.disk.trace().join("\n"));
        }
    }
    assert!(only.is_some() || commits > count, "the histories commit something: {commits}");
}

/// I6: kills and power cuts between any two steps and in the middle of any operation of the disk: what runs then was committed, a revision is tried
/// once, and nothing was said that is not so.
#[test]
fn killed_in_every_rollout_step_comes_back_on_committed() {
    play(20, 400, 12);
}

/// I6: the same on a disk that is well, so that documents get far.
#[test]
fn ends_alone_cost_trials_and_nothing_else() {
    play(21, 150, 0);
}
