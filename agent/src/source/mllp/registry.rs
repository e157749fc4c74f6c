//! Who is connected to a feed and what they have shown: the technician's first question.
//!
//! 1. Every connection registers when it is accepted and counts into atomics of its own; no lock is taken per message.
//! 2. When it ends it says why. A registration that is dropped without a word was cut, or ended by a panic.
//! 3. The last [`ENDED_CONNECTIONS_KEPT`] of a feed are remembered with their counts.
//!
//! The registry belongs to the feed, not to its listener: a listener that is opened again finds it as it was. Counts, names, codes and
//! addresses only (I7); a connection costs about 400 bytes (I4).

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::limits::ENDED_CONNECTIONS_KEPT;
use crate::source::answer::AckCode;
use crate::source::oddity::Oddity;

/// The connections of one feed.
#[derive(Debug, Default)]
pub struct Registry {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last_id: u64,
    open: BTreeMap<u64, Arc<Counts>>,
    ended: VecDeque<ConnectionView>,
    ended_total: u64,
}

/// What one connection counts.
#[derive(Debug)]
struct Counts {
    peer: Arc<str>,
    since_ms: i64,
    /// Milliseconds since 1970; 0 for never.
    last_message_ms: AtomicI64,
    messages: AtomicU64,
    bytes: AtomicU64,
    acks: [AtomicU64; AckCode::ALL.len()],
    /// Of HTTP; a closed list of ours, a dozen at most.
    statuses: Mutex<BTreeMap<u16, u64>>,
    /// Whom the peer has proven to be.
    name: OnceLock<String>,
    oddities: [AtomicU32; Oddity::ALL.len()],
}

/// A connection as shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionView {
    pub peer: String,
    /// RFC 3339.
    pub since: String,
    /// Null while it has sent no complete frame.
    pub last_message: Option<String>,
    /// Complete frames, whatever became of them.
    pub messages: u64,
    /// Bytes received, framing and junk included.
    pub bytes: u64,
    /// Answers by code (of HTTP by status); those that never occurred are left out.
    pub acks: BTreeMap<String, u64>,
    /// By name; those that never occurred are left out.
    pub oddities: BTreeMap<String, u64>,
    /// When and why it ended; absent while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<EndedView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedView {
    pub at: String,
    pub why: String,
}

/// All of a feed's connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryView {
    /// Those heard from last come first.
    pub open: Vec<ConnectionView>,
    /// The newest first.
    pub ended: Vec<ConnectionView>,
    pub ended_total: u64,
}

/// One connection's place in the registry.
#[derive(Debug)]
pub struct Registration {
    registry: Arc<Registry>,
    id: u64,
    counts: Arc<Counts>,
    why: Option<&'static str>,
}

impl Registry {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn register(self: &Arc<Self>, peer: &str) -> Registration {
        let counts = Arc::new(Counts {
            peer: peer.into(),
            since_ms: clock::now().unix_ms,
            last_message_ms: AtomicI64::new(0),
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            acks: Default::default(),
            statuses: Mutex::default(),
            name: OnceLock::new(),
            oddities: [const { AtomicU32::new(0) }; Oddity::ALL.len()],
        });
        let mut inner = self.inner();
        inner.last_id += 1;
        let id = inner.last_id;
        inner.open.insert(id, Arc::clone(&counts));
        Registration { registry: Arc::clone(self), id, counts, why: None }
    }

    /// Connections that have ended.
    pub fn ended(&self) -> u64 {
        self.inner().ended_total
    }

    /// Everything, at most `most` open connections.
    pub fn view(&self, most: usize) -> RegistryView {
        // Copied under the lock, written out without it: an accept must not wait for text.
        let (mut open, ended, ended_total) = {
            let inner = self.inner();
            (inner.open.values().cloned().collect::<Vec<_>>(), inner.ended.iter().rev().cloned().collect(), inner.ended_total)
        };
        open.sort_by_key(|counts| std::cmp::Reverse((counts.last_message_ms.load(Ordering::Relaxed), counts.since_ms)));
        RegistryView { open: open.iter().take(most).map(|counts| counts.view()).collect(), ended, ended_total }
    }
}

