//! Recent outcomes: when each of the last messages was received, answered, published, acknowledged and settled, for `siteward messages`.
//!
//! ```text
//!   connections, forwarder ── Board::note ──► Notes (bounded) ──► thread `recent` ──► sled tree `recent` ◄── Recent::find
//!
//!   'm' feed 0 seq   → what is known of the record           the last 10,000 of a feed
//!   's' feed 0 seq   → when everything through seq settled   as long as those
//!   'd' feed 0 n     → a suppressed duplicate                the last 1000 of a feed
//! ```
//!
//! 1. [`Notes::push`] puts a note into a bounded list and returns: no disk, no waiting. What does not fit is dropped and counted, and every
//!    answer and the status say so.
//! 2. The thread takes the list a few times a second at most, merges the notes of a record, and writes them in one batch. At rest it sleeps.
//! 3. [`Recent::find`] takes what waits first, so that it answers with what happened a moment ago.
//!
//! It shares the database of the dedupe window: a second one would cost its own cache, buffers and threads, and both can be thrown away. It
//! never opens, repairs or closes it; where there is none, nothing is kept and the answers say so. Every call runs under `catch_unwind`.
//! Nothing depends on what is kept here (I2, I10): times are for people, and a note that is missing costs a line in an answer.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};

use super::backwards::Numbered;
use super::format::from_postcard;
use super::search::Wanted;
use super::state::{self, SharedState};
use crate::limits::{RECENT_DUPLICATES_PER_FEED, RECENT_INTERVAL, RECENT_NOTES_MAX, RECENT_PER_FEED, RECENT_PRUNED_PER_TURN};
use crate::record::FeedId;
use crate::source::answer::AckCode;

const TREE: &str = "recent";

/// One step of a message.
#[derive(Clone, Debug)]
pub enum Note {
    /// Stored, and answered.
    Stored {
        feed: FeedId,
        seq: u64,
        received_at_ms: i64,
        peer: Arc<str>,
        control_id: Box<[u8]>,
        ack: AckCode,
        ack_at_ms: Option<i64>,
        resend_of: Option<u64>,
    },
    /// A duplicate of `seq` was suppressed.
    Repeated {
        feed: FeedId,
        seq: u64,
        at_ms: i64,
        peer: Arc<str>,
        control_id: Box<[u8]>,
        ack: AckCode,
    },
    Published {
        feed: FeedId,
        seq: u64,
        at_ms: i64,
    },
    /// The broker has it.
    Acked {
        feed: FeedId,
        seq: u64,
        at_ms: i64,
    },
    /// A copy is in quarantine.
    Quarantined {
        feed: FeedId,
        seq: u64,
        at_ms: i64,
    },
    /// Everything through `seq` is settled.
    Settled {
        feed: FeedId,
        seq: u64,
        at_ms: i64,
    },
}

/// What is known of a record; `None` and empty where a note is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub received_at_ms: Option<i64>,
    pub peer: String,
    pub control_id: Vec<u8>,
    pub ack: Option<AckCode>,
    pub ack_at_ms: Option<i64>,
    pub published_at_ms: Option<i64>,
    pub acked_at_ms: Option<i64>,
    pub quarantined_at_ms: Option<i64>,
    pub resend_of: Option<u64>,
    /// Not stored here; filled in when read.
    pub settled_at_ms: Option<i64>,
}

/// A suppressed duplicate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duplicate {
    /// Of the first copy.
    pub seq: u64,
    pub at_ms: i64,
    pub peer: String,
    pub control_id: Vec<u8>,
    pub ack: AckCode,
}

#[derive(Serialize, Deserialize)]
enum Kept<T> {
    V1(T),
}

/// Notes on their way.
#[derive(Debug, Default)]
pub struct Notes {
    waiting: Mutex<Vec<Note>>,
    wake: Condvar,
    /// Somebody takes them.
    is_open: AtomicBool,
    dropped: AtomicU64,
}

