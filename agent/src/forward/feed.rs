//! One feed: what was published above the settled mark, and what goes next.
//!
//! ```text
//!   settled          entries: published since, without gaps                     head
//!      │  acked  acked  in flight  acked  unsent  in flight │ not read yet …      │
//!      └─ only this moves what may be released               └─ after(): read next └─ durable
//! ```
//!
//! An **entry** is one outcome: a record's event, a record's exception, or a gap over several seqs. It is sent (in flight), acknowledged by the
//! broker (acked), or has to be sent again (unsent: the connection ended, the broker refused it, or the hub does not have it). Unsent entries
//! go first, lowest seq first, then new ones; a feed has one place where it goes on, never two. Bodies are not kept: what is sent again is
//! read again.
//!
//! Invariants: I2 and I3. `settled` moves only in [`Feed::settle_through`], over whole entries from the front, so that no seq is passed over.
//! Memory is bounded by `unconfirmed_max` entries (I4); a feed that reached it waits for confirmation.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::checkpoint::Checkpoints;
use super::pause::Pause;
use crate::contract::Mark;
use crate::limits::{MISSING_RETRY_MAX, MISSING_RETRY_MIN, RECEIPT_PATIENCE_MAX};
use crate::record::{Chain, FeedId, Incarnation, Lane, Link, Position};
use crate::status::condition::Code;

/// Where a feed stands when the forwarder takes it up.
#[derive(Clone, Debug)]
pub struct FeedStart {
    pub id: FeedId,
    pub lane: Lane,
    pub settled: Mark,
    pub head: Position,
    pub lineage: Vec<Link>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Unsent,
    InFlight(u64),
    Acked,
}

/// What a seq, or a range of them, becomes at the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Becomes {
    Event,
    Gap,
    /// Kept back; `stored` once its copy is in quarantine.
    Exception {
        reason: &'static str,
        stored: bool,
    },
}

#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub first: u64,
    pub last: u64,
    pub incarnation: Incarnation,
    pub chain: Chain,
    pub state: State,
    pub becomes: Becomes,
}

/// Why a feed is left alone for a while; each has its condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parked {
    pub pause: Pause,
    /// Raised while parked.
    pub code: Option<Code>,
}

#[derive(Debug)]
pub struct Feed {
    pub id: FeedId,
    pub lane: Lane,
    pub head: Position,
    pub lineage: Vec<Link>,
    /// The next link to publish on this connection; events wait until all are published.
    pub opens: usize,
    /// A link's publish failed: the lineage is published again after a pause.
    pub opens_again: bool,
    /// Nobody was subscribed when the lineage was published: it goes again before the next head, or before the probe that ends a hold.
    pub unheard: bool,
    /// The lineage went again for the head that is due now.
    pub reopened: bool,
    pub parked: Option<Parked>,
    /// No longer configured.
    pub retired: bool,
    pub checkpoints: Checkpoints,
    settled: Mark,
    entries: VecDeque<Entry>,
    unsent: BTreeSet<u64>,
    in_flight: usize,
    acked: usize,
    unconfirmed_max: usize,
    /// When something last settled, or began to wait for it; and by how much patience has grown since.
    progress_at: Instant,
    patience: u32,
    missing_not_before: Option<Instant>,
    missing_delay: Duration,
}

impl Feed {
    pub fn new(start: FeedStart, unconfirmed_max: usize, checkpoints: Checkpoints, now: Instant) -> Self {
        Self {
            id: start.id,
            lane: start.lane,
            head: start.head,
            lineage: start.lineage,
            opens: 0,
            opens_again: false,
            unheard: false,
            reopened: false,
            parked: None,
            retired: false,
            checkpoints,
            settled: start.settled,
            entries: VecDeque::new(),
            unsent: BTreeSet::new(),
            in_flight: 0,
            acked: 0,
            unconfirmed_max,
            progress_at: now,
            patience: 1,
            missing_not_before: None,
            missing_delay: MISSING_RETRY_MIN,
        }
    }

    // ---- what goes next ----

