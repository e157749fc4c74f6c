//! One gateway of a rollout: what is durable of it and what was heard, and how it stands. Pure; `waves` decides.

use std::collections::BTreeSet;

use super::entry::{Entry, Verdict};
use super::heard::{Presence, Reported};

/// How one gateway stands, for people and programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Waiting,
    Pushed,
    Pending,
    Trying,
    /// It was there, and is gone with the document.
    Gone,
    Confirmed,
    Failed,
    Unknown,
}

impl State {
    pub const ALL: [Self; 8] =
        [Self::Waiting, Self::Pushed, Self::Pending, Self::Trying, Self::Gone, Self::Confirmed, Self::Failed, Self::Unknown];

    pub fn as_str(self) -> &'static str {
        ["waiting", "pushed", "pending", "trying", "gone", "confirmed", "failed", "unknown"][self as usize]
    }
}

/// One gateway. The first half is durable, the second heard.
#[derive(Clone, Debug, Default)]
pub(super) struct Gateway {
    /// The broker is to have the document for it.
    pub pushed: bool,
    pub times: u32,
    pub sent: bool,
    /// What the broker has for it now is somebody else's.
    pub foreign: bool,
    pub seen_ms: Option<i64>,
    pub verdict: Verdict,
    pub verdict_ms: i64,
    /// Its failure was accepted.
    pub accepted: bool,
    /// What was the matter there before, or was accepted since.
    pub known: BTreeSet<String>,
    pub suspected: BTreeSet<String>,

    pub presence: Option<Presence>,
    pub reported: Option<Reported>,
    /// Since when it could have said something, or is gone.
    pub quiet_ms: Option<i64>,
}

impl Gateway {
    pub fn failed(&self) -> bool {
        matches!(self.verdict, Verdict::Failed { .. } | Verdict::Unknown)
    }

    pub fn is_there(&self) -> bool {
        self.presence.as_ref().is_some_and(|presence| presence.online)
    }

    pub fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Push { times, known, .. } => {
                (self.pushed, self.times, self.sent, self.foreign) = (true, *times, false, false);
                self.known.extend(known.iter().cloned());
            }
            Entry::Sent { .. } => self.sent = true,
            Entry::Seen { at_ms, .. } => self.seen_ms = Some(*at_ms),
            Entry::Became { verdict, at_ms, .. } => (self.verdict, self.verdict_ms, self.accepted) = (verdict.clone(), *at_ms, false),
            Entry::Suspect { mark, .. } => drop(self.suspected.insert(mark.clone())),
            Entry::Overwritten { .. } => (self.pushed, self.foreign) = (false, true),
            Entry::Withdraw { .. } => (self.pushed, self.seen_ms) = (false, None),
            _ => {}
        }
    }
}
