//! Bounds of the desk's tools: rollouts in waves, templates.

use std::time::Duration;

use super::{KIB, MIB};

// ---- rollouts ----

/// Waves of one rollout, and gateways.
pub const WAVES_MAX: usize = 64;
pub const ROLLOUT_GATEWAYS_MAX: usize = 20_000;
/// The rest after the first wave and after each later one; the longest that may be asked for.
pub const SOAK_DEFAULT: [Duration; 2] = [Duration::from_hours(24), Duration::from_hours(1)];
pub const SOAK_MAX: Duration = Duration::from_hours(31 * 24);
/// A gateway that is there may say nothing of a document for so long before it is published again, and how often it is published in all.
pub const PUSH_GRACE_DEFAULT: Duration = Duration::from_mins(2);
pub const PUSHES_MAX: u32 = 4;
/// How often time passes for a rollout, and how long the broker must be silent before what it keeps counts as read.
pub const WAVES_TICK: Duration = Duration::from_millis(500);
pub const RETAINED_QUIET: Duration = Duration::from_millis(1500);
/// Publishes that wait for the connection, and messages that wait for us.
pub const LIVE_QUEUE: usize = 256;
/// After a lost connection: the first pause, doubling to the second.
pub const LIVE_BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// So many connections in a row, each lost so soon after it stood and opened again at the first attempt, are no broken line: two clients with one name
/// drive each other out. Some brokers say so (MQTT 5, reason 0x8e); Mosquitto 2.0 closes without a word.
pub const LIVE_CONTESTED: u32 = 4;
pub const LIVE_SHORT: Duration = Duration::from_secs(10);
/// The journal of rollouts, and one line of it.
pub const JOURNAL_BYTES_MAX: u64 = 512 * MIB;
/// Most of a gateway's own sentence that is kept and shown.
pub const REASON_SHOWN_CHARS: usize = 400;
/// Lines of a difference that are shown for one gateway.
pub const DIFFERENCES_SHOWN_MAX: usize = 500;

// ---- templates ----

/// The table of a template: bytes, columns, rows, and the longest value.
pub const TABLE_BYTES_MAX: u64 = 16 * MIB;
pub const TABLE_COLUMNS_MAX: usize = 256;
pub const TABLE_ROWS_MAX: usize = ROLLOUT_GATEWAYS_MAX;
pub const TABLE_VALUE_BYTES_MAX: usize = 4 * KIB as usize;
/// Faults of a table that are told at once.
pub const TABLE_FAULTS_MAX: usize = 100;
