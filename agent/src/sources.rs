//! The set of running sources, and how it becomes another one while messages flow (I6).
//!
//! ```text
//!   apply(feeds)   spool learns what comes (old and new may be appended to) → desk and forwarder are told
//!                → what is gone stops, what changed is replaced, what is new starts            together.rs, listeners.rs, http.rs, running.rs
//!                → what is gone has answered its last message → spool retires it, it drains
//! ```
//!
//! 1. A feed whose source is as it was keeps its socket and its connections. Its lane and character set may change all the same.
//! 2. A feed that cannot become what it should goes on as it was; the fault is returned, raised as a condition, and the change is tried again
//!    every [`LISTENER_RETRY`](limits::LISTENER_RETRY) until it succeeds or something else is applied. Going back is another `apply`.
//! 3. Removed feeds are retired only when their connections have ended: a message under way is answered, not refused.
//! 4. A source that has ended without being told to is started again, and `listener_down` until then.
//! 5. One change at a time: requests wait. Stopping interrupts none of the steps but cuts the waiting.
//!
//! A feed's records keep their order in all of this, because the spool numbers them, not the sources. Where two sources of one feed overlap (the
//! last connections of an old listener and the first of its successor), that is what two connections to one listener are.

mod http;
mod listeners;
pub mod paused;
mod running;
#[cfg(test)]
mod tests;
mod together;
#[cfg(test)]
mod together_tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use self::paused::{Pause, Pauses};
use self::running::Source;
use crate::config::settings::{FeedSettings, SourceSettings};
use crate::forward::Feeds;
use crate::limits;
use crate::overrides::Overrides;
use crate::record::{FeedId, Lane, Name};
use crate::source::files;
use crate::source::http::HttpPorts;
use crate::source::port::Port;
use crate::source::slots::LargeFrameSlots;
use crate::spool::{Appender, ConfigureError};
use crate::status::board::Board;
use crate::status::condition::Code;
use crate::systemd::sockets::SocketStore;

/// Why one feed is not what it should be; the others are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedFault {
    pub feed: FeedId,
    /// Where in the configuration: `feed.mllp.listen`.
    pub key: &'static str,
    /// A sentence.
    pub reason: String,
}

impl std::fmt::Display for FeedFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of feed `{}`: {}", self.key, self.feed, self.reason)
    }
}

/// What the sources show of whether a change works.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalEvidence {
    /// Feeds whose source does not run as it should.
    pub unbound: Vec<FeedId>,
    /// Directory feeds that were touched and whose directory was not seen through since.
    pub unreadable: Vec<FeedId>,
    /// MLLP feeds that were touched, had a peer in the hour before, and none since.
    pub waiting_for_peers: Vec<FeedId>,
}

enum Request {
    Apply { feeds: Feeds, answer: oneshot::Sender<Result<Vec<FeedFault>, ConfigureError>> },
    Evidence { answer: oneshot::Sender<LocalEvidence> },
    Pause { feed: FeedId, pause: Option<Pause>, answer: oneshot::Sender<Result<String, String>> },
    Overlay { overrides: Overrides, answer: oneshot::Sender<Result<Vec<FeedFault>, ConfigureError>> },
}

/// Why a change was not made, or is not known to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Refused(#[from] ConfigureError),
    #[error("the feeds did not follow in {} s; check the disk of the spool, and the agent's log for a port or device that does not answer", limits::APPLY_DEADLINE.as_secs())]
    TooLong,
}

/// Changes and asks the sources of a running agent. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SourcesHandle {
    requests: mpsc::Sender<Request>,
    /// How long a change and an answer may take.
    deadlines: (Duration, Duration),
}

impl SourcesHandle {
    /// Makes these the feeds of the gateway. `Ok` with the feeds that could not follow (see the module's documentation); `Err`: do not rely on
    /// anything, apply again what is wanted. What was asked for in time may still be done after [`ApplyError::TooLong`], before what is asked later.
    pub async fn apply(&self, feeds: Feeds) -> Result<Vec<FeedFault>, ApplyError> {
        let (answer, answered) = oneshot::channel();
        let done = async {
            self.requests.send(Request::Apply { feeds, answer }).await.map_err(|_| ConfigureError::Stopping)?;
            answered.await.unwrap_or(Err(ConfigureError::Stopping))
        };
        timeout(self.deadlines.0, done).await.map_err(|_| ApplyError::TooLong)?.map_err(ApplyError::from)
    }

