//! The files of the rollout below `<spool>/config`, through the spool's disk seam.
//!
//! ```text
//! ledger                 one block in a preallocated file; replaced as a whole: ledger.new → sync → rename → sync of the directory
//! <digest>.dsse          a document that was proven here, as it was signed
//! <digest>.candidate     one that was not (yet): never run without the ledger that says so
//! reserve, ledger.reserve  blocks for one document and one ledger, given up where the disk is full, made again when it is not
//! ```
//!
//! - A document is durable, name and bytes, before a ledger names it; it goes only after a ledger that does not name it is durable.
//! - A file whose write or sync failed is never written again; the next try makes a new one.
//! - All ledger files have the same length, so that replacing one on a full disk gives back what it takes.
//! - What is found after a kill may stand in the page cache only: [`Store::open`] syncs the directory, and the machine writes the ledger anew
//!   before anything is said about it.
//!
//! Owns the durable half of I6.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::facts::Facts;
use super::ledger::Ledger;
use crate::limits::{ENVELOPE_BYTES_MAX, LEDGER_BYTES};
use crate::record::DocumentDigest;
use crate::spool::disk::{Disk, DiskFile};

const DIRECTORY: &str = "config";
const LEDGER: &str = "ledger";
const LEDGER_NEW: &str = "ledger.new";
const LEDGER_RESERVE: &str = "ledger.reserve";
const RESERVE: &str = "reserve";
const PROVEN: &str = ".dsse";
const CANDIDATE: &str = ".candidate";

/// What went wrong, where.
#[derive(Debug, thiserror::Error)]
#[error("{what} {} failed: {source}", path.display())]
pub struct StoreError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError { what, path, source }
}

/// What was there at a start.
#[derive(Debug)]
pub struct Stored {
    /// `None`: there is none, or it cannot be read.
    pub ledger: Option<Ledger>,
    /// A ledger, or documents, are there and the ledger says nothing.
    pub is_damaged: bool,
    pub proven: Vec<DocumentDigest>,
    pub unproven: Vec<DocumentDigest>,
}

/// The only writer of the directory.
#[derive(Debug)]
pub struct Store {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    /// The directory above, while our name in it may not be durable.
    unsynced: Option<PathBuf>,
    /// Documents that a durable ledger names.
    named: BTreeSet<DocumentDigest>,
}

/// Whether a document was ever proven on this gateway; before the ledger can be opened.
pub fn has_documents(spool: &Path) -> bool {
    let Ok(names) = std::fs::read_dir(spool.join(DIRECTORY)) else { return false };
    names.filter_map(Result::ok).any(|entry| entry.file_name().to_string_lossy().ends_with(PROVEN))
}

/// The document that a ledger calls committed; nothing is written, so an agent may run. `None`: the local file alone.
pub fn committed(spool: &Path) -> Result<Option<Facts>, StoreError> {
    let path = spool.join(DIRECTORY).join(LEDGER);
    match std::fs::read(&path) {
        Ok(bytes) => match Ledger::decode(&bytes) {
            Some(ledger) => Ok(ledger.committed.facts().cloned()),
            None => Err(failed("reading", &path)(io::Error::other("it is damaged"))),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("reading", &path)(error)),
    }
}

impl Store {
    /// Makes the directory where it is missing. A disk that cannot be written is no reason not to start: the ledger says what runs.
    pub fn open(disk: Arc<dyn Disk>, spool: &Path) -> Result<(Self, Stored), StoreError> {
        let directory = spool.join(DIRECTORY);
        disk.create_dir(&directory).map_err(failed("making", &directory))?;
        // Where that fails it is done before the next ledger counts; the machine writes one before anything is said.
        let unsynced = disk.sync_dir(spool).and_then(|()| disk.sync_dir(&directory)).is_err().then(|| spool.to_owned());
        let names = disk.list(&directory).map_err(failed("listing", &directory))?;
        let of =
            |ending: &str| -> Vec<DocumentDigest> { names.iter().filter_map(|name| name.strip_suffix(ending)?.parse().ok()).collect() };
        let (proven, unproven) = (of(PROVEN), of(CANDIDATE));
        let has_file = names.iter().any(|name| name == LEDGER);
        let mut store = Self { disk, directory, unsynced, named: BTreeSet::new() };
        let ledger = if has_file { store.read_ledger() } else { None };
        let is_damaged = ledger.is_none() && (has_file || !proven.is_empty() || !unproven.is_empty());
        if let Some(ledger) = &ledger {
            store.named = ledger.named().collect();
        }
        store.make_reserves();
        Ok((store, Stored { ledger, is_damaged, proven, unproven }))
    }

    /// As it lies there; nothing is made or written. For tools beside the agent.
    pub fn look(disk: Arc<dyn Disk>, spool: &Path) -> Self {
        Self { disk, directory: spool.join(DIRECTORY), unsynced: None, named: BTreeSet::new() }
    }

