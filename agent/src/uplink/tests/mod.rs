//! The uplink against a broker that misbehaves on purpose.

mod broker;
mod connecting;
mod endings;
mod endpoints;
mod publishing;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::time::timeout;

use self::broker::{Broker, Client, HANGS};
use super::{AckReason, NotTaken, Outgoing, Timing, Uplink, UplinkEvent, UplinkIdentity};
use crate::config::settings::{Confirm, Endpoint, OnNoSubscriber, UplinkSettings};
use crate::status::board::Board;

fn timing() -> Timing {
    Timing {
        keep_alive: Duration::from_secs(5),
        ack_stall: HANGS,
        connect: Duration::from_secs(10),
        backoff_min: Duration::from_millis(5),
        backoff_max: Duration::from_millis(20),
        backoff_slow: Duration::from_millis(40),
        steady: HANGS,
        return_min: HANGS * 10,
        return_dial_max: HANGS * 10,
        return_max: HANGS * 10,
        leave: HANGS,
    }
}

fn settings(endpoints: Vec<Endpoint>, in_flight: usize) -> UplinkSettings {
    UplinkSettings {
        endpoints,
        ca: None,
        cert: None,
        key: None,
        proxy: None,
        in_flight,
        confirm: Confirm::Receipt,
        receipt_timeout: HANGS,
        on_no_subscriber: OnNoSubscriber::Hold,
    }
}

fn identity(directory: &TempDir) -> UplinkIdentity {
    UplinkIdentity {
        client_id: "st-marys-gw1".into(),
        will: ("siteward/v1/s/g/status".into(), Bytes::from_static(b"offline")),
        subscriptions: vec!["siteward/v1/s/g/receipt".into()],
        optional: vec!["siteward/v1/s/g/command".into()],
        directory: directory.path().join("run"),
    }
}

struct Site {
    uplink: Uplink,
    board: Arc<Board>,
    directory: TempDir,
}

impl Site {
    fn start(brokers: &[&Broker], in_flight: usize, timing: Timing) -> Self {
        Self::start_at(brokers.iter().map(|broker| broker.endpoint.clone()).collect(), in_flight, timing)
    }

    fn start_at(endpoints: Vec<Endpoint>, in_flight: usize, timing: Timing) -> Self {
        Self::start_as(settings(endpoints, in_flight), timing)
    }

    fn start_as(settings: UplinkSettings, timing: Timing) -> Self {
        let directory = TempDir::new().unwrap();
        let board = Board::new([]);
        let runtime = tokio::runtime::Handle::current();
        let uplink = Uplink::start_with(settings, identity(&directory), board.clone(), &runtime, timing);
        Self { uplink, board, directory }
    }

    async fn event(&mut self) -> UplinkEvent {
        timeout(HANGS, self.uplink.event()).await.expect("an event comes")
    }

    /// Waits for `Up` and gives its window.
    async fn up(&mut self) -> usize {
        match self.event().await {
            UplinkEvent::Up { window, .. } => window,
            other => panic!("not up: {other:?}"),
        }
    }

    async fn down(&mut self) -> String {
        match self.event().await {
            UplinkEvent::Down { error } => error,
            other => panic!("not down: {other:?}"),
        }
    }

    async fn acked(&mut self) -> (u64, AckReason) {
        match self.event().await {
            UplinkEvent::Acked { token, reason } => (token, reason),
            other => panic!("not acked: {other:?}"),
        }
    }

    fn publish(&self, token: u64) -> Result<(), NotTaken> {
        self.publish_bytes(token, token.to_string().into_bytes())
    }

    fn publish_bytes(&self, token: u64, payload: Vec<u8>) -> Result<(), NotTaken> {
        let outgoing = Outgoing {
            token,
            topic: "siteward/v1/s/g/event/f".into(),
            payload: payload.into(),
            content_type: Some("application/hl7-v2".into()),
            properties: vec![("id".into(), token.to_string())],
            retain: false,
        };
        self.uplink.try_publish(outgoing).map_err(|(reason, back)| {
            assert_eq!((back.token, back.topic.as_str()), (token, "siteward/v1/s/g/event/f"));
            reason
        })
    }

    fn conditions(&self) -> Vec<&'static str> {
        self.board.conditions().iter().map(|condition| condition.code).collect()
    }

    /// Waits until the board says so.
    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(HANGS, waiting).await.unwrap_or_else(|_| panic!("{what}: {:?}", self.board.conditions()));
    }
}

async fn connected(in_flight: usize) -> (Broker, Client, Site) {
    connected_with(in_flight, timing()).await
}

async fn connected_with(in_flight: usize, timing: Timing) -> (Broker, Client, Site) {
    let broker = Broker::start().await;
    let mut site = Site::start(&[&broker], in_flight, timing);
    let client = broker.welcome(|_| {}).await;
    site.up().await;
    (broker, client, site)
}
