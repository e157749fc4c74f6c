//! Every bound of the program in one place, with the relations between them asserted at compile time.
//!
//! A reader who asks "how much memory, disk or time can this take at worst?" finds the answer here. Limits that a site may set in its
//! configuration have their default and their permitted range here; everything else is fixed.

mod alerts;
mod audit;
mod cadence;
mod desk;
mod enrol;
mod files;
#[cfg(feature = "hub")]
mod fleet;
mod http;
mod line;
mod local;
mod page;
mod rollout;

use std::time::Duration;

pub use self::alerts::*;
pub use self::audit::*;
pub use self::cadence::*;
pub use self::desk::*;
pub use self::enrol::*;
pub use self::files::*;
#[cfg(feature = "hub")]
pub use self::fleet::*;
pub use self::http::*;
pub use self::line::*;
pub use self::local::*;
pub use self::page::*;
pub use self::rollout::*;

pub const KIB: u64 = 1024;
pub const MIB: u64 = 1024 * KIB;
pub const GIB: u64 = 1024 * MIB;

// ---- names ----

/// Longest site, gateway or feed name (`[a-z0-9-]{1,63}`), in bytes.
pub const NAME_BYTES_MAX: usize = 63;
/// Feeds of one gateway that are configured or still drain.
pub const FEEDS_MAX: usize = 128;
/// Feeds of one gateway that were ever configured: where each ended is remembered, so that one that comes back goes on there. About 200 bytes
/// each in the heads.
pub const FEEDS_KNOWN_MAX: usize = 1024;
/// Longest control id kept in a record header, in bytes (MSH-10 is at most 199 since HL7 v2.7). A longer one is cut in the header only.
pub const CONTROL_ID_BYTES_MAX: usize = 199;

// ---- messages and sockets ----