    /// A read that fails is tried again: it may be a passing fault, and what rests on it is large.
    fn read_ledger(&self) -> Option<Ledger> {
        let path = self.directory.join(LEDGER);
        (0..3).find_map(|_| Ledger::decode(&self.read(&path, LEDGER_BYTES).ok()?))
    }

    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        let file = self.disk.open_read(path)?;
        let len = file.len()?;
        if len > bytes_max {
            return Err(io::Error::other(format!("it has {len} bytes, more than the {bytes_max} it may")));
        }
        let mut bytes = vec![0; len as usize];
        let n = file.read_at(0, &mut bytes)?;
        bytes.truncate(n);
        Ok(bytes)
    }

    /// A document as it was signed.
    pub fn envelope(&self, digest: DocumentDigest) -> Result<Vec<u8>, StoreError> {
        let proven = self.directory.join(format!("{digest}{PROVEN}"));
        match self.read(&proven, ENVELOPE_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let candidate = self.directory.join(format!("{digest}{CANDIDATE}"));
                self.read(&candidate, ENVELOPE_BYTES_MAX).map_err(failed("reading", &candidate))
            }
            other => other.map_err(failed("reading", &proven)),
        }
    }

    /// Makes a ledger durable, the document it newly names before it.
    pub fn save(&mut self, ledger: &Ledger, keep: Option<(DocumentDigest, Option<&[u8]>)>) -> Result<(), StoreError> {
        if let Some((digest, envelope)) = keep
            && !self.named.contains(&digest)
        {
            self.keep(digest, envelope)?;
        }
        self.write(ledger)?;
        if let Some(spool) = &self.unsynced {
            self.disk.sync_dir(spool).map_err(failed("syncing", spool))?;
            self.unsynced = None;
        }
        self.named = ledger.named().collect();
        self.tidy(ledger);
        self.make_reserves();
        Ok(())
    }

    fn keep(&self, digest: DocumentDigest, envelope: Option<&[u8]>) -> Result<(), StoreError> {
        let path = self.directory.join(format!("{digest}{CANDIDATE}"));
        let envelope = envelope.ok_or_else(|| io::Error::other("the document itself is not at hand")).map_err(failed("keeping", &path))?;
        let len = envelope.len() as u64;
        if len > ENVELOPE_BYTES_MAX {
            return Err(failed("keeping", &path)(io::Error::other(format!("it has {len} bytes, more than {ENVELOPE_BYTES_MAX}"))));
        }
        let file = self.fresh(&path, len, RESERVE)?;
        file.write_at(0, envelope).and_then(|()| file.sync_data()).map_err(failed("writing", &path))?;
        self.disk.sync_dir(&self.directory).map_err(failed("syncing", &self.directory))
    }

    fn write(&self, ledger: &Ledger) -> Result<(), StoreError> {
        let (path, fresh) = (self.directory.join(LEDGER), self.directory.join(LEDGER_NEW));
        let bytes = ledger.encode();
        if bytes.len() as u64 > LEDGER_BYTES {
            return Err(failed("writing", &path)(io::Error::other(format!("it takes {} bytes, more than {LEDGER_BYTES}", bytes.len()))));
        }
        let file = self.fresh(&fresh, LEDGER_BYTES, LEDGER_RESERVE)?;
        file.write_at(0, &bytes).and_then(|()| file.sync_data()).map_err(failed("writing", &fresh))?;
        self.disk.rename(&fresh, &path).map_err(failed("renaming", &fresh))?;
        self.disk.sync_dir(&self.directory).map_err(failed("syncing", &self.directory))
    }

    /// A new file of this length, from the reserve where the disk is full.
    fn fresh(&self, path: &Path, len: u64, reserve: &str) -> Result<Box<dyn DiskFile>, StoreError> {
        match self.disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("removing", path)(error)),
            _ => {}
        }
        match self.disk.create(path, len) {
            Err(error) if is_full(&error) => self.take_reserve(path, len, reserve).map_err(|_| failed("making", path)(error)),
            other => other.map_err(failed("making", path)),
        }
    }

    fn take_reserve(&self, path: &Path, len: u64, reserve: &str) -> io::Result<Box<dyn DiskFile>> {
        let reserve = self.directory.join(reserve);
        if self.disk.open_read(&reserve)?.len()? < len {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.disk.rename(&reserve, path)?;
        let file = self.disk.open(path)?;
        file.set_len(len)?;
        Ok(file)
    }

    /// Names proven documents so and removes those that nothing names. What fails is done after the next ledger.
    fn tidy(&self, ledger: &Ledger) {
        let proven: BTreeSet<DocumentDigest> = ledger.proven().collect();
        let Ok(names) = self.disk.list(&self.directory) else { return };
        for name in &names {
            let path = self.directory.join(name);
            let (candidate, document) = (name.strip_suffix(CANDIDATE), name.strip_suffix(PROVEN));
            let Some(digest) = candidate.or(document).and_then(|digest| digest.parse::<DocumentDigest>().ok()) else { continue };
            let done = if !self.named.contains(&digest) {
                self.disk.remove(&path)
            } else if candidate.is_some() && proven.contains(&digest) {
                self.disk.rename(&path, &self.directory.join(format!("{digest}{PROVEN}")))
            } else {
                Ok(())
            };
            if let Err(error) = done {
                tracing::debug!(%error, file = name, "a document's file could not be tidied; it is tried again");
            }
        }
    }

    /// Makes what is missing; a disk too full for it is no failure, that is what the reserves are for.
    fn make_reserves(&self) {
        let Ok(names) = self.disk.list(&self.directory) else { return };
        for (name, len) in [(LEDGER_RESERVE, LEDGER_BYTES), (RESERVE, ENVELOPE_BYTES_MAX)] {
            if !names.iter().any(|known| known == name)
                && let Err(error) = self.disk.create(&self.directory.join(name), len)
            {
                tracing::debug!(%error, file = name, "no reserve for a full disk could be made; it is tried again");
            }
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
