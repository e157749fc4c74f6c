//! HTTP feeds: `POST /feeds/{feed}`, answered with success only after every record of the request is on disk (I1).
//!
//! ```text
//!   http (this)   one feed: joins its port, looks after its tokens, stops in order
//!     port        one address, shared by the feeds that name it: accept, TLS, HTTP/1.1 by hyper
//!       stream    a connection with or without TLS
//!     request     one request: gate (peer, token, feed, method, type, key) ─► body ─► parts ─► store ─► answer
//!       path      where it goes, and under which key (pure)
//!       media     what a body is (pure)               tokens   whose token (pure), its file
//!       body      reading with bounds                 parts    a body into records (pure, by source/split)
//!       store     records ─► spool, what is none ─► quarantine
//!       answer    what the client is told (pure)
//! ```
//!
//! 1. `bind` joins the port of `listen`, or opens it; `run` serves until told to stop. The port closes with its last feed.
//! 2. A body is held whole before anything of it is stored: it is found out first whether it is complete, and one idempotency key stands for
//!    all of it. Above `FRAME_OWN_BYTES` it takes a large-frame slot, which it keeps until everything is stored (I4).
//! 3. With `Idempotency-Key` each record carries key and number as its identity and the digest of the whole request as its body's print: the
//!    same request again gets the same answer, also after a restart and also when the first time it came only half way; another request under
//!    the same key is refused. Without a key every POST is a new one.
//! 4. At stop requests under way are answered, new ones are told to come again; at most `SOURCE_STOP_DEADLINE`. The feed's conditions end at
//!    once, or become those of its successor, which may have joined before (`Joined::hand_over_conditions`).
//!
//! Who posts is proven by a bearer token (`tokens`), by a client certificate (`source/tls`), or by being on this machine.

mod answer;
mod body;
pub mod media;
mod parts;
mod path;
mod port;
mod request;
mod store;
mod stream;
#[cfg(test)]
mod tests;
pub mod tokens;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use self::media::MediaType;
pub use self::port::HttpPorts;
use self::port::{Joined, Port};
use self::tokens::TokensFile;
use super::peers;
use super::port::BindError;
use super::slots::{FeedSlots, LargeFrameSlots};
use super::tls::{Refusals, Told};
use crate::config::settings::{ListenerTls, Network};
use crate::limits::{HTTP_STOP_RESERVE, HTTP_TOKENS_INTERVAL, ODDITY_CHECK_INTERVAL, SOURCE_STOP_DEADLINE};
use crate::record::{FeedId, Name, Stage};
use crate::secrets::Reference;
use crate::source::oddity::PeerConditions;
use crate::spool::Appender;
use crate::status::board::{Board, FeedCounters};
use crate::status::condition::Code;

/// What of a body becomes a record, beside NDJSON, of which every line is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpSplit {
    /// The body.
    Whole,
    /// Each entry of a Bundle.
    FhirBundle,
    /// Each element of a JSON array.
    JsonArray,
}

/// An HTTP feed, validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    pub listen: SocketAddr,
    pub split: HttpSplit,
    /// Media types taken as bytes, beside `application/octet-stream`.
    pub accept: Vec<MediaType>,
    /// `Some`: clients must show one of its tokens.
    pub tokens_file: Option<PathBuf>,
    /// The same lines as a secret of this gateway.
    pub tokens_credential: Option<Reference>,
    /// Who may post; empty: everybody.
    pub peers: Vec<Network>,
    pub connections_max: usize,
    /// Largest body of many records.
    pub body_bytes_max: u64,
    pub body_timeout: Duration,
    pub tls: Option<ListenerTls>,
    pub stage: Stage,
}

impl HttpSettings {
    /// Where clients post to, for people.
    pub fn url(&self, feed: &FeedId) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/feeds/{feed}", self.listen)
    }

    /// The port asks nobody in particular, so `peers` and tokens decide.
    fn open_to_all(&self) -> Option<String> {
        let open = peers::open_to_all(&self.peers, self.tls.as_ref(), self.listen)?;
        (self.tokens_file.is_none() && self.tokens_credential.is_none()).then_some(open)
    }
}

/// What all requests of a feed share.
#[derive(Debug)]
pub(crate) struct Shared {
    feed: FeedId,
    gateway: Name,
    settings: HttpSettings,
    message_bytes_max: u64,
    appender: Appender,
    slots: FeedSlots,
    counters: Arc<FeedCounters>,
    board: Arc<Board>,
    conditions: PeerConditions,
    refusals: Refusals,
    tokens: Option<TokensFile>,
    /// Requests under way, and whether more are taken.
    under_way: watch::Sender<UnderWay>,
}

#[derive(Clone, Copy, Debug, Default)]
struct UnderWay {
    requests: usize,
    stopping: bool,
}

