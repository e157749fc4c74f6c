//! One connection, from dialling to its end. With `publisher`, `reason` and `probe` the only file that names rumqttc.
//!
//! rumqttc 0.25.1 is used as a codec with a window, no more. Its own idea of a session (what it keeps for a reconnect) loses or reorders
//! messages, so every connection has a fresh `EventLoop`, thrown away on any error. The rules kept here:
//!
//! 1. `poll` is never cancelled and then used again: its future is held until it is done, and dropped only together with the `EventLoop`.
//! 2. After an error, answers that had been read (`state.events`) are still taken, in order, before `Down`.
//! 3. The subscriptions are granted before `Up`; rumqttc itself only logs a refusal.
//! 4. A broker that answers pings but nothing else is noticed: see [`Patience`].
//! 5. Packets are measured before they are handed over; rumqttc would notice only when it is too late.
//! 6. A keep alive of 0 from the broker would make rumqttc spin; ours is used instead.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::Outgoing as Sent;
use rumqttc::Transport;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnAck, Filter, LastWill, Packet, Publish};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, timeout_at};

use super::bridge::{self, Bridge};
use super::fault::Fault;
use super::gate::{Live, Outlet};
use super::patience::Patience;
use super::publisher::Publisher;
use super::queue::Gone;
use super::reason::{self, Culprit};
use super::supervisor::{Context, stopped, tls_files};
use super::window::Window;
use super::{AckReason, NotTaken, Outgoing, UplinkEvent, UplinkIdentity, tls};
use crate::config::settings::{Endpoint, UplinkSettings};
use crate::limits::{INCOMING_PACKET_BYTES_MAX, SESSION_EXPIRY, UPLINK_BYTES_MAX, UPLINK_RECEIVE_MAX};
use crate::status::board::UplinkState;
use crate::status::condition::Code;

/// rumqttc's request channel holds the whole window, the subscriptions and the DISCONNECT, and never fills.
const CHANNEL_SPARE: usize = 8;
/// Packet ids beyond twice the window, so that one late answer does not hold the window up.
const PACKET_IDS_SPARE: usize = 16;
/// Token of the last publish on a connection that is left; the forwarder's count from 1.
const FAREWELL: u64 = u64::MAX;
/// How long the last bytes may take to leave after DISCONNECT.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) enum How {
    /// We were asked to stop, or nobody listens any more.
    Stopped,
    /// We were asked to leave it.
    Left,
    Fault(Fault),
}

/// How a connection ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub how: How,
    /// Something was acknowledged.
    pub progressed: bool,
    /// How long it was up, if it was.
    pub lasted: Option<Duration>,
}

/// Runs one connection to its end. `leave`: end it in order, another one follows.
pub(super) async fn run(
    context: Arc<Context>,
    settings: Arc<UplinkSettings>,
    endpoint: Endpoint,
    mut leave: watch::Receiver<bool>,
) -> Ended {
    let mut stop = context.stop.clone();
    let never = |how| Ended { how, progressed: false, lasted: None };
    let connected = tokio::select! {
        () = stopped(&mut stop) => return never(How::Stopped),
        () = stopped(&mut leave) => return never(How::Left),
        connected = Connection::open(&context, &settings, &endpoint) => connected,
    };
    match connected {
        Ok(connection) => connection.run(stop, leave).await,
        Err(fault) => never(How::Fault(fault)),
    }
}

/// What the CONNACK grants.
pub(super) struct Terms {
    window: usize,
    packet_ids: usize,
    pub packet_bytes_max: Option<u32>,
    retain_available: bool,
    pub session_present: bool,
}

