//! What somebody orders for a time, and what ends by itself: overrides, maintenance windows. Pure.
//!
//! ```text
//!   asked ─► `reason` ─► put ─► charge ─► written (`spool::small`, durable) ─► holds
//!     tick: pass ─► what is over leaves, its keeper says so;  is_due ─► charge ─► written
//!     stop: settle ─► written: exactly what is left      kill ─► read: what the file said is left
//! ```
//!
//! 1. Time counts while the agent runs, as its keeper measures it by `Instant` (I10). The file says what is left at the end of the slice that runs:
//!    a slice is charged, and written, before its time passes. So a kill costs up to a slice and never adds time, however often it comes; a slice
//!    is an eighth of what is left within [`TIMED_SLICE_RANGE`], which makes few writes.
//! 2. The wall clock is told to people. Where an owner wants it to end things too ([`Timed::is_past`]), it only can where both the begin and now are
//!    believed, and only early: a clock that jumps adds no time.
//! 3. An entry of a file of which something cannot be read holds nothing; none holds longer than its owner lets any.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::WallTime;
use crate::limits::{TIMED_REASON_CHARS_MAX, TIMED_SLICE_RANGE, TIMED_TIME_MIN};

/// One thing that holds for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timed<T> {
    pub what: T,
    pub who: String,
    pub reason: String,
    pub set_at: WallTime,
    /// What was asked for.
    pub asked: Duration,
    /// What is left of it.
    pub left: Duration,
    /// What the file says is left.
    pub charged: Duration,
}

impl<T> Timed<T> {
    pub fn new(what: T, (who, reason): (String, String), set_at: WallTime, asked: Duration) -> Self {
        Self { what, who, reason, set_at, asked, left: asked, charged: asked }
    }

    /// As it is written, with `what` in the words of its owner's file.
    pub fn written<W>(&self, what: impl Fn(&T) -> W) -> TimedV1<W> {
        TimedV1 {
            what: what(&self.what),
            who: self.who.clone(),
            reason: self.reason.clone(),
            set_at_ms: self.set_at.unix_ms,
            clock_suspect: self.set_at.suspect,
            asked_ms: ms(self.asked),
            left_ms: ms(self.charged),
        }
    }

    /// Over by the wall clock, as far as that can be believed.
    pub fn is_past(&self, now: WallTime) -> bool {
        !now.suspect && !self.set_at.suspect && now.unix_ms >= later(self.set_at, self.asked)
    }
}

/// For people, but for [`Timed::is_past`].
pub fn later(at: WallTime, time: Duration) -> i64 {
    at.unix_ms.saturating_add_unsigned(ms(time))
}

pub fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The reason as it is kept, where reason and time may be asked like this; `what`: an override, say.
pub fn reason(reason: &str, what: &str, time: Duration, time_max: Duration) -> Result<String, String> {
    let reason: String = reason.chars().filter(|c| !c.is_control()).take(TIMED_REASON_CHARS_MAX).collect();
    if reason.trim().is_empty() {
        return Err("say why; it is shown and audited".to_owned());
    }
    if !(TIMED_TIME_MIN..=time_max).contains(&time) {
        return Err(format!("{what} holds for a second up to {} hours", time_max.as_secs() / 3600));
    }
    Ok(reason)
}

/// All that hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding<T>(Vec<Timed<T>>);

impl<T> Default for Holding<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Holding<T> {
    pub fn list(&self) -> &[Timed<T>] {
        &self.0
    }

    pub fn put(&mut self, one: Timed<T>) {
        self.0.push(one);
    }

    pub fn take(&mut self, goes: impl Fn(&Timed<T>) -> bool) -> Vec<Timed<T>> {
        self.0.extract_if(.., |one| goes(one)).collect()
    }

    /// Time passes; takes out those whose time is over.
    pub fn pass(&mut self, time: Duration) -> Vec<Timed<T>> {
        for one in &mut self.0 {
            one.left = one.left.saturating_sub(time);
        }
        self.take(|one| one.left.is_zero())
    }

    /// Whether the file must say less than it does before more time may pass.
    pub fn is_due(&self) -> bool {
        self.0.iter().any(|one| one.left <= one.charged)
    }

    /// Charges the next slice of each ahead; to be written before it counts.
    pub fn charge(&mut self) {
        let (least, most) = TIMED_SLICE_RANGE;
        for one in &mut self.0 {
            one.charged = one.left.saturating_sub((one.left / 8).clamp(least, most));
        }
    }

    /// Nothing runs any more: the file is to say what is left.
    pub fn settle(&mut self) {
        for one in &mut self.0 {
            one.charged = one.left;
        }
    }

    /// As it is written, with `what` in the words of its owner's file.
    pub fn written<W>(&self, what: impl Fn(&T) -> W) -> Vec<TimedV1<W>> {
        self.0.iter().map(|one| one.written(&what)).collect()
    }

