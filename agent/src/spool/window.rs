//! Which messages are remembered: two hashes of each in memory, so that nothing is read from disk for a message that is new (nearly all are).
//!
//! A hash leads to the seq of the record; the stored answer and the whole fingerprints are in sled (`state`) and decide. Old ids go when a feed
//! holds more than its limit, in one sweep for every eighth part of it. All feeds together hold at most `DEDUPE_IDS_TOTAL` (I4): where that
//! would be exceeded, the feed with most ids remembers fewer from then on.

use std::collections::{BTreeMap, HashMap};

use super::key::Fingerprint;
use crate::limits;
use crate::record::FeedId;

/// What is remembered of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The newest record with this sender identity and this body.
    pub message: Option<u64>,
    /// The newest record with this sender identity.
    pub identity: Option<u64>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Window {
    feeds: BTreeMap<FeedId, Ids>,
    per_feed: u64,
    total: usize,
}

#[derive(Debug)]
struct Ids {
    messages: HashMap<u64, u64>,
    identities: HashMap<u64, u64>,
    newest: u64,
    limit: u64,
}

/// Fingerprints are keyed hashes already: eight bytes of them are as good as any hash of eight bytes.
fn prefix(print: &[u8; 16]) -> u64 {
    u64::from_le_bytes(print[..8].try_into().expect("8 of 16"))
}

fn message(print: &Fingerprint) -> u64 {
    prefix(&print.identity) ^ prefix(&print.body).rotate_left(1)
}

impl Default for Window {
    fn default() -> Self {
        Self::new(limits::DEDUPE_IDS_PER_FEED, limits::DEDUPE_IDS_TOTAL)
    }
}

impl Window {
    fn new(per_feed: u64, total: usize) -> Self {
        Self { feeds: BTreeMap::new(), per_feed, total }
    }

    pub fn find(&self, feed: &FeedId, print: &Fingerprint) -> Found {
        let Some(ids) = self.feeds.get(feed) else { return Found::default() };
        Found { message: ids.messages.get(&message(print)).copied(), identity: ids.identities.get(&prefix(&print.identity)).copied() }
    }

    /// Remembers a record. In any order: a newer record of the same message is never hidden by an older one.
    pub fn insert(&mut self, feed: &FeedId, print: &Fingerprint, seq: u64) {
        if !self.feeds.contains_key(feed) {
            let ids = Ids { messages: HashMap::new(), identities: HashMap::new(), newest: seq, limit: self.per_feed };
            self.feeds.insert(feed.clone(), ids);
        }
        let ids = self.feeds.get_mut(feed).expect("just inserted");
        ids.newest = ids.newest.max(seq);
        for (map, key) in [(&mut ids.messages, message(print)), (&mut ids.identities, prefix(&print.identity))] {
            map.entry(key).and_modify(|known| *known = seq.max(*known)).or_insert(seq);
        }
        if ids.messages.len() as u64 > ids.limit + ids.limit / 8 {
            ids.sweep();
        }
        while self.len() > self.total {
            let largest = self.feeds.values_mut().max_by_key(|ids| ids.messages.len()).expect("something is held");
            largest.limit -= (largest.limit / 8).max(1);
            largest.sweep();
        }
    }

    /// Forgets the records `first..=last` of a feed.
    pub fn forget(&mut self, feed: &FeedId, first: u64, last: u64) {
        if let Some(ids) = self.feeds.get_mut(feed) {
            ids.retain(|seq| !(first..=last).contains(&seq));
        }
    }

    pub fn clear(&mut self) {
        self.feeds.clear();
    }

    /// Messages remembered.
    pub fn len(&self) -> usize {
        self.feeds.values().map(|ids| ids.messages.len()).sum()
    }
}

impl Ids {
    fn sweep(&mut self) {
        let oldest = self.newest.saturating_sub(self.limit);
        self.retain(|seq| seq > oldest);
    }

    fn retain(&mut self, keep: impl Fn(u64) -> bool) {
        self.messages.retain(|_, seq| keep(*seq));
        self.identities.retain(|_, seq| keep(*seq));
        // Without this a table full of removed entries doubles instead of being cleaned.
        self.messages.shrink_to_fit();
        self.identities.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(identity: u64, body: u64) -> Fingerprint {
        let wide = |n: u64| (u128::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835)).to_le_bytes();
        Fingerprint { identity: wide(identity), body: wide(body) }
    }

