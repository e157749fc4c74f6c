//! The spool on a real disk, as a whole: what goes in comes out, in order, once, also after a restart. Crashes and damage are in `tests/`.

use std::sync::Arc;

use bytes::Bytes;

use super::disk::RealDisk;
use super::*;
use crate::contract::Mark;
use crate::record::{Message, MessageIdentity, Name, Stage};

pub(super) struct Bench {
    directory: tempfile::TempDir,
    max_bytes: u64,
}

pub(super) fn feed(name: &str) -> FeedId {
    Name::new(name).unwrap()
}

impl Bench {
    pub(super) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), max_bytes: 64 * limits::MIB }
    }

    pub(super) fn options(&self) -> Options {
        Options {
            path: self.directory.path().join("spool"),
            max_bytes: Some(self.max_bytes),
            key: KeySource::Auto,
            message_bytes_max: limits::MESSAGE_BYTES_MAX_DEFAULT,
            feeds: vec![(feed("a"), Lane::Critical), (feed("b"), Lane::Normal)],
        }
    }

    pub(super) fn open(&self) -> Parts {
        let board = Board::new([feed("a"), feed("b")]);
        open_with(self.options(), Arc::new(RealDisk), StateChoice::Sled, &board).unwrap()
    }
}

pub(super) fn message(to: &str, id: &str, body: &str) -> Message {
    Message {
        feed: feed(to),
        identity: Some(MessageIdentity {
            application: Bytes::from_static(b"APP"),
            facility: Bytes::from_static(b"FAC"),
            control_id: Bytes::copy_from_slice(id.as_bytes()),
        }),
        body: Payload::new(Bytes::copy_from_slice(body.as_bytes())),
        reply: Payload::new(Bytes::from(format!("reply to {id}"))),
        origin: crate::record::Origin::Peer("127.0.0.1:1".into()),
        received_at_ms: 1_793_491_200_000,
        clock_suspect: false,
        stage: Stage::Live,
        batch_mismatch: false,
    }
}

pub(super) fn drain(reader: &mut Reader, from: &str) -> Vec<(u64, String)> {
    let id = feed(from);
    let mut after = reader.settled(&id).seq;
    let mut out = Vec::new();
    while let Some(item) = reader.next(&id, after).unwrap() {
        let Item::Record(record) = item else { panic!("a gap") };
        after = record.seq;
        out.push((record.seq, String::from_utf8(record.body.expose().to_vec()).unwrap()));
    }
    out
}

pub(super) fn mark_at(reader: &mut Reader, of: &str, seq: u64) -> Mark {
    match reader.next(&feed(of), seq - 1).unwrap() {
        Some(Item::Record(record)) => Mark { seq, chain: record.chain },
        other => panic!("{other:?}"),
    }
}

/// I3: what goes in comes out, in order, per feed, with a chain that can be computed from the outside.
#[test]
fn records_come_out_in_order_and_chained() {
    let bench = Bench::new();
    let mut parts = bench.open();
    let batch = (1..=50).map(|i| message(if i % 2 == 0 { "a" } else { "b" }, &format!("M{i}"), &format!("body {i}"))).collect();
    let answers = parts.committer.commit(batch);
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|durable| !durable.is_duplicate())));
    assert_eq!(answers[1].as_ref().unwrap().reply().expose(), "reply to M2".as_bytes());
    let out = drain(&mut parts.reader, "a");
    assert_eq!(out, (1..=25).map(|i| (i, format!("body {}", i * 2))).collect::<Vec<_>>());
    let mut chain = Chain::GENESIS;
    for seq in 1..=25 {
        let Some(Item::Record(record)) = parts.reader.next(&feed("a"), seq - 1).unwrap() else { panic!("no record") };
        chain = chain.after(seq, &crate::record::Digest::of(&record.nonce, record.body.expose()));
        assert_eq!(record.chain, chain);
    }
    assert!(parts.reader.next(&feed("a"), 25).unwrap().is_none(), "never past the head");
}

