//! Expected cadence: when silence of a feed is worth saying. Pure: readings of two clocks and arrivals in, a verdict out.
//!
//! ```text
//!   every    ──arrival────────────── every + grace, counted in hours that count ──► silent
//!   by       ──┤ D1 + grace ├───── arrival? ─────┤ D2 + grace ├──► silent if none
//!              └───────────── window of D2 ──────────────┘
//!   an arrival ends silence, whichever way it began
//! ```
//!
//! 1. `watch` makes one [`Cadence`] per feed that expects something, gives it what was remembered (`arrivals`), and calls [`Cadence::check`]
//!    every few seconds with what arrived since.
//! 2. A deadline is judged once, when its grace is over: silent if nothing came in its window, which begins where the grace of the one before
//!    ended (or at `from`). Each deadline is missed at most once, however the clock is turned.
//!    What ends its silence came late for it and does not stand for the next: two deadlines want two arrivals.
//! 3. `every` runs from the last arrival, or from when the feed was first watched.
//!
//! **Which clock (I10).** How long ago something arrived is measured by the monotonic clock; only the place on the calendar is the wall clock's.
//! So an arrival moves with a clock that is set, and a clock that is wrong by years makes neither silence nor peace for years:
//!
//! - While the clock is suspect only `every` is judged, and only where every hour of every day counts. Deadlines are held.
//! - A clock that jumps (by more than [`CADENCE_JUMP`] against the monotonic one) passes the deadlines it jumped over: they are not judged. A
//!   silence it had led to is kept only if it is one by the new time as well. The next deadline is judged again.
//! - An arrival remembered from before the start is where the clock said it was; one that lies in the future counts as now.
//! - What passed while the agent did not run is judged [`CADENCE_START`] after the start, so that what waits outside can come in first. A silence
//!   that was said before the stop is said again at once.

mod arrivals;
mod calendar;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

pub use self::arrivals::Remembered;
pub use self::calendar::{Calendar, DAY, Holidays, Minute};
pub use self::watch::{Begin, Expectation, parse_date, read_holidays, run};
use crate::limits::{CADENCE_JUMP, CADENCE_MISSED_KEPT, CADENCE_START};

/// What a feed expects; at least one of `every` and the calendar's `by` is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expect {
    pub every: Option<Duration>,
    pub grace: Duration,
    pub calendar: Calendar,
}

/// What the clocks say.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Since the process started, by the monotonic clock.
    pub since_start: Duration,
    pub wall: Timestamp,
    /// The wall clock cannot be believed.
    pub suspect: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Nothing came in the window of this deadline.
    By(Timestamp),
    /// Nothing came for so long.
    Every,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub silent: Option<Silence>,
    /// A deadline that was found to be missed just now.
    pub missed: Option<Timestamp>,
    /// By when something is expected next; `None` while the clock is suspect.
    pub next: Option<Timestamp>,
    /// When something arrived last, by the clock as it is now.
    pub last_arrival: Option<Timestamp>,
}

/// The last arrival, or the begin of the watch where there was none.
#[derive(Clone, Copy, Debug)]
struct Last {
    /// By the monotonic clock; `None`: before it could be told, at or before the start.
    at: Option<Duration>,
    /// How much longer ago than the start of the process that was.
    before_start: Duration,
    /// By the wall clock of an earlier run.
    recorded: Option<Timestamp>,
    is_arrival: bool,
    /// It ended the silence after a deadline: it stands for that one, and not for the next.
    was_late: bool,
}

/// One feed's.
#[derive(Debug)]
pub struct Cadence {
    expect: Expect,
    last: Last,
    /// The last reading that was not suspect.
    before: Option<Reading>,
    /// Deadlines whose grace was over by then are not judged any more.
    judged: Option<Timestamp>,
    /// What the calendar says next, so that it is asked only when something is due.
    due: Option<Timestamp>,
    missed: VecDeque<Timestamp>,
    /// What passed before the start is still to be judged.
    passed_before: bool,
    silent: Option<Silence>,
    /// Silence was said before the stop, and nothing is known to have come since.
    was_silent: bool,
}

