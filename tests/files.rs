//! Directory feeds end to end: real writers, a real broker and hub, and an agent that is killed.
//!
//! Writers: at once by rename, slowly like `cp`, an upload that breaks off and goes on, an editor that replaces, one that pauses for longer than the
//! settle time. Trouble: kills in the middle of a file, a batch without its end, a share that is not mounted, files that cannot be moved, links,
//! the same content every day. `SITEWARD_LONG=1` takes more rows and more kills.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use harness::files::{Folder, csv, events, ids, ids_of, read_events, scene};
use harness::scene::Directory;
use harness::site::{Configuration, Site};
use harness::wait;

const PART: Duration = Duration::from_millis(100);

fn done(folder: &Folder, name: &str) {
    wait::wait_until(&format!("{name} is in done/"), wait::EVENTUALLY, || folder.is_done(name));
}

/// I1, I3: every row of every file at the hub once, in file order, though the agent is killed in the middle of the files again and again; what is no
/// record is in quarantine, also behind the last record of a file.
#[test]
fn rows_survive_kills_in_the_middle_of_a_file() {
    let (rows, kills) = if harness::long() { (100_000, 40) } else { (5000, 8) };
    let (mut scene, folders) = scene(&[("cabinet", &["split = \"csv\"", "complete = \"rename\"", "name_in_events = true"])]);
    let folder = &folders[0];
    let (begin, end) = (rows / 5, rows * 4 / 5);
    folder.put("usage-1.csv", &csv(1, begin));
    folder.put("usage-2.csv", &csv(begin + 1, end));
    for file in 0..20 {
        let part = (rows - end) / 20;
        let cut_off = b"R999999,cut o\r\n";
        folder.put(&format!("usage-3-{file:02}.csv"), &[&csv(end + 1 + file * part, end + (file + 1) * part)[..], cut_off].concat());
    }
    for kill in 1..=kills {
        let enough = rows * kill / (kills + 2);
        wait::wait_while_growing("events before a kill", wait::EVENTUALLY, || scene.hub.events(), enough);
        std::thread::sleep(Duration::from_millis(7 * kill));
        scene.site.kill();
        scene.site.start();
    }
    let events = events(&scene, "cabinet", rows as usize);
    done(folder, "usage-3-19.csv");
    assert_eq!(ids_of(&events), ids(1, rows), "every row once, in order");
    assert!(events.iter().all(|event| event.content_type == "text/csv"));
    let first = &events[0];
    assert_eq!((first.attribute("filename"), first.attribute("fileindex")), ("usage-1.csv", "1"));
    let range = first.attribute("filestart").parse::<usize>().unwrap()..first.attribute("fileend").parse::<usize>().unwrap();
    assert!(csv(1, 1)[range].starts_with(b"R000001"), "the byte range is the row's");
    assert_eq!(events.iter().filter(|event| event.attribute("filelast") == "true").count(), 22, "one last row a file");
    assert_eq!(folder.names("done").len(), 22);
    let kept = fs::read_dir(scene.site.configuration.spool.join("journal/quarantine")).unwrap().count();
    assert_eq!(kept, 20, "each bad row once");
    scene.site.stop();
}

/// Each writer as it is; nothing is captured half.
#[test]
fn files_are_taken_whole_from_every_kind_of_writer() {
    let settled: &[&str] = &["split = \"csv\"", "complete = \"settled\"", "settle = \"2s\""];
    let (mut scene, folders) = scene(&[
        ("slow", settled),
        ("rsync", &["split = \"csv\"", "complete = \"rename\"", "patterns = [\"*.csv\"]"]),
        ("upload", &["split = \"csv\"", "complete = \"marker\"", "marker = \".fin\""]),
        ("editor", settled),
    ]);
    let [slow, rsync, upload, editor] = &folders[..] else { unreachable!("four were made") };
    // An upload that breaks off, and goes on after much longer than any settle time.
    let content = csv(1, 300);
    fs::write(upload.file("u.csv"), &content[..content.len() / 2]).unwrap();
    // An editor saves twice, each time by a new file in place of the old.
    editor.put("e.csv", &csv(1, 10));
    rsync.put("r.csv", &csv(1, 200));
    std::thread::sleep(PART);
    editor.put("e.csv", &csv(1, 20));
    slow.copy_slowly("s.csv", &csv(1, 300), 30, PART);
    assert_eq!(ids_of(&events(&scene, "rsync", 200)), ids(1, 200));
    assert_eq!(ids_of(&events(&scene, "slow", 300)), ids(1, 300));
    assert_eq!(ids_of(&events(&scene, "upload", 0)), Vec::<String>::new(), "half an upload without its marker is nothing");
    fs::write(upload.file("u.csv"), &content).unwrap();
    fs::write(upload.file("u.csv.fin"), b"").unwrap();
    assert_eq!(ids_of(&events(&scene, "upload", 300)), ids(1, 300));
    assert_eq!(ids_of(&events(&scene, "editor", 20)), ids(1, 20), "as it was saved last");
    done(upload, "u.csv");
    assert!(!upload.file("u.csv.fin").exists(), "the marker does not vouch for the next file");
    scene.site.stop();
}

