//! Ranges of record numbers: merged, taken from each other, written as `1-59 80-80` and read. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Sorted, and apart from each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    pub fn of(first: u64, last: u64) -> Self {
        let mut ranges = Self::default();
        ranges.add(first, last);
        ranges
    }

    /// Both ends included; nothing where `first` is behind `last`.
    pub fn add(&mut self, mut first: u64, mut last: u64) {
        if first > last {
            return;
        }
        let begin = self.0.partition_point(|(_, end)| end.saturating_add(1) < first);
        let behind = self.0.partition_point(|(start, _)| *start <= last.saturating_add(1));
        if begin < behind {
            first = first.min(self.0[begin].0);
            last = last.max(self.0[behind - 1].1);
        }
        self.0.splice(begin..behind.max(begin), [(first, last)]);
    }

    pub fn extend(&mut self, other: &Self) {
        for (first, last) in &other.0 {
            self.add(*first, *last);
        }
    }

    pub fn list(&self) -> &[(u64, u64)] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn covers(&self, first: u64, last: u64) -> bool {
        Self::of(first, last).without(self).is_empty()
    }

    /// What is in this one and not in the other.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        let mut others = other.0.iter().peekable();
        for &(first, last) in &self.0 {
            let mut from = Some(first);
            while let Some(&&(start, end)) = others.peek() {
                let Some(at) = from else { break };
                if start > last {
                    break;
                }
                if start > at {
                    left.push((at, start - 1));
                }
                if end >= at {
                    from = end.checked_add(1).filter(|next| *next <= last);
                }
                if end > last {
                    break;
                }
                others.next();
            }
            left.extend(from.map(|at| (at, last)));
        }
        Self(left)
    }

    /// At most so many: those that are nearest to each other are joined, with what is between them.
    pub fn keep_few(&mut self, most: usize) {
        while self.0.len() > most.max(1) {
            let gap = |at: &usize| self.0[at + 1].0 - self.0[*at].1;
            let at = (0..self.0.len() - 1).min_by_key(gap).expect("more than one");
            let (_, last) = self.0.remove(at + 1);
            self.0[at].1 = last;
        }
    }

    pub fn read(text: &str) -> Option<Self> {
        let mut ranges = Self::default();
        for part in text.split(' ') {
            let (first, last) = part.split_once('-')?;
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            if first > last {
                return None;
            }
            ranges.add(first, last);
        }
        Some(ranges)
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            write!(f, "{}{first}-{last}", if index == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Against sets of numbers, over all that small ranges can be.
    #[test]
    fn ranges_are_sets_of_numbers() {
        let mut seed = 7u64;
        let mut draw = |bound: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % bound
        };
        for _ in 0..2000 {
            let (mut a, mut b) = (Ranges::default(), Ranges::default());
            let (mut in_a, mut in_b) = (BTreeSet::new(), BTreeSet::new());
            for (ranges, set) in [(&mut a, &mut in_a), (&mut b, &mut in_b)] {
                for _ in 0..draw(6) {
                    let first = 1 + draw(30);
                    let last = first + draw(6);
                    ranges.add(first, last);
                    set.extend(first..=last);
                }
            }
            let numbers = |ranges: &Ranges| ranges.list().iter().flat_map(|(first, last)| *first..=*last).collect::<Vec<u64>>();
            assert_eq!(numbers(&a), in_a.iter().copied().collect::<Vec<_>>());
            assert!(a.list().windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{a} are apart");
            assert_eq!(numbers(&a.without(&b)), in_a.difference(&in_b).copied().collect::<Vec<_>>(), "{a} without {b}");
            assert!(a.is_empty() || Ranges::read(&a.to_string()).as_ref() == Some(&a));
            let mut few = a.clone();
            few.keep_few(2);
            assert!(few.list().len() <= 2 && a.without(&few).is_empty(), "{few}");
        }
    }

    #[test]
    fn what_is_no_range_is_not_read() {
        for text in ["", "7", "9-7", "1-2 x", "1-2  3-4"] {
            assert_eq!(Ranges::read(text), None, "{text}");
        }
        assert_eq!(Ranges::of(u64::MAX, u64::MAX).without(&Ranges::of(1, 5)).to_string(), format!("{0}-{0}", u64::MAX));
    }
}
