//! Bounds of the status page and of what it remembers.

use std::time::Duration;

use super::{FEEDS_MAX, KIB};

// ---- server ----

/// Connections at once. Above it the oldest that has not asked for anything yet makes room; where all have, the new one is closed.
pub const PAGE_CONNECTIONS_MAX: usize = 64;
/// From the accept to the end of the request's head, and to the end of the answer.
pub const PAGE_HEAD_TIMEOUT: Duration = Duration::from_secs(5);
pub const PAGE_DEADLINE: Duration = Duration::from_secs(15);
/// Head of a request.
pub const PAGE_HEAD_BYTES_MAX: usize = 16 * KIB as usize;
pub const PAGE_HEAD_FIELDS_MAX: usize = 64;
/// A status is shown to everybody who asks within this; so no number of browsers asks the spool more often.
pub const PAGE_FRESH: Duration = Duration::from_millis(250);
/// Entries of `status.names`.
pub const PAGE_NAMES_MAX: usize = 16;

// ---- what is remembered since the start ----

/// Outages of the uplink that are kept one by one; the timeline says from when on it is complete.
pub const OUTAGES_KEPT: usize = 256;
/// What is written down of them for the next start: so many of so many runs, as far back as the page shows and a little more; and a cause's length.
pub const OUTAGES_FILED: usize = 128;
pub const RUNS_FILED: usize = 64;
pub const OUTAGES_FILED_FOR: Duration = Duration::from_hours(8 * 24);
pub const OUTAGE_WHY_FILED_CHARS_MAX: usize = 160;
pub const OUTAGES_FILE_BYTES_MAX: u64 = 256 * KIB;
/// They are looked at so often, and written when one began or ended, and at least so often: a power cut costs at most that.
pub const OUTAGES_TICK: Duration = Duration::from_secs(5);
pub const OUTAGES_WRITE_INTERVAL: Duration = Duration::from_mins(15);
pub const OUTAGES_WRITE_DEADLINE: Duration = Duration::from_secs(2);
/// Events; of one kind about one subject only so many, so that what flaps leaves the others.
pub const EVENTS_KEPT: usize = 128;
pub const EVENTS_KEPT_ALIKE: usize = 8;
/// Characters of a text that are kept with an outage or an event.
pub const HISTORY_TEXT_CHARS_MAX: usize = 300;
/// The rate of a feed is that of the last five minutes, from samples so far apart.
pub const RATE_INTERVAL: Duration = Duration::from_secs(10);
pub const RATE_SAMPLES: usize = 31;

const _: () = {
    assert!(EVENTS_KEPT_ALIKE * 4 <= EVENTS_KEPT);
    // What is remembered stays below 1 MiB, whatever happens.
    let texts = (OUTAGES_KEPT + EVENTS_KEPT) * HISTORY_TEXT_CHARS_MAX * 4;
    assert!(texts + FEEDS_MAX * RATE_SAMPLES * 32 < 1024 * KIB as usize);
};