/// A writer that pauses for longer than `settle`: with settled files only, the first half is captured; that is found out and said.
#[test]
fn a_writer_that_pauses_too_long_is_found_out() {
    let (mut scene, folders) = scene(&[("stall", &["split = \"lines\"", "settle = \"1s\""])]);
    let mut file = fs::File::create(folders[0].file("a.txt")).unwrap();
    std::io::Write::write_all(&mut file, b"R000001\nR000002\n").unwrap();
    assert_eq!(ids_of(&events(&scene, "stall", 2)), ids(1, 2));
    done(&folders[0], "a.txt");
    std::io::Write::write_all(&mut file, b"R000003\n").unwrap();
    scene.site.condition("file_changed", wait::EVENTUALLY);
    scene.site.stop();
}

fn hl7_batch(messages: usize, claimed: usize, trailer: bool) -> Vec<u8> {
    use std::fmt::Write as _;
    let mut text = "FHS|^~\\&|LAB|NORTH\rBHS|^~\\&|LAB|NORTH\r".to_owned();
    for n in 1..=messages {
        write!(text, "MSH|^~\\&|LAB|NORTH|HUB|X|20260101||ZZZ^Z01|B{n}|P|2.5\rZIT|{n}\r").expect("writing to a string");
    }
    if trailer {
        write!(text, "BTS|{claimed}\rFTS|1\r").expect("writing to a string");
    }
    text.into_bytes()
}

/// A batch without its end, or with fewer messages than it claims, is held as a whole and captured when it is whole; one bad row costs itself only;
/// a file of another kind is refused with its reason.
#[test]
fn what_is_not_whole_is_held_and_what_is_wrong_is_set_apart() {
    let (mut scene, folders) = scene(&[
        ("batch", &["split = \"hl7_batch\"", "complete = \"trailer\"", "settle = \"1s\""]),
        ("rows", &["split = \"csv\"", "complete = \"rename\""]),
    ]);
    let [batch, rows] = &folders[..] else { unreachable!("two were made") };
    batch.put("b.hl7", &hl7_batch(3, 3, false));
    rows.put("bad-row.csv", b"id,item\nR000001,a\nR000002,b,too,many\nR000003,c\n");
    scene.site.condition("file_held", wait::EVENTUALLY);
    assert_eq!(ids_of(&events(&scene, "rows", 2)), ["R000001", "R000003"]);
    assert_eq!(scene.site.feed_status("rows")["quarantined"], 1);
    scene.site.condition("quarantine_not_empty", wait::SOON);
    rows.put("other.csv", b"id,item\nthis is\nsome other text\n");
    wait::wait_until("the reason is in failed/", wait::EVENTUALLY, || rows.names("failed").contains(&"other.csv.reason.txt".to_owned()));
    scene.site.condition("file_refused", wait::SOON);
    assert!(events(&scene, "batch", 0).is_empty(), "nothing of a batch that is cut");
    batch.put("b.hl7", &hl7_batch(3, 5, true));
    std::thread::sleep(Duration::from_secs(4));
    assert!(events(&scene, "batch", 0).is_empty(), "nor of one that holds less than it says");
    batch.put("b.hl7", &hl7_batch(3, 3, true));
    let whole = events(&scene, "batch", 3);
    assert_eq!((whole.len(), whole[0].content_type.as_str()), (3, "application/hl7-v2"));
    done(batch, "b.hl7");
    wait::wait_until("nothing is held any more", wait::EVENTUALLY, || !scene.site.conditions().contains(&"file_held".to_owned()));
    scene.site.stop();
}

