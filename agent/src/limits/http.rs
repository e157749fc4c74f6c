//! Bounds of HTTP feeds; part of `limits`.

use std::time::Duration;

use super::{CONTROL_ID_BYTES_MAX, DEDUPE_IDS_PER_FEED, DEDUPE_IDS_TOTAL, FEEDS_MAX, KIB, MIB, NAME_BYTES_MAX, RECORD_HEADER_BYTES_MAX};

/// Largest body of a request that holds many records; a slot for large messages is taken while it is read and stored.
pub const HTTP_BODY_BYTES_MAX_DEFAULT: u64 = 16 * MIB;
/// Head of a request: bytes and fields.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 * KIB as usize;
pub const HTTP_HEAD_FIELDS_MAX: usize = 64;
/// From the end of the answer before (or the handshake) to the end of the next request's head; so also how long a connection may be idle.
pub const HTTP_HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Default and range of `body_timeout`: from the end of a request's head to the end of its body.
pub const HTTP_BODY_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
pub const HTTP_BODY_TIMEOUT_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(10));
/// Default number of connections per port; above it up to as many again are answered with 429, more are closed.
pub const HTTP_CONNECTIONS_DEFAULT: usize = 128;
/// A large body waits this long for a slot before it is answered with 429.
pub const HTTP_SLOT_WAIT: Duration = Duration::from_secs(5);
/// What clients are told to wait: too many at once; the store refuses; the agent stops.
pub const HTTP_RETRY_BUSY: Duration = Duration::from_secs(5);
pub const HTTP_RETRY_STORE: Duration = Duration::from_secs(30);
pub const HTTP_RETRY_STOPPING: Duration = Duration::from_secs(10);
/// A body that was answered before its end is read on for so long and so far, so that its sender sees the answer.
pub const HTTP_LINGER: Duration = Duration::from_secs(2);
pub const HTTP_LINGER_BYTES: u64 = 64 * MIB;
/// Of `SOURCE_STOP_DEADLINE`, what closing the port may take when its requests are answered.
pub const HTTP_STOP_RESERVE: Duration = Duration::from_secs(2);
/// An HTTP feed that is to let go of its port does so within this: it answers what it has under way, at most `SOURCE_STOP_DEADLINE`, and leaves.
pub const HTTP_RELEASE: Duration = Duration::from_secs(12);
/// Longest idempotency key, and longest media type in `accept`, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 160;
pub const MEDIA_TYPE_BYTES_MAX: usize = 100;
/// Kept of the peer and its name in a record header.
pub const HTTP_PEER_CHARS_MAX: usize = 128;
/// Entries of `accept` and of a tokens file.
pub const HTTP_ACCEPT_MAX: usize = 32;
pub const HTTP_TOKENS_MAX: usize = 256;
/// A tokens file is looked at this often.
pub const HTTP_TOKENS_INTERVAL: Duration = Duration::from_secs(2);
/// More parts of one body than this that are no records: the body is refused as a whole.
pub const HTTP_BAD_PARTS_MAX: u64 = 1000;
/// Records of one body; and of one under an idempotency key: all of them stay in the dedupe window, however many feeds share it and are busy.
pub const HTTP_RECORDS_MAX: u64 = 50_000;
pub const HTTP_KEYED_RECORDS_MAX: u64 = 1_800;

const _: () = {
    assert!(2 * HTTP_KEYED_RECORDS_MAX <= DEDUPE_IDS_PER_FEED && HTTP_KEYED_RECORDS_MAX <= HTTP_RECORDS_MAX);
    // A feed gives ids away only when it has most of all, and keeps 7/8 of a limit that was 8/9 of them or more (`spool/window`).
    assert!(HTTP_KEYED_RECORDS_MAX as usize * FEEDS_MAX * 9 / 7 <= DEDUPE_IDS_TOTAL);
    assert!(IDEMPOTENCY_KEY_BYTES_MAX + 8 <= CONTROL_ID_BYTES_MAX);
    assert!(CONTROL_ID_BYTES_MAX + NAME_BYTES_MAX + 4 * HTTP_PEER_CHARS_MAX + MEDIA_TYPE_BYTES_MAX + 512 < RECORD_HEADER_BYTES_MAX);
};
