//! How steps end: rollbacks, and what follows once the ledger is durable, or could not be made so.

use super::{
    Action, Generation, Ledger, Machine, Note, Now, Outcome, Phase, Reason, RollBack, Standing, Then, Trial, Tried, UplinkEvidence,
    apply_until,
};
use crate::record::FeedId;

impl Machine {
    // ---- rollbacks ----

    fn added_feeds(&self) -> Vec<FeedId> {
        match &self.phase {
            Phase::Idle => Vec::new(),
            Phase::Applying { added, .. } | Phase::Trial(Trial { added, .. }) => added.clone(),
        }
    }

    pub(super) fn roll_back_trial(&mut self, now: Now, reason: &Reason, answer: Option<String>) -> Vec<Action> {
        let mut next = self.ledger.clone();
        if let Some(candidate) = next.candidate.take() {
            next.note(&candidate.facts, rolled_back(reason), now.wall);
        }
        let added = self.added_feeds();
        self.persist(next, None, Then::RollBack(RollBack { added, answer }))
    }

    /// From the committed generation to the one before it.
    pub(super) fn go_back(&mut self, now: Now, reason: &Reason, answer: Option<String>) -> Vec<Action> {
        let mut next = self.ledger.clone();
        if let Generation::Document(facts) = &self.ledger.committed {
            next.note(facts, rolled_back(reason), now.wall);
        }
        next.committed = next.previous.take().unwrap_or(Generation::Bootstrap);
        next.standing = Standing::Proven;
        next.since = now.wall;
        self.persist(next, None, Then::RollBack(RollBack { added: Vec::new(), answer }))
    }

    pub(super) fn rollback_asked(&mut self, now: Now, who: String, why: String) -> Vec<Action> {
        let reason = Reason::Asked { who, why };
        if let Some(candidate) = self.candidate() {
            let answer = format!("the trial of revision {} is over; what ran before it runs again", candidate.facts.revision);
            return self.roll_back_trial(now, &reason, Some(answer));
        }
        match (&self.ledger.committed, &self.ledger.previous) {
            (Generation::Document(facts), Some(previous)) => {
                let answer = match previous {
                    Generation::Bootstrap => format!("back from revision {} to the local file", facts.revision),
                    Generation::Document(to) => format!("back from revision {} to revision {}", facts.revision, to.revision),
                };
                self.go_back(now, &reason, Some(answer))
            }
            (Generation::Document(facts), None) => {
                let why = format!(
                    "there is nothing before revision {} to go back to; send a document with a higher revision instead",
                    facts.revision
                );
                vec![Action::Answer(Err(why))]
            }
            (Generation::Bootstrap, _) => {
                vec![Action::Answer(Err("the local file runs and no document; edit the file and restart the agent".to_owned()))]
            }
        }
    }

    pub(super) fn committed_lost(&mut self, now: Now, why: String) -> Vec<Action> {
        if !self.is_idle() || self.ledger.committed == Generation::Bootstrap {
            return Vec::new();
        }
        self.go_back(now, &Reason::EnvelopeDamaged(why), None)
    }

    // ---- after the ledger ----

    pub(super) fn saved(&mut self, now: Now) -> Vec<Action> {
        let Some(pending) = self.pending.take() else { return Vec::new() };
        self.ledger = pending.next;
        self.unsaved = false;
        match pending.then {
            Then::Boot | Then::Save => self.report(),
            Then::Stage { added } => {
                let Some(facts) = self.candidate().map(|candidate| candidate.facts.clone()) else { return Vec::new() };
                self.phase = Phase::Applying { until: apply_until(now), added };
                self.answered = None;
                vec![Action::Report, Action::Apply(facts)]
            }
            Then::Begin { added } => self.begin(now, added),
            Then::Commit => {
                self.phase = Phase::Idle;
                self.probation_ends = None;
                self.answered = None;
                self.report()
            }
            Then::CommitLocal { probation_ends } => {
                self.phase = Phase::Idle;
                self.probation_ends = probation_ends;
                // What was heard before the trial says nothing about it.
                self.uplink = UplinkEvidence::Down;
                self.answered = None;
                self.report()
            }
            Then::RollBack(back) => {
                let mut actions = self.reverted(back, None);
                actions.extend(self.report());
                actions
            }
            Then::Record { tried } => {
                let newest = self.ledger.history.last().map(Tried::of);
                self.answered = (newest.as_ref() != Some(&tried)).then_some(tried);
                vec![Action::Report]
            }
            Then::Command(counter) => vec![Action::RunCommand(counter)],
        }
    }

