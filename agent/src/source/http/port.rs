//! One port, shared by the feeds that name its address.
//!
//! ```text
//!   first feed joins ──► opened ──► accept ─► task: TLS ─► hyper ─► request::serve ──► feed by its name in the path
//!   last feed leaves ──► listener closed ─► connections end behind the answer under way ──► closed
//! ```
//!
//! 1. The accept loop is a task of its own, so that the feed which opened the port may leave before the others.
//! 2. Above the largest `connections_max` of its feeds a connection is still taken, and its requests are answered with 429; above twice as many
//!    it is closed at once. An idle connection ends after `HTTP_HEAD_TIMEOUT`, so nobody can hold a place for nothing.
//! 3. An address outside the `peers` of every feed is closed at once; one outside those of the feed it posts to gets 403.
//! 4. TLS conditions stand under the feed that opened the port.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Shared;
use super::request::{self, Client};
use super::stream::Stream;
use crate::config::settings::ListenerTls;
use crate::limits::{HTTP_HEAD_BYTES_MAX, HTTP_HEAD_FIELDS_MAX, HTTP_HEAD_TIMEOUT, REPLY_WRITE_TIMEOUT};
use crate::source::oddity::Oddity;
use crate::source::peers;
use crate::source::port::{self, BindError, Retry};
use crate::source::tls::{Tls, client_name};
use crate::systemd::sockets::SocketStore;

/// The open ports of one agent; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct HttpPorts {
    open: Arc<Mutex<HashMap<SocketAddr, Arc<Port>>>>,
    store: SocketStore,
}

/// One open port.
#[derive(Debug)]
pub(super) struct Port {
    /// As the feeds name it.
    listen: SocketAddr,
    local: SocketAddr,
    tls_settings: Option<ListenerTls>,
    tls: Option<Arc<Tls>>,
    feeds: RwLock<BTreeMap<String, Arc<Shared>>>,
    connections: AtomicUsize,
    /// `Some`: close, and be done by then.
    stop: watch::Sender<Option<Instant>>,
    ended: watch::Receiver<bool>,
}

/// A feed's place on its port.
#[derive(Debug)]
pub(super) struct Joined {
    ports: HttpPorts,
    port: Arc<Port>,
    feed: Arc<Shared>,
}

/// Tells that a port has ended.
#[derive(Debug)]
pub(super) struct Ended(watch::Receiver<bool>);

impl Ended {
    pub(super) async fn wait(&mut self) {
        // An error means that the port's task is gone without a word, which is an end too.
        let _ = self.0.wait_for(|ended| *ended).await;
    }
}

impl HttpPorts {
    /// None is open; those that were kept open over a restart are in `store`.
    pub fn new(store: SocketStore) -> Self {
        Self { open: Arc::default(), store }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<SocketAddr, Arc<Port>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn join(&self, feed: &Arc<Shared>) -> Result<Joined, BindError> {
        let mut open = self.open();
        let listen = feed.settings.listen;
        let known = open.get(&listen).filter(|port| !port.has_ended());
        let port = match known {
            Some(port) if port.tls_settings != feed.settings.tls => {
                let why = "another feed has this port with other settings of TLS; make them equal, or use another port".to_owned();
                return Err(BindError::Tls { feed: feed.feed.clone(), why });
            }
            Some(port) => Arc::clone(port),
            None => {
                let port = start(feed, &self.store)?;
                open.insert(listen, Arc::clone(&port));
                port
            }
        };
        port.feeds.write().unwrap_or_else(PoisonError::into_inner).insert(feed.feed.to_string(), Arc::clone(feed));
        Ok(Joined { ports: self.clone(), port, feed: Arc::clone(feed) })
    }
}

impl Joined {
    pub(super) fn port(&self) -> &Port {
        &self.port
    }

    /// The feed stops: its conditions end, or are those of its successor, if one has joined before. One that joins later speaks for itself.
    pub(super) fn hand_over_conditions(&self) {
        let open = self.ports.open();
        let mut named = open.values().filter_map(|port| port.feed(self.feed.feed.as_str()));
        match named.find(|known| !Arc::ptr_eq(known, &self.feed) && !known.is_stopping()) {
            Some(successor) => successor.announce(),
            None => self.feed.withdraw(),
        }
    }

