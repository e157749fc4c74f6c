//! What was, for whoever looks at the status page afterwards: outages of the uplink and recent events. Pure; time is monotonic and passed in.
//!
//! 1. The board tells of every change as it happens; nothing here asks for anything.
//! 2. Times are kept as the time since the agent started, and shown as how long ago; the time of day is worked out when it is shown, from the clock
//!    of that moment. So events from before a box found its time are told right afterwards (I10).
//! 3. Everything is bounded (I4): the oldest outage goes, and the timeline then begins later; of events that are alike (what flaps) the oldest of
//!    them goes first. What went is counted.
//! 4. Events begin with the process and end with it, and say so: what was before a start is in the journal of the system. Outages of earlier runs
//!    are told by [`earlier`](super::earlier), by the wall clock; between two runs nothing is known.
//!
//! An outage is a stretch without a connection. The first connection of a start is not the end of one unless an attempt failed before it.

use std::collections::VecDeque;
use std::time::Duration;

use super::board::UplinkState;
use super::condition::Severity;
use super::earlier::{Past, Run};
use crate::clock::WallTime;
use crate::limits::{EVENTS_KEPT, EVENTS_KEPT_ALIKE, HISTORY_TEXT_CHARS_MAX, OUTAGES_KEPT};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Started,
    Raised(&'static str, Severity),
    Cleared(&'static str),
    Configured,
}

#[derive(Debug)]
struct Event {
    at: Duration,
    kind: Kind,
    subject: String,
    text: String,
}

#[derive(Debug)]
struct Outage {
    from: Duration,
    /// `None`: it lasts.
    to: Option<Duration>,
    why: String,
}

/// Since the agent started.
#[derive(Debug, Default)]
pub struct History {
    outages: VecDeque<Outage>,
    /// Before it, outages are no longer known one by one.
    complete_from: Duration,
    has_connected: bool,
    /// How often an outage began or ended.
    changes: u64,
    /// The oldest first.
    earlier: Vec<Run>,
    events: VecDeque<Event>,
    events_dropped: u64,
}

/// As it is shown: everything by how long ago it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryView {
    /// How far back the outages are known.
    pub known: Duration,
    /// Less than since the start: outages before that were dropped.
    pub is_cut: bool,
    /// Stretches of earlier runs that are known, the newest first: from, to.
    pub earlier: Vec<(Duration, Duration)>,
    /// Of all of them, the newest first.
    pub outages: Vec<OutageView>,
    /// The newest first.
    pub events: Vec<EventView>,
    pub events_dropped: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutageView {
    pub began_ago: Duration,
    /// `None`: it lasts.
    pub ended_ago: Option<Duration>,
    pub why: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventView {
    pub ago: Duration,
    pub kind: Kind,
    pub subject: String,
    pub text: String,
}

impl History {
    /// The uplink's state, also where it is as before.
    pub fn uplink(&mut self, at: Duration, state: UplinkState, error: Option<&str>) {
        let lasting = self.outages.back_mut().filter(|outage| outage.to.is_none());
        match (state, lasting) {
            (UplinkState::Connected, lasting) => {
                if let Some(outage) = lasting {
                    outage.to = Some(at);
                    self.changes += 1;
                }
                self.has_connected = true;
            }
            // The newest reason is the one to act on.
            (UplinkState::Connecting | UplinkState::Down, Some(outage)) => {
                if let Some(why) = error {
                    outage.why = short(why);
                }
            }
            (UplinkState::Down, None) => self.outage(at, error),
            (UplinkState::Connecting, None) if self.has_connected => self.outage(at, error),
            (UplinkState::Connecting, None) => {}
        }
    }

    fn outage(&mut self, at: Duration, error: Option<&str>) {
        if self.outages.len() == OUTAGES_KEPT
            && let Some(gone) = self.outages.pop_front()
        {
            self.complete_from = gone.to.unwrap_or(at);
        }
        self.changes += 1;
        let from = if self.has_connected { at } else { Duration::ZERO };
        self.outages.push_back(Outage { from, to: None, why: short(error.unwrap_or_default()) });
    }

    pub fn event(&mut self, at: Duration, kind: Kind, subject: &str, text: &str) {
        let is_alike = |event: &Event| event.kind == kind && event.subject == subject;
        if self.events.iter().filter(|event| is_alike(event)).count() >= EVENTS_KEPT_ALIKE
            && let Some(oldest) = self.events.iter().position(is_alike)
        {
            self.events.remove(oldest);
            self.events_dropped += 1;
        }
        if self.events.len() == EVENTS_KEPT {
            self.events.pop_front();
            self.events_dropped += 1;
        }
        self.events.push_back(Event { at, kind, subject: short(subject), text: short(text) });
    }

    pub fn outage_changes(&self) -> u64 {
        self.changes
    }

    pub fn remember(&mut self, earlier: Vec<Run>) {
        self.earlier = earlier;
    }

    /// This run by the wall clock; `None`: that cannot be believed.
    pub fn run(&self, now: Duration, wall: WallTime) -> Option<Run> {
        let ms = |at: Duration| wall.unix_ms.saturating_sub_unsigned(u64::try_from(now.saturating_sub(at).as_millis()).unwrap_or(u64::MAX));
        let past = |o: &Outage| Past { from_ms: ms(o.from), to_ms: ms(o.to.unwrap_or(now)), why: o.why.clone() };
        let outages = self.outages.iter().map(past).collect();
        (!wall.suspect).then(|| Run { from_ms: ms(self.complete_from), to_ms: wall.unix_ms, outages })
    }

    /// What was before the start. Runs never overlap, whatever the clock was when they were written.
    fn before(&self, now: Duration, wall: WallTime, view: &mut HistoryView) {
        let ago = |ms: i64| Duration::from_millis(u64::try_from(wall.unix_ms.saturating_sub(ms)).unwrap_or(0));
        let mut least = now;
        for run in self.earlier.iter().rev().filter(|_| !wall.suspect) {
            let ended = ago(run.to_ms).max(least);
            let began = ago(run.from_ms).max(ended);
            least = began;
            view.earlier.push((began, ended));
            let within = |ms: i64| ago(ms).clamp(ended, began);
            let outage = |o: &Past| OutageView { began_ago: within(o.from_ms), ended_ago: Some(within(o.to_ms)), why: o.why.clone() };
            view.outages.extend(run.outages.iter().rev().map(outage));
        }
    }

    pub fn view(&self, now: Duration, wall: WallTime) -> HistoryView {
        let ago = |at: Duration| now.saturating_sub(at);
        let outage = |o: &Outage| OutageView { began_ago: ago(o.from), ended_ago: o.to.map(ago), why: o.why.clone() };
        let event = |e: &Event| EventView { ago: ago(e.at), kind: e.kind, subject: e.subject.clone(), text: e.text.clone() };
        let mut view = HistoryView {
            known: ago(self.complete_from),
            is_cut: !self.complete_from.is_zero(),
            earlier: Vec::new(),
            outages: self.outages.iter().rev().map(outage).collect(),
            events: self.events.iter().rev().map(event).collect(),
            events_dropped: self.events_dropped,
        };
        self.before(now, wall, &mut view);
        view
    }
}

fn short(text: &str) -> String {
    match text.char_indices().nth(HISTORY_TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use UplinkState::{Connected, Connecting, Down};

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const WALL: WallTime = WallTime { unix_ms: crate::clock::RELEASED_AT_MS, suspect: false };

    fn shown(history: &History, seconds: u64) -> HistoryView {
        history.view(s(seconds), WALL)
    }

    /// I10: what was before the start is told by a clock that is believed, in order, whatever the clock was when it was written.
    #[test]
    fn earlier_runs_come_before_this_one_and_do_not_overlap() {
        let past =
            |from: i64, to: i64| Past { from_ms: WALL.unix_ms - from * 1000, to_ms: WALL.unix_ms - to * 1000, why: format!("{from}") };
        let run =
            |from: i64, to: i64, outages: Vec<Past>| Run { from_ms: WALL.unix_ms - from * 1000, to_ms: WALL.unix_ms - to * 1000, outages };
        let mut history = History::default();
        // The older of them says that it went on into this run; the newer one lies in the future, by a clock that was wrong.
        history.remember(vec![
            run(9000, 5000, vec![past(8000, 7000), past(6000, 5000)]),
            run(4000, 50, vec![past(300, 50)]),
            run(-50, -100, vec![]),
        ]);
        let view = shown(&history, 100);
        assert_eq!(view.known, s(100));
        assert_eq!(view.earlier, [(s(100), s(100)), (s(4000), s(100)), (s(9000), s(5000))]);
        let outages: Vec<_> = view.outages.iter().map(|o| (o.began_ago.as_secs(), o.ended_ago.unwrap().as_secs())).collect();
        assert_eq!(outages, [(300, 100), (6000, 5000), (8000, 7000)]);
        assert!(history.view(s(100), WallTime { suspect: true, ..WALL }).earlier.is_empty());
        // This run, as it is written: times by the clock, what lasts ends now.
        history.uplink(s(10), Connected, None);
        history.uplink(s(20), Down, Some("reset"));
        let written = history.run(s(100), WALL).unwrap();
        assert_eq!(written, run(100, 0, vec![Past { why: "reset".into(), ..past(80, 0) }]));
        assert_eq!((history.run(s(100), WallTime { suspect: true, ..WALL }), history.outage_changes()), (None, 1));
    }

    #[test]
    fn an_outage_lasts_from_the_loss_to_the_next_connection_and_keeps_the_newest_reason() {
        let mut history = History::default();
        history.uplink(s(0), Connecting, None);
        history.uplink(s(1), Connected, None);
        assert!(shown(&history, 5).outages.is_empty(), "to connect for the first time is no outage");
        for (at, state, error) in [(10, Down, Some("reset")), (12, Connecting, None), (13, Down, Some("refused")), (14, Connecting, None)] {
            history.uplink(s(at), state, error);
        }
        let view = shown(&history, 20);
        assert_eq!(view.outages, [OutageView { began_ago: s(10), ended_ago: None, why: "refused".into() }]);
        history.uplink(s(30), Connected, None);
        assert_eq!(shown(&history, 31).outages[0].ended_ago, Some(s(1)));
        assert_eq!(shown(&history, 31).known, s(31));
    }

    #[test]
    fn a_start_without_a_connection_is_an_outage_from_its_beginning() {
        let mut history = History::default();
        history.uplink(s(0), Connecting, None);
        history.uplink(s(7), Down, Some("no route"));
        assert_eq!(shown(&history, 9).outages, [OutageView { began_ago: s(9), ended_ago: None, why: "no route".into() }]);
    }

    /// I4: an uplink that flaps for weeks takes no more memory, and the timeline says from when on it is whole.
    #[test]
    fn what_is_remembered_is_bounded_and_says_so() {
        let mut history = History::default();
        history.uplink(s(0), Connected, None);
        for n in 0..3 * OUTAGES_KEPT as u64 {
            history.uplink(s(10 + n * 10), Down, Some(&"x".repeat(10_000)));
            history.uplink(s(15 + n * 10), Connected, None);
            history.event(s(n), Kind::Raised("uplink_down", Severity::Warning), "", "flaps");
        }
        history.event(s(1), Kind::Raised("spool_full", Severity::Error), "", "rare");
        for n in 0..2 * EVENTS_KEPT as u64 {
            history.event(s(n), Kind::Cleared("feed_silent"), &format!("feed-{n}"), "");
        }
        let view = shown(&history, 100_000);
        assert_eq!((view.outages.len(), view.events.len()), (OUTAGES_KEPT, EVENTS_KEPT));
        assert!(view.is_cut && view.known < s(100_000) && view.events_dropped > 0);
        assert!(view.outages.iter().all(|outage| outage.why.chars().count() <= HISTORY_TEXT_CHARS_MAX + 1));
        assert!(view.outages.last().unwrap().began_ago <= view.known);
    }

    #[test]
    fn what_flaps_does_not_push_out_what_is_rare() {
        let mut history = History::default();
        history.event(s(1), Kind::Raised("spool_full", Severity::Error), "", "rare");
        for n in 0..1000 {
            history.event(s(n), Kind::Raised("uplink_down", Severity::Warning), "", "flaps");
            history.event(s(n), Kind::Cleared("uplink_down"), "", "");
        }
        let view = shown(&history, 2000);
        assert!(view.events.iter().any(|event| event.text == "rare"));
        assert_eq!(view.events.len(), 2 * EVENTS_KEPT_ALIKE + 1);
    }
}
