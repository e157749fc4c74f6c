//! Keyed state in sled: the dedupe window with the stored answers. Rebuildable from the journal, so losing it costs duplicates, never a record.
//!
//! sled never decides a seq, a chain or a mark. Its trouble is contained here: every call runs under `catch_unwind`; an error or a panic closes
//! the database, sets its directory aside and starts an empty one; where even that fails (full disk) the agent runs without it, says so
//! (`state_unavailable`) and tries again every minute.
//!
//! ```text
//!   'd' feed8 identity16 body16 → seq ‖ incarnation ‖ reply      what was answered
//!   'o' feed8 seq               → identity16 body16              to forget the oldest: the window is the last 100,000 ids of a feed
//!   'c' feed                    → incarnation, seq               the window is complete through here
//!   'i'                         → incarnation                    the opening of the spool that used it last
//! ```
//!
//! On opening, what the journal holds above `'c'` is read back, newest first: some 30,000 records at once, the rest a few at a time between batches
//! (`dedupe_incomplete`). A window that claims more than the journal holds, or was not there at the last opening, belongs to another history (restored image, lost tail)
//! and is thrown away. A hit counts only below the feed's durable head, and a record that was lost is forgotten, so that its resend heals.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::format;
use super::index::Shared;
use super::key::Fingerprint;
use super::scan::Scan;
use crate::limits;
use crate::record::{FeedId, Incarnation, Lane};
use crate::status::board::Board;
use crate::status::condition::Code;

/// Records read back per step.
const REBUILD_RECORDS_PER_STEP: usize = 256;
/// Steps before the spool is open; the rest goes on between batches.
const REBUILD_STEPS_AT_START: usize = 128;
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// What is known of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Known {
    New {
        /// The sender used this identity before, for another body.
        identity_seen: bool,
    },
    Duplicate {
        seq: u64,
        reply: Vec<u8>,
    },
}

/// A record to remember.
#[derive(Debug)]
pub struct Remembered<'a> {
    pub feed: &'a FeedId,
    pub fingerprint: Fingerprint,
    pub seq: u64,
    pub incarnation: Incarnation,
    pub reply: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Covers {
    incarnation: Incarnation,
    seq: u64,
}

/// Reading back one feed's part of the journal.
#[derive(Debug)]
struct Rebuild {
    /// Per feed: what is above this seq is to be read back.
    above: BTreeMap<FeedId, u64>,
    /// Segments to read, the newest last (they are popped).
    segments: Vec<(Lane, u64)>,
    current: Option<(Scan, super::key::Sealer, Incarnation, u64)>,
}

/// A handle on the database that other threads may sync.
pub type Database = Arc<Mutex<Option<sled::Db>>>;

/// The state, or its absence.
#[derive(Debug)]
pub struct State {
    directory: Option<PathBuf>,
    db: Database,
    board: Arc<Board>,
    retry_at: Option<Instant>,
    rebuild: Option<Rebuild>,
    /// The incarnation before this one, as the heads on disk said.
    before: Option<Incarnation>,
}

fn guarded<T>(what: &str, run: impl FnOnce() -> sled::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(format!("{what}: {error}")),
        Err(_) => Err(format!("{what}: the database panicked")),
    }
}

fn feed_tag(feed: &FeedId) -> [u8; 8] {
    let hash = Sha256::digest(feed.as_str().as_bytes());
    hash[..8].try_into().expect("8 of 32")
}

fn identity_key(feed: &FeedId, identity: &[u8; 16]) -> Vec<u8> {
    [&b"d"[..], &feed_tag(feed), identity].concat()
}

fn message_key(feed: &FeedId, print: &Fingerprint) -> Vec<u8> {
    [&b"d"[..], &feed_tag(feed), &print.identity, &print.body].concat()
}

fn order_key(feed: &FeedId, seq: u64) -> Vec<u8> {
    [&b"o"[..], &feed_tag(feed), &seq.to_be_bytes()].concat()
}

fn covers_key(feed: &FeedId) -> Vec<u8> {
    [b"c", feed.as_str().as_bytes()].concat()
}

fn value(seq: u64, incarnation: Incarnation, reply: &[u8]) -> Vec<u8> {
    [&seq.to_be_bytes()[..], &incarnation.0, reply].concat()
}

fn read_value(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let seq = u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?);
    Some((seq, bytes.get(24..)?))
}

