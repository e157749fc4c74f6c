//! What a connection asks of the spool; a closed enum, so that the shell can be tested against a store that fails, waits or breaks on
//! demand.

use super::witness::Taken;
use crate::record::{FeedId, Message, Payload};
use crate::source::ack::{self, Reply};
use crate::spool::{AppendError, Appender};

#[derive(Debug)]
pub(super) enum Store {
    Spool(Appender),
    #[cfg(test)]
    Fake(super::tests::FakeStore),
}

impl Store {
    /// Makes a message durable; the answer is the only `Reply` that may be positive (I1).
    pub(super) async fn append(&self, message: Message) -> Result<(Reply, Taken), AppendError> {
        match self {
            Self::Spool(appender) => appender.append(message).await.map(|durable| {
                let taken = Taken::of(&durable);
                (ack::accept(durable), taken)
            }),
            #[cfg(test)]
            Self::Fake(fake) => fake.append(message).await.map(|reply| (reply, Taken { seq: 1, duplicate: false, resend_of: None })),
        }
    }

    /// Keeps bytes that could not be a message.
    pub(super) async fn quarantine(&self, feed: &FeedId, peer: &str, code: &'static str, bytes: Payload) {
        match self {
            Self::Spool(appender) => appender.quarantine_frame(feed, peer, code, bytes).await,
            #[cfg(test)]
            Self::Fake(fake) => fake.quarantine(peer, code, &bytes),
        }
    }
}
