//! The bytes of the ledger, frozen: what one version wrote the next one reads. A test that fails here wants a new variant, not new bytes.

use super::facts::{ConfirmBy, Facts, Generation, Meta, Proof, Stamp};
use super::ledger::{Candidate, Entry, Ledger, MAGIC, Outcome, Stage, Standing};
use crate::limits::{HISTORY_KEPT, HISTORY_NAME_BYTES_MAX, HISTORY_REASON_BYTES_MAX, HISTORY_WHY_BYTES_MAX, LEDGER_BYTES};
use crate::record::DocumentDigest;

fn facts(revision: u64) -> Facts {
    Facts {
        revision,
        digest: DocumentDigest([revision as u8; 32]),
        trial_s: 900,
        confirm: ConfirmBy::PeersReturn,
        meta: Meta::new("kim", Some("lee"), "new cabinet", Some("CHG-7")),
    }
}

fn ledger() -> Ledger {
    let at = Stamp { unix_ms: 1_793_491_200_000, suspect: false };
    Ledger {
        committed: Generation::Document(facts(41)),
        since: at,
        standing: Standing::Local(Proof::AddedEndpoint),
        previous: Some(Generation::Bootstrap),
        candidate: Some(Candidate { facts: facts(42), stage: Stage::Trial, proof: Proof::AnyEndpoint, uplink_was_up: true }),
        waiting: Some(Facts { confirm: ConfirmBy::Bound, meta: Meta::default(), ..facts(43) }),
        highest_tried: 42,
        highest_command: 300,
        history: vec![Entry {
            revision: 40,
            digest: DocumentDigest([40; 32]),
            meta: Meta::default(),
            outcome: Outcome::RolledBack,
            code: "uplink_lost".to_owned(),
            why: "w".to_owned(),
            at: Stamp { unix_ms: -5, suspect: true },
            attempts: 2,
            again: true,
        }],
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|d| char::from_digit(d.into(), 16).unwrap()).collect()
}

#[test]
fn the_ledger_keeps_its_bytes() {
    let bytes = ledger().encode();
    assert!(bytes.starts_with(&MAGIC));
    assert_eq!(hex(&bytes), include_str!("golden/ledger_v1.hex").trim());
    assert_eq!(Ledger::decode(&bytes), Some(ledger()));
    let mut preallocated = bytes;
    preallocated.resize(LEDGER_BYTES as usize, 0);
    assert_eq!(Ledger::decode(&preallocated), Some(ledger()));
}

/// I9: no damage of a ledger passes for a ledger.
#[test]
fn every_flipped_bit_and_every_cut_of_a_ledger_is_noticed() {
    let mut bytes = ledger().encode();
    for i in 0..bytes.len() * 8 {
        bytes[i / 8] ^= 1 << (i % 8);
        assert_eq!(Ledger::decode(&bytes), None, "bit {i}");
        bytes[i / 8] ^= 1 << (i % 8);
    }
    for cut in 0..bytes.len() {
        assert_eq!(Ledger::decode(&bytes[..cut]), None, "cut {cut}");
    }
}

/// I4: the largest ledger there can be fits into its file.
#[test]
fn the_fullest_history_fits() {
    let long = "x".repeat(4096);
    let meta = Meta::new(&long, Some(&long), &long, Some(&long));
    assert_eq!((meta.author.len(), meta.reason.len()), (HISTORY_NAME_BYTES_MAX, HISTORY_REASON_BYTES_MAX));
    let facts = |revision| Facts { meta: meta.clone(), ..facts(revision) };
    let mut ledger = Ledger {
        committed: Generation::Document(facts(1)),
        previous: Some(Generation::Document(facts(2))),
        waiting: Some(facts(3)),
        candidate: ledger().candidate.map(|candidate| Candidate { facts: facts(4), ..candidate }),
        ..ledger()
    };
    for revision in 0..3 * HISTORY_KEPT as u64 {
        let note =
            super::ledger::Note { outcome: Outcome::RolledBack, code: "listeners_not_bound".to_owned(), why: long.clone(), again: false };
        ledger.note(&facts(u64::MAX - revision), note, Stamp { unix_ms: i64::MAX, suspect: true });
    }
    assert_eq!(ledger.history.len(), HISTORY_KEPT);
    assert!(ledger.history.iter().all(|entry| entry.why.len() == HISTORY_WHY_BYTES_MAX));
    assert!(ledger.encode().len() as u64 <= LEDGER_BYTES);
}
