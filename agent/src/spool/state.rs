//! The dedupe window with the stored answers: hashes in memory (`window`), answers in sled (`chunk`). Rebuildable from the journal, so losing it
//! costs duplicates, never a record.
//!
//! 1. After a sync the committer has its records remembered: at once in memory, and in sled when their senders have been answered (`save`).
//! 2. A message whose hash is not in memory is new; no disk is read. A hit is checked against the entry in sled, which also holds the answer. It
//!    counts only below the feed's durable head, and a record that was lost is forgotten, so that its resend heals.
//! 3. On opening, the hashes are read from sled, and what the journal holds above the last chunk is read back, newest first: some 30,000 records
//!    before the first message is taken, the rest a few at a time between batches (`dedupe_incomplete`). A window that claims more than the
//!    journal holds, or was not there at the last opening, belongs to another history (restored image, lost tail) and is thrown away.
//!
//! sled never decides a seq, a chain or a mark. Its trouble is contained here: every call runs under `catch_unwind`; an error or a panic closes
//! the database, sets its directory aside and starts an empty one; where even that fails (full disk) the agent runs without it, says so
//! (`state_unavailable`) and tries again every minute. Committer and reader share the state behind a mutex; nobody syncs while holding it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::chunk::{self, Chunks, Covers};
use super::index::{Index, Shared};
use super::key::Fingerprint;
use super::rebuild::Rebuild;
use super::window::Window;
use crate::limits;
use crate::record::{FeedId, Incarnation, Lane, Payload};
use crate::status::board::Board;
use crate::status::condition::Code;

/// Steps of reading back before the first message is taken; the rest goes on between batches.
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
        incarnation: Incarnation,
        reply: Vec<u8>,
    },
}

/// A record to remember; those without a fingerprint are only covered, and neighbours of them come as one.
#[derive(Debug)]
pub struct Remembered {
    pub feed: FeedId,
    pub fingerprint: Option<Fingerprint>,
    /// The first of those that come as one; else the same as `seq`.
    pub first: u64,
    pub seq: u64,
    pub incarnation: Incarnation,
    pub reply: Payload,
}

/// The state, or its absence.
#[derive(Debug)]
pub struct State {
    directory: Option<PathBuf>,
    db: Option<sled::Db>,
    board: Arc<Board>,
    window: Window,
    /// Remembered in memory, not yet in sled.
    unsaved: Vec<Remembered>,
    /// Feeds whose hashes are still to be read from sled.
    unloaded: Vec<FeedId>,
    rebuild: Option<Rebuild>,
    retry_at: Option<Instant>,
    /// The incarnation before this one, as the heads on disk said.
    before: Option<Incarnation>,
}

/// Shared by the committer and the reader.
pub type SharedState = Arc<Mutex<State>>;

pub fn lock(state: &SharedState) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The database for the time of one call: who keeps it longer keeps it from being opened anew.
pub fn database(state: &SharedState) -> Option<sled::Db> {
    lock(state).db.clone()
}

fn guarded<T>(what: &str, run: impl FnOnce() -> sled::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(format!("{what}: {error}")),
        Err(_) => Err(format!("{what}: the database panicked")),
    }
}

