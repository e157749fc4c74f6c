//! The names of the log's files, and reading them: by pages, as a whole to verify, by whoever may and without keeping the writer waiting.
//!
//! A [`Snapshot`] is taken while nobody writes and read afterwards: records are only ever added behind what it knows, and a segment that went
//! meanwhile was the oldest, so what is read is a part of one history. Where no agent runs, [`lying`] takes the files as they lie.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::chain::read_line;
use super::verify::{Stands, Verdict, Verifier};
use super::walk::pieces;
use crate::limits::AUDIT_SEGMENT_BYTES;
use crate::record::Incarnation;
use crate::spool::disk::Disk;
use crate::spool::small;

pub const DIRECTORY: &str = "audit";
const ENDING: &str = ".log";
pub(super) const SENT: &str = "sent";

/// What went wrong, where.
#[derive(Debug, thiserror::Error)]
#[error("{what} {} failed: {source}", path.display())]
pub struct LogError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl LogError {
    /// There is no room on the volume, or the quota is used up.
    pub(super) fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

pub(super) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
    let path = path.to_owned();
    move |source| LogError { what, path, source }
}

pub(super) fn name(first: u64) -> String {
    format!("{first:016}{ENDING}")
}

/// Of each segment its first record.
pub(super) fn segments(names: &[String]) -> BTreeSet<u64> {
    names.iter().filter_map(|name| name.strip_suffix(ENDING)?.parse().ok()).filter(|first| *first > 0).collect()
}

pub(super) fn read_file(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open_read(path)?;
    let len = usize::try_from(file.len()?.min(2 * AUDIT_SEGMENT_BYTES)).expect("small");
    let mut bytes = vec![0; len];
    let n = file.read_at(0, &mut bytes)?;
    bytes.truncate(n);
    Ok(bytes)
}

/// Of which log the broker has records, and up to which.
pub(super) fn read_mark(disk: &dyn Disk, directory: &Path) -> Option<(Incarnation, u64)> {
    let bytes = read_file(disk, &directory.join(SENT)).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let (chain, sent) = text.trim_end_matches(['\0', '\n']).split_once(' ')?;
    Some((chain.parse().ok()?, sent.parse().ok()?))
}

/// Removes what may not be there.
pub(super) fn remove_any(disk: &dyn Disk, path: &Path) -> Result<(), LogError> {
    small::remove(disk, path).map_err(failed("removing", path))
}

/// What there was to read at a moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) directory: PathBuf,
    pub(super) segments: BTreeSet<u64>,
    /// The number of the next record; nothing from there on counts.
    pub(super) next: u64,
    /// How much of the newest segment counts, where it is written to.
    pub(super) used: Option<u64>,
    pub(super) mark: Option<(Incarnation, u64)>,
}

impl Snapshot {
    /// Pieces of the segments from `begin` on, with whether each is a record; those that a later segment has anew are left out.
    fn each(&self, begin: u64, mut take: impl FnMut(Option<u64>, &[u8]) -> bool) -> Result<(), LogError> {
        let mut firsts = self.segments.range(begin..).copied().peekable();
        while let Some(first) = firsts.next() {
            let path = self.directory.join(name(first));
            let mut bytes = match read_file(&*self.disk, &path) {
                // Given up meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                bytes => bytes.map_err(failed("reading", &path))?,
            };
            let is_last = firsts.peek().is_none();
            if let Some(used) = self.used.filter(|_| is_last) {
                bytes.truncate(usize::try_from(used).unwrap_or(usize::MAX));
            }
            let end = firsts.peek().copied().unwrap_or(self.next).min(self.next);
            let read: Vec<(Option<u64>, &[u8])> =
                pieces(&bytes).map(|(_, piece)| (read_line(piece).ok().map(|audit| audit.n), piece)).collect();
            let last = read.iter().rposition(|(n, _)| n.is_some_and(|n| n < end));
            // Where a write failed, what it left at the end is nothing: the next segment, or the next record, has its number. A record that was altered
            // at the same place leaves its number out.
            let is_cut = if is_last {
                self.next != u64::MAX && self.used.is_none()
            } else {
                last.and_then(|at| read[at].0).is_some_and(|n| n + 1 == end)
            };
            let until = if is_cut { last.map_or(0, |at| at + 1) } else { read.len() };
            for (n, piece) in &read[..until] {
                if n.is_none_or(|n| n < end) && !take(*n, piece) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Records from `first` on, at most `most`, as lines.
    pub fn page(&self, first: u64, most: usize) -> Result<Vec<(u64, String)>, LogError> {
        let begin = self.segments.range(..=first).next_back().or_else(|| self.segments.first()).copied().unwrap_or(0);
        let mut out: Vec<(u64, String)> = Vec::new();
        self.each(begin, |n, piece| {
            if let Some(n) = n.filter(|n| *n >= first && out.last().is_none_or(|(before, _)| before < n)) {
                out.push((n, String::from_utf8_lossy(piece).into_owned()));
            }
            out.len() < most
        })?;
        Ok(out)
    }

    /// All of it, and what is no record.
    pub fn lines(&self) -> Result<Vec<String>, LogError> {
        let mut lines = Vec::new();
        self.each(0, |_, piece| {
            lines.push(String::from_utf8_lossy(piece).into_owned());
            true
        })?;
        Ok(lines)
    }

    /// Whether it is whole, also at both ends.
    pub fn verdict(&self) -> Result<Verdict, LogError> {
        let mut verifier = Verifier::default();
        let begins = self.segments.first().copied().unwrap_or(1);
        let (chain, sent) = self.mark.unzip();
        verifier.stands(Stands { chain, sent: sent.unwrap_or(0), begins });
        let mut line = 0u64;
        self.each(0, |_, piece| {
            line += 1;
            verifier.take(&value(piece), || format!("line {line} of the log"))
        })?;
        Ok(verifier.verdict())
    }
}

fn value(piece: &[u8]) -> Value {
    serde_json::from_slice(piece).unwrap_or(Value::Bool(false))
}

/// The log as it lies there; nothing is written, and nobody may be writing.
pub fn lying(disk: Arc<dyn Disk>, spool: &Path) -> Result<Snapshot, LogError> {
    let directory = spool.join(DIRECTORY);
    let names = match disk.list(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        names => names.map_err(failed("listing", &directory))?,
    };
    let (segments, mark) = (segments(&names), read_mark(&*disk, &directory));
    Ok(Snapshot { disk, directory, segments, next: u64::MAX, used: None, mark })
}

/// Whether they are whole, whatever was before and is behind them.
pub fn verify<'a>(lines: impl IntoIterator<Item = &'a String>) -> Verdict {
    let mut verifier = Verifier::default();
    for (index, line) in lines.into_iter().enumerate() {
        verifier.take(&value(line.as_bytes()), || format!("line {} of the log", index + 1));
    }
    verifier.verdict()
}
