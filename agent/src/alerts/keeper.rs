//! The owner of alerts and maintenance windows while the agent runs: one task.
//!
//! 1. Every [`ALERT_TICK`]: time passes for windows; `peer_lost` and `oldest_critical` are judged; the conditions on the board go through the machine;
//!    what it says becomes lines in the outbox; the board is told who is alerted and what is silenced.
//! 2. A window is durable before who asked is told. A disk that refuses or hangs refuses new windows, and ends none early; what could not be
//!    written is tried again with every tick. At most one write is under way, on a thread of its own: a disk that hangs holds up no alert.
//! 3. Windows are logged. Who begins or ends one is recorded by whoever carries the order out; an end by itself is recorded here.
//! 4. At the stop the file says exactly what is left of windows; a kill costs a slice of them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, block_in_place, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::handle::{self, Asked, Handle, Request, Response};
use super::line::Alert;
use super::machine::{Change, Key, Machine};
use super::outbox::Outbox;
use super::senders::{Oldest, Peers, Seen, Waiting};
use super::store::{Memory, Store};
use super::syslog::Sender;
use super::view::{AlertsView, Window};
use super::windows::{Come, Held, Windows, Wish, moment};
use crate::audit::Book;
use crate::clock::{self, WallTime};
use crate::config::settings::{AlertSettings, SourceSettings};
use crate::forward::Feeds;
use crate::limits::{ALERT_TICK, ALERT_WRITE_DEADLINE, ALERT_WRITE_INTERVAL, MAINTENANCE_TIME_MAX};
use crate::record::{Lane, Name};
use crate::spool::Monitor;
use crate::spool::disk::Disk;
use crate::status::board::Board;
use crate::status::condition::{Code, Condition};
use crate::status::inquiry::{Turn, turn};
use crate::timed;

/// What the keeper works with.
#[derive(Debug)]
pub struct Means {
    pub site: Name,
    pub gateway: Name,
    pub settings: AlertSettings,
    /// Of the site's clocks.
    pub zone: TimeZone,
    pub board: Arc<Board>,
    pub monitor: Monitor,
    /// Those that run now.
    pub feeds: watch::Receiver<Feeds>,
    pub book: Book,
}

/// What was remembered, and what is asked of the keeper before it runs.
#[derive(Debug)]
pub struct Kept {
    store: Store,
    memory: Memory,
    asked: mpsc::Receiver<Asked>,
}

impl Kept {
    pub fn open(disk: Arc<dyn Disk>, spool: &Path) -> (Self, Handle) {
        let store = Store::new(disk, spool);
        let (handle, asked) = handle::open();
        let mut memory = block_in_place(|| store.read());
        memory.starts += 1;
        (Self { store, memory, asked }, handle)
    }

    pub fn keep(self, means: Means) -> Keeper {
        let Memory { starts, windows, alerts, standing, oldest } = self.memory;
        Keeper {
            machine: Machine::new(means.settings.clone(), alerts),
            peers: Peers::new(means.settings.peer_after, standing),
            oldest: Oldest::new(means.settings.oldest_critical_after),
            outbox: means.settings.syslog.is_some().then(Arc::default),
            means,
            store: self.store,
            asked: self.asked,
            starts,
            windows,
            oldest_age: oldest,
            at: Instant::now(),
            written: Instant::now(),
            writing: None,
            unwritten: true,
            failing: false,
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Keeper {
    means: Means,
    store: Store,
    asked: mpsc::Receiver<Asked>,
    /// `None`: nobody wants lines.
    outbox: Option<Arc<Outbox>>,
    machine: Machine,
    peers: Peers,
    oldest: Oldest,
    oldest_age: Duration,
    windows: Windows,
    starts: u64,
    at: Instant,
    written: Instant,
    writing: Option<JoinHandle<std::io::Result<()>>>,
    unwritten: bool,
    failing: bool,
}

impl Keeper {
    /// Until told to stop.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let sender = self.outbox.as_ref().zip(self.means.settings.syslog.clone()).map(|(outbox, target)| {
            let (site, gateway, runbook) = (self.means.site.clone(), self.means.gateway.clone(), self.means.settings.runbook.clone());
            tokio::spawn(Sender { target, site, gateway, runbook, outbox: Arc::clone(outbox) }.run(stop.clone()))
        });
        self.windows.held.charge();
        let mut tick = interval(ALERT_TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let woken = turn(&mut self.asked, &mut tick, &mut stop).await;
            if matches!(woken, Turn::Stop) {
                break;
            }
            self.tick().await;
            if let Turn::Asked(asked) = woken {
                let answer = self.answer(asked.request.clone()).await;
                asked.answer(answer);
                self.tell(&self.means.board.conditions());
            }
        }
        if let Some(sender) = sender {
            // It keeps its own deadline; a panic in it is in the log.
            drop(sender.await);
        }
        self.handed_over();
        self.windows.held.settle();
        self.unwritten = true;
        self.persist().await;
    }

