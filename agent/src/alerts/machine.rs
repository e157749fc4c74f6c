//! Hold-down: from conditions to alerts. Pure; time is passed in as what went by.
//!
//! ```text
//!              raised             held long enough, not silenced         its line was handed over
//!   (nothing) ───────► Held ─────────────────────────────────► Telling ───────────────────────► Told
//!                       │ over                                    │ over                          │ over
//!                       ▼                                         └───────────┬───────────────────┘
//!                   (nothing)                                   Clearing ◄────┘ line "over" ─► handed over ─► (nothing)
//! ```
//!
//! 1. What is over before its hold-down is, was never an alert. What a window silences is held on, and alerts when the window ends; what was told
//!    before a window began is not told again after it. That it is over is told in a window too.
//! 2. [`Machine::memory`] is what outlives the process. A condition that is raised again within [`ALERT_START`] after the start goes on where it was:
//!    held as long as before, told if it was. What was told and does not come back is over, and told as such.
//! 3. What somebody chose or ordered ([`Code::is_chosen`]) has its line, and is never alerting.
//! 4. At most [`ALERTS_WATCHED_MAX`] are watched, the worst first; the rest come when there is room. (I4)

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::settings::AlertSettings;
use crate::limits::{ALERT_START, ALERT_SUBJECT_BYTES_MAX, ALERTS_WATCHED_MAX};
use crate::status::condition::Code;

/// Code and subject.
pub type Key = (Code, String);

/// What is remembered of an alert.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    pub held: Duration,
    pub told: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Held,
    /// The line with this number says so and waits.
    Telling(u64),
    Told,
    /// Over; the line with this number says so.
    Clearing(u64),
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    state: State,
    held: Duration,
    is_raised: bool,
    is_silenced: bool,
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Raised(Key),
    Over(Key),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Machine {
    holds: AlertSettings,
    entries: BTreeMap<Key, Entry>,
    remembered: BTreeMap<Key, Remembered>,
    ran: Duration,
}

impl Machine {
    pub fn new(holds: AlertSettings, remembered: BTreeMap<Key, Remembered>) -> Self {
        Self { holds, entries: BTreeMap::new(), remembered, ran: Duration::ZERO }
    }

    fn hold(&self, code: Code) -> Duration {
        match code {
            Code::UplinkDown | Code::UplinkRefused | Code::HubNotSubscribed => self.holds.uplink_after,
            Code::PeerLost => self.holds.peer_after,
            // Whether the oldest critical record is old enough is the condition itself.
            _ => Duration::ZERO,
        }
    }

    /// So much time went by, and these hold now. `silenced`: whether a window keeps it quiet.
    pub fn step(&mut self, passed: Duration, mut raised: Vec<Key>, silenced: impl Fn(&Key) -> bool) -> Vec<Change> {
        self.ran += passed;
        let mut changes = Vec::new();
        self.entries.values_mut().for_each(|entry| entry.is_raised = false);
        raised.sort_by_key(|(code, _)| std::cmp::Reverse(code.severity()));
        for key in raised.into_iter().filter(|(_, subject)| subject.len() <= ALERT_SUBJECT_BYTES_MAX) {
            let (hold, is_silenced) = (self.hold(key.0), silenced(&key));
            let Some(entry) = self.entry(&key, passed) else { continue };
            (entry.is_raised, entry.is_silenced) = (true, is_silenced);
            let again = matches!(entry.state, State::Clearing(_));
            if again {
                // Over and back before anybody could be told: both lines go.
                (entry.state, entry.held) = (State::Held, Duration::ZERO);
            }
            if entry.state == State::Held && entry.held >= hold && !is_silenced {
                changes.push(Change::Raised(key));
            }
        }
        self.over(&mut changes);
        changes
    }

    fn entry(&mut self, key: &Key, passed: Duration) -> Option<&mut Entry> {
        if let Some(known) = self.entries.get_mut(key) {
            known.held = known.held.saturating_add(passed);
        } else if self.entries.len() >= ALERTS_WATCHED_MAX {
            return None;
        } else {
            let Remembered { held, told } = self.remembered.remove(key).unwrap_or_default();
            let state = if told { State::Told } else { State::Held };
            self.entries.insert(key.clone(), Entry { state, held, is_raised: true, is_silenced: false });
        }
        self.entries.get_mut(key)
    }

