//! Whether audit records are whole: numbers without gaps, each naming the digest of the one before it. Pure; the same on the gateway and at the hub.
//!
//! Records are taken in any order and more than once. What is kept of each is 24 bytes, so a budget bounds it ([`AUDIT_VERIFY_RECORDS_MAX`]).
//!
//! | said | means |
//! |---|---|
//! | `missing` | numbers that nobody brought: before the first, between some that came, or up to what the broker is said to have |
//! | `dropped` | numbers that a record says were given up unsent; what of them is not here is not missing |
//! | `excused` | up to this number they are not asked for: the broker has them, or whoever asks says that the files begin later |
//! | `forked` | two different records of one number: a restored or copied gateway, or somebody wrote his own |
//! | `broken` | a record does not name the digest of the one before it |
//! | `altered` | a record whose digest is not that of what it says; what it claims to be is not believed, so its number is missing too |

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::chain::{Fault, genesis, read};
use super::ranges::Ranges;
use crate::contract::Audit;
use crate::limits::{AUDIT_PLACES_SHOWN, AUDIT_VERIFY_RECORDS_MAX};
use crate::record::{Incarnation, Name};

/// What the gateway writes where the oldest records had to go unsent; its subject is `first-last`, or several of them with spaces between.
pub const DROPPED: &str = "audit_dropped";
/// What it writes where records are missing or cannot be read; its subject is `first-last`.
pub const DAMAGED: &str = "audit_damaged";

/// What the files of a gateway say of its log beside the records.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stands {
    /// Of this log the broker has the records up to `sent`.
    pub chain: Option<Incarnation>,
    pub sent: u64,
    /// The number in the name of the oldest file: what the broker has from before it made room.
    pub begins: u64,
}

/// As much of a digest as tells two records apart.
type Short = [u8; 8];

#[derive(Clone, Debug, Default)]
struct Chain {
    records: BTreeMap<u64, (Short, Short)>,
    repeated: u64,
    forked: Vec<u64>,
    dropped: Ranges,
    damaged: Ranges,
    begun: Option<String>,
}

/// What was found of one chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainVerdict {
    pub gateway: Name,
    pub chain: Incarnation,
    pub first: u64,
    pub last: u64,
    pub records: u64,
    /// The time its first record names.
    pub begun: Option<String>,
    pub repeated: u64,
    #[serde(default)]
    pub excused: u64,
    pub missing: Vec<(u64, u64)>,
    pub dropped: Vec<(u64, u64)>,
    pub forked: Vec<u64>,
    pub broken: Vec<u64>,
}

