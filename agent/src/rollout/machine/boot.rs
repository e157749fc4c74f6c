//! A start: what was being tried counts as failed, what is committed runs.
//!
//! The ledger is written again at every start, and nothing is reported before that: what a killed process left in the page cache may not be on the
//! disk yet. Without a ledger the newest document that was proven here runs (its file says so, see `store`), else the local file.

use super::outcome::rolled_back;
use super::{Action, Facts, Generation, Ledger, Machine, Now, Phase, Reason, Then, UplinkEvidence};

/// What the store found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing: a gateway that never had a document.
    Nothing,
    Ledger(Box<Ledger>),
    /// A ledger that cannot be read, or none although there are documents: those whose signatures hold, by what their files say.
    Damaged {
        proven: Vec<Facts>,
        unproven: Vec<Facts>,
    },
}

impl Machine {
    /// The machine of a new process, and what is to be done first.
    pub fn boot(found: Found, now: Now) -> (Self, Vec<Action>) {
        let ledger_was_damaged = matches!(found, Found::Damaged { .. });
        let mut next = match found {
            Found::Nothing => Ledger::fresh(now.wall),
            Found::Ledger(ledger) => *ledger,
            Found::Damaged { proven, unproven } => salvaged(proven, unproven, now),
        };
        if let Some(candidate) = next.candidate.take() {
            next.note(&candidate.facts, rolled_back(&Reason::AgentStopped), now.wall);
        }
        let mut machine = Self {
            ledger: next.clone(),
            unsaved: true,
            phase: Phase::Idle,
            pending: None,
            answered: None,
            probation_ends: None,
            uplink: UplinkEvidence::Down,
            ledger_was_damaged,
        };
        let actions = machine.persist(next, None, Then::Boot);
        (machine, actions)
    }
}

fn salvaged(mut proven: Vec<Facts>, mut unproven: Vec<Facts>, now: Now) -> Ledger {
    let mut ledger = Ledger::fresh(now.wall);
    proven.sort_by_key(|facts| facts.revision);
    unproven.sort_by_key(|facts| facts.revision);
    let all = proven.iter().chain(&unproven);
    ledger.highest_tried = all.map(|facts| facts.revision).max().unwrap_or(0);
    for facts in &unproven {
        ledger.note(facts, rolled_back(&Reason::LedgerDamaged), now.wall);
        ledger.count_attempt(facts);
    }
    if let Some(newest) = proven.pop() {
        ledger.committed = Generation::Document(newest);
        ledger.previous = proven.pop().map(Generation::Document);
    }
    ledger
}
