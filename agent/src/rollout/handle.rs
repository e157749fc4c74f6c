//! What the control socket can ask of the owner of the ledger (see `status::inquiry`), and how it looks to people and programs.

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::executor::Given;
use super::facts::Generation;
use super::ledger::{Entry, Ledger};
use crate::clock;
use crate::limits::{ROLLOUT_ANSWER_TIMEOUT, ROLLOUT_REQUESTS_MAX};
use crate::record::DocumentDigest;
use crate::status::inquiry;

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

pub type Asked = inquiry::Asked<Request, Response>;
pub type Handle = inquiry::Handle<Request, Response>;

/// How the owner of the ledger is asked.
pub fn open() -> (Handle, mpsc::Receiver<Asked>) {
    Handle::new(inquiry::Terms {
        waiting_max: ROLLOUT_REQUESTS_MAX,
        patience: ROLLOUT_ANSWER_TIMEOUT,
        busy: "the configuration is being worked on and others wait already; ask again",
        late: "no answer came in time: the configuration is being worked on; look at `siteward config history`",
    })
}
