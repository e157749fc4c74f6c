//! What lies in quarantine, and how it ends: read to be released, removed when it is released or dropped.
//!
//! 1. [`Kept::choose`] names entries: records of a feed by a range of seqs, the oldest first, or entries by their ids.
//! 2. [`Kept::record`] opens the entry of a record: the same identity, digest and chain that its exception was told with, so that the hub puts the
//!    event into the place that was left open. Bytes whose digest does not fit are never given out.
//! 3. [`Kept::remove`] takes an entry away for good. Whoever releases calls it only when the event has been acknowledged: a crash in between sends
//!    the event again under the same identity, which the hub knows for a duplicate.
//!
//! 4. [`Kept::bytes`] opens any entry, for a person who may see it (`siteward quarantine show --content`).
//!
//! Blocking; the only one that removes from the directory. What cannot be read can be dropped by its id, never released.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::format::{self, decode_block};
use super::index::Shared;
use super::quarantine::{ENDING, Entry, EntryV2, Listed, MAGIC, Quarantine, bound};
use super::reader::origin_of;
use crate::limits::QUARANTINE_CHOSEN_MAX;
use crate::record::{Digest, FeedId, Payload, Record};
use crate::status::condition::Code;

/// Which entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Records of a feed, both ends included.
    Records { feed: FeedId, first: u64, last: u64 },
    /// By their ids as they are listed.
    Entries(Vec<String>),
}

/// Why an entry cannot be given out.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    #[error("it cannot be read: {0}; check the disk")]
    Io(#[from] io::Error),
    #[error("it is damaged; it can only be dropped")]
    Damaged,
    #[error("it never was a record; it can only be dropped")]
    NoRecord,
    #[error("it was written by an earlier version, without what its event is made of; it can only be dropped")]
    TooOld,
}

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Kept {
    shared: Arc<Shared>,
    quarantine: Arc<Quarantine>,
}

impl Kept {
    pub(super) fn new(shared: Arc<Shared>, quarantine: Arc<Quarantine>) -> Self {
        Self { shared, quarantine }
    }

    /// The chosen entries, records in the order of their seqs; at most [`QUARANTINE_CHOSEN_MAX`], and whether there are more.
    pub fn choose(&self, choice: &Choice) -> io::Result<(Vec<Listed>, bool)> {
        let disk = &*self.shared.disk;
        let mut names = disk.list(&self.quarantine.directory)?;
        names.retain(|name| name.ends_with(ENDING));
        let mut chosen = Vec::new();
        for name in &names {
            let stem = name.trim_end_matches(ENDING);
            match choice {
                Choice::Entries(ids) if ids.iter().any(|id| id == stem) => {
                    let unreadable = || Listed { id: stem.to_owned(), ..Listed::default() };
                    chosen.push(self.quarantine.listed(disk, name, stem).unwrap_or_else(unreadable));
                }
                Choice::Entries(_) => {}
                Choice::Records { feed, first, last } => {
                    let listed = self.quarantine.listed(disk, name, stem);
                    let is_one = |e: &Listed| e.feed == feed.as_str() && e.seq.is_some_and(|seq| (*first..=*last).contains(&seq));
                    chosen.extend(listed.filter(is_one));
                }
            }
        }
        chosen.sort_by(|a, b| (a.seq, &a.id).cmp(&(b.seq, &b.id)));
        let more = chosen.len() > QUARANTINE_CHOSEN_MAX;
        chosen.truncate(QUARANTINE_CHOSEN_MAX);
        Ok((chosen, more))
    }

    /// The record in an entry.
    pub fn record(&self, entry: &Listed) -> Result<Record, KeptError> {
        let file = self.shared.disk.open_read(&self.quarantine.directory.join(format!("{}{ENDING}", entry.id)))?;
        let mut bytes = vec![0; usize::try_from(file.len()?).map_err(|_| KeptError::Damaged)?];
        let n = file.read_at(0, &mut bytes)?;
        bytes.truncate(n);
        match decode_block(MAGIC, &bytes).ok_or(KeptError::Damaged)? {
            Entry::V1(entry) => Err(if entry.record.is_some() { KeptError::TooOld } else { KeptError::NoRecord }),
            Entry::V2(entry) => self.unsealed(entry),
        }
    }

