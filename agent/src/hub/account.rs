//! The account of one feed: its incarnations, how they follow each other, what is whole, what is missing. Pure.
//!
//! ```text
//!   A ───────────► 100          B follows A@100                the line of B: … A, B
//!                   └── B ─────────► 250                       a receipt for B says the deepest point that is whole along its line
//!              80 ──┐
//!                   └── X ───► 95   X follows A@80: a fork     its own line, its own receipts; A 81..=100 and B are reported, all is kept
//! ```
//!
//! 1. An incarnation is *told* once its open checkpoint came (its link), and *attached* once everything before its beginning is accounted for:
//!    its predecessor is whole up to the point it follows. Records that come earlier are counted in their incarnation and join later.
//! 2. First contact: the account starts at the gateway's `settled` mark, because nothing before it can come again.
//! 3. A gateway that considers more settled than is here, and says so twice (this side was restored from a backup, or the promise of the
//!    gateway ends at the broker): what lies between is reported as lost with exact ranges, and the account goes on after it.
//! 4. Forks (I8): any incarnation with records that is not on the line of a later one, and records of a predecessor beyond the point a
//!    successor follows. Each pair is reported once, with exact ranges; nothing is discarded, identities differ by incarnation. An incarnation
//!    without records is superseded silently.
//! 5. Bounds: complete and continued incarnations are closed but for the newest: only their name and their end are kept. A gateway tells its whole
//!    lineage at every connection, and an acknowledgement that got lost brings old records again; up to its end that says nothing new of a closed one.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::stretch::Stretch;
use crate::contract::Mark;
use crate::limits::{HUB_CLOSED_INCARNATIONS_MAX, HUB_CLOSED_NAMES_MAX, HUB_INCARNATIONS_MAX, HUB_MISSING_RANGES_MAX};
use crate::record::{Chain, Digest, Incarnation, Link, Position};

/// Something somebody should know about a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// `first..=last` of `other` are not in the history that `incarnation` continues.
    Fork { incarnation: Incarnation, other: Incarnation, first: u64, last: u64 },
    /// The record at `seq` does not follow from the one before it.
    ChainBroken { incarnation: Incarnation, seq: u64 },
    /// The gateway's durable head has another chain value than the records here.
    HeadConflict { incarnation: Incarnation, seq: u64 },
    /// `incarnation` says it follows `seq` of another, with another chain value than here.
    LinkConflict { incarnation: Incarnation, seq: u64 },
    /// Settled at the gateway and not here: these will not come again. The account goes on after `mark`.
    Lost { incarnation: Incarnation, mark: Mark, ranges: Vec<(u64, u64)> },
    /// The open checkpoint did not come; the chain of its first record says what the incarnation follows.
    Inferred { link: Link },
    /// Still missing at a second checkpoint.
    Missing { incarnation: Incarnation, ranges: Vec<(u64, u64)> },
}

/// What the index said, when it was opened, about the point that a new incarnation follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Followed {
    Unknown,
    Same,
    OtherChain,
}

/// A durable head as a checkpoint tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub incarnation: Incarnation,
    pub mark: Mark,
    pub settled: Mark,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Where it begins; `None` before the first checkpoint.
    start: Option<Mark>,
    /// The last point confirmed.
    confirmed: Option<Position>,
    /// In the order they were met.
    stretches: Vec<Stretch>,
    /// Complete, continued, and not among the stretches any more: with their last seq, the oldest first.
    #[serde(default)]
    closed: VecDeque<(Incarnation, u64)>,
}

/// What a receipt says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub through: Position,
    pub missing: Vec<(u64, u64)>,
}

impl Account {
    pub fn has_begun(&self) -> bool {
        self.start.is_some()
    }

    /// How many incarnations are remembered.
    pub fn incarnations(&self) -> usize {
        self.stretches.len()
    }

    /// The incarnation that a checkpoint told of last.
    pub fn current(&self) -> Option<Incarnation> {
        self.stretches.iter().rfind(|s| s.settled.is_some()).map(|s| s.incarnation)
    }

    /// Whether everything of an incarnation through `seq` is accounted for.
    pub fn is_through(&self, incarnation: Incarnation, seq: u64) -> bool {
        let through = self.find(incarnation).and_then(|at| self.stretches[at].progress.through());
        self.is_closed(incarnation, seq) || through.is_some_and(|mark| mark.seq >= seq)
    }

