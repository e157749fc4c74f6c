//! A visit that only listens: subscribes, and hands on what the broker keeps and what comes, until the connection ends or nobody listens.
//!
//! 1. Without a session and at QoS 0: a broker queues a limited number of messages above that for one client (Mosquitto: 1,000 by default), fewer
//!    than a fleet has gateways, and drops the rest without a word. What is lost all the same comes again: asked for ([`Listen::again`]) or told.
//! 2. Whoever listens slowly is not read for: the channel is bounded, then the broker's socket fills.
//! 3. The largest packet we announce is `FLEET_PACKET_BYTES_MAX`; a larger one the broker keeps to itself.

use std::path::Path;

use bytes::Bytes;
use rumqttc::Outgoing as Sent;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval_at, timeout_at};

use super::{chain, options, reason};
use crate::config::settings::Endpoint;
use crate::limits::{BRIDGE_LINGER, CONNECT_TIMEOUT, FLEET_PACKET_BYTES_MAX, FLEET_RESYNC, KEEP_ALIVE};
use crate::uplink::bridge;
use crate::uplink::tls::{self, TlsFiles};

/// What a listener hears.
pub(in crate::hub) enum Heard {
    /// The subscriptions stand; what is kept comes next.
    Stands,
    Publish {
        topic: String,
        payload: Bytes,
        retained: bool,
    },
}

/// Whom to listen to.
pub(in crate::hub) struct Listen<'a> {
    pub endpoint: &'a Endpoint,
    pub tls: Option<&'a TlsFiles>,
    pub client_id: &'a str,
    pub directory: &'a Path,
    pub filters: &'a [String],
}

impl Listen<'_> {
    /// Listens until the connection ends (`Err`, a sentence), until `stop` says so, or until nobody takes what is heard.
    pub async fn run(&self, heard: &mpsc::Sender<Heard>, mut stop: watch::Receiver<bool>) -> Result<(), String> {
        let Self { endpoint, tls, client_id, directory, .. } = self;
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let tls = tls.filter(|_| endpoint.tls).map(tls::client_config).transpose().map_err(|error| chain(&error))?;
        let bridge = bridge::open(endpoint, tls, directory, deadline).await.map_err(|error| chain(&error))?;
        let mut options = options(client_id, &bridge)?;
        options.set_clean_start(true).set_session_expiry_interval(Some(0)).set_manual_acks(false);
        options.set_max_packet_size(Some(FLEET_PACKET_BYTES_MAX));
        let (client, mut events) = AsyncClient::new(options, 16);
        let again = async {
            let mut again = interval_at(Instant::now() + FLEET_RESYNC, FLEET_RESYNC);
            loop {
                again.tick().await;
                // One that cannot be sent is sent an hour later.
                let _ = client.try_subscribe_many(self.subscriptions());
            }
        };
        let listen = async {
            let mut stands = false;
            loop {
                let patience = if stands { Instant::now() + 3 * KEEP_ALIVE } else { deadline };
                let event = timeout_at(patience, events.poll())
                    .await
                    .map_err(|_| "does not answer; check that the port speaks MQTT 5".to_owned())?;
                match event.map_err(|error| reason(&bridge, &error))? {
                    Event::Incoming(Packet::ConnAck(_)) => {
                        if events.options.keep_alive().is_zero() {
                            events.options.set_keep_alive(KEEP_ALIVE); // rumqttc would spin
                        }
                        client
                            .try_subscribe_many(self.subscriptions())
                            .map_err(|_| "the subscriptions cannot be sent; please report this")?;
                    }
                    Event::Incoming(Packet::SubAck(suback)) => {
                        self.granted(&suback.return_codes)?;
                        stands = true;
                        if heard.send(Heard::Stands).await.is_err() {
                            client.try_disconnect().map_err(|_| "the goodbye cannot be sent; please report this")?;
                        }
                    }
                    Event::Incoming(Packet::Publish(publish)) => {
                        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                        let publish = Heard::Publish { topic, payload: publish.payload, retained: publish.retain };
                        if heard.send(publish).await.is_err() {
                            return Ok(());
                        }
                    }
                    Event::Outgoing(Sent::Disconnect) => return Ok(()),
                    Event::Incoming(_) | Event::Outgoing(_) => {}
                }
            }
        };
        let ended: Result<(), String> = tokio::select! {
            ended = listen => ended,
            () = again => Ok(()),
            // An error means that whoever could ask is gone, which asks for it too.
            _ = stop.wait_for(|stop| *stop) => Ok(()),
        };
        drop((client, events));
        bridge.finish(Instant::now() + BRIDGE_LINGER).await;
        ended.map_err(|why| format!("{endpoint}: {why}"))
    }

    fn subscriptions(&self) -> Vec<Filter> {
        self.filters.iter().map(|filter| Filter::new(filter.clone(), QoS::AtMostOnce)).collect()
    }

    fn granted(&self, codes: &[SubscribeReasonCode]) -> Result<(), String> {
        let refused = self.filters.iter().zip(codes).find(|(_, code)| !matches!(code, SubscribeReasonCode::Success(_)));
        match refused {
            Some((filter, code)) => Err(format!("the broker does not let this client read {filter} ({code:?}); check its access list")),
            None if codes.len() == self.filters.len() => Ok(()),
            None => Err("the broker's SUBACK does not answer every subscription".into()),
        }
    }
}
