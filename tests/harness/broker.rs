//! A broker that does as it is told: MQTT 5 on a plain socket, from rumqttc's own codec, with an answer to every publish chosen by the test.
//!
//! One thread accepts, one serves each connection (there is one at a time in practice). It keeps what it was sent, in order of arrival, so that
//! a test can ask what the agent did after being told no.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnAckProperties, ConnectReturnCode, Disconnect, DisconnectReasonCode, Packet, PingResp, PubAck, PubAckReason, Publish,
    SubAck, SubscribeReasonCode,
};
use rumqttc::v5::mqttbytes::{Error, QoS};

use crate::net;

/// A publish as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which connection brought it, from 1.
    pub connection: u64,
    pub topic: String,
    pub payload: Vec<u8>,
    pub retain: bool,
    pub properties: Vec<(String, String)>,
    /// Publishes of this connection not acknowledged when it came, itself included.
    pub in_flight: usize,
}

impl Seen {
    pub fn is_event(&self) -> bool {
        self.topic.contains("/event/")
    }
    /// An attribute of an event.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.properties.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
    pub fn seq(&self) -> Option<u64> {
        self.attribute("sequence")?.parse().ok()
    }
}

/// What happens to one publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Ack(PubAckReason),
    Late(Duration),
    Never,
    /// The connection ends, without a word.
    HangUp,
    /// DISCONNECT with this reason, then the end.
    Disconnect(DisconnectReasonCode),
}

/// What a connection is told at its start.
#[derive(Clone, Copy, Debug)]
pub struct Welcome {
    pub code: ConnectReturnCode,
    pub receive_maximum: Option<u16>,
    pub packet_bytes_max: Option<u32>,
}

impl Default for Welcome {
    fn default() -> Self {
        Self { code: ConnectReturnCode::Success, receive_maximum: None, packet_bytes_max: None }
    }
}

type Script = Box<dyn FnMut(&Seen) -> Answer + Send>;

struct State {
    welcome: Welcome,
    script: Script,
    seen: Vec<Seen>,
}

