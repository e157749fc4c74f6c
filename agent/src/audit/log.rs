//! The files of the audit log below `<spool>/audit`, through the spool's disk seam.
//!
//! ```text
//! 0000000000000001.log   records as lines, then zeroes; named by the number of its first record; AUDIT_SEGMENT_BYTES, allocated whole
//! spare                  blocks for the next segment, used where the disk is full
//! fresh                  a file on its way to its name: synced, then renamed
//! sent                   up to which record the broker has them
//! 00….damaged            a segment as it was found, where records in it could not be read
//! ```
//!
//! - A record is written behind the last one and synced before [`Log::append`] returns. After a failed write or sync the segment is never written
//!   again; the next begins with the number that failed, and what the old one holds from that number on never counts.
//! - A start reads everything. What is not a record at the end was being written when the power went: nothing was done on the strength of it, it is
//!   cut, and a record says how much it was. What is not a record in front of others is damage: the numbers that are missing are named.
//! - The last segment is copied to a new file at each start: what a killed process wrote may stand in the page cache only, and whether it could be
//!   synced is not known.
//! - The segment with the oldest records goes when there are more than `AUDIT_SEGMENTS_MAX`; if the broker has not all of it, a record of that range
//!   is durable before.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::chain::{Draft, genesis, read_line, seal};
use super::verify::{DROPPED, Verdict, Verifier};
use crate::contract::{Audit, AuditStage};
use crate::limits::{AUDIT_SEGMENT_BYTES, AUDIT_SEGMENTS_MAX};
use crate::record::{Digest, Incarnation, Name};
use crate::spool::disk::{Disk, DiskFile};

pub const DIRECTORY: &str = "audit";
const ENDING: &str = ".log";
const SPARE: &str = "spare";
const FRESH: &str = "fresh";
const SENT: &str = "sent";

/// What went wrong, where.
#[derive(Debug, thiserror::Error)]
#[error("{what} {} failed: {source}", path.display())]
pub struct LogError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
    let path = path.to_owned();
    move |source| LogError { what, path, source }
}

/// What a start found wrong, for the log, the board and a record each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// So many bytes at the end were no record.
    Torn { bytes: usize },
    /// These records cannot be read.
    Damaged { first: u64, last: u64 },
    /// This intent has no outcome.
    InDoubt { n: u64, what: String, who: String, subject: String },
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
    sent: u64,
    /// What the newest record of a revision says.
    revision: String,
    segments_max: usize,
}

/// Pieces of a segment that should be records: lines, and what stands between zeroes.
fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n' || *byte == 0).filter(|piece| !piece.is_empty())
}

fn name(first: u64) -> String {
    format!("{first:016}{ENDING}")
}

fn segments(names: &[String]) -> BTreeSet<u64> {
    names.iter().filter_map(|name| name.strip_suffix(ENDING)?.parse().ok()).collect()
}

fn read_file(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open_read(path)?;
    let len = usize::try_from(file.len()?.min(2 * AUDIT_SEGMENT_BYTES)).expect("small");
    let mut bytes = vec![0; len];
    let n = file.read_at(0, &mut bytes)?;
    bytes.truncate(n);
    Ok(bytes)
}

/// What the records on disk say, walked from the oldest.
#[derive(Default)]
struct Walk {
    last: Option<Audit>,
    open: BTreeMap<u64, Audit>,
    told: BTreeSet<String>,
    revision: String,
    found: Vec<Found>,
    /// Bytes that are no record, with nothing behind them yet.
    pending: usize,
    /// Of the segment that is walked: lines of its records, and whether anything in it was none.
    lines: Vec<u8>,
    is_damaged: bool,
}

