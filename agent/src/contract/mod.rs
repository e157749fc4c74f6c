//! The contract with the hub: topics, payloads and event attributes, as both sides and `agent/contract/` know them.
//!
//! Pure types and functions. Whoever publishes or receives goes through here, so that agent and hub cannot drift apart; the AsyncAPI document
//! and the JSON Schemas in `agent/contract/` say the same to those who write their own receiver.
//!
//! | topic below `siteward/v1/{site}/{gateway}/` | who publishes | kept by the broker | payload |
//! |---|---|---|---|
//! | `event/{feed}`, `outcome/{feed}`, `checkpoint` | gateway | no | `event`, [`Outcome`], [`Checkpoint`] |
//! | `status` | gateway | yes | [`GatewayState`] |
//! | `receipt` | hub | no | [`Receipt`] |
//! | `config/desired` | hub | yes | a signed document: DSSE envelope, at most `DOCUMENT_BYTES_MAX` |
//! | `config/reported` | gateway | yes | JSON: which revision runs, which was tried and what became of it; again on every connection |
//! | `command` | hub | never: a kept one is refused | a signed command: DSSE envelope (`rollout::command`) |
//! | `command/result` | gateway | no | JSON: `rollout::command::Answer`, at least once |
//! | `certificate/request` | gateway | yes | [`CertificateState`]; again on every connection; nothing while no renewal was ever asked for |
//! | `certificate/issued` | hub | may be | the certificate and its intermediates, PEM, at most `CERTIFICATE_BYTES_MAX` |
//! | `audit` | gateway | no | [`Audit`], in order, at least once; chained to the one before it |
//!
//! A gateway whose broker does not let it read `config/desired`, `command` or `certificate/issued` goes on without them.

pub mod event;
pub mod topic;

use serde::{Deserialize, Serialize};

use crate::record::{Chain, Digest, FeedId, Incarnation, Name, Position};

/// A seq and the chain there, where the incarnation is told beside it or does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub seq: u64,
    pub chain: Chain,
}

/// Payload of `checkpoint`. `settled` is the contiguous mark up to which the gateway considers the hub (or the broker) responsible: a hub that
/// meets a feed for the first time starts its account there, because nothing before it can come again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Checkpoint {
    /// `incarnation` begins after `follows` (null: with seq 1). Published before anything else of that incarnation, and again on every connection.
    Open { feed: FeedId, incarnation: Incarnation, follows: Option<Position>, settled: Mark },
    /// The durable head of a feed: everything through `seq` exists; `count` records of it belong to `incarnation`.
    Head { feed: FeedId, incarnation: Incarnation, seq: u64, chain: Chain, count: u64, settled: Mark },
}

impl Checkpoint {
    pub fn feed(&self) -> &FeedId {
        match self {
            Self::Open { feed, .. } | Self::Head { feed, .. } => feed,
        }
    }
}

/// Payload of `outcome/{feed}`: what became of seqs that have no event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Outcome {
    /// Kept back at the gateway (quarantine); the seq stays open, an event for it is accepted whenever it comes.
    Exception { incarnation: Incarnation, seq: u64, digest: Digest, chain: Chain, reason: String },
    /// `first..=last` of `incarnation` will never come; `chain` is the value at `last`, so the account can go on after it.
    Gap { incarnation: Incarnation, first: u64, last: u64, chain: Chain, reason: String },
}

/// Payload of `receipt` (hub to gateway): everything of the feed through `through_seq` is safe at the hub, whose chain there is `chain`.
/// `incarnation` is the one `through_seq` belongs to. `missing` are inclusive ranges the hub lacks below the last checkpoint it saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub feed: FeedId,
    pub incarnation: Incarnation,
    pub through_seq: u64,
    pub chain: Chain,
    #[serde(default)]
    pub missing: Vec<(u64, u64)>,
    /// RFC 3339: when the hub wrote this, by a clock it believes. A gateway without a clock of its own goes by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

