//! Directory feeds and the programs that really write such files: `cp` from a slow source, `rsync`, an upload that breaks off and is resumed by
//! appending, an editor's replacement. And many feeds at once under an agent that is killed again and again. Rules of completion themselves are
//! tested in `files`.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::files::{csv, events, ids, ids_of, scene};
use harness::wait;

const PART: Duration = Duration::from_millis(150);
/// Longer than any settle time here.
const PAUSE: Duration = Duration::from_secs(4);

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// `cp` reads a pipe that gives a part at a time: for `cp` that is a slow disk or a slow network.
fn slow_cp(directory: &Path, to: &Path, content: &[u8]) {
    let pipe = directory.join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success()));
    let mut cp = Command::new("cp").arg(&pipe).arg(to).spawn().expect("cp");
    let mut source = fs::File::options().write(true).open(&pipe).expect("cp reads");
    for part in content.chunks(content.len() / 20 + 1) {
        source.write_all(part).expect("cp reads");
        std::thread::sleep(PART);
    }
    drop(source);
    assert!(cp.wait().is_ok_and(|status| status.success()));
    fs::remove_file(&pipe).expect("removed");
}

/// Each program as it is; whatever it does on the way, its file is captured whole, once.
#[test]
fn files_of_real_programs_are_taken_whole() {
    let settled: &[&str] = &["split = \"csv\"", "complete = \"settled\"", "settle = \"2s\"", "patterns = [\"*.csv\"]"];
    let (mut scene, folders) =
        scene(&[("cp", settled), ("rsync", &["split = \"csv\"", "complete = \"rename\"", "patterns = [\"*.csv\"]"]), ("sed", settled)]);
    let [cp, rsync, sed] = &folders[..] else { unreachable!("three were made") };
    let elsewhere = scene.directory.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    // An editor that saves by a new file in place of the old, before the first is settled.
    sed.put("e.csv", &csv(1, 10));
    assert!(Command::new("sed").args(["-i", "s/ITEM-/ART-/"]).arg(sed.file("e.csv")).status().is_ok_and(|status| status.success()));
    slow_cp(&elsewhere, &cp.file("c.csv"), &csv(1, 300));
    assert_eq!(ids_of(&events(&scene, "cp", 300)), ids(1, 300));
    let edited = events(&scene, "sed", 10);
    assert_eq!(ids_of(&edited), ids(1, 10));
    assert!(edited.iter().all(|event| event.row().contains("ART-")), "as it was saved last");

    if has("rsync") {
        fs::write(elsewhere.join("r.csv"), csv(1, 4000)).unwrap();
        let slow = Command::new("rsync").args(["--bwlimit=60"]).arg(elsewhere.join("r.csv")).arg(&rsync.path).status();
        assert!(slow.is_ok_and(|status| status.success()), "rsync writes under another name and renames");
        assert_eq!(ids_of(&events(&scene, "rsync", 4000)), ids(1, 4000));
        // Killed half way, it leaves its file under the other name or none; the next run is a whole one.
        fs::write(elsewhere.join("s.csv"), csv(4001, 8000)).unwrap();
        let mut cut = Command::new("rsync").args(["--bwlimit=40"]).arg(elsewhere.join("s.csv")).arg(&rsync.path).spawn().unwrap();
        std::thread::sleep(Duration::from_secs(1));
        cut.kill().and_then(|()| cut.wait()).unwrap();
        std::thread::sleep(PAUSE);
        assert_eq!(events(&scene, "rsync", 4000).len(), 4000, "nothing of the file that broke off");
        let whole = Command::new("rsync").arg(elsewhere.join("s.csv")).arg(&rsync.path).status();
        assert!(whole.is_ok_and(|status| status.success()));
        assert_eq!(ids_of(&events(&scene, "rsync", 8000)), ids(1, 8000));
    } else {
        println!("writers: rsync is not here; its part is skipped");
    }
    scene.site.stop();
}

fn batch(messages: usize) -> String {
    use std::fmt::Write as _;
    let mut text = "FHS|^~\\&|LAB|NORTH\rBHS|^~\\&|LAB|NORTH\r".to_owned();
    for n in 1..=messages {
        write!(text, "MSH|^~\\&|LAB|NORTH|HUB|X|20260101||ZZZ^Z01|B{n}|P|2.5\rZIT|{n}\r").expect("writing to a string");
    }
    write!(text, "BTS|{messages}\rFTS|1\r").expect("writing to a string");
    text
}

