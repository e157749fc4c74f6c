//! Bounds of what central IT can have a gateway do: documents, commands, other endpoints, other certificates. The relations between these and
//! the others are asserted beside the others.

use std::time::Duration;

use super::KIB;

// ---- mail and commands ----

/// Largest signed document (or command) taken from the hub, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 256 * KIB as usize;
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
/// A candidate certificate must have been proven within this, else the old one stays alone.
pub const CANDIDATE_TRIAL: Duration = Duration::from_mins(15);
