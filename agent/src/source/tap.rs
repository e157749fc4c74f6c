//! The live tap of a feed: who watches sees the shape and the fate of every message as it happens, never its values (I7).
//!
//! 1. The control socket attaches a [`Watch`], with the control ids it expects, where it expects any.
//! 2. A connection asks [`Tap::sight`] for each complete frame: nothing, one atomic read, while nobody watches. Else the shape is computed and
//!    MSH-10 compared with what each watcher expects; of the id itself nothing is kept.
//! 3. When the message's fate is known, [`Tap::tell`] hands it to every watcher, in the order of arrival per connection.
//! 4. Dropping the [`Watch`] detaches it.
//!
//! A watcher that is slow loses sightings, which are counted and told; a connection never waits for one.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::answer::AckCode;
use super::msh;
use super::structure::{Codes, Structure};
use crate::limits::{WATCH_QUEUE, WATCHERS_MAX};
use crate::record::Stage;

/// What became of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// On disk, and answered so.
    Accepted,
    /// Recognised as a message that is on disk; answered as the first time.
    Duplicate,
    /// Not stored, for good.
    Refused,
    /// Larger than the limit; not stored, for good.
    Oversize,
    /// The store failed; the sender keeps it.
    NotStored,
    /// An acknowledgement or commit block: neither stored nor answered.
    #[default]
    Ignored,
}

impl Fate {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Refused => "refused",
            Self::Oversize => "oversize",
            Self::NotStored => "not stored",
            Self::Ignored => "ignored",
        }
    }
}

/// One message as a watcher sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Milliseconds since 1970.
    pub at_ms: i64,
    pub peer: String,
    pub fate: Fate,
    pub ack: AckCode,
    /// What the event of the message carries; null where it becomes none.
    pub stage: Option<Stage>,
    pub codes: Codes,
    /// Of an oversize message: of what was kept of its beginning.
    pub structure: Structure,
    /// Positions, among the control ids this watcher expects, of those that are this message's.
    pub matches: Vec<usize>,
}

/// A message on its way: seen, its fate not yet known.
#[derive(Debug)]
pub struct Sighting {
    codes: Codes,
    structure: Structure,
    matches: Vec<(u64, Vec<usize>)>,
}

#[derive(Debug)]
struct Watcher {
    id: u64,
    expected: Vec<String>,
    events: mpsc::Sender<Observed>,
    dropped: Arc<AtomicU64>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Tap {
    /// As many as `watchers` holds; read without the lock.
    attached: AtomicUsize,
    watchers: Mutex<Vec<Watcher>>,
    last_id: AtomicU64,
}

/// A watcher's end.
#[derive(Debug)]
pub struct Watch {
    tap: Arc<Tap>,
    id: u64,
    events: mpsc::Receiver<Observed>,
    dropped: Arc<AtomicU64>,
}

impl Tap {
    fn watchers(&self) -> MutexGuard<'_, Vec<Watcher>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: as many watch already as may.
    pub fn attach(self: &Arc<Self>, expected: Vec<String>) -> Option<Watch> {
        let mut watchers = self.watchers();
        if watchers.len() >= WATCHERS_MAX {
            return None;
        }
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, events) = mpsc::channel(WATCH_QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        watchers.push(Watcher { id, expected, events: sender, dropped: Arc::clone(&dropped) });
        self.attached.store(watchers.len(), Ordering::Relaxed);
        Some(Watch { tap: Arc::clone(self), id, events, dropped })
    }

    fn detach(&self, id: u64) {
        let mut watchers = self.watchers();
        watchers.retain(|watcher| watcher.id != id);
        self.attached.store(watchers.len(), Ordering::Relaxed);
    }