impl Terms {
    pub(super) fn of(connack: &ConnAck, in_flight: usize, endpoint: &Endpoint) -> Result<Self, Fault> {
        let given = connack.properties.as_ref();
        let receive_max = given.and_then(|p| p.receive_max).map_or(usize::from(u16::MAX), usize::from);
        if receive_max == 0 {
            return Err(Fault::refused(format!("{endpoint}: the broker grants a receive maximum of 0; correct its configuration")));
        }
        if given.and_then(|p| p.max_qos) == Some(0) {
            return Err(Fault::refused(format!("{endpoint}: the broker grants QoS 0 only; siteward needs QoS 1")));
        }
        Ok(Self {
            window: in_flight.min(receive_max),
            packet_ids: receive_max.min(packet_ids(in_flight)),
            packet_bytes_max: given.and_then(|p| p.max_packet_size),
            retain_available: given.and_then(|p| p.retain_available) != Some(0),
            session_present: connack.session_present,
        })
    }
}

/// rumqttc counts packet ids from 1 to the smaller of this and the broker's receive maximum.
fn packet_ids(in_flight: usize) -> usize {
    2 * in_flight + PACKET_IDS_SPARE
}

struct Connection<'a> {
    context: &'a Context,
    settings: &'a Arc<UplinkSettings>,
    endpoint: &'a Endpoint,
    client: AsyncClient,
    events: EventLoop,
    bridge: Bridge,
    terms: Terms,
    progressed: bool,
    /// Reused between rounds.
    news: Vec<UplinkEvent>,
}

impl<'a> Connection<'a> {
    async fn open(context: &'a Context, settings: &'a Arc<UplinkSettings>, endpoint: &'a Endpoint) -> Result<Self, Fault> {
        let deadline = Instant::now() + context.timing.connect;
        let tls = if endpoint.tls {
            Some(tls::client_config(&tls_files(settings, endpoint)?).map_err(|error| Fault::tls(&error))?)
        } else {
            None
        };
        let (proxy, directory) = (settings.proxy.as_ref(), &context.identity.directory);
        let bridge = bridge::open_through(proxy, endpoint, tls, directory, deadline).await.map_err(|error| Fault::dial(&error))?;
        let in_flight = settings.in_flight;
        let (client, mut events) = AsyncClient::new(options(context, in_flight, endpoint, &bridge)?, in_flight + CHANNEL_SPARE);
        let Event::Incoming(Packet::ConnAck(connack)) = next(&mut events, &bridge, endpoint, deadline).await? else {
            return Err(Fault::passing(format!("{endpoint}: the first packet is not a CONNACK; check that the port speaks MQTT 5")));
        };
        if events.options.keep_alive().is_zero() {
            events.options.set_keep_alive(context.timing.keep_alive);
        }
        let terms = Terms::of(&connack, in_flight, endpoint)?;
        let mut connection =
            Self { context, settings, endpoint, client, events, bridge, terms, progressed: false, news: Vec::with_capacity(2 * in_flight) };
        connection.subscribe(deadline).await?;
        Ok(connection)
    }

    /// Subscribes and waits for the grants. Messages the broker kept for the session may come first.
    async fn subscribe(&mut self, deadline: Instant) -> Result<(), Fault> {
        let endpoint = self.endpoint;
        let UplinkIdentity { subscriptions, optional, .. } = &self.context.identity;
        let count = subscriptions.len() + optional.len();
        if count == 0 {
            return Ok(());
        }
        // Retain as published: what the broker is told to keep says so also to whoever is there already.
        let filter = |topic: &String| Filter { preserve_retain: true, ..Filter::new(topic, QoS::AtLeastOnce) };
        let wanted = subscriptions.iter().chain(optional).map(filter);
        if self.client.try_subscribe_many(wanted).is_err() {
            return Err(Fault::refused(format!(
                "{endpoint}: a subscription is not a valid topic filter; this is a fault in siteward, please report it"
            )));
        }
        loop {
            match next(&mut self.events, &self.bridge, endpoint, deadline).await? {
                Event::Incoming(Packet::SubAck(suback)) => {
                    let mut granted = subscriptions.iter().zip(&suback.return_codes);
                    if let Some(fault) = granted.find_map(|(filter, code)| reason::subscription(endpoint, filter, *code)) {
                        return Err(fault);
                    }
                    if suback.return_codes.len() == count {
                        let beyond = optional.iter().zip(&suback.return_codes[subscriptions.len()..]);
                        for fault in beyond.filter_map(|(filter, code)| reason::subscription(endpoint, filter, *code)) {
                            tracing::warn!("{}; until then nothing comes there, everything else goes on", fault.text);
                        }
                        return Ok(());
                    }
                    return Err(Fault::passing(format!("{endpoint}: the broker's SUBACK does not answer every subscription")));
                }
                Event::Incoming(Packet::Publish(publish)) => {
                    let Some(message) = message(&publish) else { continue };
                    if self.context.events.send(message).await.is_err() {
                        return Err(Fault::passing(format!("{endpoint}: nobody listens")));
                    }
                }
                _ => {}
            }
        }
    }