/// The same export every day: content that was captured before is captured again and says so. Links are refused, files that cannot be moved are
/// captured once, whatever is tried and however often the agent starts.
#[test]
fn repeated_stuck_and_linked_files_are_each_told_apart() {
    let (mut scene, folders) = scene(&[
        ("daily", &["split = \"csv\"", "complete = \"rename\""]),
        ("stuck", &["split = \"csv\"", "complete = \"rename\""]),
        ("left", &["split = \"csv\"", "complete = \"rename\"", "done = \"leave\""]),
    ]);
    let [daily, stuck, left] = &folders[..] else { unreachable!("three were made") };
    daily.put("export.csv", &csv(1, 3));
    done(daily, "export.csv");
    daily.put("export.csv", &csv(1, 3));
    let twice = events(&scene, "daily", 6);
    let flags: Vec<bool> = twice.iter().map(|event| event.attribute("filerepeated") == "true").collect();
    assert_eq!(flags, [false, false, false, true, true, true]);
    assert_eq!(twice[0].attribute("filename"), "", "names stay here unless the feed says otherwise");

    fs::write(stuck.file("done"), b"in the way").unwrap();
    stuck.put("s.csv", &csv(1, 3));
    symlink("/etc/hostname", stuck.file("link.csv")).unwrap();
    left.put("l.csv", &csv(1, 3));
    scene.site.condition("file_stuck", wait::EVENTUALLY);
    scene.site.condition("file_refused", wait::EVENTUALLY);
    assert_eq!(events(&scene, "left", 3).len(), 3);
    scene.site.kill();
    scene.site.start();
    scene.site.condition("file_stuck", wait::EVENTUALLY);
    fs::remove_file(stuck.file("done")).unwrap();
    // The next start tries at once; a running agent tries after a minute.
    scene.site.stop();
    scene.site.start();
    done(stuck, "s.csv");
    left.put("m.csv", &csv(4, 6));
    assert_eq!(ids_of(&events(&scene, "left", 6)), ids(1, 6), "what was left is not captured again");
    assert_eq!(ids_of(&events(&scene, "stuck", 3)), ids(1, 3));
    assert!(left.file("l.csv").exists() && left.names("done").is_empty());
    scene.site.stop();
}

/// A share that is not mounted is a condition: nothing is read, moved or forgotten. Mounted with `mount --bind` where the machine allows it.
#[test]
fn a_share_that_is_away_is_waited_for() {
    let lines = ["split = \"csv\"", "complete = \"rename\"", "require_mount = true", "done = \"leave\""];
    let (mut scene, folders) = scene(&[("share", &lines), ("beside", &["split = \"csv\"", "complete = \"rename\""])]);
    let [share, beside] = &folders[..] else { unreachable!("two were made") };
    scene.site.condition("share_missing", wait::EVENTUALLY);
    share.put("below-the-mount.csv", &csv(1, 2));
    beside.put("b.csv", &csv(1, 5));
    assert_eq!(events(&scene, "beside", 5).len(), 5, "other feeds are not concerned");
    assert!(events(&scene, "share", 0).is_empty());
    let server = scene.directory.path().join("server");
    fs::create_dir(&server).unwrap();
    let mount = |arguments: &[&std::ffi::OsStr]| Command::new("mount").args(arguments).status().is_ok_and(|status| status.success());
    if !mount(&["--bind".as_ref(), server.as_os_str(), share.path.as_os_str()]) {
        println!("files: this machine does not let us mount; only the missing share was tested");
        return scene.site.stop();
    }
    let unmount = || Command::new("umount").arg("-l").arg(&share.path).status().is_ok_and(|status| status.success());
    fs::write(server.join("a.csv"), csv(1, 4)).unwrap();
    let first = wait::try_until(wait::EVENTUALLY, || read_events(&scene.hub.out(), "share").0.len() >= 4);
    assert!(unmount() && first, "the share was captured and is gone");
    scene.site.condition("share_missing", wait::EVENTUALLY);
    assert!(mount(&["--bind".as_ref(), server.as_os_str(), share.path.as_os_str()]));
    fs::write(server.join("b.csv"), csv(5, 6)).unwrap();
    let again = wait::try_until(wait::EVENTUALLY, || read_events(&scene.hub.out(), "share").0.len() >= 6);
    assert!(unmount() && again);
    assert_eq!(ids_of(&events(&scene, "share", 6)), ids(1, 6), "nothing was forgotten, nothing came twice");
    scene.site.stop();
}

