//! What the state database holds of the dedupe window: the answers of consecutive records, a few together under one key.
//!
//! ```text
//!   'w' feed8 first_seq8 → version, incarnation, through, [seq, identity16, body16, reply]…      about `DEDUPE_CHUNK_BYTES`
//!   'i'                  → incarnation          the opening of the spool that used the database last
//!   'r' feed             → seq                  being read back: the window may have holes above this seq
//! ```
//!
//! New records lead to keys at the end of their feed's range, which is what a tree takes best; looking one up is one descent. A chunk covers every
//! seq from its key to `through`; records without a sender identity are covered, but have no entry. Values are small because sled keeps a number of
//! pages in memory, whatever they weigh; answers are stored as the difference to the one before (`delta`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::backwards::Numbered;
use super::key::Fingerprint;
use super::window::Window;
use super::{delta, format};
use crate::limits;
use crate::record::{FeedId, Incarnation};

/// The opening of the spool that used the database last, and the one before it.
pub const USED_BY: &[u8] = b"i";
/// Before the name of a feed that is being read back.
pub const READING_BACK: &[u8] = b"r";

/// Chunks forgotten at most per save: more than a save can add.
const FORGET_CHUNKS_PER_SAVE: usize = 2 * limits::BATCH_RECORDS_MAX;

/// One remembered record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryV1 {
    pub seq: u64,
    pub identity: [u8; 16],
    pub body: [u8; 16],
    /// The positive answer, as the difference to that of the entry before.
    reply: Vec<u8>,
}

impl EntryV1 {
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint { identity: self.identity, body: self.body }
    }

    fn len(&self) -> usize {
        self.reply.len() + 40
    }
}

/// Consecutive records of one feed and one incarnation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkV1 {
    pub incarnation: Incarnation,
    /// The last seq it covers.
    pub through: u64,
    pub entries: Vec<EntryV1>,
}

#[derive(Serialize, Deserialize)]
enum Chunk {
    V1(ChunkV1),
}

impl ChunkV1 {
    pub fn encode(self) -> Vec<u8> {
        postcard::to_stdvec(&Chunk::V1(self)).expect("serialising to memory cannot fail")
    }

    /// Fingerprint and answer of `seq`.
    fn entry(&self, seq: u64) -> Option<(Fingerprint, Vec<u8>)> {
        let mut reply = Vec::new();
        for entry in &self.entries {
            reply = delta::decode(&reply, &entry.reply, limits::REPLY_BYTES_MAX)?;
            if entry.seq == seq {
                return Some((entry.fingerprint(), reply));
            }
        }
        None
    }

    /// The same without the records `first..=last`.
    fn without(&self, first: u64, last: u64) -> Self {
        let mut reply = Vec::new();
        let mut kept = Self { entries: Vec::new(), ..*self };
        let mut before = Vec::new();
        for entry in &self.entries {
            let Some(this) = delta::decode(&reply, &entry.reply, limits::REPLY_BYTES_MAX) else { break };
            if !(first..=last).contains(&entry.seq) {
                kept.entries.push(EntryV1 { reply: delta::encode(&before, &this), ..*entry });
                before.clone_from(&this);
            }
            reply = this;
        }
        kept
    }

    /// `None` for anything that is not a whole chunk.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        format::from_postcard(bytes).map(|Chunk::V1(chunk)| chunk)
    }
}

/// Where a feed's chunks begin.
pub fn prefix(feed: &FeedId) -> [u8; 9] {
    let hash = Sha256::digest(feed.as_str().as_bytes());
    let mut key = [b'w'; 9];
    key[1..].copy_from_slice(&hash[..8]);
    key
}

pub fn key(prefix: &[u8; 9], first: u64) -> [u8; 17] {
    let mut key = [0; 17];
    key[..9].copy_from_slice(prefix);
    key[9..].copy_from_slice(&first.to_be_bytes());
    key
}

/// Brings records of one feed together, in the order of their seqs.
#[derive(Debug, Default)]
pub struct Chunks {
    done: Vec<(u64, ChunkV1)>,
    bytes: usize,
    /// The answer of the last entry in the last chunk.
    reply: Vec<u8>,
}

