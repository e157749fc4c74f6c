//! When something is expected, on the calendar of a feed's time zone. Pure: instants in, instants out; the zones are compiled in.
//!
//! - A deadline is a time of day on a day that counts (`days`, not a holiday). Where a clock change leaves that time out, it is the moment behind
//!   the gap; where the clock shows it twice, the second of the two: it is over for everybody only then. Deadlines that fall on one moment are one.
//! - Hours that count (`between`) begin at the first and end at the second of two. Hours over midnight belong to the day they begin on.
//!
//! Every walk over days is bounded by [`CADENCE_DAYS_MAX`]: a calendar on which nothing is expected for longer has no deadline.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::{Date, Time, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};

use crate::limits::CADENCE_DAYS_MAX;

/// Minutes since midnight; 1440 is the midnight at the day's end.
pub type Minute = u16;
pub const DAY: Minute = 1440;

/// Dates without expectations.
pub type Holidays = Arc<BTreeSet<Date>>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    pub zone: TimeZone,
    /// Monday first.
    pub days: [bool; 7],
    pub holidays: Holidays,
    /// Ascending.
    pub by: Vec<Minute>,
    /// What comes before this time of day does not count for the deadlines behind it.
    pub from: Option<Minute>,
    /// From, to; to before from: over midnight.
    pub between: Option<(Minute, Minute)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Twice {
    First,
    Second,
}

/// A date and time of day as a moment.
fn moment(zone: &TimeZone, date: Date, minute: Minute, twice: Twice) -> Option<Timestamp> {
    let date = if minute >= DAY { date.tomorrow().ok()? } else { date };
    let minute = minute % DAY;
    let at = date.to_datetime(Time::new((minute / 60) as i8, (minute % 60) as i8, 0, 0).ok()?);
    let ambiguous = zone.to_ambiguous_timestamp(at);
    match (ambiguous.offset(), twice) {
        (AmbiguousOffset::Unambiguous { .. }, _) => ambiguous.compatible().ok(),
        (AmbiguousOffset::Fold { .. }, Twice::First) => ambiguous.earlier().ok(),
        (AmbiguousOffset::Fold { .. }, Twice::Second) => ambiguous.later().ok(),
        (AmbiguousOffset::Gap { .. }, _) => {
            let before = ambiguous.earlier().ok()?;
            zone.following(before).next().map(|change| change.timestamp())
        }
    }
}

impl Calendar {
    /// Every moment of every day counts.
    pub fn is_always(&self) -> bool {
        self.days == [true; 7] && self.holidays.is_empty() && self.between.is_none()
    }

    fn counts(&self, date: Date) -> bool {
        let day = match date.weekday() {
            Weekday::Monday => 0,
            Weekday::Tuesday => 1,
            Weekday::Wednesday => 2,
            Weekday::Thursday => 3,
            Weekday::Friday => 4,
            Weekday::Saturday => 5,
            Weekday::Sunday => 6,
        };
        self.days[day] && !self.holidays.contains(&date)
    }

    fn date(&self, at: Timestamp) -> Date {
        self.zone.to_datetime(at).date()
    }

    fn deadlines_on(&self, date: Date) -> Vec<Timestamp> {
        if !self.counts(date) {
            return Vec::new();
        }
        self.by.iter().filter_map(|minute| moment(&self.zone, date, *minute, Twice::Second)).collect()
    }

    /// The first deadline behind `at`.
    pub fn deadline_after(&self, at: Timestamp) -> Option<Timestamp> {
        if self.by.is_empty() {
            return None;
        }
        // A day too early: a day's deadlines can lie on the next one only where a whole day is left out.
        let days = self.date(at).yesterday().ok()?.series(jiff::ToSpan::days(1)).take(CADENCE_DAYS_MAX);
        let mut days = days.map(|date| self.deadlines_on(date).into_iter().filter(|deadline| *deadline > at).min());
        days.find_map(|found| found)
    }

    /// The last deadline at or before `at`.
    pub fn deadline_through(&self, at: Timestamp) -> Option<Timestamp> {
        if self.by.is_empty() {
            return None;
        }
        let days = self.date(at).tomorrow().ok()?.series(jiff::ToSpan::days(-1)).take(CADENCE_DAYS_MAX);
        let mut days = days.map(|date| self.deadlines_on(date).into_iter().filter(|deadline| *deadline <= at).max());
        days.find_map(|found| found)
    }

    /// What comes behind this counts for `deadline`; `grace` belongs to the deadline before.
    pub fn window_begin(&self, deadline: Timestamp, grace: Duration) -> Option<Timestamp> {
        let before = deadline.checked_sub(Duration::from_nanos(1)).ok()?;
        let previous = self.deadline_through(before).map(|previous| {
            // A grace that reaches over the next deadline (a gap can bring two together) leaves it its window.
            previous.checked_add(grace).ok().filter(|end| *end < deadline).unwrap_or(previous)
        });
        let from = self.from.and_then(|from| {
            let day = self.date(deadline);
            let days = [Some(day), day.yesterday().ok()].into_iter().flatten();
            let mut begins = days.filter_map(|date| moment(&self.zone, date, from, Twice::First));
            begins.find(|begin| *begin < deadline)
        });
        previous.max(from)
    }

    /// The hours that count which begin on `date`.
    fn hours_on(&self, date: Date) -> Option<Range<Timestamp>> {
        if !self.counts(date) {
            return None;
        }
        let (from, to) = self.between.unwrap_or((0, DAY));
        let begin = moment(&self.zone, date, from, Twice::First)?;
        let end_date = if to <= from { date.tomorrow().ok()? } else { date };
        // Whole days end where the next one begins.
        let twice = if to == DAY { Twice::First } else { Twice::Second };
        let end = moment(&self.zone, end_date, to, twice)?;
        (begin < end).then_some(begin..end)
    }

    /// Time between two moments that counts.
    pub fn counted(&self, from: Timestamp, to: Timestamp) -> Duration {
        if self.is_always() {
            return Duration::try_from(to.duration_since(from)).unwrap_or_default();
        }
        let Ok(first) = self.date(from).yesterday() else { return Duration::ZERO };
        let mut counted = Duration::ZERO;
        for date in first.series(jiff::ToSpan::days(1)).take(CADENCE_DAYS_MAX) {
            let Some(hours) = self.hours_on(date) else {
                if date > self.date(to) {
                    break;
                }
                continue;
            };
            if hours.start >= to {
                break;
            }
            let (begin, end) = (hours.start.max(from), hours.end.min(to));
            counted += Duration::try_from(end.duration_since(begin)).unwrap_or_default();
        }
        counted
    }

    /// When `time` that counts is over, from `from` on.
    pub fn counted_until(&self, from: Timestamp, time: Duration) -> Option<Timestamp> {
        if self.is_always() {
            return from.checked_add(time).ok();
        }
        let mut left = time;
        for date in self.date(from).yesterday().ok()?.series(jiff::ToSpan::days(1)).take(CADENCE_DAYS_MAX) {
            let Some(hours) = self.hours_on(date) else { continue };
            let begin = hours.start.max(from);
            let Ok(there) = Duration::try_from(hours.end.duration_since(begin)) else { continue };
            if there >= left {
                return begin.checked_add(left).ok();
            }
            left -= there;
        }
        None
    }
}