    /// First contact: nothing through `settled` can come again. Whose seq that is, the caller knows at best from the checkpoint.
    pub fn begin(&mut self, incarnation: Incarnation, settled: Mark) {
        if self.start.is_none() {
            self.start = Some(settled);
            self.confirmed = Some(Position { incarnation, seq: settled.seq, chain: settled.chain });
        }
    }

    /// A record is here (or is kept back at the gateway, and its digest and chain are).
    pub fn record(&mut self, incarnation: Incarnation, seq: u64, digest: &Digest, chain: Chain) -> Vec<Report> {
        if self.is_closed(incarnation, seq) {
            return Vec::new();
        }
        let at = self.at(incarnation);
        let stretch = &mut self.stretches[at];
        let begins = stretch.received(seq, seq);
        stretch.progress.absorb(seq, digest, chain);
        self.moved(at, begins)
    }

    /// `first..=last` will never come.
    pub fn gap(&mut self, incarnation: Incarnation, first: u64, last: u64, chain: Chain) -> Vec<Report> {
        if self.is_closed(incarnation, last) {
            return Vec::new();
        }
        let at = self.at(incarnation);
        let stretch = &mut self.stretches[at];
        let begins = stretch.received(first, last);
        stretch.progress.cover(first, last, chain);
        self.moved(at, begins)
    }

    /// Whether the link of an incarnation is known: [`Account::open`] learns nothing new from it.
    pub fn is_told(&self, incarnation: Incarnation) -> bool {
        self.is_closed(incarnation, 0) || self.find(incarnation).is_some_and(|at| self.stretches[at].told.is_some())
    }

    /// An open checkpoint. `followed`: what the index knows of the point it follows.
    pub fn open(&mut self, link: Link, settled: Mark, followed: Followed) -> Vec<Report> {
        if self.is_closed(link.incarnation, 0) {
            return Vec::new();
        }
        let at = self.at(link.incarnation);
        self.stretches[at].settled = Some(settled);
        if let Some(told) = self.stretches[at].told {
            let other = (told.base_seq(), told.base_chain()) != (link.base_seq(), link.base_chain());
            return other.then_some(Report::LinkConflict { incarnation: link.incarnation, seq: link.base_seq() }).into_iter().collect();
        }
        let known_parent = link.follows.is_some_and(|p| self.find(p.incarnation).is_some());
        let start = self.start.map_or(0, |start| start.seq);
        let base = link.base_seq();
        self.tell(at, link);
        let stretch = &mut self.stretches[at];
        // Before the account's time; or there is none before; or it was complete and is forgotten.
        let early = settled.seq >= base && base <= start;
        stretch.attached |= early || link.follows.is_none() || (!known_parent && followed == Followed::Same);
        if early {
            stretch.progress.anchor(settled);
        }
        let mut reports = Vec::new();
        if followed == Followed::OtherChain {
            reports.push(Report::LinkConflict { incarnation: link.incarnation, seq: base });
        }
        reports.extend(self.moved(at, true));
        self.forget();
        reports
    }

    /// A checkpoint with a durable head.
    pub fn head(&mut self, head: Head) -> Vec<Report> {
        if self.is_closed(head.incarnation, head.mark.seq) {
            return Vec::new();
        }
        let at = self.at(head.incarnation);
        let mut reports = self.attach();
        let stretch = &mut self.stretches[at];
        let before = stretch.head;
        if before.is_none_or(|known| known.seq < head.mark.seq) {
            stretch.head = Some(head.mark);
        }
        let conflict = stretch.progress.chain_at(head.mark.seq).is_some_and(|chain| chain != head.mark.chain);
        if conflict && !std::mem::replace(&mut stretch.head_conflict, true) {
            reports.push(Report::HeadConflict { incarnation: head.incarnation, seq: head.mark.seq });
        }
        stretch.settled = Some(head.settled);
        if let Some(mark) = stretch.settled_at_head.replace(head.settled) {
            reports.extend(self.settled_beyond(at, mark));
        }
        reports.extend(self.forks(at));
        reports.extend(self.still_missing(at, before));
        reports
    }

