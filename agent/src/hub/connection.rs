//! One connection of the receiver to the broker, from dialling to its end. The hub's only file that names rumqttc (with [`listen`]).
//!
//! ```text
//!   rumqttc ── poll task ── deliveries (bounded by number and bytes) ──► receive
//!      ▲                                                                    │
//!      └────────── acknowledgements, receipts (bounded channel) ◄───────────┘
//! ```
//!
//! 1. Every connection has a fresh `EventLoop`, thrown away on any error, over the bridge that owns TCP and TLS (see `uplink::bridge`).
//! 2. The session is persistent and acknowledgements are manual. A delivery is acknowledged on the connection it came by, never on another:
//!    packet ids mean nothing there, and the broker sends again what was not acknowledged.
//! 3. `poll` is not cancel-safe: it has its own task, and is dropped only together with the `EventLoop`.
//! 4. Full: when the bytes of deliveries not yet written reach `HUB_PENDING_BYTES_MAX`, the connection is not read further. Should the broker
//!    give us up meanwhile, it keeps the rest.
//! 5. A broker that answers pings but not our receipts is given up after `ACK_STALL`: rumqttc holds acknowledgements back behind them.

pub(super) mod listen;
pub mod live;

use std::path::Path;
use std::sync::Arc;

use rumqttc::Outgoing as Sent;
use rumqttc::Transport;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet, PubAckReason, Publish, SubAck, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::desk::Arrival;
use crate::config::settings::Endpoint;
use crate::contract::topic::ROOT;
use crate::limits::{
    ACK_STALL, BRIDGE_LINGER, CONNECT_TIMEOUT, HUB_ANSWER_TIMEOUT, HUB_BATCH_MAX, HUB_COMMAND_RESEND, HUB_PACKET_BYTES_MAX,
    HUB_PENDING_BYTES_MAX, HUB_RECEIVE_MAX, KEEP_ALIVE, SESSION_EXPIRY,
};
use crate::record::Payload;
use crate::uplink::bridge::{self, Bridge, End};
use crate::uplink::tls::{self, TlsFiles};

/// Acknowledgements of everything the broker may send, receipts, subscriptions, DISCONNECT. Packet ids are the bound, not our receive maximum:
/// brokers exceed it, and an acknowledgement that waits for a place here would wait for a poll that waits for a place among the deliveries.
const REQUESTS: usize = u16::MAX as usize + HUB_BATCH_MAX + 8;
/// Receipts in flight, at most.
const RECEIPTS_IN_FLIGHT: u16 = 512;

/// A publish and what is needed to answer it.
#[derive(Debug)]
pub struct Delivery {
    pub arrival: Arrival,
    /// Stands in for the publish when it is acknowledged: packet id and QoS.
    answer: Publish,
    _bytes: OwnedSemaphorePermit,
}

impl Delivery {
    /// Gives the memory allowance back and keeps what an acknowledgement needs.
    pub fn written(self) -> Unanswered {
        Unanswered(self.answer)
    }
}

/// A publish that is on disk and not acknowledged yet.
#[derive(Debug)]
pub struct Unanswered(Publish);

/// See the module.
#[derive(Debug)]
pub struct Connection {
    client: AsyncClient,
    pub deliveries: mpsc::Receiver<Delivery>,
    poll: JoinHandle<String>,
    /// Taken only to be closed.
    bridge: Option<Arc<Bridge>>,
}