    fn over(&mut self, changes: &mut Vec<Change>) {
        self.entries.retain(|_, entry| entry.is_raised || entry.state != State::Held);
        let gone = self.entries.iter().filter(|(_, entry)| !entry.is_raised && !matches!(entry.state, State::Clearing(_)));
        changes.extend(gone.map(|(key, _)| Change::Over(key.clone())));
        if self.ran >= ALERT_START {
            for (key, Remembered { held, told }) in std::mem::take(&mut self.remembered) {
                if told && self.entries.len() < ALERTS_WATCHED_MAX {
                    self.entries.insert(key.clone(), Entry { state: State::Told, held, is_raised: false, is_silenced: false });
                    changes.push(Change::Over(key));
                }
            }
        }
    }

    /// The line that tells a change has this number; `None`: nobody is to be told by lines.
    pub fn telling(&mut self, change: &Change, number: Option<u64>) {
        match (change, number) {
            (Change::Raised(key), number) => {
                if let Some(entry) = self.entries.get_mut(key) {
                    entry.state = number.map_or(State::Told, State::Telling);
                }
            }
            (Change::Over(key), Some(number)) => {
                if let Some(entry) = self.entries.get_mut(key) {
                    entry.state = State::Clearing(number);
                }
            }
            (Change::Over(key), None) => drop(self.entries.remove(key)),
        }
    }

    /// Lines up to this number were handed over, or dropped. True: something is to be remembered otherwise.
    pub fn handed_over(&mut self, through: u64) -> bool {
        let before = self.entries.len();
        self.entries.retain(|_, entry| !matches!(entry.state, State::Clearing(number) if number <= through));
        let mut changed = self.entries.len() != before;
        for entry in self.entries.values_mut() {
            if matches!(entry.state, State::Telling(number) if number <= through) {
                (entry.state, changed) = (State::Told, true);
            }
        }
        changed
    }

    /// Whether somebody is alerted of it now. What somebody chose has its line, and pages nobody.
    pub fn is_alerting(&self, key: &Key) -> bool {
        let told = |e: &Entry| e.is_raised && !e.is_silenced && matches!(e.state, State::Telling(_) | State::Told);
        !key.0.is_chosen() && self.entries.get(key).is_some_and(told)
    }

