//! What the control socket can ask of the keeper of the certificate (see `status::inquiry`), and how it stands.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::contract::{CertificateOutcome, RenewalState};
use crate::limits::{RENEWAL_ASKED_MAX, ROLLOUT_ANSWER_TIMEOUT};
use crate::status::inquiry;

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

pub type Asked = inquiry::Asked<Request, View>;
pub type Handle = inquiry::Handle<Request, View>;

/// How the keeper is asked.
pub fn open() -> (Handle, mpsc::Receiver<Asked>) {
    Handle::new(inquiry::Terms {
        waiting_max: RENEWAL_ASKED_MAX,
        patience: ROLLOUT_ANSWER_TIMEOUT,
        busy: "others ask about certificates already; ask again",
        late: "no answer came in time; is the disk of the spool slow? Look at `siteward certs show`",
    })
}