    /// The gateway said at an earlier head that all through `mark` is settled. What of it is not here will not come again.
    fn settled_beyond(&mut self, at: usize, mark: Mark) -> Vec<Report> {
        let (path, root) = self.path(at);
        let through = |at: usize| self.stretches[at].progress.through().map_or(0, |mark| mark.seq);
        let begins = path.last().and_then(|&top| self.stretches[top].base());
        let (floor, due) = match root {
            Some(root) => (through(root), mark.seq > through(root)),
            None => (self.confirmed.map_or(0, |confirmed| confirmed.seq), begins.is_some_and(|begins| mark.seq >= begins)),
        };
        if !due {
            return Vec::new();
        }
        let incarnation = self.stretches[at].incarnation;
        let ranges = complement(self.covered(&path), floor, mark.seq);
        let mut reports = Vec::new();
        if !ranges.is_empty() {
            reports.push(Report::Lost { incarnation, mark, ranges });
        }
        reports.extend(self.lost(incarnation, mark));
        reports
    }

    /// Everything through `mark` on the line of `incarnation` is settled at the gateway, whether it is here or not.
    pub fn lost(&mut self, incarnation: Incarnation, mark: Mark) -> Vec<Report> {
        let at = self.at(incarnation);
        let (path, _) = self.path(at);
        let owner = path.iter().copied().find(|&i| self.stretches[i].base().is_some_and(|base| base <= mark.seq)).unwrap_or(at);
        self.stretches[owner].progress.anchor(mark);
        self.stretches[owner].attached = true;
        self.moved(owner, false)
    }

    /// What is confirmed along the line of `incarnation`, and what is missing below its head. While the line hangs in the air (its origin is
    /// not known yet), nothing is confirmed that the gateway does not consider settled itself. `None` before its first checkpoint.
    pub fn standing(&self, incarnation: Incarnation) -> Option<Standing> {
        let at = self.find(incarnation)?;
        let (path, root) = self.path(at);
        let confirmed = root.and_then(|root| self.stretches[root].end());
        let newest = &self.stretches[at];
        let through = match confirmed {
            Some(position) => position,
            None => self.whose(newest.settled?, *path.last()?),
        };
        let to = newest.head.map_or(0, |head| head.seq).max(newest.base().unwrap_or(0));
        Some(Standing { through, missing: complement(self.covered(&path), through.seq, to) })
    }

    /// The position of a mark that the gateway considers settled, on a line that ends at `top`: whose seq it is can be known from its chain,
    /// else it is taken for the one before the line.
    fn whose(&self, mark: Mark, top: usize) -> Position {
        let Mark { seq, chain } = mark;
        let confirmed = self.confirmed.filter(|p| p.seq == seq && p.chain == chain);
        let known = || self.stretches.iter().find(|s| s.highest >= seq && s.progress.chain_at(seq) == Some(chain)).map(|s| s.incarnation);
        let top = &self.stretches[top];
        let before = || top.told.and_then(|link| link.follows).map_or(top.incarnation, |p| p.incarnation);
        confirmed.unwrap_or_else(|| Position { incarnation: known().unwrap_or_else(before), seq, chain })
    }

    fn covered(&self, path: &[usize]) -> Vec<(u64, u64)> {
        let mut covered = Vec::new();
        let mut end = u64::MAX;
        for &at in path {
            self.stretches[at].covered(end, &mut covered);
            end = self.stretches[at].base().unwrap_or(0);
        }
        covered
    }

    /// The standing for a receipt; remembered as the last one given.
    pub fn confirm(&mut self, incarnation: Incarnation) -> Option<Standing> {
        let mut standing = self.standing(incarnation)?;
        if self.find(incarnation).is_some_and(|at| self.path(at).1.is_some()) {
            self.confirmed = Some(standing.through);
        }
        standing.missing.truncate(HUB_MISSING_RANGES_MAX);
        Some(standing)
    }

    fn find(&self, incarnation: Incarnation) -> Option<usize> {
        self.stretches.iter().rposition(|s| s.incarnation == incarnation)
    }

    fn at(&mut self, incarnation: Incarnation) -> usize {
        self.find(incarnation).unwrap_or_else(|| {
            self.stretches.push(Stretch::new(incarnation));
            self.stretches.len() - 1
        })
    }

    fn parent(&self, at: usize) -> Option<usize> {
        self.find(self.stretches[at].told?.follows?.incarnation)
    }

