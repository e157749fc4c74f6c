//! What the control socket can ask of the keeper of the overrides (see `status::inquiry`), and how they look to people and programs.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{Change, Kind, Override};
use crate::clock;
use crate::limits::{OVERRIDE_ANSWER_TIMEOUT, OVERRIDE_REQUESTS_MAX};
use crate::record::FeedId;
use crate::status::inquiry;

/// What can be asked of the keeper.
#[derive(Clone, Debug)]
pub enum Request {
    List,
    Set {
        feed: FeedId,
        change: Change,
        time: Duration,
        who: String,
        reason: String,
    },
    /// Those of a feed, of one kind or all.
    Clear {
        feed: FeedId,
        kind: Option<Kind>,
        who: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Response {
    List { overrides: Vec<View> },
    Done { done: String },
}

/// One override, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    pub feed: FeedId,
    pub change: Kind,
    /// The port, or the peers; empty for a pause.
    pub value: String,
    pub who: String,
    pub reason: String,
    /// RFC 3339.
    pub set_at: String,
    /// What was asked for.
    pub for_s: u64,
    /// What is left of it; only where it is asked for, it changes all the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_s: Option<u64>,
}

impl From<&Override> for View {
    fn from(one: &Override) -> Self {
        Self {
            feed: one.what.feed.clone(),
            change: one.what.change.kind(),
            value: one.what.change.value(),
            who: one.who.clone(),
            reason: one.reason.clone(),
            set_at: clock::rfc3339(one.set_at.unix_ms),
            for_s: one.asked.as_secs(),
            left_s: None,
        }
    }
}

pub type Asked = inquiry::Asked<Request, Response>;
pub type Handle = inquiry::Handle<Request, Response>;

/// How the keeper is asked.
pub fn open() -> (Handle, mpsc::Receiver<Asked>) {
    Handle::new(inquiry::Terms {
        waiting_max: OVERRIDE_REQUESTS_MAX,
        patience: OVERRIDE_ANSWER_TIMEOUT,
        busy: "the overrides are being worked on and others wait already; ask again",
        late: "no answer came in time; what became of it is in `siteward override list`",
    })
}
