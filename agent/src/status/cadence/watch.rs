//! Watches that feeds bring what they are expected to: the shell around the cadence.
//!
//! One task for all feeds. Every [`CADENCE_INTERVAL`] it asks the counters what arrived, lets each [`Cadence`] judge, raises and clears
//! `feed_silent`, and shows what is expected next. Something has arrived when a message was captured (a copy that was answered as a duplicate
//! does not count), of a directory feed when a file was captured completely, with or without records in it.
//!
//! What is to outlive a restart is written when a silence begins or ends, every few minutes while things arrive, and at stop; off this runtime's
//! threads, so that a disk that hangs holds up nobody. Files of holidays are looked at again every minute: a new year needs no restart. One that
//! cannot be read any more leaves the dates as they were, which is logged.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use jiff::Timestamp;
use jiff::civil::Date;
use tokio::time::sleep;

use super::arrivals;
use super::{Cadence, Expect, Holidays, Reading, Remembered, Silence, Verdict};
use crate::clock;
use crate::limits::{CADENCE_INTERVAL, CADENCE_WRITE_INTERVAL, HOLIDAYS_FILE_BYTES_MAX, HOLIDAYS_INTERVAL, HOLIDAYS_MAX};
use crate::record::FeedId;
use crate::spool::Monitor;
use crate::spool::search::Wanted;
use crate::status::board::{Board, ExpectedView, FeedCounters};
use crate::status::condition::Code;

/// A feed that expects something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    pub feed: FeedId,
    pub expect: Expect,
    /// Dates beside those of `expect`.
    pub holidays_file: Option<PathBuf>,
    /// Files are what arrives.
    pub is_directory: bool,
}

/// One date as it is written in a list of holidays.
pub fn parse_date(text: &str) -> Option<Date> {
    let is_plain = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    if is_plain { text.parse().ok() } else { None }
}

/// Reads a file of holidays; a fault is the end of a sentence that begins with the file's key.
pub fn read_holidays(path: &Path) -> Result<BTreeSet<Date>, String> {
    let unreadable = |error: std::io::Error| format!("names a file that cannot be read: {error}; check path and rights");
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(HOLIDAYS_FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    let mut dates = BTreeSet::new();
    for (number, line) in text.lines().enumerate() {
        let date = line.split('#').next().unwrap_or_default().trim();
        if !date.is_empty() {
            let line = number + 1;
            dates.insert(parse_date(date).ok_or_else(|| format!("names a file whose line {line} is not a date like 2026-12-25"))?);
        }
    }
    if text.len() as u64 > HOLIDAYS_FILE_BYTES_MAX || dates.len() > HOLIDAYS_MAX {
        return Err(format!("names a file with more than {HOLIDAYS_MAX} dates; that is no list of holidays"));
    }
    Ok(dates)
}

/// When a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// With the process: whatever arrived since is news.
    OfProcess,
    /// In place of another one, after the expectations changed: what arrived before was that one's, and is remembered.
    Anew,
}

/// One feed under watch.
#[derive(Debug)]
struct Watched {
    expectation: Expectation,
    counters: Arc<FeedCounters>,
    cadence: Cadence,
    arrived: u64,
    shown: Option<Silence>,
    holidays_failed: bool,
}

impl Watched {
    /// `arrived`: of what the counter says, so much is no news.
    fn new(expectation: Expectation, counters: Arc<FeedCounters>, remembered: Remembered, arrived: u64) -> Self {
        let cadence = Cadence::new(expectation.expect.clone(), remembered);
        Self { expectation, counters, cadence, arrived, shown: None, holidays_failed: false }
    }

    fn counter(expectation: &Expectation, counters: &FeedCounters) -> u64 {
        let counter = if expectation.is_directory { &counters.files_done } else { &counters.captured };
        counter.load(Ordering::Relaxed)
    }

