//! The cadence over years, with both clocks in the tests' hands.

use std::collections::BTreeSet;

use jiff::civil::Date;
use jiff::tz::TimeZoneDatabase;
use jiff::{SignedDuration, ToSpan};
use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn calendar(zone: &str, by: &[Minute]) -> Calendar {
    let zone = TimeZoneDatabase::bundled().get(zone).unwrap();
    Calendar { zone, days: [true; 7], holidays: Holidays::default(), by: by.to_vec(), from: None, between: None }
}

fn by(zone: &str, by: &[Minute], grace: Duration) -> Expect {
    Expect { every: None, grace, calendar: calendar(zone, by) }
}

fn every(every: Duration) -> Expect {
    Expect { every: Some(every), grace: Duration::ZERO, calendar: calendar("UTC", &[]) }
}

/// Both clocks and the cadence of one feed.
#[derive(Debug)]
struct Bench {
    cadence: Cadence,
    now: Reading,
    missed: Vec<Timestamp>,
}

impl Bench {
    /// Watched since long ago, in a process that runs for long.
    fn new(expect: Expect, wall: &str) -> Self {
        let wall = at(wall);
        let watched = Remembered { arrived: Some(wall), ..Remembered::default() };
        Self::started(expect, wall, watched, CADENCE_START)
    }

    fn started(expect: Expect, wall: Timestamp, remembered: Remembered, since_start: Duration) -> Self {
        let mut bench =
            Self { cadence: Cadence::new(expect, remembered), now: Reading { since_start, wall, suspect: false }, missed: Vec::new() };
        bench.look();
        bench
    }

    fn look(&mut self) -> Verdict {
        self.check(false)
    }

    fn check(&mut self, arrived: bool) -> Verdict {
        let verdict = self.cadence.check(self.now, arrived);
        self.missed.extend(verdict.missed);
        verdict
    }

    /// Time passes by both clocks.
    fn pass(&mut self, time: Duration) -> Verdict {
        self.now.since_start += time;
        self.now.wall = self.now.wall.checked_add(time).unwrap();
        self.look()
    }

    /// Time passes until the wall clock shows this.
    fn until(&mut self, wall: &str) -> Verdict {
        let time = at(wall).duration_since(self.now.wall);
        self.pass(time.try_into().expect("the bench goes forwards"))
    }

    /// Somebody sets the clock.
    fn set(&mut self, wall: Timestamp) -> Verdict {
        self.now.wall = wall;
        self.look()
    }

    fn arrive(&mut self) -> Verdict {
        self.check(true)
    }

    /// The process starts again after the time `off`, with what was remembered.
    fn restart(self, expect: Expect, off: Duration) -> Self {
        let remembered = self.cadence.remember(self.now);
        Self::started(expect, self.now.wall.checked_add(off).unwrap(), remembered, Duration::ZERO)
    }
}

#[test]
fn a_missed_deadline_is_silence_until_something_comes() {
    let mut bench = Bench::new(by("America/New_York", &[360], 15 * MINUTE), "2026-11-10T15:00:00Z");
    assert_eq!(bench.until("2026-11-11T11:14:00Z").silent, None, "within its grace");
    assert_eq!(bench.until("2026-11-12T11:14:00Z").silent, None, "the window of the 11th held the arrival of the 10th");
    let verdict = bench.until("2026-11-12T11:15:00Z");
    assert_eq!((verdict.silent, verdict.missed), (Some(Silence::By(at("2026-11-12T11:00:00Z"))), Some(at("2026-11-12T11:00:00Z"))));
    assert_eq!(bench.until("2026-11-12T20:00:00Z").missed, None, "once");
    let verdict = bench.arrive();
    assert_eq!((verdict.silent, verdict.last_arrival), (None, Some(at("2026-11-12T20:00:00Z"))));
    assert_eq!(verdict.next, Some(at("2026-11-13T11:00:00Z")), "a late one stands for the deadline it missed");
    assert_eq!(bench.until("2026-11-13T11:15:00Z").silent, Some(Silence::By(at("2026-11-13T11:00:00Z"))));
    bench.arrive();
    bench.until("2026-11-13T20:00:00Z");
    assert_eq!(bench.arrive().next, Some(at("2026-11-15T11:00:00Z")), "the second one stands for the next");
    assert_eq!(bench.until("2026-11-14T11:15:00Z").silent, None);
}

