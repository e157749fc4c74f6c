//! Pauses: how long to leave something alone after it went wrong.
//!
//! The first failure pauses for the shortest time, each further one for twice as long, up to a bound; success ends it. With a window full of
//! publishes one refusal is answered many times over: only an answer to something published *after* the pause began (its token is not below
//! `since`) counts as a further failure, or as success. Between the end of the pause and that answer a single probe is in flight.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    pub until: Instant,
    /// The first token that can speak for or against.
    pub since: u64,
    delay: Duration,
}

impl Pause {
    pub fn new(now: Instant, since: u64, delay: Duration) -> Self {
        Self { until: now + delay, since, delay }
    }

    /// One more failure, of the publish `token`; older ones say nothing new.
    pub fn again(&mut self, token: u64, now: Instant, since: u64, longest: Duration) {
        if token >= self.since {
            *self = Self::new(now, since, (self.delay * 2).min(longest));
        }
    }

    /// A new connection is a reason to try sooner.
    pub fn sooner(&mut self, at: Instant) {
        self.until = self.until.min(at);
    }

    pub fn over(&self, now: Instant) -> bool {
        self.until <= now
    }
}

/// Raises `pause` or prolongs it.
pub fn pause(pause: &mut Option<Pause>, token: u64, now: Instant, since: u64, (shortest, longest): (Duration, Duration)) {
    match pause {
        Some(pause) => pause.again(token, now, since, longest),
        None => *pause = Some(Pause::new(now, since, shortest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{PARK_MAX, PARK_MIN};

    #[test]
    fn a_window_of_refusals_counts_once_and_each_probe_doubles() {
        let (now, range) = (Instant::now(), (PARK_MIN, PARK_MAX));
        let mut parked = None;
        for token in 0..100 {
            pause(&mut parked, token, now, 100, range);
        }
        assert_eq!(parked.unwrap().until, now + PARK_MIN);
        for (n, token) in (100..120).enumerate() {
            pause(&mut parked, token, now, token + 1, range);
            assert_eq!(parked.unwrap().until, now + (PARK_MIN * 2u32.pow(n as u32 + 1)).min(PARK_MAX));
        }
    }
}
