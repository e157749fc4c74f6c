//! The rollout: which configuration runs, decided from documents, evidence and time. Pure: values in, actions out; no clock, no disk.
//!
//! ```text
//!          Offered            Applied ok            proof                 no proof, WAN down since before
//!  Idle ─────────────► Applying ─────────► Trial ─────────► Committed        ───────► CommittedLocal ── proof ──► Committed
//!   ▲                     │ failed           │ deadline                                   │ earlier endpoint answers, the new one
//!   └───── RolledBack ◄───┴──────────────────┴────────────────────────────────────────────┘ does not, for the trial's length
//! ```
//!
//! 1. [`Machine::step`] returns actions, to be executed in order. A [`Action::Persist`] is always the last: the shell makes the ledger durable (the
//!    envelope first, where one is named) and steps with [`Input::Persisted`]; what follows from the new ledger comes only then. So nothing is
//!    applied before `Staged` is durable, no deadline counts before `Trial` is, and nothing is reported committed before it is.
//! 2. A rollback never waits for the disk: where its ledger cannot be written the old configuration is put back all the same, and writing is tried
//!    again at every tick. A stop in between finds the trial in the ledger, which counts as failed.
//! 3. A commit whose ledger cannot be written is no commit; at the deadline the trial is rolled back. Where that cannot be written either, a stop may
//!    find the commit, since its rename may have come through: then what was proven runs, as if it had not been taken back. Nothing was reported
//!    of either until a ledger was durable again.
//! 4. `committed` goes back only to `previous`, which is always a generation that was proven here.
//!
//! Holds I6 together with `store`, and I10: nothing here is decided by the time for people.

use super::facts::{ConfirmBy, Evidence, Facts, Generation, Now, Offer, Proof, Stamp, UplinkEvidence};
use super::ledger::{Candidate, Ledger, Note, Outcome, Stage, Standing};
use super::reason::Reason;
use crate::limits::APPLY_DEADLINE;
use crate::record::{DocumentDigest, FeedId};

mod boot;
mod offer;
mod outcome;
mod view;

pub use boot::Found;
pub use view::{RunState, Standpoint, Tried};

