//! Bounds of the rollout, with the relations between them asserted at compile time.

use std::time::Duration;

use super::{CONTROL_ANSWER_BYTES_MAX, CONTROL_TIMEOUT, KIB};

// ---- documents ----

/// A configuration document, in its envelope; how deep the envelope's JSON may be nested and how many signatures it may carry.
pub const DOCUMENT_BYTES_MAX: usize = 256 * KIB as usize;
pub const ENVELOPE_DEPTH_MAX: usize = 8;
pub const ENVELOPE_SIGNATURES_MAX: usize = 16;
/// Trust anchors of either kind, labels of a gateway, and gateway groups that one document may name.
pub const TRUST_KEYS_MAX: usize = 16;
pub const GROUPS_MAX: usize = 32;
/// Longest author, reason, owner and the like: they are kept in the history and shown.
pub const REMARK_CHARS_MAX: usize = 200;
/// Trial of a document: default and permitted range.
pub const TRIAL_DEFAULT: Duration = Duration::from_mins(15);
pub const TRIAL_RANGE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_hours(24));
/// Shortest passphrase of a new signing key.
pub const PASSPHRASE_CHARS_MIN: usize = 12;
/// Endpoints that a document may add.
pub const ENDPOINTS_ADDED_MAX: usize = 8;
/// Permitted range of a feed's `delivery_objective`.
pub const DELIVERY_OBJECTIVE_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(30 * 24));

// ---- ledger ----

/// A signed document as it came, and what is kept preallocated so that one can be stored on a full disk.
pub const ENVELOPE_BYTES_MAX: u64 = DOCUMENT_BYTES_MAX as u64;
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
/// Longest wait for what the sources show; without an answer nothing is proven, and they are asked again with the next tick.
pub const EVIDENCE_DEADLINE: Duration = Duration::from_secs(10);
/// A reported state that has to prove something and got no acknowledgement is posted again after so long.
pub const PROOF_AGAIN: Duration = Duration::from_secs(10);
/// Times a committed document is read at a start before it counts as lost, and the pause between.
pub const ENVELOPE_READS: u32 = 3;
pub const ENVELOPE_READ_PAUSE: Duration = Duration::from_millis(100);
/// Feeds named in one sentence.
pub const FEEDS_NAMED_MAX: usize = 5;
/// Requests that wait for the owner of the ledger, and how long one waits.
pub const ROLLOUT_REQUESTS_MAX: usize = 8;
pub const ROLLOUT_ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
/// How often time passes for the rollout: evidence is gathered and what could not be put to use is tried again.
pub const ROLLOUT_TICK: Duration = Duration::from_secs(1);
/// Generations tried at a start until one can be used.
pub const ROLLOUT_FALLBACKS_MAX: usize = 3;
/// A document is suspect when so many messages went to quarantine since it was committed, at so many times the rate of the hour before.
pub const SUSPECT_RECORDS_MIN: u64 = 10;
pub const SUSPECT_FACTOR: u64 = 5;
/// How long after a commit this is looked at.
pub const SUSPECT_WATCH: Duration = Duration::from_hours(24);
/// Lines times lines that are compared in full by `siteward config diff`.
pub const DIFF_CELLS_MAX: usize = 4_000_000;

// ---- mail and commands ----

/// Documents and commands that wait for the rollout, beside one document in a place of its own.
pub const MAIL_INBOUND: usize = 8;
/// Orders of the rollout that wait for the forwarder.
pub const MAIL_ORDERS: usize = 32;
/// Results of commands and audit lines that wait for a connection or an answer, and the largest of them or of a reported state.
pub const LETTERS_MAX: usize = 32;
pub const LETTER_BYTES_MAX: usize = 128 * KIB as usize;