impl Connection {
    /// Connects, subscribes, and waits until something comes of it. The error is a sentence.
    pub async fn open(endpoint: &Endpoint, tls: Option<&TlsFiles>, client_id: &str, directory: &Path) -> Result<Self, String> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let tls = tls.filter(|_| endpoint.tls).map(tls::client_config).transpose().map_err(|error| chain(&error))?;
        let bridge = bridge::open(endpoint, tls, directory, deadline).await.map_err(|error| chain(&error))?;
        let options = options(client_id, &bridge)?;
        let (client, events) = AsyncClient::new(options, REQUESTS);
        let (deliveries, receiver) = mpsc::channel(usize::from(HUB_RECEIVE_MAX));
        let bridge = Arc::new(bridge);
        let (up, is_up) = oneshot::channel();
        let poll = Poll {
            events,
            client: client.clone(),
            bridge: bridge.clone(),
            deliveries,
            bytes: Arc::new(Semaphore::new(HUB_PENDING_BYTES_MAX as usize)),
            up: Some(up),
            granted: false,
            receipts: 0,
            moved: Instant::now(),
        };
        let mut connection = Self { client, deliveries: receiver, poll: tokio::spawn(poll.run()), bridge: Some(bridge) };
        match timeout_at(deadline, is_up).await {
            Ok(Ok(())) => Ok(connection),
            Ok(Err(_)) => Err(format!("{endpoint}: {}", connection.why().await)),
            Err(_) => Err(format!("{endpoint}: connected, but the broker does not answer; check that the port speaks MQTT 5")),
        }
    }

    /// Acknowledges what is written and sends receipts. An error means that the connection does not take them any more.
    pub async fn answer(&self, written: Vec<Unanswered>, receipts: Vec<(String, Vec<u8>)>) -> Result<(), String> {
        let all = async {
            for Unanswered(publish) in &written {
                self.client.ack(publish).await.map_err(|_| "the connection is gone")?;
            }
            for (topic, receipt) in receipts {
                self.client.publish(topic, QoS::AtLeastOnce, false, receipt).await.map_err(|_| "the connection is gone")?;
            }
            Ok::<(), &str>(())
        };
        match timeout(HUB_ANSWER_TIMEOUT, all).await {
            Ok(done) => done.map_err(str::to_owned),
            Err(_) => Err("acknowledgements cannot be handed over; the broker takes nothing".into()),
        }
    }

    /// Why it ended, once `deliveries` is at its end.
    pub async fn why(&mut self) -> String {
        match timeout(BRIDGE_LINGER, &mut self.poll).await {
            Ok(Ok(why)) => why,
            Ok(Err(_)) | Err(_) => "the connection was given up".into(),
        }
    }

    /// Lets the last acknowledgements out, says DISCONNECT (the session stays) and closes.
    pub async fn close(mut self) {
        let Self { client, deliveries, poll, bridge } = &mut self;
        let goodbye = async {
            // Failed or late: the broker sees the connection end and keeps the session all the same.
            let _ = client.disconnect().await;
            let _ = poll.await;
        };
        // What still comes is not acknowledged and comes again.
        let discard = async { while deliveries.recv().await.is_some() {} };
        let _ = timeout(BRIDGE_LINGER, async { tokio::join!(goodbye, discard) }).await;
        if let Some(bridge) = bridge.take().and_then(Arc::into_inner) {
            bridge.finish(Instant::now() + BRIDGE_LINGER).await;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.poll.abort();
    }
}

fn options(client_id: &str, bridge: &Bridge) -> Result<MqttOptions, String> {
    let socket = bridge.socket.to_str().ok_or("the path of the runtime directory is not UTF-8; set RUNTIME_DIRECTORY to one that is")?;
    let mut options = MqttOptions::new(client_id, socket, 0);
    options
        .set_transport(Transport::Unix)
        .set_keep_alive(KEEP_ALIVE)
        .set_clean_start(false)
        .set_session_expiry_interval(Some(u32::try_from(SESSION_EXPIRY.as_secs()).unwrap_or(u32::MAX)))
        .set_max_packet_size(Some(HUB_PACKET_BYTES_MAX))
        .set_receive_maximum(Some(HUB_RECEIVE_MAX))
        .set_outgoing_inflight_upper_limit(RECEIPTS_IN_FLIGHT)
        .set_connection_timeout(CONNECT_TIMEOUT.as_secs() + 1)
        .set_manual_acks(true);
    Ok(options)
}

/// What the hub must read, and what it reads where the broker's access rules let it.
const REQUIRED: [&str; 4] = ["event/+", "outcome/+", "checkpoint", "status"];
const OPTIONAL: [&str; 4] = ["config/reported", "certificate/request", "command/result", "audit"];

/// What the hub subscribes to.
fn filters() -> Vec<Filter> {
    REQUIRED.iter().chain(&OPTIONAL).map(|name| Filter::new(format!("{ROOT}/+/+/{name}"), QoS::AtLeastOnce)).collect()
}

