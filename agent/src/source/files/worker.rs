//! The thread of one directory feed: scan, decide, capture, move, wait. Blocking throughout; it shares nothing with other feeds but the spool's
//! queue.
//!
//! ```text
//!   round   open the directory (mounted?) → scan → per file, in order:
//!             known at a glance ............ done before: move it, or leave it
//!             held, unreadable, unchanged .. leave it
//!             not settled .................. wait
//!             look (first pass) ............ held · refused · done before · captured next
//!           batch of files: begin → capture each → all durable → end → move
//! ```
//!
//! A round that meets an error of the spool ends there and is tried again; an error of one file concerns that file (`capture`). Files that are not complete
//! do not hold up the others, so the order is that of the complete files of one scan.

mod capture;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::doorbell::Doorbell;
use super::finish::{Finisher, Moved};
use super::memory::{self, Memory};
use super::pulse::Pulse;
use super::read::{self, Broken, Look, Reading};
use super::report::Report;
use super::scan::{self, Candidate, Found, Wanted};
use super::settle::{Seen, SettleRule, Settled};
use super::share::{self, Share};
use super::trial::Outcome;
use super::{DirectorySettings, DoneRule};
use crate::limits;
use crate::record::{FeedId, FileFingerprint};
use crate::source::split::{SplitLimits, SplitSettings, codes};
use crate::spool::Appender;
use crate::spool::filelist::KnownFile;
use crate::status::board::FeedCounters;
use crate::status::condition::Code;

/// A file that was looked at and is to be captured.
#[derive(Debug)]
pub(super) struct Chosen {
    candidate: Candidate,
    look: Look,
    known: KnownFile,
    repeated: bool,
    /// It was begun under another one than the feed's.
    split: Option<SplitSettings>,
}

/// Why a file is left alone until it changes, or until a time.
#[derive(Debug)]
struct Aside {
    seen: Seen,
    until: Option<Instant>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Worker {
    pub feed: FeedId,
    pub settings: DirectorySettings,
    pub split_limits: SplitLimits,
    pub appender: Appender,
    pub counters: Arc<FeedCounters>,
    pub pulse: Arc<Pulse>,
    pub report: Report,
    pub rule: SettleRule,
    pub finisher: Finisher,
    pub memory: Option<Memory>,
    aside: HashMap<PathBuf, Aside>,
    /// Half captured, then not as they were any more, or not readable: the next scan tells whether they changed or their share was failing.
    suspected: Vec<(PathBuf, Seen)>,
    files_done: u64,
    files_empty: u64,
}

/// What ends a round early; the round is tried again after a while.
#[derive(Debug)]
pub(super) enum Halt {
    Stopping,
    Retry(Duration),
}

impl Worker {
    pub(super) fn new(
        feed: FeedId,
        settings: DirectorySettings,
        split_limits: SplitLimits,
        appender: Appender,
        counters: Arc<FeedCounters>,
        pulse: Arc<Pulse>,
        report: Report,
    ) -> Self {
        let rule = SettleRule::new(settings.complete.clone(), settings.settle);
        let finisher = Finisher::new(&settings.complete);
        Self {
            feed,
            settings,
            split_limits,
            appender,
            counters,
            pulse,
            report,
            rule,
            finisher,
            memory: None,
            aside: HashMap::new(),
            suspected: Vec::new(),
            files_done: 0,
            files_empty: 0,
        }
    }

    /// Runs until told to stop.
    pub(super) fn run(mut self, mut bell: Doorbell) {
        while !self.pulse.is_stopping() {
            let due = match self.round(&mut bell) {
                Ok(due) => due,
                Err(Halt::Stopping) => break,
                Err(Halt::Retry(after)) => Instant::now() + after,
            };
            bell.wait(due);
        }
    }