    async fn tick(&mut self) {
        let (now, wall) = (Instant::now(), clock::now());
        let passed = now.saturating_duration_since(std::mem::replace(&mut self.at, now));
        for held in self.windows.pass(passed, wall) {
            self.ended("siteward", &held);
            self.means.book.note("siteward", "maintenance_ended", &held.subject(), "its time is over");
        }
        self.begin(wall);
        self.judge(passed);
        let conditions = self.means.board.conditions();
        let raised = conditions.iter().filter_map(|c| Some((Code::read(c.code)?, c.subject.clone()))).collect();
        let windows = &self.windows;
        let changes = self.machine.step(passed, raised, |(code, subject)| windows.silencing(*code, subject).is_some());
        for change in changes {
            let number = self.outbox.as_ref().map(|outbox| outbox.put(self.alert(&change, &conditions)));
            self.machine.telling(&change, number);
            self.unwritten |= number.is_none();
        }
        self.handed_over();
        self.tell(&conditions);
        let holds = self.machine.is_holding() || !self.oldest_age.is_zero();
        if self.windows.held.is_due() {
            self.windows.held.charge();
            self.unwritten = true;
        }
        if self.unwritten || holds && self.written.elapsed() >= ALERT_WRITE_INTERVAL {
            self.persist().await;
        }
    }

    fn begin(&mut self, wall: WallTime) {
        for come in self.windows.begin(wall) {
            let (held, what, why) = match &come {
                Come::Begun(held) => (held, "maintenance_begun", "its time has come"),
                Come::Missed(held) => (held, "maintenance_missed", "its time went by while nothing ran"),
            };
            tracing::warn!(id = held.what.id, subject = held.subject(), "a planned maintenance window: {why}");
            self.means.book.note("siteward", what, &held.subject(), why);
            self.windows.held.charge();
            self.unwritten = true;
        }
    }

    fn handed_over(&mut self) {
        if let Some(outbox) = &self.outbox {
            self.unwritten |= self.machine.handed_over(outbox.through());
        }
    }

    /// The two conditions that are judged here.
    fn judge(&mut self, passed: Duration) {
        let (board, feeds) = (&self.means.board, Arc::clone(&self.means.feeds.borrow()));
        let conditions = board.conditions();
        let is_closed = |feed: &str| {
            let closes = [Code::FeedPaused, Code::OverrideActive, Code::ListenerDown].map(Code::as_str);
            conditions.iter().any(|c| c.subject == feed && closes.contains(&c.code))
        };
        let listeners = feeds.iter().filter(|feed| matches!(feed.source, SourceSettings::Mllp(_)));
        let seen: Vec<_> = listeners
            .map(|feed| {
                let counters = board.feed(&feed.id);
                let (connections, ended) = (counters.connections.load(Ordering::Relaxed), counters.registry.ended());
                let messages = counters.messages();
                (feed.id.clone(), Seen { connections, ended, messages, is_closed: is_closed(feed.id.as_str()) })
            })
            .collect();
        let before = self.peers.standing().len();
        let lost = self.peers.look(passed, &seen);
        self.unwritten |= self.peers.standing().len() != before;
        for condition in conditions.iter().filter(|c| c.code == Code::PeerLost.as_str()) {
            if !lost.iter().any(|feed| feed.as_str() == condition.subject) {
                board.clear(Code::PeerLost, &condition.subject);
            }
        }
        for feed in lost {
            let text = "the sender of this feed keeps its connection, and is not connected any more; look at the sending system and the network \
                        between, it connects again by itself";
            board.raise(Code::PeerLost, feed.as_str(), text);
        }
        self.judge_oldest(passed);
    }

