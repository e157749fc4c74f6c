//! The audit log, and the power that goes: a record that was said to be written is there, in one chain that is whole; nothing else is taken for one.
//! Also where the log of another gateway is put aside, where the log is full and the oldest go, and where the disk has no room when it is opened.

use std::path::Path;

use harness::sim::{Errno, Op, SimDisk};
use siteward::audit::chain::Draft;
use siteward::audit::log::{Found, Log, look, lying, verify};
use siteward::audit::verify::Verdict;
use siteward::contract::AuditStage;
use siteward::limits::AUDIT_SEGMENT_BYTES;
use siteward::record::{Incarnation, Name};

use super::rollout::ROOT;

fn gateway() -> Name {
    Name::new("gw1").expect("a name")
}

fn draft(text: &str) -> Draft {
    let mut draft = Draft::new(AuditStage::Fact, "kim (uid 1000)", "pause_feed", "or-usage", text);
    draft.time = "2026-11-01T00:00:00.000Z".into();
    draft
}

/// I9: whatever is cut in whatever step, also while opening.
#[test]
fn an_audit_record_survives_a_power_cut_or_nothing_was_done() {
    let (mut cuts, mut written, mut torn) = (0, 0, 0);
    for seed in 0..150u64 {
        let mut disk = SimDisk::new(seed, Path::new(ROOT));
        // Of each number what it says.
        let mut promised: Vec<(u64, String)> = Vec::new();
        for step in 0..8u64 {
            disk.freeze_after(1 + (seed * 7 + step * 3) % 23);
            let incarnation = Incarnation([u8::try_from(step).expect("small"); 16]);
            if let Ok((mut log, found)) = Log::open(disk.handle(), Path::new(ROOT), &gateway(), incarnation) {
                torn += found.iter().filter(|one| matches!(one, Found::Torn { .. })).count();
                assert!(found.iter().all(|one| matches!(one, Found::Torn { .. })), "seed {seed}: {found:?}");
                for number in 0..4 {
                    let text = format!("step {step} number {number} {}", "x".repeat(usize::try_from(seed % 700).expect("small")));
                    match log.append(draft(&text)) {
                        Ok((n, _)) => {
                            written += 1;
                            promised.push((n, text));
                        }
                        Err(_) => cuts += 1,
                    }
                }
            } else {
                cuts += 1;
            }
            disk = disk.power_cut();
            let lines = look(disk.handle(), Path::new(ROOT)).unwrap_or_default();
            for (n, text) in &promised {
                let is_there = lines.iter().any(|line| line.contains(text.as_str()) && line.contains(&format!("\"n\":{n},")));
                assert!(is_there, "seed {seed} step {step}: record {n} was said to be written");
            }
        }
        let (log, _) = Log::open(disk.handle(), Path::new(ROOT), &gateway(), Incarnation([99; 16])).expect("it opens");
        let lines = look(disk.handle(), Path::new(ROOT)).expect("it is read");
        let verdict = verify(&lines);
        assert!(verdict.is_whole() && verdict.chains.len() == 1, "seed {seed}: {}", verdict.text());
        assert_eq!(verdict.chains[0].last, log.last());
    }
    println!("audit: {written} records, {cuts} calls cut, {torn} torn ends");
    assert!(cuts > 100 && written > 100, "{cuts} {written}");
}

/// I9: after a write or sync that failed, what it may have left on the disk never counts: not while the agent runs, not for whoever looks, not after a
/// kill, not after a power cut; and what was said to be written since is there.
#[test]
fn a_record_that_could_not_be_synced_never_counts_and_the_next_one_has_its_number() {
    let mut failures = 0;
    for (seed, op) in (0..40u64).flat_map(|seed| [(seed, Op::Write), (seed, Op::Sync)]) {
        let disk = SimDisk::new(seed, Path::new(ROOT));
        let (mut log, _) = Log::open(disk.handle(), Path::new(ROOT), &gateway(), Incarnation([0; 16])).expect("it opens");
        let mut promised: Vec<(u64, String)> = Vec::new();
        for number in 0..12 {
            if number % 4 == 2 {
                disk.fail(op, seed % 2, 1, Errno::Io);
            }
            let text = format!("number {number} {}", "x".repeat(usize::try_from((seed * 17 + (12 - number) * 131) % 700).expect("small")));
            match log.append(draft(&text)) {
                Ok((n, _)) => promised.push((n, text)),
                Err(_) => failures += 1,
            }
        }
        disk.clear_faults();
        let are_promised = |lines: &[String]| {
            let of = |(n, text): &(u64, String)| {
                lines.iter().filter(|line| line.contains(text.as_str()) && line.contains(&format!("\"n\":{n},"))).count()
            };
            promised.iter().all(|one| of(one) == 1)
        };
        let running: Vec<String> = log.snapshot().page(1, 1000).expect("it is read").into_iter().map(|(_, line)| line).collect();
        assert!(are_promised(&running) && running.len() as u64 == log.last(), "seed {seed} {op:?}: {running:#?}");
        drop(log);
        for after in [disk.kill(), disk.power_cut()] {
            let looked = look(after.handle(), Path::new(ROOT)).expect("it is read");
            assert!(are_promised(&looked), "seed {seed} {op:?}");
            let (log, found) = Log::open(after.handle(), Path::new(ROOT), &gateway(), Incarnation([9; 16])).expect("it opens");
            assert!(!found.iter().any(|one| matches!(one, Found::Damaged { .. })), "seed {seed} {op:?}: {found:?}");
            let lines = look(after.handle(), Path::new(ROOT)).expect("it is read");
            let verdict = verify(&lines);
            assert!(verdict.is_whole() && are_promised(&lines), "seed {seed} {op:?}: {}", verdict.text());
            assert_eq!(verdict.chains[0].last, log.last());
        }
    }
    assert!(failures > 100, "{failures}");
}

