//! Third stage of configuration: validated, complete, the only form the agent sees. Built by `config::load`, never by hand outside tests.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use super::network::Network;
use crate::record::{FeedId, Lane, Name, Stage};
use crate::source::charset;
pub use crate::source::files::DirectorySettings;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub gateway: GatewaySettings,
    pub spool: SpoolSettings,
    pub uplink: UplinkSettings,
    pub feeds: Vec<FeedSettings>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewaySettings {
    pub site: Name,
    pub id: Name,
    /// IANA name, checked against the compiled-in data.
    pub timezone: String,
    pub control_socket: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolSettings {
    pub path: PathBuf,
    /// `None`: 70 % of the volume, found out when the spool is opened.
    pub max_bytes: Option<u64>,
    pub key: KeySource,
    /// Largest message of any feed, in bytes.
    pub message_bytes_max: u64,
}

/// Where the spool key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// `<spool>/spool.key`, made 0600 at first start (condition `spool_key_beside_spool`).
    Auto,
    /// `$CREDENTIALS_DIRECTORY/<name>`.
    Credential(String),
    File(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkSettings {
    /// In order of preference.
    pub endpoints: Vec<Endpoint>,
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<TlsKeySource>,
    pub in_flight: usize,
    pub confirm: Confirm,
    pub receipt_timeout: Duration,
    pub on_no_subscriber: OnNoSubscriber,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsKeySource {
    Credential(String),
    File(PathBuf),
}

/// `mqtts://host:port` or, where allowed, `mqtt://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
    pub tls: bool,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

/// What settles a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirm {
    /// The hub's receipt.
    Receipt,
    /// PUBACK with a success reason: the promise ends at the broker.
    Puback,
}

/// What PUBACK 0x10 (no matching subscribers) on an outcome means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnNoSubscriber {
    Hold,
    Accept,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedSettings {
    pub id: FeedId,
    pub lane: Lane,
    pub stage: Stage,
    pub charset: charset::Rule,
    pub source: SourceSettings,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // one per feed, made at start
pub enum SourceSettings {
    Mllp(MllpSettings),
    Directory(Box<DirectorySettings>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MllpSettings {
    pub listen: SocketAddr,
    pub on_store_failure: OnStoreFailure,
    /// Of the feed, for the records made of its messages.
    pub stage: Stage,
    pub on_invalid: OnInvalid,
    pub answers: AnswerSettings,
    pub connections_max: usize,
    pub frame_timeout: Duration,
    /// `None`: never closed for idleness.
    pub idle_timeout: Option<Duration>,
    /// Who may connect; empty: everybody.
    pub peers: Vec<Network>,
    /// Messages without MLLP framing are taken.
    pub unframed: bool,
    pub tls: Option<ListenerTls>,
}

/// MLLP over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    pub cert: PathBuf,
    pub key: TlsKeySource,
    /// `Some`: senders must prove themselves by a certificate of these authorities.
    pub client_ca: Option<PathBuf>,
    /// Which of them may connect; empty: all that prove themselves.
    pub client_subjects: Vec<ClientSubject>,
}

/// One sender's certificate: by its common name exactly, or by one of its DNS names without regard to case. No wildcards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientSubject {
    CommonName(String),
    DnsName(String),
}

/// What a sender is told when its message could not be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStoreFailure {
    /// Nothing, and the connection is closed: every sender keeps the message and tries again.
    Close,
    /// A negative acknowledgement; many senders then give the message up.
    Nak,
}

/// What a sender is told about bytes that cannot be a message: no header, or no MSH-10 that can be acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnInvalid {
    /// The negative acknowledgement of the answer table; the sender goes on with its next message.
    Nak,
    /// Nothing, and the connection is closed: the sender keeps the message and repeats it until somebody corrects it.
    Close,
}

/// Which messages are taken and how they are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerSettings {
    /// Accept messages without MSH-10 (answered with an empty MSA-2).
    pub allow_missing_control_id: bool,
    pub app_ack: AppAck,
    pub batch_ack: BatchAck,
    pub strict: StrictSettings,
}

impl Default for AnswerSettings {
    fn default() -> Self {
        Self { allow_missing_control_id: false, app_ack: AppAck::None, batch_ack: BatchAck::Batch, strict: StrictSettings::default() }
    }
}

/// What is sent where a sender asks for an accept and for an application acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppAck {
    /// The accept acknowledgement alone.
    None,
    /// Both, one behind the other on the same connection.
    SameChannel,
    /// AA in place of both.
    AaOnly,
}

/// How several messages in one frame are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchAck {
    /// BHS, one acknowledgement per message, BTS, in one frame.
    Batch,
    /// One frame per message.
    Each,
}

/// Messages outside these lists are refused; an empty list takes everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StrictSettings {
    pub types: Vec<StrictType>,
    pub versions: Vec<String>,
    pub processing_ids: Vec<String>,
}

/// `ADT`: every event of it; `DFT^P03`: this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StrictType {
    pub code: String,
    pub trigger: Option<String>,
}
