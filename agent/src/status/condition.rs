//! Conditions: a closed list of named states, each with a severity and a runbook page.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Odd, nothing lost.
    Warning,
    /// Somebody must act.
    Error,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

macro_rules! conditions {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $severity:ident;)*) => {
        /// What can be the matter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }
            pub fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }
        }
    };
}

conditions! {
    /// The spool key lies beside what it seals.
    SpoolKeyBesideSpool = "spool_key_beside_spool", Warning;
    /// New records are refused: the quota or the disk is full.
    SpoolFull = "spool_full", Error;
    /// Writing or syncing the journal failed.
    SpoolWriteFailed = "spool_write_failed", Error;
    /// Records that had been made durable cannot be read.
    SpoolDamaged = "spool_damaged", Error;
    /// The last stop was not clean and the end of a segment was torn; nothing acknowledged is known to be lost.
    SpoolTornTail = "spool_torn_tail", Warning;
    /// The hub has seen more of a feed than this spool holds: restored from an older image, or a disk that lost its end.
    SpoolBehindHub = "spool_behind_hub", Error;
    /// The hub's chain differs from ours.
    ChainConflict = "chain_conflict", Error;
    /// The state database is not there; duplicates are not recognised.
    StateUnavailable = "state_unavailable", Warning;
    /// The state database was damaged; it was set aside and made anew since this start.
    StateSetAside = "state_set_aside", Warning;
    /// The dedupe window is still being rebuilt.
    DedupeIncomplete = "dedupe_incomplete", Warning;
    /// Quarantine is full; the feed waits.
    QuarantineFull = "quarantine_full", Error;
    /// Quarantine cannot be written; the feed waits.
    QuarantineWriteFailed = "quarantine_write_failed", Error;
    /// Records are in quarantine.
    QuarantineNotEmpty = "quarantine_not_empty", Warning;
    /// The WAN, the broker or its certificate: no connection.
    UplinkDown = "uplink_down", Warning;
    /// The broker refuses our credentials or certificate.
    UplinkRefused = "uplink_refused", Error;
    /// The broker takes our messages but nobody is subscribed.
    HubNotSubscribed = "hub_not_subscribed", Error;
    /// Nothing that is critical reached the hub for too long.
    OldestCritical = "oldest_critical", Error;
    /// The hub confirms nothing, though the broker acknowledges.
    ReceiptsMissing = "receipts_missing", Error;
    /// The broker refuses a feed's topic; that feed waits.
    FeedParked = "feed_parked", Error;
    /// Another client uses our gateway id.
    GatewayIdInUse = "gateway_id_in_use", Error;
    /// The broker's largest packet is smaller than `message_bytes_max`.
    BrokerPacketLimit = "broker_packet_limit", Warning;
    /// The system clock cannot be believed.
    ClockSuspect = "clock_suspect", Warning;
    /// A listener could not bind.
    ListenerDown = "listener_down", Error;
    /// A peer sent a frame above the limit.
    FrameOverLimit = "frame_over_limit", Warning;
    /// A peer sent bytes that are not a message.
    FrameUnusable = "frame_unusable", Warning;
    /// A feed takes messages that were seen before for new ones, for a while.
    AcceptResendOpen = "accept_resend_open", Warning;
    /// A sender that keeps its connection is not connected any more.
    PeerLost = "peer_lost", Warning;
    /// Senders could not connect over TLS, or not prove who they are.
    TlsRefused = "tls_refused", Warning;
    /// Somebody outside `peers` connects.
    PeerRefused = "peer_refused", Warning;
    /// Whoever reaches the port may send.
    ListenerOpen = "listener_open", Warning;
    /// The certificate files of a listener changed and cannot be used; the old ones are.
    FeedCertificateInvalid = "feed_certificate_invalid", Error;
    /// The certificate of a listener ends soon, or has ended.
    FeedCertificateExpiring = "feed_certificate_expiring", Warning;
    /// The tokens file of a feed changed and cannot be used; what was read before is.
    FeedTokensInvalid = "feed_tokens_invalid", Error;
    /// A certificate of the uplink ends within 60 days.
    CertificateExpiring = "certificate_expiring", Warning;
    /// A certificate of the uplink or of a listener ends within 7 days, or has ended.
    CertificateEnding = "certificate_ending", Error;
    /// A renewal of the uplink's certificate waits for its certificate, or a new one is on trial.
    CertificatePending = "certificate_pending", Warning;
    /// A new certificate for the uplink was not taken or not proven; the one from before is in use.
    CertificateRefused = "certificate_refused", Error;
    /// A batch did not hold what its trailer claims.
    BatchCountMismatch = "batch_count_mismatch", Warning;
    /// A feed's directory must be a mounted share, and nothing is mounted.
    ShareMissing = "share_missing", Error;
    /// A call to a feed's share does not return.
    ShareHung = "share_hung", Error;
    /// A feed's directory cannot be read.
    DirectoryUnreadable = "directory_unreadable", Error;
    /// The list of files a feed is done with cannot be written.
    FileListFailed = "file_list_failed", Error;
    /// A file cannot be read.
    FileUnreadable = "file_unreadable", Error;
    /// A file is not whole and waits for the rest.
    FileHeld = "file_held", Warning;
    /// A file that is captured cannot be moved away.
    FileStuck = "file_stuck", Warning;
    /// A file was not captured and will not be.
    FileRefused = "file_refused", Error;
    /// A file changed while or after it was captured.
    FileChanged = "file_changed", Error;
    /// A feed did not bring what it was expected to.
    FeedSilent = "feed_silent", Error;
    /// A feed is no longer configured and still drains.
    FeedRetired = "feed_retired", Warning;
    /// Somebody paused a feed: nothing is taken from its senders.
    FeedPaused = "feed_paused", Warning;
    /// Somebody changed a feed on site, for a while.
    OverrideActive = "override_active", Warning;
    /// Feeds come as documents, and none runs: nothing is taken from anybody.
    NoFeeds = "no_feeds", Error;
    /// Feeds of the local file that do not count, because a document runs.
    LocalFeedsUnused = "local_feeds_unused", Warning;
    /// Endpoints or trust anchors come from a document of the recovery keys.
    BootstrapMoved = "bootstrap_moved", Warning;
    /// Somebody sent commands that are not carried out here.
    CommandRefused = "command_refused", Warning;
    /// A document was not taken; what ran before runs.
    ConfigRefused = "config_refused", Warning;
    /// A document is on trial.
    ConfigTrial = "config_trial", Warning;
    /// A document was tried, or ran, and was taken back.
    ConfigRolledBack = "config_rolled_back", Error;
    /// A document runs that the hub has not been reached with yet.
    ConfigCommittedLocal = "config_committed_local", Warning;
    /// The record of what is configured could not be read.
    ConfigLedgerDamaged = "config_ledger_damaged", Error;
    /// The document that runs is signed by nobody this gateway trusts now.
    ConfigUnverified = "config_unverified", Error;
    /// The status page cannot be served.
    StatusPageDown = "status_page_down", Warning;
    /// Since a document was committed much more goes to quarantine.
    DocumentSuspect = "document_suspect", Error;
    /// Audit records cannot be written; what asks for one is refused.
    AuditWriteFailed = "audit_write_failed", Error;
    /// Audit records were given up unsent, or cannot be read any more.
    AuditIncomplete = "audit_incomplete", Error;
}

