//! The only file that reads the wall clock.
//!
//! Correctness never depends on it (I10): order and expiry come from sequence numbers, counters and `Instant`. What is read here ends up in
//! timestamps for people, together with the word whether they can be believed. A clock that stands before this release was made is
//! `suspect`: boxes without a battery boot in 1970. So is one that nobody keeps right and that the hub, or its certificate, contradicts.
//!
//! Certificates have dates, and a gateway must neither lose its hub to a wrong clock nor take an expired certificate by a right one: for them
//! there is a time source of our own (`own`, pure), and one rule for every check (`dates`). The agent tends it ([`tend`], [`look`]); a tool that
//! does not goes by the system's clock alone.

pub(crate) mod dates;
mod own;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jiff::Timestamp;

use self::own::Own;

/// No honest clock stands before this (2026-11-01T00:00:00Z), in milliseconds since 1970.
pub const RELEASED_AT_MS: i64 = 1_793_491_200_000;

/// Where systemd-timesyncd says that it has set the clock.
pub const SYNCHRONISED_FILE: &str = "/run/systemd/timesync/synchronized";

/// A wall-clock reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallTime {
    /// Milliseconds since 1970-01-01T00:00:00Z, as the system says.
    pub unix_ms: i64,
    /// The system's clock cannot be believed.
    pub suspect: bool,
}

static OWN: Mutex<Own> = Mutex::new(Own::UNTENDED);
/// The hub, or its certificate, contradicts the system's clock; kept apart, because every message asks.
static CONTRADICTED: AtomicBool = AtomicBool::new(false);

fn own() -> MutexGuard<'static, Own> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[allow(clippy::disallowed_methods)] // the one place
fn system_ms() -> i64 {
    match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
    }
}

/// Reads the system's clock.
pub fn now() -> WallTime {
    let unix_ms = system_ms();
    WallTime { unix_ms, suspect: unix_ms < RELEASED_AT_MS || CONTRADICTED.load(Ordering::Relaxed) }
}

/// The system's clock (milliseconds since 1970) where somebody vouches for it, by the rule for the dates of certificates; `None`: refuse nobody
/// for dates. What only tells of an end goes by [`now`]: a certificate that has ended may be the very reason why nobody vouches.
pub fn believed_now() -> Option<i64> {
    let system = system_ms();
    own().believed(system, Instant::now()).then_some(system)
}

/// From here on [`look`] is called now and then. `file` is there while somebody keeps the system's clock right; `memory` is where the time that
/// the hub confirmed last is kept. Blocking.
pub fn tend(file: &Path, memory: &Path) {
    let last = std::fs::read_to_string(memory).ok().and_then(|text| text.trim().parse().ok());
    own().tend(last);
    look(file);
}

/// Looks whether the clock is kept right, and compares it with what the hub said. The time to write down, when it is time to. Blocking.
pub fn look(file: &Path) -> Option<i64> {
    let synchronised = file.exists();
    let mut own = own();
    own.synchronised(synchronised);
    let (system, now) = (system_ms(), Instant::now());
    CONTRADICTED.store(own.suspect(system, now), Ordering::Relaxed);
    own.due_for_keeping(now)
}

/// Writes down what the hub confirmed. Blocking. What fails is tried again an hour later.
pub fn keep(memory: &Path, confirmed_ms: i64) -> std::io::Result<()> {
    let fresh = PathBuf::from(format!("{}.fresh", memory.display()));
    std::fs::write(&fresh, format!("{confirmed_ms}\n"))?;
    std::fs::File::open(&fresh)?.sync_data()?;
    std::fs::rename(&fresh, memory)
}

/// A verified hub says what time it was when it wrote what just came.
pub fn hear_hub(unix_ms: i64) {
    own().hear(unix_ms, Instant::now());
}

/// Why the clock cannot be believed, as a sentence for people.
pub fn doubt() -> Option<String> {
    let (system, now) = (system_ms(), Instant::now());
    if system < RELEASED_AT_MS {
        return Some("the system's clock stands before this release was made; check time synchronisation".to_owned());
    }
    own().doubt(system, now)
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

    #[test]
    fn the_confirmed_time_is_kept_through_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let memory = directory.path().join("hub-time");
        keep(&memory, 1_800_000_000_123).unwrap();
        assert_eq!(std::fs::read_to_string(&memory).unwrap(), "1800000000123\n");
        assert_eq!(directory.path().read_dir().unwrap().count(), 1);
    }
}