    fn judge_oldest(&mut self, passed: Duration) {
        let board = &self.means.board;
        let critical = self.means.monitor.view().feeds.into_iter().filter(|feed| feed.lane == Lane::Critical);
        let waiting: Vec<_> = critical.map(|feed| Waiting { feed: feed.id, head: feed.last_seq, settled: feed.settled_seq }).collect();
        let found = self.oldest.look(passed, &waiting, self.oldest_age);
        self.oldest_age = found.as_ref().map_or(Duration::ZERO, |(_, age)| *age);
        let limit = self.means.settings.oldest_critical_after;
        match found.filter(|(_, age)| *age >= limit) {
            None => board.clear(Code::OldestCritical, ""),
            Some((feed, _)) => {
                let text = format!(
                    "records of the critical lane have waited longer than {} s for the hub's confirmation, the oldest of feed {feed}; nothing is lost, \
                     see what else is raised (uplink, receipts)",
                    limit.as_secs()
                );
                board.raise(Code::OldestCritical, "", text);
            }
        }
    }

    fn alert(&self, change: &Change, conditions: &[Condition]) -> Alert {
        let (Change::Raised((code, subject)) | Change::Over((code, subject))) = change;
        let known = conditions.iter().find(|c| c.code == code.as_str() && c.subject == *subject);
        let is_feed = self.means.feeds.borrow().iter().any(|feed| feed.id.as_str() == subject);
        Alert {
            code: *code,
            subject: subject.clone(),
            is_feed,
            over: matches!(change, Change::Over(_)),
            text: known.map_or_else(|| "it is not so any more".to_owned(), |c| c.text.clone()),
            since: known.map(|c| c.since.clone()).unwrap_or_default(),
            at: clock::now(),
        }
    }

    /// The board, and with it every surface.
    fn tell(&self, conditions: &[Condition]) {
        let now = clock::now();
        let state = |condition: &Condition| {
            let key: Key = (Code::read(condition.code)?, condition.subject.clone());
            let silencing = self.windows.silencing(key.0, &key.1).filter(|_| self.machine.is_silenced(&key));
            let shown = (self.machine.is_alerting(&key), silencing.map(|held| held.silenced(now)));
            Some(((condition.code, key.1), shown))
        };
        let syslog = self.means.settings.syslog.as_ref().map(ToString::to_string);
        self.means.board.show_alerts(&AlertsView {
            states: conditions.iter().filter_map(state).collect(),
            windows: self.windows.views(now),
            shown: self.outbox.as_ref().map(|outbox| outbox.shown(syslog)).unwrap_or_default(),
            starts: self.starts,
        });
    }

    // ---- windows ----

    async fn answer(&mut self, request: Request) -> Result<Response, String> {
        match request {
            Request::List => {
                let now = clock::now();
                Ok(Response::List { maintenance: self.windows.views(now) })
            }
            Request::Start(wish) => self.start(wish).await,
            Request::End { id, who } => self.end(id, &who).await,
        }
    }

