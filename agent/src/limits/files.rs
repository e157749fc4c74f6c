//! Bounds of directory feeds and of splitting what they find into records; part of `limits`.

use std::time::Duration;

use super::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, GIB, KIB, MESSAGE_BYTES_MAX_RANGE, MIB};

// ---- splitting files into records ----

/// Kept of a piece that is no record, for the quarantine.
pub const SPLIT_BAD_BYTES_MAX: usize = 64 * KIB as usize;
/// What may stand around a record (line ends, blanks) on top of `message_bytes_max` before it is given up.
pub const SPLIT_SLACK_BYTES: usize = 4 * KIB as usize;
/// A record over the limit is discarded up to this many bytes while looking for its end; then the rest of the file is given up.
pub const SPLIT_DISCARD_BYTES: u64 = GIB;
/// Findings about an envelope that are kept; more are counted.
pub const SPLIT_FINDINGS_MAX: usize = 64;
/// A record below this is copied out of the buffer, so that it does not keep the whole block alive.
pub const SPLIT_COPY_BYTES: usize = 4 * KIB as usize;
/// Bytes of a file fed to a splitter at once.
pub const SPLIT_FEED_BYTES: usize = 256 * KIB as usize;
/// From this size on a file's digest is made by a thread beside, which has so many of those portions at most, the one being read among them.
pub const FILE_HASH_ASIDE_BYTES: u64 = 4 * MIB;
pub const FILE_HASH_BUFFERS: usize = 3;
/// Largest header row of a CSV file; it is repeated with every record.
pub const CSV_HEADER_BYTES_MAX: usize = 64 * KIB as usize;
/// Bytes of one CSV file looked at again because a quote was never closed, as a multiple of `message_bytes_max`.
pub const CSV_RESCAN_FACTOR: u64 = 8;
/// Fields of a fixed-width layout, and the largest record it may describe.
pub const FIXED_FIELDS_MAX: usize = 1024;
pub const FIXED_RECORD_BYTES_MAX: u32 = 64 * KIB as u32;
/// How much of an HL7 file may be looked at to tell what ends its segments.
pub const HL7_PROBE_BYTES: usize = 64 * KIB as usize;
/// Longest ISA that is not padded as it should be; longest segment whose elements are looked at.
pub const X12_ISA_BYTES_MAX: usize = 512;
pub const X12_SEGMENT_BYTES_MAX: usize = 16 * KIB as usize;
/// Control numbers remembered on each level of an X12 envelope to tell repeated ones.
pub const X12_NUMBERS_REMEMBERED: usize = 4096;
/// Deepest JSON value taken; parsers further on give up at 128.
pub const JSON_DEPTH_MAX: u32 = 100;
/// Longest key or type name of a JSON object that is compared.
pub const JSON_NAME_BYTES_MAX: usize = 256;

// ---- directory feeds ----

/// Default and range of `settle` and `scan`.
pub const SETTLE_DEFAULT: Duration = Duration::from_secs(30);
pub const SETTLE_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(24));
pub const SCAN_INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
pub const SCAN_INTERVAL_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(1));
/// After inotify rang: events of one file are taken together.
pub const DOORBELL_PAUSE: Duration = Duration::from_millis(100);
/// Names in one scan, and folders below one another.
pub const FILES_PER_SCAN_MAX: usize = 100_000;
pub const FOLDER_DEPTH_MAX: usize = 8;
/// Most patterns of one feed.
pub const FILE_PATTERNS_MAX: usize = 64;
/// Files remembered as done per feed (about 200 bytes each), and files that were left in the middle.
pub const FILES_REMEMBERED_MAX: usize = 32_768;
/// The same while some of a feed's folders cannot be looked into: what was not seen may still be there, and is forgotten only above this. The list of
/// them stays below half of `FILE_LIST_BYTES_MAX`, above which it would be written anew with every file.
pub const FILES_REMEMBERED_UNSEEN_MAX: usize = FILES_REMEMBERED_MAX * 3 / 2;
pub const FILES_LEFT_MAX: usize = 256;
/// Files captured together: one note before, one after.
pub const FILE_BATCH_MAX: usize = 64;
pub const FILE_BATCH_BYTES: u64 = MIB;
/// Records handed to the committer at once, and bundles under way. One record may be larger than a bundle; then it goes alone.
pub const FILE_BUNDLE_RECORDS: usize = 512;
pub const FILE_BUNDLE_BYTES: usize = 128 * KIB as usize;
pub const FILE_BUNDLES: usize = 2;
/// The same for the one feed at a time that goes through a large file: as many as two flushes take, one being written, one being filled.
pub const FILE_WIDE_RECORDS: usize = 2048;
pub const FILE_WIDE_BYTES: usize = 512 * KIB as usize;
pub const FILE_WIDE_BUNDLES: usize = 12;
/// More pieces than this that are no records: the file is refused as a whole.
pub const FILE_BAD_PIECES_MAX: u64 = 1000;
/// After the spool refused: a round is tried again after this.
pub const FILE_RETRY: Duration = Duration::from_secs(5);
/// A file that cannot be read is tried again after this.
pub const FILE_UNREADABLE_RETRY: Duration = Duration::from_mins(5);
/// A file that cannot be moved is tried again after this, doubling to the second value.
pub const FILE_MOVE_RETRY: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(1));
/// Names tried in done/ and failed/ for one file.
pub const FILE_NAME_ATTEMPTS: u32 = 100;
/// Moved files that are watched for later changes.
pub const FILES_WATCHED_AFTER: usize = 64;
/// How often done/ is cleared up, how many names are looked at for it (as many as one scan takes are removed at once), and how long and how much it keeps by default.
pub const RETENTION_INTERVAL: Duration = Duration::from_mins(10);
pub const RETENTION_NAMES_MAX: usize = 10 * FILES_PER_SCAN_MAX;
/// So many names are one call to the share, as far as its deadline goes.
pub const RETENTION_NAMES_A_CALL: usize = 1000;
pub const RETENTION_DAYS_DEFAULT: u32 = 30;
pub const RETENTION_DAYS_RANGE: (u64, u64) = (0, 3650);
pub const RETENTION_BYTES_DEFAULT: u64 = GIB;
/// A call to a share that takes longer than this is said to hang; how often it is looked.
pub const SHARE_CALL_DEADLINE: Duration = Duration::from_mins(1);
pub const SHARE_WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Most and default number of pieces in the tables of `siteward feeds try`.
pub const TRY_ROWS_MAX: u64 = 10_000;
pub const TRY_ROWS_DEFAULT: u64 = 20;
/// `siteward feeds try` shows its progress on a terminal with files above this.
pub const TRY_PROGRESS_BYTES: u64 = 16 * MIB;

const _: () = {
    assert!(FILE_BUNDLE_RECORDS <= FILE_WIDE_RECORDS && FILE_BUNDLE_BYTES <= FILE_WIDE_BYTES && FILE_BUNDLES <= FILE_WIDE_BUNDLES);
    assert!(FILE_WIDE_RECORDS <= BATCH_RECORDS_MAX && FILE_WIDE_BYTES as u64 <= BATCH_BYTES_MAX);
    assert!(SPLIT_BAD_BYTES_MAX as u64 <= MESSAGE_BYTES_MAX_RANGE.0);
    assert!(X12_ISA_BYTES_MAX <= X12_SEGMENT_BYTES_MAX && HL7_PROBE_BYTES as u64 <= MESSAGE_BYTES_MAX_RANGE.0);
};