impl Notes {
    fn waiting(&self) -> MutexGuard<'_, Vec<Note>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never waits longer than for another push.
    pub fn push(&self, note: Note) {
        if !self.is_open.load(Ordering::Relaxed) {
            return;
        }
        let mut waiting = self.waiting();
        if waiting.len() >= RECENT_NOTES_MAX {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.push(note);
        if waiting.len() == 1 {
            self.wake.notify_one();
        }
    }

    /// Notes lost since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Recent {
    notes: Arc<Notes>,
    state: SharedState,
    /// One turn at a time.
    turns: Mutex<()>,
    is_available: AtomicBool,
    stopping: Mutex<bool>,
    stop: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What [`Recent::find`] found, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub outcomes: Vec<(u64, Outcome)>,
    /// False where nothing can be kept at the moment.
    pub is_available: bool,
}

impl Recent {
    /// Starts the thread.
    pub fn start(notes: &Arc<Notes>, state: SharedState) -> std::io::Result<Arc<Self>> {
        let recent = Arc::new(Self::without_thread(notes, state));
        let its = Arc::clone(&recent);
        let thread = std::thread::Builder::new().name("recent".into()).spawn(move || its.run())?;
        recent.notes.is_open.store(true, Ordering::Relaxed);
        *recent.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(recent)
    }

    fn without_thread(notes: &Arc<Notes>, state: SharedState) -> Self {
        Self {
            notes: Arc::clone(notes),
            state,
            turns: Mutex::default(),
            is_available: AtomicBool::new(true),
            stopping: Mutex::new(false),
            stop: Condvar::new(),
            thread: Mutex::default(),
        }
    }

    /// Keeps what waits and ends the thread; before the database is closed.
    pub fn stop(&self) {
        self.notes.is_open.store(false, Ordering::Relaxed);
        *self.stopping.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.notify_all();
        {
            // Under the lock, so that a thread about to wait cannot miss it.
            let _waiting = self.notes.waiting();
            self.notes.wake.notify_all();
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::warn!("the thread that keeps recent outcomes had failed; what it kept is as old as that");
        }
        self.turn();
    }

    fn run(&self) {
        loop {
            let waiting = self.notes.waiting();
            // A push or `stop` ends it; a wake-up for nothing costs one empty turn.
            let is_closed = !self.notes.is_open.load(Ordering::Relaxed) && self.is_stopping();
            if waiting.is_empty() && !is_closed {
                drop(self.notes.wake.wait(waiting));
            } else {
                drop(waiting);
            }
            let stopping = self.stopping.lock().unwrap_or_else(PoisonError::into_inner);
            let rest = self.stop.wait_timeout_while(stopping, RECENT_INTERVAL, |stopping| !*stopping);
            let stopping = *rest.unwrap_or_else(PoisonError::into_inner).0;
            self.turn();
            if stopping {
                return;
            }
        }
    }

