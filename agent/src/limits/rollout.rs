//! Bounds of the rollout, with the relations between them asserted at compile time.

use std::time::Duration;

use super::{CONTROL_ANSWER_BYTES_MAX, CONTROL_TIMEOUT, KIB};

/// A signed document as it came, and what is kept preallocated so that one can be stored on a full disk.
pub const ENVELOPE_BYTES_MAX: u64 = 256 * KIB;
/// Every ledger file, preallocated: one takes the blocks of the one before.
pub const LEDGER_BYTES: u64 = 64 * KIB;
/// Revisions in the history.
pub const HISTORY_KEPT: usize = 20;
/// What of a document's author, approver, ticket, of its reason, and of our own sentence about it is kept, in bytes.
pub const HISTORY_NAME_BYTES_MAX: usize = 128;
pub const HISTORY_REASON_BYTES_MAX: usize = 512;
pub const HISTORY_WHY_BYTES_MAX: usize = 1024;
/// Times a revision is tried again after the uplink was lost during its trial.
pub const ROLLOUT_RETRIES_MAX: u32 = 3;
/// Longest time putting a configuration to use may take before it counts as failed.
pub const APPLY_DEADLINE: Duration = Duration::from_mins(2);
/// Feeds named in one sentence.
pub const FEEDS_NAMED_MAX: usize = 5;
/// Requests that wait for the owner of the ledger, and how long one waits.
pub const ROLLOUT_REQUESTS_MAX: usize = 8;
pub const ROLLOUT_ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
/// A document is suspect when so many messages went to quarantine since it was committed, at so many times the rate of the hour before.
pub const SUSPECT_RECORDS_MIN: u64 = 10;
pub const SUSPECT_FACTOR: u64 = 5;
/// How long after a commit this is looked at.
pub const SUSPECT_WATCH: Duration = Duration::from_hours(24);
/// Lines times lines that are compared in full by `siteward config diff`.
pub const DIFF_CELLS_MAX: usize = 4_000_000;

const _: () = {
    let entry = 3 * HISTORY_NAME_BYTES_MAX + HISTORY_REASON_BYTES_MAX + HISTORY_WHY_BYTES_MAX + 160;
    assert!((HISTORY_KEPT + 5) * entry < LEDGER_BYTES as usize);
    assert!(ROLLOUT_ANSWER_TIMEOUT.as_secs() < CONTROL_TIMEOUT.as_secs());
    assert!(2 * ENVELOPE_BYTES_MAX * 2 < CONTROL_ANSWER_BYTES_MAX);
};
