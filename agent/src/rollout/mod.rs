//! Remote configuration: which document runs, tried by the data plane before it counts, and what is said about it (I6).
//!
//! ```text
//!  document ──► judged ──► Offered ─┐                    ┌─► Persist ──► store: envelope, ledger (durable) ──► Persisted ─┐
//!  evidence ───────────────────────►├──► machine (pure) ─┤                                                               │
//!  time, operator ─────────────────►┘        ▲           └─► Apply · Revert · Report · Reconsider · …                    │
//!                                            └───────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! 1. At a start [`Store::open`] reads the ledger, [`Machine::boot`] says what runs: the committed generation, never one on trial.
//! 2. [`drive`] steps the machine and writes the ledgers it asks for; what it returns is done by the shell, in order.
//! 3. `report` turns the machine into the reported state, the board's view and the conditions; `suspect` watches the quarantine after a commit.
//! 4. The control socket reaches the owner of the machine through a [`Handle`], bounded, each request with a deadline.
//! 5. `start` decides what runs after a start, before the spool is opened; `shell` owns all of this while the agent runs, with `intake` (documents),
//!    `change` (putting to use), `evidence` and `proof` (what sources and uplink show) and `watch` (the quarantine).
//! 6. `command` judges signed commands, `orders` sees that each is carried out at most once, answered and audited, `executor` does it, `refusals`
//!    bounds what is said about those that are refused.
//!
//! A disk that is full or broken costs new documents, never a rollback, never a start.

mod change;
pub mod command;
mod evidence;
pub mod executor;
pub mod facts;
pub mod handle;
mod intake;
pub mod ledger;
pub mod machine;
pub mod orders;
mod proof;
pub mod reason;
mod refusals;
pub mod report;
pub mod shell;
pub mod start;
pub mod store;
pub mod suspect;
mod unfed;
mod watch;

#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

pub use facts::{ConfirmBy, Evidence, Facts, FeedFault, Generation, Memory, Meta, Now, Offer, Stamp, UplinkEvidence, Verdict, trial_s};
pub use handle::Handle;
pub use machine::{Action, Found, Input, Machine};
pub use store::{Store, Stored};

/// Steps the machine, makes durable what it asks for, and returns what is left to do. `envelope` belongs to the document that is offered.
pub fn drive(machine: &mut Machine, store: &mut Store, now: Now, input: Input, envelope: Option<&[u8]>) -> Vec<Action> {
    let actions = machine.step(now, input);
    carry_out(machine, store, now, actions, envelope)
}

/// As [`drive`], for the actions that [`Machine::boot`] returned.
pub fn carry_out(machine: &mut Machine, store: &mut Store, now: Now, actions: Vec<Action>, envelope: Option<&[u8]>) -> Vec<Action> {
    let mut todo = VecDeque::from(actions);
    let mut left = Vec::new();
    while let Some(action) = todo.pop_front() {
        let Action::Persist { ledger, keep } = action else {
            left.push(action);
            continue;
        };
        let saved = store.save(&ledger, keep.map(|digest| (digest, envelope))).map_err(|error| error.to_string());
        for next in machine.step(now, Input::Persisted(saved)).into_iter().rev() {
            todo.push_front(next);
        }
    }
    left
}
