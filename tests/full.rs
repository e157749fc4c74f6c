//! Disks that are full or cannot be written, and two agents that want the same spool.

use std::path::Path;
use std::time::Duration;

use harness::link::{Link, Weather};
use harness::message;
use harness::mosquitto;
use harness::scene::{Directory, Scene};
use harness::sender::{Told, Wire};
use harness::site::{Configuration, Feed, Site};
use harness::volume::Volume;
use harness::wait;

const SIZE: fn(usize, u64) -> usize = |_, _| 40_000;

/// Sends on one connection until there is no positive answer any more; the numbers that were acknowledged, and how it ended.
fn fill(site: &Site, from: u64) -> (Vec<u64>, std::io::Result<harness::sender::Reply>, Wire) {
    let mut wire = site.wire();
    let mut acknowledged = Vec::new();
    for number in from..from + 20_000 {
        match wire.exchange(&message::build(1, number, SIZE(1, number))) {
            Ok(reply) if reply.positive() => acknowledged.push(number),
            ended => return (acknowledged, ended, wire),
        }
    }
    panic!("20,000 messages of 40 KB and the spool is still not full");
}

/// Sends one message until it is acknowledged; a refusal is a closed connection or a refused one.
fn insist(site: &Site, number: u64) {
    wait::wait_until("capture goes on", wait::EVENTUALLY, || {
        let reply = Wire::connect(site.addr(), wait::SOON).and_then(|mut w| w.exchange(&message::build(1, number, SIZE(1, number))));
        reply.is_ok_and(|r| r.positive())
    });
}

/// Fills the spool with the WAN down, restarts the full box, drains it, captures again, and holds the hub to every answer.
fn full_and_empty_again(scene: &mut Scene) {
    scene.link.set(Weather::Down);
    scene.start();
    let (mut acknowledged, ended, _) = fill(&scene.site, 1);
    let kind = ended.expect_err("the connection is closed, without a negative answer").kind();
    assert!(
        matches!(kind, std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe),
        "{kind}"
    );
    assert!(acknowledged.len() > 50, "only {} messages fitted", acknowledged.len());
    let raised = |s: &Site| s.conditions().iter().any(|c| c == "spool_full" || c == "spool_write_failed");
    wait::wait_until("a condition about the full spool", wait::SOON, || raised(&scene.site));

    scene.site.kill();
    scene.site.spawn();
    wait::wait_until("a full box opens and reports", wait::EVENTUALLY, || scene.site.try_queued() == Some(acknowledged.len() as u64));

    scene.link.set(Weather::Fair);
    scene.hub.wait_for_events(acknowledged.len() as u64);
    let next = acknowledged.len() as u64 + 1;
    insist(&scene.site, next);
    acknowledged.push(next);
    scene.hub.wait_for_events(next);
    wait::wait_until("the condition ends", wait::EVENTUALLY, || !raised(&scene.site));
    wait::wait_until("everything is settled", wait::EVENTUALLY, || scene.site.try_queued() == Some(0));
    scene.site.stop();
    scene.hub.stop();
    let told = [Told { connection: 1, acknowledged, ..Told::default() }];
    assert_eq!(scene.hub.audit().broken_promises(&told, SIZE), Vec::<String>::new());
}

/// I1, I5: at the quota positive answers stop, the connection is closed without a word, a full box still opens, reports and drains, and then
/// captures again.
#[test]
fn a_full_spool_stops_answering_and_starts_again_when_it_has_drained() {
    let mut scene = Scene::new(mosquitto::Options::default(), |c| c.max_bytes = "16MiB".into());
    full_and_empty_again(&mut scene);
}

/// I1, I5: the same where the disk is full before the quota is.
#[test]
fn a_full_disk_stops_answers_and_a_full_box_opens_and_drains() {
    let directory = Directory::new();
    let Some(volume) = Volume::mount(&directory.path().join("volume"), 40) else {
        println!("skipped: mounting a small volume needs root");
        return;
    };
    let spool = volume.path().join("spool");
    let mut scene = Scene::new(mosquitto::Options::default(), |c| {
        c.spool = spool;
        c.max_bytes = "64MiB".into();
    });
    full_and_empty_again(&mut scene);
    drop(scene);
    drop(volume);
}

