//! How fast messages come: the captured counter of each feed, sampled as statuses are made, over the last five minutes. Pure; time is monotonic.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::{FEEDS_KNOWN_MAX, RATE_INTERVAL, RATE_SAMPLES};
use crate::record::FeedId;

/// So many messages within so many seconds, which end now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    pub messages: u64,
    pub seconds: u64,
}

impl Rate {
    /// Messages a minute, in tenths; `None` while it was too short to say.
    pub fn per_minute_tenths(self) -> Option<u64> {
        (self.seconds >= RATE_INTERVAL.as_secs()).then(|| self.messages.saturating_mul(600) / self.seconds)
    }
}

#[derive(Debug, Default)]
pub struct Rates {
    /// (since the start, captured), oldest first.
    feeds: BTreeMap<FeedId, VecDeque<(Duration, u64)>>,
}

impl Rates {
    /// Takes a sample where one is due, and says what came since the oldest of them.
    pub fn observe(&mut self, at: Duration, feed: &FeedId, captured: u64) -> Option<Rate> {
        if !self.feeds.contains_key(feed) {
            if self.feeds.len() >= FEEDS_KNOWN_MAX {
                return None;
            }
            // Counters begin with the process, so the first sample of a new one is 0 then, and of one that comes later what it finds.
            self.feeds.insert(feed.clone(), VecDeque::from([(at, captured)]));
        }
        let samples = self.feeds.get_mut(feed)?;
        if samples.back().is_none_or(|(last, _)| at.saturating_sub(*last) >= RATE_INTERVAL) {
            if samples.len() == RATE_SAMPLES {
                samples.pop_front();
            }
            samples.push_back((at, captured));
        }
        let &(from, before) = samples.front()?;
        Some(Rate { messages: captured.saturating_sub(before), seconds: at.saturating_sub(from).as_secs() })
    }

    /// Forgets feeds that are no longer there.
    pub fn keep(&mut self, is_there: impl Fn(&FeedId) -> bool) {
        self.feeds.retain(|feed, _| is_there(feed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_five_minutes() {
        let feed = FeedId::new("a").unwrap();
        let mut rates = Rates::default();
        let mut last = None;
        for n in 0..120_u64 {
            let captured = if n < 60 { n * 100 } else { 6000 + (n - 60) * 5 };
            last = rates.observe(Duration::from_secs(n * 10), &feed, captured);
        }
        let rate = last.unwrap();
        assert_eq!(rate, Rate { messages: 150, seconds: 300 });
        assert_eq!(rate.per_minute_tenths(), Some(300));
        assert_eq!(rates.observe(Duration::from_secs(1191), &feed, 6295).unwrap().messages, 150, "asking more often changes nothing");
        rates.keep(|_| false);
        assert_eq!(rates.observe(Duration::from_secs(1200), &feed, 6300).unwrap().per_minute_tenths(), None, "too short to say");
    }
}
