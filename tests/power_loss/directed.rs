//! Single situations of the same model that chance should not have to find: the full disk, one error of each kind, resends.

#![allow(clippy::unwrap_used, reason = "set-up of tests")]

use harness::sim::model::{Ledger, Losses};
use harness::sim::{Errno, Op, SimDisk};
use siteward::config::settings::KeySource;
use siteward::limits;
use siteward::record::Lane;
use siteward::spool::{AppendError, Item, Options, Parts, StateChoice, open_with};
use siteward::status::board::Board;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::all_feeds;

fn roomy(disk: &SimDisk, root: &Path) -> (Parts, Arc<Board>) {
    let options = Options {
        path: root.to_owned(),
        max_bytes: Some(limits::SPOOL_BYTES_MIN),
        key: KeySource::Auto,
        message_bytes_max: 4 * limits::MIB,
        feeds: all_feeds(),
    };
    let board = Board::new(all_feeds().into_iter().map(|(id, _)| id));
    let parts = open_with(options, disk.handle(), StateChoice::None, &board).expect("a spool opens, full or not");
    (parts, board)
}

/// Appends until the spool says it is full; returns how many were taken.
fn fill(parts: &mut Parts, ledger: &mut Ledger) -> u64 {
    let mut taken = 0;
    for round in 0..1000 {
        let feed = all_feeds()[round % 4].0.clone();
        let id = ledger.compose(&feed, 60_000, true);
        let message = ledger.send(id);
        let incarnation = parts.monitor.view().incarnation;
        let answer = parts.committer.commit(vec![message]).remove(0);
        ledger.answered(id, 1, incarnation, &answer).unwrap();
        match answer {
            Ok(_) => taken += 1,
            Err(AppendError::Full(_)) => return taken,
            Err(error) => panic!("refused with {error} instead of full"),
        }
    }
    panic!("1000 messages of 60 KB went into 16 MiB")
}

fn drain(parts: &mut Parts, ledger: &mut Ledger) {
    for (feed, _) in all_feeds() {
        let from = parts.reader.settled(&feed);
        let (_, mark) = ledger.walk(&mut parts.reader, &feed, from, usize::MAX).unwrap();
        ledger.settle(&mut parts.reader, &feed, mark);
    }
    parts.reader.sync_marks(true);
}

/// I5: at its quota, and on a volume without one free byte, a spool says so, opens after every kind of end, drains, gives space back and takes
/// messages again.
#[test]
fn a_full_spool_opens_drains_and_takes_again() {
    for (seed, volume_full) in [(1, false), (2, true), (3, false), (4, true), (5, true), (6, true)] {
        let root = PathBuf::from("/var/lib/siteward");
        let mut disk = SimDisk::new(seed, Path::new("/var/lib"));
        let mut ledger = Ledger::default();
        let (mut parts, _) = roomy(&disk, &root);
        if volume_full {
            disk.set_capacity(disk.used() + 5 * limits::MIB);
        }
        assert!(fill(&mut parts, &mut ledger) > 30, "seed {seed}");
        for end in 0..3 {
            disk.set_capacity(if volume_full { disk.used() } else { u64::MAX });
            if end == 0 {
                parts.committer.close();
            }
            let next = if end == 2 { disk.power_cut() } else { disk.kill() };
            drop(parts);
            disk = next;
            (parts, _) = roomy(&disk, &root);
            ledger.verify(&mut parts, Losses::None).unwrap_or_else(|error| panic!("seed {seed}, end {end}: {error}"));
            assert!(disk.used() <= 17 * limits::MIB, "seed {seed}: {} bytes", disk.used());
        }
        let before = disk.used();
        drain(&mut parts, &mut ledger);
        assert!(disk.used() + 3 * limits::MIB < before, "seed {seed}: {before} bytes became {}", disk.used());
        assert!(fill(&mut parts, &mut ledger) > 20, "seed {seed}: no room after draining");
        let next = disk.power_cut();
        drop(parts);
        let (mut parts, _) = roomy(&next, &root);
        ledger.verify(&mut parts, Losses::None).unwrap();
    }
}