/// Opens the database, waiting for a lock that a killed predecessor releases late.
fn open_database(directory: &Path) -> Result<sled::Db, String> {
    let deadline = Instant::now() + limits::STATE_LOCK_RETRY;
    loop {
        let config = sled::Config::new().path(directory).cache_capacity(limits::STATE_CACHE_BYTES).flush_every_ms(Some(500));
        match guarded("opening", || config.open()) {
            Err(text) if text.contains("could not acquire lock") && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(50));
            }
            other => return other,
        }
    }
}

/// Moves a database that cannot be opened out of the way; one such is kept.
fn set_aside(directory: &Path) -> std::io::Result<()> {
    let aside = directory.with_extension("broken");
    match std::fs::remove_dir_all(&aside) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    std::fs::rename(directory, aside)
}

impl State {
    /// Without a database: no duplicates are recognised.
    pub fn none(board: Arc<Board>) -> Self {
        Self { directory: None, db: Arc::default(), board, retry_at: None, rebuild: None, before: None }
    }

    /// Opens or makes the database in `directory` and finds out what must be read back from the journal.
    pub fn open(directory: PathBuf, before: Option<Incarnation>, shared: &Shared) -> Self {
        let board = shared.board.clone();
        let mut state = Self { directory: Some(directory), db: Arc::default(), board, retry_at: None, rebuild: None, before };
        state.connect(shared);
        // What a killed process had not handed to the database yet is read back before the first message: its senders send again at once.
        for _ in 0..REBUILD_STEPS_AT_START {
            if !state.rebuild_step(shared) {
                break;
            }
        }
        state
    }

    pub fn database(&self) -> Database {
        self.db.clone()
    }