    /// True: a silence began or ended.
    fn turn(&mut self, now: Reading, board: &Board) -> bool {
        let arrived = Self::counter(&self.expectation, &self.counters);
        let verdict = self.cadence.check(now, std::mem::replace(&mut self.arrived, arrived) != arrived);
        let time = |at: Option<Timestamp>| at.map(|at| clock::rfc3339(at.as_millisecond()));
        let (next, last_arrival) = (time(verdict.next), time(verdict.last_arrival));
        self.counters.show_expected(ExpectedView { next, last_arrival, silent: verdict.silent.is_some() });
        if verdict.silent == self.shown {
            return false;
        }
        let feed = self.expectation.feed.as_str();
        match verdict.silent {
            None => board.clear(Code::FeedSilent, feed),
            Some(silence) => board.raise(Code::FeedSilent, feed, self.text(silence, &verdict)),
        }
        let changed = self.shown.is_some() != verdict.silent.is_some();
        self.shown = verdict.silent;
        changed
    }

    fn text(&self, silence: Silence, verdict: &Verdict) -> String {
        let Expect { every, calendar, .. } = &self.expectation.expect;
        let what = if self.expectation.is_directory { "file" } else { "message" };
        let late = match silence {
            Silence::By(deadline) => {
                let zone = calendar.zone.iana_name().unwrap_or("UTC");
                format!("no {what} came by {} ({zone})", calendar.zone.to_datetime(deadline).strftime("%Y-%m-%d %H:%M"))
            }
            Silence::Every => {
                format!("no {what} came for longer than the {} min after which one is expected", every.unwrap_or_default().as_secs() / 60)
            }
        };
        let last = verdict
            .last_arrival
            .map_or_else(|| "none is known".to_owned(), |at| format!("the last came at {}", clock::rfc3339(at.as_millisecond())));
        format!("{late}; {last}; ask the people of the sending system")
    }

    /// Reads the file of holidays again.
    fn read_holidays(&mut self) {
        let Some(path) = &self.expectation.holidays_file else { return };
        match read_holidays(path) {
            Ok(mut dates) => {
                dates.extend(self.expectation.expect.calendar.holidays.iter());
                self.cadence.set_holidays(Holidays::new(dates));
                self.holidays_failed = false;
            }
            Err(why) if !std::mem::replace(&mut self.holidays_failed, true) => {
                tracing::warn!(feed = %self.expectation.feed, "the holidays stay as they were: holidays_file {why}");
            }
            Err(_) => {}
        }
    }
}

#[derive(Debug)]
struct Watch {
    spool: PathBuf,
    feeds: Vec<Watched>,
    write_failed: bool,
}

impl Watch {
    /// Blocks: reads what is remembered, and asks the journal for what is newer.
    fn open(expectations: Vec<Expectation>, spool: PathBuf, board: &Board, monitor: &Monitor, begin: Begin) -> Self {
        let (known, failed) = arrivals::read(&spool);
        if let Some(error) = failed {
            tracing::warn!("what was remembered of arrivals cannot be used: {error}; the journal's newest records stand for it");
        }
        let feeds = expectations.into_iter().map(|expectation| {
            let counters = board.feed(&expectation.feed);
            // Before the journal is asked: what comes in between is in both.
            let arrived = match begin {
                Begin::OfProcess => 0,
                Begin::Anew => Watched::counter(&expectation, &counters),
            };
            let newest = monitor.search(&expectation.feed, &Wanted::All, u64::MAX, 1).found.first().map(|header| header.received_at_ms);
            let newest = newest.filter(|at| *at >= clock::RELEASED_AT_MS).and_then(|at| Timestamp::from_millisecond(at).ok());
            let remembered = known.get(&expectation.feed).copied().unwrap_or_default().or_newer(newest);
            let mut watched = Watched::new(expectation, counters, remembered, arrived);
            watched.read_holidays();
            watched
        });
        Self { feeds: feeds.collect(), spool, write_failed: false }
    }

    fn turn(&mut self, now: Reading, board: &Board) -> bool {
        let mut changed = false;
        for feed in &mut self.feeds {
            changed |= feed.turn(now, board);
        }
        changed
    }

    /// Blocks.
    fn write(&mut self, now: Reading) {
        let feeds: BTreeMap<FeedId, Remembered> =
            self.feeds.iter().map(|feed| (feed.expectation.feed.clone(), feed.cadence.remember(now))).collect();
        match arrivals::write(&self.spool, feeds) {
            Ok(()) => self.write_failed = false,
            Err(error) if !std::mem::replace(&mut self.write_failed, true) => {
                tracing::warn!(
                    "what arrived when cannot be written down: {error}; after a restart a silence may be said one deadline late"
                );
            }
            Err(_) => {}
        }
    }
}

