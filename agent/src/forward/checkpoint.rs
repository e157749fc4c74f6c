//! When a feed's head checkpoint is due, and what the hub could have known when it answered one.
//!
//! A checkpoint is the hub's cue for a receipt, so it is due when there is something to confirm: so many outcomes acknowledged by the broker
//! since the last one, or so long after the first of them, or at once when the feed is drained. While acknowledged outcomes stay unsettled it
//! is repeated, first soon, then every quarter of the receipt timeout, because a checkpoint or its receipt may have been lost.
//!
//! The head in it is the durable head, which may be far ahead of what was published. The hub then calls everything up to that head missing,
//! including what is still on its way. So each checkpoint is remembered with the mark up to which the broker had acknowledged everything when
//! it was published: below that mark "missing" means lost, above it means not yet arrived.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limits::{CHECKPOINT_INTERVAL, CHECKPOINT_SPACING, CHECKPOINTS_REMEMBERED, MISSING_GRACE};

/// A checkpoint that was published.
#[derive(Clone, Copy, Debug)]
struct Told {
    head: u64,
    acked: u64,
    at: Instant,
}

#[derive(Debug)]
pub struct Checkpoints {
    /// Outcomes acknowledged since the last checkpoint, and when the first of them was.
    uncovered: u64,
    uncovered_since: Option<Instant>,
    /// Due then whatever else: new connection, refused checkpoint, stop.
    forced: Option<Instant>,
    last: Option<Instant>,
    repeat: Duration,
    repeat_max: Duration,
    records_max: u64,
    told: VecDeque<Told>,
}

impl Checkpoints {
    pub fn new(records_max: u64, receipt_timeout: Duration) -> Self {
        let repeat_max = receipt_timeout / 4;
        Self {
            uncovered: 0,
            uncovered_since: None,
            forced: None,
            last: None,
            repeat: CHECKPOINT_INTERVAL.min(repeat_max),
            repeat_max,
            records_max,
            told: VecDeque::new(),
        }
    }

    /// The broker acknowledged an outcome.
    pub fn acked(&mut self, now: Instant) {
        self.uncovered += 1;
        self.uncovered_since.get_or_insert(now);
    }

    pub fn force(&mut self, at: Instant) {
        self.forced = Some(self.forced.map_or(at, |forced| forced.min(at)));
    }

    /// When the next one is due. `drained`: everything durable was published and acknowledged. `unsettled`: acknowledged outcomes wait for a
    /// receipt.
    pub fn due(&self, drained: bool, unsettled: bool) -> Option<Instant> {
        let covering = self.uncovered_since.map(|since| {
            if self.uncovered >= self.records_max {
                since
            } else if drained {
                self.last.map_or(since, |last| since.max(last + CHECKPOINT_SPACING))
            } else {
                since + CHECKPOINT_INTERVAL
            }
        });
        let repeating = self.last.filter(|_| unsettled).map(|last| last + self.repeat);
        [self.forced, covering, repeating].into_iter().flatten().min()
    }

    /// The next one covers nothing new: it is there because no receipt has come for the last.
    pub fn repeats(&self) -> bool {
        self.uncovered == 0 && self.forced.is_none() && self.last.is_some()
    }

    /// A checkpoint with this head was published; the broker had acknowledged everything through `acked`.
    pub fn published(&mut self, head: u64, acked: u64, now: Instant) {
        if self.repeats() {
            self.repeat = (self.repeat * 2).min(self.repeat_max);
        }
        (self.uncovered, self.uncovered_since, self.forced, self.last) = (0, None, None, Some(now));
        if self.told.len() == CHECKPOINTS_REMEMBERED {
            self.told.pop_front();
        }
        self.told.push_back(Told { head, acked, at: now });
    }

    /// The settled mark moved.
    pub fn progress(&mut self) {
        self.repeat = CHECKPOINT_INTERVAL.min(self.repeat_max);
    }

    /// Where missing ranges end at `end`: up to where are they really missing? Ranges that end at no head we told lie between things the hub
    /// holds.
    pub fn believable(&self, end: u64, now: Instant) -> u64 {
        let mut same = self.told.iter().filter(|told| told.head == end);
        let Some(oldest) = same.next() else { return end };
        same.rfind(|told| told.at + MISSING_GRACE <= now).unwrap_or(oldest).acked.min(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::CHECKPOINT_RECORDS;

    fn checkpoints() -> (Checkpoints, Instant) {
        (Checkpoints::new(CHECKPOINT_RECORDS, Duration::from_mins(1)), Instant::now())
    }

    #[test]
    fn nothing_acknowledged_needs_no_checkpoint() {
        let (checkpoints, _) = checkpoints();
        assert_eq!(checkpoints.due(true, false), None);
    }

    #[test]
    fn due_after_so_many_records_or_so_long_after_the_first() {
        let (mut checkpoints, now) = checkpoints();
        checkpoints.acked(now);
        checkpoints.acked(now + Duration::from_secs(1));
        assert_eq!(checkpoints.due(false, true), Some(now + CHECKPOINT_INTERVAL));
        for _ in 2..CHECKPOINT_RECORDS {
            checkpoints.acked(now + Duration::from_secs(1));
        }
        assert_eq!(checkpoints.due(false, true), Some(now));
    }

    #[test]
    fn due_at_once_when_drained_but_not_once_per_record() {
        let (mut checkpoints, now) = checkpoints();
        checkpoints.acked(now);
        assert_eq!(checkpoints.due(true, true), Some(now));
        checkpoints.published(1, 1, now);
        checkpoints.acked(now);
        assert_eq!(checkpoints.due(true, true), Some(now + CHECKPOINT_SPACING));
    }

    #[test]
    fn repeated_while_something_is_unsettled_up_to_a_quarter_of_the_timeout() {
        let (mut checkpoints, mut now) = checkpoints();
        checkpoints.acked(now);
        checkpoints.published(1, 1, now);
        let mut gaps = Vec::new();
        for _ in 0..6 {
            let due = checkpoints.due(true, true).unwrap();
            gaps.push((due - now).as_secs());
            now = due;
            checkpoints.published(1, 1, now);
        }
        assert_eq!(gaps, [2, 4, 8, 15, 15, 15]);
        assert_eq!(checkpoints.due(true, false), None);
    }

    #[test]
    fn missing_beyond_what_was_acknowledged_at_the_checkpoint_is_not_believed() {
        let (mut checkpoints, now) = checkpoints();
        checkpoints.published(1000, 40, now);
        checkpoints.published(1100, 90, now);
        assert_eq!(checkpoints.believable(1000, now), 40);
        assert_eq!(checkpoints.believable(1100, now), 90);
        assert_eq!(checkpoints.believable(30, now), 30, "a hole below something the hub holds");
        checkpoints.published(1100, 1100, now);
        assert_eq!(checkpoints.believable(1100, now), 90, "which of the two did it answer?");
        assert_eq!(checkpoints.believable(1100, now + MISSING_GRACE), 1100);
    }
}