    /// One scan and what follows from it; when the next is due.
    pub(super) fn round(&mut self, bell: &mut Doorbell) -> Result<Instant, Halt> {
        let next = Instant::now() + self.settings.scan;
        let Some((share, found)) = self.look_around(bell) else { return Ok(next) };
        self.remember()?;
        let there: HashMap<&Path, &Candidate> = found.files.iter().map(|file| (file.path.as_path(), file)).collect();
        self.rule.retain(|path| there.contains_key(path));
        self.aside.retain(|path, _| there.contains_key(path.as_path()));
        self.report.retain(|path| there.contains_key(path) || found.refused.iter().any(|refused| refused == path));
        for (path, seen) in std::mem::take(&mut self.suspected) {
            if !found.is_whole() && !there.contains_key(path.as_path()) {
                // It was not looked for everywhere.
                self.suspected.push((path, seen));
            } else if there.get(path.as_path()).is_none_or(|file| !file.stat.seen.is_as_written(seen)) {
                let text =
                    "changed or vanished while it was captured; what is there now is captured as a new file, so records may come twice";
                self.report.trouble(Code::FileChanged, &path, text);
            }
        }
        for path in &found.refused {
            if !self.report.has(Code::FileRefused, path) {
                let text = "is a symbolic link or a special file, which are never followed; put the file itself into the directory";
                self.report.trouble(Code::FileRefused, path, text);
            }
        }
        let due = self.take(&share, &found.files)?;
        // The file that waited for it may have been taken away.
        self.report.directory(Code::QuarantineWriteFailed, None);
        if let DoneRule::Move(retention) = self.settings.done {
            self.finisher.watch_moved(&share, &self.pulse, &mut self.report);
            self.finisher.retain(&share, &self.pulse, retention);
        }
        self.forget_the_gone(&found);
        Ok([Some(next), due, self.finisher.due()].into_iter().flatten().min().unwrap_or(next))
    }

    /// The directory, if it is there, mounted and readable, and what is in it.
    fn look_around(&mut self, bell: &mut Doorbell) -> Option<(Share, Found)> {
        let path = self.settings.path.clone();
        let opened = self.pulse.during("opening the directory", || Share::open(&path));
        if let Some(below) = &self.settings.require_mount {
            let mounted = self.pulse.during("looking for the mount", || share::is_mounted(&path, below));
            if !mounted.unwrap_or(false) {
                let text =
                    format!("nothing is mounted for {}; nothing is read, moved or forgotten until the share is back", path.display());
                self.report.directory(Code::ShareMissing, Some(text));
                self.try_again_when_back();
                return None;
            }
        }
        self.report.directory(Code::ShareMissing, None);
        let wanted = Wanted {
            patterns: &self.settings.patterns,
            subfolders: self.settings.subfolders,
            order: self.settings.order,
            completion: &self.settings.complete,
        };
        let looked = opened.and_then(|share| {
            bell.watch(&path, share.identity);
            let found = self.pulse.during("looking into the directory", || scan::scan(&share, &wanted))?;
            Ok((share, found))
        });
        match looked {
            Ok(looked) => {
                self.report.directory(Code::DirectoryUnreadable, self.left_out(&looked.1));
                self.counters.directory_read();
                Some(looked)
            }
            Err(error) => {
                let text = format!("{} cannot be read: {error}; it is tried again", path.display());
                self.report.directory(Code::DirectoryUnreadable, Some(text));
                self.try_again_when_back();
                None
            }
        }
    }

    /// What the scan did not look at.
    pub(super) fn left_out(&self, found: &Found) -> Option<String> {
        if let Some((folder, error)) = found.unreadable.first() {
            let others = found.unreadable.len() - 1;
            let more = if others == 0 { String::new() } else { format!(" ({others} other folders likewise)") };
            let label = self.report.label(folder);
            return Some(format!("a folder ({label}) cannot be looked into: {error}{more}; what is in it waits, the rest is captured"));
        }
        let max = limits::FILES_PER_SCAN_MAX;
        found
            .is_cut
            .then(|| format!("holds more than {max} names; only as many are looked at, the others wait; have the source clear it up"))
    }

    /// What could not be read was the share's fault as likely as not: it is not waited for once the share is back.
    fn try_again_when_back(&mut self) {
        self.aside.retain(|_, aside| aside.until.is_none());
    }

