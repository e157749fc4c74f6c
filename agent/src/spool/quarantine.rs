//! Quarantine: sealed copies of what cannot go on, one file each, under a quota of its own.
//!
//! Two kinds end here: records the broker or the hub can never take (their seq is settled once the exception is confirmed), and bytes that could
//! not be a message at all. A copy is synced, and its name too, before anyone acts on it. When the quota is full a record's feed waits; unusable
//! bytes are only counted.
//!
//! What somebody releases or drops is removed by `kept`, which reads what is written here. A record's entry holds all that its event is made of,
//! so that it can leave later under the identity it had (version 2; entries of records of version 1 can only be dropped).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::QuarantineError;
use super::committer::stored_origin;
use super::disk::Disk;
use super::format::{self, OriginV1, SegmentId, encode_block};
use super::key::SpoolKey;
use super::small;
use crate::limits;
use crate::record::{Chain, Digest, FeedId, FileFingerprint, Incarnation, Nonce, Origin, Payload, Record};
use sha2::{Digest as _, Sha256};

pub(super) const MAGIC: [u8; 8] = *b"SWQUARA1";
pub(super) const ENDING: &str = ".q";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "one at a time")]
pub(super) enum Entry {
    V1(EntryV1),
    V2(EntryV2),
}

/// A file in quarantine; `sealed` holds the bytes, bound to the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EntryV1 {
    pub id: SegmentId,
    pub nonce: Nonce,
    pub feed: String,
    /// Absent for bytes that never were a record.
    pub record: Option<(Incarnation, u64)>,
    pub code: String,
    pub peer: String,
    pub at_ms: i64,
    pub sealed: Vec<u8>,
    pub tag: [u8; 16],
}

/// As version 1, and what else the record's event is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EntryV2 {
    pub entry: EntryV1,
    pub facts: FactsV2,
}

/// Of a record, beside its identity and its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FactsV2 {
    pub digest: Digest,
    pub chain: Chain,
    pub nonce: Nonce,
    pub control_id: Vec<u8>,
    pub origin: OriginV1,
    /// As in a record's header.
    pub flags: u32,
    pub resend_of: Option<u64>,
}

impl FactsV2 {
    pub fn of(record: &Record) -> Self {
        let repeated = matches!(&record.origin, Origin::File(file) if file.repeated);
        let flag = |holds: bool, flag: u32| if holds { flag } else { 0 };
        Self {
            digest: record.digest,
            chain: record.chain,
            nonce: record.nonce,
            control_id: record.control_id.to_vec(),
            origin: stored_origin(&record.origin),
            flags: format::stage_flag(record.stage)
                | flag(record.clock_suspect, format::FLAG_CLOCK_SUSPECT)
                | flag(record.control_id_reused, format::FLAG_CONTROL_ID_REUSED)
                | flag(record.batch_mismatch, format::FLAG_BATCH_MISMATCH)
                | flag(repeated, format::FLAG_FILE_REPEATED),
            resend_of: record.resend_of,
        }
    }
}

/// How an entry begins: what is read to list it. Field by field as [`EntryV1`], then the length of `sealed`.
#[derive(Debug, Deserialize)]
struct EntryHeadV1 {
    _id: SegmentId,
    _nonce: Nonce,
    feed: String,
    record: Option<(Incarnation, u64)>,
    code: String,
    peer: String,
    at_ms: i64,
    sealed_len: u64,
}

/// An entry as listed: no content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its name for later commands: the file's number in hexadecimal.
    pub id: String,
    pub feed: String,
    pub code: String,
    pub peer: String,
    /// RFC 3339.
    pub at: String,
    pub bytes: u64,
    /// Of the record, where it is one; its seq is settled once the hub knows.
    pub seq: Option<u64>,
    pub incarnation: Option<Incarnation>,
}

/// What goes into quarantine.
#[derive(Debug)]
pub struct Item<'a> {
    pub feed: &'a FeedId,
    /// Absent for bytes that never were one.
    pub record: Option<&'a Record>,
    pub code: &'a str,
    pub peer: &'a str,
    pub at_ms: i64,
    pub bytes: &'a [u8],
}