    fn handle(&self) -> Option<sled::Db> {
        self.db.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_handle(&self, db: Option<sled::Db>) {
        let old = std::mem::replace(&mut *self.db.lock().unwrap_or_else(PoisonError::into_inner), db);
        // sled syncs in drop and panics where that fails; the outcome does not matter any more.
        if catch_unwind(AssertUnwindSafe(move || drop(old))).is_err() {
            tracing::warn!("the state database panicked while it was closed");
        }
    }

    fn connect(&mut self, shared: &Shared) {
        let Some(directory) = self.directory.clone() else { return };
        let opened = open_database(&directory).or_else(|error| {
            let text = format!(
                "the state database was set aside and is rebuilt; a resent message may have been stored twice; check the disk: {error}"
            );
            self.board.raise(Code::StateSetAside, "", text);
            set_aside(&directory).map_err(|error| format!("setting {} aside: {error}", directory.display()))?;
            open_database(&directory)
        });
        match opened {
            Ok(db) => {
                self.set_handle(Some(db));
                self.retry_at = None;
                self.plan_rebuild(shared);
                self.board.clear(Code::StateUnavailable, "");
            }
            Err(error) => self.lose(&error),
        }
    }

    /// Goes on without the database.
    fn lose(&mut self, error: &str) {
        self.set_handle(None);
        self.rebuild = None;
        self.retry_at = Some(Instant::now() + RETRY_AFTER);
        self.board.raise(
            Code::StateUnavailable,
            "",
            format!("the state database cannot be used ({error}); resent messages are stored again until it is back; check the disk"),
        );
    }

    /// Compares what the window covers with the journal, and lists what must be read back.
    fn plan_rebuild(&mut self, shared: &Shared) {
        let Some(db) = self.handle() else { return };
        let read = guarded("reading the covered positions", || db.scan_prefix(b"c").collect::<sled::Result<Vec<_>>>());
        let entries = match read {
            Ok(entries) => entries,
            Err(error) => return self.lose(&error),
        };
        let mut covered = BTreeMap::new();
        for (key, value) in entries {
            let name = std::str::from_utf8(&key[1..]).ok().and_then(|name| FeedId::new(name).ok());
            if let (Some(feed), Some(covers)) = (name, format::from_postcard::<Covers>(&value)) {
                covered.insert(feed, covers);
            }
        }
        let used_by = match guarded("reading the last incarnation", || db.get(b"i")) {
            Ok(value) => value,
            Err(error) => return self.lose(&error),
        };
        let index = shared.index();
        let now = index.incarnation;
        let is_known = [self.before, Some(now)].into_iter().flatten().any(|known| used_by.as_deref() == Some(&known.0[..]));
        let is_foreign = (!covered.is_empty() && !is_known)
            || covered.iter().any(|(id, covers)| {
                index.feeds.get(id).is_some_and(|feed| {
                    let same = covers.seq <= feed.settled.seq || feed.incarnation_of(covers.seq) == covers.incarnation;
                    covers.seq > feed.head.seq || !same
                })
            });
        if is_foreign || (covered.is_empty() && index.feeds.values().any(|feed| feed.head.seq > 0)) {
            let text =
                "the dedupe window was missing or of another history of this spool and is rebuilt; a resent message may be stored twice";
            self.board.raise(Code::StateSetAside, "", text);
            covered.clear();
        }
        let above: BTreeMap<FeedId, u64> = index
            .feeds
            .iter()
            .map(|(id, feed)| {
                let window = feed.head.seq.saturating_sub(limits::DEDUPE_IDS_PER_FEED);
                (id.clone(), covered.get(id).map_or(0, |covers| covers.seq).max(window))
            })
            .collect();
        let mut segments = Vec::new();
        for lane in Lane::ALL {
            let behind = index.lanes[lane.index()]
                .values()
                .filter(|segment| segment.spans.iter().any(|(feed, span)| above.get(feed).is_some_and(|seq| span.last > *seq)));
            segments.extend(behind.map(|segment| (lane, segment.ordinal)));
        }
        drop(index);
        segments.sort_by_key(|(lane, ordinal)| (*ordinal, *lane));
        let claimed = guarded("claiming the window", || {
            if is_foreign {
                db.clear()?;
            }
            db.insert(b"i", &now.0).map(drop)
        });
        if let Err(error) = claimed.and_then(|()| barrier(&self.db, self.directory.as_deref())) {
            return self.lose(&error);
        }
        if !segments.is_empty() {
            self.board.raise(Code::DedupeIncomplete, "", "recent messages are being read back; a resent one may be stored again meanwhile");
            self.rebuild = Some(Rebuild { above, segments, current: None });
        }
    }

    /// What is known of a message; `head` is the feed's durable head.
    pub fn look_up(&mut self, feed: &FeedId, print: &Fingerprint, head: u64) -> Known {
        let Some(db) = self.handle() else { return Known::New { identity_seen: false } };
        let found = guarded("looking up", || {
            if let Some(value) = db.get(message_key(feed, print))?
                && let Some((seq, reply)) = read_value(&value)
                && seq <= head
            {
                return Ok(Known::Duplicate { seq, reply: reply.to_vec() });
            }
            let identity_seen = db.scan_prefix(identity_key(feed, &print.identity)).next().transpose()?.is_some();
            Ok(Known::New { identity_seen })
        });
        found.unwrap_or_else(|error| {
            self.lose(&error);
            Known::New { identity_seen: false }
        })
    }

    /// Remembers records that have just become durable.
    pub fn remember<'a>(&mut self, records: impl Iterator<Item = Remembered<'a>>) {
        let Some(db) = self.handle() else { return };
        let is_complete = self.rebuild.is_none();
        let done = guarded("remembering", || {
            let mut batch = sled::Batch::default();
            let mut covers: BTreeMap<&FeedId, Covers> = BTreeMap::new();
            for record in records {
                put(&db, &mut batch, &record)?;
                covers.insert(record.feed, Covers { incarnation: record.incarnation, seq: record.seq });
            }
            if is_complete {
                for (feed, covers) in covers {
                    batch.insert(covers_key(feed), postcard::to_stdvec(&covers).expect("serialising to memory cannot fail"));
                }
            }
            db.apply_batch(batch)
        });
        if let Err(error) = done {
            self.lose(&error);
        }
    }

    /// Reads back a few records, or tries to open a lost database. True while there is more to do at once.
    pub fn rebuild_step(&mut self, shared: &Shared) -> bool {
        if self.retry_at.is_some_and(|at| Instant::now() >= at) {
            self.connect(shared);
        }
        let (Some(db), Some(mut rebuild)) = (self.handle(), self.rebuild.take()) else { return false };
        let step = guarded("reading back", || {
            let mut batch = sled::Batch::default();
            let more = rebuild.step(shared, &db, &mut batch)?;
            db.apply_batch(batch)?;
            if !more {
                db.apply_batch(covers_now(shared))?;
            }
            Ok(more)
        });
        match step {
            Ok(true) => self.rebuild = Some(rebuild),
            Ok(false) => self.board.clear(Code::DedupeIncomplete, ""),
            Err(error) => self.lose(&error),
        }
        self.rebuild.is_some()
    }

    pub fn close(&mut self) {
        if let Err(error) = barrier(&self.db, self.directory.as_deref()) {
            tracing::warn!("the state database could not be synced at stop: {error}");
        }
        self.set_handle(None);
    }
}

