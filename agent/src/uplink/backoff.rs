//! When to try again, and where. Pure: failures and random numbers in, waiting times and endpoint numbers out.
//!
//! Endpoints are tried in order of preference. Within a round a failed one hands over to the next almost at once; after the last one the
//! round has failed and the wait grows. Its pace is that of the mildest failure of the round: one endpoint that is merely unreachable keeps
//! the gateway trying, even if another has refused it.
//!
//! Only progress resets the waits: a publish that was acknowledged. A broker that lets us in and throws us out again is a failure like any
//! other. After a connection that made progress and lasted (`steady`) the next attempt starts with the preferred endpoint; after one that
//! made progress but did not last the next endpoint has its turn, so that a broker which takes a few publishes and dies starves no other. No
//! pace ever gives up.

use std::time::Duration;

use super::Timing;

/// How a failure wants to be waited for, mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pace {
    /// It may mend any moment: full jitter below a bound that doubles.
    Normal,
    /// The broker asked for patience: between half the longest normal wait and all of it.
    Busy,
    /// It will not mend by itself: doubling to the slow bound, never less than half of it, so that an account is not locked.
    Slow,
    /// Another client has our identity: at once as slow as it gets, everywhere, so that two do not throw each other out in turn.
    Contested,
}

/// What a connection came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing was acknowledged.
    None,
    /// Something was, but it did not last.
    Brief,
    Steady,
}

#[derive(Debug)]
pub(super) struct Retry {
    endpoints: usize,
    at: usize,
    /// Rounds that failed since there was progress.
    rounds: u32,
    mildest: Pace,
}

impl Retry {
    pub(super) fn new(endpoints: usize) -> Self {
        assert!(endpoints > 0, "configuration without endpoints was validated");
        Self { endpoints, at: 0, rounds: 0, mildest: Pace::Contested }
    }

    /// The number of the endpoint to try.
    pub(super) fn endpoint(&self) -> usize {
        self.at
    }

    /// The next attempt goes to this one.
    pub(super) fn start_at(&mut self, endpoint: usize) {
        *self = Self { at: endpoint.min(self.endpoints - 1), ..Self::new(self.endpoints) };
    }

    /// An attempt failed or a connection ended: how long to wait.
    pub(super) fn failed(&mut self, pace: Pace, progress: Progress, timing: &Timing, random: u64) -> Duration {
        if progress != Progress::None {
            let next = if progress == Progress::Steady || pace == Pace::Contested { 0 } else { (self.at + 1) % self.endpoints };
            self.start_at(next);
            return wait(pace, 0, timing, random);
        }
        self.mildest = self.mildest.min(pace);
        self.at += 1;
        if self.at < self.endpoints && pace != Pace::Contested {
            return wait(Pace::Normal, 0, timing, random);
        }
        let pace = if pace == Pace::Contested { pace } else { self.mildest };
        let wait = wait(pace, self.rounds, timing, random);
        *self = Self { rounds: self.rounds.saturating_add(1), ..Self::new(self.endpoints) };
        wait
    }
}

/// The wait after `rounds` earlier ones; `random` is any number.
fn wait(pace: Pace, rounds: u32, timing: &Timing, random: u64) -> Duration {
    let doubled = |first: Duration, most: Duration| first.saturating_mul(1 << rounds.min(16)).min(most);
    match pace {
        Pace::Normal => part(doubled(timing.backoff_min, timing.backoff_max), random),
        Pace::Busy => upper_half(timing.backoff_max, random),
        Pace::Slow => upper_half(doubled(timing.backoff_max / 4, timing.backoff_slow), random),
        Pace::Contested => upper_half(timing.backoff_slow, random),
    }
}

/// Where a twin is suspected: at least this long, whatever progress there was.
pub(super) fn suspicious_wait(timing: &Timing, random: u64) -> Duration {
    upper_half(timing.backoff_max / 16, random)
}

/// Between zero and `bound`, evenly.
fn part(bound: Duration, random: u64) -> Duration {
    bound.mul_f64(random as f64 / u64::MAX as f64)
}

