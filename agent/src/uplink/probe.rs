//! One connection for `preflight`, step by step: the same dialling, TLS and CONNECT as the uplink's, and no trace left at the broker.
//!
//! ```text
//!   reach ─► Reached ─┬─ verdict: does the broker take our certificate?   (an agent runs, whose session must not be taken over)
//!                     └─ talk: CONNECT ─► subscribe ─► publish ─► leave
//! ```
//!
//! The session is the gateway's own: brokers bind client ids to certificates, so any other id would test other rules. What it holds survives:
//! it is resumed (no clean start), its subscriptions are repeated as they are, nothing that the broker sends is acknowledged (so it comes again
//! to the agent), and no more than one such message is asked for. Retained messages are not asked for. There is no will and nothing retained.
//! Where there was no session, the one that this makes ends with it.
//!
//! Speaks MQTT by rumqttc's codec alone, without its event loop, which would acknowledge. Every wait has a deadline, and what the broker sends
//! beside its answers is read past a few packets long.

use std::sync::Arc;

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::v5::{
    Connect, ConnectProperties, ConnectReturnCode, Disconnect, DisconnectProperties, DisconnectReasonCode, Filter, Packet, Publish,
    PublishProperties, RetainForwardRule, Subscribe,
};
use rumqttc::v5::mqttbytes::{Error as CodecError, QoS};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::AckReason;
use super::dial::{self, DialError, Line, Traffic, Way, tls_fault};
use super::mqtt::Terms;
use super::reason;
use super::sniff::Sniffer;
use super::supervisor::tls_files;
use super::tls::TlsFiles;
use crate::config::settings::{Endpoint, Proxy, UplinkSettings};
use crate::limits::{
    INCOMING_PACKET_BYTES_MAX, KEEP_ALIVE, PREFLIGHT_ANSWER_TIMEOUT, PREFLIGHT_PACKETS_MAX, PREFLIGHT_RECEIVE_MAX, PREFLIGHT_VERDICT_WAIT,
    SESSION_EXPIRY,
};

pub(crate) use super::dial::{Trace, certificate_fault, is_of_another_ca};
pub(crate) use super::fault::chain;

/// What a publish that nobody reads is kept for, should somebody be subscribed.
const EXPIRY_S: u32 = 60;
const SUBSCRIBE: u16 = 1;
const PUBLISH: u16 = 2;

/// Why it does not go on.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The broker does not take our certificate.
    Certificate(String),
    /// A sentence that begins with the endpoint.
    Other(String),
}

/// A line to the broker.
#[derive(Debug)]
pub(crate) struct Reached {
    line: Line,
}

/// Dials as the uplink does, and keeps how far it came.
pub(crate) async fn reach(
    proxy: Option<&Proxy>,
    endpoint: &Endpoint,
    tls: Option<Arc<ClientConfig>>,
    deadline: Instant,
) -> (Trace, Result<Reached, DialError>) {
    let mut trace = Trace::default();
    let line = dial::dial(Way { endpoint, proxy, tls }, &Arc::<Traffic>::default(), deadline, &mut trace).await;
    (trace, line.map(|line| Reached { line }))
}

