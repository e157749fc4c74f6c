//! Forward: from the journal to the hub, and what may be released.
//!
//! ```text
//!                 ┌──────────── thread `forward` (shell.rs) ────────────┐
//!   spool::Reader │  next(feed, after) ─► Core ─► Outgoing              │ try_publish ─► Uplink ─► broker ─► hub
//!     heads ─────►│              ▲         │ ▲                          │                 │                 │
//!     settle ◄────│── Settle ◄───┘  shares window ◄── Acked ◄───────────│── event() ◄─────┘                 │
//!                 │                        └─◄────── receipt ◄──────────│───────────◄───────────────────────┘
//!                 └─────────────────────────────────────────────────────┘
//! ```
//!
//! 1. `Forwarder::spawn` starts the thread; it owns the unique `Reader`, so nothing else can settle (I2), and the `Uplink`.
//! 2. On every connection: status, the lineage of each feed, then outcomes from the oldest the broker has not acknowledged.
//! 3. PUBACK frees the window. A receipt that names our own chain settles (`confirm = "receipt"`); without receipts, or where one names missing
//!    ranges, the feed goes back. `confirm = "puback"` settles by the contiguous mark of acknowledgements.
//! 4. `ForwarderHandle::stop` ends it within a deadline.
//!
//! | file | decides |
//! |---|---|
//! | `core.rs`, `answers.rs`, `receipts.rs` | what to publish next; what the broker's and the hub's answers mean |
//! | `feed.rs` | one feed: what was published above the settled mark (I3) |
//! | `window.rs`, `shares.rs` | how much may be in flight, and whose turn it is (I4) |
//! | `checkpoint.rs`, `pause.rs`, `receipt.rs` | when checkpoints are due; how long to leave something alone; what a receipt proves |
//! | `mailbox.rs`, `mail.rs` | what the rollout has to say; the channels between it and us |
//! | `ending.rs` | the last words at a stop |
//! | `feeds.rs` | feeds that come, go and move while it runs |
//! | `publish.rs`, `shell.rs` | the wire format; the only file here that touches disk, network and time |
//!
//! When things break: no connection: nothing happens until `Up`. A refused feed waits alone. A disk that cannot be read parks the feed that
//! needs it. A hub that does not answer costs resends, with growing patience, and never a record. All waits are at most a second long, so
//! `ForwarderHandle::progress` stands still only when the thread does.

mod answers;
mod checkpoint;
mod core;
mod ending;
mod feed;
mod feeds;
pub mod mail;
mod mailbox;
mod pause;
mod publish;
mod receipt;
mod receipts;
mod shares;
mod shell;
mod window;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::config::settings::{FeedSettings, Settings};
use crate::limits::FORWARD_JOIN_GRACE;
use crate::spool::Reader;
use crate::status::board::Board;
use crate::uplink::credentials::Identities;

/// Makes forwarders.
#[derive(Debug)]
pub struct Forwarder;

impl Forwarder {
    /// Starts the thread. `runtime` runs the uplink's connection; the thread itself only blocks on it.
    pub fn spawn(
        settings: &Settings,
        reader: Reader,
        board: Arc<Board>,
        runtime: tokio::runtime::Handle,
    ) -> std::io::Result<ForwarderHandle> {
        Self::spawn_as(settings, Identities::default(), reader, board, runtime)
    }

    /// The same, with certificates of ours beside that of the settings.
    pub fn spawn_as(
        settings: &Settings,
        identities: Identities,
        reader: Reader,
        board: Arc<Board>,
        runtime: tokio::runtime::Handle,
    ) -> std::io::Result<ForwarderHandle> {
        let (stop, stop_signal) = oneshot::channel();
        let (feeds, its_feeds) = watch::channel(Arc::from(settings.feeds.as_slice()));
        let (finished, done) = mpsc::sync_channel(1);
        let beat = Arc::new(AtomicU64::new(0));
        let (mut settings, its_beat) = (settings.clone(), Arc::clone(&beat));
        let uplink = identities.apply(&settings.uplink);
        let (mail, office) = mail::mail(std::mem::replace(&mut settings.uplink, uplink), identities);
        let thread = thread::Builder::new().name("forward".into()).spawn(move || {
            let shell = shell::Shell::new(&settings, reader, board, &runtime, (its_beat, its_feeds), office);
            runtime.block_on(shell.run(stop_signal));
            // Nobody listens when the handle is gone; there is nobody to tell then.
            let _ = finished.try_send(());
        })?;
        Ok(ForwarderHandle { stop, done, beat, feeds, thread, mail: Some(mail) })
    }
}

/// The running forwarder. Dropping it without `stop` ends it at once, without the orderly end.
#[derive(Debug)]
pub struct ForwarderHandle {
    stop: oneshot::Sender<Duration>,
    done: mpsc::Receiver<()>,
    beat: Arc<AtomicU64>,
    feeds: watch::Sender<Feeds>,
    thread: thread::JoinHandle<()>,
    mail: Option<mail::Mail>,
}

/// The configured feeds, as they are handed round.
pub type Feeds = Arc<[FeedSettings]>;

impl ForwarderHandle {
    /// The rollout's way to the uplink; `None` if it was taken before.
    pub fn take_mail(&mut self) -> Option<mail::Mail> {
        self.mail.take()
    }

    /// Grows at least once a second while the thread moves or is legitimately idle; stands still when it hangs or has ended.
    pub fn progress(&self) -> u64 {
        self.beat.load(Ordering::Relaxed)
    }

    /// Where the feeds that are configured from now on are told; after the spool knows them.
    pub fn feeds(&self) -> watch::Sender<Feeds> {
        self.feeds.clone()
    }

    /// The same counter, for a watchdog that outlives a borrow.
    pub fn progress_counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.beat)
    }

    /// Stops publishing, waits for what is in flight and for receipts, tells heads and `offline`, syncs the marks; blocking, within `deadline`
    /// (and a short grace for the disk). False when the thread had failed or had to be given up; nothing is lost then, marks are only older.
    pub fn stop(self, deadline: Duration) -> bool {
        // Fails only where the thread has ended already, which the wait below finds out.
        let _ = self.stop.send(deadline);
        match self.done.recv_timeout(deadline + FORWARD_JOIN_GRACE) {
            Ok(()) => self.thread.join().is_ok(),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                tracing::error!("the forwarder had failed before it was stopped; everything unconfirmed is sent again at the next start");
                false
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                tracing::error!(
                    "the forwarder did not stop in time (a disk that hangs?) and is given up; marks may be older than they could be"
                );
                false
            }
        }
    }
}