    fn is_stopping(&self) -> bool {
        *self.stopping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tree for the time of one call: nobody but the state may hold the database longer, or it could not be opened anew.
    fn with_tree<T>(&self, what: &str, run: impl FnOnce(&sled::Tree) -> sled::Result<T>) -> Option<T> {
        let db = state::database(&self.state);
        let done = match db {
            None => Err("the state database is not open".to_owned()),
            // Dropping the handle may be the last one's drop, which can panic too.
            Some(db) => match catch_unwind(AssertUnwindSafe(move || db.open_tree(TREE).and_then(|tree| run(&tree)))) {
                Ok(done) => done.map_err(|error| error.to_string()),
                Err(_) => Err("the database panicked".to_owned()),
            },
        };
        match done {
            Ok(value) => {
                self.is_available.store(true, Ordering::Relaxed);
                Some(value)
            }
            Err(error) => {
                if self.is_available.swap(false, Ordering::Relaxed) {
                    tracing::warn!("recent outcomes cannot be kept or read ({what}): {error}; messages are not affected");
                }
                None
            }
        }
    }

    /// Keeps what waits.
    fn turn(&self) {
        let _turn = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let notes = std::mem::take(&mut *self.notes.waiting());
        let count = notes.len() as u64;
        if count > 0 && self.with_tree("keeping", |tree| keep(tree, notes)).is_none() {
            self.notes.dropped.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Outcomes of a feed that fit, the newest first, from `before` (exclusive) downwards. Blocks on the disk; bounded by what is kept.
    pub fn find(&self, feed: &FeedId, wanted: &Wanted, before: u64, most: usize) -> Found {
        self.turn();
        let outcomes = self.with_tree("finding", |tree| {
            let highest = match wanted {
                Wanted::Seq(seq) => seq.saturating_add(1).min(before),
                _ => before,
            };
            let lowest = if let Wanted::Seq(seq) = wanted { *seq } else { 0 };
            let mut found = Vec::new();
            if lowest >= highest {
                return Ok(found);
            }
            for entry in numbered(tree, b'm', feed).newest_first(lowest, highest - 1) {
                let (seq, value) = entry?;
                let Some(mut outcome) = read::<Outcome>(&value) else { continue };
                if wanted.fits(seq, &outcome.control_id, outcome.received_at_ms) {
                    outcome.settled_at_ms = settled_at(tree, feed, seq)?;
                    found.push((seq, outcome));
                }
                if found.len() >= most {
                    break;
                }
            }
            Ok(found)
        });
        Found { is_available: outcomes.is_some(), outcomes: outcomes.unwrap_or_default() }
    }

    /// Suppressed duplicates of a feed, the newest first; `None` where they cannot be read.
    pub fn duplicates(&self, feed: &FeedId, most: usize, wanted: impl Fn(&Duplicate) -> bool) -> Option<Vec<Duplicate>> {
        self.turn();
        self.with_tree("listing duplicates", |tree| {
            let mut found = Vec::new();
            for entry in numbered(tree, b'd', feed).newest_first(0, u64::MAX) {
                let duplicate = read::<Duplicate>(&entry?.1);
                found.extend(duplicate.filter(&wanted));
                if found.len() >= most {
                    break;
                }
            }
            Ok(found)
        })
    }

    /// Notes lost since the start.
    pub fn dropped(&self) -> u64 {
        self.notes.dropped()
    }
}

fn key(kind: u8, feed: &FeedId, n: u64) -> Vec<u8> {
    [&[kind][..], feed.as_str().as_bytes(), &[0], &n.to_be_bytes()].concat()
}

fn numbered<'t>(tree: &'t sled::Tree, kind: u8, feed: &FeedId) -> Numbered<'t> {
    Numbered::new(tree, &[&[kind][..], feed.as_str().as_bytes(), &[0]].concat())
}

fn read<T: for<'de> Deserialize<'de>>(value: &[u8]) -> Option<T> {
    from_postcard::<Kept<T>>(value).map(|Kept::V1(value)| value)
}

fn written<T: Serialize>(value: T) -> Vec<u8> {
    postcard::to_stdvec(&Kept::V1(value)).expect("serialising to memory cannot fail")
}

fn settled_at(tree: &sled::Tree, feed: &FeedId, seq: u64) -> sled::Result<Option<i64>> {
    let mark = tree.range(key(b's', feed, seq)..=key(b's', feed, u64::MAX)).next().transpose()?;
    Ok(mark.and_then(|(_, value)| value.as_ref().try_into().ok()).map(i64::from_be_bytes))
}

/// Writes a turn's notes in one batch, then forgets what is too old.
fn keep(tree: &sled::Tree, notes: Vec<Note>) -> sled::Result<()> {
    let mut outcomes: BTreeMap<(FeedId, u64), Outcome> = BTreeMap::new();
    let mut duplicates: BTreeMap<FeedId, u64> = BTreeMap::new();
    let mut touched: BTreeMap<FeedId, u64> = BTreeMap::new();
    let mut batch = sled::Batch::default();
    for note in notes {
        match note {
            Note::Stored { feed, seq, received_at_ms, peer, control_id, ack, ack_at_ms, resend_of } => {
                let highest = touched.entry(feed.clone()).or_default();
                *highest = seq.max(*highest);
                let known = stored(tree, &mut outcomes, feed, seq)?;
                if known.received_at_ms.is_some() {
                    // Of another history of this spool; what was noted before (it may be published before it is answered) counts else.
                    *known = Outcome::default();
                }
                known.received_at_ms = Some(received_at_ms);
                known.peer = peer.to_string();
                known.control_id = control_id.into_vec();
                (known.ack, known.ack_at_ms, known.resend_of) = (Some(ack), ack_at_ms, resend_of);
            }
            Note::Repeated { feed, seq, at_ms, peer, control_id, ack } => {
                let next = match duplicates.get(&feed) {
                    Some(last) => last + 1,
                    None => last_of(tree, b'd', &feed, 0)?.map_or(0, |last| last + 1),
                };
                let duplicate = Duplicate { seq, at_ms, peer: peer.to_string(), control_id: control_id.into_vec(), ack };
                batch.insert(key(b'd', &feed, next), written(duplicate));
                duplicates.insert(feed, next);
            }
            Note::Settled { feed, seq, at_ms } => batch.insert(key(b's', &feed, seq), &at_ms.to_be_bytes()),
            Note::Published { feed, seq, at_ms } => stored(tree, &mut outcomes, feed, seq)?.published_at_ms = Some(at_ms),
            Note::Acked { feed, seq, at_ms } => stored(tree, &mut outcomes, feed, seq)?.acked_at_ms = Some(at_ms),
            Note::Quarantined { feed, seq, at_ms } => stored(tree, &mut outcomes, feed, seq)?.quarantined_at_ms = Some(at_ms),
        }
    }
    for ((feed, seq), outcome) in outcomes {
        batch.insert(key(b'm', &feed, seq), written(outcome));
    }
    tree.apply_batch(batch)?;
    for (feed, highest) in &touched {
        let newest = last_of(tree, b'm', feed, *highest)?.unwrap_or(0);
        forget(tree, feed, b'm', newest.saturating_sub(RECENT_PER_FEED))?;
        forget(tree, feed, b's', newest.saturating_sub(RECENT_PER_FEED))?;
    }
    for (feed, newest) in &duplicates {
        forget(tree, feed, b'd', (newest + 1).saturating_sub(RECENT_DUPLICATES_PER_FEED))?;
    }
    Ok(())
}

/// What is known of a record so far.
fn stored<'o>(
    tree: &sled::Tree,
    outcomes: &'o mut BTreeMap<(FeedId, u64), Outcome>,
    feed: FeedId,
    seq: u64,
) -> sled::Result<&'o mut Outcome> {
    use std::collections::btree_map::Entry;
    let kept = match outcomes.entry((feed, seq)) {
        Entry::Occupied(known) => return Ok(known.into_mut()),
        Entry::Vacant(vacant) => {
            let kept = tree.get(key(b'm', &vacant.key().0, seq))?;
            vacant.insert(kept.and_then(|value| read(&value)).unwrap_or_default())
        }
    };
    Ok(kept)
}

/// The highest number of a kind, which is `known` or above.
fn last_of(tree: &sled::Tree, kind: u8, feed: &FeedId, known: u64) -> sled::Result<Option<u64>> {
    Ok(numbered(tree, kind, feed).last(known, u64::MAX)?.map(|(n, _)| n))
}

/// Removes entries through `end`, a bounded number at once.
fn forget(tree: &sled::Tree, feed: &FeedId, kind: u8, end: u64) -> sled::Result<()> {
    if end == 0 && kind != b'd' {
        return Ok(());
    }
    let range = if kind == b'd' { key(kind, feed, 0)..key(kind, feed, end) } else { key(kind, feed, 0)..key(kind, feed, end + 1) };
    let mut batch = sled::Batch::default();
    let mut count = 0;
    for entry in tree.range(range).take(RECENT_PRUNED_PER_TURN) {
        batch.remove(entry?.0);
        count += 1;
    }
    if count > 0 { tree.apply_batch(batch) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