/// Answers to commands remembered for redeliveries; longest author or reason of one.
pub const COMMAND_RESULTS_KEPT: usize = 32;
pub const COMMAND_TEXT_BYTES_MAX: usize = 1024;
/// Time for a command, for an order given on site (its answer is waited for), and beyond it for what cannot be interrupted.
pub const COMMAND_TIME: Duration = Duration::from_mins(1);
pub const ORDER_TIME: Duration = Duration::from_secs(2);
pub const ORDER_GRACE: Duration = Duration::from_secs(1);
/// A command that is not answered is sent again this often; what the hub's tool waits for an answer at most, by itself.
pub const HUB_COMMAND_RESEND: Duration = Duration::from_secs(5);
pub const HUB_COMMAND_WAIT: Duration = Duration::from_secs(90);
/// Refusals told at once, and how often one may be told after that: of what is signed by nobody we know, and of signed commands.
pub const REFUSALS_FORGED: (u32, Duration) = (8, Duration::from_mins(1));
pub const REFUSALS_SIGNED: (u32, Duration) = (32, Duration::from_secs(10));
/// How long after the last one the condition `command_refused` stays.
pub const COMMAND_REFUSED_SHOWN: Duration = Duration::from_hours(1);
/// What `diagnose` answers, and entries of quarantine it lists.
pub const DIAGNOSE_BYTES_MAX: usize = LETTER_BYTES_MAX - 8 * KIB as usize;
pub const DIAGNOSE_ENTRIES_MAX: usize = 50;
/// How long a pause waits for connections that are in the middle of a message, before it is answered.
pub const PAUSE_ENDS: Duration = Duration::from_millis(500);
/// The file that says which feeds are paused.
pub const PAUSES_BYTES_MAX: u64 = 1024 * KIB;
/// Entries of quarantine that one order releases or drops.
pub const QUARANTINE_CHOSEN_MAX: usize = 1000;
/// Longest time for which a command changes the log level.
pub const LOG_LEVEL_TIME_MAX: Duration = Duration::from_hours(24);

// ---- endpoints ----

/// A connection that made progress and lasted this long speaks for its endpoint; after a shorter one the next endpoint has its turn.
pub const ENDPOINT_STEADY: Duration = Duration::from_mins(5);
/// While connected to a less preferred endpoint: a first look for a better one after this, doubling to the second value while none can be
/// dialled, to the third while one can but does not serve us.
pub const RETURN_MIN: Duration = Duration::from_mins(1);
pub const RETURN_DIAL_MAX: Duration = Duration::from_mins(5);
pub const RETURN_MAX: Duration = Duration::from_hours(1);
/// A connection that is left in order has this long for its last answers.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

// ---- certificates ----

/// How often the ends of the uplink's certificates are looked at.
pub const CERTIFICATE_LOOK: Duration = Duration::from_hours(1);
/// How long before its end a certificate is told about, in days: each step once, the last two as an error.
pub const CERTIFICATE_STEPS_DAYS: [i64; 4] = [60, 30, 7, 1];
/// A candidate certificate must have been proven within this, else the old one stays alone: the default and what may be asked for.
pub const CANDIDATE_TRIAL: Duration = Duration::from_mins(15);
pub const CANDIDATE_TRIAL_RANGE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_hours(24));
/// A certificate with its intermediates; and how many that came may wait to be looked at.
pub const CERTIFICATE_BYTES_MAX: usize = 64 * KIB as usize;
pub const MAIL_CERTIFICATES: usize = 4;
/// Values of `request` that were answered, and certificates that were refused for one request, that are remembered.
pub const RENEWALS_REMEMBERED: usize = 16;
/// Longest value of `request`.
pub const RENEWAL_REQUEST_BYTES_MAX: usize = 64;
/// Questions and orders about certificates that wait.
pub const RENEWAL_ASKED_MAX: usize = 4;
/// A disk that did not take a renewal is tried again after this; also how often a candidate on trial is looked at.
pub const RENEWAL_RETRY: Duration = Duration::from_mins(1);
pub const RENEWAL_TICK: Duration = Duration::from_secs(1);
/// Certificates that are refused are told at most this often; the others only in the log.
pub const RENEWAL_TOLD_INTERVAL: Duration = Duration::from_mins(1);

const _: () = {
    let entry = 3 * HISTORY_NAME_BYTES_MAX + HISTORY_REASON_BYTES_MAX + HISTORY_WHY_BYTES_MAX + 160;
    assert!((HISTORY_KEPT + 5) * entry < LEDGER_BYTES as usize);
    assert!(ORDER_TIME.as_secs() + ORDER_GRACE.as_secs() < ROLLOUT_ANSWER_TIMEOUT.as_secs());
    assert!(ROLLOUT_ANSWER_TIMEOUT.as_secs() < CONTROL_TIMEOUT.as_secs());
    assert!(2 * ENVELOPE_BYTES_MAX * 2 < CONTROL_ANSWER_BYTES_MAX);
};
