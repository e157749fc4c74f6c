//! `[feed.expect]` through its three stages: when a feed is expected to bring something (`status::cadence`).
//!
//! ```toml
//! [feed.expect]
//! every = "4h"                        # at least so often; or, or also:
//! by = ["06:00", "14:30"]             # something by these times of day, each since the one before (or since `from`)
//! days = "working-days"               # default: every day
//! holidays = ["2026-12-25"]
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::tz::TimeZoneDatabase;
use toml::de::DeValue;

use super::fault::{FaultList, Place};
use super::reader::{At, Field, Section, duration, path, text, texts};
use super::settings::ExpectSettings;
use super::validate::ranged;
use crate::limits::{CADENCE_BY_MAX, CADENCE_EVERY_RANGE, CADENCE_GRACE_DEFAULT, CADENCE_GRACE_MAX, HOLIDAYS_MAX};
use crate::status::cadence::{Calendar, DAY, Expect, Holidays, Minute, parse_date};

pub(super) const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const WORKING_DAYS: &str = "working-days";

#[derive(Debug)]
pub(super) struct Written {
    place: Place,
    every: Field<Duration>,
    by: Field<Vec<String>>,
    from: Field<String>,
    days: Field<Vec<String>>,
    holidays: Field<Vec<String>>,
    holidays_file: Field<PathBuf>,
    between: Field<String>,
    grace: Field<Duration>,
}

#[derive(Debug)]
pub(super) struct Merged {
    place: Place,
    every: Field<Duration>,
    by: Field<Vec<String>>,
    from: Field<String>,
    days: Option<At<Vec<String>>>,
    holidays: Option<At<Vec<String>>>,
    pub(super) holidays_file: Field<PathBuf>,
    between: Field<String>,
    grace: Option<At<Duration>>,
}

pub(super) fn read(mut s: Section<'_, '_>, f: &mut FaultList) -> Written {
    let written = Written {
        place: s.place.clone(),
        every: s.read(f, "every", duration),
        by: s.read(f, "by", one_or_more),
        from: s.read(f, "from", text),
        days: s.read(f, "days", one_or_more),
        holidays: s.read(f, "holidays", texts),
        holidays_file: s.read(f, "holidays_file", path),
        between: s.read(f, "between", text),
        grace: s.read(f, "grace", duration),
    };
    s.finish(f);
    written
}

/// A text alone is a list of one.
fn one_or_more(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    if value.as_str().is_some() { text(value).map(|text| vec![text]) } else { texts(value) }
}

pub(super) fn merge(w: Written) -> Merged {
    let at = &w.place;
    Merged {
        days: w.days.or(DAYS.map(str::to_owned).to_vec(), at, "days"),
        holidays: w.holidays.or(Vec::new(), at, "holidays"),
        grace: w.grace.or(CADENCE_GRACE_DEFAULT, at, "grace"),
        every: w.every,
        by: w.by,
        from: w.from,
        holidays_file: w.holidays_file,
        between: w.between,
        place: w.place,
    }
}

/// `zone`: the feed's, else the gateway's; a zone that is not known is told where it stands.
pub(super) fn validate(m: &Merged, zone: Option<&str>, base: &Path, f: &mut FaultList) -> Option<ExpectSettings> {
    if m.every.is_absent() && m.by.is_absent() {
        f.add(&m.place, "expects nothing; give every = \"4h\", or by = [\"06:00\"], or both");
    }
    let (least, most) = CADENCE_EVERY_RANGE;
    let every = m.every.given().map(|at| ranged(Some(at), least..=most, "\"1m\" to \"31d\"", f));
    let by = m.by.given().map_or(Some(Vec::new()), |at| by(at, f));
    let from = m.from.given().map(|at| {
        if m.by.is_absent() {
            f.add(&at.place, "means something only with by; remove it or add by");
        }
        minute(&at.value, false).or_else(|| f.refuse(&at.place, "is not a time of day; write hours and minutes, like \"04:00\""))
    });
    let between = m.between.given().map(|at| {
        if m.every.is_absent() {
            f.add(&at.place, "means something only with every; remove it or add every");
        }
        hours(at, f)
    });
    let days = m.days.as_ref().and_then(|at| days(at, f));
    let holidays = m.holidays.as_ref().and_then(|at| holidays(at, f));
    let grace = ranged(m.grace.as_ref(), Duration::ZERO..=CADENCE_GRACE_MAX, "\"0s\" to \"12h\"", f);
    if let (Some(by), Some(at)) = (&by, m.grace.as_ref())
        && shortest_gap(by).is_some_and(|gap| at.value >= gap)
    {
        f.add(&at.place, "reaches from one time of `by` over the next; make it shorter than the time between them");
    }
    let zone = zone.and_then(|name| TimeZoneDatabase::bundled().get(name).ok());
    let calendar =
        Calendar { zone: zone?, days: days?, holidays: Holidays::new(holidays?), by: by?, from: flat(from)?, between: flat(between)? };
    let expect = Expect { every: flat(every)?, grace: grace?, calendar };
    Some(ExpectSettings { expect, holidays_file: m.holidays_file.given().map(|at| base.join(&at.value)) })
}

