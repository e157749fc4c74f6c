//! What the control socket and signed commands can ask of the keeper (see `status::inquiry`): maintenance windows.

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::view::Window;
use super::windows::Wish;
use crate::limits::{MAINTENANCE_ANSWER_TIMEOUT, MAINTENANCE_REQUESTS_MAX};
use crate::status::inquiry;

#[derive(Clone, Debug)]
pub enum Request {
    List,
    Start(Wish),
    End { id: u64, who: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Response {
    List { maintenance: Vec<Window> },
    Done { done: String },
}

pub type Asked = inquiry::Asked<Request, Response>;
pub type Handle = inquiry::Handle<Request, Response>;

/// How the keeper is asked.
pub fn open() -> (Handle, mpsc::Receiver<Asked>) {
    Handle::new(inquiry::Terms {
        waiting_max: MAINTENANCE_REQUESTS_MAX,
        patience: MAINTENANCE_ANSWER_TIMEOUT,
        busy: "maintenance windows are being worked on and others wait already; ask again",
        late: "no answer came in time; what became of it is in `siteward maintenance list`",
    })
}
