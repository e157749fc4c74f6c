//! The handle by which the rest of the agent writes audit records: an intent before, an outcome after, or what happened.
//!
//! Blocking: a record is on disk when a call returns. Inside a runtime with several threads the call makes way for others by itself.
//! A log that cannot be opened or written does not keep the agent from starting: each call tries again, and `audit_write_failed` stands until one
//! succeeds.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;
use tokio::task::block_in_place;

use super::chain::Draft;
use super::log::{Found, Log, LogError, REVISION, look, verify};
use super::verify::Verdict;
use crate::contract::AuditStage;
use crate::limits::{AUDIT_OWED_MAX, AUDIT_PAGE};
use crate::record::{Incarnation, Name};
use crate::spool::disk::Disk;
use crate::status::board::Board;
use crate::status::condition::Code;

/// An action whose intent is on disk (or owed, where it may go on without); it ends with [`Book::end`].
#[derive(Debug)]
#[must_use = "what became of it has to be written too"]
pub struct Intent {
    n: Option<u64>,
    who: String,
    what: String,
    subject: String,
}

/// Where records go.
#[derive(Debug)]
struct Place {
    log: Option<Log>,
    /// Done all the same while the disk did not take them.
    owed: VecDeque<Draft>,
    uncounted: u64,
    is_failing: bool,
}

#[derive(Debug)]
struct Inner {
    disk: Arc<dyn Disk>,
    spool: PathBuf,
    gateway: Name,
    incarnation: Incarnation,
    board: Arc<Board>,
    place: Mutex<Place>,
    /// The newest record, and up to which the broker has them.
    written: watch::Sender<u64>,
    sent: watch::Sender<u64>,
}

/// See the module's documentation. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Book(Arc<Inner>);

/// Without keeping other tasks of this thread waiting.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => block_in_place(work),
        _ => work(),
    }
}

impl Book {
    pub fn open(disk: Arc<dyn Disk>, spool: &Path, gateway: Name, incarnation: Incarnation, board: Arc<Board>) -> Self {
        let place = Mutex::new(Place { log: None, owed: VecDeque::new(), uncounted: 0, is_failing: false });
        let (written, sent) = (watch::channel(0).0, watch::channel(0).0);
        let book = Self(Arc::new(Inner { disk, spool: spool.to_owned(), gateway, incarnation, board, place, written, sent }));
        book.catch_up();
        book
    }

