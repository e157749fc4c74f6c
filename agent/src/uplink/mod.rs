//! The uplink: one MQTT 5 connection at a time to one of the hub's endpoints, as a bounded stream of events and a non-blocking publish.
//!
//! The forwarder owns the `Uplink`. Publishes carry a token of the forwarder's choice; the token comes back with the broker's answer. When a
//! connection ends (`Down`), every token not answered is unanswered for good: the forwarder starts again from its own marks.
//!
//! ```text
//!   forwarder ── try_publish ──► gate ──► rumqttc ── unix socket ──► bridge ── TCP/TLS ──► broker
//!             ◄── event ─────── queue ◄── connection task (mqtt.rs) ◄── supervisor (endpoints, back-off, board)
//! ```
//!
//! Life cycle: 1. [`Uplink::start`] spawns the supervisor, which for ever chooses an endpoint, runs one connection in a task of its own and
//! waits. 2. A connection dials, says CONNECT, subscribes, and only when the subscriptions are granted opens the gate and reports `Up`.
//! 3. Any error whatever ends it: the gate closes, the answers that had already arrived are reported, then `Down`. Nothing of it is used
//! again. 4. [`Uplink::replace`] ends the connection in order and goes on with other settings; so does the way back to a preferred endpoint
//! (`preference`). 5. [`Uplink::stop`] lets answers come in, says DISCONNECT and closes.
//!
//! Bounds (I4): publishes in flight by number and by bytes, events queued by number, received payloads by bytes. When the forwarder does not
//! take events the connection task waits, and so does the broker; that time does not count as the broker's silence.
//!
//! Code map: `window` (tokens and packet ids, pure), `gate` (the lock both sides share), `mqtt`, `publisher` and `reason` (the only files
//! that name rumqttc), `bridge`, `sniff`, `dial`, `proxy` and `tls` (the line), `patience` (is it still alive), `backoff` and
//! `preference` (pure), `supervisor`; `probe` and `watched` (for `preflight`). Certificates: `credentials` and `csr` (a new one on trial), `expiry` (their end is watched).

mod backoff;
pub mod bridge;
pub mod credentials;
pub(crate) mod csr;
mod dial;
mod expiry;
mod fault;
mod gate;
mod mqtt;
mod patience;
mod preference;
pub(crate) mod probe;
mod proxy;
mod publisher;
mod queue;
mod reason;
mod sniff;
mod supervisor;
pub mod tls;
pub mod visit;
pub(crate) mod watched;
mod window;

#[cfg(test)]
pub(crate) mod scripted;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::config::settings::{Endpoint, UplinkSettings};
use crate::contract::topic::Topics;
use crate::limits;
use crate::record::Name;
use crate::status::board::Board;
use gate::Gate;

/// A publish, QoS 1.
pub struct Outgoing {
    /// Comes back in `Acked`. Unique among those in flight.
    pub token: u64,
    pub topic: String,
    pub payload: Bytes,
    pub content_type: Option<String>,
    /// User properties, in order.
    pub properties: Vec<(String, String)>,
    pub retain: bool,
}

/// Why a publish was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// No connection; `Down` has been or will be reported.
    NoConnection,
    /// The window is full; wait for an `Acked`.
    WindowFull,
    /// Larger than the broker's maximum packet size (bytes).
    TooLarge { packet_bytes_max: u32 },
}

/// The broker's answer to a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckReason {
    Success,
    /// 0x10
    NoMatchingSubscribers,
    /// 0x87, 0x97: may mend by itself.
    NotAuthorized,
    QuotaExceeded,
    /// 0x90, 0x95, 0x99: the publish itself cannot be taken.
    TopicNameInvalid,
    PacketTooLarge,
    PayloadFormatInvalid,
    /// 0x80, 0x83, 0x91 and what the standard may add.
    Other(u8),
}

/// What the uplink tells the forwarder.
pub enum UplinkEvent {
    /// Connected and subscribed. `window`: most publishes in flight (min of `in_flight` and the broker's receive maximum).
    Up {
        endpoint: Endpoint,
        window: usize,
        packet_bytes_max: Option<u32>,
        session_present: bool,
    },
    Acked {
        token: u64,
        reason: AckReason,
    },
    /// A publish on a topic we subscribed to. What the broker kept for our session may come before `Up`.
    Message {
        topic: String,
        payload: Bytes,
        /// The broker had kept it.
        retained: bool,
    },
    /// The connection that was `Up` ended; another attempt follows by itself after a back-off.
    Down {
        error: String,
    },
}

/// I7: sizes, not content.
impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token, topic, payload, properties, retain, .. } = self;
        write!(f, "publish {token} to {topic} [{} bytes, {} properties, retain {retain}]", payload.len(), properties.len())
    }
}

/// I7: sizes, not content.
impl fmt::Debug for UplinkEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up { endpoint, window, .. } => write!(f, "up at {endpoint}, window {window}"),
            Self::Acked { token, reason } => write!(f, "acked {token}: {reason:?}"),
            Self::Message { topic, payload, .. } => write!(f, "message on {topic} [{} bytes]", payload.len()),
            Self::Down { error } => write!(f, "down: {error}"),
        }
    }
}

