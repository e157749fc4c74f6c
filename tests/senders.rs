//! Senders that behave badly, many at a time, beside one that behaves well: memory stays within its bound, the good one notices nothing, and
//! nothing that was acknowledged is lost.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use harness::gateway::Gateway;
use harness::link::{Link, Weather};
use harness::message;
use harness::mosquitto;
use harness::scene::Scene;
use harness::sender::{self, Crew, Plan, Told, Wire};
use harness::wait;
use rustix::net::sockopt;

/// What the good sender sends, and the connection numbers of the bad ones.
const GOOD: usize = 20;
const BAD: usize = 100;

/// What one connection may hold of a frame, and what it may have read behind it (limits.rs), in KiB.
const CONNECTION_KIB: u64 = 64 + 16;
/// What everything else may add while under attack: tasks, the committer's queue and its two flushes of 4 MiB, the dedupe window, logs. A busy machine
/// fills all of it, since flushes grow with what waits.
const SLACK_KIB: u64 = 24 * 1024;

/// Room for some thousand descriptors, here and in what is started from here.
fn many_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum.map(|m| m.min(20_000)).or(Some(20_000)), maximum: limit.maximum };
    setrlimit(Resource::Nofile, wanted).expect("the soft limit may rise to the hard one");
}

/// A sender as it should be, at work beside whatever the test does.
fn good_crew(addr: SocketAddr, each: u64) -> Crew {
    Crew::start(&Plan { first_connection: GOOD, pause: Duration::from_millis(2), ..Plan::new(addr, 2, each) })
}

/// It got an answer to everything and had to repeat nothing.
fn was_not_disturbed(told: &[Told], each: u64) {
    for t in told {
        assert_eq!(t.acknowledged, (1..=each).collect::<Vec<_>>(), "connection {}: {:?}", t.connection, t.faults);
        assert_eq!((t.reconnects, t.resends, t.faults.len()), (0, 0, 0), "connection {}: {:?}", t.connection, t.faults);
    }
}

/// Closes with a reset in place of an end.
fn reset(wire: Wire) {
    sockopt::set_socket_linger(wire.stream(), Some(Duration::ZERO)).expect("a socket option");
    drop(wire);
}

/// I4: 500 connections that each hold most of their allowance and go on byte by byte.
#[test]
fn slow_loris_on_500_connections_is_bounded_and_disturbs_nobody() {
    many_descriptors();
    let gateway = &mut Gateway::start(|c| c.feeds[0].mllp.push("frame_timeout = \"4s\"".into()));
    gateway.serves_others();
    let before = gateway.site.process().resident_kib();
    let crew = good_crew(gateway.site.addr(), 300);
    let begun = sender::frame(&message::build(BAD, 1, 100_000))[..60_000].to_vec();
    let mut slow: Vec<Wire> = (0..500).map(|_| gateway.site.wire()).collect();
    for wire in &mut slow {
        wire.send_raw(&begun).expect("the frame begins");
    }
    // byte by byte until every one of them has been given up
    let all_given_up = wait::try_until(wait::EVENTUALLY, || {
        slow.retain_mut(|wire| wire.send_raw(b"x").is_ok());
        slow.is_empty()
    });
    assert!(all_given_up, "{} of 500 still go on; the log ends with:\n{}", slow.len(), gateway.site.log_tail());
    was_not_disturbed(&crew.finish(), 300);
    let peak = gateway.site.process().resident_peak_kib();
    assert!(peak < before + 500 * CONNECTION_KIB + SLACK_KIB, "resident {peak} KiB at most, {before} before");
    assert_eq!(gateway.site.feed_status("or-usage")["captured"].as_u64(), Some(601), "nothing of half a frame was taken for a message");
    gateway.site.condition("frame_unusable", wait::SOON);
    gateway.keeps_quiet();
}

/// I4: answers that nobody takes do not pile up in memory and hold up nobody else.
#[test]
fn peers_that_never_read_their_answers_harm_nobody_else() {
    let gateway = &mut Gateway::start(|_| {});
    gateway.serves_others();
    let before = gateway.site.process().resident_kib();
    let crew = good_crew(gateway.site.addr(), 300);
    let addr = gateway.site.addr();
    let deaf: Vec<JoinHandle<u64>> = (0..8)
        .map(|n| {
            std::thread::spawn(move || {
                let mut wire = Wire::connect(addr, Duration::from_secs(2)).expect("a connection");
                sockopt::set_socket_recv_buffer_size(wire.stream(), 4096).expect("a socket option");
                let mut sent = 0;
                while sent < 50_000 && wire.send(&message::build(BAD + n, sent + 1, 300)).is_ok() {
                    sent += 1;
                }
                sent
            })
        })
        .collect();
    let sent: u64 = deaf.into_iter().map(|t| t.join().expect("a thread")).sum();
    was_not_disturbed(&crew.finish(), 300);
    gateway.serves_others();
    let peak = gateway.site.process().resident_peak_kib();
    assert!(peak < before + 8 * CONNECTION_KIB + SLACK_KIB, "resident {peak} KiB at most, {before} before");
    let captured = gateway.site.feed_status("or-usage")["captured"].as_u64().expect("a count");
    assert!((601..=601 + sent).contains(&captured), "{captured} captured, {sent} sent by the deaf");
}