    pub fn settled(&self) -> Mark {
        self.settled
    }
    /// The last seq published, settled or not.
    pub fn tail(&self) -> u64 {
        self.entries.back().map_or(self.settled.seq, |e| e.last)
    }
    /// Outcomes the broker acknowledged that wait for a receipt.
    pub fn acked(&self) -> usize {
        self.acked
    }
    #[cfg(test)]
    pub fn unconfirmed(&self) -> usize {
        self.entries.len()
    }
    pub fn opened(&self) -> bool {
        self.opens >= self.lineage.len()
    }
    /// The lineage goes again, before anything else of the feed.
    pub fn open_again(&mut self) {
        (self.opens, self.opens_again, self.unheard) = (0, false, false);
    }
    /// Everything durable is published and acknowledged.
    pub fn drained(&self) -> bool {
        self.in_flight == 0 && self.unsent.is_empty() && self.tail() >= self.head.seq
    }

    /// No longer configured and wholly settled: there is nothing to say about it.
    pub fn is_done(&self) -> bool {
        self.retired && self.settled.seq >= self.head.seq
    }

    /// How many outcomes may wait for their confirmation from now on.
    pub fn allow(&mut self, unconfirmed_max: usize) {
        self.unconfirmed_max = unconfirmed_max;
    }

    /// The seq after which the next outcome is read; `None` when there is nothing to send or no room to remember it.
    pub fn after(&self) -> Option<u64> {
        if let Some(first) = self.unsent.first() {
            return Some(first - 1);
        }
        let more = self.tail() < self.head.seq && self.entries.len() < self.unconfirmed_max;
        more.then(|| self.tail())
    }

    /// Something to send and no reason not to.
    pub fn ready(&self, now: Instant) -> bool {
        let free = self.parked.is_none_or(|parked| parked.pause.over(now) && self.in_flight == 0);
        self.opened() && free && self.after().is_some()
    }

    fn index(&self, seq: u64) -> Option<usize> {
        let index = self.entries.partition_point(|e| e.last < seq);
        self.entries.get(index).filter(|e| e.first <= seq).map(|_| index)
    }

    pub fn entry(&self, seq: u64) -> Option<&Entry> {
        self.index(seq).map(|i| &self.entries[i])
    }

    // ---- what happens to entries ----

    /// The outcome that was read after `after()` is being sent as `token`. A resent one that reads differently now (it was damaged since)
    /// takes the place of everything from there on.
    pub fn sending(&mut self, outcome: Entry, token: u64) {
        let known = self.index(outcome.first);
        if let Some(index) = known {
            let e = self.entries[index];
            if (e.first, e.last, e.chain, e.incarnation) == (outcome.first, outcome.last, outcome.chain, outcome.incarnation) {
                self.entries[index].becomes = outcome.becomes;
                return self.set(index, State::InFlight(token));
            }
            while self.entries.len() > index {
                self.forget_back();
            }
        }
        assert_eq!(outcome.first, self.tail() + 1, "outcomes are sent without gaps (I3)");
        self.entries.push_back(Entry { state: State::InFlight(token), ..outcome });
        self.in_flight += 1;
    }

    /// What the seqs of an entry become has changed.
    pub fn becomes(&mut self, first: u64, becomes: Becomes) {
        if let Some(index) = self.index(first) {
            self.entries[index].becomes = becomes;
        }
    }

    /// The entry sent as `token` is now `state`; false when the feed has gone back behind it since.
    pub fn answered(&mut self, first: u64, token: u64, state: State, now: Instant) -> bool {
        let Some(index) = self.index(first).filter(|&i| self.entries[i].state == State::InFlight(token)) else { return false };
        if state == State::Acked {
            if self.acked == 0 {
                self.progress_at = now;
            }
            self.checkpoints.acked(now);
        }
        self.set(index, state);
        true
    }

    /// The connection ended: what was not answered is unsent.
    pub fn down(&mut self) {
        for index in 0..self.entries.len() {
            if matches!(self.entries[index].state, State::InFlight(_)) {
                self.set(index, State::Unsent);
            }
        }
    }