/// Which maintenance windows keep a condition from alerting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silencing {
    Never,
    /// That of the gateway: it is about the way to the hub.
    Gateway,
    /// That of the feed it is about, too: its senders, and when they bring something.
    Feed,
}

impl Code {
    /// Senders, cadence and uplink may be quiet while somebody works on them. Whatever may mean loss never is.
    pub fn silencing(self) -> Silencing {
        use Silencing::{Feed, Gateway, Never};
        match self {
            Self::UplinkDown | Self::UplinkRefused | Self::HubNotSubscribed | Self::ReceiptsMissing | Self::OldestCritical => Gateway,
            Self::PeerLost
            | Self::PeerRefused
            | Self::TlsRefused
            | Self::FeedSilent
            | Self::ShareMissing
            | Self::ShareHung
            | Self::DirectoryUnreadable => Feed,
            Self::SpoolKeyBesideSpool
            | Self::SpoolFull
            | Self::SpoolWriteFailed
            | Self::SpoolDamaged
            | Self::SpoolTornTail
            | Self::SpoolBehindHub
            | Self::ChainConflict
            | Self::StateUnavailable
            | Self::StateSetAside
            | Self::DedupeIncomplete
            | Self::BrokerPacketLimit
            | Self::ClockSuspect
            | Self::ListenerDown
            | Self::ListenerOpen
            | Self::AcceptResendOpen
            | Self::FrameOverLimit
            | Self::FrameUnusable
            | Self::BatchCountMismatch
            | Self::FeedTokensInvalid
            | Self::FeedCertificateInvalid
            | Self::FeedCertificateExpiring
            | Self::CertificateExpiring
            | Self::CertificateEnding
            | Self::CertificatePending
            | Self::CertificateRefused
            | Self::FileListFailed
            | Self::FileUnreadable
            | Self::FileHeld
            | Self::FileStuck
            | Self::FileRefused
            | Self::FileChanged
            | Self::QuarantineFull
            | Self::QuarantineWriteFailed
            | Self::QuarantineNotEmpty
            | Self::FeedParked
            | Self::GatewayIdInUse
            | Self::FeedRetired
            | Self::FeedPaused
            | Self::OverrideActive
            | Self::NoFeeds
            | Self::LocalFeedsUnused
            | Self::BootstrapMoved
            | Self::CommandRefused
            | Self::ConfigRefused
            | Self::ConfigTrial
            | Self::ConfigRolledBack
            | Self::ConfigCommittedLocal
            | Self::ConfigLedgerDamaged
            | Self::ConfigUnverified
            | Self::DocumentSuspect
            | Self::StatusPageDown
            | Self::AuditWriteFailed
            | Self::AuditIncomplete => Never,
        }
    }

