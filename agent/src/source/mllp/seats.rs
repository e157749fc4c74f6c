//! The connections of one listener: how many there are, which has been idle longest, and who is asked to leave.
//!
//! A limit that turned newcomers away would let dead connections lock an interface out, so the newest is kept and the one idle longest is
//! asked to leave. It leaves at the next point where nothing is owed to its peer: a message whose append is under way is answered first.
//! Connections still in their TLS handshake make room before all others: whoever cannot finish one must not cost those who have.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

use crate::status::board::FeedCounters;

/// What a connection is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Stay,
    /// A newer connection needs the place.
    MakeRoom,
    /// The listener stops.
    Stop,
}

#[derive(Debug)]
struct Taken {
    ask: watch::Sender<Ask>,
    active: Arc<AtomicU64>,
}

#[derive(Debug)]
pub(super) struct Seats {
    counters: Arc<FeedCounters>,
    taken: Mutex<HashMap<u64, Taken>>,
    last_id: AtomicU64,
    /// Counts everything that any peer does; who was counted longest ago is idle longest. No clock needed.
    activity: AtomicU64,
}

/// Marks in `active` a connection that is past its handshake.
const ESTABLISHED: u64 = 1 << 63;

/// One connection's place; given up when dropped, also by a panic.
#[derive(Debug)]
pub(super) struct Seat {
    id: u64,
    seats: Arc<Seats>,
    active: Arc<AtomicU64>,
    pub(super) ask: watch::Receiver<Ask>,
}

impl Seats {
    pub(super) fn new(counters: Arc<FeedCounters>) -> Arc<Self> {
        Arc::new(Self { counters, taken: Mutex::default(), last_id: AtomicU64::new(0), activity: AtomicU64::new(0) })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<u64, Taken>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) -> u64 {
        self.activity.fetch_add(1, Ordering::Relaxed)
    }

    /// A seat for a new connection. Above `max` the one idle longest is asked to leave (told by the `bool`); `None` where as many as `max`
    /// have been asked already and none has left yet.
    pub(super) fn take(self: &Arc<Self>, max: usize) -> Option<(Seat, bool)> {
        let mut taken = self.taken();
        let crowded = taken.len() >= max;
        if taken.len() >= 2 * max {
            return None;
        }
        if crowded {
            let staying = taken.values().filter(|t| *t.ask.borrow() == Ask::Stay);
            let longest_idle = staying.min_by_key(|t| t.active.load(Ordering::Relaxed));
            if let Some(longest_idle) = longest_idle {
                longest_idle.ask.send_replace(Ask::MakeRoom);
            }
        }
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, ask) = watch::channel(Ask::Stay);
        let active = Arc::new(AtomicU64::new(self.count()));
        taken.insert(id, Taken { ask: sender, active: Arc::clone(&active) });
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
        Some((Seat { id, seats: Arc::clone(self), active, ask }, crowded))
    }

    /// Asks everybody to leave.
    pub(super) fn stop(&self) {
        for taken in self.taken().values() {
            taken.ask.send_replace(Ask::Stop);
        }
    }
}

impl Seat {
    /// Notes that the peer did something just now; the first time: that it is past its handshake.
    pub(super) fn touch(&self) {
        self.active.store(self.seats.count() | ESTABLISHED, Ordering::Relaxed);
    }
    pub(super) fn asked(&self) -> Ask {
        *self.ask.borrow()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.seats.taken().remove(&self.id).is_some() {
            self.seats.counters.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_kept_and_the_one_idle_longest_makes_room() {
        let counters = Arc::<FeedCounters>::default();
        let seats = Seats::new(Arc::clone(&counters));
        let all: Vec<Seat> = (0..3).map(|_| seats.take(3).unwrap().0).collect();
        all[0].touch();
        let (fourth, crowded) = seats.take(3).unwrap();
        assert!(crowded);
        assert_eq!([all[0].asked(), all[1].asked(), all[2].asked(), fourth.asked()], [Ask::Stay, Ask::MakeRoom, Ask::Stay, Ask::Stay]);
        let (fifth, _) = seats.take(3).unwrap();
        assert_eq!(all[2].asked(), Ask::MakeRoom);
        assert_eq!(counters.connections.load(Ordering::Relaxed), 5);
        let (_sixth, _) = seats.take(3).unwrap();
        assert!(seats.take(3).is_none(), "bounded even while those asked have not left");
        drop(all);
        assert!(!seats.take(4).unwrap().1);
        seats.stop();
        assert_eq!(fifth.asked(), Ask::Stop);
        drop((fourth, fifth));
        assert_eq!(counters.connections.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn those_still_in_their_handshake_make_room_first() {
        let seats = Seats::new(Arc::default());
        let good = seats.take(2).unwrap().0;
        good.touch();
        let slow: Vec<Seat> = (0..3).map(|_| seats.take(2).unwrap().0).collect();
        assert_eq!(good.asked(), Ask::Stay);
        assert_eq!([slow[0].asked(), slow[1].asked(), slow[2].asked()], [Ask::MakeRoom, Ask::MakeRoom, Ask::Stay]);
    }
}
