//! The list of files a directory feed is done with: one append-only file per feed, `<spool>/files/<feed>.list`.
//!
//! Before a file is moved away the list says that it is done, and that is synced; before the first record of a batch of files is stored the list
//! says which files, in which order, so that the feed's progress (one place in one file) tells after a crash which of them are done. What the
//! notes mean is known by `source::files::memory`; here they are only kept.
//!
//! ```text
//!   magic ‖ [len u32 ‖ crc u32 ‖ note]…      a torn note ends the list; nothing was done on its word
//! ```
//!
//! Opening writes the list anew (what was read may stand in the page cache only). After a failed write or sync the file is never touched again:
//! the next note makes a new one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::disk::{Disk, DiskFile};
use super::format::from_postcard;
use super::small;
use crate::limits;
use crate::record::{FeedId, FileFingerprint, FilePlace};

const MAGIC: [u8; 8] = *b"SWFILES1";
const FRAME_BYTES: usize = 8;
/// The directory of the lists in the spool.
pub const DIRECTORY: &str = "files";

/// A file as it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownFile {
    /// Hash of path, size, times and inode: while it fits, the file need not be read to know that it is this one.
    pub glance: [u8; 16],
    pub fingerprint: FileFingerprint,
    /// Begin of the digest of the content alone.
    pub digest: [u8; 16],
}

/// One note of the list. Frozen: a change is a new variant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Note {
    /// These files are done.
    DoneV1(Vec<KnownFile>),
    /// The records of these files follow, in this order; `after` is the feed's progress before them.
    BegunV1 { files: Vec<KnownFile>, after: Option<FilePlace> },
    /// Of those begun so many are done; the next one was left, with its records through `left` stored.
    EndedV1 { done: u64, left: Option<FilePlace> },
    /// A file that was left in an earlier batch, and how far it is stored.
    LeftV1(FilePlace),
    /// How files that are begun from here on are split.
    SplitV1(Vec<u8>),
    /// How these files, which were left, were split when they were begun.
    UnderV1 { split: Vec<u8>, files: Vec<FileFingerprint> },
}

/// See the module's documentation.
#[derive(Debug)]
pub struct FileList {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// `None`: must be made anew.
    file: Option<Box<dyn DiskFile>>,
    end: u64,
}

fn put(out: &mut Vec<u8>, note: &Note) {
    let payload = postcard::to_stdvec(note).expect("serialising to memory cannot fail");
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
    out.extend_from_slice(&payload);
}

fn read_notes(bytes: &[u8]) -> Vec<Note> {
    let mut notes = Vec::new();
    let Some(mut rest) = bytes.strip_prefix(&MAGIC) else { return notes };
    while let Some((frame, behind)) = rest.split_first_chunk::<FRAME_BYTES>() {
        let len = u32::from_le_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
        let crc = u32::from_le_bytes([frame[4], frame[5], frame[6], frame[7]]);
        let Some(note) = behind.get(..len).filter(|payload| crc32c::crc32c(payload) == crc).and_then(from_postcard) else { break };
        notes.push(note);
        rest = &behind[len..];
    }
    notes
}

impl FileList {
    /// Reads the feed's list. Nothing can be noted before it was written anew.
    pub fn open(disk: Arc<dyn Disk>, spool: &Path, feed: &FeedId) -> io::Result<(Self, Vec<Note>)> {
        let directory = spool.join(DIRECTORY);
        let path = directory.join(format!("{feed}.list"));
        disk.create_dir(&directory)?;
        disk.sync_dir(spool)?;
        let mut notes = Vec::new();
        match disk.open_read(&path) {
            Ok(file) => {
                let mut bytes = vec![0; file.len()?.min(limits::FILE_LIST_BYTES_MAX) as usize];
                let n = file.read_at(0, &mut bytes)?;
                notes = read_notes(&bytes[..n]);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok((Self { disk, path, file: None, end: 0 }, notes))
    }

    /// Whether the list must be written anew before anything can be noted: after opening, after a failure, or because it has grown.
    pub fn must_be_rewritten(&self) -> bool {
        self.file.is_none() || self.end > limits::FILE_LIST_BYTES_MAX / 2
    }

    /// Replaces the list by these notes; durable when this returns `Ok`.
    pub fn rewrite<'a>(&mut self, notes: impl Iterator<Item = &'a Note>) -> io::Result<()> {
        self.file = None;
        let mut bytes = MAGIC.to_vec();
        notes.for_each(|note| put(&mut bytes, note));
        let fresh = self.path.with_extension("new");
        self.file = Some(small::replace(&*self.disk, &fresh, &self.path, &bytes)?);
        self.end = bytes.len() as u64;
        Ok(())
    }

    /// Adds a note; durable when this returns `Ok`. After an error the list must be written anew.
    pub fn add(&mut self, note: &Note) -> io::Result<()> {
        let file = self.file.take().ok_or_else(|| io::Error::other("the list of files was not written anew after a failure"))?;
        let mut bytes = Vec::new();
        put(&mut bytes, note);
        file.write_at(self.end, &bytes)?;
        file.sync_data()?;
        self.end += bytes.len() as u64;
        self.file = Some(file);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_note_ends_the_list_and_rubbish_is_no_list() {
        let note = Note::EndedV1 { done: 3, left: None };
        let mut bytes = MAGIC.to_vec();
        put(&mut bytes, &note);
        let whole = bytes.len();
        put(&mut bytes, &note);
        for cut in whole..bytes.len() {
            assert_eq!(read_notes(&bytes[..cut]), vec![note.clone()], "{cut}");
        }
        assert_eq!(read_notes(&bytes).len(), 2);
        bytes[whole + 9] ^= 1;
        assert_eq!(read_notes(&bytes).len(), 1);
        assert!(read_notes(b"SWFILES0").is_empty());
    }
}
