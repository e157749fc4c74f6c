//! Bounds of the audit log, with the relations between them asserted at compile time.

use std::time::Duration;

use super::{COMMAND_TEXT_BYTES_MAX, KIB, LETTER_BYTES_MAX};

/// A segment is allocated whole when it is made, and another of its size lies beside it for a disk that is full.
pub const AUDIT_SEGMENT_BYTES: u64 = 128 * KIB;
/// Segments kept: 16 MiB, about 25,000 records. Those the hub's broker has go first; an older one that it has not goes with a record that says so.
pub const AUDIT_SEGMENTS_MAX: usize = 128;
/// More than those may lie there where the oldest cannot be removed; beyond that nothing is written until they can.
pub const AUDIT_SEGMENTS_OVER_MAX: usize = 8;
/// Entries of quarantine that one order names: 32 digits and a space each.
pub const QUARANTINE_NAMED_MAX: usize = 31;
/// Ranges that one record of what was given up names; beyond that the nearest are joined.
pub const AUDIT_DROPPED_RANGES_MAX: usize = 16;
/// Copies of a damaged segment that are kept beside it, and names tried for a log that is put aside.
pub const AUDIT_DAMAGED_KEPT_MAX: usize = 8;
pub const AUDIT_ASIDE_NAMES_MAX: usize = 100;
/// Facts of which it is remembered that they were said.
pub const AUDIT_ONCE_MAX: usize = 1024;
/// How long what was found of the whole log is told again instead of reading it again.
pub const AUDIT_VERIFY_KEPT: Duration = Duration::from_secs(3);
/// Orders of one user of a group: at once, and one more each so often; and the same over days, so that nobody fills the log alone within two
/// days, at about 7 KiB an order at worst. Break-glass has as many of its own.
pub const ORDERS_BURST: u32 = 20;
pub const ORDERS_EVERY: Duration = Duration::from_secs(1);
pub const ORDERS_LONG_BURST: u32 = 300;
pub const ORDERS_LONG_EVERY: Duration = Duration::from_secs(120);
/// Users of whom that is remembered.
pub const ORDERS_USERS_MAX: usize = 256;
/// Longest `who`, `subject` and `reason` of a record.
pub const AUDIT_WHO_BYTES_MAX: usize = 512;
pub const AUDIT_SUBJECT_BYTES_MAX: usize = COMMAND_TEXT_BYTES_MAX;
pub const AUDIT_REASON_BYTES_MAX: usize = 2 * COMMAND_TEXT_BYTES_MAX;
/// A record as a line: every byte of its texts may take six, as JSON writes them.
pub const AUDIT_LINE_BYTES_MAX: usize = 6 * (AUDIT_WHO_BYTES_MAX + AUDIT_SUBJECT_BYTES_MAX + AUDIT_REASON_BYTES_MAX) + 1024;
/// Records of what was done all the same while the disk did not take them; written when it does, beyond that counted.
pub const AUDIT_OWED_MAX: usize = 32;
/// Records read, or shown, at once.
pub const AUDIT_PAGE: usize = 64;
/// How long the broker is left in peace after it refused a record; how often what is owed to the disk is tried again.
pub const AUDIT_RETRY: Duration = Duration::from_secs(2);
/// Records of all chains that are compared at once at the hub: 24 bytes each.
pub const AUDIT_VERIFY_RECORDS_MAX: usize = 4_000_000;
/// Places of one chain that are named one by one.
pub const AUDIT_PLACES_SHOWN: usize = 16;

/// Of an entry of quarantine so much is shown in one answer.
pub const UNSEAL_BYTES_MAX: usize = 2048 * KIB as usize;

/// Lines of the log kept in memory for `siteward diagnose`, and of each so many bytes.
pub const LOG_LINES_KEPT: usize = 400;
pub const LOG_LINE_BYTES_KEPT: usize = 512;

/// Gateways whose newest record the receiver remembers.
pub const TRAIL_GATEWAYS_MAX: usize = 10_000;
/// Of each part of a diagnosis so much is kept; files of the spool that are listed; records of the audit log; time for a program of the system.
pub const DIAGNOSE_PART_BYTES_MAX: usize = 1024 * KIB as usize;
pub const DIAGNOSE_FILES_MAX: usize = 5000;
pub const DIAGNOSE_AUDIT_RECORDS: usize = 200;
pub const DIAGNOSE_PROGRAM_TIME: Duration = Duration::from_secs(10);

const _: () = {
    assert!(UNSEAL_BYTES_MAX * 3 / 2 < super::CONTROL_ANSWER_BYTES_MAX as usize);
    assert!(AUDIT_LINE_BYTES_MAX as u64 * 2 < AUDIT_SEGMENT_BYTES);
    assert!(AUDIT_LINE_BYTES_MAX < LETTER_BYTES_MAX);
    assert!(QUARANTINE_NAMED_MAX * 33 <= AUDIT_SUBJECT_BYTES_MAX);
    // Ranges fit into the subject that names them: two numbers of 20 digits each.
    assert!(AUDIT_DROPPED_RANGES_MAX * 42 < AUDIT_SUBJECT_BYTES_MAX);
    // Two days of one user's orders, intent and outcome, with the longest texts (plain ones) are less than the log.
    assert!(
        (ORDERS_LONG_BURST as u64 + 2 * 86_400 / ORDERS_LONG_EVERY.as_secs())
            * 2
            * ((AUDIT_WHO_BYTES_MAX + AUDIT_SUBJECT_BYTES_MAX + AUDIT_REASON_BYTES_MAX + 600) as u64)
            < AUDIT_SEGMENT_BYTES * AUDIT_SEGMENTS_MAX as u64
    );
    // An answer of a page is one answer of the control socket.
    assert!(AUDIT_PAGE * AUDIT_LINE_BYTES_MAX * 2 < super::CONTROL_ANSWER_BYTES_MAX as usize);
};
