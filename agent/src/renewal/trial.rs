//! A candidate on trial. Pure.
//!
//! ```text
//!   no connection ──► wait          over the old certificate ──► the deadline counts ──► passed: give up
//!   over the candidate ──► wait ──► acknowledged: promote
//! ```

use std::time::Duration;

use tokio::time::Instant;

use crate::config::settings::{ClientIdentity, Endpoint};

#[derive(Debug)]
pub struct Trial {
    identity: ClientIdentity,
    time: Duration,
    /// Counts from the first connection without the candidate.
    until: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Wait,
    Promote,
    GiveUp,
}

impl Trial {
    pub fn new(identity: ClientIdentity, time: Duration) -> Self {
        Self { identity, time, until: None }
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
            return Verdict::Wait;
        }
        let until = *self.until.get_or_insert(now + self.time);
        if now < until { Verdict::Wait } else { Verdict::GiveUp }
    }
}
