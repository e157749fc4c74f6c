//! Logs that are not this one: of another gateway, whose id this box had before, or one of which no record can be read.
//!
//! ```text
//!   audit ──rename──► audit.<gateway>.<chain>      (audit.unreadable.<chain> where no record says which)
//!   audit.new ──────► audit                         made before, so that a full disk does not stop it half-way; the spare goes along
//! ```
//!
//! Nothing in such a directory is ever written or removed by this program. Both renames are durable one after the other, so whatever is cut, either
//! the old log is `audit`, or it lies aside and the next start finds it. A log tells of each that lies beside it and was not told yet.

use std::io;
use std::path::{Path, PathBuf};

use super::files::{DIRECTORY, LogError, failed, name, read_file, read_mark, segments};
use super::log::SPARE;
use super::walk::Walk;
use crate::limits::AUDIT_ASIDE_NAMES_MAX;
use crate::record::Digest;
use crate::spool::disk::Disk;

const NEW: &str = "audit.new";

/// A log that lies aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// In the spool.
    pub directory: String,
    pub gateway: String,
    pub last: u64,
    pub sent: u64,
    /// Of its last record.
    pub digest: Option<Digest>,
}

impl Aside {
    pub fn sentence(&self) -> String {
        let Self { directory, gateway, last, sent, digest } = self;
        let digest = digest.map_or_else(|| "of which no record can be read".to_owned(), |digest| format!("digest {digest}"));
        let unsent = if self.is_unsent() { "what was not sent is only there" } else { "the broker had all of it" };
        format!("a log of gateway {gateway} lies in {directory}: last record {last}, {digest}; the broker had it up to {sent}; {unsent}")
    }

    pub fn is_unsent(&self) -> bool {
        self.last > self.sent || self.digest.is_none()
    }
}

/// What the records of a directory say; the names of its segments.
pub(super) fn walk(disk: &dyn Disk, directory: &Path) -> Result<(Walk, Vec<u64>), LogError> {
    let names = disk.list(directory).map_err(failed("listing", directory))?;
    let mut walk = Walk::new(read_mark(disk, directory));
    let all: Vec<u64> = segments(&names).into_iter().collect();
    for (index, first) in all.iter().enumerate() {
        let path = directory.join(name(*first));
        let bytes = read_file(disk, &path).map_err(failed("reading", &path))?;
        walk.segment(*first, &bytes, all.get(index + 1).copied());
    }
    Ok((walk, all))
}

/// Of the directory of this log, which may not be there yet.
pub(super) fn made(disk: &dyn Disk, spool: &Path) -> Result<PathBuf, LogError> {
    let directory = spool.join(DIRECTORY);
    let is_there = |name: &str| disk.list(spool).map(|names| names.iter().any(|known| known == name)).map_err(failed("listing", spool));
    if !is_there(DIRECTORY)? && is_there(NEW)? {
        disk.rename(&spool.join(NEW), &directory).map_err(failed("renaming", &spool.join(NEW)))?;
    }
    disk.create_dir(&directory).map_err(failed("making", &directory))?;
    disk.sync_dir(spool).map_err(failed("syncing", spool))?;
    Ok(directory)
}

/// Puts the directory of another log aside.
pub(super) fn put_aside(disk: &dyn Disk, spool: &Path, walk: &Walk, segments: &[u64]) -> Result<(), LogError> {
    let (old, new) = (spool.join(DIRECTORY), spool.join(NEW));
    // What is said of it below is to be there after a power cut too; where that fails it is as it was.
    if let Some(last) = segments.last()
        && let Err(error) = disk.open(&old.join(name(*last))).and_then(|file| file.sync_data())
    {
        tracing::debug!(%error, "the last segment of a log that is put aside could not be synced");
    }
    let aside = free_name(disk, spool, walk)?;
    disk.create_dir(&new).map_err(failed("making", &new))?;
    match disk.rename(&old.join(SPARE), &new.join(SPARE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("renaming", &old.join(SPARE))(error)),
        _ => {}
    }
    disk.sync_dir(&new).map_err(failed("syncing", &new))?;
    disk.sync_dir(spool).map_err(failed("syncing", spool))?;
    disk.rename(&old, &spool.join(&aside)).map_err(failed("renaming", &old))?;
    disk.sync_dir(spool).map_err(failed("syncing", spool))?;
    disk.rename(&new, &old).map_err(failed("renaming", &new))?;
    disk.sync_dir(spool).map_err(failed("syncing", spool))?;
    tracing::error!(directory = aside, "the audit log is of another gateway, or cannot be read; it was put aside, and a new one begins");
    Ok(())
}

fn free_name(disk: &dyn Disk, spool: &Path, walk: &Walk) -> Result<String, LogError> {
    let chain = walk.identity.as_ref().map(|(_, chain)| *chain).or(walk.mark.map(|(chain, _)| chain));
    let gateway = walk.identity.as_ref().map_or("unreadable", |(gateway, _)| gateway.as_str());
    let stem = format!("{DIRECTORY}.{gateway}{}", chain.map_or_else(String::new, |chain| format!(".{chain}")));
    let names = disk.list(spool).map_err(failed("listing", spool))?;
    let mut all = (1..=AUDIT_ASIDE_NAMES_MAX).map(|n| if n == 1 { stem.clone() } else { format!("{stem}.{n}") });
    all.find(|name| !names.contains(name))
        .ok_or_else(|| failed("putting aside", &spool.join(DIRECTORY))(io::ErrorKind::AlreadyExists.into()))
}

/// Logs beside this one, of which `is_told` says that no record here names them.
pub(super) fn untold(disk: &dyn Disk, spool: &Path, is_told: impl Fn(&str) -> bool) -> Result<Vec<Aside>, LogError> {
    let names = disk.list(spool).map_err(failed("listing", spool))?;
    let is_one = |name: &&String| name.starts_with("audit.") && *name != NEW && !is_told(name);
    let mut found = Vec::new();
    for directory in names.iter().filter(is_one) {
        // A file of that name is nobody's log.
        let Ok((mut walk, _)) = self::walk(disk, &spool.join(directory)) else { continue };
        walk.finish();
        let sent = walk.mark.map_or(0, |(_, sent)| sent);
        let gateway = walk.identity.as_ref().map_or_else(|| "unknown".to_owned(), |(gateway, _)| gateway.to_string());
        let digest = walk.last.as_ref().map(|last| last.digest);
        found.push(Aside { directory: directory.clone(), gateway, last: walk.next.saturating_sub(1), sent, digest });
    }
    Ok(found)
}
