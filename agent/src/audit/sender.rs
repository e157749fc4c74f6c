//! Publishes the audit log on `audit`, record by record, in order.
//!
//! 1. The next record after the mark is posted as a letter once there is a connection, at QoS 1; one at a time, so that they arrive in order. The
//!    mailbox repeats it on every connection until it is answered, so this task waits for that answer as long as it takes.
//! 2. Only the broker's success counts: "nobody subscribed" would mean that nobody ever gets it. Anything else is tried again after
//!    `AUDIT_RETRY`, for ever.
//! 3. The mark is durable after each; where it cannot be written a restart sends some again, under the same number and digest.
//!
//! The same task has the book write what it owes. Nothing waits for it, so a WAN that is down for weeks costs disk within the log's bounds.

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::Book;
use crate::forward::mail::{Delivered, Letter, Post};
use crate::limits::AUDIT_RETRY;
use crate::uplink::AckReason;

/// Until told to stop.
pub async fn run(book: Book, post: Post, mut stop: watch::Receiver<bool>) {
    let mut written = book.watch_written();
    loop {
        let (last, sent) = book.standing();
        let work = async {
            if last <= sent {
                // Fails only when the book is gone, which this task holds.
                let _ = timeout(AUDIT_RETRY, written.changed()).await;
                book.catch_up();
            } else if !send_page(&book, &post, sent + 1, last).await {
                sleep(AUDIT_RETRY).await;
                book.catch_up();
            }
        };
        tokio::select! {
            biased;
            _ended = stop.wait_for(|stop| *stop) => return,
            () = work => {}
        }
    }
}

/// `last`: the newest record before this looked. False: to be tried again later.
async fn send_page(book: &Book, post: &Post, first: u64, last: u64) -> bool {
    let records = match book.page(first) {
        Ok(records) => records,
        Err(error) => {
            tracing::debug!(error, "the audit log cannot be read; it is tried again");
            return false;
        }
    };
    if records.is_empty() {
        // What could not be read is known to the log, and a record of it stands behind it; what was written since was not looked for.
        book.was_sent(last);
    }
    for (n, line) in records {
        if !send(post, line).await {
            return false;
        }
        book.was_sent(n);
    }
    true
}

async fn send(post: &Post, line: String) -> bool {
    if post.link().wait_for(Option::is_some).await.is_err() {
        return false;
    }
    let Ok(answer) = post.post(Letter::Audit(line.into_bytes().into())) else { return false };
    matches!(answer.await, Ok(Delivered { reason: AckReason::Success, .. }))
}

#[cfg(test)]
#[path = "sender_tests.rs"]
mod tests;