/// A kill of a young agent is no damage: its window was never flushed, and the journal has all of it. One that is gone is told.
#[test]
fn a_window_that_a_kill_took_before_it_was_ever_flushed_is_read_back_and_nobody_is_alarmed() {
    let bench = Bench::new();
    let mut parts = bench.open();
    assert!(parts.committer.commit((1..=50).map(|i| message("a", &format!("M{i}"), "body")).collect()).iter().all(Result::is_ok));
    let killed = Bench::new();
    copy(&bench.options().path, &killed.options().path);
    let open = || {
        let board = Board::new([feed("a"), feed("b")]);
        let parts = open_with(killed.options(), Arc::new(RealDisk), StateChoice::Sled, &board).unwrap();
        (parts, board.conditions().iter().any(|condition| condition.code == "state_set_aside"))
    };
    let (mut again, is_told) = open();
    assert!(!is_told, "what a kill leaves is no other history");
    let answer = again.committer.commit(vec![message("a", "M7", "body")]).remove(0).unwrap();
    assert!(answer.is_duplicate() && answer.reply().expose() == "reply to M7".as_bytes());
    again.committer.close();
    drop(again);
    std::fs::remove_dir_all(killed.options().path.join(STATE_DIRECTORY)).unwrap();
    assert!(open().1, "it was missing");
}

/// The window is claimed for an incarnation that no heads know yet: that run has stored nothing, and the window is what it was.
#[test]
fn a_kill_between_the_windows_claim_and_the_heads_costs_no_window() {
    let bench = Bench::new();
    let mut parts = bench.open();
    assert!(parts.committer.commit(vec![message("a", "M1", "body")])[0].is_ok());
    parts.committer.close();
    drop(parts);
    let killed = Bench::new();
    copy(&bench.options().path, &killed.options().path);
    // The database of the next run beside the heads of this one: whether that is told, and whether the window is still there.
    let after_another_run = || {
        let mut later = bench.open();
        later.committer.close();
        drop(later);
        let (image, board) = (Bench::new(), Board::new([feed("a"), feed("b")]));
        copy(&killed.options().path, &image.options().path);
        std::fs::remove_dir_all(image.options().path.join(STATE_DIRECTORY)).unwrap();
        copy(&bench.options().path.join(STATE_DIRECTORY), &image.options().path.join(STATE_DIRECTORY));
        let mut parts = open_with(image.options(), Arc::new(RealDisk), StateChoice::Sled, &board).unwrap();
        let is_told = board.conditions().iter().any(|condition| condition.code == "state_set_aside");
        (is_told, parts.committer.commit(vec![message("a", "M1", "body")])[0].as_ref().unwrap().is_duplicate())
    };
    assert_eq!(after_another_run(), (false, true));
    assert!(after_another_run().0, "that of two runs later is of another history");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (entry, to) = (entry.as_ref().unwrap().path(), to.join(entry.as_ref().unwrap().file_name()));
        if entry.is_dir() { copy(&entry, &to) } else { std::fs::copy(&entry, &to).map(drop).unwrap() }
    }
}

/// I8: a restart is a new incarnation tied to the one before; records keep theirs.
#[test]
fn a_restart_goes_on_under_a_new_incarnation() {
    let bench = Bench::new();
    let mut parts = bench.open();
    assert!(parts.committer.commit(vec![message("a", "1", "one")])[0].is_ok());
    let first = parts.reader.head(&feed("a"));
    parts.committer.close();
    drop(parts);
    let mut parts = bench.open();
    assert!(parts.committer.commit(vec![message("a", "2", "two")])[0].is_ok());
    let lineage = parts.reader.lineage(&feed("a"));
    assert_eq!(lineage.len(), 2);
    assert_eq!(lineage[0].incarnation, first.incarnation);
    assert_eq!(lineage[1].follows, Some(first));
    assert_eq!(drain(&mut parts.reader, "a"), [(1, "one".to_owned()), (2, "two".to_owned())]);
}

