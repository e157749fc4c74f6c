//! The files of the audit log: gone on with, torn, damaged, in doubt, full, of another gateway.

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
    look(Arc::new(RealDisk), spool).unwrap()
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
    assert_eq!(log.snapshot().page(2, 10).unwrap().iter().map(|(n, _)| *n).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(log.snapshot().page(2, 1).unwrap().len(), 1);
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
    assert_eq!(log.snapshot().page(1, 100).unwrap().iter().map(|(n, _)| *n).collect::<Vec<_>>(), [1, 2, 4, 5, 6]);
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
    let last = log.snapshot().page(log.last(), 1).unwrap().remove(0).1;
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
    let ends: Vec<u64> = given_up.iter().map(|ranges: &Ranges| ranges.list()[0].1).collect();
    assert!(given_up.iter().all(|ranges| ranges.list().len() == 1 && ranges.list()[0].0 == all + 1), "each names all of it: {given_up:?}");
    assert!(ends.windows(2).all(|pair| pair[0] < pair[1]), "{given_up:?}");
    let files = std::fs::read_dir(spool.path().join(DIRECTORY)).unwrap().count();
    assert!(files <= 2 + 3, "two segments, the spare, the mark and nothing else: {files}");
    let judged = verdict(spool.path());
    assert!(judged.is_whole() && !judged.chains[0].dropped.is_empty(), "{}", judged.text());
    drop(log);
    let (log, found) = open(spool.path(), A);
    assert_eq!((log.sent(), found), (all, vec![]));
}

/// A disk on which nothing of the log is removed before a record says what went with it.
#[derive(Debug)]
struct Watched;

impl Disk for Watched {
    fn remove(&self, path: &Path) -> io::Result<()> {
        if let Some(first) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".log")?.parse::<u64>().ok()) {
            let spool = path.parent().and_then(Path::parent).unwrap();
            let is_told = |line: &String| {
                let audit = crate::audit::chain::read_line(line.as_bytes()).unwrap();
                audit.what == DROPPED && audit.subject.starts_with(&format!("{first}-"))
            };
            assert!(lines(spool).iter().any(is_told), "the segment from {first} goes before it is said");
        }
        RealDisk.remove(path)
    }
    fn create(&self, path: &Path, len: u64) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.create(path, len)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.open(path)
    }
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.open_read(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(path)
    }
    fn space(&self, path: &Path) -> io::Result<crate::spool::disk::Space> {
        RealDisk.space(path)
    }
}

/// I9: a power cut between the two must not take records nobody ever hears of.
#[test]
fn what_is_given_up_is_said_before_it_goes() {
    let spool = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(Arc::new(Watched), spool.path(), &gateway(), A).unwrap();
    log.segments_max = 2;
    let given_up = (0..3 * AUDIT_SEGMENT_BYTES / 2500).filter(|_| log.append(fact(&"x".repeat(2000))).unwrap().1.is_some()).count();
    assert!(given_up > 0 && verify(&lines(spool.path())).is_whole());
}

/// I8, I9: records that the hub has and the box has not any more (a disk from an earlier day) are missed, and their numbers are not given again.
#[test]
fn an_end_that_the_hub_has_and_the_disk_lost_is_named() {
    let spool = tempfile::tempdir().unwrap();
    let (mut log, _) = open(spool.path(), A);
    for reason in ["a", "b", "c"] {
        log.append(fact(reason)).unwrap();
    }
    let before = std::fs::read(segment(spool.path())).unwrap();
    log.append(fact("d")).unwrap();
    log.append(fact("e")).unwrap();
    log.was_sent(6).unwrap();
    drop(log);
    std::fs::write(segment(spool.path()), before).unwrap();
    let (mut log, found) = open(spool.path(), A);
    assert_eq!(found, [Found::Damaged { first: 5, last: 6 }]);
    assert_eq!(log.append(fact("f")).unwrap().0, 8, "7 says that 5 and 6 are gone");
    let verdict = verify(&lines(spool.path()));
    assert_eq!((verdict.chains[0].missing.as_slice(), verdict.is_whole()), ([(5, 6)].as_slice(), false));
    drop(log);
    assert_eq!(open(spool.path(), A).1, [], "said once");
}

/// A write that failed half way is no sign of somebody who alters records; one that is altered at the same place is.
#[test]
fn half_a_record_that_could_not_be_written_is_not_taken_for_an_altered_one() {
    let spool = tempfile::tempdir().unwrap();
    let (mut log, _) = open(spool.path(), A);
    log.append(fact("a")).unwrap();
    let used = log.current.as_ref().unwrap().used;
    RealDisk.open(&segment(spool.path())).unwrap().write_at(used, b"{\"chain\":\"0101").unwrap();
    log.current = None; // as after an error
    log.append(fact("b")).unwrap();
    let verdict = verify(&lines(spool.path()));
    assert!(verdict.is_whole() && verdict.chains[0].last == 3, "{}", verdict.text());
    let bytes = std::fs::read(segment(spool.path())).unwrap();
    let altered = String::from_utf8(bytes).unwrap().replace("\"reason\":\"a\"", "\"reason\":\"A\"");
    std::fs::write(segment(spool.path()), altered).unwrap();
    let verdict = verify(&lines(spool.path()));
    assert!(!verdict.is_whole() && !verdict.altered.is_empty() && verdict.chains[0].missing == [(2, 2)], "{}", verdict.text());
}