    /// Opens the list of files, or makes durable what it owes.
    fn remember(&mut self) -> Result<(), Halt> {
        let opened = match &mut self.memory {
            Some(memory) => memory.settle(),
            None => self.appender.file_list(&self.feed).and_then(|(list, notes)| {
                self.memory = Some(Memory::open(list, notes, self.appender.file_progress(&self.feed), &self.settings.split)?);
                Ok(())
            }),
        };
        match opened {
            Ok(()) => {
                self.report.directory(Code::FileListFailed, None);
                Ok(())
            }
            Err(error) => Err(self.list_failed(&error)),
        }
    }

    fn list_failed(&self, error: &std::io::Error) -> Halt {
        let text = format!("the list of files that are done cannot be written: {error}; no file is captured until it can; check the disk");
        self.report.directory(Code::FileListFailed, Some(text));
        Halt::Retry(limits::FILE_RETRY)
    }

    fn memory(&mut self) -> &mut Memory {
        self.memory.as_mut().expect("opened at the begin of the round")
    }

    /// Goes through the files in order. When something that waits is due.
    fn take(&mut self, share: &Share, files: &[Candidate]) -> Result<Option<Instant>, Halt> {
        let taken = self.take_in_order(share, files);
        // Also where the others wait, for room in the spool perhaps for days.
        if !matches!(taken, Err(Halt::Stopping)) {
            self.finisher.run(share, &self.pulse, &mut self.report);
        }
        taken
    }

    fn take_in_order(&mut self, share: &Share, files: &[Candidate]) -> Result<Option<Instant>, Halt> {
        let mut due: Option<Instant> = None;
        let mut batch: Vec<Chosen> = Vec::new();
        for file in files {
            if self.pulse.is_stopping() {
                return Err(Halt::Stopping);
            }
            if self.finisher.owes(&file.path, file.stat.seen, &mut self.report) || self.is_aside(file) {
                continue;
            }
            let glance = memory::glance(&file.path, &file.stat);
            if let Some(fingerprint) = self.memory().known_at_glance(&glance) {
                self.finish(&file.path, fingerprint, file.stat.seen);
                continue;
            }
            match self.rule.observe(&file.path, file.stat.seen, file.marker, Instant::now()) {
                Settled::Absent => continue,
                Settled::Wait(at) => {
                    due = Some(due.map_or(at, |known| known.min(at)));
                    continue;
                }
                Settled::Complete => {}
            }
            if let Some(chosen) = self.look(share, file)? {
                batch.push(chosen);
            }
            let bytes: u64 = batch.iter().map(|chosen| chosen.candidate.stat.seen.size).sum();
            if batch.len() >= limits::FILE_BATCH_MAX || bytes >= limits::FILE_BATCH_BYTES {
                self.capture(share, &std::mem::take(&mut batch))?;
            }
        }
        self.capture(share, &batch)?;
        Ok(due)
    }

    fn is_aside(&self, file: &Candidate) -> bool {
        let aside = self.aside.get(&file.path).filter(|aside| aside.seen == file.stat.seen);
        aside.is_some_and(|aside| aside.until.is_none_or(|until| Instant::now() < until))
    }

    fn put_aside(&mut self, file: &Candidate, until: Option<Instant>) {
        self.aside.insert(file.path.clone(), Aside { seen: file.stat.seen, until });
    }

    fn reading<'a>(&'a self, split: Option<&'a SplitSettings>) -> Reading<'a> {
        let split = split.unwrap_or(&self.settings.split);
        Reading { feed: &self.feed, split, limits: self.split_limits, stage: self.settings.stage, pulse: &self.pulse }
    }