    /// What was [`written`](Self::written).
    pub fn read<W>(list: Vec<TimedV1<W>>, time_max: Duration, what: impl Fn(W) -> Option<T>) -> Self {
        Self(list.into_iter().filter_map(|one| one.read(time_max, &what)).collect())
    }
}

/// How one stands in a file. Its fields and their order are fixed.
#[derive(Debug, Serialize, Deserialize)]
pub struct TimedV1<W> {
    what: W,
    who: String,
    reason: String,
    set_at_ms: i64,
    clock_suspect: bool,
    asked_ms: u64,
    left_ms: u64,
}

impl<W> TimedV1<W> {
    /// What was [`written`](Timed::written).
    pub fn read<T>(self, time_max: Duration, what: impl Fn(W) -> Option<T>) -> Option<Timed<T>> {
        let set_at = WallTime { unix_ms: self.set_at_ms, suspect: self.clock_suspect };
        let [asked, left] = [self.asked_ms, self.left_ms].map(|ms| Duration::from_millis(ms).min(time_max));
        Some(Timed { left, charged: left, ..Timed::new(what(self.what)?, (self.who, self.reason), set_at, asked) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::RELEASED_AT_MS;

    const AT: WallTime = WallTime { unix_ms: RELEASED_AT_MS, suspect: false };
    const HOUR: Duration = Duration::from_hours(1);

    fn holding() -> Holding<()> {
        let mut holding = Holding::default();
        holding.put(Timed::new((), ("kim".into(), "works".into()), AT, HOUR));
        holding.charge();
        holding
    }

    /// I10: nothing holds longer than asked, whatever the clock does and however often the agent is killed.
    #[test]
    fn nothing_holds_longer_than_asked_however_often_the_agent_is_killed() {
        for kill_every in [1, 3, 7, 61, 400, u64::MAX] {
            for jump in [0, -86_400_000 * 3650, 86_400_000 * 3650] {
                let (mut holding, mut ran, mut writes) = (holding(), 0, 0);
                while !holding.list().is_empty() {
                    ran += 1;
                    holding.pass(Duration::from_secs(1));
                    let now = WallTime { unix_ms: AT.unix_ms + ran * 1000 + jump, suspect: jump < 0 };
                    holding.take(|one| one.is_past(now));
                    if holding.is_due() {
                        holding.charge();
                        writes += 1;
                    }
                    if ran.cast_unsigned() % kill_every == 0 {
                        holding = Holding::read(holding.written(|()| ()), HOUR, Some);
                        holding.pass(Duration::ZERO);
                        holding.charge();
                    }
                }
                assert!(ran <= 3600, "killed every {kill_every} s, clock {jump}: {ran}");
                assert!(kill_every != u64::MAX || jump > 0 || (ran == 3600 && writes < 120), "{ran} {writes}");
            }
        }
    }

    /// I10.
    #[test]
    fn a_clock_that_nobody_believes_ends_nothing() {
        let one = Timed::new((), ("kim".into(), "works".into()), AT, HOUR);
        let at = |unix_ms, suspect| WallTime { unix_ms, suspect };
        assert!(!one.is_past(at(AT.unix_ms + 3_599_999, false)) && one.is_past(at(AT.unix_ms + 3_600_000, false)));
        assert!(!one.is_past(at(i64::MAX, true)) && !Timed { set_at: at(0, true), ..one }.is_past(AT));
    }

    #[test]
    fn a_stop_in_order_costs_nothing_and_a_file_gives_nobody_more_than_may_be() {
        let mut holding = holding();
        holding.settle();
        let again = Holding::read(holding.written(|()| ()), HOUR, Some);
        assert_eq!(again, holding);
        assert_eq!(again.list()[0].left, HOUR);
        let cut = Holding::read(holding.written(|()| ()), HOUR / 2, Some);
        assert_eq!((cut.list()[0].left, cut.list()[0].asked), (HOUR / 2, HOUR / 2));
        assert!(Holding::<()>::read(holding.written(|()| ()), HOUR, |()| None).list().is_empty());
    }

    #[test]
    fn a_reason_is_asked_for_and_kept_in_bounds() {
        let ask = |text: &str, time| reason(text, "an override", time, HOUR);
        assert_eq!(ask("a\u{7}b", HOUR), Ok("ab".into()));
        assert_eq!(ask(&"x".repeat(999), HOUR).unwrap().len(), TIMED_REASON_CHARS_MAX);
        assert!(ask(" \n", HOUR).unwrap_err().contains("say why"));
        for time in [Duration::ZERO, HOUR + Duration::from_secs(1)] {
            assert_eq!(ask("x", time).unwrap_err(), "an override holds for a second up to 1 hours");
        }
    }
}
