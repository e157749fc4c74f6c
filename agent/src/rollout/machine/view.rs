//! What can be said about the rollout: durable facts only, so that a report never says more than a power cut would leave true.

use super::super::facts::Meta;
use super::super::ledger::Entry;
use super::{Facts, Generation, Machine, Outcome, Phase, Stage, Stamp, Standing};
use crate::record::DocumentDigest;

/// What became of a document: the newest there is something to say about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// `None` for what was no document of ours.
    pub revision: Option<u64>,
    pub digest: Option<DocumentDigest>,
    pub state: &'static str,
    pub code: String,
    pub reason: String,
    pub at: Stamp,
    pub meta: Option<Meta>,
}

impl Tried {
    pub(super) fn of(entry: &Entry) -> Self {
        Self {
            revision: Some(entry.revision),
            digest: Some(entry.digest),
            state: entry.outcome.as_str(),
            code: entry.code.clone(),
            reason: entry.why.clone(),
            at: entry.at,
            meta: Some(entry.meta.clone()),
        }
    }

    pub(super) fn refused(facts: &Facts, code: &str, reason: String, at: Stamp) -> Self {
        Self {
            revision: Some(facts.revision),
            digest: Some(facts.digest),
            state: Outcome::Refused.as_str(),
            code: code.to_owned(),
            reason,
            at,
            meta: Some(facts.meta.clone()),
        }
    }

    /// But for the time.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        (self.revision, self.digest, self.state, &self.code, &self.reason)
            == (other.revision, other.digest, other.state, &other.code, &other.reason)
    }
}

/// How one document stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standpoint {
    /// It is committed.
    Runs,
    /// Behind the trial that is on.
    Waits,
    Tried(Box<Tried>),
    Unknown,
}

/// What the gateway runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// The local file, no document.
    Local,
    Committed,
    CommittedLocal,
    /// A document is being put to use.
    Staged,
    Trial,
}

impl RunState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Committed => "committed",
            Self::CommittedLocal => "committed_local",
            Self::Staged => "staged",
            Self::Trial => "trial",
        }
    }
}

impl Machine {
    pub fn run_state(&self) -> RunState {
        match (&self.phase, &self.ledger.committed, self.ledger.standing) {
            (Phase::Trial(_), _, _) => RunState::Trial,
            (Phase::Applying { .. }, _, _) => RunState::Staged,
            (Phase::Idle, Generation::Bootstrap, _) => RunState::Local,
            (Phase::Idle, Generation::Document(_), Standing::Proven) => RunState::Committed,
            (Phase::Idle, Generation::Document(_), Standing::Local(_)) => RunState::CommittedLocal,
        }
    }

    /// What runs after any stop.
    pub fn committed(&self) -> (&Generation, Stamp) {
        (&self.ledger.committed, self.ledger.since)
    }

    pub fn tried(&self) -> Option<Tried> {
        if let Some(candidate) = &self.ledger.candidate {
            let state = if candidate.stage == Stage::Trial { "trial" } else { "staged" };
            let at = self.ledger.entry(&candidate.facts).map_or(self.ledger.since, |entry| entry.at);
            return Some(Tried { state, ..Tried::refused(&candidate.facts, "", String::new(), at) });
        }
        self.answered.clone().or_else(|| self.ledger.history.last().map(Tried::of))
    }

    /// How a document stands that was just offered; `None` for what was none.
    pub fn about(&self, facts: Option<&Facts>) -> Standpoint {
        let tried = |tried: Tried| Standpoint::Tried(Box::new(tried));
        let is_it = |tried: &&Tried| (tried.revision, tried.digest) == (facts.map(|f| f.revision), facts.map(|f| f.digest));
        let answered = || self.answered.as_ref().filter(is_it).cloned().map_or(Standpoint::Unknown, tried);
        let Some(facts) = facts else { return answered() };
        if self.ledger.committed.facts().is_some_and(|running| running.is(facts)) {
            Standpoint::Runs
        } else if self.ledger.waiting.as_ref().is_some_and(|waiting| waiting.is(facts)) {
            Standpoint::Waits
        } else if self.candidate().is_some_and(|candidate| candidate.facts.is(facts)) {
            self.tried().map_or(Standpoint::Unknown, tried)
        } else {
            match (answered(), self.ledger.entry(facts)) {
                (Standpoint::Unknown, Some(entry)) => tried(Tried::of(entry)),
                (answered, _) => answered,
            }
        }
    }

    /// The ledger on disk is behind: a report has to wait.
    pub fn is_unsaved(&self) -> bool {
        self.unsaved
    }

    pub fn ledger_was_damaged(&self) -> bool {
        self.ledger_was_damaged
    }
}