    /// What somebody chose or ordered, and what follows from it: shown everywhere and told by syslog, but nobody is paged for it, neither by
    /// Prometheus nor by the desk. A closed list.
    pub fn is_chosen(self) -> bool {
        matches!(
            self,
            Self::SpoolKeyBesideSpool
                | Self::ListenerOpen
                | Self::AcceptResendOpen
                | Self::FeedPaused
                | Self::FeedRetired
                | Self::OverrideActive
                | Self::BootstrapMoved
                | Self::ConfigTrial
                | Self::CertificatePending
        )
    }

    /// Of its name.
    pub fn read(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == name)
    }

    /// The runbook page, relative to the documentation's root.
    pub fn runbook(self) -> String {
        format!("RUNBOOK.md#{}", self.as_str())
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Condition {
    pub code: &'static str,
    pub severity: Severity,
    /// The feed, endpoint or file it is about; empty for the gateway as a whole.
    pub subject: String,
    /// A sentence for people.
    pub text: String,
    pub runbook: String,
    /// RFC 3339.
    pub since: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing that may mean loss, or that somebody must act on, is ever kept from those who are paged.
    #[test]
    fn what_nobody_is_paged_for_is_odd_at_most() {
        assert!(Code::ALL.iter().filter(|code| code.is_chosen()).all(|code| code.severity() == Severity::Warning));
        assert_eq!(Code::ALL.iter().filter(|code| code.is_chosen()).count(), 9);
    }
}
