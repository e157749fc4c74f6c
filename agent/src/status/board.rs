//! Where modules write what they know and the snapshot is taken from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::condition::{Code, Condition};
use super::earlier::Run;
use super::facts::{SyncTimes, UplinkCounters};
use super::history::{History, HistoryView, Kind};
use crate::alerts::view::AlertsView;
use crate::clock::{self, WallTime};
use crate::config::about::About;
use crate::contract::SpoolTold;
use crate::record::{DocumentDigest, FeedId};
use crate::source::mllp::registry::Registry;
use crate::source::tap::Tap;
use crate::spool::recent::{Note, Notes};

/// Counters of one feed, since the process started.
#[derive(Debug, Default)]
pub struct FeedCounters {
    pub captured: AtomicU64,
    pub duplicates: AtomicU64,
    pub released: AtomicU64,
    pub quarantined: AtomicU64,
    pub refused: AtomicU64,
    /// Connections refused: outside `peers`, or TLS failed.
    pub connections_refused: AtomicU64,
    /// Connections open now.
    pub connections: AtomicU64,
    /// Milliseconds since 1970; 0 for never.
    pub last_message_ms: AtomicI64,
    /// Files of a directory feed that were captured completely.
    pub files_done: AtomicU64,
    /// Of a directory feed.
    files: Mutex<Option<FilesView>>,
    /// Of a feed that says when it expects something.
    expected: Mutex<Option<ExpectedView>>,
    /// What the feed says about itself.
    about: Mutex<About>,
    /// When a peer last got past everything that keeps peers out (addresses, TLS); when the directory was last seen through.
    peer_at: Mutex<Option<Instant>>,
    scan_at: Mutex<Option<Instant>>,
    /// Who is connected; here so that it outlives a listener that is opened again.
    pub registry: Arc<Registry>,
    /// Who watches the feed's messages live.
    pub tap: Arc<Tap>,
}

/// How a directory feed gets on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesView {
    /// Files captured since the start.
    pub done: u64,
    /// Of them, those without any record: nothing in them, or only a header.
    pub empty: u64,
    /// The file captured last: its name where that may be shown.
    pub last: Option<String>,
    /// The file being captured, bytes gone through, bytes in all.
    pub now: Option<(String, u64, u64)>,
}

/// What a feed expects; RFC 3339.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedView {
    /// By when something must come; null while the clock cannot be believed.
    pub next: Option<String>,
    /// Also of earlier runs; null for never.
    pub last_arrival: Option<String>,
    /// What was expected did not come.
    pub silent: bool,
}

impl FeedCounters {
    /// The file captured last stays if the new view names none.
    pub fn show_files(&self, view: FilesView) {
        let mut files = locked(&self.files);
        let last = view.last.or_else(|| files.take().and_then(|before| before.last));
        *files = Some(FilesView { last, ..view });
    }

    /// Messages that came, whatever became of them; one may count twice.
    pub fn messages(&self) -> u64 {
        [&self.captured, &self.duplicates, &self.quarantined, &self.refused].map(|count| count.load(Ordering::Relaxed)).iter().sum()
    }

    pub fn describe(&self, about: About) {
        *locked(&self.about) = about;
    }

    pub fn about(&self) -> About {
        locked(&self.about).clone()
    }

    pub fn files(&self) -> Option<FilesView> {
        locked(&self.files).clone()
    }

    pub fn show_expected(&self, view: ExpectedView) {
        *locked(&self.expected) = Some(view);
    }

    pub fn expected(&self) -> Option<ExpectedView> {
        locked(&self.expected).clone()
    }

    /// A peer was accepted.
    pub fn peer_accepted(&self) {
        *locked(&self.peer_at) = Some(Instant::now());
    }

    pub fn last_peer_at(&self) -> Option<Instant> {
        *locked(&self.peer_at)
    }

    /// The directory was there and could be read.
    pub fn directory_read(&self) {
        *locked(&self.scan_at) = Some(Instant::now());
    }

    pub fn last_scan_at(&self) -> Option<Instant> {
        *locked(&self.scan_at)
    }
}

/// How the uplink is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkView {
    pub state: UplinkState,
    pub since_ms: i64,
    pub since_at: Instant,
    pub endpoint: String,
    pub last_error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UplinkState {
    Connecting,
    Connected,
    /// Waiting to try again.
    Down,
}

impl UplinkState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Down => "down",
        }
    }
}

/// What is configured, and what became of the newest document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigView {
    /// `None`: the local file alone.
    pub revision: Option<u64>,
    /// `local`, `staged`, `trial`, `committed_local` or `committed`.
    pub state: String,
    pub digest: Option<DocumentDigest>,
    pub since: Option<String>,
    pub tried: Option<ConfigTried>,
    /// It is decided what runs, and not all of it does yet.
    pub is_owed: bool,
    /// The effective configuration for people, without secrets.
    pub text: Arc<str>,
}

