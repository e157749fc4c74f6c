//! The way from the control socket to the keeper: a bounded channel of requests, each with its own place for one answer.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::contract::{CertificateOutcome, RenewalState};
use crate::limits::{RENEWAL_ASKED_MAX, ROLLOUT_ANSWER_TIMEOUT};

/// What can be asked of the keeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Show,
    Renew {
        by: String,
        trial: Duration,
    },
    /// A certificate with its intermediates, PEM.
    Install {
        by: String,
        chain: String,
    },
    Cancel {
        by: String,
    },
}

/// How the gateway's certificate stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    pub state: RenewalState,
    /// What asked; null: somebody on site.
    pub request: Option<String>,
    /// The request for a certificate, PEM.
    pub csr: Option<String>,
    pub last: Option<CertificateOutcome>,
    /// The file of the certificate in use, where it is one that was renewed.
    pub renewed: Option<String>,
    /// RFC 3339: when it ends.
    pub ends: Option<String>,
    /// A sentence about what was just done.
    pub done: Option<String>,
}

/// A request with the place for its answer.
#[derive(Debug)]
pub struct Asked {
    pub request: Request,
    answer: SyncSender<Result<View, String>>,
}

impl Asked {
    pub fn answer(self, answer: Result<View, String>) {
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
        let (requests, asked) = mpsc::channel(RENEWAL_ASKED_MAX);
        (Self { requests }, asked)
    }

    /// Asks and waits for a bounded time. Blocking.
    pub fn ask(&self, request: Request) -> Result<View, String> {
        let (answer, answered) = sync_channel(1);
        self.requests.try_send(Asked { request, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => "others ask about certificates already; ask again".to_owned(),
            mpsc::error::TrySendError::Closed(_) => "the agent is stopping; ask again when it runs".to_owned(),
        })?;
        let late = |_| "no answer came in time; is the disk of the spool slow? Look at `siteward certs show`".to_owned();
        answered.recv_timeout(ROLLOUT_ANSWER_TIMEOUT).map_err(late)?
    }
}