impl Chunks {
    /// Takes the next record; `print` is `None` where it has no identity. A seq that does not follow the last begins a new chunk.
    pub fn push(&mut self, seq: u64, incarnation: Incarnation, print: Option<Fingerprint>, reply: &[u8]) {
        let continues = self.done.last().is_some_and(|(_, chunk)| chunk.through + 1 == seq && chunk.incarnation == incarnation);
        // An answer of ordinary size costs less than this, being a difference; an extraordinary one is alone.
        let is_ordinary = reply.len() <= limits::DEDUPE_CHUNK_BYTES;
        if !continues || !is_ordinary || self.bytes >= limits::DEDUPE_CHUNK_BYTES {
            self.done.push((seq, ChunkV1 { incarnation, through: seq, entries: Vec::new() }));
            self.bytes = 0;
            self.reply.clear();
        }
        let (_, chunk) = self.done.last_mut().expect("just made");
        chunk.through = seq;
        if let Some(print) = print {
            let entry = EntryV1 { seq, identity: print.identity, body: print.body, reply: delta::encode(&self.reply, reply) };
            self.bytes += if is_ordinary { entry.len() } else { limits::DEDUPE_CHUNK_BYTES };
            self.reply = reply.to_vec();
            chunk.entries.push(entry);
        }
    }

    /// Takes the next records, all of them without an identity.
    pub fn cover(&mut self, first: u64, last: u64, incarnation: Incarnation) {
        self.push(first, incarnation, None, &[]);
        let (_, chunk) = self.done.last_mut().expect("the record before is in it");
        chunk.through = last;
    }

    /// Covers a record without an entry if it follows the last one; begins no chunk, because that could hide a part of one that exists.
    pub fn extend(&mut self, seq: u64, incarnation: Incarnation) {
        if let Some((_, chunk)) = self.done.last_mut().filter(|(_, c)| c.through + 1 == seq && c.incarnation == incarnation) {
            chunk.through = seq;
        }
    }

    /// First seq and chunk.
    pub fn finish(self) -> Vec<(u64, ChunkV1)> {
        self.done
    }
}

/// What a feed's newest chunk says.
#[derive(Debug)]
pub struct Covers {
    pub incarnation: Incarnation,
    pub through: u64,
    /// The window may have holes above this seq.
    pub holes_above: Option<u64>,
}

impl Covers {
    /// Everything up to here is remembered.
    pub fn complete_through(&self) -> u64 {
        self.holes_above.map_or(self.through, |seq| seq.min(self.through))
    }
}

/// What the database covers, feed by feed.
pub fn covered<'a>(db: &sled::Db, feeds: impl Iterator<Item = &'a FeedId>) -> sled::Result<BTreeMap<FeedId, Covers>> {
    let mut covered = BTreeMap::new();
    for feed in feeds {
        let Some((_, value)) = Numbered::new(db, &prefix(feed)).last(0, u64::MAX)? else { continue };
        let Some(newest) = ChunkV1::decode(&value) else { continue };
        let holes = db.get([READING_BACK, feed.as_str().as_bytes()].concat())?;
        let holes_above = holes.map(|seq| seq.as_ref().try_into().map_or(0, u64::from_be_bytes));
        covered.insert(feed.clone(), Covers { incarnation: newest.incarnation, through: newest.through, holes_above });
    }
    Ok(covered)
}

/// Reads the hashes of a feed, newest first, as many as the window takes.
pub fn load(db: &sled::Db, feed: &FeedId, window: &mut Window) -> sled::Result<()> {
    let mut count = 0;
    for item in Numbered::new(db, &prefix(feed)).newest_first(0, u64::MAX) {
        let Some(chunk) = ChunkV1::decode(&item?.1) else { continue };
        for entry in chunk.entries.iter().rev() {
            window.insert(feed, &entry.fingerprint(), entry.seq);
            count += 1;
        }
        if count >= limits::DEDUPE_IDS_PER_FEED {
            break;
        }
    }
    Ok(())
}

/// Fingerprint, incarnation and answer of a record, if they are held.
pub fn read_entry(db: &sled::Db, feed: &FeedId, seq: u64) -> sled::Result<Option<(Fingerprint, Incarnation, Vec<u8>)>> {
    let Some((_, value)) = Numbered::new(db, &prefix(feed)).last(0, seq)? else { return Ok(None) };
    Ok(ChunkV1::decode(&value).and_then(|chunk| chunk.entry(seq).map(|(print, reply)| (print, chunk.incarnation, reply))))
}

/// Writes new chunks, and forgets those that have left the window.
pub fn put(db: &sled::Db, feed: &FeedId, chunks: Chunks) -> sled::Result<()> {
    let chunks = chunks.finish();
    let newest = chunks.last().map_or(0, |(_, chunk)| chunk.through);
    put_all(db, feed, chunks)?;
    let prefix = prefix(feed);
    let oldest = newest.saturating_sub(limits::DEDUPE_IDS_PER_FEED);
    for old in db.range(prefix.to_vec()..key(&prefix, oldest).to_vec()).keys().take(FORGET_CHUNKS_PER_SAVE) {
        db.remove(old?)?;
    }
    Ok(())
}