/// Who we are to the broker.
#[derive(Clone, Debug)]
pub struct UplinkIdentity {
    pub client_id: String,
    /// Topic and payload; retained.
    pub will: (String, Bytes),
    /// Topic filters, QoS 1, without which a connection is of no use.
    pub subscriptions: Vec<String>,
    /// The same, but a broker whose access rules do not know them yet costs only what comes there.
    pub optional: Vec<String>,
    /// For the bridge's sockets; made 0700. Its path should be short (a socket's name has about 100 bytes).
    pub directory: PathBuf,
}

/// By which name a gateway is a client. Neither part can hold a dot, so no two gateways meet in one client id; a slash would upset brokers' access
/// patterns.
pub fn client_id(site: &Name, gateway: &Name) -> String {
    format!("{site}.{gateway}")
}

/// What a gateway subscribes to: what it cannot do without, and the rest.
pub fn subscriptions(topics: &Topics) -> (Vec<String>, Vec<String>) {
    (vec![topics.receipt()], vec![topics.desired(), topics.command(), topics.certificate_issued()])
}

/// Where the uplink's sockets are: beside the spool only where the service gave us no place of its own (the first, of several), so that what is
/// stored still leaves a box whose disk takes no more writes.
pub fn sockets(given: Option<&OsStr>, spool: &Path) -> PathBuf {
    let first = given.and_then(|given| std::env::split_paths(given).next()).filter(|first| first.is_absolute());
    first.map_or_else(|| spool.join("run"), |first| first.join("uplink"))
}

/// Every time the uplink keeps; tests shorten them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub keep_alive: Duration,
    pub ack_stall: Duration,
    pub connect: Duration,
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    pub backoff_slow: Duration,
    pub steady: Duration,
    pub return_min: Duration,
    pub return_dial_max: Duration,
    pub return_max: Duration,
    pub leave: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            keep_alive: limits::KEEP_ALIVE,
            ack_stall: limits::ACK_STALL,
            connect: limits::CONNECT_TIMEOUT,
            backoff_min: limits::BACKOFF_MIN,
            backoff_max: limits::BACKOFF_MAX,
            backoff_slow: limits::BACKOFF_SLOW,
            steady: limits::ENDPOINT_STEADY,
            return_min: limits::RETURN_MIN,
            return_dial_max: limits::RETURN_DIAL_MAX,
            return_max: limits::RETURN_MAX,
            leave: limits::LEAVE_TIMEOUT,
        }
    }
}

/// The forwarder's end. Dropping it closes the connection at once; the broker then publishes the will.
#[derive(Debug)]
pub struct Uplink {
    gate: Arc<Gate>,
    events: queue::Receiver,
    stop: watch::Sender<bool>,
    settings: watch::Sender<Arc<UplinkSettings>>,
    task: JoinHandle<()>,
}

impl Uplink {
    pub fn start(settings: UplinkSettings, identity: UplinkIdentity, board: Arc<Board>, runtime: &tokio::runtime::Handle) -> Self {
        Self::start_with(settings, identity, board, runtime, Timing::default())
    }

    pub(crate) fn start_with(
        settings: UplinkSettings,
        identity: UplinkIdentity,
        board: Arc<Board>,
        runtime: &tokio::runtime::Handle,
        timing: Timing,
    ) -> Self {
        let gate = Arc::<Gate>::default();
        let (sender, events) = queue::queue();
        let (stop, stopped) = watch::channel(false);
        let (settings, wanted) = watch::channel(Arc::new(settings));
        let context = supervisor::Context {
            wanted: wanted.clone(),
            identity,
            board,
            timing,
            gate: gate.clone(),
            events: sender,
            stop: stopped,
            flapping: false.into(),
            suspecting: false.into(),
        };
        let task = runtime.spawn(supervisor::run(Arc::new(context), wanted));
        Self { gate, events, stop, settings, task }
    }

    /// The next event. Cancel-safe. Pends for ever once the uplink has stopped.
    pub async fn event(&mut self) -> UplinkEvent {
        match self.events.next().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    /// Hands a publish over, or gives it back with the reason. Never blocks.
    #[allow(clippy::result_large_err)] // the publish comes back whole; boxing it would cost more often than it saves
    pub fn try_publish(&self, outgoing: Outgoing) -> Result<(), (NotTaken, Outgoing)> {
        self.gate.try_publish(outgoing)
    }

    /// Goes on with other settings, which must list an endpoint: takes no more publishes on the connection that stands, lets what is in
    /// flight be answered (within `LEAVE_TIMEOUT`), says offline, ends it (`Down`) and dials by the new preference. The same settings change
    /// nothing. Never blocks.
    pub fn replace(&self, settings: UplinkSettings) {
        let replaced = self.settings.send_if_modified(|known| {
            let other = **known != settings;
            if other {
                *known = Arc::new(settings);
            }
            other
        });
        if replaced {
            // From here on nothing goes over the old connection; one that is just coming up finds out by itself.
            self.gate.with(|live| live.leaving = true);
        }
    }

    /// Takes no more publishes, waits until nothing is in flight, says DISCONNECT and closes; at most for `deadline`. Events that still come
    /// are dropped: whoever wants the last acknowledgements takes them before.
    pub async fn stop(mut self, deadline: Duration) {
        // No receiver means that the supervisor has ended, which is what is asked for.
        let _ = self.stop.send(true);
        let ended = async {
            while self.events.next().await.is_some() {}
            (&mut self.task).await
        };
        // Late or failed: dropping `self` ends what is left.
        let _ = timeout(deadline, ended).await;
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        self.task.abort();
    }
}
