//! One open simulated file. Handles outlive names, as they do on a real system; those of a process that ended do nothing.

use siteward::spool::disk::DiskFile;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::tree::{Pending, Unlucky};
use super::{Errno, Inner, Op, SimDisk, Verdict, Written, short};

pub(super) struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    id: u64,
    writable: bool,
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFile({})", self.path.display())
    }
}

impl SimFile {
    pub(super) fn new(disk: &SimDisk, path: &Path, id: u64, writable: bool) -> Self {
        Self { disk: disk.clone(), path: path.to_owned(), id, writable }
    }

    /// Notes the use of a file that had failed before, through whatever handle.
    fn check_use(&self, inner: &mut Inner, what: &str) {
        if inner.tree.file(self.id).failed && !inner.frozen {
            let line = format!("{what} of {} after its write or sync had failed", short(&self.path));
            inner.violations.push(line);
        }
    }

    fn writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::Error::from_raw_os_error(9)) }
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.writable()?;
        let mut inner = self.disk.lock();
        self.check_use(&mut inner, "write");
        let end = offset + bytes.len() as u64;
        let grown = end.saturating_sub(inner.tree.file(self.id).current.len());
        let free = inner.free();
        let verdict = match inner.judge(Op::Write, || format!("write {} {offset}+{}", short(&self.path), bytes.len())) {
            Verdict::Go if grown > free => Verdict::Fail(Errno::NoSpace.error()),
            verdict => verdict,
        };
        // A write that fails, or during which the power goes, may have got anywhere.
        let (n, result) = match verdict {
            Verdict::Go => (bytes.len(), Ok(())),
            Verdict::Fail(error) => {
                let dead = inner.frozen;
                inner.tree.file_mut(self.id).failed |= !dead;
                let n = if dead || grown > free { 0 } else { inner.rng.below(bytes.len() as u64 + 1) as usize };
                (n, Err(error))
            }
            Verdict::Die { .. } => (inner.rng.below(bytes.len() as u64 + 1) as usize, Err(Errno::Io.error())),
        };
        if n > 0 {
            inner.tree.file_mut(self.id).change(Pending::Write { offset, bytes: bytes[..n].into() });
        }
        if result.is_ok()
            && let Some(written) = &mut inner.written
        {
            written.push(Written { path: self.path.clone(), offset, len: bytes.len() as u64 });
        }
        result
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut inner = self.disk.lock();
        if let Verdict::Fail(error) = inner.judge(Op::Read, || format!("read {} {offset}+{}", short(&self.path), into.len())) {
            return Err(error);
        }
        let file = inner.tree.file(self.id);
        let end = offset + into.len() as u64;
        if file.unreadable.iter().any(|(from, to)| offset < *to && *from < end) {
            return Err(Errno::Io.error());
        }
        Ok(file.current.read(offset, into))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.disk.lock();
        self.check_use(&mut inner, "sync");
        match inner.judge(Op::Sync, || format!("sync {}", short(&self.path))) {
            Verdict::Go => {
                inner.tree.file_mut(self.id).sync();
                Ok(())
            }
            Verdict::Fail(error) => {
                if !inner.frozen {
                    let mut rng = inner.rng.split();
                    let file = inner.tree.file_mut(self.id);
                    file.failed = true;
                    // Either the kernel keeps the pages dirty, or it wrote some and calls the others clean.
                    if rng.percent(70) {
                        let luck = Unlucky::draw(&mut rng);
                        file.drop_dirty(&mut rng, luck);
                    }
                }
                Err(error)
            }
            Verdict::Die { applied } => {
                if applied {
                    inner.tree.file_mut(self.id).sync();
                }
                Err(Errno::Io.error())
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        let inner = self.disk.lock();
        if inner.frozen { Err(Errno::Io.error()) } else { Ok(inner.tree.file(self.id).current.len()) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.writable()?;
        let mut inner = self.disk.lock();
        self.check_use(&mut inner, "set_len");
        let id = self.id;
        inner.whole(
            Op::SetLen,
            || format!("setlen {} {len}", short(&self.path)),
            |inner| {
                inner.tree.file_mut(id).change(Pending::Length(len));
                Ok(())
            },
        )
    }
}