/// An upload breaks off in the middle and is resumed where it was, after longer than any settle time. With a trailer or a marker nothing of it is
/// captured before it is whole; with settled files only, the first half is, and what was appended since is found out and said.
#[test]
fn an_upload_that_is_resumed_is_whole_or_found_out() {
    let (mut scene, folders) = scene(&[
        ("trailer", &["split = \"hl7_batch\"", "complete = \"trailer\"", "settle = \"1s\""]),
        ("marker", &["split = \"csv\"", "complete = \"marker\"", "marker = \".fin\""]),
        ("settled", &["split = \"lines\"", "settle = \"1s\"", "done = \"leave\""]),
    ]);
    let [trailer, marker, settled] = &folders[..] else { unreachable!("three were made") };
    let (text, rows) = (batch(40), csv(1, 300));
    let parts = [
        (trailer.file("u.hl7"), text.as_bytes().split_at(text.len() / 2)),
        (marker.file("u.csv"), rows.split_at(rows.len() / 2)),
        (settled.file("u.txt"), (&b"R000001\nR000002\n"[..], &b"R000003\n"[..])),
    ];
    for (path, (first, _)) in &parts {
        fs::write(path, first).unwrap();
    }
    scene.site.condition("file_held", wait::EVENTUALLY);
    assert_eq!(ids_of(&events(&scene, "settled", 2)), ids(1, 2));
    std::thread::sleep(PAUSE);
    assert!(events(&scene, "trailer", 0).is_empty() && events(&scene, "marker", 0).is_empty(), "nothing of what is not whole");
    for (path, (_, second)) in &parts {
        fs::File::options().append(true).open(path).and_then(|mut file| file.write_all(second)).unwrap();
    }
    fs::write(marker.file("u.csv.fin"), b"").unwrap();
    assert_eq!(events(&scene, "trailer", 40).len(), 40);
    assert_eq!(ids_of(&events(&scene, "marker", 300)), ids(1, 300));
    // A file that is left and grows is another file: all of it is captured, with what came before once more.
    assert_eq!(ids_of(&events(&scene, "settled", 5)), ["R000001", "R000002", "R000001", "R000002", "R000003"]);
    scene.site.stop();
}

/// I1, I3: four feeds of different kinds, each with several files, and an agent that is killed at any moment: every record of every feed at the hub
/// once, in file order.
#[test]
fn many_feeds_survive_kills_at_any_moment() {
    let (rows, kills) = if harness::long() { (20_000, 30) } else { (2000, 6) };
    let lines: &[&str] = &["split = \"lines\"", "complete = \"rename\"", "done = \"leave\""];
    let csv_lines: &[&str] = &["split = \"csv\"", "complete = \"rename\""];
    let (mut scene, folders) = scene(&[
        ("rows-a", csv_lines),
        ("rows-b", csv_lines),
        ("lines", lines),
        ("batch", &["split = \"hl7_batch\"", "complete = \"trailer\"", "settle = \"1s\""]),
    ]);
    let text = |from: u64, to: u64| (ids(from, to).join("\n") + "\n").into_bytes();
    let files = 8;
    let part = rows / files;
    for file in 0..files {
        let (from, to) = (file * part + 1, (file + 1) * part);
        folders[0].put(&format!("f{file}.csv"), &csv(from, to));
        folders[1].put(&format!("f{file}.csv"), &csv(from, to));
        folders[2].put(&format!("f{file}.txt"), &text(from, to));
    }
    folders[3].put("b.hl7", batch(500).as_bytes());
    for kill in 1..=kills {
        let enough = (3 * rows + 500) * kill / (kills + 2);
        wait::wait_while_growing("events before a kill", wait::EVENTUALLY, || scene.hub.events(), enough);
        std::thread::sleep(Duration::from_millis(11 * kill));
        scene.site.kill();
        scene.site.start();
    }
    for feed in ["rows-a", "rows-b", "lines"] {
        assert_eq!(ids_of(&events(&scene, feed, rows as usize)), ids(1, rows), "{feed}: every record once, in order");
    }
    let messages: Vec<String> =
        events(&scene, "batch", 500).iter().map(|event| String::from_utf8_lossy(&event.body).into_owned()).collect();
    assert_eq!(messages.len(), 500);
    assert!(messages.iter().zip(1..).all(|(message, n)| message.contains(&format!("|B{n}|"))), "the batch in its order");
    scene.site.stop();
}
