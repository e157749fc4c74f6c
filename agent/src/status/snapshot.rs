//! The gateway status: one snapshot, the same on every surface. Its JSON is what outside tools rely on; fields are added, never changed.
//!
//! [`build`] is pure: board and spool view in, [`Snapshot`] out. [`Reporter`] holds what a snapshot is made from and the gauge, and is shared by
//! the control socket and the agent's housekeeping. Holds counts, times, names and codes, never content (I7).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::board::{Board, ConfigTried, ConfigView, ExpectedView, FilesView};
use super::condition::{Code, Condition, Severity};
use super::facts::{ProcessFacts, Syncs, UplinkCounts};
use super::gauge::Gauge;
use super::rate::{Rate, Rates};
use crate::alerts::view::{AlertsShown, Silenced, Window};
use crate::clock::{self, WallTime};
use crate::config::about::About;
use crate::contract::SpoolTold;
use crate::record::{DocumentDigest, Incarnation, Name};
use crate::spool::{Monitor, SpoolView};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub gateway: Name,
    pub site: Name,
    pub version: String,
    pub uptime_s: u64,
    pub uplink: Uplink,
    pub spool: Spool,
    pub config: Config,
    pub lanes: Vec<Lane>,
    pub feeds: Vec<Feed>,
    pub conditions: Vec<Shown>,
    /// Maintenance windows that hold.
    #[serde(default)]
    pub maintenance: Vec<Window>,
    #[serde(default)]
    pub alerts: AlertsShown,
    /// The system's clock cannot be believed.
    #[serde(default)]
    pub clock_suspect: bool,
    /// How often an agent was started on this spool.
    #[serde(default)]
    pub starts: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessFacts>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uplink {
    /// `connecting`, `connected` or `down`.
    pub state: String,
    /// RFC 3339.
    pub since: String,
    /// The endpoint in use or last tried; null before the first attempt.
    pub endpoint: Option<String>,
    /// The last error there was, also after it was overcome.
    pub last_error: Option<String>,
    /// How long it has been so, by time that passes.
    #[serde(default)]
    pub for_s: u64,
    #[serde(default)]
    pub counts: UplinkCounts,
    /// RFC 3339: the end of our own certificate; null where there is none.
    #[serde(default)]
    pub certificate_ends: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spool {
    pub bytes: u64,
    pub max_bytes: u64,
    /// Null while the spool is not filling.
    pub time_to_full_s: Option<u64>,
    /// Notes for `siteward messages` that were dropped under load since the start; no message is affected.
    #[serde(default)]
    pub notes_dropped: u64,
    #[serde(default)]
    pub syncs: Syncs,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Revision of the document that runs; null where only the local file does.
    pub revision: Option<u64>,
    /// `local`, `staged`, `trial`, `committed_local` or `committed`.
    pub state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<DocumentDigest>,
    /// Since when that document is the one; RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The newest document there is something to say about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<ConfigTried>,
}

impl From<ConfigView> for Config {
    fn from(view: ConfigView) -> Self {
        Self { revision: view.revision, state: view.state, digest: view.digest, since: view.since, tried: view.tried }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    pub name: String,
    pub records: u64,
    pub bytes: u64,
    /// Null for an empty lane, and while the clock cannot be believed.
    pub oldest_age_s: Option<u64>,
}

/// Counters are since the agent started; `queued`, `last_seq` and `incarnation` are of the spool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feed {
    pub id: Name,
    pub lane: String,
    /// No longer configured, still draining.
    pub retired: bool,
    pub connections: u64,
    /// Connections closed because of `peers` or TLS.
    #[serde(default)]
    pub connections_refused: u64,
    pub captured: u64,
    pub released: u64,
    pub queued: u64,
    pub duplicates: u64,
    pub quarantined: u64,
    pub refused: u64,
    pub last_seq: u64,
    pub incarnation: Incarnation,
    /// RFC 3339; null for never since the agent started.
    pub last_message_at: Option<String>,
    /// Null for never, and while the clock cannot be believed.
    #[serde(default)]
    pub last_message_age_s: Option<u64>,
    /// Null while nothing waits, and while the clock cannot be believed.
    #[serde(default)]
    pub oldest_age_s: Option<u64>,
    /// How many messages came within the last minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Only of a feed that says something about itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<AboutShown>,
    /// Only of a directory feed that has captured something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Files>,
    /// Only of a feed that says when it expects something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<ExpectedView>,
}

/// What a feed says about itself, and whether what was promised is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AboutShown {
    pub owner: Option<String>,
    pub criticality: Option<String>,
    pub delivery_objective_s: Option<u64>,
    /// `met` or `missed`: whether the oldest message that the hub has not confirmed is older. Null without an objective, and while that age
    /// is not known.
    pub objective: Option<String>,
    pub data_class: Option<String>,
    pub contract_version: Option<String>,
    /// A day.
    pub sunset: Option<String>,
}

