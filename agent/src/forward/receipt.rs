//! Receipts: reading one, and judging what it proves.
//!
//! A receipt settles only what it proves to be ours: the seq it names must carry our chain and our incarnation there. Everything else is a
//! condition, and settles nothing (I2). Judging is pure; the one thing that may need the disk is a receipt for records an earlier run of this
//! program published: they are looked up (`LookUp`) instead of being sent again.

use super::feed::Feed;
use crate::contract::{Mark, Receipt};
use crate::limits::RECEIPT_BYTES_MAX;
use crate::record::{Chain, Incarnation};

/// Why a message on the receipt topic is not one. Its content is not repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadReceipt {
    #[error("it has {0} bytes, more than the {RECEIPT_BYTES_MAX} a receipt may have")]
    TooLarge(usize),
    #[error("it is not a receipt as the contract says (line {line}, column {column})")]
    Malformed { line: usize, column: usize },
}

pub fn parse(payload: &[u8]) -> Result<Receipt, BadReceipt> {
    if payload.len() > RECEIPT_BYTES_MAX {
        return Err(BadReceipt::TooLarge(payload.len()));
    }
    serde_json::from_slice(payload).map_err(|e| BadReceipt::Malformed { line: e.line(), column: e.column() })
}

/// What a receipt says about a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Below the settled mark: an old one.
    Old,
    /// Nothing new settled; `missing` may still be news.
    Standing,
    Settles(Mark),
    /// Above everything this run published, not above the durable head: the journal knows.
    LookUp,
    /// Another chain or incarnation than ours at that seq.
    Conflict,
    /// The hub holds more than this spool does; `renew` where it holds it of the incarnation we are still writing.
    Ahead {
        renew: bool,
    },
}

pub fn judge(feed: &Feed, receipt: &Receipt) -> Verdict {
    let (seq, settled) = (receipt.through_seq, feed.settled());
    if seq < settled.seq {
        return Verdict::Old;
    }
    if seq == settled.seq {
        return if receipt.chain == settled.chain { Verdict::Standing } else { Verdict::Conflict };
    }
    if receipt.incarnation == feed.head.incarnation && seq > feed.head.seq {
        return Verdict::Ahead { renew: true };
    }
    if seq > feed.head.seq || beyond_its_incarnation(feed, receipt) {
        return Verdict::Ahead { renew: false };
    }
    match feed.entry(seq) {
        None => Verdict::LookUp,
        Some(entry) => compare(feed, receipt, entry.last, entry.incarnation, entry.chain),
    }
}

/// Compares with the outcome of ours that holds `through_seq` and ends at `last`. Where one incarnation ends, a receipt may name the next one
/// as well: the link between them is ours and names the same chain.
pub fn compare(feed: &Feed, receipt: &Receipt, last: u64, incarnation: Incarnation, chain: Chain) -> Verdict {
    if receipt.through_seq != last {
        // Inside a gap: there is no chain of ours to compare with. A hub takes a gap whole, so the next receipt will stand at its end.
        Verdict::Standing
    } else if receipt.chain == chain && (receipt.incarnation == incarnation || begins_after(feed, receipt)) {
        Verdict::Settles(Mark { seq: last, chain })
    } else {
        Verdict::Conflict
    }
}

/// The receipt speaks of an incarnation that we know to have ended before `through_seq`.
fn beyond_its_incarnation(feed: &Feed, receipt: &Receipt) -> bool {
    let at = feed.lineage.iter().position(|link| link.incarnation == receipt.incarnation);
    let next = at.and_then(|i| feed.lineage.get(i + 1));
    next.is_some_and(|next| receipt.through_seq > next.base_seq())
}

/// The receipt's incarnation is one of ours that begins right after `through_seq`.
fn begins_after(feed: &Feed, receipt: &Receipt) -> bool {
    feed.lineage.iter().any(|link| link.incarnation == receipt.incarnation && link.base_seq() == receipt.through_seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_read_as_the_contract_says() {
        let chain = "ab".repeat(32);
        let incarnation = "cd".repeat(16);
        let text = format!(r#"{{"feed":"or-usage","incarnation":"{incarnation}","through_seq":7,"chain":"{chain}","missing":[[9,11]]}}"#);
        let receipt = parse(text.as_bytes()).unwrap();
        assert_eq!((receipt.through_seq, receipt.missing), (7, vec![(9, 11)]));
    }

    /// I7: what a stranger sent is not repeated in the error.
    #[test]
    fn what_is_not_a_receipt_is_refused_without_repeating_it() {
        let error = parse(br#"{"feed":"CANARY 123"}"#).unwrap_err().to_string();
        assert!(!error.contains("CANARY"), "{error}");
        assert_eq!(parse(&vec![b' '; RECEIPT_BYTES_MAX + 1]), Err(BadReceipt::TooLarge(RECEIPT_BYTES_MAX + 1)));
    }
}
