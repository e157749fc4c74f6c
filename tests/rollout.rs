//! Remote configuration can never brick a site (I6): signed documents over a real broker to the running agent, with live traffic, kills, wrong
//! documents and somebody who has the broker's password.
//!
//! Trials last ten seconds here, the shortest there may be. `SITEWARD_LONG=1` kills more often.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use harness::link::Weather;
use harness::message;
use harness::mosquitto;
use harness::net;
use harness::observer;
use harness::scene::Scene;
use harness::sender::Wire;
use harness::wait;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{Client, Event, Incoming, MqttOptions};
use serde_json::Value;
use siteward::hub::config::{lint, sign};
use siteward::hub::keys::{self, Passphrase};

const TOPIC: &str = "siteward/v1/st-marys/st-marys-gw1/config";

fn keys() -> PathBuf {
    harness::repository().join("tests/fixtures/documents/keys")
}

/// A site that trusts the key of the fixtures, with one feed of its own (which documents keep) and a hub that receives.
struct Desk {
    scene: Scene,
    number: u64,
}

/// What a document says beside its header.
#[derive(Clone, Default)]
struct Wish {
    head: String,
    rollout: String,
    uplink: String,
    feeds: String,
}

fn feed(id: &str, port: u16, more: &str) -> String {
    format!(
        "[[feed]]\nid = {id:?}\nlane = \"critical\"\nstage = \"live\"\nforward = \"raw\"\nphi = \"allowed\"\n\
         [feed.mllp]\nlisten = \"127.0.0.1:{port}\"\n{more}\n"
    )
}

impl Desk {
    fn open() -> Self {
        let mut scene = Scene::new(mosquitto::Options { persistence: true, packet_bytes_max: 0 }, |configuration| {
            configuration.sections.push(format!("[trust]\nkeys = [\"{}\"]\n", keys().join("openssl.pub").display()));
        });
        scene.start();
        wait::wait_until("the uplink is up", wait::EVENTUALLY, || scene.site.status()["uplink"]["state"] == "connected");
        Self { scene, number: 0 }
    }

    /// The feed that was there before every document.
    fn own(&self) -> String {
        feed("or-usage", self.scene.site.configuration.feeds[0].port, "")
    }

    fn signed(&self, revision: u64, wish: &Wish) -> String {
        let text = format!(
            "[document]\nschema_version = 1\nrevision = {revision}\ngateway = \"st-marys-gw1\"\nauthor = \"kim\"\nreason = \"test\"\n{}\n\
             [rollout]\ntrial = \"10s\"\n{}\n{}\n{}",
            wish.head, wish.rollout, wish.uplink, wish.feeds
        );
        let file = self.scene.directory.path().join(format!("document-{revision}.toml"));
        fs::write(&file, text).expect("the document is written");
        let linted = lint(&file, None).unwrap_or_else(|faults| panic!("{faults}"));
        let (signer, _) = keys::open(&keys().join("openssl.key"), &Passphrase::usual()).expect("the key of the fixtures");
        sign(&linted, &[signer]).expect("it is signed")
    }

    fn push(&self, envelope: &str) {
        publish(self.scene.broker.plain(), &format!("{TOPIC}/desired"), envelope, true);
    }

    fn reported(&self) -> Value {
        let payload = observer::retained(self.scene.broker.plain(), &format!("{TOPIC}/reported")).unwrap_or_default();
        serde_json::from_slice(&payload).unwrap_or_default()
    }

    /// Waits until the gateway says this of the revision, on site; then the hub must have been told the same.
    fn becomes(&self, revision: u64, state: &str) -> Value {
        let tried = || self.scene.site.try_status().map(|status| status["config"]["tried"].clone()).unwrap_or_default();
        let there = wait::try_until(Duration::from_secs(90), || {
            let tried = tried();
            tried["revision"] == revision && tried["state"] == state
        });
        assert!(there, "revision {revision} is not {state} but {}; the log ends with:\n{}", tried(), self.scene.site.log_tail());
        tried()
    }

    fn hub_hears(&self, revision: u64, state: &str) -> Value {
        let mut last = Value::Null;
        let there = wait::try_until(wait::EVENTUALLY, || {
            last = self.reported();
            last["tried"]["revision"] == revision && last["tried"]["state"] == state
        });
        assert!(there, "the hub hears {last}, not that revision {revision} is {state}");
        last
    }

    fn running(&self) -> Value {
        self.scene.site.status()["config"]["revision"].clone()
    }

