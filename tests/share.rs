//! The share at night: a directory feed on a share of a real Samba server, whose server hangs, dies and comes back, which is unmounted and mounted
//! again, and whose files a scanner holds open. What must be: every record once and in order, other feeds untouched, only the right conditions.
//!
//! The share is mounted in user space (see `harness::samba`); where that is not possible, the tests say so and end. `SITEWARD_LONG=1` waits for
//! what takes a minute: `share_hung`, and the next try to move a file.

use harness::files::{FileEvent, Folder, csv, events, ids, ids_of};
use harness::mosquitto;
use harness::samba::{self, Samba};
use harness::scene::Scene;
use harness::wait;
use std::fs;

/// A file is twice as large as what the mount lets through at once (4 MiB), so that its second half takes seconds, however busy the machine is.
const ROWS: u64 = 20_000;
const KIB_PER_SECOND: u32 = 1024;

/// Rows of 400 bytes.
fn long_rows(from: u64, to: u64) -> Vec<u8> {
    let mut text = String::from("id,note\r\n");
    (from..=to).for_each(|row| text.extend([format!("R{row:06},{:x<390}\r\n", row % 97)]));
    text.into_bytes()
}

struct Night {
    scene: Scene,
    samba: Samba,
    /// As the agent sees it, and as the server does.
    share: Folder,
    server: Folder,
    beside: Folder,
}

/// A scene with a feed on the share and one beside it, on the local disk; nothing is mounted or started yet.
fn night(test: &str, lines: &[&str]) -> Option<Night> {
    if let Some(what) = samba::missing() {
        println!("share: {test} needs {what}, which this machine does not have; skipped");
        return None;
    }
    let mut folders = Vec::new();
    let scene = Scene::new(mosquitto::Options { persistence: false, packet_bytes_max: 0 }, |configuration| {
        let parent = configuration.spool.parent().expect("the spool lies in the site").join("in");
        let lines: Vec<&str> = ["split = \"csv\"", "complete = \"rename\"", "require_mount = true"].iter().chain(lines).copied().collect();
        for (id, lines) in [("night", &lines[..]), ("beside", &lines[..2])] {
            let folder = Folder::new(&parent, id);
            configuration.sections.push(folder.section(lines));
            folders.push(folder);
        }
    });
    let samba = Samba::start(&scene.directory.path().join("samba"));
    let server = Folder { id: "night".into(), path: samba.share() };
    let beside = folders.pop().expect("two were made");
    let share = folders.pop().expect("two were made");
    Some(Night { scene, samba, share, server, beside })
}

impl Night {
    /// Some rows of a file are captured, many are not: asked of the agent, which answers sooner than the hub's file is read.
    fn in_the_middle(&self, first: u64) {
        let captured = || self.scene.site.feed_status("night")["captured"].as_u64().unwrap_or(0);
        wait::wait_until("some rows of the file", wait::EVENTUALLY, || captured() > first + 100);
    }

    fn events(&self, feed: &str, enough: u64) -> Vec<FileEvent> {
        events(&self.scene, feed, enough as usize)
    }

    fn done(&self, name: &str) {
        wait::wait_until(&format!("{name} is in done/"), wait::EVENTUALLY, || self.server.is_done(name));
    }

    fn over(&self, code: &str) {
        wait::wait_until(&format!("{code} is over"), wait::EVENTUALLY, || !self.scene.site.conditions().contains(&code.to_owned()));
    }

    /// A feed beside the share is at work, and the status answers.
    fn beside_works(&self, from: u64) {
        self.beside.put(&format!("b{from}.csv"), &csv(from, from + 9));
        assert_eq!(ids_of(&self.events("beside", from + 9)), ids(1, from + 9), "other feeds are not concerned");
        self.scene.site.status(); // answers
    }
}

