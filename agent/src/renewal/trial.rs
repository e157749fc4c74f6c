//! A candidate on trial. Pure.
//!
//! ```text
//!   no connection ──► wait          over the old certificate ──► that time is added up ──► as much as was given: give up
//!   over the candidate ──► wait ──► acknowledged: promote
//! ```
//!
//! Only time between two judgements that both found a connection with the old certificate counts. A broker that is away for days costs the
//! candidate nothing, and back on an old connection (the rotation may come there first) it has what was left of its time before.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::settings::{ClientIdentity, Endpoint};

#[derive(Debug)]
pub struct Trial {
    identity: ClientIdentity,
    time: Duration,
    /// How long there was a connection without the candidate.
    spent: Duration,
    /// The judgement before, where it found such a connection.
    last: Option<Instant>,
    /// The certificate came when the time of another was running.
    is_successor: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Wait,
    Promote,
    GiveUp,
}

impl Trial {
    pub fn new(identity: ClientIdentity, time: Duration) -> Self {
        Self { identity, time, spent: Duration::ZERO, last: None, is_successor: false }
    }

    /// Another certificate is tried in what is left of the time: whoever sends one after the other keeps no trial going.
    pub fn pass_on(&mut self, identity: ClientIdentity) {
        (self.identity, self.is_successor) = (identity, true);
    }

    /// The certificate had all of the time, and not what another left of it.
    pub fn had_all(&self) -> bool {
        !self.is_successor
    }

    pub fn identity(&self) -> &ClientIdentity {
        &self.identity
    }

    pub fn time(&self) -> Duration {
        self.time
    }

    fn is_over(&self, endpoint: Option<&Endpoint>) -> bool {
        endpoint.is_some_and(|endpoint| endpoint.identity.as_deref() == Some(&self.identity))
    }

    /// `link`: the connection that stands; `proven`: the same, once it acknowledged a publish.
    pub fn judge(&mut self, link: Option<&Endpoint>, proven: Option<&Endpoint>, now: Instant) -> Verdict {
        if self.is_over(proven) {
            return Verdict::Promote;
        }
        if link.is_none() || self.is_over(link) {
            self.last = None;
            return Verdict::Wait;
        }
        if let Some(last) = self.last.replace(now) {
            self.spent = self.spent.saturating_add(now.saturating_duration_since(last));
        }
        if self.spent < self.time { Verdict::Wait } else { Verdict::GiveUp }
    }
}