    async fn run(mut self, stop: watch::Receiver<bool>, leave: watch::Receiver<bool>) -> Ended {
        let since = Instant::now();
        let finish = match self.up().await {
            Ok(()) => self.serve(stop, leave).await,
            Err(Gone) => Finish::Stopped,
        };
        self.close(finish, since).await
    }

    /// Opens the gate and says so.
    async fn up(&mut self) -> Result<(), Gone> {
        let Terms { window, packet_ids, packet_bytes_max, retain_available, session_present } = self.terms;
        let endpoint = self.endpoint.to_string();
        let named = self.endpoint.clone();
        self.context.gate.open(Live {
            window: Window::new(window, packet_ids, UPLINK_BYTES_MAX),
            outlet: Outlet::Mqtt(Publisher { client: self.client.clone(), retain_available }),
            packet_bytes_max,
            leaving: false,
            owing_since: Instant::now(),
        });
        if !Arc::ptr_eq(&self.context.wanted.borrow(), self.settings) {
            self.context.gate.with(|live| live.leaving = true);
        }
        tracing::info!(window, session_present, "connected to {endpoint}");
        let board = &self.context.board;
        board.set_uplink(UplinkState::Connected, &endpoint, None);
        board.clear(Code::UplinkRefused, &endpoint);
        if !self.context.is_flapping() {
            board.clear(Code::UplinkDown, "");
        }
        self.context.events.send(UplinkEvent::Up { endpoint: named, window, packet_bytes_max, session_present }).await?;
        Ok(())
    }

    /// Until the connection ends, or we are asked to stop or to leave it and nothing is in flight.
    async fn serve(&mut self, mut stop: watch::Receiver<bool>, mut leave: watch::Receiver<bool>) -> Finish {
        let timing = self.context.timing;
        let mut clock = tokio::time::interval(timing.ack_stall / 4);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut patience = Patience::new(timing.ack_stall, timing.keep_alive.max(self.events.options.keep_alive()) * 2, Instant::now());
        let (mut stopping, mut leaving) = (false, Leaving::default());
        loop {
            let polled = {
                let mut poll = std::pin::pin!(self.events.poll());
                loop {
                    tokio::select! {
                        biased;
                        polled = &mut poll => break polled,
                        _ = clock.tick() => {
                            let owing = self.context.gate.with(|live| (live.window.open(), live.owing_since));
                            if let Some(silence) = patience.check(self.bridge.bytes_sent(), self.bridge.is_writing(), owing, Instant::now()) {
                                return Finish::Fault(silence.fault(self.endpoint), None);
                            }
                            self.context.settled_in(patience.began.elapsed());
                        }
                        () = stopped(&mut stop), if !stopping => {
                            stopping = true;
                            disconnect_if_idle(self.context, &self.client);
                        }
                        () = stopped(&mut leave), if leaving.until.is_none() => {
                            leaving.begin(self.context, Instant::now() + timing.leave);
                            leaving.go_on(self.context, &self.client);
                        }
                        () = leaving.late() => return Finish::Left,
                    }
                }
            };
            patience.returned = Instant::now();
            match polled {
                Ok(Event::Outgoing(Sent::Disconnect)) => return if stopping { Finish::Stopped } else { Finish::Left },
                Ok(event) => {
                    if self.deliver(event).await.is_err() {
                        return Finish::Stopped;
                    }
                }
                Err(error) => {
                    let end = self.bridge.end();
                    let culprit = reason::culprit(&error, end.as_ref());
                    return Finish::Fault(reason::fault(self.endpoint, &error, end, true), culprit);
                }
            }
            if stopping {
                disconnect_if_idle(self.context, &self.client);
            } else {
                leaving.go_on(self.context, &self.client);
            }
        }
    }

