//! A document that was confirmed and is wrong all the same: after the commit more goes to quarantine than before. Pure; one watch per feed.
//!
//! ```text
//! counts per minute   …60 of the hour before│commit│the hour, or what there is of it, since…
//! suspect             at least SUSPECT_RECORDS_MIN since, and more than SUSPECT_FACTOR times the rate of the hour before
//! ```
//!
//! The sums are exact to the minute, bounded by two rings of 60 numbers, and know no wall clock (I10). After [`SUSPECT_WATCH`] the new rate is the
//! usual one. A short hour before (the agent has just started) counts as what it was; none at all counts as silence.

use crate::limits::{SUSPECT_FACTOR, SUSPECT_RECORDS_MIN, SUSPECT_WATCH};

const MINUTES: u64 = 60;
const MINUTE_MS: u64 = 60_000;

/// Records that went to quarantine, by minute, over the last hour.
#[derive(Clone, Debug)]
struct Hour {
    counts: [u64; MINUTES as usize],
    /// The minute that is counted now.
    minute: u64,
    since: u64,
}

impl Hour {
    fn new(minute: u64) -> Self {
        Self { counts: [0; MINUTES as usize], minute, since: minute }
    }

    fn advance(&mut self, minute: u64) {
        // After an hour everything is forgotten; more turns change nothing.
        for passed in 1..=minute.saturating_sub(self.minute).min(MINUTES) {
            self.counts[((self.minute + passed) % MINUTES) as usize] = 0;
        }
        self.minute = self.minute.max(minute);
    }

    fn add(&mut self, count: u64) {
        self.counts[(self.minute % MINUTES) as usize] += count;
    }

    fn sum(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Minutes that are counted in, the present one too.
    fn span(&self) -> u64 {
        (self.minute - self.since + 1).min(MINUTES)
    }
}

#[derive(Clone, Debug)]
struct After {
    revision: u64,
    since_ms: u64,
    before: (u64, u64),
    hour: Hour,
}

/// Watches one counter.
#[derive(Clone, Debug)]
pub struct Suspect {
    usual: Hour,
    last_total: u64,
    after: Option<After>,
}

/// Why a document is suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspicion {
    pub revision: u64,
    pub records: u64,
    pub minutes: u64,
    pub records_before: u64,
    pub minutes_before: u64,
}

impl std::fmt::Display for Suspicion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { revision, records, minutes, records_before, minutes_before } = self;
        write!(
            f,
            "since revision {revision} was committed {records} messages went to quarantine in {minutes} min, in the {minutes_before} min before \
             it was {records_before}; look at the quarantine and at what the revision changed for this feed"
        )
    }
}

impl Suspect {
    /// `total` is the counter now.
    pub fn new(now_ms: u64, total: u64) -> Self {
        Self { usual: Hour::new(now_ms / MINUTE_MS), last_total: total, after: None }
    }

    /// A revision was committed: from now on its rate is compared with that of the hour before.
    pub fn committed(&mut self, now_ms: u64, total: u64, revision: u64) {
        self.observe(now_ms, total);
        let minute = now_ms / MINUTE_MS;
        self.after = Some(After { revision, since_ms: now_ms, before: (self.usual.sum(), self.usual.span()), hour: Hour::new(minute) });
    }

    /// It was taken back.
    pub fn taken_back(&mut self) {
        self.after = None;
    }

    /// The counter now; whether the document is suspect.
    pub fn observe(&mut self, now_ms: u64, total: u64) -> Option<Suspicion> {
        let minute = now_ms / MINUTE_MS;
        // A counter that went back began anew.
        let count = if total >= self.last_total { total - self.last_total } else { total };
        self.last_total = total;
        self.usual.advance(minute);
        self.usual.add(count);
        let after = self.after.as_mut()?;
        if now_ms.saturating_sub(after.since_ms) >= SUSPECT_WATCH.as_millis() as u64 {
            self.after = None;
            return None;
        }
        after.hour.advance(minute);
        after.hour.add(count);
        let (records, minutes) = (after.hour.sum(), after.hour.span());
        let (records_before, minutes_before) = after.before;
        let is_suspect = records >= SUSPECT_RECORDS_MIN && records * minutes_before > SUSPECT_FACTOR * records_before * minutes;
        is_suspect.then_some(Suspicion { revision: after.revision, records, minutes, records_before, minutes_before })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A watch after an hour with `before` in quarantine, and a commit at its end.
    fn after_an_hour_with(before: u64) -> Suspect {
        let mut suspect = Suspect::new(0, 0);
        for minute in 0..60 {
            assert_eq!(suspect.observe(minute * MINUTE_MS, before * (minute + 1) / 60), None);
        }
        suspect.committed(60 * MINUTE_MS - 1, before, 42);
        suspect
    }

    #[test]
    fn more_than_five_times_the_hour_before_is_suspect_and_just_five_times_is_not() {
        let mut suspect = after_an_hour_with(120);
        // two a minute before: ten in the minute of the commit are five times as many, eleven are more
        assert_eq!(suspect.observe(60 * MINUTE_MS - 1, 130), None);
        let found = suspect.observe(60 * MINUTE_MS - 1, 131).unwrap();
        assert_eq!(found, Suspicion { revision: 42, records: 11, minutes: 1, records_before: 120, minutes_before: 60 });
        assert!(
            found.to_string().starts_with("since revision 42 was committed 11 messages went to quarantine in 1 min, in the 60 min before")
        );
    }

    #[test]
    fn a_few_records_are_no_suspicion_however_quiet_it_was() {
        let mut suspect = after_an_hour_with(0);
        assert_eq!(suspect.observe(61 * MINUTE_MS, 9), None);
        assert!(suspect.observe(61 * MINUTE_MS, 10).is_some());
    }

    #[test]
    fn the_suspicion_goes_when_the_rate_falls_and_when_the_document_does() {
        let mut suspect = after_an_hour_with(0);
        assert!(suspect.observe(61 * MINUTE_MS, 50).is_some());
        assert_eq!(suspect.observe(130 * MINUTE_MS, 50), None, "an hour without any");
        assert!(suspect.observe(131 * MINUTE_MS, 80).is_some());
        suspect.taken_back();
        assert_eq!(suspect.observe(132 * MINUTE_MS, 200), None);
        let mut suspect = after_an_hour_with(0);
        assert_eq!(suspect.observe(60 * MINUTE_MS + SUSPECT_WATCH.as_millis() as u64, 500), None, "a day later it is the usual rate");
    }

    #[test]
    fn a_counter_that_begins_anew_and_an_agent_that_just_started_are_no_reason() {
        let mut suspect = Suspect::new(0, 1000);
        suspect.committed(0, 1000, 7);
        assert_eq!(suspect.observe(MINUTE_MS, 3), None, "three, not a thousand");
        assert_eq!(suspect.observe(2 * MINUTE_MS, 9), None);
        assert!(suspect.observe(2 * MINUTE_MS, 10).is_some());
    }
}