/// What the clocks say now.
fn reading(start: Instant) -> Reading {
    let wall = clock::now();
    let (at, known) = Timestamp::from_millisecond(wall.unix_ms).map_or((Timestamp::UNIX_EPOCH, false), |at| (at, true));
    Reading { since_start: start.elapsed(), wall: at, suspect: wall.suspect || !known }
}

/// Runs until `stop` is true or its sender is gone.
pub async fn run(
    expectations: Vec<Expectation>,
    spool: PathBuf,
    board: Arc<Board>,
    monitor: Monitor,
    begin: Begin,
    mut stop: tokio::sync::watch::Receiver<bool>,
) {
    if expectations.is_empty() {
        return;
    }
    let start = Instant::now();
    let opened = {
        let board = Arc::clone(&board);
        tokio::task::spawn_blocking(move || Watch::open(expectations, spool, &board, &monitor, begin)).await
    };
    let Ok(mut watch) = opened else {
        return tracing::error!("what feeds are expected to bring is not watched: its start failed; the place is in the log");
    };
    let (mut written, mut holidays) = (start, start);
    let mut stopping = false;
    loop {
        let now = reading(start);
        let changed = watch.turn(now, &board);
        let write = changed || stopping || written.elapsed() >= CADENCE_WRITE_INTERVAL;
        let look = holidays.elapsed() >= HOLIDAYS_INTERVAL;
        // What begins or ends is written before the wait: the next thing may be a kill.
        if write || look {
            let Ok(back) = work(watch, write, look, start).await else {
                return tracing::error!("what feeds are expected to bring is not watched any more; the place is in the log");
            };
            watch = back;
            written = if write { Instant::now() } else { written };
            holidays = if look { Instant::now() } else { holidays };
        }
        if stopping {
            return;
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => stopping = true,
            () = sleep(CADENCE_INTERVAL) => {}
        }
    }
}

/// The part that touches the disk.
async fn work(mut watch: Watch, write: bool, look: bool, start: Instant) -> Result<Watch, tokio::task::JoinError> {
    let work = move || {
        if look {
            watch.feeds.iter_mut().for_each(Watched::read_holidays);
        }
        if write {
            watch.write(reading(start));
        }
        watch
    };
    tokio::task::spawn_blocking(work).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::KeySource;
    use crate::limits;
    use crate::record::Lane;
    use crate::status::cadence::Calendar;

    /// A change of what is expected is no arrival of anything; what comes after it is.
    #[test]
    fn what_arrived_before_the_expectations_changed_is_no_news() {
        let directory = tempfile::tempdir().unwrap();
        let feed = FeedId::new("lab").unwrap();
        let board = Board::new([feed.clone()]);
        let options = crate::spool::Options {
            path: directory.path().join("spool"),
            max_bytes: Some(limits::SPOOL_BYTES_MIN),
            key: KeySource::Auto,
            message_bytes_max: limits::MIB,
            feeds: vec![(feed.clone(), Lane::Normal)],
        };
        let spool = crate::spool::open(options, &board).unwrap();
        let zone = jiff::tz::TimeZone::UTC;
        let calendar = Calendar { zone, days: [true; 7], holidays: Holidays::default(), by: Vec::new(), from: None, between: None };
        let hour = std::time::Duration::from_hours(1);
        let expect = Expect { every: Some(hour), grace: hour, calendar };
        let expected = [Expectation { feed: feed.clone(), expect, holidays_file: None, is_directory: false }];
        let (counters, start) = (board.feed(&feed), Instant::now());
        let last_arrival = |watch: &mut Watch| {
            watch.turn(reading(start), &board);
            watch.feeds[0].cadence.remember(reading(start)).arrived
        };
        counters.captured.store(7, Ordering::Relaxed);
        for (begin, is_news) in [(Begin::OfProcess, true), (Begin::Anew, false)] {
            let mut watch = Watch::open(expected.to_vec(), directory.path().to_owned(), &board, &spool.monitor, begin);
            assert_eq!(last_arrival(&mut watch).is_some(), is_news, "{begin:?}");
            counters.captured.fetch_add(1, Ordering::Relaxed);
            assert!(last_arrival(&mut watch).is_some(), "{begin:?}");
        }
    }
}