/// Default for `message_bytes_max`: largest message, in bytes.
pub const MESSAGE_BYTES_MAX_DEFAULT: u64 = 16 * MIB;
/// Permitted range of `message_bytes_max`.
pub const MESSAGE_BYTES_MAX_RANGE: (u64, u64) = (64 * KIB, 64 * MIB);
/// A frame up to this size lives in its connection's own allowance; above it takes a slot from the large-frame pool.
pub const FRAME_OWN_BYTES: usize = 64 * KIB as usize;
/// Large-frame slots shared by all feeds, beside the one that every feed owns.
pub const LARGE_FRAME_SLOTS_SHARED: usize = 2;
/// Bytes read from a socket at once.
pub const SOCKET_READ_BYTES: usize = 16 * KIB as usize;
/// Most bytes of junk between frames before a connection is closed.
pub const JUNK_BYTES_MAX: u64 = 64 * KIB;
/// First bytes of a run of junk that are looked at to tell a TLS, HTTP or unframed sender.
pub const JUNK_PREFIX_BYTES: usize = 8;
/// Kept of a frame that exceeds the limit: enough for its MSH.
pub const OVERSIZE_HEAD_BYTES: usize = 4 * KIB as usize;
/// A frame over the limit is discarded up to this many bytes while looking for its end; then the connection is closed.
pub const OVERSIZE_DISCARD_BYTES: u64 = 256 * MIB;
/// Largest reply on an MLLP connection, framing included.
pub const REPLY_BYTES_MAX: usize = 3584;
/// Longest MSH-10 that is echoed in MSA-2; a longer one cannot be answered in one reply and is refused.
pub const CONTROL_ID_ECHO_BYTES_MAX: usize = 2560;
/// Longest MSH-11, MSH-12 or MSH-18, trigger or set of encoding characters copied into a reply; a longer one is left out.
pub const REPLY_COPIED_BYTES_MAX: usize = 64;
/// Entries of one list of a feed's `strict` edits, and the longest of them.
pub const STRICT_ENTRIES_MAX: usize = 64;
pub const STRICT_ENTRY_BYTES_MAX: usize = 32;
/// Default number of connections per feed; the newest is kept, the one idle longest is closed.
pub const CONNECTIONS_PER_FEED_DEFAULT: usize = 512;
/// Permitted range of `connections_max`.
pub const CONNECTIONS_PER_FEED_RANGE: (usize, usize) = (1, 4096);
/// Time from the first byte of a frame to its end.
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(30);
/// Permitted ranges of `frame_timeout` and `idle_timeout`.
pub const FRAME_TIMEOUT_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(10));
pub const IDLE_TIMEOUT_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(7 * 24));
/// A listener that could not bind tries again after this.
pub const LISTENER_RETRY: Duration = Duration::from_secs(5);
/// A listener that is to let go of its port does so within this, or is cut.
pub const LISTENER_RELEASE: Duration = Duration::from_secs(5);
/// Changes of the set of sources that wait for the one under way.
pub const SOURCE_REQUESTS: usize = 4;
/// A feed that had a peer within this time before a change is expected to have one again after it.
pub const PEER_EXPECTED: Duration = Duration::from_hours(1);
/// Time a frame waits for a large-frame slot before the connection is closed unanswered; the sender keeps the message.
pub const LARGE_FRAME_WAIT: Duration = Duration::from_mins(2);
/// Time a peer has to take its reply before the connection is closed.
pub const REPLY_WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Feed and uplink sockets: idle before the first keepalive probe, between probes, probes.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
pub const KEEPALIVE_PROBES: u32 = 4;
/// After a store failure answered by closing: no accept for this long, doubling to the second value.
pub const STORE_FAILURE_PAUSE_MIN: Duration = Duration::from_secs(5);
pub const STORE_FAILURE_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Connections waiting to be accepted (the kernel may cap it lower).
pub const LISTEN_BACKLOG: i32 = 1024;
/// How long systemd may take to accept a notification of a port.
pub const NOTIFY_TIMEOUT: Duration = Duration::from_secs(1);
/// After accept failed (descriptors exhausted): wait, doubling to the second value.
pub const ACCEPT_RETRY_MIN: Duration = Duration::from_millis(100);
pub const ACCEPT_RETRY_MAX: Duration = Duration::from_secs(5);
/// The conditions about unusable and oversized frames end when nothing of the kind came for this long.
pub const ODDITY_HOLD: Duration = Duration::from_hours(1);
/// How often it is looked whether they end; also the least time between two equal lines of one listener's log.
pub const ODDITY_CHECK_INTERVAL: Duration = Duration::from_mins(1);
/// TLS on a listener: from accept to the end of the handshake. Until then rustls holds at most 64 KiB of it.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Certificate and key of a listener are looked at this often; a new pair serves new connections.
pub const LISTENER_TLS_INTERVAL: Duration = Duration::from_secs(2);
/// A listener's certificate that ends within this time is told.
pub const CERTIFICATE_NOTICE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Entries of `peers` and of `client_subjects` of one listener, and the longest subject.
pub const PEERS_MAX: usize = 256;
pub const CLIENT_SUBJECTS_MAX: usize = 256;
pub const CLIENT_SUBJECT_BYTES_MAX: usize = 253;
/// A sender's certificate whose dates had to be forgiven casts doubt on the clock for this long.
pub const LISTENER_DOUBT: Duration = Duration::from_hours(1);
/// The system's clock may differ from the hub's by this much.
pub const CLOCK_TOLERANCE: Duration = Duration::from_mins(10);
/// Two receipts that confirm the time came so far apart, and their times lie as far apart, give or take the second.
pub const HUB_TIME_APART: Duration = Duration::from_secs(5);
pub const HUB_TIME_JITTER: Duration = Duration::from_secs(2);
/// The time that the hub confirmed is written down this often.
pub const HUB_TIME_KEPT: Duration = Duration::from_hours(1);
/// A sender without MLLP framing that is silent for this long behind the end of a segment has ended its message.
pub const UNFRAMED_SILENCE: Duration = Duration::from_secs(1);
/// At stop, messages whose append is under way have this long to be answered; part of `STOP_DEADLINE`.
pub const SOURCE_STOP_DEADLINE: Duration = Duration::from_secs(10);

// ---- spool ----

