//! Directory feeds: files on a local disk or a share, captured record by record with the same promise as MLLP (I1, I3).
//!
//! ```text
//!   files (this)   one task per feed: starts the thread, watches that it moves, starts it again if it fails, stops it
//!   worker         the thread: round after round
//!     share        the directory as a capability            doorbell   inotify: may make a round come sooner
//!     scan         what is there, in order                  settle     when a file is complete (pure)
//!     read         two passes: look, capture                memory     what is done, what a crash left (pure, on a list in the spool)
//!     finish       done/, failed/, retention                report     what is the matter, said once
//!     pulse        which call is under way             trial    what becomes of a file, by its verdict (pure); `siteward feeds try`
//!     begun        how a file was split when it was begun
//! ```
//!
//! A file is moved only after all its records are durable and the list of finished files says so durably. A crash anywhere neither repeats nor
//! loses a record: the feed's progress is the place of its newest durable record, and a record is stored only behind the one before it.
//!
//! All calls that touch the directory are made by the feed's own thread. One that hangs (a server that is gone, `hard` mounts) is named
//! (`share_hung`) and concerns nobody else; at stop it is left behind.

mod begun;
mod doorbell;
mod finish;
mod hashing;
pub mod memory;
pub mod pattern;
mod pulse;
mod read;
mod report;
mod retention;
mod scan;
mod settle;
mod share;
#[cfg(test)]
mod tests;
pub mod trial;
mod worker;

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

use self::doorbell::{Button, Doorbell};
use self::pattern::Pattern;
use self::pulse::Pulse;
use self::report::Report;
pub use self::scan::Order;
pub use self::settle::Completion;
use self::worker::Worker;
use crate::limits;
use crate::record::{FeedId, Stage};
use crate::source::split::{SplitLimits, SplitSettings};
use crate::spool::Appender;
use crate::status::board::Board;
use crate::status::condition::Code;

/// Where done and refused files go, below the feed's directory.
pub const DONE: &str = "done";
pub const FAILED: &str = "failed";

/// How long done/ keeps files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub days: u32,
    pub bytes: u64,
}

/// What becomes of a file that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoneRule {
    /// Moved to `done/`.
    Move(Retention),
    /// Left and remembered.
    Leave,
}

/// A directory feed, validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectorySettings {
    pub path: PathBuf,
    pub patterns: Vec<Pattern>,
    pub subfolders: bool,
    pub order: Order,
    pub complete: Completion,
    /// Time without change before a file counts as complete.
    pub settle: Duration,
    /// Time between scans.
    pub scan: Duration,
    pub split: SplitSettings,
    pub done: DoneRule,
    /// Something must be mounted at or above `path`, and at or below this.
    pub require_mount: Option<PathBuf>,
    /// Names of files hold no patient data and may be shown.
    pub name_in_events: bool,
    pub stage: Stage,
}

impl DirectorySettings {
    /// Whether a file of this name is one of the feed's: its patterns fit, and it is no marker.
    pub fn takes(&self, name: &OsStr) -> bool {
        let is_marker = matches!(&self.complete, Completion::Marker(suffix) if name.as_encoded_bytes().ends_with(suffix.as_bytes()));
        scan::takes(&self.patterns, name) && !is_marker
    }
}

impl Completion {
    /// The marker of a file, where files have one.
    pub fn marker_of(&self, path: &Path) -> Option<PathBuf> {
        match self {
            Self::Marker(suffix) => Some(scan::marker_of(path, suffix)),
            Self::Rename | Self::Trailer | Self::Settled => None,
        }
    }
}

/// Whether an error may pass while the file stays the same.
fn is_recoverable(error: &io::Error) -> bool {
    error.kind() != io::ErrorKind::NotFound
}

/// Ends what was said about a feed's directory and files: it is no longer watched, or is about to be looked at anew.
pub fn clear_conditions(board: &Board, feed: &FeedId) {
    let of_directory = [Code::ShareMissing, Code::ShareHung, Code::DirectoryUnreadable, Code::FileListFailed, Code::QuarantineWriteFailed];
    for code in of_directory.into_iter().chain(report::CODES) {
        board.clear(code, feed.as_str());
    }
}