#[test]
fn what_comes_within_the_grace_does_not_stand_for_the_next_deadline() {
    let mut bench = Bench::new(by("UTC", &[360, 870], 15 * MINUTE), "2026-11-10T05:00:00Z");
    bench.until("2026-11-10T06:10:00Z");
    bench.arrive();
    assert_eq!(bench.until("2026-11-10T14:45:00Z").silent, Some(Silence::By(at("2026-11-10T14:30:00Z"))));
}

#[test]
fn what_comes_before_from_does_not_count() {
    let mut expect = by("UTC", &[360], Duration::ZERO);
    expect.calendar.from = Some(240);
    let mut bench = Bench::new(expect, "2026-11-10T20:00:00Z");
    assert_eq!(bench.until("2026-11-11T06:00:00Z").silent, Some(Silence::By(at("2026-11-11T06:00:00Z"))), "a file of the evening before");
    bench.until("2026-11-12T05:00:00Z");
    bench.arrive();
    assert_eq!(bench.until("2026-11-12T06:00:00Z").silent, None);
}

#[test]
fn weekends_and_holidays_are_quiet() {
    let mut expect = by("Europe/Berlin", &[360], Duration::ZERO);
    expect.calendar.days[5..].fill(false);
    expect.calendar.holidays = Holidays::new(BTreeSet::from([jiff::civil::date(2026, 12, 25)]));
    // Thursday, 24 December
    let mut bench = Bench::new(expect, "2026-12-24T04:00:00Z");
    assert_eq!(bench.until("2026-12-28T04:59:00Z").silent, None);
    assert_eq!(bench.until("2026-12-28T05:00:00Z").silent, Some(Silence::By(at("2026-12-28T05:00:00Z"))));
}

/// Time passes second by second around the change; each deadline is missed once.
#[test]
fn a_clock_change_fires_a_deadline_once() {
    for (zone, minute, before, fires) in [
        ("America/New_York", 150, "2027-03-13T23:00:00Z", "2027-03-14T07:00:00Z"), // 02:30 does not exist: 03:00 EDT
        ("America/New_York", 90, "2026-10-31T23:00:00Z", "2026-11-01T06:30:00Z"),  // 01:30 comes twice: the second
        ("Europe/Berlin", 150, "2027-03-27T23:00:00Z", "2027-03-28T01:00:00Z"),
        ("Europe/Berlin", 150, "2026-10-24T20:00:00Z", "2026-10-25T01:30:00Z"),
        ("America/Santiago", 10, "2026-09-05T23:00:00Z", "2026-09-06T04:00:00Z"), // the gap is at midnight
    ] {
        // An arrival two days before, as of today's clock: the window is empty.
        let old = Remembered { arrived: Some(at(before).checked_sub(50 * HOUR).unwrap()), ..Remembered::default() };
        let mut bench = Bench::started(by(zone, &[minute], Duration::ZERO), at(before), old, Duration::ZERO);
        for _ in 0..9 * 60 * 6 {
            bench.pass(Duration::from_secs(10));
        }
        let near = |missed: &&Timestamp| **missed > at(before);
        assert_eq!(bench.missed.iter().filter(near).collect::<Vec<_>>(), [&at(fires)], "{zone} {minute}");
    }
}

