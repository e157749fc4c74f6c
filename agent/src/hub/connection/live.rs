//! A connection that stays: hears what gateways report, and publishes retained messages one after the other, each answered by the broker.
//!
//! ```text
//!   publishes (bounded) ──► task: one in flight ──► broker
//!   news (bounded) ◄─────── task ◄───────────────── subscriptions
//! ```
//!
//! 1. No session: what is kept comes again with every connection, and what was published and not answered is published again by whoever asked.
//! 2. One publish is in flight at a time, so that an answer is of the one that was sent.
//! 3. A lost connection is told as [`News::Lost`], with the reason, and ends the task. Whoever holds it opens another.
//! 4. Full: a slow reader slows the connection; nothing is dropped.

use std::collections::VecDeque;
use std::path::Path;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet, PubAckReason, RetainForwardRule, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, EventLoop};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::{chain, options, reason};
use crate::config::settings::Endpoint;
use crate::limits::{ACK_STALL, BRIDGE_LINGER, CONNECT_TIMEOUT, KEEP_ALIVE, LIVE_QUEUE};
use crate::uplink::bridge::{self, Bridge};
use crate::uplink::tls::{self, TlsFiles};

/// What comes.
#[derive(Debug)]
pub enum News {
    /// Every subscription stands; what the broker keeps follows.
    Up,
    Heard {
        topic: String,
        payload: Vec<u8>,
    },
    /// The broker has the publish.
    Sent(u64),
    /// It does not take it.
    Refused(u64, String),
    /// Another client has our name: somebody else is at work.
    TakenOver,
    Lost(String),
}

/// A publish; `token` comes back with its answer.
#[derive(Debug)]
pub struct Say {
    pub token: u64,
    pub topic: String,
    pub payload: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub struct Live {
    pub news: mpsc::Receiver<News>,
    says: mpsc::Sender<Say>,
    task: JoinHandle<()>,
}

impl Live {
    /// Connects and subscribes. The error is a sentence.
    pub async fn open(
        endpoint: &Endpoint,
        tls: Option<&TlsFiles>,
        (client_id, directory): (&str, &Path),
        filters: &[String],
    ) -> Result<Self, String> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let tls = tls.filter(|_| endpoint.tls).map(tls::client_config).transpose().map_err(|error| chain(&error))?;
        let bridge = bridge::open(endpoint, tls, directory, deadline).await.map_err(|error| chain(&error))?;
        let mut options = options(client_id, &bridge)?;
        options.set_clean_start(true).set_session_expiry_interval(Some(0)).set_manual_acks(false);
        let (client, events) = AsyncClient::new(options, 16);
        let (says, said) = mpsc::channel(LIVE_QUEUE);
        let (heard, news) = mpsc::channel(LIVE_QUEUE);
        let filters = filters.iter().map(|filter| of(filter)).collect();
        let talk = Talk { endpoint: endpoint.clone(), client, events, bridge, filters, heard, in_flight: None, waiting: VecDeque::new() };
        Ok(Self { news, says, task: tokio::spawn(talk.run(said)) })
    }

    /// Hands a publish over. False: there is no room now, or the connection has ended, which [`News::Lost`] says.
    pub fn try_say(&self, say: Say) -> bool {
        self.says.try_send(say).is_ok()
    }
}

/// Of what desks publish only what others publish from now on is asked for; of everything else what is kept too.
fn of(topic: &str) -> Filter {
    let mut filter = Filter::new(topic.to_owned(), QoS::AtLeastOnce);
    if topic.ends_with("/config/desired") {
        (filter.nolocal, filter.retain_forward_rule) = (true, RetainForwardRule::Never);
    }
    filter
}

impl Drop for Live {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Talk {
    endpoint: Endpoint,
    client: AsyncClient,
    events: EventLoop,
    bridge: Bridge,
    filters: Vec<Filter>,
    heard: mpsc::Sender<News>,
    in_flight: Option<(u64, String, Instant)>,
    waiting: VecDeque<Say>,
}

/// How it ended; `None`: nobody listens any more.
type End = Option<News>;

impl Talk {
    async fn run(mut self, mut said: mpsc::Receiver<Say>) {
        let end = loop {
            // `poll` is not cancel-safe, so says are taken between its turns: it returns at the latest with the next ping.
            while self.waiting.len() < LIVE_QUEUE
                && let Ok(say) = said.try_recv()
            {
                self.waiting.push_back(say);
            }
            if let Err(end) = self.publish_next() {
                break end;
            }
            if let Err(end) = self.turn(&mut said).await {
                break end;
            }
        };
        if let Some(news) = end {
            // Whoever dropped the receiver does not want to know.
            let _ = self.heard.send(news).await;
        }
        drop(self.events);
        self.bridge.finish(Instant::now() + BRIDGE_LINGER).await;
    }