struct Poll {
    events: EventLoop,
    client: AsyncClient,
    bridge: Arc<Bridge>,
    deliveries: mpsc::Sender<Delivery>,
    bytes: Arc<Semaphore>,
    /// Told when the subscriptions are granted, or when the first delivery comes: what the broker kept for the session may come first.
    up: Option<oneshot::Sender<()>>,
    granted: bool,
    /// Receipts in flight, and when one was last answered or the first one sent.
    receipts: u32,
    moved: Instant,
}

impl Poll {
    /// Until the connection ends: why it did.
    async fn run(mut self) -> String {
        loop {
            let owed = self.receipts > 0 || !self.granted;
            let patience = if owed { self.moved + ACK_STALL } else { Instant::now() + 3 * KEEP_ALIVE };
            match timeout_at(patience, self.events.poll()).await {
                Ok(Ok(Event::Outgoing(Sent::Disconnect))) => return "we disconnected".into(),
                Ok(Ok(event)) => {
                    if let Err(why) = self.take(event).await {
                        return why;
                    }
                }
                Ok(Err(error)) => return reason(&self.bridge, &error),
                Err(_) => return "the broker does not answer though the line is up; check the broker".into(),
            }
        }
    }

    async fn take(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Incoming(Packet::ConnAck(_)) => {
                if self.events.options.keep_alive().is_zero() {
                    self.events.options.set_keep_alive(KEEP_ALIVE); // rumqttc would spin
                }
                self.client.try_subscribe_many(filters()).map_err(|_| "the subscriptions cannot be sent; please report this")?;
            }
            Event::Incoming(Packet::SubAck(suback)) => {
                granted(&suback)?;
                self.granted = true;
                self.tell_up();
            }
            Event::Outgoing(Sent::Publish(_)) => {
                if self.receipts == 0 {
                    self.moved = Instant::now();
                }
                self.receipts += 1;
            }
            Event::Incoming(Packet::PubAck(_)) => {
                self.receipts = self.receipts.saturating_sub(1);
                self.moved = Instant::now();
            }
            Event::Incoming(Packet::Publish(publish)) => {
                self.tell_up();
                let began = Instant::now();
                self.deliver(publish).await.map_err(|()| "we stopped listening")?;
                self.moved += began.elapsed(); // it was we who did not listen
            }
            Event::Incoming(_) | Event::Outgoing(_) => {}
        }
        Ok(())
    }

    fn tell_up(&mut self) {
        if let Some(up) = self.up.take() {
            // Nobody waits any more where opening took too long; the task is then being ended.
            let _ = up.send(());
        }
    }

    async fn deliver(&mut self, publish: Publish) -> Result<(), ()> {
        let Publish { dup: _, qos, retain: _, topic, pkid, payload, properties } = publish;
        let bytes = (topic.len() + payload.len()).clamp(1, HUB_PENDING_BYTES_MAX as usize) as u32;
        let permit = self.bytes.clone().acquire_many_owned(bytes).await.map_err(|_| ())?;
        let properties = properties.unwrap_or_default();
        let arrival = Arrival {
            topic: String::from_utf8_lossy(&topic).into_owned(),
            content_type: properties.content_type,
            attributes: properties.user_properties,
            payload: Payload::new(payload),
        };
        let answer = Publish { qos, pkid, ..Publish::default() };
        self.deliveries.send(Delivery { arrival, answer, _bytes: permit }).await.map_err(|_| ())
    }
}

/// A sentence; rumqttc's own texts are not shown where they could carry a packet (I7).
fn reason(bridge: &Bridge, error: &ConnectionError) -> String {
    if let Some(End::Tls(error)) = bridge.end() {
        return chain(&*error);
    }
    match error {
        ConnectionError::ConnectionRefused(code) => format!("the broker refuses us ({code:?}); check certificate and access list"),
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => {
            format!("the broker disconnected us ({reason_code:?})")
        }
        ConnectionError::MqttState(StateError::ConnFail { reason }) => format!("the broker refuses us ({reason:?})"),
        ConnectionError::MqttState(StateError::Deserialization(_)) => "the broker sent what is not MQTT 5".into(),
        ConnectionError::MqttState(StateError::AwaitPingResp) => "the broker does not answer pings".into(),
        _ => match bridge.end() {
            Some(End::Lost(error)) => format!("the connection was lost: {error}"),
            Some(End::Closed) => "the broker closed the connection".into(),
            Some(End::Disconnected(code)) => format!("the broker disconnected us (reason 0x{code:02x})"),
            Some(End::Tls(_)) | None => "the connection ended".into(),
        },
    }
}