    /// Sends `count` messages to a port and sees each acknowledged.
    fn send(&mut self, port: u16, count: u64) {
        let mut wire = Wire::connect(net::loopback(port), wait::SOON).expect("the feed listens");
        for _ in 0..count {
            self.number += 1;
            assert!(wire.exchange(&message::build(0, self.number, 700)).expect("an answer").positive());
        }
    }

    /// Everything acknowledged is at the hub, in order, once.
    fn closes(mut self) {
        let sent = self.number;
        self.scene.hub.wait_for_events(sent);
        wait::wait_until("everything is settled", wait::EVENTUALLY, || self.scene.site.try_queued() == Some(0));
        let audit = self.scene.hub.audit();
        assert!(audit.complaints().is_empty(), "{:?}", audit.complaints());
    }
}

fn publish(broker: std::net::SocketAddr, topic: &str, payload: &str, retain: bool) {
    let options = MqttOptions::new(format!("desk-{}", net::free_port()), broker.ip().to_string(), broker.port());
    let (client, mut connection) = Client::new(options, 4);
    client.publish(topic, QoS::AtLeastOnce, retain, payload.to_owned()).expect("room for one");
    for event in connection.iter() {
        match event {
            Ok(Event::Incoming(Incoming::PubAck(_))) => return,
            Ok(_) => {}
            Err(error) => panic!("the broker does not take it: {error}"),
        }
    }
}

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

/// I6: killed at random moments of many rollouts under live traffic, the agent always comes back on something that was committed, with the feed
/// that no document touches; nothing acknowledged is lost.
#[test]
fn killed_in_every_rollout_step_comes_back_on_committed() {
    let kills: u64 = if harness::long() { 60 } else { 8 };
    let mut desk = Desk::open();
    let own = desk.scene.site.configuration.feeds[0].port;
    let ports = [net::free_port(), net::free_port()];
    let mut committed: Vec<u64> = vec![0];
    let (mut tried, mut revision) = (String::new(), 0);
    for kill in 0..kills {
        revision += 1;
        let port = ports[(kill % 2) as usize];
        let wish = Wish { feeds: format!("{}{}", desk.own(), feed("lab", port, "")), ..Wish::default() };
        desk.push(&desk.signed(revision, &wish));
        desk.send(own, 3);
        std::thread::sleep(Duration::from_millis((kill * 37) % 450));
        let told = desk.scene.site.try_status().map(|status| status["config"]["tried"]["state"].as_str().unwrap_or("nothing").to_owned());
        let told = told.unwrap_or_else(|| "nothing".into());
        desk.scene.site.kill();
        desk.scene.site.start();
        write!(tried, " {told}").expect("a String takes everything");
        let running = desk.running().as_u64().unwrap_or(0);
        let known = *committed.last().expect("never empty");
        assert!(running == known || running == revision, "{running} runs after a kill; committed are {committed:?}, tried was {revision}");
        if told == "committed" {
            assert_eq!(running, revision, "what was told as committed runs after a kill");
        }
        if running == revision {
            committed.push(revision);
        } else {
            // Counted as failed, or never seen: then it is tried now (it is retained) and ends one way or the other.
            let ended = |state: &Value| ["committed", "rolled_back"].iter().any(|ended| state == *ended);
            let there = wait::try_until(Duration::from_secs(60), || {
                desk.scene
                    .site
                    .try_status()
                    .is_some_and(|s| s["config"]["tried"]["revision"] == revision && ended(&s["config"]["tried"]["state"]))
            });
            assert!(there, "{}", desk.scene.site.log_tail());
            if desk.running() == revision {
                committed.push(revision);
            }
        }
        desk.send(own, 3);
    }
    println!("rollout: {kills} kills in rollouts, told before:{tried}; committed {}, nothing acknowledged lost", committed.len() - 1);
    desk.closes();
}