impl AboutShown {
    /// `waiting`: whether anything is unsettled; `age_s`: since when, where that is known.
    fn of(about: About, waiting: bool, age_s: Option<u64>) -> Option<Self> {
        if about == About::default() {
            return None;
        }
        let age = if waiting { age_s } else { Some(0) };
        let verdict = |(most, age): (Duration, u64)| if Duration::from_secs(age) <= most { "met" } else { "missed" }.to_owned();
        Some(Self {
            owner: about.owner,
            criticality: about.criticality.map(|word| word.as_str().to_owned()),
            delivery_objective_s: about.delivery_objective.map(|most| most.as_secs()),
            objective: about.delivery_objective.zip(age).map(verdict),
            data_class: about.data_class.map(|word| word.as_str().to_owned()),
            contract_version: about.contract_version,
            sunset: about.sunset.map(|day| day.to_string()),
        })
    }
}

/// Files of a directory feed; a name is shown only where the feed allows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// Since the agent started.
    pub captured: u64,
    /// Of them, without any record.
    #[serde(default)]
    pub empty: u64,
    pub last: Option<String>,
    pub reading: Option<String>,
    /// Of the file being read.
    pub bytes_read: u64,
    pub bytes: u64,
}

impl From<FilesView> for Files {
    fn from(view: FilesView) -> Self {
        let (reading, bytes_read, bytes) = view.now.map_or((None, 0, 0), |(label, read, all)| (Some(label), read, all));
        Self { captured: view.done, empty: view.empty, last: view.last, reading, bytes_read, bytes }
    }
}

/// A condition as shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    pub code: String,
    pub severity: Severity,
    pub subject: String,
    pub text: String,
    pub runbook: String,
    pub since: String,
    /// Its hold-down is over and no maintenance window silences it: somebody is alerted.
    #[serde(default)]
    pub alerting: bool,
    /// A maintenance window keeps it from alerting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silenced: Option<Silenced>,
}

impl From<Condition> for Shown {
    fn from(c: Condition) -> Self {
        let Condition { severity, subject, text, runbook, since, .. } = c;
        Self { code: c.code.to_owned(), severity, subject, text, runbook, since, alerting: false, silenced: None }
    }
}

/// Puts a snapshot together.
pub fn build(site: &Name, gateway: &Name, board: &Board, view: &SpoolView, time_to_full_s: Option<u64>, now: WallTime) -> Snapshot {
    let uplink = board.uplink();
    let (mut conditions, alerts): (Vec<Shown>, _) = (board.conditions().into_iter().map(Shown::from).collect(), board.alerts());
    for shown in &mut conditions {
        (shown.alerting, shown.silenced) = alerts.of(&shown.code, &shown.subject);
    }
    conditions.sort_by_key(|c| std::cmp::Reverse(c.severity));
    Snapshot {
        gateway: gateway.clone(),
        site: site.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_s: board.uptime_s(),
        uplink: Uplink {
            state: uplink.state.as_str().to_owned(),
            since: clock::rfc3339(uplink.since_ms),
            endpoint: (!uplink.endpoint.is_empty()).then_some(uplink.endpoint),
            last_error: uplink.last_error,
            for_s: uplink.since_at.elapsed().as_secs(),
            counts: board.uplink_counters.counts(),
            certificate_ends: board.uplink_counters.certificate_end().map(|end| clock::rfc3339(end.saturating_mul(1000))),
        },
        spool: Spool {
            bytes: view.bytes,
            max_bytes: view.max_bytes,
            time_to_full_s,
            notes_dropped: board.notes().dropped(),
            syncs: board.syncs.shown(),
        },
        config: Config::from(board.config()),
        lanes: lanes(view, now),
        feeds: feeds(board, view, now),
        conditions,
        maintenance: alerts.windows,
        alerts: alerts.shown,
        clock_suspect: now.suspect,
        starts: alerts.starts,
        process: None,
    }
}

/// How long ago, where both times can be believed.
fn age_s(received_ms: i64, now: WallTime) -> Option<u64> {
    let believable = !now.suspect && received_ms >= clock::RELEASED_AT_MS;
    believable.then(|| u64::try_from(now.unix_ms.saturating_sub(received_ms) / 1000).unwrap_or(0))
}