impl Walk {
    fn segment(&mut self, bytes: &[u8], gateway: &Name, end: Option<u64>) {
        (self.lines, self.is_damaged) = (Vec::new(), false);
        for piece in pieces(bytes) {
            let expected = self.last.as_ref().map_or(0, |last| last.n) + 1;
            match read_line(piece) {
                // Not acknowledged to anybody: the next segment has the record of this number.
                Ok(audit) if end.is_some_and(|end| audit.n >= end) => {}
                Ok(audit)
                    if audit.gateway == *gateway
                        && audit.n >= expected
                        && self.last.as_ref().is_none_or(|last| last.chain == audit.chain) =>
                {
                    if audit.n > expected && self.last.is_some() {
                        self.found.push(Found::Damaged { first: expected, last: audit.n - 1 });
                        self.is_damaged = true;
                    }
                    self.pending = 0;
                    self.lines.extend_from_slice(piece);
                    self.lines.push(b'\n');
                    self.record(audit);
                }
                _ => {
                    self.pending += piece.len();
                    self.is_damaged = true;
                }
            }
        }
    }

    fn record(&mut self, audit: Audit) {
        match (audit.stage, audit.of) {
            (AuditStage::Intent, _) => {
                self.open.insert(audit.n, audit.clone());
            }
            (AuditStage::Outcome, Some(of)) => {
                self.open.remove(&of);
            }
            _ => {}
        }
        if audit.what == DAMAGED {
            self.told.insert(audit.subject.clone());
        }
        if audit.what.starts_with(REVISION) {
            self.revision = format!("{} {}", audit.what, audit.subject);
        }
        self.last = Some(audit);
    }
}

/// Records of what became of a revision of the configuration begin so.
pub const REVISION: &str = "revision_";

/// The record of damage that a start found.
const DAMAGED: &str = "audit_damaged";

impl Log {
    /// Opens what is there, or begins a log in this incarnation. `Found` is already in the log where it could be written.
    pub fn open(disk: Arc<dyn Disk>, spool: &Path, gateway: &Name, incarnation: Incarnation) -> Result<(Self, Vec<Found>), LogError> {
        let directory = spool.join(DIRECTORY);
        disk.create_dir(&directory).map_err(failed("making", &directory))?;
        disk.sync_dir(spool).map_err(failed("syncing", spool))?;
        let names = disk.list(&directory).map_err(failed("listing", &directory))?;
        let segments = segments(&names);
        let mut walk = Walk::default();
        let mut firsts = segments.iter().copied().peekable();
        while let Some(first) = firsts.next() {
            let path = directory.join(name(first));
            let bytes = read_file(&*disk, &path).map_err(failed("reading", &path))?;
            walk.segment(&bytes, gateway, firsts.peek().copied());
        }
        let (chain, next, prev) = match &walk.last {
            Some(last) => (last.chain, last.n + 1, last.digest),
            None => (incarnation, 1, genesis(gateway, incarnation)),
        };
        let segments_max = AUDIT_SEGMENTS_MAX;
        let gateway = gateway.clone();
        let mut log =
            Self { disk, directory, gateway, chain, segments, current: None, next, prev, sent: 0, revision: String::new(), segments_max };
        log.revision = std::mem::take(&mut walk.revision);
        log.sent = log.read_sent();
        if log.sent > log.last() {
            // The hub has them, so their numbers are not given again.
            walk.found.push(Found::Damaged { first: log.next, last: log.sent });
            (walk.pending, walk.is_damaged) = (0, true);
            log.next = log.sent + 1;
        }
        log.settle(&walk)?;
        let found = log.tell(walk)?;
        Ok((log, found))
    }

    /// The last segment as a file that was never written before.
    fn settle(&mut self, walk: &Walk) -> Result<(), LogError> {
        let Some(last) = self.segments.last().copied() else { return Ok(()) };
        let path = self.directory.join(name(last));
        if walk.is_damaged {
            // For whoever wants to know what it was; the log goes on without it.
            if let Err(error) = self.keep_aside(&path, last) {
                tracing::debug!(%error, "a damaged segment of the audit log could not be kept aside");
            }
        }
        if walk.lines.is_empty() && walk.last.is_none() {
            // Nothing in it ever was a record.
            self.disk.remove(&path).map_err(failed("removing", &path))?;
            self.segments.remove(&last);
            return self.settle(walk);
        }
        let file = self.fresh(&walk.lines)?;
        self.put(FRESH, &path)?;
        self.current = Some(Current { file, used: walk.lines.len() as u64 });
        Ok(())
    }