#[test]
fn every_counts_only_hours_that_count() {
    let mut expect = every(4 * HOUR);
    expect.calendar.between = Some((360, 1320));
    let mut bench = Bench::new(expect, "2026-11-10T20:00:00Z");
    assert_eq!(bench.until("2026-11-11T07:59:00Z").silent, None, "two hours before night, two after");
    assert_eq!(bench.until("2026-11-11T08:00:00Z").silent, Some(Silence::Every));
    bench.arrive();
    assert_eq!(bench.look().next, Some(at("2026-11-11T12:00:00Z")));
    bench.until("2026-11-11T21:00:00Z");
    bench.arrive();
    assert_eq!(bench.look().next, Some(at("2026-11-12T09:00:00Z")));
}

/// Over midnight, with a day of the week that ends it and the hour that a clock change adds.
#[test]
fn hours_over_midnight_belong_to_the_day_they_begin_on() {
    let mut night = calendar("America/New_York", &[]);
    night.between = Some((22 * 60, 6 * 60));
    night.days = [false, false, false, false, false, true, false];
    let counted = night.counted(at("2026-10-30T00:00:00Z"), at("2026-11-03T00:00:00Z"));
    assert_eq!(counted, 9 * HOUR, "saturday night of the autumn change has one hour more");
    assert_eq!(night.counted_until(at("2026-10-30T00:00:00Z"), 9 * HOUR), Some(at("2026-11-01T11:00:00Z")));
    assert_eq!(night.counted(at("2026-11-01T05:30:00Z"), at("2026-11-01T06:30:00Z")), HOUR);
}

/// I10: a clock that is wrong by years, found out as such or not, makes neither silence nor peace for years.
#[test]
fn a_clock_that_is_years_off_changes_nothing_for_long() {
    for wrong in ["1970-01-01T00:00:10Z", "2016-05-01T10:00:00Z", "2036-11-10T07:00:00Z", "2036-11-15T05:59:00Z"] {
        let mut both = by("UTC", &[360], 15 * MINUTE);
        both.every = Some(30 * HOUR);
        let mut bench = Bench::new(both, "2026-11-10T05:00:00Z");
        let right = bench.until("2026-11-10T07:00:00Z");
        assert_eq!(right.silent, None);
        assert_eq!(bench.set(at(wrong)).silent, None, "{wrong}: the jump alone");
        assert_eq!(bench.pass(MINUTE).silent, None, "{wrong}");
        assert_eq!(bench.set(at("2026-11-10T07:01:00Z")).silent, None, "{wrong}: and back");
        bench.until("2026-11-11T05:30:00Z");
        bench.arrive();
        bench.set(at(wrong));
        bench.pass(Duration::from_secs(2));
        bench.set(at("2026-11-11T05:30:02Z"));
        assert_eq!(bench.until("2026-11-11T07:00:00Z").silent, None, "{wrong}");
        bench.until("2026-11-12T06:14:00Z");
        assert_eq!(bench.until("2026-11-12T06:15:00Z").missed, Some(at("2026-11-12T06:00:00Z")), "{wrong}: the next true one is said");
    }
}

/// I10: while the clock cannot be believed, deadlines wait and `every` goes by the monotonic clock.
#[test]
fn with_a_suspect_clock_only_every_is_judged() {
    let mut both = by("UTC", &[360], Duration::ZERO);
    both.every = Some(4 * HOUR);
    let mut bench = Bench::started(both, at("1970-01-01T05:59:00Z"), Remembered::default(), Duration::ZERO);
    bench.now.suspect = true;
    bench.arrive();
    assert_eq!(bench.pass(3 * HOUR).silent, None);
    assert_eq!(bench.look().next, None);
    assert_eq!(bench.pass(HOUR).silent, Some(Silence::Every));
    bench.arrive();
    let remembered = bench.cadence.remember(bench.now);
    assert!(remembered.undated && remembered.arrived.is_none(), "a time that nobody believes is not remembered");
    bench.now.suspect = false;
    assert_eq!(bench.set(at("2026-11-10T09:00:00Z")).silent, None);
    assert_eq!(bench.look().last_arrival, Some(at("2026-11-10T09:00:00Z")), "where it was, by the clock that is right");
}

