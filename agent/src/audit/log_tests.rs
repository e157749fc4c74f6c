//! The files of the audit log: gone on with, torn, damaged, in doubt, full.

use super::*;
use crate::spool::disk::RealDisk;

const A: Incarnation = Incarnation([1; 16]);

fn gateway() -> Name {
    Name::new("gw1").unwrap()
}

fn open(spool: &Path, incarnation: Incarnation) -> (Log, Vec<Found>) {
    Log::open(Arc::new(RealDisk), spool, &gateway(), incarnation).unwrap()
}

fn fact(reason: &str) -> Draft {
    Draft::new(AuditStage::Fact, "kim", "pause_feed", "or-usage", reason)
}

fn lines(spool: &Path) -> Vec<String> {
    look(&RealDisk, spool).unwrap()
}

fn segment(spool: &Path) -> PathBuf {
    spool.join(DIRECTORY).join(name(1))
}

#[test]
fn a_log_goes_on_in_its_chain_whatever_incarnation_opens_it() {
    let spool = tempfile::tempdir().unwrap();
    let (mut log, found) = open(spool.path(), A);
    assert_eq!((log.append(fact("a")).unwrap().0, found), (2, vec![]));
    drop(log);
    let (mut log, found) = open(spool.path(), Incarnation([2; 16]));
    assert_eq!((log.append(fact("b")).unwrap().0, found), (3, vec![]));
    let verdict = verify(&lines(spool.path()));
    assert!(verdict.is_whole() && verdict.chains.len() == 1 && verdict.chains[0].chain == A, "{}", verdict.text());
    assert_eq!(log.read(2, 10).unwrap().iter().map(|(n, _)| *n).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(log.read(2, 1).unwrap().len(), 1);
}

#[test]
fn a_torn_end_is_cut_and_said() {
    let spool = tempfile::tempdir().unwrap();
    let (mut log, _) = open(spool.path(), A);
    log.append(fact("a")).unwrap();
    let used = log.current.as_ref().unwrap().used;
    log.append(fact("half of this")).unwrap();
    drop(log);
    let file = RealDisk.open(&segment(spool.path())).unwrap();
    file.write_at(used + 40, &[0; 4096]).unwrap();
    let (log, found) = open(spool.path(), A);
    assert_eq!(found, [Found::Torn { bytes: 40 }]);
    assert_eq!(log.last(), 3, "the record of it has the number that was torn");
    let lines = lines(spool.path());
    assert!(verify(&lines).is_whole() && lines[2].contains("audit_torn") && lines[2].contains("40 bytes"), "{lines:?}");
    drop(log);
    assert_eq!(open(spool.path(), A).1, []);
}

/// I9: damage is found and named; what is whole behind it still counts.
#[test]
fn damage_in_the_middle_is_named_once_and_the_rest_stays() {
    let spool = tempfile::tempdir().unwrap();
    let (mut log, _) = open(spool.path(), A);
    for reason in ["a", "tamper", "c", "d"] {
        log.append(fact(reason)).unwrap();
    }
    drop(log);
    let bytes = std::fs::read(segment(spool.path())).unwrap();
    let text = String::from_utf8(bytes).unwrap().replace("tamper", "TAMPER");
    std::fs::write(segment(spool.path()), text).unwrap();
    assert!(!verify(&lines(spool.path())).is_whole());
    let (log, found) = open(spool.path(), A);
    assert_eq!(found, [Found::Damaged { first: 3, last: 3 }]);
    assert_eq!(log.read(1, 100).unwrap().iter().map(|(n, _)| *n).collect::<Vec<_>>(), [1, 2, 4, 5, 6]);
    let verdict = verify(&lines(spool.path()));
    assert_eq!(verdict.chains[0].missing, [(3, 3)]);
    drop(log);
    assert_eq!(open(spool.path(), A).1, [], "it is said once");
    assert!(spool.path().join(DIRECTORY).join("0000000000000001.damaged").exists());
}

#[test]
fn an_intent_without_outcome_is_in_doubt_after_a_start() {
    let spool = tempfile::tempdir().unwrap();
    let (mut log, _) = open(spool.path(), A);
    let (done, _) = log.append(Draft::new(AuditStage::Intent, "kim", "pause_feed", "lab", "x")).unwrap();
    log.append(Draft { of: Some(done), ..Draft::new(AuditStage::Outcome, "kim", "pause_feed_done", "lab", "") }).unwrap();
    let (open_one, _) = log.append(Draft::new(AuditStage::Intent, "kim", "pause_feed", "or-usage", "x")).unwrap();
    drop(log);
    let (log, found) = open(spool.path(), A);
    assert!(matches!(found.as_slice(), [Found::InDoubt { n, .. }] if *n == open_one), "{found:?}");
    let last = log.read(log.last(), 1).unwrap().remove(0).1;
    assert!(last.contains("pause_feed_in_doubt") && last.contains(&format!("\"of\":{open_one}")), "{last}");
    drop(log);
    assert_eq!(open(spool.path(), A).1, []);
}

/// I5: the log is bounded; what the broker has goes without a word, what it has not goes with one.
#[test]
fn a_full_log_gives_up_the_oldest_and_says_what_was_unsent() {
    let spool = tempfile::tempdir().unwrap();
    let (mut log, _) = open(spool.path(), A);
    log.segments_max = 2;
    let long = "x".repeat(2000);
    let mut given_up = Vec::new();
    let mut fill = |log: &mut Log, segments: u64| {
        for _ in 0..segments * AUDIT_SEGMENT_BYTES / 2500 {
            given_up.extend(log.append(fact(&long)).unwrap().1);
        }
        given_up.clone()
    };
    log.was_sent(1).unwrap();
    assert_eq!(fill(&mut log, 1), []);
    let all = log.last();
    log.was_sent(all).unwrap();
    assert_eq!(fill(&mut log, 1), [], "what the broker has goes without a word");
    let given_up = fill(&mut log, 2);
    assert_eq!(given_up[0].0, all + 1, "{given_up:?}");
    assert!(given_up.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "{given_up:?}");
    let files = std::fs::read_dir(spool.path().join(DIRECTORY)).unwrap().count();
    assert!(files <= 2 + 3, "two segments, the spare, the mark and nothing else: {files}");
    let verdict = verify(&lines(spool.path()));
    assert!(verdict.is_whole() && !verdict.chains[0].dropped.is_empty(), "{}", verdict.text());
    drop(log);
    let (log, found) = open(spool.path(), A);
    assert_eq!((log.sent(), found), (all, vec![]));
}