    fn publish_next(&mut self) -> Result<(), End> {
        if self.in_flight.is_none()
            && let Some(Say { token, topic, payload }) = self.waiting.pop_front()
        {
            self.in_flight = Some((token, topic.clone(), Instant::now()));
            self.client
                .try_publish(topic, QoS::AtLeastOnce, true, payload)
                .map_err(|_| Some(News::Lost("the publish cannot be sent; please report this".to_owned())))?;
        }
        Ok(())
    }

    /// One event of the connection, or something to say.
    async fn turn(&mut self, said: &mut mpsc::Receiver<Say>) -> Result<(), End> {
        let patience = self.in_flight.as_ref().map_or_else(|| Instant::now() + 3 * KEEP_ALIVE, |(.., since)| *since + ACK_STALL);
        let lost = |why: String| Some(News::Lost(why));
        // A poll that has begun is never dropped: what is to be said meanwhile waits in the client, and the poll sends it.
        let event = {
            let mut poll = std::pin::pin!(timeout_at(patience, self.events.poll()));
            loop {
                let idle = self.in_flight.is_none() && self.waiting.is_empty();
                tokio::select! {
                    event = &mut poll => break event,
                    say = said.recv(), if idle => match say {
                        Some(Say { token, topic, payload }) => {
                            self.in_flight = Some((token, topic.clone(), Instant::now()));
                            let sent = self.client.try_publish(topic, QoS::AtLeastOnce, true, payload);
                            sent.map_err(|_| lost("the publish cannot be sent; please report this".to_owned()))?;
                        }
                        None => return Err(None),
                    },
                }
            }
        };
        match event {
            Ok(Ok(event)) => self.take(event).await,
            Ok(Err(error)) => {
                let why = reason(&self.bridge, &error);
                let taken = why.contains("SessionTakenOver") || why.contains("0x8e");
                Err(Some(if taken { News::TakenOver } else { News::Lost(format!("{}: {why}", self.endpoint)) }))
            }
            Err(_) => Err(lost(format!("{}: the broker does not answer though the line is up; check the broker", self.endpoint))),
        }
    }

    async fn take(&mut self, event: Event) -> Result<(), End> {
        let news = match event {
            Event::Incoming(Packet::ConnAck(_)) => {
                if self.events.options.keep_alive().is_zero() {
                    self.events.options.set_keep_alive(KEEP_ALIVE); // rumqttc would spin
                }
                let filters = std::mem::take(&mut self.filters);
                let sent = self.client.try_subscribe_many(filters);
                sent.map_err(|_| Some(News::Lost("the subscriptions cannot be sent; please report this".to_owned())))?;
                return Ok(());
            }
            Event::Incoming(Packet::SubAck(answer)) => {
                if let Some(code) = answer.return_codes.iter().find(|code| !matches!(code, SubscribeReasonCode::Success(_))) {
                    let why = format!(
                        "{}: the broker does not let us read what gateways report ({code:?}); check its access list",
                        self.endpoint
                    );
                    return Err(Some(News::Lost(why)));
                }
                News::Up
            }
            Event::Incoming(Packet::Publish(publish)) => {
                News::Heard { topic: String::from_utf8_lossy(&publish.topic).into_owned(), payload: publish.payload.to_vec() }
            }
            Event::Incoming(Packet::PubAck(answer)) => {
                let Some((token, topic, _)) = self.in_flight.take() else { return Ok(()) };
                match answer.reason {
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers => News::Sent(token),
                    other => News::Refused(
                        token,
                        format!("{}: the broker refuses the publish on {topic} ({other:?}); check its access list", self.endpoint),
                    ),
                }
            }
            Event::Incoming(_) | Event::Outgoing(_) => return Ok(()),
        };
        self.heard.send(news).await.map_err(|_| None)
    }
}
