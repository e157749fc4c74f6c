//! What systemd is told: ready, one line of status, stopping, and that the agent is alive.
//!
//! All of it does nothing outside systemd. A notification that cannot be sent is not an error of the agent's: it is logged once at debug.
//!
//! The watchdog (`WatchdogSec=`) beats from the agent's main loop, and only while a closure says that things move: a worker counts while it
//! moves or has nothing to do, and [`moves`] compares from one beat to the next. Three beats fit into systemd's patience; when none comes in
//! that time, it restarts the agent.

pub mod sockets;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::Instant;

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "systemd could not be notified");
    }
}

/// Whether somebody wants to be told.
pub fn is_service() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Start-up is over.
pub fn ready() {
    notify(NotifyState::Ready);
}

/// One line for `systemctl status`.
pub fn status(line: &str) {
    notify(NotifyState::Status(&line.replace(['\n', '\r'], " ")));
}

pub fn stopping() {
    notify(NotifyState::Stopping);
}

/// Tells systemd that the agent is alive, while it is.
#[derive(Debug)]
pub struct Watchdog<F> {
    /// `None`: not asked for.
    every: Option<Duration>,
    next: Instant,
    alive: F,
    told: bool,
}

impl<F: FnMut() -> bool> Watchdog<F> {
    /// Reads from the environment how often systemd wants to hear; beats three times as often.
    pub fn new(alive: F) -> Self {
        Self::with_interval(sd_notify::watchdog_enabled().map(|patience| patience / 3), alive)
    }

    fn with_interval(every: Option<Duration>, alive: F) -> Self {
        Self { every, next: Instant::now(), alive, told: false }
    }

    /// How long from beat to beat, where any is wanted.
    pub fn interval(&self) -> Option<Duration> {
        self.every
    }

    /// Waits until a beat is due; forever where none is wanted. Cancel-safe.
    pub async fn due(&self) {
        match self.every {
            Some(_) => tokio::time::sleep_until(self.next).await,
            None => std::future::pending().await,
        }
    }

    /// Beats, or does not; whether it did.
    pub fn beat(&mut self) -> bool {
        self.next = Instant::now() + self.every.unwrap_or_default();
        let alive = (self.alive)();
        if alive {
            notify(NotifyState::Watchdog);
        } else if !self.told {
            tracing::error!("a part of the agent no longer moves; systemd will restart it if that goes on");
        }
        self.told = !alive;
        alive
    }
}

/// Asks, each time, whether a counter moved since the last time; for workers that count while they move or are legitimately idle.
pub fn moves(counter: Arc<AtomicU64>) -> impl FnMut() -> bool + Send {
    let mut seen = None;
    move || {
        let now = counter.load(Ordering::Relaxed);
        seen.replace(now) != Some(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_whose_counter_stands_still_between_two_looks_is_stuck() {
        let counter = Arc::new(AtomicU64::new(7));
        let mut moving = moves(Arc::clone(&counter));
        assert!(moving(), "nothing to compare with yet");
        assert!(!moving());
        counter.fetch_add(1, Ordering::Relaxed);
        assert!(moving());
        assert!(!moving());
    }

    #[test]
    fn the_watchdog_beats_only_while_things_move() {
        let mut answers = [true, false, false, true].into_iter();
        let mut watchdog = Watchdog::with_interval(Some(Duration::from_secs(1)), || answers.next().unwrap());
        assert_eq!([watchdog.beat(), watchdog.beat(), watchdog.beat(), watchdog.beat()], [true, false, false, true]);
    }
}