/// I6: valid, correctly signed and wrong: the gateway is back by itself within the deadline and says the cause in one sentence.
#[test]
fn wrong_addresses_are_taken_back_by_themselves() {
    let mut desk = Desk::open();
    let own = desk.scene.site.configuration.feeds[0].port;
    desk.send(own, 3); // a sender in the last hour
    let shut_out = feed("or-usage", own, "peers = [\"10.9.9.0/24\"]");
    desk.push(&desk.signed(1, &Wish { feeds: shut_out, ..Wish::default() }));
    let tried = desk.becomes(1, "rolled_back");
    assert_eq!(tried["code"], "peers_missing", "{tried}");
    assert!(tried["reason"].as_str().unwrap_or_default().contains("`or-usage`"), "{tried}");
    desk.send(own, 3);
    desk.hub_hears(1, "rolled_back");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let wish = Wish { feeds: format!("{}{}", desk.own(), feed("lab", port, "")), ..Wish::default() };
    desk.push(&desk.signed(2, &wish));
    let tried = desk.becomes(2, "rolled_back");
    assert!(tried["reason"].as_str().unwrap_or_default().contains("lab") && tried["reason"].to_string().contains("port"), "{tried}");
    desk.send(own, 3);

    let nowhere = desk.scene.directory.path().join("nowhere");
    let section = format!(
        "[[feed]]\nid = \"cabinet\"\nforward = \"raw\"\nphi = \"allowed\"\n[feed.directory]\npath = \"{}\"\nsplit = \"csv\"\n",
        nowhere.display()
    );
    desk.push(&desk.signed(3, &Wish { feeds: format!("{}{section}", desk.own()), ..Wish::default() }));
    let state = wait::try_until(Duration::from_secs(60), || {
        let tried = desk.scene.site.status()["config"]["tried"].clone();
        tried["revision"] == 3 && (tried["state"] == "rolled_back" || tried["state"] == "refused")
    });
    assert!(state, "{}", desk.scene.site.log_tail());
    desk.send(own, 3);
    assert_eq!(desk.running(), Value::Null, "the local file runs");
    desk.closes();
}

/// I6: an endpoint that does not serve us, with the WAN up: back on the old one, reported over it, within the deadline.
#[test]
fn an_endpoint_that_does_not_work_is_taken_back_and_told_over_the_old_one() {
    let mut desk = Desk::open();
    let own = desk.scene.site.configuration.feeds[0].port;
    let wrong = format!("[[uplink.endpoint]]\nurl = \"mqtts://127.0.0.1:{}\"\n", net::free_port());
    desk.push(&desk.signed(1, &Wish { uplink: wrong, feeds: desk.own(), ..Wish::default() }));
    let tried = desk.becomes(1, "rolled_back");
    assert!(["endpoint_unproven", "uplink_lost"].iter().any(|code| tried["code"] == *code), "{tried}");
    desk.hub_hears(1, "rolled_back");
    desk.send(own, 3);
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
    let file = desk.scene.directory.path().join("stick.dsse");
    fs::write(&file, desk.signed(1, &wish)).expect("the stick takes it");
    let output = desk.scene.site.command(&["config", "apply", &file.display().to_string()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
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

/// I6: with the broker's password and no signing key nothing changes; every attempt is visible.
#[test]
fn with_the_brokers_password_alone_nothing_can_be_changed() {
    let mut desk = Desk::open();
    let own = desk.scene.site.configuration.feeds[0].port;
    let good = Wish { feeds: desk.own(), ..Wish::default() };
    let old = desk.signed(1, &good);
    desk.push(&old);
    desk.becomes(1, "committed");
    desk.push(&desk.signed(2, &good));
    desk.becomes(2, "committed");
    let port = net::free_port();
    let other = Wish { feeds: format!("{}{}", desk.own(), feed("lab", port, "")), ..Wish::default() };
    let signed: Value = serde_json::from_str(&desk.signed(3, &other)).expect("an envelope is JSON");
    let mut cut = signed.clone();
    cut["signatures"] = serde_json::json!([]);
    let mut mixed: Value = serde_json::from_str(&old).expect("an envelope is JSON");
    mixed["payload"] = signed["payload"].clone();
    for (what, payload) in
        [("no envelope", "[[feed]]".to_owned()), ("no signature", cut.to_string()), ("another's signature", mixed.to_string())]
    {
        desk.push(&payload);
        let seen = wait::try_until(wait::EVENTUALLY, || desk.reported()["tried"]["state"] == "refused");
        assert!(seen, "{what}: nobody was told; {}", desk.reported());
        assert_eq!(desk.running(), 2, "{what}");
        desk.push(&desk.signed(2, &good)); // the hub's own word again
        wait::wait_until("the running revision is told again", wait::EVENTUALLY, || desk.reported()["tried"]["state"] == "committed");
    }
    // A replay of what was good once.
    desk.push(&old);
    let seen = wait::try_until(wait::EVENTUALLY, || desk.reported()["tried"]["code"] == "old_revision");
    assert!(seen, "{}", desk.reported());
    assert_eq!(desk.running(), 2);
    assert!(Wire::connect(net::loopback(port), Duration::from_millis(200)).is_err(), "no feed was opened");
    desk.send(own, 3);
    desk.closes();
}
