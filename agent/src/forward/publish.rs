//! What goes on the wire: the contract's payloads and topics as publishes.

use bytes::Bytes;
use serde::Serialize;

use super::core::Control;
use super::mailbox::Letter;
use crate::clock;
use crate::contract::topic::Topics;
use crate::contract::{GatewayState, OnlineState, Outcome, event};
use crate::record::{FeedId, Lane, Name, Record};
use crate::source::charset;
use crate::uplink::Outgoing;

const JSON: &str = "application/json";

/// Who publishes.
#[derive(Debug)]
pub struct Publisher {
    site: Name,
    gateway: Name,
    topics: Topics,
}

fn json(value: &impl Serialize) -> Bytes {
    Bytes::from(serde_json::to_vec(value).expect("the contract's types have text keys and no failing parts"))
}

impl Publisher {
    pub fn new(site: &Name, gateway: &Name) -> Self {
        Self { site: site.clone(), gateway: gateway.clone(), topics: Topics::new(site, gateway) }
    }

    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Topic and payload of the last will.
    pub fn will(&self) -> (String, Bytes) {
        (self.topics.status(), json(&Self::state(OnlineState::Offline, None)))
    }

    fn state(state: OnlineState, since: Option<String>) -> GatewayState {
        GatewayState { state, version: env!("CARGO_PKG_VERSION").into(), since }
    }

    fn plain(token: u64, topic: String, payload: Bytes, retain: bool) -> Outgoing {
        Outgoing { token, topic, payload, content_type: Some(JSON.into()), properties: Vec::new(), retain }
    }

    pub fn control(&self, token: u64, what: &Control) -> Outgoing {
        match what {
            Control::Status(state) => {
                let since = clock::rfc3339(clock::now().unix_ms);
                Self::plain(token, self.topics.status(), json(&Self::state(*state, Some(since))), true)
            }
            Control::Mail(letter) => {
                let (topic, retain) = match letter {
                    Letter::Reported(_) => (self.topics.reported(), true),
                    Letter::CommandResult(_) => (self.topics.command_result(), false),
                    Letter::Audit(_) => (self.topics.audit(), false),
                };
                Self::plain(token, topic, letter.payload().clone(), retain)
            }
            Control::Checkpoint(checkpoint) => Self::plain(token, self.topics.checkpoint(), json(checkpoint), false),
        }
    }

    pub fn outcome(&self, token: u64, feed: &FeedId, outcome: &Outcome) -> Outgoing {
        Self::plain(token, self.topics.outcome(feed), json(outcome), false)
    }

    /// The message as received. The body is shared, not copied.
    pub fn event(&self, token: u64, lane: Lane, charset: charset::Rule, record: &Record) -> Outgoing {
        Outgoing {
            token,
            topic: self.topics.event(&record.feed),
            payload: record.body.expose().clone(),
            content_type: Some(event::media_type(record).into()),
            properties: event::raw_attributes(&self.site, &self.gateway, lane, charset, record),
            retain: false,
        }
    }
}
