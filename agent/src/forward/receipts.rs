//! What the hub's receipts, and their absence, make the core do. Judging one is in `receipt.rs`.

use std::time::Instant;

use super::core::{Core, Effect, Seen};
use super::receipt::{Verdict, compare, judge};
use crate::config::settings::Confirm;
use crate::contract::Receipt;
use crate::limits::{MISSING_RANGES_MAX, RENEW_RETRY};
use crate::record::FeedId;
use crate::status::condition::Code;

impl Core {
    /// A receipt arrived; the feed's head is fresh. False: no feed of that name.
    pub fn receipt(&mut self, receipt: Receipt, now: Instant) -> bool {
        let Some(feed) = self.feed_named(&receipt.feed) else { return false };
        if let Some(hold) = &mut self.hold {
            hold.sooner(now); // whoever sends receipts is there: try
        }
        match judge(&self.feeds[feed], &receipt) {
            Verdict::LookUp if self.rules.confirm == Confirm::Receipt => self.effects.push(Effect::LookUp { feed, receipt }),
            verdict => self.judged(feed, &receipt, verdict, now),
        }
        true
    }

    /// What the journal holds at the seq of a receipt for records an earlier run published; `None` where it could not be read.
    pub fn looked_up(&mut self, feed: usize, receipt: &Receipt, found: Option<Seen>, now: Instant) {
        // Things may have moved on since it was asked for.
        let verdict = match (judge(&self.feeds[feed], receipt), found) {
            (Verdict::LookUp, Some(seen)) if (seen.first..=seen.last).contains(&receipt.through_seq) => {
                compare(&self.feeds[feed], receipt, seen.last, seen.incarnation, seen.chain)
            }
            (Verdict::LookUp, _) => Verdict::Standing,
            (verdict, _) => verdict,
        };
        self.judged(feed, receipt, verdict, now);
    }

    fn judged(&mut self, feed: usize, receipt: &Receipt, verdict: Verdict, now: Instant) {
        let by_receipt = self.rules.confirm == Confirm::Receipt;
        self.hub_time(feed, receipt, verdict);
        match verdict {
            Verdict::Old | Verdict::LookUp => return,
            Verdict::Standing => {}
            Verdict::Settles(mark) => {
                if by_receipt {
                    self.settle(feed, mark, now);
                    self.clear(Code::ReceiptsMissing, Some(feed));
                }
                self.clear(Code::ChainConflict, Some(feed));
            }
            Verdict::Conflict => {
                let text = format!(
                    "the hub's record {} of this feed differs from ours: nothing is released on that receipt; compare both sides before \
                     anything is deleted (a restored or cloned gateway?)",
                    receipt.through_seq
                );
                return self.raise(Code::ChainConflict, Some(feed), text);
            }
            Verdict::Ahead { renew } => return self.behind_hub(feed, receipt.through_seq, renew, now),
        }
        if by_receipt {
            self.missing(feed, receipt, now);
        }
    }

    /// Only a receipt that knows our chain says what time it is.
    fn hub_time(&mut self, feed: usize, receipt: &Receipt, verdict: Verdict) {
        let settled = self.feeds[feed].settled();
        let again = settled.seq > 0 && receipt.through_seq == settled.seq && receipt.chain == settled.chain;
        let time = receipt.time.as_deref().and_then(|time| time.parse::<jiff::Timestamp>().ok());
        if let Some(time) = time.filter(|_| again || matches!(verdict, Verdict::Settles(_))) {
            self.effects.push(Effect::HubTime { unix_ms: time.as_millisecond() });
        }
    }

    /// Stays raised: what the hub has and we do not is a fact that somebody must look at, not a state that passes.
    fn behind_hub(&mut self, feed: usize, through: u64, renew: bool, now: Instant) {
        let text = format!(
            "the hub has this feed through {through}, our spool ends at {}: the spool was restored from an older image, or the disk lost its \
             end; new records go on under a new incarnation, the hub keeps both",
            self.feeds[feed].head.seq
        );
        self.raise(Code::SpoolBehindHub, Some(feed), text);
        if renew && self.renew_not_before.is_none_or(|at| at <= now) {
            self.renew_not_before = Some(now + RENEW_RETRY);
            self.effects.push(Effect::Renew);
        }
    }

    /// Missing ranges: what lies between things the hub holds, and what the broker had acknowledged when the checkpoint was published that the
    /// hub answers here.
    fn missing(&mut self, feed: usize, receipt: &Receipt, now: Instant) {
        let feed = &mut self.feeds[feed];
        let Some(end) = receipt.missing.iter().map(|&(_, last)| last).max() else { return };
        let believable = feed.checkpoints.believable(end, now);
        let ranges = receipt.missing.iter().take(MISSING_RANGES_MAX);
        let back = feed.missing(ranges.map(|&(first, last)| (first, if last == end { believable } else { last })), now);
        if back > 0 {
            tracing::warn!(
                feed = feed.id.as_str(),
                outcomes = back,
                "the hub lacks outcomes the broker had acknowledged; they are sent again"
            );
        }
    }

    /// Receipts that stay away although the broker acknowledges: back to the settled mark, with growing patience.
    pub(super) fn tend_receipts(&mut self, now: Instant) {
        if self.rules.confirm != Confirm::Receipt || !self.is_up() {
            return;
        }
        for index in 0..self.feeds.len() {
            let feed = &mut self.feeds[index];
            if feed.overdue_at(self.rules.receipt_timeout).is_some_and(|at| at <= now) {
                let acked = feed.acked();
                feed.go_back();
                feed.lose_patience(now);
                let text = format!(
                    "the broker acknowledged {acked} outcomes of this feed above {}, but no receipt of the hub covers them: they are kept \
                     and sent again; check the hub's receiver",
                    feed.settled().seq
                );
                self.raise(Code::ReceiptsMissing, Some(index), text);
            }
        }
    }

    pub fn feed_named(&self, id: &FeedId) -> Option<usize> {
        self.feeds.iter().position(|feed| feed.id == *id)
    }
}
