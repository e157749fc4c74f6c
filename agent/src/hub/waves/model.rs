//! The rollout against a model: gateways that take a document, refuse it, lose it, come and go; a broker that forgets; a tool that is killed between any
//! two steps. What must never be is checked at every publish.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::entry::{Entry, Verdict};
use super::heard::Reported;
use super::plan::{Plan, Threshold};
use super::tests::{GRACE_MS, SOAK_MS, TRIAL_MS, online, plan, reported};
use super::{Action, Event, Waves};

/// How a gateway of the model behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Good,
    Bad,
    Deaf,
    Leaves,
}

/// What happens next in the model.
#[derive(Clone, Debug)]
enum Chance {
    /// A gateway does its next step.
    Acts(usize),
    ComesAndGoes(usize),
    Time(i64),
    /// The tool is killed after so many actions of the next step.
    Kill(usize),
    BrokerForgets(usize),
    Disconnect,
}

fn chance(gateways: usize) -> impl Strategy<Value = Chance> {
    prop_oneof![
        8 => (0..gateways).prop_map(Chance::Acts),
        2 => (0..gateways).prop_map(Chance::ComesAndGoes),
        4 => prop_oneof![Just(1000), Just(GRACE_MS), Just(TRIAL_MS), Just(SOAK_MS)].prop_map(Chance::Time),
        2 => (0..8_usize).prop_map(Chance::Kill),
        1 => (0..gateways).prop_map(Chance::BrokerForgets),
        1 => Just(Chance::Disconnect),
    ]
}

struct Model {
    plan: Plan,
    waves: Waves,
    journal: Vec<Entry>,
    now: i64,
    manners: Vec<Manner>,
    online: Vec<bool>,
    /// What the broker keeps for each, and what each has of it (0: not begun, 1: trying, 2: over).
    desired: Vec<bool>,
    stage: Vec<u8>,
    kill_after: Option<usize>,
    /// How many processes there were.
    processes: usize,
}

impl Model {
    fn report(&self, i: usize) -> Box<Reported> {
        match (self.stage[i], self.manners[i]) {
            (0, _) => reported(6, None),
            (1, _) => reported(6, Some(("trial", 7))),
            (_, Manner::Bad) => reported(6, Some(("rolled_back", 7))),
            _ => reported(7, Some(("committed", 7))),
        }
    }

    /// A new process, from the journal alone.
    fn restart(&mut self) {
        self.processes += 1;
        self.waves = Waves::restore(self.plan.clone(), &self.journal);
        self.connect();
    }

    fn connect(&mut self) {
        self.give(Event::Informed(false));
        for i in 0..self.online.len() {
            self.give(Event::Presence(i, online(self.online[i])));
            self.give(Event::Reported(i, self.report(i)));
        }
        self.give(Event::Informed(true));
    }

    fn give(&mut self, event: Event) {
        let actions = self.waves.step(self.now, event);
        let durable_before = self.journal.len();
        for (count, action) in actions.into_iter().enumerate() {
            if self.kill_after == Some(count) {
                self.kill_after = None;
                return self.restart();
            }
            match action {
                Action::Note(entry) => self.journal.push(entry),
                Action::Push(target) => {
                    self.may_be_published(target);
                    self.desired[target] = true;
                    let process = self.processes;
                    self.give(Event::Sent(target));
                    if self.processes != process {
                        return; // who wanted the rest is dead
                    }
                }
                Action::Withdraw(target) => self.desired[target] = false,
            }
        }
        assert!(self.journal.len() >= durable_before);
        let kept = Waves::restore(self.plan.clone(), &self.journal);
        assert_eq!(kept.phase(), self.waves.phase(), "the journal says where the rollout is");
        for i in 0..self.online.len() {
            assert_eq!(kept.verdict(i), self.waves.verdict(i), "the journal says what became of it");
        }
    }

