//! What the account of a feed knows of one incarnation. Pure data; the rules are in [`account`](super::account).

use serde::{Deserialize, Serialize};

use super::progress::Progress;
use crate::contract::Mark;
use crate::record::{Incarnation, Link, Position};

/// One incarnation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    pub incarnation: Incarnation,
    /// `None` until its open checkpoint came.
    pub(super) told: Option<Link>,
    pub(super) attached: bool,
    pub progress: Progress,
    /// Lowest and highest seq received; 0 before the first.
    pub(super) first: u64,
    pub(super) highest: u64,
    pub(super) head: Option<Mark>,
    /// What the gateway considers settled: by its last checkpoint, and by its last head.
    pub(super) settled: Option<Mark>,
    pub(super) settled_at_head: Option<Mark>,
    /// Reported already: other incarnations and their last seq then; a seq whose chain is broken; a conflicting head; missing ranges.
    pub(super) forks: Vec<(Incarnation, u64)>,
    pub(super) broken: u64,
    pub(super) head_conflict: bool,
    pub(super) missing: Vec<(u64, u64)>,
}

impl Stretch {
    pub(super) fn new(incarnation: Incarnation) -> Self {
        Self {
            incarnation,
            told: None,
            attached: false,
            progress: Progress::default(),
            first: 0,
            highest: 0,
            head: None,
            settled: None,
            settled_at_head: None,
            forks: Vec::new(),
            broken: 0,
            head_conflict: false,
            missing: Vec::new(),
        }
    }

    /// The contiguous mark, and whose seq it is.
    pub(super) fn end(&self) -> Option<Position> {
        let Mark { seq, chain } = self.progress.through()?;
        let before = self.told.and_then(|link| link.follows).filter(|p| p.seq == seq);
        Some(before.unwrap_or(Position { incarnation: self.incarnation, seq, chain }))
    }

    pub(super) fn base(&self) -> Option<u64> {
        self.told.map(|link| link.base_seq())
    }

    pub(super) fn received(&mut self, first: u64, last: u64) -> bool {
        let begins = self.highest == 0;
        self.first = if begins { first } else { self.first.min(first) };
        self.highest = self.highest.max(last);
        begins
    }

    /// Ranges of seqs accounted for, up to `end`.
    pub(super) fn covered(&self, end: u64, into: &mut Vec<(u64, u64)>) {
        let through = self.progress.through().map(|mark| (self.base().unwrap_or(0) + 1, mark.seq));
        let unproven = usize::from(self.progress.broken().is_some());
        let runs = self.progress.runs().iter().skip(unproven).map(|run| (run.first, run.last));
        into.extend(through.into_iter().chain(runs).map(|(first, last)| (first, last.min(end))).filter(|(first, last)| first <= last));
    }
}
