//! Figures of the snapshot that are counted while the agent runs: what the uplink did, how long the journal's syncs took, what the process takes.
//!
//! Counters are atomics of their own on the board; whoever counts never waits. Ages are by the monotonic clock (I10). [`ProcessFacts::read`] looks at
//! `/proc/self` only, which the unit's sandbox leaves.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::limits::SYNC_BOUNDS_US;

/// What the uplink did since the agent started.
#[derive(Debug, Default)]
pub struct UplinkCounters {
    pub connections: AtomicU64,
    /// Connections that broke and attempts that failed.
    pub failures: AtomicU64,
    /// Of them, those the broker refused.
    pub refusals: AtomicU64,
    published: AtomicU64,
    acknowledged: AtomicU64,
    receipts: AtomicU64,
    last_acknowledged: Mutex<Option<Instant>>,
    last_receipt: Mutex<Option<Instant>>,
    /// Seconds since 1970.
    certificate_ends: Mutex<Option<i64>>,
}

/// The same, as shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkCounts {
    pub connections: u64,
    pub failures: u64,
    pub refusals: u64,
    /// Records, each time they were.
    pub published: u64,
    pub acknowledged: u64,
    /// Receipts that moved a feed forward.
    pub receipts: u64,
    /// Null before the first one since the start.
    pub last_acknowledged_age_s: Option<u64>,
    pub last_receipt_age_s: Option<u64>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl UplinkCounters {
    pub fn published(&self) {
        self.published.fetch_add(1, Ordering::Relaxed);
    }

    pub fn acknowledged(&self) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        *locked(&self.last_acknowledged) = Some(Instant::now());
    }

    pub fn settled(&self) {
        self.receipts.fetch_add(1, Ordering::Relaxed);
        *locked(&self.last_receipt) = Some(Instant::now());
    }

    pub fn set_certificate_end(&self, at: Option<i64>) {
        *locked(&self.certificate_ends) = at;
    }

    pub fn certificate_end(&self) -> Option<i64> {
        *locked(&self.certificate_ends)
    }

    pub fn counts(&self) -> UplinkCounts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let age = |at: &Mutex<Option<Instant>>| locked(at).map(|at| at.elapsed().as_secs());
        UplinkCounts {
            connections: count(&self.connections),
            failures: count(&self.failures),
            refusals: count(&self.refusals),
            published: count(&self.published),
            acknowledged: count(&self.acknowledged),
            receipts: count(&self.receipts),
            last_acknowledged_age_s: age(&self.last_acknowledged),
            last_receipt_age_s: age(&self.last_receipt),
        }
    }
}

/// How long the journal's writes with their syncs took, since the agent started.
#[derive(Debug, Default)]
pub struct SyncTimes {
    counts: [AtomicU64; SYNC_BOUNDS_US.len() + 1],
    total_us: AtomicU64,
}

/// The same, as shown: how many took no longer than each of [`SYNC_BOUNDS_US`] and longer than the one before, and how many longer than all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Syncs {
    pub counts: Vec<u64>,
    pub total_us: u64,
}

impl SyncTimes {
    pub fn took(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let at = SYNC_BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(SYNC_BOUNDS_US.len());
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.total_us.fetch_add(us, Ordering::Relaxed);
    }

    pub fn shown(&self) -> Syncs {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Syncs { counts: self.counts.iter().map(count).collect(), total_us: count(&self.total_us) }
    }
}

/// What the process takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessFacts {
    pub resident_bytes: u64,
    pub cpu_ms: u64,
    pub open_fds: u64,
    pub threads: u64,
}

/// Clock ticks of `/proc/PID/stat` a second: `USER_HZ`, the same on every architecture Linux runs this on.
const TICKS: u64 = 100;

impl ProcessFacts {
    /// `None` where `/proc` is not as expected.
    pub fn read() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let open_fds = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
        let (resident_bytes, threads) = (figure(&status, "VmRSS:")? * 1024, figure(&status, "Threads:")?);
        // One of them is the look itself.
        Some(Self { resident_bytes, cpu_ms: cpu_ms(&stat)?, open_fds: open_fds.saturating_sub(1), threads })
    }
}

fn figure(status: &str, name: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// User and system time: fields 14 and 15; the second may hold blanks and ends at the last parenthesis.
fn cpu_ms(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) * 1000 / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_counts_in_the_first_bound_that_holds_it() {
        let times = SyncTimes::default();
        for us in [0, SYNC_BOUNDS_US[0], SYNC_BOUNDS_US[0] + 1, u64::MAX / 2] {
            times.took(Duration::from_micros(us));
        }
        let shown = times.shown();
        assert_eq!((shown.counts[0], shown.counts[1], *shown.counts.last().unwrap()), (2, 1, 1));
    }

    #[test]
    fn a_process_is_read_whatever_its_name() {
        assert_eq!(cpu_ms("7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 9 0"), Some(3000));
        assert_eq!(cpu_ms("nonsense"), None);
        let own = ProcessFacts::read().expect("this process is there");
        assert!(own.resident_bytes > 1 << 20 && own.open_fds > 0 && own.threads > 0, "{own:?}");
    }
}
