//! Quarantine: sealed copies of what cannot go on, one file each, under a quota of its own.
//!
//! Two kinds end here: records the broker or the hub can never take (their seq is settled once the exception is confirmed), and bytes that could
//! not be a message at all. A copy is synced, and its name too, before anyone acts on it. When the quota is full a record's feed waits; unusable
//! bytes are only counted.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::disk::Disk;
use super::format::{SegmentId, encode_block};
use super::key::SpoolKey;
use crate::limits;
use crate::record::{FeedId, Incarnation, Nonce};

const MAGIC: [u8; 8] = *b"SWQUARA1";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Entry {
    V1(EntryV1),
}

/// A file in quarantine; `sealed` holds the bytes, bound to the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct EntryV1 {
    id: SegmentId,
    nonce: Nonce,
    feed: String,
    /// Absent for bytes that never were a record.
    record: Option<(Incarnation, u64)>,
    code: String,
    peer: String,
    at_ms: i64,
    sealed: Vec<u8>,
    tag: [u8; 16],
}

/// What goes into quarantine.
#[derive(Debug)]
pub struct Item<'a> {
    pub feed: &'a FeedId,
    pub record: Option<(Incarnation, u64)>,
    pub code: &'a str,
    pub peer: &'a str,
    pub at_ms: i64,
    pub bytes: &'a [u8],
}

/// The quarantine directory.
#[derive(Debug)]
pub struct Quarantine {
    directory: PathBuf,
    bytes: AtomicU64,
    bytes_max: u64,
    next: AtomicU64,
}

impl Quarantine {
    /// Counts what is there.
    pub fn open(disk: &dyn Disk, directory: PathBuf, bytes_max: u64) -> io::Result<Self> {
        let (mut bytes, mut next) = (0, 0);
        for name in disk.list(&directory)? {
            let Some(number) = name.strip_suffix(".q").and_then(|stem| u64::from_str_radix(stem, 16).ok()) else { continue };
            next = next.max(number + 1);
            bytes += disk.open_read(&directory.join(&name))?.len()?;
        }
        Ok(Self { directory, bytes: AtomicU64::new(bytes), bytes_max, next: AtomicU64::new(next) })
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Entries ever made in this spool.
    pub fn entries(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Whether `bytes` more fit into `share` per cent of the quota.
    pub fn has_room(&self, bytes: u64, share: u64) -> bool {
        self.bytes() + bytes + 4 * limits::KIB <= self.bytes_max / 100 * share
    }

    /// Stores an item; durable when this returns `Ok`.
    pub fn put(&self, disk: &dyn Disk, key: &SpoolKey, item: &Item<'_>) -> io::Result<()> {
        let mut id = SegmentId([0; 16]);
        let mut nonce = Nonce([0; 16]);
        getrandom::fill(&mut id.0).and_then(|()| getrandom::fill(&mut nonce.0)).map_err(io::Error::other)?;
        let mut sealed = item.bytes.to_vec();
        let bound = [item.feed.as_str(), item.code].join("/");
        let tag = key.sealer(&id).seal(&nonce, 0, bound.as_bytes(), &mut sealed);
        let entry = EntryV1 {
            id,
            nonce,
            feed: item.feed.to_string(),
            record: item.record,
            code: item.code.to_owned(),
            peer: item.peer.to_owned(),
            at_ms: item.at_ms,
            sealed,
            tag,
        };
        let bytes = encode_block(MAGIC, &Entry::V1(entry));
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(format!("{number:016x}.q"));
        let file = disk.create(&path, bytes.len() as u64)?;
        file.write_at(0, &bytes)?;
        file.sync_data()?;
        disk.sync_dir(&self.directory)?;
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}