#[test]
fn restarts_without_records_leave_no_links() {
    let bench = Bench::new();
    let mut parts = bench.open();
    assert!(parts.committer.commit(vec![message("a", "1", "one")])[0].is_ok());
    parts.committer.close();
    for _ in 0..3 {
        drop(parts);
        parts = bench.open();
        parts.committer.close();
    }
    let lineage = parts.reader.lineage(&feed("a"));
    assert_eq!(lineage.len(), 2, "the incarnation of the record, and the current one: {lineage:?}");
    assert_eq!(lineage[1].base_seq(), 1);
    assert_eq!(lineage[1].follows.unwrap().incarnation, lineage[0].incarnation);
}

/// A duplicate gets the first copy's answer, also after a restart and after the state database was lost.
#[test]
fn a_resent_message_is_answered_from_the_first_copy() {
    let bench = Bench::new();
    let mut parts = bench.open();
    let answers = parts.committer.commit(vec![message("a", "1", "one"), message("a", "1", "one"), message("a", "1", "other")]);
    let told: Vec<_> = answers.iter().map(|answer| answer.as_ref().map(|d| (d.seq(), d.is_duplicate())).unwrap()).collect();
    assert_eq!(told, [(1, false), (1, true), (2, false)]);
    let Some(Item::Record(reused)) = parts.reader.next(&feed("a"), 1).unwrap() else { panic!("no record") };
    assert!(reused.control_id_reused);
    for lost in [false, true] {
        parts.committer.close();
        drop(parts);
        if lost {
            std::fs::remove_dir_all(bench.options().path.join(STATE_DIRECTORY)).unwrap();
        }
        parts = bench.open();
        while parts.committer.idle() {}
        let mut resend = message("a", "1", "one");
        resend.reply = Payload::new(Bytes::from_static(b"another reply"));
        let answer = parts.committer.commit(vec![resend]).remove(0).unwrap();
        assert!(answer.is_duplicate(), "state lost: {lost}");
        assert_eq!(answer.reply().expose(), "reply to 1".as_bytes());
    }
}

