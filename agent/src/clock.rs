//! The only file that reads the wall clock.
//!
//! Correctness never depends on it (I10): order and expiry come from sequence numbers, counters and `Instant`. What is read here ends up in
//! timestamps for people, together with the word whether they can be believed. A clock that stands before this release was made is
//! `suspect`: boxes without a battery boot in 1970.

use jiff::Timestamp;

/// No honest clock stands before this (2026-11-01T00:00:00Z), in milliseconds since 1970.
pub const RELEASED_AT_MS: i64 = 1_793_491_200_000;

/// A wall-clock reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallTime {
    /// Milliseconds since 1970-01-01T00:00:00Z, as the system says.
    pub unix_ms: i64,
    /// The system's clock cannot be believed.
    pub suspect: bool,
}

/// Reads the system's clock.
#[allow(clippy::disallowed_methods)] // the one place
pub fn now() -> WallTime {
    let unix_ms = match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
    };
    WallTime { unix_ms, suspect: unix_ms < RELEASED_AT_MS }
}

/// RFC 3339 in UTC with milliseconds; a time out of range is shown as 1970.
pub fn rfc3339(unix_ms: i64) -> String {
    let at = Timestamp::from_millisecond(unix_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{at:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc_with_milliseconds() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(RELEASED_AT_MS), "2026-11-01T00:00:00.000Z");
    }
}
