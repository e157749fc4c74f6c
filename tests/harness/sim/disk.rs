//! The file system's side of the simulated disk: each call is judged (go, fail, the power goes), then done to the tree.

use siteward::spool::disk::{Disk, DiskFile, Space};
use std::io;
use std::path::Path;

use super::file::SimFile;
use super::{Errno, Op, SimDisk, Verdict, short};

impl Disk for SimDisk {
    fn create(&self, path: &Path, len: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut inner = self.lock();
        if inner.frozen {
            return Err(Errno::Io.error());
        }
        let (dir, name) = inner.tree.place(path)?;
        if inner.tree.lookup(dir, &name).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let free = inner.free();
        let verdict = match inner.judge(Op::Create, || format!("create {} {len}", short(path))) {
            Verdict::Go if len > free => Verdict::Fail(Errno::NoSpace.error()),
            verdict => verdict,
        };
        let id = inner.tree.add_file(dir, &name, len);
        match verdict {
            Verdict::Go => Ok(Box::new(SimFile::new(self, path, id, true))),
            // The name may have reached the disk, its removal not.
            Verdict::Fail(error) => {
                inner.tree.file_mut(id).cut_unsynced();
                inner.tree.unlink(dir, &name);
                Err(error)
            }
            Verdict::Die { .. } => Err(Errno::Io.error()),
        }
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.open_file(path, true)
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.open_file(path, false)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        let (from_place, to_place) = (inner.tree.place(from)?, inner.tree.place(to)?);
        inner.tree.lookup(from_place.0, &from_place.1).ok_or(io::ErrorKind::NotFound)?;
        inner.whole(
            Op::Rename,
            || format!("rename {} {}", short(from), short(to)),
            |inner| {
                inner.tree.rename(from_place, to_place);
                Ok(())
            },
        )
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        let (dir, name) = inner.tree.place(path)?;
        inner.tree.lookup(dir, &name).ok_or(io::ErrorKind::NotFound)?;
        inner.whole(
            Op::Remove,
            || format!("remove {}", short(path)),
            |inner| {
                inner.tree.unlink(dir, &name);
                Ok(())
            },
        )
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        if inner.tree.find(path).is_ok_and(|id| inner.tree.is_dir(id)) {
            return if inner.frozen { Err(Errno::Io.error()) } else { Ok(()) };
        }
        inner.whole(Op::CreateDir, || format!("mkdir {}", short(path)), |inner| inner.tree.make_dirs(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        let dir = inner.tree.find(path)?;
        inner.whole(
            Op::SyncDir,
            || format!("syncdir {}", short(path)),
            |inner| {
                inner.tree.sync_dir(dir);
                Ok(())
            },
        )
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut inner = self.lock();
        let dir = inner.tree.find(path)?;
        inner.whole(Op::List, || format!("list {}", short(path)), |inner| inner.tree.names(dir))
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let inner = self.lock();
        let total = inner.capacity.min(1 << 50);
        Ok(Space { total, free: total.saturating_sub(inner.tree.used()) })
    }
}

impl SimDisk {
    fn open_file(&self, path: &Path, writable: bool) -> io::Result<Box<dyn DiskFile>> {
        let mut inner = self.lock();
        let id = inner.tree.find(path)?;
        if inner.tree.is_dir(id) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        inner.whole(Op::Open, || format!("open {}", short(path)), |_| Ok(()))?;
        Ok(Box::new(SimFile::new(self, path, id, writable)))
    }
}
