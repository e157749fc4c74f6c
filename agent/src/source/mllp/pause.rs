//! After a store failure that was answered by closing, the listener stops accepting for a while: senders that reconnect at once would only
//! be closed again. The pause doubles while failures go on and is over with the first message that is stored.

use std::time::Duration;
use tokio::time::Instant;

use crate::limits::{STORE_FAILURE_PAUSE_MAX, STORE_FAILURE_PAUSE_MIN};

/// Pure state; shared through a watch, so that the listener learns of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pause {
    until: Option<Instant>,
    next: Duration,
}

impl Default for Pause {
    fn default() -> Self {
        Self { until: None, next: STORE_FAILURE_PAUSE_MIN }
    }
}

impl Pause {
    /// A connection was closed because the store failed. Failures during a pause belong to the one that began it. The length of the pause when one begins.
    pub(super) fn failed(&mut self, now: Instant) -> Option<Duration> {
        if self.until.is_some_and(|until| now < until) {
            return None;
        }
        self.until = Some(now + self.next);
        let pause = self.next;
        self.next = (self.next * 2).min(STORE_FAILURE_PAUSE_MAX);
        Some(pause)
    }

    /// A message was stored. True when that changes anything.
    pub(super) fn stored(&mut self) -> bool {
        std::mem::take(self) != Self::default()
    }

    /// When the listener accepts again, if it does not now.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| now < *until)
    }

    /// Nothing failed since the last success.
    pub(super) fn is_idle(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_its_bound_and_ends_with_a_success() {
        let mut now = Instant::now();
        let mut pause = Pause::default();
        let mut seconds = Vec::new();
        for _ in 0..6 {
            let told = pause.failed(now).unwrap();
            assert_eq!(pause.failed(now + Duration::from_secs(1)), None, "failures during a pause do not lengthen it");
            let until = pause.until(now).unwrap();
            assert_eq!(told, until - now);
            seconds.push(told.as_secs());
            now = until;
            assert_eq!(pause.until(now), None);
        }
        assert_eq!(seconds, [5, 10, 20, 40, 60, 60]);
        assert!(pause.stored());
        assert!(!pause.stored());
        assert!(pause.is_idle());
        pause.failed(now);
        assert_eq!(pause.until(now), Some(now + STORE_FAILURE_PAUSE_MIN));
    }
}
