//! What the rollout knows of a document, and what the data plane says about a trial: plain values, no text of any configuration.
//!
//! The shell makes [`Facts`] from a verified document, [`Offer`] from the judgement about it, and [`Evidence`] from sources and uplink. Strings of
//! documents are cut to what the history keeps ([`Meta::new`]), so that the ledger stays within its file.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::WallTime;
use crate::limits::{HISTORY_NAME_BYTES_MAX, HISTORY_REASON_BYTES_MAX};
use crate::record::{DocumentDigest, FeedId};

/// A time for people. Nothing is decided by it (I10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    pub unix_ms: i64,
    pub suspect: bool,
}

impl From<WallTime> for Stamp {
    fn from(time: WallTime) -> Self {
        Self { unix_ms: time.unix_ms, suspect: time.suspect }
    }
}

/// The moment of a step: milliseconds of a clock that never jumps, and the time for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    pub mono_ms: u64,
    pub wall: Stamp,
}

/// Who wants a document, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    pub author: String,
    pub approver: Option<String>,
    pub reason: String,
    pub ticket: Option<String>,
}

impl Meta {
    pub fn new(author: &str, approver: Option<&str>, reason: &str, ticket: Option<&str>) -> Self {
        let name = |text: &str| cut(text, HISTORY_NAME_BYTES_MAX);
        Self { author: name(author), approver: approver.map(name), reason: cut(reason, HISTORY_REASON_BYTES_MAX), ticket: ticket.map(name) }
    }
}

/// The first `bytes` of a text, at a character's border.
pub(crate) fn cut(text: &str, bytes: usize) -> String {
    text[..text.floor_char_boundary(bytes)].to_owned()
}

/// When the peers of a trial are satisfied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConfirmBy {
    /// Senders that were there before the change connect again.
    PeersReturn,
    /// The listeners are bound; who connects does not matter.
    Bound,
}

/// A verified document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub revision: u64,
    pub digest: DocumentDigest,
    pub trial_s: u64,
    pub confirm: ConfirmBy,
    pub meta: Meta,
}

impl Facts {
    pub(super) fn is(&self, other: &Self) -> bool {
        (self.revision, self.digest) == (other.revision, other.digest)
    }

    pub(super) fn trial_ms(&self) -> u64 {
        self.trial_s.saturating_mul(1000)
    }
}

/// What can run: the local file alone, or with a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Generation {
    Bootstrap,
    Document(Facts),
}

impl Generation {
    pub fn facts(&self) -> Option<&Facts> {
        match self {
            Self::Bootstrap => None,
            Self::Document(facts) => Some(facts),
        }
    }

    /// 0 for the local file alone.
    pub fn revision(&self) -> u64 {
        self.facts().map_or(0, |facts| facts.revision)
    }
}

/// A verified document with what is thought of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub facts: Facts,
    pub verdict: Verdict,
    /// Feeds that the running configuration does not have.
    pub added_feeds: Vec<FeedId>,
    /// Its endpoints, or their authorities, differ from the running ones.
    pub endpoints_changed: bool,
    /// It has endpoints of its own.
    pub endpoints_added: bool,
    /// The uplink is connected now.
    pub uplink_up: bool,
}

/// What judging a document against this gateway came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    Refused { code: String, why: String, memory: Memory },
}

/// How long a refusal is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Not in the ledger: what is not meant for this gateway must not push out its history.
    Forget,
    /// In the history; the same document is judged again when it comes again (not yet valid, agent too old, a file missing).
    Again,
    /// In the history; the same document is answered from there.
    Final,
}

/// What the data plane says, as of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    pub listeners_bound: bool,
    pub directories_readable: bool,
    /// What of these is missing, by feed and key.
    pub faults: Vec<FeedFault>,
    /// Feeds with a sender in the hour before the change and none since.
    pub waiting_for_peers: Vec<FeedId>,
    pub uplink: UplinkEvidence,
}

/// One feed that cannot do what the configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedFault {
    pub feed: FeedId,
    /// `feed.mllp.listen`
    pub key: String,
    pub why: String,
}

impl std::fmt::Display for FeedFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { feed, key, why } = self;
        // Some sentences begin with the feed themselves.
        let why = why.strip_prefix(&format!("feed `{feed}`: ")).unwrap_or(why);
        write!(f, "feed `{feed}` ({key}): {why}")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UplinkEvidence {
    Down,
    Up {
        /// Over an endpoint that the document adds.
        endpoint_is_new: bool,
        /// A publish made after the change was acknowledged over it.
        acked_after_change: bool,
    },
}

/// Which acknowledgement proves a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proof {
    AnyEndpoint,
    /// One over an endpoint that the document adds.
    AddedEndpoint,
}

/// Seconds of a trial, from what the document says.
pub fn trial_s(trial: Duration) -> u64 {
    trial.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let meta = Meta::new(&"ä".repeat(200), None, &"b".repeat(2000), Some("CHG-1"));
        assert_eq!((meta.author.len(), meta.reason.len()), (HISTORY_NAME_BYTES_MAX, HISTORY_REASON_BYTES_MAX));
        assert_eq!(cut("aäb", 2), "a");
    }
}
