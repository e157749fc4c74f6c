//! What the records of a log on disk say together, segment by segment, the oldest first. Pure.
//!
//! ```text
//!   piece ──► whole, of this log, of the number that is due or a later one ──► counts; what lies between is missing
//!         ├─► whole, but of another gateway, log or place                   ──► foreign: never called torn, never lost without a word
//!         ├─► a record whose digest is not that of what it says             ──► altered: its number is missing
//!         └─► no record                                                     ──► at the end torn, in front of others damage
//! ```
//!
//! Which log it is says its first whole record. What ought to be here begins with the number in the name of the first segment; what is before that
//! the broker has, or a record says that it was given up, or it is missing too.

use std::collections::{BTreeMap, BTreeSet};

use super::chain::{Fault, read_line};
use super::ranges::Ranges;
use super::verify::{DAMAGED, DROPPED};
use crate::contract::{Audit, AuditStage};
use crate::record::{Incarnation, Name};

/// Records of what became of a revision of the configuration begin so.
pub const REVISION: &str = "revision_";
/// Records that are no record of this log.
pub const FOREIGN: &str = "audit_foreign";
/// Another log lies beside this one.
pub const PUT_ASIDE: &str = "audit_put_aside";
/// An override that a start found.
pub const HOLDS: &str = "override_holds";
/// Facts that are told once in a log.
const ONCE: [&str; 3] = [FOREIGN, PUT_ASIDE, HOLDS];

/// Pieces of a segment that should be records, with where each begins: lines, and what stands between zeroes.
pub fn pieces(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    let pieces = bytes.split(|byte| *byte == b'\n' || *byte == 0).map(move |piece| {
        let begin = at;
        at += piece.len() + 1;
        (begin, piece)
    });
    pieces.filter(|(_, piece)| !piece.is_empty())
}

/// As much of a text as tells it from others.
pub fn once(what: &str, subject: &str) -> String {
    format!("{what} {subject}")
}

#[derive(Debug, Default)]
pub struct Walk {
    /// What the broker has, as a file says: of which log, up to which record.
    pub mark: Option<(Incarnation, u64)>,
    pub identity: Option<(Name, Incarnation)>,
    pub last: Option<Audit>,
    /// The number that is due.
    pub next: u64,
    begins: Option<u64>,
    pub open: BTreeMap<u64, Audit>,
    pub revision: String,
    pub missing: Ranges,
    /// As records say it: damaged, given up, and the newest record of each kind.
    told: Ranges,
    given_up: Ranges,
    told_at: u64,
    /// Given up, and the broker has not the record of it.
    pub dropped: (Ranges, u64),
    /// Of [`ONCE`].
    pub once: BTreeSet<String>,
    /// By segment.
    pub foreign: BTreeMap<u64, u64>,
    altered: u64,
    /// Bytes that are no record, with nothing behind them yet.
    pub torn: usize,
    /// Of the segment that is walked: lines of its records, where the last of them ends, and whether there was more than records and a torn end.
    pub lines: Vec<u8>,
    pub end: usize,
    pub is_damaged: bool,
}

impl Walk {
    pub fn new(mark: Option<(Incarnation, u64)>) -> Self {
        Self { mark, next: 1, ..Self::default() }
    }

    /// Up to which record the broker has this log.
    pub fn sent(&self) -> u64 {
        let chain = self.identity.as_ref().map(|(_, chain)| *chain);
        self.mark.filter(|(of, _)| Some(*of) == chain).map_or(0, |(_, sent)| sent)
    }

    /// Nothing here is a record, though there were some.
    pub fn is_lost(&self) -> bool {
        let was_begun = self.mark.is_some_and(|(_, sent)| sent > 0) || self.begins.is_some_and(|first| first > 1);
        self.last.is_none() && (was_begun || self.altered > 0 || !self.missing.is_empty())
    }