    fn keep_aside(&self, path: &Path, first: u64) -> io::Result<()> {
        let bytes = read_file(&*self.disk, path)?;
        let aside = self.directory.join(format!("{first:016}.damaged"));
        // The newest of that name counts.
        match self.disk.remove(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.disk.create(&aside, bytes.len() as u64)?;
        file.write_at(0, &bytes)?;
        file.sync_data()
    }

    /// A record of each thing that was found, once.
    fn tell(&mut self, walk: Walk) -> Result<Vec<Found>, LogError> {
        let Walk { mut found, open, told, pending, last, .. } = walk;
        if last.is_none() {
            self.write(Draft::new(AuditStage::Fact, "siteward", "audit_begun", "", "the first record of this log"))?;
        }
        found.retain(|one| !matches!(one, Found::Damaged { first, last } if told.contains(&format!("{first}-{last}"))));
        if pending > 0 {
            found.push(Found::Torn { bytes: pending });
        }
        found.extend(open.into_values().map(|Audit { n, what, who, subject, .. }| Found::InDoubt { n, what, who, subject }));
        for one in &found {
            let draft = match one {
                Found::Torn { bytes } => {
                    let text = format!(
                        "{bytes} bytes at the end were no whole record and were cut; nothing had been done on the strength of them"
                    );
                    Draft::new(AuditStage::Fact, "siteward", "audit_torn", "", &text)
                }
                Found::Damaged { first, last } => {
                    let text = "these records cannot be read any more; what was sent of them is at the hub";
                    Draft::new(AuditStage::Fact, "siteward", DAMAGED, &format!("{first}-{last}"), text)
                }
                Found::InDoubt { n, what, who, subject } => {
                    let text = "the agent ended before it wrote what became of it: it may have been done or not";
                    let draft = Draft::new(AuditStage::Outcome, who, &format!("{what}_in_doubt"), subject, text);
                    Draft { of: Some(*n), ..draft }
                }
            };
            self.write(draft)?;
        }
        Ok(found)
    }

    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// The number of the newest record.
    pub fn last(&self) -> u64 {
        self.next - 1
    }

    /// Writes a record; durable when this returns. Its number, and the range that had to go unsent to make room.
    pub fn append(&mut self, draft: Draft) -> Result<(u64, Option<(u64, u64)>), LogError> {
        let n = self.write(draft)?;
        Ok((n, self.make_room()?))
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
        let file = self.fresh(&[])?;
        let path = self.directory.join(name(n));
        self.put(FRESH, &path)?;
        self.segments.insert(n);
        if let Err(error) = self.disk.create(&self.directory.join(SPARE), AUDIT_SEGMENT_BYTES)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            tracing::debug!(%error, "no spare segment of the audit log could be made; it is tried again with the next");
        }
        Ok(Current { file, used: 0 })
    }

