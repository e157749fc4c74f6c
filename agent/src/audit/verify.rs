//! Whether audit records are whole: numbers without gaps, each naming the digest of the one before it. Pure; the same on the gateway and at the hub.
//!
//! Records are taken in any order and more than once. What is kept of each is 24 bytes, so a budget bounds it ([`AUDIT_VERIFY_RECORDS_MAX`]).
//!
//! | said | means |
//! |---|---|
//! | `missing` | numbers that nobody brought, between some that came |
//! | `dropped` | of these, what a later record says was given up unsent |
//! | `forked` | two different records of one number: a restored or copied gateway, or somebody wrote his own |
//! | `broken` | a record does not name the digest of the one before it |
//! | `altered` | a record whose digest is not that of what it says; what it claims to be is not believed, so its number is missing too |

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::chain::{Fault, genesis, read};
use crate::contract::Audit;
use crate::limits::{AUDIT_PLACES_SHOWN, AUDIT_VERIFY_RECORDS_MAX};
use crate::record::{Incarnation, Name};

/// What the gateway writes where the oldest records had to go unsent; its subject is `first-last`.
pub const DROPPED: &str = "audit_dropped";

/// As much of a digest as tells two records apart.
type Short = [u8; 8];

#[derive(Clone, Debug, Default)]
struct Chain {
    records: BTreeMap<u64, (Short, Short)>,
    repeated: u64,
    forked: Vec<u64>,
    dropped: Vec<(u64, u64)>,
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
        if *first > 1 {
            add(format!("1 to {} are not here", first - 1));
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
}

fn short(digest: &crate::record::Digest) -> Short {
    std::array::from_fn(|i| digest.0[i])
}

/// `7-9`.
fn range(subject: &str) -> Option<(u64, u64)> {
    let (first, last) = subject.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?)).filter(|(first, last)| first <= last)
}

impl Verifier {
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
                if audit.what == DROPPED
                    && let Some(range) = range(&audit.subject)
                {
                    chain.dropped.push(range);
                }
            }
        }
        true
    }

    pub fn verdict(self) -> Verdict {
        let chains = self.chains.into_iter().map(|((gateway, id), chain)| judge(gateway, id, chain)).collect();
        Verdict { chains, altered: self.altered, unchained: self.unchained }
    }
}

fn judge(gateway: Name, id: Incarnation, chain: Chain) -> ChainVerdict {
    let Chain { records, repeated, forked, mut dropped, begun } = chain;
    let (first, last) = (records.keys().next().copied().unwrap_or(0), records.keys().next_back().copied().unwrap_or(0));
    let (mut missing, mut broken) = (Vec::new(), Vec::new());
    let mut before: Option<(u64, Short)> = (first == 1).then(|| (0, short(&genesis(&gateway, id))));
    for (&n, &(digest, prev)) in &records {
        if let Some((known, expected)) = before {
            if n > known + 1 {
                let gap = (known + 1, n - 1);
                let is_told = dropped.iter().any(|(first, last)| *first <= gap.0 && gap.1 <= *last);
                if !is_told && missing.len() < AUDIT_PLACES_SHOWN {
                    missing.push(gap);
                }
            } else if prev != expected && broken.len() < AUDIT_PLACES_SHOWN {
                broken.push(n);
            }
        }
        before = Some((n, digest));
    }
    dropped.truncate(AUDIT_PLACES_SHOWN);
    ChainVerdict { gateway, chain: id, first, last, records: records.len() as u64, begun, repeated, missing, dropped, forked, broken }
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
