//! Expected cadence end to end: an agent whose wall clock stands around the clock changes of New York, while its monotonic clock and everybody
//! else's clocks go on as they are.
//!
//! The agent runs under libfaketime (Debian package `libfaketime`); where that is not installed, the tests say that they are skipped. The library
//! leaves the monotonic clock alone and the times of files, so that what the agent waits for takes as long as ever.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::files::{Folder, csv, ids, ids_of, read_events};
use harness::message;
use harness::mosquitto;
use harness::scene::Scene;
use harness::site::Configuration;
use harness::wait;

/// Where Debian puts the library.
fn library() -> Option<PathBuf> {
    let architecture = format!("{}-linux-gnu", std::env::consts::ARCH);
    let found = PathBuf::from(format!("/usr/lib/{architecture}/faketime/libfaketimeMT.so.1"));
    if !found.exists() {
        println!("cadence: skipped: {} is not here; install the package libfaketime", found.display());
        return None;
    }
    Some(found)
}

/// Starts the agent at a time of New York, given in UTC.
fn start_at(scene: &mut Scene, library: &Path, utc: &str) {
    let mut command = Command::new(harness::program("siteward"));
    command.arg("run").arg("--config").arg(scene.site.config_file());
    command.env("LD_PRELOAD", library).env("TZ", "UTC").env("FAKETIME", format!("@{utc}"));
    command.env("DONT_FAKE_MONOTONIC", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
    scene.site.spawn_with(&mut command);
    scene.site.listening();
}

/// The agent's clock is another than everybody else's, and right: something keeps it so.
fn is_kept_right(configuration: &mut Configuration) {
    configuration.gateway_lines.push("clock_synchronised_file = \"/\"".into());
}

/// `lines` of `[feed.expect]`.
fn scene(lines: &str) -> (Scene, Folder) {
    let mut folder = None;
    let mut scene = Scene::new(mosquitto::Options { persistence: false, packet_bytes_max: 0 }, |configuration| {
        let parent = configuration.spool.parent().expect("the spool lies in the site").join("in");
        let daily = Folder::new(&parent, "daily");
        is_kept_right(configuration);
        let section = daily.section(&["split = \"csv\"", "complete = \"rename\""]);
        configuration.sections.push(format!("{section}[feed.expect]\n{lines}\ngrace = \"0s\"\n"));
        folder = Some(daily);
    });
    scene.hub.start();
    (scene, folder.expect("the configuration was made"))
}

/// Once the arrival was noticed.
fn expects_next(scene: &Scene, next: &str) {
    let shown = || scene.site.feed_status("daily")["expected"].clone();
    let fits = wait::try_until(wait::SOON, || shown()["next"] == next);
    assert!(fits, "{} is not what is expected next: {}", next, shown());
}

fn is_silent(scene: &Scene) -> bool {
    scene.site.conditions().contains(&"feed_silent".to_owned())
}

fn is_written_down(scene: &Scene) {
    let file = scene.site.configuration.spool.join("arrivals.json");
    wait::wait_until("the silence is written down", wait::SOON, || {
        std::fs::read_to_string(&file).unwrap_or_default().contains("\"silent\":true")
    });
}

/// Conditions that hold beside those every site of the harness has.
fn troubles(scene: &Scene) -> Vec<String> {
    let usual = ["spool_key_beside_spool", "listener_open"];
    scene.site.conditions().into_iter().filter(|code| !usual.contains(&code.as_str())).collect()
}

fn hub_says(scene: &Scene, text: &str) {
    let told = wait::try_until(wait::EVENTUALLY, || {
        let log = std::fs::read_to_string(scene.hub.log_file()).unwrap_or_default();
        log.lines().any(|line| line.contains("feed_silent") && line.contains(text))
    });
    assert!(told, "the hub does not say {text:?} of feed_silent; its log ends with:\n{}", scene.hub.log_tail());
}

/// The export of the day, the same as ever; `all` of them are at the hub then, in order, each once, the later ones flagged.
fn export(scene: &Scene, folder: &Folder, all: u64) {
    folder.put("export.csv", &csv(1, 3));
    wait::wait_until("the export is taken", wait::EVENTUALLY, || !folder.file("export.csv").exists());
    let enough = usize::try_from(all * 3).expect("few");
    wait::wait_until("its rows are at the hub", wait::EVENTUALLY, || read_events(&scene.hub.out(), "daily").0.len() >= enough);
    let (events, complaints) = read_events(&scene.hub.out(), "daily");
    assert_eq!((events.len(), complaints), (enough, Vec::<String>::new()), "every record exactly once");
    for (number, day) in events.chunks(3).enumerate() {
        assert_eq!(ids_of(day), ids(1, 3));
        assert!(day.iter().all(|event| (event.attribute("filerepeated") == "true") == (number > 0)), "export {number}");
    }
}

/// The hour from 1 to 2 comes twice: 01:30 is over the second time. The same export comes before, during and after the change.
#[test]
fn a_deadline_in_the_repeated_hour_is_missed_once() {
    let Some(library) = library() else { return };
    let (mut scene, folder) = scene("by = \"01:30\"\nfrom = \"00:30\"");
    start_at(&mut scene, &library, "2026-11-01 00:10:00");
    export(&scene, &folder, 1);
    // In the evening of the 31st, before `from`; the next is the second 01:30.
    expects_next(&scene, "2026-11-01T06:30:00.000Z");
    scene.site.stop();

    // Ten seconds before the first 01:30 of the 1st of November.
    start_at(&mut scene, &library, "2026-11-01 05:29:50");
    std::thread::sleep(Duration::from_secs(16));
    assert_eq!(troubles(&scene), Vec::<String>::new(), "the first 01:30 is none");
    scene.site.kill();

    // Ten seconds before the second.
    start_at(&mut scene, &library, "2026-11-01 06:29:50");
    assert_eq!(troubles(&scene), Vec::<String>::new());
    scene.site.condition("feed_silent", wait::SOON);
    assert_eq!(troubles(&scene), ["feed_silent"], "and nothing else");
    hub_says(&scene, "01:30");
    is_written_down(&scene);
    scene.site.kill();
    start_at(&mut scene, &library, "2026-11-01 06:31:00");
    scene.site.condition("feed_silent", wait::SOON);
    export(&scene, &folder, 2);
    wait::wait_until("the arrival ends the silence", wait::SOON, || !is_silent(&scene));
    hub_says(&scene, "condition over");
    export(&scene, &folder, 3);
    expects_next(&scene, "2026-11-02T06:30:00.000Z");
    scene.site.stop();
}

/// 02:30 does not exist: the deadline is at 03:00. The day before, and the export in the last minute before the gap, are on time.
#[test]
fn a_deadline_in_the_gap_is_missed_once_at_its_end() {
    let Some(library) = library() else { return };
    let (mut scene, folder) = scene("by = \"02:30\"");
    start_at(&mut scene, &library, "2027-03-12 16:00:00");
    export(&scene, &folder, 1);
    expects_next(&scene, "2027-03-14T07:00:00.000Z");
    scene.site.stop();

    start_at(&mut scene, &library, "2027-03-14 06:59:50");
    assert_eq!(troubles(&scene), Vec::<String>::new());
    scene.site.condition("feed_silent", wait::SOON);
    assert_eq!(troubles(&scene), ["feed_silent"]);
    hub_says(&scene, "03:00");
    export(&scene, &folder, 2);
    wait::wait_until("the arrival ends the silence", wait::SOON, || !is_silent(&scene));
    export(&scene, &folder, 3);
    expects_next(&scene, "2027-03-16T06:30:00.000Z");
    scene.site.stop();

    // The day after: its deadline at 02:30 EDT was met by the last export.
    start_at(&mut scene, &library, "2027-03-15 06:29:50");
    std::thread::sleep(Duration::from_secs(16));
    assert_eq!(troubles(&scene), Vec::<String>::new());
    assert_eq!(scene.site.feed_status("daily")["expected"]["last_arrival"].as_str().map(str::len), Some(24), "also after a restart");
    scene.site.stop();
}

/// An MLLP feed that brings nothing for longer than `every`; a file with nothing but its header is an arrival and is counted.
#[test]
fn silence_of_a_sender_is_told_and_an_empty_file_is_an_arrival() {
    let mut folder = None;
    let mut scene = Scene::new(mosquitto::Options { persistence: false, packet_bytes_max: 0 }, |configuration| {
        let parent = configuration.spool.parent().expect("the spool lies in the site").join("in");
        let daily = Folder::new(&parent, "daily");
        let section = daily.section(&["split = \"csv\"", "complete = \"rename\""]);
        configuration.feeds[0].mllp.push("[feed.expect]\nevery = \"1m\"\ngrace = \"0s\"".into());
        configuration.sections.push(format!("{section}[feed.expect]\nevery = \"31d\"\n"));
        folder = Some(daily);
    });
    let folder = folder.expect("the configuration was made");
    scene.start();
    assert!(scene.site.wire().exchange(&message::build(1, 1, 400)).expect("an answer").positive());
    folder.put("header.csv", b"id,item,quantity,note\r\n");
    wait::wait_until("the empty file is done", wait::EVENTUALLY, || folder.is_done("header.csv"));
    let status = scene.site.feed_status("daily");
    assert_eq!((&status["files"]["captured"], &status["files"]["empty"], &status["captured"]), (&1.into(), &1.into(), &0.into()));
    wait::wait_until("it is an arrival", wait::SOON, || !scene.site.feed_status("daily")["expected"]["last_arrival"].is_null());
    let shown = String::from_utf8(scene.site.command(&["feeds"]).stdout).expect("text");
    assert!(shown.contains("daily: 1 files captured, 1 empty files") && shown.contains("daily: expected next by"), "{shown}");

    scene.site.condition("feed_silent", wait::EVENTUALLY);
    hub_says(&scene, "or-usage");
    is_written_down(&scene);
    scene.site.kill();
    scene.site.start();
    scene.site.condition("feed_silent", wait::SOON);
    assert!(scene.site.wire().exchange(&message::build(1, 2, 400)).expect("an answer").positive());
    wait::wait_until("the message ends it", wait::SOON, || !is_silent(&scene));
    hub_says(&scene, "condition over");
    scene.site.stop();
}
