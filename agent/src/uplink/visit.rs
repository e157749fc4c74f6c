//! A short visit to the broker, for tools: connect without a session, subscribe, hear what comes, say something, leave.
//!
//! ```text
//!   open ─► CONNACK ─► subscribe ─► granted: `each` says what to say ─► each publish that comes: the same, and whether to stay
//!                                                                           └ leave: everything said is acknowledged ─► DISCONNECT
//! ```
//!
//! `siteward enroll` visits as a gateway that has no certificate of its own yet; `siteward-hub enroll` answers by the same means. A visit is not
//! the uplink: nothing is kept of it, and whoever needs more than one pays another. Bounds: what is said waits in a queue of
//! [`VISIT_QUEUE_MAX`], at most [`VISIT_IN_FLIGHT_MAX`] at the broker; beyond that what is heard is passed over (it is retained, and comes again).
//! Every wait has a deadline; one that is asked to stop, or that only listened until it was quiet, just closes the line.

use std::collections::VecDeque;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rumqttc::Outgoing as Sent;
use rumqttc::Transport;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, SubAck};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::bridge::{self, Bridge};
use super::fault::Fault;
use super::reason;
use super::tls::{self, TlsFiles};
use crate::config::settings::{Endpoint, Proxy};
use crate::limits::{
    BRIDGE_LINGER, CONNECT_TIMEOUT, INCOMING_PACKET_BYTES_MAX, KEEP_ALIVE, UPLINK_RECEIVE_MAX, VISIT_IN_FLIGHT_MAX, VISIT_QUEUE_MAX,
};

/// Who visits whom.
#[derive(Clone, Debug)]
pub struct Visitor<'a> {
    pub endpoint: &'a Endpoint,
    /// The way out, for endpoints with TLS.
    pub proxy: Option<&'a Proxy>,
    pub tls: Option<&'a TlsFiles>,
    pub client_id: &'a str,
}

/// Something to publish, QoS 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub topic: String,
    pub payload: Vec<u8>,
    pub retain: bool,
}

/// What is heard, and how long.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Topic filter.
    pub filter: String,
    /// Ends when nothing came for so long.
    pub quiet: Option<Duration>,
    /// Fails when `each` did not leave by then.
    pub deadline: Option<Instant>,
}

/// What happens.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// The subscription is granted.
    Stands,
    /// A publish: topic and payload.
    Came(&'a str, &'a [u8]),
}

/// What is made of it.
#[derive(Debug)]
pub enum Next {
    Stay(Vec<Said>),
    Leave(Vec<Said>),
}

/// How a visit ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Left,
    Quiet,
    Stopped,
}

/// Why a visit failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// The deadline passed while the line was good.
    NoAnswer,
    /// A sentence. `permanent`: trying again does not help unless somebody acts.
    Line { why: String, permanent: bool },
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self::Line { permanent: matches!(fault.pace, super::backoff::Pace::Slow), why: fault.text }
    }
}

/// A private directory for the bridge's socket.
struct Doorstep(PathBuf);

impl Doorstep {
    fn new() -> Result<Self, Failed> {
        let mut random = [0_u8; 8];
        let failed = |why: String| Failed::Line { why, permanent: false };
        getrandom::fill(&mut random).map_err(|error| failed(format!("no random numbers from the system: {error}")))?;
        let path = std::env::temp_dir().join(format!("siteward-visit-{:016x}", u64::from_ne_bytes(random)));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| {
            failed(format!("{}: cannot be made: {error}; set TMPDIR to a directory that can be written", path.display()))
        })?;
        Ok(Self(path))
    }
}

