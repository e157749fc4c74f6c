//! Why a configuration does not run: closed, each with a stable code and one sentence that names what is missing, where, and what to do.
//!
//! The sentences go to the hub, into the history and to `siteward status`; they hold names of feeds and keys, never content (I7).

use std::fmt;

use super::facts::{Evidence, FeedFault};
use crate::limits::{FEEDS_NAMED_MAX, ROLLOUT_RETRIES_MAX};
use crate::record::FeedId;

/// Why a trial, or a configuration that was committed, was taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    AgentStopped,
    NotApplied(String),
    ApplyTooLong,
    NoEvidence,
    ListenersNotBound(Vec<FeedFault>),
    DirectoriesUnreadable(Vec<FeedFault>),
    PeersMissing(Vec<FeedId>),
    EndpointUnproven,
    UplinkLost {
        attempts: u32,
    },
    LedgerUnwritable(String),
    Asked {
        who: String,
        why: String,
    },
    /// The document's own file can no longer be read.
    EnvelopeDamaged(String),
    /// Found as a candidate beside a ledger that could not be read.
    LedgerDamaged,
}

impl Reason {
    pub fn code(&self) -> &'static str {
        match self {
            Self::AgentStopped => "agent_stopped",
            Self::NotApplied(_) | Self::ApplyTooLong => "not_applied",
            Self::NoEvidence => "no_evidence",
            Self::ListenersNotBound(_) => "listeners_not_bound",
            Self::DirectoriesUnreadable(_) => "directories_unreadable",
            Self::PeersMissing(_) => "peers_missing",
            Self::EndpointUnproven => "endpoint_unproven",
            Self::UplinkLost { .. } => "uplink_lost",
            Self::LedgerUnwritable(_) => "ledger_unwritable",
            Self::Asked { .. } => "rollback_asked",
            Self::EnvelopeDamaged(_) => "envelope_damaged",
            Self::LedgerDamaged => "ledger_damaged",
        }
    }

    /// Whether the same revision may be tried again: only what is nobody's fault, and not for ever.
    pub fn may_be_tried_again(&self) -> bool {
        matches!(self, Self::UplinkLost { attempts } if *attempts <= ROLLOUT_RETRIES_MAX)
    }

    /// What is missing on the gateway itself; `None`: nothing.
    pub fn local(evidence: Option<&Evidence>, peers_count: bool) -> Option<Self> {
        let Some(evidence) = evidence else { return Some(Self::NoEvidence) };
        let faults = || evidence.faults.iter().take(FEEDS_NAMED_MAX).cloned().collect();
        if !evidence.listeners_bound {
            Some(Self::ListenersNotBound(faults()))
        } else if !evidence.directories_readable {
            Some(Self::DirectoriesUnreadable(faults()))
        } else if peers_count && !evidence.waiting_for_peers.is_empty() {
            Some(Self::PeersMissing(evidence.waiting_for_peers.clone()))
        } else {
            None
        }
    }
}

fn faulty(f: &mut fmt::Formatter<'_>, faults: &[FeedFault], otherwise: &str) -> fmt::Result {
    if faults.is_empty() {
        return f.write_str(otherwise);
    }
    for (i, fault) in faults.iter().enumerate() {
        write!(f, "{}{fault}", if i == 0 { "" } else { "; " })?;
    }
    Ok(())
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AgentStopped => f.write_str("the agent stopped during the trial; give the document a higher revision to try it again"),
            Self::NotApplied(why) => write!(f, "it could not be put to use: {why}"),
            Self::ApplyTooLong => {
                f.write_str("it could not be put to use in two minutes; a directory or device of one of its feeds does not answer")
            }
            Self::NoEvidence => f.write_str("nothing was heard of its feeds during the trial; look at the agent's log"),
            Self::ListenersNotBound(faults) => faulty(f, faults, "a listener is not bound (feed.mllp.listen); see condition listener_down"),
            Self::DirectoriesUnreadable(faults) => {
                faulty(f, faults, "a directory cannot be read (feed.directory.path); see condition directory_unreadable")
            }
            Self::PeersMissing(feeds) => {
                f.write_str(if feeds.len() == 1 { "feed " } else { "feeds " })?;
                for (i, feed) in feeds.iter().take(FEEDS_NAMED_MAX).enumerate() {
                    write!(f, "{}`{feed}`", if i == 0 { "" } else { ", " })?;
                }
                if feeds.len() > FEEDS_NAMED_MAX {
                    write!(f, " and {} more", feeds.len() - FEEDS_NAMED_MAX)?;
                }
                f.write_str(
                    " had a sender in the hour before the change and none could connect since; check feed.mllp.listen, feed.mllp.peers and \
                     feed.mllp.tls, or set rollout.confirm = \"bound\"",
                )
            }
            Self::EndpointUnproven => f.write_str(
                "no endpoint that it adds acknowledged a publish, while an earlier endpoint did; check uplink.endpoint.url and \
                 uplink.endpoint.ca_pem",
            ),
            Self::UplinkLost { attempts } => {
                f.write_str("the uplink was lost during the trial: no endpoint acknowledged the report; ")?;
                match (ROLLOUT_RETRIES_MAX + 1).saturating_sub(*attempts) {
                    0 => f.write_str("it is not tried again, give the document a higher revision"),
                    1 => f.write_str("it is tried once more when it is delivered again"),
                    left => write!(f, "it is tried up to {left} more times when it is delivered again"),
                }
            }
            Self::LedgerUnwritable(why) => write!(f, "the ledger could not be written: {why}; check the disk of the spool"),
            Self::Asked { who, why } => write!(f, "{who} asked for the configuration from before: {why}"),
            Self::EnvelopeDamaged(why) => {
                write!(f, "its file on the gateway can no longer be used: {why}; send the document again with a higher revision")
            }
            Self::LedgerDamaged => f.write_str(
                "the ledger was damaged, so nobody can tell how its trial ended; give the document a higher revision to try it again",
            ),
        }
    }
}
