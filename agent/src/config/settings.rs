//! Third stage of configuration: validated, complete, the only form the agent sees. Built by `config::load`, never by hand outside tests.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use super::about::About;
pub use super::bootstrap::Moved;
pub use super::network::Network;
pub use super::status::{StatusListen, StatusSettings};
use crate::alerts::syslog::Target;
use crate::limits::{HOLD_OLDEST_DEFAULT, HOLD_PEER_DEFAULT, HOLD_UPLINK_DEFAULT, SYSLOG_RUNBOOK_DEFAULT};
use crate::record::{FeedId, Lane, Name, Stage};
use crate::rollout::command::Allowed;
use crate::secrets::Reference;
use crate::source::charset;
pub use crate::source::files::DirectorySettings;
pub use crate::source::http::HttpSettings;
use crate::status::cadence::Expect;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub gateway: GatewaySettings,
    pub spool: SpoolSettings,
    pub uplink: UplinkSettings,
    pub trust: TrustSettings,
    pub status: StatusSettings,
    pub alerts: AlertSettings,
    /// Only a document asks.
    pub renew: Option<RenewSettings>,
    /// What of the two before comes from a document of the recovery keys.
    pub moved: Option<Moved>,
    pub feeds: Vec<FeedSettings>,
}

impl Settings {
    /// The configuration is proven: where a document names other endpoints than the local file, those of the file leave the rotation. True: one did.
    pub fn settle(&mut self) -> bool {
        let before = self.uplink.endpoints.len();
        if self.moved.as_ref().is_some_and(|moved| !moved.endpoints.is_empty()) {
            self.uplink.endpoints.retain(|endpoint| endpoint.origin == EndpointOrigin::Added);
        }
        self.uplink.endpoints.len() < before
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewaySettings {
    pub site: Name,
    pub id: Name,
    /// Labels by which documents may mean this gateway among others.
    pub groups: Vec<Name>,
    /// IANA name, checked against the compiled-in data.
    pub timezone: String,
    pub control_socket: PathBuf,
    /// Where the sockets of the groups are; where there is no such directory there are none.
    pub access_directory: PathBuf,
    /// There while the system's clock is kept right.
    pub clock_synchronised_file: PathBuf,
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

/// Who may sign documents and commands, and which commands are carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustSettings {
    /// PEM files; empty: no document is taken.
    pub keys: Vec<PathBuf>,
    /// In place of them: PEM, from a document of the recovery keys.
    pub inline_keys: Vec<Arc<str>>,
    /// How many of them have to sign.
    pub threshold: usize,
    /// A second set, for what the first must not do.
    pub recovery_keys: Vec<PathBuf>,
    pub recovery_threshold: usize,
    /// Which commands are carried out.
    pub commands: Allowed,
    /// Who may sign them; empty: who may sign documents.
    pub command_keys: Vec<PathBuf>,
    pub command_threshold: usize,
}

/// Who is alerted, and how long a condition has to hold before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertSettings {
    /// `None`: no lines are sent.
    pub syslog: Option<Target>,
    /// Where whoever reads the lines finds the runbook.
    pub runbook: String,
    pub uplink_after: Duration,
    pub peer_after: Duration,
    pub oldest_critical_after: Duration,
}

impl Default for AlertSettings {
    fn default() -> Self {
        Self {
            syslog: None,
            runbook: SYSLOG_RUNBOOK_DEFAULT.to_owned(),
            uplink_after: HOLD_UPLINK_DEFAULT,
            peer_after: HOLD_PEER_DEFAULT,
            oldest_critical_after: HOLD_OLDEST_DEFAULT,
        }
    }
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
    /// In order of preference: those that a document adds, then those of the local file, which are always in rotation.
    pub endpoints: Vec<Endpoint>,
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<TlsKeySource>,
    /// Every endpoint with TLS is reached through it, those that documents add too.
    pub proxy: Option<Proxy>,
    pub in_flight: usize,
    pub confirm: Confirm,
    pub receipt_timeout: Duration,
    pub on_no_subscriber: OnNoSubscriber,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsKeySource {
    Credential(Reference),
    File(PathBuf),
}

/// An HTTP proxy that opens tunnels (CONNECT).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    pub host: String,
    pub port: u16,
    /// `user:password` for it.
    pub credential: Option<Reference>,
}

impl std::fmt::Display for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}", authority(&self.host, self.port))
    }
}

/// `host:port`, an IPv6 address in brackets.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// `mqtts://host:port` or, where allowed, `mqtt://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
    pub tls: bool,
    pub origin: EndpointOrigin,
    /// Certificates (PEM) that the broker's is checked against, in place of the bootstrap's `ca`.
    pub ca: Option<Arc<str>>,
    /// Who we are there, in place of the bootstrap's `cert` and `key`: a certificate that was renewed, or a candidate on trial.
    pub identity: Option<Arc<ClientIdentity>>,
}

/// Who listed an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointOrigin {
    /// The local file; always in rotation.
    Bootstrap,
    /// A document.
    Added,
}

/// The files of a client certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// On trial: nothing depends on it yet.
    pub is_candidate: bool,
}

/// A renewal of our certificate that a document asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenewSettings {
    /// Each value asks once.
    pub request: String,
    /// How long a certificate that comes for it has to prove itself.
    pub trial: Duration,
}

impl Endpoint {
    /// One of the bootstrap, with its CA and credentials.
    pub fn new(host: impl Into<String>, port: u16, tls: bool) -> Self {
        Self { host: host.into(), port, tls, origin: EndpointOrigin::Bootstrap, ca: None, identity: None }
    }

    /// The same, listed by a document; `ca`: its own certificates (PEM).
    #[must_use]
    pub fn added(self, ca: Option<Arc<str>>) -> Self {
        Self { origin: EndpointOrigin::Added, ca, ..self }
    }

    /// The same, reached with another certificate.
    #[must_use]
    pub fn with_identity(self, identity: ClientIdentity) -> Self {
        Self { identity: Some(Arc::new(identity)), ..self }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        write!(f, "{scheme}://{}", authority(&self.host, self.port))
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
    pub about: About,
    pub source: SourceSettings,
    /// `None`: nothing is expected, silence is no matter.
    pub expect: Option<ExpectSettings>,
}

/// When a feed is expected to bring something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectSettings {
    pub expect: Expect,
    /// Dates beside those of `expect`, one per line.
    pub holidays_file: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // one per feed, made at start
pub enum SourceSettings {
    Mllp(MllpSettings),
    Directory(Box<DirectorySettings>),
    Http(Box<HttpSettings>),
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

/// A listener with TLS.
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

impl std::fmt::Display for StrictType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.code)?;
        self.trigger.iter().try_for_each(|trigger| write!(f, "^{trigger}"))
    }
}