    /// From `at` up to the first attached one (the second value), or as far as is known.
    fn path(&self, at: usize) -> (Vec<usize>, Option<usize>) {
        let mut path = vec![at];
        let mut last = at;
        while !self.stretches[last].attached {
            match self.parent(last).filter(|parent| !path.contains(parent)) {
                Some(parent) => last = parent,
                None => return (path, None),
            }
            path.push(last);
        }
        (path, Some(last))
    }

    /// After something moved in `at`; `look`: its relation to the others may be new.
    fn moved(&mut self, at: usize, look: bool) -> Vec<Report> {
        let mut reports = self.attach();
        let stretch = &mut self.stretches[at];
        if let Some(seq) = stretch.progress.broken().filter(|&seq| seq != stretch.broken) {
            stretch.broken = seq;
            reports.push(Report::ChainBroken { incarnation: stretch.incarnation, seq });
        }
        if look {
            reports.extend(self.forks(at));
        }
        reports
    }

    /// Attaches what can be: each round attaches one or ends.
    fn attach(&mut self) -> Vec<Report> {
        let mut reports = Vec::new();
        loop {
            let next = (0..self.stretches.len()).find(|&at| !self.stretches[at].attached && self.can_attach(at));
            let Some(at) = next else { return reports };
            if self.stretches[at].told.is_none()
                && let Some(follows) = self.follows_by_chain(at)
            {
                let link = Link { incarnation: self.stretches[at].incarnation, follows: Some(follows).filter(|p| p.seq > 0) };
                reports.push(Report::Inferred { link });
                self.tell(at, link);
            }
            self.stretches[at].attached = true;
        }
    }

    fn tell(&mut self, at: usize, link: Link) {
        let parent = link.follows.and_then(|p| self.find(p.incarnation));
        let forks = parent.map(|parent| self.stretches[parent].forks.clone());
        let stretch = &mut self.stretches[at];
        stretch.told = Some(link);
        stretch.progress.anchor(Mark { seq: link.base_seq(), chain: link.base_chain() });
        stretch.forks = forks.unwrap_or_default();
    }

    fn can_attach(&self, at: usize) -> bool {
        match self.stretches[at].told {
            Some(Link { follows: Some(follows), .. }) => self.find(follows.incarnation).is_some_and(|parent| {
                let parent = &self.stretches[parent];
                let whole = parent.progress.through().is_some_and(|mark| mark.seq >= follows.seq);
                let conflict = parent.progress.chain_at(follows.seq).is_some_and(|chain| chain != follows.chain);
                parent.attached && whole && !conflict
            }),
            Some(Link { follows: None, .. }) => true,
            None => self.follows_by_chain(at).is_some(),
        }
    }

    /// What an incarnation follows whose open checkpoint did not come: its first record says it by its chain.
    fn follows_by_chain(&self, at: usize) -> Option<Position> {
        let progress = &self.stretches[at].progress;
        let ends = self.stretches.iter().filter(|s| s.attached).filter_map(Stretch::end);
        self.confirmed.into_iter().chain(ends).find(|p| progress.begins_after(Mark { seq: p.seq, chain: p.chain }))
    }

    /// Histories beside the one that `at` belongs to, as far as they are not reported yet.
    fn forks(&mut self, at: usize) -> Vec<Report> {
        let Some(mut cut) = self.stretches[at].base() else { return Vec::new() };
        let (mut on_line, mut found) = (vec![at], Vec::new());
        let mut last = at;
        while let Some(parent) = self.parent(last).filter(|parent| !on_line.contains(parent)) {
            if self.stretches[parent].highest > cut {
                found.push((parent, cut + 1));
            }
            on_line.push(parent);
            last = parent;
            cut = self.stretches[parent].base().unwrap_or(0);
        }
        if self.stretches[last].attached && self.stretches[at].highest > 0 {
            let beside = (0..self.stretches.len()).filter(|other| !on_line.contains(other) && self.stretches[*other].highest > 0);
            found.extend(beside.filter(|&other| self.is_beside(other, at)).map(|other| (other, self.stretches[other].first)));
        }
        let mut reports = Vec::new();
        for (other, first) in found {
            let (name, last) = (self.stretches[other].incarnation, self.stretches[other].highest);
            // Told already, by this one or by one it continues.
            let known =
                on_line.iter().flat_map(|&i| &self.stretches[i].forks).filter(|(known, _)| *known == name).map(|(_, last)| *last).max();
            if known.is_some_and(|known| known >= last || !on_line.contains(&other)) {
                continue;
            }
            let stretch = &mut self.stretches[at];
            stretch.forks.retain(|(known, _)| *known != name);
            stretch.forks.push((name, last));
            reports.push(Report::Fork { incarnation: stretch.incarnation, other: name, first, last });
        }
        reports
    }

