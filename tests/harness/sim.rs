//! A disk that keeps exactly what it promised to keep, and of the rest whatever hurts most.
//!
//! Life of a history: a test makes a [`SimDisk`], opens a spool on it, arms faults ([`SimDisk::fail`], [`SimDisk::freeze_after`]), works, and
//! ends the "process" with [`SimDisk::kill`] (the page cache survives) or [`SimDisk::power_cut`] (it does not); both give the disk the next
//! process finds and freeze the old one, so that nothing a destructor does can reach it.
//!
//! What is kept over a power cut:
//!
//! ```text
//! content of a file      everything up to its last successful sync_data; of later writes each 512-byte sector by chance, in any order;
//!                        of later lengths any one, by chance
//! names in a directory   everything up to its last successful sync_dir; of later creations, renames and removals each by chance,
//!                        a rename as a whole
//! after a failed sync    the kernel may have dropped the dirty pages: still read back, by the next process too, never written by a later
//!                        sync that says Ok (unless they are written anew)
//! ```
//!
//! A file of which a write or sync failed and that is written or synced again by the same process is noted in [`SimDisk::violations`].

mod content;
mod disk;
mod file;
pub mod model;
mod rng;
mod tree;

pub use rng::Rng;

use siteward::spool::disk::Disk;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tree::Tree;

/// Smallest part of a write that a disk keeps or loses as one.
pub const SECTOR: u64 = 512;
/// Operations kept for the report of a failure.
const TRACE: usize = 400;

/// The kinds of operation that can be made to fail. Only those up to `CreateDir` change the disk and count for [`SimDisk::freeze_after`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    Write,
    Sync,
    SetLen,
    Create,
    Rename,
    Remove,
    SyncDir,
    CreateDir,
    Open,
    Read,
    List,
}

impl Op {
    /// Those a spool must expect to fail at any time.
    pub const CHANGING: [Self; 8] =
        [Self::Write, Self::Sync, Self::SetLen, Self::Create, Self::Rename, Self::Remove, Self::SyncDir, Self::CreateDir];
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errno {
    Io,
    NoSpace,
}

impl Errno {
    fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::Io => 5,
            Self::NoSpace => 28,
        })
    }
}

#[derive(Clone, Copy, Debug)]
struct Fault {
    op: Op,
    /// Operations of this kind that still succeed.
    after: u64,
    times: u64,
    errno: Errno,
}

/// What happens to an operation.
enum Verdict {
    Go,
    Fail(io::Error),
    /// The power goes during this operation; it may have taken effect, nobody will ever be told.
    Die {
        applied: bool,
    },
}

/// One write, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub path: PathBuf,
    pub offset: u64,
    pub len: u64,
}

struct Inner {
    tree: Tree,
    rng: Rng,
    capacity: u64,
    frozen: bool,
    /// Changing operations so far, and at which number the power goes.
    changes: u64,
    freeze_at: Option<u64>,
    faults: Vec<Fault>,
    counts: BTreeMap<Op, u64>,
    failed: u64,
    trace: VecDeque<String>,
    written: Option<Vec<Written>>,
    violations: Vec<String>,
}

impl Inner {
    fn judge(&mut self, op: Op, what: impl FnOnce() -> String) -> Verdict {
        if self.frozen {
            return Verdict::Fail(Errno::Io.error());
        }
        *self.counts.entry(op).or_default() += 1;
        let mut verdict = Verdict::Go;
        let mut note = "";
        if let Some(at) = self.faults.iter().position(|f| f.op == op) {
            let fault = &mut self.faults[at];
            if fault.after > 0 {
                fault.after -= 1;
            } else {
                fault.times -= 1;
                verdict = Verdict::Fail(fault.errno.error());
                note = " FAILS";
                self.failed += 1;
                if fault.times == 0 {
                    self.faults.remove(at);
                }
            }
        }
        if Op::CHANGING.contains(&op) {
            self.changes += 1;
            if self.freeze_at.is_some_and(|at| self.changes >= at) {
                self.frozen = true;
                let applied = self.rng.percent(50);
                verdict = Verdict::Die { applied };
                note = if applied { " POWER GOES (after)" } else { " POWER GOES (before)" };
            }
            let line = format!("{}{note}", what());
            self.note(line);
        } else if !note.is_empty() {
            let line = format!("{}{note}", what());
            self.note(line);
        }
        verdict
    }