    /// Passes on what `poll` returned and everything that came with it.
    async fn deliver(&mut self, event: Event) -> Result<(), Gone> {
        let (queued, news) = (&mut self.events.state.events, &mut self.news);
        let acked = self.context.gate.with(|live| {
            let acked = std::iter::once(event).chain(queued.drain(..)).fold(false, |acked, event| take(live, event, news) | acked);
            if acked {
                live.owing_since = Instant::now();
            }
            acked
        });
        if acked == Some(true) && !self.progressed {
            self.progressed = true;
            self.context.board.clear(Code::UplinkDown, "");
        }
        let mut waited = Duration::ZERO;
        for event in self.news.drain(..) {
            waited += self.context.events.send(event).await?;
        }
        if !waited.is_zero() {
            // It was we who did not listen.
            self.context.gate.with(|live| live.owing_since += waited);
        }
        Ok(())
    }

    /// Closes the gate, reports the answers that had arrived, then the end.
    async fn close(mut self, finish: Finish, since: Instant) -> Ended {
        let (how, culprit) = match finish {
            Finish::Stopped => (How::Stopped, None),
            Finish::Left => (How::Left, None),
            Finish::Fault(fault, culprit) => (How::Fault(fault), culprit),
        };
        if let Some(mut live) = self.context.gate.close() {
            for event in self.events.state.events.drain(..) {
                self.progressed |= take(&mut live, event, &mut self.news);
            }
            let refused = match culprit {
                None => None,
                Some(Culprit::Oldest(reason)) => live.window.oldest_answered().map(|token| (token, reason)),
                Some(Culprit::Largest) => live.window.largest_answered().map(|token| (token, AckReason::PacketTooLarge)),
            };
            if let Some((token, reason)) = refused {
                self.progressed = true;
                self.news.push(UplinkEvent::Acked { token, reason });
            }
        }
        let (board, endpoint) = (&self.context.board, self.endpoint.to_string());
        match &how {
            How::Stopped => {}
            How::Left => {
                board.set_uplink(UplinkState::Connecting, &endpoint, None);
                self.news.push(UplinkEvent::Down { error: format!("{endpoint}: left in order for another connection") });
            }
            How::Fault(fault) => {
                board.set_uplink(UplinkState::Down, &endpoint, Some(fault.text.clone()));
                self.news.push(UplinkEvent::Down { error: fault.text.clone() });
            }
        }
        let Self { context, client, events, bridge, progressed, news, .. } = self;
        // rumqttc's end of the socket closes here; what it wrote still goes out.
        drop((client, events));
        let finished = async {
            if !matches!(how, How::Fault(_)) {
                bridge.finish(Instant::now() + CLOSE_TIMEOUT).await;
            }
        };
        let reported = async {
            for event in news {
                if context.events.send(event).await.is_err() {
                    break; // the forwarder is gone and wants no news
                }
            }
        };
        tokio::join!(finished, reported);
        Ended { how, progressed, lasted: Some(since.elapsed()) }
    }
}

enum Finish {
    /// We wanted it.
    Stopped,
    /// For another connection.
    Left,
    Fault(Fault, Option<Culprit>),
}

/// A connection being left: what is in flight is answered, `offline` is said (the broker drops the will of a client that says DISCONNECT, and
/// whoever still looks there would take us for online), then DISCONNECT. Late, the line is just closed, and the will says it.
#[derive(Default)]
struct Leaving {
    until: Option<Instant>,
    farewell: Option<Outgoing>,
}