/// I1, I3: one error costs the batch it hits, with a reason; the next batch is taken, in a new segment.
#[test]
fn one_error_costs_one_batch_and_not_the_lane() {
    for (seed, op) in Op::CHANGING.into_iter().enumerate() {
        for after in 0..4 {
            let root = PathBuf::from("/var/lib/siteward");
            let disk = SimDisk::new(seed as u64 * 10 + after, Path::new("/var/lib"));
            let mut ledger = Ledger::default();
            let (mut parts, board) = roomy(&disk, &root);
            disk.fail(op, after, 1, Errno::Io);
            let mut refused = 0;
            for round in 0..40 {
                let feed = all_feeds()[round % 4].0.clone();
                let id = ledger.compose(&feed, 200_000, true);
                let message = ledger.send(id);
                let incarnation = parts.monitor.view().incarnation;
                let answer = parts.committer.commit(vec![message]).remove(0);
                ledger.answered(id, 1, incarnation, &answer).unwrap();
                if let Err(error) = answer {
                    refused += 1;
                    assert!(error.to_string().contains("check the disk"), "{op:?}: {error}");
                    assert!(board.conditions().iter().any(|c| c.code == "spool_write_failed"), "{op:?}: no condition");
                }
            }
            assert!(refused <= 1, "{op:?} failing once refused {refused} batches");
            assert!(!board.conditions().iter().any(|c| c.code == "spool_write_failed"), "{op:?}: the condition stayed");
            assert!(disk.violations().is_empty(), "{:?}", disk.violations());
            ledger.verify(&mut parts, Losses::None).unwrap();
            let next = disk.power_cut();
            drop(parts);
            let (mut parts, _) = roomy(&next, &root);
            ledger.verify(&mut parts, Losses::None).unwrap();
        }
    }
}

/// A sender that uses a control id twice for different messages gets both stored, the second one flagged; the same message again is answered
/// with the first reply.
#[test]
fn a_reused_control_id_is_stored_and_flagged_and_a_resend_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("spool");
    let disk = SimDisk::new(1, directory.path());
    let (feed, other) = (all_feeds()[0].0.clone(), all_feeds()[1].0.clone());
    let mut ledger = Ledger::default();
    let first = ledger.compose(&feed, 100, true);
    let (reused, elsewhere) = (ledger.compose(&feed, 100, true), ledger.compose(&other, 100, true));
    let identity = ledger.sent[&first].identity.clone();
    for id in [reused, elsewhere] {
        ledger.sent.get_mut(&id).unwrap().identity.clone_from(&identity);
    }
    let options = Options {
        path: root,
        max_bytes: Some(limits::SPOOL_BYTES_MIN),
        key: KeySource::Auto,
        message_bytes_max: limits::MIB,
        feeds: all_feeds(),
    };
    let board = Board::new(all_feeds().into_iter().map(|(id, _)| id));
    let mut disk = disk;
    for opening in 0..3 {
        let mut parts = open_with(options.clone(), disk.handle(), StateChoice::Sled, &board).unwrap();
        let incarnation = parts.monitor.view().incarnation;
        for id in [first, reused, elsewhere, first] {
            let message = ledger.send(id);
            let time = ledger.sent[&id].times;
            let answer = parts.committer.commit(vec![message]).remove(0);
            ledger.answered(id, time, incarnation, &answer).unwrap();
            let is_new = opening == 0 && time == 1;
            assert_eq!(answer.unwrap().is_duplicate(), !is_new, "opening {opening}, message {id}, time {time}");
        }
        ledger.verify(&mut parts, Losses::None).unwrap();
        let mut flags = Vec::new();
        for feed in [&feed, &other] {
            let mut at = 0;
            while let Some(Item::Record(record)) = parts.reader.next(feed, at).unwrap() {
                at = record.seq;
                flags.push(record.control_id_reused);
            }
        }
        assert_eq!(flags, [false, true, false], "first, reused, and another feed's");
        disk = disk.kill();
        drop(parts);
    }
}

/// I3: heads that were only in the page cache when the process was killed must not be the only whole copy while the next process overwrites the
/// other one.
#[test]
fn heads_survive_a_kill_before_their_sync_and_a_cut_at_the_next_opening() {
    let root = PathBuf::from("/var/lib/siteward");
    // Enough feeds for heads of several sectors: less is written whole or not at all.
    let feeds: Vec<_> = (0..24).map(|n| (harness::sim::model::feed_id(&format!("interface-engine-{n}")), Lane::Normal)).collect();
    let options = Options {
        path: root.clone(),
        max_bytes: Some(limits::SPOOL_BYTES_MIN),
        key: KeySource::Auto,
        message_bytes_max: limits::MIB,
        feeds: feeds.clone(),
    };
    let open = |disk: &SimDisk| open_with(options.clone(), disk.handle(), StateChoice::None, &Board::new([]));
    for seed in 0..25 {
        for cut in 1..=12 {
            let mut disk = SimDisk::new(seed * 100 + cut, Path::new("/var/lib"));
            let mut ledger = Ledger::default();
            // A clean stop closes the segment; draining releases it: only the heads know of it now.
            for _ in 0..2 {
                let mut parts = open(&disk).unwrap();
                let feed = feeds[0].0.clone();
                let id = ledger.compose(&feed, 100, true);
                let message = ledger.send(id);
                let incarnation = parts.monitor.view().incarnation;
                let answer = parts.committer.commit(vec![message]).remove(0);
                ledger.answered(id, 1, incarnation, &answer).unwrap();
                parts.committer.close();
                let from = parts.reader.settled(&feed);
                let (_, mark) = ledger.walk(&mut parts.reader, &feed, from, usize::MAX).unwrap();
                ledger.settle(&mut parts.reader, &feed, mark);
                parts.reader.sync_marks(true);
                disk = disk.image();
                drop(parts);
            }
            // The sync of the heads never happens; the next process is cut while it opens.
            let parts = open(&disk).unwrap();
            let mut committer = parts.committer;
            disk.freeze_after(2);
            committer.close();
            disk = disk.kill();
            disk.freeze_after(cut);
            let opened = open(&disk);
            disk = disk.power_cut();
            drop(opened);
            let mut parts = open(&disk).unwrap();
            ledger.verify(&mut parts, Losses::None).unwrap_or_else(|error| panic!("seed {seed}, cut {cut}: {error}"));
            let head = parts.reader.head(&feeds[0].0).seq;
            assert_eq!(head, 2, "seed {seed}, cut {cut}: the heads forgot a feed");
        }
    }
}

