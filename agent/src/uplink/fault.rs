//! Why a connection was not made or ended: how it is waited for, what is shown, and the sentence.

use super::backoff::Pace;
use super::bridge::DialError;
use super::tls::TlsError;

/// Which condition it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `uplink_down`: the WAN, the broker, its certificate, our files.
    Down,
    /// `uplink_refused`: the broker knows who we claim to be and says no.
    Refused,
    /// `gateway_id_in_use`.
    IdInUse,
}

#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub pace: Pace,
    pub kind: Kind,
    /// The broker ended a connection that was up, properly and without a word.
    pub unexplained: bool,
    /// A sentence with the endpoint, what happened and what to do.
    pub text: String,
}

impl Fault {
    /// It may mend by itself.
    pub(super) fn passing(text: String) -> Self {
        Self { pace: Pace::Normal, kind: Kind::Down, unexplained: false, text }
    }

    pub(super) fn refused(text: String) -> Self {
        Self { pace: Pace::Slow, kind: Kind::Refused, unexplained: false, text }
    }

    pub(super) fn dial(error: &DialError) -> Self {
        let pace = if error.is_permanent() { Pace::Slow } else { Pace::Normal };
        let kind = if matches!(error, DialError::ClientCertificate { .. }) { Kind::Refused } else { Kind::Down };
        Self { pace, kind, unexplained: false, text: chain(error) }
    }

    /// Our own files. Reading them costs nothing, so it is tried at the normal pace.
    pub(super) fn tls(error: &TlsError) -> Self {
        Self::passing(chain(error))
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// What somebody else wrote, made fit for a log line: short, no control characters.
pub(super) fn foreign(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}
