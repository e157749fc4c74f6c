//! Central IT's desk beside a scene: documents are written, signed and sent, and what the gateway says about them is read at both ends.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use harness::message;
use harness::mosquitto;
use harness::net;
use harness::observer;
use harness::scene::Scene;
use harness::sender::Wire;
use harness::site::Configuration;
use harness::wait;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{Client, Event, Incoming, MqttOptions};
use serde_json::Value;
use siteward::hub::config::{lint, sign};
use siteward::hub::keys::{self, Passphrase, Signer};

pub const TOPIC: &str = "siteward/v1/st-marys/st-marys-gw1/config";

fn keys() -> PathBuf {
    harness::repository().join("tests/fixtures/documents/keys")
}

/// A site that trusts the key of the fixtures, with one feed of its own (which documents keep) and a hub that receives.
pub struct Desk {
    pub scene: Scene,
    pub number: u64,
}

/// What a document says beside its header.
#[derive(Clone, Default)]
pub struct Wish {
    pub head: String,
    pub rollout: String,
    pub uplink: String,
    pub feeds: String,
}

pub fn feed(id: &str, port: u16, more: &str) -> String {
    format!(
        "[[feed]]\nid = {id:?}\nlane = \"critical\"\nstage = \"live\"\nforward = \"raw\"\nphi = \"allowed\"\n\
         [feed.mllp]\nlisten = \"127.0.0.1:{port}\"\n{more}\n"
    )
}

impl Desk {
    pub fn open() -> Self {
        let mut desk = Self::ready(|_| {});
        desk.scene.start();
        desk.is_connected();
        desk
    }

    /// Nothing runs yet but the broker.
    pub fn ready(adjust: impl FnOnce(&mut Configuration)) -> Self {
        let scene = Scene::new(mosquitto::Options { persistence: true, packet_bytes_max: 0 }, |configuration| {
            configuration.sections.push(format!("[trust]\nkeys = [\"{}\"]\n", keys().join("openssl.pub").display()));
            adjust(configuration);
        });
        Self { scene, number: 0 }
    }

    pub fn is_connected(&self) {
        wait::wait_until("the uplink is up", wait::EVENTUALLY, || self.scene.site.status()["uplink"]["state"] == "connected");
    }

    /// The feed that was there before every document.
    pub fn own(&self) -> String {
        feed("or-usage", self.scene.site.configuration.feeds[0].port, "")
    }

    pub fn signed(&self, revision: u64, wish: &Wish) -> String {
        let (signer, _) = keys::open(&keys().join("openssl.key"), &Passphrase::usual()).expect("the key of the fixtures");
        self.signed_by(&signer, "st-marys-gw1", revision, wish)
    }

    pub fn signed_by(&self, signer: &Signer, gateway: &str, revision: u64, wish: &Wish) -> String {
        let text = format!(
            "[document]\nschema_version = 1\nrevision = {revision}\ngateway = {gateway:?}\nauthor = \"kim\"\nreason = \"test\"\n{}\n\
             [rollout]\ntrial = \"10s\"\n{}\n{}\n{}",
            wish.head, wish.rollout, wish.uplink, wish.feeds
        );
        let file = self.scene.directory.path().join(format!("document-{revision}.toml"));
        fs::write(&file, text).expect("the document is written");
        let linted = lint(&file, None).unwrap_or_else(|faults| panic!("{faults}"));
        sign(&linted, std::slice::from_ref(signer)).expect("it is signed")
    }

    /// On a stick, for whoever is on site.
    pub fn stick(&self, envelope: &str) -> PathBuf {
        let file = self.scene.directory.path().join("stick.dsse");
        fs::write(&file, envelope).expect("the stick takes it");
        file
    }

    /// By hand, on site; what is said.
    pub fn apply(&self, envelope: &str) -> String {
        let output = self.scene.site.command(&["config", "apply", &self.stick(envelope).display().to_string()]);
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("text")).concat();
        let is_refused = said.contains(": refused (");
        assert!(output.status.success() != is_refused, "{said}\n{}", self.scene.site.log_tail());
        said
    }

    pub fn tried(&self) -> Value {
        self.scene.site.try_status().map(|status| status["config"]["tried"].clone()).unwrap_or_default()
    }

    pub fn push(&self, envelope: &str) {
        publish(self.scene.broker.plain(), &format!("{TOPIC}/desired"), envelope, true);
    }

    pub fn reported(&self) -> Value {
        let payload = observer::retained(self.scene.broker.plain(), &format!("{TOPIC}/reported")).unwrap_or_default();
        serde_json::from_slice(&payload).unwrap_or_default()
    }

    /// Waits until the gateway says this of the revision, on site; then the hub must have been told the same.
    pub fn becomes(&self, revision: u64, state: &str) -> Value {
        let there = wait::try_until(Duration::from_secs(90), || {
            let tried = self.tried();
            tried["revision"] == revision && tried["state"] == state
        });
        assert!(there, "revision {revision} is not {state} but {}; the log ends with:\n{}", self.tried(), self.scene.site.log_tail());
        self.tried()
    }

    pub fn hub_hears(&self, revision: u64, state: &str) -> Value {
        let mut last = Value::Null;
        let there = wait::try_until(wait::EVENTUALLY, || {
            last = self.reported();
            last["tried"]["revision"] == revision && last["tried"]["state"] == state
        });
        assert!(there, "the hub hears {last}, not that revision {revision} is {state}");
        last
    }

    pub fn running(&self) -> Value {
        self.scene.site.status()["config"]["revision"].clone()
    }

    /// Sends `count` messages to a port and sees each acknowledged.
    pub fn send(&mut self, port: u16, count: u64) {
        let mut wire = Wire::connect(net::loopback(port), wait::SOON).expect("the feed listens");
        for _ in 0..count {
            self.number += 1;
            assert!(wire.exchange(&message::build(0, self.number, 700)).expect("an answer").positive());
        }
    }

    /// Everything acknowledged is at the hub, in order, once.
    pub fn closes(mut self) {
        let sent = self.number;
        self.scene.hub.wait_for_events(sent);
        wait::wait_until("everything is settled", wait::EVENTUALLY, || self.scene.site.try_queued() == Some(0));
        let audit = self.scene.hub.audit();
        assert!(audit.complaints().is_empty(), "{:?}", audit.complaints());
    }
}

pub fn publish(broker: std::net::SocketAddr, topic: &str, payload: &str, retain: bool) {
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
