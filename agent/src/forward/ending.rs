//! The last words: what the core still says when the agent stops, and how the shell knows that all of it was heard. Part of the core, pure.
//!
//! `stop` (no outcome from now on) → `last_heads` → the shell waits for receipts while `awaiting_receipts` → `say_offline` → until `quiet`, or the
//! shell's deadline. What was not heard then is told again on the next connection.

use std::time::Instant;

use super::core::{Core, Status};
use super::window::Window;
use crate::config::settings::Confirm;
use crate::contract::OnlineState;

impl Core {
    /// No outcome is published from now on.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Every feed tells its head once more; at the end, or because somebody asks.
    pub fn last_heads(&mut self, now: Instant) {
        for feed in self.feeds.iter_mut().filter(|feed| feed.head.seq > 0) {
            feed.checkpoints.force(now);
        }
    }

    /// The last word: retained `offline`.
    pub fn say_offline(&mut self) {
        self.status = Status { state: OnlineState::Offline, due: true };
    }

    /// Outcomes whose PUBACK is awaited.
    pub fn outcomes_in_flight(&self) -> usize {
        self.window.as_ref().map_or(0, Window::outcomes)
    }

    /// Feed and first seq of an outcome whose PUBACK is awaited.
    pub fn outcome_in_flight(&self, token: u64) -> Option<(usize, u64)> {
        self.window.as_ref()?.outcome(token)
    }

    /// Nothing is due and every publish was answered.
    pub fn quiet(&self, now: Instant) -> bool {
        let heads = (0..self.feeds.len()).any(|feed| self.head_due(feed).is_some_and(|due| due <= now));
        !self.status.due && !self.mailbox.is_due() && !heads && self.window.as_ref().is_none_or(Window::is_empty)
    }

    /// Outcomes the broker has and no receipt covers yet, of a hub that is known to answer.
    pub fn awaiting_receipts(&self) -> bool {
        self.rules.confirm == Confirm::Receipt && self.feeds.iter().any(|feed| feed.acked() > 0 && feed.is_patient())
    }
}
