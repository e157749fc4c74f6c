//! What is done with a document: nothing, an answer from the ledger, a refusal, a place in the queue, or a trial.
//!
//! Each revision is tried once. The exception is a trial whose uplink was lost, which may be tried again a few times while nothing newer was.

use super::super::facts::{Memory, Verdict};
use super::super::ledger::Entry;
use super::{
    Action, Candidate, Facts, Generation, Input, Ledger, Machine, Note, Now, Offer, Outcome, Phase, Proof, Stage, Standing, Then, Tried,
};

impl Machine {
    pub(super) fn offered(&mut self, now: Now, offer: &Offer) -> Vec<Action> {
        let facts = &offer.facts;
        if let Generation::Document(running) = &self.ledger.committed {
            if running.is(facts) {
                return self.answer(None);
            }
            if running.revision == facts.revision {
                return self.refuse_same_revision(now, facts);
            }
            if facts.revision < running.revision {
                return self.refuse_old(now, facts, running.revision);
            }
        }
        if let Some(candidate) = self.candidate() {
            if candidate.facts.is(facts) {
                return Vec::new();
            }
            if candidate.facts.revision == facts.revision {
                return self.refuse_same_revision(now, facts);
            }
        }
        match self.ledger.entry(facts) {
            Some(entry) if !may_be_tried(entry, &self.ledger) => {
                let tried = Tried::of(entry);
                return self.answer(Some(tried));
            }
            None if facts.revision == self.ledger.highest_tried => return self.refuse_same_revision(now, facts),
            _ if facts.revision < self.ledger.highest_tried => return self.refuse_old(now, facts, self.ledger.highest_tried),
            _ => {}
        }
        match offer.verdict.clone() {
            Verdict::Refused { code, why, memory } => self.refused(now, facts, code, why, memory),
            Verdict::Good if self.is_idle() => self.stage(offer),
            Verdict::Good => self.wait(now, offer),
        }
    }

    pub(super) fn unusable(&mut self, now: Now, code: String, why: String) -> Vec<Action> {
        let tried = Tried { revision: None, digest: None, state: Outcome::Refused.as_str(), code, reason: why, at: now.wall, meta: None };
        self.answer(Some(tried))
    }

    /// Says it once: who sends the same again and again gets no new report.
    pub(super) fn answer(&mut self, tried: Option<Tried>) -> Vec<Action> {
        let newest = self.ledger.history.last().map(Tried::of);
        let tried = tried.filter(|tried| newest.as_ref() != Some(tried));
        let same = match (&self.answered, &tried) {
            (Some(known), Some(new)) => known.says_the_same(new),
            (None, None) => true,
            _ => false,
        };
        if same {
            return Vec::new();
        }
        self.answered = tried;
        vec![Action::Report]
    }

    fn refuse_same_revision(&mut self, now: Now, facts: &Facts) -> Vec<Action> {
        let why =
            format!("document.revision: revision {} was given to another document before; give this one a higher revision", facts.revision);
        let tried = Tried::refused(facts, "same_revision_other_content", why, now.wall);
        self.answer(Some(tried))
    }

    fn refuse_old(&mut self, now: Now, facts: &Facts, known: u64) -> Vec<Action> {
        let why = format!(
            "document.revision: revision {} is behind revision {known}, which this gateway knows already; give the document a higher revision",
            facts.revision
        );
        let tried = Tried::refused(facts, "old_revision", why, now.wall);
        self.answer(Some(tried))
    }

    fn refused(&mut self, now: Now, facts: &Facts, code: String, why: String, memory: Memory) -> Vec<Action> {
        let waited = self.ledger.waiting.as_ref().is_some_and(|waiting| waiting.is(facts));
        let known = self.ledger.entry(facts).is_some_and(|entry| entry.code == code && entry.why == why);
        let tried = Tried::refused(facts, &code, why.clone(), now.wall);
        if !waited && (memory == Memory::Forget || known) {
            return self.answer(Some(tried));
        }
        let mut next = self.ledger.clone();
        if waited {
            next.waiting = None;
        }
        if memory != Memory::Forget && !known {
            // One that was tried and may be tried again keeps what is known about its trials.
            let is_tried = self.ledger.attempts(facts) > 0;
            let note = Note { outcome: Outcome::Refused, code, why, again: is_tried || memory == Memory::Again };
            next.note(facts, note, now.wall);
        }
        self.persist(next, None, Then::Record { tried })
    }

    /// The newest document waits until the trial is over.
    fn wait(&mut self, now: Now, offer: &Offer) -> Vec<Action> {
        match &self.ledger.waiting {
            Some(waiting) if waiting.is(&offer.facts) => return Vec::new(),
            Some(waiting) if waiting.revision == offer.facts.revision => return self.refuse_same_revision(now, &offer.facts),
            Some(waiting) if waiting.revision > offer.facts.revision => {
                let newest = waiting.revision;
                return self.refuse_old(now, &offer.facts, newest);
            }
            _ => {}
        }
        let mut next = self.ledger.clone();
        next.waiting = Some(offer.facts.clone());
        let tried = Tried { state: "staged", ..Tried::refused(&offer.facts, "", String::new(), now.wall) };
        self.persist(next, Some(offer.facts.digest), Then::Record { tried })
    }

    fn stage(&mut self, offer: &Offer) -> Vec<Action> {
        let facts = &offer.facts;
        let owed = matches!(self.ledger.standing, Standing::Local(Proof::AddedEndpoint));
        let proof = if offer.endpoints_added && (offer.endpoints_changed || owed) { Proof::AddedEndpoint } else { Proof::AnyEndpoint };
        let mut next = self.ledger.clone();
        next.candidate = Some(Candidate { facts: facts.clone(), stage: Stage::Staged, proof, uplink_was_up: offer.uplink_up });
        if next.waiting.as_ref().is_some_and(|waiting| waiting.revision <= facts.revision) {
            next.waiting = None;
        }
        next.highest_tried = next.highest_tried.max(facts.revision);
        // Counted before anything is tried: a stop in the middle gives no try away.
        let at = next.entry(facts).map_or(self.ledger.since, |entry| entry.at);
        next.note(facts, Note::plain(Outcome::Tried), at);
        next.count_attempt(facts);
        self.persist(next, Some(facts.digest), Then::Stage { added: offer.added_feeds.clone() })
    }

    pub(super) fn command(&mut self, counter: u64) -> Vec<Action> {
        if counter <= self.ledger.highest_command {
            let why = format!("counter {counter} was used before; the next one must be above {}", self.ledger.highest_command);
            return vec![Action::RefuseCommand { counter, why }];
        }
        let mut next = self.ledger.clone();
        next.highest_command = counter;
        self.persist(next, None, Then::Command(counter))
    }

    pub(super) fn reconsider(&self) -> Option<Action> {
        (matches!(self.phase, Phase::Idle) && !self.unsaved).then(|| self.ledger.waiting.clone().map(Action::Reconsider)).flatten()
    }
}

/// Whether a revision that is known may have a trial.
fn may_be_tried(entry: &Entry, ledger: &Ledger) -> bool {
    let is_next = if entry.attempts == 0 { entry.revision > ledger.highest_tried } else { entry.revision == ledger.highest_tried };
    entry.again && is_next && entry.revision > ledger.committed.revision()
}

impl From<Offer> for Input {
    fn from(offer: Offer) -> Self {
        Self::Offered(offer)
    }
}