/// What a message is said to be stays with it: stage and flags come back, also from a spool that was not closed.
#[test]
fn stage_and_flags_of_a_record_survive_a_crash() {
    let bench = Bench::new();
    let mut parts = bench.open();
    let batch = Stage::ALL.iter().zip([true, false, false]).map(|(stage, batch_mismatch)| Message {
        stage: *stage,
        batch_mismatch,
        ..message("a", stage.as_str(), "body")
    });
    assert!(parts.committer.commit(batch.collect()).iter().all(Result::is_ok));
    for crash in [false, true] {
        if crash {
            drop(parts);
            parts = bench.open();
        }
        let kept: Vec<_> = (0..3)
            .map(|after| match parts.reader.next(&feed("a"), after).unwrap() {
                Some(Item::Record(record)) => (record.stage, record.batch_mismatch),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(kept, [(Stage::Test, true), (Stage::Shadow, false), (Stage::Live, false)], "after a crash: {crash}");
    }
}

/// I2: only what is settled is released, and the disk comes back.
#[test]
fn settled_segments_are_released_and_unsettled_ones_kept() {
    let bench = Bench::new();
    let mut parts = bench.open();
    let body = "x".repeat(100_000);
    for i in 0..60 {
        assert!(parts.committer.commit(vec![message("a", &i.to_string(), &body)])[0].is_ok());
    }
    let full = parts.monitor.view();
    assert!(full.segments > 3);
    let half = mark_at(&mut parts.reader, "a", 30);
    parts.reader.settle(&feed("a"), half);
    parts.reader.sync_marks(true);
    assert!(parts.monitor.view().bytes < full.bytes);
    parts.committer.close();
    drop(parts);
    let mut parts = bench.open();
    assert_eq!(parts.reader.settled(&feed("a")).seq, 30);
    assert_eq!(drain(&mut parts.reader, "a").len(), 30);
}

/// I5: a full spool says so, takes nothing in, and goes on when it has drained.
#[test]
fn a_full_spool_refuses_and_recovers() {
    let bench = Bench { max_bytes: limits::SPOOL_BYTES_MIN, ..Bench::new() };
    let mut parts = bench.open();
    let body = "x".repeat(200_000);
    let mut stored = 0;
    let refused = loop {
        match parts.committer.commit(vec![message("a", &stored.to_string(), &body)]).remove(0) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 1000, "the quota does not hold");
    };
    assert!(matches!(refused, AppendError::Full(_)), "{refused}");
    assert!(parts.monitor.view().bytes <= limits::SPOOL_BYTES_MIN);
    let all = mark_at(&mut parts.reader, "a", stored);
    parts.reader.settle(&feed("a"), all);
    parts.reader.sync_marks(true);
    assert!(parts.committer.commit(vec![message("a", "after", &body)])[0].is_ok());
}

#[test]
fn a_message_larger_than_a_segment_gets_its_own() {
    let bench = Bench::new();
    let mut parts = bench.open();
    let large = "y".repeat(5_000_000);
    let answers = parts.committer.commit(vec![message("a", "1", "small"), message("a", "2", &large), message("a", "3", "small again")]);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let out = drain(&mut parts.reader, "a");
    assert_eq!(out.iter().map(|(seq, body)| (*seq, body.len())).collect::<Vec<_>>(), [(1, 5), (2, 5_000_000), (3, 11)]);
}

#[test]
fn a_second_agent_and_a_wrong_key_are_refused_with_a_clear_word() {
    let bench = Bench::new();
    let board = Board::new([]);
    let spool = open(bench.options(), &board).unwrap();
    let second = open(bench.options(), &board).unwrap_err();
    assert!(second.to_string().contains("in use by another agent"), "{second}");
    spool.closer.close();
    drop(spool.lock);
    std::fs::write(bench.directory.path().join("key"), [7u8; 32]).unwrap();
    let mut options = bench.options();
    options.key = KeySource::File(bench.directory.path().join("key"));
    let wrong = open(options, &board).unwrap_err();
    assert!(wrong.to_string().contains("another spool key"), "{wrong}");
}

/// I3, I8: a deliberate resend is a record of its own that names the earlier one, also after a restart; when the time is over, the newest copy
/// is what a duplicate is a duplicate of.
#[test]
fn a_deliberate_resend_is_a_new_record_that_names_the_earlier_one() {
    let bench = Bench::new();
    let mut parts = bench.open();
    let board = parts.shared.board.clone();
    let one = || message("a", "1", "one");
    assert!(parts.committer.commit(vec![one()])[0].is_ok());
    parts.shared.resends.open(&feed("a"), std::time::Duration::from_hours(1), std::time::Instant::now(), &board);
    let answers = parts.committer.commit(vec![one(), message("a", "2", "two"), one(), message("b", "1", "one"), message("b", "1", "one")]);
    let told: Vec<(u64, bool, Option<u64>)> =
        answers.iter().flatten().map(|durable| (durable.seq(), durable.is_duplicate(), durable.resend_of())).collect();
    assert_eq!(
        told,
        [(2, false, Some(1)), (3, false, None), (4, false, Some(2)), (1, false, None), (1, true, None)],
        "twice in one batch too; another feed is not open"
    );
    parts.shared.resends.expire(std::time::Instant::now() + std::time::Duration::from_hours(2), &board);
    let again = &parts.committer.commit(vec![one()])[0];
    assert!(again.as_ref().is_ok_and(|durable| durable.is_duplicate() && durable.seq() == 4));
    parts.committer.close();
    drop(parts);
    let mut parts = bench.open();
    let records: Vec<(Option<u64>, bool)> = (0..4)
        .map(|after| match parts.reader.next(&feed("a"), after).unwrap() {
            Some(Item::Record(record)) => (record.resend_of, record.control_id_reused),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(records, [(None, false), (Some(1), false), (None, false), (Some(2), false)]);
    assert!(parts.committer.commit(vec![one()])[0].as_ref().is_ok_and(Durable::is_duplicate), "not open after a restart");
}
