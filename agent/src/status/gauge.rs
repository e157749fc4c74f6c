//! The fuel gauge: how long until the spool is full at the present rate. Pure; time is monotonic and passed in (I10).
//!
//! Samples of the bytes held are taken every few seconds and kept for five minutes. The rate is the line from the oldest to the newest; a spool
//! that shrinks or stands still is not filling, and over too short a span nothing is said: a single large message is no trend.

use std::collections::VecDeque;
use std::time::Duration;

use crate::limits::{GAUGE_INTERVAL, GAUGE_SAMPLES, GAUGE_SPAN_MIN};

#[derive(Debug, Default)]
pub struct Gauge {
    /// (monotonic time, bytes), oldest first.
    samples: VecDeque<(Duration, u64)>,
}

impl Gauge {
    /// Takes a sample; one that comes much too soon after the last is passed over.
    pub fn observe(&mut self, at: Duration, bytes: u64) {
        if self.samples.back().is_some_and(|(last, _)| at.saturating_sub(*last) < GAUGE_INTERVAL / 2) {
            return;
        }
        if self.samples.len() == GAUGE_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((at, bytes));
    }

    /// Seconds until `max_bytes` are reached; 0 when they are, `None` while the spool is not filling.
    pub fn time_to_full_s(&self, max_bytes: u64) -> Option<u64> {
        let (&(first_at, first), &(last_at, last)) = (self.samples.front()?, self.samples.back()?);
        if last >= max_bytes {
            return Some(0);
        }
        let span = last_at.saturating_sub(first_at);
        let grown = last.saturating_sub(first);
        if span < GAUGE_SPAN_MIN || grown == 0 {
            return None;
        }
        let milliseconds = u128::from(max_bytes - last) * span.as_millis() / u128::from(grown);
        u64::try_from(milliseconds / 1000).ok()
    }
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
        // 100 bytes in 10 s, 1000 - 600 left
        assert_eq!(gauge((0..=6).map(|n| (n * 10, n * 100))).time_to_full_s(1000), Some(40));
        assert_eq!(gauge([(0, 0), (60, 1)]).time_to_full_s(u64::MAX), u64::try_from(u128::from(u64::MAX - 1) * 60).ok());
    }

    #[test]
    fn a_spool_that_is_not_filling_has_no_time_to_full() {
        assert_eq!(gauge([]).time_to_full_s(1000), None);
        assert_eq!(gauge([(0, 500), (60, 500)]).time_to_full_s(1000), None, "stands still");
        assert_eq!(gauge([(0, 500), (60, 400)]).time_to_full_s(1000), None, "drains");
        assert_eq!(gauge([(0, 0), (20, 900)]).time_to_full_s(1000), None, "too short to be a trend");
        assert_eq!(gauge([(0, 0), (1, 900), (60, 0)]).time_to_full_s(1000), None, "a sample too soon is passed over");
    }

    #[test]
    fn a_full_spool_is_full_now() {
        assert_eq!(gauge([(0, 1000)]).time_to_full_s(1000), Some(0));
        assert_eq!(gauge([(0, 1000), (60, 1001)]).time_to_full_s(1000), Some(0));
    }

    /// I4: the gauge remembers five minutes, however long the agent runs.
    #[test]
    fn only_the_last_minutes_count() {
        let filled_then_stood_still = gauge((0..1000).map(|n| (n * 10, (n * 100).min(50_000))));
        assert_eq!(filled_then_stood_still.samples.len(), GAUGE_SAMPLES);
        assert_eq!(filled_then_stood_still.time_to_full_s(100_000), None);
    }
}