    /// Of a rig: a log in a directory of its own that goes with the process.
    #[cfg(test)]
    pub fn of_rig(board: &Arc<Board>) -> Self {
        let directory = tempfile::tempdir().expect("a directory").keep();
        let gateway = Name::new("gw1").expect("a name");
        Self::open(Arc::new(crate::spool::disk::RealDisk), &directory, gateway, Incarnation([9; 16]), Arc::clone(board))
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.0.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the log where that is still to be done, and writes what is owed.
    pub(super) fn catch_up(&self) {
        blocking(|| {
            let mut place = self.place();
            let outcome = self.settle(&mut place);
            self.told(&mut place, &outcome);
        });
    }

    fn settle(&self, place: &mut Place) -> Result<(), LogError> {
        let inner = &self.0;
        if place.log.is_none() {
            let (log, found) = Log::open(Arc::clone(&inner.disk), &inner.spool, &inner.gateway, inner.incarnation)?;
            self.tell_found(&found);
            inner.sent.send_replace(log.sent());
            inner.written.send_replace(log.last());
            place.log = Some(log);
        }
        while let Some(draft) = place.owed.front().cloned() {
            self.append(place, draft)?;
            place.owed.pop_front();
        }
        if place.uncounted > 0 {
            let text = format!("{} records more could not be written while the disk did not take them", place.uncounted);
            self.append(place, Draft::new(AuditStage::Fact, "siteward", "audit_unwritten", "", &text))?;
            place.uncounted = 0;
        }
        Ok(())
    }

    fn tell_found(&self, found: &[Found]) {
        for one in found {
            match one {
                Found::Torn { bytes } => tracing::warn!(bytes, "the end of the audit log was torn and was cut"),
                Found::Damaged { first, last } => {
                    tracing::error!(first, last, "records of the audit log cannot be read any more");
                    let text =
                        format!("records {first} to {last} of the audit log cannot be read any more; what was sent of them is at the hub");
                    self.0.board.raise(Code::AuditIncomplete, "", text);
                }
                Found::InDoubt { n, what, who, .. } => {
                    tracing::warn!(n, what, who, "an action has no outcome in the audit log: it is in doubt");
                }
            }
        }
    }

    fn append(&self, place: &mut Place, draft: Draft) -> Result<u64, LogError> {
        let log = place.log.as_mut().expect("it was opened above");
        let (n, given_up) = log.append(draft)?;
        if let Some((first, last)) = given_up {
            tracing::error!(first, last, "audit records were given up unsent, to make room");
            let text = format!("the audit log is full and the hub's broker takes none: records {first} to {last} were given up unsent");
            self.0.board.raise(Code::AuditIncomplete, "", text);
        }
        self.0.written.send_replace(log.last());
        Ok(n)
    }

    /// Condition and log, where that changed.
    fn told(&self, place: &mut Place, outcome: &Result<(), LogError>) {
        match outcome {
            Err(error) => {
                if !place.is_failing {
                    tracing::error!("audit records cannot be written: {error}");
                }
                let text = format!("audit records cannot be written ({error}); what asks for one is refused, except overrides");
                self.0.board.raise(Code::AuditWriteFailed, "", text);
            }
            Ok(()) if place.is_failing => {
                tracing::info!("audit records can be written again");
                self.0.board.clear(Code::AuditWriteFailed, "");
            }
            Ok(()) => {}
        }
        place.is_failing = outcome.is_err();
    }

    fn write(&self, draft: Draft) -> Result<u64, LogError> {
        blocking(|| {
            let mut place = self.place();
            let mut n = 0;
            let outcome = self.settle(&mut place).and_then(|()| self.append(&mut place, draft)).map(|written| n = written);
            self.told(&mut place, &outcome);
            outcome.map(|()| n)
        })
    }

    /// Written as soon as the disk takes it.
    fn write_or_owe(&self, draft: Draft) -> Option<u64> {
        self.write(draft.clone())
            .map_err(|_| {
                let mut place = self.place();
                if place.owed.len() < AUDIT_OWED_MAX { place.owed.push_back(draft) } else { place.uncounted += 1 }
            })
            .ok()
    }

    /// Writes that this is about to be done. An error: it must not be.
    pub fn begin(&self, who: &str, what: &str, subject: &str, reason: &str) -> Result<Intent, String> {
        let n = self.write(Draft::new(AuditStage::Intent, who, what, subject, reason)).map_err(|error| {
            format!(
                "nothing was done, since the audit record of it cannot be written ({error}); mend the disk of the spool, then ask again"
            )
        })?;
        Ok(Intent { n: Some(n), who: who.to_owned(), what: what.to_owned(), subject: subject.to_owned() })
    }

    /// The same for what must not wait for a disk.
    pub fn begin_anyway(&self, who: &str, what: &str, subject: &str, reason: &str) -> Intent {
        let n = self.write_or_owe(Draft::new(AuditStage::Intent, who, what, subject, reason));
        Intent { n, who: who.to_owned(), what: what.to_owned(), subject: subject.to_owned() }
    }

    /// What became of it: `<what>_done` or `<what>_failed`.
    pub fn end(&self, intent: Intent, is_done: bool, text: &str) {
        let Intent { n, who, what, subject } = intent;
        let what = format!("{what}_{}", if is_done { "done" } else { "failed" });
        let draft = Draft::new(AuditStage::Outcome, &who, &what, &subject, text);
        // Owed where the disk does not take it; after a kill the intent is in doubt.
        self.write_or_owe(Draft { of: n, ..draft });
    }

    /// What happened.
    pub fn note(&self, who: &str, what: &str, subject: &str, reason: &str) {
        self.write_or_owe(Draft::new(AuditStage::Fact, who, what, subject, reason));
    }

    /// What became of a revision of the configuration; said once, also over restarts.
    pub fn note_revision(&self, who: &str, outcome: &str, revision: &str, reason: &str) {
        let what = format!("{REVISION}{outcome}");
        if self.place().log.as_ref().is_none_or(|log| log.revision() != format!("{what} {revision}")) {
            self.note(who, &what, revision, reason);
        }
    }

    // ---- reading ----

    /// Records from `first` on, at most a page.
    pub fn page(&self, first: u64) -> Result<Vec<(u64, String)>, String> {
        blocking(|| {
            let place = self.place();
            let log =
                place.log.as_ref().ok_or_else(|| "the audit log cannot be opened; see the condition audit_write_failed".to_owned())?;
            log.read(first, AUDIT_PAGE).map_err(|error| error.to_string())
        })
    }

    /// The number of the newest record, and up to which the broker has them.
    pub fn standing(&self) -> (u64, u64) {
        (*self.0.written.borrow(), *self.0.sent.borrow())
    }

    /// All of it, read from the disk.
    pub fn verify(&self) -> Result<Verdict, String> {
        let _nobody_writes = self.place();
        let lines = look(&*self.0.disk, &self.0.spool).map_err(|error| error.to_string())?;
        Ok(verify(&lines))
    }

    // ---- the way to the hub ----

    pub fn watch_written(&self) -> watch::Receiver<u64> {
        self.0.written.subscribe()
    }

    pub fn watch_sent(&self) -> watch::Receiver<u64> {
        self.0.sent.subscribe()
    }

    /// The broker has all up to `n`.
    pub(super) fn was_sent(&self, n: u64) {
        blocking(|| {
            let mut place = self.place();
            if let Some(log) = place.log.as_mut()
                && let Err(error) = log.was_sent(n)
            {
                tracing::debug!(%error, "how far the audit log was sent could not be written; after a restart some go twice");
            }
        });
        self.0.sent.send_replace(n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::disk::RealDisk;

    fn book(spool: &Path, board: &Arc<Board>) -> Book {
        Book::open(Arc::new(RealDisk), spool, Name::new("gw1").unwrap(), Incarnation([1; 16]), Arc::clone(board))
    }

    fn texts(book: &Book) -> Vec<String> {
        book.page(1).unwrap().into_iter().map(|(_, line)| line).collect()
    }

    #[test]
    fn what_is_done_stands_between_intent_and_outcome() {
        let (spool, board) = (tempfile::tempdir().unwrap(), Board::new([]));
        let book = book(spool.path(), &board);
        let intent = book.begin("kim (uid 1000)", "pause_feed", "or-usage", "cable").unwrap();
        assert_eq!(book.standing(), (2, 0), "it is on disk before anything is done");
        book.end(intent, true, "it is paused");
        let texts = texts(&book);
        assert!(texts[1].contains("\"stage\":\"intent\"") && texts[1].contains("cable"), "{texts:?}");
        assert!(texts[2].contains("pause_feed_done") && texts[2].contains("\"of\":2"), "{texts:?}");
        assert!(book.verify().unwrap().is_whole());
    }

    #[test]
    fn where_no_record_can_be_written_nothing_is_done_but_break_glass() {
        let (spool, board) = (tempfile::tempdir().unwrap(), Board::new([]));
        let in_the_way = spool.path().join("audit");
        std::fs::write(&in_the_way, "a file").unwrap();
        let book = book(spool.path(), &board);
        let raised = || board.conditions().iter().any(|condition| condition.code == "audit_write_failed");
        assert!(raised());
        let why = book.begin("kim", "pause_feed", "lab", "x").unwrap_err();
        assert!(why.starts_with("nothing was done") && why.contains("mend the disk"), "{why}");
        let intent = book.begin_anyway("kim", "override_set", "lab", "x");
        book.end(intent, true, "it holds");
        std::fs::remove_file(&in_the_way).unwrap();
        book.catch_up();
        assert!(!raised());
        let texts = texts(&book);
        assert!(texts.len() == 3 && texts[1].contains("override_set\"") && texts[2].contains("override_set_done"), "{texts:?}");
    }

    /// I4: a disk that is away for days does not fill the memory.
    #[test]
    fn what_is_owed_is_bounded_and_the_rest_counted() {
        let (spool, board) = (tempfile::tempdir().unwrap(), Board::new([]));
        std::fs::write(spool.path().join("audit"), "a file").unwrap();
        let book = book(spool.path(), &board);
        for _ in 0..AUDIT_OWED_MAX + 5 {
            book.note("siteward", "override_ended", "lab", "its time is over");
        }
        std::fs::remove_file(spool.path().join("audit")).unwrap();
        book.note("siteward", "override_ended", "last", "");
        let texts = texts(&book);
        assert_eq!(texts.len(), 1 + AUDIT_OWED_MAX + 2);
        assert!(texts[1 + AUDIT_OWED_MAX].contains("5 records more"), "{texts:?}");
    }
}
