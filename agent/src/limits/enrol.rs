//! Bounds of enrolment and retirement: bundles, requests and answers, what the desk keeps of them, and how long a gateway is waited for.

use std::time::Duration;

use super::{CERTIFICATE_BYTES_MAX, DOCUMENT_BYTES_MAX, INCOMING_PACKET_BYTES_MAX, KIB, MIB};

/// Largest bundle: certificates, keys and addresses. It is read as an envelope, which bounds it already.
pub const BUNDLE_BYTES_MAX: usize = 256 * KIB as usize;
/// Days for which a bundle may be used.
pub const BUNDLE_DAYS_DEFAULT: u32 = 14;
pub const BUNDLE_DAYS_RANGE: (u32, u32) = (1, 90);
/// Digits of a key's fingerprint that somebody has to compare: 80 bits, which nobody finds a second key for.
pub const FINGERPRINT_DIGITS_MIN: usize = 20;
/// Longest common name that a certificate may carry (X.520).
pub const SUBJECT_CHARS_MAX: usize = 64;
/// Largest request or answer on the enrolment topics: a chain of certificates as JSON.
pub const ENROLMENT_BYTES_MAX: usize = CERTIFICATE_BYTES_MAX + CERTIFICATE_BYTES_MAX / 2;
/// How long a box waits for the desk where nothing else was said, and the longest that may be said.
pub const ENROLMENT_WAIT_DEFAULT: Duration = Duration::from_mins(10);
/// Publishes of one visit to the broker that are not acknowledged yet.
pub const VISIT_IN_FLIGHT_MAX: usize = 8;
/// Publishes that wait for their turn: what is heard beyond them has to come again, which retained messages do.
pub const VISIT_QUEUE_MAX: usize = 1024;
/// Pause between two attempts to reach the broker.
pub const VISIT_RETRY: Duration = Duration::from_secs(3);
/// One-shot answering ends when nothing came for this long.
pub const DESK_QUIET: Duration = Duration::from_secs(2);
/// Operations of the desk on its state take moments; whoever has to wait longer is told for whom.
pub const DESK_LOCK_WAIT: Duration = Duration::from_secs(20);
/// Records of enrolments that are kept, and the largest of them.
pub const DESK_RECORDS_MAX: usize = 65_536;
pub const DESK_RECORD_BYTES_MAX: u64 = 256 * KIB;
/// Days that a certificate issued by the desk holds, and how long before now it begins, for clocks that are behind.
pub const GATEWAY_CERTIFICATE_DAYS: u64 = 397;
pub const CERTIFICATE_BACKDATE: Duration = Duration::from_hours(1);

/// How long a gateway without any feed waits for the document that comes by itself before it says that it has none.
pub const NO_FEEDS_GRACE: Duration = Duration::from_mins(2);
/// Feeds that a condition names; further ones are counted.
pub const UNUSED_FEEDS_TOLD: usize = 8;

// ---- the desk's own certificates ----

/// From how long before its end a certificate or list of the desk is spoken of, how often it is looked at and said, and when it is an error.
pub const DESK_END_WARNING: Duration = Duration::from_hours(60 * 24);
pub const DESK_END_LOOK: Duration = Duration::from_hours(1);
pub const DESK_END_REPEAT: Duration = Duration::from_hours(12);
pub const DESK_END_URGENT: Duration = Duration::from_hours(7 * 24);
/// Files whose end `fleet serve` tells, and the largest.
pub const DESK_ENDS_MAX: usize = 64;
pub const DESK_END_FILE_BYTES_MAX: u64 = 16 * MIB;

// ---- retirement ----

/// How often a retirement looks whether everything is confirmed, or the agent has stopped, and how long it waits for that.
pub const RETIRE_POLL: Duration = Duration::from_millis(500);
pub const RETIRE_STOP_WAIT: Duration = Duration::from_mins(30);
/// How long the agent waits until the broker has the audit record; below what the control socket gives an answer.
pub const RETIRE_REPORT_TIMEOUT: Duration = Duration::from_secs(4);

const _: () = {
    assert!(BUNDLE_BYTES_MAX <= DOCUMENT_BYTES_MAX);
    assert!(ENROLMENT_BYTES_MAX + 4 * (KIB as usize) < INCOMING_PACKET_BYTES_MAX as usize);
    assert!(BUNDLE_DAYS_RANGE.0 <= BUNDLE_DAYS_DEFAULT && BUNDLE_DAYS_DEFAULT <= BUNDLE_DAYS_RANGE.1);
};