    pub fn is_silenced(&self, key: &Key) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.is_raised && entry.is_silenced)
    }

    /// What outlives the process: what was told, and what is held for a while.
    pub fn memory(&self) -> BTreeMap<Key, Remembered> {
        let of = |entry: &Entry| Remembered { held: entry.held, told: matches!(entry.state, State::Told | State::Clearing(_)) };
        let now = self.entries.iter().map(|(key, entry)| (key.clone(), of(entry)));
        let worth = |(key, kept): &(Key, Remembered)| kept.told || !self.hold(key.0).is_zero();
        let waiting = self.remembered.iter().map(|(key, kept)| (key.clone(), *kept));
        now.filter(worth).chain(waiting).collect()
    }

    /// Something is held whose time is worth writing down now and then.
    pub fn is_holding(&self) -> bool {
        self.entries.iter().any(|(key, entry)| entry.state == State::Held && !self.hold(key.0).is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn machine(remembered: &[(Key, Remembered)]) -> Machine {
        let holds = AlertSettings { uplink_after: SECOND * 10, peer_after: SECOND * 30, ..AlertSettings::default() };
        Machine::new(holds, remembered.iter().cloned().collect())
    }

    fn key(code: Code) -> Key {
        (code, String::new())
    }

    /// Lines are handed over at once.
    fn tell(machine: &mut Machine, changes: &[Change]) {
        for (number, change) in (1..).zip(changes) {
            machine.telling(change, Some(number));
        }
        machine.handed_over(u64::MAX);
    }

    fn run(machine: &mut Machine, seconds: u64, raised: &[Code], silenced: bool) -> Vec<Change> {
        let mut all = Vec::new();
        for _ in 0..seconds {
            let changes = machine.step(SECOND, raised.iter().copied().map(key).collect(), |_| silenced);
            tell(machine, &changes);
            all.extend(changes);
        }
        all
    }

    #[test]
    fn an_alert_waits_for_its_hold_down_and_is_told_once_and_over_once() {
        let mut m = machine(&[]);
        assert_eq!(run(&mut m, 10, &[Code::UplinkDown], false), []);
        assert!(!m.is_alerting(&key(Code::UplinkDown)));
        assert_eq!(run(&mut m, 500, &[Code::UplinkDown], false), [Change::Raised(key(Code::UplinkDown))]);
        assert!(m.is_alerting(&key(Code::UplinkDown)));
        assert_eq!(run(&mut m, 3, &[], false), [Change::Over(key(Code::UplinkDown))]);
        assert_eq!(run(&mut m, 9, &[Code::UplinkDown], false), [], "what is over in time was never an alert");
        assert_eq!(run(&mut m, 9, &[], false), []);
        assert_eq!(run(&mut m, 1, &[Code::SpoolFull], false), [Change::Raised(key(Code::SpoolFull))], "others at once");
        assert!(m.memory().get(&key(Code::SpoolFull)).is_some_and(|kept| kept.told));
    }

    #[test]
    fn a_window_puts_an_alert_off_and_hides_no_end() {
        let mut m = machine(&[]);
        assert_eq!(run(&mut m, 60, &[Code::UplinkDown], true), []);
        assert!(m.is_silenced(&key(Code::UplinkDown)) && !m.is_alerting(&key(Code::UplinkDown)));
        assert_eq!(run(&mut m, 2, &[Code::UplinkDown], false).len(), 1, "the window is over and it still is so");
        assert_eq!(run(&mut m, 2, &[Code::UplinkDown], true), []);
        assert!(!m.is_alerting(&key(Code::UplinkDown)));
        assert_eq!(run(&mut m, 2, &[], true), [Change::Over(key(Code::UplinkDown))]);
    }

    /// I10: held by time that passes, over restarts too; what was told is told over, and not again.
    #[test]
    fn restarts_neither_put_an_alert_off_for_ever_nor_tell_it_twice() {
        let mut remembered: Vec<(Key, Remembered)> = Vec::new();
        let mut told = 0;
        for _ in 0..30 {
            let mut m = machine(&remembered);
            told += run(&mut m, 4, &[Code::PeerLost], false).len();
            remembered = m.memory().into_iter().collect();
        }
        assert_eq!(told, 1, "held for four seconds in each of thirty runs");
        let mut m = machine(&remembered);
        assert_eq!(run(&mut m, ALERT_START.as_secs() - 1, &[], false), []);
        assert_eq!(run(&mut m, 60, &[], false), [Change::Over(key(Code::PeerLost))]);
        assert!(m.memory().is_empty());
    }

    #[test]
    fn what_somebody_chose_has_its_line_and_pages_nobody() {
        let mut m = machine(&[]);
        let all: Vec<Code> = Code::ALL.iter().copied().filter(|code| code.is_chosen()).collect();
        assert_eq!(run(&mut m, 5, &all, false).len(), all.len(), "a line for each");
        assert!(all.iter().all(|code| !m.is_alerting(&key(*code))));
        assert_eq!(run(&mut m, 5, &[], false).len(), all.len());
    }

    #[test]
    fn a_line_that_was_not_handed_over_is_told_again_after_a_kill() {
        let mut m = machine(&[]);
        let changes = m.step(SECOND, vec![key(Code::SpoolFull)], |_| false);
        m.telling(&changes[0], Some(7));
        assert!(!m.handed_over(6) && m.memory().is_empty(), "nothing is remembered of it");
        assert!(m.handed_over(7) && m.memory()[&key(Code::SpoolFull)].told);
        let over = m.step(SECOND, Vec::new(), |_| false);
        m.telling(&over[0], Some(8));
        assert_eq!(m.step(SECOND, Vec::new(), |_| false), []);
        assert!(m.memory()[&key(Code::SpoolFull)].told, "that it is over has not been told yet");
        assert!(m.handed_over(8) && m.memory().is_empty());
    }

    /// I4: what is watched is bounded, and losses come first.
    #[test]
    fn the_worst_are_watched_first_and_not_more_than_fit() {
        let mut m = machine(&[]);
        let many = (0..2 * ALERTS_WATCHED_MAX).map(|n| (Code::FileHeld, n.to_string()));
        let raised = many.chain([key(Code::SpoolDamaged)]).collect();
        let changes = m.step(SECOND, raised, |_| false);
        assert_eq!((changes.len(), &changes[0]), (ALERTS_WATCHED_MAX, &Change::Raised(key(Code::SpoolDamaged))));
    }
}
