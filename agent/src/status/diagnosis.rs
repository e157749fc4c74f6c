//! What the agent answers to a technician: feeds with their connections, a message's timeline, duplicates, quarantine. The JSON is what
//! outside tools rely on; fields are added, never changed.
//!
//! Names, times, counts and codes. The control id is the one thing of a message that is shown, in `messages` alone and there only because it
//! was asked for; nothing else of any message ever (I7). Times are RFC 3339 in UTC.

use serde::{Deserialize, Serialize};

use super::board::ExpectedView;
use super::snapshot::Files;
use crate::clock;
use crate::record::{Name, Stage};
use crate::source::answer::AckCode;
use crate::source::mllp::registry::ConnectionView;
use crate::spool::QuarantineListed;
use crate::spool::recent::Duplicate;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedsView {
    pub feeds: Vec<FeedView>,
}

/// Counters are since the agent started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedView {
    pub id: Name,
    pub stage: Stage,
    pub listen: String,
    pub captured: u64,
    pub duplicates: u64,
    pub refused: u64,
    pub quarantined: u64,
    /// Null for never since the agent started.
    pub last_message: Option<String>,
    /// All that are open; `connections` lists those heard from last.
    pub connections_open: u64,
    /// Not let in: by the list of peers, or because TLS did not come about.
    #[serde(default)]
    pub connections_refused: u64,
    pub connections: Vec<ConnectionView>,
    /// All that ended since the agent started; `ended` lists the last ones, the newest first.
    pub connections_ended: u64,
    pub ended: Vec<ConnectionView>,
    /// Conditions about this feed.
    pub conditions: Vec<String>,
    /// Only of a directory feed that has captured something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Files>,
    /// Only of a feed that says when it expects something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<ExpectedView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessagesView {
    pub feed: Name,
    /// The newest first.
    pub messages: Vec<MessageView>,
    /// Records of the journal that were looked at, and down to which seq; null where there was nothing to look at.
    pub searched: u64,
    pub searched_down_to: Option<u64>,
    /// Ask with `before` this for what lies below; null where all was looked at.
    pub more_below: Option<u64>,
    /// False: recent outcomes are not kept at the moment, so settled messages and times are missing.
    pub recent_available: bool,
    /// Notes lost since the agent started: where times are missing, this may be why.
    pub notes_dropped: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageState {
    /// On disk, not sent yet, or to be sent again.
    Queued,
    /// Sent; the broker has not answered.
    InFlight,
    /// The broker has it; the hub has not confirmed.
    WaitingForReceipt,
    Settled,
    /// The broker cannot take it; kept aside, the hub is told.
    Quarantined,
}

impl MessageState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::InFlight => "in flight",
            Self::WaitingForReceipt => "waiting for receipt",
            Self::Settled => "settled",
            Self::Quarantined => "quarantined",
        }
    }
}

/// One record; what is not known is null.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageView {
    pub seq: u64,
    pub state: MessageState,
    pub control_id: String,
    pub peer: String,
    pub received_at: Option<String>,
    /// `none`: nothing was answered.
    pub ack: Option<AckCode>,
    pub ack_at: Option<String>,
    /// The last time it was published.
    pub published_at: Option<String>,
    pub puback_at: Option<String>,
    pub settled_at: Option<String>,
    pub quarantined_at: Option<String>,
    /// Let in as new though it repeats this earlier record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resend_of: Option<u64>,
    pub duplicates: Vec<DuplicateView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DuplicatesView {
    pub feed: Name,
    /// The newest first.
    pub duplicates: Vec<DuplicateView>,
    pub recent_available: bool,
    pub notes_dropped: u64,
}

/// A message that came again and was answered as the first time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DuplicateView {
    pub at: String,
    pub control_id: String,
    /// Of the first copy.
    pub seq: u64,
    pub peer: String,
    pub ack: AckCode,
}

impl DuplicateView {
    pub fn of(duplicate: &Duplicate) -> Self {
        Self {
            at: clock::rfc3339(duplicate.at_ms),
            control_id: control_id_text(&duplicate.control_id),
            seq: duplicate.seq,
            peer: duplicate.peer.clone(),
            ack: duplicate.ack,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineView {
    /// The newest first.
    pub entries: Vec<QuarantineListed>,
    /// All there are, of every feed.
    pub total: u64,
}

/// A control id as text: printable ASCII as it is, every other byte as `\xNN`.
pub fn control_id_text(id: &[u8]) -> String {
    id.iter().map(|b| if (0x20..0x7F).contains(b) { char::from(*b).to_string() } else { format!("\\x{b:02x}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_id_cannot_steer_a_terminal() {
        assert_eq!(control_id_text(b"MSG-1"), "MSG-1");
        assert_eq!(control_id_text(b"\x1b[2J\xe4"), "\\x1b[2J\\xe4");
    }
}