impl Shared {
    fn told(&self) -> Told<'_> {
        Told { feed: &self.feed, counters: &self.counters, conditions: &self.conditions }
    }

    /// The conditions of a feed that serves.
    fn announce(&self) {
        let feed = self.feed.as_str();
        match self.settings.open_to_all() {
            Some(text) => self.board.raise(Code::ListenerOpen, feed, text),
            None => self.board.clear(Code::ListenerOpen, feed),
        }
        if !self.tokens.as_ref().is_some_and(TokensFile::has_failed) {
            self.board.clear(Code::FeedTokensInvalid, feed);
        }
    }

    /// The conditions of a feed that serves no more.
    fn withdraw(&self) {
        self.board.clear(Code::ListenerOpen, self.feed.as_str());
        self.board.clear(Code::FeedTokensInvalid, self.feed.as_str());
    }

    fn is_stopping(&self) -> bool {
        self.under_way.borrow().stopping
    }

    /// A place for one request; `None` while the feed stops.
    fn enter(self: &Arc<Self>) -> Option<Visit> {
        let entered = self.under_way.send_if_modified(|now| {
            now.requests += usize::from(!now.stopping);
            !now.stopping
        });
        entered.then(|| Visit(Arc::clone(self)))
    }
}

/// One request under way; ends when dropped, also by a panic.
#[derive(Debug)]
struct Visit(Arc<Shared>);

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.under_way.send_modify(|now| now.requests -= 1);
    }
}

/// What an HTTP feed is made of.
#[derive(Debug)]
pub struct Parts<'a> {
    pub feed: FeedId,
    pub gateway: Name,
    pub settings: HttpSettings,
    pub message_bytes_max: u64,
    pub appender: Appender,
    pub slots: &'a LargeFrameSlots,
    pub board: &'a Arc<Board>,
    pub ports: &'a HttpPorts,
}

/// A feed that has joined its port.
#[derive(Debug)]
pub struct HttpFeed {
    shared: Arc<Shared>,
    joined: Joined,
}

impl HttpFeed {
    /// Reads the tokens and joins the port, or opens it. Must be called inside the runtime.
    pub fn bind(parts: Parts<'_>) -> Result<Self, BindError> {
        let (feed, board) = (parts.feed.clone(), Arc::clone(parts.board));
        Self::open(parts).inspect_err(|error| error.tell(&board, &feed, ""))
    }

    fn open(parts: Parts<'_>) -> Result<Self, BindError> {
        let Parts { feed, gateway, settings, message_bytes_max, appender, slots, board, ports } = parts;
        let tokens = tokens::Lines::of(&settings).map(TokensFile::open).transpose();
        let tokens = tokens.map_err(|why| BindError::Tokens { feed: feed.clone(), why })?;
        let shared = Arc::new(Shared {
            gateway,
            message_bytes_max,
            appender,
            slots: slots.for_feed(),
            counters: board.feed(&feed),
            board: Arc::clone(board),
            conditions: PeerConditions::new(Arc::clone(board), feed.clone()),
            refusals: Refusals::default(),
            tokens,
            under_way: watch::Sender::new(UnderWay::default()),
            settings,
            feed,
        });
        let joined = ports.join(&shared)?;
        board.clear(Code::ListenerDown, shared.feed.as_str());
        shared.announce();
        Ok(Self { shared, joined })
    }

    /// Where it listens; of use where the port was chosen by the system.
    pub fn local_addr(&self) -> SocketAddr {
        self.port().local_addr()
    }

    fn port(&self) -> &Port {
        self.joined.port()
    }

    /// Serves until `stop` is true or its sender is gone, or the port has failed; returns when what was under way is answered.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let Self { shared, joined } = self;
        let feed = &shared.feed;
        let mut port_ended = joined.port().ended();
        let mut check = interval(ODDITY_CHECK_INTERVAL);
        let mut look = interval(HTTP_TOKENS_INTERVAL);
        for ticks in [&mut check, &mut look] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        tracing::info!(%feed, listen = %joined.port().local_addr(), "listening for HTTP");
        loop {
            tokio::select! {
                biased;
                () = told(&mut stop) => break,
                () = port_ended.wait() => break,
                _ = check.tick() => shared.conditions.expire(std::time::Instant::now()),
                _ = look.tick(), if shared.tokens.is_some() => look_at_tokens(&shared).await,
            }
        }
        shared.under_way.send_modify(|now| now.stopping = true);
        joined.hand_over_conditions();
        let deadline = Instant::now() + SOURCE_STOP_DEADLINE;
        let mut under_way = shared.under_way.subscribe();
        if timeout_at(deadline - HTTP_STOP_RESERVE, under_way.wait_for(|now| now.requests == 0)).await.is_err() {
            let left = under_way.borrow().requests;
            tracing::warn!(%feed, left, "requests did not end in time and are cut; their clients will send again");
        }
        joined.leave(deadline).await;
        shared.conditions.clear();
        tracing::info!(%feed, "HTTP feed stopped");
    }
}

async fn look_at_tokens(shared: &Arc<Shared>) {
    let looking = Arc::clone(shared);
    let look = move || {
        if let Some(tokens) = &looking.tokens {
            tokens.look(&looking.feed, &looking.board);
        }
    };
    if tokio::task::spawn_blocking(look).await.is_err() {
        tracing::error!(feed = %shared.feed, "looking after the tokens failed by a defect of the agent; it is tried again");
    }
}

/// Ends when told to stop.
async fn told(stop: &mut watch::Receiver<bool>) {
    // An error means that whoever could stop us is gone.
    drop(stop.wait_for(|stop| *stop).await);
}