impl Counts {
    fn view(&self) -> ConnectionView {
        let last = self.last_message_ms.load(Ordering::Relaxed);
        let acks = AckCode::ALL.iter().zip(&self.acks).map(|(code, count)| (code.as_str().to_owned(), count.load(Ordering::Relaxed)));
        let statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let statuses = statuses.into_iter().map(|(status, count)| (status.to_string(), count));
        let oddities =
            Oddity::ALL.iter().zip(&self.oddities).map(|(oddity, count)| (oddity.name().to_owned(), count.load(Ordering::Relaxed).into()));
        ConnectionView {
            peer: self.name.get().map_or_else(|| self.peer.to_string(), |name| format!("{} {name}", self.peer)),
            since: clock::rfc3339(self.since_ms),
            last_message: (last != 0).then(|| clock::rfc3339(last)),
            messages: self.messages.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            acks: acks.chain(statuses).filter(|(_, count)| *count > 0).collect(),
            oddities: oddities.filter(|(_, count)| *count > 0).collect(),
            ended: None,
        }
    }
}

impl Registration {
    pub fn peer(&self) -> &Arc<str> {
        &self.counts.peer
    }

    pub fn read(&self, bytes: usize) {
        self.counts.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A complete frame.
    pub fn message(&self, at_ms: i64) {
        self.counts.messages.fetch_add(1, Ordering::Relaxed);
        self.counts.last_message_ms.store(at_ms, Ordering::Relaxed);
    }

    pub fn answered(&self, code: AckCode) {
        self.counts.acks[code as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// An HTTP answer.
    pub fn status(&self, status: u16) {
        *self.counts.statuses.lock().unwrap_or_else(PoisonError::into_inner).entry(status).or_default() += 1;
    }

    /// Whom the peer has proven to be; the first name stays.
    pub fn is_known_as(&self, name: &str) {
        self.counts.name.get_or_init(|| name.to_owned());
    }

    pub fn odd(&self, oddity: Oddity) {
        self.counts.oddities[oddity as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Said by the connection before it goes.
    pub fn ends(&mut self, why: &'static str) {
        self.why = Some(why);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let at = clock::rfc3339(clock::now().unix_ms);
        let why = self.why.unwrap_or("cut: the agent did not wait for it, or failed in it (see the log)").to_owned();
        let ended = ConnectionView { ended: Some(EndedView { at, why }), ..self.counts.view() };
        let mut inner = self.registry.inner();
        inner.open.remove(&self.id);
        inner.ended_total += 1;
        inner.ended.push_back(ended);
        if inner.ended.len() > ENDED_CONNECTIONS_KEPT {
            inner.ended.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_shown_with_what_it_did_and_remembered_with_why_it_ended() {
        let registry = Arc::<Registry>::default();
        let quiet = registry.register("10.0.0.1:1");
        let mut busy = registry.register("10.0.0.2:2");
        busy.read(700);
        busy.message(1_793_491_200_000);
        busy.answered(AckCode::Aa);
        busy.answered(AckCode::None);
        busy.odd(Oddity::Junk);
        busy.odd(Oddity::Junk);
        let view = registry.view(10);
        assert_eq!(view.open[0].peer, "10.0.0.2:2", "who was heard from last comes first");
        assert_eq!((view.open[0].messages, view.open[0].bytes), (1, 700));
        assert_eq!(view.open[0].last_message.as_deref(), Some("2026-11-01T00:00:00.000Z"));
        assert_eq!(view.open[0].acks, BTreeMap::from([("AA".to_owned(), 1), ("none".to_owned(), 1)]));
        assert_eq!(view.open[0].oddities, BTreeMap::from([("junk_between_frames".to_owned(), 2)]));
        assert_eq!(registry.view(1).open.len(), 1);
        busy.ends("the peer closed it");
        drop(busy);
        drop(quiet);
        let view = registry.view(10);
        assert!(view.open.is_empty());
        let why: Vec<&str> = view.ended.iter().filter_map(|c| c.ended.as_ref()).map(|ended| ended.why.as_str()).collect();
        assert!(why[0].starts_with("cut:") && why[1] == "the peer closed it", "{why:?}");
        assert_eq!(view.ended[1].acks.len(), 2, "the counts stay");
    }

    /// I4: the connections that have ended are bounded.
    #[test]
    fn only_the_last_ended_connections_are_remembered() {
        let registry = Arc::<Registry>::default();
        for n in 0..ENDED_CONNECTIONS_KEPT + 5 {
            drop(registry.register(&format!("10.0.0.1:{n}")));
        }
        let view = registry.view(10);
        assert_eq!((view.ended.len(), view.ended_total), (ENDED_CONNECTIONS_KEPT, ENDED_CONNECTIONS_KEPT as u64 + 5));
        assert_eq!(view.ended[0].peer, format!("10.0.0.1:{}", ENDED_CONNECTIONS_KEPT + 4));
    }
}