    /// `first`: the number in its name; `end`: that of the next one.
    pub fn segment(&mut self, first: u64, bytes: &[u8], end: Option<u64>) {
        (self.lines, self.end, self.is_damaged) = (Vec::new(), 0, false);
        if self.begins.is_none() {
            (self.begins, self.next) = (Some(first), first);
        }
        self.missing.add(self.next, first.saturating_sub(1));
        self.next = self.next.max(first);
        let torn_before = self.torn;
        for (at, piece) in pieces(bytes) {
            match read_line(piece) {
                // Not acknowledged to anybody: the next segment has the record of this number.
                Ok(audit) if self.is_ours(&audit) && end.is_some_and(|end| audit.n >= end) => {}
                Ok(audit) if self.is_ours(&audit) && audit.n >= self.next => {
                    let gap = audit.n - self.next;
                    self.is_damaged |= self.torn > torn_before;
                    self.missing.add(self.next, audit.n - 1);
                    // More of them than numbers are missing: put in.
                    self.strange(first, self.altered.saturating_sub(gap));
                    (self.torn, self.altered) = (0, 0);
                    self.lines.extend_from_slice(piece);
                    self.lines.push(b'\n');
                    self.end = at + piece.len();
                    self.record(audit);
                }
                Ok(_) => self.strange(first, 1),
                Err(Fault::Altered) => (self.altered, self.is_damaged) = (self.altered + 1, true),
                Err(Fault::NoRecord) => self.torn += piece.len(),
            }
        }
    }

    fn is_ours(&self, audit: &Audit) -> bool {
        self.identity.as_ref().is_none_or(|(gateway, chain)| *gateway == audit.gateway && *chain == audit.chain)
    }

    fn strange(&mut self, segment: u64, records: u64) {
        if records > 0 {
            *self.foreign.entry(segment).or_default() += records;
            self.is_damaged = true;
        }
    }

    fn record(&mut self, audit: Audit) {
        if self.identity.is_none() {
            self.identity = Some((audit.gateway.clone(), audit.chain));
        }
        match (audit.stage, audit.of) {
            (AuditStage::Intent, _) => drop(self.open.insert(audit.n, audit.clone())),
            (AuditStage::Outcome, Some(of)) => drop(self.open.remove(&of)),
            _ => {}
        }
        let ranges = || Ranges::read(&audit.subject).unwrap_or_default();
        match audit.what.as_str() {
            DAMAGED => {
                self.told.extend(&ranges());
                self.told_at = audit.n;
            }
            DROPPED => {
                self.given_up.extend(&ranges());
                if audit.n > self.sent() {
                    self.dropped.0.extend(&ranges());
                    self.dropped.1 = audit.n;
                }
            }
            what if ONCE.contains(&what) => {
                self.once.insert(once(what, &audit.subject));
                if what != HOLDS {
                    self.told_at = audit.n;
                }
            }
            _ => {}
        }
        if audit.what.starts_with(REVISION) {
            self.revision = format!("{} {}", audit.what, audit.subject);
        }
        self.next = audit.n + 1;
        self.last = Some(audit);
    }

    /// All segments were walked: what is missing and no record says it.
    pub fn finish(&mut self) -> Ranges {
        self.missing.add(self.next, (self.next + self.altered).saturating_sub(1));
        self.next += self.altered;
        if self.altered > 0 {
            (self.altered, self.torn) = (0, 0);
        }
        // The hub has them, so their numbers are not given again.
        self.missing.add(self.next, self.sent());
        self.next = self.next.max(self.sent() + 1);
        let before = Ranges::of(self.sent() + 1, self.begins.unwrap_or(1).saturating_sub(1));
        self.missing.extend(&before.without(&self.given_up));
        self.missing.without(&self.told)
    }

    /// A record says that this log is not whole, and the broker has not that record yet.
    pub fn doubt(&self) -> Option<String> {
        if self.told_at <= self.sent() {
            return None;
        }
        let what = if self.told.is_empty() { "its records say why".to_owned() } else { format!("missing: {}", self.told) };
        Some(format!("the audit log is not whole ({what}), and the hub has not the record that says so; see `siteward audit list`"))
    }
}