/// Of what is not there: nothing; of what is there and faulty: `None`.
#[expect(clippy::option_option, reason = "as said")]
pub(super) fn flat<T>(given: Option<Option<T>>) -> Option<Option<T>> {
    match given {
        None => Some(None),
        Some(read) => read.map(Some),
    }
}

/// `06:00`; `24:00` only as an end.
fn minute(text: &str, is_end: bool) -> Option<Minute> {
    let (hours, minutes) = text.split_once(':')?;
    let plain = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
    if !plain(hours) || !plain(minutes) {
        return None;
    }
    let (hours, minutes): (Minute, Minute) = (hours.parse().ok()?, minutes.parse().ok()?);
    let minute = hours * 60 + minutes;
    (minutes < 60 && (minute < DAY || is_end && minute == DAY)).then_some(minute)
}

/// As it is written.
pub(super) fn time_of_day(minute: Minute) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

fn by(at: &At<Vec<String>>, f: &mut FaultList) -> Option<Vec<Minute>> {
    if at.value.is_empty() || at.value.len() > CADENCE_BY_MAX {
        return f.refuse(&at.place, format!("must list 1 to {CADENCE_BY_MAX} times of day, like [\"06:00\", \"14:30\"]"));
    }
    let mut minutes = Vec::new();
    for (index, text) in at.value.iter().enumerate() {
        match minute(text, false) {
            None => f.add(&at.place, format!("entry {} is not a time of day from 00:00 to 23:59; write it like \"06:00\"", index + 1)),
            Some(minute) if minutes.contains(&minute) => f.add(&at.place, format!("entry {} is listed twice; remove one", index + 1)),
            Some(minute) => minutes.push(minute),
        }
    }
    minutes.sort_unstable();
    (minutes.len() == at.value.len()).then_some(minutes)
}

/// Between two deadlines, also over midnight; `None` where there is none.
fn shortest_gap(by: &[Minute]) -> Option<Duration> {
    let over_midnight = by.first().zip(by.last()).map(|(first, last)| first + DAY - last);
    let gaps = by.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.chain(over_midnight).min().map(|minutes| Duration::from_mins(minutes.into()))
}

fn hours(at: &At<String>, f: &mut FaultList) -> Option<(Minute, Minute)> {
    let read = at.value.split_once('-').and_then(|(from, to)| Some((minute(from.trim(), false)?, minute(to.trim(), true)?)));
    match read {
        Some((from, to)) if from == to => f.refuse(&at.place, "is no time at all; leave it out for the whole day"),
        Some(hours) => Some(hours),
        None => f.refuse(&at.place, "is not a part of the day; write it like \"06:00-22:00\""),
    }
}

fn days(at: &At<Vec<String>>, f: &mut FaultList) -> Option<[bool; 7]> {
    let mut days = [false; 7];
    let mut faulty = at.value.is_empty();
    for word in &at.value {
        match DAYS.iter().position(|day| day == word) {
            Some(day) => days[day] = true,
            None if word == WORKING_DAYS => days[..5].fill(true),
            None => faulty = true,
        }
    }
    if faulty {
        return f.refuse(&at.place, format!("must list days out of {}, or be \"{WORKING_DAYS}\" (mon to fri)", DAYS.join(", ")));
    }
    Some(days)
}