#[test]
fn a_restart_neither_forgets_a_silence_nor_makes_one() {
    let expect = || by("UTC", &[360], 15 * MINUTE);
    let mut bench = Bench::new(expect(), "2026-11-10T05:00:00Z");
    bench.until("2026-11-11T06:15:00Z");
    assert!(bench.look().silent.is_some());
    let mut bench = bench.restart(expect(), MINUTE);
    assert!(bench.look().silent.is_some(), "said again at once");
    bench.arrive();
    let mut bench = bench.restart(expect(), MINUTE);
    assert_eq!(bench.pass(HOUR).silent, None);
    // Off over the deadline: what waits outside comes first.
    let mut bench = bench.restart(expect(), 24 * HOUR);
    assert_eq!(bench.pass(MINUTE).silent, None);
    assert_eq!(bench.pass(CADENCE_START).missed, Some(at("2026-11-12T06:00:00Z")), "and nothing did");
    // The same, and something did.
    bench.arrive();
    let mut bench = bench.restart(expect(), 24 * HOUR);
    bench.pass(MINUTE);
    bench.arrive();
    assert_eq!(bench.pass(CADENCE_START).silent, None);
}

/// A new feed, and one whose memory lies in the future (its clock was wrong then).
#[test]
fn a_watch_begins_without_reproach() {
    let wall = at("2026-11-10T05:50:00Z");
    let mut bench = Bench::started(by("UTC", &[360], Duration::ZERO), wall, Remembered::default(), Duration::ZERO);
    assert_eq!(bench.until("2026-11-10T12:00:00Z").silent, None, "its first window had begun before");
    assert_eq!(bench.look().last_arrival, None);
    assert_eq!(bench.look().next, Some(at("2026-11-11T06:00:00Z")));
    assert!(bench.until("2026-11-11T06:00:00Z").silent.is_some());

    let future = Remembered { arrived: Some(at("2036-01-01T00:00:00Z")), ..Remembered::default() };
    let mut bench = Bench::started(by("UTC", &[360], Duration::ZERO), wall, future, Duration::ZERO);
    bench.until("2026-11-10T12:00:00Z");
    assert!(bench.until("2026-11-12T06:00:00Z").silent.is_some(), "two days, not ten years");
}

#[test]
fn what_is_met_already_is_not_expected_next() {
    let mut bench = Bench::new(by("UTC", &[360, 870], 15 * MINUTE), "2026-11-10T05:00:00Z");
    assert_eq!(bench.look().next, Some(at("2026-11-10T14:30:00Z")), "06:00 is met");
    assert_eq!(bench.until("2026-11-10T07:00:00Z").next, Some(at("2026-11-10T14:30:00Z")));
}