/// Writes chunks.
pub fn put_all(db: &sled::Db, feed: &FeedId, chunks: Vec<(u64, ChunkV1)>) -> sled::Result<()> {
    let prefix = prefix(feed);
    chunks.into_iter().try_for_each(|(first, chunk)| db.insert(key(&prefix, first), chunk.encode()).map(drop))
}

/// Takes the entries of `first..=last` out of their chunks.
pub fn cut_out(db: &sled::Db, feed: &FeedId, first: u64, last: u64) -> sled::Result<()> {
    let prefix = prefix(feed);
    let begin = Numbered::new(db, &prefix).last(0, first)?.map_or(first, |(begin, _)| begin);
    for item in db.range(key(&prefix, begin)..=key(&prefix, last)) {
        let (at, value) = item?;
        let Some(chunk) = ChunkV1::decode(&value) else { continue };
        db.insert(at, chunk.without(first, last).encode())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(seq: u64) -> Fingerprint {
        Fingerprint { identity: [seq as u8; 16], body: [seq as u8 + 1; 16] }
    }

    fn reply(seq: u64) -> Vec<u8> {
        format!("{:120}MSA|AA|{seq}\r", "MSH|").into_bytes()
    }

    fn chunks(seqs: std::ops::Range<u64>) -> Vec<(u64, ChunkV1)> {
        let mut chunks = Chunks::default();
        seqs.for_each(|seq| chunks.push(seq, Incarnation([3; 16]), Some(print(seq)), &reply(seq)));
        chunks.finish()
    }

    #[test]
    fn consecutive_records_share_a_chunk_up_to_its_size() {
        let chunks = chunks(10..110);
        assert!((4..12).contains(&chunks.len()), "{}", chunks.len());
        let seqs: Vec<u64> = chunks.iter().flat_map(|(_, chunk)| chunk.entries.iter().map(|e| e.seq)).collect();
        assert_eq!(seqs, (10..110).collect::<Vec<_>>());
        assert!(chunks.windows(2).all(|pair| pair[0].1.through + 1 == pair[1].0));
        assert!(chunks.iter().all(|(_, chunk)| chunk.entries.iter().all(|e| chunk.entry(e.seq) == Some((print(e.seq), reply(e.seq))))));
    }

    #[test]
    fn the_longest_answers_still_make_values_that_sled_keeps_in_its_file() {
        let mut chunks = Chunks::default();
        let noise = |seq: u64| (0..limits::REPLY_BYTES_MAX).map(|n| (n as u64 * seq) as u8).collect::<Vec<_>>();
        (1..50).for_each(|seq| chunks.push(seq, Incarnation([3; 16]), Some(print(seq)), &noise(seq)));
        assert!(chunks.finish().into_iter().all(|(_, chunk)| chunk.encode().len() <= limits::STATE_VALUE_BYTES_MAX));
    }

    #[test]
    fn what_is_cut_out_leaves_the_others_as_they_were() {
        let (_, chunk) = chunks(10..20).remove(0);
        let cut = chunk.without(10, 13);
        assert!((10..=13).all(|seq| cut.entry(seq).is_none()));
        assert!((14..20).all(|seq| cut.entry(seq) == Some((print(seq), reply(seq)))));
        assert_eq!(cut.through, chunk.through);
    }

    #[test]
    fn a_hole_or_another_incarnation_begins_a_chunk() {
        let mut chunks = Chunks::default();
        for (seq, incarnation) in [(1, 1), (2, 1), (4, 1), (5, 2)] {
            chunks.push(seq, Incarnation([incarnation; 16]), None, &[]);
        }
        let found: Vec<(u64, u64)> = chunks.finish().iter().map(|(first, chunk)| (*first, chunk.through)).collect();
        assert_eq!(found, [(1, 2), (4, 4), (5, 5)]);
    }

    #[test]
    fn a_chunk_is_read_as_it_was_written_and_not_from_anything_else() {
        let (_, chunk) = chunks(7..9).remove(0);
        let bytes = chunk.clone().encode();
        assert_eq!(ChunkV1::decode(&bytes), Some(chunk));
        assert_eq!(ChunkV1::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(ChunkV1::decode(b"\x07rubbish"), None);
    }

    #[test]
    fn keys_are_in_the_order_of_seqs() {
        let feed = prefix(&FeedId::new("a").unwrap());
        assert!(key(&feed, 255) < key(&feed, 256));
    }
}
