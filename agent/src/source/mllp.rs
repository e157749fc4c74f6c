//! The MLLP listener of one feed: accepts, gives every connection a task of its own, and stops in order.
//!
//! 1. `Port::open` opens the port, `on` makes a listener that will accept from it (condition `listener_down` while either cannot); `sources`
//!    decides when to try again. The port outlives its listeners: another one may follow on it, and no connection is refused in between.
//! 2. `run` accepts until told to stop. Each connection (`connection`) is one task; an error or even a panic there ends that connection
//!    only.
//! 3. Whoever is outside the feed's `peers` is closed at once (`peers`). Where the feed has TLS, the connection's task begins with the
//!    handshake (`tls`).
//! 4. Above `connections_max` the connection idle longest makes room (`seats`). After store failures answered by closing, accepting pauses
//!    (`pause`). When accept itself fails (descriptors exhausted) it is tried again with a growing delay.
//! 5. At stop the port is closed first, every connection is asked to leave, and those with an append under way are waited for, at most
//!    `SOURCE_STOP_DEADLINE`: their messages may become durable without an answer, and are recognised as duplicates when they come again.
//!
//! Memory (I4): `connections_max` × (`FRAME_OWN_BYTES` + `SOCKET_READ_BYTES`), plus the large-frame slots; with TLS about as much again for
//! its buffers. Connections are never closed for
//! being idle unless the feed says so; TCP keepalive finds those whose peer is gone.

mod connection;
mod pause;
pub mod registry;
mod seats;
mod store;
#[cfg(test)]
mod tests;
mod witness;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use self::connection::{ControlIds, Shared};
use self::pause::Pause;
use self::seats::Seats;
use self::store::Store;
use crate::config::settings::MllpSettings;
use crate::limits::{ODDITY_CHECK_INTERVAL, REPLY_WRITE_TIMEOUT, SOURCE_STOP_DEADLINE};
use crate::record::FeedId;
use crate::source::frame::FrameLimits;
use crate::source::oddity::{Oddity, PeerConditions};
use crate::source::peers;
pub use crate::source::port::BindError;
use crate::source::port::{self, Limited, Port, Retry};
use crate::source::slots::LargeFrameSlots;
use crate::source::tls::{Refusals, Tls};
use crate::spool::Appender;
use crate::status::board::Board;
use crate::status::condition::Code;

/// A feed that will accept from a port.
#[derive(Debug)]
pub struct MllpListener {
    listener: TcpListener,
    /// Dropped with `listener`.
    accepting: oneshot::Sender<()>,
    accepted_no_more: Option<oneshot::Receiver<()>>,
    shared: Arc<Shared>,
    seats: Arc<Seats>,
    board: Arc<Board>,
    tls: Option<Arc<Tls>>,
}

impl MllpListener {
    /// Makes ready to accept from a port, which another listener may still do. Must be called inside the runtime.
    pub fn on(
        port: &Port,
        feed: FeedId,
        settings: MllpSettings,
        message_bytes_max: u64,
        appender: Appender,
        slots: &LargeFrameSlots,
        board: &Arc<Board>,
    ) -> Result<Self, BindError> {
        Self::on_to(port, Store::Spool(appender), feed, settings, message_bytes_max, slots, board)
    }

    fn on_to(
        port: &Port,
        store: Store,
        feed: FeedId,
        settings: MllpSettings,
        message_bytes_max: u64,
        slots: &LargeFrameSlots,
        board: &Arc<Board>,
    ) -> Result<Self, BindError> {
        let tls = settings.tls.clone().map(|tls| Tls::open(tls, feed.clone(), Arc::clone(board))).transpose();
        let tls = tls.map_err(|why| BindError::Tls { feed: feed.clone(), why })?;
        let listener = port.acceptor().map_err(|source| BindError::Port { feed: feed.clone(), listen: port.address(), source })?;
        let (accepting, accepted_no_more) = oneshot::channel();
        let counters = board.feed(&feed);
        let shared = Shared {
            conditions: PeerConditions::new(Arc::clone(board), feed.clone()),
            counters: Arc::clone(&counters),
            board: Arc::clone(board),
            feed,
            frame_limits: FrameLimits {
                unframed: settings.unframed,
                ..FrameLimits::new(usize::try_from(message_bytes_max).unwrap_or(usize::MAX))
            },
            settings,
            reply_timeout: REPLY_WRITE_TIMEOUT,
            store,
            slots: slots.for_feed(),
            pause: watch::Sender::new(Pause::default()),
            // Random without a way to fail; it need not be secret.
            control_ids: ControlIds::new(RandomState::new().build_hasher().finish()),
        };
        Ok(Self {
            listener,
            accepting,
            accepted_no_more: Some(accepted_no_more),
            shared: Arc::new(shared),
            seats: Seats::new(counters),
            board: Arc::clone(board),
            tls,
        })
    }

    /// Where it listens; of use where the port was chosen by the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Ends (with an error, which means nothing) when the listener accepts no more; its connections may still be leaving then. Once.
    pub fn accepted_no_more(&mut self) -> oneshot::Receiver<()> {
        self.accepted_no_more.take().expect("asked for once")
    }