/// Segment size is `clamp(max_bytes / 64, MIN, MAX)`.
pub const SEGMENT_BYTES_MIN: u64 = MIB;
pub const SEGMENT_BYTES_MAX: u64 = 16 * MIB;
pub const SEGMENTS_PER_SPOOL: u64 = 64;
/// Smallest permitted `spool.max_bytes`.
pub const SPOOL_BYTES_MIN: u64 = 16 * MIB;
/// Default `spool.max_bytes` as percent of the volume.
pub const SPOOL_VOLUME_PERCENT: u64 = 70;
/// Most records and bytes in one committed batch.
pub const BATCH_RECORDS_MAX: usize = 8192;
pub const BATCH_BYTES_MAX: u64 = 4 * MIB;
/// A lane's encoded records are written and synced when there are so many bytes of them; this much is kept for the next.
pub const FLUSH_BYTES: usize = 4 * MIB as usize;
/// Appends waiting for the committer.
pub const APPEND_QUEUE: usize = 1024;
/// Largest encoded record header.
pub const RECORD_HEADER_BYTES_MAX: usize = 2 * KIB as usize;
/// Kept of a file's name in a record header.
pub const FILE_NAME_CHARS_MAX: usize = 128;
/// The list of files a directory feed is done with; above half of it, it is written anew.
pub const FILE_LIST_BYTES_MAX: u64 = 8 * MIB;
/// One copy of the heads, preallocated.
pub const HEADS_BYTES: u64 = MIB;
/// Heads are synced at most this often, beside unlink and stop.
pub const HEADS_SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// Incarnations kept per feed while records of theirs are unsettled.
pub const LINEAGE_MAX: usize = 64;
/// Quarantine's own quota as a fraction of `max_bytes` (1/16).
pub const QUARANTINE_DIVISOR: u64 = 16;
/// Attempts to read a record before what the disk cannot read is taken for damage.
pub const READ_ATTEMPTS: u32 = 5;
/// Files set aside after damage.
pub const DAMAGED_FILES_MAX: usize = 16;
/// Ids of each feed in the dedupe window, and of all feeds together (about 50 bytes of memory each).
pub const DEDUPE_IDS_PER_FEED: u64 = 100_000;
pub const DEDUPE_IDS_TOTAL: usize = 300_000;
/// sled: page cache, retry of a late lock.
pub const STATE_CACHE_BYTES: u64 = 2 * MIB;
pub const STATE_LOCK_RETRY: Duration = Duration::from_secs(2);
/// sled: size of the buffers it writes, of which it keeps some thirty. A page larger than a quarter of it, and up to 17 values are a page, would go
/// to a file that is never synced.
pub const STATE_SEGMENT_BYTES: usize = 256 * KIB as usize;
pub const STATE_VALUE_BYTES_MAX: usize = (STATE_SEGMENT_BYTES / 4 - KIB as usize) / 17;
/// Stored answers are brought together until they reach this. sled keeps about a thousand pages of some nine values in memory.
pub const DEDUPE_CHUNK_BYTES: usize = KIB as usize;

// ---- uplink ----

/// Most endpoints of one gateway.
pub const ENDPOINTS_MAX: usize = 16;
/// Default and range of `uplink.in_flight`.
pub const IN_FLIGHT_DEFAULT: usize = 100;
pub const IN_FLIGHT_RANGE: (usize, usize) = (1, 1000);
/// Published records of one feed that wait for a receipt; the feed is not published further above it.
pub const UNCONFIRMED_PER_FEED: usize = 4096;
/// A checkpoint is due after so many records, or so long after the first one not yet covered.
pub const CHECKPOINT_RECORDS: u64 = 512;
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(2);
/// Default `receipt_timeout`: no receipt that moves forward for this long means going back.
pub const RECEIPT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// Permitted range of `receipt_timeout`.
pub const RECEIPT_TIMEOUT_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(1));
/// MQTT keep alive.
pub const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// A window that is not empty and gets no PUBACK for this long: the connection is given up.
pub const ACK_STALL: Duration = Duration::from_secs(30);
/// Connect, TLS handshake and CONNACK together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Reconnect back-off: full jitter between zero and a bound doubling from MIN to MAX.
pub const BACKOFF_MIN: Duration = Duration::from_secs(1);
pub const BACKOFF_MAX: Duration = Duration::from_secs(120);
/// Bound for errors that do not mend by themselves (bad credentials, banned, another agent with our id).
pub const BACKOFF_SLOW: Duration = Duration::from_secs(600);
/// Bytes we sent that the other side's TCP does not confirm for this long: the connection is dead.
pub const UPLINK_USER_TIMEOUT: Duration = Duration::from_secs(30);
/// Unsent bytes the kernel may hold for the uplink; keeps what waits behind a slow line short without limiting a fast one.
pub const UPLINK_UNSENT_BYTES: u32 = 64 * KIB as u32;
/// Copy buffer between the MQTT client and the line, each way.
pub const BRIDGE_BUFFER_BYTES: usize = 64 * KIB as usize;
/// When one side of the bridge has ended, the other has this long to hand over what is under way.
pub const BRIDGE_LINGER: Duration = Duration::from_secs(2);
/// Most bytes the uplink has in flight, control publishes included; a single larger publish still goes, alone.
pub const UPLINK_BYTES_MAX: usize = 32 * MIB as usize;
/// Events that wait for the forwarder, and most bytes of received payloads among them.
pub const UPLINK_EVENTS: usize = 256;
pub const UPLINK_RECEIVED_BYTES_MAX: u32 = 4 * MIB as u32;
/// Publishes the broker may send us before we have acknowledged the first.
pub const UPLINK_RECEIVE_MAX: u16 = 64;
/// While certificates are refused, their files are looked at this often; a changed one is tried at once.
pub const TLS_FILES_INTERVAL: Duration = Duration::from_secs(5);
/// So many young connections in a row closed by the broker without a word: another client with our id is suspected.
pub const UNEXPLAINED_ENDS: u32 = 5;
/// Session expiry asked from the broker.
pub const SESSION_EXPIRY: Duration = Duration::from_secs(7 * 24 * 3600);
/// Largest packet we take from the broker.
pub const INCOMING_PACKET_BYTES_MAX: u32 = MIB as u32;
/// Room for topic and properties of one event publish, on top of its payload.
pub const EVENT_OVERHEAD_BYTES: usize = 4 * KIB as usize;
/// A feed parked by the broker's refusal is tried again after this, doubling to the second value.
pub const PARK_MIN: Duration = Duration::from_secs(5);
pub const PARK_MAX: Duration = Duration::from_secs(300);