    /// The first pass over a file; `Some` if it is to be captured.
    pub(super) fn look(&mut self, share: &Share, file: &Candidate) -> Result<Option<Chosen>, Halt> {
        let seen = file.stat.seen;
        let Some(mut look) = self.look_through(share, file, None)? else { return Ok(None) };
        self.report.over(Code::FileUnreadable, &file.path);
        let fingerprint = memory::fingerprint(&file.path, seen.size, seen.modified, &look.digest);
        let digest = look.digest[..16].try_into().expect("half of 32 bytes");
        let known = KnownFile { glance: memory::glance(&file.path, &file.stat), fingerprint, digest };
        if self.memory().is_done(&fingerprint) {
            self.memory().glance_again(&fingerprint, known.glance);
            self.finish(&file.path, fingerprint, file.stat.seen);
            return Ok(None);
        }
        let split = self.memory().split_of(&fingerprint);
        if let Some(split) = &split {
            let Some(again) = self.look_through(share, file, Some(split))?.filter(|again| again.digest == look.digest) else {
                return Ok(None); // it changed in between, and is another file now
            };
            look = again;
        }
        let outcome = Outcome::of(&look.verdict);
        if let Outcome::Held { code } = outcome {
            let text = format!("is held: {code}, {}; it is captured as a whole when it changes, and not before", codes::meaning(code));
            self.report.trouble(Code::FileHeld, &file.path, text);
            self.put_aside(file, None);
            return Ok(None);
        }
        self.report.over(Code::FileHeld, &file.path);
        if let Outcome::Refused(reason) = outcome {
            self.refuse(share, file, &fingerprint, &reason);
            return Ok(None);
        }
        let repeated = self.memory().knows_content(&known.digest) && seen.size > 0;
        Ok(Some(Chosen { candidate: file.clone(), look, known, repeated, split }))
    }

    fn look_through(&mut self, share: &Share, file: &Candidate, split: Option<&SplitSettings>) -> Result<Option<Look>, Halt> {
        match read::look(&self.reading(split), share, &file.path, file.stat.seen) {
            Ok(look) => Ok(Some(look)),
            Err(Broken::Stopping) => Err(Halt::Stopping),
            Err(broken) => {
                self.broke(file, &broken);
                Ok(None)
            }
        }
    }

    fn refuse(&mut self, share: &Share, file: &Candidate, fingerprint: &FileFingerprint, reason: &str) {
        let moved = match self.settings.done {
            DoneRule::Leave => Ok("it is left where it is"),
            DoneRule::Move(_) => match self.finisher.refuse(share, &self.pulse, &file.path, fingerprint, file.stat.seen, reason) {
                Ok(Moved::To(_)) => Ok("it is in failed/ with the reason beside it"),
                Ok(Moved::Replaced(_)) => return, // it is another file by now
                Err(error) => Err(error),
            },
        };
        self.put_aside(file, None);
        self.counters.refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let text = match moved {
            Ok(whereabouts) => format!("was refused, nothing of it was captured: {reason}; {whereabouts}"),
            Err(error) => format!("was refused, nothing of it was captured: {reason}; it cannot be moved to failed/: {error}"),
        };
        self.report.trouble(Code::FileRefused, &file.path, text);
    }

    /// One file could not be read through.
    fn broke(&mut self, file: &Candidate, broken: &Broken) {
        match broken {
            Broken::Io(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let text = format!("cannot be read: {error}; it is tried again every few minutes");
                self.report.trouble(Code::FileUnreadable, &file.path, text);
                self.put_aside(file, Some(Instant::now() + limits::FILE_UNREADABLE_RETRY));
            }
            // It is being written or has vanished: the next round sees it as it is then.
            _ => tracing::debug!(feed = %self.feed, "a file changed while it was read; it is left for another round"),
        }
    }

    fn forget_the_gone(&mut self, found: &Found) {
        let Some(memory) = &mut self.memory else { return };
        // What is left where it is and was not looked at is not gone, as long as there is room to remember it.
        let is_sure = found.is_whole() || self.settings.done != DoneRule::Leave;
        let max = if is_sure { limits::FILES_REMEMBERED_MAX } else { limits::FILES_REMEMBERED_UNSEEN_MAX };
        if memory.len() <= max {
            return;
        }
        let present: HashSet<[u8; 16]> = found.files.iter().map(|file| memory::glance(&file.path, &file.stat)).collect();
        if !is_sure {
            let feed = &self.feed;
            tracing::warn!(%feed, "more than {max} files that are done are remembered, and not all folders can be looked into; the oldest that \
                 were not seen are forgotten, and captured again should they be there");
        }
        if !memory.prune(&present, max) {
            let text = format!("more than {max} files that are done are still there; have them removed, or let the agent move them");
            self.report.directory(Code::DirectoryUnreadable, Some(text));
        }
    }
}