/// I5: where a site asks for it, a full spool is said in words, and the connection stays.
#[test]
fn a_full_spool_is_answered_negatively_where_the_feed_asks_for_it() {
    let directory = Directory::new();
    let mut configuration = Configuration::new(directory.path());
    configuration.max_bytes = "16MiB".into();
    configuration.feeds[0].mllp.push("on_store_failure = \"nak\"".into());
    let mut site = Site::new(directory.path(), configuration);
    site.start();
    let (acknowledged, ended, mut wire) = fill(&site, 1);
    let reply = ended.expect("a negative answer");
    assert_eq!(reply.code, "AR");
    assert_eq!(reply.control_id, message::control_id(1, acknowledged.len() as u64 + 1).into_bytes());
    let again = wire.exchange(&message::build(1, 30_000, SIZE(1, 1))).expect("an answer on the same connection");
    assert!(!again.positive());
    site.stop();
}

/// I1: without a spool nothing is captured, and the reason is said with the path.
#[test]
fn a_spool_that_cannot_be_written_is_refused_by_name() {
    let directory = Directory::new();
    let Some(volume) = Volume::mount(&directory.path().join("volume"), 8) else {
        println!("skipped: mounting a small volume needs root");
        return;
    };
    volume.make_read_only();
    let mut configuration = Configuration::new(directory.path());
    configuration.spool = volume.path().join("spool");
    configuration.max_bytes = "16MiB".into();
    refused(&mut Site::new(directory.path(), configuration), &volume.path().join("spool"));
    drop(volume);
}

fn refused(site: &mut Site, path: &Path) {
    site.spawn();
    let status = site.process().ended(Duration::from_secs(60));
    assert!(status.code().is_some_and(|c| c != 0), "{status}");
    let log = site.log();
    assert!(log.contains(&path.display().to_string()), "the log does not name {}:\n{log}", path.display());
}

/// I8: one spool, one agent; the second is told, and the first does not notice.
#[test]
fn a_second_agent_on_the_same_spool_is_refused_and_the_first_goes_on() {
    let directory = Directory::new();
    let configuration = Configuration::new(directory.path());
    let mut first = Site::new(&directory.path().join("first"), configuration.clone());
    first.start();
    let mut second =
        Site::new(&directory.path().join("second"), Configuration { feeds: vec![Feed::new("or-usage", "critical")], ..configuration });
    let spool = second.configuration.spool.clone();
    refused(&mut second, &spool);
    let said = second.log().to_lowercase();
    assert!(said.contains("another") || said.contains("in use") || said.contains("lock"), "{said}");
    assert!(first.wire().exchange(&message::build(1, 1, 700)).expect("an answer").positive());
    assert_eq!(first.status()["feeds"][0]["last_seq"], 1, "the control socket is still the first agent's");
}

/// I8: after a kill the spool is free at once for the next start.
#[test]
fn a_killed_agent_leaves_no_lock_behind() {
    let directory = Directory::new();
    let mut site = Site::new(directory.path(), Configuration::new(directory.path()));
    for number in 1..=5 {
        site.start();
        assert!(site.wire().exchange(&message::build(1, number, 700)).expect("an answer").positive());
        site.kill();
    }
    site.start();
    assert_eq!(site.feed_status("or-usage")["last_seq"], 5);
    assert_eq!(site.feed_status("or-usage")["queued"], 5);
}

/// I9: the keyed state is set aside when it is damaged; the agent starts, and what is in the journal is delivered.
#[test]
fn a_damaged_state_directory_costs_duplicates_at_most() {
    let mut scene = Scene::new(mosquitto::Options::default(), |_| {});
    scene.link.set(Weather::Down);
    scene.start();
    let mut wire = scene.site.wire();
    for number in 1..=100 {
        assert!(wire.exchange(&message::build(1, number, 700)).expect("an answer").positive());
    }
    scene.site.kill();
    garble(&scene.site.configuration.spool.join("state"));
    scene.site.start();
    let mut wire = scene.site.wire();
    for number in 101..=120 {
        assert!(wire.exchange(&message::build(1, number, 700)).expect("an answer").positive());
    }
    scene.link.set(Weather::Fair);
    scene.hub.wait_for_events(120);
    wait::wait_until("everything is settled", wait::EVENTUALLY, || scene.site.try_queued() == Some(0));
    scene.site.stop();
    scene.hub.stop();
    let told = [Told { connection: 1, acknowledged: (1..=120).collect(), ..Told::default() }];
    assert_eq!(scene.hub.audit().broken_promises(&told, |_, _| 700), Vec::<String>::new());
}

