//! The model of the disk must itself be believed: what it keeps, what it loses, and that it can lose it.

use super::{Errno, Op, SimDisk};
use siteward::spool::disk::Disk;
use std::path::{Path, PathBuf};

const SEEDS: u64 = 200;

fn root() -> PathBuf {
    PathBuf::from("/spool")
}

fn at(name: &str) -> PathBuf {
    root().join(name)
}

fn outcomes(play: impl Fn(&SimDisk) -> SimDisk, look: impl Fn(&SimDisk) -> String) -> Vec<String> {
    let mut seen: Vec<String> = (0..SEEDS).map(|seed| look(&play(&SimDisk::new(seed, &root())))).collect();
    seen.sort();
    seen.dedup();
    seen
}

fn text(disk: &SimDisk, path: &Path) -> String {
    if disk.open_read(path).is_err() {
        return "none".to_owned();
    }
    let bytes = disk.contents(path);
    if bytes.iter().all(|b| *b == 0) { format!("{} zeroes", bytes.len()) } else { String::from_utf8_lossy(&bytes).into_owned() }
}

#[test]
fn what_was_synced_with_its_name_survives_every_power_cut() {
    let seen = outcomes(
        |disk| {
            let file = disk.create(&at("a"), 3).unwrap();
            file.write_at(0, b"abc").unwrap();
            file.sync_data().unwrap();
            disk.sync_dir(&root()).unwrap();
            disk.power_cut()
        },
        |disk| text(disk, &at("a")),
    );
    assert_eq!(seen, ["abc"]);
}

#[test]
fn a_name_that_was_not_synced_may_go_although_the_content_was() {
    let seen = outcomes(
        |disk| {
            let file = disk.create(&at("a"), 3).unwrap();
            file.write_at(0, b"abc").unwrap();
            file.sync_data().unwrap();
            disk.power_cut()
        },
        |disk| text(disk, &at("a")),
    );
    assert_eq!(seen, ["abc", "none"]);
}

#[test]
fn content_that_was_not_synced_may_go_although_the_name_was() {
    let seen = outcomes(
        |disk| {
            let file = disk.create(&at("a"), 3).unwrap();
            disk.sync_dir(&root()).unwrap();
            file.write_at(0, b"abc").unwrap();
            disk.power_cut()
        },
        |disk| text(disk, &at("a")),
    );
    assert_eq!(seen, ["0 zeroes", "3 zeroes", "abc"]);
}

#[test]
fn a_write_is_torn_at_sectors_in_any_order() {
    let seen = outcomes(
        |disk| {
            let file = disk.create(&at("a"), 1536).unwrap();
            file.sync_data().unwrap();
            disk.sync_dir(&root()).unwrap();
            file.write_at(0, &[b'x'; 1536]).unwrap();
            disk.power_cut()
        },
        |disk| disk.contents(&at("a")).chunks(512).map(|s| if s.iter().all(|b| *b == b'x') { 'x' } else { '.' }).collect(),
    );
    assert_eq!(seen, ["...", "..x", ".x.", ".xx", "x..", "x.x", "xx.", "xxx"]);
}

#[test]
fn a_rename_that_was_not_synced_happened_or_did_not_and_never_half() {
    let seen = outcomes(
        |disk| {
            for (name, content) in [("a", b"new"), ("b", b"old")] {
                let file = disk.create(&at(name), 3).unwrap();
                file.write_at(0, content).unwrap();
                file.sync_data().unwrap();
            }
            disk.sync_dir(&root()).unwrap();
            disk.rename(&at("a"), &at("b")).unwrap();
            disk.power_cut()
        },
        |disk| format!("{} {}", text(disk, &at("a")), text(disk, &at("b"))),
    );
    assert_eq!(seen, ["new old", "none new"]);
}

#[test]
fn names_survive_one_without_the_other() {
    let seen = outcomes(
        |disk| {
            drop((disk.create(&at("a"), 0).unwrap(), disk.create(&at("b"), 0).unwrap()));
            disk.power_cut()
        },
        |disk| disk.list(&root()).unwrap().join("+"),
    );
    assert_eq!(seen, ["", "a", "a+b", "b"]);
}

