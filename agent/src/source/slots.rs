//! Large-frame slots (I4): who may hold a frame above `FRAME_OWN_BYTES` in memory.
//!
//! A slot stands for the memory of one whole message of `message_bytes_max`. Every feed owns one, and all feeds share
//! `LARGE_FRAME_SLOTS_SHARED` more, both first come, first served. A frame takes its slot before the connection reads on and keeps it until
//! its bytes have left for the journal; whoever holds one can therefore always finish, and no feed can keep another from making progress.
//! At worst `feeds + LARGE_FRAME_SLOTS_SHARED` large messages are in memory at once, however many connections there are.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::LARGE_FRAME_SLOTS_SHARED;

/// The pool of one agent; cheap to clone.
#[derive(Clone, Debug)]
pub struct LargeFrameSlots {
    shared: Arc<Semaphore>,
}

impl Default for LargeFrameSlots {
    fn default() -> Self {
        Self::new()
    }
}

impl LargeFrameSlots {
    pub fn new() -> Self {
        Self { shared: Arc::new(Semaphore::new(LARGE_FRAME_SLOTS_SHARED)) }
    }

    /// What one feed can take from: its own slot, then the shared ones.
    pub fn for_feed(&self) -> FeedSlots {
        FeedSlots { own: Arc::new(Semaphore::new(1)), shared: Arc::clone(&self.shared) }
    }
}

/// The slots open to one feed.
#[derive(Debug)]
pub struct FeedSlots {
    own: Arc<Semaphore>,
    shared: Arc<Semaphore>,
}

/// Room for one large frame; given back when dropped.
#[derive(Debug)]
pub struct LargeFrameSlot {
    _permit: OwnedSemaphorePermit,
}

impl FeedSlots {
    /// Waits for whichever comes first, in the order of asking. Give it a deadline.
    pub async fn take(&self) -> LargeFrameSlot {
        let own = Arc::clone(&self.own).acquire_owned();
        let shared = Arc::clone(&self.shared).acquire_owned();
        let permit = tokio::select! {
            biased;
            permit = own => permit,
            permit = shared => permit,
        };
        LargeFrameSlot { _permit: permit.expect("these semaphores are never closed") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    /// I4: however much one feed holds, another gets one.
    #[test]
    fn a_feed_always_has_a_slot_of_its_own() {
        let pool = LargeFrameSlots::new();
        let (greedy, modest) = (pool.for_feed(), pool.for_feed());
        let held: Vec<_> = std::iter::from_fn(|| now(greedy.take())).collect();
        assert_eq!(held.len(), 1 + LARGE_FRAME_SLOTS_SHARED);
        let slot = now(modest.take());
        assert!(slot.is_some());
        assert!(now(modest.take()).is_none());
        drop(held);
        assert!(now(modest.take()).is_some());
    }

    /// First come, first served.
    #[test]
    fn a_slot_given_back_goes_to_the_one_who_waited_longest() {
        let pool = LargeFrameSlots::new();
        let feed = pool.for_feed();
        let mut held: Vec<_> = std::iter::from_fn(|| now(feed.take())).collect();
        let (mut first, mut second) = (pin!(feed.take()), pin!(feed.take()));
        let mut context = Context::from_waker(Waker::noop());
        assert!(first.as_mut().poll(&mut context).is_pending());
        assert!(second.as_mut().poll(&mut context).is_pending());
        held.pop();
        assert!(second.as_mut().poll(&mut context).is_pending());
        assert!(first.as_mut().poll(&mut context).is_ready());
    }
}