fn spare(spool: &Path) -> PathBuf {
    spool.join(DIRECTORY).join(SPARE)
}

fn text(spool: &Path, file: &str) -> String {
    String::from_utf8_lossy(&std::fs::read(spool.join(file)).unwrap()).into_owned()
}

fn verdict(spool: &Path) -> crate::audit::verify::Verdict {
    lying(Arc::new(RealDisk), spool).unwrap().verdict().unwrap()
}

fn directories(spool: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(spool).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// I9: what was done under another id is never cut, and the log that begins names where it lies.
#[test]
fn the_log_of_another_gateway_is_put_aside_and_named() {
    let spool = tempfile::tempdir().unwrap();
    let (mut log, _) = open(spool.path(), A);
    log.append(fact("THE DEED")).unwrap();
    log.was_sent(1).unwrap();
    drop(log);
    let before = text(spool.path(), "audit/0000000000000001.log");
    let other = Name::new("gw2").unwrap();
    let open_as = |name: &Name, of: u8| Log::open(Arc::new(RealDisk), spool.path(), name, Incarnation([of; 16])).unwrap();
    let (log, found) = open_as(&other, 2);
    let aside = format!("audit.gw1.{A}");
    assert!(
        matches!(found.as_slice(), [Found::Aside(one)] if one.directory == aside && (one.last, one.sent) == (2, 1) && one.is_unsent()),
        "{found:?}"
    );
    assert_eq!(text(spool.path(), &format!("{aside}/0000000000000001.log")), before, "not a byte of it is touched");
    assert_eq!(log.last(), 2);
    let named = lines(spool.path()).remove(1);
    let digest = crate::audit::chain::read_line(before.lines().nth(1).unwrap().as_bytes()).unwrap().digest;
    assert!(
        named.contains("audit_put_aside")
            && named.contains(&aside)
            && named.contains("last record 2")
            && named.contains(&digest.to_string()),
        "{named}"
    );
    drop(log);
    assert_eq!(open_as(&other, 3).1, [], "it is said once");
    // And back: nothing is taken for torn, nothing goes.
    let (log, found) = open_as(&gateway(), 4);
    assert!(matches!(found.as_slice(), [Found::Aside(a), Found::Aside(b)] if a.gateway == "gw1" && b.gateway == "gw2"), "{found:?}");
    assert!(text(spool.path(), &format!("{aside}/0000000000000001.log")).contains("THE DEED"));
    assert_eq!(log.chain, Incarnation([4; 16]), "a log that lies aside is not gone on with");
    assert!(verdict(spool.path()).is_whole() && directories(spool.path()).len() == 3, "{:?}", directories(spool.path()));
}

/// I9: of a log of which nothing is left the broker had something, or its file began later: it was there.
#[test]
fn a_log_of_which_nothing_can_be_read_is_put_aside_too() {
    let spool = tempfile::tempdir().unwrap();
    let (mut log, _) = open(spool.path(), A);
    log.append(fact("a")).unwrap();
    log.was_sent(2).unwrap();
    drop(log);
    std::fs::remove_file(segment(spool.path())).unwrap();
    assert!(!verdict(spool.path()).is_whole(), "also before it is opened");
    let (_, found) = open(spool.path(), Incarnation([2; 16]));
    assert!(
        matches!(found.as_slice(), [Found::Aside(one)] if one.digest.is_none() && one.directory.starts_with("audit.unreadable.")),
        "{found:?}"
    );
}

/// I9: the head of the log counts like the rest of it, also over a restart.
#[test]
fn records_that_are_missing_at_the_head_are_named() {
    let spool = tempfile::tempdir().unwrap();
    let (mut log, _) = open(spool.path(), A);
    for reason in ["a", "b", "c", "d", "e"] {
        log.append(fact(reason)).unwrap();
    }
    drop(log);
    let mut bytes = std::fs::read(segment(spool.path())).unwrap();
    let end = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(3).unwrap().0;
    bytes[..end].fill(b'x');
    std::fs::write(segment(spool.path()), bytes).unwrap();
    assert!(!verdict(spool.path()).is_whole());
    let (log, found) = open(spool.path(), A);
    assert_eq!(found, [Found::Damaged { first: 1, last: 4 }]);
    assert!(log.doubt().unwrap_or_default().is_empty(), "told as it was found");
    drop(log);
    assert_eq!(verdict(spool.path()).chains[0].missing, [(1, 4)], "a restart does not launder it");
    let (log, found) = open(spool.path(), A);
    assert!(found.is_empty() && log.doubt().unwrap().contains("1-4"), "told again until the hub has the record of it");
}

#[test]
fn segments_that_went_from_the_head_unsent_are_named() {
    let spool = tempfile::tempdir().unwrap();
    let (mut log, _) = open(spool.path(), A);
    let long = "x".repeat(2000);
    while log.segments.len() < 3 {
        log.append(fact(&long)).unwrap();
    }
    let second = *log.segments.iter().nth(1).unwrap();
    drop(log);
    std::fs::remove_file(segment(spool.path())).unwrap();
    assert_eq!(verdict(spool.path()).chains[0].missing, [(1, second - 1)]);
    let (mut log, found) = open(spool.path(), A);
    assert_eq!(found, [Found::Damaged { first: 1, last: second - 1 }]);
    let last = log.last();
    log.was_sent(last).unwrap();
    assert_eq!(log.snapshot().verdict().unwrap().chains[0].missing, [(1, second - 1)], "also when the rest is at the hub");
    assert_eq!(verify(&lines(spool.path())).chains[0].missing, [(1, second - 1)], "and of the lines alone");
    drop(log);
    assert_eq!(open(spool.path(), A).1, []);
}

/// I9: a line whose digest is not its own is damage, wherever it stands; a whole one of another log is told.
#[test]
fn a_changed_or_foreign_line_at_the_end_is_never_called_torn() {
    let (spool, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut log, _) = open(spool.path(), A);
    log.append(fact("tamper")).unwrap();
    drop(log);
    let changed = text(spool.path(), "audit/0000000000000001.log").replace("tamper", "TAMPER");
    std::fs::write(segment(spool.path()), &changed).unwrap();
    let (log, found) = open(spool.path(), A);
    assert_eq!((found, log.last()), (vec![Found::Damaged { first: 2, last: 2 }], 3), "its number is not given again");
    drop(log);
    assert!(text(spool.path(), "audit/0000000000000001.damaged").contains("TAMPER"));
    // Of another log: beside what was kept before.
    drop(Log::open(Arc::new(RealDisk), elsewhere.path(), &gateway(), Incarnation([7; 16])).unwrap());
    let foreign = lines(elsewhere.path()).remove(0);
    let whole = text(spool.path(), "audit/0000000000000001.log");
    std::fs::write(segment(spool.path()), format!("{}{foreign}\n", whole.trim_end_matches('\0'))).unwrap();
    let (_, found) = open(spool.path(), A);
    assert_eq!(found, [Found::Foreign { segment: 1, records: 1 }]);
    assert!(text(spool.path(), "audit/0000000000000001.damaged").contains("TAMPER"), "nothing that was kept is overwritten");
    assert!(text(spool.path(), "audit/0000000000000001.damaged.2").contains(&foreign));
    assert_eq!(open(spool.path(), A).1, []);
}

/// I5: of a flood that drives out its own markers the newest names all; the condition comes again at a start until the hub has the record.
#[test]
fn what_was_given_up_is_named_by_the_newest_record_of_it() {
    let spool = tempfile::tempdir().unwrap();
    let (mut log, _) = open(spool.path(), A);
    log.segments_max = 2;
    let long = "x".repeat(2000);
    for _ in 0..6 * AUDIT_SEGMENT_BYTES / 2500 {
        log.append(fact(&long)).unwrap();
    }
    let first = *log.segments.first().unwrap();
    drop(log);
    let whole = verdict(spool.path());
    assert!(whole.is_whole() && whole.chains[0].dropped == [(1, first - 1)], "{}", whole.text());
    assert!(verify(&lines(spool.path())).is_whole(), "as the hub sees it");
    let (mut log, found) = open(spool.path(), A);
    assert!(found.is_empty() && log.doubt().unwrap().contains(&format!("records 1-{} were given up", first - 1)));
    let last = log.last();
    log.was_sent(last).unwrap();
    drop(log);
    let (log, found) = open(spool.path(), A);
    assert_eq!((found, log.doubt()), (vec![], None), "the hub has the record of it");
}

#[test]
fn what_is_said_once_is_said_once_over_restarts() {
    let spool = tempfile::tempdir().unwrap();
    for n in 0..2 {
        let (mut log, _) = open(spool.path(), A);
        assert_eq!(log.append_once(holds("siteward", "lab pause", "kim")).unwrap().is_some(), n == 0);
        assert_eq!(log.append_once(holds("siteward", "lab pause", "kim")).unwrap(), None);
    }
    assert!(!spare(spool.path()).with_extension("x").exists() && spare(spool.path()).exists());
}
