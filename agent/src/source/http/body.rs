//! Reading a body with bounds: bytes, time, and a slot for what is large (I4).
//!
//! What the client says of the length is believed where it is too much, and only as a hint where it is not. The buffer grows to what came, never
//! above the limit. A body that is answered before its end is read on for a while ([`linger`]): a connection that is closed on bytes nobody read
//! takes the answer with it.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as _, Frame, Incoming};
use tokio::time::{Instant, timeout, timeout_at};

use crate::limits::{FRAME_OWN_BYTES, HTTP_LINGER, HTTP_LINGER_BYTES, HTTP_SLOT_WAIT};
use crate::source::slots::{FeedSlots, LargeFrameSlot};

/// Why a body is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    TooLarge,
    /// No room for a large body just now.
    Busy,
    Timeout,
    /// The client went away, or its framing is broken.
    Lost,
}

/// A body and the room it takes.
#[derive(Debug)]
pub(super) struct Held {
    pub bytes: Bytes,
    _slot: Option<LargeFrameSlot>,
}

async fn frame(body: &mut Incoming) -> Option<Result<Frame<Bytes>, hyper::Error>> {
    std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

/// Reads it whole; at most `limit` bytes, in `time`.
pub(super) async fn read(body: &mut Incoming, limit: u64, time: Duration, slots: &FeedSlots) -> Result<Held, Failed> {
    let announced = body.size_hint().lower();
    if announced > limit {
        return Err(Failed::TooLarge);
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut deadline = Instant::now() + time;
    let (mut bytes, mut slot) = (Vec::new(), None);
    if announced > FRAME_OWN_BYTES as u64 {
        slot = Some(take(slots, &mut deadline).await?);
        bytes.reserve_exact(announced as usize);
    }
    while let Some(frame) = timeout_at(deadline, frame(body)).await.map_err(|_| Failed::Timeout)? {
        let Ok(data) = frame.map_err(|_| Failed::Lost)?.into_data() else { continue }; // trailers
        let length = bytes.len() + data.len();
        if length > limit {
            return Err(Failed::TooLarge);
        }
        if length > FRAME_OWN_BYTES && slot.is_none() {
            slot = Some(take(slots, &mut deadline).await?);
        }
        if length > bytes.capacity() {
            let wanted = (bytes.capacity() * 2).clamp(length, limit);
            bytes.reserve_exact(wanted - bytes.len());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Held { bytes: bytes.into(), _slot: slot })
}

/// A slot; the client is not to blame for this wait.
async fn take(slots: &FeedSlots, deadline: &mut Instant) -> Result<LargeFrameSlot, Failed> {
    let since = Instant::now();
    let slot = timeout(HTTP_SLOT_WAIT, slots.take()).await.map_err(|_| Failed::Busy)?;
    *deadline += since.elapsed();
    Ok(slot)
}

/// Reads on and forgets, for a while.
pub(super) async fn linger(mut body: Incoming) {
    let all = async {
        let mut room = HTTP_LINGER_BYTES;
        while let Some(Ok(frame)) = frame(&mut body).await {
            room = room.saturating_sub(frame.data_ref().map_or(1, |data| data.len() as u64));
            if room == 0 {
                return;
            }
        }
    };
    // Whatever is left is cut off with the connection.
    let _ = timeout(HTTP_LINGER, all).await;
}