/// A part of a file that cannot be a record. Its name in quarantine follows from file and place, so that it is kept once however often the file
/// is gone through.
#[derive(Debug)]
pub struct Row {
    pub feed: FeedId,
    pub file: FileFingerprint,
    /// Where it begins in the file.
    pub offset: u64,
    pub code: &'static str,
    /// File and row, for people.
    pub origin: String,
    pub bytes: Payload,
}

impl Row {
    fn name(&self) -> String {
        let hash = Sha256::new().chain_update(self.feed.as_str()).chain_update([0]).chain_update(self.file.0);
        let hash: [u8; 32] = hash.chain_update(self.offset.to_be_bytes()).finalize().into();
        format!("row-{}.q", Incarnation(hash[..16].try_into().expect("half of 32 bytes")))
    }
}

/// The quarantine directory.
#[derive(Debug)]
pub struct Quarantine {
    pub(super) directory: PathBuf,
    pub(super) bytes: AtomicU64,
    bytes_max: u64,
    next: AtomicU64,
}

impl Quarantine {
    /// Counts what is there.
    pub fn open(disk: &dyn Disk, directory: PathBuf, bytes_max: u64) -> io::Result<Self> {
        let (mut bytes, mut next) = (0, 0);
        for name in disk.list(&directory)? {
            let path = directory.join(&name);
            match name.strip_suffix(".q") {
                Some(stem) => next = next.max(u64::from_str_radix(stem, 16).map_or(next, |number| number + 1)),
                None if Path::new(&name).extension().is_some_and(|extension| extension == "new") => {
                    disk.remove(&path)?;
                    continue;
                }
                None => continue,
            }
            bytes += disk.open_read(&path)?.len()?;
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

    /// Stores a row of a file, unless it is there already (false); durable when this returns `Ok`.
    pub fn put_row(&self, disk: &dyn Disk, key: &SpoolKey, row: &Row, at_ms: i64) -> Result<bool, QuarantineError> {
        let path = self.directory.join(row.name());
        let failed =
            |error: io::Error| QuarantineError::Store(format!("quarantine of {} of feed {} failed: {error}", row.origin, row.feed));
        // A name is given only to what was synced; the name itself may have been cut off from its sync.
        if disk.open_read(&path).is_ok() {
            return disk.sync_dir(&self.directory).map(|()| false).map_err(failed);
        }
        if !self.has_room(row.bytes.len() as u64, 100) {
            return Err(QuarantineError::Full);
        }
        let item = Item { feed: &row.feed, record: None, code: row.code, peer: &row.origin, at_ms, bytes: row.bytes.expose() };
        let stored = sealed_entry(key, &item).and_then(|bytes| {
            small::replace(disk, &path.with_extension("new"), &path, &bytes)?;
            self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            Ok(true)
        });
        stored.map_err(failed)
    }

    /// Entries of a feed, or of all, the newest first, at most `most`; and how many files there are. One that cannot be read is listed as such.
    pub fn list(&self, disk: &dyn Disk, feed: Option<&FeedId>, most: usize) -> io::Result<(Vec<Listed>, u64)> {
        let mut names = disk.list(&self.directory)?;
        names.retain(|name| name.strip_suffix(".q").is_some());
        names.sort_unstable_by(|a, b| b.cmp(a));
        let total = names.len() as u64;
        let mut listed = Vec::new();
        for name in names {
            let stem = name.trim_end_matches(".q");
            let entry = self.listed(disk, &name, stem).unwrap_or_else(|| unreadable(stem));
            if feed.is_none_or(|feed| feed.as_str() == entry.feed) {
                listed.push(entry);
            }
            if listed.len() >= most {
                break;
            }
        }
        Ok((listed, total))
    }

    pub(super) fn listed(&self, disk: &dyn Disk, name: &str, stem: &str) -> Option<Listed> {
        let mut head = vec![0; limits::QUARANTINE_HEAD_BYTES];
        let n = disk.open_read(&self.directory.join(name)).ok()?.read_at(0, &mut head).ok()?;
        // Magic, length, checksum, then the variant's number; both begin alike.
        let payload = head[..n].strip_prefix(&MAGIC)?.get(8..)?;
        let payload = payload.strip_prefix(&[0]).or_else(|| payload.strip_prefix(&[1]))?;
        let (entry, _) = postcard::take_from_bytes::<EntryHeadV1>(payload).ok()?;
        Some(Listed {
            id: stem.to_owned(),
            feed: entry.feed,
            code: entry.code,
            peer: entry.peer,
            at: crate::clock::rfc3339(entry.at_ms),
            bytes: entry.sealed_len,
            seq: entry.record.map(|(_, seq)| seq),
            incarnation: entry.record.map(|(incarnation, _)| incarnation),
        })
    }

    /// Stores an item; durable when this returns `Ok`.
    pub fn put(&self, disk: &dyn Disk, key: &SpoolKey, item: &Item<'_>) -> io::Result<()> {
        let bytes = sealed_entry(key, item)?;
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

/// What the seal is bound to.
pub(super) fn bound(feed: &str, code: &str) -> String {
    [feed, code].join("/")
}

fn sealed_entry(key: &SpoolKey, item: &Item<'_>) -> io::Result<Vec<u8>> {
    let mut id = SegmentId([0; 16]);
    let mut nonce = Nonce([0; 16]);
    getrandom::fill(&mut id.0).and_then(|()| getrandom::fill(&mut nonce.0)).map_err(io::Error::other)?;
    let mut sealed = item.bytes.to_vec();
    let bound = bound(item.feed.as_str(), item.code);
    let tag = key.sealer(&id).seal(&nonce, 0, bound.as_bytes(), &mut sealed);
    let entry = EntryV1 {
        id,
        nonce,
        feed: item.feed.to_string(),
        record: item.record.map(|record| (record.incarnation, record.seq)),
        code: item.code.to_owned(),
        peer: item.peer.to_owned(),
        at_ms: item.at_ms,
        sealed,
        tag,
    };
    let entry = match item.record {
        None => Entry::V1(entry),
        Some(record) => Entry::V2(EntryV2 { entry, facts: FactsV2::of(record) }),
    };
    Ok(encode_block(MAGIC, &entry))
}

/// An entry whose head makes no sense: a torn write after a power cut, or a disk that is failing.
fn unreadable(stem: &str) -> Listed {
    let (feed, peer, at) = (String::new(), String::new(), String::new());
    Listed { id: stem.to_owned(), feed, code: "unreadable".to_owned(), peer, at, bytes: 0, seq: None, incarnation: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::disk::RealDisk;
    use crate::spool::kept::tests::record;

    /// I7: the list tells what, when and why, and no byte of what lies there.
    #[test]
    fn entries_are_listed_newest_first_without_content() {
        let directory = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::open(&RealDisk, directory.path().to_owned(), limits::GIB).unwrap();
        let key = SpoolKey::load(&crate::config::settings::KeySource::Auto, directory.path(), true, &RealDisk).unwrap().0;
        let feeds = ["a", "b"].map(|name| FeedId::new(name).unwrap());
        for (n, feed) in [&feeds[0], &feeds[1], &feeds[0]].into_iter().enumerate() {
            let record = record(feed, 42);
            let item = Item {
                feed,
                record: (n == 1).then_some(&record),
                code: "no_header",
                peer: "10.0.0.1:5",
                at_ms: 1_793_491_200_000,
                bytes: b"ZEBRAFINCH^CANARY",
            };
            quarantine.put(&RealDisk, &key, &item).unwrap();
        }
        std::fs::write(directory.path().join("00000000000000ff.q"), b"torn").unwrap();
        let (all, total) = quarantine.list(&RealDisk, None, 10).unwrap();
        assert_eq!(total, 4);
        assert_eq!(all.iter().map(|e| e.feed.as_str()).collect::<Vec<_>>(), ["", "a", "b", "a"]);
        assert_eq!(all[0].code, "unreadable");
        assert_eq!(
            (all[2].seq, all[2].bytes, all[2].at.as_str(), all[2].code.as_str()),
            (Some(42), 17, "2026-11-01T00:00:00.000Z", "no_header")
        );
        assert!(!serde_json::to_string(&all).unwrap().contains("CANARY"));
        assert_eq!(quarantine.list(&RealDisk, Some(&feeds[1]), 10).unwrap().0.len(), 1);
        assert_eq!(quarantine.list(&RealDisk, None, 2).unwrap().0.len(), 2);
    }
}