/// Workers of the storm.
const WORKERS: usize = 6;

/// One bad habit after the other, until told to stop; each on a connection, and under a connection number, of its own.
fn habits(addr: SocketAddr, worker: usize, stop: &AtomicBool, connects: &AtomicU64) {
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let Ok(mut wire) = Wire::connect(addr, Duration::from_secs(5)) else { continue };
        connects.fetch_add(1, Ordering::Relaxed);
        let whole = sender::frame(&message::build(BAD + worker + n * WORKERS, 1, 2_000));
        // an error means that the agent was faster, which is as good
        let _ = match n % 6 {
            0 => wire.send_raw(&whole[..1_000]).map(|()| reset(wire)),
            1 => wire.send_raw(&whole).map(|()| reset(wire)),
            2 => wire.send_raw(&whole[..1_999]).map(|()| drop(wire)),
            3 => wire.send_raw(b"\x16\x03\x01\x02\x00\x01").map(|()| drop(wire)),
            4 => wire.send_raw(b"\x0B\x0B\x1C\x1C\x0B").map(|()| reset(wire)),
            _ => wire.send_raw(&whole).and_then(|()| wire.reply()).map(|_| reset(wire)),
        };
    }
}

/// I1, I3, I4: thousands of connections in a few seconds, cut, reset and abandoned in every place, and the hub gets what was acknowledged,
/// once and in order.
#[test]
fn reconnect_storms_and_resets_lose_nothing_that_was_acknowledged() {
    many_descriptors();
    let enough = if harness::long() { 50_000 } else { 5_000 };
    let mut scene = Scene::new(mosquitto::Options::default(), |_| {});
    scene.start();
    let addr = scene.site.addr();
    assert!(scene.site.wire().exchange(&message::build(1, 1, 700)).expect("an answer").positive());
    let before = scene.site.process().resident_kib();
    let crew = good_crew(addr, 400);
    let (stop, connects) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (stop, connects) = (stop.clone(), connects.clone());
            std::thread::spawn(move || habits(addr, worker, &stop, &connects))
        })
        .collect();
    wait::wait_while_growing("connections", wait::SOON, || connects.load(Ordering::Relaxed), enough);
    let told = crew.finish();
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.join().expect("a thread");
    }
    was_not_disturbed(&told, 400);
    let peak = scene.site.process().resident_peak_kib();
    assert!(peak < before + 64 * CONNECTION_KIB + 2 * SLACK_KIB, "resident {peak} KiB at most, {before} before");
    wait::wait_until("the connections are gone", wait::SOON, || established(addr.port()) == 0);
    let captured = scene.site.feed_status("or-usage")["captured"].as_u64().expect("a count");
    scene.hub.wait_for_events(captured);
    wait::wait_until("everything is settled", wait::EVENTUALLY, || scene.site.try_queued() == Some(0));
    scene.site.stop();
    scene.hub.stop();
    let audit = scene.hub.audit();
    let size = |connection: usize, _: u64| if connection >= BAD { 2_000 } else { 700 };
    assert_eq!(audit.broken_promises(&told, size), Vec::<String>::new());
    assert_eq!(audit.events(), captured);
}

/// Established connections to a local port, as the kernel sees them; also those that nobody has accepted yet.
fn established(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table of connections");
    let local = format!(":{port:04X}");
    table.lines().filter(|l| l.split_whitespace().nth(1).is_some_and(|a| a.ends_with(&local)) && l.contains(" 01 ")).count()
}

/// I4: peers whose power failed occupy every seat and say nothing ever again; a newcomer gets a seat all the same, and what they had begun is
/// not taken for a message.
#[test]
fn half_open_connections_do_not_lock_newcomers_out() {
    let gateway = Gateway::start(|c| c.feeds[0].mllp.push("connections_max = 8".into()));
    let hospital = Link::start(gateway.site.addr());
    let mut gone: Vec<Wire> = (0..8)
        .map(|n| {
            let mut wire = Wire::connect(hospital.addr(), wait::SOON).expect("a connection");
            assert!(wire.exchange(&message::build(n, 1, 700)).expect("an answer").positive());
            wire
        })
        .collect();
    // the power fails: no end, no reset, nothing passes any more
    hospital.set(Weather::Hole);
    for (n, wire) in gone.iter_mut().enumerate() {
        wire.send(&message::build(n, 2, 700)).expect("into the void");
    }
    for n in 0..20 {
        let reply = gateway.site.wire().exchange(&message::build(BAD + n, 1, 700)).expect("the newcomer is answered");
        assert!(reply.positive());
    }
    assert_eq!(gateway.site.feed_status("or-usage")["captured"].as_u64(), Some(28));
    gateway.keeps_quiet();
}

