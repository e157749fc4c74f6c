//! What of one incarnation of one feed is here: a contiguous mark, and verified runs above it. Pure.
//!
//! ```text
//!   base ───────────► through        first ═══► last      first ═► last
//!   everything here, chain verified   a run, verified       another
//!                                     inside
//! ```
//!
//! 1. A record extends a run (or the mark) only where its chain value follows from the one before: `chain_n = SHA-256(chain_{n-1} ‖ seq ‖
//!    digest_n)`. So a run needs no more than its two ends to be known as whole, however long it is: memory does not grow with the records.
//! 2. A run joins the mark when it begins right after it and its first chain value follows from the mark's. One that begins there and does
//!    not follow stays apart and is reported ([`Progress::broken`]); the true record replaces it when it comes.
//! 3. A gap is a run without a beginning to verify: it joins whatever stands before it and hands on the chain value at its end.
//! 4. Full (`HUB_RUNS_MAX`): the highest run is forgotten. Its records are on disk all the same; the gateway is asked for them again, and they
//!    are then known as duplicates and counted.

use serde::{Deserialize, Serialize};

use crate::contract::Mark;
use crate::limits::HUB_RUNS_MAX;
use crate::record::{Chain, Digest};

/// How the first record of a run is tied to the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    pub digest: Digest,
    pub chain: Chain,
}

/// Records `first..=last`, contiguous and verified inside. `proof` is `None` where the run begins with a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub first: u64,
    pub proof: Option<Proof>,
    pub last: u64,
    pub last_chain: Chain,
}

impl Run {
    /// Whether this run is what comes right after `mark`.
    pub fn follows(&self, mark: Mark) -> bool {
        mark.seq + 1 == self.first && self.proof.is_none_or(|p| mark.chain.after(self.first, &p.digest) == p.chain)
    }

    fn end(&self) -> Mark {
        Mark { seq: self.last, chain: self.last_chain }
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// `None` until the beginning of the incarnation is known.
    through: Option<Mark>,
    /// Ascending, apart.
    runs: Vec<Run>,
}

impl Progress {
    pub fn through(&self) -> Option<Mark> {
        self.through
    }

    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Nothing above the mark.
    pub fn is_whole(&self) -> bool {
        self.runs.is_empty()
    }

    /// Counts a record.
    pub fn absorb(&mut self, seq: u64, digest: &Digest, chain: Chain) {
        if let Some(through) = self.through {
            if seq <= through.seq {
                return;
            }
            if seq == through.seq + 1 && through.chain.after(seq, digest) == chain {
                // A run that claimed this seq with another chain began with a stranger.
                self.runs.retain(|run| run.first > seq);
                self.through = Some(Mark { seq, chain });
                self.join();
                return;
            }
        }
        self.insert(Run { first: seq, proof: Some(Proof { digest: *digest, chain }), last: seq, last_chain: chain });
        self.join();
    }

    /// Counts a gap: `first..=last` will not come, the chain at `last` is `chain`.
    pub fn cover(&mut self, first: u64, last: u64, chain: Chain) {
        if self.through.is_some_and(|through| last <= through.seq) {
            return;
        }
        let mut gap = Run { first, proof: None, last, last_chain: chain };
        self.runs.retain(|run| {
            let apart = run.last < first || run.first > last;
            if !apart && run.first < gap.first {
                (gap.first, gap.proof) = (run.first, run.proof);
            }
            if !apart && run.last > gap.last {
                (gap.last, gap.last_chain) = (run.last, run.last_chain);
            }
            apart
        });
        self.insert(gap);
        self.join();
    }

    /// Everything through `mark` is accounted for.
    pub fn anchor(&mut self, mark: Mark) {
        if self.through.is_none_or(|through| through.seq < mark.seq) {
            self.through = Some(mark);
        }
        self.join();
    }

    /// The seq right after the mark, where something claims it whose chain does not follow.
    pub fn broken(&self) -> Option<u64> {
        let next = self.through?.seq + 1;
        self.runs.first().filter(|run| run.first == next).map(|run| run.first)
    }

    /// The chain value at `seq`, where it is one of those kept.
    pub fn chain_at(&self, seq: u64) -> Option<Chain> {
        let ends = self.through.into_iter().chain(self.runs.iter().map(Run::end));
        let firsts = self.runs.iter().filter_map(|run| run.proof.map(|p| Mark { seq: run.first, chain: p.chain }));
        ends.chain(firsts).find(|mark| mark.seq == seq).map(|mark| mark.chain)
    }

    /// Whether the first run proves by its chain that it comes right after `mark`. A gap proves nothing.
    pub fn begins_after(&self, mark: Mark) -> bool {
        self.runs.first().is_some_and(|run| run.proof.is_some() && run.follows(mark))
    }

