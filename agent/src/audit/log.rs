//! The files of the audit log below `<spool>/audit`, through the spool's disk seam.
//!
//! ```text
//! 0000000000000001.log   records as lines, then zeroes; named by the number of its first record; AUDIT_SEGMENT_BYTES, allocated whole
//! spare                  blocks for the next segment, used where the disk is full
//! fresh                  a file on its way to its name: synced, then renamed
//! sent                   up to which record the broker has them
//! 00….damaged            a segment as it was found, where there was more in it than records and a torn end
//! ```
//!
//! - A record is written behind the last one and synced before [`Log::append`] returns. After a failed write or sync the segment is never written
//!   again; the next begins with the number that failed, and what the old one holds from that number on never counts.
//! - A start reads everything (`walk`). What is not a record at the end was being written when the power went: nothing was done on the strength of
//!   it, it is cut, and a record says how much it was. Numbers that are missing, in front of others, at either end, are named. A log of another
//!   gateway is put aside whole (`aside`).
//! - The last segment is copied to a new file at each start: what a killed process wrote may stand in the page cache only, and whether it could be
//!   synced is not known. On a full disk the copy takes the spare, then the room of what the broker has; where there is neither, or what was
//!   found could not be kept, every byte of the old file is written anew in place and synced, and the log goes on behind it.
//! - The segment with the oldest records goes when there are more than `AUDIT_SEGMENTS_MAX`; if the broker has not all of it, a record is durable
//!   before. Such a record names all that was given up and that no record the broker has names, so it may lose its forerunners.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::aside::{self, Aside};
use super::chain::{Draft, genesis, seal};
use super::files::{self, SENT, failed, name, read_file, remove_any};
pub use super::files::{DIRECTORY, LogError, Snapshot, lying, verify};
use super::ranges::Ranges;
use super::verify::{DAMAGED, DROPPED};
use super::walk::{FOREIGN, HOLDS, PUT_ASIDE, REVISION, Walk, once};
use crate::contract::{Audit, AuditStage};
use crate::limits::{
    AUDIT_DAMAGED_KEPT_MAX, AUDIT_DROPPED_RANGES_MAX, AUDIT_ONCE_MAX, AUDIT_SEGMENT_BYTES, AUDIT_SEGMENTS_MAX, AUDIT_SEGMENTS_OVER_MAX,
};
use crate::record::{Digest, Incarnation, Name};
use crate::spool::disk::{Disk, DiskFile};
use crate::spool::small;

pub(super) const SPARE: &str = "spare";
const FRESH: &str = "fresh";

/// What a start found wrong, for the log, the board and a record each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// So many bytes at the end were no record.
    Torn { bytes: usize },
    /// These records are not here, or cannot be read.
    Damaged { first: u64, last: u64 },
    /// Records in this segment that are none of this log, or not there.
    Foreign { segment: u64, records: u64 },
    /// Another log lies beside this one.
    Aside(Aside),
    /// This intent has no outcome.
    InDoubt { n: u64, what: String, who: String, subject: String },
}

impl Found {
    fn draft(&self) -> Draft {
        let fact = |what, subject: &str, text: &str| Draft::new(AuditStage::Fact, "siteward", what, subject, text);
        match self {
            Self::Torn { bytes } => {
                let text =
                    format!("{bytes} bytes at the end were no whole record and were cut; nothing had been done on the strength of them");
                fact("audit_torn", "", &text)
            }
            Self::Damaged { first, last } => {
                let text = "these records are missing or cannot be read any more; what was sent of them is at the hub";
                fact(DAMAGED, &format!("{first}-{last}"), text)
            }
            Self::Foreign { .. } => {
                let text = "whole records that are none of this log, or not of this place, were found among its records";
                fact(FOREIGN, &self.subject(), text)
            }
            Self::Aside(aside) => fact(PUT_ASIDE, &aside.directory, &aside.sentence()),
            Self::InDoubt { n, what, who, subject } => {
                let text = "the agent ended before it wrote what became of it: it may have been done or not";
                let draft = Draft::new(AuditStage::Outcome, who, &format!("{what}_in_doubt"), subject, text);
                Draft { of: Some(*n), ..draft }
            }
        }
    }

    /// Of what is told once.
    fn subject(&self) -> String {
        match self {
            Self::Foreign { segment, records } => format!("{}: {records}", name(*segment)),
            Self::Aside(aside) => aside.directory.clone(),
            _ => String::new(),
        }
    }
}

/// The newest segment, where it can be written.
#[derive(Debug)]
struct Current {
    file: Box<dyn DiskFile>,
    used: u64,
}

