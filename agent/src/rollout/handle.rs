//! The way from the control socket to the owner of the ledger: a bounded channel of requests, each with its own place for one answer.
//!
//! The desk holds a [`Handle`] and asks from a thread that may block; the shell takes [`Asked`]s between two steps of the machine. A full channel
//! and a missing answer are told at once and after [`ROLLOUT_ANSWER_TIMEOUT`]; a request whose asker went away is still carried out.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::executor::Given;
use super::facts::Generation;
use super::ledger::{Entry, Ledger};
use crate::clock;
use crate::limits::{ROLLOUT_ANSWER_TIMEOUT, ROLLOUT_REQUESTS_MAX};
use crate::record::DocumentDigest;

/// What can be asked of the owner of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    History,
    /// Texts of the committed document and of the one before it.
    Texts,
    Rollback {
        who: String,
        why: String,
    },
    /// What a command may order too.
    Order(Given),
    /// A signed document from a file.
    Apply {
        envelope: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Response {
    History(HistoryView),
    Texts(TextsView),
    Done { done: String },
}

/// The history, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryView {
    /// 0: the local file alone.
    pub running: u64,
    /// Where a rollback goes.
    pub previous: Option<u64>,
    pub history: Vec<EntryView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryView {
    pub revision: u64,
    pub digest: DocumentDigest,
    pub outcome: String,
    pub code: String,
    pub why: String,
    /// RFC 3339.
    pub at: String,
    pub clock_suspect: bool,
    pub attempts: u32,
    pub author: String,
    pub approver: Option<String>,
    pub reason: String,
    pub ticket: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextsView {
    pub committed: TextView,
    pub previous: Option<TextView>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextView {
    /// 0: the local file alone; its text is then empty.
    pub revision: u64,
    pub text: String,
}

impl From<&Entry> for EntryView {
    fn from(entry: &Entry) -> Self {
        Self {
            revision: entry.revision,
            digest: entry.digest,
            outcome: entry.outcome.as_str().to_owned(),
            code: entry.code.clone(),
            why: entry.why.clone(),
            at: clock::rfc3339(entry.at.unix_ms),
            clock_suspect: entry.at.suspect,
            attempts: entry.attempts,
            author: entry.meta.author.clone(),
            approver: entry.meta.approver.clone(),
            reason: entry.meta.reason.clone(),
            ticket: entry.meta.ticket.clone(),
        }
    }
}

impl HistoryView {
    pub fn of(ledger: &Ledger) -> Self {
        Self {
            running: ledger.committed.revision(),
            previous: ledger.previous.as_ref().map(Generation::revision),
            history: ledger.history.iter().rev().map(EntryView::from).collect(),
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
        let (requests, asked) = mpsc::channel(ROLLOUT_REQUESTS_MAX);
        (Self { requests }, asked)
    }

    /// Asks and waits, at most [`ROLLOUT_ANSWER_TIMEOUT`]. Blocking.
    pub fn ask(&self, request: Request) -> Result<Response, String> {
        let (answer, answered): (_, Receiver<_>) = sync_channel(1);
        self.requests.try_send(Asked { request, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => "the configuration is being worked on and others wait already; ask again".to_owned(),
            mpsc::error::TrySendError::Closed(_) => "the agent is stopping; ask again when it runs".to_owned(),
        })?;
        match answered.recv_timeout(ROLLOUT_ANSWER_TIMEOUT) {
            Ok(answer) => answer,
            Err(_) => Err("no answer came in time: the configuration is being worked on; look at `siteward config history`".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_answered_by_the_owner_of_the_ledger() {
        let (handle, mut asked) = Handle::new();
        let owner = std::thread::spawn(move || {
            let asked = asked.blocking_recv().unwrap();
            assert_eq!(asked.request, Request::Rollback { who: "on site".into(), why: "wrong port".into() });
            asked.answer(Ok(Response::Done { done: "back".into() }));
        });
        let answer = handle.ask(Request::Rollback { who: "on site".into(), why: "wrong port".into() });
        assert_eq!(answer, Ok(Response::Done { done: "back".into() }));
        owner.join().unwrap();
    }

    /// I4: what waits is bounded, and an owner that went away is told.
    #[test]
    fn a_full_channel_and_a_missing_owner_are_told_at_once() {
        let (handle, asked) = Handle::new();
        let (answer, _answered) = sync_channel(1);
        for _ in 0..ROLLOUT_REQUESTS_MAX {
            handle.requests.try_send(Asked { request: Request::History, answer: answer.clone() }).unwrap();
        }
        assert!(handle.ask(Request::History).unwrap_err().contains("others wait"));
        drop(asked);
        assert!(handle.ask(Request::History).unwrap_err().contains("stopping"));
    }
}