    fn feed(name: &str) -> FeedId {
        FeedId::new(name).unwrap()
    }

    #[test]
    fn a_message_and_a_sender_identity_are_told_apart() {
        let mut window = Window::default();
        window.insert(&feed("a"), &print(1, 1), 10);
        assert_eq!(window.find(&feed("a"), &print(1, 1)), Found { message: Some(10), identity: Some(10) });
        assert_eq!(window.find(&feed("a"), &print(1, 2)), Found { message: None, identity: Some(10) });
        assert_eq!(window.find(&feed("a"), &print(2, 1)), Found::default());
        assert_eq!(window.find(&feed("b"), &print(1, 1)), Found::default());
    }

    #[test]
    fn one_control_id_in_every_message_hides_none_of_them() {
        let mut window = Window::default();
        (1..=1000).for_each(|n| window.insert(&feed("a"), &print(7, n), n));
        assert!((1..=1000).all(|n| window.find(&feed("a"), &print(7, n)).message == Some(n)));
    }

    #[test]
    fn reading_older_records_later_changes_nothing_newer() {
        let mut window = Window::default();
        window.insert(&feed("a"), &print(1, 1), 20);
        window.insert(&feed("a"), &print(1, 1), 5);
        assert_eq!(window.find(&feed("a"), &print(1, 1)).message, Some(20));
    }

    /// I4: the window is bounded, and what it still holds is always the newest.
    #[test]
    fn the_newest_ids_of_a_feed_stay() {
        let mut window = Window::new(160, 10_000);
        (1..=5000).for_each(|n| window.insert(&feed("a"), &print(n, n), n));
        assert!((160..=180).contains(&window.len()), "{}", window.len());
        assert!((4841..=5000).all(|n| window.find(&feed("a"), &print(n, n)).message == Some(n)));
        assert_eq!(window.find(&feed("a"), &print(100, 100)), Found::default());
    }

    /// I4: many busy feeds share one bound; a quiet one keeps its ids.
    #[test]
    fn all_feeds_together_stay_below_the_total() {
        let mut window = Window::new(1000, 1500);
        (1..=50).for_each(|n| window.insert(&feed("quiet"), &print(n, n), n));
        for n in 1..=3000 {
            for name in ["a", "b", "c"] {
                window.insert(&feed(name), &print(n, n), n);
                assert!(window.len() <= 1500);
            }
        }
        assert!((1..=50).all(|n| window.find(&feed("quiet"), &print(n, n)).message == Some(n)));
        assert!((2800..=3000).all(|n| ["a", "b", "c"].iter().all(|f| window.find(&feed(f), &print(n, n)).message == Some(n))));
    }

    /// I8: however many feeds are busy, each remembers what one idempotency key may stand for.
    #[test]
    fn every_feed_remembers_the_records_of_a_request() {
        let mut window = Window::default();
        let feeds: Vec<FeedId> = (0..limits::FEEDS_MAX).map(|n| feed(&format!("f{n}"))).collect();
        let most = limits::HTTP_KEYED_RECORDS_MAX;
        // By turns, and then each one by itself.
        let turns = (1..=3000).flat_map(|n| feeds.iter().map(move |feed| (feed, n)));
        let runs = feeds.iter().flat_map(|feed| (3001..=6000).map(move |n| (feed, n)));
        for (feed, n) in turns.chain(runs) {
            window.insert(feed, &print(n, n), n);
            if n > 2 * most && n % 500 == 0 {
                assert!((n - most + 1..=n).all(|n| window.find(feed, &print(n, n)).message == Some(n)), "{feed} {n}");
            }
        }
        for feed in &feeds {
            assert!((6001 - most..=6000).all(|n| window.find(feed, &print(n, n)).message == Some(n)), "{feed}");
        }
    }

    #[test]
    fn lost_records_are_forgotten() {
        let mut window = Window::default();
        (1..=10).for_each(|n| window.insert(&feed("a"), &print(n, n), n));
        window.forget(&feed("a"), 4, 6);
        let known: Vec<u64> = (1..=10).filter(|n| window.find(&feed("a"), &print(*n, *n)).message.is_some()).collect();
        assert_eq!(known, [1, 2, 3, 7, 8, 9, 10]);
    }
}
