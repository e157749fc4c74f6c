//! The handle by which the rest of the agent writes audit records: an intent before, an outcome after, or what happened.
//!
//! Blocking: a record is on disk when a call returns. Inside a runtime with several threads the call makes way for others by itself.
//! A log that cannot be opened or written does not keep the agent from starting: each call tries again, and `audit_write_failed` stands until one
//! succeeds.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;
use tokio::task::block_in_place;

use super::chain::Draft;
use super::log::{Found, Log, LogError, Snapshot, dropped_sentence, holds, lying};
use super::verify::Verdict;
use super::walk::REVISION;
use crate::contract::AuditStage;
use crate::limits::{AUDIT_OWED_MAX, AUDIT_PAGE, AUDIT_VERIFY_KEPT};
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

impl Place {
    fn owe(&mut self, draft: Draft) {
        if self.owed.len() < AUDIT_OWED_MAX { self.owed.push_back(draft) } else { self.uncounted += 1 }
    }
}

#[derive(Debug)]
struct Inner {
    disk: Arc<dyn Disk>,
    spool: PathBuf,
    gateway: Name,
    incarnation: Incarnation,
    board: Arc<Board>,
    place: Mutex<Place>,
    /// What was found last, and when. Held while it is looked for, so that one looks at a time; never together with `place`.
    verified: Mutex<Option<(Instant, Verdict)>>,
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
        let book = Self(Arc::new(Inner {
            disk,
            spool: spool.to_owned(),
            gateway,
            incarnation,
            board,
            place,
            verified: Mutex::default(),
            written,
            sent,
        }));
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

    /// What was opened is opened anew: as after a disk that went and came.
    #[cfg(test)]
    pub fn forget(&self) {
        self.place().log = None;
    }

    /// As if the broker had all of it.
    #[cfg(test)]
    pub fn all_sent(&self) {
        self.was_sent(self.standing().0);
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
            if let Some(doubt) = log.doubt() {
                inner.board.raise(Code::AuditIncomplete, "", doubt);
            }
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
                Found::Foreign { segment, records } => {
                    tracing::error!(segment, records, "records that are none of it were found in the audit log");
                    let text =
                        format!("{records} records that are none of it were found in the audit log, in the file of record {segment}");
                    self.0.board.raise(Code::AuditIncomplete, "", text);
                }
                Found::Aside(aside) => {
                    tracing::error!("{}", aside.sentence());
                    if aside.is_unsent() {
                        self.0.board.raise(Code::AuditIncomplete, "", aside.sentence());
                    }
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
        if let Some(ranges) = given_up {
            tracing::error!(%ranges, "audit records were given up unsent, to make room");
            self.0.board.raise(Code::AuditIncomplete, "", dropped_sentence(&ranges));
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
        self.write(draft.clone()).map_err(|_| self.place().owe(draft)).ok()
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
        let is_news = blocking(|| self.place().log.as_ref().is_none_or(|log| log.revision() != format!("{what} {revision}")));
        if is_news {
            self.note(who, &what, revision, reason);
        }
    }

    /// An override that a start found: what set it may be in no record. Said once, also over restarts.
    pub fn note_holds(&self, subject: &str, reason: &str) {
        let draft = holds("siteward", subject, reason);
        blocking(|| {
            let mut place = self.place();
            let outcome = self.settle(&mut place).and_then(|()| {
                let log = place.log.as_mut().expect("it was opened above");
                log.append_once(draft.clone())?;
                self.0.written.send_replace(log.last());
                Ok(())
            });
            self.told(&mut place, &outcome);
            if outcome.is_err() {
                place.owe(draft);
            }
        });
    }

    // ---- reading ----

    /// What there is to read now; it is read without keeping anybody from writing.
    fn snapshot(&self) -> Result<Snapshot, LogError> {
        let open = blocking(|| self.place().log.as_ref().map(Log::snapshot));
        open.map_or_else(|| lying(Arc::clone(&self.0.disk), &self.0.spool), Ok)
    }

    /// Records from `first` on, at most a page.
    pub fn page(&self, first: u64) -> Result<Vec<(u64, String)>, String> {
        let snapshot = self.snapshot().map_err(|error| error.to_string())?;
        blocking(|| snapshot.page(first, AUDIT_PAGE)).map_err(|error| error.to_string())
    }

    /// The number of the newest record, and up to which the broker has them.
    pub fn standing(&self) -> (u64, u64) {
        (*self.0.written.borrow(), *self.0.sent.borrow())
    }

    /// All of it, read from the disk; what was found some seconds ago is told again.
    pub fn verify(&self) -> Result<Verdict, String> {
        blocking(|| {
            let mut verified = self.0.verified.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, verdict)) = verified.as_ref().filter(|(at, _)| at.elapsed() < AUDIT_VERIFY_KEPT) {
                return Ok(verdict.clone());
            }
            let verdict = self.snapshot().and_then(|snapshot| snapshot.verdict()).map_err(|error| error.to_string())?;
            *verified = Some((Instant::now(), verdict.clone()));
            Ok(verdict)
        })
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
#[path = "book_tests.rs"]
mod tests;