    /// A new file with these bytes, synced; from the spare where the disk is full.
    fn fresh(&self, lines: &[u8]) -> Result<Box<dyn DiskFile>, LogError> {
        let path = self.directory.join(FRESH);
        match self.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("removing", &path)(error)),
            _ => {}
        }
        let made = self.disk.create(&path, AUDIT_SEGMENT_BYTES).or_else(|error| {
            let spare = self.directory.join(SPARE);
            self.disk.rename(&spare, &path).and_then(|()| self.disk.open(&path)).map_err(|_| error)
        });
        let file = made.map_err(failed("making", &path))?;
        file.write_at(0, lines).and_then(|()| file.sync_data()).map_err(failed("writing", &path))?;
        Ok(file)
    }

    fn put(&self, from: &str, to: &Path) -> Result<(), LogError> {
        let from = self.directory.join(from);
        self.disk.rename(&from, to).map_err(failed("renaming", &from))?;
        self.disk.sync_dir(&self.directory).map_err(failed("syncing", &self.directory))
    }

    fn make_room(&mut self) -> Result<Option<(u64, u64)>, LogError> {
        let mut given_up = None;
        while self.segments.len() > self.segments_max {
            let mut firsts = self.segments.iter().copied();
            let (oldest, next) = (firsts.next().expect("more than some"), firsts.next().expect("more than one"));
            if next - 1 > self.sent {
                let (first, last) = (oldest.max(self.sent + 1), next - 1);
                let text = "the log is full and the hub's broker took none of these; they were given up to make room";
                self.write(Draft::new(AuditStage::Fact, "siteward", DROPPED, &format!("{first}-{last}"), text))?;
                given_up = Some((first, last));
            }
            let path = self.directory.join(name(oldest));
            self.disk.remove(&path).map_err(failed("removing", &path))?;
            self.segments.remove(&oldest);
        }
        Ok(given_up)
    }

    // ---- reading ----

    /// Records from `first` on, at most `most`, as lines.
    pub fn read(&self, first: u64, most: usize) -> Result<Vec<(u64, String)>, LogError> {
        let begin = self.segments.range(..=first).next_back().or_else(|| self.segments.first()).copied().unwrap_or(0);
        let mut out = Vec::new();
        let mut firsts = self.segments.range(begin..).copied().peekable();
        while let Some(segment) = firsts.next() {
            let path = self.directory.join(name(segment));
            let bytes = read_file(&*self.disk, &path).map_err(failed("reading", &path))?;
            let end = firsts.peek().copied().unwrap_or(self.next).min(self.next);
            for piece in pieces(&bytes) {
                let Ok(audit) = read_line(piece) else { continue };
                if audit.n >= first && audit.n < end && out.len() < most && out.last().is_none_or(|(n, _)| *n < audit.n) {
                    out.push((audit.n, String::from_utf8_lossy(piece).into_owned()));
                }
            }
            if out.len() >= most {
                break;
            }
        }
        Ok(out)
    }

    // ---- what the broker has ----

    fn read_sent(&self) -> u64 {
        let Ok(bytes) = read_file(&*self.disk, &self.directory.join(SENT)) else { return 0 };
        let text = String::from_utf8_lossy(&bytes);
        let mut words = text.split_whitespace();
        let is_ours = words.next() == Some(self.chain.to_string().as_str());
        words.next().and_then(|n| n.parse().ok()).filter(|_| is_ours).unwrap_or(0)
    }

    /// The broker has all up to `n`. Where that cannot be written they go again after a restart.
    pub fn was_sent(&mut self, n: u64) -> Result<(), LogError> {
        self.sent = self.sent.max(n.min(self.last()));
        let text = format!("{} {}\n", self.chain, self.sent);
        let path = self.directory.join("sent.new");
        match self.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("removing", &path)(error)),
            _ => {}
        }
        let file = self.disk.create(&path, text.len() as u64).map_err(failed("making", &path))?;
        file.write_at(0, text.as_bytes()).and_then(|()| file.sync_data()).map_err(failed("writing", &path))?;
        self.put("sent.new", &self.directory.join(SENT))
    }
}

/// All records as they lie there; nothing is written, so an agent may run.
pub fn look(disk: &dyn Disk, spool: &Path) -> Result<Vec<String>, LogError> {
    let directory = spool.join(DIRECTORY);
    let names = match disk.list(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        names => names.map_err(failed("listing", &directory))?,
    };
    let mut lines = Vec::new();
    let all = segments(&names);
    let mut firsts = all.iter().copied().peekable();
    while let Some(first) = firsts.next() {
        let path = directory.join(name(first));
        let bytes = read_file(disk, &path).map_err(failed("reading", &path))?;
        for piece in pieces(&bytes) {
            let end = firsts.peek().copied().unwrap_or(u64::MAX);
            if !read_line(piece).is_ok_and(|audit| audit.n >= end) {
                lines.push(String::from_utf8_lossy(piece).into_owned());
            }
        }
    }
    Ok(lines)
}

/// Whether they are whole.
pub fn verify<'a>(lines: impl IntoIterator<Item = &'a String>) -> Verdict {
    let mut verifier = Verifier::default();
    for (index, line) in lines.into_iter().enumerate() {
        let place = || format!("line {} of the log", index + 1);
        let value = serde_json::from_str(line).unwrap_or(serde_json::Value::Bool(false));
        verifier.take(&value, place);
    }
    verifier.verdict()
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