impl Reached {
    /// `TLS 1.3`, if it is TLS.
    pub fn tls_version(&self) -> Option<&'static str> {
        match &self.line {
            Line::Plain(_) => None,
            Line::Tls(stream) => match stream.get_ref().1.protocol_version()? {
                rustls::ProtocolVersion::TLSv1_3 => Some("TLS 1.3"),
                rustls::ProtocolVersion::TLSv1_2 => Some("TLS 1.2"),
                _ => None,
            },
        }
    }

    /// Says nothing and listens: in TLS 1.3 a refused client certificate shows only behind the handshake. `Ok`: nothing was said against us.
    pub async fn verdict(mut self, endpoint: &Endpoint) -> Result<(), Stop> {
        let mut nothing = [0; 64];
        match timeout(PREFLIGHT_VERDICT_WAIT, self.line.read(&mut nothing)).await {
            Err(_) | Ok(Ok(1..)) => Ok(()),
            Ok(Ok(0)) => {
                Err(Stop::Other(format!("{endpoint}: the broker closed the connection behind the handshake; its log may tell more")))
            }
            Ok(Err(error)) => Err(broken(endpoint, &error)),
        }
    }

    /// Says CONNECT with the gateway's own client id.
    pub async fn talk<'a>(self, endpoint: &'a Endpoint, client_id: &str, in_flight: usize) -> Result<Talk<'a>, Stop> {
        let properties = ConnectProperties {
            session_expiry_interval: u32::try_from(SESSION_EXPIRY.as_secs()).ok(),
            receive_maximum: Some(PREFLIGHT_RECEIVE_MAX),
            max_packet_size: Some(INCOMING_PACKET_BYTES_MAX),
            ..ConnectProperties::new()
        };
        let keep_alive = u16::try_from(KEEP_ALIVE.as_secs()).unwrap_or(u16::MAX);
        let connect = Connect { keep_alive, client_id: client_id.to_owned(), clean_start: false, properties: Some(properties) };
        let mut talk =
            Talk { endpoint, line: self.line, unread: BytesMut::new(), sniffer: Sniffer::new(), has_session: true, packet_bytes_max: None };
        let answer = talk.exchange(Packet::Connect(connect, None, None), |packet| match packet {
            Packet::ConnAck(connack) => Some(connack),
            _ => None,
        });
        let connack = answer.await?;
        if connack.code != ConnectReturnCode::Success {
            return Err(Stop::Other(reason::refused(endpoint, connack.code).text));
        }
        let terms = Terms::of(&connack, in_flight, endpoint).map_err(|fault| Stop::Other(fault.text))?;
        (talk.has_session, talk.packet_bytes_max) = (terms.session_present, terms.packet_bytes_max);
        Ok(talk)
    }
}

/// A connection that stands.
#[derive(Debug)]
pub(crate) struct Talk<'a> {
    endpoint: &'a Endpoint,
    line: Line,
    unread: BytesMut,
    sniffer: Sniffer,
    /// The broker kept one from before.
    pub has_session: bool,
    /// Largest packet that the broker takes.
    pub packet_bytes_max: Option<u32>,
}