/// Overwrites the middle of every file.
fn garble(directory: &Path) {
    let mut garbled = 0;
    for entry in std::fs::read_dir(directory).expect("the state directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            continue;
        }
        let mut bytes = std::fs::read(&path).expect("a state file");
        let (from, to) = (bytes.len() / 4, bytes.len() * 3 / 4);
        bytes[from..to].fill(0xA5);
        std::fs::write(&path, bytes).expect("a state file");
        garbled += 1;
    }
    assert!(garbled > 0, "{} holds no files", directory.display());
}

/// I8: a spool put back from an older image never gives its identities to other messages: the hub gets both histories, and says where they part.
#[test]
fn a_spool_restored_from_an_older_image_is_a_fork_and_loses_nothing_new() {
    let mut scene = Scene::new(mosquitto::Options::default(), |_| {});
    scene.start();
    let mut wire = scene.site.wire();
    let send = |wire: &mut Wire, numbers: std::ops::RangeInclusive<u64>| {
        for number in numbers {
            assert!(wire.exchange(&message::build(1, number, 700)).expect("an answer").positive());
        }
    };
    send(&mut wire, 1..=20);
    scene.hub.wait_for_events(20);
    scene.site.stop();
    let spool = scene.site.configuration.spool.clone();
    let image = scene.directory.path().join("image");
    copy(&spool, &image);

    scene.site.start();
    let mut wire = scene.site.wire();
    send(&mut wire, 21..=30);
    scene.hub.wait_for_events(30);
    wait::wait_until("everything is settled", wait::EVENTUALLY, || scene.site.try_queued() == Some(0));
    scene.site.stop();
    std::fs::remove_dir_all(&spool).expect("the spool is removed");
    copy(&image, &spool);

    scene.site.start();
    let mut wire = scene.site.wire();
    send(&mut wire, 31..=40);
    scene.hub.wait_for_events(40);
    wait::wait_until("everything is settled", wait::EVENTUALLY, || scene.site.try_queued() == Some(0));
    scene.site.stop();
    scene.hub.stop();
    let audit = scene.hub.audit();
    let mut numbers: Vec<u64> = audit.feeds.values().flatten().map(|r| r.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=40).collect::<Vec<_>>(), "every message of both histories is at the hub exactly once");
    assert!(!audit.of_kind("fork").is_empty(), "the fork is reported: {:?}", audit.complaints());
}

/// Copies a directory tree (no sockets).
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory").flatten() {
        let kind = entry.file_type().expect("a file type");
        let target = to.join(entry.file_name());
        if kind.is_dir() {
            copy(&entry.path(), &target);
        } else if kind.is_file() {
            std::fs::copy(entry.path(), target).expect("a file is copied");
        }
    }
}

/// A link to nobody is still a link: connections are accepted and end.
#[test]
fn an_uplink_that_accepts_and_says_nothing_is_no_reason_to_stop_capture() {
    let directory = Directory::new();
    let silent = std::net::TcpListener::bind(harness::net::loopback(0)).expect("a port");
    let link = Link::start(silent.local_addr().expect("an address"));
    let mut configuration = Configuration::new(directory.path());
    configuration.uplink = harness::site::Uplink::Plain { port: link.port() };
    let mut site = Site::new(directory.path(), configuration);
    site.start();
    wait::wait_until("an attempt", wait::EVENTUALLY, || link.connections() > 0);
    assert!(site.wire().exchange(&message::build(1, 1, 700)).expect("an answer").positive());
    site.stop();
}
