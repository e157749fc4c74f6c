//! A rollout in waves: what is published next, what is waited for, when it stops. Pure: what gateways say, time and the operator in; lines for the
//! journal and publishes out. It knows neither broker nor disk, and does not care how many gateways there are.
//!
//! ```text
//!   gateway:  waiting ─► pushed ─► trying ─► confirmed
//!                          │  ▲       └────► failed           (refused, taken back, gone with it)
//!                offline ─►pending           unknown          (there, and says nothing)
//!
//!   rollout:  wave 1 ─► done ─ soak ─► wave 2 ─► … ─► finished
//!                └────────┴──────────────┴─► stopped          more failures than allowed, a suspect document, the operator
//! ```
//!
//! 1. [`Waves::step`] takes one [`Event`] and returns [`Action`]s in order: what has to be written down comes before what rests on it.
//! 2. What must outlive the process changes only by an [`Entry`]; [`Waves::restore`] folds the same entries. So a rollout that is killed anywhere goes
//!    on as if it had not been, and publishes the same bytes again at most.
//! 3. A gateway of the next wave is given nothing before every gateway of this one is done with and the rest is over. Done with: confirmed, failed
//!    within the threshold, silent to the end, or pending: not there since before it was published. The broker keeps the document for those.
//! 4. A gateway that was there and is gone with the document is not pending. It has the document's trial and the grace to come back; then it failed.
//! 5. The first wave needs somebody who confirms. Later waves may be all pending.
//! 6. Whoever is there and neither runs nor tries it after the grace gets the same bytes again, a few times: a broker may have lost them.
//! 7. A rollout that stops takes the document away from the broker for those who have not begun with it. One whose waves are all done still stops
//!    when those who come back late fail.
//! 8. Whoever publishes something else for one of the gateways meanwhile works on the same thing: the rollout stops, and leaves what is not its own.
//!
//! Nothing is decided before the driver has read what the broker keeps ([`Event::Informed`]), and again after a lost connection.

pub mod drive;
pub mod entry;
mod gateway;
pub mod heard;
pub mod journal;
pub mod plan;
pub mod start;
pub mod told;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use self::entry::{Entry, Verdict};
use self::gateway::Gateway;
pub use self::gateway::State;
use self::heard::{About, Presence, Reported};
use self::plan::{Plan, Target};
use crate::limits::PUSHES_MAX;

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// What the broker keeps has been read (`true`), or nothing is heard any more.
    Informed(bool),
    Reported(usize, Box<Reported>),
    Presence(usize, Presence),
    /// The broker has what was published for it.
    Sent(usize),
    /// The broker does not take it.
    Refused(usize, String),
    /// Somebody else published something for it, of which this is told.
    Overwritten(usize, String),
    Tick,
    Stop {
        who: String,
        why: String,
    },
}

/// What to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make it durable; what follows must not be done before.
    Note(Entry),
    /// Publish the target's envelope, retained.
    Push(usize),
    /// Publish nothing in its place, retained.
    Withdraw(usize),
}

/// Where the rollout is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    New,
    Pushing(usize),
    Soaking { wave: usize, since_ms: i64 },
    Stopped { why: String, wave: usize },
    Finished,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Waves {
    plan: Plan,
    phase: Phase,
    gateways: Vec<Gateway>,
    informed: bool,
    only_reads: bool,
}

impl Waves {
    pub fn new(plan: Plan) -> Self {
        Self { gateways: vec![Gateway::default(); plan.targets.len()], plan, phase: Phase::New, informed: false, only_reads: false }
    }

