//! A batch of files is captured: the second half of a round.
//!
//! ```text
//!   run     begin ─► capture each, up to the first that is at fault ─► all before it durable ─► end ─► they are moved
//!   batch   a run; where a file was at fault, another one with those behind it
//! ```
//!
//! A file is at fault when it changes, vanishes or cannot be read: nothing more of it is handed over, and the complete ones keep their order. An
//! error of the spool is no file's fault and ends the round: it would refuse what is behind as well.

use std::path::Path;

use super::{Chosen, Halt, Worker};
use crate::limits;
use crate::record::{FileFingerprint, FilePlace};
use crate::source::files::read::{self, Broken, Sender, Subject};
use crate::source::files::settle::Seen;
use crate::source::files::share::Share;
use crate::source::files::{DoneRule, is_recoverable};
use crate::spool::filelist::KnownFile;
use crate::spool::{AppendError, QuarantineError};
use crate::status::board::FilesView;

impl Worker {
    /// Captures a batch: see `memory` for the order of things.
    pub(in crate::source::files) fn capture(&mut self, share: &Share, batch: &[Chosen]) -> Result<(), Halt> {
        let mut rest = batch;
        while !rest.is_empty() {
            let dealt_with = self.capture_run(share, rest)?;
            rest = &rest[dealt_with..];
        }
        Ok(())
    }

    /// Captures files up to the first that is at fault. How many are dealt with, that one among them.
    fn capture_run(&mut self, share: &Share, run: &[Chosen]) -> Result<usize, Halt> {
        let progress = self.appender.file_progress(&self.feed);
        let files: Vec<KnownFile> = run.iter().map(|chosen| chosen.known).collect();
        if let Err(error) = self.memory().begin(files, progress) {
            return Err(self.list_failed(&error));
        }
        let appender = self.appender.clone();
        let mut sender = Sender::new(&appender, progress);
        let mut broken = None;
        let mut whole = 0;
        for chosen in run {
            broken = self.capture_one(share, chosen, progress, &mut sender).err();
            if broken.as_ref().is_some_and(Broken::is_of_the_file) {
                sender.forget(&chosen.known.fingerprint);
            }
            if broken.is_some() {
                break;
            }
            whole += 1;
        }
        if broken.as_ref().is_none_or(Broken::is_of_the_file)
            && let Err(error) = sender.finish()
        {
            broken = Some(error);
        }
        sender.give_up();
        let reached = self.appender.file_progress(&self.feed);
        let is_stored = broken.as_ref().is_none_or(Broken::is_of_the_file);
        let done = if is_stored { whole } else { done_of(run, progress, reached).min(whole) };
        let left = reached.filter(|place| run.get(done).is_some_and(|chosen| chosen.known.fingerprint == place.fingerprint));
        if let Err(error) = self.memory().end(done, left) {
            return Err(self.list_failed(&error));
        }
        for chosen in &run[..done] {
            self.captured(chosen);
        }
        let Some(broken) = broken else { return Ok(run.len()) };
        self.interrupted(run.get(whole), left.is_some(), &broken)?;
        Ok(whole + 1)
    }

    fn capture_one(&self, share: &Share, chosen: &Chosen, progress: Option<FilePlace>, sender: &mut Sender<'_>) -> Result<(), Broken> {
        let path = &chosen.candidate.path;
        let memory = self.memory.as_ref().expect("opened at the begin of the round");
        let (name, label) = (self.report.name(path), self.report.label(path));
        let subject = Subject {
            path,
            seen: chosen.candidate.stat.seen,
            fingerprint: chosen.known.fingerprint,
            look: &chosen.look,
            through: memory.stored_through(&chosen.known.fingerprint, progress),
            name: &name,
            label: &label,
            repeated: chosen.repeated,
        };
        let size = subject.seen.size;
        read::capture(&self.reading(chosen.split.as_ref()), share, &subject, sender, |bytes| {
            let now = Some((label.clone(), bytes, size));
            self.counters.show_files(FilesView { done: self.files_done, empty: self.files_empty, last: None, now });
        })
    }

    fn captured(&mut self, chosen: &Chosen) {
        self.files_done += 1;
        let path = &chosen.candidate.path;
        let label = self.report.label(path);
        let verdict = &chosen.look.verdict;
        tracing::debug!(feed = %self.feed, file = label, records = verdict.records, bad = verdict.bad, repeated = chosen.repeated, "captured");
        if verdict.records == 0 {
            self.files_empty += 1;
            tracing::info!(feed = %self.feed, file = label, "an empty file: there is no record in it; it is done");
        }
        self.counters.files_done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.counters.show_files(FilesView { done: self.files_done, empty: self.files_empty, last: Some(label), now: None });
        self.aside.remove(path);
        self.finish(path, chosen.known.fingerprint, chosen.candidate.stat.seen);
    }

    /// A file that is done is moved, or left.
    pub(super) fn finish(&mut self, path: &Path, fingerprint: FileFingerprint, seen: Seen) {
        if let DoneRule::Move(_) = self.settings.done {
            self.finisher.owe(path, fingerprint, seen);
        }
    }

    /// The batch ended early, at this file where it was the file's fault; `is_begun`: something of it is stored.
    fn interrupted(&mut self, at: Option<&Chosen>, is_begun: bool, broken: &Broken) -> Result<(), Halt> {
        match broken {
            Broken::Stopping | Broken::Append(AppendError::Stopping) => return Err(Halt::Stopping),
            Broken::Append(error) => {
                tracing::warn!(feed = %self.feed, "a file waits: {error}");
                return Err(Halt::Retry(limits::FILE_RETRY));
            }
            Broken::Quarantine(QuarantineError::Full) => return Err(Halt::Retry(limits::FILE_RETRY)),
            Broken::Quarantine(error) => {
                tracing::warn!(feed = %self.feed, "a file waits: {error}");
                return Err(Halt::Retry(limits::FILE_RETRY));
            }
            Broken::Changed | Broken::Io(_) => {}
        }
        let Some(chosen) = at else { return Ok(()) };
        if matches!(broken, Broken::Changed) || matches!(broken, Broken::Io(error) if !is_recoverable(error)) {
            if is_begun {
                self.suspected.push((chosen.candidate.path.clone(), chosen.candidate.stat.seen));
            }
            return Ok(());
        }
        self.broke(&chosen.candidate, broken);
        Ok(())
    }
}

/// How many files of a batch are done, from the place that was reached.
fn done_of(batch: &[Chosen], before: Option<FilePlace>, reached: Option<FilePlace>) -> usize {
    let Some(place) = reached.filter(|_| reached != before) else { return 0 };
    let at = batch.iter().position(|chosen| chosen.known.fingerprint == place.fingerprint);
    at.map_or(0, |at| at + usize::from(place.last))
}