    fn free(&self) -> u64 {
        if self.capacity == u64::MAX { u64::MAX } else { self.capacity.saturating_sub(self.tree.used()) }
    }

    fn note(&mut self, line: String) {
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        self.trace.push_back(line);
    }

    /// For operations that have no half effect: runs `apply` unless they fail.
    fn whole<T>(&mut self, op: Op, what: impl FnOnce() -> String, apply: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        match self.judge(op, what) {
            Verdict::Go => apply(self),
            Verdict::Fail(error) => Err(error),
            Verdict::Die { applied } => {
                if applied {
                    apply(self)?;
                }
                Err(Errno::Io.error())
            }
        }
    }
}

/// The disk as one process sees it. Cloning gives another handle on the same disk; [`SimDisk::image`] copies.
#[derive(Clone)]
pub struct SimDisk {
    inner: Arc<Mutex<Inner>>,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}

impl SimDisk {
    /// An empty disk on which `root` exists for good.
    pub fn new(seed: u64, root: &Path) -> Self {
        let mut tree = Tree::new();
        tree.make_durable_dir(root);
        Self::from_tree(tree, Rng::new(seed), u64::MAX)
    }

    fn from_tree(tree: Tree, rng: Rng, capacity: u64) -> Self {
        let inner = Inner {
            tree,
            rng,
            capacity,
            frozen: false,
            changes: 0,
            freeze_at: None,
            faults: Vec::new(),
            counts: BTreeMap::new(),
            failed: 0,
            trace: VecDeque::new(),
            written: None,
            violations: Vec::new(),
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For `open_with`.
    pub fn handle(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    // ---- faults ----

    /// Lets `after` more operations of a kind succeed, then fails `times`.
    pub fn fail(&self, op: Op, after: u64, times: u64, errno: Errno) {
        self.lock().faults.push(Fault { op, after, times, errno });
    }

    /// Whether a fault of this kind is still to come.
    pub fn is_armed(&self, op: Op) -> bool {
        self.lock().faults.iter().any(|fault| fault.op == op)
    }

    pub fn clear_faults(&self) {
        let mut inner = self.lock();
        inner.faults.clear();
        inner.freeze_at = None;
    }

    /// The power goes in the middle of the `changes`-th changing operation from now (1 = the next one).
    pub fn freeze_after(&self, changes: u64) {
        let mut inner = self.lock();
        inner.freeze_at = Some(inner.changes + changes.max(1));
    }

    pub fn is_frozen(&self) -> bool {
        self.lock().frozen
    }

    /// Operations of a kind so far.
    pub fn count(&self, op: Op) -> u64 {
        self.lock().counts.get(&op).copied().unwrap_or(0)
    }

    /// Operations that were made to fail so far.
    pub fn failed(&self) -> u64 {
        self.lock().failed
    }

    /// Changing operations so far.
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Size of the volume; `u64::MAX` at first.
    pub fn set_capacity(&self, bytes: u64) {
        self.lock().capacity = bytes;
    }

    pub fn used(&self) -> u64 {
        self.lock().tree.used()
    }

    // ---- ends of a process ----

    /// SIGKILL: this process can do no more; what it wrote is in the page cache, synced or not.
    #[must_use]
    pub fn kill(&self) -> Self {
        let mut inner = self.lock();
        inner.frozen = true;
        let (tree, rng, capacity) = (inner.tree.clone(), inner.rng.split(), inner.capacity);
        drop(inner);
        let mut tree = tree;
        tree.forget_process();
        Self::from_tree(tree, rng, capacity)
    }

    /// The power goes: what was not synced survives by chance, sector by sector and name by name.
    #[must_use]
    pub fn power_cut(&self) -> Self {
        let mut inner = self.lock();
        inner.frozen = true;
        let (mut tree, mut rng, capacity) = (inner.tree.clone(), inner.rng.split(), inner.capacity);
        drop(inner);
        tree.lose_unsynced(&mut rng);
        Self::from_tree(tree, rng, capacity)
    }

    /// A whole copy of what is visible now, as of a backup or a cloned card; this disk goes on.
    #[must_use]
    pub fn image(&self) -> Self {
        let mut inner = self.lock();
        let (mut tree, rng, capacity) = (inner.tree.clone(), inner.rng.split(), inner.capacity);
        drop(inner);
        tree.settle_all();
        Self::from_tree(tree, rng, capacity)
    }

    // ---- damage; on what is durable and visible alike ----

    /// Every file with its length.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        self.lock().tree.files()
    }

    /// Whether a file is there and holds nothing but zeroes from `offset` on: as if nothing had ever been written there.
    pub fn is_blank_from(&self, path: &Path, offset: u64) -> bool {
        let is_there = self.files().iter().any(|(name, _)| name == path);
        is_there && self.contents(path).get(offset as usize..).is_some_and(|rest| !rest.is_empty() && rest.iter().all(|byte| *byte == 0))
    }

    pub fn contents(&self, path: &Path) -> Vec<u8> {
        let inner = self.lock();
        let file = inner.tree.file(inner.tree.find(path).expect("a file of this disk"));
        let mut bytes = vec![0; file.current.len() as usize];
        file.current.read(0, &mut bytes);
        bytes
    }

    fn damage(&self, path: &Path, change: impl Fn(&mut content::Content)) {
        let mut inner = self.lock();
        let id = inner.tree.find(path).expect("a file of this disk");
        let file = inner.tree.file_mut(id);
        change(&mut file.current);
        change(&mut file.durable);
    }

    pub fn overwrite(&self, path: &Path, offset: u64, bytes: &[u8]) {
        self.damage(path, |content| content.write(offset, bytes));
    }

    pub fn flip(&self, path: &Path, offset: u64, bit: u8) {
        self.damage(path, |content| {
            let mut byte = [0];
            content.read(offset, &mut byte);
            content.write(offset, &[byte[0] ^ (1 << bit)]);
        });
    }

    pub fn truncate(&self, path: &Path, len: u64) {
        self.damage(path, |content| content.set_len(len));
    }

    /// One past the last byte of a file that is not zero.
    pub fn written_end(&self, path: &Path) -> u64 {
        let inner = self.lock();
        inner.tree.file(inner.tree.find(path).expect("a file of this disk")).durable.written_end()
    }

    /// The disk forgets the last `bytes` written to a preallocated file although they were synced.
    pub fn lose_tail(&self, path: &Path, bytes: u64) {
        let end = self.written_end(path);
        let from = end.saturating_sub(bytes);
        self.overwrite(path, from, &vec![0; (end - from) as usize]);
    }

    /// Reads that touch these bytes fail from now on (a bad sector).
    pub fn make_unreadable(&self, path: &Path, offset: u64, len: u64) {
        let mut inner = self.lock();
        let id = inner.tree.find(path).expect("a file of this disk");
        inner.tree.file_mut(id).unreadable.push((offset, offset + len));
    }

    /// A file disappears for good.
    pub fn delete(&self, path: &Path) {
        self.lock().tree.delete_for_good(path);
    }

    // ---- what happened ----

    /// The last operations, oldest first.
    pub fn trace(&self) -> Vec<String> {
        self.lock().trace.iter().cloned().collect()
    }

    /// Uses of a file after its write or sync had failed.
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// What under `path` a power cut could still take away: names and contents that no sync covers.
    pub fn unsynced(&self, path: &Path) -> Vec<String> {
        self.lock().tree.not_durable(path)
    }

    /// Starts (or restarts) a list of all writes; returns the one so far.
    pub fn record_writes(&self) -> Vec<Written> {
        self.lock().written.replace(Vec::new()).unwrap_or_default()
    }
}

fn short(path: &Path) -> String {
    let mut parts: Vec<_> = path.iter().rev().take(2).map(|p| p.to_string_lossy()).collect();
    parts.reverse();
    parts.join("/")
}

#[cfg(test)]
mod tests;