fn holidays(at: &At<Vec<String>>, f: &mut FaultList) -> Option<BTreeSet<jiff::civil::Date>> {
    if at.value.len() > HOLIDAYS_MAX {
        return f.refuse(&at.place, format!("lists more than {HOLIDAYS_MAX} dates"));
    }
    let dates = at.value.iter().enumerate().map(|(index, text)| {
        parse_date(text).or_else(|| f.refuse(&at.place, format!("entry {} is not a date; write it like \"2026-12-25\"", index + 1)))
    });
    let dates: Vec<_> = dates.collect(); // every entry is looked at
    dates.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use toml::de::DeTable;

    fn read_expect(lines: &str) -> Result<ExpectSettings, String> {
        let document = DeTable::parse(lines).unwrap();
        let mut f = FaultList::default();
        let merged = merge(read(Section::root(document.get_ref()), &mut f));
        let settings = validate(&merged, Some("America/New_York"), Path::new("/etc/siteward"), &mut f);
        if f.is_empty() { Ok(settings.expect("without faults there are settings")) } else { Err(format!("{f:?}")) }
    }

    #[test]
    fn everything_that_is_written_is_used_and_the_rest_has_defaults() {
        let settings = read_expect(
            "every = '4h'\nby = ['14:30', '06:00']\nfrom = '04:00'\ndays = ['mon', 'sun']\nholidays = ['2026-12-25']\n\
             holidays_file = 'holidays.txt'\nbetween = '06:00-24:00'\ngrace = '5m'",
        )
        .unwrap();
        assert_eq!(settings.holidays_file.as_deref(), Some(Path::new("/etc/siteward/holidays.txt")));
        let Expect { every, grace, calendar } = settings.expect;
        assert_eq!((every, grace), (Some(Duration::from_hours(4)), Duration::from_mins(5)));
        assert_eq!((calendar.by, calendar.from, calendar.between), (vec![360, 870], Some(240), Some((360, 1440))));
        assert_eq!(calendar.days, [true, false, false, false, false, false, true]);
        assert_eq!((calendar.holidays.len(), calendar.zone.iana_name()), (1, Some("America/New_York")));

        let least = read_expect("by = '06:00'\ndays = 'working-days'").unwrap().expect;
        assert_eq!((least.every, least.grace), (None, CADENCE_GRACE_DEFAULT));
        assert_eq!(least.calendar.days, [true, true, true, true, true, false, false]);
        assert!(read_expect("every = '1m'").unwrap().expect.calendar.is_always());
    }

    #[test]
    fn nonsense_is_refused_with_a_way_out() {
        for (lines, words) in [
            ("", "expects nothing"),
            ("days = ['mon']", "expects nothing"),
            ("every = '59s'", "out of range"),
            ("every = '32d'", "out of range"),
            ("by = []", "1 to 24 times"),
            ("by = ['24:00']", "entry 1 is not a time of day"),
            ("by = ['06:00', '6:30']", "entry 2 is not a time of day"),
            ("by = ['06:60']", "not a time of day"),
            ("by = ['06:00', '06:00']", "listed twice"),
            ("by = ['06:00', '06:10']\ngrace = '10m'", "over the next"),
            ("by = ['00:05', '23:55']\ngrace = '10m'", "over the next"),
            ("by = '06:00'\ngrace = '13h'", "out of range"),
            ("by = '06:00'\nbetween = '06:00-22:00'", "only with every"),
            ("every = '1h'\nfrom = '06:00'", "only with by"),
            ("by = '06:00'\nfrom = '24:00'", "not a time of day"),
            ("every = '1h'\nbetween = '06:00'", "part of the day"),
            ("every = '1h'\nbetween = '06:00-06:00'", "no time at all"),
            ("by = '06:00'\ndays = ['monday']", "mon, tue"),
            ("by = '06:00'\ndays = []", "mon, tue"),
            ("by = '06:00'\nholidays = ['2026-02-29']", "entry 1 is not a date"),
            ("by = '06:00'\nholidays = ['25.12.2026']", "entry 1 is not a date"),
            ("by = '06:00'\nholiday = ['2026-12-25']", "holidays"),
        ] {
            let fault = read_expect(lines).expect_err(lines);
            assert!(fault.contains(words), "{lines}: {fault}");
        }
    }
}
