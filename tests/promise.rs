//! The promise end to end: a real Mosquitto without persistence, mutual TLS, strict senders, and everything that can be killed is killed.
//!
//! Faults are spread over the run by progress (acknowledged plus received), never by time, so that a slow machine meets the same number of
//! them in the same places as a fast one. `SITEWARD_LONG=1` runs the full version.

use std::time::{Duration, Instant};

use harness::message::mixed_size;
use harness::mosquitto;
use harness::scene::Scene;
use harness::sender::{Crew, Plan, Told};
use harness::wait;

/// One run in numbers.
#[derive(Clone, Copy, Debug)]
struct Run {
    connections: usize,
    per_connection: u64,
    agent_kills: u64,
    broker_kills: u64,
    hub_kills: u64,
    cuts: u64,
}

const QUICK: Run = Run { connections: 16, per_connection: 125, agent_kills: 5, broker_kills: 3, hub_kills: 2, cuts: 5 };
const FULL: Run = Run { connections: 16, per_connection: 1250, agent_kills: 20, broker_kills: 10, hub_kills: 5, cuts: 20 };

impl Run {
    fn messages(self) -> u64 {
        self.connections as u64 * self.per_connection
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillAgent,
    KillBroker,
    KillHub,
    CutLink,
}

/// When which fault happens, by progress from 0 to twice the messages. Each kind is spread evenly, a little apart from the others.
fn schedule(run: Run) -> Vec<(u64, Fault)> {
    let kinds = [
        (Fault::KillAgent, run.agent_kills, 3),
        (Fault::KillBroker, run.broker_kills, 5),
        (Fault::KillHub, run.hub_kills, 7),
        (Fault::CutLink, run.cuts, 9),
    ];
    let span = run.messages() * 2 * 95 / 100;
    let mut faults = Vec::new();
    for (fault, count, tenths) in kinds {
        faults.extend((0..count).map(|i| (span * (i * 10 + tenths) / (count * 10), fault)));
    }
    faults.sort_unstable();
    faults
}

fn strike(scene: &mut Scene, fault: Fault) {
    match fault {
        Fault::KillAgent => {
            assert!(scene.site.running(), "the agent ended by itself; its log ends with:\n{}", scene.site.log_tail());
            scene.site.kill();
            scene.site.spawn();
        }
        Fault::KillBroker => {
            scene.broker.kill();
            std::thread::sleep(Duration::from_millis(100));
            scene.broker.restart();
        }
        Fault::KillHub => {
            assert!(scene.hub.running(), "the hub ended by itself; its log ends with:\n{}", scene.hub.log_tail());
            scene.hub.kill();
            scene.hub.start();
        }
        Fault::CutLink => scene.link.cut(),
    }
}

/// I1, I2, I3, I8: whatever was acknowledged is at the hub exactly once, per connection in order, byte for byte, with the chain the bodies give,
/// and nothing is reported missing, damaged or forked, though the broker forgets everything each time it is killed.
#[test]
fn nothing_acknowledged_is_lost_through_kills_and_cuts() {
    let run = if harness::long() { FULL } else { QUICK };
    let mut scene = Scene::new(mosquitto::Options { persistence: false, packet_bytes_max: 0 }, |configuration| {
        configuration.uplink_lines.push("receipt_timeout = \"10s\"".into());
    });
    scene.start();
    let began = Instant::now();
    let plan = Plan {
        size: mixed_size,
        pause: Duration::from_millis(2),
        give_up: Duration::from_mins(10),
        ..Plan::new(scene.site.addr(), run.connections, run.per_connection)
    };
    let crew = Crew::start(&plan);
    for (at, fault) in schedule(run) {
        let what = format!("progress towards {fault:?}; site log {}", scene.site.log_file().display());
        wait::wait_while_growing(&what, Duration::from_mins(5), || crew.acknowledged() + scene.hub.events(), at);
        strike(&mut scene, fault);
    }
    let told = crew.finish();
    let acknowledged: u64 = told.iter().map(|t| t.acknowledged.len() as u64).sum();
    assert_eq!(acknowledged, run.messages(), "every sender got through: {}", shortfall(&told, run));
    scene.hub.wait_for_events(run.messages());
    wait::wait_until("everything is settled", wait::EVENTUALLY, || scene.site.try_queued() == Some(0));
    scene.site.stop();
    scene.hub.stop();

    let audit = scene.hub.audit();
    let broken = audit.broken_promises(&told, mixed_size);
    let shown = broken.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    println!(
        "promise: {} messages over {} connections through {} agent kills, {} broker kills (no persistence), {} receiver kills, {} cuts in {} s: \
         acknowledged {acknowledged}, received {}, sent again by senders {}, incarnations {}, broken promises {}",
        run.messages(),
        run.connections,
        run.agent_kills,
        run.broker_kills,
        run.hub_kills,
        run.cuts,
        began.elapsed().as_secs(),
        audit.events(),
        told.iter().map(|t| t.resends).sum::<u64>(),
        audit.incarnations().len(),
        broken.len(),
    );
    assert!(broken.is_empty(), "{} broken promises:\n{shown}", broken.len());
    assert_eq!(audit.events(), run.messages());
}

fn shortfall(told: &[Told], run: Run) -> String {
    let short = told.iter().filter(|t| (t.acknowledged.len() as u64) < run.per_connection);
    let lines = short.map(|t| format!("C{:02}: {} of {} {:?}", t.connection, t.acknowledged.len(), run.per_connection, t.faults));
    lines.collect::<Vec<_>>().join("; ")
}

/// I3: two feeds in two lanes have each their own sequence, complete and in order.
#[test]
fn two_feeds_are_two_histories() {
    let mut scene = Scene::new(mosquitto::Options::default(), |configuration| {
        configuration.feeds.push(harness::site::Feed::new("cabinet-export", "bulk"));
    });
    scene.start();
    let feeds = scene.site.configuration.feeds.clone();
    let crews: Vec<Crew> = feeds
        .iter()
        .enumerate()
        .map(|(i, feed)| Crew::start(&Plan { first_connection: i * 10, size: mixed_size, ..Plan::new(feed.addr(), 3, 60) }))
        .collect();
    let told: Vec<Told> = crews.into_iter().flat_map(Crew::finish).collect();
    scene.hub.wait_for_events(360);
    scene.site.stop();
    scene.hub.stop();
    let audit = scene.hub.audit();
    assert_eq!(audit.broken_promises(&told, mixed_size), Vec::<String>::new());
    assert_eq!(audit.feeds.len(), 2);
    assert!(audit.feeds.values().all(|rows| rows.len() == 180));
}

/// I8: a message sent again (the answer was lost with the connection) is answered again and stored once.
#[test]
fn a_message_sent_again_is_answered_again_and_stored_once() {
    let mut scene = Scene::new(mosquitto::Options::default(), |_| {});
    scene.start();
    let message = harness::message::build(1, 1, 700);
    for _ in 0..3 {
        let reply = scene.site.wire().exchange(&message).expect("an answer");
        assert_eq!((reply.code.as_str(), reply.control_id.as_slice()), ("AA", &b"C01S000001"[..]));
    }
    scene.site.kill();
    scene.site.start();
    assert!(scene.site.wire().exchange(&message).expect("an answer").positive());
    assert!(scene.site.wire().exchange(&harness::message::build(1, 2, 700)).expect("an answer").positive());
    scene.hub.wait_for_events(2);
    wait::wait_until("everything is settled", wait::SOON, || scene.site.try_queued() == Some(0));
    scene.site.stop();
    scene.hub.stop();
    let told = [Told { connection: 1, acknowledged: vec![1, 2], ..Told::default() }];
    let audit = scene.hub.audit();
    assert_eq!(audit.broken_promises(&told, |_, _| 700), Vec::<String>::new());
    assert_eq!(audit.events(), 2);
}
