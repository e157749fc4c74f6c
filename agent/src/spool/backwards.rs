//! The newest of numbered keys, found by going forwards only.
//!
//! Keys of the state database end with a number of eight bytes, so a tree keeps them in order, and what is wanted is mostly at the end: the last chunk,
//! the chunk that covers a seq, the newest outcomes. sled can go backwards, but whoever calls that has a megabyte of constant in the program. So the
//! last key up to a number is searched for: outwards from the number, in steps that grow, then by halves. Where numbers lie close together that takes
//! two descents, for a chunk about six, for the end of a range that is not known about fifty.

use sled::{IVec, Tree};

/// Numbers looked at in one go where all are wanted.
const SPAN: u64 = 512;

/// Keys of a tree that are this and a number.
#[derive(Clone, Debug)]
pub struct Numbered<'t> {
    tree: &'t Tree,
    prefix: Vec<u8>,
}

impl<'t> Numbered<'t> {
    pub fn new(tree: &'t Tree, prefix: &[u8]) -> Self {
        Self { tree, prefix: prefix.to_vec() }
    }

    fn key(&self, number: u64) -> Vec<u8> {
        [&self.prefix[..], &number.to_be_bytes()].concat()
    }

    fn range(&self, low: u64, high: u64) -> impl Iterator<Item = sled::Result<(u64, IVec)>> {
        self.tree.range(self.key(low)..=self.key(high)).map(|entry| {
            let (key, value) = entry?;
            Ok((key.last_chunk().map_or(0, |number| u64::from_be_bytes(*number)), value))
        })
    }

    fn first(&self, low: u64, high: u64) -> sled::Result<Option<(u64, IVec)>> {
        self.range(low, high).next().transpose()
    }

    /// The entry with the highest number in `low..=high`.
    pub fn last(&self, low: u64, mut high: u64) -> sled::Result<Option<(u64, IVec)>> {
        let Some(mut best) = self.first(low, high)? else { return Ok(None) };
        // Whoever knows the last one by heart asks from there.
        if best.0 == high || self.first(best.0 + 1, high)?.is_none() {
            return Ok(Some(best));
        }
        let mut step = 1;
        while best.0 < high {
            let from = (high - (step - 1).min(high)).max(best.0 + 1);
            match self.first(from, high)? {
                Some(found) => {
                    best = found;
                    break;
                }
                None => high = from - 1,
            }
            step = step.saturating_mul(4);
        }
        while best.0 < high {
            let middle = best.0 + 1 + (high - best.0 - 1) / 2;
            match self.first(middle, high)? {
                Some(found) => best = found,
                None => high = middle - 1,
            }
        }
        Ok(Some(best))
    }

    /// Entries with the numbers `low..=high`, the highest first.
    pub fn newest_first(self, low: u64, high: u64) -> impl Iterator<Item = sled::Result<(u64, IVec)>> + use<'t> {
        let mut open = Some((low, high));
        let mut span: Vec<(u64, IVec)> = Vec::new();
        std::iter::from_fn(move || {
            if span.is_empty() {
                let (low, high) = open.take()?;
                let refilled = self.span(low, high).map(|found| {
                    let (entries, rest) = found?;
                    (span, open) = (entries, rest);
                    Some(())
                });
                if let Some(error) = refilled.err() {
                    return Some(Err(error));
                }
            }
            span.pop().map(Ok)
        })
    }

    /// The last entries of a range, and what is left of the range below them.
    #[expect(clippy::type_complexity, reason = "said in the sentence above")]
    fn span(&self, low: u64, high: u64) -> sled::Result<Option<(Vec<(u64, IVec)>, Option<(u64, u64)>)>> {
        let Some((top, _)) = self.last(low, high)? else { return Ok(None) };
        let from = top.saturating_sub(SPAN - 1).max(low);
        let entries = self.range(from, top).collect::<sled::Result<_>>()?;
        Ok(Some((entries, (from > low).then(|| (low, from - 1)))))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn tree(numbers: &BTreeSet<u64>) -> (sled::Db, Tree) {
        let db = sled::Config::new().temporary(true).open().unwrap();
        let tree = db.open_tree("t").unwrap();
        for number in numbers {
            for prefix in [&b"a"[..], b"b", b"c"] {
                tree.insert([prefix, &number.to_be_bytes()].concat(), &number.to_be_bytes()).unwrap();
            }
        }
        (db, tree)
    }

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![0..100u64, 1_000..1_100u64, Just(u64::MAX), Just(u64::MAX - 1), any::<u64>()]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn the_newest_comes_first_as_if_the_tree_were_read_backwards(
            numbers in prop::collection::btree_set(number(), 0..80),
            low in number(),
            high in number(),
        ) {
            let (_db, tree) = tree(&numbers);
            let all = Numbered::new(&tree, b"b");
            let (low, high) = (low.min(high), low.max(high));
            let expected: Vec<u64> = numbers.range(low..=high).rev().copied().collect();
            let found: Vec<u64> = all.clone().newest_first(low, high).map(|entry| entry.unwrap().0).collect();
            prop_assert_eq!(&found, &expected);
            let last = all.last(low, high).unwrap();
            prop_assert_eq!(last.as_ref().map(|(number, _)| *number), expected.first().copied());
            prop_assert!(last.is_none_or(|(number, value)| value.as_ref() == number.to_be_bytes()));
        }
    }

    #[test]
    fn many_spans_are_one_row() {
        let numbers: BTreeSet<u64> = (1..2_000).chain((10_000..90_000).step_by(16)).collect();
        let (_db, tree) = tree(&numbers);
        let found: Vec<u64> = Numbered::new(&tree, b"a").newest_first(0, u64::MAX).map(|entry| entry.unwrap().0).collect();
        assert!(found.iter().eq(numbers.iter().rev()));
    }
}