impl Leaving {
    fn begin(&mut self, context: &Context, until: Instant) {
        let (topic, payload) = context.identity.will.clone();
        let content_type = Some("application/json".to_owned());
        self.farewell = Some(Outgoing { token: FAREWELL, topic, payload, content_type, properties: Vec::new(), retain: true });
        self.until = Some(until);
        context.gate.with(|live| live.leaving = true);
    }

    /// A step on the way out, if we are.
    fn go_on(&mut self, context: &Context, client: &AsyncClient) {
        if self.until.is_none() {
            return;
        }
        if let Some(farewell) = self.farewell.take() {
            // A full window gives it back for the next step; too large for the broker it stays unsaid.
            let left = context.gate.with(|live| match live.try_publish(farewell) {
                Err((NotTaken::WindowFull, farewell)) => Some(farewell),
                Ok(()) | Err(_) => None,
            });
            self.farewell = left.flatten();
        }
        if self.farewell.is_none() {
            disconnect_if_idle(context, client);
        }
    }

    /// Returns when it takes too long.
    async fn late(&self) {
        match self.until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    }
}

fn disconnect_if_idle(context: &Context, client: &AsyncClient) {
    if context.gate.with(|live| live.window.open()).unwrap_or(0) == 0 {
        // Already asked, or the connection is ending anyway: either way `poll` will tell.
        let _ = client.try_disconnect();
    }
}

/// Sorts one event of rumqttc's; true if it was an answer to a publish.
fn take(live: &mut Live, event: Event, news: &mut Vec<UplinkEvent>) -> bool {
    match event {
        Event::Outgoing(Sent::Publish(packet)) => live.window.sent(packet),
        Event::Incoming(Packet::PubAck(puback)) => {
            if let Some(token) = live.window.answered(puback.pkid) {
                news.push(UplinkEvent::Acked { token, reason: reason::ack(puback.reason) });
                return true;
            }
        }
        Event::Incoming(Packet::Publish(publish)) => news.extend(message(&publish)),
        Event::Incoming(_) | Event::Outgoing(_) => {}
    }
    false
}

/// A topic that is not UTF-8 is none of ours.
fn message(publish: &Publish) -> Option<UplinkEvent> {
    let topic = std::str::from_utf8(&publish.topic).ok()?.to_owned();
    Some(UplinkEvent::Message { topic, payload: publish.payload.clone(), retained: publish.retain })
}

/// One step of a connection being made.
async fn next(events: &mut EventLoop, bridge: &Bridge, endpoint: &Endpoint, deadline: Instant) -> Result<Event, Fault> {
    match timeout_at(deadline, events.poll()).await {
        Ok(Ok(event)) => Ok(event),
        Ok(Err(error)) => Err(reason::fault(endpoint, &error, bridge.end(), false)),
        Err(_) => Err(Fault::passing(format!("{endpoint}: connected, but the broker does not answer; check that the port speaks MQTT 5"))),
    }
}

fn options(context: &Context, in_flight: usize, endpoint: &Endpoint, bridge: &Bridge) -> Result<MqttOptions, Fault> {
    let identity = &context.identity;
    let Some(socket) = bridge.socket.to_str() else {
        return Err(Fault::passing(format!("{endpoint}: {} is not UTF-8; choose another spool path", bridge.socket.display())));
    };
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    let mut options = MqttOptions::new(&identity.client_id, socket, 0);
    let (topic, payload) = &identity.will;
    options
        .set_transport(Transport::Unix)
        .set_keep_alive(context.timing.keep_alive)
        .set_clean_start(false)
        .set_session_expiry_interval(Some(seconds(SESSION_EXPIRY)))
        .set_max_packet_size(Some(INCOMING_PACKET_BYTES_MAX))
        .set_receive_maximum(Some(UPLINK_RECEIVE_MAX))
        .set_outgoing_inflight_upper_limit(packet_ids(in_flight) as u16)
        // Ours ends earlier; rumqttc's own default is 5 s.
        .set_connection_timeout(context.timing.connect.as_secs() + 1)
        .set_last_will(LastWill::new(topic, payload.to_vec(), QoS::AtLeastOnce, true, None));
    Ok(options)
}