    /// Takes the feed from the port, and closes the port behind the last one.
    pub(super) async fn leave(self, deadline: Instant) {
        let is_last = {
            let mut open = self.ports.open();
            let mut feeds = self.port.feeds.write().unwrap_or_else(PoisonError::into_inner);
            if feeds.get(self.feed.feed.as_str()).is_some_and(|known| Arc::ptr_eq(known, &self.feed)) {
                feeds.remove(self.feed.feed.as_str());
            }
            let is_last = feeds.is_empty();
            if is_last && open.get(&self.port.listen).is_some_and(|known| Arc::ptr_eq(known, &self.port)) {
                open.remove(&self.port.listen);
            }
            is_last
        };
        if is_last {
            self.port.stop.send_replace(Some(deadline));
            let mut ended = self.port.ended();
            if timeout_at(deadline, ended.wait()).await.is_err() {
                tracing::warn!(listen = %self.port.local, "a port did not close in time; its connections are cut");
            }
        }
    }
}

impl Port {
    pub(super) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub(super) fn ended(&self) -> Ended {
        Ended(self.ended.clone())
    }

    fn has_ended(&self) -> bool {
        *self.ended.borrow() || self.ended.has_changed().is_err()
    }

    pub(super) fn feed(&self, name: &str) -> Option<Arc<Shared>> {
        self.feeds.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(super) fn feeds(&self) -> Vec<Arc<Shared>> {
        self.feeds.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(super) fn asks_for_certificates(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.asks_for_certificates())
    }
}

/// Opens the port and starts its task.
fn start(feed: &Arc<Shared>, store: &SocketStore) -> Result<Arc<Port>, BindError> {
    let (id, settings) = (feed.feed.clone(), &feed.settings);
    let tls = settings.tls.clone().map(|tls| Tls::open(tls, id.clone(), Arc::clone(&feed.board))).transpose();
    let tls = tls.map_err(|why| BindError::Tls { feed: id.clone(), why })?;
    let listen = settings.listen;
    let socket = port::Port::open(store, &id, listen)?;
    let opened = socket.acceptor().and_then(|listener| listener.local_addr().map(|local| (listener, local)));
    let (listener, local) = opened.map_err(|source| BindError::Port { feed: id, listen, source })?;
    let (ends, ended) = watch::channel(false);
    let port = Arc::new(Port {
        listen,
        local,
        tls_settings: settings.tls.clone(),
        tls,
        feeds: RwLock::default(),
        connections: AtomicUsize::new(0),
        stop: watch::Sender::new(None),
        ended,
    });
    let serving = Arc::clone(&port);
    // Ends when the last feed leaves; whoever leaves waits for it.
    tokio::spawn(async move {
        serve(socket, listener, serving).await;
        ends.send_replace(true);
    });
    Ok(port)
}

async fn serve(socket: port::Port, listener: TcpListener, port: Arc<Port>) {
    let mut watching = JoinSet::new(); // ends with this function
    if let Some(tls) = &port.tls {
        watching.spawn(Arc::clone(tls).watch());
    }
    let mut stop = port.stop.subscribe();
    let mut tasks = JoinSet::new();
    let mut retry = Retry::default();
    let deadline = loop {
        let now = Instant::now();
        let hold = retry.until(now);
        tokio::select! {
            biased;
            told = stop.wait_for(Option::is_some) => break told.ok().and_then(|told| *told).unwrap_or(now),
            Some(ended) = tasks.join_next() => tell_panic(&port, &ended),
            () = sleep_until(hold.unwrap_or(now)), if hold.is_some() => {}
            accepted = listener.accept(), if hold.is_none() => match accepted {
                Ok((stream, peer)) => {
                    retry.succeeded();
                    accept(&port, stream, peer, &mut tasks);
                }
                Err(error) => tell_accept(&port, &mut retry, &error),
            },
        }
    };
    drop((listener, socket));
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            tell_panic(&port, &ended);
        }
    };
    if timeout_at(deadline, all).await.is_err() {
        tasks.shutdown().await;
    }
    if let Some(tls) = &port.tls {
        tls.clear();
    }
}