fn upper_half(bound: Duration, random: u64) -> Duration {
    bound / 2 + part(bound / 2, random)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: u64 = u64::MAX / 2;

    fn seconds(wait: Duration) -> u64 {
        (wait + Duration::from_millis(500)).as_secs()
    }

    fn waits(retry: &mut Retry, pace: Pace, count: usize) -> Vec<u64> {
        (0..count).map(|_| seconds(retry.failed(pace, Progress::None, &Timing::default(), u64::MAX))).collect()
    }

    #[test]
    fn the_wait_doubles_to_its_bound_and_stays_there_for_ever() {
        let mut retry = Retry::new(1);
        assert_eq!(waits(&mut retry, Pace::Normal, 9), [1, 2, 4, 8, 16, 32, 64, 120, 120]);
        for _ in 0..10_000 {
            assert!(retry.failed(Pace::Normal, Progress::None, &Timing::default(), u64::MAX) <= Timing::default().backoff_max);
        }
    }

    #[test]
    fn jitter_goes_from_nothing_to_the_bound() {
        let timing = Timing::default();
        assert_eq!(wait(Pace::Normal, 3, &timing, 0), Duration::ZERO);
        assert_eq!(seconds(wait(Pace::Normal, 3, &timing, HALF)), 4);
        assert_eq!(seconds(wait(Pace::Normal, 3, &timing, u64::MAX)), 8);
    }

    #[test]
    fn only_progress_resets() {
        let mut retry = Retry::new(1);
        waits(&mut retry, Pace::Normal, 6);
        assert_eq!(seconds(retry.failed(Pace::Normal, Progress::None, &Timing::default(), u64::MAX)), 64);
        assert_eq!(seconds(retry.failed(Pace::Normal, Progress::Steady, &Timing::default(), u64::MAX)), 1);
        assert_eq!(waits(&mut retry, Pace::Normal, 2), [1, 2]);
    }

    #[test]
    fn a_refusal_is_tried_slowly_but_for_ever() {
        let mut retry = Retry::new(1);
        assert_eq!(waits(&mut retry, Pace::Slow, 7), [30, 60, 120, 240, 480, 600, 600]);
        assert_eq!(seconds(wait(Pace::Slow, 20, &Timing::default(), 0)), 300);
    }

    #[test]
    fn a_busy_broker_is_left_alone_for_longer() {
        assert_eq!(seconds(wait(Pace::Busy, 0, &Timing::default(), 0)), 60);
        assert_eq!(seconds(wait(Pace::Busy, 0, &Timing::default(), u64::MAX)), 120);
    }

    #[test]
    fn a_contested_identity_waits_at_once_and_does_not_go_to_the_next_endpoint() {
        let mut retry = Retry::new(3);
        assert_eq!(seconds(retry.failed(Pace::Contested, Progress::Brief, &Timing::default(), 0)), 300);
        assert_eq!(retry.endpoint(), 0);
        assert_eq!(seconds(retry.failed(Pace::Contested, Progress::None, &Timing::default(), 0)), 300);
        assert_eq!(retry.endpoint(), 0);
    }

    #[test]
    fn the_next_endpoint_is_tried_soon_and_the_round_waits_for_its_mildest_failure() {
        let mut retry = Retry::new(2);
        let timing = Timing::default();
        for expected in [1, 2, 4] {
            assert_eq!(retry.endpoint(), 0);
            assert!(retry.failed(Pace::Slow, Progress::None, &timing, u64::MAX) <= timing.backoff_min);
            assert_eq!(retry.endpoint(), 1);
            assert_eq!(seconds(retry.failed(Pace::Normal, Progress::None, &timing, u64::MAX)), expected);
        }
        assert_eq!(retry.endpoint(), 0);
    }

    #[test]
    fn an_endpoint_that_takes_a_little_and_dies_starves_no_other() {
        let mut retry = Retry::new(3);
        let tried: Vec<usize> = (0..6)
            .map(|_| {
                let at = retry.endpoint();
                retry.failed(Pace::Normal, Progress::Brief, &Timing::default(), 0);
                at
            })
            .collect();
        assert_eq!(tried, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn an_attempt_to_return_that_fails_comes_back_by_rotation() {
        let mut retry = Retry::new(2);
        retry.start_at(0);
        assert!(retry.failed(Pace::Slow, Progress::None, &Timing::default(), u64::MAX) <= Timing::default().backoff_min);
        assert_eq!(retry.endpoint(), 1);
    }

    #[test]
    fn after_progress_the_preferred_endpoint_comes_first_again() {
        let mut retry = Retry::new(2);
        retry.failed(Pace::Normal, Progress::None, &Timing::default(), 0);
        assert_eq!(retry.endpoint(), 1);
        retry.failed(Pace::Normal, Progress::Steady, &Timing::default(), 0);
        assert_eq!(retry.endpoint(), 0);
    }
}
