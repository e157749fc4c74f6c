//! Documents of the desk: signed with the key of the fixtures, published for the gateway of a scene.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{Client, Event, Incoming, MqttOptions};
use serde_json::Value;
use siteward::hub::config::{lint, sign};
use siteward::hub::keys::{self, Passphrase};

use crate::scene::Scene;
use crate::{net, observer, wait};

const TOPIC: &str = "siteward/v1/st-marys/st-marys-gw1/config";

pub fn keys() -> PathBuf {
    crate::repository().join("tests/fixtures/documents/keys")
}

/// `[trust]` of a site that takes documents signed by the fixtures' key.
pub fn trust() -> String {
    format!("[trust]\nkeys = [\"{}\"]\n", keys().join("openssl.pub").display())
}

/// A document with this body, tried for ten seconds, in its envelope.
pub fn signed(scene: &Scene, revision: u64, body: &str) -> String {
    signed_by(scene, revision, body, &keys().join("openssl.key"))
}

/// The same, by another key (PEM).
pub fn signed_by(scene: &Scene, revision: u64, body: &str, key: &Path) -> String {
    let text = format!(
        "[document]\nschema_version = 1\nrevision = {revision}\ngateway = \"st-marys-gw1\"\nauthor = \"kim\"\nreason = \"test\"\n\
         [rollout]\ntrial = \"10s\"\nconfirm = \"bound\"\n{body}"
    );
    let file = scene.directory.path().join(format!("document-{revision}.toml"));
    std::fs::write(&file, text).expect("the document is written");
    let linted = lint(&file, None).unwrap_or_else(|faults| panic!("{faults}"));
    let (signer, _) = keys::open(key, &Passphrase::usual()).expect("a private key");
    sign(&linted, &[signer]).expect("it is signed")
}

pub fn push(broker: SocketAddr, envelope: &str) {
    let options = MqttOptions::new(format!("desk-{}", net::free_port()), broker.ip().to_string(), broker.port());
    let (client, mut connection) = Client::new(options, 4);
    client.publish(format!("{TOPIC}/desired"), QoS::AtLeastOnce, true, envelope.to_owned()).expect("room for one");
    for event in connection.iter() {
        match event {
            Ok(Event::Incoming(Incoming::PubAck(_))) => return,
            Ok(_) => {}
            Err(error) => panic!("the broker does not take it: {error}"),
        }
    }
}

/// What the gateway reports.
pub fn reported(scene: &Scene) -> Value {
    let payload = observer::retained(scene.broker.plain(), &format!("{TOPIC}/reported")).unwrap_or_default();
    serde_json::from_slice(&payload).unwrap_or_default()
}

/// Signs, publishes, and waits until this became of it.
pub fn becomes(scene: &Scene, revision: u64, body: &str, state: &str) -> Value {
    offered(scene, revision, &signed(scene, revision, body), state)
}

/// Publishes, and waits until this became of it.
pub fn offered(scene: &Scene, revision: u64, envelope: &str, state: &str) -> Value {
    push(scene.broker.plain(), envelope);
    let tried = || scene.site.try_status().map(|status| status["config"]["tried"].clone()).unwrap_or_default();
    let there = wait::try_until(wait::EVENTUALLY, || tried()["revision"] == revision && tried()["state"] == state);
    assert!(there, "revision {revision} is not {state} but {}; the log ends with:\n{}", tried(), scene.site.log_tail());
    tried()
}

/// What the hub wrote down of audit letters.
pub fn audited(scene: &Scene) -> Vec<Value> {
    let text = std::fs::read_to_string(scene.hub.out()).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["kind"] == "audit").map(|line| line["data"].clone()).collect()
}

/// Of the document in an envelope; 0 for an empty one, which takes a document away.
pub fn revision(envelope: &[u8]) -> u64 {
    use base64::Engine as _;
    if envelope.is_empty() {
        return 0;
    }
    let envelope: Value = serde_json::from_slice(envelope).expect("an envelope is JSON");
    let payload = envelope["payload"].as_str().expect("a payload");
    let text = base64::prelude::BASE64_STANDARD.decode(payload).expect("base64");
    let table: toml::Table = toml::from_str(std::str::from_utf8(&text).expect("text")).expect("TOML");
    u64::try_from(table["document"]["revision"].as_integer().expect("a number")).expect("not negative")
}
