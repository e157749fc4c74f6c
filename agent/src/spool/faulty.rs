//! A real disk of which chosen calls fail, for the tests of small files: a rename that comes through while the sync behind it does not.

use std::io;
use std::path::Path;
use std::sync::Mutex;

use super::disk::{Disk, DiskFile, RealDisk, Space};

/// A call that is to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Create,
    Rename,
    Remove,
    SyncDir,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Faulty(Mutex<Vec<Call>>);

impl Faulty {
    /// From here on each of these fails once; the same call twice fails twice.
    pub fn fail(&self, calls: &[Call]) {
        self.0.lock().unwrap().extend(calls);
    }

    /// The disk is well again.
    pub fn heal(&self) {
        self.0.lock().unwrap().clear();
    }

    fn called(&self, call: Call) -> io::Result<()> {
        let mut failing = self.0.lock().unwrap();
        match failing.iter().position(|known| *known == call) {
            Some(at) => {
                failing.remove(at);
                Err(io::Error::other("told to fail"))
            }
            None => Ok(()),
        }
    }
}

impl Disk for Faulty {
    fn create(&self, path: &Path, len: u64) -> io::Result<Box<dyn DiskFile>> {
        self.called(Call::Create)?;
        RealDisk.create(path, len)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.open(path)
    }
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.open_read(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.called(Call::Rename)?;
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        if path.exists() {
            self.called(Call::Remove)?;
        }
        RealDisk.remove(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.called(Call::SyncDir)?;
        RealDisk.sync_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        RealDisk.space(path)
    }
}
