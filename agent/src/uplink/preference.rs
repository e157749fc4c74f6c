//! When to go back to an endpoint that is preferred to the one we are connected to. Pure: what happened in, waiting times out.
//!
//! An order of preference that only counts after a loss would leave a gateway on a spare broker for months, and a document's new endpoint
//! untested for as long. So while it is connected to a less preferred one, the supervisor looks for a better one from time to time, in two
//! steps:
//!
//! 1. **A dial beside the running connection**: names, TCP, TLS with our certificate, nothing of MQTT. It disturbs nothing, so it may be
//!    frequent, and it keeps a dead endpoint from costing anything. It proves little: not that the broker lets our client id in, nor that it
//!    takes a publish. A CONNECT beside the running one could prove that only under another client id, which access rules tied to the
//!    certificate's name refuse, or under the same one, which on brokers that share sessions throws out the connection that works.
//! 2. **A regular attempt**: only where the dial succeeded, the connection is ended in order (what is in flight is answered, `offline` is
//!    said, DISCONNECT) and the better endpoint tried like at any start. If that fails, the rotation comes back here within one attempt.
//!
//! What a failed step costs decides how often it is repeated: both waits double, that of the dial to a short bound, that of the attempt to a
//! long one. Only a connection that lasted on an endpoint ends the doubling.

use std::time::Duration;

use super::Timing;

#[derive(Debug, Default)]
pub(super) struct Return {
    dials: u32,
    attempts: u32,
}

impl Return {
    /// How long to wait before the next dial.
    pub(super) fn wait(&self, timing: &Timing) -> Duration {
        let doubled = |times: u32, most: Duration| timing.return_min.saturating_mul(1 << times.min(16)).min(most);
        doubled(self.dials, timing.return_dial_max).max(doubled(self.attempts, timing.return_max))
    }

    /// None of the better endpoints could be dialled.
    pub(super) fn dial_failed(&mut self) {
        self.dials = self.dials.saturating_add(1);
    }

    /// One could, and the connection is ended for it.
    pub(super) fn attempted(&mut self) {
        self.dials = 0;
        self.attempts = self.attempts.saturating_add(1);
    }

    /// The connection to the endpoint numbered `at` ended. `steady`: after a long time and with progress.
    pub(super) fn ended(&mut self, at: usize, steady: bool) {
        if at == 0 && steady {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(wanted: &Return) -> u64 {
        wanted.wait(&Timing::default()).as_secs() / 60
    }

    #[test]
    fn a_dead_endpoint_is_dialled_every_few_minutes_and_costs_nothing_else() {
        let mut wanted = Return::default();
        let mut waits = Vec::new();
        for _ in 0..5 {
            waits.push(minutes(&wanted));
            wanted.dial_failed();
        }
        assert_eq!(waits, [1, 2, 4, 5, 5]);
    }

    #[test]
    fn one_that_answers_but_does_not_serve_disturbs_the_other_at_most_once_an_hour() {
        let mut wanted = Return::default();
        let mut waits = Vec::new();
        for _ in 0..9 {
            waits.push(minutes(&wanted));
            wanted.attempted();
            wanted.ended(0, false);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        wanted.ended(1, true);
        assert_eq!(minutes(&wanted), 60, "a good time on the spare says nothing about the preferred one");
        wanted.ended(0, true);
        assert_eq!(minutes(&wanted), 1);
    }
}
