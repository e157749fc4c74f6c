//! The wall clock at 1970, ten years ahead and behind, and jumping during a trial: no document is wrongly accepted or refused, no trial wrongly ended.
//!
//! The agent runs under libfaketime, which reads the time from a file each time it is asked and leaves the monotonic clock alone; where it is not
//! installed, the test says that it is skipped.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use harness::net;
use harness::site::Uplink;
use harness::wait;

use super::desk::{Desk, Wish, feed};

fn library() -> Option<PathBuf> {
    let found = PathBuf::from(format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH));
    if !found.exists() {
        println!("rollout: skipped: {} is not here; install the package libfaketime", found.display());
        return None;
    }
    Some(found)
}

impl Desk {
    fn clock(&self) -> PathBuf {
        self.scene.directory.path().join("clock")
    }

    /// In one step, as a broken time source would.
    fn set_clock(&self, time: &str) {
        let fresh = self.clock().with_extension("new");
        std::fs::write(&fresh, time).expect("the clock is written");
        std::fs::rename(fresh, self.clock()).expect("the clock is set");
    }

    fn start_at(&mut self, library: &PathBuf, time: &str) {
        self.set_clock(time);
        let mut command = Command::new(harness::program("siteward"));
        command.arg("run").arg("--config").arg(self.scene.site.config_file());
        command.env("LD_PRELOAD", library).env("TZ", "UTC").env("FAKETIME_TIMESTAMP_FILE", self.clock());
        command.env("FAKETIME_NO_CACHE", "1").env("NO_FAKE_STAT", "1");
        command.env("DONT_FAKE_MONOTONIC", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        self.scene.site.spawn_with(&mut command);
        self.scene.site.listening();
        self.is_connected();
    }
}

const FAR_PAST: &str = "@1970-01-02 00:00:00";
const BEHIND: &str = "-3650d";
const AHEAD: &str = "+3650d";

/// I6, I10: dates are judged by a clock that can be believed, and by nothing else; trials are timed by one that never jumps.
#[test]
fn a_wrong_clock_accepts_nothing_wrong_and_ends_no_trial() {
    let Some(library) = library() else { return };
    let mut desk = Desk::ready(|_| {});
    desk.scene.site.configuration.uplink = Uplink::Plain { port: desk.scene.broker.plain().port() };
    desk.scene.site.write_configuration();
    desk.scene.hub.start();
    let lab = [net::free_port(), net::free_port()];
    let wish = |desk: &Desk, head: &str, port: u16| Wish {
        head: head.to_owned(),
        feeds: format!("{}{}", desk.own(), feed("lab", port, "")),
        ..Wish::default()
    };
    let of_its_time = "not_before = \"2026-01-01T00:00:00Z\"\nexpires = \"2028-01-01T00:00:00Z\"";

    // A clock that cannot be right refuses nothing: a site whose battery is empty can be configured.
    for (revision, time) in [(1, FAR_PAST), (2, BEHIND)] {
        desk.start_at(&library, time);
        desk.apply(&desk.signed(revision, &wish(&desk, of_its_time, lab[0])));
        desk.becomes(revision, "committed");
        assert_eq!(desk.hub_hears(revision, "committed")["clock_suspect"], true);
        desk.scene.site.kill();
    }
    // One that may be right is believed.
    desk.start_at(&library, AHEAD);
    assert_eq!(desk.running(), 2, "what runs is not judged again");
    for (revision, head, code) in [(3, of_its_time, "expired"), (4, "not_before = \"2050-01-01T00:00:00Z\"", "not_yet")] {
        let said = desk.apply(&desk.signed(revision, &wish(&desk, head, lab[0])));
        assert!(said.contains(&format!("refused ({code})")), "{said}");
    }
    // Jumps during a trial that waits for its peer: neither end nor proof.
    desk.send(lab[0], 1);
    desk.apply(&desk.signed(5, &wish(&desk, "expires = \"2050-01-01T00:00:00Z\"", lab[1])));
    desk.becomes(5, "trial");
    for time in [FAR_PAST, "+9125d", BEHIND] {
        desk.set_clock(time);
        std::thread::sleep(Duration::from_millis(1200));
        assert_eq!(desk.tried()["state"], "trial", "at {time}: {}", desk.tried());
    }
    desk.send(lab[1], 1);
    desk.becomes(5, "committed");
    // And a trial that has to end ends, with a clock that goes back.
    desk.apply(&desk.signed(6, &wish(&desk, "", lab[0])));
    desk.becomes(6, "trial");
    desk.set_clock(FAR_PAST);
    assert_eq!(desk.becomes(6, "rolled_back")["code"], "peers_missing");
    desk.hub_hears(6, "rolled_back");
    desk.send(lab[1], 1);
    wait::wait_until("revision 5 runs", wait::SOON, || desk.running() == 5);
    desk.closes();
}
