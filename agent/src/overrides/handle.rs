//! The way from the control socket to the keeper of the overrides: a bounded channel of requests, each with its own place for one answer.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{Change, Kind, Override};
use crate::clock;
use crate::limits::{OVERRIDE_ANSWER_TIMEOUT, OVERRIDE_REQUESTS_MAX};
use crate::record::FeedId;

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
            feed: one.feed.clone(),
            change: one.change.kind(),
            value: one.change.value(),
            who: one.who.clone(),
            reason: one.reason.clone(),
            set_at: clock::rfc3339(one.set_at.unix_ms),
            for_s: one.asked.as_secs(),
            left_s: None,
        }
    }
}

/// A request with the place for its answer.
#[derive(Debug)]
pub struct Asked {
    pub request: Request,
    answer: SyncSender<Result<Response, String>>,
}

impl Asked {
    pub fn answer(self, answer: Result<Response, String>) {
        // Fails only where the asker has gone.
        let _ = self.answer.try_send(answer);
    }
}

/// The asking end; cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::Sender<Asked>,
}

impl Handle {
    pub fn new() -> (Self, mpsc::Receiver<Asked>) {
        let (requests, asked) = mpsc::channel(OVERRIDE_REQUESTS_MAX);
        (Self { requests }, asked)
    }

    /// Asks and waits, at most [`OVERRIDE_ANSWER_TIMEOUT`]. Blocking.
    pub fn ask(&self, request: Request) -> Result<Response, String> {
        let (answer, answered): (_, Receiver<_>) = sync_channel(1);
        self.requests.try_send(Asked { request, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => "the overrides are being worked on and others wait already; ask again".to_owned(),
            mpsc::error::TrySendError::Closed(_) => "the agent is stopping; ask again when it runs".to_owned(),
        })?;
        match answered.recv_timeout(OVERRIDE_ANSWER_TIMEOUT) {
            Ok(answer) => answer,
            Err(_) => Err("no answer came in time; what became of it is in `siteward override list`".to_owned()),
        }
    }
}