fn lanes(view: &SpoolView, now: WallTime) -> Vec<Lane> {
    let age = |received_ms: i64| age_s(received_ms, now);
    let lane = |lane: &crate::spool::LaneView| Lane {
        name: lane.lane.as_str().to_owned(),
        records: lane.records,
        bytes: lane.bytes,
        oldest_age_s: lane.oldest_received_ms.and_then(age),
    };
    view.lanes.iter().map(lane).collect()
}

fn feeds(board: &Board, view: &SpoolView, now: WallTime) -> Vec<Feed> {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let feed = |feed: &crate::spool::FeedView| {
        let counters = board.feed(&feed.id);
        let last_message_ms = counters.last_message_ms.load(Ordering::Relaxed);
        let queued = feed.last_seq.saturating_sub(feed.settled_seq);
        let oldest_age_s = feed.oldest_received_ms.and_then(|received_ms| age_s(received_ms, now));
        Feed {
            id: feed.id.clone(),
            lane: feed.lane.as_str().to_owned(),
            retired: feed.retired,
            connections: count(&counters.connections),
            connections_refused: count(&counters.connections_refused),
            captured: count(&counters.captured),
            released: count(&counters.released),
            queued,
            oldest_age_s,
            rate: None,
            about: AboutShown::of(counters.about(), queued > 0, oldest_age_s),
            duplicates: count(&counters.duplicates),
            quarantined: count(&counters.quarantined),
            refused: count(&counters.refused),
            last_seq: feed.last_seq,
            incarnation: view.incarnation,
            last_message_at: (last_message_ms != 0).then(|| clock::rfc3339(last_message_ms)),
            last_message_age_s: age_s(last_message_ms, now),
            files: counters.files().map(Files::from),
            expected: counters.expected(),
        }
    };
    view.feeds.iter().map(feed).collect()
}

/// What snapshots are made from.
#[derive(Debug)]
pub struct Reporter {
    site: Name,
    gateway: Name,
    board: Arc<Board>,
    monitor: Monitor,
    started: Instant,
    gauge: Mutex<Gauge>,
    rates: Mutex<Rates>,
}

impl Reporter {
    pub fn new(site: Name, gateway: Name, board: Arc<Board>, monitor: Monitor) -> Arc<Self> {
        Arc::new(Self { site, gateway, board, monitor, started: Instant::now(), gauge: Mutex::default(), rates: Mutex::default() })
    }

    /// The status now; also a sample for the gauge, and what the hub is told of the spool.
    pub fn snapshot(&self) -> Snapshot {
        let view = self.monitor.view();
        let time_to_full_s = {
            let mut gauge = self.gauge.lock().unwrap_or_else(PoisonError::into_inner);
            gauge.observe(self.started.elapsed(), view.waiting_bytes);
            // Where messages are refused for want of room nothing grows any more.
            let is_full = self.board.conditions().iter().any(|condition| condition.code == Code::SpoolFull.as_str());
            gauge.time_to_full_s(if is_full { 0 } else { view.room_bytes })
        };
        let now = clock::now();
        self.board.tell_spool(spool_told(&view, time_to_full_s, now));
        let mut snapshot = build(&self.site, &self.gateway, &self.board, &view, time_to_full_s, now);
        self.observe_rates(&mut snapshot.feeds);
        snapshot.process = ProcessFacts::read();
        snapshot
    }

    fn observe_rates(&self, feeds: &mut [Feed]) {
        let at = self.started.elapsed();
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        rates.keep(|id| feeds.iter().any(|feed| feed.id == *id));
        for feed in feeds {
            feed.rate = rates.observe(at, &feed.id, feed.captured);
        }
    }
}

/// What the hub is told of the spool.
fn spool_told(view: &SpoolView, time_to_full_s: Option<u64>, now: WallTime) -> SpoolTold {
    let queued = view.feeds.iter().map(|feed| feed.last_seq.saturating_sub(feed.settled_seq)).sum();
    let oldest = view.lanes.iter().filter_map(|lane| lane.oldest_received_ms).min().filter(|&oldest| age_s(oldest, now).is_some());
    SpoolTold { queued, oldest: oldest.map(clock::rfc3339), bytes: view.bytes, max_bytes: view.max_bytes, time_to_full_s }
}

/// One line for `STATUS=`.
pub fn one_line(snapshot: &Snapshot) -> String {
    let queued: u64 = snapshot.feeds.iter().map(|feed| feed.queued).sum();
    let mut line = format!("uplink {}; {queued} queued", snapshot.uplink.state);
    if !snapshot.conditions.is_empty() {
        let codes: Vec<&str> = snapshot.conditions.iter().map(|c| c.code.as_str()).collect();
        line.push_str("; conditions: ");
        line.push_str(&codes.join(", "));
    }
    line
}

#[cfg(test)]
pub(crate) mod tests;
