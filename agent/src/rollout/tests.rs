//! Each transition of the machine, each sentence, with ledgers that are written at once; crashes and full disks are in `tests/power_loss`.

use super::facts::{Proof, UplinkEvidence};
use super::ledger::{Ledger, Outcome, Stage, Standing};
use super::machine::RunState;
use super::reason::Reason;
use super::*;
use crate::limits::{APPLY_DEADLINE, HISTORY_KEPT};
use crate::record::{DocumentDigest, FeedId};

mod offers;
mod said;
mod trials;

const TRIAL_MS: u64 = 900_000;

fn feed(name: &str) -> FeedId {
    FeedId::new(name).unwrap()
}

fn facts(revision: u64) -> Facts {
    Facts {
        revision,
        digest: DocumentDigest([revision as u8; 32]),
        trial_s: TRIAL_MS / 1000,
        confirm: ConfirmBy::PeersReturn,
        meta: Meta::new("kim", Some("lee"), "new cabinet", Some("CHG-7")),
    }
}

fn offer(revision: u64) -> Offer {
    Offer {
        facts: facts(revision),
        verdict: Verdict::Good,
        added_feeds: vec![feed("new")],
        endpoints_changed: false,
        endpoints_added: false,
        uplink_up: true,
    }
}

const ACKED: UplinkEvidence = UplinkEvidence::Up { endpoint_is_new: false, acked_after_change: true };
const ACKED_BY_NEW: UplinkEvidence = UplinkEvidence::Up { endpoint_is_new: true, acked_after_change: true };

fn evidence(uplink: UplinkEvidence) -> Evidence {
    Evidence { listeners_bound: true, directories_readable: true, faults: vec![], waiting_for_peers: vec![], uplink }
}

/// A machine with a clock and a disk that takes ledgers, or not.
struct Bench {
    machine: Machine,
    ms: u64,
    disk_ok: bool,
    durable: Option<Ledger>,
}

impl Bench {
    fn boot(found: Found) -> Self {
        let now = Now { mono_ms: 0, wall: Stamp { unix_ms: 1_793_491_200_000, suspect: false } };
        let (machine, actions) = Machine::boot(found, now);
        let mut bench = Self { machine, ms: 0, disk_ok: true, durable: None };
        let actions = bench.carry_out(actions);
        assert!(actions.contains(&Action::Report));
        bench
    }

    fn fresh() -> Self {
        Self::boot(Found::Nothing)
    }

    /// With revision 41 committed.
    fn with_41() -> Self {
        let mut bench = Self::fresh();
        bench.on_trial(offer(41));
        bench.give(Input::Evidence(evidence(ACKED)));
        assert_eq!(bench.running(), 41);
        bench
    }

    fn now(&self) -> Now {
        Now { mono_ms: self.ms, wall: Stamp { unix_ms: 1_793_491_200_000 + self.ms.cast_signed(), suspect: false } }
    }

    fn give(&mut self, input: impl Into<Input>) -> Vec<Action> {
        let actions = self.machine.step(self.now(), input.into());
        self.carry_out(actions)
    }

    fn carry_out(&mut self, actions: Vec<Action>) -> Vec<Action> {
        let mut left = Vec::new();
        for action in actions {
            if let Action::Persist { ledger, .. } = action {
                let result = if self.disk_ok { Ok(()) } else { Err("no space".to_owned()) };
                if self.disk_ok {
                    self.durable = Some(*ledger);
                }
                let next = self.machine.step(self.now(), Input::Persisted(result));
                left.extend(self.carry_out(next));
            } else {
                left.push(action);
            }
        }
        left
    }

    fn after(&mut self, ms: u64) -> Vec<Action> {
        self.ms += ms;
        self.give(Input::Tick)
    }

    fn on_trial(&mut self, offer: Offer) {
        let facts = offer.facts.clone();
        assert_eq!(self.give(offer), [Action::Report, Action::Apply(facts.clone())]);
        assert_eq!(self.give(Input::Applied { digest: facts.digest, result: Ok(()) }), [Action::Report]);
        assert_eq!(self.machine.run_state(), RunState::Trial);
    }

    fn running(&self) -> u64 {
        self.machine.committed().0.revision()
    }

    fn reboot(self) -> Self {
        Self::boot(self.durable.map_or(Found::Nothing, |ledger| Found::Ledger(Box::new(ledger))))
    }

    /// Outcome and code of the newest entry.
    fn newest(&self) -> (Outcome, &str) {
        self.machine.ledger().history.last().map(|entry| (entry.outcome, entry.code.as_str())).unwrap()
    }
}

fn reverted_to(generation: Generation) -> Vec<Action> {
    vec![Action::Revert(generation), Action::Retire(vec![feed("new")]), Action::Report]
}