fn tell_accept(port: &Port, retry: &mut Retry, error: &io::Error) {
    if let Some(unsaid) = retry.failed(error, Instant::now()) {
        tracing::warn!(listen = %port.local, %error, unsaid, "cannot accept connections; trying again with a delay. If descriptors are \
            exhausted, raise LimitNOFILE or lower connections_max");
    }
}

fn tell_panic(port: &Port, ended: &Result<(), JoinError>) {
    if ended.as_ref().is_err_and(JoinError::is_panic) {
        tracing::error!(listen = %port.local, "a connection ended by a defect of the agent; no other is affected, the client was not \
            answered and sends again. Report the panic logged before this line");
    }
}

/// Counts one connection while it lives, also through a panic.
struct Counted(Arc<Port>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

fn accept(port: &Arc<Port>, stream: TcpStream, peer: SocketAddr, tasks: &mut JoinSet<()>) {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let feeds = port.feeds();
    let Some(first) = feeds.first() else { return };
    if !feeds.iter().any(|feed| peers::admits(&feed.settings.peers, peer.ip())) {
        first.refusals.tell(&first.told(), Oddity::PeerRefused, &peer.to_string(), "");
        return;
    }
    let max = feeds.iter().map(|feed| feed.settings.connections_max).max().unwrap_or(1);
    let before = port.connections.fetch_add(1, Ordering::Relaxed);
    let counted = Counted(Arc::clone(port));
    if before >= 2 * max {
        first.refusals.tell(&first.told(), Oddity::TooBusy, &peer.to_string(), "");
        return;
    }
    let prepared = port::prepare(&stream).and_then(|()| socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(REPLY_WRITE_TIMEOUT)));
    if let Err(error) = prepared {
        tracing::debug!(%peer, %error, "socket options were not taken; the connection works without them");
    }
    tasks.spawn(connection(counted, stream, peer, before >= max));
}

/// One connection from its first byte to its end.
async fn connection(counted: Counted, stream: TcpStream, peer: SocketAddr, crowded: bool) {
    let port = &counted.0;
    let mut stop = port.stop.subscribe();
    let (stream, name) = match &port.tls {
        None => (Stream::Plain(stream), None),
        Some(tls) => {
            let handshake = tokio::select! {
                biased;
                () = told(&mut stop) => return,
                handshake = tls.handshake(stream) => handshake,
            };
            match handshake {
                Ok(stream) => {
                    let name = client_name(&stream);
                    (Stream::Tls(Box::new(stream)), name)
                }
                Err(failed) => {
                    if let Some(first) = port.feeds().first() {
                        tls.tell(&failed, &first.told(), &peer.to_string());
                    }
                    return;
                }
            }
        }
    };
    let client = Arc::new(Client::new(Arc::clone(port), peer, name, crowded));
    let serving = Arc::clone(&client);
    let service = service_fn(move |request| {
        let client = Arc::clone(&serving);
        async move { Ok::<_, Infallible>(request::serve(request, client).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HTTP_HEAD_TIMEOUT);
    builder.max_headers(HTTP_HEAD_FIELDS_MAX).max_buf_size(HTTP_HEAD_BYTES_MAX);
    let mut serving = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        biased;
        () = told(&mut stop) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
        ended = serving.as_mut() => ended,
    };
    let stopping = port.stop.borrow().is_some();
    client.ends(ended.as_ref().err(), stopping);
}

/// Ends when the port closes.
async fn told(stop: &mut watch::Receiver<Option<Instant>>) {
    // An error means that the port is gone.
    drop(stop.wait_for(Option::is_some).await);
}

#[cfg(test)]
impl HttpPorts {
    /// Every port's task ends, as by a defect.
    pub(crate) fn end_all(&self) {
        for port in self.open().values() {
            port.stop.send_replace(Some(Instant::now()));
        }
    }

    /// Requests of a feed that are under way.
    pub(crate) fn requests(&self, name: &str) -> usize {
        self.feed(name).map_or(0, |feed| feed.under_way.borrow().requests)
    }

    /// A feed that has joined any port.
    pub(super) fn feed(&self, name: &str) -> Option<Arc<Shared>> {
        self.open().values().find_map(|port| port.feed(name))
    }
}