fn put(db: &sled::Db, batch: &mut sled::Batch, record: &Remembered<'_>) -> sled::Result<()> {
    batch.insert(message_key(record.feed, &record.fingerprint), value(record.seq, record.incarnation, record.reply));
    batch.insert(order_key(record.feed, record.seq), [record.fingerprint.identity, record.fingerprint.body].concat());
    let Some(old) = record.seq.checked_sub(limits::DEDUPE_IDS_PER_FEED) else { return Ok(()) };
    let oldest = order_key(record.feed, old);
    if let Some(prints) = db.get(&oldest)? {
        let key = [&b"d"[..], &feed_tag(record.feed), &prints].concat();
        // The same message may have been stored again since (a deliberate resend): then the entry is not the old one's.
        if db.get(&key)?.as_deref().and_then(read_value).is_some_and(|(seq, _)| seq == old) {
            batch.remove(key);
        }
        batch.remove(oldest);
    }
    Ok(())
}

fn covers_now(shared: &Shared) -> sled::Batch {
    let mut batch = sled::Batch::default();
    for (id, feed) in &shared.index().feeds {
        let covers = Covers { incarnation: feed.incarnation_of(feed.head.seq), seq: feed.head.seq };
        batch.insert(covers_key(id), postcard::to_stdvec(&covers).expect("serialising to memory cannot fail"));
    }
    batch
}

impl Rebuild {
    fn step(&mut self, shared: &Shared, db: &sled::Db, batch: &mut sled::Batch) -> sled::Result<bool> {
        if self.current.is_none() {
            let Some((lane, ordinal)) = self.segments.pop() else { return Ok(false) };
            let segment = shared.index().lanes[lane.index()].get(&ordinal).cloned();
            // Released meanwhile, or unreadable: then its messages are not recognised again.
            if let Some(segment) = segment
                && let Ok(file) = shared.open_read(&segment.path)
            {
                let scan = Scan::new(file, segment.id, format::DATA_START);
                self.current = Some((scan, shared.key.sealer(&segment.id), segment.incarnation, segment.durable_end));
            }
        }
        for _ in 0..REBUILD_RECORDS_PER_STEP {
            let Some((scan, sealer, incarnation, end)) = &mut self.current else { break };
            let Ok(Some(located)) = scan.next(*end) else {
                self.current = None;
                break;
            };
            let header = &located.header;
            let Ok(feed) = FeedId::new(&header.feed) else { continue };
            let is_wanted = self.above.get(&feed).is_some_and(|above| header.seq > *above) && header.flags & format::FLAG_HAS_IDENTITY != 0;
            let fingerprint = Fingerprint { identity: header.identity_fingerprint, body: header.body_fingerprint };
            if !is_wanted || db.contains_key(message_key(&feed, &fingerprint))? {
                continue;
            }
            if let Ok(body) = scan.body(sealer, &located) {
                put(db, batch, &Remembered { feed: &feed, fingerprint, seq: header.seq, incarnation: *incarnation, reply: body.reply() })?;
            }
        }
        Ok(self.current.is_some() || !self.segments.is_empty())
    }
}

/// Makes durable what the database holds. sled's own flush does not sync the file, so that is done here, through a second descriptor.
pub fn barrier(db: &Database, directory: Option<&Path>) -> Result<(), String> {
    let handle = db.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let (Some(handle), Some(directory)) = (handle, directory) else { return Ok(()) };
    guarded("flushing", || handle.flush())?;
    let path = directory.join("db");
    std::fs::File::open(&path).and_then(|file| file.sync_data()).map_err(|error| format!("syncing {}: {error}", path.display()))
}

/// Forgets records of a feed that turned out to be lost: a resend of one must be stored, not answered from the window.
pub fn forget(db: &Database, feed: &FeedId, first: u64, last: u64) {
    let Some(db) = db.lock().unwrap_or_else(PoisonError::into_inner).clone() else { return };
    let forgotten = guarded("forgetting lost records", || {
        for entry in db.range(order_key(feed, first)..=order_key(feed, last)) {
            let (order, prints) = entry?;
            db.remove([&b"d"[..], &feed_tag(feed), &prints].concat())?;
            db.remove(order)?;
        }
        Ok(())
    });
    if let Err(error) = forgotten {
        tracing::warn!(%feed, first, last, "lost records could not be forgotten: {error}; a resent one may be taken for a duplicate");
    }
}