/// Marks per feed of when its unsettled records came (16 bytes each).
pub const ARRIVAL_MARKS_MAX: usize = 256;

// ---- forward ----

/// Published bytes not yet acknowledged by the broker. Each lane may have one outcome in flight whatever its size; at worst this and three
/// messages of `message_bytes_max`.
pub const IN_FLIGHT_BYTES_MAX: usize = 16 * MIB as usize;
/// What an outcome is reckoned to take beside its payload, for shares and for the bound above.
pub const OUTCOME_OVERHEAD_BYTES: usize = KIB as usize;
/// Published records of all feeds together that wait for a receipt (about 100 bytes each); shared evenly among the feeds, at most
/// `UNCONFIRMED_PER_FEED` each.
pub const UNCONFIRMED_TOTAL: usize = 131_072;
/// Shares of the uplink by bytes: critical, normal, bulk.
pub const LANE_SHARES: [u64; 3] = [70, 25, 5];
/// Most of the in-flight window that a lane other than critical may hold.
pub const LANE_WINDOW_PERCENT: usize = 75;
/// Places of the window that only control publishes may take, where it is larger than four.
pub const CONTROL_RESERVE: usize = 2;
/// Least time between two checkpoints of one feed that are due only because the feed is drained.
pub const CHECKPOINT_SPACING: Duration = Duration::from_millis(100);
/// Checkpoints remembered per feed, to tell what a receipt could have known.
pub const CHECKPOINTS_REMEMBERED: usize = 8;
/// Largest receipt, and most of its missing ranges that are looked at; the next receipt names the rest again.
pub const RECEIPT_BYTES_MAX: usize = 256 * KIB as usize;
pub const MISSING_RANGES_MAX: usize = 4096;
/// Where several checkpoints name the same head, a receipt is taken to answer one that is at least this old.
pub const MISSING_GRACE: Duration = Duration::from_secs(1);
/// Resending what receipts call missing: at once, then not before this, doubling to the second value until something settles.
pub const MISSING_RETRY_MIN: Duration = Duration::from_secs(1);
pub const MISSING_RETRY_MAX: Duration = Duration::from_mins(1);
/// `receipt_timeout` doubles up to this factor while no receipt moves forward.
pub const RECEIPT_PATIENCE_MAX: u32 = 16;
/// A renewal of the incarnation that failed is asked for again after this.
pub const RENEW_RETRY: Duration = Duration::from_mins(1);
/// The forwarder looks around at least this often (its beat for the watchdog, and the rate of writing marks).
pub const FORWARD_TICK: Duration = Duration::from_secs(1);
/// Publishes, and answers of the broker, handled in one turn.
pub const FORWARD_PUBLISHES_PER_TURN: usize = 64;
pub const FORWARD_ANSWERS_PER_TURN: usize = 256;
/// A window that is full against expectation is tried again after this.
pub const WINDOW_FULL_PAUSE: Duration = Duration::from_millis(100);
/// Added to the forwarder's stop deadline before its thread is given up (a disk that hangs).
pub const FORWARD_JOIN_GRACE: Duration = Duration::from_secs(2);

