//! What can be asked of the running agent: a closed list, one JSON line each.
//!
//! ```text
//! {"get":"status"}
//! {"get":"feeds","feed":"or-usage"}
//! {"get":"messages","feed":"or-usage","control_id":"MSG0001"}      or "seq", or "since_ms"; then "before" and "limit"
//! {"get":"duplicates","feed":"or-usage"}
//! {"get":"quarantine"}
//! {"get":"watch","feed":"or-usage","count":3,"time_s":60}          answered by one line per message, see `watching`
//! {"get":"config"}                                                 the effective configuration; also config_history, config_texts
//! {"do":"accept_resend","feed":"or-usage","for_s":3600}
//! {"do":"pause_feed","feed":"or-usage","by":"kim","why":"moving"}   also resume_feed
//! {"do":"release_quarantine","feed":"or-usage","first":7,"last":9,"by":"kim","why":"limit raised"}   also drop_quarantine
//! {"do":"drop_entries","entries":["00000000000000a1"],"by":"kim","why":"test frames"}
//! {"do":"config_apply","envelope":"{…}"}                         with "by" and "why"
//! {"do":"config_rollback","by":"kim","why":"wrong port"}
//! {"get":"certificates"}
//! {"do":"certificate_renew","by":"kim","trial_s":900}              also certificate_install (chain), certificate_cancel
//! {"do":"override_set","feed":"or-usage","port":2576,"for_s":3600,"reason":"…"}       then override_clear; {"get":"overrides"}
//! {"get":"audit","first":1}                                        a page of the audit log; then audit_verify; {"get":"log"}: the last lines
//! {"do":"audit_export","by":"kim"}                                the pages are about to be taken out as a file
//! {"do":"unseal","entry":"00000000000000a1","offset":0,"by":"kim","why":"wrong code"}   the bytes of an entry, a part at a time
//! {"do":"maintenance_start","feed":"or-usage","for_s":3600,"at":"…","reason":"…"}   then maintenance_end (id); {"get":"maintenance"}
//! {"do":"secret_set","name":"lab-key","sealed":"…"}                then secret_remove; {"get":"secrets"}, {"get":"secret_key"}
//! ```
//!
//! `get` changes nothing; `do` changes how the agent behaves. Outside tools rely on these lines: variants and optional fields are added, never
//! changed. What is not known is refused as a whole.

use serde::{Deserialize, Serialize};

use crate::overrides::Kind;

/// One line of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Request {
    Get(Question),
    Do(Order),
}

// `Status {}` and not `Status`: only so are unknown fields beside it refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "get", rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    Status {},
    /// Feeds with their connections.
    Feeds {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        feed: Option<String>,
    },
    /// Messages of a feed with their times, the newest first.
    Messages(MessagesQuestion),
    /// Suppressed duplicates of a feed, the newest first.
    Duplicates {
        feed: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        control_id: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u64>,
    },
    Quarantine {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        feed: Option<String>,
    },
    /// The next messages of a feed as they come.
    Watch(WatchQuestion),
    /// The effective configuration, as text.
    Config {},
    /// What became of the last revisions.
    ConfigHistory {},
    /// The documents that run now and ran before.
    ConfigTexts {},
    /// How the gateway's certificate stands.
    Certificates {},
    /// Names of the secrets set here, and when; never a value.
    Secrets {},
    /// The public half of the gateway's own key, to which secrets are sealed.
    SecretKey {},
    /// What was changed on site, for a while.
    Overrides {},
    /// A page of the audit log from this record on.
    Audit {
        first: u64,
    },
    /// Whether the audit log is whole.
    AuditVerify {},
    /// The last lines of the log.
    Log {},
    /// The maintenance windows that hold.
    Maintenance {},
}