    /// The bytes of an entry, also of one that never was a record.
    pub fn bytes(&self, entry: &Listed) -> Result<Payload, KeptError> {
        let file = self.shared.disk.open_read(&self.quarantine.directory.join(format!("{}{ENDING}", entry.id)))?;
        let mut bytes = vec![0; usize::try_from(file.len()?).map_err(|_| KeptError::Damaged)?];
        let n = file.read_at(0, &mut bytes)?;
        bytes.truncate(n);
        let (Entry::V1(entry) | Entry::V2(EntryV2 { entry, .. })) = decode_block(MAGIC, &bytes).ok_or(KeptError::Damaged)?;
        let mut body = entry.sealed;
        let sealer = self.shared.key.sealer(&entry.id);
        let bound = bound(&entry.feed, &entry.code);
        sealer.open(&entry.nonce, 0, bound.as_bytes(), &mut body, &entry.tag).map_err(|_| KeptError::Damaged)?;
        Ok(Payload::new(body.into()))
    }

    fn unsealed(&self, entry: EntryV2) -> Result<Record, KeptError> {
        let EntryV2 { entry, facts } = entry;
        let mut body = entry.sealed;
        let sealer = self.shared.key.sealer(&entry.id);
        let bound = bound(&entry.feed, &entry.code);
        sealer.open(&entry.nonce, 0, bound.as_bytes(), &mut body, &entry.tag).map_err(|_| KeptError::Damaged)?;
        let (incarnation, seq) = entry.record.ok_or(KeptError::NoRecord)?;
        if Digest::of(&facts.nonce, &body) != facts.digest {
            return Err(KeptError::Damaged);
        }
        Ok(Record {
            feed: FeedId::new(&entry.feed).map_err(|_| KeptError::Damaged)?,
            incarnation,
            seq,
            digest: facts.digest,
            chain: facts.chain,
            nonce: facts.nonce,
            control_id: facts.control_id.into(),
            origin: origin_of(&facts.origin, facts.flags),
            received_at_ms: entry.at_ms,
            clock_suspect: facts.flags & format::FLAG_CLOCK_SUSPECT != 0,
            control_id_reused: facts.flags & format::FLAG_CONTROL_ID_REUSED != 0,
            stage: format::stage_of(facts.flags),
            batch_mismatch: facts.flags & format::FLAG_BATCH_MISMATCH != 0,
            resend_of: facts.resend_of,
            body: Payload::new(body.into()),
        })
    }

    /// Removes an entry; durable when this returns.
    pub fn remove(&self, entry: &Listed) -> io::Result<()> {
        let path = self.quarantine.directory.join(format!("{}{ENDING}", entry.id));
        let bytes = self.size(&path);
        self.shared.disk.remove(&path)?;
        self.quarantine.bytes.fetch_sub(bytes.min(self.quarantine.bytes()), Ordering::Relaxed);
        self.shared.disk.sync_dir(&self.quarantine.directory)
    }

    fn size(&self, path: &Path) -> u64 {
        self.shared.disk.open_read(path).and_then(|file| file.len()).unwrap_or(0)
    }

