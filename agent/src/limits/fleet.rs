//! Bounds of the fleet view at the desk; part of `limits`.

use std::time::Duration;

use super::{CONDITIONS_TOLD_MAX, GIB, KIB, LETTER_BYTES_MAX, MIB, STATUS_INTERVAL};

/// Gateways that a fleet view holds; further ones are counted and said.
pub const FLEET_GATEWAYS_MAX: usize = 20_000;
/// Largest status or reported state that is looked at, and the largest packet we let the broker send.
pub const FLEET_PAYLOAD_BYTES_MAX: usize = LETTER_BYTES_MAX;
pub const FLEET_PACKET_BYTES_MAX: u32 = 256 * KIB as u32;
/// Publishes that wait to be looked at.
pub const FLEET_PENDING_MAX: usize = 256;
/// Longest text of somebody else's that is kept, in characters, and longest code.
pub const FLEET_TEXT_CHARS_MAX: usize = 240;
pub const FLEET_CODE_BYTES_MAX: usize = 64;
/// What the broker keeps comes at once: a look ends when nothing came for so long, or at the deadline.
pub const FLEET_QUIET: Duration = Duration::from_millis(800);
pub const FLEET_DEADLINE: Duration = Duration::from_secs(30);
/// A status that says online and is older than this was left behind: its gateway tells it every `STATUS_INTERVAL`.
pub const FLEET_STALE: Duration = Duration::from_mins(16);
/// How often everything the broker keeps is asked for again, should something have been dropped on the way.
pub const FLEET_RESYNC: Duration = Duration::from_hours(1);
/// Redraws of a terminal, and looks at ages.
pub const FLEET_TICK: Duration = Duration::from_secs(1);
/// The list of gateways that there should be.
pub const FLEET_EXPECTED_BYTES_MAX: u64 = 8 * MIB;

// ---- alarms and webhooks ----

/// Alarms known at once; above that a new one is counted, said in the log and in the metrics, and not told.
pub const ALARMS_MAX: usize = 20_000;
/// An alarm that is over is cleared when it stayed over for so long: what comes and goes is one alarm.
pub const ALARM_CLEAR_AFTER: Duration = Duration::from_mins(1);
/// How often every gateway is looked at for what time alone brings.
pub const ALARM_LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Raised all this time: told again.
pub const ALARM_AGAIN_AFTER: Duration = Duration::from_hours(4);
/// A gateway that is offline for less is no alarm by default.
pub const OFFLINE_AFTER_DEFAULT: Duration = Duration::from_mins(5);
/// Notices that wait for one receiver; the oldest are dropped above that, counted and said.
pub const NOTICES_MAX: usize = 10_000;
/// Receivers of notices.
pub const WEBHOOKS_MAX: usize = 8;
/// One delivery, from dialling to the last byte of the answer, and what of the answer is read.
pub const WEBHOOK_DEADLINE: Duration = Duration::from_secs(15);
pub const WEBHOOK_ANSWER_BYTES_MAX: usize = 64 * KIB as usize;
/// Between attempts at a receiver that does not take a notice.
pub const WEBHOOK_BACKOFF_MIN: Duration = Duration::from_secs(1);
pub const WEBHOOK_BACKOFF_MAX: Duration = Duration::from_mins(5);
/// A receiver that refuses a notice itself (a status of 4xx) gets it so often; then it is dropped, counted and said.
pub const WEBHOOK_REFUSALS_MAX: u32 = 5;
/// Headers of our own for a receiver.
pub const WEBHOOK_HEADERS_BYTES_MAX: u64 = 16 * KIB;
/// The file of alarms.
pub const ALARM_FILE_BYTES_MAX: u64 = 256 * MIB;

// ---- metrics ----

/// Connections at once, time for a request, and largest head of one.
pub const METRICS_CONNECTIONS_MAX: usize = 16;
pub const METRICS_DEADLINE: Duration = Duration::from_secs(30);
pub const METRICS_HEAD_BYTES_MAX: usize = 16 * KIB as usize;

// ---- one message at the hub ----

/// How much of the receiver's output is read by default, from its end.
pub const FIND_BYTES_DEFAULT: u64 = 64 * GIB;
/// Findings that are shown.
pub const FIND_SHOWN_MAX: usize = 1000;
/// Neighbours on either side that the index is asked for.
pub const FIND_AROUND: u64 = 5;

const _: () = {
    assert!(FLEET_PAYLOAD_BYTES_MAX + 1024 < FLEET_PACKET_BYTES_MAX as usize);
    assert!(FLEET_STALE.as_secs() > 3 * STATUS_INTERVAL.as_secs());
    assert!(FLEET_TEXT_CHARS_MAX * CONDITIONS_TOLD_MAX * FLEET_GATEWAYS_MAX < GIB as usize);
    assert!(WEBHOOK_BACKOFF_MAX.as_secs() < ALARM_AGAIN_AFTER.as_secs());
};
