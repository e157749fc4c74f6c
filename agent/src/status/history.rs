//! What was, for whoever looks at the status page afterwards: outages of the uplink and recent events. Pure; time is monotonic and passed in.
//!
//! 1. The board tells of every change as it happens; nothing here asks for anything.
//! 2. Times are kept as the time since the agent started, and shown as how long ago; the time of day is worked out when it is shown, from the clock
//!    of that moment. So events from before a box found its time are told right afterwards (I10).
//! 3. Everything is bounded (I4): the oldest outage goes, and the timeline then begins later; of events that are alike (what flaps) the oldest of
//!    them goes first. What went is counted.
//! 4. It begins with the process and ends with it, and says so: what was before a start is in the journal of the system.
//!
//! An outage is a stretch without a connection. The first connection of a start is not the end of one unless an attempt failed before it.

use std::collections::VecDeque;
use std::time::Duration;

use super::board::UplinkState;
use super::condition::Severity;
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
    /// The newest first.
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

    pub fn view(&self, now: Duration) -> HistoryView {
        let ago = |at: Duration| now.saturating_sub(at);
        let outage = |o: &Outage| OutageView { began_ago: ago(o.from), ended_ago: o.to.map(ago), why: o.why.clone() };
        let event = |e: &Event| EventView { ago: ago(e.at), kind: e.kind, subject: e.subject.clone(), text: e.text.clone() };
        HistoryView {
            known: ago(self.complete_from),
            is_cut: !self.complete_from.is_zero(),
            outages: self.outages.iter().rev().map(outage).collect(),
            events: self.events.iter().rev().map(event).collect(),
            events_dropped: self.events_dropped,
        }
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

    #[test]
    fn an_outage_lasts_from_the_loss_to_the_next_connection_and_keeps_the_newest_reason() {
        let mut history = History::default();
        history.uplink(s(0), Connecting, None);
        history.uplink(s(1), Connected, None);
        assert!(history.view(s(5)).outages.is_empty(), "to connect for the first time is no outage");
        for (at, state, error) in [(10, Down, Some("reset")), (12, Connecting, None), (13, Down, Some("refused")), (14, Connecting, None)] {
            history.uplink(s(at), state, error);
        }
        let view = history.view(s(20));
        assert_eq!(view.outages, [OutageView { began_ago: s(10), ended_ago: None, why: "refused".into() }]);
        history.uplink(s(30), Connected, None);
        assert_eq!(history.view(s(31)).outages[0].ended_ago, Some(s(1)));
        assert_eq!(history.view(s(31)).known, s(31));
    }

    #[test]
    fn a_start_without_a_connection_is_an_outage_from_its_beginning() {
        let mut history = History::default();
        history.uplink(s(0), Connecting, None);
        history.uplink(s(7), Down, Some("no route"));
        assert_eq!(history.view(s(9)).outages, [OutageView { began_ago: s(9), ended_ago: None, why: "no route".into() }]);
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
        let view = history.view(s(100_000));
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
        let view = history.view(s(2000));
        assert!(view.events.iter().any(|event| event.text == "rare"));
        assert_eq!(view.events.len(), 2 * EVENTS_KEPT_ALIKE + 1);
    }
}