    /// Back to the settled mark: everything acknowledged goes again.
    pub fn go_back(&mut self) {
        for index in 0..self.entries.len() {
            if self.entries[index].state == State::Acked {
                self.set(index, State::Unsent);
            }
        }
    }

    /// The hub lacks these; those that are not on their way already go again, but not at the pace at which receipts repeat themselves.
    /// Says how many.
    pub fn missing(&mut self, ranges: impl Iterator<Item = (u64, u64)>, now: Instant) -> usize {
        if self.missing_not_before.is_some_and(|at| now < at) {
            return 0;
        }
        let mut back = 0;
        for (first, last) in ranges {
            let start = self.entries.partition_point(|e| e.last < first);
            for index in start..self.entries.len() {
                if self.entries[index].first > last {
                    break;
                }
                if self.entries[index].state == State::Acked {
                    self.set(index, State::Unsent);
                    back += 1;
                }
            }
        }
        if back > 0 {
            self.missing_not_before = Some(now + self.missing_delay);
            self.missing_delay = (self.missing_delay * 2).min(MISSING_RETRY_MAX);
        }
        back
    }

    fn set(&mut self, index: usize, state: State) {
        let entry = &mut self.entries[index];
        let (before, first) = (std::mem::replace(&mut entry.state, state), entry.first);
        self.count(before, first, false);
        self.count(state, first, true);
    }

    fn count(&mut self, state: State, first: u64, more: bool) {
        let step = |n: &mut usize| if more { *n += 1 } else { *n -= 1 };
        match state {
            State::InFlight(_) => step(&mut self.in_flight),
            State::Acked => step(&mut self.acked),
            State::Unsent if more => assert!(self.unsent.insert(first), "an entry is unsent once"),
            State::Unsent => assert!(self.unsent.remove(&first), "an unsent entry is known as such"),
        }
    }

    fn forget_back(&mut self) {
        if let Some(e) = self.entries.pop_back() {
            self.count(e.state, e.first, false);
        }
    }

    // ---- settling ----

    /// Everything acknowledged without a gap from the settled mark on (where the promise ends at the broker).
    pub fn acked_mark(&self) -> Mark {
        let contiguous = self.entries.iter().take_while(|e| e.state == State::Acked).last();
        contiguous.map_or(self.settled, |e| Mark { seq: e.last, chain: e.chain })
    }

    /// Moves the settled mark forward to the end of an entry, or beyond all of them. I2: the caller holds the proof.
    pub fn settle_through(&mut self, mark: Mark, now: Instant) {
        assert!(mark.seq > self.settled.seq, "the settled mark only moves forward");
        while self.entries.front().is_some_and(|e| e.last <= mark.seq) {
            if let Some(e) = self.entries.pop_front() {
                self.count(e.state, e.first, false);
            }
        }
        assert!(self.entries.front().is_none_or(|e| e.first == mark.seq + 1), "marks stand at the end of an outcome");
        self.settled = mark;
        self.progress_at = now;
        self.patience = 1;
        self.missing_not_before = None;
        self.missing_delay = MISSING_RETRY_MIN;
        self.checkpoints.progress();
    }

    // ---- waiting for receipts ----

    /// When receipts have been away for too long.
    pub fn overdue_at(&self, receipt_timeout: Duration) -> Option<Instant> {
        (self.acked > 0).then(|| self.progress_at + receipt_timeout * self.patience)
    }

    /// Receipts have not been away for too long yet.
    pub fn is_patient(&self) -> bool {
        self.patience == 1
    }

    /// Waiting begins anew: a new connection, or after going back.
    pub fn wait_anew(&mut self, now: Instant) {
        self.progress_at = now;
    }

    pub fn lose_patience(&mut self, now: Instant) {
        self.progress_at = now;
        self.patience = (self.patience * 2).min(RECEIPT_PATIENCE_MAX);
    }

    /// Records of the current incarnation.
    pub fn count_of_incarnation(&self) -> u64 {
        let link = self.lineage.iter().rev().find(|l| l.incarnation == self.head.incarnation);
        link.map_or(0, |l| self.head.seq.saturating_sub(l.base_seq()))
    }
}