// ---- hub ----

/// Highest seq the hub takes; one above it is malformed (at 1,000 messages a second that is 17 years).
pub const HUB_SEQ_MAX: u64 = 1 << 39;
/// Most items of one record.
pub const HUB_ITEMS_MAX: u32 = 1024;
/// Records of one feed of which only some items arrived. Items of one more are not remembered and are asked for again.
pub const HUB_PARTIAL_RECORDS_MAX: usize = 1024;
/// Open exceptions of one feed that are listed.
pub const HUB_EXCEPTIONS_MAX: usize = 4096;
/// Separate runs above the mark of one incarnation. What would need one more is not counted and is asked for again.
pub const HUB_RUNS_MAX: usize = 1024;
/// Incarnations of one feed in the account; of those that are complete and continued, the newest are kept.
pub const HUB_INCARNATIONS_MAX: usize = 128;
pub const HUB_CLOSED_INCARNATIONS_MAX: usize = 16;
/// Names of older ones, each with its end, kept per feed; more than a gateway tells of at a connection (`LINEAGE_MAX`).
pub const HUB_CLOSED_NAMES_MAX: usize = 256;
/// Ranges named in one receipt, lowest first.
pub const HUB_MISSING_RANGES_MAX: usize = 256;
/// Different records under one seq of a feed (forks, conflicts) that the chain index can hold.
pub const HUB_INDEX_LEVELS_MAX: u8 = 16;
/// Index files open at once.
pub const HUB_INDEX_FILES_MAX: usize = 256;
/// Index entries kept in memory while the output is read back.
pub const HUB_INDEX_NOTED_MAX: usize = 4096;
/// Publishes and bytes in one batch, and how long the batch waits for one more.
pub const HUB_BATCH_MAX: usize = 512;
pub const HUB_BATCH_BYTES_MAX: usize = 16 * MIB as usize;
pub const HUB_BATCH_IDLE: Duration = Duration::from_millis(2);
/// Unacknowledged publishes the broker may send us.
pub const HUB_RECEIVE_MAX: u16 = 1000;
/// Bytes of publishes received and not yet written; the connection is not read further above it.
pub const HUB_PENDING_BYTES_MAX: u32 = 256 * MIB as u32;
/// Largest packet the hub takes: the largest message and its attributes.
pub const HUB_PACKET_BYTES_MAX: u32 = 65 * MIB as u32;
/// Longest line of the output that is read back: a packet in base64 and its attributes.
pub const HUB_LINE_BYTES_MAX: u64 = 96 * MIB;
/// The ledger is saved after so many lines, or so long after the first line it does not cover.
pub const HUB_SNAPSHOT_LINES: u64 = 20_000;
pub const HUB_SNAPSHOT_INTERVAL: Duration = Duration::from_secs(30);
/// Largest ledger file.
pub const HUB_SNAPSHOT_BYTES_MAX: u64 = 256 * MIB;
/// An output that cannot be written is tried again after this, doubling to the second value.
pub const HUB_OUTPUT_RETRY_MIN: Duration = Duration::from_secs(1);
pub const HUB_OUTPUT_RETRY_MAX: Duration = Duration::from_secs(30);
/// The receiver reconnects with full jitter below a bound that doubles from `BACKOFF_MIN` to this.
pub const HUB_BACKOFF_MAX: Duration = Duration::from_secs(15);
/// Acknowledgements and receipts of a batch must be handed over within this, else the connection is given up.
pub const HUB_ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

const _: () = {
    assert!(MESSAGE_BYTES_MAX_RANGE.1 + EVENT_OVERHEAD_BYTES as u64 <= HUB_PACKET_BYTES_MAX as u64);
    assert!(HUB_PACKET_BYTES_MAX <= HUB_PENDING_BYTES_MAX);
    assert!(HUB_LINE_BYTES_MAX > HUB_PACKET_BYTES_MAX as u64 / 3 * 4 + MIB);
    assert!(HUB_BATCH_MAX <= HUB_RECEIVE_MAX as usize);
    assert!(HUB_INCARNATIONS_MAX > LINEAGE_MAX + HUB_CLOSED_INCARNATIONS_MAX);
    assert!(HUB_CLOSED_NAMES_MAX > 2 * LINEAGE_MAX);
    assert!(HUB_ITEMS_MAX.is_multiple_of(64));
};