    /// Pauses a feed; `None`: resumes it (see `paused`). Both answers are sentences; after the error it is as it was.
    pub async fn set_paused(&self, feed: FeedId, pause: Option<Pause>) -> Result<String, String> {
        let stopping = || "the agent is stopping; nothing was changed".to_owned();
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::Pause { feed, pause, answer }).await.map_err(|_| stopping())?;
        answered.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Lays these overrides over the feeds; see [`SourcesHandle::apply`].
    pub async fn overlay(&self, overrides: Overrides) -> Result<Vec<FeedFault>, ApplyError> {
        let (answer, answered) = oneshot::channel();
        let done = async {
            self.requests.send(Request::Overlay { overrides, answer }).await.map_err(|_| ConfigureError::Stopping)?;
            answered.await.unwrap_or(Err(ConfigureError::Stopping))
        };
        timeout(self.deadlines.0, done).await.map_err(|_| ApplyError::TooLong)?.map_err(ApplyError::from)
    }

    /// `None` while the agent stops, or where no answer came in time.
    pub async fn evidence(&self) -> Option<LocalEvidence> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.requests.send(Request::Evidence { answer }).await.ok()?;
            answered.await.ok()
        };
        timeout(self.deadlines.1, asked).await.ok().flatten()
    }

    /// Of sources that never answer; the second value keeps their place.
    #[cfg(test)]
    pub(crate) fn deaf(deadline: Duration) -> (Self, impl Sized) {
        let (requests, unheard) = mpsc::channel(limits::SOURCE_REQUESTS);
        (Self { requests, deadlines: (deadline, deadline) }, unheard)
    }
}

/// What every source is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    pub appender: Appender,
    pub board: Arc<Board>,
    pub gateway: Name,
    pub message_bytes_max: u64,
    /// Where the configured feeds are told: the forwarder, the desk.
    pub told: watch::Sender<Feeds>,
    /// Ports that stay open over a restart.
    pub sockets: SocketStore,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Sources {
    parts: Parts,
    slots: LargeFrameSlots,
    /// As configured, and what lies over it for a while.
    configured: Feeds,
    overlay: Overrides,
    /// What should run, and what does.
    wanted: Feeds,
    running: BTreeMap<FeedId, Source>,
    /// Open ports. Each is accepted from by the source that has its address, and closed when none has.
    ports: BTreeMap<SocketAddr, Arc<Port>>,
    /// Those of HTTP feeds, which may share one.
    http_ports: HttpPorts,
    /// A directory feed's thread has its permit (see `files`).
    turns: BTreeMap<FeedId, Arc<Semaphore>>,
    /// Feeds whose fault stands on the board.
    faulty: BTreeSet<FeedId>,
    /// Feeds that have no source until somebody resumes them.
    pauses: Pauses,
    /// Feeds that the last change touched: when, and whether they had a peer before.
    touched: BTreeMap<FeedId, (Instant, bool)>,
    tasks: JoinSet<()>,
    requests: mpsc::Receiver<Request>,
}

impl Sources {
    /// Nothing runs yet; the spool was opened with `feeds`.
    pub fn new(parts: Parts, pauses: Pauses) -> (Self, SourcesHandle) {
        let (sender, requests) = mpsc::channel(limits::SOURCE_REQUESTS);
        let http_ports = HttpPorts::new(parts.sockets.clone());
        let sources = Self {
            parts,
            slots: LargeFrameSlots::new(),
            configured: Arc::from([]),
            overlay: Overrides::default(),
            wanted: Arc::from([]),
            running: BTreeMap::new(),
            ports: BTreeMap::new(),
            http_ports,
            turns: BTreeMap::new(),
            faulty: BTreeSet::new(),
            pauses,
            touched: BTreeMap::new(),
            tasks: JoinSet::new(),
            requests,
        };
        (sources, SourcesHandle { requests: sender, deadlines: (limits::APPLY_DEADLINE, limits::EVIDENCE_DEADLINE) })
    }

