//! How many orders one user of a group may give: each is two audit records, and the audit log is bounded. Pure.
//!
//! Two buckets for each user: one for bursts, one that holds over days, since the log has to last for a WAN that is down for days. Break-glass has
//! buckets of its own, so that nobody who moves feeds about all day stands without it. Root is not counted: it could remove the log.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::limits::{ORDERS_BURST, ORDERS_EVERY, ORDERS_LONG_BURST, ORDERS_LONG_EVERY, ORDERS_USERS_MAX};

/// So many at once, and one more each `every`.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    most: u32,
    every: Duration,
    /// When it would be full again.
    full_at: Instant,
}

impl Bucket {
    fn new(most: u32, every: Duration, now: Instant) -> Self {
        Self { most, every, full_at: now }
    }

    /// How long until there is one.
    fn wait(&self, now: Instant) -> Duration {
        (self.full_at.max(now) + self.every).saturating_duration_since(now + self.every * self.most)
    }

    fn take(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + self.every;
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Pace {
    users: BTreeMap<(Option<u32>, bool), [Bucket; 2]>,
}

impl Pace {
    /// Counts an order of this user. An error: how long he has to wait for the next one; this one is not counted.
    pub fn take(&mut self, uid: Option<u32>, breaks_glass: bool, now: Instant) -> Result<(), Duration> {
        let key = (uid, breaks_glass);
        if !self.users.contains_key(&key) && self.users.len() >= ORDERS_USERS_MAX {
            // Whoever is nearest to have all of his is as if he had never come.
            let rested = self.users.iter().min_by_key(|(_, [_, long])| long.full_at).map(|(key, _)| *key);
            rested.and_then(|key| self.users.remove(&key));
        }
        let fresh = || [Bucket::new(ORDERS_BURST, ORDERS_EVERY, now), Bucket::new(ORDERS_LONG_BURST, ORDERS_LONG_EVERY, now)];
        let buckets = self.users.entry(key).or_insert_with(fresh);
        let wait = buckets.iter().map(|bucket| bucket.wait(now)).max().unwrap_or_default();
        if !wait.is_zero() {
            return Err(wait);
        }
        for bucket in buckets {
            bucket.take(now);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn taken(pace: &mut Pace, uid: u32, breaks_glass: bool, asked: u32, now: Instant) -> u32 {
        (0..asked).filter(|_| pace.take(Some(uid), breaks_glass, now).is_ok()).count().try_into().unwrap()
    }

    #[test]
    fn a_burst_is_let_through_and_then_one_a_second() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert_eq!(taken(&mut pace, 1000, false, 100, now), ORDERS_BURST);
        assert_eq!(pace.take(Some(1000), false, now), Err(SECOND));
        assert_eq!(taken(&mut pace, 1000, false, 100, now + SECOND * 3), 3);
        assert_eq!(taken(&mut pace, 1000, true, 100, now), ORDERS_BURST, "break-glass is counted for itself");
        assert_eq!(taken(&mut pace, 1001, false, 100, now), ORDERS_BURST, "and each user");
    }

    /// I5: two days of trying, and all of it fits into the log.
    #[test]
    fn whoever_never_stops_gets_few_over_days() {
        let (mut pace, begin) = (Pace::default(), Instant::now());
        let all: u32 = (0..2 * 86_400).map(|second| taken(&mut pace, 1000, false, 2, begin + SECOND * second)).sum();
        assert!((ORDERS_LONG_BURST + 1439..=ORDERS_LONG_BURST + 1441).contains(&all), "{all}");
    }

    #[test]
    fn so_many_users_are_remembered_and_no_more() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        for uid in 0..2 * ORDERS_USERS_MAX {
            assert!(pace.take(u32::try_from(uid).ok(), false, now).is_ok());
        }
        assert_eq!(pace.users.len(), ORDERS_USERS_MAX);
    }
}