    /// Whether `other`, which is not above `at`, is not below it either and its own origin is known.
    fn is_beside(&self, other: usize, at: usize) -> bool {
        let mut last = other;
        for _ in 0..self.stretches.len() {
            if self.stretches[last].told.is_none() {
                return false;
            }
            match self.parent(last) {
                Some(parent) if parent == at => return false,
                Some(parent) => last = parent,
                None => return self.stretches[last].attached,
            }
        }
        false
    }

    /// Holes that the head before this one had already passed.
    fn still_missing(&mut self, at: usize, before: Option<Mark>) -> Option<Report> {
        let incarnation = self.stretches[at].incarnation;
        let (path, _) = self.path(at);
        let received = path.iter().map(|&i| self.stretches[i].highest).max().unwrap_or(0);
        let to = before.map_or(0, |mark| mark.seq).min(received);
        let ranges = within(&self.standing(incarnation)?.missing, to);
        let known = std::mem::replace(&mut self.stretches[at].missing, ranges.clone());
        (!ranges.is_empty() && ranges != known).then_some(Report::Missing { incarnation, ranges })
    }

    /// Keeps the table bounded: what is complete and continued goes first, then what never had a record, then the oldest.
    fn forget(&mut self) {
        let over: Vec<usize> = (0..self.stretches.len()).filter(|&at| self.is_over(at)).collect();
        let mut drop: Vec<usize> = over.iter().copied().take(over.len().saturating_sub(HUB_CLOSED_INCARNATIONS_MAX)).collect();
        for &at in &drop {
            let stretch = &self.stretches[at];
            let (name, last) = (stretch.incarnation, stretch.progress.through().map_or(0, |mark| mark.seq));
            self.closed.retain(|(closed, _)| *closed != name);
            self.closed.push_back((name, last));
        }
        self.closed.drain(..self.closed.len().saturating_sub(HUB_CLOSED_NAMES_MAX));
        let mut over = (self.stretches.len() - drop.len()).saturating_sub(HUB_INCARNATIONS_MAX);
        let newest = self.stretches.len().saturating_sub(1);
        for empty in [true, false] {
            let rest = (0..newest).filter(|at| !drop.contains(at) && (!empty || self.stretches[*at].highest == 0));
            let more: Vec<usize> = rest.take(over).collect();
            over -= more.len();
            drop.extend(more);
        }
        let gone: Vec<Incarnation> = drop.iter().map(|&at| self.stretches[at].incarnation).collect();
        self.stretches.retain(|s| !gone.contains(&s.incarnation));
        for stretch in &mut self.stretches {
            stretch.forks.retain(|(other, _)| !gone.contains(other));
        }
    }

    /// Nothing new can be said of it up to `seq`.
    fn is_closed(&self, incarnation: Incarnation, seq: u64) -> bool {
        self.closed.iter().any(|(closed, last)| *closed == incarnation && seq <= *last) && self.find(incarnation).is_none()
    }

    fn is_over(&self, at: usize) -> bool {
        let stretch = &self.stretches[at];
        stretch.attached
            && stretch.progress.is_whole()
            && self
                .stretches
                .iter()
                .any(|s| s.attached && s.told.and_then(|l| l.follows).is_some_and(|p| p.incarnation == stretch.incarnation))
    }
}

/// `(from, to]` without `covered`.
fn complement(mut covered: Vec<(u64, u64)>, from: u64, to: u64) -> Vec<(u64, u64)> {
    covered.sort_unstable();
    let mut missing = Vec::new();
    let mut next = from + 1;
    for (first, last) in covered {
        if first > next && next <= to {
            missing.push((next, (first - 1).min(to)));
        }
        next = next.max(last.saturating_add(1));
    }
    if next <= to {
        missing.push((next, to));
    }
    missing
}

/// The part of `ranges` up to `to`.
fn within(ranges: &[(u64, u64)], to: u64) -> Vec<(u64, u64)> {
    ranges.iter().filter(|(first, _)| *first <= to).map(|&(first, last)| (first, last.min(to))).collect()
}