impl ConfigView {
    /// Of a gateway that has only its local file.
    pub fn local(text: &str) -> Self {
        Self { revision: None, state: "local".to_owned(), digest: None, since: None, tried: None, is_owed: false, text: text.into() }
    }
}

/// The newest document, as `status --json` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigTried {
    /// Null for what was no document of ours.
    pub revision: Option<u64>,
    /// `staged`, `trial`, `committed_local`, `committed`, `rolled_back` or `refused`.
    pub state: String,
    pub code: Option<String>,
    pub reason: Option<String>,
    pub at: String,
}

/// What is worth remembering of a change of what is configured.
fn config_news(before: &ConfigView, now: &ConfigView) -> Option<String> {
    let name = |revision: Option<u64>| revision.map_or_else(|| "the local file".to_owned(), |revision| format!("revision {revision}"));
    if let Some(tried) = now.tried.as_ref().filter(|tried| before.tried.as_ref() != Some(tried)) {
        let document = tried.revision.map_or_else(|| "a document".to_owned(), |revision| format!("revision {revision}"));
        let why = tried.code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default();
        return Some(format!("{document}: {}{why}", tried.state));
    }
    let is_news = (before.revision, &before.state) != (now.revision, &now.state);
    is_news.then(|| format!("{} runs, {}", name(now.revision), now.state))
}

/// Shared by everyone in the agent.
#[derive(Debug)]
pub struct Board {
    started: Instant,
    /// Every feed that was configured since the start; none is forgotten, so that one that comes back counts on.
    feeds: RwLock<BTreeMap<FeedId, Arc<FeedCounters>>>,
    conditions: Mutex<BTreeMap<(Code, String), Condition>>,
    /// Conditions that were raised or ended so far.
    changes: AtomicU64,
    uplink: Mutex<UplinkView>,
    config: Mutex<ConfigView>,
    /// For the hub; none before the first look.
    spool: Mutex<Option<SpoolTold>>,
    /// What went wrong last with a certificate of ours, by its file; there are two at most.
    identities: Mutex<BTreeMap<PathBuf, String>>,
    notes: Arc<Notes>,
    history: Mutex<History>,
    /// What the uplink did, and how long the journal's syncs took.
    pub uplink_counters: UplinkCounters,
    pub syncs: SyncTimes,
    /// Who is alerted of what, as the keeper of alerts said last.
    alerts: Mutex<AlertsView>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    pub fn new(feeds: impl IntoIterator<Item = FeedId>) -> Arc<Self> {
        let mut history = History::default();
        history.event(Duration::ZERO, Kind::Started, "", concat!("version ", env!("CARGO_PKG_VERSION")));
        Arc::new(Self {
            started: Instant::now(),
            feeds: RwLock::new(feeds.into_iter().map(|id| (id, Arc::default())).collect()),
            conditions: Mutex::default(),
            changes: AtomicU64::new(0),
            uplink: Mutex::new(UplinkView {
                state: UplinkState::Connecting,
                since_ms: clock::now().unix_ms,
                since_at: Instant::now(),
                endpoint: String::new(),
                last_error: None,
            }),
            config: Mutex::new(ConfigView::local("")),
            spool: Mutex::default(),
            identities: Mutex::default(),
            notes: Arc::default(),
            history: Mutex::new(history),
            uplink_counters: UplinkCounters::default(),
            syncs: SyncTimes::default(),
            alerts: Mutex::default(),
        })
    }

    pub fn set_config(&self, view: ConfigView) {
        let news = {
            let mut config = locked(&self.config);
            let news = config_news(&config, &view);
            *config = view;
            news
        };
        if let Some(news) = news {
            self.remember(Kind::Configured, "", &news);
        }
    }

    fn remember(&self, kind: Kind, subject: &str, text: &str) {
        locked(&self.history).event(self.started.elapsed(), kind, subject, text);
    }

    /// What was, since the start; and the outages of earlier runs.
    pub fn history(&self) -> HistoryView {
        locked(&self.history).view(self.started.elapsed(), clock::now())
    }

    pub fn remember_runs(&self, runs: Vec<Run>) {
        locked(&self.history).remember(runs);
    }

    /// The outages since the start, by the wall clock.
    pub fn run(&self, wall: WallTime) -> Option<Run> {
        locked(&self.history).run(self.started.elapsed(), wall)
    }

    /// Grows with every outage that begins or ends.
    pub fn outage_changes(&self) -> u64 {
        locked(&self.history).outage_changes()
    }

    pub fn config(&self) -> ConfigView {
        locked(&self.config).clone()
    }