    fn insert(&mut self, run: Run) {
        let at = self.runs.partition_point(|r| r.last < run.first);
        if self.runs.get(at).is_some_and(|r| r.first <= run.first) {
            return; // already inside one
        }
        if at > 0 && run.follows(self.runs[at - 1].end()) {
            (self.runs[at - 1].last, self.runs[at - 1].last_chain) = (run.last, run.last_chain);
            self.merge(at - 1);
        } else {
            self.runs.insert(at, run);
            self.merge(at);
            self.runs.truncate(HUB_RUNS_MAX);
        }
    }

    /// Joins the run at `at` with those that follow it.
    fn merge(&mut self, at: usize) {
        while self.runs.get(at + 1).is_some_and(|next| next.follows(self.runs[at].end())) {
            let next = self.runs.remove(at + 1);
            (self.runs[at].last, self.runs[at].last_chain) = (next.last, next.last_chain);
        }
    }

    /// Moves the mark over every run that it reaches.
    fn join(&mut self) {
        let Some(mut through) = self.through else { return };
        let mut joined = 0;
        for run in &self.runs {
            if run.last <= through.seq {
                joined += 1;
            } else if run.first <= through.seq || run.follows(through) {
                through = run.end();
                joined += 1;
            } else {
                break;
            }
        }
        self.runs.drain(..joined);
        self.through = Some(through);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Nonce;

    /// Records 1..=n: (digest, chain), index 0 = seq 1.
    fn history(n: u64) -> Vec<(Digest, Chain)> {
        let mut chain = Chain::GENESIS;
        (1..=n)
            .map(|seq| {
                let digest = Digest::of(&Nonce([0; 16]), &seq.to_be_bytes());
                chain = chain.after(seq, &digest);
                (digest, chain)
            })
            .collect()
    }

    fn give(progress: &mut Progress, history: &[(Digest, Chain)], seqs: impl IntoIterator<Item = u64>) {
        for seq in seqs {
            let (digest, chain) = history[seq as usize - 1];
            progress.absorb(seq, &digest, chain);
        }
    }

    fn mark(history: &[(Digest, Chain)], seq: u64) -> Mark {
        Mark { seq, chain: if seq == 0 { Chain::GENESIS } else { history[seq as usize - 1].1 } }
    }

    #[test]
    fn a_run_waits_for_the_hole_below_it_and_then_joins() {
        let h = history(9);
        let mut p = Progress::default();
        p.anchor(mark(&h, 0));
        give(&mut p, &h, [1, 2, 6, 5, 9, 7]);
        assert_eq!(p.through(), Some(mark(&h, 2)));
        assert_eq!(p.runs().iter().map(|r| (r.first, r.last)).collect::<Vec<_>>(), [(5, 7), (9, 9)]);
        give(&mut p, &h, [4, 3]);
        assert_eq!(p.through(), Some(mark(&h, 7)));
        give(&mut p, &h, [8]);
        assert_eq!(p.through(), Some(mark(&h, 9)));
        assert!(p.is_whole());
    }

    #[test]
    fn what_arrived_before_the_beginning_is_known_is_anchored_later() {
        let h = history(6);
        let mut p = Progress::default();
        give(&mut p, &h, [3, 4, 5]);
        assert_eq!(p.through(), None);
        assert!(p.begins_after(mark(&h, 2)));
        p.anchor(mark(&h, 2));
        assert_eq!(p.through(), Some(mark(&h, 5)));
    }

    #[test]
    fn a_record_whose_chain_does_not_follow_never_moves_the_mark_and_the_true_one_does() {
        let h = history(4);
        let mut p = Progress::default();
        p.anchor(mark(&h, 0));
        give(&mut p, &h, [1]);
        p.absorb(2, &h[1].0, Chain([9; 32]));
        assert_eq!(p.broken(), Some(2));
        give(&mut p, &h, [3, 4]);
        assert_eq!(p.through(), Some(mark(&h, 1)));
        give(&mut p, &h, [2]);
        assert_eq!(p.through(), Some(mark(&h, 4)));
        assert_eq!(p.broken(), None);
    }

    #[test]
    fn a_gap_carries_the_account_over_with_its_chain() {
        let h = history(9);
        let mut p = Progress::default();
        p.anchor(mark(&h, 0));
        give(&mut p, &h, [1, 4, 7, 8]);
        p.cover(2, 7, h[6].1); // overlaps what is here on both sides
        assert_eq!(p.through(), Some(mark(&h, 8)));
        give(&mut p, &h, [9]);
        assert_eq!(p.through(), Some(mark(&h, 9)));
    }

    /// I4: the number of runs is bounded; what is forgotten can be given again.
    #[test]
    fn more_holes_than_runs_are_forgotten_from_above_and_counted_when_given_again() {
        let n = 2 * HUB_RUNS_MAX as u64 + 40;
        let h = history(n);
        let mut p = Progress::default();
        p.anchor(mark(&h, 0));
        give(&mut p, &h, (1..=n / 2).map(|i| 2 * i));
        assert_eq!(p.runs().len(), HUB_RUNS_MAX);
        give(&mut p, &h, 1..=n);
        assert_eq!(p.through(), Some(mark(&h, n)));
    }
}