    /// Looks after the sources until told to stop; returns when all of them have ended.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let stopping = stop.clone();
        let mut retry = interval(limits::LISTENER_RETRY);
        retry.reset(); // the first attempt was just made
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = is_stopped(&mut stop) => break,
                Some(_ended) = self.tasks.join_next() => self.drop_ended(), // its panic is in the log
                Some(request) = self.requests.recv() => match request {
                    // Who asked may be gone; what was asked is done all the same.
                    Request::Apply { feeds, answer } => drop(answer.send(self.apply(feeds, &stopping).await)),
                    Request::Evidence { answer } => drop(answer.send(self.evidence())),
                    Request::Overlay { overrides, answer } => drop(answer.send(self.lay_over(overrides, &stopping).await)),
                    Request::Pause { feed, pause, answer } => drop(answer.send(self.set_paused(&feed, pause).await)),
                },
                _ = retry.tick() => drop(self.reconcile(true).await), // the faults stand on the board
            }
        }
        // Ports first: nobody new is let in while the others leave. Those that systemd keeps are the next process's from here on.
        self.parts.sockets.leave();
        self.ports.clear();
        for source in std::mem::take(&mut self.running).into_values() {
            source.stop.send_replace(true);
        }
        while self.tasks.join_next().await.is_some() {}
    }

    /// Makes these the feeds of the gateway; see [`SourcesHandle::apply`].
    pub async fn apply(&mut self, configured: Feeds, stop: &watch::Receiver<bool>) -> Result<Vec<FeedFault>, ConfigureError> {
        let feeds = self.overlay.apply(&configured);
        let now: Vec<(FeedId, Lane)> = feeds.iter().map(|feed| (feed.id.clone(), feed.lane)).collect();
        let is_wanted = |id: &FeedId| now.iter().any(|(wanted, _)| wanted == id);
        let leaving = self.running.values().map(|source| (source.settings.id.clone(), source.settings.lane));
        let leaving: Vec<(FeedId, Lane)> = leaving.filter(|(id, _)| !is_wanted(id)).collect();
        self.parts.board.learn(now.iter().map(|(id, _)| id.clone()));
        for feed in feeds.iter() {
            self.parts.board.feed(&feed.id).describe(feed.about.clone());
        }
        self.parts.appender.configure(now.iter().chain(&leaving).cloned().collect()).await?;
        self.configured = configured;
        self.wanted = Arc::clone(&feeds);
        self.parts.told.send_replace(feeds);
        self.touched.clear();
        self.tell_pauses();
        let gone = self.stop_unwanted().await;
        let faults = self.reconcile(false).await;
        let mut stop = stop.clone();
        let has_ended = async {
            for ended in gone {
                drop(ended.await); // an error is its end as well
            }
        };
        tokio::select! {
            biased;
            () = is_stopped(&mut stop) => return Ok(faults), // the next start knows only the configured ones
            ended = timeout(limits::STOP_SOURCES, has_ended) => {
                if ended.is_err() {
                    tracing::warn!("a feed that was taken away has not ended yet; what it still sends is refused");
                }
            }
        }
        if !leaving.is_empty() {
            self.parts.appender.configure(now).await?;
        }
        for (id, _) in leaving {
            self.faulty.remove(&id);
            self.parts.board.clear(Code::ListenerDown, id.as_str());
            files::clear_conditions(&self.parts.board, &id);
        }
        Ok(faults)
    }

    /// Before the first feed runs.
    pub fn begin_under(&mut self, overrides: Overrides) {
        self.overlay = overrides;
    }

    /// The same feeds under other overrides. What a trial waits for, it still waits for.
    async fn lay_over(&mut self, overrides: Overrides, stop: &watch::Receiver<bool>) -> Result<Vec<FeedFault>, ConfigureError> {
        let before = std::mem::replace(&mut self.overlay, overrides);
        let touched = self.touched.clone();
        let applied = self.apply(Arc::clone(&self.configured), stop).await;
        if applied.is_err() {
            self.overlay = before;
        }
        for (feed, since) in touched {
            self.touched.entry(feed).or_insert(since);
        }
        applied
    }

    /// Tells the sources of feeds that are gone or paused to stop; what is returned ends when they have.
    async fn stop_unwanted(&mut self) -> Vec<oneshot::Receiver<()>> {
        let gone: Vec<FeedId> =
            self.running.keys().filter(|id| self.is_paused(id) || !self.wanted.iter().any(|wanted| wanted.id == **id)).cloned().collect();
        self.let_go(&gone).await.into_iter().map(|(_, ended)| ended).collect()
    }

    /// A source whose task has ended, though nobody told it to, runs no more: what is wanted of it is started again with the next look.
    fn drop_ended(&mut self) {
        let has_ended = |source: &mut Source| matches!(source.ended.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        let ended: Vec<FeedId> = self.running.iter_mut().filter_map(|(id, source)| has_ended(source).then(|| id.clone())).collect();
        for id in ended {
            self.running.remove(&id);
            let reason = "the feed's source has ended by a defect of the agent; its place is in the log";
            self.fault(id.clone(), "feed", reason.to_owned());
            self.faulty.insert(id);
        }
    }

    /// Brings what runs in line with what is wanted, as far as it can be; says where it cannot. `again`: nothing new was asked for, so nothing that
    /// runs is interrupted only to see whether it works this time.
    async fn reconcile(&mut self, again: bool) -> Vec<FeedFault> {
        self.drop_ended();
        let (mut changed, mut leaving) = (Vec::new(), Vec::new());
        for feed in self.wanted.iter().filter(|feed| !self.is_paused(&feed.id)).cloned().collect::<Vec<_>>() {
            match self.running.get_mut(&feed.id) {
                Some(source) if source.settings.source == feed.source => source.settings = feed,
                _ if matches!(feed.source, SourceSettings::Directory(_)) => leaving.extend(self.replace_directory(feed)),
                _ => changed.push(feed),
            }
        }
        for source in leaving {
            drop(Self::release(source).await.1); // its connections leave by themselves
        }
        self.close_unused_ports();
        let faults = self.change(changed, again).await;
        self.close_idle_ports();
        let faulty: BTreeSet<FeedId> = faults.iter().map(|fault| fault.feed.clone()).collect();
        for mended in self.faulty.difference(&faulty) {
            self.parts.board.clear(Code::ListenerDown, mended.as_str());
        }
        self.faulty = faulty;
        faults
    }

    /// A feed is about to be started or replaced.
    fn touch(&mut self, feed: &FeedId) {
        let counters = self.parts.board.feed(feed);
        let connected = counters.connections.load(std::sync::atomic::Ordering::Relaxed) > 0;
        let had_peer = connected || counters.last_peer_at().is_some_and(|at| at.elapsed() <= limits::PEER_EXPECTED);
        self.touched.insert(feed.clone(), (Instant::now(), had_peer));
    }

    fn evidence(&self) -> LocalEvidence {
        let mut evidence = LocalEvidence::default();
        for feed in self.wanted.iter().filter(|feed| !self.is_paused(&feed.id)) {
            let runs = self.running.get(&feed.id).is_some_and(|source| source.settings.source == feed.source);
            if !runs {
                evidence.unbound.push(feed.id.clone());
            }
            let Some((at, had_peer)) = self.touched.get(&feed.id) else { continue };
            let counters = self.parts.board.feed(&feed.id);
            match &feed.source {
                SourceSettings::Mllp(_) if *had_peer && counters.last_peer_at().is_none_or(|peer| peer <= *at) => {
                    evidence.waiting_for_peers.push(feed.id.clone());
                }
                SourceSettings::Directory(_) if counters.last_scan_at().is_none_or(|scan| scan <= *at) => {
                    evidence.unreadable.push(feed.id.clone());
                }
                SourceSettings::Mllp(_) | SourceSettings::Directory(_) | SourceSettings::Http(_) => {}
            }
        }
        evidence
    }

    /// Starts a directory feed, behind the one that runs (its thread ends at a durable place, and the new one begins only then). Returns what it
    /// replaces, told to stop.
    fn replace_directory(&mut self, feed: FeedSettings) -> Option<Source> {
        self.touch(&feed.id);
        let old = self.running.remove(&feed.id);
        if let Some(old) = &old {
            old.stop.send_replace(true);
        }
        self.start_directory(feed);
        old
    }
}

/// Ends when the agent is to stop, or whoever could say so is gone.
async fn is_stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}