    /// The conditions of a listener that begins to accept; not before, because its predecessor ends its own.
    fn announce(&self) {
        let (feed, settings) = (&self.shared.feed, &self.shared.settings);
        self.board.clear(Code::ListenerDown, feed.as_str());
        match peers::open_to_all(&settings.peers, settings.tls.as_ref(), settings.listen) {
            Some(text) => self.board.raise(Code::ListenerOpen, feed.as_str(), text),
            None => self.board.clear(Code::ListenerOpen, feed.as_str()),
        }
    }

    /// Accepts and serves until `stop` is true or its sender is gone; returns when every connection has ended.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        self.announce();
        let Self { listener, accepting, accepted_no_more: _, shared, seats, board, tls } = self;
        let mut watching = JoinSet::new(); // ends with this function
        if let Some(tls) = &tls {
            watching.spawn(Arc::clone(tls).watch());
        }
        let feed = shared.feed.clone();
        let mut paused = shared.pause.subscribe();
        let mut loop_state = Accepting {
            seats: Arc::clone(&seats),
            shared,
            tls: tls.clone(),
            tasks: JoinSet::new(),
            retry: Retry::default(),
            crowded: Limited::default(),
            refusals: Refusals::default(),
        };
        let mut check = interval(ODDITY_CHECK_INTERVAL);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let listen = listener.local_addr().ok().map(tracing::field::display);
        tracing::info!(%feed, listen, "listening for MLLP");
        loop {
            let now = Instant::now();
            let hold = paused.borrow_and_update().until(now).max(loop_state.retry.until(now));
            tokio::select! {
                biased;
                _ended = stop.wait_for(|stop| *stop) => break, // an error means that whoever could stop us is gone
                Some(ended) = loop_state.tasks.join_next() => loop_state.ended(&ended),
                _ = check.tick() => loop_state.shared.conditions.expire(std::time::Instant::now()),
                _changed = paused.changed() => {} // looked at above; its sender is in `shared`
                () = sleep_until(hold.unwrap_or(now)), if hold.is_some() => {}
                accepted = listener.accept(), if hold.is_none() => loop_state.accepted(accepted),
            }
        }
        watching.abort_all();
        board.clear(Code::ListenerOpen, feed.as_str());
        if let Some(tls) = tls {
            tls.clear();
        }
        drop((listener, accepting));
        seats.stop();
        let shared = loop_state.finish().await;
        shared.conditions.clear();
        tracing::info!(%feed, "listener stopped");
    }
}

/// The state of the accept loop.
struct Accepting {
    shared: Arc<Shared>,
    seats: Arc<Seats>,
    tls: Option<Arc<Tls>>,
    tasks: JoinSet<()>,
    retry: Retry,
    crowded: Limited,
    refusals: Refusals,
}

impl Accepting {
    fn accepted(&mut self, accepted: io::Result<(TcpStream, SocketAddr)>) {
        let feed = &self.shared.feed;
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(unsaid) = self.retry.failed(&error, Instant::now()) {
                    tracing::warn!(%feed, %error, unsaid, "cannot accept connections; trying again with a delay. If descriptors are \
                        exhausted, raise LimitNOFILE or lower connections_max");
                }
                return;
            }
        };
        self.retry.succeeded();
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        if !peers::admits(&self.shared.settings.peers, peer.ip()) {
            self.refusals.tell(&self.shared.told(), Oddity::PeerRefused, &peer.to_string(), "");
            return;
        }
        let max = self.shared.settings.connections_max;
        let seat = self.seats.take(max);
        if seat.as_ref().is_none_or(|(_, crowded)| *crowded)
            && let Some(unsaid) = self.crowded.due(Instant::now())
        {
            tracing::warn!(%feed, %peer, connections_max = max, unsaid, "more connections than connections_max; the one idle \
                longest is closed. Find the sender that reconnects without closing, or raise connections_max");
        }
        let Some((seat, _)) = seat else { return };
        if let Err(error) = port::prepare(&stream) {
            tracing::debug!(%feed, %peer, %error, "socket options were not taken; the connection works without them");
        }
        tracing::debug!(%feed, %peer, "connection accepted");
        let (peer, shared) = (peer.to_string(), Arc::clone(&self.shared));
        if let Some(tls) = &self.tls {
            self.tasks.spawn(connection::serve_tls(Arc::clone(tls), stream, peer, seat, shared));
        } else {
            seat.touch(); // nothing to be proven
            self.shared.counters.peer_accepted();
            self.tasks.spawn(connection::serve(stream, peer, seat, shared));
        }
    }

    fn ended(&self, ended: &Result<(), JoinError>) {
        if ended.as_ref().is_err_and(JoinError::is_panic) {
            tracing::error!(feed = %self.shared.feed, "a connection ended by a defect of the agent; no other is affected, the \
                sender keeps its message. Report the panic logged before this line");
        }
    }

    async fn finish(mut self) -> Arc<Shared> {
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                if ended.as_ref().is_err_and(JoinError::is_panic) {
                    tracing::error!(feed = %self.shared.feed, "a connection ended by a defect of the agent while stopping");
                }
            }
        };
        if timeout(SOURCE_STOP_DEADLINE, all).await.is_err() {
            let left = self.tasks.len();
            tracing::warn!(feed = %self.shared.feed, left, "connections did not end in time and are cut; their senders will send again");
            self.tasks.shutdown().await;
        }
        self.shared
    }
}
