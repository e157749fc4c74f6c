//! A box dies with what it had not delivered: its disk is gone, keys and all. A fresh machine takes its place with nothing but a bundle, captures again
//! within minutes, and the hub names what it has seen of each feed, so that the owners know from where to send again.

use std::fs;
use std::time::{Duration, Instant};

use harness::enrolment::{Box_, Desk};
use harness::sender::{Crew, Plan, Wire};
use harness::{message, net, wait};

const GATEWAY: &str = "st-marys-gw1";
const DELIVERED: u64 = 250;
const CONNECTIONS: usize = 10;

/// What the issue of a replacement allows somebody who has the runbook alone; the machines' part of it must be next to nothing.
const ALLOWED: Duration = Duration::from_mins(15);

fn exchange(port: u16, number: u64) {
    let mut wire = wait::wait_for("a connection to the feed", wait::SOON, || Wire::connect(net::loopback(port), wait::SOON).ok());
    assert!(wire.exchange(&message::build(0, number, 700)).expect("an answer").positive());
}

fn crew(port: u16, per_connection: u64) -> u64 {
    let plan = Plan { size: message::mixed_size, ..Plan::new(net::loopback(port), CONNECTIONS, per_connection) };
    Crew::start(&plan).finish().iter().map(|told| told.acknowledged.len() as u64).sum()
}

/// I3, I8: the hub says through which seq it has the feed; the fresh box begins a history of its own, which is not taken for the old one's.
#[test]
fn a_destroyed_box_is_replaced_and_the_hub_names_what_it_has_seen() {
    let undelivered: u64 = if harness::long() { 10_000 } else { 1_000 };
    let mut desk = Desk::new();
    assert!(desk.bundle(GATEWAY, "first.bundle", &[]).done);
    desk.admit();
    desk.serve();
    let port = net::free_port();
    desk.document(GATEWAY, 1, port);
    let mut old = Box_::new(desk.path("old"));
    let said = old.enroll(&desk.path("first.bundle"), &[]);
    assert!(said.done, "{}{}", said.out, said.err);
    old.start();
    old.listens(port);
    assert_eq!(crew(port, DELIVERED / CONNECTIONS as u64), DELIVERED);
    desk.hub.wait_for_events(DELIVERED);

    // The link is cut where the hub is; the hospital goes on.
    desk.broker.stop();
    assert_eq!(crew(port, undelivered / CONNECTIONS as u64), undelivered, "captured and durable, through the outage");
    old.kill();
    fs::remove_dir_all(&old.directory).expect("the disk is destroyed, with spool, keys and certificates");
    drop(old);
    desk.broker.restart();

    let began = Instant::now();
    let account = desk.hub.out().display().to_string();
    let made = desk.bundle(GATEWAY, "second.bundle", &["--replace", "--account", &account]);
    let seen = format!("or-usage: seen through seq {DELIVERED} at 20");
    assert!(made.done && made.out.contains(&seen) && made.out.contains("; later unknown"), "{}{}", made.out, made.err);
    desk.admit();
    let mut fresh = Box_::new(desk.path("fresh"));
    let said = fresh.enroll(&desk.path("second.bundle"), &[]);
    assert!(said.done, "{}{}", said.out, said.err);
    let enrolled = began.elapsed();
    fresh.start();
    fresh.listens(port);
    exchange(port, 1);
    let captured = began.elapsed();
    desk.hub.wait_for_events(DELIVERED + 1);
    let at_the_hub = began.elapsed();
    assert!(captured < ALLOWED);

    let audit = desk.hub.audit();
    println!(
        "dead box: {DELIVERED} at the hub, {undelivered} undelivered, disk destroyed; the hub said: seen through seq {DELIVERED}, later unknown; \
         from the order for a bundle: enrolled after {:.1} s, first message captured after {:.1} s, at the hub after {:.1} s",
        enrolled.as_secs_f64(),
        captured.as_secs_f64(),
        at_the_hub.as_secs_f64(),
    );
    assert_eq!(audit.events(), DELIVERED + 1);
    assert_eq!(audit.of_kind("fork").len(), 1, "the line that says that the box was replaced: {:?}", audit.complaints());
    assert_eq!(audit.complaints().len(), 1, "{:?}", audit.complaints());
    fresh.kill();
}