/// I10: times of change from a server whose clock is years off, before 1970 and after 2100, change nothing.
#[test]
fn times_of_change_are_only_compared_with_each_other() {
    let (mut scene, folders) = scene(&[("skewed", &["split = \"csv\"", "settle = \"1s\"", "order = \"mtime\""])]);
    for (name, seconds, row) in [("b.csv", 1u64, 1u64), ("a.csv", 4_200_000_000, 2)] {
        let temporary = folders[0].file(&format!(".{name}"));
        fs::write(&temporary, csv(row, row)).unwrap();
        let file = fs::File::options().write(true).open(&temporary).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        fs::rename(&temporary, folders[0].file(name)).unwrap();
    }
    assert_eq!(ids_of(&events(&scene, "skewed", 2)), ids(1, 2));
    scene.site.stop();
}

/// Tries a file at a gateway where no agent runs: exit code and both outputs, held against what stands in the file (I7).
fn try_file(site: &Site, feed: &str, path: &Path, more: &[&str]) -> (Option<i32>, String) {
    let path = path.to_str().expect("the names are plain");
    let output = site.command(&[&["feeds", "try", "--feed", feed, path], more].concat());
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!text.contains("R0000") && !text.contains("CANARY"), "{text}");
    (output.status.code(), text)
}

/// Before a file is put where the feed finds it, it is known what becomes of it; and trying it captures nothing.
#[test]
fn a_trial_tells_what_would_become_of_a_file() {
    let directory = Directory::new();
    let mut configuration = Configuration::new(directory.path());
    let parent = directory.path().join("in");
    let usage = Folder::new(&parent, "usage");
    let lines = ["split = \"csv\"", "complete = \"marker\"", "patterns = [\"*.csv\"]"];
    configuration.sections.push(usage.section(&lines));
    let batch = Folder::new(&parent, "batch");
    configuration.sections.push(batch.section(&["split = \"hl7_batch\"", "complete = \"trailer\""]));
    let site = Site::new(directory.path(), configuration);

    let good = directory.path().join("good.csv");
    fs::write(&good, csv(1, 100)).unwrap();
    let (code, text) = try_file(&site, "usage", &good, &["--limit", "3"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("would be captured whole") && text.contains("100 records"), "{text}");
    assert!(text.contains("and 97 more") && text.contains("it is not there") && !text.contains('\x1b'), "{text}");
    fs::write(directory.path().join("good.csv.ok"), b"").unwrap();
    assert!(try_file(&site, "usage", &good, &[]).1.contains("it is there"));

    let bad = directory.path().join("bad.csv");
    fs::write(&bad, [&csv(1, 10)[..], b"R000011,too,many,columns,CANARY,x,y,z\n"].concat()).unwrap();
    let (code, text) = try_file(&site, "usage", &bad, &["--json"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("no JSON ({e}): {text}"));
    assert_eq!((code, &json["outcome"], &json["records"], &json["bad"]), (Some(3), &"captured".into(), &10.into(), &1.into()));
    assert_eq!((&json["not_captured"][0]["row"], &json["reception"]["rule"]), (&12.into(), &"marker".into()));

    let other = directory.path().join("good.txt");
    fs::copy(&good, &other).unwrap();
    let (code, text) = try_file(&site, "usage", &other, &[]);
    assert!(code == Some(3) && text.contains("fits no pattern"), "{text}");

    let cut = directory.path().join("night.hl7");
    fs::write(&cut, b"FHS|^~\\&|A\rBHS|^~\\&|A\rMSH|^~\\&|A|B|C|D|||ADT^A01|CANARY|P|2.3\r").unwrap();
    let (code, text) = try_file(&site, "batch", &cut, &[]);
    assert!(code == Some(3) && text.contains("would be held"), "{text}");

    let (code, text) = try_file(&site, "or-usage", &cut, &[]);
    assert!(code == Some(0) && text.contains("would be captured whole"), "a listener takes the message: {text}");
    assert_eq!(try_file(&site, "usge", &good, &[]).0, Some(1));
    assert!(!usage.file("good.csv").exists() && !site.directory.join("spool").exists(), "nothing was captured");
}