/// See the module's documentation. The only writer.
#[derive(Debug)]
pub struct Log {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    gateway: Name,
    chain: Incarnation,
    /// Of each segment its first record, the oldest first.
    segments: BTreeSet<u64>,
    current: Option<Current>,
    next: u64,
    prev: Digest,
    /// As the file says it: what goes unsaid because of it has to be there after a power cut.
    sent: u64,
    /// Given up without the broker having it, and the record that says so, which it has not either.
    dropped: (Ranges, u64),
    /// What the newest record of a revision says.
    revision: String,
    /// Facts that are said once.
    once: BTreeSet<String>,
    doubt: Option<String>,
    segments_max: usize,
}

impl Log {
    /// Opens what is there, or begins a log in this incarnation. `Found` is already in the log where it could be written.
    pub fn open(disk: Arc<dyn Disk>, spool: &Path, gateway: &Name, incarnation: Incarnation) -> Result<(Self, Vec<Found>), LogError> {
        let directory = aside::made(&*disk, spool)?;
        let (mut walk, mut segments) = aside::walk(&*disk, &directory)?;
        if walk.is_lost() || walk.identity.as_ref().is_some_and(|(of, _)| of != gateway) {
            aside::put_aside(&*disk, spool, &walk, &segments)?;
            (walk, segments) = aside::walk(&*disk, &directory)?;
        }
        let missing = walk.finish();
        let (chain, prev) = match &walk.last {
            Some(last) => (last.chain, last.digest),
            None => (incarnation, genesis(gateway, incarnation)),
        };
        let mut log = Self {
            disk,
            directory,
            gateway: gateway.clone(),
            chain,
            segments: segments.into_iter().collect(),
            current: None,
            next: walk.next,
            prev,
            sent: walk.sent(),
            dropped: std::mem::take(&mut walk.dropped),
            revision: std::mem::take(&mut walk.revision),
            once: std::mem::take(&mut walk.once),
            doubt: walk.doubt(),
            segments_max: AUDIT_SEGMENTS_MAX,
        };
        log.settle(&walk)?;
        let found = log.tell(walk, &missing, spool)?;
        Ok((log, found))
    }

    /// The last segment as a file that was never written before.
    fn settle(&mut self, walk: &Walk) -> Result<(), LogError> {
        let Some(last) = self.segments.last().copied() else { return Ok(()) };
        let path = self.directory.join(name(last));
        if walk.last.is_none() {
            // The first record of all was being written.
            remove_any(&*self.disk, &path)?;
            self.segments.remove(&last);
            return Ok(());
        }
        let is_kept = !walk.is_damaged || self.keep_aside(&path, last);
        self.current = Some(match is_kept.then(|| self.fresh(&walk.lines)) {
            Some(Ok(file)) => {
                self.put(&path)?;
                // The blocks of the old one are free now, for a moment at least.
                self.make_spare();
                Current { file, used: walk.lines.len() as u64 }
            }
            Some(Err(error)) if !error.is_full() => return Err(error),
            _ => self.anew(&path, walk)?,
        });
        Ok(())
    }

    /// Where no new file can be made. Every byte that counts is written again, so what an earlier sync dropped is dirty again, and synced.
    fn anew(&self, path: &Path, walk: &Walk) -> Result<Current, LogError> {
        let mut bytes = read_file(&*self.disk, path).map_err(failed("reading", path))?;
        let filled = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        // What is only torn is made nothing; what is more is left for whoever wants to know what it was.
        let end = if walk.is_damaged { filled } else { walk.end };
        bytes.resize(filled.max(end + 1), 0);
        bytes[end..].fill(0);
        let mut used = end;
        if used > 0 && bytes[used - 1] != b'\n' {
            bytes[used] = b'\n';
            used += 1;
        }
        let file = self.disk.open(path).map_err(failed("opening", path))?;
        file.write_at(0, &bytes).and_then(|()| file.sync_data()).map_err(failed("writing", path))?;
        Ok(Current { file, used: used as u64 })
    }