/// One directory feed.
#[derive(Debug)]
pub struct DirectoryFeed {
    pub feed: FeedId,
    pub settings: DirectorySettings,
    pub message_bytes_max: u64,
    pub appender: Appender,
    pub board: Arc<Board>,
    /// One permit: the feed's. Its thread has it until it ends, so that the next one (other settings, or after a failure) begins only then: two
    /// would write one list of files.
    pub turn: Arc<Semaphore>,
}

impl DirectoryFeed {
    /// Runs until `stop` is true or its sender is gone.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        loop {
            let turn = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                turn = self.my_turn() => turn,
            };
            let Some((thread, pulse, button)) = self.start(turn) else {
                tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => return,
                    () = sleep(limits::LISTENER_RETRY) => continue,
                }
            };
            let failed = self.watch(&thread, &pulse, &mut stop).await;
            pulse.stop();
            button.press();
            if !failed {
                self.wait_for_end(thread).await;
                return;
            }
            tracing::error!(feed = %self.feed, "the thread of this feed failed; its place is in the log; it is started again");
            sleep(limits::LISTENER_RETRY).await;
        }
    }

    /// Waits until the feed's former thread has ended: it may hang in a call to the share, which nobody can end.
    async fn my_turn(&self) -> OwnedSemaphorePermit {
        loop {
            if let Ok(turn) = timeout(limits::SHARE_CALL_DEADLINE, Arc::clone(&self.turn).acquire_owned()).await {
                return turn.expect("this semaphore is never closed");
            }
            let text = "a call to the share has not returned since the feed was stopped; the feed goes on when it does, the others are not touched";
            self.board.raise(Code::ShareHung, self.feed.as_str(), text);
        }
    }

    fn start(&self, turn: OwnedSemaphorePermit) -> Option<(JoinHandle<()>, Arc<Pulse>, Button)> {
        let pulse = Arc::new(Pulse::default());
        clear_conditions(&self.board, &self.feed);
        let report = Report::new(Arc::clone(&self.board), self.feed.clone(), self.settings.name_in_events);
        let worker = Worker::new(
            self.feed.clone(),
            self.settings.clone(),
            SplitLimits::new(self.message_bytes_max),
            self.appender.clone(),
            self.board.feed(&self.feed),
            Arc::clone(&pulse),
            report,
        );
        let started = Button::new().and_then(|button| {
            let bell = Doorbell::new(button.clone());
            let thread = std::thread::Builder::new().name("files".into()).spawn(move || {
                worker.run(bell);
                drop(turn);
            })?;
            Ok((thread, button))
        });
        match started {
            Ok((thread, button)) => Some((thread, pulse, button)),
            Err(error) => {
                let text = format!("the thread of this feed cannot be started: {error}; it is tried again");
                self.board.raise(Code::DirectoryUnreadable, self.feed.as_str(), text);
                None
            }
        }
    }

    /// Returns when the feed is to stop (false) or its thread has ended by itself (true).
    async fn watch(&self, thread: &JoinHandle<()>, pulse: &Pulse, stop: &mut watch::Receiver<bool>) -> bool {
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return false,
                () = sleep(limits::SHARE_WATCH_INTERVAL) => {}
            }
            if thread.is_finished() {
                return true;
            }
            match pulse.hangs_in(limits::SHARE_CALL_DEADLINE) {
                None => self.board.clear(Code::ShareHung, self.feed.as_str()),
                Some((what, elapsed)) => {
                    let text = format!(
                        "{what} has not returned for {} s; the share does not answer, this feed waits, the others do not",
                        elapsed.as_secs() / 60 * 60
                    );
                    self.board.raise(Code::ShareHung, self.feed.as_str(), text);
                }
            }
        }
    }

    async fn wait_for_end(&self, thread: JoinHandle<()>) {
        let deadline = Instant::now() + limits::SOURCE_STOP_DEADLINE;
        while !thread.is_finished() {
            if Instant::now() > deadline {
                tracing::warn!(feed = %self.feed, "the thread of this feed does not end; what it stored is durable, the rest is read again");
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}