/// Payload of the retained `status`; the last will says `offline`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayState {
    pub state: OnlineState,
    pub version: String,
    /// RFC 3339; absent in the last will, which was written before it came true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// RFC 3339: when this was written, by the gateway's clock; absent in the last will.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// What waits at the gateway; absent in the last will.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool: Option<SpoolTold>,
    /// What is the matter at the gateway, the worst first; none in the last will.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<ConditionTold>,
    /// Conditions for which there was no room.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub conditions_left_out: u64,
    /// Maintenance windows of the gateway as a whole: while one holds nobody is to be alerted that the gateway is not there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub maintenance: Vec<WindowTold>,
}

/// A maintenance window of the gateway, by its clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowTold {
    /// RFC 3339; absent: it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// RFC 3339.
    pub until: String,
    pub reason: String,
}

/// What waits at a gateway, and how much room there is, when the status was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolTold {
    /// Records that are not settled.
    pub queued: u64,
    /// RFC 3339: when the oldest of them was received; absent where nothing waits, and while the clock cannot be believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<String>,
    pub bytes: u64,
    pub max_bytes: u64,
    /// Absent while the spool is not filling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_to_full_s: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// A condition as the hub is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConditionTold {
    pub code: String,
    /// `error` or `warning`.
    pub severity: String,
    /// The feed, endpoint or file it is about; empty for the gateway as a whole.
    pub subject: String,
    /// A sentence for people.
    pub text: String,
    /// RFC 3339.
    pub since: String,
    /// Nobody is to be alerted of it: its hold-down is not over, or a maintenance window holds.
    #[serde(default, skip_serializing_if = "is_false")]
    pub quiet: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(is: &bool) -> bool {
    !is
}

/// How far a renewal of the gateway's certificate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RenewalState {
    /// Nothing is asked for.
    Idle,
    /// `csr` waits for its certificate.
    Requested,
    /// A certificate came and is being proven; the old one is kept until it is.
    Trial,
}

/// Payload of the retained `certificate/request`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateState {
    pub schema: u32,
    pub gateway: Name,
    pub state: RenewalState,
    /// The value of `[uplink.renew] request` that asked; null: asked on site.
    pub request: Option<String>,
    /// PKCS #10, PEM. The key never leaves the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csr: Option<String>,
    /// What became of the last certificate that came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<CertificateOutcome>,
    /// RFC 3339.
    pub time: String,
    pub clock_suspect: bool,
}

/// What became of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateOutcome {
    /// True: proven, and in use since. False: not taken, or not kept; the old one is in use.
    pub taken: bool,
    /// A sentence for people.
    pub why: String,
    /// RFC 3339.
    pub at: String,
}

/// Payload of `audit`: who did what, when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    pub schema: u32,
    pub gateway: Name,
    /// A local user, or the author of a signed document or command.
    pub who: String,
    /// Stable, for programs: the verb.
    pub what: String,
    /// The feed, revision or range it was done to; empty for the gateway as a whole. Never content (I7).
    pub subject: String,
    /// As it was given; empty where none was asked for.
    pub reason: String,
    /// RFC 3339.
    pub time: String,
    pub clock_suspect: bool,
    /// Which log of this gateway: the incarnation it was begun in.
    pub chain: Incarnation,
    /// Its place there, from 1, without gaps.
    pub n: u64,
    pub stage: AuditStage,
    /// Of an outcome: the `n` of its intent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<u64>,
    /// The digest of the record before it; of the first: what `chain` and `gateway` make (`audit::chain`).
    pub prev: Digest,
    /// SHA-256 of this record without this member: as JSON, members in the order of their names, nothing between them.
    pub digest: Digest,
}

/// What a record of the audit log stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditStage {
    /// Written before it is done.
    Intent,
    /// What became of an intent.
    Outcome,
    /// What happened.
    Fact,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnlineState {
    Online,
    Offline,
}
