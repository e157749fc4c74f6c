//! The durable positions of every feed: two preallocated copies, overwritten in place in turn.
//!
//! A write goes to the copy that holds the older generation, so that a torn write leaves the other one whole. Nothing is allocated: heads can be
//! written on a full disk (I5). A copy whose write or sync failed is never touched again; it is replaced by a new file. So are both copies when
//! a spool is opened: what was read may stand in the page cache of a killed process only, and overwriting the other copy would leave none.
//!
//! Heads are synced when the spool is opened (before the first append), at most once a second, at a clean stop, and always before a segment is
//! unlinked: what a released segment proved must be known without it. Records are never waiting for heads; after a crash the journal itself
//! says how far each feed came.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::{Disk, DiskFile};
use super::format::{decode_block, encode_block};
use super::index::Index;
use super::lane::is_full;
use super::recovery::from_spare;
use crate::limits;
use crate::record::{Chain, FileProgress, Incarnation, Link};

pub const MAGIC: [u8; 8] = *b"SWHEADS1";
const NAMES: [&str; 2] = ["heads.a", "heads.b"];

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeadsContent {
    V1(HeadsV1),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadsV1 {
    pub generation: u64,
    /// Tells whether the right key is at hand.
    pub key_check: [u8; 8],
    pub incarnation: Incarnation,
    /// Ordinals of the next segments, so that a name is never used twice.
    pub next_ordinal: [u64; 3],
    pub feeds: Vec<FeedHeadV1>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedHeadV1 {
    pub feed: String,
    pub lane: u8,
    pub head_seq: u64,
    pub head_chain: Chain,
    pub settled_seq: u64,
    pub settled_chain: Chain,
    pub lineage: Vec<Link>,
    /// The newest record that came from a file.
    pub files: Option<FileProgress>,
    /// Time the oldest record has waited over all runs, in milliseconds: the place for ages that survive a clock jump.
    pub aged_ms: u64,
}

/// The heads as they should be on disk; the generation is filled in when writing.
pub fn content(index: &Index, key_check: [u8; 8]) -> HeadsV1 {
    let feeds = index.feeds.iter().map(|(id, feed)| FeedHeadV1 {
        feed: id.to_string(),
        lane: feed.lane.index() as u8,
        head_seq: feed.head.seq,
        head_chain: feed.head.chain,
        settled_seq: feed.settled.seq,
        settled_chain: feed.settled.chain,
        lineage: feed.lineage.clone(),
        files: feed.files,
        aged_ms: 0,
    });
    HeadsV1 { generation: 0, key_check, incarnation: index.incarnation, next_ordinal: index.next_ordinal, feeds: feeds.collect() }
}

/// The two copies.
#[derive(Debug)]
pub struct Heads {
    directory: PathBuf,
    copies: [Copy; 2],
    generation: u64,
    /// Which copy is written next.
    turn: usize,
}

#[derive(Debug)]
struct Copy {
    /// Written by this process and whole; `None`: to be replaced by a new file.
    file: Option<Box<dyn DiskFile>>,
    /// As it was found. Written in place only where a full disk leaves no other way.
    found: Option<Box<dyn DiskFile>>,
}

fn read_copy(file: &dyn DiskFile) -> io::Result<Option<HeadsV1>> {
    let len = file.len()?.min(limits::HEADS_BYTES);
    let mut bytes = vec![0u8; len as usize];
    let n = file.read_at(0, &mut bytes)?;
    Ok(decode_block(MAGIC, &bytes[..n]).map(|HeadsContent::V1(heads)| heads))
}

impl Heads {
    /// Opens both copies and returns the newest whole one. What exists but cannot be read at all is an error; a torn copy is not.
    pub fn open(disk: &dyn Disk, directory: &Path) -> io::Result<(Self, Option<HeadsV1>)> {
        let mut newest: Option<(usize, HeadsV1)> = None;
        let mut copies = [const { Copy { file: None, found: None } }; 2];
        for (i, copy) in copies.iter_mut().enumerate() {
            let file = match disk.open(&directory.join(NAMES[i])) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            // A copy that cannot be read counts as missing: the other one, or the journal, knows.
            let Ok(read) = read_copy(&*file).or_else(|_| read_copy(&*file)).or_else(|_| read_copy(&*file)) else { continue };
            if let Some(heads) = read
                && newest.as_ref().is_none_or(|(_, other)| heads.generation > other.generation)
            {
                newest = Some((i, heads));
            }
            copy.found = Some(file);
        }
        let (turn, generation) = newest.as_ref().map_or((0, 0), |(i, heads)| (1 - i, heads.generation));
        let heads = newest.map(|(_, heads)| heads);
        Ok((Self { directory: directory.to_owned(), copies, generation, turn }, heads))
    }

    /// Whether both copies exist: from then on heads can be written without allocating.
    pub fn is_complete(&self) -> bool {
        self.copies.iter().all(|copy| copy.file.is_some())
    }

    /// Writes the next generation into the older copy and syncs it.
    pub fn write(&mut self, disk: &dyn Disk, mut heads: HeadsV1) -> io::Result<()> {
        heads.generation = self.generation + 1;
        let bytes = encode_block(MAGIC, &HeadsContent::V1(heads));
        if bytes.len() as u64 > limits::HEADS_BYTES {
            return Err(io::Error::other(format!("heads take {} bytes, more than the {} preallocated", bytes.len(), limits::HEADS_BYTES)));
        }
        // Taken out: whatever fails below, this file is not written again.
        let file = match self.copies[self.turn].file.take() {
            Some(file) => in_place(file, &bytes)?,
            None => match replace(disk, &self.directory, NAMES[self.turn], &bytes) {
                Err(error) if is_full(&error) => {
                    let file = self.copies[self.turn].found.take().ok_or(error)?;
                    if let Some(other) = &self.copies[1 - self.turn].found {
                        other.sync_data()?;
                    }
                    in_place(file, &bytes)?
                }
                other => other?,
            },
        };
        self.copies[self.turn] = Copy { file: Some(file), found: None };
        self.generation += 1;
        self.turn = 1 - self.turn;
        Ok(())
    }
}

fn in_place(file: Box<dyn DiskFile>, bytes: &[u8]) -> io::Result<Box<dyn DiskFile>> {
    file.write_at(0, bytes)?;
    file.sync_data()?;
    Ok(file)
}

/// A new file in place of a copy that is missing or failed.
fn replace(disk: &dyn Disk, directory: &Path, name: &str, bytes: &[u8]) -> io::Result<Box<dyn DiskFile>> {
    let fresh = directory.join(format!("{name}.new"));
    match disk.remove(&fresh) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let file = match disk.create(&fresh, limits::HEADS_BYTES) {
        Err(error) if is_full(&error) => from_spare(disk, directory, &fresh, limits::HEADS_BYTES).map_err(|_| error)?,
        other => other?,
    };
    file.write_at(0, bytes)?;
    file.sync_data()?;
    disk.rename(&fresh, &directory.join(name))?;
    disk.sync_dir(directory)?;
    Ok(file)
}