impl Cadence {
    pub fn new(expect: Expect, remembered: Remembered) -> Self {
        let last = Last {
            at: None,
            before_start: Duration::ZERO,
            recorded: remembered.arrived.or(remembered.watched_from).filter(|_| !remembered.undated),
            is_arrival: remembered.arrived.is_some() || remembered.undated,
            was_late: remembered.late,
        };
        Self {
            expect,
            last,
            before: None,
            judged: None,
            due: None,
            missed: VecDeque::new(),
            passed_before: false,
            silent: None,
            was_silent: remembered.silent && !remembered.undated,
        }
    }

    /// Other holidays from now on.
    pub fn set_holidays(&mut self, holidays: Holidays) {
        self.expect.calendar.holidays = holidays;
        self.due = None;
    }

    /// What is worth remembering over a restart; times only where the clock can be believed.
    pub fn remember(&self, now: Reading) -> Remembered {
        let at = if now.suspect { self.last.recorded } else { self.last_at(now) };
        let undated = at.is_none() && self.last.is_arrival;
        let (arrived, watched_from) = if self.last.is_arrival { (at, None) } else { (None, at) };
        Remembered { arrived, watched_from, undated, silent: self.silent.is_some(), late: self.last.was_late }
    }

    /// Judges. `arrived`: something came since the last call.
    pub fn check(&mut self, now: Reading, arrived: bool) -> Verdict {
        if arrived {
            // Where there is a `from`, that says what stands for which deadline.
            let was_late = matches!(self.silent, Some(Silence::By(_))) && self.expect.calendar.from.is_none();
            self.last = Last { at: Some(now.since_start), before_start: Duration::ZERO, recorded: None, is_arrival: true, was_late };
            (self.silent, self.was_silent) = (None, false);
        }
        let mut missed = None;
        if now.suspect {
            self.judge_by_age(now);
        } else {
            self.place(now);
            missed = self.judge(now);
            self.before = Some(now);
        }
        let last = if now.suspect { None } else { self.last_at(now) };
        Verdict {
            silent: self.silent,
            missed,
            next: last.and_then(|last| self.next(now.wall, last)),
            last_arrival: last.filter(|_| self.last.is_arrival),
        }
    }

    /// Time since the last arrival, as far as the monotonic clock can tell.
    fn age(&self, now: Reading) -> Duration {
        self.last.before_start + now.since_start.saturating_sub(self.last.at.unwrap_or_default())
    }

    /// The last arrival by the clock as it is now.
    fn last_at(&self, now: Reading) -> Option<Timestamp> {
        let by_age = self.last.at.and_then(|_| now.wall.checked_sub(self.age(now)).ok());
        by_age.max(self.last.recorded.filter(|recorded| *recorded <= now.wall))
    }

    /// Ties what was remembered to the monotonic clock, and notices a clock that was set.
    fn place(&mut self, now: Reading) {
        if self.last.at.is_none() {
            if let Some(recorded) = self.last.recorded.filter(|recorded| *recorded <= now.wall) {
                let age = Duration::try_from(now.wall.duration_since(recorded)).unwrap_or_default();
                self.last.at = Some(now.since_start.saturating_sub(age));
                self.last.before_start = age.saturating_sub(now.since_start);
            } else {
                // In the future, or at a time nobody knows: as late as it can have been.
                let at = if self.last.is_arrival { now.since_start } else { Duration::ZERO };
                (self.last.at, self.last.recorded) = (Some(at), None);
            }
        }
        let Some(before) = self.before else { return };
        let passed = now.since_start.saturating_sub(before.since_start);
        let expected = before.wall.checked_add(passed).unwrap_or(before.wall);
        if now.wall.duration_since(expected).unsigned_abs() <= CADENCE_JUMP {
            return;
        }
        self.judged = now.wall.checked_sub(self.expect.grace).ok();
        self.due = None;
        if let Some(Silence::By(_)) = self.silent {
            self.silent = self.unmet(now).map(Silence::By);
        }
    }