// ---- process ----

/// SIGTERM to exit.
pub const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// Of it: for sources to answer what they hold, before they are cut; what the forwarder leaves for itself to be joined and the spool to close.
pub const STOP_SOURCES: Duration = Duration::from_secs(11);
pub const STOP_SPOOL: Duration = Duration::from_secs(5);
/// Threads of the runtime, and of blocking calls beside it.
pub const RUNTIME_THREADS_MAX: usize = 4;
pub const BLOCKING_THREADS_MAX: usize = 16;
/// Threads that must be there at the start beside those of the runtime: one for blocking calls, the committer's, its two helpers', recent outcomes',
/// the forwarder's.
pub const START_THREADS: usize = 6;
/// How long threads that have ended may still count, and how often that is looked at.
pub const THREADS_END: Duration = Duration::from_secs(1);
pub const THREADS_END_LOOK: Duration = Duration::from_millis(1);
/// Configuration file.
pub const CONFIG_BYTES_MAX: u64 = MIB;
/// A file of certificates or a key.
pub const TLS_FILE_BYTES_MAX: u64 = MIB;
/// Longest path of a unix socket (`sun_path` without its closing zero).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// One request on the control socket; the largest holds a signed document.
pub const CONTROL_REQUEST_BYTES_MAX: usize = 384 * KIB as usize;
pub const CONTROL_TIMEOUT: Duration = Duration::from_secs(5);
/// One answer on the control socket, and clients served at once.
pub const CONTROL_ANSWER_BYTES_MAX: u64 = 4 * MIB;
pub const CONTROL_CLIENTS: usize = 8;
/// Of these of one user of a group: a watch or two, and a question beside them.
pub const CONTROL_CLIENTS_PER_USER: usize = 3;
/// A service that is not configured looks this often whether it is.
pub const UNCONFIGURED_LOOK: Duration = Duration::from_secs(2);
/// Fuel gauge: a sample this often, over so many samples (half an hour); what is recent; no statement before the span is this long.
pub const GAUGE_INTERVAL: Duration = Duration::from_secs(10);
pub const GAUGE_SAMPLES: usize = 181;
pub const GAUGE_SPAN_RECENT: Duration = Duration::from_mins(5);
pub const GAUGE_SPAN_MIN: Duration = Duration::from_secs(30);

// ---- diagnosis ----

/// Ended connections remembered per feed, and connections of all feeds listed in one answer.
pub const ENDED_CONNECTIONS_KEPT: usize = 16;
pub const CONNECTIONS_SHOWN_MAX: usize = 1000;
/// Clients that watch messages live (`sniff`, `feeds record`); each holds one of the control socket's places.
pub const WATCHERS_MAX: usize = 4;
/// Sightings that wait for a slow watcher; more are dropped and counted.
pub const WATCH_QUEUE: usize = 256;
/// Longest watch, default and most messages of one.
pub const WATCH_TIME_MAX: Duration = Duration::from_hours(8);
pub const WATCH_TIME_DEFAULT: Duration = Duration::from_mins(10);
pub const WATCH_MESSAGES_MAX: u64 = 10_000;
/// Of a message's structure: segments, and fields of a segment, that are listed.
pub const STRUCTURE_SEGMENTS_MAX: usize = 256;
pub const STRUCTURE_FIELDS_MAX: usize = 128;
/// Cases of a vendor test, and the file that lists them.
pub const CASES_MAX: usize = 256;
pub const CASES_BYTES_MAX: u64 = 256 * KIB;
/// Recent outcomes and suppressed duplicates kept per feed.
pub const RECENT_PER_FEED: u64 = 10_000;
pub const RECENT_DUPLICATES_PER_FEED: u64 = 1000;
/// Notes that wait for the thread that keeps them, and how often it looks: together the most it ever does. More are dropped and counted: a
/// drain at ten thousand records a second would have sled rewrite pages faster than their memory is used again.
pub const RECENT_NOTES_MAX: usize = 256;
pub const RECENT_INTERVAL: Duration = Duration::from_secs(1);
/// Old entries removed in one turn, at most.
pub const RECENT_PRUNED_PER_TURN: usize = 2 * RECENT_NOTES_MAX;
/// Longest time for which a feed takes resends (`siteward feeds accept-resend`).
pub const ACCEPT_RESEND_MAX: Duration = Duration::from_hours(24);
/// Most and default number of messages in one answer.
pub const FIND_LIMIT_MAX: u64 = 1000;
pub const FIND_LIMIT_DEFAULT: u64 = 20;
/// One search through the journal ends at a segment's border after so many record headers, or so long; the answer says where to go on.
pub const SEARCH_RECORDS_MAX: u64 = 100_000;
pub const SEARCH_TIME_MAX: Duration = Duration::from_secs(2);
/// Quarantine entries in one answer, the newest first, and what of each file is read for it.
pub const QUARANTINE_LISTED_MAX: usize = 1000;
pub const QUARANTINE_HEAD_BYTES: usize = KIB as usize;

