//! What goes on the wire: the contract's payloads and topics as publishes.

use bytes::Bytes;
use serde::Serialize;

use super::core::Control;
use super::mailbox::Letter;
use crate::alerts::view::{AlertsView, Window};
use crate::clock;
use crate::contract::topic::Topics;
use crate::contract::{ConditionTold, GatewayState, OnlineState, Outcome, WindowTold, event};
use crate::limits::{CONDITION_TEXT_CHARS_MAX, CONDITIONS_TOLD_MAX, MAINTENANCE_TOLD_MAX};
use crate::record::{FeedId, Lane, Name, Record};
use crate::source::charset;
use crate::status::board::Board;
use crate::status::condition::Condition;
use crate::uplink::Outgoing;

const JSON: &str = "application/json";

/// Who publishes.
#[derive(Debug)]
pub struct Publisher {
    site: Name,
    gateway: Name,
    topics: Topics,
    /// Since when it is online, RFC 3339.
    online_since: Option<String>,
}

fn json(value: &impl Serialize) -> Bytes {
    Bytes::from(serde_json::to_vec(value).expect("the contract's types have text keys and no failing parts"))
}

impl Publisher {
    pub fn new(site: &Name, gateway: &Name) -> Self {
        Self { site: site.clone(), gateway: gateway.clone(), topics: Topics::new(site, gateway), online_since: None }
    }

    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// There is a connection from now on.
    pub fn connected(&mut self) {
        self.online_since = Some(clock::rfc3339(clock::now().unix_ms));
    }

    /// Topic and payload of the last will.
    pub fn will(&self) -> (String, Bytes) {
        (self.topics.status(), json(&Self::state(OnlineState::Offline, None)))
    }

    fn state(state: OnlineState, since: Option<String>) -> GatewayState {
        let version = env!("CARGO_PKG_VERSION").into();
        GatewayState {
            state,
            version,
            since,
            at: None,
            spool: None,
            conditions: Vec::new(),
            conditions_left_out: 0,
            maintenance: Vec::new(),
        }
    }

    /// What is the matter, as far as there is room: the status must fit any broker.
    fn told(mut conditions: Vec<Condition>, alerts: &AlertsView) -> (Vec<ConditionTold>, u64) {
        conditions.sort_by_key(|condition| std::cmp::Reverse(condition.severity));
        let left_out = conditions.len().saturating_sub(CONDITIONS_TOLD_MAX) as u64;
        let cut = |text: String| text.chars().take(CONDITION_TEXT_CHARS_MAX).collect();
        let told = conditions.into_iter().take(CONDITIONS_TOLD_MAX).map(|condition| ConditionTold {
            quiet: alerts.is_quiet(condition.code, &condition.subject),
            code: condition.code.to_owned(),
            severity: condition.severity.as_str().to_owned(),
            subject: cut(condition.subject),
            text: cut(condition.text),
            since: condition.since,
        });
        (told.collect(), left_out)
    }

    /// Windows of the gateway: told before the line goes that is being worked on.
    fn windows(alerts: &AlertsView) -> Vec<WindowTold> {
        let whole = alerts.windows.iter().filter(|window| window.feed.is_none());
        let told = |window: &Window| WindowTold { from: window.from.clone(), until: window.until.clone(), reason: window.reason.clone() };
        whole.take(MAINTENANCE_TOLD_MAX).map(told).collect()
    }

    fn plain(token: u64, topic: String, payload: Bytes, retain: bool) -> Outgoing {
        Outgoing { token, topic, payload, content_type: Some(JSON.into()), properties: Vec::new(), retain }
    }

    /// The board says what is the matter and what waits.
    pub fn control(&self, token: u64, what: &Control, board: &Board) -> Outgoing {
        match what {
            Control::Status(state) => {
                let now = clock::rfc3339(clock::now().unix_ms);
                let since = self.online_since.clone().filter(|_| *state == OnlineState::Online).unwrap_or_else(|| now.clone());
                let mut status = Self::state(*state, Some(since));
                (status.at, status.spool) = (Some(now), board.spool_told());
                let alerts = board.alerts();
                (status.conditions, status.conditions_left_out) = Self::told(board.conditions(), &alerts);
                status.maintenance = Self::windows(&alerts);
                Self::plain(token, self.topics.status(), json(&status), true)
            }
            Control::Mail(letter) => {
                let (topic, retain) = match letter {
                    Letter::Reported(_) => (self.topics.reported(), true),
                    Letter::Certificate(_) => (self.topics.certificate_request(), true),
                    Letter::CommandResult(_) => (self.topics.command_result(), false),
                    Letter::Audit(_) => (self.topics.audit(), false),
                    // The shell knows the feed's lane and character set, and publishes it as the event it is.
                    Letter::Released(record) => return self.event(token, Lane::Normal, charset::Rule::default(), record),
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