/// At most one of `control_id`, `seq` and `since_ms`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessagesQuestion {
    pub feed: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// Received at or after this, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<i64>,
    /// Only below this seq: where an earlier answer ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchQuestion {
    pub feed: String,
    pub count: u64,
    pub time_s: u64,
    /// Control ids to compare with: a message says which of them it has, and nothing else of its id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expect: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// Takes messages of a feed that were seen before for new ones, for a while.
    AcceptResend {
        feed: String,
        for_s: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// Nothing is taken from its senders until it is resumed.
    PauseFeed {
        feed: String,
        by: String,
        why: String,
    },
    ResumeFeed {
        feed: String,
        by: String,
        why: String,
    },
    /// Records by seq, both ends included.
    ReleaseQuarantine {
        feed: String,
        first: u64,
        last: u64,
        by: String,
        why: String,
    },
    DropQuarantine {
        feed: String,
        first: u64,
        last: u64,
        by: String,
        why: String,
    },
    /// By the ids that are listed.
    DropEntries {
        entries: Vec<String>,
        by: String,
        why: String,
    },
    /// Gives out what is in an entry, from this byte on, as much as one answer takes.
    Unseal {
        entry: String,
        offset: u64,
        by: String,
        why: String,
    },
    /// Takes a signed document, as if it had come from the hub.
    ConfigApply {
        envelope: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// Ends a trial, or goes back to the configuration from before.
    ConfigRollback {
        by: String,
        why: String,
    },
    /// Makes a new key for the uplink's certificate.
    CertificateRenew {
        by: String,
        trial_s: u64,
    },
    /// Takes a certificate for it (PEM), as if it had come from the hub.
    CertificateInstall {
        by: String,
        chain: String,
    },
    /// Forgets key and candidate.
    CertificateCancel {
        by: String,
    },
    /// Sets a secret; the value comes sealed to the gateway's own key.
    SecretSet {
        name: String,
        sealed: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    SecretRemove {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// Changes one thing of a feed for a while: its port, its peers, or that it takes nothing.
    OverrideSet {
        feed: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peers: Option<Vec<String>>,
        #[serde(default)]
        pause: bool,
        for_s: u64,
        reason: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    OverrideClear {
        feed: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kind: Option<Kind>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// Silences alerts about senders, cadence and (without a feed) the uplink, for a while.
    MaintenanceStart {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        feed: Option<String>,
        for_s: u64,
        /// When it begins: in site time, or with an offset; absent: now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<String>,
        reason: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    MaintenanceEnd {
        id: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// Says that the audit log is about to be taken out as a file; the pages are asked for after it.
    AuditExport {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// Tells the hub that this gateway is about to be retired; changes nothing here. `lost`: what goes with it, empty for nothing.
    Retire {
        reason: String,
        lost: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
}

impl Request {
    pub const STATUS: Self = Self::Get(Question::Status {});
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<Request> {
        serde_json::from_str(line).ok()
    }

    #[test]
    fn outside_tools_keep_their_questions() {
        assert_eq!(read(r#"{"get":"status"}"#), Some(Request::STATUS));
        assert_eq!(serde_json::to_string(&Request::STATUS).unwrap(), r#"{"get":"status"}"#);
        assert_eq!(read(r#"{"get":"feeds"}"#), Some(Request::Get(Question::Feeds { feed: None })));
        let resend = Order::AcceptResend { feed: "a".into(), for_s: 60, by: None, why: None };
        assert_eq!(read(r#"{"do":"accept_resend","feed":"a","for_s":60}"#), Some(Request::Do(resend)));
        let pause = Order::PauseFeed { feed: "a".into(), by: "kim".into(), why: "moving".into() };
        assert_eq!(read(r#"{"do":"pause_feed","feed":"a","by":"kim","why":"moving"}"#), Some(Request::Do(pause)));
        assert_eq!(read(r#"{"get":"config"}"#), Some(Request::Get(Question::Config {})));
        assert_eq!(read(r#"{"get":"config_history"}"#), Some(Request::Get(Question::ConfigHistory {})));
        let rollback = Order::ConfigRollback { by: "kim".into(), why: "wrong port".into() };
        assert_eq!(read(r#"{"do":"config_rollback","by":"kim","why":"wrong port"}"#), Some(Request::Do(rollback)));
        let messages = MessagesQuestion { feed: "a".into(), seq: Some(7), ..MessagesQuestion::default() };
        assert_eq!(read(r#"{"get":"messages","feed":"a","seq":7}"#), Some(Request::Get(Question::Messages(messages))));
        for unknown in [
            r#"{"get":"everything"}"#,
            r#"{"get":"status","and":1}"#,
            r#"{"get":"feeds","fed":"a"}"#,
            r#"{"get":"messages","feed":"a","and":1}"#,
            r#"{"do":"status"}"#,
            r#"{"get":"status","do":"accept_resend"}"#,
            "{}",
            "",
        ] {
            assert_eq!(read(unknown), None, "{unknown}");
        }
    }
}