/// I5: a disk that is full takes audit records for another segment at least: its blocks lie there.
#[test]
fn a_full_disk_takes_audit_records_for_a_while() {
    let disk = SimDisk::new(1, Path::new(ROOT));
    let (mut log, _) = Log::open(disk.handle(), Path::new(ROOT), &gateway(), Incarnation([0; 16])).expect("it opens");
    disk.set_capacity(disk.used());
    let long = "x".repeat(1000);
    let taken = (0..1000).take_while(|_| log.append(draft(&long)).is_ok()).count() as u64;
    assert!(taken * long.len() as u64 > AUDIT_SEGMENT_BYTES, "{taken} records");
    assert!(taken < 1000, "full is full");
    let lines = look(disk.handle(), Path::new(ROOT)).expect("it is read");
    assert!(verify(&lines).is_whole() && lines.len() as u64 == log.last());
}

fn open(disk: &SimDisk, gateway: &str, of: u64) -> Option<(Log, Vec<Found>)> {
    let incarnation = Incarnation([u8::try_from(of % 251).expect("small"); 16]);
    Log::open(disk.handle(), Path::new(ROOT), &Name::new(gateway).expect("a name"), incarnation).ok()
}

fn judged(disk: &SimDisk) -> Verdict {
    lying(disk.handle(), Path::new(ROOT)).and_then(|log| log.verdict()).expect("it is read")
}

fn number(line: &str) -> Option<u64> {
    line.split_once("\"n\":")?.1.split_once(',')?.0.parse().ok()
}

/// The text of a file, or nothing.
fn contents(disk: &SimDisk, below: &str) -> String {
    let files = disk.files().into_iter().map(|(path, _)| path);
    let of_it = files.filter(|path| path.display().to_string().contains(below));
    of_it.map(|path| String::from_utf8_lossy(&disk.contents(&path)).into_owned()).collect()
}

/// I9: the power goes at every step of putting the log of another gateway aside, and goes again: the old one is all there, and is named.
#[test]
fn a_log_that_is_put_aside_survives_a_power_cut_and_is_named() {
    let mut cuts = 0;
    for seed in 0..6u64 {
        for cut in 1..24 {
            let mut disk = SimDisk::new(seed * 100 + cut, Path::new(ROOT));
            let (mut log, _) = open(&disk, "gw1", 1).expect("a new log");
            for number in 0..3 {
                log.append(draft(&format!("deed {number}."))).expect("room");
            }
            if seed % 2 == 0 {
                disk = disk.power_cut();
            }
            for again in 0..3 {
                disk.freeze_after(cut + again * 2);
                let opened = open(&disk, "gw2", 2 + again);
                cuts += u64::from(opened.is_none());
                disk = disk.power_cut();
            }
            let (log, _) = open(&disk, "gw2", 9).expect("it opens");
            let old = contents(&disk, "/audit.gw1.");
            assert!((0..3).all(|n| old.contains(&format!("deed {n}."))), "seed {seed} cut {cut}: the deeds are gone");
            let lines = look(disk.handle(), Path::new(ROOT)).expect("it is read");
            let named: Vec<&String> = lines.iter().filter(|line| line.contains("audit_put_aside")).collect();
            assert!(named.len() == 1 && named[0].contains("last record 4"), "seed {seed} cut {cut}: {named:?}");
            let verdict = judged(&disk);
            assert!(verdict.is_whole() && verdict.chains.len() == 1 && verdict.chains[0].gateway.as_str() == "gw2", "{}", verdict.text());
            assert_eq!(verdict.chains[0].last, log.last());
        }
    }
    println!("audit: put aside over {cuts} cuts");
    assert!(cuts > 50, "{cuts}");
}