    /// What waits, as the hub is told with the next status.
    pub fn tell_spool(&self, told: SpoolTold) {
        *locked(&self.spool) = Some(told);
    }

    pub fn spool_told(&self) -> Option<SpoolTold> {
        locked(&self.spool).clone()
    }

    pub fn uptime_s(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// Feeds that are configured from now on. To be called before anything asks for their counters.
    pub fn learn(&self, feeds: impl IntoIterator<Item = FeedId>) {
        let mut known = self.feeds.write().unwrap_or_else(PoisonError::into_inner);
        for feed in feeds {
            known.entry(feed).or_default();
        }
    }

    /// Counters of a feed; those of one that is not known count into the void.
    pub fn feed(&self, feed: &FeedId) -> Arc<FeedCounters> {
        self.feeds.read().unwrap_or_else(PoisonError::into_inner).get(feed).cloned().unwrap_or_default()
    }

    /// Raises a condition about `subject` (a feed, an endpoint, a file; empty for the gateway), or renews its text. Logged when it is new.
    pub fn raise(&self, code: Code, subject: &str, text: impl Into<String>) {
        let text = text.into();
        let mut conditions = locked(&self.conditions);
        let key = (code, subject.to_owned());
        if let Some(known) = conditions.get_mut(&key) {
            known.text = text;
            return;
        }
        tracing::warn!(condition = code.as_str(), subject, "{text}");
        let since = clock::rfc3339(clock::now().unix_ms);
        self.remember(Kind::Raised(code.as_str(), code.severity()), subject, &text);
        let condition =
            Condition { code: code.as_str(), severity: code.severity(), subject: subject.to_owned(), text, runbook: code.runbook(), since };
        conditions.insert(key, condition);
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    pub fn clear(&self, code: Code, subject: &str) {
        if locked(&self.conditions).remove(&(code, subject.to_owned())).is_some() {
            self.changes.fetch_add(1, Ordering::Relaxed);
            self.remember(Kind::Cleared(code.as_str()), subject, "");
            tracing::info!(condition = code.as_str(), subject, "condition over");
        }
    }

    /// Grows with every condition that is raised or ends.
    pub fn condition_changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    pub fn conditions(&self) -> Vec<Condition> {
        locked(&self.conditions).values().cloned().collect()
    }

    pub fn show_alerts(&self, view: &AlertsView) {
        let before = std::mem::replace(&mut *locked(&self.alerts), view.clone());
        if view.differs(&before) {
            self.changes.fetch_add(1, Ordering::Relaxed); // the hub is told who is to be alerted
        }
    }

    pub fn alerts(&self) -> AlertsView {
        locked(&self.alerts).clone()
    }

    pub fn set_uplink(&self, state: UplinkState, endpoint: &str, error: Option<String>) {
        let mut view = locked(&self.uplink);
        locked(&self.history).uplink(self.started.elapsed(), state, error.as_deref());
        if view.state != state {
            (view.since_ms, view.since_at) = (clock::now().unix_ms, Instant::now());
            if state == UplinkState::Connected {
                self.uplink_counters.connections.fetch_add(1, Ordering::Relaxed);
            }
        }
        view.state = state;
        endpoint.clone_into(&mut view.endpoint);
        if error.is_some() {
            view.last_error = error;
        }
    }

    /// A connection with this certificate of ours failed.
    pub fn set_identity_fault(&self, certificate: &Path, fault: &str) {
        locked(&self.identities).insert(certificate.to_owned(), fault.to_owned());
    }

    pub fn identity_fault(&self, certificate: &Path) -> Option<String> {
        locked(&self.identities).get(certificate).cloned()
    }

    pub fn uplink(&self) -> UplinkView {
        locked(&self.uplink).clone()
    }

    /// Notes a step of a message for the recent history; never waits.
    pub fn note(&self, note: Note) {
        match note {
            Note::Published { .. } => self.uplink_counters.published(),
            Note::Acked { .. } => self.uplink_counters.acknowledged(),
            Note::Settled { .. } => self.uplink_counters.settled(),
            _ => {}
        }
        self.notes.push(note);
    }

    pub fn notes(&self) -> &Arc<Notes> {
        &self.notes
    }

    /// Messages that are durable now, and such as were before; `received_at_ms`: of the newest.
    pub fn count(&self, feed: &FeedId, captured: u64, duplicates: u64, received_at_ms: i64) {
        if captured + duplicates > 0 {
            let counters = self.feed(feed);
            counters.captured.fetch_add(captured, Ordering::Relaxed);
            counters.duplicates.fetch_add(duplicates, Ordering::Relaxed);
            counters.last_message_ms.store(received_at_ms, Ordering::Relaxed);
        }
    }
}