impl Talk<'_> {
    /// Subscribes as the agent does; for each filter the refusal, if it is one.
    pub async fn subscribe(&mut self, filters: &[String]) -> Result<Vec<Option<String>>, Stop> {
        let each = filters.iter().map(|filter| Filter {
            preserve_retain: true,
            retain_forward_rule: RetainForwardRule::Never,
            ..Filter::new(filter, QoS::AtLeastOnce)
        });
        let subscribe = Subscribe { pkid: SUBSCRIBE, ..Subscribe::new_many(each, None) };
        let answer = self.exchange(Packet::Subscribe(subscribe), |packet| match packet {
            Packet::SubAck(suback) if suback.pkid == SUBSCRIBE => Some(suback),
            _ => None,
        });
        let codes = answer.await?.return_codes;
        if codes.len() != filters.len() {
            return Err(self.stop("the broker's SUBACK does not answer every subscription; check that the port speaks MQTT 5"));
        }
        let refused = filters.iter().zip(codes).map(|(filter, code)| reason::subscription(self.endpoint, filter, code));
        Ok(refused.map(|fault| fault.map(|fault| fault.text)).collect())
    }

    /// Publishes, QoS 1, not retained.
    pub async fn publish(&mut self, topic: &str, payload: Vec<u8>) -> Result<AckReason, Stop> {
        let properties = PublishProperties {
            content_type: Some("application/json".to_owned()),
            message_expiry_interval: Some(EXPIRY_S),
            ..PublishProperties::default()
        };
        let publish = Publish { pkid: PUBLISH, ..Publish::new(topic, QoS::AtLeastOnce, payload, Some(properties)) };
        let answer = self.exchange(Packet::Publish(publish), |packet| match packet {
            Packet::PubAck(puback) if puback.pkid == PUBLISH => Some(puback),
            _ => None,
        });
        Ok(reason::ack(answer.await?.reason))
    }

    /// Says DISCONNECT; a session that was there stays.
    pub async fn leave(mut self) {
        let expiry = DisconnectProperties {
            session_expiry_interval: Some(0),
            reason_string: None,
            user_properties: Vec::new(),
            server_reference: None,
        };
        let properties = (!self.has_session).then_some(expiry);
        let disconnect = Packet::Disconnect(Disconnect { reason_code: DisconnectReasonCode::NormalDisconnection, properties });
        let leaving = async {
            self.send(&disconnect).await?;
            self.line.shutdown().await.map_err(|error| broken(self.endpoint, &error))
        };
        // Everything is known already; a broker that is gone by now needs no farewell.
        let _ = timeout(PREFLIGHT_ANSWER_TIMEOUT, leaving).await;
    }

    fn stop(&self, text: &str) -> Stop {
        Stop::Other(format!("{}: {text}", self.endpoint))
    }

    async fn send(&mut self, packet: &Packet) -> Result<(), Stop> {
        let mut bytes = BytesMut::new();
        if packet.write(&mut bytes, self.packet_bytes_max).is_err() {
            return Err(self.stop("the broker's maximum packet size is too small for anything; raise it"));
        }
        let sent = async {
            self.line.write_all(&bytes).await?;
            self.line.flush().await
        };
        sent.await.map_err(|error| broken(self.endpoint, &error))
    }

    /// Says something and waits for its answer.
    async fn exchange<T>(&mut self, packet: Packet, is_answer: impl Fn(Packet) -> Option<T>) -> Result<T, Stop> {
        let deadline = Instant::now() + PREFLIGHT_ANSWER_TIMEOUT;
        let exchange = async {
            // A broker that refuses us may close before it has read; what it said counts.
            let sent = self.send(&packet).await;
            for _ in 0..PREFLIGHT_PACKETS_MAX {
                let packet = match self.next().await {
                    Err(Stop::Other(text)) => return Err(sent.err().unwrap_or(Stop::Other(text))),
                    other => other?,
                };
                if let Some(answer) = is_answer(packet) {
                    return Ok(answer);
                }
            }
            Err(self.stop("the broker sends everything but an answer; check that the port speaks MQTT 5"))
        };
        match timeout_at(deadline, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(self.stop("connected, but the broker does not answer; check that the port speaks MQTT 5")),
        }
    }

    async fn next(&mut self) -> Result<Packet, Stop> {
        let mut chunk = [0; 4096];
        loop {
            match Packet::read(&mut self.unread, Some(INCOMING_PACKET_BYTES_MAX)) {
                Ok(Packet::Disconnect(said)) => return Err(Stop::Other(reason::disconnected(self.endpoint, said.reason_code, None).text)),
                Ok(packet) => return Ok(packet),
                Err(CodecError::InsufficientBytes(_)) => {}
                Err(CodecError::InvalidConnectReturnCode(code) | CodecError::InvalidReason(code)) => {
                    return Err(self.stop(&format!("the broker answers with the code {code:#04x}, which means no; its log may tell more")));
                }
                Err(_) => return Err(self.stop("the answer is not MQTT 5; check that the port speaks it")),
            }
            let count = match self.line.read(&mut chunk).await {
                Ok(0) => {
                    return Err(self.stop(
                        "the broker closed the connection without an answer; check that the port speaks MQTT 5, its log may tell more",
                    ));
                }
                Ok(count) => count,
                Err(error) => return Err(broken(self.endpoint, &error)),
            };
            self.unread.extend_from_slice(&chunk[..count]);
            if let Some(code) = self.sniffer.feed(&chunk[..count])
                && let Ok(code) = DisconnectReasonCode::try_from(code)
            {
                return Err(Stop::Other(reason::disconnected(self.endpoint, code, None).text));
            }
        }
    }
}

/// What an endpoint is dialled with. Where its key cannot be had from here: without a certificate of ours, and why.
pub(crate) fn files(settings: &UplinkSettings, endpoint: &Endpoint) -> Result<(TlsFiles, Option<String>), String> {
    let why = match tls_files(settings, endpoint) {
        Ok(files) => return Ok((files, None)),
        Err(fault) => fault.text,
    };
    let bare = UplinkSettings { cert: None, key: None, ..settings.clone() };
    tls_files(&bare, endpoint).map(|files| (files, Some(why))).map_err(|fault| fault.text)
}

fn broken(endpoint: &Endpoint, error: &std::io::Error) -> Stop {
    match tls_fault(endpoint, error) {
        Some(refused @ DialError::ClientCertificate { .. }) => Stop::Certificate(refused.to_string()),
        Some(other) => Stop::Other(chain(&other)),
        None => Stop::Other(format!("{endpoint}: the connection broke ({error}); check the WAN")),
    }
}
