//! Remote configuration can never brick a site (I6): signed documents over a real broker to the running agent, with live traffic, kills, wrong
//! documents, wrong clocks and somebody who has the broker's password.
//!
//! Trials last ten seconds here, the shortest there may be. `SITEWARD_LONG=1` kills at every step, and more often.

use std::time::Duration;

use harness::link::Weather;
use harness::message;
use harness::net;
use harness::sender::Wire;
use harness::wait;

use desk::{Desk, Wish, feed};

#[path = "rollout/attack.rs"]
mod attack;
#[path = "rollout/clock.rs"]
mod clock;
#[path = "rollout/desk.rs"]
mod desk;
#[path = "rollout/kills.rs"]
mod kills;
#[path = "rollout/wrong.rs"]
mod wrong;

/// I6: a good document is tried, confirmed by the data plane, reported, survives a restart; a feed it does not touch keeps its connection; a feed
/// it takes away drains.
#[test]
fn a_signed_document_is_tried_confirmed_reported_and_survives_a_restart() {
    let mut desk = Desk::open();
    let own = desk.scene.site.configuration.feeds[0].port;
    let mut steady = Wire::connect(net::loopback(own), wait::SOON).expect("a connection");
    let mut number = 1_000_000;
    let mut beat = |steady: &mut Wire| {
        number += 1;
        assert!(steady.exchange(&message::build(1, number, 700)).expect("the same connection answers").positive());
    };
    beat(&mut steady);
    let port = net::free_port();
    let wish = Wish { feeds: format!("{}{}", desk.own(), feed("lab", port, "")), ..Wish::default() };
    desk.push(&desk.signed(1, &wish));
    desk.becomes(1, "committed");
    let reported = desk.hub_hears(1, "committed");
    assert_eq!(reported["running"]["revision"], 1);
    assert_eq!(reported["running"]["author"], "kim");
    beat(&mut steady);
    desk.send(port, 5);
    desk.scene.site.kill();
    desk.scene.site.start();
    assert_eq!(desk.running(), 1, "a restart goes on with what was committed");
    desk.send(port, 5);
    let mut steady = Wire::connect(net::loopback(own), wait::SOON).expect("a connection");
    beat(&mut steady);
    // The feed goes again: it drains, its port closes.
    desk.push(&desk.signed(2, &Wish { feeds: desk.own(), ..Wish::default() }));
    desk.becomes(2, "committed");
    wait::wait_until("the port is closed", wait::SOON, || Wire::connect(net::loopback(port), Duration::from_millis(200)).is_err());
    beat(&mut steady);
    let output = desk.scene.site.command(&["config", "rollback", "--why", "the lab wants it back"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(desk.running(), 1);
    desk.send(port, 5);
    assert_eq!(desk.hub_hears(2, "rolled_back")["tried"]["code"], "rollback_asked");
    desk.number += 4;
    desk.closes();
}

/// I6: with the WAN down since before, a good document is kept, also through a restart, and confirmed when the hub is reached.
#[test]
fn with_the_wan_down_a_good_document_is_kept_and_confirmed_later() {
    let mut desk = Desk::open();
    let own = desk.scene.site.configuration.feeds[0].port;
    desk.scene.link.set(Weather::Down);
    wait::wait_until("the uplink is down", wait::EVENTUALLY, || desk.scene.site.status()["uplink"]["state"] != "connected");
    let port = net::free_port();
    let wish = Wish { feeds: format!("{}{}", desk.own(), feed("lab", port, "")), ..Wish::default() };
    let said = desk.apply(&desk.signed(1, &wish));
    assert!(said.starts_with("revision 1 is stored; it is put to use now and then on trial"), "{said}");
    desk.becomes(1, "committed_local");
    desk.send(port, 3);
    desk.scene.site.kill();
    desk.scene.site.start();
    assert_eq!(desk.running(), 1);
    desk.send(port, 3);
    desk.scene.link.set(Weather::Fair);
    desk.becomes(1, "committed");
    desk.hub_hears(1, "committed");
    desk.send(own, 3);
    desk.closes();
}