#[derive(Clone, Debug)]
pub enum Input {
    /// A verified document came, or waited.
    Offered(Offer),
    /// Something came that is no document of ours.
    Unusable {
        code: String,
        why: String,
    },
    /// The configuration of this digest is in use, or why not: a sentence, with feed and key where a feed is concerned.
    Applied {
        digest: DocumentDigest,
        result: Result<(), String>,
    },
    Evidence(Evidence),
    /// Time passes; every few seconds.
    Tick,
    RollbackAsked {
        who: String,
        why: String,
    },
    /// The file of the committed document cannot be read.
    CommittedLost {
        why: String,
    },
    /// A signed command with the next counter came.
    CommandAccepted {
        counter: u64,
    },
    /// The answer to [`Action::Persist`].
    Persisted(Result<(), String>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the envelope of `keep` durable, then the ledger; answer with [`Input::Persisted`].
    Persist {
        ledger: Box<Ledger>,
        keep: Option<DocumentDigest>,
    },
    Apply(Facts),
    Revert(Generation),
    /// Feeds of a trial that was taken back: stopped, and drained under their last settings.
    Retire(Vec<FeedId>),
    /// Publish the reported state anew.
    Report,
    /// Judge the document that waited against what runs now, and offer it.
    Reconsider(Facts),
    /// The counter is durable: execute, at most once.
    RunCommand(u64),
    RefuseCommand {
        counter: u64,
        why: String,
    },
    /// The answer to [`Input::RollbackAsked`].
    Answer(Result<String, String>),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Machine {
    ledger: Ledger,
    /// The ledger on disk is older: a rollback could not be written.
    unsaved: bool,
    phase: Phase,
    pending: Option<Pending>,
    /// What was answered last, where that is not the newest of the history.
    answered: Option<Tried>,
    /// Of a local commit: when an earlier endpoint has answered for long enough.
    probation_ends: Option<u64>,
    /// Of a local commit: the uplink as last heard of.
    uplink: UplinkEvidence,
    ledger_was_damaged: bool,
}

#[derive(Debug)]
enum Phase {
    Idle,
    Applying { until: u64, added: Vec<FeedId> },
    Trial(Trial),
}

#[derive(Debug)]
struct Trial {
    deadline: u64,
    added: Vec<FeedId>,
    evidence: Option<Evidence>,
    /// A publish was acknowledged since the change, by whatever endpoint; by one that the document adds.
    acked: bool,
    acked_by_added: bool,
    /// When an earlier endpoint was first heard of.
    earlier_acked_at: Option<u64>,
}

#[derive(Debug)]
struct Pending {
    next: Ledger,
    then: Then,
}

/// What follows once the ledger is durable.
#[derive(Debug)]
enum Then {
    Boot,
    Stage {
        added: Vec<FeedId>,
    },
    Begin {
        added: Vec<FeedId>,
    },
    Commit,
    CommitLocal {
        probation_ends: Option<u64>,
    },
    RollBack(RollBack),
    /// A note in the history, or a document that waits.
    Record {
        tried: Tried,
    },
    Save,
    Command(u64),
}

#[derive(Debug)]
struct RollBack {
    added: Vec<FeedId>,
    answer: Option<String>,
}

impl Machine {
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    pub fn step(&mut self, now: Now, input: Input) -> Vec<Action> {
        match input {
            Input::Offered(offer) => self.offered(now, &offer),
            Input::Unusable { code, why } => self.unusable(now, code, why),
            Input::Applied { digest, result } => self.applied(now, digest, result),
            Input::Evidence(evidence) => self.evidence(now, evidence),
            Input::Tick => self.tick(now),
            Input::RollbackAsked { who, why } => self.rollback_asked(now, who, why),
            Input::CommittedLost { why } => self.committed_lost(now, why),
            Input::CommandAccepted { counter } => self.command(counter),
            Input::Persisted(Ok(())) => self.saved(now),
            Input::Persisted(Err(why)) => self.not_saved(now, why),
        }
    }

    fn persist(&mut self, next: Ledger, keep: Option<DocumentDigest>, then: Then) -> Vec<Action> {
        let ledger = Box::new(next.clone());
        self.pending = Some(Pending { next, then });
        vec![Action::Persist { ledger, keep }]
    }

    fn candidate(&self) -> Option<&Candidate> {
        self.ledger.candidate.as_ref()
    }

    // ---- trial ----

    fn applied(&mut self, now: Now, digest: DocumentDigest, result: Result<(), String>) -> Vec<Action> {
        if self.candidate().is_none_or(|candidate| candidate.facts.digest != digest) {
            return Vec::new();
        }
        let Phase::Applying { added, .. } = &self.phase else { return Vec::new() };
        let added = added.clone();
        match result {
            Ok(()) => {
                let mut next = self.ledger.clone();
                if let Some(candidate) = &mut next.candidate {
                    candidate.stage = Stage::Trial;
                }
                self.persist(next, None, Then::Begin { added })
            }
            Err(why) => self.roll_back_trial(now, &Reason::NotApplied(why), None),
        }
    }

    fn evidence(&mut self, now: Now, evidence: Evidence) -> Vec<Action> {
        match &mut self.phase {
            Phase::Applying { .. } => Vec::new(),
            Phase::Trial(trial) => {
                if let UplinkEvidence::Up { endpoint_is_new, acked_after_change: true } = evidence.uplink {
                    trial.acked = true;
                    if endpoint_is_new {
                        trial.acked_by_added = true;
                    } else {
                        trial.earlier_acked_at.get_or_insert(now.mono_ms);
                    }
                }
                trial.evidence = Some(evidence);
                self.judge_trial(now)
            }
            Phase::Idle => {
                self.uplink = evidence.uplink;
                self.judge_local(now)
            }
        }
    }

    fn tick(&mut self, now: Now) -> Vec<Action> {
        match &self.phase {
            Phase::Applying { until, .. } if now.mono_ms >= *until => self.roll_back_trial(now, &Reason::ApplyTooLong, None),
            Phase::Trial(_) => self.judge_trial(now),
            Phase::Idle if self.unsaved => {
                let next = self.ledger.clone();
                self.persist(next, None, Then::Save)
            }
            Phase::Idle => match self.judge_local(now) {
                nothing if nothing.is_empty() => self.reconsider().into_iter().collect(),
                actions => actions,
            },
            Phase::Applying { .. } => Vec::new(),
        }
    }

    /// Confirmed, over, or neither.
    fn judge_trial(&mut self, now: Now) -> Vec<Action> {
        let (Phase::Trial(trial), Some(candidate)) = (&self.phase, &self.ledger.candidate) else { return Vec::new() };
        let is_over = now.mono_ms >= trial.deadline;
        let missing = Reason::local(trial.evidence.as_ref(), candidate.facts.confirm == ConfirmBy::PeersReturn);
        let is_proven = match candidate.proof {
            Proof::AnyEndpoint => trial.acked,
            Proof::AddedEndpoint => trial.acked_by_added,
        };
        let reason = match missing {
            None if is_proven => return self.commit(now),
            _ if !is_over => return Vec::new(),
            Some(missing) => missing,
            None if !candidate.uplink_was_up => return self.commit_local(now),
            None if trial.acked => Reason::EndpointUnproven,
            None => Reason::UplinkLost { attempts: self.ledger.attempts(&candidate.facts) },
        };
        self.roll_back_trial(now, &reason, None)
    }

    /// The candidate becomes the one that runs. What it replaces is where a rollback goes, unless it was never proven itself.
    fn next_committed(&self, standing: Standing, now: Now) -> Ledger {
        let mut next = self.ledger.clone();
        if let Some(candidate) = next.candidate.take() {
            let outcome = if standing == Standing::Proven { Outcome::Committed } else { Outcome::CommittedLocal };
            next.note(&candidate.facts, Note::plain(outcome), now.wall);
            let before = std::mem::replace(&mut next.committed, Generation::Document(candidate.facts));
            if next.standing == Standing::Proven {
                next.previous = Some(before);
            }
            next.since = now.wall;
        }
        next.standing = standing;
        next
    }

    fn commit(&mut self, now: Now) -> Vec<Action> {
        let next = self.next_committed(Standing::Proven, now);
        self.persist(next, None, Then::Commit)
    }

    fn commit_local(&mut self, now: Now) -> Vec<Action> {
        let (Phase::Trial(trial), Some(candidate)) = (&self.phase, &self.ledger.candidate) else { return Vec::new() };
        let trial_ms = candidate.facts.trial_ms();
        let probation_ends = trial.earlier_acked_at.map(|at| at.saturating_add(trial_ms));
        let next = self.next_committed(Standing::Local(candidate.proof), now);
        self.persist(next, None, Then::CommitLocal { probation_ends })
    }

    // ---- local commit ----

    /// A local commit is proven by the acknowledgement it lacks, and over when an earlier endpoint answers for long enough without it.
    fn judge_local(&mut self, now: Now) -> Vec<Action> {
        let Standing::Local(proof) = self.ledger.standing else { return Vec::new() };
        let Some(facts) = self.ledger.committed.facts().cloned() else { return Vec::new() };
        if let UplinkEvidence::Up { endpoint_is_new, acked_after_change: true } = self.uplink {
            if endpoint_is_new || proof == Proof::AnyEndpoint {
                let mut next = self.ledger.clone();
                next.standing = Standing::Proven;
                next.note(&facts, Note::plain(Outcome::Committed), now.wall);
                return self.persist(next, None, Then::Commit);
            }
            self.probation_ends.get_or_insert(now.mono_ms.saturating_add(facts.trial_ms()));
        }
        match self.probation_ends {
            Some(ends) if now.mono_ms >= ends => match self.uplink {
                // Nothing is reached at all: that is not the new endpoint's fault, and says nothing about it.
                UplinkEvidence::Down => {
                    self.probation_ends = None;
                    Vec::new()
                }
                UplinkEvidence::Up { .. } => self.go_back(now, &Reason::EndpointUnproven, None),
            },
            _ => Vec::new(),
        }
    }
}

fn apply_until(now: Now) -> u64 {
    now.mono_ms.saturating_add(APPLY_DEADLINE.as_millis() as u64)
}
