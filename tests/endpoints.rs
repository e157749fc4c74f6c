//! What the rollout does with the uplink, against real Mosquittos: documents come, the reported state stays, endpoints are replaced under load.
//!
//! Spool, forwarder and receiver run in this process: who would give them orders (the rollout) is the test.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use harness::audit::Audit;
use harness::mosquitto::{Mosquitto, Options};
use harness::observer;
use harness::pki::Pki;
use harness::scene::Directory;
use harness::wait;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{AsyncClient, Event, Incoming, MqttOptions};
use siteward::config;
use siteward::config::settings::{Endpoint, EndpointOrigin, Settings};
use siteward::forward::mail::{Inbound, Letter, Mail};
use siteward::forward::{Forwarder, ForwarderHandle};
use siteward::hub::receive;
use siteward::record::{Message, Origin, Payload, Stage};
use siteward::spool::{self, Appender, Spool};
use siteward::status::board::Board;
use tokio::sync::watch;
use tokio::time::timeout;

const DESIRED: &str = "siteward/v1/st-marys/gw1/config/desired";
const REPORTED: &str = "siteward/v1/st-marys/gw1/config/reported";

fn endpoint(broker: &Mosquitto) -> Endpoint {
    Endpoint::new("127.0.0.1", broker.plain().port(), false)
}

fn settings(directory: &Path, broker: &Mosquitto) -> Settings {
    let file = directory.join("siteward.toml");
    let text = format!(
        "[gateway]\nsite = \"st-marys\"\nid = \"gw1\"\ntimezone = \"America/New_York\"\n\
         [spool]\npath = \"{}\"\nmax_bytes = \"256MiB\"\n\
         [uplink]\nendpoints = [\"mqtt://{}\"]\nallow_plaintext = true\nin_flight = 20\n\
         [[feed]]\nid = \"f\"\nforward = \"raw\"\nphi = \"allowed\"\nstage = \"live\"\n[feed.mllp]\nlisten = \"127.0.0.1:2575\"\n",
        directory.join("spool").display(),
        broker.plain(),
    );
    std::fs::write(&file, text).expect("the configuration is written");
    config::load(&file).unwrap_or_else(|faults| panic!("{faults}"))
}

/// A gateway without sources.
struct Gateway {
    settings: Settings,
    appender: Appender,
    forwarder: ForwarderHandle,
    mail: Mail,
    _rest: (spool::Closer, spool::Lock),
}

impl Gateway {
    fn start(directory: &Path, broker: &Mosquitto) -> Self {
        let settings = settings(directory, broker);
        let board = Board::new(settings.feeds.iter().map(|feed| feed.id.clone()));
        let options = spool::Options {
            path: settings.spool.path.clone(),
            max_bytes: settings.spool.max_bytes,
            key: settings.spool.key.clone(),
            message_bytes_max: settings.spool.message_bytes_max,
            feeds: settings.feeds.iter().map(|feed| (feed.id.clone(), feed.lane)).collect(),
        };
        let Spool { appender, reader, closer, lock, .. } = spool::open(options, &board).expect("the spool opens");
        let mut forwarder =
            Forwarder::spawn(&settings, reader, Arc::clone(&board), tokio::runtime::Handle::current()).expect("the forwarder starts");
        let mail = forwarder.take_mail().expect("it is there once");
        Self { settings, appender, forwarder, mail, _rest: (closer, lock) }
    }

    async fn connected(&self, origin: EndpointOrigin, port: u16) {
        let mut link = self.mail.link();
        let there = link.wait_for(|link| link.as_ref().is_some_and(|at| at.origin == origin && at.port == port));
        timeout(wait::EVENTUALLY, there).await.expect("it connects").expect("the forwarder lives");
    }

    async fn append(&self, number: u64) {
        let message = Message {
            feed: self.settings.feeds[0].id.clone(),
            identity: None,
            body: Payload::new(Bytes::from(format!("message {number}"))),
            reply: Payload::new(Bytes::new()),
            origin: Origin::Peer("test".into()),
            received_at_ms: 1_800_000_000_000,
            clock_suspect: false,
            stage: Stage::Live,
            batch_mismatch: false,
        };
        self.appender.append(message).await.expect("it is durable");
    }

    async fn stop(self) {
        let forwarder = self.forwarder;
        let stopped = tokio::task::spawn_blocking(move || forwarder.stop(Duration::from_secs(5)));
        assert!(stopped.await.expect("it does not panic"));
    }
}

/// Publishes something for the broker to keep.
async fn keep(broker: &Mosquitto, topic: &str, payload: &str) {
    let (client, mut events) = AsyncClient::new(MqttOptions::new("central-it", "127.0.0.1", broker.plain().port()), 4);
    client.try_publish(topic, QoS::AtLeastOnce, true, payload.to_owned()).expect("the channel is empty");
    let acknowledged = async { while !matches!(events.poll().await, Ok(Event::Incoming(Incoming::PubAck(_)))) {} };
    timeout(wait::EVENTUALLY, acknowledged).await.expect("the broker keeps it");
}

