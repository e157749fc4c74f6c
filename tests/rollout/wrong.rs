//! Documents that are valid, correctly signed and wrong: the gateway is back by itself, within the trial, and says why in one sentence.
//!
//! (No key of a document is a rate: how fast the uplink sends follows from `uplink.in_flight`, which belongs to the local file.)

use std::time::Duration;

use harness::link::Weather;
use harness::net;
use harness::pki::Pki;
use harness::wait;
use serde_json::Value;

use super::desk::{Desk, Wish, feed};

/// One sentence that names this.
fn says(tried: &Value, code: &str, parts: &[&str]) {
    let reason = tried["reason"].as_str().unwrap_or_default();
    assert!(tried["code"] == code && !reason.contains('\n') && parts.iter().all(|part| reason.contains(part)), "{tried}");
}

/// I6: senders shut out, a port that is taken, a directory that is not there.
#[test]
fn wrong_addresses_are_taken_back_by_themselves() {
    let mut desk = Desk::open();
    let own = desk.scene.site.configuration.feeds[0].port;
    desk.send(own, 3); // a sender in the last hour
    let shut_out = feed("or-usage", own, "peers = [\"10.9.9.0/24\"]");
    desk.push(&desk.signed(1, &Wish { feeds: shut_out, ..Wish::default() }));
    says(&desk.becomes(1, "rolled_back"), "peers_missing", &["`or-usage`", "feed.mllp.peers"]);
    desk.send(own, 3);
    desk.hub_hears(1, "rolled_back");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let wish = Wish { feeds: format!("{}{}", desk.own(), feed("lab", port, "")), ..Wish::default() };
    desk.push(&desk.signed(2, &wish));
    says(&desk.becomes(2, "rolled_back"), "not_applied", &["feed `lab` (feed.mllp.listen): cannot listen", "another program"]);
    desk.send(own, 3);

    let nowhere = desk.scene.directory.path().join("nowhere");
    let section = format!(
        "[[feed]]\nid = \"cabinet\"\nforward = \"raw\"\nphi = \"allowed\"\n[feed.directory]\npath = \"{}\"\nsplit = \"csv\"\n",
        nowhere.display()
    );
    desk.push(&desk.signed(3, &Wish { feeds: format!("{}{section}", desk.own()), ..Wish::default() }));
    says(&desk.becomes(3, "rolled_back"), "directories_unreadable", &["feed `cabinet` (feed.directory.path): ", "No such file"]);
    desk.hub_hears(3, "rolled_back");
    desk.send(own, 3);
    assert_eq!(desk.running(), Value::Null, "the local file runs");
    desk.closes();
}

fn added(port: u16, ca: Option<&Pki>) -> String {
    let ca = ca.map(|pki| std::fs::read_to_string(&pki.ca).expect("a certificate"));
    let ca = ca.map_or_else(String::new, |pem| format!("ca_pem = \"\"\"\n{pem}\"\"\"\n"));
    format!("[[uplink.endpoint]]\nurl = \"mqtts://127.0.0.1:{port}\"\n{ca}")
}

/// I6: with the WAN up, an endpoint that does not work, and one whose authority is not the hub's: back on the old one, told over it, within the
/// trial; a good one is proven by its own acknowledgement.
#[test]
fn endpoints_have_to_prove_themselves_while_the_old_one_answers() {
    let mut desk = Desk::open();
    let own = desk.scene.site.configuration.feeds[0].port;
    let hub = desk.scene.broker.tls().port();
    let stranger = Pki::new(&desk.scene.directory.path().join("stranger"), "another CA");
    let (dead, foreign) = (added(net::free_port(), None), added(hub, Some(&stranger)));
    let cases = if harness::long() { vec![format!("{dead}{foreign}"), dead, foreign] } else { vec![format!("{dead}{foreign}")] };
    let good = cases.len() as u64 + 1;
    for (revision, uplink) in (1..).zip(cases) {
        desk.push(&desk.signed(revision, &Wish { uplink, feeds: desk.own(), ..Wish::default() }));
        says(&desk.becomes(revision, "rolled_back"), "endpoint_unproven", &["uplink.endpoint.url", "uplink.endpoint.ca_pem"]);
        desk.hub_hears(revision, "rolled_back");
        desk.send(own, 3);
    }
    let uplink = added(hub, Some(&desk.scene.pki));
    desk.push(&desk.signed(good, &Wish { uplink, feeds: desk.own(), ..Wish::default() }));
    desk.becomes(good, "committed");
    let status = desk.scene.site.status();
    assert!(status["uplink"]["endpoint"].as_str().is_some_and(|endpoint| endpoint.ends_with(&format!(":{hub}"))), "{}", status["uplink"]);
    desk.hub_hears(good, "committed");
    desk.send(own, 3);
    desk.closes();
}

/// I6: with the WAN down since before, an endpoint cannot be judged: it is kept for the time being, and taken back when the WAN is there and it
/// still does not answer.
#[test]
fn an_endpoint_tried_without_a_wan_is_taken_back_when_the_old_one_answers() {
    if !harness::long() {
        return println!("rollout: only with SITEWARD_LONG=1: an endpoint tried without a WAN");
    }
    let mut desk = Desk::open();
    let own = desk.scene.site.configuration.feeds[0].port;
    desk.scene.link.set(Weather::Down);
    wait::wait_until("the uplink is down", wait::EVENTUALLY, || desk.scene.site.status()["uplink"]["state"] != "connected");
    let wish = Wish { uplink: added(net::free_port(), None), feeds: desk.own(), ..Wish::default() };
    desk.apply(&desk.signed(1, &wish));
    desk.becomes(1, "committed_local");
    std::thread::sleep(Duration::from_secs(12));
    desk.becomes(1, "committed_local");
    desk.send(own, 3);
    desk.scene.link.set(Weather::Fair);
    says(&desk.becomes(1, "rolled_back"), "endpoint_unproven", &["uplink.endpoint.url"]);
    desk.hub_hears(1, "rolled_back");
    desk.send(own, 3);
    desk.closes();
}
