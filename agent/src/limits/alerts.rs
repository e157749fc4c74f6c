//! Bounds of metrics, alerts and maintenance windows; part of `limits`.

use std::time::Duration;

use super::{FEEDS_MAX, KIB};

// ---- metrics ----

/// Bounds of the histogram of the journal's syncs, in microseconds: a good disk is in the first, a bad card in the last.
pub const SYNC_BOUNDS_US: [u64; 12] = [250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000];

// ---- alerts ----

/// How often conditions are looked at for alerts.
pub const ALERT_TICK: Duration = Duration::from_millis(500);
/// Default hold-downs: how long these have to be so before somebody is alerted; and their permitted range.
pub const HOLD_UPLINK_DEFAULT: Duration = Duration::from_mins(5);
pub const HOLD_PEER_DEFAULT: Duration = Duration::from_mins(15);
pub const HOLD_OLDEST_DEFAULT: Duration = Duration::from_mins(15);
pub const HOLD_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(24));
/// What was held or alerted when the agent ended, and is not raised again within this after the start, is over.
pub const ALERT_START: Duration = Duration::from_mins(2);
/// What is held is written this often, so that restarts cannot put an alert off for ever.
pub const ALERT_WRITE_INTERVAL: Duration = Duration::from_secs(20);
/// Conditions under watch at once; above it the rest wait until one of them is over.
pub const ALERTS_WATCHED_MAX: usize = 1024;
/// Feeds of which it is remembered that their sender keeps its connection.
pub const ALERT_STANDING_MAX: usize = FEEDS_MAX;
/// A sender is lost when it has been gone for so long; after the start, senders have longer to come back.
pub const PEER_GONE: Duration = Duration::from_secs(5);
pub const PEER_BACK: Duration = Duration::from_mins(1);
/// A connection that brings nothing is the sender's when it lasts so long: a test of the port does not.
pub const PEER_STAYS: Duration = Duration::from_secs(30);
/// Longest subject of a condition that is remembered.
pub const ALERT_SUBJECT_BYTES_MAX: usize = 512;
/// How long the disk may take to write it before it is gone on without.
pub const ALERT_WRITE_DEADLINE: Duration = Duration::from_secs(2);
/// The file that holds all of it.
pub const ALERTS_FILE_BYTES_MAX: u64 = 2048 * KIB;

// ---- syslog ----

/// Lines that wait for a receiver; above it the oldest are dropped, counted, and the next line says how many.
pub const SYSLOG_QUEUE: usize = 512;
/// Longest line: what RFC 5424 asks every receiver to take at least, by UDP too.
pub const SYSLOG_LINE_BYTES_MAX: usize = 2048;
/// Where the runbook is, for whoever reads a line: as it is called beside the status page and in the package.
pub const SYSLOG_RUNBOOK_DEFAULT: &str = "RUNBOOK.md";
/// Of `[alerts] runbook`.
pub const SYSLOG_RUNBOOK_BYTES_MAX: usize = 128;
/// Looking up, connecting and writing of one line.
pub const SYSLOG_DEADLINE: Duration = Duration::from_secs(10);
/// Between attempts at a receiver that does not take a line.
pub const SYSLOG_BACKOFF_MIN: Duration = Duration::from_secs(1);
pub const SYSLOG_BACKOFF_MAX: Duration = Duration::from_mins(1);
/// After a datagram, for the receiver's host to say that nobody listens there.
pub const SYSLOG_UDP_LOOK: Duration = Duration::from_millis(250);
/// What is left in the queue when the agent stops has so long to go.
pub const SYSLOG_STOP: Duration = Duration::from_secs(2);

// ---- maintenance windows ----

/// Longest maintenance window.
pub const MAINTENANCE_TIME_MAX: Duration = Duration::from_hours(72);
/// Windows at once.
pub const MAINTENANCE_MAX: usize = 64;
/// How far ahead a window may be planned.
pub const MAINTENANCE_AHEAD_MAX: Duration = Duration::from_hours(30 * 24);
/// Windows of the gateway as a whole that the hub is told of.
pub const MAINTENANCE_TOLD_MAX: usize = 8;
/// Requests that wait, and how long one waits.
pub const MAINTENANCE_REQUESTS_MAX: usize = 8;
pub const MAINTENANCE_ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

const _: () = {
    assert!(ALERT_WRITE_INTERVAL.as_secs() * 4 < HOLD_UPLINK_DEFAULT.as_secs());
    assert!((ALERTS_WATCHED_MAX * (ALERT_SUBJECT_BYTES_MAX + 64)) as u64 + 256 * KIB < ALERTS_FILE_BYTES_MAX);
    assert!(ALERT_START.as_secs() < HOLD_UPLINK_DEFAULT.as_secs());
};