/// `siteward-hub receive` at a broker.
fn receiver(directory: &Path, broker: &Mosquitto) -> (watch::Sender<bool>, tokio::task::JoinHandle<()>) {
    let (stop, stopped) = watch::channel(false);
    let options = receive::Options {
        endpoint: endpoint(broker),
        tls: None,
        out: directory.join("events.jsonl"),
        client_id: "hub".into(),
        once_idle: None,
    };
    std::fs::create_dir_all(directory).expect("a directory for the hub");
    let task = tokio::spawn(async move {
        receive::receive(options, None, stopped).await.expect("it ends when told to");
    });
    (stop, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_document_arrives_and_the_reported_state_is_there_for_whoever_comes_later() {
    let directory = Directory::new();
    let pki = Pki::new(&directory.path().join("pki"), "harness CA");
    let broker = Mosquitto::start(&directory.path().join("broker"), &pki, Options::default());
    keep(&broker, DESIRED, "document 1").await;
    let (stop, hub) = receiver(&directory.path().join("hub"), &broker);
    let mut gateway = Gateway::start(directory.path(), &broker);
    let inbound = timeout(wait::EVENTUALLY, gateway.mail.inbound.recv()).await.expect("the document comes");
    assert_eq!(inbound, Some(Inbound::Desired { payload: Bytes::from_static(b"document 1"), retained: true }));
    let answered = gateway.mail.post(Letter::Reported(Bytes::from_static(b"{\"schema\":1}"))).expect("it is taken");
    let delivered = timeout(wait::EVENTUALLY, answered).await.expect("it is answered").expect("nothing newer was posted");
    assert!(delivered.is_acknowledged() && delivered.endpoint == endpoint(&broker), "{delivered:?}");
    let audit = gateway.mail.post(Letter::Audit(Bytes::from_static(b"{\"what\":\"trial\"}"))).expect("it is taken");
    timeout(wait::EVENTUALLY, audit).await.expect("it is answered").expect("it was published");
    keep(&broker, DESIRED, "document 2").await;
    let inbound = timeout(wait::EVENTUALLY, gateway.mail.inbound.recv()).await.expect("the next one comes");
    assert_eq!(inbound, Some(Inbound::Desired { payload: Bytes::from_static(b"document 2"), retained: true }));
    let plain = broker.plain();
    let kept = tokio::task::spawn_blocking(move || observer::retained(plain, REPORTED)).await.expect("it does not panic");
    assert_eq!(kept.as_deref(), Some(&b"{\"schema\":1}"[..]));
    gateway.stop().await;
    let out = directory.path().join("hub/events.jsonl");
    let told =
        || std::fs::read_to_string(&out).is_ok_and(|text| text.contains("\"kind\":\"audit\"") && text.contains("\"kind\":\"reported\""));
    tokio::task::block_in_place(|| wait::wait_until("the hub has both", wait::EVENTUALLY, told));
    stop.send_replace(true);
    hub.await.expect("the hub ends");
}

/// I2, I3: brokers are exchanged while messages come; every one of them is at a hub in the end, and the proof names the new endpoint.
#[tokio::test(flavor = "multi_thread")]
async fn endpoints_replaced_under_load_lose_nothing() {
    const MESSAGES: u64 = 3000;
    let directory = Directory::new();
    let pki = Pki::new(&directory.path().join("pki"), "harness CA");
    let brokers = ["a", "b"].map(|name| Mosquitto::start(&directory.path().join(name), &pki, Options::default()));
    let hubs = [0, 1].map(|index| receiver(&directory.path().join(format!("hub-{index}")), &brokers[index]));
    let gateway = Gateway::start(directory.path(), &brokers[0]);
    gateway.connected(EndpointOrigin::Bootstrap, brokers[0].plain().port()).await;
    let bootstrap = gateway.settings.uplink.clone();
    let mut with_added = bootstrap.clone();
    with_added.endpoints.insert(0, endpoint(&brokers[1]).added(None));
    for number in 1..=MESSAGES {
        gateway.append(number).await;
        if number % 1000 == 500 {
            let (wanted, origin, port) = match number {
                1500 => (&bootstrap, EndpointOrigin::Bootstrap, brokers[0].plain().port()),
                _ => (&with_added, EndpointOrigin::Added, brokers[1].plain().port()),
            };
            gateway.mail.replace_uplink(wanted.clone()).expect("it is taken");
            let answered = gateway.mail.post(Letter::Reported(Bytes::from(format!("{{\"at\":{number}}}")))).expect("it is taken");
            let delivered = timeout(wait::EVENTUALLY, answered).await.expect("it is answered").expect("nothing newer was posted");
            assert_eq!((delivered.endpoint.origin, delivered.endpoint.port), (origin, port), "proven by the new settings only");
        }
    }
    let outs = [0, 1].map(|index| directory.path().join(format!("hub-{index}/events.jsonl")));
    let all = || {
        let mut seqs: Vec<u64> = outs
            .iter()
            .filter_map(|out| std::fs::read_to_string(out).ok())
            .flat_map(|text| text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()).collect::<Vec<_>>())
            .filter(|line| line["kind"] == "event")
            .filter_map(|line| line["seq"].as_u64())
            .collect();
        seqs.sort_unstable();
        seqs.dedup();
        seqs == (1..=MESSAGES).collect::<Vec<_>>()
    };
    tokio::task::block_in_place(|| wait::wait_until("every message is at a hub", wait::EVENTUALLY, all));
    gateway.stop().await;
    for (stop, hub) in hubs {
        stop.send_replace(true);
        hub.await.expect("the hub ends");
    }
    assert_eq!(Audit::read(&outs[0]).of_kind("conflict").len() + Audit::read(&outs[1]).of_kind("conflict").len(), 0);
}