/// Connects without a session, publishes one retained message, waits for its acknowledgement and disconnects. The error is a sentence.
pub(super) async fn publish(
    endpoint: &Endpoint,
    tls: Option<&TlsFiles>,
    (client_id, directory): (&str, &Path),
    (topic, payload): (String, Vec<u8>),
    deadline: Instant,
) -> Result<(), String> {
    let tls = tls.filter(|_| endpoint.tls).map(tls::client_config).transpose().map_err(|error| chain(&error))?;
    let bridge = bridge::open(endpoint, tls, directory, deadline).await.map_err(|error| chain(&error))?;
    let mut options = options(client_id, &bridge)?;
    options.set_clean_start(true).set_session_expiry_interval(Some(0));
    let (client, mut events) = AsyncClient::new(options, 8);
    let asked = |_| "the publish cannot be sent; please report this".to_owned();
    let exchange = async {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    client.try_publish(topic.clone(), QoS::AtLeastOnce, true, payload.clone()).map_err(asked)?;
                }
                Ok(Event::Incoming(Packet::PubAck(answer))) => match answer.reason {
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers => client.try_disconnect().map_err(asked)?,
                    other => {
                        return Err(format!("{endpoint}: the broker refuses the publish on {topic} ({other:?}); check its access list"));
                    }
                },
                Ok(Event::Outgoing(Sent::Disconnect)) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(format!("{endpoint}: {}", reason(&bridge, &error))),
            }
        }
    };
    let done = timeout_at(deadline, exchange).await;
    drop(events);
    bridge.finish(Instant::now() + BRIDGE_LINGER).await;
    done.unwrap_or_else(|_| Err(format!("{endpoint}: does not answer; check that the port speaks MQTT 5")))
}

/// A short visit: subscribes to `topic`, publishes (not retained) once that stands, again every [`HUB_COMMAND_RESEND`], and hands every publish that comes to
/// `enough` until it gives something. The error is a sentence.
pub(super) async fn converse<T>(
    endpoint: &Endpoint,
    tls: Option<&TlsFiles>,
    (client_id, directory): (&str, &Path),
    (topic, say): (&str, Option<(String, Vec<u8>)>),
    deadline: Instant,
    mut enough: impl FnMut(&[u8]) -> Option<T>,
) -> Result<T, String> {
    let tls = tls.filter(|_| endpoint.tls).map(tls::client_config).transpose().map_err(|error| chain(&error))?;
    let bridge = bridge::open(endpoint, tls, directory, deadline).await.map_err(|error| chain(&error))?;
    let mut options = options(client_id, &bridge)?;
    options.set_clean_start(true).set_session_expiry_interval(Some(0)).set_manual_acks(false);
    let (client, mut events) = AsyncClient::new(options, 8);
    let asked = |_| "the request cannot be sent; please report this".to_owned();
    let stands = Notify::new();
    let mut answer = None;
    let speak = async {
        stands.notified().await;
        while let Some((topic, payload)) = &say {
            // A connection that takes nothing more is about to say so itself.
            let _ = client.try_publish(topic.clone(), QoS::AtLeastOnce, false, payload.clone());
            tokio::time::sleep(HUB_COMMAND_RESEND).await;
        }
        std::future::pending::<()>().await;
    };
    let listen = async {
        loop {
            let event = events.poll().await.map_err(|error| format!("{endpoint}: {}", reason(&bridge, &error)))?;
            match event {
                Event::Incoming(Packet::ConnAck(_)) => client.try_subscribe(topic, QoS::AtLeastOnce).map_err(asked)?,
                Event::Incoming(Packet::SubAck(suback)) => match suback.return_codes.first() {
                    Some(SubscribeReasonCode::Success(_)) => stands.notify_one(),
                    _ => return Err(format!("{endpoint}: the broker does not let this client read {topic}; check its access list")),
                },
                Event::Incoming(Packet::Publish(publish)) if answer.is_none() => answer = enough(&publish.payload),
                Event::Incoming(Packet::PubAck(ack)) if ack.reason != PubAckReason::Success => {
                    return Err(match ack.reason {
                        PubAckReason::NoMatchingSubscribers => {
                            format!("{endpoint}: the gateway is not subscribed; is its agent running, and its id right?")
                        }
                        other => format!("{endpoint}: the broker refuses the publish ({other:?}); check its access list"),
                    });
                }
                Event::Outgoing(Sent::Disconnect) => {
                    return answer.take().ok_or_else(|| "the visit ended without an answer; please report this".to_owned());
                }
                _ => {}
            }
            if answer.is_some() {
                client.try_disconnect().map_err(asked)?;
            }
        }
    };
    let exchange = async {
        tokio::select! {
            heard = listen => heard,
            () = speak => Err("please report this".to_owned()),
        }
    };
    let done = timeout_at(deadline, exchange).await;
    drop(events);
    bridge.finish(Instant::now() + BRIDGE_LINGER).await;
    done.unwrap_or_else(|_| Err(format!("{endpoint}: no answer came on {topic} in time")))
}