#[test]
fn a_directory_that_was_not_synced_takes_its_files_along() {
    let seen = outcomes(
        |disk| {
            disk.create_dir(&at("d")).unwrap();
            let file = disk.create(&at("d/a"), 1).unwrap();
            file.sync_data().unwrap();
            disk.sync_dir(&at("d")).unwrap();
            disk.power_cut()
        },
        |disk| format!("{:?}", disk.list(&at("d")).ok()),
    );
    assert_eq!(seen, ["None", "Some([\"a\"])"]);
}

#[test]
fn a_sync_after_a_failed_one_may_say_ok_and_keep_nothing() {
    let mut lost = 0;
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed, &root());
        let file = disk.create(&at("a"), 3).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(&root()).unwrap();
        file.write_at(0, b"abc").unwrap();
        disk.fail(Op::Sync, 0, 1, Errno::Io);
        assert!(file.sync_data().is_err());
        assert!(file.sync_data().is_ok());
        assert_eq!(disk.violations().len(), 1);
        assert_eq!(disk.contents(&at("a")), b"abc", "the page cache still shows it");
        let next = disk.kill();
        assert_eq!(next.contents(&at("a")), b"abc", "to the next process too");
        lost += u64::from(next.power_cut().contents(&at("a")) != b"abc");
    }
    assert!(lost > SEEDS / 10, "lost in {lost} of {SEEDS}");
}

#[test]
fn a_killed_process_leaves_its_writes_and_can_do_no_more() {
    let disk = SimDisk::new(1, &root());
    let file = disk.create(&at("a"), 3).unwrap();
    file.write_at(0, b"abc").unwrap();
    let next = disk.kill();
    assert!(file.write_at(0, b"xyz").is_err());
    assert!(disk.remove(&at("a")).is_err());
    assert!(disk.create(&at("b"), 1).is_err());
    assert_eq!(next.contents(&at("a")), b"abc");
    assert_eq!(next.files().len(), 1);
    // What the next process syncs is safe, what it does not may go.
    next.open(&at("a")).unwrap().sync_data().unwrap();
    next.sync_dir(&root()).unwrap();
    assert_eq!(next.power_cut().contents(&at("a")), b"abc");
}

#[test]
fn the_power_goes_at_the_chosen_operation() {
    for changes in 1..=4 {
        let disk = SimDisk::new(changes, &root());
        disk.freeze_after(changes);
        let mut done = 0;
        for name in ["a", "b", "c", "d"] {
            done += u64::from(disk.create(&at(name), 0).is_ok());
        }
        assert_eq!(done, changes - 1);
        assert!(disk.is_frozen());
    }
}

#[test]
fn a_full_disk_refuses_and_takes_again_when_there_is_room() {
    let disk = SimDisk::new(1, &root());
    disk.set_capacity(1000);
    drop(disk.create(&at("a"), 600).unwrap());
    let error = disk.create(&at("b"), 600).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(28));
    assert_eq!(disk.list(&root()).unwrap(), ["a"]);
    disk.remove(&at("a")).unwrap();
    assert_eq!(disk.space(&root()).unwrap().free, 1000);
    drop(disk.create(&at("b"), 600).unwrap());
}

#[test]
fn faults_strike_the_operation_they_are_meant_for() {
    let disk = SimDisk::new(1, &root());
    disk.fail(Op::Create, 1, 2, Errno::NoSpace);
    let results: Vec<_> = ["a", "b", "c", "d"].iter().map(|n| disk.create(&at(n), 10).is_ok()).collect();
    assert_eq!(results, [true, false, false, true]);
    assert_eq!(disk.list(&root()).unwrap(), ["a", "d"]);
}

#[test]
fn damage_is_visible_and_lasting() {
    let disk = SimDisk::new(1, &root());
    let file = disk.create(&at("a"), 4096).unwrap();
    file.write_at(0, &[7; 1000]).unwrap();
    let image = disk.image();
    image.flip(&at("a"), 3, 0);
    image.lose_tail(&at("a"), 100);
    assert_eq!(image.contents(&at("a"))[3], 6);
    assert_eq!(image.written_end(&at("a")), 900);
    image.make_unreadable(&at("a"), 512, 512);
    let opened = image.open_read(&at("a")).unwrap();
    assert!(opened.read_at(0, &mut [0; 512]).is_ok());
    assert!(opened.read_at(500, &mut [0; 100]).is_err());
    assert_eq!(disk.contents(&at("a"))[3], 7, "the original is untouched");
    image.delete(&at("a"));
    assert!(image.power_cut().files().is_empty());
}
