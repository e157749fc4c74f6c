//! Bounds of the expected cadence, and of conditions on their way to the hub; part of `limits`.

use std::time::Duration;

use super::{KIB, MIB};

/// How often it is judged, and how often what is remembered over a restart is written while nothing else calls for it.
pub const CADENCE_INTERVAL: Duration = Duration::from_secs(2);
pub const CADENCE_WRITE_INTERVAL: Duration = Duration::from_mins(5);
/// The wall clock was set if it goes on by so much more or less than the monotonic one.
pub const CADENCE_JUMP: Duration = Duration::from_mins(1);
/// After the start, what waits outside has so long to come in.
pub const CADENCE_START: Duration = Duration::from_mins(5);
/// Missed deadlines that are known as such, so that a clock set back misses none twice.
pub const CADENCE_MISSED_KEPT: usize = 64;
/// Days a calendar is followed forwards or backwards.
pub const CADENCE_DAYS_MAX: usize = 400;
pub const CADENCE_EVERY_RANGE: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(31 * 24));
pub const CADENCE_GRACE_MAX: Duration = Duration::from_hours(12);
pub const CADENCE_GRACE_DEFAULT: Duration = Duration::from_mins(15);
pub const CADENCE_BY_MAX: usize = 24;
pub const HOLIDAYS_MAX: usize = 4000;
pub const HOLIDAYS_FILE_BYTES_MAX: u64 = 256 * KIB;
pub const HOLIDAYS_INTERVAL: Duration = Duration::from_mins(1);
/// What is remembered of arrivals.
pub const ARRIVALS_FILE_BYTES_MAX: u64 = MIB;
/// Conditions in the retained status, the worst first, the length of their text, and how far apart changes are told.
pub const CONDITIONS_TOLD_MAX: usize = 32;
pub const CONDITION_TEXT_CHARS_MAX: usize = 240;
pub const CONDITIONS_TOLD_INTERVAL: Duration = Duration::from_secs(5);
/// The status is told again so often while nothing changes: a hub can tell one that stands from one that was left behind.
pub const STATUS_INTERVAL: Duration = Duration::from_mins(5);
/// Conditions of all gateways that a receiver knows, so that each is told once.
pub const HUB_CONDITIONS_MAX: usize = 20_000;

const _: () = {
    assert!(CADENCE_JUMP.as_secs() > 4 * CADENCE_INTERVAL.as_secs());
    assert!(CADENCE_EVERY_RANGE.1.as_secs() < CADENCE_DAYS_MAX as u64 * 24 * 3600);
};
