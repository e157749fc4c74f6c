//! Bounds of what is set on the box: secrets and overrides, with the relations between them asserted at compile time.

use std::time::Duration;

use super::{CONTROL_REQUEST_BYTES_MAX, DOCUMENT_BYTES_MAX, FEEDS_KNOWN_MAX, FEEDS_MAX, KIB, LETTER_BYTES_MAX, NAME_BYTES_MAX, PEERS_MAX};

// ---- secrets ----

/// Secrets of one gateway that are set locally, and that one document carries.
pub const SECRETS_MAX: usize = 64;
/// Longest name of one, and its largest value: room for a private key with its chain.
pub const SECRET_NAME_BYTES_MAX: usize = 64;
pub const SECRET_BYTES_MAX: usize = 16 * KIB as usize;
/// The sealed form of one in base64.
pub const SECRET_SEALED_CHARS_MAX: usize = (SECRET_BYTES_MAX + 64).div_ceil(3) * 4;
/// The file that holds all of them.
pub const SECRETS_FILE_BYTES_MAX: u64 = (SECRETS_MAX * (SECRET_BYTES_MAX + SECRET_NAME_BYTES_MAX + 128)) as u64;

// ---- what holds for a time (`timed`) ----

/// Shortest time that can be asked for.
pub const TIMED_TIME_MIN: Duration = Duration::from_secs(1);
/// What is left of the time is charged ahead, in slices of an eighth of it within these bounds: a kill costs at most one slice and never adds any
/// time.
pub const TIMED_SLICE_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// Characters of a reason that are kept.
pub const TIMED_REASON_CHARS_MAX: usize = 200;

// ---- overrides ----

/// Longest time an override holds.
pub const OVERRIDE_TIME_MAX: Duration = Duration::from_hours(24);
/// Overrides at once: one of each kind for every feed.
pub const OVERRIDES_MAX: usize = 3 * FEEDS_MAX;
/// Of a long list of peers so much is told to the hub and in conditions; and of all overrides so much in the reported state.
pub const OVERRIDE_VALUE_BYTES_TOLD: usize = 256;
pub const OVERRIDES_REPORTED_BYTES_MAX: usize = 32 * KIB as usize;
/// The file that holds all of them.
pub const OVERRIDES_FILE_BYTES_MAX: u64 = (OVERRIDES_MAX * (PEERS_MAX * 24 + 1600)) as u64;
/// Requests that wait for their keeper, and how long one waits.
pub const OVERRIDE_REQUESTS_MAX: usize = 8;
pub const OVERRIDE_ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
/// How often the time of overrides is looked at.
pub const OVERRIDE_TICK: Duration = Duration::from_millis(500);

const _: () = {
    // The reported state is one letter: beside them it lists feeds that drain, and says a few things in a few sentences.
    assert!(OVERRIDES_REPORTED_BYTES_MAX + FEEDS_KNOWN_MAX * (NAME_BYTES_MAX + 3) + 16 * KIB as usize <= LETTER_BYTES_MAX);
    assert!(SECRET_SEALED_CHARS_MAX + 1024 < CONTROL_REQUEST_BYTES_MAX);
    assert!(SECRET_SEALED_CHARS_MAX + 4096 < DOCUMENT_BYTES_MAX);
};
