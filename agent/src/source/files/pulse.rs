//! What the thread of a feed is doing, seen from outside: a network share may hang for ever in any call, and nothing in this process can end that
//! call. So every call that touches the share says that it begins and ends; whoever watches sees how long it has been and says so
//! (`share_hung`). Nobody else waits for this thread: not another feed, not the status, not the watchdog.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Shared by a feed's thread and its watcher.
#[derive(Debug, Default)]
pub struct Pulse {
    stop: AtomicBool,
    call: Mutex<Option<(&'static str, Instant)>>,
}

impl Pulse {
    fn set(&self, call: Option<(&'static str, Instant)>) {
        *self.call.lock().unwrap_or_else(PoisonError::into_inner) = call;
    }

    /// Makes a call that may hang.
    pub fn during<T>(&self, what: &'static str, call: impl FnOnce() -> T) -> T {
        self.set(Some((what, Instant::now())));
        let outcome = call();
        self.set(None);
        outcome
    }

    /// From inside a call that is many calls: it goes on.
    pub fn goes_on(&self, what: &'static str) {
        self.set(Some((what, Instant::now())));
    }

    /// The call under way, if it takes longer than this.
    pub fn hangs_in(&self, longer_than: Duration) -> Option<(&'static str, Duration)> {
        let call = *self.call.lock().unwrap_or_else(PoisonError::into_inner);
        call.map(|(what, since)| (what, since.elapsed())).filter(|(_, elapsed)| *elapsed > longer_than)
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