/// I4: the kernel asks after peers that are silent; without this a dead one would stay for ever.
#[test]
fn connections_are_watched_by_keepalive() {
    let gateway = Gateway::start(|_| {});
    let mut wire = gateway.site.wire();
    assert!(wire.exchange(&message::build(1, 1, 700)).expect("an answer").positive());
    let Ok(output) = Command::new("ss").args(["-tnoH", "state", "established"]).output() else {
        println!("skipped: `ss` is not there to show the timers of connections");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let local = wire.stream().local_addr().expect("an address").to_string();
    let ours = text.lines().find(|l| l.split_whitespace().nth(3) == Some(&local)).expect("the agent's end of the connection");
    let seconds = ours.split_once("timer:(keepalive,").map(|(_, rest)| rest.split(',').next().unwrap_or_default());
    let seconds = seconds.unwrap_or_else(|| panic!("no keepalive timer: {ours}"));
    assert!(seconds == "1min" || seconds.ends_with("sec") || seconds.ends_with("ms"), "asked after at most a minute: {ours}");
}

/// A network of its own for one peer: a namespace joined by a pair of virtual links. `None` where that is not permitted.
struct Elsewhere {
    name: String,
}

impl Elsewhere {
    fn new() -> Option<Self> {
        let name = format!("sw{}", std::process::id() % 100_000);
        let steps = [
            format!("netns add {name}"),
            format!("link add {name}a type veth peer name {name}b netns {name}"),
            format!("addr add 10.213.77.1/24 dev {name}a"),
            format!("link set {name}a up"),
            format!("-n {name} addr add 10.213.77.2/24 dev {name}b"),
            format!("-n {name} link set {name}b up"),
        ];
        let made = Self { name };
        steps.iter().all(|step| ip(step)).then_some(made)
    }

    /// Nothing comes from there any more, not even an end.
    fn cut(&self) {
        assert!(ip(&format!("-n {0} link set {0}b down", self.name)));
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // either may be missing where making it failed
        let _ = ip(&format!("link del {}a", self.name));
        let _ = ip(&format!("netns del {}", self.name));
    }
}

fn ip(arguments: &str) -> bool {
    Command::new("ip").args(arguments.split(' ')).output().is_ok_and(|o| o.status.success())
}

/// I4: a peer that vanished without a packet is noticed by keepalive and its connection closed. The kernel takes its two minutes, so this
/// is part of the long suite.
#[test]
fn a_peer_that_lost_its_power_is_noticed_and_its_connection_closed() {
    if !harness::long() {
        println!("skipped: takes two minutes; SITEWARD_LONG=1 runs it");
        return;
    }
    let Some(elsewhere) = Elsewhere::new() else {
        println!("skipped: needs the right to make a network namespace");
        return;
    };

    let gateway = Gateway::start(|c| c.feeds[0].host = "0.0.0.0");
    let port = gateway.site.addr().port();
    let script = format!("exec 3<>/dev/tcp/10.213.77.1/{port}; printf '\\x0bhalf' >&3; sleep 600");
    let log = gateway.directory.path().join("peer.log");
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &elsewhere.name, "bash", "-c", &script]);
    let _peer = harness::process::Process::start("a peer elsewhere", &mut command, &log);
    wait::wait_until("the peer is connected", wait::SOON, || established(port) == 1);
    elsewhere.cut();
    wait::wait_until("the connection is given up", wait::EVENTUALLY, || established(port) == 0);
    gateway.serves_others();
}

/// I4: a thousand interfaces that say nothing for hours cost next to nothing.
#[test]
fn a_thousand_idle_connections_cost_less_than_16_mib() {
    many_descriptors();
    let gateway = &mut Gateway::start(|c| c.feeds[0].mllp.push("connections_max = 1100".into()));
    // everything that is made once is made before measuring
    let told = Crew::start(&Plan::new(gateway.site.addr(), 32, 20)).finish();
    assert!(told.iter().all(|t| t.acknowledged.len() == 20));
    let before = gateway.site.process().resident_kib();
    let mut idle: Vec<Wire> = Vec::new();
    for n in 0..1000 {
        let mut wire = gateway.site.wire();
        for number in 1..=3 {
            assert!(wire.exchange(&message::build(BAD + n, number, 700)).expect("an answer").positive());
        }
        idle.push(wire);
    }
    assert_eq!(established(gateway.site.addr().port()), 1000);
    let after = gateway.site.process().resident_kib();
    println!("resident: {before} KiB before, {after} KiB with 1000 idle connections: {} KiB", after.saturating_sub(before));
    assert!(after < before + 16 * 1024, "resident {after} KiB, {before} before");
    // and they still work
    for (n, wire) in idle.iter_mut().enumerate().step_by(50) {
        assert!(wire.exchange(&message::build(BAD + n, 4, 700)).expect("an answer").positive());
    }
    assert!(TcpStream::connect(gateway.site.addr()).is_ok());
}