impl Drop for Doorstep {
    fn drop(&mut self) {
        // Nothing of value is in it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// See the module.
pub async fn visit(
    visitor: &Visitor<'_>,
    terms: Terms,
    stop: &mut watch::Receiver<bool>,
    each: impl FnMut(Step<'_>) -> Next,
) -> Result<Ended, Failed> {
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    let tls = visitor.tls.filter(|_| visitor.endpoint.tls).map(tls::client_config).transpose().map_err(|error| Fault::tls(&error))?;
    let doorstep = Doorstep::new()?;
    let proxy = visitor.proxy.filter(|_| visitor.endpoint.tls);
    let opened = bridge::open_through(proxy, visitor.endpoint, tls, &doorstep.0, deadline).await;
    let bridge = opened.map_err(|error| Fault::dial(&error))?;
    let options = options(visitor.client_id, &bridge.socket).ok_or_else(|| Failed::Line {
        why: "the path of the temporary directory is not UTF-8; set TMPDIR to one that is".to_owned(),
        permanent: true,
    })?;
    let (client, events) = AsyncClient::new(options, VISIT_IN_FLIGHT_MAX + 4);
    let mut call = Call { endpoint: visitor.endpoint, bridge: &bridge, client, queue: VecDeque::new(), in_flight: 0, stands: false };
    let ended = call.run(events, terms, stop, each).await;
    drop(call);
    bridge.finish(Instant::now() + BRIDGE_LINGER).await;
    ended
}

fn options(client_id: &str, socket: &Path) -> Option<MqttOptions> {
    let mut options = MqttOptions::new(client_id, socket.to_str()?, 0);
    options
        .set_transport(Transport::Unix)
        .set_keep_alive(KEEP_ALIVE)
        .set_clean_start(true)
        .set_session_expiry_interval(Some(0))
        .set_max_packet_size(Some(INCOMING_PACKET_BYTES_MAX))
        .set_receive_maximum(Some(UPLINK_RECEIVE_MAX))
        .set_connection_timeout(CONNECT_TIMEOUT.as_secs() + 1);
    Some(options)
}

struct Call<'a> {
    endpoint: &'a Endpoint,
    bridge: &'a Bridge,
    client: AsyncClient,
    queue: VecDeque<Said>,
    in_flight: usize,
    /// The subscription is granted.
    stands: bool,
}

impl Call<'_> {
    async fn run(
        &mut self,
        mut events: rumqttc::v5::EventLoop,
        terms: Terms,
        stop: &mut watch::Receiver<bool>,
        mut each: impl FnMut(Step<'_>) -> Next,
    ) -> Result<Ended, Failed> {
        let up_by = Instant::now() + CONNECT_TIMEOUT;
        let (mut leaving, mut quiet_since) = (false, Instant::now());
        loop {
            self.say()?;
            if leaving && self.is_idle() {
                self.client.try_disconnect().map_err(|_| self.late())?;
            }
            let quiet = terms.quiet.filter(|_| self.stands && self.is_idle()).map(|quiet| quiet_since + quiet);
            let by = if self.stands { terms.deadline.unwrap_or_else(|| Instant::now() + 3 * KEEP_ALIVE) } else { up_by };
            let until = quiet.map_or(by, |quiet| quiet.min(by));
            let event = tokio::select! {
                biased;
                _stop = stop.wait_for(|stop| *stop) => return Ok(Ended::Stopped),
                event = timeout_at(until, events.poll()) => event,
            };
            let event = match event {
                Ok(Ok(event)) => event,
                Ok(Err(error)) => return Err(reason::fault(self.endpoint, &error, self.bridge.end(), self.stands).into()),
                Err(_) if quiet.is_some_and(|quiet| quiet <= Instant::now()) => return Ok(Ended::Quiet),
                Err(_) if self.stands && terms.deadline.is_some() => return Err(Failed::NoAnswer),
                Err(_) => return Err(self.late()),
            };
            match event {
                Event::Incoming(Packet::ConnAck(_)) => {
                    if events.options.keep_alive().is_zero() {
                        events.options.set_keep_alive(KEEP_ALIVE); // rumqttc would spin
                    }
                    self.client.try_subscribe(terms.filter.clone(), QoS::AtLeastOnce).map_err(|_| self.late())?;
                }
                Event::Incoming(Packet::SubAck(suback)) => {
                    self.granted(&suback, &terms.filter)?;
                    quiet_since = Instant::now();
                    leaving |= self.take(each(Step::Stands));
                }
                Event::Incoming(Packet::PubAck(answer)) => self.acknowledged(answer.reason)?,
                Event::Incoming(Packet::Publish(publish)) if !leaving && self.queue.len() < VISIT_QUEUE_MAX => {
                    let Ok(topic) = std::str::from_utf8(&publish.topic) else { continue };
                    quiet_since = Instant::now();
                    leaving |= self.take(each(Step::Came(topic, &publish.payload)));
                }
                Event::Outgoing(Sent::Disconnect) => return Ok(Ended::Left),
                _ => {}
            }
        }
    }

    /// Whether it is time to leave.
    fn take(&mut self, next: Next) -> bool {
        let (said, leaving) = match next {
            Next::Stay(said) => (said, false),
            Next::Leave(said) => (said, true),
        };
        self.queue.extend(said);
        leaving
    }

    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.in_flight == 0
    }

    /// Hands over what may be in flight.
    fn say(&mut self) -> Result<(), Failed> {
        while self.in_flight < VISIT_IN_FLIGHT_MAX {
            let Some(Said { topic, payload, retain }) = self.queue.pop_front() else { break };
            self.client.try_publish(topic, QoS::AtLeastOnce, retain, payload).map_err(|_| self.late())?;
            self.in_flight += 1;
        }
        Ok(())
    }

    fn acknowledged(&mut self, answer: PubAckReason) -> Result<(), Failed> {
        self.in_flight = self.in_flight.saturating_sub(1);
        match answer {
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Ok(()),
            other => Err(Failed::Line {
                why: format!("{}: the broker refuses a publish ({other:?}); check its access list", self.endpoint),
                permanent: true,
            }),
        }
    }

    fn granted(&mut self, suback: &SubAck, filter: &str) -> Result<(), Failed> {
        let code = suback.return_codes.first().copied();
        if let Some(fault) = code.and_then(|code| reason::subscription(self.endpoint, filter, code)) {
            return Err(fault.into());
        }
        self.stands = true;
        Ok(())
    }

    fn late(&self) -> Failed {
        let why = format!("{}: the broker does not answer; check that the port speaks MQTT 5", self.endpoint);
        Failed::Line { why, permanent: false }
    }
}