/// I5, I9: a full log whose oldest go, cut anywhere: what was said to be written is there, or a record that is there says that it was given up,
/// or the broker had it.
#[test]
fn what_a_full_log_gave_up_is_told_whatever_is_cut() {
    let (mut given_up, mut cuts) = (0, 0);
    for seed in 0..8u64 {
        let mut disk = SimDisk::new(seed, Path::new(ROOT));
        let (mut promised, mut sent) = (Vec::new(), 0u64);
        for step in 0..6u64 {
            disk.freeze_after(150 + (seed * 31 + step * 17) % 400);
            if let Some((mut log, found)) = open(&disk, "gw1", step) {
                assert!(found.iter().all(|one| matches!(one, Found::Torn { .. })), "seed {seed} step {step}: {found:?}");
                log.bound(2);
                for number in 0..250u64 {
                    match log.append(draft(&format!("step {step} number {number} {}", "x".repeat(1900)))) {
                        Ok((n, given)) => {
                            promised.push(n);
                            given_up += u64::from(given.is_some());
                        }
                        Err(_) => break,
                    }
                    if (seed + number) % 90 == 0 && log.was_sent(log.last().saturating_sub(number % 70)).is_ok() {
                        sent = log.sent();
                    }
                }
                cuts += u64::from(disk.is_frozen());
            }
            disk = disk.power_cut();
            let (log, found) = open(&disk, "gw1", step + 100).expect("it opens");
            assert!(found.iter().all(|one| matches!(one, Found::Torn { .. })), "seed {seed} step {step}: {found:?}");
            drop(log);
            let verdict = judged(&disk);
            assert!(verdict.is_whole(), "seed {seed} step {step}: {}", verdict.text());
            let here: std::collections::BTreeSet<u64> =
                look(disk.handle(), Path::new(ROOT)).expect("it is read").iter().filter_map(|line| number(line)).collect();
            let dropped = verdict.chains.first().map(|chain| chain.dropped.clone()).unwrap_or_default();
            for n in &promised {
                let is_there = here.contains(n);
                let is_told = *n <= sent || dropped.iter().any(|(first, last)| first <= n && n <= last);
                assert!(is_there || is_told, "seed {seed} step {step}: of record {n} nothing is known; {}", verdict.text());
            }
            promised.retain(|n| here.contains(n));
        }
    }
    println!("audit: a full log gave up {given_up} times, over {cuts} cuts");
    assert!(given_up > 20 && cuts > 20, "{given_up} {cuts}");
}

/// I1, I9: with no room for any new file the log opens at every start and takes records, killed or cut in between, as long as its file has room.
#[test]
fn a_full_disk_never_keeps_the_log_from_opening() {
    let (mut opened, mut written) = (0, 0);
    for seed in 0..60u64 {
        let mut disk = SimDisk::new(seed, Path::new(ROOT));
        let (mut log, _) = open(&disk, "gw1", 1).expect("a new log");
        let mut promised: Vec<String> = Vec::new();
        log.append(draft("the first")).expect("room");
        for step in 0..7u64 {
            disk = if step % 2 == 0 { disk.kill() } else { disk.power_cut() };
            // Whatever becomes free somebody else takes: the spare goes, and then there is none.
            disk.set_capacity(disk.used());
            if seed % 2 == 0 {
                disk.fail(Op::Create, 0, 1 << 40, Errno::NoSpace);
            }
            let is_cut = seed % 3 == 0 && step % 3 == 1;
            if is_cut {
                disk.freeze_after(1 + (seed + step) % 9);
            }
            let Some((mut log, found)) = open(&disk, "gw1", step) else {
                assert!(is_cut, "seed {seed} step {step}: {:#?}", disk.trace());
                continue;
            };
            opened += 1;
            assert!(found.iter().all(|one| matches!(one, Found::Torn { .. })), "seed {seed} step {step}: {found:?}");
            for number in 0..3 {
                let text = format!("step {step} number {number}.");
                if log.append(draft(&text)).is_ok() {
                    promised.push(text);
                    written += 1;
                } else {
                    assert!(is_cut, "seed {seed} step {step}: {:#?}", disk.trace());
                }
            }
            if !is_cut && seed % 5 == 0 {
                // The last one is torn: half of it is not there.
                disk.freeze_after(1);
                let torn = log.append(draft(&format!("torn {}", "y".repeat(1800))));
                assert!(torn.is_err());
            }
        }
        let disk = disk.power_cut();
        let lines = look(disk.handle(), Path::new(ROOT)).expect("it is read");
        for text in &promised {
            assert!(lines.iter().any(|line| line.contains(text.as_str())), "seed {seed}: {text} was said to be written");
        }
        open(&disk, "gw1", 99).expect("it opens");
        assert!(judged(&disk).is_whole(), "seed {seed}: {}", judged(&disk).text());
    }
    println!("audit: opened {opened} times on a full disk, {written} records written");
    assert!(opened > 300 && written > 900, "{opened} {written}");
}