    /// A rollout as its journal left it. Entries that do not fit the plan are passed over.
    pub fn restore<'e>(plan: Plan, entries: impl IntoIterator<Item = &'e Entry>) -> Self {
        let mut waves = Self::new(plan);
        entries.into_iter().for_each(|entry| waves.apply(entry));
        waves
    }

    /// While it does, what gateways say is taken in, and the rollout stays where it is.
    pub fn only_reads(&mut self, only_reads: bool) {
        self.only_reads = only_reads;
    }

    /// There are failures or suspicions that it would stop at again.
    pub fn needs_acceptance(&self) -> bool {
        self.reason_to_stop().is_some()
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Stopped { .. } | Phase::Finished)
    }

    /// The wave that is under way, or was.
    pub fn wave(&self) -> usize {
        match &self.phase {
            Phase::New => 0,
            Phase::Pushing(wave) | Phase::Soaking { wave, .. } | Phase::Stopped { wave, .. } => *wave,
            Phase::Finished => self.plan.waves.len() - 1,
        }
    }

    pub fn verdict(&self, target: usize) -> (&Verdict, i64) {
        (&self.gateways[target].verdict, self.gateways[target].verdict_ms)
    }

    pub fn seen_ms(&self, target: usize) -> Option<i64> {
        self.gateways[target].seen_ms
    }

    pub fn reported(&self, target: usize) -> Option<&Reported> {
        self.gateways[target].reported.as_ref()
    }

    pub fn state(&self, target: usize) -> State {
        let gateway = &self.gateways[target];
        match &gateway.verdict {
            Verdict::Confirmed => State::Confirmed,
            Verdict::Failed { .. } => State::Failed,
            Verdict::Unknown => State::Unknown,
            Verdict::Open if gateway.times == 0 => State::Waiting,
            Verdict::Open if !gateway.is_there() && gateway.seen_ms.is_some() => State::Gone,
            Verdict::Open if self.about(target) == About::Tries => State::Trying,
            Verdict::Open if !gateway.pushed => State::Waiting,
            Verdict::Open if gateway.is_there() || !gateway.sent => State::Pushed,
            Verdict::Open => State::Pending,
        }
    }

    fn about(&self, target: usize) -> About {
        let Target { revision, digest, .. } = &self.plan.targets[target];
        self.gateways[target].reported.as_ref().map_or(About::Nothing, |reported| reported.about(*revision, *digest))
    }

    /// Gateways for which it went wrong, beyond those that were accepted.
    pub fn failures(&self) -> usize {
        self.gateways.iter().filter(|gateway| gateway.failed() && !gateway.accepted).count()
    }

    // ---- what happened ----

    /// Takes an event; see [`Action`].
    pub fn step(&mut self, now_ms: i64, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut stop = None;
        let whom = match &event {
            Event::Reported(target, _)
            | Event::Presence(target, _)
            | Event::Sent(target)
            | Event::Refused(target, _)
            | Event::Overwritten(target, _) => *target..*target + 1,
            Event::Informed(_) | Event::Tick | Event::Stop { .. } => 0..self.gateways.len(),
        };
        match event {
            Event::Informed(informed) => {
                self.informed(now_ms, informed);
                if informed && !self.only_reads {
                    self.withdraw_again(&mut actions);
                }
            }
            Event::Reported(target, reported) => {
                let gateway = &mut self.gateways[target];
                let other = gateway.reported.as_ref() != Some(&*reported);
                gateway.reported = Some(*reported);
                if other {
                    gateway.quiet_ms = Some(now_ms);
                }
            }
            Event::Presence(target, presence) => {
                let gateway = &mut self.gateways[target];
                if gateway.is_there() != presence.online || gateway.quiet_ms.is_none() {
                    gateway.quiet_ms = Some(now_ms);
                }
                gateway.presence = Some(presence);
            }
            Event::Sent(target) => {
                self.gateways[target].quiet_ms = Some(now_ms);
                if self.gateways[target].pushed && !self.gateways[target].sent {
                    self.note(Entry::Sent { target, at_ms: now_ms }, &mut actions);
                }
            }
            Event::Refused(target, why) => stop = Some(format!("{}: {why}", self.plan.targets[target].name())),
            Event::Overwritten(target, what) => {
                if !self.is_over() {
                    self.note(Entry::Overwritten { target, at_ms: now_ms }, &mut actions);
                    let name = self.plan.targets[target].name();
                    stop = Some(format!("{name}: somebody else published {what} for it; agree with them, then resume, or begin anew"));
                }
            }
            Event::Tick => {}
            Event::Stop { who, why } => {
                stop = Some(format!("{who} stopped it: {why}"));
                self.withdraw_again(&mut actions);
            }
        }
        if self.informed {
            whom.for_each(|target| self.judge(target, now_ms, &mut actions));
        }
        if !matches!(self.phase, Phase::Stopped { .. }) && !self.only_reads {
            let stop = stop.or_else(|| self.informed.then(|| self.reason_to_stop()).flatten());
            match stop {
                Some(why) => self.stop(now_ms, why, &mut actions),
                None if self.informed => self.advance(now_ms, &mut actions),
                None => {}
            }
        }
        actions.sort_by_key(|action| !matches!(action, Action::Note(_))); // stable: all lines first, then what rests on them
        actions
    }

    /// What was published and never answered is published again at once; the others have their time from now.
    fn informed(&mut self, now_ms: i64, informed: bool) {
        self.informed = informed;
        for gateway in self.gateways.iter_mut().filter(|_| informed) {
            if gateway.pushed && !gateway.sent {
                gateway.quiet_ms = None;
            } else {
                gateway.quiet_ms.get_or_insert(now_ms);
            }
        }
    }

    /// Of a rollout that is stopped: the connection, or whoever stopped it, may have ended before the broker knew.
    fn withdraw_again(&self, actions: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Stopped { .. }) {
            let is_ours =
                |target: &usize| self.gateways[*target].times > 0 && !self.gateways[*target].pushed && !self.gateways[*target].foreign;
            let left = (0..self.gateways.len()).filter(is_ours);
            actions.extend(left.filter(|target| !matches!(self.state(*target), State::Confirmed | State::Trying)).map(Action::Withdraw));
        }
    }

    fn note(&mut self, entry: Entry, actions: &mut Vec<Action>) {
        self.apply(&entry);
        actions.push(Action::Note(entry));
    }

    /// What is to be learnt of one gateway.
    fn judge(&mut self, target: usize, now_ms: i64, actions: &mut Vec<Action>) {
        let gateway = &self.gateways[target];
        if gateway.times == 0 {
            return;
        }
        let about = self.about(target);
        if gateway.seen_ms.is_none() && gateway.pushed && (gateway.is_there() || about != About::Nothing && gateway.presence.is_none()) {
            self.note(Entry::Seen { target, at_ms: now_ms }, actions);
        }
        let gateway = &self.gateways[target];
        let now = match about {
            About::Runs => Verdict::Confirmed,
            About::Not { code, reason } => Verdict::Failed { code, reason },
            About::Unnamed { code, reason, mark }
                if gateway.verdict == Verdict::Open && gateway.pushed && !gateway.known.contains(&mark) =>
            {
                Verdict::Failed { code, reason }
            }
            About::Tries if gateway.is_there() => Verdict::Open,
            _ => self.silence(target, now_ms),
        };
        if now != gateway.verdict {
            self.note(Entry::Became { target, verdict: now, at_ms: now_ms }, actions);
        }
        let gateway = &self.gateways[target];
        if gateway.verdict == Verdict::Confirmed {
            let fresh: Vec<(String, String)> = gateway.presence.iter().flat_map(|presence| presence.suspects.iter().cloned()).collect();
            for (mark, text) in
                fresh.into_iter().filter(|(mark, _)| !gateway.known.contains(mark) && !gateway.suspected.contains(mark)).collect::<Vec<_>>()
            {
                self.note(Entry::Suspect { target, mark, text, at_ms: now_ms }, actions);
            }
        }
    }

    /// The verdict on a gateway that says nothing of the document.
    fn silence(&self, target: usize, now_ms: i64) -> Verdict {
        let gateway = &self.gateways[target];
        let Some(quiet_ms) = gateway.quiet_ms.filter(|_| gateway.verdict == Verdict::Open && gateway.pushed && gateway.sent) else {
            return gateway.verdict.clone();
        };
        let quiet = now_ms.saturating_sub(quiet_ms);
        let grace = self.grace_ms();
        let trial = i64::try_from(self.plan.targets[target].trial_s.saturating_mul(1000)).unwrap_or(i64::MAX);
        if gateway.is_there() && gateway.times >= PUSHES_MAX && quiet >= grace {
            Verdict::Unknown
        } else if !gateway.is_there() && gateway.seen_ms.is_some() && quiet >= trial.saturating_add(grace) {
            let reason = "it was there when the document came, went away, and has not come back within the trial; see whether the document is the cause";
            Verdict::Failed { code: "gone".to_owned(), reason: reason.to_owned() }
        } else {
            Verdict::Open
        }
    }

    fn grace_ms(&self) -> i64 {
        i64::try_from(self.plan.grace_s.saturating_mul(1000)).unwrap_or(i64::MAX)
    }

    // ---- what follows ----

    fn reason_to_stop(&self) -> Option<String> {
        let begun = self.plan.waves[self.wave()];
        let suspect = self.gateways.iter().position(|gateway| gateway.suspected.iter().any(|mark| !gateway.known.contains(mark)));
        if let Some(target) = suspect {
            return Some(format!("{} says that the document is suspect (document_suspect)", self.plan.targets[target].name()));
        }
        let (failures, allowed) = (self.failures(), self.plan.threshold.allows(begun));
        if failures > allowed {
            let newest = (0..self.gateways.len())
                .filter(|target| self.gateways[*target].failed() && !self.gateways[*target].accepted)
                .max_by_key(|target| self.gateways[*target].verdict_ms)?;
            let what = match &self.gateways[newest].verdict {
                Verdict::Failed { code, reason } => format!("{code}: {reason}"),
                _ => "is there and says nothing of the document".to_owned(),
            };
            let name = self.plan.targets[newest].name();
            return Some(format!("{failures} failed, {allowed} may; the last is {name}: {what}"));
        }
        let Phase::Pushing(wave) = self.phase else { return None };
        let nobody = failures > 0 && self.plan.wave(wave).all(|target| self.gateways[target].failed());
        nobody.then(|| format!("nobody of wave {} confirmed it", wave + 1))
    }

    fn stop(&mut self, now_ms: i64, why: String, actions: &mut Vec<Action>) {
        self.note(Entry::Stopped { why, at_ms: now_ms }, actions);
        for target in 0..self.gateways.len() {
            if self.gateways[target].pushed && !matches!(self.state(target), State::Confirmed | State::Trying) {
                self.note(Entry::Withdraw { target, at_ms: now_ms }, actions);
                actions.push(Action::Withdraw(target));
            }
        }
    }

    fn advance(&mut self, now_ms: i64, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::New => self.note(Entry::Wave { wave: 0, at_ms: now_ms }, actions),
            Phase::Soaking { wave, since_ms } if now_ms >= since_ms.saturating_add(self.plan.soak_ms(wave)) => {
                self.note(Entry::Wave { wave: wave + 1, at_ms: now_ms }, actions);
            }
            _ => {}
        }
        self.publish_again(now_ms, actions);
        let Phase::Pushing(wave) = self.phase else { return };
        for target in 0..self.plan.waves[wave] {
            let gateway = &self.gateways[target];
            if !gateway.pushed && gateway.verdict == Verdict::Open && self.plan.is_open(target, now_ms) {
                self.push(target, now_ms, actions);
            }
        }
        if self.is_done(wave) {
            let is_last = wave + 1 == self.plan.waves.len();
            self.note(if is_last { Entry::Finished { at_ms: now_ms } } else { Entry::Done { wave, at_ms: now_ms } }, actions);
        }
    }

    fn push(&mut self, target: usize, now_ms: i64, actions: &mut Vec<Action>) {
        let gateway = &mut self.gateways[target];
        gateway.quiet_ms = Some(now_ms);
        let mut known: Vec<String> = gateway.known.iter().cloned().collect();
        if gateway.times == 0 {
            known.extend(gateway.presence.iter().flat_map(|presence| presence.suspects.iter().map(|(mark, _)| mark.clone())));
        }
        let times = gateway.times + 1;
        let Target { revision, digest, .. } = &self.plan.targets[target];
        if let Some(About::Unnamed { mark, .. }) =
            self.gateways[target].reported.as_ref().map(|reported| reported.about(*revision, *digest))
        {
            known.push(mark);
        }
        self.note(Entry::Push { target, times, known, at_ms: now_ms }, actions);
        actions.push(Action::Push(target));
        self.judge(target, now_ms, actions); // it may run already, or be there
    }

    /// The same bytes for those whose broker may have lost them, and for those whose publish was never answered.
    fn publish_again(&mut self, now_ms: i64, actions: &mut Vec<Action>) {
        for target in 0..self.gateways.len() {
            let gateway = &self.gateways[target];
            if !gateway.pushed || gateway.verdict != Verdict::Open {
                continue;
            }
            // On one connection every publish is answered, or the connection is over.
            let unanswered = !gateway.sent && gateway.quiet_ms.is_none();
            let quiet = gateway.quiet_ms.map_or(0, |since| now_ms.saturating_sub(since));
            let says_nothing = matches!(self.about(target), About::Nothing | About::Unnamed { .. });
            let unheard = gateway.sent && gateway.is_there() && gateway.times < PUSHES_MAX && says_nothing && quiet >= self.grace_ms();
            if unanswered || unheard {
                self.push(target, now_ms, actions);
            }
        }
    }

    fn is_done(&self, wave: usize) -> bool {
        let states: Vec<State> = self.plan.wave(wave).map(|target| self.state(target)).collect();
        let settled = |state: &State| matches!(state, State::Confirmed | State::Failed | State::Unknown | State::Pending);
        let is_proven = states.contains(&State::Confirmed) || !states.contains(&State::Pending);
        states.iter().all(settled) && (is_proven || wave > 0 && states.iter().all(|state| *state == State::Pending))
    }

    /// The only place where what is durable changes.
    fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Plan { .. } => {}
            Entry::Wave { wave, .. } => self.phase = Phase::Pushing((*wave).min(self.plan.waves.len() - 1)),
            Entry::Done { wave, at_ms } => {
                self.phase = Phase::Soaking { wave: (*wave).min(self.plan.waves.len() - 1), since_ms: *at_ms };
            }
            Entry::Finished { .. } => self.phase = Phase::Finished,
            Entry::Stopped { why, .. } => self.phase = Phase::Stopped { why: why.clone(), wave: self.wave() },
            Entry::Resumed { accepts, .. } => self.resumed(*accepts),
            Entry::Push { target, .. }
            | Entry::Sent { target, .. }
            | Entry::Seen { target, .. }
            | Entry::Became { target, .. }
            | Entry::Suspect { target, .. }
            | Entry::Overwritten { target, .. }
            | Entry::Withdraw { target, .. } => {
                if let Some(gateway) = self.gateways.get_mut(*target) {
                    gateway.apply(entry);
                }
            }
        }
    }

    fn resumed(&mut self, accepts: bool) {
        if let Phase::Stopped { wave, .. } = self.phase {
            self.phase = Phase::Pushing(wave);
        }
        if accepts {
            for gateway in &mut self.gateways {
                gateway.accepted = gateway.failed();
                let suspected = std::mem::take(&mut gateway.suspected);
                gateway.known.extend(suspected);
            }
        }
    }
}