fn append(parts: &mut Parts, ledger: &mut Ledger, count: usize) {
    let feed = all_feeds()[0].0.clone();
    let ids: Vec<u64> = (0..count).map(|_| ledger.compose(&feed, 300, true)).collect();
    let batch = ids.iter().map(|id| ledger.send(*id)).collect();
    let incarnation = parts.monitor.view().incarnation;
    for (id, answer) in ids.into_iter().zip(parts.committer.commit(batch)) {
        ledger.answered(id, 1, incarnation, &answer).unwrap();
    }
}

/// I1, I8: two segments in a row fail with unanswered records on them, a third says where they end and is empty; the next process removes what is
/// of no use and answers under the same seqs. No power cut brings the unanswered ones back beside the answered.
#[test]
fn removed_segments_do_not_come_back_without_their_cut() {
    let root = PathBuf::from("/var/lib/siteward");
    for seed in 0..400 {
        let mut disk = SimDisk::new(seed, Path::new("/var/lib"));
        let mut ledger = Ledger::default();
        let (mut parts, _) = roomy(&disk, &root);
        append(&mut parts, &mut ledger, 3);
        disk.fail(Op::Sync, 0, 1, Errno::Io);
        append(&mut parts, &mut ledger, 2);
        // The successor: its header is synced, its first record is not.
        disk.fail(Op::Sync, 1, 1, Errno::Io);
        append(&mut parts, &mut ledger, 2);
        assert_eq!(disk.failed(), 2);
        disk.freeze_after(5 + seed % 3);
        append(&mut parts, &mut ledger, 1);
        for opening in 0..3 {
            let next = if seed % 2 == 0 && opening == 0 { disk.kill() } else { disk.power_cut() };
            drop(parts);
            disk = next;
            (parts, _) = roomy(&disk, &root);
            ledger.verify(&mut parts, Losses::None).unwrap_or_else(|error| panic!("seed {seed}, opening {opening}: {error}"));
            // Without a new record nothing else syncs the directory.
            if seed % 3 == 0 {
                append(&mut parts, &mut ledger, 2);
            }
        }
    }
}

/// I9: when a sector was given up after several attempts, an error that passes, later and elsewhere, is again only an error.
#[test]
fn patience_with_one_sector_does_not_outlast_it() {
    let root = PathBuf::from("/var/lib/siteward");
    let disk = SimDisk::new(1, Path::new("/var/lib"));
    let mut ledger = Ledger::default();
    let (mut parts, _) = roomy(&disk, &root);
    let feed = all_feeds()[0].0.clone();
    for _ in 0..40 {
        let id = ledger.compose(&feed, 60_000, true);
        let message = ledger.send(id);
        let incarnation = parts.monitor.view().incarnation;
        let answer = parts.committer.commit(vec![message]).remove(0);
        ledger.answered(id, 1, incarnation, &answer).unwrap();
    }
    // Attempts until the reader gives up; then the disk is well again.
    for attempts in 1..12 {
        disk.fail(Op::Read, 0, attempts, Errno::Io);
        let mut failed = 0;
        while parts.reader.next(&feed, attempts).is_err() {
            failed += 1;
            assert!(failed <= attempts);
        }
        disk.clear_faults();
        let next = parts.reader.next(&feed, attempts + 1).unwrap();
        assert!(matches!(next, Some(Item::Record(_))), "{attempts} failed attempts cost a record that can be read");
        disk.fail(Op::Read, 0, 3, Errno::Io);
        let item = parts.reader.next(&feed, attempts + 2);
        assert!(!matches!(item, Ok(Some(Item::Gap { .. }))), "a passing error became a gap, after {attempts} failed attempts elsewhere");
        disk.clear_faults();
    }
    ledger.verify(&mut parts, Losses::None).unwrap();
}
