//! Small files of the spool that say what somebody set: overrides, paused feeds, what alerts remember.
//!
//! Each is replaced as a whole (temp → sync → rename → sync of the directory): after a crash it says what it said before or what was asked for, and
//! once [`SmallFile::write`] returned `Ok`, what was asked for. After an `Err` the rename may have come through, and only the sync behind it not; the
//! owner writes again what holds. Where there is nothing to say there is no file, and removing it works on a full disk too. A file that cannot be
//! read says nothing, and the log what that means.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::disk::{Disk, DiskFile};
use super::format::{decode_block, encode_block};

/// One kind of file.
#[derive(Debug)]
pub struct Kind {
    pub name: &'static str,
    pub magic: [u8; 8],
    pub bytes_max: u64,
    /// For people: what it says, and what becomes of that where it cannot be read.
    pub says: &'static str,
    pub without: &'static str,
}

/// One file.
#[derive(Clone, Debug)]
pub struct SmallFile {
    disk: Arc<dyn Disk>,
    spool: PathBuf,
    kind: &'static Kind,
}

/// Removes a file that may not be there.
pub fn remove(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    disk.remove(path).or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Puts a new file with these bytes at `path`, by way of `fresh` in the same directory. Durable when this returns; the new file.
pub fn replace(disk: &dyn Disk, fresh: &Path, path: &Path, bytes: &[u8]) -> io::Result<Box<dyn DiskFile>> {
    remove(disk, fresh)?;
    let file = disk.create(fresh, bytes.len() as u64)?;
    file.write_at(0, bytes)?;
    file.sync_data()?;
    disk.rename(fresh, path)?;
    disk.sync_dir(path.parent().unwrap_or(path))?;
    Ok(file)
}

impl SmallFile {
    pub fn new(disk: Arc<dyn Disk>, spool: &Path, kind: &'static Kind) -> Self {
        Self { disk, spool: spool.to_owned(), kind }
    }

    /// What it says. Blocking.
    pub fn read<T: DeserializeOwned>(&self) -> Option<T> {
        let path = self.spool.join(self.kind.name);
        self.try_read(&path)
            .inspect_err(|error| {
                let Kind { says, without, .. } = self.kind;
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::error!(path = %path.display(), "{says} cannot be read ({error}); {without}");
                }
            })
            .ok()
    }

    fn try_read<T: DeserializeOwned>(&self, path: &Path) -> io::Result<T> {
        let file = self.disk.open_read(path)?;
        let mut bytes = vec![0; usize::try_from(file.len()?.min(self.kind.bytes_max)).unwrap_or(0)];
        let n = file.read_at(0, &mut bytes)?;
        decode_block(self.kind.magic, &bytes[..n]).ok_or_else(|| io::Error::other("the file is damaged"))
    }

    /// Durable when this returns; `None`: there is nothing to say. Blocking.
    pub fn write<T: Serialize>(&self, content: Option<&T>) -> io::Result<()> {
        let (path, fresh) = (self.spool.join(self.kind.name), self.spool.join(format!("{}.new", self.kind.name)));
        if let Some(content) = content {
            return replace(&*self.disk, &fresh, &path, &encode_block(self.kind.magic, content)).map(drop);
        }
        remove(&*self.disk, &fresh).and_then(|()| remove(&*self.disk, &path))?;
        self.disk.sync_dir(&self.spool)
    }
}