    /// The shape of a frame, where somebody watches. `cut`: only its beginning is there.
    pub fn sight(&self, frame: &[u8], cut: bool) -> Option<Sighting> {
        if self.attached.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let header = if cut { msh::scan_head(frame) } else { msh::scan(frame) };
        let control_id = header.as_ref().map(|header| header.field(10)).unwrap_or_default();
        let matching = |watcher: &Watcher| {
            let is_it = |(index, id): (usize, &String)| (!control_id.is_empty() && is_meant(id, control_id)).then_some(index);
            (watcher.id, watcher.expected.iter().enumerate().filter_map(is_it).collect())
        };
        let matches = self.watchers().iter().map(matching).collect();
        Some(Sighting { codes: Codes::of(header.as_ref()), structure: Structure::of(frame, header.as_ref()), matches })
    }

    /// The message's fate is known. A watcher that came since it was sighted is not told.
    pub fn tell(&self, sighting: Sighting, at_ms: i64, peer: &str, fate: Fate, ack: AckCode, stage: Option<Stage>) {
        let Sighting { codes, structure, matches } = sighting;
        let watchers = self.watchers();
        for (id, matches) in matches {
            let Some(watcher) = watchers.iter().find(|watcher| watcher.id == id) else { continue };
            let (codes, structure) = (codes.clone(), structure.clone());
            let observed = Observed { at_ms, peer: peer.to_owned(), fate, ack, stage, codes, structure, matches };
            if watcher.events.try_send(observed).is_err() {
                watcher.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// `expected` is a control id, or the beginning of one followed by `*`.
fn is_meant(expected: &str, control_id: &[u8]) -> bool {
    match expected.strip_suffix('*') {
        Some(beginning) => control_id.starts_with(beginning.as_bytes()),
        None => control_id == expected.as_bytes(),
    }
}

impl Watch {
    /// The next message. Never ends by itself: the tap outlives its watchers.
    pub async fn next(&mut self) -> Option<Observed> {
        self.events.recv().await
    }

    /// Sightings lost so far because the watcher was slow.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.tap.detach(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] = b"MSH|^~\\&|A|B|||2026||ADT^A01|ID7|P|2.5\rPID|1\r";

    #[test]
    fn nothing_is_computed_while_nobody_watches() {
        let tap = Arc::<Tap>::default();
        assert!(tap.sight(MESSAGE, false).is_none());
        let watch = tap.attach(Vec::new()).unwrap();
        assert!(tap.sight(MESSAGE, false).is_some());
        drop(watch);
        assert!(tap.sight(MESSAGE, false).is_none());
    }

    #[tokio::test]
    async fn each_watcher_learns_which_of_its_ids_it_was_and_never_the_id() {
        let tap = Arc::<Tap>::default();
        let mut one = tap.attach(vec!["ID1".into(), "ID7".into(), "ID*".into()]).unwrap();
        let mut other = tap.attach(Vec::new()).unwrap();
        let sighting = tap.sight(MESSAGE, false).unwrap();
        tap.tell(sighting, 5, "p:1", Fate::Duplicate, AckCode::Aa, None);
        let seen = one.next().await.unwrap();
        assert_eq!((&seen.matches[..], seen.fate, seen.ack), (&[1, 2][..], Fate::Duplicate, AckCode::Aa));
        let seen = other.next().await.unwrap();
        assert!(seen.matches.is_empty());
        assert!(!serde_json::to_string(&seen).unwrap().contains("ID7"));
    }

    /// I4: a watcher that does not read costs a bounded queue, and whoever watches is bounded too.
    #[test]
    fn a_slow_watcher_loses_sightings_and_holds_nobody_up() {
        let tap = Arc::<Tap>::default();
        let watch = tap.attach(Vec::new()).unwrap();
        for _ in 0..WATCH_QUEUE + 3 {
            let sighting = tap.sight(MESSAGE, false).unwrap();
            tap.tell(sighting, 0, "p", Fate::Accepted, AckCode::Aa, Some(Stage::Live));
        }
        assert_eq!(watch.dropped(), 3);
        let others: Vec<Watch> = std::iter::from_fn(|| tap.attach(Vec::new())).collect();
        assert_eq!(others.len(), WATCHERS_MAX - 1);
    }
}
