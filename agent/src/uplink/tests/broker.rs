//! A broker that does what a test says, packet by packet, over a plain TCP listener. Built from rumqttc's codec.

use std::time::Duration;

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnAckProperties, Connect, ConnectReturnCode, Disconnect, DisconnectReasonCode, LastWill, Packet, PingResp, PubAck,
    PubAckReason, Publish, SubAck, SubscribeReasonCode,
};
use rumqttc::v5::mqttbytes::{Error, QoS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::config::settings::Endpoint;

/// Nothing in these tests takes this long unless it hangs.
pub(super) const HANGS: Duration = Duration::from_secs(20);

pub(super) struct Broker {
    pub listener: TcpListener,
    pub endpoint: Endpoint,
}

impl Broker {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { listener, endpoint: Endpoint::new("127.0.0.1", port, false) }
    }

    /// The next client, its CONNECT read.
    pub(super) async fn client(&self) -> Client {
        let (stream, _) = timeout(HANGS, self.listener.accept()).await.expect("a client comes").unwrap();
        stream.set_nodelay(true).unwrap();
        let mut line = Line { stream, buffer: BytesMut::new(), pings: 0 };
        match line.packet().await {
            Some(Packet::Connect(connect, will, _)) => Client { line, connect, will },
            other => panic!("not a CONNECT: {other:?}"),
        }
    }

    /// The next client, accepted and its subscriptions granted.
    pub(super) async fn welcome(&self, terms: impl FnOnce(&mut ConnAckProperties)) -> Client {
        let mut client = self.client().await;
        client.connack(ConnectReturnCode::Success, terms).await;
        client.grant(SubscribeReasonCode::Success(QoS::AtLeastOnce)).await;
        client
    }
}

pub(super) struct Line {
    stream: TcpStream,
    buffer: BytesMut,
    pub pings: usize,
}

impl Line {
    /// The next packet but pings, which are answered; `None` at the end.
    async fn packet(&mut self) -> Option<Packet> {
        loop {
            match Packet::read(&mut self.buffer, None) {
                Ok(Packet::PingReq(_)) => {
                    self.pings += 1;
                    self.write(&Packet::PingResp(PingResp)).await;
                }
                Ok(packet) => return Some(packet),
                Err(Error::InsufficientBytes(_)) => {
                    let read = timeout(HANGS, self.stream.read_buf(&mut self.buffer)).await.expect("a packet comes");
                    if matches!(read, Ok(0) | Err(_)) {
                        return None;
                    }
                }
                // A DISCONNECT without a body, to this codec.
                Err(Error::PayloadRequired) => return Some(Packet::Disconnect(Disconnect::new(DisconnectReasonCode::NormalDisconnection))),
                Err(error) => panic!("the client wrote nonsense: {error}"),
            }
        }
    }

    /// Reads so often, a little each time.
    pub(super) async fn slow(&mut self, times: usize, pause: Duration) {
        for _ in 0..times {
            tokio::time::sleep(pause).await;
            let mut little = vec![0; 32 * 1024];
            let count = self.stream.read(&mut little).await.unwrap();
            self.buffer.extend_from_slice(&little[..count]);
        }
    }

    async fn write(&mut self, packet: &Packet) {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, None).unwrap();
        self.raw(&bytes).await;
    }

    async fn raw(&mut self, bytes: &[u8]) {
        // A client that has gone is what some tests are about.
        let _ = self.stream.write_all(bytes).await;
    }
}

pub(super) struct Client {
    pub line: Line,
    pub connect: Connect,
    pub will: Option<LastWill>,
}

impl Client {
    pub(super) async fn connack(&mut self, code: ConnectReturnCode, terms: impl FnOnce(&mut ConnAckProperties)) {
        let mut properties = no_terms();
        terms(&mut properties);
        self.line.write(&Packet::ConnAck(ConnAck { session_present: false, code, properties: Some(properties) })).await;
    }

    pub(super) async fn grant(&mut self, code: SubscribeReasonCode) -> Vec<String> {
        match self.line.packet().await {
            Some(Packet::Subscribe(subscribe)) => {
                let return_codes = vec![code; subscribe.filters.len()];
                self.line.write(&Packet::SubAck(SubAck { pkid: subscribe.pkid, return_codes, properties: None })).await;
                subscribe.filters.into_iter().map(|filter| filter.path).collect()
            }
            other => panic!("not a SUBSCRIBE: {other:?}"),
        }
    }

    /// One answer for each filter.
    pub(super) async fn answer_subscribe(&mut self, codes: &[SubscribeReasonCode]) {
        match self.line.packet().await {
            Some(Packet::Subscribe(subscribe)) => {
                assert_eq!(subscribe.filters.len(), codes.len());
                self.line.write(&Packet::SubAck(SubAck { pkid: subscribe.pkid, return_codes: codes.to_vec(), properties: None })).await;
            }
            other => panic!("not a SUBSCRIBE: {other:?}"),
        }
    }

    /// The next packet that is not a ping; `None` when the client has closed.
    pub(super) async fn packet(&mut self) -> Option<Packet> {
        self.line.packet().await
    }

    pub(super) async fn publish(&mut self) -> Publish {
        match self.line.packet().await {
            Some(Packet::Publish(publish)) => publish,
            other => panic!("not a PUBLISH: {other:?}"),
        }
    }

    pub(super) async fn puback(&mut self, packet: u16, reason: PubAckReason) {
        self.line.write(&Packet::PubAck(PubAck { pkid: packet, reason, properties: None })).await;
    }

    pub(super) async fn send(&mut self, topic: &str, payload: &'static [u8]) {
        let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload, None);
        publish.pkid = 7;
        self.line.write(&Packet::Publish(publish)).await;
    }

    pub(super) async fn disconnect(&mut self, code: DisconnectReasonCode) {
        // As mosquitto writes it: without a property length.
        self.line.raw(&[0xE0, 1, code as u8]).await;
    }

    pub(super) async fn raw(&mut self, bytes: &[u8]) {
        self.line.raw(bytes).await;
    }
}

fn no_terms() -> ConnAckProperties {
    ConnAckProperties {
        session_expiry_interval: None,
        receive_max: None,
        max_qos: None,
        retain_available: None,
        max_packet_size: None,
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
    }
}
