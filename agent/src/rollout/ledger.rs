//! The ledger: what runs, what ran before, what is being tried, and what became of the last revisions. Values and bytes; `store` keeps them.
//!
//! ```text
//! committed   runs now and after any stop        standing: proven, or local (the uplink has not spoken yet)
//! previous    the last proven one before it      where a rollback goes
//! candidate   staged or in trial                 found at a start: its trial counts as failed
//! waiting     newest document behind a trial     considered when the trial is over
//! history     last revisions, oldest first       answers what is delivered again
//! ```
//!
//! Only whole values are exchanged: the machine makes the next ledger from the one that holds, the store makes it durable, and only then it
//! holds. Format: the block of `spool/format.rs` (magic, length, CRC, postcard) around an enum whose variants are never changed.

use serde::{Deserialize, Serialize};

use super::facts::{Facts, Generation, Meta, Proof, Stamp, cut};
use crate::limits::{HISTORY_KEPT, HISTORY_WHY_BYTES_MAX};
use crate::record::DocumentDigest;
use crate::spool::format::{decode_block, encode_block};

pub const MAGIC: [u8; 8] = *b"SWLEDGR1";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Content {
    V1(Ledger),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    pub committed: Generation,
    /// Since when it is the one.
    pub since: Stamp,
    pub standing: Standing,
    pub previous: Option<Generation>,
    pub candidate: Option<Candidate>,
    pub waiting: Option<Facts>,
    /// Highest revision that was ever staged here.
    pub highest_tried: u64,
    /// Highest counter of a command that was ever accepted here.
    pub highest_command: u64,
    pub history: Vec<Entry>,
}

/// What the committed generation rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    Proven,
    /// Everything on the gateway holds; this acknowledgement is still owed.
    Local(Proof),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    pub facts: Facts,
    pub stage: Stage,
    pub proof: Proof,
    /// The uplink was connected when the document came.
    pub uplink_was_up: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    Staged,
    Trial,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Tried,
    CommittedLocal,
    Committed,
    RolledBack,
    Refused,
}

impl Outcome {
    /// As in the reported state; `trial` for what is not over.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tried => "trial",
            Self::CommittedLocal => "committed_local",
            Self::Committed => "committed",
            Self::RolledBack => "rolled_back",
            Self::Refused => "refused",
        }
    }
}

/// What became of a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub revision: u64,
    pub digest: DocumentDigest,
    pub meta: Meta,
    pub outcome: Outcome,
    /// Empty where nothing went wrong.
    pub code: String,
    pub why: String,
    pub at: Stamp,
    /// Times it was staged.
    pub attempts: u32,
    /// Delivered again, it is judged or tried again.
    pub again: bool,
}

/// What is noted about a revision.
#[derive(Clone, Debug)]
pub(super) struct Note {
    pub outcome: Outcome,
    pub code: String,
    pub why: String,
    pub again: bool,
}

impl Note {
    pub(super) fn plain(outcome: Outcome) -> Self {
        Self { outcome, code: String::new(), why: String::new(), again: false }
    }
}

impl Ledger {
    /// Of a gateway that has only its local file.
    pub fn fresh(at: Stamp) -> Self {
        Self {
            committed: Generation::Bootstrap,
            since: at,
            standing: Standing::Proven,
            previous: None,
            candidate: None,
            waiting: None,
            highest_tried: 0,
            highest_command: 0,
            history: Vec::new(),
        }
    }

    pub fn entry(&self, facts: &Facts) -> Option<&Entry> {
        self.history.iter().find(|entry| (entry.revision, entry.digest) == (facts.revision, facts.digest))
    }

    pub fn attempts(&self, facts: &Facts) -> u32 {
        self.entry(facts).map_or(0, |entry| entry.attempts)
    }

    /// Notes what became of a revision, as the newest entry; there is one per revision and digest.
    pub(super) fn note(&mut self, facts: &Facts, note: Note, at: Stamp) {
        let attempts = self.attempts(facts);
        self.history.retain(|entry| (entry.revision, entry.digest) != (facts.revision, facts.digest));
        self.history.push(Entry {
            revision: facts.revision,
            digest: facts.digest,
            meta: facts.meta.clone(),
            outcome: note.outcome,
            code: note.code,
            why: cut(&note.why, HISTORY_WHY_BYTES_MAX),
            at,
            attempts,
            again: note.again,
        });
        while self.history.len() > HISTORY_KEPT {
            // Refusals first: what ran here is worth more than what did not.
            let refused = self.history.iter().filter(|entry| entry.outcome == Outcome::Refused).count();
            let oldest_refused = self.history.iter().position(|entry| entry.outcome == Outcome::Refused);
            self.history.remove(oldest_refused.filter(|_| refused > HISTORY_KEPT / 2).unwrap_or(0));
        }
    }

    pub(super) fn count_attempt(&mut self, facts: &Facts) {
        if let Some(entry) = self.history.iter_mut().find(|entry| (entry.revision, entry.digest) == (facts.revision, facts.digest)) {
            entry.attempts = entry.attempts.saturating_add(1);
        }
    }

    /// Documents whose files must stay.
    pub fn named(&self) -> impl Iterator<Item = DocumentDigest> {
        let generations = [Some(&self.committed), self.previous.as_ref()].into_iter().flatten().filter_map(Generation::facts);
        generations.chain(self.candidate.as_ref().map(|candidate| &candidate.facts)).chain(&self.waiting).map(|facts| facts.digest)
    }

    /// Of these, the ones that were proven here.
    pub fn proven(&self) -> impl Iterator<Item = DocumentDigest> {
        let committed = (self.standing == Standing::Proven).then_some(&self.committed);
        [committed, self.previous.as_ref()].into_iter().flatten().filter_map(Generation::facts).map(|facts| facts.digest)
    }

    pub fn encode(&self) -> Vec<u8> {
        encode_block(MAGIC, &Content::V1(self.clone()))
    }

    /// `None` for anything that [`encode`](Self::encode) did not write.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        decode_block(MAGIC, bytes).map(|Content::V1(ledger)| ledger)
    }
}