const _: () = {
    assert!(WATCHERS_MAX * 2 <= CONTROL_CLIENTS); // the status is always answered
    assert!(CONTROL_CLIENTS_PER_USER * 2 < CONTROL_CLIENTS); // also beside a user who keeps what he can
    assert!(CASES_MAX * (CONTROL_ID_BYTES_MAX + 3) + 1024 < CONTROL_REQUEST_BYTES_MAX);
    assert!(SEARCH_TIME_MAX.as_secs() * 2 < CONTROL_TIMEOUT.as_secs());
};

// ---- relations ----

const _: () = {
    assert!(SEGMENT_BYTES_MIN >= RECORD_HEADER_BYTES_MAX as u64 * 4);
    assert!(SPOOL_BYTES_MIN / SEGMENTS_PER_SPOOL <= SEGMENT_BYTES_MIN);
    assert!(CONTROL_ID_BYTES_MAX + NAME_BYTES_MAX + 4 * FILE_NAME_CHARS_MAX + 512 < RECORD_HEADER_BYTES_MAX);
    assert!(REPLY_BYTES_MAX + 128 <= STATE_VALUE_BYTES_MAX);
    assert!(2 * DEDUPE_CHUNK_BYTES <= STATE_VALUE_BYTES_MAX);
    assert!(OVERSIZE_HEAD_BYTES <= FRAME_OWN_BYTES);
    assert!(FRAME_OWN_BYTES as u64 <= MESSAGE_BYTES_MAX_RANGE.0);
    assert!(CONTROL_ID_ECHO_BYTES_MAX >= CONTROL_ID_BYTES_MAX);
    assert!(CONTROL_ID_ECHO_BYTES_MAX + 6 * REPLY_COPIED_BYTES_MAX + 512 < REPLY_BYTES_MAX);
    assert!(SOURCE_STOP_DEADLINE.as_secs() < STOP_DEADLINE.as_secs());
    assert!(SOURCE_STOP_DEADLINE.as_secs() < HTTP_RELEASE.as_secs());
    // What goes, what changes together, what is put back, what is handed over; and the end of what has gone.
    assert!(4 * HTTP_RELEASE.as_secs() + LISTENER_RELEASE.as_secs() + STOP_SOURCES.as_secs() < APPLY_DEADLINE.as_secs());
    assert!(UNFRAMED_SILENCE.as_secs() <= FRAME_TIMEOUT_RANGE.0.as_secs());
    assert!(UNCONFIRMED_PER_FEED as u64 > CHECKPOINT_RECORDS * 2);
    assert!(IN_FLIGHT_RANGE.1 <= UNCONFIRMED_PER_FEED);
    assert!(STOP_SOURCES.as_secs() + STOP_SPOOL.as_secs() < STOP_DEADLINE.as_secs());
    assert!(MESSAGE_BYTES_MAX_RANGE.1 < 268_435_455); // MQTT's largest packet
    assert!(INCOMING_PACKET_BYTES_MAX < UPLINK_RECEIVED_BYTES_MAX);
    assert!(IN_FLIGHT_RANGE.1 * 2 + 16 < u16::MAX as usize); // packet ids
    assert!(UNCONFIRMED_TOTAL / FEEDS_MAX >= CHECKPOINT_RECORDS as usize * 2);
    assert!(RECEIPT_BYTES_MAX < INCOMING_PACKET_BYTES_MAX as usize);
    assert!(DOCUMENT_BYTES_MAX + 4 * (KIB as usize) < INCOMING_PACKET_BYTES_MAX as usize);
    assert!(LANE_SHARES[0] + LANE_SHARES[1] + LANE_SHARES[2] == 100);
};