    /// The last deadline whose grace is over, if nothing came in its window.
    fn unmet(&self, now: Reading) -> Option<Timestamp> {
        let calendar = &self.expect.calendar;
        let deadline = calendar.deadline_through(now.wall.checked_sub(self.expect.grace).ok()?)?;
        let begin = calendar.window_begin(deadline, self.expect.grace)?;
        let last = self.last_at(now)?;
        (last <= begin || self.last.was_late && last < deadline).then_some(deadline)
    }

    /// The deadlines and `every`; a deadline missed just now.
    fn judge(&mut self, now: Reading) -> Option<Timestamp> {
        let grace = self.expect.grace;
        let over = now.wall.checked_sub(grace).ok()?;
        if self.judged.is_none() {
            (self.judged, self.passed_before) = (Some(over), true);
            if self.was_silent {
                self.silent = self.unmet(now).map(Silence::By);
            }
        }
        self.judge_every(now);
        if self.passed_before && now.since_start >= CADENCE_START {
            self.passed_before = false;
            if self.silent.is_none()
                && let Some(deadline) = self.unmet(now)
            {
                return self.miss(deadline);
            }
        }
        if self.due.is_some_and(|due| now.wall < due) {
            return None;
        }
        let calendar = &self.expect.calendar;
        self.due = calendar.deadline_after(over).and_then(|next| next.checked_add(grace).ok());
        let judged = self.judged.replace(over);
        let deadline = self.unmet(now).filter(|deadline| judged.is_none_or(|judged| *deadline > judged))?;
        self.miss(deadline)
    }

    fn miss(&mut self, deadline: Timestamp) -> Option<Timestamp> {
        if self.missed.contains(&deadline) {
            return None;
        }
        if self.missed.len() >= CADENCE_MISSED_KEPT {
            self.missed.pop_front();
        }
        self.missed.push_back(deadline);
        self.silent = Some(Silence::By(deadline));
        Some(deadline)
    }

    fn judge_every(&mut self, now: Reading) {
        let Some(every) = self.expect.every else { return };
        let is_of_this_run = self.last.at.is_some_and(|at| !at.is_zero());
        if !is_of_this_run && !self.was_silent && now.since_start < CADENCE_START {
            return;
        }
        let limit = every + self.expect.grace;
        // Less than the limit by any count: no need to look at the calendar.
        let is_over = self.age(now) >= limit && self.last_at(now).is_some_and(|last| self.expect.calendar.counted(last, now.wall) >= limit);
        if is_over && self.silent.is_none() {
            self.silent = Some(Silence::Every);
        }
    }

    fn judge_by_age(&mut self, now: Reading) {
        let Some(every) = self.expect.every.filter(|_| self.expect.calendar.is_always()) else { return };
        if self.silent.is_none() && self.age(now) >= every + self.expect.grace {
            self.silent = Some(Silence::Every);
        }
    }

    /// The first deadline not met yet, or when `every` is over.
    fn next(&self, now: Timestamp, last: Timestamp) -> Option<Timestamp> {
        let calendar = &self.expect.calendar;
        let deadline = calendar.deadline_after(now).and_then(|first| {
            let is_met = calendar.window_begin(first, self.expect.grace).is_some_and(|begin| last > begin)
                && self.last.is_arrival
                && !self.last.was_late;
            if is_met { calendar.deadline_after(first) } else { Some(first) }
        });
        let every = self.expect.every.and_then(|every| calendar.counted_until(last, every)).filter(|at| *at > now);
        [deadline, every].into_iter().flatten().min()
    }
}