    /// I6: what must hold whenever something is published, judged by what is durable then.
    fn may_be_published(&self, target: usize) {
        assert!(self.journal.iter().any(|entry| matches!(entry, Entry::Push { target: t, .. } if *t == target)), "not written down before");
        let mut over = false;
        let (mut begun, mut done) = (0, BTreeMap::new());
        let mut failed: BTreeMap<usize, bool> = BTreeMap::new();
        for entry in &self.journal {
            match entry {
                Entry::Wave { wave, .. } => begun = *wave,
                Entry::Done { wave, at_ms } => {
                    done.insert(*wave, *at_ms);
                }
                Entry::Stopped { .. } => over = true,
                Entry::Became { target, verdict, .. } => {
                    failed.insert(*target, matches!(verdict, Verdict::Failed { .. } | Verdict::Unknown));
                }
                _ => {}
            }
        }
        let wave = self.plan.waves.partition_point(|end| *end <= target);
        assert!(!over, "published after the end");
        assert!(wave <= begun, "published before its wave");
        for earlier in 0..wave {
            let at = done.get(&earlier).copied().expect("the wave before is done");
            assert!(self.now >= at + SOAK_MS, "published before the rest was over");
        }
        let failures = failed.values().filter(|failed| **failed).count();
        assert!(failures <= self.plan.threshold.allows(self.plan.waves[begun]), "published beyond the threshold");
    }

    fn happens(&mut self, chance: &Chance) {
        match *chance {
            Chance::Acts(i) => {
                // What was begun needs the broker no more.
                if self.online[i] && (self.desired[i] || self.stage[i] == 1) && self.manners[i] != Manner::Deaf {
                    let leaves = self.manners[i] == Manner::Leaves && self.stage[i] == 1;
                    self.stage[i] = (self.stage[i] + 1).min(2);
                    if leaves {
                        self.online[i] = false;
                        self.stage[i] = 1;
                        return self.give(Event::Presence(i, online(false)));
                    }
                    self.give(Event::Reported(i, self.report(i)));
                }
            }
            Chance::ComesAndGoes(i) => {
                self.online[i] = !self.online[i];
                self.give(Event::Presence(i, online(self.online[i])));
            }
            Chance::Time(ms) => {
                self.now += ms;
                self.give(Event::Tick);
            }
            Chance::Kill(after) => self.kill_after = Some(after),
            Chance::BrokerForgets(i) => self.desired[i] = false,
            Chance::Disconnect => self.connect(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// I6: in any order of events, killed anywhere: no gateway of a later wave before the earlier ones are done and rested, nothing beyond the
    /// threshold, nothing after the end, nothing that was not written down before; and a fleet of good gateways that are there gets to the end.
    #[test]
    fn no_gateway_gets_anything_before_its_time(
        gateways in 1..9_usize,
        manners in proptest::collection::vec(0..8_u8, 9),
        threshold in prop_oneof![Just(Threshold::Count(0)), Just(Threshold::Count(2)), Just(Threshold::Percent(30))],
        happens in proptest::collection::vec(chance(9), 1..160),
    ) {
        let ends = super::plan::waves("1,30%,100%", gateways).unwrap();
        let plan = plan(gateways, ends, threshold);
        let manners = manners.iter().map(|n| match n { 0 => Manner::Bad, 1 => Manner::Deaf, 2 => Manner::Leaves, _ => Manner::Good });
        let mut model = Model {
            waves: Waves::new(plan.clone()),
            plan,
            journal: Vec::new(),
            now: 1_800_000_000_000,
            manners: manners.take(gateways).collect(),
            online: vec![true; gateways],
            desired: vec![false; gateways],
            stage: vec![0; gateways],
            kill_after: None,
            processes: 0,
        };
        model.connect();
        for chance in &happens {
            let fits = match chance {
                Chance::Acts(i) | Chance::ComesAndGoes(i) | Chance::BrokerForgets(i) => *i < gateways,
                _ => true,
            };
            if fits {
                model.happens(chance);
            }
        }
        // Fair weather from here: with good gateways only, it ends well.
        model.kill_after = None;
        if model.manners.iter().all(|manner| *manner == Manner::Good) && !model.waves.is_over() {
            for _ in 0..3 * gateways + 6 {
                for i in 0..gateways {
                    if !model.online[i] {
                        model.happens(&Chance::ComesAndGoes(i));
                    }
                    model.happens(&Chance::Time(1000));
                    model.happens(&Chance::Acts(i));
                    model.happens(&Chance::Acts(i));
                }
                if !model.waves.is_over() {
                    model.happens(&Chance::Time(SOAK_MS));
                }
            }
            prop_assert!(model.waves.is_over());
        }
    }
}