/// Opens the database, waiting for a lock that a killed predecessor releases late.
fn open_database(directory: &Path) -> Result<sled::Db, String> {
    let deadline = Instant::now() + limits::STATE_LOCK_RETRY;
    loop {
        // Without sled's own flushing: its thread rewrites pages without end where much was replaced, at 60 MB of memory in a long drain. What it
        // would save is saved at the barrier before a segment goes, and at stop; the rest is in the journal.
        let config = sled::Config::new().path(directory).cache_capacity(limits::STATE_CACHE_BYTES);
        let config = config.segment_size(limits::STATE_SEGMENT_BYTES).flush_every_ms(None);
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
    fn new(directory: Option<PathBuf>, before: Option<Incarnation>, board: Arc<Board>) -> Self {
        Self {
            directory,
            db: None,
            board,
            window: Window::default(),
            unsaved: Vec::new(),
            unloaded: Vec::new(),
            rebuild: None,
            retry_at: None,
            before,
        }
    }

    /// Without a database: no duplicates are recognised.
    pub fn none(board: Arc<Board>) -> Self {
        Self::new(None, None, board)
    }

    #[cfg(test)]
    pub fn with(db: Option<sled::Db>) -> Self {
        Self { db, ..Self::none(Board::new([])) }
    }

    /// Opens or makes the database in `directory` and finds out what must be read.
    pub fn open(directory: PathBuf, before: Option<Incarnation>, shared: &Shared) -> Self {
        let mut state = Self::new(Some(directory), before, shared.board.clone());
        state.connect(shared);
        state
    }

    fn close_database(&mut self) {
        let old = self.db.take();
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
        let planned = opened.and_then(|db| {
            self.db = Some(db.clone());
            self.retry_at = None;
            self.plan(&db, shared)
        });
        match planned {
            Ok(()) => self.board.clear(Code::StateUnavailable, ""),
            Err(error) => self.lose(&error),
        }
    }

    /// Goes on without the database.
    fn lose(&mut self, error: &str) {
        self.close_database();
        self.window.clear();
        self.unsaved.clear();
        self.unloaded.clear();
        self.rebuild = None;
        self.retry_at = Some(Instant::now() + RETRY_AFTER);
        self.board.raise(
            Code::StateUnavailable,
            "",
            format!("the state database cannot be used ({error}); resent messages are stored again until it is back; check the disk"),
        );
    }

    /// Compares what the window covers with the journal, and lists what must be read.
    fn plan(&mut self, db: &sled::Db, shared: &Shared) -> Result<(), String> {
        let index = shared.index();
        let mut covered = guarded("reading the covered positions", || chunk::covered(db, index.feeds.keys()))?;
        let used_by = guarded("reading the last incarnation", || db.get(chunk::USED_BY))?;
        let now = index.incarnation;
        let claims =
            |known: &Incarnation| used_by.as_deref().is_some_and(|used_by| used_by.chunks(known.0.len()).any(|one| one == known.0));
        let is_known = [self.before, Some(now)].iter().flatten().any(claims);
        let claimed: Vec<u8> = [Some(now), self.before].iter().flatten().flat_map(|one| one.0).collect();
        let is_foreign = (!covered.is_empty() && !is_known)
            || covered.iter().any(|(id, covers)| {
                index.feeds.get(id).is_some_and(|feed| {
                    let same = covers.through <= feed.settled.seq || feed.incarnation_of(covers.through) == covers.incarnation;
                    covers.through > feed.head.seq || !same
                })
            });
        // One of ours that covers nothing was killed before it was ever flushed; while the journal begins at the beginning it has all of that.
        let is_young = is_known && index.feeds.iter().all(|(id, feed)| feed.head.seq == 0 || begins(&index, id));
        if is_foreign || (covered.is_empty() && !is_young && index.feeds.values().any(|feed| feed.head.seq > 0)) {
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
                (id.clone(), covered.get(id).map_or(0, Covers::complete_through).max(window))
            })
            .collect();
        let mut segments = Vec::new();
        for lane in Lane::ALL {
            let behind = index.lanes[lane.index()]
                .values()
                .filter(|segment| segment.spans.iter().any(|(feed, span)| above.get(feed).is_some_and(|seq| span.last > *seq)));
            segments.extend(behind.map(|segment| (lane, segment.ordinal)));
        }
        let behind: Vec<(FeedId, u64)> =
            above.iter().filter(|(id, seq)| index.feeds[*id].head.seq > **seq).map(|(id, seq)| (id.clone(), *seq)).collect();
        drop(index);
        segments.sort_by_key(|(lane, ordinal)| (*ordinal, *lane));
        guarded("claiming the window", || {
            if is_foreign {
                db.clear()?;
            }
            for (feed, seq) in &behind {
                db.insert([chunk::READING_BACK, feed.as_str().as_bytes()].concat(), &seq.to_be_bytes())?;
            }
            db.insert(chunk::USED_BY, claimed).map(drop)
        })?;
        sync(db, self.directory.as_deref())?;
        self.unloaded = covered.into_keys().collect();
        self.rebuild = (!segments.is_empty()).then(|| Rebuild::new(above, segments));
        if self.rebuild.is_none() {
            self.all_read_back()?;
        }
        Ok(())
    }

    /// Reads the hashes from sled and the newest records from the journal, once; nothing is looked up before.
    fn make_ready(&mut self, shared: &Shared) {
        let Some(db) = self.db.clone() else { return };
        if self.unloaded.is_empty() && !self.rebuild.as_ref().is_some_and(Rebuild::is_untouched) {
            return;
        }
        for feed in std::mem::take(&mut self.unloaded) {
            if let Err(error) = guarded("reading the window", || chunk::load(&db, &feed, &mut self.window)) {
                return self.lose(&error);
            }
        }
        for _ in 0..REBUILD_STEPS_AT_START {
            if !self.rebuild_step(shared) {
                return;
            }
        }
        self.board.raise(Code::DedupeIncomplete, "", "recent messages are being read back; a resent one may be stored again meanwhile");
    }

    /// What is known of a message.
    pub fn look_up(&mut self, feed: &FeedId, print: &Fingerprint, shared: &Shared) -> Known {
        self.make_ready(shared);
        let found = self.window.find(feed, print);
        let new = Known::New { identity_seen: found.identity.is_some() };
        let Some(seq) = found.message else { return new };
        self.save();
        let Some(db) = self.db.clone() else { return Known::New { identity_seen: false } };
        let head = shared.index().feeds.get(feed).map_or(0, |feed| feed.head.seq);
        match guarded("looking up", || chunk::read_entry(&db, feed, seq)) {
            Ok(Some((known, incarnation, reply))) if known == *print && seq <= head => Known::Duplicate { seq, incarnation, reply },
            // The same message: whatever became of it, its identity was not used for another one.
            Ok(_) => Known::New { identity_seen: found.identity != Some(seq) },
            Err(error) => {
                self.lose(&error);
                Known::New { identity_seen: false }
            }
        }
    }

    /// Remembers records that have just become durable.
    pub fn remember(&mut self, records: impl Iterator<Item = Remembered>) {
        if self.db.is_none() {
            return;
        }
        for record in records {
            if let Some(print) = &record.fingerprint {
                self.window.insert(&record.feed, print, record.seq);
            }
            self.unsaved.push(record);
        }
    }

    /// Hands to sled what was remembered since the last time.
    pub fn save(&mut self) {
        let (Some(db), false) = (self.db.clone(), self.unsaved.is_empty()) else { return };
        let mut feeds: BTreeMap<FeedId, Chunks> = BTreeMap::new();
        for record in self.unsaved.drain(..) {
            let chunks = feeds.entry(record.feed).or_default();
            match record.fingerprint {
                Some(print) => chunks.push(record.seq, record.incarnation, Some(print), record.reply.expose()),
                None => chunks.cover(record.first, record.seq, record.incarnation),
            }
        }
        let saved = guarded("remembering", || feeds.into_iter().try_for_each(|(feed, chunks)| chunk::put(&db, &feed, chunks)));
        if let Err(error) = saved {
            self.lose(&error);
        }
    }

    /// Work for idle moments: saves, reads back a few records, or tries to open a lost database. True while there is more to do at once.
    pub fn idle(&mut self, shared: &Shared) -> bool {
        self.save();
        if self.retry_at.is_some_and(|at| Instant::now() >= at) {
            self.connect(shared);
        }
        self.make_ready(shared);
        self.rebuild_step(shared)
    }

    fn rebuild_step(&mut self, shared: &Shared) -> bool {
        let (Some(db), Some(mut rebuild)) = (self.db.clone(), self.rebuild.take()) else { return false };
        let step = guarded("reading back", || {
            let (more, read) = rebuild.step(shared, &self.window);
            for (feed, chunks) in read {
                let chunks = chunks.finish();
                let entries = chunks.iter().flat_map(|(_, chunk)| &chunk.entries);
                entries.for_each(|entry| self.window.insert(&feed, &entry.fingerprint(), entry.seq));
                chunk::put_all(&db, &feed, chunks)?;
            }
            Ok(more)
        });
        let step = step.and_then(|more| {
            if more {
                self.rebuild = Some(rebuild);
                return Ok(true);
            }
            self.all_read_back().map(|()| false)
        });
        step.unwrap_or_else(|error| {
            self.lose(&error);
            false
        })
    }

    /// From here on the window has no holes.
    fn all_read_back(&mut self) -> Result<(), String> {
        let Some(db) = &self.db else { return Ok(()) };
        guarded("closing the window", || {
            for entry in db.scan_prefix(chunk::READING_BACK) {
                db.remove(entry?.0)?;
            }
            Ok(())
        })?;
        self.board.clear(Code::DedupeIncomplete, "");
        Ok(())
    }

    /// Forgets records of a feed that turned out to be lost: a resend of one must be stored, not answered from the window.
    pub fn forget(&mut self, feed: &FeedId, first: u64, last: u64) {
        self.save();
        self.window.forget(feed, first, last);
        let Some(db) = self.db.clone() else { return };
        if let Err(error) = guarded("forgetting lost records", || chunk::cut_out(&db, feed, first, last)) {
            tracing::warn!(%feed, first, last, "lost records could not be forgotten: {error}; a resent one may be taken for a duplicate");
        }
    }

    pub fn close(&mut self) {
        self.save();
        if let Some(db) = &self.db
            && let Err(error) = sync(db, self.directory.as_deref())
        {
            tracing::warn!("the state database could not be synced at stop: {error}");
        }
        self.close_database();
    }
}

/// Nothing of a feed has gone from the journal.
fn begins(index: &Index, id: &FeedId) -> bool {
    index.lanes.iter().flat_map(|lane| lane.values()).any(|segment| segment.spans.get(id).is_some_and(|span| span.first == 1))
}

/// Makes durable what the database holds. sled's own flush does not sync the file, so that is done here, through a second descriptor.
fn sync(db: &sled::Db, directory: Option<&Path>) -> Result<(), String> {
    let Some(directory) = directory else { return Ok(()) };
    guarded("flushing", || db.flush())?;
    let path = directory.join("db");
    std::fs::File::open(&path).and_then(|file| file.sync_data()).map_err(|error| format!("syncing {}: {error}", path.display()))
}

/// Makes durable everything that was remembered, without keeping the state from others while the disk works.
pub fn barrier(state: &SharedState) -> Result<(), String> {
    let (db, directory) = {
        let mut state = lock(state);
        state.save();
        (state.db.clone(), state.directory.clone())
    };
    db.map_or(Ok(()), |db| sync(&db, directory.as_deref()))
}