/// The moments at which a zone's clock shows a time of day, or passes over it, found by going through the day minute by minute.
fn oracle(zone: &jiff::tz::TimeZone, date: Date, minute: Minute) -> Option<Timestamp> {
    let noon = zone.to_timestamp(date.at(12, 0, 0, 0)).ok()?;
    let begin = noon.checked_sub(SignedDuration::from_hours(15)).ok()?;
    let moments = (0..30 * 60).map(|n| begin.checked_add(SignedDuration::from_mins(n)).expect("within the calendar"));
    let wanted = (i32::from(minute / 60), i32::from(minute % 60));
    let mut last_exact = None;
    let mut first_behind = None;
    for moment in moments {
        let shown = zone.to_datetime(moment);
        let (hour, min) = (i32::from(shown.hour()), i32::from(shown.minute()));
        if shown.date() == date && (hour, min) == wanted {
            last_exact = Some(moment);
        }
        let is_behind = shown.date() > date || (shown.date() == date && (hour, min) > wanted);
        if is_behind && first_behind.is_none() {
            first_behind = Some(moment);
        }
    }
    last_exact.or(first_behind)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever the zone, the days and the times of day: if nothing comes, each deadline of each day that counts is missed exactly once, at the
    /// moment an independent walk through the day finds.
    #[test]
    fn nothing_came_so_each_deadline_is_missed_exactly_once(
        zone in prop::sample::select(vec!["America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Santiago",
            "Africa/Cairo", "Pacific/Chatham", "America/St_Johns", "UTC", "Asia/Tokyo", "Pacific/Apia"]),
        days in prop::array::uniform7(any::<bool>()),
        minutes in prop::collection::btree_set(0u16..1440, 1..4),
        grace in 0u64..15,
        begin in 0i32..700,
        offsets in prop::collection::vec(0u64..25, 8),
    ) {
        let minutes: Vec<Minute> = minutes.into_iter().collect();
        let mut expect = by(zone, &minutes, Duration::from_mins(grace));
        expect.calendar.days = days;
        let tz = expect.calendar.zone.clone();
        let first = jiff::civil::date(2026, 11, 1).checked_add(begin.days()).unwrap();
        // A month of days, and the months of the changes come up among the cases.
        let mut wanted = BTreeSet::new();
        for date in first.series(1.day()).take(35) {
            if days[usize::from(date.weekday().to_monday_zero_offset().unsigned_abs())] {
                wanted.extend(minutes.iter().filter_map(|minute| oracle(&tz, date, *minute)));
            }
        }
        let start = tz.to_timestamp(first.at(0, 0, 0, 0)).unwrap();
        let old = Remembered { arrived: Some(start.checked_sub(SignedDuration::from_hours(24 * 30)).unwrap()), ..Remembered::default() };
        let mut bench = Bench::started(expect, start, old, Duration::ZERO);
        let mut offsets = offsets.into_iter().cycle();
        for deadline in &wanted {
            let due = deadline.checked_add(Duration::from_mins(grace)).unwrap();
            let before = due.checked_sub(Duration::from_millis(1)).unwrap();
            if let Ok(time) = Duration::try_from(before.duration_since(bench.now.wall)) {
                bench.pass(time);
            }
            let behind = due.checked_add(Duration::from_secs(offsets.next().unwrap())).unwrap();
            if let Ok(time) = Duration::try_from(behind.duration_since(bench.now.wall)) {
                bench.pass(time);
            }
        }
        let missed: Vec<Timestamp> = bench.missed.iter().copied().filter(|missed| *missed >= start && Some(missed) <= wanted.last()).collect();
        let wanted: Vec<Timestamp> = wanted.into_iter().filter(|deadline| *deadline >= start).collect();
        prop_assert_eq!(missed, wanted);
    }

    /// I10: whatever the clock does, no deadline is missed twice, and nothing is silent as long as something came in the last hours by real time.
    #[test]
    fn a_clock_that_is_set_about_misses_nothing_twice_and_makes_no_silence(
        steps in prop::collection::vec((0u8..10, 1u64..180, -400_000i64..400_000), 1..300),
    ) {
        let mut bench = Bench::new(by("America/New_York", &[90, 360, 870], 10 * MINUTE), "2026-10-31T12:00:00Z");
        let mut quiet = Duration::ZERO;
        for (what, minutes, minutes_set) in steps {
            match what {
                0 => {
                    let wall = bench.now.wall.checked_add(SignedDuration::from_mins(minutes_set)).unwrap();
                    bench.set(wall);
                }
                1..=3 => {
                    bench.arrive();
                    bench.arrive(); // the first may have been late
                    quiet = Duration::ZERO;
                }
                4 => bench.now.suspect = !bench.now.suspect,
                _ => {
                    bench.pass(Duration::from_mins(minutes));
                    quiet += Duration::from_mins(minutes);
                }
            }
            // The shortest window is four hours and a half.
            let silent = bench.look().silent;
            prop_assert!(silent.is_none() || quiet >= 4 * HOUR, "{silent:?} after {quiet:?}");
        }
        let distinct: BTreeSet<Timestamp> = bench.missed.iter().copied().collect();
        prop_assert_eq!(distinct.len(), bench.missed.len());
    }
}
