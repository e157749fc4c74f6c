//! The receiver through a real broker: the embedded one, or the one at `SITEWARD_TEST_BROKER` (host:port, no TLS).
#![cfg(feature = "demo")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::desk::Summary;
use super::receive::{Options, ReceiveError, receive};
use crate::config::settings::Endpoint;
use crate::contract::topic::Topics;
use crate::contract::{Checkpoint, Mark, Receipt};
use crate::record::{Chain, Digest, FeedId, Incarnation, Name, Nonce, record_id};

const PATIENCE: Duration = Duration::from_secs(30);

fn broker() -> SocketAddr {
    if let Some(broker) = std::env::var("SITEWARD_TEST_BROKER").ok().and_then(|b| b.parse().ok()) {
        return broker;
    }
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    crate::cli::demo::start_broker(address).unwrap();
    address
}

fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

type Attributes = Vec<(String, String)>;

/// A gateway that publishes by hand.
struct Gateway {
    client: AsyncClient,
    topics: Topics,
    name: Name,
    feed: FeedId,
    incarnation: Incarnation,
    head: Mark,
    /// Attributes and body.
    events: Vec<(Attributes, Vec<u8>)>,
    receipts: mpsc::Receiver<Receipt>,
    poll: JoinHandle<()>,
}

impl Gateway {
    async fn connect(broker: SocketAddr) -> Self {
        let name = Name::new(&format!("gw-{}", Incarnation(random()))[..20]).unwrap();
        let topics = Topics::new(&Name::new("site").unwrap(), &name);
        let mut options = MqttOptions::new(name.as_str(), broker.ip().to_string(), broker.port());
        options.set_keep_alive(Duration::from_secs(5)).set_max_packet_size(Some(1 << 20));
        let (client, mut events) = AsyncClient::new(options, 2000);
        client.subscribe(topics.receipt(), QoS::AtLeastOnce).await.unwrap();
        let (sender, receipts) = mpsc::channel(1000);
        let poll = tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let receipt = serde_json::from_slice(&publish.payload).unwrap();
                        if sender.send(receipt).await.is_err() {
                            return;
                        }
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
        let (feed, incarnation, head) = (Name::new("feed").unwrap(), Incarnation(random()), Mark { seq: 0, chain: Chain::GENESIS });
        Self { client, topics, name, feed, incarnation, head, events: Vec::new(), receipts, poll }
    }

    fn append(&mut self, bytes: usize) {
        let (seq, nonce) = (self.head.seq + 1, Nonce(random()));
        let body: Vec<u8> = (0..bytes).map(|i| (i as u64 ^ seq) as u8).collect();
        let digest = Digest::of(&nonce, &body);
        self.head = Mark { seq, chain: self.head.chain.after(seq, &digest) };
        let attributes = [
            ("id", format!("{}/raw", record_id(&self.name, &self.feed, self.incarnation, seq))),
            ("incarnation", self.incarnation.to_string()),
            ("sequence", seq.to_string()),
            ("chain", self.head.chain.to_string()),
            ("recorddigest", digest.to_string()),
            ("nonce", nonce.to_string()),
            ("itemindex", "0".into()),
            ("itemcount", "1".into()),
        ];
        self.events.push((attributes.map(|(name, value)| (name.to_owned(), value)).to_vec(), body));
    }

    async fn publish_event(&self, at: usize) {
        let (attributes, body) = self.events[at].clone();
        let properties = PublishProperties { user_properties: attributes, ..PublishProperties::default() };
        let topic = self.topics.event(&self.feed);
        self.client.publish_with_properties(topic, QoS::AtLeastOnce, false, body, properties).await.unwrap();
    }

    async fn publish_checkpoint(&self, head: bool) {
        let (feed, incarnation, settled) = (self.feed.clone(), self.incarnation, Mark { seq: 0, chain: Chain::GENESIS });
        let Mark { seq, chain } = self.head;
        let checkpoint = if head {
            Checkpoint::Head { feed, incarnation, seq, chain, count: seq, settled }
        } else {
            Checkpoint::Open { feed, incarnation, follows: None, settled }
        };
        let payload = serde_json::to_vec(&checkpoint).unwrap();
        self.client.publish(self.topics.checkpoint(), QoS::AtLeastOnce, false, payload).await.unwrap();
    }