    /// For whoever wants to know what it was; the log goes on without it.
    fn keep_aside(&self, path: &Path, first: u64) -> bool {
        let keep = || -> io::Result<()> {
            let bytes = read_file(&*self.disk, path)?;
            let named =
                |n: usize| self.directory.join(if n == 1 { format!("{first:016}.damaged") } else { format!("{first:016}.damaged.{n}") });
            for n in 1..=AUDIT_DAMAGED_KEPT_MAX {
                match self.disk.create(&named(n), bytes.len() as u64) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    file => {
                        let file = file?;
                        file.write_at(0, &bytes)?;
                        file.sync_data()?;
                        return self.disk.sync_dir(&self.directory);
                    }
                }
            }
            Err(io::ErrorKind::AlreadyExists.into())
        };
        keep().inspect_err(|error| tracing::debug!(%error, "a damaged segment of the audit log is gone on with in its place")).is_ok()
    }

    /// A record of each thing that was found, once.
    fn tell(&mut self, walk: Walk, missing: &Ranges, spool: &Path) -> Result<Vec<Found>, LogError> {
        let Walk { open, torn, last, foreign, .. } = walk;
        if last.is_none() {
            self.write(Draft::new(AuditStage::Fact, "siteward", "audit_begun", "", "the first record of this log"))?;
        }
        let mut found: Vec<Found> = missing.list().iter().map(|&(first, last)| Found::Damaged { first, last }).collect();
        found.extend(foreign.into_iter().map(|(segment, records)| Found::Foreign { segment, records }));
        let is_told = |what: &str, subject: &str| self.once.contains(&once(what, subject));
        found.retain(|one| !is_told(FOREIGN, &one.subject()));
        found.extend(aside::untold(&*self.disk, spool, |directory| is_told(PUT_ASIDE, directory))?.into_iter().map(Found::Aside));
        if torn > 0 {
            found.push(Found::Torn { bytes: torn });
        }
        found.extend(open.into_values().map(|Audit { n, what, who, subject, .. }| Found::InDoubt { n, what, who, subject }));
        for one in &found {
            self.write(one.draft())?;
        }
        Ok(found)
    }

    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Fewer segments than `AUDIT_SEGMENTS_MAX`, for whoever wants to see it full.
    pub fn bound(&mut self, segments_max: usize) {
        self.segments_max = segments_max;
    }

    /// The number of the newest record.
    pub fn last(&self) -> u64 {
        self.next - 1
    }

    /// Why the hub cannot know yet that this log is not whole.
    pub fn doubt(&self) -> Option<String> {
        let dropped = (!self.dropped.0.is_empty()).then(|| dropped_sentence(&self.dropped.0));
        dropped.or_else(|| self.doubt.clone())
    }

    /// Writes a record; durable when this returns. Its number, and what was given up unsent where something had to go just now.
    pub fn append(&mut self, draft: Draft) -> Result<(u64, Option<Ranges>), LogError> {
        if self.segments.len() > self.segments_max + AUDIT_SEGMENTS_OVER_MAX {
            self.make_room()?;
        }
        let n = self.write(draft)?;
        // The record stands, whatever becomes of the oldest; they are tried again with the next.
        let given_up = self.make_room().inspect_err(|error| tracing::warn!(%error, "the oldest audit records could not be given up"));
        Ok((n, given_up.unwrap_or_default()))
    }

    /// Writes what is said once in a log. False: it was said.
    pub fn append_once(&mut self, draft: Draft) -> Result<Option<u64>, LogError> {
        let known = once(&draft.what, &draft.subject);
        if self.once.contains(&known) {
            return Ok(None);
        }
        let (n, _) = self.append(draft)?;
        if self.once.len() < AUDIT_ONCE_MAX {
            self.once.insert(known);
        }
        Ok(Some(n))
    }

    /// What the newest record of a revision says, and of which.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    fn write(&mut self, draft: Draft) -> Result<u64, LogError> {
        let n = self.next;
        let revision = draft.what.starts_with(REVISION).then(|| format!("{} {}", draft.what, draft.subject));
        let (mut line, digest) = seal(&self.gateway, self.chain, n, self.prev, draft);
        line.push('\n');
        let fits = |current: &Current| current.used + line.len() as u64 <= AUDIT_SEGMENT_BYTES;
        if !self.current.as_ref().is_some_and(fits) {
            self.current = Some(self.begin(n)?);
        }
        let current = self.current.as_mut().expect("it was made above");
        if let Err(source) = current.file.write_at(current.used, line.as_bytes()).and_then(|()| current.file.sync_data()) {
            self.current = None; // never again
            let path = self.directory.join(name(self.segments.last().copied().unwrap_or(n)));
            return Err(failed("writing", &path)(source));
        }
        current.used += line.len() as u64;
        (self.next, self.prev) = (n + 1, digest);
        self.revision = revision.unwrap_or(std::mem::take(&mut self.revision));
        Ok(n)
    }

    /// A segment whose first record is `n`.
    fn begin(&mut self, n: u64) -> Result<Current, LogError> {
        let path = self.directory.join(name(n));
        let file = self.fresh(&[])?;
        self.put(&path)?;
        self.segments.insert(n);
        self.make_spare();
        Ok(Current { file, used: 0 })
    }

    fn make_spare(&self) {
        if let Err(error) = self.disk.create(&self.directory.join(SPARE), AUDIT_SEGMENT_BYTES)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            tracing::debug!(%error, "no spare segment of the audit log could be made; it is tried again with the next");
        }
    }

    /// A new file with these bytes, synced; where the disk is full from the spare, or from the room of what the broker has.
    fn fresh(&mut self, lines: &[u8]) -> Result<Box<dyn DiskFile>, LogError> {
        let path = self.directory.join(FRESH);
        remove_any(&*self.disk, &path)?;
        let file = loop {
            let made = self.disk.create(&path, AUDIT_SEGMENT_BYTES).or_else(|error| {
                let spare = self.directory.join(SPARE);
                self.disk.rename(&spare, &path).and_then(|()| self.disk.open(&path)).map_err(|_| error)
            });
            match made.map_err(failed("making", &path)) {
                Ok(file) => break file,
                Err(error) if error.is_full() && self.give_up_sent()? => {}
                Err(error) => return Err(error),
            }
        };
        file.write_at(0, lines).and_then(|()| file.sync_data()).map_err(failed("writing", &path))?;
        Ok(file)
    }

    /// What was made by [`Log::fresh`] gets its name.
    fn put(&self, to: &Path) -> Result<(), LogError> {
        let from = self.directory.join(FRESH);
        self.disk.rename(&from, to).map_err(failed("renaming", &from))?;
        self.disk.sync_dir(&self.directory).map_err(failed("syncing", &self.directory))
    }

    // ---- room ----

    /// The oldest segment and the first record behind it.
    fn oldest(&self) -> Option<(u64, u64)> {
        let mut firsts = self.segments.iter().copied();
        Some((firsts.next()?, firsts.next()?))
    }

    /// Removes the oldest segment if the broker has all of it.
    fn give_up_sent(&mut self) -> Result<bool, LogError> {
        let Some((oldest, _)) = self.oldest().filter(|(_, behind)| behind - 1 <= self.sent) else { return Ok(false) };
        self.remove_segment(oldest)?;
        Ok(true)
    }

    /// Durable, so that of two that went never the older one comes back alone.
    fn remove_segment(&mut self, first: u64) -> Result<(), LogError> {
        remove_any(&*self.disk, &self.directory.join(name(first)))?;
        self.segments.remove(&first);
        self.disk.sync_dir(&self.directory).map_err(failed("syncing", &self.directory))
    }

    fn make_room(&mut self) -> Result<Option<Ranges>, LogError> {
        let mut given_up = None;
        while self.segments.len() > self.segments_max {
            let (oldest, behind) = self.oldest().expect("more than some");
            if behind - 1 > self.sent {
                self.tell_dropped(oldest.max(self.sent + 1), behind - 1)?;
                given_up = Some(self.dropped.0.clone());
            }
            self.remove_segment(oldest)?;
        }
        Ok(given_up)
    }

    fn tell_dropped(&mut self, first: u64, last: u64) -> Result<(), LogError> {
        if self.dropped.0.covers(first, last) {
            return Ok(()); // said, and then it could not be removed
        }
        let mut all = self.dropped.0.clone();
        all.add(first, last);
        all.keep_few(AUDIT_DROPPED_RANGES_MAX);
        let text = "the log is full and the hub's broker took none of these; they were given up to make room";
        let n = self.write(Draft::new(AuditStage::Fact, "siteward", DROPPED, &all.to_string(), text))?;
        self.dropped = (all, n);
        Ok(())
    }

    // ---- reading ----

    /// What there is to read now; reading it keeps nobody waiting.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            disk: Arc::clone(&self.disk),
            directory: self.directory.clone(),
            segments: self.segments.clone(),
            next: self.next,
            used: self.current.as_ref().map(|current| current.used),
            mark: Some((self.chain, self.sent)),
        }
    }

    // ---- what the broker has ----

    /// The broker has all up to `n`. Where that cannot be written they go again after a restart.
    pub fn was_sent(&mut self, n: u64) -> Result<(), LogError> {
        let sent = self.sent.max(n.min(self.last()));
        let text = format!("{} {sent}\n", self.chain);
        let path = self.directory.join(SENT);
        small::replace(&*self.disk, &self.directory.join("sent.new"), &path, text.as_bytes()).map_err(failed("replacing", &path))?;
        self.sent = sent;
        if self.dropped.1 <= sent {
            self.dropped.0 = Ranges::default();
        }
        Ok(())
    }
}

/// For people.
pub fn dropped_sentence(ranges: &Ranges) -> String {
    format!("the audit log was full and the hub's broker took none: records {ranges} were given up unsent")
}

/// A fact that is said once: an override that a start found.
pub fn holds(who: &str, subject: &str, reason: &str) -> Draft {
    Draft::new(AuditStage::Fact, who, HOLDS, subject, reason)
}

/// All records as they lie there; nothing is written, and nobody may be writing.
pub fn look(disk: Arc<dyn Disk>, spool: &Path) -> Result<Vec<String>, LogError> {
    files::lying(disk, spool)?.lines()
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
