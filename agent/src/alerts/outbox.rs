//! Alerts that wait for the syslog receiver: bounded, numbered, the oldest dropped first. Shared by the keeper, which puts, and the sender, which takes.
//!
//! The sender looks at the first one, hands it over and only then takes it off; so the number up to which everything was handed over or dropped is
//! what the keeper may count as told.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::line::Alert;
use super::view::AlertsShown;
use crate::limits::SYSLOG_QUEUE;

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<(u64, Alert)>,
    last: u64,
    sent: u64,
    dropped: u64,
    /// Of them, those that no line has told of yet.
    untold: u64,
    error: Option<String>,
}

#[derive(Debug, Default)]
pub struct Outbox {
    inner: Mutex<Inner>,
    rings: Notify,
}

impl Outbox {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its number.
    pub fn put(&self, alert: Alert) -> u64 {
        let mut inner = self.inner();
        if inner.waiting.len() >= SYSLOG_QUEUE {
            inner.waiting.pop_front();
            (inner.dropped, inner.untold) = (inner.dropped + 1, inner.untold + 1);
        }
        inner.last += 1;
        let number = inner.last;
        inner.waiting.push_back((number, alert));
        drop(inner);
        self.rings.notify_one();
        number
    }

    /// The first one, its number, and how many were dropped that no line has told of.
    pub fn first(&self) -> Option<(u64, Alert, u64)> {
        let inner = self.inner();
        inner.waiting.front().map(|(number, alert)| (*number, alert.clone(), inner.untold))
    }

    /// Waits for one.
    pub async fn next(&self) -> (u64, Alert, u64) {
        loop {
            let rings = self.rings.notified();
            if let Some(first) = self.first() {
                return first;
            }
            rings.await;
        }
    }

    /// This one was handed over, and with it how many were dropped.
    pub fn handed_over(&self, number: u64, told: u64) {
        let mut inner = self.inner();
        // It may have been dropped meanwhile; it was told all the same.
        while inner.waiting.front().is_some_and(|(first, _)| *first <= number) {
            inner.waiting.pop_front();
        }
        inner.sent += 1;
        inner.untold = inner.untold.saturating_sub(told);
        inner.error = None;
    }

    pub fn failed(&self, error: String) {
        self.inner().error = Some(error);
    }

    /// Everything up to this number was handed over or dropped.
    pub fn through(&self) -> u64 {
        let inner = self.inner();
        inner.waiting.front().map_or(inner.last, |(first, _)| first - 1)
    }

    pub fn shown(&self, syslog: Option<String>) -> AlertsShown {
        let inner = self.inner();
        AlertsShown { syslog, sent: inner.sent, waiting: inner.waiting.len() as u64, dropped: inner.dropped, error: inner.error.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallTime;
    use crate::status::condition::Code;

    fn alert(n: u64) -> Alert {
        let at = WallTime { unix_ms: 0, suspect: false };
        Alert { code: Code::SpoolFull, subject: n.to_string(), is_feed: false, over: false, text: String::new(), since: String::new(), at }
    }

    /// I4: what waits is bounded, and what was dropped is told once.
    #[test]
    fn the_oldest_are_dropped_counted_and_told() {
        let outbox = Outbox::default();
        for n in 1..=SYSLOG_QUEUE as u64 + 3 {
            assert_eq!(outbox.put(alert(n)), n);
        }
        let (number, first, dropped) = outbox.first().unwrap();
        assert_eq!((number, first.subject.as_str(), dropped, outbox.through()), (4, "4", 3, 3));
        outbox.put(alert(0)); // drops the one that is being handed over
        outbox.handed_over(number, dropped);
        let (number, _, dropped) = outbox.first().unwrap();
        assert_eq!((number, dropped, outbox.shown(None).sent, outbox.shown(None).dropped), (5, 1, 1, 4));
        while let Some((number, _, dropped)) = outbox.first() {
            outbox.handed_over(number, dropped);
        }
        assert_eq!((outbox.through(), outbox.shown(None).waiting), (SYSLOG_QUEUE as u64 + 4, 0));
    }
}