    /// The reported state, and the document that waited where the way is free.
    fn report(&self) -> Vec<Action> {
        [Some(Action::Report), self.reconsider()].into_iter().flatten().collect()
    }

    fn begin(&mut self, now: Now, added: Vec<FeedId>) -> Vec<Action> {
        let trial_ms = self.candidate().map_or(0, |candidate| candidate.facts.trial_ms());
        self.phase = Phase::Trial(Trial {
            deadline: now.mono_ms.saturating_add(trial_ms),
            added,
            evidence: None,
            acked: false,
            acked_by_added: false,
            earlier_acked_at: None,
        });
        vec![Action::Report]
    }

    /// The configuration from before is put back, whatever the disk says.
    fn reverted(&mut self, back: RollBack, unsaved: Option<&str>) -> Vec<Action> {
        self.phase = Phase::Idle;
        self.probation_ends = None;
        self.uplink = UplinkEvidence::Down;
        self.answered = None;
        let mut actions = vec![Action::Revert(self.ledger.committed.clone())];
        if !back.added.is_empty() {
            actions.push(Action::Retire(back.added));
        }
        if let Some(answer) = back.answer {
            let answer = match unsaved {
                None => answer,
                Some(why) => {
                    format!("{answer}; this is not written down yet ({why}): do not restart the agent before the disk is in order")
                }
            };
            actions.push(Action::Answer(Ok(answer)));
        }
        actions
    }

    pub(super) fn not_saved(&mut self, now: Now, why: String) -> Vec<Action> {
        let Some(pending) = self.pending.take() else { return Vec::new() };
        match pending.then {
            Then::Boot => {
                self.adopt_unsaved(pending.next);
                Vec::new()
            }
            Then::Save => Vec::new(),
            Then::Stage { .. } => {
                let Some(candidate) = pending.next.candidate else { return Vec::new() };
                let why = Reason::LedgerUnwritable(why).to_string();
                self.answer(Some(Tried::refused(&candidate.facts, "ledger_unwritable", why, now.wall)))
            }
            Then::Begin { .. } => self.roll_back_trial(now, &Reason::LedgerUnwritable(why), None),
            Then::Commit | Then::CommitLocal { .. } => match &self.phase {
                Phase::Trial(trial) => {
                    // Tried again with every tick until the deadline.
                    let is_over = now.mono_ms >= trial.deadline;
                    if is_over { self.roll_back_trial(now, &Reason::LedgerUnwritable(why), None) } else { Vec::new() }
                }
                // A local commit that was proven stays local until it can be written.
                Phase::Idle | Phase::Applying { .. } => Vec::new(),
            },
            Then::RollBack(back) => {
                self.adopt_unsaved(pending.next);
                self.reverted(back, Some(&why))
            }
            Then::Record { tried } => {
                self.answered = Some(match tried.state {
                    "staged" => Tried { state: Outcome::Refused.as_str(), code: "ledger_unwritable".to_owned(), reason: why, ..tried },
                    _ => tried,
                });
                vec![Action::Report]
            }
            Then::Command(counter) => {
                let why = format!("its counter could not be written: {why}; check the disk of the spool and send the command again");
                vec![Action::RefuseCommand { counter, why }]
            }
        }
    }

    fn adopt_unsaved(&mut self, next: Ledger) {
        self.ledger = next;
        self.unsaved = true;
    }
}

pub(super) fn rolled_back(reason: &Reason) -> Note {
    Note { outcome: Outcome::RolledBack, code: reason.code().to_owned(), why: reason.to_string(), again: reason.may_be_tried_again() }
}