/// I3: the server hangs in the middle of a file, goes on, and dies in the middle of the next.
#[test]
fn a_server_that_hangs_or_dies_in_the_middle_of_a_file_costs_nothing() {
    let Some(mut night) = night("a server that hangs", &[]) else { return };
    let mount = night.samba.mount(&night.share.path, Some(KIB_PER_SECOND));
    night.scene.start();
    night.server.put("n1.csv", &long_rows(1, ROWS));
    night.in_the_middle(0);
    night.samba.pause();
    night.beside_works(1);
    assert!(!night.server.is_done("n1.csv"), "it is the middle of the file");
    if harness::long() {
        night.scene.site.condition("share_hung", wait::EVENTUALLY);
        night.beside_works(11);
    }
    night.samba.resume();
    assert_eq!(ids_of(&night.events("night", ROWS)), ids(1, ROWS), "every row once, in order");
    night.done("n1.csv");
    night.over("share_hung");

    night.server.put("n2.csv", &long_rows(ROWS + 1, 2 * ROWS));
    night.in_the_middle(ROWS);
    night.samba.kill();
    night.scene.site.condition("directory_unreadable", wait::EVENTUALLY);
    night.beside_works(if harness::long() { 21 } else { 11 });
    assert!(!night.server.is_done("n2.csv"), "it is the middle of the file");
    night.samba.restart();
    assert_eq!(ids_of(&night.events("night", 2 * ROWS)), ids(1, 2 * ROWS), "every row once, in order");
    night.done("n2.csv");
    night.over("directory_unreadable");
    let concerned = || night.scene.site.conditions().into_iter().filter(|code| code.starts_with("share_") || code.starts_with("file_"));
    let quiet = wait::try_until(wait::SOON, || concerned().next().is_none());
    assert!(quiet, "{:?}", concerned().collect::<Vec<_>>());
    night.scene.site.stop();
    mount.unmount();
}

/// An unmounted share is waited for; mounted again, nothing comes twice; the same content with a new time comes again and says so.
#[test]
fn a_share_that_was_unmounted_is_the_same_share_afterwards() {
    let Some(mut night) = night("an unmounted share", &["done = \"leave\""]) else { return };
    let mount = night.samba.mount(&night.share.path, None);
    night.server.put("daily.csv", &csv(1, 50));
    night.scene.start();
    assert_eq!(night.events("night", 50).len(), 50);
    mount.unmount();
    night.scene.site.condition("share_missing", wait::EVENTUALLY);
    fs::write(night.share.file("under-the-mount.csv"), csv(900, 901)).expect("the directory is there");
    night.beside_works(1);
    let mount = night.samba.mount(&night.share.path, None);
    night.over("share_missing");
    night.server.put("new.csv", &csv(51, 60));
    assert_eq!(ids_of(&night.events("night", 60)), ids(1, 60), "nothing was forgotten, nothing came twice");
    // The export of the next day, with nothing new in it.
    night.server.put("daily.csv", &csv(1, 50));
    let events = night.events("night", 110);
    assert_eq!(ids_of(&events[60..]), ids(1, 50));
    let repeated = |event: &FileEvent| event.attribute("filerepeated") == "true";
    assert!(events[60..].iter().all(repeated) && !events[..60].iter().any(repeated));
    night.scene.site.stop();
    mount.unmount();
}

/// A scanner holds a file open in a way that refuses its renaming: it is captured once, however often the move is tried and the agent started.
#[test]
fn a_file_that_a_scanner_holds_is_captured_once_and_moved_later() {
    let Some(mut night) = night("a scanner", &[]) else { return };
    let mount = night.samba.mount(&night.share.path, None);
    night.server.put(".held", &csv(1, 40));
    fs::rename(night.server.file(".held"), night.server.file("held.csv")).expect("the same directory");
    let scanner = night.samba.scanner("held.csv", 300);
    night.scene.start();
    assert_eq!(night.events("night", 40).len(), 40);
    night.scene.site.condition("file_stuck", wait::EVENTUALLY);
    assert!(night.server.file("held.csv").exists());
    night.server.put("other.csv", &csv(41, 45));
    night.done("other.csv");
    night.scene.site.kill();
    night.scene.site.start();
    night.scene.site.condition("file_stuck", wait::EVENTUALLY);
    drop(scanner);
    if !harness::long() {
        // Its next try is in a minute; a start tries at once.
        night.scene.site.stop();
        night.scene.site.start();
    }
    night.done("held.csv");
    night.over("file_stuck");
    night.server.put("last.csv", &csv(46, 50));
    assert_eq!(ids_of(&night.events("night", 50)), ids(1, 50), "every row once");
    night.scene.site.stop();
    mount.unmount();
}
