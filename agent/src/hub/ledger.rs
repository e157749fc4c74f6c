//! All accounts, one per (site, gateway, feed), with their tallies. Pure; what is saved beside the output.
//!
//! The verdict on an arriving record comes from the index (exact, for any age); the account only moves marks, so counting a record twice
//! changes nothing. A record of several items counts when all of them arrived; until then its items are remembered here.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use super::account::Account;
use crate::limits::{HUB_EXCEPTIONS_MAX, HUB_PARTIAL_RECORDS_MAX};
use crate::record::{Chain, FeedId, Incarnation, Name};

/// Whose account.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AccountKey {
    pub site: Name,
    pub gateway: Name,
    pub feed: FeedId,
}

impl fmt::Display for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.site, self.gateway, self.feed)
    }
}

/// What was received for an account, by kind. Duplicates and missing are counted since the ledger was last rebuilt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub events: u64,
    pub duplicates: u64,
    pub gaps: u64,
    pub conflicts: u64,
    pub corrupt: u64,
    pub forks: u64,
    pub lost: u64,
}

/// A record of which some items are here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Partial {
    incarnation: Incarnation,
    seq: u64,
    chain: Chain,
    count: u32,
    seen: Vec<u64>,
}

/// Items of records that are not complete.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Items(VecDeque<Partial>);

/// What an item is to its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemVerdict {
    Again,
    /// New, others are outstanding.
    More,
    /// New, and the last one.
    Complete,
}

impl Items {
    /// Takes item `index` of `count`. Full: the record that waits longest is forgotten; its items will come again and be written again.
    pub fn take(&mut self, incarnation: Incarnation, seq: u64, chain: Chain, index: u32, count: u32) -> ItemVerdict {
        if count <= 1 {
            return ItemVerdict::Complete;
        }
        let known = |p: &Partial| p.seq == seq && p.incarnation == incarnation && p.chain == chain && p.count == count;
        let at = self.0.iter().position(known).unwrap_or_else(|| {
            if self.0.len() >= HUB_PARTIAL_RECORDS_MAX {
                self.0.pop_front();
            }
            self.0.push_back(Partial { incarnation, seq, chain, count, seen: vec![0; count.div_ceil(64) as usize] });
            self.0.len() - 1
        });
        let partial = &mut self.0[at];
        let (word, bit) = (&mut partial.seen[index as usize / 64], 1u64 << (index % 64));
        if *word & bit != 0 {
            return ItemVerdict::Again;
        }
        *word |= bit;
        if partial.seen.iter().map(|word| word.count_ones()).sum::<u32>() < count {
            return ItemVerdict::More;
        }
        self.0.remove(at);
        ItemVerdict::Complete
    }
}

/// One account with what belongs to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub account: Account,
    pub items: Items,
    /// Seqs kept back at the gateway for which no event came yet.
    exceptions: BTreeSet<(Incarnation, u64)>,
    pub tally: Tally,
}

impl Entry {
    /// Above `HUB_EXCEPTIONS_MAX` an open exception is not listed any more; its line is in the output.
    pub fn exception_opened(&mut self, incarnation: Incarnation, seq: u64) {
        if self.exceptions.len() < HUB_EXCEPTIONS_MAX {
            self.exceptions.insert((incarnation, seq));
        }
    }

    pub fn exception_closed(&mut self, incarnation: Incarnation, seq: u64) {
        self.exceptions.remove(&(incarnation, seq));
    }

    pub fn exceptions(&self) -> impl ExactSizeIterator<Item = &(Incarnation, u64)> {
        self.exceptions.iter()
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(AccountKey, Entry)>", into = "Vec<(AccountKey, Entry)>")]
pub struct Ledger {
    entries: BTreeMap<AccountKey, Entry>,
}

impl Ledger {
    pub fn entry(&mut self, key: &AccountKey) -> &mut Entry {
        if !self.entries.contains_key(key) {
            self.entries.insert(key.clone(), Entry::default());
        }
        self.entries.get_mut(key).expect("inserted above")
    }

    pub fn entries(&self) -> impl Iterator<Item = (&AccountKey, &Entry)> {
        self.entries.iter()
    }
}

impl From<Vec<(AccountKey, Entry)>> for Ledger {
    fn from(entries: Vec<(AccountKey, Entry)>) -> Self {
        Self { entries: entries.into_iter().collect() }
    }
}

impl From<Ledger> for Vec<(AccountKey, Entry)> {
    fn from(ledger: Ledger) -> Self {
        ledger.entries.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_three_items_counts_when_all_three_are_here() {
        let mut items = Items::default();
        let (inc, chain) = (Incarnation([1; 16]), Chain([2; 32]));
        assert_eq!(items.take(inc, 7, chain, 2, 3), ItemVerdict::More);
        assert_eq!(items.take(inc, 7, chain, 2, 3), ItemVerdict::Again);
        assert_eq!(items.take(inc, 7, chain, 0, 3), ItemVerdict::More);
        assert_eq!(items.take(inc, 7, chain, 1, 3), ItemVerdict::Complete);
        assert_eq!(items, Items::default());
    }

    /// I4
    #[test]
    fn records_that_never_become_complete_are_bounded() {
        let mut items = Items::default();
        for seq in 1..=HUB_PARTIAL_RECORDS_MAX as u64 + 5 {
            assert_eq!(items.take(Incarnation([1; 16]), seq, Chain([2; 32]), 0, 2), ItemVerdict::More);
        }
        assert_eq!(items.0.len(), HUB_PARTIAL_RECORDS_MAX);
    }
}