impl ChainVerdict {
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.forked.is_empty() && self.broken.is_empty()
    }

    /// A line for people.
    pub fn sentence(&self) -> String {
        let ranges = |all: &[(u64, u64)]| {
            let one = |(first, last): &(u64, u64)| if first == last { first.to_string() } else { format!("{first}-{last}") };
            all.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        let numbers = |all: &[u64]| all.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        let Self { gateway, chain, first, last, records, .. } = self;
        let mut text = format!("{gateway} chain {chain}: {records} records, {first} to {last}");
        let mut add = |part: String| {
            text.push_str("; ");
            text.push_str(&part);
        };
        if self.excused > 0 {
            add(format!("1 to {} are elsewhere", self.excused));
        }
        if !self.missing.is_empty() {
            add(format!("MISSING {}", ranges(&self.missing)));
        }
        if !self.dropped.is_empty() {
            add(format!("given up unsent, as a record of it says: {}", ranges(&self.dropped)));
        }
        if !self.forked.is_empty() {
            add(format!("FORKED at {}: two different records of one number", numbers(&self.forked)));
        }
        if !self.broken.is_empty() {
            add(format!("BROKEN at {}: it does not continue the record before it", numbers(&self.broken)));
        }
        if self.is_whole() {
            add("whole".to_owned());
        }
        text
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub chains: Vec<ChainVerdict>,
    /// Records that say something else than was signed off by their digest: where they were found.
    pub altered: Vec<String>,
    /// Records of versions that kept no chain.
    pub unchained: u64,
}

impl Verdict {
    pub fn is_whole(&self) -> bool {
        self.altered.is_empty() && self.chains.iter().all(ChainVerdict::is_whole)
    }

    pub fn text(&self) -> String {
        let mut lines: Vec<String> = self.chains.iter().map(ChainVerdict::sentence).collect();
        let gateways: Vec<&Name> = self.chains.iter().map(|chain| &chain.gateway).collect();
        let mut again: Vec<String> = Vec::new();
        for (index, gateway) in gateways.iter().enumerate() {
            if gateways[..index].contains(gateway) && !again.contains(&gateway.to_string()) {
                again.push(gateway.to_string());
            }
        }
        lines.extend(again.iter().map(|gateway| {
            format!("{gateway} has more than one chain: its log was begun anew (a new box, or an empty spool); see that somebody knows why")
        }));
        lines.extend(self.altered.iter().map(|place| format!("ALTERED: {place}")));
        if self.unchained > 0 {
            lines.push(format!("{} records of a version that kept no chain were passed over", self.unchained));
        }
        if self.chains.is_empty() && self.altered.is_empty() {
            lines.push("no record".to_owned());
        }
        lines.join("\n") + "\n"
    }
}

/// Takes records, then says what they are together.
#[derive(Clone, Debug, Default)]
pub struct Verifier {
    chains: BTreeMap<(Name, Incarnation), Chain>,
    taken: usize,
    altered: Vec<String>,
    unchained: u64,
    stands: Option<Stands>,
    is_partial: bool,
}

fn short(digest: &crate::record::Digest) -> Short {
    std::array::from_fn(|i| digest.0[i])
}

impl Verifier {
    /// Of one gateway's own files.
    pub fn stands(&mut self, stands: Stands) {
        self.stands = Some(stands);
    }

    /// The files begin later than the log: what is before the first record is not asked for.
    pub fn is_partial(&mut self) {
        self.is_partial = true;
    }

    /// `place`: where it was found. False: there is no room for more.
    pub fn take(&mut self, value: &Value, place: impl FnOnce() -> String) -> bool {
        match read(value) {
            Ok(audit) => return self.take_record(&audit),
            Err(Fault::NoRecord) if value.get("digest").is_none() && value.get("who").is_some() => self.unchained += 1,
            Err(_) if self.altered.len() < AUDIT_PLACES_SHOWN => self.altered.push(place()),
            Err(_) => {}
        }
        true
    }

    fn take_record(&mut self, audit: &Audit) -> bool {
        if self.taken >= AUDIT_VERIFY_RECORDS_MAX {
            return false;
        }
        let chain = self.chains.entry((audit.gateway.clone(), audit.chain)).or_default();
        let entry = (short(&audit.digest), short(&audit.prev));
        match chain.records.get(&audit.n) {
            Some(known) if *known == entry => chain.repeated += 1,
            Some(_) => {
                if chain.forked.len() < AUDIT_PLACES_SHOWN && !chain.forked.contains(&audit.n) {
                    chain.forked.push(audit.n);
                }
            }
            None => {
                self.taken += 1;
                chain.records.insert(audit.n, entry);
                if audit.n == 1 {
                    chain.begun = Some(audit.time.clone());
                }
                let ranges = || Ranges::read(&audit.subject).unwrap_or_default();
                match audit.what.as_str() {
                    DROPPED => chain.dropped.extend(&ranges()),
                    DAMAGED => chain.damaged.extend(&ranges()),
                    _ => {}
                }
            }
        }
        true
    }

    pub fn verdict(self) -> Verdict {
        let Self { chains, mut altered, unchained, stands, is_partial, .. } = self;
        // A mark without a record of its log: nothing is left of it.
        if let Some(Stands { chain: Some(chain), sent, .. }) = stands
            && sent > 0
            && !chains.keys().any(|(_, known)| *known == chain)
        {
            altered.push(format!("chain {chain}, of which the broker has {sent} records and none is here"));
        }
        let expected = |id: Incarnation, first: u64| match stands {
            Some(Stands { chain, sent, begins }) => {
                let sent = if chain == Some(id) { sent } else { 0 };
                Expected { excused: sent.min(begins.saturating_sub(1)), sent }
            }
            None => Expected { excused: if is_partial { first.saturating_sub(1) } else { 0 }, sent: 0 },
        };
        let judged = |((gateway, id), chain): ((Name, Incarnation), Chain)| {
            let first = chain.records.keys().next().copied().unwrap_or(0);
            judge(gateway, id, chain, expected(id, first))
        };
        Verdict { chains: chains.into_iter().map(judged).collect(), altered, unchained }
    }
}

/// Of one chain: up to where nothing is asked for, and up to where the broker is said to have it.
#[derive(Clone, Copy)]
struct Expected {
    excused: u64,
    sent: u64,
}

fn judge(gateway: Name, id: Incarnation, chain: Chain, expected: Expected) -> ChainVerdict {
    let Chain { records, repeated, forked, dropped, damaged, begun } = chain;
    let (first, last) = (records.keys().next().copied().unwrap_or(0), records.keys().next_back().copied().unwrap_or(0));
    let excused = expected.excused.min(first.saturating_sub(1));
    let head = Ranges::of(1, first.saturating_sub(1));
    let asked = Ranges::of(excused + 1, first.saturating_sub(1));
    // What is told as damaged stays missing, also where the broker is said to have it.
    let mut missing = head.without(&head.without(&damaged));
    missing.extend(&asked.without(&dropped));
    let mut broken = Vec::new();
    let mut before: Option<(u64, Short)> = (first == 1).then(|| (0, short(&genesis(&gateway, id))));
    for (&n, &(digest, prev)) in &records {
        if let Some((known, expected)) = before {
            if n > known + 1 {
                missing.extend(&Ranges::of(known + 1, n - 1).without(&dropped));
            } else if prev != expected && broken.len() < AUDIT_PLACES_SHOWN {
                broken.push(n);
            }
        }
        before = Some((n, digest));
    }
    missing.add(last + 1, expected.sent);
    let shown = |ranges: &Ranges| ranges.list().iter().copied().take(AUDIT_PLACES_SHOWN).collect::<Vec<_>>();
    let (missing, dropped) = (shown(&missing), shown(&dropped));
    ChainVerdict {
        gateway,
        chain: id,
        first,
        last,
        records: records.len() as u64,
        begun,
        repeated,
        excused,
        missing,
        dropped,
        forked,
        broken,
    }
}

#[cfg(test)]
mod tests {
    use super::super::chain::{Draft, seal};
    use super::*;
    use crate::contract::AuditStage;
    use crate::record::Digest;

    const ID: Incarnation = Incarnation([7; 16]);

    fn gateway() -> Name {
        Name::new("gw1").unwrap()
    }

    /// Records 1 to `count` of a chain; `whats` for some.
    fn records(count: u64, mut draft: impl FnMut(u64) -> (&'static str, String)) -> Vec<Value> {
        let mut prev = genesis(&gateway(), ID);
        let one = |n| {
            let (what, subject) = draft(n);
            let (line, digest) = seal(&gateway(), ID, n, prev, Draft::new(AuditStage::Fact, "kim", what, &subject, ""));
            prev = digest;
            serde_json::from_str(&line).unwrap()
        };
        (1..=count).map(one).collect()
    }

    fn plain(count: u64) -> Vec<Value> {
        records(count, |n| ("pause_feed", format!("feed {n}")))
    }

    fn judged<'a>(records: impl IntoIterator<Item = &'a Value>) -> Verdict {
        let mut verifier = Verifier::default();
        for (line, value) in records.into_iter().enumerate() {
            assert!(verifier.take(value, || format!("line {line}")));
        }
        verifier.verdict()
    }

    #[test]
    fn a_chain_is_whole_in_any_order_and_however_often_it_comes() {
        let records = plain(5);
        let verdict = judged(records.iter().rev().chain(&records));
        assert!(verdict.is_whole(), "{}", verdict.text());
        assert_eq!((verdict.chains[0].records, verdict.chains[0].repeated), (5, 5));
        assert!(verdict.text().ends_with("5 records, 1 to 5; whole\n"), "{}", verdict.text());
    }

    #[test]
    fn what_is_missing_is_named_and_what_was_given_up_is_told_apart() {
        let records = plain(9);
        let verdict = judged(records.iter().filter(|record| ![3, 4, 7].contains(&record["n"].as_u64().unwrap())));
        assert_eq!(verdict.chains[0].missing, [(3, 4), (7, 7)]);
        assert!(!verdict.is_whole() && verdict.text().contains("MISSING 3-4, 7"), "{}", verdict.text());
        let records = self::records(9, |n| if n == 8 { (DROPPED, "3-4".into()) } else { ("x", String::new()) });
        let verdict = judged(records.iter().filter(|record| ![3, 4].contains(&record["n"].as_u64().unwrap())));
        assert!(verdict.is_whole() && verdict.text().contains("given up unsent"), "{}", verdict.text());
    }

    /// What came in pieces covers a gap as one; what no record tells of stays missing, also at the head.
    #[test]
    fn ranges_that_were_given_up_are_taken_together() {
        let told = |n| match n {
            10 => (DROPPED, "1-3".into()),
            11 => (DROPPED, "4-6 8-8".into()),
            _ => ("x", String::new()),
        };
        let all = records(12, told);
        let from = |first: u64| judged(all.iter().filter(|record| record["n"].as_u64().unwrap() >= first));
        let verdict = from(7);
        assert!(verdict.is_whole(), "{}", verdict.text());
        assert_eq!(verdict.chains[0].dropped, [(1, 6), (8, 8)]);
        let verdict = from(10);
        assert_eq!(verdict.chains[0].missing, [(7, 7), (9, 9)], "{}", verdict.text());
        let mut verifier = Verifier::default();
        verifier.is_partial();
        for record in all.iter().skip(9) {
            assert!(verifier.take(record, String::new));
        }
        let verdict = verifier.verdict();
        assert!(verdict.is_whole() && verdict.text().contains("1 to 9 are elsewhere"), "{}", verdict.text());
    }

    #[test]
    fn both_ends_of_a_gateways_own_log_are_held_against_what_the_broker_has() {
        let all = plain(9);
        let stand = |records: &[Value], sent: u64, begins: u64| {
            let mut verifier = Verifier::default();
            verifier.stands(Stands { chain: Some(ID), sent, begins });
            for record in records {
                assert!(verifier.take(record, String::new));
            }
            verifier.verdict()
        };
        assert!(stand(&all[4..], 6, 5).is_whole(), "what the broker has made room");
        assert_eq!(stand(&all[4..], 2, 5).chains[0].missing, [(3, 4)], "it has not these");
        assert_eq!(stand(&all[4..], 6, 1).chains[0].missing, [(1, 4)], "the file begins with 1");
        assert_eq!(stand(&all[..4], 6, 1).chains[0].missing, [(5, 6)], "the end is gone");
        assert!(!stand(&[], 6, 1).is_whole(), "all of it is gone");
    }

    #[test]
    fn a_record_that_was_changed_is_found_also_where_its_digest_was_made_anew() {
        let mut records = plain(5);
        records[2]["who"] = "nobody".into();
        let verdict = judged(&records);
        assert!(!verdict.is_whole() && verdict.altered == ["line 2"] && verdict.chains[0].missing == [(3, 3)], "{}", verdict.text());
        // With a digest that fits, the next one tells on it.
        let prev: Digest = records[2]["prev"].as_str().unwrap().parse().unwrap();
        let forged = seal(&gateway(), ID, 3, prev, Draft::new(AuditStage::Fact, "nobody", "pause_feed", "feed 3", "")).0;
        records[2] = serde_json::from_str(&forged).unwrap();
        let verdict = judged(&records);
        assert_eq!(verdict.chains[0].broken, [4]);
        // And beside the one that came first it is a fork.
        let whole = plain(5);
        let verdict = judged(whole.iter().chain([&records[2]]));
        assert_eq!((verdict.chains[0].forked.as_slice(), verdict.is_whole()), ([3].as_slice(), false));
    }

    #[test]
    fn a_log_that_was_begun_anew_is_said() {
        let mut records = plain(2);
        let other = Incarnation([8; 16]);
        let (line, _) = seal(&gateway(), other, 1, genesis(&gateway(), other), Draft::new(AuditStage::Fact, "kim", "x", "", ""));
        records.push(serde_json::from_str(&line).unwrap());
        let verdict = judged(&records);
        assert!(verdict.is_whole() && verdict.text().contains("more than one chain"), "{}", verdict.text());
        // The beginning of another chain does not fit into this one.
        let forged = seal(&gateway(), ID, 1, genesis(&gateway(), other), Draft::new(AuditStage::Fact, "kim", "x", "", "")).0;
        assert_eq!(judged([&serde_json::from_str(&forged).unwrap()]).chains[0].broken, [1]);
    }
}
