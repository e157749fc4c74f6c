//! Somebody who looks on at the broker's plain listener: subscribes, and keeps what comes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{Client, Event, MqttOptions};

/// A publish as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub topic: String,
    pub payload: Vec<u8>,
    pub retained: bool,
    pub properties: Vec<(String, String)>,
    pub content_type: Option<String>,
}

/// Subscribes to `filter` and collects until `enough` says so or `within` has passed.
pub fn collect(broker: SocketAddr, filter: &str, within: Duration, mut enough: impl FnMut(&[Seen]) -> bool) -> Vec<Seen> {
    let deadline = Instant::now() + within;
    let mut seen = Vec::new();
    while Instant::now() < deadline && !enough(&seen) {
        let mut options = MqttOptions::new(format!("observer-{}", crate::net::free_port()), broker.ip().to_string(), broker.port());
        options.set_max_packet_size(Some(256 << 20));
        let (client, mut connection) = Client::new(options, 16);
        client.subscribe(filter, QoS::AtLeastOnce).expect("room for one request");
        while Instant::now() < deadline && !enough(&seen) {
            match connection.recv_timeout(Duration::from_millis(200)) {
                Ok(Ok(Event::Incoming(Packet::Publish(publish)))) => seen.push(Seen {
                    topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                    payload: publish.payload.to_vec(),
                    retained: publish.retain,
                    content_type: publish.properties.as_ref().and_then(|p| p.content_type.clone()),
                    properties: publish.properties.map(|p| p.user_properties).unwrap_or_default(),
                }),
                Ok(Ok(_)) | Err(rumqttc::v5::RecvTimeoutError::Timeout) => {}
                Ok(Err(_)) | Err(rumqttc::v5::RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(Duration::from_millis(100));
                    break;
                }
            }
        }
    }
    seen
}

/// The retained payload under `topic`, where there is one.
pub fn retained(broker: SocketAddr, topic: &str) -> Option<Vec<u8>> {
    collect(broker, topic, Duration::from_secs(5), |seen| !seen.is_empty()).into_iter().find(|s| s.retained).map(|s| s.payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mosquitto::{Mosquitto, Options};
    use crate::pki::Pki;

    #[test]
    fn a_retained_message_is_seen_and_dies_with_a_broker_without_persistence() {
        let directory = tempfile::tempdir().unwrap();
        let pki = Pki::new(&directory.path().join("pki"), "harness");
        let mut broker = Mosquitto::start(&directory.path().join("broker"), &pki, Options { persistence: false, packet_bytes_max: 0 });
        let options = MqttOptions::new("publisher", "127.0.0.1", broker.plain().port());
        let (client, mut connection) = Client::new(options, 16);
        client.publish("a/b", QoS::AtLeastOnce, true, "here").unwrap();
        let acked = connection.iter().flatten().any(|e| matches!(e, Event::Incoming(Packet::PubAck(_))));
        assert!(acked);
        assert_eq!(retained(broker.plain(), "a/b").as_deref(), Some(&b"here"[..]));
        broker.kill();
        broker.restart();
        assert_eq!(retained(broker.plain(), "a/b"), None);
    }
}
