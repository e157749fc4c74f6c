//! What is shown of alerts and maintenance windows, on every surface alike.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::record::FeedId;

/// A maintenance window that holds or is planned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    pub id: u64,
    /// Null: the gateway as a whole.
    pub feed: Option<FeedId>,
    /// RFC 3339: it is planned, and begins then; absent: it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    pub who: String,
    pub reason: String,
    /// RFC 3339.
    pub set_at: String,
    pub for_s: u64,
    /// What counts: by time that passes.
    pub left_s: u64,
    /// RFC 3339, by the clock as it is now; for people.
    pub until: String,
}

/// Why a condition does not alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silenced {
    /// The window's id.
    pub window: u64,
    /// RFC 3339, for people.
    pub until: String,
    pub reason: String,
}

/// How the syslog receiver is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertsShown {
    /// Where lines go; null: nowhere.
    pub syslog: Option<String>,
    /// Lines, since the agent started.
    pub sent: u64,
    pub waiting: u64,
    pub dropped: u64,
    /// Why the receiver does not take lines now; null while it does.
    pub error: Option<String>,
}

/// What the keeper tells the board.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertsView {
    /// By code and subject: whether somebody is alerted, and what silences it.
    pub states: BTreeMap<(&'static str, String), (bool, Option<Silenced>)>,
    pub windows: Vec<Window>,
    pub shown: AlertsShown,
    /// How often an agent was started on this spool.
    pub starts: u64,
}

impl AlertsView {
    /// It is known that nobody is to be alerted of it, yet or for a while. What was not looked at is not quiet.
    pub fn is_quiet(&self, code: &str, subject: &str) -> bool {
        self.states.iter().any(|((known, about), (alerting, _))| *known == code && about == subject && !alerting)
    }

    /// Whether what the hub is told differs: what is quiet, and the windows.
    pub fn differs(&self, other: &Self) -> bool {
        let flags = |view: &Self| view.states.iter().map(|(key, (alerting, _))| (key.clone(), *alerting)).collect::<Vec<_>>();
        let windows = |view: &Self| view.windows.iter().map(|window| (window.id, window.from.is_some())).collect::<Vec<_>>();
        flags(self) != flags(other) || windows(self) != windows(other)
    }

    pub fn of(&self, code: &str, subject: &str) -> (bool, Option<Silenced>) {
        self.states.iter().find(|((known, about), _)| *known == code && about == subject).map_or((false, None), |(_, state)| state.clone())
    }
}