    /// Asks until everything is confirmed.
    async fn confirmed(&mut self) -> Receipt {
        let asking = async {
            loop {
                self.publish_checkpoint(true).await;
                while let Ok(Some(receipt)) = timeout(Duration::from_millis(200), self.receipts.recv()).await {
                    if receipt.through_seq == self.head.seq {
                        return receipt;
                    }
                }
            }
        };
        timeout(PATIENCE, asking).await.expect("confirmed in time")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.poll.abort();
    }
}

struct Receiver {
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<Vec<Summary>, ReceiveError>>,
}

impl Receiver {
    fn start(broker: SocketAddr, out: &Path, client_id: &str) -> Self {
        let endpoint = Endpoint::new(broker.ip().to_string(), broker.port(), false);
        let options = Options { endpoint, tls: None, out: out.to_owned(), client_id: client_id.to_owned(), once_idle: None };
        let (stop, stopped) = watch::channel(false);
        Self { stop, task: tokio::spawn(receive(options, None, stopped)) }
    }

    async fn stop(self) -> Vec<Summary> {
        self.stop.send(true).unwrap();
        timeout(PATIENCE, self.task).await.expect("stops in time").unwrap().unwrap()
    }

    /// As if killed: whatever it was doing is left as it is. (The lock goes when a step that is under way has ended.)
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Lines of a kind about one gateway; another test may share the broker.
fn kinds(out: &Path, gateway: &Name, kind: &str) -> usize {
    let text = std::fs::read_to_string(out).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter(|line| line["kind"] == kind && (kind == "malformed" || line["gateway"] == gateway.as_str())).count()
}

/// I3, end to end through MQTT: written once, confirmed, whatever is sent twice, and through stop and kill.
#[tokio::test(flavor = "multi_thread")]
async fn events_are_written_once_and_confirmed_through_a_broker_while_the_receiver_is_killed() {
    let (broker, dir) = (broker(), tempfile::tempdir().unwrap());
    let (out, client_id) = (dir.path().join("out.jsonl"), format!("hub-{}", Incarnation(random())));
    let receiver = Receiver::start(broker, &out, &client_id);
    let mut gateway = Gateway::connect(broker).await;
    gateway.publish_checkpoint(false).await;
    assert_eq!(gateway.confirmed().await.missing, []);
    for at in 0..300 {
        gateway.append(if at % 50 == 7 { 300_000 } else { 700 });
        gateway.publish_event(at).await;
    }
    assert_eq!(gateway.confirmed().await.missing, []);
    receiver.kill().await;

    let receiver = Receiver::start(broker, &out, &client_id);
    for at in 250..300 {
        gateway.publish_event(at).await; // again
    }
    gateway.client.publish(gateway.topics.checkpoint(), QoS::AtLeastOnce, false, "poison").await.unwrap();
    for at in 300..400 {
        gateway.append(40);
        gateway.publish_event(at).await;
    }
    assert_eq!(gateway.confirmed().await.chain, gateway.head.chain);
    let summary = receiver.stop().await;
    let feed = summary.iter().find(|feed| feed.key.gateway == gateway.name).unwrap();
    assert_eq!((feed.through_seq, feed.tally.events, feed.tally.conflicts, &feed.missing), (400, 400, 0, &vec![]));
    assert!(feed.tally.duplicates >= 50);
    assert_eq!((kinds(&out, &gateway.name, "event"), kinds(&out, &gateway.name, "malformed")), (400, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_asked_for_by_its_exact_ranges() {
    let (broker, dir) = (broker(), tempfile::tempdir().unwrap());
    let out = dir.path().join("out.jsonl");
    let receiver = Receiver::start(broker, &out, &format!("hub-{}", Incarnation(random())));
    let mut gateway = Gateway::connect(broker).await;
    gateway.publish_checkpoint(false).await;
    gateway.confirmed().await;
    (0..20).for_each(|_| gateway.append(100));
    for at in (0..20).filter(|at| !(5..8).contains(at) && *at != 19) {
        gateway.publish_event(at).await;
    }
    let asking = async {
        loop {
            gateway.publish_checkpoint(true).await;
            let receipt = gateway.receipts.recv().await.unwrap();
            if receipt.missing == [(6, 8), (20, 20)] {
                return receipt.through_seq;
            }
        }
    };
    assert_eq!(timeout(PATIENCE, asking).await.unwrap(), 5);
    for at in [5, 6, 7, 19] {
        gateway.publish_event(at).await;
    }
    assert_eq!(gateway.confirmed().await.missing, []);
    receiver.stop().await;
}