struct Shared {
    state: Mutex<State>,
    connections: AtomicU64,
    pings: AtomicU64,
    stop: AtomicBool,
    cut: AtomicU64,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running scripted broker.
pub struct Broker {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Broker {
    pub fn start(welcome: Welcome, script: impl FnMut(&Seen) -> Answer + Send + 'static) -> Self {
        let addr = net::loopback(net::free_port());
        let listener = TcpListener::bind(addr).expect("a port for the broker");
        listener.set_nonblocking(true).expect("a listener can be made non-blocking");
        let state = State { welcome, script: Box::new(script), seen: Vec::new() };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            connections: AtomicU64::new(0),
            pings: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            cut: AtomicU64::new(0),
        });
        let acceptor = shared.clone();
        std::thread::spawn(move || {
            while !acceptor.stop.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                };
                let number = acceptor.connections.fetch_add(1, Ordering::Relaxed) + 1;
                let shared = acceptor.clone();
                std::thread::spawn(move || Connection::new(stream, number, shared).serve());
            }
        });
        Self { addr, shared }
    }

    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// From now on.
    pub fn script(&self, script: impl FnMut(&Seen) -> Answer + Send + 'static) {
        self.shared.state().script = Box::new(script);
    }

    /// For the connections to come.
    pub fn welcome(&self, welcome: Welcome) {
        self.shared.state().welcome = welcome;
    }

    /// Ends every connection.
    pub fn cut(&self) {
        self.shared.cut.fetch_add(1, Ordering::SeqCst);
    }

    /// Everything published so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }

    /// The events among it.
    pub fn events(&self) -> Vec<Seen> {
        self.shared.state().seen.iter().filter(|s| s.is_event()).cloned().collect()
    }

    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    pub fn pings(&self) -> u64 {
        self.shared.pings.load(Ordering::Relaxed)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

struct Connection {
    stream: TcpStream,
    number: u64,
    shared: Arc<Shared>,
    era: u64,
    unanswered: usize,
    /// Acknowledgements not sent yet and when they are due; one that is late holds back those behind it, as the standard asks.
    due: VecDeque<(Instant, u16, PubAckReason)>,
}

impl Connection {
    fn new(stream: TcpStream, number: u64, shared: Arc<Shared>) -> Self {
        let era = shared.cut.load(Ordering::SeqCst);
        Self { stream, number, shared, era, unanswered: 0, due: VecDeque::new() }
    }

    fn alive(&self) -> bool {
        !self.shared.stop.load(Ordering::Relaxed) && self.shared.cut.load(Ordering::SeqCst) == self.era
    }

    fn serve(mut self) {
        let ready = self.stream.set_nonblocking(false).and(self.stream.set_read_timeout(Some(Duration::from_millis(10))));
        if ready.is_err() || self.stream.set_nodelay(true).is_err() {
            return;
        }
        let mut unread = BytesMut::new();
        let mut buffer = vec![0u8; 64 * 1024];
        while self.alive() {
            match self.stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => unread.extend_from_slice(&buffer[..n]),
                Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
                Err(_) => return,
            }
            if !self.read_all(&mut unread) || !self.send_due() {
                return;
            }
        }
    }

    fn read_all(&mut self, unread: &mut BytesMut) -> bool {
        loop {
            match Packet::read(unread, None) {
                Ok(packet) => {
                    if !self.take(packet) {
                        return false;
                    }
                }
                Err(Error::InsufficientBytes(_)) => return true,
                Err(_) => return false,
            }
        }
    }

    fn take(&mut self, packet: Packet) -> bool {
        match packet {
            Packet::Connect(..) => self.greet(),
            Packet::Subscribe(subscribe) => {
                let return_codes = subscribe.filters.iter().map(|_| SubscribeReasonCode::Success(QoS::AtLeastOnce)).collect();
                self.send(&Packet::SubAck(SubAck { pkid: subscribe.pkid, return_codes, properties: None }))
            }
            Packet::PingReq(_) => {
                self.shared.pings.fetch_add(1, Ordering::Relaxed);
                self.send(&Packet::PingResp(PingResp))
            }
            Packet::Publish(publish) => self.judge(&publish),
            Packet::Disconnect(_) => false,
            _ => true,
        }
    }

    fn greet(&mut self) -> bool {
        let Welcome { code, receive_maximum, packet_bytes_max } = self.shared.state().welcome;
        let properties = ConnAckProperties {
            session_expiry_interval: None,
            receive_max: receive_maximum,
            max_qos: None,
            retain_available: None,
            max_packet_size: packet_bytes_max,
            assigned_client_identifier: None,
            topic_alias_max: None,
            reason_string: None,
            user_properties: Vec::new(),
            wildcard_subscription_available: None,
            subscription_identifiers_available: None,
            shared_subscription_available: None,
            server_keep_alive: None,
            response_information: None,
            server_reference: None,
            authentication_method: None,
            authentication_data: None,
        };
        let sent = self.send(&Packet::ConnAck(ConnAck { session_present: false, code, properties: Some(properties) }));
        sent && code == ConnectReturnCode::Success
    }

    fn judge(&mut self, publish: &Publish) -> bool {
        self.unanswered += usize::from(publish.qos == QoS::AtLeastOnce);
        let seen = Seen {
            connection: self.number,
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload: publish.payload.to_vec(),
            retain: publish.retain,
            properties: publish.properties.as_ref().map(|p| p.user_properties.clone()).unwrap_or_default(),
            in_flight: self.unanswered,
        };
        let answer = {
            let mut state = self.shared.state();
            let answer = (state.script)(&seen);
            state.seen.push(seen);
            answer
        };
        match answer {
            _ if publish.qos == QoS::AtMostOnce => true,
            Answer::Ack(reason) => self.acknowledge(Duration::ZERO, publish.pkid, reason),
            Answer::Late(by) => self.acknowledge(by, publish.pkid, PubAckReason::Success),
            Answer::Never => true,
            Answer::HangUp => false,
            Answer::Disconnect(reason_code) => {
                self.send(&Packet::Disconnect(Disconnect { reason_code, properties: None }));
                false
            }
        }
    }

    fn acknowledge(&mut self, by: Duration, pkid: u16, reason: PubAckReason) -> bool {
        self.due.push_back((Instant::now() + by, pkid, reason));
        self.send_due()
    }

    fn send_due(&mut self) -> bool {
        while let Some(&(at, pkid, reason)) = self.due.front()
            && Instant::now() >= at
        {
            self.due.pop_front();
            self.unanswered = self.unanswered.saturating_sub(1);
            if !self.send(&Packet::PubAck(PubAck { pkid, reason, properties: None })) {
                return false;
            }
        }
        true
    }

    fn send(&mut self, packet: &Packet) -> bool {
        let mut out = BytesMut::new();
        packet.write(&mut out, None).is_ok() && self.stream.write_all(&out).is_ok()
    }
}

/// A receipt as the hub would write it, for scripts that answer checkpoints by hand.
pub fn receipt(feed: &str, incarnation: &str, through: u64, chain: &str) -> Bytes {
    let value = serde_json::json!({"feed": feed, "incarnation": incarnation, "through_seq": through, "chain": chain, "missing": []});
    Bytes::from(value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rumqttc::v5::{Client, Event, MqttOptions};

    #[test]
    fn a_script_decides_about_every_publish() {
        let broker = Broker::start(Welcome { receive_maximum: Some(7), ..Welcome::default() }, |seen| match seen.topic.as_str() {
            "refused" => Answer::Ack(PubAckReason::QuotaExceeded),
            "late" => Answer::Late(Duration::from_millis(30)),
            _ => Answer::Ack(PubAckReason::Success),
        });
        let (client, mut connection) = Client::new(MqttOptions::new("c", "127.0.0.1", broker.port()), 16);
        for topic in ["late", "refused", "fine"] {
            client.publish(topic, QoS::AtLeastOnce, false, "x").unwrap();
        }
        let mut reasons = Vec::new();
        for event in connection.iter() {
            // what rumqttc makes of a refusal is its own affair; the packets are read before that
            match event {
                Ok(Event::Incoming(Packet::PubAck(ack))) => reasons.push(ack.reason),
                Ok(Event::Incoming(Packet::ConnAck(connack))) => assert_eq!(connack.properties.unwrap().receive_max, Some(7)),
                Ok(_) => {}
                Err(e) => panic!("{e}"),
            }
            if reasons.len() == 3 {
                break;
            }
        }
        assert_eq!(reasons, [PubAckReason::Success, PubAckReason::QuotaExceeded, PubAckReason::Success]);
        assert_eq!(broker.seen().len(), 3);
    }
}
