//! When the oldest unsettled record of a feed came: a bounded list of marks (seq, time), in memory only. Pure.
//!
//! ```text
//!   settled 131 │ 132 @ 10:00:00 ─ 180 @ 10:00:01 ─ 190 @ 10:00:03 ─ … ─ head 512        one mark per second, or fewer
//!               └── the oldest unsettled record came at 10:00:00 or up to one step later
//! ```
//!
//! 1. A mark is made for the first record, and then for the first one that comes a step after the mark before it. When there are too many, every
//!    second one goes and the step doubles: the longer a backlog, the coarser, about one percent of its length.
//! 2. Marks that are settled go. A feed without a backlog holds one at most, and its step is a second again.
//! 3. After a start there is one mark per segment, from what recovery read.
//!
//! For people only: a clock that jumps makes marks useless, never anything else (I10).

use std::collections::VecDeque;

use crate::limits::ARRIVAL_MARKS_MAX;

const STEP_MS: i64 = 1000;

#[derive(Clone, Debug)]
pub struct Arrivals {
    marks: VecDeque<(u64, i64)>,
    step_ms: i64,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self { marks: VecDeque::new(), step_ms: STEP_MS }
    }
}

impl Arrivals {
    /// A record became durable; calls come in order of seq.
    pub fn note(&mut self, seq: u64, received_ms: i64) {
        if self.marks.back().is_some_and(|(_, last)| received_ms.abs_diff(*last) < self.step_ms.unsigned_abs()) {
            return;
        }
        self.marks.push_back((seq, received_ms));
        if self.marks.len() > ARRIVAL_MARKS_MAX {
            let mut odd = false;
            self.marks.retain(|_| {
                odd = !odd;
                odd
            });
            self.step_ms = self.step_ms.saturating_mul(2);
        }
    }

    /// Everything through here is settled.
    pub fn settle(&mut self, seq: u64, head: u64) {
        while self.marks.get(1).is_some_and(|(next, _)| *next <= seq.saturating_add(1)) {
            self.marks.pop_front();
        }
        if seq >= head {
            self.marks.clear();
            self.step_ms = STEP_MS;
        }
    }

    /// When the first unsettled record came, at the earliest. Call only where there is one.
    pub fn oldest(&self) -> Option<i64> {
        self.marks.front().map(|(_, received_ms)| *received_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_known_within_a_second_while_a_backlog_is_short() {
        let mut arrivals = Arrivals::default();
        assert_eq!(arrivals.oldest(), None);
        for seq in 1..=100 {
            arrivals.note(seq, 10_000 + seq.cast_signed() * 250);
        }
        for settled in 1..100 {
            arrivals.settle(settled, 100);
            let came = 10_000 + (settled.cast_signed() + 1) * 250;
            let told = arrivals.oldest().unwrap();
            assert!(told <= came && came - told < STEP_MS, "{settled}: {told} for {came}");
        }
        arrivals.settle(100, 100);
        assert_eq!(arrivals.oldest(), None);
    }

    #[test]
    fn a_week_of_backlog_takes_no_more_room_and_is_known_within_two_percent() {
        const HEAD: u64 = 7 * 24 * 3600;
        let mut arrivals = Arrivals::default();
        for seq in 1..=HEAD {
            arrivals.note(seq, seq.cast_signed() * 1000);
            assert!(arrivals.marks.len() <= ARRIVAL_MARKS_MAX);
        }
        for settled in (0..HEAD).step_by(1013) {
            arrivals.settle(settled, HEAD);
            let (came, told) = ((settled.cast_signed() + 1) * 1000, arrivals.oldest().unwrap());
            assert!(told <= came && came - told <= HEAD.cast_signed() * 1000 / 50, "{settled}: {told} for {came}");
        }
    }

    /// I10: a clock that goes back by years makes another mark and nothing worse.
    #[test]
    fn a_clock_that_jumps_is_no_harm() {
        let mut arrivals = Arrivals::default();
        for (seq, ms) in [(1, 1_800_000_000_000), (2, 5), (3, i64::MAX), (4, i64::MIN)] {
            arrivals.note(seq, ms);
        }
        arrivals.settle(2, 4);
        assert_eq!(arrivals.oldest(), Some(i64::MAX));
    }
}
