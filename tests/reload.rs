//! Feeds that change while messages flow: the local file is edited, the agent gets SIGHUP.
//!
//! What a feed's senders see: nothing where the feed did not change; a connection that ends between two messages where it did; never a refused
//! connection where the address stayed. What the hub sees: every acknowledged message once, in order, also of feeds that are gone. Kills come at the
//! worst moments. `SITEWARD_LONG=1` takes more rounds.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use harness::gateway::Gateway;
use harness::link::Weather;
use harness::message;
use harness::mosquitto;
use harness::scene::Scene;
use harness::sender::{Crew, Plan, Told, send_one};
use harness::site::Feed;
use harness::{net, wait};

const SIZE: fn(usize, u64) -> usize = |_, _| 700;
const ENDLESS: u64 = 1_000_000;

fn crew(feed: &Feed, first_connection: usize) -> Crew {
    let plan = Plan { first_connection, pause: Duration::from_millis(2), size: SIZE, ..Plan::new(feed.addr(), 2, ENDLESS) };
    Crew::start(&plan)
}

fn goes_on(crew: &Crew) {
    let enough = crew.acknowledged() + 20;
    wait::wait_while_growing("acknowledged", wait::SOON, || crew.acknowledged(), enough);
}

fn audited(scene: &mut Scene, told: &[Told]) {
    let acknowledged: u64 = told.iter().map(|t| t.acknowledged.len() as u64).sum();
    wait::wait_until("everything is at the hub", wait::EVENTUALLY, || scene.hub.events() >= acknowledged);
    wait::wait_until("everything is settled", wait::EVENTUALLY, || scene.site.try_queued() == Some(0));
    scene.site.stop();
    let broken = scene.hub.audit().broken_promises(told, SIZE);
    assert!(broken.is_empty(), "{broken:?}");
}

/// I1, I3, I6: feeds come, change, move and go under traffic; the one that is not touched keeps its connections, and a feed that is gone drains, also
/// through kills.
#[test]
fn feeds_come_change_and_go_while_messages_flow() {
    let mut scene = Scene::new(mosquitto::Options { persistence: false, packet_bytes_max: 0 }, |configuration| {
        configuration.feeds.push(Feed::new("lab", "normal"));
        configuration.feeds.push(Feed::new("icu", "bulk"));
    });
    scene.start();
    let [steady, lab, icu] = [0, 1, 2].map(|n| crew(&scene.site.configuration.feeds[n], n * 10));
    [&steady, &lab, &icu].into_iter().for_each(goes_on);

    // one comes, one changes its settings and its lane, one changes its port
    scene.site.configuration.feeds.push(Feed::new("pharmacy", "critical"));
    scene.site.configuration.feeds[1].mllp = vec!["connections_max = 100".into()];
    scene.site.configuration.feeds[1].lane = "critical";
    let icu_before = scene.site.configuration.feeds[2].addr();
    scene.site.configuration.feeds[2].port = net::free_port();
    let said = scene.site.reload();
    assert!(said.contains("as the file says"), "{said}");
    let mut told = icu.stop();
    assert!(TcpStream::connect(icu_before).is_err(), "nobody is at the old port");
    let pharmacy = crew(&scene.site.configuration.feeds[3], 30);
    let icu = crew(&scene.site.configuration.feeds[2], 40);
    [&steady, &lab, &icu, &pharmacy].into_iter().for_each(goes_on);
    assert_eq!(scene.site.feed_status("lab")["lane"], "critical");

    // one goes while the WAN is down, with everything of it unconfirmed
    scene.link.set(Weather::Down);
    [&steady, &icu].into_iter().for_each(goes_on);
    told.extend(icu.stop());
    let icu_feed = scene.site.configuration.feeds.remove(2);
    scene.site.reload();
    assert!(TcpStream::connect(icu_feed.addr()).is_err());
    scene.site.condition("feed_retired", wait::SOON);
    assert_eq!(scene.site.feed_status("icu")["retired"], true);
    let untouched = steady.stop();
    assert_eq!(untouched.iter().map(|t| t.reconnects).sum::<u64>(), 0, "the feed that is not touched keeps its connections");
    told.extend(untouched);

    // it comes back in another lane and goes on; killed at once, and in the middle of a change
    scene.site.configuration.feeds.push(Feed { lane: "normal", ..icu_feed });
    scene.site.reload();
    let icu = crew(&scene.site.configuration.feeds[3], 50);
    goes_on(&icu);
    for round in 0..if harness::long() { 20 } else { 4 } {
        scene.site.configuration.feeds[1].lane = if round % 2 == 0 { "bulk" } else { "normal" };
        scene.site.configuration.feeds[3].mllp = vec![format!("connections_max = {}", 50 + round)];
        scene.site.write_configuration();
        scene.site.process().hang_up();
        std::thread::sleep(Duration::from_millis(30 * round));
        scene.site.kill();
        scene.site.start();
        [&lab, &icu, &pharmacy].into_iter().for_each(goes_on);
    }
    scene.link.set(Weather::Fair);
    for crew in [lab, icu, pharmacy] {
        goes_on(&crew);
        told.extend(crew.stop());
    }
    audited(&mut scene, &told);
}

