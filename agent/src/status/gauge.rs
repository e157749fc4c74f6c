//! The fuel gauge: how long until the spool is full at the present rate. Pure; time is monotonic and passed in (I10).
//!
//! Samples of the bytes that wait are taken every few seconds and kept for half an hour: bytes of records, not of the files they lie in, which are
//! made in full size and would stand still for minutes while they fill. The rate is the line from an older sample to the newest: over five minutes,
//! so that a line that breaks is seen soon, and over all of it, so that a sender that brings something now and then is not taken for none; the
//! higher one counts. A spool that shrinks or stands still is not filling, and over too short a span nothing is said: a single large message is no
//! trend.

use std::collections::VecDeque;
use std::time::Duration;

use crate::limits::{GAUGE_INTERVAL, GAUGE_SAMPLES, GAUGE_SPAN_MIN, GAUGE_SPAN_RECENT};

#[derive(Debug, Default)]
pub struct Gauge {
    /// (monotonic time, bytes), oldest first.
    samples: VecDeque<(Duration, u64)>,
}

impl Gauge {
    /// Takes a sample of the bytes that wait; one that comes much too soon after the last is passed over.
    pub fn observe(&mut self, at: Duration, waiting_bytes: u64) {
        if self.samples.back().is_some_and(|(last, _)| at.saturating_sub(*last) < GAUGE_INTERVAL / 2) {
            return;
        }
        if self.samples.len() == GAUGE_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((at, waiting_bytes));
    }

    /// Seconds until so many bytes more wait; 0 for none, `None` while the spool is not filling.
    pub fn time_to_full_s(&self, room_bytes: u64) -> Option<u64> {
        if room_bytes == 0 {
            return Some(0);
        }
        let (first, last) = (*self.samples.front()?, *self.samples.back()?);
        let recent = *self.samples.iter().find(|(at, _)| last.0.saturating_sub(*at) <= GAUGE_SPAN_RECENT)?;
        if last.1 < recent.1 {
            return None; // it drains
        }
        [first, recent].into_iter().filter_map(|from| until(from, last, room_bytes)).min()
    }
}

fn until((first_at, first): (Duration, u64), (last_at, last): (Duration, u64), room_bytes: u64) -> Option<u64> {
    let (span, grown) = (last_at.saturating_sub(first_at), last.saturating_sub(first));
    if span < GAUGE_SPAN_MIN || grown == 0 {
        return None;
    }
    let milliseconds = u128::from(room_bytes) * span.as_millis() / u128::from(grown);
    u64::try_from(milliseconds / 1000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gauge(samples: impl IntoIterator<Item = (u64, u64)>) -> Gauge {
        let mut gauge = Gauge::default();
        samples.into_iter().for_each(|(s, bytes)| gauge.observe(Duration::from_secs(s), bytes));
        gauge
    }

    #[test]
    fn the_time_to_full_follows_the_rate() {
        // 100 bytes in 10 s, room for 400
        assert_eq!(gauge((0..=6).map(|n| (n * 10, n * 100))).time_to_full_s(400), Some(40));
        assert_eq!(gauge([(0, 0), (60, 1)]).time_to_full_s(u64::MAX), u64::try_from(u128::from(u64::MAX) * 60).ok());
    }

    #[test]
    fn a_spool_that_is_not_filling_has_no_time_to_full() {
        assert_eq!(gauge([]).time_to_full_s(1000), None);
        assert_eq!(gauge([(0, 500), (60, 500)]).time_to_full_s(1000), None, "stands still");
        assert_eq!(gauge([(0, 500), (60, 400)]).time_to_full_s(1000), None, "drains");
        assert_eq!(gauge([(0, 0), (20, 900)]).time_to_full_s(1000), None, "too short to be a trend");
        assert_eq!(gauge([(0, 0), (1, 900), (60, 0)]).time_to_full_s(1000), None, "a sample too soon is passed over");
        let outage = (0..150).map(|n| (n * 10, n * 100)).chain((150..160).map(|n| (n * 10, 14_900 - (n - 150) * 500)));
        assert_eq!(gauge(outage).time_to_full_s(1000), None, "the outage is over and it drains, though more waits than half an hour ago");
    }

    #[test]
    fn a_full_spool_is_full_now() {
        assert_eq!(gauge([]).time_to_full_s(0), Some(0));
        assert_eq!(gauge([(0, 1000), (60, 1000)]).time_to_full_s(0), Some(0));
    }

    /// One message of some size every ten minutes fills, too, and steadily: an alert rule that waits a quarter of an hour must fire.
    #[test]
    fn a_slow_sender_fills_without_pause() {
        let mut gauge = Gauge::default();
        for n in 0..2000_u64 {
            gauge.observe(Duration::from_secs(n * 10), n / 60 * 1_000_000);
            let time = gauge.time_to_full_s(1_000_000_000);
            assert_eq!(time.is_some(), n >= 60, "sample {n}");
            assert!(n < 200 || (200_000..900_000).contains(&time.unwrap()), "about 600000 s: {time:?}");
        }
    }

    /// I4: the gauge remembers half an hour, however long the agent runs.
    #[test]
    fn only_the_last_half_hour_counts() {
        let filled_then_stood_still = gauge((0..1000).map(|n| (n * 10, (n * 100).min(50_000))));
        assert_eq!(filled_then_stood_still.samples.len(), GAUGE_SAMPLES);
        assert_eq!(filled_then_stood_still.time_to_full_s(100_000), None);
    }
}