    /// The conditions after something was taken away: nothing is there any more, or so much.
    pub fn tell(&self) {
        let Ok(names) = self.shared.disk.list(&self.quarantine.directory) else { return };
        let left = names.iter().filter(|name| name.ends_with(ENDING)).count();
        let board = &self.shared.board;
        if left > 0 {
            board.raise(Code::QuarantineNotEmpty, "", format!("{left} entries are in quarantine; read their reasons and decide"));
            return;
        }
        for condition in board.conditions().iter().filter(|condition| condition.code == Code::QuarantineNotEmpty.as_str()) {
            board.clear(Code::QuarantineNotEmpty, &condition.subject);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::record::{Chain, Incarnation, Nonce, Origin, Stage};
    use crate::spool::quarantine::Item;
    use crate::spool::{Options, StateChoice, disk::RealDisk, open_with};
    use crate::status::board::Board;

    pub fn record(feed: &FeedId, seq: u64) -> Record {
        let (nonce, body) = (Nonce([5; 16]), b"ZEBRAFINCH^CANARY".to_vec());
        let digest = Digest::of(&nonce, &body);
        Record {
            feed: feed.clone(),
            incarnation: Incarnation([7; 16]),
            seq,
            digest,
            chain: Chain::GENESIS.after(seq, &digest),
            nonce,
            control_id: bytes::Bytes::from_static(b"MSG1"),
            origin: Origin::Peer("10.0.0.1:5".into()),
            received_at_ms: 1_793_491_200_000,
            clock_suspect: true,
            control_id_reused: false,
            stage: Stage::Shadow,
            batch_mismatch: true,
            resend_of: Some(3),
            body: Payload::new(body.into()),
        }
    }

    fn open(directory: &Path) -> (Kept, Arc<Quarantine>, Arc<Shared>) {
        let options = Options {
            path: directory.join("spool"),
            max_bytes: None,
            key: crate::config::settings::KeySource::Auto,
            message_bytes_max: 1 << 20,
            feeds: Vec::new(),
        };
        let parts = open_with(options, Arc::new(RealDisk), StateChoice::None, &Board::new([])).unwrap();
        (Kept::new(parts.shared.clone(), parts.quarantine.clone()), parts.quarantine, parts.shared)
    }

    /// I3, I8: what is released has identity, digest, chain and bytes of the record that was kept back.
    #[test]
    fn a_record_comes_out_as_it_went_in_and_a_removed_one_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let (kept, quarantine, shared) = open(directory.path());
        let feed = FeedId::new("a").unwrap();
        for seq in [9, 7, 8] {
            let record = record(&feed, seq);
            let (at_ms, bytes) = (record.received_at_ms, record.body.expose());
            let item = Item { feed: &feed, record: Some(&record), code: "oversize", peer: "10.0.0.1:5", at_ms, bytes };
            quarantine.put(&*shared.disk, &shared.key, &item).unwrap();
        }
        let frame = Item { feed: &feed, record: None, code: "no_header", peer: "p", at_ms: 0, bytes: b"x" };
        quarantine.put(&*shared.disk, &shared.key, &frame).unwrap();
        let (chosen, more) = kept.choose(&Choice::Records { feed: feed.clone(), first: 8, last: 100 }).unwrap();
        assert_eq!((chosen.iter().map(|e| e.seq).collect::<Vec<_>>(), more), (vec![Some(8), Some(9)], false));
        let (came, went) = (kept.record(&chosen[0]).unwrap(), record(&feed, 8));
        assert_eq!((came.digest, came.chain, came.seq, came.incarnation), (went.digest, went.chain, 8, went.incarnation));
        assert_eq!((came.body.expose(), &came.control_id, came.resend_of), (went.body.expose(), &went.control_id, went.resend_of));
        assert_eq!((came.stage, came.clock_suspect, came.batch_mismatch), (Stage::Shadow, true, true));
        let before = quarantine.bytes();
        kept.remove(&chosen[0]).unwrap();
        assert!(quarantine.bytes() < before);
        assert!(matches!(kept.record(&chosen[0]), Err(KeptError::Io(_))));
        let all = quarantine.list(&*shared.disk, None, 10).unwrap().0;
        let frame = all.iter().find(|entry| entry.seq.is_none()).unwrap();
        assert!(matches!(kept.record(frame), Err(KeptError::NoRecord)));
        let ids = Choice::Entries(vec![frame.id.clone(), "../../spool".into()]);
        assert_eq!(kept.choose(&ids).unwrap().0.len(), 1, "a name that is not in the directory is nothing");
    }

    /// I9: bytes that are not the record's are never given out as it.
    #[test]
    fn a_damaged_entry_can_only_be_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let (kept, quarantine, shared) = open(directory.path());
        let feed = FeedId::new("a").unwrap();
        let record = record(&feed, 1);
        let item = Item { feed: &feed, record: Some(&record), code: "c", peer: "p", at_ms: 0, bytes: b"other bytes" };
        quarantine.put(&*shared.disk, &shared.key, &item).unwrap();
        let (chosen, _) = kept.choose(&Choice::Records { feed, first: 1, last: 1 }).unwrap();
        assert!(matches!(kept.record(&chosen[0]), Err(KeptError::Damaged)));
        kept.remove(&chosen[0]).unwrap();
    }
}
