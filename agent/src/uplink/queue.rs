//! The events on their way to the forwarder: bounded by number, and received payloads by bytes as well (I4).
//!
//! When it is full the connection task waits in [`Sender::send`]; it returns how long, because that time is not the broker's.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use super::UplinkEvent;
use crate::limits::{UPLINK_EVENTS, UPLINK_RECEIVED_BYTES_MAX};

#[derive(Debug)]
struct Queued {
    event: UplinkEvent,
    /// Given back when the event is taken.
    _room: Option<OwnedSemaphorePermit>,
}

#[derive(Clone, Debug)]
pub(super) struct Sender {
    events: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
}

#[derive(Debug)]
pub(super) struct Receiver(mpsc::Receiver<Queued>);

pub(super) fn queue() -> (Sender, Receiver) {
    let (events, receiver) = mpsc::channel(UPLINK_EVENTS);
    let room = Arc::new(Semaphore::new(UPLINK_RECEIVED_BYTES_MAX as usize));
    (Sender { events, room }, Receiver(receiver))
}

/// The forwarder is gone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gone;

impl Sender {
    /// Queues an event; how long the queue made us wait.
    pub(super) async fn send(&self, event: UplinkEvent) -> Result<Duration, Gone> {
        let queued = match event {
            UplinkEvent::Message { .. } => self.with_room(event).await?,
            event => Queued { event, _room: None },
        };
        match self.events.try_send(queued) {
            Ok(()) => Ok(Duration::ZERO),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Gone),
            Err(mpsc::error::TrySendError::Full(queued)) => {
                let began = Instant::now();
                self.events.send(queued).await.map_err(|_| Gone)?;
                Ok(began.elapsed())
            }
        }
    }

    async fn with_room(&self, event: UplinkEvent) -> Result<Queued, Gone> {
        let bytes = match &event {
            UplinkEvent::Message { topic, payload, .. } => topic.len() + payload.len(),
            UplinkEvent::Up { .. } | UplinkEvent::Acked { .. } | UplinkEvent::Down { .. } => 0,
        };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(UPLINK_RECEIVED_BYTES_MAX);
        tokio::select! {
            room = self.room.clone().acquire_many_owned(bytes) => Ok(Queued { event, _room: room.ok() }),
            () = self.events.closed() => Err(Gone),
        }
    }
}

impl Receiver {
    /// Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<UplinkEvent> {
        self.0.recv().await.map(|queued| queued.event)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// I4: a hub that sends faster than the forwarder takes is held up, not buffered.
    #[tokio::test]
    async fn received_payloads_are_bounded_by_bytes() {
        let (sender, mut receiver) = queue();
        let message = || UplinkEvent::Message { topic: String::new(), payload: Bytes::from(vec![0; 1024 * 1024]), retained: false };
        for _ in 0..UPLINK_RECEIVED_BYTES_MAX / (1024 * 1024) {
            sender.send(message()).await.unwrap();
        }
        let mut blocked = std::pin::pin!(sender.send(message()));
        assert!(std::future::poll_fn(|context| std::task::Poll::Ready(blocked.as_mut().poll(context))).await.is_pending());
        receiver.next().await.unwrap();
        assert!(blocked.await.is_ok());
    }

    #[tokio::test]
    async fn a_forwarder_that_is_gone_ends_the_wait() {
        let (sender, receiver) = queue();
        drop(receiver);
        assert_eq!(sender.send(UplinkEvent::Down { error: String::new() }).await, Err(Gone));
    }
}