/// Connects without a session and reads what the broker keeps under a topic; `None`: nothing.
pub(super) async fn retained(
    endpoint: &Endpoint,
    tls: Option<&TlsFiles>,
    (client_id, directory): (&str, &Path),
    topic: &str,
    deadline: Instant,
) -> Result<Option<Vec<u8>>, String> {
    let tls = tls.filter(|_| endpoint.tls).map(tls::client_config).transpose().map_err(|error| chain(&error))?;
    let bridge = bridge::open(endpoint, tls, directory, deadline).await.map_err(|error| chain(&error))?;
    let mut options = options(client_id, &bridge)?;
    options.set_clean_start(true).set_session_expiry_interval(Some(0)).set_manual_acks(false);
    let (client, mut events) = AsyncClient::new(options, 8);
    let asked = |_| "the subscription cannot be sent; please report this".to_owned();
    let exchange = async {
        let mut patience = deadline;
        loop {
            match timeout_at(patience, events.poll()).await {
                Ok(Ok(Event::Incoming(Packet::ConnAck(_)))) => client.try_subscribe(topic, QoS::AtLeastOnce).map_err(asked)?,
                Ok(Ok(Event::Incoming(Packet::SubAck(answer)))) => match answer.return_codes.first() {
                    // What is kept comes at once.
                    Some(SubscribeReasonCode::Success(_)) => patience = deadline.min(Instant::now() + BRIDGE_LINGER),
                    other => return Err(format!("{endpoint}: the broker refuses {topic} ({other:?}); check its access list")),
                },
                Ok(Ok(Event::Incoming(Packet::Publish(publish)))) => return Ok(Some(publish.payload.to_vec())),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(format!("{endpoint}: {}", reason(&bridge, &error))),
                Err(_) if patience < deadline => return Ok(None),
                Err(_) => return Err(format!("{endpoint}: does not answer; check that the port speaks MQTT 5")),
            }
        }
    };
    let done = exchange.await;
    drop(events);
    bridge.finish(Instant::now() + BRIDGE_LINGER).await;
    done
}

fn granted(suback: &SubAck) -> Result<(), String> {
    let refused = |code: &&SubscribeReasonCode| !matches!(code, SubscribeReasonCode::Success(_));
    match suback.return_codes.iter().take(REQUIRED.len()).find(refused) {
        None if suback.return_codes.len() == REQUIRED.len() + OPTIONAL.len() => {
            if suback.return_codes.iter().any(|code| refused(&code)) {
                let topics = OPTIONAL.join(", ");
                tracing::warn!(
                    "the broker does not let this client read all of {topics} below {ROOT}/+/+; what gateways say there is not recorded"
                );
            }
            Ok(())
        }
        None => Err("the broker's SUBACK does not answer every subscription".into()),
        Some(code) => Err(format!(
            "the broker refuses a subscription ({code:?}); allow this client to read {ROOT}/+/+/(event/+|outcome/+|checkpoint|status)"
        )),
    }
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
