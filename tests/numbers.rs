//! What the program costs on a box: its size, memory at rest and at work, and the time from its start until it listens, with an empty spool and with a
//! backlog (20,000 records, or with `SITEWARD_LONG=1` two million). `SITEWARD_BIN_DIR` names the directory of the programs that are measured.
//!
//! Memory is asserted, because its bound is a promise (I4). Times are printed.

use std::time::{Duration, Instant};

use harness::link::Weather;
use harness::mosquitto;
use harness::scene::Scene;
use harness::sender::{Crew, Plan};
use harness::wait;

const ROUNDS: usize = 5;
const RESIDENT_KIB_MAX: u64 = 48 * 1024;
const SIZE: fn(usize, u64) -> usize = |_, _| 700;

/// The middle one of some starts, each on the spool as the one before left it.
fn start_to_listening(scene: &mut Scene) -> Duration {
    let mut all: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            if scene.site.running() {
                scene.site.stop();
            }
            let began = Instant::now();
            scene.site.start();
            began.elapsed()
        })
        .collect();
    all.sort();
    all[ROUNDS / 2]
}

fn send(scene: &mut Scene, first_connection: usize, connections: usize, per_connection: u64) -> (f64, u64) {
    let plan = Plan {
        window: 32,
        give_up: Duration::from_mins(5),
        size: SIZE,
        first_connection,
        ..Plan::new(scene.site.addr(), connections, per_connection)
    };
    let (crew, began, mut peak) = (Crew::start(&plan), Instant::now(), 0);
    while !crew.finished() {
        peak = peak.max(scene.site.process().resident_kib());
        std::thread::sleep(Duration::from_millis(20));
    }
    let sent: u64 = crew.finish().iter().map(|told| told.acknowledged.len() as u64).sum();
    assert_eq!(sent, connections as u64 * per_connection, "{}", scene.site.log_tail());
    (sent as f64 / began.elapsed().as_secs_f64(), peak)
}

/// I4: memory is bounded at rest, at work and behind a backlog.
#[test]
fn what_the_program_costs_on_a_box() {
    let mut scene = Scene::new(mosquitto::Options { persistence: false, packet_bytes_max: 0 }, |configuration| {
        configuration.max_bytes = "8GiB".into();
    });
    let bytes = std::fs::metadata(harness::program("siteward")).expect("the program is built").len();
    scene.hub.start();
    let empty = start_to_listening(&mut scene);
    wait::wait_until("the uplink", wait::EVENTUALLY, || scene.site.status()["uplink"]["state"] == "connected");
    std::thread::sleep(Duration::from_secs(3)); // at rest
    let idle = scene.site.process().resident_kib();

    let (flow, at_work) = send(&mut scene, 0, 16, 1_250);
    scene.hub.wait_for_events(20_000);
    wait::wait_until("everything is settled", wait::EVENTUALLY, || scene.site.try_queued() == Some(0));
    scene.link.set(Weather::Down);
    let (connections, per_connection) = if harness::long() { (64, 31_250) } else { (32, 625) };
    let backlog = connections as u64 * per_connection;
    let (rate, filling) = send(&mut scene, 16, connections, per_connection);
    let queued = start_to_listening(&mut scene);
    let behind = scene.site.process().resident_kib();
    assert_eq!(scene.site.status()["feeds"][0]["queued"], backlog);
    scene.site.kill();
    let began = Instant::now();
    scene.site.start();
    let killed = began.elapsed();
    println!(
        "numbers: program {bytes} bytes; resident {idle} KiB at rest, {at_work} KiB at {flow:.0} messages/s through to the hub, {filling} KiB capturing \
         {rate:.0}/s without one, {behind} KiB behind {backlog} records; start to listening {} ms empty, {} ms with {backlog} queued, {} ms after a kill",
        empty.as_millis(),
        queued.as_millis(),
        killed.as_millis(),
    );
    assert!(idle.max(at_work).max(filling).max(behind) < RESIDENT_KIB_MAX);
}