/// Whoever connects while a feed with this address changes, or while it is given to another feed, waits a moment and is served.
#[test]
fn no_connection_is_refused_while_a_feed_changes() {
    let mut gateway = Gateway::start(|_| {});
    let addr = gateway.site.addr();
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&served));
    let knocking = std::thread::spawn(move || {
        let mut refused = Vec::new();
        while !stopped.load(Ordering::Relaxed) {
            match TcpStream::connect(addr) {
                Ok(_) => drop(counted.fetch_add(1, Ordering::Relaxed)),
                Err(error) => refused.push(error.to_string()),
            }
            // Faster than the agent lets go of them they would be more than it takes, and push out others.
            std::thread::sleep(Duration::from_micros(500));
        }
        refused
    });
    for round in 0..if harness::long() { 100 } else { 8 } {
        gateway.site.configuration.feeds[0].mllp = vec![format!("connections_max = {}", 2000 + round)];
        if round % 3 == 2 {
            gateway.site.configuration.feeds[0].id = format!("or-usage-{round}");
        }
        let said = gateway.site.reload();
        assert!(said.contains("as the file says"), "{said}");
        gateway.serves_others();
    }
    stop.store(true, Ordering::Relaxed);
    assert_eq!(knocking.join().expect("it does not panic"), Vec::<String>::new());
    assert!(served.load(Ordering::Relaxed) > 8);
}

/// A listener goes from one address of the machine to all of them and back: they cannot both be open, so the old one is let go first.
#[test]
fn an_overlapping_address_is_taken_over() {
    let mut gateway = Gateway::start(|_| {});
    let crew = crew(&gateway.site.configuration.feeds[0], 0);
    for host in ["0.0.0.0", "127.0.0.1", "0.0.0.0"] {
        goes_on(&crew);
        gateway.site.configuration.feeds[0].host = host;
        let said = gateway.site.reload();
        assert!(said.contains("as the file says"), "{said}");
    }
    goes_on(&crew);
    let told = crew.stop();
    assert!(told.iter().all(|t| t.faults.is_empty()), "{told:?}");
    let captured = gateway.site.feed_status("or-usage")["captured"].as_u64().expect("a count");
    assert_eq!(captured, told.iter().map(|t| t.acknowledged.len() as u64).sum::<u64>());
}

/// I6: a file with a fault anywhere changes nothing; a port that is taken leaves its feed as it was and the others follow.
#[test]
fn a_bad_file_changes_nothing_and_a_bad_port_one_feed() {
    let mut gateway = Gateway::start(|_| {});
    let mut wire = gateway.site.wire();
    let good = gateway.site.configuration.clone();
    let other = Feed::new("lab", "normal");
    gateway.site.configuration.feeds.push(other.clone());
    gateway.site.configuration.feeds[0].port = net::free_port();
    gateway.site.configuration.sections.push("\n[[feed]]\nid = \"broken\"\nlane = \"sideways\"\n".into());
    let said = gateway.site.reload();
    assert!(said.contains("sideways") || said.contains("lane"), "{said}");
    assert!(said.contains("nothing was changed"), "{said}");
    assert!(!net::listening(other.addr()));
    assert!(wire.exchange(&message::build(1, 1, 700)).expect("an answer").positive(), "the same connection");

    let stranger = std::net::TcpListener::bind(net::loopback(0)).expect("a port for somebody else");
    gateway.site.configuration.sections.clear();
    gateway.site.configuration.feeds[0].port = stranger.local_addr().expect("an address").port();
    let said = gateway.site.reload();
    assert!(said.contains("feed `or-usage`") && said.contains("goes on as it was"), "{said}");
    gateway.site.condition("listener_down", wait::SOON);
    assert!(wire.exchange(&message::build(1, 2, 700)).expect("an answer").positive(), "the same connection");
    assert!(send_one(other.addr(), &message::build(2, 1, 700), wait::SOON).expect("an answer").positive(), "the other feed came");

    gateway.site.configuration = good;
    gateway.site.reload();
    assert!(!gateway.site.conditions().contains(&"listener_down".to_owned()));
    assert!(wire.exchange(&message::build(1, 3, 700)).expect("an answer").positive(), "the same connection");
    assert_eq!(gateway.site.feed_status("or-usage")["captured"], 3);
}