    async fn start(&mut self, wish: Wish) -> Result<Response, String> {
        let reason = timed::reason(&wish.reason, "a maintenance window", wish.time, MAINTENANCE_TIME_MAX)?;
        if let Some(feed) = wish.feed.as_ref().filter(|feed| !self.means.feeds.borrow().iter().any(|known| known.id == **feed)) {
            return Err(format!("this gateway has no feed `{feed}`; see `siteward feeds`"));
        }
        let now = clock::now();
        let from_ms = wish.at.as_deref().map(|at| moment(at, &self.means.zone, now)).transpose()?;
        let before = self.windows.clone();
        let window = self.windows.start(Wish { reason, ..wish }, from_ms, now)?;
        self.windows.held.charge();
        self.write_or(before).await?;
        let Window { id, from, for_s, who, reason, .. } = &window;
        let subject = window.feed.as_ref().map_or_else(|| "gateway".to_owned(), |feed| format!("feed {feed}"));
        tracing::warn!(
            id,
            subject,
            who,
            from,
            for_s,
            "a maintenance window {}: {reason}",
            if from.is_some() { "is planned" } else { "holds" }
        );
        let what = if window.feed.is_some() { "its sender and its cadence" } else { "senders, cadence and uplink" };
        let from = from.as_ref().map(|from| format!("from {from} on ")).unwrap_or_default();
        let done =
            format!("maintenance {id}: alerts about {what} are silenced {from}for {for_s} s ({subject}); loss is alerted all the same");
        Ok(Response::Done { done })
    }

    async fn end(&mut self, id: u64, who: &str) -> Result<Response, String> {
        let before = self.windows.clone();
        let Some(held) = self.windows.end(id) else {
            return Err(format!("no maintenance window {id} holds or is planned; see `siteward maintenance list`"));
        };
        self.write_or(before).await?;
        self.ended(who, &held);
        Ok(Response::Done { done: format!("maintenance {id} is over; what is still wrong is alerted now") })
    }

    fn ended(&mut self, who: &str, held: &Held) {
        self.unwritten = true;
        tracing::warn!(id = held.what.id, subject = held.subject(), who, "a maintenance window is over");
    }

    // ---- the file ----

    fn memory(&self) -> Memory {
        Memory {
            starts: self.starts,
            windows: self.windows.clone(),
            alerts: self.machine.memory(),
            standing: self.peers.standing().clone(),
            oldest: self.oldest_age,
        }
    }

    /// Writes what is to hold, or goes back to `before`.
    async fn write_or(&mut self, before: Windows) -> Result<(), String> {
        self.unwritten = true;
        self.persist().await;
        if !self.unwritten {
            return Ok(());
        }
        self.windows = before;
        self.windows.held.charge();
        Err("it could not be written; nothing was changed, though a restart may find it so until the disk takes it; check the disk of the spool"
            .to_owned())
    }

    /// Waits a little for the disk; what is still under way then is waited for with the next tick.
    async fn persist(&mut self) {
        if self.writing.is_some() && !self.settle_writing(Duration::from_millis(1)).await {
            return;
        }
        let (store, memory) = (self.store.clone(), self.memory());
        self.writing = Some(spawn_blocking(move || store.write(&memory)));
        let ended = self.settle_writing(ALERT_WRITE_DEADLINE).await;
        self.unwritten = !ended || self.failing;
        self.written = Instant::now();
    }

    /// True: nothing is under way any more.
    async fn settle_writing(&mut self, time: Duration) -> bool {
        let Some(mut writing) = self.writing.take() else { return true };
        let written = match timeout(time, &mut writing).await {
            Err(_) => {
                self.writing = Some(writing);
                self.fails(Some("the disk does not answer"));
                return false;
            }
            Ok(Ok(written)) => written.map_err(|error| error.to_string()),
            Ok(Err(_)) => Err("it broke off".to_owned()),
        };
        self.fails(written.err().as_deref());
        true
    }

    fn fails(&mut self, error: Option<&str>) {
        match (error, self.failing) {
            (Some(error), false) => tracing::warn!(
                "what alerts remember could not be written ({error}), it is tried again; until then a restart may tell an alert twice; check the \
                 disk of the spool"
            ),
            (None, true) => tracing::info!("what alerts remember is written again"),
            _ => {}
        }
        self.failing = error.is_some();
    }
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
